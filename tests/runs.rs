//! The index of runs, and what users ask of it.

use crate::common::{nct, output, stderr, succeed};
use nct::base::Fingerprint;
use nct::corruption::{Corruption, Group};
use nct::runs::{Filter, INDEX, Run, Store, UNMADE, write_atomic};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// A run as `nct train` leaves it; with `accuracy`, a finished one.
fn make(root: &Path, name: &str, lr: f64, accuracy: Option<f64>) -> String {
    let config = format!(
        "name = \"{name}\"\nseed = 3\n[optimizer]\nkind = \"sgd\"\nlr = {lr:?}\n[mix]\nratio = {{ 1 = 1 }}\n"
    );
    let run = Run::create(root, name, &config, &json!({"seed": 3})).unwrap();
    for epoch in 0..3 {
        let best = epoch.min(1);
        let line = json!({
            "epoch": epoch, "task": "img_classification", "best_epoch": best, "seconds": 2.5,
            "validation_accuracy": 10.0 * lr + f64::from(epoch),
        });
        run.metric(&line).unwrap();
    }
    for checkpoint in ["best", "last", "epoch-2"] {
        fs::write(run.checkpoint(checkpoint), [0; 1000]).unwrap();
    }
    if let Some(accuracy) = accuracy {
        let row = json!({
            "run": name, "suite": "final", "mode": "FinalTestInDomain", "split": "test",
            "task": "img_classification", "metric": "accuracy", "value": accuracy,
        });
        run.results(&[row]).unwrap();
    }
    run.root().file_name().unwrap().to_str().unwrap().to_owned()
}

/// Folders that a listing has, in its order.
fn ls(dir: &Path, args: &[&str]) -> Vec<String> {
    let lines = succeed(nct(dir).args(["runs", "ls", "--json"]).args(args));
    let folder =
        |line: &str| serde_json::from_str::<Value>(line).unwrap()["run"].as_str().unwrap().to_owned();
    lines.lines().map(folder).collect()
}

#[test]
fn runs_are_filtered_sorted_and_shown() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("runs");
    let a = make(&root, "baseline", 0.1, Some(50.0));
    let b = make(&root, "mtl", 0.05, Some(60.0));
    let c = make(&root, "mtl", 0.2, None);
    fs::create_dir(root.join("no-run")).unwrap();
    let at = |args: &[&str]| ls(dir.path(), args);
    assert_eq!(at(&[]).len(), 3);
    for (filter, expected) in [
        ("optimizer.lr>=0.1", vec![&a, &c]),
        ("lr<0.1", vec![&b]),
        ("name=baseline", vec![&a]),
        ("name!=baseline", vec![&b, &c]),
        ("name~mt", vec![&b, &c]),
        ("state=stopped", vec![&c]),
        ("FinalTestInDomain.accuracy>55", vec![&b]),
        ("FinalTestInDomain.accuracy!=50", vec![&b, &c]),
        ("epoch=2", vec![&a, &b, &c]),
        ("seed=3.0", vec![&a, &b, &c]),
    ] {
        let mut found = at(&["--where", filter]);
        found.sort();
        let mut expected: Vec<String> = expected.into_iter().cloned().collect();
        expected.sort();
        assert_eq!(found, expected, "{filter}");
    }
    assert_eq!(
        at(&["--top", "FinalTestInDomain.accuracy"]),
        [b.clone(), a.clone(), c.clone()],
        "those without come last"
    );
    assert_eq!(at(&["--sort", "validation_accuracy", "--limit", "1"]), std::slice::from_ref(&b));
    let best =
        succeed(nct(dir.path()).args(["runs", "best", "validation_accuracy", "--where", "state=done"]));
    assert!(best.trim().ends_with(&a), "{best}");
    let line = succeed(nct(dir.path()).args(["runs", "show", "baseline", "--json"]));
    let shown: Value = serde_json::from_str(&line).unwrap();
    // Of epoch 1, the best one.
    assert_eq!(shown["metrics"]["img_classification.validation_accuracy"], 2.0);
    assert_eq!((&shown["settings"]["optimizer.lr"], &shown["seconds"]), (&json!(0.1), &json!(7.5)));
    let rows = succeed(nct(dir.path()).args(["runs", "compare", &a, &b, "--json"]));
    let keys: Vec<Value> = rows.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let keys: Vec<&str> = keys.iter().map(|row| row["key"].as_str().unwrap()).collect();
    assert_eq!(keys[..2], ["name", "optimizer.lr"], "only settings that differ");
    assert!(keys.contains(&"img_classification.FinalTestInDomain.accuracy"), "{keys:?}");
    for (args, what) in [
        (vec!["runs", "ls", "--where", "optimizer.rl>1"], "did you mean optimizer.lr?"),
        (vec!["runs", "ls", "--where", "optimizer"], "expected a key"),
        (vec!["runs", "ls", "--show", "accuracy", "--where", "accuracy>1"], ""),
        (vec!["runs", "show", "mtl"], "part of several runs' names"),
        (vec!["runs", "show", "nothing"], "nct runs ls"),
        (vec!["runs", "ls", "--runs", "nowhere"], "is no folder of runs"),
    ] {
        let told = output(nct(dir.path()).args(&args));
        assert_eq!(
            told.status.code(),
            Some(if what.is_empty() { 0 } else { 2 }),
            "{args:?}: {}",
            stderr(&told)
        );
        assert!(stderr(&told).contains(what), "{}", stderr(&told));
    }
}

