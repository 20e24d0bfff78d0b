//! Images of bytes in few bits: bit planes of differences.
//!
//! Neighbours in a photograph are alike, so that the difference of a pixel from the one above it is a small number;
//! in colour, so is the difference of red and of blue from green. Eight differences are a matrix of 8 × 8 bits.
//! Transposed, its rows are planes, of which only those up to the highest bit that is set are stored. How many those
//! are follows the picture, which a code for a whole block cannot; and nothing in it waits for the bit before.

use super::layout::ALIGN;
use super::schema::{Pixels, Raster};
use multiversion::multiversion;
use std::cell::RefCell;

/// Values whose bits are transposed together.
const GROUP: usize = 8;
/// Groups that are coded together: their counts are one 32-bit word.
const GROUPS: usize = 8;
const CHUNK: usize = GROUP * GROUPS;
/// The groups of a chunk lie in so many bytes, and eight are read at the start of each.
const WINDOW: usize = CHUNK + GROUP;
/// So many bytes are transposed in a row: the loops that store and load groups have to be others than those that
/// transpose them, or the compiler makes no vectors of these.
const PIECE: usize = 4 << 10;

thread_local! {
    /// Values that are coded next, after the line above them; counts and planes before their length is known.
    static SCRATCH: RefCell<(Vec<u8>, Vec<u8>)> = const { RefCell::new((Vec::new(), Vec::new())) };
}

/// The form that `raw` has as planes, which may be longer.
pub(super) fn encode(raw: &[u8], raster: Raster) -> Vec<u8> {
    let line = raster.line_bytes.max(1);
    // Part after part, so that what is worked on stays in the nearest cache.
    let part_bytes = match raster.pixels {
        Pixels::Colour { plane } => 3 * plane,
        _ => PIECE.max(4 * line),
    };
    let whole = raw.len().next_multiple_of(CHUNK);
    SCRATCH.with_borrow_mut(|(values, out)| {
        out.resize(out.len().max(whole / GROUP / 2 + whole + WINDOW), 0);
        let (counts, planes) = out.split_at_mut(whole / GROUP / 2);
        values.clear();
        values.resize(line, 0);
        let (mut n_coded, mut at) = (0, 0);
        for (i, part) in raw.chunks(part_bytes).enumerate() {
            match raster.pixels {
                Pixels::Colour { plane } => append_less_green(part, plane, values),
                _ => values.extend_from_slice(part),
            }
            if (i + 1) * part_bytes >= raw.len() {
                // What fills the last chunk differs from nothing.
                (raw.len()..whole).for_each(|_| values.push(values[values.len() - line]));
            }
            let n = (values.len() - line) / CHUNK * CHUNK;
            at += code(
                &values[..n],
                &values[line..][..n],
                &mut counts[n_coded / GROUP / 2..],
                &mut planes[at..],
            );
            n_coded += n;
            values.drain(..n);
        }
        let counts = &counts[..raw.len().div_ceil(GROUP).div_ceil(2)];
        // A file has zeros up to such a place after it.
        let mut stored = Vec::with_capacity((counts.len() + at).next_multiple_of(ALIGN as usize));
        stored.extend_from_slice(counts);
        stored.extend_from_slice(&planes[..at]);
        stored
    })
}

/// Decodes `stored` into `out`, whose length is the block's.
pub(super) fn decode(stored: &[u8], raster: Raster, out: &mut [u8]) -> Result<(), String> {
    let n_groups = out.len().div_ceil(GROUP);
    let (counts, planes) =
        stored.split_at_checked(n_groups.div_ceil(2)).ok_or("planes: cut within the counts")?;
    if n_groups % 2 == 1 && counts.last().is_some_and(|byte| byte >> 4 != 0) {
        return Err("planes: more groups than expected".to_owned());
    }
    let (sum, most) = totals(counts);
    if most > GROUP || sum != planes.len() {
        return Err(format!("planes: {sum} expected, at most {most} a group, and {} there", planes.len()));
    }
    if !spread(counts, planes, out) {
        return Err("planes: values after the last".to_owned());
    }
    super::codec::sum_lines(out, raster.line_bytes);
    if let Pixels::Colour { plane } = raster.pixels {
        out.chunks_exact_mut(3 * plane).for_each(|image| plus_green(image, plane));
    }
    Ok(())
}

