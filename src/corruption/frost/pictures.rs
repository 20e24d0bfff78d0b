//! The published pictures of ice, as both sets of parameters show them.

use crate::base::color::luma;
use crate::corruption::Profile;
use sha2::{Digest, Sha256};

/// The published files and their SHA-256 (spec/reconstruction 3.6). The last is published and never shown.
pub const FILES: [(&str, &str); 6] = [
    ("frost1.png", "ff9f907860bd7a835d459e32f9d588062b7f61ee267343cc7222b56753a14755"),
    ("frost2.png", "fe211a89b336999c207a852ce05818d4545d0b57c5beadd824b4cc9d9a9b6137"),
    ("frost3.png", "2d0d50b4a9bb213f38b024ef7768731bb83cc08d2f26b5766bbc167cdfa0e504"),
    ("frost4.jpg", "3f8b91ca1a9fa7167b09e773da53f5ae60d0a1fd88f02a783f6e328a72887f6e"),
    ("frost5.jpg", "5fc6a19df4a429ba68abdcc8f8a4278d4c9f81c9ccafd2c92ab0c8cf8992ebd2"),
    ("frost6.jpg", "1f92b2f48408748085b68dd81d816ef239f42cef3029c25d041fcb6760fb4f25"),
];

/// How many are shown.
pub(super) const N_SHOWN: usize = 5;

/// Whether a file's bytes have this digest; the error says what they have.
pub fn check(bytes: &[u8], expected: &str) -> Result<(), String> {
    let found = format!("{:x}", Sha256::digest(bytes));
    let same = found == expected;
    same.then_some(()).ok_or_else(|| format!("has SHA-256 {found}, and the published picture {expected}"))
}

/// A picture that was decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// Rows and columns.
    pub size: [usize; 2],
    /// Planes of red, green and blue, one after another.
    pub pixels: Vec<u8>,
}

/// A picture at the size of a profile: planes of red, green, blue and their luma.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Resized {
    pub(super) size: [usize; 2],
    pub(super) planes: [Vec<u8>; 4],
}

/// The pictures that are shown, by profile.
#[derive(Debug, PartialEq, Eq)]
pub struct Pictures([Vec<Resized>; 2]);

impl Pictures {
    /// Of the decoded pictures in the order of [`FILES`]: the first five are shown. An error if there are fewer, or
    /// one has not as many values as its size says.
    pub fn new(decoded: &[Picture]) -> Result<Self, String> {
        let shown = decoded.get(..N_SHOWN).ok_or("there are fewer than five pictures of ice")?;
        let whole = |p: &Picture| !p.pixels.is_empty() && p.pixels.len() == 3 * p.size[0] * p.size[1];
        if !shown.iter().all(whole) {
            return Err("a picture of ice has not three values a pixel".to_owned());
        }
        let of = |profile| shown.iter().map(|picture| resized(picture, profile)).collect();
        Ok(Self(Profile::ALL.map(of)))
    }

    pub(super) fn get(&self, profile: Profile, number: usize) -> &Resized {
        &self.0[profile as usize][number]
    }
}

/// What an output pixel is made of along one axis: places, and their weights.
type Taps = Vec<(usize, f64)>;

/// As OpenCV's `resize`, whose fixed point may differ by a level.
fn resized(picture: &Picture, profile: Profile) -> Resized {
    let axis = |n: usize| match profile {
        // Its steps follow the factor, not the sizes.
        Profile::Tiny => taps(n, (0.3 * n as f64).round_ties_even().max(1.0) as usize, 1.0 / 0.3, linear),
        Profile::ImageNet => {
            // 991 for 900 pixels: the published program multiplies in floats too.
            let to = (1.1 * n as f64).ceil() as usize;
            taps(n, to, n as f64 / to as f64, cubic)
        }
    };
    let [down, across] = picture.size.map(axis);
    let [height, width] = picture.size;
    let plane = |c: usize| {
        let plane = &picture.pixels[c * height * width..][..height * width];
        let mix = |row: &[u8], taps: &Taps| -> f64 {
            taps.iter().map(|&(x, weight)| weight * f64::from(row[x])).sum()
        };
        let rows: Vec<Vec<f64>> =
            plane.chunks_exact(width).map(|row| across.iter().map(|taps| mix(row, taps)).collect()).collect();
        let value = |taps: &Taps, x: usize| -> f64 { taps.iter().map(|&(y, w)| w * rows[y][x]).sum() };
        let byte = |value: f64| (value + 0.5).floor().clamp(0.0, 255.0) as u8;
        let row = |taps| (0..across.len()).map(move |x| byte(value(taps, x)));
        down.iter().flat_map(row).collect::<Vec<u8>>()
    };
    let [red, green, blue] = [0, 1, 2].map(plane);
    let gray = red.iter().zip(&green).zip(&blue).map(|((&r, &g), &b)| luma(r, g, b)).collect();
    Resized { size: [down.len(), across.len()], planes: [red, green, blue, gray] }
}

