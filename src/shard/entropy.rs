//! zstd frames that hold nothing but Huffman-coded bytes, which any zstd decoder reads (RFC 8878).
//!
//! Photographs gain from entropy coding and from little else. The library counts every byte and looks for
//! repeats; here the code comes from a sample. The coding itself is as fast as the library's.
//! What this is not made for (small blocks, runs of one value) is left to the library.

mod code;
mod weights;

use code::{Code, Words};
use std::cell::RefCell;

/// Smaller contents do not repay the making of a code's tables.
const MIN_BYTES: usize = 32 << 10;
/// The format's bound of a block.
const MAX_BLOCK: usize = 128 << 10;
/// So many bytes of every so many are counted. The stride is a prime number of cache lines, so that the pieces
/// come from all parts of the images.
const PIECE: usize = 1 << 10;
const STRIDE: usize = 113 << 6;
/// If more values than this are missing in the sample, every byte is counted: a code word for a value that
/// does not occur lengthens the others.
const MAX_MISSING: usize = 32;

const MAGIC: [u8; 4] = 0xFD2F_B528_u32.to_le_bytes();
/// One segment, its length in four bytes, no checksum (the shard has one).
const DESCRIPTOR: u8 = 0b1010_0000;
const RAW_BLOCK: u32 = 0;
const COMPRESSED_BLOCK: u32 = 2;
/// Literals with a code of their own, and with the code of the block before.
const OWN_CODE: u64 = 2;
const SAME_CODE: u64 = 3;
/// Four streams, their decoded and stored lengths in 18 bits each.
const FOUR_STREAMS: u64 = 3;
const LITERALS_HEADER: usize = 5;
const BLOCK_HEADER: usize = 3;
const JUMP_TABLE: usize = 6;

