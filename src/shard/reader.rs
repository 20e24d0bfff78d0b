//! Reads a shard from any [`Bytes`]. Trusts nothing: every offset, length and count is checked against
//! the file before it is used, and every block against its checksum.

use super::bytes::Bytes;
use super::error::ShardError;
use super::layout::{
    ALIGN, Codec, ENTRY_BYTES, Entry, HEADER_BYTES, Header, MAX_BLOCK_BYTES, MAX_META_BYTES,
};
use super::{codec, meta::ShardMeta, schema::Field, schema::Raster, writer::checksum};
use crate::base::digest;
use std::borrow::Cow;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// One immutable file of records.
#[derive(Debug)]
pub struct Shard<B> {
    bytes: B,
    path: PathBuf,
    meta: ShardMeta,
    n_rows: u64,
    checksum: u32,
    index_at: u64,
    columns: Vec<Column>,
}

/// One field's blocks.
#[derive(Debug)]
struct Column {
    row_bytes: u32,
    raster: Raster,
    block_rows: u32,
    entries: Vec<Entry>,
}

impl<B: Bytes> Shard<B> {
    /// Opens a shard: checks header, index and metadata, but no block. `path` is used in messages.
    pub fn open(bytes: B, path: &Path) -> Result<Self, ShardError> {
        let (header, meta, columns) = describe(&bytes, path)?;
        let Header { n_rows, checksum, index_at, .. } = header;
        Ok(Self { path: path.to_path_buf(), meta, n_rows, checksum, index_at, columns, bytes })
    }

    /// What it is read from.
    pub fn bytes(&self) -> &B {
        &self.bytes
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Data set, split, fields, session.
    pub fn meta(&self) -> &ShardMeta {
        &self.meta
    }

    /// Number of records.
    pub fn n_rows(&self) -> u64 {
        self.n_rows
    }

    /// The header's checksum. It covers the index and so every block's checksum: two shards with the same
    /// one hold the same.
    pub fn checksum(&self) -> u32 {
        self.checksum
    }

    /// Position and description of a field, or an error that names those that exist.
    pub fn field(&self, name: &str) -> Result<(usize, &Field), ShardError> {
        self.meta.schema.find(name).ok_or_else(|| {
            let names: Vec<&str> = self.meta.schema.0.iter().map(|f| f.name.as_str()).collect();
            ShardError::damaged(&self.path, format!("no field {name}, only {}", names.join(", ")))
        })
    }

    /// Bytes of one record's value in field `field`.
    pub fn row_bytes(&self, field: usize) -> usize {
        self.columns[field].row_bytes as usize
    }

    /// Records per block of field `field`.
    pub fn block_rows(&self, field: usize) -> u64 {
        u64::from(self.columns[field].block_rows)
    }

    /// Number of blocks of field `field`.
    pub fn n_blocks(&self, field: usize) -> usize {
        self.columns[field].entries.len()
    }

    /// Decoded size in bytes of a block.
    pub fn block_bytes(&self, field: usize, block: usize) -> usize {
        self.columns[field].entries[block].raw_bytes as usize
    }

    /// Bytes that the blocks of field `field` take in the file.
    pub fn stored_bytes(&self, field: usize) -> u64 {
        self.columns[field].entries.iter().map(|entry| u64::from(entry.stored_bytes)).sum()
    }

    /// How many blocks of field `field` have each of [`Codec::ALL`].
    pub fn codecs(&self, field: usize) -> [usize; Codec::ALL.len()] {
        let mut counts = [0; Codec::ALL.len()];
        self.columns[field].entries.iter().for_each(|entry| counts[entry.codec as usize] += 1);
        counts
    }

    /// Decodes a block into `out`, whose length is [`Self::block_bytes`]. Checks the block's checksum.
    pub fn read_block(&self, field: usize, block: usize, out: &mut [u8]) -> Result<(), ShardError> {
        let stored = self.checked_block(field, block)?;
        let column = &self.columns[field];
        codec::decode(column.entries[block].codec, column.raster, &stored, out)
            .map_err(|what| self.damaged_block(field, block, &what))
    }

    /// A block as it is stored, after a look at its checksum.
    pub fn checked_block(&self, field: usize, block: usize) -> Result<Cow<'_, [u8]>, ShardError> {
        let entry = &self.columns[field].entries[block];
        let stored = self.bytes.piece(entry.range(), Some(entry.checksum))?;
        let found = digest::crc32c(&stored);
        if found == entry.checksum {
            return Ok(stored);
        }
        let sums = format!("checksum {found:08x}, expected {:08x}", entry.checksum);
        let what = format!("{sums}; run `nct prepare --force` to make it again");
        Err(self.damaged_block(field, block, &what))
    }

