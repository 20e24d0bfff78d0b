//! The recipes and their documentation.

use nct::config::Experiment;
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
    use nct::base::Task;
    use nct::model::HeadKind;
    use nct::objective::NeuralLoss;
    use nct::train::{OptimizerKind, Scheduler, ThresholdMode};
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
        let e = read(name);
        assert_eq!(
            (e.data.images.as_str(), e.data.neural.as_str(), e.seed),
            (images, neural, 1000),
            "{name}"
        );
        assert_eq!((e.data.batch_size, e.data.neural_batch_size, e.data.gray), (128, 128, true), "{name}");
        let o = &e.optimizer;
        assert_eq!((o.kind, o.lr, o.momentum, o.weight_decay), (kind, lr, momentum, 5e-4), "{name}");
        assert!(!o.nesterov.unwrap_or(false) && !o.amsgrad.unwrap_or(false) && o.groups.is_empty());
        let s = &e.schedule;
        assert_eq!((s.scheduler, s.threshold_mode), (Scheduler::Adaptive, ThresholdMode::Abs), "{name}");
        assert_eq!(
            (s.lr_decay, s.max_iter, s.threshold, s.min_lr),
            (decay, epochs, threshold, 1e-4),
            "{name}"
        );
        assert_eq!((s.patience, s.lr_decay_steps, s.interval), (5, 5, 1), "{name}");
        assert_eq!((s.to_monitor.clone(), s.restore_best, s.maximize), (vec![task], true, true), "{name}");
        assert_eq!(
            (e.loss.loss_weighing, e.loss.scale_loss, e.loss.loss_sum),
            (weighing, scaling, false),
            "{name}"
        );
        let poisson = if name == "v1_model" { NeuralLoss::Poisson } else { NeuralLoss::Mse };
        assert!(neural.is_empty() || (e.loss.neural == poisson && !e.loss.avg_loss), "{name}");
        let m = &e.model;
        assert_eq!(
            (m.vgg_type.to_string().as_str(), m.v1_model_layer, m.v4_model_layer),
            ("vgg19_bn", 17, -1)
        );
        assert_eq!((m.classification_readout_type, m.hidden, m.dropout), (HeadKind::Conv, 4096, 0.5));
        assert_eq!((m.v1_gamma_readout, m.v1_init_mu_range, m.v1_init_sigma_range), (0.5, 0.3, 0.6));
        assert!(m.v1_fine_tune && m.v1_readout_bias && !m.v1_final_batchnorm && m.v1_elu_offset == -1.0);
        let mix = e.mix.mix().unwrap();
        if images.is_empty() || neural.is_empty() {
            assert_eq!(mix, nct::schedule::Mix::Long { batches_per_step: 0 }, "{name}");
        } else {
            let ratio = nct::schedule::RatioByEpoch::new([(1, nct::schedule::Ratio::PerStep(1))]).unwrap();
            assert_eq!(mix, nct::schedule::Mix::Mtl { ratio, images_per_step: 1 }, "{name}");
        }
        if !images.is_empty() {
            let a = &e.data.augment;
            assert_eq!((a.crop_padding, a.flip, a.rotation_degrees, a.noise.len()), (4, true, 15.0, 0));
            assert_eq!((e.data.mean.clone(), e.data.std.clone()), (vec![0.4519], vec![0.2221]));
        }
        // Recorded stimuli are normalised by their own statistics.
        let own = name == "v1_model" || name == "baseline";
        assert_eq!(e.data.neural_mean, if own { vec![] } else { vec![0.4519] }, "{name}");
    }
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