#[test]
fn runs_that_differ_in_some_settings_alone_are_one_row() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("runs");
    for (name, lr, score) in [
        ("baseline", 0.1, Some(50.0)),
        ("mtl", 0.05, Some(60.0)),
        ("mtl", 0.2, Some(63.0)),
        ("mtl", 0.4, None),
    ] {
        make(&root, name, lr, score);
    }
    let rows = |args: &[&str]| succeed(nct(dir.path()).args(["runs", "ls", "--over"]).args(args));
    let told = rows(&["lr", "--json"]);
    let groups: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let sizes: Vec<(&str, usize)> =
        groups.iter().map(|g| (g["name"].as_str().unwrap(), g["runs"].as_array().unwrap().len())).collect();
    assert_eq!(sizes, [("baseline", 1), ("mtl", 3)]);
    // Shown without being asked for.
    let score = &groups[1]["values"]["img_classification.FinalTestInDomain.accuracy"];
    assert_eq!(
        (&score["n"], &score["mean"], &score["each"]),
        (&json!(2), &json!(61.5), &json!([60.0, 63.0]))
    );
    assert!((score["sd"].as_f64().unwrap() - 4.5f64.sqrt()).abs() < 1e-12);
    assert!(rows(&["lr"]).contains("61.5 ± 2.12 (2)"), "{}", rows(&["lr"]));
    // Where runs agree, how many they are.
    assert!(rows(&["lr", "--show", "seed"]).contains("3 ± 0 (3)"), "{}", rows(&["lr", "--show", "seed"]));
    let apart = rows(&["seed", "--show", "epoch"]);
    assert!(apart.contains("mtl, lr = 0.05") && apart.contains("mtl, lr = 0.2"), "{apart}");
    let unknown = output(nct(dir.path()).args(["runs", "ls", "--over", "sed"]));
    assert!(unknown.status.code() == Some(2) && stderr(&unknown).contains("no run has such a setting"));
}

#[test]
fn long_lists_are_cut_in_tables_and_whole_in_json() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("runs");
    let list = "[\"gaussian_noise\", \"shot_noise\", \"impulse_noise\", \"defocus_blur\", \"fog\"]";
    for (name, list) in [("a", list), ("b", list), ("c", "[\"fog\"]")] {
        let config = root.join(make(&root, name, 0.1, Some(1.0))).join("config.toml");
        let text = fs::read_to_string(&config).unwrap() + &format!("[distort]\ncorruptions = {list}\n");
        fs::write(&config, text).unwrap();
    }
    let rows = |more: &[&str]| {
        let ls = ["runs", "ls", "--over", "name", "--show", "name,corruptions"];
        succeed(nct(dir.path()).args(ls).args(more))
    };
    let table = rows(&[]);
    assert!(table.contains("[\"gaussian_noise\", \"shot… (5)") && !table.contains("defocus_blur"), "{table}");
    assert!(table.contains("a, b"), "{table}");
    let json = rows(&["--json"]);
    let first: Value = serde_json::from_str(json.lines().next().unwrap()).unwrap();
    assert_eq!(first["values"]["corruptions"]["each"], json!([list, list]));
}

/// Files and folders whose times are a minute ago, which the index does not look at again.
fn settle(paths: &[&Path]) {
    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_mins(1);
    for path in paths {
        fs::File::open(path).unwrap().set_modified(long_ago).unwrap();
    }
}

