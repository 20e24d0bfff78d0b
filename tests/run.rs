//! `nct run`: sweeps and studies, by one or several workers, killed and gone on with.

use crate::common::{files, metrics, nct, output, shards, stderr, succeed};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const SMALL: &str = r#"
name = "small"
[data]
neural = "mtl_monkey_dataset"
batch_size = 12
neural_batch_size = 12
[mix]
kind = "mtl"
[model]
vgg_type = "bn 8 M 16 M"
v1_model_layer = 4
hidden = 16
[optimizer]
kind = "sgd"
lr = 0.01
[schedule]
scheduler = "none"
max_iter = 2
[checkpoint]
every_updates = 1
"#;

/// Sample shards, and a recipe with these lines at its end.
fn folder(more: &str) -> tempfile::TempDir {
    let dir = shards();
    fs::write(dir.path().join("small.toml"), SMALL).unwrap();
    fs::write(dir.path().join("sweep.toml"), format!("base = \"small.toml\"\n{more}")).unwrap();
    dir
}

fn run(dir: &Path, args: &[&str]) -> Command {
    let mut command = nct(dir);
    command.args(["run", "--device", "cpu"]).args(args);
    command
}

/// The lines of `--json` that are of pieces of work, by stage and choice: state and place.
fn states(dir: &Path, args: &[&str]) -> BTreeMap<String, (String, String)> {
    let told = succeed(run(dir, args).args(["--dry-run", "--json"]));
    let line = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        let text = |key: &str| line[key].as_str().unwrap().to_owned();
        (
            format!("{} {}", text("stage"), text("choice")).trim_end().to_owned(),
            (text("state"), text("where")),
        )
    };
    told.lines().map(line).collect()
}

fn run_folders(dir: &Path, out: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir.join(out)).into_iter().flatten().map(|entry| entry.unwrap());
    let mut found: Vec<PathBuf> =
        entries.filter(|e| e.path().join("config.toml").is_file()).map(|e| e.path()).collect();
    found.retain(|path| !path.file_name().unwrap().to_string_lossy().starts_with('.'));
    found.sort();
    found
}

fn identity(run: &Path) -> String {
    let manifest: Value =
        serde_json::from_str(&fs::read_to_string(run.join("manifest.json")).unwrap()).unwrap();
    manifest["identity"].as_str().unwrap().to_owned()
}

/// Seed and metrics.
fn learned(run: &Path) -> (String, Vec<Value>) {
    let config: toml::Table = toml::from_str(&fs::read_to_string(run.join("config.toml")).unwrap()).unwrap();
    (config["seed"].to_string(), metrics(run))
}

#[test]
fn a_sweep_is_trained_once_and_what_is_done_is_not_done_again() {
    let dir = folder("[sweep]\nseed = [1, 2]\n");
    let dry = states(dir.path(), &["sweep.toml"]);
    assert_eq!(dry.keys().collect::<Vec<_>>(), ["small seed=1", "small seed=2"]);
    assert!(dry.values().all(|(state, _)| state == "to do"));
    assert!(!dir.path().join("runs").exists(), "a dry run wrote something");
    let told = succeed(&mut run(dir.path(), &["sweep.toml"]));
    assert!(told.contains("seed=2") && told.contains("done"), "{told}");
    let first = run_folders(dir.path(), "runs");
    assert_eq!(first.len(), 2);
    assert!(states(dir.path(), &["sweep.toml"]).values().all(|(state, _)| state == "done"));
    // Another name, other threads and a recipe of one of its runs are the same experiments.
    fs::write(dir.path().join("again.toml"), "base = \"small.toml\"\nname = \"again\"\nseed = 2\n").unwrap();
    succeed(&mut run(dir.path(), &["again.toml", "--set", "loader.threads=1"]));
    succeed(&mut run(dir.path(), &["sweep.toml"]));
    assert_eq!(run_folders(dir.path(), "runs"), first);
    // Other settings are not.
    succeed(&mut run(dir.path(), &["again.toml", "--set", "optimizer.lr=0.02"]));
    assert_eq!(run_folders(dir.path(), "runs").len(), 3);
    // Nor are other data.
    let config = ["again.toml", "--set", "data.neural=\"mtl_shuffled_dataset\""];
    assert_eq!(states(dir.path(), &config)["again"].0, "to do");
    // A run that is removed is made again.
    fs::remove_dir_all(&first[0]).unwrap();
    succeed(&mut run(dir.path(), &["sweep.toml"]));
    assert_eq!(run_folders(dir.path(), "runs").len(), 3);
}

