//! Figures of analyses, from the folders that they wrote.

mod exciting;
mod reconstruction;
mod similarity;

use super::{Plot, ReportError};
use crate::figure::{Panel, Picture, Pictures};
use exciting::exciting;
use reconstruction::reconstruction;
use serde_json::Value;
use similarity::similarity;
use std::fs;
use std::path::Path;

/// The figures of the analysis in `root`.
///
/// # Errors
/// A folder that holds none that is done, or one of an unknown kind; damaged files.
pub fn analysis_plots(root: &Path) -> Result<Vec<Plot>, ReportError> {
    let lines = Read { root }.bytes(METRICS)?;
    analysis_plots_of(root, &lines)
}

/// The figures of the analysis in `root`, whose metrics, as JSON lines, are not written yet.
///
/// # Errors
/// Likewise.
pub fn analysis_plots_of(root: &Path, metrics: &[u8]) -> Result<Vec<Plot>, ReportError> {
    let folder = Read { root };
    let about = folder.json("analysis.json")?;
    let rows = folder.parsed(METRICS, metrics)?;
    match about["kind"].as_str() {
        Some("reconstruction") => reconstruction(&folder, &about, &rows),
        Some("mei") => exciting(&folder, &about, &rows),
        Some("rsa") => similarity(&folder, &about, &rows),
        kind => {
            let what =
                format!("is an analysis of kind {:?}, which this version does not know", kind.unwrap_or(""));
            Err(folder.wrong("analysis.json", &what))
        }
    }
}

const METRICS: &str = "metrics.jsonl";

struct Read<'a> {
    root: &'a Path,
}

impl Read<'_> {
    fn wrong(&self, name: &str, what: &dyn ToString) -> ReportError {
        ReportError::File { path: self.root.join(name).display().to_string(), what: what.to_string() }
    }

    fn bytes(&self, name: &str) -> Result<Vec<u8>, ReportError> {
        fs::read(self.root.join(name)).map_err(|e| self.wrong(name, &e))
    }

    fn json(&self, name: &str) -> Result<Value, ReportError> {
        serde_json::from_slice(&self.bytes(name)?).map_err(|e| self.wrong(name, &e))
    }

    fn rows(&self, name: &str) -> Result<Vec<Value>, ReportError> {
        self.parsed(name, &self.bytes(name)?)
    }

    fn parsed(&self, name: &str, lines: &[u8]) -> Result<Vec<Value>, ReportError> {
        let lines = lines.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| serde_json::from_slice(line).map_err(|e| self.wrong(name, &e))).collect()
    }

    /// A picture of 8 bits a sample, gray or RGB, as analyses write them.
    fn picture(&self, name: &str, value: f64) -> Result<Picture, ReportError> {
        let bytes = self.bytes(name)?;
        let mut reader =
            png::Decoder::new(std::io::Cursor::new(bytes)).read_info().map_err(|e| self.wrong(name, &e))?;
        let size = reader.output_buffer_size().ok_or_else(|| self.wrong(name, &"is too large"))?;
        let mut pixels = vec![0; size];
        let info = reader.next_frame(&mut pixels).map_err(|e| self.wrong(name, &e))?;
        pixels.truncate(info.buffer_size());
        Ok(Picture { extent: [info.width, info.height], pixels, value })
    }
}

/// Values of a key in the order in which they come, each once.
fn each(rows: &[Value], key: &str) -> Vec<Value> {
    let mut found: Vec<Value> = Vec::new();
    for row in rows {
        if !row[key].is_null() && !found.contains(&row[key]) {
            found.push(row[key].clone());
        }
    }
    found
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A number without needless digits.
fn short(value: &Value) -> String {
    value.as_f64().map_or_else(|| text(value), |v| format!("{v}"))
}

/// Side of a picture in a figure.
const SIDE: f64 = 84.0;
/// Images, budgets and neurons that are shown; all are in the folder.
const SHOWN: usize = 8;

fn grid(
    title: String,
    row_names: Vec<String>,
    column_names: Vec<String>,
    cells: Vec<Vec<Option<Picture>>>,
) -> Panel {
    Panel::Pictures(Pictures { title, row_names, column_names, cells, size: [SIDE; 2], decimals: 2 })
}
