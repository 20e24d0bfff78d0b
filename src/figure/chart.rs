//! Lines over two axes.

use super::svg::{AXIS, Anchor, Pen, Svg, fit, n, width};
use super::ticks::{Tick, drawable, limits, ticks};
use super::{Frame, LABEL, TICK, TITLE, color};

/// Lines with markers over two axes.
#[derive(Debug, Clone, PartialEq)]
pub struct Chart {
    /// Above it; may be empty.
    pub title: String,
    /// Horizontal.
    pub x: Axis,
    /// Vertical.
    pub y: Axis,
    /// Later ones cover earlier ones.
    pub series: Vec<Series>,
    /// Width and height of the plot in pixels, without what stands around it.
    pub size: [f64; 2],
}

/// What stands at an axis.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Axis {
    /// What is measured, with its unit.
    pub label: String,
    /// Its ends, at which what lies beyond is drawn; without them, what the points need.
    pub range: Option<[f64; 2]>,
    /// Places with names instead of round numbers.
    pub names: Vec<(f64, String)>,
    /// Counts things: only whole numbers stand at it.
    pub whole: bool,
    /// Without numbers and label: those of another panel hold.
    pub bare: bool,
}

/// One line.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Its name in the legend; none if it is empty.
    pub name: String,
    /// Number of its colour, dashes and marker.
    pub style: usize,
    /// In the order of the line.
    pub points: Vec<Point>,
    /// What of it is drawn.
    pub drawn: Drawn,
}

/// What is drawn of points.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Drawn {
    /// Markers, and a line through them.
    #[default]
    Joined,
    /// Markers alone.
    Apart,
    /// A line alone, which shows no values of its own.
    Line,
}

/// A value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// On the horizontal axis.
    pub x: f64,
    /// On the vertical axis.
    pub y: f64,
    /// The ends of its spread on the vertical axis, drawn as an area around the line, or as a bar where a point has no
    /// neighbours.
    pub spread: Option<[f64; 2]>,
}

impl Point {
    fn shown(&self) -> bool {
        drawable(self.x) && drawable(self.y)
    }

    /// The spread, where it can be drawn.
    fn ends(&self) -> Option<[f64; 2]> {
        self.spread.filter(|ends| self.shown() && ends.iter().all(|v| drawable(*v)))
    }
}

/// From values to pixels.
struct Place {
    x: [f64; 2],
    y: [f64; 2],
    at: [f64; 2],
    size: [f64; 2],
}

impl Place {
    fn x(&self, v: f64) -> f64 {
        self.at[0] + share(v, self.x) * self.size[0]
    }

    fn y(&self, v: f64) -> f64 {
        self.at[1] + (1.0 - share(v, self.y)) * self.size[1]
    }
}

/// How far `v` is from the first end to the second; what is beyond is at an end.
fn share(v: f64, [lo, hi]: [f64; 2]) -> f64 {
    ((v - lo) / (hi - lo)).clamp(0.0, 1.0)
}

const DASHES: [&str; 5] = ["", "6 2.5", "2 2", "7 2 2 2", "10 3"];
const LINE: f64 = 1.4;
/// Height of a plot with small markers.
const SMALL: f64 = 120.0;
const GRID: Pen<'static> = Pen { color: "#e4e4e4", width: 0.7, dash: "" };
const TICK_LENGTH: f64 = 3.0;

impl Chart {
    fn points(&self) -> impl Iterator<Item = &Point> {
        self.series.iter().flat_map(|s| &s.points).filter(|p| p.shown())
    }

    /// The ends of both axes.
    fn limits(&self) -> [[f64; 2]; 2] {
        let y_values = self.points().flat_map(|p| std::iter::once(p.y).chain(p.ends().into_iter().flatten()));
        [self.x.limits(self.points().map(|p| p.x)), self.y.limits(y_values)]
    }

    fn x_ticks(&self) -> Vec<Tick> {
        let [x, _] = self.limits();
        self.x.ticks(x, self.size[0] / 45.0)
    }

    fn y_ticks(&self) -> Vec<Tick> {
        let [_, y] = self.limits();
        self.y.ticks(y, self.size[1] / 24.0)
    }

