//! The only place where evaluation calls the network.

use tch::{Device, Tensor};

use crate::model::Mode;
pub(super) use crate::model::Network;

/// Images to logits `[batch, classes]`, in single precision.
pub(super) fn logits(net: &Network, images: &Tensor) -> Tensor {
    net.classify(images, Mode::EVAL).to_kind(tch::Kind::Float)
}

/// Images to responses `[batch, neurons]` of a session, in single precision.
pub(super) fn responses(net: &Network, images: &Tensor, session: usize) -> Tensor {
    net.respond(images, session, Mode::EVAL).to_kind(tch::Kind::Float)
}

/// Where the network is.
pub(super) fn device(net: &Network) -> Device {
    net.params().device()
}
