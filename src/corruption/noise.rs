//! Noise that is drawn for every value by itself.

use super::draws::Draws;
use super::law::Law;
use super::{Profile, Scratch, Severity};
use multiversion::multiversion;
use std::sync::OnceLock;

/// Whole steps from -255 to 255: more of them lead to the same end of the scale.
const STEPS: usize = 511;

/// 255 · (x + σ n) with n normal.
///
/// Bytes are whole, and the sum is rounded down: what counts of the noise is 255 σ n rounded down, a whole number
/// that is drawn from its own distribution.
pub(super) fn gaussian(
    image: &mut [u8],
    s: &mut Scratch,
    profile: Profile,
    severity: Severity,
    draws: &mut dyn Draws,
) {
    static LAWS: [[OnceLock<Law<512>>; 5]; 2] = [const { [const { OnceLock::new() }; 5] }; 2];
    let law = LAWS[profile as usize][severity.index()]
        .get_or_init(|| Law::new(&normal_steps(deviation(profile, severity))));
    let Scratch { words, steps, .. } = s;
    words.resize(image.len(), 0);
    draws.words(words);
    steps.resize(image.len(), 0);
    for (step, &mut word) in steps.iter_mut().zip(words) {
        *step = law.outcome(word) as i16;
    }
    add(image, steps);
}

/// Deviation of the normal noise, in levels.
pub(super) fn deviation(profile: Profile, severity: Severity) -> f64 {
    let tiny = [0.04, 0.08, 0.12, 0.15, 0.18];
    let imagenet = [0.08, 0.12, 0.18, 0.26, 0.38];
    255.0 * profile.pick(severity, &tiny, &imagenet)
}

/// Probability that a normal value of deviation `std`, rounded down, is each step. The ends stand for all beyond.
fn normal_steps(std: f64) -> [f64; STEPS] {
    // Gauss and Legendre's five points: an interval is far shorter than the deviation.
    const POINTS: [(f64, f64); 5] = [
        (-0.906_179_845_938_664, 0.236_926_885_056_189_1),
        (-0.538_469_310_105_683_1, 0.478_628_670_499_366_5),
        (0.0, 0.568_888_888_888_888_9),
        (0.538_469_310_105_683_1, 0.478_628_670_499_366_5),
        (0.906_179_845_938_664, 0.236_926_885_056_189_1),
    ];
    let density = |x: f64| (-0.5 * x * x).exp() / std::f64::consts::TAU.sqrt() / std;
    let within = |step: usize| {
        let middle = step as f64 - 255.0 + 0.5;
        POINTS.iter().map(|(at, weight)| 0.5 * weight * density((middle + 0.5 * at) / std)).sum()
    };
    let mut steps: [f64; STEPS] = std::array::from_fn(within);
    // Below -254 and above 255, by symmetry: as much as above 254, and as above 255.
    let half = |steps: &[f64]| 0.5 - steps.iter().sum::<f64>();
    steps[0] = half(&steps[1..255]).max(0.0);
    steps[STEPS - 1] = half(&steps[255..STEPS - 1]).max(0.0);
    steps
}

/// Adds outcomes, which are 255 too high, and keeps to the scale.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl", "x86_64+avx2", "x86_64+sse4.1"))]
fn add(image: &mut [u8], outcomes: &[i16]) {
    for (value, &outcome) in image.iter_mut().zip(outcomes) {
        *value = (i16::from(*value) + outcome - 255).clamp(0, 255) as u8;
    }
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
pub(super) fn impulse(
    image: &mut [u8],
    s: &mut Scratch,
    profile: Profile,
    severity: Severity,
    draws: &mut dyn Draws,
) {
    let tiny = [0.01, 0.02, 0.05, 0.08, 0.14];
    let imagenet = [0.03, 0.06, 0.09, 0.17, 0.27];
    let share: f64 = profile.pick(severity, &tiny, &imagenet);
    s.words.resize(image.len(), 0);
    draws.words(&mut s.words);
    salt_and_pepper(image, &s.words, (share / 2.0 * (1u64 << 32) as f64) as u32);
}

/// Words below `half` are salt, those below twice as much pepper.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl", "x86_64+avx2", "x86_64+sse4.1"))]
fn salt_and_pepper(image: &mut [u8], words: &[u32], half: u32) {
    for (value, &word) in image.iter_mut().zip(words) {
        let salt = if word < half { 255 } else { 0 };
        *value = if word < 2 * half { salt } else { *value };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Normal distribution function by its series around zero, good to 1e-12 up to six deviations.
    fn below(x: f64) -> f64 {
        let (mut term, mut sum, mut n) = (x, x, 1.0);
        while term.abs() > 1e-18 {
            n += 2.0;
            term *= x * x / n;
            sum += term;
        }
        0.5 + sum * (-0.5 * x * x).exp() / std::f64::consts::TAU.sqrt()
    }

    #[test]
    fn steps_have_the_probabilities_of_the_normal_distribution() {
        assert!((below(1.959_963_984_540_054) - 0.975).abs() < 1e-12);
        for (profile, severity) in [(Profile::Tiny, 1), (Profile::ImageNet, 3), (Profile::ImageNet, 5)] {
            let std = deviation(profile, Severity::new(severity).unwrap());
            let found = Law::<512>::new(&normal_steps(std)).probabilities();
            for (i, &found) in found.iter().enumerate().take(STEPS) {
                let edge = |step: f64| below((step / std).clamp(-6.0, 6.0));
                let (low, high) = (i as f64 - 255.0, i as f64 - 254.0);
                let low = if i == 0 { 0.0 } else { edge(low) };
                let high = if i == STEPS - 1 { 1.0 } else { edge(high) };
                // Half of 2^-16 of each slot that may have it; six deviations are 1e-9.
                assert!((found - (high - low)).abs() < 2e-6, "{std} {i}: {found}, not {}", high - low);
            }
            assert_eq!(found[STEPS], 0.0);
        }
    }

    #[test]
    fn sums_stay_on_the_scale() {
        let mut image = [0, 0, 7, 250, 255, 128];
        add(&mut image, &[0, 510, 253, 262, 255, 154]);
        assert_eq!(image, [0, 255, 5, 255, 255, 27]);
    }
}
