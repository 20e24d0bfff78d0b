//! The learning-rate schedule and early stopping, as one value that can be saved: phases of patience,
//! each ending with a lower learning rate and a return to the best weights.

use crate::base::Task;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the learning rate falls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scheduler {
    /// When the first monitored objective stops rising (PyTorch's `ReduceLROnPlateau`).
    Adaptive,
    /// At the end of each phase.
    Phases,
    /// At the milestones.
    Manual,
    /// With every update along half a cosine, from the start's to `min_lr` (`CosineAnnealingLR`).
    Cosine,
    /// With every update up to the optimiser's rate and down again (`OneCycleLR`; Smith and Topin 2017).
    OneCycle,
    /// Never.
    None,
}

/// Whether the plateau's threshold is a share of the best value or a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ThresholdMode {
    /// Better is above best (1 + threshold).
    Rel,
    /// Better is above best + threshold.
    Abs,
}

/// What becomes of the optimiser's moments when the best weights return.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RestoreOptimizer {
    /// They stay those of the abandoned weights, as in the reference.
    Keep,
    /// They start afresh.
    Reset,
    /// They return too.
    Best,
}

/// The settings, named as the reference's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AnnealSettings {
    /// `adaptive`, `phases` (the reference's adaptive with `mtl`), `manual`, `cosine`, `one_cycle` or `none`.
    pub scheduler: Scheduler,
    /// Epochs after which `manual` lowers the rate and returns to the best weights.
    pub milestones: Vec<u32>,
    /// Factor by which the rate falls.
    pub lr_decay: f64,
    /// A phase ends after so many epochs and one without improvement.
    pub patience: u32,
    /// Number of phases.
    pub lr_decay_steps: u32,
    /// The plateau's rate does not fall below this; the end of `cosine`.
    pub min_lr: f64,
    /// Epochs, or a part of one, over which the rate rises from near 0 at the start, update by update.
    pub lr_warmup: f64,
    /// Epochs from one evaluation to the next.
    pub interval: u32,
    /// Monitor accuracy and correlation, which should rise; else the validation losses, which should fall.
    pub maximize: bool,
    /// By how much an objective must rise to count as improved.
    pub threshold: f64,
    /// Of the plateau; early stopping is always `abs`.
    pub threshold_mode: ThresholdMode,
    /// Epochs at most, over all phases.
    pub max_iter: u32,
    /// Tasks that must all improve; the first one's objective drives the plateau and picks the best weights.
    pub to_monitor: Vec<Task>,
    /// Return to the best weights between phases and at the end.
    pub restore_best: bool,
    /// `keep`, `reset` or `best`: the optimiser's moments when the best weights return.
    pub restore_optimizer: RestoreOptimizer,
    /// Whether the log-variances return with the best weights.
    pub restore_losses: bool,
}

impl Default for AnnealSettings {
    /// The paper's co-training.
    fn default() -> Self {
        Self {
            scheduler: Scheduler::Adaptive,
            milestones: Vec::new(),
            lr_decay: 0.3,
            patience: 5,
            lr_decay_steps: 5,
            min_lr: 1e-4,
            lr_warmup: 0.0,
            interval: 1,
            maximize: true,
            threshold: 1e-4,
            threshold_mode: ThresholdMode::Abs,
            max_iter: 407,
            to_monitor: vec![Task::Classification],
            restore_best: true,
            restore_optimizer: RestoreOptimizer::Keep,
            restore_losses: false,
        }
    }
}

impl AnnealSettings {
    /// Checks ranges.
    pub fn check(&self) -> Result<(), String> {
        let bad = |key: &str, value: String| Err(format!("schedule.{key} = {value} is out of range"));
        if !(self.lr_decay > 0.0 && self.lr_decay <= 1.0) {
            return bad("lr_decay", self.lr_decay.to_string());
        }
        if self.lr_decay_steps == 0 || self.to_monitor.is_empty() {
            return Err("schedule: lr_decay_steps must be at least 1, and to_monitor must name a task".into());
        }
        if !(self.min_lr >= 0.0 && self.threshold >= 0.0 && self.threshold.is_finite()) {
            return bad("min_lr or threshold", format!("{}, {}", self.min_lr, self.threshold));
        }
        if !(0.0..=1e6).contains(&self.lr_warmup) {
            return bad("lr_warmup", self.lr_warmup.to_string());
        }
        if self.interval == 0 {
            return bad("interval", "0".into());
        }
        if self.lr_warmup > 0.0 && self.scheduler == Scheduler::OneCycle {
            return Err(
                "schedule.lr_warmup does not apply to scheduler = \"one_cycle\", which rises by itself"
                    .into(),
            );
        }
        if !self.milestones.is_empty() && self.scheduler != Scheduler::Manual {
            return Err("schedule.milestones applies to scheduler = \"manual\" only".into());
        }
        Ok(())
    }
}

