//! Data sets.

use super::{Part, Writer};
use crate::config::reference::defaults::{Class, of_images};
use serde_json::{Value, json};

const NORMALIZATION: &str =
    "v1 and v4 are normalized differently; data.neural_mean and data.neural_std are of both";

impl Writer {
    pub(super) fn data(&mut self, part: &mut Part) -> Result<(), String> {
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
        let mut seen: Option<[Value; 4]> = None;
        for (mut neural, area) in [(v1, ""), (v4, "_v4")] {
            if neural.given.is_empty() {
                continue;
            }
            // Gray or not, stimuli are as they were prepared.
            neural.get("apply_grayscale");
            let shared = ["batch_size", "image_frac", "normalize", "stats"].map(|key| neural.get(key));
            if let Some(other) = &seen {
                let name = neural.name;
                if other[0] != shared[0] {
                    return Err(format!("{name}.batch_size: data.neural_batch_size is of v1 and v4"));
                }
                if other[1] != shared[1] {
                    return Err(format!("{name}.image_frac: data.neural_frac is of v1 and v4"));
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
        part.defaults.extend(of_images(imagenet, gray));
        if part.is("apply_normalization") {
            self.set("data.mean", &part.get("train_data_mean"));
            self.set("data.std", &part.get("train_data_std"));
        } else {
            let n = if gray { 1 } else { 3 };
            self.set("data.mean", &json!(vec![0.0; n]));
            self.set("data.std", &json!(vec![1.0; n]));
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
        let share = part.get("image_frac");
        if !share.is_null() && share.as_f64() != Some(1.0) {
            self.set("data.neural_frac", &share);
            self.notes
                .push("image_frac is of training trials here; all validation trials are used".to_owned());
        }
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
        let bins = time_bins(&bins);
        self.notes.push(format!(
            "the set {} is prepared with: nct prepare DATA --only {} --crop {} --subsample {subsample} --scale {scale} --time-bins-sum {bins} --train-frac {share} --split-seed {seed}",
            name, name.as_str().unwrap_or_default(), crop.join(",")
        ));
        Ok(())
    }
}

/// The form that `nct prepare --time-bins-sum` takes: a list of one bin is a range, since a number is how many.
fn time_bins(bins: &Value) -> String {
    let Value::Array(list) = bins else { return bins.to_string() };
    if let [one] = list.as_slice()
        && let Some(bin) = one.as_u64()
    {
        return format!("{bin}..{}", bin + 1);
    }
    list.iter().map(Value::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_bins_are_told_in_the_form_that_prepare_takes() {
        for (bins, told) in
            [(json!(12), "12"), (json!([4, 5, 6]), "4,5,6"), (json!([4]), "4..5"), (json!([0, 7]), "0,7")]
        {
            assert_eq!(time_bins(&bins), told);
            assert!(told.parse::<crate::ingest::Bins>().is_ok());
        }
    }
}
