//! Snow: flakes that fall, over a whitened image.

use super::draws::Draws;
use super::filter::Plane;
use super::scratch::round;
use super::zoom::Axis;
use super::{Profile, Scratch, Severity, motion_blur};

#[derive(Debug, Clone, Copy)]
struct Flakes {
    mean: f32,
    std: f32,
    zoom: f64,
    threshold: f32,
    radius: f64,
    sigma: f64,
    /// Share of the image that is not whitened.
    mix: f32,
}

const fn flakes(
    [mean, std]: [f32; 2],
    zoom: f64,
    threshold: f32,
    [radius, sigma]: [f64; 2],
    mix: f32,
) -> Flakes {
    Flakes { mean, std, zoom, threshold, radius, sigma, mix }
}

const TINY: [Flakes; 5] = [
    flakes([0.1, 0.2], 1.0, 0.6, [8.0, 3.0], 0.8),
    flakes([0.1, 0.2], 1.0, 0.5, [10.0, 4.0], 0.8),
    flakes([0.15, 0.3], 1.75, 0.55, [10.0, 4.0], 0.7),
    flakes([0.25, 0.3], 2.25, 0.6, [12.0, 6.0], 0.65),
    flakes([0.3, 0.3], 1.25, 0.65, [14.0, 12.0], 0.6),
];
const IMAGENET: [Flakes; 5] = [
    flakes([0.1, 0.3], 3.0, 0.5, [10.0, 4.0], 0.8),
    flakes([0.2, 0.3], 2.0, 0.5, [12.0, 4.0], 0.7),
    flakes([0.55, 0.3], 4.0, 0.9, [12.0, 8.0], 0.7),
    flakes([0.55, 0.3], 4.5, 0.85, [12.0, 8.0], 0.65),
    flakes([0.55, 0.3], 2.5, 0.85, [12.0, 12.0], 0.55),
];

pub(super) fn apply(s: &mut Scratch, profile: Profile, severity: Severity, draws: &mut dyn Draws) {
    let degrees = draws.uniform(-135.0, -45.0);
    at_angle(s, profile, severity, degrees, draws);
}

pub(super) fn at_angle(
    s: &mut Scratch,
    profile: Profile,
    severity: Severity,
    degrees: f64,
    draws: &mut dyn Draws,
) {
    let flakes = profile.pick(severity, &TINY, &IMAGENET);
    let plane = s.extent.size();
    let n = plane.height * plane.width;
    let Scratch { values, padded, layers: [drawn, layer, gray], turned, .. } = s;
    drawn.resize(n, 0.0);
    draws.normals(drawn);
    for value in drawn.iter_mut() {
        *value = flakes.mean + flakes.std * *value;
    }
    // Profile I blurs all of the enlarged layer, and then keeps its first rows and columns.
    let trim = profile == Profile::Tiny;
    let axis = |n: usize| Axis::new(n, flakes.zoom, trim, if trim { n } else { usize::MAX });
    let (down, across) = (axis(plane.height), axis(plane.width));
    let enlarged = Plane { height: down.len(), width: across.len() };
    layer.clear();
    layer.resize(enlarged.height * enlarged.width, 0.0);
    turned.set(drawn, plane.width);
    turned.add_to([&down, &across], layer);
    for value in &mut *layer {
        let seen = if *value < flakes.threshold { 0.0 } else { value.clamp(0.0, 1.0) };
        *value = if trim { (255.0 * seen).trunc() } else { 255.0 * seen };
    }
    motion_blur::blur(layer, enlarged, flakes.radius, flakes.sigma, degrees, padded);
    round(layer);
    for y in 0..plane.height {
        layer.copy_within(y * enlarged.width..y * enlarged.width + plane.width, y * plane.width);
    }
    layer.truncate(n);
    whiten(values, n, gray, flakes.mix);
    for values in values.chunks_exact_mut(n) {
        let both = layer.iter().zip(layer.iter().rev());
        values.iter_mut().zip(both).for_each(|(value, (fallen, turned))| *value += fallen + turned);
    }
}

/// Mixes the image of planes of `n` values with a brighter, grayer one.
fn whiten(values: &mut [f32], n: usize, gray: &mut Vec<f32>, mix: f32) {
    gray.clear();
    if let [red, green, blue] = values.chunks_exact(n).collect::<Vec<_>>()[..] {
        let color = red.iter().zip(green).zip(blue);
        gray.extend(color.map(|((r, g), b)| 0.299 * r + 0.587 * g + 0.114 * b));
    } else {
        gray.extend_from_slice(&values[..n]);
    }
    for values in values.chunks_exact_mut(n) {
        for (value, gray) in values.iter_mut().zip(&*gray) {
            *value = mix * *value + (1.0 - mix) * value.max(1.5 * gray + 127.5);
        }
    }
}