/// What to do after an epoch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Decision {
    /// Learning rate of the next epoch.
    pub lr: f64,
    /// These weights are the best so far, and should be kept.
    pub is_best: bool,
    /// Return to the best weights.
    pub restore_best: bool,
    /// Training is over.
    pub stop: bool,
}

/// The state of schedule and early stopping. Objectives are in the order of `to_monitor`; higher is better
/// with `maximize`, lower without.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Anneal {
    /// The settings; `max_iter` may be raised on resuming.
    pub settings: AnnealSettings,
    /// Learning rate of the next epoch; with warm-up, `cosine` and `one_cycle` see [`super::rate`].
    pub lr: f64,
    /// Epochs done.
    pub epoch: u32,
    /// Epochs without improvement, minus one: -1 after an improvement.
    pub patience_counter: i64,
    /// What it was after the last evaluation, before a phase that ended set it back; 0 before there was one.
    #[serde(default)]
    pub patience_reached: i64,
    /// Epoch of the best weights; 0 before there are any.
    pub best_epoch: u32,
    phase: u32,
    /// None: whatever comes is better.
    best: Option<Vec<f64>>,
    best_score: Option<f64>,
    plateau_best: Option<f64>,
    plateau_bad: u32,
    /// How often training began again with weights from the beginning.
    #[serde(default)]
    pub restarts: u32,
    /// Epochs that were done when it last did.
    #[serde(default)]
    pub begun: u32,
}

/// The phase of a network whose scores are no numbers.
const FAILED: u32 = u32::MAX;

impl Anneal {
    /// Starts at learning rate `lr` with the objectives of the untrained network.
    pub fn start(settings: &AnnealSettings, lr: f64, objectives: &[f64]) -> Self {
        let mut anneal = Self {
            settings: settings.clone(),
            lr,
            epoch: 0,
            patience_counter: -1,
            patience_reached: 0,
            best_epoch: 0,
            phase: 0,
            // What is no number is not better than anything.
            best: objectives.iter().all(|o| o.is_finite()).then(|| objectives.to_vec()),
            best_score: None,
            plateau_best: None,
            plateau_bad: 0,
            restarts: 0,
            begun: 0,
        };
        if anneal.best.is_some() {
            anneal.plateau(objectives[0]);
        }
        anneal
    }

    /// Whether there is nothing left to do.
    pub fn is_done(&self) -> bool {
        self.phase >= self.settings.lr_decay_steps || self.epoch >= self.settings.max_iter
    }

    /// Starts over with learning rate `lr` for a network whose weights went back to their beginning; epochs count on.
    pub fn begin_again(&mut self, lr: f64) {
        let (epoch, restarts) = (self.epoch, self.restarts + 1);
        *self = Self::start(&self.settings.clone(), lr, &[f64::NAN]);
        (self.epoch, self.begun, self.restarts) = (epoch, epoch, restarts);
    }

    /// Whether early stopping has ended training before its last epoch.
    pub fn is_out_of_patience(&self) -> bool {
        self.is_done() && self.epoch < self.settings.max_iter && self.phase != FAILED
    }

    /// Whether the epoch to come ends with an evaluation.
    pub fn evaluates_next(&self) -> bool {
        let next = self.epoch + 1;
        next.is_multiple_of(self.settings.interval) || next >= self.settings.max_iter
    }

    /// An epoch was trained that is not followed by an evaluation. A milestone lowers the rate, and the weights stay: which
    /// are the best is not known of what was trained since the last evaluation.
    pub fn pass(&mut self) {
        self.epoch += 1;
        self.milestone();
    }

    /// Lowers the rate if the epoch is a milestone, and says so.
    fn milestone(&mut self) -> bool {
        let reached =
            self.settings.scheduler == Scheduler::Manual && self.settings.milestones.contains(&self.epoch);
        if reached {
            self.lr *= self.settings.lr_decay;
        }
        reached
    }

    /// An epoch was trained after which an objective, of any task, is no number: training is over.
    pub fn fail(&mut self) -> Decision {
        self.epoch += 1;
        self.phase = FAILED;
        let restore_best = self.settings.restore_best && self.best_epoch > 0;
        Decision { lr: self.lr, is_best: false, restore_best, stop: true }
    }

