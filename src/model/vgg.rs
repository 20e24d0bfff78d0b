//! VGG plans and blocks (Simonyan and Zisserman 2014; layer numbers as in torchvision's `features`).

use super::layer::{Block, Builder, Layer, Op};
use super::params::normal;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Channels of the convolutions, `M` for a pooling, and whether batch normalisation follows each convolution.
///
/// As text either one of the eight names `vgg11` to `vgg19_bn`, or a plan of one's own such as
/// `bn 16 M 32 M 64 64 M`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct VggPlan {
    text: String,
    batch_norm: bool,
    steps: Vec<Option<i64>>,
}

const NAMED: [(&str, &str); 4] = [
    ("vgg11", "64 M 128 M 256 256 M 512 512 M 512 512 M"),
    ("vgg13", "64 64 M 128 128 M 256 256 M 512 512 M 512 512 M"),
    ("vgg16", "64 64 M 128 128 M 256 256 256 M 512 512 512 M 512 512 512 M"),
    ("vgg19", "64 64 M 128 128 M 256 256 256 256 M 512 512 512 512 M 512 512 512 512 M"),
];

impl FromStr for VggPlan {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, named_bn) = text.strip_suffix("_bn").map_or((text, false), |name| (name, true));
        let named = NAMED.iter().find(|(n, _)| *n == name).map(|(_, plan)| *plan);
        let (plan, batch_norm) = match (named, text.strip_prefix("bn ")) {
            (Some(plan), _) => (plan, named_bn),
            (None, Some(plan)) => (plan, true),
            (None, None) => (text, false),
        };
        let step = |word: &str| match word {
            "M" => Some(None),
            number => number.parse().ok().filter(|n| (1..=65_536).contains(n)).map(Some),
        };
        let steps: Option<Vec<Option<i64>>> = plan.split_whitespace().map(step).collect();
        match steps {
            Some(steps) if steps.first().is_some_and(Option::is_some) => {
                Ok(Self { text: text.to_owned(), batch_norm, steps })
            }
            _ => Err(format!(
                "network {text:?}: expected vgg11, vgg13, vgg16 or vgg19, with _bn for batch normalisation, or a plan such as \"bn 16 M 32 M 64 M\""
            )),
        }
    }
}

impl TryFrom<String> for VggPlan {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<VggPlan> for String {
    fn from(plan: VggPlan) -> Self {
        plan.text
    }
}

impl fmt::Display for VggPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

/// One child of torchvision's `features`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerSpec {
    /// 3 x 3 convolution with padding 1 and bias, from and to so many channels.
    Conv(i64, i64),
    /// Batch normalisation.
    BatchNorm(i64),
    /// Rectification.
    Relu,
    /// 2 x 2 maximum, stride 2.
    Pool,
}

impl LayerSpec {
    /// Trainable numbers.
    pub(super) fn n_parameters(self) -> i64 {
        match self {
            Self::Conv(from, to) => (from * 9 + 1) * to,
            Self::BatchNorm(n) => 2 * n,
            Self::Relu | Self::Pool => 0,
        }
    }
}

impl VggPlan {
    /// The layers in order.
    pub fn layers(&self) -> Vec<LayerSpec> {
        let mut layers = Vec::new();
        let mut channels = 3;
        for step in &self.steps {
            let Some(next) = *step else {
                layers.push(LayerSpec::Pool);
                continue;
            };
            layers.push(LayerSpec::Conv(channels, next));
            if self.batch_norm {
                layers.push(LayerSpec::BatchNorm(next));
            }
            layers.push(LayerSpec::Relu);
            channels = next;
        }
        layers
    }

    /// Numbers of layers after which the network may be cut: after a rectification or a pooling.
    pub fn cuts(&self) -> Vec<usize> {
        let layers = self.layers();
        let legal = |&k: &usize| matches!(layers[k - 1], LayerSpec::Relu | LayerSpec::Pool);
        (1..=layers.len()).filter(legal).collect()
    }

    /// Extent `[channels, height, width]` after `n_layers` layers on an image of `height` x `width`.
    pub fn extent(&self, n_layers: usize, height: u32, width: u32) -> [i64; 3] {
        let start = [3, i64::from(height), i64::from(width)];
        self.layers()[..n_layers].iter().fold(start, |[c, h, w], layer| match layer {
            LayerSpec::Conv(_, out) => [*out, h, w],
            LayerSpec::Pool => [c, h / 2, w / 2],
            LayerSpec::BatchNorm(_) | LayerSpec::Relu => [c, h, w],
        })
    }
}

