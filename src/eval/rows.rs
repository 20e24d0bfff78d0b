//! Scores as rows with the stable JSON keys.

use super::{Evaluation, Parts, Shown, Suite, TaskScores};
use crate::corruption::Corruption;
use crate::load::Noise;
use crate::objective::score::{NeuronScores, summary};
use crate::table::Kind;
use serde_json::{Value, json};

/// All keys that rows of `nct eval` may have, as columns of a table: the same ones whatever was evaluated.
pub const COLUMNS: [(&str, Kind); 21] = [
    ("run", Kind::Text),
    ("suite", Kind::Text),
    ("mode", Kind::Text),
    ("split", Kind::Text),
    ("task", Kind::Text),
    ("dataset", Kind::Text),
    ("noise_std", Kind::Real),
    ("corruption", Kind::Text),
    ("severity", Kind::Whole),
    ("profile", Kind::Text),
    ("seed", Kind::Whole),
    ("stored", Kind::Text),
    ("departures", Kind::Text),
    ("frost_source", Kind::Text),
    ("group", Kind::Text),
    ("session", Kind::Text),
    ("neuron", Kind::Whole),
    ("class", Kind::Text),
    ("classes", Kind::Text),
    ("metric", Kind::Text),
    ("value", Kind::Real),
];

/// Which rows there are beside those of whole tasks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Detail {
    /// Of each session.
    pub sessions: bool,
    /// Of each neuron.
    pub neurons: bool,
    /// Of each class.
    pub classes: bool,
}

/// A row a value, those of the whole task first. A metric that is undefined has no row.
pub fn rows(run: &str, evaluation: &Evaluation, scores: &TaskScores, detail: Detail) -> Vec<Value> {
    let frame = frame(run, evaluation, scores);
    let row = |place: &[(&str, Value)], metric: &str, value: Value| {
        let mut row = frame.clone();
        for (key, at) in place {
            row[*key] = at.clone();
        }
        (row["metric"], row["value"]) = (json!(metric), value);
        row
    };
    let mut rows: Vec<Value> =
        scores.metrics.iter().map(|&(metric, value)| row(&[], metric, number(metric, value))).collect();
    match &scores.parts {
        Parts::Sessions { scores: sessions, .. } => {
            for (name, session) in sessions {
                let place = ("session", json!(name));
                if detail.sessions {
                    let metrics = summary(&[session]).into_iter();
                    rows.extend(
                        metrics
                            .map(|(metric, v)| row(std::slice::from_ref(&place), metric, number(metric, v))),
                    );
                }
                for (n, neuron) in session.neurons.iter().enumerate().filter(|_| detail.neurons) {
                    let place = [place.clone(), ("neuron", json!(n))];
                    let values = NeuronScores::METRICS.into_iter().zip(neuron.values());
                    let defined = values.filter_map(|(metric, v)| v.map(|v| (metric, v)));
                    rows.extend(defined.map(|(metric, v)| row(&place, metric, json!(v))));
                }
            }
        }
        Parts::Classes { scores, unmatched, .. } => {
            if !unmatched.is_empty() {
                let place = [("classes", json!(unmatched))];
                rows.push(row(&place, "unmatched_classes", json!(unmatched.len())));
            }
            for (class, name) in scores.names.iter().enumerate().filter(|_| detail.classes) {
                let place = [("class", json!(name))];
                rows.push(row(&place, "samples", json!(scores.counts[class])));
                rows.push(row(&place, "correct", json!(scores.correct[class])));
                rows.extend(scores.class_accuracy(class).map(|v| row(&place, "accuracy", json!(v))));
            }
        }
    }
    rows
}

/// Counts as whole numbers.
fn number(metric: &str, value: f64) -> Value {
    match metric {
        "repeated_images" | "feve_neurons" | "left_out" => json!(value as u64),
        _ => json!(value),
    }
}

/// What all rows of an evaluation have in common.
fn frame(run: &str, evaluation: &Evaluation, scores: &TaskScores) -> Value {
    let mut frame = json!({"run": run, "suite": evaluation.suite.as_str()});
    if evaluation.suite != Suite::Clean {
        frame["mode"] = json!(evaluation.mode);
    }
    frame["split"] = json!(evaluation.split.as_str());
    frame["task"] = json!(scores.task.as_str());
    if evaluation.suite == Suite::Noise {
        frame["noise_std"] = json!(match &evaluation.view {
            Shown::Clean => 0.0,
            Shown::Noise(levels) => match levels.first().map(|level| level.noise) {
                Some(Noise::Std(std)) => std,
                Some(Noise::Snr(_)) | None => f64::NAN,
            },
            Shown::Trained { .. } | Shown::Corrupted { .. } | Shown::Stored { .. } => f64::NAN,
        });
    }
    if let Shown::Corrupted { corruption, profile, severity, seed } = evaluation.view {
        frame["corruption"] = json!(corruption.as_str());
        frame["severity"] = json!(severity.get());
        frame["profile"] = json!(profile.as_str());
        frame["seed"] = json!(seed);
    }
    if let Some(source) = evaluation.view.frost_source() {
        frame["frost_source"] = json!(source);
    }
    if let Shown::Stored { corruption, severity, copies } = &evaluation.view {
        frame["corruption"] = json!(corruption.as_str());
        frame["severity"] = json!(severity.get());
        copies.tell(&mut frame, *corruption == Corruption::GlassBlur);
    }
    frame
}
