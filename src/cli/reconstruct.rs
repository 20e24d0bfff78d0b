//! `nct reconstruct`: images that a layer cannot tell from others, found under a constraint (spec/reconstruction 1).

mod measure;

use super::analysis::images::{Chosen, Disturbance, Strength, choose};
use super::analysis::{Folder, Model, images_first, models, search};
use super::corrupt::frost;
use super::exit::Usage;
use super::show::{Show, SplitArg, out, table};
use super::torch::selected;
use crate::analysis::ascent::{
    ChangeNorm, Initial, Operation, OperationSettings, OptimizerSettings, Pad, Search, Settings, Start, Stop,
    Stopper,
};
use crate::analysis::{LayerMatch, Match};
use crate::corruption::frost::Source;
use crate::corruption::{Corruption, Profile};
use crate::shard::ShardSet;
use measure::{Measured, Measures};
pub(super) use measure::{picture, slug};
use serde_json::json;
use std::path::PathBuf;
use tch::{Device, Tensor};

/// Arguments of `nct reconstruct`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folders of runs, or NAME=RUN; others are compared with the first
    #[arg(required = true)]
    run: Vec<String>,
    /// The layer: conv3_1, relu3_1, pool2, features.14 of any VGG, or a path such as mtl_vgg_core.v1_block.14
    #[arg(long)]
    layer: String,
    #[command(flatten)]
    which: Which,
    /// Match the activity that the images evoke with white noise of this standard deviation, pixels being 0 to 1
    #[arg(long, value_name = "STD", conflicts_with = "corruption")]
    noise: Option<f64>,
    /// Match the activity that the images evoke under a corruption, such as fog-3
    #[arg(long, value_name = "NAME-LEVEL")]
    corruption: Option<Strength>,
    /// Parameters of the corruption: i of ImageNet-C, t of Tiny-ImageNet-C
    #[arg(long, default_value = "i", value_name = "t|i", requires = "corruption")]
    profile: Profile,
    /// Norms that images may have, over all three channels, in units of normalised pixels [default: 5,10,20,40,60]
    #[arg(long, value_delimiter = ',', value_name = "NORMS")]
    budgets: Vec<f64>,
    /// ball: no more than the norm; sphere: the norm, as in the reference; none: any norm
    #[arg(long, value_enum, default_value_t = Constraint::Ball)]
    constraint: Constraint,
    /// tied: one gray image; free: three channels that may differ, as in the reference. Colour networks have free ones
    #[arg(long, value_enum, default_value_t = Channels::Tied)]
    channels: Channels,
    /// Where the search starts
    #[arg(long, value_enum, default_value_t = Begin::Noise)]
    start: Begin,
    /// Learning rate, on the mean of squares over the layer
    #[arg(long, default_value_t = 5000.0, conflicts_with = "rate")]
    lr: f64,
    /// The same for the sum of squares: does not depend on the size of the layer
    #[arg(long)]
    rate: Option<f64>,
    /// Standard deviation of the blur over gradients, in pixels; 0 for none
    #[arg(long, default_value_t = 1.0)]
    blur: f64,
    /// Steps
    #[arg(long, default_value_t = 5000, value_parser = clap::value_parser!(u32).range(1..))]
    steps: u32,
    /// Everything as the reference's published settings have it: sphere, free channels, noise, 5001 steps, seed 1000
    #[arg(long, conflicts_with_all = ["constraint", "channels", "start", "lr", "rate", "blur", "steps", "settings", "seeds"])]
    as_reference: bool,
    /// TOML file with the parts of the search, instead of start, lr, blur and steps; `nct help analysis` has an example
    #[arg(long, value_name = "FILE", conflicts_with_all = ["start", "lr", "rate", "blur", "steps"])]
    settings: Option<PathBuf>,
    /// Seeds: of the start, and of what noise and corruptions draw
    #[arg(long, value_delimiter = ',', default_value = "1000")]
    seeds: Vec<u64>,
    /// Saliency maps: a .safetensors or .pt file with a matrix for each image's number, or a folder of NUMBER.png.
    /// Without it, spectral residuals stand in
    #[arg(long, value_name = "FILE")]
    saliency: Option<PathBuf>,
    /// Write the layer's activity too, as activity.safetensors: what was to be matched, and what was found
    #[arg(long)]
    activity: bool,
    #[command(flatten)]
    how: How,
}

