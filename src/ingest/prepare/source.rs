//! Which files a data set is made from, and how they are told from others: by names, labels and lengths, and by all
//! bytes where these are few.

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
    /// Of files with the fingerprint `files`, and of such lengths.
    pub(super) fn of(files: &Fingerprint, lengths: &[u64]) -> Self {
        let lengths_too = lengths_fingerprint(lengths);
        let both = Fingerprint::of_parts([files, &lengths_too].map(|part| part.as_str().as_bytes()));
        Self { setting: format!("source = {both}"), bytes: lengths.iter().sum() }
    }
}

/// All files that a data set is made from.
pub(super) fn source_files(set: &Found) -> Vec<&Path> {
    match set {
        Found::Images(set) => set.train.iter().chain(&set.test).map(|(path, _)| path.as_path()).collect(),
        Found::Neural(set) => set.sessions.iter().chain(set.images.values()).map(PathBuf::as_path).collect(),
    }
}

/// Fingerprint of the names of a data set's files, of the labels or ids of images, which other files say, and of all
/// bytes of session files: these are small, and responses may change without their number.
pub(super) fn files_fingerprint(set: &Found) -> Result<Fingerprint> {
    let (root, images, sessions): (_, Vec<(&Path, u32)>, &[PathBuf]) = match set {
        Found::Images(set) => {
            let files = set.train.iter().chain(&set.test);
            (&set.root, files.map(|(path, label)| (path.as_path(), *label)).collect(), &[])
        }
        Found::Neural(set) => {
            let files = set.images.iter();
            (&set.root, files.map(|(id, path)| (path.as_path(), *id)).collect(), &set.sessions)
        }
    };
    let lines = |images: &[(&Path, u32)]| {
        let mut lines = Vec::with_capacity(64 * images.len());
        for (path, number) in images {
            lines.extend_from_slice(name_within(root, path));
            lines.push(b'\t');
            lines.extend_from_slice(&number.to_le_bytes());
            lines.push(b'\n');
        }
        lines
    };
    let mut parts: Vec<Vec<u8>> = images.par_chunks(FILES_AT_ONCE).map(lines).collect();
    for path in sessions {
        let bytes = fs::read(path).map_err(IngestError::io(path, "read"))?;
        let digest = Fingerprint::of_large(&bytes);
        parts.push([name_within(root, path), b"\t", digest.as_str().as_bytes(), b"\n"].concat());
    }
    Ok(Fingerprint::of(&parts.concat()))
}

/// The name of a file below `root`. Paths were made by joining, so that their bytes tell; comparing them part by part
/// takes long.
fn name_within<'a>(root: &Path, path: &'a Path) -> &'a [u8] {
    let path = path.as_os_str().as_encoded_bytes();
    let name = path.strip_prefix(root.as_os_str().as_encoded_bytes());
    name.map_or(path, |name| name.strip_prefix(b"/").unwrap_or(name))
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
