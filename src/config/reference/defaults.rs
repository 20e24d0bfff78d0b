//! What the reference's configuration classes fill in (spec/data 4, spec/models 4, spec/trainer 5.1).

use serde_json::{Map, Value, json};
use std::sync::LazyLock;

/// A configuration class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    Images,
    Neural,
    MtlData,
    Vgg,
    Se,
    MtlVgg,
    Trainer,
}

/// Class, its name, and the function that its dictionaries go to.
const CLASSES: [(Class, &str, &str); 7] = [
    (Class::Images, "ImageDatasetConfig", "neural_cotraining.dataset.img_dataset_loader"),
    (Class::Neural, "NeuralDatasetConfig", "neural_cotraining.dataset.neural_loader"),
    (Class::MtlData, "MTLDatasetsConfig", "neural_cotraining.dataset.mtl_loader"),
    (Class::Vgg, "ClassificationModelConfig", "neural_cotraining.models.classification_cnn_builder"),
    (Class::Se, "NeuralModelConfig", "neural_cotraining.models.neural_cnn_builder"),
    (Class::MtlVgg, "MTLModelConfig", "neural_cotraining.models.mtl_builder"),
    (Class::Trainer, "CoTrainerConfig", "neural_cotraining.trainer.cotrainer"),
];

impl Class {
    /// By the name of the class.
    pub(super) fn by_name(name: &str) -> Option<Self> {
        CLASSES.iter().find(|(_, of, _)| *of == name).map(|(class, ..)| *class)
    }

    /// By the function, of which the last part tells.
    pub(super) fn by_function(function: &str) -> Option<Self> {
        let last = |path: &str| path.rsplit('.').next().map(str::to_owned);
        CLASSES.iter().find(|(.., of)| last(of) == last(function)).map(|(class, ..)| *class)
    }

    /// The function.
    pub(super) fn function(self) -> &'static str {
        CLASSES.iter().find(|(class, ..)| *class == self).map_or("", |(.., function)| function)
    }

    /// Every key with its default, in the order in which the reference has them.
    pub(super) fn defaults(self) -> Map<String, Value> {
        let name = CLASSES.iter().find(|(class, ..)| *class == self).map_or("", |(_, name, _)| name);
        DEFAULTS.get(name).and_then(Value::as_object).cloned().unwrap_or_default()
    }
}

/// What images have instead of their class's defaults, by their set and whether they are shown in gray (spec/data 3, 4).
pub(super) fn of_images(imagenet: bool, gray: bool) -> Map<String, Value> {
    let (mean, std) = match (imagenet, gray) {
        (false, true) => (json!([0.4519]), json!([0.2221])),
        (false, false) => (json!([0.4802, 0.4481, 0.3975]), json!([0.2302, 0.2265, 0.2262])),
        (true, true) => (json!([0.4573]), json!([0.2156])),
        (true, false) => (json!([0.485, 0.456, 0.406]), json!([0.229, 0.224, 0.225])),
    };
    let (size, workers, share) = if imagenet { (224, 8, 0.01) } else { (64, 1, 0.1) };
    let own = json!({
        "train_data_mean": mean, "train_data_std": std,
        "input_size": size, "num_workers": workers, "valid_size": share,
    });
    own.as_object().cloned().unwrap_or_default()
}

static DEFAULTS: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("defaults.json")).unwrap_or_default());
