//! `nct train`: settings and shards to a trained network in a run folder.

pub(super) mod measure;
mod plan;
mod resident;
mod resume;
mod start;
pub(super) mod together;

use super::eval::{run_name, score_table};
use super::exit::stop_flag;
use super::show::{Bar, Show, out};
use crate::base::{Split, Task};
use crate::config::{ConfigError, Data, Experiment, Prepared};
use crate::eval::{Detail, Evaluation, FinalSettings, evaluate, rows, write_tables};
use crate::load::Source;
use crate::model::{DataInfo, Mode, Network, Precision, device};
use crate::objective::Objective;
use crate::runs::{EventFile, Run, State, final_weights, now_seconds};
use crate::schedule::Schedule;
use crate::shard::{Dataset, ShardSet};
use crate::train::modules::Modules;
use crate::train::{
    Graphs, Optimizer, Outcome, Periodic, Recorder, SoFar, TrainState, Trainer, Watch, load_weights,
};
pub(super) use resume::word;
use resume::{begun_before, has_state, interrupted, other_rounding, resumable, take_up};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tch::Device;
use together::Together;

/// Arguments of `nct train`.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Args {
    /// Folder of shards, or its URL (nct help stores)
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
    #[arg(long, value_parser = super::files::folder, default_value = "runs")]
    pub(crate) out: PathBuf,
    /// Go on with this run, exactly where it stopped; one that is done goes on if --epochs asks for more
    #[arg(long, value_name = "RUN", conflicts_with_all = ["config", "set", "out"])]
    pub(crate) resume: Option<PathBuf>,
    /// Go on with the run of the same settings and data in --out if there is one, and begin it else: for jobs that a
    /// cluster stops and starts again with the same command
    #[arg(long = "continue", conflicts_with_all = ["resume", "dry_run", "record"])]
    pub(crate) go_on: bool,
    /// Train so many epochs at most, over all phases
    #[arg(long)]
    pub(crate) epochs: Option<u32>,
    /// Evaluate the validation images under corruptions every so many epochs, into suites.jsonl; `evaluation.every` has
    /// more settings
    #[arg(long, value_name = "N", conflicts_with = "resume")]
    pub(crate) every: Option<u32>,
    /// Print one JSON object a line and epoch and task, and at the end one a score, as in results.json
    #[arg(long)]
    pub(crate) json: bool,
    /// Say what would be trained, layer by layer, and what it costs, and stop
    #[arg(long, conflicts_with = "resume")]
    pub(crate) dry_run: bool,
    /// Write first weights, what they make of the validation data, and each update's batches, seed and losses here, for a comparison with other programs
    #[arg(long, value_name = "DIR", conflicts_with = "resume")]
    pub(crate) record: Option<PathBuf>,
    /// Of `nct bench train`: measure updates instead.
    #[arg(skip)]
    pub(crate) measured: Option<measure::Measure>,
}

pub(crate) fn run(args: &Args, show: Show) -> anyhow::Result<()> {
    let together = Together::join(args)?;
    let show = if together.leads() { show } else { Show::new(true) };
    let begun = if together.leads() { begin(args, show)? } else { None };
    let text =
        together.share(|| begun.as_ref().map(|(experiment, _)| experiment.to_toml()).unwrap_or_default())?;
    if text.is_empty() {
        // What was asked for is done.
        return together.part();
    }
    let (experiment, resumed) = match begun {
        Some(begun) => begun,
        None => (Experiment::parse(&text, "the settings of process 0", &[])?, None),
    };
    let Some((run, rows)) = train_together(&experiment, args, resumed, &together, show)? else {
        return Ok(());
    };
    together.part()?;
    if !together.leads() {
        return Ok(());
    }
    if args.json {
        return rows.iter().try_for_each(|row| out(&row.to_string()));
    }
    let weights = final_weights(experiment.schedule.restore_best);
    show.line(&format!("scores of the {weights} weights, {}:", run.root().display()));
    if show.is_quiet() { Ok(()) } else { out(&score_table(&rows)) }
}

