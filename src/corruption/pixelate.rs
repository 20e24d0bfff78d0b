//! Pixelate: Pillow's BOX filter to fewer pixels, and back by the nearest one.

use super::draws::Draws;
use super::{Profile, Scratch, Severity};

pub(super) fn apply(s: &mut Scratch, profile: Profile, severity: Severity, _: &mut dyn Draws) {
    let share = profile.pick(severity, &[0.9, 0.8, 0.7, 0.6, 0.5], &[0.6, 0.5, 0.4, 0.3, 0.25]);
    let plane = s.extent.size();
    let fewer = |n: usize| ((n as f64 * share) as usize).max(1);
    let (rows, columns) = (fewer(plane.height), fewer(plane.width));
    let (down, across) = (taps(plane.height, rows), taps(plane.width, columns));
    let Scratch { values, spare, .. } = s;
    spare.resize(columns * plane.height, 0.0);
    for values in values.chunks_exact_mut(plane.height * plane.width) {
        // Pillow goes along the rows first, and rounds to bytes after each axis.
        for (row, out) in values.chunks_exact(plane.width).zip(spare.chunks_exact_mut(columns)) {
            out.iter_mut().zip(&across).for_each(|(out, taps)| *out = mean(row[taps.clone()].iter()));
        }
        for (y, out) in values.chunks_exact_mut(plane.width).enumerate() {
            let taps = down[nearest(y, rows, plane.height)].clone();
            let column = |x: usize| spare[x..].iter().step_by(columns).take(taps.end).skip(taps.start);
            if nearest(y.wrapping_sub(1), rows, plane.height) == nearest(y, rows, plane.height) && y > 0 {
                continue;
            }
            for (x, out) in out.iter_mut().enumerate() {
                *out = mean(column(nearest(x, columns, plane.width)));
            }
        }
        for y in 1..plane.height {
            if nearest(y - 1, rows, plane.height) == nearest(y, rows, plane.height) {
                values.copy_within((y - 1) * plane.width..y * plane.width, y * plane.width);
            }
        }
    }
}

/// The small pixel that stands at large pixel `at`.
fn nearest(at: usize, small: usize, large: usize) -> usize {
    // floor((at + 1/2) small / large) in whole numbers.
    (at.wrapping_mul(2).wrapping_add(1)).wrapping_mul(small) / (2 * large)
}

/// The large pixels whose middles lie in each small one.
fn taps(large: usize, small: usize) -> Vec<std::ops::Range<usize>> {
    let scale = large as f64 / small as f64;
    let range = |at: usize| {
        let centre = (at as f64 + 0.5) * scale;
        let from = (centre - 0.5 * scale + 0.5) as usize;
        let to = ((centre + 0.5 * scale + 0.5) as usize).min(large);
        let inside = |k: usize| {
            let distance = (k as f64 - centre + 0.5) / scale;
            distance > -0.5 && distance <= 0.5
        };
        let from = (from..to).find(|&k| inside(k)).unwrap_or(from);
        let to = (from..to).rfind(|&k| inside(k)).map_or(from + 1, |last| last + 1);
        from..to
    };
    (0..small).map(range).collect()
}

/// The mean, rounded half up.
fn mean<'a>(values: impl Iterator<Item = &'a f32>) -> f32 {
    let (mut sum, mut n) = (0u32, 0);
    for value in values {
        sum += *value as u32;
        n += 1;
    }
    ((2 * sum + n) / (2 * n).max(1)) as f32
}
