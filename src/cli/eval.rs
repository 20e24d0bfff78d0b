//! `nct eval`: scores of a run's best weights.

use super::exit::{Interrupted, Usage, stop_flag};
use super::figures::write_figures;
use super::files::{TableFile, make_folders, write_tables as write_table_files};
use super::robustness::{self, SuiteArgs};
use super::show::{Show, SplitArg, out, table};
use super::torch::selected;
use crate::base::{Split, Task};
use crate::config::{Data, Experiment, Labelled};
use crate::eval::figures::Seeds;
use crate::eval::robustness::Grid;
use crate::eval::{
    COLUMNS, Detail, Evaluation, FinalSettings, Shown, Suite, TaskScores, evaluate as run_evaluations, rows,
    write_responses, write_tables,
};
use crate::model::Network;
use crate::runs::Run;
use crate::shard::ShardSet;
use crate::table::Table;
use crate::train::load_weights;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use tch::Device;

/// Arguments of `nct eval`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folder of the run
    run: PathBuf,
    /// Folder of shards, or its URL (nct help stores)
    #[arg(long, default_value = "shards")]
    shards: PathBuf,
    /// Which evaluations
    #[arg(long, value_enum, default_value_t = SuiteArg::Clean)]
    suite: SuiteArg,
    /// Only these splits (may be repeated); without it the suite's, of `clean` validation and test
    #[arg(long, value_enum)]
    split: Vec<SplitArg>,
    #[command(flatten)]
    corrupted: SuiteArgs,
    /// Of `corruptions`: a run to compare with, which was evaluated in the same way
    #[arg(long, value_name = "RUN", conflicts_with_all = ["images", "classes"])]
    baseline: Option<PathBuf>,
    /// Labelled images of another data set of the folder; its classes are matched by name
    #[arg(long, value_name = "DATASET", conflicts_with = "classes")]
    images: Option<String>,
    /// Only the first so many classes compete, and images of others are left out
    #[arg(long, value_name = "N")]
    classes: Option<usize>,
    /// Records per batch, if not those of the run; changes no score
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    batch_size: Option<u32>,
    /// Threads that read, if not those of the run; changes no score
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// auto, cpu, cuda or cuda:N
    #[arg(long, default_value = "auto")]
    device: String,
    /// Print one JSON object a line and value
    #[arg(long)]
    json: bool,
    /// Show the scores of every session too
    #[arg(long)]
    per_session: bool,
    /// Show the scores of every neuron too
    #[arg(long)]
    per_neuron: bool,
    /// Show the scores of every class too
    #[arg(long)]
    per_class: bool,
    /// Write neurons.csv, classes.csv, confusion.csv and predictions.csv to this folder
    #[arg(long, value_name = "DIR")]
    tables: Option<PathBuf>,
    /// Write predicted and recorded responses, trial by trial, to this folder: a safetensors file a split and session
    #[arg(long, value_name = "DIR")]
    responses: Option<PathBuf>,
    /// Write all that --json prints to a file, .csv, .jsonl or .parquet (may be repeated)
    #[arg(long, value_name = "FILE")]
    table: Vec<TableFile>,
    /// Of `corruptions`: write heat maps and curves over severities to this folder
    #[arg(long, value_name = "DIR")]
    figures: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum SuiteArg {
    /// Splits as they are
    Clean,
    /// The validation images under Gaussian noise of seven deviations
    Noise,
    /// What the reference evaluates at the end of training, in and out of domain
    Final,
    /// The test images under fifteen corruptions at five severities
    Corruptions,
    /// All of these
    All,
}

impl Args {
    /// All tasks on validation and test as they are.
    fn plain(root: &Path, shards: &Path, device: &str) -> Self {
        Self {
            run: root.to_path_buf(),
            shards: shards.to_path_buf(),
            suite: SuiteArg::Clean,
            split: Vec::new(),
            corrupted: SuiteArgs::default(),
            baseline: None,
            images: None,
            classes: None,
            batch_size: None,
            threads: None,
            device: device.to_owned(),
            json: true,
            per_session: false,
            per_neuron: false,
            per_class: false,
            tables: None,
            responses: None,
            table: Vec::new(),
            figures: None,
        }
    }
}

