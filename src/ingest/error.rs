//! What can be wrong with raw data.

use std::path::{Path, PathBuf};

/// Errors of the raw inputs. Every message names the file, what was found and what was expected.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
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
    /// A file or folder does not hold what its place promises.
    #[error("{}: {what}", path.display())]
    Bad {
        /// File or folder concerned.
        path: PathBuf,
        /// Place, what was found, what was expected, and the way out.
        what: String,
    },
    /// Several files do not.
    #[error("{first}{others}")]
    Several {
        /// The first of them.
        first: Box<IngestError>,
        /// The others, a line each.
        others: String,
    },
    /// The user asked to stop.
    #[error("stopped")]
    Stopped,
    /// Shards could not be written.
    #[error(transparent)]
    Shard(#[from] crate::shard::ShardError),
}

impl IngestError {
    pub(crate) fn io(path: &Path, action: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { path, action, source }
    }

    pub(crate) fn bad(path: &Path, what: impl Into<String>) -> Self {
        Self::Bad { path: path.to_path_buf(), what: what.into() }
    }

    /// `first` with `others` of its kind, of which `most` are named.
    pub(crate) fn with_others(first: Self, others: &[Self], most: usize) -> Self {
        if others.is_empty() {
            return first;
        }
        let named: String = others.iter().take(most).map(|other| format!("\n  {other}")).collect();
        let more = if others.len() > most { "\n  and more" } else { "" };
        Self::Several { first: Box::new(first), others: format!("\n  also:{named}{more}") }
    }
}

/// Result of reading raw data.
pub type Result<T> = std::result::Result<T, IngestError>;
