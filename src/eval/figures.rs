//! Figures of accuracies under corruptions, each with the numbers it shows as a table.
//!
//! Absent: files. In both tables severity 0 is the clean images, and a row is a mark of the figure.

use super::robustness::Grid;
use crate::corruption::{Corruption, Group};
use crate::figure::{Axis, Chart, Figure, HeatMap, Panel, Point, Scale, Series, round_above};
use crate::table::{Kind, Table, TableError};
use serde_json::{Value, json};

/// A model's name and its grids, one a seed.
#[derive(Debug, Clone, PartialEq)]
pub struct Seeds {
    /// Its name in legends and tables.
    pub name: String,
    /// Grids of the same corruptions and severities.
    pub grids: Vec<Grid>,
}

/// Grids that cannot stand in one figure, or rows that do not fit their table.
#[derive(Debug, thiserror::Error)]
pub enum FiguresError {
    /// Of other corruptions, severities or classes.
    #[error("{0}")]
    Grids(String),
    /// A bug of the rows below.
    #[error(transparent)]
    Table(#[from] TableError),
}

/// Columns of the numbers of [`heat_map`]. Without a severity: the mean over severities; without a corruption too: the
/// mean over the corruptions of the paper.
const HEAT_MAP: [(&str, Kind); 5] = [
    ("model", Kind::Text),
    ("seeds", Kind::Whole),
    ("corruption", Kind::Text),
    ("severity", Kind::Whole),
    ("accuracy", Kind::Real),
];
/// Columns of the numbers of [`curves`]. Without a corruption: the mean over the corruptions of the paper.
const CURVES: [(&str, Kind); 6] = [
    ("model", Kind::Text),
    ("seeds", Kind::Whole),
    ("corruption", Kind::Text),
    ("severity", Kind::Whole),
    ("accuracy", Kind::Real),
    ("std", Kind::Real),
];
/// The width of a page with two columns, in pixels, without the names to the left.
const PAGE: f64 = 600.0;
const CELL: [f64; 2] = [27.0, 15.0];
const OVERVIEW_CELL: [f64; 2] = [31.0, 17.0];

/// A model with the mean of its grids.
struct Model<'a> {
    seeds: &'a Seeds,
    mean: Grid,
}

fn models(all: &[Seeds]) -> Result<Vec<Model<'_>>, FiguresError> {
    let grids: Vec<&Grid> = all.iter().flat_map(|s| &s.grids).collect();
    // That they are alike is checked over all of them.
    Grid::average(&grids).map_err(FiguresError::Grids)?;
    let model =
        |seeds| Some(Model { seeds, mean: Grid::average(&seeds.grids.iter().collect::<Vec<_>>()).ok()? });
    Ok(all.iter().filter_map(model).collect())
}

/// Accuracies of the means over seeds as heat maps: models by corruptions, averaged over severities; then for each model
/// corruptions by severities.
pub fn heat_map(all: &[Seeds]) -> Result<(Figure, Table), FiguresError> {
    let models = models(all)?;
    let corruptions = models.first().map_or_else(Vec::new, |m| m.mean.corruptions());
    let (overview, mut rows) = overview(&models, &corruptions);
    let panel_width = models.first().map_or(1, |m| m.mean.severities.len()) as f64 * CELL[0] + 12.0;
    let in_a_row = ((PAGE / panel_width) as usize).max(1);
    let mut panels = vec![vec![Panel::HeatMap(overview)]];
    for (i, model) in models.iter().enumerate() {
        if i % in_a_row == 0 {
            panels.push(Vec::new());
        }
        let (panel, cells) = by_severity(model, &corruptions, i % in_a_row == 0, scale(&models));
        rows.extend(cells);
        if let Some(row) = panels.last_mut() {
            row.push(Panel::HeatMap(panel));
        }
    }
    let names: Vec<&str> = all.iter().map(|s| s.name.as_str()).collect();
    let description = format!(
        "Top-1 accuracy in percent of {}, mean over seeds. Above: each corruption, averaged over severities, \
         beside clean images and the mean over corruptions. Below: each corruption at each severity.",
        names.join(", ")
    );
    let figure = Figure { title: "Accuracy under corruptions".into(), description, rows: panels };
    Ok((figure, Table::of(&HEAT_MAP, &rows)?))
}

