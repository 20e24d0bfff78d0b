//! Images that networks are shown: chosen rows of a data set, as they are, noisy or corrupted.

use super::super::exit::Usage;
use crate::analysis::AnalysisError;
use crate::analysis::content::Plane;
use crate::analysis::saliency::on_grid;
use crate::base::resample::middle;
use crate::base::{Purpose, RngKey, Split};
use crate::corruption::{Corruption, Profile, Severity};
use crate::load::{Budget, Column, DistortSettings, Noise, Placement, Scratch, Tables, View, u32_column};
use crate::shard::Dataset;
use std::str::FromStr;
use tch::Tensor;

/// What is done to images.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::cli) enum Disturbance {
    /// White Gaussian noise of this deviation, pixels being 0 to 1; it is not cut off.
    Noise(f64),
    /// Noise of this deviation as `nct eval --suite noise` shows it: on each of three channels, cut off at 0 and 1, and
    /// gray only then.
    OfSuite(f64),
    /// A corruption, as `nct eval --suite corruptions` shows it under the same seed.
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
            Self::Noise(std) | Self::OfSuite(std) => format!("gaussian {std}"),
            Self::Corruption(corruption, severity, _) => format!("{corruption}-{severity}"),
        }
    }
}

/// Images of a data set.
pub(in crate::cli) struct Chosen {
    /// Folder of the data set, for errors.
    root: String,
    /// Their numbers: rows of the split, or of the stimuli.
    pub(in crate::cli) rows: Vec<u64>,
    /// Words of their classes; empty without labels.
    pub(in crate::cli) classes: Vec<String>,
    /// Their numbers in the data set, by which evaluations draw what becomes of them.
    ids: Vec<u64>,
    /// As they are stored.
    pixels: Vec<Vec<u8>>,
    /// Bytes of a pixel: 1, and 4 of floating-point images.
    pixel_bytes: usize,
    stored: [usize; 3],
}

/// Rows of labelled images of a split, or of the stimuli of a neural set.
///
/// # Errors
/// A row that is not there.
pub(in crate::cli) fn choose(dataset: &Dataset, split: Split, rows: &[u64]) -> anyhow::Result<Chosen> {
    let manifest = dataset.manifest();
    let neural = !manifest.sessions.is_empty();
    let shards = || if neural { dataset.stimuli() } else { dataset.images(split) };
    let root = dataset.root().display().to_string();
    let column = Column::open(shards()?, "image", &Budget::unlimited())?;
    let n = column.n_rows();
    if let Some(row) = rows.iter().find(|row| **row >= n) {
        return Err(Usage(format!("{root}: there is no image {row}: the {split} split has {n}")).into());
    }
    let pixels = rows.iter().map(|&row| Ok(column.row(row)?.to_vec())).collect::<anyhow::Result<Vec<_>>>()?;
    let labels = if neural { Vec::new() } else { u32_column(&shards()?, "label")? };
    let ids = u32_column(&shards()?, "id")?;
    let class = |row: &u64| {
        let label = labels.get(*row as usize).copied()? as usize;
        let class = manifest.classes.get(label)?;
        Some(if class.words.is_empty() { class.id.clone() } else { class.words.clone() })
    };
    Ok(Chosen {
        root,
        rows: rows.to_vec(),
        classes: rows.iter().map(|row| class(row).unwrap_or_default()).collect(),
        ids: rows.iter().map(|&row| u64::from(ids[row as usize])).collect(),
        pixels,
        pixel_bytes: if column.is_u8() { 1 } else { 4 },
        stored: manifest.image.map(|n| n as usize),
    })
}

impl Chosen {
    /// Number of images.
    pub(in crate::cli) fn len(&self) -> usize {
        self.rows.len()
    }

