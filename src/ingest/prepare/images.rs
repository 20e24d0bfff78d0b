//! Shards of images: decoded on all threads, written in order.
//!
//! The blocks of all shards are one line, so that no thread waits while a shard is ended and the next is begun.

use super::{
    Content, DType, Field, IngestError, Item, Job, Part, PixelSums, Progress, Result, Split, file_lengths,
    flush::Flusher,
    order::in_order,
    read_alike, read_image,
    source::lengths_fingerprint,
    write::{Listed, Written, words},
};
use crate::shard::{PackedBlock, ShardInfo, ShardWriter, block_rows, pack};
use rayon::prelude::*;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{Scope, ScopedJoinHandle};

/// Bad images that are named beside the first.
const NAMED: usize = 10;

/// Shards that may be on their way to disk beside the one that is made.
const CLOSING: usize = 3;

thread_local! {
    /// Decoded pixels of a block: memory that comes new from the system for each would have to be cleared.
    static RAW: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Sums of the pixels of images, and the lengths of their files.
pub(super) type Seen = (PixelSums, Vec<u64>);

/// A block of images, and what was seen of it.
type ImageBlock = (PackedBlock, Seen);

/// How images are stored.
struct Stored<'a> {
    content: &'a Content,
    image: Field,
    rows_per_block: usize,
}

impl Stored<'_> {
    /// Whether the images have labels.
    fn labelled(&self) -> bool {
        *self.content == Content::Images
    }
}

/// A shard that is to be made.
struct ImageShard<'a> {
    file: String,
    split: Option<Split>,
    items: &'a [Item<'a>],
}

