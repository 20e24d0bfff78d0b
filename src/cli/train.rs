//! `nct train`: settings and shards to a trained network in a run folder.

use super::exit::{Interrupted, Usage, stop_flag};
use super::show::{Bar, Show, out, table};
use crate::base::{Purpose, RngKey, Split, Task};
use crate::config::{ConfigError, Data, Experiment};
use crate::model::{Network, Runtime, device};
use crate::objective::Objective;
use crate::runs::{EventFile, Run, now_seconds};
use crate::shard::ShardSet;
use crate::train::{Optimizer, Outcome, TrainState, Trainer, Watch, load_weights};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Arguments of `nct train`.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Args {
    /// Folder of shards
    #[arg(long, default_value = "shards")]
    pub(crate) shards: PathBuf,
    /// Settings; see configs/. Without it, the paper's co-training
    #[arg(long)]
    pub(crate) config: Option<PathBuf>,
    /// Change a setting, such as `--set optimizer.lr=0.05` (may be repeated)
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// auto, cpu, cuda or cuda:N
    #[arg(long, default_value = "auto")]
    pub(crate) device: String,
    /// Folder of runs
    #[arg(long, default_value = "runs")]
    pub(crate) out: PathBuf,
    /// Go on with this run, exactly where it stopped
    #[arg(long, value_name = "RUN", conflicts_with_all = ["config", "set", "out"])]
    pub(crate) resume: Option<PathBuf>,
    /// Train so many epochs at most, over all phases
    #[arg(long)]
    pub(crate) epochs: Option<u32>,
    /// Print one JSON object a line and epoch and task
    #[arg(long)]
    pub(crate) json: bool,
}

pub(crate) fn run(args: &Args, show: Show) -> anyhow::Result<()> {
    let (experiment, resumed) = match &args.resume {
        None => (recipe(args)?, None),
        Some(root) => {
            let run = Run::resume(root)?;
            let epochs: Vec<String> = overrides(args);
            (
                Experiment::parse(&run.config()?, &root.join("config.toml").display().to_string(), &epochs)?,
                Some(run),
            )
        }
    };
    let (run, mut rows) = train(&experiment, args, resumed, show)?;
    show.line(&format!("test scores of the best weights, {}:", run.root().display()));
    rows.retain(|row| row["neuron"].is_null());
    if args.json { Ok(()) } else { out(&score_table(&rows)) }
}

/// The paper's co-training, for a user who names no other.
const PAPER: &str = include_str!("../../configs/mtl_monkey.toml");

fn recipe(args: &Args) -> Result<Experiment, ConfigError> {
    match &args.config {
        Some(path) => Experiment::read(path, &overrides(args)),
        None => Experiment::parse(PAPER, "configs/mtl_monkey.toml", &overrides(args)),
    }
}

fn overrides(args: &Args) -> Vec<String> {
    let epochs = args.epochs.map(|n| format!("schedule.max_iter={n}"));
    args.set.iter().cloned().chain(epochs).collect()
}

/// The experiment as it will run: with a shuffle window if memory asks for one and none is given. A resumed
/// run keeps its own.
fn fitted(
    experiment: &Experiment,
    shards: &ShardSet,
    resumed: bool,
    show: Show,
) -> anyhow::Result<Experiment> {
    let mut experiment = experiment.clone();
    let window = Data::open(&experiment, shards)?.window_for_memory();
    let Some(mb) = window else { return Ok(experiment) };
    if resumed || experiment.data.shuffle_window_mb.is_some() {
        show.line(&format!(
            "the order of the images asks for more memory than there is, and it is kept: blocks are decoded again and again. Raise loader.cache_mb, or begin a run with data.shuffle_window_mb = {mb}"
        ));
    } else {
        show.line(&format!(
            "the decoded training images do not fit the memory for data: shuffling within windows of {mb} MiB (data.shuffle_window_mb, loader.cache_mb)"
        ));
        experiment.data.shuffle_window_mb = Some(mb);
    }
    Ok(experiment)
}

/// Trains, tests with the best weights, and gives the run and its scores.
pub(crate) fn train(
    experiment: &Experiment,
    args: &Args,
    resumed: Option<Run>,
    show: Show,
) -> anyhow::Result<(Run, Vec<Value>)> {
    let selected = device::select(&args.device)?;
    let shards = ShardSet::open(&args.shards)?;
    let experiment = &fitted(experiment, &shards, resumed.is_some(), show)?;
    let data = Data::open(experiment, &shards)?;
    let sources = data.sources(Split::Train)?;
    let validation = data.evaluator(Split::Validation)?;
    let test = data.evaluator(Split::Test)?;
    let schedule = Arc::new(data.schedule(&sources)?);
    let info = data.info(&sources)?;
    device::seed(RngKey::new(experiment.seed, Purpose::Init, 0).word(0, 0));
    let net = Network::new(&experiment.model, &info, selected.device, Runtime::default())?;
    let mut tasks: Vec<Task> = sources.iter().map(|s| s.task).collect();
    tasks.dedup();
    let objective = Objective::new(&experiment.loss, &tasks, selected.device);
    let provenance = provenance(experiment, &selected.note, &data);
    let state = resumed.as_ref().map(|run| resumable(run, &provenance)).transpose()?;
    let run = match resumed {
        Some(run) => run,
        None => Run::create(&args.out, &experiment.name, &experiment.to_toml(), &provenance)?,
    };
    let head = format!(
        "{}: {} parameters, {} sessions, {} updates per epoch, on {}",
        run.root().display(),
        super::show::count(net.params().n_trainable()),
        info.sessions.len(),
        schedule.steps_per_epoch(),
        selected.note
    );
    show.line(&head);
    run.log(&head)?;
    let mut params = net.params().trainable();
    params.extend(objective.params().trainable());
    let mut trainer = Trainer {
        net: &net,
        objective: &objective,
        optimizer: Optimizer::new(&experiment.optimizer, params)?,
        schedule,
        sources: Arc::new(sources),
        validation,
        loader: data.loader(),
        anneal: experiment.schedule.clone(),
        seed: experiment.seed,
        run: &run,
    };
    let mut watch =
        Terminal { show, json: args.json, bar: None, run: &run, events: run.events()?, stop: stop_flag() };
    if trainer.run(state, &mut watch)? == Outcome::Interrupted {
        let what = format!(
            "saved; go on with `nct train --shards {} --resume {}`",
            args.shards.display(),
            run.root().display()
        );
        return Err(Interrupted(what).into());
    }
    drop(watch);
    load_weights(&run, "best", &net)?;
    let rows = super::eval::rows(run.root(), Split::Test, &test, &net, &experiment.loss)?;
    run.results(&rows)?;
    Ok((run, rows))
}

