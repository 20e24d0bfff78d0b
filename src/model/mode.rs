//! How a pass is to be run.

/// Training or evaluation, and which batch normalisations are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mode {
    /// Batch statistics, dropout and random readout positions; otherwise none of them.
    pub train: bool,
    /// In training, batch normalisations with a child index below this in a shared block (`features` of a
    /// plain VGG) use their running statistics and leave them alone; their weights still learn. Inserted
    /// dropout layers count as children.
    pub frozen_norms: usize,
}

impl Mode {
    /// Evaluation.
    pub const EVAL: Self = Self { train: false, frozen_norms: 0 };
    /// Training, nothing held.
    pub const TRAIN: Self = Self { train: true, frozen_norms: 0 };
}
