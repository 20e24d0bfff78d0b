//! What quantisation leaves of blocks of 8 x 8 samples: cosine transform, division by the steps of the table,
//! rounding, and the way back (ITU-T T.81, A.3.3 and A.3.4).
//!
//! The transform is the eight-point one with twelve multiplications of Loeffler, Ligtenberg & Moschytz
//! ("Practical fast 1-D DCT algorithms with 11 multiplications", ICASSP 1989), in whole numbers: constants of
//! 13 bits, two more bits between the two directions. libjpeg calls it "islow"; sums are exact between its
//! roundings, so equal constants and roundings give equal samples in whatever order terms are added.
//!
//! Several blocks are transformed side by side: value 8 y + x of all of them is one vector.
#![expect(
    clippy::inline_always,
    clippy::needless_range_loop,
    reason = "loops over lanes become vectors, and functions are compiled for those of their caller"
)]

use super::super::scratch::whole;
use super::super::turn::turn_i16;
use multiversion::multiversion;

/// Blocks side by side.
const LANES: usize = 8;
/// Sample or coefficient 8 y + x of each block.
type Blocks = [[i32; LANES]; 64];

/// Bits behind the point of the constants.
const FRACTION: u32 = 13;
/// Bits behind the point after the first direction.
const BETWEEN: u32 = 2;

const fn fixed(value: f64) -> i32 {
    (value * (1 << FRACTION) as f64 + 0.5) as i32
}

/// The steps of a quantisation table, row by row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Steps {
    steps: [i32; 64],
    /// One over the step and over the 8 by which the transform scales.
    inverses: [f32; 64],
}

impl Steps {
    /// `table` scaled as libjpeg does for `quality`, 1 to 100, and held within a byte (baseline).
    pub(super) fn new(table: &[u8; 64], quality: i32) -> Self {
        let percent = if quality < 50 { 5000 / quality } else { 200 - 2 * quality };
        let steps = table.map(|step| ((i32::from(step) * percent + 50) / 100).clamp(1, 255));
        Self { steps, inverses: steps.map(|step| 1.0 / (8 * step) as f32) }
    }
}

/// `value` times `inverse`, rounded; halves go away from zero. `value` is whole and below 2^14, and `inverse`
/// is one over a whole number: a quarter more of `value` then settles halves, and changes no other quotient
/// by as much as it is away from a half.
#[inline(always)]
fn divide(value: i32, inverse: f32) -> i32 {
    let value = value as f32;
    whole((value + 0.25f32.copysign(value)) * inverse)
}

/// Drops `bits` bits, rounding half up.
#[inline(always)]
fn round(value: i32, bits: u32) -> i32 {
    (value + (1 << (bits - 1))) >> bits
}

/// Turns a point by 3/8 of a right angle and stretches it by the root of two: the middle of the even half.
#[inline(always)]
fn turn(a: i32, b: i32) -> [i32; 2] {
    let both = (a + b) * fixed(0.541_196_100);
    [both + a * fixed(0.765_366_865), both - b * fixed(1.847_759_065)]
}

/// The odd half, which is the same in both directions: differences to coefficients 7, 5, 3, 1, and back.
#[inline(always)]
fn odd([a, b, c, d]: [i32; 4]) -> [i32; 4] {
    let ad = (a + d) * -fixed(0.899_976_223);
    let bc = (b + c) * -fixed(2.562_915_447);
    let all = (a + b + c + d) * fixed(1.175_875_602);
    let ac = (a + c) * -fixed(1.961_570_560) + all;
    let bd = (b + d) * -fixed(0.390_180_644) + all;
    [
        a * fixed(0.298_631_336) + ad + ac,
        b * fixed(2.053_119_869) + bc + bd,
        c * fixed(3.072_711_026) + bc + ac,
        d * fixed(1.501_321_110) + ad + bd,
    ]
}

/// Coefficients of eight samples, with [`FRACTION`] bits more.
#[inline(always)]
fn forward(s: [i32; 8]) -> [i32; 8] {
    let sums = [s[0] + s[7], s[1] + s[6], s[2] + s[5], s[3] + s[4]];
    let (outer, inner) = (sums[0] + sums[3], sums[1] + sums[2]);
    let [two, six] = turn(sums[0] - sums[3], sums[1] - sums[2]);
    let [seven, five, three, one] = odd([s[3] - s[4], s[2] - s[5], s[1] - s[6], s[0] - s[7]]);
    [(outer + inner) << FRACTION, one, two, three, (outer - inner) << FRACTION, five, six, seven]
}