/// What `nct eval --suite corruptions` keeps in a run, of weights with this digest.
fn kept(weights: &str, cells: &Value) -> String {
    let grid = json!({"classes": 3, "clean": 0.5, "cells": cells, "severities": [1, 5]});
    json!({
        "profile": "i", "split": "test", "seed": 0, "weights": weights, "frost_source": "synthetic", "grid": grid,
        "of_a_later_version": true,
    })
    .to_string()
}

fn every_command_knows_them(dir: &Path, [a, b]: [&str; 2]) {
    let told = |args: &[&str]| succeed(nct(dir).arg("runs").args(args));
    assert!(told(&["keys"]).contains("corruptions.i.mean_accuracy_without_frost"));
    assert!(told(&["best", "corruptions.i.mean_accuracy"]).trim().ends_with(a));
    assert!(told(&["ls", "--show", "mean_accuracy"]).contains("20.8333"));
    assert!(told(&["compare", a, b]).contains("corruptions.i.clean"));
    told(&["export", "--wide", "--table", "wide.csv"]);
    assert!(fs::read_to_string(dir.join("wide.csv")).unwrap().contains("corruptions.i.weather"));
}

#[test]
fn means_under_corruptions_are_metrics_as_long_as_the_weights_are_those() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("runs");
    let [a, b] = ["a", "b"].map(|name| make(&root, name, 0.1, Some(50.0)));
    let weights = Fingerprint::of_large(&[0; 1000]).to_string();
    let robustness = root.join(&a).join("robustness");
    fs::create_dir(&robustness).unwrap();
    let file = robustness.join("i-test-0.json");
    let cells = json!({
        "fog": [0.4, 0.2], "frost": [0.1, 0.1], "gaussian_noise": [0.25, 0.2], "saturate": [0.5, 0.5],
    });
    fs::write(&file, kept(&weights, &cells)).unwrap();
    let metrics = |run: &str| {
        let line = succeed(nct(dir.path()).args(["runs", "show", run, "--json"]));
        let mut shown: Value = serde_json::from_str(&line).unwrap();
        let metrics = shown["metrics"].as_object_mut().unwrap();
        metrics.retain(|key, _| key.starts_with("corruptions."));
        shown["metrics"].clone()
    };
    let near = |found: &Value, key: &str, expected: f64| {
        let found = found[format!("corruptions.i.{key}")].as_f64().unwrap_or(f64::NAN);
        assert!((found - expected).abs() < 1e-9, "{key}: {found}, not {expected}");
    };
    let found = metrics(&a);
    // The extra one is in its group alone.
    for (key, expected) in [
        ("clean", 50.0),
        ("mean_accuracy", (30.0 + 10.0 + 22.5) / 3.0),
        ("mean_accuracy_without_frost", 26.25),
        ("noise", 22.5),
        ("weather", 20.0),
        ("extra", 50.0),
        ("cells", 6.0),
    ] {
        near(&found, key, expected);
    }
    assert_eq!(
        (&found["corruptions.i.frost_source"], &found["corruptions.i.blur"]),
        (&json!("synthetic"), &Value::Null)
    );
    assert_eq!(metrics(&b), json!({}));
    every_command_knows_them(dir.path(), [&a, &b]);
    // Nothing that has not changed is read: not even what was put into the old file.
    let (run, checkpoints) = (root.join(&a), root.join(&a).join("checkpoints"));
    let all = [&run, &robustness, &checkpoints].map(std::path::PathBuf::as_path);
    settle(&all);
    near(&metrics(&a), "weather", 20.0);
    let other = kept(&weights, &json!({"fog": [0.6, 0.6]}));
    fs::write(&file, &other).unwrap();
    near(&metrics(&a), "weather", 20.0);
    // As nct replaces it, it is noticed; so is another set, and that the run has gone on.
    write_atomic(&file, other.as_bytes()).unwrap();
    near(&metrics(&a), "weather", 60.0);
    settle(&all);
    near(&metrics(&a), "weather", 60.0);
    let stored = other.replace("\"profile\":\"i\"", "\"profile\":\"Tiny-C\"").replace("\"seed\":0,", "");
    write_atomic(&robustness.join("stored-Tiny-C-test.json"), stored.as_bytes()).unwrap();
    assert_eq!(metrics(&a)["corruptions.Tiny-C.weather"], 60.0);
    settle(&all);
    assert_eq!(metrics(&a)["corruptions.Tiny-C.weather"], 60.0);
    write_atomic(&checkpoints.join("best.safetensors"), &[1; 1000]).unwrap();
    assert_eq!(metrics(&a), json!({}), "of other weights");
    // What is damaged is passed over.
    for damage in ["", "[]", "{\"weights\": 3}", &kept(&weights, &json!({"fog": [0.1]}))] {
        write_atomic(&checkpoints.join("best.safetensors"), &[0; 1000]).unwrap();
        write_atomic(&file, damage.as_bytes()).unwrap();
        let found = metrics(&a);
        assert!(
            found.get("corruptions.i.clean").is_none() && found.as_object().unwrap().len() > 3,
            "{found}"
        );
    }
}

