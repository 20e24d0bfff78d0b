//! Writes one shard: records go in one by one, blocks come out compressed and checksummed.
//!
//! The bytes are a function of the records and the options alone.

use super::error::ShardError;
use super::layout::{ALIGN, ENTRY_BYTES, Entry, HEADER_BYTES, Header, MAX_BLOCK_BYTES};
use super::{codec, meta::ShardMeta, pieces::Pieces, schema::Raster};
use crate::base::digest::LateStart;
use crate::base::{Fingerprint, digest};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// How blocks are formed and compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockOptions {
    /// Decoded bytes to aim at per block.
    pub target_bytes: u32,
    /// zstd level; 0 leaves images of bytes to their bit planes.
    pub level: i32,
}

impl Default for BlockOptions {
    /// 256 KiB decode in well under a millisecond and amortise a frame of zstd. zstd seldom makes photographs
    /// smaller than their bit planes are, and takes long to find out (docs/performance.md).
    fn default() -> Self {
        Self { target_bytes: 256 << 10, level: 0 }
    }
}

/// Records per block for a value of `row_bytes`.
pub fn block_rows(row_bytes: u32, options: BlockOptions) -> u32 {
    (options.target_bytes.min(MAX_BLOCK_BYTES) / row_bytes.max(1)).max(1)
}

/// A compressed block, ready to be written.
#[derive(Debug)]
pub struct PackedBlock {
    codec: super::layout::Codec,
    /// With the zeros that follow.
    padded: Vec<u8>,
    stored_bytes: u32,
    raw_bytes: u32,
    checksum: u32,
}

impl PackedBlock {
    /// Bytes it takes in the file.
    pub fn stored_bytes(&self) -> usize {
        self.stored_bytes as usize
    }
}

/// Compresses one block of a field that lies as `raster` says. Pure, so that blocks can be packed in parallel and
/// written in order.
pub fn pack(raw: &[u8], raster: Raster, level: i32) -> Result<PackedBlock, ShardError> {
    let raw_bytes = u32::try_from(raw.len())
        .ok()
        .filter(|&n| n <= MAX_BLOCK_BYTES)
        .ok_or_else(|| ShardError::Misuse(format!("a block of {} bytes is too large", raw.len())))?;
    // Codecs of images go by whole pictures.
    if !raw.len().is_multiple_of(raster.unit()) {
        let what = format!("a block of {} bytes, which are no rows of {}", raw.len(), raster.unit());
        return Err(ShardError::Misuse(what));
    }
    let (codec, mut padded) = codec::encode(raw, raster, level)
        .map_err(|e| ShardError::Misuse(format!("zstd level {level}: {e}")))?;
    let checksum = digest::crc32c(&padded);
    let stored_bytes = padded.len() as u32;
    padded.resize(padded.len().next_multiple_of(ALIGN as usize), 0);
    Ok(PackedBlock { codec, padded, stored_bytes, raw_bytes, checksum })
}

/// Writes a shard to any seekable output.
#[derive(Debug)]
pub struct ShardWriter<W: Write + Seek> {
    out: Pieces<W>,
    path: PathBuf,
    at: u64,
    meta: ShardMeta,
    index: Vec<Vec<Entry>>,
    rows: Vec<u64>,
    digest: LateStart,
}

/// What a finished shard is told by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// Length of the file.
    pub bytes: u64,
    /// Its header's checksum.
    pub checksum: u32,
    /// Digest of what was written. Bytes that the disk changes later do not have it.
    pub blake3: Fingerprint,
}

impl<W: Write + Seek> ShardWriter<W> {
    /// Starts a shard; `path` is used in messages. `meta.block_rows` must name every field.
    pub fn new(out: W, path: &Path, meta: ShardMeta) -> Result<Self, ShardError> {
        let n = meta.schema.0.len();
        if meta.block_rows.len() != n || meta.block_rows.contains(&0) {
            return Err(ShardError::Misuse("every field needs its records per block".to_owned()));
        }
        for field in &meta.schema.0 {
            if field.row_bytes().is_none() {
                let what =
                    format!("field {}: {} of {} is empty or too large", field.name, field.shape, field.dtype);
                return Err(ShardError::Misuse(what));
            }
        }
        let (path, digest) = (path.to_path_buf(), LateStart::default());
        let out = Pieces::new(out);
        let mut writer =
            Self { out, path, at: 0, meta, index: vec![Vec::new(); n], rows: vec![0; n], digest };
        writer.write(vec![0; HEADER_BYTES])?;
        Ok(writer)
    }

