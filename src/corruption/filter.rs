//! Borders, separable Gaussian filters, and sums of shifted planes.

use multiversion::multiversion;

/// What lies beyond the edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Border {
    /// a a | a b c | c c
    Nearest,
    /// b a | a b c | c b
    Reflect,
    /// c b | a b c | b a
    Mirror,
}

impl Border {
    /// The position within `0..n` that stands for `at`.
    pub(super) fn index(self, at: isize, n: usize) -> usize {
        let last = n as isize - 1;
        let index = match self {
            _ if (0..=last).contains(&at) => at,
            Self::Nearest => at.clamp(0, last),
            Self::Reflect => {
                let at = at.rem_euclid(2 * last + 2);
                at.min(2 * last + 1 - at)
            }
            Self::Mirror if last == 0 => 0,
            Self::Mirror => {
                let at = at.rem_euclid(2 * last);
                at.min(2 * last - at)
            }
        };
        index as usize
    }
}

/// A plane of rows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Plane {
    pub(super) height: usize,
    pub(super) width: usize,
}

impl Plane {
    /// Copies `values` with more rows above and below, and more columns to the left and right.
    pub(super) fn pad(self, values: &[f32], margins: Margins, border: Border, out: &mut Vec<f32>) {
        let Margins { above, below, left, right } = margins;
        let width = self.width + left + right;
        out.resize((self.height + above + below) * width, 0.0);
        let rows = out[above * width..].chunks_exact_mut(width);
        for (out, row) in rows.zip(values.chunks_exact(self.width)) {
            let (before, rest) = out.split_at_mut(left);
            let (inside, after) = rest.split_at_mut(self.width);
            inside.copy_from_slice(row);
            if border == Border::Nearest {
                before.fill(row[0]);
                after.fill(row[self.width - 1]);
                continue;
            }
            // In a mirror the edge is not met twice.
            let skipped = usize::from(border == Border::Mirror);
            if left.max(right) + skipped <= self.width {
                let inner = (&row[skipped..], row[..self.width - skipped].iter().rev());
                before.iter_mut().rev().zip(inner.0).for_each(|(out, &value)| *out = value);
                after.iter_mut().zip(inner.1).for_each(|(out, &value)| *out = value);
                continue;
            }
            for (out, at) in before.iter_mut().rev().zip(1..) {
                *out = row[border.index(-at, self.width)];
            }
            for (out, at) in after.iter_mut().zip(self.width as isize..) {
                *out = row[border.index(at, self.width)];
            }
        }
        for y in (0..above).chain(above + self.height..above + self.height + below) {
            let from = above + border.index(y as isize - above as isize, self.height);
            out.copy_within(from * width..(from + 1) * width, y * width);
        }
    }
}

/// How far a plane goes on beyond its edges.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Margins {
    pub(super) above: usize,
    pub(super) below: usize,
    pub(super) left: usize,
    pub(super) right: usize,
}

impl Margins {
    pub(super) const fn of([rows, columns]: [usize; 2]) -> Self {
        Self { above: rows, below: rows, left: columns, right: columns }
    }
}

/// A symmetric kernel that sums to 1: its weights from the middle outwards, the middle one halved, because it
/// is met from both sides.
#[derive(Debug, Clone)]
pub(super) struct Kernel(Vec<f32>);

impl Kernel {
    /// SciPy's Gaussian, cut at `cut` standard deviations.
    pub(super) fn gaussian(sigma: f64, cut: f64) -> Self {
        let radius = (cut * sigma + 0.5).floor() as usize;
        let weight = |k: usize| (-0.5 * (k as f64 / sigma.max(1e-9)).powi(2)).exp();
        let total = 2.0 * (0..=radius).map(weight).sum::<f64>() - 1.0;
        let half = |k| weight(k) / total * if k == 0 { 0.5 } else { 1.0 };
        Self((0..=radius).map(|k| half(k) as f32).collect())
    }

    fn radius(&self) -> usize {
        self.0.len() - 1
    }
}

/// Filters each plane of `values` along the columns with `kernels[0]` and along the rows with `kernels[1]`.
pub(super) fn blur(
    values: &mut [f32],
    plane: Plane,
    kernels: [&Kernel; 2],
    border: Border,
    padded: &mut Vec<f32>,
) {
    for values in values.chunks_exact_mut(plane.height * plane.width) {
        for (axis, kernel) in kernels.into_iter().enumerate().filter(|(_, kernel)| kernel.radius() > 0) {
            let radius = kernel.radius();
            let margin = if axis == 0 { [radius, 0] } else { [0, radius] };
            plane.pad(values, Margins::of(margin), border, padded);
            let stride = if axis == 0 { plane.width } else { 1 };
            let width = plane.width + 2 * margin[1];
            filter_rows(padded, width, radius * stride, stride, &kernel.0, plane.width, values);
        }
    }
}

/// As [`blur`] with the same Gaussian for rows and columns.
pub(super) fn gaussian(
    values: &mut [f32],
    plane: Plane,
    sigma: f64,
    cut: f64,
    border: Border,
    padded: &mut Vec<f32>,
) {
    let kernel = Kernel::gaussian(sigma, cut);
    blur(values, plane, [&kernel; 2], border, padded);
}

