//! How much of a reconstruction is content, and how much is noise (spec/reconstruction 1.9, protocols A and C; they are
//! proposals of that specification, not the paper's statistics, which are not published).
//!
//! Images are planes `[height, width]` in double precision: means over channels.

use super::AnalysisError;
use super::statistics::{mean, pearson};
use tch::{Device, Kind, Tensor};

/// An image's plane with its extent.
#[derive(Debug, Clone, PartialEq)]
pub struct Plane {
    /// Row after row.
    pub values: Vec<f64>,
    /// Columns.
    pub width: usize,
}

impl Plane {
    /// The mean over channels of an image `[channels, height, width]`.
    ///
    /// # Errors
    /// Of torch.
    pub fn of(image: &Tensor) -> Result<Self, AnalysisError> {
        let plane = image.to_kind(Kind::Double).mean_dim([0i64].as_slice(), false, Kind::Double);
        let width = plane.size()[1] as usize;
        Ok(Self { values: Vec::<f64>::try_from(plane.to_device(Device::Cpu).flatten(0, -1))?, width })
    }

    pub(super) fn height(&self) -> usize {
        self.values.len() / self.width
    }

    /// The plane without its mean.
    pub(super) fn centred(&self) -> Vec<f64> {
        let mean = mean(&self.values);
        self.values.iter().map(|v| v - mean).collect()
    }

    pub(super) fn tensor(&self) -> Tensor {
        Tensor::from_slice(&self.values).view([self.height() as i64, self.width as i64])
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

/// What a reconstruction of content plus noise is made of. All are of vectors without their means.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shares {
    /// Correlation with the content.
    pub content_correlation: f64,
    /// Correlation with the noise.
    pub noise_correlation: f64,
    /// Gains of content and noise in the least-squares fit x = a s + b n.
    pub gains: [f64; 2],
    /// a² |s|² / (a² |s|² + b² |n|²).
    pub content_share: f64,
    /// |x - a s - b n|² / |x|²: what is of neither.
    pub residual_share: f64,
}

/// Of the reconstruction `x` of `content` + `noise`.
pub fn shares(x: &Plane, content: &Plane, noise: &Plane) -> Shares {
    let (x, s, n) = (x.centred(), content.centred(), noise.centred());
    let (xs, xn) = (dot(&x, &s), dot(&x, &n));
    let gains = fit([dot(&s, &s), dot(&s, &n), dot(&n, &n)], [xs, xn]);
    let rest: f64 = (0..x.len()).map(|i| (x[i] - gains[0] * s[i] - gains[1] * n[i]).powi(2)).sum();
    Shares {
        content_correlation: pearson(&x, &s),
        noise_correlation: pearson(&x, &n),
        gains,
        content_share: share(gains, [dot(&s, &s), dot(&n, &n)]),
        residual_share: rest / dot(&x, &x),
    }
}

/// Of the energy of content and noise, that of content, both times their gains.
fn share(gains: [f64; 2], energies: [f64; 2]) -> f64 {
    let [content, noise] = [0, 1].map(|i| gains[i] * gains[i] * energies[i]);
    content / (content + noise)
}

/// Both gains from |s|², s·n and |n|², and from x·s and x·n.
fn fit([ss, sn, nn]: [f64; 3], [xs, xn]: [f64; 2]) -> [f64; 2] {
    let determinant = ss * nn - sn * sn;
    [(xs * nn - xn * sn) / determinant, (xn * ss - xs * sn) / determinant]
}

/// Radial frequency of each Fourier component of `plane`, in cycles a pixel.
fn frequencies(plane: &Plane) -> Result<Vec<f64>, AnalysisError> {
    let options = (Kind::Double, Device::Cpu);
    let down = Tensor::fft_fftfreq(plane.height() as i64, 1.0, options).view([-1, 1]);
    let across = Tensor::fft_fftfreq(plane.width as i64, 1.0, options).view([1, -1]);
    Ok(Vec::<f64>::try_from((down.square() + across.square()).sqrt().flatten(0, -1))?)
}

/// Its Fourier components, as real and imaginary parts.
fn spectrum(plane: &Plane) -> Result<Vec<[f64; 2]>, AnalysisError> {
    let spectrum = plane.tensor().fft_fft2(None::<&[i64]>, [-2i64, -1].as_slice(), "backward");
    let parts = Vec::<f64>::try_from(spectrum.view_as_real().flatten(0, -1))?;
    Ok(parts.as_chunks().0.to_vec())
}

/// Upper ends of the bands of [`bands`], in cycles a pixel.
pub const BANDS: [f64; 4] = [0.0625, 0.125, 0.25, 0.75];

/// The share of content in each band of radial frequency: the fit of [`shares`] over its Fourier components.
///
/// # Errors
/// Of torch.
pub fn bands(x: &Plane, content: &Plane, noise: &Plane) -> Result<[f64; BANDS.len()], AnalysisError> {
    let frequency = frequencies(x)?;
    let (x, s, n) = (spectrum(x)?, spectrum(content)?, spectrum(noise)?);
    let mut low = 0.0;
    Ok(BANDS.map(|high| {
        // The mean is no part of any band.
        let within: Vec<usize> =
            (1..frequency.len()).filter(|&i| frequency[i] >= low && frequency[i] < high).collect();
        low = high;
        let dot = |a: &[[f64; 2]], b: &[[f64; 2]]| -> f64 {
            within.iter().map(|&i| a[i][0] * b[i][0] + a[i][1] * b[i][1]).sum()
        };
        let (ss, nn) = (dot(&s, &s), dot(&n, &n));
        let gains = fit([ss, dot(&s, &n), nn], [dot(&x, &s), dot(&x, &n)]);
        share(gains, [ss, nn])
    }))
}

/// How near a reconstruction is to its target, after it was scaled to fit (protocol C).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fidelity {
    /// Pearson's correlation.
    pub correlation: f64,
    /// Structural similarity.
    pub ssim: f64,
    /// Peak signal to noise in dB; the peak is the range of pixels, 255.
    pub psnr: f64,
}