    /// Takes in the objectives of an epoch that was just trained.
    pub fn next(&mut self, objectives: &[f64]) -> Decision {
        if objectives.iter().any(|o| !o.is_finite()) {
            return self.fail();
        }
        self.epoch += 1;
        self.plateau(objectives[0]);
        let manual = self.milestone();
        let threshold = self.settings.threshold;
        let rises = self.settings.maximize;
        let better = |now: f64, best: f64, by: f64| if rises { now > best + by } else { now < best - by };
        let all_better =
            |best: &Vec<f64>| objectives.iter().zip(best).all(|(now, best)| better(*now, *best, threshold));
        let improved = self.best.as_ref().is_none_or(all_better);
        self.patience_counter = if improved { -1 } else { self.patience_counter + 1 };
        self.patience_reached = self.patience_counter;
        if improved {
            self.best = Some(objectives.to_vec());
        }
        // Of equal scores the earliest epoch is the best.
        let is_best = self.best_score.is_none_or(|best| better(objectives[0], best, 0.0));
        if is_best {
            (self.best_score, self.best_epoch) = (Some(objectives[0]), self.epoch);
        }
        let phase_over = self.end_phase();
        let restore_best = manual || self.settings.restore_best && (phase_over || self.is_done());
        Decision { lr: self.lr, is_best, restore_best, stop: self.is_done() }
    }

    /// Ends the phase if its patience is over; true if the best weights are due.
    fn end_phase(&mut self) -> bool {
        if self.patience_counter < i64::from(self.settings.patience) {
            return false;
        }
        self.patience_counter = -1;
        self.phase += 1;
        let more = self.epoch < self.settings.max_iter && self.settings.lr_decay_steps > 1;
        if more && self.settings.scheduler == Scheduler::Phases {
            self.lr *= self.settings.lr_decay;
        }
        more
    }

