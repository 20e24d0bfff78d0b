//! Figures of representational similarity.

use super::{Read, each, text};
use crate::figure::{Axis, Chart, Figure, HeatMap, Panel, Pictures, Point, Scale, Series};
use crate::report::{Plot, ReportError};
use crate::table::{Kind, Table};
use serde_json::{Value, json};

const PAIRS: [(&str, Kind); 6] = [
    ("measure", Kind::Text),
    ("a", Kind::Text),
    ("b", Kind::Text),
    ("value", Kind::Real),
    ("low", Kind::Real),
    ("high", Kind::Real),
];
const MATRICES: [(&str, Kind); 4] = [
    ("representation", Kind::Text),
    ("images", Kind::Whole),
    ("mean_dissimilarity", Kind::Real),
    ("reliability", Kind::Real),
];

/// Both measures of similarity as matrices, and the dissimilarities of all pairs of images as pictures.
pub(super) fn similarity(folder: &Read<'_>, about: &Value, all: &[Value]) -> Result<Vec<Plot>, ReportError> {
    let names: Vec<String> = about["representations"].as_array().into_iter().flatten().map(text).collect();
    let comparison = text(&about["settings"]["comparison"]);
    let (mut rows, mut panels) = (Vec::new(), Vec::new());
    for (key, title) in [("rsa", format!("RSA ({comparison})")), ("cka", "linear CKA".to_owned())] {
        let of = pairs_of(all, key, &names);
        let values: Vec<Vec<f64>> = of.iter().map(|line| line.iter().map(|cell| cell.0).collect()).collect();
        for (a, line) in names.iter().zip(&of) {
            let cells = names.iter().zip(line).filter(|(_, cell)| cell.0.is_finite());
            rows.extend(cells.map(|(b, (value, [low, high]))| {
                json!({"measure": key, "a": a, "b": b, "value": value, "low": low, "high": high})
            }));
        }
        panels.push(vec![Panel::HeatMap(HeatMap {
            title,
            row_names: names.clone(),
            column_names: names.clone(),
            column_label: String::new(),
            values,
            row_gaps: Vec::new(),
            column_gaps: Vec::new(),
            scale: Scale { label: "similarity".into(), range: [0.0, 1.0] },
            cell: [34.0, 20.0],
            decimals: 2,
            ground: None,
        })]);
    }
    let words = format!(
        "How alike representations are: {comparison} comparison of the dissimilarities of all pairs of images ({}), and \
         linear centred kernel alignment.",
        text(&about["settings"]["dissimilarity"])
    );
    let figure =
        Figure { title: "Representational similarity".into(), description: words.clone(), rows: panels };
    let mut plots =
        vec![Plot { name: "similarity".into(), text: words, figure, table: Table::of(&PAIRS, &rows)? }];
    plots.extend(recorded(folder, about, all, &names)?);
    plots.push(matrices(folder, &names)?);
    plots.extend(stability(folder, about)?);
    Ok(plots)
}

const STABILITY: [(&str, Kind); 5] = [
    ("panel", Kind::Text),
    ("model", Kind::Text),
    ("layer", Kind::Text),
    ("noise", Kind::Real),
    ("cka", Kind::Real),
];

