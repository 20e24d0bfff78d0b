//! `nct robustness`: scores of models under corruptions relative to a baseline, over seeds; and the files that
//! `nct eval --suite corruptions` keeps for it.

mod kept;
mod neural;

use super::corrupt::{chosen, frost};
use super::exit::Usage;
use super::figures::{write_figure, write_figures};
use super::files::{TableFile, make_folders, write_tables};
use super::show::{Show, out, table};
use crate::base::{Split, Task};
use crate::corruption::frost::Source;
use crate::corruption::{Corruption, Group, Profile, Severity};
use crate::eval::figures::Seeds;
use crate::eval::robustness::{Grid, Relative, Spread, bootstrap};
use crate::eval::{CorruptionSuite, Origin};
use crate::report::prediction;
use crate::shard::{Dataset, ShardSet};
use crate::table::{Kind, Table};
pub(crate) use kept::{baseline, keep, kept_of, kept_with_source, weights_of};
use kept::{common_source, cut_to_common};
use neural::Measure;
use serde_json::{Value, json};
use std::path::PathBuf;

/// Which corruptions, and how.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct SuiteArgs {
    /// Of `corruptions`: i for the parameters of ImageNet-C, which the reference applies and which are the default; t for
    /// those of Tiny-ImageNet-C
    #[arg(long, value_name = "t|i")]
    profile: Option<Profile>,
    /// Only these, such as fog,snow; without it the fifteen of the paper
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    corruptions: Vec<Corruption>,
    /// Only these of 1 to 5
    #[arg(long, value_delimiter = ',', value_name = "LEVELS")]
    severities: Vec<Severity>,
    /// Seed of what corruptions draw; 0 if not given
    #[arg(long)]
    seed: Option<u64>,
    /// Show copies that were corrupted before: the folder of their shards, such as shards/Tiny-ImageNet-C
    #[arg(long, value_name = "DIR", conflicts_with_all = ["profile", "seed"])]
    stored: Option<PathBuf>,
    /// Folder of the published pictures of frost, frost1.png to frost6.jpg; NCT_FROST if not given. Without either, frost
    /// is made of textures
    #[arg(long, value_name = "DIR", conflicts_with = "stored")]
    frost: Option<PathBuf>,
}

impl SuiteArgs {
    /// The options that ask for `suite`, of copies that are made.
    pub(crate) fn of(suite: &CorruptionSuite) -> Self {
        let (profile, seed) = match &suite.origin {
            Origin::Made { profile, seed } => (Some(*profile), Some(*seed)),
            Origin::Stored(_) => (None, None),
        };
        let (corruptions, severities) = (suite.corruptions.clone(), suite.severities.clone());
        Self { profile, corruptions, severities, seed, stored: None, frost: None }
    }

    /// The paper's corruptions at these severities.
    pub(crate) fn of_severities(levels: &[u8]) -> Self {
        Self {
            severities: levels.iter().filter_map(|&level| Severity::new(level)).collect(),
            ..Self::default()
        }
    }

    /// Whether anything was asked for that only the suite of corruptions heeds.
    pub(crate) fn given(&self) -> bool {
        let Self { profile, corruptions, severities, seed, stored, frost } = self;
        let made = profile.is_some() || seed.is_some() || stored.is_some() || frost.is_some();
        made || !corruptions.is_empty() || !severities.is_empty()
    }

    pub(crate) fn suite(&self, split: Split) -> anyhow::Result<CorruptionSuite> {
        let corruptions = chosen(&self.corruptions, &Corruption::PAPER);
        let severities = chosen(&self.severities, &Severity::ALL);
        let Some(folder) = &self.stored else {
            let profile = self.profile.unwrap_or(Profile::ImageNet);
            let origin = Origin::Made { profile, seed: self.seed.unwrap_or(0) };
            return Ok(CorruptionSuite { origin, corruptions, severities, split });
        };
        if split != Split::Test {
            let what = "stored copies are of test images; leave out --split, or say --split test";
            return Err(Usage(what.to_owned()).into());
        }
        let there = cells(&ShardSet::open(folder)?);
        let of = |list: &[Corruption]| -> Vec<Corruption> {
            list.iter().copied().filter(|&c| there.iter().any(|&(other, _)| other == c)).collect()
        };
        // Those that are there, unless some were asked for.
        let corruptions = if self.corruptions.is_empty() { of(&Corruption::PAPER) } else { corruptions };
        let whole = |level: &Severity| corruptions.iter().all(|&c| there.contains(&(c, *level)));
        let severities = match self.severities[..] {
            [] => severities.into_iter().filter(whole).collect(),
            _ => severities,
        };
        if corruptions.is_empty() || severities.is_empty() || !severities.iter().all(whole) {
            let what = format!(
                "{}: not every corruption and severity asked for is there; a data set each, such as fog-3, comes from `nct prepare` of Tiny-ImageNet-C or `nct corrupt --layout shards`",
                folder.display()
            );
            return Err(Usage(what).into());
        }
        let name = std::path::absolute(folder).ok();
        let name = name.as_ref().and_then(|path| path.file_name()).map(|name| name.to_string_lossy());
        let origin = Origin::Stored(name.unwrap_or_default().into_owned());
        Ok(CorruptionSuite { origin, corruptions, severities, split })
    }

