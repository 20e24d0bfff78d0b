//! The only place where evaluation calls the network.

use tch::{Device, Tensor};

pub(super) use crate::model::Network;
use crate::model::{Mode, ModelError};

/// Images to logits `[batch, classes]`, in single precision.
pub(super) fn logits(net: &Network, images: &Tensor) -> Result<Tensor, ModelError> {
    net.classify(images, Mode::EVAL)
}

/// Images to responses `[batch, neurons]` of a session, in single precision.
pub(super) fn responses(net: &Network, images: &Tensor, session: usize) -> Result<Tensor, ModelError> {
    net.respond(images, session, Mode::EVAL)
}

/// Where the network is.
pub(super) fn device(net: &Network) -> Device {
    net.params().device()
}
