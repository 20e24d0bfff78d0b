//! `nct report` and `nct plot`: runs as a page, and as figures.

use super::exit::Usage;
use super::reconstruct::slug;
use super::robustness::{kept_with_source, score_of};
use super::show::{Show, bytes};
use crate::base::Split;
use crate::corruption::{Corruption, Profile};
use crate::eval::Origin;
use crate::eval::figures::{Seeds, mean_and_std};
use crate::eval::robustness::Grid;
use crate::load::{Budget, Column};
use crate::report::{Group, Page, Picture, Plot, Subject, analysis_plots, groups, plots};
use crate::runs::{INDEX, Store, write_atomic};
use crate::shard::{Dataset, ShardError, ShardSet};
use crate::table::Format;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// Which runs.
#[derive(Debug, clap::Args)]
pub(crate) struct Which {
    /// Folders of runs, or parts of their names that no others have
    #[arg(required = true)]
    pub(super) run: Vec<PathBuf>,
    /// Folder in which runs are looked for by name
    #[arg(long, default_value = "runs")]
    pub(super) runs: PathBuf,
    /// A run that robustness is relative to; those that differ from it in the seed alone belong to it
    #[arg(long, value_name = "RUN")]
    pub(super) baseline: Option<PathBuf>,
    /// Parameters of corruptions that the runs were evaluated with
    #[arg(long, default_value = "i", value_name = "t|i")]
    pub(super) profile: Profile,
    /// Folder of nct reconstruct, mei or rsa whose figures are shown too (may be repeated)
    #[arg(long, value_name = "DIR")]
    pub(super) analysis: Vec<PathBuf>,
}

/// Arguments of `nct report`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(super) which: Which,
    /// The page
    #[arg(long, default_value = "report.html")]
    pub(super) out: PathBuf,
    /// Its title
    #[arg(long, default_value = "Training runs")]
    pub(super) title: String,
    /// Folder of shards, for images with predictions
    #[arg(long, default_value = "shards")]
    pub(super) shards: PathBuf,
}

