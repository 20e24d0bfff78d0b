//! The recipes and their documentation.

use crate::common::{nct, only_run, output, raw, stderr, succeed};
use nct::base::Task;
use nct::config::{Experiment, Recipe, Stage, Study, Work};
use nct::model::HeadKind;
use nct::objective::NeuralLoss;
use nct::schedule::{Mix, Ratio, RatioByEpoch};
use nct::train::{OptimizerKind, Scheduler, ThresholdMode};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn configs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("configs")
}

/// A recipe, and not a study.
fn is_recipe(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "toml") && !fs::read_to_string(path).unwrap().contains("[[stage]]")
}

fn keys(prefix: &str, table: &toml::Table, found: &mut BTreeSet<String>) {
    for (key, value) in table {
        match value {
            // The ratio's keys are epochs, not settings.
            toml::Value::Table(inner) if key != "ratio" => keys(&format!("{prefix}{key}."), inner, found),
            _ => drop(found.insert(format!("{prefix}{key}"))),
        }
    }
}

#[test]
fn every_recipe_is_read_and_the_paper_s_is_the_default() {
    let mut n = 0;
    for entry in fs::read_dir(configs()).unwrap() {
        let path = entry.unwrap().path();
        if is_recipe(&path) {
            let points = Recipe::read(&path).unwrap().points(&[]).unwrap();
            let name = path.file_stem().unwrap().to_str().unwrap();
            // Seeds of an experiment are runs of it.
            let name = if name == "seeds" { "mtl_monkey" } else { name };
            assert!(!points.is_empty() && points.iter().all(|point| point.experiment.name == name), "{name}");
            n += 1;
        }
    }
    assert!(n >= 10);
    let paper = Experiment::read(&configs().join("mtl_monkey.toml"), &[]).unwrap();
    let default = Experiment::default();
    assert_eq!(
        (&paper.model, &paper.loss, &paper.optimizer),
        (&default.model, &default.loss, &default.optimizer)
    );
    assert_eq!((&paper.schedule, paper.seed), (&default.schedule, default.seed));
}

/// Sweeps of the spec (trainer 7.1 and 7.3).
#[test]
fn the_paper_s_sweeps_have_the_paper_s_points() {
    let points = |name: &str| Recipe::read(&configs().join(name)).unwrap().points(&[]).unwrap();
    let seeds: Vec<u64> = points("seeds.toml").iter().map(|p| p.experiment.seed).collect();
    assert_eq!(seeds, [1000, 2001, 3000, 4000, 5000]);
    let mut ratios = points("ratios.toml").into_iter().map(|p| p.experiment.mix.ratio.unwrap());
    let expected = [1, 2].map(Ratio::PerStep).into_iter();
    let expected = expected.chain([2, 3, 4, 5, 7, 10, 15].map(Ratio::EveryNth));
    for ratio in expected {
        assert_eq!(ratios.next(), Some(RatioByEpoch::new([(1, ratio)]).unwrap()));
    }
    assert_eq!(ratios.next(), None);
}

/// Every experiment of the paper, at its size and at toy size.
#[test]
fn the_paper_is_one_study() {
    let runs = |overrides: &[String]| -> Vec<(String, usize)> {
        let study = Study::read(&configs().join("paper.toml"), overrides).unwrap();
        assert!(study.corruptions.is_some_and(|suite| suite.corruptions.len() == 15));
        let runs = |stage: &Stage| match &stage.work {
            Work::Train(training) => (stage.name.clone(), training.points.len()),
            Work::Respond(_) => panic!("{} makes data", stage.name),
        };
        study.stages.iter().map(runs).collect()
    };
    let expected = [
        ("v1_model", 1),
        ("baseline", 5),
        ("mtl_monkey", 5),
        ("mtl_shuffled", 5),
        ("mtl_oracle", 5),
        ("oracle", 5),
        ("ratios", 9),
    ];
    let expected = expected.map(|(name, n)| (name.to_owned(), n)).to_vec();
    assert_eq!(runs(&[]), expected);
    assert_eq!(runs(&["scale=demo".to_owned()]), expected);
    let study = Study::read(&configs().join("chain.toml"), &["scale=demo".to_owned()]).unwrap();
    assert_eq!(study.stages.len(), 9);
}

