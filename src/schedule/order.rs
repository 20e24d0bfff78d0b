//! The order of one pass over a stream: a keyed permutation in O(1) memory.
//!
//! A Feistel network over the next even power of two, with cycle walking back into `0..n` (Black and
//! Rogaway, "Ciphers with arbitrary finite domains", 2002): any position of any pass is known
//! without the ones before it.

use crate::base::rng::mix64;

/// Rounds of the network: four make it indistinguishable from random for an observer of few values;
/// eight leave a margin for the small domains of small sets.
const ROUNDS: u64 = 8;

/// A permutation of `0..n`.
#[derive(Debug, Clone, Copy)]
pub struct Permutation {
    n: u64,
    half_bits: u32,
    key: u64,
}

impl Permutation {
    /// The permutation of `0..n` under `key`; `n` is at most 2^62.
    pub fn new(n: u64, key: u64) -> Self {
        assert!(n <= 1 << 62, "a stream of {n} records is beyond any memory");
        let bits = 64 - n.saturating_sub(1).leading_zeros();
        Self { n, half_bits: bits.div_ceil(2).max(1), key }
    }

    /// The value at position `i`, which is less than `n`.
    pub fn at(&self, i: u64) -> u64 {
        debug_assert!(i < self.n, "position {i} of {}", self.n);
        let mut x = i;
        loop {
            x = self.network(x);
            if x < self.n {
                return x;
            }
        }
    }

    fn network(&self, x: u64) -> u64 {
        let mask = (1u64 << self.half_bits) - 1;
        let (mut left, mut right) = (x >> self.half_bits, x & mask);
        for round in 0..ROUNDS {
            let word = mix64(self.key ^ mix64((round << 56) ^ right));
            (left, right) = (right, left ^ (word & mask));
        }
        (left << self.half_bits) | right
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
            prop_assert!(Permutation::new(1 << 40, key).at(i) < 1 << 40);
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
