//! Readers of the raw inputs, and the step from raw folders to shards. Only `prepare` writes shards.
//!
//! Absent: tensors, training. Nothing here changes the user's files.

mod error;
pub mod pickle;

pub use error::{IngestError, Result};