    pub(super) fn frame(&self) -> Frame {
        let widest = self.y_ticks().iter().map(|t| width(&t.label, TICK)).fold(0.0, f64::max);
        let label = |axis: &Axis| if axis.label.is_empty() { 0.0 } else { LABEL + 4.0 };
        let left = if self.y.bare { 0.0 } else { label(&self.y) + widest + TICK_LENGTH + 3.0 };
        let bottom = if self.x.bare { 2.0 } else { label(&self.x) + TICK + TICK_LENGTH + 4.0 };
        let top = if self.title.is_empty() { TICK / 2.0 } else { TITLE + 5.0 };
        Frame { size: self.size, left, right: 2.0, top, bottom }
    }

    pub(super) fn draw(&self, svg: &mut Svg, at: [f64; 2]) {
        let [x, y] = self.limits();
        let place = Place { x, y, at, size: self.size };
        let [w, h] = self.size;
        let title = fit(&self.title, TITLE, w);
        svg.text([at[0] + w / 2.0, at[1] - TITLE / 2.0 - 2.0], Anchor::Middle, TITLE, &title);
        self.draw_y(svg, &place);
        self.draw_x(svg, &place);
        svg.curve(&[at, [at[0], at[1] + h], [at[0] + w, at[1] + h]], AXIS);
        self.series.iter().for_each(|s| s.draw_band(svg, &place));
        self.series.iter().for_each(|s| s.draw(svg, &place));
    }

    fn draw_y(&self, svg: &mut Svg, place: &Place) {
        let ([left, top], [w, h]) = (place.at, place.size);
        for Tick { at, label } in self.y_ticks() {
            let y = place.y(at);
            svg.line([left, y], [left + w, y], GRID);
            svg.line([left - TICK_LENGTH, y], [left, y], AXIS);
            if !self.y.bare {
                svg.text([left - TICK_LENGTH - 3.0, y], Anchor::End, TICK, &label);
            }
        }
        if !self.y.bare {
            let at = [left - self.frame().left + LABEL / 2.0, top + h / 2.0];
            svg.turned(at, Anchor::Middle, LABEL, -90.0, &fit(&self.y.label, LABEL, h + 20.0));
        }
    }

    fn draw_x(&self, svg: &mut Svg, place: &Place) {
        let [left, top] = place.at;
        let bottom = top + place.size[1];
        // Labels that would touch the one before are left out.
        let mut free = f64::NEG_INFINITY;
        for Tick { at, label } in self.x_ticks() {
            let x = place.x(at);
            svg.line([x, bottom], [x, bottom + TICK_LENGTH], AXIS);
            let half = width(&label, TICK) / 2.0;
            if !self.x.bare && x - half > free {
                svg.text([x, bottom + TICK_LENGTH + 2.0 + TICK / 2.0], Anchor::Middle, TICK, &label);
                free = x + half + 2.0;
            }
        }
        if !self.x.bare {
            let y = bottom + TICK_LENGTH + TICK + 5.0 + LABEL / 2.0;
            svg.text([left + place.size[0] / 2.0, y], Anchor::Middle, LABEL, &self.x.label);
        }
    }
}

impl Axis {
    /// Its ends: those that are fixed, or such that markers stay off the frame.
    fn limits(&self, values: impl Iterator<Item = f64>) -> [f64; 2] {
        if let Some(range) = self.range {
            return limits(range.into_iter(), self.whole);
        }
        let [lo, hi] = limits(values, self.whole);
        let room = 0.05 * (hi - lo);
        [lo - room, hi + room]
    }

    fn ticks(&self, [lo, hi]: [f64; 2], most: f64) -> Vec<Tick> {
        if self.names.is_empty() {
            return ticks([lo, hi], (most as usize).clamp(2, 12), self.whole);
        }
        let inside = self.names.iter().filter(|(at, _)| (lo..=hi).contains(at));
        inside.map(|(at, name)| Tick { at: *at, label: name.clone() }).collect()
    }
}

impl Series {
    /// Markers that are joined.
    pub fn new(name: impl Into<String>, style: usize, points: Vec<Point>) -> Self {
        Self { name: name.into(), style, points, drawn: Drawn::Joined }
    }

