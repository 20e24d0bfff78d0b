//! The data-driven core: a stack of convolutions with squeeze-and-excitation blocks (Hu et al., 2018), as
//! nnvision's `SE2dCore`, and the smoothness penalty on its first kernel.

use super::ModelError;
use super::layer::{Block, Builder, Layer, Op};
use super::params::normal;
use super::pass::Pass;
use super::se_settings::{InputRegularizer, SeSettings};
use tch::{Device, Kind, Tensor};

/// The core of an SE network.
#[derive(Debug)]
pub(super) struct SeCore {
    /// One block a layer, named `core.features.layer<l>`.
    pub(super) layers: Vec<Block>,
    /// Layers whose outputs are shown to the readouts, side by side.
    stack: Vec<usize>,
    /// `[1, 1, 3, 3]`
    laplace: Tensor,
    regularizer: InputRegularizer,
    laplace_padding: i64,
    gamma: f64,
}

/// Xavier's initialisation (Glorot and Bengio 2010) of a kernel `[out, in / groups, k, k]`.
fn xavier(shape: [i64; 4]) -> Tensor {
    let area = shape[2] * shape[3];
    normal(&shape, (2.0 / ((shape[0] + shape[1]) * area) as f64).sqrt())
}

impl SeCore {
    /// A core for images of so many channels.
    pub(super) fn new(builder: &mut Builder<'_>, settings: &SeSettings, channels: i64) -> Self {
        let filter = [0f32, -1.0, 0.0, -1.0, 4.0, -1.0, 0.0, -1.0, 0.0];
        let filter = Tensor::from_slice(&filter).view([1, 1, 3, 3]);
        let name = "core._input_weights_regularizer.laplace.filter".to_owned();
        let laplace = builder.params.buffer(name, &filter);
        let layers = (0..settings.layers).map(|l| layer(builder, settings, channels, l)).collect();
        Self {
            layers,
            stack: settings.stacked(),
            laplace,
            regularizer: settings.input_regularizer,
            laplace_padding: settings.padding_of_laplace(),
            gamma: settings.gamma_input,
        }
    }

    /// Images to the map `[batch, stacked channels, height, width]`.
    pub(super) fn forward(&self, images: &Tensor, pass: &mut Pass<'_>) -> Result<Tensor, ModelError> {
        let mut outputs: Vec<Tensor> = Vec::new();
        for layer in &self.layers {
            let y = layer.forward(outputs.last().unwrap_or(images), pass)?;
            outputs.push(y);
        }
        let shown: Vec<&Tensor> = self.stack.iter().map(|&l| &outputs[l]).collect();
        let map = if shown.len() == 1 { shown[0].shallow_clone() } else { Tensor::f_cat(&shown, 1)? };
        pass.seen("core.features", &map);
        Ok(map)
    }

    /// gamma times the penalty on the first kernel's roughness.
    pub(super) fn penalty(&self) -> Tensor {
        self.roughness() * self.gamma
    }

    /// The penalty without its weight.
    pub(super) fn roughness(&self) -> Tensor {
        let Some(kernel) = self.layers[0].layers[0].weights().first().map(|w| w.shallow_clone()) else {
            return Tensor::zeros([], (Kind::Float, Device::Cpu));
        };
        let [out, channels, height, width] = [0, 1, 2, 3].map(|axis| kernel.size()[axis]);
        let images = kernel.reshape([out * channels, 1, height, width]);
        let padding = [self.laplace_padding; 2];
        let rough = images.conv2d(&self.laplace, None::<&Tensor>, [1, 1], padding, [1, 1], 1);
        let squares = |t: &Tensor| t.square().sum(t.kind());
        match self.regularizer {
            InputRegularizer::LaplaceL2norm => squares(&rough) / squares(&images),
            InputRegularizer::LaplaceL2 => squares(&rough) * 0.5,
            InputRegularizer::LaplaceL1 => rough.abs().sum(rough.kind()),
            InputRegularizer::GaussianLaplaceL2 => {
                let [height, width] = [2, 3].map(|axis| rough.size()[axis]);
                let outside = 1.0 - bump(height, width, kernel.device());
                squares(&(rough * outside)) / squares(&images)
            }
        }
    }
}

