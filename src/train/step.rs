//! One update: the plan's batches forward and backward, then the optimiser. What a batch gives is read from
//! the device once, after the last backward pass.
//!
//! Several processes each take their share of every batch. Losses of shares add up to those of the batches; gradients
//! are exchanged in the last backward pass, and losses after it, so that all processes know and decide the same.

use super::{Nonfinite, TrainError, Trainer, rate};
use crate::base::{Purpose, RngKey, Task};
use crate::eval::images_of;
use crate::load::{Batch, Step, Targets};
use crate::model::{Mode, Share};
use crate::schedule::BatchPlan;
use crate::torch_ext::Group;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use tch::{Kind, Tensor};

/// What an epoch's batches add up to, by task.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Tally {
    tasks: BTreeMap<Task, TaskTally>,
    /// Updates left out because a loss was not finite.
    skipped: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
struct TaskTally {
    samples: u64,
    correct: u64,
    loss: f64,
    /// Loss of the modules, which is part of `loss`.
    modules: f64,
}

impl Tally {
    /// Samples of all tasks.
    pub(super) fn samples(&self) -> u64 {
        self.tasks.values().map(|t| t.samples).sum()
    }

    /// Mean losses by task.
    pub(super) fn losses(&self) -> impl Iterator<Item = (Task, f64)> + '_ {
        self.tasks.iter().map(|(task, tally)| (*task, tally.loss / tally.samples.max(1) as f64))
    }

    /// Adds the training values of `task` to a line of metrics.
    pub(super) fn write(&self, task: Task, line: &mut Value) {
        if self.skipped > 0 {
            line["skipped_updates"] = json!(self.skipped);
        }
        let Some(tally) = self.tasks.get(&task) else { return };
        let n = tally.samples.max(1) as f64;
        line["train_loss"] = json!(tally.loss / n);
        line["train_samples"] = json!(tally.samples);
        if tally.modules != 0.0 {
            line["train_module_loss"] = json!(tally.modules / n);
        }
        if task == Task::Classification {
            line["train_accuracy"] = json!(100.0 * tally.correct as f64 / n);
        }
    }

    /// A batch with both targets counts for both tasks, each with its own loss.
    fn add(&mut self, task: Task, samples: usize, values: &Values) {
        if let Some(loss) = values.labelled {
            let neural = Values { loss: values.loss - loss, correct: 0.0, modules: 0.0, labelled: None };
            self.add(task, samples, &neural);
            self.add(Task::Classification, samples, &Values { loss, labelled: None, ..*values });
            return;
        }
        let tally = self.tasks.entry(task).or_default();
        tally.samples += samples as u64;
        tally.correct += values.correct as u64;
        tally.loss += values.loss * samples as f64;
        tally.modules += values.modules * samples as f64;
    }
}

/// What one batch, or this process's share of it, gives, as scalars on the device.
pub(super) struct Outcome {
    loss: Tensor,
    /// How many logits are largest at their label.
    correct: Option<Tensor>,
    modules: Option<Tensor>,
    /// Of a session's batch with labels: the classification's part of `loss`.
    labelled: Option<Tensor>,
}

impl Outcome {
    /// Adds the gradients of its loss.
    pub(super) fn backward(&self) -> Result<(), TrainError> {
        Ok(self.loss.f_backward()?)
    }
}

/// What all of a batch gives, read back.
struct Values {
    loss: f64,
    correct: f64,
    modules: f64,
    labelled: Option<f64>,
}

