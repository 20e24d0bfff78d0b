//! The reference's splits: permutations by NumPy's legacy generator, seeded 1000 whatever the
//! experiment's seed, so that the same images are held out in every run.

/// NumPy's `RandomState`: MT19937 (Matsumoto and Nishimura 1998).
#[derive(Debug, Clone)]
pub struct LegacyRandom {
    state: [u32; 624],
    used: usize,
}

impl LegacyRandom {
    /// `numpy.random.seed(seed)`.
    pub fn new(seed: u32) -> Self {
        let mut state = [seed; 624];
        for i in 1..624 {
            let previous = state[i - 1];
            state[i] = 1_812_433_253u32.wrapping_mul(previous ^ (previous >> 30)).wrapping_add(i as u32);
        }
        Self { state, used: 624 }
    }

    /// The next 32-bit word.
    pub fn next_u32(&mut self) -> u32 {
        if self.used == 624 {
            self.twist();
        }
        let mut y = self.state[self.used];
        self.used += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9D2C_5680;
        y ^= (y << 15) & 0xEFC6_0000;
        y ^ (y >> 18)
    }

    /// `numpy.random.shuffle`.
    pub fn shuffle<T>(&mut self, values: &mut [T]) {
        for i in (1..values.len()).rev() {
            values.swap(i, self.up_to(i as u32) as usize);
        }
    }

    fn twist(&mut self) {
        for i in 0..624 {
            let y = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % 624] & 0x7FFF_FFFF);
            let odd = if y & 1 == 1 { 0x9908_B0DF } else { 0 };
            self.state[i] = self.state[(i + 397) % 624] ^ (y >> 1) ^ odd;
        }
        self.used = 0;
    }

    /// Uniform over `0..=max`, by masked rejection.
    fn up_to(&mut self, max: u32) -> u32 {
        let mask = u32::MAX.checked_shr(max.leading_zeros()).unwrap_or(0);
        loop {
            let value = self.next_u32() & mask;
            if value <= max {
                return value;
            }
        }
    }
}

/// Which of `n` labelled images validate: true for the first `fraction` of a shuffle.
pub fn image_validation(n: usize, fraction: f64, seed: u32) -> Vec<bool> {
    let mut order: Vec<usize> = (0..n).collect();
    LegacyRandom::new(seed).shuffle(&mut order);
    let mut validates = vec![false; n];
    for &i in &order[..(fraction * n as f64).floor() as usize] {
        validates[i] = true;
    }
    validates
}

/// Which of the image ids 1..=`n` train: the first `fraction` of a permutation. Position 0 is unused.
pub fn neural_training(n: usize, fraction: f64, seed: u32) -> Vec<bool> {
    let mut ids: Vec<usize> = (1..=n).collect();
    LegacyRandom::new(seed).shuffle(&mut ids);
    let mut trains = vec![false; n + 1];
    for &id in &ids[..(n as f64 * fraction) as usize] {
        trains[id] = true;
    }
    trains
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Vectors from NumPy, seed 1000.
    #[test]
    fn words_and_permutations_equal_numpy() {
        let mut random = LegacyRandom::new(1000);
        let words: Vec<u32> = (0..4).map(|_| random.next_u32()).collect();
        assert_eq!(words, [2_807_145_907, 882_709_079, 493_951_047, 2_621_574_848]);
        let mut ids: Vec<u32> = (1..=20).collect();
        LegacyRandom::new(1000).shuffle(&mut ids);
        assert_eq!(ids, [6, 19, 4, 7, 15, 17, 3, 13, 11, 12, 5, 16, 9, 10, 18, 14, 2, 1, 8, 20]);
    }

    #[test]
    fn the_splits_of_the_published_sizes_equal_the_reference() {
        let validates = image_validation(100_000, 0.1, 1000);
        let sum: usize = (0..100_000).filter(|&i| validates[i]).sum();
        assert_eq!((validates.iter().filter(|&&v| v).count(), sum), (10_000, 502_459_713));
        assert!([81_768, 72_785, 16_208].iter().all(|&i: &usize| validates[i]));
        let trains = neural_training(24_075, 0.8, 1000);
        let sum: usize = (1..=24_075).filter(|&id| trains[id]).sum();
        assert_eq!((trains.iter().filter(|&&t| t).count(), sum), (19_260, 231_721_004));
    }
}