/// Samples of eight coefficients, with [`FRACTION`] bits more.
#[inline(always)]
fn inverse(c: [i32; 8]) -> [i32; 8] {
    let (sum, difference) = ((c[0] + c[4]) << FRACTION, (c[0] - c[4]) << FRACTION);
    let [outer, inner] = turn(c[2], c[6]);
    let even = [sum + outer, difference + inner, difference - inner, sum - outer];
    let [three, two, one, zero] = odd([c[7], c[5], c[3], c[1]]);
    [
        even[0] + zero,
        even[1] + one,
        even[2] + two,
        even[3] + three,
        even[3] - three,
        even[2] - two,
        even[1] - one,
        even[0] - zero,
    ]
}

/// Every `step`-th value of one block, from `first` on.
#[inline(always)]
fn take(blocks: &Blocks, first: usize, step: usize, lane: usize) -> [i32; 8] {
    let mut values = [0; 8];
    for k in 0..8 {
        values[k] = blocks[first + step * k][lane];
    }
    values
}

/// Puts eight values, without the last `bits` bits, where [`take`] takes them.
#[inline(always)]
fn put(values: [i32; 8], bits: u32, blocks: &mut Blocks, first: usize, step: usize, lane: usize) {
    for k in 0..8 {
        blocks[first + step * k][lane] = round(values[k], bits);
    }
}

#[inline(always)]
fn rows_forward(blocks: &mut Blocks) {
    for y in 0..8 {
        for lane in 0..LANES {
            let coefficients = forward(take(blocks, 8 * y, 1, lane));
            put(coefficients, FRACTION - BETWEEN, blocks, 8 * y, 1, lane);
        }
    }
}

/// Columns there, the table, and columns back: nothing lies between them.
#[inline(always)]
fn columns(blocks: &mut Blocks, table: &Steps) {
    for x in 0..8 {
        for lane in 0..LANES {
            let mut coefficients = forward(take(blocks, x, 8, lane));
            for y in 0..8 {
                let scaled = round(coefficients[y], FRACTION + BETWEEN);
                coefficients[y] = divide(scaled, table.inverses[8 * y + x]) * table.steps[8 * y + x];
            }
            put(inverse(coefficients), FRACTION - BETWEEN, blocks, x, 8, lane);
        }
    }
}

/// Each of the two directions scales by the root of eight.
#[inline(always)]
fn rows_back(blocks: &mut Blocks) {
    for y in 0..8 {
        for lane in 0..LANES {
            let samples = inverse(take(blocks, 8 * y, 1, lane));
            put(samples, FRACTION + BETWEEN + 3, blocks, 8 * y, 1, lane);
        }
    }
}

/// The eight samples from `at` on.
#[inline(always)]
fn samples(plane: &mut [i16], at: usize) -> &mut [i16; 8] {
    plane[at..].first_chunk_mut().expect("a plane has whole blocks")
}

/// Replaces a plane of samples, -128 to 127, by what is left of it. Its sides are multiples of 8.
///
/// No sum overflows. A block of bytes less 128 has coefficients of norm 1024 at most, and rounding to steps of a
/// byte adds at most 8 * 127.5; half way back, with [`BETWEEN`] bits and times the root of eight, rows have a
/// norm of at most 23,200, and sums of them with constants below 4 one below 2^30.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl", "x86_64+avx2", "x86_64+sse4.1"))]
pub(super) fn quantize(plane: &mut [i16], width: usize, table: &Steps) {
    let across = width / 8;
    let n = plane.len() / 64;
    let (mut blocks, mut corners) = ([[0; LANES]; 64], [0; LANES]);
    for first in (0..n).step_by(LANES) {
        for lane in 0..LANES {
            // Lanes beyond the last block do its work again.
            let block = (first + lane).min(n - 1);
            corners[lane] = block / across * 8 * width + block % across * 8;
        }
        for y in 0..8 {
            let mut rows = [[0; 8]; LANES];
            for lane in 0..LANES {
                rows[lane] = *samples(plane, corners[lane] + y * width);
            }
            let columns = turn_i16(rows);
            for x in 0..8 {
                blocks[8 * y + x] = columns[x].map(i32::from);
            }
        }
        rows_forward(&mut blocks);
        columns(&mut blocks, table);
        rows_back(&mut blocks);
        for y in 0..8 {
            let mut columns = [[0; LANES]; 8];
            for x in 0..8 {
                // Beyond -512..512, which images made for it reach at low qualities, libjpeg's plain C
                // wraps around. Its assembly clamps.
                columns[x] = blocks[8 * y + x].map(|value| value.clamp(-128, 127) as i16);
            }
            let rows = turn_i16(columns);
            for lane in 0..LANES {
                *samples(plane, corners[lane] + y * width) = rows[lane];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotients_round_halves_away_from_zero() {
        for step in 1..256 {
            let inverse = 1.0 / (8 * step) as f32;
            for value in 0..1 << 14 {
                let expected = (value + 4 * step) / (8 * step);
                assert_eq!(divide(value, inverse), expected, "{value} / {step}");
                assert_eq!(divide(-value, inverse), -expected, "-{value} / {step}");
            }
        }
    }
}
