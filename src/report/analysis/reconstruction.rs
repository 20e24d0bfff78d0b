//! Figures of reconstructions.

use super::{Read, SHOWN, each, grid, short, text};
use crate::analysis::representation::FEWEST;
use crate::analysis::statistics::{interval, mean};
use crate::figure::{Axis, Chart, Drawn, Figure, Panel, Picture, Point, Series};
use crate::report::{Plot, ReportError};
use crate::table::{Kind, Table};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const HALF: [f64; 2] = [300.0, 180.0];

pub(super) fn reconstruction(
    folder: &Read<'_>,
    about: &Value,
    rows: &[Value],
) -> Result<Vec<Plot>, ReportError> {
    let layer = text(&about["settings"]["layer"]);
    let (allowed, norm) = allowed(about);
    let mut plots = vec![panels(folder, rows, &layer, allowed)?];
    let fidelity = [
        ("correlation", "correlation with the image"),
        ("ssim", "SSIM"),
        ("response_error", "response error"),
    ];
    let words = format!(
        "How near reconstructions from {layer} are to the image as it is, and the share of the layer's activity that they \
         miss, against the norm they {norm}: means over images and seeds with 95 % intervals over images, of {FEWEST} or \
         more."
    );
    plots.extend(over_budgets(rows, "fidelity", "Fidelity of reconstructions", &words, &fidelity)?);
    let content = [
        ("content_correlation", "correlation with the content"),
        ("noise_correlation", "correlation with the disturbance"),
        ("content_share", "share of content"),
    ];
    let words = format!(
        "What reconstructions of {} images from {layer} consist of: correlation with the image as it is and with what was \
         added to it, and the share of content in the least-squares fit by both.",
        each(rows, "disturbance").first().map_or_else(String::new, text)
    );
    plots.extend(over_budgets(rows, "content", "Content and noise", &words, &content)?);
    let words = "The share of content by radial frequency, in cycles a pixel.";
    plots.extend(over_budgets(rows, "bands", "Content by frequency", words, &BANDS)?);
    let salient = [("saliency_excess", "excess correlation"), ("saliency_partial", "partial correlation")];
    let words = format!(
        "Whether reconstructions spend their energy where the image is salient ({}): correlation of energy and saliency \
         beyond that of the image's own energy, and what the image's energy and a bias to the middle do not explain.",
        each(rows, "saliency").first().map_or_else(String::new, text)
    );
    plots.extend(over_budgets(rows, "saliency", "Energy and saliency", &words, &salient)?);
    plots.extend(comparison(folder)?);
    plots.push(trajectories(folder)?);
    Ok(plots)
}

/// What images may be, and what a norm is to them.
fn allowed(about: &Value) -> (&'static str, &'static str) {
    match about["settings"]["constraint"].as_str() {
        Some("Sphere") => ("of a norm", "have"),
        Some("None") => ("of any norm", "have (0: any)"),
        _ => ("of no more than a norm", "may have"),
    }
}

const BANDS: [(&str, &str); 4] = [
    ("content_share_band_1", "content below 1/16"),
    ("content_share_band_2", "content, 1/16 to 1/8"),
    ("content_share_band_3", "content, 1/8 to 1/4"),
    ("content_share_band_4", "content above 1/4"),
];

const DIFFERENCES: [(&str, Kind); 8] = [
    ("metric", Kind::Text),
    ("model", Kind::Text),
    ("baseline", Kind::Text),
    ("images", Kind::Whole),
    ("difference", Kind::Real),
    ("low", Kind::Real),
    ("high", Kind::Real),
    ("wilcoxon_p", Kind::Real),
];
/// Differences in a line of the figure.
const ACROSS: usize = 4;

