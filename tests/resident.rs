//! Training images that live on the device.

use crate::common::{nct, only_run, output, raw, shards, stderr, succeed};
use nct::base::{Split, Task};
use nct::config::{Data, Experiment};
use nct::load::{AugmentSettings, Loader, LoaderOptions, Noise, NoiseLevel, PixelType, Pixels, Source, View};
use nct::model::device;
use nct::schedule::{Mix, Schedule, StreamSpec};
use nct::shard::ShardSet;
use nct::train::Resident;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use tch::Device;

/// The labelled images of `shards`, as `view` shows them, and before them the sessions, whose images are gray.
fn sources(shards: &Path, view: &View, pixels: PixelType) -> Vec<Source> {
    let view = View { pixels, ..view.clone() };
    let set = ShardSet::open(shards).unwrap();
    let mut sources = Vec::new();
    if view.mean.len() == 1 {
        let monkey = set.dataset("mtl_monkey_dataset").unwrap();
        let view = View { second: None, ..view.clone() };
        sources.extend(Source::sessions(monkey, Task::V1, Split::Train, &view, None).unwrap());
    }
    sources.push(Source::images(set.dataset("tiny-imagenet-200").unwrap(), Split::Train, &view).unwrap());
    sources
}

fn loader(sources: &Arc<Vec<Source>>) -> Loader {
    let stream = |s: &Source| StreamSpec::new(s.task, s.n_records(), 7);
    let mix = Mix::Weighted { batches_per_step: 2, steps_per_epoch: 0 };
    let schedule = Schedule::new(sources.iter().map(stream).collect(), mix, 5).unwrap();
    Loader::start(sources, &Arc::new(schedule), 5, 0..12, LoaderOptions::default()).unwrap()
}

/// Equal to the bit, or to 1e-5 of the scale of [0, 1] in images with noise.
fn assert_equal(made: &[f32], expected: &[f32], pixels: &Pixels, view: &View) {
    let Pixels::Moves(moves) = pixels else { panic!("made on the host") };
    let (size, std) = (expected.len() / moves.places.len(), view.std.iter().copied().fold(1.0, f64::min));
    assert_eq!(made.len(), expected.len());
    for (image, (made, expected)) in made.chunks(size).zip(expected.chunks(size)).enumerate() {
        let near = |(a, b): (&f32, &f32)| f64::from((a - b).abs()) <= 1e-5 / std;
        let same = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits();
        let noisy = moves.noise.iter().any(|grain| grain.image as usize == image);
        let mut pairs = made.iter().zip(expected);
        assert!(if noisy { pairs.all(near) } else { pairs.all(same) }, "{view:?}: pixels differ");
    }
}

/// Batches of both, value by value; how many there were. `fused`: by a kernel of nct's own.
fn compare(shards: &Path, view: &View, on: Device, fused: bool) -> usize {
    let [host, device] = [PixelType::F32, PixelType::Moves].map(|p| Arc::new(sources(shards, view, p)));
    let resident = Resident::upload(&device, on, fused, &|_| ()).unwrap().unwrap();
    let mut n = 0;
    for (host, device) in loader(&host).zip(loader(&device)) {
        let (host, device) = (host.unwrap(), device.unwrap());
        for (host, device) in host.batches.iter().zip(&device.batches) {
            assert_eq!((&host.ids, host.targets()), (&device.ids, device.targets()));
            let images = resident.images(device).unwrap().unwrap();
            let [c, h, w] = host.image.map(i64::from);
            assert_eq!(images.size()[1..], [c, h, w]);
            let made = Vec::<f32>::try_from(images.flatten(0, -1).to_device(Device::Cpu)).unwrap();
            assert_equal(&made, host.pixels.as_f32().unwrap(), &device.pixels, view);
            n += 1;
        }
    }
    n
}

fn views() -> Vec<View> {
    let augment = |crop_padding, flip, rotation_degrees| AugmentSettings {
        crop_padding,
        flip,
        rotation_degrees,
        ..AugmentSettings::NONE
    };
    let gray = |augment| View { augment, ..View::new(vec![0.45], vec![0.22]) };
    let colour = View::new(vec![0.48, 0.44, 0.39], vec![0.27, 0.26, 0.28]);
    vec![
        gray(AugmentSettings::NONE),
        gray(AugmentSettings::default()),
        gray(augment(70, false, 0.0)),
        View { second: Some(augment(0, true, 170.0)), ..gray(augment(9, true, 0.0)) },
        View { size: Some([40, 25]), ..gray(augment(3, true, 60.0)) },
        View { augment: AugmentSettings::default(), ..colour.clone() },
        View { size: Some([33, 64]), augment: augment(2, true, 5.0), ..colour },
    ]
}

/// A mixture of levels, on gray images and on colours.
fn noisy() -> [View; 2] {
    let level = |noise, share| NoiseLevel { noise, share };
    let noise = vec![level(Noise::Std(0.08), 0.3), level(Noise::Snr(5.0), 0.3), level(Noise::Std(2.0), 0.1)];
    let augment = AugmentSettings { noise, ..AugmentSettings::default() };
    let gray = View { second: Some(augment.clone()), ..View::new(vec![0.45], vec![0.22]) };
    let colour = View::new(vec![0.48, 0.44, 0.39], vec![0.27, 0.26, 0.28]);
    [View { size: Some([33, 25]), ..gray }, colour].map(|view| View { augment: augment.clone(), ..view })
}

