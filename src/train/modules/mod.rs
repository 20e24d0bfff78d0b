//! What may be added to the training loop (spec/trainer 3.8): losses on representations, pruning, readouts
//! that are drawn anew. Made once a run, so that each may have a state.

mod lottery;
mod similarity;

pub use lottery::LotterySettings;

use super::{Anneal, TrainError};
use crate::load::AugmentSettings;
use crate::model::{Mode, ModelError, Network};
use lottery::Lottery;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use tch::Tensor;

/// Which modules a run has.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ModuleSettings {
    /// Two views of each labelled image should look alike to the network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub representation_matching: Option<MatchingSettings>,
    /// Images should be as alike to the network as they are to another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rdm_prediction: Option<RdmSettings>,
    /// Prune and start again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lottery_ticket: Option<LotterySettings>,
    /// Draw layers anew now and then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readout_reset: Option<ReadoutResetSettings>,
}

/// How alike two representations should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Criterion {
    /// 1 minus the cosine over channels, averaged over images and positions.
    Cosine,
    /// Mean squared difference.
    Mse,
}

/// Representation matching: the second view of an image is always noisy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MatchingSettings {
    /// The layer, such as `unshared_block.35` or `features.52`.
    pub representation: String,
    /// `cosine` or `mse`.
    #[serde(default = "cosine")]
    pub criterion: Criterion,
    /// Weight.
    #[serde(default = "one")]
    pub lambda: f64,
    /// Augmentation of the second view; without it, see [`Self::second_view`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub second_view: Option<AugmentSettings>,
}

/// Prediction of another network's similarities.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RdmSettings {
    /// Folder of the run whose best weights give the similarities.
    pub run: PathBuf,
    /// The layer of the network that is trained.
    pub representation: String,
    /// The layer of the other one; the same if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Weight.
    #[serde(default = "one")]
    pub lambda: f64,
}

impl RdmSettings {
    /// The layer of the other network.
    pub fn target(&self) -> &str {
        self.target.as_deref().unwrap_or(&self.representation)
    }
}

/// Layers that are drawn anew.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReadoutResetSettings {
    /// The layers, such as `classification_readout.6`.
    pub layers: Vec<String>,
    /// After so many epochs, again and again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epochs: Option<u32>,
    /// After so many updates, again and again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updates: Option<u64>,
}

fn cosine() -> Criterion {
    Criterion::Cosine
}

fn one() -> f64 {
    1.0
}

impl MatchingSettings {
    /// How the second view is made of images whose first one is made as `first` says. If nothing else was asked for, it is
    /// the reference's: the same, but always disturbed, by one of five levels of noise and by `distort`, if there is any
    /// (spec/data 3, spec/trainer 3.8).
    pub fn second_view(&self, first: &AugmentSettings) -> AugmentSettings {
        use crate::load::{DistortSettings, Noise, NoiseLevel};
        let level = |std| NoiseLevel { noise: Noise::Std(std), share: 0.2 };
        let always = |distort: &DistortSettings| DistortSettings { share: 1.0, ..distort.clone() };
        self.second_view.clone().unwrap_or_else(|| AugmentSettings {
            noise: [0.08, 0.12, 0.18, 0.26, 0.38].map(level).to_vec(),
            distort: first.distort.as_ref().map(always),
            ..first.clone()
        })
    }
}

fn names(list: &[String]) -> Vec<&str> {
    list.iter().map(String::as_str).collect()
}

