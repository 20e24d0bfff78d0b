//! How alike representations of the same images are: dissimilarities of all pairs of images (Kriegeskorte et al. 2008),
//! and centred kernel alignment (Kornblith et al. 2019). spec/reconstruction 4.5.

use super::AnalysisError;
use super::statistics::{kendall, mean, middle_95, pearson, ranks};
use crate::base::{Purpose, Rng, RngKey};
use rayon::prelude::*;
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use tch::{Device, Kind, Tensor};

/// How unlike two images are in a representation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Dissimilarity {
    /// 1 minus Pearson's correlation over units.
    Correlation,
    /// 1 minus the cosine.
    Cosine,
    /// The Euclidean distance.
    Euclidean,
}

/// How dissimilarities of two representations are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Comparison {
    /// Spearman's rank correlation.
    Spearman,
    /// Pearson's correlation.
    Pearson,
    /// Kendall's tau-b.
    Kendall,
}

impl Dissimilarity {
    /// Name in tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Correlation => "correlation",
            Self::Cosine => "cosine",
            Self::Euclidean => "euclidean",
        }
    }
}

impl Comparison {
    /// Name in tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Spearman => "spearman",
            Self::Pearson => "pearson",
            Self::Kendall => "kendall",
        }
    }

    fn of(self, a: &[f64], b: &[f64]) -> f64 {
        match self {
            // Spearman's is of ranks, which the caller gives.
            Self::Pearson | Self::Spearman => pearson(a, b),
            Self::Kendall => kendall(a, b),
        }
    }
}

/// Representations of `n` images as matrices `[n, n]`, row after row.
#[derive(Debug, Clone)]
pub struct Geometry {
    /// Number of images.
    pub n: usize,
    /// Dissimilarities.
    pub rdm: Vec<f64>,
    /// Inner products of the representations without their means over images.
    gram: Vec<f64>,
}

impl Geometry {
    /// Of activity `[images, units]`.
    ///
    /// # Errors
    /// Fewer than three images; activity that is no number; an image without activity, whose angle to others is none.
    pub fn of(activity: &Tensor, how: Dissimilarity) -> Result<Self, AnalysisError> {
        let x = activity.to_device(Device::Cpu).to_kind(Kind::Double).flatten(1, -1);
        let n = x.size()[0] as usize;
        if n < 3 {
            return Err(AnalysisError::Settings(format!(
                "{n} images have no pairs to compare; take three or more"
            )));
        }
        let gram = inner_products(&x);
        let rdm = match how {
            Dissimilarity::Euclidean => {
                // Distances do not change with the mean, and their digits are better without it.
                let squares = gram.diagonal(0, 0, 1);
                let squares = squares.unsqueeze(0) + squares.unsqueeze(1) - &gram * 2.0;
                squares.clamp_min(0.0).sqrt()
            }
            Dissimilarity::Correlation | Dissimilarity::Cosine => {
                let rows = match how {
                    Dissimilarity::Correlation => &x - x.mean_dim([1i64].as_slice(), true, Kind::Double),
                    _ => x,
                };
                let norms = rows.norm_scalaropt_dim(2.0, [1i64].as_slice(), true);
                let unit = &rows / &norms;
                1.0 - unit.matmul(&unit.tr())
            }
        };
        let values = |t: &Tensor| Vec::<f64>::try_from(t.flatten(0, -1));
        let (rdm, gram) = (values(&rdm)?, values(&gram)?);
        if let Some(at) = rdm.iter().position(|v| !v.is_finite()) {
            return Err(AnalysisError::Numbers(format!(
                "image {} of the comparison has no {} dissimilarity: its activity is constant, zero or no number",
                at / n,
                how.as_str()
            )));
        }
        Ok(Self { n, rdm, gram })
    }

    /// Dissimilarities of all pairs of images, each once.
    pub fn upper(&self) -> Vec<f64> {
        self.pairs(&(0..self.n).collect::<Vec<usize>>())
    }

    /// Dissimilarities of the pairs of the images `chosen`, each pair once, without those of an image with itself.
    fn pairs(&self, chosen: &[usize]) -> Vec<f64> {
        let mut pairs = Vec::with_capacity(chosen.len() * chosen.len() / 2);
        for (k, &i) in chosen.iter().enumerate() {
            for &j in chosen[k + 1..].iter().filter(|&&j| j != i) {
                pairs.push(self.rdm[i * self.n + j]);
            }
        }
        pairs
    }

