//! The part of a stored image that is seen: its middle, or a region drawn at random that is brought to size
//! (spec/data section 3, ImageNet).

use crate::base::Rng;
use crate::base::resample::{Axis, Resampler, middle};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A region of random area and proportions, brought to the size that is shown by Pillow's bilinear filter:
/// torchvision's `RandomResizedCrop` (Szegedy et al. 2015, "Going deeper with convolutions").
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RandomResizedCrop {
    /// Smallest and largest area, as shares of the stored image's.
    pub scale: [f64; 2],
    /// Smallest and largest width over height; its logarithm is drawn.
    pub ratio: [f64; 2],
}

impl Default for RandomResizedCrop {
    /// torchvision's.
    fn default() -> Self {
        Self { scale: [0.08, 1.0], ratio: [3.0 / 4.0, 4.0 / 3.0] }
    }
}

/// A rectangle of an image, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    /// Rows above it.
    pub top: usize,
    /// Columns left of it.
    pub left: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl RandomResizedCrop {
    /// Draws a region of an image of `height` and `width`. After ten that do not fit, the largest one in the middle.
    pub fn draw(&self, rng: &mut Rng, [height, width]: [usize; 2]) -> Region {
        let area = (height * width) as f64;
        let [low, high] = self.ratio.map(f64::ln);
        for _ in 0..10 {
            let target = area * rng.uniform(self.scale[0], self.scale[1]);
            let ratio = rng.uniform(low, high).exp();
            let w = (target * ratio).sqrt().round_ties_even() as usize;
            let h = (target / ratio).sqrt().round_ties_even() as usize;
            if (1..=width).contains(&w) && (1..=height).contains(&h) {
                let top = rng.below((height - h + 1) as u32) as usize;
                let left = rng.below((width - w + 1) as u32) as usize;
                return Region { top, left, height: h, width: w };
            }
        }
        let (found, [low, high]) = (width as f64 / height as f64, self.ratio);
        let (h, w) = if found < low {
            ((width as f64 / low).round_ties_even() as usize, width)
        } else if found > high {
            (height, (height as f64 * high).round_ties_even() as usize)
        } else {
            (height, width)
        };
        let (h, w) = (h.clamp(1, height), w.clamp(1, width));
        Region { top: (height - h) / 2, left: (width - w) / 2, height: h, width: w }
    }

    /// Whether the ranges make sense.
    pub(super) fn check(&self) -> Result<(), String> {
        let ordered = |[low, high]: [f64; 2]| low > 0.0 && low <= high && high.is_finite();
        if ordered(self.scale) && self.scale[1] <= 1.0 && ordered(self.ratio) {
            return Ok(());
        }
        Err(format!(
            "random_resized_crop has scale {:?} and ratio {:?}; both go from low to high, above 0, and scale to at most 1",
            self.scale, self.ratio
        ))
    }
}

/// Memory of one worker.
#[derive(Debug, Default)]
pub(super) struct FrameMemory {
    axes: [Axis; 2],
    resampler: Resampler,
    pixels: Vec<u8>,
}

