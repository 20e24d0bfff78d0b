//! Training images that live on the device: they go there once, as bytes, and batches are made there. The host only
//! draws what happens to each image. Positions are whole numbers and bytes become values through the host's own table,
//! so a batch equals the host's to the bit, on any device; noise is within 1e-5 of its scale, and the same each time.

use super::TrainError;
use crate::base::rng::{GAMMA, LAST_SHIFT, MIX};
use crate::load::{Batch, FillMemory, GRAY, Grain, LoadError, Move, Moves, Noise, Pixels, Source};
use crate::torch_ext::{self, send};
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
    /// Numbers of columns `[1, 1, 1, width]` and rows `[1, 1, height, 1]`.
    grid: [Tensor; 2],
    /// Width and height, twice `[1, 4, 1, 1]`.
    limits: Tensor,
    /// Means and standard deviations `[1, channels, 1]`.
    normalisation: [Tensor; 2],
    /// Make batches by a kernel of nct's own.
    fused: bool,
}

/// Bytes on their way to the device.
const CHUNK: usize = 32 << 20;

impl Resident {
    /// Brings the images of `sources` to `device`, as far as their batches are to be made there; none if none are. With
    /// `fused`, a GPU makes those without noise by a kernel of nct's own. `progress` is told how many more images are
    /// there.
    pub fn upload(
        sources: &[Source],
        device: Device,
        fused: bool,
        progress: &dyn Fn(u64),
    ) -> Result<Option<Self>, TrainError> {
        let mut streams: Vec<Option<Stream>> = Vec::with_capacity(sources.len());
        for (k, source) in sources.iter().enumerate() {
            let (Some(values), Some(normalisation)) = (source.values_of_bytes(), source.normalisation())
            else {
                streams.push(None);
                continue;
            };
            let images = match same(sources, k).and_then(|same| streams[same].as_ref()) {
                Some(stream) => stream.images.shallow_clone(),
                None => upload(source, device, progress)?,
            };
            streams.push(Some(Stream::new(source.image, images, &values, normalisation, fused)?));
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
            (Some(stream), Pixels::Moves(moves)) => Ok(Some(stream.images_of(moves)?)),
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
    fn new(
        extent: [u32; 3],
        images: Tensor,
        values: &[f32],
        [mean, std]: [&[f32]; 2],
        fused: bool,
    ) -> Result<Self, TrainError> {
        let [channels, height, width] = extent.map(i64::from);
        let device = images.device();
        let count = |n: i64| Tensor::f_arange(n, (Kind::Int, device));
        let channelwise =
            |values: &[f32]| Tensor::f_from_slice(values)?.f_to_device(device)?.f_view([1, -1, 1]);
        Ok(Self {
            values: Tensor::f_from_slice(values)?.f_to_device(device)?,
            channel: (Tensor::f_arange(channels, (Kind::Int64, device))? * 256).f_view([-1, 1])?,
            grid: [count(width)?.f_view([1, 1, 1, -1])?, count(height)?.f_view([1, 1, -1, 1])?],
            limits: Tensor::f_from_slice(&[width, height, width, height].map(|side| side as i32))?
                .f_to_device(device)?
                .f_view([1, 4, 1, 1])?,
            normalisation: [channelwise(mean)?, channelwise(std)?],
            fused: fused && device.is_cuda(),
            images,
        })
    }

    /// As the host's table has it.
    fn images_of(&self, moves: &Moves) -> Result<Tensor, tch::TchError> {
        let [columns, rows] = &self.grid;
        let (width, height) = (columns.size()[3], rows.size()[2]);
        if self.fused && moves.noise.is_empty() {
            return torch_ext::images(&self.images, &self.values, &moves.places, [height, width]);
        }
        let moved = if moves.stay(width as u32, height as u32) {
            let which: Vec<i32> = moves.places.iter().map(|place| place[0]).collect();
            self.images.f_index_select(0, &send(&Tensor::f_from_slice(&which)?, self.images.device())?)?
        } else {
            self.moved(&moves.places, width, height)?
        };
        let [n, channels] = [0, 1].map(|axis| moved.size()[axis]);
        let mut at = moved.f_to_kind(Kind::Int64)?;
        if channels > 1 {
            at += &self.channel;
        }
        let mut seen = self.values.f_index_select(0, &at.f_view([-1])?)?.f_view_as(&moved)?;
        if !moves.noise.is_empty() {
            let (which, noisy) = self.noisy(&moved, &moves.noise)?;
            seen = seen.f_index_copy(0, &which, &noisy)?;
        }
        seen.f_view([n, channels, height, width])
    }

    /// The bytes of moved images `[batch, channels, pixels]`, as [`crate::load::SourceMap`] has it; both coordinates go
    /// through each operation together, since what this takes on a GPU is the launching of kernels.
    fn moved(&self, places: &[Move], width: i64, height: i64) -> Result<Tensor, tch::TchError> {
        let [columns, rows] = &self.grid;
        // A mirror turns the sign of x.
        let of_image = |&[row, dx, dy, flip, linear @ ..]: &Move| {
            let [mirror, from] = if flip > 0 { [-1, width as i32 - 1] } else { [1, 0] };
            let [step_x, step_y, row_x, row_y, x, y] = linear;
            [row, step_x, step_y, row_x, row_y, x, y, mirror, 1, from + dx, dy]
        };
        let numbers: Vec<i32> = places.iter().flat_map(of_image).collect();
        let numbers = send(&Tensor::f_from_slice(&numbers)?.f_view([-1, 11])?, self.images.device())?;
        let pair = |k: i64| numbers.f_narrow(1, k, 2)?.f_view([-1, 2, 1, 1]);
        let [step, row, start, sign, offset] = [pair(1)?, pair(3)?, pair(5)?, pair(7)?, pair(9)?];
        let rotated = (start + rows * row + columns * step).f_bitwise_right_shift_tensor_scalar(16)?;
        let from = &rotated * sign + offset;
        let both = Tensor::f_cat(&[&rotated, &from], 1)?;
        let inside = both.f_ge(0)?.f_logical_and(&both.f_lt_tensor(&self.limits)?)?.f_all_dim(1, false)?;
        let n = numbers.size()[0];
        let inside = inside.f_view([n, 1, -1])?;
        let from = (from.i((.., 1)) * width + from.i((.., 0))).f_view([n, 1, height * width])?;
        let from = from.f_mul(&inside)?.f_to_kind(Kind::Int64)?;
        let images = self.images.f_index_select(0, &numbers.i((.., 0)))?;
        images.f_gather(2, &from.f_expand_as(&images)?, false)?.f_mul(&inside)
    }

    /// Which of the `moved` bytes `[batch, channels, pixels]` have noise `[noisy]`, and what is seen of these; as
    /// [`crate::load::Tables::noisy`] has it.
    fn noisy(&self, moved: &Tensor, grains: &[Grain]) -> Result<(Tensor, Tensor), tch::TchError> {
        let device = moved.device();
        let on_device = |host: Tensor| send(&host, device);
        let which: Vec<i64> = grains.iter().map(|grain| i64::from(grain.image)).collect();
        let which = on_device(Tensor::f_from_slice(&which)?)?;
        let starts: Vec<i64> = grains.iter().map(|grain| grain.start as i64).collect();
        let starts = on_device(Tensor::f_from_slice(&starts)?.f_view([-1, 1])?)?;
        // The level, or what the mean square is multiplied by for it.
        let strengths: Vec<f32> = grains.iter().flat_map(|grain| strength(grain.noise)).collect();
        let strengths = on_device(Tensor::f_from_slice(&strengths)?.f_view([-1, 2, 1])?)?;
        let values = moved.f_index_select(0, &which)?.f_to_kind(Kind::Float)?.f_div_scalar(255.0)?;
        let power = values.f_square()?.f_mean_dim([1i64, 2].as_slice(), true, Kind::Float)?;
        let std = strengths.f_narrow(1, 0, 1)? + power * strengths.f_narrow(1, 1, 1)?;
        let [m, channels, pixels] = [0, 1, 2].map(|axis| values.size()[axis]);
        let grains = normals(&starts, 3 * pixels)?.f_view([m, 3, pixels])?;
        let mut noisy = (values + grains * std).f_clamp(0.0, 1.0)?;
        if channels == 1 {
            let of = |c: usize| noisy.f_narrow(1, c as i64, 1)?.f_mul_scalar(f64::from(GRAY[c]));
            noisy = of(0)? + of(1)? + of(2)?;
        }
        let [mean, deviation] = &self.normalisation;
        Ok((which, (noisy - mean) / deviation))
    }
}

fn strength(noise: Noise) -> [f32; 2] {
    match noise {
        Noise::Std(std) => [std as f32, 0.0],
        Noise::Snr(snr) => [0.0, (1.0 / snr) as f32],
    }
}

/// `n` standard normal values `[images, n]` from each of `starts` `[images, 1]`; `load/noise.rs` is the definition. Words
/// of 64 bits are signed here, which multiply and add the same.
fn normals(starts: &Tensor, n: i64) -> Result<Tensor, tch::TchError> {
    const HALF: i64 = 0xFFFF_FFFF;
    const UNIT: f64 = 1.0 / 4_294_967_296.0;
    let pairs = Tensor::f_arange((n + 1) / 2, (Kind::Int64, starts.device()))?;
    let shifted = |x: &Tensor, by: u32| {
        x.f_bitwise_right_shift_tensor_scalar(i64::from(by))?.f_bitwise_and(i64::MAX >> (by - 1))
    };
    let mut x = starts + (pairs + 1).f_mul_scalar(GAMMA as i64)?;
    for (by, factor) in MIX {
        x = x.f_bitwise_xor_tensor(&shifted(&x, by)?)?.f_mul_scalar(factor as i64)?;
    }
    x = x.f_bitwise_xor_tensor(&shifted(&x, LAST_SHIFT)?)?;
    let unit = |word: Tensor, plus: f64| word.f_to_kind(Kind::Float).map(|word| (word + plus) * UNIT);
    let radius = (unit(shifted(&x, 32)?, 1.0)?.f_log()? * -2.0).f_sqrt()?;
    let angle = unit(x.f_bitwise_and(HALF)?, 0.0)? * std::f64::consts::TAU;
    Tensor::f_cat(&[&radius * angle.f_cos()?, &radius * angle.f_sin()?], 1)?.f_narrow(1, 0, n)
}
