//! Copies prepared data from a store into a folder: all of it, checked, and in place as a whole.

use super::error::{IngestError, Result};
use crate::base::Fingerprint;
use crate::files::write_whole;
use crate::shard::{Bytes, Dataset, MANIFEST, ShardInfo, ShardSet};
use rayon::prelude::*;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// Copies `dataset` to a folder of its name in `out`; false if it is there already. What an interrupted copy has is
/// used again. `on_bytes` hears of progress, and `stop` ends the work after the shards that are under way.
pub fn fetch(
    dataset: &Dataset,
    out: &Path,
    on_bytes: &(dyn Fn(u64) + Sync),
    stop: &AtomicBool,
) -> Result<bool> {
    let manifest = dataset.manifest();
    let target = out.join(&manifest.dataset);
    if target.exists() {
        if Dataset::open(&target)?.manifest().fingerprint() == manifest.fingerprint() {
            on_bytes(manifest.shards.iter().map(|info| info.bytes).sum());
            return Ok(false);
        }
        let what = "is there already and holds other data; remove it, or name another folder with --out";
        return Err(IngestError::bad(&target, what));
    }
    let staging = out.join(format!(".fetching-{}", manifest.dataset));
    fs::create_dir_all(&staging).map_err(IngestError::io(&staging, "create"))?;
    let lock = staging.join("lock");
    let file = File::create(&lock).map_err(IngestError::io(&lock, "create"))?;
    if file.try_lock().is_err() {
        return Err(IngestError::bad(&staging, "another process copies this data set now"));
    }
    manifest.shards.par_iter().try_for_each(|info| {
        if stop.load(Ordering::Relaxed) {
            return Err(IngestError::Stopped);
        }
        shard(dataset, info, &staging, on_bytes)
    })?;
    let text = serde_json::to_string_pretty(manifest).expect("a manifest has only plain values");
    let manifest = staging.join(MANIFEST);
    write_whole(&manifest, text.as_bytes()).map_err(IngestError::io(&manifest, "write"))?;
    fs::remove_file(&lock).map_err(IngestError::io(&lock, "remove"))?;
    let placed = fs::rename(&staging, &target).and_then(|()| File::open(out)?.sync_all());
    placed.map_err(IngestError::io(&target, "put the finished data set in place"))?;
    ShardSet::list(out)?;
    Ok(true)
}

/// Copies one shard, unless it is there.
fn shard(dataset: &Dataset, info: &ShardInfo, staging: &Path, on_bytes: &(dyn Fn(u64) + Sync)) -> Result<()> {
    let path: PathBuf = staging.join(&info.file);
    if fs::read(&path).is_ok_and(|bytes| Fingerprint::of_large(&bytes) == info.blake3) {
        on_bytes(info.bytes);
        return Ok(());
    }
    let shard = dataset.whole_shard(info, on_bytes)?;
    let bytes = shard.bytes().at_hand().unwrap_or_default();
    let found = Fingerprint::of_large(bytes);
    if found != info.blake3 {
        let what =
            format!("digest {found}, and the manifest says {}: the stored file is damaged", info.blake3);
        return Err(IngestError::bad(shard.path(), what));
    }
    write_whole(&path, bytes).map_err(IngestError::io(&path, "write"))
}
