//! Scores over a grid of corruptions and severities (spec/reconstruction 3.8). `docs/metrics.md` defines them.
//!
//! Accuracies are shares in [0, 1] here; tables show percent.

use crate::base::{Purpose, Rng, RngKey};
use crate::corruption::{Corruption, Group, Severity};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Top-1 accuracies of one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Grid {
    /// Number of classes, for what guessing gives.
    pub classes: usize,
    /// Accuracy on the images as they are.
    pub clean: f64,
    /// Accuracies by the corruption's name, in the order of `severities`.
    pub cells: BTreeMap<String, Vec<f64>>,
    /// The severities.
    pub severities: Vec<u8>,
}

/// Values of one model alone, in percent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Alone {
    /// Mean accuracy.
    pub accuracy: f64,
    /// What is left of the accuracy on clean images; undefined where that is 0.
    pub retention: Option<f64>,
    /// Mean error: mCE that is not normalised.
    pub error: f64,
}

/// Values of one model relative to a baseline, in percent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Relative {
    /// Mean over severities of accuracy over the baseline's.
    pub score: f64,
    /// Sum of accuracies over the baseline's sum.
    pub ratio_of_means: f64,
    /// Corruption error: sum of errors over the baseline's.
    pub error: f64,
    /// Sum of what errors gain over clean images, over the same of the baseline; undefined where the baseline
    /// loses less than half a percentage point a severity.
    pub relative_error: Option<f64>,
}

/// Mean and standard deviation over resampled seeds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// Mean.
    pub mean: f64,
    /// Standard deviation.
    pub std: f64,
}

/// Resamplings of [`bootstrap`].
pub const RESAMPLINGS: u32 = 1000;

impl Grid {
    /// An empty grid.
    pub fn new(classes: usize, clean: f64, severities: &[Severity]) -> Self {
        Self {
            classes,
            clean,
            cells: BTreeMap::new(),
            severities: severities.iter().map(|s| s.get()).collect(),
        }
    }

    /// The corruptions it has, in the paper's order.
    pub fn corruptions(&self) -> Vec<Corruption> {
        Corruption::ALL.into_iter().filter(|c| self.cells.contains_key(c.as_str())).collect()
    }

    /// Accuracies at each severity.
    pub fn row(&self, corruption: Corruption) -> Option<&[f64]> {
        self.cells.get(corruption.as_str()).map(Vec::as_slice)
    }

    /// Mean over severities.
    pub fn mean_of(&self, corruption: Corruption) -> Option<f64> {
        self.row(corruption).map(mean)
    }

    /// Mean accuracy over the corruptions of the paper and all severities; the extra ones are left out.
    pub fn mean(&self) -> Option<f64> {
        self.mean_over(|c| c.group() != Group::Extra)
    }

    /// The same grid without one corruption.
    pub fn without(mut self, corruption: Corruption) -> Self {
        self.cells.remove(corruption.as_str());
        self
    }

    /// Whether what is averaged in `group`, or over all of the paper without one, has frost in it.
    pub fn has_frost_in(&self, group: Option<Group>) -> bool {
        self.has_in(Corruption::Frost, group)
    }

    /// The same of any corruption of the paper.
    pub fn has_in(&self, corruption: Corruption, group: Option<Group>) -> bool {
        self.row(corruption).is_some() && group.is_none_or(|group| group == corruption.group())
    }

    /// Mean over the corruptions of the paper at severity number `i` of [`Self::severities`].
    pub fn mean_at(&self, i: usize) -> Option<f64> {
        let paper = self.corruptions().into_iter().filter(|c| c.group() != Group::Extra);
        let values: Vec<f64> = paper.filter_map(|c| self.row(c)?.get(i).copied()).collect();
        (!values.is_empty()).then(|| mean(&values))
    }

    /// Mean of the corruptions' means in `group`.
    pub fn mean_in(&self, group: Group) -> Option<f64> {
        self.mean_over(|c| c.group() == group)
    }

    /// Means over the corruptions of the paper and all severities. None if there are none.
    pub fn alone(&self) -> Option<Alone> {
        self.mean().map(|mean| self.alone_of(mean))
    }

