//! What a study still has to do, and doing it: several processes may, on one machine or many.

use crate::base::Fingerprint;
use crate::cli::exit::{Interrupted, Usage, chain, stop_flag};
use crate::cli::robustness::SuiteArgs;
use crate::cli::show::Show;
use crate::cli::{eval, prepare, respond, robustness, synth, train};
use crate::config::{Data, Experiment, Point, Responses, Study, Training, Work};
use crate::ingest::{Color, PrepareOptions};
use crate::runs::{Failure, Identities, Queue, RAW_RESPONSES, RAW_SAMPLES, Run, State, write_atomic};
use crate::shard::{ShardError, ShardSet};
use crate::store::url_of;
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Where and how a study is worked on.
pub(super) struct Place {
    pub(super) shards: PathBuf,
    pub(super) out: PathBuf,
    pub(super) device: String,
    /// Stay while other processes work on what is left, to take over should they end.
    pub(super) wait: bool,
}

/// A piece of work.
#[derive(Clone, Copy)]
pub(super) enum Task<'s> {
    /// Sample data.
    Samples,
    /// A run of a stage: its name, what it trains, and the number of the run.
    Train(&'s str, &'s Training, usize),
    /// The data set of a stage.
    Respond(&'s str, &'s Responses),
}

/// How far a piece of work is.
pub(super) enum Status {
    /// Finished, as a run or as a data set.
    Done(PathBuf),
    /// It went wrong, here or elsewhere.
    Failed(String),
    /// It needs this stage first.
    Waits(String),
    /// Another process is at it.
    Running,
    /// It was begun, and can be gone on with.
    Stopped(PathBuf),
    /// Nothing of it is there.
    New,
}

impl Status {
    pub(super) const fn as_str(&self) -> &'static str {
        match self {
            Self::Done(_) => "done",
            Self::Failed(_) => "failed",
            Self::Waits(_) => "waits",
            Self::Running => "running",
            Self::Stopped(_) => "stopped",
            Self::New => "to do",
        }
    }

    /// Whether nothing will change it but a person.
    pub(super) const fn is_settled(&self) -> bool {
        matches!(self, Self::Done(_) | Self::Failed(_))
    }
}

/// A task that nothing keeps from being done.
struct Ready {
    /// What it is of.
    id: String,
    /// Of a run, its settings.
    experiment: Option<Experiment>,
}

/// A study's work as one process sees it.
pub(super) struct Worker<'s> {
    study: &'s Study,
    place: &'s Place,
    /// None for one that only looks, where nobody has worked yet or failures do not count.
    queue: Option<Queue>,
    only_looks: bool,
    identities: Identities,
    /// Names of what is ready, until it is attempted; by label.
    ids: HashMap<String, String>,
    /// What is done stays done; by label.
    done: HashMap<String, PathBuf>,
    shards: Option<ShardSet>,
    /// Labels of what went wrong and has been told.
    told: HashSet<String>,
}

/// The data sets of `nct synth`.
const SAMPLES: [&str; 4] =
    ["tiny-imagenet-200", "mtl_monkey_dataset", "mtl_oracle_dataset", "mtl_shuffled_dataset"];

impl Task<'_> {
    /// Stage, and what the sweep chose.
    pub(super) fn label(&self) -> String {
        match self {
            Self::Samples => "sample data".to_owned(),
            Self::Train(stage, ..) if self.choice().is_empty() => (*stage).to_owned(),
            Self::Train(stage, ..) => format!("{stage}, {}", self.choice()),
            Self::Respond(stage, _) => (*stage).to_owned(),
        }
    }

    pub(super) fn stage(&self) -> &str {
        match self {
            Self::Samples => "sample data",
            Self::Train(stage, ..) | Self::Respond(stage, _) => stage,
        }
    }

    /// What the sweep chose, as it is written.
    pub(super) fn choice(&self) -> String {
        let Some(point) = self.point() else { return String::new() };
        let choice: Vec<String> =
            point.choice.iter().map(|(key, value)| format!("{key}={}", plain(value))).collect();
        choice.join(", ")
    }

    fn point(&self) -> Option<&Point> {
        if let Self::Train(_, training, n) = self { training.points.get(*n) } else { None }
    }
}

