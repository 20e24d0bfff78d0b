//! Red, green and blue to luminance and chrominance at half resolution, and back (JFIF 1.02; ITU-T T.871).
//!
//! libjpeg's whole numbers: constants of 16 bits; a chrominance is the mean of four pixels, rounded down and
//! up in turn; going back, pixels take 9/16 of the nearest chrominance, 3/16 of the next one across and the
//! next one down, and 1/16 of the one across from both ("fancy upsampling").
//! Samples are held less 128, so that zero is the middle.
#![expect(clippy::inline_always, reason = "functions are compiled for the vectors of their caller")]

use super::super::Extent;
use super::dct::{Samples, Steps};
use multiversion::multiversion;

const fn fixed(value: f64) -> i32 {
    (value * 65536.0 + 0.5) as i32
}

/// Shares of red, green and blue in luminance, and their upper and lower bytes: sums with each fit 16 bits.
const LUMA: [i32; 3] = [fixed(0.299), fixed(0.587), fixed(0.114)];
const HIGH: [u16; 3] = [(LUMA[0] >> 8) as u16, (LUMA[1] >> 8) as u16, (LUMA[2] >> 8) as u16];
const LOW: [u16; 3] = [(LUMA[0] & 255) as u16, (LUMA[1] & 255) as u16, (LUMA[2] & 255) as u16];
/// Share of red less green in blue chrominance, where blue less green has a half; and of blue in red.
const BLUE: i32 = fixed(0.16874);
const RED: i32 = fixed(0.08131);
/// What red has of its chrominance beyond all of it, and blue beyond twice all.
const RED_BACK: i32 = fixed(1.402) - (1 << 16);
const BLUE_BACK: i32 = fixed(1.772) - (2 << 16);
/// Shares of red and blue chrominance in green, the first one beyond -1.
const GREEN: [i32; 2] = [(1 << 16) - fixed(0.71414), -fixed(0.34414)];
const GREEN_HIGH: [i16; 2] = [((GREEN[0] + 128) >> 8) as i16, ((GREEN[1] + 128) >> 8) as i16];
const GREEN_LOW: [i16; 2] = [GREEN[0] as i8 as i16, GREEN[1] as i8 as i16];

/// Luminance, blue and red chrominance.
#[derive(Debug, Default)]
pub(super) struct Components {
    pub(super) planes: [Samples; 3],
    /// Those of the last image's quality, for luminance and chrominances.
    pub(super) steps: Option<(i32, [Steps; 2])>,
    /// Weighted sums of two rows of a chrominance for each row of pixels, with one more at each end.
    sums: [Vec<i16>; 2],
    /// An image with rows of whole vectors.
    padded: Vec<u8>,
}

impl Components {
    /// Makes room for an image.
    pub(super) fn resize(&mut self, extent: Extent) {
        let Extent { channels, height, width } = extent;
        self.planes[0].resize(height, width);
        if channels == 3 {
            let half = [height.div_ceil(2), width.div_ceil(2)];
            self.planes[1..].iter_mut().for_each(|plane| plane.resize(half[0], half[1]));
            let row = half[1].next_multiple_of(HALF) + 2;
            self.sums.iter_mut().for_each(|sums| sums.resize(height * row, 0));
        }
    }

    /// Takes a gray image in.
    pub(super) fn take_gray(&mut self, image: &[u8], extent: Extent) {
        take_gray(&mut self.planes[0], image, extent);
    }

    /// Gives a gray image out.
    pub(super) fn give_gray(&self, image: &mut [u8], extent: Extent) {
        give_gray(&self.planes[0], image, extent);
    }

    /// Takes a colour image of planes in.
    pub(super) fn take_color(&mut self, image: &[u8], extent: Extent) {
        let Extent { height, width, .. } = extent;
        let whole = width.next_multiple_of(FEW);
        if whole == width {
            take_color(&mut self.planes, split(image), height, width);
            return;
        }
        self.padded.resize(3 * height * whole, 0);
        for (row, out) in image.chunks_exact(width).zip(self.padded.chunks_exact_mut(whole)) {
            out[..width].copy_from_slice(row);
            out[width..].fill(row[width - 1]);
        }
        take_color(&mut self.planes, split(&self.padded), height, whole);
    }

