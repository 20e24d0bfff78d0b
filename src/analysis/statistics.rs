//! Correlations, ranks, and how sure a difference is. In double precision, without torch.

use crate::base::{Purpose, RngKey};

/// Mean of values; not a number of none.
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Pearson's correlation; 0 where one side is constant.
pub fn pearson(a: &[f64], b: &[f64]) -> f64 {
    let (ma, mb) = (mean(a), mean(b));
    let mut sums = [0.0; 3];
    for (x, y) in a.iter().zip(b) {
        let (x, y) = (x - ma, y - mb);
        sums = [sums[0] + x * y, sums[1] + x * x, sums[2] + y * y];
    }
    let scale = (sums[1] * sums[2]).sqrt();
    if scale > 0.0 { (sums[0] / scale).clamp(-1.0, 1.0) } else { 0.0 }
}

/// Ranks from 1; equal values share the mean of theirs.
pub fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut first = 0;
    while first < order.len() {
        let tied = order[first..]
            .iter()
            .take_while(|&&i| values[i].total_cmp(&values[order[first]]).is_eq())
            .count();
        let rank = first as f64 + f64::midpoint(tied as f64, 1.0);
        order[first..first + tied].iter().for_each(|&i| ranks[i] = rank);
        first += tied;
    }
    ranks
}

/// Spearman's rank correlation.
pub fn spearman(a: &[f64], b: &[f64]) -> f64 {
    pearson(&ranks(a), &ranks(b))
}

/// Kendall's tau-b, in n log n steps (Knight 1966); 0 where one side is constant.
pub fn kendall(a: &[f64], b: &[f64]) -> f64 {
    // Zeros of both signs are equal.
    let mut order: Vec<(f64, f64)> = a.iter().zip(b).map(|(x, y)| (x + 0.0, y + 0.0)).collect();
    order.sort_by(|x, y| x.0.total_cmp(&y.0).then(x.1.total_cmp(&y.1)));
    let same = |x: f64, y: f64| x.partial_cmp(&y) == Some(std::cmp::Ordering::Equal);
    let tied_a = ties(&order, |x, y| same(x.0, y.0));
    let tied_both = ties(&order, |x, y| same(x.0, y.0) && same(x.1, y.1));
    let mut values: Vec<f64> = order.iter().map(|pair| pair.1).collect();
    // Pairs that are in the other order on the other side.
    let against = inversions(&mut values, &mut Vec::with_capacity(b.len()));
    let tied_b = ties(&values, |x, y| same(*x, *y));
    let pairs = a.len() as f64 * (a.len() as f64 - 1.0) / 2.0;
    let agree = pairs - tied_a - tied_b + tied_both - 2.0 * against;
    let scale = ((pairs - tied_a) * (pairs - tied_b)).sqrt();
    if scale > 0.0 { agree / scale } else { 0.0 }
}

/// Pairs of equal ones of what is sorted.
fn ties<T>(sorted: &[T], same: impl Fn(&T, &T) -> bool) -> f64 {
    sorted.chunk_by(same).map(|run| run.len() as f64 * (run.len() as f64 - 1.0) / 2.0).sum()
}

/// Sorts, and counts the pairs that were in the wrong order.
fn inversions(values: &mut [f64], spare: &mut Vec<f64>) -> f64 {
    let middle = values.len() / 2;
    if middle == 0 {
        return 0.0;
    }
    let (left, right) = values.split_at_mut(middle);
    let mut found = inversions(left, spare) + inversions(right, spare);
    spare.clear();
    let (mut i, mut j) = (0, 0);
    while i < left.len() && j < right.len() {
        if right[j] < left[i] {
            found += (left.len() - i) as f64;
            spare.push(right[j]);
            j += 1;
        } else {
            spare.push(left[i]);
            i += 1;
        }
    }
    spare.extend_from_slice(&left[i..]);
    spare.extend_from_slice(&right[j..]);
    values.copy_from_slice(spare);
    found
}

/// Correlation of `a` and `b` that `given` do not explain: of the residuals of both on them and a constant.
pub fn partial(a: &[f64], b: &[f64], given: &[&[f64]]) -> f64 {
    pearson(&residual(a, given), &residual(b, given))
}

