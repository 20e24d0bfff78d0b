//! Comparison with Pillow 12, by the FNV-1a hash of its output bytes, and of the fast paths with the
//! plain definition.

use super::*;
use crate::base::{Purpose, RngKey};
use crate::load::AugmentSettings;
use half::bf16;
use proptest::prelude::*;

const SIDE: usize = 64;

fn image() -> Vec<u8> {
    (0..SIDE * SIDE).map(|i| (i * 7919 % 251 + 1) as u8).collect()
}

fn bytes(channels: usize) -> Tables<u8> {
    Tables::identity(channels)
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
        let mut out = vec![7; SIDE * SIDE];
        bytes(1).bytes(&image(), SIDE, placement, &mut Scratch::default(), &mut out);
        let hash = |hash: u32, &byte: &u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
        assert_eq!(out.iter().fold(0x811C_9DC5, hash), expected, "{placement:?}");
    }
}

#[test]
fn bytes_are_normalised_moved_and_turned_gray() {
    let tables = Tables::new(&[0.5], &[0.25], |v| v);
    let (mut out, mut scratch) = ([0.0; 2], Scratch::default());
    let right = Placement { dx: -1, ..Placement::IDENTITY };
    tables.bytes(&[255, 0], 2, right, &mut scratch, &mut out);
    assert_eq!(out, [-2.0, 2.0]);
    tables.bytes(&[255, 0, 0, 255, 0, 0], 2, Placement::IDENTITY, &mut scratch, &mut out);
    assert_eq!(out, [76u8, 150].map(|v| (f32::from(v) / 255.0 - 0.5) / 0.25));
    let floats: Vec<u8> = [1.0f32, 3.0].iter().flat_map(|v| v.to_le_bytes()).collect();
    tables.floats(&floats, 2, Placement { dx: 1, ..Placement::IDENTITY }, &mut out);
    assert_eq!(out, [10.0, -2.0]);
}

#[test]
fn noise_has_the_level_that_was_asked_for() {
    let tables = Tables::new(&[0.0; 3], &[1.0; 3], |v| v);
    let gray = vec![128u8; 3 * SIDE * SIDE];
    let mut out = vec![0.0; gray.len()];
    let mut spread = |noise: Noise| {
        let mut scratch = Scratch::default();
        tables.noisy(&gray, SIDE, Placement::IDENTITY, (noise, 1), &mut scratch, &mut out);
        let mean = out.iter().sum::<f32>() / out.len() as f32;
        assert!((mean - 128.0 / 255.0).abs() < 0.005, "{mean}");
        (out.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / out.len() as f32).sqrt()
    };
    // The standard error of a standard deviation from 12,288 values is 0.6 %.
    assert!((spread(Noise::Std(0.08)) / 0.08 - 1.0).abs() < 0.03);
    let expected = (128.0f32 / 255.0).powi(2) / 5.0;
    assert!((spread(Noise::Snr(5.0)) / expected - 1.0).abs() < 0.03);
}

#[test]
fn noise_is_added_before_gray_and_clamped() {
    let (mut scratch, mut out) = (Scratch::default(), vec![0.0; SIDE * SIDE]);
    let tables = Tables::new(&[0.0], &[1.0], |v| v);
    // From colour, and from gray as if it were three equal channels.
    for channels in [3, 1] {
        let image = vec![128u8; channels * SIDE * SIDE];
        tables.noisy(&image, SIDE, Placement::IDENTITY, (Noise::Std(0.1), 2), &mut scratch, &mut out);
        let mean = out.iter().sum::<f32>() / out.len() as f32;
        let std = (out.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / out.len() as f32).sqrt();
        // sqrt(0.2989² + 0.587² + 0.114²) = 0.669 of the level (spec/data.md section 3).
        assert!((std / 0.0669 - 1.0).abs() < 0.05, "{std}");
        tables.noisy(&image, SIDE, Placement::IDENTITY, (Noise::Std(9.0), 3), &mut scratch, &mut out);
        assert!(out.iter().all(|v| (0.0..=1.0).contains(v)));
    }
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

    #[test]
    fn fast_paths_equal_the_definition(
        width in 1usize..40, height in 1usize..40, channels in prop::sample::select(vec![1usize, 3]),
        gray in any::<bool>(), (dx, dy) in (-45i32..45, -45i32..45), flip in any::<bool>(),
        degrees in prop_oneof![Just(0.0), -15.0..15.0, -400.0..400.0, Just(90.0), Just(180.0)], seed in any::<u64>(),
    ) {
        let n = width * height;
        let image: Vec<u8> =
            (0..channels * n).map(|i| crate::base::rng::mix64(seed ^ i as u64) as u8).collect();
        let placement = Placement { dx, dy, flip, degrees };
        let shown = if gray { 1 } else { channels };
        let tables = Tables::new(&vec![0.4; shown], &vec![0.3; shown], bf16::from_f32);
        let mut out = vec![bf16::ZERO; shown * n];
        tables.bytes(&image, width, placement, &mut Scratch::default(), &mut out);
        let map = SourceMap::new(placement, width, height);
        for (i, found) in out.iter().enumerate() {
            let byte = map.source(i % n).map_or(0, |at| match (gray, channels) {
                (true, 3) => luma(image[at], image[n + at], image[2 * n + at]),
                _ => image[i / n * n + at],
            });
            prop_assert_eq!(*found, bf16::from_f32((f32::from(byte) / 255.0 - 0.4) / 0.3), "pixel {}", i);
        }
    }

    #[test]
    fn luma_of_a_plane_equals_luma_of_its_pixels(image in proptest::collection::vec(any::<[u8; 3]>(), 0..300)) {
        let planes: Vec<u8> = (0..3).flat_map(|c| image.iter().map(move |pixel| pixel[c])).collect();
        let mut out = vec![0; image.len()];
        luma_plane(&planes, &mut out);
        prop_assert_eq!(out, image.iter().map(|&[r, g, b]| luma(r, g, b)).collect::<Vec<_>>());
    }
}
