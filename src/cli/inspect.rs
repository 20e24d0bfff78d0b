//! `nct inspect`: what shards hold.

mod sheet;

use super::show::{SplitArg, bytes, count, out, table};
use crate::base::Split;
use crate::shard::layout::Codec;
use crate::shard::{Content, Dataset, OpenShard, SessionMeta, ShardSet};
use serde_json::{Value, json};
use sheet::Choice;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Arguments of `nct inspect`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folder of shards, or of one data set in it, or the URL of either (nct help stores)
    #[arg(default_value = "shards")]
    shards: PathBuf,
    /// One JSON object a line, per data set and split
    #[arg(long)]
    json: bool,
    /// Also say how many images each class has
    #[arg(long)]
    classes: bool,
    /// Write a picture of images of every data set with their labels, as stored and as training shows them
    #[arg(long, value_name = "PNG")]
    contact_sheet: Option<PathBuf>,
    /// Draw the images with these ids, as a run's failure.json names them, in this order; of one data set
    #[arg(long, value_name = "ID,…", value_delimiter = ',', requires = "contact_sheet")]
    images: Vec<u32>,
    /// Draw images of this split; without it training images, and of a neural set all stimuli
    #[arg(long, value_enum, requires = "contact_sheet")]
    split: Option<SplitArg>,
}

/// What one split of a data set holds, gathered from its shards. Stimuli, which all splits share, count
/// in each.
#[derive(Default)]
struct Summary {
    stored: u64,
    raw: u64,
    fields: BTreeMap<String, FieldSummary>,
    sessions: Vec<SessionSummary>,
    /// Images of each class.
    classes: Vec<u64>,
}

#[derive(Default)]
struct FieldSummary {
    description: String,
    stored: u64,
    raw: u64,
    codecs: [usize; Codec::ALL.len()],
}

struct SessionSummary {
    meta: SessionMeta,
    trials: u64,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let set = ShardSet::open(&args.shards)?;
    if let Some(path) = &args.contact_sheet {
        let choice = Choice { ids: &args.images, split: args.split.map(SplitArg::split) };
        sheet::write(&set, path, &choice)?;
    }
    let mut found = Vec::new();
    for dataset in set.datasets() {
        for split in Split::ALL {
            found.push((dataset, split, Summary::of(dataset, split)?));
        }
    }
    if args.json {
        return found.iter().try_for_each(|(d, split, summary)| out(&row(d, *split, summary).to_string()));
    }
    out(&splits(&found))?;
    out(&fields(&found))?;
    if found.iter().any(|(_, _, summary)| !summary.sessions.is_empty()) {
        out(&sessions(&found))?;
    }
    if args.classes { out(&classes(&found)) } else { Ok(()) }
}

impl Summary {
    fn of(dataset: &Dataset, split: Split) -> anyhow::Result<Self> {
        let mut summary = Self { classes: vec![0; dataset.manifest().classes.len()], ..Self::default() };
        for info in dataset.manifest().shards.iter().filter(|s| s.split.is_none_or(|s| s == split)) {
            let shard = dataset.shard(info)?;
            summary.stored += info.bytes;
            summary.add(&shard)?;
        }
        Ok(summary)
    }

    fn add(&mut self, shard: &OpenShard) -> anyhow::Result<()> {
        for (i, field) in shard.meta().schema.0.iter().enumerate() {
            let raw = shard.row_bytes(i) as u64 * shard.n_rows();
            self.raw += raw;
            let entry = self.fields.entry(field.name.clone()).or_default();
            entry.description = match shard.meta().content {
                // Sessions differ in their number of neurons.
                Content::Session(_) if field.name == "responses" => format!("{} [neurons]", field.dtype),
                _ => format!("{} {}", field.dtype, field.shape),
            };
            entry.raw += raw;
            entry.stored += shard.stored_bytes(i);
            entry.codecs.iter_mut().zip(shard.codecs(i)).for_each(|(sum, n)| *sum += n);
        }
        match &shard.meta().content {
            Content::Session(meta) => {
                self.sessions.push(SessionSummary { meta: meta.clone(), trials: shard.n_rows() });
            }
            Content::Images => {
                let labels = shard.read_column(shard.field("label")?.0)?;
                for label in labels.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)) {
                    if let Some(n) = self.classes.get_mut(label as usize) {
                        *n += 1;
                    }
                }
            }
            Content::Stimuli => {}
        }
        Ok(())
    }

    fn samples(&self, dataset: &Dataset, split: Split) -> u64 {
        dataset.manifest().rows(split, None) + self.sessions.iter().map(|s| s.trials).sum::<u64>()
    }
}

impl SessionSummary {
    /// Trials per image.
    fn repeats(&self) -> f64 {
        self.trials as f64 / f64::from(self.meta.images.max(1))
    }
}