    /// Inner products of the images `chosen`, without their means.
    fn centred(&self, chosen: &[usize]) -> Vec<f64> {
        let n = chosen.len();
        let mut gram = Vec::with_capacity(n * n);
        for &i in chosen {
            gram.extend(chosen.iter().map(|&j| self.gram[i * self.n + j]));
        }
        let means: Vec<f64> = gram.chunks_exact(n).map(|row| row.iter().sum::<f64>() / n as f64).collect();
        let all = means.iter().sum::<f64>() / n as f64;
        for (i, row) in gram.chunks_exact_mut(n).enumerate() {
            row.iter_mut().zip(&means).for_each(|(v, mean)| *v += all - means[i] - mean);
        }
        gram
    }
}

/// Inner products of a representation without its mean over images, of length 1: linear centred kernel alignment is
/// what two of them have in common.
#[derive(Debug, Clone)]
pub struct Aligned(Vec<f64>);

impl Aligned {
    /// Of activity `[images, units]`.
    ///
    /// # Errors
    /// Activity that is the same for all images, or no number.
    pub fn of(activity: &Tensor) -> Result<Self, AnalysisError> {
        let x = activity.to_device(Device::Cpu).to_kind(Kind::Double).flatten(1, -1);
        let found = Self::new(Vec::<f64>::try_from(inner_products(&x).flatten(0, -1))?);
        if found.0.iter().all(|v| v.is_finite()) {
            return Ok(found);
        }
        Err(AnalysisError::Numbers("its activity is the same for all images, or no number".to_owned()))
    }

    /// Of centred inner products.
    fn new(gram: Vec<f64>) -> Self {
        let norm = gram.iter().map(|v| v * v).sum::<f64>().sqrt();
        Self(gram.into_iter().map(|v| v / norm).collect())
    }

    /// Linear centred kernel alignment with another representation of the same images, 0 to 1.
    pub fn with(&self, other: &Self) -> f64 {
        self.0.iter().zip(&other.0).map(|(a, b)| a * b).sum()
    }
}

/// Alignment of a layer's representations under noise of different strengths: `of[i]` are those of strength i, one for
/// each draw of the noise, or a single one that is the same for all draws. Means over all pairs of different draws, so
/// that noise itself aligns nothing.
pub fn stability(of: &[Vec<Aligned>]) -> Vec<Vec<f64>> {
    let between = |a: &[Aligned], b: &[Aligned]| {
        let drawn = a.len() > 1 && b.len() > 1;
        let pairs = a
            .iter()
            .enumerate()
            .flat_map(|(r, one)| b.iter().enumerate().map(move |(s, two)| (r, s, one, two)));
        let pairs = pairs.filter(|(r, s, ..)| !drawn || r != s);
        mean(&pairs.map(|(.., one, two)| one.with(two)).collect::<Vec<_>>())
    };
    of.par_iter().map(|a| of.iter().map(|b| between(a, b)).collect()).collect()
}

/// Of a representation `[images, units]` without its mean over images.
fn inner_products(x: &Tensor) -> Tensor {
    let x = x - x.mean_dim([0i64].as_slice(), true, Kind::Double);
    x.matmul(&x.tr())
}

/// A number with its interval of 95 % over images.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Alike {
    /// Of all images.
    pub value: f64,
    /// Its ends; none without resampling.
    pub bounds: Option<[f64; 2]>,
}

/// How alike two representations are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pair {
    /// Numbers of the representations, the first below the second.
    pub of: [usize; 2],
    /// Comparison of their dissimilarities.
    pub rsa: Alike,
    /// Linear centred kernel alignment: 0 to 1.
    pub cka: Alike,
}

