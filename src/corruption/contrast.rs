//! Contrast: every channel is drawn towards its mean.

use super::draws::Draws;
use super::{Profile, Scratch, Severity};
use multiversion::multiversion;

pub(super) fn apply(s: &mut Scratch, profile: Profile, severity: Severity, _: &mut dyn Draws) {
    let both = [0.4, 0.3, 0.2, 0.1, 0.05];
    let factor: f32 = profile.pick(severity, &both, &both);
    for plane in s.planes() {
        draw_in(plane, factor);
    }
}

const LANES: usize = 16;

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl", "x86_64+avx2", "x86_64+sse4.1"))]
fn draw_in(plane: &mut [f32], factor: f32) {
    let mut sum = 0.0;
    // Sums of so many bytes are whole numbers that f32 holds exactly, in any order.
    for part in plane.chunks(1 << 15) {
        let (whole, rest) = part.as_chunks::<LANES>();
        let mut sums = [0f32; LANES];
        for values in whole {
            sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
        }
        sum += sums.iter().chain(rest).map(|&v| f64::from(v)).sum::<f64>();
    }
    let mean = (sum / plane.len() as f64) as f32;
    for value in plane.iter_mut() {
        *value = (*value - mean) * factor + mean;
    }
}
