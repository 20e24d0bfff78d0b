//! SVG as text: the few shapes that figures are made of, and how wide text is.
//!
//! Absent: references by id (clip paths, gradients), so that several figures can stand in one HTML page.

use std::fmt::Write;

/// DejaVu Sans is embedded in PNG; Verdana has the same widths where it is not installed.
pub(super) const FAMILY: &str = "DejaVu Sans, Verdana, sans-serif";

/// Advances of the characters from space to tilde, in thousandths of the size (DejaVu Sans 2.37).
const ADVANCES: [u16; 95] = [
    318, 401, 460, 838, 636, 950, 780, 275, 390, 390, 500, 838, 318, 361, 318, 337, 636, 636, 636, 636, 636,
    636, 636, 636, 636, 636, 337, 337, 838, 838, 838, 531, 1000, 684, 686, 698, 770, 632, 575, 775, 752, 295,
    295, 656, 557, 863, 748, 787, 603, 787, 695, 635, 611, 732, 684, 989, 685, 611, 685, 390, 337, 390, 838,
    500, 500, 613, 635, 550, 635, 615, 352, 635, 634, 278, 278, 579, 278, 974, 634, 612, 635, 635, 411, 521,
    392, 634, 592, 818, 592, 592, 525, 636, 337, 636, 838,
];

/// Width of `text` in pixels. Characters beyond ASCII count as wide ones.
pub(super) fn width(text: &str, size: f64) -> f64 {
    let advance = |c: char| (c as usize).checked_sub(32).and_then(|i| ADVANCES.get(i)).map_or(1000, |a| *a);
    text.chars().map(|c| f64::from(advance(c))).sum::<f64>() * size / 1000.0
}

/// `text`, or as much of its beginning and end as is no wider than `room`.
pub(super) fn fit(text: &str, size: f64, room: f64) -> String {
    let letters: Vec<char> = text.chars().collect();
    if width(text, size) <= room {
        return text.to_owned();
    }
    let cut = |kept: usize| -> String {
        let (head, tail) = (kept.div_ceil(2), kept / 2);
        letters[..head].iter().chain(&['…']).chain(&letters[letters.len() - tail..]).collect()
    };
    (0..letters.len()).rev().map(cut).find(|t| width(t, size) <= room).unwrap_or_default()
}

/// Text with the characters that mean something in XML replaced, and without those that XML cannot hold.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\t' | '\n' | '\r' => out.push(' '),
            '\0'..='\x1f' | '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// A number with at most two decimals.
