//! Commands on a device that is not the host's memory, where there is no GPU: on the stand-in of
//! `tests/stand_in/cuda.cpp`.

use crate::common::{SMALL, metrics, nct, only_run, output, shards, stderr, succeed};
use crate::parallel::weights;
use nct::model::device;
use nct::torch_ext::{NormRelu, norm_relu, read};
use safetensors::SafeTensors;
use serde_json::Value;
use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use tch::{Device, Kind, Tensor};

/// The stand-in for libtorch's CUDA half, compiled once.
pub(crate) fn stand_in() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let source = root.join("tests/stand_in/cuda.cpp");
        let kernels = fs::read_dir(root.join("src/torch_ext/kernels")).unwrap();
        let mut sources: Vec<PathBuf> = kernels.map(|file| file.unwrap().path()).collect();
        sources.extend([source.clone(), root.join("tests/stand_in/places.h")]);
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let (made, library) = (folder.join("stand_in.so"), folder.join("libtorch_cuda.so"));
        let changed = |path: &Path| fs::metadata(path).and_then(|data| data.modified()).ok();
        if sources.iter().all(|file| changed(&library) > changed(file)) {
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

/// A stand-in for NVIDIA's driver, in a folder of its own: one GPU of compute capability 9.0, of a driver that runs the
/// CUDA of `NCT_DRIVER_CUDA`.
fn driver() -> &'static Path {
    static BUILT: OnceLock<tempfile::TempDir> = OnceLock::new();
    let folder = BUILT.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stand_in/driver.c");
        let mut compiler = Command::new(std::env::var("CC").unwrap_or_else(|_| "cc".to_owned()));
        compiler.args(["-shared", "-fPIC", "-o"]).arg(folder.path().join("libcuda.so.1")).arg(source);
        succeed(&mut compiler);
        folder
    });
    folder.path()
}

#[test]
fn a_driver_that_is_too_old_is_named_and_a_gpu_is_not_passed_over_in_silence() {
    let dir = shards();
    let with = |cuda: &str, args: &[&str]| {
        let mut command = on_device(dir.path());
        command.env("LD_LIBRARY_PATH", driver()).env("NCT_DRIVER_CUDA", cuda).args(args);
        output(&mut command)
    };
    fs::write(dir.path().join("small.toml"), SMALL).unwrap();
    let plan = ["train", "--config", "small.toml", "--dry-run", "--quiet", "--device"];
    let asked = |cuda: &str, device: &str| with(cuda, &[&plan[..], &[device]].concat());

    let told = asked("12040", "cuda");
    let old = "driver runs CUDA up to 12.4, and libtorch needs 13.0; install NVIDIA's driver 580 or newer";
    assert!(told.status.code() == Some(2) && stderr(&told).contains(old), "{}", stderr(&told));
    let told = asked("12040", "auto");
    assert!(told.status.success(), "{}", stderr(&told));
    assert!(stderr(&told).contains("warning: there is a GPU, and it is not used: "), "{}", stderr(&told));
    let told = asked("13000", "auto");
    assert!(told.status.success() && stderr(&told).is_empty(), "{}", stderr(&told));

    let doctor =
        |cuda: &str| -> Value { serde_json::from_slice(&with(cuda, &["doctor", "--json"]).stdout).unwrap() };
    let (new, old) = (doctor("13000"), doctor("12040"));
    assert_eq!(new["cards"]["state"], "NVIDIA Pretend, 16 GiB, compute capability 9.0");
    assert_eq!(
        (&new["GPU"]["state"], &new["GPU"]["fix"]),
        (&"cuda:0 of 1, NVIDIA Pretend".into(), &Value::Null)
    );
    assert!(old["GPU"]["fix"].as_str().unwrap().contains("driver 580"), "{old}");
}

