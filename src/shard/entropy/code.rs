//! A Huffman code of bytes, its words as the format numbers them, and streams in it.

use super::{Counts, weights};
use multiversion::multiversion;

/// The format's bound of a word's length in bits.
const MAX_BITS: usize = 11;

/// Lengths of the words in bits (0 where a value has none), and the words.
pub(super) struct Code {
    lengths: [u8; 256],
    words: [u32; 256],
}

impl Code {
    /// The best code for these counts, but for the bound of the words' lengths. None for fewer than two values.
    pub(super) fn new(counts: &Counts) -> Option<Self> {
        let mut values: Vec<u8> = (0..=255).filter(|&value| counts[usize::from(value)] > 0).collect();
        if values.len() < 2 {
            return None;
        }
        values.sort_unstable_by_key(|&value| (counts[usize::from(value)], value));
        let leaves: Vec<u32> = values.iter().map(|&value| counts[usize::from(value)]).collect();
        let mut lengths = [0; 256];
        let mut values = values.into_iter();
        for (length, n) in bounded(&leaf_depths(&leaves)).into_iter().enumerate().rev() {
            values.by_ref().take(n).for_each(|value| lengths[usize::from(value)] = length as u8);
        }
        Some(Self { lengths, words: words(&lengths) })
    }

    /// The code as a frame carries it: weights of all values but the last, entropy-coded. None for codes of which
    /// that is longer than the format allows.
    pub(super) fn description(&self) -> Option<Vec<u8>> {
        let longest = self.lengths.iter().max()?;
        let last = self.lengths.iter().rposition(|&length| length > 0)?;
        let weight = |&length: &u8| if length == 0 { 0 } else { longest + 1 - length };
        let weights: Vec<u8> = self.lengths[..last].iter().map(weight).collect();
        let coded = weights::encode(&weights)?;
        // Greater first bytes mean weights that are not coded.
        let length = u8::try_from(coded.len()).ok().filter(|&n| n < 128)?;
        Some([&[length], &coded[..]].concat())
    }
}

/// Depth of every leaf in the Huffman tree of `leaves`, which ascend.
fn leaf_depths(leaves: &[u32]) -> Vec<usize> {
    let n = leaves.len();
    // Leaves, then the inner nodes in the order in which they are made, which ascends too.
    let mut counts: Vec<u64> = leaves.iter().map(|&n| u64::from(n)).collect();
    let mut parents = vec![0; 2 * n - 1];
    let (mut leaf, mut inner) = (0, n);
    for made in n..2 * n - 1 {
        let mut smallest = || {
            let takes_leaf = leaf < n && (inner >= counts.len() || counts[leaf] <= counts[inner]);
            let place = if takes_leaf { &mut leaf } else { &mut inner };
            *place += 1;
            parents[*place - 1] = made;
            counts[*place - 1]
        };
        let sum = smallest() + smallest();
        counts.push(sum);
    }
    let mut depths = vec![0; 2 * n - 1];
    (0..2 * n - 2).rev().for_each(|node| depths[node] = depths[parents[node]] + 1);
    depths.truncate(n);
    depths
}

/// How many words of each length there are when none is longer than [`MAX_BITS`].
fn bounded(depths: &[usize]) -> [usize; MAX_BITS + 1] {
    let mut n_words = [0; MAX_BITS + 1];
    for &depth in depths {
        n_words[depth.min(MAX_BITS)] += 1;
    }
    // Space in units of the longest word's. Two of the words made too short cost less when a shorter one is split.
    let mut used: usize = n_words.iter().enumerate().skip(1).map(|(bits, n)| n << (MAX_BITS - bits)).sum();
    while used > 1 << MAX_BITS {
        n_words[MAX_BITS] -= 1;
        let split = (1..MAX_BITS).rev().find(|&bits| n_words[bits] > 0).expect("256 words fit 11 bits");
        n_words[split] -= 1;
        n_words[split + 1] += 2;
        used -= 1;
    }
    n_words
}

/// The format's words for these lengths: the longest begin at 0, and equal lengths follow the values.
fn words(lengths: &[u8; 256]) -> [u32; 256] {
    let mut next = [0u32; MAX_BITS + 1];
    let mut first = 0;
    for bits in (1..=MAX_BITS).rev() {
        next[bits] = first;
        first = (first + lengths.iter().filter(|&&length| usize::from(length) == bits).count() as u32) >> 1;
    }
    lengths.map(|length| {
        let word = next[usize::from(length)];
        next[usize::from(length)] += 1;
        word
    })
}

