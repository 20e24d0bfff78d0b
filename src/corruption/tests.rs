//! Golden values, moments, and laws that hold for all corruptions.

use super::*;
use crate::base::rng::mix64;
use std::f64::consts::TAU;

const COLOR: Extent = Extent { channels: 3, height: 64, width: 64 };
const KEY: ImageKey = ImageKey { seed: 7, image: 3 };

/// The source that the golden values were made with: SplitMix64, one draw after another, the channels of a
/// pixel side by side.
struct Golden(u64);

impl Golden {
    fn unit(&mut self) -> f64 {
        let word = mix64(self.0);
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        (word >> 11) as f64 / (1u64 << 53) as f64
    }
}

impl Draws for Golden {
    fn words(&mut self, out: &mut [u32]) {
        for word in out.iter_mut() {
            *word = (self.unit() * (1u64 << 32) as f64) as u32;
        }
    }

    fn normals(&mut self, out: &mut [f32]) {
        let n = out.len();
        let plane = COLOR.plane();
        for i in 0..n {
            let (radius, angle) = (self.unit(), self.unit());
            let radius = (-2.0 * (1.0 - radius).ln()).sqrt();
            let at = if n == 3 * plane { i % 3 * plane + i / 3 } else { i };
            out[at] = (radius * (TAU * angle).cos()) as f32;
        }
    }
}

/// Image T of the spec.
fn image() -> Vec<u8> {
    let value = |i: usize| {
        let (c, y, x) = (i / 4096, i / 64 % 64, i % 64);
        (7 * x + 13 * y + 29 * c + 5 * (x * y % 31) + 40 * c * ((x ^ y) & 1)) as u8
    };
    (0..3 * 4096).map(value).collect()
}

/// A smooth picture with edges.
fn picture() -> Vec<u8> {
    let value = |i: usize| {
        let (c, y, x) = (i / 4096, (i / 64 % 64) as f64, (i % 64) as f64);
        let disk = if (x - 30.0).hypot(y - 34.0) < 17.0 { 70.0 } else { 0.0 };
        let wave = 30.0 * (x / 5.0 + c as f64).sin() + 25.0 * (y / 9.0).cos();
        110.0 + disk + wave + 10.0 * (x * y / 40.0).sin()
    };
    (0..3 * 4096).map(|i| value(i) as u8).collect()
}

fn corrupted(
    corruption: Corruption,
    manner: impl Into<Manner>,
    severity: Severity,
    key: ImageKey,
) -> Vec<u8> {
    let mut image = picture();
    corruption.apply(manner, severity, key, &mut image, COLOR, &mut Scratch::new());
    image
}

fn all() -> impl Iterator<Item = (Corruption, Profile, Severity)> {
    let cells = |c| Profile::ALL.map(|p| Severity::ALL.map(|s| (c, p, s)));
    Corruption::ALL.into_iter().flat_map(cells).flatten()
}

#[test]
fn the_image_of_the_golden_values_is_that_of_the_spec() {
    let image = image();
    assert_eq!(image.iter().map(|&v| u32::from(v)).sum::<u32>(), 1_567_891);
    assert_eq!([0, 4096 + 660, 32 * 64 + 31, 3 * 4096 - 1].map(|at| image[at]), [0, 113, 121, 43]);
    let mut golden = Golden(42);
    assert_eq!(golden.unit(), 0.741_564_878_771_823_3);
    let mut normals = [0.0; 3];
    Golden(42).normals(&mut normals);
    for (found, expected) in normals.iter().zip([0.882_248_9, -0.450_849_9, 0.188_352_63]) {
        assert!((found - expected).abs() < 1e-7f32, "{found} {expected}");
    }
}

