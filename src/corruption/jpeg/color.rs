//! Red, green and blue to luminance and chrominance at half resolution, and back (JFIF 1.02; ITU-T T.871).
//!
//! libjpeg's whole numbers: constants of 16 bits; a chrominance is the mean of four pixels, rounded down and
//! up in turn; going back, pixels take 9/16 of the nearest chrominance, 3/16 of the next one across and the
//! next one down, and 1/16 of the one across from both ("fancy upsampling").
//! Samples are held less 128, so that zero is the middle.
#![expect(clippy::inline_always, reason = "functions are compiled for the vectors of their caller")]

use super::super::Extent;
use multiversion::multiversion;

const fn fixed(value: f64) -> i32 {
    (value * 65536.0 + 0.5) as i32
}

const HALF: i32 = 1 << 15;

/// Shares of red, green and blue in luminance, blue and red chrominance.
const LUMA: [i32; 3] = [fixed(0.299), fixed(0.587), fixed(0.114)];
const BLUE: [i32; 3] = [-fixed(0.16874), -fixed(0.33126), fixed(0.5)];
const RED: [i32; 3] = [fixed(0.5), -fixed(0.41869), -fixed(0.08131)];

/// Luminance, blue and red chrominance: planes of whole blocks.
#[derive(Debug, Default)]
pub(super) struct Components {
    pub(super) planes: [Vec<i16>; 3],
    /// Rows of the luminance and of the chrominances, with what fills their blocks.
    pub(super) widths: [usize; 2],
    /// Blue and red chrominance of two rows of pixels.
    rows: [[Vec<i16>; 2]; 2],
    /// Weighted sums of two rows of a chrominance, with one more at each end.
    sums: Vec<i16>,
}

impl Components {
    /// Makes room for an image.
    pub(super) fn resize(&mut self, extent: Extent) {
        let Extent { channels, height, width } = extent;
        let [half_height, half_width] = [height, width].map(|n| n.div_ceil(2).next_multiple_of(8));
        let [height, width] = [height, width].map(|n| n.next_multiple_of(8));
        self.widths = [width, half_width];
        self.planes[0].resize(height * width, 0);
        if channels == 3 {
            self.planes[1..].iter_mut().for_each(|plane| plane.resize(half_height * half_width, 0));
            self.rows.iter_mut().flatten().for_each(|row| row.resize(2 * half_width, 0));
            self.sums.resize(half_width + 2, 0);
        }
    }

    /// Takes a gray image in.
    pub(super) fn take_gray(&mut self, image: &[u8], extent: Extent) {
        let width = self.widths[0];
        let plane = &mut self.planes[0];
        for (row, out) in image.chunks_exact(extent.width).zip(plane.chunks_exact_mut(width)) {
            for (&value, out) in row.iter().zip(out.iter_mut()) {
                *out = i16::from(value) - 128;
            }
            extend_row(out, extent.width);
        }
        extend_down(plane, width, extent.height);
    }

    /// Gives a gray image out.
    pub(super) fn give_gray(&self, image: &mut [u8], extent: Extent) {
        let rows = self.planes[0].chunks_exact(self.widths[0]);
        for (out, row) in image.chunks_exact_mut(extent.width).zip(rows) {
            for (out, &value) in out.iter_mut().zip(row) {
                *out = (value + 128) as u8;
            }
        }
    }

    /// Takes a colour image of planes in.
    pub(super) fn take_color(&mut self, image: &[u8], extent: Extent) {
        take_color(self, image, extent);
    }

    /// Gives a colour image of planes out.
    pub(super) fn give_color(&mut self, image: &mut [u8], extent: Extent) {
        give_color(self, image, extent);
    }
}

/// Repeats value `n - 1` to the end.
fn extend_row(row: &mut [i16], n: usize) {
    let last = row[n - 1];
    row[n..].fill(last);
}

/// Repeats row `n - 1` to the end.
fn extend_down(plane: &mut [i16], width: usize, n: usize) {
    let (rows, rest) = plane.split_at_mut(n * width);
    let last = &rows[(n - 1) * width..];
    rest.chunks_exact_mut(width).for_each(|row| row.copy_from_slice(last));
}

