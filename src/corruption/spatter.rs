//! Spatter: drops of water that glint at their rims, or mud.

use super::draws::Draws;
use super::filter::{Border, Plane, gaussian};
use super::{Profile, Scratch, Severity, canny};

#[derive(Debug, Clone, Copy)]
struct Drops {
    mean: f32,
    std: f32,
    sigma: f64,
    threshold: f32,
    /// Strength of water; deviation of the blur of mud.
    gain: f32,
    mud: bool,
}

const fn drops([mean, std]: [f32; 2], sigma: f64, threshold: f32, gain: f32, mud: bool) -> Drops {
    Drops { mean, std, sigma, threshold, gain, mud }
}

const TINY: [Drops; 5] = [
    drops([0.62, 0.1], 0.7, 0.7, 0.6, false),
    drops([0.65, 0.1], 0.8, 0.7, 0.6, false),
    drops([0.65, 0.3], 1.0, 0.69, 0.6, false),
    drops([0.65, 0.1], 0.7, 0.68, 0.6, true),
    drops([0.65, 0.1], 0.5, 0.67, 0.6, true),
];
const IMAGENET: [Drops; 5] = [
    drops([0.65, 0.3], 4.0, 0.69, 0.6, false),
    drops([0.65, 0.3], 3.0, 0.68, 0.6, false),
    drops([0.65, 0.3], 2.0, 0.68, 0.5, false),
    drops([0.65, 0.3], 1.0, 0.65, 1.5, true),
    drops([0.67, 0.4], 1.0, 0.65, 1.5, true),
];

const WATER: [f32; 3] = [175.0, 238.0, 238.0];
const MUD: [f32; 3] = [63.0, 42.0, 20.0];

pub(super) fn apply(s: &mut Scratch, profile: Profile, severity: Severity, draws: &mut dyn Draws) {
    let drops = profile.pick(severity, &TINY, &IMAGENET);
    let plane = s.extent.size();
    let n = plane.height * plane.width;
    let Scratch { extent, values, padded, layers: [layer, distance, _], .. } = s;
    layer.resize(n, 0.0);
    draws.normals(layer);
    for value in layer.iter_mut() {
        *value = drops.mean + drops.std * *value;
    }
    gaussian(layer, plane, drops.sigma, 4.0, Border::Nearest, padded);
    let sound = if drops.mud {
        mud(layer, plane, drops, padded);
        true
    } else {
        water(layer, plane, drops, distance)
    };
    // Without a single drop the definition divides 0 by 0: the image stays as it is.
    if !sound {
        return;
    }
    let color = if drops.mud { MUD } else { WATER };
    let luma = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2];
    let colors = if extent.channels == 3 { color } else { [luma; 3] };
    for (values, color) in values.chunks_exact_mut(n).zip(colors) {
        for (value, share) in values.iter_mut().zip(&*layer) {
            let through = if drops.mud { 1.0 - share } else { 1.0 };
            *value = *value * through + share * color;
        }
    }
}

/// Turns the layer into the share of mud.
fn mud(layer: &mut [f32], plane: Plane, drops: Drops, padded: &mut Vec<f32>) {
    for value in layer.iter_mut() {
        *value = if *value > drops.threshold { 1.0 } else { 0.0 };
    }
    gaussian(layer, plane, f64::from(drops.gain), 4.0, Border::Nearest, padded);
    for value in layer.iter_mut() {
        *value = if *value < 0.8 { 0.0 } else { *value };
    }
}

/// Turns the layer into the share of water; false if there is none.
fn water(layer: &mut [f32], plane: Plane, drops: Drops, distance: &mut Vec<f32>) -> bool {
    let byte = |&value: &f32| if value < drops.threshold { 0 } else { (255.0 * value) as u8 };
    let shown: Vec<u8> = layer.iter().map(byte).collect();
    canny::distances(&canny::edges(&shown, plane), plane, distance);
    for value in distance.iter_mut() {
        *value = value.min(20.0);
    }
    let mut rims: Vec<u8> = Vec::with_capacity(shown.len());
    correlate(|at| distance[at], plane, &[[1.0 / 9.0; 3]; 3], |value| rims.push((value + 1e-4) as u8));
    equalize(&mut rims);
    let mut glints: Vec<u8> = Vec::with_capacity(shown.len());
    let relief = [[-2.0, -1.0, 0.0], [-1.0, 1.0, 1.0], [0.0, 1.0, 2.0]];
    correlate(|at| f32::from(rims[at]), plane, &relief, |value| glints.push(value as u8));
    distance.clear();
    let smooth = |value: f32| distance.push(value.round_ties_even());
    correlate(|at| f32::from(glints[at]), plane, &[[1.0 / 9.0; 3]; 3], smooth);
    let mut most = 0f32;
    for ((share, &shown), distance) in layer.iter_mut().zip(&shown).zip(distance) {
        *share = f32::from(shown) * *distance;
        most = most.max(*share);
    }
    for share in layer.iter_mut() {
        *share *= drops.gain / most.max(1.0);
    }
    most > 0.0
}

/// Correlation with a 3 x 3 kernel, the plane mirrored beyond its edge.
fn correlate(value: impl Fn(usize) -> f32, plane: Plane, kernel: &[[f32; 3]; 3], mut out: impl FnMut(f32)) {
    let near = |at: usize, n: usize| [-1, 0, 1].map(|by| Border::Mirror.index(at as isize + by, n));
    let columns: Vec<[usize; 3]> = (0..plane.width).map(|x| near(x, plane.width)).collect();
    for y in 0..plane.height {
        let rows = near(y, plane.height).map(|row| row * plane.width);
        for columns in &columns {
            let of_row = |j: usize| {
                let weights = kernel[j];
                (0..3).map(|i| weights[i] * value(rows[j] + columns[i])).sum::<f32>()
            };
            out(of_row(0) + of_row(1) + of_row(2));
        }
    }
}

/// OpenCV's equalisation of the histogram.
fn equalize(values: &mut [u8]) {
    let mut counts = [0usize; 256];
    for &value in values.iter() {
        counts[usize::from(value)] += 1;
    }
    let Some(first) = counts.iter().position(|&n| n > 0) else { return };
    let rest = values.len() - counts[first];
    if rest == 0 {
        return;
    }
    let scale = 255.0 / rest as f32;
    let (mut table, mut sum) = ([0u8; 256], 0);
    for (entry, n) in table.iter_mut().zip(counts).skip(first + 1) {
        sum += n;
        *entry = (sum as f32 * scale).round_ties_even() as u8;
    }
    for value in values.iter_mut() {
        *value = table[usize::from(*value)];
    }
}
