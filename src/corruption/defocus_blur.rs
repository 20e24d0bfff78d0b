//! Defocus: correlation with a disk whose rim is smoothed.
//!
//! A smoothed disk is a disk and then a Gaussian. All weights of a disk are equal, and it is a stack of runs of pixels:
//! the sums of a row over runs of all widths grow out of each other, and each serves all the disks that it is part of.
#![expect(clippy::inline_always, reason = "functions are compiled for the vectors of their caller")]

use super::draws::Draws;
use super::filter::{Border, Plane};
use super::scratch::truncate;
use super::turn::reversed;
use super::{Profile, Scratch, Severity};
use multiversion::multiversion;

/// Radius, and deviation of the Gaussian that smooths the rim.
const TINY: [(f64, f64); 5] = [(0.5, 0.6), (1.0, 0.1), (1.5, 0.1), (2.5, 0.01), (3.0, 0.1)];
const IMAGENET: [(f64, f64); 5] = [(3.0, 0.1), (4.0, 0.5), (6.0, 0.5), (8.0, 0.5), (10.0, 0.5)];

pub(super) fn apply(
    image: &mut [u8],
    s: &mut Scratch,
    profile: Profile,
    severity: Severity,
    _: &mut dyn Draws,
) {
    let (radius, sigma) = profile.pick(severity, &TINY, &IMAGENET);
    let disk = Disk::new(radius, sigma);
    let plane = s.extent.size();
    let Scratch { values, sums, .. } = s;
    values.resize(image.len(), 0.0);
    let rows = disk.rows(plane);
    sums.resize(&disk, rows);
    let size = (plane.height * plane.width).max(1);
    for (image, values) in image.chunks_exact_mut(size).zip(values.chunks_exact_mut(size)) {
        pad(image, rows, &mut sums.padded);
        correlate(&disk, rows, sums, values);
        truncate(values, image);
    }
}

/// Memory of one plane. Vectors of a row lie side by side.
#[derive(Debug, Default)]
pub(super) struct Sums {
    /// The row that stands for each, from the first one of the margin on.
    mirrored: Vec<usize>,
    /// Rows with what is mirrored to their left and right.
    padded: Vec<u16>,
    /// For each row, sums over runs of each width.
    over_runs: Vec<[u16; LANES]>,
    over_disks: Vec<[f32; LANES]>,
    /// Over runs along columns.
    over_columns: Vec<u16>,
    /// What is missing above and below, and to the left and right.
    missing: [Vec<[i16; LANES]>; 2],
    /// Smoothed along columns.
    along: Vec<f32>,
}

impl Sums {
    fn resize(&mut self, disk: &Disk, rows: Rows) {
        let Rows { plane: Plane { height, .. }, margin, parts } = rows;
        self.mirrored.clear();
        let reach = -(margin as isize)..(height + margin) as isize;
        self.mirrored.extend(reach.map(|y| Border::Mirror.index(y, height)));
        self.padded.resize(height * rows.padded(), 0);
        self.over_runs.resize(height * disk.widths.len() * parts, [0; LANES]);
        self.over_disks.resize(height * parts, [0.0; LANES]);
        self.along.resize(height * (parts * LANES + 2 * EDGE), 0.0);
        if disk.touches {
            self.over_columns.resize(height * rows.padded(), 0);
            self.missing.iter_mut().for_each(|missing| missing.resize(height * parts, [0; LANES]));
        }
    }
}

#[derive(Debug)]
struct Disk {
    /// How far each row reaches to both sides, from the middle one to the last. Columns are the same.
    reaches: Vec<usize>,
    /// All that occur, from the narrowest on.
    widths: Vec<usize>,
    /// What smooths the rim along one axis, from the middle to one side.
    rim: Vec<f32>,
    /// Whether it reaches the edge of the grid on which `imagecorruptions` smooths it: what goes beyond is mirrored
    /// there, and the smoothed disk is cut off.
    touches: bool,
}

impl Disk {
    fn new(radius: f64, sigma: f64) -> Self {
        let (side, taps) = if radius <= 8.0 { (8, 1) } else { (radius as usize, 2) };
        let reach = |at: usize| (radius * radius - (at * at) as f64).sqrt() as usize;
        let reaches: Vec<usize> = (0..=radius as usize).map(reach).collect();
        let mut widths: Vec<usize> = reaches.iter().rev().copied().collect();
        widths.dedup();
        let weight = |k: usize| (-0.5 * (k as f64 / sigma).powi(2)).exp();
        let total = 1.0 + 2.0 * (1..=taps).map(weight).sum::<f64>();
        let mut rim: Vec<f32> = (0..=taps).map(|k| (weight(k) / total) as f32).collect();
        rim.truncate(rim.iter().take_while(|&&weight| weight > 1e-9).count());
        Self { touches: reaches.len() > side && rim.len() > 1, reaches, widths, rim }
    }