/// A Gaussian bump `[1, 1, height, width]` from 0 at the farthest corner to 1 at the middle.
fn bump(height: i64, width: i64, device: Device) -> Tensor {
    let sigma = height.min(width) as f64 / 4.0;
    let axis = |n: i64| {
        let middle = (n - 1) as f64 / 2.0;
        ((Tensor::arange(n, (Kind::Float, device)) - middle) / sigma).square()
    };
    let bump = ((axis(height).view([1, 1, -1, 1]) + axis(width).view([1, 1, 1, -1])) * -0.5).exp();
    let bump = &bump - bump.min();
    &bump / bump.max().clamp_min(f64::from(f32::MIN_POSITIVE))
}

/// Layer number `l`: convolution, normalisation, nonlinearity, squeeze and excitation.
fn layer(builder: &mut Builder<'_>, settings: &SeSettings, channels: i64, l: usize) -> Block {
    let path = format!("core.features.layer{l}");
    let n = settings.hidden_channels;
    let mut layers = Vec::new();
    let mut push = |name: &str, op: Op| {
        layers.push(Layer { path: format!("{path}.{name}"), index: l, op });
    };
    if l == 0 {
        let kernel = settings.input_kern;
        let padding = if settings.pad_input { kernel / 2 } else { 0 };
        let weight = xavier([n, channels, kernel, kernel]);
        push("conv", builder.conv(&format!("{path}.conv"), &weight, false, padding, 1, 1));
    } else {
        let (kernel, dilation) = (settings.hidden_kern.of_layer(l), settings.dilation());
        let padding = ((kernel - 1) * dilation + 1) / 2;
        if settings.depth_separable {
            for (name, shape, padding, dilation, groups) in [
                ("ds_conv.in_depth_conv", [n, n, 1, 1], 0, 1, 1),
                ("ds_conv.spatial_conv", [n, 1, kernel, kernel], padding, dilation, n),
                ("ds_conv.out_depth_conv", [n, n, 1, 1], 0, 1, 1),
            ] {
                let name_of = format!("{path}.{name}");
                push(name, builder.conv(&name_of, &xavier(shape), false, padding, dilation, groups));
            }
        } else {
            let weight = xavier([n, n, kernel, kernel]);
            push("conv", builder.conv(&format!("{path}.conv"), &weight, false, padding, dilation, 1));
        }
    }
    if settings.batch_norm {
        push("norm", builder.norm(&format!("{path}.norm"), n, settings.momentum));
    }
    if !settings.linear && (l + 1 < settings.layers || settings.final_nonlinearity) {
        push("nonlin", Op::Elu);
    }
    if l > 0 && settings.layers - l <= settings.n_se_blocks {
        push(
            "seg_ex_block",
            squeeze(builder, &format!("{path}.seg_ex_block.se"), n, n / settings.reduction()),
        );
    }
    Block { path, layers }
}