#[test]
fn every_golden_value_is_met() {
    let mut wrong = Vec::new();
    let mut cases = 0;
    for line in include_str!("../../tests/vectors/corruptions.txt").lines().filter(|l| !l.starts_with('#')) {
        let mut words = line.split(' ');
        let profile: Profile = words.next().unwrap().parse().unwrap();
        let corruption: Corruption = words.next().unwrap().parse().unwrap();
        let severity: Severity = words.next().unwrap().parse().unwrap();
        let expected: Vec<f64> = words.map(|word| word.parse().unwrap()).collect();
        let (mut s, mut draws) = (Scratch::new(), Golden(42));
        s.shape(&image(), COLOR);
        s.take(&image());
        match corruption {
            Corruption::GaussianNoise => {
                let mut normals = vec![0.0; COLOR.len()];
                draws.normals(&mut normals);
                let std = noise::deviation(profile, severity) as f32;
                s.values.iter_mut().zip(normals).for_each(|(value, n)| *value += std * n);
            }
            Corruption::MotionBlur => motion_blur::at_angle(&mut s, profile, severity, 30.0),
            Corruption::Snow => snow::at_angle(&mut s, profile, severity, -100.0, &mut draws),
            _ => match corruption.definition() {
                Definition::Values(corrupt) => corrupt(&mut s, profile, severity, &mut draws),
                Definition::Bytes(corrupt) => {
                    let mut image = image();
                    corrupt(&mut image, &mut s, profile, severity, &mut draws);
                    // Defocus leaves real values behind; the results of the others are whole.
                    if corruption != Corruption::DefocusBlur {
                        s.take(&image);
                    }
                }
            },
        }
        let values: Vec<f64> = s.values.iter().map(|&v| f64::from(v).clamp(0.0, 255.0)).collect();
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let std = (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt();
        let at = [0, 4096 + 660, 32 * 64 + 31, 3 * 4096 - 1].map(|at| values[at]);
        // Truncation inside glass blur may turn one way or the other where a value is whole (spec 6.8).
        let (whole, single) = if corruption == Corruption::GlassBlur { (0.02, 0.9) } else { (0.02, 0.02) };
        let found = [mean, std].into_iter().chain(at);
        let far = |i: usize| if i < 2 { whole } else { single };
        let differs: Vec<f64> = found.zip(&expected).map(|(f, e)| f - e).collect();
        if differs.len() != 6 || differs.iter().enumerate().any(|(i, d)| d.abs() > far(i)) {
            wrong.push(format!("{line}: off by {differs:.4?}"));
        }
        cases += 1;
    }
    assert_eq!(cases, 95);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_plasma_is_that_of_the_spec() {
    let (mut drawn, mut cloud) = (Vec::new(), Vec::new());
    fog::plasma(64, 3.0, &mut Golden(42), &mut drawn, &mut cloud);
    let mean = cloud.iter().sum::<f32>() / 4096.0;
    let found = [mean, cloud[0], cloud[32 * 65], cloud[4095], cloud[32]];
    for (found, expected) in found.iter().zip([0.419_353, 0.475_853, 1.0, 0.450_214, 0.0]) {
        assert!((found - expected).abs() < 1e-4, "{found} {expected}");
    }
}

/// Mean absolute difference of image S after JPEG (spec, appendix A; codecs differ by up to a tenth).
#[test]
fn jpeg_loses_what_pillow_loses() {
    let value = |i: usize| match (i / 4096, (i / 64 % 64) as f64, (i % 64) as f64) {
        (0, _, x) => (128.0 + 100.0 * (x / 9.0).sin()) as u8,
        (1, y, _) => (128.0 + 100.0 * (y / 7.0).cos()) as u8,
        (_, y, x) => (2.0 * (x + y)) as u8,
    };
    let before: Vec<u8> = (0..3 * 4096).map(value).collect();
    for (quality, expected) in [(85, 1.474), (65, 2.300), (58, 2.387), (50, 2.679), (40, 2.841), (25, 4.206)]
    {
        let mut after = before.clone();
        Jpeg::default().round_trip(&mut after, COLOR, quality).unwrap();
        let lost = distance(&before, &after);
        assert!((lost / expected - 1.0).abs() < 0.1, "{quality}: {lost}, expected {expected}");
    }
}

fn distance(a: &[u8], b: &[u8]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a.abs_diff(b))).sum::<f64>() / a.len() as f64
}

