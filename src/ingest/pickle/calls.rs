//! The few names that numpy's pickles call: recognised, never called.

use super::array::{Array, Element, Elements};
use super::{ArrayNode, Bytes, Id, Machine, Node, Odd, Step, torch};

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
    /// A kind of dict.
    Dict,
    Torch(torch::Call),
}

impl Machine<'_> {
    pub(super) fn global(&mut self, opcode: u8) -> Step<()> {
        let (module, name) = if opcode == b'c' {
            (self.line()?, self.line()?)
        } else {
            let (name, module) = (self.pop()?, self.pop()?);
            match (&self.nodes[module], &self.nodes[name]) {
                (Node::Str(module), Node::Str(name)) => {
                    self.copies.count(module.len() + name.len())?;
                    (module.clone(), name.clone())
                }
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
            _ if self.torch => return Err(torch::refused(&module, &name)),
            ("collections", "OrderedDict" | "defaultdict" | "Counter") => Global::Dict,
            _ => return self.push_odd(Odd::Call(format!("{module}.{name}").into())),
        };
        self.push(Node::Global(global));
        Ok(())
    }

    pub(super) fn reduce(&mut self) -> Step<()> {
        let (args, callee) = (self.pop()?, self.pop()?);
        if matches!(self.nodes[callee], Node::Odd(_)) {
            return self.push_alike(callee);
        }
        let (Node::Tuple(given), Node::Global(global)) = (&self.nodes[args], &self.nodes[callee]) else {
            return Err("a call without a name or arguments".into());
        };
        if let Global::Torch(call) = *global {
            if given.len() > torch::ARGS_MAX {
                return Err(format!("a call with {} arguments, which PyTorch does not write", given.len()));
            }
            let given = given.clone();
            return self.torch_call(call, &given);
        }
        let made = self.call(*global, args);
        let node = self.or_odd(made, args)?;
        self.push(node);
        Ok(())
    }

    fn call(&mut self, global: Global, args: Id) -> Step<Node> {
        let Node::Tuple(args) = &self.nodes[args] else { return Err("a call without arguments".into()) };
        Ok(match (global, args.as_slice()) {
            (Global::Reconstruct, [class, ..]) if self.nodes[*class] == Node::Global(Global::NdArray) => {
                Node::Array(None)
            }
            (Global::DType, &[name, ..]) => self.dtype(name)?,
            (Global::Scalar, &[dtype, data]) => self.scalar(dtype, data)?,
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
            (Global::Dict, &[items]) => self.dict_of(items)?,
            (Global::Dict, []) => Node::Dict(Vec::new()),
            _ => return Err("a call with arguments that numpy does not write".into()),
        })
    }

    /// Of an `OrderedDict` of Python 2 the pairs, of a `Counter` the dict, and of a `defaultdict` what makes its defaults.
    fn dict_of(&mut self, items: Id) -> Step<Node> {
        match &mut self.nodes[items] {
            Node::List(_) => self.dict_of_pairs(items),
            Node::Dict(items) => Ok(Node::Dict(std::mem::take(items))),
            _ => Ok(Node::Dict(Vec::new())),
        }
    }

    /// A dict of a list of pairs.
    pub(super) fn dict_of_pairs(&mut self, items: Id) -> Step<Node> {
        let Node::List(items) = &mut self.nodes[items] else {
            return Err("an OrderedDict of what is no list".into());
        };
        // Taken, not copied: thousands of dicts of one list would fill the memory.
        let items = std::mem::take(items);
        let pair = |&id: &Id| match &self.nodes[id] {
            Node::List(pair) | Node::Tuple(pair) if pair.len() == 2 => Ok((pair[0], pair[1])),
            _ => Err("an OrderedDict of what are no pairs".to_owned()),
        };
        Ok(Node::Dict(items.iter().map(pair).collect::<Step<_>>()?))
    }

    /// The element type of a name; numbers only in weights.
    fn dtype(&mut self, name: Id) -> Step<Node> {
        let name = match &self.nodes[name] {
            Node::Str(name) => name.as_str().into(),
            Node::Bytes(Bytes::InFile(name)) => String::from_utf8_lossy(&self.file[name.clone()]),
            _ => return Err("an element type without a name".into()),
        };
        match Elements::named(&name) {
            Some(elements) if !self.torch || elements.text().is_none() => Ok(Node::DType(elements)),
            _ => {
                self.copies.count(name.len())?;
                self.odd(Odd::Elements(name.as_ref().into()))
            }
        }
    }

    fn scalar(&mut self, dtype: Id, data: Id) -> Step<Node> {
        let (&Node::DType(elements), Node::Bytes(data)) = (&self.nodes[dtype], &self.nodes[data]) else {
            return Err("a numpy scalar without type or data".into());
        };
        let bytes = match data {
            Bytes::InFile(range) => &self.file[range.clone()],
            Bytes::Owned(bytes) => bytes,
        };
        if elements.text().is_some() {
            if bytes.len() != elements.bytes() {
                return Err(format!("a numpy text of {} bytes with {}", elements.bytes(), bytes.len()));
            }
            self.copies.count(bytes.len())?;
            if elements.is_wide() {
                return elements.characters(bytes).map_or_else(|| self.odd(Odd::Text), |t| Ok(Node::Str(t)));
            }
            let end = bytes.iter().rposition(|&b| b != 0).map_or(0, |last| last + 1);
            return Ok(Node::Bytes(Bytes::Owned(bytes[..end].to_vec())));
        }
        let array = Array::new(elements, vec![1], false, bytes)?;
        Ok(match array.element(0) {
            Element::Int(n) => Node::Int(n),
            Element::Float(x) => Node::Float(x),
        })
    }

    pub(super) fn build(&mut self) -> Step<()> {
        let (state, target) = (self.pop()?, self.top()?);
        // Of a state dict the attribute _metadata: version numbers of PyTorch's modules. Of other dicts attributes too.
        if matches!(self.nodes[target], Node::Dict(_) | Node::Odd(_)) {
            return Ok(());
        }
        let built = self.built(target, state);
        self.nodes[target] = self.or_odd(built, state)?;
        Ok(())
    }

    fn built(&mut self, target: Id, state: Id) -> Step<Node> {
        let Node::Tuple(state) = &self.nodes[state] else {
            return Err("an object state that numpy does not write".into());
        };
        Ok(match (&self.nodes[target], state.as_slice()) {
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
        })
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
