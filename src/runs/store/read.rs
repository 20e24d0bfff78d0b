//! What the index takes from a run's folder.

use super::corruptions::{ROBUSTNESS, Weights, corruptions};
use crate::runs::{Run, State, flat_settings, is_run};
use rayon::prelude::*;
use serde_json::Value as Json;
use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::Path;
use std::time::UNIX_EPOCH;

/// A setting's or metric's value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Number(f64, String),
    Text(String),
}

impl Value {
    pub(super) fn of_number(number: f64) -> Self {
        // With a point or an exponent, so that whole numbers are told from it.
        Self::Number(number, format!("{number:?}"))
    }

    pub(super) fn number(&self) -> Option<f64> {
        if let Self::Number(number, _) = self { Some(*number) } else { None }
    }

    pub(super) fn text(&self) -> &str {
        let (Self::Number(_, text) | Self::Text(text)) = self;
        text
    }
}

/// A run as its folder has it.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) folder: String,
    pub(super) name: String,
    pub(super) state: State,
    /// When its folders last changed, see [`stamp`].
    pub(super) stamp: i64,
    /// Epochs done.
    pub(super) epoch: Option<u32>,
    /// Seconds of training.
    pub(super) seconds: Option<f64>,
    /// Key, whether it is a setting, and value.
    pub(super) entries: Vec<(String, bool, Value)>,
    pub(super) tags: Vec<String>,
    pub(super) weights: Option<Weights>,
}

/// A run as the index has it.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) stamp: i64,
    pub(super) state: State,
    pub(super) weights: Option<Weights>,
}

/// What a look at a folder says.
enum Look {
    Same,
    Run(Box<Found>),
    /// It has settings that cannot be read.
    Unreadable,
    Nothing,
}

/// What has changed in a folder of runs.
pub(super) struct Changes {
    /// Runs that are not as they were known.
    pub(super) found: Vec<Found>,
    /// Folders that are no runs any more.
    pub(super) gone: Vec<String>,
    /// Folders that have settings which cannot be read.
    pub(super) unreadable: Vec<String>,
}

/// Nanoseconds: the coarsest clocks of disks tell seconds.
pub(super) const JUST_NOW: i64 = 2_000_000_000;

/// The runs in `root` that are not as `known`, and the folders that are no runs any more. A run that is done changes
/// only with its folders; others are read every time, but for weights that are as they were.
pub(super) fn changes(root: &Path, known: &HashMap<String, Known>) -> Changes {
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    let folders = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut folders: Vec<String> = folders.filter(|name| !name.starts_with('.')).collect();
    folders.sort_unstable();
    let now = (crate::runs::now_seconds() * 1e9) as i64;
    let look = |folder: &String| {
        let path = root.join(folder);
        let Some(stamp) = stamp(&path, now) else { return Look::Nothing };
        let before = known.get(folder);
        let same = |run: &Known| run.state == State::Done && run.stamp == stamp && stamp >= 0;
        if before.is_some_and(same) {
            return Look::Same;
        }
        if !is_run(&path) {
            return Look::Nothing;
        }
        let weights = before.and_then(|run| run.weights.as_ref());
        read(&path, folder, stamp, weights).map_or(Look::Unreadable, |found| Look::Run(Box::new(found)))
    };
    let looks: Vec<Look> = folders.par_iter().map(look).collect();
    let names = |is: fn(&Look) -> bool| -> BTreeSet<String> {
        folders.iter().zip(&looks).filter(|(_, look)| is(look)).map(|(folder, _)| folder.clone()).collect()
    };
    let there = names(|look| matches!(look, Look::Same | Look::Run(_)));
    let unreadable = names(|look| matches!(look, Look::Unreadable)).into_iter().collect();
    let gone = known.keys().filter(|folder| !there.contains(*folder)).cloned().collect();
    let found =
        looks.into_iter().filter_map(|look| if let Look::Run(found) = look { Some(*found) } else { None });
    Changes { found: found.collect(), gone, unreadable }
}

