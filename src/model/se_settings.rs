//! Settings of the SE family, named as nnvision's builders; defaults as in the reference's
//! `NeuralModelConfig`.

use super::readout::Kernel;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Kind of the readouts of an SE network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ReadoutKind {
    /// One fixed position in the map and in poolings of it.
    Point,
    /// A position with uncertainty.
    Gauss,
}

/// Penalty on the first kernel W, whose roughness R is its convolution with the Laplace filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum InputRegularizer {
    /// Sum of R squared over the sum of W squared.
    LaplaceL2norm,
    /// Half the sum of R squared.
    LaplaceL2,
    /// Sum of the magnitudes of R.
    LaplaceL1,
    /// As `LaplaceL2norm`, with R faded out towards the middle of the kernel.
    GaussianLaplaceL2,
}

/// Layers shown to the readouts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Stack {
    /// From this layer on; negative numbers count from the end.
    From(i64),
    /// These layers.
    Layers(Vec<usize>),
}

/// Sides of the kernels beyond the first layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum HiddenKernels {
    /// The same in every layer.
    Same(i64),
    /// One for each layer but the first.
    Each(Vec<i64>),
}

impl HiddenKernels {
    /// That of layer `l`, from 1.
    pub(super) fn of_layer(&self, l: usize) -> i64 {
        match self {
            Self::Same(side) => *side,
            Self::Each(sides) => sides.get(l - 1).copied().unwrap_or(0),
        }
    }

    fn check(&self, layers: usize) -> Result<(), String> {
        if let Self::Each(sides) = self
            && sides.len() + 1 != layers
        {
            let (n, expected) = (sides.len(), layers.saturating_sub(1));
            return Err(format!(
                "se.hidden_kern has {n} sides, and there are {expected} layers beyond the first"
            ));
        }
        match (1..layers).map(|l| self.of_layer(l)).find(|side| !(1..=255).contains(side)) {
            Some(side) => Err(format!("se.hidden_kern = {side} is out of range, 1 to 255")),
            None => Ok(()),
        }
    }
}

/// Settings of an SE network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SeSettings {
    /// `point` or `gauss`.
    pub readout_type: ReadoutKind,
    /// Channels of every layer.
    pub hidden_channels: i64,
    /// Side of the first kernel.
    pub input_kern: i64,
    /// Side of the other kernels: one for all, or a list with one a layer.
    pub hidden_kern: HiddenKernels,
    /// Number of layers.
    pub layers: usize,
    /// Weight of the penalty on the first kernel.
    pub gamma_input: f64,
    /// 0 or 1: each layer reads the one before.
    pub skip: u32,
    /// Nonlinearity after the last layer.
    pub final_nonlinearity: bool,
    /// Weight of the newest batch in running statistics.
    pub momentum: f64,
    /// Pad images by half the first kernel.
    pub pad_input: bool,
    /// Batch normalisation in every layer.
    pub batch_norm: bool,
    /// Dilation of the hidden kernels; 2 with `point` and 1 with `gauss` if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hidden_dilation: Option<i64>,
    /// Zeros around the first kernel in its penalty; 1, and 0 for `LaplaceL1`, if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub laplace_padding: Option<i64>,
    /// Which penalty.
    pub input_regularizer: InputRegularizer,
    /// Layers shown to the readouts.
    pub stack: Stack,
    /// Channels over width of the squeeze; 16 with `point` and 32 with `gauss` if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub se_reduction: Option<i64>,
    /// The last so many layers have a squeeze-and-excitation block; the first layer never.
    pub n_se_blocks: usize,
    /// Hidden kernels as 1 x 1, one kernel a channel, 1 x 1.
    pub depth_separable: bool,
    /// No nonlinearities.
    pub linear: bool,
    /// Whether readouts have a bias; it starts at the mean response.
    pub readout_bias: bool,
    /// Weight of the readouts' L1 penalty.
    pub gamma_readout: f64,
    /// o in elu(x + o) + 1.
    pub elu_offset: f64,
    /// Of `point`: poolings read; 2 if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool_steps: Option<i64>,
    /// Of `point`: side and stride of a pooling; 3 if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool_kern: Option<i64>,
    /// Of `point`: positions start within ± this; 0.2 if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init_range: Option<f64>,
    /// Of `gauss`: positions start within ± this; 0.2 if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init_mu_range: Option<f64>,
    /// Of `gauss`: deviations start below this; 0.5 if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init_sigma_range: Option<f64>,
}

