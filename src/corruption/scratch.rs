//! Memory of one thread, and the way from bytes to real values and back.
#![expect(clippy::inline_always, reason = "functions are compiled for the vectors of their caller")]

use super::defocus_blur::Sums;
use super::filter::Plane;
use super::jpeg::Jpeg;
use super::pixelate::Coarse;
use super::zoom::Turned;
use multiversion::multiversion;

/// Channels, rows and columns of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// 1 (gray) or 3 (red, green, blue).
    pub channels: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl Extent {
    /// Pixels of one channel.
    pub const fn plane(self) -> usize {
        self.height * self.width
    }

    /// Values of all channels.
    pub const fn len(self) -> usize {
        self.channels * self.plane()
    }

    pub(super) const fn size(self) -> Plane {
        Plane { height: self.height, width: self.width }
    }

    /// Whether there is no value.
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }
}

impl From<[u32; 3]> for Extent {
    /// From channels, height, width.
    fn from(shape: [u32; 3]) -> Self {
        let [channels, height, width] = shape.map(|n| n as usize);
        Self { channels, height, width }
    }
}

/// Memory of one thread: nothing is allocated once it has seen its largest image. What is left in it has no
/// influence on the next image.
#[derive(Debug, Default)]
pub struct Scratch {
    pub(super) extent: Extent,
    /// The image, `[channels, height, width]`, on the scale of 0 to 255.
    pub(super) values: Vec<f32>,
    /// As long as an image.
    pub(super) spare: Vec<f32>,
    /// A plane with its border.
    pub(super) padded: Vec<f32>,
    /// One plane each.
    pub(super) layers: [Vec<f32>; 3],
    pub(super) bytes: Vec<u8>,
    pub(super) words: Vec<u32>,
    pub(super) steps: Vec<i16>,
    pub(super) turned: Turned,
    pub(super) jpeg: Jpeg,
    pub(super) sums: Sums,
    pub(super) coarse: Coarse,
}

impl Default for Extent {
    fn default() -> Self {
        Self { channels: 1, height: 0, width: 0 }
    }
}

impl Scratch {
    /// Memory that grows as images need it.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes ready for an image, and checks that it is as long as `extent` says.
    pub(super) fn shape(&mut self, image: &[u8], extent: Extent) {
        assert!(
            image.len() == extent.len() && matches!(extent.channels, 1 | 3),
            "{} bytes for {extent:?}",
            image.len()
        );
        self.extent = extent;
    }

    /// Takes an image in.
    pub(super) fn take(&mut self, image: &[u8]) {
        self.values.resize(image.len(), 0.0);
        widen(image, &mut self.values);
    }

    /// Gives the corrupted image out.
    pub(super) fn give(&self, image: &mut [u8]) {
        truncate(&self.values, image);
    }

    /// Planes of the image.
    pub(super) fn planes(&mut self) -> std::slice::ChunksExactMut<'_, f32> {
        let plane = self.extent.plane().max(1);
        self.values.chunks_exact_mut(plane)
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl", "x86_64+avx2", "x86_64+sse4.1"))]
fn widen(bytes: &[u8], values: &mut [f32]) {
    values.iter_mut().zip(bytes).for_each(|(value, &byte)| *value = f32::from(byte));
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl", "x86_64+avx2", "x86_64+sse4.1"))]
pub(super) fn truncate(values: &[f32], bytes: &mut [u8]) {
    bytes.iter_mut().zip(values).for_each(|(byte, &value)| *byte = truncated(value));
}

/// Truncates toward zero, as the published sets do. A thousandth of a level is added first: whole results
/// that rounding in f32 left just below their number stay that number.
#[inline(always)]
pub(super) fn truncated(value: f32) -> u8 {
    // Rounding what is half less truncates.
    whole((value + (1.0 / 1024.0 - 0.5)).clamp(0.0, 255.0)) as u8
}

/// The nearest whole number, halves to even ones, of a value below 2^22. A conversion checks its range, and takes nine
/// times as long.
#[inline(always)]
pub(super) fn whole(value: f32) -> i32 {
    /// At this size a float's last bit counts ones.
    const WHOLE: f32 = (3 << 22) as f32;
    (value + WHOLE).to_bits() as i32 - WHOLE.to_bits() as i32
}

/// Rounds half up. Values are not negative.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl", "x86_64+avx2", "x86_64+sse4.1"))]
pub(super) fn round(values: &mut [f32]) {
    for value in values.iter_mut() {
        *value = (*value + 0.5).floor();
    }
}