    /// The same of one group.
    pub fn alone_in(&self, group: Group) -> Option<Alone> {
        self.mean_in(group).map(|mean| self.alone_of(mean))
    }

    fn alone_of(&self, mean: f64) -> Alone {
        Alone {
            accuracy: 100.0 * mean,
            retention: (self.clean > 0.0).then(|| 100.0 * mean / self.clean),
            error: 100.0 * (1.0 - mean),
        }
    }

    fn mean_over(&self, wanted: impl Fn(Corruption) -> bool) -> Option<f64> {
        let means: Vec<f64> =
            self.corruptions().into_iter().filter(|&c| wanted(c)).filter_map(|c| self.mean_of(c)).collect();
        (!means.is_empty()).then(|| mean(&means))
    }

    /// The mean grid of several seeds. They must have the same corruptions and severities.
    pub fn average(grids: &[&Self]) -> Result<Self, String> {
        let [first, rest @ ..] = grids else { return Err("no run to average".into()) };
        let same = |g: &&Self| {
            g.severities == first.severities
                && g.classes == first.classes
                && g.cells.keys().eq(first.cells.keys())
        };
        if !rest.iter().all(same) {
            return Err("runs differ in corruptions, severities or classes; evaluate them alike".into());
        }
        let over =
            |value: &dyn Fn(&Self) -> f64| grids.iter().map(|g| value(g)).sum::<f64>() / grids.len() as f64;
        let cell = |name: &String, i: usize| over(&|g| g.cells[name][i]);
        let row = |name: &String| (0..first.severities.len()).map(|i| cell(name, i)).collect();
        Ok(Self {
            cells: first.cells.keys().map(|name| (name.clone(), row(name))).collect(),
            clean: over(&|g| g.clean),
            ..(*first).clone()
        })
    }

    /// One corruption relative to `baseline`, which must have been evaluated alike. The baseline's accuracies count
    /// as no less than guessing, so that ratios stay finite.
    pub fn relative_to(&self, baseline: &Self, corruption: Corruption) -> Option<Relative> {
        let (own, base) = (self.row(corruption)?, baseline.row(corruption)?);
        if self.severities != baseline.severities {
            return None;
        }
        let floor = |a: f64| a.max(1.0 / baseline.classes.max(1) as f64);
        let ratios: Vec<f64> = own.iter().zip(base).map(|(&a, &b)| a / floor(b)).collect();
        let sum = |values: &[f64], f: &dyn Fn(f64) -> f64| values.iter().map(|&v| f(v)).sum::<f64>();
        let lost = |values: &[f64], clean: f64| sum(values, &|a| clean - a);
        let base_lost = lost(base, baseline.clean);
        let n = own.len() as f64;
        Some(Relative {
            score: 100.0 * mean(&ratios),
            ratio_of_means: 100.0 * sum(own, &|a| a) / sum(base, &floor),
            error: 100.0 * sum(own, &|a| 1.0 - a) / sum(base, &|b| 1.0 - b).max(f64::MIN_POSITIVE),
            relative_error: (base_lost / n > 0.005).then(|| 100.0 * lost(own, self.clean) / base_lost),
        })
    }

    /// Means of [`Self::relative_to`] over the corruptions of the paper: robustness score, its variant, mCE and
    /// relative mCE. None if there are none.
    pub fn summary(&self, baseline: &Self) -> Option<Relative> {
        self.summary_over(baseline, |c| c.group() != Group::Extra)
    }

    /// The same of one group.
    pub fn summary_in(&self, baseline: &Self, group: Group) -> Option<Relative> {
        self.summary_over(baseline, |c| c.group() == group)
    }

    fn summary_over(&self, baseline: &Self, wanted: impl Fn(Corruption) -> bool) -> Option<Relative> {
        let wanted = self.corruptions().into_iter().filter(|&c| wanted(c));
        let all: Vec<Relative> = wanted.filter_map(|c| self.relative_to(baseline, c)).collect();
        if all.is_empty() {
            return None;
        }
        let over = |value: &dyn Fn(&Relative) -> f64| mean(&all.iter().map(value).collect::<Vec<_>>());
        let defined: Vec<f64> = all.iter().filter_map(|r| r.relative_error).collect();
        Some(Relative {
            score: over(&|r| r.score),
            ratio_of_means: over(&|r| r.ratio_of_means),
            error: over(&|r| r.error),
            relative_error: (!defined.is_empty()).then(|| mean(&defined)),
        })
    }
}