/// Sum and maximum of the numbers of planes, two in a byte.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl", "x86_64+avx2", "x86_64+sse4.1"))]
fn totals(counts: &[u8]) -> (usize, usize) {
    let mut total = (0, 0);
    // A sum of 255 bytes of at most 30 fits 16 bits.
    for part in counts.chunks(255) {
        let sum: u16 = part.iter().map(|byte| u16::from(byte & 15) + u16::from(byte >> 4)).sum();
        let most = part.iter().map(|byte| (byte & 15).max(byte >> 4)).max();
        total = (total.0 + usize::from(sum), total.1.max(usize::from(most.unwrap_or(0))));
    }
    total
}

/// A matrix of 8 × 8 bits, its rows the bytes from the lowest, with rows for columns: three rounds that exchange
/// squares of 1, 2 and 4 (Warren, Hacker's Delight, section 7-3).
#[inline]
fn transposed(mut x: u64) -> u64 {
    for (distance, squares) in [(7, 0x00AA_00AA_00AA_00AA), (14, 0x0000_CCCC_0000_CCCC), (28, 0xF0F0_F0F0)] {
        let exchanged = (x ^ x >> distance) & squares;
        x ^= exchanged ^ exchanged << distance;
    }
    x
}

/// Writes the planes of the differences of `values` from `above`, and their numbers to `counts`. Gives the number of
/// planes.
fn code(above: &[u8], values: &[u8], counts: &mut [u8], planes: &mut [u8]) -> usize {
    #[cfg(target_arch = "x86_64")]
    if let Some(n) = crate::base::avx512::code_planes(above, values, counts, planes) {
        return n;
    }
    code_portably(above, values, counts, planes)
}

fn code_portably(above: &[u8], values: &[u8], counts: &mut [u8], planes: &mut [u8]) -> usize {
    let mut at = 0;
    let mut groups = [0; PIECE / GROUP];
    let pieces = values.chunks(PIECE).zip(above.chunks(PIECE));
    for ((values, above), counts) in pieces.zip(counts.chunks_mut(PIECE / GROUP / 2)) {
        let groups = &mut groups[..values.len() / GROUP];
        transpose_differences(above, values, groups);
        at += store(groups, counts, &mut planes[at..]);
    }
    at
}

/// Differences of `values` from `above`, eight bytes a group, as planes.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl", "x86_64+avx2", "x86_64+sse4.1"))]
fn transpose_differences(above: &[u8], values: &[u8], groups: &mut [u64]) {
    let mut differences = [0; PIECE];
    for ((to, value), above) in differences.iter_mut().zip(values).zip(above) {
        // Two's complement would set all high bits of a small negative number: the sign goes lowest.
        let difference = value.wrapping_sub(*above).cast_signed();
        *to = (difference << 1 ^ difference >> 7).cast_unsigned();
    }
    for (group, bytes) in groups.iter_mut().zip(differences.as_chunks().0) {
        *group = transposed(u64::from_be_bytes(*bytes));
    }
}

#[multiversion(targets("x86_64+lzcnt"))]
fn store(groups: &[u64], counts: &mut [u8], planes: &mut [u8]) -> usize {
    let mut at = 0;
    for (groups, counts) in groups.as_chunks::<GROUPS>().0.iter().zip(counts.as_chunks_mut().0) {
        let Some(window) = planes[at..].first_chunk_mut::<WINDOW>() else {
            unreachable!("room for all planes")
        };
        let (mut start, mut word) = (0, 0u32);
        for (i, group) in groups.iter().enumerate() {
            let n = (71 - group.leading_zeros()) / 8;
            // At most 56; the compiler is told so.
            let room =
                window[start as usize & 63..].first_chunk_mut().expect("72 bytes, and at most 63 before");
            *room = group.to_le_bytes();
            start += n;
            word |= n << (4 * i);
        }
        *counts = word.to_le_bytes();
        at += start as usize;
    }
    at
}

/// Fills `out` with the differences of which `planes` are stored. `counts` are at most 8 each and sum to their number.
/// Says whether what follows in the last group is zero, as it should be.
fn spread(counts: &[u8], planes: &[u8], out: &mut [u8]) -> bool {
    let whole = out.len() / CHUNK;
    let last = whole * GROUPS / 2;
    let at = spread_chunks(&counts[..last], planes, &mut out[..whole * CHUNK]);
    let (mut rest, mut word) = ([0; CHUNK], [0; GROUPS / 2]);
    word[..counts.len() - last].copy_from_slice(&counts[last..]);
    spread_chunks(&word, &planes[at..], &mut rest);
    let out = &mut out[whole * CHUNK..];
    let (rest, after) = rest.split_at(out.len());
    out.copy_from_slice(rest);
    after.iter().all(|&value| value == 0)
}

