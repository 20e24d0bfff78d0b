//! What images are to have little of.

use super::beside;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// A penalty, which is subtracted from the objective.
pub trait Penalty {
    /// Images `[n, channels, height, width]`, transformed, to one number each.
    fn of(&self, images: &Tensor) -> Tensor;
}

/// How alike two images are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Similar {
    /// Pearson's correlation over all values.
    Correlation,
    /// The cosine.
    Cosine,
    /// The negative Euclidean distance.
    NegativeEuclidean,
}

/// What becomes of the similarities of all pairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Combine {
    /// The largest.
    #[default]
    Max,
    /// The mean.
    Mean,
    /// The sum.
    Sum,
}

/// The built-in penalties (spec/reconstruction 2.5, without its bugs).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum PenaltySettings {
    /// Sum of differences of neighbours, down and across.
    TotalVariation {
        /// Factor.
        #[serde(default = "one")]
        weight: f64,
        /// Root of the sum of both squares at each place, instead of the sum of both.
        #[serde(default)]
        isotropic: bool,
    },
    /// The p-norm.
    LpNorm {
        /// Factor.
        #[serde(default = "one")]
        weight: f64,
        /// Which norm.
        #[serde(default = "six")]
        p: f64,
    },
    /// How alike the images of a batch are: for searches of several different images of one kind.
    Similarity {
        /// Factor.
        #[serde(default = "one")]
        weight: f64,
        /// Of two images.
        metric: Similar,
        /// Of all pairs.
        #[serde(default)]
        combine: Combine,
    },
    /// Energy of any small box beyond a limit.
    BoxContrast {
        /// Factor.
        #[serde(default = "tenth")]
        weight: f64,
        /// Side of the box.
        #[serde(default = "seven")]
        filter: i64,
        /// The limit of the sum of squares in a box.
        #[serde(default = "ten")]
        limit: f64,
        /// Power of what is beyond.
        #[serde(default = "two")]
        p: f64,
        /// Zeros around the image.
        #[serde(default)]
        padding: i64,
        /// Factor of the sum of absolute values.
        #[serde(default = "thousandth")]
        l1: f64,
    },
    /// Pixels beyond limits, and roughness.
    PixelRange {
        /// Factor of what is beyond the limits.
        #[serde(default = "tenth")]
        weight: f64,
        /// Upper limit.
        #[serde(default = "two")]
        upper: f64,
        /// Lower limit.
        #[serde(default = "lower")]
        lower: f64,
        /// Power of what is beyond.
        #[serde(default = "two")]
        p: f64,
        /// Factor of half the sum of squares of the Laplacian.
        #[serde(default = "one")]
        l2: f64,
        /// Factor of the sum of absolute values.
        #[serde(default)]
        l1: f64,
    },
}

const fn one() -> f64 {
    1.0
}
const fn two() -> f64 {
    2.0
}
const fn six() -> f64 {
    6.0
}
const fn ten() -> f64 {
    10.0
}
const fn tenth() -> f64 {
    0.1
}
const fn thousandth() -> f64 {
    1e-3
}
const fn lower() -> f64 {
    -1.5
}
const fn seven() -> i64 {
    7
}

impl PenaltySettings {
    /// Whether images of an extent, channels, rows and columns, have it.
    pub(super) fn check(&self, [_, height, width]: [i64; 3]) -> Result<(), String> {
        let fits = match *self {
            Self::TotalVariation { weight, .. } => weight.is_finite() && height > 1 && width > 1,
            Self::LpNorm { weight, p } => weight.is_finite() && p.is_finite() && p > 0.0,
            Self::Similarity { weight, .. } => weight.is_finite(),
            Self::BoxContrast { weight, filter, padding, .. } => {
                let smallest = height.min(width) + 2 * padding;
                weight.is_finite() && (1..=smallest).contains(&filter) && (0..=filter / 2).contains(&padding)
            }
            Self::PixelRange { weight, .. } => weight.is_finite() && height > 2 && width > 2,
        };
        if fits { Ok(()) } else { Err(format!("{self:?} of an image of {height} x {width}")) }
    }

    /// Whether it makes the images of a batch depend on each other.
    pub fn couples(&self) -> bool {
        matches!(self, Self::Similarity { .. })
    }
}