    /// All images `[n, channels, height, width]` as `view` shows them, normalised as batches are, and `disturbed` before
    /// that.
    ///
    /// # Errors
    /// Floating-point images that are to be disturbed.
    pub(in crate::cli) fn shown(
        &self,
        view: &View,
        disturbed: Option<Disturbance>,
        seed: u64,
    ) -> anyhow::Result<Tensor> {
        if self.pixel_bytes > 1 && disturbed.is_some() {
            let what =
                "images are floating-point, and noise and corruptions are for bytes; show them as they are";
            return Err(Usage(format!("{}: {what}", self.root)).into());
        }
        let [channels, height, width] = self.extent(view);
        let tables = Tables::new(&view.mean, &view.std, |v| v);
        let mut values = vec![0.0; self.len() * channels * height * width];
        let mut scratch = Scratch::default();
        let place = Placement::IDENTITY;
        for (i, out) in values.chunks_exact_mut(channels * height * width).enumerate() {
            let image = self.cut(i, [height, width]);
            let (key, row) = (RngKey::new(seed, Purpose::Corruption, u32::MAX), self.rows[i]);
            match disturbed {
                None if self.pixel_bytes > 1 => tables.floats(&image, width, place, out),
                None => tables.bytes(&image, width, place, &mut scratch, out),
                Some(Disturbance::Noise(std)) => {
                    tables.bytes(&image, width, place, &mut scratch, out);
                    let mut rng = key.stream(0, row);
                    for (plane, deviation) in out.chunks_exact_mut(height * width).zip(&view.std) {
                        let noise =
                            |v: &mut f32| *v = (f64::from(*v) + std / deviation * rng.normal()) as f32;
                        plane.iter_mut().for_each(noise);
                    }
                }
                Some(Disturbance::OfSuite(std)) => {
                    let noise = (Noise::Std(std), key.word(0, row));
                    tables.noisy(&image, width, place, noise, &mut scratch, out);
                }
                Some(Disturbance::Corruption(corruption, severity, profile)) => {
                    let settings = DistortSettings::fixed(corruption, profile, severity, seed);
                    let worse = settings.evaluated(&image, [height, width], self.ids[i])?;
                    tables.bytes(&worse, width, place, &mut scratch, out);
                }
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

    /// The middle of image number `i` of those chosen, as it is stored.
    fn cut(&self, i: usize, [rows, columns]: [usize; 2]) -> Vec<u8> {
        let [_, height, width] = self.stored;
        let (top, left) = (middle(height, rows), middle(width, columns));
        let [line, start, part] = [width, left, columns].map(|n| n * self.pixel_bytes);
        let planes = self.pixels[i].chunks_exact(height * line);
        let lines = planes.flat_map(|plane| plane.chunks_exact(line).skip(top).take(rows));
        lines.flat_map(|line| &line[start..][..part]).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One gray image of one value.
    fn flat(pixels: Vec<u8>, pixel_bytes: usize) -> Chosen {
        Chosen {
            root: "set".into(),
            rows: vec![3],
            classes: vec![String::new()],
            ids: vec![7],
            pixels: vec![pixels],
            pixel_bytes,
            stored: [1, 64, 64],
        }
    }

    #[test]
    fn noise_of_the_suite_is_that_of_three_channels_cut_off_and_gray_then() {
        let view = View::new(vec![0.5], vec![0.25]);
        let shown = |value: u8, disturbance, seed| {
            flat(vec![value; 64 * 64], 1).shown(&view, Some(disturbance), seed).unwrap()
        };
        let deviation = |t: &Tensor| 0.25 * t.std(false).double_value(&[]);
        // Shares of red, green and blue leave so much of independent noise; four standard errors of a deviation.
        let left = 0.2989f64.hypot(0.587).hypot(0.114);
        for (disturbance, expected) in
            [(Disturbance::OfSuite(0.1), 0.1 * left), (Disturbance::Noise(0.1), 0.1)]
        {
            let found = deviation(&shown(128, disturbance, 1));
            assert!((found / expected - 1.0).abs() < 4.0 / (2.0 * 4096.0f64).sqrt(), "{found} {expected}");
            assert_eq!(shown(128, disturbance, 1), shown(128, disturbance, 1));
            assert_ne!(shown(128, disturbance, 1), shown(128, disturbance, 2));
        }
        let [cut, whole] = [Disturbance::OfSuite(0.5), Disturbance::Noise(0.5)];
        let highest = |disturbance| 0.25 * shown(250, disturbance, 1).max().double_value(&[]) + 0.5;
        assert!(highest(cut) <= 1.0 && highest(whole) > 1.0);
    }

    #[test]
    fn floating_point_images_are_shown_as_they_are_and_not_disturbed() {
        let values: Vec<f32> = (0..64 * 64).map(|i| i as f32 - 2000.0).collect();
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let view = View { size: Some([60, 2]), ..View::new(vec![8.0], vec![4.0]) };
        let chosen = flat(bytes, 4);
        let shown = chosen.shown(&view, None, 0).unwrap();
        assert_eq!(shown.size(), [1, 1, 60, 2]);
        // The middle begins after two rows and 31 columns.
        assert_eq!(shown.double_value(&[0, 0, 1, 1]), (f64::from(3 * 64 + 32) - 2000.0 - 8.0) / 4.0);
        let refused = chosen.shown(&view, Some(Disturbance::Noise(0.1)), 0).unwrap_err().to_string();
        assert!(refused.contains("set: images are floating-point"), "{refused}");
    }
}
