//! Files of `torch.save`, zip or old, as a table of tensors, through the restricted pickle reader: nothing is run.
//!
//! Absent: torch. What the bytes of a tensor mean is the caller's.

#[cfg(test)]
mod tests;
mod zip;

use super::pickle::{Id, StorageKind, TensorRef, TorchPickle};
use std::collections::{BTreeMap, BTreeSet};

/// A tensor of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TorchTensor {
    /// Its name in the state dict.
    pub name: String,
    /// Element type.
    pub kind: StorageKind,
    /// Extent of each axis.
    pub shape: Vec<usize>,
    /// Its elements, little-endian, in row-major order.
    pub bytes: Vec<u8>,
}

/// How the old format begins: a pickle of a fixed number.
const OLD_MAGIC: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
/// How a zip archive begins.
const ZIP_MAGIC: &[u8] = b"PK\x03\x04";
const OLD_VERSION: i64 = 1001;

/// The tensors of the state dict in `file`, in its order; none if `torch.save` did not write it.
///
/// # Errors
/// What is wrong, and the way out. A file's memory is bounded by its length.
pub fn torch_tensors(file: &[u8]) -> Option<Result<Vec<TorchTensor>, String>> {
    if file.starts_with(ZIP_MAGIC) {
        Some(read_zip(file))
    } else if file.starts_with(OLD_MAGIC) {
        Some(read_old(file))
    } else {
        None
    }
}

/// The state dict in a zip archive.
fn read_zip(file: &[u8]) -> Result<Vec<TorchTensor>, String> {
    let entries = zip::entries(file).map_err(|e| damaged(&e))?;
    let prefix = entries.keys().find_map(|name| name.strip_suffix("data.pkl"));
    let prefix = prefix.ok_or("a zip archive without data.pkl: no file of torch.save")?;
    if entries.get(&format!("{prefix}byteorder")).is_some_and(|order| *order != b"little".as_slice()) {
        return Err("written on a big-endian machine; save it again on a little-endian one".into());
    }
    let data = entries[&format!("{prefix}data.pkl")];
    let (pickle, end) = TorchPickle::parse(data, 0).map_err(|e| format!("data.pkl: {e}"))?;
    if end != data.len() {
        return Err("data.pkl goes on after its end".into());
    }
    let find = |key: &str| entries.get(&format!("{prefix}data/{key}")).copied();
    tensors(&pickle, &find, file.len())
}

/// The state dict in a file of the format before PyTorch 1.6.
fn read_old(file: &[u8]) -> Result<Vec<TorchTensor>, String> {
    let (version, at) = TorchPickle::parse(file, OLD_MAGIC.len())?;
    if version.int(version.root()) != Some(OLD_VERSION) {
        return Err("an unknown version of PyTorch's old format".into());
    }
    let (system, at) = TorchPickle::parse(file, at)?;
    let facts = system.entries(system.root()).ok_or("the description of the machine is missing")?;
    let little = facts.iter().find(|(key, _)| *key == "little_endian").and_then(|(_, id)| system.int(*id));
    if little != Some(1) {
        return Err("written on a big-endian machine; save it again on a little-endian one".into());
    }
    let (pickle, at) = TorchPickle::parse(file, at)?;
    let (list, mut at) = TorchPickle::parse(file, at)?;
    let keys = list.texts(list.root()).ok_or("the list of storages is missing")?;
    let known = pickle.storages();
    let mut found = BTreeMap::new();
    for key in keys {
        let &(kind, elements) = known.get(key).ok_or_else(|| format!("storage {key} is used nowhere"))?;
        let count = file.get(at..).and_then(<[u8]>::first_chunk::<8>);
        let count = count.ok_or_else(|| damaged(&format!("cut short at storage {key}")))?;
        if u64::from_le_bytes(*count) != elements as u64 {
            return Err(format!("storage {key} has another length than the tensors say"));
        }
        let start = at + 8;
        let end = elements.checked_mul(kind.bytes()).and_then(|n| start.checked_add(n));
        let data = end.and_then(|end| file.get(start..end));
        let data = data.ok_or_else(|| damaged(&format!("cut short at storage {key}")))?;
        found.insert(key, data);
        at = start + data.len();
    }
    if at != file.len() {
        return Err(damaged(&format!("{} bytes follow its end", file.len() - at)));
    }
    tensors(&pickle, &|key| found.get(key).copied(), file.len())
}

/// The fault of a file that was not copied whole, with the way out.
fn damaged(what: &str) -> String {
    format!("{what}; copy it again, or save it again with torch.save")
}

/// Shared storages and names may be read more than once, up to so many times the file's length in all.
const COPIES_MAX: usize = 16;
const REPEATED: &str = "its tensors repeat their storages or names so often that they are no weights";

fn tensors<'a>(
    pickle: &TorchPickle,
    find: &dyn Fn(&str) -> Option<&'a [u8]>,
    file_bytes: usize,
) -> Result<Vec<TorchTensor>, String> {
    let mut left = file_bytes.saturating_mul(COPIES_MAX);
    let mut names_left = left;
    let mut tensors = Vec::new();
    for (name, view) in state_dict(pickle)? {
        names_left = names_left.checked_sub(name.len()).ok_or(REPEATED)?;
        let bytes = elements(view, find, &mut left).map_err(|e| format!("{name}: {e}"))?;
        let shape = view.shape.to_vec();
        tensors.push(TorchTensor { name: name.to_owned(), kind: view.kind, shape, bytes });
    }
    Ok(tensors)
}

