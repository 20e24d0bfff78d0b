//! Folders and commands that several tests need.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

/// The program with its working directory in `dir`.
pub(crate) fn nct(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nct"));
    command.current_dir(dir);
    command
}

pub(crate) fn output(command: &mut Command) -> Output {
    command.output().unwrap()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs a command that must succeed, and gives its stdout.
pub(crate) fn succeed(command: &mut Command) -> String {
    let out = output(command);
    assert!(out.status.success(), "{command:?}: {}", stderr(&out));
    String::from_utf8(out.stdout).unwrap()
}

/// Small sample data in `raw/` of a new folder.
pub(crate) fn raw() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let sizes = "--classes 3 --per-class 24 --val-per-class 4 --neural-images 60 --sessions 2 --neurons 5";
    succeed(nct(dir.path()).arg("synth").arg("raw").args(sizes.split(' ')));
    dir
}

/// Small sample data and its gray shards in `shards/`.
pub(crate) fn shards() -> TempDir {
    let dir = raw();
    succeed(nct(dir.path()).args(["prepare", "raw", "--color", "gray"]));
    dir
}

/// A smooth picture of `width` x `height` that tells classes apart, as a JPEG.
fn jpeg(width: usize, height: usize, class: usize, number: usize) -> Vec<u8> {
    let value = |x: usize, y: usize, c: usize| {
        let phase = x * (1 + class) * 640 / width + y * (3 - class) * 640 / height + number * 40;
        (80.0 + 80.0 * class as f64 + 70.0 * (phase as f64 / 100.0 + c as f64).sin()) as u8
    };
    let rows = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
    let pixels: Vec<u8> = rows.flat_map(|(x, y)| [0, 1, 2].map(|c| value(x, y, c))).collect();
    let image = turbojpeg::Image {
        pixels: &pixels[..],
        width,
        pitch: 3 * width,
        height,
        format: turbojpeg::PixelFormat::RGB,
    };
    turbojpeg::compress(image, 95, turbojpeg::Subsamp::Sub2x2).unwrap().to_vec()
}

fn write(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// ImageNet's layout: pictures of many sizes, test images in class folders, one CMYK JPEG, and one PNG by a JPEG's
/// name.
pub(crate) fn imagenet() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("raw/imagenet");
    for (class, name) in ["n01440764", "n01443537"].into_iter().enumerate() {
        for i in 0..24 {
            let (width, height) = (60 + 7 * i % 50, 110 - 5 * i % 45);
            let file = root.join("train").join(name).join(format!("{name}_{i}.JPEG"));
            write(&file, &jpeg(width, height, class, i));
        }
        for i in 0..5 {
            let file = root.join("val").join(name).join(format!("ILSVRC2012_val_0000000{i}.JPEG"));
            write(&file, &jpeg(90, 61, class, 100 + i));
        }
    }
    let train = root.join("train/n01440764");
    write(&train.join("n01440764_90.JPEG"), include_bytes!("../vectors/cmyk.jpg"));
    let mut png = Vec::new();
    let mut encoder = png::Encoder::new(&mut png, 40, 50);
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header().unwrap().write_image_data(&[200; 40 * 50 * 3]).unwrap();
    write(&train.join("n01440764_91.JPEG"), &png);
    dir
}

/// A recipe of two short epochs on the small sample data.
#[cfg(feature = "torch")]
pub(crate) const SMALL: &str = r#"
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
"#;

/// The one run in folder `out`.
#[cfg(feature = "torch")]
pub(crate) fn only_run(dir: &Path, out: &str) -> PathBuf {
    let runs: Vec<PathBuf> = fs::read_dir(dir.join(out)).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(runs.len(), 1, "{runs:?}");
    runs[0].clone()
}

/// Metrics of a run, without what clocks say.
#[cfg(feature = "torch")]
pub(crate) fn metrics(run: &Path) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let line = |line: &str| {
        let mut value: serde_json::Value = serde_json::from_str(line).unwrap();
        for clocked in ["seconds", "wait_share", "samples_per_s", "update_ms"] {
            value.as_object_mut().unwrap().remove(clocked);
        }
        value
    };
    text.lines().map(line).collect()
}

/// What a script of `tools/` prints; none where Python lacks what it needs.
pub(crate) fn python(script: &str, packages: &str, args: &[&str]) -> Option<Output> {
    let python = std::env::var("NCT_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let run = |args: &[&str]| Command::new(&python).args(args).output();
    if !run(&["-c", &format!("import {packages}")]).is_ok_and(|out| out.status.success()) {
        eprintln!("skipped: {python} has not all of {packages}");
        return None;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools").join(script);
    let out = run(&[&[script.to_str().unwrap()], args].concat()).unwrap();
    assert!(out.status.success(), "{}", stderr(&out));
    Some(out)
}

/// All files below `root` with their contents, sorted.
pub(crate) fn files(root: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(root).unwrap().to_path_buf();
                found.push((name, fs::read(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

/// Puts smooth pictures with a little noise, on which the row filter gains as on photographs, in the place of the
/// sample images, which are mostly noise.
pub(crate) fn smooth_images(folder: &Path) {
    let jpegs = files(folder).into_iter().filter(|(name, _)| name.extension().is_some_and(|e| e == "JPEG"));
    for (i, (name, _)) in jpegs.enumerate() {
        let wave = |k: usize, at: usize| ((at as f64) * (0.05 + 0.02 * ((i + k) % 7) as f64)).sin();
        let value = |p: usize| {
            let (x, y, c) = (p / 3 % 64, p / 192, p % 3);
            let noise = (nct::base::rng::mix64((i * 64 * 192 + p) as u64) % 13) as f64;
            (122.0 + 55.0 * wave(c, x) + 60.0 * wave(2 * c + 1, y) + noise) as u8
        };
        let pixels: Vec<u8> = (0..64 * 64 * 3).map(value).collect();
        let format = turbojpeg::PixelFormat::RGB;
        let image = turbojpeg::Image { pixels: &pixels[..], width: 64, pitch: 192, height: 64, format };
        let jpeg = turbojpeg::compress(image, 95, turbojpeg::Subsamp::None).unwrap();
        fs::write(folder.join(name), &jpeg[..]).unwrap();
    }
}

/// What `nct inspect` says of the shards in `dir`.
pub(crate) fn inspect(dir: &Path) -> Vec<serde_json::Value> {
    let text = succeed(nct(dir).args(["inspect", "shards", "--json"]));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
