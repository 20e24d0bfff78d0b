//! Networks.

use super::{Part, Writer};
use crate::config::reference::defaults::Class;
use serde_json::{Map, Value, json};

impl Writer {
    pub(super) fn model(&mut self, part: &mut Part, data: Class) -> Result<(), String> {
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
}
