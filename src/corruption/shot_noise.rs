//! Shot noise: Poisson(c x) / c for c photons at full brightness.
//!
//! There are 256 brightnesses and, because more than c photons are shown as c, few results: each brightness has a
//! table of its own, and a value costs one word.

use super::draws::Draws;
use super::law::Law;
use super::{Profile, Scratch, Severity};
use std::sync::OnceLock;

const TINY: [u32; 5] = [250, 100, 50, 30, 15];
const IMAGENET: [u32; 5] = [60, 25, 12, 5, 3];

pub(super) fn apply(
    image: &mut [u8],
    s: &mut Scratch,
    profile: Profile,
    severity: Severity,
    draws: &mut dyn Draws,
) {
    static TABLES: [[OnceLock<Photons>; 5]; 2] = [const { [const { OnceLock::new() }; 5] }; 2];
    let photons = profile.pick(severity, &TINY, &IMAGENET);
    let table = &TABLES[profile as usize][severity.index()];
    let table = table.get_or_init(|| Photons::new(photons as usize));
    s.words.resize(image.len(), 0);
    draws.words(&mut s.words);
    table.count(image, &s.words);
}

/// Distributions of the number of photons, at most 255, for each brightness.
#[derive(Debug)]
enum Photons {
    /// Up to 15, 63 or 255 photons: smaller tables stay nearer to the processor.
    Few(Table<16>),
    Some(Table<64>),
    Many(Table<256>),
}

/// What is shown for each number of photons, and its distribution for each brightness.
#[derive(Debug)]
struct Table<const SLOTS: usize> {
    shown: [u8; SLOTS],
    laws: Box<[Law<SLOTS>]>,
}

impl Photons {
    fn new(most: usize) -> Self {
        match most {
            0..16 => Self::Few(Table::new(most)),
            16..64 => Self::Some(Table::new(most)),
            _ => Self::Many(Table::new(most)),
        }
    }

    fn count(&self, image: &mut [u8], words: &[u32]) {
        match self {
            Self::Few(table) => table.count(image, words),
            Self::Some(table) => table.count(image, words),
            Self::Many(table) => table.count(image, words),
        }
    }
}

impl<const SLOTS: usize> Table<SLOTS> {
    fn new(most: usize) -> Self {
        let shown = std::array::from_fn(|count| (255 * count.min(most) / most) as u8);
        Self { shown, laws: (0..=255).map(|brightness| Law::new(&shares(most, brightness))).collect() }
    }

    fn count(&self, image: &mut [u8], words: &[u32]) {
        for (value, &word) in image.iter_mut().zip(words) {
            *value = self.shown[self.laws[usize::from(*value)].outcome(word)];
        }
    }
}

/// Probability of each number of photons; that of `most` is for all above, too.
fn shares(most: usize, brightness: u8) -> Vec<f64> {
    let mean = most as f64 * f64::from(brightness) / 255.0;
    let mut shares = vec![(-mean).exp()];
    while shares.len() < most {
        let count = shares.len();
        shares.push(shares[count - 1] * mean / count as f64);
    }
    shares.push((1.0 - shares.iter().sum::<f64>()).max(0.0));
    shares
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cmp::Ordering;

    #[test]
    fn numbers_of_photons_have_the_probabilities_of_their_distribution() {
        for most in [3, 15, 60, 250] {
            for brightness in [0u8, 1, 77, 128, 254, 255] {
                let mean = most as f64 * f64::from(brightness) / 255.0;
                let found = Law::<256>::new(&shares(most, brightness)).probabilities();
                let (mut factorial, mut left) = (0.0, 1.0);
                for (count, &found) in found.iter().enumerate() {
                    factorial += (count.max(1) as f64).ln();
                    let power = if count == 0 { 0.0 } else { count as f64 * mean.ln() };
                    let share = (power - mean - factorial).exp();
                    let expected = match count.cmp(&most) {
                        Ordering::Less => share,
                        Ordering::Equal => left,
                        Ordering::Greater => 0.0,
                    };
                    left -= share;
                    // Half of 2^-16 of each slot that may have it.
                    assert!(
                        (found - expected).abs() < 8e-6,
                        "{most} {brightness} {count}: {found}, not {expected}"
                    );
                }
            }
        }
    }

    #[test]
    fn black_stays_black_and_no_more_than_all_photons_are_shown() {
        for most in [3, 60, 250] {
            let table = Photons::new(most);
            let words: Vec<u32> = (0..1000u32).map(|i| i.wrapping_mul(0x9E37_79B9)).collect();
            for brightness in [0, 255] {
                let mut image = vec![brightness; words.len()];
                table.count(&mut image, &words);
                let steps =
                    image.iter().all(|&v| (0..=most).any(|count| usize::from(v) == 255 * count / most));
                assert!(steps, "{most} {brightness}");
                assert_eq!(image.iter().all(|&v| v == 0), brightness == 0, "{most} {brightness}");
            }
        }
    }
}
