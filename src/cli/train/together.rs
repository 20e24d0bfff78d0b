//! Several processes that train one network: who they are, and what each of them must know before the first update.
//! Process 0 reads settings, checkpoints and first weights, and writes; the others get everything from it.

use super::super::corrupt::frost;
use super::super::exit::{Usage, end_with_parent};
use super::super::launch::LAUNCHED;
use super::super::torch::warn_of_unused;
use super::Args;
use crate::config::{Data, Experiment};
use crate::model::Network;
use crate::model::device::{self, Selected};
use crate::objective::Objective;
use crate::runs::Run;
use crate::torch_ext::{Group, Meeting, Reducer};
use crate::train::TrainState;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Arc;
use tch::Device;

/// This process among those that train together; most often the only one.
pub(super) struct Together {
    group: Option<Arc<Group>>,
    /// Number among the processes of this machine, and how many these are.
    local: (u32, u32),
}

/// What the others must know of the run.
#[derive(Serialize, Deserialize)]
struct Placed {
    root: PathBuf,
    state: Option<TrainState>,
    torch_threads: i32,
}

impl Together {
    /// The only process.
    pub(super) fn alone() -> Self {
        Self { group: None, local: (0, 1) }
    }

    /// Joins the others, if the environment tells of some.
    pub(super) fn join(args: &Args) -> anyhow::Result<Self> {
        if std::env::var_os(LAUNCHED).is_some() {
            end_with_parent();
        }
        let Some(Told { meeting, local }) = told(&|name| std::env::var(name).ok())? else {
            return Ok(Self::alone());
        };
        if args.record.is_some() || args.measured.is_some() {
            return Err(Usage("several processes can neither --record nor measure; start one".into()).into());
        }
        Ok(Self { group: Some(Arc::new(Group::join(&meeting)?)), local })
    }

    /// Whether this process speaks and writes.
    pub(super) fn leads(&self) -> bool {
        self.group.as_ref().is_none_or(|group| group.leads())
    }

    /// Number of processes.
    pub(super) fn world(&self) -> u32 {
        self.group.as_ref().map_or(1, |group| group.world())
    }

    /// Number of processes on this machine.
    pub(super) fn here(&self) -> u32 {
        self.local.1
    }

    /// What to add to a device's note.
    pub(super) fn note(&self, device: &str) -> String {
        match self.world() {
            1 => device.to_owned(),
            n => format!("{device}, {n} processes"),
        }
    }

    /// The device that was asked for; of several GPUs, this process's own.
    pub(super) fn device(&self, asked: &str) -> anyhow::Result<Selected> {
        let Some(group) = &self.group else {
            let selected = device::select(asked)?;
            warn_of_unused(&selected);
            return Ok(selected);
        };
        if asked.starts_with("cuda:") {
            return Err(
                Usage(format!("{asked}: several processes need a GPU each; use --device cuda")).into()
            );
        }
        let selected = device::select_own(asked, self.local.0, self.local.1)?;
        group.agree("devices (--device)", if selected.device == Device::Cpu { "cpu" } else { "cuda" })?;
        group.connect(selected.device)?;
        Ok(selected)
    }

    /// The text of process 0.
    pub(super) fn share(&self, mine: impl FnOnce() -> String) -> anyhow::Result<String> {
        let Some(group) = &self.group else { return Ok(mine()) };
        let mine = if group.leads() { mine() } else { String::new() };
        Ok(String::from_utf8(group.share(mine.as_bytes())?)?)
    }

    /// The settings of process 0.
    pub(super) fn settings(&self, mine: &Experiment) -> anyhow::Result<Experiment> {
        let text = self.share(|| mine.to_toml())?;
        if self.leads() {
            return Ok(mine.clone());
        }
        Ok(Experiment::parse(&text, "the settings of process 0", &[])?)
    }

    /// Refuses other data than process 0 has, and settings that several processes cannot train.
    pub(super) fn agree(&self, experiment: &Experiment, data: &Data<'_>) -> anyhow::Result<()> {
        let Some(group) = &self.group else { return Ok(()) };
        let digests: Vec<String> = data
            .datasets()
            .map(|d| format!("{} {}", d.manifest().dataset, d.manifest().fingerprint()))
            .collect();
        group.agree("shards (--shards)", &digests.join("\n"))?;
        group.agree("sources of frost (NCT_FROST)", frost::asked().as_str())?;
        group.agree("versions of nct", env!("CARGO_PKG_VERSION"))?;
        if experiment.modules.rdm_prediction.is_some() {
            let what = "modules.rdm_prediction compares all images of a batch, of which each of several processes has but a share; train with one process";
            return Err(Usage(what.into()).into());
        }
        Ok(())
    }