pub(crate) fn run(args: &Args, show: Show) -> anyhow::Result<()> {
    let tell = |e: &Evaluation| show.line(&format!("{}, {} ({})", e.mode, e.task, e.suite.as_str()));
    let corrupts = matches!(args.suite, SuiteArg::Corruptions | SuiteArg::All);
    if !corrupts && (args.baseline.is_some() || args.figures.is_some() || args.corrupted.given()) {
        let what = "--baseline, --profile, --corruptions, --severities, --seed, --stored, --frost and --figures belong to --suite corruptions";
        return Err(Usage(what.to_owned()).into());
    }
    if args.corrupted.shows_stored() && (args.images.is_some() || args.classes.is_some()) {
        let what = "--stored shows the run's own classes; leave out --images and --classes";
        return Err(Usage(what.to_owned()).into());
    }
    if args.figures.is_some() && args.split.len() > 1 {
        return Err(Usage("--figures shows one split: give one --split".to_owned()).into());
    }
    make_folders(&args.table, args.figures.as_deref())?;
    if corrupts && args.corrupted.makes_frost() {
        args.corrupted.open_frost()?;
    }
    // Better known before the evaluation than after it.
    for split in corrupted_splits(&args.split).into_iter().filter(|_| corrupts) {
        let suite = args.corrupted.suite(split)?;
        robustness::may_keep(&args.run, &suite)?;
        if let Some(run) = &args.baseline {
            robustness::baseline(run, &suite)?;
        }
    }
    let scored = evaluate_run(args, &tell, show)?;
    let run = run_name(&args.run);
    if let Some(folder) = &args.tables {
        write_tables(folder, &run, &scored)?;
    }
    if let Some(folder) = &args.responses {
        write_responses(folder, &scored)?;
        show.line(&format!("{}: responses, trial by trial", folder.display()));
    }
    let detail = Detail { sessions: args.per_session, neurons: args.per_neuron, classes: args.per_class };
    let mut found: Vec<Value> = scored.iter().flat_map(|(e, scores)| rows(&run, e, scores, detail)).collect();
    let grids = corrupted(args, &scored, &mut found, show)?;
    if let Some(dataset) = &args.images {
        for row in &mut found {
            row["dataset"] = json!(dataset);
        }
    }
    write_table_files(&args.table, &Table::of(&COLUMNS, &found)?, show)?;
    if args.json {
        return found.iter().try_for_each(|row| out(&row.to_string()));
    }
    show.line(&format!("{}, best weights", args.run.display()));
    if let Some(row) = found.iter().find(|row| row["metric"] == "unmatched_classes") {
        show.line(&format!("classes that the network does not know, left out: {}", row["classes"]));
    }
    // A grid shows its cells better than a row each.
    let of_cells = |row: &Value| row["suite"] == Suite::Corruptions.as_str();
    found.retain(|row| !of_cells(row) || row["metric"] == "left_out");
    if !found.is_empty() {
        out(&score_table(&found))?;
    }
    grids.iter().try_for_each(|grid| out(grid))
}

/// A run in rows: its folder's own name, whichever way it was typed, so that all files of a run can be joined.
pub(crate) fn run_name(root: &Path) -> String {
    // A folder that another machine writes may not be here.
    let whole = root.canonicalize();
    let name = whole.as_deref().unwrap_or(root).file_name();
    name.map_or_else(|| root.display().to_string(), |name| name.to_string_lossy().into_owned())
}

/// Scores on validation and test as they are, with the stable JSON keys.
pub(crate) fn evaluate(root: &Path, shards: &Path, device: &str) -> anyhow::Result<Vec<Value>> {
    let args = Args::plain(root, shards, device);
    let run = run_name(root);
    let scored = evaluate_run(&args, &|_| (), Show::new(true))?;
    Ok(scored.iter().flat_map(|(e, scores)| rows(&run, e, scores, Detail::default())).collect())
}

