//! Evaluating a run as a user does.

mod corruptions;

use crate::common::{files, imagenet, nct, output, raw, shards, stderr, succeed};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// A tiny network on the small sample data.
const TINY: &str = "
name = \"tiny\"
seed = 3
[data]
batch_size = 8
neural_batch_size = 8
[model]
vgg_type = \"bn 8 M 16 M 16 M\"
v1_model_layer = 8
hidden = 32
[loss]
loss_weighing = false
[optimizer]
kind = \"sgd\"
lr = 0.02
[schedule]
max_iter = 2
";

/// Trains, and gives the run's folder relative to `dir`.
fn train(dir: &Path, out: &str, set: &[&str]) -> String {
    fs::write(dir.join("tiny.toml"), TINY).unwrap();
    let mut command = nct(dir);
    command.args(["train", "--device", "cpu", "--config", "tiny.toml", "--out", out]);
    succeed(command.args(set.iter().flat_map(|s| ["--set", s])));
    let run = fs::read_dir(dir.join(out)).unwrap().next().unwrap().unwrap().file_name();
    format!("{out}/{}", run.to_str().unwrap())
}

/// The rows that `nct eval` prints.
fn eval(dir: &Path, run: &str, args: &[&str]) -> Vec<Value> {
    let mut command = nct(dir);
    let rows = succeed(command.args(["eval", run, "--json", "--device", "cpu"]).args(args));
    rows.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Metrics of whole tasks, by evaluation and metric.
fn whole<'a>(rows: &'a [Value], mode: &str) -> BTreeMap<&'a str, f64> {
    let part = |row: &Value| ["session", "neuron", "class"].iter().any(|key| !row[key].is_null());
    let of_mode = rows.iter().filter(|row| row["mode"] == mode && !part(row));
    of_mode.map(|row| (row["metric"].as_str().unwrap(), row["value"].as_f64().unwrap())).collect()
}

