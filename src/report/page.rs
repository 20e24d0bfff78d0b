//! The page: one HTML file with everything in it, which loads nothing.

use super::{Group, Plot, Subject};
use crate::figure::escape;
use crate::table::Table;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt::Write;

/// An image and what a network took it for.
#[derive(Debug, Clone)]
pub struct Picture {
    /// PNG.
    pub png: Vec<u8>,
    /// The class it is of.
    pub class: String,
    /// The class it was taken for.
    pub predicted: String,
    /// Probability of the right class.
    pub probability: f64,
}

/// What a page shows.
#[derive(Debug, Clone)]
pub struct Page<'a> {
    /// Its title.
    pub title: String,
    /// The runs.
    pub groups: &'a [Group],
    /// A row for each group, after its name: header, and cells.
    pub scores: (Vec<String>, Vec<Vec<String>>),
    /// Figures, in their order.
    pub plots: &'a [Plot],
    /// Images, of the run of this name.
    pub pictures: (String, Vec<Picture>),
    /// What is not there, and how to get it.
    pub notes: Vec<String>,
}

const STYLE: &str = include_str!("style.css");
/// Rows of numbers on the page; `nct plot` has all.
const ROWS: usize = 400;

impl Page<'_> {
    /// The page as HTML.
    pub fn html(&self) -> String {
        let title = escape(&self.title);
        let sections = self.sections();
        let links = sections.iter().map(|(id, name, _)| format!("<li><a href=\"#{id}\">{name}</a></li>\n"));
        let links: String = links.collect();
        let body = sections.iter().map(|(id, name, content)| {
            format!("<section id=\"{id}\" aria-labelledby=\"{id}-title\">\n<h2 id=\"{id}-title\">{name}</h2>\n{content}</section>\n")
        });
        let body: String = body.collect();
        format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"generator\" content=\"nct {}\">\n<title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
             <a class=\"skip\" href=\"#main\">Skip to the results</a>\n<header>\n<h1>{title}</h1>\n\
             <nav aria-label=\"Sections\"><ul>\n{links}</ul></nav>\n</header>\n<main id=\"main\">\n{body}</main>\n</body>\n</html>\n",
            env!("CARGO_PKG_VERSION")
        )
    }

    /// Id, name and content.
    fn sections(&self) -> Vec<(String, String, String)> {
        let mut all = vec![("results".to_owned(), "Results".to_owned(), self.results())];
        for plot in self.plots {
            all.push((plot.name.clone(), escape(&plot.figure.title), figure(plot)));
        }
        if !self.pictures.1.is_empty() {
            all.push(("images".to_owned(), "Images and predictions".to_owned(), self.images()));
        }
        all.push(("settings".to_owned(), "Settings that differ".to_owned(), self.settings()));
        all.push(("environment".to_owned(), "Runs and environment".to_owned(), self.environment()));
        all
    }

    fn results(&self) -> String {
        let (header, rows) = &self.scores;
        let header: Vec<&str> = std::iter::once("group").chain(header.iter().map(String::as_str)).collect();
        let row = |(group, cells): (&Group, &Vec<String>)| {
            std::iter::once(group.name.clone()).chain(cells.iter().cloned()).collect()
        };
        let rows: Vec<Vec<String>> = self.groups.iter().zip(rows).map(row).collect();
        let mut text = "<p>Means over the runs of a group, which differ in nothing but the seed, and standard deviations. \
                        Scores are of the run's result on the test data: its best weights, or with schedule.restore_best = false its last.</p>\n"
            .to_owned();
        text += &table(&header, &rows, "Results");
        for note in &self.notes {
            let _ = writeln!(text, "<p class=\"note\">{}</p>", escape(note));
        }
        text
    }

    fn images(&self) -> String {
        let (run, pictures) = &self.pictures;
        let mut text =
            format!("<p>Test images, and what {} took them for.</p>\n<ul class=\"images\">\n", escape(run));
        for Picture { png, class, predicted, probability } in pictures {
            let right = class == predicted;
            let (kind, sign) = if right { ("right", "✓") } else { ("wrong", "✗") };
            let (class, predicted) = (escape(class), escape(predicted));
            let told =
                if right { class.clone() } else { format!("{predicted} <span>instead of {class}</span>") };
            let _ = writeln!(
                text,
                "<li class=\"{kind}\"><img alt=\"{class}\" src=\"data:image/png;base64,{}\">\
                 <p><b aria-label=\"{kind}\">{sign}</b> {told}<br><span>{:.0} %</span></p></li>",
                STANDARD.encode(png),
                100.0 * probability,
            );
        }
        text + "</ul>\n<p>Percent: the probability of the right class.</p>\n"
    }

    fn settings(&self) -> String {
        let keys: BTreeSet<&String> =
            self.groups.iter().flat_map(|group| group.runs[0].settings.keys()).collect();
        let of = |key: &String| -> Vec<String> {
            let value =
                |group: &Group| group.runs[0].settings.get(key).cloned().unwrap_or_else(|| "–".to_owned());
            self.groups.iter().map(value).collect()
        };
        let differs = |key: &&&String| {
            let values = of(key);
            **key != "seed" && values.iter().any(|value| *value != values[0])
        };
        let rows =
            keys.iter().filter(differs).map(|key| std::iter::once((*key).clone()).chain(of(key)).collect());
        let rows: Vec<Vec<String>> = rows.collect();
        if rows.is_empty() {
            return "<p>The runs do not differ in their settings, but for seeds.</p>\n".to_owned();
        }
        let names = self.groups.iter().map(|group| group.name.as_str());
        let header: Vec<&str> = std::iter::once("setting").chain(names).collect();
        table(&header, &rows, "Settings that differ")
    }

    fn environment(&self) -> String {
        let header = [
            "run",
            "group",
            "state",
            "seed",
            "best epoch",
            "nct",
            "libtorch",
            "host",
            "device",
            "CPU",
            "threads",
            "data sets",
        ];
        let mut rows = Vec::new();
        for group in self.groups {
            rows.extend(group.runs.iter().map(|run| of_run(group, run)));
        }
        table(&header, &rows, "Runs and environment")
    }
}