/// Of `x` against `target`, both normalised with `mean` and `std`: pixels, 0 to 1, are `v * std + mean`, as structural
/// similarity needs them, since it compares their levels. `x` is first given the mean of the target and the contrast that
/// fits it best.
pub fn fidelity(x: &Plane, target: &Plane, [level, std]: [f64; 2]) -> Fidelity {
    let centred = x.centred();
    let scale = dot(&centred, &target.centred()) / dot(&centred, &centred);
    let scale = if scale.is_finite() { scale } else { 0.0 };
    let middle = mean(&target.values);
    let pixel = |v: f64| v * std + level;
    let fitted: Vec<f64> = centred.iter().map(|v| pixel(v * scale + middle)).collect();
    let target_pixels: Vec<f64> = target.values.iter().map(|&v| pixel(v)).collect();
    let error =
        fitted.iter().zip(&target_pixels).map(|(a, b)| (a - b).powi(2)).sum::<f64>() / fitted.len() as f64;
    let plane = |values: Vec<f64>| Plane { values, width: x.width };
    Fidelity {
        correlation: pearson(&x.values, &target.values),
        ssim: ssim(&plane(fitted), &plane(target_pixels)),
        psnr: -10.0 * error.log10(),
    }
}

/// Structural similarity of planes of range 1 (Wang et al. 2004): Gaussian windows of 11 x 11 pixels and deviation 1.5
/// that lie within the image, K1 = 0.01 and K2 = 0.03.
pub fn ssim(a: &Plane, b: &Plane) -> f64 {
    let side = 11.min(a.width).min(a.height()) as i64;
    let from_middle = Tensor::arange(side, (Kind::Double, Device::Cpu)) - (side - 1) as f64 / 2.0;
    let axis = ((from_middle / 1.5).square() * -0.5).exp();
    let axis = &axis / axis.sum(Kind::Double);
    let window = (axis.view([-1, 1]) * axis.view([1, -1])).view([1, 1, side, side]);
    let local =
        |t: &Tensor| t.unsqueeze(0).unsqueeze(0).conv2d(&window, None::<&Tensor>, [1, 1], [0, 0], [1, 1], 1);
    let (a, b) = (a.tensor(), b.tensor());
    let (ma, mb) = (local(&a), local(&b));
    let (va, vb) = (local(&(&a * &a)) - &ma * &ma, local(&(&b * &b)) - &mb * &mb);
    let both = local(&(&a * &b)) - &ma * &mb;
    let (c1, c2) = (0.01f64.powi(2), 0.03f64.powi(2));
    let similar =
        (&ma * &mb * 2.0 + c1) * (both * 2.0 + c2) / ((ma.square() + mb.square() + c1) * (va + vb + c2));
    similar.mean(Kind::Double).double_value(&[])
}

