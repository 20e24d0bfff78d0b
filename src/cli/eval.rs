//! `nct eval`: the best weights of a run over clean splits.

use super::show::{Show, out};
use super::train::score_table;
use crate::base::{Split, Task};
use crate::config::{Data, Experiment};
use crate::eval::Evaluator;
use crate::model::{MtlVgg, device};
use crate::objective::{Objective, ObjectiveSettings};
use crate::runs::Run;
use crate::shard::ShardSet;
use crate::train::load_weights;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Arguments of `nct eval`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folder of the run
    run: PathBuf,
    /// Folder of shards
    #[arg(long, default_value = "shards")]
    shards: PathBuf,
    /// Which tests
    #[arg(long, value_enum, default_value_t = Suite::Clean)]
    suite: Suite,
    /// auto, cpu, cuda or cuda:N
    #[arg(long, default_value = "auto")]
    device: String,
    /// Print one JSON object a line and value
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Suite {
    /// Validation and test sets as they are
    Clean,
}

pub(crate) fn run(args: &Args, show: Show) -> anyhow::Result<()> {
    let Suite::Clean = args.suite;
    let rows = evaluate(&args.run, &args.shards, &args.device)?;
    if args.json {
        return rows.iter().try_for_each(|row| out(&row.to_string()));
    }
    show.line(&format!("{}, best weights", args.run.display()));
    out(&score_table(&rows))
}

/// Scores on validation and test, with the stable JSON keys.
pub(crate) fn evaluate(root: &Path, shards: &Path, device: &str) -> anyhow::Result<Vec<Value>> {
    let run = Run::open(root)?;
    let experiment = Experiment::parse(&run.config()?, &root.join("config.toml").display().to_string(), &[])?;
    let selected = device::select(device)?;
    let shards = ShardSet::open(shards)?;
    let data = Data::open(&experiment, &shards)?;
    let info = data.info(&data.sources(Split::Train)?)?;
    let net = MtlVgg::new(&experiment.model, &info, selected.device)?;
    load_weights(&run, "best", &net)?;
    let mut all = Vec::new();
    for split in [Split::Validation, Split::Test] {
        all.extend(rows(root, split, &data.evaluator(split)?, &net, &experiment.loss)?);
    }
    Ok(all)
}

/// The scores on one split, a row a value.
pub(crate) fn rows(
    root: &Path,
    split: Split,
    evaluator: &Evaluator,
    net: &MtlVgg,
    loss: &ObjectiveSettings,
) -> anyhow::Result<Vec<Value>> {
    // Plain losses: without the weights that training learned.
    let plain = ObjectiveSettings { loss_weighing: false, ..loss.clone() };
    let objective = Objective::new(&plain, &[Task::V1, Task::Classification], net.params().device());
    let mut rows = Vec::new();
    for scores in evaluator.scores(net, &objective)? {
        for (metric, value) in scores.metrics {
            rows.push(json!({
                "run": root.display().to_string(),
                "suite": "clean",
                "split": split.as_str(),
                "task": scores.task.as_str(),
                "metric": metric,
                "value": value,
            }));
        }
    }
    Ok(rows)
}