fn of_run(group: &Group, run: &Subject) -> Vec<String> {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        value => value.to_string(),
    };
    let best = run.metrics.last().map_or(&Value::Null, |line| &line["best_epoch"]);
    let datasets = run.manifest["datasets"].as_object().into_iter().flatten();
    let digest = |(name, of): (&String, &Value)| {
        format!("{name} {}", of["blake3"].as_str().unwrap_or_default().chars().take(8).collect::<String>())
    };
    let datasets: Vec<String> = datasets.map(digest).collect();
    let manifest = |key: &str| text(&run.manifest[key]);
    vec![
        run.folder.clone(),
        group.name.clone(),
        run.state.as_str().to_owned(),
        run.settings.get("seed").cloned().unwrap_or_default(),
        text(best),
        manifest("nct"),
        manifest("libtorch"),
        manifest("host"),
        manifest("device"),
        manifest("cpu"),
        manifest("torch_threads"),
        datasets.join(", "),
    ]
}

/// A figure in a box of its own, which can be scrolled by keyboard, and its numbers.
fn figure(plot: &Plot) -> String {
    let name = escape(&plot.figure.title);
    format!(
        "<p>{}</p>\n<div class=\"wide\" tabindex=\"0\" role=\"group\" aria-label=\"{name}\">\n{}</div>\n\
         <details><summary>Numbers</summary>\n{}</details>\n",
        escape(&plot.text),
        plot.figure.svg(),
        numbers(&plot.table, &name),
    )
}

fn numbers(of: &Table, name: &str) -> String {
    let header: Vec<&str> = of.columns().collect();
    let cell = |value: &Value| match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Number(n) if n.is_f64() => format!("{:.4}", n.as_f64().unwrap_or(f64::NAN)),
        value => value.to_string(),
    };
    let rows: Vec<Vec<String>> = of.rows().take(ROWS).map(|row| row.iter().map(cell).collect()).collect();
    let left = of.rows().count().saturating_sub(ROWS);
    let more = if left > 0 {
        format!("<p>{left} more rows: <code>nct plot</code> writes all.</p>\n")
    } else {
        String::new()
    };
    table(&header, &rows, name) + &more
}

fn table(header: &[&str], rows: &[Vec<String>], name: &str) -> String {
    let cells = |cells: &mut dyn Iterator<Item = &str>, tag: &str| -> String {
        cells.map(|cell| format!("<{tag}>{}</{}>", escape(cell), &tag[..2])).collect()
    };
    let mut text = format!(
        "<div class=\"wide\" tabindex=\"0\" role=\"group\" aria-label=\"{name}\">\n<table>\n<thead><tr>{}</tr></thead>\n<tbody>\n",
        cells(&mut header.iter().copied(), "th scope=\"col\"")
    );
    for row in rows {
        let (first, others) = row.split_at(1);
        let first = cells(&mut first.iter().map(String::as_str), "th scope=\"row\"");
        let others = cells(&mut others.iter().map(String::as_str), "td");
        let _ = writeln!(text, "<tr>{first}{others}</tr>");
    }
    text + "</tbody>\n</table>\n</div>\n"
}
