//! VGG plans and blocks (Simonyan and Zisserman 2014; layer numbers as in torchvision's `features`).

use super::params::{Params, constant, normal};
use super::pass::Pass;
use super::table::LayerRow;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use tch::{Device, Kind, Tensor};

/// Channels of the convolutions, `M` for a pooling, and whether batch normalisation follows each convolution.
///
/// As text either one of the eight names `vgg11` to `vgg19_bn`, or a plan of one's own such as
/// `bn 16 M 32 M 64 64 M`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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

/// Consecutive layers with their weights.
#[derive(Debug)]
pub(super) struct Block {
    prefix: String,
    layers: Vec<Layer>,
    /// Whether its batch norms may be frozen.
    shared: bool,
}

#[derive(Debug)]
enum Layer {
    Conv { weight: Tensor, bias: Tensor },
    BatchNorm(BatchNorm),
    Relu,
    Pool,
    Dropout(f64),
}

#[derive(Debug)]
pub(super) struct BatchNorm {
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    variance: Tensor,
    batches: Tensor,
}

impl Block {
    /// Makes the layers `specs`, named `<prefix>.<position>`, with dropout of rate `dropout` after each
    /// rectification, which takes a position (spec/models 2.6). Convolutions start from N(0, 2 / fan out), bias 0.
    pub(super) fn new(
        params: &mut Params,
        prefix: &str,
        specs: &[LayerSpec],
        dropout: f64,
        shared: bool,
    ) -> Self {
        let mut layers = Vec::new();
        for spec in specs {
            let name = format!("{prefix}.{}", layers.len());
            layers.push(match *spec {
                LayerSpec::Conv(from, to) => {
                    let std = (2.0 / (to * 9) as f64).sqrt();
                    let weight = params.parameter(format!("{name}.weight"), &normal(&[to, from, 3, 3], std));
                    let bias = params.parameter(format!("{name}.bias"), &constant(&[to], 0.0));
                    Layer::Conv { weight, bias }
                }
                LayerSpec::BatchNorm(n) => Layer::BatchNorm(BatchNorm::new(params, &name, n)),
                LayerSpec::Relu => Layer::Relu,
                LayerSpec::Pool => Layer::Pool,
            });
            if *spec == LayerSpec::Relu && dropout > 0.0 {
                layers.push(Layer::Dropout(dropout));
            }
        }
        Self { prefix: prefix.to_owned(), layers, shared }
    }

    /// `x` `[batch, channels, height, width]` through all layers. One channel counts as three equal ones.
    pub(super) fn forward(&self, x: &Tensor, pass: &mut Pass<'_>) -> Tensor {
        let mut x = x.shallow_clone();
        for (i, layer) in self.layers.iter().enumerate() {
            x = match layer {
                Layer::Conv { weight, bias } => {
                    // Three equal channels see the sum of the kernel over its inputs: a third of the work.
                    let summed = (x.size()[1] == 1 && weight.size()[1] == 3)
                        .then(|| weight.sum_dim_intlist([1i64].as_slice(), true, Kind::Float));
                    let weight = pass.numerics.operand(summed.as_ref().unwrap_or(weight));
                    let bias = pass.numerics.operand(bias);
                    x.conv2d(&weight, Some(&bias), [1, 1], [1, 1], [1, 1], 1)
                }
                Layer::BatchNorm(norm) => {
                    let frozen = self.shared && i < pass.mode.frozen_norms;
                    norm.forward(&x, pass.mode.train && !frozen)
                }
                Layer::Relu => x.relu(),
                Layer::Pool => x.max_pool2d([2, 2], [2, 2], [0, 0], [1, 1], false),
                Layer::Dropout(rate) => x.dropout(*rate, pass.mode.train),
            };
            pass.note(&self.prefix, i, &x);
        }
        x
    }

    /// Number of its layers.
    pub(super) fn len(&self) -> usize {
        self.layers.len()
    }

    /// The prefix of its layers' names.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Rows of its layers on a map of extent `[channels, height, width]`, which becomes that of its output.
    pub(super) fn rows(&self, extent: &mut [i64; 3], rows: &mut Vec<LayerRow>) {
        for (i, layer) in self.layers.iter().enumerate() {
            let ([_, h, w], mut macs) = (*extent, 0);
            let (kind, n_params) = match layer {
                Layer::Conv { weight, bias } => {
                    extent[0] = weight.size()[0];
                    macs = weight.numel() as u64 * (h * w) as u64;
                    ("Conv2d", weight.numel() + bias.numel())
                }
                Layer::BatchNorm(norm) => ("BatchNorm2d", 2 * norm.weight.numel()),
                Layer::Relu => ("ReLU", 0),
                Layer::Pool => {
                    *extent = [extent[0], h / 2, w / 2];
                    ("MaxPool2d", 0)
                }
                Layer::Dropout(_) => ("Dropout", 0),
            };
            let (name, params) = (format!("{}.{i}", self.prefix), n_params as u64);
            rows.push(LayerRow { name, kind, output: *extent, params, macs });
        }
    }
}

impl BatchNorm {
    pub(super) fn new(params: &mut Params, name: &str, n: i64) -> Self {
        Self {
            weight: params.parameter(format!("{name}.weight"), &constant(&[n], 1.0)),
            bias: params.parameter(format!("{name}.bias"), &constant(&[n], 0.0)),
            mean: params.buffer(format!("{name}.running_mean"), &constant(&[n], 0.0)),
            variance: params.buffer(format!("{name}.running_var"), &constant(&[n], 1.0)),
            batches: params.buffer(
                format!("{name}.num_batches_tracked"),
                &Tensor::zeros([], (Kind::Int64, Device::Cpu)),
            ),
        }
    }

    pub(super) fn forward(&self, x: &Tensor, train: bool) -> Tensor {
        if train {
            let _ = tch::no_grad(|| self.batches.shallow_clone().g_add_scalar_(1i64));
        }
        let (mean, variance) = (Some(&self.mean), Some(&self.variance));
        x.batch_norm(Some(&self.weight), Some(&self.bias), mean, variance, train, 0.1, 1e-5, true)
    }
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

    #[test]
    fn plans_of_ones_own_are_read_and_nonsense_is_not() {
        let plan: VggPlan = "bn 16 M 32 M".parse().unwrap();
        assert_eq!((plan.layers().len(), plan.cuts()), (8, vec![3, 4, 7, 8]));
        for bad in ["", "vgg12", "M 16", "16 x", "0 M", "bn"] {
            assert!(bad.parse::<VggPlan>().is_err(), "{bad:?}");
        }
    }
}
