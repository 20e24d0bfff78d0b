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
pub use sessions::{NeuralSet, Session, TimeBins, Trials};
pub use torch_file::{TorchTensor, torch_tensors};
pub use verify::verify;

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

    /// The folder for its shards within `out`, or within that of its group.
    fn out(&self, out: &Path) -> PathBuf {
        self.group().map_or_else(|| out.to_path_buf(), |group| out.join(group))
    }
}

/// Finds every data set by its shape: `data` itself, or folders up to two levels below, in name order.
pub fn discover(data: &Path) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    let mut level = vec![data.to_path_buf()];
    for depth in 0..3 {
        let mut deeper: Vec<PathBuf> = Vec::new();
        for folder in level {
            if NeuralSet::looks_like(&folder) {
                found.push(Found::Neural(NeuralSet::open(&folder)?));
            } else if ImageSet::looks_like(&folder) {
                found.push(Found::Images(ImageSet::open(&folder)?));
            } else if let Some(cells) = ImageSet::corrupted(&folder)? {
                found.extend(cells.into_iter().map(Found::Images));
            } else if depth < 2 {
                let names = images::list(&folder)?;
                deeper.extend(names.into_iter().map(|name| folder.join(name)).filter(|path| path.is_dir()));
            }
        }
        level = deeper;
    }
    if found.is_empty() {
        let what = "holds no data set. Expected tiny-imagenet-200/ (train/<class>/images/*.JPEG, val/), a neural set \
                    such as mtl_monkey_dataset/ (neuronal_data/*.pickle, images/*.npy) or Tiny-ImageNet-C/ \
                    (<corruption>/<severity>/<class>/*.JPEG), here or up to two folders below";
        return Err(IngestError::bad(data, what));
    }
    let place = |set: &Found| (set.group().unwrap_or_default().to_owned(), set.name().to_owned());
    found.sort_by_cached_key(place);
    if let Some(pair) = found.windows(2).find(|pair| place(&pair[0]) == place(&pair[1])) {
        let what =
            format!("two data sets are called {}; prepare one of them by its own path", pair[0].name());
        return Err(IngestError::bad(data, what));
    }
    Ok(found)
}

fn folder_name(path: &Path) -> String {
    let full = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    full.file_name().map_or_else(|| "data".to_owned(), |name| name.to_string_lossy().into_owned())
}