/// Accuracies on the test images under corruptions, which are kept in the run.
pub(crate) fn robustness_of(
    root: &Path,
    shards: &Path,
    device: &str,
    corrupted: SuiteArgs,
) -> anyhow::Result<Option<Grid>> {
    let plain = Args::plain(root, shards, device);
    let args = Args { suite: SuiteArg::Corruptions, corrupted, ..plain };
    let scored = evaluate_run(&args, &|_| (), Show::new(true))?;
    let suite = args.corrupted.suite(Split::Test)?;
    let grid = suite.grid(&scored);
    if let Some(grid) = &grid {
        robustness::keep(root, &suite, grid)?;
    }
    Ok(grid)
}

/// The network of a run, with its best weights.
pub(crate) fn load(root: &Path, shards: &ShardSet, device: Device) -> anyhow::Result<Network> {
    let run = Run::open(root)?;
    let experiment = Experiment::parse(&run.config()?, &root.join("config.toml").display().to_string(), &[])?;
    let data = Data::open(&experiment, shards)?;
    let info = data.info(&data.sources(Split::Train)?)?;
    let net = Network::new(&experiment.model, &info, device, experiment.runtime())?;
    load_weights(&run, run.final_weights(), &net)?;
    Ok(net)
}

fn evaluate_run(
    args: &Args,
    tell: &dyn Fn(&Evaluation),
    show: Show,
) -> anyhow::Result<Vec<(Evaluation, TaskScores)>> {
    let run = Run::open(&args.run)?;
    let origin = args.run.join("config.toml").display().to_string();
    let mut experiment = Experiment::parse(&run.config()?, &origin, &[])?;
    experiment.data.batch_size = args.batch_size.unwrap_or(experiment.data.batch_size);
    experiment.loader.threads = args.threads.map_or(experiment.loader.threads, usize::from);
    let device = selected(&args.device, show)?;
    let shards = ShardSet::open(&args.shards)?;
    let data = Data::open(&experiment, &shards)?;
    let labelled = match (&args.images, args.classes) {
        (Some(name), _) => Labelled::Other(shards.dataset(name)?),
        (None, Some(m)) => Labelled::First(m),
        (None, None) => experiment.labelled(),
    };
    let evaluations = evaluations(args, &data)?;
    // Better known before the evaluation than after it.
    if args.responses.is_some() && !evaluations.iter().any(|e| e.task.is_neural()) {
        let what = "--responses is for evaluations of neurons, and there are none";
        return Err(Usage(format!("{}: {what}", args.run.display())).into());
    }
    let makes = |e: &Evaluation| !matches!(e.view, Shown::Stored { .. }) && e.view.frost_source().is_some();
    if evaluations.iter().any(makes) {
        args.corrupted.open_frost()?;
    }
    let info = data.info(&data.sources(Split::Train)?)?;
    let net = Network::new(&experiment.model, &info, device, experiment.runtime())?;
    load_weights(&run, run.final_weights(), &net)?;
    let stored = args.corrupted.stored()?;
    let open = |e: &Evaluation| {
        let copies = match (&e.view, &stored) {
            (Shown::Stored { corruption, severity, .. }, Some(set)) => {
                Labelled::Other(set.dataset(&format!("{corruption}-{severity}"))?)
            }
            _ => labelled,
        };
        Ok(data.evaluator_of(e, copies)?)
    };
    run_evaluations(&evaluations, &net, open, |e| {
        if stop_flag().load(Ordering::Relaxed) {
            return Err(Interrupted("the same command evaluates again".to_owned()).into());
        }
        tell(e);
        Ok(())
    })
}

