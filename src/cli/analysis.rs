//! What the analyses of trained networks share: networks by name, images to show them, the folder of an analysis, and
//! searches that go on where they stopped.

pub(super) mod images;
pub(super) mod search;

use super::exit::{Usage, stop_flag};
use super::robustness::weights_of;
use crate::analysis::ascent::{Settings, TransformSettings};
use crate::base::{DType, Fingerprint, Split, Task};
use crate::config::{Data, Experiment};
use crate::load::View;
use crate::model::{DataInfo, Network};
use crate::report::{Plot, analysis_plots_of};
use crate::runs::{Run, write_atomic};
use crate::shard::{Dataset, ShardSet};
use crate::table::{Format, Table};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tch::Device;

/// A trained network.
pub(super) struct Model {
    /// Its name in tables and figures.
    pub(super) name: String,
    /// Folder of its run.
    pub(super) root: PathBuf,
    /// Digest of its best weights.
    pub(super) weights: String,
    pub(super) net: Network,
    /// What it knows of its data.
    pub(super) info: DataInfo,
    /// How the images of the data set are shown to it.
    pub(super) view: View,
    /// How what it is shown is in pictures: as in `view`, and of floating-point images, which are on no fixed scale, three
    /// standard deviations to either side of the mean.
    pub(super) pictured: View,
    /// Channels, rows and columns that it is shown.
    pub(super) extent: [usize; 3],
    /// Whether its first kernel has one channel: that of an SE network that learned from gray images. A VGG has three,
    /// which see the same of one.
    pub(super) one_channel: bool,
    /// The area of the data set, if it is a neural set of the run's own.
    pub(super) area: Option<Task>,
}

impl Model {
    /// How many channels of the network see the same of one that is searched, among so many.
    pub(super) fn copies(&self, channels: usize) -> f64 {
        if channels == 1 && !self.one_channel { 3.0 } else { 1.0 }
    }

    /// Whether the network can see images that a search makes three channels of.
    pub(super) fn check(&self, settings: &Settings) -> anyhow::Result<()> {
        if self.one_channel && settings.transform.contains(&TransformSettings::GrayscaleToRgb) {
            let what = "its first layer sees one gray channel; leave grayscale_to_rgb out of the transforms";
            return Err(Usage(format!("{}: {what}", self.root.display())).into());
        }
        Ok(())
    }
}

/// A run as it is named on the command line: `RUN`, or `NAME=RUN`.
fn named(text: &str) -> (Option<&str>, &Path) {
    match text.split_once('=') {
        Some((name, run)) if !name.is_empty() && !Path::new(text).exists() => (Some(name), Path::new(run)),
        _ => (None, Path::new(text)),
    }
}

/// The labelled images of an experiment, or else its stimuli.
pub(super) fn images_first(experiment: &Experiment) -> Option<String> {
    let data = &experiment.data;
    [&data.images, &data.neural, &data.neural_v4].into_iter().find(|name| !name.is_empty()).cloned()
}

/// The networks of the runs with their best weights, and the name of the data set that they are shown: `dataset`, or
/// what the first run has that is `preferred`.
pub(super) fn models(
    runs: &[String],
    shards: &ShardSet,
    dataset: Option<&str>,
    preferred: impl Fn(&Experiment) -> Option<String>,
    device: Device,
) -> anyhow::Result<(Vec<Model>, String)> {
    let mut models: Vec<Model> = Vec::new();
    let mut shown = dataset.map(str::to_owned);
    for text in runs {
        let (name, root) = named(text);
        let run = Run::open(root)?;
        let origin = root.join("config.toml").display().to_string();
        let experiment = Experiment::parse(&run.config()?, &origin, &[])?;
        let data = Data::open(&experiment, shards)?;
        let lacks = "has no data set of the kind asked for; name one with --dataset";
        let none = || Usage(format!("{}: {lacks}", root.display()));
        let set = shown.take().or_else(|| preferred(&experiment)).ok_or_else(none)?;
        let dataset = shards.dataset(&set)?;
        let area = [(&experiment.data.neural, Task::V1), (&experiment.data.neural_v4, Task::V4)];
        let area = area.into_iter().find(|(name, _)| **name == set).map(|(_, task)| task);
        shown = Some(set);
        let view = data.raw_view(dataset, !dataset.manifest().sessions.is_empty())?;
        let extent = extent(dataset, &view)?;
        let info = data.info(&data.sources(Split::Train)?)?;
        let mut net = Network::new(&experiment.model, &info, device, experiment.runtime())?;
        crate::train::load_weights(&run, run.final_weights(), &net)?;
        net.fold();
        for param in net.params().iter() {
            let _ = param.tensor.shallow_clone().set_requires_grad(false);
        }
        let name = name.unwrap_or(&experiment.name).to_owned();
        let weights = weights_of(root)?;
        let one_channel = experiment.model.se.is_some() && extent[0] == 1;
        let (root, pictured) = (root.to_path_buf(), pictured(dataset, &view));
        models.push(Model { name, root, weights, net, info, view, pictured, extent, one_channel, area });
    }
    distinguish(&mut models)?;
    Ok((models, shown.unwrap_or_default()))
}