/// The scores of finished runs that `--json` tells after the pieces of work.
fn scores(dir: &Path, args: &[&str]) -> Vec<Value> {
    let told = succeed(run(dir, args).arg("--json"));
    let lines = told.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line.get("runs").is_some()).collect()
}

#[test]
fn scores_are_means_over_seeds_and_not_over_what_a_sweep_is_of() {
    let dir = folder("");
    let study = r#"
name = "rates"
baseline = "first"
[corruptions]
corruptions = ["fog"]
severities = [1]
[[stage]]
name = "first"
recipe = "small.toml"
set = { schedule.max_iter = 1 }
sweep = { seed = [1, 2], optimizer.lr = [0.01, 0.04] }
"#;
    fs::write(dir.path().join("rates.toml"), study).unwrap();
    let rows = scores(dir.path(), &["rates.toml"]);
    let found = run_folders(dir.path(), "runs");
    assert_eq!((rows.len(), found.len()), (2, 4), "{rows:?}");
    let read = |path: PathBuf| serde_json::from_str::<Value>(&fs::read_to_string(path).unwrap()).unwrap();
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    for (row, rate) in rows.iter().zip([0.01, 0.04]) {
        assert_eq!(row["settings"], serde_json::json!({"optimizer.lr": rate}));
        let config = |run: &Path| -> toml::Table {
            fs::read_to_string(run.join("config.toml")).unwrap().parse().unwrap()
        };
        let is_own = |run: &&PathBuf| config(run)["optimizer"]["lr"].as_float() == Some(rate);
        let own: Vec<&PathBuf> = found.iter().filter(is_own).collect();
        assert_eq!((row["runs"].as_u64(), own.len()), (Some(2), 2), "{row}");
        let accuracy = |run: &&PathBuf| -> f64 {
            let all = read(run.join("results.json"));
            let is_score = |row: &&Value| {
                [("task", "img_classification"), ("metric", "accuracy"), ("split", "test")]
                    .iter()
                    .all(|(key, value)| row[key] == *value)
            };
            all.as_array().unwrap().iter().find(is_score).unwrap()["value"].as_f64().unwrap()
        };
        let expected = mean(&own.iter().map(accuracy).collect::<Vec<_>>());
        assert!((row["accuracy"]["mean"].as_f64().unwrap() - expected).abs() < 1e-9, "{row}: {expected}");
        assert!(row["accuracy"]["std"].is_f64(), "{row}");
        // The baseline's runs of the same rate are these: of three classes, guessing is right in a third.
        let fog = |run: &&PathBuf| {
            read(run.join("robustness/i-test-0.json"))["grid"]["cells"]["fog"][0].as_f64().unwrap()
        };
        let fog = mean(&own.iter().map(fog).collect::<Vec<_>>());
        let expected = 100.0 * fog / fog.max(1.0 / 3.0);
        assert!((row["robustness_score"]["mean"].as_f64().unwrap() - expected).abs() < 1e-9, "{row}");
    }
    let told = succeed(&mut run(dir.path(), &["rates.toml"]));
    for name in ["first, lr = 0.01 ", "first, lr = 0.04 "] {
        assert!(told.contains(name), "{told}");
    }
}