/// Arguments of `nct plot`.
#[derive(Debug, clap::Args)]
pub(crate) struct PlotArgs {
    #[command(flatten)]
    which: Which,
    /// Folder for the figures, and for their numbers as CSV
    #[arg(long)]
    out: PathBuf,
    /// Formats, by commas
    #[arg(long, value_enum, value_delimiter = ',', default_value = "svg")]
    format: Vec<Picturing>,
    /// Only these figures, by commas, such as learning,corruptions
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    only: Vec<String>,
    /// Folder of shards, for what classes are called
    #[arg(long, default_value = "shards")]
    shards: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Picturing {
    Svg,
    Pdf,
    Png,
}

/// Runs in groups, and what is known of them under corruptions.
struct Found {
    groups: Vec<Group>,
    /// Of the groups all of whose runs were evaluated, the baseline first.
    corrupted: Vec<Seeds>,
    notes: Vec<String>,
}

/// Images on a page: right ones and wrong ones.
const PICTURES: usize = 12;

pub(crate) fn run(args: &Args, show: Show) -> anyhow::Result<()> {
    let Found { groups, corrupted, mut notes } = find(&args.which)?;
    let set = ShardSet::open(&args.shards);
    let words = set.as_ref().map(|set| words(&groups, set)).unwrap_or_default();
    let plots = all_plots(&groups, &corrupted, &words, &args.which.analysis)?;
    if !corrupted.is_empty() && !plots.iter().any(|plot| plot.name == "corruptions") {
        notes.push("The runs were evaluated under different corruptions or severities, which cannot stand in one figure.".into());
    }
    for (name, what) in [
        ("learning", "No metrics yet: the runs have not finished an epoch."),
        ("confusion", "No confusions and images: no run that knows classes is done."),
        ("neurons", "No neurons: no run that predicts responses is done."),
    ] {
        if !plots.iter().any(|plot| plot.name == name) {
            notes.push(what.to_owned());
        }
    }
    let pictures = match pictures(&groups, set.as_ref(), &words) {
        Ok(pictures) => pictures,
        Err(why) => {
            notes.push(why);
            (String::new(), Vec::new())
        }
    };
    let scores = scores(&groups, &corrupted);
    let page = Page { title: args.title.clone(), groups: &groups, scores, plots: &plots, pictures, notes };
    let html = page.html();
    write_atomic(&args.out, html.as_bytes())?;
    show.line(&format!("{}: {}", args.out.display(), bytes(html.len() as u64)));
    Ok(())
}

pub(crate) fn plot(args: &PlotArgs, show: Show) -> anyhow::Result<()> {
    let Found { groups, corrupted, notes } = find(&args.which)?;
    for note in &notes {
        show.line(note);
    }
    let words = ShardSet::open(&args.shards).map(|set| words(&groups, &set)).unwrap_or_default();
    let plots = all_plots(&groups, &corrupted, &words, &args.which.analysis)?;
    let names: Vec<&str> = plots.iter().map(|plot| plot.name.as_str()).collect();
    if let Some(unknown) = args.only.iter().find(|name| !names.contains(&name.as_str())) {
        return Err(Usage(format!("there is no figure {unknown}; there are: {}", names.join(", "))).into());
    }
    let folder = args.out.display();
    std::fs::create_dir_all(&args.out).map_err(|e| Usage(format!("{folder}: create: {e}")))?;
    for Plot { name, figure, table, .. } in
        plots.iter().filter(|plot| args.only.is_empty() || args.only.contains(&plot.name))
    {
        let write = |extension: &str, bytes: &[u8]| {
            write_atomic(&args.out.join(format!("{name}.{extension}")), bytes)
        };
        for format in &args.format {
            match format {
                Picturing::Svg => write("svg", figure.svg().as_bytes())?,
                Picturing::Pdf => write("pdf", &figure.pdf()?)?,
                Picturing::Png => write("png", &figure.png()?)?,
            }
        }
        write("csv", &table.bytes(Format::Csv)?)?;
        show.line(&format!("{folder}/{name}"));
    }
    Ok(())
}

/// Figures of the runs, then of the analyses; those bear the names of their folders.
fn all_plots(
    groups: &[Group],
    corrupted: &[Seeds],
    words: &Words,
    analyses: &[PathBuf],
) -> anyhow::Result<Vec<Plot>> {
    let mut all = plots(groups, corrupted, words)?;
    let mut names: BTreeSet<String> = BTreeSet::new();
    for folder in analyses {
        let path = folder.canonicalize().map_err(|e| Usage(format!("{}: {e}", folder.display())))?;
        let own = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let mut name = own.clone();
        for number in 2.. {
            if names.insert(name.clone()) {
                break;
            }
            name = format!("{own}-{number}");
        }
        for mut plot in analysis_plots(folder)? {
            plot.name = slug(&format!("{name}-{}", plot.name));
            plot.figure.title = format!("{} ({name})", plot.figure.title);
            all.push(plot);
        }
    }
    Ok(all)
}

fn find(which: &Which) -> anyhow::Result<Found> {
    let (mut roots, mut places): (Vec<PathBuf>, BTreeSet<PathBuf>) = (Vec::new(), BTreeSet::new());
    let mut passed: Vec<String> = Vec::new();
    for run in which.baseline.iter().chain(&which.run) {
        let root = if run.join("config.toml").is_file() {
            run.clone()
        } else if run.exists() && which.baseline.as_ref() != Some(run) {
            // What else lies in a folder of runs, as `runs/*` gives it. The index is ours.
            if run.file_name().is_none_or(|name| name != INDEX) {
                passed.push(run.display().to_string());
            }
            continue;
        } else {
            let store = Store::open(&which.runs)?;
            which.runs.join(store.find(&run.to_string_lossy())?)
        };
        // However it is written.
        let place = root.canonicalize().unwrap_or_else(|_| root.clone());
        if places.insert(place) {
            roots.push(root);
        }
    }
    if roots.is_empty() {
        let passed = if passed.is_empty() { String::new() } else { format!(": {}", passed.join(", ")) };
        return Err(Usage(format!("no runs{passed}")).into());
    }
    let subjects = roots.iter().map(|root| Subject::read(root)).collect::<Result<Vec<_>, _>>()?;
    let groups = groups(subjects);
    let mut notes = Vec::new();
    notes.extend((!passed.is_empty()).then(|| format!("Passed over, being no runs: {}.", passed.join(", "))));
    let corrupted = under_corruptions(&groups, which.profile, &mut notes);
    if which.baseline.is_some() && corrupted.first().is_none_or(|first| first.name != groups[0].name) {
        notes.push("Without the baseline under corruptions there are no robustness scores.".to_owned());
    }
    Ok(Found { groups, corrupted, notes })
}

/// What runs reached under corruptions, by group. Frost of two sources is not compared: then it is left out.
fn under_corruptions(groups: &[Group], profile: Profile, notes: &mut Vec<String>) -> Vec<Seeds> {
    let origin = Origin::Made { profile, seed: 0 };
    let (mut corrupted, mut sources) = (Vec::new(), BTreeSet::new());
    for group in groups {
        let labelled =
            group.runs.iter().any(|run| run.settings.get("data.images").is_some_and(|n| !n.is_empty()));
        let found: anyhow::Result<Vec<(Grid, String)>> =
            group.runs.iter().map(|run| kept_with_source(&run.root, &origin, Split::Test)).collect();
        match found {
            Ok(found) => {
                let frosted = found.iter().filter(|(grid, _)| grid.has_frost_in(None));
                sources.extend(frosted.map(|(_, source)| source.clone()));
                let grids = found.into_iter().map(|(grid, _)| grid).collect();
                corrupted.push(Seeds { name: group.name.clone(), grids });
            }
            Err(_) if !labelled => {}
            Err(e) => notes.push(format!("{} is not shown under corruptions: {e}", group.name)),
        }
    }
    if sources.len() > 1 {
        notes.push(
            "Frost is left out: some runs were shown that of the published pictures, others that of textures, and the two do not compare (docs/metrics.md)."
                .to_owned(),
        );
        for seeds in &mut corrupted {
            let grids = std::mem::take(&mut seeds.grids);
            seeds.grids = grids.into_iter().map(|grid| grid.without(Corruption::Frost)).collect();
        }
        corrupted.retain(|seeds| seeds.grids.iter().all(|grid| !grid.cells.is_empty()));
    }
    corrupted
}

/// Means and spreads by group; robustness relative to the first group that was evaluated.
fn scores(groups: &[Group], corrupted: &[Seeds]) -> (Vec<String>, Vec<Vec<String>>) {
    let mut header = vec!["runs".to_owned()];
    let metrics = [
        ("img_classification", "accuracy", "test accuracy (%)", 1),
        ("img_classification", "top5_accuracy", "top 5 (%)", 1),
        ("v1", "correlation", "V1 correlation", 3),
        ("v4", "correlation", "V4 correlation", 3),
    ];
    let values = |group: &Group, task: &str, metric: &str| -> Vec<f64> {
        group.runs.iter().filter_map(|run| run.score(task, metric)).collect()
    };
    let shown: Vec<_> = metrics
        .iter()
        .filter(|(task, metric, ..)| groups.iter().any(|group| !values(group, task, metric).is_empty()))
        .collect();
    header.extend(shown.iter().map(|(_, _, name, _)| (*name).to_owned()));
    header.extend(corrupted.first().map(|first| format!("robustness (% of {})", first.name)));
    let longest = groups.iter().flat_map(|group| &group.runs).map(hours).fold(0.0, f64::max);
    let (unit, factor) = if longest < 1.0 { ("minutes", 60.0) } else { ("hours", 1.0) };
    header.extend(["best epoch".to_owned(), unit.to_owned()]);
    let row = |group: &Group| {
        let mut row = vec![group.runs.len().to_string()];
        row.extend(shown.iter().map(|(task, metric, _, digits)| told(&values(group, task, metric), *digits)));
        if let Some(baseline) = corrupted.first() {
            let own = corrupted.iter().find(|seeds| seeds.name == group.name);
            let score = own.and_then(|own| score_of(&own.name, &own.grids, &baseline.grids).ok());
            row.push(score.map_or_else(String::new, |(score, spread)| match spread {
                Some(spread) => format!("{score:.1} ± {spread:.1}"),
                None => format!("{score:.1}"),
            }));
        }
        let last = |key: &str| -> Vec<f64> {
            group.runs.iter().filter_map(|run| run.metrics.last()?[key].as_f64()).collect()
        };
        row.push(told(&last("best_epoch"), 0));
        let times: Vec<f64> = group.runs.iter().map(|run| factor * hours(run)).collect();
        row.push(told(&times, 1));
        row
    };
    (header, groups.iter().map(row).collect())
}

/// Hours of training.
fn hours(run: &Subject) -> f64 {
    let task = run.metrics.first().map(|line| &line["task"]);
    let lines = run.metrics.iter().filter(|line| Some(&line["task"]) == task);
    lines.filter_map(|line| line["seconds"].as_f64()).sum::<f64>() / 3600.0
}

/// Mean and standard deviation, as far as there are values.
pub(super) fn told(values: &[f64], digits: usize) -> String {
    match mean_and_std(values) {
        _ if values.is_empty() => String::new(),
        (mean, Some(std)) => format!("{mean:.digits$} ± {std:.digits$}"),
        (mean, None) => format!("{mean:.digits$}"),
    }
}

/// What classes are called, by their names.
type Words = BTreeMap<String, String>;

/// What the classes are called that the runs saw, as far as their data sets are there.
fn words(groups: &[Group], set: &ShardSet) -> Words {
    let runs = groups.iter().flat_map(|group| &group.runs);
    let classes = runs.filter_map(|run| seen(set, run).ok()).flat_map(|of| &of.manifest().classes);
    classes.filter(|of| !of.words.is_empty()).map(|of| (of.id.clone(), of.words.clone())).collect()
}

/// The data set of images that a run saw.
fn seen<'a>(set: &'a ShardSet, run: &Subject) -> Result<&'a Dataset, String> {
    let name = run.settings.get("data.images").cloned().unwrap_or_default();
    let dataset = set.dataset(&name).map_err(|e| e.to_string())?;
    if run.manifest["datasets"][&name]["blake3"] != dataset.manifest().fingerprint().as_str() {
        return Err(format!("{} has other images than the run saw", dataset.root().display()));
    }
    Ok(dataset)
}

