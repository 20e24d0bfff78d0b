//! `nct rsa`: how alike layers, networks and recorded responses represent images (spec/reconstruction 4.5).

mod stability;

use super::analysis::images::{Chosen, choose};
use super::analysis::{Folder, Model, models};
use super::exit::{Interrupted, Usage, stop_flag};
use super::reconstruct::{distinct, slug};
use super::show::{Bar, Show, SplitArg, out, table};
use super::torch::selected;
use crate::analysis::AnalysisError;
use crate::analysis::representation::{Alike, Comparison, Dissimilarity, Geometry, Pair, compare};
use crate::analysis::statistics::{mean, spearman};
use crate::figure::Picture;
use crate::load::{PixelType, Source, View};
use crate::model::Mode;
use crate::model::weights::encode;
use crate::shard::{Dataset, ShardSet};
use crate::table::{Kind, Table};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use tch::{Device, Tensor};

/// Arguments of `nct rsa`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folders of runs, or NAME=RUN
    #[arg(required = true)]
    run: Vec<String>,
    /// Layers, by commas: conv3_1, relu3_1, features.14, paths; or all convolutions and poolings with `places`
    #[arg(long, value_delimiter = ',', default_value = "places")]
    layers: Vec<String>,
    /// Folder of shards, or its URL (nct help stores)
    #[arg(long, default_value = "shards")]
    shards: PathBuf,
    /// Data set of the images, if not the labelled images of the first run
    #[arg(long, value_name = "DATASET")]
    dataset: Option<String>,
    /// Its split
    #[arg(long, value_enum, default_value_t = SplitArg::Test)]
    split: SplitArg,
    /// Images, evenly spaced over the split
    #[arg(long, default_value_t = 100)]
    n_images: u32,
    /// Compare with the responses that were recorded to the stimuli of the neural set, means over repeats
    #[arg(long)]
    responses: bool,
    /// How unlike two images are in a representation
    #[arg(long, value_enum, default_value_t = Dissimilarity::Correlation)]
    dissimilarity: Dissimilarity,
    /// How dissimilarities are compared
    #[arg(long, value_enum, default_value_t = Comparison::Spearman)]
    comparison: Comparison,
    /// Resamplings of the images for intervals of 95 %
    #[arg(long, default_value_t = 1000)]
    bootstrap: u32,
    /// Seed of resampling
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    noise: stability::NoiseArgs,
    /// Write the activity of every representation too, as activity.safetensors
    #[arg(long)]
    activity: bool,
    /// Folder for the results
    #[arg(long, value_parser = super::files::folder)]
    out: PathBuf,
    /// auto, cpu, cuda or cuda:N
    #[arg(long, default_value = "auto")]
    device: String,
    /// Print all pairs, one JSON object a line
    #[arg(long)]
    json: bool,
}

const METRICS: [(&str, Kind); 9] = [
    ("a", Kind::Text),
    ("b", Kind::Text),
    ("images", Kind::Whole),
    ("rsa", Kind::Real),
    ("rsa_low", Kind::Real),
    ("rsa_high", Kind::Real),
    ("cka", Kind::Real),
    ("cka_low", Kind::Real),
    ("cka_high", Kind::Real),
];
const MATRICES: [(&str, Kind); 5] = [
    ("representation", Kind::Text),
    ("images", Kind::Whole),
    ("mean_dissimilarity", Kind::Real),
    ("reliability", Kind::Real),
    ("picture", Kind::Text),
];

/// A representation of the images.
struct Representation {
    name: String,
    geometry: Geometry,
    /// `[images, units]`, if it is to be written.
    activity: Option<Tensor>,
    /// `[images, images]`
    rdm: Tensor,
    /// Of recorded responses: what their dissimilarities of one half of the trials say of those of the other, for the
    /// length of both (Spearman-Brown).
    reliability: Option<f64>,
}

/// Responses that were recorded to images that all sessions saw.
struct Recorded {
    /// Rows of the stimuli.
    rows: Vec<u64>,
    /// `[images, neurons]`: means over all trials, over even ones and over odd ones; the halves only if all images
    /// have two trials.
    means: Tensor,
    halves: Option<[Tensor; 2]>,
}

