//! Contrast: every channel is drawn towards its mean.

use super::draws::Draws;
use super::{Profile, Scratch, Severity};

pub(super) fn apply(s: &mut Scratch, profile: Profile, severity: Severity, _: &mut dyn Draws) {
    let both = [0.4, 0.3, 0.2, 0.1, 0.05];
    let factor: f32 = profile.pick(severity, &both, &both);
    for plane in s.planes() {
        // Sums of bytes are exact in whole numbers.
        let sum: u64 =
            plane.chunks(1024).map(|part| part.iter().map(|&v| v as i32).sum::<i32>() as u64).sum();
        let mean = (sum as f64 / plane.len() as f64) as f32;
        for value in plane.iter_mut() {
            *value = (*value - mean) * factor + mean;
        }
    }
}
