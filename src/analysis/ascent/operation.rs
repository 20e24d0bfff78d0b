//! Operations on gradients and images: what a gradient is preconditioned with, and what an image is projected by.

use super::{beside, norms};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// An operation outside of differentiation, on each row by itself.
pub trait Operation {
    /// Gradients or images `[n, channels, height, width]` at step number `step`, from 0.
    fn apply(&self, x: &Tensor, step: u32) -> Tensor;
}

/// What is beyond the border of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pad {
    /// The image mirrored, without its edge.
    #[default]
    Reflect,
    /// The edge.
    Replicate,
    /// Zeros.
    Constant,
}

/// The built-in operations (spec/reconstruction 2.5). Rates of decay are per step, and begin with the first
/// (spec/reconstruction D-16).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum OperationSettings {
    /// Scaled to an L2 norm over all channels: the projection to a sphere.
    ChangeNorm {
        /// The norm.
        norm: f64,
    },
    /// Scaled to an L2 norm if it is larger: the projection to a ball (ChangeNormConditional).
    LimitNorm {
        /// The norm.
        norm: f64,
    },
    /// Scaled to a p-norm if it is larger.
    PNormConstraint {
        /// The norm.
        norm: f64,
        /// Which.
        #[serde(default = "first")]
        p: f64,
    },
    /// Scaled to a standard deviation.
    ChangeStd {
        /// The deviation, with ddof 1.
        std: f64,
        /// Scale the mean too; else it stays.
        #[serde(default = "yes")]
        zero_mean: bool,
    },
    /// Cut off below and above.
    ClipRange {
        /// Least value.
        low: f64,
        /// Largest value.
        high: f64,
    },
    /// Fourier components times (1 - sqrt(2) f) ^ `exponent`, with f in cycles a pixel.
    FourierSmoothing {
        /// The power.
        exponent: f64,
    },
    /// Divided by the mean of absolute values.
    DivideByMeanOfAbsolute,
    /// Times `constant` + `decay` · step.
    MultiplyBy {
        /// The factor.
        constant: f64,
        /// Its change a step.
        #[serde(default)]
        decay: f64,
    },
    /// Convolution with a Gaussian of deviation `sigma` + `decay` · step, down and across.
    GaussianBlur {
        /// Deviations in pixels, down and across.
        sigma: [f64; 2],
        /// Their change a step.
        #[serde(default)]
        decay: f64,
        /// Deviations after which the kernel ends.
        #[serde(default = "four")]
        truncate: f64,
        /// Beyond the border.
        #[serde(default)]
        pad: Pad,
    },
    /// One channel becomes 0 (the second half of BlurAndCut).
    CutChannel {
        /// The channel.
        channel: i64,
    },
}

const fn yes() -> bool {
    true
}
const fn first() -> f64 {
    1.0
}
const fn four() -> f64 {
    4.0
}

impl OperationSettings {
    /// Whether images of an extent, channels, rows and columns, can go through it for so many steps.
    pub(super) fn check(&self, [channels, height, width]: [i64; 3], steps: f64) -> Result<(), String> {
        let positive = |v: f64| v.is_finite() && v > 0.0;
        let fits = match *self {
            Self::ChangeNorm { norm } | Self::LimitNorm { norm } => positive(norm),
            Self::PNormConstraint { norm, p } => positive(norm) && positive(p),
            Self::ChangeStd { std, .. } => positive(std),
            Self::ClipRange { low, high } => low < high,
            Self::FourierSmoothing { exponent } => exponent.is_finite() && exponent >= 0.0,
            Self::DivideByMeanOfAbsolute => true,
            Self::MultiplyBy { constant, decay } => constant.is_finite() && decay.is_finite(),
            Self::GaussianBlur { sigma, decay, truncate, .. } => {
                // Kernels may not reach beyond what borders mirror.
                let half = |sigma: f64| (truncate * sigma.max(sigma + decay * steps)).round_ties_even();
                let sides = [height, width].map(|side| side as f64);
                positive(truncate)
                    && decay.is_finite()
                    && sigma.iter().zip(sides).all(|(&sigma, side)| positive(sigma) && half(sigma) < side)
            }
            Self::CutChannel { channel } => (0..channels).contains(&channel),
        };
        if fits { Ok(()) } else { Err(format!("{self:?} of an image of {height} x {width}")) }
    }
}

