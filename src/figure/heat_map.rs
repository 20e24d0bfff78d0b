//! Numbers as colours, printed in their cells.

use super::svg::{AXIS, Anchor, Svg, fit, width};
use super::ticks::{drawable, ticks};
use super::{Frame, GAP, LABEL, TICK, TITLE, color};

/// A matrix of numbers as colours.
#[derive(Debug, Clone, PartialEq)]
pub struct HeatMap {
    /// Above it; may be empty.
    pub title: String,
    /// Names of the rows; empty where those of the panel to the left hold.
    pub row_names: Vec<String>,
    /// Names of the columns.
    pub column_names: Vec<String>,
    /// What the columns are; may be empty.
    pub column_label: String,
    /// Row after row. A row has as many values as there are columns.
    pub values: Vec<Vec<f64>>,
    /// Rows that stand apart from the one above.
    pub row_gaps: Vec<usize>,
    /// Columns that stand apart from the one to the left.
    pub column_gaps: Vec<usize>,
    /// The colours.
    pub scale: Scale,
    /// Width and height of a cell in pixels.
    pub cell: [f64; 2],
    /// Decimals of the printed numbers.
    pub decimals: usize,
    /// The number that most cells have: they are drawn as one ground, and are no marks.
    pub ground: Option<f64>,
}

/// Which numbers have which colours.
#[derive(Debug, Clone, PartialEq)]
pub struct Scale {
    /// What is measured, with its unit.
    pub label: String,
    /// The numbers at the ends of the colours; those beyond have the colours of the ends.
    pub range: [f64; 2],
}

/// Of rows or columns that stand apart.
const APART: f64 = 4.0;
const NAME_ROOM: f64 = 150.0;
const CELL_TEXT: f64 = 8.5;
/// Smaller letters cannot be read, and are left out.
const CELL_TEXT_LEAST: f64 = 5.0;
const MISSING: &str = "#eeeeee";

fn offset(i: usize, size: f64, gaps: &[usize]) -> f64 {
    i as f64 * size + APART * gaps.iter().filter(|&&g| g > 0 && g <= i).count() as f64
}

impl HeatMap {
    fn size(&self) -> [f64; 2] {
        let along = |count: usize, cell: f64, gaps: &[usize]| match count {
            0 => 0.0,
            count => offset(count - 1, cell, gaps) + cell,
        };
        let columns = along(self.column_names.len(), self.cell[0], &self.column_gaps);
        [columns, along(self.values.len(), self.cell[1], &self.row_gaps)]
    }

    fn widest(names: &[String]) -> f64 {
        names.iter().map(|name| width(&fit(name, TICK, NAME_ROOM), TICK)).fold(0.0, f64::max)
    }

    /// Whether the columns' names are wider than columns.
    fn slanted(&self) -> bool {
        Self::widest(&self.column_names) > self.cell[0] - 2.0
    }

    pub(super) fn frame(&self) -> Frame {
        let (rows, columns) = (Self::widest(&self.row_names), Self::widest(&self.column_names));
        let slant = std::f64::consts::FRAC_1_SQRT_2 * (columns + TICK);
        let names = if self.slanted() { slant + 4.0 } else { TICK + 5.0 };
        let left = if self.row_names.is_empty() { 0.0 } else { rows + 5.0 };
        let beyond = if self.slanted() { slant - self.cell[0] / 2.0 } else { 0.0 };
        // Of the label, which few columns do not hold.
        let aside = ((width(&self.column_label, LABEL) - self.size()[0]) / 2.0).max(0.0);
        Frame {
            size: self.size(),
            left: left.max(beyond).max(aside),
            right: aside,
            top: if self.title.is_empty() { 0.0 } else { TITLE + 5.0 },
            bottom: names + if self.column_label.is_empty() { 0.0 } else { LABEL + 3.0 },
        }
    }