#[test]
fn a_gpu_without_bfloat16_is_told_of() {
    let dir = shards();
    fs::write(dir.path().join("small.toml"), SMALL).unwrap();
    for (capability, precision, expected) in [
        ("75", "bf16", "has no bfloat16"),
        ("75", "f32", ""),
        ("80", "bf16", ""),
        ("80", "f32", "made for GPUs"),
    ] {
        let numerics = format!("numerics={{precision=\"{precision}\",channels_last=true}}");
        let mut command = on_device(dir.path());
        command.env("LD_LIBRARY_PATH", driver()).env("NCT_DRIVER_CAPABILITY", capability);
        command.args([
            "train",
            "--config",
            "small.toml",
            "--device",
            "cuda",
            "--epochs",
            "0",
            "--set",
            &numerics,
        ]);
        let told = output(&mut command);
        assert!(told.status.success(), "{}", stderr(&told));
        let said: Vec<_> = ["has no bfloat16", "made for GPUs"]
            .into_iter()
            .filter(|words| stderr(&told).contains(words))
            .collect();
        assert_eq!(said.concat(), expected, "{capability} {precision}");
    }
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
    let beside = |resident: &str| {
        let log = dir.path().join(format!("log-{resident}"));
        let set = format!("loader.resident=\"{resident}\"");
        let mut command = train(dir.path(), resident, &["--epochs", "1", "--set", &set]);
        succeed(command.env("NCT_STAND_IN_LOG", &log));
        fs::read_to_string(log).unwrap().lines().filter(|line| *line == "copy beside").count()
    };
    // Those of evaluations come in both.
    let (fewer, more) = (beside("on"), beside("off"));
    let updates = metrics(&only_run(dir.path(), "off")).last().unwrap()["step"].as_u64().unwrap();
    assert!(more >= fewer + updates as usize, "{fewer}, then {more} in {updates} updates");
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
    // What had no gradient yet has one now, and was not updated.
    let later = found.tensors().into_iter().filter(|(name, _)| expected.tensor(name).is_err());
    let later: Vec<_> = later.collect();
    assert!(
        later
            .iter()
            .all(|(name, tensor)| name.starts_with("optimizer.") && tensor.data().iter().all(|b| *b == 0))
    );
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

#[test]
fn passes_that_are_repeated_change_nothing() {
    let dir = shards();
    // Random positions and dropout, both kinds of targets, two batches of a kind in an update, and both precisions.
    let labels = ["--set", "data.neural_labels=true", "--set", "mix={kind=\"mtl\",ratio={1=2}}"];
    let bf16 = ["--set", "numerics.precision=\"bf16\"", "--set", "numerics.channels_last=true"];
    for (i, more) in [
        &["--epochs", "4"][..],
        &[&bf16[..], &["--epochs", "4", "--set", "loader.resident=\"off\""]].concat(),
        &[&labels[..], &["--epochs", "2", "--set", "loss.regularize=true"]].concat(),
    ]
    .into_iter()
    .enumerate()
    {
        let log = dir.path().join(format!("log-{i}"));
        let (plain, repeated) = (format!("plain-{i}"), format!("repeated-{i}"));
        let plain = trained(dir.path(), &plain, more);
        let mut command = train(dir.path(), &repeated, more);
        command.args(["--set", "numerics.graphs=true"]).env("NCT_STAND_IN_LOG", &log);
        let out = output(&mut command);
        assert!(out.status.success(), "{}", stderr(&out));
        // A gradient that another stream than the recording's adds up would not be recorded, which torch warns of.
        assert!(!stderr(&out).contains("AccumulateGrad"), "{}", stderr(&out));
        let run = only_run(dir.path(), &repeated);
        assert_eq!(metrics(&run), metrics(&plain), "{more:?}");
        assert!(checkpoint(&run, "last") == checkpoint(&plain, "last"), "{more:?}");
        let log = fs::read_to_string(log).unwrap();
        let count = |what: &str| log.lines().filter(|line| *line == what).count();
        let (recorded, replayed) = (count("recorded"), count("replayed"));
        assert!(recorded >= 2 && replayed > 2 * recorded, "{recorded} recorded, {replayed} replayed");
    }
}

/// Torch's own layers on the CPU, in 64 bits, with what lies between them rounded as bfloat16 lies in memory: the result,
/// and the gradients of the map, weight and bias for `dy`.
fn by_layers(
    x: &Tensor,
    [weight, bias]: [&Tensor; 2],
    running: [&Tensor; 2],
    pooled: bool,
    dy: &Tensor,
) -> [Tensor; 4] {
    let [x, weight, bias] = [x, weight, bias].map(|t| t.to_kind(Kind::Double).set_requires_grad(true));
    let [mean, variance] = running;
    let y =
        x.batch_norm(Some(&weight), Some(&bias), Some(mean), Some(variance), true, 0.1, 1e-5, false).relu();
    let y = y.to_kind(Kind::BFloat16).to_kind(Kind::Double);
    let y = if pooled { y.max_pool2d([2, 2], [2, 2], [0, 0], [1, 1], false) } else { y };
    (&y * dy.to_kind(Kind::Double)).sum(Kind::Double).backward();
    [y.detach(), x.grad(), weight.grad(), bias.grad()]
}

/// `[height, width, ...]` of 4 dimensions with channels innermost, as bfloat16.
fn innermost(t: &Tensor) -> Tensor {
    t.to_kind(Kind::BFloat16).permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2])
}

