//! How a pass is to be run.

use tch::Tensor;

/// Training or evaluation, and which batch normalisations are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mode {
    /// Batch statistics, dropout and random readout positions; otherwise none of them.
    pub train: bool,
    /// In training, batch normalisations of shared blocks (`features` of a plain VGG) below this number use their running
    /// statistics and leave them alone; their weights still learn. Layers are counted as in an uncut VGG without dropout.
    pub frozen_norms: usize,
    /// In training, which part of a batch the images are; none if they are all of it.
    pub share: Option<Share>,
}

/// A process's part of a batch that several train on together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Record of the batch that the part begins with.
    pub first: u32,
    /// Records of the part; there may be none.
    pub len: u32,
    /// Records of the whole batch.
    pub whole: u32,
    /// Images of each record; those of all first views come before all second ones.
    pub views: u32,
}

impl Share {
    /// How much of the batch it is, from 0 to 1.
    pub fn part(self) -> f64 {
        f64::from(self.len) / f64::from(self.whole.max(1))
    }

    /// Images of the whole batch.
    pub(super) fn images(self) -> i64 {
        i64::from(self.whole) * i64::from(self.views)
    }

    /// Its rows of what was drawn for the images of the whole batch.
    pub(super) fn of(self, whole: &Tensor) -> Tensor {
        let [first, len, all, views] = [self.first, self.len, self.whole, self.views].map(i64::from);
        let rows: Vec<Tensor> = (0..views).map(|view| whole.narrow(0, view * all + first, len)).collect();
        if let [rows] = &rows[..] { rows.shallow_clone() } else { Tensor::cat(&rows, 0) }
    }
}

impl Mode {
    /// Evaluation.
    pub const EVAL: Self = Self { train: false, frozen_norms: 0, share: None };
    /// Training, nothing held.
    pub const TRAIN: Self = Self { train: true, frozen_norms: 0, share: None };
}
