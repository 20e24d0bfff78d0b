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
/// Blocks that are transformed together: rows of samples, of each block one after another.
pub(super) type Group = [[[i16; 8]; LANES]; 8];

/// A plane of whole blocks, in groups, from left to right and from top to bottom.
#[derive(Debug, Default)]
pub(super) struct Samples {
    groups: Vec<Group>,
    /// Blocks in a row of them.
    across: usize,
    down: usize,
}

impl Samples {
    /// Makes room for a plane.
    pub(super) fn resize(&mut self, height: usize, width: usize) {
        (self.down, self.across) = (height.div_ceil(8), width.div_ceil(8));
        // An even number: some processors take two at a time.
        self.groups.resize(2 * (self.down * self.across).div_ceil(2 * LANES), [[[0; 8]; LANES]; 8]);
    }

    /// Rows of samples.
    pub(super) const fn height(&self) -> usize {
        8 * self.down
    }

    /// Blocks in a row of them.
    pub(super) const fn across(&self) -> usize {
        self.across
    }

    /// Row `y` of samples within the `n`-th block from the left, where there are `across`.
    #[inline(always)]
    pub(super) fn eight(&self, across: usize, y: usize, n: usize) -> &[i16; 8] {
        let block = y / 8 * across + n;
        &self.groups[block / LANES][y % 8][block % LANES]
    }

    /// As [`Samples::eight`].
    #[inline(always)]
    pub(super) fn eight_mut(&mut self, across: usize, y: usize, n: usize) -> &mut [i16; 8] {
        let block = y / 8 * across + n;
        &mut self.groups[block / LANES][y % 8][block % LANES]
    }

    /// Replaces all samples, -128 to 127, by what is left of them.
    pub(super) fn quantize(&mut self, table: &Steps) {
        #[cfg(target_arch = "x86_64")]
        if super::avx2::quantize(&mut self.groups, table) {
            return;
        }
        portable(&mut self.groups, table);
    }
}

/// Bits behind the point of the constants.
pub(super) const FRACTION: u32 = 13;
/// Bits behind the point after the first direction.
pub(super) const BETWEEN: u32 = 2;

const fn fixed(value: f64) -> i32 {
    (value * (1 << FRACTION) as f64 + 0.5) as i32
}

/// The steps of a quantisation table, row by row. With the 8 by which the transform scales they are divisors.
#[derive(Debug, Clone, Copy)]
pub(super) struct Steps {
    pub(super) steps: [i32; 64],
    /// One over the divisor.
    inverses: [f32; 64],
    /// Half the divisor.
    pub(super) halves: [u16; 64],
    /// One over the divisor, in as many bits as 16 can hold, rounded up. Of numbers below 2^14 the error is no part of
    /// the quotient.
    pub(super) shares: [u16; 64],
    /// How many of these bits are more than 16.
    pub(super) bits: [i32; 64],
}