pub(crate) fn run(args: &Args, show: Show) -> anyhow::Result<()> {
    let device = selected(&args.device, show)?;
    let shards = ShardSet::open(&args.shards)?;
    let preferred = |experiment: &crate::config::Experiment| {
        let data = &experiment.data;
        let images = [&data.images, &data.neural, &data.neural_v4];
        let neural = [&data.neural, &data.neural_v4, &data.images];
        let order = if args.responses { neural } else { images };
        order.into_iter().find(|name| !name.is_empty()).cloned()
    };
    let (models, dataset) = models(&args.run, &shards, args.dataset.as_deref(), preferred, device)?;
    let dataset = shards.dataset(&dataset)?;
    let recorded = args.responses.then(|| recorded(args, dataset, &models[0])).transpose()?;
    let chosen = images(args, dataset, recorded.as_ref())?;
    let layers = layers(args, &models)?;
    args.noise.check()?;
    let mut told = json!({
        "dataset": dataset.manifest().dataset, "data": dataset.manifest().fingerprint().as_str(),
        "split": args.split.split().as_str(), "images": chosen.rows, "layers": layers, "responses": args.responses,
        "dissimilarity": args.dissimilarity.as_str(), "comparison": args.comparison.as_str(),
        "bootstrap": args.bootstrap, "seed": args.seed, "activity": args.activity,
    });
    args.noise.tell(&mut told);
    let mut folder = Folder::open(&args.out, "rsa", &told, &models)?;
    if folder.is_done() {
        show.line(&format!("{}: was done before", args.out.display()));
        return print(args, &folder);
    }
    let all = representations(args, &models, &layers, &chosen, recorded.as_ref(), device, show)?;
    show.line(&format!("{} representations of {} images", all.len(), chosen.len()));
    let geometries: Vec<Geometry> = all.iter().map(|one| one.geometry.clone()).collect();
    let pairs = compare(&geometries, args.comparison, args.bootstrap, args.seed, stop_flag());
    let pairs = match pairs {
        Err(AnalysisError::Stopped) => return Err(again()),
        pairs => pairs?,
    };
    // Of the matrices, from the first to the last.
    let rows: Vec<u64> = by_class(&chosen).into_iter().map(|i| chosen.rows[i as usize]).collect();
    folder.tell("rows", json!(rows))?;
    folder.tell("representations", json!(all.iter().map(|one| one.name.as_str()).collect::<Vec<_>>()))?;
    if args.activity {
        let named = |one: &Representation| Some((one.name.clone(), one.activity.as_ref()?.shallow_clone()));
        let tensors: Vec<(String, Tensor)> = all.iter().filter_map(named).collect();
        folder.write("activity.safetensors", &encode(&tensors, &[])?)?;
    }
    args.noise.run(args, (&models, &layers), &chosen, &folder, device, show)?;
    write(&folder, &all, &pairs, chosen.len())?;
    print(args, &folder)
}

fn again() -> anyhow::Error {
    Interrupted("the same command begins again".to_owned()).into()
}

/// Names of layers, in the order of the first network; `places` are all convolutions and poolings of a VGG, and all
/// blocks of other networks.
fn layers(args: &Args, models: &[Model]) -> anyhow::Result<Vec<String>> {
    let mut found: Vec<String> = Vec::new();
    for name in &args.layers {
        if name != "places" {
            found.push(name.clone());
            continue;
        }
        let names = models[0].net.layer_names();
        let places = names.iter().filter_map(|of| of.place.clone());
        let mut places: Vec<String> =
            places.filter(|place| place.starts_with("conv") || place.starts_with("pool")).collect();
        if places.is_empty() {
            places = names.into_iter().map(|of| of.path).collect();
        }
        found.extend(places);
    }
    distinct("--layers", &found)?;
    for model in models {
        for name in &found {
            model.net.layer(name)?;
        }
    }
    Ok(found)
}

/// The images, in the order of their classes.
fn images(args: &Args, dataset: &Dataset, recorded: Option<&Recorded>) -> anyhow::Result<Chosen> {
    let split = args.split.split();
    if let Some(recorded) = recorded {
        return choose(dataset, split, &recorded.rows);
    }
    let shards =
        if dataset.manifest().sessions.is_empty() { dataset.images(split)? } else { dataset.stimuli()? };
    let n: u64 = shards.iter().map(crate::shard::OpenShard::n_rows).sum();
    let shown = u64::from(args.n_images).min(n);
    let rows: Vec<u64> = (0..shown).map(|i| i * n / shown).collect();
    choose(dataset, split, &rows)
}