/// Linear layers from U(-b, b), b = 1 / sqrt(fan in).
fn squeeze(builder: &mut Builder<'_>, path: &str, channels: i64, width: i64) -> Op {
    let mut linear = |i: usize, from: i64, to: i64| {
        let bound = 1.0 / (from as f64).sqrt();
        let uniform = |shape: &[i64]| (Tensor::rand(shape, (Kind::Float, Device::Cpu)) * 2.0 - 1.0) * bound;
        let (weight, bias) = (uniform(&[to, from]), uniform(&[to]));
        builder.linear(&format!("{path}.{i}"), &weight, &bias)
    };
    Op::Squeeze([linear(1, channels, width), linear(3, width, channels)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{HiddenKernels, Params, Runtime, Stack};

    /// Roughness of two kernels that are 2 in the middle and 0 elsewhere.
    fn roughness(regularizer: InputRegularizer, laplace_padding: Option<i64>) -> f64 {
        let settings = SeSettings {
            hidden_channels: 2,
            input_kern: 3,
            layers: 1,
            se_reduction: Some(1),
            input_regularizer: regularizer,
            laplace_padding,
            gamma_input: 10.0,
            ..SeSettings::default()
        };
        let mut params = Params::new(Device::Cpu, Kind::Float);
        let builder = &mut Builder { params: &mut params, runtime: Runtime::default() };
        let core = SeCore::new(builder, &settings, 1);
        let weight = core.layers[0].layers[0].weights()[0].shallow_clone();
        tch::no_grad(|| {
            let _ = weight.shallow_clone().zero_();
            let _ = weight.narrow(2, 1, 1).narrow(3, 1, 1).fill_(2.0);
        });
        let found = core.roughness().double_value(&[]);
        assert!((core.penalty().double_value(&[]) - 10.0 * found).abs() < 1e-4);
        found
    }

    /// Filtered with padding 1, such a kernel is 8 in the middle and -2 at the four edges; without, it is the 8.
    #[test]
    fn penalties_equal_those_computed_by_hand() {
        use InputRegularizer::{GaussianLaplaceL2, LaplaceL1, LaplaceL2, LaplaceL2norm};
        // The bump is 1 in the middle; at an edge it is
        // (exp(-1 / 1.125) - exp(-2 / 1.125)) / (1 - exp(-2 / 1.125)), which leaves four edges of
        let (edge, corner) = ((-1f64 / 1.125).exp(), (-2f64 / 1.125).exp());
        let left = 2.0 * (1.0 - (edge - corner) / (1.0 - corner));
        for (regularizer, padding, expected) in [
            (LaplaceL2norm, None, (64.0 + 4.0 * 4.0) / 4.0),
            (LaplaceL2norm, Some(0), 64.0 / 4.0),
            (LaplaceL2, None, 64.0 + 4.0 * 4.0),
            (LaplaceL1, None, 2.0 * 8.0),
            (LaplaceL1, Some(1), 2.0 * (8.0 + 4.0 * 2.0)),
            (GaussianLaplaceL2, None, 4.0 * left * left / 4.0),
            (GaussianLaplaceL2, Some(0), 64.0 / 4.0),
        ] {
            let found = roughness(regularizer, padding);
            assert!((found - expected).abs() < 1e-4, "{regularizer:?} {padding:?}: {found}, not {expected}");
        }
    }

    #[test]
    fn layers_may_have_kernels_of_their_own() {
        let settings = |sides: &[i64]| SeSettings {
            hidden_channels: 2,
            input_kern: 3,
            se_reduction: Some(1),
            depth_separable: false,
            hidden_kern: HiddenKernels::Each(sides.to_vec()),
            hidden_dilation: Some(1),
            stack: Stack::From(-1),
            ..SeSettings::default()
        };
        let mut params = Params::new(Device::Cpu, Kind::Float);
        let runtime = Runtime::default();
        let core = SeCore::new(&mut Builder { params: &mut params, runtime }, &settings(&[5, 2]), 1);
        let sides: Vec<i64> =
            core.layers.iter().map(|layer| layer.layers[0].weights()[0].size()[3]).collect();
        assert_eq!(sides, [3, 5, 2]);
        // The first layer is valid, the odd kernel keeps the extent, and the even one adds one.
        assert_eq!(settings(&[5, 2]).extent(20, 16), [2, 19, 15]);
        assert!(settings(&[5, 2]).check(20, 16).is_ok());
        assert!(settings(&[5]).check(20, 16).unwrap_err().contains("1 sides, and there are 2 layers"));
        assert!(settings(&[5, 0]).check(20, 16).unwrap_err().contains("hidden_kern = 0"));
    }
}
