//! Training: the loop, whole, in [`Trainer::run`].
//!
//! Absent: printing. What there is to tell goes to a [`Watch`].

mod anneal;
mod checkpoint;
mod graphs;
mod guard;
pub mod measure;
pub mod modules;
mod optim;
mod periodic;
mod rate;
mod record;
mod resident;
mod step;
mod unread;

pub use anneal::{Anneal, AnnealSettings, Decision, RestoreOptimizer, Scheduler, ThresholdMode};
use checkpoint::BEST;
pub use checkpoint::{TrainState, load_weights, network_weights, part_of};
pub use graphs::Graphs;
pub use optim::{Optimizer, OptimizerKind, OptimizerSettings, ParamGroup};
pub use periodic::{Open, Periodic};
pub use rate::rate;

use crate::base::{Purpose, RngKey, Task};
use crate::eval::{EvalError, Evaluator, TaskScores};
use crate::load::{LoadError, Loader, LoaderOptions, Source};
use crate::model::{Mode, ModelError, Network};
use crate::objective::Objective;
use crate::runs::{Run, RunError};
use crate::schedule::Schedule;
use crate::torch_ext::{GroupError, Reducer};
pub use record::Recorder;
pub use resident::Resident;

pub use guard::{guarded, out_of_memory};
use modules::Modules;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};
use step::{Fault, Tally};
use unread::Unread;

/// Errors of training.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// Data.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Evaluation.
    #[error(transparent)]
    Eval(#[from] EvalError),
    /// The run's folder.
    #[error(transparent)]
    Run(#[from] RunError),
    /// Weights.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A checkpoint that does not fit.
    #[error("checkpoint {0}")]
    Checkpoint(String),
    /// Settings that contradict the data.
    #[error("{0}")]
    Settings(String),
    /// No memory left.
    #[error(
        "{0}; use less at a time: reduce data.batch_size and data.neural_batch_size (mix.batches_per_step adds their gradients up), or on a GPU set numerics.precision = \"bf16\"; `nct train --dry-run` estimates what is needed"
    )]
    Memory(String),
    /// A loss that is no number.
    #[error(
        "{0}; the state is in checkpoints/failed.safetensors and failure.json names all images. Lower optimizer.lr, look at these images, or leave such updates out with numerics.on_nonfinite = \"skip\""
    )]
    Nonfinite(Box<Fault>),
    /// Another process.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// Torch refused.
    #[error("torch: {0}")]
    Torch(#[from] tch::TchError),
    /// Torch refused, in its words.
    #[error("torch: {0}")]
    Refused(String),
}

/// What to do with an update whose loss is NaN or infinite.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Nonfinite {
    /// Save the state and stop.
    #[default]
    Stop,
    /// Leave the update out, and count it.
    Skip,
}

/// Which checkpoints are kept beside the last and the best one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CheckpointSettings {
    /// Save within epochs too, after so many updates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub every_updates: Option<u64>,
    /// Keep the checkpoints of so many last epochs, as `epoch-<n>.safetensors`.
    pub keep_last: u32,
    /// Keep those of so many best epochs.
    pub keep_best: u32,
}

impl TrainError {
    /// Whether the user's input is at fault rather than the program or machine.
    pub fn is_input(&self) -> bool {
        match self {
            Self::Torch(_)
            | Self::Group(_)
            | Self::Refused(_)
            | Self::Memory(_)
            | Self::Nonfinite(_)
            | Self::Eval(EvalError::Torch(_)) => false,
            Self::Model(e) | Self::Eval(EvalError::Model(e)) => e.is_input(),
            _ => true,
        }
    }
}

