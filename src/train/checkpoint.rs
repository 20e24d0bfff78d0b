//! All that must survive a restart, in and out of the run's folder.
//!
//! `last.safetensors` holds weights, log-variances and the optimiser's state as tensors, and the rest as
//! text; `best.safetensors` the best weights. Both are replaced in one step.

use super::step::Tally;
use super::{Anneal, CheckpointSettings, RestoreOptimizer, TrainError, Trainer};
use crate::model::weights::{Weights, encode};
use crate::model::{ModelError, Network};
use crate::runs::Run;
use serde::{Deserialize, Serialize};
use tch::Tensor;

/// Where training stands, beside the tensors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainState {
    /// Updates done.
    pub step: u64,
    /// Learning rate and early stopping.
    pub anneal: Anneal,
    /// What the epoch under way has added up to, if it was stopped within.
    pub tally: Option<Tally>,
    /// Epochs with checkpoints of their own, and their scores.
    pub kept: Vec<(u32, f64)>,
}

const LAST: &str = "last";
pub(super) const BEST: &str = "best";
const FAILED: &str = "failed";

impl TrainState {
    /// Reads the state of the run's last checkpoint.
    pub fn read(run: &Run) -> Result<Self, TrainError> {
        let path = run.checkpoint(LAST);
        let weights = Weights::read(&path)?;
        let text = weights.metadata("state").unwrap_or_default();
        serde_json::from_str(text)
            .map_err(|e| TrainError::Checkpoint(format!("{}: state: {e}", path.display())))
    }
}

impl Trainer<'_> {
    /// Saves everything as the last checkpoint.
    pub(super) fn save(&self, state: &TrainState) -> Result<(), TrainError> {
        self.save_as(LAST, state)
    }

    pub(super) fn save_as(&self, name: &str, state: &TrainState) -> Result<(), TrainError> {
        if !self.run.writes() {
            return Ok(());
        }
        let mut tensors = self.weights();
        if name != BEST || self.anneal.restore_optimizer == RestoreOptimizer::Best {
            tensors.extend(self.optimizer.state());
        }
        if name != BEST {
            tensors.extend(self.modules.state());
        }
        let text =
            serde_json::to_string(state).map_err(|e| TrainError::Checkpoint(format!("{name}: {e}")))?;
        let bytes = encode(&tensors, &[("state", text)])?;
        Ok(self.run.save_checkpoint(name, &bytes)?)
    }

    /// The best weights return; moments and log-variances stay, as in the reference, unless the settings say
    /// otherwise.
    pub(super) fn restore_best(&mut self) -> Result<(), TrainError> {
        let (file, tensors) = read(self.run, BEST, self.net)?;
        self.net.params().load(&of_net(&tensors), &file)?;
        if self.anneal.restore_losses {
            self.objective.params().load(&of_losses(&tensors), &file)?;
        }
        if self.anneal.restore_optimizer != RestoreOptimizer::Keep {
            self.optimizer.reset();
            self.optimizer.load(&tensors, &file)?;
        }
        self.modules.after_weights();
        Ok(())
    }

    pub(super) fn load_last(&mut self) -> Result<(), TrainError> {
        let (file, tensors) = read(self.run, LAST, self.net)?;
        self.net.params().load(&of_net(&tensors), &file)?;
        self.objective.params().load(&of_losses(&tensors), &file)?;
        self.optimizer.load(&tensors, &file)?;
        self.modules.load(&tensors, &file)
    }

    /// Saves what led to `error`, if that is a loss that is no number. The last good checkpoint stays.
    pub(super) fn failed(&self, state: &mut TrainState, error: TrainError) -> TrainError {
        let TrainError::Nonfinite(fault) = &error else { return error };
        state.step = fault.step;
        let saved =
            self.save_as(FAILED, state).and_then(|()| Ok(self.run.failed(&serde_json::json!(fault))?));
        saved.err().unwrap_or(error)
    }

    /// Notes the epoch just scored as one to keep, and forgets those that are no longer.
    pub(super) fn keep(&self, state: &mut TrainState, score: f64) {
        let CheckpointSettings { keep_last, keep_best, .. } = self.checkpoints;
        state.kept.push((state.anneal.epoch, score));
        let mut by_score = state.kept.clone();
        let rises = self.anneal.maximize;
        by_score.sort_by(|a, b| if rises { b.1.total_cmp(&a.1) } else { a.1.total_cmp(&b.1) });
        by_score.truncate(keep_best as usize);
        let last = state.kept.len().saturating_sub(keep_last as usize);
        let mut i = 0;
        state.kept.retain(|kept| {
            i += 1;
            i > last || by_score.contains(kept)
        });
    }

    /// Gives the epoch a checkpoint of its own, if it is kept: before the best weights return.
    pub(super) fn save_own(&self, state: &TrainState) -> Result<(), TrainError> {
        own(state).map_or(Ok(()), |name| self.save_as(&name, state))
    }

    /// Makes the checkpoint just saved the epoch's own too, if it `is_own`, and removes those that are no longer kept.
    pub(super) fn keep_copies(&self, state: &TrainState, is_own: bool) -> Result<(), TrainError> {
        if let (Some(name), true) = (own(state), is_own) {
            self.run.copy_checkpoint(LAST, &name)?;
        }
        let kept: Vec<String> = state.kept.iter().map(|(e, _)| format!("epoch-{e:04}")).collect();
        Ok(self.run.retain_checkpoints("epoch-", &kept)?)
    }

    fn weights(&self) -> Vec<(String, Tensor)> {
        let mut tensors = self.net.params().state();
        tensors.extend(self.objective.params().state());
        tensors
    }
}

