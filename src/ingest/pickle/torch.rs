//! What PyTorch's files add to pickles: storages, which lie outside, and tensors, which are views of them.
//! Nothing is called; the few names that `torch.save` writes for tensors are recognised.

use super::calls::Global;
use super::{Copies, Id, Machine, Node, Step};
use std::collections::BTreeMap;

/// Element type of a storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StorageKind {
    /// Double precision.
    F64,
    /// Single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    Bf16,
    /// Signed 64-bit.
    I64,
    /// Signed 32-bit.
    I32,
    /// Unsigned byte.
    U8,
    /// Boolean, a byte each.
    Bool,
}

impl StorageKind {
    fn named(class: &str) -> Option<Self> {
        Some(match class {
            "DoubleStorage" => Self::F64,
            "FloatStorage" => Self::F32,
            "HalfStorage" => Self::F16,
            "BFloat16Storage" => Self::Bf16,
            "LongStorage" => Self::I64,
            "IntStorage" => Self::I32,
            "ByteStorage" => Self::U8,
            "BoolStorage" => Self::Bool,
            _ => return None,
        })
    }

    /// Bytes per element.
    pub const fn bytes(self) -> usize {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::U8 | Self::Bool => 1,
        }
    }
}

/// The names that PyTorch's state dicts call.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Call {
    OrderedDict,
    Tensor,
    Parameter,
    Size,
    Storage(StorageKind),
}

impl Call {
    pub(super) fn named(module: &str, name: &str) -> Option<Self> {
        Some(match (module, name) {
            ("collections", "OrderedDict") => Self::OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2") => Self::Tensor,
            ("torch._utils", "_rebuild_parameter") => Self::Parameter,
            ("torch", "Size") => Self::Size,
            ("torch" | "torch.cuda", class) => Self::Storage(StorageKind::named(class)?),
            _ => return None,
        })
    }
}

/// The message for a name that is not on the list.
pub(super) fn refused(module: &str, name: &str) -> String {
    if module == "torch" && name.ends_with("Storage") {
        return format!(
            "it holds a torch.{name}; float32, float64, float16, bfloat16, int64, int32, uint8 and bool are read"
        );
    }
    format!(
        "it wants Python to call {module}.{name}, which no weights need; nothing of the file was run. Save the state_dict alone with torch.save, or as safetensors, and do not open this file with Python unless you trust its author"
    )
}

/// Data outside the pickle.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Storage {
    kind: StorageKind,
    key: String,
    elements: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct TensorNode {
    storage: Id,
    offset: usize,
    shape: Vec<usize>,
    strides: Vec<usize>,
}

/// A tensor: a view of a storage, all in elements.
#[derive(Debug, Clone, Copy)]
pub struct TensorRef<'a> {
    /// Element type.
    pub kind: StorageKind,
    /// Name of the storage.
    pub key: &'a str,
    /// Elements of the storage.
    pub elements: usize,
    /// Where the view begins.
    pub offset: usize,
    /// Extent of each axis.
    pub shape: &'a [usize],
    /// Distance between neighbours along each axis.
    pub strides: &'a [usize],
}

/// More arguments than any call of PyTorch's has.
pub(super) const ARGS_MAX: usize = 16;
/// PyTorch makes no tensor of more axes.
const AXES_MAX: usize = 64;

