//! The pixels beside those of libjpeg-turbo's encoder and decoder, byte by byte.

use super::*;
use crate::base::rng::mix64;

/// What libjpeg's encoder and decoder make of an image of planes.
fn expected(jpeg: &mut Jpeg, image: &[u8], extent: Extent, quality: i32) -> Vec<u8> {
    let file = jpeg.encode(image, extent, quality, false).unwrap();
    let format = if extent.channels == 3 { PixelFormat::RGB } else { PixelFormat::GRAY };
    let pixels = turbojpeg::decompress(file, format).unwrap().pixels;
    (0..extent.len()).map(|i| pixels[i % extent.plane() * extent.channels + i / extent.plane()]).collect()
}

fn check(jpeg: &mut Jpeg, name: &str, image: &[u8], extent: Extent, quality: i32) {
    let mut found = image.to_vec();
    jpeg.round_trip(&mut found, extent, quality).unwrap();
    let expected = expected(jpeg, image, extent, quality);
    let wrong = found.iter().zip(&expected).position(|(a, b)| a != b);
    if let Some(i) = wrong {
        let (c, y, x) = (i / extent.plane(), i % extent.plane() / extent.width, i % extent.width);
        let (found, expected) = (found[i], expected[i]);
        panic!("{name} {extent:?} {quality}: {found}, not {expected} in channel {c}, row {y}, column {x}");
    }
}

/// Value of channel `c`, row `y`, column `x` of kind `kind` and number `seed`.
type Picture = fn(seed: u64, c: usize, y: usize, x: usize) -> u8;

const PICTURES: [(&str, Picture); 7] = [
    ("noise", |seed, c, y, x| mix64(seed << 40 | (c << 32 | y << 16 | x) as u64) as u8),
    ("black and white noise", |seed, c, y, x| {
        mix64(seed << 40 | (c << 32 | y << 16 | x) as u64) as u8 / 128 * 255
    }),
    ("smooth", |seed, c, y, x| {
        let (y, x, phase) = (y as f64, x as f64, (seed + c as u64) as f64);
        (128.0 + 70.0 * (x / 5.0 + phase).sin() + 60.0 * (y / 9.0 + x / 31.0).cos()) as u8
    }),
    ("black", |_, _, _, _| 0),
    ("white", |_, _, _, _| 255),
    ("checkerboard", |seed, c, y, x| ((x >> (seed % 5)) + (y >> (seed % 4)) + c) as u8 % 2 * 255),
    ("edges of colours", |seed, c, y, x| (((3 * x + 5 * y + seed as usize) / 11 % 8) >> c) as u8 % 2 * 255),
];

fn image(picture: Picture, seed: u64, extent: Extent) -> Vec<u8> {
    let Extent { channels, height, width } = extent;
    let rows = (0..channels).flat_map(|c| (0..height).map(move |y| (c, y)));
    rows.flat_map(|(c, y)| (0..width).map(move |x| picture(seed, c, y, x))).collect()
}

#[test]
fn pixels_are_those_of_libjpeg_at_all_qualities() {
    let mut jpeg = Jpeg::default();
    for quality in 1..=100 {
        for channels in [1, 3] {
            for (height, width) in [(16, 16), (64, 64), (48, 32)] {
                for (name, picture) in PICTURES {
                    let extent = Extent { channels, height, width };
                    let image = image(picture, quality as u64, extent);
                    check(&mut jpeg, name, &image, extent, quality);
                }
            }
        }
    }
}

/// Blocks at the edges are filled up, and chrominances end in the middle of a block or of a pair of pixels.
#[test]
fn pixels_are_those_of_libjpeg_at_all_sizes() {
    let mut jpeg = Jpeg::default();
    let sides = [1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 17, 18, 23, 24, 25, 31, 33, 47];
    let sizes = sides.into_iter().flat_map(|height| sides.map(|width| (height, width)));
    for (n, (height, width)) in sizes.chain([(224, 224), (224, 300), (129, 257)]).enumerate() {
        for channels in [1, 3] {
            let (name, picture) = PICTURES[n % PICTURES.len()];
            let quality = 1 + (n as i32 * 37) % 100;
            let extent = Extent { channels, height, width };
            for (name, picture) in [(name, picture), PICTURES[0]] {
                check(&mut jpeg, name, &image(picture, n as u64, extent), extent, quality);
            }
        }
    }
}

#[test]
fn what_is_no_image_or_no_quality_is_refused() {
    let mut jpeg = Jpeg::default();
    let extent = Extent { channels: 3, height: 8, width: 8 };
    let mut image = vec![0; extent.len()];
    for quality in [-1, 0, 101] {
        assert!(jpeg.round_trip(&mut image, extent, quality).is_err());
        assert!(jpeg.encode(&image, extent, quality, false).is_err());
    }
    assert!(jpeg.round_trip(&mut image[1..], extent, 50).is_err());
    assert!(jpeg.round_trip(&mut image, Extent { channels: 2, height: 8, width: 12 }, 50).is_err());
    assert!(jpeg.round_trip(&mut [], Extent { channels: 3, height: 0, width: 8 }, 50).is_ok());
}
