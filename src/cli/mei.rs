//! `nct mei`: images that excite single neurons most (Walker et al. 2019, "Inception loops"; spec/reconstruction 2).

use super::analysis::images::choose;
use super::analysis::{Folder, Model, models, search};
use super::exit::Usage;
use super::reconstruct::{How, distinct, picture, read_settings, slug};
use super::show::{Show, out, table};
use super::torch::selected;
use crate::analysis::Responses;
use crate::analysis::ascent::{
    ChangeNorm, Initial, Operation, OperationSettings, OptimizerSettings, Pad, PenaltySettings, Search,
    Settings, Start, Stop, Stopper,
};
use crate::base::Split;
use crate::model::weights::encode;
use crate::model::{Mode, SessionData};
use crate::shard::{Dataset, ShardSet};
use crate::table::{Kind, Table};
use serde_json::{Value, json};
use std::path::PathBuf;
use tch::{Device, Tensor};

/// Arguments of `nct mei`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folders of runs, or NAME=RUN
    #[arg(required = true)]
    run: Vec<String>,
    /// Folder of shards, or its URL (nct help stores)
    #[arg(long, default_value = "shards")]
    shards: PathBuf,
    /// Neural set whose stimuli say how images are normalised and what they evoke, if not that of the first run
    #[arg(long, value_name = "DATASET")]
    dataset: Option<String>,
    /// Recording session, by its id; needed where there are several
    #[arg(long)]
    session: Option<String>,
    /// Numbers of neurons within the session, by commas, or all
    #[arg(long, value_delimiter = ',', required = true, value_name = "NUMBERS")]
    neuron: Vec<String>,
    /// Norm that images may have, over all three channels, in units of normalised pixels
    #[arg(long, default_value_t = 40.0)]
    norm: f64,
    /// Find the images that excite least
    #[arg(long)]
    least: bool,
    /// Steps
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..), conflicts_with = "settings")]
    steps: u32,
    /// TOML file with the parts of the search; `nct help analysis` has an example
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
    /// Seeds of starts and shifts
    #[arg(long, value_delimiter = ',', default_value = "1000")]
    seeds: Vec<u64>,
    /// Images of the data set that are shown for comparison
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..))]
    compare: u32,
    #[command(flatten)]
    how: How,
}

const METRICS: [(&str, Kind); 11] = [
    ("model", Kind::Text),
    ("session", Kind::Text),
    ("neuron", Kind::Whole),
    ("seed", Kind::Whole),
    ("norm", Kind::Real),
    ("steps", Kind::Whole),
    ("response", Kind::Real),
    ("best_response", Kind::Real),
    ("best_image", Kind::Whole),
    ("mean_response", Kind::Real),
    ("picture", Kind::Text),
];

/// What one image of a batch is for.
#[derive(Debug, Clone, Copy)]
struct Sample {
    neuron: i64,
    seed: u64,
}

/// What was found.
#[derive(Default)]
struct Found {
    rows: Vec<Value>,
    tensors: Vec<(String, Tensor)>,
}

/// What neurons say to images of the data set: the largest response with its image, or the least where such images are
/// searched, and the mean.
struct Evoked {
    best: Vec<(f64, u64)>,
    mean: Vec<f64>,
}

pub(crate) fn run(args: &Args, show: Show) -> anyhow::Result<()> {
    if !(args.norm.is_finite() && args.norm > 0.0) {
        return Err(Usage("--norm is above 0".to_owned()).into());
    }
    let device = selected(&args.how.device, show)?;
    let shards = ShardSet::open(&args.shards)?;
    let neural = |experiment: &crate::config::Experiment| {
        let data = &experiment.data;
        [&data.neural, &data.neural_v4].into_iter().find(|name| !name.is_empty()).cloned()
    };
    let (models, dataset) = models(&args.run, &shards, args.dataset.as_deref(), neural, device)?;
    let dataset = shards.dataset(&dataset)?;
    let (session, neurons) = chosen(args, dataset)?;
    distinct("--neuron", &neurons)?;
    distinct("--seeds", &args.seeds)?;
    let settings = settings(args)?;
    models.iter().try_for_each(|model| settings.check(model.extent.map(|n| n as i64)))?;
    models.iter().try_for_each(|model| model.check(&settings))?;
    models.iter().try_for_each(|model| readout(model, &session, &neurons).map(drop))?;
    let told = json!({
        "dataset": dataset.manifest().dataset, "data": dataset.manifest().fingerprint().as_str(), "session": session,
        "neurons": neurons, "norm": args.norm, "seeds": args.seeds, "search": settings, "batch": args.how.batch(device),
        "compare": args.compare,
    });
    let folder = Folder::open(&args.how.out, "mei", &told, &models)?;
    if folder.is_done() {
        show.line(&format!("{}: was done before", args.how.out.display()));
        return print(args, &folder);
    }
    let work =
        Work { args, settings: &settings, session: &session, neurons: &neurons, folder: &folder, device };
    let found = work.all(&models, dataset, show)?;
    folder.write("images.safetensors", &encode(&found.tensors, &[])?)?;
    folder.finish(&Table::of(&METRICS, &found.rows)?)?;
    show.line(&format!("{}: {} images", args.how.out.display(), found.rows.len()));
    print(args, &folder)
}

