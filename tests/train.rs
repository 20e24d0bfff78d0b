//! Training, resuming and evaluating as a user does.

use crate::common::{files, metrics, nct, only_run, output, python, shards, stderr, succeed};
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A tiny network on the small sample data; an epoch has 17 updates of three batches.
const TINY: &str = "
name = \"tiny\"
seed = 3
[data]
batch_size = 4
neural_batch_size = 8
[mix]
kind = \"mtl\"
ratio = { 1 = 2 }
[model]
vgg_type = \"bn 8 M 16 M 16 M\"
v1_model_layer = 8
hidden = 32
[optimizer]
kind = \"sgd\"
lr = 0.02
momentum = 0.75
weight_decay = 5e-4
[schedule]
patience = 1
lr_decay_steps = 3
max_iter = 4
";

fn train(dir: &Path, args: &[&str]) -> Command {
    fs::write(dir.join("tiny.toml"), TINY).unwrap();
    let mut command = nct(dir);
    command.args(["train", "--device", "cpu", "--json"]);
    if !args.contains(&"--resume") {
        command.args(["--config", "tiny.toml"]);
    }
    command.args(args);
    command
}

fn checkpoints(run: &Path) -> [Vec<u8>; 2] {
    ["last", "best"].map(|name| fs::read(run.join(format!("checkpoints/{name}.safetensors"))).unwrap())
}

/// Results without the run's name.
fn results(run: &Path) -> String {
    let name = run.file_name().unwrap().to_str().unwrap();
    fs::read_to_string(run.join("results.json")).unwrap().replace(name, "")
}

