//! An experiment as the reference's dictionaries, so that its hashes are the reference's (spec/trainer 6.2).

use super::defaults::{Class, of_images};
use super::import::import;
use super::prepared::{Prepared, preparation};
use crate::config::Experiment;
use crate::runs::flat_settings;
use serde_json::{Map, Value, json};

/// What the reference knows an experiment by, each with its `fn`.
#[derive(Debug, Clone, PartialEq)]
pub struct Dictionaries {
    /// The data sets.
    pub dataset: Value,
    /// The network.
    pub model: Value,
    /// Training. What the reference has no words for is in `nct`, by our names, so that no two experiments are one.
    pub trainer: Value,
}

/// Settings as they are written.
struct Settings(Value);

impl Settings {
    fn get(&self, key: &str) -> &Value {
        let pointer = format!("/{}", key.replace('.', "/"));
        self.0.pointer(&pointer).unwrap_or(&Value::Null)
    }

    fn text(&self, key: &str) -> &str {
        self.get(key).as_str().unwrap_or_default()
    }

    /// A whole number where it is one, as the reference writes some.
    fn whole(&self, key: &str) -> Value {
        let value = self.get(key);
        value.as_f64().filter(|v| v.fract() == 0.0).map_or_else(|| value.clone(), |v| json!(v as i64))
    }

    fn list(&self, key: &str) -> Option<&Value> {
        Some(self.get(key)).filter(|value| value.as_array().is_some_and(|list| !list.is_empty()))
    }
}

/// The dictionaries of an experiment on data that were `prepared` so, as far as it is known.
pub fn dictionaries(experiment: &Experiment, prepared: &Prepared) -> Dictionaries {
    let table: toml::Table = toml::from_str(&experiment.to_toml()).expect("settings can be read again");
    let settings = Settings(serde_json::to_value(&table).unwrap_or_default());
    let images = !settings.text("data.images").is_empty();
    let neural = !settings.text("data.neural").is_empty();
    let mut made = Dictionaries {
        dataset: dataset(&settings, prepared, images, neural),
        model: model(&settings, images, neural),
        trainer: trainer(&settings, images, neural),
    };
    made.trainer["comment"] = json!(experiment.name);
    let beyond = beyond(&table, &made, experiment.seed);
    if !beyond.is_empty() {
        made.trainer["nct"] = beyond.into();
    }
    made
}

/// Settings that the dictionaries do not say, or say otherwise; null where they say one that the experiment does not have.
fn beyond(own: &toml::Table, made: &Dictionaries, seed: u64) -> Map<String, Value> {
    let Dictionaries { dataset, model, trainer } = made;
    let all = json!({"dataset": dataset, "model": model, "trainer": trainer, "seed": seed});
    let back = import(&all.to_string(), "x", "x").ok();
    let back = back.and_then(|imported| Experiment::parse(&imported.recipe, "x", &[]).ok());
    let back: toml::Table =
        back.map_or_else(toml::Table::new, |e| toml::from_str(&e.to_toml()).unwrap_or_default());
    let back = flat_settings(&back);
    let said = |key: &str, value: &toml::Value| back.iter().any(|(k, v)| k == key && *v == value);
    let beside = |key: &str| {
        ["name", "seed"].contains(&key) || key.starts_with("loader.") || key.starts_with("checkpoint.")
    };
    let own = flat_settings(own);
    let lacks = |key: &str| !own.iter().any(|(k, _)| k == key);
    let absent =
        back.iter().filter(|(key, _)| !beside(key) && lacks(key)).map(|(key, _)| (key.clone(), Value::Null));
    let more = own.iter().filter(|(key, value)| !beside(key) && !said(key, value));
    let more = more.map(|(key, value)| (key.clone(), serde_json::to_value(value).unwrap_or_default()));
    more.chain(absent).collect()
}

fn with(class: Class, values: Value) -> Value {
    let mut all = class.defaults();
    if let Value::Object(values) = values {
        all.extend(values);
    }
    all.insert("fn".to_owned(), json!(class.function()));
    all.into()
}

