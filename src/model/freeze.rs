//! Parameters that are not trained, and layers that are drawn anew (spec/models 2.8, spec/trainer 3.7).

use super::params::{Param, Params};
use super::{ModelError, Network};
use tch::{Device, Kind, Tensor};

impl Network {
    /// Parameters for which `chosen` is true get no gradients from now on; optimisers leave them alone. None at
    /// all is an error.
    pub fn freeze(&self, chosen: impl Fn(&str) -> bool) -> Result<(), ModelError> {
        let frozen: Vec<&Param> = self.params().iter().filter(|p| p.trainable && chosen(&p.name)).collect();
        if frozen.is_empty() {
            let names: Vec<&str> = self.params().iter().map(|p| p.name.as_str()).collect();
            let what = format!("freeze: no parameter is meant; there are {}", names.join(", "));
            return Err(ModelError::Settings(what));
        }
        for param in frozen {
            let _ = param.tensor.set_requires_grad(false);
        }
        Ok(())
    }

    /// Draws layers such as `features.20` or `classification_readout.6` anew from torch's generator, with PyTorch's
    /// default initial values; `all` means every layer with weights of its own, readouts of neurons excepted.
    pub fn reset(&self, layers: &[String]) -> Result<(), ModelError> {
        for layer in layers {
            let prefixes: Vec<String> = if layer == "all" {
                all_layers(self.params())
            } else {
                vec![format!("{layer}."), format!("mtl_vgg_core.{layer}.")]
            };
            let of = |prefix: &String| -> Vec<&Param> {
                self.params().iter().filter(|p| p.name.starts_with(prefix.as_str())).collect()
            };
            let found: Vec<Vec<&Param>> =
                prefixes.iter().map(of).filter(|params| !params.is_empty()).collect();
            if found.is_empty() {
                let names = all_layers(self.params()).join(", ");
                let what = format!("reset: there is no layer {layer} with weights; there are {names}");
                return Err(ModelError::Settings(what));
            }
            tch::no_grad(|| found.iter().for_each(|params| reset_layer(params)));
        }
        Ok(())
    }
}

/// Prefixes of the layers with a weight, such as `features.0.`.
fn all_layers(params: &Params) -> Vec<String> {
    params.iter().filter_map(|p| p.name.strip_suffix("weight").map(str::to_owned)).collect()
}

/// Convolutions and linear layers: weight and bias from U(-b, b), b = 1 / sqrt(fan in). Norms: 1 and 0.
fn reset_layer(params: &[&Param]) {
    let fan_in: i64 = params
        .iter()
        .filter(|p| p.name.ends_with("weight"))
        .map(|p| p.tensor.size().iter().skip(1).product::<i64>())
        .max()
        .unwrap_or(1);
    let bound = 1.0 / (fan_in.max(1) as f64).sqrt();
    let norm = params.iter().any(|p| p.name.ends_with("running_mean"));
    for param in params {
        let mut tensor = param.tensor.shallow_clone();
        let one = ["weight", "running_var"].iter().any(|leaf| param.name.ends_with(leaf));
        if norm {
            let _ = if one { tensor.fill_(1.0) } else { tensor.zero_() };
        } else {
            let drawn = Tensor::rand(param.tensor.size(), (Kind::Float, Device::Cpu)) * (2.0 * bound) - bound;
            tensor.copy_(&drawn);
        }
    }
}
