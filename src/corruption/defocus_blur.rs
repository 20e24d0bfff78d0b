//! Defocus: correlation with a disk whose rim is smoothed.
//!
//! A smoothed disk is a disk and then a Gaussian. All weights of a disk are equal: a column of it is the difference of
//! two sums from the top of the image, and columns of equal height come from the same difference. Sums of 16 bits may
//! wrap around: no column, and no half of a disk, is as much as that.
#![expect(clippy::inline_always, reason = "functions are compiled for the vectors of their caller")]

use super::draws::Draws;
use super::filter::{Border, Margins, Plane};
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
    let Scratch { values, sums, .. } = &mut *s;
    values.resize(image.len(), 0.0);
    let size = (plane.height * plane.width).max(1);
    for (image, values) in image.chunks_exact(size).zip(values.chunks_exact_mut(size)) {
        disk.correlate(image, plane, sums, values);
    }
    s.give(image);
}

/// Memory of one plane.
#[derive(Debug, Default)]
pub(super) struct Sums {
    padded: Vec<u16>,
    /// Of all pixels above.
    from_top: Vec<u16>,
    /// A row of columns for each height.
    columns: Vec<u16>,
    over_disks: Vec<f32>,
    /// What is missing above and below, and to the left and right.
    missing: [Vec<f32>; 2],
    rows: [Vec<f32>; 2],
}

#[derive(Debug)]
struct Disk {
    /// How far it reaches above and below each column, from the middle one to the last.
    heights: Vec<usize>,
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
        let heights: Vec<usize> = (0..=radius as usize).map(reach).collect();
        let weight = |k: usize| (-0.5 * (k as f64 / sigma).powi(2)).exp();
        let total = 1.0 + 2.0 * (1..=taps).map(weight).sum::<f64>();
        let mut rim: Vec<f32> = (0..=taps).map(|k| (weight(k) / total) as f32).collect();
        rim.truncate(rim.iter().take_while(|&&weight| weight > 1e-9).count());
        Self { touches: heights.len() > side && rim.len() > 1, heights, rim }
    }

    /// How far beyond the edges pixels are needed.
    fn margin(&self) -> usize {
        self.heights.len()
    }

    fn pixels(&self) -> usize {
        let columns = self.heights.iter().map(|height| 2 * height + 1);
        2 * columns.sum::<usize>() - (2 * self.heights[0] + 1)
    }

    /// The means over the disk around each pixel of a plane.
    fn correlate(&self, image: &[u8], plane: Plane, s: &mut Sums, out: &mut [f32]) {
        let margin = self.margin();
        // Rows of whole vectors: what lies behind their end is mirrored, too.
        let stride = plane.width.next_multiple_of(LANES);
        let padded_width = (stride + 2 * margin).next_multiple_of(FEW);
        let margins = Margins { right: padded_width - margin - plane.width, ..Margins::of([margin; 2]) };
        plane.pad(image, margins, Border::Mirror, &mut s.padded);
        s.from_top.resize(s.padded.len() + padded_width, 0);
        sums_from_top(&s.padded, padded_width, &mut s.from_top);
        // Columns of equal height lie side by side.
        let mut heights = self.heights.clone();
        heights.dedup();
        let number = |height| heights.iter().take_while(|&&h| h > height).count();
        let rows: Vec<usize> = self.heights.iter().map(|&height| number(height) * padded_width).collect();
        s.columns.resize(heights.len().max(2) * padded_width, 0);
        for sums in s.missing.iter_mut().chain([&mut s.over_disks]) {
            sums.resize(plane.height * stride, 0.0);
        }
        let size = [stride, margin, padded_width];
        sums_over_disks(&s.from_top, size, &heights, &rows, &mut s.columns, &mut s.over_disks);
        if self.touches {
            // The share of the next pixel but one, below 0.0003, is left out.
            let last = (self.rim[1], self.heights[margin - 2]);
            missing_rows(&s.padded, size, last, &mut s.columns, &mut s.missing[0]);
            missing_columns([&s.padded, &s.from_top], size, last, &mut s.columns, &mut s.missing[1]);
        }
        let [row, smoothed] = &mut s.rows;
        row.resize(stride + 2 * (self.rim.len() - 1), 0.0);
        smoothed.resize(stride, 0.0);
        let missing = self.touches.then_some(&s.missing);
        means(&s.over_disks, missing, &self.rim, 1.0 / self.pixels() as f32, [row, smoothed], plane, out);
    }
}

