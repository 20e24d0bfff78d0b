//! Reads prepared data again: every byte against its checksum, and on request every value against the
//! statistics that were written with it. Damage hides nothing: whatever else there is, is read too.

use super::error::{IngestError, Result};
use super::stats::{PixelSums, neuron_statistics};
use crate::base::{DType, Fingerprint, Split};
use crate::shard::{
    Bytes, Content, Dataset, MANIFEST, Manifest, Mapped, OpenShard, Shard, ShardError, ShardInfo, ShardSet,
    Stored,
};
use rayon::prelude::*;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Hears how many more bytes are checked.
type OnBytes<'a> = &'a (dyn Fn(u64) + Sync);

/// A data set that is to be checked, as far as it can be opened.
#[derive(Debug)]
pub struct Unverified {
    root: PathBuf,
    opened: Opened,
}

#[derive(Debug)]
enum Opened {
    /// One of a folder's data sets.
    Whole(Arc<ShardSet>, usize),
    /// One of a folder of which shards are missing, or are not as long as its manifest says.
    Cut(Manifest),
    /// One whose manifest says nothing.
    Not(ShardError),
}

/// What was found out about a file.
#[derive(Debug)]
pub struct Verified {
    /// Its name: a shard's, or the manifest's if that is damaged or its statistics are not those of the images.
    pub file: String,
    /// Length in bytes, as the manifest says; 0 of the manifest itself.
    pub bytes: u64,
    /// What is wrong with it: of a shard the first damage in the order of its fields and blocks.
    pub damage: Option<IngestError>,
}

/// The data sets of `root`, a folder or a URL, for [`Unverified::verify`]: nothing is read yet but manifests. Fails if
/// nothing can be checked.
pub fn verify(root: &Path) -> Result<Vec<Unverified>> {
    let whole = |set: ShardSet| {
        let set = Arc::new(set);
        let one = |i: usize| Opened::Whole(Arc::clone(&set), i);
        let all =
            set.datasets().iter().enumerate().map(|(i, dataset)| (dataset.root().to_path_buf(), one(i)));
        all.map(|(root, opened)| Unverified { root, opened }).collect::<Vec<_>>()
    };
    let error = match ShardSet::open(root) {
        Ok(set) => return Ok(whole(set)),
        Err(error) => error,
    };
    // One data set cannot be opened: each on its own.
    let mut sets = Vec::new();
    for folder in ShardSet::places(root).unwrap_or_default() {
        match ShardSet::open(&folder) {
            Ok(set) => sets.extend(whole(set)),
            Err(error) => sets.push(Unverified { opened: Opened::of_damaged(&folder, error), root: folder }),
        }
    }
    let is_it = sets.iter().any(|set| !matches!(set.opened, Opened::Whole(..)));
    if is_it { Ok(sets) } else { Err(error.into()) }
}

impl Opened {
    /// What is known of the data set in `folder`, which cannot be opened because of `error`.
    fn of_damaged(folder: &Path, error: ShardError) -> Self {
        // A manifest that can be read has shards that cannot; that of a URL is read when it is opened.
        match Manifest::read(folder) {
            Ok(manifest) => Self::Cut(manifest),
            Err(_) => Self::Not(error),
        }
    }
}

impl Unverified {
    /// Name of the data set: its folder's.
    pub fn name(&self) -> String {
        self.manifest().map_or_else(|| super::folder_name(&self.root), |manifest| manifest.dataset.clone())
    }

    /// Bytes of all shards, as far as they are known.
    pub fn bytes(&self) -> u64 {
        self.manifest().map_or(0, |manifest| manifest.shards.iter().map(|info| info.bytes).sum())
    }

    fn dataset(&self) -> Option<&Dataset> {
        if let Opened::Whole(set, i) = &self.opened { set.datasets().get(*i) } else { None }
    }

