//! Metadata of a shard. The only file that calls bincode, which is unmaintained: the layout that
//! gives access to the bytes does not depend on it.

use super::schema::Schema;
use crate::base::Split;
use bincode::Options;
use serde::{Deserialize, Serialize};

/// What the records of a shard are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Content {
    /// Labelled images of one split: fields `image`, `label`, `id`.
    Images,
    /// Images shown to neurons, each stored once: fields `image`, `id`.
    Stimuli,
    /// Responses of one recording session in one split: fields `row` (of the stimulus), `id`,
    /// `responses`, and `label` where the recording has labels.
    Session(SessionMeta),
}

/// A recording session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SessionMeta {
    /// Name of the session, the key of its readout.
    pub id: String,
    /// The animal.
    pub subject: String,
    /// Mean response of each neuron over the training trials.
    pub mean: Vec<f32>,
    /// Variance (n - 1) of each neuron over the training trials.
    pub variance: Vec<f32>,
    /// Different images among the trials of this shard: trials per image are the repeats.
    pub images: u32,
}

/// Everything about a shard that is not a record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShardMeta {
    /// Data set, named as its folder.
    pub dataset: String,
    /// What the records are.
    pub content: Content,
    /// Their split; stimuli belong to all.
    pub split: Option<Split>,
    /// Their fields.
    pub schema: Schema,
    /// Records per block, field by field; the last block may be shorter.
    pub block_rows: Vec<u32>,
}

/// Version of the metadata's layout, their first word.
const META_VERSION: u32 = 1;

fn options() -> impl Options {
    bincode::DefaultOptions::new()
        .with_fixint_encoding()
        .with_little_endian()
        .with_limit(super::layout::MAX_META_BYTES)
        .reject_trailing_bytes()
}

impl ShardMeta {
    /// The metadata's bytes.
    pub fn encode(&self) -> Result<Vec<u8>, String> {
        options().serialize(&(META_VERSION, self)).map_err(|e| e.to_string())
    }

    /// Reads metadata.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        match bytes.first_chunk().map(|word| u32::from_le_bytes(*word)) {
            Some(META_VERSION) => {}
            Some(other) => {
                return Err(format!("metadata of version {other}, and this program reads {META_VERSION}"));
            }
            None => return Err("no metadata".to_owned()),
        }
        options()
            .deserialize::<(u32, Self)>(bytes)
            .map(|(_, meta)| meta)
            .map_err(|e| format!("metadata: {e}"))
    }
}
