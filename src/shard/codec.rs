//! One block in and out of its stored form.
//!
//! Photographs have few repeated byte strings, so plain zstd gains little on them. The row filter
//! replaces each byte by its difference from the byte one line before, as PNG's filter "up" does;
//! differences are small numbers, and undoing it is an addition of whole lines. Bit planes of such
//! differences are smaller still and faster both ways; zstd is for columns of numbers, and for pictures that
//! repeat themselves.

use super::layout::Codec;
use super::planes;
use super::schema::{Pixels, Raster};
use multiversion::multiversion;
use std::cell::RefCell;
use zstd::bulk::{Compressor, Decompressor};

/// Level at which zstd is asked for columns only.
const COLUMNS_ONLY: i32 = 0;
/// zstd's codecs are tried on so many pieces of a block, of about so many bytes; the better one gets the whole.
const TRIAL_PIECES: usize = 4;
const TRIAL_BYTES: usize = 4 << 10;

thread_local! {
    static FILTERED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static COMPRESSOR: RefCell<Option<(i32, Compressor<'static>)>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Stores `raw`, which lies as `raster` says, in the smallest of the codecs' forms; at level 0, zstd is tried on
/// columns of numbers only. A block that does not shrink by at least 1/64 stays as it is: reading it must be worth
/// something.
pub fn encode(raw: &[u8], raster: Raster, level: i32) -> std::io::Result<(Codec, Vec<u8>)> {
    let planes = (raster.pixels != Pixels::None).then(|| (Codec::Planes, planes::encode(raw, raster)));
    let smallest = match planes {
        Some(planes) if level == COLUMNS_ONLY => planes,
        Some(planes) => {
            let frame = frame(raw, raster.line_bytes, level)?;
            if frame.1.len() < planes.1.len() { frame } else { planes }
        }
        None => frame(raw, raster.line_bytes, if level == COLUMNS_ONLY { 1 } else { level })?,
    };
    let shrinks = smallest.1.len() + raw.len().div_ceil(64) <= raw.len();
    Ok(if shrinks { smallest } else { (Codec::Raw, raw.to_vec()) })
}

/// One frame of zstd of the bytes or of their line differences, whichever seems smaller.
fn frame(raw: &[u8], line_bytes: usize, level: i32) -> std::io::Result<(Codec, Vec<u8>)> {
    FILTERED.with_borrow_mut(|filtered| {
        let trial = sample(raw, line_bytes);
        filter_lines(&trial, line_bytes, filtered);
        if compress(filtered, level)?.len() >= compress(&trial, level)?.len() {
            return Ok((Codec::Zstd, compress(raw, level)?));
        }
        filter_lines(raw, line_bytes, filtered);
        Ok((Codec::ZstdLines, compress(filtered, level)?))
    })
}

/// Whole lines from evenly spread places.
fn sample(raw: &[u8], line_bytes: usize) -> Vec<u8> {
    let line_bytes = line_bytes.max(1);
    let piece = TRIAL_BYTES.next_multiple_of(line_bytes);
    let stride = (raw.len() / TRIAL_PIECES / line_bytes * line_bytes).max(piece);
    let pieces = raw.chunks(stride).take(TRIAL_PIECES).map(|part| &part[..part.len().min(piece)]);
    pieces.collect::<Vec<_>>().concat()
}

/// Decodes `stored` into `out`, whose length is the block's exact decoded length.
pub fn decode(codec: Codec, raster: Raster, stored: &[u8], out: &mut [u8]) -> Result<(), String> {
    let n = match codec {
        Codec::Raw if stored.len() == out.len() => {
            out.copy_from_slice(stored);
            out.len()
        }
        Codec::Raw => stored.len(),
        Codec::Planes => return planes::decode(stored, raster, out),
        Codec::Zstd | Codec::ZstdLines => decompress(stored, out).map_err(|e| format!("zstd: {e}"))?,
    };
    if n != out.len() {
        return Err(format!("{n} bytes decoded, {} expected", out.len()));
    }
    if codec == Codec::ZstdLines {
        sum_lines(out, raster.line_bytes);
    }
    Ok(())
}

fn compress(raw: &[u8], level: i32) -> std::io::Result<Vec<u8>> {
    COMPRESSOR.with_borrow_mut(|slot| {
        let compressor = match slot {
            Some((at, compressor)) if *at == level => compressor,
            other => &mut other.insert((level, Compressor::new(level)?)).1,
        };
        compressor.compress(raw)
    })
}

fn decompress(stored: &[u8], out: &mut [u8]) -> std::io::Result<usize> {
    DECOMPRESSOR.with_borrow_mut(|slot| {
        let decompressor = match slot {
            Some(decompressor) => decompressor,
            none => none.insert(Decompressor::new()?),
        };
        decompressor.decompress_to_buffer(stored, out)
    })
}

/// Each byte less the one `line_bytes` before; the first line stays.
#[multiversion(targets("x86_64+avx2", "x86_64+sse4.1"))]
fn filter_lines(raw: &[u8], line_bytes: usize, out: &mut Vec<u8>) {
    let first = line_bytes.clamp(1, raw.len().max(1)).min(raw.len());
    out.clear();
    out.extend_from_slice(&raw[..first]);
    out.extend(raw[first..].iter().zip(raw).map(|(byte, above)| byte.wrapping_sub(*above)));
}

/// Adds to each line the one before.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl", "x86_64+avx2", "x86_64+sse4.1"))]
pub(super) fn sum_lines(out: &mut [u8], line_bytes: usize) {
    /// Bytes of a line whose sums stay in registers: what was stored just now takes long to load again, most of all
    /// where lines do not begin at multiples of this.
    const COLUMNS: usize = 64;
    let line_bytes = line_bytes.max(1);
    let in_columns = line_bytes / COLUMNS * COLUMNS;
    let (lines, last) = out.split_at_mut(out.len() / line_bytes * line_bytes);
    for start in (0..in_columns).step_by(COLUMNS) {
        let mut sums = [0u8; COLUMNS];
        for line in lines.chunks_exact_mut(line_bytes) {
            for (sum, byte) in sums.iter_mut().zip(&mut line[start..][..COLUMNS]) {
                *sum = sum.wrapping_add(*byte);
                *byte = *sum;
            }
        }
    }
    let add = |bytes: &mut [u8], above: &[u8]| {
        bytes.iter_mut().zip(above).for_each(|(byte, above)| *byte = byte.wrapping_add(*above));
    };
    // Lines that are all columns are done.
    let mut rest = if in_columns < line_bytes { &mut *lines } else { &mut [] };
    while let Some((above, below)) = rest.split_at_mut_checked(line_bytes).filter(|(_, b)| !b.is_empty()) {
        add(&mut below[in_columns..line_bytes], &above[in_columns..]);
        rest = below;
    }
    if let Some(above) = lines.len().checked_sub(line_bytes) {
        add(last, &lines[above..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn noise(n: u64) -> Vec<u8> {
        (0..n).map(|i| crate::base::rng::mix64(i) as u8).collect()
    }

    /// Noise in which every line resembles the one above.
    fn lines() -> Vec<u8> {
        let first = noise(64);
        (0..200u8).flat_map(|y| first.iter().map(move |v| v.wrapping_add(y.wrapping_mul(3)))).collect()
    }

    /// Lines that resemble the one above, more so on one side.
    fn soft() -> Vec<u8> {
        let mut raw = noise(200 * 64);
        for i in 64..raw.len() {
            raw[i] = raw[i - 64].wrapping_add_signed(raw[i].cast_signed() >> (2 + i % 64 / 11));
        }
        raw
    }

    const NUMBERS: Raster = Raster { line_bytes: 64, pixels: Pixels::None };
    const GRAY: Raster = Raster { line_bytes: 64, pixels: Pixels::Gray };

    #[test]
    fn each_content_gets_its_codec_and_comes_back() {
        for (raw, numbers, level_0, level_3) in [
            (vec![7; 1000], Codec::Zstd, Codec::Planes, Codec::Zstd),
            (noise(999), Codec::Raw, Codec::Raw, Codec::Raw),
            (lines(), Codec::ZstdLines, Codec::Planes, Codec::ZstdLines),
            (soft(), Codec::ZstdLines, Codec::Planes, Codec::Planes),
        ] {
            for (raster, level, expected) in
                [(NUMBERS, 0, numbers), (NUMBERS, 3, numbers), (GRAY, 0, level_0), (GRAY, 3, level_3)]
            {
                let (codec, stored) = encode(&raw, raster, level).unwrap();
                assert_eq!(codec, expected, "level {level}");
                let mut out = vec![0; raw.len()];
                decode(codec, raster, &stored, &mut out).unwrap();
                assert_eq!(out, raw);
                // Planes have no end within a group but where a value is not zero.
                let fewer = if codec == Codec::Planes { 8 } else { 1 };
                assert!(decode(codec, raster, &stored, &mut out[fewer..]).is_err());
            }
        }
    }

    proptest! {
        #[test]
        fn the_row_filter_is_undone(raw in proptest::collection::vec(any::<u8>(), 0..400), line in 1usize..90) {
            let mut out = Vec::new();
            filter_lines(&raw, line, &mut out);
            sum_lines(&mut out, line);
            prop_assert_eq!(out, raw);
        }
    }
}
