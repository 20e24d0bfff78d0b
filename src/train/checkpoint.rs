//! All that must survive a restart, in and out of the run's folder.
//!
//! `last.safetensors` holds weights, log-variances and the optimiser's state as tensors, and the rest as
//! text; `best.safetensors` the best weights. Both are replaced in one step.

use super::step::Tally;
use super::{Anneal, TrainError, Trainer};
use crate::model::weights::{Weights, encode};
use crate::runs::{Run, write_atomic};
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
}

const LAST: &str = "last";
const BEST: &str = "best";

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
        let mut tensors = self.weights();
        if name == LAST {
            tensors.extend(self.optimizer.state());
        }
        let text =
            serde_json::to_string(state).map_err(|e| TrainError::Checkpoint(format!("{name}: {e}")))?;
        let bytes = encode(&tensors, &[("state", text)])?;
        Ok(write_atomic(&self.run.checkpoint(name), &bytes)?)
    }

    /// The best weights return; momentum and log-variances stay, as in the reference.
    pub(super) fn restore_best(&self) -> Result<(), TrainError> {
        Ok(load_weights(self.run, BEST, self.net)?)
    }

    pub(super) fn load_last(&mut self) -> Result<(), TrainError> {
        let path = self.run.checkpoint(LAST);
        let file = path.display().to_string();
        let tensors = Weights::read(&path)?.tensors;
        self.net.params().load(&of_net(&tensors), &file)?;
        let losses: Vec<(String, Tensor)> = select(&tensors, |name| name.starts_with("loss."));
        self.objective.params().load(&losses, &file)?;
        self.optimizer.load(&tensors, &file)
    }

    fn weights(&self) -> Vec<(String, Tensor)> {
        let mut tensors = self.net.params().state();
        tensors.extend(self.objective.params().state());
        tensors
    }
}

/// Puts the weights of checkpoint `name` (`best` or `last`) into `net`.
pub fn load_weights(
    run: &Run,
    name: &str,
    net: &crate::model::Network,
) -> Result<(), crate::model::ModelError> {
    let path = run.checkpoint(name);
    net.params().load(&of_net(&Weights::read(&path)?.tensors), &path.display().to_string())
}

fn of_net(tensors: &[(String, Tensor)]) -> Vec<(String, Tensor)> {
    select(tensors, |name| !name.starts_with("loss.") && !name.starts_with("optimizer."))
}

fn select(tensors: &[(String, Tensor)], wanted: impl Fn(&str) -> bool) -> Vec<(String, Tensor)> {
    tensors
        .iter()
        .filter(|(name, _)| wanted(name))
        .map(|(name, t)| (name.clone(), t.shallow_clone()))
        .collect()
}
