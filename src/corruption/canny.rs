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
    let gradients: Vec<[i32; 2]> = (0..height)
        .flat_map(|y| (0..width).map(move |x| (y, x)))
        .map(|(y, x)| sobel(image, plane, y, x))
        .collect();
    let magnitude = |y: isize, x: isize| {
        let inside = (0..height as isize).contains(&y) && (0..width as isize).contains(&x);
        let at = || gradients[y as usize * width + x as usize].map(i32::abs).iter().sum::<i32>();
        if inside { at() } else { 0 }
    };
    let ridge = |at: usize| {
        let (y, x) = ((at / width) as isize, (at % width) as isize);
        let [gx, gy] = gradients[at];
        let here = magnitude(y, x);
        let (level, upright) = (i64::from(gx.abs()), i64::from(gy.abs()) << 15);
        let most = if upright < level * TAN {
            here > magnitude(y, x - 1) && here >= magnitude(y, x + 1)
        } else if upright > level * TAN + (level << 16) {
            here > magnitude(y - 1, x) && here >= magnitude(y + 1, x)
        } else {
            let side = if (gx < 0) == (gy < 0) { 1 } else { -1 };
            here > magnitude(y - 1, x - side) && here > magnitude(y + 1, x + side)
        };
        if here > LOW && most { here } else { 0 }
    };
    let ridges: Vec<i32> = (0..height * width).map(ridge).collect();
    follow(&ridges, plane)
}

fn sobel(image: &[u8], plane: Plane, y: usize, x: usize) -> [i32; 2] {
    let at = |dy: isize, dx: isize| {
        let row = Border::Nearest.index(y as isize + dy, plane.height);
        let column = Border::Nearest.index(x as isize + dx, plane.width);
        i32::from(image[row * plane.width + column])
    };
    let gx = at(-1, 1) + 2 * at(0, 1) + at(1, 1) - at(-1, -1) - 2 * at(0, -1) - at(1, -1);
    let gy = at(1, -1) + 2 * at(1, 0) + at(1, 1) - at(-1, -1) - 2 * at(-1, 0) - at(-1, 1);
    [gx, gy]
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
    let far = 1e6;
    out.clear();
    out.extend(edges.iter().map(|&edge| if edge { 0.0 } else { far }));
    let n = out.len();
    for direction in [1, -1] {
        for i in 0..n {
            let at = if direction == 1 { i } else { n - 1 - i };
            let (y, x) = ((at / plane.width) as isize, (at % plane.width) as isize);
            for (dy, dx, length) in STEPS {
                let (row, column) = (y + direction * dy, x + direction * dx);
                let inside =
                    (0..plane.height as isize).contains(&row) && (0..plane.width as isize).contains(&column);
                if inside {
                    out[at] = out[at].min(out[row as usize * plane.width + column as usize] + length);
                }
            }
        }
    }
}
