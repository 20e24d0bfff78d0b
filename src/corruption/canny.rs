//! Canny's edges, as OpenCV finds them (3 x 3 Sobel, sum of absolute values), and the distance to them.

use super::filter::{Border, Plane};

/// Neither above `LOW` is no edge; above `HIGH` is one; between the two it must touch one.
const LOW: i32 = 50;
const HIGH: i32 = 150;

/// tan 22.5° in units of 2^-15.
const TAN: i64 = 13_573;

/// Whether each pixel lies on an edge.
pub(super) fn edges(image: &[u8], plane: Plane) -> Vec<bool> {
    let Plane { height, width } = plane;
    let gradients = sobel(image, plane);
    // With a border of zeros, beyond which nothing is larger.
    let wide = width + 2;
    let mut magnitudes = vec![0i32; (height + 2) * wide];
    for (row, gradients) in magnitudes.chunks_exact_mut(wide).skip(1).zip(gradients.chunks_exact(width)) {
        row[1..].iter_mut().zip(gradients).for_each(|(out, [gx, gy])| *out = gx.abs() + gy.abs());
    }
    let mut ridges = vec![0i32; height * width];
    for (at, (ridge, [gx, gy])) in ridges.iter_mut().zip(gradients).enumerate() {
        let here = (at / width + 1) * wide + at % width + 1;
        let strength = magnitudes[here];
        if strength <= LOW {
            continue;
        }
        let (level, upright) = (i64::from(gx.abs()), i64::from(gy.abs()) << 15);
        // The neighbours across the edge, and whether the second may be as strong.
        let (step, equal) = if upright < level * TAN {
            (1, true)
        } else if upright > level * TAN + (level << 16) {
            (wide, true)
        } else if (gx < 0) == (gy < 0) {
            (wide + 1, false)
        } else {
            (wide - 1, false)
        };
        let (before, after) = (magnitudes[here - step], magnitudes[here + step]);
        if strength > before && (strength > after || equal && strength == after) {
            *ridge = strength;
        }
    }
    follow(&ridges, plane)
}

/// Gradients along columns and rows, the edge repeated.
fn sobel(image: &[u8], plane: Plane) -> Vec<[i32; 2]> {
    let Plane { height, width } = plane;
    let row = |y: usize, dy: isize| &image[Border::Nearest.index(y as isize + dy, height) * width..][..width];
    let gradients = |y: usize| {
        let rows = [row(y, -1), row(y, 0), row(y, 1)];
        (0..width).map(move |x| {
            let columns = [x.saturating_sub(1), x, (x + 1).min(width - 1)];
            let at = |j: usize, i: usize| i32::from(rows[j][columns[i]]);
            let gx = at(0, 2) + 2 * at(1, 2) + at(2, 2) - at(0, 0) - 2 * at(1, 0) - at(2, 0);
            let gy = at(2, 0) + 2 * at(2, 1) + at(2, 2) - at(0, 0) - 2 * at(0, 1) - at(0, 2);
            [gx, gy]
        })
    };
    (0..height).flat_map(gradients).collect()
}

/// Strong ridges, and the weak ones that they reach.
fn follow(ridges: &[i32], plane: Plane) -> Vec<bool> {
    let mut found: Vec<bool> = ridges.iter().map(|&ridge| ridge > HIGH).collect();
    let mut open: Vec<usize> = (0..found.len()).filter(|&at| found[at]).collect();
    while let Some(at) = open.pop() {
        let (y, x) = (at / plane.width, at % plane.width);
        for row in y.saturating_sub(1)..(y + 2).min(plane.height) {
            for column in x.saturating_sub(1)..(x + 2).min(plane.width) {
                let next = row * plane.width + column;
                if ridges[next] > 0 && !found[next] {
                    found[next] = true;
                    open.push(next);
                }
            }
        }
    }
    found
}

/// Chamfer distance of each pixel to the nearest edge (Borgefors, "Distance transformations in digital images",
/// 1986; OpenCV's 5 x 5 mask).
pub(super) fn distances(edges: &[bool], plane: Plane, out: &mut Vec<f32>) {
    const STEPS: [(isize, isize, f32); 8] = [
        (0, -1, 1.0),
        (-1, 0, 1.0),
        (-1, -1, 1.4),
        (-1, 1, 1.4),
        (-1, -2, 2.1969),
        (-1, 2, 2.1969),
        (-2, -1, 2.1969),
        (-2, 1, 2.1969),
    ];
    // A border of two far pixels saves every test for the edge.
    let wide = plane.width + 4;
    let mut near = vec![1e6f32; (plane.height + 4) * wide];
    let start = |y: usize| (y + 2) * wide + 2;
    for (y, edges) in edges.chunks_exact(plane.width).enumerate() {
        for (near, _) in near[start(y)..].iter_mut().zip(edges).filter(|(_, edge)| **edge) {
            *near = 0.0;
        }
    }
    for direction in [1isize, -1] {
        let steps = STEPS.map(|(dy, dx, length)| (direction * (dy * wide as isize + dx), length));
        for i in 0..plane.height * plane.width {
            let i = if direction == 1 { i } else { plane.height * plane.width - 1 - i };
            let at = start(i / plane.width) + i % plane.width;
            let shorter = |least: f32, (step, length): (isize, f32)| {
                least.min(near[at.wrapping_add_signed(step)] + length)
            };
            near[at] = steps.into_iter().fold(near[at], shorter);
        }
    }
    out.clear();
    (0..plane.height).for_each(|y| out.extend_from_slice(&near[start(y)..][..plane.width]));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_those_of_the_mask() {
        let plane = Plane { height: 7, width: 9 };
        let mut edges = vec![false; 63];
        edges[2 * 9 + 3] = true;
        let mut found = Vec::new();
        distances(&edges, plane, &mut found);
        for y in 0..7usize {
            for x in 0..9usize {
                let (long, short) = (y.abs_diff(2).max(x.abs_diff(3)), y.abs_diff(2).min(x.abs_diff(3)));
                // Knight's moves first, then diagonals or straight ones.
                let knights = short.min(long - short);
                let rest = (long - 2 * knights, short - knights);
                let expected = 2.1969 * knights as f32 + 1.4 * rest.1 as f32 + (rest.0 - rest.1) as f32;
                assert!((found[y * 9 + x] - expected).abs() < 1e-4, "{y} {x}: {}", found[y * 9 + x]);
            }
        }
    }

    #[test]
    fn a_step_has_one_line_of_edge_and_a_faint_one_has_none() {
        let plane = Plane { height: 8, width: 8 };
        let step = |by: u8| (0..64).map(|i| if i % 8 < 4 { 10 } else { 10 + by }).collect::<Vec<u8>>();
        let found = edges(&step(200), plane);
        assert!((0..8).all(|y| found[8 * y..8 * y + 8].iter().filter(|&&edge| edge).count() == 1));
        assert!(edges(&step(12), plane).iter().all(|&edge| !edge));
        // Between the two bounds, and nothing strong to touch.
        assert!(edges(&step(30), plane).iter().all(|&edge| !edge));
    }
}