/// Everything beside the settings that a run depends on.
fn provenance(experiment: &Experiment, device: &str, data: &Data<'_>) -> Value {
    let datasets: serde_json::Map<String, Value> = data
        .datasets()
        .map(|d| (d.manifest().dataset.clone(), json!({"blake3": d.manifest().fingerprint().as_str()})))
        .collect();
    json!({
        "nct": env!("CARGO_PKG_VERSION"),
        "libtorch": "2.11",
        "seed": experiment.seed,
        "device": device,
        "datasets": datasets,
    })
}

/// The saved state, if the shards are still the same.
fn resumable(run: &Run, provenance: &Value) -> anyhow::Result<TrainState> {
    let path = run.root().join("manifest.json");
    let text = std::fs::read_to_string(&path).map_err(|e| Usage(format!("{}: {e}", path.display())))?;
    let manifest: Value =
        serde_json::from_str(&text).map_err(|e| Usage(format!("{}: {e}", path.display())))?;
    if manifest["datasets"] != provenance["datasets"] {
        let what =
            format!("{}: the run was trained on other shards; give those with --shards", path.display());
        return Err(Usage(what).into());
    }
    Ok(TrainState::read(run)?)
}

/// Shows progress and writes curves.
struct Terminal<'a> {
    show: Show,
    json: bool,
    bar: Option<Bar>,
    run: &'a Run,
    events: EventFile,
    stop: &'static AtomicBool,
}

impl Watch for Terminal<'_> {
    fn epoch_begins(&mut self, epoch: u32, steps: u64) {
        self.bar = Some(self.show.bar(&format!("epoch {epoch}"), steps, "updates"));
    }

    fn step(&mut self) {
        self.bar.iter().for_each(|bar| bar.advance(1));
    }

    fn epoch(&mut self, lines: &[Value]) {
        if let Some(bar) = self.bar.take() {
            bar.clear();
        }
        for line in lines {
            if self.json {
                // A closed pipe must not end training.
                let _ = out(&line.to_string());
            }
            let _ = self.run.log(&line.to_string());
            self.curves(line);
        }
        self.show.line(&summary(lines));
    }

    fn wants_stop(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

impl Terminal<'_> {
    fn curves(&mut self, line: &Value) {
        let (task, epoch) = (line["task"].as_str().unwrap_or_default(), line["epoch"].as_u64().unwrap_or(0));
        for (key, value) in line.as_object().into_iter().flatten() {
            let metric = key.starts_with("train_")
                || key.starts_with("validation_")
                || key == "lr"
                || key == "log_variance";
            if let (true, Some(value)) = (metric, value.as_f64()) {
                // Curves are a copy of metrics.jsonl, whose errors are reported.
                let _ = self.events.scalar(now_seconds(), epoch, &format!("{task}/{key}"), value as f32);
            }
        }
    }
}

/// One line an epoch.
fn summary(lines: &[Value]) -> String {
    let Some(first) = lines.first() else { return String::new() };
    let number = |line: &Value, key: &str| line[key].as_f64();
    let mut text = format!(
        "epoch {:>3}  lr {:.5}",
        first["epoch"].as_u64().unwrap_or(0),
        number(first, "lr").unwrap_or(0.0)
    );
    for line in lines {
        let show = |key: &str, label: &str, unit: &str| {
            number(line, key).map(|v| format!(" {label} {v:.3}{unit}")).unwrap_or_default()
        };
        text.push_str(&format!("  {}:", line["task"].as_str().unwrap_or_default()));
        text.push_str(&show("train_loss", "loss", ""));
        text.push_str(&show("validation_accuracy", "accuracy", " %"));
        text.push_str(&show("validation_correlation", "correlation", ""));
    }
    if let Some(rate) = number(first, "samples_per_s") {
        let waited = 100.0 * number(first, "wait_share").unwrap_or(0.0);
        text.push_str(&format!("  {rate:.0} samples/s, {waited:.0} % waiting for data"));
    }
    text
}

/// Scores as a table; single neurons name their session.
pub(crate) fn score_table(rows: &[Value]) -> String {
    let mut table = table(&["task", "split", "metric", "value"]);
    for row in rows {
        let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
        let place = row["neuron"]
            .as_u64()
            .map(|n| format!(" of neuron {n}, {}", text("session")))
            .unwrap_or_default();
        let value = format!("{:.4}", row["value"].as_f64().unwrap_or(f64::NAN));
        table.add_row([text("task"), text("split"), text("metric") + &place, value]);
    }
    table.to_string()
}

/// The default place of shards, as the command line has it.
pub(crate) fn args(shards: &Path, out: &Path, device: &str) -> Args {
    Args {
        shards: shards.to_path_buf(),
        out: out.to_path_buf(),
        device: device.to_owned(),
        ..Args::default()
    }
}
