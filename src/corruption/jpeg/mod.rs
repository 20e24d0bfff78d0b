//! JPEG as Pillow writes it: baseline, tables of the Independent JPEG Group, colour at half resolution.
//!
//! libjpeg-turbo writes files. Where only the pixels matter, `transform.rs` makes the same ones without it.

#[cfg(target_arch = "x86_64")]
mod avx2;
mod color;
mod dct;
#[cfg(test)]
mod tests;
mod transform;

use super::draws::Draws;
use super::{Extent, Profile, Scratch, Severity};
use color::Components;
use turbojpeg::{Compressor, Image, PixelFormat, Subsamp};

pub(super) fn apply(
    image: &mut [u8],
    s: &mut Scratch,
    profile: Profile,
    severity: Severity,
    _: &mut dyn Draws,
) {
    let quality = profile.pick(severity, &[65, 58, 50, 40, 25], &[25, 18, 15, 10, 7]);
    transform::round_trip(image, s.extent, quality, &mut s.jpeg.components);
}

/// What libjpeg answered, or would have.
pub type JpegError = turbojpeg::Error;

/// An encoder with its memory.
#[derive(Default)]
pub struct Jpeg {
    coder: Option<Compressor>,
    pixels: Vec<u8>,
    /// The file, and room for a longer one.
    file: Vec<u8>,
    components: Components,
}

impl std::fmt::Debug for Jpeg {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Jpeg").finish_non_exhaustive()
    }
}

impl Jpeg {
    /// The file of an image of planes, 4:2:0 in colour. `optimize` makes Huffman tables for it, which changes
    /// its length and no pixel.
    pub fn encode(
        &mut self,
        image: &[u8],
        extent: Extent,
        quality: i32,
        optimize: bool,
    ) -> Result<&[u8], JpegError> {
        let Extent { channels, height, width } = extent;
        let coder = match &mut self.coder {
            Some(coder) => coder,
            none => none.insert(Compressor::new()?),
        };
        let color = channels == 3;
        let format = if color { PixelFormat::RGB } else { PixelFormat::GRAY };
        coder.set_quality(quality)?;
        coder.set_subsamp(if color { Subsamp::Sub2x2 } else { Subsamp::Gray })?;
        coder.set_optimize(optimize)?;
        self.pixels.resize(image.len(), 0);
        if color {
            let (red, rest) = image.split_at(extent.plane());
            let (green, blue) = rest.split_at(extent.plane());
            let color = red.iter().zip(green).zip(blue);
            let pixels = self.pixels.as_chunks_mut::<3>().0;
            pixels.iter_mut().zip(color).for_each(|(pixel, ((&r, &g), &b))| *pixel = [r, g, b]);
        } else {
            self.pixels.copy_from_slice(image);
        }
        let image = Image { pixels: &self.pixels[..], width, pitch: width * channels, height, format };
        let most = coder.buf_len(width, height)?;
        self.file.resize(most.max(self.file.len()), 0);
        let length = coder.compress_to_slice(image, &mut self.file)?;
        Ok(&self.file[..length])
    }

    /// Replaces an image of planes by what [`Jpeg::encode`] and decoding leave of it at `quality`, to the bit.
    /// Refuses other qualities than 1 to 100, and images that are not as long as `extent` says or not of one or
    /// three channels.
    pub fn round_trip(&mut self, image: &mut [u8], extent: Extent, quality: i32) -> Result<(), JpegError> {
        let known = (1..=100).contains(&quality) && matches!(extent.channels, 1 | 3);
        if !known || image.len() != extent.len() {
            return Err(JpegError::OutOfBounds);
        }
        transform::round_trip(image, extent, quality, &mut self.components);
        Ok(())
    }
}
