//! Layers with their weights, and chains of them.

use super::params::{Params, constant};
use super::pass::Pass;
use super::precision::{Precision, to_channels_last};
use super::{ModelError, Runtime, Share};
use crate::torch_ext::{self, NormRelu};
use tch::{Device, Kind, Tensor};

/// What a layer computes.
#[derive(Debug)]
pub(super) enum Op {
    /// Convolution, stride 1.
    Conv {
        weight: Tensor,
        bias: Option<Tensor>,
        padding: i64,
        dilation: i64,
        groups: i64,
        /// Kernel and bias with the normalisation that follows, once the network was folded.
        folded: Option<[Tensor; 2]>,
    },
    /// Matrix product.
    Linear { weight: Tensor, bias: Tensor },
    /// Batch normalisation.
    Norm(BatchNorm),
    /// Rectification. Never in place: a readout may look at the map before it.
    Relu,
    /// Exponential linear unit.
    Elu,
    /// 2 x 2 maximum, stride 2.
    MaxPool,
    /// Maximum over the map.
    GlobalMax,
    /// Mean over the cells of a 7 x 7 grid.
    AvgPool7,
    /// To `[batch, values]`.
    Flatten,
    /// Random zeros with this probability, in training.
    Dropout(f64),
    /// Squeeze and excitation: channels scaled by a function of their means.
    Squeeze([(Tensor, Tensor); 2]),
}

/// What batch normalisation adds to variances.
const EPSILON: f64 = 1e-5;

/// Batch normalisation with running statistics.
#[derive(Debug)]
pub(super) struct BatchNorm {
    pub(super) weight: Tensor,
    pub(super) bias: Tensor,
    pub(super) mean: Tensor,
    pub(super) variance: Tensor,
    pub(super) batches: Tensor,
    momentum: f64,
}

/// One layer.
#[derive(Debug)]
pub(super) struct Layer {
    /// Its dotted name, the prefix of its weights' names.
    pub(super) path: String,
    /// Its number among the `features` of an uncut VGG without dropout; in other networks, among its block's children.
    pub(super) index: usize,
    pub(super) op: Op,
}

/// Makes layers and registers their weights.
#[derive(Debug)]
pub(super) struct Builder<'a> {
    pub(super) params: &'a mut Params,
    pub(super) runtime: Runtime,
}

impl Builder<'_> {
    /// A convolution with the initial kernel `weight`; its bias, if it has one, starts at 0.
    pub(super) fn conv(
        &mut self,
        path: &str,
        weight: &Tensor,
        bias: bool,
        padding: i64,
        dilation: i64,
        groups: i64,
    ) -> Op {
        let n = weight.size()[0];
        let weight = self.params.parameter(format!("{path}.weight"), weight);
        if self.runtime.channels_last {
            to_channels_last(&weight);
        }
        let bias = bias.then(|| self.params.parameter(format!("{path}.bias"), &constant(&[n], 0.0)));
        Op::Conv { weight, bias, padding, dilation, groups, folded: None }
    }

    /// Weight and bias of a linear layer.
    pub(super) fn linear(&mut self, path: &str, weight: &Tensor, bias: &Tensor) -> (Tensor, Tensor) {
        let weight = self.params.parameter(format!("{path}.weight"), weight);
        (weight, self.params.parameter(format!("{path}.bias"), bias))
    }

    /// Batch normalisation of `n` channels: weight 1, bias 0, running statistics 0 and 1.
    pub(super) fn norm(&mut self, path: &str, n: i64, momentum: f64) -> Op {
        let name = |leaf: &str| format!("{path}.{leaf}");
        Op::Norm(BatchNorm {
            weight: self.params.parameter(name("weight"), &constant(&[n], 1.0)),
            bias: self.params.parameter(name("bias"), &constant(&[n], 0.0)),
            mean: self.params.buffer(name("running_mean"), &constant(&[n], 0.0)),
            variance: self.params.buffer(name("running_var"), &constant(&[n], 1.0)),
            batches: self
                .params
                .buffer(name("num_batches_tracked"), &Tensor::zeros([], (Kind::Int64, Device::Cpu))),
            momentum,
        })
    }
}

