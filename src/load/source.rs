//! Streams of records: which image, which targets, which transform.

use super::LoadError;
use super::aligned::Aligned;
use super::augment::{AugmentSettings, Placement};
use super::batch::{Batch, PixelType, Pixels};
use super::cache::{Budget, Column};
use super::distort::DistortMemory;
use super::frame::FrameMemory;
use super::moves::{Grain, LARGEST_SIDE, Moves, moved};
use super::render::{self, Scratch, Tables};
use crate::base::digest::crc32c;
use crate::base::rng::mix64;
use crate::base::{DType, Purpose, Rng, RngKey, Split, Task};
use crate::schedule::{BatchPlan, Permutation, Schedule, Window};
use crate::shard::{Dataset, OpenShard};
use bytemuck::Pod;
use half::{bf16, f16};
use std::ops::Range;
use std::sync::Arc;

/// How the images of a data set are shown to the network.
#[derive(Debug, Clone)]
pub struct View {
    /// Applied to training images.
    pub augment: AugmentSettings,
    /// A second view of each image with an augmentation of its own: a batch has all first views, then all
    /// second ones, and each target once.
    pub second: Option<AugmentSettings>,
    /// Mean and standard deviation of each channel that comes out. One channel where the shards have
    /// three means that the images are turned gray.
    pub mean: Vec<f64>,
    /// See `mean`.
    pub std: Vec<f64>,
    /// Height and width of what is seen of each image, no larger than the stored image: what
    /// [`AugmentSettings::random_resized_crop`] makes, or the middle. The whole image if not given.
    pub size: Option<[u32; 2]>,
    /// Type of the batches' pixels. Bytes are not normalised.
    pub pixels: PixelType,
    /// Memory for decoded images.
    pub budget: Budget,
}

impl View {
    /// Normalised single-precision pixels as they are stored, all kept in memory.
    pub fn new(mean: Vec<f64>, std: Vec<f64>) -> Self {
        let (augment, pixels, budget) = (AugmentSettings::NONE, PixelType::F32, Budget::unlimited());
        Self { augment, second: None, mean, std, size: None, pixels, budget }
    }

    /// Extent of what is seen of images of `stored` extent.
    pub fn extent(&self, stored: [u32; 3]) -> [u32; 3] {
        let [height, width] = self.size.unwrap_or([stored[1], stored[2]]);
        [self.mean.len() as u32, height, width]
    }

    /// What keeps a device that holds images of `stored` extent from making the batches, if anything does.
    pub fn keeps_from_device(&self, stored: [u32; 3]) -> Option<&'static str> {
        let views = self.all();
        let any = |found: fn(&AugmentSettings) -> bool| views.iter().any(found);
        let reasons = [
            (
                any(|augment| !augment.noise.is_empty()) && stored[0] != self.extent(stored)[0],
                "noise is added to colours before they become gray, on the host",
            ),
            (any(|augment| augment.distort.is_some()), "images are corrupted on the host"),
            (any(|augment| augment.random_resized_crop.is_some()), "crops are resized on the host"),
            (
                self.extent(stored)[1..].iter().any(|&side| side > LARGEST_SIDE),
                "images have more than 4096 pixels a side",
            ),
        ];
        reasons.into_iter().find_map(|(holds, reason)| holds.then_some(reason))
    }

    fn all(&self) -> Vec<AugmentSettings> {
        [Some(&self.augment), self.second.as_ref()].into_iter().flatten().cloned().collect()
    }
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
    /// Extent of the images as they are stored.
    stored: [u32; 3],
    images: Arc<Column>,
    /// Row of each record's image; without it, records are images.
    rows: Option<Vec<u32>>,
    ids: Vec<u32>,
    targets: AllTargets,
    /// What each view of an image is drawn from.
    views: Vec<AugmentSettings>,
    render: Render,
}

