//! The order of one pass over a stream: a keyed permutation in O(1) memory, of single records or
//! (for data beyond memory) of blocks and then of the records within a window of blocks.
//!
//! The permutation is an alternating Feistel network over the next power of two, with cycle walking
//! back into `0..n` (Black and Rogaway, "Ciphers with arbitrary finite domains", 2002): any position
//! of any pass is known without the ones before it.

use super::spec::Window;
use crate::base::rng::mix64;

/// Rounds of the network: four make it indistinguishable from random for an observer of few values;
/// eight leave a margin for the small domains of small sets.
const ROUNDS: usize = 8;

/// A permutation of `0..n`.
#[derive(Debug, Clone, Copy)]
pub struct Permutation {
    n: u64,
    low_bits: u32,
    /// Masks of the low and the high part.
    masks: [u64; 2],
    keys: [u64; ROUNDS],
}

impl Permutation {
    /// The permutation of `0..n` under `key`; `n` is at most 2^62.
    pub fn new(n: u64, key: u64) -> Self {
        assert!(n <= 1 << 62, "a stream of {n} records is beyond any memory");
        let bits = (64 - n.saturating_sub(1).leading_zeros()).max(2);
        let low_bits = bits / 2;
        let masks = [(1 << low_bits) - 1, (1 << (bits - low_bits)) - 1];
        Self { n, low_bits, masks, keys: std::array::from_fn(|round| mix64(key ^ mix64(round as u64))) }
    }

    /// The value at position `i`, which is less than `n`.
    pub fn at(&self, i: u64) -> u64 {
        debug_assert!(i < self.n, "position {i} of {}", self.n);
        let mut x = i;
        loop {
            x = self.network(x, 0..ROUNDS);
            if x < self.n {
                return x;
            }
        }
    }

    /// The position of `value`, which is less than `n`.
    pub fn position(&self, value: u64) -> u64 {
        debug_assert!(value < self.n, "value {value} of {}", self.n);
        let mut x = value;
        loop {
            x = self.network(x, (0..ROUNDS).rev());
            if x < self.n {
                return x;
            }
        }
    }

    /// Each round changes one half by a function of the other, so it is its own inverse.
    fn network(&self, x: u64, rounds: impl Iterator<Item = usize>) -> u64 {
        let mut parts = [x & self.masks[0], x >> self.low_bits];
        for round in rounds {
            let (changed, other) = (round % 2, 1 - round % 2);
            parts[changed] ^= mix64(self.keys[round] ^ parts[other]) & self.masks[changed];
        }
        (parts[1] << self.low_bits) | parts[0]
    }
}

/// The order of one pass.
#[derive(Debug, Clone, Copy)]
pub enum Order {
    /// As the records are stored.
    Stored,
    /// Every order of all records may come.
    Full(Permutation),
    /// Blocks in random order, and records in random order within each window of blocks.
    Windowed(Windowed),
}

impl Order {
    /// The record at position `i` of the pass.
    pub fn at(&self, i: u64) -> u64 {
        match self {
            Self::Stored => i,
            Self::Full(order) => order.at(i),
            Self::Windowed(order) => order.at(i),
        }
    }
}

/// A shuffle that touches few blocks at a time, so that they need not all be in memory.
///
/// A batch mixes records of up to `Window::blocks` random blocks; two records of one block come at
/// most two windows apart.
#[derive(Debug, Clone, Copy)]
pub struct Windowed {
    records: u64,
    block: u64,
    /// Blocks in a window.
    blocks: u64,
    /// Order of the blocks.
    order: Permutation,
    /// Records by which the last block of the stream is short, and where it comes in `order`.
    missing: u64,
    short_at: u64,
    key: u64,
}

impl Windowed {
    /// An order of `records` records under `key`.
    pub fn new(records: u64, window: Window, key: u64) -> Self {
        let (block, blocks) = (u64::from(window.block).max(1), u64::from(window.blocks).max(1));
        let n_blocks = records.div_ceil(block);
        let order = Permutation::new(n_blocks, key);
        let missing = n_blocks * block - records;
        let short_at = order.position(n_blocks.saturating_sub(1));
        Self { records, block, blocks, order, missing, short_at, key }
    }

    /// The record at position `i`.
    pub fn at(&self, i: u64) -> u64 {
        let window = self.block_at(i) / self.blocks;
        let first_block = window * self.blocks;
        let start = self.rows_before(first_block);
        let end = self.rows_before(first_block + self.blocks).min(self.records);
        let within = Permutation::new(end - start, mix64(self.key ^ mix64(window ^ 1 << 63)));
        let position = start + within.at(i - start);
        let block = self.block_at(position);
        self.order.at(block) * self.block + (position - self.rows_before(block))
    }

    /// Records in the first `n` blocks of the order.
    fn rows_before(&self, n: u64) -> u64 {
        n * self.block - if n > self.short_at { self.missing } else { 0 }
    }

    /// The block of the order in which position `i` lies.
    fn block_at(&self, i: u64) -> u64 {
        if i < self.rows_before(self.short_at + 1) {
            (i / self.block).min(self.short_at)
        } else {
            (i + self.missing) / self.block
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    proptest! {
        #[test]
        fn every_value_comes_exactly_once(n in 1u64..3000, key in any::<u64>()) {
            let order = Permutation::new(n, key);
            let values: BTreeSet<u64> = (0..n).map(|i| order.at(i)).collect();
            prop_assert_eq!(values.len() as u64, n);
            prop_assert!(values.iter().all(|&v| v < n));
        }

        #[test]
        fn huge_sets_need_no_memory(i in 0u64..1 << 40, key in any::<u64>()) {
            let order = Permutation::new(1 << 40, key);
            prop_assert!(order.at(i) < 1 << 40);
            prop_assert_eq!(order.position(order.at(i)), i);
        }

        #[test]
        fn windows_hold_whole_blocks_and_every_record_once(
            records in 1u64..2000, block in 1u32..40, blocks in 1u32..9, key in any::<u64>(),
        ) {
            let order = Windowed::new(records, Window { block, blocks }, key);
            let values: Vec<u64> = (0..records).map(|i| order.at(i)).collect();
            let distinct: BTreeSet<u64> = values.iter().copied().collect();
            prop_assert_eq!(distinct.len() as u64, records);
            prop_assert!(values.iter().all(|&v| v < records));
            // A block is needed for two windows at the most: one, and what a short block shifts.
            let window = u64::from(block) * u64::from(blocks);
            let mut seen: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
            for (i, value) in values.iter().enumerate() {
                let span = seen.entry(value / u64::from(block)).or_insert((i as u64, i as u64));
                span.1 = i as u64;
            }
            prop_assert!(seen.values().all(|(first, last)| last - first < window));
        }
    }

    #[test]
    fn all_orders_of_four_are_about_equally_likely() {
        let mut counts: BTreeMap<Vec<u64>, u32> = BTreeMap::new();
        for key in 0..24_000 {
            let order = Permutation::new(4, mix64(key));
            *counts.entry((0..4).map(|i| order.at(i)).collect()).or_default() += 1;
        }
        assert_eq!(counts.len(), 24);
        // Six standard deviations of a binomial with n = 24,000 and p = 1/24.
        assert!(counts.values().all(|&n| n.abs_diff(1000) < 186), "{counts:?}");
    }
}
