//! `nct run`: all experiments of a recipe, a sweep or a study, by one or many processes, as far as they are not done.

mod crew;
mod slurm;
mod summary;
mod work;

use super::exit::{Usage, stop_flag};
use super::show::{Show, out, table};
use crate::config::Study;
use serde_json::json;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use work::{Place, Status, Task, Worker};

/// Arguments of `nct run`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A recipe, a sweep or a study; see configs/
    recipe: PathBuf,
    /// Change a setting of every training, such as `--set optimizer.lr=0.05`; of a study also its scale, as in
    /// `--set scale=demo` (may be repeated)
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Folder of shards; without it the study's own, or shards
    #[arg(long)]
    shards: Option<PathBuf>,
    /// Folder of runs; without it the study's own, or runs
    #[arg(long, value_parser = super::files::folder)]
    out: Option<PathBuf>,
    /// Processes that train at the same time; with several GPUs they take turns
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: u16,
    /// auto, cpu, cuda or cuda:N
    #[arg(long, default_value = "auto")]
    device: String,
    /// Try again what went wrong before
    #[arg(long)]
    retry: bool,
    /// Leave at once when other processes work on all that is left, instead of waiting for them
    #[arg(long)]
    no_wait: bool,
    /// Say what there is to do, and stop
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON object a line and run
    #[arg(long)]
    json: bool,
    /// Write a Slurm array script of as many jobs as --workers says, to nct-NAME.sbatch if no file is named, and stop
    #[arg(long, value_name = "FILE", conflicts_with_all = ["dry_run", "json", "retry"])]
    #[expect(clippy::option_option, reason = "an option that may have a value, as clap has it")]
    slurm: Option<Option<PathBuf>>,
    /// Options for Slurm in the script, such as --slurm-option=--partition=gpu (may be repeated)
    #[arg(long, value_name = "OPTION", allow_hyphen_values = true, requires = "slurm")]
    slurm_option: Vec<String>,
    /// Number of this worker among those of one command
    #[arg(long, hide = true)]
    worker: Option<u16>,
}

/// Work that went wrong, of which each piece was told with its own error.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Failed(String);

pub(crate) fn run(args: &Args, show: Show) -> anyhow::Result<()> {
    let study = Study::read(&args.recipe, &args.set)?;
    let folder = |given: &Option<PathBuf>, own: &Option<PathBuf>, usual: &str| {
        given.clone().or_else(|| own.clone()).unwrap_or_else(|| PathBuf::from(usual))
    };
    let place = Place {
        shards: folder(&args.shards, &study.shards, "shards"),
        out: folder(&args.out, &study.out, "runs"),
        device: crew::device(&args.device, args.worker.unwrap_or(0)),
        wait: !args.no_wait,
    };
    if let Some(file) = &args.slurm {
        return slurm::write(args, &study, &place, file.as_deref(), show);
    }
    let mut worker = Worker::new(&study, &place, args.dry_run)?;
    if args.retry {
        worker.forget_failures()?;
    }
    // What cannot begin is better known before anything does.
    let before = statuses(&mut worker)?;
    if args.dry_run {
        return listing(&before, args.json);
    }
    if let Some(number) = args.worker {
        super::exit::end_with_parent();
        return worker.work(show.prefixed(number));
    }
    let died = if args.workers == 1 {
        worker.work(show)?;
        None
    } else {
        crew::work(args, &place, &mut worker, show)?
    };
    worker.look_anew();
    let after = statuses(&mut worker)?;
    listing(&after, args.json)?;
    summary::show(&study, &mut worker, args.json, show)?;
    summary::report(&study, &mut worker, &place, show)?;
    died.map_or_else(|| verdict(&after), Err)
}

/// Every piece of work and how far it is.
fn statuses<'s>(worker: &mut Worker<'s>) -> anyhow::Result<Vec<(Task<'s>, Status)>> {
    worker.tasks().into_iter().map(|task| Ok((task, worker.status(&task)?))).collect()
}

/// Letters of an error in the table.
const NOTE: usize = 80;

fn listing(statuses: &[(Task<'_>, Status)], json: bool) -> anyhow::Result<()> {
    let mut table = table(&["stage", "choice", "state", "where"]);
    for (task, status) in statuses {
        let note = match status {
            Status::Done(path) | Status::Stopped(path) => path.display().to_string(),
            Status::Failed(error) => error.clone(),
            Status::Waits(stage) => format!("for {stage}"),
            Status::Running | Status::New => String::new(),
        };
        if json {
            let (stage, choice, state) = (task.stage(), task.choice(), status.as_str());
            out(&json!({"stage": stage, "choice": choice, "state": state, "where": note}).to_string())?;
        }
        // The whole of an error is in the JSON lines, and was told when it happened.
        let cut = note.chars().count() > NOTE && matches!(status, Status::Failed(_));
        let note = if cut { note.chars().take(NOTE).chain(['…']).collect() } else { note };
        table.add_row([task.stage().to_owned(), task.choice(), status.as_str().to_owned(), note]);
    }
    if json { Ok(()) } else { out(&table.to_string()) }
}

/// Whether all is done, as the exit code tells.
fn verdict(statuses: &[(Task<'_>, Status)]) -> anyhow::Result<()> {
    let count = |is: fn(&Status) -> bool| statuses.iter().filter(|(_, status)| is(status)).count();
    let failed = count(|status| matches!(status, Status::Failed(_)));
    let left = count(|status| !status.is_settled() && !matches!(status, Status::Running));
    if failed > 0 {
        let n = statuses.len();
        let what = format!("{failed} of {n} went wrong, as the table says; --retry tries them again");
        return Err(Failed(what).into());
    }
    if stop_flag().load(Ordering::Relaxed) {
        return Err(super::exit::Interrupted("the same command goes on".to_owned()).into());
    }
    if left > 0 {
        let what =
            format!("{left} of {} are left, as the table says; the same command goes on", statuses.len());
        return Err(Usage(what).into());
    }
    Ok(())
}
