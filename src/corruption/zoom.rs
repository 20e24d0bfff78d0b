//! The middle of a plane, enlarged: `zoom` of spec/reconstruction 3.4, which is SciPy's linear `zoom` of a
//! square that is cut out.

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

/// Adds the enlarged plane to `out`. `plane` has rows of `width` and `across` is for its columns.
pub(super) fn add(
    plane: &[f32],
    width: usize,
    [down, across]: [&Axis; 2],
    rows: &mut Vec<f32>,
    out: &mut [f32],
) {
    let height = plane.len() / width;
    let (first, last) = (down.from[0], (down.from[down.len() - 1] + 1).min(height - 1));
    rows.resize(height * across.len(), 0.0);
    for y in first..=last {
        let row = &plane[y * width..][..width];
        stretch(row, &across.from, &across.share, &mut rows[y * across.len()..][..across.len()]);
    }
    for (y, out) in out.chunks_exact_mut(across.len()).enumerate() {
        let from = down.from[y];
        let upper = &rows[from * across.len()..][..across.len()];
        let lower = &rows[(from + 1).min(height - 1) * across.len()..][..across.len()];
        add_between(upper, lower, down.share[y], out);
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl", "x86_64+avx2", "x86_64+sse4.1"))]
fn add_between(upper: &[f32], lower: &[f32], share: f32, out: &mut [f32]) {
    for ((out, &a), &b) in out.iter_mut().zip(upper).zip(lower) {
        *out += a + share * (b - a);
    }
}

fn stretch(row: &[f32], from: &[usize], share: &[f32], out: &mut [f32]) {
    let last = row.len() - 1;
    for ((out, &from), &share) in out.iter_mut().zip(from).zip(share) {
        let (a, b) = (row[from], row[(from + 1).min(last)]);
        *out = a + share * (b - a);
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
    fn factor_one_is_the_plane_itself_for_all_sizes() {
        for n in 1..9 {
            let plane: Vec<f32> = (0..n * n).map(|i| (i * 7 % 11) as f32).collect();
            let axis = Axis::new(n, 1.0, true, n);
            let mut out = vec![0.0; n * n];
            add(&plane, n, [&axis; 2], &mut Vec::new(), &mut out);
            assert_eq!(out, plane);
        }
    }
}
