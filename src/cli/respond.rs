//! `nct respond`: a network's responses to images, as a neural set in the raw layout. This is how the `mtl_*` sets
//! were made: monkey from a model of V1, oracle from a network trained on noisy images, and shuffled by permuting.

use super::exit::{Interrupted, Usage, stop_flag};
use super::show::{Bar, Show, count};
use super::torch::selected;
use crate::base::{Purpose, RngKey, Split, Task};
use crate::config::{Data, Experiment};
use crate::files::temporary;
use crate::ingest::raw::{RawSession, RawTrials, save_image, save_session};
use crate::load::{Batch, Loader, LoaderOptions, Pixels, Source, Targets, View};
use crate::model::{Mode, Network, SessionData};
use crate::runs::Run;
use crate::schedule::{Mix, Schedule, StreamSpec};
use crate::shard::{Dataset, ShardSet};
use crate::train::load_weights;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tch::{Device, Kind, Tensor};

/// Arguments of `nct respond`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folder of the run; its best weights are used
    pub(super) run: PathBuf,
    /// Folder of shards, or its URL (nct help stores)
    #[arg(long, default_value = "shards")]
    pub(super) shards: PathBuf,
    /// Data set of the folder whose images are shown: labelled images, or the stimuli of a neural set
    #[arg(long, value_name = "DATASET")]
    pub(super) images: String,
    /// Folder of the new set; its name is the set's, and it must not exist
    #[arg(long, value_parser = super::files::folder)]
    pub(super) out: PathBuf,
    /// Give each image the responses to another, within training and within test images
    #[arg(long)]
    pub(super) shuffle: bool,
    /// Read units of this layer instead of readouts, as features.16 or a block of the shared layers
    #[arg(long, requires = "units")]
    pub(super) layer: Option<String>,
    /// How many units of the layer, drawn at random; what is below 0 is cut off
    #[arg(long, requires = "layer")]
    pub(super) units: Option<u32>,
    /// Seed of the permutation and of the choice of units
    #[arg(long, default_value_t = 0)]
    pub(super) seed: u64,
    /// auto, cpu, cuda or cuda:N
    #[arg(long, default_value = "auto")]
    pub(super) device: String,
}

/// Responses of one session: `[trials, neurons]`.
struct Answers {
    session: String,
    n_neurons: usize,
    training: Vec<f32>,
    testing: Vec<f32>,
}

/// What is shown, in order.
#[derive(Default)]
struct Shown {
    training: Vec<i64>,
    testing: Vec<i64>,
    training_labels: Vec<i64>,
    testing_labels: Vec<i64>,
}

pub(crate) fn run(args: &Args, show: Show) -> anyhow::Result<()> {
    if args.out.exists() {
        return Err(Usage(format!("{}: is there already; name a new folder", args.out.display())).into());
    }
    let run = Run::open(&args.run)?;
    let origin = args.run.join("config.toml").display().to_string();
    let experiment = Experiment::parse(&run.config()?, &origin, &[])?;
    let device = selected(&args.device, show)?;
    let shards = ShardSet::open(&args.shards)?;
    let data = Data::open(&experiment, &shards)?;
    let info = data.info(&data.sources(Split::Train)?)?;
    let net = Network::new(&experiment.model, &info, device, experiment.runtime())?;
    load_weights(&run, run.final_weights(), &net)?;
    if args.layer.is_none() && info.sessions.is_empty() {
        let what = "the network has no readouts; name a layer with --layer and how many of its --units";
        return Err(Usage(format!("{}: {what}", args.run.display())).into());
    }
    let dataset = shards.dataset(&args.images)?;
    let view = data.raw_view(dataset, args.layer.is_none())?;
    let parent = args.out.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    std::fs::create_dir_all(parent)?;
    let staging = temporary(0o777).prefix(".respond-").tempdir_in(parent)?;
    let reader = Reader { args, net: &net, device, view: &view, root: staging.path() };
    let sessions = names(&info.sessions);
    let (shown, answers) = reader.all(dataset, &sessions, show)?;
    for answers in &answers {
        save_session(staging.path(), &session(args, &shown, answers))?;
    }
    std::fs::rename(staging.keep(), &args.out)?;
    let neurons: usize = answers.iter().map(|a| a.n_neurons).sum();
    let images = count((shown.training.len() + shown.testing.len()) as u64);
    show.line(&format!("{}: {neurons} neurons, {images} images", args.out.display()));
    show.line(&format!(
        "make shards of it with: nct prepare {} --out {}",
        args.out.display(),
        args.shards.display()
    ));
    Ok(())
}