#[test]
fn weights_are_not_read_again_while_their_file_is_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("runs");
    // A run that is not done is read at every look.
    let run = root.join(make(&root, "a", 0.1, None));
    fs::create_dir(run.join("robustness")).unwrap();
    let weights = Fingerprint::of_large(&[0; 1000]).to_string();
    let file = run.join("robustness/i-test-0.json");
    fs::write(&file, kept(&weights, &json!({"fog": [0.4, 0.2]}))).unwrap();
    let best = run.join("checkpoints/best.safetensors");
    settle(&[&best]);
    let has = || succeed(nct(dir.path()).args(["runs", "keys"])).contains("corruptions.i.clean");
    assert!(has());
    let at = fs::metadata(&best).unwrap().modified().unwrap();
    fs::write(&best, [1; 1000]).unwrap();
    fs::File::open(&best).unwrap().set_modified(at).unwrap();
    assert!(has(), "a file of the same length and time was read again");
    // The index is made of what is there.
    succeed(nct(dir.path()).args(["runs", "reindex"]));
    assert!(!has());
}

/// The index has the groups of its own layer.
#[test]
fn groups_of_the_index_are_those_of_the_corruptions() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("runs");
    let run = root.join(make(&root, "a", 0.1, Some(50.0)));
    fs::create_dir(run.join("robustness")).unwrap();
    let share = |i: usize| (i * i) as f64 / 1000.0;
    let cells: Value = Corruption::ALL
        .iter()
        .enumerate()
        .map(|(i, c)| (c.as_str().to_owned(), json!([share(i), share(i)])))
        .collect::<serde_json::Map<_, _>>()
        .into();
    let weights = Fingerprint::of_large(&[0; 1000]).to_string();
    fs::write(run.join("robustness/i-test-0.json"), kept(&weights, &cells)).unwrap();
    let store = Store::open(&root).unwrap();
    let found = store.entries(run.file_name().unwrap().to_str().unwrap(), false).unwrap();
    let check = |key: &str, wanted: &dyn Fn(Corruption) -> bool| {
        let own = Corruption::ALL.iter().enumerate().filter(|(_, c)| wanted(**c)).map(|(i, _)| share(i));
        let own: Vec<f64> = own.collect();
        let expected = 100.0 * own.iter().sum::<f64>() / own.len() as f64;
        let (_, text) = found.iter().find(|(name, _)| *name == format!("corruptions.i.{key}")).unwrap();
        assert!((text.parse::<f64>().unwrap() - expected).abs() < 1e-9, "{key}: {text}, not {expected}");
    };
    for group in Group::ALL {
        check(group.as_str(), &|c| c.group() == group);
    }
    let paper = |c: Corruption| c.group() != Group::Extra;
    check("mean_accuracy", &paper);
    check("mean_accuracy_without_frost", &|c| paper(c) && c != Corruption::Frost);
}

#[test]
fn everything_in_a_folder_of_runs_can_be_given_to_compare_and_rm() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("runs");
    let runs = ["a", "b"].map(|name| make(&root, name, 0.1, Some(1.0)));
    ls(dir.path(), &[]);
    fs::create_dir(root.join("slurm")).unwrap();
    let entries = || fs::read_dir(&root).unwrap().map(|entry| entry.unwrap());
    let mut all: Vec<String> =
        entries().map(|e| format!("runs/{}", e.file_name().to_str().unwrap())).collect();
    all.sort();
    assert!(all.contains(&format!("runs/{INDEX}")));
    let told = output(nct(dir.path()).args(["runs", "compare", "--json"]).args(&all));
    assert!(told.status.success(), "{}", stderr(&told));
    let first: Value =
        serde_json::from_str(String::from_utf8_lossy(&told.stdout).lines().next().unwrap()).unwrap();
    assert_eq!(first["runs"], json!(runs));
    assert!(stderr(&told).contains("runs/slurm: passed over, being no run"), "{}", stderr(&told));
    assert!(!stderr(&told).contains(INDEX), "{}", stderr(&told));
    let alone = output(nct(dir.path()).args(["runs", "compare", &runs[0], &format!("runs/{INDEX}")]));
    assert!(
        alone.status.code() == Some(2) && stderr(&alone).contains("two runs or more"),
        "{}",
        stderr(&alone)
    );
    let unknown = output(nct(dir.path()).args(["runs", "compare", &runs[0], &runs[1], "runs/none"]));
    assert!(
        unknown.status.code() == Some(2) && stderr(&unknown).contains("no run none"),
        "{}",
        stderr(&unknown)
    );
    fs::remove_dir(root.join("slurm")).unwrap();
    all.retain(|name| name != "runs/slurm");
    succeed(nct(dir.path()).args(["runs", "rm", "--yes"]).args(&all));
    assert_eq!(ls(dir.path(), &[]), [""; 0]);
}

