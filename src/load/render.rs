//! From a stored image to its slot in the batch, in one pass: crop, flip, rotation, gray, normalisation
//! and conversion to the batch's type. Rows are moved whole where nothing is rotated; a rotated row is
//! walked without a test for the border. `tests.rs` has the plain definition, and compares.

use super::augment::{Affine, Noise, Placement};
use super::noise::normals;
use crate::base::color::luma;
use multiversion::multiversion;
use std::ops::Range;

/// Normalised value of each possible byte, channel by channel: `(v / 255 - mean) / std` in f32 as the
/// reference computes it, then in the batch's type.
#[derive(Debug, Clone)]
pub struct Tables<T> {
    pub(super) bytes: Vec<[T; 256]>,
    mean: Vec<f32>,
    std: Vec<f32>,
    of_f32: fn(f32) -> T,
    /// Copies bytes that stay as they are.
    copy: Option<Copy8<T>>,
}

type Copy8<T> = fn(&[u8], &mut [T]);

/// Memory of one worker.
#[derive(Debug, Default)]
pub struct Scratch {
    gray: Vec<u8>,
    moved: Vec<u8>,
    noisy: Vec<f32>,
    normals: Vec<f32>,
}

impl<T: Copy> Tables<T> {
    /// For `mean` and `std` on the scale of [0, 1] (bytes) or of the values themselves (floats).
    pub fn new(mean: &[f64], std: &[f64], of_f32: fn(f32) -> T) -> Self {
        let (mean, std): (Vec<f32>, Vec<f32>) =
            mean.iter().zip(std).map(|(&m, &s)| (m as f32, s as f32)).unzip();
        let table = |(&m, &s): (&f32, &f32)| std::array::from_fn(|v| of_f32((v as f32 / 255.0 - m) / s));
        Self { bytes: mean.iter().zip(&std).map(table).collect(), mean, std, of_f32, copy: None }
    }

    /// Means and standard deviations of the output channels.
    pub(super) fn normalisation(&self) -> [&[f32]; 2] {
        [&self.mean, &self.std]
    }

    /// Output channels.
    pub fn channels(&self) -> usize {
        self.bytes.len()
    }

    /// Shows one image of bytes. `image` is `[channels, height, width]`, and `out` has as many values as
    /// this has channels times pixels. Three channels become one by Pillow's luma.
    pub fn bytes(&self, image: &[u8], width: usize, placement: Placement, s: &mut Scratch, out: &mut [T]) {
        let n = out.len() / self.channels();
        if let Some(copy) = self.copy.filter(|_| placement == Placement::IDENTITY && image.len() == out.len())
        {
            copy(image, out);
            return;
        }
        if self.channels() == 1 && image.len() == 3 * n {
            s.gray.resize(n, 0);
            luma_plane(image, &mut s.gray);
            show(&s.gray, width, placement, &self.bytes[0], &mut s.moved, out);
            return;
        }
        for ((plane, out), table) in image.chunks_exact(n).zip(out.chunks_exact_mut(n)).zip(&self.bytes) {
            show(plane, width, placement, table, &mut s.moved, out);
        }
    }

    /// As [`Self::bytes`], with noise on the scale of [0, 1] before gray, drawn from `start` for each of three channels,
    /// even where all are shown as one.
    pub fn noisy(
        &self,
        image: &[u8],
        width: usize,
        placement: Placement,
        (noise, start): (Noise, u64),
        s: &mut Scratch,
        out: &mut [T],
    ) {
        let n = out.len() / self.channels();
        let unit: [f32; 256] = std::array::from_fn(|v| v as f32 / 255.0);
        s.noisy.resize(image.len(), 0.0);
        for (plane, noisy) in image.chunks_exact(n).zip(s.noisy.chunks_exact_mut(n)) {
            show(plane, width, placement, &unit, &mut s.moved, noisy);
        }
        let std = match noise {
            Noise::Std(std) => std,
            Noise::Snr(snr) => {
                let power: f64 = s.noisy.iter().map(|&v| f64::from(v).powi(2)).sum();
                power / s.noisy.len() as f64 / snr
            }
        };
        s.normals.resize(image.len().max(3 * n), 0.0);
        normals(start, &mut s.normals);
        let std = std as f32;
        let noisy = |v: f32, normal: f32| (v + std * normal).clamp(0.0, 1.0);
        if self.channels() == 1 && image.len() == n {
            // As if three equal channels were stored, so that noise is as strong from gray shards as from colour.
            let (red, rest) = s.normals.split_at(n);
            let (green, blue) = rest.split_at(n);
            for (i, v) in s.noisy.iter_mut().enumerate() {
                *v = gray(noisy(*v, red[i]), noisy(*v, green[i]), noisy(*v, blue[i]));
            }
        } else {
            s.noisy.iter_mut().zip(&s.normals).for_each(|(v, normal)| *v = noisy(*v, *normal));
        }
        let value = |v: f32, c: usize| (self.of_f32)((v - self.mean[c]) / self.std[c]);
        if self.channels() == 1 && image.len() == 3 * n {
            let (red, rest) = s.noisy.split_at(n);
            let (green, blue) = rest.split_at(n);
            out.iter_mut().enumerate().for_each(|(i, out)| *out = value(gray(red[i], green[i], blue[i]), 0));
        } else {
            out.iter_mut().zip(&s.noisy).enumerate().for_each(|(i, (out, &v))| *out = value(v, i / n));
        }
    }

