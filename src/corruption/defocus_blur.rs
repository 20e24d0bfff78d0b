//! Defocus: correlation with a disk whose rim is smoothed.

use super::draws::Draws;
use super::filter::{Border, Margins, Plane};
use super::{Profile, Scratch, Severity};
use multiversion::multiversion;

/// Radius, and deviation of the Gaussian that smooths the rim.
const TINY: [(f64, f64); 5] = [(0.5, 0.6), (1.0, 0.1), (1.5, 0.1), (2.5, 0.01), (3.0, 0.1)];
const IMAGENET: [(f64, f64); 5] = [(3.0, 0.1), (4.0, 0.5), (6.0, 0.5), (8.0, 0.5), (10.0, 0.5)];

pub(super) fn apply(s: &mut Scratch, profile: Profile, severity: Severity, _: &mut dyn Draws) {
    let (radius, sigma) = profile.pick(severity, &TINY, &IMAGENET);
    let disk = Disk::new(radius, sigma);
    let plane = s.extent.size();
    let margin = disk.rows.len() - 1;
    let Scratch { values, spare, padded, .. } = s;
    for values in values.chunks_exact_mut(plane.height * plane.width) {
        plane.pad(values, Margins::of([margin; 2]), Border::Mirror, padded);
        disk.correlate(padded, plane, spare, values);
    }
}

/// A kernel that is its own mirror image in both directions: the quarter below and to the right of its middle.
/// Weights that are met twice from both sides of an axis are halved.
#[derive(Debug)]
struct Disk {
    /// Row by row, each as far as it has weights.
    rows: Vec<Vec<f32>>,
}

impl Disk {
    fn new(radius: f64, sigma: f64) -> Self {
        let (side, taps) = if radius <= 8.0 { (8, 1) } else { (radius as isize, 2) };
        let inside = |y: isize, x: isize| ((y * y + x * x) as f64) <= radius * radius;
        let count = (-side..=side).flat_map(|y| (-side..=side).map(move |x| (y, x)));
        let count = count.filter(|&(y, x)| inside(y, x)).count() as f64;
        let weight = |k: isize| (-0.5 * (k as f64 / sigma).powi(2)).exp();
        let total: f64 = (-taps..=taps).map(weight).sum();
        // The rim is smoothed within the grid, which is mirrored beyond its edge.
        let grid = |at: isize| Border::Mirror.index(at + side, (2 * side + 1) as usize) as isize - side;
        let smooth = |y: isize, x: isize| {
            let mut sum = 0.0;
            for j in -taps..=taps {
                for k in -taps..=taps {
                    sum += if inside(grid(y + j), grid(x + k)) { weight(j) * weight(k) } else { 0.0 };
                }
            }
            sum / total / total / count
        };
        let halved = |at: isize| if at == 0 { 0.5 } else { 1.0 };
        let row = |y: isize| -> Vec<f32> {
            let mut row: Vec<f32> =
                (0..=side).map(|x| (smooth(y, x) * halved(y) * halved(x)) as f32).collect();
            row.truncate(row.iter().rposition(|&w| w > 0.0).map_or(0, |last| last + 1));
            row
        };
        let mut rows: Vec<Vec<f32>> = (0..=side).map(row).collect();
        rows.truncate(rows.iter().rposition(|row| !row.is_empty()).map_or(1, |last| last + 1));
        let margin = rows.iter().map(Vec::len).max().unwrap_or(1).max(rows.len());
        rows.resize(margin, Vec::new());
        Self { rows }
    }

    fn correlate(&self, padded: &[f32], plane: Plane, sums: &mut Vec<f32>, out: &mut [f32]) {
        let margin = self.rows.len() - 1;
        let width = plane.width + 2 * margin;
        sums.resize(self.rows.len() * width, 0.0);
        for (y, out) in out.chunks_exact_mut(plane.width).enumerate() {
            for (k, sums) in sums.chunks_exact_mut(width).enumerate() {
                let [above, below] =
                    [y + margin - k, y + margin + k].map(|row| &padded[row * width..][..width]);
                sums.iter_mut().zip(above).zip(below).for_each(|((sum, a), b)| *sum = a + b);
            }
            row_sums(sums, width, &self.rows, margin, out);
        }
    }
}

const LANES: usize = 32;

/// `sums` has, for each row of the kernel, the two image rows that meet it, added.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl", "x86_64+avx2", "x86_64+sse4.1"))]
fn row_sums(sums: &[f32], width: usize, rows: &[Vec<f32>], margin: usize, out: &mut [f32]) {
    let (whole, rest) = out.as_chunks_mut::<LANES>();
    let tail = whole.len() * LANES;
    for (n, out) in whole.iter_mut().enumerate() {
        let mut total = [0.0; LANES];
        for (row, sums) in rows.iter().zip(sums.chunks_exact(width)) {
            for (k, &weight) in row.iter().enumerate() {
                let at = margin + n * LANES;
                let left: &[f32; LANES] = sums[at - k..].first_chunk().expect("the row is padded");
                let right: &[f32; LANES] = sums[at + k..].first_chunk().expect("the row is padded");
                for i in 0..LANES {
                    total[i] += weight * (left[i] + right[i]);
                }
            }
        }
        *out = total;
    }
    for (x, out) in rest.iter_mut().enumerate() {
        let at = margin + tail + x;
        *out = 0.0;
        for (row, sums) in rows.iter().zip(sums.chunks_exact(width)) {
            for (k, &weight) in row.iter().enumerate() {
                *out += weight * (sums[at - k] + sums[at + k]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts of pixels and weights of spec/reconstruction 3.4.
    #[test]
    fn disks_have_the_pixels_of_the_definition() {
        for (radius, sigma, pixels) in [(1.0, 0.1, 5), (1.5, 0.1, 9), (2.5, 0.01, 21), (3.0, 0.1, 29)] {
            let disk = Disk::new(radius, sigma);
            assert!((4.0 * disk.rows[0][0] - 1.0 / pixels as f32).abs() < 1e-6, "{radius}");
            let sum: f32 = disk.rows.iter().flatten().sum();
            assert!((4.0 * sum - 1.0).abs() < 1e-6, "{radius}: {sum}");
        }
        let small = Disk::new(0.5, 0.6);
        let expected = [[0.445_213, 0.111_015], [0.111_015, 0.027_682]];
        let found =
            [[4.0 * small.rows[0][0], 2.0 * small.rows[0][1]], [2.0 * small.rows[1][0], small.rows[1][1]]];
        for (found, expected) in found.iter().flatten().zip(expected.iter().flatten()) {
            assert!((found - expected).abs() < 1e-6, "{found} {expected}");
        }
    }
}
