//! How they are trained.

use super::{Part, Writer};
use crate::config::reference::defaults::Class;
use serde_json::{Map, Value, json};
use toml::Table;

impl Writer {
    pub(super) fn trainer(&mut self, part: &mut Part, data: Class) -> Result<(), String> {
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
                let losses = part.get("loss_functions");
                let areas = ["v1", "v4"].into_iter().filter(|area| !losses[*area].is_null());
                let blocks: Vec<String> = areas.map(|area| format!("{area}_block")).collect();
                self.set("freeze.parameters", &json!(blocks));
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
            let what =
                "freeze.norms_below counts layers without added dropout, which trainer.freeze_bn counts too";
            self.notes.push(what.to_owned());
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