/// The layers `specs`, the first of them number `start` of the VGG, named `<path>.<position>`, with dropout of the given
/// rate after every rectification.
/// Convolutions start from N(0, 2 / fan out), bias 0.
pub(super) fn block(
    builder: &mut Builder<'_>,
    path: &str,
    (start, specs): (usize, &[LayerSpec]),
    dropout: Option<f64>,
) -> Block {
    let mut layers = Vec::new();
    for (index, spec) in (start..).zip(specs) {
        let name = format!("{path}.{}", layers.len());
        let op = match *spec {
            LayerSpec::Conv(from, to) => {
                let weight = normal(&[to, from, 3, 3], (2.0 / (to * 9) as f64).sqrt());
                builder.conv(&name, &weight, true, 1, 1, 1)
            }
            LayerSpec::BatchNorm(n) => builder.norm(&name, n, 0.1),
            LayerSpec::Relu => Op::Relu,
            LayerSpec::Pool => Op::MaxPool,
        };
        layers.push(Layer { path: name, index, op });
        if let (LayerSpec::Relu, Some(rate)) = (spec, dropout) {
            layers.push(Layer { path: format!("{path}.{}", layers.len()), index, op: Op::Dropout(rate) });
        }
    }
    Block { path: path.to_owned(), layers }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layer_counts_and_cuts_equal_torchvision() {
        for (name, n_layers, after_conv3_1) in [
            ("vgg11", 21, 8),
            ("vgg11_bn", 29, 11),
            ("vgg13", 25, 12),
            ("vgg13_bn", 35, 17),
            ("vgg16", 31, 12),
            ("vgg16_bn", 44, 17),
            ("vgg19", 37, 12),
            ("vgg19_bn", 53, 17),
        ] {
            let plan: VggPlan = name.parse().unwrap();
            assert_eq!(plan.layers().len(), n_layers, "{name}");
            assert!(plan.cuts().contains(&after_conv3_1), "{name}");
            assert_eq!(plan.extent(after_conv3_1, 64, 64), [256, 16, 16], "{name}");
        }
        assert_eq!("vgg19_bn".parse::<VggPlan>().unwrap().cuts()[..7], [3, 6, 7, 10, 13, 14, 17]);
    }

    const PLACES: &str =
        "1_1 1_2 pool1 2_1 2_2 pool2 3_1 3_2 3_3 3_4 pool3 4_1 4_2 4_3 4_4 pool4 5_1 5_2 5_3 5_4 pool5";
    /// Layers kept up to each of `PLACES` (spec/models 2.1); - where the network has no such layer.
    const CUTS: [(&str, &str); 8] = [
        ("vgg19_bn", "3 6 7 10 13 14 17 20 23 26 27 30 33 36 39 40 43 46 49 52 53"),
        ("vgg16_bn", "3 6 7 10 13 14 17 20 23 - 24 27 30 33 - 34 37 40 43 - 44"),
        ("vgg13_bn", "3 6 7 10 13 14 17 20 - - 21 24 27 - - 28 31 34 - - 35"),
        ("vgg11_bn", "3 - 4 7 - 8 11 14 - - 15 18 21 - - 22 25 28 - - 29"),
        ("vgg19", "2 4 5 7 9 10 12 14 16 18 19 21 23 25 27 28 30 32 34 36 37"),
        ("vgg16", "2 4 5 7 9 10 12 14 16 - 17 19 21 23 - 24 26 28 30 - 31"),
        ("vgg13", "2 4 5 7 9 10 12 14 - - 15 17 19 - - 20 22 24 - - 25"),
        ("vgg11", "2 - 3 5 - 6 8 10 - - 11 13 15 - - 16 18 20 - - 21"),
    ];

    #[test]
    fn every_named_cut_is_legal_and_has_the_extent_of_its_place() {
        for (name, row) in CUTS {
            let plan: VggPlan = name.parse().unwrap();
            assert_eq!(row.split(' ').count(), PLACES.split(' ').count());
            let mut named = Vec::new();
            for (place, cut) in PLACES.split(' ').zip(row.split(' ')).filter(|(_, cut)| *cut != "-") {
                let cut: usize = cut.parse().unwrap();
                let (of_pool, place) = match place.strip_prefix("pool") {
                    Some(block) => (true, block),
                    None => (false, &place[..1]),
                };
                let block: u32 = place.parse().unwrap();
                let channels = [64, 128, 256, 512, 512][block as usize - 1];
                let side = 64 >> (block - u32::from(!of_pool));
                assert_eq!(plan.extent(cut, 64, 64), [channels, side, side], "{name} {place} {cut}");
                let last = if of_pool { LayerSpec::Pool } else { LayerSpec::Relu };
                assert_eq!(plan.layers()[cut - 1], last, "{name} {place} {cut}");
                named.push(cut);
            }
            assert_eq!(plan.cuts(), named, "{name}");
        }
    }

    #[test]
    fn plans_of_ones_own_are_read_and_nonsense_is_not() {
        let plan: VggPlan = "bn 16 M 32 M".parse().unwrap();
        assert_eq!((plan.layers().len(), plan.cuts()), (8, vec![3, 4, 7, 8]));
        for bad in ["", "vgg12", "M 16", "16 x", "0 M", "bn"] {
            assert!(bad.parse::<VggPlan>().is_err(), "{bad:?}");
        }
    }
}
