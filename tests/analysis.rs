//! Reconstructions, most exciting images and representational similarity, by the real binary on real runs.

use crate::common::{SMALL, nct, only_run, output, python, shards, stderr, succeed};
use nct::analysis::content::{Plane, spectrum_slope};
use nct::base::Split;
use nct::corruption::{Corruption, Severity};
use nct::load::{AugmentSettings, DistortSettings, Loader, LoaderOptions, Pixels, Source, View};
use nct::model::weights::Weights;
use nct::schedule::{Mix, Schedule, StreamSpec};
use nct::shard::ShardSet;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tch::{Kind, Tensor};

/// Shards, and a run in each of `a/` and `b/`.
fn runs() -> tempfile::TempDir {
    let dir = shards();
    fs::write(dir.path().join("small.toml"), SMALL).unwrap();
    for (out, seed) in [("a", "1"), ("b", "2")] {
        let seed = format!("seed={seed}");
        let args =
            ["train", "--config", "small.toml", "--set", &seed, "--out", out, "--device", "cpu", "--quiet"];
        succeed(nct(dir.path()).args(args));
    }
    dir
}

/// `--name a=RUN` arguments of both runs.
fn both(dir: &Path) -> [String; 2] {
    ["a", "b"].map(|name| format!("{name}={}", only_run(dir, name).display()))
}