    fn plateau(&mut self, objective: f64) {
        if self.settings.scheduler != Scheduler::Adaptive {
            return;
        }
        let threshold = self.settings.threshold;
        let better = |best: f64| match self.settings.threshold_mode {
            ThresholdMode::Rel if self.settings.maximize => objective > best * (1.0 + threshold),
            ThresholdMode::Abs if self.settings.maximize => objective > best + threshold,
            ThresholdMode::Rel => objective < best * (1.0 - threshold),
            ThresholdMode::Abs => objective < best - threshold,
        };
        if self.plateau_best.is_none_or(better) {
            (self.plateau_best, self.plateau_bad) = (Some(objective), 0);
        } else {
            self.plateau_bad += 1;
        }
        if self.plateau_bad > self.settings.patience {
            let lower = (self.lr * self.settings.lr_decay).max(self.settings.min_lr);
            if self.lr - lower > 1e-8 {
                self.lr = lower;
            }
            self.plateau_bad = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Learning rate of each epoch, patience counter after it as the reference saves it, and the epochs
    /// after which the best weights return with the epoch these are of.
    fn trace(settings: &AnnealSettings, objectives: &[f64]) -> (Vec<f64>, Vec<i64>, Vec<(u32, u32)>) {
        let mut anneal = Anneal::start(settings, 0.1, &objectives[..1]);
        let (mut lrs, mut patience, mut restored) = (Vec::new(), Vec::new(), Vec::new());
        for objective in &objectives[1..] {
            assert!(!anneal.is_done());
            lrs.push(anneal.lr);
            let decision = anneal.next(&[*objective]);
            patience.push(anneal.patience_reached);
            if decision.restore_best {
                restored.push((anneal.epoch, anneal.best_epoch));
            }
            // A state that is saved and read back goes on the same way.
            anneal = serde_json::from_str(&serde_json::to_string(&anneal).unwrap()).unwrap();
        }
        assert!(anneal.is_done());
        (lrs, patience, restored)
    }

    fn near(found: &[f64], expected: &[f64]) -> bool {
        found.len() == expected.len() && found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12)
    }

    #[test]
    fn plateau_and_phases_equal_the_reference() {
        for scheduler in [Scheduler::Adaptive, Scheduler::Phases] {
            let settings = AnnealSettings {
                scheduler,
                lr_decay: 0.5,
                patience: 2,
                lr_decay_steps: 3,
                threshold_mode: ThresholdMode::Rel,
                ..AnnealSettings::default()
            };
            let objectives = [10., 20., 20., 15., 20., 25., 24., 24., 24., 25., 25., 25.];
            let (lrs, patience, restored) = trace(&settings, &objectives);
            assert!(
                near(&lrs, &[0.1, 0.1, 0.1, 0.1, 0.05, 0.05, 0.05, 0.05, 0.025, 0.025, 0.025]),
                "{lrs:?}"
            );
            assert_eq!(patience, [-1, 0, 1, 2, -1, 0, 1, 2, 0, 1, 2]);
            assert_eq!(restored, [(4, 1), (8, 5), (11, 5)]);
        }
    }

    #[test]
    fn milestones_equal_the_reference() {
        let settings = AnnealSettings {
            scheduler: Scheduler::Manual,
            milestones: vec![2, 4],
            lr_decay: 0.5,
            patience: 3,
            lr_decay_steps: 1,
            max_iter: 6,
            ..AnnealSettings::default()
        };
        let (lrs, _, restored) = trace(&settings, &[10., 20., 21., 22., 23., 22., 22.]);
        assert!(near(&lrs, &[0.1, 0.1, 0.05, 0.05, 0.025, 0.025]), "{lrs:?}");
        assert_eq!(restored, [(2, 2), (4, 4), (6, 4)]);
    }

    #[test]
    fn falling_losses_give_the_mirrored_trace() {
        for threshold_mode in [ThresholdMode::Rel, ThresholdMode::Abs] {
            let settings = AnnealSettings {
                maximize: false,
                lr_decay: 0.5,
                patience: 2,
                lr_decay_steps: 3,
                threshold_mode,
                ..AnnealSettings::default()
            };
            let mut anneal = Anneal::start(&settings, 0.1, &[30.0]);
            let losses = [20., 20., 25., 20., 15., 16., 16., 16., 15., 15., 15.];
            let restored: Vec<u32> = losses
                .iter()
                .filter_map(|loss| anneal.next(&[*loss]).restore_best.then_some(anneal.best_epoch))
                .collect();
            assert_eq!((anneal.lr, restored), (0.0125, vec![1, 5, 5]), "{threshold_mode:?}");
            assert!(anneal.is_done());
        }
    }

    #[test]
    fn evaluations_come_every_interval_and_at_the_end() {
        let settings = AnnealSettings { interval: 3, max_iter: 8, ..AnnealSettings::default() };
        let mut anneal = Anneal::start(&settings, 0.1, &[1.0]);
        let mut evaluated = Vec::new();
        while !anneal.is_done() {
            if anneal.evaluates_next() {
                anneal.next(&[f64::from(anneal.epoch) + 2.0]);
                evaluated.push(anneal.epoch);
            } else {
                anneal.pass();
            }
        }
        assert_eq!(evaluated, [3, 6, 8]);
    }

    #[test]
    fn a_milestone_between_evaluations_lowers_the_rate_and_loses_no_epoch() {
        let settings = AnnealSettings {
            scheduler: Scheduler::Manual,
            milestones: vec![3],
            lr_decay: 0.5,
            interval: 2,
            max_iter: 6,
            ..AnnealSettings::default()
        };
        let mut anneal = Anneal::start(&settings, 0.1, &[1.0]);
        anneal.pass();
        anneal.next(&[2.0]);
        anneal.pass();
        assert_eq!(anneal.lr, 0.05);
        let decision = anneal.next(&[1.0]);
        assert_eq!((decision.restore_best, decision.lr), (false, 0.05), "neither then nor later");
    }

    #[test]
    fn what_began_again_can_be_saved() {
        let mut anneal = Anneal::start(&AnnealSettings::default(), 0.1, &[5.0, 3.0]);
        anneal.next(&[6.0, 4.0]);
        anneal.begin_again(0.1);
        let mut saved: Anneal = serde_json::from_str(&serde_json::to_string(&anneal).unwrap()).unwrap();
        assert_eq!(saved, anneal);
        assert_eq!((saved.epoch, saved.next(&[-7.0, 0.0]).is_best, saved.patience_counter), (1, true, -1));
    }

    #[test]
    fn the_rate_stops_at_its_minimum() {
        let settings =
            AnnealSettings { lr_decay: 0.01, patience: 0, min_lr: 0.002, ..AnnealSettings::default() };
        let mut anneal = Anneal::start(&settings, 0.1, &[5.0]);
        assert_eq!([1, 2, 3].map(|_| anneal.next(&[1.0]).lr), [0.002; 3]);
    }

    #[test]
    fn an_objective_that_is_no_number_ends_training_with_the_best_weights() {
        let mut anneal = Anneal::start(&AnnealSettings::default(), 0.1, &[5.0]);
        assert!(anneal.next(&[6.0]).is_best);
        let decision = anneal.next(&[f64::NAN]);
        assert!(decision.stop && decision.restore_best && anneal.best_epoch == 1);
    }
}
