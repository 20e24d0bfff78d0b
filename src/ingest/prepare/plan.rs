//! What `prepare` would do, without writing anything.

use super::{
    Found, ImageSet, IngestError, NeuralSet, PrepareOptions, Result, already_there, choose, read_alike,
    read_image, settings, staging,
};
use crate::base::DType;
use crate::shard::{Field, block_rows, pack};
use rayon::prelude::*;
use std::fs;
use std::path::{Path, PathBuf};

/// Images that are decoded to see how well a data set compresses.
const TRIED_IMAGES: usize = 1024;

/// What would become of one data set.
#[derive(Debug, Clone)]
pub struct Planned {
    /// Of a set that is one of many: the name of all.
    pub group: Option<String>,
    /// Its name.
    pub dataset: String,
    /// What would be done.
    pub action: Action,
    /// Image files to decode.
    pub images: u64,
    /// Session files to read.
    pub sessions: u64,
    /// Bytes of the image and session files.
    pub raw_bytes: u64,
    /// Bytes of the shards, estimated from up to a thousand images and all sessions.
    pub shard_bytes: u64,
    /// What a user should know.
    pub notes: Vec<String>,
}

/// What would be done with a data set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// It is made.
    Make,
    /// One that was stopped or killed is continued.
    Continue,
    /// It is replaced.
    Replace,
    /// It is there already, from the same files and settings.
    Nothing,
    /// It is refused, for this reason.
    Refuse(String),
}

/// Says what [`super::prepare`] would do with the data sets under `data`. Writes nothing.
pub fn plan(data: &Path, options: &PrepareOptions) -> Result<Vec<Planned>> {
    let found = choose(data, options)?;
    found.iter().map(|set| plan_one(set, options)).collect()
}

fn plan_one(set: &Found, options: &PrepareOptions) -> Result<Planned> {
    let out = set.out(&options.out);
    let target = out.join(set.name());
    let action = match (target.exists(), options.force) {
        (true, true) => Action::Replace,
        (true, false) => match already_there(&target, &settings(set, options)?) {
            Ok(_) => Action::Nothing,
            Err(e) => Action::Refuse(e.to_string()),
        },
        (false, _) if staging::place(&out, set.name()).exists() => Action::Continue,
        (false, _) => Action::Make,
    };
    let (files, sessions) = match set {
        Found::Images(ImageSet { train, test, .. }) => {
            (train.iter().chain(test).map(|(path, _)| path.as_path()).collect(), &[][..])
        }
        Found::Neural(NeuralSet { images, sessions, .. }) => {
            (images.values().map(PathBuf::as_path).collect::<Vec<&Path>>(), &sessions[..])
        }
    };
    let paths: Vec<&Path> = files.iter().copied().chain(sessions.iter().map(PathBuf::as_path)).collect();
    let bytes = |path: &&Path| fs::metadata(path).map(|m| m.len()).map_err(IngestError::io(path, "read"));
    let raw_bytes: u64 = paths.par_iter().map(bytes).sum::<Result<u64>>()?;
    let mut shard_bytes = image_bytes(&files, matches!(set, Found::Images(_)), options)?;
    if let Found::Neural(set) = set {
        shard_bytes += sessions.iter().map(|path| session_bytes(set, path, options)).sum::<Result<u64>>()?;
    }
    let (images, sessions) = (files.len() as u64, sessions.len() as u64);
    let group = set.group().map(str::to_owned);
    let (dataset, notes) = (set.name().to_owned(), set.notes().to_vec());
    Ok(Planned { group, dataset, action, images, sessions, raw_bytes, shard_bytes, notes })
}

/// Bytes that the images take, from evenly spread ones.
fn image_bytes(files: &[&Path], labelled: bool, options: &PrepareOptions) -> Result<u64> {
    let step = files.len().div_ceil(TRIED_IMAGES).max(1);
    let tried: Vec<&Path> = files.iter().copied().step_by(step).collect();
    let Some(first) = tried.first() else { return Ok(0) };
    let form = options.form(labelled);
    let first = read_image(first, form, &mut Vec::new())?;
    let field = Field::new("image", first.dtype, &first.shape);
    let rows = block_rows(field.row_bytes().unwrap_or(1), options.blocks()) as usize;
    let stored = |files: &[&Path]| -> Result<u64> {
        let mut raw = Vec::new();
        for path in files {
            read_alike(path, form, &field, &mut raw)?;
        }
        Ok(pack(&raw, field.raster(), options.level)?.stored_bytes() as u64)
    };
    // The error told is the first by place, whatever the threads.
    let stored: Vec<Result<u64>> = tried.par_chunks(rows).map(stored).collect();
    let stored: u64 = stored.into_iter().sum::<Result<u64>>()?;
    Ok(stored * files.len() as u64 / tried.len() as u64)
}

fn session_bytes(set: &NeuralSet, path: &Path, options: &PrepareOptions) -> Result<u64> {
    let session = set.read(path, &options.bins)?;
    let values = session.training.responses.iter().chain(&session.testing.responses);
    let raw: Vec<u8> = values.flat_map(|v| v.to_le_bytes()).collect();
    let half = options.responses != super::Responses::F32;
    let field = Field::new("responses", DType::F32, &[session.n_neurons as u32]);
    let row_bytes = field.row_bytes().unwrap_or(1);
    let blocks = raw.chunks(row_bytes as usize * block_rows(row_bytes, options.blocks()) as usize);
    let stored = blocks.map(|raw| Ok(pack(raw, field.raster(), options.level)?.stored_bytes() as u64));
    Ok(stored.sum::<Result<u64>>()? / if half { 2 } else { 1 })
}