#[test]
fn the_index_follows_the_folders_and_can_be_lost() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("runs");
    let (a, b) = (make(&root, "a", 0.1, Some(1.0)), make(&root, "b", 0.1, None));
    assert_eq!(ls(dir.path(), &[]), [a.clone(), b.clone()]);
    succeed(nct(dir.path()).args(["runs", "tag", &a, "paper", "fig-3"]));
    succeed(nct(dir.path()).args(["runs", "tag", &a, "--remove", "fig-3"]));
    assert_eq!(ls(dir.path(), &["--where", "tag=paper"]), std::slice::from_ref(&a));
    assert_eq!(ls(dir.path(), &["--where", "tag=fig-3"]), [""; 0]);
    // A finished run, one that is gone, a damaged index, and none at all.
    let run = Run::open(&root.join(&b)).unwrap();
    run.results(&[]).unwrap();
    assert_eq!(ls(dir.path(), &["--where", "state=done"]).len(), 2);
    fs::remove_dir_all(root.join(&b)).unwrap();
    assert_eq!(ls(dir.path(), &[]), std::slice::from_ref(&a));
    let whole = Store::open(&root).unwrap().entries(&a, false).unwrap();
    assert!(!whole.is_empty());
    for damage in [Some(&b"SQLite format 3\0and then nothing of it"[..]), Some(&[7; 5000]), None] {
        match damage {
            Some(bytes) => fs::write(root.join(INDEX), bytes).unwrap(),
            None => fs::remove_file(root.join(INDEX)).unwrap(),
        }
        assert_eq!(ls(dir.path(), &["--where", "tag=paper"]), std::slice::from_ref(&a));
        assert_eq!(Store::open(&root).unwrap().entries(&a, false).unwrap(), whole);
    }
    assert!(stderr(&output(nct(dir.path()).args(["runs", "reindex"]))).contains("1 runs"));
    // A run whose settings are damaged is named.
    let c = make(&root, "c", 0.1, Some(1.0));
    fs::write(root.join(&c).join("config.toml"), "seed = ").unwrap();
    let told = output(nct(dir.path()).args(["runs", "ls"]));
    assert!(told.status.success() && stderr(&told).contains(&format!("{c}: left out")), "{}", stderr(&told));
}

