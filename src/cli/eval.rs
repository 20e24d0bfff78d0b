//! `nct eval`: the best weights of a run over clean splits.

use super::show::{Show, out};
use super::train::score_table;
use crate::base::{Split, Task};
use crate::config::{Data, Experiment};
use crate::eval::Evaluator;
use crate::model::{Network, Runtime, device};
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
    /// Show the correlation of every neuron too
    #[arg(long)]
    per_neuron: bool,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Suite {
    /// Validation and test sets as they are
    Clean,
}

pub(crate) fn run(args: &Args, show: Show) -> anyhow::Result<()> {
    let Suite::Clean = args.suite;
    let mut rows = evaluate(&args.run, &args.shards, &args.device)?;
    rows.retain(|row| args.per_neuron || row["neuron"].is_null());
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
    let net = Network::new(&experiment.model, &info, selected.device, Runtime::default())?;
    load_weights(&run, "best", &net)?;
    let mut all = Vec::new();
    for split in [Split::Validation, Split::Test] {
        all.extend(rows(root, split, &data.evaluator(split)?, &net, &experiment.loss)?);
    }
    Ok(all)
}

/// The scores on one split, a row a value: those of the tasks, then those of single neurons.
pub(crate) fn rows(
    root: &Path,
    split: Split,
    evaluator: &Evaluator,
    net: &Network,
    loss: &ObjectiveSettings,
) -> anyhow::Result<Vec<Value>> {
    // Plain losses: without the weights that training learned.
    let plain = ObjectiveSettings { loss_weighing: false, ..loss.clone() };
    let objective = Objective::new(&plain, &Task::ALL, net.params().device());
    let mut rows = Vec::new();
    for scores in evaluator.scores(net, &objective)? {
        let row = |metric: &str, value: f64| {
            json!({
                "run": root.display().to_string(),
                "suite": "clean",
                "split": split.as_str(),
                "task": scores.task.as_str(),
                "metric": metric,
                "value": value,
            })
        };
        rows.extend(scores.metrics.iter().map(|(metric, value)| row(metric, *value)));
        for (session, correlations) in &scores.neurons {
            for (neuron, value) in correlations.iter().enumerate() {
                let mut row = row("correlation", *value);
                (row["session"], row["neuron"]) = (json!(session), json!(neuron));
                rows.push(row);
            }
        }
    }
    Ok(rows)
}