/// What was asked for; something must be left.
fn evaluations(args: &Args, data: &Data<'_>) -> anyhow::Result<Vec<Evaluation>> {
    let splits: Vec<Split> = args.split.iter().map(|split| split.split()).collect();
    let clean = if splits.is_empty() { &[Split::Validation, Split::Test][..] } else { &splits };
    let mut all = data.clean_evaluations(clean);
    all.extend(data.final_evaluations(FinalSettings::default()));
    if data.tasks().contains(&Task::Classification) {
        for split in corrupted_splits(&args.split) {
            all.extend(args.corrupted.suite(split)?.evaluations());
        }
    }
    let wanted = |suite: Suite| match args.suite {
        SuiteArg::All => true,
        SuiteArg::Clean => suite == Suite::Clean,
        SuiteArg::Final => suite == Suite::Final,
        SuiteArg::Noise => suite == Suite::Noise,
        SuiteArg::Corruptions => suite == Suite::Corruptions,
    };
    all.retain(|e| wanted(e.suite) && (splits.is_empty() || splits.contains(&e.split)));
    if args.images.is_some() || args.classes.is_some() {
        all.retain(|e| e.task == Task::Classification);
    }
    if all.is_empty() {
        let what = "nothing to evaluate: noise is on validation images, and --images, --classes and noise ask for a run with labelled images";
        return Err(Usage(what.to_owned()).into());
    }
    Ok(all)
}

/// The test images, or those asked for.
fn corrupted_splits(asked: &[SplitArg]) -> Vec<Split> {
    if asked.is_empty() { vec![Split::Test] } else { asked.iter().map(|split| split.split()).collect() }
}

/// The grids of accuracies of a run under corruptions: kept in the run, shown, and added to `found` as summaries.
fn corrupted(
    args: &Args,
    scored: &[(Evaluation, TaskScores)],
    found: &mut Vec<Value>,
    show: Show,
) -> anyhow::Result<Vec<String>> {
    let mut tables = Vec::new();
    for split in corrupted_splits(&args.split) {
        let suite = args.corrupted.suite(split)?;
        let of_split: Vec<_> = scored.iter().filter(|(e, _)| e.split == split).cloned().collect();
        let Some(grid) = suite.grid(&of_split) else { continue };
        // What is kept is of the run's own images and classes.
        if args.images.is_none() && args.classes.is_none() {
            robustness::keep(&args.run, &suite, &grid)?;
        }
        let baseline = args.baseline.as_ref().map(|run| robustness::baseline(run, &suite)).transpose()?;
        let run = run_name(&args.run);
        found.extend(robustness::summary_rows(&run, &suite, &grid, baseline.as_ref()));
        tables.push(robustness::grid_table(&suite, &grid, baseline.as_ref()));
        if let Some(folder) = &args.figures {
            let seeds = |name: String, grid: Grid| Seeds { name, grids: vec![grid] };
            let baseline = baseline.map(|grid| seeds(robustness::BASELINE.to_owned(), grid));
            let own = seeds(run, grid);
            write_figures(folder, &baseline.into_iter().chain([own]).collect::<Vec<_>>(), show)?;
        }
    }
    Ok(tables)
}

/// Scores as a table; those of a part name it.
pub(crate) fn score_table(rows: &[Value]) -> String {
    let mut table = table(&["task", "evaluation", "metric", "value"]);
    for row in rows {
        let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
        let place = match (row["neuron"].as_u64(), row["session"].as_str(), row["class"].as_str()) {
            (Some(n), Some(session), _) => format!(" of neuron {n}, {session}"),
            (None, Some(session), _) => format!(" of session {session}"),
            (.., Some(class)) => format!(" of class {class}"),
            _ => String::new(),
        };
        let mode = if row["mode"].is_null() { text("split") } else { text("mode") };
        let value = match &row["value"] {
            Value::Number(n) if n.is_u64() => n.to_string(),
            value => format!("{:.4}", value.as_f64().unwrap_or(f64::NAN)),
        };
        table.add_row([text("task"), mode, text("metric") + &place, value]);
    }
    table.to_string()
}