impl Trainer<'_> {
    /// One optimiser update. Torch's generator is reseeded first, so that dropout and readout positions
    /// are a function of the seed and the step. `stop` says whether the user of this process wants to stop; the answer,
    /// whether one of any process does.
    pub(super) fn step(
        &mut self,
        step: &Step,
        epoch_lr: f64,
        tally: &mut Tally,
        stop: bool,
    ) -> Result<bool, TrainError> {
        let number = step.plan.step.0;
        let reset = RngKey::new(self.seed, Purpose::Reset, 0).word(1, number);
        tch::manual_seed(reset as i64);
        self.modules.before_step(number, self.net)?;
        let key = RngKey::new(self.seed, Purpose::Step, 0);
        let seed = key.word(0, number) as i64;
        tch::manual_seed(seed);
        let steps_per_epoch = self.schedule.steps_per_epoch();
        self.optimizer.set_lr(rate(
            &self.anneal,
            self.optimizer.start_lr(),
            epoch_lr,
            number,
            steps_per_epoch,
        ));
        self.optimizer.zero_grad()?;
        // A forward pass moves running statistics, which a skipped update must not.
        let buffers = (self.nonfinite == Nonfinite::Skip).then(|| self.net.params().buffers());
        let mut outcomes = Vec::with_capacity(step.batches.len());
        for (i, (plan, batch)) in step.plan.batches.iter().zip(&step.batches).enumerate() {
            let outcome = self.forward(plan, batch)?;
            self.backward(&outcome, i + 1 == step.batches.len())?;
            outcomes.push(outcome);
        }
        let (values, stop) = read(&outcomes, stop, self.net.group())?;
        if let Some(recorder) = &self.recorder {
            let losses: Vec<f64> = values.iter().map(|v| v.loss).collect();
            let params = self.net.params().iter().chain(self.objective.params().iter());
            recorder.update(step, seed, &losses, params, &|batch| self.images(batch))?;
        }
        if let Some(bad) = values.iter().position(|v| !v.loss.is_finite()) {
            let ids = self.ids_of(&step.batches[bad])?;
            let fault = Fault::new(step, bad, values[bad].loss, ids, &self.sources);
            let Some(buffers) = buffers else { return Err(TrainError::Nonfinite(Box::new(fault))) };
            tch::no_grad(|| buffers.iter().for_each(|(now, before)| now.shallow_clone().copy_(before)));
            tally.skipped += 1;
            self.run.log(&format!("update left out: {fault}"))?;
            return Ok(stop);
        }
        for ((plan, batch), values) in step.plan.batches.iter().zip(&step.batches).zip(&values) {
            tally.add(batch.task, plan.len as usize, values);
        }
        self.modules.after_backward();
        self.optimizer.step()?;
        self.modules.after_weights();
        self.net.clamp_readouts();
        Ok(stop)
    }

    /// Adds the gradients of an outcome. Those of several processes are averaged with the update's last ones, so each
    /// counts as many times as there are processes, and the average is the sum.
    fn backward(&mut self, outcome: &Outcome, last: bool) -> Result<(), TrainError> {
        let (Some(reducer), Some(group)) = (&mut self.reducer, self.net.group()) else {
            return outcome.backward();
        };
        let loss = &outcome.loss * f64::from(group.world());
        if last {
            reducer.prepare(&loss)?;
        }
        Ok(loss.f_backward()?)
    }

    /// Mode of a batch, of which this process may have a share.
    fn mode_of(&self, plan: &BatchPlan) -> Mode {
        let share = self.net.group().map(|group| {
            let mine = plan.share(group.rank(), group.world());
            let views = self.sources[plan.stream.0 as usize].n_views();
            Share {
                first: (mine.first - plan.first) as u32,
                len: mine.len,
                whole: plan.len,
                views: views as u32,
            }
        });
        Mode { share, ..self.mode }
    }

    pub(super) fn forward(&self, plan: &BatchPlan, batch: &Batch) -> Result<Outcome, TrainError> {
        let images = self.images(batch)?;
        let mode = self.mode_of(plan);
        let part = mode.share.map_or(1.0, Share::part);
        match batch.targets() {
            Targets::Labels(labels) => self.classification(&images, labels, mode, part),
            Targets::Responses(recorded) => {
                let predicted = self.net.respond(&images, self.session_of(batch), mode)?;
                let loss = self.neural(plan, batch, &predicted, recorded, part)?;
                Ok(Outcome { loss, correct: None, modules: None, labelled: None })
            }
            Targets::Both { labels, responses } => {
                let (predicted, logits) = self.net.both(&images, self.session_of(batch), mode)?;
                let labels = Tensor::f_from_slice(labels)?.f_to_device(images.device())?;
                let labelled = self.objective.classification(&logits, &labels, part);
                let loss = self.neural(plan, batch, &predicted, responses, part)? + &labelled;
                let correct = logits.argmax(1, false).eq_tensor(&labels).sum(Kind::Float);
                Ok(Outcome { loss, correct: Some(correct), modules: None, labelled: Some(labelled) })
            }
        }
    }

    /// `[views * batch, channels, height, width]`, made on the device or brought there.
    fn images(&self, batch: &Batch) -> Result<Tensor, TrainError> {
        if let Some(resident) = &self.resident
            && let Some(images) = resident.images(batch)?
        {
            return Ok(images);
        }
        Ok(images_of(batch, self.net.params().device())?)
    }

    /// Loss of predicted `[batch, neurons]` against recorded responses, scaled and with the penalty.
    fn neural(
        &self,
        plan: &BatchPlan,
        batch: &Batch,
        predicted: &Tensor,
        recorded: &[f32],
        part: f64,
    ) -> Result<Tensor, TrainError> {
        let recorded = Tensor::f_from_slice(recorded)?
            .f_view_as(predicted)?
            .f_to_device(predicted.device())?
            .f_to_kind(predicted.kind())?;
        let records = self.sources[batch.stream.0 as usize].n_records();
        let loss = self.objective.neural(batch.task, predicted, &recorded, part)
            * self.objective.neural_scale(records, plan.len as usize);
        if !self.objective.regularizes() {
            return Ok(loss);
        }
        Ok(loss + self.net.penalty(self.session_of(batch))? * part)
    }

    /// Images with their labels; with several views of each image, labels belong to the first ones.
    fn classification(
        &self,
        images: &Tensor,
        labels: &[i64],
        mode: Mode,
        part: f64,
    ) -> Result<Outcome, TrainError> {
        let n = labels.len() as i64;
        let labels = Tensor::from_slice(labels).to_device(images.device());
        let wanted = self.modules.representations();
        let (logits, representations) = self.net.classify_with(images, mode, &wanted)?;
        let logits = logits.narrow(0, 0, n);
        let correct = logits.argmax(1, false).eq_tensor(&labels).sum(Kind::Float);
        let mut loss = self.objective.classification(&logits, &labels, part);
        let modules = self.modules.loss(images, &representations, n)?.map(|loss| loss * part);
        if let Some(modules) = &modules {
            loss += modules;
        }
        Ok(Outcome { loss, correct: Some(correct), modules, labelled: None })
    }

    /// Raw ids of all images of a batch.
    fn ids_of(&self, batch: &Batch) -> Result<Vec<u32>, TrainError> {
        let Some(group) = self.net.group() else { return Ok(batch.ids.clone()) };
        let mine: Vec<u8> = batch.ids.iter().flat_map(|id| id.to_le_bytes()).collect();
        let all = group.gather_bytes(&mine)?.concat();
        let (ids, _) = all.as_chunks::<4>();
        Ok(ids.iter().map(|id| u32::from_le_bytes(*id)).collect())
    }

    /// Readouts are in the order of the neural streams.
    fn session_of(&self, batch: &Batch) -> usize {
        self.sources[..batch.stream.0 as usize].iter().filter(|s| s.task.is_neural()).count()
    }
}

