//! What the compiler has no words for: instructions of newer x86 processors that multiply matrices of bits, close and
//! open gaps between bytes, and add up four products of bytes.
//!
//! Whoever uses these has portable code too and a test that both give the same.
#![expect(unsafe_code, reason = "instructions that not every processor has are behind a question to it")]

use std::arch::x86_64::{
    __m512i, _mm_cvtsi64_si128, _mm_cvtsi128_si64, _mm_popcnt_epi8, _mm_set_epi64x, _mm_shuffle_epi8,
    _mm512_add_epi32, _mm512_cvtepi32_epi64, _mm512_dpbusd_epi32, _mm512_extracti64x4_epi64,
    _mm512_gf2p8affine_epi64_epi8, _mm512_loadu_si512, _mm512_maskz_compress_epi8, _mm512_maskz_expand_epi8,
    _mm512_reduce_add_epi64, _mm512_set1_epi8, _mm512_set1_epi64, _mm512_setzero_si512, _mm512_storeu_si512,
    _mm512_sub_epi8, _mm512_test_epi8_mask, _mm512_xor_si512, _pdep_u64, _pext_u64,
};

/// Bytes of a vector: eight groups of eight.
const VECTOR: usize = 64;
/// A byte of a word of counts for each four bits of one of half the length.
const NIBBLES: u64 = 0x0F0F_0F0F_0F0F_0F0F;

fn there() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512vbmi2")
        && is_x86_feature_detected!("avx512bitalg")
        && is_x86_feature_detected!("avx512vnni")
        && is_x86_feature_detected!("gfni")
        && is_x86_feature_detected!("bmi2")
        && is_x86_feature_detected!("popcnt")
}

/// Writes the bit planes (`shard/FORMAT.md`) of the differences of `values` from `above` in whole vectors, and their
/// numbers to `counts`, 4 bytes a vector; `planes` has room for a vector after the last. Gives the number of planes;
/// none where the processor lacks one of the instructions.
pub fn code_planes(above: &[u8], values: &[u8], counts: &mut [u8], planes: &mut [u8]) -> Option<usize> {
    // SAFETY: the processor has been asked for all that the function requires.
    there().then(|| unsafe { code(above, values, counts, planes) })
}

/// Undoes [`code_planes`] up to the differences, which fill whole vectors of `out`. `counts` are at most 8 each and
/// sum to at most the length of `planes`.
pub fn spread_planes(counts: &[u8], planes: &[u8], out: &mut [u8]) -> Option<usize> {
    // SAFETY: the processor has been asked for all that the function requires.
    there().then(|| unsafe { spread(counts, planes, out) })
}

/// Sum and sum of squares of bytes; none where the processor lacks one of the instructions.
pub fn byte_sums(bytes: &[u8]) -> Option<(u64, u64)> {
    // SAFETY: the processor has been asked for all that the function requires.
    there().then(|| unsafe { sums(bytes) })
}

/// Row j of a matrix that puts the sign of a difference lowest: bit 7 is bit 0 then, and turns all bits before it over
/// where it is set. It is its own inverse, but for the order of bits.
const SIGN_LOWEST: i64 = 0xC0A0_9088_8482_8180_u64.cast_signed();
/// Row j has bit 7 - j.
const TURNED: i64 = 0x0102_0408_1020_4080;

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi2,avx512bitalg,gfni,bmi2,popcnt")]
fn code(above: &[u8], values: &[u8], counts: &mut [u8], planes: &mut [u8]) -> usize {
    let mut at = 0;
    let chunks = values.as_chunks().0.iter().zip(above.as_chunks().0);
    for ((values, above), counts) in chunks.zip(counts.as_chunks_mut().0) {
        let differences = _mm512_sub_epi8(load(values), load(above));
        // Byte j of the product has in bit 7 - k what row j selects of byte k: a plane.
        let groups = _mm512_gf2p8affine_epi64_epi8::<0>(_mm512_set1_epi64(SIGN_LOWEST), differences);
        // One bit a plane, eight a group: those below the highest that is not zero are stored too. The instruction that
        // counts leading zeros tells the same in fewer steps, and slows the clock by 3 % for half a millisecond.
        let mut stored = _mm512_test_epi8_mask(groups, groups);
        stored |= stored >> 1 & 0x7F7F_7F7F_7F7F_7F7F;
        stored |= stored >> 2 & 0x3F3F_3F3F_3F3F_3F3F;
        stored |= stored >> 4 & NIBBLES;
        *counts = (_pext_u64(ones(stored), NIBBLES) as u32).to_le_bytes();
        let room = planes[at..].first_chunk_mut().expect("room for a vector");
        store(_mm512_maskz_compress_epi8(stored, groups), room);
        at += stored.count_ones() as usize;
    }
    at
}

