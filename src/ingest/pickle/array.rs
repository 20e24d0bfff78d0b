//! numpy arrays within a pickle: element types, byte order, memory order.

/// Element type of an array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Elements {
    kind: Kind,
    bytes: usize,
    big_endian: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Bool,
    Int,
    UInt,
    Float,
    /// Texts of four bytes a character, filled up with zeros.
    Text,
    /// Texts of a byte a character.
    Bytes,
}

impl Elements {
    /// numpy's short name: `f4`, `i8`, `u1`, `b1`, `U13`. None for other types than numbers and texts.
    pub(super) fn named(name: &str) -> Option<Self> {
        let name = name.trim_start_matches(['<', '>', '|', '=']);
        let (kind, bytes) = match name {
            "b1" => (Kind::Bool, 1),
            "i1" | "i2" | "i4" | "i8" => (Kind::Int, usize::from(name.as_bytes()[1] - b'0')),
            "u1" | "u2" | "u4" | "u8" => (Kind::UInt, usize::from(name.as_bytes()[1] - b'0')),
            "f2" | "f4" | "f8" => (Kind::Float, usize::from(name.as_bytes()[1] - b'0')),
            other => match (other.strip_prefix('U'), other.strip_prefix('S')) {
                (Some(n), _) => (Kind::Text, n.parse::<usize>().ok()?.checked_mul(4)?),
                (_, Some(n)) => (Kind::Bytes, n.parse().ok()?),
                _ => return None,
            },
        };
        Some(Self { kind, bytes, big_endian: false })
    }

    /// Whether they are texts; numpy's name of them.
    pub(super) fn text(self) -> Option<String> {
        match self.kind {
            Kind::Text => Some(format!("U{}", self.bytes / 4)),
            Kind::Bytes => Some(format!("S{}", self.bytes)),
            _ => None,
        }
    }

    /// Bytes of an element.
    pub(super) fn bytes(self) -> usize {
        self.bytes
    }

    /// The characters of a text of four bytes each. None if they are no characters.
    pub(super) fn characters(self, data: &[u8]) -> Option<String> {
        let order = if self.big_endian { u32::from_be_bytes } else { u32::from_le_bytes };
        let mut text: String =
            data.as_chunks::<4>().0.iter().map(|&c| char::from_u32(order(c))).collect::<Option<_>>()?;
        text.truncate(text.trim_end_matches('\0').len());
        Some(text)
    }

    /// Whether a character has four bytes.
    pub(super) fn is_wide(self) -> bool {
        self.kind == Kind::Text
    }

    /// The same in numpy's byte order `<`, `>`, `|` or `=`.
    pub(super) fn in_order(self, order: &str) -> Result<Self, String> {
        match order {
            ">" => Ok(Self { big_endian: true, ..self }),
            "<" | "|" | "=" => Ok(Self { big_endian: false, ..self }),
            other => Err(format!("byte order {other:?}")),
        }
    }
}

/// One number of an array.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Element {
    /// Booleans and whole numbers.
    Int(i64),
    /// Real numbers.
    Float(f64),
}

/// A numpy array whose data lie in the pickle.
#[derive(Debug, Clone)]
pub struct Array<'a> {
    elements: Elements,
    shape: Vec<usize>,
    strides: Vec<usize>,
    data: &'a [u8],
}

impl<'a> Array<'a> {
    pub(super) fn new(
        elements: Elements,
        shape: Vec<usize>,
        fortran: bool,
        data: &'a [u8],
    ) -> Result<Self, String> {
        if let Some(name) = elements.text() {
            return Err(super::Odd::Elements(name.into()).told());
        }
        let n = shape.iter().try_fold(1usize, |n, &axis| n.checked_mul(axis));
        let expected = n.and_then(|n| n.checked_mul(elements.bytes));
        if expected != Some(data.len()) {
            return Err(format!("is an array of shape {shape:?} with {} bytes of data", data.len()));
        }
        let mut strides = vec![0; shape.len()];
        let mut stride = 1;
        let axes: Vec<usize> =
            if fortran { (0..shape.len()).collect() } else { (0..shape.len()).rev().collect() };
        for axis in axes {
            strides[axis] = stride;
            stride *= shape[axis].max(1);
        }
        Ok(Self { elements, shape, strides, data })
    }

    /// Extent of each axis.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Distance, in elements, between neighbours along each axis.
    pub fn strides(&self) -> &[usize] {
        &self.strides
    }

    /// The element at position `at` in memory order.
    pub fn element(&self, at: usize) -> Element {
        let Elements { kind, bytes, big_endian } = self.elements;
        let stored = &self.data[at * bytes..][..bytes];
        let mut word = [0u8; 8];
        for (i, &byte) in stored.iter().enumerate() {
            word[if big_endian { bytes - 1 - i } else { i }] = byte;
        }
        let word = u64::from_le_bytes(word);
        let unused = 64 - 8 * bytes as u32;
        match (kind, bytes) {
            (Kind::Bool, _) => Element::Int(i64::from(word != 0)),
            (Kind::Int, _) => Element::Int(((word << unused) as i64) >> unused),
            (Kind::UInt, _) => i64::try_from(word).map_or(Element::Float(word as f64), Element::Int),
            (Kind::Float, 2) => Element::Float(half::f16::from_bits(word as u16).to_f64()),
            (Kind::Float, 4) => Element::Float(f64::from(f32::from_bits(word as u32))),
            // Arrays are of numbers: no texts come here.
            (Kind::Float | Kind::Text | Kind::Bytes, _) => Element::Float(f64::from_bits(word)),
        }
    }

    /// The element at position `at` as a real number.
    pub fn real(&self, at: usize) -> f64 {
        match self.element(at) {
            Element::Int(n) => n as f64,
            Element::Float(x) => x,
        }
    }

    /// A one-dimensional array of whole numbers from 0 to 2^32 - 1. Real numbers count if they are whole.
    pub fn to_u32(&self) -> Result<Vec<u32>, String> {
        if self.shape.len() != 1 {
            return Err(format!("has shape {:?} and should have one axis", self.shape));
        }
        (0..self.shape[0])
            .map(|at| {
                let x = self.real(at);
                let whole = x.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&x);
                if whole {
                    Ok(x as u32)
                } else {
                    Err(format!("holds {x} at position {at}, no whole number from 0 on"))
                }
            })
            .collect()
    }
}