/// The settings, and the run that is gone on with; nothing if what was asked for is done.
fn begin(args: &Args, show: Show) -> anyhow::Result<Option<(Experiment, Option<Run>)>> {
    let take_up = |root: &Path, overrides: &[String]| {
        let run = Run::resume(root)?;
        let file = root.join("config.toml").display().to_string();
        anyhow::Ok((Experiment::parse(&run.config()?, &file, overrides)?, Some(run)))
    };
    let leave = |root: &Path| {
        show.line(&format!("{}: is done", root.display()));
        Ok(None)
    };
    if let Some(root) = &args.resume {
        return if is_done(root, args)? { leave(root) } else { take_up(root, &overrides(args)).map(Some) };
    }
    let experiment = recipe(args)?;
    match args.go_on.then(|| begun_before(&experiment, args)).transpose()?.flatten() {
        None => Ok(Some((experiment, None))),
        Some((root, State::Done)) => leave(&root),
        Some((root, _)) => {
            show.line(&format!("{}: going on", root.display()));
            // Its settings are these, fitted to the machine that it began on.
            take_up(&root, &[]).map(Some)
        }
    }
}

/// Whether the run has its final scores, and no more epochs are asked for than it was to have. A run that was killed before
/// the end of its last evaluation has none.
fn is_done(root: &Path, args: &Args) -> anyhow::Result<bool> {
    if State::of(root) != State::Done {
        return Ok(false);
    }
    let file = root.join("config.toml").display().to_string();
    let experiment = Experiment::parse(&Run::open(root)?.config()?, &file, &[])?;
    Ok(args.epochs.is_none_or(|epochs| epochs <= experiment.schedule.max_iter))
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
    let every = args.every.map(|n| format!("evaluation.every.epochs={n}"));
    args.set.iter().cloned().chain(epochs).chain(every).collect()
}

