//! One column of a set of shards, decoded block by block on first use.
//!
//! What fits the budget stays decoded for good, and readers share it without a lock. What does not is
//! kept up to a limit, the longest held going first: made for the windowed shuffle, which needs a block
//! during one window and then not again in this pass.

use super::arena::Arena;
use super::{LoadError, locked};
use crate::base::Shape;
use crate::shard::{Bytes, OpenShard};
use std::collections::VecDeque;
use std::ops::{Deref, Range};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// Memory for decoded data, shared by all columns of a program.
#[derive(Debug, Clone)]
pub struct Budget(Arc<AtomicU64>);

impl Budget {
    /// So many bytes.
    pub fn new(bytes: u64) -> Self {
        Self(Arc::new(AtomicU64::new(bytes)))
    }

    /// What everything can be kept in.
    pub fn unlimited() -> Self {
        Self::new(u64::MAX)
    }

    /// Half of the memory that is free now, as far as the system tells; else 4 GiB.
    pub fn of_free_memory() -> Self {
        Self::new(free_memory().map_or(4 << 30, |bytes| bytes / 2))
    }

    /// Bytes that are left.
    pub fn left(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Takes `bytes` if they are left.
    fn take(&self, bytes: u64) -> bool {
        self.0.try_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes)).is_ok()
    }
}

/// Free memory in bytes: of the machine, or of the control group that limits this process.
fn free_memory() -> Option<u64> {
    let meminfo = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let machine = line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10;
    let number =
        |path: &str| std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<u64>().ok());
    let group = number("/sys/fs/cgroup/memory.max")
        .zip(number("/sys/fs/cgroup/memory.current"))
        .map(|(most, used)| most.saturating_sub(used));
    Some(group.map_or(machine, |group| group.min(machine)))
}

/// Rows of equal size from consecutive shards.
#[derive(Debug)]
pub struct Column {
    parts: Vec<Part>,
    row_bytes: usize,
    /// Decoded bytes of the column.
    bytes: u64,
    shape: Shape,
    blocks: Blocks,
    /// Some of it comes from a store.
    far: bool,
    decoding_ns: AtomicU64,
}

#[derive(Debug)]
struct Part {
    shard: OpenShard,
    field: usize,
    /// Row of the first record.
    start: u64,
    /// Number of the first block.
    first_block: usize,
}

#[derive(Debug)]
enum Blocks {
    Resident(Box<Arena>),
    Bounded(Bounded),
}

/// The value of one row.
#[derive(Debug)]
pub enum Row<'a> {
    /// In memory for good.
    Resident(&'a [u8]),
    /// In a block that may be dropped by then.
    Held(Arc<Box<[u8]>>, Range<usize>),
}

impl Deref for Row<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Resident(bytes) => bytes,
            Self::Held(block, range) => &block[range.clone()],
        }
    }
}

impl Column {
    /// Field `name` of `shards`, which must agree on its type and shape. All of it is kept once decoded
    /// if `budget` has room; else what is left of the budget.
    pub fn open(shards: Vec<OpenShard>, name: &str, budget: &Budget) -> Result<Self, LoadError> {
        let mut parts: Vec<Part> = Vec::with_capacity(shards.len());
        let mut column: Option<(usize, Shape)> = None;
        let (mut start, mut first_block) = (0, 0);
        for shard in shards {
            let (field, description) = shard.field(name)?;
            let (row_bytes, shape) = (shard.row_bytes(field), description.shape.clone());
            if *column.get_or_insert_with(|| (row_bytes, shape.clone())) != (row_bytes, shape) {
                let path = shard.path().display();
                return Err(LoadError::Data(format!("{path}: field {name} differs from the shards before")));
            }
            let (n_rows, n_blocks) = (shard.n_rows(), shard.n_blocks(field));
            parts.push(Part { shard, field, start, first_block });
            start += n_rows;
            first_block += n_blocks;
        }
        let (row_bytes, shape) =
            column.ok_or_else(|| LoadError::Data(format!("no shard has a field {name}")))?;
        let bytes = start * row_bytes as u64;
        let sizes = parts.iter().flat_map(|part| {
            (0..part.shard.n_blocks(part.field)).map(|block| part.shard.block_bytes(part.field, block))
        });
        let blocks = if budget.take(bytes) {
            let arena = Arena::new(sizes).map_err(|e| {
                LoadError::Data(format!(
                    "{bytes} bytes of memory for decoded images: {e}; give a smaller cache"
                ))
            })?;
            Blocks::Resident(Box::new(arena))
        } else {
            let limit = budget.left();
            budget.take(limit);
            Blocks::Bounded(Bounded::new(first_block, limit))
        };
        let far = parts.iter().any(|part| part.shard.bytes().at_hand().is_none());
        Ok(Self { parts, row_bytes, bytes, shape, blocks, far, decoding_ns: AtomicU64::new(0) })
    }

    /// Number of rows.
    pub fn n_rows(&self) -> u64 {
        self.parts.last().map_or(0, |part| part.start + part.shard.n_rows())
    }

    /// Extent of one row's value.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Whether the values are bytes.
    pub fn is_u8(&self) -> bool {
        self.shape.elements() == Some(self.row_bytes as u64)
    }

    /// Decoded bytes of the column.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Rows in a block.
    pub fn block_rows(&self) -> u64 {
        self.parts.first().map_or(1, |part| part.shard.block_rows(part.field))
    }