    pub(super) fn draw(&self, svg: &mut Svg, [left, top]: [f64; 2]) {
        let [w, h] = self.size();
        let title = fit(&self.title, TITLE, w.max(40.0));
        svg.text([left + w / 2.0, top - TITLE / 2.0 - 2.0], Anchor::Middle, TITLE, &title);
        for (i, name) in self.row_names.iter().enumerate().take(self.values.len()) {
            let y = top + offset(i, self.cell[1], &self.row_gaps) + self.cell[1] / 2.0;
            svg.text([left - 5.0, y], Anchor::End, TICK, &fit(name, TICK, NAME_ROOM));
        }
        if let Some(ground) = self.ground {
            svg.rect([left, top], [w, h], &color::hex(self.scale.color(ground)));
        }
        for (i, row) in self.values.iter().enumerate() {
            let y = top + offset(i, self.cell[1], &self.row_gaps);
            let cells = row.iter().take(self.column_names.len()).enumerate();
            for (j, value) in cells.filter(|(_, value)| self.ground != Some(**value)) {
                self.draw_cell(svg, [left + offset(j, self.cell[0], &self.column_gaps), y], *value);
            }
        }
        self.draw_columns(svg, [left, top + h]);
    }

    fn draw_columns(&self, svg: &mut Svg, [left, bottom]: [f64; 2]) {
        for (j, name) in self.column_names.iter().enumerate() {
            let x = left + offset(j, self.cell[0], &self.column_gaps) + self.cell[0] / 2.0;
            let name = fit(name, TICK, NAME_ROOM);
            if self.slanted() {
                svg.turned([x + 2.0, bottom + 6.0], Anchor::End, TICK, -45.0, &name);
            } else {
                svg.text([x, bottom + 3.0 + TICK / 2.0], Anchor::Middle, TICK, &name);
            }
        }
        let y = bottom + self.frame().bottom - LABEL / 2.0 - 1.0;
        svg.text([left + self.size()[0] / 2.0, y], Anchor::Middle, LABEL, &self.column_label);
    }

    fn draw_cell(&self, svg: &mut Svg, at: [f64; 2], value: f64) {
        // A hair larger, so that no light shows between cells.
        let size = [self.cell[0] + 0.2, self.cell[1] + 0.2];
        let middle = [at[0] + self.cell[0] / 2.0, at[1] + self.cell[1] / 2.0];
        if !drawable(value) {
            svg.rect(at, size, MISSING);
            return svg.label(middle, CELL_TEXT, "#777", "–");
        }
        let ground = self.scale.color(value);
        let text = format!("{value:.*}", self.decimals);
        svg.mark(&value.to_string(), |svg| svg.rect(at, size, &color::hex(ground)));
        let letters = (CELL_TEXT * (self.cell[0] - 3.0) / width(&text, CELL_TEXT)).min(CELL_TEXT);
        if letters >= CELL_TEXT_LEAST {
            svg.label(middle, letters, color::ink(ground), &text);
        }
    }
}

impl Scale {
    fn color(&self, value: f64) -> [u8; 3] {
        let [lo, hi] = self.range;
        let share = (value - lo) / (hi - lo);
        color::viridis(if share.is_finite() { share } else { 0.5 })
    }

    /// Where its bar begins, to the right of its label.
    pub(super) fn left(&self) -> f64 {
        GAP + width(&self.label, LABEL) + 10.0
    }

    /// The colours from left to right with round numbers below.
    pub(super) fn bar(&self, svg: &mut Svg, [x, y]: [f64; 2], [w, h]: [f64; 2]) {
        const STEPS: u32 = 90;
        for i in 0..STEPS {
            let share = f64::from(i) / f64::from(STEPS);
            let fill = color::hex(color::viridis(share + 0.5 / f64::from(STEPS)));
            svg.rect([x + share * w, y], [w / f64::from(STEPS) + 0.3, h], &fill);
        }
        let [lo, hi] = self.range;
        for tick in ticks([lo, hi], 5, false) {
            let at = x + (tick.at - lo) / (hi - lo) * w;
            svg.line([at, y + h], [at, y + h + 3.0], AXIS);
            svg.text([at, y + h + 5.0 + TICK / 2.0], Anchor::Middle, TICK, &tick.label);
        }
    }
}
