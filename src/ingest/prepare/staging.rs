//! The hidden folder in which a data set grows, and the journal in it.
//!
//! Every finished shard is flushed and then recorded beside itself. `prepare` with the same inputs and
//! settings takes recorded shards as they are and makes the others, so that one that was killed loses
//! at most the shard it was at, and ends with the same bytes.

use super::{Fingerprint, IngestError, Manifest, PixelSums, Result, Split};
use crate::files::write_whole;
use crate::shard::{MANIFEST, Mapped, Shard, ShardError, ShardInfo, ShardSet};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

const SETTINGS: &str = "settings.json";
const LOCK: &str = "lock";
/// What the name of a record ends with.
const DONE: &str = ".done";

/// Record of a finished shard.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Finished {
    pub(super) info: ShardInfo,
    /// Sums of its images' pixels.
    pub(super) sums: PixelSums,
    /// Of the lengths of the raw files it was made from; their names are among the settings.
    pub(super) source: Fingerprint,
}

/// A data set on its way. Dropped before [`Staging::finish`], it removes itself, unless it is to be kept.
#[derive(Debug)]
pub(super) struct Staging {
    root: PathBuf,
    target: PathBuf,
    dataset: String,
    shards: Vec<ShardInfo>,
    keep: bool,
    /// Held while the folder is in use.
    _lock: File,
}

/// Where data set `name` grows within `out`.
pub(super) fn place(out: &Path, name: &str) -> PathBuf {
    out.join(format!(".preparing-{name}"))
}

/// How the folders begin in which parts of data set `name` grow.
fn part_prefix(name: &str) -> String {
    format!(".part-of-{name}-")
}

/// Whether a part of data set `name` grows in `folder`. Another data set may be called `name` and more.
fn is_part(folder: &Path, name: &str) -> bool {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
    let folder = folder.file_name().and_then(|folder| folder.to_str());
    let numbers = folder.and_then(|folder| folder.strip_prefix(&part_prefix(name))?.split_once("-of-"));
    numbers.is_some_and(|(part, parts)| number(part) && number(parts))
}

impl Staging {
    /// Starts or continues the data set `name` in `out`. What is there from other settings is removed.
    pub(super) fn open(out: &Path, name: &str, settings: &[String]) -> Result<Self> {
        Self::open_in(place(out, name), out, name, settings)
    }

    /// The same for part number `part` of `parts`, from 0.
    pub(super) fn open_part(
        out: &Path,
        name: &str,
        part: u32,
        parts: u32,
        settings: &[String],
    ) -> Result<Self> {
        let root = out.join(format!("{}{}-of-{parts}", part_prefix(name), part + 1));
        Self::open_in(root, out, name, settings)
    }

    /// The same with the shards that the parts have made. Those of other settings are refused, and so are parts that
    /// are still at work.
    pub(super) fn merged(out: &Path, name: &str, settings: &[String]) -> Result<Self> {
        // Whatever goes wrong, nothing of the parts is lost.
        let mut staging = Self::open(out, name, settings)?;
        staging.keep();
        let mut parts = list(out)?;
        parts.retain(|path| is_part(path, name));
        parts.sort();
        parts.iter().try_for_each(|part| staging.take(part, settings))?;
        Ok(staging)
    }

