//! The contact sheet: images with their labels, as stored and as training shows them.

use super::super::exit::Usage;
use crate::base::{DType, Purpose, RngKey, Split};
use crate::load::{AugmentSettings, Budget, Column, Scratch, Tables};
use crate::shard::{Dataset, ShardSet};
use font8x8::UnicodeFonts;
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

/// Images in a row.
const COLUMNS: usize = 16;
/// Rows of each data set.
const ROWS: usize = 2;
/// Height of a line of text, and the gap below a cell.
const TEXT: usize = 10;

/// Pixels `[height, width, 3]`.
struct Sheet {
    width: usize,
    pixels: Vec<u8>,
}

/// Draws images of every data set, evenly spaced through it: label, image, and below it the image as the
/// reference's augmentation of labelled images shows it.
pub(super) fn write(set: &ShardSet, path: &Path) -> anyhow::Result<()> {
    let drawn: Vec<&Dataset> = set.datasets().iter().filter(|d| d.manifest().pixels == DType::U8).collect();
    let Some(first) = drawn.first() else {
        return Err(Usage("no data set holds images of bytes, which a contact sheet shows".into()).into());
    };
    let [_, height, width] = first.manifest().image.map(|n| n as usize);
    if let Some(other) = drawn.iter().find(|d| d.manifest().image[1..] != first.manifest().image[1..]) {
        let name = &other.manifest().dataset;
        return Err(Usage(format!("{name}: images differ in size; name one data set's folder")).into());
    }
    let cell = TEXT + 2 * height + 2;
    let band = TEXT + ROWS * cell;
    let size = [COLUMNS * width, drawn.len() * band];
    let mut sheet = Sheet { width: size[0], pixels: vec![255; 3 * size[0] * size[1]] };
    for (number, dataset) in drawn.iter().enumerate() {
        sheet.dataset(dataset, number * band, cell)?;
    }
    let context = |what: &str| format!("{}: {what}", path.display());
    let file = File::create(path).map_err(|e| Usage(context(&e.to_string())))?;
    let mut encoder = png::Encoder::new(BufWriter::new(file), size[0] as u32, size[1] as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.write_header()?.write_image_data(&sheet.pixels)?;
    Ok(())
}

impl Sheet {
    fn dataset(&mut self, dataset: &Dataset, top: usize, cell: usize) -> anyhow::Result<()> {
        let manifest = dataset.manifest();
        let [_, height, width] = manifest.image.map(|n| n as usize);
        let labelled = !manifest.classes.is_empty();
        let shards = || if labelled { dataset.images(Split::Train) } else { dataset.stimuli() };
        let open = |name: &str| Column::open(shards()?, name, &Budget::unlimited());
        let (images, names) = (open("image")?, open(if labelled { "label" } else { "id" })?);
        let settings = if labelled { AugmentSettings::default() } else { AugmentSettings::NONE };
        let tables = Tables::identity(manifest.image[0] as usize);
        let (mut scratch, mut shown) = (Scratch::default(), Vec::new());
        let n = images.n_rows().min((COLUMNS * ROWS) as u64);
        self.text(&manifest.dataset, 0, top);
        for i in 0..n {
            let row = i * images.n_rows() / n;
            let (x, y) = (i as usize % COLUMNS * width, top + TEXT + i as usize / COLUMNS * cell);
            let number = names.row(row)?.first_chunk().map_or(0, |word| u32::from_le_bytes(*word));
            let name = manifest.classes.get(number as usize).filter(|_| labelled).map_or_else(
                || number.to_string(),
                |class| if class.words.is_empty() { class.id.clone() } else { class.words.clone() },
            );
            self.text(&name.chars().take((width / 8).saturating_sub(1)).collect::<String>(), x, y);
            let image = images.row(row)?;
            self.image(&image, x, y + TEXT, width, height);
            let mut rng = RngKey::new(0, Purpose::Augment, 0).stream(0, row);
            shown.resize(image.len(), 0);
            tables.bytes(&image, width, settings.draw(&mut rng), &mut scratch, &mut shown);
            self.image(&shown, x, y + TEXT + height, width, height);
        }
        Ok(())
    }

    fn image(&mut self, planes: &[u8], left: usize, top: usize, width: usize, height: usize) {
        for i in 0..width * height {
            let color = [0, 1, 2].map(|c| planes[(c * width * height + i) % planes.len()]);
            self.set(left + i % width, top + i / width, color);
        }
    }

    fn text(&mut self, text: &str, left: usize, top: usize) {
        let width = self.width;
        for (i, letter) in text.chars().enumerate() {
            for (y, line) in font8x8::BASIC_FONTS.get(letter).unwrap_or_default().into_iter().enumerate() {
                for x in (0..8).filter(|x| line >> x & 1 == 1 && left + 8 * i + x < width) {
                    self.set(left + 8 * i + x, top + 1 + y, [0, 0, 0]);
                }
            }
        }
    }

    fn set(&mut self, x: usize, y: usize, color: [u8; 3]) {
        let at = 3 * (y * self.width + x);
        self.pixels[at..at + 3].copy_from_slice(&color);
    }
}