#[test]
fn neither_batch_size_nor_threads_change_scores() {
    let dir = shards();
    let run = train(dir.path(), "runs", &[]);
    let scored = |batch_size: &str, threads: &str| -> Vec<Value> {
        let mut command = nct(dir.path());
        command.env("OMP_NUM_THREADS", threads).args(["eval", &run, "--json", "--device", "cpu"]);
        command.args([
            "--suite",
            "all",
            "--corruptions",
            "fog",
            "--severities",
            "1",
            "--per-neuron",
            "--per-class",
            "--per-session",
        ]);
        command.args(["--batch-size", batch_size, "--threads", threads]);
        succeed(&mut command).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let first = scored("7", "1");
    assert!(first.len() > 500, "{}", first.len());
    for (batch_size, threads) in [("64", "1"), ("7", "4"), ("64", "4")] {
        let second = scored(batch_size, threads);
        assert_eq!(first.len(), second.len());
        for (a, b) in first.iter().zip(&second) {
            let key = |row: &Value| {
                let mut key = row.clone();
                key["value"] = json!(null);
                key
            };
            assert_eq!(key(a), key(b));
            let [x, y] = [a, b].map(|row| row["value"].as_f64().unwrap());
            let count = ["samples", "correct", "repeated_images", "feve_neurons"];
            let exact = count.contains(&a["metric"].as_str().unwrap());
            let near = if exact { x == y } else { (x - y).abs() <= 1e-6 * y.abs().max(1.0) };
            assert!(near, "{a} with 7 images a batch, {y} with {batch_size} on {threads} threads");
        }
    }
}

#[test]
fn the_final_evaluations_are_those_of_the_reference_and_noise_is_the_same_every_time() {
    let dir = shards();
    let run = train(dir.path(), "runs", &[]);
    let all = "--suite all --corruptions fog --severities 1 --split train --split validation --split test";
    let all: Vec<&str> = all.split(' ').collect();
    let rows = eval(dir.path(), &run, &all);
    assert_eq!(rows, eval(dir.path(), &run, &all));
    let mut modes: Vec<(&str, &str)> = Vec::new();
    for row in rows.iter().filter(|row| row["suite"] != "clean" && row["suite"] != "corruptions") {
        let mode = (row["task"].as_str().unwrap(), row["mode"].as_str().unwrap());
        if modes.last() != Some(&mode) {
            modes.push(mode);
        }
    }
    let mut expected: Vec<(&str, &str)> =
        ["FinalTraining", "FinalValidation", "FinalTest"].map(|mode| ("v1", mode)).to_vec();
    expected.extend(
        [
            "FinalTraining",
            "FinalValidationInDomain",
            "FinalValidationOutDomain",
            "FinalTestInDomain",
            "FinalTestOutDomain",
            "Validation_gauss 0.0",
            "Validation_gauss 0.05",
            "Validation_gauss 0.1",
            "Validation_gauss 0.2",
            "Validation_gauss 0.3",
            "Validation_gauss 0.5",
            "Validation_gauss 1.0",
        ]
        .map(|mode| ("img_classification", mode)),
    );
    assert_eq!(modes, expected);
    let clean = |task: &str, split: &str, metric: &str| {
        let wanted = json!({"suite": "clean", "task": task, "split": split, "metric": metric});
        let fits = |row: &&Value| wanted.as_object().unwrap().iter().all(|(key, v)| row[key] == *v);
        rows.iter().find(fits).unwrap()["value"].as_f64().unwrap()
    };
    // The final training score is of images as they are, not augmented.
    let images = |mode: &str, metric: &str| {
        let fits = |row: &&Value| {
            row["mode"] == mode && row["task"] == "img_classification" && row["metric"] == metric
        };
        rows.iter().find(fits).unwrap()["value"].as_f64().unwrap()
    };
    for metric in ["accuracy", "loss"] {
        let of = |split: &str| clean("img_classification", split, metric);
        assert_eq!(images("FinalTraining", metric), of("train"));
        assert_eq!(images("FinalValidationInDomain", metric), of("validation"));
        assert_eq!(images("FinalTestInDomain", metric), of("test"));
        assert_eq!(images("Validation_gauss 0.0", metric), of("validation"));
    }
    for mode in ["FinalValidationOutDomain", "Validation_gauss 0.05", "Validation_gauss 1.0"] {
        assert_ne!(images(mode, "loss"), clean("img_classification", "validation", "loss"), "{mode}");
    }
    let noise: Vec<f64> = rows.iter().filter_map(|row| row["noise_std"].as_f64()).collect();
    assert_eq!((noise[0], noise[noise.len() - 1]), (0.0, 1.0));
}

#[test]
fn after_training_with_noise_the_other_domain_is_clean() {
    let dir = shards();
    let run = train(dir.path(), "runs", &["data.augment.noise=[{std=0.3,share=1.0}]"]);
    let rows = eval(dir.path(), &run, &["--suite", "all", "--corruptions", "fog", "--severities", "1"]);
    let clean = rows.iter().find(|row| {
        row["suite"] == "clean"
            && row["split"] == "validation"
            && row["metric"] == "loss"
            && row["task"] == "img_classification"
    });
    let [inside, outside] =
        ["FinalValidationInDomain", "FinalValidationOutDomain"].map(|mode| whole(&rows, mode));
    assert_eq!(outside["loss"], clean.unwrap()["value"].as_f64().unwrap());
    assert_ne!(inside["loss"], outside["loss"]);
    // One level of 0.3 on every image is what the noise suite shows too.
    assert_eq!(inside, whole(&rows, "Validation_gauss 0.3"));
    // Early stopping looks at the domain of training.
    let metrics = fs::read_to_string(dir.path().join(&run).join("metrics.jsonl")).unwrap();
    let lines: Vec<Value> = metrics.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let best = &lines.last().unwrap()["best_epoch"];
    let line = lines.iter().find(|l| l["epoch"] == *best && l["task"] == "img_classification").unwrap();
    assert_eq!(line["validation_loss"].as_f64().unwrap(), inside["loss"]);
}

#[test]
fn repeats_are_scored_where_there_are_any_and_tables_hold_every_neuron_and_class() {
    let dir = shards();
    let run = train(dir.path(), "runs", &[]);
    let rows = eval(dir.path(), &run, &["--suite", "final", "--tables", "tables"]);
    let neural = |mode: &str| {
        let rows = rows.iter().filter(|row| row["mode"] == mode && row["task"] == "v1");
        rows.map(|row| (row["metric"].as_str().unwrap(), row["value"].as_f64().unwrap()))
            .collect::<BTreeMap<_, _>>()
    };
    let (training, test) = (neural("FinalTraining"), neural("FinalTest"));
    let with_repeats = [
        "correlation_to_average",
        "oracle",
        "oracle_corrected",
        "fraction_oracle",
        "explainable_variance",
        "feve",
    ];
    for metric in with_repeats {
        assert!(
            test.contains_key(metric) && !training.contains_key(metric),
            "{metric}: {test:?} {training:?}"
        );
    }
    assert!(test["repeated_images"] > 0.0 && training["repeated_images"] == 0.0);
    // The sample data's neurons have noise, and answer to images nonetheless.
    assert!((0.05..1.0).contains(&test["oracle"]), "{test:?}");

    let read = |name: &str| fs::read_to_string(dir.path().join("tables").join(name)).unwrap();
    let neurons = read("neurons.csv");
    let mut lines = neurons.lines();
    let header: Vec<&str> = lines.next().unwrap().split(',').collect();
    assert_eq!(header[..6], ["run", "mode", "area", "session", "neuron", "correlation"]);
    let lines: Vec<Vec<&str>> = lines.map(|line| line.split(',').collect()).collect();
    assert_eq!(lines.len(), 3 * 10, "three evaluations of two sessions of five neurons");
    let of_test: Vec<f64> =
        lines.iter().filter(|l| l[1] == "FinalTest").map(|l| l[5].parse().unwrap()).collect();
    assert!((of_test.iter().sum::<f64>() / 10.0 - test["correlation"]).abs() < 1e-12);
    let oracle = header.iter().position(|&name| name == "oracle").unwrap();
    assert!(lines.iter().all(|l| l[oracle].is_empty() == (l[1] != "FinalTest")));

    let classes = read("classes.csv");
    let of_test = classes.lines().filter(|line| line.contains("FinalTestInDomain"));
    let counts: Vec<&str> = of_test.map(|line| line.split(',').nth(3).unwrap()).collect();
    assert_eq!(counts, ["4", "4", "4"]);
    let confusion = read("confusion.csv");
    let of_test = confusion.lines().filter(|line| line.contains("FinalTestInDomain"));
    let sum: u32 = of_test.map(|line| line.rsplit(',').next().unwrap().parse::<u32>().unwrap()).sum();
    assert_eq!(sum, 12);
}

#[test]
fn responses_are_written_trial_by_trial() {
    let dir = shards();
    let run = train(dir.path(), "runs", &[]);
    let rows = eval(dir.path(), &run, &["--responses", "responses", "--per-neuron"]);
    let mut names: Vec<String> = fs::read_dir(dir.path().join("responses"))
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert!(
        names.len() == 4 && names[0].starts_with("test-") && names[2].starts_with("validation-"),
        "{names:?}"
    );
    for name in &names {
        let bytes = fs::read(dir.path().join("responses").join(name)).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let table = |name: &str| -> Vec<f64> {
            let tensor = file.tensor(name).unwrap();
            let value = |bytes: &[u8]| f64::from(f32::from_le_bytes(bytes.try_into().unwrap()));
            tensor.data().chunks(4).map(value).collect()
        };
        let shape = file.tensor("predicted").unwrap().shape().to_vec();
        assert_eq!((shape[1], file.tensor("image_ids").unwrap().shape()), (5, &shape[..1]));
        // What the rows say of a neuron follows from its columns.
        let (predicted, recorded) = (table("predicted"), table("recorded"));
        let (mode, session) = name.strip_suffix(".safetensors").unwrap().split_once('-').unwrap();
        for neuron in 0..5 {
            let pairs = predicted.iter().zip(&recorded).skip(neuron).step_by(5);
            // Which of the two is which matters to it.
            let loss: f64 = pairs.map(|(p, r)| p - r * (p + 1e-12).ln()).sum();
            let of = |row: &&Value| {
                row["split"] == mode
                    && row["session"] == session
                    && row["neuron"] == neuron
                    && row["metric"] == "loss"
            };
            let told = rows.iter().find(of).unwrap()["value"].as_f64().unwrap();
            assert!((told - loss).abs() < 1e-6 * (1.0 + loss.abs()), "{name}, {neuron}: {told} {loss}");
        }
    }
    let images = train(dir.path(), "images", &["data.neural=\"\"", "mix.kind=\"long\""]);
    let refused = output(nct(dir.path()).args(["eval", &images, "--responses", "none"]));
    assert!(!dir.path().join("none").exists(), "written before it was refused");
    assert!(
        refused.status.code() == Some(2) && stderr(&refused).contains("--responses"),
        "{}",
        stderr(&refused)
    );
}

/// An image set with the first two of the three classes, which has another one before them.
fn other_images(raw: &Path) {
    let (own, other) = (raw.join("tiny-imagenet-200"), raw.join("other"));
    let mut classes: Vec<String> = fs::read_dir(own.join("train"))
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    classes.sort();
    let copy = |from: &Path, to: &Path| {
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(from, to).unwrap();
    };
    let mut annotations = String::new();
    for (from, to) in [(&classes[2], "a_new_class"), (&classes[0], &classes[0]), (&classes[1], &classes[1])] {
        for i in 0..10 {
            let from = own.join(format!("train/{from}/images/{from}_{i}.JPEG"));
            copy(&from, &other.join(format!("train/{to}/images/{to}_{i}.JPEG")));
        }
        for line in fs::read_to_string(own.join("val/val_annotations.txt")).unwrap().lines() {
            let mut words = line.split('\t');
            let (file, class) = (words.next().unwrap(), words.next().unwrap());
            if class == from {
                copy(&own.join("val/images").join(file), &other.join("val/images").join(file));
                annotations.push_str(&format!("{file}\t{to}\t0\t0\t63\t63\n"));
            }
        }
    }
    fs::write(other.join("val/val_annotations.txt"), annotations).unwrap();
}

#[test]
fn classes_of_another_set_are_matched_by_name() {
    let dir = raw();
    other_images(&dir.path().join("raw"));
    succeed(nct(dir.path()).args(["prepare", "raw", "--color", "gray"]));
    let run = train(dir.path(), "runs", &[]);
    let first = eval(dir.path(), &run, &["--split", "test", "--classes", "2"]);
    let other = eval(dir.path(), &run, &["--split", "test", "--images", "other"]);
    let value = |rows: &[Value], metric: &str| {
        rows.iter().find(|row| row["metric"] == metric).unwrap()["value"].as_f64().unwrap()
    };
    // The same eight images, and the same two logits compete; only the labels are numbered otherwise.
    assert_eq!(value(&first, "accuracy"), value(&other, "accuracy"));
    assert!((value(&first, "loss") - value(&other, "loss")).abs() < 1e-6);
    assert_eq!([&first, &other].map(|rows| value(rows, "left_out")), [4.0, 4.0]);
    let unmatched = other.iter().find(|row| row["metric"] == "unmatched_classes").unwrap();
    assert_eq!((&unmatched["classes"], &unmatched["dataset"]), (&json!(["a_new_class"]), &json!("other")));
    assert!(first.iter().all(|row| row["task"] == "img_classification"));

    for (args, part) in [
        (&["--classes", "9"][..], "from 1 to 3"),
        (&["--images", "mtl_monkey_dataset"], "none of the data set's"),
        (&["--images", "nowhere"], "here are"),
        (&["--suite", "noise", "--split", "train"], "nothing to evaluate"),
        (&["--batch-size", "0"], "batch-size"),
    ] {
        let refused = output(nct(dir.path()).args(["eval", &run, "--device", "cpu"]).args(args));
        assert_eq!(refused.status.code(), Some(2), "{args:?}: {}", stderr(&refused));
        assert!(stderr(&refused).contains(part), "{args:?}: {}", stderr(&refused));
    }
}

/// Gives the sessions of a neural set other numbers. A pickle has them as little-endian bytes.
fn renumber_sessions(set: &Path) {
    for entry in fs::read_dir(set.join("neuronal_data")).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        let number = (0..bytes.len() - 6).find(|&at| {
            (0..2).any(|n| bytes[at..].starts_with(&(3_631_896_544_452 + n as u64).to_le_bytes()[..6]))
        });
        bytes[number.unwrap() + 1] ^= 1;
        fs::write(path, bytes).unwrap();
    }
}