impl<'s> Worker<'s> {
    /// One that works, or one that `only_looks` and writes nothing.
    pub(super) fn new(study: &'s Study, place: &'s Place, only_looks: bool) -> anyhow::Result<Self> {
        let mut shards = None;
        if let Some(url) = url_of(&place.shards) {
            if study.samples.is_some() || study.stages.iter().any(|s| matches!(s.work, Work::Respond(_))) {
                let what = format!("{url}: this study makes data, for which shards must be in a folder");
                return Err(Usage(what).into());
            }
            shards = Some(ShardSet::open(&place.shards)?);
        }
        let makes_queue = !only_looks || place.out.join(".queue").is_dir();
        let queue = makes_queue.then(|| Queue::open(&place.out)).transpose()?;
        let identities = Identities::new(&place.out);
        let (ids, done, told) = (HashMap::new(), HashMap::new(), HashSet::new());
        Ok(Self { study, place, queue, only_looks, identities, ids, done, shards, told })
    }

    /// Forgets what went wrong before, so that it is tried again; one that only looks sees it as if it were forgotten.
    pub(super) fn forget_failures(&mut self) -> anyhow::Result<()> {
        if self.only_looks {
            self.queue = None;
        }
        for task in self.tasks() {
            if let Some(queue) = self.queue.clone()
                && let Ok(ready) = self.ready(&task)?
                && let Some(claim) = queue.claim(&ready.id)?
            {
                claim.forget()?;
            }
        }
        Ok(())
    }

