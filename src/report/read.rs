//! What a run's folder says of it.

use super::ReportError;
use crate::base::Split;
use crate::runs::{Run, RunError, State, flat_settings};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// A run.
#[derive(Debug, Clone)]
pub struct Subject {
    /// Name of its folder.
    pub folder: String,
    /// Its folder.
    pub root: PathBuf,
    /// `name` of its settings.
    pub name: String,
    /// How far it is.
    pub state: State,
    /// Settings by full name.
    pub settings: BTreeMap<String, String>,
    /// What it was made with.
    pub manifest: Value,
    /// Lines of metrics.
    pub metrics: Vec<Value>,
    /// Final scores; none of a run that is not done.
    pub results: Vec<Value>,
}

/// Runs that differ in nothing but the seed.
#[derive(Debug, Clone)]
pub struct Group {
    /// Name, which no other group has.
    pub name: String,
    /// Its runs.
    pub runs: Vec<Subject>,
}

/// Settings that do not tell groups apart.
const ALIKE: [&str; 3] = ["seed", "loader.", "checkpoint."];

impl Subject {
    /// Reads the run in `root`.
    pub fn read(root: &Path) -> Result<Self, RunError> {
        let run = Run::open(root)?;
        let path = root.join("config.toml");
        let config: toml::Table = toml::from_str(&run.config()?)
            .map_err(|e| RunError::Folder { path, what: e.message().to_owned() })?;
        let json = |name: &str| -> Value {
            let text = fs::read_to_string(root.join(name)).unwrap_or_default();
            serde_json::from_str(&text).unwrap_or_default()
        };
        let folder = root.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let text = |value: &toml::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        Ok(Self {
            name: config.get("name").and_then(toml::Value::as_str).unwrap_or(&folder).to_owned(),
            folder,
            root: root.to_path_buf(),
            state: State::of(root),
            settings: flat_settings(&config).into_iter().map(|(key, value)| (key, text(value))).collect(),
            manifest: json("manifest.json"),
            metrics: run.metrics()?,
            results: json("results.json").as_array().cloned().unwrap_or_default(),
        })
    }

    /// A final score on the test data as training shows them.
    pub fn score(&self, task: &str, metric: &str) -> Option<f64> {
        self.score_on(Split::Test, task, metric)
    }

    /// The same on another split.
    pub fn score_on(&self, split: Split, task: &str, metric: &str) -> Option<f64> {
        let is = |row: &&Value| {
            row["task"] == task
                && row["metric"] == metric
                && row["split"] == split.as_str()
                && row["session"].is_null()
        };
        self.results.iter().find(is)?["value"].as_f64()
    }

    /// Rows of a table that the run keeps, by column; none where it keeps none.
    pub fn table(&self, name: &str) -> Result<Vec<BTreeMap<String, String>>, ReportError> {
        let path = self.root.join("tables").join(name);
        let wrong =
            |e: csv::Error| ReportError::File { path: path.display().to_string(), what: e.to_string() };
        if !path.is_file() {
            return Ok(Vec::new());
        }
        csv::Reader::from_path(&path).map_err(wrong)?.deserialize().map(|row| row.map_err(wrong)).collect()
    }

    fn kind(&self) -> Vec<(&String, &String)> {
        self.settings.iter().filter(|(key, _)| !ALIKE.iter().any(|alike| key.starts_with(alike))).collect()
    }
}

/// Groups of runs, in the order of their first ones.
pub fn groups(runs: Vec<Subject>) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for run in runs {
        match groups.iter_mut().find(|group| group.runs[0].kind() == run.kind()) {
            Some(group) => group.runs.push(run),
            None => groups.push(Group { name: run.name.clone(), runs: vec![run] }),
        }
    }
    let names: Vec<String> = groups.iter().map(|group| group.name.clone()).collect();
    let told: Vec<String> = (0..groups.len()).map(|i| told_apart(&groups, &names, i)).collect();
    groups.iter_mut().zip(told).for_each(|(group, name)| group.name = name);
    groups
}

/// The name of group `i`, with what tells it from others of that name.
fn told_apart(groups: &[Group], names: &[String], i: usize) -> String {
    let settings = &groups[i].runs[0].settings;
    let others = groups.iter().enumerate().filter(|(j, _)| *j != i && names[*j] == names[i]);
    let others: Vec<&Subject> = others.map(|(_, group)| &group.runs[0]).collect();
    let differs = |(key, value): &(&String, &String)| {
        *key != "seed" && others.iter().any(|other| other.settings.get(*key) != Some(*value))
    };
    let told = settings
        .iter()
        .filter(differs)
        .map(|(key, value)| format!(", {} = {value}", key.rsplit('.').next().unwrap_or(key)));
    names[i].clone() + &told.collect::<String>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn runs_that_differ_in_the_seed_alone_are_a_group() {
        let dir = tempfile::tempdir().unwrap();
        let subject = |name: &str, seed: u32, lr: f64| {
            let config = format!("name = \"{name}\"\nseed = {seed}\n[optimizer]\nlr = {lr:?}\n");
            let run = Run::create(dir.path(), name, &config, &json!({"device": "cpu"})).unwrap();
            Subject::read(run.root()).unwrap()
        };
        let runs =
            vec![subject("a", 1, 0.5), subject("b", 1, 0.5), subject("a", 2, 0.5), subject("a", 1, 0.25)];
        let found = groups(runs);
        let names: Vec<(&str, usize)> = found.iter().map(|g| (g.name.as_str(), g.runs.len())).collect();
        assert_eq!(names, [("a, lr = 0.5", 2), ("b", 1), ("a, lr = 0.25", 1)]);
        assert_eq!(found[0].runs[0].manifest["device"], "cpu");
    }

    #[test]
    fn tables_are_read_with_their_quotes_and_damage_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let run = Run::create(dir.path(), "a", "seed = 1", &json!({})).unwrap();
        let subject = Subject::read(run.root()).unwrap();
        assert!(subject.table("classes.csv").unwrap().is_empty());
        let folder = run.root().join("tables");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("classes.csv"), "class,count\n\"a, b\",3\n").unwrap();
        assert_eq!(subject.table("classes.csv").unwrap()[0]["class"], "a, b");
        fs::write(folder.join("classes.csv"), "class,count\n1\n").unwrap();
        assert!(subject.table("classes.csv").unwrap_err().to_string().contains("classes.csv"));
    }
}