/// The stable JSON keys of one data set and split.
fn row(dataset: &Dataset, split: Split, summary: &Summary) -> Value {
    let manifest = dataset.manifest();
    let session = |s: &SessionSummary| {
        json!({"id": s.meta.id, "subject": s.meta.subject, "neurons": s.meta.mean.len(), "samples": s.trials,
               "images": s.meta.images, "mean": s.meta.mean, "variance": s.meta.variance})
    };
    let field = |(name, f): (&String, &FieldSummary)| {
        let codecs = Codec::ALL.iter().zip(f.codecs).map(|(codec, n)| (codec.as_str().to_owned(), json!(n)));
        json!({"name": name, "type": f.description, "bytes": f.stored, "raw_bytes": f.raw,
               "blocks": codecs.collect::<serde_json::Map<_, _>>()})
    };
    json!({
        "dataset": manifest.dataset,
        "split": split.as_str(),
        "samples": summary.samples(dataset, split),
        "classes": manifest.classes.len(),
        "class_samples": summary.classes,
        "sessions": summary.sessions.iter().map(session).collect::<Vec<_>>(),
        "fields": summary.fields.iter().map(field).collect::<Vec<_>>(),
        "bytes": summary.stored,
        "raw_bytes": summary.raw,
        "image": manifest.image,
        "pixels": manifest.pixels.to_string(),
        "mean": manifest.mean,
        "std": manifest.std,
        "blake3": manifest.fingerprint().as_str(),
    })
}

type Found<'a> = [(&'a Dataset, Split, Summary)];

fn splits(found: &Found<'_>) -> String {
    let mut table = table(&[
        "data set", "split", "samples", "classes", "sessions", "neurons", "image", "mean", "std", "bytes",
        "decoded", "ratio",
    ]);
    let list = |values: &[f64]| values.iter().map(|v| format!("{v:.3}")).collect::<Vec<_>>().join(" ");
    for (dataset, split, summary) in found {
        let manifest = dataset.manifest();
        let neurons = summary.sessions.iter().map(|s| s.meta.mean.len() as u64).sum();
        table.add_row([
            manifest.dataset.clone(),
            split.to_string(),
            count(summary.samples(dataset, *split)),
            count(manifest.classes.len() as u64),
            count(summary.sessions.len() as u64),
            count(neurons),
            format!("{:?} {}", manifest.image, manifest.pixels),
            list(&manifest.mean),
            list(&manifest.std),
            bytes(summary.stored),
            bytes(summary.raw),
            ratio(summary.raw, summary.stored),
        ]);
    }
    table.to_string()
}

fn ratio(raw: u64, stored: u64) -> String {
    format!("{:.2}", raw as f64 / stored.max(1) as f64)
}

fn fields(found: &Found<'_>) -> String {
    let mut table = table(&["data set", "split", "field", "type", "bytes", "decoded", "ratio", "blocks"]);
    for (dataset, split, summary) in found {
        for (name, field) in &summary.fields {
            let codecs = Codec::ALL.iter().zip(field.codecs).filter(|(_, n)| *n > 0);
            table.add_row([
                dataset.manifest().dataset.clone(),
                split.to_string(),
                name.clone(),
                field.description.clone(),
                bytes(field.stored),
                bytes(field.raw),
                ratio(field.raw, field.stored),
                codecs.map(|(codec, n)| format!("{n} {}", codec.as_str())).collect::<Vec<_>>().join(", "),
            ]);
        }
    }
    table.to_string()
}

fn sessions(found: &Found<'_>) -> String {
    let mut table = table(&[
        "data set",
        "split",
        "session",
        "animal",
        "neurons",
        "trials",
        "images",
        "repeats",
        "mean response",
        "mean variance",
    ]);
    let mean = |values: &[f32]| {
        format!("{:.3}", values.iter().map(|&v| f64::from(v)).sum::<f64>() / values.len().max(1) as f64)
    };
    for (dataset, split, summary) in found {
        for session in &summary.sessions {
            table.add_row([
                dataset.manifest().dataset.clone(),
                split.to_string(),
                session.meta.id.clone(),
                session.meta.subject.clone(),
                count(session.meta.mean.len() as u64),
                count(session.trials),
                count(u64::from(session.meta.images)),
                format!("{:.2}", session.repeats()),
                mean(&session.meta.mean),
                mean(&session.meta.variance),
            ]);
        }
    }
    table.to_string()
}

/// A bar for every class.
fn classes(found: &Found<'_>) -> String {
    const BAR: u64 = 40;
    let mut table = table(&["data set", "split", "class", "images", ""]);
    for (dataset, split, summary) in found {
        let most = summary.classes.iter().copied().max().unwrap_or(1).max(1);
        for (class, &n) in dataset.manifest().classes.iter().zip(&summary.classes) {
            let name = format!("{} {}", class.id, class.words);
            let bar = "█".repeat((n * BAR).div_ceil(most) as usize);
            table.add_row([dataset.manifest().dataset.clone(), split.to_string(), name, count(n), bar]);
        }
    }
    table.to_string()
}
