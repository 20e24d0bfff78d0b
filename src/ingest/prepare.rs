//! From raw folders to shards. A data set is written to a hidden folder beside its place and renamed
//! when it is whole; the bytes are a function of the input and the options, whatever the threads.

mod flush;
mod images;
mod order;
mod plan;
mod read;
mod source;
mod staging;
mod write;

pub use plan::{Action, Planned, plan};

use super::error::{IngestError, Result};
use super::fit::{Cut, Fit, Resize};
use super::image::Channels;
use super::sessions::{Bins, NeuralSet, Session, TimeBins};
use super::stats::{PixelSums, neuron_statistics};
use super::{Found, ImageSet, discover, split};
use crate::base::{DType, Fingerprint, Split};
use crate::shard::{
    BlockOptions, ClassInfo, Content, Dataset, Field, MANIFEST, MANIFEST_VERSION, Manifest, SessionInfo,
    SessionMeta, ShardSet,
};
use images::Seen;
use rayon::prelude::*;
use read::{Form, read_alike, read_image};
use source::{Source, file_bytes, file_lengths, files_fingerprint, source_files};
use staging::Staging;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Which colours are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Color {
    /// Red, green and blue (gray sets stay gray).
    Keep,
    /// Luma, a third of the bytes.
    Gray,
}

/// Element type of stored responses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Responses {
    /// As they are.
    F32,
    /// Half precision: 11 significant bits.
    F16,
    /// bfloat16: 8 significant bits.
    Bf16,
}

/// Which shards of a data set are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Share {
    /// All, and the data set is put in its place.
    #[default]
    All,
    /// Part number `part` of `parts`, from 0: a folder of its own beside the place, for several machines.
    Part {
        /// Its number.
        part: u32,
        /// How many there are.
        parts: u32,
    },
    /// None: those that the parts made are put together.
    Merge,
}

impl Share {
    /// Whether shard number `number` of a data set is made.
    fn has(self, number: usize) -> bool {
        match self {
            Self::All | Self::Merge => true,
            Self::Part { part, parts } => number % parts.max(1) as usize == part as usize,
        }
    }
}

/// What `prepare` should do.
#[derive(Debug, Clone)]
pub struct PrepareOptions {
    /// Folder of the shards.
    pub out: PathBuf,
    /// Names of the data sets to prepare; all if empty.
    pub only: Vec<String>,
    /// Colours.
    pub color: Color,
    /// zstd level; 0 leaves images of bytes to their bit planes.
    pub level: i32,
    /// Threads.
    pub jobs: usize,
    /// Replace what is there.
    pub force: bool,
    /// Element type of responses.
    pub responses: Responses,
    /// Decoded bytes of images per shard.
    pub shard_bytes: u64,
    /// Time bins of a response.
    pub bins: TimeBins,
    /// Seed of the splits; the reference always uses 1000.
    pub split_seed: u32,
    /// Share of the labelled images that validate.
    pub valid_size: f64,
    /// Share of the stimuli that train.
    pub train_frac: f64,
    /// First class of labelled images, and the one after the last; all if not given.
    pub classes: Option<[u32; 2]>,
    /// Size of labelled images; as they are if not given.
    pub resize: Option<Resize>,
    /// What is kept of stimuli.
    pub cut: Cut,
    /// Which shards are made. They are the same bytes, whoever makes them.
    pub share: Share,
}

impl PrepareOptions {
    /// The reference's settings.
    pub fn new(out: PathBuf, jobs: usize) -> Self {
        Self {
            out,
            only: Vec::new(),
            color: Color::Keep,
            level: BlockOptions::default().level,
            jobs,
            force: false,
            responses: Responses::F32,
            // Small enough to copy and verify piecewise, large enough that a big set has few files.
            shard_bytes: 256 << 20,
            bins: TimeBins { which: Bins::First(12), average: false },
            split_seed: 1000,
            valid_size: 0.1,
            train_frac: 0.8,
            classes: None,
            resize: None,
            cut: Cut::default(),
            share: Share::All,
        }
    }

    fn blocks(&self) -> BlockOptions {
        BlockOptions { level: self.level, ..BlockOptions::default() }
    }

    /// Gray if asked for; else labelled images are RGB, and stimuli have the channels of their files.
    fn form(&self, labelled: bool) -> Form {
        let channels = match self.color {
            Color::Gray => Channels::Gray,
            Color::Keep if labelled => Channels::Rgb,
            Color::Keep => Channels::Kept,
        };
        let fit = match self.resize {
            Some(resize) if labelled => Fit::Resized(resize),
            None if labelled => Fit::Kept,
            _ if self.cut == Cut::default() => Fit::Kept,
            _ => Fit::Cut(self.cut),
        };
        Form { channels, fit, labelled }
    }

