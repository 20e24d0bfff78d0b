//! A network over a split: accuracy of labelled images, correlation of every neuron.
//!
//! Absent: printing, gradients.

use crate::base::Task;
use crate::load::{Batch, LoadError, Loader, LoaderOptions, Pixels, Source, Targets};
use crate::model::{Mode, ModelError, Network};
use crate::objective::Objective;
use crate::objective::score::{Predictions, mean};
use crate::schedule::{Mix, Schedule, ScheduleError, StreamSpec};
use std::sync::Arc;
use tch::{Device, Kind, Tensor};

/// Errors of evaluation.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    /// Data.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Nothing to evaluate on.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// The network.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Torch refused.
    #[error("torch: {0}")]
    Torch(#[from] tch::TchError),
}

/// Scores of one task over a split.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskScores {
    /// The task.
    pub task: Task,
    /// Names and values: `accuracy` (percent) or `correlation` first, then `loss`.
    pub metrics: Vec<(&'static str, f64)>,
    /// Each session's name and the correlations of its neurons.
    pub neurons: Vec<(String, Vec<f64>)>,
}

impl TaskScores {
    /// What early stopping looks at: accuracy in percent, or mean correlation.
    pub fn objective(&self) -> f64 {
        self.metrics[0].1
    }
}

/// A split to evaluate on, in file order and without augmentation.
#[derive(Debug, Clone)]
pub struct Evaluator {
    sources: Arc<Vec<Source>>,
    schedule: Arc<Schedule>,
    loader: LoaderOptions,
}

impl Evaluator {
    /// For the given streams: neural sessions in readout order, and images.
    pub fn new(sources: Vec<Source>, batch_size: u32, loader: LoaderOptions) -> Result<Self, EvalError> {
        let stream = |s: &Source| StreamSpec::new(s.task, s.n_records(), batch_size);
        let schedule = Schedule::new(sources.iter().map(stream).collect(), Mix::InOrder, 0)?;
        Ok(Self { sources: Arc::new(sources), schedule: Arc::new(schedule), loader })
    }

    /// Scores of each task, neural first. The neural loss is the Poisson loss whatever was trained with.
    pub fn scores(&self, net: &Network, objective: &Objective) -> Result<Vec<TaskScores>, EvalError> {
        tch::no_grad(|| self.collect(net, objective)).map(Totals::scores)
    }

    fn collect(&self, net: &Network, objective: &Objective) -> Result<Totals, EvalError> {
        let device = net.params().device();
        let mut totals = Totals::new(&self.sources);
        let steps = 0..self.schedule.steps_per_epoch();
        let mut loader = Loader::start(&self.sources, &self.schedule, 0, steps, self.loader)?;
        while let Some(step) = loader.next() {
            let step = step?;
            for batch in &step.batches {
                let images = images_of(batch, device)?;
                match batch.targets() {
                    Targets::Labels(labels) => {
                        let logits = net.classify(&images, Mode::EVAL)?;
                        let labels = Tensor::from_slice(labels).to_device(device);
                        let loss = objective.classification(&logits, &labels).double_value(&[]);
                        totals.samples += batch.len() as u64;
                        totals.correct += count_correct(&logits, &labels);
                        totals.loss += loss * batch.len() as f64;
                    }
                    Targets::Responses(recorded) => {
                        let session = self.sources[..batch.stream.0 as usize]
                            .iter()
                            .filter(|s| s.task.is_neural())
                            .count();
                        let predicted =
                            net.respond(&images, session, Mode::EVAL)?.flatten(0, -1).to_device(Device::Cpu);
                        totals.sessions[session].predicted.extend(Vec::<f32>::try_from(predicted)?);
                        totals.sessions[session].recorded.extend(recorded);
                    }
                }
            }
            loader.recycle(step);
        }
        Ok(totals)
    }
}

/// What a pass over the split adds up to.
struct Totals {
    samples: u64,
    correct: u64,
    loss: f64,
    names: Vec<(Task, String)>,
    sessions: Vec<Predictions>,
}

impl Totals {
    fn new(sources: &[Source]) -> Self {
        let session = |s: &Source| Predictions { n_neurons: s.n_neurons(), ..Predictions::default() };
        let neural = || sources.iter().filter(|s| s.task.is_neural());
        let names = neural().map(|s| (s.task, s.name.clone())).collect();
        let sessions = neural().map(session).collect();
        Self { samples: 0, correct: 0, loss: 0.0, names, sessions }
    }

    fn scores(self) -> Vec<TaskScores> {
        let mut scores = Vec::new();
        for task in [Task::V1, Task::V4] {
            let all = self.names.iter().zip(&self.sessions);
            let sessions: Vec<_> = all.filter(|((of, _), _)| *of == task).collect();
            if sessions.is_empty() {
                continue;
            }
            let loss = sessions.iter().map(|(_, p)| p.poisson_loss()).sum();
            let neurons: Vec<(String, Vec<f64>)> =
                sessions.iter().map(|((_, name), p)| (name.clone(), p.correlations())).collect();
            let metrics = vec![("correlation", mean(neurons.iter().flat_map(|(_, c)| c))), ("loss", loss)];
            scores.push(TaskScores { task, metrics, neurons });
        }
        if self.samples > 0 {
            let n = self.samples as f64;
            let metrics = vec![("accuracy", 100.0 * self.correct as f64 / n), ("loss", self.loss / n)];
            scores.push(TaskScores { task: Task::Classification, metrics, neurons: Vec::new() });
        }
        scores
    }
}

/// The images of a batch as `[batch, channels, height, width]` on `device`.
pub(crate) fn images_of(batch: &Batch, device: Device) -> Result<Tensor, tch::TchError> {
    let [c, h, w] = batch.image.map(i64::from);
    pixels_of(batch)?.f_view([batch.len() as i64, c, h, w])?.f_to_device(device)
}

fn pixels_of(batch: &Batch) -> Result<Tensor, tch::TchError> {
    match &batch.pixels {
        Pixels::U8(values) => Tensor::f_from_slice(values),
        Pixels::F16(values) => Tensor::f_from_slice(values),
        Pixels::Bf16(values) => Tensor::f_from_slice(values),
        Pixels::F32(values) => Tensor::f_from_slice(values),
    }
}

/// How many logits are largest at their label.
pub(crate) fn count_correct(logits: &Tensor, labels: &Tensor) -> u64 {
    logits.argmax(1, false).eq_tensor(labels).sum(Kind::Int64).int64_value(&[]) as u64
}
