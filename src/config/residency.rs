//! Which training images go to the device.

use super::assemble::READ_ONCE_BYTES;
use super::{Data, DataError};
use crate::base::{DType, Split};
use crate::load::{Budget, PixelType, View};
use crate::shard::Dataset;

/// A data set of training: bytes of what is seen of its images, or what keeps it on the host.
pub type Stay<'a> = (&'a Dataset, Result<u64, &'static str>);

impl<'a> Data<'a> {
    /// What the device would have to hold to make the batches of training.
    pub fn residency(&self) -> Result<Vec<Stay<'a>>, DataError> {
        let stay = |(_, dataset, view): (_, &'a Dataset, View)| {
            (dataset, keeps_on_host(dataset, &view).map_or_else(|| Ok(bytes(dataset, &view)), Err))
        };
        Ok(self.views(Split::Train)?.into_iter().map(stay).collect())
    }

    /// With batches of training made on the device, as far as it can make them.
    pub fn on_device(mut self) -> Self {
        self.on_device = true;
        self
    }
}

/// Lets the device make the batches, if it can. Images are read once then.
pub(super) fn hand_over(dataset: &Dataset, view: &mut View) {
    if keeps_on_host(dataset, view).is_none() {
        (view.pixels, view.budget) = (PixelType::Moves, Budget::new(READ_ONCE_BYTES));
    }
}

fn keeps_on_host(dataset: &Dataset, view: &View) -> Option<&'static str> {
    if dataset.manifest().pixels != DType::U8 {
        return Some("its images are no bytes");
    }
    view.keeps_from_device(dataset.manifest().image)
}

/// Of all images that are read; sessions share those of their set.
fn bytes(dataset: &Dataset, view: &View) -> u64 {
    let manifest = dataset.manifest();
    let image = view.extent(manifest.image).iter().fold(1_u64, |n, &side| n.saturating_mul(u64::from(side)));
    let rows = if manifest.sessions.is_empty() {
        manifest.rows(Split::Train, None)
    } else {
        manifest.shards.iter().filter(|shard| shard.split.is_none()).map(|shard| shard.rows).sum()
    };
    image.saturating_mul(rows)
}