    fn manifest(&self) -> Option<&Manifest> {
        if let Opened::Cut(manifest) = &self.opened {
            return Some(manifest);
        }
        self.dataset().map(Dataset::manifest)
    }

    /// Checks every byte on all threads: blocks, padding, digests. With `deep`, decodes all and compares the statistics.
    /// `on_bytes` hears of progress. Gives what was found of every shard, and of a damaged manifest.
    pub fn verify(self, deep: bool, on_bytes: OnBytes<'_>) -> Vec<Verified> {
        let of_manifest = |error| Verified { file: MANIFEST.to_owned(), bytes: 0, damage: Some(error) };
        let Some(manifest) = self.manifest() else {
            let Opened::Not(error) = self.opened else { return Vec::new() };
            return vec![of_manifest(error.into())];
        };
        let shards = &manifest.shards;
        let outcomes: Vec<Result<Option<PixelSums>>> =
            shards.par_iter().map(|info| self.verify_shard(info, deep, on_bytes)).collect();
        let statistics = if deep { compare_statistics(manifest, &outcomes, &self.root) } else { Ok(()) };
        let verified = |(info, outcome): (&ShardInfo, Result<_>)| Verified {
            file: info.file.clone(),
            bytes: info.bytes,
            damage: outcome.err(),
        };
        shards.iter().zip(outcomes).map(verified).chain(statistics.err().map(of_manifest)).collect()
    }

    /// Gives the sums of a shard's pixels if it has images and `deep` is set.
    fn verify_shard(&self, info: &ShardInfo, deep: bool, on_bytes: OnBytes<'_>) -> Result<Option<PixelSums>> {
        let told = AtomicU64::new(0);
        let outcome = self.read_shard(info, deep, &|n| {
            told.fetch_add(n, Ordering::Relaxed);
            on_bytes(n);
        });
        // What lies between blocks, and what was not read after a damage.
        on_bytes(info.bytes.saturating_sub(told.into_inner()));
        outcome
    }

    fn read_shard(&self, info: &ShardInfo, deep: bool, on_bytes: OnBytes<'_>) -> Result<Option<PixelSums>> {
        let shard = self.shard(info, on_bytes)?;
        // What is fetched takes its time there; the rest is in the checks.
        let is_far = self.dataset().is_some_and(Dataset::is_far);
        verify_bytes(&shard, info, if is_far { &|_| () } else { on_bytes })?;
        if deep { verify_values(&shard) } else { Ok(None) }
    }

    /// A shard with all of its bytes at hand.
    fn shard(&self, info: &ShardInfo, on_bytes: OnBytes<'_>) -> std::result::Result<OpenShard, ShardError> {
        if let Some(dataset) = self.dataset() {
            return dataset.whole_shard(info, on_bytes);
        }
        // What else the manifest says of it is in its bytes, whose digest is looked at.
        let path = self.root.join(&info.file);
        info.check_length(&path)?;
        let bytes = Mapped::open(&path).map_err(ShardError::io(&path, "open"))?;
        Shard::open(Stored::Mapped(bytes), &path)
    }
}

/// Whether mean and standard deviation are those of the images that were read, if all that count were.
fn compare_statistics(
    manifest: &Manifest,
    outcomes: &[Result<Option<PixelSums>>],
    root: &Path,
) -> Result<()> {
    let shown =
        |info: &ShardInfo| info.session.is_none() && info.split.is_none_or(|split| split == Split::Train);
    let mut images = manifest.shards.iter().zip(outcomes).filter(|(info, _)| shown(info)).peekable();
    // A corrupted copy of a test split states the statistics of the set it came from.
    if images.peek().is_none() {
        return Ok(());
    }
    let mut sums = PixelSums::default();
    for (_, outcome) in images {
        let Ok(more) = outcome else { return Ok(()) };
        if let Some(more) = more {
            sums.add(more);
        }
    }
    let (mean, std) = sums.mean_and_std();
    if mean != manifest.mean || std != manifest.std {
        let what = format!(
            "mean {mean:?} and std {std:?}, and the manifest says {:?} and {:?}",
            manifest.mean, manifest.std
        );
        return Err(IngestError::bad(root, what));
    }
    Ok(())
}

