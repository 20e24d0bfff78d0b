//! Unsafe fence 3: the decoded blocks of a column in one piece of memory, each written once by whichever
//! thread needs it first and read by all without a lock.
#![expect(unsafe_code, reason = "blocks of one allocation are written while others are read")]

use super::LoadError;
use memmap2::{MmapMut, MmapRaw};
use std::sync::OnceLock;

/// Memory for a known sequence of blocks.
#[derive(Debug)]
pub(super) struct Arena {
    memory: MmapRaw,
    /// Where each block starts, and where the last ends: ascending, and within `memory`.
    bounds: Box<[usize]>,
    filled: Box<[OnceLock<Result<(), LoadError>>]>,
}

impl Arena {
    /// Memory for blocks of the given sizes, none of which is written yet. The system provides pages
    /// as they are touched.
    pub(super) fn new(sizes: impl Iterator<Item = usize>) -> std::io::Result<Self> {
        let mut bounds = vec![0usize];
        for size in sizes {
            let end = bounds[bounds.len() - 1].checked_add(size).ok_or(std::io::ErrorKind::OutOfMemory)?;
            bounds.push(end);
        }
        let memory = MmapRaw::from(MmapMut::map_anon(bounds[bounds.len() - 1].max(1))?);
        // Rows are read at random: large pages save most of the address translations. A kernel without
        // them loses nothing.
        #[cfg(target_os = "linux")]
        let _ = memory.advise(memmap2::Advice::HugePage);
        let filled = (1..bounds.len()).map(|_| OnceLock::new()).collect();
        Ok(Self { memory, bounds: bounds.into_boxed_slice(), filled })
    }

    /// Block `block`, made by `fill` if nobody has asked for it before. A failure is remembered.
    pub(super) fn block(
        &self,
        block: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), LoadError>,
    ) -> Result<&[u8], &LoadError> {
        let (start, end) = (self.bounds[block], self.bounds[block + 1]);
        let outcome = self.filled[block].get_or_init(|| {
            // SAFETY: `bounds` ascends and ends at the length of `memory`, so the range lies in it; `u8` has
            // no invalid values, and the map starts out as zeros. The range belongs to this block alone,
            // whose cell runs one initialiser at a time, and readers come here only after it has ended.
            let bytes =
                unsafe { std::slice::from_raw_parts_mut(self.memory.as_mut_ptr().add(start), end - start) };
            fill(bytes)
        });
        outcome.as_ref()?;
        // SAFETY: the range lies in `memory` as above, which lives as long as `self`. The cell is set: its
        // initialiser has ended, happens before this read, and never runs again, so nobody writes here.
        Ok(unsafe { std::slice::from_raw_parts(self.memory.as_ptr().add(start), end - start) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn threads_that_need_a_block_at_once_see_it_made_once() {
        let sizes = [3, 0, 4096, 1, 100_000];
        for _ in 0..50 {
            let (arena, made) = (Arena::new(sizes.iter().copied()).unwrap(), AtomicUsize::new(0));
            std::thread::scope(|scope| {
                for thread in 0..4 {
                    let (arena, made) = (&arena, &made);
                    scope.spawn(move || {
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
                    });
                }
            });
            assert_eq!(made.load(Ordering::Relaxed), sizes.len());
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
