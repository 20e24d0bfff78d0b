//! Pictures of ice: ridges of lattice noise in octaves, with the statistics of the published pictures
//! (spec/reconstruction 3.6).

use crate::base::{Purpose, Rng, RngKey};
use crate::corruption::Profile;
use std::f32::consts::TAU;
use std::sync::OnceLock;

/// Pixels of a side. A texture is a torus.
pub(super) const SIDE: usize = 256;
pub(super) const N_TEXTURES: usize = 5;

/// What a published picture, reduced to 0.3 of its size, looks like.
struct Picture {
    /// Means and deviations of red, green, blue.
    mean: [f32; 3],
    std: [f32; 3],
    /// By which power of their size larger crystals are stronger. Chosen so that neighbouring pixels differ as
    /// much as those of the published picture.
    growth: f32,
}

/// The second and third published pictures are the same.
const PICTURES: [Picture; N_TEXTURES] = [
    Picture { mean: [78.0, 149.0, 166.0], std: [25.0, 16.0, 15.0], growth: 0.15 },
    Picture { mean: [201.0, 205.0, 214.0], std: [20.0, 21.0, 22.0], growth: 0.03 },
    Picture { mean: [201.0, 205.0, 214.0], std: [20.0, 21.0, 22.0], growth: 0.03 },
    Picture { mean: [137.0, 153.0, 165.0], std: [26.0, 26.0, 28.0], growth: -0.11 },
    Picture { mean: [112.0, 123.0, 135.0], std: [42.0, 41.0, 39.0], growth: 0.0 },
];

/// Red, green, blue and their luma.
type Planes = [Vec<u8>; 4];

/// Texture `number` for `profile`, which is made when it is first asked for. Profile I shows pictures nearly
/// four times as large, so its finest octaves are missing.
pub(super) fn texture(profile: Profile, number: usize) -> &'static Planes {
    static TEXTURES: [[OnceLock<Planes>; N_TEXTURES]; 2] =
        [const { [const { OnceLock::new() }; N_TEXTURES] }; 2];
    let octaves: &[usize] = match profile {
        Profile::Tiny => &[2, 4, 8, 16, 32, 64],
        Profile::ImageNet => &[4, 8, 16, 32, 64, 128],
    };
    TEXTURES[profile as usize][number].get_or_init(|| paint(&PICTURES[number], number as u32, octaves))
}

fn paint(picture: &Picture, number: u32, octaves: &[usize]) -> Planes {
    let mut relief = vec![0f32; SIDE * SIDE];
    for &spacing in octaves {
        let rng = RngKey::new(0, Purpose::Corruption, u32::MAX - number).stream(spacing as u32, 0);
        let mut octave = crystals(spacing, rng);
        standardize(&mut octave);
        let weight = (spacing as f32).powf(picture.growth);
        relief.iter_mut().zip(&octave).for_each(|(sum, value)| *sum += weight * value);
    }
    standardize(&mut relief);
    let [red, green, blue] = [0, 1, 2].map(|c| {
        let byte = |&v: &f32| (picture.mean[c] + picture.std[c] * v).round().clamp(0.0, 255.0) as u8;
        relief.iter().map(byte).collect::<Vec<u8>>()
    });
    let color = red.iter().zip(&green).zip(&blue);
    let luma = color.map(|((&r, &g), &b)| crate::base::color::luma(r, g, b)).collect();
    [red, green, blue, luma]
}

/// Bright ridges where noise passes through zero, as crystals have, and some of the noise itself.
fn crystals(spacing: usize, mut rng: Rng) -> Vec<f32> {
    let (first, second) = (gradient_noise(spacing, &mut rng), gradient_noise(spacing, &mut rng));
    first.iter().zip(&second).map(|(a, b)| 0.35 * b - (a.abs() * (0.2 + b.abs())).sqrt()).collect()
}

/// Perlin's gradient noise on a lattice of `spacing` pixels ("An image synthesizer", SIGGRAPH 1985).
fn gradient_noise(spacing: usize, rng: &mut Rng) -> Vec<f32> {
    let n = SIDE / spacing;
    let slopes: Vec<[f32; 2]> =
        (0..n * n).map(|_| (TAU * rng.unit() as f32).sin_cos()).map(|(y, x)| [y, x]).collect();
    let fade = |t: f32| t * t * t * (t * (6.0 * t - 15.0) + 10.0);
    let value = |at: usize| {
        let (y, x) = (at / SIDE, at % SIDE);
        // Pixel centres never lie on the lattice, where this noise is 0.
        let within = |at: usize| ((at % spacing) as f32 + 0.5) / spacing as f32;
        let (dy, dx) = (within(y), within(x));
        let corner = |j: usize, i: usize| {
            let [sy, sx] = slopes[(y / spacing + j) % n * n + (x / spacing + i) % n];
            sy * (dy - j as f32) + sx * (dx - i as f32)
        };
        let across = |j: usize| corner(j, 0) + fade(dx) * (corner(j, 1) - corner(j, 0));
        across(0) + fade(dy) * (across(1) - across(0))
    };
    (0..SIDE * SIDE).map(value).collect()
}

fn standardize(values: &mut [f32]) {
    let n = values.len() as f32;
    let mean = values.iter().sum::<f32>() / n;
    let std = (values.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / n).sqrt();
    for v in values.iter_mut() {
        *v = (*v - mean) / std;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn textures_have_the_published_means_deviations_and_roughness() {
        // RMS horizontal gradient of the gray pictures at 0.3 of their size.
        let roughness = [11.5, 15.3, 15.3, 23.2, 31.0];
        for (number, (picture, expected)) in PICTURES.iter().zip(roughness).enumerate() {
            let planes = texture(Profile::Tiny, number);
            for (c, plane) in planes.iter().enumerate().take(3) {
                let n = plane.len() as f32;
                let mean = plane.iter().map(|&v| f32::from(v)).sum::<f32>() / n;
                let std = (plane.iter().map(|&v| (f32::from(v) - mean).powi(2)).sum::<f32>() / n).sqrt();
                // Bytes end at 255, which takes a little off.
                assert!((mean - picture.mean[c]).abs() < 2.0, "{number} {c}: mean {mean}");
                assert!((std / picture.std[c] - 1.0).abs() < 0.1, "{number} {c}: deviation {std}");
            }
            let steps = planes[3].windows(2).map(|p| (f32::from(p[1]) - f32::from(p[0])).powi(2));
            let found = (steps.sum::<f32>() / planes[3].len() as f32).sqrt();
            assert!((found / expected - 1.0).abs() < 0.1, "{number}: {found}, expected {expected}");
        }
    }

    #[test]
    fn no_two_textures_are_the_same() {
        for a in 0..N_TEXTURES {
            for b in 0..a {
                assert_ne!(texture(Profile::ImageNet, a), texture(Profile::ImageNet, b));
            }
        }
    }
}
