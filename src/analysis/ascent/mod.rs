//! Images by gradient ascent: start somewhere, and change each image until a function of it is large, under a
//! constraint (spec/reconstruction 1.4 and 2).
//!
//! Images of a batch do not know each other: each has its own objective, penalties, constraint and end, so that many
//! are found together exactly as they are alone, up to rounding. The parts of a search are small traits, and
//! [`Settings`] names the built-in ones.

mod initial;
mod operation;
mod optimizer;
mod penalty;
mod settings;
mod stopper;
#[cfg(test)]
mod tests;
mod transform;

pub use initial::{Initial, Start};
pub use operation::{ChangeNorm, Operation, OperationSettings, Pad};
pub use optimizer::{Optimizer, OptimizerSettings};
pub use penalty::{Combine, Penalty, PenaltySettings, Similar};
pub use settings::Settings;
pub use stopper::{Stop, Stopper};
pub use transform::{Interpolation, Transform, TransformSettings};

use super::AnalysisError;
use crate::torch_ext::send;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

/// What is to be large.
pub trait Objective {
    /// Images `[n, channels, height, width]` to one value each, `[n]`; differentiable. Where a transformation made
    /// several images of one, it sees them all, those of one image after each other.
    ///
    /// # Errors
    /// Whatever keeps it from being computed.
    fn values(&self, images: &Tensor) -> Result<Tensor, AnalysisError>;
}

/// One step of a search. Tensors have a row an image.
#[derive(Debug)]
pub struct State {
    /// Number of the step, from 0.
    pub step: u32,
    /// Images before the step.
    pub before: Tensor,
    /// Their objective, `[n]`.
    pub values: Tensor,
    /// Their penalties, `[n]`.
    pub penalties: Tensor,
    /// Gradient of penalties minus objective, before it was preconditioned.
    pub gradient: Tensor,
    /// Images after the step.
    pub after: Tensor,
}

/// A search: the parts it is made of.
pub struct Ascent<'a> {
    /// What is to be large.
    pub objective: &'a dyn Objective,
    /// Whether it is to be small instead: values are negated (spec: inhibitory).
    pub inhibitory: bool,
    /// Applied to images before they are evaluated, in order.
    pub transforms: Vec<Box<dyn Transform>>,
    /// Subtracted from the objective, of the transformed images.
    pub penalties: Vec<Box<dyn Penalty>>,
    /// Applied to the gradient, in order.
    pub precondition: Vec<Box<dyn Operation>>,
    /// How a gradient becomes a step.
    pub optimizer: Optimizer,
    /// Applied to the images after each step, in order: what they must satisfy.
    pub projection: Vec<Box<dyn Operation>>,
    /// When an image is done.
    pub stopper: Box<dyn Stopper>,
    /// The objective is logged before every so many steps.
    pub log_every: u32,
}

/// The objective of a batch of images at one step, before it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Logged {
    /// Number of the step.
    pub step: u32,
    /// Objective of each image.
    pub values: Vec<f64>,
    /// Norm of each image over all its channels, what constraints are usually on.
    pub norms: Vec<f64>,
}

/// How far a search is.
#[derive(Debug)]
pub struct Search {
    /// The images `[n, channels, height, width]`.
    pub images: Tensor,
    /// Steps done.
    pub step: u32,
    /// The step with which each image ended; none of those that go on.
    pub ended: Vec<Option<u32>>,
    /// The objective so far.
    pub log: Vec<Logged>,
    memory: Vec<Tensor>,
}

impl Search {
    /// A search that starts with `images`, which belong to it.
    pub fn new(images: &Tensor) -> Self {
        let n = images.size().first().map_or(0, |&n| n as usize);
        Self { images: images.copy(), step: 0, ended: vec![None; n], log: Vec::new(), memory: Vec::new() }
    }

    /// Whether all images are done.
    pub fn is_over(&self) -> bool {
        self.ended.iter().all(Option::is_some)
    }