    /// Says that a block will be read soon: one that comes from elsewhere sets out.
    pub fn expect_block(&self, field: usize, block: usize) {
        let entry = &self.columns[field].entries[block];
        self.bytes.expect(entry.range(), entry.checksum);
    }

    fn damaged_block(&self, field: usize, block: usize, what: &str) -> ShardError {
        let (name, at) = (&self.meta.schema.0[field].name, self.columns[field].entries[block].at);
        ShardError::damaged(&self.path, format!("field {name}, block {block} at byte {at}: {what}"))
    }

    /// Decodes a whole column.
    pub fn read_column(&self, field: usize) -> Result<Vec<u8>, ShardError> {
        let column = &self.columns[field];
        let n_bytes = self.n_rows as usize * column.row_bytes as usize;
        let mut out = Vec::new();
        out.try_reserve_exact(n_bytes).map_err(|e| {
            let name = &self.meta.schema.0[field].name;
            let what = format!("{n_bytes} bytes of field {name}: {e}; run `nct verify`, or free some memory");
            ShardError::io(&self.path, "hold a whole column")(io::Error::new(ErrorKind::OutOfMemory, what))
        })?;
        (0..column.entries.len()).for_each(|block| self.expect_block(field, block));
        // Block after block: memory that a damaged shard only claims to need is never touched.
        for block in 0..column.entries.len() {
            let at = out.len();
            out.resize(at + self.block_bytes(field, block), 0);
            self.read_block(field, block, &mut out[at..])?;
        }
        Ok(out)
    }

    /// Checks that the bytes between blocks are zero, so that together with the blocks' checksums every byte of the
    /// file is accounted for.
    pub fn verify_padding(&self) -> Result<(), ShardError> {
        let mut used: Vec<(u64, u64)> = vec![(0, HEADER_BYTES as u64)];
        let entries = self.columns.iter().flat_map(|column| &column.entries);
        used.extend(entries.map(|entry| (entry.at, entry.range().end)));
        used.sort_unstable();
        used.push((self.index_at, self.index_at));
        for pair in used.windows(2) {
            let (end, next) = (pair[0].1, pair[1].0);
            let small = end <= next && next - end < ALIGN;
            if !small || self.bytes.piece(end..next, None)?.iter().any(|&b| b != 0) {
                let what = format!("bytes {end} to {next} should be padding");
                return Err(ShardError::damaged(&self.path, what));
            }
        }
        Ok(())
    }
}

/// Reads and checks all but the blocks.
fn describe(bytes: &impl Bytes, path: &Path) -> Result<(Header, ShardMeta, Vec<Column>), ShardError> {
    let damaged = |what| ShardError::damaged(path, what);
    let n_bytes = bytes.n_bytes();
    let start = bytes.piece(0..n_bytes.min(HEADER_BYTES as u64), None)?;
    let header = Header::parse(&start).and_then(|header| fits(header, n_bytes)).map_err(damaged)?;
    let [index, meta] = sections(&header, n_bytes).map_err(damaged)?;
    let (index, meta) = (bytes.piece(index, None)?, bytes.piece(meta, None)?);
    let (meta, columns) = parse(&header, &index, &meta).map_err(damaged)?;
    Ok((header, meta, columns))
}

/// A header of a file of that length.
fn fits(header: Header, n_bytes: u64) -> Result<Header, String> {
    if header.file_bytes != n_bytes {
        let cut = if header.file_bytes > n_bytes { ": it was cut short" } else { "" };
        return Err(format!("{n_bytes} bytes, and its header says {}{cut}", header.file_bytes));
    }
    if header.meta_bytes > MAX_META_BYTES {
        return Err(format!("metadata of {} bytes", header.meta_bytes));
    }
    Ok(header)
}

/// Where index and metadata lie.
fn sections(header: &Header, n_bytes: u64) -> Result<[Range<u64>; 2], String> {
    let section = |at: u64, len: u64| Some(at..at.checked_add(len).filter(|&end| end <= n_bytes)?);
    let index = section(header.index_at, header.index_bytes).ok_or("the index lies outside the file")?;
    let meta = section(header.meta_at, header.meta_bytes).ok_or("the metadata lie outside the file")?;
    Ok([index, meta])
}

