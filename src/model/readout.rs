//! Readouts: each neuron reads the feature map at its own position. The Gaussian one learns the position
//! with its uncertainty (Lurz et al., "Generalization in data-driven models of primary visual cortex",
//! 2021); the pooled one reads several poolings of the map at a fixed position.

use super::params::{Params, constant};
use super::{Mode, ModelError, Share};
use crate::torch_ext;
use tch::{Device, Kind, TchError, Tensor};

/// How positions are kept and read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Kernel {
    /// Positions from U(-mu, mu), deviations from U(0, sigma).
    Gaussian { mu: f64, sigma: f64 },
    /// Positions from U(-range, range); the map, and so many further poolings of it with kernel and stride.
    Pooled { range: f64, steps: i64, kernel: i64 },
}

/// `map` `[batch, C, height, width]` at `grid` `[batch, n, 1, 2]`: `[batch, C, n]`, of the grid's type. `fused`: on a GPU,
/// by kernels of nct's own.
fn sample(map: &Tensor, grid: &Tensor, fused: bool) -> Result<Tensor, TchError> {
    if map.device().is_cuda() {
        return torch_ext::read(map, &grid.f_squeeze_dim(2)?, fused)?.f_transpose(1, 2);
    }
    map.to_kind(grid.kind()).f_grid_sampler(grid, 0, 0, true)?.f_squeeze_dim(3)
}

/// Readout of one recording session with n neurons on a map of C channels.
#[derive(Debug)]
pub(super) struct Readout {
    /// Dotted name.
    pub(super) path: String,
    kernel: Kernel,
    /// `[1, n, 1, 2]`: position (x, y), each from -1 to 1.
    position: Tensor,
    /// `[1, n, 1, 2]`: standard deviation along each axis.
    sigma: Option<Tensor>,
    /// `[1, C, 1, n]`, or `[1, C (steps + 1), 1, n]`: weights of the channels.
    features: Tensor,
    /// `[n]`
    bias: Option<Tensor>,
    /// Weight of the penalty.
    gamma: f64,
}

impl Readout {
    /// Weights start at 1 / C, the bias, if there is one, at the mean responses.
    pub(super) fn new(
        params: &mut Params,
        path: &str,
        kernel: Kernel,
        gamma: f64,
        bias: bool,
        channels: i64,
        first_bias: &[f32],
    ) -> Self {
        let n = first_bias.len() as i64;
        let uniform = || Tensor::rand([1, n, 1, 2], (Kind::Float, Device::Cpu));
        let symmetric = |range: f64| (uniform() * 2.0 - 1.0) * range;
        let name = |leaf: &str| format!("{path}.{leaf}");
        let (position, sigma, maps) = match kernel {
            Kernel::Gaussian { mu, sigma } => {
                let mu = params.parameter(name("mu"), &symmetric(mu));
                (mu, Some(params.parameter(name("sigma"), &(uniform() * sigma))), 1)
            }
            Kernel::Pooled { range, steps, .. } => {
                (params.parameter(name("grid"), &symmetric(range)), None, steps + 1)
            }
        };
        let features = constant(&[1, channels * maps, 1, n], 1.0 / channels as f64);
        Self {
            features: params.parameter(name("features"), &features),
            bias: bias.then(|| params.parameter(name("bias"), &Tensor::from_slice(first_bias))),
            path: path.to_owned(),
            kernel,
            position,
            sigma,
            gamma,
        }
    }

    /// `map` `[batch, C, height, width]` to `[batch, n]`, before the output nonlinearity. Gaussian positions
    /// are drawn for every image in training, and are the means otherwise; of a share of a batch, they are those of the
    /// whole. `fused`: on a GPU, by kernels of nct's own.
    pub(super) fn forward(&self, map: &Tensor, mode: Mode, fused: bool) -> Result<Tensor, ModelError> {
        let kind = self.features.kind();
        let (batch, n) = (map.size()[0], self.n_neurons());
        let grid = match &self.sigma {
            Some(sigma) if mode.train => {
                let whole = mode.share.map_or(batch, Share::images);
                let noise = Tensor::f_randn([whole, n, 1, 2], (kind, map.device()))?;
                let noise = mode.share.map_or_else(|| noise.shallow_clone(), |share| share.of(&noise));
                (noise.f_mul(sigma)?.f_add(&self.position)?).clamp(-1.0, 1.0)
            }
            _ => self.position.clamp(-1.0, 1.0).f_expand([batch, n, 1, 2], false)?,
        };
        let sampled = match self.kernel {
            Kernel::Gaussian { .. } => sample(map, &grid, fused)?,
            Kernel::Pooled { steps, kernel, .. } => {
                let (mut map, mut seen) = (map.to_kind(kind), Vec::new());
                for step in 0..=steps {
                    if step > 0 {
                        map =
                            map.f_avg_pool2d([kernel; 2], [kernel; 2], [0, 0], false, false, None::<i64>)?;
                    }
                    seen.push(sample(&map, &grid, fused)?);
                }
                Tensor::f_cat(&seen, 1)?
            }
        };
        let weighted = sampled.f_mul(&self.features.squeeze_dim(2))?;
        let read = weighted.f_sum_dim_intlist([1i64].as_slice(), false, kind)?;
        match &self.bias {
            Some(bias) => Ok(read.f_add(bias)?),
            None => Ok(read),
        }
    }

