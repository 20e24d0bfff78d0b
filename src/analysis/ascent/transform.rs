//! What images go through before they are evaluated.

use crate::base::{Purpose, Rng, RngKey};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// A differentiable transformation.
pub trait Transform {
    /// Images `[n, channels, height, width]` at step number `step`. Images may change their size, and each may become
    /// several, which then stand after each other.
    fn apply(&self, images: &Tensor, step: u32) -> Tensor;

    /// Whether it changes pixels where they are, and always in the same way. Then it says what the image is that the
    /// network sees; others say how it is looked at, and are of the search only.
    fn is_pointwise(&self) -> bool {
        false
    }
}

/// How images are enlarged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Interpolation {
    /// The nearest pixel.
    Nearest,
    /// Lines between pixels.
    #[default]
    Bilinear,
}

/// The built-in transformations (spec/reconstruction 2.5).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum TransformSettings {
    /// Shifts by up to so many rows and columns, with mirrored borders.
    Jitter {
        /// Largest shift down and to the right, and up and to the left.
        max: [i64; 2],
    },
    /// A part of the image at a random place.
    RandomCrop {
        /// Rows.
        height: i64,
        /// Columns.
        width: i64,
    },
    /// All parts on a grid; the objective is the mean over them.
    BatchedCrops {
        /// Rows.
        height: i64,
        /// Columns.
        width: i64,
        /// Between the beginnings of parts.
        step: i64,
        /// Deviations of a Gaussian mask over rows and columns of each part, whose middle is 1.
        #[serde(default)]
        sigma: Option<[f64; 2]>,
    },
    /// Any number to one between `low` and `high`, by a sigmoid.
    ChangeRange {
        /// Least value.
        low: f64,
        /// Largest value.
        high: f64,
    },
    /// Larger or smaller by a factor.
    Resize {
        /// The factor.
        scale: f64,
        /// How.
        #[serde(default)]
        method: Interpolation,
    },
    /// One channel to three equal ones.
    GrayscaleToRgb,
}

impl TransformSettings {
    /// The extent, channels, rows and columns, of what becomes of images of an extent; or why nothing does.
    pub(super) fn checked(self, [channels, height, width]: [i64; 3]) -> Result<[i64; 3], String> {
        let within = |rows: i64, columns: i64| (1..=height).contains(&rows) && (1..=width).contains(&columns);
        let image = format!("an image of {height} x {width}");
        match self {
            Self::Jitter { max: [down, across] } => {
                let fits = (0..height).contains(&down) && (0..width).contains(&across);
                fits.then_some([channels, height, width])
                    .ok_or_else(|| format!("jitter by up to {down} and {across} of {image}"))
            }
            Self::RandomCrop { height: rows, width: columns } => within(rows, columns)
                .then_some([channels, rows, columns])
                .ok_or_else(|| format!("a crop of {rows} x {columns} of {image}")),
            Self::BatchedCrops { height: rows, width: columns, step, sigma } => {
                let mask = sigma.is_none_or(|sigma| sigma.iter().all(|s| s.is_finite() && *s > 0.0));
                (within(rows, columns) && step > 0 && mask)
                    .then_some([channels, rows, columns])
                    .ok_or_else(|| format!("crops of {rows} x {columns}, every {step} pixels, of {image}"))
            }
            Self::ChangeRange { low, high } => (low.is_finite() && high.is_finite() && low < high)
                .then_some([channels, height, width])
                .ok_or_else(|| format!("a range from {low} to {high}")),
            Self::Resize { scale, .. } => {
                let [rows, columns] = [height, width].map(|side| (side as f64 * scale).round());
                let fits = [rows, columns].iter().all(|side| (1.0..=8192.0).contains(side));
                fits.then_some([channels, rows as i64, columns as i64])
                    .ok_or_else(|| format!("{image} times {scale}"))
            }
            Self::GrayscaleToRgb => (channels == 1)
                .then_some([3, height, width])
                .ok_or_else(|| format!("{channels} channels as one gray")),
        }
    }