impl ModuleSettings {
    /// Checks ranges.
    pub fn check(&self, max_iter: u32) -> Result<(), String> {
        let weight = |key: &str, lambda: f64| {
            if lambda.is_finite() && lambda > 0.0 {
                Ok(())
            } else {
                Err(format!("modules.{key}.lambda = {lambda} is out of range"))
            }
        };
        if let Some(matching) = &self.representation_matching {
            weight("representation_matching", matching.lambda)?;
            matching.second_view.iter().try_for_each(AugmentSettings::check)?;
        }
        self.rdm_prediction.as_ref().map_or(Ok(()), |rdm| weight("rdm_prediction", rdm.lambda))?;
        self.lottery_ticket.as_ref().map_or(Ok(()), |lottery| lottery.check(max_iter))?;
        if let Some(reset) = &self.readout_reset {
            let every = [reset.epochs.map(u64::from), reset.updates];
            if reset.layers.is_empty() || every.iter().flatten().count() != 1 || every.contains(&Some(0)) {
                return Err(
                    "modules.readout_reset needs layers, and either epochs or updates, at least 1".into()
                );
            }
        }
        Ok(())
    }

    /// Checks that the network has the layers that are named.
    pub fn fit(&self, net: &Network) -> Result<(), ModelError> {
        for name in self.representations() {
            net.layer(name)?;
        }
        self.readout_reset.as_ref().map_or(Ok(()), |reset| net.can_reset(&names(&reset.layers)))
    }

    /// Whether there is nothing left to train: early stopping ends a lottery ticket, and only the last one ends the run.
    pub fn is_over(&self, anneal: &Anneal) -> bool {
        anneal.is_done() && !self.lottery_ticket.as_ref().is_some_and(|lottery| lottery.is_due(anneal))
    }

    /// Epochs that training has at most before it ends or begins again, of the `left` that the run has.
    pub(super) fn epochs(&self, anneal: &Anneal, left: u32) -> u32 {
        self.lottery_ticket.as_ref().map_or(left, |lottery| lottery.epochs(anneal, left))
    }

    /// Layers whose output enters a loss.
    fn representations(&self) -> Vec<&str> {
        let matching = self.representation_matching.iter().map(|m| m.representation.as_str());
        let rdm = self.rdm_prediction.iter().map(|r| r.representation.as_str());
        matching.chain(rdm).collect()
    }
}

/// The modules of a run, with their state.
#[derive(Debug)]
pub struct Modules {
    settings: ModuleSettings,
    lottery: Option<Lottery>,
    /// The network of `rdm_prediction`.
    teacher: Option<Network>,
}

impl Modules {
    /// For the given trainable parameters of the network, whose values now are the initial ones. `teacher` is the
    /// network of `rdm_prediction`.
    pub fn new(
        settings: &ModuleSettings,
        params: &[(String, Tensor)],
        teacher: Option<Network>,
    ) -> Result<Self, TrainError> {
        if settings.rdm_prediction.is_some() != teacher.is_some() {
            let what = "modules.rdm_prediction needs the network of its run";
            return Err(TrainError::Settings(what.into()));
        }
        let lottery = settings.lottery_ticket.as_ref().map(|s| Lottery::new(s, params)).transpose()?;
        Ok(Self { settings: settings.clone(), lottery, teacher })
    }

    /// Which there are.
    pub(super) fn settings(&self) -> &ModuleSettings {
        &self.settings
    }

    /// Paths of the representations that [`Self::loss`] wants.
    pub(super) fn representations(&self) -> Vec<&str> {
        self.settings.representations()
    }

    /// Loss of the representations of `images`, of which the first `n` are first views.
    pub(super) fn loss(
        &self,
        images: &Tensor,
        representations: &[Tensor],
        n: i64,
    ) -> Result<Option<Tensor>, TrainError> {
        if n == 0 {
            // An empty share of a batch adds nothing, but its backward pass is that of the others.
            let nothing = representations.iter().map(|r| r.sum(r.kind()));
            return Ok(nothing.reduce(|a, b| a + b));
        }
        let mut found = representations.iter();
        let mut total: Option<Tensor> = None;
        let mut add = |loss: Tensor| {
            total = Some(match total.take() {
                Some(sum) => sum + loss,
                None => loss,
            });
        };
        if let Some(matching) = &self.settings.representation_matching
            && let Some(all) = found.next()
        {
            let (first, second) = (all.narrow(0, 0, n), all.narrow(0, n, all.size()[0] - n));
            let distance = match matching.criterion {
                Criterion::Cosine => similarity::cosine_distance(&first, &second),
                Criterion::Mse => similarity::squared_difference(&first, &second),
            };
            add(distance * matching.lambda);
        }
        if let (Some(rdm), Some(teacher)) = (&self.settings.rdm_prediction, &self.teacher)
            && let Some(own) = found.next()
        {
            let path = rdm.target();
            let first = images.narrow(0, 0, n);
            let target = tch::no_grad(|| teacher.classify_with(&first, Mode::EVAL, &[path]))?.1;
            add(similarity::rdm_distance(&own.narrow(0, 0, n), &target[0]) * rdm.lambda);
        }
        Ok(total)
    }