    fn pixels(&self) -> usize {
        let rows = self.reaches.iter().map(|reach| 2 * reach + 1);
        2 * rows.sum::<usize>() - (2 * self.reaches[0] + 1)
    }

    fn rows(&self, plane: Plane) -> Rows {
        Rows { plane, margin: self.reaches.len(), parts: plane.width.div_ceil(LANES) }
    }
}

/// How rows lie in memory.
#[derive(Debug, Clone, Copy)]
struct Rows {
    plane: Plane,
    /// Rows and columns beyond the edge that a disk may need.
    margin: usize,
    /// Vectors of a row. What lies behind its end is mirrored, too.
    parts: usize,
}

impl Rows {
    /// Length of a row with its margins.
    const fn padded(self) -> usize {
        self.parts * LANES + 2 * BESIDE
    }
}

/// Values of a row that are computed side by side in registers.
const LANES: usize = 64;
/// Columns to the left and right of padded rows: as many as the largest disk needs, and more.
const BESIDE: usize = 16;
/// Columns beside those that are smoothed along columns.
const EDGE: usize = 8;

/// The means over the disk around each pixel of a plane.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl", "x86_64+avx2", "x86_64+sse4.1"))]
fn correlate(disk: &Disk, rows: Rows, s: &mut Sums, out: &mut [f32]) {
    if rows.plane.width == LANES {
        // The compiler has half as much to do if it knows the usual width.
        let plane = Plane { width: LANES, ..rows.plane };
        correlate_rows(disk, Rows { plane, parts: 1, ..rows }, s, out);
    } else {
        correlate_rows(disk, rows, s, out);
    }
}

#[inline(always)]
fn correlate_rows(disk: &Disk, rows: Rows, s: &mut Sums, out: &mut [f32]) {
    sums_over_disks(&s.padded, &s.mirrored, rows, disk, &mut s.over_runs, &mut s.over_disks);
    if disk.touches {
        // The share of the next pixel but one, below 0.0003, is left out.
        missing_rows((&s.padded, &s.over_runs), &s.mirrored, rows, disk, &mut s.missing[0]);
        sums_of_columns(&s.padded, &s.mirrored, rows, disk.reaches[rows.margin - 2], &mut s.over_columns);
        missing_columns([&s.padded, &s.over_columns], rows, &mut s.missing[1]);
    }
    let share = 1.0 / disk.pixels() as f32;
    let [above, beside] = [0, 1].map(|i| disk.touches.then_some(&s.missing[i][..]));
    smooth_along(&s.over_disks, above, &s.mirrored, rows, &disk.rim, &mut s.along);
    smooth_across(&s.along, beside, &s.mirrored, rows, (&disk.rim, share), out);
}

/// Mirrors the ends of rows.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl", "x86_64+avx2", "x86_64+sse4.1"))]
fn pad(image: &[u8], rows: Rows, out: &mut [u16]) {
    let width = rows.plane.width;
    for (row, out) in image.chunks_exact(width).zip(out.chunks_exact_mut(rows.padded())) {
        out[BESIDE..][..width].iter_mut().zip(row).for_each(|(out, &value)| *out = value.into());
        if width == rows.parts * LANES {
            let ends: [Option<&[u8; BESIDE]>; 2] = [row[1..].first_chunk(), row[..width - 1].last_chunk()];
            let [left, right] = ends.map(|end| reversed(*end.expect("a row is longer")));
            out[..BESIDE].copy_from_slice(&left);
            out[BESIDE + width..].copy_from_slice(&right);
        } else {
            let at = |x: isize| u16::from(row[Border::Mirror.index(x, width)]);
            for x in (0..BESIDE).chain(BESIDE + width..out.len()) {
                out[x] = at(x as isize - BESIDE as isize);
            }
        }
    }
}

