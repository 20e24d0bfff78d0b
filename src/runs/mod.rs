//! A run is a folder, and the folder is the truth: settings, provenance, metrics, checkpoints.
//!
//! Absent: training.

mod machine;
mod queue;
mod reference;
mod store;
mod tensorboard;
mod tidy;

pub use machine::{cpu, host};
pub use queue::{Claim, Failure, Identities, Queue};
pub use reference::reference_hash;
pub use store::{Entry, Filter, INDEX, Listed, Order, Store};
pub use tensorboard::EventFile;
pub use tidy::{RAW_RESPONSES, RAW_SAMPLES, left_over, remove_left_over};

use crate::files::{temporary, write_whole};
use serde_json::Value;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Errors of run folders.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The operating system refused.
    #[error("{}: {action}: {source}", path.display())]
    Io {
        /// File or folder concerned.
        path: PathBuf,
        /// What was being done.
        action: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A folder that is no run, or is in use.
    #[error("{}: {what}", path.display())]
    Folder {
        /// The folder or file.
        path: PathBuf,
        /// What is wrong, and the way out.
        what: String,
    },
}

impl RunError {
    fn io(path: &Path, action: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { path, action, source }
    }

    fn folder(path: &Path, what: impl Into<String>) -> Self {
        Self::Folder { path: path.to_path_buf(), what: what.into() }
    }
}

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Its final scores are there.
    Done,
    /// A process trains into it.
    Running,
    /// It ended on a loss that is no number.
    Failed,
    /// It can be gone on with.
    Stopped,
}

impl State {
    /// The name in tables and filters.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Running => "running",
            Self::Failed => "failed",
            Self::Stopped => "stopped",
        }
    }

    fn parse(text: &str) -> Self {
        let all = [Self::Done, Self::Running, Self::Failed];
        all.into_iter().find(|state| state.as_str() == text).unwrap_or(Self::Stopped)
    }

    /// Of the run in this folder.
    pub fn of(root: &Path) -> Self {
        if root.join(RESULTS).is_file() {
            Self::Done
        } else if is_held(&root.join(".lock")) {
            Self::Running
        } else if root.join(FAILURE).is_file() {
            Self::Failed
        } else {
            Self::Stopped
        }
    }
}

/// Removes a file, if there is one.
fn remove(path: &Path) -> Result<(), RunError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(RunError::io(path, "remove")(e)),
        _ => Ok(()),
    }
}

/// Whether a process holds the lock on this file.
fn is_held(path: &Path) -> bool {
    // Shared, so that several may look at once; held for no longer than it takes to ask.
    File::open(path).is_ok_and(|file| file.try_lock_shared().is_err())
}

/// A run's folder.
#[derive(Debug)]
pub struct Run {
    root: PathBuf,
    /// False where another process writes.
    writes: bool,
    /// Held while a process trains into the folder.
    _lock: Option<File>,
}

/// Settings, fully resolved.
const CONFIG: &str = "config.toml";
/// How the folder of a run begins while it is made; one that a kill left is of no use.
pub const UNMADE: &str = ".making-";
const METRICS: &str = "metrics.jsonl";
/// Final scores, with which a run is done.
const RESULTS: &str = "results.json";
/// Why training ended, where it ended on a loss that is no number.
const FAILURE: &str = "failure.json";
/// Scores of suites that are evaluated while training.
const SUITES: &str = "suites.jsonl";

impl Run {
    /// Makes a new folder `<out>/<time>-<name>` with the given settings and provenance, and locks it.
    pub fn create(out: &Path, name: &str, config: &str, manifest: &Value) -> Result<Self, RunError> {
        fs::create_dir_all(out).map_err(RunError::io(out, "create"))?;
        // Made under a hidden name: a run is there as a whole or not at all.
        let hidden = temporary(0o777).prefix(UNMADE).tempdir_in(out);
        let hidden = hidden.map_err(RunError::io(out, "write"))?;
        let made = hidden.path();
        fs::create_dir(made.join("checkpoints")).map_err(RunError::io(made, "write"))?;
        write_atomic(&made.join("manifest.json"), format!("{manifest:#}\n").as_bytes())?;
        write_atomic(&made.join(CONFIG), config.as_bytes())?;
        let lock = lock(made)?;
        let stem = format!("{}-{name}", timestamp());
        let mut root = out.join(&stem);
        for n in 2.. {
            // Refused where there is a run of that name, which is not empty.
            match fs::rename(made, &root) {
                Ok(()) => break,
                Err(_) if root.exists() => root = out.join(format!("{stem}-{n}")),
                Err(e) => return Err(RunError::io(&root, "create")(e)),
            }
        }
        // Under its old name there is nothing left to remove.
        let _ = hidden.keep();
        Ok(Self { root, writes: true, _lock: Some(lock) })
    }

