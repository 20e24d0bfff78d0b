//! Plans to host batches: decode, augment, normalise, deliver in order.
//!
//! Absent: models, and any influence of threads on what is delivered.

mod aligned;
mod arena;
mod augment;
mod batch;
mod cache;
mod distort;
mod error;
mod frame;
mod handover;
mod moves;
mod noise;
mod prefetch;
mod render;
mod roofline;
mod source;

pub use aligned::Aligned;
pub use augment::{AugmentSettings, Noise, NoiseLevel, Placement};
pub use batch::{Batch, PixelType, Pixels, Step, Targets};
pub use cache::{Budget, Column, Row};
pub use distort::DistortSettings;
pub use error::LoadError;
pub use frame::{RandomResizedCrop, Region};
pub use moves::{Grain, Move, Moves};
pub use prefetch::{Loader, LoaderOptions, LoaderTimes};
pub use render::{GRAY, Scratch, SourceMap, Tables};
pub use roofline::Roofline;
pub use source::{FillMemory, Source, View, u32_column};

use std::sync::{Mutex, MutexGuard, PoisonError};

/// A panic while a block was decoded leaves it as one that nobody has asked for, so poison says nothing.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