/// Ids of the new set's sessions: those of the readouts, with the area where two have the same.
fn names(sessions: &[SessionData]) -> Vec<String> {
    let twice = |id: &str| sessions.iter().filter(|session| session.id == id).count() > 1;
    let name = |s: &SessionData| {
        if twice(&s.id) { format!("{}-{}", s.task.as_str(), s.id) } else { s.id.clone() }
    };
    sessions.iter().map(name).collect()
}

struct Reader<'a> {
    args: &'a Args,
    net: &'a Network,
    device: Device,
    view: &'a View,
    root: &'a Path,
}

impl Reader<'_> {
    /// Shows every image once, saves it and collects what the network says.
    fn all(
        &self,
        dataset: &Dataset,
        sessions: &[String],
        show: Show,
    ) -> anyhow::Result<(Shown, Vec<Answers>)> {
        let mut answers: Vec<Answers> = match &self.args.layer {
            Some(layer) => vec![Answers::of(&layer.replace('.', "-"))],
            None => sessions.iter().map(|id| Answers::of(id)).collect(),
        };
        let (mut shown, mut seen, mut units) = (Shown::default(), BTreeSet::new(), None);
        let n: u64 = dataset.manifest().shards.iter().filter(|s| s.session.is_none()).map(|s| s.rows).sum();
        let bar = show.bar("respond", n, "images");
        let labelled = dataset.manifest().sessions.is_empty();
        // An image that any session is tested on is a test image of the new set.
        let splits = if labelled {
            [Split::Train, Split::Validation, Split::Test]
        } else {
            [Split::Test, Split::Train, Split::Validation]
        };
        for split in splits {
            let sources = if labelled {
                vec![Source::images(dataset, split, self.view)?]
            } else {
                Source::sessions(dataset, Task::V1, split, self.view, None)?
            };
            self.split(split == Split::Test, sources, &mut shown, &mut seen, &mut answers, &mut units, &bar)?;
        }
        bar.clear();
        Ok((shown, answers))
    }

    #[expect(clippy::too_many_arguments, reason = "everything that one split adds to")]
    fn split(
        &self,
        test: bool,
        sources: Vec<Source>,
        shown: &mut Shown,
        seen: &mut BTreeSet<i64>,
        answers: &mut [Answers],
        units: &mut Option<Tensor>,
        bar: &Bar,
    ) -> anyhow::Result<()> {
        let stream = |s: &Source| StreamSpec::new(s.task, s.n_records(), 128);
        let schedule = Schedule::new(sources.iter().map(stream).collect(), Mix::InOrder, 0)?;
        let (schedule, sources) = (Arc::new(schedule), Arc::new(sources));
        let steps = 0..schedule.steps_per_epoch();
        for step in Loader::start(&sources, &schedule, 0, steps, LoaderOptions::default())? {
            for batch in &step?.batches {
                if stop_flag().load(Ordering::Relaxed) {
                    return Err(Interrupted("nothing was written".into()).into());
                }
                let rows = self.keep(batch, test, shown, seen)?;
                if rows.is_empty() {
                    continue;
                }
                bar.advance(rows.len() as u64);
                self.answer(&self.input(batch, &rows)?, test, answers, units)?;
            }
        }
        Ok(())
    }

    /// Saves images that were not seen before; gives their rows in the batch.
    fn keep(
        &self,
        batch: &Batch,
        test: bool,
        shown: &mut Shown,
        seen: &mut BTreeSet<i64>,
    ) -> anyhow::Result<Vec<i64>> {
        let Pixels::U8(pixels) = &batch.pixels else { anyhow::bail!("images came not as bytes") };
        let labels = if let Targets::Labels(labels) = batch.targets() { Some(labels) } else { None };
        let [c, h, w] = batch.image.map(|n| n as usize);
        let mut rows = Vec::new();
        for (row, image) in pixels.chunks_exact(c * h * w).enumerate() {
            // Labelled images are numbered anew: their own numbers begin again in the test set.
            let id = labels.map_or(i64::from(batch.ids[row]), |_| seen.len() as i64 + 1);
            if !seen.insert(id) {
                continue;
            }
            save_image(self.root, id as u64, image, h, w)?;
            rows.push(row as i64);
            let (ids, classes) = if test {
                (&mut shown.testing, &mut shown.testing_labels)
            } else {
                (&mut shown.training, &mut shown.training_labels)
            };
            ids.push(id);
            classes.extend(labels.map(|labels| labels[row]));
        }
        Ok(rows)
    }

    /// The chosen rows of a batch, normalised.
    fn input(&self, batch: &Batch, rows: &[i64]) -> anyhow::Result<Tensor> {
        let Pixels::U8(pixels) = &batch.pixels else { anyhow::bail!("images came not as bytes") };
        let [c, h, w] = batch.image.map(i64::from);
        let bytes = Tensor::f_from_slice(pixels)?.f_view([-1, c, h, w])?;
        let bytes = bytes.f_index_select(0, &Tensor::f_from_slice(rows)?)?.f_to_device(self.device)?;
        let channel = |values: &[f64]| -> anyhow::Result<Tensor> {
            let values: Vec<f32> = values.iter().map(|&v| v as f32).collect();
            Ok(Tensor::f_from_slice(&values)?.f_view([1, c, 1, 1])?.f_to_device(self.device)?)
        };
        let unit = bytes.f_to_kind(Kind::Float)?.f_div_scalar(255.0)?;
        Ok(unit.f_sub(&channel(&self.view.mean)?)?.f_div(&channel(&self.view.std)?)?)
    }

    fn answer(
        &self,
        images: &Tensor,
        test: bool,
        answers: &mut [Answers],
        units: &mut Option<Tensor>,
    ) -> anyhow::Result<()> {
        for (session, answers) in answers.iter_mut().enumerate() {
            let said = match &self.args.layer {
                Some(layer) => tch::no_grad(|| self.units(images, layer, units))?,
                None => tch::no_grad(|| self.net.respond(images, session, Mode::EVAL))?,
            };
            answers.n_neurons = said.size()[1] as usize;
            let values = Vec::<f32>::try_from(said.f_to_kind(Kind::Float)?.f_flatten(0, -1)?)?;
            if test { &mut answers.testing } else { &mut answers.training }.extend(values);
        }
        Ok(())
    }

    /// `[batch, units]` of the layer's output.
    fn units(&self, images: &Tensor, layer: &str, chosen: &mut Option<Tensor>) -> anyhow::Result<Tensor> {
        let (_, mut maps) = self.net.classify_with(images, Mode::EVAL, &[layer])?;
        let map = maps.pop().ok_or_else(|| Usage(format!("the network has no layer {layer}")))?;
        let flat = map.f_flatten(1, -1)?.f_clamp_min(0.0)?;
        if chosen.is_none() {
            let wanted = i64::from(self.args.units.unwrap_or(1)).max(1);
            let n = flat.size()[1];
            if wanted > n {
                return Err(Usage(format!("{layer} has {n} units, fewer than {wanted}; see --units")).into());
            }
            let mut order: Vec<i64> = (0..n).collect();
            permute(&mut order, self.args.seed, 2);
            order.truncate(wanted as usize);
            *chosen = Some(Tensor::f_from_slice(&order)?.f_to_device(self.device)?);
        }
        match chosen {
            Some(chosen) => Ok(flat.f_index_select(1, chosen)?),
            None => Ok(flat),
        }
    }
}

