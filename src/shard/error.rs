//! What can be wrong with a shard or a prepared data set.

use crate::store::StoreError;
use std::path::{Path, PathBuf};

/// Errors of the shard layer. Every message names the file, the place and the way out.
#[derive(Debug, thiserror::Error)]
pub enum ShardError {
    /// The operating system refused.
    #[error("{}: {action}: {source}", path.display())]
    Io {
        /// File or folder concerned.
        path: PathBuf,
        /// What was being done.
        action: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The bytes are not a shard of a version this program reads, or are damaged.
    #[error("shard {}: {what}", path.display())]
    Damaged {
        /// Shard file.
        path: PathBuf,
        /// Place, what was found and what was expected.
        what: String,
    },
    /// A folder that should hold prepared data does not.
    #[error("{}: {what}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What is wrong and the command that helps.
        what: String,
    },
    /// A store did not give it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The caller asked for rows or fields that do not exist, or gave values of the wrong size.
    #[error("{0}")]
    Misuse(String),
}

impl ShardError {
    pub(crate) fn io(path: &Path, action: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { path, action, source }
    }

    pub(crate) fn damaged(path: &Path, what: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_path_buf(), what: what.into() }
    }

    pub(crate) fn folder(path: &Path, what: impl Into<String>) -> Self {
        Self::Folder { path: path.to_path_buf(), what: what.into() }
    }
}
