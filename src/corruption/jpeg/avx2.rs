//! What `dct.rs` does, with the instruction that adds up two products of 16 bits in 32: the compiler does not find it.
//!
//! A transform is made of two turns of two values and one of four (`dct.rs`). Products add up without rounding, so
//! that a turn by its matrix gives the same numbers as one with fewer multiplications. Between the two directions
//! values fit 16 bits (see `dct::portable`): on the way there they are at most 2^12, and four are added before they
//! are turned.
#![expect(unsafe_code, reason = "instructions that not every processor has are behind a question to it")]

use super::dct::{BETWEEN, FRACTION, Group, Steps, odd, turn};
use std::arch::x86_64::{
    __m256i, _mm_cvtsi32_si128, _mm256_abs_epi16, _mm256_add_epi16, _mm256_add_epi32, _mm256_madd_epi16,
    _mm256_max_epi16, _mm256_min_epi16, _mm256_mulhi_epu16, _mm256_mullo_epi16, _mm256_packs_epi32,
    _mm256_set1_epi16, _mm256_set1_epi32, _mm256_sign_epi16, _mm256_srai_epi32, _mm256_srl_epi16,
    _mm256_sub_epi16, _mm256_sub_epi32, _mm256_unpackhi_epi16, _mm256_unpacklo_epi16,
};

/// As [`super::dct::portable`], of an even number of groups. Does nothing and says so where there is no AVX2.
pub(super) fn quantize(groups: &mut [Group], steps: &Steps) -> bool {
    let there = is_x86_feature_detected!("avx2");
    if there {
        let (twos, rest) = groups.as_chunks_mut();
        assert!(rest.is_empty(), "groups come in twos");
        for [first, second] in twos {
            // SAFETY: the processor has been asked for AVX2, which is all that the function requires.
            unsafe { quantize_two(first, second, steps) };
        }
    }
    there
}

/// Sixteen numbers of 32 bits, in the order in which sixteen of 16 bits are taken apart.
type Wide = [__m256i; 2];

/// What each of two and of four values adds to the others when they are turned.
const MIDDLE: [[i16; 2]; 2] = columns([turn(1, 0), turn(0, 1)]);
const ODD: [[i16; 4]; 4] =
    columns([odd([1, 0, 0, 0]), odd([0, 1, 0, 0]), odd([0, 0, 1, 0]), odd([0, 0, 0, 1])]);
const ONE: i16 = 1 << FRACTION;

const fn columns<const N: usize>(columns: [[i32; N]; N]) -> [[i16; N]; N] {
    let mut rows = [[0; N]; N];
    let mut i = 0;
    while i < N * N {
        let share = columns[i / N][i % N];
        assert!(share as i16 as i32 == share);
        rows[i % N][i / N] = share as i16;
        i += 1;
    }
    rows
}

#[target_feature(enable = "avx2")]
#[inline]
fn pairs(a: __m256i, b: __m256i) -> Wide {
    [_mm256_unpacklo_epi16(a, b), _mm256_unpackhi_epi16(a, b)]
}

/// The sum of both values of each pair times their shares.
#[target_feature(enable = "avx2")]
#[inline]
fn dot([low, high]: Wide, [a, b]: [i16; 2]) -> Wide {
    let shares = _mm256_set1_epi32(i32::from(b) << 16 | i32::from(a as u16));
    [_mm256_madd_epi16(low, shares), _mm256_madd_epi16(high, shares)]
}

#[target_feature(enable = "avx2")]
#[inline]
fn add(a: Wide, b: Wide) -> Wide {
    [_mm256_add_epi32(a[0], b[0]), _mm256_add_epi32(a[1], b[1])]
}

#[target_feature(enable = "avx2")]
#[inline]
fn subtract(a: Wide, b: Wide) -> Wide {
    [_mm256_sub_epi32(a[0], b[0]), _mm256_sub_epi32(a[1], b[1])]
}

/// Drops bits, rounding half up.
#[target_feature(enable = "avx2")]
#[inline]
fn narrow<const BITS: i32>([low, high]: Wide) -> __m256i {
    let half = _mm256_set1_epi32(1 << (BITS - 1));
    let (low, high) = (_mm256_add_epi32(low, half), _mm256_add_epi32(high, half));
    _mm256_packs_epi32(_mm256_srai_epi32::<BITS>(low), _mm256_srai_epi32::<BITS>(high))
}

/// Four values turned: differences to coefficients, and back.
#[target_feature(enable = "avx2")]
#[inline]
fn turn_four([a, b, c, d]: [__m256i; 4]) -> [Wide; 4] {
    let (ab, cd) = (pairs(a, b), pairs(c, d));
    let mut out = [[a; 2]; 4];
    for (out, [a, b, c, d]) in out.iter_mut().zip(ODD) {
        *out = add(dot(ab, [a, b]), dot(cd, [c, d]));
    }
    out
}