/// The spec's table of recipes (trainer 7.1).
#[test]
fn the_paper_s_recipes_have_the_paper_s_numbers() {
    let read = |name: &str| Experiment::read(&configs().join(format!("{name}.toml")), &[]).unwrap();
    // Name, images, neural set, optimiser, rate, momentum, factor, epochs, threshold, weighing, scaling, monitored.
    let (sgd, adam) = (OptimizerKind::Sgd, OptimizerKind::Adam);
    let tin = "tiny-imagenet-200";
    let (class, v1) = (Task::Classification, Task::V1);
    for (name, images, neural, kind, lr, momentum, decay, epochs, threshold, weighing, scaling, task) in [
        ("baseline", tin, "", sgd, 0.1, Some(0.75), 0.4, 400, 1e-4, false, false, class),
        ("v1_model", "", "neural_v1_dataset", adam, 5e-4, None, 0.5, 150, 1e-6, false, true, v1),
        ("mtl_monkey", tin, "mtl_monkey_dataset", sgd, 0.1, Some(0.75), 0.3, 407, 1e-4, true, false, class),
        ("mtl_oracle", tin, "mtl_oracle_dataset", sgd, 0.1, Some(0.75), 0.3, 407, 1e-4, true, false, class),
        (
            "mtl_shuffled",
            tin,
            "mtl_shuffled_dataset",
            sgd,
            0.1,
            Some(0.75),
            0.3,
            407,
            1e-4,
            true,
            false,
            class,
        ),
    ] {
        let recipe = read(name);
        let optimizer = &recipe.optimizer;
        assert_eq!(
            (optimizer.kind, optimizer.lr, optimizer.momentum, optimizer.weight_decay),
            (kind, lr, momentum, 5e-4),
            "{name}"
        );
        let schedule = &recipe.schedule;
        assert_eq!(
            (schedule.lr_decay, schedule.max_iter, schedule.threshold),
            (decay, epochs, threshold),
            "{name}"
        );
        assert_eq!(
            (schedule.to_monitor.clone(), recipe.loss.loss_weighing),
            (vec![task], weighing),
            "{name}"
        );
        assert_eq!(
            (schedule.scheduler, schedule.threshold_mode),
            (Scheduler::Adaptive, ThresholdMode::Abs),
            "{name}"
        );
        assert_eq!((recipe.data.images.as_str(), recipe.data.neural.as_str()), (images, neural), "{name}");
        assert_eq!((recipe.loss.scale_loss, recipe.loss.loss_sum), (scaling, false), "{name}");
        let poisson = if name == "v1_model" { NeuralLoss::Poisson } else { NeuralLoss::Mse };
        assert!(neural.is_empty() || (recipe.loss.neural == poisson && !recipe.loss.avg_loss), "{name}");
        what_all_share(&recipe);
    }
}

