//! Studies: several recipes in one file, trained one after another or at the same time, with what connects them.

use super::recipe::{line_of, read, table, with_suggestion};
use super::{ConfigError, Point, Recipe, is_name};
use crate::base::Split;
use crate::corruption::words::{all_severities, imagenet, name, names};
use crate::corruption::{Corruption, Profile, Severity};
use crate::eval::{CorruptionSuite, Origin};
use crate::ingest::synth::SynthOptions;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// Experiments in their order. A recipe, or a sweep, is a study of one stage.
#[derive(Debug, Clone)]
pub struct Study {
    /// Name, for messages and files.
    pub name: String,
    /// Folder of shards, if the study has one of its own.
    pub shards: Option<PathBuf>,
    /// Folder of runs, if the study has one of its own.
    pub out: Option<PathBuf>,
    /// Sample data that are made where the folder of shards has none.
    pub samples: Option<SynthOptions>,
    /// Corruptions under which every trained network that knows classes is evaluated.
    pub corruptions: Option<CorruptionSuite>,
    /// The stage that others are compared with.
    pub baseline: Option<String>,
    /// Name of the report, in the folder of runs.
    pub report: Option<PathBuf>,
    /// What is done. A stage needs only earlier ones.
    pub stages: Vec<Stage>,
}

/// A part of a study.
#[derive(Debug, Clone)]
pub struct Stage {
    /// Name, which no other stage has.
    pub name: String,
    /// What is done.
    pub work: Work,
}

/// What a stage does.
#[derive(Debug, Clone)]
pub enum Work {
    /// Trains.
    Train(Training),
    /// Makes a data set.
    Respond(Responses),
}

/// Runs of a recipe.
#[derive(Debug, Clone)]
pub struct Training {
    /// Its runs.
    pub points: Vec<Point>,
    /// The stage whose weights they start from.
    pub init: Option<String>,
    /// What is known of its result.
    pub expected: Option<Expected>,
}

/// A result that was reported.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expected {
    /// Robustness score, percent of the baseline's.
    pub robustness_score: f64,
    /// Its spread.
    #[serde(default)]
    pub spread: f64,
}

/// A network's responses to images, as a neural set: what `nct respond` and `nct prepare` make.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Responses {
    /// The stage that trained the network.
    pub run: String,
    /// The data set whose images are shown.
    pub images: String,
    /// Name of the new set.
    pub dataset: String,
    /// Give each image the responses to another.
    #[serde(default)]
    pub shuffle: bool,
    /// Read units of this layer instead of readouts.
    #[serde(default)]
    pub layer: Option<String>,
    /// How many of its units.
    #[serde(default)]
    pub units: Option<u32>,
    /// Seed of the permutation and of the choice of units.
    #[serde(default)]
    pub seed: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    #[serde(default)]
    scale: Option<String>,
    #[serde(default)]
    scales: BTreeMap<String, Scale>,
    #[serde(default)]
    shards: Option<PathBuf>,
    #[serde(default)]
    out: Option<PathBuf>,
    #[serde(default)]
    samples: Option<Samples>,
    #[serde(default)]
    corruptions: Option<Suite>,
    #[serde(default)]
    baseline: Option<String>,
    #[serde(default)]
    report: Option<PathBuf>,
    stage: Vec<StageFile>,
}

/// One size of a study: what differs from the study as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Scale {
    shards: Option<PathBuf>,
    out: Option<PathBuf>,
    samples: Option<Samples>,
    corruptions: Option<Suite>,
    /// Of every training.
    set: Table,
    /// Of one stage.
    stages: BTreeMap<String, Overlay>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Overlay {
    set: Table,
    sweep: Table,
    respond: Table,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct StageFile {
    name: String,
    #[serde(default)]
    recipe: Option<PathBuf>,
    #[serde(default)]
    set: Table,
    #[serde(default)]
    sweep: Table,
    #[serde(default)]
    init: Option<String>,
    #[serde(default)]
    expected: Option<Expected>,
    #[serde(default)]
    respond: Option<Table>,
}

/// As the options of `nct synth`.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Samples {
    classes: u32,
    per_class: u32,
    val_per_class: u32,
    neural_images: u32,
    sessions: u32,
    neurons: u32,
    seed: u64,
}

