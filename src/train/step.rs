//! One update: the plan's batches forward and backward, then the optimiser.

use super::{TrainError, Trainer};
use crate::base::{Purpose, RngKey, Task};
use crate::eval::{count_correct, images_of};
use crate::load::{Batch, Step, Targets};
use crate::model::Mode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tch::Tensor;

/// What an epoch's batches add up to, by task.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Tally(BTreeMap<Task, TaskTally>);

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
struct TaskTally {
    samples: u64,
    correct: u64,
    loss: f64,
}

impl Tally {
    /// Samples of all tasks.
    pub(super) fn samples(&self) -> u64 {
        self.0.values().map(|t| t.samples).sum()
    }

    /// Adds the training values of `task` to a line of metrics.
    pub(super) fn write(&self, task: Task, line: &mut Value) {
        let Some(tally) = self.0.get(&task) else { return };
        let n = tally.samples.max(1) as f64;
        line["train_loss"] = json!(tally.loss / n);
        line["train_samples"] = json!(tally.samples);
        if task == Task::Classification {
            line["train_accuracy"] = json!(100.0 * tally.correct as f64 / n);
        }
    }
}

impl Trainer<'_> {
    /// One optimiser update. Torch's generator is reseeded first, so that dropout and readout positions
    /// are a function of the seed and the step.
    pub(super) fn step(&mut self, step: &Step, tally: &mut Tally) -> Result<(), TrainError> {
        let key = RngKey::new(self.seed, Purpose::Step, 0);
        tch::manual_seed(key.word(0, step.plan.step.0) as i64);
        self.optimizer.zero_grad();
        for batch in &step.batches {
            let loss = self.loss(batch, tally)?;
            loss.f_backward()?;
        }
        self.optimizer.step();
        self.net.clamp_readouts();
        Ok(())
    }

    fn loss(&self, batch: &Batch, tally: &mut Tally) -> Result<Tensor, TrainError> {
        let device = self.net.params().device();
        let images = images_of(batch, device)?;
        let tally = tally.0.entry(batch.task).or_default();
        tally.samples += batch.len() as u64;
        let loss = match batch.targets() {
            Targets::Labels(labels) => {
                let logits = self.net.classify(&images, Mode::TRAIN)?;
                let labels = Tensor::from_slice(labels).to_device(device);
                tally.correct += count_correct(&logits, &labels);
                self.objective.classification(&logits, &labels)
            }
            Targets::Responses(recorded) => {
                let session = self.session_of(batch);
                let predicted = self.net.respond(&images, session, Mode::TRAIN)?;
                let recorded = Tensor::from_slice(recorded).view([batch.len() as i64, -1]).to_device(device);
                let loss = self.objective.neural(batch.task, &predicted, &recorded);
                if self.objective.scales() {
                    let records = self.sources[batch.stream.0 as usize].n_records() as f64;
                    loss * (records / batch.len() as f64).sqrt() + self.net.penalty(session)?
                } else {
                    loss
                }
            }
        };
        tally.loss += loss.double_value(&[]) * batch.len() as f64;
        Ok(loss)
    }

    /// Readouts are in the order of the neural streams.
    fn session_of(&self, batch: &Batch) -> usize {
        self.sources[..batch.stream.0 as usize].iter().filter(|s| s.task.is_neural()).count()
    }
}
