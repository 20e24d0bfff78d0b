//! Shards on their way to disk, and those of sessions.

use super::{
    Content, DType, Field, IngestError, Job, PixelSums, Responses, Result, Session, SessionMeta, Share,
    Split, flush::Flusher, neuron_statistics, source::lengths_fingerprint, staging,
};
use crate::ingest::Trials;
use crate::shard::{Schema, Sealed, ShardInfo, ShardMeta, ShardWriter, block_rows};
use half::{bf16, f16};
use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;

/// How a shard is listed in the manifest.
pub(super) struct Listed {
    pub(super) file: String,
    pub(super) split: Option<Split>,
    pub(super) session: Option<String>,
    pub(super) rows: u64,
    /// Lengths of the raw files.
    pub(super) source: Vec<u64>,
}

/// A shard all of whose bytes were handed to the system.
pub(super) struct Written {
    out: File,
    flusher: Flusher,
    info: ShardInfo,
    sums: PixelSums,
    source: Vec<u64>,
}

impl Written {
    pub(super) fn new(
        writer: ShardWriter<File>,
        flusher: Flusher,
        listed: Listed,
        sums: PixelSums,
    ) -> Result<Self> {
        let Listed { file, split, session, rows, source } = listed;
        let (out, Sealed { bytes, checksum, blake3 }) = writer.finish()?;
        let info = ShardInfo { file, split, session, rows, bytes, checksum, blake3 };
        Ok(Self { out, flusher, info, sums, source })
    }

    /// Brings the shard to disk and records it in the journal at `root`.
    pub(super) fn close(self, root: &Path) -> Result<ShardInfo> {
        self.flusher.finish().map_err(IngestError::io(&root.join(&self.info.file), "flush"))?;
        staging::close(root, &self.out, self.info, self.sums, lengths_fingerprint(&self.source))
    }
}

impl Job<'_> {
    /// Begins a shard with the given fields.
    pub(super) fn shard(
        &self,
        file: &str,
        content: Content,
        split: Option<Split>,
        fields: Vec<Field>,
    ) -> Result<(ShardWriter<File>, Flusher)> {
        let rows = |field: &Field| block_rows(field.row_bytes().unwrap_or(1), self.blocks);
        let meta = ShardMeta {
            dataset: self.name.clone(),
            content,
            split,
            block_rows: fields.iter().map(rows).collect(),
            schema: Schema(fields),
        };
        let (path, out) = self.staging.create(file)?;
        let flusher = Flusher::new(&out).map_err(IngestError::io(&path, "write"))?;
        Ok((ShardWriter::new(out, &path, meta)?, flusher))
    }

    /// Refuses to make a shard that a part should have made.
    pub(super) fn must_make(&self, file: &str) -> Result<()> {
        if self.options.share != Share::Merge {
            return Ok(());
        }
        let what =
            format!("{file} is not there: a part of this data set is not done; run it, then --merge again");
        Err(IngestError::bad(self.staging.root(), what))
    }

    /// Writes the responses of one session, a shard a split. `trains` says which image ids from 1 on train and which
    /// validate; trials of others are left out, as the reference does. `rows` lists the ids of the stimuli in file
    /// order.
    pub(super) fn session_shards(
        &mut self,
        session: &Session,
        trains: &[bool],
        rows: &[u32],
        path: &Path,
    ) -> Result<()> {
        let side = |id: u32| trains.get(id as usize).copied().filter(|_| id > 0);
        let on = |trained: bool| select(&session.training, session.n_neurons, |id| side(id) == Some(trained));
        let (training, validation) = (on(true), on(false));
        if training.image_ids.is_empty() {
            return Err(IngestError::bad(
                path,
                "no image of this session is on the training side of the split",
            ));
        }
        let n = session.training.image_ids.iter().filter(|id| side(**id).is_none()).count();
        if n > 0 {
            let last = trains.len() - 1;
            let what = format!("{n} training trials left out: the split divides images 1 to {last}");
            self.notes.push(format!("session {}: {what}", session.id));
        }
        let (mean, variance) = neuron_statistics(&training.responses, session.n_neurons);
        let meta = SessionMeta {
            id: session.id.clone(),
            subject: session.subject.clone(),
            mean,
            variance,
            images: 0,
        };
        for (split, trials) in
            [(Split::Train, &training), (Split::Validation, &validation), (Split::Test, &session.testing)]
        {
            if trials.image_ids.is_empty() {
                self.notes.push(format!("session {}: no {split} trials", session.id));
                continue;
            }
            let images = trials.image_ids.iter().collect::<BTreeSet<_>>().len() as u32;
            self.trial_shard(&SessionMeta { images, ..meta.clone() }, split, trials, rows, path)?;
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
        let file = format!("session-{}-{split}.nct", meta.id);
        let source = vec![super::file_bytes(path)?];
        let made_of = lengths_fingerprint(&source);
        if self.staging.finished(&file, Some(split), Some(&meta.id), &made_of).is_some() {
            return Ok(());
        }
        self.must_make(&file)?;
        let mut fields = vec![
            Field::new("row", DType::U32, &[]),
            Field::new("id", DType::U32, &[]),
            Field::new("responses", dtype, &[meta.mean.len() as u32]),
        ];
        if trials.labels.is_some() {
            fields.push(Field::new("label", DType::U32, &[]));
        }
        let (mut writer, flusher) = self.shard(&file, Content::Session(meta.clone()), Some(split), fields)?;
        let row_of =
            |id: &u32| rows.binary_search(id).expect("the reader checked that every id has an image") as u32;
        let level = self.options.level;
        writer.append_column(0, &words(trials.image_ids.iter().map(row_of)), level)?;
        writer.append_column(1, &words(trials.image_ids.iter().copied()), level)?;
        writer.append_column(2, &responses, level)?;
        if let Some(labels) = &trials.labels {
            writer.append_column(3, &words(labels.iter().copied()), level)?;
        }
        let rows = trials.image_ids.len() as u64;
        let listed = Listed { file, split: Some(split), session: Some(meta.id.clone()), rows, source };
        let written = Written::new(writer, flusher, listed, PixelSums::default())?;
        self.staging.add(written.close(self.staging.root())?);
        Ok(())
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

pub(super) fn words(values: impl Iterator<Item = u32>) -> Vec<u8> {
    values.flat_map(u32::to_le_bytes).collect()
}