/// By how much `a` and `b` differ at most, in parts of b's largest value.
fn apart(a: &Tensor, b: &Tensor) -> f64 {
    let [a, b] = [a, b].map(|t| t.to_device(Device::Cpu).to_kind(Kind::Double));
    assert_eq!(a.size(), b.size());
    ((a - &b).abs().max() / b.abs().max().clamp_min(1e-30)).double_value(&[])
}

/// Gradients that kernels add to those that are there have the bits of those that autograd adds, which is not told of them.
fn assert_adds_up_alike(weights: &[&Tensor], pass: impl Fn(bool) -> Tensor, what: &str) {
    let start: Vec<Tensor> = weights.iter().map(|w| w.grad().copy()).collect();
    let [by_autograd, by_kernels] = [false, true].map(|adds| {
        let loss = pass(adds);
        let told = Tensor::f_run_backward(&[&loss], weights, true, false).unwrap();
        assert!(told.iter().all(|gradient| gradient.defined() != adds), "{what}");
        weights.iter().zip(&start).for_each(|(w, start)| w.grad().copy_(start));
        loss.backward();
        weights.iter().map(|w| w.grad().copy()).collect::<Vec<_>>()
    });
    for ((a, b), start) in by_autograd.iter().zip(&by_kernels).zip(&start) {
        assert!(a.equal(b) && !a.equal(start), "{what}");
    }
}

/// One map of the given extent, by our kernels and by torch's.
fn compare([n, channels, height, width]: [i64; 4], pooled: bool, level: f64) {
    let what = format!("{n} x {channels} x {height} x {width}, pooled {pooled}, level {level}");
    let gpu = Device::Cuda(0);
    let there = |t: &Tensor| t.to_device(gpu);
    let on = (Kind::Float, Device::Cpu);
    let x = innermost(&(Tensor::randn([n, channels, height, width], on) + level));
    let part = if pooled { 2 } else { 1 };
    let dy = innermost(&Tensor::randn([n, channels, height / part, width / part], on));
    let [weight, bias] = [1.0, 0.2].map(|about| Tensor::randn([channels], on) * 0.3 + about);
    let running = || [Tensor::zeros([channels], on), Tensor::ones([channels], on)];
    let expected_running = running().map(|t| t.to_kind(Kind::Double));
    let expected = by_layers(&x, [&weight, &bias], expected_running.each_ref(), pooled, &dy);

    let [x, weight, bias] = [&x, &weight, &bias].map(|t| there(t).set_requires_grad(true));
    let [mean, variance] = running().map(|t| there(&t));
    let batches = there(&Tensor::from(4i64));
    let bias_of_before = there(&(Tensor::randn([channels], on) * f64::from(level == 0.0)));
    let how = NormRelu {
        kernel: None,
        lacking: (level == 0.0).then_some(&bias_of_before),
        momentum: 0.1,
        eps: 1e-5,
        pooled,
        adds: false,
    };
    let y = norm_relu(&x, [&weight, &bias], [&mean, &variance, &batches], how, None).unwrap();
    let y = y.unwrap_or_else(|| panic!("{what}: no kernels"));
    (&y * there(&dy)).sum(Kind::Float).backward();
    // A value of bfloat16 is within 1/256 of what is rounded, and 32 bits may round it to the other side.
    for (found, expected) in [&y, &x.grad()].into_iter().zip(&expected) {
        assert!(apart(found, expected) < 1.0 / 128.0, "{what}: {}", apart(found, expected));
    }
    for (found, expected) in [&weight.grad(), &bias.grad()].into_iter().zip(&expected[2..]) {
        assert!(apart(found, expected) < 1e-5, "{what}: {}", apart(found, expected));
    }
    let again = |adds| {
        let running = [&mean.copy(), &variance.copy(), &batches.copy()];
        let y = norm_relu(&x, [&weight, &bias], running, NormRelu { adds, ..how }, None).unwrap().unwrap();
        (&y * there(&dy)).sum(Kind::Float)
    };
    assert_adds_up_alike(&[&weight, &bias], again, &what);
    // 32 bits beside a deviation of 1.
    let expected_mean =
        &expected_running[0] + bias_of_before.to_device(Device::Cpu).to_kind(Kind::Double) * 0.1;
    for (found, expected) in [&mean, &variance].into_iter().zip([&expected_mean, &expected_running[1]]) {
        let off =
            (found.to_device(Device::Cpu).to_kind(Kind::Double) - expected).abs().max().double_value(&[]);
        assert!(off < 1e-6 * level.abs().max(1.0), "{what}: {off}");
    }
    assert_eq!(batches.int64_value(&[]), 5);
}