/// Coefficients of eight samples.
#[target_feature(enable = "avx2")]
#[inline]
fn forward<const BITS: i32>(s: [__m256i; 8]) -> [__m256i; 8] {
    let outer = [_mm256_add_epi16(s[0], s[7]), _mm256_add_epi16(s[3], s[4])];
    let inner = [_mm256_add_epi16(s[1], s[6]), _mm256_add_epi16(s[2], s[5])];
    let sums = pairs(_mm256_add_epi16(outer[0], outer[1]), _mm256_add_epi16(inner[0], inner[1]));
    let differences = pairs(_mm256_sub_epi16(outer[0], outer[1]), _mm256_sub_epi16(inner[0], inner[1]));
    let [seven, five, three, one] = turn_four([
        _mm256_sub_epi16(s[3], s[4]),
        _mm256_sub_epi16(s[2], s[5]),
        _mm256_sub_epi16(s[1], s[6]),
        _mm256_sub_epi16(s[0], s[7]),
    ]);
    [
        narrow::<BITS>(dot(sums, [ONE, ONE])),
        narrow::<BITS>(one),
        narrow::<BITS>(dot(differences, MIDDLE[0])),
        narrow::<BITS>(three),
        narrow::<BITS>(dot(sums, [ONE, -ONE])),
        narrow::<BITS>(five),
        narrow::<BITS>(dot(differences, MIDDLE[1])),
        narrow::<BITS>(seven),
    ]
}

/// Samples of eight coefficients.
#[target_feature(enable = "avx2")]
#[inline]
fn inverse<const BITS: i32>(c: [__m256i; 8]) -> [__m256i; 8] {
    let (ends, middle) = (pairs(c[0], c[4]), pairs(c[2], c[6]));
    let (sum, difference) = (dot(ends, [ONE, ONE]), dot(ends, [ONE, -ONE]));
    let (outer, inner) = (dot(middle, MIDDLE[0]), dot(middle, MIDDLE[1]));
    let even = [add(sum, outer), add(difference, inner), subtract(difference, inner), subtract(sum, outer)];
    let [three, two, one, zero] = turn_four([c[7], c[5], c[3], c[1]]);
    [
        narrow::<BITS>(add(even[0], zero)),
        narrow::<BITS>(add(even[1], one)),
        narrow::<BITS>(add(even[2], two)),
        narrow::<BITS>(add(even[3], three)),
        narrow::<BITS>(subtract(even[3], three)),
        narrow::<BITS>(subtract(even[2], two)),
        narrow::<BITS>(subtract(even[1], one)),
        narrow::<BITS>(subtract(even[0], zero)),
    ]
}

/// Rows of eight blocks of each group become columns, and back (`turn.rs`).
#[target_feature(enable = "avx2")]
#[inline]
fn turned(mut rows: [__m256i; 8]) -> [__m256i; 8] {
    for _ in 0..3 {
        let before = rows;
        for i in 0..4 {
            [rows[2 * i], rows[2 * i + 1]] = pairs(before[i], before[i + 4]);
        }
    }
    rows
}

#[target_feature(enable = "avx2")]
fn quantize_two(first: &mut Group, second: &mut Group, steps: &Steps) {
    const DOWN: i32 = (FRACTION - BETWEEN) as i32;
    const UP: i32 = (FRACTION + BETWEEN) as i32;
    let mut blocks = [[_mm256_set1_epi16(0); 8]; 8];
    for y in 0..8 {
        let mut rows = blocks[y];
        for lane in 0..8 {
            rows[lane] = bytemuck::cast([first[y][lane], second[y][lane]]);
        }
        blocks[y] = forward::<DOWN>(turned(rows));
    }
    for x in 0..8 {
        let mut column = blocks[0];
        for y in 0..8 {
            column[y] = blocks[y][x];
        }
        column = forward::<UP>(column);
        for (y, coefficient) in column.iter_mut().enumerate() {
            *coefficient = rounded(*coefficient, steps, 8 * y + x);
        }
        column = inverse::<DOWN>(column);
        for y in 0..8 {
            blocks[y][x] = column[y];
        }
    }
    let (least, most) = (_mm256_set1_epi16(-128), _mm256_set1_epi16(127));
    for y in 0..8 {
        // Each of the two directions scales by the root of eight.
        let mut rows = inverse::<{ UP + 3 }>(blocks[y]);
        for sample in &mut rows {
            *sample = _mm256_min_epi16(_mm256_max_epi16(*sample, least), most);
        }
        rows = turned(rows);
        for lane in 0..8 {
            [first[y][lane], second[y][lane]] = bytemuck::cast(rows[lane]);
        }
    }
}

/// Eight times the coefficient at `at` to the nearest multiple of its step, halves away from zero.
#[target_feature(enable = "avx2")]
#[inline]
fn rounded(scaled: __m256i, steps: &Steps, at: usize) -> __m256i {
    let of = |table: &[u16; 64]| _mm256_set1_epi16(table[at] as i16);
    let larger = _mm256_add_epi16(_mm256_abs_epi16(scaled), of(&steps.halves));
    let quotient = _mm256_mulhi_epu16(larger, of(&steps.shares));
    let quotient = _mm256_srl_epi16(quotient, _mm_cvtsi32_si128(steps.bits[at]));
    _mm256_mullo_epi16(_mm256_sign_epi16(quotient, scaled), _mm256_set1_epi16(steps.steps[at] as i16))
}
