//! Brightness: a larger value in hue, saturation, value. Hue and saturation stay, so all three channels grow by
//! the same factor.

use super::draws::Draws;
use super::{Profile, Scratch, Severity};

pub(super) fn apply(s: &mut Scratch, profile: Profile, severity: Severity, _: &mut dyn Draws) {
    let both = [0.1, 0.2, 0.3, 0.4, 0.5];
    let more = 255.0 * profile.pick(severity, &both, &both);
    let brighter = |value: f32| (value + more).min(255.0);
    let n = s.extent.plane();
    if s.extent.channels == 1 {
        s.values.iter_mut().for_each(|value| *value = brighter(*value));
        return;
    }
    let (red, rest) = s.values.split_at_mut(n);
    let (green, blue) = rest.split_at_mut(n);
    for ((r, g), b) in red.iter_mut().zip(green).zip(blue) {
        let most = r.max(*g).max(*b);
        let factor = brighter(most) / most.max(1.0);
        let black = if most == 0.0 { more } else { 0.0 };
        for value in [r, g, b] {
            *value = *value * factor + black;
        }
    }
}
