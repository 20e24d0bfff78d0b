//! Dictionaries to a recipe.

use super::defaults::Class;
use crate::config::recipe::placed;
use crate::config::{ConfigError, Recipe};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use toml::Table;

/// A recipe that dictionaries mean.
#[derive(Debug, Clone)]
pub struct Imported {
    /// The recipe's text.
    pub recipe: String,
    /// What the dictionaries say beyond it: what has no counterpart or no effect, and what `nct prepare` needs.
    pub notes: Vec<String>,
}

/// A dictionary with the defaults of its class, and which of its keys were looked at.
struct Part {
    name: &'static str,
    class: Class,
    given: Map<String, Value>,
    defaults: Map<String, Value>,
    seen: BTreeSet<&'static str>,
}

/// Keys that the reference writes beside those of the class: its function, and what it made of its own dictionaries.
const WRITTEN: [&str; 4] = ["fn", "img_dataset_config", "v1_dataset_config", "v4_dataset_config"];
const NORMALIZATION: &str =
    "v1 and v4 are normalized differently; data.neural_mean and data.neural_std are of both";

/// Reads what the reference's `Experiment` writes: `dataset`, `model` and `trainer`, each as `{"Class": {...}}` or as a
/// dictionary with `fn`, and `seed`. What is left out has the reference's defaults.
pub fn import(text: &str, name: &str, origin: &str) -> Result<Imported, ConfigError> {
    let wrong = |what: String| ConfigError::new(origin, what);
    let all: Value = serde_json::from_str(text).map_err(|e| wrong(e.to_string()))?;
    let mut recipe = Writer { table: Table::new(), notes: Vec::new() };
    recipe.set("name", &json!(name));
    let seed = all.get("seed").filter(|seed| !seed.is_null());
    if seed.is_none() {
        recipe.notes.push("seed: not given; 1000, as the reference's builders have it".to_owned());
    }
    recipe.set("seed", seed.unwrap_or(&json!(1000)));
    let mut made = || -> Result<(), String> {
        let (mut data, mut model, mut trainer) =
            (Part::of(&all, "dataset")?, Part::of(&all, "model")?, Part::of(&all, "trainer")?);
        recipe.data(&mut data)?;
        recipe.model(&mut model, data.class)?;
        recipe.trainer(&mut trainer, data.class)?;
        for part in [data, model, trainer] {
            recipe.leave(&part);
        }
        Ok(())
    };
    made().map_err(wrong)?;
    let text = toml::to_string(&recipe.table).map_err(|e| wrong(e.to_string()))?;
    // It must mean something.
    Recipe::parse(&text, origin)?.single(&[])?;
    Ok(Imported { recipe: text, notes: recipe.notes })
}

impl Part {
    fn of(all: &Value, name: &'static str) -> Result<Self, String> {
        let Some(part) = all.get(name).and_then(Value::as_object) else {
            return Err(format!(
                "{name}: expected a dictionary; an experiment has dataset, model and trainer"
            ));
        };
        if let (1, Some((class, Value::Object(given)))) = (part.len(), part.iter().next())
            && let Some(class) = Class::by_name(class)
        {
            return Ok(Self::new(name, class, given.clone()));
        }
        let function = part.get("fn").and_then(Value::as_str).unwrap_or_default();
        let class = Class::by_function(function)
            .or((name == "trainer" && function.is_empty()).then_some(Class::Trainer));
        let Some(class) = class else {
            return Err(format!(
                "{name}: neither the name of a class nor fn says what it is; fn is {function:?}"
            ));
        };
        Ok(Self::new(name, class, part.clone()))
    }

    fn new(name: &'static str, class: Class, given: Map<String, Value>) -> Self {
        Self { name, class, given, defaults: class.defaults(), seen: BTreeSet::new() }
    }

    /// The value of `key`: as given, or the default where it is not or is null.
    fn get(&mut self, key: &'static str) -> Value {
        self.seen.insert(key);
        let given = self.given.get(key).filter(|value| !value.is_null());
        given.or_else(|| self.defaults.get(key)).cloned().unwrap_or_default()
    }

    /// A dictionary within: as the reference resolved it where it is written with that, for that is what it reads.
    fn inner(&mut self, key: &'static str, resolved: &'static str, class: Class) -> Self {
        let object = |value: Value| value.as_object().cloned().unwrap_or_default();
        let (given, made) = (object(self.get(key)), object(self.get(resolved)));
        if made.is_empty() { Self::new(key, class, given) } else { Self::new(resolved, class, made) }
    }