/// Each network less the first, image by image; none if there is one network.
fn comparison(folder: &Read<'_>) -> Result<Option<Plot>, ReportError> {
    let mut all = folder.rows("comparison.jsonl")?;
    let Some(baseline) = all.first().map(|row| text(&row["baseline"])) else { return Ok(None) };
    // Earlier versions wrote intervals of fewer images too.
    for row in all.iter_mut().filter(|row| row["images"].as_u64().is_none_or(|n| n < FEWEST as u64)) {
        (row["low"], row["high"]) = (Value::Null, Value::Null);
    }
    let mut rows = Vec::new();
    for row in &all {
        rows.push(
            DIFFERENCES.iter().map(|(key, _)| ((*key).to_owned(), row[*key].clone())).collect::<Value>(),
        );
    }
    let (metrics, models) = (each(&all, "metric"), each(&all, "model"));
    let mut lines = Vec::new();
    for metrics in metrics.chunks(ACROSS) {
        let mut series = Vec::new();
        for (style, model) in models.iter().enumerate() {
            // Beside each other.
            let aside = 0.12 * (style as f64 - (models.len() as f64 - 1.0) / 2.0);
            let of =
                |metric: &Value| all.iter().find(|row| row["metric"] == *metric && row["model"] == *model);
            let points = metrics.iter().enumerate().filter_map(|(at, metric)| {
                let row = of(metric)?;
                let spread = row["low"].as_f64().zip(row["high"].as_f64()).map(|(low, high)| [low, high]);
                Some(Point { x: at as f64 + aside, y: row["difference"].as_f64()?, spread })
            });
            series.push(Series::new(text(model), style, points.collect()).drawn(Drawn::Apart));
        }
        let name = |metric: &Value| text(metric).replace('_', " ");
        let names = metrics.iter().enumerate().map(|(at, metric)| (at as f64, name(metric))).collect();
        // With 0, and room for what stands at the ends.
        let points = series.iter().flat_map(|line: &Series| &line.points).filter(|point| point.y.is_finite());
        let [low, high] = points.fold([0.0f64; 2], |[low, high], point| {
            let ends = point.spread.unwrap_or([point.y; 2]);
            [low.min(ends[0]), high.max(ends[1])]
        });
        let room = 0.05 * (high - low);
        let x = Axis { names, range: Some([-0.5, metrics.len() as f64 - 0.5]), ..Axis::default() };
        let range = Some([low - room, high + room]);
        let y = Axis { label: format!("less {baseline}"), range, ..Axis::default() };
        lines.push(vec![Panel::Chart(Chart { title: String::new(), x, y, series, size: [620.0, 130.0] })]);
    }
    let words = format!(
        "Networks less {baseline}, image by image: means over images with 95 % intervals, of {FEWEST} images or more; each \
         image counts as the mean over seeds and over the logarithm of the norm."
    );
    let figure =
        Figure { title: "Differences between networks".into(), description: words.clone(), rows: lines };
    Ok(Some(Plot { name: "comparison".into(), text: words, figure, table: Table::of(&DIFFERENCES, &rows)? }))
}

const PANEL: [(&str, Kind); 5] = [
    ("image", Kind::Whole),
    ("class", Kind::Text),
    ("shown", Kind::Text),
    ("budget", Kind::Real),
    ("correlation", Kind::Real),
];

/// Pictures in a line of panels, at most.
const COLUMNS: usize = 8;

/// Images in rows: as they are, as they were shown, and what each network made of them under each budget.
fn panels(folder: &Read<'_>, all: &[Value], layer: &str, allowed: &str) -> Result<Plot, ReportError> {
    let (models, images, budgets) = (each(all, "model"), each(all, "image"), each(all, "budget"));
    let seed = all.first().map_or(Value::Null, |row| row["seed"].clone());
    let disturbed = all.first().is_some_and(|row| !row["disturbance"].is_null());
    let images: Vec<&Value> = images.iter().take(SHOWN).collect();
    let of_image = |image: &Value| all.iter().find(|row| row["image"] == *image).unwrap_or(&Value::Null);
    let mut sheet = Sheet { folder, rows: Vec::new() };
    let mut lines = Vec::new();
    for budgets in budgets.chunks((COLUMNS / models.len().max(1)).max(1)) {
        let mut columns = vec!["image".to_owned()];
        columns.extend(disturbed.then(|| "shown".to_owned()));
        let mut cells = Vec::new();
        for image in &images {
            let number = text(image);
            let mut line =
                vec![sheet.cell(of_image(image), "image", 1.0, &format!("pictures/image-{number}.png"))?];
            if disturbed {
                let name = format!("pictures/image-{number}-shown.png");
                line.push(sheet.cell(of_image(image), "shown", f64::NAN, &name)?);
            }
            cells.push(line);
        }
        let name = |image: &&Value| {
            let class = text(&of_image(image)["class"]);
            if class.is_empty() { text(image) } else { class }
        };
        let mut line = vec![grid(String::new(), images.iter().map(name).collect(), columns, cells)];
        for budget in budgets {
            let mut cells = Vec::new();
            for image in &images {
                let is =
                    |row: &&Value| row["image"] == **image && row["budget"] == *budget && row["seed"] == seed;
                let found = models
                    .iter()
                    .filter_map(|model| all.iter().filter(is).find(|row| row["model"] == *model));
                let cell = |row: &Value| {
                    let value = row["correlation"].as_f64().unwrap_or(f64::NAN);
                    sheet.cell(row, &text(&row["model"]), value, &text(&row["picture"]))
                };
                cells.push(found.map(cell).collect::<Result<Vec<_>, _>>()?);
            }
            line.push(grid(
                if budget == 0.0 { "any norm".to_owned() } else { format!("norm {}", short(budget)) },
                Vec::new(),
                models.iter().map(text).collect(),
                cells,
            ));
        }
        lines.push(line);
    }
    let words = format!(
        "Reconstructions from {layer}: the image as it is{}, and the images {allowed} that networks cannot tell from {} \
         there{}. Drawn at the contrast that fits the image best; below, the correlation with the image as it is.",
        if disturbed { ", as it was shown" } else { "" },
        if disturbed { "the one shown" } else { "it" },
        if each(all, "seed").len() > 1 { ", of the first seed" } else { "" },
    );
    let figure = Figure { title: "Reconstructions".into(), description: words.clone(), rows: lines };
    Ok(Plot { name: "reconstructions".into(), text: words, figure, table: Table::of(&PANEL, &sheet.rows)? })
}