impl FrameMemory {
    /// What is seen of `image`, planes of `stored` height and width with so many bytes a pixel: `region` brought to
    /// `shown`, or the middle of that size. Only bytes can be brought to size.
    pub(super) fn show<'a>(
        &'a mut self,
        image: &'a [u8],
        pixel_bytes: usize,
        stored: [usize; 2],
        region: Option<Region>,
        shown: [usize; 2],
    ) -> &'a [u8] {
        let planes = image.chunks_exact(stored[0] * stored[1] * pixel_bytes);
        match region {
            None if stored == shown => return image,
            None => {
                let [top, left] = [0, 1].map(|i| middle(stored[i], shown[i]));
                self.pixels.clear();
                for row in planes
                    .flat_map(|plane| plane.chunks_exact(stored[1] * pixel_bytes).skip(top).take(shown[0]))
                {
                    self.pixels.extend_from_slice(&row[left * pixel_bytes..][..shown[1] * pixel_bytes]);
                }
            }
            Some(Region { top, left, height, width }) => {
                let [down, across] = &mut self.axes;
                down.set_bilinear(height, shown[0], 0..shown[0]);
                across.set_bilinear(width, shown[1], 0..shown[1]);
                let n = shown[0] * shown[1];
                self.pixels.resize(planes.len() * n, 0);
                for (plane, out) in planes.zip(self.pixels.chunks_exact_mut(n)) {
                    let part = &plane[top * stored[1] + left..];
                    self.resampler.resize(part, stored[1], [down, across], out);
                }
            }
        }
        &self.pixels
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Purpose, RngKey};

    fn rng(i: u64) -> Rng {
        RngKey::new(1, Purpose::Augment, 0).stream(0, i)
    }

    #[test]
    fn regions_fit_and_have_the_area_and_proportions_asked_for() {
        let crop = RandomResizedCrop::default();
        let n = 4000;
        let regions: Vec<Region> = (0..n).map(|i| crop.draw(&mut rng(i), [256, 256])).collect();
        let area = |r: &Region| (r.height * r.width) as f64 / 65536.0;
        for r in &regions {
            assert!(r.top + r.height <= 256 && r.left + r.width <= 256, "{r:?}");
            let ratio = r.width as f64 / r.height as f64;
            assert!((0.078..=1.0).contains(&area(r)) && (0.74..=1.35).contains(&ratio), "{r:?}");
        }
        // Of U(0.08, 1), less what does not fit, which is near the upper end.
        let mean = regions.iter().map(area).sum::<f64>() / n as f64;
        assert!((0.45..0.53).contains(&mean), "{mean}");
        let corners = regions.iter().filter(|r| r.top < 20 && r.left < 20).count();
        assert!(corners > 100, "{corners}");
    }

    #[test]
    fn what_never_fits_becomes_the_middle() {
        // Wider than the image allows at every area.
        let crop = RandomResizedCrop { scale: [0.9, 1.0], ratio: [0.5, 0.6] };
        let found = crop.draw(&mut rng(0), [20, 60]);
        assert_eq!(found, Region { top: 0, left: 24, height: 20, width: 12 });
        assert!(RandomResizedCrop { scale: [0.5, 1.2], ..crop }.check().is_err());
        assert!(RandomResizedCrop { ratio: [2.0, 1.0], ..crop }.check().is_err());
        assert!(crop.check().is_ok());
    }

    #[test]
    fn the_middle_is_cut_out_of_bytes_and_of_floats() {
        let image: Vec<u8> = (0..2 * 6 * 5).collect();
        let mut memory = FrameMemory::default();
        let middle = memory.show(&image, 1, [6, 5], None, [2, 3]).to_vec();
        assert_eq!(middle, [11, 12, 13, 16, 17, 18, 41, 42, 43, 46, 47, 48]);
        let floats: Vec<u8> = image.iter().flat_map(|&v| f32::from(v).to_le_bytes()).collect();
        let shown = memory.show(&floats, 4, [6, 5], None, [2, 3]);
        let shown: Vec<u8> = shown.as_chunks().0.iter().map(|&v| f32::from_le_bytes(v) as u8).collect();
        assert_eq!(shown, middle);
    }

    #[test]
    fn a_region_is_resized_as_the_image_that_it_is() {
        let image: Vec<u8> = (0..40 * 30).map(|i| crate::base::rng::mix64(i) as u8).collect();
        let region = Region { top: 5, left: 3, height: 22, width: 17 };
        let cut: Vec<u8> = (5..27).flat_map(|y| image[y * 30 + 3..][..17].to_vec()).collect();
        let [mut a, mut b] = [FrameMemory::default(), FrameMemory::default()];
        let whole = Region { top: 0, left: 0, height: 22, width: 17 };
        let expected = b.show(&cut, 1, [22, 17], Some(whole), [8, 24]);
        assert_eq!(a.show(&image, 1, [40, 30], Some(region), [8, 24]), expected);
    }
}
