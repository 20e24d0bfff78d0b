//! The losses, plain or as likelihoods whose log-variance is learned (Kendall, Gal and Cipolla,
//! "Multi-task learning using uncertainty to weigh losses", 2018).

use crate::base::Task;
use crate::model::Params;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Reduction, Tensor};

/// Loss of the neural task, named as the reference does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum NeuralLoss {
    /// Squared error; as a likelihood, Gaussian.
    #[serde(rename = "MSELoss")]
    Mse,
    /// Poisson; as a likelihood, negative binomial with a learned number of successes.
    #[serde(rename = "PoissonLoss")]
    Poisson,
}

/// The losses' settings, named as the reference's. Classification always uses cross-entropy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ObjectiveSettings {
    /// `MSELoss` or `PoissonLoss`.
    pub neural: NeuralLoss,
    /// Loss of the V4 responses; that of `neural` if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub neural_v4: Option<NeuralLoss>,
    /// Learn a log-variance for each task.
    pub loss_weighing: bool,
    /// Sum instead of average over the batch (the plain Poisson loss heeds `avg_loss` instead).
    pub loss_sum: bool,
    /// Average the plain Poisson loss instead of summing it.
    pub avg_loss: bool,
    /// Multiply neural losses by sqrt(records of the session / batch size).
    pub scale_loss: bool,
    /// Add the network's penalty of the session, the readout's L1 for example, to neural losses; as
    /// `scale_loss` if not given, which is how the reference ties them (spec/trainer 2.5).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub regularize: Option<bool>,
}

impl Default for ObjectiveSettings {
    /// The paper's co-training: weighted means of cross-entropy and squared error.
    fn default() -> Self {
        Self {
            neural: NeuralLoss::Mse,
            neural_v4: None,
            loss_weighing: true,
            loss_sum: false,
            avg_loss: false,
            scale_loss: false,
            regularize: None,
        }
    }
}

impl ObjectiveSettings {
    /// Loss of a neural task.
    pub fn neural_loss(&self, task: Task) -> NeuralLoss {
        if task == Task::V4 { self.neural_v4.unwrap_or(self.neural) } else { self.neural }
    }

    /// Refuses what would have no effect.
    pub fn check(&self) -> Result<(), String> {
        let poisson = [Task::V1, Task::V4].iter().any(|&t| self.neural_loss(t) == NeuralLoss::Poisson);
        if self.avg_loss && (self.loss_weighing || !poisson) {
            return Err(
                "loss.avg_loss applies to the plain PoissonLoss only: with loss_weighing = false".into()
            );
        }
        Ok(())
    }
}

/// The losses of a run, with their learned log-variances.
#[derive(Debug)]
pub struct Objective {
    settings: ObjectiveSettings,
    params: Params,
    log_w: Vec<(Task, Tensor)>,
}

impl Objective {
    /// For the given tasks. Log-variances start at 0, are of `kind`, and are called `loss.<task>.log_w`.
    pub fn new(settings: &ObjectiveSettings, tasks: &[Task], device: Device, kind: Kind) -> Self {
        let mut params = Params::new(device, kind);
        let weighted = tasks.iter().filter(|_| settings.loss_weighing);
        let log_w = weighted
            .map(|&task| {
                let zero = Tensor::zeros([1], (Kind::Float, Device::Cpu));
                (task, params.parameter(format!("loss.{task}.log_w"), &zero))
            })
            .collect();
        Self { settings: settings.clone(), params, log_w }
    }

    /// The log-variances.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// Factor of the neural loss of a batch of `batch` records out of a session with `records`: the square root
    /// of their ratio with `scale_loss`, else 1.
    pub fn neural_scale(&self, records: u64, batch: usize) -> f64 {
        if self.settings.scale_loss { (records as f64 / batch as f64).sqrt() } else { 1.0 }
    }

    /// Whether the network's penalties are added to neural losses.
    pub fn regularizes(&self) -> bool {
        self.settings.regularize.unwrap_or(self.settings.scale_loss)
    }

    /// The learned log-variance of `task`.
    pub fn log_variance(&self, task: Task) -> Option<&Tensor> {
        self.log_w.iter().find(|(t, _)| *t == task).map(|(_, s)| s)
    }

    /// exp(-s), by which the loss of `task` is multiplied; none of the negative binomial, whose s is no log-variance.
    pub fn weight(&self, task: Task) -> Option<f64> {
        let counts = task.is_neural() && self.settings.neural_loss(task) == NeuralLoss::Poisson;
        self.log_variance(task).filter(|_| !counts).map(|s| (-s.double_value(&[0])).exp())
    }