/// `values` without their least-squares fit by `given` and a constant (Gram-Schmidt).
fn residual(values: &[f64], given: &[&[f64]]) -> Vec<f64> {
    let centred = |v: &[f64]| -> Vec<f64> {
        let m = mean(v);
        v.iter().map(|x| x - m).collect()
    };
    let mut basis: Vec<Vec<f64>> = Vec::new();
    let without = |mut v: Vec<f64>, basis: &[Vec<f64>]| {
        for b in basis {
            let norm: f64 = b.iter().map(|x| x * x).sum();
            let along: f64 = v.iter().zip(b).map(|(x, y)| x * y).sum();
            if norm > 0.0 {
                v.iter_mut().zip(b).for_each(|(x, y)| *x -= along / norm * y);
            }
        }
        v
    };
    for g in given {
        let next = without(centred(g), &basis);
        basis.push(next);
    }
    without(centred(values), &basis)
}

/// A mean with its spread.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// The mean.
    pub mean: f64,
    /// 2.5 and 97.5 percent of the means of resampled values.
    pub bounds: [f64; 2],
}

/// Resamplings of [`interval`].
pub const RESAMPLINGS: u32 = 2000;

/// The mean of values with a 95 % interval by the percentile bootstrap over them.
pub fn interval(values: &[f64], seed: u64) -> Interval {
    let n = values.len() as u32;
    let key = RngKey::new(seed, Purpose::Bootstrap, n);
    let mut means: Vec<f64> = (0..RESAMPLINGS)
        .map(|i| {
            let mut rng = key.stream(i, 0);
            (0..n).map(|_| values[rng.below(n) as usize]).sum::<f64>() / f64::from(n)
        })
        .collect();
    Interval { mean: mean(values), bounds: middle_95(&mut means) }
}

/// 2.5 and 97.5 percent of values, which are sorted.
pub fn middle_95(values: &mut [f64]) -> [f64; 2] {
    values.sort_by(f64::total_cmp);
    [quantile(values, 0.025), quantile(values, 0.975)]
}

/// Quantile of sorted values, with lines between them (numpy's default); not a number of none.
pub fn quantile(sorted: &[f64], share: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let at = share * last as f64;
    let low = at.floor() as usize;
    let high = (low + 1).min(last);
    sorted[low] + (at - low as f64) * (sorted[high] - sorted[low])
}

/// Probability, if signs were random, of sums of ranks as unequal as those of the differences: Wilcoxon's signed-rank
/// test, two-sided. Zeros are left out. Exact up to 50 differences without ties, else by the normal distribution with
/// corrections for ties and continuity, as in R.
pub fn wilcoxon(differences: &[f64]) -> f64 {
    let found: Vec<f64> = differences.iter().copied().filter(|d| *d != 0.0).collect();
    let n = found.len();
    if n == 0 {
        return 1.0;
    }
    let sizes: Vec<f64> = found.iter().map(|d| d.abs()).collect();
    let ranks = ranks(&sizes);
    let positive: f64 = found.iter().zip(&ranks).filter(|(d, _)| **d > 0.0).map(|(_, rank)| rank).sum();
    let tied = ranks.iter().any(|rank| rank.fract() != 0.0) || {
        let mut sorted = ranks.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.windows(2).any(|pair| pair[0] == pair[1])
    };
    let total = (n * (n + 1) / 2) as f64;
    if n <= 50 && !tied {
        return exact(n, positive.min(total - positive) as usize);
    }
    let mut variance = (n * (n + 1) * (2 * n + 1)) as f64 / 24.0;
    let mut sorted = ranks;
    sorted.sort_by(f64::total_cmp);
    for group in sorted.chunk_by(|a, b| a == b) {
        let t = group.len() as f64;
        variance -= (t.powi(3) - t) / 48.0;
    }
    let z = ((positive - total / 2.0).abs() - 0.5).max(0.0) / variance.sqrt();
    2.0 * upper_tail(z)
}

/// Twice the share of the sign choices of ranks 1 to n whose positive ones sum to `sum` or less.
fn exact(n: usize, sum: usize) -> f64 {
    let mut ways = vec![0.0; n * (n + 1) / 2 + 1];
    ways[0] = 1.0;
    for rank in 1..=n {
        for total in (rank..ways.len()).rev() {
            ways[total] += ways[total - rank];
        }
    }
    (2.0 * ways[..=sum].iter().sum::<f64>() / 2f64.powi(n as i32)).min(1.0)
}

