//! Where searches start.

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

/// Gives the image that a search starts with.
pub trait Initial {
    /// An image `[1, channels, height, width]`. It depends on nothing but its arguments; `seed` is the image's own.
    fn image(&self, extent: [i64; 3], seed: u64) -> Tensor;
}

/// The built-in starts (spec/reconstruction 2.5).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Start {
    /// Normal numbers (RandomNormal; custom_initial_guess with other moments).
    Normal {
        /// Mean.
        #[serde(default)]
        mean: f64,
        /// Standard deviation.
        #[serde(default = "one")]
        std: f64,
    },
    /// Normal numbers, the same in all channels (RandomNormalRGB).
    NormalTied,
    /// Normal numbers, and one channel of a constant (RandomNormalNullChannel).
    NormalNullChannel {
        /// The channel.
        channel: i64,
        /// Its value.
        #[serde(default)]
        value: f64,
    },
    /// Zero everywhere: the mean image.
    Zero,
}

const fn one() -> f64 {
    1.0
}

impl Initial for Start {
    /// Numbers are of torch's CPU generator, seeded as the reference seeds it, so that both start alike.
    fn image(&self, [channels, height, width]: [i64; 3], seed: u64) -> Tensor {
        tch::manual_seed(seed as i64);
        let normal = |channels: i64| Tensor::randn([1, channels, height, width], (Kind::Float, Device::Cpu));
        match *self {
            Self::Normal { mean, std } => normal(channels) * std + mean,
            Self::NormalTied => normal(1).repeat([1, channels, 1, 1]),
            Self::NormalNullChannel { channel, value } => {
                let image = normal(channels);
                if (0..channels).contains(&channel) {
                    let _ = image.select(1, channel).fill_(value);
                }
                image
            }
            Self::Zero => Tensor::zeros([1, channels, height, width], (Kind::Float, Device::Cpu)),
        }
    }
}