    /// Has frost made of pictures, if a folder of them was named. It comes before anything is evaluated or compared.
    pub(crate) fn open_frost(&self) -> anyhow::Result<()> {
        frost::open(self.frost.as_deref())
    }

    /// Whether frost is made, of whatever.
    pub(crate) fn makes_frost(&self) -> bool {
        let asked = self.corruptions.is_empty() || self.corruptions.contains(&Corruption::Frost);
        self.stored.is_none() && (asked || self.frost.is_some())
    }

    /// Whether stored copies are shown.
    pub(crate) fn shows_stored(&self) -> bool {
        self.stored.is_some()
    }

    /// The stored copies, if those are shown.
    pub(crate) fn stored(&self) -> anyhow::Result<Option<ShardSet>> {
        Ok(self.stored.as_ref().map(|folder| ShardSet::open(folder)).transpose()?)
    }
}

/// The corruptions and severities that data sets of `set` are named after.
fn cells(set: &ShardSet) -> Vec<(Corruption, Severity)> {
    let cell = |dataset: &Dataset| {
        let (corruption, severity) = dataset.manifest().dataset.rsplit_once('-')?;
        Some((corruption.parse().ok()?, severity.parse().ok()?))
    };
    set.datasets().iter().filter_map(cell).collect()
}

/// Arguments of `nct robustness`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A model: its name and the folders of its runs, one a seed (may be repeated)
    #[arg(long, required = true, value_name = "NAME=RUN[,RUN]")]
    model: Vec<String>,
    /// Runs of the baseline, one a seed
    #[arg(long, required = true, value_delimiter = ',', value_name = "RUN[,RUN]")]
    baseline: Vec<PathBuf>,
    /// Parameters that the runs were evaluated with
    #[arg(long, default_value = "i", value_name = "t|i")]
    profile: Profile,
    /// Seed that they were evaluated with
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Name of the folder of stored copies that they were evaluated with instead
    #[arg(long, value_name = "NAME", conflicts_with_all = ["profile", "seed", "validation"])]
    stored: Option<String>,
    /// Evaluated on the validation images instead of the test images
    #[arg(long)]
    validation: bool,
    /// Also how robust the models are beside how well they predict responses: correlation of v1, or the named score
    #[arg(long, value_name = "AREA[.METRIC]", num_args = 0..=1, default_missing_value = "v1")]
    neural: Option<Measure>,
    /// Print one JSON object a line and value
    #[arg(long)]
    json: bool,
    /// Write the scores to a file, .csv, .jsonl or .parquet (may be repeated)
    #[arg(long, value_name = "FILE")]
    table: Vec<TableFile>,
    /// Write heat maps and curves over severities to this folder, with --neural also robustness against prediction:
    /// heatmap, curves and prediction as .svg, .png and .csv
    #[arg(long, value_name = "DIR")]
    figures: Option<PathBuf>,
}

/// `grid` without frost, if that is of textures and others are left: published means have another frost.
fn without_textures(grid: &Grid, source: &str) -> Option<Grid> {
    let textures = grid.has_frost_in(None) && source == Source::Synthetic.as_str();
    textures.then(|| grid.clone().without(Corruption::Frost)).filter(|grid| grid.mean().is_some())
}

