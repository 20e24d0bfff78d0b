//! `nct` and `nct-torch`: one program in two files.

use crate::common::{output, stderr, succeed};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use tempfile::TempDir;

/// A folder with `nct` and nothing else but an empty folder of runs. A link: a file that was just written cannot be
/// started while another test's process, forked meanwhile, has it open.
fn alone() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    fs::create_dir(dir.path().join("runs")).unwrap();
    let program = dir.path().join("nct");
    fs::hard_link(env!("CARGO_BIN_EXE_nct"), &program).unwrap();
    (dir, program)
}

#[test]
fn commands_without_a_network_need_no_other_program() {
    let (dir, nct) = alone();
    let runs = |command: &str| succeed(Command::new(&nct).args(command.split(' ')).current_dir(dir.path()));
    assert!(runs("--version").starts_with("nct "));
    runs("runs ls");
    assert!(runs("config schema").contains("optimizer"));
    assert!(runs("help train").contains("--resume"));

    let out = output(Command::new(&nct).args(["train", "--shards", "nowhere"]));
    assert_eq!(out.status.code(), Some(2));
    let told = stderr(&out);
    for word in ["nct-torch", "cargo build --release"] {
        assert!(told.contains(word), "{told}");
    }
    // What is wrong with arguments is said before.
    let told = stderr(&output(Command::new(&nct).args(["train", "--no-such-option"])));
    assert!(told.contains("--no-such-option"), "{told}");
}

#[test]
fn the_other_program_is_the_same_process_with_the_same_arguments() {
    let (dir, nct) = alone();
    let other = dir.path().join("nct-torch");
    let script = "#!/bin/sh\necho $$\nfor a in \"$@\"; do echo \"<$a>\"; done\nexit 7\n";
    fs::write(&other, script).unwrap();
    fs::set_permissions(&other, fs::Permissions::from_mode(0o755)).unwrap();
    let arguments = ["--quiet", "train", "--shards", "a b", "--set", "name=\"x\""];
    for command in [&arguments[..], &["doctor"], &["runs", "export", "--datajoint", "mysql://u@h/s"]] {
        let mut started = Command::new(&nct);
        started.args(command).current_dir(dir.path()).stdout(std::process::Stdio::piped());
        let child = started.spawn().unwrap();
        let id = child.id();
        let out = child.wait_with_output().unwrap();
        assert_eq!(out.status.code(), Some(7));
        let told = String::from_utf8(out.stdout).unwrap();
        let expected: String = command.iter().map(|argument| format!("<{argument}>\n")).collect();
        assert_eq!(told, format!("{id}\n{expected}"));
    }
}

/// Whether a program is linked with libtorch: the name is in its table of strings.
#[cfg(not(debug_assertions))]
fn has_libtorch(program: &str) -> bool {
    let name = b"\0libtorch_cpu.so\0";
    fs::read(program).unwrap().windows(name.len()).any(|part| part == name)
}

// Only optimised programs are free of what they do not use.
#[cfg(not(debug_assertions))]
#[test]
fn nct_is_not_linked_with_libtorch() {
    assert!(has_libtorch(env!("CARGO_BIN_EXE_nct-torch")));
    assert!(!has_libtorch(env!("CARGO_BIN_EXE_nct")));
}