#[test]
fn runs_are_removed_and_tidied_only_when_asked_and_never_while_they_train() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("runs");
    let [a, b, kept] = ["a", "b", "kept"].map(|name| make(&root, name, 0.1, Some(1.0)));
    let stopped = make(&root, "stopped", 0.1, None);
    succeed(nct(dir.path()).args(["runs", "tag", &kept, "keep"]));
    let there = |run: &str| {
        ["best", "last", "epoch-2"]
            .map(|c| root.join(run).join(format!("checkpoints/{c}.safetensors")).exists())
    };
    let told = output(nct(dir.path()).args(["runs", "gc"]));
    assert!(stderr(&told).contains("would be freed") && there(&a) == [true; 3], "{}", stderr(&told));
    // What a kill left of a run that was being made: an old one goes, a new one may be another process's.
    let old = [UNMADE, ".samples-", ".responses-"].map(|begin| root.join(format!("{begin}old")));
    let new = [UNMADE, ".samples-"].map(|begin| root.join(format!("{begin}new")));
    let removed = root.join(".removing-x");
    for path in old.iter().chain(&new).chain([&removed]) {
        fs::create_dir(path).unwrap();
    }
    let hours_ago = std::time::SystemTime::now() - std::time::Duration::from_hours(3);
    for path in &old {
        fs::File::open(path).unwrap().set_modified(hours_ago).unwrap();
    }
    // A finished run that is trained further is passed over.
    let training = Run::resume(&root.join(&b)).unwrap();
    for args in [&["runs", "gc"][..], &["runs", "gc", "--yes"]] {
        let told = output(nct(dir.path()).args(args));
        let passed = stderr(&told).contains(&format!("{b}: another process is training into this run"));
        assert!(told.status.success() && passed, "{}", stderr(&told));
    }
    assert_eq!(there(&b), [true; 3]);
    drop(training);
    succeed(nct(dir.path()).args(["runs", "gc", "--yes"]));
    assert!(old.iter().chain([&removed]).all(|path| !path.exists()) && new.iter().all(|path| path.exists()));
    assert_eq!([&a, &b, &kept, &stopped].map(|run| there(run)[1]), [false, false, true, true]);
    assert!(there(&a)[0] && !there(&a)[2]);
    succeed(nct(dir.path()).args(["runs", "rm", &a]));
    assert!(root.join(&a).exists(), "removed without --yes");
    let training = Run::resume(&root.join(&b)).unwrap();
    assert_eq!(
        ls(dir.path(), &["--where", "state=running"]).len(),
        0,
        "a finished run's state is that it is done"
    );
    let refused = output(nct(dir.path()).args(["runs", "rm", &b, "--yes"]));
    assert!(
        refused.status.code() == Some(2) && stderr(&refused).contains("another process"),
        "{}",
        stderr(&refused)
    );
    drop(training);
    succeed(nct(dir.path()).args(["runs", "rm", &a, &b, "--yes"]));
    assert_eq!(ls(dir.path(), &[]), [kept, stopped]);
}

#[test]
fn only_the_run_that_is_named_is_removed_or_tagged() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("runs");
    let [first, second] = ["20260101-000000-demo", "20260101-000000-demo-2"];
    for name in [first, second] {
        fs::rename(root.join(make(&root, "demo", 0.1, Some(1.0))), root.join(name)).unwrap();
    }
    fs::create_dir_all(dir.path().join("elsewhere/runs").join(second)).unwrap();
    succeed(nct(dir.path()).args(["runs", "rm", first, "--yes"]));
    let parts = "is only a part of";
    for (args, what) in [
        (&["rm", first, "--yes"][..], parts),
        (&["rm", first], parts),
        (&["tag", first, "paper"], parts),
        (&["rm", "demo", "--yes"], parts),
        (&["rm", "runs/demo"], parts),
        (&["tag", "runs/demo", "paper"], parts),
        (&["rm", "", "--yes"], "no run \"\""),
        (&["rm", "/", "--yes"], "no run \"/\""),
        (&["tag", "", "paper"], "no run \"\""),
        (&["show", ""], "no run \"\""),
        (&["rm", "elsewhere/runs/20260101-000000-demo-2", "--yes"], "no run in this folder"),
        (&["tag", "elsewhere/runs/20260101-000000-demo-2", "paper"], "no run in this folder"),
        (&["show", "elsewhere/runs/20260101-000000-demo-2"], "no run in this folder"),
    ] {
        let told = output(nct(dir.path()).arg("runs").args(args));
        assert_eq!(told.status.code(), Some(2), "{args:?}");
        assert!(stderr(&told).contains(what), "{args:?}: {}", stderr(&told));
        assert_eq!(ls(dir.path(), &["--where", "tag!=paper"]), [second], "{args:?}");
    }
    // To look at a run, a part of its name will do.
    for name in [first, "demo", "runs/demo", "runs/20260101-000000-demo-2/"] {
        succeed(nct(dir.path()).args(["runs", "show", name]));
    }
    succeed(nct(dir.path()).args(["runs", "rm", "demo"]));
    succeed(nct(dir.path()).args(["runs", "tag", "demo-2", "paper"]));
    assert_eq!(ls(dir.path(), &["--where", "tag=paper"]), [second]);
    succeed(nct(dir.path()).args(["runs", "rm", "runs/20260101-000000-demo-2/", "--yes"]));
    assert!(ls(dir.path(), &[]).is_empty());
    let hidden = fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(hidden.collect::<Vec<_>>(), [INDEX], "nothing is left of them");
}

