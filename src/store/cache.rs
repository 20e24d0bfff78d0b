//! Fetched pieces in a folder, up to a limit: `<digest of the file>/<first byte>-<length>`.
//!
//! Names say what a piece is of, so that any number of programs may share the folder, and data that changed are other
//! pieces. Nothing here is trusted: who reads a piece looks at its checksum. The folder may hold other things too: what
//! has no such name is not counted, and stays.

use super::StoreError;
use crate::base::Fingerprint;
use crate::files::temporary;
use std::fs::{self, DirEntry, File};
use std::io::{ErrorKind, Read, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

/// Where and how much, unless `NCT_CACHE` and `NCT_CACHE_GB` say it.
const DEFAULT_GB: f64 = 50.0;
/// The folder is looked through whenever this part of the limit has been written: other programs write too.
const LOOK_EVERY: u64 = 32;
/// Files are removed until this part of the limit is free.
const ROOM: u64 = 10;
/// How the names of pieces begin that are not whole yet.
const BEGUN: &str = ".piece-";

/// A bounded folder of pieces.
#[derive(Debug)]
pub(super) struct Cache {
    root: PathBuf,
    /// In bytes.
    limit: u64,
    /// Bytes that may still be written before the folder is looked through.
    left: AtomicU64,
    /// One thread at a time looks through it.
    looking: Mutex<()>,
}

impl Cache {
    /// The folder that the environment names.
    pub(super) fn of_environment() -> Result<Self, StoreError> {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let home = || set("HOME").map(|home| PathBuf::from(home).join(".cache"));
        let root = set("NCT_CACHE")
            .map(PathBuf::from)
            .or_else(|| Some(set("XDG_CACHE_HOME").map(PathBuf::from).or_else(home)?.join("nct")));
        let root = root.ok_or_else(|| {
            StoreError::address("NCT_CACHE", "set it to a folder for fetched data: there is no home folder")
        })?;
        let gb = match set("NCT_CACHE_GB") {
            None => DEFAULT_GB,
            Some(text) => {
                text.to_str().and_then(|text| text.parse().ok()).filter(|&gb| gb > 0.0).ok_or_else(|| {
                    StoreError::address("NCT_CACHE_GB", format!("{} is no size in GB", text.display()))
                })?
            }
        };
        Self::new(&root, (gb * 1e9) as u64)
    }

    /// At most `limit` bytes in folder `root`, which is made.
    pub(super) fn new(root: &Path, limit: u64) -> Result<Self, StoreError> {
        fs::create_dir_all(root).map_err(StoreError::cache(root, "make"))?;
        Ok(Self { root: root.to_path_buf(), limit, left: AtomicU64::new(0), looking: Mutex::default() })
    }

    fn path(&self, of: &Fingerprint, range: &Range<u64>) -> PathBuf {
        self.root.join(of.as_str()).join(format!("{}-{}", range.start, range.end - range.start))
    }

    /// Whether a piece is there.
    pub(super) fn has(&self, of: &Fingerprint, range: &Range<u64>) -> bool {
        self.path(of, range).is_file()
    }

    /// A piece, if it is there in full length. It counts as used now.
    pub(super) fn read(&self, of: &Fingerprint, range: &Range<u64>) -> Option<Vec<u8>> {
        let mut file = File::open(self.path(of, range)).ok()?;
        // The time only decides what goes first.
        let _ = file.set_modified(SystemTime::now());
        let mut bytes = Vec::with_capacity((range.end - range.start) as usize);
        file.read_to_end(&mut bytes).ok()?;
        (bytes.len() as u64 == range.end - range.start).then_some(bytes)
    }

    /// Keeps a piece. It is there whole or not at all.
    pub(super) fn write(&self, of: &Fingerprint, range: &Range<u64>, bytes: &[u8]) -> Result<(), StoreError> {
        self.make_room(bytes.len() as u64)?;
        let (path, folder) = (self.path(of, range), self.root.join(of.as_str()));
        let keep = || {
            // Another program may have removed the folder when its last piece went.
            fs::create_dir_all(&folder)?;
            let mut file = temporary(0o666).prefix(BEGUN).tempfile_in(&folder)?;
            file.write_all(bytes)?;
            file.persist(&path).map_err(|e| e.error)
        };
        keep().or_else(|_| keep()).map(drop).map_err(StoreError::cache(&path, "write"))
    }

    /// Counts `bytes` more; removes the pieces that were not used for longest once the limit is reached.
    fn make_room(&self, bytes: u64) -> Result<(), StoreError> {
        let take = |left: u64| left.checked_sub(bytes);
        if self.left.try_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok() {
            return Ok(());
        }
        let _looking = self.looking.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if self.left.try_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok() {
            return Ok(());
        }
        let mut pieces = self.pieces()?;
        let mut used: u64 = pieces.iter().map(|piece| piece.bytes).sum();
        if used + bytes > self.limit {
            pieces.sort_by(|a, b| (a.used, &a.path).cmp(&(b.used, &b.path)));
            let aim = (self.limit - self.limit / ROOM).saturating_sub(bytes);
            for piece in &pieces {
                if used <= aim {
                    break;
                }
                // Another program may have been faster; what is not ours to remove stays, and counts.
                if fs::remove_file(&piece.path).is_ok() || !piece.path.exists() {
                    used -= piece.bytes;
                }
            }
        }
        let room = self.limit.saturating_sub(used + bytes).min((self.limit / LOOK_EVERY).max(1));
        self.left.store(room, Ordering::Relaxed);
        Ok(())
    }

    /// All pieces in it.
    fn pieces(&self) -> Result<Vec<Piece>, StoreError> {
        let folders = match fs::read_dir(&self.root) {
            Ok(folders) => folders,
            // It may be deleted at any time; the next piece makes it again.
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(StoreError::cache(&self.root, "list")(e)),
        };
        let mut pieces = Vec::new();
        for folder in folders.flatten().filter(|folder| is_named(folder, is_digest)) {
            let mut some = false;
            // A folder may be removed, and a file too, while they are listed.
            for file in fs::read_dir(folder.path()).into_iter().flatten().flatten() {
                some = true;
                let Some(about) = file.metadata().ok().filter(fs::Metadata::is_file) else { continue };
                if is_named(&file, is_piece) {
                    let used = about.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                    pieces.push(Piece { path: file.path(), bytes: about.len(), used });
                }
            }
            if !some {
                let _ = fs::remove_dir(folder.path());
            }
        }
        Ok(pieces)
    }
}

fn is_named(entry: &DirEntry, right: fn(&str) -> bool) -> bool {
    entry.file_name().to_str().is_some_and(right)
}

/// Whether a folder of this name is one of the cache's.
fn is_digest(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|c| c.is_ascii_hexdigit())
}

