//! Precision and memory layout, which belong to a run on some device and not to the network's settings.

use crate::torch_ext::narrowed;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, TchError, Tensor};

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
    /// On a GPU, work through maps with channels innermost by kernels of nct's own: in training in bfloat16 normalise,
    /// rectify and pool, and read for the neurons; and add gradients up where they are made.
    pub fused: bool,
}

impl Runtime {
    /// Whether training on a GPU uses kernels of nct's own.
    pub fn has_kernels(self) -> bool {
        self.fused && self.channels_last && self.precision != Precision::F64
    }
}

impl Precision {
    /// Type of what layers take and give.
    fn narrow(self) -> Kind {
        match self {
            Self::F32 => Kind::Float,
            Self::Bf16 => Kind::BFloat16,
            Self::F64 => Kind::Double,
        }
    }

    /// `x` rounded to the type that layers work in, ready to be multiplied. A tensor that is so already is not copied.
    ///
    /// GPUs add products of bfloat16 up in 32 bits. PyTorch on a CPU without instructions for it adds up in bfloat16,
    /// five times as far off in the gradients of kernels and ten times as slow, so that a CPU takes 32 bits for both.
    pub(super) fn operand(self, x: &Tensor) -> Tensor {
        let rounded = x.to_kind(self.narrow());
        if self == Self::Bf16 && x.device() == Device::Cpu { rounded.to_kind(Kind::Float) } else { rounded }
    }

    /// As [`Self::operand`], of a weight. With `adds`, for GPUs: see [`narrowed`].
    pub(super) fn weight(self, weight: &Tensor, adds: bool) -> Result<Tensor, TchError> {
        if adds && self == Self::Bf16 && weight.device().is_cuda() {
            return narrowed(weight);
        }
        Ok(self.operand(weight))
    }

    /// What a product of operands is rounded to.
    pub(super) fn product(self, y: &Tensor) -> Tensor {
        y.to_kind(self.narrow())
    }

    /// Type of parameters, readouts, logits and losses.
    pub fn wide(self) -> Kind {
        if self == Self::F64 { Kind::Double } else { Kind::Float }
    }
}

/// Gives a kernel `[out, in, height, width]` strides with channels innermost; values and gradients stay
/// the same. Torch then keeps maps that way too.
pub(super) fn to_channels_last(kernel: &Tensor) {
    let size = kernel.size();
    let [_, channels, height, width] = size[..] else { return };
    // Written out, since of kernels of 1 x 1 both layouts are one: gradients come with these strides, and processes that
    // add theirs up warn where others are.
    let strides = [height * width * channels, 1, width * channels, channels];
    let strided = Tensor::empty_strided(size, strides, (kernel.kind(), kernel.device()));
    tch::no_grad(|| strided.shallow_clone().copy_(kernel));
    kernel.shallow_clone().set_data(&strided);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_of_bfloat16_are_added_up_in_32_bits() {
        tch::manual_seed(3);
        let on = (Kind::Float, Device::Cpu);
        let (x, w) = (Tensor::randn([16, 8, 32, 32], on).relu(), Tensor::randn([16, 8, 3, 3], on));
        let upstream = Tensor::randn([16, 16, 32, 32], on).to_kind(Kind::BFloat16).to_kind(Kind::Float);
        let gradients = |precision: Precision| {
            let [x, w] =
                [&x, &w].map(|t| t.to_kind(Kind::BFloat16).to_kind(Kind::Float).set_requires_grad(true));
            let y = precision.operand(&x).conv2d(
                &precision.operand(&w),
                None::<&Tensor>,
                [1, 1],
                [1, 1],
                [1, 1],
                1,
            );
            (precision.product(&y).to_kind(Kind::Float) * &upstream).sum(Kind::Float).backward();
            [x.grad(), w.grad()]
        };
        for (half, whole) in gradients(Precision::Bf16).into_iter().zip(gradients(Precision::F32)) {
            let error = ((half - &whole).norm() / whole.norm()).double_value(&[]);
            // Rounded once to 8 bits: 0.0017; added up in 8 bits: 0.009 for the kernel.
            assert!(error > 0.0 && error < 0.0025, "{error}");
        }
    }
}
