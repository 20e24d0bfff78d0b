//! An experiment and a folder of shards to what training and evaluation need.

use super::{ConfigError, Experiment, LoaderSettings, MixKind};
use crate::base::{Split, Task};
use crate::eval::{ClassMap, EvalError, Evaluation, Evaluator, FinalSettings, Shown, final_evaluations};
use crate::load::{AugmentSettings, Budget, LoadError, LoaderOptions, PixelType, Source, View};
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
    /// Processes that share the machine's memory.
    processes: u32,
    /// Whether the device makes the batches of training, as far as it can.
    pub(super) on_device: bool,
}

/// Which labelled images evaluations show, and which classes they score.
#[derive(Debug, Clone, Copy, Default)]
pub enum Labelled<'a> {
    /// The set that was trained on, and all its classes.
    #[default]
    Own,
    /// The same, and only the first classes compete.
    First(usize),
    /// Another set; its classes are matched with those trained on by name.
    Other(&'a Dataset),
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
        let (images, budget) = (find(&experiment.data.images)?, budget(experiment, 1));
        Ok(Self { experiment, images, neural, budget, processes: 1, on_device: false })
    }

    /// For one of several processes that share the machine's free memory.
    pub fn among(self, processes: u32) -> Self {
        Self { budget: budget(self.experiment, processes), processes, ..self }
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

    /// The streams of `split`: sessions in order, then images. Training data are augmented. Other images are
    /// shown as in the domain of training: with its noise and corruptions, and otherwise as they are (spec/data.md section
    /// 3).
    pub fn sources(&self, split: Split) -> Result<Vec<Source>, DataError> {
        let mut sources = Vec::new();
        for (task, dataset, view) in self.views(split)? {
            match task {
                Task::Classification => sources.push(self.labelled(dataset, split, &view)?),
                _ => sources.extend(self.sessions(task, dataset, split, &view)?),
            }
        }
        Ok(sources)
    }

    /// What each data set teaches, and how it is shown, in the order of the streams.
    pub(super) fn views(&self, split: Split) -> Result<Vec<(Task, &'a Dataset, View)>, DataError> {
        let data = &self.experiment.data;
        let (neural, images) = match split {
            Split::Train => (data.neural_augment.clone(), data.augment.clone()),
            _ => (AugmentSettings::NONE, Shown::in_domain(&data.augment).augment()),
        };
        let mut views = Vec::new();
        for &(task, dataset) in &self.neural {
            views.push((task, dataset, self.neural_view(dataset, neural.clone(), &self.budget)?));
        }
        if let Some(dataset) = self.images {
            let matching = self.experiment.modules.representation_matching.as_ref();
            let second = matching.filter(|_| split == Split::Train).map(|m| m.second_view(&images));
            let view = View { second, ..self.image_view(dataset, images, &self.budget)? };
            views.push((Task::Classification, dataset, view));
        }
        if self.on_device && split == Split::Train {
            for (_, dataset, view) in &mut views {
                super::residency::hand_over(dataset, view);
            }
        }
        Ok(views)
    }

    fn sessions(
        &self,
        task: Task,
        dataset: &Dataset,
        split: Split,
        view: &View,
    ) -> Result<Vec<Source>, DataError> {
        // Evaluations of a neural task score responses only.
        let labelled = self.images.filter(|_| self.experiment.data.neural_labels && split == Split::Train);
        let classes = labelled.map(|images| images.manifest().classes.len());
        let mut sources = Source::sessions(dataset, task, split, view, classes)?;
        if let (Split::Train, Some(share)) = (split, self.experiment.data.neural_frac) {
            sources.iter_mut().try_for_each(|source| source.keep(share))?;
        }
        Ok(sources)
    }

    /// Of the set that is trained on.
    fn labelled(&self, dataset: &Dataset, split: Split, view: &View) -> Result<Source, DataError> {
        let mut source = Source::images(dataset, split, view)?;
        if let (Split::Train, Some(share)) = (split, self.experiment.data.frac) {
            source.keep(share)?;
        }
        Ok(source)
    }

    fn neural_view(
        &self,
        dataset: &Dataset,
        augment: AugmentSettings,
        budget: &Budget,
    ) -> Result<View, DataError> {
        let data = &self.experiment.data;
        let view = self.view(dataset, &data.neural_mean, &data.neural_std, augment, "neural_")?;
        Ok(View { budget: budget.clone(), ..view })
    }

    fn image_view(
        &self,
        dataset: &Dataset,
        augment: AugmentSettings,
        budget: &Budget,
    ) -> Result<View, DataError> {
        let data = &self.experiment.data;
        let view = self.view(dataset, &data.mean, &data.std, augment, "")?;
        Ok(View { size: data.input_size.map(|side| [side; 2]), budget: budget.clone(), ..view })
    }

    /// How `dataset` is shown as stimuli (with `neural`) or as labelled images, unchanged and as bytes. Mean and standard
    /// deviation are what the network's input is normalised with: labelled images are shown by those of the set that
    /// was trained on, as in [`Self::evaluator_of`], and stimuli by those of their own set.
    pub fn raw_view(&self, dataset: &Dataset, neural: bool) -> Result<View, DataError> {
        let data = &self.experiment.data;
        let labelled = dataset.manifest().sessions.is_empty();
        let stimuli = self.neural.first().map(|(_, set)| *set);
        // A network that learned from no labelled images sees them as it saw stimuli.
        let as_stimuli = neural || (labelled && self.images.is_none() && stimuli.is_some());
        let trained = if as_stimuli { stimuli } else { self.images };
        // Statistics of bytes say nothing of values on another scale.
        let fits = |set: &&Dataset| labelled && set.manifest().pixels == dataset.manifest().pixels;
        let normalised_as = trained.filter(fits).unwrap_or(dataset);
        let (mean, std, prefix) = if as_stimuli {
            (&data.neural_mean, &data.neural_std, "neural_")
        } else {
            (&data.mean, &data.std, "")
        };
        let view = self.view(normalised_as, mean, std, AugmentSettings::NONE, prefix)?;
        let size = data.input_size.filter(|_| !as_stimuli).map(|side| [side; 2]);
        Ok(View { size, pixels: PixelType::U8, budget: Budget::new(READ_ONCE_BYTES), ..view })
    }

    /// The schedule of training over `sources`.
    pub fn schedule(&self, sources: &[Source]) -> Result<Schedule, DataError> {
        let (data, mix) = (&self.experiment.data, &self.experiment.mix);
        let n_sessions = |task| sources.iter().filter(|s| s.task == task).count().max(1) as f64;
        let has_v4 = sources.iter().any(|s| s.task == Task::V4);
        if mix.weights.is_some_and(|weights| weights.v4.is_some() != has_v4) {
            let what = "mix.weights has a share v4 if there are V4 responses, and only then";
            return Err(ConfigError::new("mix", what).into());
        }
        let stream = |s: &Source| {
            let batch_size = if s.task.is_neural() { data.neural_batch_size } else { data.batch_size };
            let weight = match (mix.kind, &mix.weights, s.task) {
                (MixKind::Proportional, _, _) => s.n_records().div_ceil(u64::from(batch_size)) as f64,
                (_, Some(weights), Task::V1) => weights.v1 / n_sessions(Task::V1),
                (_, Some(weights), Task::V4) => weights.v4.unwrap_or(0.0) / n_sessions(Task::V4),
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

    /// An evaluator of `split`, for use while training.
    pub fn evaluator(&self, split: Split) -> Result<Evaluator, DataError> {
        let classes = ClassMap::same(self.images.map(class_names).unwrap_or_default());
        let batch_size = self.experiment.data.batch_size;
        Ok(Evaluator::new(self.sources(split)?, classes, batch_size, self.loader())?)
    }

    /// The tasks there are data of.
    pub fn tasks(&self) -> Vec<Task> {
        let neural = self.neural.iter().map(|(task, _)| *task);
        neural.chain(self.images.map(|_| Task::Classification)).collect()
    }

    /// The evaluations at the end of training.
    pub fn final_evaluations(&self, settings: FinalSettings) -> Vec<Evaluation> {
        final_evaluations(settings, &self.tasks(), &self.experiment.data.augment)
    }

    /// Every task on splits as they are.
    pub fn clean_evaluations(&self, splits: &[Split]) -> Vec<Evaluation> {
        let tasks = self.tasks();
        let of_split = |&split: &Split| tasks.iter().map(move |&task| Evaluation::clean(task, split));
        splits.iter().flat_map(of_split).collect()
    }

    /// Whether there are data for every evaluation: better known before training than after it.
    pub fn check_evaluations(&self, evaluations: &[Evaluation]) -> Result<(), DataError> {
        let labelled = self.experiment.labelled();
        evaluations.iter().try_for_each(|e| self.evaluator_of(e, labelled).map(drop))
    }

    /// The evaluator of one evaluation of a task of [`Self::tasks`]. It is read once, so that its images take
    /// no memory from those that are kept for training.
    pub fn evaluator_of(
        &self,
        evaluation: &Evaluation,
        labelled: Labelled<'_>,
    ) -> Result<Evaluator, DataError> {
        let (task, split) = (evaluation.task, evaluation.split);
        let batch_size = self.experiment.data.batch_size;
        let other_task = || ConfigError::new("evaluation", format!("there are no data of {task}"));
        if task.is_neural() {
            let mut first_session = 0;
            let mut sources = Vec::new();
            for &(of, dataset) in &self.neural {
                if of == task {
                    let budget = budget(self.experiment, self.processes);
                    let view = self.neural_view(dataset, AugmentSettings::NONE, &budget)?;
                    sources.extend(self.sessions(task, dataset, split, &view)?);
                } else if sources.is_empty() {
                    first_session += dataset.manifest().sessions.len();
                }
            }
            if sources.is_empty() {
                return Err(other_task().into());
            }
            let evaluator = Evaluator::new(sources, ClassMap::default(), batch_size, self.loader())?;
            return Ok(evaluator.first_session(first_session));
        }
        let trained = self.images.ok_or_else(other_task)?;
        let view = self.image_view(trained, evaluation.view.augment(), &Budget::new(READ_ONCE_BYTES))?;
        let (dataset, classes) = labelled.of(trained, self.experiment.data.input_size)?;
        let source = match labelled {
            Labelled::Other(_) => Source::images(dataset, split, &view)?,
            Labelled::Own | Labelled::First(_) => self.labelled(dataset, split, &view)?,
        };
        Ok(Evaluator::new(vec![source], classes, batch_size, self.loader())?)
    }

    /// Threads and read-ahead.
    pub fn loader(&self) -> LoaderOptions {
        let LoaderSettings { threads, depth, .. } = self.experiment.loader;
        LoaderOptions { threads, depth, ..LoaderOptions::default() }
    }

    /// What the network must know; `sources` are those of training.
    pub fn info(&self, sources: &[Source]) -> Result<DataInfo, DataError> {
        let mut sessions = Vec::new();
        for &(task, dataset) in &self.neural {
            let shown = sources.iter().find(|s| s.task == task).map_or([1, 1, 1], |s| s.image);
            for info in &dataset.manifest().sessions {
                let meta = dataset.session_meta(&info.id)?;
                let source = sources.iter().find(|s| s.task == task && s.name == meta.id);
                let of_share =
                    source.filter(|_| self.experiment.data.neural_frac.is_some_and(|share| share < 1.0));
                let mean_response = of_share.map_or(meta.mean, Source::mean_response);
                sessions.push(SessionData { task, id: meta.id, image: shown, mean_response });
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

fn budget(experiment: &Experiment, processes: u32) -> Budget {
    match experiment.loader.cache_mb {
        Some(mb) => Budget::new(u64::from(mb) << 20),
        None => Budget::new(Budget::of_free_memory().left() / u64::from(processes.max(1))),
    }
}

/// Enough for the blocks that several threads read in order.
pub(super) const READ_ONCE_BYTES: u64 = 64 << 20;

impl Experiment {
    /// The classes that compete in final evaluations.
    pub fn labelled(&self) -> Labelled<'static> {
        match self.evaluation.return_classification_subset {
            0 => Labelled::Own,
            m => Labelled::First(m as usize),
        }
    }
}

impl<'a> Labelled<'a> {
    /// The set to show, and the classes to score, of a network trained on `trained`. With `input_size`, a part of
    /// that size is shown of any images.
    fn of(self, trained: &'a Dataset, input_size: Option<u32>) -> Result<(&'a Dataset, ClassMap), DataError> {
        let names = class_names(trained);
        match self {
            Labelled::Own => Ok((trained, ClassMap::same(names))),
            Labelled::First(m) => Ok((trained, ClassMap::first(&names, m)?)),
            Labelled::Other(dataset) => {
                let (of_training, found) = (trained.manifest(), dataset.manifest());
                let [_, height, width] = of_training.image;
                if input_size.is_none() && of_training.image[1..] != found.image[1..] {
                    let what = format!(
                        "images of {} x {}, and the run was trained on {height} x {width}; prepare them with `--resize {height}x{width}`",
                        found.image[1], found.image[2]
                    );
                    return Err(ConfigError::new(&found.dataset, what).into());
                }
                Ok((dataset, ClassMap::matched(&names, &class_names(dataset))?))
            }
        }
    }
}

fn class_names(dataset: &Dataset) -> Vec<String> {
    dataset.manifest().classes.iter().map(|class| class.id.clone()).collect()
}