/// What is the same in every recipe of the paper.
fn what_all_share(recipe: &Experiment) {
    let (name, data, schedule) = (&recipe.name, &recipe.data, &recipe.schedule);
    assert_eq!(
        (data.batch_size, data.neural_batch_size, data.gray, recipe.seed),
        (128, 128, true, 1000),
        "{name}"
    );
    assert_eq!((schedule.patience, schedule.lr_decay_steps, schedule.interval), (5, 5, 1), "{name}");
    assert!(schedule.restore_best && schedule.maximize && schedule.min_lr == 1e-4, "{name}");
    let optimizer = &recipe.optimizer;
    assert!(!optimizer.nesterov.unwrap_or(false) && !optimizer.amsgrad.unwrap_or(false), "{name}");
    let model = &recipe.model;
    assert_eq!(
        (model.vgg_type.to_string().as_str(), model.v1_model_layer, model.v4_model_layer),
        ("vgg19_bn", 17, -1)
    );
    assert_eq!((model.classification_readout_type, model.hidden, model.dropout), (HeadKind::Conv, 4096, 0.5));
    assert_eq!((model.v1_gamma_readout, model.v1_init_mu_range, model.v1_init_sigma_range), (0.5, 0.3, 0.6));
    assert!(
        model.v1_fine_tune
            && model.v1_readout_bias
            && !model.v1_final_batchnorm
            && model.v1_elu_offset == -1.0
    );
    let expected = if data.images.is_empty() || data.neural.is_empty() {
        Mix::Long { batches_per_step: 0 }
    } else {
        Mix::Mtl { ratio: RatioByEpoch::new([(1, Ratio::PerStep(1))]).unwrap(), images_per_step: 1 }
    };
    assert_eq!(recipe.mix.mix().unwrap(), expected, "{name}");
    if !data.images.is_empty() {
        let augment = &data.augment;
        assert_eq!((augment.crop_padding, augment.flip, augment.rotation_degrees), (4, true, 15.0), "{name}");
        assert_eq!((data.mean.clone(), data.std.clone()), (vec![0.4519], vec![0.2221]), "{name}");
    }
    // Recorded stimuli are normalised by their own statistics.
    let own = data.neural == "neural_v1_dataset" || data.neural.is_empty();
    assert_eq!(data.neural_mean, if own { vec![] } else { vec![0.4519] }, "{name}");
}

#[test]
fn the_readme_of_the_recipes_lists_exactly_the_keys_there_are() {
    let readme = fs::read_to_string(configs().join("README.md")).unwrap();
    let rows = readme.lines().filter(|line| line.starts_with("| `") && line.contains("` | "));
    let first = rows.map(|line| line.split(" | ").next().unwrap());
    let documented: BTreeSet<String> = first
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .filter(|word| !word.contains(".toml"))
        .map(str::to_owned)
        .collect();
    let mut known = BTreeSet::new();
    keys("", &toml::from_str(&Experiment::default().to_toml()).unwrap(), &mut known);
    let augment =
        ["crop_padding", "flip", "rotation_degrees", "noise"].map(|k| format!("data.neural_augment.{k}"));
    for key in known.iter().filter(|key| !augment.contains(key)) {
        assert!(documented.contains(key), "{key} is not in configs/README.md");
    }
    for key in &documented {
        // A value of a type that no key has: the complaint is about the type if the key is known.
        let error = Experiment::parse("", "test", &[format!("{key}=1979-05-27")]);
        let error = error.err().map(|e| e.to_string()).unwrap_or_default();
        assert!(!error.contains("unknown field"), "{key} is in configs/README.md and is no setting: {error}");
    }
}

#[test]
fn recipes_are_shown_compared_and_described() {
    let show = |args: &[&str]| succeed(nct(&configs()).arg("config").args(args));
    // What is shown is a recipe that means the same.
    let shown = show(&["show", "oracle.toml"]);
    let oracle = Experiment::read(&configs().join("oracle.toml"), &[]).unwrap();
    assert_eq!(Experiment::parse(&shown, "shown", &[]).unwrap(), oracle);
    let lines = show(&["show", "ratios.toml", "--json", "--set", "seed=5"]);
    let lines: Vec<serde_json::Value> = lines.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!((lines.len(), &lines[1]["choice"]["mix.ratio"]["1"]), (9, &serde_json::json!(2)));
    assert!(lines.iter().all(|line| line["settings"]["seed"] == 5));
    assert!(show(&["show", "seeds.toml"]).contains("2001"));
    let diff = show(&["diff", "mtl_monkey.toml", "mtl_oracle.toml", "--json"]);
    let keys: Vec<serde_json::Value> = diff.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let keys: Vec<&str> = keys.iter().map(|row| row["key"].as_str().unwrap()).collect();
    assert_eq!(keys, ["data.neural", "name"]);
    assert!(show(&["diff", "baseline.toml", "baseline.toml"]).contains("no setting differs"));
    let refused = output(nct(&configs()).args(["config", "diff", "seeds.toml", "baseline.toml"]));
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).contains("sweep of 5 runs"), "{}", stderr(&refused));
}

