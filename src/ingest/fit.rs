//! How images are cut and scaled before they are stored.

use super::image::{Image, Pixels};
use crate::base::resample::{Axis, Resampler, middle};
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

/// What becomes of an image between its file and its shard.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Fit {
    /// Nothing.
    Kept,
    /// Another size.
    Resized(Resize),
    /// A part of it, at another scale.
    Cut(Cut),
}

/// A new size, by Pillow's bilinear filter. Only for bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resize {
    /// The shorter side becomes so many pixels, and the square in the middle is kept.
    Short(u32),
    /// Height and width, whatever the image's proportions.
    Exact([u32; 2]),
}

/// More pixels on a side make no sense in a shard.
const MAX_SIDE: u32 = 4096;

impl FromStr for Resize {
    type Err = String;

    /// `256`, or height and width as in `64x64`.
    fn from_str(text: &str) -> Result<Self, String> {
        let side = |text: &str| text.parse().ok().filter(|side| (1..=MAX_SIDE).contains(side));
        let parsed = match text.split_once('x') {
            None => side(text).map(Self::Short),
            Some((height, width)) => side(height).zip(side(width)).map(|(h, w)| Self::Exact([h, w])),
        };
        parsed.ok_or_else(|| {
            format!(
                "expected a side in pixels, such as 256, or height and width, such as 64x64, up to {MAX_SIDE}"
            )
        })
    }
}

impl fmt::Display for Resize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short(side) => side.fmt(f),
            Self::Exact([height, width]) => write!(f, "{height}x{width}"),
        }
    }
}

impl Resize {
    /// Sizes after the resize, and what is kept of each axis, as torchvision's `Resize` and `CenterCrop` have it.
    fn windows(self, from: [usize; 2]) -> [(usize, Range<usize>); 2] {
        match self {
            Self::Exact(to) => to.map(|n| (n as usize, 0..n as usize)),
            Self::Short(side) => {
                let (side, short) = (side as usize, from[0].min(from[1]));
                from.map(|n| {
                    let to = (side as f64 * n as f64 / short as f64) as usize;
                    let start = middle(to, side);
                    (to, start..start + side)
                })
            }
        }
    }

    fn apply(self, image: &Image, planes: &[u8]) -> Image {
        let from = [image.height, image.width].map(|n| n as usize);
        let [down, across] = self.windows(from);
        let (down, across) =
            (Axis::bilinear(from[0], down.0, down.1), Axis::bilinear(from[1], across.0, across.1));
        let mut out = vec![0; image.channels as usize * down.len() * across.len()];
        let mut resampler = Resampler::default();
        let pairs =
            planes.chunks_exact(from[0] * from[1]).zip(out.chunks_exact_mut(down.len() * across.len()));
        pairs.for_each(|(plane, out)| resampler.resize(plane, from[1], [&down, &across], out));
        let (height, width) = (down.len() as u32, across.len() as u32);
        Image { channels: image.channels, height, width, pixels: Pixels::U8(out) }
    }
}

/// The part of a recorded image that is shown, and its scale.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cut {
    /// Pixels that are cut off above, below, left and right.
    pub crop: [u32; 4],
    /// Every so many-th pixel is kept, before scaling.
    pub subsample: u32,
    /// Factor of both sides, by linear interpolation without smoothing, as skimage's `rescale`. Bytes are cut to
    /// whole numbers.
    pub scale: f64,
}

impl Default for Cut {
    /// The whole image.
    fn default() -> Self {
        Self { crop: [0; 4], subsample: 1, scale: 1.0 }
    }
}

impl Cut {
    /// Reads `--crop`: one number for all sides, or those above, below, left and right.
    pub fn parse_crop(text: &str) -> Result<[u32; 4], String> {
        let sides: Result<Vec<u32>, _> = text.split(',').map(|side| side.trim().parse()).collect();
        match sides.as_deref() {
            Ok(&[all]) => Ok([all; 4]),
            Ok(&[above, below, left, right]) => Ok([above, below, left, right]),
            _ => Err("expected pixels of all sides, such as 36, or above, below, left and right, such as 36,36,20,20".to_owned()),
        }
    }

