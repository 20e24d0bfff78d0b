//! The figures of a report, each with the numbers it shows: a row of its table is a mark of the figure.

use super::{Group, Outcomes, ReportError, Subject, prediction};
use crate::base::Task;
use crate::eval::figures::{self, Seeds};
use crate::eval::robustness::Grid;
use crate::figure::{Axis, Chart, Figure, HeatMap, Panel, Point, Scale, Series};
use crate::table::{Kind, Table};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// A figure with its place in the report.
#[derive(Debug, Clone)]
pub struct Plot {
    /// Name of its files, and of its section.
    pub name: String,
    /// What it is of, in words, with what its numbers mean.
    pub text: String,
    /// The figure.
    pub figure: Figure,
    /// Its numbers.
    pub table: Table,
}

/// Width and height of panels.
const HALF: [f64; 2] = [360.0, 190.0];
/// Labelled images, and what `tables/` calls their final test.
const CLASSES: (&str, &str) = ("img_classification", "FinalTestInDomain");

/// All figures that the runs have numbers for. `corrupted` are grids of the groups that have them.
pub fn plots(groups: &[Group], corrupted: &[Seeds]) -> Result<Vec<Plot>, ReportError> {
    let mut all = Vec::new();
    all.extend(learning(groups)?);
    all.extend(rates(groups)?);
    all.extend(throughput(groups)?);
    if !corrupted.is_empty() {
        all.extend(robustness(corrupted));
        for area in [Task::V1, Task::V4] {
            all.extend(beside_prediction(groups, corrupted, area)?);
        }
    }
    all.extend(confusion(groups)?);
    all.extend(neurons(groups)?);
    Ok(all)
}

/// What is drawn against epochs.
struct Curve {
    task: String,
    /// Key in the lines of metrics.
    key: &'static str,
    title: String,
    label: &'static str,
    factor: f64,
}

fn curve(task: &str, key: &'static str, what: &str, label: &'static str) -> Curve {
    Curve { task: task.to_owned(), key, title: format!("{task}: {what}"), label, factor: 1.0 }
}

/// Tasks of the runs, labelled images first.
fn tasks(groups: &[Group]) -> BTreeSet<String> {
    let lines = groups.iter().flat_map(|group| &group.runs).flat_map(|run| &run.metrics);
    lines.filter_map(|line| line["task"].as_str()).map(str::to_owned).collect()
}

const EPOCHS: [(&str, Kind); 7] = [
    ("task", Kind::Text),
    ("metric", Kind::Text),
    ("group", Kind::Text),
    ("epoch", Kind::Whole),
    ("runs", Kind::Whole),
    ("mean", Kind::Real),
    ("std", Kind::Real),
];

/// Means over the runs of a group, with one standard deviation above and below.
fn chart(groups: &[Group], curve: &Curve, rows: &mut Vec<Value>) -> Chart {
    let Curve { task, key, title, label, factor } = curve;
    let mut series = Vec::new();
    for (style, group) in groups.iter().enumerate() {
        let mut by_epoch: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
        for line in group.runs.iter().flat_map(|run| &run.metrics).filter(|line| line["task"] == **task) {
            if let (Some(epoch), Some(value)) = (line["epoch"].as_u64(), line[*key].as_f64()) {
                by_epoch.entry(epoch).or_default().push(factor * value);
            }
        }
        let mut points = Vec::new();
        for (epoch, values) in by_epoch {
            let (mean, std) = figures::mean_and_std(&values);
            points.push(Point { x: epoch as f64, y: mean, spread: std.map(|std| [mean - std, mean + std]) });
            rows.push(json!({
                "task": task, "metric": key, "group": group.name, "epoch": epoch, "runs": values.len(),
                "mean": mean, "std": std,
            }));
        }
        if !points.is_empty() {
            series.push(Series::new(&group.name, style, points));
        }
    }
    let x = Axis { label: "epoch".into(), ..Axis::default() };
    let y = Axis { label: (*label).to_owned(), ..Axis::default() };
    Chart { title: title.clone(), x, y, series, size: HALF }
}

