//! A restricted reader of Python pickles, protocols 2 to 5: numbers, strings, lists, tuples, dicts,
//! and numpy arrays and scalars. It executes nothing: the few names that numpy's own pickles call
//! are recognised, and what any other would make is an error where it is needed (`odd`).
//!
//! Values live in one arena and refer to one another by position, so that nothing recurses, and
//! memory is bounded by the length of the file: what is copied from values that were there before is counted.

mod array;
mod calls;
mod odd;
#[cfg(test)]
mod tests;
mod torch;

use array::Elements;
pub use array::{Array, Element};
use calls::Global;
use odd::Odd;
pub use torch::{StorageKind, TensorRef, TorchPickle};

use super::error::{IngestError, Result};
use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Position of a value in the arena.
pub type Id = usize;

/// Texts and shapes may be used again and be copied for that, up to so many times the file's length in all.
const COPIES_MAX: usize = 16;

/// Bytes that may still be copied.
#[derive(Debug)]
struct Copies(usize);

impl Copies {
    fn of(file: &[u8]) -> Self {
        Self(file.len().saturating_mul(COPIES_MAX))
    }

    /// Counts `bytes` that will be copied.
    fn count(&mut self, bytes: usize) -> Step<()> {
        self.0 =
            self.0.checked_sub(bytes).ok_or("it repeats its values so often that it is no file of data")?;
        Ok(())
    }
}

/// A value as the pickle describes it.
#[derive(Debug, Clone, PartialEq)]
enum Node {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(String),
    Bytes(Bytes),
    List(Vec<Id>),
    Tuple(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Global(Global),
    DType(Elements),
    Array(Option<ArrayNode>),
    Storage(torch::Storage),
    Tensor(torch::TensorNode),
    Odd(Odd),
}

/// Bytes in the file, or made by decoding.
#[derive(Debug, Clone, PartialEq)]
enum Bytes {
    InFile(Range<usize>),
    Owned(Vec<u8>),
}

#[derive(Debug, Clone, PartialEq)]
struct ArrayNode {
    elements: Elements,
    shape: Vec<usize>,
    fortran: bool,
    data: Id,
}

/// A pickle that was read.
#[derive(Debug)]
pub struct Pickle {
    path: PathBuf,
    file: Vec<u8>,
    nodes: Vec<Node>,
    root: Id,
}

impl Pickle {
    /// Reads `path`.
    pub fn read(path: &Path) -> Result<Self> {
        let file = fs::read(path).map_err(IngestError::io(path, "read"))?;
        Self::parse(path, file)
    }

    /// Reads the bytes of a pickle; `path` is used in messages.
    pub fn parse(path: &Path, file: Vec<u8>) -> Result<Self> {
        let mut machine = Machine {
            file: &file,
            at: 0,
            nodes: Vec::new(),
            stack: Vec::new(),
            memo: BTreeMap::new(),
            copies: Copies::of(&file),
            torch: false,
        };
        let root = machine.run().map_err(|what| {
            let at = machine.at;
            // A file that is damaged and wants something called is worth both words.
            let called = machine.nodes.iter().find_map(|node| match node {
                Node::Odd(odd @ Odd::Call(_)) => Some(format!("; it {}", odd.told())),
                _ => None,
            });
            let called = called.unwrap_or_default();
            IngestError::bad(path, format!("{what} (byte {at} of {}){called}", file.len()))
        })?;
        let nodes = machine.nodes;
        if let Node::Odd(odd) = &nodes[root] {
            return Err(IngestError::bad(path, format!("it {}", odd.told())));
        }
        Ok(Self { path: path.to_path_buf(), nodes, root, file })
    }

    /// The entry `key` of the dict that the pickle holds, if it is there.
    pub fn find(&self, key: &str) -> Result<Option<Id>> {
        let Node::Dict(entries) = &self.nodes[self.root] else {
            return Err(self.bad("holds no dict"));
        };
        Ok(entries.iter().rev().find(|(k, _)| self.text(*k).as_deref() == Some(key)).map(|&(_, value)| value))
    }

