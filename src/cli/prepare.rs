//! `nct prepare`, and the binary `prepare`: raw data sets to shards.

use super::exit::stop_flag;
use super::show::{Bar, Show, bytes, count, out, table};
use crate::base::Split;
use crate::ingest::{self, Action, Color, Planned, PrepareOptions, Prepared, Progress, Responses, TimeBins};
use crate::shard::BlockOptions;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Arguments of `nct prepare`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder that holds the raw data sets, or one of them
    data: PathBuf,
    /// Folder for the shards
    #[arg(long, default_value = "shards")]
    out: PathBuf,
    /// Prepare only the data set of this name (may be repeated)
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Colours to store: `gray` is what the co-training recipes use, and a third of the bytes
    #[arg(long, value_enum, default_value_t = ColorArg::Keep)]
    color: ColorArg,
    /// Compression level of zstd: 0 codes bytes by their frequency, 1 to 22 also look for repeats, ever longer;
    /// below 0 is faster and smaller only for plain pictures
    #[arg(long, allow_hyphen_values = true, default_value_t = BlockOptions::default().level, value_parser = clap::value_parser!(i32).range(-50..=22))]
    level: i32,
    /// MiB of decoded images per shard
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=65536))]
    shard_mb: u32,
    /// Say what would be done, and how large the shards would be, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Element type of stored responses
    #[arg(long, value_enum, default_value_t = ResponsesArg::F32)]
    responses: ResponsesArg,
    /// Number of first time bins that are summed to a response
    #[arg(long, default_value_t = 12)]
    time_bins_sum: usize,
    /// Average the time bins instead of summing them
    #[arg(long)]
    avg: bool,
    /// Seed of the train/validation splits; 1000 gives the reference's
    #[arg(long, default_value_t = 1000)]
    split_seed: u32,
    /// Threads; 0 is one a core
    #[arg(long, default_value_t = 0)]
    jobs: usize,
    /// Replace data sets that are there already
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum ColorArg {
    Keep,
    Gray,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum ResponsesArg {
    F32,
    F16,
    Bf16,
}

/// Runs `nct prepare`.
pub fn run(args: &Args, quiet: bool) -> anyhow::Result<()> {
    let show = Show::new(quiet);
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut options = PrepareOptions::new(args.out.clone(), if args.jobs == 0 { cores } else { args.jobs });
    options.only.clone_from(&args.only);
    options.color = match args.color {
        ColorArg::Keep => Color::Keep,
        ColorArg::Gray => Color::Gray,
    };
    options.responses = match args.responses {
        ResponsesArg::F32 => Responses::F32,
        ResponsesArg::F16 => Responses::F16,
        ResponsesArg::Bf16 => Responses::Bf16,
    };
    options.level = args.level;
    options.bins = TimeBins { first: args.time_bins_sum.max(1), average: args.avg };
    options.split_seed = args.split_seed;
    options.force = args.force;
    options.shard_bytes = u64::from(args.shard_mb) << 20;
    if args.dry_run {
        return out(&planned(&ingest::plan(&args.data, &options)?));
    }
    make(&args.data, &options, show)
}

/// Prepares and shows the closing table.
pub(crate) fn make(data: &Path, options: &PrepareOptions, show: Show) -> anyhow::Result<()> {
    let (start, stop) = (Instant::now(), stop_flag());
    let bar: Mutex<Option<Bar>> = Mutex::new(None);
    let on_progress = |news: Progress<'_>| {
        let Ok(mut bar) = bar.lock() else { return false };
        match news {
            Progress::Begin(name, n) => {
                if let Some(done) = bar.replace(show.bar(name, n, "images")) {
                    done.clear();
                }
            }
            Progress::Images(n) => bar.iter().for_each(|bar| bar.advance(n)),
        }
        !stop.load(Ordering::Relaxed)
    };
    let prepared = ingest::prepare(data, options, &on_progress)?;
    if let Ok(Some(bar)) = bar.into_inner() {
        bar.clear();
    }
    for set in &prepared {
        set.notes.iter().for_each(|note| show.line(&format!("{}: {note}", set.manifest.dataset)));
    }
    show.line(&summary(&prepared, start.elapsed()));
    Ok(())
}

fn planned(sets: &[Planned]) -> String {
    let mut table = table(&["data set", "images", "sessions", "to read", "to write, about", "what"]);
    for set in sets {
        let what = match &set.action {
            Action::Make => "is made".to_owned(),
            Action::Continue => "is continued where it was stopped".to_owned(),
            Action::Replace => "is replaced".to_owned(),
            Action::Nothing => "is there already".to_owned(),
            Action::Refuse(why) => format!("is refused: {why}"),
        };
        let [images, sessions] = [set.images, set.sessions].map(count);
        let [read, written] = [set.raw_bytes, set.shard_bytes].map(bytes);
        table.add_row(vec![set.dataset.clone(), images, sessions, read, written, what]);
    }
    let total: u64 = sets.iter().filter(|s| s.action != Action::Nothing).map(|s| s.shard_bytes).sum();
    format!("{table}\nabout {} to write; nothing was written", bytes(total))
}

fn summary(prepared: &[Prepared], elapsed: Duration) -> String {
    let mut table = table(&[
        "data set",
        "train",
        "validation",
        "test",
        "classes",
        "sessions",
        "neurons",
        "read",
        "written",
        "ratio",
    ]);
    for Prepared { manifest, .. } in prepared {
        let rows = |split| -> u64 {
            let sessions: u64 = manifest.sessions.iter().map(|s| manifest.rows(split, Some(&s.id))).sum();
            manifest.rows(split, None) + sessions
        };
        let written: u64 = manifest.shards.iter().map(|s| s.bytes).sum();
        let neurons: u64 = manifest.sessions.iter().map(|s| u64::from(s.neurons)).sum();
        let mut row: Vec<String> = vec![manifest.dataset.clone()];
        row.extend(Split::ALL.map(|split| count(rows(split))));
        row.extend([manifest.classes.len() as u64, manifest.sessions.len() as u64, neurons].map(count));
        let ratio = format!("{:.2}", manifest.raw_bytes as f64 / written.max(1) as f64);
        row.extend([bytes(manifest.raw_bytes), bytes(written), ratio]);
        table.add_row(row);
    }
    let images: u64 = prepared.iter().map(|set| set.images).sum();
    let seconds = elapsed.as_secs_f64();
    format!("{table}\n{} images in {seconds:.1} s, {:.0} images/s", count(images), images as f64 / seconds)
}