/// Whether `rest`, all bytes from the index on, are those that `header` means.
pub(super) fn is_index(header: &Header, rest: &[u8]) -> bool {
    let part = |range: Range<u64>| {
        let from = |at: u64| usize::try_from(at.checked_sub(header.index_at)?).ok();
        rest.get(from(range.start)?..from(range.end)?)
    };
    let Ok([index, meta]) = sections(header, header.file_bytes) else { return false };
    let both = part(index).zip(part(meta));
    both.is_some_and(|(index, meta)| sum(header, index, meta) == header.checksum)
}

fn sum(header: &Header, index: &[u8], meta: &[u8]) -> u32 {
    checksum(&Header { checksum: 0, ..*header }.encode(), index, meta)
}

fn parse(header: &Header, index: &[u8], meta: &[u8]) -> Result<(ShardMeta, Vec<Column>), String> {
    let found = sum(header, index, meta);
    if found != header.checksum {
        let sums = format!("checksum {found:08x}, expected {:08x}", header.checksum);
        return Err(format!("header, index or metadata are damaged: {sums}"));
    }
    let meta = ShardMeta::parse(meta)?;
    let columns = columns(header, &meta, index)?;
    Ok((meta, columns))
}

fn columns(header: &Header, meta: &ShardMeta, index: &[u8]) -> Result<Vec<Column>, String> {
    let fields = &meta.schema.0;
    if header.n_fields as usize != fields.len() || meta.block_rows.len() != fields.len() {
        return Err(format!("{} fields in the header, {} in the metadata", header.n_fields, fields.len()));
    }
    let (entries, rest) = index.as_chunks::<ENTRY_BYTES>();
    if !rest.is_empty() {
        return Err("the index is cut".to_owned());
    }
    let mut entries = entries.iter();
    let mut out = Vec::with_capacity(fields.len());
    for (field, &block_rows) in fields.iter().zip(&meta.block_rows) {
        let row_bytes = field.row_bytes().ok_or_else(|| format!("field {}: impossible size", field.name))?;
        if block_rows == 0 {
            return Err(format!("field {}: blocks of no records", field.name));
        }
        let n_blocks = header.n_rows.div_ceil(u64::from(block_rows));
        if n_blocks > entries.len() as u64 {
            return Err(format!("field {}: {n_blocks} blocks, and the index is shorter", field.name));
        }
        let parsed: Result<Vec<Entry>, String> =
            entries.by_ref().take(n_blocks as usize).map(Entry::parse).collect();
        let column = Column { row_bytes, raster: field.raster(), block_rows, entries: parsed? };
        check_blocks(header, &column).map_err(|what| format!("field {}: {what}", field.name))?;
        out.push(column);
    }
    if entries.len() > 0 {
        return Err(format!("the index has {} entries too many", entries.len()));
    }
    check_overlaps(&out)?;
    Ok(out)
}

/// Blocks that share their bytes would let a small file stand for any number of records.
fn check_overlaps(columns: &[Column]) -> Result<(), String> {
    let mut used: Vec<Range<u64>> =
        columns.iter().flat_map(|column| column.entries.iter().map(Entry::range)).collect();
    // They lie in this order already where `ShardWriter` wrote them.
    used.sort_unstable_by_key(|range| range.start);
    match used.windows(2).find(|pair| pair[0].end > pair[1].start) {
        Some(pair) => Err(format!("blocks overlap at byte {}", pair[1].start)),
        None => Ok(()),
    }
}

fn check_blocks(header: &Header, column: &Column) -> Result<(), String> {
    let full = u64::from(column.block_rows);
    for (block, entry) in column.entries.iter().enumerate() {
        let rows = full.min(header.n_rows - block as u64 * full);
        let raw_bytes = rows * u64::from(column.row_bytes);
        let end = entry.at.checked_add(u64::from(entry.stored_bytes));
        if u64::from(entry.raw_bytes) != raw_bytes || entry.raw_bytes > MAX_BLOCK_BYTES {
            return Err(format!("block {block} of {} bytes, expected {raw_bytes}", entry.raw_bytes));
        }
        let inside = entry.at >= HEADER_BYTES as u64 && end.is_some_and(|end| end <= header.index_at);
        if !inside || entry.at % ALIGN != 0 {
            return Err(format!("block {block} at byte {} lies outside its place", entry.at));
        }
    }
    Ok(())
}