/// Which images.
#[derive(Debug, clap::Args)]
pub(super) struct Which {
    /// Folder of shards, or its URL (nct help stores)
    #[arg(long, default_value = "shards")]
    pub(super) shards: PathBuf,
    /// Data set of the images, if not the labelled images of the first run
    #[arg(long, value_name = "DATASET")]
    pub(super) dataset: Option<String>,
    /// Its split
    #[arg(long, value_enum, default_value_t = SplitArg::Test)]
    pub(super) split: SplitArg,
    /// Numbers of the images within the split, by commas
    #[arg(long, value_delimiter = ',', default_value = "0,1,2,3", value_name = "NUMBERS")]
    pub(super) images: Vec<u64>,
}

/// How an analysis is run.
#[derive(Debug, clap::Args)]
pub(super) struct How {
    /// Images that are searched at once [default: 16 on a CPU, whose caches hold so many, 256 on a GPU]. Changes results
    /// by rounding, which long searches amplify
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(super) batch: Option<u32>,
    /// Folder for the results; the same command goes on in it
    #[arg(long, value_parser = super::files::folder)]
    pub(super) out: PathBuf,
    /// auto, cpu, cuda or cuda:N
    #[arg(long, default_value = "auto")]
    pub(super) device: String,
    /// Print the metrics, one JSON object a line
    #[arg(long)]
    pub(super) json: bool,
}

