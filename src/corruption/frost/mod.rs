//! Frost: the image under a picture of ice.
//!
//! The published sets use photographs whose origin is unknown. Here `texture.rs` makes pictures with their colours,
//! contrasts and spectra, so frost is comparable between networks, and not with figures from the published set.

mod texture;

use super::draws::Draws;
use super::{Profile, Scratch, Severity};
use texture::{N_TEXTURES, SIDE, texture};

/// Weights of image and frost.
const TINY: [(f32, f32); 5] = [(1.0, 0.3), (0.9, 0.4), (0.8, 0.45), (0.75, 0.5), (0.7, 0.55)];
const IMAGENET: [(f32, f32); 5] = [(1.0, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)];

pub(super) fn apply(s: &mut Scratch, profile: Profile, severity: Severity, draws: &mut dyn Draws) {
    let (of_image, of_frost) = profile.pick(severity, &TINY, &IMAGENET);
    let frost = texture(profile, draws.below(N_TEXTURES as u32));
    let (top, left) = (draws.below(SIDE as u32), draws.below(SIDE as u32));
    let plane = s.extent.size();
    let channels = if s.extent.channels == 3 { &frost[..3] } else { &frost[3..] };
    for (values, frost) in s.planes().zip(channels) {
        for (y, values) in values.chunks_exact_mut(plane.width).enumerate() {
            // Textures have no edge: they go on at the other side.
            let row = &frost[(top + y) % SIDE * SIDE..][..SIDE];
            for (values, start) in values.chunks_mut(SIDE).zip(std::iter::repeat(left)) {
                let frost = row[start..].iter().chain(&row[..start]);
                values.iter_mut().zip(frost).for_each(|(value, &frost)| {
                    *value = of_image * *value + of_frost * f32::from(frost);
                });
            }
        }
    }
}