#[test]
fn a_swept_baseline_is_compared_with_where_it_agrees_or_not_at_all() {
    let dir = folder("");
    let study = |rates: &str| {
        let text = format!(
            r#"
name = "rates"
baseline = "first"
[corruptions]
corruptions = ["fog"]
severities = [1]
[[stage]]
name = "first"
recipe = "small.toml"
set = {{ schedule.max_iter = 1 }}
sweep = {{ optimizer.lr = [0.01, 0.04] }}
[[stage]]
name = "second"
recipe = "small.toml"
set = {{ schedule.max_iter = 1, seed = 5 }}
{rates}
"#
        );
        fs::write(dir.path().join("rates.toml"), text).unwrap();
        let told = output(&mut run(dir.path(), &["rates.toml", "--json"]));
        (stderr(&told), String::from_utf8(told.stdout).unwrap())
    };
    let of_second = |told: &str| -> Vec<bool> {
        let lines = told.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let rows = lines.filter(|line| line.get("runs").is_some() && line["stage"] == "second");
        rows.map(|row| row["robustness_score"].is_object()).collect()
    };
    let (said, told) = study("");
    assert_eq!(of_second(&told), [false], "{said}");
    assert!(
        said.contains("second: no robustness score: it could be relative to 2 settings of first"),
        "{said}"
    );
    let (said, told) = study("sweep = { optimizer.lr = [0.01, 0.04] }");
    assert_eq!(of_second(&told), [true, true], "{said}");
}

#[test]
fn what_goes_wrong_is_recorded_and_tried_again_only_when_asked() {
    let dir = folder("[sweep]\noptimizer.lr = [1e30, 0.01]\n");
    let failing = output(&mut run(dir.path(), &["sweep.toml", "--workers", "2"]));
    assert_eq!(failing.status.code(), Some(1), "{}", stderr(&failing));
    let told = String::from_utf8_lossy(&failing.stdout);
    assert!(told.contains("failed") && told.contains("loss inf at update"), "{told}");
    assert!(stderr(&failing).contains("1 of 2 went wrong"), "{}", stderr(&failing));
    assert!(stderr(&failing).trim_end().ends_with("[N671]"), "{}", stderr(&failing));
    // What a second try would do, without forgetting anything.
    let tried = states(dir.path(), &["sweep.toml", "--retry"]);
    assert!(tried.values().all(|(state, _)| ["done", "stopped"].contains(&state.as_str())), "{tried:?}");
    let found = states(dir.path(), &["sweep.toml"]);
    let of = |rate: &str| found.iter().find(|(key, _)| key.contains(rate)).unwrap().1.0.clone();
    assert_eq!((of("0.01"), of("1e30")), ("done".to_owned(), "failed".to_owned()));
    let again = output(&mut run(dir.path(), &["sweep.toml"]));
    assert_eq!(again.status.code(), Some(1));
    assert!(!stderr(&again).contains("begins"), "{}", stderr(&again));
    let retried = output(&mut run(dir.path(), &["sweep.toml", "--retry"]));
    assert_eq!(retried.status.code(), Some(1));
    assert_eq!(stderr(&retried).matches("begins").count(), 1, "{}", stderr(&retried));
    assert_eq!(run_folders(dir.path(), "runs").len(), 2, "the failed run was gone on with");
}

#[test]
fn bad_recipes_are_refused_before_anything_is_trained() {
    let dir = folder("[sweep]\ndata.neural = [\"mtl_monkey_dataset\", \"nowhere\"]\n");
    for (recipe, args, expected) in [
        ("sweep.toml", &[][..], "nowhere"),
        ("lost.toml", &[], "lost.toml"),
        ("small.toml", &["--set", "seeed=1"], "did you mean `seed`?"),
        ("small.toml", &["--shards", "empty"], "empty"),
    ] {
        let refused = output(&mut run(dir.path(), &[&[recipe], args].concat()));
        assert_eq!(refused.status.code(), Some(2), "{recipe} {args:?}: {}", stderr(&refused));
        assert!(stderr(&refused).contains(expected), "{}", stderr(&refused));
        assert!(run_folders(dir.path(), "runs").is_empty());
    }
}

