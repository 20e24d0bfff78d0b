//! Corrupted copies of a prepared split: as folders of JPEGs in the layout of Tiny-ImageNet-C, or as shards.
//!
//! Images are corrupted in colour. Of shards of gray images each is taken as three equal channels, as the
//! reference does, and only shards turn gray again.

mod shards;

use super::error::{IngestError, Result};
use crate::base::color::luma;
use crate::base::{DType, Split};
use crate::corruption::{Corruption, Extent, ImageKey, Jpeg, Manner, Profile, Scratch, Severity};
use crate::shard::{Dataset, Manifest, ShardSet};
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// What to make.
#[derive(Debug, Clone)]
pub struct CorruptOptions {
    /// Folder to make; it must not exist.
    pub out: PathBuf,
    /// Whose images.
    pub split: Split,
    /// Parameters.
    pub profile: Profile,
    /// Glass blur swaps pixels ([`Manner::glass_swap`]).
    pub glass_swap: bool,
    /// Whether images of shards pass a JPEG of quality 85; [`Profile::has_jpeg`] if not given.
    pub jpeg85: Option<bool>,
    /// Which corruptions.
    pub corruptions: Vec<Corruption>,
    /// Which severities.
    pub severities: Vec<Severity>,
    /// Every random number depends on it.
    pub seed: u64,
    /// Files or shards.
    pub layout: Layout,
    /// Threads; 0 is one a core. They change no byte.
    pub threads: usize,
}

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// `corruption/severity/class/split_number.JPEG`, quality 85, with Huffman tables of their own, as the files of
    /// Tiny-ImageNet-C are.
    Folders,
    /// A data set `corruption-severity` each, of exact pixels. Profile T passes through a JPEG of quality 85, as
    /// its published files did; profile I does not, unless [`CorruptOptions::jpeg85`] says otherwise.
    Shards,
}

impl CorruptOptions {
    /// What is not as by default in images of `corruption`, by name.
    pub fn departures(&self, corruption: Corruption) -> impl Iterator<Item = (&'static str, bool)> + use<> {
        let swap = self.glass_swap && corruption == Corruption::GlassBlur;
        let jpeg = self.jpeg85.filter(|&on| on != self.profile.has_jpeg());
        let swap = swap.then_some(("glass_swap", true));
        swap.into_iter().chain(jpeg.map(|on| ("jpeg85", on)))
    }
}

/// What was made of one corruption and severity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cell {
    /// The corruption.
    pub corruption: Corruption,
    /// Its severity.
    pub severity: Severity,
    /// Number of images.
    pub images: u64,
    /// Bytes of the files.
    pub bytes: u64,
}

/// The images of one split, decoded.
struct Images<'a> {
    manifest: &'a Manifest,
    /// As they are stored.
    stored: Extent,
    pixels: Vec<u8>,
    ids: Vec<u32>,
    labels: Vec<u32>,
}

/// Memory of one thread.
#[derive(Default)]
struct Memory {
    scratch: Scratch,
    jpeg: Jpeg,
    image: Vec<u8>,
}

/// Corrupts the images of a split. `tick` is told of images and says whether to go on. The folder appears when
/// all is written.
pub fn corrupt(
    dataset: &Dataset,
    options: &CorruptOptions,
    tick: &(dyn Fn(u64) -> bool + Sync),
) -> Result<Vec<Cell>> {
    let out = &options.out;
    if out.exists() {
        return Err(IngestError::bad(out, "is there already; name another folder, or remove it"));
    }
    let images = Images::open(dataset, options.split)?;
    let parent = out.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(IngestError::io(parent, "create"))?;
    let staging = tempfile::Builder::new().prefix(".corrupting-").tempdir_in(parent);
    let staging = staging.map_err(IngestError::io(parent, "create a folder in"))?;
    let root = staging.path().join("set");
    fs::create_dir(&root).map_err(IngestError::io(&root, "create"))?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(options.threads).build();
    let pool = pool.map_err(|e| IngestError::bad(out, format!("no threads could be started: {e}")))?;
    let cells = options.corruptions.iter().flat_map(|&c| options.severities.iter().map(move |&s| (c, s)));
    let one = |(corruption, severity)| {
        let job = Job { images: &images, options, corruption, severity, root: &root, tick };
        let bytes = pool.install(|| match options.layout {
            Layout::Folders => job.folders(),
            Layout::Shards => job.shards(),
        })?;
        Ok(Cell { corruption, severity, images: images.ids.len() as u64, bytes })
    };
    let made = cells.map(one).collect::<Result<Vec<_>>>()?;
    if options.layout == Layout::Shards {
        ShardSet::list(&root)?;
    }
    fs::rename(&root, out).map_err(IngestError::io(out, "put the finished set in place"))?;
    Ok(made)
}

