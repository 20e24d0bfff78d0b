//! `nct runs export --datajoint`: runs as rows of a lab's tables.

use super::config::noted;
use super::exit::Usage;
use super::show::Show;
use crate::config::{Experiment, dictionaries};
use crate::datajoint::{Added, Finished, Target, export};
use crate::report::Subject;
use crate::runs::{Listed, Run, State, Store};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Where rows go.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Put finished runs into the tables of nnfabrik in a MySQL or MariaDB server: mysql://USER@HOST:PORT/SCHEMA. The
    /// password is that of the address, or DJ_PASS
    #[arg(long, value_name = "ADDRESS")]
    datajoint: Option<String>,
    /// Of --datajoint: the person whose rows these are; $USER if not given
    #[arg(long, value_name = "NAME", requires = "datajoint")]
    fabrikant: Option<String>,
    /// Of --datajoint: the schema of the table of people
    #[arg(long, value_name = "SCHEMA", default_value = "nnfabrik_core")]
    core: String,
    /// Of --datajoint: folder of the store `minio`, if it is a file store; weights are attached then
    #[arg(long, value_name = "DIR", requires = "datajoint")]
    store: Option<PathBuf>,
    /// Of --datajoint: look at the tables and count, and write nothing
    #[arg(long, requires = "datajoint")]
    dry_run: bool,
}

impl Args {
    /// Whether an export was asked for.
    pub(super) fn are_given(&self) -> bool {
        self.datajoint.is_some()
    }
}

/// Exports, if it was asked for.
pub(super) fn run(args: &Args, store: &Store, runs: &[Listed], show: Show) -> anyhow::Result<()> {
    let Some(address) = &args.datajoint else { return Ok(()) };
    let fabrikant = args.fabrikant.clone().or_else(|| std::env::var("USER").ok());
    let Some(fabrikant) = fabrikant.filter(|name| !name.is_empty()) else {
        return Err(Usage("--fabrikant: whose rows are these?".to_owned()).into());
    };
    let target = Target {
        address: address.clone(),
        password: std::env::var("DJ_PASS").ok(),
        core: args.core.clone(),
        fabrikant,
        store: args.store.clone(),
        dry_run: args.dry_run,
    };
    let done =
        runs.iter().map(|run| store.root().join(&run.folder)).filter(|root| State::of(root) == State::Done);
    let done: Vec<PathBuf> = done.collect();
    let left = runs.len() - done.len();
    let mut scored = Vec::new();
    for root in &done {
        match finished(root)? {
            Some(run) => scored.push(run),
            None => show.line(&format!(
                "{}: left out, for it has no score of test data (evaluation.add_final_test_eval)",
                root.display()
            )),
        }
    }
    let Added { runs: new, there } = export(&target, &scored)?;
    let are = if args.dry_run { "would be" } else { "are" };
    show.line(&format!(
        "{new} runs {are} new in the tables, {there} were there; {left} that are not done were left out"
    ));
    if args.dry_run {
        show.line("nothing was written");
    } else if args.store.is_none() && new > 0 {
        show.line("without --store no weights are attached");
    }
    Ok(())
}

/// None of a run without a score of test data: the tables ask for one.
fn finished(root: &Path) -> anyhow::Result<Option<Finished>> {
    let (subject, run) = (Subject::read(root)?, Run::open(root)?);
    let experiment = Experiment::parse(&run.config()?, &root.join("config.toml").display().to_string(), &[])?;
    // As the reference means it: accuracy, or the correlation of a network without classes.
    let score =
        subject.score("img_classification", "accuracy").or_else(|| subject.score("v1", "correlation"));
    let Some(score) = score.or_else(|| subject.score("v4", "correlation")) else { return Ok(None) };
    Ok(Some(Finished {
        score,
        dictionaries: dictionaries(&experiment, &noted(&subject)),
        seed: experiment.seed,
        results: Value::from(subject.results.clone()),
        weights: run.checkpoint(run.final_weights()),
        folder: subject.folder,
    }))
}
