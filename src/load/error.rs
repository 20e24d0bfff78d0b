//! What can go wrong between shards and batches.

use crate::shard::ShardError;
use std::sync::Arc;

/// Errors of the loader.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LoadError {
    /// A shard cannot be read. Shared, because every batch that needs the block meets it.
    #[error(transparent)]
    Shard(Arc<ShardError>),
    /// The prepared data do not fit together or do not fit the settings.
    #[error("{0}")]
    Data(String),
    /// The system gave no thread.
    #[error("loader: no thread could be started: {0}")]
    Thread(String),
    /// A worker stopped without a word: a defect of this program.
    #[error("loader: worker {0} stopped before its batch was ready; its message is above")]
    Worker(usize),
}

impl From<ShardError> for LoadError {
    fn from(error: ShardError) -> Self {
        Self::Shard(Arc::new(error))
    }
}
