//! Settings: from the file as typed to the experiment as meant, once and strictly. A key that is not
//! known is an error, and so is one that would have no effect.
//!
//! Absent: everything that runs.

mod assemble;
mod every;
mod identity;
mod recipe;
mod reference;
mod residency;
mod study;

pub use assemble::{Data, DataError, Labelled};
pub use every::{EverySettings, PeriodicSuite};
pub use recipe::{Point, Recipe};
pub use reference::{Dictionaries, Imported, Prepared, dictionaries, import};
pub use residency::Stay;
pub use study::{Expected, Responses, Stage, Study, Training, Work};

use crate::base::Task;
use crate::load::AugmentSettings;
use crate::model::{ModelSettings, Precision, Runtime};
use crate::objective::ObjectiveSettings;
use crate::schedule::{LastBatch, Mix, RatioByEpoch};
use crate::train::modules::ModuleSettings;
use crate::train::{AnnealSettings, CheckpointSettings, Nonfinite, OptimizerSettings};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// A settings file or override that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{origin}: {what}")]
pub struct ConfigError {
    origin: String,
    what: String,
}

impl ConfigError {
    fn new(origin: impl Into<String>, what: impl Into<String>) -> Self {
        Self { origin: origin.into(), what: what.into() }
    }
}

/// An experiment: everything that decides its result, beside the shards.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Experiment {
    /// Part of the run folder's name.
    pub name: String,
    /// Seed of initial weights, order, augmentation and dropout.
    pub seed: u64,
    /// What is learned from.
    pub data: DataSettings,
    /// Threads and read-ahead; they change no result.
    pub loader: LoaderSettings,
    /// How batches become updates.
    pub mix: MixSettings,
    /// The network.
    pub model: ModelSettings,
    /// The losses.
    pub loss: ObjectiveSettings,
    /// The optimiser.
    pub optimizer: OptimizerSettings,
    /// Learning rate and early stopping.
    pub schedule: AnnealSettings,
    /// Weights to start from.
    pub init: InitSettings,
    /// What is not trained, and what is drawn anew at the start.
    pub freeze: FreezeSettings,
    /// Additions to the training loop.
    pub modules: ModuleSettings,
    /// Which checkpoints are kept.
    pub checkpoint: CheckpointSettings,
    /// Precision, and what to do with losses that are no numbers.
    pub numerics: NumericsSettings,
    /// What is evaluated at the end.
    pub evaluation: EvaluationSettings,
}

/// Weights to start from: another run's, or a file of PyTorch's or our own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct InitSettings {
    /// Folder of a run, or a `.safetensors`, `.pth` or `.pt` file; empty for fresh weights.
    pub from: PathBuf,
    /// Of a run: `best` or `last`.
    pub checkpoint: String,
    /// Every parameter must be there, in the right shape, and no other. Without it what fits is taken, and the
    /// rest is told (spec/trainer 6.5).
    pub strict: bool,
}

impl Default for InitSettings {
    fn default() -> Self {
        Self { from: PathBuf::new(), checkpoint: "best".to_owned(), strict: false }
    }
}

/// What is not trained (spec/trainer 3.7).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FreezeSettings {
    /// Parameters whose names contain one of these.
    pub parameters: Vec<String>,
    /// The opposite: parameters whose names contain none of these.
    pub all_but: Vec<String>,
    /// Layers, such as `features.20`, that are drawn anew after `init`; `all` for every one.
    pub reset: Vec<String>,
    /// Batch norms of the shared blocks (of `features` without neural data) below this layer use and keep their
    /// running statistics in training; 0 for none.
    pub norms_below: usize,
}

/// How numbers are handled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NumericsSettings {
    /// `f32`, or `bf16` for convolutions and linear layers with parameters, norms, readouts and losses in f32.
    pub precision: Precision,
    /// Keep maps with channels last, which some devices prefer; it changes rounding, and which values
    /// dropout drops.
    pub channels_last: bool,
    /// `stop` or `skip`: what to do with an update whose loss is NaN or infinite.
    pub on_nonfinite: Nonfinite,
    /// Whether a GPU repeats forward and backward passes from a recording (CUDA graphs): the same numbers with less work
    /// for the host, which small networks and batches otherwise wait for. Without modules. Several processes exchange
    /// their gradients after the last pass of an update then, instead of during it.
    pub graphs: bool,
    /// Whether a GPU works through maps with channels last by kernels of nct's own, which go through memory less often:
    /// readouts, and in bf16 normalisation with rectification and pooling; and adds gradients up where they are made. The
    /// same numbers up to rounding.
    pub fused: bool,
}