    /// Takes what is in the folder of a part.
    fn take(&self, part: &Path, settings: &[String]) -> Result<()> {
        let lock = lock(part)?;
        let text = serde_json::to_string_pretty(settings).expect("settings are strings");
        if fs::read_to_string(part.join(SETTINGS)).ok().as_deref() != Some(&text) {
            let what = "was made from other files or with other settings; give those, or remove it";
            return Err(IngestError::bad(part, what));
        }
        for path in list(part)? {
            let Some(shard) = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_suffix(DONE))
            else {
                continue;
            };
            // The shard first: a record alone would be believed to lack it. One that a kill left behind its shard comes
            // now.
            let (from, to) = (part.join(shard), self.root.join(shard));
            let moved = if from.is_file() { fs::rename(&from, &to) } else { Ok(()) };
            moved
                .and_then(|()| fs::rename(&path, record(&self.root, shard)))
                .map_err(IngestError::io(&from, "move"))?;
        }
        fs::remove_dir_all(part).map_err(IngestError::io(part, "remove"))?;
        drop(lock);
        Ok(())
    }

    fn open_in(root: PathBuf, out: &Path, name: &str, settings: &[String]) -> Result<Self> {
        let lock = lock(&root)?;
        let text = serde_json::to_string_pretty(settings).expect("settings are strings");
        let path = root.join(SETTINGS);
        if fs::read_to_string(&path).ok().as_deref() != Some(&text) {
            clear(&root)?;
            // Not flushed: settings that a loss of power has cut are other settings.
            fs::write(&path, text).map_err(IngestError::io(&path, "write"))?;
        }
        let (target, dataset) = (out.join(name), name.to_owned());
        Ok(Self { root, target, dataset, shards: Vec::new(), keep: false, _lock: lock })
    }

    /// Whether there is a record of shard `file`.
    pub(super) fn recorded(&self, file: &str) -> bool {
        record(&self.root, file).is_file()
    }

    /// The record of shard `file`, of one split and session, if it was finished before from `source` and is sound.
    pub(super) fn finished(
        &mut self,
        file: &str,
        split: Option<Split>,
        session: Option<&str>,
        source: &Fingerprint,
    ) -> Option<Finished> {
        let record = fs::read(record(&self.root, file)).ok()?;
        let finished: Finished = serde_json::from_slice(&record).ok()?;
        let ShardInfo { file: named, split: of_split, session: of_session, .. } = &finished.info;
        if finished.source != *source
            || (named.as_str(), *of_split, of_session.as_deref()) != (file, split, session)
        {
            return None;
        }
        let path = self.root.join(file);
        let bytes = Mapped::open(&path).ok()?;
        let sound = finished.info.bytes == bytes.as_ref().len() as u64
            && finished.info.blake3 == Fingerprint::of_large(bytes.as_ref())
            && Shard::open(bytes.as_ref(), &path).is_ok_and(|shard| shard.meta().dataset == self.dataset);
        sound.then(|| {
            self.shards.push(finished.info.clone());
            finished
        })
    }

    /// Creates the file of a shard.
    pub(super) fn create(&self, file: &str) -> Result<(PathBuf, File)> {
        let path = self.root.join(file);
        let created = File::create(&path).map_err(IngestError::io(&path, "create"))?;
        Ok((path, created))
    }

    /// Whether the system refused to write in the folder.
    pub(super) fn refused(&self, error: &IngestError) -> bool {
        let (IngestError::Io { path, .. } | IngestError::Shard(ShardError::Io { path, .. })) = error else {
            return false;
        };
        path.starts_with(&self.root)
    }

    /// The folder in which the data set grows.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Adds a closed shard to the data set.
    pub(super) fn add(&mut self, shard: ShardInfo) {
        self.shards.push(shard);
    }

    /// Writes the manifest, renames the folder to its place, replacing what is there, and removes the journal: in this
    /// order, so that a kill in between costs nothing.
    pub(super) fn finish(mut self, manifest: Manifest) -> Result<Manifest> {
        // Whatever goes wrong, all shards are done.
        self.keep = true;
        let mut shards = std::mem::take(&mut self.shards);
        shards.sort_by(|a, b| a.file.cmp(&b.file));
        let manifest = Manifest { shards, ..manifest };
        let text = serde_json::to_string_pretty(&manifest).expect("a manifest has only plain values");
        let path = self.root.join(MANIFEST);
        write_whole(&path, text.as_bytes()).map_err(IngestError::io(&path, "write"))?;
        let named = |path: &Path| {
            path.file_name()
                .is_some_and(|name| name == MANIFEST || manifest.shards.iter().any(|s| *name == *s.file))
        };
        for entry in list(&self.root)?.into_iter().filter(|path| !named(path) && !is_journal(path)) {
            fs::remove_file(&entry).map_err(IngestError::io(&entry, "remove"))?;
        }
        let parent = self.target.parent().unwrap_or(Path::new("."));
        let renamed = sync_folder(&self.root)
            .and_then(|()| replace(&self.root, &self.target))
            .and_then(|()| sync_folder(parent));
        renamed.map_err(IngestError::io(&self.target, "put the finished data set in place"))?;
        remove_journal(&self.target)?;
        ShardSet::list(parent)?;
        Ok(manifest)
    }

    /// Leaves a part for another `prepare` to put together with the others; gives the manifest of what it has.
    pub(super) fn leave(mut self, manifest: Manifest) -> Manifest {
        self.keep = true;
        Manifest { shards: std::mem::take(&mut self.shards), ..manifest }
    }

    /// Leaves the folder for another `prepare` to continue.
    pub(super) fn keep(&mut self) {
        self.keep = true;
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.keep {
            // The error that led here is what the user must hear.
            let _ = fs::remove_dir_all(&self.root);
        }
    }
}

/// Flushes a written shard in folder `root` and records it. The record is whole or not there, whenever `prepare`
/// is killed. It need not be flushed: one that a loss of power has cut is none, and one that stayed is believed
/// only if the shard has its digest.
pub(super) fn close(
    root: &Path,
    out: &File,
    info: ShardInfo,
    sums: PixelSums,
    source: Fingerprint,
) -> Result<ShardInfo> {
    let path = root.join(&info.file);
    out.sync_all().map_err(IngestError::io(&path, "flush"))?;
    let bytes = Mapped::open(&path).map_err(IngestError::io(&path, "read back"))?;
    if Shard::open(bytes.as_ref(), &path)?.checksum() != info.checksum {
        return Err(IngestError::bad(
            &path,
            "is not as it was written: another program or the disk changed it",
        ));
    }
    let finished = Finished { info, sums, source };
    let text = serde_json::to_vec(&finished).expect("a record has only plain values");
    let record = record(root, &finished.info.file);
    let part = record.with_extension("part");
    let written = fs::write(&part, text).and_then(|()| fs::rename(&part, &record));
    written.map_err(IngestError::io(&record, "write"))?;
    Ok(finished.info)
}

