//! One way through the network: its mode, and the maps to note on the way.

use super::precision::Numerics;
use tch::Tensor;

/// Training or evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mode {
    /// Dropout, readout positions that are drawn, and batch statistics.
    pub train: bool,
    /// In training, batch norms of the shared blocks below this layer use their running statistics and leave
    /// them as they are (spec/trainer 3.7).
    pub frozen_norms: usize,
}

impl Mode {
    /// Evaluation.
    pub const EVAL: Self = Self { train: false, frozen_norms: 0 };
    /// Training.
    pub const TRAIN: Self = Self { train: true, frozen_norms: 0 };
}

/// The state of one pass.
pub(super) struct Pass<'a> {
    pub(super) mode: Mode,
    pub(super) numerics: Numerics,
    wanted: &'a [&'a str],
    found: Vec<Option<Tensor>>,
}

impl<'a> Pass<'a> {
    /// A pass that notes the outputs of the layers `wanted`.
    pub(super) fn new(mode: Mode, numerics: Numerics, wanted: &'a [&'a str]) -> Self {
        Self { mode, numerics, wanted, found: wanted.iter().map(|_| None).collect() }
    }

    /// The output of layer `index` of a block or head.
    pub(super) fn note(&mut self, block: &str, index: usize, output: &Tensor) {
        for (path, found) in self.wanted.iter().zip(&mut self.found) {
            if is_layer(path, block, index) {
                *found = Some(Numerics::leave(output));
            }
        }
    }

    /// What was noted, in the order of `wanted`; the error is a layer that was not passed.
    pub(super) fn found(self) -> Result<Vec<Tensor>, String> {
        let named = self.wanted.iter().zip(self.found);
        named.map(|(path, found)| found.ok_or_else(|| (*path).to_owned())).collect()
    }
}

/// `mtl_vgg_core.` may be left out of a path.
fn is_layer(path: &str, block: &str, index: usize) -> bool {
    let short = block.strip_prefix("mtl_vgg_core.").unwrap_or(block);
    let rest = path.strip_prefix("mtl_vgg_core.").unwrap_or(path);
    rest.rsplit_once('.').is_some_and(|(name, number)| name == short && number.parse() == Ok(index))
}