/// A picture with the spectrum of natural ones (amplitudes fall as one over the frequency), mean 144 and standard
/// deviation 47, its channels much alike.
fn natural() -> Vec<u8> {
    let mut draws = Golden(5);
    let waves: Vec<[f64; 5]> = (0..900)
        .map(|_| {
            let (kx, ky) = ((draws.unit() * 24.0).floor(), (draws.unit() * 48.0).floor() - 24.0);
            [kx, ky, TAU * draws.unit(), 2.0 * draws.unit() - 1.0, 2.0 * draws.unit() - 1.0]
        })
        .filter(|[kx, ky, ..]| kx.hypot(*ky) > 0.0)
        .collect();
    let value = |i: usize| {
        let (c, y, x) = (i / 4096, (i / 64 % 64) as f64, (i % 64) as f64);
        let wave = |[kx, ky, phase, red, blue]: &[f64; 5]| {
            let tint = 1.0 + [*red, 0.0, *blue][c];
            tint * (TAU * (kx * x + ky * y) / 64.0 + phase).cos() / kx.hypot(*ky).powf(1.5)
        };
        waves.iter().map(wave).sum::<f64>()
    };
    let values: Vec<f64> = (0..3 * 4096).map(value).collect();
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let std = (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt();
    values.iter().map(|v| (144.0 + 47.0 * (v - mean) / std) as u8).collect()
}

/// Sizes of the effects, severities 1 to 5 of profile T, then of I, as the spec measured them on one natural picture
/// (3.9). Noise depends on its mean only; the rest on what is on it.
#[test]
fn effects_have_the_sizes_of_the_spec() {
    let table: [(Corruption, f64, [u8; 10]); 19] = [
        (Corruption::GaussianNoise, 0.15, [10, 20, 30, 37, 44, 20, 30, 44, 60, 78]),
        (Corruption::ShotNoise, 0.15, [12, 19, 26, 34, 46, 24, 36, 50, 72, 87]),
        (Corruption::ImpulseNoise, 0.15, [14, 19, 31, 38, 51, 23, 34, 41, 56, 71]),
        (Corruption::DefocusBlur, 0.6, [4, 5, 7, 11, 13, 13, 16, 20, 23, 25]),
        (Corruption::GlassBlur, 0.6, [13, 11, 17, 15, 21, 16, 16, 24, 22, 24]),
        (Corruption::MotionBlur, 0.6, [7, 11, 13, 16, 17, 17, 22, 27, 31, 32]),
        (Corruption::ZoomBlur, 0.6, [10, 14, 17, 19, 21, 14, 17, 18, 20, 22]),
        (Corruption::Snow, 0.3, [45, 50, 70, 84, 92, 51, 78, 80, 89, 104]),
        (Corruption::Frost, 0.6, [53, 43, 46, 49, 54, 66, 77, 76, 68, 62]),
        (Corruption::Fog, 0.3, [19, 27, 34, 41, 47, 41, 46, 51, 48, 56]),
        (Corruption::Brightness, 0.3, [21, 41, 56, 66, 71, 21, 41, 56, 66, 71]),
        (Corruption::Contrast, 0.3, [23, 27, 31, 34, 36, 23, 27, 31, 34, 36]),
        (Corruption::ElasticTransform, 0.6, [29, 23, 24, 17, 17, 17, 21, 24, 26, 29]),
        (Corruption::Pixelate, 0.6, [4, 6, 8, 8, 9, 8, 9, 12, 15, 16]),
        (Corruption::JpegCompression, 0.6, [8, 8, 9, 9, 10, 10, 12, 13, 15, 17]),
        (Corruption::SpeckleNoise, 0.15, [22, 29, 36, 42, 48, 22, 29, 48, 59, 73]),
        (Corruption::GaussianBlur, 0.6, [3, 6, 8, 10, 11, 8, 14, 18, 21, 25]),
        (Corruption::Spatter, 0.6, [8, 14, 21, 25, 30, 9, 17, 21, 37, 44]),
        (Corruption::Saturate, 0.6, [32, 41, 39, 66, 69, 32, 41, 39, 66, 69]),
    ];
    let (picture, mut scratch, mut wrong) = (natural(), Scratch::new(), String::new());
    for (corruption, bound, row) in table {
        for (i, expected) in row.into_iter().enumerate() {
            let (profile, severity) = (Profile::ALL[i / 5], Severity::ALL[i % 5]);
            let squares = (0..8).map(|seed| {
                let mut image = picture.clone();
                let key = ImageKey { seed, image: 0 };
                corruption.apply(profile, severity, key, &mut image, COLOR, &mut scratch);
                let pairs = image.iter().zip(&picture);
                pairs.map(|(&a, &b)| f64::from(a.abs_diff(b)).powi(2)).sum::<f64>() / image.len() as f64
            });
            let found = squares.map(f64::sqrt).sum::<f64>() / 8.0;
            if (found / f64::from(expected)).ln().abs() > (1.0 + bound).ln() {
                wrong.push_str(&format!(
                    "{corruption} {profile} {severity}: {found:.1}, not about {expected}\n"
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// Moments on a constant image (spec 6.9), wide enough for a million values.
#[test]
fn noise_has_the_moments_of_its_definition() {
    let extent = Extent { channels: 1, height: 1000, width: 1000 };
    let n = extent.len() as f64;
    let values = |corruption: Corruption, severity: u8| {
        let mut image = vec![128; extent.len()];
        let severity = Severity::new(severity).unwrap();
        corruption.apply(Profile::Tiny, severity, KEY, &mut image, extent, &mut Scratch::new());
        image
    };
    let x = 128.0 / 255.0;
    for (corruption, severity, std) in [
        (Corruption::GaussianNoise, 3, 0.12f64),
        (Corruption::SpeckleNoise, 2, 0.2 * x),
        // 50 photons: steps of one photon of 250 are a level long, and truncation narrows them.
        (Corruption::ShotNoise, 3, (x / 50.0f64).sqrt()),
    ] {
        let found = values(corruption, severity);
        // Truncation takes half a level on average.
        let real = |&v: &u8| (f64::from(v) + 0.5) / 255.0;
        let mean = found.iter().map(real).sum::<f64>() / n;
        let variance = found.iter().map(|v| (real(v) - mean).powi(2)).sum::<f64>() / n;
        assert!((mean - x).abs() < 0.001, "{corruption}: mean {mean}");
        assert!((variance.sqrt() / std - 1.0).abs() < 0.01, "{corruption}: deviation {}", variance.sqrt());
    }
    let found = values(Corruption::ImpulseNoise, 5);
    for extreme in [0, 255] {
        let share = found.iter().map(|&v| f64::from(u8::from(v == extreme))).sum::<f64>() / n;
        assert!((share / 0.07 - 1.0).abs() < 0.02, "{extreme}: {share}");
    }
}

#[test]
fn the_same_key_gives_the_same_bytes_whatever_was_done_before() {
    let mut used = Scratch::new();
    let mut small = vec![200; 3 * 5 * 7];
    let extent = Extent { channels: 3, height: 5, width: 7 };
    for (corruption, profile, severity) in all() {
        let fresh = corrupted(corruption, profile, severity, KEY);
        corruption.apply(profile, severity, KEY, &mut small, extent, &mut used);
        let mut again = picture();
        corruption.apply(profile, severity, KEY, &mut again, COLOR, &mut used);
        assert!(fresh == again, "{corruption} {profile} {severity}");
        assert_ne!(fresh, picture(), "{corruption} {profile} {severity} changes nothing");
    }
}

#[test]
fn swapping_changes_glass_blur_alone() {
    for (corruption, profile, severity) in all() {
        let swapped = corrupted(corruption, Manner { profile, glass_swap: true }, severity, KEY);
        let same = swapped == corrupted(corruption, profile, severity, KEY);
        assert_eq!(same, corruption != Corruption::GlassBlur, "{corruption} {profile} {severity}");
    }
}

/// Severity 1 of profile t blurs nothing (spec 3.5).
#[test]
fn glass_that_swaps_loses_no_pixel() {
    // No two pixels are of one colour.
    let image: Vec<u8> =
        (0..3 * 4096).map(|i| [i % 256, i % 4096 / 256, 0][i / 4096]).map(|v| v as u8).collect();
    let colors = |glass_swap| {
        let (mut image, manner) = (image.clone(), Manner { profile: Profile::Tiny, glass_swap });
        Corruption::GlassBlur.apply(manner, Severity(1), KEY, &mut image, COLOR, &mut Scratch::new());
        (0..4096).map(|i| usize::from(image[i]) + 256 * usize::from(image[4096 + i])).collect::<Vec<_>>()
    };
    let sorted = |mut colors: Vec<usize>| {
        colors.sort_unstable();
        colors
    };
    let every: Vec<usize> = (0..4096).collect();
    assert_eq!(sorted(colors(true)), every);
    assert!(colors(true) != every && sorted(colors(false)) != every);
}

#[test]
fn random_corruptions_depend_on_seed_and_image_and_the_others_do_not() {
    for (corruption, profile, severity) in all().filter(|(.., severity)| severity.get() == 3) {
        let one = corrupted(corruption, profile, severity, KEY);
        for key in [ImageKey { seed: 8, ..KEY }, ImageKey { image: 4, ..KEY }] {
            let same = one == corrupted(corruption, profile, severity, key);
            assert_eq!(same, corruption.is_deterministic(), "{corruption} {profile}");
        }
    }
}

/// Not glass blur, frost, elastic transform, nor fog of profile I (spec 3.9), nor saturation, which goes two ways.
#[test]
fn a_higher_severity_changes_more() {
    use Corruption::{ElasticTransform, Fog, Frost, GlassBlur, Saturate};
    for corruption in Corruption::ALL {
        for profile in Profile::ALL {
            let exempt = matches!(corruption, GlassBlur | Frost | ElasticTransform | Saturate)
                || (corruption, profile) == (Fog, Profile::ImageNet);
            let mean = |severity| {
                let square = |image| {
                    let after = corrupted(corruption, profile, severity, ImageKey { image, ..KEY });
                    let squares = picture().into_iter().zip(after);
                    squares.map(|(a, b)| f64::from(a.abs_diff(b)).powi(2)).sum::<f64>()
                };
                (0..40).map(square).sum::<f64>()
            };
            let found = Severity::ALL.map(mean);
            let grows = found.is_sorted_by(|a, b| *a < b * 1.02) && found[0] < found[4];
            assert!(exempt || grows, "{corruption} {profile}: {found:?}");
        }
    }
}

/// One channel is corrupted as three equal ones are, as far as the definition does not draw for every channel.
#[test]
fn gray_is_corrupted_as_equal_channels_are() {
    use Corruption::{Frost, GaussianNoise, ImpulseNoise, Saturate, ShotNoise, Spatter, SpeckleNoise};
    let gray = Extent { channels: 1, ..COLOR };
    for (corruption, profile, severity) in all() {
        if matches!(corruption, GaussianNoise | ShotNoise | ImpulseNoise | SpeckleNoise) {
            continue;
        }
        let mut one = picture()[..4096].to_vec();
        let mut three = one.repeat(3);
        let mut scratch = Scratch::new();
        corruption.apply(profile, severity, KEY, &mut one, gray, &mut scratch);
        corruption.apply(profile, severity, KEY, &mut three, COLOR, &mut scratch);
        let luma = |i: usize| crate::base::color::luma(three[i], three[4096 + i], three[8192 + i]);
        let colored = matches!(corruption, Frost | Saturate | Spatter);
        // Colours are clipped and truncated one by one, so their luma may differ.
        let most = if colored { 20 } else { 0 };
        for (i, &v) in one.iter().enumerate() {
            assert!(v.abs_diff(luma(i)) <= most, "{corruption} {profile} {severity}: {v}, {}", luma(i));
        }
    }
}

#[test]
fn images_of_every_size_and_extreme_values_are_taken() {
    let mut scratch = Scratch::new();
    for [channels, height, width] in [[1, 1, 1], [3, 1, 1], [3, 2, 9], [1, 9, 2], [3, 33, 65], [1, 300, 40]] {
        let extent = Extent { channels, height, width };
        for (corruption, profile, severity) in all() {
            for value in [0, 255] {
                let mut image = vec![value; extent.len()];
                corruption.apply(profile, severity, KEY, &mut image, extent, &mut scratch);
                assert!(scratch.values.iter().all(|v| v.is_finite()), "{corruption} {profile} {severity}");
            }
        }
    }
}

#[test]
fn blurs_and_geometry_leave_a_constant_image_alone() {
    use Corruption as C;
    let constant = vec![93; 3 * 4096];
    for corruption in [
        C::GlassBlur,
        C::MotionBlur,
        C::ZoomBlur,
        C::GaussianBlur,
        C::ElasticTransform,
        C::Pixelate,
        C::Contrast,
    ] {
        for (profile, severity) in Profile::ALL.iter().flat_map(|&p| Severity::ALL.map(|s| (p, s))) {
            let mut image = constant.clone();
            corruption.apply(profile, severity, KEY, &mut image, COLOR, &mut Scratch::new());
            assert!(image == constant, "{corruption} {profile} {severity}: {:?}", &image[..9]);
        }
    }
}

#[test]
fn names_are_read_back_and_unknown_ones_refused() {
    for corruption in Corruption::ALL {
        assert_eq!(corruption.as_str().parse(), Ok(corruption));
        assert_eq!(corruption.group() == Group::Extra, !Corruption::PAPER.contains(&corruption));
    }
    let error = "rain".parse::<Corruption>().unwrap_err();
    assert!(error.contains("rain") && error.contains("snow"), "{error}");
    assert!("0".parse::<Severity>().is_err() && "6".parse::<Severity>().is_err());
    assert!("T".parse::<Profile>().is_err());
}