    /// A run into whose folder another process writes, on another machine perhaps: nothing is read of it or written to
    /// it here.
    pub fn of_another(root: &Path) -> Self {
        Self { root: root.to_path_buf(), writes: false, _lock: None }
    }

    /// Whether this process writes into the folder.
    pub fn writes(&self) -> bool {
        self.writes
    }

    /// Opens a run to read it.
    pub fn open(root: &Path) -> Result<Self, RunError> {
        if !is_run(root) {
            let meant = meant(root).map_or_else(
                || "name a folder that `nct train` made".to_owned(),
                |run| format!("did you mean {}?", run.display()),
            );
            return Err(RunError::folder(root, format!("is no run: it has no config.toml; {meant}")));
        }
        Ok(Self { root: root.to_path_buf(), writes: true, _lock: None })
    }

    /// Opens a run to change or remove it; refused while a process trains into it.
    pub fn exclusive(root: &Path) -> Result<Self, RunError> {
        let run = Self::open(root)?;
        Ok(Self { _lock: Some(lock(root)?), ..run })
    }

    /// Opens a run to go on with it, and locks it.
    pub fn resume(root: &Path) -> Result<Self, RunError> {
        let run = Self::open(root)?;
        let lock = lock(root)?;
        Ok(Self { _lock: Some(lock), ..run })
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The settings' text.
    pub fn config(&self) -> Result<String, RunError> {
        let path = self.root.join(CONFIG);
        fs::read_to_string(&path).map_err(RunError::io(&path, "read"))
    }

    /// The checkpoint that is the run's result: `last` if its settings keep the weights that training ends with
    /// (`schedule.restore_best = false`), else `best`.
    pub fn final_weights(&self) -> &'static str {
        let settings = self.config().ok().and_then(|text| toml::from_str::<toml::Table>(&text).ok());
        let restores = settings.and_then(|all| all.get("schedule")?.get("restore_best")?.as_bool());
        final_weights(restores.unwrap_or(true))
    }

    /// Path of the checkpoint called `name`.
    pub fn checkpoint(&self, name: &str) -> PathBuf {
        self.root.join("checkpoints").join(format!("{name}.safetensors"))
    }

    /// Replaces the checkpoint called `name` in one step.
    pub fn save_checkpoint(&self, name: &str, bytes: &[u8]) -> Result<(), RunError> {
        self.replace(&self.checkpoint(name), bytes)
    }

    /// Notes a failure, as JSON, in failure.json.
    pub fn failed(&self, fault: &Value) -> Result<(), RunError> {
        self.replace(&self.root.join(FAILURE), format!("{fault:#}\n").as_bytes())
    }

    fn replace(&self, path: &Path, bytes: &[u8]) -> Result<(), RunError> {
        if self.writes { write_atomic(path, bytes) } else { Ok(()) }
    }

    /// Makes checkpoint `copy` from `name`, which is replaced as a whole and never written to.
    pub fn copy_checkpoint(&self, name: &str, copy: &str) -> Result<(), RunError> {
        if !self.writes {
            return Ok(());
        }
        let (from, to) = (self.checkpoint(name), self.checkpoint(copy));
        let beside = to.with_extension("partial");
        let _ = fs::remove_file(&beside);
        // Not every file system has links.
        let made = fs::hard_link(&from, &beside).or_else(|_| fs::copy(&from, &beside).map(drop));
        made.and_then(|()| fs::rename(&beside, &to)).map_err(RunError::io(&to, "write"))
    }

    /// Removes the checkpoints whose names begin with `prefix`, but for `kept`.
    pub fn retain_checkpoints(&self, prefix: &str, kept: &[String]) -> Result<(), RunError> {
        if !self.writes {
            return Ok(());
        }
        let folder = self.root.join("checkpoints");
        for entry in fs::read_dir(&folder).map_err(RunError::io(&folder, "read"))? {
            let path = entry.map_err(RunError::io(&folder, "read"))?.path();
            let name = path.file_stem().and_then(|n| n.to_str()).unwrap_or_default();
            if name.starts_with(prefix) && !kept.iter().any(|k| k == name) {
                fs::remove_file(&path).map_err(RunError::io(&path, "remove"))?;
            }
        }
        Ok(())
    }