impl Operation for OperationSettings {
    fn apply(&self, x: &Tensor, step: u32) -> Tensor {
        let t = f64::from(step);
        match *self {
            Self::ChangeNorm { norm } => ChangeNorm::sphere(norm).apply(x, step),
            Self::LimitNorm { norm } => ChangeNorm::ball(norm).apply(x, step),
            Self::PNormConstraint { norm, p } => {
                let sums =
                    x.abs().pow_tensor_scalar(p).sum_dim_intlist([1i64, 2, 3].as_slice(), true, Kind::Float);
                let norms = sums.pow_tensor_scalar(1.0 / p);
                x * (norm / (norms + 1e-12)).clamp_max(1.0)
            }
            Self::ChangeStd { std, zero_mean } => {
                let deviation = x.flatten(1, -1).std_dim([1i64].as_slice(), true, true).view([-1, 1, 1, 1]);
                let y = x * (std / (deviation + 1e-9));
                let mean = |t: &Tensor| t.mean_dim([1i64, 2, 3].as_slice(), true, Kind::Float);
                if zero_mean { y } else { &y + mean(x) - mean(&y) }
            }
            Self::ClipRange { low, high } => x.clamp(low, high),
            Self::FourierSmoothing { exponent } => smoothed(x, exponent),
            Self::DivideByMeanOfAbsolute => {
                let mean = x.abs().mean_dim([1i64, 2, 3].as_slice(), true, Kind::Float);
                x / mean.clamp_min(f64::from(f32::MIN_POSITIVE))
            }
            Self::MultiplyBy { constant, decay } => x * (constant + decay * t),
            Self::GaussianBlur { sigma, decay, truncate, pad } => {
                blurred(x, sigma.map(|sigma| sigma + decay * t), truncate, pad)
            }
            Self::CutChannel { channel } => {
                let y = x.copy();
                if (0..y.size()[1]).contains(&channel) {
                    let _ = y.select(1, channel).zero_();
                }
                y
            }
        }
    }
}

/// A constraint on the L2 norm over all channels, one an image.
#[derive(Debug)]
pub struct ChangeNorm {
    /// `[n, 1, 1, 1]`, or one for all.
    norms: Tensor,
    /// Images that have less are left as they are.
    ball: bool,
}

impl ChangeNorm {
    fn sphere(norm: f64) -> Self {
        Self { norms: Tensor::from(norm as f32), ball: false }
    }

    fn ball(norm: f64) -> Self {
        Self { norms: Tensor::from(norm as f32), ball: true }
    }

    /// A norm for each image.
    pub fn each(norms: &[f64], ball: bool) -> Self {
        let norms: Vec<f32> = norms.iter().map(|&norm| norm as f32).collect();
        Self { norms: Tensor::from_slice(&norms).view([-1, 1, 1, 1]), ball }
    }
}

impl Operation for ChangeNorm {
    /// An image of zeros stays one.
    fn apply(&self, x: &Tensor, _: u32) -> Tensor {
        let wanted = beside(&self.norms, x);
        let factor = wanted / norms(x).clamp_min(f64::from(f32::MIN_POSITIVE));
        x * if self.ball { factor.clamp_max(1.0) } else { factor }
    }
}

fn smoothed(x: &Tensor, exponent: f64) -> Tensor {
    let [height, width] = [x.size()[2], x.size()[3]];
    let options = (Kind::Float, x.device());
    let down = Tensor::fft_fftfreq(height, 1.0, options).view([-1, 1]);
    let across = Tensor::fft_rfftfreq(width, 1.0, options).view([1, -1]);
    let frequency = (down.square() + across.square()).sqrt();
    let left: Tensor = 1.0 - frequency * std::f64::consts::SQRT_2;
    let factor = left.clamp_min(0.0).pow_tensor_scalar(exponent);
    let spectrum = x.fft_rfft2(None::<&[i64]>, [-2i64, -1].as_slice(), "backward");
    (spectrum * factor).fft_irfft2([height, width].as_slice(), [-2i64, -1].as_slice(), "backward")
}

/// Taps of a Gaussian, whose sum is 1.
fn taps(sigma: f64, truncate: f64) -> Vec<f32> {
    let half = (truncate * sigma).round_ties_even().max(1.0) as i64;
    let tap = |k: i64| (-0.5 * (k as f64 / sigma).powi(2)).exp();
    let taps: Vec<f64> = (-half..=half).map(tap).collect();
    let sum: f64 = taps.iter().sum();
    taps.iter().map(|tap| (tap / sum) as f32).collect()
}

fn blurred(x: &Tensor, sigma: [f64; 2], truncate: f64, pad: Pad) -> Tensor {
    let [n, channels, height, width] = [0, 1, 2, 3].map(|axis| x.size()[axis]);
    // A deviation that decayed to nothing is no blur.
    let kernels = sigma.map(|sigma| if sigma > 0.0 { taps(sigma, truncate) } else { vec![1.0] });
    let [down, across] = [0, 1].map(|axis| (kernels[axis].len() / 2) as i64);
    let planes = x.reshape([n * channels, 1, height, width]);
    let around = [across, across, down, down];
    let planes = match pad {
        Pad::Reflect => planes.reflection_pad2d(around),
        Pad::Replicate => planes.replication_pad2d(around),
        Pad::Constant => planes.constant_pad_nd(around),
    };
    let pass = |planes: &Tensor, kernel: &[f32], shape: [i64; 4]| {
        let kernel = beside(&Tensor::from_slice(kernel).view(shape), x);
        planes.conv2d(&kernel, None::<&Tensor>, [1, 1], [0, 0], [1, 1], 1)
    };
    let vertical = pass(&planes, &kernels[0], [1, 1, -1, 1]);
    pass(&vertical, &kernels[1], [1, 1, 1, -1]).view([n, channels, height, width])
}
