//! Colour to gray.

/// Pillow's conversion to gray: ITU-R 601 luma in 16-bit fixed point.
#[inline]
pub fn luma(red: u8, green: u8, blue: u8) -> u8 {
    ((19_595 * u32::from(red) + 38_470 * u32::from(green) + 7_471 * u32::from(blue) + 32_768) >> 16) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn luma_equals_pillow() {
        let found = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (12, 200, 77)].map(|(r, g, b)| luma(r, g, b));
        assert_eq!(found, [76, 150, 29, 130]);
    }
}