    fn settings(&self, labelled: bool) -> Vec<String> {
        let mut settings = vec![
            format!("color = {:?}", self.color).to_lowercase(),
            format!("level = {}", self.level),
            format!("responses = {:?}", self.responses).to_lowercase(),
            format!("shard_bytes = {}", self.shard_bytes),
            format!("time_bins_sum = {}", self.bins.which),
            format!("avg = {}", self.bins.average),
            format!("split_seed = {}", self.split_seed),
            format!("valid_size = {}", self.valid_size),
            format!("train_frac = {}", self.train_frac),
        ];
        settings.extend(self.classes.filter(|_| labelled).map(|[a, b]| format!("classes = {a}..{b}")));
        match self.form(labelled).fit {
            Fit::Kept => {}
            Fit::Resized(resize) => settings.push(format!("resize = {resize}")),
            Fit::Cut(Cut { crop, subsample, scale }) => {
                let [above, below, left, right] = crop;
                settings.push(format!("crop = {above},{below},{left},{right}"));
                settings.push(format!("subsample = {subsample}"));
                settings.push(format!("scale = {scale}"));
            }
        }
        settings
    }
}

/// What became of one data set.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// Of a set that is one of many: the name of all.
    pub group: Option<String>,
    /// What is in the folder now.
    pub manifest: Manifest,
    /// Images that were decoded; 0 if the data set was there already.
    pub images: u64,
    /// What a user should know.
    pub notes: Vec<String>,
}

/// News for a progress display.
#[derive(Debug, Clone, Copy)]
pub enum Progress<'a> {
    /// A data set of so many images is begun.
    Begin(&'a str, u64),
    /// So many more images are done.
    Images(u64),
}