/// What is told while training.
pub trait Watch {
    /// An epoch of so many updates begins.
    fn epoch_begins(&mut self, _epoch: u32, _steps: u64) {}
    /// An update is done.
    fn step(&mut self, _so_far: &SoFar<'_>) {}
    /// An epoch is over; one line of metrics a task.
    fn epoch(&mut self, _lines: &[Value]) {}
    /// Suites of so many evaluations begin.
    fn suites_begin(&mut self, _epoch: u32, _evaluations: u64) {}
    /// One of them is done.
    fn evaluated(&mut self) {}
    /// Suites are over; one line a score.
    fn suites(&mut self, _lines: &[Value]) {}
    /// Whether the user wants to stop.
    fn wants_stop(&self) -> bool {
        false
    }
}

/// An epoch under way; of one that is gone on with, times since then.
#[derive(Debug, Clone, Copy)]
pub struct SoFar<'a> {
    tally: &'a Tally,
    began: Instant,
    /// The loop waited for data.
    pub waited: Duration,
    /// Samples since `began`.
    pub samples: u64,
    /// Epochs at most, over all phases.
    pub max_iter: u32,
}

impl SoFar<'_> {
    /// Mean training losses of the epoch, by task, as far as they have been read.
    pub fn losses(&self) -> impl Iterator<Item = (Task, f64)> + '_ {
        self.tally.losses()
    }

    /// Samples a second, and the share of the time that the loop waited for data.
    pub fn rates(&self) -> (f64, f64) {
        let seconds = self.began.elapsed().as_secs_f64().max(1e-9);
        (self.samples as f64 / seconds, self.waited.as_secs_f64() / seconds)
    }
}

/// How training ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The schedule is over, and the best weights are in place.
    Done,
    /// Stopped on request; the state is saved.
    Interrupted,
}

/// Where the time of an epoch goes; of an epoch that is gone on with, since then.
#[derive(Debug, Clone, Copy, Default)]
struct Clock {
    began: Option<Instant>,
    /// Spent on suites.
    aside: Duration,
    waited: Duration,
    updating: Duration,
    updates: u32,
}

impl Clock {
    fn update(&mut self, took: Duration) {
        self.updating += took;
        self.updates += 1;
    }

    /// Milliseconds of an update, without waiting for its batches.
    fn update_ms(&self) -> f64 {
        1e3 * self.updating.as_secs_f64() / f64::from(self.updates.max(1))
    }
}

/// What a training run consists of.
#[derive(Debug)]
pub struct Trainer<'a> {
    /// The network.
    pub net: &'a Network,
    /// How it is run in training: which batch norms are frozen.
    pub mode: Mode,
    /// The losses.
    pub objective: &'a Objective,
    /// The optimiser, over the network's and the losses' parameters.
    pub optimizer: Optimizer,
    /// Which batches, in which order.
    pub schedule: Arc<Schedule>,
    /// Training data, in the order of the schedule's streams.
    pub sources: Arc<Vec<Source>>,
    /// Their images, as far as the device makes the batches.
    pub resident: Option<Resident>,
    /// Validation data.
    pub validation: Evaluator,
    /// Threads and read-ahead.
    pub loader: LoaderOptions,
    /// Learning rate and early stopping.
    pub anneal: AnnealSettings,
    /// Suites of evaluations between epochs.
    pub periodic: Option<Periodic<'a>>,
    /// What is added to the loop.
    pub modules: Modules,
    /// Which checkpoints are kept.
    pub checkpoints: CheckpointSettings,
    /// What to do with a loss that is no number.
    pub nonfinite: Nonfinite,
    /// Writes down what training reads.
    pub recorder: Option<Recorder>,
    /// Exchanges gradients during an update's last backward pass, if several processes train the network; without it, they
    /// are exchanged after it.
    pub reducer: Option<Reducer>,
    /// Passes that a GPU repeats from a recording; neither with [`Self::modules`] nor [`Self::reducer`].
    pub graphs: Option<Graphs>,
    /// Seed of order, augmentation and dropout.
    pub seed: u64,
    /// Where everything is written.
    pub run: &'a Run,
}