    /// Loss of logits `[batch, classes]` against labels `[batch]`: CE, or exp(-s) CE + s / 2.
    ///
    /// The rows may be but a `part` (from 0 to 1) of the batch; what is given for all parts adds up to its loss.
    pub fn classification(&self, logits: &Tensor, labels: &Tensor, part: f64) -> Tensor {
        // The mean of nothing is no number.
        let sum = self.settings.loss_sum || labels.numel() == 0;
        let reduction = if sum { Reduction::Sum } else { Reduction::Mean };
        let loss = logits.cross_entropy_loss::<Tensor>(labels, None, reduction, -100, 0.0);
        let loss = if sum || part == 1.0 { loss } else { loss * part };
        match self.log_variance(Task::Classification) {
            None => loss,
            Some(s) => (-s).exp().squeeze() * loss + s.squeeze() * (0.5 * part),
        }
    }

    /// Loss of predicted against recorded responses `[batch, neurons]`, both in spikes; `part` as above.
    pub fn neural(&self, task: Task, predicted: &Tensor, recorded: &Tensor, part: f64) -> Tensor {
        let (settings, s) = (&self.settings, self.log_variance(task));
        match (settings.neural_loss(task), s) {
            (NeuralLoss::Mse, s) => {
                let sum = settings.loss_sum || recorded.numel() == 0;
                // Reduced by the loss itself: its gradient rounds as PyTorch's does.
                let mse = predicted.mse_loss(recorded, if sum { Reduction::Sum } else { Reduction::Mean });
                let mse = if sum || part == 1.0 { mse } else { mse * part };
                s.map_or(mse.shallow_clone(), |s| ((-s).exp().squeeze() * &mse + s.squeeze() * part) * 0.5)
            }
            (NeuralLoss::Poisson, None) => {
                reduced(&(predicted - recorded * (predicted + 1e-12).log()), !settings.avg_loss, part)
            }
            (NeuralLoss::Poisson, Some(s)) => {
                reduced(&negative_binomial(predicted, recorded, s), settings.loss_sum, part)
            }
        }
    }
}

/// Sum, or mean over the batch of which these are a part.
fn reduced(losses: &Tensor, sum: bool, part: f64) -> Tensor {
    if sum || losses.numel() == 0 {
        return losses.sum(losses.kind());
    }
    let mean = losses.mean(losses.kind());
    if part == 1.0 { mean } else { mean * part }
}