impl Default for NumericsSettings {
    fn default() -> Self {
        Self {
            precision: Precision::default(),
            channels_last: false,
            on_nonfinite: Nonfinite::default(),
            graphs: false,
            fused: true,
        }
    }
}

/// What is evaluated at the end with the best weights (spec/trainer 4.5), and between epochs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EvaluationSettings {
    /// The training data, without augmentation.
    pub add_final_train_eval: bool,
    /// The validation data.
    pub add_final_val_eval: bool,
    /// The test data.
    pub add_final_test_eval: bool,
    /// Cut the logits to so many classes; 0 for all.
    pub return_classification_subset: u32,
    /// Suites that are evaluated while training too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub every: Option<EverySettings>,
}

impl Default for EvaluationSettings {
    fn default() -> Self {
        Self {
            add_final_train_eval: true,
            add_final_val_eval: true,
            add_final_test_eval: true,
            return_classification_subset: 0,
            every: None,
        }
    }
}

impl Default for Experiment {
    /// The paper's co-training (MTL-Monkey).
    fn default() -> Self {
        Self {
            name: "mtl_monkey".to_owned(),
            seed: 1000,
            data: DataSettings::default(),
            loader: LoaderSettings::default(),
            mix: MixSettings::default(),
            model: ModelSettings::default(),
            loss: ObjectiveSettings::default(),
            optimizer: OptimizerSettings::default(),
            schedule: AnnealSettings::default(),
            init: InitSettings::default(),
            freeze: FreezeSettings::default(),
            modules: ModuleSettings::default(),
            checkpoint: CheckpointSettings::default(),
            numerics: NumericsSettings::default(),
            evaluation: EvaluationSettings::default(),
        }
    }
}

/// Which data sets, and how their images are shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DataSettings {
    /// The set of labelled images; empty for none.
    pub images: String,
    /// The neural set; empty for none.
    pub neural: String,
    /// A second neural set, of area V4; empty for none.
    pub neural_v4: String,
    /// Learn the classes of stimuli too, where the recordings have them: such a batch passes the shared layers
    /// once, and both losses are added (spec/trainer 1.8).
    pub neural_labels: bool,
    /// Show one gray channel.
    pub gray: bool,
    /// Side of the square that is shown of labelled images: of training images what `augment` makes of them, of
    /// others the middle. All of what is stored if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_size: Option<u32>,
    /// Share of the labelled training images that are trained on, all if not given: the same random choice in every run,
    /// and a larger share has all of a smaller one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frac: Option<f64>,
    /// The same of each session's training trials (spec/data 1.4, `image_frac`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub neural_frac: Option<f64>,
    /// Labelled images per batch.
    pub batch_size: u32,
    /// Stimuli per batch.
    pub neural_batch_size: u32,
    /// Mean and standard deviation of each channel, of labelled images; the shards' own if empty.
    pub mean: Vec<f64>,
    /// See `mean`.
    pub std: Vec<f64>,
    /// The same for stimuli.
    pub neural_mean: Vec<f64>,
    /// The same for stimuli.
    pub neural_std: Vec<f64>,
    /// Augmentation of labelled training images.
    pub augment: AugmentSettings,
    /// Augmentation of training stimuli: none, unless given.
    pub neural_augment: AugmentSettings,
    /// What becomes of the last batch of a pass when it is not full: "keep", "drop" or "fill".
    pub last_batch: LastBatch,
    /// Shuffle labelled training images within windows of so many MiB of decoded pixels (random blocks
    /// of the shards), so that they need not all be in memory. Without it, over the whole set.
    pub shuffle_window_mb: Option<u32>,
}

