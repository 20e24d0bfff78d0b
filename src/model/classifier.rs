//! The classification head: three layers with dropout between, as 1 x 1 convolutions with a spatial
//! maximum at the end ("conv"), or as linear layers on the flattened map ("dense").

use super::params::{Params, constant, normal};
use super::pass::Pass;
use super::precision::Numerics;
use super::table::LayerRow;
use super::{HeadKind, ModelSettings};
use tch::Tensor;

/// Head on a map of extent `[C, H, W]`.
#[derive(Debug)]
pub(super) struct Classifier {
    prefix: String,
    kind: HeadKind,
    avg_pool: bool,
    dropout: f64,
    /// Weight and bias of the three layers.
    layers: Vec<(Tensor, Tensor)>,
}

impl Classifier {
    /// Convolutions start from N(0, 2 / fan out), linear layers from N(0, 0.01^2); biases are 0.
    pub(super) fn new(
        params: &mut Params,
        prefix: &str,
        settings: &ModelSettings,
        extent: [i64; 3],
        classes: i64,
    ) -> Self {
        let side = |n: i64| if settings.avg_pool { 7 } else { n };
        let inputs = match settings.classification_readout_type {
            HeadKind::Conv => extent[0],
            HeadKind::Dense => extent[0] * side(extent[1]) * side(extent[2]),
        };
        let widths = [inputs, settings.hidden, settings.hidden, classes];
        let mut layer = |i: usize| {
            let (from, to) = (widths[i], widths[i + 1]);
            let weight = match settings.classification_readout_type {
                HeadKind::Conv => normal(&[to, from, 1, 1], (2.0 / to as f64).sqrt()),
                HeadKind::Dense => normal(&[to, from], 0.01),
            };
            let weight = params.parameter(format!("{prefix}.{}.weight", 3 * i), &weight);
            (weight, params.parameter(format!("{prefix}.{}.bias", 3 * i), &constant(&[to], 0.0)))
        };
        let layers = (0..3).map(&mut layer).collect();
        let (kind, avg_pool, dropout) =
            (settings.classification_readout_type, settings.avg_pool, settings.dropout);
        Self { prefix: prefix.to_owned(), kind, avg_pool, dropout, layers }
    }

    /// `map` `[batch, C, H, W]` to logits `[batch, classes]` in single precision.
    pub(super) fn forward(&self, map: &Tensor, pass: &mut Pass<'_>) -> Tensor {
        let map = if self.avg_pool { map.adaptive_avg_pool2d([7, 7]) } else { map.shallow_clone() };
        let mut x = match self.kind {
            HeadKind::Conv => map,
            HeadKind::Dense => map.contiguous().flatten(1, -1),
        };
        for (i, (weight, bias)) in self.layers.iter().enumerate() {
            let (weight, bias) = (pass.numerics.operand(weight), pass.numerics.operand(bias));
            x = match self.kind {
                HeadKind::Conv => x.conv2d(&weight, Some(&bias), [1, 1], [0, 0], [1, 1], 1),
                HeadKind::Dense => x.linear(&weight, Some(&bias)),
            };
            pass.note(&self.prefix, 3 * i, &x);
            if i < 2 {
                x = x.relu();
                pass.note(&self.prefix, 3 * i + 1, &x);
                x = x.dropout(self.dropout, pass.mode.train);
                pass.note(&self.prefix, 3 * i + 2, &x);
            }
        }
        let logits = match self.kind {
            HeadKind::Conv => x.adaptive_max_pool2d([1, 1]).0.contiguous().flatten(1, -1),
            HeadKind::Dense => x,
        };
        Numerics::leave(&logits)
    }

    /// Rows of its layers on a map of the given extent.
    pub(super) fn rows(&self, extent: [i64; 3], rows: &mut Vec<LayerRow>) {
        let positions = match (self.kind, self.avg_pool) {
            (HeadKind::Dense, _) => 1,
            (HeadKind::Conv, true) => 49,
            (HeadKind::Conv, false) => extent[1] * extent[2],
        };
        for (i, (weight, bias)) in self.layers.iter().enumerate() {
            let kind = if self.kind == HeadKind::Conv { "Conv2d" } else { "Linear" };
            let (name, params) = (format!("{}.{}", self.prefix, 3 * i), weight.numel() + bias.numel());
            let macs = weight.numel() as u64 * positions as u64;
            let output = [weight.size()[0], positions, 1];
            rows.push(LayerRow { name, kind, output, params: params as u64, macs });
        }
    }
}