/// A recipe goes by the names of sets, or by shards; a run by what it was trained on.
#[test]
fn how_stimuli_were_prepared_is_told_in_the_reference_s_words() {
    let dir = raw();
    succeed(nct(dir.path()).args("prepare raw --color gray --split-seed 7 --train-frac 0.75".split(' ')));
    let recipe = "[data]\nneural = \"mtl_monkey_dataset\"\nbatch_size = 12\nneural_batch_size = 12\n[model]\nvgg_type = \"bn 8 M 16 M\"\nv1_model_layer = 4\nhidden = 16\n[schedule]\nmax_iter = 1\n";
    fs::write(dir.path().join("small.toml"), recipe).unwrap();
    let train = "train --config small.toml --out runs --device cpu --quiet";
    assert_eq!(succeed(nct(dir.path()).args(train.split(' '))), "", "not quiet");
    let run = only_run(dir.path(), "runs");
    let of = |args: &[&str]| -> serde_json::Value {
        let told = succeed(nct(dir.path()).args(["config", "reference"]).args(args));
        serde_json::from_str::<serde_json::Value>(&told).unwrap()["dataset"]["config"]["v1_dataset_config"]
            .take()
    };
    let (by_name, by_shards) = (of(&["small.toml"]), of(&["small.toml", "--shards", "shards"]));
    assert_eq!((&by_name["seed"], &by_name["train_frac"]), (&1000.into(), &0.8.into()));
    assert_eq!((&by_shards["seed"], &by_shards["train_frac"]), (&7.into(), &0.75.into()));
    assert_eq!(of(&[run.to_str().unwrap()]), by_shards);
}

/// Every key that settings have is in the schema, with its description, and recipes use no other.
#[test]
fn the_schema_describes_every_key() {
    let schema: serde_json::Value =
        serde_json::from_str(&succeed(nct(&configs()).args(["config", "schema"]))).unwrap();
    let resolve = |mut at: serde_json::Value| {
        // A reference, or an option of one.
        for _ in 0..3 {
            let inner =
                at["anyOf"].as_array().and_then(|any| any.iter().find(|s| !s["$ref"].is_null())).cloned();
            let at_ref = inner.unwrap_or_else(|| at.clone());
            let Some(name) = at_ref["$ref"].as_str() else { break };
            at = schema["$defs"][name.rsplit('/').next().unwrap()].clone();
        }
        at
    };
    let default: toml::Table = toml::from_str(&Experiment::default().to_toml()).unwrap();
    let mut named = BTreeSet::new();
    keys("", &default, &mut named);
    for entry in fs::read_dir(configs()).unwrap() {
        let path = entry.unwrap().path();
        if is_recipe(&path) {
            let point = Recipe::read(&path).unwrap().points(&[]).unwrap().remove(0);
            keys("", &toml::from_str(&point.experiment.to_toml()).unwrap(), &mut named);
        }
    }
    assert!(named.len() > 80, "{}", named.len());
    for key in &named {
        let mut at = schema.clone();
        for part in key.split('.') {
            at = resolve(at)["properties"][part].clone();
            assert!(!at.is_null(), "{key} is not in the schema");
            let described = |s: &serde_json::Value| !s["description"].is_null();
            assert!(described(&at) || described(&resolve(at.clone())), "{key} has no description at {part}");
        }
    }
    assert!(schema["properties"]["sweep"].is_object() && schema["additionalProperties"] == false);
}
