//! Accuracies under corruptions that are kept in runs, and what of them can be compared.

use crate::base::{Fingerprint, Split};
use crate::cli::corrupt::frost::asked;
use crate::cli::exit::Usage;
use crate::cli::train::word;
use crate::corruption::frost::Source;
use crate::corruption::{Corruption, Severity};
use crate::eval::figures::Seeds;
use crate::eval::robustness::Grid;
use crate::eval::{Copies, CorruptionSuite, Made, Origin};
use crate::runs::{Run, write_atomic};
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::path::{Path, PathBuf};

/// What `nct eval --suite corruptions` found, as it is kept in a run.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Kept {
    /// Set of parameters, or the name of the stored copies.
    profile: String,
    split: String,
    /// Of copies that were made.
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<u64>,
    /// Digest of the weights it is of.
    weights: String,
    /// Of stored copies that nct made: how.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    made: Option<Made>,
    /// Of all frost here: `synthetic`, `pictures`, or `stored`, which is what copies from elsewhere have.
    pub(super) frost_source: String,
    pub(super) grid: Grid,
    /// Cells of the same weights that do not make a whole grid together with these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    others: Vec<Grid>,
}

impl Kept {
    /// The stored copies it is of.
    pub(super) fn copies(&self) -> Copies {
        Copies { name: self.profile.clone(), made: self.made.clone() }
    }

    fn grids(self) -> Vec<Grid> {
        [vec![self.grid], self.others].concat()
    }

    /// What was kept beside new frost of `source`: frost of another goes.
    fn beside(self, grid: &Grid, source: &str) -> Vec<Grid> {
        let other = self.frost_source != source && grid.has_frost_in(None);
        let mut grids = self.grids();
        if other {
            grids = grids.into_iter().map(|grid| grid.without(Corruption::Frost)).collect();
            grids.retain(|grid| !grid.cells.is_empty());
        }
        grids
    }
}

fn file(run: &Path, origin: &Origin, split: Split) -> PathBuf {
    let name = match origin {
        Origin::Made { profile, seed } => format!("{profile}-{split}-{seed}.json"),
        Origin::Stored(copies) => format!("stored-{}-{split}.json", copies.name),
    };
    run.join("robustness").join(name)
}

/// Keeps a grid in its run, beside the cells of the same weights that are there already.
pub(crate) fn keep(run: &Path, suite: &CorruptionSuite, grid: &Grid) -> anyhow::Result<()> {
    let path = file(run, &suite.origin, suite.split);
    let weights = weights_of(run)?;
    let old = read(&path).ok().filter(|old| old.weights == weights);
    let made = old.as_ref().map_or_else(|| Ok(own(suite)), |old| together(&path, old, suite))?;
    // Without new frost, the source is that of the frost that is there.
    let mut frost_source = suite.frost_source().to_owned();
    if let Some(old) = old.as_ref().filter(|_| !grid.has_frost_in(None)) {
        frost_source.clone_from(&old.frost_source);
    }
    let old = old.map(|old| old.beside(grid, &frost_source)).unwrap_or_default();
    let mut others = joined(old, grid.clone());
    let (grid, others) = (others.remove(0), others);
    let (profile, seed) = match &suite.origin {
        Origin::Made { profile, seed } => (profile.to_string(), Some(*seed)),
        Origin::Stored(copies) => (copies.name.clone(), None),
    };
    let split = suite.split.to_string();
    let kept = Kept { profile, split, seed, weights, made, frost_source, grid, others };
    std::fs::create_dir_all(run.join("robustness"))?;
    Ok(write_atomic(&path, format!("{}\n", serde_json::to_string_pretty(&kept)?).as_bytes())?)
}

/// An error where [`keep`] will refuse: better known before the evaluation than after it.
pub(crate) fn may_keep(run: &Path, suite: &CorruptionSuite) -> anyhow::Result<()> {
    let path = file(run, &suite.origin, suite.split);
    if let Ok(old) = read(&path)
        && old.weights == weights_of(run)?
    {
        together(&path, &old, suite)?;
    }
    Ok(())
}

/// How stored copies were made that `suite` shows.
fn own(suite: &CorruptionSuite) -> Option<Made> {
    match &suite.origin {
        Origin::Made { .. } => None,
        Origin::Stored(copies) => copies.made.clone(),
    }
}

