//! Frost: the image under a picture of ice.
//!
//! The published sets use photographs whose origin is unknown: they are not part of this program, and who has them hands
//! them in (`pictures.rs`). Without them `texture.rs` makes pictures with their colours, contrasts and spectra: frost is
//! then comparable between networks, and not with figures from the published sets.
//!
//! A process has one source. The first image settles it, so that no score is of both.

mod pictures;
mod texture;

pub use pictures::{FILES, Picture, Pictures, check};

use super::draws::Draws;
use super::{Profile, Scratch, Severity};
use pictures::N_SHOWN;
use std::sync::OnceLock;
use texture::{N_TEXTURES, SIDE, texture};

/// Weights of image and frost.
const TINY: [(f32, f32); 5] = [(1.0, 0.3), (0.9, 0.4), (0.8, 0.45), (0.75, 0.5), (0.7, 0.55)];
const IMAGENET: [(f32, f32); 5] = [(1.0, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)];

/// What frost is made of. Results of the two do not compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Textures of this program.
    Synthetic,
    /// The published pictures.
    Pictures,
}

impl Source {
    /// The name in results, as spec/reconstruction 3.6 has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Synthetic => "synthetic",
            Self::Pictures => "pictures",
        }
    }
}

/// The pictures of this process; none, once frost has been made without.
static PICTURES: OnceLock<Option<Pictures>> = OnceLock::new();

/// What frost is made of in this process.
pub fn source() -> Source {
    match PICTURES.get() {
        Some(Some(_)) => Source::Pictures,
        Some(None) | None => Source::Synthetic,
    }
}

/// Makes frost of these pictures from now on; the first ones stay. An error if some was made without.
pub fn show(pictures: Pictures) -> Result<(), String> {
    if PICTURES.get_or_init(|| Some(pictures)).is_some() {
        return Ok(());
    }
    Err("frost was made of textures already, and one process makes it of one thing only".to_owned())
}

pub(super) fn apply(s: &mut Scratch, profile: Profile, severity: Severity, draws: &mut dyn Draws) {
    if let Some(pictures) = PICTURES.get_or_init(|| None) {
        return under_picture(s, pictures, profile, severity, draws);
    }
    let planes = texture(profile, draws.below(N_TEXTURES as u32));
    // Textures have no edge.
    let at = [draws.below(SIDE as u32), draws.below(SIDE as u32)];
    cover(s, profile, severity, planes, [SIDE; 2], at);
}

/// A piece of a picture. One that is no larger than the image goes on at its other side, as textures do.
fn under_picture(
    s: &mut Scratch,
    pictures: &Pictures,
    profile: Profile,
    severity: Severity,
    draws: &mut dyn Draws,
) {
    let picture = pictures.get(profile, draws.below(N_SHOWN as u32));
    let image = s.extent.size();
    let mut start = |picture: usize, image: usize| {
        let places = if picture > image { picture - image } else { picture };
        draws.below(places as u32)
    };
    let [height, width] = picture.size;
    let at = [start(height, image.height), start(width, image.width)];
    cover(s, profile, severity, &picture.planes, picture.size, at);
}

