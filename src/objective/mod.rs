//! Outputs and targets to numbers: losses with learnable task weights, and scores.
//!
//! Absent: files, optimisation.

mod loss;
pub mod score;

pub use loss::{NeuralLoss, Objective, ObjectiveSettings};
