//! Every error that ends the program has a code, which `nct explain` expands.

use super::exit::{Interrupted, Usage};
#[cfg(feature = "torch")]
use crate::analysis::AnalysisError;
#[cfg(feature = "torch")]
use crate::config::{ConfigError, DataError};
#[cfg(feature = "torch")]
use crate::datajoint::DatabaseError;
#[cfg(feature = "torch")]
use crate::eval::EvalError;
use crate::ingest::IngestError;
use crate::load::LoadError;
#[cfg(feature = "torch")]
use crate::model::ModelError;
#[cfg(feature = "torch")]
use crate::report::ReportError;
use crate::runs::RunError;
use crate::schedule::ScheduleError;
use crate::shard::ShardError;
use crate::store::StoreError;
#[cfg(feature = "torch")]
use crate::torch_ext::GroupError;
#[cfg(feature = "torch")]
use crate::train::TrainError;

/// A kind of error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Code {
    /// As it is printed.
    pub(super) name: &'static str,
    /// What the process ends with.
    pub(super) exit: u8,
    /// What it is.
    pub(super) title: &'static str,
    /// Causes and ways out.
    pub(super) text: &'static str,
}

macro_rules! codes {
    ($($name:ident $exit:literal $title:literal $text:literal)*) => {
        $(const $name: Code = Code { name: stringify!($name), exit: $exit, title: $title, text: $text };)*
        /// All of them.
        pub(super) const ALL: &[Code] = &[$($name),*];
    };
}