#[test]
fn each_area_is_read_from_its_own_readouts() {
    let dir = raw();
    renumber_sessions(&dir.path().join("raw/mtl_oracle_dataset"));
    succeed(nct(dir.path()).args(["prepare", "raw", "--color", "gray"]));
    let v4 = [
        "data.neural_v4=\"mtl_oracle_dataset\"",
        "data.neural=\"mtl_monkey_dataset\"",
        "model.v1_model_layer=4",
        "model.v4_model_layer=8",
    ];
    let run = train(dir.path(), "runs", &v4);
    let rows = eval(dir.path(), &run, &["--split", "validation"]);
    let metrics = fs::read_to_string(dir.path().join(&run).join("metrics.jsonl")).unwrap();
    let lines: Vec<Value> = metrics.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let best = &lines.last().unwrap()["best_epoch"];
    let of = |task: &str| {
        let row = rows.iter().find(|row| row["task"] == task && row["metric"] == "correlation").unwrap();
        let line = lines.iter().find(|l| l["epoch"] == *best && l["task"] == task).unwrap();
        assert_eq!(row["value"], line["validation_correlation"], "{task}");
        row["value"].as_f64().unwrap()
    };
    assert_ne!(of("v1"), of("v4"));
}

#[test]
fn imagenet_s_transforms_train_and_evaluate() {
    let dir = imagenet();
    // The test images again, as a set of their own.
    let (val, own) = (dir.path().join("raw/imagenet/val"), dir.path().join("raw/imagenet_val/images"));
    for class in fs::read_dir(val).unwrap().map(|e| e.unwrap().path()) {
        fs::create_dir_all(&own).unwrap();
        copy(&class, &own.join(class.file_name().unwrap()));
    }
    let color = ["--color", "gray", "--valid-size", "0.25"];
    succeed(nct(dir.path()).args(["prepare", "raw", "--resize", "40"]).args(color));
    let sets = ["data.images=\"imagenet\"", "data.neural=\"\"", "data.input_size=32", "mix.kind=\"long\""];
    let augment = [
        "data.augment={random_resized_crop={scale=[0.5,1.0]},crop_padding=0,rotation_degrees=0.0}",
        "schedule.max_iter=8",
    ];
    let run = train(dir.path(), "runs", &[&sets[..], &augment[..]].concat());
    let own = eval(dir.path(), &run, &["--split", "test"]);
    let value = |rows: &[Value], metric: &str| {
        rows.iter().find(|r| r["metric"] == metric).unwrap()["value"].as_f64().unwrap()
    };
    assert!(value(&own, "accuracy") > 80.0, "{own:?}");
    let other = eval(dir.path(), &run, &["--split", "test", "--images", "imagenet_val"]);
    assert_eq!(value(&own, "loss"), value(&other, "loss"));
    let corrupted = ["--suite", "corruptions", "--corruptions", "fog", "--severities", "3"];
    assert!(eval(dir.path(), &run, &corrupted).iter().any(|r| r["corruption"] == "fog"));
    let plan = succeed(
        nct(dir.path())
            .args(["train", "--dry-run", "--config", "tiny.toml"])
            .args(sets.iter().flat_map(|s| ["--set", s])),
    );
    assert!(plan.contains("32"), "{plan}");
}