impl Trainer<'_> {
    /// Trains from the start, or from `resume`, to the end of the schedule.
    pub fn run(&mut self, resume: Option<TrainState>, watch: &mut dyn Watch) -> Result<Outcome, TrainError> {
        let mut state = match resume {
            Some(state) => self.resume(state)?,
            None => self.start(watch)?,
        };
        while !self.modules.settings().is_over(&state.anneal) {
            let started = Instant::now();
            self.before_epoch(&mut state)?;
            let (tally, mut clock) = self.epoch(&mut state, watch)?;
            if state.tally.is_some() {
                self.save(&state)?;
                return Ok(Outcome::Interrupted);
            }
            clock.began = Some(started);
            let before = Instant::now();
            if !self.suites(state.anneal.epoch + 1, watch)? {
                // The epoch is taken up again at its end.
                state.tally = Some(tally);
                self.save(&state)?;
                return Ok(Outcome::Interrupted);
            }
            clock.aside = before.elapsed();
            self.after_epoch(&mut state, &tally, clock, watch)?;
        }
        Ok(Outcome::Done)
    }

    /// What modules do between epochs; not for an epoch that is gone on with.
    fn before_epoch(&mut self, state: &mut TrainState) -> Result<(), TrainError> {
        let epoch = state.anneal.epoch + 1;
        if state.step != self.schedule.first_step(epoch).0 || state.tally.is_some() {
            return Ok(());
        }
        let key = RngKey::new(self.seed, Purpose::Reset, 0);
        tch::manual_seed(key.word(0, state.step) as i64);
        if self.modules.before_epoch(&state.anneal, self.net)? {
            // Training begins again, with what pruning has left.
            self.optimizer.reset();
            state.anneal.begin_again(self.optimizer.start_lr());
        }
        Ok(())
    }

    /// Evaluation, and what follows from it.
    fn after_epoch(
        &mut self,
        state: &mut TrainState,
        tally: &Tally,
        clock: Clock,
        watch: &mut dyn Watch,
    ) -> Result<(), TrainError> {
        let lr = self.epoch_rate(state);
        let mut scores = Vec::new();
        let restore_best = if state.anneal.evaluates_next() {
            scores = self.score()?;
            let (decision, score) = decide(&mut state.anneal, &scores)?;
            if decision.is_best {
                self.save_as(BEST, state)?;
            }
            if let Some(score) = score {
                self.keep(state, score);
            }
            decision.restore_best
        } else {
            state.anneal.pass();
            false
        };
        // Of the epoch's own weights.
        self.record(state, lr, Some(tally), &scores, clock, watch)?;
        if restore_best {
            self.save_own(state)?;
            self.restore_best()?;
        }
        self.save(state)?;
        self.keep_copies(state, !restore_best)
    }

    /// Whether any process says so.
    fn any(&self, mine: bool) -> Result<bool, TrainError> {
        Ok(self.net.group().map_or(Ok(mine), |group| group.any(mine))?)
    }

    fn score(&self) -> Result<Vec<TaskScores>, TrainError> {
        guarded(|| Ok(self.validation.scores(self.net, self.objective)?))
    }

    /// Learning rate of the first update of the epoch under way or just done.
    fn epoch_rate(&self, state: &TrainState) -> f64 {
        self.rate(&state.anneal, self.schedule.first_step(state.anneal.epoch + 1).0)
    }

    /// Learning rate of update `step`. What pruning has left begins with the first update that it has.
    fn rate(&self, anneal: &Anneal, step: u64) -> f64 {
        let left = self.anneal.max_iter.saturating_sub(anneal.begun);
        let steps = (self.schedule.steps_per_epoch(), self.modules.settings().epochs(anneal, left));
        let step = step - self.schedule.first_step(anneal.begun + 1).0;
        rate(&self.anneal, self.optimizer.start_lr(), anneal.lr, step, steps)
    }

    /// Scores the untrained network: epoch 0.
    fn start(&mut self, watch: &mut dyn Watch) -> Result<TrainState, TrainError> {
        let scores = self.score()?;
        let lr = self.optimizer.start_lr();
        let anneal = Anneal::start(&self.anneal, lr, &objectives(&self.anneal, &scores)?);
        let state = TrainState { step: 0, anneal, tally: None, kept: Vec::new() };
        let lr = self.epoch_rate(&state);
        self.record(&state, lr, None, &scores, Clock::default(), watch)?;
        self.save_as(BEST, &state)?;
        self.save(&state)?;
        Ok(state)
    }

    /// Takes up a saved state.
    fn resume(&mut self, mut state: TrainState) -> Result<TrainState, TrainError> {
        self.load_last()?;
        self.run.truncate_metrics(state.anneal.epoch)?;
        state.anneal.settings.max_iter = self.anneal.max_iter;
        Ok(state)
    }

    /// One epoch, or what is left of it. If the user stops it, the state holds what was tallied so far.
    fn epoch(&mut self, state: &mut TrainState, watch: &mut dyn Watch) -> Result<(Tally, Clock), TrainError> {
        let epoch = state.anneal.epoch + 1;
        let end = self.schedule.first_step(epoch + 1).0;
        let mut tally = state.tally.take().unwrap_or_default();
        let (mut clock, begins, before) = (Clock::default(), Instant::now(), tally.samples());
        let mut unread = Unread::default();
        watch.epoch_begins(epoch, end - state.step);
        let options = self.loader.for_process(self.net.group().map(|group| (group.rank(), group.world())));
        let mut loader = Loader::start(&self.sources, &self.schedule, self.seed, state.step..end, options)?;
        while let Some(step) = loader.next() {
            let (step, began, stop) = (step?, Instant::now(), watch.wants_stop());
            let next = step.plan.step.0 + 1;
            let saves = self.checkpoints.every_updates.is_some_and(|n| next.is_multiple_of(n)) && next < end;
            let made = guarded(|| {
                let stops = self.step(&step, &state.anneal, (&mut tally, &mut unread), stop)?;
                let reads = stops || saves || next == end;
                Ok(reads && self.catch_up(&mut tally, &mut unread, stop)? || stops)
            });
            let stops = match made {
                Ok(stops) => stops,
                Err(error) => {
                    state.tally = Some(tally);
                    return Err(self.failed(state, error));
                }
            };
            clock.update(began.elapsed());
            state.step = next;
            loader.recycle(step);
            watch.step(&SoFar {
                tally: &tally,
                began: begins,
                waited: loader.times().waited,
                samples: tally.samples() + unread.samples() - before,
                max_iter: self.anneal.max_iter,
            });
            if stops && state.step < end {
                state.tally = Some(tally);
                return Ok((Tally::default(), clock));
            }
            if saves {
                state.tally = Some(tally);
                self.save(state)?;
                tally = state.tally.take().unwrap_or_default();
            }
        }
        clock.waited = loader.times().waited;
        Ok((tally, clock))
    }

    /// Writes one line of metrics a task.
    fn record(
        &self,
        state: &TrainState,
        lr: f64,
        tally: Option<&Tally>,
        scores: &[TaskScores],
        clock: Clock,
        watch: &mut dyn Watch,
    ) -> Result<(), TrainError> {
        let elapsed = clock.began.map_or(Duration::ZERO, |began| began.elapsed());
        let seconds = elapsed.saturating_sub(clock.aside).as_secs_f64();
        let mut lines = Vec::new();
        for task in self.tasks() {
            let mut line = json!({
                "epoch": state.anneal.epoch,
                "step": state.step,
                "task": task.as_str(),
                "lr": lr,
                "patience": state.anneal.patience_reached,
                "best_epoch": state.anneal.best_epoch,
                "seconds": seconds,
                "wait_share": clock.waited.as_secs_f64() / seconds.max(1e-9),
            });
            for (metric, value) in scores.iter().filter(|s| s.task == task).flat_map(|s| &s.metrics) {
                line[format!("validation_{metric}")] = json!(value);
            }
            if let Some(tally) = tally {
                tally.write(task, &mut line);
                line["samples_per_s"] = json!(tally.samples() as f64 / seconds.max(1e-9));
                line["update_ms"] = json!(clock.update_ms());
            }
            if let Some(s) = self.objective.log_variance(task) {
                line["log_variance"] = json!(s.double_value(&[0]));
            }
            if let Some(weight) = self.objective.weight(task) {
                line["loss_weight"] = json!(weight);
            }
            if let Some(alive) = self.modules.alive() {
                line["weights_alive"] = json!(alive);
            }
            self.run.metric(&line)?;
            lines.push(line);
        }
        watch.epoch(&lines);
        Ok(())
    }

    /// The tasks of the training data, neural ones first.
    fn tasks(&self) -> Vec<Task> {
        Task::ALL.into_iter().filter(|task| self.sources.iter().any(|s| s.task == *task)).collect()
    }
}