    fn apply<T: Copy + Into<f64>>(
        self,
        image: &Image,
        planes: &[T],
        of_f64: fn(f64) -> T,
    ) -> Result<(Vec<T>, [u32; 2]), String> {
        let size = [image.height, image.width].map(|n| n as usize);
        let [above, below, left, right] = self.crop.map(|n| n as usize);
        let kept = [above..size[0].saturating_sub(below), left..size[1].saturating_sub(right)];
        if kept.iter().any(Range::is_empty) {
            return Err(format!("{} x {} pixels, of which the crop leaves none", size[0], size[1]));
        }
        let step = self.subsample.max(1) as usize;
        let rows = kept[0].clone().step_by(step);
        let part = |plane: &[T]| -> Vec<T> {
            let row = |y: usize| kept[1].clone().step_by(step).map(move |x| y * size[1] + x);
            rows.clone().flat_map(row).map(|at| plane[at]).collect()
        };
        let from = kept.clone().map(|axis| axis.len().div_ceil(step));
        let to = from.map(|n| ((n as f64 * self.scale).round_ties_even() as usize).max(1));
        let planes = planes.chunks_exact(size[0] * size[1]).map(part);
        let scaled = |plane: Vec<T>| {
            if self.scale == 1.0 { plane } else { rescale(&plane, from, to, of_f64) }
        };
        Ok((planes.flat_map(scaled).collect(), to.map(|n| n as u32)))
    }
}

/// Linear interpolation between pixel centres; beyond the edge the image is mirrored about its last pixels.
fn rescale<T: Copy + Into<f64>>(
    plane: &[T],
    from: [usize; 2],
    to: [usize; 2],
    of_f64: fn(f64) -> T,
) -> Vec<T> {
    let taps = |axis: usize| -> Vec<[(usize, f64); 2]> {
        let (n, ratio) = (from[axis], from[axis] as f64 / to[axis] as f64);
        let mirrored = |i: i64| {
            let (i, last) = (i.unsigned_abs() as usize, n - 1);
            if i <= last { i } else { (2 * last).saturating_sub(i) }
        };
        let tap = |at: usize| {
            let position = (at as f64 + 0.5) * ratio - 0.5;
            let share = position - position.floor();
            let first = position.floor() as i64;
            [(mirrored(first), 1.0 - share), (mirrored(first + 1), share)]
        };
        (0..to[axis]).map(tap).collect()
    };
    let (rows, columns) = (taps(0), taps(1));
    let value = |row: &[(usize, f64); 2], column: &[(usize, f64); 2]| {
        let mut sum = 0.0;
        for (y, share_y) in row {
            for (x, share_x) in column {
                // In this order of operations, as SciPy's, so that cutting to whole numbers gives the same ones.
                sum += plane[y * from[1] + x].into() * share_y * share_x;
            }
        }
        of_f64(sum)
    };
    rows.iter().flat_map(|row| columns.iter().map(move |column| value(row, column))).collect()
}

