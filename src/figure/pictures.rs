//! Pictures in rows and columns, with a number below each.

use super::svg::{Anchor, Svg, fit, width};
use super::ticks::drawable;
use super::{Frame, TICK, TITLE, color};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Pictures in a grid.
#[derive(Debug, Clone, PartialEq)]
pub struct Pictures {
    /// Above it; may be empty.
    pub title: String,
    /// Names of the rows.
    pub row_names: Vec<String>,
    /// Names of the columns.
    pub column_names: Vec<String>,
    /// Row after row; a row has as many cells as there are columns.
    pub cells: Vec<Vec<Option<Picture>>>,
    /// Width and height of a picture in pixels of the figure.
    pub size: [f64; 2],
    /// Decimals of the numbers.
    pub decimals: usize,
}

/// A picture and its number.
#[derive(Debug, Clone, PartialEq)]
pub struct Picture {
    /// Columns and rows.
    pub extent: [u32; 2],
    /// Rows of pixels, each of one gray value or of red, green and blue.
    pub pixels: Vec<u8>,
    /// What is below it; nothing if it is no number.
    pub value: f64,
}

/// Between pictures.
const APART: f64 = 4.0;
const NAME_ROOM: f64 = 150.0;
/// Pixels of a file a pixel of the figure, at least: what viewers smooth looks as it is then.
const DENSITY: f64 = 2.0;

impl Pictures {
    /// Height of a picture with its number.
    fn line(&self) -> f64 {
        self.size[1] + TICK + 4.0
    }

    pub(super) fn frame(&self) -> Frame {
        let names = self.row_names.iter().map(|name| width(&fit(name, TICK, NAME_ROOM), TICK));
        let left = names.fold(0.0, f64::max);
        let columns = self.column_names.len() as f64;
        let titled = if self.title.is_empty() { 0.0 } else { TITLE + 5.0 };
        Frame {
            size: [
                (columns * (self.size[0] + APART) - APART).max(0.0),
                (self.cells.len() as f64 * (self.line() + APART) - APART).max(0.0),
            ],
            left: if left > 0.0 { left + 5.0 } else { 0.0 },
            right: 0.0,
            top: titled + TICK + 5.0,
            bottom: 0.0,
        }
    }

    pub(super) fn draw(&self, svg: &mut Svg, [left, top]: [f64; 2]) {
        let [w, h] = self.size;
        let middle = left + self.frame().size[0] / 2.0;
        let title = fit(&self.title, TITLE, self.frame().size[0].max(40.0));
        svg.text([middle, top - TICK - TITLE / 2.0 - 6.0], Anchor::Middle, TITLE, &title);
        for (j, name) in self.column_names.iter().enumerate() {
            let x = left + j as f64 * (w + APART) + w / 2.0;
            svg.text([x, top - TICK / 2.0 - 2.0], Anchor::Middle, TICK, &fit(name, TICK, w + APART - 2.0));
        }
        for (i, row) in self.cells.iter().enumerate() {
            let y = top + i as f64 * (self.line() + APART);
            if let Some(name) = self.row_names.get(i) {
                svg.text([left - 5.0, y + h / 2.0], Anchor::End, TICK, &fit(name, TICK, NAME_ROOM));
            }
            for (j, picture) in row.iter().take(self.column_names.len()).enumerate() {
                let Some(picture) = picture else { continue };
                let x = left + j as f64 * (w + APART);
                svg.mark(&picture.value.to_string(), |svg| {
                    svg.image([x, y], self.size, &picture.href(self.size));
                });
                if drawable(picture.value) {
                    let text = format!("{:.*}", self.decimals, picture.value);
                    svg.text([x + w / 2.0, y + h + TICK / 2.0 + 2.0], Anchor::Middle, TICK, &text);
                }
            }
        }
    }
}

impl Picture {
    /// A matrix of numbers as colours between `range`, row after row.
    pub fn of_matrix(values: &[f64], columns: usize, range: [f64; 2], value: f64) -> Self {
        let share = |v: &f64| (v - range[0]) / (range[1] - range[0]);
        let pixels =
            values.iter().flat_map(|v| if v.is_finite() { color::viridis(share(v)) } else { [0xee; 3] });
        let rows = values.len() / columns.max(1);
        Self { extent: [columns as u32, rows as u32], pixels: pixels.collect(), value }
    }

    /// Its pixels as PNG, each `scale` pixels wide and high.
    ///
    /// # Errors
    /// Pixels that are not as many as its extent says.
    pub fn png(&self, scale: u32) -> Result<Vec<u8>, png::EncodingError> {
        let [width, height] = self.extent;
        let channels = if self.pixels.len() == (width * height) as usize { 1 } else { 3 };
        let mut pixels = Vec::with_capacity(self.pixels.len() * (scale * scale) as usize);
        for row in self.pixels.chunks_exact((width as usize * channels).max(1)) {
            let wide: Vec<u8> = row
                .chunks_exact(channels)
                .flat_map(|pixel| std::iter::repeat_n(pixel, scale as usize).flatten().copied())
                .collect();
            (0..scale).for_each(|_| pixels.extend_from_slice(&wide));
        }
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, width * scale, height * scale);
        encoder.set_color(if channels == 3 { png::ColorType::Rgb } else { png::ColorType::Grayscale });
        let mut writer = encoder.write_header()?;
        writer.write_image_data(&pixels)?;
        writer.finish()?;
        Ok(bytes)
    }

    /// A picture that cannot be written is left out, and its number stays.
    fn href(&self, size: [f64; 2]) -> String {
        let scale = (DENSITY * size[0] / f64::from(self.extent[0].max(1))).ceil().clamp(1.0, 8.0);
        let png = self.png(scale as u32).unwrap_or_default();
        format!("data:image/png;base64,{}", STANDARD.encode(png))
    }
}