    /// The memory that its decoded blocks may take if they do not all fit.
    pub fn limit(&self) -> Option<u64> {
        match &self.blocks {
            Blocks::Resident(_) => None,
            Blocks::Bounded(bounded) => Some(bounded.limit),
        }
    }

    /// Nanoseconds that threads spent reading and decoding blocks.
    pub fn decoding_ns(&self) -> u64 {
        self.decoding_ns.load(Ordering::Relaxed)
    }

    /// The value of row `row`, which is less than [`Self::n_rows`]. Decodes its block if need be.
    pub fn row(&self, row: u64) -> Result<Row<'_>, LoadError> {
        let (part, block) = self.place(row);
        let within = (row - part.start) % part.shard.block_rows(part.field);
        let range = within as usize * self.row_bytes..(within as usize + 1) * self.row_bytes;
        let number = part.first_block + block as usize;
        match &self.blocks {
            Blocks::Resident(arena) => {
                let bytes = arena.block(number, |out| self.decode(part, block as usize, out));
                Ok(Row::Resident(&bytes?[range]))
            }
            Blocks::Bounded(bounded) => {
                let size = part.shard.block_bytes(part.field, block as usize);
                let block = bounded.block(number, size, |out| self.decode(part, block as usize, out))?;
                Ok(Row::Held(block, range))
            }
        }
    }

    /// Says that these rows will be asked for soon: blocks that come from elsewhere set out together.
    pub fn expect(&self, rows: impl Iterator<Item = u64>) {
        if !self.far {
            return;
        }
        for row in rows {
            let (part, block) = self.place(row);
            let number = part.first_block + block as usize;
            let there = match &self.blocks {
                Blocks::Resident(arena) => arena.has(number),
                Blocks::Bounded(bounded) => bounded.has(number),
            };
            if !there {
                part.shard.expect_block(part.field, block as usize);
            }
        }
    }

    /// The shard of a row, and the block in it.
    fn place(&self, row: u64) -> (&Part, u64) {
        let part = &self.parts[self.parts.partition_point(|part| part.start <= row) - 1];
        (part, (row - part.start) / part.shard.block_rows(part.field))
    }

    fn decode(&self, part: &Part, block: usize, out: &mut [u8]) -> Result<(), LoadError> {
        let start = Instant::now();
        let read = part.shard.read_block(part.field, block, out);
        self.decoding_ns.fetch_add(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
        Ok(read?)
    }
}

/// A decoded block, unless nobody has asked for it lately.
type Slot = Mutex<Option<Arc<Box<[u8]>>>>;

/// Decoded blocks up to a limit.
#[derive(Debug)]
struct Bounded {
    limit: u64,
    slots: Box<[Slot]>,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    /// Blocks in the order in which they came.
    order: VecDeque<usize>,
    bytes: u64,
    /// Memory of dropped blocks.
    spare: Vec<Box<[u8]>>,
}

impl Bounded {
    fn new(n_blocks: usize, limit: u64) -> Self {
        Self { limit, slots: (0..n_blocks).map(|_| Mutex::default()).collect(), held: Mutex::default() }
    }

    fn block(
        &self,
        block: usize,
        size: usize,
        decode: impl FnOnce(&mut [u8]) -> Result<(), LoadError>,
    ) -> Result<Arc<Box<[u8]>>, LoadError> {
        // The lock of a slot is held while its block is decoded: who needs it too waits for it.
        let mut slot = locked(&self.slots[block]);
        if let Some(held) = &*slot {
            return Ok(Arc::clone(held));
        }
        let spare = locked(&self.held).spare.pop().filter(|spare| spare.len() == size);
        let mut bytes = spare.unwrap_or_else(|| vec![0; size].into_boxed_slice());
        decode(&mut bytes)?;
        let made = Arc::new(bytes);
        *slot = Some(Arc::clone(&made));
        drop(slot);
        self.make_room(block, size as u64);
        Ok(made)
    }

    /// Whether the block is there, or being made.
    fn has(&self, block: usize) -> bool {
        self.slots[block].try_lock().map_or(true, |slot| slot.is_some())
    }

    /// Counts `block`, and drops the oldest others beyond the limit.
    fn make_room(&self, block: usize, size: u64) {
        let mut held = locked(&self.held);
        held.order.push_back(block);
        held.bytes += size;
        while held.bytes > self.limit && held.order.len() > 1 {
            let Some(oldest) = held.order.pop_front() else { break };
            if let Some(dropped) = locked(&self.slots[oldest]).take() {
                held.bytes -= dropped.len() as u64;
                // A batch may still be reading it; then its memory goes when that is done.
                held.spare.extend(Arc::into_inner(dropped));
                held.spare.truncate(4);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bounded_column_keeps_to_its_limit_and_drops_the_oldest() {
        let bounded = Bounded::new(10, 300);
        let get = |block: usize| {
            let mut made = false;
            let bytes = bounded.block(block, 100, |out| {
                made = true;
                out.fill(block as u8);
                Ok(())
            });
            assert!(bytes.unwrap().iter().all(|&b| b == block as u8));
            made
        };
        assert!((0..3).all(get), "the first use decodes");
        assert!(!(0..3).any(get), "what is held is not decoded again");
        assert!(get(3) && get(0), "the oldest went");
        assert!(!get(2) && !get(3));
        assert_eq!(locked(&bounded.held).bytes, 300);
    }

    #[test]
    fn a_budget_is_taken_once() {
        let budget = Budget::new(100);
        assert!(budget.take(60) && !budget.take(60) && budget.left() == 40);
        assert!(free_memory().is_none_or(|bytes| bytes > 1 << 20));
    }
}