/// Where checkpoints keep their state dict.
const USUAL: [&str; 5] = ["state_dict", "model_state_dict", "model_state", "model", "net"];
/// So many are named where a file has several.
const NAMED_MAX: usize = 16;
type Views<'a> = Vec<(&'a str, TensorRef<'a>)>;

/// The one state dict of a file: the dict itself, or one within it.
fn state_dict(pickle: &TorchPickle) -> Result<Views<'_>, String> {
    if let Some(views) = views(pickle, pickle.root()) {
        return Ok(views);
    }
    let top = pickle.entries(pickle.root()).ok_or("holds no dict of tensors")?;
    // By name, and the name within; names are not put together, since damaged files may have long ones without end.
    let mut found: Vec<([&str; 2], Id)> = Vec::new();
    // Damaged files may name one dict a million times: each is looked at once.
    let mut seen = BTreeSet::new();
    for (key, id) in top {
        if views(pickle, id).is_some() {
            found.push(([key, ""], id));
        } else if seen.insert(id) {
            for (k, id) in pickle.entries(id).unwrap_or_default() {
                if seen.insert(id) && views(pickle, id).is_some() {
                    found.push(([key, k], id));
                }
            }
        }
    }
    let is_usual = |[name, within]: [&str; 2]| within.is_empty() && USUAL.contains(&name);
    let usual: Vec<usize> = (0..found.len()).filter(|&i| is_usual(found[i].0)).collect();
    let of = |id: Id| views(pickle, id).ok_or_else(|| "holds no dict of tensors".to_owned());
    match (usual.as_slice(), found.as_slice()) {
        (&[i], _) => of(found[i].1),
        (_, [(_, id)]) => of(*id),
        (_, []) => Err("holds no state dict: no dict of tensors in it, nor in its entries".into()),
        _ => {
            let named = |([name, within], _): &([&str; 2], Id)| match *within {
                "" => (*name).to_owned(),
                within => format!("{name}.{within}"),
            };
            let mut names: Vec<String> = found.iter().take(NAMED_MAX).map(named).collect();
            names.extend((found.len() > NAMED_MAX).then(|| format!("and {} more", found.len() - NAMED_MAX)));
            Err(format!("holds several state dicts ({}); save the one you mean alone", names.join(", ")))
        }
    }
}

/// A dict that has tensors only.
fn views(pickle: &TorchPickle, id: usize) -> Option<Views<'_>> {
    let entries = pickle.entries(id).filter(|entries| !entries.is_empty())?;
    entries.into_iter().map(|(key, id)| Some((key, pickle.tensor(id)?))).collect()
}

/// The bytes of a tensor. `left` is how many more may be copied.
fn elements<'a>(
    view: TensorRef<'_>,
    find: &dyn Fn(&str) -> Option<&'a [u8]>,
    left: &mut usize,
) -> Result<Vec<u8>, String> {
    let data = find(view.key).ok_or_else(|| format!("its storage {} is missing", view.key))?;
    let width = view.kind.bytes();
    if view.elements.checked_mul(width) != Some(data.len()) {
        return Err(format!("its storage has {} bytes, not {} elements", data.len(), view.elements));
    }
    let n = view.shape.iter().try_fold(1usize, |n, &axis| n.checked_mul(axis));
    let n = n.ok_or_else(|| format!("shape {:?} is beyond all memory", view.shape))?;
    let steps = view.shape.iter().zip(view.strides).try_fold(view.offset, |end, (&axis, &stride)| {
        end.checked_add(axis.saturating_sub(1).checked_mul(stride)?)
    });
    if n > 0 && steps.is_none_or(|last| last >= view.elements) {
        return Err(format!("shape {:?} reaches beyond its storage of {}", view.shape, view.elements));
    }
    let left_now = n.checked_mul(width).and_then(|bytes| left.checked_sub(bytes));
    *left = left_now.ok_or(REPEATED)?;
    let bytes = gather(&view, data, n);
    // torch reads these bytes as truth values, for which others than 0 and 1 are undefined.
    if view.kind == StorageKind::Bool && bytes.iter().any(|&b| b > 1) {
        return Err("a truth value other than 0 and 1".into());
    }
    Ok(bytes)
}

/// The `n` elements of a view, which lies within `data`, in row-major order.
fn gather(view: &TensorRef<'_>, data: &[u8], n: usize) -> Vec<u8> {
    if n == 0 {
        return Vec::new();
    }
    let width = view.kind.bytes();
    // At most `n`, as no axis is empty.
    let mut expected = 1;
    let contiguous = view.shape.iter().zip(view.strides).rev().all(|(&axis, &stride)| {
        let fits = axis <= 1 || stride == expected;
        expected *= axis.max(1);
        fits
    });
    if contiguous {
        return data[view.offset * width..][..n * width].to_vec();
    }
    let mut out = Vec::with_capacity(n * width);
    let mut place = vec![0; view.shape.len()];
    let mut at = view.offset;
    for _ in 0..n {
        out.extend_from_slice(&data[at * width..][..width]);
        for axis in (0..place.len()).rev() {
            if place[axis] + 1 < view.shape[axis] {
                place[axis] += 1;
                at += view.strides[axis];
                break;
            }
            at -= view.strides[axis] * place[axis];
            place[axis] = 0;
        }
    }
    out
}