/// Charts in rows; those without points are left out.
fn over_epochs(
    groups: &[Group],
    (name, title, text): (&str, &str, &str),
    curves: &[Vec<Curve>],
) -> Result<Option<Plot>, ReportError> {
    let (mut rows, mut panels) = (Vec::new(), Vec::new());
    for line in curves {
        let charts = line.iter().map(|curve| chart(groups, curve, &mut rows));
        let charts: Vec<Panel> = charts.filter(|chart| !chart.series.is_empty()).map(Panel::Chart).collect();
        panels.extend((!charts.is_empty()).then_some(charts));
    }
    if panels.is_empty() {
        return Ok(None);
    }
    let figure = Figure { title: title.to_owned(), description: described(text, groups), rows: panels };
    Ok(Some(Plot { name: name.to_owned(), text: text.to_owned(), figure, table: Table::of(&EPOCHS, &rows)? }))
}

fn described(text: &str, groups: &[Group]) -> String {
    let names: Vec<&str> = groups.iter().map(|group| group.name.as_str()).collect();
    format!("{text} Of {}.", names.join(", "))
}

fn learning(groups: &[Group]) -> Result<Option<Plot>, ReportError> {
    let of = |task: &String| {
        let score = if task == CLASSES.0 {
            curve(task, "validation_accuracy", "validation accuracy", "accuracy (%)")
        } else {
            curve(task, "validation_correlation", "validation correlation", "correlation")
        };
        vec![curve(task, "train_loss", "training loss", "loss"), score]
    };
    let curves: Vec<Vec<Curve>> = tasks(groups).iter().map(of).collect();
    let text = "Training losses as they are weighed, and validation scores. Lines are means over runs, bands one \
                standard deviation above and below.";
    over_epochs(groups, ("learning", "Learning curves", text), &curves)
}

fn rates(groups: &[Group]) -> Result<Option<Plot>, ReportError> {
    let tasks = tasks(groups);
    let rate = tasks
        .first()
        .map(|task| Curve { title: "learning rate".into(), ..curve(task, "lr", "", "learning rate") });
    let weights = tasks.iter().map(|task| curve(task, "log_variance", "log-variance", "log-variance"));
    let all: Vec<Curve> = rate.into_iter().chain(weights).collect();
    let mut curves: Vec<Vec<Curve>> = Vec::new();
    for curve in all {
        match curves.last_mut().filter(|line| line.len() < 2) {
            Some(line) => line.push(curve),
            None => curves.push(vec![curve]),
        }
    }
    let text = "The learning rate at the beginning of each epoch, and the log-variances by which the losses are \
                weighed: a task of larger log-variance counts less.";
    over_epochs(groups, ("rates", "Learning rate and weights of the losses", text), &curves)
}

fn throughput(groups: &[Group]) -> Result<Option<Plot>, ReportError> {
    let tasks = tasks(groups);
    let Some(task) = tasks.first() else { return Ok(None) };
    let speed =
        Curve { title: "throughput".into(), ..curve(task, "samples_per_s", "", "samples per second") };
    let stall = Curve {
        title: "waiting for data".into(),
        factor: 100.0,
        ..curve(task, "wait_share", "", "share of the time (%)")
    };
    let text = "Samples of all tasks per second, with evaluation, and the share of the time that training waited for \
                data.";
    over_epochs(groups, ("throughput", "Throughput", text), &[vec![speed, stall]])
}

/// Both figures; what keeps them from being drawn together is told elsewhere.
fn robustness(corrupted: &[Seeds]) -> Vec<Plot> {
    let made = [("corruptions", figures::heat_map(corrupted)), ("severities", figures::curves(corrupted))];
    let plot = |(name, made): (&str, Result<(Figure, Table), _>)| {
        let (figure, table) = made.ok()?;
        Some(Plot { name: name.to_owned(), text: figure.description.clone(), figure, table })
    };
    made.into_iter().filter_map(plot).collect()
}

