//! An experiment and a folder of shards to what training and evaluation need.

use super::{ConfigError, Experiment, LoaderSettings, MixKind};
use crate::base::{Split, Task};
use crate::eval::{EvalError, Evaluator};
use crate::load::{AugmentSettings, Budget, LoadError, LoaderOptions, Source, View};
use crate::model::{DataInfo, SessionData};
use crate::schedule::{Schedule, StreamSpec};
use crate::shard::{Dataset, ShardError, ShardSet};

/// The data of an experiment.
#[derive(Debug)]
pub struct Data<'a> {
    experiment: &'a Experiment,
    images: Option<&'a Dataset>,
    neural: Vec<(Task, &'a Dataset)>,
    budget: Budget,
}

/// What keeps data from being used.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// Shards.
    #[error(transparent)]
    Shard(#[from] ShardError),
    /// Loading.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Settings that contradict the data.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A split with nothing in it.
    #[error(transparent)]
    Eval(#[from] EvalError),
}

impl<'a> Data<'a> {
    /// Finds the experiment's data sets.
    pub fn open(experiment: &'a Experiment, shards: &'a ShardSet) -> Result<Self, DataError> {
        let find = |name: &str| if name.is_empty() { Ok(None) } else { shards.dataset(name).map(Some) };
        let mut neural = Vec::new();
        for (task, name) in [(Task::V1, &experiment.data.neural), (Task::V4, &experiment.data.neural_v4)] {
            neural.extend(find(name)?.map(|dataset| (task, dataset)));
        }
        Ok(Self {
            experiment,
            images: find(&experiment.data.images)?,
            neural,
            budget: match experiment.loader.cache_mb {
                Some(mb) => Budget::new(u64::from(mb) << 20),
                None => Budget::of_free_memory(),
            },
        })
    }

    /// MiB of a shuffle window for which there is memory, if the training images do not fit or the window of
    /// the experiment is larger: half of what there is, so that one window is read while the next is decoded.
    pub fn window_for_memory(&self) -> Option<u32> {
        let bytes = |d: &Dataset, rows: u64| {
            let image =
                d.manifest().image.iter().fold(d.manifest().pixels.size(), |n, &side| n * u64::from(side));
            image.saturating_mul(rows)
        };
        let of_set = |(_, d): &(Task, &Dataset)| {
            let shards = d.manifest().shards.iter();
            bytes(d, shards.filter(|s| s.split.is_none()).map(|s| s.rows).sum())
        };
        let stimuli: u64 = self.neural.iter().map(of_set).sum();
        let images = self.images.map_or(0, |d| bytes(d, d.manifest().rows(Split::Train, None)));
        let left = self.budget.left().saturating_sub(stimuli);
        let window = self.experiment.data.shuffle_window_mb.map_or(u64::MAX, |mb| u64::from(mb) << 21);
        (images.min(window) > left).then(|| (left >> 21).clamp(1, u64::from(u32::MAX)) as u32)
    }

    /// The data sets.
    pub fn datasets(&self) -> impl Iterator<Item = &'a Dataset> + '_ {
        self.neural.iter().map(|(_, dataset)| *dataset).chain(self.images)
    }

    /// The streams of `split`: sessions in order, then images. Only training data are augmented.
    pub fn sources(&self, split: Split) -> Result<Vec<Source>, DataError> {
        let data = &self.experiment.data;
        let augment =
            |a: &AugmentSettings| if split == Split::Train { a.clone() } else { AugmentSettings::NONE };
        let mut sources = Vec::new();
        for &(task, dataset) in &self.neural {
            let view = self.view(
                dataset,
                &data.neural_mean,
                &data.neural_std,
                augment(&data.neural_augment),
                "neural_",
            )?;
            sources.extend(Source::sessions(dataset, task, split, &view)?);
        }
        if let Some(dataset) = self.images {
            let view = self.view(dataset, &data.mean, &data.std, augment(&data.augment), "")?;
            sources.push(Source::images(dataset, split, &view)?);
        }
        Ok(sources)
    }

    /// The schedule of training over `sources`.
    pub fn schedule(&self, sources: &[Source]) -> Result<Schedule, DataError> {
        let (data, mix) = (&self.experiment.data, &self.experiment.mix);
        let n_sessions = sources.iter().filter(|s| s.task.is_neural()).count().max(1) as f64;
        let stream = |s: &Source| {
            let batch_size = if s.task.is_neural() { data.neural_batch_size } else { data.batch_size };
            let weight = match (mix.kind, &mix.weights, s.task) {
                (MixKind::Proportional, _, _) => s.n_records().div_ceil(u64::from(batch_size)) as f64,
                (_, Some(weights), Task::V1 | Task::V4) => weights.v1 / n_sessions,
                (_, Some(weights), Task::Classification) => weights.img_classification,
                (_, None, _) => 1.0,
            };
            let window = match (data.shuffle_window_mb, s.task) {
                (Some(mb), Task::Classification) => Some(s.window(u64::from(mb) << 20)),
                _ => None,
            };
            StreamSpec {
                weight,
                window,
                last_batch: data.last_batch,
                ..StreamSpec::new(s.task, s.n_records(), batch_size)
            }
        };
        let planned = mix.mix().and_then(|mix| {
            Schedule::new(sources.iter().map(stream).collect(), mix, self.experiment.seed)
                .map_err(|e| e.to_string())
        });
        planned.map_err(|what| ConfigError::new("mix", what).into())
    }

    /// An evaluator of `split`.
    pub fn evaluator(&self, split: Split) -> Result<Evaluator, DataError> {
        Ok(Evaluator::new(self.sources(split)?, self.experiment.data.batch_size, self.loader())?)
    }

    /// Threads and read-ahead.
    pub fn loader(&self) -> LoaderOptions {
        let LoaderSettings { threads, depth, .. } = self.experiment.loader;
        LoaderOptions { threads, depth, ..LoaderOptions::default() }
    }

    /// What the network must know.
    pub fn info(&self, sources: &[Source]) -> Result<DataInfo, DataError> {
        let mut sessions = Vec::new();
        for &(task, dataset) in &self.neural {
            let shown = sources.iter().find(|s| s.task == task).map_or([1, 1, 1], |s| s.image);
            for info in &dataset.manifest().sessions {
                let meta = dataset.session_meta(&info.id)?;
                sessions.push(SessionData { task, id: meta.id, image: shown, mean_response: meta.mean });
            }
        }
        // The head's size follows the labelled images, which are last.
        let image = sources.last().map_or([1, 1, 1], |s| s.image);
        let classes = self.images.map(|d| d.manifest().classes.len() as u32);
        Ok(DataInfo { image, classes, sessions })
    }

    fn view(
        &self,
        dataset: &Dataset,
        mean: &[f64],
        std: &[f64],
        augment: AugmentSettings,
        prefix: &str,
    ) -> Result<View, DataError> {
        let manifest = dataset.manifest();
        let channels = if self.experiment.data.gray { 1 } else { manifest.image[0] as usize };
        let (mean, std) = if mean.is_empty() { (&manifest.mean[..], &manifest.std[..]) } else { (mean, std) };
        if mean.len() != channels {
            let what = format!(
                "{} channels are shown, and mean and std have {} values: give data.{prefix}mean and data.{prefix}std, or prepare with --color gray",
                channels,
                mean.len()
            );
            return Err(ConfigError::new(&manifest.dataset, what).into());
        }
        let budget = self.budget.clone();
        Ok(View { augment, budget, ..View::new(mean.to_vec(), std.to_vec()) })
    }
}
