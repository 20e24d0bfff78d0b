//! The published pictures of frost, from a folder that the user has.

use crate::cli::exit::Usage;
use crate::corruption::frost::{FILES, Picture, Pictures, Source, check, show, source};
use crate::ingest::IngestError;
use crate::ingest::image::{Channels, Image, Pixels, append_jpeg, decode_png};
use std::path::{Path, PathBuf};

/// Names the folder where no option does.
const FOLDER: &str = "NCT_FROST";

/// The way out of whatever is wrong with the folder.
const WAY_OUT: &str = "--frost, or NCT_FROST, names the folder of frost1.png to frost6.jpg as they are published in \
    imagecorruptions/frost of https://github.com/bethgelab/imagecorruptions; without either, frost is made of textures";

/// The folder of an option, or of the environment.
fn folder(named: Option<&Path>) -> Option<PathBuf> {
    let set = || std::env::var_os(FOLDER).filter(|value| !value.is_empty()).map(PathBuf::from);
    named.map(Path::to_path_buf).or_else(set)
}

/// What frost is made of in this process, or will be.
#[cfg(feature = "torch")]
pub(crate) fn asked() -> Source {
    if folder(None).is_some() { Source::Pictures } else { source() }
}

/// Has frost made of the published pictures, if a folder of them was named.
pub(crate) fn open(named: Option<&Path>) -> anyhow::Result<()> {
    match folder(named) {
        Some(folder) if source() != Source::Pictures => Ok(show(read(&folder, &FILES)?).map_err(Usage)?),
        _ => Ok(()),
    }
}

/// Files of names and digests.
fn read(folder: &Path, files: &[(&str, &str)]) -> anyhow::Result<Pictures> {
    let one = |(name, digest): &(&str, &str)| {
        let path = folder.join(name);
        let wrong = |what: String| Usage(format!("{}: {what}; {WAY_OUT}", path.display()));
        let bytes = std::fs::read(&path).map_err(|e| wrong(e.to_string()))?;
        check(&bytes, digest).map_err(wrong)?;
        Ok(decoded(&bytes, &path)?)
    };
    let decoded = files.iter().map(one).collect::<anyhow::Result<Vec<_>>>()?;
    let wrong = |what| Usage(format!("{}: {what}; {WAY_OUT}", folder.display()));
    Ok(Pictures::new(&decoded).map_err(wrong)?)
}

fn decoded(bytes: &[u8], path: &Path) -> Result<Picture, IngestError> {
    let ([_, height, width], pixels) = if path.extension().is_some_and(|e| e == "png") {
        let image: Image = decode_png(bytes, path)?.with(Channels::Rgb);
        let shape = image.shape();
        let Pixels::U8(pixels) = image.pixels else {
            return Err(IngestError::bad(path, "holds no bytes"));
        };
        (shape, pixels)
    } else {
        let mut pixels = Vec::new();
        (append_jpeg(bytes, path, Channels::Rgb, &mut pixels)?, pixels)
    };
    Ok(Picture { size: [height as usize, width as usize], pixels })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A gray PNG of 3 x 2.
    fn png(value: u8) -> Vec<u8> {
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, 3, 2);
        encoder.set_color(png::ColorType::Grayscale);
        encoder.write_header().unwrap().write_image_data(&[value; 6]).unwrap();
        file
    }

    #[test]
    fn pictures_are_read_if_they_are_the_expected_ones() {
        let dir = tempfile::tempdir().unwrap();
        let names: Vec<String> = (1..=6).map(|n| format!("frost{n}.png")).collect();
        let mut digests = Vec::new();
        for (name, value) in names.iter().zip(10..) {
            let told = check(&png(value), "").unwrap_err();
            digests.push(told.split_whitespace().nth(2).unwrap().trim_end_matches(',').to_owned());
            fs::write(dir.path().join(name), png(value)).unwrap();
        }
        let files: Vec<(&str, &str)> =
            names.iter().map(String::as_str).zip(digests.iter().map(String::as_str)).collect();
        let expected: Vec<Picture> =
            (10..16).map(|value| Picture { size: [2, 3], pixels: vec![value; 18] }).collect();
        assert_eq!(read(dir.path(), &files).unwrap(), Pictures::new(&expected).unwrap());
        let refused = |name: &str, what: &str| {
            let told = read(dir.path(), &files).unwrap_err();
            assert!(told.is::<Usage>(), "{told}");
            let (told, place) = (told.to_string(), dir.path().join(name).display().to_string());
            assert!(told.starts_with(&place) && told.contains(what) && told.contains(FOLDER), "{told}");
        };
        // The last is never shown, and the folder is not the published one without it.
        fs::write(dir.path().join("frost6.png"), png(99)).unwrap();
        refused("frost6.png", "the published picture");
        fs::remove_file(dir.path().join("frost4.png")).unwrap();
        refused("frost4.png", "No such file");
    }

    #[test]
    fn the_published_names_are_asked_for() {
        let told = read(Path::new("nowhere"), &FILES).unwrap_err().to_string();
        assert!(told.starts_with("nowhere/frost1.png: "), "{told}");
    }
}