/// How power falls with frequency (protocol C): the slope of the logarithm of the radially averaged power spectrum of `x`
/// over that of frequency, by least squares; -2 of amplitudes 1/f, 0 of white noise. The specification names no
/// frequencies: these are 1, 2, ... cycles along the shorter side, below half its pixels, each with the mean power of
/// the components that round to it. No window, no weights.
///
/// # Errors
/// Of torch.
pub fn spectrum_slope(x: &Plane) -> Result<f64, AnalysisError> {
    let side = x.width.min(x.height());
    let mut rings = vec![(0.0, 0u32); side.div_ceil(2)];
    for (frequency, [real, imaginary]) in frequencies(x)?.into_iter().zip(spectrum(x)?) {
        // What is beyond lies in corners.
        if let Some((power, n)) = rings.get_mut((frequency * side as f64).round() as usize) {
            *power += real * real + imaginary * imaginary;
            *n += 1;
        }
    }
    let point =
        |(radius, (power, n)): (usize, &(f64, u32))| ((radius as f64).ln(), (power / f64::from(*n)).ln());
    let (radii, powers): (Vec<f64>, Vec<f64>) = rings.iter().enumerate().skip(1).map(point).unzip();
    let middle = mean(&radii);
    let radii: Vec<f64> = radii.iter().map(|radius| radius - middle).collect();
    Ok(dot(&radii, &powers) / dot(&radii, &radii))
}