impl Fit {
    /// The image as it is stored; why it cannot be, if so.
    pub(super) fn apply(self, image: Image) -> Result<Image, String> {
        match (self, &image.pixels) {
            (Self::Kept, _) => Ok(image),
            (Self::Resized(resize), Pixels::U8(planes)) => Ok(resize.apply(&image, planes)),
            (Self::Resized(_), Pixels::F32(_)) => {
                Err("holds floats, and only images of bytes are resized".to_owned())
            }
            (Self::Cut(cut), Pixels::U8(planes)) => {
                let (planes, [height, width]) = cut.apply(&image, planes, |v| v as u8)?;
                Ok(Image { height, width, pixels: Pixels::U8(planes), ..image })
            }
            (Self::Cut(cut), Pixels::F32(planes)) => {
                let (planes, [height, width]) = cut.apply(&image, planes, |v| v as f32)?;
                Ok(Image { height, width, pixels: Pixels::F32(planes), ..image })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::mix64;

    fn noise(height: u32, width: u32) -> Image {
        let pixels = Pixels::U8((0..u64::from(height * width)).map(|i| mix64(i) as u8).collect());
        Image { channels: 1, height, width, pixels }
    }

    /// Size, checksum and first pixels of bytes, and sum of floats, of what skimage 0.26 gives for the same images.
    #[test]
    fn crop_subsample_and_scale_equal_skimage() {
        let vectors = [
            ([120, 130], [36; 4], 1, 0.4, [19, 23], 6_048_541, [181, 64, 101], 7_632.989_273_309_708),
            ([50, 41], [1, 2, 3, 4], 2, 1.0, [24, 17], 5_366_330, [83, 7, 35], 7_012.428_580_284_119),
            ([50, 41], [0; 4], 3, 1.7, [29, 24], 9_775_770, [161, 171, 209], 12_026.221_277_832_985),
            ([9, 7], [0; 4], 1, 2.5, [22, 18], 4_495_969, [176, 183, 170], 6_321.280_727_267_265),
            ([37, 20], [2; 4], 2, 0.75, [13, 6], 371_854, [120, 57, 34], 1_299.293_036_460_876_5),
        ];
        for (from, crop, subsample, scale, to, sum, first, float_sum) in vectors {
            let fit = Fit::Cut(Cut { crop, subsample, scale });
            let image = noise(from[0], from[1]);
            let found = fit.apply(image.clone()).unwrap();
            assert_eq!(found.shape(), [1, to[0], to[1]]);
            let Pixels::U8(pixels) = &found.pixels else { panic!("bytes became floats") };
            assert_eq!(pixels[..3], first);
            assert_eq!(
                pixels.iter().zip((1..=251).cycle()).map(|(&v, i)| u64::from(v) * i).sum::<u64>(),
                sum
            );
            let Pixels::U8(bytes) = image.pixels else { unreachable!() };
            let floats = Pixels::F32(bytes.iter().map(|&v| f32::from(v) / 7.0).collect());
            let Pixels::F32(found) = fit.apply(Image { pixels: floats, ..image }).unwrap().pixels else {
                panic!("floats became bytes")
            };
            let total: f64 = found.into_iter().map(f64::from).sum();
            assert!((total - float_sum).abs() < 1e-6 * float_sum, "{total}, not {float_sum}");
        }
        assert!(Fit::Cut(Cut { crop: [4, 5, 0, 0], ..Cut::default() }).apply(noise(9, 9)).is_err());
    }

    #[test]
    fn a_resize_keeps_the_middle_square() {
        let resize = |text: &str, image| match text.parse().map(|r| Fit::Resized(r).apply(image)) {
            Ok(image) => image.unwrap(),
            Err(e) => panic!("{e}"),
        };
        // Sizes and starts by hand: int(256 * 301 / 200) = 385, and (385 - 256) / 2 = 64.5, of which the even
        // neighbour is taken.
        assert_eq!(Resize::Short(256).windows([301, 200]), [(385, 64..320), (256, 0..256)]);
        assert_eq!(resize("32", noise(50, 37)).shape(), [1, 32, 32]);
        assert_eq!(resize("20x31", noise(50, 37)).shape(), [1, 20, 31]);
        assert_eq!(resize("37", noise(37, 37)), noise(37, 37));
        for bad in ["", "0", "x", "64x", "5000", "-3", "64x64x3"] {
            assert!(bad.parse::<Resize>().is_err(), "{bad}");
        }
        assert_eq!(Cut::parse_crop("36"), Ok([36; 4]));
        assert_eq!(Cut::parse_crop("1, 2,3,4"), Ok([1, 2, 3, 4]));
        assert!(Cut::parse_crop("1,2").is_err());
    }
}
