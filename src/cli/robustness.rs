//! `nct robustness`: scores of models under corruptions relative to a baseline, over seeds; and the files that
//! `nct eval --suite corruptions` keeps for it.

use super::corrupt::chosen;
use super::exit::Usage;
use super::figures::write_figures;
use super::files::{TableFile, make_folders, write_tables};
use super::show::{Show, out, table};
use crate::base::{Fingerprint, Split};
use crate::corruption::{Corruption, Group, Profile, Severity};
use crate::eval::figures::Seeds;
use crate::eval::robustness::{Grid, Relative, Spread, bootstrap};
use crate::eval::{CorruptionSuite, Origin};
use crate::runs::{Run, write_atomic};
use crate::shard::{Dataset, ShardSet};
use crate::table::{Kind, Table};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::cmp::Reverse;
use std::path::{Path, PathBuf};

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
}

impl SuiteArgs {
    /// The options that ask for `suite`, of copies that are made.
    pub(crate) fn of(suite: &CorruptionSuite) -> Self {
        let (profile, seed) = match &suite.origin {
            Origin::Made { profile, seed } => (Some(*profile), Some(*seed)),
            Origin::Stored(_) => (None, None),
        };
        let (corruptions, severities) = (suite.corruptions.clone(), suite.severities.clone());
        Self { profile, corruptions, severities, seed, stored: None }
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
        let Self { profile, corruptions, severities, seed, stored } = self;
        let made = profile.is_some() || seed.is_some() || stored.is_some();
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
    /// Print one JSON object a line and value
    #[arg(long)]
    json: bool,
    /// Write the scores to a file, .csv, .jsonl or .parquet (may be repeated)
    #[arg(long, value_name = "FILE")]
    table: Vec<TableFile>,
    /// Write heat maps and curves over severities to this folder: heatmap and curves as .svg, .png and .csv
    #[arg(long, value_name = "DIR")]
    figures: Option<PathBuf>,
}

/// What `nct eval --suite corruptions` found, as it is kept in a run.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    /// Set of parameters, or the name of the stored copies.
    profile: String,
    split: String,
    /// Of copies that were made.
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<u64>,
    /// Digest of the weights it is of.
    weights: String,
    /// Frost is made by our generator, not from photographs; that of stored copies is theirs.
    frost_source: String,
    grid: Grid,
    /// Cells of the same weights that do not make a whole grid together with these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    others: Vec<Grid>,
}

fn file(run: &Path, origin: &Origin, split: Split) -> PathBuf {
    let name = match origin {
        Origin::Made { profile, seed } => format!("{profile}-{split}-{seed}.json"),
        Origin::Stored(name) => format!("stored-{name}-{split}.json"),
    };
    run.join("robustness").join(name)
}

/// Keeps a grid in its run, beside the cells of the same weights that are there already.
pub(crate) fn keep(run: &Path, suite: &CorruptionSuite, grid: &Grid) -> anyhow::Result<()> {
    let path = file(run, &suite.origin, suite.split);
    let weights = weights_of(run)?;
    let old = read(&path).ok().filter(|old| old.weights == weights);
    let old = old.map(|old| [vec![old.grid], old.others].concat()).unwrap_or_default();
    let mut others = joined(old, grid.clone());
    let (grid, others) = (others.remove(0), others);
    let (profile, seed, frost_source) = match &suite.origin {
        Origin::Made { profile, seed } => (profile.to_string(), Some(*seed), "synthetic"),
        Origin::Stored(name) => (name.clone(), None, "stored"),
    };
    let (split, frost_source) = (suite.split.to_string(), frost_source.to_owned());
    let kept = Kept { profile, split, seed, weights, frost_source, grid, others };
    std::fs::create_dir_all(run.join("robustness"))?;
    Ok(write_atomic(&path, format!("{}\n", serde_json::to_string_pretty(&kept)?).as_bytes())?)
}

fn cell(grid: &Grid, corruption: &str, level: u8) -> Option<f64> {
    let at = grid.severities.iter().position(|own| *own == level)?;
    grid.cells.get(corruption)?.get(at).copied()
}

