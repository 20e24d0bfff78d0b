//! Pixelate: Pillow's BOX filter to fewer pixels, and back by the nearest one.

use super::draws::Draws;
use super::{Profile, Scratch, Severity};

pub(super) fn apply(s: &mut Scratch, profile: Profile, severity: Severity, _: &mut dyn Draws) {
    let share = profile.pick(severity, &[0.9, 0.8, 0.7, 0.6, 0.5], &[0.6, 0.5, 0.4, 0.3, 0.25]);
    let plane = s.extent.size();
    let fewer = |n: usize| ((n as f64 * share) as usize).max(1);
    let (rows, columns) = (fewer(plane.height), fewer(plane.width));
    let (down, across) = (taps(plane.height, rows), taps(plane.width, columns));
    let Scratch { values, spare, padded, .. } = s;
    spare.resize(columns * plane.height, 0.0);
    padded.resize(columns, 0.0);
    let shown: Vec<usize> = (0..plane.width).map(|x| nearest(x, columns, plane.width)).collect();
    for values in values.chunks_exact_mut(plane.height * plane.width) {
        // Pillow goes along the rows first, and rounds to bytes after each axis.
        for (row, out) in values.chunks_exact(plane.width).zip(spare.chunks_exact_mut(columns)) {
            for (out, taps) in out.iter_mut().zip(&across) {
                *out = mean(row[taps.clone()].iter().sum(), taps.len());
            }
        }
        let mut last = usize::MAX;
        for y in 0..plane.height {
            let small = nearest(y, rows, plane.height);
            if small == last {
                values.copy_within((y - 1) * plane.width..y * plane.width, y * plane.width);
                continue;
            }
            last = small;
            padded.fill(0.0);
            for row in spare.chunks_exact(columns).take(down[small].end).skip(down[small].start) {
                padded.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
            }
            for sum in padded.iter_mut() {
                *sum = mean(*sum, down[small].len());
            }
            let out = &mut values[y * plane.width..][..plane.width];
            out.iter_mut().zip(&shown).for_each(|(out, &x)| *out = padded[x]);
        }
    }
}

/// The small pixel that stands at large pixel `at`.
fn nearest(at: usize, small: usize, large: usize) -> usize {
    // floor((at + 1/2) small / large) in whole numbers.
    (2 * at + 1) * small / (2 * large)
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

/// The mean of `n` values that add up to `sum`, rounded half up. What is added for f32 is less than any
/// distance between means.
fn mean(sum: f32, n: usize) -> f32 {
    (sum / n.max(1) as f32 + 0.5 + 1e-4) as i32 as f32
}