impl Layer {
    /// `x` through the layer.
    pub(super) fn forward(&self, x: &Tensor, pass: &mut Pass<'_>) -> Result<Tensor, ModelError> {
        let y = match &self.op {
            Op::Conv { weight, bias, padding, dilation, groups, .. } => {
                convolve(x, (weight, bias.as_ref()), [*padding, *dilation, *groups], pass)?
            }
            Op::Linear { weight, bias } => linear(x, weight, bias, pass)?,
            Op::Norm(norm) => norm.forward(x, pass, self)?,
            Op::Relu => x.f_relu()?,
            Op::Elu => x.f_elu()?,
            Op::MaxPool => x.f_max_pool2d([2, 2], [2, 2], [0, 0], [1, 1], false)?,
            Op::GlobalMax => x.f_adaptive_max_pool2d([1, 1])?.0,
            // The same values. Strides of one pixel say nothing of channels, so that torch would take it for a map with
            // channels outermost, whose 49 gradients a GPU adds up in any order.
            Op::AvgPool7 if x.size()[2..] == [1, 1] => x.f_expand([-1, -1, 7, 7], false)?,
            Op::AvgPool7 => x.f_adaptive_avg_pool2d([7, 7])?,
            Op::Flatten => x.f_flatten(1, -1)?,
            Op::Dropout(rate) => pass.dropout(x, *rate)?,
            Op::Squeeze([(w1, b1), (w2, b2)]) => {
                let means = x.f_mean_dim([2i64, 3].as_slice(), false, x.kind())?;
                let scale = linear(&linear(&means, w1, b1, pass)?.f_relu()?, w2, b2, pass)?;
                x.f_mul(&scale.f_sigmoid()?.unsqueeze(-1).unsqueeze(-1))?
            }
        };
        pass.seen(&self.path, &y);
        pass.count(self, &y);
        Ok(y)
    }

    /// What this layer and the first of `rest` make of `x` together, and how many of `rest` these are, where they can
    /// share work and nobody looks between them.
    ///
    /// A convolution and a normalisation: in evaluation, both are one convolution if the network was folded. In training,
    /// what a bias adds the statistics of the batch take away again: it moves the running mean and has no gradient. In
    /// bfloat16 it is left out, which saves three passes through the map; in 32 bits the reference's rounding is kept.
    /// Normalisations: see [`BatchNorm::rectified`].
    fn forward_with(
        &self,
        rest: &[Layer],
        x: &Tensor,
        pass: &mut Pass<'_>,
    ) -> Result<Option<(Tensor, usize)>, ModelError> {
        if let Op::Norm(norm) = &self.op {
            return norm.rectified((self, None), None, rest, x, pass);
        }
        let Op::Conv { weight, bias, padding, dilation, groups, folded } = &self.op else { return Ok(None) };
        let [next @ Layer { op: Op::Norm(norm), .. }, rest @ ..] = rest else { return Ok(None) };
        if !pass.passes_over(&self.path) {
            return Ok(None);
        }
        let (geometry, precision) = ([*padding, *dilation, *groups], pass.precision);
        let y = match (folded, bias) {
            (Some([kernel, bias]), _) if !pass.mode.train => {
                convolve(x, (kernel, Some(bias)), geometry, pass)?
            }
            (_, Some(bias)) if precision == Precision::Bf16 && pass.trains_norm(next.index) => {
                if pass.fused && geometry == [1; 3] && x.size()[1] == 1 && x.device().is_cuda() {
                    let (summed, images) = (summed_for(x, weight), precision.operand(x));
                    let kernel = Some(summed.as_ref().unwrap_or(weight));
                    if let Some((y, n)) = norm.rectified((next, Some(bias)), kernel, rest, &images, pass)? {
                        return Ok(Some((y, n + 1)));
                    }
                }
                let x = convolve(x, (weight, None), geometry, pass)?;
                if let Some((y, n)) = norm.rectified((next, Some(bias)), None, rest, &x, pass)? {
                    return Ok(Some((y, n + 1)));
                }
                norm.move_mean(bias)?;
                norm.forward(&x, pass, next)?
            }
            _ => return Ok(None),
        };
        pass.seen(&next.path, &y);
        Ok(Some((y, 1)))
    }

