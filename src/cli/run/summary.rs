//! A study's results: means and spreads over the runs of each stage.

use super::work::Worker;
use crate::cli::robustness::relative_scores;
use crate::cli::show::{Show, out, table};
use crate::config::{Study, Work};
use serde_json::{Value, json};
use std::path::Path;

/// Shows the scores of finished stages, compared with the baseline where there is one.
pub(super) fn show(study: &Study, worker: &mut Worker<'_>, json: bool, show: Show) -> anyhow::Result<()> {
    let done = worker.finished()?;
    if done.is_empty() {
        return Ok(());
    }
    let baseline = study.baseline.as_ref().and_then(|name| done.iter().find(|(stage, _)| stage == name));
    let mut table =
        table(&["stage", "runs", "test accuracy", "test correlation", "robustness score", "reported"]);
    for (stage, runs) in &done {
        let scores = |task: &str, metric: &str| -> Vec<f64> {
            runs.iter().filter_map(|run| score(run, task, metric)).collect()
        };
        let (accuracy, correlation) = (scores("img_classification", "accuracy"), scores("v1", "correlation"));
        let robust = match (&study.corruptions, baseline) {
            (Some(suite), Some((_, baselines))) if !accuracy.is_empty() => {
                Some(relative_scores(stage, runs, baselines, suite)?)
            }
            _ => None,
        };
        let reported = study.stage(stage).and_then(|stage| match &stage.work {
            Work::Train(training) => training.expected,
            Work::Respond(_) => None,
        });
        if json {
            let row = json!({
                "stage": stage, "runs": runs.len(), "accuracy": mean_and_spread(&accuracy),
                "correlation": mean_and_spread(&correlation), "robustness_score": robust,
            });
            out(&row.to_string())?;
        }
        let spread = |values: &[f64], digits: usize| match mean_and_spread(values) {
            Some((mean, Some(spread))) => format!("{mean:.digits$} ± {spread:.digits$}"),
            Some((mean, None)) => format!("{mean:.digits$}"),
            None => String::new(),
        };
        let robust = robust.map_or_else(String::new, |(score, spread)| match spread {
            Some(spread) => format!("{score:.1} ± {spread:.1}"),
            None => format!("{score:.1}"),
        });
        let reported =
            reported.map_or_else(String::new, |r| format!("{} ± {}", r.robustness_score, r.spread));
        let n = runs.len().to_string();
        table.add_row([stage.clone(), n, spread(&accuracy, 1), spread(&correlation, 3), robust, reported]);
    }
    if !json {
        show.line(
            "means over runs and standard deviations; robustness in percent of the baseline's, bootstrapped",
        );
        out(&table.to_string())?;
    }
    Ok(())
}

/// A final score on the test data as they are.
fn score(run: &Path, task: &str, metric: &str) -> Option<f64> {
    let rows: Vec<Value> =
        serde_json::from_str(&std::fs::read_to_string(run.join("results.json")).ok()?).ok()?;
    let is = |row: &&Value| {
        row["task"] == task && row["metric"] == metric && row["split"] == "test" && row["session"].is_null()
    };
    rows.iter().find(is)?["value"].as_f64()
}

/// Mean, and the standard deviation of several (n - 1).
fn mean_and_spread(values: &[f64]) -> Option<(f64, Option<f64>)> {
    let n = values.len() as f64;
    let mean = (n > 0.0).then(|| values.iter().sum::<f64>() / n)?;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    Some((mean, (n > 1.0).then(|| (squares / (n - 1.0)).sqrt())))
}
