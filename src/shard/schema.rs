//! What one record holds: named fields of fixed type and shape.

use crate::base::{DType, Shape};
use serde::{Deserialize, Serialize};

/// One value of every record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Field {
    /// Name: `image`, `label`, `id`, `row`, `responses`.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Extent of each axis; images are `[channels, height, width]`.
    pub shape: Shape,
}

impl Field {
    /// A field called `name`.
    pub fn new(name: &str, dtype: DType, shape: &[u32]) -> Self {
        Self { name: name.to_owned(), dtype, shape: Shape(shape.to_vec()) }
    }

    /// Bytes of one record's value, if it is between 1 byte and the limit of one block.
    pub fn row_bytes(&self) -> Option<u32> {
        let bytes = self.shape.bytes(self.dtype)?;
        u32::try_from(bytes).ok().filter(|&n| n > 0 && n <= super::layout::MAX_BLOCK_BYTES)
    }

    /// What the codecs make use of.
    pub fn raster(&self) -> Raster {
        let line_bytes = self.shape.0.last().map_or(1, |&n| n as usize) * self.dtype.size() as usize;
        let pixels = match (self.dtype, &self.shape.0[..]) {
            (DType::U8, &[3, height, width]) => Pixels::Colour { plane: height as usize * width as usize },
            (DType::U8, [_, _, ..]) => Pixels::Gray,
            _ => Pixels::None,
        };
        Raster { line_bytes, pixels }
    }
}

/// How a field's bytes lie: neighbours of which codecs make use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Raster {
    /// Bytes of one line: the values along the last axis; one value of a field without axes.
    pub line_bytes: usize,
    /// Whether the bytes are pixels.
    pub pixels: Pixels,
}

impl Raster {
    /// Bytes that codecs take as one: a picture in colour, else a line. Every row is made of these.
    pub fn unit(self) -> usize {
        match self.pixels {
            Pixels::Colour { plane } => 3 * plane,
            Pixels::Gray | Pixels::None => self.line_bytes,
        }
    }
}

/// What a field's bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pixels {
    /// No bytes, or none with lines.
    None,
    /// Bytes with two axes or more.
    Gray,
    /// Red, green and blue, a plane of so many bytes each.
    Colour {
        /// Height × width.
        plane: usize,
    },
}

/// The fields of a record, in file order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schema(pub Vec<Field>);

impl Schema {
    /// Position and description of the field called `name`.
    pub fn find(&self, name: &str) -> Option<(usize, &Field)> {
        self.0.iter().enumerate().find(|(_, field)| field.name == name)
    }
}