/// Test images with what the first run that knows classes took them for: right ones and wrong ones, evenly spaced.
fn pictures(
    groups: &[Group],
    set: Result<&ShardSet, &ShardError>,
    words: &Words,
) -> Result<(String, Vec<Picture>), String> {
    let runs = groups.iter().flat_map(|group| &group.runs);
    for run in runs {
        let rows = run.table("predictions.csv").map_err(|e| e.to_string())?;
        let rows: Vec<_> = rows
            .into_iter()
            .filter(|row| row.get("mode").is_some_and(|m| m == "FinalTestInDomain"))
            .collect();
        if rows.is_empty() {
            continue;
        }
        let hint =
            |what: String| format!("No images: {what}. Name the shards of {} with --shards.", run.folder);
        let dataset = set.map_err(ToString::to_string).and_then(|set| seen(set, run)).map_err(hint)?;
        let images = dataset.images(Split::Test).map_err(|e| hint(e.to_string()))?;
        let column = Column::open(images, "image", &Budget::unlimited()).map_err(|e| hint(e.to_string()))?;
        let called = |class: &String| words.get(class).unwrap_or(class).clone();
        let mut chosen = Vec::new();
        for right in [false, true] {
            let of_kind: Vec<_> =
                rows.iter().filter(|row| (row["class"] == row["predicted"]) == right).collect();
            let n = of_kind.len().min(PICTURES);
            chosen.extend((0..n).map(|i| of_kind[i * of_kind.len() / n]));
        }
        let picture = |row: &&BTreeMap<String, String>| {
            let at: u64 = row.get("image")?.parse().ok().filter(|at| *at < column.n_rows())?;
            Some(Picture {
                png: png_of(&column.row(at).ok()?, dataset.manifest().image)?,
                class: called(&row["class"]),
                predicted: called(&row["predicted"]),
                probability: row.get("probability")?.parse().ok()?,
            })
        };
        return Ok((run.folder.clone(), chosen.iter().filter_map(picture).collect()));
    }
    Err("No images: no run keeps predictions; those that are trained from now on do.".to_owned())
}

/// Planes of one or three channels as PNG.
fn png_of(planes: &[u8], [_, height, width]: [u32; 3]) -> Option<Vec<u8>> {
    let size = (width * height) as usize;
    let pixels = (0..size).flat_map(|i| planes.iter().skip(i).step_by(size).copied()).collect();
    crate::figure::Picture { extent: [width, height], pixels, value: f64::NAN }.png(1).ok()
}
