//! The contact sheet: images with their labels, as stored and as training shows them.

use super::super::exit::Usage;
use super::super::sheet::{Sheet, TEXT};
use crate::base::{DType, Purpose, RngKey, Split};
use crate::load::{AugmentSettings, Budget, Column, Scratch, Tables};
use crate::shard::{Dataset, ShardSet};
use std::path::Path;

/// Images in a row.
const COLUMNS: usize = 16;
/// Rows of each data set.
const ROWS: usize = 2;

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
    let mut sheet = Sheet::new(size);
    for (number, dataset) in drawn.iter().enumerate() {
        draw(&mut sheet, dataset, number * band, cell)?;
    }
    sheet.write(path)
}

fn draw(sheet: &mut Sheet, dataset: &Dataset, top: usize, cell: usize) -> anyhow::Result<()> {
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
    sheet.text(&manifest.dataset, 0, top);
    for i in 0..n {
        let row = i * images.n_rows() / n;
        let (x, y) = (i as usize % COLUMNS * width, top + TEXT + i as usize / COLUMNS * cell);
        let number = names.row(row)?.first_chunk().map_or(0, |word| u32::from_le_bytes(*word));
        let name = manifest.classes.get(number as usize).filter(|_| labelled).map_or_else(
            || number.to_string(),
            |class| if class.words.is_empty() { class.id.clone() } else { class.words.clone() },
        );
        sheet.text(&name.chars().take((width / 8).saturating_sub(1)).collect::<String>(), x, y);
        let image = images.row(row)?;
        sheet.image(&image, x, y + TEXT, width, height);
        let mut rng = RngKey::new(0, Purpose::Augment, 0).stream(0, row);
        shown.resize(image.len(), 0);
        tables.bytes(&image, width, settings.draw(&mut rng), &mut scratch, &mut shown);
        sheet.image(&shown, x, y + TEXT + height, width, height);
    }
    Ok(())
}
