//! The numbers of Gaussian noise: a function of one word and their place, so that any device can draw them.

use crate::base::rng::{GAMMA, mix64};

/// Fills `out` with standard normal values (Box and Muller 1958). Of n values, value i of the first half (rounded up) is
/// the cosine of pair i, and value i of the second half its sine; pair i is output i of SplitMix64 (Steele, Lea and Flood
/// 2014) from `start`: its upper half, plus 1, for the radius and its lower half for the angle.
pub(super) fn normals(start: u64, out: &mut [f32]) {
    let half = out.len().div_ceil(2);
    let (cosines, sines) = out.split_at_mut(half);
    for (i, cosine) in cosines.iter_mut().enumerate() {
        let (radius, angle) = pair(mix64(start.wrapping_add((i as u64).wrapping_mul(GAMMA))));
        *cosine = radius * angle.cos();
        if let Some(sine) = sines.get_mut(i) {
            *sine = radius * angle.sin();
        }
    }
}

/// Radius and angle.
fn pair(word: u64) -> (f32, f32) {
    const UNIT: f32 = 1.0 / 4_294_967_296.0;
    let [high, low] = [(word >> 32) as u32 as f32, word as u32 as f32];
    ((-2.0 * ((high + 1.0) * UNIT).ln()).sqrt(), low * UNIT * std::f32::consts::TAU)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_normal_and_independent() {
        let mut values = vec![0.0; 200_001];
        normals(7, &mut values);
        let n = values.len() as f64;
        let mean_of = |f: &dyn Fn(f64) -> f64| values.iter().map(|&v| f(f64::from(v))).sum::<f64>() / n;
        // Five standard errors of each moment.
        for (power, expected, error) in
            [(1, 0.0, 1.0), (2, 1.0, 2.0f64.sqrt()), (3, 0.0, 15.0f64.sqrt()), (4, 3.0, 96.0f64.sqrt())]
        {
            let found = mean_of(&|v| v.powi(power));
            assert!((found - expected).abs() < 5.0 * error / n.sqrt(), "moment {power}: {found}");
        }
        for at in [0.5, 1.0, 2.0, 3.0] {
            // Abramowitz and Stegun 26.2.17, within 7.5e-8.
            let t: f64 = 1.0 / (1.0 + 0.231_641_9 * at);
            let series = t
                * (0.319_381_530
                    + t * (-0.356_563_782 + t * (1.781_477_937 + t * (-1.821_255_978 + t * 1.330_274_429))));
            let above = series * (-at * at / 2.0).exp() / std::f64::consts::TAU.sqrt();
            let found = mean_of(&|v| f64::from(u8::from(v > at)));
            assert!(
                (found - above).abs() < 5.0 * (above / n).sqrt(),
                "above {at}: {found}, expected {above}"
            );
        }
        let half = values.len().div_ceil(2);
        for other in [1, half] {
            let pairs = values.iter().zip(&values[other..]).map(|(a, b)| f64::from(a * b));
            assert!((pairs.sum::<f64>() / n).abs() < 5.0 / n.sqrt(), "lag {other}");
        }
    }

    /// Output of the authors' program for the seed 1234567.
    #[test]
    fn words_are_those_of_split_mix() {
        let words = [0u64, 1, 2].map(|i| mix64(1_234_567u64.wrapping_add(i.wrapping_mul(GAMMA))));
        assert_eq!(words, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }
}
