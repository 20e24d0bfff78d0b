//! Precision and memory layout, which belong to a run on some device and not to the network's settings.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// Type of the numbers that convolutions and linear layers work in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32 bits throughout.
    #[default]
    F32,
    /// Convolutions and linear layers in bfloat16; parameters and their gradients, batch statistics,
    /// readouts, logits and losses stay in 32 bits.
    Bf16,
    /// 64 bits throughout: to tell rounding from other differences.
    F64,
}

/// How a network is laid out and run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Runtime {
    /// Precision of the layers.
    pub precision: Precision,
    /// Keep kernels and maps with channels innermost. Weights files do not show it.
    pub channels_last: bool,
}

impl Precision {
    /// `x` in the type that layers work in. A tensor that is of it already is not copied.
    pub(super) fn cast(self, x: &Tensor) -> Tensor {
        match self {
            Self::F32 => x.to_kind(Kind::Float),
            Self::Bf16 => x.to_kind(Kind::BFloat16),
            Self::F64 => x.to_kind(Kind::Double),
        }
    }

    /// Type of parameters, readouts, logits and losses.
    pub fn wide(self) -> Kind {
        if self == Self::F64 { Kind::Double } else { Kind::Float }
    }
}

/// Gives a kernel `[out, in, height, width]` strides with channels innermost; values and gradients stay
/// the same. Torch then keeps maps that way too.
pub(super) fn to_channels_last(kernel: &Tensor) {
    let strided = kernel.detach().permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2]);
    kernel.shallow_clone().set_data(&strided);
}