/// The session, and the numbers of the neurons.
fn chosen(args: &Args, dataset: &Dataset) -> anyhow::Result<(String, Vec<i64>)> {
    let manifest = dataset.manifest();
    let ids: Vec<&str> = manifest.sessions.iter().map(|session| session.id.as_str()).collect();
    let found = match (&args.session, &manifest.sessions[..]) {
        (Some(id), sessions) => sessions.iter().find(|session| session.id == *id),
        (None, [one]) => Some(one),
        (None, _) => None,
    };
    let Some(session) = found else {
        let what = format!("name one of its sessions with --session: {}", ids.join(", "));
        return Err(Usage(format!("{}: {what}", manifest.dataset)).into());
    };
    let n = i64::from(session.neurons);
    if args.neuron.iter().any(|text| text == "all") {
        return Ok((session.id.clone(), (0..n).collect()));
    }
    let number = |text: &String| {
        text.parse::<i64>().ok().filter(|number| (0..n).contains(number)).ok_or_else(|| {
            Usage(format!("--neuron {text}: session {} has neurons 0 to {}", session.id, n - 1))
        })
    };
    let neurons = args.neuron.iter().map(number).collect::<Result<Vec<i64>, Usage>>()?;
    Ok((session.id.clone(), neurons))
}

/// Number of the session's readout in a model, of the area of the data set: sessions of two may have one id.
fn readout(model: &Model, session: &str, neurons: &[i64]) -> anyhow::Result<usize> {
    let fits = |of: &SessionData| of.id == session && model.area.is_none_or(|area| of.task == area);
    let root = model.root.display();
    let none = || Usage(format!("{root}: has no readout of session {session}"));
    let found = model.info.sessions.iter().position(fits).ok_or_else(none)?;
    let n = model.info.sessions[found].mean_response.len() as i64;
    match neurons.iter().find(|neuron| **neuron >= n) {
        Some(neuron) => {
            let what =
                format!("its readout of session {session} has neurons 0 to {}, and no {neuron}", n - 1);
            Err(Usage(format!("{root}: {what}")).into())
        }
        None => Ok(found),
    }
}

/// Steps of a fixed length that shrinks to a tenth, along the blurred gradient.
fn settings(args: &Args) -> anyhow::Result<Settings> {
    let mut settings = match &args.settings {
        Some(path) => read_settings(path)?,
        None => Settings {
            // Faint: what no gradient reaches stays as it is.
            initial: Start::Normal { mean: 0.0, std: 0.1 },
            transform: Vec::new(),
            regularizer: Vec::new(),
            precondition: vec![
                OperationSettings::GaussianBlur {
                    sigma: [1.0; 2],
                    decay: 0.0,
                    truncate: 4.0,
                    pad: Pad::Reflect,
                },
                OperationSettings::ChangeNorm { norm: 1.0 },
                OperationSettings::MultiplyBy { constant: 1.0, decay: -0.9 / f64::from(args.steps) },
            ],
            optimizer: OptimizerSettings::Sgd { lr: args.norm / 40.0, momentum: 0.0, weight_decay: 0.0 },
            projection: Vec::new(),
            stop: Stop::Steps { n: args.steps },
            log_every: 10,
            inhibitory: false,
        },
    };
    settings.inhibitory ^= args.least;
    Ok(settings)
}

struct Work<'a> {
    args: &'a Args,
    settings: &'a Settings,
    session: &'a str,
    neurons: &'a [i64],
    folder: &'a Folder,
    device: Device,
}

