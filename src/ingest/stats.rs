//! Statistics of pixels and responses, in a fixed order of additions so that they do not depend on threads.

use crate::base::DType;
use multiversion::multiversion;
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
    /// The sums of one stored image of so many channels.
    pub(super) fn of(image: &[u8], channels: u32, dtype: DType) -> Self {
        let mut sums = Self::default();
        sums.add_image(image, channels, dtype);
        sums
    }

    /// Adds those of one stored image of so many channels.
    pub(super) fn add_image(&mut self, image: &[u8], channels: u32, dtype: DType) {
        let plane = image.len() / channels as usize;
        self.is_u8 = dtype == DType::U8;
        self.n_pixels += plane as u64 / dtype.size();
        self.channels.resize(channels as usize, (0.0, 0.0));
        for (sum, plane) in self.channels.iter_mut().zip(image.chunks_exact(plane)) {
            let more = if self.is_u8 { byte_sums(plane) } else { float_sums(plane) };
            *sum = (sum.0 + more.0, sum.1 + more.1);
        }
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
    #[cfg(target_arch = "x86_64")]
    if let Some((sum, squares)) = crate::base::avx512::byte_sums(plane) {
        return (sum as f64, squares as f64);
    }
    let (sum, squares) = portable_byte_sums(plane);
    (sum as f64, squares as f64)
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl", "x86_64+avx2", "x86_64+sse4.1"))]
fn portable_byte_sums(plane: &[u8]) -> (u64, u64) {
    // So many squares of bytes fit 32 bits, which vectorises twice as wide as 64.
    let of_chunk = |chunk: &[u8]| {
        chunk.iter().fold((0u32, 0u32), |(s, q), &v| (s + u32::from(v), q + u32::from(v) * u32::from(v)))
    };
    let chunks = plane.chunks(1 << 15).map(of_chunk);
    chunks.fold((0, 0), |(s, q), (a, b)| (s + u64::from(a), q + u64::from(b)))
}

fn float_sums(plane: &[u8]) -> (f64, f64) {
    let values = plane.as_chunks().0.iter().map(|&bytes| f64::from(f32::from_le_bytes(bytes)));
    values.fold((0.0, 0.0), |(s, q), v| (s + v, q + v.powi(2)))
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
        let mut sums = PixelSums::of(&[0, 255], 1, DType::U8);
        sums.add(&PixelSums::of(&[255, 255], 1, DType::U8));
        let (mean, std) = sums.mean_and_std();
        assert!((mean[0] - 0.75).abs() < 1e-12 && (std[0] - 0.5).abs() < 1e-12, "{mean:?} {std:?}");
        let floats: Vec<u8> = [0.0f32, 1.0, 1.0, 1.0, 5.0, 5.0, 5.0, 5.0].map(f32::to_le_bytes).concat();
        let (mean, std) = PixelSums::of(&floats, 2, DType::F32).mean_and_std();
        assert_eq!((mean, std), (vec![0.75, 5.0], vec![0.5, 0.0]));
        let (mean, variance) = neuron_statistics(&[1.0, 10.0, 3.0, 10.0], 2);
        assert_eq!((mean, variance), (vec![2.0, 10.0], vec![2.0, 0.0]));
    }

    #[test]
    fn sums_of_bytes_are_exact() {
        for n in [0, 1, 63, 64, 65, 4096, 70_001, 1_100_000] {
            for bytes in [vec![255; n], (0..n).map(|i| (255 - i % 977 * 7 % 251) as u8).collect::<Vec<u8>>()]
            {
                let sum = bytes.iter().map(|&v| u64::from(v)).sum::<u64>();
                let squares = bytes.iter().map(|&v| u64::from(v).pow(2)).sum::<u64>();
                assert_eq!(byte_sums(&bytes), (sum as f64, squares as f64));
                assert_eq!(portable_byte_sums(&bytes), (sum, squares));
            }
        }
    }
}