    /// Shows one image of little-endian f32 values, which are not divided by 255.
    pub fn floats(&self, image: &[u8], width: usize, placement: Placement, out: &mut [T]) {
        let n = out.len() / self.channels();
        let (values, _) = image.as_chunks::<4>();
        for (c, (plane, out)) in values.chunks_exact(n).zip(out.chunks_exact_mut(n)).enumerate() {
            let value = |v: f32| (self.of_f32)((v - self.mean[c]) / self.std[c]);
            let map = SourceMap::new(placement, width, n / width);
            for (i, out) in out.iter_mut().enumerate() {
                *out = value(map.source(i).map_or(0.0, |at| f32::from_le_bytes(plane[at])));
            }
        }
    }
}

impl Tables<u8> {
    /// For bytes that stay as they are, in `channels` channels.
    pub fn identity(channels: usize) -> Self {
        Self {
            bytes: vec![BYTES; channels],
            mean: vec![0.0; channels],
            std: vec![1.0; channels],
            of_f32: |v| (v * 255.0).round() as u8,
            copy: Some(|image, out| out.copy_from_slice(image)),
        }
    }
}

/// The plain definition of a placement: for each output pixel its source pixel, or none for the zero fill.
pub struct SourceMap {
    placement: Placement,
    affine: Affine,
    width: i64,
    height: i64,
}

impl SourceMap {
    /// For planes of `height` rows.
    pub fn new(placement: Placement, width: usize, height: usize) -> Self {
        let affine = Affine::rotation(placement.degrees, width as u32, height as u32);
        Self { placement, affine, width: width as i64, height: height as i64 }
    }

    /// Where output pixel `i` (row by row) comes from.
    pub fn source(&self, i: usize) -> Option<usize> {
        let (w, h) = (self.width, self.height);
        let (x_out, y_out) = (i as i64 % w, i as i64 / w);
        let start = self.affine.row_start(y_out);
        let within = |[x, y]: [i64; 2]| (0..w).contains(&x) && (0..h).contains(&y);
        let rotated = [0, 1].map(|axis| (start[axis] + x_out * self.affine.step[axis]) >> 16);
        let column = if self.placement.flip { w - 1 - rotated[0] } else { rotated[0] };
        let from = [column + i64::from(self.placement.dx), rotated[1] + i64::from(self.placement.dy)];
        (within(rotated) && within(from)).then_some((from[1] * w + from[0]) as usize)
    }
}

/// Shares of red, green and blue in torchvision's gray of values that need not be whole.
pub const GRAY: [f32; 3] = [0.2989, 0.587, 0.114];

fn gray(red: f32, green: f32, blue: f32) -> f32 {
    GRAY[0] * red + GRAY[1] * green + GRAY[2] * blue
}

/// Moves the planes of an image, each `[height, width]`, and leaves them bytes.
pub(super) fn place(
    image: &[u8],
    [height, width]: [usize; 2],
    placement: Placement,
    s: &mut Scratch,
    out: &mut Vec<u8>,
) {
    let n = height * width;
    out.resize(image.len(), 0);
    for (plane, out) in image.chunks_exact(n).zip(out.chunks_exact_mut(n)) {
        show(plane, width, placement, &BYTES, &mut s.moved, out);
    }
}

/// Moves one plane and looks its bytes up.
fn show<T: Copy>(
    plane: &[u8],
    width: usize,
    placement: Placement,
    table: &[T; 256],
    moved: &mut Vec<u8>,
    out: &mut [T],
) {
    if placement.degrees == 0.0 {
        shift(plane, width, placement, table, out);
        return;
    }
    let unrotated = if placement == (Placement { degrees: placement.degrees, ..Placement::IDENTITY }) {
        plane
    } else {
        moved.resize(plane.len(), 0);
        shift(plane, width, placement, &BYTES, moved);
        moved
    };
    rotate(unrotated, width, placement.degrees, table, out);
}