    /// The same, drawn otherwise.
    pub fn drawn(self, drawn: Drawn) -> Self {
        Self { drawn, ..self }
    }

    fn pen(&self) -> Pen<'static> {
        Pen { color: color::line(self.style), width: LINE, dash: DASHES[self.style % DASHES.len()] }
    }

    /// Neighbours of which `is` holds, without gaps between them; every point is alone where none are joined.
    fn stretches(&self, is: fn(&Point) -> bool) -> impl Iterator<Item = &[Point]> {
        let longest = if self.drawn == Drawn::Apart { 1 } else { self.points.len().max(1) };
        self.points.split(move |p| !is(p)).flat_map(move |stretch| stretch.chunks(longest))
    }

    fn draw_band(&self, svg: &mut Svg, place: &Place) {
        for stretch in self.stretches(|p| p.ends().is_some()) {
            let side = |end: usize| {
                stretch.iter().filter_map(move |p| Some([place.x(p.x), place.y(p.ends()?[end])]))
            };
            if stretch.len() == 1 {
                let pen = Pen { color: color::line(self.style), width: LINE, dash: "" };
                svg.curve(&side(0).chain(side(1)).collect::<Vec<_>>(), pen);
                continue;
            }
            let outline: Vec<[f64; 2]> =
                side(0).chain(side(1).collect::<Vec<_>>().into_iter().rev()).collect();
            svg.area(&outline, color::line(self.style), 0.18);
        }
    }

    fn draw(&self, svg: &mut Svg, place: &Place) {
        for stretch in self.stretches(Point::shown) {
            let line: Vec<[f64; 2]> = stretch.iter().map(|p| [place.x(p.x), place.y(p.y)]).collect();
            if line.len() > 1 {
                svg.curve(&line, self.pen());
            }
        }
        if self.drawn == Drawn::Line {
            return;
        }
        // In a small plot large markers hide the lines.
        let scale = if place.size[1] < SMALL { 0.75 } else { 1.0 };
        for point in self.points.iter().filter(|p| p.shown()) {
            let at = [place.x(point.x), place.y(point.y)];
            let value = format!("{}: {}, {}", self.name, n(point.x), point.y);
            svg.mark(&value, |svg| self.marker(svg, at, scale));
        }
    }

    /// The marker alone, `scale` times as large as in the legend.
    fn marker(&self, svg: &mut Svg, [x, y]: [f64; 2], scale: f64) {
        let lines = |points: &[[f64; 2]]| {
            let at = |[dx, dy]: &[f64; 2]| format!("{} {}", n(x + scale * dx), n(y + scale * dy));
            format!("M{}Z", points.iter().map(at).collect::<Vec<_>>().join("L"))
        };
        let path = match self.style % 6 {
            0 => {
                let (r, across) = (n(2.8 * scale), n(5.6 * scale));
                let (x, y) = (n(x - 2.8 * scale), n(y));
                format!("M{x} {y}a{r} {r} 0 1 0 {across} 0a{r} {r} 0 1 0 -{across} 0Z")
            }
            1 => lines(&[[-2.5, -2.5], [2.5, -2.5], [2.5, 2.5], [-2.5, 2.5]]),
            2 => lines(&[[0.0, -3.3], [3.2, 2.4], [-3.2, 2.4]]),
            3 => lines(&[[0.0, -3.7], [3.4, 0.0], [0.0, 3.7], [-3.4, 0.0]]),
            4 => lines(&[[0.0, 3.3], [3.2, -2.4], [-3.2, -2.4]]),
            _ => lines(&[[-3.4, 0.0], [-1.7, -3.0], [1.7, -3.0], [3.4, 0.0], [1.7, 3.0], [-1.7, 3.0]]),
        };
        svg.shape(&path, color::line(self.style));
    }

    /// A short line with a marker, for the legend.
    pub(super) fn sample(&self, svg: &mut Svg, [x, y]: [f64; 2]) {
        if self.drawn != Drawn::Apart {
            svg.line([x, y], [x + 25.0, y], self.pen());
        }
        if self.drawn != Drawn::Line {
            self.marker(svg, [x + 12.5, y], 1.0);
        }
    }
}