/// The first layer of images of the given extent with `channels` channels, by our kernels and by torch's layers.
fn compare_first([n, height, width]: [i64; 3], channels: i64, level: f64) {
    let what = format!("{n} x {height} x {width}, {channels} channels, level {level}");
    let on = (Kind::Float, Device::Cpu);
    let x = (Tensor::randn([n, 1, height, width], on) + level).to_kind(Kind::BFloat16);
    let kernel = Tensor::randn([channels, 1, 3, 3], on) * 0.3;
    let [weight, bias] = [1.0, 0.2].map(|about| Tensor::randn([channels], on) * 0.3 + about);
    let dy = innermost(&Tensor::randn([n, channels, height, width], on));
    let running = || [Tensor::zeros([channels], on), Tensor::ones([channels], on)];
    let exact = |t: &Tensor| t.to_kind(Kind::BFloat16).to_kind(Kind::Double);
    let by_torch = exact(&kernel).set_requires_grad(true);
    let map = exact(&x).conv2d(&by_torch, None::<&Tensor>, [1, 1], [1, 1], [1, 1], 1);
    let expected_running = running().map(|t| t.to_kind(Kind::Double));
    // Of the layers after it, the gradient of the map, which is that of the convolution.
    let [y, of_map, of_weight, of_bias] =
        by_layers(&map.detach(), [&weight, &bias], expected_running.each_ref(), false, &dy);
    (&map * &of_map).sum(Kind::Double).backward();
    let expected = [&y, &by_torch.grad(), &of_weight, &of_bias];

    let [kernel, weight, bias] =
        [&kernel, &weight, &bias].map(|t| t.to_device(Device::Cuda(0)).set_requires_grad(true));
    let [mean, variance] = running().map(|t| t.to_device(Device::Cuda(0)));
    let batches = Tensor::from(4i64).to_device(Device::Cuda(0));
    let how = NormRelu {
        kernel: Some(&kernel),
        lacking: None,
        momentum: 0.1,
        eps: 1e-5,
        pooled: false,
        adds: false,
    };
    let images = x.to_device(Device::Cuda(0));
    let y = norm_relu(&images, [&weight, &bias], [&mean, &variance, &batches], how, None).unwrap();
    let y = y.unwrap_or_else(|| panic!("{what}: no kernels"));
    (&y * dy.to_device(Device::Cuda(0))).sum(Kind::Float).backward();
    let found = [&y, &kernel.grad(), &weight.grad(), &bias.grad()];
    for ((found, expected), within) in found.into_iter().zip(expected).zip([1.0 / 256.0, 1e-5, 1e-5, 1e-5]) {
        assert!(apart(found, expected) < within, "{what}: {}", apart(found, expected));
    }
    let again = |adds| {
        let running = [&mean.copy(), &variance.copy(), &batches.copy()];
        let y =
            norm_relu(&images, [&weight, &bias], running, NormRelu { adds, ..how }, None).unwrap().unwrap();
        (&y * dy.to_device(Device::Cuda(0))).sum(Kind::Float)
    };
    assert_adds_up_alike(&[&weight, &bias], again, &what);
    for (found, expected) in [&mean, &variance].into_iter().zip(&expected_running) {
        assert!(apart(found, expected) < 1e-5, "{what}: {}", apart(found, expected));
    }
    assert_eq!(batches.int64_value(&[]), 5);
}

