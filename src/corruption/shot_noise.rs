//! Shot noise: Poisson(c x) / c for c photons at full brightness.
//!
//! There are 256 brightnesses and, because more than c photons are shown as c, few results: the distribution
//! of each is a table, and a value costs one word and a short walk.

use super::draws::Draws;
use super::{Profile, Scratch, Severity};
use std::sync::OnceLock;

const TINY: [u32; 5] = [250, 100, 50, 30, 15];
const IMAGENET: [u32; 5] = [60, 25, 12, 5, 3];

pub(super) fn apply(s: &mut Scratch, profile: Profile, severity: Severity, draws: &mut dyn Draws) {
    static TABLES: [[OnceLock<Photons>; 5]; 2] = [const { [const { OnceLock::new() }; 5] }; 2];
    let photons = profile.pick(severity, &TINY, &IMAGENET);
    let table = &TABLES[profile as usize][severity.index()];
    let table = table.get_or_init(|| Photons::new(photons as usize));
    let Scratch { values, words, .. } = s;
    words.resize(values.len(), 0);
    draws.words(words);
    let level = 255.0 / photons as f32;
    for (value, &mut word) in values.iter_mut().zip(words) {
        *value = level * table.count(*value as u8, word) as f32;
    }
}

/// Distributions of the number of photons, at most `most`, for each brightness.
#[derive(Debug)]
struct Photons {
    most: usize,
    /// `[brightness][count]`: the share of words below which there are at most so many.
    bounds: Vec<u32>,
    /// `[brightness][first byte of the word]`: the count of the least such word.
    first: Vec<u8>,
}

impl Photons {
    fn new(most: usize) -> Self {
        let mut bounds = Vec::with_capacity(256 * most);
        let mut first = Vec::with_capacity(256 * 256);
        for brightness in 0..256 {
            let mean = most as f64 * f64::from(brightness) / 255.0;
            let (mut share, mut sum) = ((-mean).exp(), 0.0);
            for count in 0..most {
                sum += share;
                // A bound of u32::MAX leaves 2^-32 too much to the counts above it.
                bounds.push((sum * (1u64 << 32) as f64) as u32);
                share *= mean / (count + 1) as f64;
            }
            let bounds = &bounds[bounds.len() - most..];
            first.extend((0..256u32).map(|byte| bounds.partition_point(|&b| b <= byte << 24) as u8));
        }
        Self { most, bounds, first }
    }

    fn count(&self, brightness: u8, word: u32) -> usize {
        let row = usize::from(brightness);
        let bounds = &self.bounds[row * self.most..][..self.most];
        let mut count = usize::from(self.first[row << 8 | (word >> 24) as usize]);
        while count < self.most && word >= bounds[count] {
            count += 1;
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_gives_the_count_that_the_distribution_says() {
        for most in [3, 60, 250] {
            let table = Photons::new(most);
            for brightness in [0u8, 1, 77, 254, 255] {
                let mean = most as f64 * f64::from(brightness) / 255.0;
                for step in 0..1000u32 {
                    let word = step * 4_294_967 + 13;
                    let at = f64::from(word) / (1u64 << 32) as f64;
                    let (mut share, mut sum, mut count) = ((-mean).exp(), 0.0, 0);
                    while count < most && sum + share <= at {
                        sum += share;
                        count += 1;
                        share *= mean / count as f64;
                    }
                    assert_eq!(table.count(brightness, word), count, "{most} {brightness} {word}");
                }
            }
        }
    }
}