/// Mixes the image with the frost that begins at `top` and `left`.
fn cover(
    s: &mut Scratch,
    profile: Profile,
    severity: Severity,
    frost: &[Vec<u8>; 4],
    [height, width]: [usize; 2],
    [top, left]: [usize; 2],
) {
    let (of_image, of_frost) = profile.pick(severity, &TINY, &IMAGENET);
    let plane = s.extent.size();
    let channels = if s.extent.channels == 3 { &frost[..3] } else { &frost[3..] };
    for (values, frost) in s.planes().zip(channels) {
        for (y, values) in values.chunks_exact_mut(plane.width).enumerate() {
            let row = &frost[(top + y) % height * width..][..width];
            for values in values.chunks_mut(width) {
                let frost = row[left..].iter().chain(&row[..left]);
                values.iter_mut().zip(frost).for_each(|(value, &frost)| {
                    *value = of_image * *value + of_frost * f32::from(frost);
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Purpose, RngKey};
    use crate::corruption::Extent;

    /// Five pictures of one gray each, but for the columns of the last.
    fn pictures(size: [usize; 2]) -> Pictures {
        let one = |number: u8| {
            let value = |i: usize| if number == 5 { (i % size[1]) as u8 } else { 40 * number };
            Picture { size, pixels: (0..3 * size[0] * size[1]).map(value).collect() }
        };
        Pictures::new(&[1, 2, 3, 4, 5].map(one)).unwrap()
    }

    fn frosted(pictures: &Pictures, profile: Profile, extent: Extent, image: u64) -> Vec<u8> {
        let mut rng = RngKey::new(1, Purpose::Corruption, 0).stream(0, image);
        let mut s = Scratch::new();
        let mut bytes = vec![100; extent.len()];
        s.shape(&bytes, extent);
        s.take(&bytes);
        under_picture(&mut s, pictures, profile, Severity::ALL[0], &mut rng);
        s.give(&mut bytes);
        bytes
    }

    #[test]
    fn an_image_lies_under_a_piece_of_one_of_five_pictures() {
        let (pictures, extent) = (pictures([300, 400]), Extent { channels: 3, height: 64, width: 64 });
        let (mut counts, mut lefts) = ([0; 5], std::collections::BTreeSet::new());
        for image in 0..2000 {
            let found = frosted(&pictures, Profile::ImageNet, extent, image);
            // 100 + 0.4 of the frost.
            if found.iter().all(|v| *v == found[0]) && found[0] > 100 && found[0] % 16 == 4 {
                counts[usize::from((found[0] - 100) / 16) - 1] += 1;
            } else {
                counts[4] += 1;
                lefts.insert(found[0]);
                // Its rows are alike; mixing them may turn the last bit.
                let far =
                    found.chunks(64).flat_map(|row| row.iter().zip(&found)).map(|(a, b)| a.abs_diff(*b));
                assert!(far.max() <= Some(1));
            }
        }
        assert!(counts.iter().all(|n| (300..500).contains(n)), "{counts:?}");
        assert!(lefts.len() > 50, "{lefts:?}");
    }

    #[test]
    fn the_draws_decide_and_nothing_else() {
        let extent = Extent { channels: 3, height: 64, width: 64 };
        let (one, same) = (pictures([300, 400]), pictures([300, 400]));
        let of = |pictures: &Pictures, image| frosted(pictures, Profile::Tiny, extent, image);
        let first: Vec<Vec<u8>> = (0..20).map(|image| of(&one, image)).collect();
        // Backwards, and on other threads.
        for image in (0..20).rev() {
            let again = std::thread::scope(|scope| scope.spawn(|| of(&same, image)).join().unwrap());
            assert!(again == first[image as usize], "{image}");
        }
        assert!(first.iter().any(|image| *image != first[0]));
    }

    #[test]
    fn a_picture_that_is_smaller_than_the_image_goes_on_at_its_other_side() {
        for size in [[20, 10], [213, 213], [214, 400], [1, 1]] {
            let pictures = pictures(size);
            for (channels, [height, width]) in [(3, [64, 64]), (1, [64, 64]), (1, [1, 300])] {
                let extent = Extent { channels, height, width };
                for (profile, image) in Profile::ALL.into_iter().flat_map(|p| (0..20).map(move |i| (p, i))) {
                    let found = frosted(&pictures, profile, extent, image);
                    assert!(found.iter().all(|v| *v >= 100), "{size:?} {profile}");
                    let across = pictures.get(profile, 0).size[1];
                    let periodic = found
                        .chunks(width)
                        .all(|row| row.iter().zip(&row[across.min(width)..]).all(|(a, b)| a == b));
                    assert!(periodic, "{size:?} {profile}");
                }
            }
        }
    }

    /// Other tests of this process have made some, or this one does.
    #[test]
    fn what_was_made_of_textures_does_not_go_on_with_pictures() {
        let mut s = Scratch::new();
        s.shape(&[0], Extent { channels: 1, height: 1, width: 1 });
        s.take(&[0]);
        let mut rng = RngKey::new(1, Purpose::Corruption, 0).stream(0, 0);
        apply(&mut s, Profile::Tiny, Severity::ALL[0], &mut rng);
        assert!(show(pictures([20, 20])).is_err());
        assert_eq!(source(), Source::Synthetic);
    }
}
