//! The Gaussian readout: each neuron reads the feature map at one position, learned with its
//! uncertainty (Lurz et al., "Generalization in data-driven models of primary visual cortex", 2021).

use super::ModelSettings;
use super::params::{Params, constant};
use super::precision::Numerics;
use super::table::LayerRow;
use tch::{Device, Kind, Tensor};

/// Readout of one recording session with n neurons on a map of C channels.
#[derive(Debug)]
pub(super) struct GaussianReadout {
    name: String,
    /// `[1, n, 1, 2]`: mean position (x, y), each from -1 to 1.
    mu: Tensor,
    /// `[1, n, 1, 2]`: standard deviation along each axis.
    sigma: Tensor,
    /// `[1, C, 1, n]`: weights of the channels.
    features: Tensor,
    /// `[n]`
    bias: Option<Tensor>,
}

impl GaussianReadout {
    /// Positions from U(-r, r), deviations from U(0, r'), weights 1 / C, bias the mean responses.
    pub(super) fn new(
        params: &mut Params,
        prefix: &str,
        settings: &ModelSettings,
        channels: i64,
        mean_response: &[f32],
    ) -> Self {
        let n = mean_response.len() as i64;
        let uniform = || Tensor::rand([1, n, 1, 2], (Kind::Float, Device::Cpu));
        let mu = (uniform() * 2.0 - 1.0) * settings.v1_init_mu_range;
        let sigma = uniform() * settings.v1_init_sigma_range;
        let features = constant(&[1, channels, 1, n], 1.0 / channels as f64);
        Self {
            name: prefix.to_owned(),
            mu: params.parameter(format!("{prefix}.mu"), &mu),
            sigma: params.parameter(format!("{prefix}.sigma"), &sigma),
            features: params.parameter(format!("{prefix}.features"), &features),
            bias: settings
                .v1_readout_bias
                .then(|| params.parameter(format!("{prefix}.bias"), &Tensor::from_slice(mean_response))),
        }
    }

    /// `map` `[batch, C, height, width]` to `[batch, n]`, before the output nonlinearity. Positions are
    /// drawn for every image in training, and are the means otherwise.
    pub(super) fn forward(&self, map: &Tensor, train: bool) -> Tensor {
        let map = Numerics::leave(map);
        let (batch, n) = (map.size()[0], self.mu.size()[1]);
        let grid = if train {
            let noise = Tensor::randn([batch, n, 1, 2], (Kind::Float, map.device()));
            (noise * &self.sigma + &self.mu).clamp(-1.0, 1.0)
        } else {
            self.mu.clamp(-1.0, 1.0).expand([batch, n, 1, 2], false)
        };
        let sampled = map.grid_sampler(&grid, 0, 0, true).squeeze_dim(3);
        let read =
            (sampled * self.features.squeeze_dim(2)).sum_dim_intlist([1i64].as_slice(), false, Kind::Float);
        match &self.bias {
            Some(bias) => read + bias,
            None => read,
        }
    }

    /// Its row: one neuron reads four values of each channel, and weighs them.
    pub(super) fn row(&self, map: [i64; 3]) -> LayerRow {
        let n = self.mu.size()[1];
        let of = |t: &Tensor| t.numel() as u64;
        let params = of(&self.mu) + of(&self.sigma) + of(&self.features) + self.bias.as_ref().map_or(0, of);
        let macs = (n * map[0] * 5) as u64;
        LayerRow { name: self.name.clone(), kind: "Readout", output: [n, 1, 1], params, macs }
    }

    /// Sum of the absolute weights of the channels.
    pub(super) fn l1(&self) -> Tensor {
        self.features.abs().sum(Kind::Float)
    }

    /// Puts positions back into [-1, 1] and deviations above 0, as must be done after every update.
    pub(super) fn clamp(&self) {
        tch::no_grad(|| {
            let _ = self.mu.shallow_clone().clamp_(-1.0, 1.0);
            let _ = self.sigma.shallow_clone().clamp_min_(0.0);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn readout() -> (Params, GaussianReadout) {
        let mut params = Params::new(Device::Cpu);
        let readout = GaussianReadout::new(&mut params, "r", &ModelSettings::default(), 4, &[1.0, 2.0, 3.0]);
        (params, readout)
    }

    #[test]
    fn positions_and_deviations_return_into_their_bounds() {
        let (_params, readout) = readout();
        tch::no_grad(|| {
            let _ = readout.mu.shallow_clone().fill_(-1.5);
            readout.sigma.shallow_clone().copy_(&Tensor::from_slice(&[-0.2f32, 0.05]).view([1, 1, 1, 2]));
        });
        readout.clamp();
        assert_eq!(readout.mu.min().double_value(&[]), -1.0);
        assert_eq!(
            (readout.sigma.min().double_value(&[]), readout.sigma.max().double_value(&[])),
            (0.0, f64::from(0.05f32))
        );
    }

    #[test]
    fn positions_are_drawn_in_training_and_fixed_otherwise() {
        let (_params, readout) = readout();
        let map = Tensor::randn([5, 4, 8, 8], (Kind::Float, Device::Cpu));
        let read = |train| readout.forward(&map, train);
        assert_eq!(read(false), read(false));
        assert_ne!(read(true), read(true));
        assert_eq!(read(true).size(), [5, 3]);
        // On a map that is the same everywhere the position does not matter: its mean plus the bias.
        let flat = Tensor::ones([1, 4, 8, 8], (Kind::Float, Device::Cpu)) * 2.0;
        let found = Vec::<f32>::try_from(readout.forward(&flat, true).flatten(0, -1)).unwrap();
        assert!(found.iter().zip([3.0, 4.0, 5.0]).all(|(a, b)| (a - b).abs() < 1e-5), "{found:?}");
    }
}
