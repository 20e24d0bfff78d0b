//! A picture of pictures with text.

use super::exit::Usage;
use font8x8::UnicodeFonts;
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

/// Height of a line of text.
pub(super) const TEXT: usize = 10;

/// Pixels `[height, width, 3]`, white at first.
pub(super) struct Sheet {
    width: usize,
    pixels: Vec<u8>,
}

impl Sheet {
    /// An empty one of so many columns and rows.
    pub(super) fn new([width, height]: [usize; 2]) -> Self {
        Self { width, pixels: vec![255; 3 * width * height] }
    }

    /// Writes it as a PNG.
    pub(super) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let context = |e: std::io::Error| Usage(format!("{}: {e}", path.display()));
        let file = File::create(path).map_err(context)?;
        let height = self.pixels.len() / 3 / self.width;
        let mut encoder = png::Encoder::new(BufWriter::new(file), self.width as u32, height as u32);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.write_header()?.write_image_data(&self.pixels)?;
        Ok(())
    }

    /// Draws planes of one or three channels.
    pub(super) fn image(&mut self, planes: &[u8], left: usize, top: usize, width: usize, height: usize) {
        for i in 0..width * height {
            let color = [0, 1, 2].map(|c| planes[(c * width * height + i) % planes.len()]);
            self.set(left + i % width, top + i / width, color);
        }
    }

    /// Draws text, as far as it fits.
    pub(super) fn text(&mut self, text: &str, left: usize, top: usize) {
        let width = self.width;
        for (i, letter) in text.chars().enumerate() {
            for (y, line) in font8x8::BASIC_FONTS.get(letter).unwrap_or_default().into_iter().enumerate() {
                for x in (0..8).filter(|x| line >> x & 1 == 1 && left + 8 * i + x < width) {
                    self.set(left + 8 * i + x, top + 1 + y, [0, 0, 0]);
                }
            }
        }
    }

    fn set(&mut self, x: usize, y: usize, color: [u8; 3]) {
        let at = 3 * (y * self.width + x);
        self.pixels[at..at + 3].copy_from_slice(&color);
    }
}