#[test]
fn keys_that_only_removed_runs_had_are_gone() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("runs");
    let [a, b] = ["a", "b"].map(|name| make(&root, name, 0.1, Some(1.0)));
    let config = root.join(&b).join("config.toml");
    fs::write(&config, fs::read_to_string(&config).unwrap() + "[other]\nlr = 0.5\n").unwrap();
    let keys = || succeed(nct(dir.path()).args(["runs", "keys"]));
    assert!(keys().contains("other.lr"));
    let several = output(nct(dir.path()).args(["runs", "ls", "--show", "lr"]));
    assert!(stderr(&several).contains("could be optimizer.lr, other.lr"), "{}", stderr(&several));
    succeed(nct(dir.path()).args(["runs", "rm", &b, "--yes"]));
    assert!(!keys().contains("other.lr") && keys().contains("optimizer.lr"));
    assert_eq!(ls(dir.path(), &["--show", "lr"]), [a]);
}

#[test]
fn a_damaged_index_is_made_anew_by_reindex_and_questions_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("runs");
    let names: Vec<String> = (0..5).map(|i| make(&root, &format!("r{i}"), 0.1, Some(1.0))).collect();
    // The index looks again at what has just changed, and would see the damage at once.
    std::thread::sleep(std::time::Duration::from_millis(2100));
    assert_eq!(ls(dir.path(), &[]), names);
    // All pages but those of the schema, of the runs and of their names.
    let mut bytes = fs::read(root.join(INDEX)).unwrap();
    bytes[3 * 4096..].fill(0xAB);
    fs::write(root.join(INDEX), bytes).unwrap();
    let told = output(nct(dir.path()).args(["runs", "ls", "--show", "lr"]));
    assert_eq!(told.status.code(), Some(2));
    assert!(stderr(&told).contains("`nct runs reindex` makes it anew"), "{}", stderr(&told));
    succeed(nct(dir.path()).args(["runs", "reindex"]));
    assert_eq!(ls(dir.path(), &["--show", "lr"]), names);
}

#[test]
fn tags_are_filtered_by_equality_and_by_their_parts_and_are_not_lost() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("runs");
    let [a, b] = ["a", "b"].map(|name| make(&root, name, 0.1, Some(1.0)));
    succeed(nct(dir.path()).args(["runs", "tag", &a, "paper-1", "x"]));
    succeed(nct(dir.path()).args(["runs", "tag", &b, "poster"]));
    let with = |filter: &str| ls(dir.path(), &["--where", filter]);
    assert_eq!(with("tag~pape"), std::slice::from_ref(&a));
    assert_eq!(with("tag~p"), [a.clone(), b.clone()]);
    assert_eq!((with("tag=pape"), with("tag!=x")), (Vec::new(), vec![b.clone()]));
    for filter in ["tag>a", "tag>=a", "tag<a", "tag<=a"] {
        let told = output(nct(dir.path()).args(["runs", "ls", "--where", filter]));
        assert_eq!(told.status.code(), Some(2), "{filter}");
        assert!(stderr(&told).contains("tags have no order"), "{}", stderr(&told));
    }
    // Many processes that tag one run at once.
    let tag =
        |i: u32| nct(dir.path()).args(["--quiet", "runs", "tag", &a, &format!("t{i}")]).spawn().unwrap();
    let tagging: Vec<_> = (0..24).map(tag).collect();
    for mut child in tagging {
        assert!(child.wait().unwrap().success());
    }
    let shown = succeed(nct(dir.path()).args(["runs", "show", &a, "--json"]));
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["tags"].as_array().unwrap().len(), 2 + 24, "{shown}");
}

#[test]
fn whole_numbers_keep_their_digits() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("runs");
    let [a, b] = ["a", "b"].map(|name| make(&root, name, 1.0, Some(1.0)));
    for (run, seed) in [(&a, "9007199254740992"), (&b, "9007199254740993")] {
        let config = root.join(run).join("config.toml");
        let text = fs::read_to_string(&config).unwrap().replace("seed = 3", &format!("seed = {seed}"));
        fs::write(&config, text).unwrap();
    }
    let shown = succeed(nct(dir.path()).args(["runs", "show", &b, "--json"]));
    for part in ["\"seed\":9007199254740993}", "\"optimizer.lr\":1.0,", "\"best_epoch\":1,", "accuracy\":1.0"]
    {
        assert!(shown.contains(part), "{part} is not in {shown}");
    }
    for (filter, expected) in [
        ("seed=9007199254740993", vec![b.clone()]),
        ("seed=9007199254740992", vec![a.clone()]),
        ("seed>9007199254740992", vec![b.clone()]),
        ("seed<=9007199254740992", vec![a.clone()]),
        ("lr=1", vec![a.clone(), b.clone()]),
        ("best_epoch=1.0", vec![a.clone(), b.clone()]),
    ] {
        assert_eq!(ls(dir.path(), &["--where", filter]), expected, "{filter}");
    }
    let table = succeed(nct(dir.path()).args(["runs", "ls", "--show", "seed"]));
    assert!(table.contains("9007199254740993"), "{table}");
}

