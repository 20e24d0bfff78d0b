//! `nct inspect`: what shards hold.

use super::exit::Usage;
use super::show::{bytes, count, out, table};
use crate::base::{DType, Split};
use crate::load::{Budget, Column};
use crate::shard::{Dataset, ShardSet};
use serde_json::{Value, json};
use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

/// Arguments of `nct inspect`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folder of shards, or of one data set in it
    #[arg(default_value = "shards")]
    shards: PathBuf,
    /// One JSON object a line, per data set and split
    #[arg(long)]
    json: bool,
    /// Write a picture of the first images of every data set
    #[arg(long, value_name = "PNG")]
    contact_sheet: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let set = ShardSet::open(&args.shards)?;
    if let Some(path) = &args.contact_sheet {
        contact_sheet(&set, path)?;
    }
    let mut table = table(&[
        "data set",
        "split",
        "samples",
        "classes",
        "sessions",
        "neurons",
        "image",
        "bytes",
        "raw bytes",
    ]);
    for dataset in set.datasets() {
        for split in Split::ALL {
            let row = row(dataset, split)?;
            if args.json {
                out(&row.to_string())?;
            } else {
                let neurons: u64 = row["sessions"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(|s| s["neurons"].as_u64())
                    .sum();
                let number = |key: &str| row[key].as_u64().unwrap_or(0);
                table.add_row([
                    dataset.manifest().dataset.clone(),
                    split.to_string(),
                    count(number("samples")),
                    count(number("classes")),
                    count(row["sessions"].as_array().map_or(0, Vec::len) as u64),
                    count(neurons),
                    format!("{:?} {}", dataset.manifest().image, dataset.manifest().pixels),
                    bytes(number("bytes")),
                    bytes(number("raw_bytes")),
                ]);
            }
        }
    }
    if !args.json {
        out(&table.to_string())?;
    }
    Ok(())
}

/// The stable JSON keys of one data set and split. Bytes of stimuli, which all splits share, count in each.
fn row(dataset: &Dataset, split: Split) -> anyhow::Result<Value> {
    let manifest = dataset.manifest();
    let (mut stored, mut raw) = (0, 0);
    for info in manifest.shards.iter().filter(|s| s.split.is_none_or(|s| s == split)) {
        let shard = dataset.shard(info)?;
        stored += info.bytes;
        let fields = 0..shard.meta().schema.0.len();
        raw += fields.map(|field| shard.row_bytes(field) as u64 * shard.n_rows()).sum::<u64>();
    }
    let sessions: Vec<Value> = manifest
        .sessions
        .iter()
        .map(|s| json!({"id": s.id, "neurons": s.neurons, "samples": manifest.rows(split, Some(&s.id))}))
        .collect();
    let in_sessions: u64 = sessions.iter().filter_map(|s| s["samples"].as_u64()).sum();
    Ok(json!({
        "dataset": manifest.dataset,
        "split": split.as_str(),
        "samples": manifest.rows(split, None) + in_sessions,
        "classes": manifest.classes.len(),
        "sessions": sessions,
        "bytes": stored,
        "raw_bytes": raw,
        "image": manifest.image,
        "mean": manifest.mean,
        "std": manifest.std,
        "blake3": manifest.fingerprint().as_str(),
    }))
}

/// Images a row of the contact sheet.
const SHEET_COLUMNS: usize = 16;
/// Rows of each data set.
const SHEET_ROWS: usize = 4;

/// Draws the first images of every data set, evenly spaced through it.
fn contact_sheet(set: &ShardSet, path: &Path) -> anyhow::Result<()> {
    let drawn: Vec<&Dataset> = set.datasets().iter().filter(|d| d.manifest().pixels == DType::U8).collect();
    let Some(first) = drawn.first() else {
        return Err(Usage("no data set holds images of bytes, which a contact sheet shows".into()).into());
    };
    let [_, height, width] = first.manifest().image.map(|n| n as usize);
    if let Some(other) = drawn.iter().find(|d| d.manifest().image[1..] != first.manifest().image[1..]) {
        let name = &other.manifest().dataset;
        return Err(Usage(format!("{name}: images differ in size; name one data set's folder")).into());
    }
    let (sheet_width, sheet_height) = (SHEET_COLUMNS * width, drawn.len() * SHEET_ROWS * height);
    let mut sheet = vec![255u8; sheet_width * sheet_height * 3];
    for (band, dataset) in drawn.iter().enumerate() {
        let split = if dataset.manifest().classes.is_empty() { None } else { Some(Split::Train) };
        let shards = split.map_or_else(|| dataset.stimuli(), |split| dataset.images(split))?;
        let column = Column::open(shards, "image", &Budget::unlimited())?;
        let n = SHEET_COLUMNS * SHEET_ROWS;
        for cell in 0..n.min(column.n_rows() as usize) {
            let image = column.row(cell as u64 * column.n_rows() / n.min(column.n_rows() as usize) as u64)?;
            let (left, top) =
                (cell % SHEET_COLUMNS * width, (band * SHEET_ROWS + cell / SHEET_COLUMNS) * height);
            for i in 0..height * width {
                let at = ((top + i / width) * sheet_width + left + i % width) * 3;
                for c in 0..3 {
                    sheet[at + c] = image[(c * height * width + i) % image.len()];
                }
            }
        }
    }
    let file = BufWriter::new(File::create(path).map_err(|e| Usage(format!("{}: {e}", path.display())))?);
    let mut encoder = png::Encoder::new(file, sheet_width as u32, sheet_height as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header()?.write_image_data(&sheet)?;
    Ok(())
}
