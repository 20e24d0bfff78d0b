//! `nct config`: what recipes and runs mean, what they differ in, and a schema for editors.

use super::exit::Usage;
use super::show::{Show, out, table};
use crate::config::{Dictionaries, Experiment, Prepared, Recipe, dictionaries};
use crate::report::Subject;
use crate::runs::{Run, flat_settings, reference_hash, write_atomic};
use crate::shard::{Dataset, ShardSet};
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
    /// Make a recipe of the reference's configuration dictionaries, as its `Experiment` writes them: a JSON object with
    /// dataset, model, trainer and seed
    Import {
        /// The dictionaries
        file: PathBuf,
        /// The recipe; without it, it is printed
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Print a recipe or run as the reference's dictionaries, with their hashes
    Reference {
        /// A recipe, or the folder of a run
        file: PathBuf,
        /// Change a setting
        #[arg(long, value_name = "KEY=VALUE")]
        set: Vec<String>,
        /// Shards of the data, which say how stimuli were cut; a run knows. Without them, the names of sets decide
        #[arg(long)]
        shards: Option<PathBuf>,
    },
    /// Print a JSON Schema of recipes, with which editors complete and check them
    Schema,
}

pub(crate) fn run(args: &Args, show: Show) -> anyhow::Result<()> {
    match &args.command {
        Command::Show { file, set, json } => print(&open(file)?, set, *json),
        Command::Diff { a, b, set, json } => {
            diff(&open(a)?.single(set)?, &open(b)?.single(set)?, [a, b], *json)
        }
        Command::Import { file, out: to } => import(file, to.as_deref(), show),
        Command::Reference { file, set, shards } => {
            reference(&open(file)?.single(set)?, &prepared(file, shards.as_deref())?)
        }
        Command::Schema => out(&serde_json::to_string_pretty(&schema())?),
    }
}

fn import(file: &Path, to: Option<&Path>, show: Show) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(file).map_err(|e| Usage(format!("{}: {e}", file.display())))?;
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
    let name = to.unwrap_or(file).file_stem().map(|stem| stem.to_string_lossy().chars().map(plain).collect());
    let name: String = name.unwrap_or_else(|| "imported".to_owned());
    let imported = crate::config::import(&text, &name, &file.display().to_string())?;
    imported.notes.iter().for_each(|note| show.line(note));
    let Some(to) = to else { return out(imported.recipe.trim_end()) };
    if to.exists() {
        return Err(Usage(format!("{}: is there already; name a new file", to.display())).into());
    }
    write_atomic(to, imported.recipe.as_bytes())?;
    show.line(&format!("{}: written; nct config show {0} prints all that it means", to.display()));
    Ok(())
}

/// How data were prepared: as shards say, or as a run noted; nothing of a recipe.
fn prepared(file: &Path, shards: Option<&Path>) -> anyhow::Result<Prepared> {
    let of = |d: &Dataset| (d.manifest().dataset.clone(), d.manifest().prepared());
    match shards {
        Some(shards) => Ok(ShardSet::open(shards)?.datasets().iter().map(of).collect()),
        None if file.is_dir() => Ok(noted(&Subject::read(file)?)),
        None => Ok(Prepared::new()),
    }
}

/// What a run noted of its data; nothing if it is of before that was noted.
pub(super) fn noted(run: &Subject) -> Prepared {
    serde_json::from_value(run.manifest["prepared"].clone()).unwrap_or_default()
}

fn reference(experiment: &Experiment, prepared: &Prepared) -> anyhow::Result<()> {
    let Dictionaries { dataset, model, trainer } = dictionaries(experiment, prepared);
    let part = |value: &Value| json!({"hash": reference_hash(value), "config": value});
    let all = json!({
        "dataset": part(&dataset), "model": part(&model), "trainer": part(&trainer), "seed": experiment.seed,
    });
    out(&serde_json::to_string_pretty(&all)?)
}

/// The recipe of a file, or of a run's folder.
fn open(path: &Path) -> anyhow::Result<Recipe> {
    if !path.is_dir() {
        return Ok(Recipe::read(path)?);
    }
    let run = Run::open(path)?;
    Ok(Recipe::parse(&run.config()?, &path.join("config.toml").display().to_string())?)
}

fn print(recipe: &Recipe, set: &[String], json: bool) -> anyhow::Result<()> {
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
    schema["properties"]["without"] = json!({"type": "array", "items": {"type": "string"}, "description": "Keys that are not inherited from the base, whole sections too."});
    schema["properties"]["base"] = json!({"type": "string", "description": "Another recipe, relative to this file, whose settings this one changes."});
    schema["properties"]["sweep"] = json!({
        "type": "object",
        "description": "Settings by their full names, each with a list of values or a range { from, to, step }.",
    });
    schema
}
