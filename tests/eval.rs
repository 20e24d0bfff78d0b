//! Evaluating a run as a user does.

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

/// Accuracies by corruption and severity; those of clean images are at severity 0.
type Cells = BTreeMap<(String, u64), f64>;

fn cells(rows: &[Value]) -> Cells {
    let of_cells = rows.iter().filter(|r| r["metric"] == "accuracy");
    let key = |r: &Value| {
        (r["corruption"].as_str().unwrap_or_default().to_owned(), r["severity"].as_u64().unwrap_or(0))
    };
    of_cells.map(|r| (key(r), r["value"].as_f64().unwrap())).collect()
}

/// The cells of a CSV file without quotes, by its header.
fn csv_rows(path: &Path) -> Vec<BTreeMap<String, String>> {
    let text = fs::read_to_string(path).unwrap();
    let mut lines = text.lines().map(|line| line.split(',').map(str::to_owned).collect::<Vec<_>>());
    let header = lines.next().unwrap();
    lines.map(|line| header.iter().cloned().zip(line).collect()).collect()
}

/// Figures are there, are not blank, and stand beside the numbers that `nct eval` gave each model.
fn figures_show(folder: &Path, models: &[(&str, Cells)]) {
    for name in ["heatmap", "curves"] {
        let svg = fs::read_to_string(folder.join(name).with_extension("svg")).unwrap();
        let document = resvg::usvg::roxmltree::Document::parse(&svg).unwrap();
        let marks = document.descendants().filter(|e| e.attribute("class") == Some("mark")).count();
        let rows = csv_rows(&folder.join(name).with_extension("csv"));
        assert_eq!(marks, rows.len(), "{name}");
        assert!(models.iter().all(|(model, _)| rows.iter().any(|row| row["model"] == *model)), "{name}");
        let file = fs::File::open(folder.join(name).with_extension("png")).unwrap();
        let mut reader = png::Decoder::new(std::io::BufReader::new(file)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut pixels).unwrap();
        assert!(pixels.iter().filter(|&&v| v < 128).count() > 1000, "{name}");
    }
    let rows = csv_rows(&folder.join("heatmap.csv"));
    for (model, cells) in models {
        for ((corruption, severity), value) in cells {
            let at = |r: &&BTreeMap<String, String>| {
                r["model"] == *model
                    && r["corruption"] == *corruption
                    && r["severity"] == severity.to_string()
            };
            let found: f64 = rows.iter().find(at).unwrap()["accuracy"].parse().unwrap();
            assert!((found - value).abs() < 1e-9, "{model} {corruption} {severity}: {found}, not {value}");
        }
    }
}

/// A Parquet file holds the same rows; what a row has not is null.
fn same_as_parquet(path: &Path, rows: &[Value]) {
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::record::Field;
    let reader = SerializedFileReader::new(fs::File::open(path).unwrap()).unwrap();
    let json = |field: &Field| match field {
        Field::Null => Value::Null,
        Field::Str(text) => json!(text),
        Field::Double(v) => json!(v),
        Field::ULong(v) => json!(v),
        other => panic!("{other:?}"),
    };
    let row_of = |row: parquet::record::Row| -> Value {
        row.get_column_iter().map(|(name, field)| (name.clone(), json(field))).collect()
    };
    let found: Vec<Value> = reader.get_row_iter(None).unwrap().map(|row| row_of(row.unwrap())).collect();
    assert_eq!(found.len(), rows.len());
    for (found, row) in found.iter().zip(rows) {
        let found = found.as_object().unwrap();
        assert!(row.as_object().unwrap().keys().all(|key| found.contains_key(key)), "{row}");
        for (key, value) in found {
            let same = *value == row[key] || value.as_f64().is_some() && value.as_f64() == row[key].as_f64();
            assert!(same, "{key}: {value}, not {row}");
        }
    }
}

/// The rows that `nct robustness` prints; the files it writes beside hold the same.
fn compared_in_files(dir: &Path, model: &str, baseline: &str) -> Vec<Value> {
    let files = "--table s.csv --table new/s.jsonl --table new/s.parquet --figures figures";
    let mut command = nct(dir);
    command.args(["robustness", "--model", model, "--baseline", baseline, "--json"]);
    let parsed =
        |text: &str| -> Vec<Value> { text.lines().map(|line| serde_json::from_str(line).unwrap()).collect() };
    let compared = parsed(&succeed(command.args(files.split(' '))));
    assert_eq!(parsed(&fs::read_to_string(dir.join("new/s.jsonl")).unwrap()), compared);
    same_as_parquet(&dir.join("new/s.parquet"), &compared);
    let csv = csv_rows(&dir.join("s.csv"));
    assert_eq!(csv.len(), compared.len());
    for (found, row) in csv.iter().zip(&compared) {
        assert_eq!(found["value"].parse::<f64>().unwrap(), row["value"].as_f64().unwrap());
        assert_eq!(found["corruption"], row["corruption"].as_str().unwrap_or_default());
    }
    compared
}