fn rows(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn real(row: &Value, key: &str) -> f64 {
    row[key].as_f64().unwrap_or_else(|| panic!("{key}: {row}"))
}

/// Image by image, in `comparison.jsonl`.
fn the_second_is_compared_with_the_first(root: &Path) {
    let compared = rows(&root.join("comparison.jsonl"));
    let content = compared.iter().find(|row| row["metric"] == "content_minus_noise").unwrap();
    assert_eq!(
        (&content["model"], &content["baseline"], &content["images"]),
        (&"b".into(), &"a".into(), &3.into())
    );
    let salient = compared.iter().find(|row| row["metric"] == "saliency_of_difference").unwrap();
    assert!(
        salient["baseline_mean"].is_null() && real(salient, "mean") == real(salient, "difference"),
        "{salient}"
    );
}

#[test]
fn reconstructions_are_found_measured_compared_and_shown() {
    let dir = runs();
    let [a, b] = both(dir.path());
    let args = "--layer bn2_1 --images 0,3,5 --noise 0.3 --budgets 10,60 --seeds 1,2 --steps 60 --lr 1000 --out rec --json";
    let out = succeed(nct(dir.path()).args(["reconstruct", &a, &b, "--device", "cpu"]).args(args.split(' ')));
    let root = dir.path().join("rec");
    let metrics = rows(&root.join("metrics.jsonl"));
    assert_eq!((metrics.len(), out.lines().count()), (2 * 3 * 2 * 2, 24));
    let trajectory = rows(&root.join("trajectory.jsonl"));
    let images = Weights::read(&root.join("images.safetensors")).unwrap();
    // And of each network, each image as it is and with noise.
    assert_eq!(images.tensors.len(), 24 + 2 * 3 * 2);
    assert!(!root.join("activity.safetensors").exists());
    for row in &metrics {
        let (norm, budget) = (real(row, "norm"), real(row, "budget"));
        assert!(norm <= budget * 1.0001, "{row}");
        let same = |of: &&Value| ["model", "image", "budget", "seed"].iter().all(|key| of[*key] == row[*key]);
        let steps: Vec<&Value> = trajectory.iter().filter(same).collect();
        assert_eq!(steps.len(), 6);
        // The first is of an image that does not keep the constraint yet.
        assert!(real(row, "objective") > real(steps[1], "objective"), "{row}");
        assert!(real(row, "objective") >= real(row, "objective_before_last_step") - 0.05, "{row}");
        assert!((0.0..=1.0).contains(&real(row, "content_share")) && real(row, "ssim") <= 1.0, "{row}");
        assert!(
            (real(row, "content_minus_noise")
                - (real(row, "content_correlation") - real(row, "noise_correlation")))
            .abs()
                < 1e-12
        );
        let model = row["model"].as_str().unwrap();
        let name = format!("{model} budget {budget} seed {} image {}", row["seed"], row["image"]);
        let (_, image) = images.tensors.iter().find(|(own, _)| *own == name).unwrap();
        let slope = spectrum_slope(&Plane::of(image).unwrap()).unwrap();
        assert!((real(row, "spectrum_slope") - slope).abs() < 1e-9, "{row}: {slope}");
        assert_eq!(row["saliency"], "spectral_residual");
        // Of the second network only, and of what it does not share with the first.
        let own = row["saliency_of_difference"].as_f64();
        assert_eq!(own.is_some(), row["model"] == "b", "{row}");
        assert!(own.is_none_or(|v| v.abs() < 1.0 && v != real(row, "saliency_correlation")), "{row}");
        assert!(root.join(row["picture"].as_str().unwrap()).is_file());
    }
    let mean = |budget: f64| {
        let of: Vec<f64> =
            metrics.iter().filter(|r| r["budget"] == budget).map(|r| real(r, "objective")).collect();
        of.iter().sum::<f64>() / of.len() as f64
    };
    assert!(mean(60.0) > mean(10.0), "a larger norm matches better: {} {}", mean(60.0), mean(10.0));
    the_second_is_compared_with_the_first(&root);
    assert!(!root.join(".search").exists());
    // All of it is in a report, each number a mark.
    let args = ["report", "--runs", ".", "--out", "page.html", "--analysis", "rec"];
    succeed(nct(dir.path()).args(args).arg(only_run(dir.path(), "a")));
    let page = fs::read_to_string(dir.path().join("page.html")).unwrap();
    for name in ["reconstructions", "fidelity", "content", "bands", "saliency", "comparison", "searches"] {
        let section = page.split(&format!("<section id=\"rec-{name}\"")).nth(1).unwrap();
        let section = section.split("</section>").next().unwrap();
        let numbers = fs::read_to_string(root.join(format!("figures/{name}.csv"))).unwrap();
        let (marks, lines) = (section.matches("class=\"mark\"").count(), numbers.lines().count() - 1);
        assert!(marks > 3 && marks == lines, "{name}: {marks} marks, {lines} rows");
        assert!(root.join(format!("figures/{name}.png")).is_file());
    }
    let args = ["plot", "--runs", ".", "--out", "figures", "--only", "rec-content", "--analysis", "rec"];
    succeed(nct(dir.path()).args(args).arg(only_run(dir.path(), "a")));
    assert!(dir.path().join("figures/rec-content.svg").is_file());
    // Another folder of the same name has figures of its own.
    let other = dir.path().join("other");
    fs::create_dir(&other).unwrap();
    succeed(std::process::Command::new("cp").args(["-r", "rec", "other/rec"]).current_dir(dir.path()));
    let args =
        ["plot", "--runs", ".", "--out", "figures", "--only", "rec-content", "--only", "rec-2-content"];
    let analyses = ["--analysis", "rec", "--analysis", "other/rec"];
    succeed(nct(dir.path()).args(args).args(analyses).arg(only_run(dir.path(), "a")));
    assert!(dir.path().join("figures/rec-2-content.svg").is_file());
}

#[test]
fn corrupted_images_and_supplied_saliency_are_taken() {
    let dir = runs();
    let [a, _] = both(dir.path());
    let maps = dir.path().join("maps");
    fs::create_dir(&maps).unwrap();
    for image in [1, 4] {
        // Half of the image, at twice its resolution.
        let pixels: Vec<u8> = (0..128 * 128).map(|i| if i % 128 < 64 { 200 } else { 0 }).collect();
        let picture = nct::figure::Picture { extent: [128, 128], pixels, value: 0.0 };
        fs::write(maps.join(format!("{image}.png")), picture.png(1).unwrap()).unwrap();
    }
    let args = "--layer conv2_1 --images 1,4 --corruption fog-3 --budgets 30 --steps 20 --saliency maps --out rec --quiet";
    succeed(nct(dir.path()).args(["reconstruct", &a, "--device", "cpu"]).args(args.split(' ')));
    let metrics = rows(&dir.path().join("rec/metrics.jsonl"));
    assert!(metrics.iter().all(|row| row["disturbance"] == "fog-3" && row["saliency"] == "maps"));
    assert!(metrics.iter().all(|row| real(row, "saliency_correlation").abs() <= 1.0));
    let out = output(
        nct(dir.path())
            .args(["reconstruct", &a, "--device", "cpu", "--saliency", "maps", "--out", "other"])
            .args(["--layer", "conv2_1", "--images", "2", "--steps", "2"]),
    );
    assert_eq!(out.status.code(), Some(2));
    assert!(stderr(&out).contains("2.png"), "{}", stderr(&out));
}

/// The labelled test images of a data set, as batches of an evaluation have them.
fn evaluated(dir: &Path, dataset: &str, view: &View) -> Tensor {
    let shards = ShardSet::open(&dir.join("shards")).unwrap();
    let source = Source::images(shards.dataset(dataset).unwrap(), Split::Test, view).unwrap();
    let stream = StreamSpec::new(source.task, source.n_records(), 5);
    let schedule = Arc::new(Schedule::new(vec![stream], Mix::InOrder, 0).unwrap());
    let (sources, steps) = (Arc::new(vec![source]), 0..schedule.steps_per_epoch());
    let mut all = Vec::new();
    for step in Loader::start(&sources, &schedule, 0, steps, LoaderOptions::default()).unwrap() {
        for batch in &step.unwrap().batches {
            let Pixels::F32(pixels) = &batch.pixels else { panic!("no normalised pixels") };
            let [channels, height, width] = batch.image.map(i64::from);
            all.push(Tensor::from_slice(pixels).view([-1, channels, height, width]));
        }
    }
    Tensor::cat(&all, 0)
}

/// How the images of a data set are normalised by its own statistics.
fn statistics(dir: &Path, dataset: &str) -> View {
    let shards = ShardSet::open(&dir.join("shards")).unwrap();
    let manifest = shards.dataset(dataset).unwrap().manifest();
    View::new(manifest.mean.clone(), manifest.std.clone())
}

fn tensors(path: &Path) -> BTreeMap<String, Tensor> {
    Weights::read(path).unwrap().tensors.into_iter().collect()
}

#[test]
fn what_is_shown_is_what_evaluations_show_and_is_kept() {
    let dir = runs();
    let [a, _] = both(dir.path());
    let own = statistics(dir.path(), "tiny-imagenet-200");
    let clean = evaluated(dir.path(), "tiny-imagenet-200", &own);
    for profile in ["i", "t"] {
        let args =
            format!("--corruption gaussian_noise-2 --profile {profile} --seeds 5 --activity --out {profile}");
        let search = "--layer conv1_1 --images 1,4 --budgets 20 --steps 2 --device cpu --quiet";
        succeed(nct(dir.path()).args(["reconstruct", &a]).args(args.split(' ')).args(search.split(' ')));
        let severity = Severity::new(2).unwrap();
        let distort =
            DistortSettings::fixed(Corruption::GaussianNoise, profile.parse().unwrap(), severity, 5);
        let augment = AugmentSettings { distort: Some(distort), ..AugmentSettings::NONE };
        let worse = evaluated(dir.path(), "tiny-imagenet-200", &View { augment, ..own.clone() });
        let root = dir.path().join(profile);
        let images = tensors(&root.join("images.safetensors"));
        let activity = tensors(&root.join("activity.safetensors"));
        assert_eq!((images.len(), activity.len()), (6, 4));
        for row in [1, 4] {
            assert_eq!(images[&format!("a clean image {row}")], clean.get(row));
            assert_eq!(images[&format!("a target image {row}")], worse.get(row), "profile {profile}");
        }
        for row in rows(&root.join("metrics.jsonl")) {
            let image = row["image"].as_u64().unwrap();
            let wanted = &activity[&format!("a target image {image}")];
            let found = &activity[&format!("a budget 20 seed 5 image {image}")];
            let squares = |t: Tensor| t.square().sum(Kind::Double).double_value(&[]);
            let error = squares(found - wanted) / squares(wanted - wanted.mean(Kind::Float));
            assert!((error / real(&row, "response_error") - 1.0).abs() < 1e-4, "{row}");
        }
    }
    another_set_is_normalised_as_the_runs_own(dir.path(), &a);
}

/// As `nct eval --images` does.
fn another_set_is_normalised_as_the_runs_own(dir: &Path, run: &str) {
    let sizes = "--classes 3 --per-class 8 --val-per-class 2 --neural-images 20 --seed 9";
    succeed(nct(dir).args(["synth", "new"]).args(sizes.split(' ')));
    fs::create_dir(dir.join("more")).unwrap();
    fs::rename(dir.join("new/tiny-imagenet-200"), dir.join("more/other")).unwrap();
    succeed(nct(dir).args(["prepare", "more", "--color", "gray"]));
    let trained = statistics(dir, "tiny-imagenet-200");
    assert_ne!(trained.mean, statistics(dir, "other").mean);
    let args = "--dataset other --layer conv1_1 --images 0 --budgets 20 --steps 1 --out other-set --quiet --device cpu";
    succeed(nct(dir).args(["reconstruct", run]).args(args.split(' ')));
    let images = tensors(&dir.join("other-set/images.safetensors"));
    assert_eq!(images["a clean image 0"], evaluated(dir, "other", &trained).get(0));
}

#[test]
fn a_network_that_sees_one_channel_is_searched_in_one() {
    let dir = shards();
    let recipe = r#"
[data]
images = ""
neural = "mtl_monkey_dataset"
neural_batch_size = 12
[mix]
kind = "long"
[model.se]
layers = 2
hidden_channels = 4
input_kern = 9
hidden_kern = 3
se_reduction = 1
[loss]
neural = "PoissonLoss"
loss_weighing = false
avg_loss = false
[optimizer]
kind = "adam"
lr = 1e-3
[schedule]
scheduler = "none"
max_iter = 1
to_monitor = ["v1"]
"#;
    fs::write(dir.path().join("se.toml"), recipe).unwrap();
    succeed(nct(dir.path()).args("train --config se.toml --out se --device cpu --quiet".split(' ')));
    let run = format!("se={}", only_run(dir.path(), "se").display());
    let search = "--images 3 --layer core.features.layer0 --device cpu --steps 1 --constraint none";
    // One step along the gradient, so short that the objective changes by the square of its length.
    let step = "--start zero --blur 0 --lr 1 --json --quiet --out rec";
    let row =
        nct(dir.path()).args(["reconstruct", &run]).args(search.split(' ')).args(step.split(' ')).output();
    let row = row.unwrap();
    assert!(row.status.success(), "{}", stderr(&row));
    let row: Value = serde_json::from_slice(&row.stdout).unwrap();
    let norm = tensors(&dir.path().join("rec/images.safetensors"))["se budget 0 seed 1000 image 3"].norm();
    assert!((norm.double_value(&[]) / real(&row, "norm") - 1.0).abs() < 1e-5, "{row}");
    let change = real(&row, "objective") - real(&row, "objective_before_last_step");
    assert!((change / real(&row, "norm").powi(2) - 1.0).abs() < 0.2, "{row}");
    for wide in [&["--channels", "free"][..], &["--as-reference"]] {
        let images = ["--images", "3", "--layer", "core.features.layer0", "--out", "wide", "--device", "cpu"];
        let out = output(nct(dir.path()).args(["reconstruct", &run]).args(images).args(wide));
        assert_eq!(out.status.code(), Some(2), "{}", stderr(&out));
        assert!(stderr(&out).contains("one gray channel"), "{}", stderr(&out));
    }
    let manifest = fs::read(dir.path().join("shards/mtl_monkey_dataset/manifest.json")).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    let session = manifest["sessions"][0]["id"].as_str().unwrap();
    let mei = "--neuron 0 --norm 10 --steps 30 --json --quiet --device cpu --out mei";
    let row = succeed(nct(dir.path()).args(["mei", &run, "--session", session]).args(mei.split(' ')));
    let row: Value = serde_json::from_str(row.trim()).unwrap();
    let image = &Weights::read(&dir.path().join("mei/images.safetensors")).unwrap().tensors[0].1;
    assert!((image.norm().double_value(&[]) / real(&row, "norm") - 1.0).abs() < 1e-5, "{row}");
}

#[test]
fn the_references_settings_make_5001_steps_and_501_entries() {
    let dir = runs();
    let [a, _] = both(dir.path());
    let args = "--layer features.0 --images 0 --budgets 20 --as-reference --out rec --quiet --json";
    let out = succeed(nct(dir.path()).args(["reconstruct", &a, "--device", "cpu"]).args(args.split(' ')));
    let row: Value = serde_json::from_str(out.trim()).unwrap();
    assert_eq!((&row["steps"], &row["seed"]), (&5001.into(), &1000.into()));
    assert!((real(&row, "norm") - 20.0).abs() < 1e-3, "on the sphere");
    let trajectory = rows(&dir.path().join("rec/trajectory.jsonl"));
    assert_eq!((trajectory.len(), &trajectory[500]["step"]), (501, &5000.into()));
    let image = &Weights::read(&dir.path().join("rec/images.safetensors")).unwrap().tensors[0].1;
    assert_eq!(image.size(), [3, 64, 64]);
    let apart = (image.get(0) - image.get(1)).abs().max().double_value(&[]);
    assert!(apart > 0.0, "channels are free");
}

#[test]
fn a_search_that_was_killed_goes_on_to_the_same_bytes() {
    let dir = runs();
    let [a, b] = both(dir.path());
    let args = |out: &str| {
        let mut command = nct(dir.path());
        let steps = "--layer conv2_1 --images 0,1 --budgets 20 --steps 600 --batch 1 --device cpu --quiet";
        command.args(["reconstruct", &a, &b, "--out", out]).args(steps.split(' '));
        command
    };
    succeed(&mut args("whole"));
    // Four searches, one after another; a file is written when one is done, or asked to end.
    let kept = dir.path().join("parts/.search");
    for (signal, file) in [("-INT", ""), ("-KILL", "0-1.safetensors"), ("-KILL", "1-0.safetensors")] {
        let mut child = args("parts").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_mins(5);
        while !kept.join(file).exists() && Instant::now() < deadline && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(2));
        }
        std::process::Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
        assert!(!child.wait().unwrap().success(), "it ended before {signal} after {file:?}");
    }
    succeed(&mut args("parts"));
    for file in ["images.safetensors", "trajectory.csv", "metrics.csv", "figures/reconstructions.svg"] {
        let [one, other] =
            ["whole", "parts"].map(|folder| fs::read(dir.path().join(folder).join(file)).unwrap());
        assert!(one == other, "{file} differs");
    }
}