    /// The run and its state: process 0 makes or opens them.
    pub(super) fn place(
        &self,
        make: impl FnOnce() -> anyhow::Result<(Run, Option<TrainState>)>,
    ) -> anyhow::Result<(Run, Option<TrainState>)> {
        if !self.leads() {
            let placed: Placed = serde_json::from_str(&self.share(String::new)?)?;
            tch::set_num_threads(placed.torch_threads);
            return Ok((Run::of_another(&placed.root), placed.state));
        }
        let (run, state) = make()?;
        if self.group.is_some() {
            let root = run.root().to_path_buf();
            let placed = Placed { root, state: state.clone(), torch_threads: tch::get_num_threads() };
            let text = serde_json::to_string(&placed)?;
            self.share(|| text)?;
        }
        Ok((run, state))
    }

    /// Ends when all have ended well, so that none is missed while it is needed.
    pub(super) fn part(&self) -> anyhow::Result<()> {
        self.group.as_ref().map_or(Ok(()), |group| Ok(group.meet()?))
    }

    /// Gives all processes the weights of process 0. What exchanges gradients while a backward pass goes on, if they are
    /// to be exchanged so.
    pub(super) fn connect(
        &self,
        net: &mut Network,
        objective: &Objective,
        meanwhile: bool,
    ) -> anyhow::Result<Option<Reducer>> {
        let Some(group) = &self.group else { return Ok(None) };
        net.join(Arc::clone(group))?;
        if !meanwhile {
            return Ok(None);
        }
        let all = net.params().trainable().into_iter().chain(objective.params().trainable());
        let moving: Vec<_> = all.map(|(_, tensor)| tensor).filter(tch::Tensor::requires_grad).collect();
        Ok(Some(Reducer::new(Arc::clone(group), &moving)?))
    }
}

/// Who is who.
#[derive(Debug, PartialEq)]
struct Told {
    meeting: Meeting,
    local: (u32, u32),
}

/// What torchrun, `nct launch` or srun say; none if this process is the only one.
fn told(get: &dyn Fn(&str) -> Option<String>) -> Result<Option<Told>, Usage> {
    let number = |name: &str| -> Result<Option<u32>, Usage> {
        let Some(text) = get(name) else { return Ok(None) };
        let parsed =
            text.trim().parse().map_err(|_| Usage(format!("{name}={text}: expected a whole number")))?;
        Ok(Some(parsed))
    };
    let needed = |name: &str| -> Result<u32, Usage> {
        number(name)?.ok_or_else(|| {
            Usage(format!("WORLD_SIZE is set and {name} is not; use torchrun, srun or nct launch"))
        })
    };
    let interface = get("GLOO_SOCKET_IFNAME");
    if let Some(world) = number("WORLD_SIZE")? {
        if world <= 1 {
            return Ok(None);
        }
        let rank = needed("RANK")?;
        let host = get("MASTER_ADDR").unwrap_or_else(|| "127.0.0.1".into());
        let port = port(needed("MASTER_PORT")?)?;
        let local = (number("LOCAL_RANK")?.unwrap_or(rank), number("LOCAL_WORLD_SIZE")?.unwrap_or(world));
        return checked(Told { meeting: Meeting { host, port, interface, rank, world }, local });
    }
    // srun's own; a batch script without it has the numbers of the whole job and is one process.
    let Some(world) = number("SLURM_STEP_NUM_TASKS")?.filter(|n| *n > 1) else { return Ok(None) };
    let rank = number("SLURM_PROCID")?.unwrap_or(0);
    let nodes = number("SLURM_STEP_NUM_NODES")?.unwrap_or(1).max(1);
    let first = get("SLURM_STEP_NODELIST").and_then(|list| first_node(&list));
    let host = get("MASTER_ADDR").or(first).unwrap_or_else(|| "127.0.0.1".into());
    let job = number("SLURM_JOB_ID")?.unwrap_or(0);
    let port = port(number("MASTER_PORT")?.unwrap_or(20_000 + job % 20_000))?;
    let local = (number("SLURM_LOCALID")?.unwrap_or(0), world.div_ceil(nodes));
    checked(Told { meeting: Meeting { host, port, interface, rank, world }, local })
}