#[target_feature(enable = "avx512f,avx512bw,avx512vbmi2,gfni,bmi2,popcnt")]
fn spread(counts: &[u8], planes: &[u8], out: &mut [u8]) -> usize {
    let mut at = 0;
    let mut end = [0; VECTOR];
    for (counts, out) in counts.as_chunks().0.iter().zip(out.as_chunks_mut().0) {
        let window = planes[at..].first_chunk().unwrap_or_else(|| {
            end = [0; VECTOR];
            end[..planes.len() - at].copy_from_slice(&planes[at..]);
            &end
        });
        let stored = first(_pdep_u64(u64::from(u32::from_le_bytes(*counts)), NIBBLES));
        let groups = _mm512_maskz_expand_epi8(stored, load(window));
        // Byte k has its bits from 7 down to 0 in the order of the planes, as the second product needs them.
        let values = _mm512_gf2p8affine_epi64_epi8::<0>(_mm512_set1_epi64(TURNED), groups);
        store(_mm512_gf2p8affine_epi64_epi8::<0>(values, _mm512_set1_epi64(SIGN_LOWEST)), out);
        at += stored.count_ones() as usize;
    }
    at
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn sums(bytes: &[u8]) -> (u64, u64) {
    /// So many products fit a lane of 32 bits: 4 x 255 x 128 each time.
    const AT_ONCE: usize = 1 << 13;
    let (vectors, rest) = bytes.as_chunks();
    let (mut sum, mut squares) = (0, 0);
    for part in vectors.chunks(AT_ONCE) {
        let (sums, products) = lanes_of(part);
        let (sums, products) = (total(sums), total(products));
        sum += sums.cast_unsigned();
        squares += (products + 128 * sums).cast_unsigned();
    }
    let of = |v: &u8| u64::from(*v);
    (sum + rest.iter().map(of).sum::<u64>(), squares + rest.iter().map(|v| of(v).pow(2)).sum::<u64>())
}

/// Sums of x and of x (x - 128) in lanes of 32 bits.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
#[inline]
fn lanes_of(vectors: &[[u8; VECTOR]]) -> (__m512i, __m512i) {
    // An addition takes five cycles, and one can begin in each: four that do not wait for each other.
    let mut lanes = [(_mm512_setzero_si512(), _mm512_setzero_si512()); 4];
    let (rows, rest) = vectors.as_chunks::<4>();
    for row in rows {
        lanes.iter_mut().zip(row).for_each(|(lanes, vector)| add_to(lanes, vector));
    }
    lanes.iter_mut().zip(rest).for_each(|(lanes, vector)| add_to(lanes, vector));
    lanes.into_iter().fold((_mm512_setzero_si512(), _mm512_setzero_si512()), |(sums, products), lanes| {
        (_mm512_add_epi32(sums, lanes.0), _mm512_add_epi32(products, lanes.1))
    })
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
#[inline]
fn add_to((sums, products): &mut (__m512i, __m512i), vector: &[u8; VECTOR]) {
    let values = load(vector);
    // The second factor has a sign.
    let less = _mm512_xor_si512(values, _mm512_set1_epi8(i8::MIN));
    *products = _mm512_dpbusd_epi32(*products, values, less);
    *sums = _mm512_dpbusd_epi32(*sums, values, _mm512_set1_epi8(1));
}

/// The sum of sixteen lanes, which does not fit one of them.
#[target_feature(enable = "avx512f")]
fn total(lanes: __m512i) -> i64 {
    let halves = [_mm512_extracti64x4_epi64::<0>(lanes), _mm512_extracti64x4_epi64::<1>(lanes)];
    halves.map(|half| _mm512_reduce_add_epi64(_mm512_cvtepi32_epi64(half))).iter().sum()
}

/// How many bits are set in each byte.
#[target_feature(enable = "avx512bitalg,avx512vl")]
#[inline]
fn ones(bytes: u64) -> u64 {
    _mm_cvtsi128_si64(_mm_popcnt_epi8(_mm_cvtsi64_si128(bytes.cast_signed()))).cast_unsigned()
}

/// 2^n - 1 for each byte n of at most 8.
#[target_feature(enable = "ssse3")]
#[inline]
fn first(counts: u64) -> u64 {
    let powers = _mm_set_epi64x(0xFF, 0x7F3F_1F0F_0703_0100);
    _mm_cvtsi128_si64(_mm_shuffle_epi8(powers, _mm_cvtsi64_si128(counts.cast_signed()))).cast_unsigned()
}

// Through words of 64 bits, without `unsafe`, a load becomes five instructions.

#[target_feature(enable = "avx512f")]
#[inline]
fn load(bytes: &[u8; VECTOR]) -> __m512i {
    // SAFETY: as many bytes are there, and the instruction asks for no alignment.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn store(value: __m512i, to: &mut [u8; VECTOR]) {
    // SAFETY: as many bytes are there to be written, and the instruction asks for no alignment.
    unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), value) }
}
