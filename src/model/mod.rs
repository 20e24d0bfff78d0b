//! The network: a VGG core cut at the tapped layer, one Gaussian readout a session, a classifier.
//! Torch begins here.
//!
//! Absent: data loading, losses.

mod classifier;
pub mod device;
#[cfg(test)]
mod golden;
mod params;
mod readout;
mod vgg;
pub mod weights;

pub use params::{Param, Params};
pub use vgg::{LayerSpec, VggPlan};

use crate::base::Task;
use classifier::Classifier;
use readout::GaussianReadout;
use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};
use vgg::Block;

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
    /// Layers of the core that both tasks share; the readouts read the map after them.
    pub v1_model_layer: usize,
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

impl Default for ModelSettings {
    /// The paper's: VGG-19 with batch normalisation, cut after conv3_1.
    fn default() -> Self {
        Self {
            vgg_type: "vgg19_bn".parse().expect("one of the eight names"),
            v1_model_layer: 17,
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

/// Shim.
pub type Network = MtlVgg;
/// Shim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mode {
    /// x
    pub train: bool,
    /// x
    pub frozen_norms: usize,
}
impl Mode {
    /// x
    pub const EVAL: Self = Self { train: false, frozen_norms: 0 };
    /// x
    pub const TRAIN: Self = Self { train: true, frozen_norms: 0 };
}
/// Shim.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// x
    #[default]
    F32,
    /// x
    Bf16,
}

/// The network for both tasks, or for one of them.
#[derive(Debug)]
pub struct MtlVgg {
    params: Params,
    shared: Block,
    readouts: Vec<GaussianReadout>,
    unshared: Option<(Block, Classifier)>,
    elu_offset: f64,
    gamma: f64,
}

impl MtlVgg {
    /// Builds the network with fresh weights from torch's generator, which the caller has seeded.
    ///
    /// Names are the reference's: `mtl_vgg_core.v1_block.*`, `v1_readout.<session>.*` and so on, and
    /// `features.*`, `classifier.*` where there is no neural data.
    pub fn new(settings: &ModelSettings, data: &DataInfo, device: Device) -> Result<Self, ModelError> {
        check(settings, data)?;
        let plan = &settings.vgg_type;
        let layers = plan.layers();
        let [_, height, width] = data.image;
        let neural = !data.sessions.is_empty();
        let cut = if neural { settings.v1_model_layer } else { layers.len() };
        let (core, head) = if neural {
            ("mtl_vgg_core.v1_block", "classification_readout")
        } else {
            ("features", "classifier")
        };
        let mut params = Params::new(device);
        let shared = Block::new(&mut params, core, &layers[..cut]);
        let rest =
            data.classes.map(|_| Block::new(&mut params, "mtl_vgg_core.unshared_block", &layers[cut..]));
        let channels = plan.extent(cut, height, width)[0];
        let readouts = data
            .sessions
            .iter()
            .map(|s| {
                let prefix = format!("v1_readout.{}", s.id);
                GaussianReadout::new(&mut params, &prefix, settings, channels, &s.mean_response)
            })
            .collect();
        let unshared = rest.zip(data.classes).map(|(block, classes)| {
            let extent = plan.extent(layers.len(), height, width);
            (block, Classifier::new(&mut params, head, settings, extent, i64::from(classes)))
        });
        let (elu_offset, gamma) = (settings.v1_elu_offset, settings.v1_gamma_readout);
        Ok(Self { params, shared, readouts, unshared, elu_offset, gamma })
    }

    /// Parameters and buffers.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// Images `[batch, 1 or 3, height, width]` to the map that the readouts see.
    pub fn tap(&self, images: &Tensor, mode: Mode) -> Tensor {
        self.shared.forward(images, mode.train)
    }

    /// Images to logits `[batch, classes]`.
    pub fn classify(&self, images: &Tensor, mode: Mode) -> Tensor {
        let (block, head) = self
            .unshared
            .as_ref()
            .expect("the schedule has labelled images only where the data have classes");
        head.forward(&block.forward(&self.tap(images, mode), mode.train), mode.train)
    }

    /// Images to responses `[batch, neurons]` of session number `session`: elu(x + offset) + 1.
    pub fn respond(&self, images: &Tensor, session: usize, mode: Mode) -> Tensor {
        let read = self.readouts[session].forward(&self.tap(images, mode), mode.train);
        (read + self.elu_offset).elu() + 1.0
    }

    /// The L1 penalty of session number `session`: gamma times the sum of its absolute channel weights.
    /// Shim.
    pub fn classify_with(
        &self,
        images: &Tensor,
        mode: Mode,
        _layers: &[&str],
    ) -> Result<(Tensor, Vec<Tensor>), ModelError> {
        Ok((self.classify(images, mode), Vec::new()))
    }
    /// Shim.
    pub fn reset(&self, _layers: &[String]) -> Result<(), ModelError> {
        Ok(())
    }
    /// x
    pub fn penalty(&self, session: usize) -> Tensor {
        self.readouts[session].l1() * self.gamma
    }

    /// Puts readout positions and deviations back into their bounds; due after every update.
    pub fn clamp_readouts(&self) {
        self.readouts.iter().for_each(GaussianReadout::clamp);
    }
}

fn check(settings: &ModelSettings, data: &DataInfo) -> Result<(), ModelError> {
    let fail = |what: String| Err(ModelError::Settings(what));
    let plan = &settings.vgg_type;
    let cuts = plan.cuts();
    if !data.sessions.is_empty() && !cuts.contains(&settings.v1_model_layer) {
        let layer = settings.v1_model_layer;
        return fail(format!(
            "v1_model_layer {layer} of {plan} cuts between a convolution and its rectification, or beyond the end; legal are {cuts:?}"
        ));
    }
    if data.sessions.is_empty() && data.classes.is_none() {
        return fail("there are neither labelled images nor recording sessions to learn from".into());
    }
    if ![1, 3].contains(&data.image[0]) {
        return fail(format!("images of {} channels; 1 or 3 can be used", data.image[0]));
    }
    let end = plan.extent(plan.layers().len(), data.image[1], data.image[2]);
    if end.contains(&0) {
        return fail(format!(
            "{plan} shrinks images of {} x {} to nothing; use fewer poolings",
            data.image[1], data.image[2]
        ));
    }
    let ranges = [
        ("v1_init_mu_range", settings.v1_init_mu_range, settings.v1_init_mu_range <= 1.0),
        ("v1_init_sigma_range", settings.v1_init_sigma_range, true),
    ];
    for (name, value, within) in ranges {
        if !(value > 0.0 && value.is_finite() && within) {
            return fail(format!("{name} = {value} is out of range"));
        }
    }
    if !(0.0..1.0).contains(&settings.dropout) || !(1..=1 << 20).contains(&settings.hidden) {
        return fail(format!(
            "dropout = {} or hidden = {} is out of range",
            settings.dropout, settings.hidden
        ));
    }
    Ok(())
}
