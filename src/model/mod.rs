//! The network: a VGG core cut at the tapped layer, one Gaussian readout a session, a classifier.
//! Torch begins here.
//!
//! Absent: data loading, losses.

mod classifier;
pub mod device;
mod freeze;
#[cfg(test)]
mod golden;
mod network;
mod params;
mod pass;
mod precision;
mod readout;
mod table;
mod vgg;
pub mod weights;

pub use network::Network;
pub use params::{Param, Params};
pub use pass::Mode;
pub use precision::{Numerics, Precision};
pub use table::{Cost, LayerRow};
pub use vgg::{LayerSpec, VggPlan};

use crate::base::Task;
use serde::{Deserialize, Serialize};

/// A network that cannot be built, or weights that do not fit it.
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
}

impl ModelError {
    pub(crate) fn file(file: &str, what: impl Into<String>) -> Self {
        Self::File { file: file.to_owned(), what: what.into() }
    }
}

/// Kind of the classification head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HeadKind {
    /// 1 x 1 convolutions and a spatial maximum: any image size.
    Conv,
    /// Linear layers: the image size is fixed.
    Dense,
}

/// The network's settings, named as the reference's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelSettings {
    /// `vgg11` to `vgg19`, with `_bn` for batch normalisation, or a plan such as `bn 16 M 32 M`.
    pub vgg_type: VggPlan,
    /// Layers of the core up to the map that readouts of V1 read; 0 or less where there are none.
    pub v1_model_layer: i64,
    /// The same for V4; the blocks up to the later one of both are shared with classification.
    pub v4_model_layer: i64,
    /// Extra dropout after the rectifications of the core.
    pub add_dropout: AddDropout,
    /// Train the shared blocks.
    pub v1_fine_tune: bool,
    /// A batch norm and a rectification of their own before the readouts of each area.
    pub v1_final_batchnorm: bool,
    /// `conv` or `dense`.
    pub classification_readout_type: HeadKind,
    /// Width of the head's two hidden layers.
    pub hidden: i64,
    /// Dropout after each of the head's hidden layers.
    pub dropout: f64,
    /// Average the last map to 7 x 7 before the head.
    pub avg_pool: bool,
    /// Readout positions start from U(-r, r).
    pub v1_init_mu_range: f64,
    /// Readout deviations start from U(0, r).
    pub v1_init_sigma_range: f64,
    /// Whether readouts have a bias; it starts at the mean response.
    pub v1_readout_bias: bool,
    /// Weight of the readouts' L1 penalty, which counts only with `loss.scale_loss`.
    pub v1_gamma_readout: f64,
    /// o in elu(x + o) + 1, the output nonlinearity.
    pub v1_elu_offset: f64,
}

/// Rates of extra dropout (spec/models 2.6); 0 for none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AddDropout {
    /// In the blocks that tasks share.
    pub shared_block: f64,
    /// In the rest of the core.
    pub unshared_block: f64,
}

impl Default for ModelSettings {
    /// The paper's: VGG-19 with batch normalisation, cut after conv3_1.
    fn default() -> Self {
        Self {
            vgg_type: "vgg19_bn".parse().expect("one of the eight names"),
            v1_model_layer: 17,
            v4_model_layer: -1,
            add_dropout: AddDropout::default(),
            v1_fine_tune: true,
            v1_final_batchnorm: false,
            classification_readout_type: HeadKind::Conv,
            hidden: 4096,
            dropout: 0.5,
            avg_pool: false,
            v1_init_mu_range: 0.3,
            v1_init_sigma_range: 0.6,
            v1_readout_bias: true,
            v1_gamma_readout: 0.5,
            v1_elu_offset: -1.0,
        }
    }
}

/// What the network must know of the data.
#[derive(Debug, Clone, PartialEq)]
pub struct DataInfo {
    /// Channels, height and width of the images.
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
    /// Mean training response of each neuron.
    pub mean_response: Vec<f32>,
}
