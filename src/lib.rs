//! `nct`: a data-oriented, multi-task training engine.
//!
//! One network learns object recognition and the responses of neurons in visual cortex. Raw data
//! sets become shards once; after that every epoch is a straight line from mapped memory to a
//! gradient step, and that line is the same on every run:
//!
//! ```text
//! raw folders ──ingest──▶ shard ──▶ load ◀── schedule
//!                                    │
//!                                    ▼
//!                      model ──▶ objective ──▶ train ──▶ eval, analysis
//! ```
//!
//! Modules are declared bottom layer first, and a module uses only the ones above it in this list
//! (`tests/layers.rs` checks). What is deliberately absent:
//! - `shard` starts no thread and reads no clock; `schedule` does no input or output.
//! - Nothing below `torch_ext` mentions torch. Nothing below `cli` prints or uses `anyhow`.
//! - No random number exists outside [`base::rng`], and none depends on a thread or a clock.
//!   Torch's own generator is reseeded from it at every step; images that are searched start from it as the
//!   reference's do.
//! - The sequence of batches is a function of (settings, seed, shards): the number of threads,
//!   the read-ahead and restarts cannot change it.

pub mod base;

pub mod files;

pub mod store;

pub mod corruption;
pub mod figure;
pub mod runs;
pub mod shard;
pub mod table;

pub mod ingest;
pub mod schedule;

pub mod load;

#[cfg(feature = "torch")]
pub mod torch_ext;

#[cfg(feature = "torch")]
pub mod model;

#[cfg(feature = "torch")]
pub mod objective;

#[cfg(feature = "torch")]
pub mod analysis;
#[cfg(feature = "torch")]
pub mod eval;
#[cfg(feature = "torch")]
pub mod train;

#[cfg(feature = "torch")]
pub mod config;
#[cfg(feature = "torch")]
pub mod datajoint;
#[cfg(feature = "torch")]
pub mod report;

pub mod cli;
