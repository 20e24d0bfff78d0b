//! Memory that starts at a cache line. A copy whose source and destination both do runs a third faster
//! than one that splits every store over two lines.

use bytemuck::{Pod, Zeroable};
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

/// A cache line, and the widest vector register.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// A growable slice of plain values that starts at a multiple of 64 bytes.
#[derive(Debug, Clone)]
pub struct Aligned<T> {
    lines: Vec<Line>,
    len: usize,
    values: PhantomData<T>,
}

impl<T: Pod> Aligned<T> {
    /// Makes it `len` values long. Memory is never given back: values are zero where it was never so long before, and
    /// elsewhere those that were there.
    pub fn resize(&mut self, len: usize) {
        let lines = (len * size_of::<T>()).div_ceil(size_of::<Line>());
        if lines > self.lines.len() {
            self.lines.resize(lines, Line::zeroed());
        }
        self.len = len;
    }
}

impl<T> Default for Aligned<T> {
    fn default() -> Self {
        Self { lines: Vec::new(), len: 0, values: PhantomData }
    }
}

impl<T: Pod> Deref for Aligned<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &bytemuck::cast_slice(&self.lines)[..self.len]
    }
}

impl<T: Pod> DerefMut for Aligned<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.len]
    }
}

impl<T: Pod + PartialEq> PartialEq for Aligned<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_starts_at_a_line_and_keeps_its_values() {
        for len in [0, 1, 16, 17, 5000] {
            let mut values = Aligned::<f32>::default();
            values.resize(len);
            assert!(values.len() == len && values.as_ptr().addr() % 64 == 0);
            values.iter_mut().enumerate().for_each(|(i, v)| *v = i as f32);
            values.resize(len / 2);
            assert!(values.iter().enumerate().all(|(i, &v)| v == i as f32));
        }
    }
}
