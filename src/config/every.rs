//! Suites of evaluations while training.

use crate::base::Split;
use crate::corruption::words::{all_severities, imagenet, name, names};
use crate::corruption::{Corruption, Profile, Severity};
use crate::eval::{CorruptionSuite, Origin};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Evaluates suites every so many epochs, with that epoch's weights. It changes nothing that is trained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EverySettings {
    /// After epochs that are multiples of this.
    pub epochs: u32,
    /// Which suites.
    #[serde(default = "corruptions")]
    pub suites: Vec<PeriodicSuite>,
    /// Of corruptions: which.
    #[serde(with = "names", default = "paper")]
    #[schemars(with = "Vec<String>")]
    pub corruptions: Vec<Corruption>,
    /// Of corruptions: at which of 1 to 5.
    #[serde(with = "names", default = "all_severities")]
    #[schemars(with = "Vec<u8>")]
    pub severities: Vec<Severity>,
    /// Of corruptions: parameters, `i` of ImageNet-C or `t` of Tiny-ImageNet-C.
    #[serde(with = "name", default = "imagenet")]
    #[schemars(with = "String")]
    pub profile: Profile,
    /// Of corruptions: whose images. Noise is always on validation images.
    #[serde(default = "validation")]
    pub split: Split,
}

/// A suite that can be evaluated while training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PeriodicSuite {
    /// Validation images under Gaussian noise of seven deviations.
    Noise,
    /// Images under corruptions.
    Corruptions,
}

fn corruptions() -> Vec<PeriodicSuite> {
    vec![PeriodicSuite::Corruptions]
}

fn paper() -> Vec<Corruption> {
    Corruption::PAPER.to_vec()
}

fn validation() -> Split {
    Split::Validation
}

impl EverySettings {
    /// Whether there is anything to do.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.epochs == 0 {
            return Err("evaluation.every.epochs must be at least 1; leave the section out for never".into());
        }
        if self.suites.is_empty() || self.corruptions.is_empty() || self.severities.is_empty() {
            return Err("evaluation.every needs at least one of suites, corruptions and severities".into());
        }
        let idle = Self {
            corruptions: paper(),
            severities: all_severities(),
            profile: imagenet(),
            split: validation(),
            ..self.clone()
        };
        if !self.suites.contains(&PeriodicSuite::Corruptions) && *self != idle {
            let keys = "corruptions, severities, profile and split";
            return Err(format!("evaluation.every: {keys} have no effect without the suite \"corruptions\""));
        }
        Ok(())
    }

    /// Whether noise is evaluated.
    pub fn noise(&self) -> bool {
        self.suites.contains(&PeriodicSuite::Noise)
    }

    /// Corruptions, if they are evaluated; with the seed that `nct eval` has too.
    pub fn corruption_suite(&self) -> Option<CorruptionSuite> {
        let mut corruptions = self.corruptions.clone();
        let mut severities = self.severities.clone();
        corruptions.sort_unstable();
        corruptions.dedup();
        severities.sort_unstable();
        severities.dedup();
        let origin = Origin::Made { profile: self.profile, seed: 0 };
        let suite = CorruptionSuite { origin, corruptions, severities, split: self.split };
        self.suites.contains(&PeriodicSuite::Corruptions).then_some(suite)
    }
}