    /// Refuses a value that is not what `key` is here.
    fn only(&mut self, key: &'static str, value: &Value, way_out: &str) -> Result<(), String> {
        let found = self.get(key);
        if found == *value {
            return Ok(());
        }
        Err(format!("{}.{key} = {found}: {way_out}", self.name))
    }

    fn is(&mut self, key: &'static str) -> bool {
        self.get(key) == true
    }
}

struct Writer {
    table: Table,
    notes: Vec<String>,
}

impl Writer {
    fn set(&mut self, key: &str, value: &Value) {
        if let Ok(value) = toml::Value::try_from(value) {
            // Keys are ours: no section is a value.
            let _ = placed(&mut self.table, key, value);
        }
    }

    /// Tells which given keys had no part in it; what has its default anyway, or is null, says nothing.
    fn leave(&mut self, part: &Part) {
        let says = |(key, value): &(&String, &Value)| {
            !value.is_null() && part.defaults.get(*key) != Some(*value) && !WRITTEN.contains(&key.as_str())
        };
        let given = part.given.iter().filter(says).map(|(key, _)| key);
        let left = given.filter(|key| !part.seen.contains(key.as_str()));
        let (neutral, unknown): (Vec<&String>, Vec<&String>) =
            left.partition(|key| part.defaults.contains_key(*key));
        let list = |keys: &[&String]| keys.iter().map(|key| key.as_str()).collect::<Vec<_>>().join(", ");
        if !neutral.is_empty() {
            self.notes.push(format!("{}: without effect here: {}", part.name, list(&neutral)));
        }
        if !unknown.is_empty() {
            self.notes.push(format!(
                "{}: the reference does not know these either: {}",
                part.name,
                list(&unknown)
            ));
        }
    }

    fn data(&mut self, part: &mut Part) -> Result<(), String> {
        match part.class {
            Class::Images => {
                self.images(part)?;
                self.set("data.batch_size", &part.get("batch_size"));
                self.set("data.neural", &json!(""));
                Ok(())
            }
            Class::Neural => {
                self.set("data.images", &json!(""));
                self.set("data.neural", &json!(""));
                self.neural(part, "")?;
                self.set("data.gray", &part.get("apply_grayscale"));
                self.set("data.neural_batch_size", &part.get("batch_size"));
                Ok(())
            }
            Class::MtlData => self.mtl_data(part),
            _ => Err("dataset: is no class of data sets".to_owned()),
        }
    }

    fn mtl_data(&mut self, part: &mut Part) -> Result<(), String> {
        part.only("classification_loader", &json!("img_classification"), "images are labelled images here")?;
        let mut images = part.inner("img_dataset_dict", "img_dataset_config", Class::Images);
        self.images(&mut images)?;
        // Each set goes by its own batch size; the one of the whole is not read.
        self.set("data.batch_size", &images.get("batch_size"));
        self.leave(&images);
        self.set("data.neural", &json!(""));
        let mut v1 = part.inner("v1_dataset_dict", "v1_dataset_config", Class::Neural);
        if v1.given.is_empty() {
            // The published recipe names it by a key that the reference does not read (spec/trainer 9.2).
            v1 = part.inner("neural_dataset_dict", "v1_dataset_config", Class::Neural);
        }
        let v4 = part.inner("v4_dataset_dict", "v4_dataset_config", Class::Neural);
        let mut seen: Option<[Value; 3]> = None;
        for (mut neural, area) in [(v1, ""), (v4, "_v4")] {
            if neural.given.is_empty() {
                continue;
            }
            // Gray or not, stimuli are as they were prepared.
            neural.get("apply_grayscale");
            let shared = ["batch_size", "normalize", "stats"].map(|key| neural.get(key));
            if let Some(other) = &seen {
                let name = neural.name;
                if other[0] != shared[0] {
                    return Err(format!("{name}.batch_size: data.neural_batch_size is of v1 and v4"));
                }
                if other != &shared {
                    return Err(format!("{name}.stats: {NORMALIZATION}"));
                }
            }
            self.set("data.neural_batch_size", &shared[0]);
            seen = Some(shared);
            self.neural(&mut neural, area)?;
            self.leave(&neural);
        }
        Ok(())
    }

