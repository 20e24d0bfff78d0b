//! Glass: blur, neighbours in disorder, blur.
//!
//! The published sets copy a neighbour over each pixel where a swap was meant; that is the default, because they are
//! what results are compared with (spec/reconstruction 3.5).

use super::draws::{Draws, scale};
use super::filter::{Border, gaussian};
use super::scratch::truncate;
use super::{Profile, Scratch, Severity};

/// Deviation of the blur, distance of neighbours, passes.
const TINY: [(f64, usize, usize); 5] = [(0.1, 1, 1), (0.5, 1, 1), (0.6, 1, 2), (0.7, 2, 1), (0.9, 2, 2)];
const IMAGENET: [(f64, usize, usize); 5] = [(0.7, 1, 2), (0.9, 2, 1), (1.0, 2, 3), (1.1, 3, 2), (1.5, 4, 2)];

/// As published.
pub(super) fn copy(s: &mut Scratch, profile: Profile, severity: Severity, draws: &mut dyn Draws) {
    apply(s, profile, severity, draws, |from, at, neighbour| from[at] = from[neighbour]);
}

/// As meant.
pub(super) fn swap(s: &mut Scratch, profile: Profile, severity: Severity, draws: &mut dyn Draws) {
    apply(s, profile, severity, draws, <[u32]>::swap);
}

fn apply(
    s: &mut Scratch,
    profile: Profile,
    severity: Severity,
    draws: &mut dyn Draws,
    displace: impl Fn(&mut [u32], usize, usize),
) {
    let (sigma, distance, passes) = profile.pick(severity, &TINY, &IMAGENET);
    let plane = s.extent.size();
    let Scratch { values, padded, bytes, words, .. } = s;
    gaussian(values, plane, sigma, 4.0, Border::Nearest, padded);
    bytes.resize(values.len(), 0);
    truncate(values, bytes);
    let n = plane.height * plane.width;
    let rows = (distance + 1..(plane.height + 1).saturating_sub(distance)).rev();
    let columns = (distance + 1..(plane.width + 1).saturating_sub(distance)).rev();
    // What reaches a pixel is the same in all channels, so pixels are followed once, by number.
    let mut from: Vec<u32> = (0..n as u32).collect();
    words.resize(2 * rows.len() * columns.len(), 0);
    for _ in 0..passes {
        draws.words(words);
        for (y, words) in rows.clone().zip(words.chunks_exact(2 * columns.len().max(1))) {
            for (x, word) in columns.clone().zip(words.as_chunks::<2>().0) {
                let [dx, dy] = word.map(|word| scale(word, 2 * distance as u32));
                let neighbour = (y + dy - distance) * plane.width + x + dx - distance;
                displace(&mut from, y * plane.width + x, neighbour);
            }
        }
    }
    for (values, bytes) in values.chunks_exact_mut(n).zip(bytes.chunks_exact(n)) {
        values.iter_mut().zip(&from).for_each(|(value, &at)| *value = f32::from(bytes[at as usize]));
    }
    gaussian(values, plane, sigma, 4.0, Border::Nearest, padded);
}
