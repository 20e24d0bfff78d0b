//! `nct train --dry-run`: what would be trained, and what it costs.

use super::super::show::{bytes, count, out, table};
use crate::base::Task;
use crate::config::Experiment;
use crate::load::Source;
use crate::model::Network;
use crate::schedule::Schedule;
use crate::train::OptimizerKind;
use serde_json::{Value, json};

/// Layers, costs of a step, updates.
pub(super) fn show(
    experiment: &Experiment,
    net: &Network,
    schedule: &Schedule,
    sources: &[Source],
    as_json: bool,
) -> anyhow::Result<()> {
    let rows = net.table();
    let summary = summary(experiment, net, schedule, sources);
    if as_json {
        for row in &rows {
            let line = json!({"layer": row.name, "kind": row.kind, "output": row.output, "parameters": row.params, "macs": row.macs});
            out(&line.to_string())?;
        }
        return out(&summary.to_string());
    }
    let mut layers = table(&["layer", "kind", "output", "parameters", "MACs per image"]);
    for row in rows {
        let [c, h, w] = row.output;
        layers.add_row([
            row.name,
            row.kind.to_owned(),
            format!("{c} x {h} x {w}"),
            count(row.params),
            count(row.macs),
        ]);
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

fn summary(experiment: &Experiment, net: &Network, schedule: &Schedule, sources: &[Source]) -> Value {
    let mut session = 0;
    let costs: Vec<_> = sources
        .iter()
        .map(|source| {
            session += usize::from(source.task.is_neural());
            if source.task == Task::Classification {
                net.classification_cost()
            } else {
                net.neural_cost(session - 1)
            }
        })
        .collect();
    // The first epoch; a ratio may change later. Backward costs twice as much as forward; a MAC is two FLOPs.
    let mut flops = 0.0;
    let mut largest = 0;
    for k in 0..schedule.steps_per_epoch() {
        for batch in schedule.step(crate::base::StepIndex(k)).batches {
            let cost = costs[batch.stream.0 as usize];
            let images = if sources[batch.stream.0 as usize].task == Task::Classification {
                experiment.views()
            } else {
                1
            };
            let images = images * u64::from(batch.len);
            flops += 6.0 * cost.macs as f64 * images as f64;
            largest = largest.max(cost.bytes * images);
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
    json!({
        "parameters": parameters,
        "trained": trained,
        "updates_per_epoch": schedule.steps_per_epoch(),
        "max_epochs": experiment.schedule.max_iter,
        "flops_per_epoch": flops,
        "state_bytes": 4 * (parameters + trained * (1 + moments)),
        "activation_bytes": largest,
    })
}
