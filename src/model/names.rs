//! Names of layers: their paths, and names that mean the same layer in every VGG, however it is cut.

use super::layer::{Block, Op};
use super::network::{Core, Network};
use super::{ModelError, Part};

/// A layer or block whose output can be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerName {
    /// Its dotted path, such as `mtl_vgg_core.v1_block.14`.
    pub path: String,
    /// Its place in a VGG, such as `conv3_1`, `bn3_1`, `relu3_1` or `pool3`; none of other layers.
    pub place: Option<String>,
    /// Number of the same layer among the `features` of an uncut VGG without dropout.
    pub feature: Option<usize>,
    /// Part of the network.
    pub part: Part,
}

impl Network {
    /// All layers in order, and each block after its layers.
    pub fn layer_names(&self) -> Vec<LayerName> {
        let mut places = Places::default();
        let mut names = Vec::new();
        for stage in &self.stages {
            let vgg = matches!(stage.core, Core::Vgg(_));
            for block in stage.core.blocks() {
                places.add(block, Part::Shared, vgg, &mut names);
            }
            if let Some(extra) = stage.extra() {
                places.add(extra, Part::Readout, false, &mut names);
            }
        }
        let head = self.tower.len().saturating_sub(1);
        for (i, block) in self.tower.iter().enumerate() {
            places.add(block, Part::Classification, i < head, &mut names);
        }
        names
    }

    /// The path of the layer called `name`: a path or the end of one that no other has, a place such as `conv3_1`, or
    /// `features.14` for that layer of any VGG.
    ///
    /// # Errors
    /// A name that no layer, or more than one, has; the message lists them.
    pub fn layer(&self, name: &str) -> Result<String, ModelError> {
        let names = self.layer_names();
        let feature = name.strip_prefix("features.").and_then(|number| number.parse::<usize>().ok());
        let exact = |of: &LayerName| {
            of.path == name
                || of.place.as_deref() == Some(name)
                || (feature.is_some() && of.feature == feature)
        };
        if let Some(found) = names.iter().find(|of| exact(of)) {
            return Ok(found.path.clone());
        }
        let ending = |of: &&LayerName| of.path.strip_suffix(name).is_some_and(|rest| rest.ends_with('.'));
        let found: Vec<&str> = names.iter().filter(ending).map(|of| of.path.as_str()).collect();
        match found[..] {
            [one] => Ok(one.to_owned()),
            [] => Err(self.no_such(name)),
            _ => Err(ModelError::Settings(format!(
                "{name:?} could be {}; give more of its name",
                found.join(", ")
            ))),
        }
    }

    pub(super) fn no_such(&self, name: &str) -> ModelError {
        let told = |of: LayerName| match of.place {
            Some(place) => format!("{} ({place})", of.path),
            None => of.path,
        };
        let names: Vec<String> = self.layer_names().into_iter().map(told).collect();
        ModelError::Settings(format!("no layer is named {name:?}; there are {}", names.join(", ")))
    }
}

/// Where one is in a VGG: poolings, and convolutions since the last of them.
#[derive(Default)]
struct Places {
    pools: usize,
    convolutions: usize,
    features: usize,
}

impl Places {
    fn add(&mut self, block: &Block, part: Part, vgg: bool, names: &mut Vec<LayerName>) {
        for layer in &block.layers {
            let counts = vgg && !matches!(layer.op, Op::Dropout(_));
            let place = if counts { self.place(&layer.op) } else { None };
            let feature = counts.then_some(self.features);
            self.features += usize::from(counts);
            names.push(LayerName { path: layer.path.clone(), place, feature, part });
        }
        if !block.layers.is_empty() {
            names.push(LayerName { path: block.path.clone(), place: None, feature: None, part });
        }
    }

