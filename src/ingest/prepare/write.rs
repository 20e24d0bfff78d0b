//! Decoding in parallel, writing in order.

use super::{
    Content, DType, Field, Fingerprint, IngestError, Item, Job, Manifest, PixelSums, Pixels, Progress,
    Responses, Result, Session, SessionMeta, Split, neuron_statistics, read_image,
};
use crate::ingest::Trials;
use crate::shard::{
    BlockOptions, MANIFEST, Mapped, PackedBlock, Schema, ShardInfo, ShardMeta, ShardWriter, block_rows, pack,
};
use half::{bf16, f16};
use rayon::prelude::*;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;
use tempfile::TempDir;

/// Decoded bytes of images per shard: small enough to copy and verify piecewise, large enough that
/// a big set has few files.
const SHARD_BYTES: u64 = 256 << 20;

/// The folder in which a data set grows, and what is in it so far.
pub(super) struct SetWriter {
    name: String,
    staging: TempDir,
    blocks: BlockOptions,
    shards: Vec<ShardInfo>,
}

impl SetWriter {
    /// Starts the data set `name` in a hidden folder within `out`.
    pub(super) fn new(out: &Path, name: &str, blocks: BlockOptions) -> Result<Self> {
        let staging = tempfile::Builder::new().prefix(".preparing-").tempdir_in(out);
        let staging = staging.map_err(IngestError::io(out, "create a folder in"))?;
        Ok(Self { name: name.to_owned(), staging, blocks, shards: Vec::new() })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Begins a shard with the given fields.
    fn shard(
        &self,
        file: &str,
        content: Content,
        split: Option<Split>,
        fields: Vec<Field>,
    ) -> Result<ShardWriter<BufWriter<File>>> {
        let path = self.staging.path().join(file);
        let rows = |field: &Field| block_rows(field.row_bytes().unwrap_or(1), self.blocks);
        let meta = ShardMeta {
            dataset: self.name.clone(),
            content,
            split,
            block_rows: fields.iter().map(rows).collect(),
            schema: Schema(fields),
        };
        let out = File::create(&path).map_err(IngestError::io(&path, "create"))?;
        Ok(ShardWriter::new(BufWriter::new(out), &path, meta)?)
    }

    /// Ends a shard: on disk, digested, listed.
    fn close(
        &mut self,
        file: String,
        writer: ShardWriter<BufWriter<File>>,
        split: Option<Split>,
        session: Option<String>,
        rows: u64,
    ) -> Result<()> {
        let path = self.staging.path().join(&file);
        let out =
            writer.finish()?.into_inner().map_err(|e| IngestError::io(&path, "write")(e.into_error()))?;
        out.sync_all().map_err(IngestError::io(&path, "flush"))?;
        let bytes = Mapped::open(&path).map_err(IngestError::io(&path, "read back"))?;
        let bytes = bytes.as_ref();
        let info = ShardInfo {
            file,
            split,
            session,
            rows,
            bytes: bytes.len() as u64,
            blake3: Fingerprint::of(bytes),
        };
        self.shards.push(info);
        Ok(())
    }

    /// Writes the manifest and renames the folder to `target`, replacing what is there.
    pub(super) fn finish(mut self, manifest: Manifest, target: &Path) -> Result<Manifest> {
        self.shards.sort_by(|a, b| a.file.cmp(&b.file));
        let manifest = Manifest { shards: self.shards, ..manifest };
        let path = self.staging.path().join(MANIFEST);
        let text = serde_json::to_string_pretty(&manifest).expect("a manifest has only plain values");
        let mut file = File::create(&path).map_err(IngestError::io(&path, "create"))?;
        file.write_all(text.as_bytes()).map_err(IngestError::io(&path, "write"))?;
        file.sync_all().map_err(IngestError::io(&path, "flush"))?;
        let staged = self.staging.keep();
        let parent = target.parent().unwrap_or(Path::new("."));
        let renamed = replace(&staged, target).and_then(|()| File::open(parent)?.sync_all());
        if renamed.is_err() {
            let _ = fs::remove_dir_all(&staged);
        }
        renamed.map_err(IngestError::io(target, "put the finished data set in place"))?;
        Ok(manifest)
    }
}

/// Renames `staged` to `target`; what was there goes only when the new folder stands.
fn replace(staged: &Path, target: &Path) -> std::io::Result<()> {
    if !target.exists() {
        return fs::rename(staged, target);
    }
    let old = staged.with_extension("replaced");
    fs::rename(target, &old)?;
    fs::rename(staged, target).inspect_err(|_| {
        let _ = fs::rename(&old, target);
    })?;
    fs::remove_dir_all(&old)
}

impl Job<'_> {
    /// Writes images as one or more shards; gives the sums of their pixels and the bytes read.
    pub(super) fn image_shards(
        &mut self,
        items: &[Item<'_>],
        content: &Content,
        split: Option<Split>,
        shape: [u32; 3],
        dtype: DType,
    ) -> Result<(PixelSums, u64)> {
        let labelled = *content == Content::Images;
        let row_bytes = shape.iter().map(|&n| u64::from(n)).product::<u64>() * dtype.size();
        let rows_per_block = block_rows(row_bytes as u32, self.writer.blocks) as usize;
        let blocks_per_shard = (SHARD_BYTES / (row_bytes * rows_per_block as u64)).max(1) as usize;
        let (mut sums, mut raw_bytes) = (PixelSums::default(), 0);
        let prefix = split.map_or("stimuli", Split::as_str);
        for (number, items) in items.chunks(rows_per_block * blocks_per_shard).enumerate() {
            let mut fields = vec![Field::new("image", dtype, &shape), Field::new("id", DType::U32, &[])];
            if labelled {
                fields.push(Field::new("label", DType::U32, &[]));
            }
            let file = format!("{prefix}-{number:05}.nct");
            let mut writer = self.writer.shard(&file, content.clone(), split, fields)?;
            // So many blocks at a time that every thread has work and little waits in memory.
            for group in items.chunks(rows_per_block * 4 * rayon::current_num_threads()) {
                let blocks: Vec<_> = group
                    .par_chunks(rows_per_block)
                    .map(|items| self.image_block(items, labelled, shape, dtype))
                    .collect();
                for block in blocks {
                    let (block, block_sums, bytes) = block?;
                    writer.append(0, &block)?;
                    sums.add(&block_sums);
                    raw_bytes += bytes;
                }
            }
            writer.append_column(1, &words(items.iter().map(|item| item.1)), self.options.level)?;
            if labelled {
                writer.append_column(2, &words(items.iter().map(|item| item.2)), self.options.level)?;
            }
            self.writer.close(file, writer, split, None, items.len() as u64)?;
        }
        Ok((sums, raw_bytes))
    }

    fn image_block(
        &self,
        items: &[Item<'_>],
        labelled: bool,
        shape: [u32; 3],
        dtype: DType,
    ) -> Result<(PackedBlock, PixelSums, u64)> {
        let (mut raw, mut sums, mut bytes) = (Vec::new(), PixelSums::default(), 0);
        for &(path, _, _) in items {
            let image = self.convert(read_image(path)?, labelled);
            let found = if matches!(image.pixels, Pixels::U8(_)) { DType::U8 } else { DType::F32 };
            if image.shape() != shape || found != dtype {
                let what =
                    format!("{:?} of {found}, and the images before are {shape:?} of {dtype}", image.shape());
                return Err(IngestError::bad(path, what));
            }
            sums.add(&PixelSums::of(&image));
            match image.pixels {
                Pixels::U8(pixels) => raw.extend_from_slice(&pixels),
                Pixels::F32(pixels) => pixels.iter().for_each(|v| raw.extend_from_slice(&v.to_le_bytes())),
            }
            bytes += super::file_bytes(path)?;
        }
        if !(self.progress)(Progress::Images(items.len() as u64)) {
            return Err(IngestError::Stopped);
        }
        Ok((pack(&raw, self.options.level)?, sums, bytes))
    }

    /// Writes the responses of one session, a shard a split. `trains` says which image ids train, and
    /// `rows` lists the ids of the stimuli in file order.
    pub(super) fn session_shards(
        &mut self,
        session: &Session,
        trains: &[bool],
        rows: &[u32],
        path: &Path,
    ) -> Result<()> {
        let side = |id: u32| trains.get(id as usize).copied().unwrap_or(false);
        let training = select(&session.training, session.n_neurons, side);
        let validation = select(&session.training, session.n_neurons, |id| !side(id));
        if training.image_ids.is_empty() {
            return Err(IngestError::bad(
                path,
                "no image of this session is on the training side of the split",
            ));
        }
        let (mean, variance) = neuron_statistics(&training.responses, session.n_neurons);
        let meta = SessionMeta { id: session.id.clone(), subject: session.subject.clone(), mean, variance };
        for (split, trials) in
            [(Split::Train, &training), (Split::Validation, &validation), (Split::Test, &session.testing)]
        {
            if trials.image_ids.is_empty() {
                self.notes.push(format!("session {}: no {split} trials", session.id));
                continue;
            }
            self.trial_shard(&meta, split, trials, rows, path)?;
        }
        Ok(())
    }

    fn trial_shard(
        &mut self,
        meta: &SessionMeta,
        split: Split,
        trials: &Trials,
        rows: &[u32],
        path: &Path,
    ) -> Result<()> {
        let (dtype, responses) = self.encode_responses(&trials.responses, path)?;
        let mut fields = vec![
            Field::new("row", DType::U32, &[]),
            Field::new("id", DType::U32, &[]),
            Field::new("responses", dtype, &[meta.mean.len() as u32]),
        ];
        if trials.labels.is_some() {
            fields.push(Field::new("label", DType::U32, &[]));
        }
        let file = format!("session-{}-{split}.nct", meta.id);
        let mut writer = self.writer.shard(&file, Content::Session(meta.clone()), Some(split), fields)?;
        let row_of =
            |id: &u32| rows.binary_search(id).expect("the reader checked that every id has an image") as u32;
        let level = self.options.level;
        writer.append_column(0, &words(trials.image_ids.iter().map(row_of)), level)?;
        writer.append_column(1, &words(trials.image_ids.iter().copied()), level)?;
        writer.append_column(2, &responses, level)?;
        if let Some(labels) = &trials.labels {
            writer.append_column(3, &words(labels.iter().copied()), level)?;
        }
        self.writer.close(file, writer, Some(split), Some(meta.id.clone()), trials.image_ids.len() as u64)
    }

    /// Responses in their stored form. A value beyond the type's range is an error; the loss of
    /// precision is stated.
    fn encode_responses(&mut self, responses: &[f32], path: &Path) -> Result<(DType, Vec<u8>)> {
        let (dtype, rounded): (DType, Vec<f32>) = match self.options.responses {
            Responses::F32 => {
                return Ok((DType::F32, responses.iter().flat_map(|r| r.to_le_bytes()).collect()));
            }
            Responses::F16 => (DType::F16, responses.iter().map(|&r| f16::from_f32(r).to_f32()).collect()),
            Responses::Bf16 => (DType::Bf16, responses.iter().map(|&r| bf16::from_f32(r).to_f32()).collect()),
        };
        if let Some(at) = rounded.iter().position(|r| !r.is_finite()) {
            let what =
                format!("response {} is beyond the range of {dtype}; use --responses f32", responses[at]);
            return Err(IngestError::bad(path, what));
        }
        let loss = responses.iter().zip(&rounded).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        self.notes.push(format!("{name}: responses rounded to {dtype}, by at most {loss:.2e}"));
        let bytes = match dtype {
            DType::F16 => rounded.iter().flat_map(|&r| f16::from_f32(r).to_le_bytes()).collect(),
            _ => rounded.iter().flat_map(|&r| bf16::from_f32(r).to_le_bytes()).collect(),
        };
        Ok((dtype, bytes))
    }
}

/// The trials whose image is wanted, in order.
fn select(trials: &Trials, n_neurons: usize, wanted: impl Fn(u32) -> bool) -> Trials {
    let mut out = Trials { labels: trials.labels.as_ref().map(|_| Vec::new()), ..Trials::default() };
    for (i, &id) in trials.image_ids.iter().enumerate().filter(|(_, id)| wanted(**id)) {
        out.image_ids.push(id);
        out.responses.extend_from_slice(&trials.responses[i * n_neurons..][..n_neurons]);
        if let (Some(labels), Some(all)) = (&mut out.labels, &trials.labels) {
            labels.push(all[i]);
        }
    }
    out
}

fn words(values: impl Iterator<Item = u32>) -> Vec<u8> {
    values.flat_map(u32::to_le_bytes).collect()
}