/// Means over repeats of what was recorded to the images of the split that all sessions saw, as many as asked for.
fn recorded(args: &Args, dataset: &Dataset, model: &Model) -> anyhow::Result<Recorded> {
    let manifest = dataset.manifest();
    if manifest.sessions.is_empty() {
        return Err(Usage(format!(
            "{}: has no recorded responses; name a neural set with --dataset",
            manifest.dataset
        ))
        .into());
    }
    let task = model.info.sessions.first().map_or(crate::base::Task::V1, |session| session.task);
    // Only trials are taken, whatever the stimuli are made of.
    let view = View { pixels: PixelType::F32, ..model.view.clone() };
    let sources = Source::sessions(dataset, task, args.split.split(), &view, None)?;
    // Trials of each session, by the row of their stimulus.
    let by_row = |source: &Source| {
        let mut found: BTreeMap<u64, Vec<Vec<f32>>> = BTreeMap::new();
        source.trials().for_each(|(row, trial)| found.entry(row).or_default().push(trial.to_vec()));
        found
    };
    let sessions: Vec<BTreeMap<u64, Vec<Vec<f32>>>> = sources.iter().map(by_row).collect();
    let seen = |session: &BTreeMap<u64, Vec<Vec<f32>>>| session.keys().copied().collect::<BTreeSet<u64>>();
    let all =
        sessions.iter().map(seen).reduce(|a, b| a.intersection(&b).copied().collect()).unwrap_or_default();
    if all.len() < 3 {
        let what =
            format!("all its sessions saw {} images of this split; three or more are needed", all.len());
        return Err(Usage(format!("{}: {what}", manifest.dataset)).into());
    }
    let all: Vec<u64> = all.into_iter().collect();
    let shown = (args.n_images as usize).min(all.len());
    let rows: Vec<u64> = (0..shown).map(|i| all[i * all.len() / shown]).collect();
    let repeated = rows.iter().all(|row| sessions.iter().all(|session| session[row].len() > 1));
    let means = |keep: &dyn Fn(usize) -> bool| -> Tensor {
        let mut values: Vec<f64> = Vec::new();
        for row in &rows {
            for session in &sessions {
                let kept: Vec<&Vec<f32>> = session[row]
                    .iter()
                    .enumerate()
                    .filter(|(i, _)| keep(*i))
                    .map(|(_, trial)| trial)
                    .collect();
                let n = kept.len().max(1) as f64;
                values.extend(
                    (0..kept[0].len()).map(|k| kept.iter().map(|t| f64::from(t[k])).sum::<f64>() / n),
                );
            }
        }
        Tensor::from_slice(&values).view([rows.len() as i64, -1])
    };
    let halves = repeated.then(|| [means(&|i| i % 2 == 0), means(&|i| i % 2 == 1)]);
    Ok(Recorded { means: means(&|_| true), halves, rows })
}

/// Layers of all networks, then what was recorded.
fn representations(
    args: &Args,
    models: &[Model],
    layers: &[String],
    chosen: &Chosen,
    recorded: Option<&Recorded>,
    device: Device,
    show: Show,
) -> anyhow::Result<Vec<Representation>> {
    let mut all = Vec::new();
    let bar = show.bar("rsa", (models.len() * chosen.len()) as u64, "images");
    let order = Tensor::from_slice(&by_class(chosen));
    for model in models {
        let images = chosen.shown(&model.view, None, 0)?.index_select(0, &order);
        for (layer, activity) in layers.iter().zip(activity(model, layers, &images, device, &bar)?) {
            let name = if models.len() == 1 { layer.clone() } else { format!("{} {layer}", model.name) };
            all.push(representation(args, name, &activity, None)?);
        }
    }
    bar.clear();
    if let Some(Recorded { means, halves, .. }) = recorded {
        let in_order = |t: &Tensor| t.index_select(0, &order);
        let halves = halves.as_ref().map(|halves| [in_order(&halves[0]), in_order(&halves[1])]);
        all.push(representation(args, "recorded".to_owned(), &in_order(means), halves)?);
    }
    Ok(all)
}