#[derive(Debug)]
enum AllTargets {
    Labels(Vec<u32>),
    /// With the classes of the images, if they are to be learned too.
    Responses {
        n_neurons: usize,
        values: Vec<f32>,
        labels: Option<Vec<u32>>,
    },
}

impl Source {
    /// The labelled images of `split`.
    pub fn images(dataset: &Dataset, split: Split, view: &View) -> Result<Self, LoadError> {
        let manifest = dataset.manifest();
        let shards =
            || some(dataset.images(split)?, dataset, split, "labelled images; choose another data set");
        let labels = labels(&shards()?, manifest.classes.len(), &manifest.dataset)?;
        Ok(Self {
            name: manifest.dataset.clone(),
            task: Task::Classification,
            image: view.extent(manifest.image),
            stored: manifest.image,
            ids: u32_column(&shards()?, "id")?,
            images: Arc::new(image_column(dataset, shards()?, view)?),
            rows: None,
            targets: AllTargets::Labels(labels),
            views: view.all(),
            render: Render::new(view),
        })
    }

    /// One stream a recording session of a neural set that teaches `task`; all share the images. With `classes`,
    /// the labels of their images, which must be below it, are given too.
    pub fn sessions(
        dataset: &Dataset,
        task: Task,
        split: Split,
        view: &View,
        classes: Option<usize>,
    ) -> Result<Vec<Self>, LoadError> {
        let manifest = dataset.manifest();
        let images = Arc::new(image_column(dataset, dataset.stimuli()?, view)?);
        let session = |id: &str| {
            let lacks = format!(
                "responses of session {id}; leave its file out of the raw set, or divide its trials otherwise (nct prepare --split-seed, --train-frac)"
            );
            let shards = some(dataset.session(id, split)?, dataset, split, &lacks)?;
            let rows = u32_column(&shards, "row")?;
            if rows.iter().any(|&row| u64::from(row) >= images.n_rows()) {
                let what = format!("{}: session {id} names an image that is not there", manifest.dataset);
                return Err(LoadError::Data(what));
            }
            let (n_neurons, values) = responses(&shards)?;
            let name = format!("{}, session {id}", manifest.dataset);
            let labels = classes.map(|classes| labels(&shards, classes, &name)).transpose()?;
            Ok(Self {
                name: id.to_owned(),
                task,
                image: view.extent(manifest.image),
                stored: manifest.image,
                images: Arc::clone(&images),
                ids: u32_column(&shards, "id")?,
                rows: Some(rows),
                targets: AllTargets::Responses { n_neurons, values, labels },
                views: view.all(),
                render: Render::new(view),
            })
        };
        manifest.sessions.iter().map(|info| session(&info.id)).collect()
    }

    /// Leaves a share of the records, above 0 and up to 1: the whole part of it, by a random choice that is always the
    /// same for this name and number of records, and of which a larger share has all of a smaller one.
    ///
    /// # Errors
    /// A share of less than one record.
    pub fn keep(&mut self, share: f64) -> Result<(), LoadError> {
        let n = self.n_records();
        let kept = (n as f64 * share) as u64;
        if kept == 0 {
            return Err(LoadError::Data(format!(
                "{}: {share} of {n} records is less than one; choose a larger share (data.frac, data.neural_frac)",
                self.name
            )));
        }
        let of_name = u64::from(crc32c(self.name.as_bytes()));
        let order = Permutation::new(n, RngKey::new(of_name, Purpose::Choice, 0).word(0, 0));
        let mut chosen: Vec<usize> = (0..kept).map(|i| order.at(i) as usize).collect();
        chosen.sort_unstable();
        self.rows = Some(chosen.iter().map(|&record| self.row(record) as u32).collect());
        let of_chosen = |all: &[u32]| chosen.iter().map(|&record| all[record]).collect::<Vec<u32>>();
        self.ids = of_chosen(&self.ids);
        match &mut self.targets {
            AllTargets::Labels(all) => *all = of_chosen(all),
            AllTargets::Responses { n_neurons, values, labels } => {
                let of_trial = |record: usize| &values[record * *n_neurons..][..*n_neurons];
                *values = chosen.iter().flat_map(|&record| of_trial(record)).copied().collect();
                *labels = labels.as_deref().map(of_chosen);
            }
        }
        Ok(())
    }

