//! Figures as plain values, drawn as SVG, and as PNG from the same SVG: line charts, heat maps and pictures in rows.
//!
//! Sizes are in CSS pixels, 96 an inch: a figure of 680 pixels fills the width of a page with two columns. A value
//! that is no number is a gap. The same figure gives the same bytes on every machine.
//!
//! Absent: files, and what the figures are of.

mod chart;
mod color;
mod heat_map;
mod pdf;
mod pictures;
mod raster;
mod svg;
mod ticks;

pub use chart::{Axis, Chart, Drawn, Point, Series};
pub use heat_map::{HeatMap, Scale};
pub use pictures::{Picture, Pictures};
pub use raster::FigureError;
pub use svg::escape;
pub use ticks::round_above;

use svg::{Anchor, Svg, width};

/// Panels in rows, with one legend and one colour bar for all.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// Title, for those who cannot see the figure; it is not drawn.
    pub title: String,
    /// What the figure shows, in a sentence or two, for those who cannot see it.
    pub description: String,
    /// Panels from left to right, rows from top to bottom.
    pub rows: Vec<Vec<Panel>>,
}

/// A part of a figure.
#[derive(Debug, Clone, PartialEq)]
pub enum Panel {
    /// Lines over axes.
    Chart(Chart),
    /// Numbers as colours.
    HeatMap(HeatMap),
    /// Pictures with numbers.
    Pictures(Pictures),
}

/// The plot's extent and what stands around it.
#[derive(Debug, Clone, Copy)]
struct Frame {
    size: [f64; 2],
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
}

/// Sizes of letters.
const TITLE: f64 = 10.5;
const LABEL: f64 = 10.0;
const TICK: f64 = 9.0;
/// Between panels, and around them.
const GAP: f64 = 12.0;
/// A figure is no narrower.
const NARROWEST: f64 = 260.0;
const LEGEND_LINE: f64 = 16.0;
const BAR: [f64; 2] = [180.0, 9.0];

impl Panel {
    fn frame(&self) -> Frame {
        match self {
            Self::Chart(chart) => chart.frame(),
            Self::HeatMap(map) => map.frame(),
            Self::Pictures(pictures) => pictures.frame(),
        }
    }

    fn draw(&self, svg: &mut Svg, at: [f64; 2]) {
        match self {
            Self::Chart(chart) => chart.draw(svg, at),
            Self::HeatMap(map) => map.draw(svg, at),
            Self::Pictures(pictures) => pictures.draw(svg, at),
        }
    }
}

impl Figure {
    /// The figure as SVG.
    pub fn svg(&self) -> String {
        let mut frames: Vec<Vec<Frame>> =
            self.rows.iter().map(|row| row.iter().map(Panel::frame).collect()).collect();
        // The first plots of all rows stand below each other.
        let left = frames.iter().filter_map(|row| row.first()).map(|f| f.left).fold(0.0, f64::max);
        frames.iter_mut().filter_map(|row| row.first_mut()).for_each(|f| f.left = left);
        let row_width =
            |row: &Vec<Frame>| row.iter().map(|f| f.left + f.size[0] + f.right + GAP).sum::<f64>();
        let wide = frames.iter().map(row_width).fold(self.narrowest(), f64::max) + GAP;
        let mut svg = Svg::default();
        let mut y = self.legend(&mut svg, wide);
        for (row, frames) in self.rows.iter().zip(&frames) {
            let most = |of: fn(&Frame) -> f64| frames.iter().map(of).fold(0.0, f64::max);
            let (top, high, bottom) = (most(|f| f.top), most(|f| f.size[1]), most(|f| f.bottom));
            let mut x = GAP;
            for (panel, frame) in row.iter().zip(frames) {
                panel.draw(&mut svg, [x + frame.left, y + top]);
                x += frame.left + frame.size[0] + frame.right + GAP;
            }
            y += top + high + bottom + GAP;
        }
        y = self.bars(&mut svg, y);
        svg.finish([wide, y], &self.title, &self.description)
    }

    /// The figure as PNG of 300 pixels an inch.
    pub fn png(&self) -> Result<Vec<u8>, FigureError> {
        raster::png(&self.svg())
    }

    /// The figure as PDF, one page of its size.
    pub fn pdf(&self) -> Result<Vec<u8>, FigureError> {
        pdf::pdf(&self.svg())
    }

    /// What colour bars and their labels need.
    fn narrowest(&self) -> f64 {
        let bars = self.scales().into_iter().map(|scale| scale.left() + BAR[0] + GAP);
        bars.fold(NARROWEST, f64::max)
    }

    /// The scales of all heat maps, each once.
    fn scales(&self) -> Vec<&Scale> {
        let mut scales: Vec<&Scale> = Vec::new();
        for panel in self.rows.iter().flatten() {
            if let Panel::HeatMap(map) = panel
                && !scales.contains(&&map.scale)
            {
                scales.push(&map.scale);
            }
        }
        scales
    }

    /// One entry a name, in lines as wide as the figure; gives where they end.
    fn legend(&self, svg: &mut Svg, wide: f64) -> f64 {
        let mut entries: Vec<&Series> = Vec::new();
        for panel in self.rows.iter().flatten() {
            let Panel::Chart(chart) = panel else { continue };
            for series in &chart.series {
                if !series.name.is_empty() && !entries.iter().any(|e| e.name == series.name) {
                    entries.push(series);
                }
            }
        }
        let (mut x, mut y) = (GAP, GAP);
        for series in &entries {
            let name = svg::fit(&series.name, LABEL, wide - 2.0 * GAP - 40.0);
            let room = 30.0 + width(&name, LABEL) + 16.0;
            if x > GAP && x + room > wide {
                (x, y) = (GAP, y + LEGEND_LINE);
            }
            let middle = y + LEGEND_LINE / 2.0;
            series.sample(svg, [x, middle]);
            svg.text([x + 30.0, middle], Anchor::Start, LABEL, &name);
            x += room;
        }
        if entries.is_empty() { y } else { y + LEGEND_LINE + 4.0 }
    }

    /// One colour bar a scale; gives where they end.
    fn bars(&self, svg: &mut Svg, mut y: f64) -> f64 {
        for scale in self.scales() {
            let left = scale.left();
            svg.text([GAP, y + BAR[1] / 2.0], Anchor::Start, LABEL, &scale.label);
            scale.bar(svg, [left, y], BAR);
            y += BAR[1] + 22.0;
        }
        y
    }
}

#[cfg(test)]
mod tests;