impl Default for DataSettings {
    fn default() -> Self {
        Self {
            images: "tiny-imagenet-200".to_owned(),
            neural: "mtl_monkey_dataset".to_owned(),
            neural_v4: String::new(),
            neural_labels: false,
            gray: true,
            input_size: None,
            frac: None,
            neural_frac: None,
            batch_size: 128,
            neural_batch_size: 128,
            mean: Vec::new(),
            std: Vec::new(),
            neural_mean: Vec::new(),
            neural_std: Vec::new(),
            augment: AugmentSettings::default(),
            neural_augment: AugmentSettings::NONE,
            last_batch: LastBatch::Keep,
            shuffle_window_mb: None,
        }
    }
}

/// Threads and read-ahead.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LoaderSettings {
    /// Threads that make batches.
    pub threads: usize,
    /// Updates that each may be ahead.
    pub depth: usize,
    /// MiB of memory for decoded data; half of what is free at the start if not given. It changes speed,
    /// and what is delivered only if the training images do not fit and `data.shuffle_window_mb` is not
    /// given; then that is set.
    pub cache_mb: Option<u32>,
    /// Whether training images go to the device once, as bytes, and batches are made there: the same batches to the
    /// bit, and to 1e-5 of the scale of [0, 1] where noise is added.
    pub resident: Residency,
}

/// Where batches of training images are made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Residency {
    /// On a GPU, those of data sets that fit half of its free memory together and need nothing of the host but
    /// where pixels come from; on the host otherwise.
    #[default]
    Auto,
    /// On the device, or not at all.
    On,
    /// On the host.
    Off,
}

impl Default for LoaderSettings {
    fn default() -> Self {
        Self { threads: 2, depth: 2, cache_mb: None, resident: Residency::Auto }
    }
}

/// Name of a mix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum MixKind {
    /// Neural batches before each image batch.
    Mtl,
    /// Round-robin until the longest stream has passed.
    Long,
    /// Round-robin until the shortest stream has passed.
    Short,
    /// In proportion to weights.
    Weighted,
    /// In proportion to the numbers of batches.
    Proportional,
}

/// How batches become updates.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MixSettings {
    /// `mtl`, `long`, `short`, `weighted` or `proportional`.
    pub kind: MixKind,
    /// Of `mtl`: neural batches per image batch, from an epoch on, such as `{ 1 = 1 }` or `{ 1 = "1/3" }`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ratio: Option<RatioByEpoch>,
    /// Batches per update, over which gradients add up: of `mtl` image batches, with the neural batches that go
    /// with them; of `long` and `short`, one round if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batches_per_step: Option<u32>,
    /// Of `weighted` and `proportional`: updates per epoch; one pass over all if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps_per_epoch: Option<u64>,
    /// Of `weighted`: share of image batches, and of each area's over all its sessions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<TaskWeights>,
}

/// Shares of the tasks.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TaskWeights {
    /// Of image batches.
    pub img_classification: f64,
    /// Of V1 batches, divided evenly over the sessions.
    pub v1: f64,
    /// Of V4 batches, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub v4: Option<f64>,
}

impl Default for MixSettings {
    fn default() -> Self {
        Self { kind: MixKind::Mtl, ratio: None, batches_per_step: None, steps_per_epoch: None, weights: None }
    }
}

impl MixSettings {
    /// The schedule's mix; the error names a key that does not apply.
    pub fn mix(&self) -> Result<Mix, String> {
        let weighted = matches!(self.kind, MixKind::Weighted | MixKind::Proportional);
        let given = [
            ("ratio", self.ratio.is_some(), self.kind == MixKind::Mtl),
            ("steps_per_epoch", self.steps_per_epoch.is_some(), weighted),
            ("weights", self.weights.is_some(), self.kind == MixKind::Weighted),
        ];
        if let Some((key, ..)) = given.iter().find(|(_, given, applies)| *given && !applies) {
            let kind = format!("{:?}", self.kind).to_lowercase();
            let whole = crate::schedule::only(&kind);
            return Err(format!(
                "mix.{key} does not apply to kind = {kind}; to replace the whole mix: {whole}"
            ));
        }
        Ok(match self.kind {
            MixKind::Mtl => {
                let one = || RatioByEpoch::new([(1, crate::schedule::Ratio::PerStep(1))]);
                Mix::Mtl {
                    ratio: self.ratio.clone().map_or_else(one, Ok)?,
                    images_per_step: self.batches_per_step.unwrap_or(1),
                }
            }
            MixKind::Long => Mix::Long { batches_per_step: self.batches_per_step.unwrap_or(0) },
            MixKind::Short => Mix::Short { batches_per_step: self.batches_per_step.unwrap_or(0) },
            MixKind::Weighted | MixKind::Proportional => Mix::Weighted {
                batches_per_step: self.batches_per_step.unwrap_or(1),
                steps_per_epoch: self.steps_per_epoch.unwrap_or(0),
            },
        })
    }
}