impl Job<'_> {
    /// Writes the images of each part as one or more shards. While the last are brought to disk, `meanwhile` gets what
    /// was seen of each part; what it gives is given.
    pub(super) fn image_shards<T>(
        &mut self,
        parts: &[Part<'_>],
        content: &Content,
        shape: [u32; 3],
        dtype: DType,
        meanwhile: impl FnOnce(&[Seen]) -> T,
    ) -> Result<T> {
        let image = Field::new("image", dtype, &shape);
        let rows_per_block = block_rows(image.row_bytes().unwrap_or(1), self.blocks) as usize;
        let block_bytes = u64::from(image.row_bytes().unwrap_or(1)) * rows_per_block as u64;
        let blocks_per_shard = (self.options.shard_bytes / block_bytes).max(1) as usize;
        let stored = Stored { content, image, rows_per_block };
        // A shard with its part and, if it was there, what was seen of it.
        let mut shards = Vec::new();
        for (part, (split, items)) in parts.iter().enumerate() {
            let prefix = split.map_or("stimuli", Split::as_str);
            for (number, items) in items.chunks(rows_per_block * blocks_per_shard).enumerate() {
                let shard = ImageShard { file: format!("{prefix}-{number:05}.nct"), split: *split, items };
                shards.push((part, shard));
            }
        }
        let share = self.options.share;
        let mine = shards.into_iter().enumerate().filter(|(i, _)| share.has(*i)).map(|(_, shard)| shard);
        let (mut found, mut missing) = (Vec::new(), Vec::new());
        for (part, shard) in mine {
            let seen = self.found(&shard)?;
            if seen.is_none() {
                self.must_make(&shard.file)?;
                missing.push(shard);
            }
            found.push((part, seen));
        }
        let (given, closed) = self.make_shards(&missing, &stored, |made| {
            let mut all = vec![Seen::default(); parts.len()];
            let mut made = made.into_iter();
            for (part, seen) in found {
                let (sums, lengths) =
                    seen.or_else(|| made.next()).expect("a shard that was not there was made");
                all[part].0.add(&sums);
                all[part].1.extend(lengths);
            }
            meanwhile(&all)
        })?;
        for shard in closed {
            self.staging.add(shard);
        }
        Ok(given)
    }

    /// What was seen of a shard that an earlier `prepare` made.
    fn found(&mut self, shard: &ImageShard<'_>) -> Result<Option<Seen>> {
        if !self.staging.recorded(&shard.file) {
            return Ok(None);
        }
        let lengths = file_lengths(&shard.items.iter().map(|item| item.0).collect::<Vec<_>>())?;
        let source = lengths_fingerprint(&lengths);
        let Some(finished) = self.staging.finished(&shard.file, shard.split, None, &source) else {
            return Ok(None);
        };
        self.tell(shard.items.len())?;
        Ok(Some((finished.sums, lengths)))
    }

    /// Makes shards; gives what `meanwhile` makes of what was seen of each, and how they are listed.
    fn make_shards<T>(
        &self,
        shards: &[ImageShard<'_>],
        stored: &Stored<'_>,
        meanwhile: impl FnOnce(Vec<Seen>) -> T,
    ) -> Result<(T, Vec<ShardInfo>)> {
        let blocks: Vec<&[Item<'_>]> =
            shards.iter().flat_map(|shard| shard.items.chunks(stored.rows_per_block)).collect();
        std::thread::scope(|scope| {
            let mut line = Line::new(self, shards, stored, scope);
            let made =
                in_order(blocks.len(), |i| self.image_block(blocks[i], stored), |block| line.take(block));
            made.map_err(|first| self.with_later(first, shards, stored))?;
            let given = meanwhile(std::mem::take(&mut line.seen));
            Ok((given, line.closed()?))
        })
    }

    /// The error of the first image that cannot be read with those of the ones after it, so that one run names all that
    /// must be mended. Images of another size want an option, not mending.
    fn with_later(&self, first: IngestError, shards: &[ImageShard<'_>], stored: &Stored<'_>) -> IngestError {
        let IngestError::Bad { path: bad, .. } = &first else { return first };
        let form = self.options.form(stored.labelled());
        let fault = |path: &Path| {
            RAW.with_borrow_mut(|raw| {
                raw.clear();
                read_image(path, form, raw).err()
            })
        };
        let items = shards.iter().flat_map(|shard| shard.items).map(|item| item.0);
        let mut from_it = items.skip_while(|path| *path != bad.as_path());
        if from_it.next().and_then(fault).is_none() {
            return first;
        }
        let later: Vec<&Path> = from_it.collect();
        let found = AtomicUsize::new(0);
        let others = later.par_iter().filter_map(|path| {
            // Of more than are named, or of a user who will not wait, the rest is not looked at.
            if found.load(Ordering::Relaxed) > NAMED || self.tell(1).is_err() {
                return None;
            }
            let fault = fault(path);
            found.fetch_add(fault.is_some().into(), Ordering::Relaxed);
            fault
        });
        let others: Vec<IngestError> = others.collect();
        IngestError::with_others(first, &others, NAMED)
    }

    fn image_block(&self, items: &[Item<'_>], stored: &Stored<'_>) -> Result<ImageBlock> {
        RAW.with_borrow_mut(|raw| {
            raw.clear();
            self.image_block_in(raw, items, stored)
        })
    }

    fn image_block_in(
        &self,
        raw: &mut Vec<u8>,
        items: &[Item<'_>],
        stored: &Stored<'_>,
    ) -> Result<ImageBlock> {
        let (form, image) = (self.options.form(stored.labelled()), &stored.image);
        let (mut sums, mut lengths) = (PixelSums::default(), Vec::with_capacity(items.len()));
        for &(path, _, _) in items {
            let at = raw.len();
            let found = read_alike(path, form, image, raw)?;
            sums.add_image(&raw[at..], found.shape[0], found.dtype);
            lengths.push(found.file_bytes);
        }
        self.tell(items.len())?;
        Ok((pack(raw, image.raster(), self.options.level)?, (sums, lengths)))
    }

    fn tell(&self, images: usize) -> Result<()> {
        let goes_on = (self.progress)(Progress::Images(images as u64));
        if goes_on { Ok(()) } else { Err(IngestError::Stopped) }
    }
}

/// A shard some of whose blocks are written.
struct Begun {
    writer: ShardWriter<File>,
    flusher: Flusher,
    seen: Seen,
}

/// Takes blocks in order and makes shards of them, which are brought to disk beside the next.
struct Line<'scope, 'env, 'a> {
    job: &'env Job<'a>,
    shards: &'env [ImageShard<'a>],
    stored: &'env Stored<'a>,
    scope: &'scope Scope<'scope, 'env>,
    begun: Option<Begun>,
    /// Of the shards that are written.
    seen: Vec<Seen>,
    closing: VecDeque<ScopedJoinHandle<'scope, Result<ShardInfo>>>,
    closed: Vec<ShardInfo>,
}

impl<'scope, 'env, 'a> Line<'scope, 'env, 'a> {
    fn new(
        job: &'env Job<'a>,
        shards: &'env [ImageShard<'a>],
        stored: &'env Stored<'a>,
        scope: &'scope Scope<'scope, 'env>,
    ) -> Self {
        let (begun, seen, closing, closed) = (None, Vec::new(), VecDeque::new(), Vec::new());
        Self { job, shards, stored, scope, begun, seen, closing, closed }
    }

    fn take(&mut self, (block, (sums, lengths)): ImageBlock) -> Result<()> {
        let shard = &self.shards[self.seen.len()];
        let mut begun = match self.begun.take() {
            Some(begun) => begun,
            None => self.begin(shard)?,
        };
        let bytes = block.stored_bytes();
        begun.writer.append(0, block)?;
        begun.flusher.wrote(bytes);
        begun.seen.0.add(&sums);
        begun.seen.1.extend(lengths);
        if begun.seen.1.len() == shard.items.len() {
            self.end(shard, begun)
        } else {
            self.begun = Some(begun);
            Ok(())
        }
    }

    fn begin(&self, shard: &ImageShard<'_>) -> Result<Begun> {
        let mut fields = vec![self.stored.image.clone(), Field::new("id", DType::U32, &[])];
        if self.stored.labelled() {
            fields.push(Field::new("label", DType::U32, &[]));
        }
        let (writer, flusher) =
            self.job.shard(&shard.file, self.stored.content.clone(), shard.split, fields)?;
        Ok(Begun { writer, flusher, seen: Seen::default() })
    }

    /// Writes what follows the images, and lets a thread bring the shard to disk.
    fn end(&mut self, shard: &ImageShard<'_>, begun: Begun) -> Result<()> {
        let Begun { mut writer, flusher, seen } = begun;
        let level = self.job.options.level;
        writer.append_column(1, &words(shard.items.iter().map(|item| item.1)), level)?;
        if self.stored.labelled() {
            writer.append_column(2, &words(shard.items.iter().map(|item| item.2)), level)?;
        }
        let rows = shard.items.len() as u64;
        self.seen.push(seen.clone());
        let listed =
            Listed { file: shard.file.clone(), split: shard.split, session: None, rows, source: seen.1 };
        let written = Written::new(writer, flusher, listed, seen.0)?;
        let root = self.job.staging.root();
        self.closing.push_back(self.scope.spawn(move || written.close(root)));
        if self.closing.len() > CLOSING { self.wait() } else { Ok(()) }
    }

    /// Waits until a shard is on disk.
    fn wait(&mut self) -> Result<()> {
        if let Some(closing) = self.closing.pop_front() {
            self.closed.push(closing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        }
        Ok(())
    }

    /// How the shards are listed, once all are on disk.
    fn closed(mut self) -> Result<Vec<ShardInfo>> {
        while !self.closing.is_empty() {
            self.wait()?;
        }
        Ok(self.closed)
    }
}
