//! Keyed, seekable random numbers: every draw is a pure function of (seed, purpose, a, b, n).
//!
//! The generator is Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
//! SC 2011): counter-based, so that any worker, and later a GPU kernel, can ask for the draw of any
//! record without history and get the same answer.

use multiversion::multiversion;

/// What random numbers are drawn for. Two purposes never share a draw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Purpose {
    /// Order of the records of one pass.
    Order = 1,
    /// Augmentation of one record.
    Augment = 2,
    /// Initial weights.
    Init = 3,
    /// Torch's generator within one step: dropout, readout positions.
    Step = 4,
    /// Sample data.
    Synth = 5,
    /// Augmentation of the second view of one record.
    SecondView = 6,
    /// Weights that are drawn anew within a run.
    Reset = 7,
    /// Corruption of one image.
    Corruption = 8,
    /// Seeds that are drawn anew for the spread of a score.
    Bootstrap = 9,
    /// Order or choice of responses that are written as a new set.
    Permute = 10,
    /// Shifts and crops of images that are searched by gradient.
    Search = 11,
    /// Choice of the records that are trained on.
    Choice = 12,
}

/// A key: all randomness of one purpose under one seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RngKey([u32; 2]);

impl RngKey {
    /// Key of `purpose` under `seed`; `lane` separates, say, the streams of one schedule.
    pub fn new(seed: u64, purpose: Purpose, lane: u32) -> Self {
        let mixed = mix64(seed ^ mix64((u64::from(purpose as u32) << 32) | u64::from(lane)));
        Self([mixed as u32, (mixed >> 32) as u32])
    }

    /// The random stream of item `b` in context `a` (a record in an epoch, say).
    pub fn stream(self, a: u32, b: u64) -> Rng {
        Rng { key: self.0, counter: [0, a, b as u32, (b >> 32) as u32], words: [0; 4], used: 4 }
    }

    /// One 64-bit word for item `b` in context `a`.
    pub fn word(self, a: u32, b: u64) -> u64 {
        self.stream(a, b).next_u64()
    }
}

/// What SplitMix64 adds from one output to the next.
pub const GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;

/// SplitMix64's rounds: how far a word is shifted onto itself, and what it is multiplied by then; a shift of
/// [`LAST_SHIFT`] ends them.
pub const MIX: [(u32, u64); 2] = [(30, 0xBF58_476D_1CE4_E5B9), (27, 0x94D0_49BB_1331_11EB)];

/// See [`MIX`].
pub const LAST_SHIFT: u32 = 31;

/// SplitMix64's finaliser: a bijection that spreads every input bit over the output.
pub const fn mix64(mut x: u64) -> u64 {
    x = x.wrapping_add(GAMMA);
    x = (x ^ (x >> MIX[0].0)).wrapping_mul(MIX[0].1);
    x = (x ^ (x >> MIX[1].0)).wrapping_mul(MIX[1].1);
    x ^ (x >> LAST_SHIFT)
}

/// A sequence of random numbers.
#[derive(Debug, Clone)]
pub struct Rng {
    key: [u32; 2],
    counter: [u32; 4],
    words: [u32; 4],
    used: usize,
}

impl Rng {
    /// Uniform over all 32-bit words.
    pub fn next_u32(&mut self) -> u32 {
        if self.used == 4 {
            self.words = philox(self.counter, self.key);
            self.counter[0] = self.counter[0].wrapping_add(1);
            self.used = 0;
        }
        self.used += 1;
        self.words[self.used - 1]
    }

    /// A generator of many words at once, whose states are the next words of this one.
    pub fn bulk(&mut self) -> Bulk {
        Bulk { state: std::array::from_fn(|_| std::array::from_fn(|_| self.next_u32())) }
    }

    /// Uniform over all 64-bit words.
    pub fn next_u64(&mut self) -> u64 {
        u64::from(self.next_u32()) | (u64::from(self.next_u32()) << 32)
    }

    /// Uniform over `0..n`, without bias (Lemire 2019). `n` must not be zero.
    pub fn below(&mut self, n: u32) -> u32 {
        assert!(n > 0, "an empty range has no elements to draw");
        loop {
            let wide = u64::from(self.next_u32()) * u64::from(n);
            let low = wide as u32;
            if low >= n || low >= n.wrapping_neg() % n {
                return (wide >> 32) as u32;
            }
        }
    }

    /// Puts values into random order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, values: &mut [T]) {
        for i in (1..values.len()).rev() {
            values.swap(i, self.below(i as u32 + 1) as usize);
        }
    }

    /// Uniform over [0, 1) with 53 bits.
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Uniform over [`low`, `high`).
    pub fn uniform(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// Standard normal (Box-Muller).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }
}

const ROUND: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// Generators side by side.
const LANES: usize = 16;

/// Many words at once, several times as fast as [`Rng`] makes them: sixteen generators
/// xoshiro128++ (Blackman & Vigna, "Scrambled linear pseudorandom number generators", ACM Transactions on
/// Mathematical Software 47, 2021) with states of their own, one word of each in turn.
#[derive(Debug, Clone)]
pub struct Bulk {
    state: [[u32; LANES]; 4],
}