/// Probability that a standard normal number is above `z`, z of 0 and more: Abramowitz and Stegun 26.2.17, to 1e-7.
fn upper_tail(z: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.231_641_9 * z);
    let powers = [0.319_381_530, -0.356_563_782, 1.781_477_937, -1.821_255_978, 1.330_274_429];
    let sum = powers.iter().rev().fold(0.0, |sum, c| (sum + c) * t);
    (-0.5 * z * z).exp() / std::f64::consts::TAU.sqrt() * sum
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: [f64; 6] = [1.0, 3.0, 2.0, 5.0, 4.0, 4.0];
    const B: [f64; 6] = [2.0, 3.0, 1.0, 7.0, 9.0, 5.0];

    #[test]
    fn correlations_are_those_of_scipy() {
        assert!((pearson(&A, &B) - 0.815_537_377_791).abs() < 1e-9, "{}", pearson(&A, &B));
        assert_eq!(ranks(&A), [1.0, 3.0, 2.0, 6.0, 4.5, 4.5]);
        assert!((spearman(&A, &B) - 0.840_668_001_696).abs() < 1e-9, "{}", spearman(&A, &B));
        assert!((kendall(&A, &B) - 0.690_065_559_342).abs() < 1e-9, "{}", kendall(&A, &B));
        assert_eq!(pearson(&A, &[1.0; 6]), 0.0);
        assert_eq!(ranks(&[f64::NAN, 1.0, f64::NAN]), [2.5, 1.0, 2.5], "what is no number comes last");
    }

    /// Pair by pair, as it is defined.
    fn kendall_by_pairs(a: &[f64], b: &[f64]) -> f64 {
        let [mut agree, mut of_a, mut of_b] = [0.0; 3];
        for i in 0..a.len() {
            for j in 0..i {
                let sign = |d: f64| if d == 0.0 { 0.0 } else { d.signum() };
                let (x, y) = (sign(a[i] - a[j]), sign(b[i] - b[j]));
                (agree, of_a, of_b) = (agree + x * y, of_a + x * x, of_b + y * y);
            }
        }
        if of_a * of_b > 0.0 { agree / (of_a * of_b).sqrt() } else { 0.0 }
    }

    #[test]
    fn concordance_is_counted_as_pair_by_pair() {
        let mut rng = RngKey::new(3, Purpose::Bootstrap, 0).stream(0, 0);
        for n in [0, 1, 2, 3, 17, 64, 101] {
            // Many ties, on either side and on both, and zeros of both signs.
            let mut draw = |of: u32| -> Vec<f64> {
                (0..n)
                    .map(|_| f64::from(rng.below(of)) - f64::from(rng.below(of)))
                    .map(|v| v * -0.5)
                    .collect()
            };
            for of in [1, 2, 5, 1000] {
                let (a, b) = (draw(of), draw(of));
                let (found, expected) = (kendall(&a, &b), kendall_by_pairs(&a, &b));
                assert!((found - expected).abs() < 1e-12, "{n} of {of}: {found}, not {expected}");
            }
        }
    }

    #[test]
    fn a_partial_correlation_leaves_out_what_is_given() {
        let c = [0.5, -1.0, 2.0, 0.0, 1.0, -2.0];
        let (ab, ac, bc) = (pearson(&A, &B), pearson(&A, &c), pearson(&B, &c));
        let expected = (ab - ac * bc) / ((1.0 - ac * ac) * (1.0 - bc * bc)).sqrt();
        assert!((partial(&A, &B, &[&c]) - expected).abs() < 1e-12);
        assert!(partial(&A, &B, &[&c, &B]).abs() < 1e-9);
    }

    #[test]
    fn signed_ranks_give_the_probabilities_of_r() {
        // Of the depression scale factors in its help page of wilcox.test: V = 40, p = 0.03906.
        let d = [0.952, -0.147, 1.022, 0.43, 0.62, 0.59, 0.49, -0.08, 0.01];
        assert!((wilcoxon(&d) - 0.039_062_5).abs() < 1e-9);
        assert_eq!(wilcoxon(&[0.0; 4]), 1.0);
        // Ties: the normal distribution.
        let tied = wilcoxon(&[1.0, 1.0, 2.0, 3.0, -1.0, 4.0]);
        assert!((0.05..0.2).contains(&tied), "{tied}");
    }

    #[test]
    fn an_interval_holds_its_mean_and_narrows_with_more_values() {
        let few: Vec<f64> = (0..10).map(|i| f64::from(i % 5)).collect();
        let many: Vec<f64> = (0..1000).map(|i| f64::from(i % 5)).collect();
        let width = |i: Interval| i.bounds[1] - i.bounds[0];
        let (few, many) = (interval(&few, 1), interval(&many, 1));
        assert_eq!((few.mean, many.mean), (2.0, 2.0));
        assert!(few.bounds[0] < 2.0 && few.bounds[1] > 2.0 && width(many) < width(few) / 5.0);
        assert_eq!(quantile(&[1.0, 2.0, 4.0], 0.75), 3.0);
    }
}