#[test]
fn corruptions_are_scored_kept_and_compared_with_a_baseline() {
    let dir = shards();
    let [run, base] =
        [("runs", "seed=3"), ("base", "seed=4")].map(|(out, seed)| train(dir.path(), out, &[seed]));
    let grid = ["--suite", "corruptions", "--corruptions", "brightness,gaussian_noise,saturate"];
    let grid = [&grid[..], &["--severities", "1,5"]].concat();
    // Nothing to compare with yet: said before anything is evaluated.
    let early =
        output(nct(dir.path()).args(["eval", &run, "--device", "cpu", "--baseline", &base]).args(&grid));
    assert_eq!(early.status.code(), Some(2), "{}", stderr(&early));
    assert!(stderr(&early).contains(&format!("nct eval {base} --suite corruptions")), "{}", stderr(&early));
    let base_cells = cells(&eval(dir.path(), &base, &grid));
    let with_base = [&grid[..], &["--baseline", &base]].concat();
    let rows = eval(dir.path(), &run, &with_base);
    assert_eq!(rows, eval(dir.path(), &run, &[&with_base[..], &["--threads", "4"]].concat()));
    let run_cells = cells(&rows);
    let modes: Vec<&str> =
        rows.iter().filter(|r| r["metric"] == "accuracy").map(|r| r["mode"].as_str().unwrap()).collect();
    assert_eq!(modes[..3], ["clean", "fly_c_test gaussian_noise 1", "fly_c_test gaussian_noise 5"]);
    assert_eq!(modes.len(), 1 + 3 * 2);
    let cell = |mode: &str| whole(&rows, mode)["accuracy"];
    let of_paper = ["brightness 1", "brightness 5", "gaussian_noise 1", "gaussian_noise 5"];
    let mean = of_paper.iter().map(|c| cell(&format!("fly_c_test {c}"))).sum::<f64>() / 4.0;
    let summary = |rows: &[Value], metric: &str| {
        let row = rows.iter().find(|r| r["metric"] == metric && r["group"].is_null());
        row.unwrap()["value"].as_f64().unwrap()
    };
    assert!((summary(&rows, "mean_accuracy") - mean).abs() < 1e-9, "the extra ones are in no mean");
    // Other draws, or other parameters, and losses differ; the kept files do not mix.
    let loss = |more: &[&str]| {
        let rows = eval(dir.path(), &run, &[&grid[..], more].concat());
        let row = rows.iter().find(|r| r["corruption"] == "gaussian_noise" && r["metric"] == "loss");
        row.unwrap()["value"].as_f64().unwrap()
    };
    let first = loss(&[]);
    assert!(first == loss(&[]) && first != loss(&["--seed", "1"]) && first != loss(&["--profile", "t"]));

    let (model, baseline) = (format!("m={run}"), base.as_str());
    let compared = compared_in_files(dir.path(), &model, baseline);
    figures_show(&dir.path().join("figures"), &[("baseline", base_cells), ("m", run_cells)]);
    for metric in ["mean_accuracy", "robustness_score", "mce"] {
        let of_all = compared
            .iter()
            .find(|r| r["metric"] == metric && r["group"].is_null() && r["corruption"].is_null());
        let value = of_all.unwrap()["value"].as_f64().unwrap();
        assert!((value - summary(&rows, metric)).abs() < 1e-9, "{metric}");
    }
    let itself = format!("b={base},{base}");
    let itself =
        succeed(nct(dir.path()).args(["robustness", "--model", &itself, "--baseline", baseline, "--json"]));
    let itself: Vec<Value> = itself.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let score = itself.iter().find(|r| r["metric"] == "mce").unwrap();
    let of = |key: &str| score[key].as_f64().unwrap();
    assert!((of("value") - 100.0).abs() < 1e-9 && of("bootstrap_std") < 1e-9, "{score}");
    // A run that went on has other weights than its grid.
    let best = dir.path().join(&base).join("checkpoints/best.safetensors");
    fs::copy(dir.path().join(&run).join("checkpoints/best.safetensors"), best).unwrap();
    let old = output(nct(dir.path()).args(["robustness", "--model", &model, "--baseline", baseline]));
    assert_eq!(old.status.code(), Some(2));
    assert!(stderr(&old).contains("is of other weights"), "{}", stderr(&old));
}