/// Of `to` pixels, `step` of the `from` ones apart, whose edges go on for ever.
fn taps(from: usize, to: usize, step: f64, weights: fn(f64) -> [f64; 4]) -> Vec<Taps> {
    let at = |j: usize| {
        let centre = (j as f64 + 0.5) * step - 0.5;
        let place = |k: i64| (centre.floor() as i64 + k).clamp(0, from as i64 - 1) as usize;
        (-1..=2)
            .map(place)
            .zip(weights(centre - centre.floor()))
            .filter(|(_, weight)| *weight != 0.0)
            .collect()
    };
    (0..to).map(at).collect()
}

/// Weights of the four neighbours of a place `t` behind the second.
fn linear(t: f64) -> [f64; 4] {
    [0.0, 1.0 - t, t, 0.0]
}

/// Keys' cubic convolution with OpenCV's coefficient.
fn cubic(t: f64) -> [f64; 4] {
    const A: f64 = -0.75;
    let near = |t: f64| ((A + 2.0) * t - (A + 3.0)) * t * t + 1.0;
    let far = |t: f64| ((A * t - 5.0 * A) * t + 8.0 * A) * t - 4.0 * A;
    [far(1.0 + t), near(t), near(1.0 - t), far(2.0 - t)]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sizes of the published pictures and what becomes of them (spec/reconstruction 3.5).
    #[test]
    fn sizes_are_those_of_the_definition() {
        for (size, tiny, imagenet) in [
            ([600, 900], [180, 270], [660, 991]),
            ([315, 560], [94, 168], [347, 616]),
            ([350, 527], [105, 158], [386, 580]),
            ([495, 660], [148, 198], [545, 727]),
        ] {
            let picture = Picture { size, pixels: vec![7; 3 * size[0] * size[1]] };
            for (profile, expected) in [(Profile::Tiny, tiny), (Profile::ImageNet, imagenet)] {
                let found = resized(&picture, profile);
                assert_eq!(found.size, expected, "{size:?} {profile}");
                assert!(found.planes.iter().all(|plane| plane.iter().all(|&v| v == 7)), "{size:?} {profile}");
            }
        }
    }

    /// What OpenCV 4.14 makes of the same picture: its whole first plane at 0.3 of the size, and parts of rows 0, 12 and
    /// 25 of blue, green and red at 1.1.
    #[test]
    fn pixels_are_opencv_s() {
        let [height, width] = [23, 31];
        let value = |i: usize| {
            let (c, y, x) = (i / (height * width), i / width % height, i % width);
            (7 * x + 13 * y + 29 * c + 5 * (x * y % 31) + 40 * c * ((x ^ y) & 1)) as u8
        };
        let picture = Picture { size: [height, width], pixels: (0..3 * height * width).map(value).collect() };
        let near = |found: &[u8], expected: &[u8]| {
            let far = found.iter().zip(expected).map(|(a, b)| a.abs_diff(*b)).max();
            assert!(found.len() == expected.len() && far <= Some(1), "{found:?}, not {expected:?}");
        };
        let tiny = resized(&picture, Profile::Tiny);
        assert_eq!(tiny.size, [7, 9]);
        #[rustfmt::skip]
        near(&tiny.planes[0], &[
            30, 73, 116, 158, 158, 218, 47, 48, 90, 93, 191, 147, 105, 126, 147, 39, 150, 81,
            156, 146, 130, 101, 72, 89, 74, 73, 93, 176, 123, 85, 78, 90, 79, 108, 163, 217,
            25, 58, 90, 110, 117, 123, 143, 175, 208, 69, 98, 113, 120, 143, 188, 173, 145, 181,
            125, 139, 154, 168, 161, 157, 155, 150, 130,
        ]);
        let large = resized(&picture, Profile::ImageNet);
        assert_eq!(large.size, [26, 35]);
        let row = |c: usize, y: usize| &large.planes[c][y * 35..][..35];
        near(&row(2, 0)[..12], &[51, 141, 83, 128, 123, 111, 163, 101, 188, 110, 190, 148]);
        near(&row(1, 12)[..12], &[192, 152, 58, 137, 180, 94, 42, 44, 15, 113, 79, 48]);
        near(&row(0, 25)[23..], &[153, 31, 36, 246, 222, 98, 6, 148, 216, 81, 58, 28]);
    }

    #[test]
    fn pictures_that_are_not_whole_are_refused() {
        let picture = Picture { size: [2, 3], pixels: vec![0; 18] };
        assert!(Pictures::new(&vec![picture.clone(); 5]).is_ok());
        assert!(Pictures::new(&vec![picture.clone(); 4]).is_err());
        let cut = Picture { pixels: vec![0; 17], ..picture.clone() };
        assert!(Pictures::new(&[vec![picture; 4], vec![cut]].concat()).is_err());
    }

    #[test]
    fn another_file_is_told_by_its_digest() {
        assert_eq!(check(b"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"), Ok(()));
        let told = check(b"abd", FILES[0].1).unwrap_err();
        assert!(told.contains("SHA-256 a52d159f") && told.contains(FILES[0].1), "{told}");
    }
}
