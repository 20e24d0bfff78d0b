//! What searches make large: nearness of a layer's activity to a target's, and responses of neurons.

use super::AnalysisError;
use super::ascent::Objective;
use crate::model::{Mode, Network};
use tch::{Kind, Tensor};

/// How differences of activity become one number (spec/reconstruction 1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Match {
    /// Minus the mean of squares: what the paper used.
    Mean,
    /// Minus the sum of squares.
    Sum,
}

/// Minus the squared difference of a layer's activity from that of a target, for each image by itself.
#[derive(Debug)]
pub struct LayerMatch<'a> {
    net: &'a Network,
    layer: String,
    /// `[n, activations]`
    targets: Tensor,
    how: Match,
}

impl<'a> LayerMatch<'a> {
    /// For images that are to be seen by `layer` as `targets` `[n, channels, height, width]` are: image i as target i.
    ///
    /// # Errors
    /// A layer that is not there; the message lists those there are.
    pub fn new(net: &'a Network, layer: &str, targets: &Tensor, how: Match) -> Result<Self, AnalysisError> {
        let seen = tch::no_grad(|| activity(net, layer, targets))?;
        Ok(Self { net, layer: layer.to_owned(), targets: seen, how })
    }

    /// Activations of one image.
    pub fn n_activations(&self) -> i64 {
        self.targets.size()[1]
    }

    /// |f(x) - r|² / |r - mean r|² of each image: the share of the target's activity that is missed.
    ///
    /// # Errors
    /// Of torch.
    pub fn relative_error(&self, images: &Tensor) -> Result<Vec<f64>, AnalysisError> {
        let seen = tch::no_grad(|| activity(self.net, &self.layer, images))?;
        let squares = |t: Tensor| t.square().sum_dim_intlist([1i64].as_slice(), false, Kind::Double);
        let mean = self.targets.mean_dim([1i64].as_slice(), true, Kind::Float);
        let share = squares(&seen - &self.targets) / squares(&self.targets - mean);
        Ok(Vec::<f64>::try_from(share)?)
    }
}

/// `[n, activations]` of a layer in evaluation mode.
fn activity(net: &Network, layer: &str, images: &Tensor) -> Result<Tensor, AnalysisError> {
    let mut found = net.layers(images, Mode::EVAL, &[layer])?;
    Ok(found.swap_remove(0).f_flatten(1, -1)?)
}

impl Objective for LayerMatch<'_> {
    fn values(&self, images: &Tensor) -> Result<Tensor, AnalysisError> {
        let seen = activity(self.net, &self.layer, images)?;
        let views = seen.size()[0] / self.targets.size()[0].max(1);
        let targets = if views > 1 {
            self.targets.repeat_interleave_self_int(views, 0, None)
        } else {
            self.targets.shallow_clone()
        };
        let squares = (seen - targets).square();
        let axis = [1i64];
        Ok(-match self.how {
            Match::Mean => squares.mean_dim(axis.as_slice(), false, Kind::Float),
            Match::Sum => squares.sum_dim_intlist(axis.as_slice(), false, Kind::Float),
        })
    }
}

/// Responses of neurons of one session: image i is for neuron i of the list.
#[derive(Debug)]
pub struct Responses<'a> {
    /// The network.
    pub net: &'a Network,
    /// Number of the session.
    pub session: usize,
    /// Number of a neuron for each image.
    pub neurons: Vec<i64>,
}

impl Objective for Responses<'_> {
    fn values(&self, images: &Tensor) -> Result<Tensor, AnalysisError> {
        let responses = self.net.respond(images, self.session, Mode::EVAL)?;
        let views = (images.size()[0] as usize / self.neurons.len().max(1)).max(1);
        let neurons: Vec<i64> =
            self.neurons.iter().flat_map(|&neuron| std::iter::repeat_n(neuron, views)).collect();
        let neurons = Tensor::from_slice(&neurons).to_device(images.device()).unsqueeze(1);
        Ok(responses.f_gather(1, &neurons, false)?.f_squeeze_dim(1)?)
    }
}
