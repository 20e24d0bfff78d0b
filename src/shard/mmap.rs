//! Unsafe fence 1: maps a file read-only.
#![expect(unsafe_code, reason = "a memory map is unsafe by nature; this is its only place")]

use std::fs::File;
use std::io;
use std::path::Path;

/// A file as bytes, paged in by the kernel on use.
#[derive(Debug)]
pub struct Mapped(Option<memmap2::Mmap>);

impl Mapped {
    /// Maps `path`. An empty file gives no bytes.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        if file.metadata()?.len() == 0 {
            return Ok(Self(None));
        }
        // SAFETY: the bytes of a map must not change while it lives. Shards are write-once: the writer
        // fills a temporary folder and renames it, and nothing ever opens a finished shard for writing.
        // A user who edits or truncates a shard under a running program breaks this promise.
        let map = unsafe { memmap2::Mmap::map(&file)? };
        Ok(Self(Some(map)))
    }
}

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        self.0.as_deref().unwrap_or_default()
    }
}
