//! Commands on a device that is not the host's memory, where there is no GPU: on the stand-in of
//! `tests/stand_in/cuda.cpp`.

use crate::common::{SMALL, metrics, nct, only_run, output, shards, stderr, succeed};
use nct::model::device;
use safetensors::SafeTensors;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The stand-in for libtorch's CUDA half, compiled once.
pub(crate) fn stand_in() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stand_in/cuda.cpp");
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let (made, library) = (folder.join("stand_in.so"), folder.join("libtorch_cuda.so"));
        let changed = |path: &Path| fs::metadata(path).and_then(|data| data.modified()).ok();
        if changed(&library) > changed(&source) {
            return library;
        }
        let torch = device::libtorch();
        let mut compiler = Command::new(std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned()));
        compiler.args(["-std=c++17", "-O1", "-shared", "-fPIC", "-isystem"]).arg(torch.join("include"));
        compiler.arg("-isystem").arg(torch.join("include/torch/csrc/api/include")).arg(&source);
        compiler.arg("-L").arg(torch.join("lib")).args(["-ltorch_cpu", "-lc10", "-o"]).arg(&made);
        succeed(&mut compiler);
        fs::rename(made, &library).unwrap();
        library
    })
}

/// The program with a GPU of its own.
fn on_device(dir: &Path) -> Command {
    let mut command = nct(dir);
    command.env("NCT_CUDA_LIBRARY", stand_in());
    command
}

fn train(dir: &Path, out: &str, args: &[&str]) -> Command {
    fs::write(dir.join("small.toml"), SMALL).unwrap();
    let mut command = on_device(dir);
    command.args(["train", "--config", "small.toml", "--device", "cuda", "--quiet", "--out", out]).args(args);
    command
}

fn trained(dir: &Path, out: &str, args: &[&str]) -> PathBuf {
    succeed(&mut train(dir, out, args));
    only_run(dir, out)
}

fn checkpoint(run: &Path, name: &str) -> Vec<u8> {
    fs::read(run.join(format!("checkpoints/{name}.safetensors"))).unwrap()
}

/// Of each kind, how often the host waited for the device, with images that are there and with those that come.
fn waits(dir: &Path, batch_size: u32, resident: &str) -> [usize; 3] {
    let name = format!("{resident}-{batch_size}");
    let log = dir.join(format!("waits-{name}"));
    let settings = [
        format!("data.batch_size={batch_size}"),
        format!("data.neural_batch_size={batch_size}"),
        format!("loader.resident=\"{resident}\""),
    ];
    let mut command = train(dir, &name, &["--epochs", "1"]);
    command.args(settings.iter().flat_map(|set| ["--set", set])).env("NCT_STAND_IN_LOG", &log);
    succeed(&mut command);
    let log = fs::read_to_string(log).unwrap();
    ["to the device", "to the host", "_local_scalar_dense"]
        .map(|kind| log.lines().filter(|line| line.contains(kind)).count())
}

#[test]
fn batches_come_beside_what_is_computed() {
    let dir = shards();
    for (resident, comes) in [("on", false), ("off", true)] {
        let log = dir.path().join(format!("log-{resident}"));
        let settings = [format!("loader.resident=\"{resident}\""), "data.batch_size=24".into()];
        let mut command = train(dir.path(), resident, &["--epochs", "1"]);
        command.args(settings.iter().flat_map(|set| ["--set", set])).env("NCT_STAND_IN_LOG", &log);
        succeed(&mut command);
        let beside = fs::read_to_string(log).unwrap().lines().filter(|line| *line == "copy beside").count();
        assert_eq!(beside > 0, comes, "{resident}: {beside}");
    }
}

#[test]
fn no_update_makes_the_host_wait() {
    let dir = shards();
    for resident in ["on", "off"] {
        // 3 and 12 updates, whose losses are read at once.
        let (few, many) = (waits(dir.path(), 24, resident), waits(dir.path(), 6, resident));
        assert_eq!(few, many, "{resident}");
        assert!(few[1] > 0, "the stand-in counted nothing");
    }
}