    /// Its trainable weights.
    pub(super) fn weights(&self) -> Vec<&Tensor> {
        match &self.op {
            Op::Conv { weight, bias, .. } => std::iter::once(weight).chain(bias).collect(),
            Op::Linear { weight, bias } => vec![weight, bias],
            Op::Norm(norm) => vec![&norm.weight, &norm.bias],
            Op::Squeeze(layers) => layers.iter().flat_map(|(w, b)| [w, b]).collect(),
            _ => Vec::new(),
        }
    }
}

/// Three equal channels, of which `x` has one, see the sum of the kernel over its inputs: a third of the work.
fn summed_for(x: &Tensor, weight: &Tensor) -> Option<Tensor> {
    (x.size()[1] == 1 && weight.size()[1] == 3).then(|| summed(weight))
}

/// A kernel `[n, 3, height, width]` summed over its inputs, laid out as it is: of one channel, libtorch tells from the
/// kernel's strides whether maps are to have their channels innermost, and would take the strides of a plain sum for no.
fn summed(kernel: &Tensor) -> Tensor {
    let channels_last = kernel.stride()[1] == 1;
    let sum = kernel.sum_dim_intlist([1i64].as_slice(), !channels_last, kernel.kind());
    if channels_last { sum.unsqueeze(-1).permute([0, 3, 1, 2]) } else { sum }
}

/// `x` through a convolution of this kernel and bias, with padding, dilation and groups.
fn convolve(
    x: &Tensor,
    (weight, bias): (&Tensor, Option<&Tensor>),
    [padding, dilation, groups]: [i64; 3],
    pass: &Pass<'_>,
) -> Result<Tensor, ModelError> {
    let (summed, precision) = (summed_for(x, weight), pass.precision);
    let weight = pass.weight(summed.as_ref().unwrap_or(weight))?;
    let bias = bias.map(|b| pass.weight(b)).transpose()?;
    let (mut x, padding, dilation) = (precision.operand(x), [padding; 2], [dilation; 2]);
    if x.size()[1] == 1 && weight.stride()[1] == 1 {
        // Of one channel, the same memory has both layouts. Named by this one, torch does not rearrange the gradients of
        // the first map, the largest there is.
        x = x.squeeze_dim(1).unsqueeze(-1).permute([0, 3, 1, 2]);
    }
    Ok(precision.product(&x.f_conv2d(&weight, bias.as_ref(), [1, 1], padding, dilation, groups)?))
}

fn linear(x: &Tensor, weight: &Tensor, bias: &Tensor, pass: &Pass<'_>) -> Result<Tensor, ModelError> {
    let (precision, weight, bias) = (pass.precision, pass.weight(weight)?, pass.weight(bias)?);
    let x = precision.operand(x);
    Ok(precision.product(&x.f_linear(&weight, Some(&bias))?))
}

/// Refuses batches that have no variance.
fn check_variance(x: &Tensor, pass: &Pass<'_>, layer: &Layer) -> Result<(), ModelError> {
    let size = x.size();
    let images = pass.mode.share.map_or(size[0], Share::images);
    if images * size[2..].iter().product::<i64>() == 1 {
        return Err(ModelError::Settings(format!(
            "{}: batch normalisation of one image with a map of 1 x 1 has a single value a channel; use larger batches or data.last_batch = \"drop\"",
            layer.path
        )));
    }
    Ok(())
}

impl BatchNorm {
    /// Kernel and bias of the convolution that does what one with these and the normalisation by running statistics do.
    fn folded(&self, kernel: &Tensor, bias: Option<&Tensor>) -> [Tensor; 2] {
        let scale = &self.weight / (&self.variance + EPSILON).sqrt();
        let shift = bias.map_or_else(|| -&self.mean, |bias| bias - &self.mean);
        [kernel * scale.view([-1, 1, 1, 1]), shift * &scale + &self.bias]
    }

