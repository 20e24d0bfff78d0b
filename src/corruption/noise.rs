//! Noise that is drawn for every value by itself.

use super::draws::Draws;
use super::{Profile, Scratch, Severity};

/// 255 · (x + σ n) with n normal.
pub(super) fn gaussian(s: &mut Scratch, profile: Profile, severity: Severity, draws: &mut dyn Draws) {
    let tiny = [0.04, 0.08, 0.12, 0.15, 0.18];
    let imagenet = [0.08, 0.12, 0.18, 0.26, 0.38];
    let std = 255.0 * profile.pick(severity, &tiny, &imagenet);
    let Scratch { values, spare, .. } = s;
    spare.resize(values.len(), 0.0);
    draws.normals(spare);
    values.iter_mut().zip(spare).for_each(|(value, &mut n)| *value += std * n);
}

/// 255 · (x + σ x n) with n normal.
pub(super) fn speckle(s: &mut Scratch, profile: Profile, severity: Severity, draws: &mut dyn Draws) {
    let tiny = [0.15, 0.2, 0.25, 0.3, 0.35];
    let imagenet = [0.15, 0.2, 0.35, 0.45, 0.6];
    let std: f32 = profile.pick(severity, &tiny, &imagenet);
    let Scratch { values, spare, .. } = s;
    spare.resize(values.len(), 0.0);
    draws.normals(spare);
    values.iter_mut().zip(spare).for_each(|(value, &mut n)| *value += std * *value * n);
}

/// A share of the values becomes 0 or 255, half and half.
pub(super) fn impulse(s: &mut Scratch, profile: Profile, severity: Severity, draws: &mut dyn Draws) {
    let tiny = [0.01, 0.02, 0.05, 0.08, 0.14];
    let imagenet = [0.03, 0.06, 0.09, 0.17, 0.27];
    let share: f64 = profile.pick(severity, &tiny, &imagenet);
    let half = (share / 2.0 * (1u64 << 32) as f64) as u32;
    let Scratch { values, words, .. } = s;
    words.resize(values.len(), 0);
    draws.words(words);
    for (value, &mut word) in values.iter_mut().zip(words) {
        let salt = if word < half { 255.0 } else { 0.0 };
        *value = if word < 2 * half { salt } else { *value };
    }
}