/// Whom to tell; false means that the user wants to stop.
pub type OnProgress<'a> = &'a (dyn Fn(Progress<'_>) -> bool + Sync);

/// Prepares the data sets under `data`. Those that are whole when the user stops it stay.
pub fn prepare(data: &Path, options: &PrepareOptions, progress: OnProgress<'_>) -> Result<Vec<Prepared>> {
    let found = choose(data, options)?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(options.jobs.max(1)).build();
    let pool = pool.map_err(|e| IngestError::bad(data, format!("no threads could be started: {e}")))?;
    // Folders of groups before the one that they lie in.
    let mut made: Vec<PathBuf> = found.iter().map(|set| set.out(&options.out)).collect();
    made.push(options.out.clone());
    made.retain(|folder| !folder.exists());
    fs::create_dir_all(&options.out).map_err(IngestError::io(&options.out, "create"))?;
    let prepared: Result<Vec<Prepared>> =
        pool.install(|| found.iter().map(|set| prepare_one(set, options, progress)).collect());
    if prepared.is_err() {
        // Only empty folders go: data sets that are whole stay.
        for folder in made {
            let _ = fs::remove_dir(folder);
        }
    }
    prepared
}

/// The data sets and classes that are wanted.
fn choose(data: &Path, options: &PrepareOptions) -> Result<Vec<Found>> {
    let found = discover(data, &options.only)?;
    let n_labelled = found.iter().filter(|set| matches!(set, Found::Images(_))).count();
    let idle = [
        ("--classes", options.classes.is_some(), n_labelled == 0, "labelled images"),
        ("--resize", options.resize.is_some(), n_labelled == 0, "labelled images"),
        (
            "--crop, --subsample and --scale",
            options.cut != Cut::default(),
            n_labelled == found.len(),
            "stimuli",
        ),
    ];
    if let Some((flag, _, _, of)) = idle.iter().find(|(_, given, none, _)| *given && *none) {
        return Err(IngestError::bad(
            data,
            format!("no data set to prepare has {of}, which {flag} would change"),
        ));
    }
    let of_classes = |set: Found| match (set, options.classes) {
        (Found::Images(set), Some([start, end])) => set.of_class_range(start, end).map(Found::Images),
        (set, _) => Ok(set),
    };
    found.into_iter().map(of_classes).collect()
}

fn prepare_one(set: &Found, options: &PrepareOptions, progress: OnProgress<'_>) -> Result<Prepared> {
    let out = set.out(&options.out);
    let target = out.join(set.name());
    if target.exists() && !options.force {
        let manifest = already_there(&target, &settings(set, options)?)?;
        staging::remove_journal(&target)?;
        ShardSet::list(&out)?;
        let notes = [set.notes(), &["already prepared".to_owned()]].concat();
        return Ok(Prepared { group: set.group().map(str::to_owned), manifest, images: 0, notes });
    }
    // Lengths are told by reading; asking for them before would take as long as statistics and filter together.
    let labelled = matches!(set, Found::Images(_));
    let mut begun = options.settings(labelled);
    let fingerprint = files_fingerprint(set)?;
    begun.extend([format!("dataset = {}", set.name()), format!("files = {fingerprint}")]);
    let staging = match options.share {
        Share::All => Staging::open(&out, set.name(), &begun)?,
        Share::Part { part, parts } => Staging::open_part(&out, set.name(), part, parts, &begun)?,
        Share::Merge => Staging::merged(&out, set.name(), &begun)?,
    };
    let (name, settings) = (set.name().to_owned(), options.settings(labelled));
    let (blocks, notes) = (options.blocks(), set.notes().to_vec());
    let mut job = Job { name, options, settings, staging, blocks, progress, notes };
    let made = match set {
        Found::Images(set) => job.images(set, &fingerprint),
        Found::Neural(set) => job.neural(set, &fingerprint),
    };
    match made {
        Ok((manifest, images)) => {
            let group = set.group().map(str::to_owned);
            if let Share::Part { part, parts } = options.share {
                job.notes.push(format!("part {} of {parts}; --merge puts them together", part + 1));
                let manifest = job.staging.leave(manifest);
                let images = manifest.shards.iter().filter(|s| s.session.is_none()).map(|s| s.rows).sum();
                return Ok(Prepared { group, manifest, images, notes: job.notes });
            }
            Ok(Prepared { group, manifest: job.staging.finish(manifest)?, images, notes: job.notes })
        }
        Err(e) => {
            // What is done is sound, and the rest may go better next time: there may be room on the disk again.
            if matches!(e, IngestError::Stopped) || job.staging.refused(&e) {
                job.staging.keep();
            }
            Err(e)
        }
    }
}

/// What the bytes of a data set's shards depend on.
fn settings(set: &Found, options: &PrepareOptions) -> Result<Vec<String>> {
    let mut settings = options.settings(matches!(set, Found::Images(_)));
    settings.push(Source::of(&files_fingerprint(set)?, &file_lengths(&source_files(set))?).setting);
    Ok(settings)
}

/// A data set of the same files and settings counts as prepared; anything else is not touched.
fn already_there(target: &Path, settings: &[String]) -> Result<Manifest> {
    let way_out = "; give `--force` to replace it, or another folder with `--out`";
    if !target.join(MANIFEST).is_file() {
        return Err(IngestError::bad(target, format!("is there and is no prepared data set{way_out}")));
    }
    let manifest = Dataset::open(target)?.manifest().clone();
    if manifest.settings != settings {
        let differs = manifest.settings.iter().find(|s| !settings.contains(s)).cloned().unwrap_or_default();
        let what = format!("was prepared from other files or with other settings ({differs}){way_out}");
        return Err(IngestError::bad(target, what));
    }
    Ok(manifest)
}

struct Job<'a> {
    name: String,
    options: &'a PrepareOptions,
    settings: Vec<String>,
    staging: Staging,
    blocks: BlockOptions,
    progress: OnProgress<'a>,
    notes: Vec<String>,
}

/// An image file, its id and its label.
type Item<'a> = (&'a Path, u32, u32);

/// The images of one split; of none for stimuli, whose sessions are split.
type Part<'a> = (Option<Split>, Vec<Item<'a>>);