/// Values that are summed side by side in registers.
const LANES: usize = 32;

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl", "x86_64+avx2", "x86_64+sse4.1"))]
fn filter_rows(
    padded: &[f32],
    padded_width: usize,
    centre: usize,
    stride: usize,
    half: &[f32],
    width: usize,
    out: &mut [f32],
) {
    for (y, out) in out.chunks_exact_mut(width).enumerate() {
        let first = y * padded_width + centre;
        let (whole, rest) = out.as_chunks_mut::<LANES>();
        let tail = whole.len() * LANES;
        for (n, out) in whole.iter_mut().enumerate() {
            let mut sum = [0.0; LANES];
            for (k, &weight) in half.iter().enumerate() {
                let at = first + n * LANES;
                let before = lanes(padded, at - k * stride);
                let after = lanes(padded, at + k * stride);
                for i in 0..LANES {
                    sum[i] += weight * (before[i] + after[i]);
                }
            }
            *out = sum;
        }
        for (x, out) in rest.iter_mut().enumerate() {
            let at = first + tail + x;
            *out = 0.0;
            for (k, &weight) in half.iter().enumerate() {
                *out += weight * (padded[at - k * stride] + padded[at + k * stride]);
            }
        }
    }
}

#[inline(always)]
#[expect(
    clippy::inline_always,
    reason = "it is compiled for the vectors of its caller only if it is part of it"
)]
fn lanes(values: &[f32], at: usize) -> &[f32; LANES] {
    values[at..].first_chunk().expect("a padded plane is longer than its last row's last chunk")
}

/// Sums `weight · padded[start + offset ..]` over `taps`, row by row. Offsets are into the padded plane.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl", "x86_64+avx2", "x86_64+sse4.1"))]
pub(super) fn sum_shifted(
    padded: &[f32],
    padded_width: usize,
    taps: &[(usize, f32)],
    width: usize,
    out: &mut [f32],
) {
    for (y, out) in out.chunks_exact_mut(width).enumerate() {
        let first = y * padded_width;
        let (whole, rest) = out.as_chunks_mut::<LANES>();
        let tail = whole.len() * LANES;
        for (n, out) in whole.iter_mut().enumerate() {
            let mut sum = [0.0; LANES];
            for &(offset, weight) in taps {
                let values = lanes(padded, first + n * LANES + offset);
                for i in 0..LANES {
                    sum[i] += weight * values[i];
                }
            }
            *out = sum;
        }
        for (x, out) in rest.iter_mut().enumerate() {
            *out = taps
                .iter()
                .fold(0.0, |sum, &(offset, weight)| sum + weight * padded[first + tail + x + offset]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn borders_are_those_of_their_names() {
        let at = |border: Border| (-4..8).map(|i| border.index(i, 4)).collect::<Vec<_>>();
        assert_eq!(at(Border::Nearest), [0, 0, 0, 0, 0, 1, 2, 3, 3, 3, 3, 3]);
        assert_eq!(at(Border::Reflect), [3, 2, 1, 0, 0, 1, 2, 3, 3, 2, 1, 0]);
        assert_eq!(at(Border::Mirror), [2, 3, 2, 1, 0, 1, 2, 3, 2, 1, 0, 1]);
        for border in [Border::Nearest, Border::Reflect, Border::Mirror] {
            assert!((-9..9).all(|i| border.index(i, 1) == 0));
        }
    }

    /// The plain definition, in f64.
    #[test]
    fn a_separable_filter_equals_the_double_sum() {
        for (height, width, sigma, border) in [
            (5, 7, 0.8, Border::Nearest),
            (3, 64, 1.5, Border::Reflect),
            (40, 37, 2.0, Border::Mirror),
            (1, 1, 3.0, Border::Reflect),
        ] {
            let values: Vec<f32> = (0..height * width).map(|i| (i * i % 251) as f32).collect();
            let radius = (4.0f64 * sigma + 0.5).floor() as isize;
            let weight = |k: isize| (-0.5 * (k as f64 / sigma).powi(2)).exp();
            let total: f64 = (-radius..=radius).map(weight).sum();
            let at = |y: isize, x: isize| {
                f64::from(values[border.index(y, height) * width + border.index(x, width)])
            };
            let mut found = values.clone();
            gaussian(&mut found, Plane { height, width }, sigma, 4.0, border, &mut Vec::new());
            for y in 0..height as isize {
                for x in 0..width as isize {
                    let mut sum = 0.0;
                    for j in -radius..=radius {
                        for k in -radius..=radius {
                            sum += weight(j) * weight(k) * at(y + j, x + k);
                        }
                    }
                    let got = f64::from(found[y as usize * width + x as usize]);
                    assert!((got - sum / total / total).abs() < 1e-3, "{y} {x}: {got}");
                }
            }
        }
    }

    #[test]
    fn no_deviation_changes_nothing() {
        let mut values = vec![3.0, 250.0, 7.0, 1.0];
        for sigma in [0.0, 0.1] {
            gaussian(
                &mut values,
                Plane { height: 2, width: 2 },
                sigma,
                4.0,
                Border::Nearest,
                &mut Vec::new(),
            );
        }
        assert_eq!(values, [3.0, 250.0, 7.0, 1.0]);
    }
}
