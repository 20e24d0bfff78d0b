//! `nct runs`: which runs there are, what they reached, and tidying them up.

pub(super) mod over;

use super::exit::Usage;
use super::files::{TableFile, make_folders, write_tables};
use super::show::{Show, bytes, count, out, table};
use crate::runs::{Entry, Filter, Listed, Order, Run, RunError, Store, left_over, remove_left_over};
use crate::table::{Kind, Table, TableError};
use serde_json::{Map, Number, Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

/// Arguments of `nct runs`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folder of runs
    #[arg(long = "runs", id = "folder_of_runs", value_name = "DIR", default_value = "runs", global = true)]
    root: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List runs
    Ls(List),
    /// Everything about one run
    Show {
        /// A run's folder, or a part of its name that no other has
        run: String,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// The folder of the run with the largest value of a key
    Best {
        /// A metric or setting, such as img_classification.FinalTestInDomain.accuracy or the end of its name
        key: String,
        /// The smallest instead
        #[arg(long)]
        min: bool,
        /// Only runs that pass, as of `ls`
        #[arg(long = "where", value_name = "FILTER")]
        filters: Vec<Filter>,
    },
    /// Settings that runs differ in, and their metrics, side by side
    Compare {
        /// Two runs or more
        #[arg(required = true, num_args = 2..)]
        runs: Vec<String>,
        /// Print one JSON object a line and key
        #[arg(long)]
        json: bool,
    },
    /// Give runs tags, which lie in their folders
    Tag {
        /// The run's folder, or a part of its name that no other has
        run: String,
        /// Tags to add
        tags: Vec<String>,
        /// Tags to remove
        #[arg(long, value_name = "TAG")]
        remove: Vec<String>,
    },
    /// Remove runs and everything in their folders
    Rm {
        /// The runs' folders; with --yes their whole names
        #[arg(required = true)]
        runs: Vec<String>,
        /// Do it; without it, say what would go
        #[arg(long)]
        yes: bool,
    },
    /// Remove what finished runs do not need, all checkpoints but that of the result, and what kills left of runs that were being
    /// made or removed and of data that studies were making. A run with the tag `keep` is left alone, and so is one that
    /// a process trains into
    Gc {
        /// Do it; without it, say what would go
        #[arg(long)]
        yes: bool,
    },
    /// Write settings and metrics of runs as a table, a row for each run and key, or with --wide a row for each run; or
    /// put runs into a lab's database
    Export {
        /// Files, as .csv, .jsonl or .parquet (may be repeated)
        #[arg(long, value_name = "FILE")]
        table: Vec<TableFile>,
        /// A row for each run, and a column for each key
        #[arg(long)]
        wide: bool,
        /// Only runs that pass, as of `ls`
        #[arg(long = "where", value_name = "FILTER")]
        filters: Vec<Filter>,
        #[cfg(feature = "torch")]
        #[command(flatten)]
        datajoint: super::datajoint::Args,
    },
    /// All keys that runs have
    Keys {
        /// Those of settings only
        #[arg(long)]
        settings: bool,
    },
    /// Make the index anew from the folders
    Reindex,
}

#[derive(Debug, clap::Args)]
struct List {
    /// Only runs that pass, such as optimizer.lr>=0.05, state=done, tag=paper, model.vgg_type~vgg19 (may be repeated)
    #[arg(long = "where", value_name = "FILTER")]
    filters: Vec<Filter>,
    /// Settings and metrics to show, by commas; the end of a key's name will do. Without it, final scores on the test data
    #[arg(long, value_delimiter = ',', value_name = "KEYS")]
    show: Vec<String>,
    /// Sort by a key, largest first
    #[arg(long, value_name = "KEY", conflicts_with = "sort")]
    top: Option<String>,
    /// Sort by a key, smallest first
    #[arg(long, value_name = "KEY")]
    sort: Option<String>,
    /// One row for runs that differ in these settings alone, such as seed, with means and deviations of what is shown
    #[arg(long, value_delimiter = ',', value_name = "KEYS")]
    over: Vec<String>,
    /// Only so many runs
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Print one JSON object a line and run
    #[arg(long)]
    json: bool,
}

pub(super) fn run<T: super::Torch>(args: &Args, show: Show) -> anyhow::Result<()> {
    let mut store = Store::open(&args.root)?;
    let reindex = matches!(args.command, Command::Reindex);
    let n_rebuilt = if reindex { store.rebuild()? } else { 0 };
    if let Some(why) = store.unwritable() {
        show.line(&format!(
            "{}: the index cannot be written ({why}); it was made in memory",
            args.root.display()
        ));
    }
    for folder in store.unreadable() {
        let path = args.root.join(folder);
        show.line(&format!("{}: left out: its config.toml cannot be read", path.display()));
    }
    match &args.command {
        Command::Ls(args) => list(&store, args),
        Command::Show { run, json } => one(&store, &store.find(run)?, *json),
        Command::Best { key, min, filters } => best(&store, key, *min, filters),
        Command::Compare { runs, json } => compare(&store, runs, *json, show),
        Command::Tag { run, tags, remove } => {
            let folder = store.find_to_change(run, false)?;
            let tags = store.tag(&folder, tags, remove)?;
            show.line(&format!(
                "{folder}: {}",
                if tags.is_empty() { "no tags".to_owned() } else { tags.join(", ") }
            ));
            Ok(())
        }
        Command::Rm { runs, yes } => remove(&store, runs, *yes, show),
        Command::Gc { yes } => collect(&store, *yes, show),
        #[cfg(feature = "torch")]
        Command::Export { table, wide, filters, datajoint } => {
            let runs = store.list(filters, &[], None)?;
            if datajoint.are_given() {
                T::datajoint(datajoint, &store, &runs, show)?;
            }
            export(&store, table, *wide, &runs, datajoint.are_given(), show)
        }
        #[cfg(not(feature = "torch"))]
        Command::Export { table, wide, filters } => {
            export(&store, table, *wide, &store.list(filters, &[], None)?, false, show)
        }
        Command::Keys { settings } => {
            let mut keys = store.keys(true)?;
            if !settings {
                keys.extend(store.keys(false)?);
            }
            keys.iter().try_for_each(|key| out(key))
        }
        Command::Reindex => {
            show.line(&format!("{}: {} runs", args.root.display(), count(n_rebuilt as u64)));
            Ok(())
        }
    }
}

fn list(store: &Store, args: &List) -> anyhow::Result<()> {
    let order = args.top.as_ref().map(|key| Order { key: key.clone(), descending: true });
    let order = order.or_else(|| args.sort.as_ref().map(|key| Order { key: key.clone(), descending: false }));
    let shown = if args.show.is_empty() { scores(store)? } else { args.show.clone() };
    let mut runs = store.list(&args.filters, &shown, order.as_ref())?;
    runs.truncate(args.limit.unwrap_or(usize::MAX));
    if !args.over.is_empty() {
        return over::list(store, &runs, &args.over, &shown, args.json);
    }
    if args.json {
        return runs.iter().try_for_each(|run| out(&object(run, &shown).to_string()));
    }
    let ends = shown.iter().map(|key| key.rsplit('.').next().unwrap_or(key));
    let header: Vec<&str> = ["run", "state", "epochs", "time", "tags"].into_iter().chain(ends).collect();
    let mut table = table(&header);
    for run in &runs {
        let epoch = run.epoch.map_or_else(String::new, |n| n.to_string());
        let mut row =
            vec![run.folder.clone(), run.state.clone(), epoch, time(run.seconds), run.tags.join(", ")];
        row.extend(run.values.iter().map(|value| value.as_deref().map_or_else(String::new, short)));
        table.add_row(row);
    }
    out(&table.to_string())
}

/// The final scores that there are, for those who do not say what to show.
fn scores(store: &Store) -> Result<Vec<String>, RunError> {
    const SCORES: [&str; 3] = [
        "img_classification.FinalTestInDomain.accuracy",
        "v1.FinalTest.correlation",
        "v4.FinalTest.correlation",
    ];
    let keys = store.keys(false)?;
    Ok(SCORES.into_iter().filter(|score| keys.iter().any(|key| key == score)).map(str::to_owned).collect())
}

fn object(run: &Listed, keys: &[String]) -> Value {
    let values: Map<String, Value> =
        keys.iter().zip(&run.values).map(|(key, value)| (key.clone(), plain(value.as_deref()))).collect();
    json!({
        "run": run.folder, "name": run.name, "state": run.state, "epochs": run.epoch, "seconds": run.seconds,
        "tags": run.tags, "values": values,
    })
}

/// A number where it is one, a whole one with all of its digits.
pub(super) fn plain(text: Option<&str>) -> Value {
    let number = |text: &str| serde_json::from_str::<Number>(text).ok().map(Value::Number);
    text.map_or(Value::Null, |text| number(text).unwrap_or_else(|| json!(text)))
}

/// A number with the digits that tell runs apart: six, and all of a whole one.
fn short(text: &str) -> String {
    let whole = text.parse::<i128>().is_ok();
    let number = text.parse::<f64>().ok().filter(|v| text.len() > 8 && !whole && v.is_finite());
    let Some(number) = number else { return text.to_owned() };
    let rounded = format!("{number:.5e}").parse().unwrap_or(number);
    match rounded.abs() {
        1e6..1e15 => format!("{number:.0}"),
        1e-4..1e6 | 0.0 => rounded.to_string(),
        _ => format!("{rounded:e}"),
    }
}

fn time(seconds: Option<f64>) -> String {
    let Some(seconds) = seconds else { return String::new() };
    let minutes = seconds as u64 / 60;
    if minutes < 60 {
        format!("{minutes}:{:02}", seconds as u64 % 60)
    } else {
        format!("{} h {:02}", minutes / 60, minutes % 60)
    }
}

fn one(store: &Store, folder: &str, json: bool) -> anyhow::Result<()> {
    let runs = store.list(&[format!("folder={folder}").parse().map_err(Usage)?], &[], None)?;
    let Some(run) = runs.first() else { return Err(Usage(format!("no run {folder}")).into()) };
    let (settings, metrics) = (store.entries(folder, true)?, store.entries(folder, false)?);
    if json {
        let map = |entries: &[(String, String)]| -> Map<String, Value> {
            entries.iter().map(|(key, value)| (key.clone(), plain(Some(value)))).collect()
        };
        let mut object = object(run, &[]);
        (object["settings"], object["metrics"]) = (map(&settings).into(), map(&metrics).into());
        return out(&object.to_string());
    }
    let mut table = table(&["key", "value"]);
    let path = store.root().join(folder).display().to_string();
    let epochs = run.epoch.map_or_else(String::new, |n| n.to_string());
    for (key, value) in [
        ("run", path),
        ("state", run.state.clone()),
        ("epochs", epochs),
        ("time", time(run.seconds)),
        ("tags", run.tags.join(", ")),
    ] {
        table.add_row([key.to_owned(), value]);
    }
    for (key, value) in metrics.iter().chain(&settings) {
        table.add_row([key.clone(), short(value)]);
    }
    out(&table.to_string())
}

fn best(store: &Store, key: &str, min: bool, filters: &[Filter]) -> anyhow::Result<()> {
    let order = Order { key: key.to_owned(), descending: !min };
    let runs = store.list(filters, std::slice::from_ref(&order.key), Some(&order))?;
    match runs.first().filter(|run| run.values[0].is_some()) {
        Some(run) => out(&store.root().join(&run.folder).display().to_string()),
        None => Err(Usage(format!("no run that passes has {key}")).into()),
    }
}

fn compare(store: &Store, names: &[String], json: bool, show: Show) -> anyhow::Result<()> {
    let (beside, names): (Vec<&String>, Vec<&String>) = names.iter().partition(|name| store.is_beside(name));
    for name in beside.iter().filter(|name| !store.is_index(name)) {
        show.line(&format!("{name}: passed over, being no run"));
    }
    if names.len() < 2 {
        return Err(Usage("give two runs or more to compare".to_owned()).into());
    }
    let folders: Vec<String> = names.iter().map(|name| store.find(name)).collect::<Result<_, _>>()?;
    let mut rows: Vec<(String, Vec<Option<String>>)> = Vec::new();
    for settings in [true, false] {
        let entries: Vec<Vec<(String, String)>> =
            folders.iter().map(|folder| store.entries(folder, settings)).collect::<Result<_, RunError>>()?;
        let keys: BTreeSet<&String> = entries.iter().flatten().map(|(key, _)| key).collect();
        for key in keys {
            let value =
                |of: &Vec<(String, String)>| of.iter().find(|(k, _)| k == key).map(|(_, v)| v.clone());
            let values: Vec<Option<String>> = entries.iter().map(value).collect();
            if !settings || values.iter().any(|v| *v != values[0]) {
                rows.push((key.clone(), values));
            }
        }
    }
    if json {
        return rows.iter().try_for_each(|(key, values)| {
            let values: Vec<Value> = values.iter().map(|v| plain(v.as_deref())).collect();
            out(&json!({"key": key, "runs": folders, "values": values}).to_string())
        });
    }
    let header: Vec<&str> = std::iter::once("key").chain(folders.iter().map(String::as_str)).collect();
    let mut table = table(&header);
    for (key, values) in &rows {
        let cells = values.iter().map(|v| v.as_deref().map_or_else(String::new, short));
        table.add_row(std::iter::once(key.clone()).chain(cells).collect::<Vec<_>>());
    }
    out(&table.to_string())
}

/// What a run is beside its settings and metrics.
const OF_RUN: [(&str, Kind); 5] = [
    ("run", Kind::Text),
    ("state", Kind::Text),
    ("epochs", Kind::Whole),
    ("seconds", Kind::Real),
    ("tags", Kind::Text),
];

fn export(
    store: &Store,
    files: &[TableFile],
    wide: bool,
    runs: &[Listed],
    done: bool,
    show: Show,
) -> anyhow::Result<()> {
    if files.is_empty() {
        let lacks = || Usage("name a file with --table, such as --table runs.csv".to_owned()).into();
        return if done { Ok(()) } else { Err(lacks()) };
    }
    let entries = store.everything(&runs.iter().map(|run| run.folder.as_str()).collect())?;
    make_folders(files, None)?;
    let table = if wide { wide_table(runs, &entries)? } else { long_table(runs, &entries)? };
    write_tables(files, &table, show)
}

fn of_run(run: &Listed) -> Value {
    let Listed { folder, state, epoch, seconds, tags, .. } = run;
    json!({"run": folder, "state": state, "epochs": epoch, "seconds": seconds, "tags": tags.join(" ")})
}

fn long_table(runs: &[Listed], entries: &[Entry]) -> Result<Table, TableError> {
    let own = [("kind", Kind::Text), ("key", Kind::Text), ("number", Kind::Real), ("text", Kind::Text)];
    let mut table = Table::new(&[&OF_RUN[..], &own].concat());
    let runs: HashMap<&str, Value> = runs.iter().map(|run| (run.folder.as_str(), of_run(run))).collect();
    for Entry { run, key, setting, number, text } in entries {
        let mut row = runs[run.as_str()].clone();
        row["kind"] = json!(if *setting { "setting" } else { "metric" });
        (row["key"], row["number"], row["text"]) = (json!(key), json!(number), json!(text));
        table.push(&row)?;
    }
    Ok(table)
}

/// A column holds numbers if all of its values are numbers.
fn wide_table(runs: &[Listed], entries: &[Entry]) -> Result<Table, TableError> {
    let mut kinds: BTreeMap<(bool, &str), Kind> = BTreeMap::new();
    for entry in entries {
        let kind = kinds.entry((!entry.setting, &entry.key)).or_insert(Kind::Real);
        if entry.number.is_none() {
            *kind = Kind::Text;
        }
    }
    let own = OF_RUN.map(|(name, kind)| (name.to_owned(), kind));
    let keys = kinds.iter().map(|((_, key), kind)| ((*key).to_owned(), *kind));
    let mut table = Table::named(own.into_iter().chain(keys));
    let mut by_run: HashMap<&str, Vec<&Entry>> = HashMap::new();
    for entry in entries {
        by_run.entry(&entry.run).or_default().push(entry);
    }
    for run in runs {
        let mut row = of_run(run);
        for entry in by_run.remove(run.folder.as_str()).unwrap_or_default() {
            let number = kinds[&(!entry.setting, entry.key.as_str())] == Kind::Real;
            row[&entry.key] = if number { json!(entry.number) } else { json!(entry.text) };
        }
        table.push(&row)?;
    }
    Ok(table)
}

fn remove(store: &Store, names: &[String], yes: bool, show: Show) -> anyhow::Result<()> {
    let runs = names.iter().filter(|name| !store.is_index(name));
    let folders: BTreeSet<String> =
        runs.map(|name| store.find_to_change(name, yes)).collect::<Result<_, _>>()?;
    for folder in folders {
        let path = store.root().join(&folder);
        let size = bytes(size(&path));
        if !yes {
            show.line(&format!("{}: {size} would be removed; say --yes to do it", path.display()));
            continue;
        }
        Run::exclusive(&path)?.remove()?;
        show.line(&format!("{}: removed, {size}", path.display()));
    }
    // The index follows, now or when it is next asked.
    let _ = Store::open(store.root());
    Ok(())
}

fn collect(store: &Store, yes: bool, show: Show) -> anyhow::Result<()> {
    let done = ["state=done", "tag!=keep"].map(str::parse::<Filter>);
    let done: Vec<Filter> = done.into_iter().collect::<Result<_, _>>().map_err(Usage)?;
    let mut freed = 0;
    for run in store.list(&done, &[], None)? {
        // A finished run may be trained further.
        match Run::exclusive(&store.root().join(&run.folder)) {
            Ok(run) => freed += spare(&run, yes, show)?,
            Err(e) => show.line(&format!("{e}; passed over")),
        }
    }
    for path in left_over(store.root()) {
        freed += size(&path);
        if yes {
            remove_left_over(&path)?;
        } else {
            show.line(&path.display().to_string());
        }
    }
    let what = if yes { "freed" } else { "would be freed; say --yes to do it" };
    show.line(&format!("{} {what}", bytes(freed)));
    Ok(())
}

/// Removes the checkpoints of a run but for its result, or with `yes` not given says which those are; their bytes.
fn spare(run: &Run, yes: bool, show: Show) -> anyhow::Result<u64> {
    let (checkpoints, result) = (run.root().join("checkpoints"), run.checkpoint(run.final_weights()));
    let files = std::fs::read_dir(&checkpoints).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut freed = 0;
    for path in files.filter(|path| path.is_file() && *path != result) {
        freed += path.metadata().map_or(0, |m| m.len());
        if yes {
            std::fs::remove_file(&path).map_err(|e| Usage(format!("{}: remove: {e}", path.display())))?;
        } else {
            show.line(&path.display().to_string());
        }
    }
    Ok(freed)
}

/// Bytes of all files in a folder.
fn size(path: &Path) -> u64 {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    entries
        .map(|entry| {
            if entry.path().is_dir() { size(&entry.path()) } else { entry.metadata().map_or(0, |m| m.len()) }
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_shortened_to_digits_that_say_something() {
        for (text, expected) in [
            ("0.00000125", "1.25e-6"),
            ("0.00000001", "1e-8"),
            ("0.0001234567", "0.000123457"),
            ("-0.000012345678", "-1.23457e-5"),
            ("0.30000000000000004", "0.3"),
            ("50.123456789", "50.1235"),
            ("999999.99999", "1000000"),
            ("123456789.75", "123456790"),
            ("1.23456789e300", "1.23457e300"),
            ("123456789", "123456789"),
            ("-9007199254740993", "-9007199254740993"),
            ("0.000000000", "0"),
            ("0.1", "0.1"),
            ("NaN", "NaN"),
            ("bn 8 M 16 M", "bn 8 M 16 M"),
        ] {
            assert_eq!(short(text), expected, "{text}");
        }
    }

    #[test]
    fn numbers_stay_what_they_are_in_json() {
        for (text, expected) in [
            ("1", "1"),
            ("1.0", "1.0"),
            ("9007199254740993", "9007199254740993"),
            ("-7", "-7"),
            ("1.25e-6", "1.25e-6"),
            ("007", "\"007\""),
            ("NaN", "\"NaN\""),
            ("", "\"\""),
        ] {
            assert_eq!(plain(Some(text)).to_string(), expected);
        }
    }
}