#[test]
fn what_excites_most_excites_more_than_images_do() {
    let dir = runs();
    let [a, _] = both(dir.path());
    let manifest = fs::read_to_string(dir.path().join("shards/mtl_monkey_dataset/manifest.json")).unwrap();
    let manifest: Value = serde_json::from_str(&manifest).unwrap();
    let session = manifest["sessions"][0]["id"].as_str().unwrap().to_owned();
    let args = [
        "mei",
        &a,
        "--session",
        &session,
        "--neuron",
        "0,2,4",
        "--steps",
        "150",
        "--device",
        "cpu",
        "--json",
    ];
    let out = succeed(nct(dir.path()).args(args).args(["--seeds", "1,2", "--out", "mei", "--quiet"]));
    let found: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(found.len(), 6);
    for row in &found {
        assert!(
            real(row, "norm") <= 40.001 && real(row, "best_response") >= real(row, "mean_response"),
            "{row}"
        );
        assert!(real(row, "response") > real(row, "mean_response"), "{row}");
    }
    let least =
        ["mei", &a, "--session", &session, "--neuron", "0", "--steps", "150", "--device", "cpu", "--json"];
    let out = succeed(nct(dir.path()).args(least).args(["--least", "--out", "least", "--quiet"]));
    let row: Value = serde_json::from_str(out.trim()).unwrap();
    assert!(real(&row, "response") < real(&found[0], "response"), "{row}");
    // With parts of one's own: images of one neuron that differ from each other.
    let settings = r#"
        initial = { kind = "normal" }
        transform = [{ kind = "jitter", max = [2, 2] }]
        regularizer = [{ kind = "similarity", metric = "cosine", weight = 5.0 }, { kind = "total_variation", weight = 1e-3 }]
        precondition = [{ kind = "fourier_smoothing", exponent = 0.04 }, { kind = "divide_by_mean_of_absolute" }]
        projection = [{ kind = "clip_range", low = -2.0, high = 2.0 }]
        optimizer = { kind = "adam", lr = 0.05 }
        stop = { kind = "steps", n = 40 }
    "#;
    fs::write(dir.path().join("walker.toml"), settings).unwrap();
    let own =
        ["mei", &a, "--session", &session, "--neuron", "1", "--seeds", "1,2,3", "--settings", "walker.toml"];
    succeed(nct(dir.path()).args(own).args(["--out", "own", "--quiet", "--device", "cpu"]));
    let images = Weights::read(&dir.path().join("own/images.safetensors")).unwrap();
    assert_eq!(images.tensors.len(), 3);
    assert!(images.tensors.iter().all(|(_, t)| t.abs().max().double_value(&[]) <= 2.0));
    the_image_is_what_the_network_saw(dir.path(), &a, &session);
    fs::write(dir.path().join("walker.toml"), settings.replace("jitter", "jiter")).unwrap();
    let out = output(nct(dir.path()).args(own).args(["--out", "bad", "--quiet"]));
    assert_eq!(out.status.code(), Some(2));
    assert!(stderr(&out).contains("walker.toml") && stderr(&out).contains("jiter"), "{}", stderr(&out));
}

