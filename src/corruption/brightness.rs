//! Brightness: a larger value in hue, saturation, value. Hue and saturation stay, so all three channels grow by
//! the same factor.

use super::draws::Draws;
use super::{Profile, Scratch, Severity};
use multiversion::multiversion;

pub(super) fn apply(s: &mut Scratch, profile: Profile, severity: Severity, _: &mut dyn Draws) {
    let both = [0.1, 0.2, 0.3, 0.4, 0.5];
    let more = 255.0 * profile.pick(severity, &both, &both);
    let n = s.extent.plane();
    if s.extent.channels == 1 {
        s.values.iter_mut().for_each(|value| *value += more);
        return;
    }
    let (red, rest) = s.values.split_at_mut(n);
    let (green, blue) = rest.split_at_mut(n);
    brighten(red, green, blue, more);
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl", "x86_64+avx2", "x86_64+sse4.1"))]
fn brighten(red: &mut [f32], green: &mut [f32], blue: &mut [f32], more: f32) {
    for ((r, g), b) in red.iter_mut().zip(green).zip(blue) {
        let most = r.max(*g).max(*b);
        let factor = (most + more).min(255.0) / most.max(1.0);
        let black = if most == 0.0 { more } else { 0.0 };
        for value in [r, g, b] {
            *value = *value * factor + black;
        }
    }
}