/// What each of the layers makes of images, `[images, units]`.
fn activity(
    model: &Model,
    layers: &[String],
    images: &Tensor,
    device: Device,
    bar: &Bar,
) -> anyhow::Result<Vec<Tensor>> {
    let names: Vec<&str> = layers.iter().map(String::as_str).collect();
    let mut activity: Vec<Vec<Tensor>> = names.iter().map(|_| Vec::new()).collect();
    let n = images.size()[0];
    for first in (0..n).step_by(50) {
        if stop_flag().load(Ordering::Relaxed) {
            return Err(again());
        }
        let batch = images.narrow(0, first, 50.min(n - first)).to_device(device);
        let found = tch::no_grad(|| model.net.layers(&batch, Mode::EVAL, &names))?;
        for (all, found) in activity.iter_mut().zip(found) {
            all.push(found.flatten(1, -1).to_device(Device::Cpu));
        }
        bar.advance(batch.size()[0] as u64);
    }
    Ok(activity.into_iter().map(|parts| Tensor::cat(&parts, 0)).collect())
}

/// Places of the images in the order of their classes.
fn by_class(chosen: &Chosen) -> Vec<i64> {
    let mut order: Vec<i64> = (0..chosen.len() as i64).collect();
    order.sort_by_key(|&i| &chosen.classes[i as usize]);
    order
}

fn representation(
    args: &Args,
    name: String,
    activity: &Tensor,
    halves: Option<[Tensor; 2]>,
) -> anyhow::Result<Representation> {
    let geometry = Geometry::of(activity, args.dissimilarity).map_err(|e| Usage(format!("{name}: {e}")))?;
    let n = geometry.n as i64;
    let reliability = halves.map(|halves| -> anyhow::Result<f64> {
        let [a, b] = halves.map(|half| Geometry::of(&half, args.dissimilarity));
        let r = spearman(&a?.upper(), &b?.upper());
        Ok(2.0 * r / (1.0 + r.abs()))
    });
    let rdm = Tensor::from_slice(&geometry.rdm).view([n, n]);
    let activity = args.activity.then(|| activity.shallow_clone());
    Ok(Representation { name, geometry, activity, rdm, reliability: reliability.transpose()? })
}

fn write(folder: &Folder, all: &[Representation], pairs: &[Pair], images: usize) -> anyhow::Result<()> {
    let mut listed = Vec::new();
    let mut tensors = Vec::new();
    for one in all {
        let file = format!("pictures/{}.png", slug(&one.name));
        let upper = one.geometry.upper();
        let range = upper.iter().fold([f64::MAX, f64::MIN], |[low, high], v| [low.min(*v), high.max(*v)]);
        let picture = Picture::of_matrix(&one.geometry.rdm, one.geometry.n, range, f64::NAN);
        folder.write(&file, &picture.png(1)?)?;
        listed.push(json!({
            "representation": one.name, "images": images, "mean_dissimilarity": mean(&upper),
            "reliability": one.reliability, "picture": file,
        }));
        tensors.push((one.name.clone(), one.rdm.shallow_clone()));
    }
    folder.write("rdms.safetensors", &encode(&tensors, &[])?)?;
    folder.table("rdms", &Table::of(&MATRICES, &listed)?)?;
    let row = |pair: &Pair| {
        let [a, b] = pair.of.map(|i| all[i].name.as_str());
        let ends = |of: Alike| of.bounds.map_or([None; 2], |ends| ends.map(Some));
        let ([rsa_low, rsa_high], [cka_low, cka_high]) = (ends(pair.rsa), ends(pair.cka));
        json!({
            "a": a, "b": b, "images": images, "rsa": pair.rsa.value, "rsa_low": rsa_low, "rsa_high": rsa_high,
            "cka": pair.cka.value, "cka_low": cka_low, "cka_high": cka_high,
        })
    };
    let rows: Vec<Value> = pairs.iter().map(row).collect();
    folder.finish(&Table::of(&METRICS, &rows)?)
}

fn print(args: &Args, folder: &Folder) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(folder.root.join("metrics.jsonl"))?;
    if args.json {
        return out(text.trim_end());
    }
    let mut shown = table(&["a", "b", "RSA", "95 %", "CKA", "95 %"]);
    for row in text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        let name = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
        let real = |key: &str| row[key].as_f64().map_or_else(String::new, |v| format!("{v:.3}"));
        let ends = |key: &str| {
            let [low, high] = ["low", "high"].map(|end| real(&format!("{key}_{end}")));
            if low.is_empty() { low } else { format!("{low} to {high}") }
        };
        shown.add_row([name("a"), name("b"), real("rsa"), ends("rsa"), real("cka"), ends("cka")]);
    }
    out(&shown.to_string())
}
