//! Whether a reconstruction spends its energy where an image is salient (spec/reconstruction 1.9, protocol B, and 4.4).
//!
//! Saliency maps are supplied; where there are none, a simple published model of what stands out stands in: the
//! spectral residual. It is not what the paper used (DeepGaze), and is named wherever it was used.

use super::AnalysisError;
use super::content::Plane;
use super::statistics::{mean, partial, pearson, spearman};
use tch::{Device, Kind, Tensor};

/// Name of the stand-in for supplied maps.
pub const SPECTRAL_RESIDUAL: &str = "spectral_residual";
/// Deviation of the blur over energy, in pixels.
const ENERGY_SIGMA: f64 = 2.0;
/// Deviation of the blur over the spectral residual, in pixels.
const RESIDUAL_SIGMA: f64 = 2.5;

/// The spectral residual (Hou and Zhang 2007) of an image as a density: nowhere negative, sum 1.
///
/// # Errors
/// Of torch.
pub fn spectral_residual(image: &Plane) -> Result<Plane, AnalysisError> {
    let spectrum = image.tensor().fft_fft2(None::<&[i64]>, [-2i64, -1].as_slice(), "backward");
    let amplitude = spectrum.abs().clamp_min(1e-12);
    let log = amplitude.log();
    let padded = log.unsqueeze(0).unsqueeze(0).replication_pad2d([1, 1, 1, 1]);
    let smooth = padded.avg_pool2d([3, 3], [1, 1], [0, 0], false, true, None).squeeze();
    let residual = &spectrum / &amplitude * (log - smooth).exp();
    let back = residual.fft_ifft2(None::<&[i64]>, [-2i64, -1].as_slice(), "backward");
    density(&blurred(&back.abs().square(), RESIDUAL_SIGMA))
}

/// A supplied map on the grid of an image: probability is summed within each cell, so that a finer map loses none.
///
/// # Errors
/// A map with a negative or no finite sum, or one that is coarser than the grid.
pub fn on_grid(map: &Plane, height: usize, width: usize) -> Result<Plane, AnalysisError> {
    let (rows, columns) = (map.height(), map.width);
    if rows < height || columns < width {
        return Err(AnalysisError::Settings(format!(
            "a saliency map of {rows} x {columns} is coarser than the image, {height} x {width}"
        )));
    }
    if map.values.iter().any(|v| !v.is_finite() || *v < 0.0) {
        return Err(AnalysisError::Settings(
            "a saliency map has values that are no density: below 0 or no numbers".into(),
        ));
    }
    density(&shares(height, rows).matmul(&map.tensor()).matmul(&shares(width, columns).tr()))
}

/// `[n, of]`: how much of each of `of` equal parts of a side lies in each of `n`.
fn shares(n: usize, of: usize) -> Tensor {
    let edges = |n: usize| Tensor::arange(n as i64 + 1, (Kind::Double, Device::Cpu)) * (of as f64 / n as f64);
    let (coarse, fine) = (edges(n).unsqueeze(1), edges(of).unsqueeze(0));
    let [from, to] = [0, 1].map(|at| coarse.narrow(0, at, n as i64));
    let [begin, end] = [0, 1].map(|at| fine.narrow(1, at, of as i64));
    (to.minimum(&end) - from.maximum(&begin)).clamp_min(0.0)
}

/// A map of a fixation at the middle: a Gaussian of a quarter of the sides, sum 1.
///
/// # Errors
/// Of torch.
pub fn centre_bias(height: usize, width: usize) -> Result<Plane, AnalysisError> {
    let axis = |n: usize| {
        let from_middle = Tensor::arange(n as i64, (Kind::Double, Device::Cpu)) - (n as f64 - 1.0) / 2.0;
        ((from_middle / (n as f64 / 4.0)).square() * -0.5).exp()
    };
    density(&(axis(height).view([-1, 1]) * axis(width).view([1, -1])))
}

fn density(map: &Tensor) -> Result<Plane, AnalysisError> {
    let width = map.size()[1] as usize;
    let total = map.sum(Kind::Double).double_value(&[]);
    if !(total.is_finite() && total > 0.0) {
        return Err(AnalysisError::Numbers("a saliency map is zero everywhere or has no finite sum".into()));
    }
    Ok(Plane { values: Vec::<f64>::try_from((map / total).flatten(0, -1))?, width })
}

/// Gaussian blur with mirrored borders.
fn blurred(map: &Tensor, sigma: f64) -> Tensor {
    let half = ((4.0 * sigma).round() as i64).min(map.size()[0] - 1).min(map.size()[1] - 1);
    let axis =
        ((Tensor::arange(2 * half + 1, (Kind::Double, Device::Cpu)) - half as f64) / sigma).square() * -0.5;
    let axis = axis.exp();
    let axis = &axis / axis.sum(Kind::Double);
    let pass = |map: &Tensor, shape: [i64; 4]| {
        map.conv2d(&axis.view(shape), None::<&Tensor>, [1, 1], [0, 0], [1, 1], 1)
    };
    let padded = map.unsqueeze(0).unsqueeze(0).reflection_pad2d([half; 4]);
    pass(&pass(&padded, [1, 1, -1, 1]), [1, 1, 1, -1]).squeeze()
}

