//! Which files a data set is made from, and how they are told from others: by names and lengths.

use super::{Fingerprint, Found, IngestError, Result};
use rayon::prelude::*;
use std::fs;
use std::path::{Path, PathBuf};

/// Files whose names or lengths one task gathers.
const FILES_AT_ONCE: usize = 256;

/// How the manifest states the files and their lengths.
pub(super) fn source_setting(set: &Found, lengths: &[u64]) -> String {
    format!("source = {}", source_fingerprint(set, Some(lengths)))
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

/// Fingerprint of the names of a data set's files and, if they are given, of their lengths.
pub(super) fn source_fingerprint(set: &Found, lengths: Option<&[u64]>) -> Fingerprint {
    let (root, files) = source_files(set);
    let root = root.as_os_str().as_encoded_bytes();
    let lines = |(chunk, paths): (usize, &[&Path])| {
        let mut lines = Vec::with_capacity(64 * paths.len());
        for (i, path) in paths.iter().enumerate() {
            let path = path.as_os_str().as_encoded_bytes();
            // Paths were made by joining, so that their bytes tell; comparing them part by part takes long.
            let name = path.strip_prefix(root).map_or(path, |name| name.strip_prefix(b"/").unwrap_or(name));
            lines.extend_from_slice(name);
            if let Some(lengths) = lengths {
                lines.extend_from_slice(format!("\t{}", lengths[chunk * FILES_AT_ONCE + i]).as_bytes());
            }
            lines.push(b'\n');
        }
        lines
    };
    let lines: Vec<Vec<u8>> = files.par_chunks(FILES_AT_ONCE).enumerate().map(lines).collect();
    Fingerprint::of(&lines.concat())
}

pub(super) fn file_lengths(paths: &[&Path]) -> Result<Vec<u64>> {
    paths.par_iter().with_min_len(FILES_AT_ONCE).map(|path| file_bytes(path)).collect()
}

pub(super) fn file_bytes(path: &Path) -> Result<u64> {
    Ok(fs::metadata(path).map_err(IngestError::io(path, "read"))?.len())
}
