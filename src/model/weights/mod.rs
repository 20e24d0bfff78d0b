//! Tensors in and out of files: safetensors, and PyTorch's own (`.pth`, `.pt`, `.pth.tar`), through a reader that
//! runs nothing.

mod diff;
mod prefix;
mod pth;
mod rename;
#[cfg(test)]
mod tests;

pub use diff::{Described, Difference, Verdict, differences};
pub use pth::pth;
pub use rename::renamed;

use super::ModelError;
use crate::ingest::pickle::StorageKind;
use crate::ingest::{TorchTensor, torch_tensors};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use tch::{Device, Kind, Tensor};

/// The element types of weights files: our names, torch's and those of safetensors.
const TYPES: [(&str, Kind, Dtype); 8] = [
    ("f32", Kind::Float, Dtype::F32),
    ("f64", Kind::Double, Dtype::F64),
    ("f16", Kind::Half, Dtype::F16),
    ("bf16", Kind::BFloat16, Dtype::BF16),
    ("i64", Kind::Int64, Dtype::I64),
    ("i32", Kind::Int, Dtype::I32),
    ("u8", Kind::Uint8, Dtype::U8),
    ("bool", Kind::Bool, Dtype::BOOL),
];

/// Name of an element type in tables and JSON.
pub fn dtype(kind: Kind) -> &'static str {
    TYPES.iter().find(|t| t.1 == kind).map_or("other", |t| t.0)
}

/// The bytes of a safetensors file with the given tensors and text metadata.
pub fn encode(tensors: &[(String, Tensor)], metadata: &[(&str, String)]) -> Result<Vec<u8>, ModelError> {
    let broken = |what: String| ModelError::file("weights", what);
    let mut parts = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        let dtype = TYPES.iter().find(|t| t.1 == tensor.kind()).map(|t| t.2).ok_or_else(|| {
            broken(format!("{name} is of type {:?}, which has no place in a weights file", tensor.kind()))
        })?;
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
        Self::of_bytes(&bytes, &file)
    }

    /// Reads the bytes of `file`.
    pub fn of_bytes(bytes: &[u8], file: &str) -> Result<Self, ModelError> {
        Self::parse(bytes).map_err(|what| ModelError::file(file, what))
    }

    /// Reads the bytes of a weights file.
    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let (found, metadata) = match torch_tensors(bytes) {
            Some(found) => (found?.into_iter().map(torch_tensor).collect::<Result<_, _>>()?, HashMap::new()),
            None => safetensors_of(bytes)?,
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

fn torch_tensor(tensor: TorchTensor) -> Result<(String, Tensor), String> {
    let TorchTensor { name, kind, shape, bytes } = tensor;
    let kind = match kind {
        StorageKind::F64 => Kind::Double,
        StorageKind::F32 => Kind::Float,
        StorageKind::F16 => Kind::Half,
        StorageKind::Bf16 => Kind::BFloat16,
        StorageKind::I64 => Kind::Int64,
        StorageKind::I32 => Kind::Int,
        StorageKind::U8 => Kind::Uint8,
        StorageKind::Bool => Kind::Bool,
    };
    let tensor = shape_of(&shape)
        .and_then(|shape| Tensor::f_from_data_size(&bytes, &shape, kind).map_err(|e| e.to_string()));
    tensor.map(|tensor| (name.clone(), tensor)).map_err(|e| format!("{name}: {e}"))
}

fn shape_of(shape: &[usize]) -> Result<Vec<i64>, String> {
    shape.iter().map(|&n| i64::try_from(n).map_err(|_| format!("an axis of {n}"))).collect()
}

type Read = (Vec<(String, Tensor)>, HashMap<String, String>);

fn safetensors_of(bytes: &[u8]) -> Result<Read, String> {
    let damaged = |e: safetensors::SafeTensorError| {
        format!(
            "is neither a safetensors file nor one of torch.save, or is damaged: {e}; save it with torch.save(model.state_dict(), …) or safetensors.torch.save_file"
        )
    };
    let parsed = SafeTensors::deserialize(bytes).map_err(damaged)?;
    let metadata = SafeTensors::read_metadata(bytes).map_err(damaged)?.1.metadata().clone();
    let mut tensors = Vec::new();
    for (name, view) in parsed.tensors() {
        let shape = shape_of(view.shape()).map_err(|e| format!("{name}: {e}"))?;
        let kind = TYPES.iter().find(|t| t.2 == view.dtype()).map(|t| t.1);
        // torch reads these bytes as truth values, for which others than 0 and 1 are undefined.
        let sound = view.dtype() != Dtype::BOOL || view.data().iter().all(|&b| b <= 1);
        let kind = kind.filter(|_| sound);
        let kind =
            kind.ok_or_else(|| format!("{name} is of type {:?}, or not of its values", view.dtype()))?;
        let tensor = Tensor::f_from_data_size(view.data(), &shape, kind);
        tensors.push((name.clone(), tensor.map_err(|e| format!("{name}: {e}"))?));
    }
    Ok((tensors, metadata.unwrap_or_default()))
}
