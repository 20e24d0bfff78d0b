//! A search as settings, for files and for identities.

use super::super::AnalysisError;
use super::Stopper;
use super::{
    Ascent, Objective, Operation, OperationSettings, Optimizer, OptimizerSettings, Penalty, PenaltySettings,
    Start, Stop, TransformSettings,
};
use serde::{Deserialize, Serialize};

/// Everything about a search but its objective.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Where it starts.
    pub initial: Start,
    /// Applied to images before they are evaluated.
    #[serde(default)]
    pub transform: Vec<TransformSettings>,
    /// Subtracted from the objective.
    #[serde(default)]
    pub regularizer: Vec<PenaltySettings>,
    /// Applied to the gradient.
    #[serde(default)]
    pub precondition: Vec<OperationSettings>,
    /// How a gradient becomes a step.
    pub optimizer: OptimizerSettings,
    /// Applied to the images after each step.
    #[serde(default)]
    pub projection: Vec<OperationSettings>,
    /// When an image is done.
    pub stop: Stop,
    /// The objective is logged before every so many steps.
    #[serde(default = "every")]
    pub log_every: u32,
    /// Whether the objective is to be small instead of large.
    #[serde(default)]
    pub inhibitory: bool,
}

const fn every() -> u32 {
    10
}

impl Settings {
    /// The search for images with these seeds. `constraint` comes after the other projections.
    pub fn ascent<'a>(
        &self,
        objective: &'a dyn Objective,
        seeds: &[u64],
        constraint: Option<Box<dyn Operation>>,
    ) -> Ascent<'a> {
        let boxed = |operations: &[OperationSettings]| -> Vec<Box<dyn Operation>> {
            operations.iter().map(|&operation| Box::new(operation) as Box<dyn Operation>).collect()
        };
        let transforms = self.transform.iter().enumerate();
        Ascent {
            objective,
            inhibitory: self.inhibitory,
            transforms: transforms.map(|(place, t)| t.build(seeds, place as u32)).collect(),
            penalties: self.regularizer.iter().map(|&p| Box::new(p) as Box<dyn Penalty>).collect(),
            precondition: boxed(&self.precondition),
            optimizer: Optimizer(self.optimizer),
            projection: boxed(&self.projection).into_iter().chain(constraint).collect(),
            stopper: Box::new(self.stop),
            log_every: self.log_every,
        }
    }
    /// Whether images of this extent, channels, rows and columns, can be searched so: better known before the search
    /// than from torch within it.
    ///
    /// # Errors
    /// The first part that cannot be, in words.
    pub fn check(&self, extent: [i64; 3]) -> Result<(), AnalysisError> {
        let steps = f64::from(self.stop.most().unwrap_or(0));
        let checked = || -> Result<(), String> {
            if let Start::NormalNullChannel { channel, .. } = self.initial
                && !(0..extent[0]).contains(&channel)
            {
                return Err(format!("initial has a channel {channel}, and images have {}", extent[0]));
            }
            let seen =
                self.transform.iter().try_fold(extent, |extent, transform| transform.checked(extent))?;
            self.regularizer.iter().try_for_each(|penalty| penalty.check(seen))?;
            let crops =
                |transform: &TransformSettings| matches!(transform, TransformSettings::BatchedCrops { .. });
            if self.transform.iter().any(crops) && self.regularizer.iter().any(PenaltySettings::couples) {
                return Err("similarity would compare the crops of one image; leave out batched_crops".into());
            }
            let mut operations = self.precondition.iter().chain(&self.projection);
            operations.try_for_each(|operation| operation.check(extent, steps))?;
            self.optimizer.check()?;
            if steps < 1.0 || self.log_every == 0 {
                return Err("stop.n and log_every are 1 or more".into());
            }
            Ok(())
        };
        checked().map_err(|what| AnalysisError::Settings(format!("search: {what}")))
    }
}