#[test]
fn batches_made_on_a_device_equal_the_host_s_to_the_bit() {
    let dir = raw();
    succeed(nct(dir.path()).args(["prepare", "raw"]));
    succeed(nct(dir.path()).args(["prepare", "raw", "--color", "gray", "--out", "gray"]));
    let mut ways = vec![(Device::Cpu, false)];
    match device::select("cuda") {
        Ok(selected) => ways.extend([false, true].map(|fused| (selected.device, fused))),
        Err(e) => eprintln!("skipped on a GPU: {e}"),
    }
    for (device, fused) in ways {
        for view in views() {
            assert_eq!(compare(&dir.path().join("shards"), &view, device, fused), 24);
            if view.mean.len() == 1 {
                assert_eq!(compare(&dir.path().join("gray"), &view, device, fused), 24);
            }
        }
        let [gray, colour] = noisy();
        assert_eq!(compare(&dir.path().join("gray"), &gray, device, fused), 24);
        assert_eq!(compare(&dir.path().join("shards"), &colour, device, fused), 24);
    }
}

/// On the stand-in for a GPU, where images without noise are each made by one launch of the kernel.
#[test]
fn a_kernel_makes_the_host_s_batches() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "resident::batches_made_on_a_device_equal_the_host_s_to_the_bit"]);
    command.env("NCT_STAND_IN_LOG", &log).env("NCT_CUDA_LIBRARY", super::device::stand_in());
    let told = succeed(&mut command);
    assert!(told.contains("1 passed"), "{told}");
    let launches = fs::read_to_string(&log).unwrap().lines().filter(|line| *line == "nct_show").count();
    // Twelve comparisons of 24 batches; noise leaves a batch to torch.
    assert!((12 * 24..=14 * 24).contains(&launches), "{launches}");
}

#[test]
fn what_the_host_must_make_is_refused() {
    let dir = raw();
    succeed(nct(dir.path()).args(["prepare", "raw"]));
    let [gray, _] = noisy();
    let view = View { pixels: PixelType::Moves, ..gray };
    let set = ShardSet::open(&dir.path().join("shards")).unwrap();
    let e = Source::images(set.dataset("tiny-imagenet-200").unwrap(), Split::Train, &view).unwrap_err();
    assert!(e.to_string().contains("noise is added to colours"), "{e}");
}

const RECIPE: &str = "
name = \"tiny\"
seed = 3
[data]
batch_size = 6
neural_batch_size = 8
[model]
vgg_type = \"bn 8 M 16 M 16 M\"
v1_model_layer = 8
hidden = 32
[schedule]
max_iter = 2
";

#[test]
fn a_run_is_the_same_wherever_its_batches_are_made() {
    let dir = shards();
    fs::write(dir.path().join("tiny.toml"), RECIPE).unwrap();
    let train = |out: &str, resident: &str, set: &[&str]| {
        let mut command = nct(dir.path());
        command.args(["train", "--device", "cpu", "--config", "tiny.toml", "--out", out]);
        command.args(["--set", &format!("loader.resident=\"{resident}\"")]);
        command.args(set.iter().flat_map(|set| ["--set", set]));
        command
    };
    for out in ["on", "off"] {
        succeed(&mut train(out, out, &[]));
    }
    let end = |out: &str| {
        let run = only_run(dir.path(), out);
        ["last", "best"].map(|name| fs::read(run.join(format!("checkpoints/{name}.safetensors"))).unwrap())
    };
    assert!(end("on") == end("off"), "weights differ");
    // By a part of the data.
    let less = ["data.frac=0.5", "data.neural_frac=0.25"];
    let (half_on, half_off) = ("half-on", "half-off");
    succeed(&mut train(half_on, "on", &less));
    succeed(&mut train(half_off, "off", &less));
    assert!(end(half_on) == end(half_off) && end(half_on) != end("on"), "weights differ");
    let told = stderr(&output(&mut train("refused", "on", &["data.neural_frac=0.0"])));
    assert!(told.contains("data.neural_frac: expected a share above 0 and up to 1"), "{told}");

    let corrupted = "data.augment.distort={kinds=[\"fog\"]}";
    let refused = output(&mut train("refused", "on", &[corrupted]));
    assert_eq!(refused.status.code(), Some(2));
    let told = stderr(&refused);
    for word in ["loader.resident", "tiny-imagenet-200", "corrupted", "auto"] {
        assert!(told.contains(word), "{told}");
    }
}

#[test]
fn readouts_start_from_the_mean_responses_of_the_trials_that_are_trained_on() {
    let dir = shards();
    let set = ShardSet::open(&dir.path().join("shards")).unwrap();
    let starts = |frac: &str| {
        let experiment = Experiment::parse(frac, "x", &[]).unwrap();
        let data = Data::open(&experiment, &set).unwrap();
        let sources = data.sources(Split::Train).unwrap();
        let info = data.info(&sources).unwrap();
        let own: Vec<_> = sources[..2].iter().map(Source::mean_response).collect();
        (info.sessions.into_iter().map(|session| session.mean_response).collect::<Vec<_>>(), own)
    };
    let (all, (few, of_few)) = (starts("").0, starts("[data]\nneural_frac = 0.3\n"));
    assert!(few == of_few && few != all, "{few:?} {all:?}");
    assert_eq!(starts("[data]\nneural_frac = 1.0\n").0, all);
}