fn dataset(settings: &Settings, prepared: &Prepared, images: bool, neural: bool) -> Value {
    match (images, neural) {
        (true, false) => with(Class::Images, image_values(settings)),
        (false, _) => {
            let mut values = neural_values(settings, prepared, "data.neural");
            values["batch_size"] = settings.get("data.neural_batch_size").clone();
            values["apply_grayscale"] = settings.get("data.gray").clone();
            with(Class::Neural, values)
        }
        (true, true) => {
            let image_values = image_values(settings);
            let mut given = json!({"comment": ""});
            for key in ["dataset_cls", "apply_grayscale", "add_corrupted_test"] {
                given[key] = image_values[key].clone();
            }
            let batch = |key: &str, given: &mut Value| {
                // Where it is the default, the published dictionaries do not say it.
                let size = settings.get(key);
                if *size != 128 {
                    given["batch_size"] = size.clone();
                }
            };
            batch("data.batch_size", &mut given);
            let mut values = json!({
                "img_dataset_dict": given, "img_dataset_config": with(Class::Images, image_values),
                "v1_dataset_config": {}, "v4_dataset_config": {},
            });
            for (area, key) in [("v1", "data.neural"), ("v4", "data.neural_v4")] {
                if settings.text(key).is_empty() {
                    continue;
                }
                let mut given = neural_values(settings, prepared, key);
                given["apply_grayscale"] = json!(false);
                given["add_fly_corrupted_test"] = json!({});
                batch("data.neural_batch_size", &mut given);
                values[format!("{area}_dataset_config")] = with(Class::Neural, given.clone());
                if let Some(given) = given.as_object_mut() {
                    given.remove("data_dir");
                }
                values[format!("{area}_dataset_dict")] = given;
            }
            with(Class::MtlData, values)
        }
    }
}

fn image_values(settings: &Settings) -> Value {
    let name = settings.text("data.images");
    let class = match name {
        "tiny-imagenet-200" => "TinyImageNet",
        "imagenet" => "ImageNet",
        other => other,
    };
    let mut noise = Map::new();
    if let Some(kinds) = settings.get("data.augment.distort").get("kinds") {
        noise.insert("all_noises".into(), kinds.clone());
    }
    for level in settings.get("data.augment.noise").as_array().into_iter().flatten() {
        for unit in ["std", "snr"] {
            if let Some(value) = level.get(unit) {
                noise.entry(format!("noise_{unit}")).or_insert_with(|| json!({}))[value.to_string()] =
                    level["share"].clone();
            }
        }
    }
    let mut values: Value = of_images(class == "ImageNet", settings.get("data.gray") == true).into();
    for (key, value) in [
        ("dataset_cls", json!(class)),
        ("apply_grayscale", settings.get("data.gray").clone()),
        ("add_corrupted_test", json!(false)),
        ("apply_augmentation", settings.get("data.augment.flip").clone()),
        ("apply_noise", noise.into()),
        ("batch_size", settings.get("data.batch_size").clone()),
    ] {
        values[key] = value;
    }
    if let (Some(mean), Some(std)) = (settings.list("data.mean"), settings.list("data.std")) {
        (values["train_data_mean"], values["train_data_std"]) = (mean.clone(), std.clone());
    }
    values
}

fn neural_values(settings: &Settings, prepared: &Prepared, key: &str) -> Value {
    let name = settings.text(key);
    let (mean, std) = (settings.list("data.neural_mean"), settings.list("data.neural_std"));
    let stats = mean.zip(std).map_or_else(|| json!({}), |(mean, std)| json!({"mean": mean, "std": std}));
    let area = if key.ends_with("_v4") { "v4" } else { "v1" };
    let mut values = preparation(name, prepared);
    let given = json!({
        "comment": "", "dataset": name, "target_types": [area], "normalize": true, "apply_augmentation": false,
        "resize": 0, "stats": stats, "data_dir": format!("./data/monkey/{name}"),
    });
    values.extend(given.as_object().cloned().unwrap_or_default());
    values.into()
}