    /// Before the first update of the epoch to come. Says whether the weights went back to their beginning.
    pub(super) fn before_epoch(&mut self, anneal: &Anneal, net: &Network) -> Result<bool, TrainError> {
        let epoch = anneal.epoch + 1;
        if let Some(reset) = &self.settings.readout_reset {
            let due = |n: u32| epoch > 1 && (epoch - 1).is_multiple_of(n);
            if reset.epochs.is_some_and(due) {
                net.reset(Some(&names(&reset.layers)))?;
            }
        }
        match (&self.settings.lottery_ticket, &mut self.lottery) {
            (Some(settings), Some(lottery)) if settings.is_due(anneal) => {
                let fresh = settings.reinit.then(|| net.fresh()).transpose()?;
                lottery.prune(fresh.as_ref());
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Before update number `step` of the run.
    pub(super) fn before_step(&self, step: u64, net: &Network) -> Result<(), TrainError> {
        match &self.settings.readout_reset {
            Some(reset) if reset.updates.is_some_and(|n| step > 0 && step.is_multiple_of(n)) => {
                Ok(net.reset(Some(&names(&reset.layers)))?)
            }
            _ => Ok(()),
        }
    }

    /// After the backward passes of an update.
    pub(super) fn after_backward(&self) {
        self.lottery.iter().for_each(Lottery::mask_gradients);
    }

    /// After an update, or when other weights were put in place.
    pub(super) fn after_weights(&self) {
        self.lottery.iter().for_each(Lottery::mask_weights);
    }

    /// Share of the weights that pruning has left, if there is any.
    pub(super) fn alive(&self) -> Option<f64> {
        self.lottery.as_ref().map(Lottery::alive)
    }

    pub(super) fn state(&self) -> Vec<(String, Tensor)> {
        self.lottery.as_ref().map(Lottery::state).unwrap_or_default()
    }

    pub(super) fn load(&mut self, state: &[(String, Tensor)], file: &str) -> Result<(), TrainError> {
        self.lottery.as_mut().map_or(Ok(()), |lottery| lottery.load(state, file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::DistortSettings;

    #[test]
    fn the_second_view_is_the_first_and_always_disturbed() {
        let matching = |more: &str| -> MatchingSettings {
            toml::from_str(&format!("representation = \"x\"\n{more}")).unwrap()
        };
        let distort: DistortSettings = toml::from_str("share = 0.25\nkinds = [\"fog\"]").unwrap();
        let first = AugmentSettings {
            flip: false,
            crop_padding: 0,
            rotation_degrees: 0.0,
            noise: Vec::new(),
            distort: Some(distort.clone()),
            ..AugmentSettings::default()
        };
        let second = matching("").second_view(&first);
        assert!((second.noise.iter().map(|level| level.share).sum::<f64>() - 1.0).abs() < 1e-12);
        let always = DistortSettings { share: 1.0, ..distort };
        assert_eq!(
            second,
            AugmentSettings { noise: second.noise.clone(), distort: Some(always), ..first.clone() }
        );
        let asked = matching("second_view = { flip = true, crop_padding = 2 }").second_view(&first);
        assert!(asked.flip && asked.crop_padding == 2 && asked.distort.is_none());
    }
}
