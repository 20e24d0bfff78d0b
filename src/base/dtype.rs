//! Element types and shapes with checked sizes.

use half::{bf16, f16};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Type of one element, little-endian in files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DType {
    /// Unsigned byte: pixels.
    U8,
    /// Unsigned 32-bit: ids, labels, row numbers.
    U32,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    Bf16,
    /// IEEE single precision.
    F32,
}

impl DType {
    /// Bytes per element.
    pub const fn size(self) -> u64 {
        match self {
            Self::U8 => 1,
            Self::F16 | Self::Bf16 => 2,
            Self::U32 | Self::F32 => 4,
        }
    }

    /// The little-endian values of this type in `bytes` as single precision; none for whole numbers.
    pub fn floats(self, bytes: &[u8]) -> Option<Vec<f32>> {
        Some(match self {
            Self::U8 | Self::U32 => return None,
            Self::F16 => bytes.as_chunks().0.iter().map(|w| f16::from_le_bytes(*w).to_f32()).collect(),
            Self::Bf16 => bytes.as_chunks().0.iter().map(|w| bf16::from_le_bytes(*w).to_f32()).collect(),
            Self::F32 => bytes.as_chunks().0.iter().map(|w| f32::from_le_bytes(*w)).collect(),
        })
    }

    /// The name used in tables and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::U8 => "u8",
            Self::U32 => "u32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::F32 => "f32",
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Extent of each axis of one record's value; empty for a scalar.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Shape(pub Vec<u32>);

impl Shape {
    /// A scalar.
    pub const fn scalar() -> Self {
        Self(Vec::new())
    }

    /// Number of elements, or `None` when it does not fit in 64 bits.
    pub fn elements(&self) -> Option<u64> {
        self.0.iter().try_fold(1u64, |n, &axis| n.checked_mul(u64::from(axis)))
    }

    /// Number of bytes, or `None` when it does not fit in 64 bits.
    pub fn bytes(&self, dtype: DType) -> Option<u64> {
        self.elements()?.checked_mul(dtype.size())
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let axes: Vec<String> = self.0.iter().map(u32::to_string).collect();
        f.pad(&format!("[{}]", axes.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_products_and_overflow_is_noticed() {
        assert_eq!(Shape(vec![3, 64, 64]).bytes(DType::U8), Some(12_288));
        assert_eq!(Shape::scalar().bytes(DType::F32), Some(4));
        assert_eq!(Shape(vec![u32::MAX; 3]).elements(), None);
    }
}