impl Job<'_> {
    /// Makes the shards; gives the manifest so far and the number of images.
    fn images(&mut self, set: &ImageSet, fingerprint: &Fingerprint) -> Result<(Manifest, u64)> {
        let n_images = set.train.len() + set.test.len();
        (self.progress)(Progress::Begin(&set.name, n_images as u64));
        let Some((first, _)) = set.train.first().or(set.test.first()) else {
            return Err(IngestError::bad(&set.root, "holds no image"));
        };
        let shape = read_image(first, self.options.form(true), &mut Vec::new())?.shape;
        let validates =
            split::image_validation(set.train.len(), self.options.valid_size, self.options.split_seed);
        let items = |split: Split| -> Part<'_> {
            let files = if split == Split::Test { &set.test } else { &set.train };
            let wanted = |i: &usize| split == Split::Test || validates[*i] == (split == Split::Validation);
            let item = |i: usize| (files[i].0.as_path(), i as u32, files[i].1);
            (Some(split), (0..files.len()).filter(wanted).map(item).collect())
        };
        let parts = Split::ALL.map(items);
        // Of what is trained on; a set that only tests has statistics of its own.
        let shown = parts.iter().position(|(_, items)| !items.is_empty()).unwrap_or(0);
        let (sums, source) =
            self.image_shards(&parts, &Content::Images, shape, DType::U8, |seen: &[Seen]| {
                let mut lengths = vec![0; n_images];
                for ((split, items), (_, read)) in parts.iter().zip(seen) {
                    // Files of the test set are numbered on their own, and come last.
                    let first = if *split == Some(Split::Test) { set.train.len() } else { 0 };
                    // Of a part, whose lengths nobody asks for, not all were read.
                    for (item, &bytes) in items.iter().zip(read) {
                        lengths[first + item.1 as usize] = bytes;
                    }
                }
                (seen[shown].0.clone(), Source::of(fingerprint, &lengths))
            })?;
        let classes =
            set.classes.iter().map(|c| ClassInfo { id: c.id.clone(), words: c.words.clone() }).collect();
        Ok((self.manifest(shape, DType::U8, &sums, source, classes, Vec::new()), n_images as u64))
    }

    /// As [`Job::images`].
    fn neural(&mut self, set: &NeuralSet, fingerprint: &Fingerprint) -> Result<(Manifest, u64)> {
        let n_images = set.images.len() as u64;
        (self.progress)(Progress::Begin(&set.name, n_images));
        let trains = split::neural_training(set.n_split(), self.options.train_frac, self.options.split_seed);
        // Sessions first: they are small, and most of what can be wrong is in them.
        let mut infos = Vec::new();
        let mut lengths = Vec::new();
        let rows: Vec<u32> = set.images.keys().copied().collect();
        let mut ids = BTreeSet::new();
        for path in &set.sessions {
            let session = set.read(path, &self.options.bins)?;
            lengths.push(file_bytes(path)?);
            if !ids.insert(session.id.clone()) {
                return Err(IngestError::bad(
                    path,
                    format!("session_id {} is that of another file too", session.id),
                ));
            }
            self.notes.extend(session.notes.iter().map(|note| format!("session {}: {note}", session.id)));
            // Sessions are small: the first part has them.
            if self.options.share.has(0) {
                self.session_shards(&session, &trains, &rows, path)?;
            }
            infos.push(SessionInfo { id: session.id, neurons: session.n_neurons as u32 });
        }
        let items: Vec<Item> = set.images.iter().map(|(&id, path)| (path.as_path(), id, 0)).collect();
        let first = read_image(items[0].0, self.options.form(false), &mut Vec::new())?;
        if first.dtype == DType::F32 {
            self.notes.push("images are floating-point: they are not divided by 255".to_owned());
        }
        let (shape, dtype) = (first.shape, first.dtype);
        let (sums, source) =
            self.image_shards(&[(None, items)], &Content::Stimuli, shape, dtype, |seen: &[Seen]| {
                let (sums, read) = &seen[0];
                lengths.extend_from_slice(read);
                (sums.clone(), Source::of(fingerprint, &lengths))
            })?;
        Ok((self.manifest(shape, dtype, &sums, source, Vec::new(), infos), n_images))
    }

    fn manifest(
        &self,
        image: [u32; 3],
        pixels: DType,
        sums: &PixelSums,
        source: Source,
        classes: Vec<ClassInfo>,
        sessions: Vec<SessionInfo>,
    ) -> Manifest {
        let (mean, std) = sums.mean_and_std();
        Manifest {
            version: MANIFEST_VERSION,
            dataset: self.name.clone(),
            writer: format!("nct {}", env!("CARGO_PKG_VERSION")),
            settings: self.settings.iter().cloned().chain([source.setting]).collect(),
            raw_bytes: source.bytes,
            image,
            pixels,
            mean,
            std,
            classes,
            sessions,
            shards: Vec::new(),
        }
    }
}

/// Reads and decodes every image under `data` on `jobs` threads and drops it: the least that preparing it
/// costs. Gives their number.
pub fn decode_all(data: &Path, jobs: usize) -> Result<u64> {
    let found = discover(data, &[])?;
    let files = found.iter().flat_map(|set| match set {
        Found::Images(set) => set.train.iter().chain(&set.test).map(|(path, _)| path).collect::<Vec<_>>(),
        Found::Neural(set) => set.images.values().collect(),
    });
    let files: Vec<&PathBuf> = files.collect();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(jobs.max(1)).build();
    let pool = pool.map_err(|e| IngestError::bad(data, format!("no threads could be started: {e}")))?;
    let decode = |pixels: &mut Vec<u8>, path: &&PathBuf| {
        pixels.clear();
        read_image(path, Form::KEPT, pixels).map(|_| 1)
    };
    pool.install(|| files.par_iter().map_init(Vec::new, decode).sum())
}
