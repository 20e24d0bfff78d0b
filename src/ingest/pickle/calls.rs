//! The few names that numpy's pickles call: recognised, never called.

use super::array::{Array, Element, Elements};
use super::{ArrayNode, Bytes, Id, Machine, Node, Step, torch};

/// The names that numpy's pickles call, and those of PyTorch's where these are asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Global {
    Reconstruct,
    NdArray,
    DType,
    Scalar,
    FromBuffer,
    Encode,
    Bytes,
    Torch(torch::Call),
}

impl Machine<'_> {
    pub(super) fn global(&mut self, opcode: u8) -> Step<()> {
        let (module, name) = if opcode == b'c' {
            (self.line()?, self.line()?)
        } else {
            let (name, module) = (self.pop()?, self.pop()?);
            match (&self.nodes[module], &self.nodes[name]) {
                (Node::Str(module), Node::Str(name)) => (module.clone(), name.clone()),
                _ => return Err("a name that is no text".into()),
            }
        };
        if self.torch
            && let Some(call) = torch::Call::named(&module, &name)
        {
            self.push(Node::Global(Global::Torch(call)));
            return Ok(());
        }
        let numpy = module.replacen("numpy._core", "numpy.core", 1);
        let global = match (numpy.as_str(), name.as_str()) {
            ("numpy.core.multiarray", "_reconstruct") => Global::Reconstruct,
            ("numpy.core.multiarray", "scalar") => Global::Scalar,
            ("numpy.core.numeric", "_frombuffer") => Global::FromBuffer,
            ("numpy", "ndarray") => Global::NdArray,
            ("numpy", "dtype") => Global::DType,
            ("_codecs", "encode") => Global::Encode,
            ("builtins" | "__builtin__", "bytes") => Global::Bytes,
            _ => {
                if self.torch {
                    return Err(torch::refused(&module, &name));
                }
                return Err(format!(
                    "it wants Python to call {module}.{name}; nct runs no code from data files, and reads numbers, texts, dicts and numpy arrays only. Do not open this file with Python unless you trust its author"
                ));
            }
        };
        self.push(Node::Global(global));
        Ok(())
    }

    pub(super) fn reduce(&mut self) -> Step<()> {
        let (args, callee) = (self.pop()?, self.pop()?);
        let (Node::Tuple(args), Node::Global(global)) = (&self.nodes[args], &self.nodes[callee]) else {
            return Err("a call without a name or arguments".into());
        };
        if let Global::Torch(call) = *global {
            if args.len() > torch::ARGS_MAX {
                return Err(format!("a call with {} arguments, which PyTorch does not write", args.len()));
            }
            let args = args.clone();
            return self.torch_call(call, &args);
        }
        let node = match (global, args.as_slice()) {
            (Global::Reconstruct, [class, ..]) if self.nodes[*class] == Node::Global(Global::NdArray) => {
                Node::Array(None)
            }
            (Global::DType, [name, ..]) => match &self.nodes[*name] {
                Node::Str(name) => Node::DType(Elements::named(name)?),
                Node::Bytes(Bytes::InFile(name)) => {
                    Node::DType(Elements::named(&String::from_utf8_lossy(&self.file[name.clone()]))?)
                }
                _ => return Err("an element type without a name".into()),
            },
            (Global::Scalar, [dtype, data]) => self.scalar(*dtype, *data)?,
            (Global::FromBuffer, [data, dtype, shape, order]) => {
                let (data, dtype, shape, order) = (*data, *dtype, *shape, *order);
                let fortran = self.nodes[order] == Node::Str("F".into());
                Node::Array(Some(self.array_node(dtype, shape, fortran, data)?))
            }
            (Global::Encode, [text, ..]) => match &self.nodes[*text] {
                Node::Str(text) => {
                    self.copies.count(text.len())?;
                    let bytes: Option<Vec<u8>> =
                        text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect();
                    Node::Bytes(Bytes::Owned(bytes.ok_or("bytes written as text beyond latin-1")?))
                }
                _ => return Err("bytes that are no text".into()),
            },
            (Global::Bytes, []) => Node::Bytes(Bytes::Owned(Vec::new())),
            _ => return Err("a call with arguments that numpy does not write".into()),
        };
        self.push(node);
        Ok(())
    }

    fn scalar(&self, dtype: Id, data: Id) -> Step<Node> {
        let (Node::DType(elements), Node::Bytes(bytes)) = (&self.nodes[dtype], &self.nodes[data]) else {
            return Err("a numpy scalar without type or data".into());
        };
        let bytes = match bytes {
            Bytes::InFile(range) => &self.file[range.clone()],
            Bytes::Owned(bytes) => bytes,
        };
        let array = Array::new(*elements, vec![1], false, bytes)?;
        Ok(match array.element(0) {
            Element::Int(n) => Node::Int(n),
            Element::Float(x) => Node::Float(x),
        })
    }

    pub(super) fn build(&mut self) -> Step<()> {
        let (state, target) = (self.pop()?, self.top()?);
        if self.torch && matches!(self.nodes[target], Node::Dict(_)) {
            // The attribute _metadata of a state dict: version numbers of PyTorch's modules.
            return Ok(());
        }
        let Node::Tuple(state) = &self.nodes[state] else {
            return Err("an object state that numpy does not write".into());
        };
        let node = match (&self.nodes[target], state.as_slice()) {
            (Node::DType(elements), [_, order, ..]) => match &self.nodes[*order] {
                Node::Str(order) => Node::DType(elements.in_order(order)?),
                Node::Bytes(Bytes::InFile(order)) => {
                    Node::DType(elements.in_order(&String::from_utf8_lossy(&self.file[order.clone()]))?)
                }
                _ => return Err("an element type without byte order".into()),
            },
            (Node::Array(None), [_, shape, dtype, fortran, data]) => {
                let (shape, dtype, data) = (*shape, *dtype, *data);
                let fortran = matches!(self.nodes[*fortran], Node::Bool(true) | Node::Int(1));
                Node::Array(Some(self.array_node(dtype, shape, fortran, data)?))
            }
            _ => return Err("an object state that numpy does not write".into()),
        };
        self.nodes[target] = node;
        Ok(())
    }

    fn array_node(&mut self, dtype: Id, shape: Id, fortran: bool, data: Id) -> Step<ArrayNode> {
        let (Node::DType(elements), Node::Tuple(axes)) = (&self.nodes[dtype], &self.nodes[shape]) else {
            return Err("an array without element type or shape".into());
        };
        self.copies.count(size_of_val(axes.as_slice()))?;
        let axis = |&id: &Id| match self.nodes[id] {
            Node::Int(n) => usize::try_from(n).ok(),
            _ => None,
        };
        let shape: Option<Vec<usize>> = axes.iter().map(axis).collect();
        let shape = shape.ok_or("an array whose shape is no list of sizes")?;
        if !matches!(self.nodes[data], Node::Bytes(_)) {
            return Err("an array of Python objects; only numbers are read".into());
        }
        Ok(ArrayNode { elements: *elements, shape, fortran, data })
    }
}
