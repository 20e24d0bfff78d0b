//! Scores under corruptions: made on the fly, stored, compared with a baseline.

use super::{copy, eval, train, whole};
use crate::common::{nct, output, shards, stderr, succeed};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

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
fn robustness_stands_beside_the_prediction_of_responses() {
    let dir = shards();
    let grid = ["--suite", "corruptions", "--corruptions", "brightness,pixelate", "--severities", "3"];
    let evaluated = |out: &str, set: &[&str]| {
        let run = train(dir.path(), out, set);
        eval(dir.path(), &run, &grid);
        run
    };
    let base = evaluated("base", &["seed=9"]);
    let runs: Vec<String> =
        (1..4).map(|seed| evaluated(&format!("runs{seed}"), &[&format!("seed={seed}")])).collect();
    let models = [format!("few={},{}", runs[0], runs[1]), format!("many={}", runs[2])];
    let compare = |more: &[&str]| {
        let mut command = nct(dir.path());
        command.args(["robustness", "--baseline", &base, "--model", &models[0], "--model", &models[1]]);
        command.args(more);
        command
    };
    let out = succeed(&mut compare(&["--neural", "--json", "--figures", "figures", "--table", "t.parquet"]));
    let rows: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    same_as_parquet(&dir.path().join("t.parquet"), &rows);
    let correlation = |run: &String| {
        let text = fs::read_to_string(dir.path().join(run).join("results.json")).unwrap();
        let of: Vec<Value> = serde_json::from_str(&text).unwrap();
        let is = |r: &&Value| r["task"] == "v1" && r["metric"] == "correlation" && r["split"] == "test";
        of.iter().find(is).unwrap()["value"].as_f64().unwrap()
    };
    let own: Vec<f64> = runs.iter().map(correlation).collect();
    let of = |model: &str| {
        let row = rows.iter().find(|r| r["model"] == model && r["group"] == "v1").unwrap();
        row["value"].as_f64().unwrap()
    };
    assert!((of("few") - f64::midpoint(own[0], own[1])).abs() < 1e-12 && of("many") == own[2]);
    // Three runs are enough for a line, and for nothing else.
    let fit: Vec<&Value> = rows.iter().filter(|r| r["metric"] == "coefficient").collect();
    assert!(fit.len() == 2 && fit.iter().all(|r| r["fit"] == "robustness ~ 1 + neural"), "{fit:?}");
    let drawn = csv_rows(&dir.path().join("figures/prediction.csv"));
    let drawn: Vec<[f64; 2]> = drawn
        .iter()
        .filter(|row| row["against"] == "neural prediction" && !row["run"].is_empty())
        .map(|row| ["value", "robustness_score"].map(|key| row[key].parse().unwrap()))
        .collect();
    assert_eq!(drawn.iter().map(|of| of[0]).collect::<Vec<f64>>(), own);
    let middle = [0, 1].map(|i| drawn.iter().map(|of| of[i]).sum::<f64>() / 3.0);
    let product = |i: usize| drawn.iter().map(|of| (of[0] - middle[0]) * (of[i] - middle[i])).sum::<f64>();
    let slope = fit.iter().find(|r| r["term"] == "neural").unwrap()["value"].as_f64().unwrap();
    let by_hand = product(1) / product(0);
    assert!((slope - by_hand).abs() < 1e-6 * by_hand.abs().max(1.0), "{slope}, not {by_hand}");
    assert!(succeed(&mut compare(&["--neural", "v1"])).contains("std. error"));
    let unknown = output(&mut compare(&["--neural", "v1.corelation"]));
    assert_eq!(unknown.status.code(), Some(2));
    assert!(stderr(&unknown).contains("no corelation of v1 on the test split"), "{}", stderr(&unknown));
    let unknown = output(&mut compare(&["--neural", "v2"]));
    assert_eq!(unknown.status.code(), Some(2));
    assert!(stderr(&unknown).contains("v1 and v4"), "{}", stderr(&unknown));
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
    assert!(rows.iter().any(|r| r["mode"] == "tiny_c_regenerated fog 2"), "{rows:?}");
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
fn copies_keep_their_name_profile_and_frost_and_do_not_mix() {
    let dir = shards();
    let run = train(dir.path(), "runs", &[]);
    let made = |args: &str| {
        let args = format!("corrupt shards --layout shards --out {args}");
        succeed(nct(dir.path()).args(args.split(' ')));
    };
    made("t/C --profile t --seed 3 --corruptions fog,frost --severities 2");
    made("i/C --profile i --corruptions fog --severities 3");
    let suite = |args: &str| {
        let args: Vec<&str> = args.split(' ').collect();
        eval(dir.path(), &run, &[&["--suite", "corruptions"], &args[..]].concat())
    };
    // As on the fly in all but where they come from.
    let fly = suite("--profile t --seed 3 --corruptions fog,frost --severities 2");
    let stored = suite("--stored t/C");
    assert_eq!(fly.len(), stored.len());
    for (fly, stored) in fly.iter().zip(&stored) {
        assert_eq!(stored["stored"] == "C", stored["mode"] != "clean", "{stored}");
        let key = |row: &Value| {
            let mut row = row.clone();
            for gone in ["stored", "value"] {
                row.as_object_mut().unwrap().remove(gone);
            }
            row
        };
        assert_eq!(key(fly), key(stored));
        let [a, b] = [fly, stored].map(|row| row["value"].as_f64().unwrap());
        assert!((a - b).abs() < 1e-6, "{fly} on the fly, {b} stored");
    }
    let modes: Vec<&str> = stored.iter().filter_map(|row| row["mode"].as_str()).collect();
    assert!(modes.contains(&"tiny_c_regenerated frost 2") && !modes.iter().any(|m| m.starts_with("c_test")));
    let frost = stored.iter().find(|row| row["corruption"] == "frost").unwrap();
    assert_eq!((&frost["profile"], &frost["frost_source"]), (&json!("t"), &json!("synthetic")));
    assert!(stored.iter().any(|row| row["metric"] == "mean_accuracy_without_frost"), "{stored:?}");
    let compared = format!("robustness --model m={run} --baseline {run} --stored C --json");
    let compared = succeed(nct(dir.path()).args(compared.split(' ')));
    assert!(compared.contains("\"robustness_score_without_frost\""), "{compared}");

    let kept = dir.path().join(&run).join("robustness/stored-C-test.json");
    let before = fs::read_to_string(&kept).unwrap();
    let refused = |stored: &str| {
        let args = format!("eval {run} --device cpu --suite corruptions --stored {stored}");
        let out = output(nct(dir.path()).args(args.split(' ')));
        assert_eq!(out.status.code(), Some(2), "{}", stderr(&out));
        assert!(out.stdout.is_empty());
        stderr(&out)
    };
    let told = refused("i/C");
    for what in ["of profile t, seed 3", "of profile i, seed 0", "frost synthetic", "rename the folder C"] {
        assert!(told.contains(what), "{what}: {told}");
    }
    assert_eq!(fs::read_to_string(&kept).unwrap(), before);
    fs::rename(dir.path().join("i/C"), dir.path().join("i/D")).unwrap();
    assert!(suite("--stored i/D").iter().any(|row| row["mode"] == "fly_c_test fog 3"));
    copy(&dir.path().join("i/D/fog-3"), &dir.path().join("t/C/fog-3"));
    let told = refused("t/C");
    assert!(told.contains("fog-2 is of profile t") && told.contains("fog-3 is of profile i"), "{told}");
    // Of copies whose manifest does not say how they were made, nothing is claimed.
    let path = dir.path().join("i/D/fog-3/manifest.json");
    let mut manifest: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    let settings = manifest["settings"].as_array_mut().unwrap();
    settings.retain(|line| !line.as_str().unwrap().starts_with("profile"));
    fs::write(&path, manifest.to_string()).unwrap();
    fs::rename(dir.path().join("i/D"), dir.path().join("i/E")).unwrap();
    let rows = suite("--stored i/E");
    let cell = rows.iter().find(|row| row["corruption"] == "fog").unwrap();
    assert_eq!((&cell["mode"], &cell["profile"]), (&json!("c_test fog 3"), &Value::Null));
}

/// Scores without frost are in the rows of `nct eval` and of `nct robustness`, and the same.
fn alike_without_frost(rows: &[Value], compared: &[Value]) {
    for metric in ["mean_accuracy", "robustness_score", "ratio_of_means", "mce", "relative_mce"] {
        let is = |row: &&Value| row["metric"] == format!("{metric}_without_frost") && row["group"].is_null();
        let found = [rows, compared].map(|rows| rows.iter().find(is).and_then(|row| row["value"].as_f64()));
        // Networks this small may lose nothing, which leaves relative mCE undefined.
        let same = match found {
            [Some(of_eval), Some(of_robustness)] => (of_eval - of_robustness).abs() < 1e-9,
            both => metric == "relative_mce" && both == [None, None],
        };
        assert!(same, "{metric}: {found:?}");
    }
}

fn leaves_frost_out(row: &Value) -> bool {
    row["metric"].as_str().unwrap().ends_with("_without_frost")
}

/// Whether the figure of two runs shows frost; if not, that must be told.
fn figure_has_frost(dir: &Path, base: &str, run: &str) -> bool {
    let plot = format!("plot --baseline {base} {run} --out figures --only corruptions");
    let told = output(nct(dir).args(plot.split(' ')));
    let cells = fs::read_to_string(dir.join("figures/corruptions.csv")).unwrap();
    assert!(told.status.success() && cells.contains("pixelate"), "{told:?}");
    assert_eq!(stderr(&told).contains("Frost is left out"), !cells.contains("frost"), "{told:?}");
    cells.contains("frost")
}

#[test]
fn frost_says_what_it_is_made_of_and_two_kinds_are_not_compared() {
    let dir = shards();
    let [run, base] =
        [("runs", "seed=3"), ("base", "seed=4")].map(|(out, seed)| train(dir.path(), out, &[seed]));
    let grid = "--suite corruptions --corruptions fog,frost,pixelate --severities 1,5";
    let grid: Vec<&str> = grid.split(' ').collect();
    eval(dir.path(), &base, &grid);
    let rows = eval(dir.path(), &run, &[&grid[..], &["--baseline", &base]].concat());
    for row in &rows {
        let cell = row["corruption"] == "frost";
        let mean = row["corruption"].is_null() && row["mode"].is_null();
        let mean = mean && (row["group"].is_null() || row["group"] == "weather");
        let expected = cell || mean && !leaves_frost_out(row);
        assert_eq!(row["frost_source"] == "synthetic", expected, "{row}");
    }
    let value = |metric: &str, corruption: Option<&str>| {
        let of = |r: &&Value| {
            r["metric"] == metric && r["group"].is_null() && r["corruption"].as_str() == corruption
        };
        let values: Vec<f64> = rows
            .iter()
            .filter(of)
            .filter(|r| r["mode"] != "clean")
            .map(|r| r["value"].as_f64().unwrap())
            .collect();
        values.iter().sum::<f64>() / values.len() as f64
    };
    let [fog, frost, pixelate] = ["fog", "frost", "pixelate"].map(|c| value("accuracy", Some(c)));
    assert!((value("mean_accuracy", None) - (fog + frost + pixelate) / 3.0).abs() < 1e-9);
    assert!((value("mean_accuracy_without_frost", None) - f64::midpoint(fog, pixelate)).abs() < 1e-9);
    let shown = succeed(nct(dir.path()).args(["eval", &run, "--device", "cpu"]).args(&grid));
    assert!(shown.contains("all but frost (mean)"), "{shown}");

    let model = format!("m={run}");
    let compare = || {
        let mut command = nct(dir.path());
        command.args(["robustness", "--model", &model, "--baseline", &base, "--json"]);
        command
    };
    let compared: Vec<Value> =
        succeed(&mut compare()).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for row in &compared {
        let place = row["corruption"].as_str().or(row["group"].as_str()).unwrap_or_default();
        let frosted = ["", "frost", "weather"].contains(&place) && !leaves_frost_out(row);
        assert_eq!(row["frost_source"] == "synthetic", frosted, "{row}");
    }
    alike_without_frost(&rows, &compared);

    // As if the baseline had been evaluated with pictures.
    let kept = dir.path().join(&base).join("robustness/i-test-0.json");
    let text = fs::read_to_string(&kept).unwrap();
    assert!(text.contains("\"frost_source\": \"synthetic\""), "{text}");
    fs::write(&kept, text.replace("\"synthetic\"", "\"pictures\"")).unwrap();
    let mut with_base = nct(dir.path());
    with_base.args(["eval", &run, "--device", "cpu", "--baseline", &base]).args(&grid);
    for (command, what) in [
        (&mut compare(), "is pictures, that of"),
        (&mut with_base, "its frost is pictures, and that of this evaluation synthetic"),
    ] {
        let out = output(command);
        assert_eq!(out.status.code(), Some(2), "{}", stderr(&out));
        assert!(stderr(&out).contains(what), "{}", stderr(&out));
    }
    assert!(!figure_has_frost(dir.path(), &base, &run));
    // Frost alone is made anew, and the rest is kept.
    let frost = ["--suite", "corruptions", "--corruptions", "frost", "--severities", "1,5"];
    eval(dir.path(), &base, &frost);
    assert_eq!(fs::read_to_string(&kept).unwrap(), text);
    succeed(&mut compare());
    assert!(figure_has_frost(dir.path(), &base, &run));
    let other =
        output(nct(dir.path()).args(["eval", &run, "--device", "cpu", "--frost", "nowhere"]).args(frost));
    assert_eq!(other.status.code(), Some(2));
    assert!(stderr(&other).contains("nowhere/frost1.png"), "{}", stderr(&other));
}