impl<'a> Images<'a> {
    fn open(dataset: &'a Dataset, split: Split) -> Result<Self> {
        let manifest = dataset.manifest();
        let stored = Extent::from(manifest.image);
        if manifest.pixels != DType::U8 || manifest.classes.is_empty() {
            let what = "holds no labelled images of bytes, which are what is corrupted";
            return Err(IngestError::bad(dataset.root(), what));
        }
        let mut images = Self { manifest, stored, pixels: Vec::new(), ids: Vec::new(), labels: Vec::new() };
        for shard in dataset.images(split)? {
            let column = |name: &str| shard.read_column(shard.field(name)?.0);
            let words = |name: &str| -> Result<Vec<u32>> {
                Ok(column(name)?.as_chunks().0.iter().map(|&word| u32::from_le_bytes(word)).collect())
            };
            images.pixels.append(&mut column("image")?);
            images.ids.append(&mut words("id")?);
            images.labels.append(&mut words("label")?);
        }
        let whole = images.pixels.len() == images.ids.len() * stored.len()
            && images.labels.len() == images.ids.len()
            && images.labels.iter().all(|&label| (label as usize) < manifest.classes.len());
        match (images.ids.is_empty(), whole) {
            (true, _) => Err(IngestError::bad(dataset.root(), format!("has no {split} images"))),
            (_, false) => Err(IngestError::bad(
                dataset.root(),
                "its images, ids and labels do not belong together; run `nct verify`",
            )),
            _ => Ok(images),
        }
    }
}

/// One corruption and severity.
struct Job<'a> {
    images: &'a Images<'a>,
    options: &'a CorruptOptions,
    corruption: Corruption,
    severity: Severity,
    root: &'a Path,
    tick: &'a (dyn Fn(u64) -> bool + Sync),
}

impl Job<'_> {
    /// The extent of a corrupted image, which has colour.
    fn extent(&self) -> Extent {
        Extent { channels: 3, ..self.images.stored }
    }

    /// Corrupts image number `row` in colour.
    fn apply<'m>(&self, row: usize, scratch: &mut Scratch, image: &'m mut Vec<u8>) -> &'m mut [u8] {
        let n = self.images.stored.len();
        let stored = &self.images.pixels[row * n..][..n];
        image.clear();
        (0..3 / self.images.stored.channels).for_each(|_| image.extend_from_slice(stored));
        let key = ImageKey { seed: self.options.seed, image: u64::from(self.images.ids[row]) };
        let manner = Manner { profile: self.options.profile, glass_swap: self.options.glass_swap };
        self.corruption.apply(manner, self.severity, key, image, self.extent(), scratch);
        image
    }

    fn tell(&self, images: usize) -> Result<()> {
        if (self.tick)(images as u64) { Ok(()) } else { Err(IngestError::Stopped) }
    }

    /// Writes a JPEG each; gives the bytes of all.
    fn folders(&self) -> Result<u64> {
        let cell = self.root.join(self.corruption.as_str()).join(self.severity.to_string());
        let mut folders = BTreeMap::new();
        for &label in &self.images.labels {
            let folder = || cell.join(&self.images.manifest.classes[label as usize].id);
            folders.entry(label).or_insert_with(folder);
        }
        for folder in folders.values() {
            fs::create_dir_all(folder).map_err(IngestError::io(folder, "create"))?;
        }
        let write = |memory: &mut Memory, row: usize| -> Result<u64> {
            let Memory { scratch, jpeg, image } = memory;
            let image = self.apply(row, scratch, image);
            let name = format!("{}_{:05}.JPEG", self.options.split, self.images.ids[row]);
            let path = folders[&self.images.labels[row]].join(name);
            let file = jpeg.encode(image, self.extent(), Profile::QUALITY, true);
            let file = file.map_err(|e| IngestError::bad(&path, format!("cannot be encoded: {e}")))?;
            fs::write(&path, file).map_err(IngestError::io(&path, "write"))?;
            self.tell(1)?;
            Ok(file.len() as u64)
        };
        (0..self.images.ids.len()).into_par_iter().map_init(Memory::default, write).sum()
    }

    /// Appends image number `row` as shards hold it: with the channels of the shards it came from.
    fn append(&self, row: usize, memory: &mut Memory, raw: &mut Vec<u8>) -> Result<()> {
        let extent = self.extent();
        let Memory { scratch, jpeg, image } = memory;
        let image = self.apply(row, scratch, image);
        if self.options.jpeg85.unwrap_or(self.options.profile.has_jpeg()) {
            let passed = jpeg.round_trip(image, extent, Profile::QUALITY);
            passed.map_err(|e| IngestError::bad(self.root, format!("an image cannot be encoded: {e}")))?;
        }
        if self.images.stored.channels == 3 {
            raw.extend_from_slice(image);
        } else {
            let (red, rest) = image.split_at(extent.plane());
            let (green, blue) = rest.split_at(extent.plane());
            raw.extend(red.iter().zip(green).zip(blue).map(|((&r, &g), &b)| luma(r, g, b)));
        }
        Ok(())
    }
}
