//! Random numbers in bulk, in f32.

use crate::base::Rng;
use multiversion::multiversion;

/// Words that are drawn at once.
const CHUNK: usize = 256;

/// A source of random numbers. Tests put in the one that golden values were made with.
pub(super) trait Draws {
    /// Uniform 32-bit words.
    fn words(&mut self, out: &mut [u32]);

    /// Standard normal values.
    fn normals(&mut self, out: &mut [f32]);

    /// Uniform over [`low`, `high`).
    fn uniforms(&mut self, low: f32, high: f32, out: &mut [f32]) {
        let mut words = [0; CHUNK];
        for out in out.chunks_mut(CHUNK) {
            let words = &mut words[..out.len()];
            self.words(words);
            between(low, high, words, out);
        }
    }

    /// One value, uniform over [`low`, `high`).
    fn uniform(&mut self, low: f64, high: f64) -> f64 {
        let mut word = [0];
        self.words(&mut word);
        low + (high - low) * f64::from(word[0]) / (1u64 << 32) as f64
    }

    /// A whole number below `n`; the bias is below n / 2³².
    fn below(&mut self, n: u32) -> usize {
        let mut word = [0];
        self.words(&mut word);
        scale(word[0], n)
    }
}

/// Words as values of [`low`, `high`).
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl", "x86_64+avx2", "x86_64+sse4.1"))]
fn between(low: f32, high: f32, words: &[u32], out: &mut [f32]) {
    let unit = |word: u32| (word >> 8) as i32 as f32 / (1 << 24) as f32;
    out.iter_mut().zip(words).for_each(|(out, &word)| *out = low + (high - low) * unit(word));
}

/// A word as a whole number below `n`.
pub(super) fn scale(word: u32, n: u32) -> usize {
    ((u64::from(word) * u64::from(n)) >> 32) as usize
}

/// Fewer words than this are drawn one by one: a generator of many would cost more than it saves.
const FEW: usize = 64;

impl Draws for Rng {
    fn words(&mut self, out: &mut [u32]) {
        if out.len() < FEW {
            out.fill_with(|| self.next_u32());
        } else {
            self.bulk().fill(out);
        }
    }

    fn uniforms(&mut self, low: f32, high: f32, out: &mut [f32]) {
        let mut words = [0; CHUNK];
        if out.len() < FEW {
            let words = &mut words[..out.len()];
            self.words(words);
            return between(low, high, words, out);
        }
        let mut bulk = self.bulk();
        for out in out.chunks_mut(CHUNK) {
            let words = &mut words[..out.len()];
            bulk.fill(words);
            between(low, high, words, out);
        }
    }

    /// Box-Muller, both values of each pair.
    fn normals(&mut self, out: &mut [f32]) {
        let mut bulk = self.bulk();
        let mut words = [0; CHUNK];
        let mut last = [0.0; CHUNK];
        let (whole, rest) = out.as_chunks_mut::<CHUNK>();
        for out in whole {
            bulk.fill(&mut words);
            box_muller(&words, out);
        }
        if !rest.is_empty() {
            bulk.fill(&mut words);
            box_muller(&words, &mut last);
            rest.copy_from_slice(&last[..rest.len()]);
        }
    }
}

