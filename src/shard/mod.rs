//! The shard format: records in compressed, checksummed blocks with O(1) access, in a file that can
//! be used in place from a memory map. `FORMAT.md` beside this file describes every byte.
//!
//! Absent: threads, clocks, knowledge of particular data sets.

mod bytes;
pub mod codec;
mod error;
pub mod layout;
mod meta;
mod mmap;
mod pieces;
mod planes;
mod reader;
mod schema;
mod set;
#[cfg(test)]
mod tests;
mod writer;

pub use bytes::{Bytes, Far, Stored};
pub use error::ShardError;
pub use meta::{Content, SessionMeta, ShardMeta};
pub use mmap::Mapped;
pub use reader::Shard;
pub use schema::{Field, Pixels, Raster, Schema};
pub use set::{
    ClassInfo, DATASETS, Dataset, MANIFEST, MANIFEST_VERSION, Manifest, OpenShard, SessionInfo, ShardInfo,
    ShardSet,
};
pub use writer::{BlockOptions, PackedBlock, Sealed, ShardWriter, block_rows, pack};
