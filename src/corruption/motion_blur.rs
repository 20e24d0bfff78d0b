//! Motion: a one-sided Gaussian along a line, as ImageMagick draws it.

use super::draws::Draws;
use super::filter::{Border, Margins, Plane, sum_shifted};
use super::scratch::round;
use super::{Profile, Scratch, Severity};

/// Radius and deviation.
const TINY: [(f64, f64); 5] = [(10.0, 1.0), (10.0, 1.5), (10.0, 2.0), (10.0, 2.5), (12.0, 3.0)];
const IMAGENET: [(f64, f64); 5] = [(10.0, 3.0), (15.0, 5.0), (15.0, 8.0), (15.0, 12.0), (20.0, 15.0)];

pub(super) fn apply(s: &mut Scratch, profile: Profile, severity: Severity, draws: &mut dyn Draws) {
    let degrees = draws.uniform(-45.0, 45.0);
    at_angle(s, profile, severity, degrees);
    if profile == Profile::Tiny {
        // ImageMagick hands bytes on.
        round(&mut s.values);
    }
}

pub(super) fn at_angle(s: &mut Scratch, profile: Profile, severity: Severity, degrees: f64) {
    let (radius, sigma) = profile.pick(severity, &TINY, &IMAGENET);
    let plane = s.extent.size();
    let Scratch { values, padded, .. } = s;
    for values in values.chunks_exact_mut(plane.height * plane.width) {
        blur(values, plane, radius, sigma, degrees, padded);
    }
}

/// Blurs one plane along `degrees`: tap j lies j pixels away, at the next whole position, and the edge is
/// repeated.
pub(super) fn blur(
    values: &mut [f32],
    plane: Plane,
    radius: f64,
    sigma: f64,
    degrees: f64,
    padded: &mut Vec<f32>,
) {
    let n = 2 * radius.ceil() as usize + 1;
    let weight = |j: usize| (-0.5 * (j as f64 / sigma).powi(2)).exp();
    let total: f64 = (0..n).map(weight).sum();
    let (sine, cosine) = degrees.to_radians().sin_cos();
    let offset = |j: usize, step: f64| (j as f64 * step - 0.5).ceil() as isize;
    let end = [sine, cosine].map(|step| offset(n - 1, step));
    let [above, left] = end.map(|end| end.min(0).unsigned_abs());
    let [below, right] = end.map(|end| end.max(0).unsigned_abs());
    let margins = Margins { above, below, left, right };
    let width = plane.width + left + right;
    let at = |j: usize| {
        let row = above as isize + offset(j, sine);
        let column = left as isize + offset(j, cosine);
        row as usize * width + column as usize
    };
    let taps: Vec<(usize, f32)> = (0..n).map(|j| (at(j), (weight(j) / total) as f32)).collect();
    plane.pad(values, margins, Border::Nearest, padded);
    sum_shifted(padded, width, &taps, plane.width, values);
}