/// Checks every byte; `on_bytes` hears of those of blocks.
fn verify_bytes(shard: &OpenShard, info: &ShardInfo, on_bytes: OnBytes<'_>) -> Result<()> {
    // Blocks first: a damaged block is named with its place, a digest only says "damaged".
    let blocks: Vec<(usize, usize)> = (0..shard.meta().schema.0.len())
        .flat_map(|field| (0..shard.n_blocks(field)).map(move |block| (field, block)))
        .collect();
    let damage = |&(field, block): &(usize, usize)| match shard.checked_block(field, block) {
        Ok(stored) => {
            on_bytes(stored.len() as u64);
            None
        }
        Err(error) => Some(error),
    };
    // The first in order, whichever thread is the first to meet one.
    if let Some(error) = blocks.par_iter().find_map_first(damage) {
        return Err(error.into());
    }
    shard.verify_padding()?;
    let found = Fingerprint::of_large(shard.bytes().at_hand().unwrap_or_default());
    if found != info.blake3 {
        let what = format!("digest {found}, and the manifest says {}", info.blake3);
        return Err(IngestError::bad(shard.path(), what));
    }
    Ok(())
}

/// Decodes every block; compares what a shard says about its content.
fn verify_values(shard: &OpenShard) -> Result<Option<PixelSums>> {
    let (image, others): (Vec<usize>, Vec<usize>) =
        (0..shard.meta().schema.0.len()).partition(|&f| shard.meta().schema.0[f].name == "image");
    for &field in &others {
        shard.read_column(field)?;
    }
    if let Content::Session(meta) = &shard.meta().content
        && shard.meta().split == Some(Split::Train)
    {
        let (field, description) = shard.field("responses")?;
        let values = floats(shard, description.dtype, &shard.read_column(field)?)?;
        let (mean, variance) = neuron_statistics(&values, meta.mean.len().max(1));
        // Statistics are of the recorded f32 values; what is stored may be rounded.
        let exact = description.dtype == DType::F32;
        if exact && (mean != meta.mean || variance != meta.variance) {
            return Err(IngestError::bad(shard.path(), "responses do not have the statistics it states"));
        }
    }
    image.first().map(|&field| pixel_sums(shard, field)).transpose()
}

fn pixel_sums(shard: &OpenShard, field: usize) -> Result<PixelSums> {
    let description = &shard.meta().schema.0[field];
    let ([channels, ..], DType::U8 | DType::F32) = (&description.shape.0[..], description.dtype) else {
        return Err(IngestError::bad(shard.path(), "its images are neither bytes nor f32"));
    };
    let of_block = |block: usize| -> Result<Vec<PixelSums>> {
        let mut raw = vec![0; shard.block_bytes(field, block)];
        shard.read_block(field, block, &mut raw)?;
        let image = |row: &[u8]| PixelSums::of(row, *channels, description.dtype);
        Ok(raw.chunks_exact(shard.row_bytes(field)).map(image).collect())
    };
    let blocks: Vec<_> = (0..shard.n_blocks(field)).into_par_iter().map(of_block).collect();
    let mut total = PixelSums::default();
    for block in blocks {
        // The order of additions of `prepare`: images to blocks, blocks to the whole.
        let mut sums = PixelSums::default();
        block?.iter().for_each(|more| sums.add(more));
        total.add(&sums);
    }
    Ok(total)
}

fn floats(shard: &OpenShard, dtype: DType, bytes: &[u8]) -> Result<Vec<f32>> {
    let bad =
        || IngestError::bad(shard.path(), format!("values of type {dtype} where numbers were recorded"));
    dtype.floats(bytes).ok_or_else(bad)
}
