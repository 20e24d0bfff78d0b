//! The classification head: three layers with dropout between, as 1 x 1 convolutions with a spatial
//! maximum at the end ("conv"), or as linear layers on the flattened map ("dense").

use super::layer::{Block, Builder, Layer, Op};
use super::params::{constant, normal};
use super::{HeadKind, ModelSettings};

/// Values that the head's first layer reads at each of its positions, from a map of extent `[C, H, W]`.
pub(super) fn inputs(settings: &ModelSettings, extent: [i64; 3]) -> i64 {
    let side = |n: i64| if settings.avg_pool { 7 } else { n };
    match settings.classification_readout_type {
        HeadKind::Conv => extent[0],
        HeadKind::Dense => extent[0].saturating_mul(side(extent[1])).saturating_mul(side(extent[2])),
    }
}

/// Head on a map of extent `[C, H, W]`. Convolutions start from N(0, 2 / fan out), linear layers from
/// N(0, 0.01^2); biases are 0. Its children are numbered as the reference's.
pub(super) fn classifier(
    builder: &mut Builder<'_>,
    path: &str,
    settings: &ModelSettings,
    extent: [i64; 3],
    classes: i64,
) -> Block {
    let widths = [inputs(settings, extent), settings.hidden, settings.hidden, classes];
    let mut layers = Vec::new();
    if settings.avg_pool {
        layers.push(Layer { path: "avgpool".to_owned(), index: 0, op: Op::AvgPool7 });
    }
    let dense = settings.classification_readout_type == HeadKind::Dense;
    if dense {
        layers.push(Layer { path: "flatten".to_owned(), index: 0, op: Op::Flatten });
    }
    let mut push = |index: usize, op: Op| layers.push(Layer { path: format!("{path}.{index}"), index, op });
    for i in 0..3 {
        let (from, to) = (widths[i], widths[i + 1]);
        let name = format!("{path}.{}", 3 * i);
        let op = if dense {
            let (weight, bias) = builder.linear(&name, &normal(&[to, from], 0.01), &constant(&[to], 0.0));
            Op::Linear { weight, bias }
        } else {
            let weight = normal(&[to, from, 1, 1], (2.0 / to as f64).sqrt());
            builder.conv(&name, &weight, true, 0, 1, 1)
        };
        push(3 * i, op);
        if i < 2 {
            push(3 * i + 1, Op::Relu);
            push(3 * i + 2, Op::Dropout(settings.dropout));
        }
    }
    if !dense {
        push(7, Op::GlobalMax);
        push(8, Op::Flatten);
    }
    Block { path: path.to_owned(), layers }
}
