//! One block in and out of its stored form.
//!
//! Photographs have few repeated byte strings, so plain zstd gains little on them. The row filter
//! replaces each byte by its difference from the byte one line before, as PNG's filter "up" does;
//! differences are small numbers, and undoing it is an addition of whole lines.

use super::entropy;
use super::layout::Codec;
use multiversion::multiversion;
use std::cell::RefCell;
use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::{CParameter, ParamSwitch, Strategy};

/// Level of entropy coding alone.
const ENTROPY: i32 = 0;
/// The codecs are tried on so many pieces of a block, of about so many bytes; the better one gets the whole.
const TRIAL_PIECES: usize = 4;
const TRIAL_BYTES: usize = 4 << 10;

thread_local! {
    static FILTERED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static COMPRESSOR: RefCell<Option<(i32, Compressor<'static>)>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Stores `raw`, whose lines have `line_bytes`, in the smallest of the codecs' forms. A block that does
/// not shrink by at least 1/64 stays as it is: reading it must be worth something.
pub fn encode(raw: &[u8], line_bytes: usize, level: i32) -> std::io::Result<(Codec, Vec<u8>)> {
    FILTERED.with_borrow_mut(|filtered| {
        let filters = if level == ENTROPY {
            filter_lines(raw, line_bytes, filtered);
            entropy::trial(filtered) < entropy::trial(raw)
        } else {
            let trial = sample(raw, line_bytes);
            filter_lines(&trial, line_bytes, filtered);
            let filters = compress(filtered, level)?.len() < compress(&trial, level)?.len();
            if filters {
                filter_lines(raw, line_bytes, filtered);
            }
            filters
        };
        let (codec, content) = if filters { (Codec::ZstdLines, &filtered[..]) } else { (Codec::Zstd, raw) };
        let packed = compress(content, level)?;
        let shrinks = packed.len() + raw.len().div_ceil(64) <= raw.len();
        Ok(if shrinks { (codec, packed) } else { (Codec::Raw, raw.to_vec()) })
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
pub fn decode(codec: Codec, line_bytes: usize, stored: &[u8], out: &mut [u8]) -> Result<(), String> {
    let n = match codec {
        Codec::Raw if stored.len() == out.len() => {
            out.copy_from_slice(stored);
            out.len()
        }
        Codec::Raw => stored.len(),
        Codec::Zstd | Codec::ZstdLines => decompress(stored, out).map_err(|e| format!("zstd: {e}"))?,
    };
    if n != out.len() {
        return Err(format!("{n} bytes decoded, {} expected", out.len()));
    }
    if codec == Codec::ZstdLines {
        unfilter_lines(out, line_bytes);
    }
    Ok(())
}

fn compress(raw: &[u8], level: i32) -> std::io::Result<Vec<u8>> {
    if level == ENTROPY
        && let Some(frame) = entropy::frame(raw)
    {
        return Ok(frame);
    }
    COMPRESSOR.with_borrow_mut(|slot| {
        let compressor = match slot {
            Some((at, compressor)) if *at == level => compressor,
            other => &mut other.insert((level, compressor(level)?)).1,
        };
        compressor.compress(raw)
    })
}

/// zstd at `level`. Level 0 is entropy coding alone: after the row filter nearly all of what zstd gains on
/// photographs is Huffman coding, and looking for repeated strings takes longer than that. Most blocks of
/// that level come from [`entropy::frame`], which is faster; the library gets the others.
fn compressor(level: i32) -> std::io::Result<Compressor<'static>> {
    let mut compressor = Compressor::new(if level == ENTROPY { 1 } else { level })?;
    if level == ENTROPY {
        compressor.set_parameter(CParameter::Strategy(Strategy::ZSTD_fast))?;
        // Such a stride between looks passes over all but the plainest repeats.
        compressor.set_parameter(CParameter::TargetLength(1000))?;
        // By itself, zstd would leave out entropy coding at such a stride.
        compressor.set_parameter(CParameter::LiteralCompressionMode(ParamSwitch::Enable))?;
    }
    Ok(compressor)
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

fn unfilter_lines(out: &mut [u8], line_bytes: usize) {
    let line_bytes = line_bytes.max(1);
    let mut rest = out;
    while rest.len() > line_bytes {
        let (above, below) = rest.split_at_mut(line_bytes);
        below.iter_mut().zip(above.iter()).for_each(|(byte, above)| *byte = byte.wrapping_add(*above));
        rest = below;
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

    #[test]
    fn each_content_gets_its_codec_and_comes_back() {
        for (raw, expected) in
            [(vec![7; 1000], Codec::Zstd), (noise(999), Codec::Raw), (lines(), Codec::ZstdLines)]
        {
            for level in [0, 3] {
                let (codec, stored) = encode(&raw, 64, level).unwrap();
                assert_eq!(codec, expected);
                let mut out = vec![0; raw.len()];
                decode(codec, 64, &stored, &mut out).unwrap();
                assert_eq!(out, raw);
                assert!(decode(codec, 64, &stored, &mut out[1..]).is_err());
            }
        }
    }

    proptest! {
        #[test]
        fn the_row_filter_is_undone(raw in proptest::collection::vec(any::<u8>(), 0..400), line in 1usize..90) {
            let mut out = Vec::new();
            filter_lines(&raw, line, &mut out);
            unfilter_lines(&mut out, line);
            prop_assert_eq!(out, raw);
        }
    }
}