/// Whether a name can be that of a folder everywhere.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
}

impl Experiment {
    /// Reads a recipe that is one run, then applies `key.path=value` overrides.
    pub fn read(path: &Path, overrides: &[String]) -> Result<Self, ConfigError> {
        Recipe::read(path)?.single(overrides)
    }

    /// As [`Self::read`] from text; `origin` is used in messages.
    pub fn parse(text: &str, origin: &str, overrides: &[String]) -> Result<Self, ConfigError> {
        Recipe::parse(text, origin)?.single(overrides)
    }

    /// Views of each labelled training image in a batch.
    pub fn views(&self) -> u64 {
        if self.modules.representation_matching.is_some() { 2 } else { 1 }
    }

    /// Precision and memory format of the network.
    pub fn runtime(&self) -> Runtime {
        let NumericsSettings { precision, channels_last, fused, .. } = self.numerics;
        Runtime { precision, channels_last, fused }
    }

    /// All settings as text, from which [`Self::parse`] gives the same experiment.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("settings are tables of plain values")
    }

    fn check(&self) -> Result<(), String> {
        let data = &self.data;
        if [&data.images, &data.neural, &data.neural_v4].iter().all(|name| name.is_empty()) {
            return Err(
                "data.images, data.neural and data.neural_v4 are all empty: there is nothing to learn".into(),
            );
        }
        if data.batch_size == 0
            || data.neural_batch_size == 0
            || self.loader.threads == 0
            || self.loader.depth == 0
        {
            return Err("batch sizes, loader.threads and loader.depth must be at least 1".into());
        }
        for (key, share) in [("frac", data.frac), ("neural_frac", data.neural_frac)] {
            if share.is_some_and(|share| !(share > 0.0 && share <= 1.0)) {
                return Err(format!("data.{key}: expected a share above 0 and up to 1"));
            }
        }
        if data.mean.len() != data.std.len() || data.neural_mean.len() != data.neural_std.len() {
            return Err("a mean needs a std for each channel, and the reverse".into());
        }
        for augment in [&data.augment, &data.neural_augment] {
            if augment.crop_padding > 1000 || !(0.0..=180.0).contains(&augment.rotation_degrees) {
                return Err("augmentation: crop_padding up to 1000, rotation_degrees from 0 to 180".into());
            }
            augment.check()?;
        }
        let no_stimuli = data.neural.is_empty() && data.neural_v4.is_empty();
        if (data.frac.is_some() && data.images.is_empty()) || (data.neural_frac.is_some() && no_stimuli) {
            return Err("data.frac needs labelled images, and data.neural_frac a neural set".into());
        }
        if data.neural_labels && (data.images.is_empty() || no_stimuli) {
            let what = "data.neural_labels needs labelled images, whose classes they are, and a neural set";
            return Err(what.into());
        }
        if !is_name(&self.name) {
            return Err(format!("name = {:?}: a name has letters, digits, dots, _ and - only", self.name));
        }
        self.mix.mix()?;
        self.loss.check()?;
        self.optimizer.check()?;
        self.modules.check(self.schedule.max_iter)?;
        if self.numerics.graphs && self.modules != ModuleSettings::default() {
            return Err(
                "numerics.graphs repeats what a batch is made to do, which modules change; give one of both"
                    .into(),
            );
        }
        self.check_start()?;
        self.schedule.check()?;
        self.check_monitored()
    }
}