/// Sums over disks of the rows of `over_runs`, which are made as they are needed.
#[inline(always)]
fn sums_over_disks(
    padded: &[u16],
    mirrored: &[usize],
    rows: Rows,
    disk: &Disk,
    over_runs: &mut [[u16; LANES]],
    out: &mut [[f32; LANES]],
) {
    let Rows { plane: Plane { height, .. }, margin, parts } = rows;
    let Disk { reaches, widths, .. } = disk;
    let group = widths.len() * parts;
    let mut numbers = [0; BESIDE];
    for (number, reach) in numbers.iter_mut().zip(reaches) {
        *number = widths.iter().take_while(|&width| width < reach).count() * parts;
    }
    let numbers = &numbers[..margin];
    let fit = u16::try_from(disk.pixels() * 255).is_ok();
    let mut made = 0;
    for (y, out) in out.chunks_exact_mut(parts).enumerate() {
        for y in made..(y + margin).min(height) {
            let row = &padded[y * rows.padded()..][..rows.padded()];
            sums_over_runs(row, widths, &mut over_runs[y * group..][..group]);
        }
        made = (y + margin).min(height);
        let (above, below) = mirrored[y..][..=2 * margin].split_at(margin);
        for (n, out) in out.iter_mut().enumerate() {
            let (mut upper, mut lower) = (over_runs[below[0] * group + numbers[0] + n], [0u16; LANES]);
            for ((above, below), number) in above.iter().rev().zip(&below[1..]).zip(&numbers[1..]) {
                let (above, below) =
                    (&over_runs[above * group + number + n], &over_runs[below * group + number + n]);
                for i in 0..LANES {
                    upper[i] += above[i];
                    lower[i] += below[i];
                }
            }
            if fit {
                for i in 0..LANES {
                    out[i] = f32::from(upper[i] + lower[i]);
                }
                continue;
            }
            for i in 0..LANES {
                out[i] = (i32::from(upper[i]) + i32::from(lower[i])) as f32;
            }
        }
    }
}

/// Sums of a row over runs of `widths` to both sides.
#[inline(always)]
fn sums_over_runs(row: &[u16], widths: &[usize], out: &mut [[u16; LANES]]) {
    let parts = out.len() / widths.len();
    for n in 0..parts {
        let middle = BESIDE + n * LANES;
        let mut sum = *lanes(row, middle);
        let row: &[u16; LANES + 2 * BESIDE] = row[n * LANES..].first_chunk().expect("a row has margins");
        let mut out = out[n..].iter_mut().step_by(parts);
        let mut widths = widths.iter();
        let mut next = widths.next();
        // The compiler writes all steps out: none has to look whether it is still within the row.
        for reach in 0..BESIDE {
            if reach > 0 {
                for i in 0..LANES {
                    sum[i] += row[BESIDE - reach + i] + row[BESIDE + reach + i];
                }
            }
            if next == Some(&reach) {
                *out.next().expect("one for each width") = sum;
                next = widths.next();
                if next.is_none() {
                    break;
                }
            }
        }
    }
}

#[inline(always)]
fn lanes<T>(values: &[T], at: usize) -> &[T; LANES] {
    values[at..].first_chunk().expect("rows are whole vectors")
}

/// What a smoothed disk that touches the edge of its grid has more and less than one that does not: its last row but
/// one, which is mirrored, and of its last row, one pixel, which is cut. To be smoothed across.
#[inline(always)]
fn missing_rows(
    (padded, over_runs): (&[u16], &[[u16; LANES]]),
    mirrored: &[usize],
    rows: Rows,
    disk: &Disk,
    out: &mut [[i16; LANES]],
) {
    let Rows { margin, parts, .. } = rows;
    let last = disk.reaches[margin - 2];
    let number = disk.widths.iter().take_while(|&&width| width < last).count();
    for (y, out) in out.chunks_exact_mut(parts).enumerate() {
        for (n, out) in out.iter_mut().enumerate() {
            let run = |y: usize| &over_runs[(mirrored[y] * disk.widths.len() + number) * parts + n];
            let cut = |y: usize| lanes(padded, mirrored[y] * rows.padded() + BESIDE + n * LANES);
            let (a, b) = (run(y + 1), run(y + 2 * margin - 1));
            let (c, d) = (cut(y), cut(y + 2 * margin));
            for i in 0..LANES {
                out[i] = (a[i] + b[i]) as i16 - (c[i] + d[i]) as i16;
            }
        }
    }
}