    fn images(&mut self, part: &mut Part) -> Result<(), String> {
        part.only("shuffle", &json!(true), "training images are always shuffled")?;
        part.only("filter_classes", &Value::Null, "choose classes with `nct prepare --classes A..B`")?;
        let (imagenet, gray) = match part.get("dataset_cls").as_str() {
            Some("TinyImageNet") => (false, part.is("apply_grayscale")),
            Some("ImageNet") => (true, part.is("apply_grayscale")),
            other => {
                return Err(format!(
                    "{}.dataset_cls = {other:?}: expected TinyImageNet or ImageNet",
                    part.name
                ));
            }
        };
        self.set("data.images", &json!(if imagenet { "imagenet" } else { "tiny-imagenet-200" }));
        self.set("data.gray", &json!(gray));
        let (size, share) = if imagenet { (224, 0.01) } else { (64, 0.1) };
        part.defaults.insert("input_size".to_owned(), json!(size));
        part.defaults.insert("valid_size".to_owned(), json!(share));
        let own = !part.given.contains_key("train_data_mean") && (imagenet || !gray);
        if !part.is("apply_normalization") {
            let n = if gray { 1 } else { 3 };
            self.set("data.mean", &json!(vec![0.0; n]));
            self.set("data.std", &json!(vec![1.0; n]));
        } else if !own {
            self.set("data.mean", &part.get("train_data_mean"));
            self.set("data.std", &part.get("train_data_std"));
        }
        if part.get("valid_size") != json!(0.1) {
            let size = part.get("valid_size");
            self.notes.push(format!("the split is fixed by `nct prepare --valid-size {size}`"));
        }
        let augmented = part.is("apply_augmentation");
        let plain = !augmented || imagenet;
        self.set("data.augment.crop_padding", &json!(if plain { 0 } else { 4 }));
        self.set("data.augment.flip", &json!(augmented));
        self.set("data.augment.rotation_degrees", &json!(if plain { 0.0 } else { 15.0 }));
        if imagenet {
            self.set("data.input_size", &part.get("input_size"));
            let side = part.get("in_resize");
            self.notes.push(format!("imagenet is prepared with: nct prepare DATA --resize {side}"));
            if augmented {
                self.set("data.augment.random_resized_crop", &json!({}));
            }
        } else {
            part.only(
                "input_size",
                &json!(64),
                "TinyImageNet is shown whole; write data.input_size by hand",
            )?;
        }
        self.noise(part)
    }

    fn noise(&mut self, part: &mut Part) -> Result<(), String> {
        let noise = part.get("apply_noise");
        let mut levels = Vec::new();
        for (key, value) in noise.as_object().into_iter().flatten() {
            match (key.as_str(), value) {
                ("all_noises", kinds) => {
                    let distort = json!({"share": 0.5, "kinds": kinds, "profile": "i"});
                    self.set("data.augment.distort", &distort);
                }
                ("noise_std" | "noise_snr", Value::Object(shares)) => {
                    let unit = if key == "noise_std" { "std" } else { "snr" };
                    for (level, share) in shares {
                        let level: f64 =
                            level.parse().map_err(|_| format!("apply_noise.{key}: {level:?} is no level"))?;
                        // Level 0 is the share without noise.
                        if level > 0.0 {
                            levels.push(json!({unit: level, "share": share}));
                        }
                    }
                }
                _ => {
                    let way_out = "write it into [data.augment] or [modules] by hand";
                    return Err(format!("{}.apply_noise.{key}: {way_out}", part.name));
                }
            }
        }
        if !levels.is_empty() {
            self.set("data.augment.noise", &json!(levels));
        }
        Ok(())
    }

    /// Of area V1, or of V4 with `_v4`.
    fn neural(&mut self, part: &mut Part, area: &str) -> Result<(), String> {
        part.only("resize", &json!(0), "stimuli are cut and scaled by `nct prepare`")?;
        part.only("shuffle", &json!(true), "training stimuli are always shuffled")?;
        part.only("apply_augmentation", &json!(false), "write [data.neural_augment] by hand")?;
        part.only("train_transformation", &json!(false), "write [data.neural_augment] by hand")?;
        let name = part.get("dataset");
        let types = part.get("target_types");
        let area = if types == json!(["v4"]) {
            "_v4"
        } else if types == json!(["v1"]) {
            area
        } else {
            return Err(format!("{}.target_types = {types}: expected [\"v1\"] or [\"v4\"]", part.name));
        };
        self.set(&format!("data.neural{area}"), &name);
        let stats = part.get("stats");
        if !part.is("normalize") {
            self.set("data.neural_mean", &json!([0.0]));
            self.set("data.neural_std", &json!([1.0]));
        } else if let Some(mean) = stats.get("mean") {
            self.set("data.neural_mean", mean);
            self.set("data.neural_std", &stats["std"]);
        }
        let crop: Vec<String> = match part.get("crop") {
            Value::Array(sides) => sides
                .iter()
                .flat_map(|side| side.as_array().map_or(vec![side], |s| s.iter().collect()))
                .map(Value::to_string)
                .collect(),
            crop => vec![crop.to_string()],
        };
        let [subsample, scale, bins, share, seed] =
            ["subsample", "scale", "time_bins_sum", "train_frac", "seed"].map(|key| part.get(key));
        self.notes.push(format!(
            "the set {} is prepared with: nct prepare DATA --only {} --crop {} --subsample {subsample} --scale {scale} --time-bins {bins} --train-frac {share} --split-seed {seed}",
            name, name.as_str().unwrap_or_default(), crop.join(",")
        ));
        Ok(())
    }