    /// Mean response of each neuron of a session over its records.
    pub fn mean_response(&self) -> Vec<f32> {
        let mut sums = vec![0.0_f64; self.n_neurons()];
        for (_, responses) in self.trials() {
            sums.iter_mut().zip(responses).for_each(|(sum, &response)| *sum += f64::from(response));
        }
        sums.iter().map(|sum| (sum / self.n_records() as f64) as f32).collect()
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

    /// Trials of a session in their order: the row of each stimulus, and its responses. Images have none.
    pub fn trials(&self) -> impl Iterator<Item = (u64, &[f32])> {
        let (n, values) = match &self.targets {
            AllTargets::Responses { n_neurons, values, .. } => (*n_neurons, &values[..]),
            AllTargets::Labels(_) => (1, &[][..]),
        };
        let rows = self.rows.iter().flatten().map(|&row| u64::from(row));
        rows.zip(values.chunks_exact(n.max(1)))
    }

    /// A window of random blocks with about `bytes` of decoded images.
    pub fn window(&self, bytes: u64) -> Window {
        let n_rows = self.images.n_rows().max(1);
        let block_rows = self.images.block_rows().clamp(1, n_rows);
        let block_bytes = (self.images.bytes() / n_rows).max(1) * block_rows;
        // Blocks are read whole, also for the records of them that are left.
        let block = (block_rows * self.n_records()).div_ceil(n_rows).max(1);
        let clamp = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        Window { block: clamp(block), blocks: clamp((bytes / block_bytes).max(1)) }
    }

    /// The memory for decoded images, if not all fit.
    pub fn memory_limit(&self) -> Option<u64> {
        self.images.limit()
    }

    /// Images of each record in a batch.
    pub fn n_views(&self) -> usize {
        self.views.len()
    }

    /// Nanoseconds spent reading and decoding images, by all who share them.
    pub fn decoding_ns(&self) -> u64 {
        self.images.decoding_ns()
    }

    /// Fills `batch` with the records of `plan`. The result depends on plan and seed only.
    pub fn fill(
        &self,
        schedule: &Schedule,
        plan: &BatchPlan,
        seed: u64,
        memory: &mut FillMemory,
        batch: &mut Batch,
    ) -> Result<(), LoadError> {
        batch.stream = plan.stream;
        batch.task = self.task;
        batch.image = self.image;
        memory.records.clear();
        memory.records.extend(schedule.records(plan).map(|record| record.0 as usize));
        batch.ids.clear();
        batch.ids.extend(memory.records.iter().map(|&record| self.ids[record]));
        if !self.needs_device() {
            self.images.expect(memory.records.iter().map(|&record| self.row(record)));
        }
        self.fill_targets(&memory.records, batch);
        let context = mix64((u64::from(plan.epoch) << 32) ^ plan.pass) as u32;
        let draws = |view: usize, record: usize| {
            let purpose = if view == 0 { Purpose::Augment } else { Purpose::SecondView };
            RngKey::new(seed, purpose, plan.stream.0).stream(context, record as u64)
        };
        match (&self.render, &mut batch.pixels) {
            (Render::U8(t), Pixels::U8(out)) => self.fill_pixels(t, &draws, memory, out),
            (Render::F16(t), Pixels::F16(out)) => self.fill_pixels(t, &draws, memory, out),
            (Render::Bf16(t), Pixels::Bf16(out)) => self.fill_pixels(t, &draws, memory, out),
            (Render::F32(t), Pixels::F32(out)) => self.fill_pixels(t, &draws, memory, out),
            (Render::Moves(_), Pixels::Moves(out)) => {
                self.fill_moves(&draws, &memory.records, out);
                Ok(())
            }
            (render, pixels) => {
                *pixels = render.no_pixels();
                self.fill(schedule, plan, seed, memory, batch)
            }
        }
    }

    /// Row of a record's image.
    fn row(&self, record: usize) -> u64 {
        self.rows.as_ref().map_or(record as u64, |rows| u64::from(rows[record]))
    }

    fn fill_moves(&self, draws: &dyn Fn(usize, usize) -> Rng, records: &[usize], out: &mut Moves) {
        let [_, height, width] = self.image;
        let Moves { places, noise: grains } = out;
        places.clear();
        grains.clear();
        for (view, augment) in self.views.iter().enumerate() {
            let augments = *augment != AugmentSettings::NONE;
            for &record in records {
                let mut placement = Placement::IDENTITY;
                if augments {
                    let mut rng = draws(view, record);
                    placement = augment.draw(&mut rng);
                    if let Some(noise) = augment.draw_noise(&mut rng) {
                        grains.push(Grain { image: places.len() as u32, noise, start: rng.next_u64() });
                    }
                }
                places.push(moved(self.row(record), placement, width, height));
            }
        }
    }

    /// Whether a device that holds the images makes the pixels of its batches.
    pub fn needs_device(&self) -> bool {
        matches!(self.render, Render::Moves(_))
    }

    /// Says that these stored images will be asked for soon.
    pub fn expect(&self, rows: Range<u64>) {
        self.images.expect(rows);
    }

    /// Number of stored images.
    pub fn n_images(&self) -> u64 {
        self.images.n_rows()
    }

    /// Whether both show the same stored images.
    pub fn shares_images(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.images, &other.images)
    }

