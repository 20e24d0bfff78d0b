//! The named tensors of a network, in the reference's order.
//!
//! Not tch's variable store: that one renames duplicates, changes types on loading, and lists its
//! variables in no order.

use super::ModelError;
use std::fmt;
use tch::{Device, Kind, Tensor};

/// One parameter or buffer.
#[derive(Debug)]
pub struct Param {
    /// Name, as in the reference's state dict.
    pub name: String,
    /// Value.
    pub tensor: Tensor,
    /// Whether gradients reach it.
    pub trainable: bool,
}

/// All parameters and buffers.
#[derive(Debug)]
pub struct Params {
    list: Vec<Param>,
    device: Device,
    kind: Kind,
}

impl Params {
    /// None yet; tensors will live on `device`, and numbers be of the given kind.
    pub fn new(device: Device, kind: Kind) -> Self {
        Self { list: Vec::new(), device, kind }
    }

    /// Device of the tensors.
    pub fn device(&self) -> Device {
        self.device
    }

    /// A trainable parameter with the given initial value, drawn on the CPU so that every device
    /// starts from the same numbers.
    pub fn parameter(&mut self, name: String, initial: &Tensor) -> Tensor {
        let tensor = initial.to_device(self.device).to_kind(self.kind).set_requires_grad(true);
        self.push(name, tensor, true)
    }

    /// A tensor that is part of the state but not trained.
    pub fn buffer(&mut self, name: String, initial: &Tensor) -> Tensor {
        let kind = if initial.is_floating_point() { self.kind } else { initial.kind() };
        let tensor = initial.to_device(self.device).to_kind(kind);
        self.push(name, tensor, false)
    }

    fn push(&mut self, name: String, tensor: Tensor, trainable: bool) -> Tensor {
        assert!(self.find(&name).is_none(), "the name {name} is given twice");
        let handle = tensor.shallow_clone();
        self.list.push(Param { name, tensor, trainable });
        handle
    }

    /// All, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Param> {
        self.list.iter()
    }

    /// Names and values of all, in order.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        self.list.iter().map(|p| (p.name.clone(), p.tensor.shallow_clone())).collect()
    }

    /// The buffers, each with a copy of its value.
    pub fn buffers(&self) -> Vec<(Tensor, Tensor)> {
        let buffers = self.list.iter().filter(|p| !p.trainable);
        buffers.map(|p| (p.tensor.shallow_clone(), p.tensor.copy())).collect()
    }

    /// Names and values of the trainable ones, in order.
    pub fn trainable(&self) -> Vec<(String, Tensor)> {
        let trainable = self.list.iter().filter(|p| p.trainable);
        trainable.map(|p| (p.name.clone(), p.tensor.shallow_clone())).collect()
    }

    /// Number of trainable numbers.
    pub fn n_trainable(&self) -> u64 {
        self.list.iter().filter(|p| p.trainable).map(|p| p.tensor.numel() as u64).sum()
    }

    /// Copies `values` into the tensors of the same name. Every name must be there, in the right shape,
    /// and no other; the error lists all that differ. Types and devices of the tensors stay.
    pub fn load(&self, values: &[(String, Tensor)], origin: &str) -> Result<(), ModelError> {
        let mut faults = Vec::new();
        let value = |name: &str| values.iter().find(|(n, _)| n == name).map(|(_, value)| value);
        for param in &self.list {
            match value(&param.name) {
                None => faults.push(format!("missing {}", param.name)),
                Some(v) if v.size() != param.tensor.size() => {
                    faults.push(format!(
                        "{} is {:?}, expected {:?}",
                        param.name,
                        v.size(),
                        param.tensor.size()
                    ));
                }
                Some(_) => {}
            }
        }
        faults.extend(
            values.iter().filter(|(n, _)| self.find(n).is_none()).map(|(n, _)| format!("unexpected {n}")),
        );
        if !faults.is_empty() {
            let more = faults.len().saturating_sub(8);
            faults.truncate(8);
            let more = if more > 0 { format!(", and {more} more") } else { String::new() };
            let what = format!("weights of another network: {}{more}", faults.join(", "));
            return Err(ModelError::file(origin, what));
        }
        tch::no_grad(|| {
            for param in &self.list {
                if let Some(v) = value(&param.name) {
                    param.tensor.shallow_clone().copy_(v);
                }
            }
        });
        Ok(())
    }

    /// Copies those of `values` that fit into the tensors of the same name, and reports the others
    /// (spec/trainer 6.5). Nothing that fits is an error.
    pub fn load_fitting(&self, values: &[(String, Tensor)], origin: &str) -> Result<Fit, ModelError> {
        let mut fit = Fit::default();
        for param in &self.list {
            match values.iter().find(|(name, _)| *name == param.name).map(|(_, value)| value) {
                Some(value) if value.size() == param.tensor.size() => {
                    tch::no_grad(|| param.tensor.shallow_clone().copy_(value));
                    fit.loaded += 1;
                }
                Some(value) => {
                    let (found, expected) = (value.size(), param.tensor.size());
                    fit.mismatched.push(format!("{} ({found:?}, expected {expected:?})", param.name));
                }
                // Files from before PyTorch 0.4.1 do not have it.
                None if param.name.ends_with("num_batches_tracked") => {}
                None => fit.missing.push(param.name.clone()),
            }
        }
        let unexpected = values.iter().filter(|(name, _)| self.find(name).is_none());
        fit.unexpected = unexpected.map(|(name, _)| name.clone()).collect();
        if fit.loaded == 0 {
            return Err(ModelError::file(origin, format!("nothing of it fits this network: {fit}")));
        }
        Ok(fit)
    }

    fn find(&self, name: &str) -> Option<&Param> {
        self.list.iter().find(|p| p.name == name)
    }
}

/// What of a weights file was taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fit {
    /// Number of tensors taken.
    pub loaded: usize,
    /// Names that the file does not have.
    pub missing: Vec<String>,
    /// Names that the network does not have.
    pub unexpected: Vec<String>,
    /// Names with both shapes.
    pub mismatched: Vec<String>,
}

impl fmt::Display for Fit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} tensors taken", self.loaded)?;
        for (what, names) in [
            ("missing", &self.missing),
            ("unexpected", &self.unexpected),
            ("of another shape", &self.mismatched),
        ] {
            if !names.is_empty() {
                write!(f, "; {what}: {}", names.join(", "))?;
            }
        }
        Ok(())
    }
}

/// Normal numbers with standard deviation `std`, from torch's CPU generator.
pub(super) fn normal(shape: &[i64], std: f64) -> Tensor {
    Tensor::randn(shape, (Kind::Float, Device::Cpu)) * std
}

/// All values equal.
pub(super) fn constant(shape: &[i64], value: f64) -> Tensor {
    Tensor::full(shape, value, (Kind::Float, Device::Cpu))
}
