//! Readers of the raw inputs, and the step from raw folders to shards. Only `prepare`, `corrupt` and `fetch`
//! write shards.
//!
//! Absent: tensors, training. Nothing here changes the user's files.

mod corrupt;
mod error;
mod fetch;
mod fit;
pub mod image;
mod images;
pub mod pickle;
mod prepare;
pub mod raw;
mod sessions;
pub mod split;
mod stats;
pub mod synth;
mod torch_file;
mod verify;

pub use corrupt::{Cell, CorruptOptions, Layout, corrupt};
pub use error::{IngestError, Result};
pub use fetch::fetch;
pub use fit::{Cut, Resize};
pub use images::{Class, ImageSet};
pub use prepare::{
    Action, Color, OnProgress, Planned, PrepareOptions, Prepared, Progress, Responses, Share, decode_all,
    plan, prepare,
};
pub use sessions::{Bins, NeuralSet, Session, TimeBins, Trials};
pub use torch_file::{TorchTensor, torch_tensors};
pub use verify::{Unverified, Verified, verify};

use crate::corruption::{Corruption, Severity};
use std::path::{Path, PathBuf};

/// A raw data set.
#[derive(Debug, Clone)]
pub enum Found {
    /// Labelled images.
    Images(ImageSet),
    /// Images with recorded responses.
    Neural(NeuralSet),
}

impl Found {
    /// Name of the data set: its folder's.
    pub fn name(&self) -> &str {
        match self {
            Self::Images(set) => &set.name,
            Self::Neural(set) => &set.name,
        }
    }

    /// Of a set that is one of many, such as one corruption and severity: the name of all.
    pub fn group(&self) -> Option<&str> {
        match self {
            Self::Images(set) => set.group.as_deref(),
            Self::Neural(_) => None,
        }
    }

    /// What a user should know before it is read.
    fn notes(&self) -> &[String] {
        match self {
            Self::Images(_) => &[],
            Self::Neural(set) => &set.notes,
        }
    }

    /// The folder for its shards within `out`, or within that of its group.
    fn out(&self, out: &Path) -> PathBuf {
        self.group().map_or_else(|| out.to_path_buf(), |group| out.join(group))
    }
}

/// A data set that was found and not yet opened.
struct Site {
    folder: PathBuf,
    kind: Kind,
    /// Its name and, of corrupted copies, that of all it is one of.
    name: String,
    group: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Neural,
    Images,
}

impl Site {
    fn of(folder: &Path, kind: Kind) -> Self {
        Self { folder: folder.to_path_buf(), kind, name: folder_name(folder), group: None }
    }

    fn is_called(&self, name: &str) -> bool {
        self.name == name || self.group.as_deref() == Some(name)
    }

    fn open(&self) -> Result<Found> {
        let images = match (self.kind, &self.group) {
            (Kind::Neural, _) => return NeuralSet::open(&self.folder).map(Found::Neural),
            (Kind::Images, None) => ImageSet::open(&self.folder),
            (Kind::Images, Some(group)) => ImageSet::corrupted(&self.folder, &self.name, group),
        };
        images.map(Found::Images)
    }

    fn place(&self) -> (&str, &str) {
        (self.group.as_deref().unwrap_or_default(), &self.name)
    }
}

/// Finds data sets by their shape: `data` itself, or folders up to two levels below, in name order. Opens those that are
/// called one of `only`, or all if it is empty: another one that is damaged is not in the way.
pub fn discover(data: &Path, only: &[String]) -> Result<Vec<Found>> {
    let sites = sites(data)?;
    if let Some(missing) = only.iter().find(|name| !sites.iter().any(|site| site.is_called(name))) {
        let mut names: Vec<&str> =
            sites.iter().map(|site| site.group.as_deref().unwrap_or(&site.name)).collect();
        names.dedup();
        return Err(IngestError::bad(data, format!("no data set {missing}; here are: {}", names.join(", "))));
    }
    let wanted = |site: &&Site| only.is_empty() || only.iter().any(|name| site.is_called(name));
    let wanted: Vec<&Site> = sites.iter().filter(wanted).collect();
    if let Some(pair) = wanted.windows(2).find(|pair| pair[0].place() == pair[1].place()) {
        let what = format!("two data sets are called {}; prepare one of them by its own path", pair[0].name);
        return Err(IngestError::bad(data, what));
    }
    wanted.into_iter().map(Site::open).collect()
}

/// The corruptions and severities that have a folder in one that holds these names.
fn cells(folder: &Path, names: &[String]) -> Vec<Site> {
    let named = names.iter().filter_map(|name| Some((folder.join(name), name.parse::<Corruption>().ok()?)));
    let cell = |(path, corruption): (PathBuf, Corruption)| {
        let place = path.clone();
        let has = move |severity: &Severity| place.join(severity.to_string()).is_dir();
        Severity::ALL.into_iter().filter(has).map(move |severity| Site {
            name: format!("{corruption}-{severity}"),
            group: Some(folder_name(folder)),
            ..Site::of(&path.join(severity.to_string()), Kind::Images)
        })
    };
    named.flat_map(cell).collect()
}

/// All data sets under `data`, in the order of their groups and names.
fn sites(data: &Path) -> Result<Vec<Site>> {
    let mut found = Vec::new();
    let mut level = vec![data.to_path_buf()];
    for depth in 0..3 {
        let mut deeper: Vec<PathBuf> = Vec::new();
        for folder in level {
            if NeuralSet::looks_like(&folder) {
                found.push(Site::of(&folder, Kind::Neural));
            } else if ImageSet::looks_like(&folder) {
                found.push(Site::of(&folder, Kind::Images));
            } else {
                let names = images::list(&folder)?;
                let cells = cells(&folder, &names);
                if cells.is_empty() && depth < 2 {
                    deeper
                        .extend(names.into_iter().map(|name| folder.join(name)).filter(|path| path.is_dir()));
                }
                found.extend(cells);
            }
        }
        level = deeper;
    }
    if found.is_empty() {
        let what = "holds no data set. Expected tiny-imagenet-200/ (train/<class>/images/*.JPEG, val/), a neural set \
                    such as mtl_monkey_dataset/ (neuronal_data/*.pickle, images/*.npy or *.png) or \
                    Tiny-ImageNet-C/ (<corruption>/<severity>/<class>/*.JPEG), here or up to two folders below; \
                    `nct help data` describes them";
        return Err(IngestError::bad(data, what));
    }
    found.sort_by(|a, b| a.place().cmp(&b.place()));
    Ok(found)
}

fn folder_name(path: &Path) -> String {
    let full = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    full.file_name().map_or_else(|| "data".to_owned(), |name| name.to_string_lossy().into_owned())
}