/// Sums of the columns that reach `half` above and below.
#[inline(always)]
fn sums_of_columns(padded: &[u16], mirrored: &[usize], rows: Rows, half: usize, out: &mut [u16]) {
    let (width, margin) = (rows.padded(), rows.margin);
    let row = |y: usize| &padded[mirrored[y] * width..][..width];
    let (first, rest) = out.split_at_mut(width);
    first.fill(0);
    for y in margin - half..=margin + half {
        first.iter_mut().zip(row(y)).for_each(|(sum, value)| *sum += value);
    }
    let mut before = &*first;
    for (out, y) in rest.chunks_exact_mut(width).zip(margin + 1..) {
        let (gone, new) = (row(y - half - 1), row(y + half));
        for i in 0..width {
            out[i] = before[i] + new[i] - gone[i];
        }
        before = out;
    }
}

/// As [`missing_rows`] with the columns to the left and right, to be smoothed along them.
#[inline(always)]
fn missing_columns([padded, over_columns]: [&[u16]; 2], rows: Rows, out: &mut [[i16; LANES]]) {
    let Rows { margin, parts, .. } = rows;
    for (y, out) in out.chunks_exact_mut(parts).enumerate() {
        for (n, out) in out.iter_mut().enumerate() {
            let middle = y * rows.padded() + BESIDE + n * LANES;
            let (a, b) = (lanes(over_columns, middle + 1 - margin), lanes(over_columns, middle + margin - 1));
            let (c, d) = (lanes(padded, middle - margin), lanes(padded, middle + margin));
            for i in 0..LANES {
                out[i] = (a[i] + b[i]) as i16 - (c[i] + d[i]) as i16;
            }
        }
    }
}

/// Smooths sums over disks with `rim` along columns, and adds the share of what is `missing`. Rows of `out` have
/// [`EDGE`] more columns on both sides, of which as many as the rim needs are filled.
#[inline(always)]
fn smooth_along(
    sums: &[[f32; LANES]],
    missing: Option<&[[i16; LANES]]>,
    mirrored: &[usize],
    rows: Rows,
    rim: &[f32],
    out: &mut [f32],
) {
    let Rows { plane: Plane { width, .. }, margin, parts } = rows;
    for (y, row) in out.chunks_exact_mut(parts * LANES + 2 * EDGE).enumerate() {
        for (n, out) in row[EDGE..].as_chunks_mut::<LANES>().0[..parts].iter_mut().enumerate() {
            let at = |y: usize| &sums[mirrored[y] * parts + n];
            let mut sum = times(at(y + margin), rim[0]);
            for (k, weight) in (1..).zip(&rim[1..]) {
                let (a, b) = (at(y + margin - k), at(y + margin + k));
                for i in 0..LANES {
                    sum[i] += weight * (a[i] + b[i]);
                }
            }
            if let Some(missing) = missing {
                let missing = &missing[y * parts + n];
                for i in 0..LANES {
                    sum[i] += rim[1] * f32::from(missing[i]);
                }
            }
            *out = sum;
        }
        for k in 1..rim.len() {
            row[EDGE - k] = row[EDGE + Border::Mirror.index(-(k as isize), width)];
            let last = width - 1 + k;
            row[EDGE + last] = row[EDGE + Border::Mirror.index(last as isize, width)];
        }
    }
}

/// The compiler leaves `map` of so many in memory.
#[inline(always)]
fn times(values: &[f32; LANES], factor: f32) -> [f32; LANES] {
    let mut product = [0.0; LANES];
    for i in 0..LANES {
        product[i] = factor * values[i];
    }
    product
}