/// All pairs of representations of the same images, with intervals over images: of the comparison by the bootstrap,
/// where pairs of an image with itself are left out; of the alignment by the jackknife (deviations of 1.96 on both
/// sides), since images that are drawn twice would count as alignment. Of fewer than [`FEWEST`] images there are none:
/// what is drawn of them often has two or fewer different ones, between which nothing can be compared; such draws are
/// made again.
///
/// # Errors
/// Representations of different numbers of images; [`AnalysisError::Stopped`] once `stop` says so.
pub fn compare(
    all: &[Geometry],
    comparison: Comparison,
    resamplings: u32,
    seed: u64,
    stop: &AtomicBool,
) -> Result<Vec<Pair>, AnalysisError> {
    let n = all.first().map_or(0, |first| first.n);
    if all.iter().any(|geometry| geometry.n != n) {
        return Err(AnalysisError::Settings("representations are of different numbers of images".into()));
    }
    let whole: Vec<usize> = (0..n).collect();
    let (rsa, cka) = (comparisons(all, comparison, &whole), alignments(all, &whole));
    let resamplings = if n < FEWEST { 0 } else { resamplings };
    let key = RngKey::new(seed, Purpose::Bootstrap, n as u32);
    let drawn = |i: u32| {
        if stop.load(Ordering::Relaxed) {
            return Err(AnalysisError::Stopped);
        }
        Ok(comparisons(all, comparison, &resampled(&mut key.stream(i, 0), n)))
    };
    let without = |i: usize| alignments(all, &(0..n).filter(|&j| j != i).collect::<Vec<_>>());
    let resampled = (0..resamplings).into_par_iter().map(drawn).collect::<Result<Vec<Vec<f64>>, _>>()?;
    let left: Vec<Vec<f64>> =
        if resamplings == 0 { Vec::new() } else { (0..n).into_par_iter().map(without).collect() };
    let pair = |(i, of): (usize, [usize; 2])| {
        let bounds = (resamplings > 0).then(|| middle_95(&mut column(&resampled, i)));
        let rsa = Alike { value: rsa[i], bounds };
        let around = |spread: f64| [(cka[i] - 1.96 * spread).max(0.0), (cka[i] + 1.96 * spread).min(1.0)];
        let bounds = (resamplings > 0).then(|| around(jackknife(&column(&left, i))));
        Pair { of, rsa, cka: Alike { value: cka[i], bounds } }
    };
    Ok(places(all.len()).enumerate().map(pair).collect())
}

/// Images without which there are no intervals.
pub const FEWEST: usize = 6;

/// `n` of `n` images, drawn with replacement, at least three of them different.
fn resampled(rng: &mut Rng, n: usize) -> Vec<usize> {
    loop {
        let drawn: Vec<usize> = (0..n).map(|_| rng.below(n as u32) as usize).collect();
        if drawn.iter().collect::<HashSet<_>>().len() > 2 {
            return drawn;
        }
    }
}

/// Value number `i` of each.
fn column(of: &[Vec<f64>], i: usize) -> Vec<f64> {
    of.iter().map(|values| values[i]).collect()
}

/// All pairs of `n` things, the first below the second.
fn places(n: usize) -> impl Iterator<Item = [usize; 2]> {
    (0..n).flat_map(move |a| (a + 1..n).map(move |b| [a, b]))
}

/// Standard error of a statistic from its values without one sample each (Tukey 1958).
fn jackknife(left: &[f64]) -> f64 {
    let (n, middle) = (left.len() as f64, mean(left));
    ((n - 1.0) / n * left.iter().map(|v| (v - middle).powi(2)).sum::<f64>()).sqrt()
}

/// Comparison of dissimilarities, of all pairs of representations over the images `chosen`.
fn comparisons(all: &[Geometry], comparison: Comparison, chosen: &[usize]) -> Vec<f64> {
    let pairs = |geometry: &Geometry| {
        let pairs = geometry.pairs(chosen);
        if comparison == Comparison::Spearman { ranks(&pairs) } else { pairs }
    };
    let dissimilarities: Vec<Vec<f64>> = all.iter().map(pairs).collect();
    places(all.len()).map(|[a, b]| comparison.of(&dissimilarities[a], &dissimilarities[b])).collect()
}

