//! Work that several workers share, on one machine or on many: claims, failures, and the runs that are there.
//!
//! A claim is a lock on a file, which ends with its process however that ends; nothing has to be cleared after a kill.
//! On a network folder it is as good as that folder's locks: NFS from version 4 on and Lustre with `flock` have them.
//! Results are in the run folders alone: a file here says who is at work and what went wrong, never what is done.

use super::{RunError, State, remove, write_atomic};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::HashMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Name of the queue within a folder of runs.
pub(super) const FOLDER: &str = ".queue";

/// Claims and failures, in the hidden folder `.queue` of a folder of runs.
#[derive(Debug, Clone)]
pub struct Queue {
    folder: PathBuf,
}

/// The right to do a piece of work, until it is dropped.
#[derive(Debug)]
pub struct Claim {
    _lock: File,
    failed: PathBuf,
}

/// How work went wrong.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// What it was.
    pub what: String,
    /// The error and its causes.
    pub error: String,
    /// Machine and process.
    pub host: String,
    /// Process number.
    pub pid: u32,
    /// Seconds since 1970.
    pub time: f64,
}

impl Failure {
    /// A failure of this process, now.
    pub fn here(what: &str, error: String) -> Self {
        let (host, time) = (super::host(), super::now_seconds());
        Self { what: what.to_owned(), error, host, pid: std::process::id(), time }
    }
}

impl Queue {
    /// The queue of the folder of runs `root`, which is made where there is none.
    pub fn open(root: &Path) -> Result<Self, RunError> {
        let folder = root.join(FOLDER);
        fs::create_dir_all(&folder).map_err(RunError::io(&folder, "create"))?;
        Ok(Self { folder })
    }

    /// Claims the work called `id`, a word of letters and digits; none while another process has it.
    pub fn claim(&self, id: &str) -> Result<Option<Claim>, RunError> {
        let path = self.folder.join(format!("{id}.lock"));
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(RunError::io(&path, "open"))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Claim { _lock: file, failed: self.failed(id) })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(e)) => Err(RunError::io(&path, "lock")(e)),
        }
    }

    /// How the work called `id` went wrong, if it did.
    pub fn failure(&self, id: &str) -> Result<Option<Failure>, RunError> {
        let path = self.failed(id);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(RunError::io(&path, "read")(e)),
        };
        let found = serde_json::from_slice(&text);
        found.map(Some).map_err(|e| RunError::folder(&path, format!("{e}; delete it to try that work again")))
    }

    fn failed(&self, id: &str) -> PathBuf {
        self.folder.join(format!("{id}.failed.json"))
    }
}

impl Claim {
    /// Records that the work went wrong: nobody tries it again until that is forgotten.
    pub fn fail(&self, failure: &Failure) -> Result<(), RunError> {
        let text = serde_json::to_string_pretty(failure).unwrap_or_default();
        write_atomic(&self.failed, format!("{text}\n").as_bytes())
    }

    /// Forgets that it went wrong.
    pub fn forget(&self) -> Result<(), RunError> {
        remove(&self.failed)
    }
}

/// Runs of a folder by what they are of: `identity` of their manifest, which is read again where that was replaced.
#[derive(Debug)]
pub struct Identities {
    root: PathBuf,
    /// By folder; of one without a manifest, or with one from before there were identities, none.
    known: HashMap<String, (Option<Version>, Option<String>)>,
}

/// Tells a file from the one that replaced it: when it was written, its length, and which file it is.
type Version = (SystemTime, u64, u64);

fn version(path: &Path) -> Option<Version> {
    let found = fs::metadata(path).ok()?;
    #[cfg(unix)]
    let file = std::os::unix::fs::MetadataExt::ino(&found);
    #[cfg(not(unix))]
    let file = 0;
    Some((found.modified().ok()?, found.len(), file))
}

impl Identities {
    /// Of the runs in `root`.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_path_buf(), known: HashMap::new() }
    }

    /// The runs of `identity` that are there now: those that are done first, then those that can be gone on with.
    pub fn runs(&mut self, identity: &str) -> Vec<(PathBuf, State)> {
        let entries = fs::read_dir(&self.root).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let mut there: Vec<String> = names.filter(|name| !name.starts_with('.')).collect();
        there.sort_unstable();
        let of = |path: &Path| {
            let text = fs::read_to_string(path).ok()?;
            let manifest: Value = serde_json::from_str(&text).ok()?;
            manifest["identity"].as_str().map(str::to_owned)
        };
        let mut found = Vec::new();
        for name in &there {
            let path = self.root.join(name);
            let manifest = path.join("manifest.json");
            let now = version(&manifest);
            let known = self.known.entry(name.clone()).or_default();
            if known.0 != now || now.is_none() {
                *known = (now, of(&manifest));
            }
            if known.1.as_deref() == Some(identity) {
                let state = State::of(&path);
                found.push((path, state));
            }
        }
        found.sort_by_key(|(_, state)| match state {
            State::Done => 0,
            State::Stopped | State::Failed => 1,
            State::Running => 2,
        });
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runs::Run;
    use serde_json::json;

    #[test]
    fn work_is_claimed_once_and_free_again_when_its_claim_ends() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = (Queue::open(dir.path()).unwrap(), Queue::open(dir.path()).unwrap());
        let claim = one.claim("a").unwrap().unwrap();
        assert!(other.claim("a").unwrap().is_none());
        assert!(other.claim("b").unwrap().is_some());
        drop(claim);
        assert!(other.claim("a").unwrap().is_some());
    }

    #[test]
    fn failures_are_kept_until_they_are_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let queue = Queue::open(dir.path()).unwrap();
        let claim = queue.claim("a").unwrap().unwrap();
        let failure = Failure::here("a sweep, seed=1", "no memory".to_owned());
        claim.fail(&failure).unwrap();
        assert_eq!(queue.failure("a").unwrap(), Some(failure));
        assert_eq!(queue.failure("b").unwrap(), None);
        claim.forget().unwrap();
        claim.forget().unwrap();
        assert_eq!(queue.failure("a").unwrap(), None);
        fs::write(queue.failed("a"), "{").unwrap();
        assert!(queue.failure("a").unwrap_err().to_string().contains("delete it"));
    }

    #[test]
    fn runs_are_found_by_identity_with_those_that_are_done_first() {
        let dir = tempfile::tempdir().unwrap();
        let mut identities = Identities::new(dir.path());
        assert!(identities.runs("x").is_empty());
        let create =
            |identity: &str| Run::create(dir.path(), "a", "", &json!({"identity": identity})).unwrap();
        let (running, other, done) = (create("x"), create("y"), create("x"));
        done.results(&[]).unwrap();
        let expected =
            vec![(done.root().to_path_buf(), State::Done), (running.root().to_path_buf(), State::Running)];
        assert_eq!(identities.runs("x"), expected);
        let root = running.root().to_path_buf();
        drop((running, other));
        assert_eq!(identities.runs("x")[1], (root.clone(), State::Stopped));
        write_atomic(&root.join("manifest.json"), b"{\"identity\": \"z\"}").unwrap();
        assert_eq!((identities.runs("x").len(), identities.runs("z").len()), (1, 1), "it is another now");
        fs::remove_dir_all(root).unwrap();
        assert_eq!(identities.runs("z").len(), 0, "a run that is gone is found no more");
    }
}