    /// All pairs of the dict that the pickle holds, as text where they are numbers or strings.
    pub fn text_pairs(&self) -> Result<Vec<(String, String)>> {
        let Node::Dict(entries) = &self.nodes[self.root] else {
            return Err(self.bad("holds no dict"));
        };
        let mut copies = Copies::of(&self.file);
        let mut pair = |&(k, v): &(Id, Id)| {
            let text = |id| {
                self.text(id).ok_or_else(|| match self.odd(id) {
                    Some(why) => format!("a key or value {why}"),
                    None => "a key or value is no text or number".to_owned(),
                })
            };
            let pair = (text(k)?, text(v)?);
            copies.count(pair.0.len() + pair.1.len())?;
            Ok(pair)
        };
        entries.iter().map(|e| pair(e).map_err(|what: String| self.bad(what))).collect()
    }

    /// The entry `key`, which must be there.
    pub fn get(&self, key: &str) -> Result<Id> {
        self.find(key)?.ok_or_else(|| self.bad(format!("no entry {key:?}")))
    }

    /// A string or whole number as text.
    pub fn text(&self, id: Id) -> Option<String> {
        match &self.nodes[id] {
            Node::Str(text) => Some(text.clone()),
            Node::Int(n) => Some(n.to_string()),
            Node::Float(x) if x.fract() == 0.0 && x.abs() < 1e15 => Some(format!("{x:.0}")),
            Node::Bytes(bytes) => String::from_utf8(self.bytes(bytes).to_vec()).ok(),
            _ => None,
        }
    }

    /// Why a value is none that is read, if it is none, as said of what holds it.
    pub fn odd(&self, id: Id) -> Option<String> {
        if let Node::Odd(odd) = &self.nodes[id] { Some(odd.told()) } else { None }
    }

    /// A numpy array of numbers.
    pub fn array(&self, id: Id) -> std::result::Result<Array<'_>, String> {
        let Node::Array(Some(node)) = &self.nodes[id] else {
            return Err(self.odd(id).unwrap_or_else(|| "is no numpy array".to_owned()));
        };
        let Node::Bytes(data) = &self.nodes[node.data] else {
            return Err("is an array without data".to_owned());
        };
        Array::new(node.elements, node.shape.clone(), node.fortran, self.bytes(data))
    }

    fn bytes<'a>(&'a self, bytes: &'a Bytes) -> &'a [u8] {
        match bytes {
            Bytes::InFile(range) => &self.file[range.clone()],
            Bytes::Owned(bytes) => bytes,
        }
    }

    fn bad(&self, what: impl Into<String>) -> IngestError {
        IngestError::bad(&self.path, what)
    }
}

/// The pickle machine: a stack of values and a memo.
struct Machine<'a> {
    file: &'a [u8],
    at: usize,
    nodes: Vec<Node>,
    /// `None` is a mark.
    stack: Vec<Option<Id>>,
    memo: BTreeMap<u32, Id>,
    copies: Copies,
    /// Whether PyTorch's names and storages are known.
    torch: bool,
}

type Step<T> = std::result::Result<T, String>;