impl Bulk {
    /// Fills `out` with uniform words. What is left of the last round of words is dropped.
    pub fn fill(&mut self, out: &mut [u32]) {
        let (whole, rest) = out.as_chunks_mut::<LANES>();
        rounds(&mut self.state, whole);
        if !rest.is_empty() {
            let mut last = [[0; LANES]];
            rounds(&mut self.state, &mut last);
            rest.copy_from_slice(&last[0][..rest.len()]);
        }
    }
}

/// One word of each generator for each element of `out`. Whole numbers only: every version gives the same words.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl", "x86_64+avx2", "x86_64+sse4.1"))]
fn rounds(state: &mut [[u32; LANES]; 4], out: &mut [[u32; LANES]]) {
    let [mut a, mut b, mut c, mut d] = *state;
    for out in out {
        for i in 0..LANES {
            out[i] = a[i].wrapping_add(d[i]).rotate_left(7).wrapping_add(a[i]);
            let t = b[i] << 9;
            c[i] ^= a[i];
            d[i] ^= b[i];
            b[i] ^= c[i];
            a[i] ^= d[i];
            c[i] ^= t;
            d[i] = d[i].rotate_left(11);
        }
    }
    *state = [a, b, c, d];
}

/// Philox 4x32 with 10 rounds.
const fn philox(mut x: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    let mut round = 0;
    while round < 10 {
        let a = ROUND[0] as u64 * x[0] as u64;
        let b = ROUND[1] as u64 * x[2] as u64;
        x = [(b >> 32) as u32 ^ x[1] ^ key[0], b as u32, (a >> 32) as u32 ^ x[3] ^ key[1], a as u32];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
        round += 1;
    }
    x
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers of the Random123 distribution (`kat_vectors`, philox4x32 10).
    #[test]
    fn philox_equals_the_published_vectors() {
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(
            philox([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        assert_eq!(
            philox([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn a_draw_depends_on_seed_purpose_lane_context_and_item_only() {
        let word = |seed, purpose, lane, a, b| RngKey::new(seed, purpose, lane).word(a, b);
        let one = word(1, Purpose::Order, 0, 2, 3);
        assert_eq!(one, word(1, Purpose::Order, 0, 2, 3));
        for other in [
            word(2, Purpose::Order, 0, 2, 3),
            word(1, Purpose::Augment, 0, 2, 3),
            word(1, Purpose::Order, 1, 2, 3),
            word(1, Purpose::Order, 0, 3, 3),
            word(1, Purpose::Order, 0, 2, 4),
        ] {
            assert_ne!(one, other);
        }
    }

    /// The first words of the authors' program for the state 1, 2, 3, 4.
    #[test]
    fn every_bulk_generator_is_xoshiro() {
        let known: [u32; 10] = [
            641,
            1_573_767,
            3_222_811_527,
            3_517_856_514,
            836_907_274,
            4_247_214_768,
            3_867_114_732,
            1_355_841_295,
            495_546_011,
            621_204_420,
        ];
        let mut bulk = Bulk { state: [[1; LANES], [2; LANES], [3; LANES], [4; LANES]] };
        let mut words = [0; 10 * LANES];
        bulk.fill(&mut words);
        for (words, known) in words.as_chunks::<LANES>().0.iter().zip(known) {
            assert_eq!(words, &[known; LANES]);
        }
    }

    #[test]
    fn bulk_words_do_not_depend_on_how_many_are_asked_for_at_once() {
        let key = RngKey::new(7, Purpose::Synth, 0);
        let (mut whole, mut rng) = ([0; 5 * LANES + 3], key.stream(1, 2));
        rng.bulk().fill(&mut whole);
        let (mut parts, mut bulk) = ([0; 5 * LANES + 3], key.stream(1, 2).bulk());
        let (first, rest) = parts.split_at_mut(2 * LANES);
        bulk.fill(first);
        bulk.fill(rest);
        assert_eq!(whole, parts);
        // Another stream, and the next ones of this stream, have other words.
        for mut other in [key.stream(1, 3).bulk(), rng.bulk()] {
            other.fill(&mut parts);
            let equal = whole.iter().zip(&parts).filter(|(a, b)| a == b).count();
            assert_eq!(equal, 0);
        }
    }

    #[test]
    fn below_is_uniform_and_stays_below() {
        let mut rng = RngKey::new(7, Purpose::Synth, 0).stream(0, 0);
        let mut counts = [0u32; 9];
        for _ in 0..90_000 {
            counts[rng.below(9) as usize] += 1;
        }
        // Six standard deviations of a binomial with n = 90,000 and p = 1/9.
        assert!(counts.iter().all(|&n| n.abs_diff(10_000) < 566), "{counts:?}");
    }

    #[test]
    fn normal_has_mean_zero_and_variance_one() {
        let mut rng = RngKey::new(7, Purpose::Synth, 1).stream(0, 0);
        let draws: Vec<f64> = (0..100_000).map(|_| rng.normal()).collect();
        let mean = draws.iter().sum::<f64>() / 1e5;
        let variance = draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 1e5;
        assert!(mean.abs() < 0.02 && (variance - 1.0).abs() < 0.03, "{mean} {variance}");
    }
}
