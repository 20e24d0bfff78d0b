//! Pixelate: Pillow's BOX filter to fewer pixels, and back by the nearest one.

#![expect(clippy::inline_always, reason = "functions are compiled for the vectors of their caller")]

use super::draws::Draws;
use super::filter::Plane;
use super::turn::turn_u8;
use super::{Profile, Scratch, Severity};
use multiversion::multiversion;
use std::ops::Range;

/// Share of the rows and columns that are left.
const TINY: [f64; 5] = [0.9, 0.8, 0.7, 0.6, 0.5];
const IMAGENET: [f64; 5] = [0.6, 0.5, 0.4, 0.3, 0.25];

pub(super) fn apply(
    image: &mut [u8],
    s: &mut Scratch,
    profile: Profile,
    severity: Severity,
    _: &mut dyn Draws,
) {
    let share = profile.pick(severity, &TINY, &IMAGENET);
    let plane = s.extent.size();
    let Plane { height, width } = plane;
    let Coarse { pixels, turned, spare } = &mut s.coarse;
    let pixels = match pixels {
        Some(pixels) if pixels.made_for == (plane, share) => pixels,
        others => others.insert(Pixels::new(plane, share)),
    };
    let [tall, wide] = [height, width].map(|n| n.next_multiple_of(TILE));
    turned.resize(tall * wide, 0);
    spare.resize(tall * wide, 0);
    for image in image.chunks_exact_mut((height * width).max(1)) {
        // Along an axis by rows of the plane, turned on its side for the columns. Pillow goes across first, and rounds
        // to bytes after each axis. Columns have their old number back before there are fewer rows.
        let whole = if width == wide {
            &*image
        } else {
            let rows = image.chunks_exact(width).zip(spare.chunks_exact_mut(wide));
            rows.for_each(|(row, out)| out[..width].copy_from_slice(row));
            &*spare
        };
        transpose(whole, wide, &pixels.all_rows, turned, tall);
        mean_rows(turned, tall, &pixels.across, spare);
        transpose(spare, tall, &pixels.columns, turned, wide);
        mean_rows(turned, wide, &pixels.down, spare);
        repeat_rows(spare, wide, &pixels.rows, image, width);
    }
}

/// Memory of one plane.
#[derive(Debug, Default)]
pub(super) struct Coarse {
    pixels: Option<Pixels>,
    turned: Vec<u8>,
    spare: Vec<u8>,
}

/// Which pixels become which.
#[derive(Debug)]
struct Pixels {
    made_for: (Plane, f64),
    across: Vec<Range<usize>>,
    down: Vec<Range<usize>>,
    all_rows: Vec<usize>,
    /// The coarse pixel at each pixel.
    columns: Vec<usize>,
    rows: Vec<usize>,
}

impl Pixels {
    fn new(plane: Plane, share: f64) -> Self {
        let Plane { height, width } = plane;
        let coarse = |n: usize| {
            let fewer = ((n as f64 * share) as usize).max(1);
            (taps(n, fewer), (0..n).map(|at| nearest(at, fewer, n)).collect())
        };
        let ((down, rows), (across, columns)) = (coarse(height), coarse(width));
        Self { made_for: (plane, share), across, down, all_rows: (0..height).collect(), columns, rows }
    }
}

/// Side of the squares that are turned on their diagonal.
const TILE: usize = 16;

/// Each row of `out` is the mean of some rows of `values`, rounded half up.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl", "x86_64+avx2", "x86_64+sse4.1"))]
fn mean_rows(values: &[u8], width: usize, taps: &[Range<usize>], out: &mut [u8]) {
    // The compiler has less to do if it knows the usual width.
    if width == 64 { means(values, 64, taps, out) } else { means(values, width, taps, out) }
}

#[inline(always)]
fn means(values: &[u8], width: usize, taps: &[Range<usize>], out: &mut [u8]) {
    for (taps, out) in taps.iter().zip(out.chunks_exact_mut(width)) {
        let row = |n: usize| &values[(taps.start + n) * width..][..width];
        match taps.len() {
            1 => out.copy_from_slice(row(0)),
            2 => mean([row(0), row(1)], out),
            3 => mean([row(0), row(1), row(2)], out),
            4 => mean([row(0), row(1), row(2), row(3)], out),
            n => {
                // Few pixels of a small image.
                for (i, out) in out.iter_mut().enumerate() {
                    let sum: usize = (0..n).map(|n| usize::from(row(n)[i])).sum();
                    *out = ((sum + n / 2) / n) as u8;
                }
            }
        }
    }
}

#[inline(always)]
fn mean<const N: usize>(rows: [&[u8]; N], out: &mut [u8]) {
    let n = out.len();
    let rows = rows.map(|row| &row[..n]);
    for i in 0..n {
        let mut sum = N as u16 / 2;
        for row in rows {
            sum += u16::from(row[i]);
        }
        out[i] = (sum / N as u16) as u8;
    }
}

