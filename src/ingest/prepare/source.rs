//! Which files a data set is made from, and how they are told from others: by names and lengths.

use super::{Fingerprint, Found, IngestError, Result};
use rayon::prelude::*;
use std::fs;
use std::path::{Path, PathBuf};

/// Files whose names or lengths one task gathers.
const FILES_AT_ONCE: usize = 256;

/// What a manifest says of the files that a data set was made from.
pub(super) struct Source {
    /// One of its settings.
    pub(super) setting: String,
    /// Length of all files.
    pub(super) bytes: u64,
}

impl Source {
    /// Of files whose names have the fingerprint `names`, and of such lengths.
    pub(super) fn of(names: &Fingerprint, lengths: &[u64]) -> Self {
        let lengths_too = lengths_fingerprint(lengths);
        let both = Fingerprint::of_parts([names, &lengths_too].map(|part| part.as_str().as_bytes()));
        Self { setting: format!("source = {both}"), bytes: lengths.iter().sum() }
    }
}

/// The folder of a data set and all files that it is made from.
pub(super) fn source_files(set: &Found) -> (&Path, Vec<&Path>) {
    match set {
        Found::Images(set) => {
            (&set.root, set.train.iter().chain(&set.test).map(|(path, _)| path.as_path()).collect())
        }
        Found::Neural(set) => {
            (&set.root, set.sessions.iter().chain(set.images.values()).map(PathBuf::as_path).collect())
        }
    }
}

/// Fingerprint of the names of a data set's files.
pub(super) fn names_fingerprint(set: &Found) -> Fingerprint {
    let (root, files) = source_files(set);
    let root = root.as_os_str().as_encoded_bytes();
    let lines = |paths: &[&Path]| {
        let mut lines = Vec::with_capacity(64 * paths.len());
        for path in paths {
            let path = path.as_os_str().as_encoded_bytes();
            // Paths were made by joining, so that their bytes tell; comparing them part by part takes long.
            let name = path.strip_prefix(root).map_or(path, |name| name.strip_prefix(b"/").unwrap_or(name));
            lines.extend_from_slice(name);
            lines.push(b'\n');
        }
        lines
    };
    let lines: Vec<Vec<u8>> = files.par_chunks(FILES_AT_ONCE).map(lines).collect();
    Fingerprint::of(&lines.concat())
}

/// Fingerprint of the lengths of files.
pub(super) fn lengths_fingerprint(lengths: &[u64]) -> Fingerprint {
    let bytes: Vec<u8> = lengths.iter().flat_map(|n| n.to_le_bytes()).collect();
    Fingerprint::of(&bytes)
}

pub(super) fn file_lengths(paths: &[&Path]) -> Result<Vec<u64>> {
    paths.par_iter().with_min_len(FILES_AT_ONCE).map(|path| file_bytes(path)).collect()
}

pub(super) fn file_bytes(path: &Path) -> Result<u64> {
    Ok(fs::metadata(path).map_err(IngestError::io(path, "read"))?.len())
}