/// Accuracy in percent of every cell, means, and what relates them to a baseline.
pub(crate) fn grid_table(suite: &CorruptionSuite, grid: &Grid, baseline: Option<&Grid>) -> String {
    let levels: Vec<String> = grid.severities.iter().map(u8::to_string).collect();
    let mut header: Vec<&str> = vec!["corruption"];
    header.extend(levels.iter().map(String::as_str));
    header.push("mean");
    header.extend(baseline.map_or(&[][..], |_| &["score", "CE", "relative CE"]));
    let mut table = table(&header);
    let mut row = |name: String, cells: Vec<String>, mean: f64, relative: Option<Relative>| {
        let mut row = vec![name];
        row.extend(cells);
        row.push(format!("{:.2}", 100.0 * mean));
        if baseline.is_some() {
            let text = |v: Option<f64>| v.map_or_else(|| "-".to_owned(), |v| format!("{v:.1}"));
            let of = |value: fn(Relative) -> Option<f64>| text(relative.and_then(value));
            row.extend([of(|r| Some(r.score)), of(|r| Some(r.error)), of(|r| r.relative_error)]);
        }
        table.add_row(row);
    };
    let blank = || vec![String::new(); grid.severities.len()];
    row("clean".into(), blank(), grid.clean, None);
    for corruption in grid.corruptions() {
        let Some(cells) = grid.row(corruption) else { continue };
        let texts = cells.iter().map(|a| format!("{:.2}", 100.0 * a)).collect();
        let relative = baseline.and_then(|b| grid.relative_to(b, corruption));
        row(corruption.to_string(), texts, grid.mean_of(corruption).unwrap_or(f64::NAN), relative);
    }
    for group in Group::ALL {
        if let Some(mean) = grid.mean_in(group) {
            let relative = baseline.and_then(|b| grid.summary_in(b, group));
            row(format!("{} (mean)", group.as_str()), blank(), mean, relative);
        }
    }
    if let Some(mean) = grid.mean() {
        row("all (mean)".into(), blank(), mean, baseline.and_then(|b| grid.summary(b)));
    }
    if let Some(grid) = without_textures(grid, suite.frost_source())
        && let Some(mean) = grid.mean()
    {
        row(WITHOUT_FROST.into(), blank(), mean, baseline.and_then(|b| grid.summary(b)));
    }
    table.to_string()
}

/// Summary lines with stable keys for `--json`.
pub(crate) fn summary_rows(
    run: &str,
    suite: &CorruptionSuite,
    grid: &Grid,
    baseline: Option<&Grid>,
) -> Vec<Value> {
    let mut frame = json!({
        "run": run, "suite": "corruptions", "split": suite.split.as_str(), "task": "img_classification",
    });
    match &suite.origin {
        Origin::Made { profile, seed } => {
            (frame["profile"], frame["seed"]) = (json!(profile.as_str()), json!(seed));
        }
        Origin::Stored(name) => frame["stored"] = json!(name),
    }
    let row = |group: Option<Group>, metric: &str, value: f64| {
        let mut row = frame.clone();
        if grid.has_frost_in(group) && metric != MEAN_WITHOUT_FROST {
            row["frost_source"] = json!(suite.frost_source());
        }
        if let Some(group) = group {
            row["group"] = json!(group.as_str());
        }
        (row["metric"], row["value"]) = (json!(metric), json!(value));
        row
    };
    let mut rows = Vec::new();
    let mut add = |group, mean: Option<f64>, relative: Option<Relative>| {
        rows.extend(mean.map(|mean| row(group, "mean_accuracy", 100.0 * mean)));
        if let Some(relative) = relative {
            rows.extend(named(relative).into_iter().filter_map(|(name, v)| v.map(|v| row(group, name, v))));
        }
    };
    for group in Group::ALL {
        add(Some(group), grid.mean_in(group), baseline.and_then(|b| grid.summary_in(b, group)));
    }
    add(None, grid.mean(), baseline.and_then(|b| grid.summary(b)));
    let without = without_textures(grid, suite.frost_source()).and_then(|grid| grid.mean());
    rows.extend(without.map(|mean| row(None, MEAN_WITHOUT_FROST, 100.0 * mean)));
    rows
}

/// Mean accuracy over the corruptions of the paper but frost, where that is of textures.
const MEAN_WITHOUT_FROST: &str = "mean_accuracy_without_frost";

/// The same in tables.
const WITHOUT_FROST: &str = "all but frost (mean)";

/// The baseline's name in figures.
pub(crate) const BASELINE: &str = "baseline";

/// Keys of the rows of `nct robustness`, as columns of a table.
const COLUMNS: [(&str, Kind); 14] = [
    ("model", Kind::Text),
    ("seeds", Kind::Whole),
    ("frost_source", Kind::Text),
    ("group", Kind::Text),
    ("corruption", Kind::Text),
    ("metric", Kind::Text),
    ("value", Kind::Real),
    ("bootstrap_mean", Kind::Real),
    ("bootstrap_std", Kind::Real),
    ("fit", Kind::Text),
    ("term", Kind::Text),
    ("std_error", Kind::Real),
    ("t", Kind::Real),
    ("p", Kind::Real),
];

