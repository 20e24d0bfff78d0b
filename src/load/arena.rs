//! Unsafe fence 3: the decoded blocks of a column in one piece of memory, each written once by whichever
//! thread needs it first and read by all without a lock.
#![expect(unsafe_code, reason = "blocks of one allocation are written while others are read")]

use super::{LoadError, locked};
use memmap2::{MmapMut, MmapRaw};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, Ordering};

/// Locks that writers of blocks share.
const LOCKS: usize = 64;

const EMPTY: u8 = 0;
const READY: u8 = 1;
const FAILED: u8 = 2;

/// Memory for a known sequence of blocks.
#[derive(Debug)]
pub(super) struct Arena {
    memory: MmapRaw,
    /// Where each block starts, and where the last ends: ascending, and within `memory`.
    bounds: Box<[usize]>,
    /// What each block is; it leaves `EMPTY` once, while its writer's lock is held.
    states: Box<[AtomicU8]>,
    locks: [Mutex<()>; LOCKS],
    errors: Mutex<BTreeMap<usize, LoadError>>,
}

impl Arena {
    /// Memory for blocks of the given sizes, none of which is written yet.
    pub(super) fn new(sizes: impl Iterator<Item = usize>) -> std::io::Result<Self> {
        let mut bounds = vec![0usize];
        for size in sizes {
            let end = bounds[bounds.len() - 1].checked_add(size).ok_or(std::io::ErrorKind::OutOfMemory)?;
            bounds.push(end);
        }
        let memory = MmapRaw::from(anonymous(bounds[bounds.len() - 1])?);
        Ok(Self {
            memory,
            states: (1..bounds.len()).map(|_| AtomicU8::new(EMPTY)).collect(),
            bounds: bounds.into_boxed_slice(),
            locks: [const { Mutex::new(()) }; LOCKS],
            errors: Mutex::default(),
        })
    }

    /// Block `block`, made by `fill` if nobody has asked for it before. A failure is remembered.
    pub(super) fn block(
        &self,
        block: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), LoadError>,
    ) -> Result<&[u8], LoadError> {
        let state = match self.states[block].load(Ordering::Acquire) {
            EMPTY => self.write(block, fill),
            state => state,
        };
        if state == FAILED {
            let errors = locked(&self.errors);
            return Err(errors.get(&block).cloned().expect("a failed block has its error"));
        }
        let (start, end) = (self.bounds[block], self.bounds[block + 1]);
        // SAFETY: `bounds` ascends and ends at the length of `memory`, which lives as long as `self`; `u8` has no
        // invalid values, and the map starts out as zeros. The state is READY, read with Acquire: the only
        // write to this range happened before, and there will be no other.
        Ok(unsafe { std::slice::from_raw_parts(self.memory.as_ptr().add(start), end - start) })
    }

    /// Whether block `block` was made, or could not be.
    pub(super) fn has(&self, block: usize) -> bool {
        self.states[block].load(Ordering::Relaxed) != EMPTY
    }

    /// Writes a block unless another thread has by the time its lock is free; gives the state after that.
    #[cold]
    fn write(&self, block: usize, fill: impl FnOnce(&mut [u8]) -> Result<(), LoadError>) -> u8 {
        let _writer = locked(&self.locks[block % LOCKS]);
        let state = self.states[block].load(Ordering::Acquire);
        if state != EMPTY {
            return state;
        }
        let (start, end) = (self.bounds[block], self.bounds[block + 1]);
        // SAFETY: the range lies in `memory` as above and belongs to this block alone. Its lock is held and
        // its state is EMPTY, so no other thread writes here, and none reads before the state changes below.
        let bytes =
            unsafe { std::slice::from_raw_parts_mut(self.memory.as_mut_ptr().add(start), end - start) };
        let state = match fill(bytes) {
            Ok(()) => READY,
            Err(e) => {
                locked(&self.errors).insert(block, e);
                FAILED
            }
        };
        self.states[block].store(state, Ordering::Release);
        state
    }
}

/// Zeroed memory, which the system provides as it is touched.
pub(super) fn anonymous(bytes: usize) -> std::io::Result<MmapMut> {
    let memory = MmapMut::map_anon(bytes.max(1))?;
    // Rows are read at random: large pages save most of the address translations. A kernel without
    // them loses nothing.
    #[cfg(target_os = "linux")]
    let _ = memory.advise(memmap2::Advice::HugePage);
    Ok(memory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn threads_that_need_a_block_at_once_see_it_made_once() {
        let sizes = [3, 0, 4096, 1, 100_000];
        for _ in 0..50 {
            let shared = Arc::new((Arena::new(sizes.iter().copied()).unwrap(), AtomicUsize::new(0)));
            let reader = |thread: usize| {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || {
                    let (arena, made) = &*shared;
                    for i in 0..sizes.len() {
                        let block = (i + thread) % sizes.len();
                        let bytes = arena.block(block, |out| {
                            made.fetch_add(1, Ordering::Relaxed);
                            out.fill(block as u8 + 1);
                            Ok(())
                        });
                        let bytes = bytes.unwrap();
                        assert_eq!(bytes.len(), sizes[block]);
                        assert!(bytes.iter().all(|&b| b == block as u8 + 1));
                    }
                })
            };
            let threads: Vec<_> = (0..4).map(reader).collect();
            for thread in threads {
                thread.join().unwrap();
            }
            assert_eq!(shared.1.load(Ordering::Relaxed), sizes.len());
        }
    }

    #[test]
    fn a_failure_is_remembered_and_a_panic_is_not() {
        let arena = Arena::new([4, 4].into_iter()).unwrap();
        let failed = arena.block(0, |_| Err(LoadError::Data("no".into()))).unwrap_err().to_string();
        assert_eq!(failed, "no");
        assert!(arena.block(0, |_| Ok(())).is_err());
        let panics =
            std::panic::AssertUnwindSafe(|| arena.block(1, |_| panic!("once")).map(<[u8]>::len).ok());
        assert!(std::panic::catch_unwind(panics).is_err());
        assert_eq!(
            arena
                .block(1, |out| {
                    out.fill(9);
                    Ok(())
                })
                .unwrap(),
            [9; 4]
        );
    }
}
