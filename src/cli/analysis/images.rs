//! Images that networks are shown: chosen rows of a data set, as they are, noisy or corrupted.

use super::super::exit::Usage;
use crate::analysis::AnalysisError;
use crate::analysis::content::Plane;
use crate::analysis::saliency::on_grid;
use crate::base::color::luma;
use crate::base::resample::middle;
use crate::base::{Purpose, RngKey, Split};
use crate::corruption::{Corruption, Extent, ImageKey, Profile, Scratch, Severity};
use crate::load::{Budget, Column, View};
use crate::shard::Dataset;
use std::str::FromStr;
use tch::Tensor;

/// What is done to images.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::cli) enum Disturbance {
    /// White Gaussian noise of this deviation, pixels being 0 to 1; it is not cut off.
    Noise(f64),
    /// A corruption.
    Corruption(Corruption, Severity, Profile),
}

/// A corruption with its severity, such as `fog-3`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::cli) struct Strength(pub(in crate::cli) Corruption, pub(in crate::cli) Severity);

impl FromStr for Strength {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, level) =
            text.rsplit_once('-').ok_or("expected a corruption and its severity, such as fog-3")?;
        Ok(Self(name.parse()?, level.parse()?))
    }
}

impl Disturbance {
    /// Name in tables.
    pub(in crate::cli) fn name(self) -> String {
        match self {
            Self::Noise(std) => format!("gaussian {std}"),
            Self::Corruption(corruption, severity, _) => format!("{corruption}-{severity}"),
        }
    }
}

/// Images of a data set.
pub(in crate::cli) struct Chosen {
    /// Their numbers: rows of the split, or of the stimuli.
    pub(in crate::cli) rows: Vec<u64>,
    /// Words of their classes; empty without labels.
    pub(in crate::cli) classes: Vec<String>,
    /// As they are stored.
    pixels: Vec<Vec<u8>>,
    stored: [usize; 3],
}

/// Rows of labelled images of a split, or of the stimuli of a neural set.
///
/// # Errors
/// A row that is not there; images that are not bytes.
pub(in crate::cli) fn choose(dataset: &Dataset, split: Split, rows: &[u64]) -> anyhow::Result<Chosen> {
    let manifest = dataset.manifest();
    let neural = !manifest.sessions.is_empty();
    let shards = || if neural { dataset.stimuli() } else { dataset.images(split) };
    let root = dataset.root().display();
    let column = Column::open(shards()?, "image", &Budget::unlimited())?;
    if !column.is_u8() {
        return Err(Usage(format!("{root}: images are floating-point, and analyses show bytes")).into());
    }
    let n = column.n_rows();
    if let Some(row) = rows.iter().find(|row| **row >= n) {
        return Err(Usage(format!("{root}: there is no image {row}: the {split} split has {n}")).into());
    }
    let pixels = rows.iter().map(|&row| Ok(column.row(row)?.to_vec())).collect::<anyhow::Result<Vec<_>>>()?;
    let mut labels = Vec::new();
    for shard in shards()? {
        if let Ok((field, _)) = shard.field("label") {
            let bytes = shard.read_column(field)?;
            labels.extend(bytes.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)));
        }
    }
    let class = |row: &u64| {
        let label = labels.get(*row as usize).copied()? as usize;
        let class = manifest.classes.get(label)?;
        Some(if class.words.is_empty() { class.id.clone() } else { class.words.clone() })
    };
    Ok(Chosen {
        rows: rows.to_vec(),
        classes: rows.iter().map(|row| class(row).unwrap_or_default()).collect(),
        pixels,
        stored: manifest.image.map(|n| n as usize),
    })
}

impl Chosen {
    /// Number of images.
    pub(in crate::cli) fn len(&self) -> usize {
        self.rows.len()
    }

    /// All images `[n, channels, height, width]` as `view` shows them, normalised; `disturbed` before that, where a
    /// corruption is, or after it, where noise is.
    pub(in crate::cli) fn shown(
        &self,
        view: &View,
        disturbed: Option<Disturbance>,
        seed: u64,
    ) -> anyhow::Result<Tensor> {
        let [channels, height, width] = self.extent(view);
        let mut values: Vec<f32> = Vec::with_capacity(self.len() * channels * height * width);
        for i in 0..self.len() {
            let bytes = self.bytes(i, view, disturbed, seed);
            let noise = match disturbed {
                Some(Disturbance::Noise(std)) => std,
                _ => 0.0,
            };
            let mut rng = RngKey::new(seed, Purpose::Corruption, u32::MAX).stream(0, self.rows[i]);
            for (c, plane) in bytes.chunks_exact(height * width).enumerate() {
                let (mean, std) = (view.mean[c], view.std[c]);
                values.extend(plane.iter().map(|&byte| {
                    let drawn = if noise > 0.0 { noise * rng.normal() } else { 0.0 };
                    ((f64::from(byte) / 255.0 + drawn - mean) / std) as f32
                }));
            }
        }
        let shape = [self.len(), channels, height, width].map(|n| n as i64);
        Ok(Tensor::f_from_slice(&values)?.f_view(shape)?)
    }

    /// Channels, rows and columns that `view` shows.
    pub(in crate::cli) fn extent(&self, view: &View) -> [usize; 3] {
        let [_, height, width] = self.stored;
        let [height, width] = view.size.map_or([height, width], |size| size.map(|side| side as usize));
        [view.mean.len(), height, width]
    }

    /// A map of a stored image, on the part of it and the grid that `view` shows; its sum is 1.
    ///
    /// # Errors
    /// A map that is coarser than the image, or no density.
    pub(in crate::cli) fn map(&self, map: &Plane, view: &View) -> Result<Plane, AnalysisError> {
        let ([_, height, width], [_, rows, columns]) = (self.stored, self.extent(view));
        let whole = on_grid(map, height, width)?;
        let (top, left) = (middle(height, rows), middle(width, columns));
        let line = |y: usize| whole.values[(top + y) * width + left..][..columns].iter().copied();
        on_grid(&Plane { values: (0..rows).flat_map(line).collect(), width: columns }, rows, columns)
    }

    /// The bytes of image number `i` of those chosen: corrupted as it is stored, then gray and cut if `view` says so.
    fn bytes(&self, i: usize, view: &View, disturbed: Option<Disturbance>, seed: u64) -> Vec<u8> {
        let [channels, height, width] = self.stored;
        let mut pixels = self.pixels[i].clone();
        if let Some(Disturbance::Corruption(corruption, severity, profile)) = disturbed {
            let key = ImageKey { seed, image: self.rows[i] };
            let extent = Extent { channels, height, width };
            corruption.apply(profile, severity, key, &mut pixels, extent, &mut Scratch::default());
        }
        let size = height * width;
        if channels == 3 && view.mean.len() == 1 {
            pixels = (0..size).map(|p| luma(pixels[p], pixels[size + p], pixels[2 * size + p])).collect();
        }
        let [_, rows, columns] = self.extent(view);
        if [rows, columns] == [height, width] {
            return pixels;
        }
        let (top, left) = (middle(height, rows), middle(width, columns));
        let line = |plane: &[u8], y: usize| plane[(top + y) * width + left..][..columns].to_vec();
        pixels.chunks_exact(size).flat_map(|plane| (0..rows).flat_map(move |y| line(plane, y))).collect()
    }
}
