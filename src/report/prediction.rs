//! How robust networks are beside how well they predict responses (spec/reconstruction 4.2).

use super::{Plot, ReportError};
use crate::eval::figures::Seeds;
use crate::eval::regression::{Coefficient, least_squares};
use crate::eval::robustness::Grid;
use crate::figure::{Axis, Chart, Drawn, Figure, Panel, Point, Series};
use crate::table::{Kind, Table};
use serde_json::{Value, json};

/// A run that predicts responses and was evaluated under corruptions.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Name of the run.
    pub run: String,
    /// Mean correlation of predicted and recorded responses on test stimuli, or another score of them.
    pub neural: f64,
    /// Accuracy on clean images in percent.
    pub clean: f64,
    /// Robustness score in percent of the baseline.
    pub robustness: f64,
}

/// A model's runs, one a seed.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcomes {
    /// The model.
    pub name: String,
    /// Number of its colour and marker.
    pub style: usize,
    /// Its runs.
    pub runs: Vec<Outcome>,
}

impl Outcomes {
    /// Of a model's grids, with the name and the neural score of each one's run, relative to the mean of a baseline's.
    pub fn of(seeds: &Seeds, style: usize, neural: Vec<(String, f64)>, baseline: &Grid) -> Self {
        let runs = seeds.grids.iter().zip(neural).filter_map(|(grid, (run, neural))| {
            let robustness = grid.summary(baseline)?.score;
            Some(Outcome { run, neural, clean: 100.0 * grid.clean, robustness })
        });
        Self { name: seeds.name.clone(), style, runs: runs.collect() }
    }
}

/// What of a run a column or an axis is.
type Side = fn(&Outcome) -> f64;

/// Least squares of robustness over all runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Fit {
    /// As statistics programs write it, such as `robustness ~ 1 + neural`.
    pub formula: &'static str,
    /// Terms with their coefficients.
    pub terms: Vec<(&'static str, Coefficient)>,
    /// Runs it is of.
    pub runs: usize,
}

const TERMS: [&str; 4] = ["intercept", "neural", "clean", "clean:neural"];

/// A line over neural prediction, and whether that tells more than clean accuracy does, alone and with what both do
/// together. Those for which there are too few runs, or too little difference between them, are left out.
pub fn fits(models: &[Outcomes]) -> Vec<Fit> {
    let runs: Vec<&Outcome> = models.iter().flat_map(|model| &model.runs).collect();
    let column = |of: Side| -> Vec<f64> { runs.iter().map(|run| of(run)).collect() };
    let design = [column(|_| 1.0), column(|r| r.neural), column(|r| r.clean), column(|r| r.clean * r.neural)];
    let robustness = column(|r| r.robustness);
    let formulas = [
        (2, "robustness ~ 1 + neural"),
        (3, "robustness ~ 1 + neural + clean"),
        (4, "robustness ~ 1 + neural * clean"),
    ];
    let fit = |(n, formula)| {
        let found = least_squares(&design[..n], &robustness)?;
        Some(Fit { formula, terms: TERMS.into_iter().zip(found).collect(), runs: runs.len() })
    };
    formulas.into_iter().filter_map(fit).collect()
}

const COLUMNS: [(&str, Kind); 5] = [
    ("against", Kind::Text),
    ("model", Kind::Text),
    ("run", Kind::Text),
    ("value", Kind::Real),
    ("robustness_score", Kind::Real),
];
const PANEL: [f64; 2] = [300.0, 220.0];

/// Robustness against neural prediction, which `measured` names, and against clean accuracy: a mark is a run. None
/// where no line can be drawn through them.
pub fn prediction(
    models: &[Outcomes],
    measured: &str,
    baseline: &str,
) -> Result<Option<(Figure, Table)>, ReportError> {
    if fits(models).is_empty() {
        return Ok(None);
    }
    let sides: [(&str, String, Side); 2] = [
        ("neural prediction", measured.to_owned(), |run| run.neural),
        ("clean accuracy", "clean accuracy (%)".to_owned(), |run| run.clean),
    ];
    let (mut rows, mut panels) = (Vec::new(), Vec::new());
    for (against, label, of) in sides {
        let mut series: Vec<Series> =
            models.iter().map(|model| marks(model, against, of, &mut rows)).collect();
        series.extend(line(models, of));
        let x = Axis { label, ..Axis::default() };
        let y = Axis { label: format!("robustness (% of {baseline})"), ..Axis::default() };
        panels.push(Panel::Chart(Chart { title: format!("against {against}"), x, y, series, size: PANEL }));
    }
    let names: Vec<&str> = models.iter().map(|model| model.name.as_str()).collect();
    let description = format!(
        "Robustness score of every run against how well it predicts responses, and against its accuracy on clean \
         images, with lines of least squares. Of {}.",
        names.join(", ")
    );
    let figure = Figure { title: "Robustness and neural prediction".into(), description, rows: vec![panels] };
    Ok(Some((figure, Table::of(&COLUMNS, &rows)?)))
}

/// The runs of a model.
fn marks(model: &Outcomes, against: &str, of: Side, rows: &mut Vec<Value>) -> Series {
    let mut points = Vec::new();
    for run in &model.runs {
        let (x, y) = (of(run), run.robustness);
        rows.push(json!({
            "against": against, "model": model.name, "run": run.run, "value": x, "robustness_score": y,
        }));
        points.push(Point { x, y, spread: None });
    }
    Series::new(&model.name, model.style, points).drawn(Drawn::Apart)
}

