//! `nct corrupt`: corrupted copies of prepared images.

pub(super) mod frost;
pub(super) mod raw;

use super::exit::{Usage, stop_flag};
use super::sheet::{Sheet, TEXT};
use super::show::{Show, SplitArg, bytes, count, out};
use crate::base::Split;
use crate::corruption::frost::source;
use crate::corruption::{Corruption, Extent, ImageKey, Manner, Profile, Scratch, Severity};
use crate::ingest::{Cell, CorruptOptions, Layout, corrupt};
use crate::load::{Budget, Column};
use crate::shard::{Dataset, ShardSet};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

/// Arguments of `nct corrupt`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folder of shards, or of one data set in it, or the URL of either (nct help stores)
    #[arg(default_value = "shards")]
    shards: PathBuf,
    /// Folder to make
    #[arg(long, value_parser = super::files::folder, required_unless_present = "sheet")]
    out: Option<PathBuf>,
    /// Draw one image under every corruption and severity
    #[arg(long, value_name = "PNG", conflicts_with_all = ["out", "corruptions", "severities", "layout", "jpeg85", "threads", "json"])]
    sheet: Option<PathBuf>,
    /// Number of the image that is drawn, within its split
    #[arg(long, default_value_t = 0, requires = "sheet")]
    image: u64,
    /// Parameters: t of Tiny-ImageNet-C, made for 64 pixels; i of ImageNet-C, as imagecorruptions has them
    #[arg(long, default_value_t = Profile::Tiny)]
    profile: Profile,
    /// Glass blur swaps pixels, as was meant; in the published sets, which are the default, it copies one over the other
    #[arg(long)]
    glass_swap: bool,
    /// Which corruptions, by commas [default: the fifteen that averages are taken over]
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    corruptions: Vec<Corruption>,
    /// Which severities, by commas [default: 1 to 5]
    #[arg(long, value_delimiter = ',', value_name = "LEVELS")]
    severities: Vec<Severity>,
    /// Whose images; those of TinyImageNet's val folder are the test split
    #[arg(long, value_enum, default_value_t = SplitArg::Test)]
    split: SplitArg,
    /// Seed of everything random
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// folders: corruption/severity/class/*.JPEG of quality 85; shards: a data set of exact pixels each, for t after
    /// a JPEG of quality 85
    #[arg(long, value_enum, default_value_t = LayoutArg::Folders)]
    layout: LayoutArg,
    /// Whether images of shards pass that JPEG [default: true for t, false for i]
    #[arg(long, value_name = "true|false")]
    jpeg85: Option<bool>,
    /// Folder of the published pictures of frost, frost1.png to frost6.jpg; NCT_FROST if not given. Without either, frost
    /// is made of textures
    #[arg(long, value_name = "DIR")]
    frost: Option<PathBuf>,
    /// Threads; 0 is one a core. They change no byte
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// One JSON object a line, per corruption and severity
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum LayoutArg {
    Folders,
    Shards,
}

pub(crate) fn run(args: &Args, show: Show) -> anyhow::Result<()> {
    let set = ShardSet::open(&args.shards)?;
    let dataset = labelled(&set)?;
    let split = args.split.split();
    let corruptions = chosen(&args.corruptions, &Corruption::PAPER);
    if args.frost.is_some() || corruptions.contains(&Corruption::Frost) {
        frost::open(args.frost.as_deref())?;
    }
    if let Some(path) = &args.sheet {
        return draw(dataset, split, args, path);
    }
    let Some(target) = &args.out else { return Err(Usage("name a folder with `--out`".into()).into()) };
    if args.jpeg85 == Some(false) && matches!(args.layout, LayoutArg::Folders) {
        let what = "folders are of JPEGs of quality 85; `--jpeg85 false` needs `--layout shards`";
        return Err(Usage(what.into()).into());
    }
    let options = CorruptOptions {
        out: target.clone(),
        split,
        profile: args.profile,
        glass_swap: args.glass_swap,
        jpeg85: args.jpeg85,
        corruptions,
        severities: chosen(&args.severities, &Severity::ALL),
        seed: args.seed,
        layout: match args.layout {
            LayoutArg::Folders => Layout::Folders,
            LayoutArg::Shards => Layout::Shards,
        },
        threads: args.threads,
    };
    let n_cells = (options.corruptions.len() * options.severities.len()) as u64;
    let bar = show.bar("corrupt", n_cells * dataset.manifest().rows(split, None), "images");
    let stop = stop_flag();
    let tick = |n| {
        bar.advance(n);
        !stop.load(Ordering::Relaxed)
    };
    let cells = corrupt(dataset, &options, &tick)?;
    bar.clear();
    report(args, &options, &cells, show)
}