    /// For a device: what each byte becomes, `[channels, 256]`, normalised. None if batches are made on the host.
    pub fn values_of_bytes(&self) -> Option<Vec<f32>> {
        let Render::Moves(tables) = &self.render else { return None };
        Some(tables.values.bytes.as_flattened().to_vec())
    }

    /// For a device: means and standard deviations of the channels. None if batches are made on the host.
    pub fn normalisation(&self) -> Option<[&[f32]; 2]> {
        let Render::Moves(tables) = &self.render else { return None };
        Some(tables.values.normalisation())
    }

    /// For a device: what is seen of stored image `row`, as bytes, into `out`, which has the extent of
    /// [`Self::image`].
    ///
    /// # Errors
    /// Those of reading; a source whose batches are made on the host.
    pub fn seen(&self, row: u64, memory: &mut FillMemory, out: &mut [u8]) -> Result<(), LoadError> {
        let Render::Moves(tables) = &self.render else {
            return Err(LoadError::Data(format!("{}: its batches are made on the host", self.name)));
        };
        let image = self.images.row(row)?;
        let [stored, shown] = [self.stored, self.image].map(|[_, height, width]| [height, width]);
        let sides = |sides: [u32; 2]| sides.map(|n| n as usize);
        let image = memory.frame.show(&image, 1, sides(stored), None, sides(shown));
        tables.stored.bytes(image, sides(shown)[1], Placement::IDENTITY, &mut memory.render, out);
        Ok(())
    }

