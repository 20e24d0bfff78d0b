//! Words every layer may use: identifiers, element types, random numbers, digests.
//! No input or output, no threads, no torch.

#[cfg(target_arch = "x86_64")]
pub mod avx512;
pub mod color;
pub mod digest;
pub mod dtype;
pub mod ids;
pub mod resample;
pub mod rng;

pub use digest::Fingerprint;
pub use dtype::{DType, Shape};
pub use ids::{RecordId, Split, StepIndex, StreamId, Task};
pub use rng::{Purpose, Rng, RngKey};
