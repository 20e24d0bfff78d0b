//! The pixels that are left of an image in a JPEG file, without the file.
//!
//! What a JPEG loses is lost by colour conversion, by chrominances at half resolution and by the
//! quantisation of 8 x 8 cosine coefficients (ITU-T T.81, annexes A and K). Huffman coding loses nothing, and
//! takes most of the time, so that it is left out. All arithmetic is in whole numbers and equals that of
//! libjpeg and libjpeg-turbo in their standard settings: 4:2:0, the transform "islow" both ways, chrominances
//! interpolated. Equal coefficients and equal roundings are equal pixels; the tests compare every byte.

use super::super::Extent;
use super::color::Components;
use super::dct::Steps;

/// Steps of the luminance for quality 50, row by row (T.81, table K.1).
#[rustfmt::skip]
const LUMINANCE: [u8; 64] = [
    16, 11, 10, 16,  24,  40,  51,  61,
    12, 12, 14, 19,  26,  58,  60,  55,
    14, 13, 16, 24,  40,  57,  69,  56,
    14, 17, 22, 29,  51,  87,  80,  62,
    18, 22, 37, 56,  68, 109, 103,  77,
    24, 35, 55, 64,  81, 104, 113,  92,
    49, 64, 78, 87, 103, 121, 120, 101,
    72, 92, 95, 98, 112, 100, 103,  99,
];

/// Steps of the chrominances (T.81, table K.2).
#[rustfmt::skip]
const CHROMINANCE: [u8; 64] = [
    17, 18, 24, 47, 99, 99, 99, 99,
    18, 21, 26, 66, 99, 99, 99, 99,
    24, 26, 56, 99, 99, 99, 99, 99,
    47, 66, 99, 99, 99, 99, 99, 99,
    99, 99, 99, 99, 99, 99, 99, 99,
    99, 99, 99, 99, 99, 99, 99, 99,
    99, 99, 99, 99, 99, 99, 99, 99,
    99, 99, 99, 99, 99, 99, 99, 99,
];

/// Replaces an image of planes, of one or three channels, by what is left of it at `quality`, 1 to 100.
pub(super) fn round_trip(image: &mut [u8], extent: Extent, quality: i32, components: &mut Components) {
    if extent.is_empty() {
        return;
    }
    components.resize(extent);
    let [luminance, chrominance] = match components.steps {
        Some((made_for, steps)) if made_for == quality => steps,
        _ => [&LUMINANCE, &CHROMINANCE].map(|table| Steps::new(table, quality)),
    };
    components.steps = Some((quality, [luminance, chrominance]));
    if extent.channels == 1 {
        components.take_gray(image, extent);
        components.planes[0].quantize(&luminance);
        components.give_gray(image, extent);
        return;
    }
    components.take_color(image, extent);
    let [luma, blue, red] = &mut components.planes;
    luma.quantize(&luminance);
    blue.quantize(&chrominance);
    red.quantize(&chrominance);
    components.give_color(image, extent);
}
