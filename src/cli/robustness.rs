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
use crate::eval::robustness::{Alone, Grid, Relative, Spread, bootstrap, propagated};
use crate::eval::{Copies, CorruptionSuite, Origin};
use crate::report::prediction;
use crate::shard::{Dataset, ShardSet};
use crate::table::{Kind, Table};
use kept::{all_kept, common_source, cut_to_common, of_one_origin};
pub(crate) use kept::{baseline, keep, kept_of, kept_with_source, may_keep, weights_of};
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
        let set = ShardSet::open(folder)?;
        let there: Vec<(Corruption, Severity)> = set.datasets().iter().filter_map(cell).collect();
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
        let sets = set.datasets().iter().filter(|dataset| cell(dataset).is_some()).map(Dataset::manifest);
        let copies = Copies::of(name.unwrap_or_default().into_owned(), sets);
        let origin = Origin::Stored(copies.map_err(|e| Usage(format!("{}: {e}", folder.display())))?);
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

/// The corruption and severity that a data set is named after.
fn cell(dataset: &Dataset) -> Option<(Corruption, Severity)> {
    let (corruption, severity) = dataset.manifest().dataset.rsplit_once('-')?;
    Some((corruption.parse().ok()?, severity.parse().ok()?))
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

/// `grid` without frost, if that is of textures: published means have another frost.
fn without_textures(grid: &Grid, source: &str) -> Option<Grid> {
    let textures = grid.has_frost_in(None) && source == Source::Synthetic.as_str();
    textures.then(|| grid.clone().without(Corruption::Frost))
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
    let without = without_textures(grid, suite.frost_source());
    for group in Group::ALL.into_iter().map(Some).chain([None]) {
        let name = group.map_or("all", Group::as_str);
        let mut mean = |name: String, grid: &Grid| {
            if let Some(mean) = mean_in(grid, group) {
                let relative = baseline.and_then(|baseline| relative_in(grid, baseline, group));
                row(name, blank(), mean, relative);
            }
        };
        mean(format!("{name} (mean)"), grid);
        if let Some(without) = without.as_ref().filter(|_| grid.has_frost_in(group)) {
            mean(format!("{name} but frost (mean)"), without);
        }
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
    if let Origin::Made { profile, seed } = &suite.origin {
        (frame["profile"], frame["seed"]) = (json!(profile.as_str()), json!(seed));
    }
    let row = |grid: &Grid, group: Option<Group>, metric: String, value: f64| {
        let mut row = frame.clone();
        if let Origin::Stored(copies) = &suite.origin {
            copies.tell(&mut row, grid.has_in(Corruption::GlassBlur, group));
        }
        if grid.has_frost_in(group) {
            row["frost_source"] = json!(suite.frost_source());
        }
        if let Some(group) = group {
            row["group"] = json!(group.as_str());
        }
        (row["metric"], row["value"]) = (json!(metric), json!(value));
        row
    };
    let mut rows = Vec::new();
    let mut add = |grid: &Grid, group: Option<Group>, suffix: &str| {
        let alone = group.map_or_else(|| grid.alone(), |group| grid.alone_in(group));
        let relative = baseline.and_then(|baseline| relative_in(grid, baseline, group));
        let alone = ALONE.iter().map(|(name, of)| (name, alone.and_then(of)));
        let relative = RELATIVE.iter().map(|(name, of)| (name, relative.and_then(of)));
        let defined = alone.chain(relative).filter_map(|(name, value)| Some((name, value?)));
        rows.extend(defined.map(|(name, value)| row(grid, group, format!("{name}{suffix}"), value)));
    };
    let without = without_textures(grid, suite.frost_source());
    for group in Group::ALL.into_iter().map(Some).chain([None]) {
        add(grid, group, "");
        if let Some(without) = without.as_ref().filter(|_| grid.has_frost_in(group)) {
            add(without, group, WITHOUT_FROST);
        }
    }
    rows
}

fn mean_in(grid: &Grid, group: Option<Group>) -> Option<f64> {
    group.map_or_else(|| grid.mean(), |group| grid.mean_in(group))
}

fn relative_in(grid: &Grid, baseline: &Grid, group: Option<Group>) -> Option<Relative> {
    group.map_or_else(|| grid.summary(baseline), |group| grid.summary_in(baseline, group))
}

type OfAlone = fn(Alone) -> Option<f64>;
type OfRelative = fn(Relative) -> Option<f64>;

/// Scores of a model alone.
const ALONE: [(&str, OfAlone); 3] = [
    ("mean_accuracy", |of| Some(of.accuracy)),
    ("retention", |of| of.retention),
    ("unnormalised_mce", |of| Some(of.error)),
];

/// Scores relative to a baseline.
const RELATIVE: [(&str, OfRelative); 4] = [
    ("robustness_score", |of| Some(of.score)),
    ("ratio_of_means", |of| Some(of.ratio_of_means)),
    ("mce", |of| Some(of.error)),
    ("relative_mce", |of| of.relative_error),
];

/// Ends the names of scores that leave frost out, because it is of textures.
const WITHOUT_FROST: &str = "_without_frost";

/// The baseline's name in figures.
pub(crate) const BASELINE: &str = "baseline";

/// Keys of the rows of `nct robustness`, as columns of a table.
const COLUMNS: [(&str, Kind); 15] = [
    ("model", Kind::Text),
    ("seeds", Kind::Whole),
    ("frost_source", Kind::Text),
    ("group", Kind::Text),
    ("corruption", Kind::Text),
    ("metric", Kind::Text),
    ("value", Kind::Real),
    ("bootstrap_mean", Kind::Real),
    ("bootstrap_std", Kind::Real),
    ("propagated_std", Kind::Real),
    ("fit", Kind::Text),
    ("term", Kind::Text),
    ("std_error", Kind::Real),
    ("t", Kind::Real),
    ("p", Kind::Real),
];

pub(crate) fn run(args: &Args, show: Show) -> anyhow::Result<()> {
    let split = if args.validation { Split::Validation } else { Split::Test };
    let made = Origin::Made { profile: args.profile, seed: args.seed };
    // How copies were made is kept in the runs.
    let origin = args.stored.clone().map_or(made, |name| Origin::Stored(Copies { name, made: None }));
    let (mut sources, mut copies) = (Vec::new(), Vec::new());
    let mut seeds_of = |name: &str, runs: &[PathBuf]| -> anyhow::Result<Seeds> {
        let mut grids = Vec::new();
        for run in runs {
            let kept = all_kept(run, &origin, split)?;
            copies.push((run.clone(), kept.copies()));
            // What has no frost is of no source.
            if kept.grid.has_frost_in(None) {
                sources.push((run.clone(), kept.frost_source));
            }
            grids.push(kept.grid);
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
    of_one_origin(&copies).map_err(Usage)?;
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
    let mut table = table(&["model", "seeds", "corruptions", "metric", "value", "bootstrap", "propagated"]);
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
        let error =
            row["propagated_std"].as_f64().map_or_else(String::new, |std| format!("± {std:.digits$}"));
        table.add_row([text("model"), row["seeds"].to_string(), of, text("metric"), value, spread, error]);
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

/// Every score of a model: over all, by group, and the robustness score by corruption. `source` is that of frost.
fn scores(
    name: &str,
    models: &[Grid],
    baselines: &[Grid],
    source: Option<&str>,
) -> Result<Vec<Value>, String> {
    let whole = Compared::of(name, models.to_vec(), baselines.to_vec(), source)?;
    let corruptions = whole.corruptions()?;
    let without = whole.without_textures()?;
    let mut rows = Vec::new();
    for group in [None].into_iter().chain(Group::ALL.map(Some)) {
        rows.extend(whole.rows(group, "", &corruptions)?);
        if let Some(without) = without.as_ref().filter(|_| whole.model.has_frost_in(group)) {
            rows.extend(without.rows(group, WITHOUT_FROST, &corruptions)?);
        }
    }
    rows.extend(corruptions.into_iter().map(|(_, row)| row));
    Ok(rows)
}

/// A model beside a baseline, over seeds.
struct Compared<'a> {
    name: &'a str,
    models: Vec<Grid>,
    baselines: Vec<Grid>,
    /// Averages of these.
    model: Grid,
    baseline: Grid,
    /// Of frost.
    source: Option<&'a str>,
}

impl<'a> Compared<'a> {
    fn of(
        name: &'a str,
        models: Vec<Grid>,
        baselines: Vec<Grid>,
        source: Option<&'a str>,
    ) -> Result<Self, String> {
        let [all, bases]: [Vec<&Grid>; 2] = [models.iter().collect(), baselines.iter().collect()];
        let (model, baseline) = alike(name, &all, &bases)?;
        Ok(Self { name, models, baselines, model, baseline, source })
    }

    /// The same without frost, if that is of textures.
    fn without_textures(&self) -> Result<Option<Self>, String> {
        if without_textures(&self.model, self.source.unwrap_or_default()).is_none() {
            return Ok(None);
        }
        let without =
            |grids: &[Grid]| grids.iter().map(|grid| grid.clone().without(Corruption::Frost)).collect();
        Self::of(self.name, without(&self.models), without(&self.baselines), self.source).map(Some)
    }

    /// A row of a score, if it is defined, with its spread over drawn seeds where there are several.
    fn row(
        &self,
        metric: &str,
        frosted: bool,
        score: &dyn Fn(&Grid, &Grid) -> Option<f64>,
    ) -> Result<Option<Value>, String> {
        let Self { models, baselines, .. } = self;
        let Some(value) = score(&self.model, &self.baseline) else { return Ok(None) };
        let mut row = json!({"model": self.name, "seeds": models.len(), "metric": metric, "value": value});
        if let Some(source) = self.source.filter(|_| frosted) {
            row["frost_source"] = json!(source);
        }
        let [all, bases]: [Vec<&Grid>; 2] = [models.iter().collect(), baselines.iter().collect()];
        if models.len() + baselines.len() > 2
            && let Some(Spread { mean, std }) = bootstrap(&all, &bases, score)?
        {
            (row["bootstrap_mean"], row["bootstrap_std"]) = (json!(mean), json!(std));
        }
        Ok(Some(row))
    }

    /// The robustness score by corruption.
    fn corruptions(&self) -> Result<Vec<(Corruption, Value)>, String> {
        let mut rows = Vec::new();
        for corruption in self.model.corruptions() {
            let score = |m: &Grid, b: &Grid| m.relative_to(b, corruption).map(|r| r.score);
            let row = self.row("robustness_score", corruption == Corruption::Frost, &score)?;
            rows.extend(row.map(|mut row| {
                row["corruption"] = json!(corruption.as_str());
                (corruption, row)
            }));
        }
        Ok(rows)
    }

    /// All scores over all corruptions, or the robustness score of a group with the error that follows from those of
    /// its `corruptions`. Names end with `suffix`.
    fn rows(
        &self,
        group: Option<Group>,
        suffix: &str,
        corruptions: &[(Corruption, Value)],
    ) -> Result<Vec<Value>, String> {
        let frosted = self.model.has_frost_in(group);
        let mut rows = Vec::new();
        for (metric, of) in ALONE.iter().filter(|_| group.is_none()) {
            let score = |m: &Grid, _: &Grid| m.alone().and_then(of);
            rows.extend(self.row(&format!("{metric}{suffix}"), frosted, &score)?);
        }
        let relative = if group.is_some() { &RELATIVE[..1] } else { &RELATIVE[..] };
        for (metric, of) in relative {
            let score = |m: &Grid, b: &Grid| relative_in(m, b, group).and_then(of);
            rows.extend(self.row(&format!("{metric}{suffix}"), frosted, &score)?);
        }
        let Some(group) = group else { return Ok(rows) };
        let own = |c: Corruption| c.group() == group && self.model.row(c).is_some();
        let errors = corruptions.iter().filter(|(c, _)| own(*c));
        let errors: Vec<f64> = errors.filter_map(|(_, row)| row["bootstrap_std"].as_f64()).collect();
        let error = propagated(&errors);
        for row in &mut rows {
            row["group"] = json!(group.as_str());
            if let Some(error) = error {
                row["propagated_std"] = json!(error);
            }
        }
        Ok(rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::Made;

    fn grid(clean: f64, cells: &[(&str, [f64; 2])]) -> Grid {
        let cells = cells.iter().map(|(name, row)| ((*name).to_owned(), row.to_vec())).collect();
        Grid { classes: 200, clean, cells, severities: vec![1, 5] }
    }

    /// A value of a row, by metric and place.
    fn value(rows: &[Value], metric: &str, place: Option<(&str, &str)>, key: &str) -> Option<f64> {
        let is = |row: &&Value| match place {
            Some((at, name)) => row["metric"] == metric && row[at] == name,
            None => row["metric"] == metric && row["group"].is_null() && row["corruption"].is_null(),
        };
        rows.iter().find(is)?[key].as_f64()
    }

    const MODEL: [(&str, [f64; 2]); 3] =
        [("fog", [0.4, 0.3]), ("frost", [0.1, 0.1]), ("pixelate", [0.3, 0.2])];
    const BASE: [(&str, [f64; 2]); 3] =
        [("fog", [0.4, 0.2]), ("frost", [0.2, 0.4]), ("pixelate", [0.2, 0.2])];

    /// By hand: scores are 125 (fog), 37.5 (frost) and 125 (pixelate).
    #[test]
    fn every_score_has_one_without_frost_where_that_is_of_textures() {
        let (model, base) = (grid(0.5, &MODEL), grid(0.6, &BASE));
        let without = [
            ("mean_accuracy", 30.0),
            ("retention", 60.0),
            ("unnormalised_mce", 70.0),
            ("robustness_score", 125.0),
            ("ratio_of_means", 100.0 * f64::midpoint(7.0 / 6.0, 5.0 / 4.0)),
            ("mce", 100.0 * f64::midpoint(13.0 / 14.0, 15.0 / 16.0)),
            ("relative_mce", 100.0 * f64::midpoint(3.0 / 6.0, 5.0 / 8.0)),
        ];
        let suite = |source: &str| {
            let made = Made::of(&[
                "profile = t".to_owned(),
                "seed = 0".to_owned(),
                format!("frost_source = {source}"),
            ]);
            CorruptionSuite {
                origin: Origin::Stored(Copies { name: "C".to_owned(), made: made.unwrap() }),
                corruptions: vec![Corruption::Fog, Corruption::Frost, Corruption::Pixelate],
                severities: vec![Severity::ALL[0], Severity::ALL[4]],
                split: Split::Test,
            }
        };
        let of = |source: &str| {
            let (models, baselines) = ([model.clone()], [base.clone()]);
            [
                summary_rows("run", &suite(source), &model, Some(&base)),
                scores("m", &models, &baselines, Some(source)).unwrap(),
            ]
        };
        for rows in of("synthetic") {
            for (metric, expected) in without {
                let name = format!("{metric}{WITHOUT_FROST}");
                let found = value(&rows, &name, None, "value").unwrap();
                assert!((found - expected).abs() < 1e-9, "{name}: {found}, not {expected}");
                assert!(value(&rows, metric, None, "value").is_some(), "{metric}");
            }
            let weather = |metric: &str| value(&rows, metric, Some(("group", "weather")), "value").unwrap();
            assert!((weather("robustness_score") - 81.25).abs() < 1e-9);
            assert!((weather("robustness_score_without_frost") - 125.0).abs() < 1e-9);
            let digital = value(&rows, "robustness_score_without_frost", Some(("group", "digital")), "value");
            assert_eq!(digital, None, "has no frost");
            for row in &rows {
                let place = row["corruption"].as_str().or(row["group"].as_str()).unwrap_or_default();
                let without = row["metric"].as_str().unwrap().ends_with(WITHOUT_FROST);
                let frosted = ["", "frost", "weather"].contains(&place) && !without;
                assert_eq!(row["frost_source"] == "synthetic", frosted, "{row}");
            }
        }
        for rows in of("pictures") {
            let without = |row: &Value| row["metric"].as_str().unwrap().ends_with(WITHOUT_FROST);
            assert!(!rows.is_empty() && !rows.iter().any(without));
        }
    }

    #[test]
    fn errors_of_groups_follow_from_those_of_their_corruptions() {
        let other = [("fog", [0.2, 0.2]), ("frost", [0.3, 0.2]), ("pixelate", [0.3, 0.4])];
        let (models, base) = ([grid(0.5, &MODEL), grid(0.5, &other)], [grid(0.6, &BASE)]);
        let rows = scores("m", &models, &base, Some("synthetic")).unwrap();
        let std = |name: &str| {
            value(&rows, "robustness_score", Some(("corruption", name)), "bootstrap_std").unwrap()
        };
        let group =
            |metric: &str| value(&rows, metric, Some(("group", "weather")), "propagated_std").unwrap();
        let (fog, frost) = (std("fog"), std("frost"));
        assert!(fog > 1.0 && (fog - frost).abs() > 1.0, "{fog} {frost}");
        assert!((group("robustness_score") - (f64::midpoint(fog * fog, frost * frost)).sqrt()).abs() < 1e-9);
        assert!((group("robustness_score_without_frost") - fog).abs() < 1e-9);
        let drawn = value(&rows, "robustness_score", Some(("group", "weather")), "bootstrap_std").unwrap();
        assert!(drawn < group("robustness_score"), "{drawn}: the two do not vary alike");
        let told = format!("± {:.1} ", group("robustness_score"));
        assert!(in_words(&rows).contains(&told), "{}", in_words(&rows));
        let one = scores("m", &models[..1], &base, None).unwrap();
        assert!(one.iter().all(|row| row["propagated_std"].is_null()), "one seed has no spread");
    }
}