/// Readings of a map of the given extent at `n` positions, and the gradients of map and positions, by our kernels and by
/// torch's `grid_sampler`.
fn compare_readings([batch, channels, height, width]: [i64; 4], n: i64, kind: Kind) {
    let what = format!("{n} readings of {batch} x {channels} x {height} x {width}, {kind:?}");
    let on = (Kind::Float, Device::Cpu);
    let map = innermost(&Tensor::randn([batch, channels, height, width], on)).to_kind(kind);
    let at = Tensor::rand([batch, n, 2], on) * 2.0 - 1.0;
    // On pixels, where the slope is that towards the next one, and in corners.
    let exact = Tensor::from_slice(&[-1f32, -1.0, 1.0, 1.0, 1.0, -1.0, 0.0, 0.0]).view([1, 4, 2]);
    at.narrow(1, 0, 4).copy_(&exact.expand([batch, 4, 2], false));
    let upstream = Tensor::randn([batch, n, channels], on);
    let made = |read: &dyn Fn(&Tensor, &Tensor) -> Tensor, device: Device, kind: Kind| {
        let map = map.to_device(device).to_kind(kind).set_requires_grad(true);
        let at = at.to_device(device).set_requires_grad(true);
        let value = read(&map, &at);
        (&value * upstream.to_device(device)).sum(Kind::Float).backward();
        assert_eq!(map.grad().stride(), map.stride());
        [value.detach(), map.grad(), at.grad()]
    };
    let found = made(&|map, at| read(map, at, true).unwrap(), Device::Cuda(0), kind);
    let by_torch = |map: &Tensor, at: &Tensor| {
        map.contiguous().grid_sampler(&at.unsqueeze(2), 0, 0, true).squeeze_dim(3).transpose(1, 2)
    };
    let expected = made(&by_torch, Device::Cpu, Kind::Float);
    let of_map = if kind == Kind::BFloat16 { 1.0 / 256.0 } else { 1e-5 };
    for ((found, expected), within) in found.iter().zip(&expected).zip([1e-5, of_map, 1e-4]) {
        assert!(apart(found, expected) < within, "{what}: {}", apart(found, expected));
    }
}

/// In a process of its own, whose GPU is the stand-in: see below.
#[test]
#[ignore = "needs a GPU; on the stand-in, another test runs it"]
fn our_kernels_beside_those_of_torch() {
    device::select("cuda").unwrap();
    tch::manual_seed(7);
    for kind in [Kind::BFloat16, Kind::Float] {
        compare_readings([3, 16, 5, 7], 9, kind);
        compare_readings([2, 8, 1, 4], 4, kind);
        compare_readings([5, 256, 16, 16], 14, kind);
    }
    tch::manual_seed(6);
    compare_first([3, 7, 6], 8, 0.0);
    compare_first([2, 1, 5], 24, 0.5);
    compare_first([9, 32, 32], 64, -0.3);
    compare_first([2, 4, 3], 1048, 3.0);
    for pooled in [false, true] {
        tch::manual_seed(5);
        // Few rows, odd edges, channels that are no power of 2 or more than a block takes, many blocks, a mean far away.
        compare([4, 8, 6, 6], pooled, 0.0);
        compare([3, 16, 5, 7], pooled, 0.5);
        compare([2, 24, 3, 4], pooled, -1.0);
        compare([2, 2064, 2, 3], pooled, 0.0);
        compare([40, 64, 16, 16], pooled, 0.0);
        compare([6, 32, 9, 8], pooled, 60.0);
    }
    let on = (Kind::BFloat16, Device::Cpu);
    let made = |x: &Tensor, pooled: bool| {
        let [weight, variance] = [0, 1].map(|_| Tensor::ones([x.size()[1]], (Kind::Float, Device::Cuda(0))));
        let [bias, mean] = [0, 1].map(|_| Tensor::zeros([x.size()[1]], (Kind::Float, Device::Cuda(0))));
        let batches = Tensor::zeros([], (Kind::Int64, Device::Cuda(0)));
        let how = NormRelu { kernel: None, lacking: None, momentum: 0.1, eps: 1e-5, pooled, adds: false };
        norm_relu(&x.to_device(Device::Cuda(0)), [&weight, &bias], [&mean, &variance, &batches], how, None)
            .unwrap()
    };
    // Channels that are all the same give the bias, and what is no number stays none, in its channel.
    let x = innermost(&Tensor::ones([2, 8, 4, 4], on));
    let _ = x.get(1).get(3).get(2).get(1).fill_(f64::NAN);
    for pooled in [false, true] {
        let y = made(&x, pooled).unwrap().to_device(Device::Cpu).to_kind(Kind::Float);
        assert!(bool::try_from(y.narrow(1, 3, 1).isnan().all()).unwrap());
        assert_eq!(y.narrow(1, 0, 3).abs().max().double_value(&[]), 0.0);
    }
    // What there are no kernels for.
    assert!(made(&innermost(&Tensor::ones([2, 9, 4, 4], on)), false).is_none());
    assert!(made(&Tensor::ones([2, 8, 4, 4], on), false).is_none());
    assert!(made(&innermost(&Tensor::ones([2, 8, 1, 4], on)), true).is_none());
}

