//! The fixed parts of a shard, as pure functions of bytes. `FORMAT.md` says the same in words.
//!
//! Every offset is a named constant built from the one before; everything is little-endian.

use std::ops::Range;

/// First bytes of every shard.
pub const MAGIC: [u8; 8] = *b"NCTSHARD";
/// The only version so far.
pub const VERSION: u32 = 1;
/// Bytes of the header.
pub const HEADER_BYTES: usize = 128;
/// Bytes of one index entry.
pub const ENTRY_BYTES: usize = 24;
/// Blocks start at multiples of this: a cache line, and the widest vector load.
pub const ALIGN: u64 = 64;
/// Upper bound of one decoded block, so that a forged length cannot exhaust memory.
pub const MAX_BLOCK_BYTES: u32 = 1 << 28;
/// Upper bound of the metadata.
pub const MAX_META_BYTES: u64 = 1 << 28;

const VERSION_AT: usize = MAGIC.len();
const FIELDS_AT: usize = VERSION_AT + 4;
const ROWS_AT: usize = FIELDS_AT + 4;
const FILE_BYTES_AT: usize = ROWS_AT + 8;
const INDEX_AT_AT: usize = FILE_BYTES_AT + 8;
const INDEX_BYTES_AT: usize = INDEX_AT_AT + 8;
const META_AT_AT: usize = INDEX_BYTES_AT + 8;
const META_BYTES_AT: usize = META_AT_AT + 8;
const CHECKSUM_AT: usize = META_BYTES_AT + 8;
const RESERVED_AT: usize = CHECKSUM_AT + 4;

/// The header: where everything is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Number of fields.
    pub n_fields: u32,
    /// Number of records.
    pub n_rows: u64,
    /// Length of the whole file in bytes.
    pub file_bytes: u64,
    /// Offset of the index.
    pub index_at: u64,
    /// Length of the index in bytes.
    pub index_bytes: u64,
    /// Offset of the metadata.
    pub meta_at: u64,
    /// Length of the metadata in bytes.
    pub meta_bytes: u64,
    /// CRC32C of the header with this field zero, then the index, then the metadata.
    pub checksum: u32,
}

impl Header {
    /// The header's bytes.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &MAGIC);
        put(VERSION_AT, &VERSION.to_le_bytes());
        put(FIELDS_AT, &self.n_fields.to_le_bytes());
        put(ROWS_AT, &self.n_rows.to_le_bytes());
        put(FILE_BYTES_AT, &self.file_bytes.to_le_bytes());
        put(INDEX_AT_AT, &self.index_at.to_le_bytes());
        put(INDEX_BYTES_AT, &self.index_bytes.to_le_bytes());
        put(META_AT_AT, &self.meta_at.to_le_bytes());
        put(META_BYTES_AT, &self.meta_bytes.to_le_bytes());
        put(CHECKSUM_AT, &self.checksum.to_le_bytes());
        out
    }

    /// Reads a header; the error says what was found and expected.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let Some(bytes) = bytes.first_chunk::<HEADER_BYTES>() else {
            return Err(format!("{} bytes, shorter than the header's {HEADER_BYTES}", bytes.len()));
        };
        if bytes[..MAGIC.len()] != MAGIC {
            return Err("does not start with NCTSHARD: not a shard".to_owned());
        }
        let version = u32_at(bytes, VERSION_AT);
        if version != VERSION {
            return Err(format!("format version {version}, and this program reads {VERSION}"));
        }
        if bytes[RESERVED_AT..].iter().any(|&b| b != 0) {
            return Err("reserved bytes of the header are not zero".to_owned());
        }
        Ok(Self {
            n_fields: u32_at(bytes, FIELDS_AT),
            n_rows: u64_at(bytes, ROWS_AT),
            file_bytes: u64_at(bytes, FILE_BYTES_AT),
            index_at: u64_at(bytes, INDEX_AT_AT),
            index_bytes: u64_at(bytes, INDEX_BYTES_AT),
            meta_at: u64_at(bytes, META_AT_AT),
            meta_bytes: u64_at(bytes, META_BYTES_AT),
            checksum: u32_at(bytes, CHECKSUM_AT),
        })
    }
}

/// How a block is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// As it is.
    Raw = 0,
    /// One zstd frame.
    Zstd = 1,
    /// One zstd frame of differences between lines.
    ZstdLines = 2,
    /// Bit planes of differences.
    Planes = 3,
}

/// Where one block of one field lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Offset in the file, a multiple of [`ALIGN`].
    pub at: u64,
    /// Bytes stored.
    pub stored_bytes: u32,
    /// Bytes after decoding.
    pub raw_bytes: u32,
    /// CRC32C of the stored bytes.
    pub checksum: u32,
    /// How it is stored.
    pub codec: Codec,
}

impl Codec {
    /// All codecs, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Raw, Self::Zstd, Self::ZstdLines, Self::Planes];

    /// For people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Zstd => "zstd",
            Self::ZstdLines => "zstd+lines",
            Self::Planes => "planes",
        }
    }
}

impl Entry {
    /// Where it lies.
    pub fn range(&self) -> Range<u64> {
        self.at..self.at + u64::from(self.stored_bytes)
    }

    /// The entry's bytes.
    pub fn encode(&self) -> [u8; ENTRY_BYTES] {
        let mut out = [0; ENTRY_BYTES];
        out[..8].copy_from_slice(&self.at.to_le_bytes());
        out[8..12].copy_from_slice(&self.stored_bytes.to_le_bytes());
        out[12..16].copy_from_slice(&self.raw_bytes.to_le_bytes());
        out[16..20].copy_from_slice(&self.checksum.to_le_bytes());
        out[20..].copy_from_slice(&(self.codec as u32).to_le_bytes());
        out
    }

    /// Reads an entry.
    pub fn parse(bytes: &[u8; ENTRY_BYTES]) -> Result<Self, String> {
        let codec = match u32_at(bytes, 20) {
            0 => Codec::Raw,
            1 => Codec::Zstd,
            2 => Codec::ZstdLines,
            3 => Codec::Planes,
            other => return Err(format!("codec {other} is unknown")),
        };
        Ok(Self {
            at: u64_at(bytes, 0),
            stored_bytes: u32_at(bytes, 8),
            raw_bytes: u32_at(bytes, 12),
            checksum: u32_at(bytes, 16),
            codec,
        })
    }
}

/// Reads the 32-bit word at `at`, which lies inside `bytes`.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("the range has four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("the range has eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_bytes_are_as_documented() {
        let header = Header {
            n_fields: 2,
            n_rows: 3,
            file_bytes: 4,
            index_at: 5,
            index_bytes: 6,
            meta_at: 7,
            meta_bytes: 8,
            checksum: 9,
        };
        let bytes = header.encode();
        assert_eq!(&bytes[..16], b"NCTSHARD\x01\0\0\0\x02\0\0\0");
        for (at, value) in [(16, 3), (24, 4), (32, 5), (40, 6), (48, 7), (56, 8), (64, 9)] {
            assert_eq!(bytes[at], value, "byte {at}");
        }
        assert_eq!(Header::parse(&bytes), Ok(header));
    }

    #[test]
    fn entry_bytes_round_trip_and_unknown_codecs_are_refused() {
        let entry = Entry { at: 64, stored_bytes: 10, raw_bytes: 20, checksum: 30, codec: Codec::Zstd };
        let mut bytes = entry.encode();
        assert_eq!(Entry::parse(&bytes), Ok(entry));
        bytes[20] = 7;
        assert!(Entry::parse(&bytes).is_err());
    }
}