/// Spread of `value(model, baseline)` when the seeds of both are drawn anew with replacement, [`RESAMPLINGS`] times.
/// The draws are a function of the numbers of seeds only.
pub fn bootstrap(
    models: &[&Grid],
    baselines: &[&Grid],
    value: impl Fn(&Grid, &Grid) -> Option<f64>,
) -> Result<Option<Spread>, String> {
    let mut rng = RngKey::new(0, Purpose::Bootstrap, 0).stream(models.len() as u32, baselines.len() as u64);
    let mut values = Vec::new();
    for _ in 0..RESAMPLINGS {
        let (model, baseline) = (resampled(models, &mut rng)?, resampled(baselines, &mut rng)?);
        values.extend(value(&model, &baseline));
    }
    Ok((!values.is_empty()).then(|| spread(&values)))
}

/// Spread of the mean of a score when seeds are drawn anew, likewise.
pub fn bootstrap_mean(scores: &[f64]) -> Spread {
    let n = scores.len() as u32;
    let mut rng = RngKey::new(0, Purpose::Bootstrap, 0).stream(n, 0);
    let draw = |rng: &mut Rng| (0..n).map(|_| scores[rng.below(n) as usize]).sum::<f64>() / f64::from(n);
    spread(&(0..RESAMPLINGS).map(|_| draw(&mut rng)).collect::<Vec<_>>())
}

/// Error of the mean of a group, of the errors of its corruptions: the root of the mean of their squares
/// (spec/reconstruction 3.8, as the authors plot it). None of none.
pub fn propagated(errors: &[f64]) -> Option<f64> {
    let squares: Vec<f64> = errors.iter().map(|error| error * error).collect();
    (!squares.is_empty()).then(|| mean(&squares).sqrt())
}

fn spread(values: &[f64]) -> Spread {
    let mean = mean(values);
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / values.len() as f64;
    Spread { mean, std: variance.sqrt() }
}

