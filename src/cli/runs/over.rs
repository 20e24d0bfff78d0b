//! Runs that differ in a few settings alone, such as the seed, as one row with means and deviations.

use super::super::exit::Usage;
use super::super::show::{out, table};
use super::{plain, short};
use crate::runs::{Entry, Listed, Store};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Settings by key.
type Settings<'a> = BTreeMap<&'a str, &'a str>;

/// Runs of the same settings, but for those that are summed up over.
struct Group<'a> {
    settings: Settings<'a>,
    runs: Vec<&'a Listed>,
}

/// Settings that change no result.
const IDLE: [&str; 2] = ["loader.", "checkpoint."];

/// A row for each group of `runs`, in the order of their first ones; `keys` are those of their values.
pub(super) fn list(
    store: &Store,
    runs: &[Listed],
    over: &[String],
    keys: &[String],
    as_json: bool,
) -> anyhow::Result<()> {
    let entries = store.everything(&runs.iter().map(|run| run.folder.as_str()).collect())?;
    let groups = groups(&entries, runs, over)?;
    let named = |group: &Group<'_>| format!("{}{}", group.runs[0].name, told_apart(group, &groups));
    if as_json {
        return groups.iter().try_for_each(|group| out(&object(group, &named(group), keys).to_string()));
    }
    let ends = keys.iter().map(|key| key.rsplit('.').next().unwrap_or(key));
    let header: Vec<&str> = ["name", "runs"].into_iter().chain(ends).collect();
    let mut table = table(&header);
    for group in &groups {
        let cells = (0..keys.len()).map(|key| cell(&values(group, key)));
        table.add_row([named(group), group.runs.len().to_string()].into_iter().chain(cells));
    }
    out(&table.to_string())
}

/// Whether `end` is a key or the end of its name.
fn is_end(key: &str, end: &str) -> bool {
    key.strip_suffix(end).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

fn groups<'a>(entries: &'a [Entry], runs: &'a [Listed], over: &[String]) -> anyhow::Result<Vec<Group<'a>>> {
    let settings = || entries.iter().filter(|entry| entry.setting);
    if let Some(end) = over.iter().find(|end| !settings().any(|entry| is_end(&entry.key, end))) {
        let what = format!("--over {end}: no run has such a setting; `nct runs keys --settings` lists all");
        return Err(Usage(what).into());
    }
    let mut by_run: BTreeMap<&str, Settings<'a>> = BTreeMap::new();
    for entry in settings() {
        let apart = over.iter().any(|end| is_end(&entry.key, end));
        if !apart && !IDLE.iter().any(|idle| entry.key.starts_with(idle)) {
            by_run.entry(&entry.run).or_default().insert(&entry.key, &entry.text);
        }
    }
    let mut groups: Vec<Group<'a>> = Vec::new();
    for run in runs {
        let settings = by_run.remove(run.folder.as_str()).unwrap_or_default();
        match groups.iter_mut().find(|group| group.settings == settings) {
            Some(group) => group.runs.push(run),
            None => groups.push(Group { settings, runs: vec![run] }),
        }
    }
    Ok(groups)
}

/// What tells a group from others of its name.
fn told_apart(group: &Group<'_>, all: &[Group<'_>]) -> String {
    let others = || {
        let of_name = all.iter().filter(|other| other.runs[0].name == group.runs[0].name);
        of_name.map(|other| &other.settings).filter(|other| **other != group.settings)
    };
    let differs = |key: &str, value: &str| others().any(|other| other.get(key) != Some(&value));
    let told = group.settings.iter().filter(|(key, value)| differs(key, value));
    told.map(|(key, value)| format!(", {} = {value}", key.rsplit('.').next().unwrap_or(key))).collect()
}

/// What the runs of a group have of the key with this number.
fn values<'a>(group: &Group<'a>, key: usize) -> Vec<&'a str> {
    group.runs.iter().filter_map(|run| run.values[key].as_deref()).collect()
}

/// Mean and standard deviation (of n - 1), where all values are numbers.
fn moments(values: &[&str]) -> Option<(f64, Option<f64>)> {
    let numbers: Vec<f64> = values.iter().map(|text| text.parse().ok()).collect::<Option<_>>()?;
    let n = numbers.len() as f64;
    let mean = numbers.iter().sum::<f64>() / n;
    let spread = numbers.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0);
    (n > 0.0).then(|| (mean, (n > 1.0).then(|| spread.sqrt())))
}

fn cell(values: &[&str]) -> String {
    let mut texts: Vec<String> = values.iter().map(|text| short(text)).collect();
    texts.dedup();
    match moments(values) {
        _ if texts.len() < 2 => texts.pop().unwrap_or_default(),
        Some((mean, Some(deviation))) => {
            let deviation: f64 = format!("{deviation:.2e}").parse().unwrap_or(deviation);
            format!("{} ± {} ({})", short(&mean.to_string()), short(&deviation.to_string()), values.len())
        }
        _ => texts.join(", "),
    }
}

fn object(group: &Group<'_>, name: &str, keys: &[String]) -> Value {
    let of = |(number, key): (usize, &String)| {
        let values = values(group, number);
        let (mean, deviation) = moments(&values).map_or((None, None), |(mean, sd)| (Some(mean), sd));
        let each: Vec<Value> = values.iter().map(|text| plain(Some(text))).collect();
        (key.clone(), json!({"n": values.len(), "mean": mean, "sd": deviation, "each": each}))
    };
    let values: Map<String, Value> = keys.iter().enumerate().map(of).collect();
    let runs: Vec<&str> = group.runs.iter().map(|run| run.folder.as_str()).collect();
    json!({"name": name, "runs": runs, "values": values})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_summed_up_where_they_are_numbers() {
        assert_eq!(cell(&["50", "52", "54"]), "52 ± 2 (3)");
        assert_eq!(
            (cell(&["50"]), cell(&[]), cell(&["sgd", "sgd"])),
            ("50".into(), String::new(), "sgd".into())
        );
        assert_eq!(cell(&["sgd", "adam"]), "sgd, adam");
        assert_eq!(moments(&["1", "x"]), None);
        assert_eq!(moments(&["1"]), Some((1.0, None)));
    }

    #[test]
    fn a_key_is_known_by_its_end_at_a_dot() {
        assert!(is_end("seed", "seed") && is_end("optimizer.lr", "lr"));
        assert!(!is_end("optimizer.clr", "lr") && !is_end("lr", "optimizer.lr"));
    }
}
