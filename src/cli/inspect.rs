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
    /// One JSON object a line, per data set and split; stimuli, which all splits share, are in `shared` and in no other sum
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

/// What one split of a data set holds by itself, or what all of its splits share, gathered from its shards.
#[derive(Default)]
struct Summary {
    rows: u64,
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
    let found: Vec<Found<'_>> = set.datasets().iter().map(Found::in_shards).collect::<Result<_, _>>()?;
    if args.json {
        return found.iter().flat_map(Found::lines).try_for_each(|line| out(&line.to_string()));
    }
    out(&datasets(&found))?;
    out(&splits(&found))?;
    out(&fields(&found))?;
    if found.iter().any(|set| set.splits.iter().any(|(_, summary)| !summary.sessions.is_empty())) {
        out(&sessions(&found))?;
    }
    if args.classes { out(&classes(&found)) } else { Ok(()) }
}

/// A data set, split by split.
struct Found<'a> {
    dataset: &'a Dataset,
    splits: Vec<(Split, Summary)>,
    /// Its stimuli, if it is a neural set.
    shared: Option<Summary>,
}

impl<'a> Found<'a> {
    fn in_shards(dataset: &'a Dataset) -> anyhow::Result<Self> {
        let of = |split| anyhow::Ok((split, Summary::of(dataset, Some(split))?));
        let splits = Split::ALL.into_iter().map(of).collect::<Result<_, _>>()?;
        let shared = Some(Summary::of(dataset, None)?).filter(|shared| shared.rows > 0);
        Ok(Self { dataset, splits, shared })
    }

    /// What the images' mean and deviation are over.
    fn statistics_over(&self) -> &'static str {
        if self.shared.is_some() { "stimuli" } else { Split::Train.as_str() }
    }

    /// All that there is, by the name of its part.
    fn parts(&self) -> impl Iterator<Item = (&'static str, &Summary)> {
        let splits = self.splits.iter().map(|(split, summary)| (split.as_str(), summary));
        splits.chain(self.shared.iter().map(|shared| ("stimuli", shared)))
    }

    /// The stable JSON keys, a line a split.
    fn lines(&self) -> impl Iterator<Item = Value> {
        let manifest = self.dataset.manifest();
        let shared = self
            .shared
            .as_ref()
            .map(|s| json!({"images": s.rows, "fields": s.fields(), "bytes": s.stored, "raw_bytes": s.raw}));
        self.splits.iter().map(move |(split, summary)| {
            json!({
                "dataset": manifest.dataset,
                "split": split.as_str(),
                "samples": summary.rows,
                "classes": manifest.classes.len(),
                "class_samples": summary.classes,
                "sessions": summary.sessions.iter().map(SessionSummary::told).collect::<Vec<_>>(),
                "fields": summary.fields(),
                "bytes": summary.stored,
                "raw_bytes": summary.raw,
                "shared": shared,
                "image": manifest.image,
                "pixels": manifest.pixels.to_string(),
                "mean": manifest.mean,
                "std": manifest.std,
                "statistics_over": self.statistics_over(),
                "blake3": manifest.fingerprint().as_str(),
            })
        })
    }
}