/// Whether a file of this name is a piece, or was begun to be one.
fn is_piece(name: &str) -> bool {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
    name.starts_with(BEGUN) || name.split_once('-').is_some_and(|(at, n)| number(at) && number(n))
}

#[derive(Debug)]
struct Piece {
    path: PathBuf,
    bytes: u64,
    used: SystemTime,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_cache_keeps_to_its_limit_and_what_was_used_last() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path(), 10_000).unwrap();
        let of = Fingerprint::of(b"file");
        let range = |i: u64| i * 100..(i + 1) * 100;
        for i in 0..1000 {
            cache.write(&of, &range(i), &[i as u8; 100]).unwrap();
            // Files of one instant would go in the order of their names.
            let file = File::open(cache.path(&of, &range(i))).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1000 + i)).unwrap();
            // The first is used again and again.
            assert_eq!(cache.read(&of, &range(0)).unwrap(), [0; 100], "after {i}");
            let total: u64 = cache.pieces().unwrap().iter().map(|piece| piece.bytes).sum();
            assert!(total <= 10_000, "{total} bytes after {i}");
        }
        let kept = (0..1000).filter(|&i| cache.has(&of, &range(i))).count();
        assert!((80..=100).contains(&kept), "{kept}");
        assert!((960..1000).all(|i| cache.has(&of, &range(i))), "the last are there");
        assert!(!cache.has(&of, &range(1)));
    }

    #[test]
    fn what_is_not_the_caches_stays_and_is_not_counted() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path(), 1000).unwrap();
        let of = Fingerprint::of(b"file");
        let others = ["photos/a.jpg", "photos/10-20", "note", &format!("{}/note", of.as_str())];
        for name in others {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, [0; 5000]).unwrap();
        }
        fs::create_dir(dir.path().join("empty")).unwrap();
        fs::create_dir(dir.path().join(Fingerprint::of(b"gone").as_str())).unwrap();
        for i in 0..100u64 {
            cache.write(&of, &(i * 100..(i + 1) * 100), &[1; 100]).unwrap();
        }
        assert!(others.iter().all(|name| dir.path().join(name).is_file()), "a user's file was removed");
        assert!(dir.path().join("empty").is_dir(), "a user's folder was removed");
        assert!(!dir.path().join(Fingerprint::of(b"gone").as_str()).exists());
        let total: u64 = cache.pieces().unwrap().iter().map(|piece| piece.bytes).sum();
        assert!((500..=1000).contains(&total), "{total}");
    }

    #[test]
    fn a_cache_that_is_deleted_while_it_is_used_is_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(&dir.path().join("cache"), 1000).unwrap();
        let of = Fingerprint::of(b"file");
        for i in 0..40u64 {
            cache.write(&of, &(i * 100..(i + 1) * 100), &[1; 100]).unwrap();
            fs::remove_dir_all(dir.path().join("cache")).unwrap();
        }
        cache.write(&of, &(0..100), &[1; 100]).unwrap();
        assert!(cache.read(&of, &(0..100)).is_some());
    }

    #[test]
    fn a_piece_that_was_cut_is_not_there_and_others_may_write_beside() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) =
            (Cache::new(dir.path(), 1 << 20).unwrap(), Cache::new(dir.path(), 1 << 20).unwrap());
        let of = Fingerprint::of(b"file");
        one.write(&of, &(10..20), &[7; 10]).unwrap();
        assert_eq!(other.read(&of, &(10..20)).unwrap(), [7; 10]);
        fs::write(one.path(&of, &(10..20)), [7; 9]).unwrap();
        assert!(one.has(&of, &(10..20)) && one.read(&of, &(10..20)).is_none());
        for i in 0..4000u64 {
            let cache = if i % 2 == 0 { &one } else { &other };
            cache.write(&of, &(i * 1000..(i + 1) * 1000), &[1; 1000]).unwrap();
        }
        let total: u64 = one.pieces().unwrap().iter().map(|piece| piece.bytes).sum();
        assert!(
            total <= (1 << 20) + (1 << 20) / LOOK_EVERY,
            "{total}: one look's worth too much for a second program"
        );
    }
}
