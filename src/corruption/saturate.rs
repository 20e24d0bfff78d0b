//! Saturation, in hue, saturation, value. Hue and value stay: what a channel lacks to the largest one grows in
//! proportion to the saturation.

use super::draws::Draws;
use super::{Profile, Scratch, Severity};

/// Factor and summand.
const TINY: [(f32, f32); 5] = [(0.3, 0.0), (0.1, 0.0), (2.0, 0.0), (5.0, 0.1), (30.0, 0.2)];
const IMAGENET: [(f32, f32); 5] = [(0.3, 0.0), (0.1, 0.0), (2.0, 0.0), (5.0, 0.1), (20.0, 0.2)];

pub(super) fn apply(s: &mut Scratch, profile: Profile, severity: Severity, _: &mut dyn Draws) {
    let (factor, summand) = profile.pick(severity, &TINY, &IMAGENET);
    let n = s.extent.plane();
    if s.extent.channels == 1 {
        // Gray has the hue of red: with a summand it turns reddish, and its luma falls.
        s.values.iter_mut().for_each(|value| *value *= 1.0 - summand + 0.299 * summand);
        return;
    }
    let (red, rest) = s.values.split_at_mut(n);
    let (green, blue) = rest.split_at_mut(n);
    for ((r, g), b) in red.iter_mut().zip(green).zip(blue) {
        let (most, least) = (r.max(*g).max(*b), r.min(*g).min(*b));
        if most == least {
            *g *= 1.0 - summand;
            *b *= 1.0 - summand;
            continue;
        }
        let saturation = (most - least) / most;
        let wanted = (factor * saturation + summand).clamp(0.0, 1.0);
        let ratio = wanted / saturation;
        for value in [r, g, b] {
            *value = most - (most - *value) * ratio;
        }
    }
}
