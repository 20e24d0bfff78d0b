//! Fog: a fractal cloud of the diamond-square method, laid over the image.

use super::draws::Draws;
use super::{Profile, Scratch, Severity};

/// Amount, and decay of the cloud's detail.
const TINY: [(f32, f32); 5] = [(0.4, 3.0), (0.7, 3.0), (1.0, 2.5), (1.5, 2.0), (2.0, 1.75)];
const IMAGENET: [(f32, f32); 5] = [(1.5, 2.0), (2.0, 2.0), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4)];

pub(super) fn apply(s: &mut Scratch, profile: Profile, severity: Severity, draws: &mut dyn Draws) {
    let (amount, decay) = profile.pick(severity, &TINY, &IMAGENET);
    let plane = s.extent.size();
    let Scratch { values, layers: [cloud, drawn, _], .. } = s;
    let side = plane.height.max(plane.width).next_power_of_two();
    plasma(side, decay, draws, drawn, cloud);
    let most = values.iter().fold(0f32, |most, &value| most.max(value)) / 255.0;
    let scale = most / (most + amount);
    for values in values.chunks_exact_mut(plane.height * plane.width) {
        for (values, cloud) in values.chunks_exact_mut(plane.width).zip(cloud.chunks_exact(side)) {
            for (value, cloud) in values.iter_mut().zip(cloud) {
                *value = (*value + 255.0 * amount * cloud) * scale;
            }
        }
    }
}

/// A cloud from 0 to 1 on a torus of `side` x `side`, a power of two. Step by step the middles of squares, then
/// those of edges, become the mean of their four neighbours plus noise that decays. The square of the amplitude
/// is the published sets' (spec/reconstruction 3.4).
pub(super) fn plasma(
    side: usize,
    decay: f32,
    draws: &mut dyn Draws,
    drawn: &mut Vec<f32>,
    cloud: &mut Vec<f32>,
) {
    cloud.clear();
    cloud.resize(side * side, 0.0);
    let mut amplitude = 100f32;
    let mut step = side;
    while step >= 2 {
        let half = step / 2;
        let n = side / step;
        let at = |row: usize, column: usize| (row & (side - 1)) * side + (column & (side - 1));
        drawn.resize(n * n, 0.0);
        // Middles of squares, of level edges, of upright edges, each with its four neighbours.
        for (top, left, neighbours) in [
            (half, half, [[-1, -1], [1, -1], [-1, 1], [1, 1]]),
            (0, half, [[1, 0], [-1, 0], [0, -1], [0, 1]]),
            (half, 0, [[0, 1], [0, -1], [-1, 0], [1, 0]]),
        ] {
            draws.uniforms(-amplitude, amplitude, drawn);
            for row in 0..n {
                for column in 0..n {
                    let (y, x) = (top + row * step, left + column * step);
                    let neighbour = |[dy, dx]: [isize; 2]| {
                        let row = y.wrapping_add_signed(dy * half as isize);
                        cloud[at(row, x.wrapping_add_signed(dx * half as isize))]
                    };
                    let sum: f32 = neighbours.iter().map(|&by| neighbour(by)).sum();
                    cloud[at(y, x)] = sum / 4.0 + amplitude * drawn[row * n + column];
                }
            }
        }
        step = half;
        amplitude /= decay;
    }
    let least = cloud.iter().fold(f32::INFINITY, |least, &value| least.min(value));
    let most = cloud.iter().fold(f32::NEG_INFINITY, |most, &value| most.max(value));
    let range = if most > least { most - least } else { 1.0 };
    for value in cloud.iter_mut() {
        *value = (*value - least) / range;
    }
}
