//! The reference's augmentation (random crop with zero padding, horizontal flip, small rotation) and
//! noise: what is drawn for each image, and where its pixels come from.

use super::distort::DistortSettings;
use super::frame::RandomResizedCrop;
use crate::base::Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which augmentations are applied.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AugmentSettings {
    /// Before everything else: show a region of random area and proportions, brought to size. Only for images of
    /// bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub random_resized_crop: Option<RandomResizedCrop>,
    /// Zeros added on every side before a crop of the original size; 0 turns cropping off.
    pub crop_padding: u32,
    /// Mirror left and right with probability 1/2.
    pub flip: bool,
    /// Rotate by an angle drawn from ± this many degrees; 0 turns rotation off.
    pub rotation_degrees: f64,
    /// Gaussian noise: each image gets one of these levels with its probability, or none
    /// (spec/data.md section 3). Only for images of bytes.
    pub noise: Vec<NoiseLevel>,
    /// Corruption of the moved image, before noise. Only for images of bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub distort: Option<DistortSettings>,
}

/// One level of a noise mixture: `{ std = 0.08, share = 0.1 }` or `{ snr = 5, share = 0.1 }`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "LevelText", into = "LevelText")]
pub struct NoiseLevel {
    /// How strong it is.
    pub noise: Noise,
    /// Probability.
    pub share: f64,
}

/// A level as it is written.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct LevelText {
    #[serde(skip_serializing_if = "Option::is_none")]
    std: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    snr: Option<f64>,
    share: f64,
}

impl TryFrom<LevelText> for NoiseLevel {
    type Error = &'static str;

    fn try_from(LevelText { std, snr, share }: LevelText) -> Result<Self, Self::Error> {
        match (std, snr) {
            (Some(std), None) => Ok(Self { noise: Noise::Std(std), share }),
            (None, Some(snr)) => Ok(Self { noise: Noise::Snr(snr), share }),
            _ => Err("a noise level has either `std` or `snr`"),
        }
    }
}

impl From<NoiseLevel> for LevelText {
    fn from(NoiseLevel { noise, share }: NoiseLevel) -> Self {
        match noise {
            Noise::Std(std) => Self { std: Some(std), snr: None, share },
            Noise::Snr(snr) => Self { std: None, snr: Some(snr), share },
        }
    }
}

/// Gaussian noise that is added to every channel on the scale of [0, 1], before gray; the sum is
/// clamped to [0, 1].
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Noise {
    /// Of this standard deviation.
    Std(f64),
    /// Of standard deviation mean(x²) / SNR.
    Snr(f64),
}

impl Default for AugmentSettings {
    /// The reference's: padding 4, flip, ±15°.
    fn default() -> Self {
        Self { crop_padding: 4, flip: true, rotation_degrees: 15.0, ..Self::NONE }
    }
}

impl AugmentSettings {
    /// Leaves images as they are.
    pub const NONE: Self = Self {
        random_resized_crop: None,
        crop_padding: 0,
        flip: false,
        rotation_degrees: 0.0,
        noise: Vec::new(),
        distort: None,
    };

    /// Draws what happens to one image.
    pub fn draw(&self, rng: &mut Rng) -> Placement {
        // Every draw is made whether it is used or not, so that switching one augmentation off leaves
        // the others as they were.
        let span = 2 * self.crop_padding + 1;
        let shift = |draw: u32| draw as i32 - self.crop_padding as i32;
        let (dx, dy) = (shift(rng.below(span)), shift(rng.below(span)));
        let flip = rng.below(2) == 1 && self.flip;
        let degrees = rng.uniform(-1.0, 1.0) * self.rotation_degrees;
        Placement { dx, dy, flip, degrees }
    }

    /// Draws the noise of one image. After [`Self::draw`], from the same `rng`.
    pub fn draw_noise(&self, rng: &mut Rng) -> Option<Noise> {
        let mut at = if self.noise.is_empty() { return None } else { rng.unit() };
        for level in &self.noise {
            if at < level.share {
                return Some(level.noise);
            }
            at -= level.share;
        }
        None
    }

    /// Whether images must be bytes.
    pub(super) fn needs_bytes(&self) -> bool {
        !self.noise.is_empty() || self.distort.is_some() || self.random_resized_crop.is_some()
    }

    /// Whether noise mixture and corruptions make sense.
    pub fn check(&self) -> Result<(), String> {
        self.distort.as_ref().map_or(Ok(()), DistortSettings::check)?;
        self.random_resized_crop.as_ref().map_or(Ok(()), RandomResizedCrop::check)?;
        let total: f64 = self.noise.iter().map(|level| level.share).sum();
        let bad = |level: &&NoiseLevel| {
            let strength = match level.noise {
                Noise::Std(std) => std,
                Noise::Snr(snr) => snr,
            };
            !(strength.is_finite() && strength > 0.0 && level.share >= 0.0)
        };
        match self.noise.iter().find(bad) {
            Some(level) => Err(format!("noise level {level:?} is not positive")),
            None if !(0.0..=1.0 + 1e-9).contains(&total) => {
                Err(format!("the shares of the noise levels add up to {total}, more than 1"))
            }
            None => Ok(()),
        }
    }
}

/// What happens to one image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Placement {
    /// Columns by which the crop is shifted to the right.
    pub dx: i32,
    /// Rows by which the crop is shifted down.
    pub dy: i32,
    /// Mirrored after the crop.
    pub flip: bool,
    /// Rotated counter-clockwise by so much after the flip.
    pub degrees: f64,
}

impl Placement {
    /// Nothing happens.
    pub const IDENTITY: Self = Self { dx: 0, dy: 0, flip: false, degrees: 0.0 };
}

/// Pillow's nearest-neighbour rotation: the inverse map in 16.16 fixed point, evaluated at pixel centres.
/// Positions are columns, then rows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Affine {
    /// Change of the source position from one column to the next.
    pub(super) step: [i64; 2],
    /// Change from one row to the next.
    row: [i64; 2],
    /// Source position of the first pixel.
    origin: [i64; 2],
}

impl Affine {
    pub(super) fn rotation(degrees: f64, width: u32, height: u32) -> Self {
        let fixed = |v: f64| (v * 65536.0 + 0.5).floor() as i64;
        let radians = -degrees.rem_euclid(360.0).to_radians();
        let round15 = |v: f64| (v * 1e15).round_ties_even() / 1e15;
        let (a, b) = (round15(radians.cos()), round15(radians.sin()));
        let (cx, cy) = (f64::from(width) / 2.0, f64::from(height) / 2.0);
        let (c, f) = (cx - a * cx - b * cy, cy + b * cx - a * cy);
        Self {
            step: [fixed(a), fixed(-b)],
            row: [fixed(b), fixed(a)],
            origin: [fixed(c + a * 0.5 + b * 0.5), fixed(f - b * 0.5 + a * 0.5)],
        }
    }

    /// Source position of the first pixel of row `y`, columns then rows.
    pub(super) fn row_start(&self, y: i64) -> [i64; 2] {
        [0, 1].map(|axis| self.origin[axis] + y * self.row[axis])
    }
}