#[test]
fn losses_that_are_read_late_change_nothing() {
    let dir = shards();
    let late = trained(dir.path(), "late", &[]);
    // What is recorded is read at once.
    let at_once = trained(dir.path(), "at_once", &["--record", "recorded"]);
    assert_eq!(metrics(&late), metrics(&at_once));
    assert!(checkpoint(&late, "last") == checkpoint(&at_once, "last"), "weights differ");

    // Saved within epochs, between two readings.
    let set = ["--set", "checkpoint.every_updates=4"];
    let saved = trained(dir.path(), "saved", &set);
    assert_eq!(metrics(&late), metrics(&saved));
}

#[test]
fn a_loss_that_is_no_number_is_found_late_and_has_moved_nothing() {
    let dir = shards();
    let failed = |out: &str, more: &[&str]| {
        let broken = ["--set", "optimizer.lr=1e12", "--set", "optimizer.momentum=0.9"];
        let told = output(train(dir.path(), out, &broken).args(more));
        assert_eq!(told.status.code(), Some(1), "{}", stderr(&told));
        only_run(dir.path(), out)
    };
    let (late, at_once) = (failed("late", &[]), failed("at_once", &["--record", "recorded"]));
    let [found, expected] =
        [&late, &at_once].map(|run| fs::read_to_string(run.join("failure.json")).unwrap());
    assert_eq!(found, expected);
    assert!(!found.contains("\"step\": 0,"), "{found}: no update came before");
    let [found, expected] = [&late, &at_once].map(|run| checkpoint(run, "failed"));
    let [found, expected] = [&found, &expected].map(|file| SafeTensors::deserialize(file).unwrap());
    assert_eq!(found.len(), expected.len());
    for (name, tensor) in expected.tensors() {
        // Running statistics have seen the batches after.
        if !name.contains("running_") && !name.contains("num_batches") {
            assert!(found.tensor(&name).unwrap().data() == tensor.data(), "{name}");
        }
    }
}

#[test]
fn all_that_uses_a_network_runs_on_a_device() {
    let dir = shards();
    let run = trained(dir.path(), "runs", &["--set", "numerics.precision=\"bf16\"", "--epochs", "1"]);
    let run = run.to_str().unwrap();
    let resumed = format!("train --resume {run} --epochs 2");
    let set = nct::shard::ShardSet::open(&dir.path().join("shards")).unwrap();
    let session = &set.dataset("mtl_monkey_dataset").unwrap().manifest().sessions[0].id;
    for args in [
        resumed.as_str(),
        &format!("eval {run} --suite corruptions --severities 2"),
        &format!("eval {run} --suite noise"),
        &format!("respond {run} --images mtl_monkey_dataset --out responses/again"),
        &format!("reconstruct {run} --layer conv1_1 --images 0,1 --steps 3 --budgets 20 --out rec"),
        &format!("mei {run} --session {session} --neuron 0 --steps 3 --out mei"),
        &format!("rsa a={run} --layers conv1_1,bn2_1 --bootstrap 3 --out rsa"),
    ] {
        succeed(on_device(dir.path()).args(args.split(' ')).args(["--device", "cuda"]));
    }
}

#[test]
fn a_cuda_library_that_is_none_is_named_with_the_way_out() {
    let dir = shards();
    let wrong = dir.path().join("wrong.so");
    for (content, why) in [(None, "No such file"), (Some("no library"), "file too short")] {
        if let Some(content) = content {
            fs::write(&wrong, content).unwrap();
        }
        let out = output(train(dir.path(), "wrong", &[]).env("NCT_CUDA_LIBRARY", &wrong));
        assert_eq!(out.status.code(), Some(2));
        let message = stderr(&out);
        for part in ["wrong.so", why, "unset NCT_CUDA_LIBRARY"] {
            assert!(message.contains(part), "{message}");
        }
        assert!(!dir.path().join("wrong").exists(), "a refused training leaves no folder");
    }
}
