//! The reference's augmentation (random crop with zero padding, horizontal flip, small rotation) and
//! normalisation, fused into the copy from shard to batch: every output pixel is written once.
//!
//! All three only move pixels, so their composition is a map from output to source positions.

use crate::base::Rng;
use crate::base::color::luma;
use serde::{Deserialize, Serialize};

/// Which augmentations are applied.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AugmentSettings {
    /// Zeros added on every side before a crop of the original size; 0 turns cropping off.
    pub crop_padding: u32,
    /// Mirror left and right with probability 1/2.
    pub flip: bool,
    /// Rotate by an angle drawn from ± this many degrees; 0 turns rotation off.
    pub rotation_degrees: f64,
}

impl Default for AugmentSettings {
    /// The reference's: padding 4, flip, ±15°.
    fn default() -> Self {
        Self { crop_padding: 4, flip: true, rotation_degrees: 15.0 }
    }
}

impl AugmentSettings {
    /// Leaves images as they are.
    pub const NONE: Self = Self { crop_padding: 0, flip: false, rotation_degrees: 0.0 };

    /// Draws what happens to one image.
    pub fn draw(&self, rng: &mut Rng) -> Placement {
        // Every draw is made whether it is used or not, so that switching one augmentation off leaves
        // the others as they were.
        let span = 2 * self.crop_padding + 1;
        let shift = |draw: u32| draw as i32 - self.crop_padding as i32;
        let (dx, dy) = (shift(rng.below(span)), shift(rng.below(span)));
        let flip = rng.below(2) == 1 && self.flip;
        let degrees = rng.uniform(-1.0, 1.0) * self.rotation_degrees;
        Placement { dx, dy, flip, degrees }
    }
}

/// What happens to one image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Placement {
    /// Columns by which the crop is shifted to the right.
    pub dx: i32,
    /// Rows by which the crop is shifted down.
    pub dy: i32,
    /// Mirrored after the crop.
    pub flip: bool,
    /// Rotated counter-clockwise by so much after the flip.
    pub degrees: f64,
}

impl Placement {
    /// Nothing happens.
    pub const IDENTITY: Self = Self { dx: 0, dy: 0, flip: false, degrees: 0.0 };
}

/// Source position of an output pixel that shows the zero fill.
pub const OUTSIDE: u32 = u32::MAX;

/// For each output pixel (row by row) its source pixel, or [`OUTSIDE`]. `map` is overwritten.
pub fn source_map(placement: Placement, height: u32, width: u32, map: &mut Vec<u32>) {
    map.clear();
    let (w, h) = (width as i32, height as i32);
    let affine = Affine::rotation(placement.degrees, width, height);
    for y in 0..h {
        let (mut xx, mut yy) = affine.row_start(y);
        for _ in 0..w {
            let (x_rotated, y_rotated) = ((xx >> 16) as i32, (yy >> 16) as i32);
            xx += affine.step[0];
            yy += affine.step[1];
            let inside = (0..w).contains(&x_rotated) && (0..h).contains(&y_rotated);
            let x = if placement.flip { w - 1 - x_rotated } else { x_rotated } + placement.dx;
            let y = y_rotated + placement.dy;
            let inside = inside && (0..w).contains(&x) && (0..h).contains(&y);
            map.push(if inside { (y * w + x) as u32 } else { OUTSIDE });
        }
    }
}

/// Pillow's nearest-neighbour rotation: the inverse map in 16.16 fixed point, evaluated at pixel centres.
struct Affine {
    /// Change of the source position from one column to the next.
    step: [i64; 2],
    /// Change from one row to the next.
    row: [i64; 2],
    /// Source position of the first pixel.
    origin: [i64; 2],
}

