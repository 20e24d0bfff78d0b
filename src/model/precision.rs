//! How numbers are represented on their way through the network: the one place for precision and memory format.

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// Precision of convolutions and linear layers. Parameters, norms, readouts and losses are always single precision.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Single.
    #[default]
    F32,
    /// bfloat16, from single-precision parameters.
    Bf16,
}

/// Precision and memory format of a network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Numerics {
    /// Of convolutions and linear layers.
    pub precision: Precision,
    /// Maps and kernels with channels last in memory; changes rounding only.
    pub channels_last: bool,
}

impl Numerics {
    /// Images as the first layer takes them.
    pub(super) fn enter(self, images: &Tensor) -> Tensor {
        let images = self.layout(images);
        self.operand(&images)
    }

    /// A kernel, a weight or a bias as an operation takes it.
    pub(super) fn operand(self, tensor: &Tensor) -> Tensor {
        match self.precision {
            Precision::F32 => tensor.shallow_clone(),
            Precision::Bf16 => tensor.to_kind(Kind::BFloat16),
        }
    }

    /// What readouts, logits and losses take.
    pub(super) fn leave(tensor: &Tensor) -> Tensor {
        tensor.to_kind(Kind::Float)
    }

    /// A tensor of four axes in the memory format; the same values. tch has no word for it, strides do.
    pub(super) fn layout(self, tensor: &Tensor) -> Tensor {
        if self.channels_last && tensor.dim() == 4 {
            tensor.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2])
        } else {
            tensor.shallow_clone()
        }
    }

    /// Bytes of a value of a map.
    pub(super) fn bytes(self) -> u64 {
        match self.precision {
            Precision::F32 => 4,
            Precision::Bf16 => 2,
        }
    }
}
