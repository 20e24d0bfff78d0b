//! `nct prepare`, and the binary `prepare`: raw data sets to shards.

use super::exit::stop_flag;
use super::show::{Bar, Show, bytes, count, out, table};
use crate::base::Split;
use crate::ingest::{
    self, Action, Bins, Color, Cut, Planned, PrepareOptions, Prepared, Progress, Resize, Responses, Share,
    TimeBins,
};
use crate::shard::{BlockOptions, Manifest};
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
    #[arg(long, value_parser = super::files::folder, default_value = "shards")]
    out: PathBuf,
    /// Prepare only the data set of this name (may be repeated)
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Colours to store: `gray` is what the co-training recipes use, and a third of the bytes
    #[arg(long, value_enum, default_value_t = ColorArg::Keep)]
    color: ColorArg,
    /// Only these classes of labelled images, by their numbers in the order of their folders: first and the one after the
    /// last, as in 0..100. They are counted from 0 then
    #[arg(long, value_name = "A..B", value_parser = classes)]
    classes: Option<Classes>,
    /// Size of labelled images: the side of the square in the middle after the shorter side was brought to it (256 for
    /// networks that see 224 pixels), or height and width, as in 64x64
    #[arg(long, value_name = "SIZE")]
    resize: Option<Resize>,
    /// Pixels to cut off stimuli: of all sides, or above, below, left and right by commas. The reference cuts 36 off
    /// recorded images
    #[arg(long, value_name = "PIXELS", default_value = "0", value_parser = Cut::parse_crop)]
    crop: Crop,
    /// Keep every so many-th pixel of stimuli
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    subsample: u32,
    /// Factor by which stimuli are scaled after that; the reference scales recorded images by 0.4
    #[arg(long, default_value_t = 1.0, value_parser = scale)]
    scale: f64,
    /// Level of zstd. At 0 it compresses columns of numbers, and images are stored as bit planes of differences; at 1
    /// to 22 it is tried on images too, ever longer, and used where it is smaller; below 0 is faster than 1
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
    /// Time bins that are summed to a response: so many from the first on, as in 12; or, counted from 0, the first and
    /// the one after the last, as in 4..12, or each, as in 4,5,6
    #[arg(long, value_name = "BINS", default_value = "12")]
    time_bins_sum: Bins,
    /// Average the time bins instead of summing them
    #[arg(long)]
    avg: bool,
    /// Seed of the train/validation splits; 1000 gives the reference's
    #[arg(long, default_value_t = 1000)]
    split_seed: u32,
    /// Share of the labelled images of train/ that validate; the reference has 0.1, of ImageNet 0.01
    #[arg(long, default_value_t = 0.1, value_parser = share)]
    valid_size: f64,
    /// Share of the stimuli that train; the others validate
    #[arg(long, default_value_t = 0.8, value_parser = share)]
    train_frac: f64,
    /// Threads; 0 is one a core
    #[arg(long, default_value_t = 0)]
    jobs: usize,
    /// Replace data sets that are there already
    #[arg(long)]
    force: bool,
    /// Make only part I of N, as in 1/4: for several machines, or jobs of a cluster, that share --out
    #[arg(long, value_name = "I/N", value_parser = part, conflicts_with_all = ["force", "dry_run"])]
    part: Option<Share>,
    /// Put together what the parts made: the same bytes as made at once
    #[arg(long, conflicts_with_all = ["part", "force", "dry_run"])]
    merge: bool,
}

fn part(text: &str) -> Result<Share, String> {
    let numbers =
        text.split_once('/').and_then(|(i, n)| Some((i.parse::<u32>().ok()?, n.parse::<u32>().ok()?)));
    let found = numbers.filter(|(i, n)| (1..=*n).contains(i) && *n <= 10_000);
    let found = found.map(|(i, parts)| Share::Part { part: i - 1, parts });
    found.ok_or_else(|| "expected a number and how many there are, as in 1/4".to_owned())
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

/// Pixels above, below, left and right. By its own name, since clap takes an array for many values.
type Crop = [u32; 4];

/// By its own name too.
type Classes = [u32; 2];

fn classes(text: &str) -> Result<Classes, String> {
    let range = text.split_once("..").and_then(|(a, b)| Some([a.parse().ok()?, b.parse().ok()?]));
    range.ok_or_else(|| "expected two numbers, as in 0..100".to_owned())
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "expected a share from 0 to 1".to_owned())
}