/// Linear centred kernel alignment, likewise.
fn alignments(all: &[Geometry], chosen: &[usize]) -> Vec<f64> {
    let all: Vec<Aligned> = all.iter().map(|geometry| Aligned::new(geometry.centred(chosen))).collect();
    places(all.len()).map(|[a, b]| all[a].with(&all[b])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    static GO: AtomicBool = AtomicBool::new(false);

    fn activity(n: i64, units: i64, seed: i64) -> Tensor {
        tch::manual_seed(seed);
        Tensor::randn([n, units], (Kind::Double, Device::Cpu))
    }

    #[test]
    fn what_is_turned_and_scaled_is_the_same_and_what_is_random_is_not() {
        let x = activity(20, 6, 1);
        let (turn, _) = Tensor::linalg_qr(&activity(6, 6, 2), "reduced");
        let turned = x.matmul(&turn) * 3.5;
        for how in [Dissimilarity::Cosine, Dissimilarity::Euclidean] {
            let all: Vec<Geometry> = [&x, &turned, &activity(20, 6, 3)]
                .into_iter()
                .map(|t| Geometry::of(t, how).unwrap())
                .collect();
            for comparison in [Comparison::Spearman, Comparison::Pearson, Comparison::Kendall] {
                let found = compare(&all, comparison, 50, 1, &GO).unwrap();
                let [same, other, _] = found[..] else { panic!() };
                assert_eq!((same.of, other.of), ([0, 1], [0, 2]));
                assert!(
                    (same.rsa.value - 1.0).abs() < 1e-9 && (same.cka.value - 1.0).abs() < 1e-9,
                    "{same:?}"
                );
                assert!(other.rsa.value.abs() < 0.3 && other.cka.value < 0.6, "{other:?}");
                for alike in [other.rsa, other.cka] {
                    let [low, high] = alike.bounds.unwrap();
                    assert!(low < alike.value && alike.value < high, "{other:?}");
                }
            }
        }
    }

    #[test]
    fn alignment_does_not_depend_on_the_mean_and_bounds_are_of_the_seed() {
        let x = activity(12, 5, 1);
        let y = &x + 7.0;
        let all = [&x, &y].map(|t| Geometry::of(t, Dissimilarity::Euclidean).unwrap());
        let found = compare(&all, Comparison::Pearson, 20, 1, &GO).unwrap();
        assert!((found[0].cka.value - 1.0).abs() < 1e-9 && (found[0].rsa.value - 1.0).abs() < 1e-9);
        assert_eq!(found, compare(&all, Comparison::Pearson, 20, 1, &GO).unwrap());
        let stop = AtomicBool::new(true);
        assert!(matches!(compare(&all, Comparison::Pearson, 20, 1, &stop), Err(AnalysisError::Stopped)));
    }

    #[test]
    fn few_images_have_no_interval_and_the_same_is_the_same_in_every_draw() {
        let of = |n: i64| {
            let x = activity(n, 5, 1);
            let all = [&x, &x].map(|t| Geometry::of(t, Dissimilarity::Euclidean).unwrap());
            compare(&all, Comparison::Spearman, 2000, 1, &GO).unwrap()[0].rsa
        };
        assert_eq!(of(5), Alike { value: 1.0, bounds: None });
        assert_eq!(of(6), Alike { value: 1.0, bounds: Some([1.0; 2]) });
    }

    #[test]
    fn noise_aligns_nothing_with_itself() {
        let clean = activity(30, 30, 1);
        // Drawn once: other tests use torch's generator at the same time.
        let draws: Vec<Tensor> = (2..5).map(|seed| activity(30, 30, seed)).collect();
        let noisy = |std: f64| draws.iter().map(|draw| &clean + draw * std).collect::<Vec<Tensor>>();
        let aligned = |x: &Tensor| Aligned::of(x).unwrap();
        let at = |std: f64| noisy(std).iter().map(aligned).collect::<Vec<Aligned>>();
        let of = [vec![aligned(&clean)], at(0.5), at(8.0)];
        let found = stability(&of);
        assert!((found[0][0] - 1.0).abs() < 1e-12 && found[0][1] > found[0][2], "{found:?}");
        for (i, j) in [(0, 1), (0, 2), (1, 2)] {
            assert!((found[i][j] - found[j][i]).abs() < 1e-12);
        }
        // As the definition says, of centred and normalised inner products.
        let pairs = [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)];
        let by_hand = mean(&pairs.map(|(r, s)| of[1][r].with(&of[2][s])));
        assert!((found[1][2] - by_hand).abs() < 1e-12);
        // Strong noise of one draw is aligned with itself: that is left out.
        assert!(of[2][0].with(&of[2][0]) > 0.999 && found[2][2] < 0.95, "{found:?}");
        let geometries = [&clean, &noisy(0.5)[0]].map(|t| Geometry::of(t, Dissimilarity::Euclidean).unwrap());
        let pair = compare(&geometries, Comparison::Pearson, 0, 1, &GO).unwrap()[0];
        assert!((pair.cka.value - of[0][0].with(&of[1][0])).abs() < 1e-9);
        assert!(Aligned::of(&Tensor::ones([4, 3], (Kind::Double, Device::Cpu))).is_err());
    }

    #[test]
    fn what_has_no_angle_or_no_pair_is_refused() {
        let flat = Tensor::zeros([4, 3], (Kind::Double, Device::Cpu));
        let e = Geometry::of(&flat, Dissimilarity::Cosine).unwrap_err().to_string();
        assert!(e.contains("image 0") && e.contains("cosine"), "{e}");
        assert!(Geometry::of(&activity(2, 3, 1), Dissimilarity::Euclidean).is_err());
        let all =
            [activity(4, 3, 1), activity(5, 3, 1)].map(|t| Geometry::of(&t, Dissimilarity::Cosine).unwrap());
        assert!(compare(&all, Comparison::Pearson, 0, 1, &GO).is_err());
    }
}
