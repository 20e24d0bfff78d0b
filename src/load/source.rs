//! Streams of records: which image, which targets, which transform.

use super::LoadError;
use super::augment::{AugmentSettings, Normalise, Placement, source_map};
use super::batch::{Batch, Targets};
use super::cache::Column;
use crate::base::rng::mix64;
use crate::base::{DType, Purpose, RngKey, Split, StreamId, Task};
use crate::schedule::{BatchPlan, Schedule};
use crate::shard::{Dataset, MappedShard};
use half::{bf16, f16};
use std::sync::Arc;

/// How the images of a data set are shown to the network.
#[derive(Debug, Clone)]
pub struct View {
    /// Applied to training images.
    pub augment: AugmentSettings,
    /// Mean and standard deviation of each channel that comes out. One channel where the shards have
    /// three means that the images are turned gray.
    pub mean: Vec<f64>,
    /// See `mean`.
    pub std: Vec<f64>,
}

/// One stream of records.
#[derive(Debug)]
pub struct Source {
    /// Data set, or recording session.
    pub name: String,
    /// What its batches teach.
    pub task: Task,
    /// Extent of the images as the network sees them.
    pub image: [u32; 3],
    images: Arc<Column>,
    /// Row of each record's image; without it, records are images.
    rows: Option<Vec<u32>>,
    ids: Vec<u32>,
    targets: AllTargets,
    augment: AugmentSettings,
    normalise: Normalise,
}

#[derive(Debug)]
enum AllTargets {
    Labels(Vec<u32>),
    Responses { n_neurons: usize, values: Vec<f32> },
}

impl Source {
    /// The labelled images of `split`.
    pub fn images(dataset: &Dataset, split: Split, view: &View) -> Result<Self, LoadError> {
        let manifest = dataset.manifest();
        let shards = || some(dataset.images(split)?, dataset, split, "labelled images");
        let labels = u32_column(&shards()?, "label")?;
        if let Some(label) = labels.iter().find(|&&label| label as usize >= manifest.classes.len()) {
            let (name, n) = (&manifest.dataset, manifest.classes.len());
            return Err(LoadError::Data(format!("{name}: label {label}, and there are {n} classes")));
        }
        Ok(Self {
            name: manifest.dataset.clone(),
            task: Task::Classification,
            image: [view.mean.len() as u32, manifest.image[1], manifest.image[2]],
            ids: u32_column(&shards()?, "id")?,
            images: Arc::new(image_column(dataset, shards()?, view)?),
            rows: None,
            targets: AllTargets::Labels(labels),
            augment: view.augment,
            normalise: Normalise::new(&view.mean, &view.std),
        })
    }

    /// One stream a recording session; all share the images.
    pub fn sessions(dataset: &Dataset, split: Split, view: &View) -> Result<Vec<Self>, LoadError> {
        let manifest = dataset.manifest();
        let images = Arc::new(image_column(dataset, dataset.stimuli()?, view)?);
        let session = |id: &str| {
            let shards = some(dataset.session(id, split)?, dataset, split, "responses")?;
            let rows = u32_column(&shards, "row")?;
            if rows.iter().any(|&row| u64::from(row) >= images.n_rows()) {
                let what = format!("{}: session {id} names an image that is not there", manifest.dataset);
                return Err(LoadError::Data(what));
            }
            let (n_neurons, values) = responses(&shards)?;
            Ok(Self {
                name: id.to_owned(),
                task: Task::V1,
                image: [view.mean.len() as u32, manifest.image[1], manifest.image[2]],
                images: Arc::clone(&images),
                ids: u32_column(&shards, "id")?,
                rows: Some(rows),
                targets: AllTargets::Responses { n_neurons, values },
                augment: view.augment,
                normalise: Normalise::new(&view.mean, &view.std),
            })
        };
        manifest.sessions.iter().map(|info| session(&info.id)).collect()
    }

    /// Number of records.
    pub fn n_records(&self) -> u64 {
        self.ids.len() as u64
    }

    /// Neurons of a session; 0 for images.
    pub fn n_neurons(&self) -> usize {
        match self.targets {
            AllTargets::Labels(_) => 0,
            AllTargets::Responses { n_neurons, .. } => n_neurons,
        }
    }

    /// Fills `batch` with the records of `plan`. The result depends on plan and seed only.
    pub fn fill(
        &self,
        schedule: &Schedule,
        plan: &BatchPlan,
        seed: u64,
        scratch: &mut Vec<u32>,
        batch: &mut Batch,
    ) -> Result<(), LoadError> {
        let n_values = self.image.iter().map(|&n| n as usize).product::<usize>();
        batch.stream = plan.stream;
        batch.task = self.task;
        batch.image = self.image;
        batch.ids.clear();
        batch.pixels.resize(plan.len as usize * n_values, 0.0);
        let key = RngKey::new(seed, Purpose::Augment, plan.stream.0);
        let context = mix64((u64::from(plan.epoch) << 32) ^ plan.pass) as u32;
        for (record, out) in schedule.records(plan).zip(batch.pixels.chunks_exact_mut(n_values)) {
            let placement = self.augment.draw(&mut key.stream(context, record.0));
            self.place(record.0, placement, scratch, out)?;
            batch.ids.push(self.ids[record.0 as usize]);
        }
        self.fill_targets(schedule, plan, &mut batch.targets);
        Ok(())
    }

