//! Batches for a device that holds all images: which image each one is, where its pixels come from, and what noise is
//! added. What is drawn is what the host would have drawn, and positions are whole numbers, so that both make the same
//! batch; to the bit but for noise, whose logarithms and cosines devices round in their own ways.

use super::augment::{Affine, Noise, Placement};

/// Row of the image; columns and rows of the crop's shift, and whether it is mirrored; then, as columns and rows in
/// 16.16 fixed point, how the source position changes from column to column and from row to row, and where it begins.
/// [`super::SourceMap`] is the plain definition.
pub type Move = [i32; 10];

/// A batch, as a device makes it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Moves {
    /// Of each image.
    pub places: Vec<Move>,
    /// Of those images that have noise.
    pub noise: Vec<Grain>,
}

impl Moves {
    /// Whether every image of this size is shown as it is, but for noise.
    pub fn stay(&self, width: u32, height: u32) -> bool {
        let [_, still @ ..] = moved(0, Placement::IDENTITY, width, height);
        self.places.iter().all(|[_, place @ ..]| *place == still)
    }
}

/// Noise of one image; `noise.rs` has the numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Grain {
    /// Which image of the batch.
    pub image: u32,
    /// How strong it is.
    pub noise: Noise,
    /// Where its numbers start.
    pub start: u64,
}

/// Largest height or width of which positions fit 32 bits.
pub(super) const LARGEST_SIDE: u32 = 4096;

pub(super) fn moved(row: u64, placement: Placement, width: u32, height: u32) -> Move {
    let Placement { dx, dy, flip, degrees } = placement;
    let affine = Affine::rotation(degrees, width, height);
    let [start, next] = [0, 1].map(|y| affine.row_start(y));
    let small = |v: i64| v as i32;
    let [step_x, step_y] = affine.step.map(small);
    let [row_x, row_y] = [0, 1].map(|axis| small(next[axis] - start[axis]));
    let [x, y] = start.map(small);
    [row as i32, dx, dy, i32::from(flip), step_x, step_y, row_x, row_y, x, y]
}