/// Pictures with the rows that say what they are.
struct Sheet<'a> {
    folder: &'a Read<'a>,
    rows: Vec<Value>,
}

impl Sheet<'_> {
    fn cell(
        &mut self,
        of: &Value,
        shown: &str,
        value: f64,
        name: &str,
    ) -> Result<Option<Picture>, ReportError> {
        let budget = if of["model"] == shown { &of["budget"] } else { &Value::Null };
        self.rows.push(json!({
            "image": of["image"], "class": of["class"], "shown": shown, "budget": budget,
            "correlation": value.is_finite().then_some(value),
        }));
        Ok(Some(self.folder.picture(name, value)?))
    }
}

const BUDGETS: [(&str, Kind); 7] = [
    ("metric", Kind::Text),
    ("model", Kind::Text),
    ("budget", Kind::Real),
    ("images", Kind::Whole),
    ("mean", Kind::Real),
    ("low", Kind::Real),
    ("high", Kind::Real),
];

/// Means over images against budgets, a chart a metric; none if no row has any of the metrics.
fn over_budgets(
    all: &[Value],
    name: &str,
    title: &str,
    words: &str,
    metrics: &[(&str, &str)],
) -> Result<Option<Plot>, ReportError> {
    let (mut rows, mut charts) = (Vec::new(), Vec::new());
    for (metric, label) in metrics {
        let mut series = Vec::new();
        for (style, model) in each(all, "model").iter().enumerate() {
            let mut points = Vec::new();
            for budget in each(all, "budget") {
                let mut by_image: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
                let of = |row: &&Value| row["model"] == *model && row["budget"] == budget;
                for row in all.iter().filter(of) {
                    if let (Some(image), Some(value)) = (row["image"].as_u64(), row[*metric].as_f64()) {
                        by_image.entry(image).or_default().push(value);
                    }
                }
                let values: Vec<f64> = by_image.values().map(|values| mean(values)).collect();
                let (Some(x), false) = (budget.as_f64(), values.is_empty()) else { continue };
                let y = mean(&values);
                let ends = (values.len() >= FEWEST).then(|| interval(&values, 0).bounds);
                points.push(Point { x, y, spread: ends });
                rows.push(json!({
                    "metric": metric, "model": model, "budget": budget, "images": values.len(), "mean": y,
                    "low": ends.map(|ends| ends[0]), "high": ends.map(|ends| ends[1]),
                }));
            }
            if !points.is_empty() {
                series.push(Series::new(text(model), style, points));
            }
        }
        if !series.is_empty() {
            let x = Axis { label: "norm".into(), ..Axis::default() };
            let y = Axis { label: (*label).to_owned(), ..Axis::default() };
            charts.push(Panel::Chart(Chart { title: String::new(), x, y, series, size: HALF }));
        }
    }
    if charts.is_empty() {
        return Ok(None);
    }
    let mut lines = Vec::new();
    while !charts.is_empty() {
        lines.push(charts.drain(..charts.len().min(2)).collect());
    }
    let figure = Figure { title: title.into(), description: words.into(), rows: lines };
    Ok(Some(Plot { name: name.into(), text: words.into(), figure, table: Table::of(&BUDGETS, &rows)? }))
}

const TRAJECTORY: [(&str, Kind); 4] =
    [("model", Kind::Text), ("budget", Kind::Real), ("step", Kind::Whole), ("objective", Kind::Real)];
/// Points of a line; all are in the folder.
const POINTS: usize = 50;

