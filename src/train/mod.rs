//! Training: the loop, whole, in [`Trainer::run`].
//!
//! Absent: printing. What there is to tell goes to a [`Watch`].

mod anneal;
mod checkpoint;
mod optim;
mod step;

pub use anneal::{Anneal, AnnealSettings, Decision, Scheduler, ThresholdMode};
pub use checkpoint::{TrainState, load_weights};
pub use optim::{Optimizer, OptimizerKind, OptimizerSettings, ParamGroup};

use crate::base::{StepIndex, Task};
use crate::eval::{EvalError, Evaluator, TaskScores};
use crate::load::{LoadError, Loader, LoaderOptions, Source};
use crate::model::{ModelError, Network};
use crate::objective::Objective;
use crate::runs::{Run, RunError};
use crate::schedule::Schedule;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};
use step::Tally;

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
    /// Torch refused, out of memory for example.
    #[error("torch: {0}")]
    Torch(#[from] tch::TchError),
}

impl TrainError {
    /// Whether the user's input is at fault rather than the program or machine.
    pub fn is_input(&self) -> bool {
        match self {
            Self::Torch(_) | Self::Eval(EvalError::Torch(_)) => false,
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
    fn step(&mut self) {}
    /// An epoch is over; one line of metrics a task.
    fn epoch(&mut self, _lines: &[Value]) {}
    /// Whether the user wants to stop.
    fn wants_stop(&self) -> bool {
        false
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

/// What a training run consists of.
#[derive(Debug)]
pub struct Trainer<'a> {
    /// The network.
    pub net: &'a Network,
    /// The losses.
    pub objective: &'a Objective,
    /// The optimiser, over the network's and the losses' parameters.
    pub optimizer: Optimizer,
    /// Which batches, in which order.
    pub schedule: Arc<Schedule>,
    /// Training data, in the order of the schedule's streams.
    pub sources: Arc<Vec<Source>>,
    /// Validation data.
    pub validation: Evaluator,
    /// Threads and read-ahead.
    pub loader: LoaderOptions,
    /// Learning rate and early stopping.
    pub anneal: AnnealSettings,
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
        while !state.anneal.is_done() {
            let started = Instant::now();
            let (tally, waited) = self.epoch(&mut state, watch)?;
            if state.tally.is_some() {
                self.save(&state)?;
                return Ok(Outcome::Interrupted);
            }
            let scores = self.validation.scores(self.net, self.objective)?;
            let lr = self.optimizer.lr();
            let decision = state.anneal.next(&objectives(&state.anneal.settings, &scores)?);
            if decision.is_best {
                self.save_as("best", &state)?;
            }
            if decision.restore_best {
                self.restore_best()?;
            }
            self.optimizer.set_lr(decision.lr);
            self.record(&state, lr, Some(&tally), &scores, (started.elapsed(), waited), watch)?;
            self.save(&state)?;
        }
        Ok(Outcome::Done)
    }

    /// Scores the untrained network: epoch 0.
    fn start(&mut self, watch: &mut dyn Watch) -> Result<TrainState, TrainError> {
        let scores = self.validation.scores(self.net, self.objective)?;
        let lr = self.optimizer.lr();
        let anneal = Anneal::start(&self.anneal, lr, &objectives(&self.anneal, &scores)?);
        self.optimizer.set_lr(anneal.lr);
        let state = TrainState { step: 0, anneal, tally: None };
        self.record(&state, lr, None, &scores, (Duration::ZERO, Duration::ZERO), watch)?;
        self.save_as("best", &state)?;
        self.save(&state)?;
        Ok(state)
    }

    /// Takes up a saved state.
    fn resume(&mut self, mut state: TrainState) -> Result<TrainState, TrainError> {
        self.load_last()?;
        self.run.truncate_metrics(state.anneal.epoch)?;
        state.anneal.settings.max_iter = self.anneal.max_iter;
        self.optimizer.set_lr(state.anneal.lr);
        Ok(state)
    }

    /// One epoch, or what is left of it. If the user stops it, the state holds what was tallied so far.
    fn epoch(
        &mut self,
        state: &mut TrainState,
        watch: &mut dyn Watch,
    ) -> Result<(Tally, Duration), TrainError> {
        let epoch = state.anneal.epoch + 1;
        let end = self.schedule.first_step(epoch + 1).0;
        let mut tally = state.tally.take().unwrap_or_default();
        watch.epoch_begins(epoch, end - state.step);
        let mut loader =
            Loader::start(&self.sources, &self.schedule, self.seed, state.step..end, self.loader)?;
        while let Some(step) = loader.next() {
            let step = step?;
            self.step(&step, &mut tally)?;
            state.step = StepIndex(step.plan.step.0 + 1).0;
            loader.recycle(step);
            watch.step();
            if watch.wants_stop() && state.step < end {
                state.tally = Some(tally);
                return Ok((Tally::default(), loader.times().waited));
            }
        }
        Ok((tally, loader.times().waited))
    }

    /// Writes one line of metrics a task.
    fn record(
        &self,
        state: &TrainState,
        lr: f64,
        tally: Option<&Tally>,
        scores: &[TaskScores],
        (elapsed, waited): (Duration, Duration),
        watch: &mut dyn Watch,
    ) -> Result<(), TrainError> {
        let mut lines = Vec::new();
        for task_scores in scores {
            let task = task_scores.task;
            let mut line = json!({
                "epoch": state.anneal.epoch,
                "step": state.step,
                "task": task.as_str(),
                "lr": lr,
                "patience": state.anneal.patience_counter,
                "best_epoch": state.anneal.best_epoch,
                "seconds": elapsed.as_secs_f64(),
                "wait_share": waited.as_secs_f64() / elapsed.as_secs_f64().max(1e-9),
            });
            for (metric, value) in &task_scores.metrics {
                line[format!("validation_{metric}")] = json!(value);
            }
            if let Some(tally) = tally {
                tally.write(task, &mut line);
                line["samples_per_s"] = json!(tally.samples() as f64 / elapsed.as_secs_f64().max(1e-9));
            }
            if let Some(s) = self.objective.log_variance(task) {
                line["log_variance"] = json!(s.double_value(&[0]));
            }
            self.run.metric(&line)?;
            lines.push(line);
        }
        watch.epoch(&lines);
        Ok(())
    }
}

/// The monitored objectives: accuracy in percent, mean correlation.
fn objectives(settings: &AnnealSettings, scores: &[TaskScores]) -> Result<Vec<f64>, TrainError> {
    let of = |task: &Task| {
        let found = scores.iter().find(|s| s.task == *task).map(TaskScores::objective);
        found.ok_or_else(|| {
            TrainError::Settings(format!("schedule.to_monitor names {task}, and there are no such data"))
        })
    };
    settings.to_monitor.iter().map(of).collect()
}
