//! Statistics of pixels and responses, in a fixed order of additions so that they do not depend on threads.

use super::image::{Image, Pixels};
use serde::{Deserialize, Serialize};

/// Sums over the pixels of each channel. In JSON, floats come back bit for bit.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct PixelSums {
    n_pixels: u64,
    is_u8: bool,
    /// Sum and sum of squares of each channel; bytes are summed exactly.
    channels: Vec<(f64, f64)>,
}

impl PixelSums {
    /// The sums of one image.
    pub(super) fn of(image: &Image) -> Self {
        let n = (image.height * image.width) as usize;
        let (is_u8, channels) = match &image.pixels {
            Pixels::U8(p) => (true, p.chunks_exact(n).map(byte_sums).collect()),
            Pixels::F32(p) => (false, p.chunks_exact(n).map(float_sums).collect()),
        };
        Self { n_pixels: n as u64, is_u8, channels }
    }

    /// Adds the sums of the images that follow.
    pub(super) fn add(&mut self, next: &Self) {
        if self.channels.is_empty() {
            *self = next.clone();
            return;
        }
        self.n_pixels += next.n_pixels;
        for (sum, more) in self.channels.iter_mut().zip(&next.channels) {
            *sum = (sum.0 + more.0, sum.1 + more.1);
        }
    }

    /// Mean and standard deviation (n - 1) of each channel; bytes are divided by 255, as the network sees them.
    pub(super) fn mean_and_std(&self) -> (Vec<f64>, Vec<f64>) {
        let (n, scale) = (self.n_pixels as f64, if self.is_u8 { 255.0 } else { 1.0 });
        let of = |&(sum, squares): &(f64, f64)| {
            let mean = sum / n;
            let variance = (squares - sum * mean).max(0.0) / (n - 1.0).max(1.0);
            (mean / scale, variance.sqrt() / scale)
        };
        self.channels.iter().map(of).unzip()
    }
}

/// Exact: integers below 2^53.
fn byte_sums(plane: &[u8]) -> (f64, f64) {
    // So many squares of bytes fit 32 bits, which vectorises twice as wide as 64.
    let of_chunk = |chunk: &[u8]| {
        chunk.iter().fold((0u32, 0u32), |(s, q), &v| (s + u32::from(v), q + u32::from(v) * u32::from(v)))
    };
    let chunks = plane.chunks(1 << 15).map(of_chunk);
    let (sum, squares) = chunks.fold((0u64, 0u64), |(s, q), (a, b)| (s + u64::from(a), q + u64::from(b)));
    (sum as f64, squares as f64)
}

fn float_sums(plane: &[f32]) -> (f64, f64) {
    plane.iter().fold((0.0, 0.0), |(s, q), &v| (s + f64::from(v), q + f64::from(v).powi(2)))
}

/// Mean and variance (n - 1) of each neuron over `responses` `[trials, neurons]`.
pub(super) fn neuron_statistics(responses: &[f32], n_neurons: usize) -> (Vec<f32>, Vec<f32>) {
    let n = (responses.len() / n_neurons).max(1) as f64;
    let mut sums = vec![0.0f64; n_neurons];
    for trial in responses.chunks_exact(n_neurons) {
        sums.iter_mut().zip(trial).for_each(|(sum, &r)| *sum += f64::from(r));
    }
    let means: Vec<f64> = sums.iter().map(|sum| sum / n).collect();
    let mut squares = vec![0.0f64; n_neurons];
    for trial in responses.chunks_exact(n_neurons) {
        for ((square, mean), &r) in squares.iter_mut().zip(&means).zip(trial) {
            *square += (f64::from(r) - mean).powi(2);
        }
    }
    let variance = squares.iter().map(|square| (square / (n - 1.0).max(1.0)) as f32).collect();
    (means.into_iter().map(|mean| mean as f32).collect(), variance)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_equal_the_textbook() {
        let image = |p: Vec<u8>| Image { channels: 1, height: 1, width: 2, pixels: Pixels::U8(p) };
        let mut sums = PixelSums::default();
        sums.add(&PixelSums::of(&image(vec![0, 255])));
        sums.add(&PixelSums::of(&image(vec![255, 255])));
        let (mean, std) = sums.mean_and_std();
        assert!((mean[0] - 0.75).abs() < 1e-12 && (std[0] - 0.5).abs() < 1e-12, "{mean:?} {std:?}");
        let (mean, variance) = neuron_statistics(&[1.0, 10.0, 3.0, 10.0], 2);
        assert_eq!((mean, variance), (vec![2.0, 10.0], vec![2.0, 0.0]));
    }
}
