//! What trained networks see: images that are searched by gradient (reconstructions and most exciting images), how much
//! of them is content, noise or salient, and how alike representations are.
//!
//! Absent: data, files, printing.

pub mod ascent;
pub mod content;
mod objectives;
pub mod representation;
pub mod saliency;
pub mod statistics;

pub use objectives::{LayerMatch, Match, Responses};

use crate::model::ModelError;

/// What keeps an analysis from being made.
#[derive(Debug, thiserror::Error)]
pub enum AnalysisError {
    /// The network.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Settings that contradict one another or the data.
    #[error("{0}")]
    Settings(String),
    /// Numbers that are none.
    #[error("{0}")]
    Numbers(String),
    /// It was asked to stop.
    #[error("stopped")]
    Stopped,
    /// Torch refused.
    #[error("torch: {0}")]
    Torch(#[from] tch::TchError),
}

impl AnalysisError {
    /// Whether the user's input is at fault rather than the program or machine.
    pub fn is_input(&self) -> bool {
        match self {
            Self::Model(e) => e.is_input(),
            Self::Settings(_) | Self::Numbers(_) => true,
            Self::Torch(_) | Self::Stopped => false,
        }
    }
}