#[test]
fn our_kernels_compute_what_those_of_torch_do() {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "device::our_kernels_beside_those_of_torch"]);
    let told = succeed(command.env("NCT_CUDA_LIBRARY", stand_in()));
    assert!(told.contains("1 passed"), "{told}");
}

/// What a GPU would do to memory that is not theirs, a sanitizer sees.
#[test]
fn our_kernels_stay_within_their_memory() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("bounds");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stand_in/bounds.cpp");
    let mut compiler = Command::new(std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned()));
    let sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"];
    compiler.args(["-std=c++17", "-O1", "-w"]).args(sanitizers).arg(source).arg("-o").arg(&program);
    let made = output(&mut compiler);
    if !made.status.success() && ["asan", "ubsan", "sanitize"].iter().any(|what| stderr(&made).contains(what))
    {
        return eprintln!("skipped: this compiler has no sanitizers");
    }
    assert!(made.status.success(), "{}", stderr(&made));
    succeed(&mut Command::new(program));
}

#[test]
fn training_with_fewer_passes_through_maps_is_the_same_up_to_rounding() {
    let dir = shards();
    // One update, so that rounding does not grow from one to the next, with a batch of every stream.
    let update = ["mix={kind=\"weighted\",batches_per_step=3,steps_per_epoch=1}", "schedule.max_iter=1"];
    let network = ["model.vgg_type=\"bn 8 8 M 16 16 M\"", "model.v1_model_layer=10"];
    let step = |precision: &str, fused: bool, lr: f64| {
        let out = format!("{precision}-{fused}-{lr}");
        let log = dir.path().join(format!("log-{out}"));
        let sets = [
            format!("numerics={{precision=\"{precision}\",channels_last=true,fused={fused}}}"),
            format!("optimizer={{kind=\"sgd\",lr={lr}}}"),
        ];
        let sets = sets.iter().map(String::as_str).chain(update).chain(network);
        let args: Vec<&str> = sets.flat_map(|set| ["--set", set]).collect();
        succeed(train(dir.path(), &out, &args).env("NCT_STAND_IN_LOG", &log));
        let log = fs::read_to_string(&log).unwrap();
        let own = |kernel: &str| log.lines().filter(|line| *line == kernel).count();
        let run = only_run(dir.path(), &out);
        let losses: Vec<f64> = metrics(&run).iter().filter_map(|line| line["train_loss"].as_f64()).collect();
        // Two batches of stimuli, and one of images.
        let kernels =
            ["nct_first", "nct_first_gradients", "nct_norm", "nct_norm_back", "nct_norm_back_pooled"];
        (weights(&run, ".weight"), losses, kernels.map(own))
    };
    let ((start, ..), exact) = (step("f32", false, 1e-12), step("f32", false, 1e-3));
    let (fused, plain) = (step("bf16", true, 1e-3), step("bf16", false, 1e-3));
    assert_eq!((fused.2, plain.2), ([3, 3, 3, 3, 4], [0; 5]));
    for losses in [&fused.1, &plain.1] {
        assert_eq!(losses.len(), 2);
        for (loss, expected) in losses.iter().zip(&exact.1) {
            assert!((loss / expected - 1.0).abs() < 0.01, "{losses:?} {:?}", exact.1);
        }
    }
    // Gradients that are as far from those of 32 bits as torch's layers leave them.
    let apart =
        |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt();
    let size = apart(&exact.0, &start);
    let [of_fused, of_plain] = [&fused.0, &plain.0].map(|weights| apart(weights, &exact.0) / size);
    assert!(size > 0.0 && of_plain < 0.5 && of_fused < 1.2 * of_plain, "{of_fused} {of_plain}");
}