const BYTES: [u8; 256] = {
    let mut table = [0; 256];
    let mut v = 0;
    while v < 256 {
        table[v] = v as u8;
        v += 1;
    }
    table
};

/// Crop and flip, row by row.
fn shift<T: Copy>(plane: &[u8], width: usize, placement: Placement, table: &[T; 256], out: &mut [T]) {
    let w = width as i64;
    let dx = i64::from(placement.dx);
    // Output columns whose source lies inside, and the sources' columns.
    let inside = if placement.flip { dx..w + dx } else { -dx..w - dx };
    let inside = inside.start.clamp(0, w)..inside.end.clamp(0, w);
    let from = if placement.flip { w + dx - inside.end } else { inside.start + dx };
    let from = from.clamp(0, w) as usize..(from + inside.end - inside.start).clamp(0, w) as usize;
    let inside = inside.start as usize..inside.end as usize;
    for (y, out) in out.chunks_exact_mut(width).enumerate() {
        let source = y as i64 + i64::from(placement.dy);
        let row = usize::try_from(source).ok().and_then(|y| plane.get(y * width..(y + 1) * width));
        let Some(row) = row else {
            out.fill(table[0]);
            continue;
        };
        out[..inside.start].fill(table[0]);
        out[inside.end..].fill(table[0]);
        let pairs = out[inside.clone()].iter_mut();
        let row = &row[from.clone()];
        if placement.flip {
            pairs.zip(row.iter().rev()).for_each(|(out, &v)| *out = table[usize::from(v)]);
        } else {
            pairs.zip(row).for_each(|(out, &v)| *out = table[usize::from(v)]);
        }
    }
}

/// Nearest-neighbour rotation with zero fill.
fn rotate<T: Copy>(plane: &[u8], width: usize, degrees: f64, table: &[T; 256], out: &mut [T]) {
    let height = plane.len() / width;
    let affine = Affine::rotation(degrees, width as u32, height as u32);
    for (y, out) in out.chunks_exact_mut(width).enumerate() {
        let start = affine.row_start(y as i64);
        let columns = within(start[0], affine.step[0], width as i64, width);
        let rows = within(start[1], affine.step[1], height as i64, width);
        let inside = columns.start.max(rows.start)..columns.end.min(rows.end);
        let inside = if inside.is_empty() { 0..0 } else { inside };
        out[..inside.start].fill(table[0]);
        out[inside.end..].fill(table[0]);
        // Positions inside are below 2^30: 32 bits do, and the loop is half as long.
        let [mut xx, mut yy] =
            [0, 1].map(|axis| (start[axis] + inside.start as i64 * affine.step[axis]) as i32);
        let [step_x, step_y] = affine.step.map(|step| step as i32);
        for out in &mut out[inside] {
            *out = table[usize::from(plane[(yy >> 16) as usize * width + (xx >> 16) as usize])];
            xx = xx.wrapping_add(step_x);
            yy = yy.wrapping_add(step_y);
        }
    }
}

/// The columns among `0..n` whose source position (16.16 fixed point) lies in `0..limit`.
fn within(start: i64, step: i64, limit: i64, n: usize) -> Range<usize> {
    let end = limit << 16;
    // First column whose position is at or beyond `bound` (for a growing position).
    let reach = |start: i64, step: i64, bound: i64| (bound - start + step - 1).div_euclid(step);
    let range = match step {
        0 if (0..end).contains(&start) => 0..n as i64,
        0 => 0..0,
        1.. => reach(start, step, 0)..reach(start, step, end),
        // A falling position, mirrored: positions 0..end become 1 - end..1.
        _ => reach(-start, -step, 1 - end)..reach(-start, -step, 1),
    };
    let clamp = |x: i64| x.clamp(0, n as i64) as usize;
    clamp(range.start)..clamp(range.end)
}

/// Pillow's luma of a whole image. Compiled for wider vectors too; the arithmetic is in whole numbers,
/// so every version gives the same bytes.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl", "x86_64+avx2", "x86_64+sse4.1"))]
fn luma_plane(image: &[u8], out: &mut [u8]) {
    let (red, rest) = image.split_at(out.len());
    let (green, blue) = rest.split_at(out.len());
    for (((out, &r), &g), &b) in out.iter_mut().zip(red).zip(green).zip(blue) {
        *out = luma(r, g, b);
    }
}

#[cfg(test)]
mod tests;