    fn fill_pixels<T: Pod>(
        &self,
        tables: &Tables<T>,
        draws: &dyn Fn(usize, usize) -> Rng,
        memory: &mut FillMemory,
        out: &mut Aligned<T>,
    ) -> Result<(), LoadError> {
        let n_values = self.image.iter().map(|&n| n as usize).product::<usize>();
        let [_, height, width] = self.image.map(|n| n as usize);
        let [_, stored @ ..] = self.stored.map(|n| n as usize);
        let pixel_bytes = if self.images.is_u8() { 1 } else { 4 };
        let FillMemory { records, frame, render, distort: distort_memory } = memory;
        out.resize(self.views.len() * records.len() * n_values);
        let mut out = out.chunks_exact_mut(n_values);
        for (view, augment) in self.views.iter().enumerate() {
            let augments = *augment != AugmentSettings::NONE;
            for (&record, out) in records.iter().zip(&mut out) {
                let image = self.images.row(self.row(record))?;
                let mut rng = augments.then(|| draws(view, record));
                let placement = rng.as_mut().map_or(Placement::IDENTITY, |rng| augment.draw(rng));
                let noise = rng.as_mut().and_then(|rng| augment.draw_noise(rng));
                let crop = augment.random_resized_crop.as_ref().zip(rng.as_mut());
                let region = crop.map(|(crop, rng)| crop.draw(rng, stored));
                let image = frame.show(&image, pixel_bytes, stored, region, [height, width]);
                let distort = augment.distort.as_ref().zip(rng.as_mut());
                let distortion =
                    distort.and_then(|(distort, rng)| distort.draw(rng, u64::from(self.ids[record])));
                let (image, placement) = match distortion {
                    Some(how) => {
                        render::place(image, [height, width], placement, render, &mut distort_memory.pixels);
                        distort_memory.apply(how, height, width)?;
                        (&distort_memory.pixels[..], Placement::IDENTITY)
                    }
                    None => (image, placement),
                };
                match (noise, &mut rng) {
                    _ if !self.images.is_u8() => tables.floats(image, width, placement, out),
                    (Some(noise), Some(rng)) => {
                        tables.noisy(image, width, placement, (noise, rng.next_u64()), render, out);
                    }
                    _ => tables.bytes(image, width, placement, render, out),
                }
            }
        }
        Ok(())
    }

    fn fill_targets(&self, records: &[usize], batch: &mut Batch) {
        let (labels, responses) = batch.targets_mut();
        match &self.targets {
            AllTargets::Labels(all) | AllTargets::Responses { labels: Some(all), .. } => {
                labels.extend(records.iter().map(|&record| i64::from(all[record])));
            }
            AllTargets::Responses { labels: None, .. } => {}
        }
        if let AllTargets::Responses { n_neurons, values, .. } = &self.targets {
            for &record in records {
                responses.extend_from_slice(&values[record * n_neurons..][..*n_neurons]);
            }
        }
    }
}

/// How images become the pixels of a batch.
#[derive(Debug)]
enum Render {
    U8(Tables<u8>),
    F16(Tables<f16>),
    Bf16(Tables<bf16>),
    F32(Tables<f32>),
    Moves(Box<OnDevice>),
}

/// For a device that holds the images.
#[derive(Debug)]
struct OnDevice {
    stored: Tables<u8>,
    values: Tables<f32>,
}

impl Render {
    fn new(view: &View) -> Self {
        let (mean, std) = (&view.mean, &view.std);
        match view.pixels {
            PixelType::U8 => Self::U8(Tables::identity(mean.len())),
            PixelType::F16 => Self::F16(Tables::new(mean, std, f16::from_f32)),
            PixelType::Bf16 => Self::Bf16(Tables::new(mean, std, bf16::from_f32)),
            PixelType::F32 => Self::F32(Tables::new(mean, std, |v| v)),
            PixelType::Moves => Self::Moves(Box::new(OnDevice {
                stored: Tables::identity(mean.len()),
                values: Tables::new(mean, std, |v| v),
            })),
        }
    }

    fn no_pixels(&self) -> Pixels {
        match self {
            Self::U8(_) => Pixels::U8(Aligned::default()),
            Self::F16(_) => Pixels::F16(Aligned::default()),
            Self::Bf16(_) => Pixels::Bf16(Aligned::default()),
            Self::F32(_) => Pixels::F32(Aligned::default()),
            Self::Moves(_) => Pixels::Moves(Moves::default()),
        }
    }
}

/// What one worker needs to fill batches.
#[derive(Debug, Default)]
pub struct FillMemory {
    records: Vec<usize>,
    frame: FrameMemory,
    render: Scratch,
    distort: DistortMemory,
}

