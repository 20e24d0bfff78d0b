//! Small squares of values turned on their diagonal.
//!
//! The compiler takes vectors that it sees as arrays apart and moves number by number, in three to four times as many
//! instructions. So the ones for it are named, where there are any: SSE2 is part of every x86-64.

/// Rows become columns.
#[inline(always)]
#[expect(clippy::inline_always, reason = "tiles stay in registers only if this is part of its caller")]
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
    }
}
