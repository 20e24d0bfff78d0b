//! Elastic transform: pixels are taken from nearby places, which vary smoothly. Profile T distorts the whole
//! image by an affine map first.

use super::draws::Draws;
use super::filter::{Border, Kernel, Plane, blur};
use super::scratch::whole;
use super::{Extent, Profile, Scratch, Severity};
use multiversion::multiversion;

/// Amplitude, deviation of the smoothing, and shift of the affine map's points, in heights of the image.
const TINY: [[f64; 3]; 5] =
    [[0.0, 0.0, 0.08], [0.05, 0.3, 0.06], [0.1, 0.08, 0.06], [0.1, 0.03, 0.03], [0.16, 0.03, 0.02]];
/// Amplitude, for fields of a two-hundredth of the side and a smoothing of a hundredth.
const IMAGENET: [f32; 5] = [12.5, 16.25, 21.25, 25.0, 30.0];

pub(super) fn apply(s: &mut Scratch, profile: Profile, severity: Severity, draws: &mut dyn Draws) {
    let (height, width) = (s.extent.height as f64, s.extent.width as f64);
    match profile {
        Profile::Tiny => {
            let [amplitude, sigma, shift] = TINY[severity.index()].map(|share| height * share);
            affine(s, shift, draws);
            // Level 1 is the affine map alone.
            if amplitude > 0.0 {
                displace(s, amplitude as f32, [1.0; 2], [sigma; 2], draws);
            }
        }
        Profile::ImageNet => {
            let sigmas = [0.01 * height, 0.01 * width];
            displace(s, IMAGENET[severity.index()], sigmas.map(|s| 0.5 * s as f32), sigmas, draws);
        }
    }
}

/// Shifts three corners of a square in the middle by up to `shift` pixels, and the image with them.
fn affine(s: &mut Scratch, shift: f64, draws: &mut dyn Draws) {
    let Extent { height, width, .. } = s.extent;
    let side = (height.min(width) / 3) as f64;
    let (x, y) = ((width / 2) as f64, (height / 2) as f64);
    let points = [[x + side, y + side], [x + side, y - side], [x - side, y - side]];
    let moved = points.map(|point| point.map(|at| at + draws.uniform(-shift, shift)));
    let Some(back) = inverse(points, moved) else { return };
    for (places, [a, b, c]) in s.layers.iter_mut().zip(back) {
        let place = |at: usize| (a * (at % width) as f64 + b * (at / width) as f64 + c) as f32;
        places.clear();
        places.extend((0..height * width).map(place));
    }
    sample(s, Border::Mirror);
}

/// The affine map that takes `moved` to `points`, as rows of (x, y, 1); none if they lie on a line.
fn inverse(points: [[f64; 2]; 3], moved: [[f64; 2]; 3]) -> Option<[[f64; 3]; 2]> {
    let edge = |p: [[f64; 2]; 3], i: usize| [p[i][0] - p[0][0], p[i][1] - p[0][1]];
    let ([ux, uy], [vx, vy]) = (edge(moved, 1), edge(moved, 2));
    let determinant = ux * vy - vx * uy;
    (determinant.abs() > 1e-9).then(|| {
        [0, 1].map(|axis| {
            let (u, v) = (edge(points, 1)[axis], edge(points, 2)[axis]);
            let a = (u * vy - v * uy) / determinant;
            let b = (v * ux - u * vx) / determinant;
            [a, b, points[0][axis] - a * moved[0][0] - b * moved[0][1]]
        })
    })
}

/// Moves every pixel by smoothed noise: columns by up to `most[0]` before smoothing, rows by `most[1]`.
fn displace(s: &mut Scratch, amplitude: f32, most: [f32; 2], sigmas: [f64; 2], draws: &mut dyn Draws) {
    let plane = s.extent.size();
    let kernels = sigmas.map(|sigma| Kernel::gaussian(sigma, 3.0));
    let Scratch { layers, padded, .. } = s;
    for (axis, (field, most)) in layers.iter_mut().zip(most).enumerate() {
        field.resize(plane.height * plane.width, 0.0);
        draws.uniforms(-most, most, field);
        blur(field, plane, [&kernels[0], &kernels[1]], Border::Reflect, padded);
        for (y, row) in field.chunks_exact_mut(plane.width).enumerate() {
            for (x, value) in row.iter_mut().enumerate() {
                *value = [x, y][axis] as f32 + amplitude * *value;
            }
        }
    }
    sample(s, Border::Reflect);
}

/// A pixel's channels, filled up to what one vector holds.
type Pixel = [f32; 4];