fn port(number: u32) -> Result<u16, Usage> {
    u16::try_from(number).map_err(|_| Usage(format!("MASTER_PORT={number}: ports end at 65535")))
}

fn checked(told: Told) -> Result<Option<Told>, Usage> {
    let Meeting { rank, world, .. } = told.meeting;
    if rank >= world {
        return Err(Usage(format!("process {rank} of {world}: the numbers of the environment do not fit")));
    }
    Ok(Some(told))
}

/// The first host of a list such as `node[01-04,07],big2`.
fn first_node(list: &str) -> Option<String> {
    let (name, rest) = list.split_once('[').map_or((list, ""), |(name, rest)| (name, rest));
    if name.contains(',') || rest.is_empty() {
        return list.split(',').next().map(str::to_owned).filter(|host| !host.is_empty());
    }
    let number = rest.split([',', '-', ']']).next()?;
    Some(format!("{name}{number}"))
}

/// The environment of process `rank` of `world` on this machine, which meet at `port`.
pub(crate) fn environment(rank: u32, world: u32, port: u16) -> [(&'static str, String); 6] {
    [
        ("RANK", rank.to_string()),
        ("WORLD_SIZE", world.to_string()),
        ("LOCAL_RANK", rank.to_string()),
        ("LOCAL_WORLD_SIZE", world.to_string()),
        ("MASTER_ADDR", "127.0.0.1".to_owned()),
        ("MASTER_PORT", port.to_string()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(vars: &[(&str, &str)]) -> Result<Option<Told>, String> {
        let get = |name: &str| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        told(&get).map_err(|e| e.to_string())
    }

    #[test]
    fn the_environment_says_who_is_who() {
        assert_eq!(of(&[]), Ok(None));
        assert_eq!(of(&[("WORLD_SIZE", "1"), ("RANK", "0")]), Ok(None));
        let launched = environment(2, 3, 4000);
        let launched: Vec<(&str, &str)> = launched.iter().map(|(n, v)| (*n, v.as_str())).collect();
        let meeting = Meeting { host: "127.0.0.1".into(), port: 4000, interface: None, rank: 2, world: 3 };
        assert_eq!(of(&launched), Ok(Some(Told { meeting, local: (2, 3) })));
        // A batch script without srun is one process, however many the job has.
        assert_eq!(of(&[("SLURM_PROCID", "0"), ("SLURM_NTASKS", "8")]), Ok(None));
        let slurm = [
            ("SLURM_STEP_NUM_TASKS", "8"),
            ("SLURM_STEP_NUM_NODES", "2"),
            ("SLURM_STEP_NODELIST", "gpu[03-04]"),
            ("SLURM_PROCID", "5"),
            ("SLURM_LOCALID", "1"),
            ("SLURM_JOB_ID", "1234567"),
        ];
        let meeting = Meeting { host: "gpu03".into(), port: 34_567, interface: None, rank: 5, world: 8 };
        assert_eq!(of(&slurm), Ok(Some(Told { meeting, local: (1, 4) })));
    }

    #[test]
    fn what_does_not_fit_is_told() {
        assert!(of(&[("WORLD_SIZE", "2")]).unwrap_err().contains("RANK"));
        assert!(of(&[("WORLD_SIZE", "two")]).unwrap_err().contains("WORLD_SIZE=two"));
        let far = [("WORLD_SIZE", "2"), ("RANK", "1"), ("MASTER_PORT", "70000")];
        assert!(of(&far).unwrap_err().contains("MASTER_PORT=70000"));
        let beyond = [("WORLD_SIZE", "2"), ("RANK", "2"), ("MASTER_PORT", "1")];
        assert!(of(&beyond).unwrap_err().contains("process 2 of 2"));
    }

    #[test]
    fn the_first_host_of_a_list() {
        for (list, first) in
            [("a1", "a1"), ("a1,b2", "a1"), ("n[1,3]", "n1"), ("n[08-11],m", "n08"), ("a,n[1-2]", "a")]
        {
            assert_eq!(first_node(list).as_deref(), Some(first));
        }
        assert_eq!(first_node(""), None);
    }
}