/// Processes that `pid` started.
fn children(pid: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

#[test]
fn killed_at_any_moment_no_run_is_lost_or_trained_twice() {
    // `NCT_KILLS=50 cargo test no_run_is_lost` for a long run.
    let kills: u64 = std::env::var("NCT_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(6);
    let dir = folder("[sweep]\nseed = { from = 1, to = 4 }\n");
    let start = Instant::now();
    succeed(&mut run(dir.path(), &["sweep.toml", "--out", "whole", "--workers", "2"]));
    let mut whole = start.elapsed().as_micros() as u64;
    let expected: BTreeMap<_, _> = run_folders(dir.path(), "whole").iter().map(|run| learned(run)).collect();
    assert_eq!(expected.len(), 4);
    let (mut killed, mut rounds) = (0, 0);
    while killed < kills {
        let sweep = ["sweep.toml", "--out", "killed", "--workers", "2", "--quiet"];
        let mut parent = run(dir.path(), &sweep).stdout(Stdio::null()).spawn().unwrap();
        let draw = nct::base::rng::mix64(rounds);
        std::thread::sleep(Duration::from_micros(draw % whole));
        rounds += 1;
        // A worker, the other, or the command.
        let all = [children(parent.id()), vec![parent.id()]].concat();
        let victim = all[(draw >> 40) as usize % all.len()];
        if parent.try_wait().unwrap().is_none() {
            // It may have ended by itself by now.
            Command::new("kill").args(["-9", &victim.to_string()]).stderr(Stdio::null()).status().unwrap();
            killed += 1;
        } else {
            whole = draw % whole;
        }
        if victim != parent.id() {
            parent.wait().unwrap();
        }
        let done = run_folders(dir.path(), "killed");
        let identities: BTreeSet<String> = done.iter().map(|run| identity(run)).collect();
        assert_eq!(identities.len(), done.len(), "an experiment has two runs after {killed} kills");
        if done.iter().filter(|run| run.join("results.json").is_file()).count() == 4 && killed < kills {
            let _ = parent.wait();
            check(dir.path(), &expected);
            fs::remove_dir_all(dir.path().join("killed")).unwrap();
        }
        let _ = parent.wait();
    }
    succeed(&mut run(dir.path(), &["sweep.toml", "--out", "killed", "--workers", "2"]));
    check(dir.path(), &expected);
    println!("{killed} kills in {rounds} commands: no run lost, none trained twice");
}

/// All runs are there once, as they are without kills, and the index has them and no others.
fn check(dir: &Path, expected: &BTreeMap<String, Vec<Value>>) {
    let done = run_folders(dir, "killed");
    let found: BTreeMap<_, _> = done.iter().map(|run| learned(run)).collect();
    assert_eq!(done.len(), expected.len());
    assert!(found == *expected, "kills changed what was trained");
    succeed(nct(dir).args(["runs", "--runs", "killed", "reindex"]));
    let listed = succeed(nct(dir).args(["runs", "--runs", "killed", "ls", "--json"]));
    let listed: BTreeSet<String> = listed
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .inspect(|line| assert_eq!(line["state"], "done"))
        .map(|line| line["run"].as_str().unwrap().to_owned())
        .collect();
    let folders: BTreeSet<String> =
        done.iter().map(|run| run.file_name().unwrap().to_string_lossy().into_owned()).collect();
    assert_eq!(listed, folders);
}

#[test]
fn the_chain_goes_from_recordings_to_co_trained_networks() {
    let dir = tempfile::tempdir().unwrap();
    let configs = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/chain.toml");
    let small = [
        "model.vgg_type=\"bn 8 M 16 M 16 M\"",
        "model.v1_model_layer=8",
        "model.hidden=16",
        "schedule.max_iter=1",
        "data.batch_size=64",
        "scale=demo",
    ];
    let mut args = vec![configs.to_str().unwrap()];
    args.extend(small.iter().flat_map(|set| ["--set", set]));
    let told = succeed(run(dir.path(), &args).args(["--workers", "2", "--quiet"]));
    let found = states(dir.path(), &args);
    assert_eq!(found.len(), 10);
    assert!(found.values().all(|(state, _)| state == "done"), "{found:?}");
    assert!(told.contains("robustness score") && told.contains("mtl_oracle"), "{told}");
    let sets = nct::shard::ShardSet::open(&dir.path().join("chain-demo/shards")).unwrap();
    let sessions = |name: &str| -> Vec<u64> {
        let manifest = sets.dataset(name).unwrap().manifest();
        manifest.sessions.iter().map(|s| u64::from(s.neurons)).collect()
    };
    assert_eq!(sessions("v1_model_responses"), sessions("mtl_monkey_dataset"));
    assert_eq!(sessions("oracle_responses"), [30]);
    // What is done is not done again, and nothing is left over.
    let before = files(&dir.path().join("chain-demo"));
    succeed(&mut run(dir.path(), &args));
    assert!(files(&dir.path().join("chain-demo")) == before);
    let hidden = |(name, _): &(PathBuf, Vec<u8>)| name.to_string_lossy().contains("/.responses-");
    assert!(!before.iter().any(hidden));
    // A set of that name that was made from something else is not taken.
    fs::remove_file(dir.path().join("chain-demo/shards/.v1_model_responses.made.json")).unwrap();
    let refused = output(&mut run(dir.path(), &args));
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("made from something else"), "{}", stderr(&refused));
}

#[test]
fn a_later_stage_starts_from_the_weights_of_an_earlier_one() {
    let dir = folder("");
    let study = r#"
name = "two"
[[stage]]
name = "first"
recipe = "small.toml"
sweep = { seed = [1, 2] }
[[stage]]
name = "second"
recipe = "small.toml"
init = "first"
set = { freeze.parameters = ["v1_block"], schedule.max_iter = 1 }
sweep = { seed = [1, 2] }
"#;
    fs::write(dir.path().join("two.toml"), study).unwrap();
    let before = states(dir.path(), &["two.toml"]);
    assert_eq!(before["second seed=1"], ("waits".to_owned(), "for first, seed=1".to_owned()));
    succeed(&mut run(dir.path(), &["two.toml"]));
    let after = states(dir.path(), &["two.toml"]);
    let place = |key: &str| dir.path().join(&after[key].1);
    for seed in ["seed=1", "seed=2"] {
        let (first, second) = (place(&format!("first {seed}")), place(&format!("second {seed}")));
        let weights = |run: &Path| fs::read(run.join("checkpoints/best.safetensors")).unwrap();
        let tensor = |bytes: &[u8]| {
            let tensors = safetensors::SafeTensors::deserialize(bytes).unwrap();
            let name = tensors.names().into_iter().find(|n| n.ends_with("v1_block.0.weight")).unwrap();
            tensors.tensor(name).unwrap().data().to_vec()
        };
        assert_eq!(
            tensor(&weights(&first)),
            tensor(&weights(&second)),
            "frozen weights are those of the first"
        );
        assert_ne!(weights(&first), weights(&second));
    }
    // A stage whose sweep does not say which run it goes on from is refused.
    let unclear = study.trim_end().strip_suffix("sweep = { seed = [1, 2] }").unwrap();
    fs::write(dir.path().join("two.toml"), unclear).unwrap();
    let refused = output(&mut run(dir.path(), &["two.toml"]));
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).contains("stage first has 2 runs to go on from"), "{}", stderr(&refused));
}