    fn place(&mut self, op: &Op) -> Option<String> {
        if matches!(op, Op::Conv { .. }) {
            self.convolutions += 1;
        }
        let number = format!("{}_{}", self.pools + 1, self.convolutions);
        match op {
            Op::Conv { .. } => Some(format!("conv{number}")),
            Op::Norm(_) => Some(format!("bn{number}")),
            Op::Relu => Some(format!("relu{number}")),
            Op::MaxPool => {
                self.pools += 1;
                self.convolutions = 0;
                Some(format!("pool{}", self.pools))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{DataInfo, DropoutPlace, Mode, ModelSettings, SessionData};
    use super::*;
    use crate::base::Task;
    use crate::model::Runtime;
    use tch::{Device, Kind, Tensor};

    fn network(neural: bool, dropout: bool) -> Network {
        let mut settings =
            ModelSettings { vgg_type: "vgg11_bn".parse().unwrap(), hidden: 8, ..ModelSettings::default() };
        settings.v1_model_layer = 11;
        if dropout {
            settings.add_dropout.insert(DropoutPlace::SharedBlock, 0.5);
        }
        let session =
            SessionData { task: Task::V1, id: "s".into(), image: [1, 32, 32], mean_response: vec![0.5; 3] };
        let sessions = if neural { vec![session] } else { Vec::new() };
        let data = DataInfo { image: [1, 32, 32], classes: Some(4), sessions };
        Network::new(&settings, &data, Device::Cpu, Runtime::default()).unwrap()
    }

    #[test]
    fn places_mean_the_same_layer_in_cut_and_uncut_networks() {
        let (plain, cut) = (network(false, false), network(true, false));
        for (name, in_plain, in_cut) in [
            ("conv1_1", "features.0", "mtl_vgg_core.v1_block.0"),
            ("features.8", "features.8", "mtl_vgg_core.v1_block.8"),
            ("relu3_1", "features.10", "mtl_vgg_core.v1_block.10"),
            ("conv3_2", "features.11", "mtl_vgg_core.unshared_block.0"),
            ("pool5", "features.28", "mtl_vgg_core.unshared_block.17"),
        ] {
            assert_eq!(plain.layer(name).unwrap(), in_plain);
            assert_eq!(cut.layer(name).unwrap(), in_cut);
        }
        assert_eq!(cut.layer("v1_block.3").unwrap(), "mtl_vgg_core.v1_block.3");
        // Dropout after rectifications moves indices, not places.
        let moved = network(true, true);
        assert_eq!(moved.layer("conv2_1").unwrap(), "mtl_vgg_core.v1_block.5");
        assert_eq!(moved.layer("features.4").unwrap(), "mtl_vgg_core.v1_block.5");
        let e = cut.layer("3").unwrap_err().to_string();
        assert!(e.contains("unshared_block.3") && e.contains("v1_block.3"), "{e}");
        let e = cut.layer("conv9_9").unwrap_err().to_string();
        assert!(e.contains("relu3_1"), "{e}");
        assert_eq!(plain.layer("classifier.0").unwrap(), "classifier.0");
    }

    #[test]
    fn layers_are_what_a_whole_pass_has_there_and_nothing_behind_is_computed() {
        let net = network(true, false);
        let images = Tensor::randn([2, 1, 32, 32], (Kind::Float, Device::Cpu));
        let names = ["mtl_vgg_core.v1_block.4", "mtl_vgg_core.unshared_block.3", "mtl_vgg_core.v1_block"];
        let (_, whole) = net.classify_with(&images, Mode::EVAL, &names).unwrap();
        let found = net.layers(&images, Mode::EVAL, &names).unwrap();
        for (a, b) in whole.iter().zip(&found) {
            assert_eq!(a, b);
        }
        // Images that are too small for the later poolings still have early layers.
        let small = Tensor::randn([2, 1, 8, 8], (Kind::Float, Device::Cpu));
        assert!(net.classify(&small, Mode::EVAL).is_err());
        let early = net.layers(&small, Mode::EVAL, &["conv1_1", "relu2_1"]).unwrap();
        assert_eq!(early[1].size(), [2, 128, 4, 4]);
    }

    /// Also of the convolutions whose normalisation was folded into them, and their gradients.
    #[test]
    fn layers_of_a_folded_network_are_what_they_were() {
        let mut net = network(true, true);
        tch::no_grad(|| {
            // Of normalisations, mostly.
            for param in net.params().iter().filter(|p| p.tensor.dim() == 1 && p.tensor.kind() == Kind::Float)
            {
                param.tensor.shallow_clone().copy_(&(param.tensor.rand_like() * 0.5 + 0.1));
            }
        });
        let images = Tensor::randn([2, 1, 32, 32], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let of = |net: &Network, name: &str| {
            let found = net.layers(&images, Mode::EVAL, &[name]).unwrap().remove(0);
            let gradient =
                Tensor::run_backward(&[found.square().mean(Kind::Float)], &[&images], false, false);
            [found, gradient.into_iter().next().unwrap()]
        };
        let names = net.layer_names();
        let before: Vec<_> = names.iter().map(|name| of(&net, &name.path)).collect();
        net.fold();
        let mut differ = 0;
        for (name, before) in names.iter().zip(&before) {
            for (before, after) in before.iter().zip(of(&net, &name.path)) {
                let largest = before.abs().max().double_value(&[]);
                let apart = (before - &after).abs().max().double_value(&[]) / largest;
                assert!(apart < 1e-4, "{}: {apart}", name.path);
                differ += usize::from(apart > 0.0);
            }
        }
        // It was rounded otherwise: the convolutions did more.
        assert!(differ > 10, "{differ}");
    }
}
