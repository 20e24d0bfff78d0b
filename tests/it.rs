//! The program seen from outside: one binary for all integration tests.
#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::print_stdout, reason = "tests")]

#[cfg(feature = "torch")]
mod analysis;
mod bad_input;
mod common;
mod corrupt;
#[cfg(feature = "torch")]
mod datajoint;
#[cfg(feature = "torch")]
mod device;
#[cfg(feature = "torch")]
mod eval;
mod help;
mod layers;
mod layouts;
mod loader;
#[cfg(feature = "torch")]
mod loop_parts;
#[cfg(feature = "torch")]
mod parallel;
mod prepare;
#[cfg(feature = "torch")]
mod programs;
mod python;
#[cfg(feature = "torch")]
mod recipes;
#[cfg(feature = "torch")]
mod report;
#[cfg(feature = "torch")]
mod resident;
#[cfg(feature = "torch")]
mod run;
mod runs;
#[cfg(feature = "store")]
mod store;
#[cfg(feature = "torch")]
mod train;
#[cfg(feature = "torch")]
mod weights;