impl Steps {
    /// `table` scaled as libjpeg does for `quality`, 1 to 100, and held within a byte (baseline).
    pub(super) fn new(table: &[u8; 64], quality: i32) -> Self {
        let percent = if quality < 50 { 5000 / quality } else { 200 - 2 * quality };
        let steps = table.map(|step| ((i32::from(step) * percent + 50) / 100).clamp(1, 255));
        let bits = steps.map(|step| (8 * step - 1).ilog2() as i32);
        Self {
            steps,
            inverses: steps.map(|step| 1.0 / (8 * step) as f32),
            halves: steps.map(|step| 4 * step as u16),
            shares: std::array::from_fn(|i| (1u32 << (16 + bits[i])).div_ceil(8 * steps[i] as u32) as u16),
            bits,
        }
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
pub(super) const fn turn(a: i32, b: i32) -> [i32; 2] {
    let both = (a + b) * fixed(0.541_196_100);
    [both + a * fixed(0.765_366_865), both - b * fixed(1.847_759_065)]
}

/// The odd half, which is the same in both directions: differences to coefficients 7, 5, 3, 1, and back.
#[inline(always)]
pub(super) const fn odd([a, b, c, d]: [i32; 4]) -> [i32; 4] {
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

/// Replaces samples by what is left of them. No sum overflows. A block of bytes less 128 has coefficients of norm 1024 at most, and rounding to steps of a
/// byte adds at most 8 * 127.5; half way back, with [`BETWEEN`] bits and times the root of eight, rows have a
/// norm of at most 23,200, and sums of them with constants below 4 one below 2^30.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl", "x86_64+avx2", "x86_64+sse4.1"))]
pub(super) fn portable(groups: &mut [Group], table: &Steps) {
    let mut blocks = [[0; LANES]; 64];
    for group in groups {
        for y in 0..8 {
            let turned = turn_i16(group[y]);
            for lane in 0..LANES {
                let mut row = [0; 8];
                for x in 0..8 {
                    row[x] = i32::from(turned[x][lane]);
                }
                put(forward(row), FRACTION - BETWEEN, &mut blocks, 8 * y, 1, lane);
            }
        }
        columns(&mut blocks, table);
        for y in 0..8 {
            let mut turned = [[0; LANES]; 8];
            for lane in 0..LANES {
                let row = inverse(take(&blocks, 8 * y, 1, lane));
                for x in 0..8 {
                    // Each of the two directions scales by the root of eight. Beyond -512..512, which images made
                    // for it reach at low qualities, libjpeg's plain C wraps around. Its assembly clamps.
                    turned[x][lane] = round(row[x], FRACTION + BETWEEN + 3).clamp(-128, 127) as i16;
                }
            }
            group[y] = turn_i16(turned);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotients_round_halves_away_from_zero() {
        for step in 1..256 {
            let steps = Steps::new(&[step as u8; 64], 50);
            let (inverse, halves, share, bits) =
                (steps.inverses[0], steps.halves[0], steps.shares[0], steps.bits[0]);
            for value in 0..1 << 14 {
                let expected = (value + 4 * step) / (8 * step);
                assert_eq!(divide(value, inverse), expected, "{value} / {step}");
                assert_eq!(divide(-value, inverse), -expected, "-{value} / {step}");
                let quotient = ((value as u32 + u32::from(halves)) * u32::from(share)) >> 16 >> bits;
                assert_eq!(quotient, expected as u32, "{value} / {step}");
            }
        }
    }

    /// The two forms of the same transform.
    #[cfg(target_arch = "x86_64")]
    #[test]
    fn a_processor_with_more_instructions_gives_the_same_samples() {
        use super::super::avx2;
        use crate::base::rng::mix64;
        let tables = [[1u8; 64], [255; 64], std::array::from_fn(|i| 1 + mix64(i as u64) as u8 / 2)];
        for (n, (table, quality)) in
            tables.iter().flat_map(|table| (1..=100).map(move |quality| (table, quality))).enumerate()
        {
            // Noise, the largest coefficients of both signs, and smooth slopes.
            let value = |i: usize| match (n + i / 512) % 3 {
                0 => mix64((n << 20 | i) as u64) as i8,
                1 => [-128, 127][mix64((n << 20 | (i / (1 + n % 64))) as u64) as usize % 2],
                _ => (i % (3 + n)) as i8,
            };
            let mut groups = [[[[0; 8]; LANES]; 8]; 6];
            let samples = groups.as_flattened_mut().as_flattened_mut().as_flattened_mut();
            samples.iter_mut().enumerate().for_each(|(i, sample)| *sample = value(i).into());
            let (mut others, steps) = (groups, Steps::new(table, quality));
            portable(&mut groups, &steps);
            if avx2::quantize(&mut others, &steps) {
                assert_eq!(groups, others, "quality {quality}, steps {:?}", steps.steps);
            } else {
                assert!(!is_x86_feature_detected!("avx2"));
            }
        }
    }
}
