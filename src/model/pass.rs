//! What accompanies images on their way through the layers: the mode, intermediate maps that were asked
//! for, and a count of the work.

use super::layer::{Layer, Op};
use super::{Mode, ModelError, Precision, Runtime};
use crate::torch_ext::Group;
use tch::Tensor;

/// Part of the network that a layer belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Seen by the readouts; in a network without them, the layers before the head.
    Shared,
    /// Layers after the last shared block, and the head.
    Classification,
    /// A session's readout.
    Readout,
}

/// One layer of a network, for one image.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerRow {
    /// Dotted name.
    pub name: String,
    /// Part of the network.
    pub part: Part,
    /// Extent of the output without the batch axis.
    pub output: Vec<i64>,
    /// Trainable numbers.
    pub parameters: u64,
    /// Multiplications with addition in a forward pass; those of normalisation and pooling are not counted.
    pub macs: u64,
    /// Estimated bytes that training keeps for the backward pass.
    pub activation_bytes: u64,
}

/// A pass through the layers.
pub(super) struct Pass<'a> {
    pub(super) mode: Mode,
    pub(super) precision: Precision,
    pub(super) fused: bool,
    pub(super) part: Part,
    group: Option<&'a Group>,
    wanted: &'a [&'a str],
    found: Vec<Option<Tensor>>,
    ends: bool,
    rows: Option<Vec<LayerRow>>,
}

impl<'a> Pass<'a> {
    pub(super) fn new(mode: Mode, runtime: Runtime, group: Option<&'a Group>) -> Self {
        Self {
            mode,
            precision: runtime.precision,
            fused: runtime.fused,
            part: Part::Shared,
            group,
            wanted: &[],
            found: Vec::new(),
            ends: false,
            rows: None,
        }
    }

    /// Keeps the outputs of the named layers and blocks.
    pub(super) fn keeping(mut self, wanted: &'a [&'a str]) -> Self {
        self.found = wanted.iter().map(|_| None).collect();
        self.wanted = wanted;
        self
    }

    /// Ends with the last of the outputs that are kept.
    pub(super) fn no_further(mut self) -> Self {
        self.ends = true;
        self
    }

    /// Counts work.
    pub(super) fn counting(mut self) -> Self {
        self.rows = Some(Vec::new());
        self
    }

    /// Whether the batch normalisation with this number uses batch statistics.
    pub(super) fn trains_norm(&self, index: usize) -> bool {
        self.mode.train && !(self.part == Part::Shared && index < self.mode.frozen_norms)
    }

    /// Those who have shares of the batch, if it is shared.
    pub(super) fn sharing(&self) -> Option<&'a Group> {
        self.group.filter(|_| self.mode.share.is_some())
    }

    /// Whether layers may add gradients up by themselves: nobody else waits to hear of them.
    pub(super) fn adds(&self) -> bool {
        self.fused && self.mode.train && self.group.is_none()
    }

    /// A weight, ready to be multiplied by.
    pub(super) fn weight(&self, weight: &Tensor) -> Result<Tensor, ModelError> {
        Ok(self.precision.weight(weight, self.adds())?)
    }

    /// `x` with random zeros, and the rest scaled so that the mean stays. Of a share of a batch, what the whole batch
    /// would have there: torch draws in the order of memory.
    pub(super) fn dropout(&self, x: &Tensor, rate: f64) -> Result<Tensor, ModelError> {
        let Some(share) = self.mode.share.filter(|_| self.mode.train && rate > 0.0) else {
            return Ok(x.f_dropout(rate, self.mode.train)?);
        };
        let mut shape = x.size();
        shape[0] = share.images();
        let innermost = shape.len() == 4 && shape[1] > 1 && x.stride()[1] == 1;
        if innermost {
            let channels = shape.remove(1);
            shape.push(channels);
        }
        let whole = Tensor::f_empty(&shape, (x.kind(), x.device()))?;
        let whole = if innermost { whole.permute([0, 3, 1, 2]) } else { whole };
        // Drawn by what draws for one process: on a GPU, other functions share random numbers out in other ways.
        let (_, kept) = tch::no_grad(|| whole.f_native_dropout(rate, true))?;
        Ok(x.f_mul(&share.of(&kept))?.f_mul_scalar(1.0 / (1.0 - rate))?)
    }

    /// Called with the output of every layer and block.
    pub(super) fn seen(&mut self, path: &str, output: &Tensor) {
        for (wanted, found) in self.wanted.iter().zip(&mut self.found) {
            if is_called(path, wanted) {
                *found = Some(output.shallow_clone());
            }
        }
    }

    /// Whether nobody looks at what the layer at `path` gives.
    pub(super) fn passes_over(&self, path: &str) -> bool {
        self.rows.is_none() && !self.wanted.iter().any(|wanted| is_called(path, wanted))
    }

    /// Whether everything that was asked for is found, and nothing else is wanted of the pass.
    pub(super) fn has_all(&self) -> bool {
        self.ends && self.found.iter().all(Option::is_some)
    }

    /// The outputs asked for, in the order asked for; none where nothing had that name.
    pub(super) fn found(self) -> Vec<Option<Tensor>> {
        self.found
    }

    /// The rows counted.
    pub(super) fn rows(self) -> Vec<LayerRow> {
        self.rows.unwrap_or_default()
    }

    /// Counts a layer with the given output.
    pub(super) fn count(&mut self, layer: &Layer, output: &Tensor) {
        let Some(rows) = &mut self.rows else { return };
        let size = output.size();
        let positions: i64 = size.iter().skip(2).product();
        let of = |t: &Tensor| t.numel() as u64;
        let macs = match &layer.op {
            // A single channel stands for three equal ones, and counts as them.
            Op::Conv { weight, .. } => of(weight) * positions as u64,
            Op::Linear { weight, .. } => of(weight),
            Op::Squeeze(layers) => layers.iter().map(|(weight, _)| of(weight)).sum(),
            _ => 0,
        };
        let (n, width) = (of(output), output.kind().elt_size_in_bytes() as u64);
        let activation_bytes = match &layer.op {
            Op::Flatten | Op::AvgPool7 => 0,
            // Positions of the maxima are 8 bytes; the mask of a dropout has the width of its map.
            Op::MaxPool | Op::GlobalMax => n * (width + 8),
            Op::Dropout(_) => n * 2 * width,
            _ => n * width,
        };
        // Rectification remembers its output; what comes before it is then forgotten.
        if let (Op::Relu, Some(before)) = (&layer.op, rows.last_mut()) {
            before.activation_bytes = 0;
        }
        rows.push(LayerRow {
            name: layer.path.clone(),
            part: self.part,
            output: size[1..].to_vec(),
            parameters: layer.weights().into_iter().map(of).sum(),
            macs,
            activation_bytes,
        });
    }
}

/// The beginning of a path may be left out.
fn is_called(path: &str, name: &str) -> bool {
    path.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}
