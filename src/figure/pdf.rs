//! SVG to PDF, with the embedded font as text.

use super::FigureError;
use std::sync::{Arc, OnceLock};
use svg2pdf::usvg::{self, fontdb};
use svg2pdf::{ConversionOptions, PageOptions, to_pdf};

fn fonts() -> Arc<fontdb::Database> {
    static FONTS: OnceLock<Arc<fontdb::Database>> = OnceLock::new();
    let load = || {
        let mut fonts = fontdb::Database::new();
        fonts.load_font_data(dejavu::sans::regular().to_vec());
        Arc::new(fonts)
    };
    FONTS.get_or_init(load).clone()
}

/// The SVG as a PDF of one page.
pub(super) fn pdf(svg: &str) -> Result<Vec<u8>, FigureError> {
    let options = usvg::Options { fontdb: fonts(), ..usvg::Options::default() };
    let tree = usvg::Tree::from_str(svg, &options).map_err(|e| FigureError::Pdf(e.to_string()))?;
    let made = to_pdf(&tree, ConversionOptions::default(), PageOptions::default());
    made.map_err(|e| FigureError::Pdf(e.to_string()))
}