/// [`spread`] of whole chunks. Gives the number of planes that they have.
fn spread_chunks(counts: &[u8], planes: &[u8], out: &mut [u8]) -> usize {
    #[cfg(target_arch = "x86_64")]
    if let Some(n) = crate::base::avx512::spread_planes(counts, planes, out) {
        return n;
    }
    spread_portably(counts, planes, out)
}

fn spread_portably(counts: &[u8], planes: &[u8], out: &mut [u8]) -> usize {
    let mut at = 0;
    let mut groups = [0; PIECE / GROUP];
    for (counts, out) in counts.chunks(PIECE / GROUP / 2).zip(out.chunks_mut(PIECE)) {
        let groups = &mut groups[..out.len() / GROUP];
        at += load(counts, &planes[at..], groups);
        transpose_planes(groups, out);
    }
    at
}

fn load(counts: &[u8], planes: &[u8], groups: &mut [u64]) -> usize {
    const FIRST: [u64; GROUP + 1] =
        [0, 0xFF, 0xFFFF, 0xFF_FFFF, 0xFFFF_FFFF, u64::MAX >> 24, u64::MAX >> 16, u64::MAX >> 8, u64::MAX];
    let mut at = 0;
    let mut end = [0; WINDOW];
    for (counts, groups) in counts.as_chunks().0.iter().zip(groups.as_chunks_mut::<GROUPS>().0) {
        let window = planes[at..].first_chunk::<WINDOW>().unwrap_or_else(|| {
            end = [0; WINDOW];
            end[..planes.len() - at].copy_from_slice(&planes[at..]);
            &end
        });
        let n = nibbles(u32::from_le_bytes(*counts));
        // Byte k of the product is the sum of the first k + 1 counts.
        let ends = n.wrapping_mul(0x0101_0101_0101_0101);
        let (n, starts) = (n.to_le_bytes(), (ends - n).to_le_bytes());
        for ((group, n), start) in groups.iter_mut().zip(n).zip(starts) {
            let bytes =
                window[usize::from(start & 63)..].first_chunk().expect("72 bytes, and at most 63 before");
            *group = u64::from_le_bytes(*bytes) & FIRST[usize::from(n).min(GROUP)];
        }
        at += (ends >> 56) as usize;
    }
    at
}

/// Undoes [`transpose_differences`] up to the differences.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl", "x86_64+avx2", "x86_64+sse4.1"))]
fn transpose_planes(groups: &[u64], out: &mut [u8]) {
    for (out, group) in out.as_chunks_mut().0.iter_mut().zip(groups) {
        *out = transposed(*group).to_be_bytes();
    }
    for value in out {
        *value = *value >> 1 ^ (*value & 1).wrapping_neg();
    }
}

/// The eight nibbles of a word as bytes, the lowest first.
#[inline]
fn nibbles(word: u32) -> u64 {
    let x = u64::from(word);
    let x = (x | x << 16) & 0x0000_FFFF_0000_FFFF;
    let x = (x | x << 8) & 0x00FF_00FF_00FF_00FF;
    (x | x << 4) & 0x0F0F_0F0F_0F0F_0F0F
}

/// Appends red less green, green, blue less green of one image.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl", "x86_64+avx2", "x86_64+sse4.1"))]
fn append_less_green(image: &[u8], plane: usize, values: &mut Vec<u8>) {
    let (red, rest) = image.split_at(plane);
    let (green, blue) = rest.split_at(plane);
    values.extend(red.iter().zip(green).map(|(value, green)| value.wrapping_sub(*green)));
    values.extend_from_slice(green);
    values.extend(blue.iter().zip(green).map(|(value, green)| value.wrapping_sub(*green)));
}