/// Normal values from words: the first half gives radii, the second angles. Logarithm, sine and cosine are the
/// polynomials of the Cephes library (S. Moshier), which are good to the last digits of f32 and, unlike those of
/// a system's library, the same everywhere.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl", "x86_64+avx2", "x86_64+sse4.1"))]
fn box_muller(words: &[u32; CHUNK], out: &mut [f32; CHUNK]) {
    const HALF: usize = CHUNK / 2;
    for i in 0..HALF {
        // Above 0 and up to 1.
        let unit = ((words[i] >> 1) as i32 as f32 + 0.5) * (1.0 / (1u32 << 31) as f32);
        let radius = (-2.0 * ln(unit)).sqrt();
        // A quarter turn is chosen by two bits; within it the angle goes from -π/4 to π/4.
        let word = words[HALF + i];
        let angle = ((word << 2) as i32 as f32) * (std::f32::consts::FRAC_PI_4 / (1u32 << 31) as f32);
        let square = angle * angle;
        let sine =
            angle + angle * square * (-1.666_665_5e-1 + square * (8.332_161e-3 + square * -1.951_529_6e-4));
        let cosine = 1.0 - 0.5 * square
            + square * square * (4.166_664_6e-2 + square * (-1.388_731_6e-3 + square * 2.443_315_7e-5));
        let sign = 1.0 - 2.0 * ((word >> 31) as i32 as f32);
        let swap = word >> 30 & 1 == 1;
        let (x, y) = if swap { (sine, -cosine) } else { (cosine, sine) };
        out[i] = sign * radius * x;
        out[HALF + i] = sign * radius * y;
    }
}

/// Natural logarithm of a normal positive number.
#[inline(always)]
#[expect(
    clippy::inline_always,
    reason = "it is compiled for the vectors of its caller only if it is part of it"
)]
fn ln(x: f32) -> f32 {
    // x = mantissa · 2^exponent with the mantissa from √½ to √2.
    let bits = x.to_bits().wrapping_sub(0x3F35_04F3);
    let exponent = (bits as i32 >> 23) as f32;
    let m = f32::from_bits((bits & 0x007F_FFFF).wrapping_add(0x3F35_04F3)) - 1.0;
    let mut p = 7.037_683_6e-2;
    for c in [
        -1.151_461e-1,
        1.167_699_9e-1,
        -1.242_014_1e-1,
        1.424_932_3e-1,
        -1.666_805_8e-1,
        2.000_071_5e-1,
        -2.499_999_4e-1,
        3.333_333e-1,
    ] {
        p = p * m + c;
    }
    let square = m * m;
    m * square * p - 0.5 * square + m + exponent * std::f32::consts::LN_2
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Purpose, RngKey};

    #[test]
    fn the_logarithm_is_good_to_single_precision() {
        for i in 1..10_000 {
            let x = (i as f32 / 10_000.0).powi(5);
            let error = (f64::from(ln(x)) - f64::from(x).ln()).abs();
            assert!(error < 4e-7 * f64::from(x).ln().abs().max(0.3), "{x}: {error}");
        }
        assert_eq!(ln(1.0), 0.0);
    }

    #[test]
    fn normal_values_have_the_moments_and_tails_of_the_normal_distribution() {
        let mut rng = RngKey::new(1, Purpose::Corruption, 0).stream(0, 0);
        let mut draws = vec![0f32; 1_000_003];
        rng.normals(&mut draws);
        let n = draws.len() as f64;
        let moment = |k: i32| draws.iter().map(|&x| f64::from(x).powi(k)).sum::<f64>() / n;
        // Five standard errors each.
        assert!(moment(1).abs() < 0.005, "{}", moment(1));
        assert!((moment(2) - 1.0).abs() < 0.008, "{}", moment(2));
        assert!(moment(3).abs() < 0.02, "{}", moment(3));
        assert!((moment(4) - 3.0).abs() < 0.05, "{}", moment(4));
        let beyond = |x: f32| draws.iter().filter(|&&d| d > x).count() as f64 / n;
        for (x, share) in [(0.0, 0.5), (1.0, 0.158_655), (2.0, 0.022_750), (3.0, 0.001_350)] {
            assert!((beyond(x) - share).abs() < 5.0 * (share / n).sqrt(), "{x}: {}", beyond(x));
        }
        // Neighbours, and the two values of a pair, are independent.
        for lag in [1, CHUNK / 2] {
            let sum: f64 = draws.iter().zip(&draws[lag..]).map(|(a, b)| f64::from(a * b)).sum();
            assert!((sum / n).abs() < 0.005, "lag {lag}: {}", sum / n);
        }
    }
}
