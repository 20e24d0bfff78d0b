//! Folders and commands that several tests need.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

/// The program with its working directory in `dir`.
pub(crate) fn nct(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nct"));
    command.current_dir(dir);
    command
}

pub(crate) fn output(command: &mut Command) -> Output {
    command.output().unwrap()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs a command that must succeed, and gives its stdout.
pub(crate) fn succeed(command: &mut Command) -> String {
    let out = output(command);
    assert!(out.status.success(), "{command:?}: {}", stderr(&out));
    String::from_utf8(out.stdout).unwrap()
}

/// Small sample data in `raw/` of a new folder.
pub(crate) fn raw() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let sizes = "--classes 3 --per-class 24 --val-per-class 4 --neural-images 60 --sessions 2 --neurons 5";
    succeed(nct(dir.path()).arg("synth").arg("raw").args(sizes.split(' ')));
    dir
}

/// Small sample data and its gray shards in `shards/`.
pub(crate) fn shards() -> TempDir {
    let dir = raw();
    succeed(nct(dir.path()).args(["prepare", "raw", "--color", "gray"]));
    dir
}

/// The one run in folder `out`.
#[cfg(feature = "torch")]
pub(crate) fn only_run(dir: &Path, out: &str) -> PathBuf {
    let runs: Vec<PathBuf> = fs::read_dir(dir.join(out)).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(runs.len(), 1, "{runs:?}");
    runs[0].clone()
}

/// All files below `root` with their contents, sorted.
pub(crate) fn files(root: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(root).unwrap().to_path_buf();
                found.push((name, fs::read(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}
