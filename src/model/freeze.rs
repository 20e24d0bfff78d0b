//! Parts of a network that do not learn, and layers that start anew.

use super::layer::{Layer, Op};
use super::network::Core;
use super::{ModelError, Network};
use crate::base::Task;
use tch::{Device, Kind, Tensor};

impl Network {
    /// Stops the parameters whose names contain one of `fragments`; with `others`, all except those.
    /// They stay in [`Network::params`] and get no gradient. Errors: a fragment that is in no name.
    pub fn freeze(&self, fragments: &[&str], others: bool) -> Result<usize, ModelError> {
        let named = |name: &str, f: &str| name.contains(f);
        for fragment in fragments {
            if !self.params().iter().any(|p| p.trainable && named(&p.name, fragment)) {
                return Err(ModelError::Settings(format!(
                    "freeze: no parameter's name contains {fragment:?}"
                )));
            }
        }
        let mut n = 0;
        for param in self.params().iter().filter(|p| p.trainable) {
            if fragments.iter().any(|f| named(&param.name, f)) != others {
                let _ = param.tensor.set_requires_grad(false);
                n += 1;
            }
        }
        Ok(n)
    }

    /// Stops the shared blocks of the given areas. Their running statistics go on changing in training.
    pub fn freeze_shared(&self, tasks: &[Task]) {
        let stages = self.stages.iter().filter(|s| s.task.is_none_or(|task| tasks.contains(&task)));
        for layer in stages.flat_map(|s| s.core.blocks()).flat_map(|b| &b.layers) {
            for weight in layer.weights() {
                let _ = weight.set_requires_grad(false);
            }
        }
    }

    /// Starts layers anew as PyTorch's `reset_parameters` does, not as [`Network::new`]: uniform numbers
    /// up to 1 / sqrt(fan in) from torch's CPU generator, normalisations 1 and 0 with fresh statistics.
    /// `names` are such as `features.20` or `v1_block.3`; none means all layers. Readouts are left alone.
    pub fn reset(&self, names: Option<&[&str]>) -> Result<(), ModelError> {
        match names {
            None => self.with_weights().into_iter().try_for_each(reset),
            Some(names) => self.named(names)?.into_iter().try_for_each(reset),
        }
    }

    /// Whether [`Self::reset`] would find layers of these names.
    pub fn can_reset(&self, names: &[&str]) -> Result<(), ModelError> {
        self.named(names).map(drop)
    }

    fn named(&self, names: &[&str]) -> Result<Vec<&Layer>, ModelError> {
        let layers = self.with_weights();
        let named = |name: &&str| {
            let of_name =
                |l: &&&Layer| l.path == *name || l.path.strip_suffix(name).is_some_and(|p| p.ends_with('.'));
            layers.iter().find(of_name).copied().ok_or_else(|| {
                let known: Vec<&str> = layers.iter().map(|l| l.path.as_str()).collect();
                ModelError::Settings(format!(
                    "reset: no layer with weights is named {name:?}; there are {}",
                    known.join(", ")
                ))
            })
        };
        names.iter().map(named).collect()
    }

    fn with_weights(&self) -> Vec<&Layer> {
        let extras = self.stages.iter().filter_map(|s| s.extra());
        let shared = self.stages.iter().map(|s| &s.core).flat_map(Core::blocks);
        let blocks = shared.chain(extras).chain(&self.tower);
        blocks.flat_map(|b| &b.layers).filter(|l| !l.weights().is_empty()).collect()
    }
}

fn reset(layer: &Layer) -> Result<(), ModelError> {
    tch::no_grad(|| match &layer.op {
        Op::Conv { weight, bias, .. } => uniform(weight, bias.as_ref()),
        Op::Linear { weight, bias } => uniform(weight, Some(bias)),
        Op::Squeeze(layers) => layers.iter().try_for_each(|(weight, bias)| uniform(weight, Some(bias))),
        Op::Norm(norm) => {
            for (tensor, value) in
                [(&norm.weight, 1.0), (&norm.bias, 0.0), (&norm.mean, 0.0), (&norm.variance, 1.0)]
            {
                let _ = tensor.shallow_clone().f_fill_(value)?;
            }
            let _ = norm.batches.shallow_clone().f_zero_()?;
            Ok(())
        }
        _ => Ok(()),
    })
}

/// Weight, then bias, from U(-b, b) with b = 1 / sqrt(fan in).
fn uniform(weight: &Tensor, bias: Option<&Tensor>) -> Result<(), ModelError> {
    let fan_in: i64 = weight.size().iter().skip(1).product();
    let bound = 1.0 / (fan_in as f64).sqrt();
    for tensor in std::iter::once(weight).chain(bias) {
        let fresh = Tensor::f_empty(tensor.size(), (Kind::Float, Device::Cpu))?.f_uniform_(-bound, bound)?;
        tensor.shallow_clone().f_copy_(&fresh)?;
    }
    Ok(())
}