/// How the copies of `kept` and of `suite` were made, which have one name. An error if that is not of one origin.
fn together(path: &Path, kept: &Kept, suite: &CorruptionSuite) -> anyhow::Result<Option<Made>> {
    let Origin::Stored(copies) = &suite.origin else { return Ok(None) };
    let old = kept.copies();
    let differ = || {
        let (path, name) = (path.display(), &copies.name);
        Usage(format!(
            "{path}: is of copies {old}, and {name} is now {copies}; the two do not mix or compare: rename the folder {name}, or remove that file"
        ))
    };
    Ok(old.joined(copies).ok_or_else(differ)?.made)
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

/// Digest of the weights that are the run's result, which a run that is gone on with replaces.
pub(crate) fn weights_of(run: &Path) -> anyhow::Result<String> {
    let run = Run::open(run)?;
    let path = run.checkpoint(run.final_weights());
    let bytes = std::fs::read(&path).map_err(|e| Usage(format!("{}: {e}", path.display())))?;
    Ok(Fingerprint::of_large(&bytes).to_string())
}

/// The grid that was kept in a run, of its present weights, and what its frost is made of.
pub(crate) fn kept_with_source(run: &Path, origin: &Origin, split: Split) -> anyhow::Result<(Grid, String)> {
    all_kept(run, origin, split).map(|kept| (kept.grid, kept.frost_source))
}

/// All that was kept in a run, the largest grid first.
pub(super) fn all_kept(run: &Path, origin: &Origin, split: Split) -> anyhow::Result<Kept> {
    let weights = weights_of(run)?;
    let path = file(run, origin, split);
    let found = read(&path).and_then(|kept| {
        let same = kept.weights == weights;
        same.then_some(kept).ok_or_else(|| "is of other weights: the run has gone on since".to_owned())
    });
    found.map_err(|what| {
        let how = command(run, origin, split, asked());
        Usage(format!("{}: {what}; make it with: {how}", path.display())).into()
    })
}

/// What makes grids of a run, with frost of `source`.
fn command(run: &Path, origin: &Origin, split: Split, source: Source) -> String {
    let flags = match (origin, source) {
        (Origin::Made { profile, seed }, Source::Synthetic) => format!("--profile {profile} --seed {seed}"),
        (Origin::Made { profile, seed }, Source::Pictures) => {
            format!("--profile {profile} --seed {seed} --frost DIR")
        }
        (Origin::Stored(copies), _) => format!("--stored shards/{}", copies.name),
    };
    let split = if split == Split::Test { "" } else { " --split validation" };
    format!("nct eval {} --suite corruptions {flags}{split}", word(&run.to_string_lossy()))
}

/// What frost is made of where `suite` shows some.
fn source_asked(suite: &CorruptionSuite) -> Option<&'static str> {
    let shown = suite.corruptions.contains(&Corruption::Frost);
    shown.then(|| match suite.origin {
        Origin::Made { .. } => asked().as_str(),
        Origin::Stored(_) => suite.frost_source(),
    })
}

/// All that was kept in a run of the images of `suite`.
fn kept_alike(run: &Path, suite: &CorruptionSuite) -> anyhow::Result<Kept> {
    let kept = all_kept(run, &suite.origin, suite.split)?;
    together(&file(run, &suite.origin, suite.split), &kept, suite)?;
    Ok(kept)
}

/// What was kept in a run of `suite`, without what it does not ask for; none if something lacks.
pub(crate) fn kept_of(run: &Path, suite: &CorruptionSuite) -> Option<Grid> {
    let kept = kept_alike(run, suite).ok()?;
    let same = source_asked(suite).is_none_or(|source| source == kept.frost_source);
    same.then(|| cut_of(&kept.grids(), suite))?
}

/// The baseline's grid for `suite`: it must have all of its cells, and is cut to them.
pub(crate) fn baseline(run: &Path, suite: &CorruptionSuite) -> anyhow::Result<Grid> {
    let kept = kept_alike(run, suite)?;
    let own = kept.frost_source.clone();
    let all = kept.grids();
    let lacks = suite.corruptions.iter().find(|&&c| all.iter().all(|grid| grid.row(c).is_none()));
    let other = source_asked(suite).filter(|source| *source != own);
    let what = match (lacks, other) {
        (Some(corruption), _) => format!("its grid has no {corruption}"),
        (None, Some(source)) => format!("its frost is {own}, and that of this evaluation {source}"),
        (None, None) => match cut_of(&all, suite) {
            Some(grid) => return Ok(grid),
            None => format!("its grid lacks one of the severities {}", listed(&suite.severities)),
        },
    };
    let (corruptions, levels) = (listed(&suite.corruptions), listed(&suite.severities));
    let how = command(run, &suite.origin, suite.split, asked());
    let how = format!("add that with: {how} --corruptions {corruptions} --severities {levels}");
    Err(Usage(format!("{}: {what}; {how}", run.display())).into())
}

/// An error if runs were shown copies of one name and two origins.
pub(super) fn of_one_origin(runs: &[(PathBuf, Copies)]) -> Result<(), String> {
    let Some(((first, copies), rest)) = runs.split_first() else { return Ok(()) };
    let mut all = copies.clone();
    for (run, copies) in rest {
        let differ = || {
            let (first, run) = (first.display(), run.display());
            format!(
                "{first} was shown copies {all}, and {run} copies {copies}, and the two do not compare; evaluate all runs with one folder: nct eval RUN --suite corruptions --stored DIR"
            )
        };
        all = all.joined(copies).ok_or_else(differ)?;
    }
    Ok(())
}

