//! Class-folder image sets in TinyImageNet's layout.

use super::error::{IngestError, Result};
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A class: its folder's name and words for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Class {
    /// WordNet id.
    pub id: String,
    /// From `words.txt`; empty where it has none.
    pub words: String,
}

/// Labelled image files, in the reference's order: classes sorted, then file names sorted as strings.
#[derive(Debug, Clone)]
pub struct ImageSet {
    /// Name of the folder.
    pub name: String,
    /// The folder.
    pub root: PathBuf,
    /// Classes in label order.
    pub classes: Vec<Class>,
    /// Files of `train/`, which are divided into training and validation.
    pub train: Vec<(PathBuf, u32)>,
    /// Files of `val/`, the test set.
    pub test: Vec<(PathBuf, u32)>,
}

impl ImageSet {
    /// Whether `root` has the shape of an image set.
    pub fn looks_like(root: &Path) -> bool {
        root.join("train").is_dir() && root.join("val").is_dir()
    }

    /// Lists the files under `root`, and checks that they are those that the set's own lists promise.
    pub fn open(root: &Path) -> Result<Self> {
        let words = words(root)?;
        let train_root = root.join("train");
        let folders: Vec<String> =
            list(&train_root)?.into_iter().filter(|name| train_root.join(name).is_dir()).collect();
        if folders.is_empty() {
            let what = "holds no class folders; expected train/<class>/images/*.JPEG";
            return Err(IngestError::bad(&train_root, what));
        }
        check_promised_classes(root, &folders)?;
        let class_files = |(label, folder): (usize, &String)| -> Result<Vec<(PathBuf, u32)>> {
            let class_root = train_root.join(folder);
            let inner = class_root.join("images");
            let files = image_files(if inner.is_dir() { &inner } else { &class_root })?;
            if files.is_empty() {
                return Err(IngestError::bad(&class_root, "holds no .JPEG file"));
            }
            Ok(files.into_iter().map(|path| (path, label as u32)).collect())
        };
        let train: Vec<_> = folders.par_iter().enumerate().map(class_files).collect::<Result<_>>()?;
        let train = train.concat();
        let test = test_files(root, &folders)?;
        let class = |id: String| Class { words: words.get(&id).cloned().unwrap_or_default(), id };
        let classes = folders.into_iter().map(class).collect();
        Ok(Self { name: super::folder_name(root), root: root.to_path_buf(), classes, train, test })
    }
}

/// Names in a folder, sorted as strings, without hidden ones.
pub(super) fn list(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(IngestError::io(folder, "list"))? {
        let name = entry.map_err(IngestError::io(folder, "list"))?.file_name();
        let name = name.into_string().map_err(|name| {
            IngestError::bad(folder, format!("holds the name {}, which is not UTF-8", name.to_string_lossy()))
        })?;
        if !name.starts_with('.') {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

fn image_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let is_image = |name: &String| {
        let extension = Path::new(name).extension().map(std::ffi::OsStr::to_ascii_lowercase);
        extension.is_some_and(|e| e == "jpeg" || e == "jpg")
    };
    Ok(list(folder)?.into_iter().filter(is_image).map(|name| folder.join(name)).collect())
}

fn read_text(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(IngestError::io(path, "read"))
}

fn words(root: &Path) -> Result<BTreeMap<String, String>> {
    let path = root.join("words.txt");
    if !path.is_file() {
        return Ok(BTreeMap::new());
    }
    let pair = |line: &str| line.split_once('\t').map(|(id, words)| (id.to_owned(), words.trim().to_owned()));
    Ok(read_text(&path)?.lines().filter_map(pair).collect())
}

fn check_promised_classes(root: &Path, folders: &[String]) -> Result<()> {
    let path = root.join("wnids.txt");
    if !path.is_file() {
        return Ok(());
    }
    let text = read_text(&path)?;
    let promised: BTreeSet<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let found: BTreeSet<&str> = folders.iter().map(String::as_str).collect();
    if let Some(missing) = promised.difference(&found).next() {
        let n = promised.difference(&found).count();
        let what = format!(
            "{n} classes of wnids.txt have no folder in train/, {missing} among them; unpack the set again"
        );
        return Err(IngestError::bad(root, what));
    }
    Ok(())
}

/// Both layouts of `val/`: files in one folder with a list of labels, or a folder a class.
fn test_files(root: &Path, classes: &[String]) -> Result<Vec<(PathBuf, u32)>> {
    let labels: BTreeMap<&str, u32> =
        classes.iter().enumerate().map(|(i, c)| (c.as_str(), i as u32)).collect();
    let folder = root.join("val").join("images");
    let list_path = root.join("val").join("val_annotations.txt");
    let text = read_text(&list_path)?;
    let mut test = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let place = || format!("line {}", number + 1);
        let mut columns = line.split('\t');
        let (Some(file), Some(class)) = (columns.next(), columns.next()) else {
            return Err(IngestError::bad(&list_path, format!("{}: expected file TAB class", place())));
        };
        let Some(&label) = labels.get(class) else {
            return Err(IngestError::bad(
                &list_path,
                format!("{}: class {class} has no folder in train/", place()),
            ));
        };
        let (flat, sorted) = (folder.join(file), folder.join(class).join(file));
        let path = if flat.is_file() { flat } else { sorted };
        if !path.is_file() {
            let what = format!("{}: {file} is not in val/images/ nor in a class folder there", place());
            return Err(IngestError::bad(&list_path, what));
        }
        test.push((path, label));
    }
    if test.is_empty() {
        return Err(IngestError::bad(&list_path, "lists no test image"));
    }
    // The reference sorts by class, then by file name as a string.
    test.sort_by(|a, b| (a.1, a.0.file_name()).cmp(&(b.1, b.0.file_name())));
    Ok(test)
}