impl Default for Samples {
    fn default() -> Self {
        let SynthOptions { classes, per_class, val_per_class, neural_images, sessions, neurons, seed } =
            SynthOptions::default();
        Self { classes, per_class, val_per_class, neural_images, sessions, neurons, seed }
    }
}

impl From<Samples> for SynthOptions {
    fn from(samples: Samples) -> Self {
        let Samples { classes, per_class, val_per_class, neural_images, sessions, neurons, seed } = samples;
        Self { classes, per_class, val_per_class, neural_images, sessions, neurons, seed }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Suite {
    #[serde(with = "names", default = "paper")]
    corruptions: Vec<Corruption>,
    #[serde(with = "names", default = "all_severities")]
    severities: Vec<Severity>,
    #[serde(with = "name", default = "imagenet")]
    profile: Profile,
}

fn paper() -> Vec<Corruption> {
    Corruption::PAPER.to_vec()
}

impl From<Suite> for CorruptionSuite {
    fn from(Suite { corruptions, severities, profile }: Suite) -> Self {
        Self { origin: Origin::Made { profile, seed: 0 }, corruptions, severities, split: Split::Test }
    }
}

impl Study {
    /// Reads a study, a sweep or a recipe, with `key.path=value` overrides of every training; `scale=NAME` chooses a
    /// study's scale.
    pub fn read(path: &Path, overrides: &[String]) -> Result<Self, ConfigError> {
        let (text, origin) = (read(path)?, path.display().to_string());
        if !table(&text, &origin)?.contains_key("stage") {
            return Self::of_recipe(&Recipe::read(path)?, overrides);
        }
        let file = toml::Deserializer::parse(&text).map_err(|e| ConfigError::new(&origin, e.to_string()))?;
        let file: File = serde_path_to_error::deserialize(file).map_err(|e| {
            let path = e.path().to_string();
            let place =
                line_of(&text, &path).map_or_else(|| origin.clone(), |n| format!("{origin}, line {n}"));
            ConfigError::new(place, format!("{path}: {}", with_suggestion(e.inner().message())))
        })?;
        let study = file.study(&origin, path.parent().unwrap_or(Path::new("")), overrides)?;
        study.check().map_err(|what| ConfigError::new(&origin, what))?;
        Ok(study)
    }

    fn of_recipe(recipe: &Recipe, overrides: &[String]) -> Result<Self, ConfigError> {
        let points = recipe.points(overrides)?;
        let name = points.first().map_or_else(String::new, |point| point.experiment.name.clone());
        let work = Work::Train(Training { points, init: None, expected: None });
        Ok(Self {
            name: name.clone(),
            shards: None,
            out: None,
            samples: None,
            corruptions: None,
            baseline: None,
            report: None,
            stages: vec![Stage { name, work }],
        })
    }

    /// What is known to end badly before anything is done.
    fn check(&self) -> Result<(), String> {
        for stage in &self.stages {
            if let Work::Respond(responses) = &stage.work
                // A hidden folder is none of the shards.
                && (!is_name(&responses.dataset) || responses.dataset.starts_with('.'))
            {
                return Err(format!(
                    "stage {}: respond.dataset = {:?}: a name has letters, digits, dots, _ and - only, and does not begin with a dot",
                    stage.name, responses.dataset
                ));
            }
        }
        let Some(suite) = &self.corruptions else { return Ok(()) };
        if suite.corruptions.is_empty() || suite.severities.is_empty() {
            return Err(
                "[corruptions] asks for none: name some, or leave the list out, which means all, or the section"
                    .to_owned(),
            );
        }
        if let Some(stage) = self.baseline.as_ref().and_then(|name| self.stage(name))
            && let Work::Train(training) = &stage.work
            && training.points.iter().any(|point| point.experiment.data.images.is_empty())
        {
            return Err(format!(
                "baseline = {:?}: that stage learns no classes, so no score under [corruptions] can be relative to its; name another stage, or leave one of both out",
                stage.name
            ));
        }
        Ok(())
    }

    /// The stage called `name`.
    pub fn stage(&self, name: &str) -> Option<&Stage> {
        self.stages.iter().find(|stage| stage.name == name)
    }
}

impl File {
    fn study(mut self, origin: &str, folder: &Path, overrides: &[String]) -> Result<Study, ConfigError> {
        let wrong = |what: String| ConfigError::new(origin, what);
        let (chosen, overrides): (Vec<&String>, Vec<&String>) =
            overrides.iter().partition(|entry| entry.starts_with("scale="));
        let overrides: Vec<String> = overrides.into_iter().cloned().collect();
        let scale = chosen.last().map(|entry| entry["scale=".len()..].trim_matches('"').to_owned());
        let mut scale = match scale.or_else(|| self.scale.take()) {
            None => Scale::default(),
            Some(name) => self.scales.remove(&name).ok_or_else(|| {
                let known: Vec<&str> = self.scales.keys().map(String::as_str).collect();
                wrong(format!("there is no scale {name:?}; there are: {}", known.join(", ")))
            })?,
        };
        let mut stages: Vec<Stage> = Vec::new();
        for stage in std::mem::take(&mut self.stage) {
            let name = stage.name.clone();
            if stages.iter().any(|other| other.name == name) {
                return Err(wrong(format!("there are two stages called {name:?}")));
            }
            let overlay = scale.stages.remove(&name).unwrap_or_default();
            let work = stage.work(folder, &scale.set, overlay, &overrides);
            let work = work.map_err(|e| ConfigError::new(format!("{origin}, stage {name}"), e))?;
            connected(&work, &stages)
                .map_err(|what| ConfigError::new(format!("{origin}, stage {name}"), what))?;
            stages.push(Stage { name, work });
        }
        let own = |name: &&String| !stages.iter().any(|stage| stage.name == **name);
        if let Some(name) =
            self.scales.values().chain([&scale]).flat_map(|scale| scale.stages.keys()).find(own)
        {
            return Err(wrong(format!("scales: there is no stage {name:?}")));
        }
        if let Some(name) = &self.baseline
            && !trains(&stages, name)
        {
            return Err(wrong(format!("baseline: no stage trains {name:?}")));
        }
        Ok(Study {
            name: self.name,
            shards: scale.shards.or(self.shards),
            out: scale.out.or(self.out),
            samples: scale.samples.or(self.samples).map(SynthOptions::from),
            corruptions: scale.corruptions.or(self.corruptions).map(CorruptionSuite::from),
            baseline: self.baseline,
            report: self.report,
            stages,
        })
    }
}

fn trains(stages: &[Stage], name: &str) -> bool {
    stages.iter().any(|stage| stage.name == name && matches!(stage.work, Work::Train(_)))
}

/// A stage needs only stages before it, and those must be of the right kind.
fn connected(work: &Work, before: &[Stage]) -> Result<(), String> {
    let (key, needed) = match work {
        Work::Train(Training { init, .. }) => ("init", init.as_ref()),
        Work::Respond(responses) => ("respond.run", Some(&responses.run)),
    };
    match needed {
        Some(name) if !trains(before, name) => Err(format!("{key}: no stage before it trains {name:?}")),
        _ => Ok(()),
    }
}

impl StageFile {
    fn work(
        self,
        folder: &Path,
        of_all: &Table,
        overlay: Overlay,
        overrides: &[String],
    ) -> Result<Work, String> {
        let Self { name, recipe, mut set, sweep, init, expected, respond } = self;
        match (recipe, respond) {
            (Some(recipe), None) => {
                set.entry("name").or_insert_with(|| Value::String(name.clone()));
                let none = Table::new();
                let recipe = Recipe::read(&folder.join(recipe)).map_err(|e| e.to_string())?;
                let recipe = recipe.over(&set, &sweep, "")?.over(of_all, &none, "the scale's ")?;
                let of_stage = format!("the scale's stages.{name}.");
                let recipe = recipe.over(&overlay.set, &overlay.sweep, &of_stage)?;
                let points = recipe.points(overrides).map_err(|e| e.to_string())?;
                Ok(Work::Train(Training { points, init, expected }))
            }
            (None, Some(mut respond)) => {
                respond.extend(overlay.respond);
                let responses: Result<Responses, _> = Value::Table(respond).try_into();
                let responses =
                    responses.map_err(|e| format!("respond: {}", with_suggestion(&e.to_string())))?;
                if responses.layer.is_some() != responses.units.is_some() {
                    return Err("respond: layer and units go together".to_owned());
                }
                Ok(Work::Respond(responses))
            }
            _ => Err("has a recipe or a respond section, and not both".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn study(text: &str, overrides: &[&str]) -> Result<Study, String> {
        let dir = tempfile::tempdir().unwrap();
        let recipe = "name = \"small\"\nseed = 1\n[optimizer]\nkind = \"sgd\"\nlr = 0.5\n";
        fs::write(dir.path().join("small.toml"), recipe).unwrap();
        fs::write(dir.path().join("swept.toml"), "base = \"small.toml\"\n[sweep]\nseed = [1, 2, 3]\n")
            .unwrap();
        let path = dir.path().join("study.toml");
        fs::write(&path, text).unwrap();
        let overrides: Vec<String> = overrides.iter().map(|&o| o.to_owned()).collect();
        Study::read(&path, &overrides).map_err(|e| e.to_string())
    }

    fn seeds_and_rates(study: &Study, stage: &str) -> Vec<(u64, f64)> {
        let Some(Stage { work: Work::Train(training), .. }) = study.stage(stage) else { return Vec::new() };
        training.points.iter().map(|p| (p.experiment.seed, p.experiment.optimizer.lr)).collect()
    }

    const TEXT: &str = r#"
name = "both"
scale = "full"
baseline = "first"
report = "both.html"

[corruptions]
severities = [1, 3]

[scales.full]

[scales.tiny]
out = "tiny/runs"
samples = { classes = 3 }
corruptions = { corruptions = ["fog"] }
set = { optimizer.lr = 0.125 }
stages.second = { set = { seed = 9 }, sweep = { optimizer.lr = [0.75] } }
stages.set.respond = { images = "other" }

[[stage]]
name = "first"
recipe = "small.toml"
sweep = { seed = [3, 4] }

[[stage]]
name = "second"
recipe = "small.toml"
set = { optimizer.lr = 0.25 }
init = "first"
expected = { robustness_score = 114.1, spread = 4.0 }

[[stage]]
name = "set"
respond = { run = "second", images = "stimuli", dataset = "made" }
"#;

    #[test]
    fn a_scale_and_overrides_change_what_the_stages_say() {
        let full = study(TEXT, &[]).unwrap();
        assert_eq!((full.name.as_str(), full.baseline.as_deref()), ("both", Some("first")));
        assert_eq!(seeds_and_rates(&full, "first"), [(3, 0.5), (4, 0.5)]);
        assert_eq!(seeds_and_rates(&full, "second"), [(1, 0.25)]);
        assert!(full.samples.is_none() && full.out.is_none());
        let suite = full.corruptions.as_ref().unwrap();
        assert_eq!((suite.corruptions.len(), suite.severities.len()), (15, 2));
        let tiny = study(TEXT, &["scale=tiny"]).unwrap();
        assert_eq!(seeds_and_rates(&tiny, "first"), [(3, 0.125), (4, 0.125)]);
        assert_eq!(seeds_and_rates(&tiny, "second"), [(9, 0.75)]);
        assert_eq!(tiny.samples.map(|s| (s.classes, s.neurons)), Some((3, SynthOptions::default().neurons)));
        assert_eq!(tiny.corruptions.as_ref().map(|suite| suite.corruptions.len()), Some(1));
        assert_eq!(tiny.out.as_deref(), Some(Path::new("tiny/runs")));
        let Some(Stage { work: Work::Respond(made), .. }) = tiny.stage("set") else { panic!("no set") };
        assert_eq!(
            (made.run.as_str(), made.images.as_str(), made.dataset.as_str()),
            ("second", "other", "made")
        );
        let given = study(TEXT, &["scale=tiny", "optimizer.lr=0.0625"]).unwrap();
        assert_eq!(seeds_and_rates(&given, "second"), [(9, 0.0625)]);
        let Some(Stage { work: Work::Train(second), .. }) = full.stage("second") else { panic!("no stage") };
        assert_eq!(second.points[0].experiment.name, "second", "runs are called after their stage");
        assert_eq!(second.expected.map(|e| e.robustness_score), Some(114.1));
    }

    #[test]
    fn a_key_that_is_set_is_no_longer_swept() {
        for (stage, scale, expected) in [
            ("", "", &[1, 2, 3][..]),
            ("set = { seed = 9 }", "", &[9]),
            ("", "set = { seed = 9 }", &[9]),
            ("", "stages.b.set = { seed = 9 }", &[9]),
            ("sweep = { seed = [4, 5] }", "stages.b.set = { seed = 9 }", &[9]),
            ("set = { seed = 9 }", "stages.b.sweep = { seed = [4, 5] }", &[4, 5]),
            ("set = { optimizer.lr = 0.25 }", "", &[1, 2, 3]),
        ] {
            let text = format!(
                "name = \"s\"\nscale = \"a\"\n[scales.a]\n{scale}\n[[stage]]\nname = \"b\"\nrecipe = \"swept.toml\"\n{stage}\n"
            );
            let found = seeds_and_rates(&study(&text, &[]).unwrap(), "b");
            let seeds: Vec<u64> = found.into_iter().map(|(seed, _)| seed).collect();
            assert_eq!(seeds, expected, "{stage} {scale}");
        }
    }

    #[test]
    fn a_recipe_is_a_study_of_one_stage() {
        let one =
            study("name = \"a\"\n[sweep]\nseed = [1, 2]\n", &["optimizer.kind=sgd", "optimizer.lr=0.25"])
                .unwrap();
        assert_eq!(one.stages.len(), 1);
        assert_eq!(seeds_and_rates(&one, "a"), [(1, 0.25), (2, 0.25)]);
    }

    #[test]
    fn mistakes_are_told_with_their_place() {
        for (from, to, expected) in [
            ("baseline", "basline", "did you mean `baseline`?"),
            ("baseline = \"first\"", "baseline = \"set\"", "no stage trains \"set\""),
            (
                "init = \"first\"",
                "init = \"third\"",
                "stage second: init: no stage before it trains \"third\"",
            ),
            ("run = \"second\"", "run = \"set\"", "stage set: respond.run"),
            ("name = \"second\"", "name = \"first\"", "two stages called \"first\""),
            ("stages.second", "stages.third", "there is no stage \"third\""),
            ("scale = \"full\"", "scale = \"huge\"", "there are: full, tiny"),
            ("lr = 0.25", "lrr = 0.25", "did you mean `lr`?"),
            ("lr = 0.25", "lr = \"fast\"", "stage second: set.optimizer.lr: invalid type"),
            ("seed = [3, 4]", "seed = [3, \"x\"]", "stage first: sweep.seed: invalid type"),
            ("dataset = \"made\"", "dataste = \"made\"", "stage set: respond"),
            ("dataset = \"made\"", "dataset = \"made\", layer = \"a\"", "layer and units go together"),
            ("severities = [1, 3]", "severities = [1, 6]", "line 8"),
            ("init = \"first\"", "respond = {}", "has a recipe or a respond section"),
        ] {
            let message = study(&TEXT.replacen(from, to, 1), &[]).unwrap_err();
            assert!(message.contains(expected), "{from} -> {to}: {message}");
        }
        assert!(study(TEXT, &["scale=big"]).unwrap_err().contains("there is no scale \"big\""));
        let tiny = TEXT.replacen("{ seed = 9 }", "{ seed = \"x\" }", 1);
        let told = study(&tiny, &["scale=tiny"]).unwrap_err();
        assert!(told.contains("stage second: the scale's stages.second.set.seed: invalid type"), "{told}");
        assert!(study(TEXT, &["seeed=3"]).unwrap_err().contains("--set seeed=3"));
    }
}