impl Default for SeSettings {
    fn default() -> Self {
        Self {
            readout_type: ReadoutKind::Point,
            hidden_channels: 32,
            input_kern: 24,
            hidden_kern: HiddenKernels::Same(9),
            layers: 3,
            gamma_input: 10.0,
            skip: 0,
            final_nonlinearity: true,
            momentum: 0.9,
            pad_input: false,
            batch_norm: true,
            hidden_dilation: None,
            laplace_padding: None,
            input_regularizer: InputRegularizer::LaplaceL2norm,
            stack: Stack::From(-1),
            se_reduction: None,
            n_se_blocks: 2,
            depth_separable: true,
            linear: false,
            readout_bias: true,
            gamma_readout: 0.5,
            elu_offset: 0.0,
            pool_steps: None,
            pool_kern: None,
            init_range: None,
            init_mu_range: None,
            init_sigma_range: None,
        }
    }
}

impl SeSettings {
    fn is_point(&self) -> bool {
        self.readout_type == ReadoutKind::Point
    }

    pub(super) fn dilation(&self) -> i64 {
        self.hidden_dilation.unwrap_or(if self.is_point() { 2 } else { 1 })
    }

    pub(super) fn reduction(&self) -> i64 {
        self.se_reduction.unwrap_or(if self.is_point() { 16 } else { 32 })
    }

    pub(super) fn padding_of_laplace(&self) -> i64 {
        let l1 = self.input_regularizer == InputRegularizer::LaplaceL1;
        self.laplace_padding.unwrap_or(i64::from(!l1))
    }

    /// The layers shown to the readouts, by number.
    pub(super) fn stacked(&self) -> Vec<usize> {
        match &self.stack {
            Stack::Layers(layers) => layers.clone(),
            Stack::From(first) => {
                let n = self.layers as i64;
                let first = if *first < 0 { (n + first).max(0) } else { *first };
                (first.min(n) as usize..self.layers).collect()
            }
        }
    }

    pub(super) fn readout(&self) -> Kernel {
        if self.is_point() {
            Kernel::Pooled {
                range: self.init_range.unwrap_or(0.2),
                steps: self.pool_steps.unwrap_or(2),
                kernel: self.pool_kern.unwrap_or(3),
            }
        } else {
            Kernel::Gaussian {
                mu: self.init_mu_range.unwrap_or(0.2),
                sigma: self.init_sigma_range.unwrap_or(0.5),
            }
        }
    }

    /// Extent of the map shown to the readouts, `[channels, height, width]`.
    pub(super) fn extent(&self, height: u32, width: u32) -> [i64; 3] {
        let padded = if self.pad_input { 2 * (self.input_kern / 2) } else { 0 };
        // Beyond the first layer the padding makes up for a kernel of odd extent.
        let reach = |l: usize| (self.hidden_kern.of_layer(l) - 1) * self.dilation() + 1;
        let growth: i64 = (1..self.layers).map(|l| 2 * (reach(l) / 2) + 1 - reach(l)).sum();
        let side = |n: u32| i64::from(n) + padded - self.input_kern + 1 + growth;
        [self.hidden_channels * self.stacked().len() as i64, side(height), side(width)]
    }