/// How alike layers are with noise and without: means over all strengths for every layer and network, and each strength
/// by itself. None where no noise was asked for.
fn stability(folder: &Read<'_>, about: &Value) -> Result<Option<Plot>, ReportError> {
    let asked = about["settings"]["noise"].as_array().into_iter().flatten().filter_map(Value::as_f64);
    let noise: Vec<f64> = std::iter::once(0.0).chain(asked).collect();
    if noise.len() == 1 {
        return Ok(None);
    }
    let all = folder.rows("stability.jsonl")?;
    let clean: Vec<&Value> = all.iter().filter(|row| row["a"] == 0.0).collect();
    let layers: Vec<String> =
        about["settings"]["layers"].as_array().into_iter().flatten().map(text).collect();
    let (mut rows, mut series, mut maps) = (Vec::new(), Vec::new(), Vec::new());
    for (style, model) in each(&all, "model").iter().enumerate() {
        let value = |layer: &String, std: &f64| {
            let of = clean
                .iter()
                .find(|row| row["model"] == *model && row["layer"] == **layer && row["b"] == *std);
            of.and_then(|row| row["cka"].as_f64()).unwrap_or(f64::NAN)
        };
        let values: Vec<Vec<f64>> =
            layers.iter().map(|layer| noise.iter().map(|std| value(layer, std)).collect()).collect();
        let mut points = Vec::new();
        for (at, (layer, line)) in layers.iter().zip(&values).enumerate() {
            let y = line.iter().sum::<f64>() / line.len() as f64;
            rows.push(json!({"panel": "layers", "model": model, "layer": layer, "cka": y}));
            points.push(Point { x: at as f64, y, spread: None });
        }
        for (layer, line) in layers.iter().zip(&values) {
            rows.extend(noise.iter().zip(line).map(|(std, cka)| {
                json!({"panel": "strengths", "model": model, "layer": layer, "noise": std, "cka": cka})
            }));
        }
        series.push(Series::new(text(model), style, points));
        let names = if style % BESIDE == 0 { &layers[..] } else { &[] };
        maps.push(strengths(text(model), names, &noise, values));
    }
    let x = Axis { names: layer_names(&layers), ..Axis::default() };
    let y = Axis { label: "mean CKA".to_owned(), ..Axis::default() };
    let lines = Chart { title: "mean over strengths".into(), x, y, series, size: [620.0, 150.0] };
    let mut panels = vec![vec![Panel::Chart(lines)]];
    while !maps.is_empty() {
        panels.push(maps.drain(..BESIDE.min(maps.len())).collect());
    }
    let words = "How alike layers represent images with noise and without: linear centred kernel alignment between the clean \
                 images (standard deviation 0) and noisy ones, means over draws of the noise; above, the mean over all \
                 strengths, the clean images among them.";
    let figure = Figure { title: "Stability under noise".into(), description: words.into(), rows: panels };
    let table = Table::of(&STABILITY, &rows)?;
    Ok(Some(Plot { name: "stability".into(), text: words.into(), figure, table }))
}

/// Networks beside each other.
const BESIDE: usize = 2;

/// Layers by strengths of noise, of one network.
fn strengths(title: String, row_names: &[String], noise: &[f64], values: Vec<Vec<f64>>) -> Panel {
    Panel::HeatMap(HeatMap {
        title,
        row_names: row_names.to_vec(),
        column_names: noise.iter().map(f64::to_string).collect(),
        column_label: "standard deviation of the noise".into(),
        values,
        row_gaps: Vec::new(),
        column_gaps: vec![1],
        scale: Scale { label: "linear CKA with clean images".into(), range: [0.0, 1.0] },
        cell: [30.0, 16.0],
        decimals: 2,
        ground: None,
    })
}

/// Places of layers at an axis; some of many.
fn layer_names(layers: &[String]) -> Vec<(f64, String)> {
    let every = layers.len().div_ceil(14).max(1);
    layers.iter().enumerate().step_by(every).map(|(at, layer)| (at as f64, layer.clone())).collect()
}

/// A measure of each pair of representations with the ends of its interval; 1 of each with itself.
fn pairs_of(all: &[Value], key: &str, names: &[String]) -> Vec<Vec<(f64, [Option<f64>; 2])>> {
    let mut values = vec![vec![(f64::NAN, [None; 2]); names.len()]; names.len()];
    (0..names.len()).for_each(|i| values[i][i].0 = 1.0);
    let ends = ["low", "high"].map(|end| format!("{key}_{end}"));
    for row in all {
        let place = |side: &str| names.iter().position(|name| *name == text(&row[side]));
        if let (Some(a), Some(b), Some(value)) = (place("a"), place("b"), row[key].as_f64()) {
            let cell = (value, [0, 1].map(|end: usize| row[&ends[end]].as_f64()));
            (values[a][b], values[b][a]) = (cell, cell);
        }
    }
    values
}

const RECORDED: [(&str, Kind); 6] = [
    ("measure", Kind::Text),
    ("model", Kind::Text),
    ("layer", Kind::Text),
    ("value", Kind::Real),
    ("low", Kind::Real),
    ("high", Kind::Real),
];

