//! The contact sheet: images with their labels, as stored and as training shows them.

use super::super::exit::Usage;
use super::super::sheet::{Sheet, TEXT};
use crate::base::{DType, Purpose, RngKey, Split};
use crate::load::{AugmentSettings, Budget, Column, LoadError, Scratch, Tables, u32_column};
use crate::shard::{Dataset, OpenShard, ShardError, ShardSet};
use std::collections::{BTreeSet, HashMap};
use std::path::Path;

/// Images in a row.
const COLUMNS: usize = 16;
/// Rows of each data set where no images are named.
const ROWS: usize = 2;

/// Which images are drawn.
pub(super) struct Choice<'a> {
    /// Raw ids; without any, images evenly spaced through the split.
    pub(super) ids: &'a [u32],
    /// Without it training images, and of a neural set all stimuli.
    pub(super) split: Option<Split>,
}

/// Draws images of every data set: label, image, and below it the image as the reference's augmentation of labelled
/// images shows it.
pub(super) fn write(set: &ShardSet, path: &Path, choice: &Choice<'_>) -> anyhow::Result<()> {
    let drawn: Vec<&Dataset> = set.datasets().iter().filter(|d| d.manifest().pixels == DType::U8).collect();
    let Some(first) = drawn.first() else {
        return Err(Usage("no data set holds images of bytes, which a contact sheet shows".into()).into());
    };
    if !choice.ids.is_empty() && drawn.len() > 1 {
        // Data sets count their images from 0 each.
        let what = format!(
            "--images names images of one data set; give its folder, such as {}",
            first.root().display()
        );
        return Err(Usage(what).into());
    }
    let [_, height, width] = first.manifest().image.map(|n| n as usize);
    if let Some(other) = drawn.iter().find(|d| d.manifest().image[1..] != first.manifest().image[1..]) {
        let name = &other.manifest().dataset;
        return Err(Usage(format!("{name}: images differ in size; name one data set's folder")).into());
    }
    let rows = if choice.ids.is_empty() { ROWS } else { choice.ids.len().div_ceil(COLUMNS) };
    let cell = TEXT + 2 * height + 2;
    let band = TEXT + rows * cell;
    let size = [COLUMNS * width, drawn.len() * band];
    let mut sheet = Sheet::new(size);
    for (number, dataset) in drawn.iter().enumerate() {
        draw(&mut sheet, dataset, choice, number * band, cell)?;
    }
    sheet.write(path)
}

fn draw(
    sheet: &mut Sheet,
    dataset: &Dataset,
    choice: &Choice<'_>,
    top: usize,
    cell: usize,
) -> anyhow::Result<()> {
    let manifest = dataset.manifest();
    let [_, height, width] = manifest.image.map(|n| n as usize);
    let rows = chosen(dataset, choice)?;
    let open = |name: &str| column(dataset, choice.split, name);
    let (images, names) = (open("image")?, open(if is_labelled(dataset) { "label" } else { "id" })?);
    let settings = if is_labelled(dataset) { AugmentSettings::default() } else { AugmentSettings::NONE };
    let tables = Tables::identity(manifest.image[0] as usize);
    let (mut scratch, mut shown) = (Scratch::default(), Vec::new());
    sheet.text(&manifest.dataset, 0, top);
    for (i, row) in rows.into_iter().enumerate() {
        let (x, y) = (i % COLUMNS * width, top + TEXT + i / COLUMNS * cell);
        let number = word(&names.row(row)?);
        let name = manifest.classes.get(number as usize).map_or_else(
            || number.to_string(),
            |class| if class.words.is_empty() { class.id.clone() } else { class.words.clone() },
        );
        // Of images that were asked for by id, which is which.
        let id = choice.ids.get(i).filter(|_| is_labelled(dataset));
        let name = id.map_or_else(|| name.clone(), |id| format!("{id} {name}"));
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

fn is_labelled(dataset: &Dataset) -> bool {
    !dataset.manifest().classes.is_empty()
}

/// The images of a split. Stimuli are those of all splits.
fn shards(dataset: &Dataset, split: Option<Split>) -> Result<Vec<OpenShard>, ShardError> {
    if is_labelled(dataset) { dataset.images(split.unwrap_or(Split::Train)) } else { dataset.stimuli() }
}

fn column(dataset: &Dataset, split: Option<Split>, name: &str) -> Result<Column, LoadError> {
    Column::open(shards(dataset, split)?, name, &Budget::unlimited())
}

fn word(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |word| u32::from_le_bytes(*word))
}

/// Rows of the images that are drawn, in the order in which they are.
fn chosen(dataset: &Dataset, choice: &Choice<'_>) -> anyhow::Result<Vec<u64>> {
    let name = &dataset.manifest().dataset;
    let found = with_ids(dataset, choice.split)?;
    if found.is_empty() {
        let split = choice.split.unwrap_or(Split::Train);
        return Err(Usage(format!("{name}: no {split} images; --split takes others")).into());
    }
    if choice.ids.is_empty() {
        let n = found.len().min(COLUMNS * ROWS);
        return Ok((0..n).map(|i| found[i * found.len() / n].1).collect());
    }
    let rows: HashMap<u32, u64> = found.into_iter().collect();
    let row = |id: &u32| rows.get(id).copied().ok_or_else(|| absent(dataset, choice.split, *id));
    choice.ids.iter().map(row).collect()
}

/// Id and row of every image of a split; of a neural set those that it shows.
fn with_ids(dataset: &Dataset, split: Option<Split>) -> anyhow::Result<Vec<(u32, u64)>> {
    let all = u32_column(&shards(dataset, split)?, "id")?.into_iter().zip(0..);
    let Some(split) = split.filter(|_| !is_labelled(dataset)) else { return Ok(all.collect()) };
    let mut seen = BTreeSet::new();
    for session in &dataset.manifest().sessions {
        seen.extend(u32_column(&dataset.session(&session.id, split)?, "row")?);
    }
    Ok(all.filter(|(_, row)| seen.contains(&(*row as u32))).collect())
}

/// Says that an image is not there, and where it is.
fn absent(dataset: &Dataset, split: Option<Split>, id: u32) -> anyhow::Error {
    let name = &dataset.manifest().dataset;
    let has =
        |other: &Split| with_ids(dataset, Some(*other)).is_ok_and(|all| all.iter().any(|(i, _)| *i == id));
    let what = match Split::ALL.iter().find(|other| has(other)) {
        Some(other) => format!("it is one of {other}: give --split {other}"),
        None => "ids are those of the raw data set, as failure.json has them".to_owned(),
    };
    let of = split.or_else(|| is_labelled(dataset).then_some(Split::Train));
    let of = of.map_or_else(String::new, |split| format!("{split} "));
    Usage(format!("{name}: no {of}image has the id {id}; {what}")).into()
}
