//! Reads prepared data again: every byte against its checksum, and on request every value against the
//! statistics that were written with it.

use super::error::{IngestError, Result};
use super::stats::{PixelSums, neuron_statistics};
use crate::base::{DType, Fingerprint, Split};
use crate::shard::{Bytes, Content, Dataset, OpenShard, ShardInfo};
use rayon::prelude::*;
use std::sync::atomic::{AtomicU64, Ordering};

/// Hears how many more bytes are checked.
type OnBytes<'a> = &'a (dyn Fn(u64) + Sync);

/// Checks every byte of `dataset` on all threads: blocks, padding, digests. With `deep`, decodes all
/// and compares the statistics. `on_bytes` hears of progress. The first damage in file order is reported.
pub fn verify(dataset: &Dataset, deep: bool, on_bytes: OnBytes<'_>) -> Result<()> {
    let shards = &dataset.manifest().shards;
    let outcomes: Vec<Result<Option<PixelSums>>> =
        shards.par_iter().map(|info| verify_shard(dataset, info, deep, on_bytes)).collect();
    let mut sums = PixelSums::default();
    let shown = |info: &ShardInfo| info.split.is_none_or(|split| split == Split::Train);
    for (outcome, info) in outcomes.into_iter().zip(shards) {
        if let Some(more) = outcome?.filter(|_| shown(info)) {
            sums.add(&more);
        }
    }
    // A corrupted copy of a test split states the statistics of the set it came from.
    let deep = deep && shards.iter().any(shown);
    let manifest = dataset.manifest();
    let (mean, std) = sums.mean_and_std();
    if deep && (mean != manifest.mean || std != manifest.std) {
        let what = format!(
            "mean {mean:?} and std {std:?}, and the manifest says {:?} and {:?}",
            manifest.mean, manifest.std
        );
        return Err(IngestError::bad(dataset.root(), what));
    }
    Ok(())
}

/// Gives the sums of a shard's pixels if it has images and `deep` is set.
fn verify_shard(
    dataset: &Dataset,
    info: &ShardInfo,
    deep: bool,
    on_bytes: OnBytes<'_>,
) -> Result<Option<PixelSums>> {
    let shard = dataset.whole_shard(info, on_bytes)?;
    // What is fetched takes its time there; the rest is in the checks.
    let on_bytes = |n: u64| {
        if !dataset.is_far() {
            on_bytes(n);
        }
    };
    // Blocks first: a damaged block is named with its place, a digest only says "damaged".
    let blocks: Vec<(usize, usize)> = (0..shard.meta().schema.0.len())
        .flat_map(|field| (0..shard.n_blocks(field)).map(move |block| (field, block)))
        .collect();
    let told = AtomicU64::new(0);
    blocks.par_iter().try_for_each(|&(field, block)| {
        let stored = shard.checked_block(field, block)?.len() as u64;
        told.fetch_add(stored, Ordering::Relaxed);
        on_bytes(stored);
        Ok::<(), IngestError>(())
    })?;
    shard.verify_padding()?;
    let found = Fingerprint::of_large(shard.bytes().at_hand().unwrap_or_default());
    if found != info.blake3 {
        return Err(IngestError::bad(
            shard.path(),
            format!("digest {found}, and the manifest says {}", info.blake3),
        ));
    }
    on_bytes(info.bytes - told.into_inner());
    if deep { verify_values(&shard) } else { Ok(None) }
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
