//! `nct bench`: throughput on the user's own shards and machine.

use super::exit::Usage;
use super::show::{Show, bytes, count, out, table};
use crate::base::{Split, Task};
use crate::ingest::{self, Color, PrepareOptions};
use crate::load::{
    AugmentSettings, Budget, Loader, LoaderOptions, LoaderTimes, PixelType, Roofline, Source, View,
};
use crate::schedule::{Mix, Ratio, RatioByEpoch, Schedule, StreamSpec};
use crate::shard::{BlockOptions, Dataset, ShardSet};
use clap::ValueEnum;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Arguments of `nct bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Batches from shards to memory, without a network
    Loader(LoaderArgs),
    /// Raw images to shards, beside their decoding alone
    Prepare(PrepareArgs),
    /// Updates of training: their rate, what their parts take, and how near that is to what the device can do
    #[cfg(feature = "torch")]
    Train(super::train::measure::BenchArgs),
}

#[derive(Debug, clap::Args)]
struct PrepareArgs {
    /// Folder that holds the raw data sets, or one of them
    data: PathBuf,
    /// Threads; 0 is one a core
    #[arg(long, default_value_t = 0)]
    jobs: usize,
    /// Rounds; the medians are told
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Folder for shards that are thrown away
    #[arg(long, default_value = ".")]
    scratch: PathBuf,
    /// Store gray images
    #[arg(long)]
    gray: bool,
    /// Level of zstd, as of `nct prepare`
    #[arg(long, allow_hyphen_values = true, default_value_t = BlockOptions::default().level)]
    level: i32,
    /// One line of JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct LoaderArgs {
    /// Folder of shards, or its URL (nct help stores)
    #[arg(long, default_value = "shards")]
    shards: PathBuf,
    /// What is done with each image
    #[arg(long, value_enum, default_value_t = Work::Aug)]
    work: Work,
    /// What is read: only images, or images and sessions in turn
    #[arg(long, value_enum, default_value_t = MixArg::Images)]
    mix: MixArg,
    /// Records per batch
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=65536))]
    batch: u32,
    /// Threads that make batches
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: u16,
    /// Passes; the first, which decodes, is counted apart
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u32).range(2..))]
    epochs: u32,
    /// MiB of memory for decoded data; half of what is free if not given
    #[arg(long)]
    cache_mb: Option<u32>,
    /// Shuffle within windows of so many MiB
    #[arg(long)]
    window_mb: Option<u32>,
    /// Type of the pixels; bytes for `--work raw`
    #[arg(long, value_enum, default_value_t = OutArg::F32)]
    out: OutArg,
    /// Name of the image set
    #[arg(long, default_value = "tiny-imagenet-200")]
    images: String,
    /// Name of the neural set
    #[arg(long, default_value = "mtl_monkey_dataset")]
    neural: String,
    /// One line of JSON
    #[arg(long)]
    json: bool,
}

/// What is done with each image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Work {
    /// Copied as it is stored
    Raw,
    /// Crop, flip, gray, normalise
    Aug,
    /// Crop, flip, rotation, gray, normalise: the reference's training transform
    Rot,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum MixArg {
    /// Shuffled images
    Images,
    /// A batch of one session, then a batch of images, and so on
    Mtl,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OutArg {
    F32,
    F16,
    Bf16,
    U8,
}

/// What was measured.
struct Measured {
    first: Epoch,
    /// Every later epoch, and the samples per second of the roofline right before it.
    later: Vec<(Epoch, f64)>,
}

#[derive(Debug, Clone, Default)]
struct Epoch {
    samples: u64,
    bytes: u64,
    first_batch: Duration,
    wall: Duration,
    times: LoaderTimes,
}

impl Epoch {
    /// Samples per second.
    fn rate(&self) -> f64 {
        self.samples as f64 / self.wall.as_secs_f64()
    }
}

pub(crate) fn run(args: &Args, show: Show) -> anyhow::Result<()> {
    match &args.what {
        What::Loader(args) => loader(args, show),
        What::Prepare(args) => preparing(args, show),
        #[cfg(feature = "torch")]
        What::Train(args) => super::train::measure::run(args),
    }
}

/// Decoding alone and preparing, in turn.
fn preparing(args: &PrepareArgs, show: Show) -> anyhow::Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let jobs = if args.jobs == 0 { cores } else { args.jobs };
    let (mut decoding, mut preparing, mut written, mut images) = (Vec::new(), Vec::new(), 0, 0);
    for round in 0..args.rounds {
        let start = Instant::now();
        images = ingest::decode_all(&args.data, jobs)?;
        decoding.push(images as f64 / start.elapsed().as_secs_f64());
        let scratch = tempfile::tempdir_in(&args.scratch)
            .map_err(|e| Usage(format!("--scratch {}: {e}", args.scratch.display())))?;
        let mut options = PrepareOptions::new(scratch.path().join("shards"), jobs);
        options.level = args.level;
        options.color = if args.gray { Color::Gray } else { Color::Keep };
        let start = Instant::now();
        let sets = ingest::prepare(&args.data, &options, &|_| true)?;
        preparing.push(images as f64 / start.elapsed().as_secs_f64());
        written = sets.iter().flat_map(|set| &set.manifest.shards).map(|shard| shard.bytes).sum();
        let rate = |rates: &[f64]| count(rates[round as usize] as u64);
        show.line(&format!("decoding {} images/s, preparing {}", rate(&decoding), rate(&preparing)));
    }
    let ratios = decoding.iter().zip(&preparing).map(|(decode, prepare)| prepare / decode).collect();
    let report = json!({
        "images": images,
        "jobs": jobs,
        "samples_per_s": median(preparing),
        "decode_samples_per_s": median(decoding),
        "of_decoding": median(ratios),
        "written_bytes": written,
        "load": load_average(),
    });
    if args.json { out(&report.to_string()) } else { out(&serde_json::to_string_pretty(&report)?) }
}

fn loader(args: &LoaderArgs, show: Show) -> anyhow::Result<()> {
    let set = ShardSet::open(&args.shards)?;
    let measured = measure(args, &set, show)?;
    let report = report(args, &measured);
    if args.json { out(&report.to_string()) } else { out(&shown(&report)) }
}

fn sources(args: &LoaderArgs, set: &ShardSet) -> anyhow::Result<Vec<Source>> {
    let augment = match args.work {
        Work::Raw => AugmentSettings::NONE,
        Work::Aug => AugmentSettings { rotation_degrees: 0.0, ..AugmentSettings::default() },
        Work::Rot => AugmentSettings::default(),
    };
    let pixels = match (args.work, args.out) {
        (Work::Raw, _) | (_, OutArg::U8) => PixelType::U8,
        (_, OutArg::F16) => PixelType::F16,
        (_, OutArg::Bf16) => PixelType::Bf16,
        (_, OutArg::F32) => PixelType::F32,
    };
    let budget = args.cache_mb.map_or_else(Budget::of_free_memory, |mb| Budget::new(u64::from(mb) << 20));
    let view = |dataset: &Dataset, augment: AugmentSettings| {
        let manifest = dataset.manifest();
        // All work but `raw` is on gray images, whatever the shards hold.
        let channels = if args.work == Work::Raw { manifest.image[0] as usize } else { 1 };
        let of_channels = |values: &[f64]| values.iter().copied().take(channels).collect();
        let (mean, std) = (of_channels(&manifest.mean), of_channels(&manifest.std));
        View { augment, pixels, budget: budget.clone(), ..View::new(mean, std) }
    };
    let mut sources = Vec::new();
    if args.mix == MixArg::Mtl {
        let neural = set.dataset(&args.neural)?;
        sources =
            Source::sessions(neural, Task::V1, Split::Train, &view(neural, AugmentSettings::NONE), None)?;
    }
    let images = set.dataset(&args.images)?;
    sources.push(Source::images(images, Split::Train, &view(images, augment))?);
    Ok(sources)
}

fn schedule(args: &LoaderArgs, sources: &[Source]) -> anyhow::Result<Schedule> {
    let stream = |s: &Source| {
        let limit = s.memory_limit().map(|limit| limit / 2);
        let window = args.window_mb.map(|mb| u64::from(mb) << 20).or(limit).map(|bytes| s.window(bytes));
        let window = window.filter(|_| s.task == Task::Classification);
        StreamSpec { window, ..StreamSpec::new(s.task, s.n_records(), args.batch) }
    };
    let mix = match args.mix {
        MixArg::Images => Mix::Long { batches_per_step: 1 },
        MixArg::Mtl => {
            let ratio = RatioByEpoch::new([(1, Ratio::PerStep(1))]).map_err(anyhow::Error::msg)?;
            Mix::Mtl { ratio, images_per_step: 1 }
        }
    };
    Ok(Schedule::new(sources.iter().map(stream).collect(), mix, 1)?)
}

fn measure(args: &LoaderArgs, set: &ShardSet, show: Show) -> anyhow::Result<Measured> {
    let opened = Instant::now();
    let sources = Arc::new(sources(args, set)?);
    let schedule = Arc::new(schedule(args, &sources)?);
    let per_epoch = schedule.steps_per_epoch();
    let options = LoaderOptions { threads: usize::from(args.threads), ..LoaderOptions::default() };
    // While the roofline is measured, workers read ahead: those steps are not counted.
    let ahead = ((options.depth + 1) * options.threads) as u64 * 2;
    if per_epoch <= 2 * ahead {
        let what = format!("{per_epoch} steps an epoch are too few to measure; lower --batch");
        return Err(Usage(what).into());
    }
    let mut loader = Loader::start(&sources, &schedule, 1, 0..per_epoch * u64::from(args.epochs), options)?;
    let first = read_steps(&mut loader, per_epoch, opened)?;
    show.line(&format!("epoch 1: {} samples/s", count(first.rate() as u64)));
    let roofline = Roofline::new(first.samples as usize, (first.bytes / first.samples.max(1)) as usize)?;
    let batch = args.batch as usize;
    let batches = (first.samples as usize / batch).max(1);
    let mut later: Vec<(Epoch, f64)> = Vec::new();
    for number in 1..args.epochs {
        let roof = (batches * batch) as f64 / roofline.gather(batches, batch, options.threads).as_secs_f64();
        read_steps(&mut loader, ahead, Instant::now())?;
        let epoch = read_steps(&mut loader, per_epoch - ahead, Instant::now())?;
        show.line(&format!("epoch {}: {} samples/s", number + 1, count(epoch.rate() as u64)));
        later.push((epoch, roof));
    }
    Ok(Measured { first, later })
}

fn read_steps(loader: &mut Loader, steps: u64, start: Instant) -> anyhow::Result<Epoch> {
    let mut epoch = Epoch::default();
    let before = loader.times();
    for _ in 0..steps {
        let Some(step) = loader.next() else { break };
        let step = step?;
        if epoch.samples == 0 {
            epoch.first_batch = start.elapsed();
        }
        for batch in &step.batches {
            epoch.samples += batch.len() as u64;
            epoch.bytes += batch.pixels.bytes() as u64;
        }
        loader.recycle(step);
    }
    epoch.wall = start.elapsed();
    epoch.times = loader.times().since(before);
    Ok(epoch)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn report(args: &LoaderArgs, m: &Measured) -> Value {
    let name = |value: &dyn std::fmt::Debug| format!("{value:?}").to_lowercase();
    let of = |figure: &dyn Fn(&Epoch, f64) -> f64| {
        median(m.later.iter().map(|(e, roof)| figure(e, *roof)).collect())
    };
    let share = |part: Duration, whole: Duration| part.as_secs_f64() / whole.as_secs_f64().max(1e-9);
    let rates = || m.later.iter().map(|(e, _)| e.rate());
    let peak = peak_memory();
    // Some figures have two names: the short ones are those of benches of other loaders that it is compared with.
    json!({
        "work": name(&args.work),
        "mix": name(&args.mix),
        "batch": args.batch,
        "threads": args.threads,
        "samples": m.first.samples,
        "first": m.first.rate(),
        "first_samples_per_s": m.first.rate(),
        "first_batch_ms": m.first.first_batch.as_secs_f64() * 1e3,
        "median": of(&|e, _| e.rate()),
        "samples_per_s": of(&|e, _| e.rate()),
        "low": rates().fold(f64::INFINITY, f64::min),
        "high": rates().fold(0.0, f64::max),
        "bytes_per_s": of(&|e, _| e.bytes as f64 / e.wall.as_secs_f64()),
        "roofline_samples_per_s": of(&|_, roof| roof),
        "roofline_share": of(&|e, roof| e.rate() / roof),
        "of_roofline": of(&|e, roof| e.rate() / roof),
        "stall_share": of(&|e, _| share(e.times.waited, e.wall)),
        "worker_idle_share": of(&|e, _| share(e.times.idle, e.times.idle + e.times.filling)),
        "decode_share": of(&|e, _| share(e.times.decoding, e.times.filling)),
        "rss_mb": peak.map(|bytes| bytes >> 20),
        "peak_memory_bytes": peak,
        "load": load_average(),
    })
}

fn shown(report: &Value) -> String {
    let number = |key: &str| report[key].as_f64().unwrap_or(f64::NAN);
    let rate = |key: &str| count(number(key) as u64);
    let mut table = table(&["figure", "value"]);
    for (name, value) in [
        ("first epoch, samples/s", rate("first_samples_per_s")),
        ("first batch", format!("{:.0} ms", number("first_batch_ms"))),
        ("steady, samples/s (median)", rate("samples_per_s")),
        ("steady, lowest to highest", format!("{} to {}", rate("low"), rate("high"))),
        ("delivered", format!("{}/s", bytes(number("bytes_per_s") as u64))),
        ("memory copy of the same bytes, samples/s", rate("roofline_samples_per_s")),
        ("share of that", format!("{:.2}", number("of_roofline"))),
        ("the consumer waited", format!("{:.1} %", 100.0 * number("stall_share"))),
        ("the workers waited", format!("{:.1} %", 100.0 * number("worker_idle_share"))),
        ("decoding, of the workers' time", format!("{:.1} %", 100.0 * number("decode_share"))),
        ("peak memory, roofline's included", report["peak_memory_bytes"].as_u64().map_or("?".into(), bytes)),
        ("load average", format!("{}", report["load"])),
    ] {
        table.add_row(vec![name.to_owned(), value]);
    }
    table.to_string()
}

/// Peak resident memory of this process, where the system tells.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
}

/// Load average of the last minute, where the system tells.
fn load_average() -> Option<f64> {
    std::fs::read_to_string("/proc/loadavg").ok()?.split(' ').next()?.parse().ok()
}