/// The memory that recordings share is given up with the last of them: the next run of the process has its own.
#[test]
fn every_run_of_a_process_records_its_own_passes() {
    let dir = shards();
    fs::write(
        dir.path().join("two.toml"),
        format!("{SMALL}[numerics]\ngraphs = true\n[sweep]\nseed = [1, 2]\n"),
    )
    .unwrap();
    let log = dir.path().join("log");
    let mut command = on_device(dir.path());
    command.args(["run", "two.toml", "--device", "cuda", "--quiet"]).env("NCT_STAND_IN_LOG", &log);
    succeed(&mut command);
    let recorded = fs::read_to_string(log).unwrap().lines().filter(|line| *line == "recorded").count();
    assert!(recorded >= 4, "{recorded} recorded");
}

/// Optimisers of a GPU go through parameters and moments as they lie in memory.
#[test]
fn moments_that_come_from_a_checkpoint_are_laid_out_as_the_parameters() {
    let dir = shards();
    let best = ["schedule.patience=0", "schedule.restore_optimizer=\"best\"", "numerics.channels_last=true"];
    for kind in ["{kind=\"sgd\",lr=0.02,momentum=0.9}", "{kind=\"adam\",lr=0.001}"] {
        let optimizer = format!("optimizer={kind}");
        let sets = best.iter().copied().chain([optimizer.as_str()]).flat_map(|set| ["--set", set]);
        let args: Vec<&str> = ["--epochs", "4"].into_iter().chain(sets).collect();
        let run = trained(dir.path(), &kind[..12].replace(|c: char| !c.is_alphanumeric(), ""), &args);
        assert!(metrics(&run).iter().any(|line| line["patience"] == 0), "no weights returned");
    }
}

/// The names by which this program looks up what it is not linked with are those of libtorch's CUDA half, which has
/// NCCL's names as others'.
#[test]
fn what_is_looked_up_by_name_is_there() {
    let library = device::cuda_library();
    if !library.is_file() {
        return eprintln!("skipped: this libtorch has no CUDA half");
    }
    let beside = device::libtorch().join("lib");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/torch_ext");
    for (file, library, n) in [
        ("graph.cpp", &library, 6),
        ("nccl.cpp", &library, 12),
        ("kernels/kernels.cpp", &beside.join("libcudart.so.13"), 6),
        ("kernels/kernels.cpp", &beside.join("libnvrtc.so.13"), 11),
    ] {
        if !library.is_file() {
            eprintln!("not looked at: {}, which `tools/setup --cuda` brings", library.display());
            continue;
        }
        let Ok(told) = Command::new("nm").arg("-D").arg(library).output() else {
            return eprintln!("skipped: no nm");
        };
        let told = String::from_utf8(told.stdout).unwrap();
        let words = told.lines().filter_map(|line| line.split_whitespace().last());
        let there: HashSet<&str> = words.map(|name| name.split('@').next().unwrap()).collect();
        let text = fs::read_to_string(source.join(file)).unwrap();
        let calls = text.lines().filter(|line| line.trim_start().starts_with("find("));
        let names = calls.map(|call| call.split('"').nth(1).unwrap());
        let of_nvrtc = library.ends_with("libnvrtc.so.13");
        let names: Vec<&str> = names.filter(|name| name.starts_with("nvrtc") == of_nvrtc).collect();
        assert_eq!(names.len(), n, "{file}");
        for name in names {
            assert!(there.contains(name), "{file}: {name}");
        }
    }
}

