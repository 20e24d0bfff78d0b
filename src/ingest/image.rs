//! Decoded images: planes of bytes or floats, from JPEG and `.npy` files.

use super::error::{IngestError, Result};
use crate::base::color::luma;
use multiversion::multiversion;
use std::cell::RefCell;
use std::path::Path;
use turbojpeg::{Colorspace, Decompressor, PixelFormat};

/// An image `[channels, height, width]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// 1 (gray) or 3 (red, green, blue).
    pub channels: u32,
    /// Rows.
    pub height: u32,
    /// Columns.
    pub width: u32,
    /// Planes one after another.
    pub pixels: Pixels,
}

/// Values of an image.
#[derive(Debug, Clone, PartialEq)]
pub enum Pixels {
    /// 0 to 255.
    U8(Vec<u8>),
    /// On the scale of the file.
    F32(Vec<f32>),
}

impl Pixels {
    /// Appends the values as shards store them.
    pub fn append_to(&self, raw: &mut Vec<u8>) {
        match self {
            Self::U8(pixels) => raw.extend_from_slice(pixels),
            Self::F32(pixels) => pixels.iter().for_each(|v| raw.extend_from_slice(&v.to_le_bytes())),
        }
    }
}

impl Image {
    /// Channels, height, width.
    pub fn shape(&self) -> [u32; 3] {
        [self.channels, self.height, self.width]
    }

    /// With other channels: Pillow's luma for bytes, ITU-R 601 weights for floats.
    pub fn with(self, channels: Channels) -> Self {
        let n = (self.height * self.width) as usize;
        let (channels, pixels) = match (self.pixels, self.channels, channels) {
            (Pixels::U8(p), 3, Channels::Gray) => {
                (1, Pixels::U8((0..n).map(|i| luma(p[i], p[n + i], p[2 * n + i])).collect()))
            }
            (Pixels::F32(p), 3, Channels::Gray) => {
                let gray = |i: usize| 0.2989 * p[i] + 0.587 * p[n + i] + 0.114 * p[2 * n + i];
                (1, Pixels::F32((0..n).map(gray).collect()))
            }
            (Pixels::U8(p), 1, Channels::Rgb) => (3, Pixels::U8(p.repeat(3))),
            (Pixels::F32(p), 1, Channels::Rgb) => (3, Pixels::F32(p.repeat(3))),
            (pixels, found, _) => (found, pixels),
        };
        Self { channels, pixels, ..self }
    }
}

/// How many channels an image is stored with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channels {
    /// As many as its file has.
    Kept,
    /// One: luma.
    Gray,
    /// Three; a gray image gets three equal ones.
    Rgb,
}

/// What a thread needs again for the next file.
#[derive(Default)]
struct Decoder {
    /// Creating one costs as much as decoding a small image.
    jpeg: Option<Decompressor>,
    /// Pixels as libjpeg gives them, channels interleaved.
    room: Vec<u8>,
}

/// libjpeg-turbo writes colours past the caches where they would lie at multiples of this, for those who only show
/// them. Here they are read again at once.
const PAST_CACHES: usize = 32;

thread_local! {
    static DECODER: RefCell<Decoder> = RefCell::default();
}

/// Decodes a JPEG file and appends its planes to `out`; gives channels, height and width. The pixels equal
/// Pillow's, which uses the same library. Damage that libjpeg only warns of is an error, after which `out` is
/// as it was. `path` is used in messages.
pub fn append_jpeg(file: &[u8], path: &Path, channels: Channels, out: &mut Vec<u8>) -> Result<[u32; 3]> {
    let bad = |what: String| IngestError::bad(path, format!("{what}; replace or remove this file"));
    if !file.starts_with(&[0xFF, 0xD8]) {
        return Err(bad("is no JPEG: it does not start with the bytes FF D8".to_owned()));
    }
    DECODER.with_borrow_mut(|decoder| {
        let ([found, height, width], pixels) = decoder.jpeg(file).map_err(bad)?;
        let stored = match (found, channels) {
            (1, Channels::Rgb) => {
                (0..3).for_each(|_| out.extend_from_slice(pixels));
                3
            }
            (1, _) => {
                out.extend_from_slice(pixels);
                1
            }
            (_, Channels::Gray) => {
                append_luma(pixels, out);
                1
            }
            _ => {
                append_planes(pixels, out);
                3
            }
        };
        Ok([stored, height, width])
    })
}