fn named(relative: Relative) -> [(&'static str, Option<f64>); 4] {
    [
        ("robustness_score", Some(relative.score)),
        ("ratio_of_means", Some(relative.ratio_of_means)),
        ("mce", Some(relative.error)),
        ("relative_mce", relative.relative_error),
    ]
}

pub(crate) fn run(args: &Args, show: Show) -> anyhow::Result<()> {
    let split = if args.validation { Split::Validation } else { Split::Test };
    let made = Origin::Made { profile: args.profile, seed: args.seed };
    let origin = args.stored.clone().map_or(made, Origin::Stored);
    let mut sources = Vec::new();
    let mut seeds_of = |name: &str, runs: &[PathBuf]| -> anyhow::Result<Seeds> {
        let mut grids = Vec::new();
        for run in runs {
            let (grid, source) = kept_with_source(run, &origin, split)?;
            // What has no frost is of no source.
            if grid.has_frost_in(None) {
                sources.push((run.clone(), source));
            }
            grids.push(grid);
        }
        Ok(Seeds { name: name.to_owned(), grids })
    };
    let mut seeds = vec![seeds_of(BASELINE, &args.baseline)?];
    let mut folders = Vec::new();
    for model in &args.model {
        let (name, runs) = model.split_once('=').unwrap_or((model.as_str(), model.as_str()));
        let runs: Vec<PathBuf> = runs.split(',').map(PathBuf::from).collect();
        seeds.push(seeds_of(name, &runs)?);
        folders.push(runs);
    }
    if let Some(told) = cut_to_common(&mut seeds).map_err(Usage)? {
        show.line(&told);
    }
    let source = common_source(&seeds, &sources).map_err(Usage)?;
    let mut rows = Vec::new();
    for model in &seeds[1..] {
        rows.extend(scores(&model.name, &model.grids, &seeds[0].grids, source.as_deref()).map_err(Usage)?);
    }
    let neural = args.neural.as_ref();
    let outcomes = neural.map(|measure| measure.outcomes(&seeds, &folders, split)).transpose()?;
    let mut fits = Vec::new();
    if let (Some(measure), Some(outcomes)) = (neural, &outcomes) {
        rows.extend(measure.scores(outcomes));
        fits = neural::coefficients(outcomes);
        for row in fits.iter_mut().filter(|_| source.is_some()) {
            row["frost_source"] = json!(source);
        }
        if fits.is_empty() {
            show.line("too few runs, or too like ones, for a line of robustness over prediction: three or more that differ");
        }
    }
    make_folders(&args.table, args.figures.as_deref())?;
    let all: Vec<&Value> = rows.iter().chain(&fits).collect();
    write_tables(&args.table, &Table::of(&COLUMNS, all.iter().copied())?, show)?;
    if let Some(folder) = &args.figures {
        write_figures(folder, &seeds, show)?;
        if let (Some(measure), Some(outcomes)) = (neural, &outcomes)
            && let Some((figure, table)) = prediction(outcomes, &measure.label(), BASELINE)?
        {
            write_figure(folder, "prediction", &figure, &table)?;
        }
    }
    if args.json {
        return all.iter().try_for_each(|row| out(&row.to_string()));
    }
    out(&in_words(&rows))?;
    if fits.is_empty() { Ok(()) } else { out(&neural::told(&fits)) }
}

/// Scores as a table.
fn in_words(rows: &[Value]) -> String {
    let mut table = table(&["model", "seeds", "corruptions", "metric", "value", "bootstrap"]);
    for row in rows {
        let text = |key: &str| row[key].as_str().unwrap_or("all").to_owned();
        let of = if row["corruption"].is_string() { text("corruption") } else { text("group") };
        // Scores of responses are no percentages.
        let digits = if Task::ALL.iter().any(|task| task.as_str() == of) { 3 } else { 1 };
        let spread = match (row["bootstrap_mean"].as_f64(), row["bootstrap_std"].as_f64()) {
            (Some(mean), Some(std)) => format!("{mean:.digits$} ± {std:.digits$}"),
            _ => String::new(),
        };
        let value = format!("{:.digits$}", row["value"].as_f64().unwrap_or(f64::NAN));
        table.add_row([text("model"), row["seeds"].to_string(), of, text("metric"), value, spread]);
    }
    table.to_string()
}

/// Averages over seeds of a model and a baseline that were evaluated alike.
fn alike(name: &str, models: &[&Grid], baselines: &[&Grid]) -> Result<(Grid, Grid), String> {
    let (model, baseline) = (Grid::average(models)?, Grid::average(baselines)?);
    if model.severities != baseline.severities || !model.cells.keys().eq(baseline.cells.keys()) {
        return Err(format!(
            "{name} and the baseline differ in corruptions or severities; evaluate them alike"
        ));
    }
    Ok((model, baseline))
}

/// The robustness score of models relative to a baseline's, and its spread over drawn seeds where there are several.
pub(crate) fn score_of(
    name: &str,
    models: &[Grid],
    baselines: &[Grid],
) -> Result<(f64, Option<f64>), String> {
    let (models, baselines): (Vec<&Grid>, Vec<&Grid>) = (models.iter().collect(), baselines.iter().collect());
    let (model, baseline) = alike(name, &models, &baselines)?;
    let score = |model: &Grid, baseline: &Grid| Some(model.summary(baseline)?.score);
    let spread =
        if models.len() + baselines.len() > 2 { bootstrap(&models, &baselines, score)? } else { None };
    Ok((score(&model, &baseline).unwrap_or(f64::NAN), spread.map(|spread| spread.std)))
}

/// The same of runs.
pub(crate) fn relative_score(
    name: &str,
    runs: &[PathBuf],
    baselines: &[PathBuf],
    suite: &CorruptionSuite,
) -> anyhow::Result<(f64, Option<f64>)> {
    let grid = |run: &PathBuf| {
        let lacks = || Usage(format!("{}: was not evaluated under the study's corruptions", run.display()));
        kept_of(run, suite).ok_or_else(lacks)
    };
    let grids = |runs: &[PathBuf]| runs.iter().map(grid).collect::<Result<Vec<Grid>, Usage>>();
    Ok(score_of(name, &grids(runs)?, &grids(baselines)?).map_err(Usage)?)
}

type Of = fn(Relative) -> Option<f64>;

/// Every score of a model: over all, by group, and the robustness score by corruption. `source` is that of frost.
fn scores(
    name: &str,
    models: &[Grid],
    baselines: &[Grid],
    source: Option<&str>,
) -> Result<Vec<Value>, String> {
    let (models, baselines): (Vec<&Grid>, Vec<&Grid>) = (models.iter().collect(), baselines.iter().collect());
    let (model, baseline) = alike(name, &models, &baselines)?;
    let frost = Corruption::Frost.as_str();
    let mut rows = Vec::new();
    let mut add = |place: (&str, &str), metric: &str, score: &dyn Fn(&Grid, &Grid) -> Option<f64>| {
        let Some(value) = score(&model, &baseline) else { return Ok(()) };
        let mut row = json!({"model": name, "seeds": models.len(), "metric": metric, "value": value});
        if !place.1.is_empty() {
            row[place.0] = json!(place.1);
        }
        let frosted = [frost, Group::Weather.as_str(), ""].contains(&place.1) && metric != MEAN_WITHOUT_FROST;
        if let Some(source) = source.filter(|_| frosted) {
            row["frost_source"] = json!(source);
        }
        if models.len() + baselines.len() > 2
            && let Some(Spread { mean, std }) = bootstrap(&models, &baselines, score)?
        {
            (row["bootstrap_mean"], row["bootstrap_std"]) = (json!(mean), json!(std));
        }
        rows.push(row);
        Ok::<(), String>(())
    };
    let metrics: [(&str, Of); 4] = [
        ("robustness_score", |r| Some(r.score)),
        ("ratio_of_means", |r| Some(r.ratio_of_means)),
        ("mce", |r| Some(r.error)),
        ("relative_mce", |r| r.relative_error),
    ];
    add(("", ""), "mean_accuracy", &|m, _| m.mean().map(|a| 100.0 * a))?;
    let without = |m: &Grid, _: &Grid| without_textures(m, source.unwrap_or_default())?.mean();
    add(("", ""), MEAN_WITHOUT_FROST, &|m, b| without(m, b).map(|a| 100.0 * a))?;
    for (metric, of) in metrics {
        add(("", ""), metric, &|m, b| m.summary(b).and_then(of))?;
    }
    for group in Group::ALL {
        let score = |m: &Grid, b: &Grid| m.summary_in(b, group).map(|r| r.score);
        add(("group", group.as_str()), "robustness_score", &score)?;
    }
    for corruption in model.corruptions() {
        let score = |m: &Grid, b: &Grid| m.relative_to(b, corruption).map(|r| r.score);
        add(("corruption", corruption.as_str()), "robustness_score", &score)?;
    }
    Ok(rows)
}
