//! Pillow's bilinear `resize` of bytes, bit for bit: a triangle as wide as an output pixel is in source
//! pixels (so that shrinking averages), in fixed point, across first and then down, each rounded to bytes. (Where one
//! side shrinks and the other grows, late versions of Pillow go down first, which can change a pixel's last bits.)

use multiversion::multiversion;
use std::ops::Range;

/// Bits after the point of a weight: two less than what is left of 32 beside a byte.
const PRECISION: u32 = 22;

/// Where the pixels of one axis come from.
#[derive(Debug, Clone, Default)]
pub struct Axis {
    /// First source pixel of each output pixel.
    firsts: Vec<usize>,
    /// `[output pixels, taps]`
    weights: Vec<i32>,
    taps: usize,
    /// Of one output pixel.
    shares: Vec<f64>,
}

impl Axis {
    /// For `from` pixels that become `to`, of which those in `window` are made. All must be positive, and the
    /// window within `0..to`.
    pub fn bilinear(from: usize, to: usize, window: Range<usize>) -> Self {
        let mut axis = Self::default();
        axis.set_bilinear(from, to, window);
        axis
    }

    /// As [`Self::bilinear`], in the memory this has.
    pub fn set_bilinear(&mut self, from: usize, to: usize, window: Range<usize>) {
        let scale = from as f64 / to as f64;
        let support = scale.max(1.0);
        let centre = |at: usize| (at as f64 + 0.5) * scale;
        let span = |at: usize| {
            let start = (centre(at) - support + 0.5).max(0.0) as usize;
            start..((centre(at) + support + 0.5) as usize).min(from)
        };
        let narrow = 1.0 / support;
        let share = |at: usize, x: usize| (1.0 - ((x as f64 - centre(at) + 0.5) * narrow).abs()).max(0.0);
        self.taps = window.clone().map(|at| span(at).len()).max().unwrap_or(0);
        self.firsts.clear();
        self.weights.clear();
        self.weights.resize(window.len() * self.taps, 0);
        for (at, weights) in window.zip(self.weights.chunks_exact_mut(self.taps.max(1))) {
            let span = span(at);
            // Every output pixel gets as many taps, and none reads beyond the end.
            let first = span.start.min(from - self.taps);
            self.firsts.push(first);
            let weights = &mut weights[span.start - first..];
            self.shares.clear();
            self.shares.extend(span.map(|x| share(at, x)));
            let total: f64 = self.shares.iter().sum();
            for (weight, share) in weights.iter_mut().zip(&self.shares) {
                *weight = (0.5 + share / total * f64::from(1 << PRECISION)) as i32;
            }
        }
    }

    /// Number of output pixels.
    pub fn len(&self) -> usize {
        self.firsts.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.firsts.is_empty()
    }

    fn pixels(&self) -> impl Iterator<Item = (usize, &[i32])> {
        self.firsts.iter().copied().zip(self.weights.chunks_exact(self.taps.max(1)))
    }

    /// Source pixels that are read.
    fn reach(&self) -> Range<usize> {
        let start = self.firsts.iter().min().copied().unwrap_or(0);
        start..self.firsts.iter().max().map_or(start, |last| last + self.taps)
    }
}

/// Where the middle `kept` of `n` pixels begin, as torchvision's `CenterCrop` has it: Python rounds halves to even.
pub fn middle(n: usize, kept: usize) -> usize {
    (n.saturating_sub(kept) as f64 / 2.0).round_ties_even() as usize
}

/// Memory of a resize.
#[derive(Debug, Default)]
pub struct Resampler {
    rows: Vec<u8>,
    sums: Vec<i32>,
}

