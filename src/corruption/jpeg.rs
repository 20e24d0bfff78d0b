//! JPEG as Pillow writes it: baseline, tables of the Independent JPEG Group, colour at half resolution.

use super::draws::Draws;
use super::{Extent, Profile, Scratch, Severity};
use turbojpeg::{Compressor, Decompressor, Image, PixelFormat, Subsamp};

pub(super) fn apply(s: &mut Scratch, profile: Profile, severity: Severity, _: &mut dyn Draws) {
    let quality = profile.pick(severity, &[65, 58, 50, 40, 25], &[25, 18, 15, 10, 7]);
    let Scratch { extent, values, bytes: [bytes, _], jpeg, .. } = s;
    bytes.resize(values.len(), 0);
    super::scratch::truncate(values, bytes);
    jpeg.round_trip(bytes, *extent, quality)
        .expect("libjpeg encodes any image of bytes, and decodes its own");
    values.iter_mut().zip(bytes).for_each(|(value, &mut byte)| *value = f32::from(byte));
}

/// What libjpeg answered.
pub type JpegError = turbojpeg::Error;

/// An encoder and decoder with its memory.
#[derive(Default)]
pub struct Jpeg {
    coders: Option<(Compressor, Decompressor)>,
    pixels: Vec<u8>,
    /// The file, and room for a longer one.
    file: Vec<u8>,
    length: usize,
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
        let (coder, _) = coders(&mut self.coders)?;
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
        self.length = coder.compress_to_slice(image, &mut self.file)?;
        Ok(&self.file[..self.length])
    }

    /// Replaces an image by what is left of it at `quality`.
    pub fn round_trip(&mut self, image: &mut [u8], extent: Extent, quality: i32) -> Result<(), JpegError> {
        self.encode(image, extent, quality, false)?;
        let Extent { channels, height, width } = extent;
        let Self { coders: Some((_, decoder)), pixels, file, length } = self else { return Ok(()) };
        let format = if channels == 3 { PixelFormat::RGB } else { PixelFormat::GRAY };
        let decoded = Image { pixels: &mut pixels[..], width, pitch: width * channels, height, format };
        decoder.decompress(&file[..*length], decoded)?;
        if channels == 1 {
            image.copy_from_slice(pixels);
            return Ok(());
        }
        for (c, plane) in image.chunks_exact_mut(extent.plane().max(1)).enumerate() {
            let values = pixels.as_chunks::<3>().0;
            plane.iter_mut().zip(values).for_each(|(out, pixel)| *out = pixel[c]);
        }
        Ok(())
    }
}

fn coders(
    coders: &mut Option<(Compressor, Decompressor)>,
) -> Result<&mut (Compressor, Decompressor), JpegError> {
    match coders {
        Some(coders) => Ok(coders),
        none => Ok(none.insert((Compressor::new()?, Decompressor::new()?))),
    }
}