thread_local! {
    /// Where a frame is put together, before its length is known.
    static OUT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// How often each byte occurs.
type Counts = [u32; 256];

/// How many 256ths of a bit every eighth sampled piece of `content` holds, about: its entropy in whole numbers, so
/// that every machine finds the same.
pub(super) fn trial(content: &[u8]) -> u64 {
    // The fraction of the logarithm is that of the number: at most 0.09 bits less.
    let log2 = |n: u32| u64::from(n.ilog2() << 8 | n << n.leading_zeros() << 1 >> 24);
    let counts = count_pieces(content, 8 * STRIDE);
    let n_log_n = |n: &u32| if *n == 0 { 0 } else { u64::from(*n) * log2(*n) };
    n_log_n(&counts.iter().sum()).saturating_sub(counts.iter().map(n_log_n).sum())
}

/// One frame of `content`; none if the library does better.
pub(super) fn frame(content: &[u8]) -> Option<Vec<u8>> {
    if content.len() < MIN_BYTES || u32::try_from(content.len()).is_err() {
        return None;
    }
    let code = Code::new(&counts(content)?)?;
    let description = code.description()?;
    let words = Words::new(&code);
    OUT.with_borrow_mut(|out| {
        // The longest code has 11 bits: 3/8 more than the content, and a few bytes for headers.
        let room = content.len() + content.len() / 2 + 1024;
        if out.len() < room {
            out.resize(room, 0);
        }
        out[..4].copy_from_slice(&MAGIC);
        out[4] = DESCRIPTOR;
        out[5..9].copy_from_slice(&(content.len() as u32).to_le_bytes());
        let mut at = 9;
        let mut description = Some(&description[..]);
        let n_blocks = content.len().div_ceil(MAX_BLOCK);
        for (i, part) in content.chunks(content.len().div_ceil(n_blocks)).enumerate() {
            at += block(part, i + 1 == n_blocks, &mut description, &words, &mut out[at..])?;
        }
        Some(out[..at].to_vec())
    })
}

/// Counts a sample, or all if the sample has too few values. None if one value makes half of it.
fn counts(content: &[u8]) -> Option<Counts> {
    let mut counts = count_pieces(content, STRIDE);
    if counts.iter().filter(|&&n| n == 0).count() > MAX_MISSING {
        counts = count_pieces(content, PIECE);
    } else {
        // What the sample has not may still occur.
        counts = counts.map(|n| n + 1);
    }
    let (most, all) = (counts.iter().max()?, counts.iter().sum::<u32>());
    (*most < all / 2).then_some(counts)
}

fn count_pieces(content: &[u8], stride: usize) -> Counts {
    // Four tables: the same value twice in a row would wait for its own count.
    let mut tables = [[0u32; 256]; 4];
    for piece in content.chunks(stride) {
        let (quads, rest) = piece[..piece.len().min(PIECE)].as_chunks::<4>();
        for quad in quads {
            tables.iter_mut().zip(quad).for_each(|(table, &value)| table[usize::from(value)] += 1);
        }
        for &value in rest {
            tables[0][usize::from(value)] += 1;
        }
    }
    let [mut sum, others @ ..] = tables;
    for table in &others {
        sum.iter_mut().zip(table).for_each(|(sum, n)| *sum += n);
    }
    sum
}

/// Writes one block to `out` and gives its length. `description` of the code goes with the first that is coded.
fn block(
    part: &[u8],
    last: bool,
    description: &mut Option<&[u8]>,
    words: &Words,
    out: &mut [u8],
) -> Option<usize> {
    let tree = description.unwrap_or(&[]);
    let streams_at = BLOCK_HEADER + LITERALS_HEADER + tree.len() + JUMP_TABLE;
    let mut at = streams_at;
    let mut lengths = [0; 4];
    for (stream, length) in part.chunks(part.len().div_ceil(4)).zip(&mut lengths) {
        *length = words.encode(stream, out.get_mut(at..)?)?;
        at += *length;
    }
    // The number of sequences: none.
    *out.get_mut(at)? = 0;
    at += 1;
    let header = |kind: u32, size: usize| ((size as u32) << 3 | kind << 1 | u32::from(last)).to_le_bytes();
    if at - BLOCK_HEADER >= part.len() {
        out[..BLOCK_HEADER].copy_from_slice(&header(RAW_BLOCK, part.len())[..BLOCK_HEADER]);
        out.get_mut(BLOCK_HEADER..)?.get_mut(..part.len())?.copy_from_slice(part);
        return Some(BLOCK_HEADER + part.len());
    }
    out[..BLOCK_HEADER].copy_from_slice(&header(COMPRESSED_BLOCK, at - BLOCK_HEADER)[..BLOCK_HEADER]);
    let kind = if description.take().is_some() { OWN_CODE } else { SAME_CODE };
    let stored = tree.len() + JUMP_TABLE + lengths.iter().sum::<usize>();
    let literals = kind | FOUR_STREAMS << 2 | (part.len() as u64) << 4 | (stored as u64) << 22;
    out[BLOCK_HEADER..][..LITERALS_HEADER].copy_from_slice(&literals.to_le_bytes()[..LITERALS_HEADER]);
    out[BLOCK_HEADER + LITERALS_HEADER..][..tree.len()].copy_from_slice(tree);
    for (place, length) in out[streams_at - JUMP_TABLE..streams_at].as_chunks_mut().0.iter_mut().zip(lengths)
    {
        *place = u16::try_from(length).ok()?.to_le_bytes();
    }
    Some(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::mix64;
    use proptest::prelude::*;

    /// Differences of neighbours, as in photographs: small ones are the most frequent.
    fn differences(n: usize, spread: f64, seed: u64) -> Vec<u8> {
        let unit = |i: u64| (mix64(i ^ seed << 40) >> 11) as f64 / (1u64 << 53) as f64;
        let of = |i: u64| {
            let size = -spread * (1.0 - unit(2 * i)).ln();
            (if unit(2 * i + 1) < 0.5 { -size } else { size }) as i64 as u8
        };
        (0..n as u64).map(of).collect()
    }

    /// Through the library, all at once and as a stream.
    fn decoded(frame: &[u8], n: usize) -> Vec<u8> {
        let whole = zstd::bulk::decompress(frame, n).unwrap();
        assert_eq!(zstd::stream::decode_all(frame).unwrap(), whole);
        whole
    }

    #[test]
    fn the_library_reads_what_is_written() {
        for n in [MIN_BYTES, MIN_BYTES + 1, 50_001, MAX_BLOCK, MAX_BLOCK + 1, 258_048, 3 * MAX_BLOCK - 2] {
            for spread in [2.0, 9.0, 40.0] {
                let content = differences(n, spread, n as u64);
                let frame = frame(&content).unwrap();
                assert_eq!(decoded(&frame, n), content, "{n} bytes, {spread}");
                let library = zstd::bulk::compress(&content, 1).unwrap();
                let ratio = frame.len() as f64 / library.len() as f64;
                assert!(ratio < 1.02, "{n} bytes, {spread}: {ratio} of the library's");
            }
        }
    }

    #[test]
    fn a_part_that_does_not_shrink_is_stored_and_the_code_comes_later() {
        // The sample sees mostly small values, and the first block has others.
        let mut content = differences(4 * MAX_BLOCK, 3.0, 1);
        for part in [0, 2] {
            content[part * MAX_BLOCK..][..MAX_BLOCK].copy_from_slice(&differences(MAX_BLOCK, 4000.0, 2));
        }
        let frame = frame(&content).unwrap();
        assert!(frame.len() < content.len());
        assert_eq!(frame[9] >> 1 & 3, RAW_BLOCK as u8);
        assert_eq!(decoded(&frame, content.len()), content);
    }

    #[test]
    fn the_trial_is_near_the_entropy() {
        for spread in [2.0, 9.0, 4000.0] {
            let content = differences(300_000, spread, 3);
            let counts = count_pieces(&content, 8 * STRIDE).map(f64::from);
            let all: f64 = counts.iter().sum();
            let bits: f64 = counts.iter().filter(|&&n| n > 0.0).map(|n| n * (all / n).log2()).sum();
            let found = trial(&content) as f64 / 256.0;
            assert!((found - bits).abs() < 0.1 * all, "{found} bits, expected {bits}");
        }
        assert_eq!(trial(&[3; 5000]), 0);
    }

    #[test]
    fn runs_and_small_contents_are_left_to_the_library() {
        assert!(frame(&vec![7; 100_000]).is_none());
        assert!(frame(&differences(MIN_BYTES - 1, 9.0, 1)).is_none());
        assert!(frame(&differences(100_000, 0.6, 1)).is_none());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        #[test]
        fn any_distribution_comes_back(
            weights in proptest::collection::vec(0u32..2000, 2..256), n in MIN_BYTES..300_000, seed in any::<u64>(),
        ) {
            let ends: Vec<u32> =
                weights.iter().scan(0, |sum, w| { *sum += w; Some(*sum) }).collect();
            let all = u64::from(*ends.last().unwrap()).max(1);
            let value = |i: u64| ends.partition_point(|&end| u64::from(end) <= mix64(i ^ seed) % all) as u8;
            let content: Vec<u8> = (0..n as u64).map(value).collect();
            if let Some(frame) = frame(&content) {
                prop_assert_eq!(decoded(&frame, n), content);
            }
        }
    }
}