#[test]
fn a_slurm_script_works_on_the_queue_and_comes_back_when_its_time_is_over() {
    let dir = folder("[sweep]\nseed = [1, 2]\nschedule.max_iter = [30]\n");
    let told = output(run(dir.path(), &["sweep.toml", "--workers", "3", "--slurm", "job.sh"]).args([
        "--slurm-option=--partition=gpu",
        "--slurm-option=--gpus=2",
        "--set",
        "optimizer.lr=0.02",
    ]));
    assert!(told.status.success(), "{}", stderr(&told));
    let script = fs::read_to_string(dir.path().join("job.sh")).unwrap();
    for line in ["#SBATCH --array=0-2", "#SBATCH --partition=gpu", "#SBATCH --gpus=2", "#SBATCH --requeue"] {
        assert!(script.lines().any(|l| l == line), "{script}\nlacks {line}");
    }
    assert!(!script.contains("--gpus=1"));
    let apart = ["sweep.toml", "--slurm", "a job.sh", "--out", "my runs"];
    let told = output(&mut run(dir.path(), &apart));
    assert!(stderr(&told).contains("sbatch 'a job.sh'"), "{}", stderr(&told));
    let script = fs::read_to_string(dir.path().join("a job.sh")).unwrap();
    let place = dir.path().canonicalize().unwrap().join("my runs/slurm/%x-%A_%a.log");
    let line = format!("#SBATCH --output='{}'", place.display());
    assert!(script.lines().any(|l| l == line), "{script}\nlacks {line}");
    assert!(run_folders(dir.path(), "runs").is_empty());
    // A queue that only writes down what it is asked.
    let bin = dir.path().join("bin");
    fs::create_dir(&bin).unwrap();
    fs::write(bin.join("scontrol"), format!("#!/bin/sh\necho \"$@\" >> {}/asked\n", dir.path().display()))
        .unwrap();
    Command::new("chmod").arg("+x").arg(bin.join("scontrol")).status().unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let job = || {
        let mut job = Command::new("bash");
        job.arg("job.sh").current_dir(dir.path()).env("PATH", &path).stdout(Stdio::null());
        job.env("SLURM_ARRAY_JOB_ID", "7").env("SLURM_ARRAY_TASK_ID", "1").env("SLURM_CPUS_PER_TASK", "1");
        job
    };
    let mut child = job().spawn().unwrap();
    while !run_folders(dir.path(), "runs").iter().any(|run| run.join("metrics.jsonl").is_file()) {
        std::thread::sleep(Duration::from_millis(10));
        assert!(child.try_wait().unwrap().is_none(), "the job ended before it trained");
    }
    Command::new("kill").arg(child.id().to_string()).status().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(fs::read_to_string(dir.path().join("asked")).unwrap(), "requeue 7_1\n");
    assert!(job().status().unwrap().success());
    let done = run_folders(dir.path(), "runs");
    assert_eq!(done.iter().filter(|run| run.join("results.json").is_file()).count(), 2);
    assert_eq!(done.len(), 2);
}

