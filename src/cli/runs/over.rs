//! Runs that differ in a few settings alone, such as the seed, as one row with means and deviations.

use super::super::exit::Usage;
use super::super::show::{out, table};
use super::{plain, short};
use crate::runs::{Entry, Listed, Store};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Settings by key.
pub(in crate::cli) type Settings<'a> = BTreeMap<&'a str, &'a str>;

/// Runs of the same settings, but for those that are summed up over.
pub(in crate::cli) struct Group<'a, R> {
    /// That of its first run.
    pub(in crate::cli) name: &'a str,
    pub(in crate::cli) settings: Settings<'a>,
    pub(in crate::cli) runs: Vec<R>,
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
    if as_json {
        let object = |group| object(group, &label(group, &groups, str::to_owned), keys);
        return groups.iter().try_for_each(|group| out(&object(group).to_string()));
    }
    let ends = keys.iter().map(|key| key.rsplit('.').next().unwrap_or(key));
    let header: Vec<&str> = ["name", "runs"].into_iter().chain(ends).collect();
    let mut table = table(&header);
    for group in &groups {
        let cells = (0..keys.len()).map(|key| cell(&values(group, key)));
        let name = label(group, &groups, brief);
        table.add_row([name, group.runs.len().to_string()].into_iter().chain(cells));
    }
    out(&table.to_string())
}

type Listing<'a> = Group<'a, &'a Listed>;

/// Whether `end` is a key or the end of its name.
fn is_end(key: &str, end: &str) -> bool {
    key.strip_suffix(end).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// Whether runs that differ in this setting are kept apart, when they are summed up `over` others.
pub(in crate::cli) fn is_apart(key: &str, over: &[impl AsRef<str>]) -> bool {
    !over.iter().any(|end| is_end(key, end.as_ref())) && !IDLE.iter().any(|idle| key.starts_with(idle))
}

fn groups<'a>(entries: &'a [Entry], runs: &'a [Listed], over: &[String]) -> anyhow::Result<Vec<Listing<'a>>> {
    let settings = || entries.iter().filter(|entry| entry.setting);
    if let Some(end) = over.iter().find(|end| !settings().any(|entry| is_end(&entry.key, end))) {
        let what = format!("--over {end}: no run has such a setting; `nct runs keys --settings` lists all");
        return Err(Usage(what).into());
    }
    let mut by_run: BTreeMap<&str, Settings<'a>> = BTreeMap::new();
    for entry in settings().filter(|entry| is_apart(&entry.key, over)) {
        by_run.entry(&entry.run).or_default().insert(&entry.key, &entry.text);
    }
    let settled =
        |run: &'a Listed| (run.name.as_str(), by_run.remove(run.folder.as_str()).unwrap_or_default(), run);
    Ok(grouped(runs.iter().map(settled)))
}

/// Groups of runs, each given by its name and the settings that keep it apart, in the order of their first ones.
pub(in crate::cli) fn grouped<'a, R>(
    runs: impl Iterator<Item = (&'a str, Settings<'a>, R)>,
) -> Vec<Group<'a, R>> {
    let mut groups: Vec<Group<'a, R>> = Vec::new();
    for (name, settings, run) in runs {
        match groups.iter_mut().find(|group| group.settings == settings) {
            Some(group) => group.runs.push(run),
            None => groups.push(Group { name, settings, runs: vec![run] }),
        }
    }
    groups
}

/// A group's name and what tells it from others, with values as they are `shown`.
pub(in crate::cli) fn label<R>(
    group: &Group<'_, R>,
    all: &[Group<'_, R>],
    shown: impl Fn(&str) -> String,
) -> String {
    let told = differing(group, all).into_iter().map(|(key, value)| {
        let text = shown(value);
        // What is cut must not make two groups look alike.
        let mut others = named_alike(group, all).filter_map(|other| other.settings.get(key));
        let unclear = others.any(|other| *other != value && shown(other) == text);
        let end = key.rsplit('.').next().unwrap_or(key);
        format!(", {end} = {}", if unclear { value } else { &text })
    });
    format!("{}{}", group.name, told.collect::<String>())
}

fn named_alike<'g, 'a, R>(
    group: &Group<'a, R>,
    all: &'g [Group<'a, R>],
) -> impl Iterator<Item = &'g Group<'a, R>> {
    let name = group.name;
    all.iter().filter(move |other| other.name == name)
}

/// The settings that tell a group from others of its name.
pub(in crate::cli) fn differing<'a, R>(group: &Group<'a, R>, all: &[Group<'a, R>]) -> Settings<'a> {
    let differs =
        |key: &str, value: &str| named_alike(group, all).any(|other| other.settings.get(key) != Some(&value));
    let own = group.settings.iter().map(|(key, value)| (*key, *value));
    own.filter(|(key, value)| differs(key, value)).collect()
}

/// What the runs of a group have of the key with this number.
fn values<'a>(group: &Listing<'a>, key: usize) -> Vec<&'a str> {
    group.runs.iter().filter_map(|run| run.values[key].as_deref()).collect()
}