impl Experiment {
    fn check_monitored(&self) -> Result<(), String> {
        let data = &self.data;
        let key = |task: Task| match task {
            Task::V1 => ("data.neural", &data.neural),
            Task::V4 => ("data.neural_v4", &data.neural_v4),
            Task::Classification => ("data.images", &data.images),
        };
        let lacks = |task: &Task| key(*task).1.is_empty();
        let Some(&task) = self.schedule.to_monitor.iter().find(|task| lacks(task)) else { return Ok(()) };
        let there: Vec<&str> =
            Task::ALL.iter().filter(|task| !lacks(task)).map(|task| task.as_str()).collect();
        Err(format!(
            "schedule.to_monitor names {task}, and {} is empty; to monitor what is learned: --set 'schedule.to_monitor={there:?}'",
            key(task).0
        ))
    }

    fn check_start(&self) -> Result<(), String> {
        let InitSettings { from, checkpoint, .. } = &self.init;
        let default = InitSettings::default();
        if from.as_os_str().is_empty() && self.init != default {
            return Err("init.checkpoint and init.strict have no effect without init.from".into());
        }
        if !["best", "last"].contains(&checkpoint.as_str()) {
            return Err(format!("init.checkpoint = {checkpoint:?}: a run has \"best\" and \"last\""));
        }
        if !self.freeze.parameters.is_empty() && !self.freeze.all_but.is_empty() {
            return Err("freeze.parameters and freeze.all_but exclude one another".into());
        }
        if self.checkpoint.every_updates == Some(0) {
            return Err("checkpoint.every_updates must be at least 1".into());
        }
        self.evaluation.every.as_ref().map_or(Ok(()), EverySettings::check)?;
        let images = [
            ("evaluation.every", self.evaluation.every.is_some()),
            ("modules.representation_matching", self.modules.representation_matching.is_some()),
            ("modules.rdm_prediction", self.modules.rdm_prediction.is_some()),
        ];
        match images.iter().find(|(_, given)| *given && self.data.images.is_empty()) {
            Some((key, _)) => Err(format!("{key} needs labelled images: data.images is empty")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, overrides: &[&str]) -> Result<Experiment, String> {
        let overrides: Vec<String> = overrides.iter().map(|&o| o.to_owned()).collect();
        Experiment::parse(text, "test.toml", &overrides).map_err(|e| e.to_string())
    }

    #[test]
    fn settings_come_back_from_their_own_text() {
        let text = "[mix]\nkind = \"mtl\"\nratio = { 1 = 2, 5 = \"1/3\" }\n[optimizer]\nkind = \"adam\"\nlr = 5e-4\n";
        for experiment in [Experiment::default(), parse(text, &["model.vgg_type=bn 8 M"]).unwrap()] {
            assert_eq!(parse(&experiment.to_toml(), &[]).unwrap(), experiment);
        }
    }

    #[test]
    fn errors_name_the_file_and_the_key() {
        for (text, overrides, parts) in [
            ("seeed = 1", &[][..], &["test.toml", "line 1", "seeed"][..]),
            ("[optimizer]\nlr = 0.1", &[], &["test.toml", "kind"]),
            ("", &["optimizer.lr=fast"], &["optimizer", "lr"]),
            ("", &["model.depth=3"], &["model", "depth"]),
            ("", &["seed"], &["--set seed", "key.path=value"]),
            (
                "[mix]\nkind = \"long\"\nratio = { 1 = 1 }",
                &[],
                &["mix.ratio does not apply", "--set 'mix={kind=\"long\"}'"],
            ),
            (
                "[data]\nneural = \"\"\n[schedule]\nto_monitor = [\"img_classification\", \"v1\"]",
                &[],
                &[
                    "names v1, and data.neural is empty",
                    "--set 'schedule.to_monitor=[\"img_classification\"]'",
                ],
            ),
            ("[data]\nimages = \"\"\nneural = \"\"", &[], &["nothing to learn"]),
            ("name = \"../up\"", &[], &["name"]),
            (
                "[evaluation.every]\nepochs = 1\nsuites = [\"noise\"]\nseverities = [1]",
                &[],
                &["evaluation.every", "no effect"],
            ),
            ("[evaluation.every]\nepochs = 0", &[], &["evaluation.every.epochs"]),
            ("[model]\nvgg_type = \"vgg12\"", &[], &["vgg12", "vgg11"]),
        ] {
            let message = parse(text, overrides).unwrap_err();
            for part in parts {
                assert!(message.contains(part), "{part:?} is not in {message:?}");
            }
        }
    }
}
