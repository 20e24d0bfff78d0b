//! The recipes and their documentation.

use nct::base::Task;
use nct::config::Experiment;
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
        if path.extension().is_some_and(|e| e == "toml") {
            let experiment = Experiment::read(&path, &[]).unwrap();
            assert_eq!(experiment.name, path.file_stem().unwrap().to_str().unwrap());
            n += 1;
        }
    }
    assert!(n >= 3);
    let paper = Experiment::read(&configs().join("mtl_monkey.toml"), &[]).unwrap();
    let default = Experiment::default();
    assert_eq!(
        (&paper.model, &paper.loss, &paper.optimizer),
        (&default.model, &default.loss, &default.optimizer)
    );
    assert_eq!((&paper.schedule, paper.seed), (&default.schedule, default.seed));
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