/// Undoes [`append_less_green`].
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl", "x86_64+avx2", "x86_64+sse4.1"))]
fn plus_green(image: &mut [u8], plane: usize) {
    let (red, rest) = image.split_at_mut(plane);
    let (green, blue) = rest.split_at_mut(plane);
    red.iter_mut().zip(&*green).for_each(|(value, green)| *value = value.wrapping_add(*green));
    blue.iter_mut().zip(&*green).for_each(|(value, green)| *value = value.wrapping_add(*green));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::mix64;
    use proptest::prelude::*;

    const GRAY: Raster = Raster { line_bytes: 5, pixels: Pixels::Gray };

    fn back(stored: &[u8], raster: Raster, n: usize) -> Result<Vec<u8>, String> {
        let mut out = vec![0; n];
        decode(stored, raster, &mut out).map(|()| out)
    }

    #[test]
    fn stored_bytes_are_as_documented() {
        // Differences 1, -1, 2, 0, 0 with the sign lowest: 2, 1, 4, 0, 0; the second line repeats the first.
        let raw = [1, 255, 2, 0, 0, 1, 255, 2, 0, 0];
        assert_eq!(encode(&raw, GRAY), [3, 0b0100_0000, 0b1000_0000, 0b0010_0000]);
        assert_eq!(back(&[3, 0x40, 0x80, 0x20], GRAY, 10).unwrap(), raw);
        // 200, 100, 50 as red, green and blue: 100, 100 - 100, 50 - 100 - 100 down one column.
        let colour = Raster { line_bytes: 1, pixels: Pixels::Colour { plane: 1 } };
        let stored = encode(&[200, 100, 50], colour);
        let values = [100u8, 0, 106].map(u8::cast_signed).map(|v| (v << 1 ^ v >> 7).cast_unsigned());
        assert_eq!(stored[0], 8);
        let bit = |plane: usize| (0..3).map(|i| (values[i] >> plane & 1) << (7 - i)).sum::<u8>();
        assert_eq!(stored[1..], std::array::from_fn::<u8, 8, _>(bit));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let stored = encode(&[1, 255, 2, 0, 0, 1, 255, 2, 0, 0], GRAY);
        for n in 0..stored.len() {
            assert!(back(&stored[..n], GRAY, 10).is_err());
        }
        assert!(back(&[&stored[..], &[0]].concat(), GRAY, 10).is_err());
        // The third value is not zero.
        assert!(back(&[3, 0x40, 0x80, 0x20], GRAY, 2).unwrap_err().contains("after the last"));
        assert!(back(&[&[9][..], &[1; 9]].concat(), GRAY, 8).unwrap_err().contains("at most 9"));
    }

    #[test]
    fn flat_pictures_take_a_sixteenth_and_noise_no_more_than_that_on_top() {
        let noise: Vec<u8> = (0..4096).map(|i| mix64(i) as u8).collect();
        assert!((4096..=4096 + 256).contains(&encode(&noise, GRAY).len()));
        assert!(encode(&[7; 4096], GRAY).len() < 256 + 8);
    }

    proptest! {
        #[test]
        fn images_come_back(
            images in 1usize..4, width in 1usize..20, height in 1usize..20, colour in any::<bool>(),
            spread in 0u32..9, seed in any::<u64>(),
        ) {
            let plane = width * height;
            let pixels = if colour { Pixels::Colour { plane } } else { Pixels::Gray };
            let raster = Raster { line_bytes: width, pixels };
            let raw: Vec<u8> =
                (0..images * 3 * plane).map(|i| (mix64(i as u64 ^ seed) % (1 << spread)) as u8).collect();
            let stored = encode(&raw, raster);
            prop_assert_eq!(back(&stored, raster, raw.len()).unwrap(), raw);
        }

        #[test]
        fn all_processors_agree(
            raw in proptest::collection::vec(any::<u8>(), 0..2000), spread in 0u32..8, line in 1usize..70,
        ) {
            let chunks = raw.len() / CHUNK;
            let values: Vec<u8> = raw.iter().map(|v| v >> (spread * u32::from(*v & 1))).collect();
            let values = &values[..chunks * CHUNK];
            let above = [&vec![0; line], values].concat();
            let mut room = vec![0; 3 * (values.len() + WINDOW)];
            let (counts, planes) = room.split_at_mut(chunks * GROUPS / 2);
            let n = code_portably(&above[..values.len()], values, counts, planes);
            let mut out = vec![0; values.len()];
            prop_assert_eq!(spread_portably(counts, &planes[..n], &mut out), n);
            let mut others = vec![0; room.len()];
            let mut out_others = vec![1; values.len()];
            let (counts, planes) = others.split_at_mut(chunks * GROUPS / 2);
            prop_assert_eq!(code(&above[..values.len()], values, counts, planes), n);
            prop_assert_eq!(spread_chunks(counts, &planes[..n], &mut out_others), n);
            let used = chunks * GROUPS / 2 + n;
            prop_assert_eq!((&room[..used], out), (&others[..used], out_others));
        }

        #[test]
        fn arbitrary_bytes_never_panic(
            stored in proptest::collection::vec(any::<u8>(), 0..300), n in 0usize..300, small in any::<bool>(),
        ) {
            // Counts of at most 8 get further.
            let stored: Vec<u8> = if small { stored.iter().map(|b| b & 0x33).collect() } else { stored };
            let _ = back(&stored, GRAY, n);
        }
    }
}