fn some(
    shards: Vec<OpenShard>,
    dataset: &Dataset,
    split: Split,
    lacks: &str,
) -> Result<Vec<OpenShard>, LoadError> {
    if shards.iter().all(|shard| shard.n_rows() == 0) {
        let root = dataset.root().display();
        return Err(LoadError::Data(format!("{root}: the {split} split has no {lacks}")));
    }
    Ok(shards)
}

fn image_column(dataset: &Dataset, shards: Vec<OpenShard>, view: &View) -> Result<Column, LoadError> {
    let column = Column::open(shards, "image", &view.budget)?;
    let (root, have, want) = (dataset.root().display(), dataset.manifest().image, view.mean.len());
    if column.shape().0 != have {
        return Err(LoadError::Data(format!(
            "{root}: images of {}, and its manifest says {have:?}",
            column.shape()
        )));
    }
    if let Some([height, width]) = view.size
        && (height > have[1] || width > have[2] || height == 0 || width == 0)
    {
        let what = format!(
            "images of {} x {}, of which {height} x {width} cannot be shown; prepare them with --resize of at least that, or change data.input_size",
            have[1], have[2]
        );
        return Err(LoadError::Data(format!("{root}: {what}")));
    }
    let turns_gray = want == 1 && have[0] == 3 && column.is_u8();
    if want != have[0] as usize && !turns_gray {
        let what = format!("images have {} channels, and {want} were asked for", have[0]);
        return Err(LoadError::Data(format!("{root}: {what}; see `data.gray` in the configuration")));
    }
    let views = view.all();
    views.iter().try_for_each(AugmentSettings::check).map_err(LoadError::Data)?;
    if view.pixels == PixelType::Moves
        && let Some(reason) = view.keeps_from_device(have)
    {
        return Err(LoadError::Data(format!("{root}: {reason}; set loader.resident = \"off\"")));
    }
    let needs_bytes = matches!(view.pixels, PixelType::U8 | PixelType::Moves)
        || views.iter().any(AugmentSettings::needs_bytes);
    if !column.is_u8() && needs_bytes {
        let what =
            "images are floating-point: they cannot be shown as bytes, with noise, resized or corrupted";
        return Err(LoadError::Data(format!("{root}: {what}")));
    }
    if view.std.len() != want || view.std.iter().any(|&s| !(s.is_finite() && s > 0.0)) {
        return Err(LoadError::Data(format!("{root}: standard deviations {:?} cannot normalise", view.std)));
    }
    Ok(column)
}

/// Classes, each below `classes`; `name` is told in errors.
fn labels(shards: &[OpenShard], classes: usize, name: &str) -> Result<Vec<u32>, LoadError> {
    if shards.iter().any(|shard| shard.field("label").is_err()) {
        let what = "its images have no labels; set data.neural_labels = false";
        return Err(LoadError::Data(format!("{name}: {what}")));
    }
    let labels = u32_column(shards, "label")?;
    match labels.iter().find(|&&label| label as usize >= classes) {
        Some(label) => {
            Err(LoadError::Data(format!("{name}: label {label}, and there are {classes} classes")))
        }
        None => Ok(labels),
    }
}

/// A field of one u32 a record, of all shards.
///
/// # Errors
/// A shard that has no such field, or cannot be read.
pub fn u32_column(shards: &[OpenShard], name: &str) -> Result<Vec<u32>, LoadError> {
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

fn responses(shards: &[OpenShard]) -> Result<(usize, Vec<f32>), LoadError> {
    let (mut n_neurons, mut out) = (0, Vec::new());
    for shard in shards {
        let (field, description) = shard.field("responses")?;
        n_neurons = description.shape.elements().unwrap_or(0) as usize;
        let values = description.dtype.floats(&shard.read_column(field)?);
        let (path, dtype) = (shard.path().display(), description.dtype);
        out.extend(values.ok_or_else(|| LoadError::Data(format!("{path}: responses of type {dtype}")))?);
    }
    Ok((n_neurons, out))
}