    fn model(&mut self, part: &mut Part, data: Class) -> Result<(), String> {
        let pretrained = "fetch the weights yourself and name the file in init.from";
        match part.class {
            Class::Vgg => {
                part.only("pretrained", &json!(false), pretrained)?;
                if part.get("dataset_cls") == "ImageNet" {
                    part.defaults.insert("num_classes".to_owned(), json!(1000));
                }
                self.classes(part)?;
                self.set("model.vgg_type", &part.get("type"));
                self.set("model.classification_readout_type", &part.get("readout_type"));
                self.set("model.avg_pool", &part.get("avg_pool"));
                Ok(())
            }
            Class::MtlVgg => {
                part.only("pretrained", &json!(false), pretrained)?;
                if part.is("classification") == (data == Class::Neural) {
                    return Err("model.classification does not go with the data sets".to_owned());
                }
                if part.is("classification") {
                    self.classes(part)?;
                    let readout = part.get("classification_readout_type");
                    if readout.is_null() {
                        return Err(
                            "model.classification_readout_type: is not given; conv or dense".to_owned()
                        );
                    }
                    self.set("model.classification_readout_type", &readout);
                }
                let dropout = part.get("add_dropout");
                if dropout != json!({}) {
                    self.set("model.add_dropout", &dropout);
                }
                for key in [
                    "vgg_type",
                    "v1_model_layer",
                    "v4_model_layer",
                    "v1_fine_tune",
                    "v1_init_mu_range",
                    "v1_init_sigma_range",
                    "v1_readout_bias",
                    "v1_final_batchnorm",
                    "v1_gamma_readout",
                    "v1_elu_offset",
                ] {
                    self.set(&format!("model.{key}"), &part.get(key));
                }
                Ok(())
            }
            Class::Se => {
                self.se(part);
                Ok(())
            }
            _ => Err("model: is no class of models".to_owned()),
        }
    }

    /// All that is given reaches the network.
    fn se(&mut self, part: &mut Part) {
        let own = ["comment", "fn", "dropout", "get_intermediate_rep", "hidden_dilation", "se_reduction"];
        let gauss = part.get("readout_type") == "gauss";
        let keys = part.class.defaults().into_iter().filter(|(key, _)| !own.contains(&key.as_str()));
        let mut values: Map<String, Value> = keys.collect();
        if !gauss {
            for key in ["hidden_dilation", "se_reduction"] {
                values.insert(key.to_owned(), part.get(key));
            }
        }
        for (key, value) in
            part.given.iter().filter(|(key, value)| !value.is_null() && !own[..4].contains(&key.as_str()))
        {
            values.insert(key.clone(), value.clone());
        }
        part.given.retain(|key, _| own[..4].contains(&key.as_str()));
        values.iter().for_each(|(key, value)| self.set(&format!("model.se.{key}"), value));
    }

    /// Networks have as many classes as the set.
    fn classes(&self, part: &mut Part) -> Result<(), String> {
        let images = self.table.get("data").and_then(|data| data.get("images")).and_then(toml::Value::as_str);
        let n = if images == Some("imagenet") { 1000 } else { 200 };
        part.only(
            "num_classes",
            &json!(n),
            "a network has the classes of the set; choose them with `nct prepare --classes A..B`",
        )
    }

