//! Contrast: every channel is drawn towards its mean.

use super::draws::Draws;
use super::{Profile, Scratch, Severity};

pub(super) fn apply(s: &mut Scratch, profile: Profile, severity: Severity, _: &mut dyn Draws) {
    let both = [0.4, 0.3, 0.2, 0.1, 0.05];
    let factor: f32 = profile.pick(severity, &both, &both);
    for plane in s.planes() {
        // Bytes: the sum is exact.
        let mean = plane.iter().map(|&value| f64::from(value)).sum::<f64>() / plane.len() as f64;
        let mean = mean as f32;
        plane.iter_mut().for_each(|value| *value = (*value - mean) * factor + mean);
    }
}
