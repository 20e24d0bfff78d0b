//! Suites of evaluations while training, every so many epochs.

use super::guard::guarded;
use super::{TrainError, Trainer, Watch};
use crate::base::Task;
use crate::corruption::Group;
use crate::eval::robustness::Grid;
use crate::eval::{
    CorruptionSuite, Detail, Evaluation, Evaluator, Suite, TaskScores, noise_evaluations, rows,
};
use serde_json::{Value, json};
use std::fmt;

/// Gives the data of an evaluation, or says why there are none.
pub type Open<'a> = Box<dyn Fn(&Evaluation) -> Result<Evaluator, String> + 'a>;

/// What is evaluated with the weights of an epoch, and when. It changes nothing that is trained.
pub struct Periodic<'a> {
    /// After epochs that are multiples of this.
    pub epochs: u32,
    /// The validation images under Gaussian noise.
    pub noise: bool,
    /// Images under corruptions.
    pub corruptions: Option<CorruptionSuite>,
    /// Their data.
    pub open: Open<'a>,
}

impl fmt::Debug for Periodic<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { epochs, noise, corruptions, .. } = self;
        write!(f, "Periodic {{ {epochs}, {noise}, {corruptions:?} }}")
    }
}

impl Periodic<'_> {
    /// What is evaluated.
    pub fn evaluations(&self) -> Vec<Evaluation> {
        let mut all = if self.noise { noise_evaluations() } else { Vec::new() };
        all.extend(self.corruptions.iter().flat_map(CorruptionSuite::evaluations));
        all
    }
}

impl Trainer<'_> {
    /// Evaluates the suites of `epoch`, if it has any, and writes their scores down. False if the user stopped it, in
    /// which case nothing was written.
    pub(super) fn suites(&self, epoch: u32, watch: &mut dyn Watch) -> Result<bool, TrainError> {
        let Some(periodic) = self.periodic.as_ref().filter(|p| epoch.is_multiple_of(p.epochs)) else {
            return Ok(true);
        };
        let evaluations = periodic.evaluations();
        watch.suites_begin(epoch, evaluations.len() as u64);
        let mut scored: Vec<(Evaluation, TaskScores)> = Vec::new();
        for evaluation in evaluations {
            if self.any(watch.wants_stop())? {
                return Ok(false);
            }
            let evaluator = (periodic.open)(&evaluation).map_err(TrainError::Settings)?;
            let scores = guarded(|| Ok(evaluator.plain_scores(self.net)?))?;
            scored.extend(scores.into_iter().map(|scores| (evaluation.clone(), scores)));
            watch.evaluated();
        }
        let mut lines: Vec<Value> =
            scored.iter().flat_map(|(e, scores)| rows("", e, scores, Detail::default())).collect();
        let grid = periodic.corruptions.as_ref().and_then(|suite| Some((suite, suite.grid(&scored)?)));
        lines.extend(grid.iter().flat_map(|(suite, grid)| means(suite, grid)));
        for line in &mut lines {
            if let Some(fields) = line.as_object_mut() {
                fields.shift_remove("run");
                fields.shift_insert(0, "epoch".to_owned(), json!(epoch));
            }
            self.run.suite(line)?;
        }
        watch.suites(&lines);
        Ok(true)
    }
}

/// Mean accuracies over the paper's corruptions, of each group and of each corruption, in percent.
fn means(suite: &CorruptionSuite, grid: &Grid) -> Vec<Value> {
    let row = |place: Option<(&str, &str)>, mean: f64| {
        let mut row = json!({
            "suite": Suite::Corruptions.as_str(), "split": suite.split.as_str(),
            "task": Task::Classification.as_str(), "metric": "mean_accuracy", "value": 100.0 * mean,
        });
        if let Some((key, name)) = place {
            row[key] = json!(name);
        }
        row
    };
    let of_corruption =
        |c: crate::corruption::Corruption| Some(row(Some(("corruption", c.as_str())), grid.mean_of(c)?));
    let of_group = |group: Group| Some(row(Some(("group", group.as_str())), grid.mean_in(group)?));
    let mut all: Vec<Value> = grid.corruptions().into_iter().filter_map(of_corruption).collect();
    all.extend(Group::ALL.into_iter().filter_map(of_group));
    all.extend(grid.mean().map(|mean| row(None, mean)));
    all
}
