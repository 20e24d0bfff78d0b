//! SVG to PNG, with an embedded font: no font of the machine is used.

use resvg::{tiny_skia, usvg};
use std::sync::{Arc, OnceLock};

/// A figure that cannot become pixels.
#[derive(Debug, thiserror::Error)]
pub enum FigureError {
    /// The SVG cannot be read.
    #[error("figure: {0}")]
    Svg(#[from] usvg::Error),
    /// Too many pixels for the memory.
    #[error("figure: a picture of {0} x {1} pixels does not fit in memory")]
    Size(u32, u32),
    /// The PDF cannot be made.
    #[error("figure: {0}")]
    Pdf(String),
    /// The PNG cannot be written.
    #[error("figure: {0}")]
    Png(#[from] png::EncodingError),
}

/// Pixels of the picture per CSS pixel: 300 an inch.
const SCALE: f32 = 300.0 / 96.0;
/// Pixels a metre, as PNG has it.
const PER_METRE: u32 = 11_811;
/// No side is longer: larger figures have fewer pixels an inch.
const LONGEST: f32 = 16_000.0;

fn fonts() -> Arc<usvg::fontdb::Database> {
    static FONTS: OnceLock<Arc<usvg::fontdb::Database>> = OnceLock::new();
    let load = || {
        let mut fonts = usvg::fontdb::Database::new();
        fonts.load_font_data(dejavu::sans::regular().to_vec());
        Arc::new(fonts)
    };
    FONTS.get_or_init(load).clone()
}

/// The SVG as PNG, RGB, on white.
pub(super) fn png(svg: &str) -> Result<Vec<u8>, FigureError> {
    let options = usvg::Options { fontdb: fonts(), ..usvg::Options::default() };
    let tree = usvg::Tree::from_str(svg, &options)?;
    let size = tree.size();
    let scale = SCALE.min(LONGEST / size.width().max(size.height()));
    let [width, height] = [size.width(), size.height()].map(|side| ((side * scale).round() as u32).max(1));
    let mut pixels = tiny_skia::Pixmap::new(width, height).ok_or(FigureError::Size(width, height))?;
    pixels.fill(tiny_skia::Color::WHITE);
    resvg::render(&tree, tiny_skia::Transform::from_scale(scale, scale), &mut pixels.as_mut());
    let rgb: Vec<u8> = pixels.data().chunks_exact(4).flat_map(|p| [p[0], p[1], p[2]]).collect();
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    if scale == SCALE {
        let unit = png::Unit::Meter;
        encoder.set_pixel_dims(Some(png::PixelDimensions { xppu: PER_METRE, yppu: PER_METRE, unit }));
    }
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&rgb)?;
    writer.finish()?;
    Ok(bytes)
}