/// The source of the frost of all of these runs, if `seeds`, which are cut alike, have frost. An error if they differ.
pub(super) fn common_source(
    seeds: &[Seeds],
    sources: &[(PathBuf, String)],
) -> Result<Option<String>, String> {
    let frosted = seeds.iter().flat_map(|seeds| &seeds.grids).any(|grid| grid.has_frost_in(None));
    let (Some((run, source)), true) = (sources.first(), frosted) else { return Ok(None) };
    if let Some((other, differs)) = sources.iter().find(|(_, other)| other != source) {
        let (run, other) = (run.display(), other.display());
        return Err(format!(
            "frost of {run} is {source}, that of {other} {differs}, and the two do not compare; evaluate frost of all with --frost DIR, or of all without: nct eval RUN --suite corruptions --corruptions frost"
        ));
    }
    Ok(Some(source.clone()))
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

/// Leaves of all grids what every one of them has, and tells what that is if something was left out.
pub(super) fn cut_to_common(seeds: &mut [Seeds]) -> Result<Option<String>, String> {
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
        *grid = cut(grid, &corruptions, &severities).ok_or("a grid lacks what its own lists name")?;
    }
    let (corruptions, severities) = (listed(&corruptions), listed(&severities));
    Ok(cuts.then(|| {
        format!("not all runs have the same cells: compared are {corruptions} at severities {severities}")
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

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
    fn frost_of_two_sources_is_not_kept_together() {
        let kept = || Kept {
            profile: "i".to_owned(),
            split: "test".to_owned(),
            seed: Some(0),
            weights: String::new(),
            made: None,
            frost_source: "synthetic".to_owned(),
            grid: grid(&["fog", "frost"], &[1, 2]),
            others: vec![grid(&["frost"], &[3])],
        };
        let frost = grid(&["frost"], &[1, 2]);
        assert_eq!(kept().beside(&frost, "synthetic"), kept().grids());
        assert_eq!(kept().beside(&grid(&["snow"], &[1]), "pictures"), kept().grids());
        let left = kept().beside(&frost, "pictures");
        assert_eq!(left, [grid(&["fog"], &[1, 2])]);
        assert_eq!(joined(left, frost), [grid(&["fog", "frost"], &[1, 2])]);
    }

    fn copies(made: &[&str]) -> Copies {
        let made: Vec<String> = made.iter().map(|&line| line.to_owned()).collect();
        Copies { name: "C".to_owned(), made: Made::of(&made).unwrap() }
    }

    #[test]
    fn copies_of_two_origins_are_not_kept_or_compared_together() {
        let [tiny, other] = ["profile = t", "profile = i"].map(|profile| copies(&[profile, "seed = 0"]));
        let frosted = copies(&["profile = t", "seed = 0", "frost_source = synthetic"]);
        let kept = |copies: &Copies| {
            let text = json!({
                "profile": "C", "split": "test", "weights": "", "made": copies.made, "frost_source": "stored",
                "grid": grid(&["fog"], &[1]),
            });
            serde_json::from_str::<Kept>(&text.to_string()).unwrap()
        };
        let shown = |copies: &Copies| CorruptionSuite {
            origin: Origin::Stored(copies.clone()),
            corruptions: vec![Corruption::Fog],
            severities: vec![Severity::ALL[0]],
            split: Split::Test,
        };
        let join = |old: &Copies, new: &Copies| together(Path::new("kept.json"), &kept(old), &shown(new));
        assert_eq!(join(&tiny, &tiny).unwrap(), tiny.made);
        assert_eq!(join(&tiny, &frosted).unwrap(), frosted.made);
        assert_eq!(join(&copies(&[]), &copies(&[])).unwrap(), None);
        for (old, new) in [(&tiny, &other), (&copies(&[]), &tiny), (&tiny, &copies(&[]))] {
            let told = join(old, new).unwrap_err().to_string();
            assert!(told.contains(&old.to_string()) && told.contains(&new.to_string()), "{told}");
            assert!(told.contains("rename the folder C"), "{told}");
        }
        let runs = |second: &Copies| [("a", &tiny), ("b", second)].map(|(run, of)| (run.into(), of.clone()));
        assert_eq!(of_one_origin(&runs(&frosted)), Ok(()));
        let told = of_one_origin(&runs(&other)).unwrap_err();
        assert!(told.starts_with("a was shown copies of profile t"), "{told}");
    }

    #[test]
    fn frost_of_two_sources_is_not_compared() {
        let seeds = |name: &str| [Seeds { name: "a".to_owned(), grids: vec![grid(&["fog", name], &[1])] }];
        let sources = |second: &str| {
            [("a", "synthetic"), ("b", second)].map(|(run, source)| (PathBuf::from(run), source.to_owned()))
        };
        let told = common_source(&seeds("frost"), &sources("pictures")).unwrap_err();
        assert!(told.starts_with("frost of a is synthetic, that of b pictures"), "{told}");
        assert_eq!(common_source(&seeds("snow"), &sources("pictures")), Ok(None));
        let same = common_source(&seeds("frost"), &sources("synthetic"));
        assert_eq!(same, Ok(Some("synthetic".to_owned())));
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
