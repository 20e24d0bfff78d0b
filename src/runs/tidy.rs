//! Runs that are removed, and what kills left in a folder of runs.
//!
//! A folder that is not whole has a hidden name there, so that nobody takes it for a run. One that nobody works on any
//! more is left over, and may go.

use super::{Run, RunError, UNMADE, is_held};
use std::cell::OnceCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// How the folder of a run begins while it is removed.
const REMOVING: &str = ".removing-";
/// How folders begin that a study makes samples in, before it prepares them.
pub const RAW_SAMPLES: &str = ".samples-";
/// Likewise responses.
pub const RAW_RESPONSES: &str = ".responses-";
/// What changed later than so long ago may be in use by a process whose locks are not seen here.
const OLD: Duration = Duration::from_hours(1);

impl Run {
    /// Removes the run, opened with [`Self::exclusive`], and everything in its folder. It is gone at once and as a
    /// whole: what a kill leaves has a hidden name, and is [`left_over`].
    pub fn remove(self) -> Result<(), RunError> {
        let name = self.root.file_name().unwrap_or_default().to_string_lossy();
        let mut hidden = self.root.with_file_name(format!("{REMOVING}{name}"));
        for n in 2.. {
            // Refused where a kill left one of that name, which is not empty.
            match fs::rename(&self.root, &hidden) {
                Ok(()) => break,
                Err(_) if hidden.exists() && self.root.exists() => {
                    hidden = self.root.with_file_name(format!("{REMOVING}{name}-{n}"));
                }
                Err(e) => return Err(RunError::io(&self.root, "remove")(e)),
            }
        }
        remove_left_over(&hidden)
    }
}

/// Removes a folder that is [`left_over`]. That another process does so too is no error.
pub fn remove_left_over(folder: &Path) -> Result<(), RunError> {
    match fs::remove_dir_all(folder) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(RunError::io(folder, "remove")(e)),
        _ => Ok(()),
    }
}

/// What kills left in a folder of runs, sorted: runs that were being made or removed, and raw data of studies. What a
/// process holds is in use; so is, but for runs that were being removed, what changed within the last hour.
pub fn left_over(root: &Path) -> Vec<PathBuf> {
    let is_old = |path: &Path| newest(path).and_then(|at| at.elapsed().ok()).is_some_and(|age| age > OLD);
    let any_claim = OnceCell::new();
    let is_left = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let begins = |with: &str| name.starts_with(with);
        let free = || !is_held(&path.join(".lock"));
        if begins(REMOVING) {
            free()
        } else if begins(UNMADE) {
            is_old(path) && free()
        } else {
            // Nothing in them says whose they are. Who makes them has a claim, and may read them for hours.
            [RAW_SAMPLES, RAW_RESPONSES].into_iter().any(begins)
                && is_old(path)
                && !any_claim.get_or_init(|| is_claimed(root))
        }
    };
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(is_left).collect();
    found.sort_unstable();
    found
}

/// Whether a process has a claim on any work in this folder of runs.
fn is_claimed(root: &Path) -> bool {
    let files = fs::read_dir(root.join(super::queue::FOLDER)).into_iter().flatten().flatten();
    let mut locks =
        files.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "lock"));
    locks.any(|path| is_held(&path))
}

/// When a folder, or anything in it, last changed.
fn newest(path: &Path) -> Option<SystemTime> {
    let own = fs::symlink_metadata(path).ok()?;
    let within = own.is_dir().then(|| fs::read_dir(path).into_iter().flatten().flatten());
    let within = within.into_iter().flatten().filter_map(|entry| newest(&entry.path()));
    within.chain(own.modified().ok()).max()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runs::{Queue, State};
    use serde_json::json;
    use std::fs::File;

    /// Makes everything in a folder look three hours old.
    fn age(path: &Path) {
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            age(&entry.path());
        }
        File::open(path).unwrap().set_modified(SystemTime::now() - 3 * OLD).unwrap();
    }

    #[test]
    fn a_run_is_removed_as_a_whole_and_a_kill_leaves_none_that_looks_done() {
        let dir = tempfile::tempdir().unwrap();
        let run = Run::create(dir.path(), "a", "", &json!({})).unwrap();
        run.results(&[]).unwrap();
        let root = run.root().to_path_buf();
        let name = root.file_name().unwrap().to_str().unwrap().to_owned();
        // What an earlier kill left of a run of that name.
        let earlier = dir.path().join(format!("{REMOVING}{name}"));
        fs::create_dir(&earlier).unwrap();
        fs::write(earlier.join("results.json"), "[]").unwrap();
        drop(run);
        Run::exclusive(&root).unwrap().remove().unwrap();
        let names = || fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().path()).collect::<Vec<_>>();
        assert_eq!(names(), std::slice::from_ref(&earlier));
        // In the middle of it the folder has its hidden name, and is held.
        let halfway = Run::create(dir.path(), "b", "", &json!({})).unwrap();
        let hidden = dir.path().join(format!("{REMOVING}b"));
        fs::rename(halfway.root(), &hidden).unwrap();
        assert_eq!(left_over(dir.path()), std::slice::from_ref(&earlier));
        drop(halfway);
        assert_eq!(left_over(dir.path()).len(), 2);
        for folder in left_over(dir.path()) {
            remove_left_over(&folder).unwrap();
        }
        remove_left_over(&hidden).unwrap();
        assert!(names().is_empty());
        assert_eq!(State::of(&root), State::Stopped, "there is nothing");
    }

    #[test]
    fn data_of_studies_are_left_over_when_they_are_old_and_nobody_has_a_claim() {
        let dir = tempfile::tempdir().unwrap();
        let folders =
            [".samples-a", ".responses-b", ".making-c", ".else-d"].map(|name| dir.path().join(name));
        for folder in &folders {
            fs::create_dir_all(folder.join("raw")).unwrap();
            fs::write(folder.join("raw/data"), "x").unwrap();
        }
        assert!(left_over(dir.path()).is_empty());
        for folder in &folders {
            age(folder);
        }
        let [samples, responses, making, _] = folders;
        assert_eq!(left_over(dir.path()), [making.clone(), responses.clone(), samples.clone()]);
        // What is written deep within counts.
        File::options()
            .write(true)
            .open(responses.join("raw/data"))
            .unwrap()
            .set_modified(SystemTime::now())
            .unwrap();
        assert_eq!(left_over(dir.path()), [making.clone(), samples.clone()]);
        let claim = Queue::open(dir.path()).unwrap().claim("x").unwrap().unwrap();
        assert_eq!(left_over(dir.path()), std::slice::from_ref(&making));
        drop(claim);
        assert_eq!(left_over(dir.path()), [making, samples]);
    }
}