/// Smooths rows with `rim`, adds the share of what is `missing`, smoothed along columns, and gives the `share` of all.
#[inline(always)]
fn smooth_across(
    along: &[f32],
    missing: Option<&[[i16; LANES]]>,
    mirrored: &[usize],
    rows: Rows,
    (rim, share): (&[f32], f32),
    out: &mut [f32],
) {
    let Rows { plane: Plane { width, .. }, margin, parts } = rows;
    for (y, out) in out.chunks_exact_mut(width).enumerate() {
        for (n, out) in out.chunks_mut(LANES).enumerate() {
            let first = y * (parts * LANES + 2 * EDGE) + EDGE + n * LANES;
            let mut sum = times(lanes(along, first), rim[0]);
            for (k, weight) in (1..).zip(&rim[1..]) {
                let (a, b) = (lanes(along, first - k), lanes(along, first + k));
                for i in 0..LANES {
                    sum[i] += weight * (a[i] + b[i]);
                }
            }
            if let Some(missing) = missing {
                let at = |y: usize| &missing[mirrored[y] * parts + n];
                let middle = at(y + margin);
                for i in 0..LANES {
                    sum[i] += rim[1] * rim[0] * f32::from(middle[i]);
                }
                for (k, weight) in (1..).zip(&rim[1..]) {
                    let (a, b) = (at(y + margin - k), at(y + margin + k));
                    for i in 0..LANES {
                        sum[i] += rim[1] * weight * f32::from(a[i] + b[i]);
                    }
                }
            }
            out.iter_mut().zip(sum).for_each(|(out, sum)| *out = sum * share);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Corruption, Extent, ImageKey};
    use super::*;

    /// The kernel by its definition (spec/reconstruction 3.4): a disk on a grid, smoothed there.
    fn kernel(radius: f64, sigma: f64) -> (isize, Vec<f64>) {
        let (side, taps) = if radius <= 8.0 { (8, 1) } else { (radius as isize, 2) };
        let size = (2 * side + 1) as usize;
        let inside = |y: isize, x: isize| ((y * y + x * x) as f64) <= radius * radius;
        let grid = |at: isize| Border::Mirror.index(at + side, size) as isize - side;
        let weight = |k: isize| (-0.5 * (k as f64 / sigma).powi(2)).exp();
        let mut kernel = Vec::new();
        for (y, x) in (-side..=side).flat_map(|y| (-side..=side).map(move |x| (y, x))) {
            let taps = (-taps..=taps).flat_map(|j| (-taps..=taps).map(move |k| (j, k)));
            let met = taps.filter(|&(j, k)| inside(grid(y + j), grid(x + k)));
            kernel.push(met.map(|(j, k)| weight(j) * weight(k)).sum::<f64>());
        }
        // The smoothing keeps the sum of the grid up to what it mirrors; weights are those of the disk's count.
        let total: f64 = (-taps..=taps).map(weight).sum::<f64>().powi(2);
        let count = (-side..=side).flat_map(|y| (-side..=side).map(move |x| (y, x)));
        let count = count.filter(|&(y, x)| inside(y, x)).count() as f64;
        (side, kernel.into_iter().map(|weight| weight / total / count).collect())
    }

    #[test]
    fn images_are_correlated_with_the_kernel_of_the_definition() {
        for [channels, height, width] in [[3, 40, 37], [1, 64, 64], [1, 3, 70], [1, 1, 1]] {
            let extent = Extent { channels, height, width };
            let image: Vec<u8> = (0..extent.len()).map(|i| (i * i % 251 + i % 5) as u8).collect();
            for (profile, severity) in Profile::ALL.iter().flat_map(|&p| Severity::ALL.map(|s| (p, s))) {
                let (radius, sigma) = profile.pick(severity, &TINY, &IMAGENET);
                let (side, kernel) = kernel(radius, sigma);
                let (mut s, mut bytes) = (Scratch::new(), image.clone());
                let key = ImageKey { seed: 1, image: 1 };
                Corruption::DefocusBlur.apply(profile, severity, key, &mut bytes, extent, &mut s);
                for (i, &found) in s.values.iter().enumerate().step_by(17) {
                    let (c, y, x) = (i / (height * width), i / width % height, i % width);
                    let mut expected = 0.0;
                    for (k, weight) in kernel.iter().enumerate() {
                        let size = 2 * side + 1;
                        let (dy, dx) = (k as isize / size - side, k as isize % size - side);
                        let row = Border::Mirror.index(y as isize + dy, height);
                        let column = Border::Mirror.index(x as isize + dx, width);
                        expected += weight * f64::from(image[(c * height + row) * width + column]);
                    }
                    // What is left out on purpose is less than a hundredth of a level; the rest is rounding.
                    let most = if radius > 8.0 { 0.01 } else { 5e-4 };
                    let off = (f64::from(found) - expected).abs();
                    assert!(off < most, "{extent:?} radius {radius}: {found}, not {expected}");
                }
            }
        }
    }

    /// Counts of pixels and weights of spec/reconstruction 3.4.
    #[test]
    fn disks_have_the_pixels_of_the_definition() {
        for (radius, pixels) in [(0.5, 1), (1.0, 5), (1.5, 9), (2.5, 21), (3.0, 29), (10.0, 317)] {
            assert_eq!(Disk::new(radius, 0.5).pixels(), pixels, "{radius}");
        }
        let rim = Disk::new(0.5, 0.6).rim;
        for (y, x, expected) in [(0, 0, 0.445_213), (0, 1, 0.111_015), (1, 1, 0.027_682)] {
            assert!((rim[y] * rim[x] - expected).abs() < 1e-6, "{y} {x}: {rim:?}");
        }
        assert!(TINY[1..].iter().all(|&(radius, sigma)| Disk::new(radius, sigma).rim == [1.0]));
    }
}