/// The host's side of training, with the CUDA half of the real libtorch where `tools/setup --cuda` has brought it, and
/// kernels that do nothing.
#[test]
fn the_real_cuda_half_refuses_nothing_and_is_not_waited_for() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    if !root.join(".libtorch/site/nvidia/nccl").is_dir() {
        return eprintln!("skipped: this libtorch has no CUDA half");
    }
    let dir = shards();
    fs::write(dir.path().join("small.toml"), SMALL).unwrap();
    let bf16 = ["--set", "numerics.precision=bf16", "--set", "numerics.channels_last=true"];
    for graphs in ["false", "true"] {
        let mut command = Command::new(root.join("tools/null_gpu/run"));
        command.args(["--log", "calls.txt", env!("CARGO_BIN_EXE_nct"), "train", "--config", "small.toml"]);
        command.args(["--device", "cuda", "--quiet", "--epochs", "4", "--out", graphs]).args(bf16);
        command.args(["--set", &format!("numerics.graphs={graphs}")]);
        succeed(command.current_dir(dir.path()));
        let mut show = Command::new(root.join("tools/null_gpu/show"));
        let told = succeed(show.arg("calls.txt").current_dir(dir.path()));
        let lines: Vec<&str> = told.lines().collect();
        assert!(lines[0].ends_with("; 0 refused, 0 beside recordings"), "{told}");
        // What most updates do: how many, kernels, library calls, recorded passes, ..., waits.
        let row: Vec<u32> = lines[2].split_whitespace().map(|n| n.parse().unwrap()).collect();
        assert!(row[0] > 3 && row[1] > 10, "{told}");
        assert_eq!(row[3] > 0, graphs == "true", "{told}");
        assert_eq!(row.last(), Some(&0), "{told}");
    }
}

/// What a GPU is to be checked for holds on the stand-in, and is not said of one that gives other bytes.
#[test]
fn gpus_are_checked_by_a_script() {
    let dir = tempfile::tempdir().unwrap();
    let python = std::env::var("NCT_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    if !Command::new(&python).arg("--version").output().is_ok_and(|out| out.status.success()) {
        return eprintln!("skipped: no {python}");
    }
    let check = |only: &str, library: &Path| {
        let mut command = Command::new(&python);
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/check_gpu.py"));
        command.args(["--small", "--work", "work", "--only", only, "--nct", env!("CARGO_BIN_EXE_nct")]);
        command.env("NCT_CUDA_LIBRARY", library).env("LD_LIBRARY_PATH", driver());
        output(command.current_dir(dir.path()))
    };
    let said = |out: &Output| String::from_utf8(out.stdout.clone()).unwrap();
    let out = check("same,resume,graphs,fused,cpu,epoch,neural,several", stand_in());
    assert!(out.status.success(), "{}{}", said(&out), stderr(&out));
    let count = |what: &str| said(&out).lines().filter(|line| line.starts_with(what)).count();
    assert_eq!((count("ok"), count("measured"), count("skipped")), (7, 5, 1), "{}", said(&out));

    let weights = only_run(&dir.path().join("work"), "again").join("checkpoints/last.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&weights, bytes).unwrap();
    let out = check("same", stand_in());
    assert_eq!(out.status.code(), Some(1), "{}", stderr(&out));
    assert!(said(&out).contains("FAILED") && said(&out).contains("1 bytes of weights"), "{}", said(&out));
}

#[test]
fn what_cannot_be_repeated_is_refused() {
    let dir = shards();
    let graphs = ["--set", "numerics.graphs=true"];
    let module = "modules.representation_matching={representation=\"core.0\",lambda=0.5}";
    let out = output(train(dir.path(), "refused", &graphs).args(["--set", module]));
    assert_eq!(out.status.code(), Some(2), "{}", stderr(&out));
    assert!(stderr(&out).contains("numerics.graphs") && stderr(&out).contains("modules"), "{}", stderr(&out));
    let mut on_cpu = nct(dir.path());
    on_cpu.args(["train", "--config", "small.toml", "--device", "cpu", "--epochs", "1"]).args(graphs);
    let out = output(&mut on_cpu);
    assert!(out.status.success() && stderr(&out).contains("has no effect here"), "{}", stderr(&out));
}
