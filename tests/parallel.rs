//! Several processes that train one network.

use crate::common::{files, metrics, nct, only_run, output, shards, stderr, succeed};
use crate::device::stand_in;
use nct::base::Split;
use nct::base::rng::mix64;
use nct::config::{Data, Experiment};
use nct::model::{Mode, Network};
use nct::objective::Objective;
use nct::runs::Run;
use nct::shard::ShardSet;
use nct::torch_ext::{Group, Meeting, Reducer};
use nct::train::modules::Modules;
use nct::train::{Optimizer, Outcome, Trainer, Watch};
use safetensors::SafeTensors;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// Double precision, so that only rounding may differ. Last batches have fewer records than there are processes.
const RECIPE: &str = r#"
name = "parallel"
[data]
batch_size = 14
neural_batch_size = 19
[model]
vgg_type = "bn 8 M 16 M 16 M"
v1_model_layer = 8
v1_final_batchnorm = true
hidden = 16
[numerics]
precision = "f64"
[optimizer]
kind = "sgd"
lr = 0.02
momentum = 0.75
weight_decay = 5e-4
[schedule]
patience = 20
lr_decay_steps = 1
max_iter = 2
[evaluation]
add_final_train_eval = false
add_final_val_eval = false
"#;

/// `train` of the recipe, by `n` processes if they are several.
fn command(dir: &Path, n: usize, more: &[&str]) -> Command {
    command_on("cpu", dir, n, more)
}

fn command_on(device: &str, dir: &Path, n: usize, more: &[&str]) -> Command {
    let mut command = nct(dir);
    if n > 1 {
        command.args(["launch", "-n", &n.to_string()]);
    }
    command.args(["train", "--device", device]).args(more);
    command
}

/// What makes a new run in `out` with some other settings.
fn anew<'a>(dir: &Path, out: &'a str, sets: &[&'a str]) -> Vec<&'a str> {
    fs::write(dir.join("parallel.toml"), RECIPE).unwrap();
    let sets = sets.iter().flat_map(|set| ["--set", set]);
    ["--config", "parallel.toml", "--out", out].into_iter().chain(sets).collect()
}

fn first(dir: &Path, n: usize, out: &str, sets: &[&str]) -> Command {
    command(dir, n, &anew(dir, out, sets))
}

fn train(dir: &Path, n: usize, out: &str, sets: &[&str]) -> PathBuf {
    succeed(&mut first(dir, n, out, sets));
    only_run(dir, out)
}

/// Both hold the same, but for rounding.
fn assert_near(found: &Value, expected: &Value, place: &str) {
    match (found, expected) {
        (Value::Number(a), Value::Number(b)) => {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            assert!((a - b).abs() <= 1e-6 * b.abs().max(1e-6), "{place}: {a}, expected {b}");
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (i, (a, b)) in a.iter().zip(b).enumerate() {
                assert_near(a, b, &format!("{place}[{i}]"));
            }
        }
        (Value::Object(a), Value::Object(b)) if a.len() == b.len() => {
            for (key, b) in b.iter().filter(|(key, _)| *key != "run") {
                assert_near(a.get(key).unwrap_or(&Value::Null), b, &format!("{place}.{key}"));
            }
        }
        (a, b) => assert_eq!(a, b, "{place}"),
    }
}

fn assert_same_curves(found: &Path, expected: &Path) {
    assert_near(&Value::Array(metrics(found)), &Value::Array(metrics(expected)), "metrics");
    let results = |run: &Path| -> Value {
        serde_json::from_slice(&fs::read(run.join("results.json")).unwrap()).unwrap()
    };
    assert_near(&results(found), &results(expected), "results");
}

#[test]
fn curves_do_not_depend_on_the_number_of_processes() {
    let dir = shards();
    let alone = train(dir.path(), 1, "alone", &[]);
    assert_eq!(metrics(&alone).len(), 3 * 2);
    for n in [2, 4] {
        let together = train(dir.path(), n, &format!("by-{n}"), &[]);
        assert_same_curves(&together, &alone);
        let manifest: Value =
            serde_json::from_slice(&fs::read(together.join("manifest.json")).unwrap()).unwrap();
        assert_eq!(manifest["processes"], n);
    }
    // What this test would not see if it compared nothing.
    let other = train(dir.path(), 1, "other", &["seed=2"]);
    assert_ne!(metrics(&other), metrics(&alone));
}

#[test]
fn all_losses_and_modules_are_shared() {
    let dir = shards();
    let matching = r#"modules.representation_matching={representation="unshared_block.3",lambda=0.5}"#;
    for (i, sets) in [
        &["loss.neural=\"PoissonLoss\"", "loss.loss_sum=true", "loss.scale_loss=true"][..],
        &["loss.loss_weighing=false", "loss.neural=\"PoissonLoss\"", "loss.avg_loss=true"],
        &[matching, "mix={kind=\"weighted\",weights={v1=1.0,img_classification=2.0}}"],
        &["evaluation.every={epochs=1,suites=[\"noise\"]}", "optimizer={kind=\"adam\",lr=0.001}"],
    ]
    .into_iter()
    .enumerate()
    {
        let sets = [sets, &["schedule.max_iter=1"]].concat();
        let alone = train(dir.path(), 1, &format!("alone-{i}"), &sets);
        let together = train(dir.path(), 3, &format!("together-{i}"), &sets);
        assert_same_curves(&together, &alone);
        let files = |run: &Path| -> Vec<PathBuf> {
            let named = files(run).into_iter().map(|(name, _)| name);
            named.filter(|name| !name.display().to_string().contains("tfevents")).collect()
        };
        assert_eq!(files(&together), files(&alone));
    }
}

/// The processes that `parent` has started.
fn children(parent: u32) -> Vec<u32> {
    let of = |entry: fs::DirEntry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        let ppid: u32 = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
        (ppid == parent).then_some(pid)
    };
    let mut found: Vec<u32> = fs::read_dir("/proc").unwrap().filter_map(|e| of(e.ok()?)).collect();
    found.sort_unstable();
    found
}

