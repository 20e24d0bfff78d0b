//! The middle of a plane, enlarged: `zoom` of spec/reconstruction 3.4, which is SciPy's linear `zoom` of a
//! square that is cut out.

use super::turn::turn_f32;
use multiversion::multiversion;

/// Where the outputs along one axis come from.
#[derive(Debug, Clone)]
pub(super) struct Axis {
    /// The first of the two neighbours.
    pub(super) from: Vec<usize>,
    /// Share of the second.
    share: Vec<f32>,
}

impl Axis {
    /// For `n` pixels enlarged by `factor`, which is at least 1. With `trim`, the middle of what comes out is
    /// kept, else its first pixels; at most `keep` of them.
    pub(super) fn new(n: usize, factor: f64, trim: bool, keep: usize) -> Self {
        let cut = (n as f64 / factor).ceil() as usize;
        let top = (n - cut) / 2;
        let enlarged = (cut as f64 * factor).round_ties_even() as usize;
        let skip = if trim { enlarged.saturating_sub(n) / 2 } else { 0 };
        let step = if enlarged > 1 { (cut - 1) as f64 / (enlarged - 1) as f64 } else { 0.0 };
        let position = |j: usize| {
            let at = (j + skip) as f64 * step;
            let from = (at as usize).min(cut.saturating_sub(2));
            (top + from, (at - from as f64) as f32)
        };
        let (from, share) = (0..enlarged.min(keep)).map(position).unzip();
        Self { from, share }
    }

    pub(super) fn len(&self) -> usize {
        self.from.len()
    }
}

/// A plane turned on its side, and memory for what becomes of it.
#[derive(Debug, Default)]
pub(super) struct Turned {
    size: [usize; 2],
    values: Vec<f32>,
    stretched: Vec<f32>,
    rows: Vec<f32>,
}

impl Turned {
    /// Turns `plane`, whose rows have `width` values. Stretching rows is then mixing rows, which vectors do well.
    pub(super) fn set(&mut self, plane: &[f32], width: usize) {
        self.size = [plane.len() / width, width];
        self.values.resize(plane.len(), 0.0);
        transpose(plane, width, &mut self.values);
    }

    /// Adds the plane, enlarged along both axes, to `out`.
    pub(super) fn add_to(&mut self, [down, across]: [&Axis; 2], out: &mut [f32]) {
        let [height, width] = self.size;
        self.stretched.resize(across.len() * height, 0.0);
        self.rows.resize(across.len() * height, 0.0);
        self.stretched.fill(0.0);
        mix_rows(&self.values, height, width, across, &mut self.stretched);
        transpose(&self.stretched, height, &mut self.rows);
        mix_rows(&self.rows, across.len(), height, down, out);
    }
}

/// Adds to each row of `out` a mixture of two of the `n` rows of `values`.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl", "x86_64+avx2", "x86_64+sse4.1"))]
fn mix_rows(values: &[f32], width: usize, n: usize, axis: &Axis, out: &mut [f32]) {
    for ((out, &from), &share) in out.chunks_exact_mut(width).zip(&axis.from).zip(&axis.share) {
        let upper = &values[from * width..][..width];
        let lower = &values[(from + 1).min(n - 1) * width..][..width];
        for ((out, &a), &b) in out.iter_mut().zip(upper).zip(lower) {
            *out += a + share * (b - a);
        }
    }
}

/// Rows to columns, in tiles that fit the registers.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl", "x86_64+avx2", "x86_64+sse4.1"))]
fn transpose(values: &[f32], width: usize, out: &mut [f32]) {
    const TILE: usize = 4;
    let height = values.len() / width;
    let (tall, across) = (height / TILE * TILE, width / TILE);
    for (band, top) in values.chunks_exact(TILE * width).zip((0..tall).step_by(TILE)) {
        let row = |y: usize| &band[y * width..][..width].as_chunks::<TILE>().0[..across];
        let (a, b, c, d) = (row(0), row(1), row(2), row(3));
        for i in 0..across {
            let first = TILE * i * height + top;
            let columns = turn_f32([a[i], b[i], c[i], d[i]]);
            for x in 0..TILE {
                out[first + x * height..][..TILE].copy_from_slice(&columns[x]);
            }
        }
    }
    for (y, row) in values.chunks_exact(width).enumerate() {
        let done = if y < tall { TILE * across } else { 0 };
        for (x, &value) in row.iter().enumerate().skip(done) {
            out[x * height + y] = value;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// (cut, top, enlarged) of spec/reconstruction 3.4, seen from outside.
    #[test]
    fn axes_are_those_of_the_definition() {
        for (factor, cut, top, enlarged) in
            [(1.75, 37, 13, 65), (2.25, 29, 17, 65), (1.25, 52, 6, 65), (2.0, 32, 16, 64), (2.5, 26, 19, 65)]
        {
            let axis = Axis::new(64, factor, true, usize::MAX);
            assert_eq!((axis.len(), axis.from[0]), (enlarged, top), "{factor}");
            let last = axis.len() - 1;
            assert_eq!(axis.from[last] as f32 + axis.share[last], (top + cut - 1) as f32, "{factor}");
        }
        for (factor, skip) in [(3.0, 1), (4.5, 2)] {
            let [all, kept] = [false, true].map(|trim| Axis::new(64, factor, trim, 64));
            assert_eq!(all.from[skip..], kept.from[..64 - skip], "{factor}");
        }
    }

    #[test]
    fn a_plane_turned_twice_is_itself() {
        for (height, width) in [(1, 1), (3, 17), (16, 8), (9, 24)] {
            let plane: Vec<f32> = (0..height * width).map(|i| i as f32).collect();
            let (mut turned, mut back) = (vec![0.0; plane.len()], vec![0.0; plane.len()]);
            transpose(&plane, width, &mut turned);
            assert_eq!(turned[height * (width - 1)], (width - 1) as f32);
            transpose(&turned, height, &mut back);
            assert_eq!(back, plane);
        }
    }

    #[test]
    fn factor_one_is_the_plane_itself_for_all_sizes() {
        for n in 1..9 {
            let plane: Vec<f32> = (0..n * n).map(|i| (i * 7 % 11) as f32).collect();
            let axis = Axis::new(n, 1.0, true, n);
            let mut out = vec![0.0; n * n];
            let mut turned = Turned::default();
            turned.set(&plane, n);
            turned.add_to([&axis; 2], &mut out);
            assert_eq!(out, plane);
        }
    }
}