impl Machine<'_> {
    fn run(&mut self) -> Step<Id> {
        loop {
            let opcode = self.take(1).map_err(|_| "the pickle is cut short: it has no end")?[0];
            if opcode == b'.' {
                return self.pop();
            }
            self.step(opcode)?;
        }
    }

    fn step(&mut self, opcode: u8) -> Step<()> {
        match opcode {
            0x80 => self.protocol(),
            0x95 => self.frame(),
            b'(' => {
                self.stack.push(None);
                Ok(())
            }
            b'0' => self.stack.pop().map(drop).ok_or_else(underflow),
            b'1' => self.pop_mark().map(drop),
            b'2' => {
                let top = self.pop()?;
                self.stack.extend([Some(top), Some(top)]);
                Ok(())
            }
            b'N' => {
                self.push(Node::None);
                Ok(())
            }
            0x88 => {
                self.push(Node::Bool(true));
                Ok(())
            }
            0x89 => {
                self.push(Node::Bool(false));
                Ok(())
            }
            b'J' | b'K' | b'M' | 0x8a | 0x8b | b'G' => self.number(opcode),
            b'X' | 0x8c | 0x8d | b'U' | b'T' | b'B' | b'C' | 0x8e | 0x96 => self.string(opcode),
            b']' => {
                self.push(Node::List(Vec::new()));
                Ok(())
            }
            b')' => {
                self.push(Node::Tuple(Vec::new()));
                Ok(())
            }
            b'}' => {
                self.push(Node::Dict(Vec::new()));
                Ok(())
            }
            b't' | b'l' | b'd' | 0x85..=0x87 => self.container(opcode),
            b'a' | b'e' => self.append(opcode),
            b's' | b'u' => self.set_items(opcode),
            b'q' | b'r' | 0x94 | b'h' | b'j' => self.memo(opcode),
            b'c' | 0x93 => self.global(opcode),
            b'R' => self.reduce(),
            b'b' => self.build(),
            b'Q' if self.torch => self.persistent(),
            b'o' | 0x81 | 0x92 | b'Q' | 0x8f..=0x91 | 0x97 | 0x98 if !self.torch => self.object(opcode),
            0x97 | 0x98 => self.push_odd(Odd::Outside),
            b'o' | b'i' | 0x81 | 0x92 | b'P' | b'Q' => Err(format!("it {}", Odd::Object.told())),
            other => {
                Err(format!("opcode {other:#04x} belongs to no pickle of protocol 2 to 5: is it a pickle?"))
            }
        }
    }

    fn take(&mut self, n: usize) -> Step<&[u8]> {
        let rest = self.file.len() - self.at;
        if n > rest {
            return Err(format!("the pickle is cut short: {n} bytes are announced and {rest} are left"));
        }
        self.at += n;
        Ok(&self.file[self.at - n..self.at])
    }

    fn uint(&mut self, n: usize) -> Step<u64> {
        Ok(self.take(n)?.iter().rev().fold(0, |value, &byte| (value << 8) | u64::from(byte)))
    }

    fn line(&mut self) -> Step<String> {
        let rest = &self.file[self.at..];
        let n = rest.iter().position(|&b| b == b'\n').ok_or("the pickle is cut short within a name")?;
        let line = self.take(n + 1)?;
        String::from_utf8(line[..n].to_vec()).map_err(|_| "a name that is no text".to_owned())
    }

    fn push(&mut self, node: Node) {
        self.nodes.push(node);
        self.stack.push(Some(self.nodes.len() - 1));
    }

    fn pop(&mut self) -> Step<Id> {
        self.stack.pop().flatten().ok_or_else(underflow)
    }

    fn pop_mark(&mut self) -> Step<Vec<Id>> {
        let mark = self.stack.iter().rposition(Option::is_none).ok_or_else(underflow)?;
        let items = self.stack.split_off(mark);
        Ok(items.into_iter().flatten().collect())
    }

    fn protocol(&mut self) -> Step<()> {
        match self.uint(1)? {
            2..=5 => Ok(()),
            other => Err(format!("pickle protocol {other}, and 2 to 5 are read")),
        }
    }

    fn frame(&mut self) -> Step<()> {
        let (n, rest) = (self.uint(8)?, self.file.len() - self.at);
        if n > rest as u64 {
            return Err(format!("the pickle is cut short: a frame of {n} bytes, and {rest} are left"));
        }
        Ok(())
    }

    fn number(&mut self, opcode: u8) -> Step<()> {
        let node = match opcode {
            b'J' => Node::Int(i64::from(self.uint(4)? as u32 as i32)),
            b'K' => Node::Int(self.uint(1)? as i64),
            b'M' => Node::Int(self.uint(2)? as i64),
            b'G' => Node::Float(f64::from_bits((self.uint(8)?).swap_bytes())),
            _ => {
                let n = self.uint(if opcode == 0x8a { 1 } else { 4 })? as usize;
                if n > 8 {
                    self.take(n)?;
                    return self.push_odd(Odd::Int(n));
                }
                let word = self.uint(n)?;
                let unused = 64 - 8 * n as u32;
                Node::Int(if n == 0 { 0 } else { ((word << unused) as i64) >> unused })
            }
        };
        self.push(node);
        Ok(())
    }

    fn string(&mut self, opcode: u8) -> Step<()> {
        let width = match opcode {
            0x8c | b'U' | b'C' => 1,
            b'X' | b'T' | b'B' => 4,
            _ => 8,
        };
        let n = usize::try_from(self.uint(width)?).map_err(|e| e.to_string())?;
        let python2 = self.torch && matches!(opcode, b'U' | b'T');
        let text = self.take(n)?;
        // Python 2 wrote names as bytes.
        let node = if matches!(opcode, b'X' | 0x8c | 0x8d) || python2 {
            match String::from_utf8(text.to_vec()) {
                Ok(text) => Node::Str(text),
                Err(_) => self.odd(Odd::Text)?,
            }
        } else {
            Node::Bytes(Bytes::InFile(self.at - n..self.at))
        };
        self.push(node);
        Ok(())
    }

    fn container(&mut self, opcode: u8) -> Step<()> {
        let items = match opcode {
            0x85..=0x87 => {
                let n = usize::from(opcode - 0x84);
                let start = self.stack.len().checked_sub(n).ok_or_else(underflow)?;
                let items: Option<Vec<Id>> = self.stack.split_off(start).into_iter().collect();
                items.ok_or_else(underflow)?
            }
            _ => self.pop_mark()?,
        };
        self.push(match opcode {
            b'l' => Node::List(items),
            b'd' => Node::Dict(pairs(&items)?),
            _ => Node::Tuple(items),
        });
        Ok(())
    }

    fn append(&mut self, opcode: u8) -> Step<()> {
        let mut items = if opcode == b'a' { vec![self.pop()?] } else { self.pop_mark()? };
        let list = self.top()?;
        match &mut self.nodes[list] {
            Node::List(list) => list.append(&mut items),
            Node::Odd(_) => {}
            _ => return Err("items are appended to what is no list".into()),
        }
        Ok(())
    }

    fn set_items(&mut self, opcode: u8) -> Step<()> {
        let items = if opcode == b's' {
            let value = self.pop()?;
            vec![self.pop()?, value]
        } else {
            self.pop_mark()?
        };
        let mut items = pairs(&items)?;
        let dict = self.top()?;
        match &mut self.nodes[dict] {
            Node::Dict(dict) => dict.append(&mut items),
            Node::Odd(_) => {}
            _ => return Err("entries are set in what is no dict".into()),
        }
        Ok(())
    }

    fn top(&self) -> Step<Id> {
        self.stack.last().copied().flatten().ok_or_else(underflow)
    }

    fn memo(&mut self, opcode: u8) -> Step<()> {
        let key = match opcode {
            0x94 => self.memo.len() as u32,
            b'q' | b'h' => self.uint(1)? as u32,
            _ => self.uint(4)? as u32,
        };
        if matches!(opcode, b'h' | b'j') {
            let id = *self.memo.get(&key).ok_or("it refers to a value that is not there")?;
            self.stack.push(Some(id));
        } else {
            let top = self.top()?;
            self.memo.insert(key, top);
        }
        Ok(())
    }
}

fn pairs(items: &[Id]) -> Step<Vec<(Id, Id)>> {
    let (pairs, rest) = items.as_chunks::<2>();
    if rest.is_empty() {
        Ok(pairs.iter().map(|&[k, v]| (k, v)).collect())
    } else {
        Err("a key without value".into())
    }
}

fn underflow() -> String {
    "it takes a value that is not there".to_owned()
}