/// Channels, rows and columns that `view` shows of a data set's images.
///
/// # Errors
/// Images of which it cannot.
fn extent(dataset: &Dataset, view: &View) -> Result<[usize; 3], Usage> {
    let manifest = dataset.manifest();
    let ([channels, height, width], name) = (manifest.image, &manifest.dataset);
    let [shown, rows, columns] = view.extent(manifest.image);
    let turns_gray = shown == 1 && channels == 3 && manifest.pixels == DType::U8;
    if shown != channels && !turns_gray {
        let what = format!("images have {channels} channels, and the network learned from {shown}");
        return Err(Usage(format!(
            "{name}: {what}; name another data set, or prepare it with the other --color"
        )));
    }
    if rows > height || columns > width {
        let what = format!("images of {height} x {width}, of which {rows} x {columns} cannot be shown");
        return Err(Usage(format!("{name}: {what}; prepare them with --resize of at least that")));
    }
    Ok([shown, rows, columns].map(|n| n as usize))
}

/// See [`Model::pictured`].
fn pictured(dataset: &Dataset, view: &View) -> View {
    if dataset.manifest().pixels == DType::U8 {
        return view.clone();
    }
    let of_each = |value: f64| vec![value; view.mean.len()];
    View { mean: of_each(0.5), std: of_each(1.0 / 6.0), ..view.clone() }
}

/// Gives models of one name the names of their folders too, and refuses those that are one nevertheless.
fn distinguish(models: &mut [Model]) -> anyhow::Result<()> {
    let names: Vec<String> = models.iter().map(|model| model.name.clone()).collect();
    for (model, name) in models.iter_mut().zip(&names) {
        if names.iter().filter(|other| *other == name).count() > 1 {
            let folder = model.root.file_name().unwrap_or(model.root.as_os_str());
            model.name = format!("{name} ({})", folder.to_string_lossy());
        }
    }
    let names: Vec<&str> = models.iter().map(|model| model.name.as_str()).collect();
    match names.iter().enumerate().find(|(i, name)| names[..*i].contains(name)) {
        Some((_, name)) => {
            Err(Usage(format!("two networks are called {name}; name them as in one=RUN other=RUN")).into())
        }
        None => Ok(()),
    }
}

/// Folder of an analysis: begun with its settings, and done once its metrics are there.
pub(super) struct Folder {
    pub(super) root: PathBuf,
    /// Digest of everything that the results depend on.
    pub(super) identity: String,
    about: Value,
}

const ABOUT: &str = "analysis.json";
const METRICS: &str = "metrics.jsonl";
const SEARCHES: &str = ".search";

