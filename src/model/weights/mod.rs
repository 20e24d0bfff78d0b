//! Tensors in and out of files: safetensors both ways, and PyTorch's own (`.pth`, `.pt`, `.pth.tar`) in,
//! through a reader that runs nothing.

mod torch;
mod zip;

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
    /// Leading `module.` and `_model.`, as wrappers in Python leave them, are dropped, and so are the
    /// buffers `intermediate_out` (spec models.md, section 5).
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
            if let Some(name) = plain_name(&name)
                && tensors.insert(name.to_owned(), tensor).is_some()
            {
                return Err(format!("has two tensors that are both {name} without their prefix"));
            }
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

/// A name without the prefixes of wrappers; none for what wrappers add.
fn plain_name(name: &str) -> Option<&str> {
    let mut plain = name;
    while let Some(rest) = plain.strip_prefix("module.").or_else(|| plain.strip_prefix("_model.")) {
        plain = rest;
    }
    let last = plain.rsplit('.').next();
    (last != Some("intermediate_out")).then_some(plain)
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

    const FIXTURES: [(&str, &[u8]); 2] = [
        ("zip", include_bytes!("../../../tests/data/weights-zip.pth")),
        ("old", include_bytes!("../../../tests/data/weights-old.pth")),
    ];

    #[test]
    fn both_formats_of_torch_save_are_read() {
        for (format, bytes) in FIXTURES {
            let read = Weights::parse(bytes).unwrap();
            let get = |name: &str| {
                let found = read.tensors.iter().find(|(n, _)| n == name);
                found.unwrap_or_else(|| panic!("{format}: {name}")).1.shallow_clone()
            };
            let values = |name: &str| Vec::<f64>::try_from(get(name).to_kind(Kind::Double).flatten(0, -1)).unwrap();
            let kinds = [
                ("f32", Kind::Float),
                ("f64", Kind::Double),
                ("f16", Kind::Half),
                ("bf16", Kind::BFloat16),
                ("i64", Kind::Int64),
                ("i32", Kind::Int),
                ("u8", Kind::Uint8),
            ];
            for (name, kind) in kinds {
                assert_eq!((get(name).kind(), get(name).size()), (kind, vec![2, 3]), "{format}: {name}");
                assert_eq!(values(name), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0], "{format}: {name}");
            }
            assert_eq!((get("bool").kind(), values("bool")), (Kind::Bool, vec![1.0, 0.0]), "{format}");
            assert_eq!(values("parameter"), [0.5, -0.5], "{format}");
            // arange(24) as [4, 6]: transposed, and every second row from 1 on with columns 2 and 4.
            assert_eq!((get("transposed").size(), values("transposed")[..5].to_vec()), (vec![6, 4], vec![0.0, 6.0, 12.0, 18.0, 1.0]));
            assert_eq!((get("strided").size(), values("strided")), (vec![2, 2], vec![8.0, 10.0, 20.0, 22.0]));
            assert_eq!((get("scalar").size(), values("scalar")), (vec![], vec![7.0]), "{format}");
            assert_eq!(get("empty").size(), [0, 3], "{format}");
            assert_eq!(read.tensors.len(), 14, "{format}: the buffer intermediate_out is dropped");
        }
    }

    #[test]
    fn truncated_and_damaged_files_are_errors_or_read_but_never_panic() {
        for (format, bytes) in FIXTURES {
            for n in 0..bytes.len() {
                assert!(Weights::parse(&bytes[..n]).is_err(), "{format}: {n} of {} bytes", bytes.len());
            }
            for at in 0..bytes.len() {
                for mask in [1, 0x80, 0xff] {
                    let mut damaged = bytes.to_vec();
                    damaged[at] ^= mask;
                    let _ = Weights::parse(&damaged);
                }
            }
        }
    }

    #[test]
    fn flipped_data_of_a_zip_file_are_noticed() {
        let mut bytes = FIXTURES[0].1.to_vec();
        let value = 0.5f32.to_le_bytes();
        let at = bytes.windows(4).position(|w| w == value).unwrap();
        bytes[at] ^= 1;
        assert!(Weights::parse(&bytes).unwrap_err().contains("checksum"));
    }

    #[test]
    fn code_is_refused_by_name_and_nested_state_dicts_are_found() {
        let evil = include_bytes!("../../../tests/data/weights-evil.pth");
        let message = Weights::parse(evil).unwrap_err();
        assert!(message.contains("posix.system") && message.contains("nothing of the file was run"), "{message}");
        let nested = Weights::parse(include_bytes!("../../../tests/data/weights-nested.pth")).unwrap();
        assert_eq!(nested.tensors[0].0, "a.weight");
        let several = Weights::parse(include_bytes!("../../../tests/data/weights-several.pth")).unwrap_err();
        assert!(several.contains("student") && several.contains("teacher"), "{several}");
    }
}