/// `grid` and what was there before, the largest first: two become one where that has all of its cells.
fn joined(mut all: Vec<Grid>, mut grid: Grid) -> Vec<Grid> {
    while let Some((i, one)) = all.iter().enumerate().find_map(|(i, old)| Some((i, both(old, &grid)?))) {
        all.remove(i);
        grid = one;
    }
    // Of other data, perhaps: what was evaluated last counts.
    let again = |name: &String, level: &u8| cell(&grid, name, *level).is_some();
    all.retain(|old| !old.cells.keys().all(|name| old.severities.iter().all(|level| again(name, level))));
    all.insert(0, grid);
    all.sort_by_key(|grid| Reverse(grid.cells.len() * grid.severities.len()));
    all
}

/// One grid of the cells of both, if none of it lacks.
fn both(old: &Grid, new: &Grid) -> Option<Grid> {
    if (old.classes, old.clean) != (new.classes, new.clean) {
        return None;
    }
    let mut severities = [&old.severities[..], &new.severities].concat();
    severities.sort_unstable();
    severities.dedup();
    let row = |name: &String| {
        let cell = |&level: &u8| cell(new, name, level).or_else(|| cell(old, name, level));
        Some((name.clone(), severities.iter().map(cell).collect::<Option<_>>()?))
    };
    let cells = old.cells.keys().chain(new.cells.keys()).map(row).collect::<Option<_>>()?;
    Some(Grid { cells, severities, ..new.clone() })
}

/// What `corruptions` and `severities` name of a grid; none if something lacks.
fn cut(grid: &Grid, corruptions: &[Corruption], severities: &[Severity]) -> Option<Grid> {
    let row = |corruption: &Corruption| {
        let cell = |level: &Severity| cell(grid, corruption.as_str(), level.get());
        Some((corruption.as_str().to_owned(), severities.iter().map(cell).collect::<Option<_>>()?))
    };
    let cells = corruptions.iter().map(row).collect::<Option<_>>()?;
    Some(Grid { cells, severities: severities.iter().map(|level| level.get()).collect(), ..grid.clone() })
}

/// The cells of `suite`, of the first grid that has them all.
fn cut_of(all: &[Grid], suite: &CorruptionSuite) -> Option<Grid> {
    all.iter().find_map(|grid| cut(grid, &suite.corruptions, &suite.severities))
}

/// Digest of the best weights, which a run that is gone on with replaces.
pub(crate) fn weights_of(run: &Path) -> anyhow::Result<String> {
    let path = Run::open(run)?.checkpoint("best");
    let bytes = std::fs::read(&path).map_err(|e| Usage(format!("{}: {e}", path.display())))?;
    Ok(Fingerprint::of_large(&bytes).to_string())
}

/// The grid that was kept in a run, of its present weights.
pub(crate) fn kept(run: &Path, origin: &Origin, split: Split) -> anyhow::Result<Grid> {
    all_kept(run, origin, split).map(|mut all| all.remove(0))
}

/// All that was kept in a run, the largest grid first.
fn all_kept(run: &Path, origin: &Origin, split: Split) -> anyhow::Result<Vec<Grid>> {
    let weights = weights_of(run)?;
    let path = file(run, origin, split);
    let found = read(&path).and_then(|kept| {
        let same = kept.weights == weights;
        let all = || [vec![kept.grid], kept.others].concat();
        same.then(all).ok_or_else(|| "is of other weights: the run has gone on since".to_owned())
    });
    found.map_err(|what| {
        Usage(format!("{}: {what}; make it with: {}", path.display(), command(run, origin, split))).into()
    })
}

/// What makes grids of a run.
fn command(run: &Path, origin: &Origin, split: Split) -> String {
    let flags = match origin {
        Origin::Made { profile, seed } => format!("--profile {profile} --seed {seed}"),
        Origin::Stored(name) => format!("--stored shards/{name}"),
    };
    let split = if split == Split::Test { "" } else { " --split validation" };
    format!("nct eval {} --suite corruptions {flags}{split}", run.display())
}

/// What was kept in a run of `suite`, without what it does not ask for; none if something lacks.
pub(crate) fn kept_of(run: &Path, suite: &CorruptionSuite) -> Option<Grid> {
    cut_of(&all_kept(run, &suite.origin, suite.split).ok()?, suite)
}

