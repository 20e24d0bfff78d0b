//! One block in and out of its stored form.

use super::layout::Codec;

/// Stores `raw`: compressed at `level` if that makes it smaller, else as it is.
pub fn encode(raw: &[u8], level: i32) -> std::io::Result<(Codec, Vec<u8>)> {
    let packed = zstd::bulk::compress(raw, level)?;
    if packed.len() < raw.len() { Ok((Codec::Zstd, packed)) } else { Ok((Codec::Raw, raw.to_vec())) }
}

/// Decodes `stored` into `out`, whose length is the block's exact decoded length.
pub fn decode(codec: Codec, stored: &[u8], out: &mut [u8]) -> Result<(), String> {
    let n = match codec {
        Codec::Raw if stored.len() == out.len() => {
            out.copy_from_slice(stored);
            out.len()
        }
        Codec::Raw => stored.len(),
        Codec::Zstd => zstd::bulk::decompress_to_buffer(stored, out).map_err(|e| format!("zstd: {e}"))?,
    };
    if n == out.len() { Ok(()) } else { Err(format!("{n} bytes decoded, {} expected", out.len())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_shrink_stays_raw_and_both_come_back() {
        let noise: Vec<u8> = (0..999u64).map(|i| crate::base::rng::mix64(i) as u8).collect();
        for (raw, expected) in [(vec![7; 1000], Codec::Zstd), (noise, Codec::Raw)] {
            let (codec, stored) = encode(&raw, 3).unwrap();
            assert_eq!(codec, expected);
            let mut out = vec![0; raw.len()];
            decode(codec, &stored, &mut out).unwrap();
            assert_eq!(out, raw);
            assert!(decode(codec, &stored, &mut out[1..]).is_err());
        }
    }
}
