//! A study's results: means and spreads over the runs of each stage.

use super::work::{Place, Worker};
use crate::cli::exit::chain;
use crate::cli::report::{Which, told};
use crate::cli::robustness::relative_score;
use crate::cli::show::{Show, out, table};
use crate::config::{Study, Work};
use crate::corruption::Profile;
use crate::eval::Origin;
use crate::eval::figures::mean_and_std;
use crate::report::Subject;
use serde_json::json;
use std::path::PathBuf;

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
        let subjects = runs.iter().map(|run| Subject::read(run)).collect::<Result<Vec<_>, _>>()?;
        let scores = |task: &str, metric: &str| -> Vec<f64> {
            subjects.iter().filter_map(|run| run.score(task, metric)).collect()
        };
        let (accuracy, correlation) = (scores("img_classification", "accuracy"), scores("v1", "correlation"));
        let robust = match (&study.corruptions, baseline) {
            (Some(suite), Some((_, baselines))) if !accuracy.is_empty() => {
                let score = relative_score(stage, runs, baselines, suite);
                score.inspect_err(|e| show.line(&format!("{stage}: no robustness score: {}", chain(e)))).ok()
            }
            _ => None,
        };
        let reported = study.stage(stage).and_then(|stage| match &stage.work {
            Work::Train(training) => training.expected,
            Work::Respond(_) => None,
        });
        if json {
            let pair = |(mean, std): (f64, Option<f64>)| json!({"mean": mean, "std": std});
            let told = |values: &[f64]| (!values.is_empty()).then(|| pair(mean_and_std(values)));
            let row = json!({
                "stage": stage, "runs": runs.len(), "accuracy": told(&accuracy),
                "correlation": told(&correlation), "robustness_score": robust.map(pair),
            });
            out(&row.to_string())?;
        }
        let robust = robust.map_or_else(String::new, |(score, spread)| match spread {
            Some(spread) => format!("{score:.1} ± {spread:.1}"),
            None => format!("{score:.1}"),
        });
        let reported = reported.map_or_else(String::new, |r| match r.spread {
            0.0 => r.robustness_score.to_string(),
            spread => format!("{} ± {spread}", r.robustness_score),
        });
        let n = runs.len().to_string();
        table.add_row([stage.clone(), n, told(&accuracy, 1), told(&correlation, 3), robust, reported]);
    }
    if !json {
        show.line(
            "means over runs and standard deviations; robustness in percent of the baseline's, bootstrapped",
        );
        out(&table.to_string())?;
    }
    Ok(())
}

/// Writes the study's report of all finished runs, if it has one.
pub(super) fn report(
    study: &Study,
    worker: &mut Worker<'_>,
    place: &Place,
    show: Show,
) -> anyhow::Result<()> {
    let Some(name) = &study.report else { return Ok(()) };
    let done = worker.finished()?;
    let run: Vec<PathBuf> = done.iter().flat_map(|(_, runs)| runs.iter().cloned()).collect();
    let baseline = study.baseline.as_ref().and_then(|name| done.iter().find(|(stage, _)| stage == name));
    let profile = match study.corruptions.as_ref().map(|suite| &suite.origin) {
        Some(Origin::Made { profile, .. }) => *profile,
        _ => Profile::ImageNet,
    };
    if run.is_empty() {
        return Ok(());
    }
    let baseline = baseline.and_then(|(_, runs)| runs.first().cloned());
    let which = Which { run, runs: place.out.clone(), baseline, profile, analysis: Vec::new() };
    let (out, shards, title) = (place.out.join(name), place.shards.clone(), study.name.clone());
    crate::cli::report::run(&crate::cli::report::Args { which, out, title, shards }, show)
}
