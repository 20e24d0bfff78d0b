//! Pixelate: Pillow's BOX filter to fewer pixels, and back by the nearest one.

use super::draws::Draws;
use super::filter::Plane;
use super::zoom::transpose;
use super::{Profile, Scratch, Severity};
use multiversion::multiversion;
use std::ops::Range;

pub(super) fn apply(s: &mut Scratch, profile: Profile, severity: Severity, _: &mut dyn Draws) {
    let share = profile.pick(severity, &[0.9, 0.8, 0.7, 0.6, 0.5], &[0.6, 0.5, 0.4, 0.3, 0.25]);
    let Plane { height, width } = s.extent.size();
    let fewer = |n: usize| ((n as f64 * share) as usize).max(1);
    let (rows, columns) = (fewer(height), fewer(width));
    let (down, across) = (taps(height, rows), taps(width, columns));
    let Scratch { values, padded: a, spare: b, .. } = s;
    a.resize(height * width, 0.0);
    b.resize(values.len().max(height * width), 0.0);
    for values in values.chunks_exact_mut(height * width) {
        // Along an axis by rows of the plane, turned on its side for the columns. Pillow goes across first, and rounds
        // to bytes after each axis.
        transpose(values, width, a);
        mean_rows(a, height, &across, b);
        transpose(&b[..columns * height], height, a);
        mean_rows(a, columns, &down, b);
        transpose(&b[..rows * columns], columns, a);
        repeat_rows(a, rows, columns, width, b);
        transpose(&b[..width * rows], rows, a);
        repeat_rows(a, width, rows, height, values);
    }
}

/// Each row of `out` is the mean of some rows of `values`, rounded half up. What is added for f32 is less than any
/// distance between means.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl", "x86_64+avx2", "x86_64+sse4.1"))]
fn mean_rows(values: &[f32], width: usize, taps: &[Range<usize>], out: &mut [f32]) {
    for (taps, out) in taps.iter().zip(out.chunks_exact_mut(width)) {
        out.fill(0.0);
        for row in values[taps.start * width..taps.end * width].chunks_exact(width) {
            out.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
        }
        let n = taps.len().max(1) as f32;
        for sum in out.iter_mut() {
            *sum = (*sum / n + (0.5 + 1e-4)).floor();
        }
    }
}

/// `large` rows of the nearest of `small` ones.
fn repeat_rows(values: &[f32], width: usize, small: usize, large: usize, out: &mut [f32]) {
    for (y, out) in out.chunks_exact_mut(width).take(large).enumerate() {
        out.copy_from_slice(&values[nearest(y, small, large) * width..][..width]);
    }
}

/// The small pixel that stands at large pixel `at`.
fn nearest(at: usize, small: usize, large: usize) -> usize {
    // floor((at + 1/2) small / large) in whole numbers.
    (2 * at + 1) * small / (2 * large)
}

/// The large pixels whose middles lie in each small one.
fn taps(large: usize, small: usize) -> Vec<Range<usize>> {
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