/// After a transformation that keeps pixels where they are.
fn the_image_is_what_the_network_saw(dir: &Path, run: &str, session: &str) {
    let settings = r#"
        initial = { kind = "normal" }
        transform = [{ kind = "change_range", low = -0.5, high = 0.5 }]
        optimizer = { kind = "sgd", lr = 0.01 }
        stop = { kind = "steps", n = 3 }
    "#;
    fs::write(dir.join("range.toml"), settings).unwrap();
    let args = "--neuron 0 --settings range.toml --norm 500 --out range --quiet --json --device cpu";
    let row = succeed(nct(dir).args(["mei", run, "--session", session]).args(args.split(' ')));
    let image = &Weights::read(&dir.join("range/images.safetensors")).unwrap().tensors[0].1;
    assert!(image.abs().max().double_value(&[]) <= 0.5);
    let row: Value = serde_json::from_str(row.trim()).unwrap();
    let own = image.norm().double_value(&[]) * 3f64.sqrt();
    assert!(real(&row, "norm") > 1.5 * own, "the constraint is on what is searched: {row}");
}

#[test]
fn similarities_are_those_of_numpy() {
    let dir = runs();
    let [a, b] = both(dir.path());
    for (i, (how, compared)) in
        [("correlation", "spearman"), ("cosine", "pearson"), ("euclidean", "kendall")].into_iter().enumerate()
    {
        let out = format!("rsa{i}");
        let args = ["rsa", &a, &b, "--layers", "conv1_1,relu2_1", "--responses", "--split", "train"];
        let more = ["--bootstrap", "30", "--activity", "--device", "cpu", "--quiet", "--out", &out];
        let kinds = ["--dissimilarity", how, "--comparison", compared];
        succeed(nct(dir.path()).args(args).args(more).args(kinds));
        let root = dir.path().join(&out);
        let pairs = rows(&root.join("metrics.jsonl"));
        assert_eq!(pairs.len(), 10, "five representations");
        assert!(!root.join("stability.csv").exists(), "no noise was asked for");
        for row in &pairs {
            assert!(real(row, "rsa_low") <= real(row, "rsa_high") && real(row, "cka") <= 1.0 + 1e-9, "{row}");
        }
        let listed = rows(&root.join("rdms.jsonl"));
        assert_eq!(listed.last().unwrap()["representation"], "recorded");
        // Four layers beside what was recorded, in both measures.
        let recorded = fs::read_to_string(root.join("figures/recorded.csv")).unwrap();
        assert!(recorded.lines().filter(|line| line.contains("relu2_1")).count() >= 4, "{recorded}");
        let about: Value = serde_json::from_slice(&fs::read(root.join("analysis.json")).unwrap()).unwrap();
        let in_order = |key: &Value| {
            let mut rows: Vec<u64> =
                key.as_array().unwrap().iter().map(|row| row.as_u64().unwrap()).collect();
            rows.sort_unstable();
            rows
        };
        assert_eq!(in_order(&about["rows"]), in_order(&about["settings"]["images"]));
        let rdms = Weights::read(&root.join("rdms.safetensors")).unwrap();
        assert!(rdms.tensors.iter().all(|(_, t)| t.kind() == Kind::Double && t.size()[0] == t.size()[1]));
        let Some(out) = python("rsa.py", "numpy", &[root.to_str().unwrap()]) else { continue };
        let worst: BTreeMap<String, f64> = serde_json::from_slice(&out.stdout).unwrap();
        assert!(worst["rsa"] < 1e-6 && worst["cka"] < 1e-6 && worst["dissimilarities"] < 1e-6, "{worst:?}");
    }
}

