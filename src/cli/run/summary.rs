//! A study's results: means and spreads over the seeds of each stage, and of each setting that its sweep chose.

use super::work::{Finished, Place, Worker};
use crate::cli::exit::{Usage, chain};
use crate::cli::report::{Which, told};
use crate::cli::robustness::relative_score;
use crate::cli::runs::over::{Group, Settings, brief, differing, grouped, is_apart, label};
use crate::cli::runs::plain;
use crate::cli::show::{Show, out, table};
use crate::config::{Study, Work};
use crate::corruption::Profile;
use crate::eval::Origin;
use crate::eval::figures::mean_and_std;
use crate::report::Subject;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::path::PathBuf;

/// Runs of a stage that differ in their seeds alone.
type Seeds<'a> = Group<'a, PathBuf>;

/// Keys that end so are of seeds.
const SEED: &str = "seed";

/// Shows the scores of finished stages, compared with the baseline where there is one.
pub(super) fn show(study: &Study, worker: &mut Worker<'_>, json: bool, show: Show) -> anyhow::Result<()> {
    let done = worker.finished()?;
    if done.is_empty() {
        return Ok(());
    }
    let groups = groups(&done);
    let mut table =
        table(&["stage", "runs", "test accuracy", "test correlation", "robustness score", "reported"]);
    for group in &groups {
        let subjects = group.runs.iter().map(|run| Subject::read(run)).collect::<Result<Vec<_>, _>>()?;
        let scores = |task: &str, metric: &str| -> Vec<f64> {
            subjects.iter().filter_map(|run| run.score(task, metric)).collect()
        };
        let (accuracy, correlation) = (scores("img_classification", "accuracy"), scores("v1", "correlation"));
        let name = label(group, &groups, brief);
        let robust = if accuracy.is_empty() { Ok(None) } else { robustness(study, &groups, group, &name) };
        let robust = robust.inspect_err(|e| show.line(&format!("{name}: no robustness score: {}", chain(e))));
        let robust = robust.ok().flatten();
        if json {
            let pair = |(mean, std): (f64, Option<f64>)| json!({"mean": mean, "std": std});
            let told = |values: &[f64]| (!values.is_empty()).then(|| pair(mean_and_std(values)));
            let settings = differing(group, &groups).into_iter();
            let settings: Map<String, Value> =
                settings.map(|(key, value)| (key.to_owned(), plain(Some(value)))).collect();
            let row = json!({
                "stage": group.name, "settings": settings, "runs": group.runs.len(), "accuracy": told(&accuracy),
                "correlation": told(&correlation), "robustness_score": robust.map(pair),
            });
            out(&row.to_string())?;
        }
        let robust = robust.map_or_else(String::new, |(score, spread)| match spread {
            Some(spread) => format!("{score:.1} ± {spread:.1}"),
            None => format!("{score:.1}"),
        });
        let n = group.runs.len().to_string();
        let reported = reported(study, group.name);
        table.add_row([name, n, told(&accuracy, 1), told(&correlation, 3), robust, reported]);
    }
    if !json {
        show.line(
            "means over seeds and standard deviations; robustness in percent of the baseline's, bootstrapped",
        );
        out(&table.to_string())?;
    }
    Ok(())
}

/// The finished runs of each stage, those together that differ in their seeds alone.
fn groups<'a>(done: &'a [Finished<'a>]) -> Vec<Seeds<'a>> {
    let settled = |finished: &'a Finished<'a>| {
        let choice = finished.choice.iter().filter(|(key, _)| is_apart(key, &[SEED]));
        let settings: Settings<'a> = choice.map(|(key, value)| (*key, value.as_str())).collect();
        (finished.stage, settings, finished.run.clone())
    };
    let stages = done.chunk_by(|a, b| a.stage == b.stage);
    let mut groups: Vec<Seeds<'a>> = stages.flat_map(|stage| grouped(stage.iter().map(settled))).collect();
    // What changes no result is of one run.
    for group in &mut groups {
        let mut seen = BTreeSet::new();
        group.runs.retain(|run| seen.insert(run.clone()));
    }
    groups
}

/// The robustness score of a group relative to the baseline, if the study has both.
fn robustness(
    study: &Study,
    groups: &[Seeds<'_>],
    group: &Seeds<'_>,
    name: &str,
) -> anyhow::Result<Option<(f64, Option<f64>)>> {
    let (Some(suite), Some(baseline)) = (&study.corruptions, &study.baseline) else { return Ok(None) };
    let all: Vec<&Seeds<'_>> = groups.iter().filter(|group| group.name == baseline).collect();
    // Of a baseline that is swept too, what agrees.
    let agrees = |other: &&&Seeds<'_>| {
        let differs = |(key, value): (&&str, &&str)| group.settings.get(key).is_some_and(|own| own != value);
        !other.settings.iter().any(differs)
    };
    let fitting: Vec<&&Seeds<'_>> = all.iter().filter(agrees).collect();
    match fitting[..] {
        [one] => relative_score(name, &group.runs, &one.runs, suite).map(Some),
        _ if all.is_empty() => Ok(None),
        _ => {
            let n = fitting.len();
            let what =
                format!("it could be relative to {n} settings of {baseline}; sweep the same keys in both");
            Err(Usage(what).into())
        }
    }
}

/// What was reported of a stage.
fn reported(study: &Study, stage: &str) -> String {
    let expected = study.stage(stage).and_then(|stage| match &stage.work {
        Work::Train(training) => training.expected,
        Work::Respond(_) => None,
    });
    expected.map_or_else(String::new, |r| match r.spread {
        0.0 => r.robustness_score.to_string(),
        spread => format!("{} ± {spread}", r.robustness_score),
    })
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
    let run: Vec<PathBuf> = done.iter().map(|finished| finished.run.clone()).collect();
    let baseline = study.baseline.as_ref().and_then(|name| done.iter().find(|found| found.stage == name));
    let profile = match study.corruptions.as_ref().map(|suite| &suite.origin) {
        Some(Origin::Made { profile, .. }) => *profile,
        _ => Profile::ImageNet,
    };
    if run.is_empty() {
        return Ok(());
    }
    let baseline = baseline.map(|finished| finished.run.clone());
    let which = Which { run, runs: place.out.clone(), baseline, profile, analysis: Vec::new() };
    let (out, shards, title) = (place.out.join(name), place.shards.clone(), study.name.clone());
    crate::cli::report::run(&crate::cli::report::Args { which, out, title, shards }, show)
}