/// Least squares, from the least to the greatest value of all runs.
fn line(models: &[Outcomes], of: Side) -> Option<Series> {
    let runs = models.iter().flat_map(|model| &model.runs);
    let (x, y): (Vec<f64>, Vec<f64>) = runs.map(|run| (of(run), run.robustness)).unzip();
    let [start, slope] = least_squares(&[vec![1.0; x.len()], x.clone()], &y)?[..] else { return None };
    let ends = [x.iter().copied().reduce(f64::min)?, x.iter().copied().reduce(f64::max)?];
    let at = |x: f64| Point { x, y: start.value + slope.value * x, spread: None };
    // Black and without dashes.
    Some(Series::new("least squares", 0, ends.map(at).to_vec()).drawn(Drawn::Line))
}

/// The figure as a part of a report, with what the fits say.
pub(super) fn plot(models: &[Outcomes], area: &str, baseline: &str) -> Result<Option<Plot>, ReportError> {
    let Some((mut figure, table)) = prediction(models, &format!("{area} correlation"), baseline)? else {
        return Ok(None);
    };
    figure.title = format!("Robustness and prediction of {area}");
    let mut text = format!(
        "Robustness score of every run, relative to the mean of {baseline}, against the mean correlation of predicted \
         and recorded {area} responses on test stimuli, and against accuracy on clean images; lines of least squares."
    );
    for Fit { formula, terms, runs } in fits(models) {
        let terms = terms.iter().filter(|(term, _)| *term != TERMS[0]).map(|(term, found)| {
            format!(
                "{term} {:.3} ± {:.3} (t = {:.2}, {})",
                found.value,
                found.std_error,
                found.t,
                told(found.p)
            )
        });
        let terms: Vec<String> = terms.collect();
        text += &format!(" {formula}, {runs} runs: {}.", terms.join(", "));
    }
    Ok(Some(Plot { name: format!("prediction-{}", area.to_lowercase()), text, figure, table }))
}

/// A probability as it is printed.
fn told(p: f64) -> String {
    if p < 0.001 { "p < 0.001".to_owned() } else { format!("p = {p:.3}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Format;

    fn models() -> Vec<Outcomes> {
        let runs = |of: &[(f64, f64, f64)]| {
            let run =
                |&(neural, clean, robustness): &_| Outcome { run: "r".into(), neural, clean, robustness };
            of.iter().map(run).collect()
        };
        let few = runs(&[(0.3, 60.0, 101.0), (0.35, 61.0, 103.0)]);
        let many = runs(&[(0.5, 55.0, 112.0), (0.55, 57.0, 114.5), (0.6, 54.0, 113.0)]);
        let named = |style, (name, runs): (&str, _)| Outcomes { name: name.into(), style, runs };
        [("few<", few), ("many", many)].into_iter().enumerate().map(|(i, of)| named(i, of)).collect()
    }

    #[test]
    fn every_mark_is_a_row_and_lines_end_with_the_runs() {
        let (figure, table) = prediction(&models(), "V1 correlation", "alone").unwrap().unwrap();
        let rows = String::from_utf8(table.bytes(Format::JsonLines).unwrap()).unwrap();
        let rows: Vec<Value> = rows.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((rows.len(), figure.svg().matches("class=\"mark\"").count()), (10, 10));
        let line = line(&models(), |run| run.clean).unwrap();
        assert_eq!(line.points.iter().map(|point| point.x).collect::<Vec<f64>>(), [54.0, 61.0]);
        assert!(figure.svg().contains("few&lt;") && figure.svg().contains("robustness (% of alone)"));
    }

    #[test]
    fn fits_need_more_runs_than_terms() {
        let mut models = models();
        let formulas =
            |models: &[Outcomes]| fits(models).iter().map(|fit| fit.terms.len()).collect::<Vec<_>>();
        assert_eq!(formulas(&models), [2, 3, 4]);
        models[1].runs.truncate(2);
        assert_eq!(formulas(&models), [2, 3]);
        models[1].runs.truncate(1);
        assert_eq!(formulas(&models), [2]);
        models.pop();
        assert_eq!(formulas(&models), [0; 0]);
        assert!(plot(&models, "V1", "alone").unwrap().is_none());
    }

    #[test]
    fn scores_are_relative_to_the_baseline() {
        let grid = |clean: f64, fog: f64| Grid {
            classes: 10,
            clean,
            cells: [("fog".to_owned(), vec![fog])].into(),
            severities: vec![3],
        };
        let seeds = Seeds { name: "m".into(), grids: vec![grid(0.5, 0.3), grid(0.625, 0.25)] };
        let neural = vec![("a".to_owned(), 0.25), ("b".to_owned(), 0.5)];
        let found = Outcomes::of(&seeds, 2, neural, &grid(0.5, 0.25));
        let of: Vec<(&str, f64, f64, f64)> =
            found.runs.iter().map(|r| (r.run.as_str(), r.neural, r.clean, r.robustness)).collect();
        assert_eq!(of, [("a", 0.25, 50.0, 120.0), ("b", 0.5, 62.5, 100.0)]);
    }
}