    /// The transformation number `place` of a search for images with these seeds.
    pub fn build(self, seeds: &[u64], place: u32) -> Box<dyn Transform> {
        let draws = seeds.iter().map(|&seed| RngKey::new(seed, Purpose::Search, place)).collect();
        Box::new(Built { settings: self, draws })
    }
}

struct Built {
    settings: TransformSettings,
    /// One an image: what it draws does not depend on the others.
    draws: Vec<RngKey>,
}

impl Transform for Built {
    fn apply(&self, images: &Tensor, step: u32) -> Tensor {
        match self.settings {
            TransformSettings::Jitter { max } => {
                let padded = images.reflection_pad2d([max[1], max[1], max[0], max[0]]);
                let size = [images.size()[2], images.size()[3]];
                self.cut(&padded, size, step, |rng| max.map(|m| below(rng, 2 * m + 1)))
            }
            TransformSettings::RandomCrop { height, width } => {
                let room = [images.size()[2] - height + 1, images.size()[3] - width + 1];
                self.cut(images, [height, width], step, |rng| room.map(|n| below(rng, n)))
            }
            TransformSettings::BatchedCrops { height, width, step, sigma } => {
                crops(images, [height, width], step.max(1), sigma)
            }
            TransformSettings::ChangeRange { low, high } => images.sigmoid() * (high - low) + low,
            TransformSettings::Resize { scale, method } => resized(images, scale, method),
            TransformSettings::GrayscaleToRgb => images.expand([-1, 3, -1, -1], false),
        }
    }

    fn is_pointwise(&self) -> bool {
        matches!(self.settings, TransformSettings::ChangeRange { .. } | TransformSettings::GrayscaleToRgb)
    }
}

impl Built {
    /// A part of each image, from the row and column that `draw` gives.
    fn cut(&self, images: &Tensor, size: [i64; 2], step: u32, draw: impl Fn(&mut Rng) -> [i64; 2]) -> Tensor {
        // An image's views stand after each other.
        let views = (images.size()[0] / self.draws.len().max(1) as i64).max(1);
        let part = |row: i64| {
            let key = &self.draws[(row / views) as usize];
            let [top, left] = draw(&mut key.stream(step, (row % views) as u64));
            images.narrow(0, row, 1).narrow(2, top, size[0]).narrow(3, left, size[1])
        };
        let parts: Vec<Tensor> = (0..views * self.draws.len() as i64).map(part).collect();
        Tensor::cat(&parts, 0)
    }
}

fn below(rng: &mut Rng, n: i64) -> i64 {
    i64::from(rng.below(n.max(1) as u32))
}

fn crops(images: &Tensor, [height, width]: [i64; 2], step: i64, sigma: Option<[f64; 2]>) -> Tensor {
    let starts = |size: i64, part: i64| (0..=size - part).step_by(step as usize);
    let mut parts = Vec::new();
    for top in starts(images.size()[2], height) {
        for left in starts(images.size()[3], width) {
            parts.push(images.narrow(2, top, height).narrow(3, left, width));
        }
    }
    let parts = Tensor::stack(&parts, 1).flatten(0, 1);
    let Some([down, across]) = sigma else { return parts };
    let axis = |n: i64, sigma: f64| {
        let from_middle = Tensor::arange(n, (Kind::Float, images.device())) - (n - 1) as f64 / 2.0;
        ((from_middle / sigma).square() * -0.5).exp()
    };
    parts * axis(height, down).view([-1, 1]) * axis(width, across).view([1, -1])
}

fn resized(images: &Tensor, scale: f64, method: Interpolation) -> Tensor {
    let [height, width] = [2, 3].map(|axis| ((images.size()[axis] as f64 * scale).round() as i64).max(1));
    match method {
        Interpolation::Nearest => images.upsample_nearest2d([height, width], None, None),
        Interpolation::Bilinear => images.upsample_bilinear2d([height, width], false, None, None),
    }
}
