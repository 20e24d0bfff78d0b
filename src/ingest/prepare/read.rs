//! Image files to bytes as shards store them.

use super::{IngestError, Result};
use crate::base::DType;
use crate::ingest::fit::Fit;
use crate::ingest::image::{Channels, Image, Pixels, append_jpeg, decode_npy, decode_png};
use crate::shard::Field;
use std::cell::RefCell;
use std::fs;
use std::io::Read;
use std::path::Path;

thread_local! {
    /// An image file as it is.
    static FILE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The form that images are stored in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Form {
    pub(super) channels: Channels,
    pub(super) fit: Fit,
    /// Whether they are labelled images, not stimuli.
    pub(super) labelled: bool,
}

impl Form {
    /// As the file has it.
    pub(super) const KEPT: Self = Self { channels: Channels::Kept, fit: Fit::Kept, labelled: false };
}

/// What was read from an image file.
pub(super) struct ImageFile {
    pub(super) shape: [u32; 3],
    pub(super) dtype: DType,
    pub(super) file_bytes: u64,
}

/// Reads an image, of which kind its first bytes say, and appends it to `out` as shards store it.
pub(super) fn read_image(path: &Path, form: Form, out: &mut Vec<u8>) -> Result<ImageFile> {
    FILE.with_borrow_mut(|buffer| {
        let file = read_file(path, buffer).map_err(IngestError::io(path, "read"))?;
        let file_bytes = file.len() as u64;
        let encoded = path.extension().is_none_or(|e| e != "npy");
        let png = encoded && file.starts_with(b"\x89PNG");
        if encoded && !png && form.fit == Fit::Kept {
            let shape = append_jpeg(file, path, form.channels, out)?;
            return Ok(ImageFile { shape, dtype: DType::U8, file_bytes });
        }
        let image = if png {
            decode_png(file, path)?
        } else if encoded {
            let mut planes = Vec::new();
            let [channels, height, width] = append_jpeg(file, path, Channels::Kept, &mut planes)?;
            Image { channels, height, width, pixels: Pixels::U8(planes) }
        } else {
            decode_npy(file, path)?
        };
        // Gray comes last, as the reference has it.
        let fitted = form.fit.apply(image).map_err(|what| IngestError::bad(path, what))?;
        let image = fitted.with(form.channels);
        image.pixels.append_to(out);
        let dtype = if matches!(image.pixels, Pixels::U8(_)) { DType::U8 } else { DType::F32 };
        Ok(ImageFile { shape: image.shape(), dtype, file_bytes })
    })
}

/// The same for one of many that are stored as `image` says: it must be of that shape and type.
pub(super) fn read_alike(path: &Path, form: Form, image: &Field, out: &mut Vec<u8>) -> Result<ImageFile> {
    let found = read_image(path, form, out)?;
    if found.shape[..] == image.shape.0 && found.dtype == image.dtype {
        return Ok(found);
    }
    let what = format!(
        "{:?} of {}, and the images before are {:?} of {}",
        found.shape, found.dtype, image.shape.0, image.dtype
    );
    let other_channels = found.shape[1..] == image.shape.0[1..] && found.dtype == image.dtype;
    // Stimuli are not resized.
    let way_out = if form.labelled {
        "; `--resize 256` makes them one size"
    } else if other_channels {
        "; `--color gray` makes them alike"
    } else {
        ""
    };
    Err(IngestError::bad(path, what + way_out))
}

/// Reads a file into a buffer that keeps its length. Small files take one read and one that finds the end,
/// without asking for their length before.
fn read_file<'a>(path: &Path, buffer: &'a mut Vec<u8>) -> std::io::Result<&'a [u8]> {
    let mut file = fs::File::open(path)?;
    let mut n = 0;
    loop {
        if n == buffer.len() {
            buffer.resize((2 * n).max(64 << 10), 0);
        }
        match file.read(&mut buffer[n..]) {
            Ok(0) => return Ok(&buffer[..n]),
            Ok(more) => n += more,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}