/// What follows from an epoch's scores, and the first monitored objective, if those of all tasks are numbers.
fn decide(anneal: &mut Anneal, scores: &[TaskScores]) -> Result<(Decision, Option<f64>), TrainError> {
    let monitored = objectives(&anneal.settings, scores)?;
    // Of tasks that are not monitored too (spec/trainer 3.3).
    let finite = scores.iter().filter_map(|s| objective(&anneal.settings, s)).all(f64::is_finite);
    if !finite {
        return Ok((anneal.fail(), None));
    }
    Ok((anneal.next(&monitored), Some(monitored[0])))
}

/// A task's objective: accuracy in percent or mean correlation, or the loss.
fn objective(settings: &AnnealSettings, scores: &TaskScores) -> Option<f64> {
    if settings.maximize { Some(scores.objective()) } else { scores.metric("loss") }
}

/// The monitored objectives.
fn objectives(settings: &AnnealSettings, scores: &[TaskScores]) -> Result<Vec<f64>, TrainError> {
    let of = |task: &Task| {
        let found = scores.iter().find(|s| s.task == *task);
        found.and_then(|s| objective(settings, s)).ok_or_else(|| {
            TrainError::Settings(format!("schedule.to_monitor names {task}, and there are no such data"))
        })
    };
    settings.to_monitor.iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::Parts;

    fn scores(classes: f64, v1: f64) -> Vec<TaskScores> {
        let of = |(task, loss)| TaskScores {
            task,
            metrics: vec![("first", 1.0), ("loss", loss)],
            parts: Parts::Sessions { scores: Vec::new(), responses: Vec::new() },
        };
        [(Task::V1, v1), (Task::Classification, classes)].map(of).to_vec()
    }

    #[test]
    fn an_objective_of_a_task_that_is_not_monitored_ends_training_too() {
        let settings = AnnealSettings { maximize: false, ..AnnealSettings::default() };
        assert_eq!(settings.to_monitor, [Task::Classification]);
        let mut anneal = Anneal::start(&settings, 0.1, &[5.0]);
        let (decision, score) = decide(&mut anneal, &scores(4.0, 3.0)).unwrap();
        assert_eq!((decision.is_best, decision.stop, score), (true, false, Some(4.0)));
        for v1 in [f64::NAN, f64::INFINITY] {
            let mut anneal = anneal.clone();
            let (decision, score) = decide(&mut anneal, &scores(3.0, v1)).unwrap();
            assert!(decision.stop && decision.restore_best && !decision.is_best, "{decision:?}");
            assert_eq!((score, anneal.is_done(), anneal.epoch, anneal.best_epoch), (None, true, 2, 1));
        }
        let (decision, score) = decide(&mut anneal, &scores(f64::NAN, 3.0)).unwrap();
        assert!(decision.stop && score.is_none());
        // Monitored are accuracies and correlations, which are numbers.
        let rising = AnnealSettings { maximize: true, ..settings };
        let (decision, _) = decide(&mut Anneal::start(&rising, 0.1, &[0.0]), &scores(4.0, f64::NAN)).unwrap();
        assert!(!decision.stop && decision.is_best);
    }
}