/// The name of the epoch's own checkpoint, if it is kept.
fn own(state: &TrainState) -> Option<String> {
    let epoch = state.anneal.epoch;
    state.kept.iter().any(|(kept, _)| *kept == epoch).then(|| format!("epoch-{epoch:04}"))
}

/// Puts the weights of checkpoint `name` (`best` or `last`) into `net`.
pub fn load_weights(run: &Run, name: &str, net: &Network) -> Result<(), ModelError> {
    let (file, tensors) = read(run, name, net)?;
    net.params().load(&of_net(&tensors), &file)
}

/// Path and tensors of a checkpoint; several processes get them from rank 0, the only one that must see the folder.
fn read(run: &Run, name: &str, net: &Network) -> Result<(String, Vec<(String, Tensor)>), ModelError> {
    let path = run.checkpoint(name);
    let file = path.display().to_string();
    let weights = match net.group() {
        None => Weights::read(&path)?,
        Some(group) => {
            let mine = if group.leads() { std::fs::read(&path) } else { Ok(Vec::new()) };
            let mine = mine.map_err(|e| ModelError::file(&file, e.to_string()))?;
            Weights::of_bytes(&group.share(&mine)?, &file)?
        }
    };
    Ok((file, weights.tensors))
}

/// What a checkpoint holds beside the network, each behind its name.
const OTHER_PARTS: [&str; 3] = ["loss", "optimizer", "modules"];

/// The part of a weights file that a tensor belongs to: `network`, and in our own checkpoints also `loss`, `optimizer`
/// and `modules`.
pub fn part_of(name: &str, weights: &Weights) -> &'static str {
    let ours = weights.metadata("state").is_some();
    other_part(name).filter(|_| ours).unwrap_or("network")
}

/// The network's tensors in a weights file: of our own checkpoints a part, of other files all.
pub fn network_weights(weights: &Weights) -> Vec<(String, Tensor)> {
    select(&weights.tensors, |name| part_of(name, weights) == "network")
}

fn other_part(name: &str) -> Option<&'static str> {
    let is_of = |part: &&str| name.strip_prefix(*part).is_some_and(|rest| rest.starts_with('.'));
    OTHER_PARTS.into_iter().find(is_of)
}

fn of_net(tensors: &[(String, Tensor)]) -> Vec<(String, Tensor)> {
    select(tensors, |name| other_part(name).is_none())
}

fn of_losses(tensors: &[(String, Tensor)]) -> Vec<(String, Tensor)> {
    select(tensors, |name| name.starts_with("loss."))
}

fn select(tensors: &[(String, Tensor)], wanted: impl Fn(&str) -> bool) -> Vec<(String, Tensor)> {
    tensors
        .iter()
        .filter(|(name, _)| wanted(name))
        .map(|(name, t)| (name.clone(), t.shallow_clone()))
        .collect()
}
