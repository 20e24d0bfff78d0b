//! Figures of most and least exciting images.

use super::{Read, SHOWN, each, grid, text};
use crate::figure::{Axis, Chart, Figure, Panel, Point, Series};
use crate::report::{Plot, ReportError};
use crate::table::{Kind, Table};
use serde_json::{Value, json};

const NEURONS: [(&str, Kind); 5] = [
    ("panel", Kind::Text),
    ("model", Kind::Text),
    ("session", Kind::Text),
    ("neuron", Kind::Whole),
    ("response", Kind::Real),
];

/// A grid of most exciting images a model and session, and how much more they excite than images do.
pub(super) fn exciting(folder: &Read<'_>, about: &Value, all: &[Value]) -> Result<Vec<Plot>, ReportError> {
    let (most, largest) = if about["settings"]["search"]["inhibitory"] == true {
        ("least", "smallest")
    } else {
        ("most", "largest")
    };
    let seed = all.first().map_or(Value::Null, |row| row["seed"].clone());
    let (mut rows, mut grids, mut charts) = (Vec::new(), Vec::new(), Vec::new());
    for model in each(all, "model") {
        let of = |row: &&Value| row["model"] == model && row["seed"] == seed;
        let found: Vec<&Value> = all.iter().filter(of).collect();
        let mut push = |panel: &str, row: &Value, response: f64| {
            rows.push(json!({
                "panel": panel, "model": model, "session": row["session"], "neuron": row["neuron"], "response": response,
            }));
        };
        for (i, line) in found.chunks(SHOWN).take(SHOWN).enumerate() {
            let mut cells = Vec::new();
            for of in line {
                let response = of["response"].as_f64().unwrap_or(f64::NAN);
                push("picture", of, response);
                cells.push(Some(folder.picture(&text(&of["picture"]), response)?));
            }
            let names = line.iter().map(|of| format!("neuron {}", text(&of["neuron"]))).collect();
            let title = if i == 0 { text(&model) } else { String::new() };
            grids.push(vec![grid(title, Vec::new(), names, vec![cells])]);
        }
        let mut sorted = found.clone();
        sorted.sort_by(|a, b| {
            b["response"].as_f64().unwrap_or(0.0).total_cmp(&a["response"].as_f64().unwrap_or(0.0))
        });
        let mut line = |style: usize, name: &str, key: &str| {
            let mut points = Vec::new();
            for (rank, row) in sorted.iter().enumerate() {
                let y = row[key].as_f64().unwrap_or(f64::NAN);
                push(name, row, y);
                points.push(Point { x: rank as f64 + 1.0, y, spread: None });
            }
            Series::new(name, style, points)
        };
        let series = vec![
            line(0, &format!("{most} exciting image"), "response"),
            line(1, "best image of the data set", "best_response"),
            line(2, "mean over the data set", "mean_response"),
        ];
        let x = Axis { label: "neurons, by their response".into(), whole: true, ..Axis::default() };
        let y = Axis { label: "response".into(), ..Axis::default() };
        charts.push(vec![Panel::Chart(Chart { title: text(&model), x, y, series, size: [520.0, 180.0] })]);
    }
    let words = format!(
        "Images that excite single neurons {most} under a norm{}, with the predicted response below; and those responses \
         beside the {largest} and the mean ones to images of the data set.",
        if each(all, "seed").len() > 1 { ", of the first seed" } else { "" },
    );
    grids.extend(charts);
    let title = if most == "most" { "Most exciting images" } else { "Least exciting images" };
    let figure = Figure { title: title.into(), description: words.clone(), rows: grids };
    Ok(vec![Plot { name: "mei".into(), text: words, figure, table: Table::of(&NEURONS, &rows)? }])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figure::Picture;
    use std::fs;

    #[test]
    fn neurons_are_counted_in_whole_numbers() {
        let dir = tempfile::tempdir().unwrap();
        let picture = Picture { extent: [1, 1], pixels: vec![128], value: 30.0 };
        fs::write(dir.path().join("a.png"), picture.png(1).unwrap()).unwrap();
        let row = |neuron: u32| {
            json!({
                "model": "m", "session": "s", "neuron": neuron, "seed": 1, "picture": "a.png", "response": 30.0,
                "best_response": 20.0, "mean_response": 10.0,
            })
        };
        for neurons in 1..=2 {
            let rows: Vec<Value> = (0..neurons).map(row).collect();
            let plots = exciting(&Read { root: dir.path() }, &Value::Null, &rows).unwrap();
            let svg = plots[0].figure.svg();
            assert!(svg.contains(">1</text>"), "{svg}");
            for fraction in ["0.90", "1.00", "1.10", "1.2", "1.5"] {
                assert!(!svg.contains(&format!(">{fraction}</text>")), "{neurons} neurons: {fraction}");
            }
        }
    }
}
