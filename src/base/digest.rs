//! Checksums of blocks (CRC32C) and fingerprints of contents (BLAKE3).

use blake3::hazmat::{ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};
use serde::{Deserialize, Serialize};
use std::fmt;

/// CRC32C (Castagnoli) of `bytes`.
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// CRC32C of parts that lie one after another.
pub fn crc32c_of_parts<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u32 {
    let mut sum = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
    parts.into_iter().for_each(|part| sum.update(part));
    // It has 32 bits.
    sum.finalize() as u32
}

/// BLAKE3 digest in hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(String);

impl Fingerprint {
    /// Fingerprint of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(blake3::hash(bytes).to_hex().to_string())
    }

    /// Fingerprint of `bytes`, computed on all threads of the current pool.
    pub fn of_large(bytes: &[u8]) -> Self {
        Self(blake3::Hasher::new().update_rayon(bytes).finalize().to_hex().to_string())
    }

    /// Fingerprint of a sequence of parts; the boundaries between parts count.
    pub fn of_parts<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut hasher = blake3::Hasher::new();
        for part in parts {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        Self(hasher.finalize().to_hex().to_string())
    }

    /// All 64 hexadecimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first 12 digits, enough for people.
    pub fn short(&self) -> &str {
        self.0.get(..12).unwrap_or(&self.0)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Fingerprint of bytes that come in order, but for the first, which may be replaced at the end: a file's
/// header holds what is known only then.
///
/// BLAKE3 is a tree over chunks of 1024 bytes. All of it but its left edge can be made before the first chunk
/// is known: the subtrees of chunk 1, chunks 2 and 3, 4 to 7 and so on.
#[derive(Debug, Default)]
pub struct LateStart {
    first: Vec<u8>,
    subtrees: Vec<ChainingValue>,
    subtree: Option<blake3::Hasher>,
    at: u64,
    /// Bytes that do not fill [`WIDE`] yet.
    pending: Vec<u8>,
}

/// The widest vectors hash so many bytes at once. Pieces that begin elsewhere take a fifth longer.
const WIDE: usize = 16 * blake3::CHUNK_LEN;

impl LateStart {
    /// Appends `bytes`.
    pub fn update(&mut self, mut bytes: &[u8]) {
        if !self.pending.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(WIDE - self.pending.len()));
            self.pending.extend_from_slice(now);
            bytes = later;
            if self.pending.len() < WIDE {
                return;
            }
            self.hash_pending();
        }
        let (now, later) = bytes.split_at(bytes.len() / WIDE * WIDE);
        self.hash(now);
        self.pending.extend_from_slice(later);
    }

    fn hash_pending(&mut self) {
        let mut pending = std::mem::take(&mut self.pending);
        self.hash(&pending);
        pending.clear();
        self.pending = pending;
    }

    fn hash(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let chunk = blake3::CHUNK_LEN as u64;
            // The first chunk, or the subtree from one power of two to the next.
            let end = if self.at < chunk { chunk } else { (self.at + 1).next_power_of_two() };
            let (now, later) = bytes.split_at(bytes.len().min((end - self.at) as usize));
            if self.at < chunk {
                self.first.extend_from_slice(now);
            } else {
                if self.at.is_power_of_two() {
                    self.subtrees.extend(self.subtree.take().map(|subtree| subtree.finalize_non_root()));
                }
                let start = || {
                    let mut hasher = blake3::Hasher::new();
                    hasher.set_input_offset(self.at);
                    hasher
                };
                self.subtree.get_or_insert_with(start).update(now);
            }
            self.at += now.len() as u64;
            bytes = later;
        }
    }

    /// The fingerprint if the bytes begin with `start`, at most the first 1024, instead.
    pub fn finish(mut self, start: &[u8]) -> Fingerprint {
        self.hash_pending();
        self.first[..start.len()].copy_from_slice(start);
        let Some(last) = self.subtree else { return Fingerprint::of(&self.first) };
        let mut left = blake3::Hasher::new().update(&self.first).finalize_non_root();
        for subtree in &self.subtrees {
            left = merge_subtrees_non_root(&left, subtree, Mode::Hash);
        }
        let root = merge_subtrees_root(&left, &last.finalize_non_root(), Mode::Hash);
        Fingerprint(root.to_hex().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_start_gives_the_digest_of_the_whole() {
        let bytes: Vec<u8> = (0..40_000).map(|i| crate::base::rng::mix64(i) as u8).collect();
        let edges = (0..6).flat_map(|k| [-1, 0, 1].map(|d| ((1024i64 << k) + d) as usize));
        for n in edges.chain([0, 1, 128, 3000, 3072, 5000, 40_000]) {
            for step in [1, 64, 1000, 50_000] {
                let mut late = LateStart::default();
                let start = &bytes[..n.min(128)];
                late.update(&vec![0; start.len()]);
                bytes[start.len()..n].chunks(step).for_each(|part| late.update(part));
                assert_eq!(late.finish(start), Fingerprint::of(&bytes[..n]), "{n} bytes by {step}");
            }
        }
    }

    #[test]
    fn published_check_values_hold() {
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
        assert_eq!(crc32c_of_parts([b"1234".as_slice(), b"", b"56789"]), 0xE306_9283);
        assert!(Fingerprint::of(b"").as_str().starts_with("af1349b9f5f9a1a6a0404dea36dcc949"));
    }

    #[test]
    fn boundaries_between_parts_count() {
        let joined = Fingerprint::of_parts([b"ab".as_slice(), b"c"]);
        assert_ne!(joined, Fingerprint::of_parts([b"a".as_slice(), b"bc"]));
    }
}
