//! `nct robustness --neural`: how robust networks are beside how well they predict responses.

use crate::base::{Split, Task};
use crate::cli::exit::Usage;
use crate::cli::show::table;
use crate::eval::figures::{Seeds, mean_and_std};
use crate::eval::robustness::{Grid, Spread, bootstrap_mean};
use crate::report::{Fit, Outcomes, Subject, fits};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A score of predicted responses, such as `v1` or `v1.correlation_to_average`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Measure {
    task: Task,
    metric: String,
}

impl FromStr for Measure {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (area, metric) = text.split_once('.').unwrap_or((text, "correlation"));
        let task = Task::ALL.into_iter().find(|task| task.is_neural() && task.as_str() == area);
        let task = task.ok_or_else(|| format!("{area} is no area; v1 and v4 are"))?;
        Ok(Self { task, metric: metric.to_owned() })
    }
}

impl Measure {
    /// As it stands at an axis.
    pub(super) fn label(&self) -> String {
        format!("{} {}", self.task.as_str().to_uppercase(), self.metric.replace('_', " "))
    }

    /// What the results of a run say, with the run's name.
    fn of(&self, run: &Path, split: Split) -> anyhow::Result<(String, f64)> {
        let subject = Subject::read(run)?;
        let Self { task, metric } = self;
        let lacks = || {
            let what =
                format!("{}: its results have no {metric} of {task} on the {split} split", run.display());
            Usage(format!(
                "{what}; leave out models that do not predict responses, or name another score with --neural"
            ))
        };
        let value = subject.score_on(split, task.as_str(), metric).ok_or_else(lacks)?;
        Ok((subject.folder, value))
    }

    /// The models after the baseline, each with the runs of its grids.
    pub(super) fn outcomes(
        &self,
        seeds: &[Seeds],
        runs: &[Vec<PathBuf>],
        split: Split,
    ) -> anyhow::Result<Vec<Outcomes>> {
        let baseline = Grid::average(&seeds[0].grids.iter().collect::<Vec<_>>()).map_err(Usage)?;
        let models = seeds[1..].iter().zip(runs).enumerate();
        let outcomes = models.map(|(i, (seeds, runs))| {
            let neural = runs.iter().map(|run| self.of(run, split)).collect::<anyhow::Result<Vec<_>>>()?;
            // Colours as in the other figures, where the baseline has the first.
            Ok(Outcomes::of(seeds, i + 1, neural, &baseline))
        });
        outcomes.collect()
    }

    /// Rows of the models' scores.
    pub(super) fn scores(&self, models: &[Outcomes]) -> Vec<Value> {
        let row = |Outcomes { name, runs, .. }: &Outcomes| {
            let values: Vec<f64> = runs.iter().map(|run| run.neural).collect();
            let mut row = json!({
                "model": name, "seeds": runs.len(), "group": self.task.as_str(), "metric": self.metric,
                "value": mean_and_std(&values).0,
            });
            if values.len() > 1 {
                let Spread { mean, std } = bootstrap_mean(&values);
                (row["bootstrap_mean"], row["bootstrap_std"]) = (json!(mean), json!(std));
            }
            row
        };
        models.iter().filter(|model| !model.runs.is_empty()).map(row).collect()
    }
}

/// Rows of the fits' coefficients.
pub(super) fn coefficients(models: &[Outcomes]) -> Vec<Value> {
    let row = |Fit { formula, terms, runs }: Fit| {
        terms.into_iter().map(move |(term, found)| {
            json!({
                "seeds": runs, "metric": "coefficient", "value": found.value, "fit": formula, "term": term,
                "std_error": found.std_error, "t": found.t, "p": found.p,
            })
        })
    };
    fits(models).into_iter().flat_map(row).collect()
}

/// The coefficients as a table.
pub(super) fn told(rows: &[Value]) -> String {
    let mut table = table(&["fit", "runs", "term", "coefficient", "std. error", "t", "p"]);
    for row in rows {
        let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
        let number = |key: &str| row[key].as_f64().map_or_else(|| "-".to_owned(), |v| format!("{v:.4}"));
        let [value, error, t] = ["value", "std_error", "t"].map(number);
        let p = if row["p"].as_f64().is_some_and(|p| p < 1e-4) { "< 0.0001".to_owned() } else { number("p") };
        table.add_row([text("fit"), row["seeds"].to_string(), text("term"), value, error, t, p]);
    }
    table.to_string()
}