/// Values of a row that are computed side by side in registers.
const LANES: usize = 64;
/// Values of a padded row that are computed at once.
const FEW: usize = 16;

#[inline(always)]
fn lanes<T>(values: &[T], at: usize) -> &[T; LANES] {
    values[at..].first_chunk().expect("rows are whole vectors")
}

/// Row y of `sums` is the sum of the rows above it.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl", "x86_64+avx2", "x86_64+sse4.1"))]
fn sums_from_top(values: &[u16], width: usize, sums: &mut [u16]) {
    sums[..width].fill(0);
    for (y, row) in values.chunks_exact(width).enumerate() {
        let (above, below) = sums[y * width..][..2 * width].split_at_mut(width);
        let chunks = above.as_chunks::<FEW>().0.iter().zip(row.as_chunks::<FEW>().0);
        for (below, (above, value)) in below.as_chunks_mut::<FEW>().0.iter_mut().zip(chunks) {
            let mut sums = *above;
            for i in 0..FEW {
                sums[i] = sums[i].wrapping_add(value[i]);
            }
            *below = sums;
        }
    }
}

/// Sums of columns that reach `height` above and below row `y`.
#[inline(always)]
fn column_sums(from_top: &[u16], y: usize, height: usize, out: &mut [u16]) {
    let width = out.len();
    let [top, bottom] = [y - height, y + height + 1].map(|row| &from_top[row * width..][..width]);
    let chunks = top.as_chunks::<FEW>().0.iter().zip(bottom.as_chunks::<FEW>().0);
    for (out, (top, bottom)) in out.as_chunks_mut::<FEW>().0.iter_mut().zip(chunks) {
        let mut sums = *bottom;
        for i in 0..FEW {
            sums[i] = sums[i].wrapping_sub(top[i]);
        }
        *out = sums;
    }
}

/// Sums over disks of columns of `heights`; those from the middle one to the last begin at `rows` of `columns`.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl", "x86_64+avx2", "x86_64+sse4.1"))]
fn sums_over_disks(
    from_top: &[u16],
    [stride, margin, width]: [usize; 3],
    heights: &[usize],
    rows: &[usize],
    columns: &mut [u16],
    out: &mut [f32],
) {
    for (y, out) in out.chunks_exact_mut(stride).enumerate() {
        for (&height, column) in heights.iter().zip(columns.chunks_exact_mut(width)) {
            column_sums(from_top, y + margin, height, column);
        }
        for (n, out) in out.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
            let first = margin + n * LANES;
            let (mut left, mut right) = (*lanes(columns, rows[0] + first), [0u16; LANES]);
            for (k, &row) in rows.iter().enumerate().skip(1) {
                let (before, after) = (lanes(columns, row + first - k), lanes(columns, row + first + k));
                for i in 0..LANES {
                    left[i] = left[i].wrapping_add(before[i]);
                    right[i] = right[i].wrapping_add(after[i]);
                }
            }
            for i in 0..LANES {
                out[i] = (i32::from(left[i]) + i32::from(right[i])) as f32;
            }
        }
    }
}

/// What a smoothed disk that touches the edge of its grid has more and less than one that does not: of its last row but
/// one, `half` pixels to both sides, which is mirrored, and of its last row, one pixel, which is cut. To be smoothed
/// across.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl", "x86_64+avx2", "x86_64+sse4.1"))]
fn missing_rows(
    padded: &[u16],
    [stride, margin, width]: [usize; 3],
    (share, half): (f32, usize),
    memory: &mut [u16],
    out: &mut [f32],
) {
    let row = |at: usize| &padded[at * width..][..width];
    let pair = &mut memory[..width];
    for (out, y) in out.chunks_exact_mut(stride).zip(margin..) {
        let (last, cut) = ([y - margin + 1, y + margin - 1].map(row), [y - margin, y + margin].map(row));
        pair.iter_mut().zip(last[0]).zip(last[1]).for_each(|((pair, a), b)| *pair = a + b);
        for (n, out) in out.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
            let first = margin + n * LANES;
            let (a, b) = (lanes(cut[0], first), lanes(cut[1], first));
            let mut sum = [0u16; LANES];
            for at in first - half..=first + half {
                let pair = lanes(pair, at);
                for i in 0..LANES {
                    sum[i] += pair[i];
                }
            }
            for i in 0..LANES {
                out[i] = share * (i32::from(sum[i]) - i32::from(a[i] + b[i])) as f32;
            }
        }
    }
}