fn report(args: &Args, options: &CorruptOptions, cells: &[Cell], show: Show) -> anyhow::Result<()> {
    for cell in cells.iter().filter(|_| args.json) {
        let mut line = json!({
            "corruption": cell.corruption.as_str(),
            "severity": cell.severity.get(),
            "group": cell.corruption.group().as_str(),
            "profile": options.profile.as_str(),
            "split": options.split,
            "seed": options.seed,
            "images": cell.images,
            "bytes": cell.bytes,
        });
        if cell.corruption == Corruption::Frost {
            line["frost_source"] = json!(source().as_str());
        }
        for (key, value) in options.departures(cell.corruption) {
            line[key] = json!(value);
        }
        out(&line.to_string())?;
    }
    let total = |of: fn(&Cell) -> u64| cells.iter().map(of).sum::<u64>();
    let (images, size) = (count(total(|c| c.images)), bytes(total(|c| c.bytes)));
    show.line(&format!("{}: {images} images, {size}, in {} cells", options.out.display(), cells.len()));
    Ok(())
}

/// What was asked for, once each and in the order of tables, or all of `default`.
pub(super) fn chosen<T: Copy + Ord>(asked: &[T], default: &[T]) -> Vec<T> {
    let mut chosen = if asked.is_empty() { default.to_vec() } else { asked.to_vec() };
    chosen.sort_unstable();
    chosen.dedup();
    chosen
}

/// The data set with labelled images.
fn labelled(set: &ShardSet) -> anyhow::Result<&Dataset> {
    let found: Vec<&Dataset> = set.datasets().iter().filter(|d| !d.manifest().classes.is_empty()).collect();
    match found[..] {
        [one] => Ok(one),
        [] => Err(Usage("no data set with labelled images, such as tiny-imagenet-200".into()).into()),
        [first, ..] => {
            let name = &first.manifest().dataset;
            let what =
                format!("several data sets have labelled images; name the folder of one, such as {name}");
            Err(Usage(what).into())
        }
    }
}

/// Columns for the names of corruptions.
const NAMES: usize = 18 * 8;

/// A row for each corruption, a column for each severity, and the image itself above.
fn draw(dataset: &Dataset, split: Split, args: &Args, path: &Path) -> anyhow::Result<()> {
    let images = Column::open(dataset.images(split)?, "image", &Budget::unlimited())?;
    if args.image >= images.n_rows() {
        let what = format!("image {} of {split}, which has {} images", args.image, images.n_rows());
        return Err(Usage(what).into());
    }
    let stored = images.row(args.image)?;
    let Extent { channels, height, width } = Extent::from(dataset.manifest().image);
    let extent = Extent { channels: 3, height, width };
    let cell = [width + 2, height + 2];
    let columns = NAMES + cell[0] * Severity::ALL.len();
    let mut sheet = Sheet::new([columns, (TEXT + cell[1]) + TEXT + cell[1] * Corruption::ALL.len()]);
    let swap = if args.glass_swap { ", glass swap" } else { "" };
    sheet.text(&format!("profile {}, seed {}{swap}", args.profile, args.seed), 0, 0);
    sheet.image(&stored, NAMES, TEXT, width, height);
    let top = TEXT + cell[1];
    let (mut scratch, key) = (Scratch::new(), ImageKey { seed: args.seed, image: args.image });
    let manner = Manner { profile: args.profile, glass_swap: args.glass_swap };
    for (x, severity) in Severity::ALL.into_iter().enumerate() {
        let left = NAMES + x * cell[0];
        sheet.text(&severity.to_string(), left, top);
        for (y, corruption) in Corruption::ALL.into_iter().enumerate() {
            let row = top + TEXT + y * cell[1];
            sheet.text(corruption.as_str(), 0, row + cell[1] / 2 - TEXT / 2);
            let mut image = stored.repeat(3 / channels);
            corruption.apply(manner, severity, key, &mut image, extent, &mut scratch);
            sheet.image(&image, left, row, width, height);
        }
    }
    sheet.write(path)
}