impl Penalty for PenaltySettings {
    fn of(&self, images: &Tensor) -> Tensor {
        let l1 = |weight: f64| per_image(&images.abs()) * weight;
        match *self {
            Self::TotalVariation { weight, isotropic } => variation(images, isotropic) * weight,
            Self::LpNorm { weight, p } => {
                // The root has no slope at 0.
                let sums = per_image(&images.abs().pow_tensor_scalar(p)).clamp_min(1e-36);
                sums.pow_tensor_scalar(1.0 / p) * weight
            }
            Self::Similarity { weight, metric, combine } => similarity(images, metric, combine) * weight,
            Self::BoxContrast { weight, filter, limit, p, padding, l1: l1_weight } => {
                // Divided by 1: sums, not means.
                let sums = images.square().avg_pool2d([filter; 2], [1, 1], [padding; 2], false, true, 1i64);
                let beyond = (sums - limit).relu().pow_tensor_scalar(p);
                per_image(&beyond) / (beyond.numel() as f64 / images.size()[0] as f64) * weight
                    + l1(l1_weight)
            }
            Self::PixelRange { weight, upper, lower, p, l2, l1: l1_weight } => {
                let beyond = (images - upper).relu().pow_tensor_scalar(p)
                    + (-(images - lower)).relu().pow_tensor_scalar(p);
                per_image(&beyond) * weight
                    + per_image(&laplacian(images).square()) * (0.5 * l2)
                    + l1(l1_weight)
            }
        }
    }
}

fn per_image(values: &Tensor) -> Tensor {
    values.flatten(1, -1).sum_dim_intlist([1i64].as_slice(), false, Kind::Float)
}

fn variation(images: &Tensor, isotropic: bool) -> Tensor {
    let [height, width] = [images.size()[2], images.size()[3]];
    let down = images.narrow(2, 1, height - 1) - images.narrow(2, 0, height - 1);
    let across = images.narrow(3, 1, width - 1) - images.narrow(3, 0, width - 1);
    if !isotropic {
        return per_image(&down.abs()) + per_image(&across.abs());
    }
    let squares = down.narrow(3, 0, width - 1).square() + across.narrow(2, 0, height - 1).square();
    // The root has no slope at 0.
    per_image(&squares.clamp_min(1e-12).sqrt())
}

/// Convolution with the Laplacian of four neighbours, where it fits.
fn laplacian(images: &Tensor) -> Tensor {
    let [n, channels, height, width] = [0, 1, 2, 3].map(|axis| images.size()[axis]);
    let kernel = Tensor::from_slice(&[0f32, -1.0, 0.0, -1.0, 4.0, -1.0, 0.0, -1.0, 0.0]).view([1, 1, 3, 3]);
    let planes = images.reshape([n * channels, 1, height, width]);
    let rough = planes.conv2d(&beside(&kernel, images), None::<&Tensor>, [1, 1], [0, 0], [1, 1], 1);
    rough.view([n, channels, height - 2, width - 2])
}

/// The same for all images of the batch, which share it.
fn similarity(images: &Tensor, metric: Similar, combine: Combine) -> Tensor {
    let n = images.size()[0];
    if n < 2 {
        return per_image(&(images * 0.0));
    }
    let rows = images.flatten(1, -1);
    let pairs = match metric {
        Similar::NegativeEuclidean => -Tensor::cdist(&rows, &rows, 2.0, None::<i64>),
        Similar::Correlation | Similar::Cosine => {
            let mean = rows.mean_dim([1i64].as_slice(), true, Kind::Float);
            let rows = if metric == Similar::Correlation { &rows - mean } else { rows };
            let norms = rows.norm_scalaropt_dim(2.0, [1i64].as_slice(), true) + 1e-9;
            let unit = rows / norms;
            unit.matmul(&unit.tr())
        }
    };
    let upper = Tensor::triu_indices(n, n, 1, (Kind::Int64, pairs.device()));
    let pairs = pairs.flatten(0, -1).index_select(0, &(upper.get(0) * n + upper.get(1)));
    let combined = match combine {
        Combine::Max => pairs.max(),
        Combine::Mean => pairs.mean(Kind::Float),
        Combine::Sum => pairs.sum(Kind::Float),
    };
    (combined / n as f64).expand([n], false)
}