    /// Number of neurons.
    pub(super) fn n_neurons(&self) -> i64 {
        self.position.size()[1]
    }

    /// Its weights.
    pub(super) fn weights(&self) -> impl Iterator<Item = &Tensor> {
        [&self.position, &self.features].into_iter().chain(&self.sigma).chain(&self.bias)
    }

    /// Multiplications with addition for one image: four corners of each position, and the weighted sum.
    pub(super) fn macs(&self) -> u64 {
        5 * self.features.numel() as u64
    }

    /// gamma times the sum of the absolute weights of the channels.
    pub(super) fn penalty(&self) -> Tensor {
        self.features.abs().sum(self.features.kind()) * self.gamma
    }

    /// Puts positions back into [-1, 1] and deviations above 0, as must be done after every update; of all at once, since
    /// each call costs a GPU as much as many readouts do.
    pub(super) fn clamp<'a>(all: impl Iterator<Item = &'a Self> + Clone) -> Result<(), ModelError> {
        let positions: Vec<Tensor> = all.clone().map(|readout| readout.position.shallow_clone()).collect();
        let sigmas: Vec<Tensor> =
            all.filter_map(|readout| Some(readout.sigma.as_ref()?.shallow_clone())).collect();
        let clamped = tch::no_grad(|| {
            torch_ext::clamp(&positions, -1.0, 1.0)?;
            torch_ext::clamp(&sigmas, 0.0, f64::INFINITY)
        });
        clamped.map_err(|what| TchError::Torch(what).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn readout(kernel: Kernel) -> (Params, Readout) {
        let mut params = Params::new(Device::Cpu, Kind::Float);
        let readout = Readout::new(&mut params, "r", kernel, 0.5, true, 4, &[1.0, 2.0, 3.0]);
        (params, readout)
    }

    const GAUSSIAN: Kernel = Kernel::Gaussian { mu: 0.3, sigma: 0.6 };
    const POOLED: Kernel = Kernel::Pooled { range: 0.2, steps: 2, kernel: 2 };

    #[test]
    fn positions_and_deviations_return_into_their_bounds() {
        let (_params, readout) = readout(GAUSSIAN);
        let sigma = readout.sigma.as_ref().unwrap();
        tch::no_grad(|| {
            let _ = readout.position.shallow_clone().fill_(-1.5);
            let values = [-0.2f32, 0.05, 0.0, 0.0, 0.0, 0.0];
            sigma.shallow_clone().copy_(&Tensor::from_slice(&values).view([1, 3, 1, 2]));
        });
        Readout::clamp(std::iter::once(&readout)).unwrap();
        assert_eq!(readout.position.min().double_value(&[]), -1.0);
        assert_eq!((sigma.min().double_value(&[]), sigma.max().double_value(&[])), (0.0, f64::from(0.05f32)));
    }

    #[test]
    fn positions_are_drawn_in_training_and_fixed_otherwise() {
        let (_params, gaussian) = readout(GAUSSIAN);
        let map = Tensor::randn([5, 4, 8, 8], (Kind::Float, Device::Cpu));
        let read = |train| gaussian.forward(&map, Mode { train, ..Mode::EVAL }, true).unwrap();
        assert_eq!(read(false), read(false));
        assert_ne!(read(true), read(true));
        assert_eq!(read(true).size(), [5, 3]);
        // On a map that is the same everywhere the position does not matter: its mean plus the bias, once
        // for each map read.
        let flat = Tensor::ones([1, 4, 8, 8], (Kind::Float, Device::Cpu)) * 2.0;
        for (kernel, maps) in [(GAUSSIAN, 1.0), (POOLED, 3.0)] {
            let (_params, readout) = readout(kernel);
            let found =
                Vec::<f32>::try_from(readout.forward(&flat, Mode::TRAIN, true).unwrap().flatten(0, -1))
                    .unwrap();
            let expected = [1.0, 2.0, 3.0].map(|bias| bias + 2.0 * maps);
            assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5), "{found:?}");
            assert!((readout.penalty().double_value(&[]) - 0.5 * 3.0 * f64::from(maps)).abs() < 1e-5);
        }
    }
}