impl Decoder {
    /// Decodes a file; gives channels, height and width, and the pixels, channels interleaved.
    fn jpeg(&mut self, file: &[u8]) -> std::result::Result<([u32; 3], &[u8]), String> {
        let damaged = |e: turbojpeg::Error| format!("damaged JPEG: {e}");
        let decoder = match &mut self.jpeg {
            Some(decoder) => decoder,
            none => none.insert(Decompressor::new().map_err(|e| e.to_string())?),
        };
        let header = decoder.read_header(file).map_err(damaged)?;
        let (width, height) = (header.width, header.height);
        if width == 0 || height == 0 || width > 1 << 14 || height > 1 << 14 {
            return Err(format!("a JPEG of {width} x {height} pixels"));
        }
        let (format, channels) = match header.colorspace {
            Colorspace::Gray => (PixelFormat::GRAY, 1),
            Colorspace::CMYK | Colorspace::YCCK => (PixelFormat::CMYK, 4),
            _ => (PixelFormat::RGB, 3),
        };
        let n = width * height * channels;
        self.room.resize(n + PAST_CACHES, 0);
        let start = (PAST_CACHES + PAST_CACHES / 2 - self.room.as_ptr().addr() % PAST_CACHES) % PAST_CACHES;
        let pixels = &mut self.room[start..start + n];
        let image = turbojpeg::Image { pixels: &mut *pixels, width, pitch: width * channels, height, format };
        decoder.decompress(file, image).map_err(damaged)?;
        let pixels = if channels == 4 { cmyk_to_rgb(pixels) } else { pixels };
        Ok(([channels.min(3) as u32, height as u32, width as u32], pixels))
    }
}

/// As Pillow: inks are stored inverted, and black takes from each colour.
fn cmyk_to_rgb(pixels: &mut [u8]) -> &[u8] {
    let product = |a: u8, b: u8| {
        let product = u32::from(a) * u32::from(b) + 128;
        ((product + (product >> 8)) >> 8) as u8
    };
    for i in 0..pixels.len() / 4 {
        let white = pixels[4 * i + 3];
        for c in 0..3 {
            pixels[3 * i + c] = white - product(255 - pixels[4 * i + c], white);
        }
    }
    &pixels[..pixels.len() / 4 * 3]
}

/// Decodes a PNG file; 16 bits become 8, and what is transparent is shown.
pub fn decode_png(file: &[u8], path: &Path) -> Result<Image> {
    let bad = |what: String| IngestError::bad(path, format!("{what}; replace or remove this file"));
    let damaged = |e: png::DecodingError| bad(format!("damaged PNG: {e}"));
    let mut decoder = png::Decoder::new(std::io::Cursor::new(file));
    decoder.set_transformations(png::Transformations::normalize_to_color8());
    let mut reader = decoder.read_info().map_err(damaged)?;
    let (width, height) = (reader.info().width, reader.info().height);
    if width > 1 << 14 || height > 1 << 14 {
        return Err(bad(format!("a PNG of {width} x {height} pixels")));
    }
    let mut interleaved = vec![0; reader.output_buffer_size().unwrap_or(0)];
    let info = reader.next_frame(&mut interleaved).map_err(damaged)?;
    let samples = info.color_type.samples();
    let channels = if samples < 3 { 1 } else { 3 };
    let plane = |c: usize| interleaved.iter().skip(c).step_by(samples).copied();
    let pixels = Pixels::U8((0..channels).flat_map(plane).collect());
    Ok(Image { channels: channels as u32, height, width, pixels })
}

/// Appends interleaved red, green and blue as planes.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl", "x86_64+avx2", "x86_64+sse4.1"))]
fn append_planes(pixels: &[u8], out: &mut Vec<u8>) {
    for channel in 0..3 {
        out.extend(pixels.as_chunks::<3>().0.iter().map(|pixel| pixel[channel]));
    }
}