/// The baseline's grid for `suite`: it must have all of its cells, and is cut to them.
pub(crate) fn baseline(run: &Path, suite: &CorruptionSuite) -> anyhow::Result<Grid> {
    let all = all_kept(run, &suite.origin, suite.split)?;
    if let Some(grid) = cut_of(&all, suite) {
        return Ok(grid);
    }
    let (corruptions, levels) = (listed(&suite.corruptions), listed(&suite.severities));
    let lacks = suite.corruptions.iter().find(|&&c| all.iter().all(|grid| grid.row(c).is_none()));
    let what = match lacks {
        Some(corruption) => format!("its grid has no {corruption}"),
        None => format!("its grid lacks one of the severities {levels}"),
    };
    let how = command(run, &suite.origin, suite.split);
    let how = format!("add that with: {how} --corruptions {corruptions} --severities {levels}");
    Err(Usage(format!("{}: {what}; {how}", run.display())).into())
}

/// As options take it.
fn listed(values: &[impl ToString]) -> String {
    values.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

fn read(path: &Path) -> Result<Kept, String> {
    let text = std::fs::read_to_string(path).map_err(|e| e.to_string())?;
    let kept: Kept = serde_json::from_str(&text).map_err(|e| format!("is damaged: {e}"))?;
    let known = |name: &String| name.parse::<Corruption>().is_ok();
    let is_whole = |grid: &Grid| {
        let n = grid.severities.len();
        n > 0 && grid.cells.iter().all(|(name, row)| known(name) && row.len() == n)
    };
    if ![&kept.grid].into_iter().chain(&kept.others).all(is_whole) {
        return Err("is damaged: a row has not as many values as there are severities".into());
    }
    Ok(kept)
}

/// Accuracy in percent of every cell, means, and what relates them to a baseline.
pub(crate) fn grid_table(grid: &Grid, baseline: Option<&Grid>) -> String {
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
    rows
}

/// The baseline's name in figures.
pub(crate) const BASELINE: &str = "baseline";

/// Keys of the rows of `nct robustness`, as columns of a table.
const COLUMNS: [(&str, Kind); 8] = [
    ("model", Kind::Text),
    ("seeds", Kind::Whole),
    ("group", Kind::Text),
    ("corruption", Kind::Text),
    ("metric", Kind::Text),
    ("value", Kind::Real),
    ("bootstrap_mean", Kind::Real),
    ("bootstrap_std", Kind::Real),
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
    let grids = |runs: &[PathBuf]| -> anyhow::Result<Vec<Grid>> {
        runs.iter().map(|run| kept(run, &origin, split)).collect()
    };
    let mut seeds = vec![Seeds { name: BASELINE.to_owned(), grids: grids(&args.baseline)? }];
    for model in &args.model {
        let (name, runs) = model.split_once('=').unwrap_or((model.as_str(), model.as_str()));
        let runs: Vec<PathBuf> = runs.split(',').map(PathBuf::from).collect();
        seeds.push(Seeds { name: name.to_owned(), grids: grids(&runs)? });
    }
    if let Some(told) = cut_to_common(&mut seeds).map_err(Usage)? {
        show.line(&told);
    }
    let mut rows = Vec::new();
    for model in &seeds[1..] {
        rows.extend(scores(&model.name, &model.grids, &seeds[0].grids).map_err(Usage)?);
    }
    make_folders(&args.table, args.figures.as_deref())?;
    write_tables(&args.table, &Table::of(&COLUMNS, &rows)?, show)?;
    if let Some(folder) = &args.figures {
        write_figures(folder, &seeds, show)?;
    }
    if args.json {
        return rows.iter().try_for_each(|row| out(&row.to_string()));
    }
    let mut table = table(&["model", "seeds", "corruptions", "metric", "value", "bootstrap"]);
    for row in &rows {
        let text = |key: &str| row[key].as_str().unwrap_or("all").to_owned();
        let spread = match (row["bootstrap_mean"].as_f64(), row["bootstrap_std"].as_f64()) {
            (Some(mean), Some(std)) => format!("{mean:.1} ± {std:.1}"),
            _ => String::new(),
        };
        let of = if row["corruption"].is_string() { text("corruption") } else { text("group") };
        let value = format!("{:.1}", row["value"].as_f64().unwrap_or(f64::NAN));
        table.add_row([text("model"), row["seeds"].to_string(), of, text("metric"), value, spread]);
    }
    out(&table.to_string())
}

/// Leaves of all grids what every one of them has, and tells what that is if something was left out.
fn cut_to_common(seeds: &mut [Seeds]) -> Result<Option<String>, String> {
    let all: Vec<&Grid> = seeds.iter().flat_map(|seeds| &seeds.grids).collect();
    let mut corruptions = Corruption::ALL.to_vec();
    corruptions.retain(|&c| all.iter().all(|grid| grid.row(c).is_some()));
    let mut severities = Severity::ALL.to_vec();
    severities.retain(|level| all.iter().all(|grid| grid.severities.contains(&level.get())));
    if corruptions.is_empty() || severities.is_empty() {
        let how = "evaluate them with the same --corruptions and --severities of nct eval";
        return Err(format!("no corruption at no severity is in all of these runs; {how}"));
    }
    let n = corruptions.len() * severities.len();
    let cuts = all.iter().any(|grid| grid.cells.len() * grid.severities.len() > n);
    for grid in seeds.iter_mut().flat_map(|seeds| &mut seeds.grids) {
        *grid = cut(grid, &corruptions, &severities).unwrap_or_else(|| grid.clone());
    }
    let (corruptions, severities) = (listed(&corruptions), listed(&severities));
    Ok(cuts.then(|| {
        format!("not all runs have the same cells: compared are {corruptions} at severities {severities}")
    }))
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

/// Every score of a model: over all, by group, and the robustness score by corruption.
fn scores(name: &str, models: &[Grid], baselines: &[Grid]) -> Result<Vec<Value>, String> {
    let (models, baselines): (Vec<&Grid>, Vec<&Grid>) = (models.iter().collect(), baselines.iter().collect());
    let (model, baseline) = alike(name, &models, &baselines)?;
    let mut rows = Vec::new();
    let mut add = |place: (&str, &str), metric: &str, score: &dyn Fn(&Grid, &Grid) -> Option<f64>| {
        let Some(value) = score(&model, &baseline) else { return Ok(()) };
        let mut row = json!({"model": name, "seeds": models.len(), "metric": metric, "value": value});
        if !place.1.is_empty() {
            row[place.0] = json!(place.1);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn grid(names: &[&str], severities: &[u8]) -> Grid {
        let row = |name: &&str| {
            let of = |&level: &u8| f64::from(level) + name.len() as f64;
            ((*name).to_owned(), severities.iter().map(of).collect())
        };
        let cells = names.iter().map(row).collect();
        Grid { classes: 3, clean: 0.5, cells, severities: severities.to_vec() }
    }

    #[test]
    fn grids_become_one_where_that_is_whole() {
        let fog = grid(&["fog"], &[1, 3]);
        for (new, one) in [
            (grid(&["snow"], &[1, 3]), grid(&["fog", "snow"], &[1, 3])),
            (grid(&["fog"], &[2]), grid(&["fog"], &[1, 2, 3])),
            (grid(&["fog", "snow"], &[1, 2, 3]), grid(&["fog", "snow"], &[1, 2, 3])),
            (grid(&["fog"], &[3]), fog.clone()),
        ] {
            assert_eq!(joined(vec![fog.clone()], new), [one]);
        }
        let apart = joined(vec![fog.clone()], grid(&["snow", "frost"], &[1, 2]));
        assert_eq!(apart, [grid(&["snow", "frost"], &[1, 2]), fog.clone()], "the largest first");
        // What closes the gap makes them one.
        let all = joined(joined(apart, grid(&["fog"], &[2])), grid(&["snow", "frost"], &[3]));
        assert_eq!(all, [grid(&["fog", "frost", "snow"], &[1, 2, 3])]);
        let other = Grid { clean: 0.6, ..grid(&["fog"], &[2]) };
        assert_eq!(joined(vec![fog.clone()], other).len(), 2, "of other data");
        let other = Grid { clean: 0.6, ..fog.clone() };
        assert_eq!(joined(vec![fog], other.clone()), [other], "evaluated again");
    }

    #[test]
    fn what_all_have_is_compared() {
        let seeds = |grids: Vec<Grid>| Seeds { name: "a".to_owned(), grids };
        let mut all =
            [seeds(vec![grid(&["fog", "snow"], &[1, 2, 3])]), seeds(vec![grid(&["snow"], &[2, 3, 4])])];
        let told = cut_to_common(&mut all).unwrap().unwrap();
        assert!(told.ends_with("snow at severities 2,3"), "{told}");
        assert!(all.iter().all(|seeds| seeds.grids == [grid(&["snow"], &[2, 3])]));
        assert_eq!(cut_to_common(&mut all), Ok(None));
        let mut apart = [seeds(vec![grid(&["fog"], &[1])]), seeds(vec![grid(&["snow"], &[1])])];
        assert!(cut_to_common(&mut apart).is_err());
    }
}