    /// Whether the settings can be used, on stimuli of the given size.
    pub(super) fn check(&self, height: u32, width: u32) -> Result<(), String> {
        self.check_ranges()?;
        self.hidden_kern.check(self.layers)?;
        let (kind, point) = if self.is_point() { ("point", true) } else { ("gauss", false) };
        let given = [
            ("pool_steps", self.pool_steps.is_some(), true),
            ("pool_kern", self.pool_kern.is_some(), true),
            ("init_range", self.init_range.is_some(), true),
            ("init_mu_range", self.init_mu_range.is_some(), false),
            ("init_sigma_range", self.init_sigma_range.is_some(), false),
        ];
        if let Some((key, ..)) = given.iter().find(|(_, given, of_point)| *given && *of_point != point) {
            return Err(format!("se.{key} does not apply to readout_type = \"{kind}\""));
        }
        let stack = self.stacked();
        if stack.is_empty() || stack.iter().any(|&l| l >= self.layers) {
            return Err(format!(
                "se.stack = {:?} names no layer, or one beyond the {}",
                self.stack, self.layers
            ));
        }
        let even = (1..=stack.iter().copied().max().unwrap_or(0))
            .map(|l| self.hidden_kern.of_layer(l))
            .find(|k| k % 2 == 0);
        if let (Some(side), true) = (even, stack.len() > 1) {
            return Err(format!(
                "se.hidden_kern = {side} changes the size of maps, of which se.stack = {:?} shows several; name one layer, or take an odd side",
                self.stack
            ));
        }
        if self.skip > 1 {
            return Err(format!("se.skip = {}: only 0 and 1 can be used", self.skip));
        }
        if self.input_kern + 2 * self.padding_of_laplace() < 3 {
            return Err(format!(
                "se.input_kern = {} is too small for the Laplace filter of 3 x 3 on the first kernel; use a larger kernel, or a larger se.laplace_padding",
                self.input_kern
            ));
        }
        let [_, h, w] = self.extent(height, width);
        let smallest = match self.readout() {
            Kernel::Pooled { steps, kernel, .. } => kernel.saturating_pow(u32::try_from(steps).unwrap_or(0)),
            Kernel::Gaussian { .. } => 1,
        };
        if h.min(w) < smallest {
            return Err(format!(
                "stimuli of {height} x {width} are too small: the map is {h} x {w} after a first kernel of {}, and the readouts need {smallest}",
                self.input_kern
            ));
        }
        Ok(())
    }

    fn check_ranges(&self) -> Result<(), String> {
        let numbers = [
            ("hidden_channels", self.hidden_channels, 1, 4096),
            ("input_kern", self.input_kern, 1, 255),
            ("layers", self.layers as i64, 1, 64),
            ("hidden_dilation", self.dilation(), 1, 64),
            ("laplace_padding", self.padding_of_laplace(), 0, 255),
            ("pool_steps", self.pool_steps.unwrap_or(2), 0, 8),
            ("pool_kern", self.pool_kern.unwrap_or(3), 1, 255),
            ("se_reduction", self.reduction(), 1, self.hidden_channels),
        ];
        let outside = numbers.iter().find(|(_, value, low, high)| !(low..=high).contains(&value));
        if let Some((key, value, low, high)) = outside {
            return Err(format!("se.{key} = {value} is out of range, {low} to {high}"));
        }
        let (mu, sigma) = (self.init_mu_range.unwrap_or(0.2), self.init_sigma_range.unwrap_or(0.5));
        let range = self.init_range.unwrap_or(0.2);
        let legal = [
            ("gamma_input", self.gamma_input, self.gamma_input >= 0.0),
            ("gamma_readout", self.gamma_readout, self.gamma_readout >= 0.0),
            ("momentum", self.momentum, (0.0..=1.0).contains(&self.momentum)),
            ("elu_offset", self.elu_offset, true),
            ("init_range", range, range > 0.0 && range <= 1.0),
            ("init_mu_range", mu, mu > 0.0 && mu <= 1.0),
            ("init_sigma_range", sigma, sigma > 0.0),
        ];
        match legal.iter().find(|(_, value, within)| !(value.is_finite() && *within)) {
            Some((key, value, _)) => Err(format!("se.{key} = {value} is out of range")),
            None => Ok(()),
        }
    }
}