/// The experiment as it will run: with a shuffle window if memory asks for one and none is given. A resumed
/// run keeps its own.
fn fitted(
    experiment: &Experiment,
    shards: &ShardSet,
    processes: u32,
    resumed: bool,
    show: Show,
) -> anyhow::Result<Experiment> {
    let mut experiment = experiment.clone();
    let window = Data::open(&experiment, shards)?.among(processes).window_for_memory();
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

/// Trains, tests with the best weights, and gives the run and its scores; none for a dry run.
pub(crate) fn train(
    experiment: &Experiment,
    args: &Args,
    resumed: Option<Run>,
    show: Show,
) -> anyhow::Result<Option<(Run, Vec<Value>)>> {
    train_together(experiment, args, resumed, &Together::alone(), show)
}

/// As [`train`], as one of several processes perhaps.
fn train_together(
    experiment: &Experiment,
    args: &Args,
    resumed: Option<Run>,
    together: &Together,
    show: Show,
) -> anyhow::Result<Option<(Run, Vec<Value>)>> {
    let selected = prepared(experiment, &args.device, together)?;
    if start::shows_frost(experiment) {
        super::corrupt::frost::open(None)?;
    }
    let shards = ShardSet::open(&args.shards)?;
    let (asked, processes) = (experiment, together.here());
    let experiment = &together.settings(&fitted(asked, &shards, processes, resumed.is_some(), show)?)?;
    let data = Data::open(experiment, &shards)?.among(processes);
    let data = resident::choose(experiment, data, selected.device, show)?;
    together.agree(experiment, &data)?;
    let sources = data.sources(Split::Train)?;
    let validation = data.evaluator(Split::Validation)?;
    let finals = data.final_evaluations(final_settings(experiment));
    data.check_evaluations(&finals)?;
    let schedule = Arc::new(data.schedule(&sources)?);
    let info = data.info(&sources)?;
    let begun = resumed.as_ref().map_or(Ok(false), has_state)?;
    let fresh = !begun && together.leads();
    let mut net = start::network(experiment, &info, selected.device, fresh, show)?;
    let objective = objective(experiment, &sources, selected.device);
    if args.dry_run {
        if together.leads() {
            plan::show(experiment, &net, &info, &schedule, &sources, args.json)?;
        }
        return Ok(None);
    }
    let teacher = start::teacher(experiment, &shards, selected.device)?;
    let made = || place(args, asked, experiment, resumed, begun, (&selected.note, together, show), &data);
    let (run, state) = together.place(made)?;
    let graphs = graphs(experiment, selected.device, show);
    // Which gradients there are is not the same in every pass, so that recorded ones leave their exchange to the end.
    let reducer = together.connect(&mut net, &objective, graphs.is_none())?;
    announce(&run, &net, &schedule, &together.note(&selected.note), show)?;
    advise(experiment, selected.device, show);
    let recorder = recorder(args, &net, &objective, &sources, (&data, &info))?;
    let periodic = periodic(experiment, &data)?;
    let mut params = net.params().trainable();
    params.extend(objective.params().trainable());
    let mut trainer = Trainer {
        net: &net,
        objective: &objective,
        mode: Mode { frozen_norms: experiment.freeze.norms_below, ..Mode::TRAIN },
        optimizer: Optimizer::new(&experiment.optimizer, params)?,
        schedule,
        resident: resident::upload(&sources, selected.device, experiment.runtime().has_kernels(), show)?,
        sources: Arc::new(sources),
        validation,
        loader: data.loader(),
        anneal: experiment.schedule.clone(),
        periodic,
        modules: Modules::new(&experiment.modules, &net.params().trainable(), teacher)?,
        checkpoints: experiment.checkpoint.clone(),
        nonfinite: experiment.numerics.on_nonfinite,
        recorder,
        reducer,
        graphs,
        seed: experiment.seed,
        run: &run,
    };
    if let Some(measured) = args.measured {
        measure::measure(&mut trainer, measured, experiment, &info, &selected.note)?;
        return Ok(None);
    }
    let mut watch = Terminal::new(show, args.json, &run)?;
    if trainer.run(state, &mut watch)? == Outcome::Interrupted {
        return Err(interrupted(&run, args));
    }
    drop((watch, trainer));
    load_weights(&run, final_weights(experiment.schedule.restore_best), &net)?;
    let rows = evaluate_at_end(experiment, &data, &finals, (&net, &run), args, show)?;
    Ok(Some((run, rows)))
}

/// What writes everything down that training reads, if that was asked for.
fn recorder(
    args: &Args,
    net: &Network,
    objective: &Objective,
    sources: &[Source],
    (data, info): (&Data<'_>, &DataInfo),
) -> anyhow::Result<Option<Recorder>> {
    let Some(folder) = &args.record else { return Ok(None) };
    let (validation, classes) = (data.sources(Split::Validation)?, info.classes.unwrap_or(0) as usize);
    Ok(Some(Recorder::start(folder, net, objective, sources, validation, classes)?))
}

/// The device that was asked for, with what training needs there.
fn prepared(experiment: &Experiment, asked: &str, together: &Together) -> anyhow::Result<device::Selected> {
    let selected = together.device(asked)?;
    device::prepare(selected.device, experiment.runtime())?;
    Ok(selected)
}

/// What makes a GPU fast and is not asked for.
fn advise(experiment: &Experiment, device: Device, show: Show) {
    let numerics = &experiment.numerics;
    let bf16 = numerics.precision == Precision::Bf16;
    if !device::has_bfloat16(device) {
        if bf16 {
            show.line("this GPU has no bfloat16, which PyTorch makes up for slowly: numerics.precision = \"f32\" is for it");
        }
        return;
    }
    let slow = numerics.precision == Precision::F32 || bf16 && !numerics.channels_last;
    if matches!(device, Device::Cuda(_)) && slow {
        show.line("made for GPUs are numerics.precision = \"bf16\" and numerics.channels_last = true (configs/gpu.toml)");
    }
}

/// Recordings of passes, if they were asked for and the device can make them.
fn graphs(experiment: &Experiment, device: Device, show: Show) -> Option<Graphs> {
    if !experiment.numerics.graphs {
        return None;
    }
    let graphs = Graphs::on(device);
    if graphs.is_none() {
        show.line("numerics.graphs is for GPUs and has no effect here");
    }
    graphs
}

fn objective(experiment: &Experiment, sources: &[Source], device: Device) -> Objective {
    let mut tasks: Vec<Task> = sources.iter().map(|s| s.task).collect();
    tasks.dedup();
    Objective::new(&experiment.loss, &tasks, device, experiment.numerics.precision.wide())
}

/// The suites between epochs, if there are any; that there are data for them is better known before training.
fn periodic<'a>(experiment: &Experiment, data: &'a Data<'_>) -> anyhow::Result<Option<Periodic<'a>>> {
    let Some(every) = &experiment.evaluation.every else { return Ok(None) };
    let labelled = experiment.labelled();
    let periodic = Periodic {
        epochs: every.epochs,
        noise: every.noise(),
        corruptions: every.corruption_suite(),
        open: Box::new(move |e| data.evaluator_of(e, labelled).map_err(|e| e.to_string())),
    };
    data.check_evaluations(&periodic.evaluations())?;
    Ok(Some(periodic))
}

/// The final evaluations, into the run's folder.
fn evaluate_at_end(
    experiment: &Experiment,
    data: &Data<'_>,
    finals: &[Evaluation],
    (net, run): (&Network, &Run),
    args: &Args,
    show: Show,
) -> anyhow::Result<Vec<Value>> {
    let labelled = experiment.labelled();
    let tell = |e: &Evaluation| {
        let stop = stop_flag().load(Ordering::Relaxed);
        if net.group().map_or(Ok(stop), |group| group.any(stop))? {
            return Err(interrupted(run, args));
        }
        show.line(&format!("{}, {}", e.mode, e.task));
        Ok(())
    };
    let scored = evaluate(finals, net, |e| Ok(data.evaluator_of(e, labelled)?), tell)?;
    let name = run_name(run.root());
    if run.writes() {
        write_tables(&run.root().join("tables"), &name, &scored)?;
    }
    let rows: Vec<Value> =
        scored.iter().flat_map(|(e, scores)| rows(&name, e, scores, Detail::default())).collect();
    run.results(&rows)?;
    Ok(rows)
}

/// The run's folder, made or taken up again, and the state that was saved in it.
fn place(
    args: &Args,
    asked: &Experiment,
    experiment: &Experiment,
    resumed: Option<Run>,
    begun: bool,
    (device, together, show): (&str, &Together, Show),
    data: &Data<'_>,
) -> anyhow::Result<(Run, Option<TrainState>)> {
    let provenance = provenance(asked, device, data, !begun, together.world())?;
    match resumed {
        Some(run) => {
            if let Some(told) = other_rounding(&run, &provenance)? {
                show.line(&told);
                run.log(&told)?;
            }
            let state = resumable(&run, &provenance, begun)?;
            take_up(&run, (asked, data), &provenance, state.as_ref())?;
            Ok((run, state))
        }
        None => Ok((Run::create(&args.out, &experiment.name, &experiment.to_toml(), &provenance)?, None)),
    }
}

fn announce(run: &Run, net: &Network, schedule: &Schedule, device: &str, show: Show) -> anyhow::Result<()> {
    let (root, n) = (run.root().display(), super::show::count(net.params().n_trainable()));
    let head =
        format!("{root}: {n} parameters, {} updates per epoch, on {device}", schedule.steps_per_epoch());
    show.line(&head);
    Ok(run.log(&head)?)
}

fn final_settings(experiment: &Experiment) -> FinalSettings {
    FinalSettings {
        add_final_train_eval: experiment.evaluation.add_final_train_eval,
        add_final_val_eval: experiment.evaluation.add_final_val_eval,
        add_final_test_eval: experiment.evaluation.add_final_test_eval,
    }
}

/// What a run of these settings on these data is of; see [`Experiment::identity`].
pub(crate) fn identity(experiment: &Experiment, data: &Data<'_>) -> anyhow::Result<String> {
    identity_from(experiment, data, start::digest(experiment)?)
}

/// The same of a run that starts from weights of digest `init`.
fn identity_from(experiment: &Experiment, data: &Data<'_>, init: Option<String>) -> anyhow::Result<String> {
    let digest = |d: &Dataset| (d.manifest().dataset.clone(), d.manifest().fingerprint().to_string());
    Ok(experiment.identity(&data.datasets().map(digest).collect(), &start::digests(experiment, init)?))
}

/// Everything beside the settings that a run depends on, and what can change rounding. `asked` are the settings before
/// they were fitted to the machine.
fn provenance(
    asked: &Experiment,
    device: &str,
    data: &Data<'_>,
    fresh: bool,
    processes: u32,
) -> anyhow::Result<Value> {
    let datasets: serde_json::Map<String, Value> = data
        .datasets()
        .map(|d| (d.manifest().dataset.clone(), json!({"blake3": d.manifest().fingerprint().as_str()})))
        .collect();
    let prepared: Prepared =
        data.datasets().map(|d| (d.manifest().dataset.clone(), d.manifest().prepared())).collect();
    Ok(json!({
        // A run that is gone on with no longer needs the files, and has its identity.
        "identity": if fresh { Some(identity(asked, data)?) } else { None },
        "nct": env!("CARGO_PKG_VERSION"),
        "libtorch": device::libtorch_version(),
        "seed": asked.seed,
        "host": crate::runs::host(),
        "device": device,
        "driver": device::Driver::version(),
        "processes": processes,
        "torch_threads": tch::get_num_threads(),
        "cpu": crate::runs::cpu(),
        "rounding_depends_on": ["libtorch", "device", "processes", "torch_threads", "cpu"],
        "datasets": datasets,
        "prepared": prepared,
        "frost_source": start::trains_with_frost(asked).then(|| crate::corruption::frost::source().as_str()),
        "init_blake3": if fresh { start::digest(asked)? } else { None },
    }))
}

/// Shows progress and writes curves.
struct Terminal<'a> {
    show: Show,
    json: bool,
    epoch: u32,
    bar: Option<Bar>,
    run: &'a Run,
    /// None where another process writes.
    events: Option<EventFile>,
    stop: &'static AtomicBool,
}

impl Watch for Terminal<'_> {
    fn epoch_begins(&mut self, epoch: u32, steps: u64) {
        self.epoch = epoch;
        self.bar = Some(self.show.bar(&format!("epoch {epoch}"), steps, "updates"));
    }

    fn step(&mut self, so_far: &SoFar<'_>) {
        let Some(bar) = &self.bar else { return };
        bar.advance_with(1, || {
            let losses: String =
                so_far.losses().map(|(task, loss)| format!("{task} loss {loss:.4}, ")).collect();
            let (rate, waited) = so_far.rates();
            let (waited, most) = (100.0 * waited, so_far.max_iter);
            format!(
                "{losses}{rate:.0} samples/s, {waited:.0} % waiting, epoch {} of {most} at most",
                self.epoch
            )
        });
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

    fn suites_begin(&mut self, epoch: u32, evaluations: u64) {
        if let Some(bar) = self.bar.take() {
            bar.clear();
        }
        self.show.line(&format!("suites of epoch {epoch}: {evaluations} evaluations"));
        self.bar = Some(self.show.bar("suites", evaluations, "evaluations"));
    }

    fn evaluated(&mut self) {
        self.bar.iter().for_each(|bar| bar.advance(1));
    }

    fn suites(&mut self, lines: &[Value]) {
        if let Some(bar) = self.bar.take() {
            bar.clear();
        }
        for line in lines {
            if self.json {
                let _ = out(&line.to_string());
            }
            self.suite_curve(line);
        }
        let mean = |line: &&Value| {
            line["metric"] == "mean_accuracy" && line["group"].is_null() && line["corruption"].is_null()
        };
        if let Some(value) = lines.iter().find(mean).and_then(|line| line["value"].as_f64()) {
            self.show.line(&format!("           under corruptions: mean accuracy {value:.2} %"));
        }
    }

    fn wants_stop(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Curves beside those of losses and scores.
const CURVES: [&str; 6] = ["lr", "log_variance", "loss_weight", "samples_per_s", "wait_share", "update_ms"];

impl<'a> Terminal<'a> {
    fn new(show: Show, json: bool, run: &'a Run) -> anyhow::Result<Self> {
        let events = run.writes().then(|| run.events()).transpose()?;
        let json = json && run.writes();
        Ok(Self { show, json, epoch: 0, bar: None, run, events, stop: stop_flag() })
    }

    fn curves(&mut self, line: &Value) {
        let Some(events) = &mut self.events else { return };
        let (task, epoch) = (line["task"].as_str().unwrap_or_default(), line["epoch"].as_u64().unwrap_or(0));
        for (key, value) in line.as_object().into_iter().flatten() {
            let metric =
                key.starts_with("train_") || key.starts_with("validation_") || CURVES.contains(&key.as_str());
            if let (true, Some(value)) = (metric, value.as_f64()) {
                // Curves are a copy of metrics.jsonl, whose errors are reported.
                let _ = events.scalar(now_seconds(), epoch, &format!("{task}/{key}"), value as f32);
            }
        }
    }
}

impl Terminal<'_> {
    /// Means over severities, and accuracies under noise.
    fn suite_curve(&mut self, line: &Value) {
        let place = ["corruption", "group", "noise_std"].iter().find_map(|key| match &line[*key] {
            Value::String(name) => Some(name.clone()),
            Value::Number(std) => Some(format!("noise_{std}")),
            _ => None,
        });
        let of_suite =
            line["metric"] == "mean_accuracy" || line["suite"] == "noise" && line["metric"] == "accuracy";
        if let (true, Some(events), Some(epoch), Some(value)) =
            (of_suite, &mut self.events, line["epoch"].as_u64(), line["value"].as_f64())
        {
            let tag = format!("corrupted/{}", place.as_deref().unwrap_or("mean"));
            let _ = events.scalar(now_seconds(), epoch, &tag, value as f32);
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

/// The default place of shards, as the command line has it.
pub(crate) fn args(shards: &Path, out: &Path, device: &str) -> Args {
    Args {
        shards: shards.to_path_buf(),
        out: out.to_path_buf(),
        device: device.to_owned(),
        ..Args::default()
    }
}
