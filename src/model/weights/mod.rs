//! Tensors in and out of files: safetensors both ways, and PyTorch's own (`.pth`, `.pt`, `.pth.tar`) in,
//! through a reader that runs nothing.

mod rename;
#[cfg(test)]
mod tests;
mod torch;
mod zip;

pub use rename::renamed;

use super::ModelError;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use tch::{Device, Kind, Tensor};

/// The bytes of a safetensors file with the given tensors and text metadata.
pub fn encode(tensors: &[(String, Tensor)], metadata: &[(&str, String)]) -> Result<Vec<u8>, ModelError> {
    let broken = |what: String| ModelError::file("weights", what);
    let mut parts = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        let dtype = match tensor.kind() {
            Kind::Float => Dtype::F32,
            Kind::Double => Dtype::F64,
            Kind::Half => Dtype::F16,
            Kind::BFloat16 => Dtype::BF16,
            Kind::Int64 => Dtype::I64,
            Kind::Int => Dtype::I32,
            Kind::Uint8 => Dtype::U8,
            Kind::Bool => Dtype::BOOL,
            other => {
                return Err(broken(format!(
                    "{name} is of type {other:?}, which has no place in a weights file"
                )));
            }
        };
        let shape: Vec<usize> = tensor.size().iter().map(|&n| n as usize).collect();
        let tensor = tensor.detach().to_device(Device::Cpu).contiguous();
        let mut bytes = vec![0u8; tensor.numel() * tensor.kind().elt_size_in_bytes()];
        tensor.f_copy_data_u8(&mut bytes, tensor.numel()).map_err(|e| broken(e.to_string()))?;
        parts.push((name.clone(), dtype, shape, bytes));
    }
    let views: Result<Vec<(&String, TensorView<'_>)>, _> = parts
        .iter()
        .map(|(name, dtype, shape, bytes)| {
            TensorView::new(*dtype, shape.clone(), bytes).map(|view| (name, view))
        })
        .collect();
    let views = views.map_err(|e| broken(e.to_string()))?;
    let metadata: HashMap<String, String> =
        metadata.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect();
    // One entry at most: the order of several would depend on the process.
    debug_assert!(metadata.len() <= 1);
    safetensors::serialize(views, Some(metadata)).map_err(|e| broken(e.to_string()))
}

/// A weights file: its tensors by name, and its text metadata.
#[derive(Debug)]
pub struct Weights {
    /// Names and values, in name order.
    pub tensors: Vec<(String, Tensor)>,
    metadata: HashMap<String, String>,
}

impl Weights {
    /// Reads `path`, whatever its ending: safetensors, or a file of `torch.save`, of which nothing is run.
    ///
    /// Names stay as they are in the file; [`renamed`] fits them to a network.
    ///
    /// # Errors
    /// Anything unreadable, with the file's name.
    pub fn read(path: &Path) -> Result<Self, ModelError> {
        let file = path.display().to_string();
        let bytes = std::fs::read(path).map_err(|e| ModelError::file(&file, e.to_string()))?;
        Self::parse(&bytes).map_err(|what| ModelError::file(&file, what))
    }

    /// Reads the bytes of a weights file.
    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let (found, metadata) = if bytes.starts_with(torch::ZIP_MAGIC) {
            (torch::read_zip(bytes)?, HashMap::new())
        } else if bytes.starts_with(torch::OLD_MAGIC) {
            (torch::read_old(bytes)?, HashMap::new())
        } else {
            safetensors_of(bytes)?
        };
        let mut tensors = BTreeMap::new();
        for (name, tensor) in found {
            if tensors.contains_key(&name) {
                return Err(format!("has two tensors called {name}"));
            }
            tensors.insert(name, tensor);
        }
        Ok(Self { tensors: tensors.into_iter().collect(), metadata })
    }

    /// All text metadata, in key order.
    pub fn all_metadata(&self) -> BTreeMap<&str, &str> {
        self.metadata.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect()
    }

    /// The metadata entry `key`.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.metadata.get(key).map(String::as_str)
    }
}

type Read = (Vec<(String, Tensor)>, HashMap<String, String>);

fn safetensors_of(bytes: &[u8]) -> Result<Read, String> {
    let damaged = |e: safetensors::SafeTensorError| {
        format!("is neither a safetensors file nor one of torch.save, or is damaged: {e}")
    };
    let parsed = SafeTensors::deserialize(bytes).map_err(damaged)?;
    let metadata = SafeTensors::read_metadata(bytes).map_err(damaged)?.1.metadata().clone();
    let mut tensors = Vec::new();
    for (name, view) in parsed.tensors() {
        let shape: Vec<i64> = view.shape().iter().map(|&n| n as i64).collect();
        let kind = match view.dtype() {
            Dtype::F32 => Kind::Float,
            Dtype::F64 => Kind::Double,
            Dtype::F16 => Kind::Half,
            Dtype::BF16 => Kind::BFloat16,
            Dtype::I64 => Kind::Int64,
            Dtype::I32 => Kind::Int,
            Dtype::U8 => Kind::Uint8,
            Dtype::BOOL if view.data().iter().all(|&b| b <= 1) => Kind::Bool,
            other => return Err(format!("{name} is of type {other:?}, or not of its values")),
        };
        let tensor = Tensor::f_from_data_size(view.data(), &shape, kind);
        tensors.push((name.clone(), tensor.map_err(|e| format!("{name}: {e}"))?));
    }
    Ok((tensors, metadata.unwrap_or_default()))
}