#[test]
fn what_cannot_be_compared_under_corruptions_is_refused() {
    let dir = shards();
    let run = train(dir.path(), "runs", &[]);
    // What only this suite heeds is not passed over by another.
    let idle = output(nct(dir.path()).args(["eval", &run, "--device", "cpu", "--severities", "1"]));
    assert_eq!(idle.status.code(), Some(2));
    assert!(stderr(&idle).contains("belong to --suite corruptions"), "{}", stderr(&idle));
    eval(dir.path(), &run, &["--suite", "corruptions", "--corruptions", "saturate", "--severities", "1,5"]);
    for (args, part) in [
        ("--figures f", "belong to --suite corruptions"),
        ("--suite corruptions --figures f --split test --split validation", "give one --split"),
        ("--table rows.xlsx", "name a file .csv, .jsonl or .parquet"),
    ] {
        let out = output(nct(dir.path()).args(["eval", &run, "--device", "cpu"]).args(args.split(' ')));
        assert_eq!(out.status.code(), Some(2), "{args}");
        assert!(stderr(&out).contains(part), "{args}: {}", stderr(&out));
        assert!(!dir.path().join("f").exists());
    }
    // One run alone has figures too, named as its folder.
    let one = "--suite corruptions --corruptions saturate --severities 1,5 --figures f --table rows.parquet";
    let rows = eval(dir.path(), &run, &one.split(' ').collect::<Vec<_>>());
    let name = Path::new(&run).file_name().unwrap().to_str().unwrap();
    figures_show(&dir.path().join("f"), &[(name, cells(&rows))]);
    same_as_parquet(&dir.path().join("rows.parquet"), &rows);
    let other = ["--suite", "corruptions", "--corruptions", "fog", "--severities", "1,5", "--baseline", &run];
    let other = output(nct(dir.path()).args(["eval", &run, "--device", "cpu"]).args(other));
    assert_eq!(other.status.code(), Some(2));
    assert!(stderr(&other).contains("its grid has no fog"), "{}", stderr(&other));
}

#[test]
fn corrupted_images_written_as_shards_give_the_same_scores() {
    let dir = shards();
    let run = train(dir.path(), "runs", &[]);
    for profile in ["i", "t"] {
        let name = format!("made-{profile}");
        let made = ["corrupt", "shards", "--out", &name, "--layout", "shards", "--profile", profile];
        succeed(nct(dir.path()).args(made).args(["--corruptions", "gaussian_noise", "--severities", "5"]));
        let set = dir.path().join("shards/gaussian_noise-5");
        copy(&dir.path().join(&name).join("gaussian_noise-5"), &set);
        let stored = eval(dir.path(), &run, &["--images", "gaussian_noise-5", "--split", "test"]);
        let stored = stored.iter().find(|r| r["metric"] == "loss").unwrap()["value"].as_f64().unwrap();
        let grid = ["--suite", "corruptions", "--corruptions", "gaussian_noise", "--severities", "5"];
        let fly = eval(dir.path(), &run, &[&grid[..], &["--profile", profile]].concat());
        let cell =
            |r: &&Value| r["corruption"] == "gaussian_noise" && r["severity"] == 5 && r["metric"] == "loss";
        let fly = fly.iter().find(cell).unwrap()["value"].as_f64().unwrap();
        assert!((stored - fly).abs() < 1e-6, "profile {profile}: {stored} stored and {fly} on the fly");
        fs::remove_dir_all(set).unwrap();
    }
}

#[test]
fn prepared_copies_give_a_grid_of_their_own() {
    let dir = shards();
    let run = train(dir.path(), "runs", &[]);
    let cells = ["--corruptions", "fog,pixelate", "--severities", "2,5"];
    let made = ["corrupt", "shards", "--out", "copies/C", "--layout", "shards"];
    succeed(nct(dir.path()).args(made).args(cells));
    let grid = |more: &[&str]| {
        let rows = eval(dir.path(), &run, &[&["--suite", "corruptions"], more].concat());
        let cell = |r: &&Value| r["metric"] == "accuracy" && !r["corruption"].is_null();
        let cells = rows.iter().filter(cell);
        let key = |r: &Value| format!("{} {}", r["corruption"], r["severity"]);
        let values: BTreeMap<String, f64> = cells.map(|r| (key(r), r["value"].as_f64().unwrap())).collect();
        (values, rows)
    };
    let (stored, rows) = grid(&["--stored", "copies/C"]);
    let (fly, _) = grid(&[&cells[..], &["--profile", "t"]].concat());
    assert_eq!((stored.len(), &stored), (4, &fly));
    assert!(rows.iter().any(|r| r["mode"] == "c_test fog 2"), "{rows:?}");
    let mean = |r: &&Value| r["metric"] == "mean_accuracy" && r["group"].is_null() && r["stored"] == "C";
    let mean = rows.iter().find(mean).unwrap()["value"].as_f64().unwrap();
    assert!((mean - stored.values().sum::<f64>() / 4.0).abs() < 1e-9);
    // It is kept, and compared with as any other.
    let model = format!("own={run}");
    let compared = ["robustness", "--model", &model, "--baseline", &run, "--json"];
    let rows = succeed(nct(dir.path()).args(compared).args(["--stored", "C"]));
    assert!(rows.lines().next().unwrap().contains("mean_accuracy"), "{rows}");
    for (more, what) in [
        (["--stored", "copies/C", "--severities", "1"], "not every corruption and severity"),
        (["--stored", "copies/C", "--corruptions", "snow"], "not every corruption and severity"),
        (["--stored", "copies/C", "--split", "validation"], "of test images"),
        (["--stored", "copies/C", "--classes", "2"], "leave out --images and --classes"),
        (["--stored", "copies", "--seed", "2"], "cannot be used with"),
    ] {
        let eval = ["eval", &run, "--device", "cpu", "--suite", "corruptions"];
        let told = output(nct(dir.path()).args(eval).args(more));
        assert_eq!(told.status.code(), Some(2));
        assert!(stderr(&told).contains(what), "{}", stderr(&told));
    }
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