/// Turns `rows` of `values`, of `width` pixels, into columns of `out`, whose rows have `tall`. Both widths are whole
/// tiles.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl", "x86_64+avx2", "x86_64+sse4.1"))]
fn transpose(values: &[u8], width: usize, rows: &[usize], out: &mut [u8], tall: usize) {
    if (width, tall) == (64, 64) {
        transpose_tiles(values, 64, rows, out, 64);
    } else {
        transpose_tiles(values, width, rows, out, tall);
    }
}

#[inline(always)]
fn transpose_tiles(values: &[u8], width: usize, rows: &[usize], out: &mut [u8], tall: usize) {
    for (band, rows) in rows.chunks(TILE).enumerate() {
        let mut tiles = [&[][..]; TILE];
        for y in 0..TILE {
            // Rows beyond the last one are that.
            let row = rows[y.min(rows.len() - 1)];
            tiles[y] = &values[row * width..][..width];
        }
        for at in 0..width / TILE {
            let mut tile = [[0; TILE]; TILE];
            for y in 0..TILE {
                tile[y].copy_from_slice(&tiles[y][at * TILE..][..TILE]);
            }
            let columns = turn_u8(tile);
            let out = &mut out[at * TILE * tall..][..TILE * tall];
            for x in 0..TILE {
                out[x * tall + band * TILE..][..TILE].copy_from_slice(&columns[x]);
            }
        }
    }
}

/// Rows of `out`, of `width` pixels, are `rows` of `values`, which have `wide`.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl", "x86_64+avx2", "x86_64+sse4.1"))]
fn repeat_rows(values: &[u8], wide: usize, rows: &[usize], out: &mut [u8], width: usize) {
    if let (64, 64, (out, [])) = (wide, width, out.as_chunks_mut::<64>()) {
        out.iter_mut().zip(rows).for_each(|(out, &row)| *out = values.as_chunks().0[row]);
        return;
    }
    for (out, &row) in out.chunks_exact_mut(width).zip(rows) {
        out.copy_from_slice(&values[row * wide..][..width]);
    }
}

/// The small pixel that stands at large pixel `at`.
fn nearest(at: usize, small: usize, large: usize) -> usize {
    // floor((at + 1/2) small / large) in whole numbers.
    (2 * at + 1) * small / (2 * large)
}

/// The large pixels whose middles lie in each small one.
fn taps(large: usize, small: usize) -> Vec<Range<usize>> {
    let scale = large as f64 / small as f64;
    let range = |at: usize| {
        let centre = (at as f64 + 0.5) * scale;
        let from = (centre - 0.5 * scale + 0.5) as usize;
        let to = ((centre + 0.5 * scale + 0.5) as usize).min(large);
        let inside = |k: usize| {
            let distance = (k as f64 - centre + 0.5) / scale;
            distance > -0.5 && distance <= 0.5
        };
        let from = (from..to).find(|&k| inside(k)).unwrap_or(from);
        let to = (from..to).rfind(|&k| inside(k)).map_or(from + 1, |last| last + 1);
        from..to
    };
    (0..small).map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::super::{Corruption, Extent, ImageKey};
    use super::*;
    use crate::base::rng::mix64;

    /// Means across, then down, one pixel at a time.
    fn expected(image: &[u8], plane: Plane, share: f64) -> Vec<u8> {
        let Plane { height, width } = plane;
        let mean = |values: &mut dyn Iterator<Item = u8>| {
            let values: Vec<u32> = values.map(u32::from).collect();
            let n = values.len() as u32;
            ((2 * values.iter().sum::<u32>() + n) / (2 * n)) as u8
        };
        let [rows, columns] = [height, width].map(|n| ((n as f64 * share) as usize).max(1));
        let narrow: Vec<Vec<u8>> = image
            .chunks(width)
            .map(|row| {
                let taps = taps(width, columns);
                taps.into_iter().map(|taps| mean(&mut taps.map(|x| row[x]))).collect()
            })
            .collect();
        let low: Vec<Vec<u8>> = taps(height, rows)
            .into_iter()
            .map(|taps| (0..columns).map(|x| mean(&mut taps.clone().map(|y| narrow[y][x]))).collect())
            .collect();
        let at = |i: usize| low[nearest(i / width, rows, height)][nearest(i % width, columns, width)];
        (0..height * width).map(at).collect()
    }

    #[test]
    fn pixels_are_means_in_images_of_all_sizes() {
        let mut s = Scratch::new();
        for (height, width) in [(1, 1), (3, 5), (7, 40), (16, 16), (17, 64), (64, 17), (64, 64), (70, 48)] {
            let plane = Plane { height, width };
            let extent = Extent { channels: 3, height, width };
            let image: Vec<u8> = (0..extent.len()).map(|i| mix64(i as u64) as u8).collect();
            for (profile, shares) in [(Profile::Tiny, TINY), (Profile::ImageNet, IMAGENET)] {
                for (severity, share) in Severity::ALL.into_iter().zip(shares) {
                    let (mut found, key) = (image.clone(), ImageKey { seed: 1, image: 1 });
                    Corruption::Pixelate.apply(profile, severity, key, &mut found, extent, &mut s);
                    for (found, image) in found.chunks(extent.plane()).zip(image.chunks(extent.plane())) {
                        assert_eq!(found, expected(image, plane, share), "{extent:?} {share}");
                    }
                }
            }
        }
    }
}
