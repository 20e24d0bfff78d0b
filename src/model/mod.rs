//! The networks: a VGG cut at the layers that readouts see, with a classification head, or a core of
//! convolutions with squeeze and excitation; and one readout a recording session. Torch begins here.
//!
//! Absent: data loading, losses.

pub mod device;
pub mod freeze;
#[cfg(test)]
mod golden;
mod head;
mod layer;
mod mode;
mod names;
mod network;
mod params;
mod pass;
mod precision;
mod readout;
mod se;
mod se_settings;
mod settings;
mod vgg;
pub mod weights;

pub use mode::{Mode, Share};
pub use names::LayerName;
pub use network::Network;
pub use params::{Param, Params};
pub use pass::{LayerRow, Part};
pub use precision::{Precision, Runtime};
pub use se_settings::{HiddenKernels, InputRegularizer, ReadoutKind, SeSettings, Stack};
pub use settings::{DropoutPlace, HeadKind, ModelSettings};
pub use vgg::{LayerSpec, VggPlan};

use crate::base::Task;

/// A network that cannot be built or run, or weights that do not fit it.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// Settings that contradict one another or the data.
    #[error("model: {0}")]
    Settings(String),
    /// A weights file.
    #[error("{file}: {what}")]
    File {
        /// The file.
        file: String,
        /// What is wrong with it.
        what: String,
    },
    /// A device that is not there.
    #[error("device {0}")]
    Device(String),
    /// Torch refused, out of memory for example.
    #[error("torch: {0}")]
    Torch(#[from] tch::TchError),
    /// Another process.
    #[error(transparent)]
    Group(#[from] crate::torch_ext::GroupError),
}

impl ModelError {
    pub(crate) fn file(file: &str, what: impl Into<String>) -> Self {
        Self::File { file: file.to_owned(), what: what.into() }
    }

    /// Whether the user's input is at fault rather than the program or machine.
    pub fn is_input(&self) -> bool {
        !matches!(self, Self::Torch(_) | Self::Group(_))
    }
}

/// What the network must know of the data.
#[derive(Debug, Clone, PartialEq)]
pub struct DataInfo {
    /// Channels, height and width of the labelled images.
    pub image: [u32; 3],
    /// Number of classes, if there are labelled images.
    pub classes: Option<u32>,
    /// Recording sessions in readout order.
    pub sessions: Vec<SessionData>,
}

/// What a readout must know of its session.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionData {
    /// Its area: [`Task::V1`] or [`Task::V4`].
    pub task: Task,
    /// Its id, the name of its readout.
    pub id: String,
    /// Channels, height and width of its stimuli.
    pub image: [u32; 3],
    /// Mean training response of each neuron.
    pub mean_response: Vec<f32>,
}