/// As [`missing_rows`] with the columns to the left and right, to be smoothed along them.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl", "x86_64+avx2", "x86_64+sse4.1"))]
fn missing_columns(
    [padded, from_top]: [&[u16]; 2],
    [stride, margin, width]: [usize; 3],
    (share, half): (f32, usize),
    memory: &mut [u16],
    out: &mut [f32],
) {
    let column = &mut memory[..width];
    for (out, y) in out.chunks_exact_mut(stride).zip(margin..) {
        column_sums(from_top, y, half, column);
        let row = &padded[y * width..][..width];
        let last = column[1..].iter().zip(&column[2 * margin - 1..]);
        let cut = row.iter().zip(&row[2 * margin..]);
        for ((out, (a, b)), (c, d)) in out.iter_mut().zip(last).zip(cut) {
            *out = share * (i32::from(a + b) - i32::from(c + d)) as f32;
        }
    }
}

/// Smooths sums over disks with `rim`, adds what is missing, and gives the `share` of that.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl", "x86_64+avx2", "x86_64+sse4.1"))]
fn means(
    sums: &[f32],
    missing: Option<&[Vec<f32>; 2]>,
    rim: &[f32],
    share: f32,
    [padded, smoothed]: [&mut [f32]; 2],
    Plane { height, width }: Plane,
    out: &mut [f32],
) {
    let (stride, taps) = (smoothed.len(), rim.len() - 1);
    for (y, out) in out.chunks_exact_mut(width).enumerate() {
        if taps == 0 {
            let sums = &sums[y * stride..][..width];
            out.iter_mut().zip(sums).for_each(|(out, sum)| *out = sum * share);
            continue;
        }
        let side = |at: isize| Border::Mirror.index(at, height) * stride;
        smooth(
            sums,
            y * stride,
            |k| [side(y as isize - k), side(y as isize + k)],
            rim,
            &mut padded[taps..][..stride],
        );
        if let Some([above, _]) = missing {
            let above = &above[y * stride..][..stride];
            padded[taps..].iter_mut().zip(above).for_each(|(value, missing)| *value += missing);
        }
        for k in 1..=taps {
            padded[taps - k] = padded[taps + Border::Mirror.index(-(k as isize), width)];
            let last = width - 1 + k;
            padded[taps + last] = padded[taps + Border::Mirror.index(last as isize, width)];
        }
        smooth(padded, taps, |k| [taps - k as usize, taps + k as usize], rim, smoothed);
        if let Some([_, beside]) = missing {
            // The padded row has served.
            smooth(
                beside,
                y * stride,
                |k| [side(y as isize - k), side(y as isize + k)],
                rim,
                &mut padded[..stride],
            );
            smoothed.iter_mut().zip(&*padded).for_each(|(value, missing)| *value += missing);
        }
        out.iter_mut().zip(&*smoothed).for_each(|(out, value)| *out = value * share);
    }
}

/// The values from `middle` on, and those to their `sides`, with the weights of `rim`.
#[inline(always)]
fn smooth(values: &[f32], middle: usize, sides: impl Fn(isize) -> [usize; 2], rim: &[f32], out: &mut [f32]) {
    for (n, out) in out.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
        let mut sum = lanes(values, middle + n * LANES).map(|value| rim[0] * value);
        for (k, weight) in (1..).zip(&rim[1..]) {
            let [a, b] = sides(k);
            let (a, b) = (lanes(values, a + n * LANES), lanes(values, b + n * LANES));
            for i in 0..LANES {
                sum[i] += weight * (a[i] + b[i]);
            }
        }
        *out = sum;
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