/// Replaces every pixel by what lies, between four neighbours, at its column in the first layer and its row in the
/// second.
fn sample(s: &mut Scratch, beyond: Border) {
    let plane = s.extent.size();
    let n = plane.height * plane.width;
    let Scratch { values, spare, padded, layers: [columns, rows, _], words: corners, .. } = s;
    // The last pixels have neighbours, too: with a share of nothing.
    spare.truncate(4 * n);
    spare.resize(4 * (n + plane.width + 1), 0.0);
    padded.resize(4 * n, 0.0);
    corners.resize(n, 0);
    let (pixels, found) = (spare.as_chunks_mut::<4>().0, padded.as_chunks_mut::<4>().0);
    for (channel, values) in values.chunks_exact(n).enumerate() {
        pixels.iter_mut().zip(values).for_each(|(pixel, &value)| pixel[channel] = value);
    }
    split(columns, rows, plane, beyond, corners);
    between(pixels, plane.width, [columns, rows], corners, found);
    for (channel, values) in values.chunks_exact_mut(n).enumerate() {
        values.iter_mut().zip(&*found).for_each(|(value, pixel)| *value = pixel[channel]);
    }
}

/// The pixel above and to the left of each place; the place becomes its distance from that.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl", "x86_64+avx2", "x86_64+sse4.1"))]
fn split(columns: &mut [f32], rows: &mut [f32], plane: Plane, beyond: Border, corners: &mut [u32]) {
    let Plane { height, width } = plane;
    let [fold_x, fold_y] = [width, height].map(|n| Fold::new(beyond, n));
    let [last_x, last_y] = [width, height].map(|n| n.saturating_sub(2) as f32);
    for ((x, y), corner) in columns.iter_mut().zip(rows).zip(corners) {
        (*x, *y) = (fold_x.within(*x), fold_y.within(*y));
        let (left, top) = (x.floor().min(last_x), y.floor().min(last_y));
        *corner = (whole(top) as u32).wrapping_mul(width as u32).wrapping_add(whole(left) as u32);
        (*x, *y) = (*x - left, *y - top);
    }
}

/// Pixels beyond the edges are pixels again, back and forth. So are the places between them.
#[derive(Debug, Clone, Copy)]
struct Fold {
    /// How far before the first pixel it turns back.
    before: f32,
    /// There and back.
    period: f32,
    last: f32,
}

impl Fold {
    fn new(beyond: Border, n: usize) -> Self {
        let last = n as f32 - 1.0;
        let before = if beyond == Border::Mirror { 0.0 } else { 0.5 };
        Self { before, period: (2.0 * (last + 2.0 * before)).max(1.0), last }
    }

    /// Where among the pixels the place is.
    #[inline(always)]
    #[expect(
        clippy::inline_always,
        reason = "it is compiled for the vectors of its caller only if it is part of it"
    )]
    fn within(self, at: f32) -> f32 {
        let turns = ((at + self.before) / self.period).floor();
        let there = at - turns * self.period;
        let back = self.period - 2.0 * self.before - there;
        there.min(back).clamp(0.0, self.last)
    }
}

/// Mixes four neighbours each by the distances of the place from the first of them.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl", "x86_64+avx2", "x86_64+sse4.1"))]
fn between(pixels: &[Pixel], width: usize, [columns, rows]: [&[f32]; 2], corners: &[u32], out: &mut [Pixel]) {
    for (((out, &across), &down), &corner) in out.iter_mut().zip(columns).zip(rows).zip(corners) {
        let upper = &pixels[corner as usize..][..2];
        let lower = &pixels[corner as usize + width..][..2];
        let ([a, b], [c, d]) = ([upper[0], upper[1]], [lower[0], lower[1]]);
        for i in 0..4 {
            let (upper, lower) = (a[i] + across * (b[i] - a[i]), c[i] + across * (d[i] - c[i]));
            out[i] = upper + down * (lower - upper);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_map_takes_moved_points_back() {
        let points = [[53.0, 53.0], [53.0, 11.0], [11.0, 11.0]];
        let moved = [[50.0, 54.0], [55.5, 9.0], [12.0, 13.0]];
        let back = inverse(points, moved).unwrap();
        for (point, moved) in points.iter().zip(moved) {
            for axis in 0..2 {
                let [a, b, c] = back[axis];
                assert!((a * moved[0] + b * moved[1] + c - point[axis]).abs() < 1e-9);
            }
        }
        assert_eq!(inverse(points, [[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]), None);
    }

    /// Between the two pixels that [`Border::index`] names for a place.
    #[test]
    fn places_beyond_the_edge_are_folded_back() {
        for beyond in [Border::Mirror, Border::Reflect] {
            for n in [1, 2, 5] {
                let value = |at: isize| (beyond.index(at, n).pow(2) * 3) as f32;
                for eighth in -100..100 {
                    let at = eighth as f32 / 8.0;
                    let first = at.floor();
                    let (a, b) = (value(first as isize), value(first as isize + 1));
                    let expected = a + (at - first) * (b - a);
                    let (mut columns, mut rows, mut corner) = ([at], [0.0], [0]);
                    split(&mut columns, &mut rows, Plane { height: 1, width: n }, beyond, &mut corner);
                    let left = corner[0] as isize;
                    assert!(corner[0] as usize <= n.saturating_sub(2) && rows == [0.0]);
                    let (a, b) = (value(left), value(left + 1));
                    assert_eq!(a + columns[0] * (b - a), expected, "{beyond:?} {n} {at}");
                }
            }
        }
    }
}