/// Means over images and seeds against steps, a chart a network, a line a budget. What belongs to images that do not
/// satisfy their constraint yet, those of step 0, is left out.
fn trajectories(folder: &Read<'_>) -> Result<Plot, ReportError> {
    let all = folder.rows("trajectory.jsonl")?;
    let (mut rows, mut charts) = (Vec::new(), Vec::new());
    for model in each(&all, "model") {
        let mut series = Vec::new();
        for (style, budget) in each(&all, "budget").iter().enumerate() {
            let mut by_step: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
            for row in all.iter().filter(|row| row["model"] == model && row["budget"] == *budget) {
                if let (Some(step @ 1..), Some(value)) = (row["step"].as_u64(), row["objective"].as_f64()) {
                    by_step.entry(step).or_default().push(value);
                }
            }
            let every = by_step.len().div_ceil(POINTS).max(1);
            let mut points = Vec::new();
            for (step, values) in by_step.iter().step_by(every) {
                points.push(Point { x: *step as f64, y: mean(values), spread: None });
                rows.push(json!({"model": model, "budget": budget, "step": step, "objective": mean(values)}));
            }
            if !points.is_empty() {
                series.push(Series::new(format!("norm {}", short(budget)), style, points));
            }
        }
        let x = Axis { label: "step".into(), whole: true, ..Axis::default() };
        let y = Axis { label: "objective".into(), ..Axis::default() };
        charts.push(vec![Panel::Chart(Chart { title: text(&model), x, y, series, size: [520.0, 180.0] })]);
    }
    let words = "Minus the mean squared difference of the layer's activity from what was to be matched, against steps: \
                 means over images and seeds.";
    let figure = Figure { title: "Searches".into(), description: words.into(), rows: charts };
    Ok(Plot { name: "searches".into(), text: words.into(), figure, table: Table::of(&TRAJECTORY, &rows)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Format;
    use std::fs;

    /// Rows of a figure's numbers.
    fn numbers(plot: &Plot) -> Vec<Value> {
        let bytes = plot.table.bytes(Format::JsonLines).unwrap();
        let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| serde_json::from_slice(line).unwrap()).collect()
    }

    /// Spreads of all points that are drawn.
    fn spreads(plot: &Plot) -> Vec<Option<[f64; 2]>> {
        let mut found = Vec::new();
        for panel in plot.figure.rows.iter().flatten() {
            let Panel::Chart(chart) = panel else { panic!("a chart") };
            found.extend(chart.series.iter().flat_map(|series| &series.points).map(|point| point.spread));
        }
        found
    }

    #[test]
    fn five_images_have_no_interval_and_six_have_one() {
        let rows = |images: usize| -> Vec<Value> {
            let row = |i| json!({"model": "m", "budget": 10.0, "image": i, "ssim": 0.1 * i as f64});
            (0..images).map(row).collect()
        };
        for (images, drawn) in [(1, false), (2, false), (5, false), (6, true)] {
            let plot = over_budgets(&rows(images), "n", "t", "w", &[("ssim", "SSIM")]).unwrap().unwrap();
            let row = &numbers(&plot)[0];
            assert_eq!((row["low"].is_null(), row["high"].is_null()), (!drawn, !drawn), "{row}");
            assert!((row["mean"].as_f64().unwrap() - 0.05 * (images as f64 - 1.0)).abs() < 1e-12, "{row}");
            assert_eq!(spreads(&plot).iter().map(Option::is_some).collect::<Vec<_>>(), [drawn]);
        }
    }

    #[test]
    fn differences_of_few_images_have_no_bars() {
        let dir = tempfile::tempdir().unwrap();
        let row = |metric: &str, images: u32| {
            json!({
                "metric": metric, "model": "b", "baseline": "a", "images": images, "difference": 0.5, "low": 0.25,
                "high": 0.75, "wilcoxon_p": 0.5,
            })
        };
        let lines = [row("ssim", 2), row("correlation", 6)].map(|row| row.to_string()).join("\n");
        fs::write(dir.path().join("comparison.jsonl"), lines).unwrap();
        let plot = comparison(&Read { root: dir.path() }).unwrap().unwrap();
        assert_eq!(spreads(&plot), [None, Some([0.25, 0.75])]);
        let rows = numbers(&plot);
        assert!(rows[0]["low"].is_null() && rows[0]["difference"] == 0.5, "{}", rows[0]);
        assert_eq!((&rows[1]["low"], &rows[1]["high"]), (&json!(0.25), &json!(0.75)));
    }

    #[test]
    fn steps_of_searches_are_whole() {
        let dir = tempfile::tempdir().unwrap();
        let row = |step: u32| json!({"model": "m", "budget": 10.0, "step": step, "objective": -1.0});
        let lines = [1, 2, 3].map(|step| row(step).to_string()).join("\n");
        fs::write(dir.path().join("trajectory.jsonl"), lines).unwrap();
        let plot = trajectories(&Read { root: dir.path() }).unwrap();
        let svg = plot.figure.svg();
        assert!(svg.contains(">2</text>") && !svg.contains(">1.5</text>"), "{svg}");
    }
}
