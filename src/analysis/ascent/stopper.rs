//! When searches end.

use super::State;
use serde::{Deserialize, Serialize};
use tch::Tensor;

/// Says which images are done. Asked after every step.
pub trait Stopper {
    /// One answer an image of the batch; one that was done once stays so.
    fn stops(&self, state: &State) -> Vec<bool>;

    /// The most steps that it allows, if it knows.
    fn most(&self) -> Option<u32>;
}

/// The built-in ends.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Stop {
    /// After `n` steps.
    Steps {
        /// How many.
        n: u32,
    },
    /// After step number `n`, counted from 0: the reference's NumIterations, which makes n + 1 steps
    /// (spec/reconstruction D-2).
    NumIterations {
        /// Number of the last step.
        n: u32,
    },
    /// Once the objective is `value` or more, and after `n` steps at most.
    Threshold {
        /// What is enough.
        value: f64,
        /// Most steps.
        n: u32,
    },
}

impl Stopper for Stop {
    fn stops(&self, state: &State) -> Vec<bool> {
        let images = state.values.size()[0] as usize;
        match *self {
            Self::Steps { n } => vec![state.step + 1 >= n; images],
            Self::NumIterations { n } => vec![state.step >= n; images],
            Self::Threshold { n, .. } if state.step + 1 >= n => vec![true; images],
            Self::Threshold { value, .. } => {
                let enough: Tensor = state.values.ge(value);
                Vec::<bool>::try_from(enough.to_device(tch::Device::Cpu)).unwrap_or(vec![false; images])
            }
        }
    }

    fn most(&self) -> Option<u32> {
        Some(match *self {
            Self::Steps { n } | Self::Threshold { n, .. } => n,
            Self::NumIterations { n } => n.saturating_add(1),
        })
    }
}