    /// Gives a colour image of planes out.
    pub(super) fn give_color(&mut self, image: &mut [u8], extent: Extent) {
        let whole = extent.width.next_multiple_of(FEW);
        if whole == extent.width {
            give_color(&self.planes, &mut self.sums, split_mut(image), extent, whole);
            return;
        }
        self.padded.resize(3 * extent.height * whole, 0);
        give_color(&self.planes, &mut self.sums, split_mut(&mut self.padded), extent, whole);
        for (out, row) in image.chunks_exact_mut(extent.width).zip(self.padded.chunks_exact(whole)) {
            out.copy_from_slice(&row[..extent.width]);
        }
    }
}

/// Planes of red, green and blue.
fn split(image: &[u8]) -> [&[u8]; 3] {
    let (red, rest) = image.split_at(image.len() / 3);
    let (green, blue) = rest.split_at(image.len() / 3);
    [red, green, blue]
}

/// As [`split`].
fn split_mut(image: &mut [u8]) -> [&mut [u8]; 3] {
    let n = image.len() / 3;
    let (red, rest) = image.split_at_mut(n);
    let (green, blue) = rest.split_at_mut(n);
    [red, green, blue]
}

/// Pixels that are converted side by side, and chrominances.
const FEW: usize = 32;
const HALF: usize = FEW / 2;

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl", "x86_64+avx2", "x86_64+sse4.1"))]
fn take_gray(to: &mut Samples, image: &[u8], Extent { height, width, .. }: Extent) {
    let across = to.across();
    for y in 0..to.height() {
        let (whole, rest) = image[y.min(height - 1) * width..][..width].as_chunks();
        for (n, values) in whole.iter().enumerate() {
            *to.eight_mut(across, y, n) = less_half(values);
        }
        if let Some(&last) = rest.last() {
            let mut values = [last; 8];
            values[..rest.len()].copy_from_slice(rest);
            *to.eight_mut(across, y, whole.len()) = less_half(&values);
        }
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl", "x86_64+avx2", "x86_64+sse4.1"))]
fn give_gray(from: &Samples, image: &mut [u8], Extent { width, .. }: Extent) {
    let across = from.across();
    for (y, row) in image.chunks_exact_mut(width).enumerate() {
        let (whole, rest) = row.as_chunks_mut();
        for (n, out) in whole.iter_mut().enumerate() {
            *out = and_half(from.eight(across, y, n));
        }
        if !rest.is_empty() {
            rest.copy_from_slice(&and_half(from.eight(across, y, whole.len()))[..rest.len()]);
        }
    }
}

#[inline(always)]
fn less_half(values: &[u8; 8]) -> [i16; 8] {
    let mut out = [0; 8];
    for i in 0..8 {
        out[i] = i16::from(values[i]) - 128;
    }
    out
}

#[inline(always)]
fn and_half(samples: &[i16; 8]) -> [u8; 8] {
    let mut out = [0; 8];
    for i in 0..8 {
        out[i] = (samples[i] + 128) as u8;
    }
    out
}

/// Rows have `width` values, whole vectors.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl", "x86_64+avx2", "x86_64+sse4.1"))]
fn take_color(to: &mut [Samples; 3], image: [&[u8]; 3], height: usize, width: usize) {
    let across = [to[0].across(), to[1].across()];
    // The compiler has half as much to do if it knows the usual width.
    if (across, width) == ([8, 4], 64) {
        take_color_rows(to, image, height, 64, [8, 4]);
    } else {
        take_color_rows(to, image, height, width, across);
    }
}

#[inline(always)]
fn take_color_rows(
    [luma, blue, red]: &mut [Samples; 3],
    image: [&[u8]; 3],
    height: usize,
    width: usize,
    [across, half]: [usize; 2],
) {
    for y in 0..blue.height() {
        // The last row stands for what is below it.
        let pair = y.min((height - 1) / 2);
        let [above, below] = [2 * pair, (2 * pair + 1).min(height - 1)].map(|y| y * width);
        for n in 0..width / FEW {
            let above = from_rgb(image, above + n * FEW);
            let below = from_rgb(image, below + n * FEW);
            put(blue, half, y, n, mean_of_four(above.1, below.1));
            put(red, half, y, n, mean_of_four(above.2, below.2));
            put(luma, across, 2 * y, n, if y == pair { above.0 } else { below.0 });
            put(luma, across, 2 * y + 1, n, below.0);
        }
    }
}

/// The `n`-th `N` samples of row `y`, as far as the plane has it and them.
#[inline(always)]
fn put<const N: usize>(plane: &mut Samples, across: usize, y: usize, n: usize, samples: [i16; N]) {
    if y < plane.height() {
        let first = n * N / 8;
        for (i, samples) in samples.as_chunks().0.iter().enumerate() {
            if first + i < across {
                *plane.eight_mut(across, y, first + i) = *samples;
            }
        }
    }
}

/// As [`put`] takes them.
#[inline(always)]
fn take<const N: usize>(plane: &Samples, across: usize, y: usize, n: usize) -> [i16; N] {
    let first = n * N / 8;
    let mut samples = [0; N];
    for (i, samples) in samples.as_chunks_mut().0.iter_mut().enumerate() {
        if first + i < across {
            *samples = *plane.eight(across, y, first + i);
        }
    }
    samples
}

/// The values from `at` on.
#[inline(always)]
fn values(plane: &[u8], at: usize) -> &[u8; FEW] {
    plane[at..].first_chunk().expect("rows are whole vectors")
}

/// Luminance, blue and red chrominance of the pixels from `at` on.
#[inline(always)]
fn from_rgb(image: [&[u8]; 3], at: usize) -> ([i16; FEW], [i16; FEW], [i16; FEW]) {
    let (r, g, b) = (values(image[0], at), values(image[1], at), values(image[2], at));
    let (mut luma, mut blue, mut red) = ([0; FEW], [0; FEW], [0; FEW]);
    for i in 0..FEW {
        let [r, g, b] = [r[i], g[i], b[i]].map(u16::from);
        let high = HIGH[0] * r + HIGH[1] * g + HIGH[2] * b;
        let low = LOW[0] * r + LOW[1] * g + LOW[2] * b;
        luma[i] = ((high + (low >> 8) + 128) >> 8) as i16 - 128;
        // Shares of a chrominance add up to nothing: what green has in common with the others drops out. One less
        // than a half is added, so that nothing rounds to 128.
        let [r, b] = [r as i16 - g as i16, b as i16 - g as i16];
        blue[i] = (b - times(r, 2 * BLUE)) >> 1;
        red[i] = (r - times(b, 2 * RED)) >> 1;
    }
    (luma, blue, red)
}

/// `value` times `share / 2^16`, rounded down.
#[inline(always)]
fn times(value: i16, share: i32) -> i16 {
    ((i32::from(value) * share) >> 16) as i16
}

/// Means of squares of four pixels.
#[inline(always)]
fn mean_of_four(above: [i16; FEW], below: [i16; FEW]) -> [i16; HALF] {
    let mut sums = [0; FEW];
    for i in 0..FEW {
        sums[i] = above[i] + below[i];
    }
    // As one number of 32 bits, two pixels need not be parted.
    let pairs: [i32; HALF] = bytemuck::cast(sums);
    let mut out = [0; HALF];
    for i in 0..HALF {
        out[i] = ((both(pairs[i]) + 1 + (i & 1) as i32) >> 2) as i16;
    }
    out
}

/// The sum of two numbers of 16 bits.
#[inline(always)]
fn both(pair: i32) -> i32 {
    ((pair << 16) >> 16) + (pair >> 16)
}

/// Rows of `image` have `width` values, whole vectors.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl", "x86_64+avx2", "x86_64+sse4.1"))]
fn give_color(
    from: &[Samples; 3],
    sums: &mut [Vec<i16>; 2],
    image: [&mut [u8]; 3],
    extent: Extent,
    width: usize,
) {
    let across = [from[0].across(), from[1].across()];
    if (across, extent.width, width) == ([8, 4], 64, 64) {
        give_color_rows(from, sums, image, Extent { width: 64, ..extent }, 64, [8, 4]);
    } else {
        give_color_rows(from, sums, image, extent, width, across);
    }
}

#[inline(always)]
fn give_color_rows(
    [luma, blue, red]: &[Samples; 3],
    sums: &mut [Vec<i16>; 2],
    [out_red, out_green, out_blue]: [&mut [u8]; 3],
    extent: Extent,
    width: usize,
    [across, half_across]: [usize; 2],
) {
    let height = extent.height;
    let (half, stride) = (extent.width.div_ceil(2), width / 2 + 2);
    // All rows of sums before any of them is read: what has just been written in other pieces is slow to read.
    for (plane, sums) in [blue, red].into_iter().zip(&mut *sums) {
        for (y, sums) in sums.chunks_exact_mut(stride).enumerate().take(height) {
            let near = y / 2;
            let far = if y % 2 == 0 { near.saturating_sub(1) } else { (near + 1).min((height - 1) / 2) };
            sums_of_two(plane, half_across, [near, far], half, sums);
        }
    }
    for y in 0..height {
        let sums = [&sums[0][y * stride..][..stride], &sums[1][y * stride..][..stride]];
        for n in 0..width / FEW {
            let chroma = if half > 2 {
                [enlarge(few_and_ends(sums[0], n)), enlarge(few_and_ends(sums[1], n))]
            } else {
                // libjpeg repeats rows of one or two.
                [twice(take(blue, half_across, y / 2, n)), twice(take(red, half_across, y / 2, n))]
            };
            let pixels = to_rgb(take(luma, across, y, n), chroma);
            let at = y * width + n * FEW;
            out_red[at..][..FEW].copy_from_slice(&pixels.0);
            out_green[at..][..FEW].copy_from_slice(&pixels.1);
            out_blue[at..][..FEW].copy_from_slice(&pixels.2);
        }
    }
}

/// Weighted sums of the first `n` of two rows of a chrominance. The ends take the end in place of what is beyond.
#[inline(always)]
fn sums_of_two(plane: &Samples, across: usize, [near, far]: [usize; 2], n: usize, sums: &mut [i16]) {
    for (block, out) in sums[1..].as_chunks_mut().0.iter_mut().enumerate() {
        let (near, far): ([i16; HALF], [i16; HALF]) =
            (take(plane, across, near, block), take(plane, across, far, block));
        let mut sums = [0; HALF];
        for i in 0..HALF {
            sums[i] = 3 * near[i] + far[i];
        }
        *out = sums;
    }
    (sums[0], sums[n + 1]) = (sums[1], sums[n]);
}

/// The `n`-th few sums, and the ones beside them.
#[inline(always)]
fn few_and_ends(sums: &[i16], n: usize) -> &[i16; HALF + 2] {
    sums[HALF * n..].first_chunk().expect("rows are whole vectors")
}

#[inline(always)]
fn twice(chroma: [i16; HALF]) -> [i16; FEW] {
    let mut out = [0; FEW];
    for i in 0..FEW {
        out[i] = chroma[i / 2];
    }
    out
}

/// Chrominances for twice as many pixels, from sums with one more at each end.
#[inline(always)]
fn enlarge(sums: &[i16; HALF + 2]) -> [i16; FEW] {
    let mut out = [0; FEW];
    for i in 0..HALF {
        let middle = 3 * sums[i + 1];
        out[2 * i] = (middle + sums[i] + 8) >> 4;
        out[2 * i + 1] = (middle + sums[i + 2] + 7) >> 4;
    }
    out
}

#[inline(always)]
fn to_rgb(luma: [i16; FEW], [blue, red]: [[i16; FEW]; 2]) -> ([u8; FEW], [u8; FEW], [u8; FEW]) {
    let (mut r, mut g, mut b) = ([0; FEW], [0; FEW], [0; FEW]);
    for i in 0..FEW {
        let [luma, blue, red] = [luma[i] + 128, blue[i], red[i]];
        let byte = |value: i16| value.clamp(0, 255) as u8;
        r[i] = byte(luma + red + ((times(2 * red, RED_BACK) + 1) >> 1));
        let high = GREEN_HIGH[0] * red + GREEN_HIGH[1] * blue;
        let low = GREEN_LOW[0] * red + GREEN_LOW[1] * blue;
        g[i] = byte(luma - red + ((high + (low >> 8) + 128) >> 8));
        b[i] = byte(luma + 2 * blue + ((times(2 * blue, BLUE_BACK) + 1) >> 1));
    }
    (r, g, b)
}