    /// All work, in order.
    pub(super) fn tasks(&self) -> Vec<Task<'s>> {
        let samples = self.study.samples.map(|_| Task::Samples);
        let of_stages = self.study.stages.iter().flat_map(|stage| match &stage.work {
            Work::Train(training) => {
                (0..training.points.len()).map(|n| Task::Train(&stage.name, training, n)).collect()
            }
            Work::Respond(responses) => vec![Task::Respond(&stage.name, responses)],
        });
        samples.into_iter().chain(of_stages).collect()
    }

    /// How far `task` is.
    pub(super) fn status(&mut self, task: &Task<'s>) -> anyhow::Result<Status> {
        if let Some(path) = self.done.get(&task.label()) {
            return Ok(Status::Done(path.clone()));
        }
        let ready = match self.ready(task)? {
            Ok(ready) => ready,
            Err(status) => return Ok(status),
        };
        let status = match task {
            Task::Samples if self.has_samples()? => Status::Done(self.place.shards.clone()),
            Task::Samples => Status::New,
            Task::Respond(_, responses) => self.of_responses(responses, &ready.id)?,
            Task::Train(..) => self.of_run(&ready),
        };
        if let Status::Done(path) = &status {
            self.done.insert(task.label(), path.clone());
        } else if let Some(queue) = &self.queue
            && let Some(failure) = queue.failure(&ready.id)?
        {
            self.told.insert(task.label());
            return Ok(Status::Failed(failure.error));
        }
        Ok(status)
    }

    /// Looks anew at what all work is of.
    pub(super) fn look_anew(&mut self) {
        self.tasks().iter().for_each(|task| self.forget(&task.label()));
    }

    /// Looks anew at what `label` is of: data may have been replaced.
    fn forget(&mut self, label: &str) {
        self.ids.remove(label);
        if url_of(&self.place.shards).is_none() {
            self.shards = None;
        }
    }

    fn of_run(&mut self, ready: &Ready) -> Status {
        match self.identities.runs(&ready.id).into_iter().next() {
            Some((root, State::Done)) if self.is_evaluated(ready, &root) => Status::Done(root),
            Some((_, State::Running)) => Status::Running,
            Some((root, _)) => Status::Stopped(root),
            None => Status::New,
        }
    }

    fn is_evaluated(&self, ready: &Ready, root: &Path) -> bool {
        let labelled = ready.experiment.as_ref().is_some_and(|e| !e.data.images.is_empty());
        self.study
            .corruptions
            .as_ref()
            .is_none_or(|suite| !labelled || robustness::kept_of(root, suite).is_some())
    }

    fn of_responses(&mut self, responses: &Responses, id: &str) -> anyhow::Result<Status> {
        if self.dataset(&responses.dataset)?.is_none() {
            return Ok(Status::New);
        }
        let made = std::fs::read_to_string(self.record(&responses.dataset)).unwrap_or_default();
        let made: Value = serde_json::from_str(&made).unwrap_or_default();
        if made["identity"] == id {
            return Ok(Status::Done(self.place.shards.join(&responses.dataset)));
        }
        let what = format!(
            "{}: is there already, and was made from something else; remove it, or give the stage another dataset",
            self.place.shards.join(&responses.dataset).display()
        );
        Ok(Status::Failed(what))
    }

    /// Beside the shards, what a data set was made from.
    fn record(&self, dataset: &str) -> PathBuf {
        self.place.shards.join(format!(".{dataset}.made.json"))
    }

    /// The name of what `task` is of, and its settings; or why it cannot be begun.
    fn ready(&mut self, task: &Task<'s>) -> anyhow::Result<Result<Ready, Status>> {
        if !matches!(task, Task::Samples) && self.study.samples.is_some() && !self.has_samples()? {
            return Ok(Err(Status::Waits("sample data".to_owned())));
        }
        match *task {
            Task::Samples => {
                let id = format!("samples-{}", short(self.place.shards.as_os_str().as_encoded_bytes()));
                Ok(Ok(Ready { id, experiment: None }))
            }
            Task::Train(_, training, n) => self.ready_to_train(task, training, n),
            Task::Respond(_, responses) => {
                let run = match self.run_of(&responses.run, None)? {
                    Ok(run) => run,
                    Err(status) => return Ok(Err(status)),
                };
                let Some(images) = self.dataset(&responses.images)? else {
                    return Ok(Err(Status::Waits(format!("data set {}", responses.images))));
                };
                let id = if let Some(id) = self.ids.get(&task.label()) {
                    id.clone()
                } else {
                    let text = format!("{images} {} {responses:?}", robustness::weights_of(&run)?);
                    self.ids.entry(task.label()).or_insert(short(text.as_bytes())).clone()
                };
                Ok(Ok(Ready { id, experiment: None }))
            }
        }
    }

    fn ready_to_train(
        &mut self,
        task: &Task<'s>,
        training: &Training,
        n: usize,
    ) -> anyhow::Result<Result<Ready, Status>> {
        let mut experiment = training.points[n].experiment.clone();
        if let Some(stage) = &training.init {
            match self.run_of(stage, Some(&training.points[n]))? {
                Ok(run) => experiment.init.from = run,
                Err(status) => return Ok(Err(status)),
            }
        }
        if let Some(stage) = self.lacking(&experiment)? {
            return Ok(Err(Status::Waits(stage)));
        }
        let label = task.label();
        let id = if let Some(id) = self.ids.get(&label) {
            id.clone()
        } else {
            match self.identity(&experiment) {
                Ok(id) => self.ids.entry(label).or_insert(id).clone(),
                // Other stages may have their data.
                Err(e) if self.study.stages.len() > 1 => return Ok(Err(Status::Failed(chain(&e)))),
                Err(e) => return Err(e),
            }
        };
        Ok(Ok(Ready { id, experiment: Some(experiment) }))
    }

    fn identity(&self, experiment: &Experiment) -> anyhow::Result<String> {
        let shards = ShardSet::open(&self.place.shards)?;
        train::identity(experiment, &Data::open(experiment, &shards)?)
    }

    /// The stage that has yet to make a data set of the experiment.
    fn lacking(&mut self, experiment: &Experiment) -> anyhow::Result<Option<String>> {
        let data = &experiment.data;
        for stage in &self.study.stages {
            if let Work::Respond(responses) = &stage.work
                && [&data.images, &data.neural, &data.neural_v4].contains(&&responses.dataset)
                && !matches!(self.status(&Task::Respond(&stage.name, responses))?, Status::Done(_))
            {
                return Ok(Some(stage.name.clone()));
            }
        }
        Ok(None)
    }

    /// The finished run of a stage; of a sweep, the one that agrees with `point`.
    fn run_of(&mut self, stage: &str, point: Option<&Point>) -> anyhow::Result<Result<PathBuf, Status>> {
        let tasks: Vec<Task<'s>> = self.tasks().into_iter().filter(|task| task.stage() == stage).collect();
        let agrees = |task: &&Task<'s>| {
            let own = task.point().map_or(&[][..], |own| &own.choice);
            let other = point.map_or(&[][..], |point| &point.choice);
            own.iter().all(|(key, value)| other.iter().all(|(k, v)| k != key || v == value))
        };
        let fitting: Vec<&Task<'s>> = tasks.iter().filter(agrees).collect();
        let [task] = fitting[..] else {
            let what = format!(
                "stage {stage} has {} runs to go on from; sweep the same keys in both",
                fitting.len()
            );
            return Err(Usage(what).into());
        };
        Ok(match self.status(task)? {
            Status::Done(run) => Ok(run),
            Status::Failed(_) => Err(Status::Failed(format!("{} failed, which it needs", task.label()))),
            _ => Err(Status::Waits(task.label())),
        })
    }

    /// Digest of a data set, if it is there.
    fn dataset(&mut self, name: &str) -> anyhow::Result<Option<String>> {
        let of = |set: &ShardSet| {
            let found = set.datasets().iter().find(|d| d.manifest().dataset == name);
            found.map(|d| d.manifest().fingerprint().to_string())
        };
        if let Some(digest) = self.shards.as_ref().and_then(of) {
            return Ok(Some(digest));
        }
        if url_of(&self.place.shards).is_some() {
            return Ok(None);
        }
        // Another process may have made it.
        self.shards = self.sets()?;
        Ok(self.shards.as_ref().and_then(of))
    }

    /// The data sets that are in the folder of shards, if there are any yet.
    fn sets(&self) -> anyhow::Result<Option<ShardSet>> {
        let root = &self.place.shards;
        if !root.is_dir() {
            return Ok(None);
        }
        match ShardSet::open(root) {
            Ok(sets) => Ok(Some(sets)),
            Err(ShardError::Folder { path, .. }) if path == *root => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    fn has_samples(&mut self) -> anyhow::Result<bool> {
        for name in SAMPLES {
            if self.dataset(name)?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Works until nothing is left that this process could do.
    pub(super) fn work(&mut self, show: Show) -> anyhow::Result<()> {
        let (tasks, mut told) = (self.tasks(), false);
        loop {
            let (mut worked, mut waits, mut running) = (false, false, false);
            for task in &tasks {
                match self.status(task)? {
                    Status::Done(_) => {}
                    // What was tried has been told then.
                    Status::Failed(error) => {
                        if self.told.insert(task.label()) {
                            show.line(&format!("{}: failed: {error}", task.label()));
                        }
                    }
                    Status::Waits(_) => waits = true,
                    Status::Running => running = true,
                    Status::Stopped(_) | Status::New => {
                        let done = self.attempt(task, show)?;
                        (worked, running) = (done, running || !done);
                    }
                }
                if stop_flag().load(Ordering::Relaxed) {
                    return Err(Interrupted("the same command goes on".to_owned()).into());
                }
                // Earlier work may have become ready.
                if worked {
                    break;
                }
            }
            if !worked && !(running && (waits || self.place.wait)) {
                return Ok(());
            }
            if !worked {
                if !std::mem::replace(&mut told, true) {
                    show.line("other processes work on what is left; waiting for them");
                }
                std::thread::sleep(Duration::from_millis(500));
            }
        }
    }

    /// Does a piece of work, unless another process has it. That it went wrong is recorded.
    fn attempt(&mut self, task: &Task<'s>, show: Show) -> anyhow::Result<bool> {
        self.forget(&task.label());
        let Ok(ready) = self.ready(task)? else { return Ok(false) };
        let Some(queue) = &self.queue else { return Ok(false) };
        let Some(claim) = queue.claim(&ready.id)? else { return Ok(false) };
        // It may have been done, or gone wrong, between the look and the claim.
        match self.status(task)? {
            Status::Stopped(_) | Status::New => {}
            status => return Ok(status.is_settled()),
        }
        show.line(&format!("{}: begins", task.label()));
        let result = match *task {
            Task::Samples => self.make_samples(show),
            Task::Respond(_, responses) => self.respond(responses, &ready.id, show),
            Task::Train(..) => self.train(&ready, show),
        };
        self.forget(&task.label());
        match result.and_then(|()| self.made(task)) {
            Ok(()) => show.line(&format!("{}: done", task.label())),
            Err(e) if e.is::<Interrupted>() || stop_flag().load(Ordering::Relaxed) => {
                return Err(Interrupted("saved; the same command goes on".to_owned()).into());
            }
            Err(e) => {
                let error = chain(&e);
                show.line(&format!("{}: failed: {error}", task.label()));
                claim.fail(&Failure::here(&task.label(), error))?;
            }
        }
        Ok(true)
    }

    /// Whether what was just made is what was asked for. If it is not, making it again would not help.
    fn made(&mut self, task: &Task<'s>) -> anyhow::Result<()> {
        let (out, shards) = (self.place.out.display(), self.place.shards.display());
        let what = match self.status(task)? {
            Status::Done(_) => return Ok(()),
            Status::New => format!("it is not in {out} or {shards}; were data replaced meanwhile?"),
            Status::Stopped(root) => {
                format!("{} is not whole, or lacks scores under the study's corruptions", root.display())
            }
            Status::Failed(what) => what,
            Status::Waits(stage) => format!("{stage} is gone, which it needs"),
            Status::Running => "another process trains it".to_owned(),
        };
        Err(Usage(format!("it was made, and is not what was asked for: {what}")).into())
    }

    fn train(&mut self, ready: &Ready, show: Show) -> anyhow::Result<()> {
        let args = train::args(&self.place.shards, &self.place.out, &self.place.device);
        let Some(experiment) = &ready.experiment else { return Ok(()) };
        let root = match self.of_run(ready) {
            Status::Stopped(root) if State::of(&root) == State::Done => root,
            Status::Stopped(root) => {
                show.line(&format!("{}: goes on", root.display()));
                let run = Run::resume(&root)?;
                let origin = root.join("config.toml").display().to_string();
                let own = Experiment::parse(&run.config()?, &origin, &[])?;
                let threads = tch::get_num_threads();
                let trained = train::train(&own, &args, Some(run), show);
                // It had the number of threads that it was begun with.
                tch::set_num_threads(threads);
                trained?;
                root
            }
            _ => match train::train(experiment, &args, None, show)? {
                Some((run, _)) => run.root().to_path_buf(),
                None => return Ok(()),
            },
        };
        if let Some(suite) = self.study.corruptions.as_ref().filter(|_| !self.is_evaluated(ready, &root)) {
            show.line(&format!("{}: under corruptions", root.display()));
            let asked = SuiteArgs::of(suite);
            eval::robustness_of(&root, &self.place.shards, &self.place.device, asked)?;
        }
        Ok(())
    }

    fn make_samples(&mut self, show: Show) -> anyhow::Result<()> {
        let Some(options) = self.study.samples else { return Ok(()) };
        let folder = tempfile::Builder::new().prefix(RAW_SAMPLES).tempdir_in(&self.place.out)?;
        let raw = folder.path().join("raw");
        synth::make(&raw, &options, show)?;
        self.prepare(&raw, show)
    }

    fn respond(&mut self, responses: &Responses, id: &str, show: Show) -> anyhow::Result<()> {
        let Ok(run) = self.run_of(&responses.run, None)? else { return Ok(()) };
        let folder = tempfile::Builder::new().prefix(RAW_RESPONSES).tempdir_in(&self.place.out)?;
        let raw = folder.path().join(&responses.dataset);
        let Responses { images, shuffle, layer, units, seed, .. } = responses.clone();
        respond::run(
            &respond::Args {
                run,
                shards: self.place.shards.clone(),
                images,
                out: raw.clone(),
                shuffle,
                layer,
                units,
                seed,
                device: self.place.device.clone(),
            },
            show,
        )?;
        let record = format!("{:#}\n", json!({"identity": id, "responses": format!("{responses:?}")}));
        write_atomic(&self.record(&responses.dataset), record.as_bytes())?;
        self.prepare(&raw, show)
    }

    fn prepare(&self, raw: &Path, show: Show) -> anyhow::Result<()> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let options =
            PrepareOptions { color: Color::Gray, ..PrepareOptions::new(self.place.shards.clone(), cores) };
        prepare::make(raw, &options, show)
    }

    /// Finished runs, in the order of the study.
    pub(super) fn finished(&mut self) -> anyhow::Result<Vec<Finished<'s>>> {
        let mut found = Vec::new();
        for task in self.tasks() {
            let Task::Train(stage, training, n) = task else { continue };
            if let Status::Done(run) = self.status(&task)? {
                let choice = training.points[n].choice.iter();
                let choice = choice.map(|(key, value)| (key.as_str(), text(value))).collect();
                found.push(Finished { stage, choice, run });
            }
        }
        Ok(found)
    }
}

/// A finished run of a study.
pub(super) struct Finished<'s> {
    pub(super) stage: &'s str,
    /// What the sweep chose, texts without their quotes.
    pub(super) choice: Vec<(&'s str, String)>,
    pub(super) run: PathBuf,
}

/// A value as it is typed, floats without all of their zeros.
fn plain(value: &toml::Value) -> String {
    match value {
        toml::Value::Float(number) => format!("{number:?}"),
        value => value.to_string().replace(' ', ""),
    }
}

fn text(value: &toml::Value) -> String {
    value.as_str().map_or_else(|| plain(value), str::to_owned)
}

/// A name for what these bytes say.
fn short(bytes: &[u8]) -> String {
    let mut digest = Fingerprint::of(bytes).to_string();
    digest.truncate(32);
    digest
}
