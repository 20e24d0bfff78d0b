//! A network over a split: which evaluations there are, one pass, and its scores as rows and tables.
//!
//! Absent: printing, gradients, and the scores' formulas, which are in `objective::score`.

pub mod figures;
mod finals;
mod forward;
mod heads;
mod pass;
pub mod regression;
mod responses;
pub mod robustness;
mod rows;
mod stored;
mod tables;
mod whole;

pub use finals::{
    CorruptionSuite, Evaluation, FinalSettings, NOISE_STDS, Origin, Shown, Suite, evaluate,
    final_evaluations, noise_evaluations,
};
pub use heads::ClassMap;
pub use responses::write_responses;
pub use rows::{COLUMNS, Detail, rows};
pub use stored::{Copies, Made};
pub use tables::write_tables;

use crate::base::Task;
use crate::load::{Batch, LoadError, LoaderOptions, Pixels, Source};
use crate::objective::Objective;
use crate::objective::score::{ClassScores, Guesses, Predictions, SessionScores, summary};
use crate::schedule::{Mix, Schedule, ScheduleError, StreamSpec};
use crate::torch_ext::{GroupError, send};
use forward::Network;
use pass::Pass;
use std::sync::Arc;
use tch::{Device, Tensor};

/// Errors of evaluation.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    /// Data.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A file of results.
    #[error(transparent)]
    Write(#[from] crate::runs::RunError),
    /// Nothing to evaluate on.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// Classes that do not fit.
    #[error("classes: {0}")]
    Classes(String),
    /// The network.
    #[error(transparent)]
    Model(#[from] crate::model::ModelError),
    /// A network that does not fit the data.
    #[error("{0}")]
    Network(String),
    /// Torch refused.
    #[error("torch: {0}")]
    Torch(#[from] tch::TchError),
    /// Another process.
    #[error(transparent)]
    Group(#[from] GroupError),
}

impl EvalError {
    /// Whether the user's input is at fault rather than the program or machine.
    pub fn is_input(&self) -> bool {
        !matches!(self, Self::Torch(_) | Self::Group(_))
    }
}

/// Scores of one task over a split.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskScores {
    /// The task.
    pub task: Task,
    /// Names and values: `accuracy` (percent) or `correlation` first, then `loss`.
    pub metrics: Vec<(&'static str, f64)>,
    /// What they summarise.
    pub parts: Parts,
}

/// Scores by session and neuron, or by class.
#[derive(Debug, Clone, PartialEq)]
pub enum Parts {
    /// Of neurons.
    Sessions {
        /// Each session's name and scores.
        scores: Vec<(String, SessionScores)>,
        /// The same sessions, trial by trial.
        responses: Vec<Predictions>,
    },
    /// Of labelled images.
    Classes {
        /// Counts.
        scores: ClassScores,
        /// Image by image.
        guesses: Box<Guesses>,
        /// Classes of the data set that the network does not know.
        unmatched: Vec<String>,
    },
}

impl TaskScores {
    /// The value called `name`.
    pub fn metric(&self, name: &str) -> Option<f64> {
        self.metrics.iter().find(|(metric, _)| *metric == name).map(|(_, value)| *value)
    }

    /// What early stopping looks at: accuracy in percent, or mean correlation.
    pub fn objective(&self) -> f64 {
        self.metrics[0].1
    }
}

/// A split to evaluate on, in file order.
#[derive(Debug, Clone)]
pub struct Evaluator {
    sources: Arc<Vec<Source>>,
    schedule: Arc<Schedule>,
    loader: LoaderOptions,
    /// Readout of the first session.
    first_session: usize,
    classes: ClassMap,
}

impl Evaluator {
    /// For the given streams: neural sessions in readout order, and images, whose `classes` are scored.
    pub fn new(
        mut sources: Vec<Source>,
        classes: ClassMap,
        batch_size: u32,
        loader: LoaderOptions,
    ) -> Result<Self, EvalError> {
        // Noise is drawn by the number of the stream: images come first, so that it does not depend on sessions.
        sources.sort_by_key(|s| s.task.is_neural());
        let stream = |s: &Source| StreamSpec::new(s.task, s.n_records(), batch_size);
        let schedule = Schedule::new(sources.iter().map(stream).collect(), Mix::InOrder, 0)?;
        let (sources, schedule) = (Arc::new(sources), Arc::new(schedule));
        Ok(Self { sources, schedule, loader, first_session: 0, classes })
    }

    /// The first session's readout is number `session` of the network.
    pub fn first_session(self, session: usize) -> Self {
        Self { first_session: session, ..self }
    }

    /// Scores of each task, neural first. The loss of labelled images is weighed as `objective` says; the
    /// neural loss is the Poisson loss whatever was trained with (spec/trainer 4.1, 4.2).
    pub fn scores(&self, net: &Network, objective: &Objective) -> Result<Vec<TaskScores>, EvalError> {
        let s = objective.log_variance(Task::Classification).map(|s| s.double_value(&[0]));
        self.weighed_scores(net, s)
    }

    /// As [`Self::scores`], with the plain cross-entropy, which compares between runs.
    pub fn plain_scores(&self, net: &Network) -> Result<Vec<TaskScores>, EvalError> {
        self.weighed_scores(net, None)
    }

    fn weighed_scores(&self, net: &Network, log_variance: Option<f64>) -> Result<Vec<TaskScores>, EvalError> {
        let Pass { guesses, sessions, .. } = tch::no_grad(|| self.collect(net))?;
        let neural = self.sources.iter().filter(|s| s.task.is_neural());
        let mut sessions: Vec<_> = neural.zip(sessions).collect();
        let mut scores = Vec::new();
        for task in [Task::V1, Task::V4] {
            let (of_task, others) = sessions.into_iter().partition(|(source, _)| source.task == task);
            sessions = others;
            let of_task: Vec<_> = of_task;
            let scored = |(source, p): (&Source, Predictions)| ((source.name.clone(), p.scores()), p);
            let (of_task, responses): (Vec<_>, Vec<_>) = of_task.into_iter().map(scored).unzip();
            if !of_task.is_empty() {
                let metrics = summary(&of_task.iter().map(|(_, s)| s).collect::<Vec<_>>());
                scores.push(TaskScores {
                    task,
                    metrics,
                    parts: Parts::Sessions { scores: of_task, responses },
                });
            }
        }
        if self.sources.iter().any(|s| s.task == Task::Classification) {
            if guesses.labels.is_empty() {
                let n = self.classes.names().len();
                let what = format!("no image of the split is of one of the {n} classes that are scored");
                return Err(EvalError::Classes(what));
            }
            let counted = ClassScores::new(self.classes.names().to_vec(), &guesses);
            let metrics = counted.summary(log_variance);
            let unmatched = self.classes.unmatched().to_vec();
            let parts = Parts::Classes { scores: counted, guesses: Box::new(guesses), unmatched };
            scores.push(TaskScores { task: Task::Classification, metrics, parts });
        }
        Ok(scores)
    }
}

/// The images of a batch as `[views * batch, channels, height, width]` on `device`.
pub(crate) fn images_of(batch: &Batch, device: Device) -> Result<Tensor, tch::TchError> {
    let [c, h, w] = batch.image.map(i64::from);
    send(&pixels_of(batch)?.f_view([-1, c, h, w])?, device)
}

fn pixels_of(batch: &Batch) -> Result<Tensor, tch::TchError> {
    match &batch.pixels {
        Pixels::U8(values) => Tensor::f_from_slice(values),
        Pixels::F16(values) => Tensor::f_from_slice(values),
        Pixels::Bf16(values) => Tensor::f_from_slice(values),
        Pixels::F32(values) => Tensor::f_from_slice(values),
        Pixels::Moves(_) => Err(tch::TchError::Kind("these images are made on the device".into())),
    }
}
