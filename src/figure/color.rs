//! Colours that the colour-blind can tell apart, and that stay in order when printed gray.

/// Matplotlib's `viridis` (CC0) at nine equal steps: perceptually uniform, and lighter from end to end.
const VIRIDIS: [[u8; 3]; 9] = [
    [0x44, 0x01, 0x54],
    [0x47, 0x2d, 0x7b],
    [0x3b, 0x52, 0x8b],
    [0x2c, 0x72, 0x8e],
    [0x21, 0x90, 0x8c],
    [0x27, 0xad, 0x81],
    [0x5d, 0xc8, 0x63],
    [0xaa, 0xdc, 0x32],
    [0xfd, 0xe7, 0x25],
];

/// Okabe and Ito, "Color universal design", 2008; yellow, which is faint on white, comes last.
const LINES: [&str; 8] =
    ["#000000", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442"];

/// The colour of a share in [0, 1]; what is beyond has the colour of the end.
pub(super) fn viridis(share: f64) -> [u8; 3] {
    let at = share.clamp(0.0, 1.0) * (VIRIDIS.len() - 1) as f64;
    let i = (at as usize).min(VIRIDIS.len() - 2);
    let t = at - i as f64;
    let mix = |c: usize| f64::from(VIRIDIS[i][c]).mul_add(1.0 - t, f64::from(VIRIDIS[i + 1][c]) * t);
    [0, 1, 2].map(|c| mix(c).round() as u8)
}

pub(super) fn hex([r, g, b]: [u8; 3]) -> String {
    format!("#{r:02x}{g:02x}{b:02x}")
}

/// The colour of series number `style`.
pub(super) fn line(style: usize) -> &'static str {
    LINES[style % LINES.len()]
}

/// Black or white, whichever is easier to read on `ground` (WCAG 2.1, contrast ratio).
pub(super) fn ink(ground: [u8; 3]) -> &'static str {
    let light = luminance(ground) + 0.05;
    if 1.05 / light > light / 0.05 { "#fff" } else { "#000" }
}

/// Relative luminance in [0, 1] (WCAG 2.1).
fn luminance(color: [u8; 3]) -> f64 {
    let linear = |v: u8| {
        let v = f64::from(v) / 255.0;
        if v <= 0.039_28 { v / 12.92 } else { ((v + 0.055) / 1.055).powf(2.4) }
    };
    let [r, g, b] = color.map(linear);
    0.2126 * r + 0.7152 * g + 0.0722 * b
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_map_gets_lighter_all_the_way_and_numbers_on_it_can_be_read() {
        let shares: Vec<f64> = (0..=200).map(|i| f64::from(i) / 200.0).collect();
        let light: Vec<f64> = shares.iter().map(|&s| luminance(viridis(s))).collect();
        assert!(light.windows(2).all(|w| w[0] < w[1]));
        assert_eq!((viridis(-1.0), viridis(2.0)), (VIRIDIS[0], VIRIDIS[8]));
        // 4.5 is what WCAG asks for.
        for share in shares {
            let ground = viridis(share);
            let ink = if ink(ground) == "#fff" { 1.0 } else { 0.0 };
            let [a, b] = [luminance(ground) + 0.05, ink + 0.05];
            assert!((a / b).max(b / a) >= 4.5, "{share}");
        }
    }
}