/// One transfer for all values of an update, and one exchange between processes, which also say whether they want to
/// stop.
fn read(
    outcomes: &[Outcome],
    stop: bool,
    group: Option<&Arc<Group>>,
) -> Result<(Vec<Values>, bool), TrainError> {
    let zero = || outcomes[0].loss.detach().zeros_like();
    let scalar = |t: &Option<Tensor>| t.as_ref().map_or_else(zero, Tensor::detach);
    let all: Vec<Tensor> = outcomes
        .iter()
        .flat_map(|o| [o.loss.detach(), scalar(&o.correct), scalar(&o.modules), scalar(&o.labelled)])
        .collect();
    let mut all = Vec::<f64>::try_from(Tensor::f_stack(&all, 0)?.to_kind(Kind::Double))?;
    all.push(f64::from(u8::from(stop)));
    if let Some(group) = group {
        let sums = Tensor::f_from_slice(&all)?;
        group.sum(&sums)?;
        all = Vec::try_from(sums)?;
    }
    let stop = all.pop().is_some_and(|stops| stops > 0.0);
    let values = |(v, o): (&[f64], &Outcome)| Values {
        loss: v[0],
        correct: v[1],
        modules: v[2],
        labelled: o.labelled.is_some().then_some(v[3]),
    };
    Ok((all.chunks_exact(4).zip(outcomes).map(values).collect(), stop))
}

/// A loss that is no number, and the batch it came from.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Fault {
    /// Update, counted from the start of the run.
    pub step: u64,
    /// Its epoch.
    pub epoch: u32,
    /// Batch within the update, from 0.
    pub batch: usize,
    /// What it teaches.
    pub task: Task,
    /// Data set or recording session.
    pub source: String,
    /// `NaN`, `inf` or `-inf`.
    pub loss: String,
    /// Raw ids of the batch's images.
    pub ids: Vec<u32>,
}

impl Fault {
    fn new(step: &Step, batch: usize, loss: f64, ids: Vec<u32>, sources: &[crate::load::Source]) -> Self {
        let at = &step.batches[batch];
        Self {
            step: step.plan.step.0,
            epoch: step.plan.epoch,
            batch,
            task: at.task,
            source: sources[at.stream.0 as usize].name.clone(),
            loss: loss.to_string(),
            ids,
        }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const SHOWN: usize = 8;
        let Self { step, epoch, batch, task, source, loss, ids } = self;
        let shown: Vec<String> = ids.iter().take(SHOWN).map(u32::to_string).collect();
        let more = if ids.len() > SHOWN { format!(" and {} more", ids.len() - SHOWN) } else { String::new() };
        write!(
            f,
            "loss {loss} at update {step} (epoch {epoch}), batch {batch} ({task}, {source}), images {}{more}",
            shown.join(", ")
        )
    }
}