fn resampled(grids: &[&Grid], rng: &mut Rng) -> Result<Grid, String> {
    let draw = |_| grids.get(rng.below(grids.len().max(1) as u32) as usize).copied();
    let drawn: Vec<&Grid> = (0..grids.len()).filter_map(draw).collect();
    Grid::average(&drawn)
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid(clean: f64, cells: &[(&str, [f64; 2])]) -> Grid {
        let cells = cells.iter().map(|(name, row)| ((*name).to_owned(), row.to_vec())).collect();
        Grid { classes: 200, clean, cells, severities: vec![1, 5] }
    }

    fn near(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-9, "{found}, not {expected}");
    }

    /// All by hand.
    #[test]
    fn scores_follow_their_formulas() {
        let base =
            grid(0.6, &[("fog", [0.4, 0.2]), ("gaussian_noise", [0.5, 0.1]), ("saturate", [0.1, 0.1])]);
        let model =
            grid(0.5, &[("fog", [0.4, 0.3]), ("gaussian_noise", [0.25, 0.2]), ("saturate", [0.5, 0.5])]);
        near(model.mean().unwrap(), f64::midpoint(0.35, 0.225));
        near(model.mean_in(Group::Extra).unwrap(), 0.5);
        assert_eq!(model.mean_in(Group::Blur), None);
        let fog = model.relative_to(&base, Corruption::Fog).unwrap();
        near(fog.score, 100.0 * (1.0 + 1.5) / 2.0);
        near(fog.ratio_of_means, 100.0 * 0.7 / 0.6);
        near(fog.error, 100.0 * 1.3 / 1.4);
        near(fog.relative_error.unwrap(), 100.0 * (0.1 + 0.2) / (0.2 + 0.4));
        let noise = model.relative_to(&base, Corruption::GaussianNoise).unwrap();
        let all = model.summary(&base).unwrap();
        near(all.score, f64::midpoint(fog.score, noise.score));
        near(all.error, f64::midpoint(fog.error, noise.error));
        near(model.summary_in(&base, Group::Weather).unwrap().score, fog.score);
        near(base.summary(&base).unwrap().score, 100.0);
    }

    #[test]
    fn what_is_left_and_what_is_lost_need_no_baseline() {
        let cells = [("fog", [0.4, 0.3]), ("gaussian_noise", [0.25, 0.2]), ("saturate", [0.5, 0.5])];
        let model = grid(0.5, &cells);
        let all = model.alone().unwrap();
        // (.4 + .3 + .25 + .2) / 4 = .2875; the extra one is in no mean.
        near(all.accuracy, 28.75);
        near(all.retention.unwrap(), 57.5);
        near(all.error, 71.25);
        let weather = model.alone_in(Group::Weather).unwrap();
        near(weather.retention.unwrap(), 70.0);
        near(weather.error, 65.0);
        assert_eq!(model.alone_in(Group::Blur), None);
        assert_eq!(grid(0.0, &cells).alone().unwrap().retention, None);
    }

    #[test]
    fn errors_of_a_group_are_propagated() {
        // sqrt((.0009 + .0016) / 2)
        assert!((propagated(&[0.03, 0.04]).unwrap() - 0.0354).abs() < 5e-5);
        near(propagated(&[0.2, 0.2, 0.2]).unwrap(), 0.2);
        assert_eq!(propagated(&[]), None);
    }

    #[test]
    fn frost_is_in_its_group_and_in_all_and_can_be_left_out() {
        let all = grid(0.6, &[("fog", [0.4, 0.2]), ("frost", [0.1, 0.1]), ("pixelate", [0.5, 0.5])]);
        let found = [None, Some(Group::Weather), Some(Group::Digital)].map(|group| all.has_frost_in(group));
        assert_eq!(found, [true, true, false]);
        let less = all.without(Corruption::Frost);
        near(less.mean().unwrap(), f64::midpoint(0.3, 0.5));
        assert!(!less.has_frost_in(None));
    }

    #[test]
    fn a_baseline_that_guesses_or_loses_nothing_gives_no_infinite_score() {
        let base = grid(0.5, &[("fog", [0.0, 0.001])]);
        let model = grid(0.5, &[("fog", [0.01, 0.01])]);
        near(model.relative_to(&base, Corruption::Fog).unwrap().score, 100.0 * 0.01 / 0.005);
        let unhurt = grid(0.5, &[("fog", [0.5, 0.499])]);
        assert_eq!(model.relative_to(&unhurt, Corruption::Fog).unwrap().relative_error, None);
        assert_eq!(model.relative_to(&base, Corruption::Snow), None);
    }

    #[test]
    fn seeds_are_averaged_before_ratios_and_resampled_alike_every_time() {
        let models = [grid(0.5, &[("fog", [0.2, 0.2])]), grid(0.5, &[("fog", [0.4, 0.4])])];
        let bases = [grid(0.5, &[("fog", [0.1, 0.1])]), grid(0.5, &[("fog", [0.3, 0.3])])];
        let [a, b] = [&models, &bases].map(|g| Grid::average(&[&g[0], &g[1]]).unwrap());
        near(a.summary(&b).unwrap().score, 150.0);
        let (models, bases): (Vec<_>, Vec<_>) = (models.iter().collect(), bases.iter().collect());
        let score = |m: &Grid, b: &Grid| m.summary(b).map(|r| r.score);
        let spread = bootstrap(&models, &bases, score).unwrap().unwrap();
        assert_eq!(bootstrap(&models, &bases, score).unwrap(), Some(spread));
        // Sums of two seeds are .2 (1/4), .4 (1/2), .6 (1/4) over baselines twice .1, .2, .3: mean 100 E[a] E[1/b].
        let expected = 100.0 * 0.3 * (0.25 / 0.1 + 0.5 / 0.2 + 0.25 / 0.3);
        assert!((spread.mean / expected - 1.0).abs() < 0.05, "{spread:?}, not {expected}");
        let one = bootstrap(&models[..1], &bases[..1], score).unwrap().unwrap();
        assert!((one.mean - 200.0).abs() < 1e-9 && one.std < 1e-9, "one seed has no spread: {one:?}");
        let other = grid(0.5, &[("snow", [0.1, 0.1])]);
        assert!(Grid::average(&[models[0], &other]).is_err());
    }
}
