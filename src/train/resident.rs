//! Training images that live on the device: they go there once, as bytes, and batches are made there. The host only
//! draws what happens to each image. Positions are whole numbers and bytes become values through the host's own table,
//! so a batch equals the host's to the bit, on any device.

use super::TrainError;
use crate::load::{Batch, FillMemory, LoadError, Pixels, Source};
use crate::torch_ext::send;
use rayon::prelude::*;
use tch::{Device, IndexOp, Kind, Tensor};

/// The images of all sources whose batches the device makes.
#[derive(Debug)]
pub struct Resident {
    /// By stream; none where the host makes batches.
    streams: Vec<Option<Stream>>,
}

#[derive(Debug)]
struct Stream {
    /// Bytes `[images, channels, pixels]`; streams of one data set share them.
    images: Tensor,
    /// Normalised value of each byte `[channels * 256]`.
    values: Tensor,
    /// Where the values of each channel begin `[channels, 1]`.
    channel: Tensor,
    /// Numbers of columns `[1, 1, width]` and rows `[1, height, 1]`.
    grid: [Tensor; 2],
}

/// Bytes on their way to the device.
const CHUNK: usize = 32 << 20;

impl Resident {
    /// Brings the images of `sources` to `device`, as far as their batches are to be made there; none if none are.
    /// `progress` is told how many more images are there.
    pub fn upload(
        sources: &[Source],
        device: Device,
        progress: &dyn Fn(u64),
    ) -> Result<Option<Self>, TrainError> {
        let mut streams: Vec<Option<Stream>> = Vec::with_capacity(sources.len());
        for (k, source) in sources.iter().enumerate() {
            let Some(values) = source.values_of_bytes() else {
                streams.push(None);
                continue;
            };
            let images = match same(sources, k).and_then(|same| streams[same].as_ref()) {
                Some(stream) => stream.images.shallow_clone(),
                None => upload(source, device, progress)?,
            };
            streams.push(Some(Stream::new(source.image, images, &values)?));
        }
        Ok(streams.iter().any(Option::is_some).then_some(Self { streams }))
    }

    /// How many images [`Self::upload`] brings.
    pub fn n_images(sources: &[Source]) -> u64 {
        let brought = |(k, source): &(usize, &Source)| source.needs_device() && same(sources, *k).is_none();
        sources.iter().enumerate().filter(brought).map(|(_, source)| source.n_images()).sum()
    }

    /// The images of a batch `[views * batch, channels, height, width]`, if they are made here.
    pub fn images(&self, batch: &Batch) -> Result<Option<Tensor>, TrainError> {
        let stream = self.streams.get(batch.stream.0 as usize).and_then(Option::as_ref);
        match (stream, &batch.pixels) {
            (Some(stream), Pixels::Moves(moves)) => Ok(Some(stream.images_of(moves.as_flattened())?)),
            _ => Ok(None),
        }
    }
}

/// The source before source `k` with the same images, if there is one.
fn same(sources: &[Source], k: usize) -> Option<usize> {
    sources[..k].iter().position(|other| other.shares_images(&sources[k]))
}

/// What is seen of all images, chunk by chunk.
fn upload(source: &Source, device: Device, progress: &dyn Fn(u64)) -> Result<Tensor, TrainError> {
    let [channels, height, width] = source.image.map(i64::from);
    let (n, pixels) = (source.n_images(), height * width);
    if i32::try_from(n).is_err() {
        let what = format!("{}: {n} images are more than a device can number", source.name);
        return Err(TrainError::Settings(format!("{what}; set loader.resident = \"off\"")));
    }
    let image_bytes = (channels * pixels) as usize;
    let refused = |e: tch::TchError| {
        let what = format!("{}: {n} images of {image_bytes} bytes do not go to the device: {e}", source.name);
        TrainError::Settings(format!("{what}; set loader.resident = \"off\""))
    };
    let size = [n as i64, channels, pixels];
    let images = Tensor::f_empty(size, (Kind::Uint8, device)).map_err(refused)?;
    let per_chunk = (CHUNK / image_bytes).max(1);
    for first in (0..n).step_by(per_chunk) {
        let len = per_chunk.min((n - first) as usize);
        source.expect(first..first + len as u64);
        let mut chunk = vec![0; len * image_bytes];
        let each = chunk.par_chunks_exact_mut(image_bytes).enumerate();
        each.try_for_each_init(FillMemory::default, |memory, (i, out)| {
            source.seen(first + i as u64, memory, out)
        })
        .map_err(|e: LoadError| TrainError::Load(e))?;
        let part = images.f_narrow(0, first as i64, len as i64)?;
        tch::no_grad(|| {
            Tensor::f_from_slice(&chunk)?.f_view_as(&part).map(|chunk| part.shallow_clone().copy_(&chunk))
        })
        .map_err(refused)?;
        progress(len as u64);
    }
    Ok(images)
}

impl Stream {
    fn new(extent: [u32; 3], images: Tensor, values: &[f32]) -> Result<Self, TrainError> {
        let [channels, height, width] = extent.map(i64::from);
        let device = images.device();
        let count = |n: i64| Tensor::f_arange(n, (Kind::Int, device));
        Ok(Self {
            values: Tensor::f_from_slice(values)?.f_to_device(device)?,
            channel: (Tensor::f_arange(channels, (Kind::Int64, device))? * 256).f_view([-1, 1])?,
            grid: [count(width)?.f_view([1, 1, -1])?, count(height)?.f_view([1, -1, 1])?],
            images,
        })
    }

    /// As [`crate::load::SourceMap`] and the host's table have it.
    fn images_of(&self, moves: &[i32]) -> Result<Tensor, tch::TchError> {
        let [columns, rows] = &self.grid;
        let (width, height) = (columns.size()[2], rows.size()[1]);
        let moves = send(&Tensor::f_from_slice(moves)?, self.images.device())?.f_view([-1, 10, 1, 1])?;
        let n = moves.size()[0];
        let of = |k: i64| moves.i((.., k));
        let position = |step: i64, row: i64, start: i64| {
            (of(start) + rows * of(row) + columns * of(step)).f_bitwise_right_shift_tensor_scalar(16)
        };
        let within = |v: &Tensor, limit: i64| v.ge(0).logical_and(&v.lt(limit));
        let (x, y) = (position(4, 6, 8)?, position(5, 7, 9)?);
        let mirrored = (&x * -1 + (width - 1)).f_where_self(&of(3).gt(0), &x)?;
        let (from_x, from_y) = (mirrored + of(1), &y + of(2));
        let rotated = within(&x, width).logical_and(&within(&y, height));
        let inside = within(&from_x, width).logical_and(&within(&from_y, height)).logical_and(&rotated);
        let inside = inside.f_view([n, 1, -1])?;
        let from = (from_y * width + from_x).f_view([n, 1, -1])?.f_mul(&inside)?.f_to_kind(Kind::Int64)?;
        let images = self.images.f_index_select(0, &of(0).f_view([-1])?)?;
        let moved = images.f_gather(2, &from.f_expand_as(&images)?, false)?.f_mul(&inside)?;
        let at = moved.f_to_kind(Kind::Int64)? + &self.channel;
        let size = [n, images.size()[1], height, width];
        self.values.f_index_select(0, &at.f_view([-1])?)?.f_view(size)
    }
}