#[test]
fn commands_of_the_docs_write_slurm_scripts() {
    let dir = tempfile::tempdir().unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    std::os::unix::fs::symlink(root.join("configs"), dir.path().join("configs")).unwrap();
    let docs = fs::read_to_string(root.join("docs/experiments.md")).unwrap();
    let lines: Vec<&str> = docs.lines().collect();
    let is_command = |line: &&str| line.starts_with("nct run ") && line.contains(" --slurm");
    let at = lines.iter().position(is_command).expect("a command with --slurm");
    succeed(nct(dir.path()).args(lines[at].split_whitespace().skip(1)));
    let file = lines[at + 1].strip_prefix("sbatch ").unwrap();
    let script = fs::read_to_string(dir.path().join(file)).unwrap();
    for option in ["--array=0-7", "--partition=gpu", "--time=8:00:00"] {
        assert!(script.contains(&format!("#SBATCH {option}\n")), "{script}\nlacks {option}");
    }
    // As README has it, after everything else.
    succeed(nct(dir.path()).args(["run", "configs/seeds.toml", "--slurm"]));
    assert!(dir.path().join("nct-mtl_monkey.sbatch").is_file());
}

#[test]
fn a_part_of_a_name_that_commands_do_not_take_names_the_run_that_is_meant() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["20260101-101010-a", "20260101-111111-b"] {
        fs::create_dir_all(dir.path().join("runs").join(name)).unwrap();
        fs::write(dir.path().join("runs").join(name).join("config.toml"), "").unwrap();
    }
    for (part, meant) in [
        ("101010", Some("did you mean runs/20260101-101010-a?")),
        ("runs/b", Some("did you mean runs/20260101-111111-b?")),
        ("20260101", None),
    ] {
        for command in [&["eval"][..], &["train", "--resume"]] {
            let told = output(nct(dir.path()).args(command).arg(part));
            assert_eq!(told.status.code(), Some(2), "{command:?} {part}: {}", stderr(&told));
            assert!(stderr(&told).contains("is no run"), "{}", stderr(&told));
            match meant {
                Some(meant) => assert!(stderr(&told).contains(meant), "{}", stderr(&told)),
                None => assert!(!stderr(&told).contains("did you mean"), "{}", stderr(&told)),
            }
        }
    }
}