impl How {
    /// Images at once on `device`.
    pub(super) fn batch(&self, device: Device) -> usize {
        self.batch.map_or(if device.is_cuda() { 256 } else { 16 }, |n| n as usize)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Constraint {
    Ball,
    Sphere,
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Channels {
    Tied,
    Free,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Begin {
    /// Normal numbers, the same in all channels
    Noise,
    /// What is to be reconstructed
    Target,
    /// The mean image
    Zero,
}

/// What one image of a batch is of.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Sample {
    /// Number among the chosen images.
    image: usize,
    budget: f64,
    seed: u64,
}

/// The search as the options say it.
struct Plan {
    settings: Settings,
    constraint: Constraint,
    tied: bool,
    from_target: bool,
    seeds: Vec<u64>,
    /// Learning rate for the sum of squares.
    rate: Option<f64>,
}

pub(crate) fn run(args: &Args, show: Show) -> anyhow::Result<()> {
    check(args)?;
    let device = selected(&args.how.device, show)?;
    let shards = ShardSet::open(&args.which.shards)?;
    let (models, dataset) = models(&args.run, &shards, args.which.dataset.as_deref(), images_first, device)?;
    let chosen = choose(shards.dataset(&dataset)?, args.which.split.split(), &args.which.images)?;
    let gray = models.iter().all(|model| model.view.mean.len() == 1);
    let plan = plan(args, gray)?;
    let [_, height, width] = chosen.extent(&models[0].view).map(|n| n as i64);
    plan.settings.check([if plan.tied { 1 } else { 3 }, height, width])?;
    models.iter().try_for_each(|model| sees(model, &plan))?;
    let paths =
        models.iter().map(|model| model.net.layer(&args.layer)).collect::<Result<Vec<String>, _>>()?;
    let saliency = measure::saliency(args.saliency.as_deref(), &chosen)?;
    let mut told = json!({
        "layer": args.layer, "paths": paths, "dataset": dataset, "split": args.which.split.split().as_str(),
        "data": shards.dataset(&dataset)?.manifest().fingerprint().as_str(), "images": args.which.images,
        "disturbance": disturbance(args).map(Disturbance::name), "profile": args.profile.as_str(),
        "budgets": budgets(args), "constraint": format!("{:?}", plan.constraint), "tied": plan.tied,
        "from_target": plan.from_target, "rate": plan.rate, "seeds": plan.seeds, "search": plan.settings,
        "batch": args.how.batch(device), "saliency": saliency.digest,
    });
    if args.activity {
        told["activity"] = json!(true);
    }
    if let Some(Disturbance::Corruption(Corruption::Frost, ..)) = disturbance(args) {
        frost::open(None)?;
        if frost::asked() == Source::Pictures {
            told["frost_source"] = json!(Source::Pictures.as_str());
        }
    }
    let mut folder = Folder::open(&args.how.out, "reconstruction", &told, &models)?;
    if folder.is_done() {
        show.line(&format!("{}: was done before", args.how.out.display()));
        return print(args, &folder);
    }
    folder.tell("saliency", json!(saliency.name))?;
    let work = Work { args, plan: &plan, chosen: &chosen, folder: &folder, device };
    let samples = work.samples();
    let chunks = samples.len().div_ceil(args.how.batch(device)) as u64;
    let steps = u64::from(plan.settings.stop.most().unwrap_or(0));
    let bar = show.bar("reconstruct", chunks * steps * models.len() as u64, "steps");
    let mut measures = Measures::new(args.layer.clone(), disturbance(args), saliency);
    for (number, model) in models.iter().enumerate() {
        work.model(number, model, &samples, &bar, &mut measures)?;
    }
    bar.clear();
    measures.write(&folder, &models)?;
    show.line(&format!("{}: {} reconstructions", args.how.out.display(), models.len() * samples.len()));
    print(args, &folder)
}

/// Whether each of the values is named once.
pub(super) fn distinct<T: PartialEq + std::fmt::Display>(flag: &str, values: &[T]) -> anyhow::Result<()> {
    match values.iter().enumerate().find(|(i, value)| values[..*i].contains(value)) {
        Some((_, twice)) => Err(Usage(format!("{flag} names {twice} twice")).into()),
        None => Ok(()),
    }
}

fn check(args: &Args) -> anyhow::Result<()> {
    distinct("--images", &args.which.images)?;
    distinct("--budgets", &args.budgets)?;
    distinct("--seeds", &args.seeds)?;
    if args.constraint == Constraint::None && !args.budgets.is_empty() {
        return Err(Usage("--budgets: images keep no norm with --constraint none".to_owned()).into());
    }
    let positive = |values: &[f64]| values.iter().all(|v| v.is_finite() && *v > 0.0);
    if !positive(&args.budgets) || !positive(args.noise.as_slice()) || !positive(args.rate.as_slice()) {
        return Err(Usage("--budgets, --noise and --rate are above 0".to_owned()).into());
    }
    let fits = positive(&[args.lr]) && args.blur.is_finite() && args.blur >= 0.0;
    if !fits {
        return Err(Usage("--lr is above 0, and --blur is 0 or more".to_owned()).into());
    }
    Ok(())
}

/// Whether the network can see what is searched.
fn sees(model: &Model, plan: &Plan) -> anyhow::Result<()> {
    if model.one_channel && !plan.tied {
        let what = "its first layer sees one gray channel, and three are searched with --channels free, --as-reference or \
                    beside networks that see colour; leave these out";
        return Err(Usage(format!("{}: {what}", model.root.display())).into());
    }
    model.check(&plan.settings)
}

/// The norms; 0 where none is kept.
fn budgets(args: &Args) -> Vec<f64> {
    if args.constraint == Constraint::None && !args.as_reference {
        return vec![0.0];
    }
    if args.budgets.is_empty() { vec![5.0, 10.0, 20.0, 40.0, 60.0] } else { args.budgets.clone() }
}

fn disturbance(args: &Args) -> Option<Disturbance> {
    let corrupted =
        args.corruption.map(|Strength(c, severity)| Disturbance::Corruption(c, severity, args.profile));
    args.noise.map(Disturbance::Noise).or(corrupted)
}

/// The search that the options describe; of networks that see colour (not `gray`), channels are free.
fn plan(args: &Args, gray: bool) -> anyhow::Result<Plan> {
    let (blur, lr, stop) = if args.as_reference {
        (1.0, 5000.0, Stop::NumIterations { n: 5000 })
    } else {
        (args.blur, args.lr, Stop::Steps { n: args.steps })
    };
    let blurs =
        OperationSettings::GaussianBlur { sigma: [blur; 2], decay: 0.0, truncate: 4.0, pad: Pad::Reflect };
    let start = if args.as_reference { Begin::Noise } else { args.start };
    let initial = if start == Begin::Noise { Start::NormalTied } else { Start::Zero };
    let settings = match &args.settings {
        Some(path) => read_settings(path)?,
        None => Settings {
            initial,
            transform: Vec::new(),
            regularizer: Vec::new(),
            precondition: (blur > 0.0).then_some(blurs).into_iter().collect(),
            optimizer: OptimizerSettings::Sgd { lr, momentum: 0.0, weight_decay: 0.0 },
            projection: Vec::new(),
            stop,
            log_every: 10,
            inhibitory: false,
        },
    };
    let free = args.as_reference || args.channels == Channels::Free || !gray;
    Ok(Plan {
        settings,
        constraint: if args.as_reference { Constraint::Sphere } else { args.constraint },
        tied: !free,
        from_target: start == Begin::Target && args.settings.is_none(),
        seeds: if args.as_reference { vec![1000] } else { args.seeds.clone() },
        rate: args.rate,
    })
}

/// A search in a TOML file.
pub(super) fn read_settings(path: &std::path::Path) -> anyhow::Result<Settings> {
    let text = std::fs::read_to_string(path).map_err(|e| Usage(format!("{}: {e}", path.display())))?;
    toml::from_str(&text).map_err(|e| Usage(format!("{}: {e}", path.display())).into())
}

/// What a search came to. Tensors have a row a sample, on the CPU.
struct Searched {
    search: Search,
    /// What was found.
    images: Tensor,
    /// Objectives.
    values: Vec<f64>,
    /// Relative errors.
    errors: Vec<f64>,
    /// Of the layer: what was to be matched, and what was found.
    activity: Option<[Tensor; 2]>,
}

struct Work<'a> {
    args: &'a Args,
    plan: &'a Plan,
    chosen: &'a Chosen,
    folder: &'a Folder,
    device: Device,
}

impl Work<'_> {
    /// Every image under every budget from every seed.
    fn samples(&self) -> Vec<Sample> {
        let mut samples = Vec::new();
        for image in 0..self.chosen.len() {
            for budget in budgets(self.args) {
                samples.extend(self.plan.seeds.iter().map(|&seed| Sample { image, budget, seed }));
            }
        }
        samples
    }

    /// Finds and measures all reconstructions of one network.
    fn model(
        &self,
        number: usize,
        model: &Model,
        samples: &[Sample],
        bar: &super::show::Bar,
        measures: &mut Measures,
    ) -> anyhow::Result<()> {
        // Noise does not depend on a reconstruction's seed: all see the same.
        let seed = self.plan.seeds.first().copied().unwrap_or(0);
        let clean = self.chosen.shown(&model.view, None, seed)?;
        let targets = self.chosen.shown(&model.view, disturbance(self.args), seed)?;
        let first = self.first_gradients(model, &targets)?;
        for (chunk, samples) in samples.chunks(self.args.how.batch(self.device)).enumerate() {
            let rows: Vec<i64> = samples.iter().map(|sample| sample.image as i64).collect();
            let rows = Tensor::from_slice(&rows);
            let of = |images: &Tensor| images.index_select(0, &rows);
            let (clean, targets) = (of(&clean), of(&targets));
            let path = self.folder.searches()?.join(format!("{number}-{chunk}.safetensors"));
            let Searched { search, images, values, errors, activity } =
                self.search(model, &targets, samples, &path, bar)?;
            let pixels = &model.pictured;
            let found = Measured {
                model: &model.name,
                scale: [&pixels.mean, &pixels.std].map(|of| of.iter().sum::<f64>() / of.len() as f64),
                view: pixels,
                chosen: self.chosen,
                root: self.copies(model).sqrt(),
                samples,
                clean,
                targets,
                images,
                activity,
                gradients: of(&first),
                values,
                errors,
                search: &search,
            };
            measures.add(&found)?;
        }
        Ok(())
    }

    /// Channels that the network shows each searched one to.
    fn copies(&self, model: &Model) -> f64 {
        model.copies(if self.plan.tied { 1 } else { 3 })
    }

    /// The search of a batch.
    fn search(
        &self,
        model: &Model,
        targets: &Tensor,
        samples: &[Sample],
        path: &std::path::Path,
        bar: &super::show::Bar,
    ) -> anyhow::Result<Searched> {
        let images = self.widened(targets);
        let objective = LayerMatch::new(&model.net, &self.args.layer, &images, Match::Mean)?;
        let mut settings = self.plan.settings.clone();
        if let (Some(rate), OptimizerSettings::Sgd { lr, .. }) = (self.plan.rate, &mut settings.optimizer) {
            *lr = rate * objective.n_activations() as f64;
        }
        let copies = self.copies(model);
        if copies > 1.0 {
            // One channel's gradient is the sum of those of three equal ones: their mean moves as it would move them. First,
            // so that what else is done to gradients gets what it would get of three.
            settings
                .precondition
                .insert(0, OperationSettings::MultiplyBy { constant: copies.recip(), decay: 0.0 });
        }
        // Three equal channels have the root of 3 times the norm of one.
        let scale = copies.sqrt();
        let norms: Vec<f64> = samples.iter().map(|sample| sample.budget / scale).collect();
        let constraint: Option<Box<dyn Operation>> = match self.plan.constraint {
            Constraint::None => None,
            kind => Some(Box::new(ChangeNorm::each(&norms, kind == Constraint::Ball))),
        };
        let seeds: Vec<u64> = samples.iter().map(|sample| sample.seed).collect();
        let start = if self.plan.from_target {
            images
        } else {
            let extent = [images.size()[1], images.size()[2], images.size()[3]];
            let starts: Vec<Tensor> =
                seeds.iter().map(|&seed| settings.initial.image(extent, seed)).collect();
            Tensor::cat(&starts, 0).to_device(self.device)
        };
        let ascent = settings.ascent(&objective, &seeds, constraint);
        let (search, found, values) = search::run(&ascent, &start, path, &self.folder.identity, bar, scale)?;
        let errors = objective.relative_error(&found)?;
        let on_cpu = |t: &Tensor| t.to_device(Device::Cpu);
        let activity = if self.args.activity {
            Some([on_cpu(objective.target()), on_cpu(&objective.activity(&found)?)])
        } else {
            None
        };
        Ok(Searched { search, images: on_cpu(&found), values, errors, activity })
    }

    /// Images as the search has them: three channels unless they are tied, on the device.
    fn widened(&self, images: &Tensor) -> Tensor {
        let images = images.to_device(self.device);
        if self.plan.tied || images.size()[1] == 3 { images } else { images.repeat([1, 3, 1, 1]) }
    }

    /// The direction in which each target is sought first, from the mean image: what needs no search.
    fn first_gradients(&self, model: &Model, targets: &Tensor) -> anyhow::Result<Tensor> {
        let mut found = Vec::new();
        for targets in targets.split(self.args.how.batch(self.device) as i64, 0) {
            let images = self.widened(&targets);
            let objective = LayerMatch::new(&model.net, &self.args.layer, &images, Match::Mean)?;
            let seeds = vec![0; targets.size()[0] as usize];
            let ascent = self.plan.settings.ascent(&objective, &seeds, None);
            let state = ascent.advance(&mut Search::new(&images.zeros_like()))?;
            found.push((-state.gradient).to_device(Device::Cpu));
        }
        Ok(Tensor::cat(&found, 0))
    }
}

fn print(args: &Args, folder: &Folder) -> anyhow::Result<()> {
    if args.how.json {
        return out(std::fs::read_to_string(folder.root.join("metrics.jsonl"))?.trim_end());
    }
    let mut shown = table(&["model", "budget", "correlation", "SSIM", "response error", "content share"]);
    for row in measure::summary(&folder.root)? {
        shown.add_row(row);
    }
    out(&shown.to_string())
}
