//! `nct train --dry-run`: what would be trained, and what it costs.

use super::super::show::{bytes, count, out, table};
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
    for k in 0..schedule.steps_per_epoch() {
        for batch in schedule.step(crate::base::StepIndex(k)).batches {
            let (macs, bytes) = costs[batch.stream.0 as usize];
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
        "parameters": parameters,
        "trained": trained,
        "updates_per_epoch": schedule.steps_per_epoch(),
        "max_epochs": experiment.schedule.max_iter,
        "flops_per_epoch": flops,
        "state_bytes": width * (parameters + trained * (1 + moments)),
        "activation_bytes": largest,
    })
}
