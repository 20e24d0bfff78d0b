//! One update: the plan's batches forward and backward, then the optimiser. What a batch gives is read from
//! the device once, after the last backward pass; where the device can hold an update back by itself, once for several
//! updates.
//!
//! Several processes each take their share of every batch. Losses of shares add up to those of the batches; gradients
//! are exchanged in the last backward pass, and losses after it, so that all processes know and decide the same.

use super::unread::{Unread, Update, Values};
use super::{Anneal, Nonfinite, TrainError, Trainer};
use crate::base::{Purpose, RngKey, Task};
use crate::eval::images_of;
use crate::load::{Batch, Step, Targets};
use crate::model::{Mode, Share};
use crate::schedule::BatchPlan;
use crate::torch_ext::send;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tch::{Device, Kind, Tensor};

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

    /// Adds an update that was made.
    fn count(&mut self, update: &Update, values: &[Values]) {
        for (batch, values) in update.batches.iter().zip(values) {
            self.add(batch.task, batch.samples, values);
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

/// A batch's targets, on the device.
#[derive(Debug)]
pub(super) enum Sent {
    /// `[batch]`.
    Labels(Tensor),
    /// `[batch * neurons]`.
    Responses(Tensor),
    /// Both.
    Both { labels: Tensor, responses: Tensor },
}

impl Sent {
    fn new(targets: &Targets, device: Device) -> Result<Self, TrainError> {
        let labels = |labels: &[i64]| Tensor::f_from_slice(labels).and_then(|t| send(&t, device));
        let responses = |values: &[f32]| Tensor::f_from_slice(values).and_then(|t| send(&t, device));
        Ok(match targets {
            Targets::Labels(all) => Self::Labels(labels(all)?),
            Targets::Responses(all) => Self::Responses(responses(all)?),
            Targets::Both { labels: all, responses: recorded } => {
                Self::Both { labels: labels(all)?, responses: responses(recorded)? }
            }
        })
    }

    /// The tensors it consists of.
    pub(super) fn tensors(&self) -> Vec<&Tensor> {
        match self {
            Self::Labels(one) | Self::Responses(one) => vec![one],
            Self::Both { labels, responses } => vec![labels, responses],
        }
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

    /// Its values; 0 for those it does not have.
    fn given(&self) -> Result<Given, TrainError> {
        let scalar =
            |t: &Option<Tensor>| t.as_ref().map_or_else(|| self.loss.detach().zeros_like(), Tensor::detach);
        let row = [self.loss.detach(), scalar(&self.correct), scalar(&self.modules), scalar(&self.labelled)];
        Ok(Given { values: Tensor::f_stack(&row, 0)?.f_view([4])?, is_labelled: self.labelled.is_some() })
    }
}

/// What is left of a batch whose gradients are there.
#[derive(Debug)]
pub(super) struct Given {
    /// `[4]`, on the device: loss, logits that are largest at their label, loss of the modules, and the classification's
    /// part of the loss.
    pub(super) values: Tensor,
    /// Whether it is that of a session's batch with labels.
    pub(super) is_labelled: bool,
}

impl Trainer<'_> {
    /// One optimiser update. `stop` says whether the user of this process wants to stop; the answer, whether one of any
    /// process does, as far as the processes have told each other. What comes late is in `unread` until
    /// [`Self::catch_up`].
    pub(super) fn step(
        &mut self,
        step: &Step,
        anneal: &Anneal,
        (tally, unread): (&mut Tally, &mut Unread),
        stop: bool,
    ) -> Result<bool, TrainError> {
        // A forward pass moves running statistics, which a skipped update must not.
        let buffers = (self.nonfinite == Nonfinite::Skip).then(|| self.net.params().buffers());
        let (given, seed) = self.gradients(step, anneal)?;
        let update = Update::new(step, &given, self.optimizer.counts())?;
        if self.reads_late() {
            let group = self.net.group();
            self.update(Some(unread.add(update, group)?))?;
            let full = unread.is_full();
            return if full { self.catch_up(tally, unread, stop) } else { Ok(stop && group.is_none()) };
        }
        let (values, stop) = update.read(stop, self.net.group())?;
        if let Some(recorder) = &self.recorder {
            let losses: Vec<f64> = values.iter().map(|v| v.loss).collect();
            let params = self.net.params().iter().chain(self.objective.params().iter());
            recorder.update(step, seed, &losses, params, &|batch| self.images(batch))?;
        }
        if let Some(fault) = self.fault(&update, &values)? {
            let Some(buffers) = buffers else { return Err(TrainError::Nonfinite(Box::new(fault))) };
            tch::no_grad(|| buffers.iter().for_each(|(now, before)| now.shallow_clone().copy_(before)));
            tally.skipped += 1;
            self.run.log(&format!("update left out: {fault}"))?;
            return Ok(stop);
        }
        tally.count(&update, &values);
        self.update(None)?;
        Ok(stop)
    }

    /// Whether losses are read after the updates they would forbid: the device holds these back itself. Skipped updates
    /// are not so, since they are not to hold back the next, and those that are written down.
    fn reads_late(&self) -> bool {
        self.optimizer.is_fused() && self.nonfinite == Nonfinite::Stop && self.recorder.is_none()
    }

    /// Reads what is unread, and asks all processes whether to stop. If a loss is no number, weights and optimiser are as
    /// they were before its update; running statistics have seen the batches since.
    pub(super) fn catch_up(
        &mut self,
        tally: &mut Tally,
        unread: &mut Unread,
        stop: bool,
    ) -> Result<bool, TrainError> {
        let (read, stop) = unread.take(stop, self.net.group())?;
        for (update, values) in read {
            if let Some(fault) = self.fault(&update, &values)? {
                self.optimizer.set_counts(&update.counts);
                return Err(TrainError::Nonfinite(Box::new(fault)));
            }
            tally.count(&update, &values);
        }
        Ok(stop)
    }

    /// Forward and backward passes of all batches. Torch's generator is reseeded first, so that dropout and readout
    /// positions are a function of the seed and the step; gives that seed.
    fn gradients(&mut self, step: &Step, anneal: &Anneal) -> Result<(Vec<Given>, i64), TrainError> {
        let number = step.plan.step.0;
        let reset = RngKey::new(self.seed, Purpose::Reset, 0).word(1, number);
        tch::manual_seed(reset as i64);
        self.modules.before_step(number, self.net)?;
        let seed = RngKey::new(self.seed, Purpose::Step, 0).word(0, number) as i64;
        tch::manual_seed(seed);
        self.optimizer.set_lr(self.rate(anneal, number));
        self.optimizer.zero_grad()?;
        let mut given = Vec::with_capacity(step.batches.len());
        let mut graphs = self.graphs.take();
        for (i, (plan, batch)) in step.plan.batches.iter().zip(&step.batches).enumerate() {
            let (images, targets) = self.bring(batch)?;
            let last = i + 1 == step.batches.len();
            given.push(match &mut graphs {
                Some(graphs) => graphs
                    .pass(plan, images, targets, |images, targets| self.pass(plan, images, targets, last))?,
                None => self.pass(plan, &images, &targets, last)?,
            });
        }
        self.graphs = graphs;
        if let (Some(group), None) = (self.net.group(), &self.reducer) {
            group.average(&self.optimizer.grads())?;
        }
        Ok((given, seed))
    }

    /// A batch's images and targets, on the device.
    pub(super) fn bring(&self, batch: &Batch) -> Result<(Tensor, Sent), TrainError> {
        Ok((self.images(batch)?, Sent::new(&batch.targets(), self.net.params().device())?))
    }

    /// Forward and backward pass of a batch, of an update's last one perhaps.
    fn pass(
        &mut self,
        plan: &BatchPlan,
        images: &Tensor,
        targets: &Sent,
        last: bool,
    ) -> Result<Given, TrainError> {
        let outcome = self.forward(plan, images, targets)?;
        if !outcome.loss.requires_grad() {
            let task = self.sources[plan.stream.0 as usize].task;
            return Err(TrainError::Settings(format!(
                "freeze: nothing that the loss of {task} depends on is left to learn; freeze less, or leave its data out"
            )));
        }
        self.backward(&outcome, last)?;
        outcome.given()
    }

    /// Moves the weights, unless the device finds a 1 there.
    fn update(&mut self, unless: Option<&Tensor>) -> Result<(), TrainError> {
        self.modules.after_backward();
        self.optimizer.step(unless)?;
        self.modules.after_weights();
        self.net.clamp_readouts()?;
        Ok(())
    }

    /// The first batch whose loss is no number.
    fn fault(&self, update: &Update, values: &[Values]) -> Result<Option<Fault>, TrainError> {
        let Some(bad) = values.iter().position(|v| !v.loss.is_finite()) else { return Ok(None) };
        let ids = self.ids_of(&update.batches[bad].ids)?;
        Ok(Some(Fault::new(update, bad, values[bad].loss, ids, &self.sources)))
    }

    /// Adds the gradients of an outcome. Those of several processes are averaged with the update's last ones, or after
    /// them, so each counts as many times as there are processes, and the average is the sum.
    fn backward(&mut self, outcome: &Outcome, last: bool) -> Result<(), TrainError> {
        let Some(group) = self.net.group() else { return outcome.backward() };
        let loss = &outcome.loss * f64::from(group.world());
        if let (Some(reducer), true) = (&mut self.reducer, last) {
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

    /// Of a batch that is on the device.
    pub(super) fn forward(
        &self,
        plan: &BatchPlan,
        images: &Tensor,
        targets: &Sent,
    ) -> Result<Outcome, TrainError> {
        let mode = self.mode_of(plan);
        let part = mode.share.map_or(1.0, Share::part);
        match targets {
            Sent::Labels(labels) => self.classification(images, labels, mode, part),
            Sent::Responses(recorded) => {
                let predicted = self.net.respond(images, self.session_of(plan), mode)?;
                let loss = self.neural(plan, &predicted, recorded, part)?;
                Ok(Outcome { loss, correct: None, modules: None, labelled: None })
            }
            Sent::Both { labels, responses } => {
                let (predicted, logits) = self.net.both(images, self.session_of(plan), mode)?;
                let labelled = self.objective.classification(&logits, labels, part);
                let loss = self.neural(plan, &predicted, responses, part)? + &labelled;
                let correct = logits.argmax(1, false).eq_tensor(labels).sum(Kind::Float);
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
        predicted: &Tensor,
        recorded: &Tensor,
        part: f64,
    ) -> Result<Tensor, TrainError> {
        let recorded = recorded.f_view_as(predicted)?.f_to_kind(predicted.kind())?;
        let source = &self.sources[plan.stream.0 as usize];
        let loss = self.objective.neural(source.task, predicted, &recorded, part)
            * self.objective.neural_scale(source.n_records(), plan.len as usize);
        if !self.objective.regularizes() {
            return Ok(loss);
        }
        Ok(loss + self.net.penalty(self.session_of(plan))? * part)
    }

    /// Images with their labels; with several views of each image, labels belong to the first ones.
    fn classification(
        &self,
        images: &Tensor,
        labels: &Tensor,
        mode: Mode,
        part: f64,
    ) -> Result<Outcome, TrainError> {
        let n = labels.size1()?;
        let wanted = self.modules.representations();
        let (logits, representations) = self.net.classify_with(images, mode, &wanted)?;
        let logits = logits.narrow(0, 0, n);
        let correct = logits.argmax(1, false).eq_tensor(labels).sum(Kind::Float);
        let mut loss = self.objective.classification(&logits, labels, part);
        let modules = self.modules.loss(images, &representations, n)?.map(|loss| loss * part);
        if let Some(modules) = &modules {
            loss += modules;
        }
        Ok(Outcome { loss, correct: Some(correct), modules, labelled: None })
    }

    /// Raw ids of all images of a batch, of which `mine` are this process's.
    fn ids_of(&self, mine: &[u32]) -> Result<Vec<u32>, TrainError> {
        let Some(group) = self.net.group() else { return Ok(mine.to_vec()) };
        let mine: Vec<u8> = mine.iter().flat_map(|id| id.to_le_bytes()).collect();
        let all = group.gather_bytes(&mine)?.concat();
        let (ids, _) = all.as_chunks::<4>();
        Ok(ids.iter().map(|id| u32::from_le_bytes(*id)).collect())
    }

    /// Readouts are in the order of the neural streams.
    fn session_of(&self, plan: &BatchPlan) -> usize {
        self.sources[..plan.stream.0 as usize].iter().filter(|s| s.task.is_neural()).count()
    }
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
    fn new(update: &Update, batch: usize, loss: f64, ids: Vec<u32>, sources: &[crate::load::Source]) -> Self {
        let at = &update.batches[batch];
        Self {
            step: update.step,
            epoch: update.epoch,
            batch,
            task: at.task,
            source: sources[at.stream].name.clone(),
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