/// The words of a code as streams are made of them: at the top of 64 bits, and their lengths at the bottom, from
/// where a shift reads them (zstd's library has the same trick).
pub(super) struct Words([u64; 256]);

/// Lengths are below 16, and sums of five of them below 64.
const LENGTH: u64 = 15;
const LENGTHS: u64 = 63;

impl Words {
    pub(super) fn new(code: &Code) -> Self {
        let entry = |i: usize| {
            let length = u32::from(code.lengths[i]);
            // A value without a word has length 0, and the shift is out of range.
            u64::from(code.words[i]).checked_shl(64 - length).map_or(0, |word| word | u64::from(length))
        };
        Self(std::array::from_fn(entry))
    }

    /// Writes one stream of words, from its last to its first as they are read backwards, and gives its length
    /// in bytes; none if `out` is too short. Every one of `values` must have a word.
    pub(super) fn encode(&self, values: &[u8], out: &mut [u8]) -> Option<usize> {
        encode_stream(&self.0, values, out)
    }
}

#[multiversion(targets("x86_64+avx2+bmi1+bmi2"))]
fn encode_stream(words: &[u64; 256], values: &[u8], out: &mut [u8]) -> Option<usize> {
    // The newest bits are at the top; `n` of them are not written.
    let (mut bits, mut n, mut at) = (0u64, 0u64, 0);
    let (fives, rest) = values.as_chunks::<5>();
    for &value in rest.iter().rev() {
        let word = words[usize::from(value)];
        bits = bits >> (word & LENGTH) | (word & !LENGTH);
        n += word & LENGTH;
    }
    let mut write = |bits: u64, n: u64| {
        *out.get_mut(at..)?.first_chunk_mut()? = (bits >> ((64 - n) & 63)).to_le_bytes();
        at += (n / 8) as usize;
        Some((at, n % 8))
    };
    if n > 0 {
        n = write(bits, n)?.1;
    }
    for five in fives.iter().rev() {
        // Five words of 11 bits at most and 7 bits from before fit.
        let [e, d, c, b, a] = five.map(|value| words[usize::from(value)]);
        let (low, high) = (a >> (b & LENGTHS) | b, c >> (d & LENGTHS) | d);
        let high_length = c.wrapping_add(d).wrapping_add(e);
        let high = high >> (e & LENGTHS) | (e & !LENGTH);
        let length = a.wrapping_add(b).wrapping_add(high_length) & LENGTHS;
        bits = bits >> length | low >> (high_length & LENGTHS) | high;
        n = write(bits, n + length)?.1;
    }
    // A one marks the end.
    let (end, _) = write(bits >> 1 | 1 << 63, n + 1)?;
    Some(end + usize::from(n < 7))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_as_the_format_numbers_them() {
        // The example of RFC 8878, 4.2.1.3: literals 0 to 5 of 1, 2, 3, 4 (two) and, for 3, no bits.
        let mut lengths = [0; 256];
        lengths[..6].copy_from_slice(&[1, 2, 3, 0, 4, 4]);
        assert_eq!(words(&lengths)[..6], [1, 1, 1, 0, 0, 1]);
    }

    #[test]
    fn lengths_are_bounded_and_use_all_space() {
        // Fibonacci numbers make the deepest trees.
        let mut counts: Counts = [0; 256];
        let (mut a, mut b) = (1, 1);
        for n in counts.iter_mut().take(40) {
            *n = a;
            (a, b) = (b, a + b);
        }
        let mut two = [0; 256];
        two[7..9].copy_from_slice(&[5, 1]);
        for counts in [counts, [1; 256], two] {
            let code = Code::new(&counts).unwrap();
            let used: u32 = code.lengths.iter().filter(|&&n| n > 0).map(|&n| 1 << (MAX_BITS as u8 - n)).sum();
            assert_eq!(used, 1 << MAX_BITS);
            let rarer = |a: usize, b: usize| counts[a] < counts[b] && code.lengths[a] > 0;
            assert!((0..256).all(|b| (0..256).all(|a| !rarer(a, b) || code.lengths[a] >= code.lengths[b])));
        }
        assert!(Code::new(&[0; 256]).is_none());
    }
}
