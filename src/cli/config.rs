//! `nct config`: what recipes and runs mean, what they differ in, and a schema for editors.

use super::show::{out, table};
use crate::config::{Experiment, Recipe};
use crate::runs::{Run, flat_settings};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Arguments of `nct config`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Print every setting of a recipe or run; of a sweep, its runs
    Show {
        /// A recipe, or the folder of a run
        file: PathBuf,
        /// Change a setting, such as `--set optimizer.lr=0.05` (may be repeated)
        #[arg(long, value_name = "KEY=VALUE")]
        set: Vec<String>,
        /// Print one JSON object a line and run
        #[arg(long)]
        json: bool,
    },
    /// Print the settings that two recipes or runs differ in
    Diff {
        /// A recipe, or the folder of a run
        a: PathBuf,
        /// Another
        b: PathBuf,
        /// Change a setting of both
        #[arg(long, value_name = "KEY=VALUE")]
        set: Vec<String>,
        /// Print one JSON object a line and key
        #[arg(long)]
        json: bool,
    },
    /// Print a JSON Schema of recipes, with which editors complete and check them
    Schema,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    match &args.command {
        Command::Show { file, set, json } => show(&open(file)?, set, *json),
        Command::Diff { a, b, set, json } => {
            diff(&open(a)?.single(set)?, &open(b)?.single(set)?, [a, b], *json)
        }
        Command::Schema => out(&serde_json::to_string_pretty(&schema())?),
    }
}

/// The recipe of a file, or of a run's folder.
fn open(path: &Path) -> anyhow::Result<Recipe> {
    if !path.is_dir() {
        return Ok(Recipe::read(path)?);
    }
    let run = Run::open(path)?;
    Ok(Recipe::parse(&run.config()?, &path.join("config.toml").display().to_string())?)
}

fn show(recipe: &Recipe, set: &[String], json: bool) -> anyhow::Result<()> {
    let points = recipe.points(set)?;
    if json {
        return points.iter().try_for_each(|point| {
            let choice: toml::Table = point.choice.iter().cloned().collect();
            out(&json!({"choice": choice, "settings": point.experiment}).to_string())
        });
    }
    if let [point] = &points[..] {
        return out(point.experiment.to_toml().trim_end());
    }
    let keys: Vec<&str> = points[0].choice.iter().map(|(key, _)| key.as_str()).collect();
    let mut table = table(&[&["run"], &keys[..]].concat());
    for (number, point) in points.iter().enumerate() {
        let values = point.choice.iter().map(|(_, value)| value.to_string());
        table.add_row([(number + 1).to_string()].into_iter().chain(values).collect::<Vec<_>>());
    }
    out(&table.to_string())
}

/// Settings by their full names.
fn flat(experiment: &Experiment) -> anyhow::Result<BTreeMap<String, String>> {
    let table: toml::Table = toml::from_str(&experiment.to_toml())?;
    Ok(flat_settings(&table).into_iter().map(|(key, value)| (key, value.to_string())).collect())
}

fn diff(a: &Experiment, b: &Experiment, names: [&PathBuf; 2], json: bool) -> anyhow::Result<()> {
    let (a, b) = (flat(a)?, flat(b)?);
    let keys: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    let differ: Vec<[&str; 3]> = keys
        .into_iter()
        .map(|key| [key.as_str(), a.get(key).map_or("", |v| v), b.get(key).map_or("", |v| v)])
        .filter(|[_, a, b]| a != b)
        .collect();
    if json {
        return differ.iter().try_for_each(|[key, a, b]| {
            let value = |text: &str| if text.is_empty() { Value::Null } else { json!(text) };
            out(&json!({"key": key, "a": value(a), "b": value(b)}).to_string())
        });
    }
    let [first, second] = names.map(|path| path.display().to_string());
    let mut table = table(&["setting", &first, &second]);
    for row in &differ {
        table.add_row(row);
    }
    if differ.is_empty() { out("no setting differs") } else { out(&table.to_string()) }
}

/// The settings, and what recipes have beside them.
fn schema() -> Value {
    let mut schema = schemars::schema_for!(Experiment).to_value();
    schema["title"] = json!("Recipe of nct");
    schema["properties"]["base"] = json!({"type": "string", "description": "Another recipe, relative to this file, whose settings this one changes."});
    schema["properties"]["sweep"] = json!({
        "type": "object",
        "description": "Settings by their full names, each with a list of values or a range { from, to, step }.",
    });
    schema
}
