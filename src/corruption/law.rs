//! Discrete distributions from which a draw costs one word and one look into a table.

/// Bits of a word that decide between a slot's two outcomes.
const SHARE_BITS: u32 = 16;

/// A distribution over few outcomes, as slots of equal probability with at most two outcomes each: the alias method
/// (Walker, "An efficient method for generating discrete random variables with general distributions", ACM
/// Transactions on Mathematical Software 3, 1977), with tables made as Vose does (1991).
///
/// The probability of an outcome is off by less than 2^-17 of a slot for each slot that has it.
#[derive(Debug, Clone)]
pub(super) struct Law<const SLOTS: usize> {
    /// The slot's other outcome in the upper half, the share of its own one in the lower half.
    slots: [u32; SLOTS],
}

impl<const SLOTS: usize> Law<SLOTS> {
    /// Number of bits that choose a slot.
    const BITS: u32 = {
        assert!(SLOTS.is_power_of_two() && SLOTS.trailing_zeros() + SHARE_BITS <= 32);
        SLOTS.trailing_zeros()
    };

    /// Outcome i has a probability in proportion to `weights[i]`, and outcomes beyond it none.
    pub(super) fn new(weights: &[f64]) -> Self {
        let total: f64 = weights.iter().sum();
        let mut left: [f64; SLOTS] =
            std::array::from_fn(|i| weights.get(i).map_or(0.0, |&weight| weight / total * SLOTS as f64));
        let (mut small, mut large): (Vec<usize>, Vec<usize>) = (0..SLOTS).partition(|&i| left[i] < 1.0);
        // What rounding leaves over has a slot of its own.
        let mut slots = std::array::from_fn(|i| (i as u32) << SHARE_BITS);
        while let (Some(slot), Some(&giver)) = (small.pop(), large.last()) {
            let share = (left[slot] * f64::from(1u32 << SHARE_BITS)).round() as u32;
            if share < 1 << SHARE_BITS {
                slots[slot] = (giver as u32) << SHARE_BITS | share;
            }
            left[giver] -= 1.0 - left[slot];
            if left[giver] < 1.0 {
                small.extend(large.pop());
            }
        }
        Self { slots }
    }

    /// The outcome that `word` stands for.
    #[inline]
    pub(super) fn outcome(&self, word: u32) -> usize {
        let own = word >> (u32::BITS - Self::BITS);
        let slot = self.slots[own as usize];
        let other = slot >> SHARE_BITS;
        (if (word as u16) < slot as u16 { own } else { other }) as usize
    }

    /// The probability of each outcome.
    #[cfg(test)]
    pub(super) fn probabilities(&self) -> [f64; SLOTS] {
        let mut sums = [0.0; SLOTS];
        for (own, slot) in self.slots.into_iter().enumerate() {
            let share = f64::from(slot as u16) / f64::from(1u32 << SHARE_BITS) / SLOTS as f64;
            sums[own] += share;
            sums[(slot >> SHARE_BITS) as usize] += 1.0 / SLOTS as f64 - share;
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_have_the_probabilities_of_their_weights() {
        for weights in
            [vec![1.0], vec![1.0, 3.0], vec![0.0, 5.0, 1e-9, 2.0], (0..64).map(f64::from).collect()]
        {
            let law = Law::<64>::new(&weights);
            let total: f64 = weights.iter().sum();
            for (i, probability) in law.probabilities().into_iter().enumerate() {
                let expected = weights.get(i).map_or(0.0, |weight| weight / total);
                // Each of 64 slots may be off by half a share.
                assert!((probability - expected).abs() < 0.5f64.powi(17), "{weights:?} {i}: {probability}");
                assert!(expected > 0.0 || probability == 0.0, "{weights:?} {i}: {probability}");
            }
        }
    }

    #[test]
    fn words_give_outcomes_as_often_as_their_probability_says() {
        let weights = [5.0, 0.5, 0.0, 3.0, 1.25, 0.75];
        let law = Law::<8>::new(&weights);
        let mut counts = [0u32; 8];
        // Words evenly over all slots and all shares.
        for slot in 0..8u32 {
            for share in 0..1 << 16 {
                counts[law.outcome(slot << 29 | share)] += 1;
            }
        }
        for (count, probability) in counts.into_iter().zip(law.probabilities()) {
            assert_eq!(f64::from(count), probability * f64::from(8u32 << 16));
        }
    }
}
