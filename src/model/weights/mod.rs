//! Tensors in and out of safetensors files, which Python reads with `safetensors.torch.load_file`.

mod rename;

pub use rename::renamed;

use super::ModelError;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use std::collections::HashMap;
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
            Kind::Int64 => Dtype::I64,
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
    /// Reads `path`. A leading `module.`, as data-parallel training in Python leaves it, is dropped.
    pub fn read(path: &Path) -> Result<Self, ModelError> {
        let file = path.display().to_string();
        let bytes = std::fs::read(path).map_err(|e| ModelError::file(&file, e.to_string()))?;
        let damaged = |e: safetensors::SafeTensorError| {
            ModelError::file(&file, format!("is no safetensors file, or is damaged: {e}"))
        };
        let parsed = SafeTensors::deserialize(&bytes).map_err(damaged)?;
        let metadata =
            SafeTensors::read_metadata(&bytes).map_err(damaged)?.1.metadata().clone().unwrap_or_default();
        let mut tensors = Vec::new();
        for (name, view) in parsed.tensors() {
            let shape: Vec<i64> = view.shape().iter().map(|&n| n as i64).collect();
            let kind = match view.dtype() {
                Dtype::F32 => Kind::Float,
                Dtype::F64 => Kind::Double,
                Dtype::F16 => Kind::Half,
                Dtype::BF16 => Kind::BFloat16,
                Dtype::I64 => Kind::Int64,
                other => return Err(ModelError::file(&file, format!("{name} is of type {other:?}"))),
            };
            let tensor = Tensor::f_from_data_size(view.data(), &shape, kind);
            let tensor = tensor.map_err(|e| ModelError::file(&file, format!("{name}: {e}")))?;
            tensors.push((name.strip_prefix("module.").unwrap_or(&name).to_owned(), tensor));
        }
        tensors.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(Self { tensors, metadata })
    }

    /// The metadata entry `key`.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.metadata.get(key).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_and_metadata_come_back_and_damage_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("w.safetensors");
        let tensors = vec![
            ("module.a".to_owned(), Tensor::from_slice(&[1f32, 2.0]).view([2, 1])),
            ("b".to_owned(), Tensor::from(7i64)),
        ];
        let bytes = encode(&tensors, &[("state", "{}".to_owned())]).unwrap();
        std::fs::write(&path, &bytes).unwrap();
        let read = Weights::read(&path).unwrap();
        assert_eq!(read.metadata("state"), Some("{}"));
        assert_eq!(read.tensors[0].0, "a");
        assert_eq!((read.tensors[0].1.size(), read.tensors[0].1.double_value(&[1, 0])), (vec![2, 1], 2.0));
        assert_eq!(read.tensors[1].1.int64_value(&[]), 7);
        for n in 0..bytes.len() {
            std::fs::write(&path, &bytes[..n]).unwrap();
            let message = Weights::read(&path).unwrap_err().to_string();
            assert!(message.contains("w.safetensors"), "{message}");
        }
    }
}