#[test]
fn stability_under_noise_is_that_of_numpy() {
    let dir = runs();
    let [a, b] = both(dir.path());
    let args = ["rsa", &a, &b, "--layers", "conv1_1,relu2_1", "--n-images", "12", "--bootstrap", "0"];
    let more = ["--noise", "0.05,0.5", "--repeats", "3", "--device", "cpu", "--quiet"];
    succeed(nct(dir.path()).args(args).args(more).args(["--activity", "--out", "noise"]));
    let root = dir.path().join("noise");
    let all = rows(&root.join("stability.jsonl"));
    assert_eq!(all.len(), 2 * 2 * 9, "networks, layers, pairs of strengths");
    let value = |row: &Value, a: f64, b: f64| {
        let of = |other: &&Value| {
            other["model"] == row["model"]
                && other["layer"] == row["layer"]
                && real(other, "a") == a
                && real(other, "b") == b
        };
        real(all.iter().find(of).unwrap(), "cka")
    };
    for row in &all {
        let (a, b, cka) = (real(row, "a"), real(row, "b"), real(row, "cka"));
        assert!((0.0..=1.0 + 1e-12).contains(&cka) && (cka - value(row, b, a)).abs() < 1e-12, "{row}");
        assert!(value(row, 0.0, 0.0) > 1.0 - 1e-12 && value(row, 0.0, 0.05) > value(row, 0.0, 0.5), "{row}");
        assert!(value(row, 0.5, 0.5) < 1.0 - 1e-9, "draws are different ones: {row}");
    }
    let figure = fs::read_to_string(root.join("figures/stability.csv")).unwrap();
    let svg = fs::read_to_string(root.join("figures/stability.svg")).unwrap();
    assert_eq!(figure.lines().count() - 1, svg.matches("class=\"mark\"").count());
    assert_eq!(figure.lines().count() - 1, 2 * 2 * (1 + 3));
    // The same command does nothing; without noise it is another analysis.
    let again = output(nct(dir.path()).args(args).args(&more[..6]).args(["--activity", "--out", "noise"]));
    assert!(stderr(&again).contains("was done before"), "{}", stderr(&again));
    let other = output(nct(dir.path()).args(args).args(["--device", "cpu", "--activity", "--out", "noise"]));
    assert_eq!(other.status.code(), Some(2));
    for bad in ["0", "-1", "0.1,0.1", "inf"] {
        let out = output(nct(dir.path()).args(args).args([&format!("--noise={bad}"), "--out", "bad"]));
        assert_eq!(out.status.code(), Some(2), "{bad}");
        assert!(
            stderr(&out).contains("standard deviations") && !dir.path().join("bad").exists(),
            "{}",
            stderr(&out)
        );
    }
    let Some(out) = python("rsa.py", "numpy", &[root.to_str().unwrap()]) else { return };
    let worst: BTreeMap<String, f64> = serde_json::from_slice(&out.stdout).unwrap();
    assert!(worst["stability"] < 1e-6 && worst["cka"] < 1e-6, "{worst:?}");
}