/// How alike each layer of each network and what was recorded are; none if nothing was.
fn recorded(
    folder: &Read<'_>,
    about: &Value,
    all: &[Value],
    names: &[String],
) -> Result<Option<Plot>, ReportError> {
    let Some(last) = names.iter().position(|name| name == "recorded") else { return Ok(None) };
    let models: Vec<String> =
        about["models"].as_array().into_iter().flatten().map(|model| text(&model["name"])).collect();
    let layers: Vec<String> =
        about["settings"]["layers"].as_array().into_iter().flatten().map(text).collect();
    let listed = folder.rows("rdms.jsonl")?;
    let reliability = listed.iter().find(|row| row["representation"] == "recorded");
    let ceiling = reliability.and_then(|row| row["reliability"].as_f64()).filter(|r| *r > 0.0).map(f64::sqrt);
    let named = layer_names(&layers);
    let (mut rows, mut lines) = (Vec::new(), Vec::new());
    for (key, label) in [("rsa", "RSA"), ("cka", "linear CKA")] {
        let of = pairs_of(all, key, names);
        let mut series = Vec::new();
        for (style, model) in models.iter().enumerate() {
            let mut points = Vec::new();
            for (at, layer) in layers.iter().enumerate() {
                let name = if models.len() == 1 { layer.clone() } else { format!("{model} {layer}") };
                let Some(row) = names.iter().position(|other| *other == name) else { continue };
                let (y, [low, high]) = of[row][last];
                points.push(Point { x: at as f64, y, spread: low.zip(high).map(|(low, high)| [low, high]) });
                rows.push(json!({
                    "measure": key, "model": model, "layer": layer, "value": y.is_finite().then_some(y), "low": low,
                    "high": high,
                }));
            }
            series.push(Series::new(model, style, points));
        }
        if let (Some(ceiling), "rsa") = (ceiling, key) {
            let name = "root of the reliability";
            let mut points = Vec::new();
            for at in [0, layers.len().saturating_sub(1)] {
                points.push(Point { x: at as f64, y: ceiling, spread: None });
                rows.push(json!({"measure": key, "model": name, "layer": layers.get(at), "value": ceiling}));
            }
            series.push(Series::new(name, models.len(), points));
        }
        let x = Axis { names: named.clone(), ..Axis::default() };
        let y = Axis { label: label.to_owned(), ..Axis::default() };
        lines.push(vec![Panel::Chart(Chart { title: String::new(), x, y, series, size: [620.0, 150.0] })]);
    }
    let words = "How alike layers and recorded responses represent images, with 95 % intervals over images. No network can be \
                 expected beyond the root of the responses' reliability, where they were repeated.";
    let title = "Layers and recorded responses";
    let figure = Figure { title: title.into(), description: words.into(), rows: lines };
    Ok(Some(Plot {
        name: "recorded".into(),
        text: words.into(),
        figure,
        table: Table::of(&RECORDED, &rows)?,
    }))
}

fn matrices(folder: &Read<'_>, names: &[String]) -> Result<Plot, ReportError> {
    let (mut rows, mut lines) = (Vec::new(), Vec::new());
    let listed = folder.rows("rdms.jsonl")?;
    for chunk in listed.chunks(4) {
        let mut line = Vec::new();
        for of in chunk {
            let value = of["mean_dissimilarity"].as_f64().unwrap_or(f64::NAN);
            rows.push(json!({
                "representation": of["representation"], "images": of["images"], "mean_dissimilarity": value,
                "reliability": of["reliability"],
            }));
            line.push(Some(folder.picture(&text(&of["picture"]), value)?));
        }
        let column_names = chunk.iter().map(|of| text(&of["representation"])).collect();
        lines.push(vec![Panel::Pictures(Pictures {
            title: String::new(),
            row_names: Vec::new(),
            column_names,
            cells: vec![line],
            size: [150.0; 2],
            decimals: 2,
        })]);
    }
    let words = format!(
        "Dissimilarities of all pairs of images in {} representations, in the order of their classes (of stimuli, as they are stored), from the least (dark) to \
         the largest (light) of each; below, their mean.",
        names.len()
    );
    let figure = Figure { title: "Dissimilarities".into(), description: words.clone(), rows: lines };
    Ok(Plot { name: "dissimilarities".into(), text: words, figure, table: Table::of(&MATRICES, &rows)? })
}