impl Machine<'_> {
    /// `('storage', class, key, device, elements)`, and in the old format a view, which must be none.
    pub(super) fn persistent(&mut self) -> Step<()> {
        let id = self.pop()?;
        let bad = || "a reference that is no storage of PyTorch's".to_owned();
        let Node::Tuple(parts) = &self.nodes[id] else { return Err(bad()) };
        let (&[tag, class, key, _, elements], view) = parts.split_first_chunk().ok_or_else(bad)?;
        match (&self.nodes[tag], &self.nodes[class], &self.nodes[key], &self.nodes[elements]) {
            (
                Node::Str(tag),
                Node::Global(Global::Torch(Call::Storage(kind))),
                Node::Str(key),
                Node::Int(n),
            ) if tag == "storage" => {
                if view.iter().any(|&part| self.nodes[part] != Node::None) {
                    return Err("a storage that is a view of another, as PyTorch before 0.4 wrote; save it again with a newer one".into());
                }
                let elements = usize::try_from(*n).map_err(|_| bad())?;
                self.copies.count(key.len())?;
                let storage = Storage { kind: *kind, key: key.clone(), elements };
                self.push(Node::Storage(storage));
                Ok(())
            }
            _ => Err(bad()),
        }
    }

    pub(super) fn torch_call(&mut self, call: Call, args: &[Id]) -> Step<()> {
        match (call, args) {
            (Call::OrderedDict, []) => self.push(Node::Dict(Vec::new())),
            (Call::OrderedDict, [items]) => {
                let dict = self.dict_of_pairs(*items)?;
                self.push(dict);
            }
            (Call::Tensor, [storage, offset, shape, strides, ..]) => {
                if !matches!(self.nodes[*storage], Node::Storage(_)) {
                    return Err("a tensor without a storage".into());
                }
                let Node::Int(offset) = self.nodes[*offset] else {
                    return Err("a tensor without a place in its storage".into());
                };
                let offset = usize::try_from(offset).map_err(|_| "a tensor before its storage")?;
                let (shape, strides) = (self.sizes(*shape)?, self.sizes(*strides)?);
                if shape.len() != strides.len() {
                    return Err("a tensor whose shape and strides differ in length".into());
                }
                self.push(Node::Tensor(TensorNode { storage: *storage, offset, shape, strides }));
            }
            (Call::Parameter, [data, ..]) if matches!(self.nodes[*data], Node::Tensor(_)) => {
                self.stack.push(Some(*data));
            }
            (Call::Size, [sizes]) => self.stack.push(Some(*sizes)),
            _ => return Err("a call with arguments that PyTorch does not write".into()),
        }
        Ok(())
    }

    fn sizes(&mut self, id: Id) -> Step<Vec<usize>> {
        let Node::Tuple(axes) = &self.nodes[id] else { return Err("a shape that is no tuple".into()) };
        if axes.len() > AXES_MAX {
            return Err(format!("a tensor of {} axes, and {AXES_MAX} are read", axes.len()));
        }
        self.copies.count(size_of_val(axes.as_slice()))?;
        let size = |&id: &Id| match self.nodes[id] {
            Node::Int(n) => usize::try_from(n).map_err(|_| format!("a size or stride of {n}")),
            _ => Err("a size that is no number".to_owned()),
        };
        axes.iter().map(size).collect()
    }
}

/// One of the pickles in a file of PyTorch's.
#[derive(Debug)]
pub struct TorchPickle {
    nodes: Vec<Node>,
    root: Id,
}

impl TorchPickle {
    /// Reads the pickle that begins at byte `start` of `file`, and says where it ends.
    ///
    /// # Errors
    /// What is wrong, and at which byte.
    pub fn parse(file: &[u8], start: usize) -> Result<(Self, usize), String> {
        let mut machine = Machine {
            file,
            at: start.min(file.len()),
            nodes: Vec::new(),
            stack: Vec::new(),
            memo: BTreeMap::new(),
            copies: Copies::of(file),
            torch: true,
        };
        match machine.run() {
            Ok(root) => Ok((Self { nodes: machine.nodes, root }, machine.at)),
            Err(what) => Err(format!("{what} (byte {} of {})", machine.at, file.len())),
        }
    }

    /// What the pickle holds.
    pub fn root(&self) -> Id {
        self.root
    }

    /// The entries of a dict whose keys are text.
    pub fn entries(&self, id: Id) -> Option<Vec<(&str, Id)>> {
        let Node::Dict(entries) = &self.nodes[id] else { return None };
        let entry = |&(k, v): &(Id, Id)| match &self.nodes[k] {
            Node::Str(key) => Some((key.as_str(), v)),
            _ => None,
        };
        entries.iter().map(entry).collect()
    }

    /// The texts of a list.
    pub fn texts(&self, id: Id) -> Option<Vec<&str>> {
        let Node::List(items) = &self.nodes[id] else { return None };
        let text = |&id: &Id| match &self.nodes[id] {
            Node::Str(text) => Some(text.as_str()),
            _ => None,
        };
        items.iter().map(text).collect()
    }

    /// A whole number, or a truth value as 0 or 1.
    pub fn int(&self, id: Id) -> Option<i64> {
        match self.nodes[id] {
            Node::Int(n) => Some(n),
            Node::Bool(b) => Some(i64::from(b)),
            _ => None,
        }
    }

    /// A tensor.
    pub fn tensor(&self, id: Id) -> Option<TensorRef<'_>> {
        let Node::Tensor(view) = &self.nodes[id] else { return None };
        self.view(view)
    }

    fn view<'a>(&'a self, view: &'a TensorNode) -> Option<TensorRef<'a>> {
        let Node::Storage(storage) = &self.nodes[view.storage] else { return None };
        Some(TensorRef {
            kind: storage.kind,
            key: &storage.key,
            elements: storage.elements,
            offset: view.offset,
            shape: &view.shape,
            strides: &view.strides,
        })
    }

    /// Types and lengths of all storages by name.
    pub fn storages(&self) -> BTreeMap<&str, (StorageKind, usize)> {
        let storage = |node| match node {
            &Node::Storage(Storage { kind, ref key, elements }) => Some((key.as_str(), (kind, elements))),
            _ => None,
        };
        self.nodes.iter().filter_map(storage).collect()
    }
}
