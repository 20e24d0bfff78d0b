//! Tensors as `torch.save` writes a state dict: a pickle of names and shapes, and the values, in a zip archive.
//!
//! Archive and entries are below 4 GiB; entries are stored as they are.

use super::dtype;
use crate::model::ModelError;
use tch::{Kind, Tensor};

/// Largest archive without 64-bit fields.
const LARGEST: usize = u32::MAX as usize;

/// A file that `torch.load` reads, also with `weights_only`, as an ordered dictionary of tensors on the CPU.
pub fn pth(tensors: &[(String, Tensor)]) -> Result<Vec<u8>, ModelError> {
    let mut zip = Zip::default();
    zip.entry("archive/data.pkl", &pickle(tensors)?)?;
    zip.entry("archive/byteorder", b"little")?;
    for (i, (_, tensor)) in tensors.iter().enumerate() {
        zip.entry(&format!("archive/data/{i}"), &bytes(tensor)?)?;
    }
    zip.entry("archive/version", b"3\n")?;
    Ok(zip.finish())
}

fn bytes(tensor: &Tensor) -> Result<Vec<u8>, ModelError> {
    let tensor = tensor.f_to_device(tch::Device::Cpu)?.f_contiguous()?;
    let mut bytes = vec![0; tensor.numel() * tensor.kind().elt_size_in_bytes()];
    tensor.f_copy_data_u8(&mut bytes, tensor.numel())?;
    Ok(bytes)
}

/// The name of torch's class of storages.
fn storage(kind: Kind) -> Result<&'static str, ModelError> {
    Ok(match kind {
        Kind::Float => "FloatStorage",
        Kind::Double => "DoubleStorage",
        Kind::Half => "HalfStorage",
        Kind::BFloat16 => "BFloat16Storage",
        Kind::Int64 => "LongStorage",
        Kind::Int => "IntStorage",
        Kind::Uint8 => "ByteStorage",
        Kind::Bool => "BoolStorage",
        other => return Err(ModelError::Settings(format!("{} is not written as .pth", dtype(other)))),
    })
}

/// Protocol 2: `OrderedDict([(name, _rebuild_tensor_v2(storage, 0, size, stride, False, OrderedDict())), ...])`.
fn pickle(tensors: &[(String, Tensor)]) -> Result<Vec<u8>, ModelError> {
    const EMPTY_DICT: &[u8] = b"ccollections\nOrderedDict\n)R";
    let mut out = vec![0x80, 2];
    out.extend(EMPTY_DICT);
    out.push(b'(');
    for (i, (name, tensor)) in tensors.iter().enumerate() {
        unicode(&mut out, name);
        out.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        unicode(&mut out, "storage");
        out.extend(format!("ctorch\n{}\n", storage(tensor.kind())?).bytes());
        unicode(&mut out, &i.to_string());
        unicode(&mut out, "cpu");
        integer(&mut out, tensor.numel() as i64);
        // Tuple, what it names, offset.
        out.extend(b"tQK\0");
        let size = tensor.size();
        let mut stride = vec![1; size.len()];
        for axis in (1..size.len()).rev() {
            stride[axis - 1] = stride[axis] * size[axis].max(1);
        }
        for list in [&size, &stride] {
            out.push(b'(');
            for n in list {
                integer(&mut out, *n);
            }
            out.push(b't');
        }
        // Needs no gradient; no hooks.
        out.push(0x89);
        out.extend(EMPTY_DICT);
        out.extend(b"tR");
    }
    out.extend(b"u.");
    Ok(out)
}

fn unicode(out: &mut Vec<u8>, text: &str) {
    out.push(b'X');
    out.extend((text.len() as u32).to_le_bytes());
    out.extend(text.as_bytes());
}

fn integer(out: &mut Vec<u8>, value: i64) {
    if let Ok(small) = i32::try_from(value) {
        out.push(b'J');
        out.extend(small.to_le_bytes());
    } else {
        out.extend([0x8a, 8]);
        out.extend(value.to_le_bytes());
    }
}

/// A zip archive of stored entries.
#[derive(Default)]
struct Zip {
    bytes: Vec<u8>,
    directory: Vec<u8>,
    entries: u16,
}

impl Zip {
    fn entry(&mut self, name: &str, content: &[u8]) -> Result<(), ModelError> {
        let start = self.bytes.len();
        if start + content.len() + self.directory.len() + (1 << 20) > LARGEST || self.entries == u16::MAX {
            return Err(ModelError::Settings("weights of 4 GiB and more are not written as .pth".to_owned()));
        }
        // Version 2.0, no flags, stored, a fixed time.
        let mut head = Vec::new();
        head.extend([20, 0, 0, 0, 0, 0, 0, 0, 0x21, 0]);
        head.extend(crc_fast::crc32_iso_hdlc(content).to_le_bytes());
        head.extend((content.len() as u32).to_le_bytes());
        head.extend((content.len() as u32).to_le_bytes());
        head.extend((name.len() as u16).to_le_bytes());
        head.extend([0, 0]);
        self.bytes.extend(b"PK\x03\x04");
        self.bytes.extend(&head);
        self.bytes.extend(name.as_bytes());
        self.bytes.extend(content);
        self.directory.extend(b"PK\x01\x02\x14\0");
        self.directory.extend(&head);
        // No comment, disk 0, no attributes.
        self.directory.extend([0; 10]);
        self.directory.extend((start as u32).to_le_bytes());
        self.directory.extend(name.as_bytes());
        self.entries += 1;
        Ok(())
    }

    fn finish(mut self) -> Vec<u8> {
        let start = self.bytes.len() as u32;
        self.bytes.extend(&self.directory);
        self.bytes.extend(b"PK\x05\x06\0\0\0\0");
        self.bytes.extend(self.entries.to_le_bytes());
        self.bytes.extend(self.entries.to_le_bytes());
        self.bytes.extend((self.directory.len() as u32).to_le_bytes());
        self.bytes.extend(start.to_le_bytes());
        self.bytes.extend([0, 0]);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::weights::Weights;

    #[test]
    fn what_is_written_is_read_again() {
        let tensors = vec![
            ("a.1".to_owned(), Tensor::from_slice(&[1.5f32, -2.0, 3.0, 4.0, 5.0, 6.0]).reshape([2, 3])),
            ("a.2".to_owned(), Tensor::from(7i64)),
            ("a.3".to_owned(), Tensor::from_slice(&[0.5f32, 0.25]).to_kind(Kind::BFloat16)),
            ("a.4".to_owned(), Tensor::from_slice(&[1f32, 2.0, 3.0, 4.0]).reshape([2, 2]).transpose(0, 1)),
            ("a.5".to_owned(), Tensor::zeros([0, 3], (Kind::Float, tch::Device::Cpu))),
        ];
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.pth");
        std::fs::write(&path, pth(&tensors).unwrap()).unwrap();
        let read = Weights::read(&path).unwrap().tensors;
        assert_eq!(read.len(), tensors.len());
        for ((name, tensor), (other, found)) in tensors.iter().zip(&read) {
            assert_eq!((name, tensor.size(), tensor.kind()), (other, found.size(), found.kind()));
            assert!(tensor.equal(found), "{name}");
        }
    }
}
