//! Weighted interleaving: which stream gives the batch at position t, for any t.
//!
//! Each stream is a periodic task whose j-th batch may start at `floor(j W / w)` and must be over by
//! `ceil((j + 1) W / w)`; serving the earliest deadline keeps every prefix within one batch of every
//! stream's share (Liu and Layland 1973; Baruah et al., "Proportionate progress", 1996). The sequence
//! repeats after W batches, so one period in a table answers every question in O(1).

/// Longest period. Weights that are whole multiples of a unit with at most so many units in all (sizes
/// of data sets, decimal fractions) are met exactly; others are rounded to shares of this, which is
/// off by at most half a batch after a million.
const MAX_PERIOD: u64 = 1 << 20;

/// The repeating sequence.
#[derive(Debug, Clone)]
pub struct Interleave {
    /// Stream at each position of the period, and how many of its batches precede.
    slots: Vec<(u32, u32)>,
    /// Batches of each stream per period.
    weights: Vec<u64>,
}

impl Interleave {
    /// Interleaves streams in proportion to `weights`, which are positive and finite.
    pub fn new(weights: &[f64]) -> Self {
        let weights = whole_weights(weights);
        let period: u64 = weights.iter().sum();
        let mut counts = vec![0u64; weights.len()];
        let mut slots = Vec::with_capacity(period as usize);
        for t in 0..period {
            let due = (0..weights.len())
                .filter(|&i| counts[i] * period / weights[i] <= t)
                .min_by_key(|&i| {
                    let released = counts[i] * period / weights[i];
                    (((counts[i] + 1) * period).div_ceil(weights[i]), released)
                })
                .expect("the earliest-deadline order of a full load is never idle");
            slots.push((due as u32, counts[due] as u32));
            counts[due] += 1;
        }
        Self { slots, weights }
    }

    /// The stream at position `t`, and the number of its batches before.
    pub fn at(&self, t: u64) -> (usize, u64) {
        let period = self.slots.len() as u64;
        let (stream, before) = self.slots[(t % period) as usize];
        (stream as usize, t / period * self.weights[stream as usize] + u64::from(before))
    }
}

/// Integers in the same proportion: exact if their sum is at most [`MAX_PERIOD`], else rounded to it.
fn whole_weights(weights: &[f64]) -> Vec<u64> {
    let smallest = weights.iter().copied().fold(f64::INFINITY, f64::min);
    let total: f64 = weights.iter().sum();
    for multiple in 1..=MAX_PERIOD {
        let unit = multiple as f64 / smallest;
        if total * unit > MAX_PERIOD as f64 {
            break;
        }
        if weights.iter().all(|w| ((w * unit).round() - w * unit).abs() < 1e-9 * (w * unit)) {
            return weights.iter().map(|w| (w * unit).round() as u64).collect();
        }
    }
    weights.iter().map(|w| ((w / total * MAX_PERIOD as f64).round() as u64).max(1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn thirds_and_halves_become_small_integers() {
        assert_eq!(whole_weights(&[1.0, 1.0 / 3.0]), [3, 1]);
        assert_eq!(whole_weights(&[0.5, 0.75, 1.25]), [2, 3, 5]);
    }

    #[test]
    fn two_to_one_is_spread_evenly() {
        let mix = Interleave::new(&[2.0, 1.0]);
        let streams: Vec<usize> = (0..6).map(|t| mix.at(t).0).collect();
        assert_eq!(streams, [0, 1, 0, 0, 1, 0]);
    }

    proptest! {
        #[test]
        fn every_prefix_is_within_one_batch_of_every_share(
            weights in proptest::collection::vec(1u32..40, 1..7), periods in 1u64..3,
        ) {
            let total: u64 = weights.iter().map(|&w| u64::from(w)).sum();
            let mix = Interleave::new(&weights.iter().map(|&w| f64::from(w)).collect::<Vec<_>>());
            let mut counts = vec![0u64; weights.len()];
            for t in 0..periods * total {
                let (stream, before) = mix.at(t);
                prop_assert_eq!(before, counts[stream]);
                counts[stream] += 1;
                for (count, &w) in counts.iter().zip(&weights) {
                    let (have, share) = (count * total, (t + 1) * u64::from(w));
                    prop_assert!(have.abs_diff(share) < total, "{} of {} after {}", have, share, t + 1);
                }
            }
        }
    }
}