    fn place(
        &self,
        record: u64,
        placement: Placement,
        scratch: &mut Vec<u32>,
        out: &mut [f32],
    ) -> Result<(), LoadError> {
        let row = self.rows.as_ref().map_or(record, |rows| u64::from(rows[record as usize]));
        let image = self.images.row(row)?;
        let map = (placement != Placement::IDENTITY).then(|| {
            source_map(placement, self.image[1], self.image[2], scratch);
            scratch.as_slice()
        });
        if self.images.is_u8() {
            self.normalise.bytes(image, map, out);
        } else {
            self.normalise.floats(image, map, out);
        }
        Ok(())
    }

    fn fill_targets(&self, schedule: &Schedule, plan: &BatchPlan, targets: &mut Targets) {
        let records = schedule.records(plan).map(|record| record.0 as usize);
        match &self.targets {
            AllTargets::Labels(all) => {
                let mut labels = match std::mem::replace(targets, Targets::Labels(Vec::new())) {
                    Targets::Labels(labels) => labels,
                    Targets::Responses(_) => Vec::new(),
                };
                labels.clear();
                labels.extend(records.map(|record| i64::from(all[record])));
                *targets = Targets::Labels(labels);
            }
            AllTargets::Responses { n_neurons, values } => {
                let mut responses = match std::mem::replace(targets, Targets::Labels(Vec::new())) {
                    Targets::Responses(responses) => responses,
                    Targets::Labels(_) => Vec::new(),
                };
                responses.clear();
                records.for_each(|r| responses.extend_from_slice(&values[r * n_neurons..][..*n_neurons]));
                *targets = Targets::Responses(responses);
            }
        }
    }
}

impl Batch {
    /// A batch without records, to be filled.
    pub fn empty() -> Self {
        Self {
            stream: StreamId(0),
            task: Task::Classification,
            ids: Vec::new(),
            image: [0; 3],
            pixels: Vec::new(),
            targets: Targets::Labels(Vec::new()),
        }
    }
}

fn some(
    shards: Vec<MappedShard>,
    dataset: &Dataset,
    split: Split,
    what: &str,
) -> Result<Vec<MappedShard>, LoadError> {
    if shards.iter().all(|shard| shard.n_rows() == 0) {
        let root = dataset.root().display();
        return Err(LoadError::Data(format!(
            "{root}: no {what} in the {split} split; choose another data set"
        )));
    }
    Ok(shards)
}

fn image_column(dataset: &Dataset, shards: Vec<MappedShard>, view: &View) -> Result<Column, LoadError> {
    let column = Column::open(shards, "image")?;
    let (root, have, want) = (dataset.root().display(), dataset.manifest().image, view.mean.len());
    if column.shape().0 != have {
        return Err(LoadError::Data(format!(
            "{root}: images of {}, and its manifest says {have:?}",
            column.shape()
        )));
    }
    let turns_gray = want == 1 && have[0] == 3 && column.is_u8();
    if want != have[0] as usize && !turns_gray {
        let what = format!("images have {} channels, and {want} were asked for", have[0]);
        return Err(LoadError::Data(format!("{root}: {what}; see `data.gray` in the configuration")));
    }
    if view.std.len() != want || view.std.iter().any(|&s| !(s.is_finite() && s > 0.0)) {
        return Err(LoadError::Data(format!("{root}: standard deviations {:?} cannot normalise", view.std)));
    }
    Ok(column)
}

fn u32_column(shards: &[MappedShard], name: &str) -> Result<Vec<u32>, LoadError> {
    let mut out = Vec::new();
    for shard in shards {
        let (field, description) = shard.field(name)?;
        if description.dtype != DType::U32 || !description.shape.0.is_empty() {
            let path = shard.path().display();
            return Err(LoadError::Data(format!("{path}: field {name} is not one u32 a record")));
        }
        let bytes = shard.read_column(field)?;
        out.extend(bytes.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)));
    }
    Ok(out)
}

fn responses(shards: &[MappedShard]) -> Result<(usize, Vec<f32>), LoadError> {
    let (mut n_neurons, mut out) = (0, Vec::new());
    for shard in shards {
        let (field, description) = shard.field("responses")?;
        n_neurons = description.shape.elements().unwrap_or(0) as usize;
        let bytes = shard.read_column(field)?;
        match description.dtype {
            DType::F32 => out.extend(bytes.as_chunks().0.iter().map(|w| f32::from_le_bytes(*w))),
            DType::F16 => out.extend(bytes.as_chunks().0.iter().map(|w| f16::from_le_bytes(*w).to_f32())),
            DType::Bf16 => out.extend(bytes.as_chunks().0.iter().map(|w| bf16::from_le_bytes(*w).to_f32())),
            other => {
                let path = shard.path().display();
                return Err(LoadError::Data(format!("{path}: responses of type {other}")));
            }
        }
    }
    Ok((n_neurons, out))
}
