//! Small squares of values turned on their diagonal.
//!
//! The compiler takes vectors that it sees as arrays apart and moves number by number, in three to four times as many
//! instructions. So the ones for it are named, where there are any: SSE2 is part of every x86-64.
#![expect(clippy::inline_always, reason = "tiles stay in registers only if this is part of its caller")]

/// Rows become columns.
#[inline(always)]
pub(super) fn turn_f32(tile: [[f32; 4]; 4]) -> [[f32; 4]; 4] {
    #[cfg(target_arch = "x86_64")]
    {
        let [mut a, mut b, mut c, mut d] = tile.map(safe_arch::m128::from_array);
        safe_arch::transpose_four_m128(&mut a, &mut b, &mut c, &mut d);
        [a, b, c, d].map(safe_arch::m128::to_array)
    }
    #[cfg(not(target_arch = "x86_64"))]
    std::array::from_fn(|y| std::array::from_fn(|x| tile[x][y]))
}

/// As [`turn_f32`]: three times, the upper rows and the lower ones are dealt out in turn.
#[inline(always)]
pub(super) fn turn_i16(tile: [[i16; 8]; 8]) -> [[i16; 8]; 8] {
    #[cfg(target_arch = "x86_64")]
    {
        use safe_arch::{m128i, unpack_high_i16_m128i as high, unpack_low_i16_m128i as low};
        let mut rows = tile.map(m128i::from);
        for _ in 0..3 {
            let [u0, u1, u2, u3, l0, l1, l2, l3] = rows;
            let (first, second) = ((low(u0, l0), high(u0, l0)), (low(u1, l1), high(u1, l1)));
            let (third, fourth) = ((low(u2, l2), high(u2, l2)), (low(u3, l3), high(u3, l3)));
            rows = [first.0, first.1, second.0, second.1, third.0, third.1, fourth.0, fourth.1];
        }
        rows.map(<[i16; 8]>::from)
    }
    #[cfg(not(target_arch = "x86_64"))]
    std::array::from_fn(|y| std::array::from_fn(|x| tile[x][y]))
}

/// As [`turn_i16`], four times. The compiler makes calls of `map` for so many.
#[inline(always)]
pub(super) fn turn_u8(tile: [[u8; 16]; 16]) -> [[u8; 16]; 16] {
    let mut columns = [[0; 16]; 16];
    #[cfg(target_arch = "x86_64")]
    {
        use safe_arch::{m128i, unpack_high_i8_m128i as high, unpack_low_i8_m128i as low};
        let mut rows = [m128i::default(); 16];
        for i in 0..16 {
            rows[i] = m128i::from(tile[i]);
        }
        for _ in 0..4 {
            let before = rows;
            for i in 0..8 {
                (rows[2 * i], rows[2 * i + 1]) =
                    (low(before[i], before[i + 8]), high(before[i], before[i + 8]));
            }
        }
        for i in 0..16 {
            columns[i] = rows[i].into();
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    for (i, column) in columns.iter_mut().flatten().enumerate() {
        *column = tile[i % 16][i / 16];
    }
    columns
}

/// The last of sixteen first, with room for sums.
#[inline(always)]
pub(super) fn reversed(bytes: [u8; 16]) -> [u16; 16] {
    let mut out = [0; 16];
    #[cfg(target_arch = "x86_64")]
    {
        use safe_arch::shuffle_ai_i16_l64all_m128i as lower;
        use safe_arch::{m128i, unpack_high_i8_m128i as high, unpack_low_i8_m128i as low};
        use safe_arch::{shuffle_ai_f32_all_m128i as fours, shuffle_ai_i16_h64all_m128i as upper};
        let (bytes, zero) = (m128i::from(bytes), m128i::default());
        for (out, eight) in out.as_chunks_mut::<8>().0.iter_mut().zip([high(bytes, zero), low(bytes, zero)]) {
            // Four each way, and then the fours.
            *out = fours::<0b01_00_11_10>(upper::<0b00_01_10_11>(lower::<0b00_01_10_11>(eight))).into();
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    for (out, &byte) in out.iter_mut().zip(bytes.iter().rev()) {
        *out = byte.into();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_become_columns() {
        let square = |size: usize| move |y: usize, x: usize| size * y + x;
        let tile = turn_f32(std::array::from_fn(|y| std::array::from_fn(|x| square(4)(y, x) as f32)));
        assert!((0..16).all(|i| tile[i % 4][i / 4] == i as f32), "{tile:?}");
        let tile = turn_i16(std::array::from_fn(|y| std::array::from_fn(|x| square(8)(y, x) as i16)));
        assert!((0..64).all(|i| tile[i % 8][i / 8] == i as i16), "{tile:?}");
        let tile = turn_u8(std::array::from_fn(|y| std::array::from_fn(|x| square(16)(y, x) as u8)));
        assert!((0..256).all(|i| tile[i % 16][i / 16] == i as u8), "{tile:?}");
        assert_eq!(reversed(std::array::from_fn(|i| 240 + i as u8)), std::array::from_fn(|i| 255 - i as u16));
    }
}
