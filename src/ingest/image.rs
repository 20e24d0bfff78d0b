//! Decoded images: planes of bytes or floats, from JPEG and `.npy` files.

use super::error::{IngestError, Result};
use crate::base::color::luma;
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

    /// One channel: Pillow's luma for bytes, ITU-R 601 weights for floats.
    pub fn to_gray(self) -> Self {
        if self.channels == 1 {
            return self;
        }
        let n = (self.height * self.width) as usize;
        let pixels = match &self.pixels {
            Pixels::U8(p) => Pixels::U8((0..n).map(|i| luma(p[i], p[n + i], p[2 * n + i])).collect()),
            Pixels::F32(p) => {
                let gray = |i: usize| 0.2989 * p[i] + 0.587 * p[n + i] + 0.114 * p[2 * n + i];
                Pixels::F32((0..n).map(gray).collect())
            }
        };
        Self { channels: 1, pixels, ..self }
    }

    /// Three channels, equal ones for a gray image.
    pub fn to_rgb(self) -> Self {
        if self.channels == 3 {
            return self;
        }
        let pixels = match &self.pixels {
            Pixels::U8(p) => Pixels::U8(p.repeat(3)),
            Pixels::F32(p) => Pixels::F32(p.repeat(3)),
        };
        Self { channels: 3, pixels, ..self }
    }
}

thread_local! {
    /// Creating a decoder costs as much as decoding a small image.
    static DECODER: RefCell<Option<Decompressor>> = const { RefCell::new(None) };
}

/// Decodes a JPEG file: one channel if it is grayscale, else red, green and blue. The pixels equal
/// Pillow's, which uses the same library. Damage that libjpeg only warns of is an error. `path` is used
/// in messages.
pub fn decode_jpeg(file: &[u8], path: &Path) -> Result<Image> {
    let bad = |what: String| IngestError::bad(path, format!("{what}; replace or remove this file"));
    if !file.starts_with(&[0xFF, 0xD8]) {
        return Err(bad("is no JPEG: it does not start with the bytes FF D8".to_owned()));
    }
    let decoded = DECODER.with_borrow_mut(|slot| {
        let decoder = match slot {
            Some(decoder) => decoder,
            none => none.insert(Decompressor::new().map_err(|e| e.to_string())?),
        };
        decode_with(decoder, file)
    });
    decoded.map_err(bad)
}

fn decode_with(decoder: &mut Decompressor, file: &[u8]) -> std::result::Result<Image, String> {
    let damaged = |e: turbojpeg::Error| format!("damaged JPEG: {e}");
    let header = decoder.read_header(file).map_err(damaged)?;
    let (width, height) = (header.width, header.height);
    if width == 0 || height == 0 || width > 1 << 14 || height > 1 << 14 {
        return Err(format!("a JPEG of {width} x {height} pixels"));
    }
    let (format, channels) = match header.colorspace {
        Colorspace::Gray => (PixelFormat::GRAY, 1),
        Colorspace::CMYK | Colorspace::YCCK => return Err("a CMYK JPEG; gray and RGB are read".to_owned()),
        _ => (PixelFormat::RGB, 3),
    };
    let mut pixels = vec![0; width * height * channels];
    let image = turbojpeg::Image { pixels: &mut pixels[..], width, pitch: width * channels, height, format };
    decoder.decompress(file, image).map_err(damaged)?;
    let pixels = Pixels::U8(if channels == 3 { planes(&pixels) } else { pixels });
    Ok(Image { channels: channels as u32, height: height as u32, width: width as u32, pixels })
}

/// Interleaved pixels of three channels as planes.
fn planes(pixels: &[u8]) -> Vec<u8> {
    let n = pixels.len() / 3;
    let mut out = vec![0; 3 * n];
    let (red, rest) = out.split_at_mut(n);
    let (green, blue) = rest.split_at_mut(n);
    let planes = red.iter_mut().zip(green).zip(blue);
    for ([r, g, b], ((red, green), blue)) in pixels.as_chunks().0.iter().zip(planes) {
        (*red, *green, *blue) = (*r, *g, *b);
    }
    out
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
        assert_eq!(rgb.clone().to_gray().pixels, Pixels::U8(vec![76, 130]));
        let gray = rgb.to_gray();
        assert_eq!(gray.to_rgb().pixels, Pixels::U8(vec![76, 130, 76, 130, 76, 130]));
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

    #[test]
    fn a_jpeg_cut_anywhere_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.JPEG");
        let pixels: Vec<u8> = (0..32 * 32 * 3).map(|i| crate::base::rng::mix64(i) as u8).collect();
        let image = turbojpeg::Image {
            pixels: &pixels[..],
            width: 32,
            pitch: 96,
            height: 32,
            format: PixelFormat::RGB,
        };
        let file = turbojpeg::compress(image, 90, turbojpeg::Subsamp::Sub2x2).unwrap();
        fs::write(&path, &file).unwrap();
        assert_eq!(decode_jpeg(&fs::read(&path).unwrap(), &path).unwrap().shape(), [3, 32, 32]);
        for n in (0..file.len() - 2).step_by(7) {
            fs::write(&path, &file[..n]).unwrap();
            assert!(
                decode_jpeg(&fs::read(&path).unwrap(), &path).is_err(),
                "{n} of {} bytes were accepted",
                file.len()
            );
        }
    }
}
