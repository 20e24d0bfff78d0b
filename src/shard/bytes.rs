//! Where a shard's bytes come from.

use super::error::ShardError;
use super::layout::{HEADER_BYTES, Header};
use super::mmap::Mapped;
use super::reader::is_index;
use crate::base::digest;
use crate::store::StoredFile;
use std::borrow::Cow;
use std::ops::Range;

/// The bytes of a shard: at hand, or somewhere from which they come piece by piece.
pub trait Bytes {
    /// How many there are.
    fn n_bytes(&self) -> u64;

    /// The bytes of `range`, which lies inside. Those that come from elsewhere have the CRC32C `checksum`, if one is
    /// given.
    fn piece(&self, range: Range<u64>, checksum: Option<u32>) -> Result<Cow<'_, [u8]>, ShardError>;

    /// That piece will be asked for soon.
    fn expect(&self, range: Range<u64>, checksum: u32) {
        let _ = (range, checksum);
    }

    /// All of them, if they are at hand.
    fn at_hand(&self) -> Option<&[u8]>;
}

impl<B: AsRef<[u8]>> Bytes for B {
    fn n_bytes(&self) -> u64 {
        self.as_ref().len() as u64
    }

    fn piece(&self, range: Range<u64>, _: Option<u32>) -> Result<Cow<'_, [u8]>, ShardError> {
        Ok(Cow::Borrowed(&self.as_ref()[range.start as usize..range.end as usize]))
    }

    fn at_hand(&self) -> Option<&[u8]> {
        Some(self.as_ref())
    }
}

/// What a data set opens.
#[derive(Debug)]
pub enum Stored {
    /// A file of this machine.
    Mapped(Mapped),
    /// A file of a store, all of it.
    Whole(Vec<u8>),
    /// A file of a store, in pieces.
    Far(Far),
}

impl Bytes for Stored {
    fn n_bytes(&self) -> u64 {
        match self {
            Self::Mapped(bytes) => bytes.n_bytes(),
            Self::Whole(bytes) => bytes.n_bytes(),
            Self::Far(far) => far.file.bytes(),
        }
    }

    fn piece(&self, range: Range<u64>, checksum: Option<u32>) -> Result<Cow<'_, [u8]>, ShardError> {
        match self {
            Self::Mapped(bytes) => bytes.piece(range, checksum),
            Self::Whole(bytes) => bytes.piece(range, checksum),
            Self::Far(far) => far.piece(range, checksum),
        }
    }

    fn expect(&self, range: Range<u64>, checksum: u32) {
        if let Self::Far(far) = self {
            far.file.expect(range, checksum);
        }
    }

    fn at_hand(&self) -> Option<&[u8]> {
        match self {
            Self::Mapped(bytes) => bytes.at_hand(),
            Self::Whole(bytes) => bytes.at_hand(),
            Self::Far(_) => None,
        }
    }
}

/// A file of a store, whose header, index and metadata are here: they say how all other bytes are known to be right.
#[derive(Debug)]
pub struct Far {
    file: StoredFile,
    header: Vec<u8>,
    /// From the index to the end.
    rest: Vec<u8>,
    rest_at: u64,
}

impl Far {
    /// Fetches what describes the shard; it has the `checksum` that the manifest says.
    pub(super) fn open(file: StoredFile, checksum: u32) -> Result<Self, ShardError> {
        let n_bytes = file.bytes();
        let parse = move |bytes: &[u8]| {
            let header = Header::parse(bytes).ok()?;
            let fits = header.checksum == checksum && header.file_bytes == n_bytes;
            (fits && header.index_at <= n_bytes).then_some(header)
        };
        let begins = move |first: &[u8]| parse(first).map(|header| header.index_at);
        let right =
            move |first: &[u8], rest: &[u8]| parse(first).is_some_and(|header| is_index(&header, rest));
        let [header, rest] = file.ends(HEADER_BYTES as u64, &begins, &right)?;
        let rest_at = n_bytes - rest.len() as u64;
        Ok(Self { file, header, rest, rest_at })
    }

    fn piece(&self, range: Range<u64>, checksum: Option<u32>) -> Result<Cow<'_, [u8]>, ShardError> {
        if range.end <= self.header.len() as u64 {
            return Ok(Cow::Borrowed(&self.header[range.start as usize..range.end as usize]));
        }
        if let (Some(start), Some(end)) =
            (range.start.checked_sub(self.rest_at), range.end.checked_sub(self.rest_at))
        {
            return Ok(Cow::Borrowed(&self.rest[start as usize..end as usize]));
        }
        let sound = move |bytes: &[u8]| checksum.is_none_or(|wanted| digest::crc32c(bytes) == wanted);
        Ok(Cow::Owned(self.file.piece(range, &sound)?))
    }
}
