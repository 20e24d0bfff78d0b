//! Accuracies under corruptions that are kept in runs, and what of them can be compared.

use crate::base::{Fingerprint, Split};
use crate::cli::exit::Usage;
use crate::cli::train::word;
use crate::corruption::{Corruption, Severity};
use crate::eval::figures::Seeds;
use crate::eval::robustness::Grid;
use crate::eval::{CorruptionSuite, Origin};
use crate::runs::{Run, write_atomic};
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::path::{Path, PathBuf};

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
    format!("nct eval {} --suite corruptions {flags}{split}", word(&run.to_string_lossy()))
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