    /// Everything that [`Self::resume`] needs, as tensors.
    pub fn tensors(&self) -> Vec<(String, Tensor)> {
        let ended: Vec<i64> = self.ended.iter().map(|step| step.map_or(-1, i64::from)).collect();
        let numbers = |values: fn(&Logged) -> &Vec<f64>| {
            let all: Vec<f64> = self.log.iter().flat_map(|row| values(row).iter().copied()).collect();
            Tensor::from_slice(&all)
        };
        let steps: Vec<i64> = self.log.iter().map(|row| i64::from(row.step)).collect();
        let mut all = vec![
            ("images".to_owned(), self.images.shallow_clone()),
            ("step".to_owned(), Tensor::from(i64::from(self.step))),
            ("ended".to_owned(), Tensor::from_slice(&ended)),
            ("log.step".to_owned(), Tensor::from_slice(&steps)),
            ("log.values".to_owned(), numbers(|row| &row.values)),
            ("log.norms".to_owned(), numbers(|row| &row.norms)),
        ];
        let memory = self.memory.iter().enumerate();
        all.extend(memory.map(|(i, tensor)| (format!("memory.{i}"), tensor.shallow_clone())));
        all
    }

    /// The search that gave these tensors; none if they are of no search.
    pub fn resume(tensors: &[(String, Tensor)], device: Device) -> Option<Self> {
        let find = |name: &str| tensors.iter().find(|(n, _)| n == name).map(|(_, tensor)| tensor);
        let whole = |name: &str| Vec::<i64>::try_from(find(name)?.flatten(0, -1)).ok();
        let real = |name: &str| Vec::<f64>::try_from(find(name)?.flatten(0, -1)).ok();
        let images = find("images")?.to_device(device);
        let ended: Vec<Option<u32>> =
            whole("ended")?.into_iter().map(|step| u32::try_from(step).ok()).collect();
        let (steps, values, norms) = (whole("log.step")?, real("log.values")?, real("log.norms")?);
        let n = ended.len().max(1);
        let rows = steps.iter().zip(values.chunks(n)).zip(norms.chunks(n));
        let log = rows.map(|((&step, values), norms)| Logged {
            step: step as u32,
            values: values.to_vec(),
            norms: norms.to_vec(),
        });
        let log = log.collect();
        let memory = (0..).map_while(|i| find(&format!("memory.{i}"))).map(|t| t.to_device(device)).collect();
        let step = u32::try_from(*whole("step")?.first()?).ok()?;
        (images.size().first().map(|&n| n as usize) == Some(ended.len())).then_some(Self {
            images,
            step,
            ended,
            log,
            memory,
        })
    }
}