impl Work<'_> {
    /// Images of all models, with what they evoke.
    fn all(&self, models: &[Model], dataset: &Dataset, show: Show) -> anyhow::Result<Found> {
        let seeds = &self.args.seeds;
        let samples: Vec<Sample> = self
            .neurons
            .iter()
            .flat_map(|&neuron| seeds.iter().map(move |&seed| Sample { neuron, seed }))
            .collect();
        // Images that are to differ from each other are of one neuron.
        let together = if self.settings.regularizer.iter().any(PenaltySettings::couples) {
            seeds.len()
        } else {
            self.args.how.batch(self.device)
        };
        let chunks: Vec<&[Sample]> = samples.chunks(together.max(1)).collect();
        let steps = u64::from(self.settings.stop.most().unwrap_or(0));
        let bar = show.bar("mei", steps * (chunks.len() * models.len()) as u64, "steps");
        let mut found = Found::default();
        for (number, model) in models.iter().enumerate() {
            let evoked = self.evoked(model, dataset)?;
            for (chunk, samples) in chunks.iter().enumerate() {
                let path = self.folder.searches()?.join(format!("{number}-{chunk}.safetensors"));
                let searched = self.search(model, samples, &path, &bar)?;
                self.measure(model, samples, &searched, &evoked, &mut found)?;
            }
        }
        bar.clear();
        Ok(found)
    }

    /// Responses to stimuli of the set, evenly spaced.
    fn evoked(&self, model: &Model, dataset: &Dataset) -> anyhow::Result<Evoked> {
        let shards = dataset.stimuli()?;
        let n: u64 = shards.iter().map(crate::shard::OpenShard::n_rows).sum();
        let shown = u64::from(self.args.compare).clamp(1, n.max(1));
        let rows: Vec<u64> = (0..shown).map(|i| i * n / shown).collect();
        let readout = readout(model, self.session, self.neurons)?;
        let least = self.settings.inhibitory;
        let worst = if least { f64::INFINITY } else { f64::NEG_INFINITY };
        let mut evoked = Evoked { best: Vec::new(), mean: Vec::new() };
        for rows in rows.chunks(100) {
            let images =
                choose(dataset, Split::Train, rows)?.shown(&model.view, None, 0)?.to_device(self.device);
            let said = tch::no_grad(|| model.net.respond(&images, readout, Mode::EVAL))?;
            let n = said.size()[1] as usize;
            evoked.best.resize(n, (worst, 0));
            evoked.mean.resize(n, 0.0);
            let said =
                Vec::<f64>::try_from(said.to_kind(tch::Kind::Double).to_device(Device::Cpu).flatten(0, -1))?;
            for (row, said) in rows.iter().zip(said.chunks_exact(n)) {
                for (neuron, &response) in said.iter().enumerate() {
                    evoked.mean[neuron] += response / shown as f64;
                    if response != evoked.best[neuron].0 && (response < evoked.best[neuron].0) == least {
                        evoked.best[neuron] = (response, *row);
                    }
                }
            }
        }
        Ok(evoked)
    }

    fn search(
        &self,
        model: &Model,
        samples: &[Sample],
        path: &std::path::Path,
        bar: &super::show::Bar,
    ) -> anyhow::Result<(Search, Tensor, Vec<f64>)> {
        let neurons = samples.iter().map(|sample| sample.neuron).collect();
        let objective =
            Responses { net: &model.net, session: readout(model, self.session, self.neurons)?, neurons };
        let norms = vec![self.args.norm / scale(model); samples.len()];
        let constraint: Box<dyn Operation> = Box::new(ChangeNorm::each(&norms, true));
        let seeds: Vec<u64> = samples.iter().map(|sample| sample.seed).collect();
        let extent = model.extent.map(|n| n as i64);
        let starts: Vec<Tensor> =
            seeds.iter().map(|&seed| self.settings.initial.image(extent, seed)).collect();
        let start = Tensor::cat(&starts, 0).to_device(self.device);
        let ascent = self.settings.ascent(&objective, &seeds, Some(constraint));
        search::run(&ascent, &start, path, &self.folder.identity, bar, scale(model))
    }

    fn measure(
        &self,
        model: &Model,
        samples: &[Sample],
        (search, images, responses): &(Search, Tensor, Vec<f64>),
        evoked: &Evoked,
        found: &mut Found,
    ) -> anyhow::Result<()> {
        let [images, searched] = [images, &search.images].map(|images| images.to_device(Device::Cpu));
        for (i, sample) in samples.iter().enumerate() {
            let image = images.get(i as i64);
            let name =
                format!("{} {} neuron {} seed {}", model.name, self.session, sample.neuron, sample.seed);
            let file = format!("pictures/{}.png", slug(&name));
            self.folder.write(&file, &picture(&image, &model.pictured).png(1)?)?;
            let steps = search.ended[i].map_or(search.step, |step| step + 1);
            let norm = searched.get(i as i64).norm().double_value(&[]) * scale(model);
            let (best, mean) = (evoked.best[sample.neuron as usize], evoked.mean[sample.neuron as usize]);
            found.rows.push(json!({
                "model": model.name, "session": self.session, "neuron": sample.neuron, "seed": sample.seed,
                "norm": norm, "steps": steps, "response": responses[i],
                "best_response": best.0, "best_image": best.1, "mean_response": mean, "picture": file,
            }));
            found.tensors.push((name, image));
        }
        Ok(())
    }
}

/// Three equal channels have the root of 3 times the norm of one.
fn scale(model: &Model) -> f64 {
    model.copies(model.extent[0]).sqrt()
}

fn print(args: &Args, folder: &Folder) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(folder.root.join("metrics.jsonl"))?;
    if args.how.json {
        return out(text.trim_end());
    }
    let mut shown = table(&["model", "neuron", "seed", "response", "best of the data set", "mean"]);
    for row in text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        let real = |key: &str| format!("{:.3}", row[key].as_f64().unwrap_or(f64::NAN));
        let name = row["model"].as_str().unwrap_or_default().to_owned();
        let (neuron, seed) = (row["neuron"].to_string(), row["seed"].to_string());
        shown.add_row([name, neuron, seed, real("response"), real("best_response"), real("mean_response")]);
    }
    out(&shown.to_string())
}