    /// Appends the next block of field `field`. All blocks but a field's last must be full.
    pub fn append(&mut self, field: usize, block: PackedBlock) -> Result<(), ShardError> {
        let row_bytes = u64::from(self.meta.schema.0[field].row_bytes().expect("checked in new"));
        let full = u64::from(self.meta.block_rows[field]);
        let (rows, rest) = (u64::from(block.raw_bytes) / row_bytes, u64::from(block.raw_bytes) % row_bytes);
        if rest != 0 || rows == 0 || rows > full || !self.rows[field].is_multiple_of(full) {
            return Err(ShardError::Misuse(format!(
                "a block of {} bytes does not fit field {}",
                block.raw_bytes, self.meta.schema.0[field].name
            )));
        }
        self.index[field].push(Entry {
            at: self.at,
            stored_bytes: block.stored_bytes,
            raw_bytes: block.raw_bytes,
            checksum: block.checksum,
            codec: block.codec,
        });
        self.rows[field] += rows;
        self.write(block.padded)
    }

    /// Packs and appends a whole column.
    pub fn append_column(&mut self, field: usize, raw: &[u8], level: i32) -> Result<(), ShardError> {
        let row_bytes = self.meta.schema.0[field].row_bytes().expect("checked in new");
        let block_bytes = row_bytes as usize * self.meta.block_rows[field] as usize;
        let raster = self.meta.schema.0[field].raster();
        raw.chunks(block_bytes).try_for_each(|chunk| self.append(field, pack(chunk, raster, level)?))
    }

    /// Writes index, metadata and header, and gives the output back.
    pub fn finish(mut self) -> Result<(W, Sealed), ShardError> {
        let n_rows = self.rows.first().copied().unwrap_or(0);
        if self.rows.iter().any(|&rows| rows != n_rows) {
            return Err(ShardError::Misuse(format!("fields of different length: {:?} records", self.rows)));
        }
        let meta = self.meta.encode().map_err(ShardError::Misuse)?;
        let mut index = Vec::with_capacity(self.index.iter().map(Vec::len).sum::<usize>() * ENTRY_BYTES);
        self.index.iter().flatten().for_each(|entry| index.extend_from_slice(&entry.encode()));
        let mut header = Header {
            n_fields: self.index.len() as u32,
            n_rows,
            index_at: self.at,
            index_bytes: index.len() as u64,
            meta_at: self.at + index.len() as u64,
            meta_bytes: meta.len() as u64,
            file_bytes: self.at + index.len() as u64 + meta.len() as u64,
            checksum: 0,
        };
        header.checksum = checksum(&header.encode(), &index, &meta);
        self.write(index)?;
        self.write(meta)?;
        let mut out = self.out.finish().map_err(ShardError::io(&self.path, "write"))?;
        out.seek(SeekFrom::Start(0)).map_err(ShardError::io(&self.path, "seek"))?;
        let encoded = header.encode();
        let written = out.write_all(&encoded).and_then(|()| out.flush());
        written.map_err(ShardError::io(&self.path, "write"))?;
        let blake3 = self.digest.finish(&encoded);
        Ok((out, Sealed { bytes: header.file_bytes, checksum: header.checksum, blake3 }))
    }

    fn write(&mut self, bytes: Vec<u8>) -> Result<(), ShardError> {
        self.at += bytes.len() as u64;
        self.digest.update(&bytes);
        self.out.push(bytes).map_err(ShardError::io(&self.path, "write"))
    }
}

/// Checksum over the header (its own field zero), the index and the metadata.
pub(super) fn checksum(header: &[u8], index: &[u8], meta: &[u8]) -> u32 {
    digest::crc32c_of_parts([header, index, meta])
}