impl Resampler {
    /// Resizes a plane whose rows begin `stride` apart in `plane`, and writes `[down.len(), across.len()]` pixels.
    pub fn resize(&mut self, plane: &[u8], stride: usize, [down, across]: [&Axis; 2], out: &mut [u8]) {
        let width = across.len();
        let rows = down.reach();
        self.rows.resize(rows.len() * width, 0);
        for (y, out) in rows.clone().zip(self.rows.chunks_exact_mut(width)) {
            let row = &plane[y * stride..plane.len().min((y + 1) * stride)];
            resize_row(row, across, out);
        }
        self.sums.resize(width, 0);
        for ((first, weights), out) in down.pixels().zip(out.chunks_exact_mut(width)) {
            mix_rows(&self.rows[(first - rows.start) * width..], weights, &mut self.sums, out);
        }
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl", "x86_64+avx2", "x86_64+sse4.1"))]
fn resize_row(row: &[u8], across: &Axis, out: &mut [u8]) {
    for (out, (first, weights)) in out.iter_mut().zip(across.pixels()) {
        let taps = row[first..first + weights.len()].iter().zip(weights);
        *out = rounded(taps.map(|(&v, &weight)| i32::from(v) * weight).sum());
    }
}

/// One row as a mixture of those that `rows` begins with.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl", "x86_64+avx2", "x86_64+sse4.1"))]
fn mix_rows(rows: &[u8], weights: &[i32], sums: &mut [i32], out: &mut [u8]) {
    sums.fill(0);
    for (row, &weight) in rows.chunks_exact(sums.len()).zip(weights) {
        sums.iter_mut().zip(row).for_each(|(sum, &v)| *sum += i32::from(v) * weight);
    }
    out.iter_mut().zip(sums).for_each(|(out, &mut sum)| *out = rounded(sum));
}

fn rounded(sum: i32) -> u8 {
    ((sum + (1 << (PRECISION - 1))) >> PRECISION).clamp(0, 255) as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::mix64;
    use proptest::prelude::*;

    fn noise(height: usize, width: usize) -> Vec<u8> {
        (0..(height * width) as u64).map(|i| mix64(i) as u8).collect()
    }

    fn resized(plane: &[u8], from: [usize; 2], to: [usize; 2], window: &[Range<usize>; 2]) -> Vec<u8> {
        let [down, across] = [0, 1].map(|i| Axis::bilinear(from[i], to[i], window[i].clone()));
        let mut out = vec![0; down.len() * across.len()];
        Resampler::default().resize(plane, from[1], [&down, &across], &mut out);
        out
    }

    /// A checksum and the first pixels of what Pillow 13.0 gives for the same images.
    #[test]
    fn equals_pillow() {
        for (from, to, sum, first) in [
            ([64, 64], [64, 64], 64_460_301, [175, 193, 206, 237, 202, 90]),
            ([50, 37], [24, 24], 8_217_977, [131, 191, 138, 110, 118, 112]),
            ([24, 31], [50, 77], 59_648_030, [175, 177, 184, 191, 197, 202]),
            ([300, 200], [64, 64], 65_216_011, [138, 128, 119, 116, 110, 112]),
            ([7, 1], [3, 4], 10_794, [189, 189, 189, 189, 210, 210]),
            ([97, 130], [96, 120], 185_366_587, [176, 195, 213, 226, 159, 50]),
            ([97, 130], [101, 131], 212_803_864, [175, 193, 206, 236, 203, 95]),
        ] {
            let out = resized(&noise(from[0], from[1]), from, to, &to.map(|n| 0..n));
            assert_eq!(out[..6], first, "{from:?} to {to:?}");
            let found: u64 = out.iter().zip((1..=251).cycle()).map(|(&v, i)| u64::from(v) * i).sum();
            assert_eq!(found, sum, "{from:?} to {to:?}");
        }
    }

    proptest! {
        /// A window of a resized plane is that part of the whole.
        #[test]
        fn windows_are_parts(
            from in prop::array::uniform2(1usize..40),
            to in prop::array::uniform2(1usize..40),
            cut in prop::array::uniform4(0usize..40),
        ) {
            let plane = noise(from[0], from[1]);
            let whole = resized(&plane, from, to, &to.map(|n| 0..n));
            let window = [0, 1].map(|i| {
                let start = cut[2 * i] % to[i];
                start..start + 1 + cut[2 * i + 1] % (to[i] - start)
            });
            let part = resized(&plane, from, to, &window);
            let rows = whole.chunks_exact(to[1]).skip(window[0].start).take(window[0].len());
            let expected: Vec<u8> = rows.flat_map(|row| row[window[1].clone()].to_vec()).collect();
            prop_assert_eq!(part, expected);
        }
    }
}
