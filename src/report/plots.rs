//! The figures of a report, each with the numbers it shows: a row of its table is a mark of the figure.

use super::{Group, Outcomes, ReportError, Subject, prediction};
use crate::base::Task;
use crate::eval::figures::{self, PERCENT, Seeds};
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

/// All figures that the runs have numbers for. `corrupted` are grids of the groups that have them, `words` what classes
/// are called, as far as that is known.
pub fn plots(
    groups: &[Group],
    corrupted: &[Seeds],
    words: &BTreeMap<String, String>,
) -> Result<Vec<Plot>, ReportError> {
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
    all.extend(confusion(groups, words)?);
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
    /// What its values can be.
    within: [f64; 2],
    /// The first epoch that is drawn.
    first: u64,
}

fn curve(task: &str, key: &'static str, what: &str, label: &'static str) -> Curve {
    let (title, within) = (format!("{task}: {what}"), [f64::NEG_INFINITY, f64::INFINITY]);
    Curve { task: task.to_owned(), key, title, label, factor: 1.0, within, first: 0 }
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
    let Curve { task, key, title, label, factor, within, first } = curve;
    let mut series = Vec::new();
    for (style, group) in groups.iter().enumerate() {
        let mut by_epoch: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
        for line in group.runs.iter().flat_map(|run| &run.metrics).filter(|line| line["task"] == **task) {
            let epoch = line["epoch"].as_u64().filter(|epoch| epoch >= first);
            if let (Some(epoch), Some(value)) = (epoch, line[*key].as_f64()) {
                by_epoch.entry(epoch).or_default().push(factor * value);
            }
        }
        let mut points = Vec::new();
        for (epoch, values) in by_epoch {
            let (mean, std) = figures::mean_and_std(&values);
            points.push(Point { x: epoch as f64, y: mean, spread: figures::band(mean, std, *within) });
            rows.push(json!({
                "task": task, "metric": key, "group": group.name, "epoch": epoch, "runs": values.len(),
                "mean": mean, "std": std,
            }));
        }
        if !points.is_empty() {
            series.push(Series::new(&group.name, style, points));
        }
    }
    let x = Axis { label: "epoch".into(), whole: true, ..Axis::default() };
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
            let accuracy = curve(task, "validation_accuracy", "validation accuracy", "accuracy (%)");
            Curve { within: PERCENT, ..accuracy }
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
    // Epoch 0 is before training: nothing took time, and nothing waited.
    let of = |title: &str, key, label| Curve { title: title.into(), first: 1, ..curve(task, key, "", label) };
    let speed = of("throughput", "samples_per_s", "samples per second");
    let stall = of("waiting for data", "wait_share", "share of the time (%)");
    let stall = Curve { factor: 100.0, within: PERCENT, ..stall };
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

fn confusion(groups: &[Group], words: &BTreeMap<String, String>) -> Result<Option<Plot>, ReportError> {
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
        let panel = Panel::HeatMap(matrix(group, &names, words, &counts, &mut rows));
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
    words: &BTreeMap<String, String>,
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
    let shown = if few { called(names, words) } else { vec![String::new(); names.len()] };
    HeatMap {
        title: group.name.clone(),
        row_names: shown.clone(),
        column_names: shown,
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

/// What classes are called: by the first of their words, by all if others have that too, or by their names.
fn called(names: &[String], words: &BTreeMap<String, String>) -> Vec<String> {
    let all: Vec<&str> = names.iter().map(|name| words.get(name).unwrap_or(name).as_str()).collect();
    let first: Vec<&str> = all.iter().map(|all| all.split(',').next().unwrap_or(all).trim()).collect();
    let own = |of: &[&str], i: usize| of.iter().filter(|other| **other == of[i]).count() == 1;
    let choose = |i| [&first, &all].into_iter().find(|of| own(of, i)).map_or(names[i].as_str(), |of| of[i]);
    (0..names.len()).map(|i| choose(i).to_owned()).collect()
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
    let axis = |label: &str, whole: bool| Axis { label: label.to_owned(), whole, ..Axis::default() };
    let panel = |title: &str, x: Axis, y: Axis, series: Vec<Series>| {
        Panel::Chart(Chart { title: title.to_owned(), x, y, series, size: HALF })
    };
    let panels = vec![
        panel("histogram", axis("correlation", false), axis("neurons", true), counted),
        panel("sorted", axis("neurons, best first", true), axis("correlation", false), sorted),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runs::State;
    use crate::table::Format;
    use std::fs;
    use std::path::Path;

    /// Runs in `root`, one for each of `metrics`.
    fn group(root: &Path, metrics: &[Vec<Value>]) -> Group {
        let run = |(i, metrics): (usize, &Vec<Value>)| Subject {
            folder: format!("a-{i}"),
            root: root.join(format!("a-{i}")),
            name: "a".into(),
            state: State::Done,
            settings: BTreeMap::new(),
            manifest: Value::Null,
            metrics: metrics.clone(),
            results: Vec::new(),
        };
        Group { name: "a".into(), runs: metrics.iter().enumerate().map(run).collect() }
    }

    fn named(plots: &[Plot], name: &str) -> Plot {
        plots.iter().find(|plot| plot.name == name).unwrap().clone()
    }

    fn numbers(plot: &Plot) -> Vec<Value> {
        let bytes = plot.table.bytes(Format::JsonLines).unwrap();
        let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| serde_json::from_slice(line).unwrap()).collect()
    }

    fn charts(plot: &Plot) -> Vec<&Chart> {
        let panels = plot.figure.rows.iter().flatten();
        panels.filter_map(|p| if let Panel::Chart(chart) = p { Some(chart) } else { None }).collect()
    }

    /// What is written before training has no share of a time that was none.
    #[test]
    fn waiting_begins_with_the_first_epoch_of_training() {
        let line = |epoch: u64, share: f64, accuracy: f64| {
            json!({
                "task": CLASSES.0, "epoch": epoch, "wait_share": share, "validation_accuracy": accuracy,
                "samples_per_s": (epoch > 0).then_some(100.0),
            })
        };
        let run = |accuracy: f64| vec![line(0, 0.0, 50.0), line(1, 0.25, accuracy), line(2, 0.5, 50.0)];
        let group = group(Path::new("nowhere"), &[run(60.0), run(100.0)]);
        let plots = plots(&[group], &[], &BTreeMap::new()).unwrap();
        let rows = numbers(&named(&plots, "throughput"));
        let waited = rows.iter().filter(|row| row["metric"] == "wait_share");
        let waited: Vec<_> = waited.map(|row| (row["epoch"].as_u64(), row["mean"].as_f64())).collect();
        assert_eq!(waited, [(Some(1), Some(25.0)), (Some(2), Some(50.0))]);
        // Scores before training are scores.
        let learning = named(&plots, "learning");
        assert_eq!(numbers(&learning)[0]["epoch"], 0);
        // 80 percent with a deviation of 28.3.
        let band = charts(&learning)[0].series[0].points[1].spread.unwrap();
        assert!((band[0] - (80.0 - 20.0 * 2f64.sqrt())).abs() < 1e-9 && band[1] == 100.0, "{band:?}");
        for plot in &plots {
            assert!(
                charts(plot).iter().all(|chart| chart.x.label == "epoch" && chart.x.whole),
                "{}",
                plot.name
            );
        }
    }

    #[test]
    fn neurons_are_counted_in_whole_numbers() {
        let dir = tempfile::tempdir().unwrap();
        let group = group(dir.path(), &[Vec::new()]);
        let tables = group.runs[0].root.join("tables");
        fs::create_dir_all(&tables).unwrap();
        let lines = "mode,area,session,neuron,correlation\nFinalTest,v1,s,0,0.31\nFinalTest,v1,s,1,0.32\n";
        fs::write(tables.join("neurons.csv"), lines).unwrap();
        let plot = named(&plots(&[group], &[], &BTreeMap::new()).unwrap(), "neurons");
        let [histogram, sorted] = charts(&plot)[..] else { panic!("two charts") };
        assert_eq!(
            [histogram, sorted].map(|chart| (chart.x.whole, chart.y.whole)),
            [(false, true), (true, false)]
        );
        let svg = plot.figure.svg();
        assert!(svg.contains(">2</text>") && !svg.contains(">1.5</text>"), "{svg}");
    }

    #[test]
    fn classes_are_called_by_words_that_no_others_have() {
        let words = [("n1", "goldfish, Carassius auratus"), ("n2", "crane, bird"), ("n3", "crane, machine")];
        let same = [("n4", "maillot"), ("n5", "maillot")];
        let words: BTreeMap<String, String> =
            words.into_iter().chain(same).map(|(name, words)| (name.into(), words.into())).collect();
        let names: Vec<String> = (1..=6).map(|i| format!("n{i}")).collect();
        assert_eq!(called(&names, &words), ["goldfish", "crane, bird", "crane, machine", "n4", "n5", "n6"]);
        assert_eq!(called(&names[1..2], &words), ["crane"]);
    }
}