    fn trainer(&mut self, part: &mut Part, data: Class) -> Result<(), String> {
        for (key, none) in [
            ("representation_matching", json!({})),
            ("rdm_prediction", json!({})),
            ("lottery_ticket", json!({})),
            ("rdm_transfer", json!(false)),
            ("reset_linear_frequency", json!(false)),
            ("reset_linear", json!(false)),
        ] {
            part.only(key, &none, "write it into [modules] by hand")?;
        }
        self.optimizer(part)?;
        self.schedule(part)?;
        self.mix(part)?;
        self.loss(part, data)?;
        self.freeze(part)?;
        for key in ["add_final_train_eval", "add_final_val_eval", "add_final_test_eval"] {
            self.set(&format!("evaluation.{key}"), &part.get(key));
        }
        if let Some(subset) = part.get("return_classification_subset").as_u64() {
            self.set("evaluation.return_classification_subset", &json!(subset));
        }
        Ok(())
    }

    fn optimizer(&mut self, part: &mut Part) -> Result<(), String> {
        let name = part.get("optimizer");
        let kind = name.as_str().unwrap_or_default().to_lowercase();
        if !["sgd", "adam", "adamw"].contains(&kind.as_str()) {
            return Err(format!("trainer.optimizer = {name}: expected SGD, Adam or AdamW"));
        }
        self.set("optimizer.kind", &json!(kind));
        let options = part.get("optimizer_options");
        if options.get("lr").is_none() {
            // What PyTorch fills in; of SGD it asks for one.
            self.set("optimizer.lr", &json!(1e-3));
        }
        if kind == "adamw" && options.get("weight_decay").is_none() {
            self.set("optimizer.weight_decay", &json!(1e-2));
        }
        for (key, value) in options.as_object().into_iter().flatten() {
            // A switch that is off.
            if value != false {
                self.set(&format!("optimizer.{key}"), value);
            }
        }
        let mut groups = Vec::new();
        for (fragment, options) in part.get("specific_opt_options").as_object().into_iter().flatten() {
            let mut group = json!({"fragment": fragment});
            for (key, value) in options.as_object().into_iter().flatten().filter(|(key, _)| *key != "params")
            {
                group[key] = value.clone();
            }
            groups.push(group);
        }
        if !groups.is_empty() {
            self.set("optimizer.groups", &json!(groups));
        }
        Ok(())
    }

    fn schedule(&mut self, part: &mut Part) -> Result<(), String> {
        let options = part.get("scheduler_options");
        let scheduler = match part.get("scheduler").as_str() {
            Some("" | "none") => "none",
            Some("manual") => "manual",
            Some("adaptive") if options["mtl"] == true => "phases",
            Some("adaptive") => "adaptive",
            other => return Err(format!("trainer.scheduler = {other:?}: expected \"\", adaptive or manual")),
        };
        self.set("schedule.scheduler", &json!(scheduler));
        match scheduler {
            "manual" => self.set("schedule.milestones", &options["milestones"]),
            "adaptive" => {
                self.set("schedule.min_lr", &part.get("min_lr"));
                self.set("schedule.threshold_mode", &part.get("threshold_mode"));
            }
            _ => {}
        }
        if scheduler != "none" {
            self.set("schedule.lr_decay", &part.get("lr_decay"));
        }
        for key in [
            "patience",
            "threshold",
            "lr_decay_steps",
            "interval",
            "max_iter",
            "restore_best",
            "maximize",
            "to_monitor",
        ] {
            self.set(&format!("schedule.{key}"), &part.get(key));
        }
        Ok(())
    }

    fn mix(&mut self, part: &mut Part) -> Result<(), String> {
        let args = part.get("train_cycler_args");
        let known = |key: &&String| ["main_key", "ratio", "grad_accum_step"].contains(&key.as_str());
        if let Some(key) = args.as_object().and_then(|args| args.keys().find(|key| !known(key))) {
            return Err(format!(
                "trainer.train_cycler_args.{key}: expected main_key, ratio, grad_accum_step"
            ));
        }
        let main = json!("img_classification");
        match part.get("train_cycler").as_str() {
            Some("LongCycler") => self.set("mix.kind", &json!("long")),
            Some("ShortCycler") => self.set("mix.kind", &json!("short")),
            Some("MTL_Cycler") => {
                let found = args.get("main_key").unwrap_or(&main);
                if *found != main {
                    return Err(format!(
                        "trainer.train_cycler_args.main_key = {found}: only img_classification"
                    ));
                }
                self.set("mix.kind", &json!("mtl"));
                let mut ratio = Map::new();
                match args.get("ratio").unwrap_or(&json!(1)) {
                    Value::Object(by_epoch) => {
                        for (epoch, value) in by_epoch {
                            ratio.insert(epoch.clone(), ratio_of(value)?);
                        }
                    }
                    always => {
                        ratio.insert("1".to_owned(), ratio_of(always)?);
                    }
                }
                self.set("mix.ratio", &ratio.into());
            }
            other => {
                return Err(format!(
                    "trainer.train_cycler = {other:?}: expected LongCycler, ShortCycler or MTL_Cycler"
                ));
            }
        }
        if let Some(n) = args["grad_accum_step"].as_u64().filter(|n| *n > 0) {
            self.set("mix.batches_per_step", &json!(n));
        }
        Ok(())
    }