fn record(root: &Path, file: &str) -> PathBuf {
    root.join(format!("{file}{DONE}"))
}

/// Removes the journal from the data set in its place, also for a `prepare` that was killed before it came to that.
/// What else lies there is not ours.
pub(super) fn remove_journal(target: &Path) -> Result<()> {
    let lock = target.join(LOCK);
    if !lock.exists() {
        return Ok(());
    }
    let mut journal = list(target)?;
    journal.retain(|path| is_journal(path) && *path != lock);
    // Last, since it tells that there may be others.
    journal.push(lock);
    for path in journal {
        match fs::remove_file(&path) {
            // Another `prepare` may be at it too.
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(IngestError::io(&path, "remove")(e)),
            _ => {}
        }
    }
    Ok(())
}

/// Whether a file helps to make a data set and is no part of it.
fn is_journal(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    [SETTINGS, LOCK].contains(&name) || name.ends_with(DONE)
}

/// Creates the folder `root` and takes its lock.
fn lock(root: &Path) -> Result<File> {
    let path = root.join(LOCK);
    loop {
        fs::create_dir_all(root).map_err(IngestError::io(root, "create"))?;
        let file = match File::create(&path) {
            Ok(file) => file,
            // Another `prepare` has just put the folder in its place.
            Err(e) if e.kind() == ErrorKind::NotFound => continue,
            Err(e) => return Err(IngestError::io(&path, "create")(e)),
        };
        match file.try_lock() {
            Ok(()) if is_at(&file, &path) => return Ok(file),
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(IngestError::bad(root, "another `nct prepare` is at work on this data set"));
            }
            Err(TryLockError::Error(e)) => return Err(IngestError::io(&path, "lock")(e)),
        }
    }
}

/// Whether the file at `path` is still this one: it may have been removed, or put in place with its folder, and another
/// made since.
fn is_at(file: &File, path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let number = |about: fs::Metadata| (about.dev(), about.ino());
        let [held, there] = [file.metadata(), fs::metadata(path)].map(|about| about.map(number).ok());
        held.is_some() && held == there
    }
    #[cfg(not(unix))]
    {
        let _ = file;
        path.exists()
    }
}

/// Removes what an earlier `prepare` with other settings left, for good: no loss of power may bring it back
/// beside the new settings.
fn clear(root: &Path) -> Result<()> {
    let mut entries = list(root)?;
    entries.retain(|entry| entry.file_name().is_none_or(|name| name != LOCK));
    for entry in &entries {
        let removed = if entry.is_dir() { fs::remove_dir_all(entry) } else { fs::remove_file(entry) };
        removed.map_err(IngestError::io(entry, "remove"))?;
    }
    if entries.is_empty() { Ok(()) } else { sync_folder(root).map_err(IngestError::io(root, "flush")) }
}

fn list(root: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(root).and_then(|entries| entries.map(|e| Ok(e?.path())).collect());
    entries.map_err(IngestError::io(root, "list"))
}

fn sync_folder(path: &Path) -> std::io::Result<()> {
    File::open(path)?.sync_all()
}

/// Renames `staged` to `target`; what was there goes only when the new folder stands.
fn replace(staged: &Path, target: &Path) -> std::io::Result<()> {
    let old = staged.with_extension("replaced");
    let replaces = target.exists();
    if replaces {
        if old.exists() {
            fs::remove_dir_all(&old)?;
        }
        fs::rename(target, &old)?;
    }
    fs::rename(staged, target).inspect_err(|_| {
        if replaces {
            let _ = fs::rename(&old, target);
        }
    })?;
    // Also what a `prepare` that was killed at this point left.
    if old.exists() { fs::remove_dir_all(&old) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_set_are_told_from_those_of_one_with_a_longer_name() {
        let part = |folder: &str| is_part(&Path::new("out").join(folder), "a");
        assert!(part(".part-of-a-1-of-2") && part(".part-of-a-10-of-12"));
        let others = ["a-b-1-of-2", "a-1-of-2-1-of-2", "a--of-2", "a-1-of-", "ab-1-of-2", "a-1-of-2-of-3"];
        assert!(!others.iter().any(|other| part(&format!(".part-of-{other}"))));
    }

    #[test]
    fn a_lock_on_a_file_that_another_took_the_place_of_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(LOCK);
        let held = File::create(&path).unwrap();
        assert!(is_at(&held, &path));
        fs::remove_file(&path).unwrap();
        assert!(!is_at(&held, &path));
        File::create(&path).unwrap();
        assert!(!is_at(&held, &path));
    }
}