/// Appends the luma of interleaved red, green and blue.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl", "x86_64+avx2", "x86_64+sse4.1"))]
fn append_luma(pixels: &[u8], out: &mut Vec<u8>) {
    out.extend(pixels.as_chunks().0.iter().map(|&[red, green, blue]| luma(red, green, blue)));
}

/// Whether the header of a `.npy` file is one that an image may have: one dictionary with one tuple of up to
/// three numbers of up to five digits. The parser needs time without bound for deeper ones, and multiplies
/// larger numbers beyond 64 bits.
fn plain_header(file: &[u8]) -> bool {
    let length = match file.get(6) {
        Some(1) => file.get(8..10).map(|n| (10, usize::from(n[0]) | usize::from(n[1]) << 8)),
        _ => file.get(8..12).and_then(|n| n.first_chunk()).map(|n| (12, u32::from_le_bytes(*n) as usize)),
    };
    let header = length.and_then(|(start, n)| file.get(start..)?.get(..n)).filter(|h| h.len() <= 4096);
    let Some(header) = header else { return false };
    let count = |byte: u8, of: &[u8]| of.split(|b| *b == byte).count() - 1;
    let tuple = header.split(|&b| b == b'(').nth(1).and_then(|rest| rest.split(|&b| b == b')').next());
    let digits = header.split(|b| !b.is_ascii_digit()).map(<[u8]>::len).max();
    count(b'{', header) == 1
        && count(b'(', header) <= 1
        && count(b'[', header) == 0
        && digits.is_none_or(|n| n <= 5)
        && tuple.is_none_or(|tuple| count(b',', tuple) <= 2)
}

