//! Decoding in parallel, writing in order.

use super::{
    Content, DType, Field, Fingerprint, IngestError, Item, Job, Part, PixelSums, Progress, Responses, Result,
    Session, SessionMeta, Share, Split, file_lengths, flush::Flusher, neuron_statistics, order::in_order,
    read_image, staging,
};
use crate::ingest::Trials;
use crate::shard::{PackedBlock, Schema, Sealed, ShardInfo, ShardMeta, ShardWriter, block_rows, pack};
use half::{bf16, f16};
use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use std::thread::ScopedJoinHandle;

/// Shards that may be on their way to disk beside the one that is made.
const CLOSING: usize = 3;

thread_local! {
    /// Decoded pixels of a block: memory that comes new from the system for each costs as much as the row filter.
    static RAW: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// How a shard is listed in the manifest.
struct Listed {
    file: String,
    split: Option<Split>,
    session: Option<String>,
    rows: u64,
    /// Lengths of the raw files.
    source: Vec<u64>,
}

/// A shard all of whose bytes were handed to the system.
struct Written {
    out: File,
    flusher: Flusher,
    info: ShardInfo,
    sums: PixelSums,
    source: Vec<u64>,
}

impl Written {
    fn new(
        writer: ShardWriter<BufWriter<File>>,
        flusher: Flusher,
        listed: Listed,
        sums: PixelSums,
    ) -> Result<Self> {
        let Listed { file, split, session, rows, source } = listed;
        let path = Path::new(&file);
        let (out, Sealed { bytes, checksum, blake3 }) = writer.finish()?;
        let out = out.into_inner().map_err(|e| IngestError::io(path, "write")(e.into_error()))?;
        let info = ShardInfo { file, split, session, rows, bytes, checksum, blake3 };
        Ok(Self { out, flusher, info, sums, source })
    }

    /// Brings the shard to disk and records it in the journal at `root`.
    fn close(self, root: &Path) -> Result<ShardInfo> {
        self.flusher.finish().map_err(IngestError::io(&root.join(&self.info.file), "flush"))?;
        staging::close(root, &self.out, self.info, self.sums, source_of(&self.source))
    }
}

/// A block of images, the sums of its pixels, and the lengths of the files.
type ImageBlock = (PackedBlock, PixelSums, Vec<u64>);

/// What a journal's record says of the raw files of a shard.
fn source_of(lengths: &[u64]) -> Fingerprint {
    let bytes: Vec<u8> = lengths.iter().flat_map(|n| n.to_le_bytes()).collect();
    Fingerprint::of(&bytes)
}

impl Job<'_> {
    /// Begins a shard with the given fields.
    fn shard(
        &self,
        file: &str,
        content: Content,
        split: Option<Split>,
        fields: Vec<Field>,
    ) -> Result<(ShardWriter<BufWriter<File>>, Flusher)> {
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
        Ok((ShardWriter::new(BufWriter::new(out), &path, meta)?, flusher))
    }

    /// Writes the images of each part as one or more shards; gives the sums of their pixels and the
    /// lengths of the files. While shards are brought to disk, the next is made.
    pub(super) fn image_shards(
        &mut self,
        parts: &[Part<'_>],
        content: &Content,
        shape: [u32; 3],
        dtype: DType,
    ) -> Result<Vec<(PixelSums, Vec<u64>)>> {
        let field = Field::new("image", dtype, &shape);
        let rows_per_block = block_rows(field.row_bytes().unwrap_or(1), self.blocks) as usize;
        let block_bytes = u64::from(field.row_bytes().unwrap_or(1)) * rows_per_block as u64;
        let blocks_per_shard = (self.options.shard_bytes / block_bytes).max(1) as usize;
        let root = self.staging.root().to_path_buf();
        let mut all = vec![(PixelSums::default(), Vec::new()); parts.len()];
        let mut shards = 0..;
        std::thread::scope(|scope| {
            let mut closing = VecDeque::new();
            for ((split, items), (sums, lengths)) in parts.iter().zip(&mut all) {
                let prefix = split.map_or("stimuli", Split::as_str);
                for (number, items) in items.chunks(rows_per_block * blocks_per_shard).enumerate() {
                    let file = format!("{prefix}-{number:05}.nct");
                    if !shards.next().is_some_and(|shard| self.options.share.has(shard)) {
                        continue;
                    }
                    if self.staging.recorded(&file) {
                        let found = file_lengths(&items.iter().map(|item| item.0).collect::<Vec<_>>())?;
                        if let Some(finished) = self.staging.finished(&file, &source_of(&found)) {
                            self.tell(items.len())?;
                            sums.add(&finished.sums);
                            lengths.extend(found);
                            continue;
                        }
                    }
                    self.must_make(&file)?;
                    let written = self.image_shard(file, items, content, *split, &field, rows_per_block)?;
                    sums.add(&written.sums);
                    lengths.extend_from_slice(&written.source);
                    let root = &root;
                    closing.push_back(scope.spawn(move || written.close(root)));
                    if closing.len() > CLOSING {
                        self.closed(closing.pop_front())?;
                    }
                }
            }
            closing.into_iter().try_for_each(|closing| self.closed(Some(closing)))
        })?;
        Ok(all)
    }

    /// Waits until a shard is closed.
    fn closed(&mut self, closing: Option<ScopedJoinHandle<'_, Result<ShardInfo>>>) -> Result<()> {
        let Some(closing) = closing else { return Ok(()) };
        self.staging.add(closing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        Ok(())
    }

    fn image_shard(
        &self,
        file: String,
        items: &[Item<'_>],
        content: &Content,
        split: Option<Split>,
        field: &Field,
        rows_per_block: usize,
    ) -> Result<Written> {
        let labelled = *content == Content::Images;
        let mut fields = vec![field.clone(), Field::new("id", DType::U32, &[])];
        if labelled {
            fields.push(Field::new("label", DType::U32, &[]));
        }
        let (mut writer, mut flusher) = self.shard(&file, content.clone(), split, fields)?;
        let (mut sums, mut source) = (PixelSums::default(), Vec::with_capacity(items.len()));
        let blocks: Vec<&[Item<'_>]> = items.chunks(rows_per_block).collect();
        let make = |i: usize| self.image_block(blocks[i], labelled, field);
        in_order(blocks.len(), make, |(block, block_sums, lengths): ImageBlock| {
            writer.append(0, &block)?;
            flusher.wrote(block.stored_bytes());
            sums.add(&block_sums);
            source.extend(lengths);
            Ok(())
        })?;
        writer.append_column(1, &words(items.iter().map(|item| item.1)), self.options.level)?;
        if labelled {
            writer.append_column(2, &words(items.iter().map(|item| item.2)), self.options.level)?;
        }
        let listed = Listed { file, split, session: None, rows: items.len() as u64, source };
        Written::new(writer, flusher, listed, sums)
    }

    fn image_block(&self, items: &[Item<'_>], labelled: bool, field: &Field) -> Result<ImageBlock> {
        RAW.with_borrow_mut(|raw| {
            raw.clear();
            self.image_block_in(raw, items, labelled, field)
        })
    }

    fn image_block_in(
        &self,
        raw: &mut Vec<u8>,
        items: &[Item<'_>],
        labelled: bool,
        field: &Field,
    ) -> Result<ImageBlock> {
        let form = self.options.form(labelled);
        let (mut sums, mut lengths) = (PixelSums::default(), Vec::with_capacity(items.len()));
        for &(path, _, _) in items {
            let at = raw.len();
            let found = read_image(path, form, raw)?;
            if found.shape[..] != field.shape.0 || found.dtype != field.dtype {
                let what = format!(
                    "{:?} of {}, and the images before are {:?} of {}",
                    found.shape, found.dtype, field.shape.0, field.dtype
                );
                let way_out = if labelled { "; `--resize 256` makes them one size" } else { "" };
                return Err(IngestError::bad(path, what + way_out));
            }
            sums.add(&PixelSums::of(&raw[at..], found.shape[0], found.dtype));
            lengths.push(found.file_bytes);
        }
        self.tell(items.len())?;
        Ok((pack(raw, field.raster(), self.options.level)?, sums, lengths))
    }

    /// Refuses to make a shard that a part should have made.
    fn must_make(&self, file: &str) -> Result<()> {
        if self.options.share != Share::Merge {
            return Ok(());
        }
        let what =
            format!("{file} is not there: a part of this data set is not done; run it, then --merge again");
        Err(IngestError::bad(self.staging.root(), what))
    }

    fn tell(&self, images: usize) -> Result<()> {
        let goes_on = (self.progress)(Progress::Images(images as u64));
        if goes_on { Ok(()) } else { Err(IngestError::Stopped) }
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
        if self.staging.finished(&file, &source_of(&source)).is_some() {
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

fn words(values: impl Iterator<Item = u32>) -> Vec<u8> {
    values.flat_map(u32::to_le_bytes).collect()
}
