//! `nct runs export --datajoint`: runs as rows of a lab's tables.

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
}

/// Exports, if it was asked for; says whether it was.
pub(super) fn run(args: &Args, store: &Store, runs: &[Listed], show: Show) -> anyhow::Result<bool> {
    let Some(address) = &args.datajoint else { return Ok(false) };
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
    };
    let done =
        runs.iter().map(|run| store.root().join(&run.folder)).filter(|root| State::of(root) == State::Done);
    let done: Vec<PathBuf> = done.collect();
    let finished = done.iter().map(|root| finished(root)).collect::<anyhow::Result<Vec<_>>>()?;
    let Added { runs: new, there } = export(&target, &finished)?;
    let left = runs.len() - finished.len();
    show.line(&format!(
        "{new} runs are new in the tables, {there} were there; {left} that are not done were left out"
    ));
    if args.store.is_none() && new > 0 {
        show.line("without --store no weights are attached");
    }
    Ok(true)
}

fn finished(root: &Path) -> anyhow::Result<Finished> {
    let (subject, run) = (Subject::read(root)?, Run::open(root)?);
    let experiment = Experiment::parse(&run.config()?, &root.join("config.toml").display().to_string(), &[])?;
    // As the reference means it: accuracy, or the correlation of a network without classes.
    let score =
        subject.score("img_classification", "accuracy").or_else(|| subject.score("v1", "correlation"));
    Ok(Finished {
        score: score.or_else(|| subject.score("v4", "correlation")).unwrap_or(0.0),
        dictionaries: dictionaries(&experiment),
        seed: experiment.seed,
        results: Value::from(subject.results.clone()),
        weights: run.checkpoint("best"),
        folder: subject.folder,
    })
}
