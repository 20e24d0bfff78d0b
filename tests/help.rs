//! Help, explanations of errors, man pages and completions.

use crate::common::{nct, output, stderr, succeed};
use std::fs;
use std::process::Stdio;

#[test]
fn an_error_s_code_is_explained() {
    let dir = tempfile::tempdir().unwrap();
    let refused = output(nct(dir.path()).args(["inspect", "nowhere"]));
    assert_eq!(refused.status.code(), Some(2));
    let told = stderr(&refused);
    let code = told.trim_end().rsplit_once(" [").unwrap().1.trim_end_matches(']');
    let explained = succeed(nct(dir.path()).args(["explain", code]));
    assert!(explained.starts_with(&format!("{code}: ")) && explained.contains("exit code 2"), "{explained}");
    let all = succeed(nct(dir.path()).arg("explain"));
    assert!(all.lines().count() > 20 && all.lines().any(|line| line.starts_with(code)), "{all}");
    let unknown = output(nct(dir.path()).args(["explain", "N999"]));
    assert_eq!(unknown.status.code(), Some(2));
    assert!(stderr(&unknown).contains("`nct explain` lists all"), "{}", stderr(&unknown));
}

#[test]
fn help_knows_commands_and_topics() {
    let dir = tempfile::tempdir().unwrap();
    let help = |words: &[&str]| succeed(nct(dir.path()).arg("help").args(words));
    assert!(help(&[]).contains("prepare") && help(&[]).contains("settings"));
    assert!(help(&["prepare"]).contains("--dry-run"));
    assert!(help(&["runs", "ls"]).contains("--where"));
    assert!(help(&["settings"]).contains("| `optimizer.lr` |"));
    assert!(help(&["experiments"]).contains("nct run"));
    assert!(help(&["data"]).contains("training_image_ids"));
    let unknown = output(nct(dir.path()).args(["help", "nonsense"]));
    assert_eq!(unknown.status.code(), Some(2));
    assert!(stderr(&unknown).contains("topics are settings"), "{}", stderr(&unknown));
}

#[test]
fn man_pages_and_completions_are_written() {
    let dir = tempfile::tempdir().unwrap();
    succeed(nct(dir.path()).args(["man", "pages"]));
    let page = |name: &str| fs::read_to_string(dir.path().join("pages").join(name)).unwrap();
    assert!(page("nct.1").contains(".TH nct 1") && page("nct-prepare.1").contains("dry\\-run"));
    assert!(page("nct-runs-ls.1").contains("where"));
    assert!(!dir.path().join("pages/nct-corrupt-raw.1").exists(), "hidden commands have no page");
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        assert!(succeed(nct(dir.path()).args(["completions", shell])).contains("prepare"), "{shell}");
    }
}

#[test]
fn completions_end_quietly_when_nobody_reads_on() {
    let dir = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let mut command = nct(dir.path());
        command.args(["completions", shell]).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // The program has more to write than a pipe holds, or begins when this is closed.
        drop(child.stdout.take());
        let told = child.wait_with_output().unwrap();
        assert!(told.status.success() && told.stderr.is_empty(), "{}", stderr(&told));
    }
}