/// Planes of red, green and blue.
fn split(image: &[u8], plane: usize) -> [&[u8]; 3] {
    let (red, rest) = image.split_at(plane);
    let (green, blue) = rest.split_at(plane);
    [red, green, blue]
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl", "x86_64+avx2", "x86_64+sse4.1"))]
fn take_color(to: &mut Components, image: &[u8], extent: Extent) {
    let Extent { height, width, .. } = extent;
    let Components { planes: [luma, blue, red], widths: [across, half], rows: [first, second], .. } = to;
    let planes = split(image, extent.plane());
    for (pair, luma) in luma.chunks_exact_mut(2 * *across).enumerate().take(height.div_ceil(2)) {
        for ((i, luma), chroma) in luma.chunks_exact_mut(*across).enumerate().zip([&mut *first, &mut *second])
        {
            let y = (2 * pair + i).min(height - 1);
            let [chroma_blue, chroma_red] = chroma;
            let row = y * width..(y + 1) * width;
            let pixels = [&planes[0][row.clone()], &planes[1][row.clone()], &planes[2][row]];
            from_rgb(pixels, &mut luma[..width], &mut chroma_blue[..width], &mut chroma_red[..width]);
            extend_row(luma, width);
            extend_row(chroma_blue, width);
            extend_row(chroma_red, width);
        }
        let out = pair * *half..(pair + 1) * *half;
        mean_of_four(&first[0], &second[0], &mut blue[out.clone()]);
        mean_of_four(&first[1], &second[1], &mut red[out]);
    }
    extend_down(luma, *across, height.next_multiple_of(2));
    extend_down(blue, *half, height.div_ceil(2));
    extend_down(red, *half, height.div_ceil(2));
}

#[inline(always)]
fn from_rgb([r, g, b]: [&[u8]; 3], luma: &mut [i16], blue: &mut [i16], red: &mut [i16]) {
    let n = luma.len();
    let (r, g, b, blue, red) = (&r[..n], &g[..n], &b[..n], &mut blue[..n], &mut red[..n]);
    for i in 0..n {
        let pixel = [i32::from(r[i]), i32::from(g[i]), i32::from(b[i])];
        luma[i] = ((sum(LUMA, pixel) + HALF - (128 << 16)) >> 16) as i16;
        // One less than a half, so that nothing rounds to 128.
        blue[i] = ((sum(BLUE, pixel) + HALF - 1) >> 16) as i16;
        red[i] = ((sum(RED, pixel) + HALF - 1) >> 16) as i16;
    }
}

#[inline(always)]
fn sum(shares: [i32; 3], pixel: [i32; 3]) -> i32 {
    shares[0] * pixel[0] + shares[1] * pixel[1] + shares[2] * pixel[2]
}

#[inline(always)]
fn mean_of_four(above: &[i16], below: &[i16], out: &mut [i16]) {
    let pixels = above.as_chunks::<4>().0.iter().zip(below.as_chunks::<4>().0);
    for (out, (a, b)) in out.as_chunks_mut::<2>().0.iter_mut().zip(pixels) {
        *out = [(a[0] + a[1] + b[0] + b[1] + 1) >> 2, (a[2] + a[3] + b[2] + b[3] + 2) >> 2];
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl", "x86_64+avx2", "x86_64+sse4.1"))]
fn give_color(from: &mut Components, image: &mut [u8], extent: Extent) {
    let Extent { height, width, .. } = extent;
    let Components { planes: [luma, blue, red], widths: [across, half], rows: [chroma, _], sums } = from;
    let (out_red, rest) = image.split_at_mut(extent.plane());
    let (out_green, out_blue) = rest.split_at_mut(extent.plane());
    let [chroma_blue, chroma_red] = chroma;
    let rows = out_red.chunks_exact_mut(width).zip(out_green.chunks_exact_mut(width));
    let rows = rows.zip(out_blue.chunks_exact_mut(width)).zip(luma.chunks_exact(*across));
    for (y, (((red_row, green_row), blue_row), luma)) in rows.enumerate() {
        let near = y / 2;
        let far = if y % 2 == 0 { near.saturating_sub(1) } else { (near + 1).min((height - 1) / 2) };
        for (plane, out) in [(&*blue, &mut *chroma_blue), (&*red, &mut *chroma_red)] {
            let n = width.div_ceil(2);
            enlarge(&plane[near * *half..][..n], &plane[far * *half..][..n], sums, out);
        }
        to_rgb(luma, chroma_blue, chroma_red, [red_row, green_row, blue_row]);
    }
}

/// A row of chrominances for twice as many pixels. The ends take the end in place of what is beyond. Rows of
/// one or two are repeated instead, as libjpeg does.
#[inline(always)]
fn enlarge(near: &[i16], far: &[i16], sums: &mut [i16], out: &mut [i16]) {
    let n = near.len();
    let pairs = &mut out.as_chunks_mut::<2>().0[..n];
    if n <= 2 {
        pairs.iter_mut().zip(near).for_each(|(out, &value)| *out = [value; 2]);
        return;
    }
    let (far, sums) = (&far[..n], &mut sums[..n + 2]);
    for i in 0..n {
        sums[i + 1] = 3 * near[i] + far[i];
    }
    (sums[0], sums[n + 1]) = (sums[1], sums[n]);
    let (left, middle, right) = (&sums[..n], &sums[1..][..n], &sums[2..][..n]);
    for i in 0..n {
        pairs[i] = [(3 * middle[i] + left[i] + 8) >> 4, (3 * middle[i] + right[i] + 7) >> 4];
    }
}

#[inline(always)]
fn to_rgb(luma: &[i16], blue: &[i16], red: &[i16], [r, g, b]: [&mut [u8]; 3]) {
    let n = r.len();
    let (luma, blue, red, g, b) = (&luma[..n], &blue[..n], &red[..n], &mut g[..n], &mut b[..n]);
    for i in 0..n {
        let [luma, blue, red] = [i32::from(luma[i]) + 128, i32::from(blue[i]), i32::from(red[i])];
        r[i] = (luma + ((fixed(1.402) * red + HALF) >> 16)).clamp(0, 255) as u8;
        g[i] = (luma + ((HALF - fixed(0.34414) * blue - fixed(0.71414) * red) >> 16)).clamp(0, 255) as u8;
        b[i] = (luma + ((fixed(1.772) * blue + HALF) >> 16)).clamp(0, 255) as u8;
    }
}
