//! Least squares with tests of its coefficients (spec/reconstruction 4.2).

use std::f64::consts::PI;

/// A coefficient of [`least_squares`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Coefficient {
    /// Its value.
    pub value: f64,
    /// Its standard error.
    pub std_error: f64,
    /// Value over standard error; not a number where both are 0.
    pub t: f64,
    /// Probability of a t as far from 0 or farther if the coefficient were 0, two-sided.
    pub p: f64,
}

/// A column is as good as a sum of others where they leave less than this share of it.
const DEPENDENT: f64 = 1e-10;

/// Ordinary least squares of `y` on the columns of `design`: b = (X'X)⁻¹ X'y, with standard errors s √((X'X)⁻¹)ⱼⱼ, where
/// s² is the squared residual over n - p, and Student's t of n - p degrees. None where there are no more values than
/// columns, or where columns depend on each other.
pub fn least_squares(design: &[Vec<f64>], y: &[f64]) -> Option<Vec<Coefficient>> {
    let free = y.len().checked_sub(design.len()).filter(|free| *free > 0)?;
    let (units, triangle) = factors(design)?;
    let mut residual = y.to_vec();
    let along: Vec<f64> = units.iter().map(|unit| take_out(&mut residual, unit)).collect();
    let inverse = inverted(&triangle);
    let variance = dot(&residual, &residual) / free as f64;
    let coefficient = |row: &Vec<f64>| {
        let (value, std_error) = (dot(row, &along), (variance * dot(row, row)).sqrt());
        let t = value / std_error;
        Coefficient { value, std_error, t, p: two_sided(t, free as u32) }
    };
    Some(inverse.iter().map(coefficient).collect())
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Takes the part along `unit` out of `values`, and gives its length.
fn take_out(values: &mut [f64], unit: &[f64]) -> f64 {
    let along = dot(values, unit);
    values.iter_mut().zip(unit).for_each(|(v, u)| *v -= along * u);
    along
}

type Matrix = Vec<Vec<f64>>;

/// Columns of Q and rows of the upper triangle R (Gram-Schmidt, each column twice).
fn factors(design: &[Vec<f64>]) -> Option<(Matrix, Matrix)> {
    let p = design.len();
    let (mut q, mut r) = (Matrix::new(), vec![vec![0.0; p]; p]);
    for (j, column) in design.iter().enumerate() {
        let mut left = column.clone();
        for _ in 0..2 {
            for (i, unit) in q.iter().enumerate() {
                r[i][j] += take_out(&mut left, unit);
            }
        }
        let length = dot(&left, &left).sqrt();
        // Not a number is no column either.
        if length.is_nan() || length <= DEPENDENT * dot(column, column).sqrt() {
            return None;
        }
        r[j][j] = length;
        q.push(left.into_iter().map(|v| v / length).collect());
    }
    Some((q, r))
}

/// The inverse of an upper triangle.
fn inverted(r: &[Vec<f64>]) -> Matrix {
    let p = r.len();
    let mut inverse = vec![vec![0.0; p]; p];
    for j in 0..p {
        inverse[j][j] = 1.0 / r[j][j];
        for i in (0..j).rev() {
            let sum: f64 = (i + 1..=j).map(|k| r[i][k] * inverse[k][j]).sum();
            inverse[i][j] = -sum / r[i][i];
        }
    }
    inverse
}

/// Probability that Student's t of `free` degrees is as far from 0 as `t` or farther, to 1e-14: Abramowitz and Stegun
/// 26.7.3 and 26.7.4, finite sums for whole degrees.
fn two_sided(t: f64, free: u32) -> f64 {
    let angle = (t.abs() / f64::from(free).sqrt()).atan();
    let (sin, cos) = angle.sin_cos();
    let odd = free % 2 == 1;
    let (mut term, mut sum) = (if odd { cos } else { 1.0 }, 0.0);
    // The powers of the cosine up to free - 2.
    for power in (u32::from(odd)..free.saturating_sub(1)).step_by(2) {
        sum += term;
        term *= cos * cos * f64::from(power + 1) / f64::from(power + 2);
    }
    let within = if odd { (angle + sin * sum) * 2.0 / PI } else { sin * sum };
    (1.0 - within).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEURAL: [f64; 9] = [0.31, 0.35, 0.42, 0.44, 0.52, 0.55, 0.61, 0.60, 0.38];
    const CLEAN: [f64; 9] = [61.2, 60.1, 60.5, 58.9, 57.0, 57.7, 54.1, 55.5, 60.9];
    const SCORE: [f64; 9] = [101.3, 103.9, 106.2, 107.7, 110.9, 112.4, 110.2, 112.8, 104.0];

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() <= 1e-9 * b.abs().max(1e-3)
    }

    /// Values, standard errors and probabilities are those of statsmodels 0.14.
    #[test]
    fn fits_are_those_of_statsmodels() {
        let (neural, clean) = (NEURAL.to_vec(), CLEAN.to_vec());
        let product: Vec<f64> = NEURAL.iter().zip(CLEAN).map(|(n, c)| n * c).collect();
        let one = vec![1.0; 9];
        let line = least_squares(&[one.clone(), neural.clone()], &SCORE).unwrap();
        let expected = [
            (91.187_442_502_299_94, 2.136_198_464_785_289, 1.010_509_419_274_174_4e-9),
            (35.577_276_908_923_62, 4.489_115_335_002_157_5, 9.677_670_415_778_889e-5),
        ];
        let both = least_squares(&[one.clone(), clean.clone(), neural.clone()], &SCORE).unwrap();
        let of_both = [
            (31.578_972_470_016_865, 37.622_322_084_509_655, 0.433_426_505_918_252_7),
            (0.869_825_451_706_698_2, 0.548_268_864_360_957_3, 0.163_723_140_719_424_04),
            (54.485_177_683_548_73, 12.593_747_690_630_533, 0.004_948_234_657_806_832),
        ];
        let joint = least_squares(&[one, clean, neural, product], &SCORE).unwrap();
        let of_joint = [
            (259.362_319_513_954_3, 71.223_171_769_370_45, 0.014_879_394_725_694),
            (-2.861_091_493_015_301_5, 1.154_099_306_887_859, 0.055_904_877_153_468_45),
            (-312.173_634_147_038_74, 108.901_177_868_703_37, 0.035_134_987_135_393_55),
            (5.966_000_269_607_612, 1.767_616_832_158_434_2, 0.019_778_037_571_793_743),
        ];
        for (found, expected) in [(line, &expected[..]), (both, &of_both), (joint, &of_joint)] {
            assert_eq!(found.len(), expected.len());
            for (Coefficient { value, std_error, t, p }, of) in found.into_iter().zip(expected) {
                assert!(
                    close(value, of.0) && close(std_error, of.1) && close(t, of.0 / of.1),
                    "{value} {of:?}"
                );
                assert!((p - of.2).abs() < 1e-11, "{p} {of:?}");
            }
        }
    }

    /// `2 * scipy.stats.t.sf(abs(t), free)`.
    #[test]
    fn probabilities_are_those_of_scipy() {
        for (t, free, expected) in [
            (0.0, 1, 1.0),
            (1.0, 1, 0.5),
            (-2.5, 2, 0.129_611_720_221_510_82),
            (2.0, 3, 0.139_325_968_558_843_05),
            (0.7, 4, 0.522_500_165_593_450_2),
            (3.1, 7, 0.017_322_289_425_497_513),
            (-1.2, 10, 0.257_796_300_724_305_65),
            (4.4, 43, 7.021_275_698_100_67e-5),
            (2.0, 1000, 0.045_770_346_493_251_66),
            (f64::INFINITY, 4, 0.0),
        ] {
            assert!((two_sided(t, free) - expected).abs() < 1e-14, "{t} {free}: {}", two_sided(t, free));
        }
        assert!(two_sided(f64::NAN, 3).is_nan());
    }

    #[test]
    fn what_is_not_determined_is_not_fitted() {
        let x = NEURAL.to_vec();
        let twice: Vec<f64> = x.iter().map(|v| 2.0 * v + 1.0).collect();
        let one = vec![1.0; 9];
        assert_eq!(least_squares(&[one.clone(), x.clone(), twice], &SCORE), None);
        assert_eq!(least_squares(&[one.clone(), vec![0.5; 9]], &SCORE), None);
        assert_eq!(least_squares(&[vec![1.0; 2], vec![1.0, 2.0]], &[3.0, 4.0]), None);
        assert_eq!(least_squares(&[vec![1.0; 3], vec![1.0, 2.0, f64::NAN]], &[3.0, 4.0, 5.0]), None);
        // A line through all values has no errors.
        let exact: Vec<f64> = x.iter().map(|v| 2.0 - 4.0 * v).collect();
        let fit = least_squares(&[one, x], &exact).unwrap();
        assert!(close(fit[0].value, 2.0) && close(fit[1].value, -4.0) && fit[1].p < 1e-12, "{fit:?}");
    }
}