fn model(settings: &Settings, images: bool, neural: bool) -> Value {
    if settings.get("model.se").is_object() {
        let mut values = settings.get("model.se").clone();
        if values["readout_type"] == "gauss"
            && let Some(values) = values.as_object_mut()
        {
            values.retain(|key, _| !["hidden_dilation", "se_reduction"].contains(&key.as_str()));
        }
        return with(Class::Se, values);
    }
    let (images_of, classes) =
        if settings.text("data.images") == "imagenet" { ("ImageNet", 1000) } else { ("TinyImageNet", 200) };
    if images && !neural {
        return with(
            Class::Vgg,
            json!({
                "dataset_cls": images_of, "num_classes": classes, "type": settings.get("model.vgg_type"), "input_channels": if settings.get("data.gray") == true { 1 } else { 3 },
                "readout_type": settings.get("model.classification_readout_type"),
                "avg_pool": settings.get("model.avg_pool"),
            }),
        );
    }
    let mut values = json!({"classification": images, "pretrained": false});
    if images {
        values["classification_readout_type"] = settings.get("model.classification_readout_type").clone();
        values["input_size"] = json!(64);
        values["num_classes"] = json!(classes);
    }
    if settings.get("model.add_dropout").is_object() {
        values["add_dropout"] = settings.get("model.add_dropout").clone();
    }
    for key in [
        "vgg_type",
        "v1_fine_tune",
        "v1_gamma_readout",
        "v1_model_layer",
        "v4_model_layer",
        "v1_init_mu_range",
        "v1_init_sigma_range",
        "v1_readout_bias",
        "v1_final_batchnorm",
    ] {
        values[key] = settings.get(&format!("model.{key}")).clone();
    }
    values["v1_elu_offset"] = settings.whole("model.v1_elu_offset");
    with(Class::MtlVgg, values)
}

fn trainer(settings: &Settings, images: bool, neural: bool) -> Value {
    let mut values = json!({"verbose": true, "mtl": neural});
    for key in [
        "patience",
        "threshold",
        "threshold_mode",
        "lr_decay",
        "min_lr",
        "lr_decay_steps",
        "interval",
        "max_iter",
        "restore_best",
        "maximize",
        "to_monitor",
    ] {
        values[key] = settings.get(&format!("schedule.{key}")).clone();
    }
    for key in ["add_final_train_eval", "add_final_val_eval", "add_final_test_eval"] {
        values[key] = settings.get(&format!("evaluation.{key}")).clone();
    }
    let subset = settings.get("evaluation.return_classification_subset");
    values["return_classification_subset"] = if *subset == 0 { json!(-1) } else { subset.clone() };
    let mut losses = Map::new();
    if images {
        losses.insert("img_classification".into(), json!("CrossEntropyLoss"));
    }
    for (area, set, key) in [("v1", "data.neural", "loss.neural"), ("v4", "data.neural_v4", "loss.neural_v4")]
    {
        let loss = Some(settings.get(key)).filter(|loss| loss.is_string());
        if !settings.text(set).is_empty() {
            losses.insert(area.into(), loss.unwrap_or_else(|| settings.get("loss.neural")).clone());
        }
    }
    values["loss_functions"] = losses.into();
    for key in ["loss_sum", "loss_weighing", "scale_loss", "avg_loss"] {
        values[key] = settings.get(&format!("loss.{key}")).clone();
    }
    (values["optimizer"], values["optimizer_options"]) = optimizer(settings);
    (values["scheduler"], values["scheduler_options"]) = scheduler(settings);
    (values["train_cycler"], values["train_cycler_args"]) = cycler(settings, neural);
    let mut all = with(Class::Trainer, values);
    if !neural && let Some(all) = all.as_object_mut() {
        // Defined where there are neural losses only.
        all.retain(|key, _| !["scale_loss", "avg_loss"].contains(&key.as_str()));
    }
    all
}