fn scale(text: &str) -> Result<f64, String> {
    let scale = text.parse().ok().filter(|scale| (0.001..=16.0).contains(scale));
    scale.ok_or_else(|| "expected a factor from 0.001 to 16, such as 0.4".to_owned())
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
    options.bins = TimeBins { which: args.time_bins_sum.clone(), average: args.avg };
    options.split_seed = args.split_seed;
    options.valid_size = args.valid_size;
    options.train_frac = args.train_frac;
    options.force = args.force;
    options.classes = args.classes;
    options.resize = args.resize;
    options.cut = Cut { crop: args.crop, subsample: args.subsample, scale: args.scale };
    options.shard_bytes = u64::from(args.shard_mb) << 20;
    options.share = if args.merge { Share::Merge } else { args.part.unwrap_or_default() };
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
    for sets in groups(sets, |set| set.group.as_deref()) {
        let mut what: Vec<&str> = sets.iter().map(|set| action(&set.action)).collect();
        what.dedup();
        let total = |of: fn(&Planned) -> u64| sets.iter().map(of).sum();
        let [images, sessions] = [total(|s| s.images), total(|s| s.sessions)].map(count);
        let [read, written] = [total(|s| s.raw_bytes), total(|s| s.shard_bytes)].map(bytes);
        let name = name(sets.len(), sets[0].group.as_deref(), &sets[0].dataset);
        table.add_row(vec![name, images, sessions, read, written, what.join(", ")]);
    }
    let total: u64 = sets.iter().filter(|s| s.action != Action::Nothing).map(|s| s.shard_bytes).sum();
    let notes = sets.iter().flat_map(|set| set.notes.iter().map(|note| format!("{}: {note}\n", set.dataset)));
    let notes: String = notes.collect();
    format!("{notes}{table}\n{}about {} to write; nothing was written", refusals(sets), bytes(total))
}

fn action(action: &Action) -> &'static str {
    match action {
        Action::Make => "is made",
        Action::Continue => "is continued where it was stopped",
        Action::Replace => "is replaced",
        Action::Nothing => "is there already",
        Action::Refuse(_) => "is refused",
    }
}

/// Why sets are refused, in lines of their own: a cell would be wider than a terminal.
fn refusals(sets: &[Planned]) -> String {
    let mut lines = String::new();
    for sets in groups(sets, |set| set.group.as_deref()) {
        let mut reasons = sets.iter().filter_map(|set| match &set.action {
            Action::Refuse(why) => Some(why),
            _ => None,
        });
        let Some(first) = reasons.next() else { continue };
        // Sets of a group are mostly refused for the same reason.
        let more = match reasons.count() {
            0 => String::new(),
            n => format!(" (and {n} more sets of {})", sets[0].group.as_deref().unwrap_or_default()),
        };
        lines.push_str(&format!("{first}{more}\n"));
    }
    lines
}

/// Sets of one group together, the others one by one; both are in the order of their names.
fn groups<T>(sets: &[T], group: impl Fn(&T) -> Option<&str>) -> impl Iterator<Item = &[T]> {
    sets.chunk_by(move |a, b| matches!((group(a), group(b)), (Some(a), Some(b)) if a == b))
}

fn name(sets: usize, group: Option<&str>, dataset: &str) -> String {
    group.map_or_else(|| dataset.to_owned(), |group| format!("{group}, {sets} sets"))
}

fn summary(prepared: &[Prepared], elapsed: Duration) -> String {
    let mut table = Show::table(&[
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
    for sets in groups(prepared, |set| set.group.as_deref()) {
        let rows = |manifest: &Manifest, split| -> u64 {
            let sessions: u64 = manifest.sessions.iter().map(|s| manifest.rows(split, Some(&s.id))).sum();
            manifest.rows(split, None) + sessions
        };
        let total = |of: &dyn Fn(&Manifest) -> u64| sets.iter().map(|set| of(&set.manifest)).sum::<u64>();
        let first = &sets[0].manifest;
        let mut row = vec![name(sets.len(), sets[0].group.as_deref(), &first.dataset)];
        row.extend(Split::ALL.map(|split| count(total(&|m| rows(m, split)))));
        let neurons: u64 = first.sessions.iter().map(|s| u64::from(s.neurons)).sum();
        row.extend([first.classes.len() as u64, first.sessions.len() as u64, neurons].map(count));
        let (read, written) = (total(&|m| m.raw_bytes), total(&|m| m.shards.iter().map(|s| s.bytes).sum()));
        let ratio = format!("{:.2}", read as f64 / written.max(1) as f64);
        row.extend([bytes(read), bytes(written), ratio]);
        table.add_row(row);
    }
    let images: u64 = prepared.iter().map(|set| set.images).sum();
    let seconds = elapsed.as_secs_f64();
    format!("{table}\n{} images in {seconds:.1} s, {:.0} images/s", count(images), images as f64 / seconds)
}
