//! The most a loader can do: copy the same rows in random order from memory to a reused batch.
//!
//! Measured in the process whose loader is judged, so that the ratio of the two means something on a
//! machine whose speed varies.

use super::aligned::Aligned;
use super::arena::anonymous;
use crate::schedule::Permutation;
use std::time::{Duration, Instant};

/// Memory of `rows` rows of `row_bytes`, and the time to gather some of them.
#[derive(Debug)]
pub struct Roofline {
    rows: usize,
    row_bytes: usize,
    memory: memmap2::MmapMut,
}

impl Roofline {
    /// As much memory as the data set takes once decoded, of the same kind as the loader's.
    pub fn new(rows: usize, row_bytes: usize) -> std::io::Result<Self> {
        let mut memory = anonymous(rows * row_bytes)?;
        memory.iter_mut().enumerate().for_each(|(i, byte)| *byte = i as u8);
        Ok(Self { rows, row_bytes, memory })
    }

    /// Copies `batches` batches of `batch` random rows on `threads` threads. Every thread has one batch
    /// and copies with `copy_from_slice`, which is the system's `memcpy`.
    pub fn gather(&self, batches: usize, batch: usize, threads: usize) -> Duration {
        let order = Permutation::new(self.rows as u64, 1);
        let start = Instant::now();
        std::thread::scope(|scope| {
            for thread in 0..threads {
                scope.spawn(move || {
                    let mut out = Aligned::<u8>::default();
                    out.resize(batch * self.row_bytes);
                    for number in (thread..batches).step_by(threads) {
                        for (i, slot) in out.chunks_exact_mut(self.row_bytes).enumerate() {
                            let row = order.at((number * batch + i) as u64) as usize;
                            slot.copy_from_slice(&self.memory[row * self.row_bytes..][..self.row_bytes]);
                        }
                        std::hint::black_box(&mut *out);
                    }
                });
            }
        });
        start.elapsed()
    }
}