pub(super) fn n(value: f64) -> String {
    let text = format!("{value:.2}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

/// Which point of a text is at its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// A line's look.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pen<'a> {
    pub(super) color: &'a str,
    pub(super) width: f64,
    /// Lengths of dashes and gaps; empty for a line without.
    pub(super) dash: &'a str,
}

/// Axes and ticks.
pub(super) const AXIS: Pen<'static> = Pen { color: "#333", width: 0.8, dash: "" };

/// Shapes one after the other; later ones cover earlier ones. Places are in pixels from the top left.
#[derive(Debug, Default)]
pub(super) struct Svg {
    body: String,
}

impl Svg {
    pub(super) fn rect(&mut self, [x, y]: [f64; 2], [w, h]: [f64; 2], fill: &str) {
        let (x, y, w, h) = (n(x), n(y), n(w), n(h));
        let _ = writeln!(self.body, r#"<rect x="{x}" y="{y}" width="{w}" height="{h}" fill="{fill}"/>"#);
    }

    /// A picture by its address.
    pub(super) fn image(&mut self, [x, y]: [f64; 2], [w, h]: [f64; 2], href: &str) {
        let (x, y, w, h) = (n(x), n(y), n(w), n(h));
        let _ = writeln!(self.body, r#"<image x="{x}" y="{y}" width="{w}" height="{h}" href="{href}"/>"#);
    }

    /// A straight line.
    pub(super) fn line(&mut self, from: [f64; 2], to: [f64; 2], pen: Pen<'_>) {
        self.curve(&[from, to], pen);
    }

    /// Straight lines from point to point.
    pub(super) fn curve(&mut self, points: &[[f64; 2]], Pen { color, width, dash }: Pen<'_>) {
        let points: Vec<String> = points.iter().map(|[x, y]| format!("{},{}", n(*x), n(*y))).collect();
        let dash = if dash.is_empty() { String::new() } else { format!(r#" stroke-dasharray="{dash}""#) };
        let _ = writeln!(
            self.body,
            r#"<polyline points="{}" fill="none" stroke="{color}" stroke-width="{}"{dash}/>"#,
            points.join(" "),
            n(width),
        );
    }

    /// A filled outline.
    pub(super) fn area(&mut self, points: &[[f64; 2]], fill: &str, opacity: f64) {
        let points: Vec<String> = points.iter().map(|[x, y]| format!("{},{}", n(*x), n(*y))).collect();
        let (points, opacity) = (points.join(" "), n(opacity));
        let _ = writeln!(self.body, r#"<polygon points="{points}" fill="{fill}" fill-opacity="{opacity}"/>"#);
    }

    /// What stands for a value, with the value as a tooltip.
    pub(super) fn mark(&mut self, value: &str, draw: impl FnOnce(&mut Self)) {
        let _ = write!(self.body, r#"<g class="mark"><title>{}</title>"#, escape(value));
        draw(self);
        self.body.push_str("</g>\n");
    }

    /// A shape in path notation with a thin white edge.
    pub(super) fn shape(&mut self, path: &str, fill: &str) {
        let _ = write!(self.body, r#"<path d="{path}" fill="{fill}" stroke="white" stroke-width="0.6"/>"#);
    }

    /// Text whose middle line is at `y`, turned by `turn` degrees clockwise.
    pub(super) fn turned(&mut self, [x, y]: [f64; 2], anchor: Anchor, size: f64, turn: f64, text: &str) {
        let place = if turn == 0.0 {
            format!(r#"x="{}" y="{}""#, n(x), n(y + 0.36 * size))
        } else {
            format!(r#"transform="translate({} {}) rotate({})" y="{}""#, n(x), n(y), n(turn), n(0.36 * size))
        };
        self.styled(&place, anchor, size, "#111", text);
    }

    /// Text whose middle line is at `y`.
    pub(super) fn text(&mut self, at: [f64; 2], anchor: Anchor, size: f64, text: &str) {
        self.turned(at, anchor, size, 0.0, text);
    }

    /// Text in the middle of a cell.
    pub(super) fn label(&mut self, [x, y]: [f64; 2], size: f64, color: &str, text: &str) {
        let place = format!(r#"x="{}" y="{}""#, n(x), n(y + 0.36 * size));
        self.styled(&place, Anchor::Middle, size, color, text);
    }

    fn styled(&mut self, place: &str, anchor: Anchor, size: f64, color: &str, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let (size, text) = (n(size), escape(text));
        let _ = writeln!(
            self.body,
            r#"<text {place} text-anchor="{anchor}" font-size="{size}" fill="{color}">{text}</text>"#
        );
    }

    /// The whole document on white, with a title and a description for those who cannot see it.
    pub(super) fn finish(self, [width, height]: [f64; 2], title: &str, description: &str) -> String {
        let (w, h) = (n(width.ceil()), n(height.ceil()));
        let (title, description, body) = (escape(title), escape(description), self.body);
        format!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" role="img" width="{w}" height="{h}" viewBox="0 0 {w} {h}" font-family="{FAMILY}">
<title>{title}</title>
<desc>{description}</desc>
<rect width="{w}" height="{h}" fill="white"/>
{body}</svg>
"#
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widths_are_those_of_the_font() {
        let mut fonts = resvg::usvg::fontdb::Database::new();
        fonts.load_font_data(dejavu::sans::regular().to_vec());
        let options = resvg::usvg::Options { fontdb: std::sync::Arc::new(fonts), ..Default::default() };
        // Bounds are of the ink, so that a letter on either side is subtracted.
        let right = |text: &str| {
            let mut svg = Svg::default();
            svg.text([0.0, 20.0], Anchor::Start, 100.0, text);
            let svg =
                svg.finish([900.0, 900.0], "", "").replace("<rect", "<g").replace("fill=\"white\"/>", "/>");
            let tree = resvg::usvg::Tree::from_str(&svg, &options).unwrap();
            f64::from(tree.root().abs_bounding_box().right())
        };
        for c in (33..127u8).map(char::from) {
            let found = right(&format!("{c}|")) - right("|");
            // Fonts also kern.
            assert!((found - width(&c.to_string(), 100.0)).abs() < 12.0, "{c}: {found}");
        }
    }

    #[test]
    fn text_is_cut_in_the_middle_and_escaped() {
        assert_eq!(fit("short", 10.0, 100.0), "short");
        let cut = fit("20261125-032601-mtl_monkey_seed_1", 10.0, 100.0);
        assert!(cut.starts_with("2026") && cut.ends_with("ed_1") && cut.contains('…'), "{cut}");
        assert!(width(&cut, 10.0) <= 100.0);
        assert_eq!(fit("abc", 10.0, 0.0), "");
        assert_eq!(escape("a<b & \"c\">\u{1}\n"), "a&lt;b &amp; &quot;c&quot;&gt;\u{fffd} ");
        assert_eq!([n(1.0), n(-0.001), n(2.345_6), n(100.0)], ["1", "0", "2.35", "100"]);
    }
}