/// Area under values over the logarithm of budgets, divided by its width: a mean over budgets that does not depend on
/// how densely they lie. Of one budget, its value.
pub fn over_log_budgets(points: &[(f64, f64)]) -> f64 {
    let mut points: Vec<(f64, f64)> = points.iter().map(|&(budget, value)| (budget.ln(), value)).collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return f64::NAN };
    if last.0 <= first.0 {
        return mean(&points.iter().map(|p| p.1).collect::<Vec<f64>>());
    }
    let area: f64 = points.windows(2).map(|p| (p[1].0 - p[0].0) * (p[0].1 + p[1].1) / 2.0).sum();
    area / (last.0 - first.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Purpose, RngKey};
    use std::f64::consts::TAU;

    fn noise(seed: u64) -> Plane {
        let mut rng = RngKey::new(seed, Purpose::Synth, 0).stream(0, 0);
        Plane { values: (0..1024).map(|_| rng.normal()).collect(), width: 32 }
    }

    fn mix(a: f64, s: &Plane, b: f64, n: &Plane) -> Plane {
        Plane {
            values: s.values.iter().zip(&n.values).map(|(s, n)| a * s + b * n + 3.0).collect(),
            width: 32,
        }
    }

    #[test]
    fn gains_of_a_mixture_are_found_and_nothing_is_left() {
        let (s, n) = (noise(1), noise(2));
        let found = shares(&mix(0.5, &s, 0.25, &n), &s, &n);
        assert!((found.gains[0] - 0.5).abs() < 1e-9 && (found.gains[1] - 0.25).abs() < 1e-9, "{found:?}");
        assert!((found.content_share - 0.8).abs() < 0.03 && found.residual_share < 1e-12, "{found:?}");
        let other = shares(&noise(3), &s, &n);
        assert!(other.residual_share > 0.95 && other.content_correlation.abs() < 0.1, "{other:?}");
    }

    #[test]
    fn bands_are_those_in_which_content_was_kept() {
        let (s, n) = (noise(1), noise(2));
        // White content and noise of equal gains: in the bands with many components, half of each.
        let both = bands(&mix(1.0, &s, 1.0, &n), &s, &n).unwrap();
        assert!(both[2..].iter().all(|share| (share - 0.5).abs() < 0.1), "{both:?}");
        let only = bands(&s, &s, &n).unwrap();
        assert!(only.iter().all(|share| *share > 0.999_999), "{only:?}");
    }

    /// All waves that fit, of amplitude 1 / frequency and any phase.
    fn falling(width: usize, height: usize) -> Plane {
        let mut rng = RngKey::new(4, Purpose::Synth, 0).stream(0, 0);
        let (right, down) = (width as i32 / 2, height as i32 / 2);
        let mut values = vec![0.0; width * height];
        for (kx, ky) in (0..down).flat_map(|ky| (1 - right..right).map(move |kx| (kx, ky))) {
            let (across, down) = (f64::from(kx) / width as f64, f64::from(ky) / height as f64);
            // The other half is the same waves.
            if ky > 0 || kx > 0 {
                let (phase, amplitude) = (rng.unit(), 1.0 / across.hypot(down));
                for (i, value) in values.iter_mut().enumerate() {
                    let (x, y) = ((i % width) as f64, (i / width) as f64);
                    *value += amplitude * (TAU * (across * x + down * y + phase)).cos();
                }
            }
        }
        Plane { values, width }
    }

    #[test]
    fn the_spectrum_of_falling_waves_has_slope_minus_two_and_that_of_noise_none() {
        // Numpy's, with floor(f + 1/2). Not quite -2, since rings are wide beside the lowest frequencies.
        for (width, height, slope) in [(32, 32, -1.916_661), (64, 32, -2.052_018), (32, 64, -2.052_018)] {
            let mut image = falling(width, height);
            let found = spectrum_slope(&image).unwrap();
            assert!((found - slope).abs() < 1e-6, "{width} x {height}: {found}");
            image.values.iter_mut().for_each(|v| *v = 0.1 * *v + 7.0);
            // Neither contrast nor level counts.
            assert!((spectrum_slope(&image).unwrap() - found).abs() < 1e-9);
        }
        // One image is off by 0.13.
        let slopes: Vec<f64> = (0..32).map(|seed| spectrum_slope(&noise(seed)).unwrap()).collect();
        assert!(mean(&slopes).abs() < 0.15, "{slopes:?}");
    }

    #[test]
    fn fidelity_does_not_depend_on_scale_and_falls_with_noise() {
        let (s, n) = (noise(1), noise(2));
        let whole = fidelity(&mix(0.01, &s, 0.0, &n), &s, [0.45, 0.2]);
        assert!(
            (whole.correlation - 1.0).abs() < 1e-9 && (whole.ssim - 1.0).abs() < 1e-9 && whole.psnr > 100.0
        );
        let half = fidelity(&mix(1.0, &s, 1.0, &n), &s, [0.45, 0.2]);
        let less = fidelity(&mix(1.0, &s, 3.0, &n), &s, [0.45, 0.2]);
        assert!(half.ssim > less.ssim && half.psnr > less.psnr && half.correlation > less.correlation);
        assert!((half.correlation - 0.5f64.sqrt()).abs() < 0.05);
    }

    #[test]
    fn similarity_is_that_of_scikit_image() {
        // structural_similarity(gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1) of 0.26.
        let plane = |of: &dyn Fn(f64, f64) -> f64| Plane {
            values: (0..1024).map(|i| of(f64::from(i % 32), f64::from(i / 32))).collect(),
            width: 32,
        };
        let a = |x: f64, y: f64| 0.45 + 0.2 * (0.7 * x + 0.3 * y).sin();
        let b = |x: f64, y: f64| a(x, y) + 0.1 * (1.3 * x - 0.9 * y).cos();
        assert!((ssim(&plane(&a), &plane(&b)) - 0.853_715_197_243_117_8).abs() < 1e-9);
        // The same images as networks see them, scaled to fit.
        let normal = |v: f64| (v - 0.45) / 0.2;
        let (a, b) = (plane(&|x, y| normal(a(x, y))), plane(&|x, y| normal(b(x, y))));
        assert!((fidelity(&b, &a, [0.45, 0.2]).ssim - 0.861_211_389_658_532_3).abs() < 1e-9);
    }

    #[test]
    fn budgets_count_by_their_logarithms() {
        assert_eq!(over_log_budgets(&[(5.0, 2.0)]), 2.0);
        let dense = over_log_budgets(&[(1.0, 0.0), (2.0, 1.0), (4.0, 2.0)]);
        assert!(
            (over_log_budgets(&[(1.0, 0.0), (4.0, 2.0)]) - dense).abs() < 1e-12
                && (dense - 1.0).abs() < 1e-12
        );
    }
}