/// Robustness beside the prediction of an area's responses, of the groups that have both and were evaluated alike.
fn beside_prediction(groups: &[Group], corrupted: &[Seeds], area: Task) -> Result<Option<Plot>, ReportError> {
    let average =
        |all: &[Seeds]| Grid::average(&all.iter().flat_map(|seeds| &seeds.grids).collect::<Vec<_>>());
    let (Ok(_), Ok(baseline)) = (average(corrupted), average(&corrupted[..1])) else { return Ok(None) };
    let outcomes = |seeds: &Seeds| {
        let (style, group) = groups.iter().enumerate().find(|(_, group)| group.name == seeds.name)?;
        let neural = |run: &Subject| Some((run.folder.clone(), run.score(area.as_str(), "correlation")?));
        let neural = group.runs.iter().map(neural).collect::<Option<Vec<_>>>()?;
        Some(Outcomes::of(seeds, style, neural, &baseline))
    };
    let models: Vec<Outcomes> = corrupted.iter().filter_map(outcomes).collect();
    prediction::plot(&models, &area.as_str().to_uppercase(), &corrupted[0].name)
}

const CONFUSION: [(&str, Kind); 4] =
    [("group", Kind::Text), ("class", Kind::Text), ("predicted", Kind::Text), ("percent", Kind::Real)];
/// More classes than this have cells without numbers and names.
const NAMED: usize = 25;
/// Matrices of few classes in a row.
const COLUMNS: usize = 2;
/// Side of a matrix of more.
const MATRIX: f64 = 500.0;

fn confusion(groups: &[Group]) -> Result<Option<Plot>, ReportError> {
    let (mut rows, mut panels) = (Vec::new(), Vec::new());
    for group in groups {
        let mut names: Vec<String> = Vec::new();
        let mut counts: BTreeMap<(usize, usize), f64> = BTreeMap::new();
        for run in &group.runs {
            for row in of_mode(run.table("classes.csv")?, CLASSES.1) {
                if let Some(name) = row.get("class").filter(|name| !names.contains(name)) {
                    names.push(name.clone());
                }
            }
            for row in of_mode(run.table("confusion.csv")?, CLASSES.1) {
                let place = |key: &str| names.iter().position(|name| row.get(key) == Some(name));
                if let (Some(class), Some(predicted)) = (place("class"), place("predicted")) {
                    *counts.entry((class, predicted)).or_default() += number(&row, "count").unwrap_or(0.0);
                }
            }
        }
        if counts.is_empty() {
            continue;
        }
        let in_a_row = if names.len() <= NAMED { COLUMNS } else { 1 };
        let panel = Panel::HeatMap(matrix(group, &names, &counts, &mut rows));
        match panels.last_mut().filter(|row: &&mut Vec<Panel>| row.len() < in_a_row) {
            Some(row) => row.push(panel),
            None => panels.push(vec![panel]),
        }
    }
    if panels.is_empty() {
        return Ok(None);
    }
    let text = "Percent of the test images of each class (rows) that were taken for each class (columns), over all \
                runs of a group. The diagonal is what was recognised.";
    let figure = Figure { title: "Confusions".into(), description: described(text, groups), rows: panels };
    let table = Table::of(&CONFUSION, &rows)?;
    Ok(Some(Plot { name: "confusion".into(), text: text.into(), figure, table }))
}

fn matrix(
    group: &Group,
    names: &[String],
    counts: &BTreeMap<(usize, usize), f64>,
    rows: &mut Vec<Value>,
) -> HeatMap {
    let mut values = vec![vec![0.0; names.len()]; names.len()];
    for (&(class, predicted), count) in counts {
        let all: f64 = counts.range((class, 0)..=(class, usize::MAX)).map(|(_, count)| count).sum();
        let percent = 100.0 * count / all;
        values[class][predicted] = percent;
        rows.push(json!({
            "group": group.name, "class": names[class], "predicted": names[predicted], "percent": percent,
        }));
    }
    let few = names.len() <= NAMED;
    let shown =
        |shown: bool| names.iter().map(|name| if shown { name.clone() } else { String::new() }).collect();
    HeatMap {
        title: group.name.clone(),
        row_names: shown(few),
        column_names: shown(few),
        column_label: "taken for".into(),
        values,
        row_gaps: Vec::new(),
        column_gaps: Vec::new(),
        scale: Scale { label: "images of the class (%)".into(), range: [0.0, 100.0] },
        cell: if few { [24.0, 17.0] } else { [MATRIX / names.len() as f64; 2] },
        decimals: 0,
        ground: Some(0.0),
    }
}

