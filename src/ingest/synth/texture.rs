//! Textures that tell classes apart, and cells that respond to them.

use crate::base::Rng;
use std::f64::consts::{PI, TAU};

/// Cycles per 64 pixels, coarse to fine.
const FREQUENCIES: [f64; 4] = [3.0, 5.5, 9.0, 14.0];
const KINDS: [&str; 5] = ["level stripes", "upright stripes", "checks", "rings", "diamonds"];

/// A square gray image with values from 0 to 1, rounded to bytes.
#[derive(Debug, Clone)]
pub(super) struct Gray {
    side: usize,
    values: Vec<f64>,
}

/// What a class looks like, in words.
pub(super) fn words(class: u32) -> String {
    let (kind, level) = (class % 5, class / 5 % 4);
    let grain = ["broad", "wide", "narrow", "fine"][level as usize];
    format!("{grain} {}, hue {}", KINDS[kind as usize], class / 20)
}

/// An image of `class`.
pub(super) fn texture(class: u32, side: usize, rng: &mut Rng) -> Gray {
    let frequency = FREQUENCIES[(class / 5 % 4) as usize] * rng.uniform(0.93, 1.07) / side as f64 * TAU;
    let (phase_x, phase_y) = (rng.uniform(0.0, TAU), rng.uniform(0.0, TAU));
    let (amplitude, mean) = (rng.uniform(0.08, 0.3), rng.uniform(0.4, 0.6));
    let (tilt_x, tilt_y) = (rng.uniform(-0.1, 0.1), rng.uniform(-0.1, 0.1));
    let noise = rng.uniform(0.1, 0.3);
    let centre = side as f64 / 2.0;
    let mut values = Vec::with_capacity(side * side);
    for y in 0..side {
        for x in 0..side {
            let (x, y) = (x as f64 - centre, y as f64 - centre);
            let wave_x = (frequency * x + phase_x).sin();
            let wave_y = (frequency * y + phase_y).sin();
            let pattern = match class % 5 {
                0 => wave_y,
                1 => wave_x,
                2 => 1.4 * wave_x * wave_y,
                3 => (frequency * (x + 6.0 * phase_x.sin()).hypot(y + 6.0 * phase_y.sin()) + phase_x).sin(),
                _ => {
                    let (u, v) = ((x + y) / 2f64.sqrt(), (x - y) / 2f64.sqrt());
                    1.4 * (frequency * u + phase_x).sin() * (frequency * v + phase_y).sin()
                }
            };
            let shade = (tilt_x * x + tilt_y * y) / centre;
            let value = mean + amplitude * pattern + shade + noise * rng.normal();
            values.push((value.clamp(0.0, 1.0) * 255.0).round() / 255.0);
        }
    }
    Gray { side, values }
}

impl Gray {
    /// One byte a pixel.
    pub(super) fn bytes(&self) -> Vec<u8> {
        self.values.iter().map(|v| (v * 255.0).round() as u8).collect()
    }

    /// Red, green and blue of every pixel; the hue says which twenty classes it belongs to.
    pub(super) fn tinted(&self, class: u32) -> Vec<u8> {
        let hue = f64::from(class / 20) / 10.0 * TAU;
        let shift = [0.0, TAU / 3.0, 2.0 * TAU / 3.0].map(|third| 0.08 * (hue + third).cos());
        let tint = |v: &f64| shift.map(|s| ((v + s).clamp(0.0, 1.0) * 255.0).round() as u8);
        self.values.iter().flat_map(tint).collect()
    }
}

/// The energy of a pair of Gabor filters in quadrature (Adelson and Bergen 1985).
#[derive(Debug)]
pub(super) struct ComplexCell {
    /// Position of each weight in the image, and its even and odd value.
    weights: Vec<(usize, f64, f64)>,
    gain: f64,
}

impl ComplexCell {
    /// A cell that prefers one orientation and grain near the middle of the image.
    pub(super) fn draw(side: usize, rng: &mut Rng) -> Self {
        let angle = f64::from(rng.below(4)) * PI / 4.0;
        let frequency = FREQUENCIES[rng.below(3) as usize] / 64.0 * TAU;
        let reach = 0.25 * side as f64;
        let centre = side as f64 / 2.0;
        let (cx, cy) = (centre + rng.uniform(-reach, reach), centre + rng.uniform(-reach, reach));
        let width = 4.0 / frequency.max(0.45);
        let mut weights = Vec::new();
        for y in 0..side {
            for x in 0..side {
                let (dx, dy) = (x as f64 - cx, y as f64 - cy);
                let envelope = (-(dx * dx + dy * dy) / (2.0 * width * width)).exp();
                if envelope > 0.01 {
                    let along = frequency * (dx * angle.cos() + dy * angle.sin());
                    weights.push((y * side + x, envelope * along.cos(), envelope * along.sin()));
                }
            }
        }
        let norm: f64 = weights.iter().map(|(_, even, odd)| even.hypot(*odd)).sum();
        let (even_mean, odd_mean) = weights.iter().fold((0.0, 0.0), |(e, o), w| (e + w.1, o + w.2));
        let n = weights.len() as f64;
        for (_, even, odd) in &mut weights {
            *even = (*even - even_mean / n) / norm;
            *odd = (*odd - odd_mean / n) / norm;
        }
        Self { weights, gain: rng.uniform(15.0, 30.0) }
    }

    /// Response to `image`, about 0 to 5.
    pub(super) fn response(&self, image: &Gray) -> f64 {
        debug_assert_eq!(image.values.len(), image.side * image.side);
        let (even, odd) = self.weights.iter().fold((0.0, 0.0), |(e, o), (at, even, odd)| {
            (e + even * image.values[*at], o + odd * image.values[*at])
        });
        0.2 + self.gain * even.hypot(odd)
    }
}
