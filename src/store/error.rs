//! What can go wrong between an object store and this machine.

use std::path::{Path, PathBuf};

/// Errors of the store layer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The URL leads nowhere this program can go.
    #[error("{url}: {what}")]
    Address {
        /// As it was given.
        url: String,
        /// What is wrong and what would be right.
        what: String,
    },
    /// The store did not give what was asked for, however often it was asked.
    #[error("{url}: {what}")]
    Fetch {
        /// The object.
        url: String,
        /// The last answer, and the way out.
        what: String,
    },
    /// The store does not let this user read it. Some stores say so of what is not there, too.
    #[error("{url}: {what}")]
    Denied {
        /// The object.
        url: String,
        /// The answer, and the way out.
        what: String,
    },
    /// The cache on disk cannot be written.
    #[error("{}: {action} the cache of fetched data: {source}; NCT_CACHE names another folder, NCT_CACHE_GB its size", path.display())]
    Cache {
        /// File or folder concerned.
        path: PathBuf,
        /// What was being done.
        action: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },
}

impl StoreError {
    pub(super) fn address(url: &str, what: impl Into<String>) -> Self {
        Self::Address { url: url.to_owned(), what: what.into() }
    }

    pub(super) fn cache(path: &Path, action: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Cache { path, action, source }
    }
}
