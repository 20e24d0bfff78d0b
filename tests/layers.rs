//! The architecture as a test: imports point down, unsafe and printing stay within their fences.

use std::fs;
use std::path::{Path, PathBuf};

/// Ranks, bottom first. Modules of one rank do not know each other.
const RANKS: [&[&str]; 13] = [
    &["base"],
    &["files"],
    &["store"],
    &["shard", "runs", "corruption", "figure", "table"],
    &["schedule", "ingest"],
    &["load"],
    &["torch_ext"],
    &["model"],
    &["objective"],
    &["eval", "analysis"],
    &["train"],
    &["config", "report"],
    &["datajoint"],
];
const FENCES: [&str; 8] = [
    "src/base/avx512.rs",
    "src/shard/mmap.rs",
    "src/load/arena.rs",
    "src/corruption/jpeg/avx2.rs",
    "src/model/device.rs",
    "src/model/device/driver.rs",
    "src/torch_ext/graph.rs",
    "src/torch_ext/mod.rs",
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

fn rank(module: &str) -> usize {
    if module == "cli" {
        return RANKS.len();
    }
    RANKS
        .iter()
        .position(|modules| modules.contains(&module))
        .unwrap_or_else(|| panic!("module {module} has no rank"))
}

#[test]
fn imports_point_down_and_fences_hold() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    sources(&root.join("src"), &mut found);
    assert!(found.len() > 30);
    for path in found {
        let name = path.strip_prefix(root).unwrap().display().to_string();
        let module = name.split('/').nth(1).unwrap().trim_end_matches(".rs").to_owned();
        if ["lib", "main", "bin"].contains(&module.as_str()) {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        for (number, line) in text.lines().enumerate() {
            let place = format!("{name}:{}", number + 1);
            for import in line.split("crate::").skip(1) {
                let other: String = import.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                let down = other == module || rank(&other) < rank(&module);
                assert!(other.is_empty() || down, "{place}: {module} may not use {other}");
            }
            let code = line.split("//").next().unwrap();
            let words: Vec<&str> = code.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
            assert!(
                !words.contains(&"unsafe") || FENCES.contains(&name.as_str()),
                "{place}: unsafe outside its fence"
            );
            let prints =
                ["println", "eprintln", "print", "eprint", "anyhow"].iter().any(|w| words.contains(w));
            assert!(!prints || module == "cli", "{place}: printing or anyhow below cli");
            assert!(
                !words.contains(&"tch") || rank(&module) >= rank("torch_ext"),
                "{place}: torch below torch_ext"
            );
        }
    }
}
