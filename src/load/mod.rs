//! Plans to host batches: decode, augment, normalise, deliver in order.
//!
//! Absent: models, and any influence of threads on what is delivered.

mod augment;
mod batch;
mod cache;
mod error;
mod prefetch;
mod source;

pub use augment::{AugmentSettings, Normalise, OUTSIDE, Placement, source_map};
pub use batch::{Batch, Step, Targets};
pub use cache::Column;
pub use error::LoadError;
pub use prefetch::{Loader, LoaderOptions};
pub use source::{Source, View};