/// All panels have the same colours, from 0 to a round number.
fn scale(models: &[Model<'_>]) -> Scale {
    Scale { label: "accuracy (%)".into(), range: [0.0, best(models)] }
}

fn best(models: &[Model<'_>]) -> f64 {
    let all = models.iter().flat_map(|m| &m.seeds.grids);
    let values = all.flat_map(|g| std::iter::once(&g.clean).chain(g.cells.values().flatten()));
    round_above(values.fold(0.0, |best: f64, v| best.max(100.0 * v)))
}

/// Positions at which another group of corruptions begins.
fn group_starts(corruptions: &[Corruption]) -> Vec<usize> {
    (1..corruptions.len()).filter(|&i| corruptions[i - 1].group() != corruptions[i].group()).collect()
}

/// Models by corruptions, between clean images and the mean.
fn overview(models: &[Model<'_>], corruptions: &[Corruption]) -> (HeatMap, Vec<Value>) {
    let mut rows = Vec::new();
    let mut values = Vec::new();
    for Model { seeds, mean } in models {
        let mut row = vec![100.0 * mean.clean];
        rows.push(json!({"severity": 0, "accuracy": row[0]}));
        for c in corruptions {
            let accuracy = 100.0 * mean.mean_of(*c).unwrap_or(f64::NAN);
            rows.push(json!({"corruption": c.as_str(), "accuracy": accuracy}));
            row.push(accuracy);
        }
        if let Some(all) = mean.mean() {
            rows.push(json!({"accuracy": 100.0 * all}));
            row.push(100.0 * all);
        }
        for row in rows.iter_mut().filter(|row| row["model"].is_null()) {
            (row["model"], row["seeds"]) = (json!(seeds.name), json!(seeds.grids.len()));
        }
        values.push(row);
    }
    let with_mean = values.iter().any(|row| row.len() == corruptions.len() + 2);
    let mut column_names = vec!["clean".to_owned()];
    column_names.extend(corruptions.iter().map(|c| label(*c)));
    column_names.extend(with_mean.then(|| "mean".to_owned()));
    let mut column_gaps = vec![1];
    column_gaps.extend(group_starts(corruptions).into_iter().map(|i| i + 1));
    column_gaps.push(corruptions.len() + 1);
    let map = HeatMap {
        title: "mean over severities".into(),
        row_names: models.iter().map(|m| m.seeds.name.clone()).collect(),
        column_names,
        column_label: String::new(),
        values,
        row_gaps: Vec::new(),
        column_gaps,
        scale: scale(models),
        cell: OVERVIEW_CELL,
        decimals: 1,
        ground: None,
    };
    (map, rows)
}

/// One model: corruptions by severities.
fn by_severity(
    Model { seeds, mean }: &Model<'_>,
    corruptions: &[Corruption],
    named: bool,
    scale: Scale,
) -> (HeatMap, Vec<Value>) {
    let percent = |c: &Corruption| mean.row(*c).unwrap_or_default().iter().map(|a| 100.0 * a).collect();
    let values: Vec<Vec<f64>> = corruptions.iter().map(percent).collect();
    let mut rows = Vec::new();
    for (c, accuracies) in corruptions.iter().zip(&values) {
        for (severity, accuracy) in mean.severities.iter().zip(accuracies) {
            rows.push(json!({
                "model": seeds.name, "seeds": seeds.grids.len(), "corruption": c.as_str(), "severity": severity,
                "accuracy": accuracy,
            }));
        }
    }
    let map = HeatMap {
        title: seeds.name.clone(),
        row_names: if named { corruptions.iter().map(|c| label(*c)).collect() } else { Vec::new() },
        column_names: mean.severities.iter().map(u8::to_string).collect(),
        column_label: "severity".into(),
        values,
        row_gaps: group_starts(corruptions),
        column_gaps: Vec::new(),
        scale,
        cell: CELL,
        decimals: 1,
        ground: None,
    };
    (map, rows)
}

/// Panels of [`curves`] for single corruptions in a row.
const COLUMNS: usize = 5;
const SMALL: [f64; 2] = [110.0, 78.0];

/// Accuracy against severity: the mean over the corruptions of the paper, then each corruption. Lines are means over
/// seeds, bands one standard deviation (ddof 1) above and below.
pub fn curves(all: &[Seeds]) -> Result<(Figure, Table), FiguresError> {
    let models = models(all)?;
    let corruptions = models.first().map_or_else(Vec::new, |m| m.mean.corruptions());
    let mut rows = Vec::new();
    let mut charts: Vec<Vec<Chart>> = Vec::new();
    if corruptions.iter().any(|c| c.group() != Group::Extra) {
        let wide = COLUMNS.min(corruptions.len().max(3)) as f64;
        let size = [wide * SMALL[0] + (wide - 1.0) * 14.0, 170.0];
        charts.push(vec![Chart { size, ..curve(&models, None, &mut rows) }]);
    }
    for (i, corruption) in corruptions.iter().enumerate() {
        if i % COLUMNS == 0 {
            charts.push(Vec::new());
        }
        let mut chart = curve(&models, Some(*corruption), &mut rows);
        // What has a panel below or to the left shares its numbers.
        chart.x.bare = i + COLUMNS < corruptions.len();
        chart.y.bare = i % COLUMNS > 0;
        chart.y.label = "%".into();
        if let Some(row) = charts.last_mut() {
            row.push(chart);
        }
    }
    let high = highest(charts.iter().flatten());
    charts.iter_mut().flatten().for_each(|chart| chart.y.range = Some([0.0, high]));
    let panels = charts.into_iter().map(|row| row.into_iter().map(Panel::Chart).collect()).collect();
    let names: Vec<&str> = all.iter().map(|s| s.name.as_str()).collect();
    let description = format!(
        "Top-1 accuracy in percent of {} against the severity of corruptions. Above: the mean over corruptions. \
         Below: each corruption. Lines are means over seeds, bands one standard deviation above and below, within 0 \
         and 100. All panels have the same axes.",
        names.join(", ")
    );
    let figure = Figure { title: "Accuracy against severity".into(), description, rows: panels };
    Ok((figure, Table::of(&CURVES, &rows)?))
}

/// A round number above all lines and bands, at which panels that share their numbers end.
fn highest<'a>(charts: impl Iterator<Item = &'a Chart>) -> f64 {
    let points = charts.flat_map(|chart| &chart.series).flat_map(|series| &series.points);
    round_above(points.map(|p| p.spread.map_or(p.y, |ends| ends[1])).fold(0.0, f64::max))
}

/// One line a model, of one corruption or of the mean.
fn curve(models: &[Model<'_>], of: Option<Corruption>, rows: &mut Vec<Value>) -> Chart {
    let severities = models.first().map_or(&[][..], |m| &m.mean.severities);
    let mut series = Vec::new();
    for (style, Model { seeds, .. }) in models.iter().enumerate() {
        let mut points = Vec::new();
        for (i, severity) in std::iter::once(0).chain(severities.iter().copied()).enumerate() {
            let accuracy = |grid: &Grid| match (i.checked_sub(1), of) {
                (None, _) => Some(100.0 * grid.clean),
                (Some(i), None) => grid.mean_at(i).map(|a| 100.0 * a),
                (Some(i), Some(c)) => grid.row(c)?.get(i).map(|a| 100.0 * a),
            };
            let values: Vec<f64> = seeds.grids.iter().filter_map(accuracy).collect();
            let (mean, std) = mean_and_std(&values);
            points.push(Point { x: f64::from(severity), y: mean, spread: band(mean, std, PERCENT) });
            rows.push(json!({
                "model": seeds.name, "seeds": seeds.grids.len(), "corruption": of.map(Corruption::as_str),
                "severity": severity, "accuracy": mean, "std": std,
            }));
        }
        series.push(Series::new(&seeds.name, style, points));
    }
    let mut names = vec![(0.0, "clean".to_owned())];
    names.extend(severities.iter().map(|s| (f64::from(*s), s.to_string())));
    Chart {
        title: of.map_or_else(|| "mean over corruptions".to_owned(), label),
        x: Axis { label: "severity".into(), names, ..Axis::default() },
        y: Axis { label: "accuracy (%)".into(), ..Axis::default() },
        series,
        size: SMALL,
    }
}

/// Mean, and standard deviation with ddof 1 of two values or more.
pub fn mean_and_std(values: &[f64]) -> (f64, Option<f64>) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>();
    (mean, (values.len() > 1).then(|| (squares / (n - 1.0)).sqrt()))
}

/// What percentages can be.
pub const PERCENT: [f64; 2] = [0.0, 100.0];

/// One standard deviation above and below a mean, as far as there are such values.
pub fn band(mean: f64, std: Option<f64>, [least, most]: [f64; 2]) -> Option<[f64; 2]> {
    std.map(|std| [(mean - std).max(least), (mean + std).min(most)])
}

/// A corruption's name as it is printed.
fn label(corruption: Corruption) -> String {
    match corruption {
        Corruption::JpegCompression => "JPEG".into(),
        Corruption::ElasticTransform => "elastic".into(),
        other => other.as_str().replace('_', " ").replace("gaussian", "Gaussian"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Accuracies fall with severity, each corruption in its own way; seeds differ.
    fn seeds(name: &str, level: f64, seeds: usize, corruptions: &[Corruption]) -> Seeds {
        let grid = |seed: usize| {
            let accuracy = |c: usize, s: usize| {
                let spread = 0.012 * ((seed * 7 + c * 3 + s) % 5) as f64;
                level * (1.0 - (0.08 + 0.1 * ((c * 5) % 7) as f64 / 6.0) * (s + 1) as f64) + spread
            };
            let rows = corruptions.iter().enumerate();
            let cells =
                rows.map(|(c, name)| (name.as_str().into(), (0..5).map(|s| accuracy(c, s)).collect()));
            Grid {
                classes: 200,
                clean: level + 0.01 * seed as f64,
                cells: cells.collect(),
                severities: vec![1, 2, 3, 4, 5],
            }
        };
        Seeds { name: name.to_owned(), grids: (0..seeds).map(grid).collect() }
    }

    fn marks(figure: &Figure) -> usize {
        figure.svg().matches("class=\"mark\"").count()
    }

    fn lines(table: &Table) -> Vec<Value> {
        let bytes = table.bytes(crate::table::Format::JsonLines).unwrap();
        String::from_utf8(bytes).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect()
    }

    #[test]
    fn every_mark_of_a_figure_is_a_row_of_its_table() {
        for corruptions in
            [&Corruption::ALL[..], &Corruption::PAPER, &Corruption::ALL[..1], &Corruption::ALL[15..]]
        {
            let all = [seeds("baseline", 0.5, 3, corruptions), seeds("a<b", 0.6, 1, corruptions)];
            for (figure, table) in [heat_map(&all).unwrap(), curves(&all).unwrap()] {
                assert_eq!(marks(&figure), lines(&table).len(), "{}", corruptions.len());
                assert!(figure.svg().contains("a&lt;b"));
            }
        }
    }

    /// By hand: clean 50, 51, 52 percent.
    #[test]
    fn numbers_are_means_and_deviations_over_seeds() {
        let all = [seeds("m", 0.5, 3, &Corruption::PAPER)];
        let found = lines(&curves(&all).unwrap().1);
        assert!((found[0]["accuracy"].as_f64().unwrap() - 51.0).abs() < 1e-9, "{}", found[0]);
        assert!((found[0]["std"].as_f64().unwrap() - 1.0).abs() < 1e-9, "{}", found[0]);
        let at = |row: &Value| row["corruption"] == "fog" && row["severity"] == 3;
        let fog: Vec<f64> = all[0].grids.iter().map(|g| 100.0 * g.row(Corruption::Fog).unwrap()[2]).collect();
        let row = found.iter().find(|r| at(r)).unwrap();
        assert!((row["accuracy"].as_f64().unwrap() - fog.iter().sum::<f64>() / 3.0).abs() < 1e-9);
        let cells = lines(&heat_map(&all).unwrap().1);
        assert_eq!(cells.iter().find(|r| at(r)).unwrap()["accuracy"], row["accuracy"]);
        // The mean over severities of the mean curve is the mean over all.
        let mean = cells.iter().find(|r| r["corruption"].is_null() && r["severity"].is_null()).unwrap();
        let curve = found.iter().filter(|r| r["corruption"].is_null() && r["severity"] != 0);
        let curve: Vec<f64> = curve.map(|r| r["accuracy"].as_f64().unwrap()).collect();
        assert_eq!(curve.len(), 5);
        assert!((mean["accuracy"].as_f64().unwrap() - curve.iter().sum::<f64>() / 5.0).abs() < 1e-9);
    }

    fn charts(figure: &Figure) -> Vec<&Chart> {
        let panels = figure.rows.iter().flatten();
        let chart = panels.filter_map(|p| if let Panel::Chart(chart) = p { Some(chart) } else { None });
        chart.collect()
    }

    /// By hand: fog at severity 1 is 60 and 100 percent, 80 with a deviation of 28.3; at severity 5, 0 and 20, 10 with
    /// one of 14.1. Means of all else are below 50.
    #[test]
    fn panels_share_an_axis_that_holds_all_bands() {
        let mut all = [seeds("m", 0.4, 2, &Corruption::PAPER), seeds("n", 0.3, 1, &Corruption::PAPER)];
        for (grid, [first, last]) in all[0].grids.iter_mut().zip([[0.6, 0.0], [1.0, 0.2]]) {
            let fog = grid.cells.get_mut("fog").unwrap();
            (fog[0], fog[4]) = (first, last);
        }
        let figure = curves(&all).unwrap().0;
        let panels = charts(&figure);
        assert_eq!(panels.len(), 16);
        assert!(panels.iter().all(|chart| chart.y.range == Some([0.0, 100.0])));
        let fog = panels.iter().find(|chart| chart.title == "fog").unwrap();
        let ends = |severity: usize| fog.series[0].points[severity].spread.unwrap();
        assert!(
            (ends(1)[0] - (80.0 - 20.0 * 2f64.sqrt())).abs() < 1e-9 && ends(1)[1] == 100.0,
            "{:?}",
            ends(1)
        );
        assert!(
            (ends(5)[1] - (10.0 + 10.0 * 2f64.sqrt())).abs() < 1e-9 && ends(5)[0] == 0.0,
            "{:?}",
            ends(5)
        );
        // A band that goes beyond the best of all seeds: 48 and 60 percent, 54 with a deviation of 8.5.
        for (grid, accuracy) in all[0].grids.iter_mut().zip([0.48, 0.6]) {
            grid.cells.get_mut("fog").unwrap()[0] = accuracy;
        }
        assert_eq!(best(&models(&all).unwrap()), 60.0);
        let figure = curves(&all).unwrap().0;
        assert!(charts(&figure).iter().all(|chart| chart.y.range == Some([0.0, 80.0])));
    }

    #[test]
    fn grids_that_differ_have_no_figure() {
        let all = [seeds("a", 0.5, 1, &Corruption::ALL[..2]), seeds("b", 0.5, 1, &Corruption::ALL[..3])];
        assert!(heat_map(&all).unwrap_err().to_string().contains("evaluate them alike"));
        assert!(curves(&[]).is_err());
    }
}
