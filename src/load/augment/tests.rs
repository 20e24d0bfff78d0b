//! Comparison with Pillow 12, by the FNV-1a hash of its output bytes.

use super::*;
use crate::base::{Purpose, RngKey};
use proptest::prelude::*;

const SIDE: u32 = 64;

fn image() -> Vec<u8> {
    (0..SIDE * SIDE).map(|i| (i * 7919 % 251 + 1) as u8).collect()
}

fn hash_of(placement: Placement) -> u32 {
    let (image, mut map) = (image(), Vec::new());
    source_map(placement, SIDE, SIDE, &mut map);
    let moved = map.iter().map(|&i| if i == OUTSIDE { 0 } else { image[i as usize] });
    moved.fold(0x811C_9DC5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// `ImageOps.expand(im, 4).crop(…)`, `transpose(FLIP_LEFT_RIGHT)`, `rotate(degrees)`.
#[test]
fn crop_flip_and_rotation_equal_pillow() {
    for (dx, dy, flip, degrees, expected) in [
        (0, 0, false, 0.0, 0xcd1c_1058),
        (0, 0, false, 1.0, 0x8d32_a292),
        (0, 0, false, 5.5, 0xee65_170e),
        (0, 0, false, 14.99, 0x8add_a4a4),
        (0, 0, false, -3.25, 0xd111_829f),
        (0, 0, false, -15.0, 0x4834_2c03),
        (0, 0, false, 7.123_456, 0xc2b8_3199),
        (0, 0, false, 12.0, 0xe194_db75),
        (3, -2, true, 9.5, 0x0165_817b),
        (-4, 4, false, -11.25, 0xe3d9_84de),
        (0, 0, true, 0.0, 0x1d67_d5d6),
    ] {
        let placement = Placement { dx, dy, flip, degrees };
        assert_eq!(hash_of(placement), expected, "{placement:?}");
    }
}

#[test]
fn bytes_are_normalised_moved_and_turned_gray() {
    let normalise = Normalise::new(&[0.5], &[0.25]);
    let mut out = [0.0; 2];
    normalise.bytes(&[255, 0], Some(&[OUTSIDE, 0]), &mut out);
    assert_eq!(out, [-2.0, 2.0]);
    normalise.bytes(&[255, 0, 0, 255, 0, 0], None, &mut out);
    assert_eq!(out, [76u8, 150].map(|v| (f32::from(v) / 255.0 - 0.5) / 0.25));
    let floats: Vec<u8> = [1.0f32, 3.0].iter().flat_map(|v| v.to_le_bytes()).collect();
    normalise.floats(&floats, Some(&[1, OUTSIDE]), &mut out);
    assert_eq!(out, [10.0, -2.0]);
}

proptest! {
    #[test]
    fn draws_stay_within_their_bounds_and_cover_them(seed in any::<u64>()) {
        let settings = AugmentSettings::default();
        let key = RngKey::new(seed, Purpose::Augment, 0);
        let drawn: Vec<Placement> = (0..300).map(|i| settings.draw(&mut key.stream(1, i))).collect();
        for p in &drawn {
            prop_assert!(p.dx.abs() <= 4 && p.dy.abs() <= 4 && p.degrees.abs() <= 15.0);
        }
        prop_assert!(drawn.iter().any(|p| p.flip) && drawn.iter().any(|p| !p.flip));
        prop_assert!((-4..=4).all(|dx| drawn.iter().any(|p| p.dx == dx)));
        let none = AugmentSettings::NONE.draw(&mut key.stream(1, 0));
        prop_assert!(none.degrees == 0.0 && none == Placement::IDENTITY);
    }
}