#[test]
fn what_cannot_be_done_is_told_with_the_way_out() {
    let dir = runs();
    let [a, _] = both(dir.path());
    let fails = |args: &[&str], words: &[&str]| {
        let out = output(nct(dir.path()).args(args).args(["--device", "cpu"]));
        assert_eq!(out.status.code(), Some(2), "{args:?}: {}", stderr(&out));
        for word in words {
            assert!(stderr(&out).contains(word), "{args:?}: {word}: {}", stderr(&out));
        }
    };
    let quick = ["--steps", "3", "--budgets", "10"];
    let with = |args: &[&'static str]| -> Vec<String> {
        ["reconstruct", &a]
            .iter()
            .copied()
            .chain(args.iter().copied())
            .chain(quick)
            .map(str::to_owned)
            .collect()
    };
    let strs = |args: &[String]| args.iter().map(String::as_str).collect::<Vec<&str>>().join("\u{1}");
    let check = |args: &[&'static str], words: &[&str]| {
        let all = strs(&with(args));
        fails(&all.split('\u{1}').collect::<Vec<&str>>(), words);
    };
    check(&["--layer", "conv9_9", "--out", "x"], &["conv9_9", "conv2_1", "N501"]);
    check(&["--layer", "conv1_1", "--images", "100000", "--out", "x"], &["100000", "test split"]);
    check(&["--layer", "conv1_1", "--dataset", "other", "--out", "x"], &["other"]);
    check(&["--layer", "conv1_1", "--noise", "0", "--out", "x"], &["--noise"]);
    check(&["--layer", "conv1_1", "--constraint", "none", "--out", "x"], &["--budgets", "no norm"]);
    let any =
        ["reconstruct", &a, "--layer", "conv1_1", "--constraint", "none", "--lr", "1e30", "--steps", "3"];
    fails(&[&any[..], &["--out", "y"]].concat(), &["N762", "learning rate"]);
    let twice = ["reconstruct", &a, &a, "--layer", "conv1_1", "--out", "x"];
    fails(&twice, &["two networks", "one=RUN"]);
    check(&["--layer", "conv1_1", "--images", "1,2,1", "--out", "x"], &["--images names 1 twice"]);
    let all = ["reconstruct", &a, "--layer", "conv1_1", "--out", "x", "--blur", "30"];
    fails(&all, &["GaussianBlur", "N761"]);
    assert!(!dir.path().join("x").exists(), "nothing is left");
    succeed(
        nct(dir.path())
            .args(["reconstruct", &a, "--layer", "conv1_1", "--out", "z", "--device", "cpu"])
            .args(quick),
    );
    check(&["--layer", "conv2_1", "--out", "z"], &["another analysis", "--out"]);
    let again = nct(dir.path())
        .args(["reconstruct", &a, "--layer", "conv1_1", "--out", "z", "--device", "cpu"])
        .args(quick)
        .output();
    assert!(stderr(&again.unwrap()).contains("was done before"));
    check(&["--layer", "conv1_1", "--out", "a"], &["is not empty"]);
    fails(&["mei", &a, "--neuron", "0", "--out", "m"], &["--session"]);
    fails(
        &["rsa", &a, "--responses", "--dataset", "tiny-imagenet-200", "--out", "r"],
        &["recorded responses"],
    );
    let run = only_run(dir.path(), "a");
    let out = output(nct(dir.path()).arg("report").arg(run).args(["--analysis", "small.toml"]));
    assert_eq!(out.status.code(), Some(2));
    assert!(stderr(&out).contains("small.toml"), "{}", stderr(&out));
}