fn signal(pid: u32, name: &str) {
    // It may have ended by itself.
    let _ = Command::new("kill").args([name, &pid.to_string()]).stderr(Stdio::null()).status();
}

/// The run in `out` once `lines` of metrics are in it.
fn run_with(dir: &Path, out: &str, lines: usize, child: &mut Child) -> PathBuf {
    loop {
        let runs = fs::read_dir(dir.join(out)).into_iter().flatten().map(|run| run.unwrap().path());
        let begun =
            runs.filter(|run| run.join("metrics.jsonl").is_file()).find(|run| metrics(run).len() >= lines);
        if let Some(run) = begun {
            return run;
        }
        assert!(child.try_wait().unwrap().is_none(), "it ended before it could be stopped");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn one_that_is_killed_ends_all_and_the_run_goes_on() {
    // `NCT_KILLS=20 cargo test one_that_is_killed` for a long run.
    let kills: u64 = std::env::var("NCT_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(3);
    let dir = shards();
    let sets = ["checkpoint.every_updates=1", "schedule.max_iter=3"];
    let whole = train(dir.path(), 2, "whole", &sets);
    for k in 0..kills {
        let out = format!("killed-{k}");
        let mut begun = first(dir.path(), 2, &out, &sets);
        let mut child = begun.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let run = run_with(dir.path(), &out, 2, &mut child);
        std::thread::sleep(Duration::from_millis(mix64(k) % 400));
        let all = children(child.id());
        let victim = (k % 2) as usize;
        all.get(victim).iter().for_each(|pid| signal(**pid, "-KILL"));
        let ended = std::time::Instant::now();
        let out = child.wait_with_output().unwrap();
        println!("kill {k}: all ended after {:.2} s", ended.elapsed().as_secs_f64());
        assert!(all.iter().all(|pid| !Path::new(&format!("/proc/{pid}")).exists()), "{all:?}");
        if !out.status.success() {
            assert_eq!(out.status.code(), Some(1), "{}", stderr(&out));
            let told = format!("process {victim} of 2 ended with signal: 9");
            assert!(stderr(&out).contains(&told), "{}", stderr(&out));
        }
        // With as many processes it ends with the same bytes, with others up to rounding.
        let n = [2, 1, 3][k as usize % 3];
        succeed(&mut command(dir.path(), n, &["--resume", run.to_str().unwrap()]));
        if n == 2 {
            assert_eq!(metrics(&run), metrics(&whole), "kill {k}");
        }
        assert_same_curves(&run, &whole);
    }
}

#[test]
fn interrupted_together_saves_and_goes_on_exactly_there() {
    let dir = shards();
    let whole = train(dir.path(), 2, "whole", &["schedule.max_iter=4"]);
    let mut begun = first(dir.path(), 2, "stopped", &["schedule.max_iter=4"]);
    let mut child = begun.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let run = run_with(dir.path(), "stopped", 2, &mut child);
    // As a cluster asks the command that it started, which asks the others.
    signal(child.id(), "-TERM");
    let out = child.wait_with_output().unwrap();
    assert_eq!(out.status.code(), Some(130), "{}", stderr(&out));
    assert!(stderr(&out).contains("--resume"), "{}", stderr(&out));
    succeed(&mut command(dir.path(), 2, &["--resume", run.to_str().unwrap()]));
    assert_eq!(metrics(&run), metrics(&whole));
}

#[test]
fn a_loss_that_is_no_number_stops_all_and_names_all_images() {
    let dir = shards();
    let out = output(&mut first(dir.path(), 3, "broken", &["data.mean=[1e38]", "data.std=[1e-300]"]));
    assert_eq!(out.status.code(), Some(1), "{}", stderr(&out));
    assert!(stderr(&out).contains("[N601]"), "{}", stderr(&out));
    let failure: Value =
        serde_json::from_slice(&fs::read(only_run(dir.path(), "broken").join("failure.json")).unwrap())
            .unwrap();
    assert_eq!(failure["ids"].as_array().unwrap().len(), 14);
}

/// `train` with a GPU for each process: on the stand-in.
fn on_gpus(dir: &Path, n: usize, more: &[&str]) -> Command {
    let mut command = command_on("cuda", dir, n, more);
    // `nct launch` would give each its share of the cores, and processes that are started by hand take all: on some
    // processors that alone changes last bits.
    command.env("NCT_CUDA_LIBRARY", stand_in()).env("OMP_NUM_THREADS", "1");
    command
}

#[test]
fn gpus_exchange_what_hosts_would() {
    let dir = shards();
    let alone = train(dir.path(), 1, "alone", &[]);
    for (n, resident) in [(2, "on"), (3, "off")] {
        let (out, resident) = (format!("gpus-{n}"), format!("loader.resident=\"{resident}\""));
        succeed(&mut on_gpus(dir.path(), n, &anew(dir.path(), &out, &[&resident])));
        assert_same_curves(&only_run(dir.path(), &out), &alone);
    }
}

/// The tensors of a run whose names end so, one after another.
pub(crate) fn weights(run: &Path, ends: &str) -> Vec<f32> {
    let file = fs::read(run.join("checkpoints/last.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&file).unwrap();
    let mut names: Vec<&str> = tensors.names();
    names.retain(|name| !name.starts_with("optimizer.") && name.ends_with(ends));
    names.sort_unstable();
    let number = |bytes: &[u8]| f32::from_le_bytes(bytes.try_into().unwrap());
    names
        .iter()
        .flat_map(|name| tensors.tensor(name).unwrap().data().chunks(4).map(number).collect::<Vec<_>>())
        .collect()
}

#[test]
fn several_gpus_normalise_the_whole_batch_by_our_kernels() {
    let dir = shards();
    let trained = |n: usize, lr: f64| {
        let (out, log) = (format!("kernels-of-{n}-{lr}"), dir.path().join(format!("kernels-{n}-{lr}")));
        let optimizer = format!("optimizer={{kind=\"sgd\",lr={lr}}}");
        // One update, so that rounding to bfloat16 does not grow from one to the next, with a batch of every stream.
        let update = ["mix.kind=\"weighted\"", "mix.batches_per_step=3", "mix.steps_per_epoch=1"];
        let network = ["model.vgg_type=\"bn 8 8 M 16 M 16 M\"", "model.v1_model_layer=11"];
        let bf16 = ["numerics.precision=\"bf16\"", "numerics.channels_last=true", "schedule.max_iter=1"];
        let sets = [&update[..], &network, &bf16, &[&optimizer]].concat();
        succeed(on_gpus(dir.path(), n, &anew(dir.path(), &out, &sets)).env("NCT_STAND_IN_LOG", &log));
        let log = fs::read_to_string(log).unwrap();
        for kernel in ["nct_norm_back_pooled", "nct_norm_back\n", "nct_first_gradients"] {
            assert!(log.contains(kernel), "no {kernel}");
        }
        let run = only_run(dir.path(), &out);
        let losses: Vec<f64> = metrics(&run).iter().filter_map(|line| line["train_loss"].as_f64()).collect();
        (losses, weights(&run, ".0.weight"), weights(&run, "running_mean"))
    };
    let ((_, start, _), alone, together) = (trained(1, 1e-12), trained(1, 1e-4), trained(3, 1e-4));
    assert!(alone.0.len() == 2 && together.0.len() == 2);
    for (alone, together) in alone.0.iter().zip(&together.0) {
        assert!((together / alone - 1.0).abs() < 1e-3, "{together} {alone}");
    }
    // The same gradient, up to rounding to bfloat16: steps from the same start.
    let norm =
        |values: &mut dyn Iterator<Item = f32>| values.map(|v| f64::from(v).powi(2)).sum::<f64>().sqrt();
    let step = norm(&mut alone.1.iter().zip(&start).map(|(a, b)| a - b));
    let apart = norm(&mut alone.1.iter().zip(&together.1).map(|(a, b)| a - b));
    assert!(step > 0.0 && apart / step < 0.02, "{apart} of {step}");
    let (size, apart) =
        (norm(&mut alone.2.iter().copied()), norm(&mut alone.2.iter().zip(&together.2).map(|(a, b)| a - b)));
    assert!(size > 0.0 && apart / size < 1e-4, "{apart} of {size}");
}

#[test]
fn an_update_of_several_gpus_reads_one_thing() {
    let dir = shards();
    // How often the two hosts waited in so many updates, but for the beginning of recordings.
    let waits = |size: u32, graphs: bool| {
        let log = dir.path().join(format!("waits-{size}-{graphs}"));
        let out = format!("of-{size}-{graphs}");
        let sets = [
            format!("data.batch_size={size}"),
            format!("data.neural_batch_size={size}"),
            "schedule.max_iter=1".into(),
            format!("numerics.graphs={graphs}"),
        ];
        let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
        succeed(on_gpus(dir.path(), 2, &anew(dir.path(), &out, &sets)).env("NCT_STAND_IN_LOG", &log));
        let log = fs::read_to_string(log).unwrap();
        let no_wait = ["beside", "recorded", "replayed", "synchronize"];
        let waits = log.lines().filter(|line| !no_wait.iter().any(|what| line.contains(what))).count();
        let updates = metrics(&only_run(dir.path(), &out)).last().unwrap()["step"].as_u64().unwrap();
        (waits as u64, updates)
    };
    // Which parameters no process used, as the reducer asks; with recorded passes, nobody does.
    for (graphs, each) in [(false, 2), (true, 0)] {
        let (few, many) = (waits(24, graphs), waits(6, graphs));
        assert_eq!(many.0 - few.0, each * (many.1 - few.1), "{graphs}: {few:?} {many:?}");
    }
}

#[test]
fn passes_that_several_gpus_repeat_change_nothing() {
    let dir = shards();
    // Parts of a batch of different sizes, and none; dropout and positions are those of the whole batch.
    let sizes = ["data.batch_size=12", "data.neural_batch_size=4", "schedule.max_iter=4"];
    for (n, precision, channels_last) in [(2, "f64", false), (3, "bf16", true)] {
        let precision = format!("numerics.precision=\"{precision}\"");
        let channels_last = format!("numerics.channels_last={channels_last}");
        let run = |graphs: bool| {
            let (out, log) = (format!("{n}-{graphs}"), dir.path().join(format!("log-{n}-{graphs}")));
            let graphs = format!("numerics.graphs={graphs}");
            let sets = [&sizes[..], &[&precision, &channels_last, &graphs]].concat();
            let mut command = on_gpus(dir.path(), n, &anew(dir.path(), &out, &sets));
            succeed(command.env("NCT_STAND_IN_LOG", &log));
            let log = fs::read_to_string(log).unwrap();
            let count = |what: &str| log.lines().filter(|line| *line == what).count();
            (only_run(dir.path(), &out), count("recorded"), count("replayed"))
        };
        let ((plain, ..), (repeated, recorded, replayed)) = (run(false), run(true));
        assert_eq!(metrics(&repeated), metrics(&plain), "{n} processes");
        let weights = |run: &Path| fs::read(run.join("checkpoints/last.safetensors")).unwrap();
        assert!(weights(&repeated) == weights(&plain), "{n} processes");
        assert!(recorded >= 2 * n && replayed > 2 * recorded, "{recorded} recorded, {replayed} replayed");
    }
}

#[test]
fn a_loss_that_is_no_number_stops_all_gpus() {
    let dir = shards();
    let broken = ["data.mean=[1e38]", "data.std=[1e-300]"];
    let out = output(&mut on_gpus(dir.path(), 2, &anew(dir.path(), "broken", &broken)));
    assert_eq!(out.status.code(), Some(1), "{}", stderr(&out));
    assert!(stderr(&out).contains("[N601]"), "{}", stderr(&out));
    let failure = fs::read(only_run(dir.path(), "broken").join("failure.json")).unwrap();
    let failure: Value = serde_json::from_slice(&failure).unwrap();
    assert_eq!((failure["step"].as_u64(), failure["ids"].as_array().unwrap().len()), (Some(0), 14));
}

/// Two processes, each with a GPU, and nobody who watches over them. `meeting` says what their GPUs do.
fn two_gpus(dir: &Path, args: &[&str], meeting: [&str; 2]) -> [Child; 2] {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    [0, 1].map(|rank: u16| {
        let mut command = on_gpus(dir, 1, args);
        for (name, value) in [
            ("RANK", rank),
            ("WORLD_SIZE", 2),
            ("LOCAL_RANK", rank),
            ("LOCAL_WORLD_SIZE", 2),
            ("MASTER_PORT", port),
        ] {
            command.env(name, value.to_string());
        }
        command.env("NCT_STAND_IN_MEETING", meeting[usize::from(rank)]);
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    })
}

#[test]
fn gpus_that_do_not_find_each_other_are_told() {
    let dir = shards();
    let args = anew(dir.path(), "apart", &[]);
    for child in two_gpus(dir.path(), &args, ["refuse", "refuse"]) {
        let out = child.wait_with_output().unwrap();
        assert_eq!(out.status.code(), Some(2), "{}", stderr(&out));
        let told = stderr(&out);
        assert!(told.contains("[N654]") && told.contains("invalid usage"), "{told}");
    }
    // One that is refused, and one that dies, leave the other waiting in vain.
    for (meeting, who) in [(["", "refuse"], 0), (["", "die"], 0), (["die", ""], 1)] {
        let [first, second] = two_gpus(dir.path(), &args, meeting);
        let (left, gone) = if who == 0 { (first, second) } else { (second, first) };
        let out = left.wait_with_output().unwrap();
        assert_eq!(out.status.code(), Some(3), "{meeting:?}: {}", stderr(&out));
        assert!(stderr(&out).contains("[N652]"), "{meeting:?}: {}", stderr(&out));
        gone.wait_with_output().unwrap();
    }
}

#[test]
fn a_gpu_does_not_wait_for_one_that_is_gone() {
    let dir = shards();
    // Most passes are repeated ones by then.
    let small = ["data.batch_size=6", "data.neural_batch_size=4"];
    let sets = [&["checkpoint.every_updates=1", "schedule.max_iter=4"][..], &small].concat();
    succeed(&mut on_gpus(dir.path(), 2, &anew(dir.path(), "whole", &sets)));
    for graphs in ["numerics.graphs=false", "numerics.graphs=true"] {
        let sets = [&sets[..], &[graphs]].concat();
        let [mut leads, other] = two_gpus(dir.path(), &anew(dir.path(), graphs, &sets), ["", ""]);
        let run = run_with(dir.path(), graphs, 5, &mut leads);
        // Stopped in the middle of something, so that the other waits for it; then gone.
        signal(other.id(), "-STOP");
        std::thread::sleep(Duration::from_millis(700));
        assert!(leads.try_wait().unwrap().is_none());
        signal(other.id(), "-KILL");
        let since = std::time::Instant::now();
        let out = leads.wait_with_output().unwrap();
        println!("{graphs}: ended after {:.2} s", since.elapsed().as_secs_f64());
        assert_eq!(out.status.code(), Some(3), "{}", stderr(&out));
        assert!(stderr(&out).contains("[N652]"), "{}", stderr(&out));
        succeed(&mut on_gpus(dir.path(), 2, &["--resume", run.to_str().unwrap()]));
        assert_eq!(metrics(&run), metrics(&only_run(dir.path(), "whole")), "{graphs}");
    }
}

/// Process `rank` of two that meet at `port`, started by hand.
fn process(dir: &Path, rank: u32, port: u16, args: &[&str]) -> Child {
    let mut command = command(dir, 1, args);
    for (name, value) in [("RANK", rank), ("WORLD_SIZE", 2), ("MASTER_PORT", u32::from(port))] {
        command.env(name, value.to_string());
    }
    command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn what_several_processes_cannot_do_is_told() {
    let dir = shards();
    fs::write(dir.path().join("parallel.toml"), RECIPE).unwrap();
    succeed(nct(dir.path()).args(["prepare", "raw", "--color", "gray", "--out", "others"]));
    succeed(nct(dir.path()).args(["synth", "other-raw", "--seed", "9", "--classes", "3"]));
    succeed(nct(dir.path()).args(["prepare", "other-raw", "--color", "gray", "--out", "different"]));
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    // As torchrun and srun start them, one with other shards.
    let own = ["--config", "parallel.toml", "--shards", "others"];
    let other = ["--config", "parallel.toml", "--shards", "different"];
    let both = [process(dir.path(), 0, port, &own), process(dir.path(), 1, port, &other)];
    for child in both {
        let out = child.wait_with_output().unwrap();
        assert_eq!(out.status.code(), Some(2), "{}", stderr(&out));
        assert!(
            stderr(&out).contains("different shards") && stderr(&out).contains("[N653]"),
            "{}",
            stderr(&out)
        );
    }
    assert!(!dir.path().join("runs").exists());
    for (args, told) in [
        (&["launch", "-n", "2", "run", "parallel.toml"][..], "only `train`"),
        (&["launch", "-n", "2", "train", "--record", "rec"], "--record"),
        (&["launch", "-n", "2", "train", "--config", "missing.toml"], "missing.toml"),
        (&["launch", "-n", "2", "train", "--device", "cuda:1"], "--device cuda"),
    ] {
        let out = output(nct(dir.path()).args(args));
        assert_eq!(out.status.code(), Some(2), "{}", stderr(&out));
        assert!(stderr(&out).contains(told), "{told}: {}", stderr(&out));
    }
}

/// A mix, batch sizes and sums of gradients that depend on `k`.
fn random_sets(k: u64) -> Vec<String> {
    let draw = |i: u64, n: u64| mix64(k * 64 + i) % n;
    let ratio = ["1", "2", "\"1/2\""][draw(0, 3) as usize];
    let mix = match draw(1, 5) {
        0 => "mix={kind=\"long\"}".to_owned(),
        1 => "mix={kind=\"short\"}".to_owned(),
        2 => format!(
            "mix={{kind=\"weighted\",weights={{v1={}.5,img_classification={}.0}}}}",
            draw(2, 4),
            1 + draw(3, 3)
        ),
        _ => format!("mix={{kind=\"mtl\",ratio={{1={ratio}}}}}"),
    };
    let mut sets = vec![
        mix,
        format!("seed={k}"),
        format!("data.batch_size={}", 9 + draw(4, 30)),
        format!("data.neural_batch_size={}", 5 + draw(5, 38)),
        format!("model.v1_model_layer={}", [4, 8][draw(6, 2) as usize]),
        format!("data.last_batch=\"{}\"", ["keep", "drop"][draw(7, 2) as usize]),
    ];
    sets.extend((draw(8, 2) == 0).then(|| format!("mix.batches_per_step={}", 2 + draw(9, 3))));
    sets
}

#[test]
fn random_schedules_end_as_alone() {
    let dir = shards();
    for k in 0..3 {
        let sets = random_sets(k);
        let sets: Vec<&str> = sets.iter().map(String::as_str).chain(["schedule.max_iter=1"]).collect();
        let alone = train(dir.path(), 1, "alone", &sets);
        let together = train(dir.path(), 4, "together", &sets);
        assert_same_curves(&together, &alone);
        for out in ["alone", "together"] {
            fs::remove_dir_all(dir.path().join(out)).unwrap();
        }
    }
}

/// This test's own name, under which it starts itself as four processes.
const SCHEDULES: &str = "parallel::four_processes_go_through_random_schedules";

#[test]
fn four_processes_go_through_random_schedules() {
    // `NCT_SCHEDULES=1000 cargo test four_processes` for a long run.
    let n: u64 = std::env::var("NCT_SCHEDULES").ok().and_then(|n| n.parse().ok()).unwrap_or(12);
    if let (Ok(rank), Ok(port)) = (std::env::var("TEST_RANK"), std::env::var("TEST_PORT")) {
        return go_through(n, rank.parse().unwrap(), port.parse().unwrap());
    }
    let dir = shards();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let start = |rank: u32| {
        let mut own = Command::new(std::env::current_exe().unwrap());
        own.args(["--exact", SCHEDULES, "--nocapture"]).current_dir(dir.path()).env("OMP_NUM_THREADS", "1");
        own.env("TEST_RANK", rank.to_string()).env("TEST_PORT", port.to_string());
        own.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let all: Vec<Child> = (0..4).map(start).collect();
    for child in all {
        let out = child.wait_with_output().unwrap();
        assert!(out.status.success(), "{}", stderr(&out));
        assert!(String::from_utf8_lossy(&out.stdout).contains(&format!("{n} schedules")));
    }
}

/// The metrics of each epoch.
#[derive(Default)]
struct Heard(String);

impl Watch for Heard {
    fn epoch(&mut self, lines: &[Value]) {
        for line in lines {
            self.0 += &format!("{} {}\n", line["train_loss"], line["validation_loss"]);
        }
    }
}

/// As process `rank` of four, in the folder of the shards.
fn go_through(n: u64, rank: u32, port: u16) {
    let at = Meeting { host: "127.0.0.1".into(), port, interface: None, rank, world: 4 };
    let group = Arc::new(Group::join(&at).unwrap());
    let shards = ShardSet::open(Path::new("shards")).unwrap();
    for k in 0..n {
        let mut sets = random_sets(k);
        sets.extend(["schedule.max_iter=1".to_owned(), "schedule.restore_best=false".to_owned()]);
        let experiment = Experiment::parse(RECIPE, "recipe", &sets).unwrap();
        let heard = train_here(&experiment, &shards, &group);
        group.agree(&format!("losses of schedule {k}"), &heard).unwrap();
        if k % 100 == 99 && rank == 0 {
            eprintln!("{} of {n} schedules", k + 1);
        }
    }
    println!("{n} schedules");
}

/// Trains in this process, which writes nothing, and gives the losses.
fn train_here(experiment: &Experiment, shards: &ShardSet, group: &Arc<Group>) -> String {
    let data = Data::open(experiment, shards).unwrap();
    let sources = data.sources(Split::Train).unwrap();
    let mut tasks: Vec<_> = sources.iter().map(|s| s.task).collect();
    tasks.dedup();
    let cpu = tch::Device::Cpu;
    tch::manual_seed(1);
    let info = data.info(&sources).unwrap();
    let mut net = Network::new(&experiment.model, &info, cpu, experiment.runtime()).unwrap();
    let objective = Objective::new(&experiment.loss, &tasks, cpu, tch::Kind::Double);
    net.join(Arc::clone(group)).unwrap();
    let mut params = net.params().trainable();
    params.extend(objective.params().trainable());
    let moving: Vec<_> = params.iter().map(|(_, tensor)| tensor.shallow_clone()).collect();
    let run = Run::of_another(Path::new("nowhere"));
    let mut trainer = Trainer {
        net: &net,
        objective: &objective,
        mode: Mode::TRAIN,
        optimizer: Optimizer::new(&experiment.optimizer, params).unwrap(),
        schedule: Arc::new(data.schedule(&sources).unwrap()),
        sources: Arc::new(sources),
        resident: None,
        validation: data.evaluator(Split::Validation).unwrap(),
        loader: data.loader(),
        anneal: experiment.schedule.clone(),
        periodic: None,
        modules: Modules::new(&experiment.modules, &net.params().trainable(), None).unwrap(),
        checkpoints: experiment.checkpoint.clone(),
        nonfinite: experiment.numerics.on_nonfinite,
        recorder: None,
        reducer: Some(Reducer::new(Arc::clone(group), &moving).unwrap()),
        graphs: None,
        seed: experiment.seed,
        run: &run,
    };
    let mut heard = Heard::default();
    assert_eq!(trainer.run(None, &mut heard).unwrap(), Outcome::Done);
    heard.0
}
