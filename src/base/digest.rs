//! Checksums of blocks (CRC32C) and fingerprints of contents (BLAKE3).

use serde::{Deserialize, Serialize};
use std::fmt;

/// CRC32C (Castagnoli) of `bytes`.
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
}

/// CRC32C of `bytes` appended to data whose checksum is `so_far`.
pub fn crc32c_append(so_far: u32, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(so_far, bytes)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_check_values_hold() {
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
        assert_eq!(crc32c_append(crc32c(b"1234"), b"56789"), 0xE306_9283);
        assert!(Fingerprint::of(b"").as_str().starts_with("af1349b9f5f9a1a6a0404dea36dcc949"));
    }

    #[test]
    fn boundaries_between_parts_count() {
        let joined = Fingerprint::of_parts([b"ab".as_slice(), b"c"]);
        assert_ne!(joined, Fingerprint::of_parts([b"a".as_slice(), b"bc"]));
    }
}