codes! {
    N001 2 "what was asked for cannot be done with what is there"
"Options contradict one another, or name something that is not there. The message says which. `nct help COMMAND` lists
the options of a command, `nct runs ls` the runs, `nct inspect shards/` the data sets."
    N002 130 "interrupted"
"Ctrl-C, SIGTERM, or a cluster whose time was over. What was done is saved. `nct train --resume RUN` goes on exactly
there; `nct prepare` and `nct run` go on with the same command."
    N101 2 "raw data that are not as they should be"
"The message names the file and the place in it. Common causes: an archive that was not unpacked as a whole, a folder one
level too high or too low, files that were replaced after a first `nct prepare` (--force begins anew). The layouts are
those that the data sets are published in; `nct synth DIR` writes small examples of them to compare with."
    N102 2 "a raw file cannot be read"
"The operating system refused: the file is not there, or not yours to read, or the disk fails. `ls -l` on the file and on
the folders above it usually tells."
    N201 2 "a damaged shard"
"A checksum does not fit, or the file is not of a version that this program reads. The message names the shard, the block
and the place. `nct verify shards/` says what else is damaged. Remove the data set's folder and make it again with `nct
prepare`: the same raw data give the same bytes. If it happens again, suspect the disk or the memory."
    N202 2 "a folder of shards that is not whole"
"Prepared data are a folder with a manifest.json for each data set. Without it, preparation did not end: run the same
`nct prepare` again, and it goes on where it was. If the folder is another one, name it with --shards."
    N203 2 "a shard cannot be read or written"
"The operating system refused. When writing, most often the disk is full or the folder is not yours: nothing half
written is taken for whole, and the same command goes on later."
    N204 2 "prepared data that do not fit the settings"
"The data sets that the settings name do not fit together, or lack what is asked of them: sessions without images, other
sizes, no labels. `nct inspect shards/` says what is in them, `nct config show` what the settings ask for."
    N205 2 "a store does not give the data"
"The message has the store's last answer. Data behind a URL are asked for again for a while, and whatever is fetched is
checked; a run that ended for this resumes. `nct verify URL` checks every byte, `nct help stores` tells what URLs and
credentials look like."
    N206 2 "no room for fetched data"
"Data from a store are kept in a folder while they are used: NCT_CACHE names it, NCT_CACHE_GB says how large it gets.
What nct keeps there may be deleted at any time."
    N301 2 "settings that cannot be used"
"The message names the file and line, or the --set, and the name that may have been meant. `nct help settings` lists all
keys; `nct config schema` is a schema with which editors check and complete recipes. A key that would have no effect with
the others is refused too: take it out, or change the setting it belongs to."
    N302 2 "batches that cannot be mixed as asked"
"The [mix] section asks for something that the streams do not give: no batches at all, a ratio of nothing, weights of
streams that are not there. `nct inspect shards/` says what the streams have, and `nct train --dry-run`, with settings that
work, what an epoch shows of each."
    N401 2 "a run's folder that is not as it should be"
"Not a run (no config.toml in it), in use by another process, or damaged. `nct runs ls` lists the runs of a folder. A run
in use is one that a process trains into right now; when that process has ended, it is free, nothing needs clearing."
    N402 2 "a run's file cannot be read or written"
"The operating system refused. When writing, most often the disk is full: free some space (`nct runs gc` says what can
go) and go on with `nct train --resume RUN`; the last checkpoint is whole."
    N501 2 "a network that cannot be built"
"The [model] section contradicts itself or the data: a layer that is not there, images too small for so many poolings,
sessions of other sizes. `nct inspect shards/` says how large images are, and `nct train --dry-run`, with settings that work,
shows the network layer by layer."
    N502 2 "a weights file that does not fit"
"The message names the file and what is missing, unexpected, or of another shape. `nct weights FILE` lists what is in it,
and `nct weights FILE --diff RUN` what differs. Without `init.strict` what fits is taken. Files of torch.save are read
without running anything; one that holds more than tensors in plain containers is refused."
    N503 2 "a device that is not there"
"No such GPU, a driver or GPU that is too old for the libtorch in place, or libtorch's CUDA half or what compiles kernels
is missing. `nct doctor` shows driver and GPUs, what is missing, and what brings it. `--device cpu` works everywhere."
    N601 1 "a loss that is no number"
"An update gave NaN or infinity. checkpoints/failed.safetensors is the state before it, failure.json names the update and
its images. Most often the learning rate is too large: lower optimizer.lr, or warm it up with schedule.lr_warmup. If the
same images come back, look at them: `nct inspect shards/SET --contact-sheet sheet.png --images 12,40,7`, with the ids of
failure.json, and as SET its source or, if that is a session, the session's data set. numerics.on_nonfinite = \"skip\" leaves
such updates out and counts them."
    N602 1 "no memory left"
"The network, its gradients and the batch did not fit. Reduce data.batch_size and data.neural_batch_size, and set
mix.batches_per_step to add gradients up to the batch you wanted; on a GPU numerics.precision = \"bf16\" halves the activations. `nct
train --dry-run` estimates what is needed. Data on the host are bounded by loader.cache_mb."
    N603 2 "a checkpoint that does not fit"
"Written by another version, for other settings, or damaged. A run is resumed with its own settings; to start another one
from its weights use init.from."
    N604 2 "settings that do not fit the data"
"Training asks for something that the data do not have, such as a task in schedule.to_monitor without data of it."
    N651 2 "processes that do not meet"
"Several processes were to train together, and did not find each other within five minutes: one did not start, or the host
and port of process 0 (MASTER_ADDR, MASTER_PORT) cannot be reached from where it runs. On machines with several networks,
GLOO_SOCKET_IFNAME names the one to use. If you meant to train alone, unset WORLD_SIZE. `nct help parallel` has more."
    N652 3 "another process is gone"
"One of the processes that train together ended: killed, out of memory, or with an error of its own, which it printed. The
others end too, since none can go on alone. The last checkpoint is whole: `nct launch -n N train --resume RUN` goes on, with as
many processes as you like. checkpoint.every_updates saves within epochs too."
    N653 2 "processes that disagree"
"All processes of a training need the same shards and the same version of nct; settings are those of process 0. The message
says what differs."
    N654 2 "GPUs that do not find each other"
"Each process of a training on GPUs has one of its own, and NCCL, which lets them exchange gradients, refused to connect them:
two processes have the same GPU, NCCL is not there, or machines do not reach each other. NCCL_DEBUG=WARN lets it say more, and
NCCL_SOCKET_IFNAME names the network to use. `--device cpu` trains without it."
    N671 1 "runs that did not end well"
"Of the runs of a recipe or a study some failed, or a worker was killed. The table says which failed and why, whole in the lines of
`nct run RECIPE --dry-run --json`, and so do the files of the folder .queue in the folder of runs. The others are done, and the same
command goes on with what is left; --retry tries again what failed. A worker that was killed had no memory left most often:
give fewer --workers."
    N701 2 "classes that do not fit"
"The network knows other classes than the images have. `nct eval --images SET` matches classes by name, and --classes N
lets only the first N compete."
    N702 2 "a network that does not fit the data"
"Most often shards of another data set, or colour where gray was trained. The run's config.toml says what it was trained on,
and manifest.json the digests of those shards."
    N751 2 "a database that does not take the runs"
"The server is not there, the user may not write, or a table of that name is not the one that nnfabrik declares: the
message has the server's words. Nothing was written: all runs go in together, or none. `docs/datajoint.md` says what goes
where."
    N761 2 "an analysis that cannot be made"
"Options that contradict one another or do not fit the network: a layer that is not there, too few images to compare, maps
of another size. The message says which; `nct help analysis` explains the analyses."
    N762 2 "a search that left the numbers"
"The objective became NaN or infinite: steps were too large. Take a smaller --lr, or keep the images in a ball or on a sphere
(--constraint). What was found before is not used."
    N801 1 "torch refused"
"The words after `torch:` are libtorch's. If they speak of shapes, please report it with the run's config.toml: the settings
should have been refused. If they speak of CUDA, `nct doctor` may know more."
    N901 1 "the system refused"
"A file, a pipe or a process: the message has the system's words. Full disks and missing rights are the common causes."
    N902 1 "something this program did not expect"
"Please report it with the command, the message and, if there is one, the run's config.toml and log.txt."
}

/// The code of an error: the first cause that has one of its own.
pub(super) fn of(error: &anyhow::Error) -> Code {
    error.chain().find_map(of_cause).unwrap_or(N902)
}

fn of_cause(cause: &(dyn std::error::Error + 'static)) -> Option<Code> {
    #[cfg(feature = "torch")]
    if let Some(code) = of_torch(cause) {
        return Some(code);
    }
    if cause.is::<Interrupted>() {
        return Some(N002);
    }
    let found = cause.downcast_ref().map(of_ingest);
    let found = found.or_else(|| cause.downcast_ref().map(of_shard));
    let found = found.or_else(|| cause.downcast_ref().map(of_load));
    let found = found.or_else(|| cause.downcast_ref().map(of_run));
    found.or_else(|| match () {
        () if cause.is::<Usage>() => Some(N001),
        () if cause.is::<ScheduleError>() => Some(N302),
        () if cause.is::<std::io::Error>() => Some(N901),
        () => None,
    })
}

fn of_ingest(error: &IngestError) -> Code {
    match error {
        IngestError::Bad { .. } | IngestError::Several { .. } => N101,
        IngestError::Io { .. } => N102,
        IngestError::Stopped => N002,
        IngestError::Shard(error) => of_shard(error),
    }
}

fn of_shard(error: &ShardError) -> Code {
    match error {
        ShardError::Damaged { .. } => N201,
        ShardError::Folder { .. } => N202,
        ShardError::Io { .. } => N203,
        ShardError::Misuse(_) => N204,
        ShardError::Store(
            StoreError::Address { .. } | StoreError::Fetch { .. } | StoreError::Denied { .. },
        ) => N205,
        ShardError::Store(StoreError::Cache { .. }) => N206,
    }
}

fn of_load(error: &LoadError) -> Code {
    match error {
        LoadError::Shard(error) => of_shard(error),
        LoadError::Data(_) => N204,
        LoadError::Thread(_) => N901,
        LoadError::Worker(_) => N902,
    }
}

fn of_run(error: &RunError) -> Code {
    match error {
        RunError::Folder { .. } => N401,
        RunError::Io { .. } => N402,
    }
}

#[cfg(feature = "torch")]
fn of_torch(cause: &(dyn std::error::Error + 'static)) -> Option<Code> {
    let found = cause.downcast_ref().map(of_data);
    let found = found.or_else(|| cause.downcast_ref().map(of_model));
    let found = found.or_else(|| cause.downcast_ref().map(of_group));
    let found = found.or_else(|| cause.downcast_ref().map(of_eval));
    let found = found.or_else(|| cause.downcast_ref().map(of_train));
    match () {
        () if cause.is::<ConfigError>() => Some(N301),
        () if cause.is::<DatabaseError>() => Some(N751),
        () if cause.is::<ReportError>() => Some(N401),
        () if cause.is::<super::run::Failed>() => Some(N671),
        () => found.or_else(|| cause.downcast_ref().map(of_analysis)),
    }
}

#[cfg(feature = "torch")]
fn of_data(error: &DataError) -> Code {
    match error {
        DataError::Shard(error) => of_shard(error),
        DataError::Load(error) => of_load(error),
        DataError::Config(_) => N301,
        DataError::Eval(error) => of_eval(error),
    }
}

#[cfg(feature = "torch")]
fn of_model(error: &ModelError) -> Code {
    match error {
        ModelError::Settings(_) => N501,
        ModelError::File { .. } => N502,
        ModelError::Device(_) => N503,
        ModelError::Torch(_) => N801,
        ModelError::Group(error) => of_group(error),
    }
}

#[cfg(feature = "torch")]
fn of_group(error: &GroupError) -> Code {
    match error {
        GroupError::Meeting { .. } => N651,
        GroupError::Lost(_) => N652,
        GroupError::Apart(_) => N653,
        GroupError::Gpus { .. } => N654,
        GroupError::Refused(_) => N801,
    }
}

#[cfg(feature = "torch")]
fn of_eval(error: &EvalError) -> Code {
    match error {
        EvalError::Load(error) => of_load(error),
        EvalError::Schedule(_) => N302,
        EvalError::Write(error) => of_run(error),
        EvalError::Classes(_) => N701,
        EvalError::Model(error) => of_model(error),
        EvalError::Network(_) => N702,
        EvalError::Torch(_) => N801,
        EvalError::Group(error) => of_group(error),
    }
}

#[cfg(feature = "torch")]
fn of_analysis(error: &AnalysisError) -> Code {
    match error {
        AnalysisError::Model(error) => of_model(error),
        AnalysisError::Settings(_) => N761,
        AnalysisError::Numbers(_) => N762,
        AnalysisError::Torch(_) | AnalysisError::Stopped => N801,
    }
}

#[cfg(feature = "torch")]
fn of_train(error: &TrainError) -> Code {
    match error {
        TrainError::Load(error) => of_load(error),
        TrainError::Eval(error) => of_eval(error),
        TrainError::Run(error) => of_run(error),
        TrainError::Model(error) => of_model(error),
        TrainError::Checkpoint(_) => N603,
        TrainError::Settings(_) => N604,
        TrainError::Memory(_) => N602,
        TrainError::Nonfinite(_) => N601,
        TrainError::Group(error) => of_group(error),
        TrainError::Torch(_) | TrainError::Refused(_) => N801,
    }
}

/// Arguments of `nct explain`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The code at the end of an error's message, such as N301; without it, all of them
    code: Option<String>,
}

pub(crate) fn explain(args: &Args) -> anyhow::Result<()> {
    let Some(asked) = &args.code else {
        return ALL.iter().try_for_each(|code| super::show::out(&format!("{}  {}", code.name, code.title)));
    };
    let Some(code) = ALL.iter().find(|code| code.name.eq_ignore_ascii_case(asked.trim_matches(['[', ']'])))
    else {
        return Err(Usage(format!("there is no error {asked}; `nct explain` lists all")).into());
    };
    let exit = match code.exit {
        2 => "input or usage; exit code 2",
        3 => "exit code 3",
        130 => "exit code 130",
        _ => "the program or the machine; exit code 1",
    };
    super::show::out(&format!("{}: {} ({exit})\n\n{}", code.name, code.title, code.text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_have_their_codes_wherever_they_are_in_the_chain() {
        let damaged = || ShardError::damaged(std::path::Path::new("a.nct"), "x");
        for (error, code) in [
            (Usage(String::new()).into(), N001),
            (anyhow::Error::from(Interrupted(String::new())), N002),
            (IngestError::Stopped.into(), N002),
            (IngestError::from(damaged()).into(), N201),
            (anyhow::Error::from(LoadError::from(damaged())).context("more"), N201),
            (std::io::Error::other("x").into(), N901),
            (anyhow::anyhow!("x"), N902),
        ] {
            assert_eq!(of(&error).name, code.name, "{error:?}");
        }
        #[cfg(feature = "torch")]
        {
            let nested = TrainError::from(EvalError::from(LoadError::from(damaged())));
            assert_eq!(of(&nested.into()).name, "N201");
            assert_eq!(of(&DataError::from(EvalError::Classes(String::new())).into()).name, "N701");
        }
    }

    #[test]
    fn every_code_is_explained_once() {
        let names: std::collections::BTreeSet<_> = ALL.iter().map(|code| code.name).collect();
        assert_eq!(names.len(), ALL.len());
        assert!(ALL.iter().all(|code| code.text.len() > 80 && [1, 2, 3, 130].contains(&code.exit)));
    }
}