/// Mean and standard deviation (of n - 1), where all values are numbers.
fn moments(values: &[&str]) -> Option<(f64, Option<f64>)> {
    let numbers: Vec<f64> = values.iter().map(|text| text.parse().ok()).collect::<Option<_>>()?;
    let (n, first) = (numbers.len() as f64, *numbers.first()?);
    // Their mean may round, and would then be off by what no run has.
    if numbers.iter().all(|number| *number == first) {
        return Some((first, (n > 1.0).then_some(0.0)));
    }
    let mean = numbers.iter().sum::<f64>() / n;
    let spread = numbers.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0);
    Some((mean, Some(spread.sqrt())))
}

/// Texts in a cell.
const TEXTS: usize = 4;
/// Letters of a text in a table.
const LETTERS: usize = 32;

fn cell(values: &[&str]) -> String {
    if let Some((mean, Some(deviation))) = moments(values) {
        let deviation: f64 = format!("{deviation:.2e}").parse().unwrap_or(deviation);
        return format!(
            "{} ± {} ({})",
            short(&mean.to_string()),
            short(&deviation.to_string()),
            values.len()
        );
    }
    let mut texts: Vec<String> = Vec::new();
    for text in values.iter().map(|text| brief(&short(text))) {
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    let n = texts.len();
    let more = if n > TEXTS { format!(", … ({n})") } else { String::new() };
    texts.truncate(TEXTS);
    texts.join(", ") + &more
}

/// A text as a table has room for it; of a long list, how many it has.
pub(in crate::cli) fn brief(text: &str) -> String {
    if text.chars().count() <= LETTERS {
        return text.to_owned();
    }
    let list: Option<toml::Table> = format!("list = {text}").parse().ok();
    let n = list.and_then(|table| Some(table.get("list")?.as_array()?.len()));
    let cut = |n: usize| -> String { text.chars().take(n).chain(['…']).collect() };
    n.map_or_else(|| cut(LETTERS), |n| format!("{} ({n})", cut(LETTERS - 8)))
}

fn object(group: &Listing<'_>, name: &str, keys: &[String]) -> Value {
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
        assert_eq!(cell(&["sgd", "adam", "sgd"]), "sgd, adam");
        assert_eq!(moments(&["1", "x"]), None);
        assert_eq!(moments(&["1"]), Some((1.0, None)));
    }

    #[test]
    fn values_that_agree_say_of_how_many_runs_they_are() {
        assert_eq!(cell(&["50", "50.0"]), "50 ± 0 (2)");
        assert_eq!(moments(&["0.1", "0.1", "0.1"]), Some((0.1, Some(0.0))), "and nothing of rounding");
    }

    #[test]
    fn long_values_are_cut_and_lists_say_how_long_they_are() {
        let list = "[\"gaussian_noise\", \"shot_noise\", \"impulse_noise\", \"defocus_blur\"]";
        assert_eq!(brief(list), "[\"gaussian_noise\", \"shot… (4)");
        assert_eq!(brief(&"x".repeat(40)), format!("{}…", "x".repeat(32)));
        assert_eq!((brief("[1, 2]").as_str(), cell(&[list]).as_str()), ("[1, 2]", brief(list).as_str()));
        assert_eq!(cell(&["a", "b", "c", "d", "e", "f", "a"]), "a, b, c, d, … (6)");
    }

    #[test]
    fn groups_that_only_the_rest_of_a_long_value_tells_apart_show_all_of_it() {
        let values = ["fog", "snow"].map(|last| format!("{}{last}", "x".repeat(40)));
        let [fog, snow] = values.each_ref().map(String::as_str);
        let run = |value, n: u32| ("a", Settings::from([("data.distort", value), ("lr", "1")]), n);
        let groups = grouped([run(fog, 1), run(snow, 2), run(fog, 3)].into_iter());
        assert_eq!(groups.iter().map(|group| group.runs.clone()).collect::<Vec<_>>(), [vec![1, 3], vec![2]]);
        assert_eq!(label(&groups[0], &groups, brief), format!("a, distort = {fog}"));
        let groups = grouped([run(fog, 1), run("short", 2)].into_iter());
        assert_eq!(label(&groups[0], &groups, brief), format!("a, distort = {}…", "x".repeat(32)));
        assert_eq!(label(&groups[0], &groups, str::to_owned), format!("a, distort = {fog}"));
    }

    #[test]
    fn a_key_is_known_by_its_end_at_a_dot() {
        assert!(is_end("seed", "seed") && is_end("optimizer.lr", "lr"));
        assert!(!is_end("optimizer.clr", "lr") && !is_end("lr", "optimizer.lr"));
    }
}