/// A number of when a run's folders last changed: files in them are replaced, which changes the folder. Negative where
/// that is so short ago that the clock of their disk would not tell another change: such a run is read next time too.
fn stamp(path: &Path, now: i64) -> Option<i64> {
    let mut all = vec![folder_changed(path)?];
    // What is kept of corruptions counts as long as the weights are those it is of.
    if let Some(kept) = folder_changed(&path.join(ROBUSTNESS)) {
        all.extend([Some(kept), folder_changed(&path.join("checkpoints"))].into_iter().flatten());
    }
    if all.iter().any(|changed| (now - changed).abs() < JUST_NOW) {
        return Some(-1);
    }
    // Not the newest: what is copied with its times may be older than what it replaces.
    Some(all.into_iter().reduce(|sum, changed| sum.wrapping_mul(31).wrapping_add(changed))? & i64::MAX)
}

fn folder_changed(path: &Path) -> Option<i64> {
    changed(&fs::metadata(path).ok().filter(fs::Metadata::is_dir)?)
}

/// When a file or folder last changed, in nanoseconds since 1970.
pub(super) fn changed(of: &fs::Metadata) -> Option<i64> {
    Some(of.modified().ok()?.duration_since(UNIX_EPOCH).ok()?.as_nanos() as i64)
}

fn read(path: &Path, folder: &str, stamp: i64, known: Option<&Weights>) -> Option<Found> {
    let run = Run::open(path).ok()?;
    let config: toml::Table = toml::from_str(&run.config().ok()?).ok()?;
    let name = config.get("name").and_then(toml::Value::as_str).unwrap_or(folder).to_owned();
    let settings = flat_settings(&config).into_iter();
    let mut entries: Vec<(String, bool, Value)> =
        settings.map(|(key, value)| (key, true, setting(value))).collect();
    let lines = run.metrics().unwrap_or_default();
    let epoch = lines.iter().filter_map(|line| line["epoch"].as_u64()).max().map(|n| n as u32);
    let first = lines.first().map(|line| line["task"].clone());
    let seconds = lines.iter().filter(|line| Some(&line["task"]) == first.as_ref());
    let seconds = lines.first().map(|_| seconds.filter_map(|line| line["seconds"].as_f64()).sum());
    best(&lines, &mut entries);
    results(path, &mut entries);
    let weights = corruptions(&run, known, &mut entries);
    let tags = tags(path);
    Some(Found {
        folder: folder.to_owned(),
        name,
        state: State::of(path),
        stamp,
        epoch,
        seconds,
        entries,
        tags,
        weights,
    })
}

fn setting(value: &toml::Value) -> Value {
    match value {
        toml::Value::String(text) => Value::Text(text.clone()),
        toml::Value::Integer(number) => Value::Number(*number as f64, number.to_string()),
        toml::Value::Float(number) => Value::of_number(*number),
        other => Value::Text(other.to_string()),
    }
}

/// Metrics of the best epoch, as `task.metric`.
fn best(lines: &[Json], found: &mut Vec<(String, bool, Value)>) {
    let Some(best) = lines.last().and_then(|line| line["best_epoch"].as_u64()) else { return };
    found.push(("best_epoch".to_owned(), false, Value::Number(best as f64, best.to_string())));
    for line in lines.iter().filter(|line| line["epoch"] == best) {
        let task = line["task"].as_str().unwrap_or_default();
        let fields = line.as_object().into_iter().flatten();
        for (key, value) in
            fields.filter(|(key, _)| key.starts_with("validation_") || key.starts_with("train_"))
        {
            found.extend(value.as_f64().map(|v| (format!("{task}.{key}"), false, Value::of_number(v))));
        }
    }
}

/// Final scores, as `task.evaluation.metric`.
fn results(path: &Path, found: &mut Vec<(String, bool, Value)>) {
    let text = fs::read_to_string(path.join("results.json")).unwrap_or_default();
    let rows: Vec<Json> = serde_json::from_str(&text).unwrap_or_default();
    for row in rows {
        let text = |key: &str| row[key].as_str().map(|text| text.replace(' ', "_"));
        if let (Some(task), Some(metric), Some(value)) = (text("task"), text("metric"), row["value"].as_f64())
        {
            let mode = text("mode").or_else(|| text("split")).unwrap_or_default();
            found.push((format!("{task}.{mode}.{metric}"), false, Value::of_number(value)));
        }
    }
}

/// Tags, which lie in the run's folder as all that is known of it.
pub(super) fn tags(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path.join(super::query::TAGS)).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}
