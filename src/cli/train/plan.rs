//! `nct train --dry-run`: what would be trained, and what it costs.

use super::super::show::{bytes, count, out, table, tell};
use crate::base::Task;
use crate::config::Experiment;
use crate::load::Source;
use crate::model::{DataInfo, LayerRow, Network, Part};
use crate::schedule::Schedule;
use crate::train::OptimizerKind;
use serde_json::{Value, json};

/// Layers, costs of a step, updates.
pub(super) fn show(
    experiment: &Experiment,
    net: &Network,
    info: &DataInfo,
    schedule: &Schedule,
    sources: &[Source],
    as_json: bool,
) -> anyhow::Result<()> {
    let rows = net.table(info)?;
    let summary = summary(experiment, net, schedule, sources, &rows);
    if as_json {
        for row in &rows {
            let line = json!({"layer": row.name, "output": row.output, "parameters": row.parameters, "macs": row.macs});
            out(&line.to_string())?;
        }
        return out(&summary.to_string());
    }
    let mut layers = table(&["layer", "output", "parameters", "MACs per image"]);
    for row in rows {
        let output: Vec<String> = row.output.iter().map(i64::to_string).collect();
        layers.add_row([row.name, output.join(" x "), count(row.parameters), count(row.macs)]);
    }
    out(&layers.to_string())?;
    show_streams(&summary)?;
    let mut costs = table(&["", ""]);
    let number = |key: &str| summary[key].as_u64().unwrap_or(0);
    costs.add_row(["parameters", &count(number("parameters"))]);
    costs.add_row(["trained", &count(number("trained"))]);
    costs.add_row(["updates per epoch", &count(number("updates_per_epoch"))]);
    costs.add_row(["epochs at most", &count(number("max_epochs"))]);
    costs
        .add_row(["FLOPs per epoch", &format!("{:.3e}", summary["flops_per_epoch"].as_f64().unwrap_or(0.0))]);
    costs.add_row(["memory for parameters, gradients, optimiser", &bytes(number("state_bytes"))]);
    costs
        .add_row(["memory for the maps of the largest batch (estimate)", &bytes(number("activation_bytes"))]);
    out(&costs.to_string())
}

/// What an epoch shows of each stream.
fn show_streams(summary: &Value) -> anyhow::Result<()> {
    let header = [
        "stream",
        "task",
        "records",
        "batch size",
        "batches per epoch",
        "records per epoch",
        "passes per epoch",
    ];
    let mut streams = table(&header);
    let rows: Vec<&Value> = summary["streams"].as_array().into_iter().flatten().collect();
    for stream in &rows {
        let number = |key: &str| count(stream[key].as_u64().unwrap_or(0));
        let text = |key: &str| stream[key].as_str().unwrap_or_default().to_owned();
        let passes = format!("{:.2}", stream["passes_per_epoch"].as_f64().unwrap_or(0.0));
        let numbers = ["records", "batch_size", "batches_per_epoch", "records_per_epoch"].map(number);
        streams.add_row(["stream", "task"].map(text).into_iter().chain(numbers).chain([passes]));
    }
    out(&streams.to_string())?;
    let unseen = rows.iter().filter(|stream| stream["batches_per_epoch"] == 0);
    for name in unseen.filter_map(|stream| stream["stream"].as_str()) {
        tell(&format!("warning: the first epoch shows nothing of {name}: see [mix]"));
    }
    Ok(())
}

/// MACs and bytes of the layers that one image of a stream passes.
pub(super) fn cost(rows: &[LayerRow], source: &Source) -> (u64, u64) {
    let readout =
        |row: &&LayerRow| row.part == Part::Readout && row.name.ends_with(&format!(".{}", source.name));
    let passes = |row: &&LayerRow| match source.task {
        Task::Classification => row.part != Part::Readout,
        // A session of V1 does not pass V4's block.
        Task::V1 => row.part == Part::Shared && !row.name.contains("v4_block") || readout(row),
        Task::V4 => row.part == Part::Shared || readout(row),
    };
    let add = |(macs, bytes): (u64, u64), row: &LayerRow| (macs + row.macs, bytes + row.activation_bytes);
    rows.iter().filter(passes).fold((0, 0), add)
}

/// What an epoch shows of a stream.
#[derive(Clone, Copy, Default)]
struct Shown {
    batches: u64,
    records: u64,
    largest: u32,
}

impl Shown {
    fn add(&mut self, len: u32) {
        self.batches += 1;
        self.records += u64::from(len);
        self.largest = self.largest.max(len);
    }

    fn row(self, source: &Source) -> Value {
        json!({
            "stream": source.name,
            "task": source.task.to_string(),
            "records": source.n_records(),
            "batch_size": self.largest,
            "batches_per_epoch": self.batches,
            "records_per_epoch": self.records,
            "passes_per_epoch": self.records as f64 / source.n_records().max(1) as f64,
        })
    }
}

fn summary(
    experiment: &Experiment,
    net: &Network,
    schedule: &Schedule,
    sources: &[Source],
    rows: &[LayerRow],
) -> Value {
    let costs: Vec<(u64, u64)> = sources.iter().map(|source| cost(rows, source)).collect();
    // The first epoch; a ratio may change later. Backward costs twice as much as forward; a MAC is two FLOPs.
    let mut flops = 0.0;
    let mut largest = 0;
    let mut shown = vec![Shown::default(); sources.len()];
    for k in 0..schedule.steps_per_epoch() {
        for batch in schedule.step(crate::base::StepIndex(k)).batches {
            let (macs, bytes) = costs[batch.stream.0 as usize];
            shown[batch.stream.0 as usize].add(batch.len);
            let images = if sources[batch.stream.0 as usize].task == Task::Classification {
                experiment.views()
            } else {
                1
            };
            let images = images * u64::from(batch.len);
            flops += 6.0 * macs as f64 * images as f64;
            largest = largest.max(bytes * images);
        }
    }
    let optimizer = &experiment.optimizer;
    let moments = match optimizer.kind {
        OptimizerKind::Sgd => u64::from(optimizer.momentum.is_some_and(|m| m > 0.0)),
        OptimizerKind::Adam | OptimizerKind::AdamW => 2 + u64::from(optimizer.amsgrad == Some(true)),
    };
    let trained: u64 = net
        .params()
        .trainable()
        .iter()
        .filter(|(_, t)| t.requires_grad())
        .map(|(_, t)| t.numel() as u64)
        .sum();
    let parameters = net.params().n_trainable();
    let width = experiment.numerics.precision.wide().elt_size_in_bytes() as u64;
    json!({
        "streams": sources.iter().zip(&shown).map(|(source, shown)| shown.row(source)).collect::<Vec<_>>(),
        "parameters": parameters,
        "trained": trained,
        "updates_per_epoch": schedule.steps_per_epoch(),
        "max_epochs": experiment.schedule.max_iter,
        "flops_per_epoch": flops,
        "state_bytes": width * (parameters + trained * (1 + moments)),
        "activation_bytes": largest,
    })
}
