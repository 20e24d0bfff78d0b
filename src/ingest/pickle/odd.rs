//! Values that are not read. They are errors only where they are needed: a recording may hold whatever else its
//! laboratory keeps with it. Nothing of them is kept but the reason. Files of weights have none: there they are refused.

use super::{Id, Machine, Node, Step};
use std::sync::Arc;

/// Why a value is not read.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Odd {
    /// What Python would call, `module.name`.
    Call(Arc<str>),
    /// An object of a class.
    Object,
    /// numpy's name of an element type.
    Elements(Arc<str>),
    /// Bytes of a whole number.
    Int(usize),
    Set,
    Text,
    /// Buffers of protocol 5.
    Outside,
    /// A reference that only the program that wrote it understands.
    Persistent,
}

impl Odd {
    /// What is wrong, as said of what holds it.
    pub(super) fn told(&self) -> String {
        let told = match self {
            Self::Call(name) => {
                return format!(
                    "wants Python to call {name}; nct runs no code from data files, and reads numbers, texts, dicts and numpy arrays only: save it as one of these. Do not open this file with Python unless you trust its author"
                );
            }
            Self::Elements(name) => {
                return format!(
                    "holds numpy elements of type {name:?}; booleans, whole and real numbers of up to 8 bytes are read"
                );
            }
            Self::Int(bytes) => return format!("holds a whole number of {bytes} bytes, and 8 are read"),
            Self::Object => {
                "makes an object of a Python class, and only numbers, texts, dicts and numpy arrays are read"
            }
            Self::Set => {
                "holds a set; numbers, texts, dicts and numpy arrays are read: save it as one of these"
            }
            Self::Text => "holds a text that is not UTF-8",
            Self::Outside => {
                "holds data outside the pickle (protocol 5 buffers); save it without buffer_callback"
            }
            Self::Persistent => {
                "holds a reference to what is not in the file; save it without persistent ids"
            }
        };
        told.to_owned()
    }
}

/// Arguments that are looked through: more than numpy's calls have, and few, since a tuple may be used again and again.
const PARTS_MAX: usize = 16;

impl Machine<'_> {
    /// A value that is not read; an error in weights.
    pub(super) fn odd(&self, odd: Odd) -> Step<Node> {
        if self.torch { Err(format!("it {}", odd.told())) } else { Ok(Node::Odd(odd)) }
    }

    pub(super) fn push_odd(&mut self, odd: Odd) -> Step<()> {
        let node = self.odd(odd)?;
        self.push(node);
        Ok(())
    }

    /// What is made of a value that is not read is not read either, for the same reason.
    pub(super) fn push_alike(&mut self, id: Id) -> Step<()> {
        let odd = if let Node::Odd(odd) = &self.nodes[id] { odd.clone() } else { Odd::Object };
        self.push_odd(odd)
    }

    /// Where `made` failed, what is odd among the tuple it was made of is the reason.
    pub(super) fn or_odd(&self, made: Step<Node>, parts: Id) -> Step<Node> {
        let Node::Tuple(parts) = &self.nodes[parts] else { return made };
        let odd = parts.iter().take(PARTS_MAX).find(|&&part| matches!(self.nodes[part], Node::Odd(_)));
        match (made, odd) {
            (Err(_), Some(&part)) => Ok(self.nodes[part].clone()),
            (made, _) => made,
        }
    }

    /// Opcodes of objects, sets and what lies outside the file.
    pub(super) fn object(&mut self, opcode: u8) -> Step<()> {
        match opcode {
            0x81 | 0x92 => {
                // Arguments, and by name.
                self.pop()?;
                if opcode == 0x92 {
                    self.pop()?;
                }
                let class = self.pop()?;
                self.push_alike(class)
            }
            b'o' => {
                let class = *self.pop_mark()?.first().ok_or_else(super::underflow)?;
                self.push_alike(class)
            }
            b'Q' => {
                self.pop()?;
                self.push_odd(Odd::Persistent)
            }
            0x8f => self.push_odd(Odd::Set),
            0x91 => {
                self.pop_mark()?;
                self.push_odd(Odd::Set)
            }
            0x90 => {
                self.pop_mark()?;
                let set = self.top()?;
                if matches!(self.nodes[set], Node::Odd(_)) {
                    Ok(())
                } else {
                    Err("items are added to what is no set".into())
                }
            }
            0x97 => self.push_odd(Odd::Outside),
            // A buffer is made read-only.
            _ => self.top().map(drop),
        }
    }
}