/// Where the energy of an image is: squares of its differences from its mean, blurred.
///
/// # Errors
/// Of torch.
pub fn energy(image: &Plane) -> Result<Vec<f64>, AnalysisError> {
    let squares: Vec<f64> = image.centred().iter().map(|v| v * v).collect();
    let plane = Plane { values: squares, width: image.width };
    Ok(Vec::<f64>::try_from(blurred(&plane.tensor(), ENERGY_SIGMA).flatten(0, -1))?)
}

/// Agreement of a reconstruction's energy with a saliency map.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Agreement {
    /// Pearson's correlation of energy and saliency over pixels.
    pub correlation: f64,
    /// Spearman's.
    pub rank_correlation: f64,
    /// Pearson's of their logarithms.
    pub log_correlation: f64,
    /// Mean of the energy's z-values, weighted by saliency.
    pub weighted_energy: f64,
    /// `correlation` beyond that of the image's own energy: what is not just where the image has contrast.
    pub excess: f64,
    /// Correlation that the image's own energy and a bias to the middle do not explain.
    pub partial: f64,
}

/// Of the reconstruction `x` of `image` with the density `saliency` on the same grid.
///
/// # Errors
/// Of torch.
pub fn agreement(x: &Plane, image: &Plane, saliency: &Plane) -> Result<Agreement, AnalysisError> {
    let (found, control) = (energy(x)?, energy(image)?);
    let map = &saliency.values;
    let centre = centre_bias(image.height(), image.width)?;
    let log = |values: &[f64]| -> Vec<f64> { values.iter().map(|v| v.max(1e-12).ln()).collect() };
    let (level, n) = (mean(&found), found.len() as f64);
    let deviation = (found.iter().map(|v| (v - level).powi(2)).sum::<f64>() / n).sqrt();
    let correlation = pearson(&found, map);
    Ok(Agreement {
        correlation,
        rank_correlation: spearman(&found, map),
        log_correlation: pearson(&log(&found), &log(map)),
        weighted_energy: found.iter().zip(map).map(|(v, d)| (v - level) / deviation * d).sum(),
        excess: correlation - pearson(&control, map),
        partial: partial(&found, map, &[&control, &centre.values]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Purpose, RngKey};

    /// A bright square on ground.
    fn square(top: usize, left: usize) -> Plane {
        let value =
            |i: usize| f64::from((top..top + 6).contains(&(i / 32)) && (left..left + 6).contains(&(i % 32)));
        Plane { values: (0..1024).map(value).collect(), width: 32 }
    }

    fn sum(plane: &Plane) -> f64 {
        plane.values.iter().sum()
    }

    #[test]
    fn what_stands_out_is_salient() {
        let mut rng = RngKey::new(1, Purpose::Synth, 0).stream(0, 0);
        let image = square(8, 20);
        let values = image.values.iter().map(|v| 2.0 * v + 0.3 * rng.normal()).collect();
        let map = spectral_residual(&Plane { values, ..image }).unwrap();
        assert!((sum(&map) - 1.0).abs() < 1e-9 && map.values.iter().all(|v| *v >= 0.0));
        let near = |top: usize, left: usize| -> f64 {
            (0..64).map(|i| map.values[(top + i / 8) * 32 + left + i % 8]).sum()
        };
        assert!(near(7, 19) > 2.0 * near(20, 2), "{} {}", near(7, 19), near(20, 2));
    }

    #[test]
    fn finer_maps_keep_their_sums_and_bad_ones_are_refused() {
        let fine = Plane { values: vec![1.0; 64 * 96], width: 96 };
        let map = on_grid(&fine, 32, 32).unwrap();
        assert_eq!((map.values.len(), map.width), (1024, 32));
        assert!((sum(&map) - 1.0).abs() < 1e-9);
        // Three parts on two: the middle one counts half on both sides.
        let three = Plane { values: vec![1.0, 2.0, 5.0], width: 3 };
        assert_eq!(on_grid(&three, 1, 2).unwrap().values, [0.25, 0.75]);
        let coarse = Plane { values: vec![1.0; 16], width: 4 };
        assert!(on_grid(&coarse, 32, 32).unwrap_err().to_string().contains("coarser"));
        let negative = Plane { values: vec![-1.0; 1024], width: 32 };
        assert!(on_grid(&negative, 32, 32).is_err());
        assert!(on_grid(&Plane { values: vec![0.0; 1024], width: 32 }, 32, 32).is_err());
    }

    #[test]
    fn energy_where_the_map_is_agrees_and_elsewhere_does_not() {
        let image = square(8, 20);
        let map = on_grid(&square(8, 20), 32, 32).unwrap();
        let same = agreement(&image, &image, &map).unwrap();
        let other = agreement(&square(22, 2), &image, &map).unwrap();
        assert!(same.correlation > 0.5 && same.excess == 0.0 && same.weighted_energy > 1.0, "{same:?}");
        assert!(other.correlation < 0.1 && other.excess < -0.4, "{other:?}");
    }
}