/// Reads the bytes of a `.npy` file of shape H x W, H x W x 1 or H x W x 3. Bytes stay bytes, floats stay floats,
/// and other whole numbers must lie within 0 to 255.
pub fn decode_npy(file: &[u8], path: &Path) -> Result<Image> {
    let bad = |what: String| IngestError::bad(path, what);
    let damaged =
        |e: std::io::Error| IngestError::bad(path, format!("is no .npy array that can be read: {e}"));
    if !plain_header(file) {
        return Err(bad(
            "is no .npy array of numbers: its header is damaged or describes something else".into()
        ));
    }
    let npy = npyz::NpyFile::new(file).map_err(damaged)?;
    let shape: Vec<usize> = npy.shape().iter().map(|&n| n as usize).collect();
    let (height, width, channels) = match shape[..] {
        [h, w] => (h, w, 1),
        [h, w, c @ (1 | 3)] => (h, w, c),
        _ => return Err(bad(format!("has shape {shape:?}; an image is H x W or H x W x 3"))),
    };
    if height == 0 || width == 0 || height > 1 << 14 || width > 1 << 14 {
        return Err(bad(format!("an image of {height} x {width} pixels")));
    }
    let fortran = npy.order() == npyz::Order::Fortran;
    let n = height * width * channels;
    let descr = npy.dtype().descr();
    let kind = descr.trim_matches('\'').trim_start_matches(['<', '>', '|', '=']).to_owned();
    let size: usize = kind.get(1..).and_then(|n| n.parse().ok()).unwrap_or(0);
    if file.len() < n * size {
        return Err(bad(format!("{} bytes, too few for its shape {shape:?}: it was cut short", file.len())));
    }
    let position = |c: usize, y: usize, x: usize| {
        if fortran { (c * width + x) * height + y } else { (y * width + x) * channels + c }
    };
    let order = (0..channels).flat_map(|c| (0..height).flat_map(move |y| (0..width).map(move |x| (c, y, x))));
    let order: Vec<usize> = order.map(|(c, y, x)| position(c, y, x)).collect();
    let bytes = |values: Vec<i64>| -> Result<Pixels> {
        let value =
            |i: &usize| u8::try_from(values[*i]).map_err(|_| bad(format!("holds {}, no byte", values[*i])));
        Ok(Pixels::U8(order.iter().map(value).collect::<Result<_>>()?))
    };
    let floats = |values: Vec<f32>| match values.iter().position(|v| !v.is_finite()) {
        Some(at) => Err(bad(format!("holds {} at position {at}", values[at]))),
        None => Ok(Pixels::F32(order.iter().map(|&i| values[i]).collect())),
    };
    let pixels = match kind.as_str() {
        "u1" => {
            let values: Vec<u8> = npy.into_vec().map_err(damaged)?;
            Pixels::U8(order.iter().map(|&i| values[i]).collect())
        }
        "i2" => bytes(npy.into_vec::<i16>().map_err(damaged)?.into_iter().map(i64::from).collect())?,
        "u2" => bytes(npy.into_vec::<u16>().map_err(damaged)?.into_iter().map(i64::from).collect())?,
        "i4" => bytes(npy.into_vec::<i32>().map_err(damaged)?.into_iter().map(i64::from).collect())?,
        "i8" => bytes(npy.into_vec::<i64>().map_err(damaged)?)?,
        "f4" => floats(npy.into_vec::<f32>().map_err(damaged)?)?,
        "f8" => floats(npy.into_vec::<f64>().map_err(damaged)?.into_iter().map(|v| v as f32).collect())?,
        _ => {
            return Err(bad(format!(
                "holds elements of type {descr}; bytes, whole numbers and floats are read"
            )));
        }
    };
    Ok(Image { channels: channels as u32, height: height as u32, width: width as u32, pixels })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn gray_equals_pillow_and_gray_images_become_rgb() {
        let rgb =
            Image { channels: 3, height: 1, width: 2, pixels: Pixels::U8(vec![255, 12, 0, 200, 0, 77]) };
        assert_eq!(rgb.clone().with(Channels::Kept), rgb);
        let gray = rgb.with(Channels::Gray);
        assert_eq!(gray.pixels, Pixels::U8(vec![76, 130]));
        assert_eq!(gray.with(Channels::Rgb).pixels, Pixels::U8(vec![76, 130, 76, 130, 76, 130]));
    }

    #[test]
    fn npy_files_are_read_in_both_memory_orders() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.npy");
        for (fortran, data) in [(false, [1u8, 2, 3, 4, 5, 6]), (true, [1, 4, 2, 5, 3, 6])] {
            let order = if fortran { "True" } else { "False" };
            let mut text = format!("{{'descr': '|u1', 'fortran_order': {order}, 'shape': (2, 3), }}");
            text.push_str(&" ".repeat(117 - text.len()));
            text.push('\n');
            let file = [b"\x93NUMPY\x01\0\x76\0", text.as_bytes(), &data].concat();
            fs::write(&path, &file).unwrap();
            let image = decode_npy(&fs::read(&path).unwrap(), &path).unwrap();
            assert_eq!((image.shape(), image.pixels), ([1, 2, 3], Pixels::U8(vec![1, 2, 3, 4, 5, 6])));
            fs::write(&path, &file[..file.len() - 1]).unwrap();
            // Deep nesting would keep the parser busy for ever.
            let nested = [&file[..10], "{".repeat(117).as_bytes(), b"\n"].concat();
            assert!(decode_npy(&nested, &path).unwrap_err().to_string().contains("header"));
            let huge = [&file[..10], text.replace("(2, 3)", "(9999999999, 9999999999)").as_bytes()].concat();
            assert!(decode_npy(&huge, &path).unwrap_err().to_string().contains("header"));
            assert!(decode_npy(&fs::read(&path).unwrap(), &path).is_err());
        }
    }

    fn jpeg(format: PixelFormat, subsamp: turbojpeg::Subsamp) -> Vec<u8> {
        let pixels: Vec<u8> = (0..32 * 32 * 3).map(|i| crate::base::rng::mix64(i) as u8).collect();
        let pitch = 32 * format.size();
        let image = turbojpeg::Image { pixels: &pixels[..], width: 32, pitch, height: 32, format };
        turbojpeg::compress(image, 90, subsamp).unwrap().to_vec()
    }

    fn decoded(file: &[u8], channels: Channels) -> Result<Image> {
        // What is there before stays.
        let mut out = vec![1, 2];
        let [channels, height, width] = append_jpeg(file, Path::new("a.JPEG"), channels, &mut out)?;
        assert_eq!(out.drain(..2).as_slice(), [1, 2]);
        Ok(Image { channels, height, width, pixels: Pixels::U8(out) })
    }

    #[test]
    fn jpegs_are_decoded_to_the_channels_asked_for() {
        for (format, channels) in [(PixelFormat::RGB, 3), (PixelFormat::GRAY, 1)] {
            let subsamp = if channels == 3 { turbojpeg::Subsamp::Sub2x2 } else { turbojpeg::Subsamp::Gray };
            let file = jpeg(format, subsamp);
            let interleaved = turbojpeg::decompress(&file, format).unwrap().pixels;
            let kept = decoded(&file, Channels::Kept).unwrap();
            assert_eq!(kept.shape(), [channels, 32, 32]);
            let planes = (0..channels as usize)
                .flat_map(|c| interleaved.iter().skip(c).step_by(channels as usize).copied());
            assert_eq!(kept.pixels, Pixels::U8(planes.collect()));
            for channels in [Channels::Gray, Channels::Rgb] {
                assert_eq!(decoded(&file, channels).unwrap(), kept.clone().with(channels));
            }
        }
    }

    /// Checksum and first pixels of what Pillow 13.0 makes of the same file.
    #[test]
    fn cmyk_equals_pillow() {
        let mut planes = Vec::new();
        let file = include_bytes!("../../tests/vectors/cmyk.jpg");
        let shape = append_jpeg(file, Path::new("a.JPEG"), Channels::Kept, &mut planes).unwrap();
        assert_eq!(shape, [3, 16, 24]);
        let n = 16 * 24;
        let interleaved: Vec<u8> =
            (0..n).flat_map(|i| (0..3).map(|c| planes[c * n + i]).collect::<Vec<_>>()).collect();
        assert_eq!(interleaved[..9], [255, 255, 255, 245, 255, 252, 235, 255, 249]);
        assert_eq!(
            interleaved.iter().zip((1..=251).cycle()).map(|(&v, i)| u64::from(v) * i).sum::<u64>(),
            16_802_778
        );
    }

    #[test]
    fn pngs_of_all_kinds_become_planes_of_bytes() {
        use png::{BitDepth, ColorType};
        let write = |color: ColorType, depth: BitDepth, data: &[u8], palette: Option<&[u8]>| {
            let mut file = Vec::new();
            let mut encoder = png::Encoder::new(&mut file, 2, 1);
            encoder.set_color(color);
            encoder.set_depth(depth);
            if let Some(palette) = palette {
                encoder.set_palette(palette.to_vec());
            }
            encoder.write_header().unwrap().write_image_data(data).unwrap();
            file
        };
        for (color, depth, data, palette, channels, expected) in [
            (ColorType::Grayscale, BitDepth::Eight, &[7, 9][..], None, 1, &[7, 9][..]),
            (ColorType::Grayscale, BitDepth::Sixteen, &[7, 1, 9, 255], None, 1, &[7, 9]),
            (ColorType::GrayscaleAlpha, BitDepth::Eight, &[7, 0, 9, 128], None, 1, &[7, 9]),
            (ColorType::Rgb, BitDepth::Eight, &[1, 2, 3, 4, 5, 6], None, 3, &[1, 4, 2, 5, 3, 6]),
            (ColorType::Rgba, BitDepth::Eight, &[1, 2, 3, 0, 4, 5, 6, 9], None, 3, &[1, 4, 2, 5, 3, 6]),
            (
                ColorType::Indexed,
                BitDepth::Eight,
                &[1, 0],
                Some(&[1, 2, 3, 4, 5, 6][..]),
                3,
                &[4, 1, 5, 2, 6, 3],
            ),
        ] {
            let file = write(color, depth, data, palette);
            let image = decode_png(&file, Path::new("a.JPEG")).unwrap();
            assert_eq!((image.shape(), image.pixels), ([channels, 1, 2], Pixels::U8(expected.to_vec())));
            for n in 8..file.len() - 12 {
                assert!(decode_png(&file[..n], Path::new("a.JPEG")).is_err(), "{n} of {} bytes", file.len());
            }
        }
    }

    #[test]
    fn a_jpeg_cut_anywhere_is_an_error() {
        let file = jpeg(PixelFormat::RGB, turbojpeg::Subsamp::Sub2x2);
        for n in (0..file.len() - 2).step_by(7) {
            let cut = decoded(&file[..n], Channels::Kept);
            assert!(cut.is_err(), "{n} of {} bytes were accepted", file.len());
        }
    }
}
