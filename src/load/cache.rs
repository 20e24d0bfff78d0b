//! One column of a set of shards, decoded block by block on first use and then kept.
//!
//! Readers of different threads share blocks without a lock: each block is a cell that is written once.

use super::LoadError;
use crate::base::Shape;
use crate::shard::MappedShard;
use std::sync::OnceLock;

/// Rows of equal size from consecutive shards.
#[derive(Debug)]
pub struct Column {
    parts: Vec<Part>,
    row_bytes: usize,
    shape: Shape,
}

type Block = OnceLock<Result<Box<[u8]>, LoadError>>;

#[derive(Debug)]
struct Part {
    shard: MappedShard,
    field: usize,
    /// Row of the first record.
    start: u64,
    blocks: Vec<Block>,
}

impl Column {
    /// Field `name` of `shards`, which must agree on its type and shape.
    pub fn open(shards: Vec<MappedShard>, name: &str) -> Result<Self, LoadError> {
        let mut parts: Vec<Part> = Vec::with_capacity(shards.len());
        let mut column: Option<(usize, Shape)> = None;
        let mut start = 0;
        for shard in shards {
            let (field, description) = shard.field(name)?;
            let (row_bytes, shape) = (shard.row_bytes(field), description.shape.clone());
            if *column.get_or_insert_with(|| (row_bytes, shape.clone())) != (row_bytes, shape) {
                let path = shard.path().display();
                return Err(LoadError::Data(format!("{path}: field {name} differs from the shards before")));
            }
            let blocks = (0..shard.n_blocks(field)).map(|_| OnceLock::new()).collect();
            let n_rows = shard.n_rows();
            parts.push(Part { shard, field, start, blocks });
            start += n_rows;
        }
        let (row_bytes, shape) =
            column.ok_or_else(|| LoadError::Data(format!("no shard has a field {name}")))?;
        Ok(Self { parts, row_bytes, shape })
    }

    /// Number of rows.
    pub fn n_rows(&self) -> u64 {
        self.parts.last().map_or(0, |part| part.start + part.shard.n_rows())
    }

    /// Extent of one row's value.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Whether the values are bytes.
    pub fn is_u8(&self) -> bool {
        self.shape.elements() == Some(self.row_bytes as u64)
    }

    /// The value of row `row`, which is less than [`Self::n_rows`]. Decodes its block if nobody has yet.
    pub fn row(&self, row: u64) -> Result<&[u8], LoadError> {
        let part = &self.parts[self.parts.partition_point(|part| part.start <= row) - 1];
        let rows = part.shard.block_rows(part.field);
        let (block, within) = ((row - part.start) / rows, (row - part.start) % rows);
        let bytes = part.blocks[block as usize].get_or_init(|| part.decode(block as usize));
        let bytes = bytes.as_ref().map_err(Clone::clone)?;
        Ok(&bytes[within as usize * self.row_bytes..][..self.row_bytes])
    }
}

impl Part {
    fn decode(&self, block: usize) -> Result<Box<[u8]>, LoadError> {
        let mut out = vec![0; self.shard.block_bytes(self.field, block)].into_boxed_slice();
        self.shard.read_block(self.field, block, &mut out)?;
        Ok(out)
    }
}