impl Affine {
    fn rotation(degrees: f64, width: u32, height: u32) -> Self {
        let fixed = |v: f64| (v * 65536.0 + 0.5).floor() as i64;
        let radians = -degrees.rem_euclid(360.0).to_radians();
        let round15 = |v: f64| (v * 1e15).round_ties_even() / 1e15;
        let (a, b) = (round15(radians.cos()), round15(radians.sin()));
        let (cx, cy) = (f64::from(width) / 2.0, f64::from(height) / 2.0);
        let (c, f) = (cx - a * cx - b * cy, cy + b * cx - a * cy);
        Self {
            step: [fixed(a), fixed(-b)],
            row: [fixed(b), fixed(a)],
            origin: [fixed(c + a * 0.5 + b * 0.5), fixed(f - b * 0.5 + a * 0.5)],
        }
    }

    fn row_start(&self, y: i32) -> (i64, i64) {
        (self.origin[0] + i64::from(y) * self.row[0], self.origin[1] + i64::from(y) * self.row[1])
    }
}

/// Normalised value of each possible byte, channel by channel: `(v / 255 - mean) / std` in f32 as the
/// reference computes it.
#[derive(Debug, Clone)]
pub struct Normalise {
    tables: Vec<[f32; 256]>,
    mean: Vec<f32>,
    std: Vec<f32>,
}

impl Normalise {
    /// For `mean` and `std` on the scale of [0, 1] (bytes) or of the values themselves (floats).
    pub fn new(mean: &[f64], std: &[f64]) -> Self {
        let (mean, std): (Vec<f32>, Vec<f32>) =
            mean.iter().zip(std).map(|(&m, &s)| (m as f32, s as f32)).unzip();
        let table = |(&m, &s): (&f32, &f32)| std::array::from_fn(|v| (v as f32 / 255.0 - m) / s);
        Self { tables: mean.iter().zip(&std).map(table).collect(), mean, std }
    }

    /// Output channels.
    pub fn channels(&self) -> usize {
        self.tables.len()
    }

    /// Moves and normalises one image of bytes. `image` is `[channels, pixels]`; `out` has as many
    /// values as this has channels times pixels. Three channels become one by Pillow's luma.
    pub fn bytes(&self, image: &[u8], map: Option<&[u32]>, out: &mut [f32]) {
        let n_pixels = out.len() / self.channels();
        if self.channels() == 1 && image.len() == 3 * n_pixels {
            let (red, rest) = image.split_at(n_pixels);
            let (green, blue) = rest.split_at(n_pixels);
            let table = &self.tables[0];
            gather(map, out, table[0], |i| table[luma(red[i], green[i], blue[i]) as usize]);
            return;
        }
        let planes = image.chunks_exact(n_pixels).zip(out.chunks_exact_mut(n_pixels));
        for ((plane, out), table) in planes.zip(&self.tables) {
            gather(map, out, table[0], |i| table[plane[i] as usize]);
        }
    }

    /// As [`Self::bytes`] for little-endian f32 values, which are not divided by 255.
    pub fn floats(&self, image: &[u8], map: Option<&[u32]>, out: &mut [f32]) {
        let n_pixels = out.len() / self.channels();
        let planes = image.chunks_exact(4 * n_pixels).zip(out.chunks_exact_mut(n_pixels));
        for ((plane, out), (mean, std)) in planes.zip(self.mean.iter().zip(&self.std)) {
            let value =
                |i: usize| f32::from_le_bytes(plane[4 * i..4 * i + 4].try_into().expect("four bytes"));
            gather(map, out, -mean / std, |i| (value(i) - mean) / std);
        }
    }
}

fn gather(map: Option<&[u32]>, out: &mut [f32], fill: f32, value: impl Fn(usize) -> f32) {
    match map {
        None => out.iter_mut().enumerate().for_each(|(i, out)| *out = value(i)),
        Some(map) => {
            for (out, &i) in out.iter_mut().zip(map) {
                *out = if i == OUTSIDE { fill } else { value(i as usize) };
            }
        }
    }
}

#[cfg(test)]
mod tests;
