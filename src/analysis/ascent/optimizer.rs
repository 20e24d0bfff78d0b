//! Steps along gradients, for each image by itself.

use serde::{Deserialize, Serialize};
use tch::Tensor;

/// How a gradient becomes a step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum OptimizerSettings {
    /// PyTorch's SGD.
    Sgd {
        /// Learning rate.
        lr: f64,
        /// Share of the last step's direction that is kept.
        #[serde(default)]
        momentum: f64,
        /// Share of the image that is added to the gradient.
        #[serde(default)]
        weight_decay: f64,
    },
    /// Adam (Kingma and Ba 2015) as PyTorch has it.
    Adam {
        /// Learning rate.
        lr: f64,
        /// Decay of both means.
        #[serde(default = "betas")]
        betas: [f64; 2],
        /// Added to the root of the second mean.
        #[serde(default = "eps")]
        eps: f64,
    },
}

const fn betas() -> [f64; 2] {
    [0.9, 0.999]
}

const fn eps() -> f64 {
    1e-8
}

impl OptimizerSettings {
    /// Whether its numbers are in their bounds.
    pub(super) fn check(&self) -> Result<(), String> {
        let positive = |v: f64| v.is_finite() && v > 0.0;
        let share = |v: f64| (0.0..1.0).contains(&v);
        let fits = match *self {
            Self::Sgd { lr, momentum, weight_decay } => {
                positive(lr) && share(momentum) && weight_decay.is_finite() && weight_decay >= 0.0
            }
            Self::Adam { lr, betas, eps } => positive(lr) && betas.into_iter().all(share) && positive(eps),
        };
        if fits { Ok(()) } else { Err(format!("{self:?}")) }
    }
}

/// An optimiser; what it remembers is with the search.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Optimizer(pub OptimizerSettings);

impl Optimizer {
    /// `x` after step number `step` along `gradient`.
    pub(super) fn step(&self, x: &Tensor, gradient: &Tensor, step: u32, memory: &mut Vec<Tensor>) -> Tensor {
        match self.0 {
            OptimizerSettings::Sgd { lr, momentum, weight_decay } => {
                let gradient =
                    if weight_decay == 0.0 { gradient.shallow_clone() } else { gradient + x * weight_decay };
                if momentum == 0.0 {
                    return x - gradient * lr;
                }
                let direction = match memory.first() {
                    Some(last) => last * momentum + gradient,
                    None => gradient,
                };
                *memory = vec![direction.shallow_clone()];
                x - direction * lr
            }
            OptimizerSettings::Adam { lr, betas: [b1, b2], eps } => {
                if memory.len() != 2 {
                    *memory = vec![gradient.zeros_like(), gradient.zeros_like()];
                }
                let first = &memory[0] * b1 + gradient * (1.0 - b1);
                let second = &memory[1] * b2 + gradient.square() * (1.0 - b2);
                let corrected = |b: f64| 1.0 - b.powf(f64::from(step) + 1.0);
                let scale = (&second / corrected(b2)).sqrt() + eps;
                let next = x - &first / scale * (lr / corrected(b1));
                *memory = vec![first, second];
                next
            }
        }
    }
}
