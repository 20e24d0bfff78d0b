//! What the index takes from the accuracies under corruptions that `nct eval` keeps in a run: means, in percent.
//!
//! A file may have been written by another version, so of each only what is needed is looked at, and one that does not
//! have that is passed over. What was found of other weights than the run has now is passed over too.

use super::read::{JUST_NOW, Value, changed};
use crate::base::Fingerprint;
use crate::runs::{Run, now_seconds};
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The folder of a run that they lie in.
pub(super) const ROBUSTNESS: &str = "robustness";

/// The corruptions of the paper by group, and those that are in no mean over all. `corruption` has them too, which this
/// layer does not know; a test compares (`tests/runs.rs`).
const GROUPS: [(&str, &[&str]); 5] = [
    ("noise", &["gaussian_noise", "shot_noise", "impulse_noise"]),
    ("blur", &["defocus_blur", "glass_blur", "motion_blur", "zoom_blur"]),
    ("weather", &["snow", FROST, "fog", "brightness"]),
    ("digital", &["contrast", "elastic_transform", "pixelate", "jpeg_compression"]),
    (EXTRA, &["speckle_noise", "gaussian_blur", "spatter", "saturate"]),
];
const FROST: &str = "frost";
const EXTRA: &str = "extra";

/// The digest of a run's weights, which are large: they are not read again before their file changes.
#[derive(Debug, Clone)]
pub(super) struct Weights {
    /// Their file: its name, length and time.
    pub(super) file: String,
    pub(super) digest: String,
}

impl Weights {
    /// Of a run, those that are `known` if they are of the same file.
    fn of(run: &Run, known: Option<&Self>) -> Option<Self> {
        let path = run.checkpoint(run.final_weights());
        let now = (now_seconds() * 1e9) as i64;
        let about = fs::metadata(&path).ok()?;
        let at = changed(&about)?;
        let name = path.file_name()?.to_string_lossy();
        let file = format!("{name} {} {at}", about.len());
        // Another change would not be told from this one yet.
        let fresh = (now - at).abs() < JUST_NOW;
        if let Some(known) = known.filter(|known| known.file == file && !fresh) {
            return Some(known.clone());
        }
        let digest = Fingerprint::of_large(&fs::read(&path).ok()?).to_string();
        Some(Self { file, digest })
    }
}

/// Means of one set of images, in percent.
type Means = BTreeMap<String, Value>;

/// Adds the means under corruptions as `corruptions.<profile or stored set>.<mean>`; gives the digest of the weights
/// where there are any.
pub(super) fn corruptions(
    run: &Run,
    known: Option<&Weights>,
    found: &mut Vec<(String, bool, Value)>,
) -> Option<Weights> {
    let grids: Vec<Json> = files(&run.root().join(ROBUSTNESS)).iter().filter_map(|path| read(path)).collect();
    if grids.is_empty() {
        return None;
    }
    let weights = Weights::of(run, known)?;
    for kept in grids.iter().filter(|kept| kept["weights"] == weights.digest) {
        if let (Some(set), Some(means)) = (set(kept), means(kept)) {
            found.extend(
                means.into_iter().map(|(key, mean)| (format!("corruptions.{set}.{key}"), false, mean)),
            );
        }
    }
    Some(weights)
}

/// Sorted, so that nothing hangs on the order in which a disk names them.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == "json"))
        .collect();
    files.sort_unstable();
    files
}

fn read(path: &Path) -> Option<Json> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// The set of images, with what is not usual of it: `i`, `t-validation`, `i-seed7`, `Tiny-ImageNet-C`.
fn set(kept: &Json) -> Option<String> {
    let split = kept["split"].as_str().filter(|split| *split != "test");
    let seed = kept["seed"].as_u64().filter(|seed| *seed != 0);
    let split = split.map_or_else(String::new, |split| format!("-{split}"));
    let seed = seed.map_or_else(String::new, |seed| format!("-seed{seed}"));
    Some(format!("{}{split}{seed}", kept["profile"].as_str()?))
}

fn means(kept: &Json) -> Option<Means> {
    let grid = &kept["grid"];
    let n = grid["severities"].as_array()?.len();
    // Name, group and mean over severities.
    let mut rows: Vec<(&str, &str, f64)> = Vec::new();
    for (name, row) in grid["cells"].as_object()? {
        let row: Vec<f64> = row.as_array()?.iter().map(Json::as_f64).collect::<Option<_>>()?;
        if row.is_empty() || row.len() != n {
            return None;
        }
        let group = GROUPS.iter().find(|(_, names)| names.contains(&name.as_str()));
        rows.extend(
            group.map(|(group, _)| (name.as_str(), *group, 100.0 * row.iter().sum::<f64>() / n as f64)),
        );
    }
    let mean_over = |wanted: &dyn Fn(&str, &str) -> bool| -> Option<Value> {
        let means = rows.iter().filter(|(name, group, _)| wanted(name, group)).map(|(.., mean)| *mean);
        let means: Vec<f64> = means.collect();
        (!means.is_empty()).then(|| Value::of_number(means.iter().sum::<f64>() / means.len() as f64))
    };
    let mut means = Means::new();
    let mut add = |key: &str, mean: Option<Value>| means.extend(mean.map(|mean| (key.to_owned(), mean)));
    add("clean", grid["clean"].as_f64().map(|clean| Value::of_number(100.0 * clean)));
    add("mean_accuracy", mean_over(&|_, group| group != EXTRA));
    add("mean_accuracy_without_frost", mean_over(&|name, group| group != EXTRA && name != FROST));
    for (group, _) in GROUPS {
        add(group, mean_over(&|_, own| own == group));
    }
    // Means over other cells, and with other frost, do not compare.
    let cells = n * rows.iter().filter(|(_, group, _)| *group != EXTRA).count();
    add("cells", Some(Value::Number(cells as f64, cells.to_string())));
    let frosted = rows.iter().any(|(name, ..)| *name == FROST);
    let source = kept["frost_source"].as_str().filter(|_| frosted);
    add("frost_source", source.map(|source| Value::Text(source.to_owned())));
    Some(means)
}
