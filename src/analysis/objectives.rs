//! What searches make large: nearness of a layer's activity to a target's, and responses of neurons.

use super::AnalysisError;
use super::ascent::{Objective, beside};
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

    /// What is to be matched, `[n, activations]`.
    pub fn target(&self) -> &Tensor {
        &self.targets
    }

    /// What the layer makes of images, `[n, activations]`.
    ///
    /// # Errors
    /// Of torch.
    pub fn activity(&self, images: &Tensor) -> Result<Tensor, AnalysisError> {
        tch::no_grad(|| activity(self.net, &self.layer, images))
    }

    /// |f(x) - r|² / |r - mean r|² of each image: the share of the target's activity that is missed.
    ///
    /// # Errors
    /// Of torch.
    pub fn relative_error(&self, images: &Tensor) -> Result<Vec<f64>, AnalysisError> {
        let seen = self.activity(images)?;
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
        if seen.size()[1] != self.targets.size()[1] {
            let what =
                "a transformation changes the size of the images, and what is to be matched is of whole ones";
            return Err(AnalysisError::Settings(what.into()));
        }
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
        let neurons = beside(&Tensor::from_slice(&neurons), images).unsqueeze(1);
        Ok(responses.f_gather(1, &neurons, false)?.f_squeeze_dim(1)?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::ascent::{
        ChangeNorm, Initial, Operation, OperationSettings, OptimizerSettings, Pad, Search, Settings, Start,
        Stop,
    };
    use super::*;
    use crate::base::Task;
    use crate::model::{DataInfo, ModelSettings, Precision, Runtime, SessionData};
    use tch::Device;

    /// Both kinds of readouts on a VGG that was not trained.
    fn network() -> Network {
        network_in(Precision::F32)
    }

    fn network_in(precision: Precision) -> Network {
        tch::manual_seed(1);
        let mut settings =
            ModelSettings { vgg_type: "vgg11_bn".parse().unwrap(), hidden: 8, ..ModelSettings::default() };
        settings.v1_model_layer = 11;
        let session =
            SessionData { task: Task::V1, id: "s".into(), image: [1, 32, 32], mean_response: vec![0.5; 3] };
        let data = DataInfo { image: [1, 32, 32], classes: Some(4), sessions: vec![session] };
        let net =
            Network::new(&settings, &data, Device::Cpu, Runtime { precision, ..Runtime::default() }).unwrap();
        net.params().iter().for_each(|p| drop(p.tensor.shallow_clone().set_requires_grad(false)));
        net
    }

    fn images(n: i64, channels: i64, seed: i64) -> Tensor {
        tch::manual_seed(seed);
        Tensor::randn([n, channels, 32, 32], (Kind::Float, Device::Cpu))
    }

    #[test]
    fn gradients_are_those_of_finite_differences() {
        let net = network();
        let (target, x) = (images(2, 3, 2), images(2, 3, 3));
        let layers = LayerMatch::new(&net, "relu3_1", &target, Match::Sum).unwrap();
        let responses = Responses { net: &net, session: 0, neurons: vec![2, 0] };
        for objective in [&layers as &dyn Objective, &responses] {
            let leaf = x.detach().set_requires_grad(true);
            let sum = objective.values(&leaf).unwrap().sum(Kind::Double);
            let gradient = Tensor::run_backward(&[sum], &[&leaf], false, false).remove(0);
            tch::no_grad(|| {
                let way = &gradient / gradient.norm();
                let at =
                    |h: f64| objective.values(&(&x + &way * h)).unwrap().sum(Kind::Double).double_value(&[]);
                let h = 3e-3;
                let (numeric, exact) = ((at(h) - at(-h)) / (2.0 * h), gradient.norm().double_value(&[]));
                assert!((numeric / exact - 1.0).abs() < 1e-2, "{numeric} {exact}");
            });
        }
    }

    #[test]
    fn a_target_is_matched_by_itself_and_sums_are_means_times_activations() {
        let net = network();
        let target = images(2, 1, 2);
        let layer = |how| LayerMatch::new(&net, "features.8", &target, how).unwrap();
        let (mean, sum) = (layer(Match::Mean), layer(Match::Sum));
        assert_eq!(mean.values(&target).unwrap().abs().max().double_value(&[]), 0.0);
        assert_eq!(mean.relative_error(&target).unwrap(), [0.0, 0.0]);
        let x = images(2, 1, 5);
        let times = sum.values(&x).unwrap() / mean.values(&x).unwrap();
        assert!((times - mean.n_activations() as f64).abs().max().double_value(&[]) < 0.1);
        assert_eq!(mean.n_activations(), 256 * 8 * 8);
        assert!(LayerMatch::new(&net, "conv7_7", &target, Match::Mean).is_err());
    }

    /// spec/reconstruction 6.6.
    #[test]
    fn many_targets_at_once_give_what_each_gives_alone() {
        // In single precision, convolutions of one and of four images differ by more on some processors.
        let net = network_in(Precision::F64);
        let targets = images(4, 1, 2);
        let blur =
            OperationSettings::GaussianBlur { sigma: [1.0; 2], decay: 0.0, truncate: 4.0, pad: Pad::Reflect };
        let settings = Settings {
            initial: Start::NormalTied,
            transform: Vec::new(),
            regularizer: Vec::new(),
            precondition: vec![blur],
            optimizer: OptimizerSettings::Sgd { lr: 200.0, momentum: 0.0, weight_decay: 0.0 },
            projection: Vec::new(),
            stop: Stop::Steps { n: 20 },
            log_every: 10,
            inhibitory: false,
        };
        let run = |targets: &Tensor, seeds: &[u64], norms: &[f64]| {
            let objective = LayerMatch::new(&net, "conv3_1", targets, Match::Mean).unwrap();
            let constraint: Box<dyn Operation> = Box::new(ChangeNorm::each(norms, true));
            let ascent = settings.ascent(&objective, seeds, Some(constraint));
            let starts: Vec<Tensor> =
                seeds.iter().map(|&seed| settings.initial.image([1, 32, 32], seed)).collect();
            let mut search = Search::new(&Tensor::cat(&starts, 0));
            while !search.is_over() {
                let _ = ascent.advance(&mut search).unwrap();
            }
            search.images
        };
        let (seeds, norms) = ([1, 2, 3, 4], [5.0, 10.0, 20.0, 40.0]);
        let all = run(&targets, &seeds, &norms);
        for i in 0..4 {
            let alone = run(&targets.narrow(0, i as i64, 1), &seeds[i..=i], &norms[i..=i]);
            let apart = (all.narrow(0, i as i64, 1) - alone).abs().max().double_value(&[]);
            assert!(apart < 1e-5, "{i}: {apart}");
        }
    }
}