#[test]
fn responses_of_a_network_become_a_neural_set() {
    let dir = shards();
    let run = train(dir.path(), "runs", &[]);
    let respond = |out: &str, more: &[&str]| {
        succeed(nct(dir.path()).args(["respond", &run, "--device", "cpu", "--out", out]).args(more));
    };
    let set = "mtl_monkey_dataset";
    let images_of = |root: &str| files(&dir.path().join(root).join(set).join("images"));
    // A network predicts its own responses without error, and those to other images badly.
    let correlation = |root: &str, more: &[&str]| {
        respond(&format!("{root}/{set}"), &[&["--images", set], more].concat());
        assert!(images_of("raw") == images_of(root), "images were changed");
        let made = format!("{root}-shards");
        succeed(nct(dir.path()).args(["prepare", root, "--out", &made]));
        copy(&dir.path().join("shards/tiny-imagenet-200"), &dir.path().join(&made).join("tiny-imagenet-200"));
        let rows = eval(dir.path(), &run, &["--shards", &made, "--split", "test"]);
        let row = rows.iter().find(|r| r["metric"] == "correlation" && r["task"] == "v1");
        row.unwrap()["value"].as_f64().unwrap()
    };
    let (own, other) = (correlation("own", &[]), correlation("other", &["--shuffle"]));
    assert!(own > 0.999 && other < 0.9, "{own} and {other}");
    // Units of a layer, on labelled images.
    let layer = ["--layer", "mtl_vgg_core.v1_block.2", "--units", "6"];
    respond("units/oracle", &[&["--images", "tiny-imagenet-200"], &layer[..]].concat());
    succeed(nct(dir.path()).args(["prepare", "units", "--out", "units-shards"]));
    let shards = nct::shard::ShardSet::open(&dir.path().join("units-shards")).unwrap();
    let manifest = shards.dataset("oracle").unwrap().manifest();
    let rows: u64 = manifest.shards.iter().filter(|s| s.session.is_some()).map(|s| s.rows).sum();
    assert_eq!((manifest.sessions.len(), manifest.sessions[0].neurons, rows), (1, 6, 3 * (24 + 4)));
    let again = ["respond", &run, "--images", set, "--out", "units/oracle", "--device", "cpu"];
    let told = output(nct(dir.path()).args(again));
    assert_eq!(told.status.code(), Some(2));
    assert!(stderr(&told).contains("is there already"), "{}", stderr(&told));
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}