impl Folder {
    /// Opens or makes the folder of an analysis of `kind` with these settings. One that was begun with others is
    /// refused.
    pub(super) fn open(root: &Path, kind: &str, settings: &Value, models: &[Model]) -> anyhow::Result<Self> {
        let of = |model: &Model| json!({"name": model.name, "run": model.root, "weights": model.weights});
        let mut about = json!({
            "kind": kind, "nct": env!("CARGO_PKG_VERSION"), "settings": settings,
            "models": models.iter().map(of).collect::<Vec<Value>>(),
        });
        let weights = models.iter().map(|model| [model.name.as_str(), model.weights.as_str()]);
        let told = settings.to_string();
        let parts = [kind, told.as_str()].into_iter().chain(weights.flatten());
        let identity = Fingerprint::of_parts(parts.map(str::as_bytes)).to_string();
        about["identity"] = json!(identity);
        let path = root.join(ABOUT);
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                let found: Value = serde_json::from_str(&text).unwrap_or_default();
                if found["identity"] != identity.as_str() {
                    let what = "holds another analysis, or one of other settings or weights; name a new folder with --out";
                    return Err(Usage(format!("{}: {what}", root.display())).into());
                }
            }
            Err(_) if root.exists() && holds_other_files(root)? => {
                let what = "is not empty and holds no analysis; name a new folder with --out";
                return Err(Usage(format!("{}: {what}", root.display())).into());
            }
            Err(_) => {
                std::fs::create_dir_all(root)
                    .map_err(|e| Usage(format!("{}: create: {e}", root.display())))?;
                write_atomic(&path, format!("{about:#}\n").as_bytes())?;
            }
        }
        Ok(Self { root: root.to_path_buf(), identity, about })
    }

    /// Whether the analysis was done before; what searches kept is not needed any more then.
    pub(super) fn is_done(&self) -> bool {
        let done = self.root.join(METRICS).is_file();
        if done {
            self.forget_searches();
        }
        done
    }

    fn forget_searches(&self) {
        // What cannot be removed harms nobody.
        let _ = std::fs::remove_dir_all(self.root.join(SEARCHES));
    }

    /// Folder of what searches keep while they go on.
    pub(super) fn searches(&self) -> anyhow::Result<PathBuf> {
        // Once there is something to keep, to be asked to end means to keep it.
        let _ = stop_flag();
        let path = self.root.join(SEARCHES);
        std::fs::create_dir_all(&path)?;
        Ok(path)
    }

    /// Adds to what the folder says of itself, such as what stood in for something.
    pub(super) fn tell(&mut self, key: &str, value: Value) -> anyhow::Result<()> {
        self.about[key] = value;
        Ok(write_atomic(&self.root.join(ABOUT), format!("{:#}\n", self.about).as_bytes())?)
    }

    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
        let path = self.root.join(name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        Ok(write_atomic(&path, bytes)?)
    }

    /// Writes a table as JSON lines and as CSV.
    pub(super) fn table(&self, name: &str, table: &Table) -> anyhow::Result<()> {
        self.write(&format!("{name}.csv"), &table.bytes(Format::Csv)?)?;
        self.write(&format!("{name}.jsonl"), &table.bytes(Format::JsonLines)?)
    }

    /// Writes the figures, and last the metrics, with which the analysis is done.
    pub(super) fn finish(&self, metrics: &Table) -> anyhow::Result<()> {
        self.write("metrics.csv", &metrics.bytes(Format::Csv)?)?;
        self.write("metrics.parquet", &metrics.bytes(Format::Parquet)?)?;
        let lines = metrics.bytes(Format::JsonLines)?;
        for Plot { name, figure, table, .. } in analysis_plots_of(&self.root, &lines)? {
            self.write(&format!("figures/{name}.svg"), figure.svg().as_bytes())?;
            self.write(&format!("figures/{name}.png"), &figure.png()?)?;
            self.write(&format!("figures/{name}.csv"), &table.bytes(Format::Csv)?)?;
        }
        self.write(METRICS, &lines)?;
        self.forget_searches();
        Ok(())
    }
}

/// Whether a folder has anything that was not left by a process that was killed while it began an analysis here.
fn holds_other_files(root: &Path) -> std::io::Result<bool> {
    for entry in std::fs::read_dir(root)? {
        if !entry?.file_name().to_string_lossy().starts_with(&format!(".{ABOUT}.")) {
            return Ok(true);
        }
    }
    Ok(false)
}