impl Summary {
    /// Of one split, or without it of what has none.
    fn of(dataset: &Dataset, split: Option<Split>) -> anyhow::Result<Self> {
        let mut summary = Self { classes: vec![0; dataset.manifest().classes.len()], ..Self::default() };
        for info in dataset.manifest().shards.iter().filter(|s| s.split == split) {
            let shard = dataset.shard(info)?;
            summary.rows += info.rows;
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

    fn fields(&self) -> Vec<Value> {
        let field = |(name, f): (&String, &FieldSummary)| {
            let codecs =
                Codec::ALL.iter().zip(f.codecs).map(|(codec, n)| (codec.as_str().to_owned(), json!(n)));
            json!({"name": name, "type": f.description, "bytes": f.stored, "raw_bytes": f.raw,
                   "blocks": codecs.collect::<serde_json::Map<_, _>>()})
        };
        self.fields.iter().map(field).collect()
    }
}

impl SessionSummary {
    /// Trials per image.
    fn repeats(&self) -> f64 {
        self.trials as f64 / f64::from(self.meta.images.max(1))
    }

    /// The stable JSON keys. Mean and variance are the same in all splits.
    fn told(&self) -> Value {
        json!({"id": self.meta.id, "subject": self.meta.subject, "neurons": self.meta.mean.len(),
               "samples": self.trials, "images": self.meta.images, "mean": self.meta.mean,
               "variance": self.meta.variance, "statistics_over": Split::Train.as_str()})
    }
}

/// What is true of all splits of a data set.
fn datasets(found: &[Found<'_>]) -> String {
    let mut table = table(&["data set", "classes", "sessions", "neurons", "image", "mean", "std", "over"]);
    let list = |values: &[f64]| values.iter().map(|v| format!("{v:.3}")).collect::<Vec<_>>().join(" ");
    for set in found {
        let manifest = set.dataset.manifest();
        let [channels, height, width] = manifest.image;
        table.add_row([
            manifest.dataset.clone(),
            count(manifest.classes.len() as u64),
            count(manifest.sessions.len() as u64),
            count(manifest.sessions.iter().map(|s| u64::from(s.neurons)).sum()),
            format!("{channels}x{height}x{width} {}", manifest.pixels),
            list(&manifest.mean),
            list(&manifest.std),
            set.statistics_over().to_owned(),
        ]);
    }
    table.to_string()
}

fn splits(found: &[Found<'_>]) -> String {
    let mut table = table(&["data set", "split", "samples", "bytes", "decoded", "ratio"]);
    for set in found {
        for (part, summary) in set.parts() {
            table.add_row([
                set.dataset.manifest().dataset.clone(),
                part.to_owned(),
                count(summary.rows),
                bytes(summary.stored),
                bytes(summary.raw),
                ratio(summary.raw, summary.stored),
            ]);
        }
    }
    table.to_string()
}

fn ratio(raw: u64, stored: u64) -> String {
    format!("{:.2}", raw as f64 / stored.max(1) as f64)
}

fn fields(found: &[Found<'_>]) -> String {
    let mut table = table(&["data set", "split", "field", "type", "bytes", "decoded", "ratio", "blocks"]);
    let parts =
        found.iter().flat_map(|set| set.parts().map(move |(part, summary)| (set.dataset, part, summary)));
    for (dataset, part, summary) in parts {
        for (name, field) in &summary.fields {
            let codecs = Codec::ALL.iter().zip(field.codecs).filter(|(_, n)| *n > 0);
            table.add_row([
                dataset.manifest().dataset.clone(),
                part.to_owned(),
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

fn sessions(found: &[Found<'_>]) -> String {
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
    for (dataset, split, summary) in by_split(found) {
        // They are over the trials that train, wherever they are written.
        let mean = |values: &[f32]| match split {
            Split::Train => {
                let sum = values.iter().map(|&v| f64::from(v)).sum::<f64>();
                format!("{:.3}", sum / values.len().max(1) as f64)
            }
            _ => String::new(),
        };
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

fn by_split<'a>(found: &'a [Found<'_>]) -> impl Iterator<Item = (&'a Dataset, Split, &'a Summary)> {
    found.iter().flat_map(|set| set.splits.iter().map(|(split, summary)| (set.dataset, *split, summary)))
}

/// A bar for every class.
fn classes(found: &[Found<'_>]) -> String {
    const BAR: u64 = 40;
    let mut table = table(&["data set", "split", "class", "images", ""]);
    for (dataset, split, summary) in by_split(found) {
        let most = summary.classes.iter().copied().max().unwrap_or(1).max(1);
        for (class, &n) in dataset.manifest().classes.iter().zip(&summary.classes) {
            let name = format!("{} {}", class.id, class.words);
            let bar = "█".repeat((n * BAR).div_ceil(most) as usize);
            table.add_row([dataset.manifest().dataset.clone(), split.to_string(), name, count(n), bar]);
        }
    }
    table.to_string()
}