/// Negative log-likelihood of counts y under mean p and r = exp(s) successes, element by element.
/// Where the reference gives NaN, at p = y = 0, a small number within the logarithm gives 0; it leaves a gradient
/// that brings a silent prediction back.
fn negative_binomial(p: &Tensor, y: &Tensor, s: &Tensor) -> Tensor {
    let r = s.exp();
    (y + &r) * (p + &r).log() - y * (p + 1e-8).log() - &r * s + r.lgamma() - (y + &r).lgamma()
        + (y + 1.0).lgamma()
        + 1e-5
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objective(s: f64, settings: &ObjectiveSettings) -> Objective {
        let objective = Objective::new(settings, &[Task::V1, Task::Classification], Device::Cpu, Kind::Float);
        tch::no_grad(|| objective.params.iter().for_each(|p| drop(p.tensor.shallow_clone().fill_(s))));
        objective
    }

    fn value_and_slope(objective: &Objective, task: Task, loss: &Tensor) -> (f64, f64) {
        loss.backward();
        (loss.double_value(&[]), objective.log_variance(task).unwrap().grad().double_value(&[0]))
    }

    fn assert_near(found: (f64, f64), expected: (f64, f64)) {
        let near = |a: f64, b: f64| (a - b).abs() < 1e-6 * b.abs().max(1.0);
        assert!(near(found.0, expected.0) && near(found.1, expected.1), "{found:?}, expected {expected:?}");
    }

    /// Values of the reference's own code: (s, CE, MSE, negative binomial mean and sum), each with its slope in s.
    #[test]
    fn losses_and_their_slopes_equal_the_reference() {
        let p = Tensor::from_slice(&[0.5f32, 1.5, 2.0, 1.0, 0.2, 3.0]).view([2, 3]);
        let y = Tensor::from_slice(&[0f32, 2.0, 1.0, 1.0, 0.0, 4.0]).view([2, 3]);
        let logits = Tensor::from_slice(&[1f32, 2.0, 0.5, 0.1, -0.3, 0.7]).view([2, 3]);
        let labels = Tensor::from_slice(&[1i64, 2]);
        let plain = ObjectiveSettings { loss_weighing: false, ..ObjectiveSettings::default() };
        let none = Objective::new(&plain, &[Task::V1, Task::Classification], Device::Cpu, Kind::Float);
        assert_near((none.classification(&logits, &labels, 1.0).double_value(&[]), 0.0), (0.557_484_6, 0.0));
        assert_near((none.neural(Task::V1, &p, &y, 1.0).double_value(&[]), 0.0), (0.423_333_3, 0.0));
        for (avg_loss, expected) in [(false, 2.301_473_4), (true, 0.383_578_9)] {
            let plain = ObjectiveSettings { neural: NeuralLoss::Poisson, avg_loss, ..plain.clone() };
            let loss =
                Objective::new(&plain, &[Task::V1], Device::Cpu, Kind::Float).neural(Task::V1, &p, &y, 1.0);
            assert_near((loss.double_value(&[]), 0.0), (expected, 0.0));
        }
        for (s, ce, mse, nb, nb_sum) in [
            (
                0.0,
                (0.557_484_6, -0.057_484_6),
                (0.211_666_7, 0.288_333_4),
                (1.325_530_5, -0.214_089_3),
                (7.953_183_2, -1.284_535_9),
            ),
            (
                0.5,
                (0.588_131_5, 0.161_868_5),
                (0.378_382_3, 0.371_617_7),
                (1.232_498_8, -0.159_380_9),
                (7.394_992_4, -0.956_284_5),
            ),
            (
                -0.7,
                (0.772_636_1, -0.622_636_1),
                (0.076_244_3, 0.073_755_7),
                (1.505_288_1, -0.300_809),
                (9.031_728_7, -1.804_854_3),
            ),
        ] {
            let weighted = ObjectiveSettings::default();
            let o = objective(s, &weighted);
            assert_near(
                value_and_slope(&o, Task::Classification, &o.classification(&logits, &labels, 1.0)),
                ce,
            );
            assert_near(value_and_slope(&o, Task::V1, &o.neural(Task::V1, &p, &y, 1.0)), mse);
            for (loss_sum, expected) in [(false, nb), (true, nb_sum)] {
                let settings =
                    ObjectiveSettings { neural: NeuralLoss::Poisson, loss_sum, ..weighted.clone() };
                let o = objective(s, &settings);
                assert_near(value_and_slope(&o, Task::V1, &o.neural(Task::V1, &p, &y, 1.0)), expected);
            }
        }
    }

    #[test]
    fn weights_are_of_losses_that_are_multiplied_by_them() {
        let near = |found: Option<f64>, s: f64| found.is_some_and(|w| (w - (-s).exp()).abs() < 1e-9);
        let o = objective(0.5, &ObjectiveSettings::default());
        assert!(near(o.weight(Task::V1), 0.5) && near(o.weight(Task::Classification), 0.5));
        assert_eq!(o.weight(Task::V4), None);
        let counts = ObjectiveSettings { neural: NeuralLoss::Poisson, ..ObjectiveSettings::default() };
        let o = objective(-0.25, &counts);
        assert!(o.weight(Task::V1).is_none() && near(o.weight(Task::Classification), -0.25));
        let plain = ObjectiveSettings { loss_weighing: false, ..ObjectiveSettings::default() };
        assert_eq!(objective(0.5, &plain).weight(Task::Classification), None);
    }

    /// The numbers of spec/models 2.5, which come from the reference too.
    #[test]
    fn losses_equal_the_specified_numbers() {
        let p = Tensor::from_slice(&[0.5f32, 1.0, 2.0, 0.2, 3.0, 0.7]).view([2, 3]);
        let y = Tensor::from_slice(&[0f32, 1.0, 3.0, 1.0, 2.0, 0.0]).view([2, 3]);
        let labels = Tensor::from_slice(&[2i64, 0]);
        let loss = |settings: &ObjectiveSettings| {
            objective(0.3, settings).neural(Task::V1, &p, &y, 1.0).double_value(&[])
        };
        let near = |found: f64, expected: f64| {
            assert!((found - expected).abs() < 2e-6, "{found}, expected {expected}");
        };
        let weighted = ObjectiveSettings::default();
        let plain = ObjectiveSettings { loss_weighing: false, ..weighted.clone() };
        let poisson =
            |of: &ObjectiveSettings| ObjectiveSettings { neural: NeuralLoss::Poisson, ..of.clone() };
        near(loss(&plain), 0.563_333);
        near(loss(&weighted), 0.358_664);
        near(loss(&poisson(&weighted)), 1.381_700);
        near(loss(&ObjectiveSettings { loss_sum: true, ..poisson(&weighted) }), 8.290_197);
        near(loss(&poisson(&plain)), 4.732_772);
        near(loss(&ObjectiveSettings { avg_loss: true, ..poisson(&plain) }), 0.788_795);
        for (settings, expected) in [(plain, 1.706_855), (weighted, 1.414_469)] {
            let found = objective(0.3, &settings).classification(&p, &labels, 1.0);
            near(found.double_value(&[]), expected);
        }
    }

    #[test]
    fn the_negative_binomial_is_finite_at_zero() {
        let settings = ObjectiveSettings { neural: NeuralLoss::Poisson, ..ObjectiveSettings::default() };
        let p = Tensor::zeros([1, 2], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let o = objective(0.0, &settings);
        let loss = o.neural(Task::V1, &p, &Tensor::from_slice(&[0f32, 1.0]).view([1, 2]), 1.0);
        loss.backward();
        assert!(loss.double_value(&[]).is_finite());
        let slopes = Vec::<f32>::try_from(p.grad().flatten(0, -1)).unwrap();
        // Nothing was recorded of the first neuron; a spike of the second one pulls its prediction up.
        assert!(slopes[0].is_finite() && slopes[1].is_finite() && slopes[1] < -1e6, "{slopes:?}");
    }
}