/// Starts training and waits until epoch `epoch` is told.
fn start_until(dir: &Path, args: &[&str], epoch: u64) -> Child {
    let mut child = train(dir, args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for line in lines.map(Result::unwrap) {
        let value: Value = serde_json::from_str(&line).unwrap();
        if value["epoch"] == epoch && value["task"] == "img_classification" {
            return child;
        }
    }
    child.wait().unwrap();
    panic!("training ended before epoch {epoch}");
}

/// Long enough to be within the next epoch, which takes several times this.
fn a_moment() {
    std::thread::sleep(std::time::Duration::from_millis(30));
}

fn assert_same_end(dir: &Path, whole: &Path, resumed: &Path) {
    assert!(metrics(whole) == metrics(resumed), "metrics differ");
    assert!(checkpoints(whole) == checkpoints(resumed), "weights differ");
    assert_eq!(metrics(resumed).len(), 2 * 5, "{}", dir.display());
}

#[test]
fn killed_in_the_third_epoch_and_resumed_equals_never_killed() {
    let dir = shards();
    succeed(&mut train(dir.path(), &["--out", "whole"]));
    let mut child = start_until(dir.path(), &["--out", "killed"], 2);
    a_moment();
    child.kill().unwrap();
    child.wait().unwrap();
    let run = only_run(dir.path(), "killed");
    assert_eq!(metrics(&run).len(), 2 * 3, "the kill came after the third epoch");
    succeed(&mut train(dir.path(), &["--resume", run.to_str().unwrap()]));
    assert_same_end(dir.path(), &only_run(dir.path(), "whole"), &run);
}

#[test]
fn killed_at_any_moment_and_resumed_gives_the_same_run() {
    // `NCT_KILLS=100 cargo test killed_at_any_moment_and_resumed` for a long run.
    let kills: u64 = std::env::var("NCT_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(4);
    let dir = shards();
    let sets =
        ["--epochs", "3", "--set", "data.batch_size=12", "--set", "checkpoint.every_updates=1", "--out"];
    let start = std::time::Instant::now();
    succeed(train(dir.path(), &sets).arg("whole"));
    let mut whole_time = start.elapsed().as_micros() as u64;
    let whole = only_run(dir.path(), "whole");
    let (mut interrupted, mut went_on) = (0, 0);
    // A busy machine at the start makes the first moments too late.
    for k in 0..20 * kills {
        if interrupted == kills {
            break;
        }
        let mut first = train(dir.path(), &sets);
        let mut child = first.arg("killed").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let moment = nct::base::rng::mix64(k) % whole_time;
        std::thread::sleep(std::time::Duration::from_micros(moment));
        child.kill().unwrap();
        if child.wait().unwrap().success() {
            // It takes less than that: the first run may have met a busy machine.
            whole_time = moment;
        } else {
            interrupted += 1;
        }
        // Killed before it had settings, it is no run yet.
        let made = fs::read_dir(dir.path().join("killed")).into_iter().flatten().map(|run| run.unwrap());
        let killed = made
            .filter(|run| !run.file_name().to_string_lossy().starts_with('.'))
            .map(|run| run.path())
            .next();
        let run = if let Some(run) = killed {
            succeed(&mut train(dir.path(), &["--resume", run.to_str().unwrap()]));
            went_on += 1;
            run
        } else {
            succeed(train(dir.path(), &sets).arg("anew"));
            only_run(dir.path(), "anew")
        };
        assert!(metrics(&whole) == metrics(&run), "kill {k} after {moment} us: metrics differ");
        assert!(checkpoints(&whole) == checkpoints(&run), "kill {k} after {moment} us: weights differ");
        assert!(results(&whole) == results(&run), "kill {k} after {moment} us: results differ");
        for made in ["killed", "anew"].map(|out| dir.path().join(out)).iter().filter(|out| out.exists()) {
            fs::remove_dir_all(made).unwrap();
        }
    }
    assert_eq!(interrupted, kills, "so many runs were interrupted");
    println!("{interrupted} runs killed, {went_on} resumed: all equal");
}

#[test]
fn interrupted_within_an_epoch_saves_and_goes_on_exactly_there() {
    let dir = shards();
    succeed(&mut train(dir.path(), &["--out", "whole"]));
    let mut child = start_until(dir.path(), &["--out", "stopped"], 1);
    a_moment();
    succeed(Command::new("kill").args(["-INT", &child.id().to_string()]));
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let run = only_run(dir.path(), "stopped");
    assert_eq!(metrics(&run).len(), 2 * 2, "the interruption came after the second epoch");
    succeed(&mut train(dir.path(), &["--resume", run.to_str().unwrap()]));
    assert_same_end(dir.path(), &only_run(dir.path(), "whole"), &run);
}

#[test]
fn the_same_command_begins_a_run_goes_on_with_it_and_leaves_it_when_it_is_done() {
    let dir = shards();
    succeed(&mut train(dir.path(), &["--out", "whole"]));
    let asked = ["--continue", "--out", "again"];
    let mut child = start_until(dir.path(), &asked, 1);
    a_moment();
    succeed(Command::new("kill").args(["-INT", &child.id().to_string()]));
    assert_eq!(child.wait().unwrap().code(), Some(130));
    // Another run of the folder, of other settings.
    succeed(&mut train(dir.path(), &[&asked[..], &["--epochs", "1"]].concat()));
    let runs = || {
        fs::read_dir(dir.path().join("again"))
            .unwrap()
            .filter(|e| e.as_ref().unwrap().path().join("config.toml").is_file())
            .count()
    };
    assert_eq!(runs(), 2);
    let told = output(&mut train(dir.path(), &asked));
    assert!(told.status.success() && stderr(&told).contains(": going on"), "{}", stderr(&told));
    assert_eq!(runs(), 2);
    let run = fs::read_dir(dir.path().join("again"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .find(|path| path.join("config.toml").is_file() && metrics(path).len() > 2 * 2);
    let run = run.unwrap();
    assert_same_end(dir.path(), &only_run(dir.path(), "whole"), &run);

    let before = files(&run);
    let told = output(&mut train(dir.path(), &asked));
    assert!(told.status.success() && stderr(&told).contains(": is done"), "{}", stderr(&told));
    assert!(runs() == 2 && files(&run) == before);
    fs::remove_file(run.join("results.json")).unwrap();
    fs::write(run.join("failure.json"), "{}").unwrap();
    let told = output(&mut train(dir.path(), &asked));
    assert!(told.status.code() == Some(2) && stderr(&told).contains("failure.json"), "{}", stderr(&told));
}

#[test]
fn a_run_says_where_it_was_computed_and_what_is_other_there_when_it_goes_on() {
    let dir = shards();
    succeed(&mut train(dir.path(), &["--out", "runs", "--epochs", "1"]));
    let run = only_run(dir.path(), "runs");
    let path = run.join("manifest.json");
    let mut manifest: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(manifest["host"], host.trim());
    let go_on = |epochs: &str| {
        let told = output(&mut train(dir.path(), &["--resume", run.to_str().unwrap(), "--epochs", epochs]));
        assert!(told.status.success(), "{}", stderr(&told));
        stderr(&told)
    };
    assert!(!go_on("2").contains("rounded otherwise"));
    manifest["cpu"] = "Another CPU, AVX-512".into();
    fs::write(&path, manifest.to_string()).unwrap();
    let told = go_on("3");
    assert!(
        told.contains("rounded otherwise") && told.contains("cpu was Another CPU, AVX-512, is "),
        "{told}"
    );
}

#[test]
fn a_run_that_keeps_its_last_weights_is_scored_with_them() {
    let dir = shards();
    succeed(&mut train(dir.path(), &["--out", "runs", "--set", "schedule.restore_best=false"]));
    let run = only_run(dir.path(), "runs");
    let told: Vec<Value> =
        serde_json::from_str(&fs::read_to_string(run.join("results.json")).unwrap()).unwrap();
    let last = metrics(&run).into_iter().rev().find(|line| line["task"] == "v1").unwrap();
    fs::remove_file(run.join("checkpoints/best.safetensors")).unwrap();
    let rows = succeed(nct(dir.path()).args(["eval", run.to_str().unwrap(), "--json", "--device", "cpu"]));
    let rows: Vec<Value> = rows.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let score = |rows: &[Value], mode: &str| {
        let of = |row: &Value| row["mode"] == mode || row["mode"].is_null() && row["split"] == mode;
        let is = |row: &&Value| of(row) && row["task"] == "v1" && row["metric"] == "correlation";
        rows.iter().find(is).unwrap()["value"].as_f64().unwrap()
    };
    assert_eq!(score(&rows, "validation"), last["validation_correlation"].as_f64().unwrap());
    assert_eq!(score(&rows, "test"), score(&told, "FinalTest"));
}

/// Scores of suites, by epoch, name and metric.
fn suites(run: &Path) -> Vec<Value> {
    let text = fs::read_to_string(run.join("suites.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn suites_between_epochs_change_nothing_and_are_what_eval_says() {
    let dir = shards();
    succeed(&mut train(dir.path(), &["--out", "plain", "--epochs", "2"]));
    let every = "evaluation.every={epochs=1,suites=[\"noise\",\"corruptions\"],corruptions=[\"fog\"],severities=[5,1]}";
    succeed(&mut train(dir.path(), &["--out", "with", "--epochs", "2", "--set", every]));
    let [plain, with] = ["plain", "with"].map(|out| only_run(dir.path(), out));
    assert_eq!(metrics(&plain), metrics(&with));
    let [weights, with_suites] = [&plain, &with].map(|run| checkpoints(run));
    assert!(weights == with_suites, "suites changed the weights");
    let rows = suites(&with);
    for epoch in 1..=2 {
        let of_epoch = rows.iter().filter(|row| row["epoch"] == epoch);
        let accuracies: Vec<&Value> = of_epoch.filter(|row| row["metric"] == "accuracy").collect();
        let modes: Vec<&str> = accuracies.iter().map(|row| row["mode"].as_str().unwrap()).collect();
        assert_eq!(modes.len(), 7 + 3, "{modes:?}");
        assert_eq!(modes[7..], ["clean", "fly_c_test fog 1", "fly_c_test fog 5"]);
    }
    // `nct eval` shows the best epoch's weights.
    let best = metrics(&with).last().unwrap()["best_epoch"].as_u64().unwrap();
    let fog = ["--corruptions", "fog", "--severities", "1,5", "--split", "validation", "--json"];
    let mut eval = nct(dir.path());
    eval.args(["eval", with.to_str().unwrap(), "--device", "cpu", "--suite", "corruptions"]).args(fog);
    let found = succeed(&mut eval);
    let found: Vec<Value> = found.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let loss = |rows: &[Value], at: u64| {
        let cell = |row: &&Value| {
            row["mode"] == "fly_c_test fog 5" && row["metric"] == "loss" && (at == 0 || row["epoch"] == at)
        };
        rows.iter().find(cell).unwrap()["value"].as_f64().unwrap()
    };
    assert!(best > 0 && (loss(&rows, best) - loss(&found, 0)).abs() < 1e-9);
}

#[test]
fn stopped_within_suites_a_run_takes_them_up_again() {
    let dir = shards();
    let often = ["--epochs", "2", "--every", "2", "--set", "evaluation.every.severities=[1,2]", "--out"];
    let start = |out: &str| {
        let mut command = train(dir.path(), &often);
        command.arg(out);
        command
    };
    succeed(&mut start("whole"));
    let mut child = start("stopped").stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut told = lines.map(Result::unwrap).filter(|line| line.starts_with("suites of epoch 2"));
    assert!(told.next().is_some());
    succeed(Command::new("kill").args(["-INT", &child.id().to_string()]));
    // That nobody listens any more ends nothing.
    drop(told);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let run = only_run(dir.path(), "stopped");
    assert!(!run.join("suites.jsonl").exists(), "the suites were over");
    succeed(&mut train(dir.path(), &["--resume", run.to_str().unwrap()]));
    let whole = only_run(dir.path(), "whole");
    assert_eq!((metrics(&whole), suites(&whole)), (metrics(&run), suites(&run)));
    assert!(checkpoints(&whole) == checkpoints(&run), "weights differ");
}

#[test]
fn killed_before_its_first_checkpoint_a_run_begins_anew() {
    let dir = shards();
    succeed(&mut train(dir.path(), &["--out", "whole", "--epochs", "1"]));
    let whole = only_run(dir.path(), "whole");
    let cut = dir.path().join("cut");
    fs::create_dir_all(cut.join("checkpoints")).unwrap();
    for name in ["config.toml", "manifest.json"] {
        fs::copy(whole.join(name), cut.join(name)).unwrap();
    }
    let first = fs::read_to_string(whole.join("metrics.jsonl")).unwrap();
    fs::write(cut.join("metrics.jsonl"), first.lines().next().unwrap()).unwrap();
    succeed(&mut train(dir.path(), &["--resume", "cut"]));
    assert!(metrics(&whole) == metrics(&cut) && checkpoints(&whole) == checkpoints(&cut));
}

#[test]
fn a_finished_run_without_its_last_checkpoint_is_left_as_it_is() {
    let dir = shards();
    succeed(&mut train(dir.path(), &["--epochs", "1"]));
    succeed(nct(dir.path()).args(["runs", "gc", "--yes"]));
    let mut runs = fs::read_dir(dir.path().join("runs")).unwrap().map(|entry| entry.unwrap().path());
    let run = runs.find(|path| path.is_dir()).unwrap();
    assert!(!run.join("checkpoints/last.safetensors").exists());
    let before = files(&run);
    let resume = |more: &[&str]| output(train(dir.path(), &["--resume", run.to_str().unwrap()]).args(more));
    let done = resume(&[]);
    assert!(done.status.success() && stderr(&done).contains(": is done"), "{}", stderr(&done));
    assert!(before == files(&run), "done, and changed");
    let refused = resume(&["--epochs", "2"]);
    assert_eq!(refused.status.code(), Some(2), "{}", stderr(&refused));
    assert!(stderr(&refused).contains(&format!("--set init.from={}", run.display())), "{}", stderr(&refused));
    let after = files(&run);
    let lasting = |files: &[(std::path::PathBuf, Vec<u8>)]| {
        files.iter().filter(|(name, _)| !name.ends_with(".lock")).cloned().collect::<Vec<_>>()
    };
    assert!(lasting(&before) == lasting(&after), "refused, and changed");
}

#[test]
fn a_run_that_is_done_goes_on_only_if_more_epochs_are_asked_for() {
    let dir = shards();
    succeed(&mut train(dir.path(), &["--epochs", "2"]));
    let run = only_run(dir.path(), "runs");
    let resume = |more: &[&str]| output(train(dir.path(), &["--resume", run.to_str().unwrap()]).args(more));
    let before = files(&run);
    for more in [&[][..], &["--epochs", "2"], &["--epochs", "1"]] {
        let told = resume(more);
        assert!(told.status.success() && stderr(&told).contains(": is done"), "{}", stderr(&told));
        assert!(told.stdout.is_empty() && before == files(&run), "{more:?} changed the run");
    }
    // As if killed within its last evaluation.
    let scores = fs::read(run.join("results.json")).unwrap();
    fs::remove_file(run.join("results.json")).unwrap();
    let told = resume(&[]);
    assert!(told.status.success() && !stderr(&told).contains(": is done"), "{}", stderr(&told));
    assert!(scores == fs::read(run.join("results.json")).unwrap() && metrics(&run).len() == 2 * 3);
    let told = resume(&["--epochs", "3"]);
    assert!(told.status.success() && !stderr(&told).contains(": is done"), "{}", stderr(&told));
    assert_eq!(metrics(&run).len(), 2 * 4);
}

/// Settings, identity, and how far the run is of the recipe with so many epochs.
fn counts(dir: &Path, run: &Path, epochs: u32) -> (i64, Value, String) {
    let config: toml::Table = toml::from_str(&fs::read_to_string(run.join("config.toml")).unwrap()).unwrap();
    let manifest: Value = serde_json::from_slice(&fs::read(run.join("manifest.json")).unwrap()).unwrap();
    let out = run.parent().unwrap().to_str().unwrap();
    let set = format!("schedule.max_iter={epochs}");
    let states = ["run", "tiny.toml", "--out", out, "--set", &set, "--dry-run", "--json"];
    let line: Value = serde_json::from_str(&succeed(nct(dir).args(states))).unwrap();
    let epochs = config["schedule"]["max_iter"].as_integer().unwrap();
    (epochs, manifest["identity"].clone(), line["state"].as_str().unwrap().to_owned())
}

#[test]
fn a_run_that_goes_on_with_other_epochs_counts_as_what_it_is() {
    let dir = shards();
    succeed(&mut train(dir.path(), &["--out", "three", "--epochs", "3"]));
    let whole = only_run(dir.path(), "three");
    // Stopped before either end: the same as with three from the start, and no longer one of 40.
    let mut child = train(dir.path(), &["--out", "my runs", "--epochs", "40"]);
    let mut child = child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("\"epoch\":0")));
    succeed(Command::new("kill").args(["-INT", &child.id().to_string()]));
    // Ends when training does.
    drop(lines);
    let told = child.wait_with_output().unwrap();
    assert_eq!(told.status.code(), Some(130), "{}", stderr(&told));
    let run = only_run(dir.path(), "my runs");
    let advice = format!("--resume 'my runs/{}' --device cpu`", run.file_name().unwrap().to_string_lossy());
    assert!(stderr(&told).contains(&advice), "{}", stderr(&told));
    fs::write(run.join("failure.json"), "{}").unwrap();
    succeed(&mut train(dir.path(), &["--resume", run.to_str().unwrap(), "--epochs", "3"]));
    assert!(!run.join("failure.json").exists(), "a failure of before");
    assert!(metrics(&whole) == metrics(&run) && checkpoints(&whole) == checkpoints(&run));
    assert_eq!(counts(dir.path(), &run, 3), counts(dir.path(), &whole, 3));
    assert_eq!(counts(dir.path(), &run, 40).2, "to do");
    // Beyond its end it is of no recipe: the best weights of three epochs are where it went on. Its scores are of before.
    let mut child = start_until(dir.path(), &["--resume", whole.to_str().unwrap(), "--epochs", "40"], 4);
    assert!(!whole.join("results.json").exists(), "scores of before");
    child.kill().unwrap();
    child.wait().unwrap();
    for epochs in [3, 40] {
        assert_eq!(counts(dir.path(), &whole, epochs), (40, Value::Null, "to do".to_owned()));
    }
}

#[test]
fn a_disk_that_fills_keeps_the_last_checkpoint() {
    let dir = shards();
    succeed(&mut train(dir.path(), &["--out", "whole"]));
    let mut child = start_until(dir.path(), &["--out", "filled"], 1);
    a_moment();
    child.kill().unwrap();
    child.wait().unwrap();
    let run = only_run(dir.path(), "filled");
    let [before, _] = checkpoints(&run);
    // No file may grow beyond 32 KiB, and a checkpoint is larger: for the program a full disk.
    let (nct, run_name) = (env!("CARGO_BIN_EXE_nct"), run.display());
    let resume = format!("trap '' XFSZ; ulimit -f 64; exec {nct} train --device cpu --resume {run_name}");
    let told = output(Command::new("sh").current_dir(dir.path()).args(["-c", &resume]));
    let message = stderr(&told);
    assert_eq!(told.status.code(), Some(2), "{message}");
    assert!(message.contains("checkpoints") && message.contains("write"), "{message}");
    assert!(checkpoints(&run)[0] == before, "the last checkpoint was lost");
    let left = fs::read_dir(run.join("checkpoints")).unwrap().map(|e| e.unwrap().file_name());
    let left: Vec<_> = left.filter(|n| !n.to_string_lossy().ends_with(".safetensors")).collect();
    assert!(left.is_empty(), "{left:?}");
    succeed(&mut train(dir.path(), &["--resume", run.to_str().unwrap()]));
    assert_same_end(dir.path(), &only_run(dir.path(), "whole"), &run);
}

#[test]
fn loader_threads_change_nothing() {
    let dir = shards();
    for threads in ["1", "5"] {
        let set = format!("loader.threads={threads}");
        succeed(&mut train(dir.path(), &["--out", threads, "--epochs", "2", "--set", &set]));
    }
    let [one, five] = ["1", "5"].map(|out| checkpoints(&only_run(dir.path(), out)));
    assert!(one == five, "weights differ");
}

#[test]
fn a_run_folder_has_everything_and_is_evaluated() {
    let dir = shards();
    let told = output(&mut train(dir.path(), &["--epochs", "2"]));
    assert!(told.status.success(), "{}", stderr(&told));
    assert!(stderr(&told).contains("epoch   2") && stderr(&told).contains("waiting for data"));
    let run = only_run(dir.path(), "runs");
    for name in ["config.toml", "manifest.json", "metrics.jsonl", "log.txt", "results.json"] {
        assert!(run.join(name).is_file(), "{name}");
    }
    for line in metrics(&run) {
        let of = |key: &str| line[key].as_f64().unwrap();
        assert!((of("loss_weight") - (-of("log_variance")).exp()).abs() < 1e-12, "{line}");
        assert_eq!(of("loss_weight") == 1.0, line["epoch"] == 0, "{line}");
    }
    let manifest: Value = serde_json::from_slice(&fs::read(run.join("manifest.json")).unwrap()).unwrap();
    assert!(manifest["datasets"]["mtl_monkey_dataset"]["blake3"].is_string() && manifest["seed"] == 3);
    let rows = succeed(nct(dir.path()).args(["eval", run.to_str().unwrap(), "--json", "--device", "cpu"]));
    let rows: Vec<Value> = rows.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let tasks: Vec<_> =
        rows.iter().filter(|r| r["metric"] == "loss").map(|r| (&r["split"], &r["task"])).collect();
    assert_eq!(tasks.len(), 4, "{tasks:?}");
    let neurons = ["eval", run.to_str().unwrap(), "--json", "--device", "cpu", "--per-neuron"];
    let neurons = succeed(nct(dir.path()).args(neurons));
    let neurons = neurons.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let wanted = |r: &Value| r["split"] == "test" && r["neuron"].is_u64() && r["metric"] == "correlation";
    let neurons: Vec<Value> = neurons.filter(wanted).collect();
    let mean = neurons.iter().map(|r| r["value"].as_f64().unwrap()).sum::<f64>() / 10.0;
    assert_eq!(neurons.len(), 10);
    let find = |task: &str, metric: &str, split: &str| {
        let row = rows.iter().find(|r| r["task"] == task && r["metric"] == metric && r["split"] == split);
        row.unwrap()["value"].as_f64().unwrap()
    };
    assert!((find("v1", "correlation", "test") - mean).abs() < 1e-12);
    // The best epoch's validation values are those that were logged.
    let last = metrics(&run).pop().unwrap();
    let best = &last["best_epoch"];
    let logged = metrics(&run).into_iter().find(|m| m["epoch"] == *best && m["task"] == "v1").unwrap();
    assert_eq!(find("v1", "correlation", "validation"), logged["validation_correlation"].as_f64().unwrap());
    assert!((0.0..=100.0).contains(&find("img_classification", "accuracy", "test")));
}

fn lines(text: &[u8]) -> Vec<Value> {
    std::str::from_utf8(text).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn scores_are_printed_at_the_end_and_name_the_run_as_all_its_files_do() {
    let dir = shards();
    let told = output(&mut train(dir.path(), &["--epochs", "1"]));
    assert!(told.status.success() && !stderr(&told).contains("weights,"), "{}", stderr(&told));
    let run = only_run(dir.path(), "runs");
    let name = run.file_name().unwrap().to_str().unwrap();
    let results: Vec<Value> = serde_json::from_slice(&fs::read(run.join("results.json")).unwrap()).unwrap();
    // Two tasks before training, two after the epoch.
    assert_eq!(lines(&told.stdout)[4..], results);
    assert!(!results.is_empty() && results.iter().all(|row| row["run"] == name));
    let suite = ["--suite", "all", "--corruptions", "fog", "--severities", "1", "--json", "--device", "cpu"];
    let more = ["--shards", "../../shards", "--tables", "../../tables"];
    for (folder, typed) in [(dir.path().join("runs/x"), "../../runs/./RUN/"), (run.clone(), ".")] {
        fs::create_dir_all(&folder).unwrap();
        let mut eval = nct(&folder);
        let rows = output(eval.args(["eval", &typed.replace("RUN", name)]).args(suite).args(more));
        assert!(rows.status.success(), "{}", stderr(&rows));
        let rows = lines(&rows.stdout);
        assert!(rows.iter().any(|row| row["metric"] == "mean_accuracy"), "no summary of corruptions");
        assert!(rows.iter().all(|row| row["run"] == name), "{typed}: {}", rows[0]);
        let neurons = fs::read_to_string(dir.path().join("tables/neurons.csv")).unwrap();
        assert!(neurons.lines().skip(1).all(|line| line.starts_with(&format!("{name},"))), "{neurons}");
        fs::remove_dir_all(dir.path().join("tables")).unwrap();
    }
}

#[test]
fn weights_have_the_names_of_the_reference() {
    let dir = shards();
    succeed(&mut train(dir.path(), &["--epochs", "1"]));
    let file = fs::read(only_run(dir.path(), "runs").join("checkpoints/best.safetensors")).unwrap();
    let header = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&file[8..8 + header]).unwrap();
    for name in [
        "mtl_vgg_core.v1_block.0.weight",
        "mtl_vgg_core.v1_block.1.running_var",
        "mtl_vgg_core.v1_block.1.num_batches_tracked",
        "mtl_vgg_core.unshared_block.0.weight",
        "v1_readout.3631896544452.mu",
        "classification_readout.6.bias",
        "loss.v1.log_w",
    ] {
        assert!(header[name].is_object(), "{name}");
    }
}

#[test]
fn one_task_alone_trains_too() {
    let dir = shards();
    let images =
        ["--epochs", "1", "--out", "images", "--set", "data.neural=", "--set", "mix={kind=\"long\"}"];
    succeed(&mut train(dir.path(), &images));
    let neural = [
        "--epochs",
        "1",
        "--out",
        "neural",
        "--set",
        "data.images=",
        "--set",
        "mix={kind=\"long\"}",
        "--set",
        "schedule.to_monitor=[\"v1\"]",
        "--set",
        "loss={neural=\"PoissonLoss\",scale_loss=true,loss_weighing=false}",
    ];
    succeed(&mut train(dir.path(), &neural));
    assert!(metrics(&only_run(dir.path(), "images")).iter().all(|m| m["task"] == "img_classification"));
    assert!(metrics(&only_run(dir.path(), "neural")).iter().all(|m| m["task"] == "v1"));
}

/// With TensorBoard's own reader.
#[test]
fn tensorboard_reads_the_curves_that_the_metrics_have() {
    let dir = shards();
    succeed(&mut train(dir.path(), &["--epochs", "2", "--out", "curves"]));
    let run = only_run(dir.path(), "curves");
    let Some(out) = python("read_events.py", "tensorboard", &[run.to_str().unwrap()]) else { return };
    let read: Value = serde_json::from_slice(&out.stdout).unwrap();
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut compared = 0;
    for tag in read.as_object().unwrap().keys() {
        let (task, key) = tag.split_once('/').unwrap();
        let of_task = lines.iter().filter(|line| line["task"] == task && !line[key].is_null());
        let expected: Vec<(u64, f32)> = of_task
            .map(|line| (line["epoch"].as_u64().unwrap(), line[key].as_f64().unwrap() as f32))
            .collect();
        let points = read[tag].as_array().unwrap().iter();
        let found: Vec<(u64, f32)> =
            points.map(|p| (p[0].as_u64().unwrap(), p[1].as_f64().unwrap() as f32)).collect();
        assert_eq!(found, expected, "{tag}");
        compared += found.len();
    }
    let losses = [
        "v1/train_loss",
        "img_classification/train_loss",
        "v1/lr",
        "v1/log_variance",
        "v1/loss_weight",
        "v1/samples_per_s",
    ];
    assert!(losses.iter().all(|tag| read[tag].is_array()), "{read}");
    assert!(compared > 30);
}

/// On a terminal, which `script` makes: a bar with the losses of both tasks below it; without one, lines.
#[test]
fn progress_is_a_bar_on_a_terminal_and_lines_elsewhere() {
    let dir = shards();
    let plain = output(&mut train(dir.path(), &["--epochs", "1", "--out", "plain"]));
    assert!(!stderr(&plain).contains('\r') && stderr(&plain).contains("epoch   1"), "{}", stderr(&plain));
    let command = format!(
        "{} train --config tiny.toml --shards shards --device cpu --epochs 1 --out bar",
        env!("CARGO_BIN_EXE_nct")
    );
    let mut script = Command::new("script");
    script.args(["-qec", &command, "/dev/null"]).current_dir(dir.path()).stdin(Stdio::null());
    let Ok(out) = script.output() else {
        eprintln!("skipped: no script here");
        return;
    };
    let told = String::from_utf8_lossy(&out.stdout);
    let progress = ["epoch 1", "/17 updates", " left", "v1 loss ", "img_classification loss "];
    for part in progress.into_iter().chain(["\nscores of the best weights, bar/"]) {
        assert!(told.contains(part), "no {part:?} in {told}");
    }
    let of_table = |line: &str| line.contains("FinalTestInDomain") && line.contains(" accuracy ");
    assert!(told.lines().any(of_table), "a table of a terminal without width: {told}");
}

#[test]
fn a_bench_of_updates_tells_their_parts_and_keeps_nothing() {
    let dir = shards();
    fs::write(dir.path().join("small.toml"), crate::common::SMALL).unwrap();
    let before = files(dir.path());
    let args =
        ["bench", "train", "--config", "small.toml", "--updates", "4", "--warm-up", "1", "--device", "cpu"];
    let told: Value = serde_json::from_str(&succeed(nct(dir.path()).args(args).arg("--json"))).unwrap();
    assert_eq!(told["updates"], 4);
    let positive = |value: &Value| value.as_f64().is_some_and(|v| v > 0.0);
    for key in ["updates_per_s", "update_ms", "optimizer_ms", "matmul_flop_per_s", "peak_bytes"] {
        assert!(positive(&told[key]), "{key}: {told}");
    }
    let tasks = told["tasks"].as_array().unwrap();
    assert_eq!(tasks.iter().map(|task| &task["task"]).collect::<Vec<_>>(), ["v1", "img_classification"]);
    for task in tasks {
        for key in ["samples_per_s", "forward_ms", "backward_ms", "flop_per_s", "utilisation"] {
            assert!(positive(&task[key]), "{key}: {task}");
        }
    }
    assert!(before == files(dir.path()), "a bench left something");
    assert!(succeed(nct(dir.path()).args(args)).contains("of the matrix product"));
}
