//! Elastic transform: pixels are taken from nearby places, which vary smoothly. Profile T distorts the whole
//! image by an affine map first.

use super::draws::Draws;
use super::filter::{Border, Kernel, Plane, blur};
use super::{Extent, Profile, Scratch, Severity};

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
    sample(s, Border::Mirror, |x, y| back.map(|[a, b, c]| (a * x as f64 + b * y as f64 + c) as f32));
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
    let mut fields = std::mem::take(&mut s.layers);
    for (field, most) in fields.iter_mut().zip(most) {
        field.resize(plane.height * plane.width, 0.0);
        draws.uniforms(-most, most, field);
        blur(field, plane, [&kernels[0], &kernels[1]], Border::Reflect, &mut s.padded);
    }
    let [across, down, _] = &fields;
    sample(s, Border::Reflect, |x, y| {
        let at = y * plane.width + x;
        [x as f32 + amplitude * across[at], y as f32 + amplitude * down[at]]
    });
    s.layers = fields;
}

/// Replaces every pixel by what lies, between four neighbours, at the column and row that `place` gives.
fn sample(s: &mut Scratch, border: Border, place: impl Fn(usize, usize) -> [f32; 2]) {
    let Plane { height, width } = s.extent.size();
    let Scratch { values, spare, .. } = s;
    let n = height * width;
    spare.resize(values.len(), 0.0);
    // The corner above and to the left of a place, and the shares of the other ones.
    let split = |at: f32| {
        let whole = at as i32;
        let whole = whole - i32::from(whole as f32 > at);
        (whole as isize, at - whole as f32)
    };
    for y in 0..height {
        for x in 0..width {
            let [(left, across), (top, down)] = place(x, y).map(split);
            let columns = [left, left + 1].map(|at| border.index(at, width));
            let rows = [top, top + 1].map(|at| border.index(at, height) * width);
            for (values, out) in values.chunks_exact(n).zip(spare.chunks_exact_mut(n)) {
                let between = |row: usize| {
                    let (a, b) = (values[row + columns[0]], values[row + columns[1]]);
                    a + across * (b - a)
                };
                let (upper, lower) = (between(rows[0]), between(rows[1]));
                out[y * width + x] = upper + down * (lower - upper);
            }
        }
    }
    std::mem::swap(values, spare);
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
}