impl Ascent<'_> {
    /// Makes one step: evaluates the images, follows the gradient, projects; images that ended stay.
    ///
    /// # Errors
    /// Those of the objective; a gradient that is no number, with the step.
    pub fn advance(&self, search: &mut Search) -> Result<State, AnalysisError> {
        let step = search.step;
        let x = search.images.detach().set_requires_grad(true);
        let (values, penalties) = self.evaluate(&x, step)?;
        let loss = (&penalties - &values).f_sum(Kind::Float)?;
        let gradients = Tensor::f_run_backward(&[&loss], &[&x], false, false)?;
        let [gradient] = &gradients[..] else {
            return Err(AnalysisError::Settings("the objective does not depend on the image".into()));
        };
        let after = tch::no_grad(|| {
            let preconditioned =
                self.precondition.iter().fold(gradient.shallow_clone(), |g, op| op.apply(&g, step));
            let moved = self.optimizer.step(&search.images, &preconditioned, step, &mut search.memory);
            let projected = self.projection.iter().fold(moved, |x, op| op.apply(&x, step));
            keep_ended(&search.images, projected, &search.ended)
        });
        let before = std::mem::replace(&mut search.images, after.shallow_clone());
        let state = State {
            step,
            before,
            values: values.detach(),
            penalties: penalties.detach(),
            gradient: gradient.shallow_clone(),
            after,
        };
        self.log(search, &state)?;
        for (ended, stops) in search.ended.iter_mut().zip(self.stopper.stops(&state)) {
            if stops && ended.is_none() {
                *ended = Some(step);
            }
        }
        search.step += 1;
        Ok(state)
    }

    /// What was found: a search's images after those transformations that [change pixels where they
    /// are](Transform::is_pointwise).
    pub fn found(&self, search: &Search) -> Tensor {
        let pointwise = self.transforms.iter().filter(|transform| transform.is_pointwise());
        tch::no_grad(|| {
            pointwise
                .fold(search.images.shallow_clone(), |x, transform| transform.apply(&x, search.step))
                .contiguous()
        })
    }

    /// The objective of what was [found](Self::found), one an image.
    ///
    /// # Errors
    /// Those of the objective; a value that is no number.
    pub fn value(&self, search: &Search) -> Result<Vec<f64>, AnalysisError> {
        let values = tch::no_grad(|| self.objective.values(&self.found(search)))?;
        finite(&values, search.step)
    }

    /// Objective and penalties, one a row of `x`.
    fn evaluate(&self, x: &Tensor, step: u32) -> Result<(Tensor, Tensor), AnalysisError> {
        let n = x.size()[0];
        let shown = self.transforms.iter().fold(x.shallow_clone(), |x, transform| transform.apply(&x, step));
        let values = self.objective.values(&shown)?;
        // Several views of an image count as their mean.
        let views = (values.size()[0] / n.max(1)).max(1);
        let per_image = |t: Tensor| t.view([n, views]).mean_dim([1i64].as_slice(), false, Kind::Float);
        let sign = if self.inhibitory { -1.0 } else { 1.0 };
        let zero = Tensor::zeros([n * views], (Kind::Float, x.device()));
        let penalties = self.penalties.iter().fold(zero, |sum, penalty| sum + penalty.of(&shown));
        Ok((per_image(values) * sign, per_image(penalties)))
    }

    fn log(&self, search: &mut Search, state: &State) -> Result<(), AnalysisError> {
        if !state.step.is_multiple_of(self.log_every.max(1)) {
            return Ok(());
        }
        let values = finite(&state.values, state.step)?;
        let norms = Vec::<f64>::try_from(norms(&state.before).flatten(0, -1).to_kind(Kind::Double))?;
        search.log.push(Logged { step: state.step, values, norms });
        Ok(())
    }
}

/// Values of the images before step number `step`, all of them numbers.
fn finite(values: &Tensor, step: u32) -> Result<Vec<f64>, AnalysisError> {
    let values = Vec::<f64>::try_from(values.to_kind(Kind::Double).to_device(Device::Cpu))?;
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(values),
        Some(row) => Err(AnalysisError::Numbers(format!(
            "step {step}: the objective of image {row} of the batch is {}; take a smaller learning rate",
            values[row]
        ))),
    }
}

/// A few numbers on the device of `x`, without waiting for what a GPU has to do first.
pub(super) fn beside(numbers: &Tensor, x: &Tensor) -> Tensor {
    // What fails here fails there too, as all of tch does.
    send(numbers, x.device()).unwrap_or_else(|_| numbers.to_device(x.device()))
}

/// `after`, with the rows of images that ended as they were.
fn keep_ended(before: &Tensor, after: Tensor, ended: &[Option<u32>]) -> Tensor {
    if ended.iter().all(Option::is_none) {
        return after;
    }
    let goes_on: Vec<i64> = ended.iter().map(|step| i64::from(step.is_none())).collect();
    let goes_on = beside(&Tensor::from_slice(&goes_on), &after).view([-1, 1, 1, 1]).to_kind(Kind::Bool);
    after.where_self(&goes_on, before)
}

/// L2 norm of each image, `[n, 1, 1, 1]`.
pub(super) fn norms(images: &Tensor) -> Tensor {
    images.square().sum_dim_intlist([1i64, 2, 3].as_slice(), true, Kind::Float).sqrt()
}
