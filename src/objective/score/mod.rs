//! Scores, on the CPU and in double precision, from what a pass collected once. `docs/metrics.md` has every
//! formula with its source, and what is done where it is undefined.
//!
//! Absent: the network, files.

mod classes;
mod neural;
mod repeats;
mod summary;
#[cfg(test)]
mod vectors;

pub use classes::{ClassScores, Guesses};
pub use neural::{NeuronScores, Predictions, SessionScores};
pub use repeats::RepeatScores;
pub use summary::summary;