fn start(mut command: Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// What a command says that must end by itself.
fn ends(mut child: Child) -> Output {
    let begun = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begun.elapsed() > Duration::from_mins(3) {
            child.kill().unwrap();
            panic!("does not end: {}", stderr(&child.wait_with_output().unwrap()));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.wait_with_output().unwrap()
}

fn signal(name: &str, pids: &[u32]) {
    let pids = pids.iter().map(u32::to_string);
    assert!(Command::new("kill").arg(name).args(pids).status().unwrap().success());
}

fn wait_for_runs(dir: &Path, n: usize) {
    while run_folders(dir, "runs").len() < n {
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A study of one small run a stage, with these lines at its beginning.
fn study(dir: &Path, head: &str, stages: &str) {
    let first = "[[stage]]\nname = \"first\"\nrecipe = \"small.toml\"\nset = { schedule.max_iter = 1 }\n";
    fs::write(dir.join("study.toml"), format!("name = \"study\"\n{head}\n{first}{stages}")).unwrap();
}

#[test]
fn other_corruptions_are_evaluated_once_and_kept_beside_those_of_before() {
    let dir = folder("");
    let done = |suite: &str| {
        study(dir.path(), &format!("[corruptions]\n{suite}"), "");
        let told = ends(start(run(dir.path(), &["study.toml"])));
        assert!(told.status.success(), "{}", stderr(&told));
        stderr(&told).matches("under corruptions").count()
    };
    let fog = "corruptions = [\"fog\"]\nseverities = [1, 3, 5]";
    assert_eq!(done(fog), 1);
    assert_eq!(done("corruptions = [\"brightness\"]\nseverities = [1, 2]"), 1);
    assert_eq!(done(fog), 0, "fog was forgotten");
    // Something to compare with: the grid that was kept has more than is asked for.
    let [base] = &run_folders(dir.path(), "runs")[..] else { panic!("not one run") };
    let base = base.to_str().unwrap();
    let other = ["train", "--device", "cpu", "--config", "small.toml", "--epochs", "1", "--out", "other"];
    succeed(nct(dir.path()).args(other).args(["--set", "seed=7"]));
    let [other] = &run_folders(dir.path(), "other")[..] else { panic!("not one run") };
    let eval = |more: &[&str]| {
        let mut command = nct(dir.path());
        command.args(["eval", other.to_str().unwrap(), "--device", "cpu", "--suite", "corruptions"]);
        command.args(["--baseline", base]).args(more);
        output(&mut command)
    };
    let compared = eval(&["--corruptions", "fog", "--severities", "1,3"]);
    assert!(compared.status.success(), "{}", stderr(&compared));
    let lacking = eval(&["--corruptions", "fog", "--severities", "2"]);
    let way_out = "--suite corruptions --profile i --seed 0 --corruptions fog --severities 2";
    assert!(lacking.status.code() == Some(2) && stderr(&lacking).contains(way_out), "{}", stderr(&lacking));
    let model = format!("other={}", other.display());
    let seeds = output(nct(dir.path()).args(["robustness", "--model", &model, "--baseline", base, "--json"]));
    assert!(seeds.status.success(), "{}", stderr(&seeds));
    assert!(stderr(&seeds).contains("compared are fog at severities 1,3"), "{}", stderr(&seeds));
    assert!(String::from_utf8_lossy(&seeds.stdout).contains("robustness_score"));
}

#[test]
fn data_that_are_replaced_while_a_sweep_runs_are_trained_on_once() {
    let dir = folder("[sweep]\nseed = [1, 2]\n");
    let sizes = "--classes 3 --per-class 24 --val-per-class 4 --neural-images 60 --sessions 2 --neurons 5";
    succeed(nct(dir.path()).args(["synth", "raw2", "--seed", "5"]).args(sizes.split(' ')));
    let sweep = start(run(dir.path(), &["sweep.toml"]));
    wait_for_runs(dir.path(), 1);
    signal("-STOP", &[sweep.id()]);
    succeed(nct(dir.path()).args(["prepare", "raw2", "--color", "gray", "--force"]));
    signal("-CONT", &[sweep.id()]);
    let told = ends(sweep);
    assert!(told.status.success(), "{}", stderr(&told));
    // The one that was under way, and each with the new data.
    assert_eq!(run_folders(dir.path(), "runs").len(), 3, "{}", stderr(&told));
    assert!(states(dir.path(), &["sweep.toml"]).values().all(|(state, _)| state == "done"));
}

#[test]
fn a_damaged_set_beside_sample_data_is_named() {
    let dir = folder("");
    study(dir.path(), "samples = { classes = 3 }", "");
    fs::create_dir_all(dir.path().join("shards/damaged")).unwrap();
    fs::write(dir.path().join("shards/damaged/manifest.json"), "{").unwrap();
    let told = ends(start(run(dir.path(), &["study.toml"])));
    assert_eq!(told.status.code(), Some(2), "{}", stderr(&told));
    assert!(stderr(&told).contains("shards/damaged/manifest.json"), "{}", stderr(&told));
}

#[test]
fn a_set_made_from_something_else_stops_only_what_needs_it() {
    let dir = folder("");
    let stages = r#"
[[stage]]
name = "made"
respond = { run = "first", images = "mtl_monkey_dataset", dataset = "mtl_oracle_dataset" }
[[stage]]
name = "apart"
recipe = "small.toml"
set = { seed = 5, schedule.max_iter = 1 }
"#;
    study(dir.path(), "", stages);
    let told = ends(start(run(dir.path(), &["study.toml"])));
    assert_eq!(told.status.code(), Some(1), "{}", stderr(&told));
    assert!(stderr(&told).contains("made: failed: ") && stderr(&told).contains("or give the stage another"));
    assert!(String::from_utf8_lossy(&told.stdout).contains("test accuracy"), "no table of scores");
    let found = states(dir.path(), &["study.toml"]);
    assert_eq!(["first", "made", "apart"].map(|stage| &found[stage].0[..]), ["done", "failed", "done"]);
}

#[test]
fn studies_that_would_end_badly_are_refused_before_anything_is_trained() {
    let dir = folder("");
    let responses = |dataset: &str| {
        let respond = format!("run = \"first\", images = \"mtl_monkey_dataset\", dataset = \"{dataset}\"");
        format!("[[stage]]\nname = \"made\"\nrespond = {{ {respond} }}\n")
    };
    let neural = "[[stage]]\nname = \"neural\"\nrecipe = \"small.toml\"\nset = { data.images = \"\", mix.kind = \"long\", schedule.to_monitor = [\"v1\"] }\n";
    for (head, stages, part) in [
        ("", responses(".hidden"), "stage made: respond.dataset = \".hidden\""),
        ("", responses("a/b"), "stage made: respond.dataset = \"a/b\""),
        ("baseline = \"neural\"\n[corruptions]", neural.to_owned(), "baseline = \"neural\""),
        ("[corruptions]\ncorruptions = []", String::new(), "[corruptions] asks for none"),
    ] {
        study(dir.path(), head, &stages);
        let refused = ends(start(run(dir.path(), &["study.toml"])));
        assert_eq!(refused.status.code(), Some(2), "{}", stderr(&refused));
        assert!(stderr(&refused).contains(part), "{}", stderr(&refused));
        assert!(!dir.path().join("runs").exists());
    }
}

#[test]
fn killed_workers_are_no_mistake_of_the_user() {
    let dir = folder("[sweep]\nseed = [1, 2]\nschedule.max_iter = [3000]\n");
    let sweep = start(run(dir.path(), &["sweep.toml", "--workers", "2"]));
    wait_for_runs(dir.path(), 2);
    signal("-9", &children(sweep.id()));
    let told = ends(sweep);
    assert_eq!(told.status.code(), Some(1), "{}", stderr(&told));
    assert!(stderr(&told).contains("signal: 9") && stderr(&told).contains("[N671]"), "{}", stderr(&told));
    assert!(String::from_utf8_lossy(&told.stdout).contains("stopped"), "no table");
}