    /// Appends a line of metrics.
    pub fn metric(&self, line: &Value) -> Result<(), RunError> {
        self.append(METRICS, &line.to_string())
    }

    /// Appends a score of a suite that is evaluated while training.
    pub fn suite(&self, line: &Value) -> Result<(), RunError> {
        self.append(SUITES, &line.to_string())
    }

    /// Appends a line to the log.
    pub fn log(&self, line: &str) -> Result<(), RunError> {
        self.append("log.txt", line)
    }

    /// Writes the final scores to `results.json`.
    pub fn results(&self, rows: &[Value]) -> Result<(), RunError> {
        let text: Vec<String> = rows.iter().map(Value::to_string).collect();
        self.replace(&self.root.join(RESULTS), format!("[{}]\n", text.join(",\n")).as_bytes())
    }

    /// All lines of metrics; a last line that a kill cut short is left out.
    pub fn metrics(&self) -> Result<Vec<Value>, RunError> {
        self.lines(METRICS)
    }

    /// All scores of suites that were evaluated while training, likewise.
    pub fn suites(&self) -> Result<Vec<Value>, RunError> {
        self.lines(SUITES)
    }

    fn lines(&self, name: &str) -> Result<Vec<Value>, RunError> {
        let path = self.root.join(name);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(e) => Err(RunError::io(&path, "read")(e)),
        }
    }

    /// Drops the metrics and suites of epochs after `epoch`, which a resumed run trains again, and the failure that
    /// ended it.
    pub fn truncate_metrics(&self, epoch: u32) -> Result<(), RunError> {
        self.retain_lines(|line| line["epoch"].as_u64().is_some_and(|e| e <= u64::from(epoch)))
    }

    /// Drops all metrics and suites and the failure of a run that begins anew.
    pub fn forget_metrics(&self) -> Result<(), RunError> {
        self.retain_lines(|_| false)
    }

    fn retain_lines(&self, keep: impl Fn(&Value) -> bool) -> Result<(), RunError> {
        if !self.writes {
            return Ok(());
        }
        for name in [METRICS, SUITES] {
            let kept = self
                .lines(name)?
                .iter()
                .filter(|line| keep(line))
                .map(|line| format!("{line}\n"))
                .collect::<String>();
            let path = self.root.join(name);
            if path.exists() || !kept.is_empty() {
                write_atomic(&path, kept.as_bytes())?;
            }
        }
        remove(&self.root.join(FAILURE))
    }

    /// Removes the final scores, of a run that is trained further.
    pub fn forget_results(&self) -> Result<(), RunError> {
        if self.writes { remove(&self.root.join(RESULTS)) } else { Ok(()) }
    }

    /// Starts a TensorBoard event file.
    pub fn events(&self) -> Result<EventFile, RunError> {
        let now = now_seconds();
        let path = self.root.join(format!("events.out.tfevents.{now:.0}.nct.{}", std::process::id()));
        EventFile::create(&path, now).map_err(RunError::io(&path, "create"))
    }

    fn append(&self, name: &str, line: &str) -> Result<(), RunError> {
        if !self.writes {
            return Ok(());
        }
        let path = self.root.join(name);
        let opened = OpenOptions::new().create(true).append(true).open(&path);
        let written = opened.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
        written.map_err(RunError::io(&path, "write"))
    }
}

/// Whether a folder is a run's.
fn is_run(root: &Path) -> bool {
    root.join(CONFIG).is_file()
}

/// Where runs are put if nothing else is said.
const RUNS: &str = "runs";

/// The only run whose name has that of `root` as a part, beside it or, of a bare name, where runs are usually put.
fn meant(root: &Path) -> Option<PathBuf> {
    let part = root.file_name()?.to_str()?;
    let beside = root.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = beside.unwrap_or(Path::new(RUNS));
    let names = fs::read_dir(folder).ok()?.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let runs = names.filter(|name| !name.starts_with('.') && name.contains(part));
    let mut runs = runs.map(|name| folder.join(name)).filter(|run| is_run(run));
    runs.next().filter(|_| runs.next().is_none())
}

/// The checkpoint that is the result of a run that goes back to its best weights, or does not.
pub const fn final_weights(restores_best: bool) -> &'static str {
    if restores_best { "best" } else { "last" }
}