    /// Before statistics of a batch without `bias` are taken in: afterwards the running mean is that with it. The
    /// backward pass wants the mean to stay as the forward pass left it.
    fn move_mean(&self, bias: &Tensor) -> Result<(), ModelError> {
        let share = self.momentum / (1.0 - self.momentum);
        tch::no_grad(|| self.mean.shallow_clone().f_add_(&bias.f_mul_scalar(share)?).map(drop))?;
        Ok(())
    }

    fn forward(&self, x: &Tensor, pass: &Pass<'_>, layer: &Layer) -> Result<Tensor, ModelError> {
        let train = pass.trains_norm(layer.index);
        if train {
            check_variance(x, pass, layer)?;
            tch::no_grad(|| self.batches.shallow_clone().f_add_scalar_(1i64).map(drop))?;
        }
        let Self { weight, bias, mean, variance, .. } = self;
        if let (Some(group), true) = (pass.sharing(), train) {
            return Ok(group.batch_norm(x, weight, bias, mean, variance, self.momentum, EPSILON)?);
        }
        Ok(x.f_batch_norm(
            Some(weight),
            Some(bias),
            Some(mean),
            Some(variance),
            train,
            self.momentum,
            EPSILON,
            true,
        )?)
    }

    /// What this normalisation, the rectification after it, and the pooling that may follow make of `x`, and how many of
    /// `rest` these are: by one kernel that goes through the map where there were several, of a GPU that trains in
    /// bfloat16. Values and gradients are the same up to rounding. Beside its layer stands the bias that the convolution
    /// before has left out. With `kernel`, `x` is gray images that are convolved with it first.
    fn rectified(
        &self,
        (layer, lacking): (&Layer, Option<&Tensor>),
        kernel: Option<&Tensor>,
        rest: &[Layer],
        x: &Tensor,
        pass: &mut Pass<'_>,
    ) -> Result<Option<(Tensor, usize)>, ModelError> {
        let (pooled, last) = match rest {
            [relu @ Layer { op: Op::Relu, .. }, pool @ Layer { op: Op::MaxPool, .. }, ..]
                if pass.passes_over(&relu.path) =>
            {
                (true, pool)
            }
            [relu @ Layer { op: Op::Relu, .. }, ..] => (false, relu),
            _ => return Ok(None),
        };
        if !(pass.fused && pass.trains_norm(layer.index) && pass.passes_over(&layer.path)) {
            return Ok(None);
        }
        check_variance(x, pass, layer)?;
        let running = [&self.mean, &self.variance, &self.batches];
        let how =
            NormRelu { kernel, lacking, momentum: self.momentum, eps: EPSILON, pooled, adds: pass.adds() };
        let y = torch_ext::norm_relu(x, [&self.weight, &self.bias], running, how, pass.sharing())?;
        Ok(y.map(|y| {
            pass.seen(&last.path, &y);
            (y, 1 + usize::from(pooled))
        }))
    }
}

/// Consecutive layers.
#[derive(Debug)]
pub(super) struct Block {
    /// Its dotted name.
    pub(super) path: String,
    pub(super) layers: Vec<Layer>,
}

impl Block {
    /// `x` through all layers.
    pub(super) fn forward(&self, x: &Tensor, pass: &mut Pass<'_>) -> Result<Tensor, ModelError> {
        let mut x = x.shallow_clone();
        let mut layers = self.layers.as_slice();
        while let [layer, rest @ ..] = layers {
            (x, layers) = match layer.forward_with(rest, &x, pass)? {
                Some((y, n)) => (y, &rest[n..]),
                None => (layer.forward(&x, pass)?, rest),
            };
            if pass.has_all() {
                return Ok(x);
            }
        }
        pass.seen(&self.path, &x);
        Ok(x)
    }

    /// Folds normalisations into the convolutions before them; see [`Network::fold`](super::Network::fold).
    pub(super) fn fold(&mut self) {
        for i in 1..self.layers.len() {
            let (before, from) = self.layers.split_at_mut(i);
            if let (Op::Conv { weight, bias, folded, .. }, Op::Norm(norm)) =
                (&mut before[i - 1].op, &from[0].op)
            {
                *folded = Some(tch::no_grad(|| norm.folded(weight, bias.as_ref())));
            }
        }
    }
}