#[test]
fn runs_are_exported_long_and_wide() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("runs");
    let [a, b] = [("a", Some(50.5)), ("b", None)].map(|(name, score)| make(&root, name, 0.1, score));
    let export = |files: &[&str], more: &[&str]| {
        let tables = files.iter().flat_map(|file| ["--table", file]);
        succeed(nct(dir.path()).args(["runs", "export"]).args(tables).args(more));
        let text = fs::read_to_string(dir.path().join(files[0])).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>()
    };
    let long = export(&["out/long.jsonl", "out/long.parquet"], &["--where", "name=a"]);
    assert!(long.iter().all(|row| row["run"] == a), "{long:?}");
    let of = |key: &str| long.iter().find(|row| row["key"] == key).unwrap().clone();
    assert_eq!(
        (&of("optimizer.kind")["text"], &of("optimizer.kind")["number"]),
        (&json!("sgd"), &Value::Null)
    );
    let score = of("img_classification.FinalTestInDomain.accuracy");
    assert_eq!((&score["kind"], &score["number"]), (&json!("metric"), &json!(50.5)));
    let wide = export(&["out/wide.jsonl", "out/wide.csv", "out/wide.parquet"], &["--wide"]);
    let runs: Vec<&Value> = wide.iter().map(|row| &row["run"]).collect();
    assert_eq!((runs, &wide[0]["optimizer.lr"]), (vec![&json!(a), &json!(b)], &json!(0.1)));
    assert_eq!(wide[0]["img_classification.FinalTestInDomain.accuracy"], 50.5);
    assert!(wide[1]["img_classification.FinalTestInDomain.accuracy"].is_null());
    let csv = fs::read_to_string(dir.path().join("out/wide.csv")).unwrap();
    let columns = csv.lines().next().unwrap().split(',').count();
    assert!(columns > 10 && csv.lines().all(|line| line.split(',').count() == columns), "{csv}");
    for name in ["long", "wide"] {
        let bytes = fs::read(dir.path().join(format!("out/{name}.parquet"))).unwrap();
        assert!(bytes.starts_with(b"PAR1") && bytes.ends_with(b"PAR1"));
    }
}

#[test]
fn several_processes_may_ask_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("runs");
    (0..40).for_each(|i| drop(make(&root, &format!("r{i}"), 0.1, Some(f64::from(i)))));
    let ask = || {
        let mut command = nct(dir.path());
        command.args(["runs", "ls", "--json", "--where", "FinalTestInDomain.accuracy>=30"]);
        command.stdout(std::process::Stdio::piped()).spawn().unwrap()
    };
    for _ in 0..3 {
        let _ = fs::remove_file(root.join(INDEX));
        let asked: Vec<_> = (0..4).map(|_| ask()).collect();
        for child in asked {
            let answer = child.wait_with_output().unwrap();
            assert!(answer.status.success());
            assert_eq!(String::from_utf8(answer.stdout).unwrap().lines().count(), 10);
        }
    }
}

#[test]
fn a_listing_is_of_one_state_of_the_index() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("runs");
    (0..20).for_each(|i| drop(make(&root, &format!("r{i}"), 0.1, Some(f64::from(i)))));
    let filter = ["FinalTestInDomain.accuracy>=15".parse::<Filter>().unwrap()];
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut store = Store::open(&root).unwrap();
            while !done.load(Relaxed) {
                store.rebuild().unwrap();
            }
        });
        let listed: Vec<usize> = (0..50)
            .map(|_| Store::open(&root).unwrap().list(&filter, &["lr".to_owned()], None).unwrap().len())
            .collect();
        done.store(true, Relaxed);
        assert_eq!(listed, [5; 50]);
    });
}

#[test]
fn filters_are_read_as_they_are_written() {
    for (text, same) in [("a>=1", "a >= 1"), ("a~b=c", "a ~ b=c"), ("a!=b", "a != b")] {
        assert_eq!(text.parse::<Filter>(), same.parse::<Filter>());
    }
    for bad in ["", "a", ">1", "a=", "="] {
        assert!(bad.parse::<Filter>().is_err(), "{bad}");
    }
}