/// The values of a configuration by their full names, such as `optimizer.lr`, in the order they are written. A ratio
/// by epochs is one value.
pub fn flat_settings(config: &toml::Table) -> Vec<(String, &toml::Value)> {
    fn walk<'t>(prefix: &str, table: &'t toml::Table, found: &mut Vec<(String, &'t toml::Value)>) {
        for (key, value) in table {
            let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
            match value {
                // Its keys are epochs, not settings.
                toml::Value::Table(inner) if key != "ratio" => walk(&path, inner, found),
                value => found.push((path, value)),
            }
        }
    }
    let mut found = Vec::new();
    walk("", config, &mut found);
    found
}

/// Replaces `path` in one step: readers see the old bytes or the new ones.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), RunError> {
    write_whole(path, bytes).map_err(RunError::io(path, "write"))
}

/// Seconds since 1970.
pub fn now_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

fn lock(root: &Path) -> Result<File, RunError> {
    let path = root.join(".lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(RunError::io(&path, "open"))?;
    // Who looks whether a run is in use holds its lock for a moment.
    for _ in 0..10 {
        if file.try_lock().is_ok() {
            return Ok(file);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Err(RunError::folder(root, "another process is training into this run"))
}

/// The time as `YYYYMMDD-HHMMSS`, UTC (Hinnant, "chrono-compatible low-level date algorithms").
fn timestamp() -> String {
    let seconds = now_seconds() as i64;
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}{month:02}{day:02}-{:02}{:02}{:02}", rest / 3600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn two_runs_of_one_second_get_two_folders_and_one_process_each() {
        let dir = tempfile::tempdir().unwrap();
        let first = Run::create(dir.path(), "a", "x = 1", &json!({})).unwrap();
        let second = Run::create(dir.path(), "a", "x = 1", &json!({})).unwrap();
        assert_ne!(first.root(), second.root());
        assert!(Run::resume(first.root()).unwrap_err().to_string().contains("another process"));
        let root = first.root().to_path_buf();
        drop(first);
        assert_eq!(Run::resume(&root).unwrap().config().unwrap(), "x = 1");
        assert!(Run::open(dir.path()).unwrap_err().to_string().contains("is no run"));
    }

    #[test]
    fn the_only_run_whose_name_has_what_was_given_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let make = |name: &str| Run::create(dir.path(), name, "", &json!({})).unwrap().root().to_path_buf();
        let (first, second) = (make("baseline-1"), make("baseline-2"));
        let told = |part: &str| Run::open(&dir.path().join(part)).unwrap_err().to_string();
        assert!(
            told("line-2").ends_with(&format!("did you mean {}?", second.display())),
            "{}",
            told("line-2")
        );
        for unclear in ["baseline", "other"] {
            assert!(told(unclear).ends_with("name a folder that `nct train` made"), "{}", told(unclear));
        }
        // What is no run is not meant.
        fs::remove_file(first.join(CONFIG)).unwrap();
        assert!(told("baseline").contains("did you mean"));
    }

    #[test]
    fn metrics_after_an_epoch_are_dropped_and_a_cut_line_is_ignored() {
        let dir = tempfile::tempdir().unwrap();
        let run = Run::create(dir.path(), "a", "", &json!({})).unwrap();
        for epoch in 0..4 {
            run.metric(&json!({"epoch": epoch})).unwrap();
        }
        run.append(METRICS, "{\"epoch\": 1, \"va").unwrap();
        run.truncate_metrics(1).unwrap();
        assert_eq!(run.metrics().unwrap(), [json!({"epoch": 0}), json!({"epoch": 1})]);
        assert!(!run.root().join(SUITES).exists());
        (1..4).for_each(|epoch| run.suite(&json!({"epoch": epoch})).unwrap());
        run.truncate_metrics(2).unwrap();
        assert_eq!(run.suites().unwrap(), [json!({"epoch": 1}), json!({"epoch": 2})]);
        run.forget_metrics().unwrap();
        assert!(run.suites().unwrap().is_empty() && run.metrics().unwrap().is_empty());
    }

    #[test]
    fn a_failed_run_that_is_gone_on_with_has_not_failed() {
        let dir = tempfile::tempdir().unwrap();
        let root = Run::create(dir.path(), "a", "", &json!({})).unwrap().root().to_path_buf();
        for go_on in [|run: &Run| run.truncate_metrics(1), Run::forget_metrics] {
            Run::resume(&root).unwrap().failed(&json!({"step": 3})).unwrap();
            assert_eq!(State::of(&root), State::Failed);
            // Taking it is not yet going on: the settings may be refused.
            let run = Run::resume(&root).unwrap();
            assert!(root.join(FAILURE).exists());
            go_on(&run).unwrap();
            drop(run);
            assert_eq!(State::of(&root), State::Stopped);
        }
    }
}