    fn loss(&mut self, part: &mut Part, data: Class) -> Result<(), String> {
        let losses = part.get("loss_functions");
        let mut poisson = false;
        let has = |table: &Table, key: &str| {
            let name = table.get("data").and_then(|data| data.get(key));
            name.and_then(toml::Value::as_str).is_some_and(|name| !name.is_empty())
        };
        for (task, set, key) in [
            ("img_classification", "images", None),
            ("v1", "neural", Some("loss.neural")),
            ("v4", "neural_v4", Some("loss.neural_v4")),
        ] {
            let loss = losses.get(task).filter(|loss| !loss.is_null());
            match (has(&self.table, set), loss, key) {
                // The reference asks for the loss of every task that there are data of.
                (true, None, _) => return Err(format!("trainer.loss_functions.{task}: is not given")),
                (true, Some(loss), None) if loss != "CrossEntropyLoss" => {
                    return Err(format!("trainer.loss_functions.{task} = {loss}: expected CrossEntropyLoss"));
                }
                (true, Some(loss), Some(key)) => {
                    poisson |= loss == "PoissonLoss";
                    self.set(key, loss);
                }
                (false, Some(_), _) => {
                    self.notes.push(format!(
                        "trainer: without effect here: loss_functions.{task}, of which there are no data"
                    ));
                }
                _ => {}
            }
        }
        let weighing = part.is("loss_weighing");
        self.set("loss.loss_weighing", &json!(weighing));
        self.set("loss.loss_sum", &part.get("loss_sum"));
        // Defined where there are neural losses only.
        let (scale, average) = (part.get("scale_loss"), part.get("avg_loss"));
        self.set("loss.scale_loss", &if data == Class::Images { json!(false) } else { scale });
        if poisson && !weighing {
            self.set("loss.avg_loss", &average);
        }
        Ok(())
    }

    fn freeze(&mut self, part: &mut Part) -> Result<(), String> {
        let freeze = part.get("freeze");
        let readout = part.get("readout_name");
        if let Some(fragments) = freeze.get("freeze") {
            let list = if fragments.is_string() { json!([fragments]) } else { fragments.clone() };
            if part.is("mtl") {
                // The reference does not look at the fragments then (spec/trainer 3.7).
                self.set("freeze.parameters", &json!(["v1_block"]));
            } else if list == json!(["core"]) {
                self.set("freeze.all_but", &json!([readout]));
            } else if list == json!(["readout"]) {
                self.set("freeze.parameters", &json!([readout]));
            } else {
                self.set("freeze.parameters", &list);
            }
        }
        if let Some(reset) = freeze.get("reset") {
            self.set("freeze.reset", &if reset.is_string() { json!([reset]) } else { reset.clone() });
        }
        let last = part.get("freeze_bn")["last_layer"].as_i64().unwrap_or(-1);
        if last > 0 {
            self.set("freeze.norms_below", &json!(last));
        }
        let known = |key: &&String| ["freeze", "reset"].contains(&key.as_str());
        match freeze.as_object().into_iter().flatten().map(|(key, _)| key).find(|key| !known(key)) {
            Some(key) => Err(format!("trainer.freeze.{key}: expected freeze and reset")),
            None => Ok(()),
        }
    }
}

/// A whole number, or `1/n` of a fraction.
fn ratio_of(value: &Value) -> Result<Value, String> {
    let wrong = || format!("trainer.train_cycler_args.ratio: {value} is neither a whole number nor 1/n");
    match value.as_f64() {
        Some(ratio) if ratio.fract() == 0.0 && ratio >= 0.0 => Ok(json!(ratio as u64)),
        Some(ratio) if ratio > 0.0 && ratio < 1.0 => {
            let n = (1.0 / ratio).round();
            if (1.0 / n - ratio).abs() < 1e-9 { Ok(json!(format!("1/{n}"))) } else { Err(wrong()) }
        }
        _ => Err(wrong()),
    }
}
