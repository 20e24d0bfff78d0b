//! Zoom blur: the mean of the image and its enlargements by 1, 1 + step, 1 + 2 step, …

use super::draws::Draws;
use super::zoom::Axis;
use super::{Profile, Scratch, Severity};

/// Number of enlargements, and step.
const TINY: [(usize, f64); 5] = [(7, 0.01), (12, 0.01), (16, 0.01), (21, 0.01), (26, 0.01)];
const IMAGENET: [(usize, f64); 5] = [(12, 0.01), (16, 0.01), (11, 0.02), (13, 0.02), (11, 0.03)];

pub(super) fn apply(s: &mut Scratch, profile: Profile, severity: Severity, _: &mut dyn Draws) {
    let (n, step) = profile.pick(severity, &TINY, &IMAGENET);
    let plane = s.extent.size();
    let Scratch { values, spare, turned, .. } = s;
    // The image counts twice: as itself, and enlarged by 1.
    spare.clear();
    spare.extend(values.iter().map(|value| 2.0 * value));
    let size = plane.height * plane.width;
    let axes: Vec<[Axis; 2]> = (1..n)
        .map(|k| [plane.height, plane.width].map(|n| Axis::new(n, 1.0 + k as f64 * step, true, n)))
        .collect();
    for (values, sum) in values.chunks_exact(size).zip(spare.chunks_exact_mut(size)) {
        turned.set(values, plane.width);
        for [down, across] in &axes {
            turned.add_to([down, across], sum);
        }
    }
    let share = 1.0 / (n + 1) as f32;
    values.iter_mut().zip(spare).for_each(|(value, sum)| *value = *sum * share);
}