fn optimizer(settings: &Settings) -> (Value, Value) {
    let section = settings.get("optimizer");
    let (name, keys): (&str, &[&str]) = match settings.text("optimizer.kind") {
        "sgd" => ("SGD", &["momentum", "lr", "weight_decay"]),
        "adamw" => ("AdamW", &["amsgrad", "lr", "weight_decay"]),
        _ => ("Adam", &["amsgrad", "lr", "weight_decay"]),
    };
    // A switch that is left out is off.
    let of = |key: &str| Some(section[key].clone()).filter(|value| !value.is_null()).unwrap_or(json!(false));
    let options: Map<String, Value> = keys.iter().map(|key| ((*key).to_owned(), of(key))).collect();
    (json!(name), options.into())
}

fn scheduler(settings: &Settings) -> (Value, Value) {
    match settings.text("schedule.scheduler") {
        "adaptive" => (json!("adaptive"), json!({"mtl": false})),
        "phases" => (json!("adaptive"), json!({"mtl": true})),
        "manual" => (json!("manual"), json!({"milestones": settings.get("schedule.milestones")})),
        _ => (json!(""), json!({})),
    }
}

fn cycler(settings: &Settings, neural: bool) -> (Value, Value) {
    let steps = settings.get("mix.batches_per_step");
    let name = match settings.text("mix.kind") {
        "mtl" => {
            let ratio = |value: &Value| {
                let n = value.as_str().and_then(|text| text.strip_prefix("1/")?.parse::<f64>().ok());
                n.map_or_else(|| value.clone(), |n| json!(1.0 / n))
            };
            let ratios = settings.get("mix.ratio").as_object().into_iter().flatten();
            let mut ratios: Map<String, Value> =
                ratios.map(|(epoch, value)| (epoch.clone(), ratio(value))).collect();
            // One neural batch for each image batch, if nothing is said.
            if ratios.is_empty() {
                ratios.insert("1".to_owned(), json!(1));
            }
            return (json!("MTL_Cycler"), json!({"main_key": "img_classification", "ratio": ratios}));
        }
        "short" => "ShortCycler",
        _ => "LongCycler",
    };
    let args = match steps.as_u64() {
        Some(n) => json!({"grad_accum_step": n}),
        None if neural => json!({}),
        None => json!({"grad_accum_step": 0}),
    };
    (json!(name), args)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Recipe;
    use crate::runs::reference_hash;
    use std::path::Path;

    fn published() -> Vec<Value> {
        serde_json::from_str(include_str!("../../../tests/vectors/reference_recipes.json")).unwrap()
    }

    /// The three dictionaries of a published recipe, with the hashes that they have.
    fn of_recipe(name: &str) -> [Value; 3] {
        let all = published();
        let of = |part: &str| all.iter().find(|r| r["recipe"] == name && r["part"] == part).unwrap().clone();
        ["dataset", "model", "trainer"].map(of)
    }

    fn imported([dataset, model, trainer]: &[Value; 3]) -> Experiment {
        let all = json!({
            "dataset": dataset["settings"], "model": model["settings"], "trainer": trainer["settings"], "seed": 1000,
        });
        let imported = import(&all.to_string(), "x", "published.json").unwrap();
        Experiment::parse(&imported.recipe, "x", &[]).unwrap()
    }

    /// The published dictionaries mean our recipes, and come back from them to the bit: their hashes, made by the
    /// reference's own code, are those of what we export.
    #[test]
    fn published_dictionaries_are_our_recipes_and_come_back() {
        let configs = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
        for (published, recipe) in [
            ("img_classification_model", "baseline"),
            ("neural_v1_model", "v1_model"),
            ("mtl_models", "mtl_monkey"),
            ("mtl_models", "mtl_oracle"),
            ("mtl_models", "mtl_shuffled"),
        ] {
            let mut parts = of_recipe(published);
            if published == "mtl_models" {
                // The same but for the set.
                let set = format!("{recipe}_dataset");
                parts[0]["settings"]["neural_dataset_dict"]["dataset"] = json!(set);
            }
            let mut found = imported(&parts);
            let ours = Experiment::read(&configs.join(format!("{recipe}.toml")), &[]).unwrap();
            let made = dictionaries(&found, &Prepared::new());
            found.name.clone_from(&ours.name);
            // The release says "rel" where the paper had "abs" (spec/trainer 9.1).
            assert_eq!(found.schedule.threshold_mode, crate::train::ThresholdMode::Rel);
            found.schedule.threshold_mode = ours.schedule.threshold_mode;
            // Keys of a task that there are no data of.
            found.data.neural_batch_size = ours.data.neural_batch_size;
            found.data.batch_size = ours.data.batch_size;
            let told = |e: &Experiment| e.to_toml();
            assert_eq!(told(&found), told(&ours), "{published}");
            assert!(made.trainer.get("nct").is_none(), "{published}: {}", made.trainer["nct"]);
            for (part, mut own) in parts.into_iter().zip([made.dataset, made.model, made.trainer]) {
                // The published data set of MTL is given by a key that the reference does not read.
                if published == "mtl_models" && part["part"] == "dataset" {
                    own["img_dataset_config"]["comment"] = json!("");
                    assert_eq!(own["img_dataset_config"], part["settings"]["img_dataset_config"]);
                    assert_eq!(own["v1_dataset_dict"], part["settings"]["neural_dataset_dict"]);
                    continue;
                }
                own["comment"] = part["settings"]["comment"].clone();
                assert_eq!(
                    reference_hash(&own),
                    part["hash"].as_str().unwrap(),
                    "{own}\n{}",
                    part["settings"]
                );
            }
        }
    }

    fn back(made: &Dictionaries, seed: u64, name: &str) -> Experiment {
        let Dictionaries { dataset, model, trainer } = made;
        let all = json!({"dataset": dataset, "model": model, "trainer": trainer, "seed": seed});
        Experiment::parse(&import(&all.to_string(), name, "made.json").unwrap().recipe, "x", &[]).unwrap()
    }

    #[test]
    fn what_the_reference_can_say_comes_back_from_its_dictionaries() {
        let configs = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
        for recipe in ["baseline", "v1_model", "mtl_monkey", "mtl_oracle", "mtl_shuffled", "imagenet"] {
            let ours = Experiment::read(&configs.join(format!("{recipe}.toml")), &[]).unwrap();
            let made = dictionaries(&ours, &Prepared::new());
            assert!(made.trainer.get("nct").is_none(), "{recipe}: {}", made.trainer["nct"]);
            let found = back(&made, ours.seed, &ours.name);
            assert_eq!(found.to_toml(), ours.to_toml(), "{recipe}");
            assert_eq!(dictionaries(&found, &Prepared::new()), made, "{recipe}");
        }
    }

    /// Spec/data 3: by set and colour, where nothing is given.
    #[test]
    fn images_are_normalised_as_the_reference_does_it() {
        let cases: [(&str, bool, &[f64], &[f64]); 4] = [
            ("TinyImageNet", true, &[0.4519], &[0.2221]),
            ("TinyImageNet", false, &[0.4802, 0.4481, 0.3975], &[0.2302, 0.2265, 0.2262]),
            ("ImageNet", true, &[0.4573], &[0.2156]),
            ("ImageNet", false, &[0.485, 0.456, 0.406], &[0.229, 0.224, 0.225]),
        ];
        for (set, gray, mean, std) in cases {
            let given = json!({"dataset_cls": set, "apply_grayscale": gray, "train_data_std": null});
            let all = json!({
                "dataset": {"ImageDatasetConfig": given}, "trainer": {"CoTrainerConfig": {}},
                "model": {"ClassificationModelConfig": {"dataset_cls": set}},
            });
            let imported = import(&all.to_string(), "x", "x.json").unwrap();
            let mut found = Experiment::parse(&imported.recipe, "x", &[]).unwrap();
            assert_eq!((&found.data.mean[..], &found.data.std[..]), (mean, std), "{set}, gray {gray}");
            let made = dictionaries(&found, &Prepared::new());
            assert_eq!(made.dataset["train_data_mean"], json!(mean), "{set}, gray {gray}");
            assert_eq!(made.dataset["train_data_std"], json!(std), "{set}, gray {gray}");
            assert_eq!(made.trainer["nct"]["data.mean"], Value::Null, "{}", made.trainer);
            // Those of the shards are not the reference's, which has no words for them.
            found.data.mean.clear();
            found.data.std.clear();
            let own = dictionaries(&found, &Prepared::new());
            assert_eq!(own.dataset, made.dataset);
            assert_eq!(own.trainer["nct"]["data.mean"], json!([]), "{set}, gray {gray}");
        }
    }

    /// Each set goes by its own batch size, and by the dictionary that the reference resolved.
    #[test]
    fn sets_within_go_by_their_own_batch_size() {
        let ours = "[data]\nneural = \"mtl_monkey_dataset\"\nbatch_size = 12\nneural_batch_size = 24";
        let mut made = dictionaries(&Experiment::parse(ours, "x", &[]).unwrap(), &Prepared::new());
        assert_eq!(made.dataset["batch_size"], 128);
        assert_eq!(made.dataset["img_dataset_dict"]["batch_size"], 12);
        assert_eq!(made.dataset["v1_dataset_config"]["batch_size"], 24);
        let sizes = |made: &Dictionaries| {
            let found = back(made, 1, "x").data;
            (found.batch_size, found.neural_batch_size)
        };
        assert_eq!(sizes(&made), (12, 24));
        made.dataset["batch_size"] = json!(7);
        made.dataset["img_dataset_dict"]["batch_size"] = json!(7);
        assert_eq!(sizes(&made), (12, 24));
        made.dataset["img_dataset_config"] = json!({});
        assert_eq!(sizes(&made), (7, 24));
    }

    #[test]
    fn what_the_reference_cannot_say_tells_experiments_apart() {
        let of = |text: &str| dictionaries(&Experiment::parse(text, "x", &[]).unwrap(), &Prepared::new());
        let plain = of("");
        for other in [
            "[numerics]\nprecision = \"bf16\"",
            "[data.augment]\nflip = true\ncrop_padding = 2",
            "[optimizer]\nkind = \"sgd\"\nlr = 0.1\nnesterov = true\nmomentum = 0.75\nweight_decay = 5e-4",
            "[schedule]\nscheduler = \"cosine\"",
            "[mix]\nkind = \"weighted\"\nsteps_per_epoch = 3",
            "[model]\nhidden = 7",
        ] {
            let made = of(other);
            let nct =
                made.trainer.get("nct").unwrap_or_else(|| panic!("{other}: nothing beyond the reference"));
            assert!(!nct.as_object().unwrap().is_empty());
            assert_ne!(reference_hash(&made.trainer), reference_hash(&plain.trainer), "{other}");
        }
        let ratio = of("[mix]\nkind = \"mtl\"\nratio = { 1 = \"1/3\", 5 = 2 }");
        assert_eq!(ratio.trainer["train_cycler_args"]["ratio"], json!({"1": 1.0 / 3.0, "5": 2}));
    }

    /// All of it, whatever the reference has words for, also as the command prints it.
    #[test]
    fn what_is_exported_can_be_imported() {
        let files = std::fs::read_dir("configs").unwrap().map(|entry| entry.unwrap().path());
        let recipes = files.filter_map(|path| Recipe::read(&path).ok()?.points(&[]).ok());
        let recipes = recipes.flatten().map(|point| point.experiment);
        let others = [
            "[mix]\nkind = \"weighted\"\nsteps_per_epoch = 3",
            "[mix]\nkind = \"mtl\"\nratio = { 1 = \"1/3\", 5 = 2 }",
            "[optimizer]\nkind = \"adamw\"\nlr = 0.001\nbetas = [0.8, 0.9]",
            "[data]\nneural = \"mtl_monkey_dataset\"\nmean = []\n[data.augment]\nflip = true\ncrop_padding = 2",
            "[data]\nimages = \"\"\n[mix]\nkind = \"long\"\n[schedule]\nto_monitor = [\"v1\"]\nscheduler = \"cosine\"",
            "[model]\nhidden = 7\ndropout = 0.25\n[numerics]\nprecision = \"bf16\"",
        ];
        let others = others.map(|text| Experiment::parse(text, "x", &[]).unwrap());
        let mut n = 0;
        for experiment in recipes.chain(others) {
            let text = experiment.to_toml();
            let Dictionaries { dataset, model, trainer } = dictionaries(&experiment, &Prepared::new());
            let told = |part: &Value| json!({"hash": reference_hash(part), "config": part});
            let all = json!({"dataset": told(&dataset), "model": told(&model), "trainer": told(&trainer), "seed": experiment.seed});
            let imported =
                import(&all.to_string(), &experiment.name, "x").unwrap_or_else(|e| panic!("{e}\n{text}"));
            let found = Experiment::parse(&imported.recipe, "x", &[]).unwrap();
            let expected = Experiment {
                loader: found.loader.clone(),
                checkpoint: found.checkpoint.clone(),
                ..experiment
            };
            assert_eq!(found.to_toml(), expected.to_toml(), "{text}");
            assert!(
                !imported.notes.iter().any(|note| note.contains("does not know")),
                "{:?}",
                imported.notes
            );
            n += 1;
        }
        assert!(n > 12, "{n}");
    }

    #[test]
    fn sets_that_cannot_be_shown_alike_are_refused() {
        let of = |v1: Value, v4: Value, trainer: Value| {
            let all = json!({
                "dataset": {"MTLDatasetsConfig": {"v1_dataset_dict": v1, "v4_dataset_dict": v4}},
                "model": {"MTLModelConfig": {
                    "pretrained": false, "classification": true, "classification_readout_type": "conv",
                    "v4_model_layer": 10,
                }},
                "trainer": {"CoTrainerConfig": trainer},
            });
            let imported = import(&all.to_string(), "x", "x.json").map_err(|e| e.to_string())?;
            Ok::<_, String>((Experiment::parse(&imported.recipe, "x", &[]).unwrap(), imported.notes))
        };
        let set = |more: Value| {
            let mut set = json!({"dataset": "a", "stats": {"mean": [0.5], "std": [0.25]}});
            set.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            set
        };
        let losses = json!({
            "mtl": true, "train_cycler": "MTL_Cycler", "train_cycler_args": {},
            "loss_functions": {"img_classification": "CrossEntropyLoss", "v1": "MSELoss", "v4": "MSELoss"},
        });
        let v4 = |more: Value| {
            let mut set = set(more);
            set["target_types"] = json!(["v4"]);
            set
        };
        let (found, notes) = of(set(json!({})), v4(json!({})), losses.clone()).unwrap();
        assert_eq!((&found.data.neural_mean, found.seed), (&vec![0.5], 1000));
        assert!(notes.iter().any(|note| note.starts_with("seed: not given")), "{notes:?}");
        let large = json!({"dataset": {"ImageDatasetConfig": {}}, "model": {"ClassificationModelConfig": {}},
            "trainer": {"CoTrainerConfig": {}}, "seed": u64::MAX});
        let told = import(&large.to_string(), "x", "x.json").unwrap_err().to_string();
        assert!(told.contains("seed = 18446744073709551615"), "{told}");
        // With `mtl` the blocks of all areas are frozen.
        let mut frozen = losses.clone();
        frozen["freeze"] = json!({"freeze": ["core"]});
        let (frozen, _) = of(set(json!({})), v4(json!({})), frozen).unwrap();
        assert_eq!(frozen.freeze.parameters, ["v1_block", "v4_block"]);
        let share = json!({"image_frac": 0.3});
        let (less, notes) = of(set(share.clone()), v4(share.clone()), losses.clone()).unwrap();
        assert!(
            less.data.neural_frac == Some(0.3) && notes.iter().any(|note| note.contains("validation trials"))
        );
        // Without arguments the cycler has its own main key and ratio.
        let cycler = &dictionaries(&found, &Prepared::new()).trainer["train_cycler_args"];
        assert_eq!(*cycler, json!({"main_key": "img_classification", "ratio": {"1": 1}}));
        for (v1, v4, trainer, expected) in [
            (set(json!({})), v4(json!({"stats": {}})), losses.clone(), "v4_dataset_dict.stats"),
            (set(json!({})), v4(json!({"batch_size": 3})), losses.clone(), "v4_dataset_dict.batch_size"),
            (set(json!({})), v4(share), losses.clone(), "v4_dataset_dict.image_frac"),
            (set(json!({"target_types": ["v1", "v4"]})), json!({}), losses.clone(), "target_types"),
            (set(json!({"train_transformation": true})), json!({}), losses.clone(), "train_transformation"),
            (set(json!({})), json!({}), json!({}), "trainer.loss_functions.v1: is not given"),
        ] {
            let told = of(v1, v4, trainer).unwrap_err();
            assert!(told.contains(expected), "{told}");
        }
    }

    #[test]
    fn defaults_are_the_reference_s_and_what_cannot_be_said_is_refused() {
        let all = |dataset: Value, model: Value, trainer: Value| {
            let all = json!({
                "dataset": {"ImageDatasetConfig": dataset}, "model": {"ClassificationModelConfig": model},
                "trainer": {"CoTrainerConfig": trainer}, "seed": 3,
            });
            let imported = import(&all.to_string(), "plain", "x.json").map_err(|e| e.to_string())?;
            Ok::<_, String>((Experiment::parse(&imported.recipe, "x", &[]).unwrap(), imported.notes))
        };
        let (plain, notes) = all(json!({}), json!({}), json!({})).unwrap();
        assert_eq!((plain.name.as_str(), plain.seed, plain.optimizer.lr), ("plain", 3, 3e-4));
        assert_eq!((plain.schedule.max_iter, plain.schedule.patience), (100, 10));
        assert_eq!(plain.model.classification_readout_type, crate::model::HeadKind::Dense);
        assert!(notes.is_empty(), "{notes:?}");
        let (noisy, notes) = all(
            json!({"apply_noise": {"noise_std": {"0": 0.5, "0.08": 0.5}}, "num_workers": 4, "bach_size": 3}),
            json!({"type": "vgg11"}),
            json!({"optimizer": "SGD", "optimizer_options": {"lr": 0.5}, "loss_functions": {"img_classification": "CrossEntropyLoss"}}),
        )
        .unwrap();
        assert_eq!(noisy.data.augment.noise.len(), 1);
        assert_eq!(
            (noisy.optimizer.momentum.unwrap_or(0.0), noisy.optimizer.weight_decay),
            (0.0, 0.0),
            "options are replaced whole"
        );
        assert!(
            notes.iter().any(|n| n.contains("num_workers")) && notes.iter().any(|n| n.contains("bach_size"))
        );
        for (dataset, model, trainer, expected) in [
            (json!({"shuffle": false}), json!({}), json!({}), "dataset.shuffle"),
            (json!({"filter_classes": [0, 10]}), json!({}), json!({}), "--classes A..B"),
            (json!({}), json!({"pretrained": true}), json!({}), "init.from"),
            (json!({}), json!({}), json!({"optimizer": "RMSprop"}), "RMSprop"),
            (json!({}), json!({}), json!({"lottery_ticket": {"rounds": 1}}), "trainer.lottery_ticket"),
            (json!({}), json!({}), json!({"train_cycler": "Cycler"}), "Cycler"),
            (json!({}), json!({"num_classes": 10}), json!({}), "model.num_classes = 10"),
            (json!({"input_size": 32}), json!({}), json!({}), "dataset.input_size = 32"),
            (
                json!({}),
                json!({}),
                json!({"loss_functions": {"img_classification": "MSELoss"}}),
                "trainer.loss_functions.img_classification",
            ),
            (
                json!({}),
                json!({}),
                json!({"loss_functions": {"v1": "MSELoss"}}),
                "img_classification: is not given",
            ),
            (json!({}), json!({}), json!({"train_cycler_args": {"grad_acum_step": 2}}), "grad_acum_step"),
            (
                json!({}),
                json!({}),
                json!({"optimizer": "Adam", "optimizer_options": {"lr": 0.1, "momentum": 0.5}}),
                "optimizer.momentum",
            ),
        ] {
            let told = all(dataset, model, trainer).unwrap_err();
            assert!(told.contains(expected), "{told}");
        }
        assert!(import("{}", "x", "x.json").unwrap_err().to_string().contains("expected a dictionary"));
        assert!(import("{", "x", "x.json").unwrap_err().to_string().contains("x.json"));
    }
}