const NEURONS: [(&str, Kind); 5] = [
    ("panel", Kind::Text),
    ("group", Kind::Text),
    ("rank", Kind::Whole),
    ("correlation", Kind::Real),
    ("neurons", Kind::Whole),
];
/// Width of a bin of correlations.
const BIN: f64 = 0.05;

fn neurons(groups: &[Group]) -> Result<Option<Plot>, ReportError> {
    let (mut sorted, mut counted, mut rows) = (Vec::new(), Vec::new(), Vec::new());
    for (style, group) in groups.iter().enumerate() {
        let mut correlations = correlations(group)?;
        if correlations.is_empty() {
            continue;
        }
        correlations.sort_by(|a, b| b.total_cmp(a));
        let mut points = Vec::new();
        for (rank, correlation) in correlations.iter().enumerate() {
            points.push(Point { x: rank as f64 + 1.0, y: *correlation, spread: None });
            rows.push(json!({
                "panel": "sorted", "group": group.name, "rank": rank + 1, "correlation": correlation,
            }));
        }
        sorted.push(Series::new(&group.name, style, points));
        let bin = |correlation: &f64| (correlation / BIN).floor() as i64;
        let (least, most) = (bin(&correlations[correlations.len() - 1]), bin(&correlations[0]));
        let mut points = Vec::new();
        for at in least..=most {
            let n = correlations.iter().filter(|correlation| bin(correlation) == at).count();
            let middle = (at as f64 + 0.5) * BIN;
            points.push(Point { x: middle, y: n as f64, spread: None });
            rows.push(
                json!({"panel": "histogram", "group": group.name, "correlation": middle, "neurons": n}),
            );
        }
        counted.push(Series::new(&group.name, style, points));
    }
    if sorted.is_empty() {
        return Ok(None);
    }
    let panel = |title: &str, x: &str, y: &str, series: Vec<Series>| {
        let [x, y] = [x, y].map(|label| Axis { label: label.to_owned(), ..Axis::default() });
        Panel::Chart(Chart { title: title.to_owned(), x, y, series, size: HALF })
    };
    let panels = vec![
        panel("histogram", "correlation", "neurons", counted),
        panel("sorted", "neurons, best first", "correlation", sorted),
    ];
    let text = "Correlation of predicted and recorded responses of each neuron on the test images, mean over the runs \
                of a group: how many neurons there are in each bin of 0.05, and all neurons, best first.";
    let figure = Figure { title: "Neurons".into(), description: described(text, groups), rows: vec![panels] };
    let table = Table::of(&NEURONS, &rows)?;
    Ok(Some(Plot { name: "neurons".into(), text: text.into(), figure, table }))
}

/// Of each neuron, the mean over runs; those without a correlation are left out.
fn correlations(group: &Group) -> Result<Vec<f64>, ReportError> {
    let mut by_neuron: BTreeMap<[String; 3], Vec<f64>> = BTreeMap::new();
    for run in &group.runs {
        for row in of_mode(run.table("neurons.csv")?, "FinalTest") {
            let text = |key: &str| row.get(key).cloned().unwrap_or_default();
            if let Some(value) = number(&row, "correlation") {
                by_neuron.entry(["area", "session", "neuron"].map(text)).or_default().push(value);
            }
        }
    }
    Ok(by_neuron.values().map(|values| figures::mean_and_std(values).0).collect())
}

fn of_mode(rows: Vec<BTreeMap<String, String>>, mode: &str) -> Vec<BTreeMap<String, String>> {
    rows.into_iter().filter(|row| row.get("mode").is_some_and(|of| of == mode)).collect()
}

fn number(row: &BTreeMap<String, String>, key: &str) -> Option<f64> {
    row.get(key)?.parse().ok()
}