impl Answers {
    fn of(session: &str) -> Self {
        Self { session: session.to_owned(), n_neurons: 0, training: Vec::new(), testing: Vec::new() }
    }
}

/// A session as its file holds it: one time bin.
fn session(args: &Args, shown: &Shown, answers: &Answers) -> RawSession {
    let n = answers.n_neurons;
    let trials = |ids: &[i64], labels: &[i64], values: &[f32], lane: u32| {
        let mut from: Vec<usize> = (0..ids.len()).collect();
        if args.shuffle {
            permute(&mut from, args.seed, lane);
        }
        let responses = (0..n).flat_map(|neuron| from.iter().map(move |&trial| values[trial * n + neuron]));
        RawTrials { ids: ids.to_vec(), labels: labels.to_vec(), responses: responses.collect() }
    };
    RawSession {
        subject_id: "model".to_owned(),
        session_id: answers.session.clone(),
        training: trials(&shown.training, &shown.training_labels, &answers.training, 0),
        testing: trials(&shown.testing, &shown.testing_labels, &answers.testing, 1),
        shape: [n, 1],
    }
}

fn permute<T>(values: &mut [T], seed: u64, lane: u32) {
    RngKey::new(seed, Purpose::Permute, lane).stream(0, 0).shuffle(values);
}
