//! Class-folder image sets: TinyImageNet's layout, ImageNet's as torchvision reads it, one with test images
//! only, and Tiny-ImageNet-C's.

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
    /// Name of the folder; of corrupted copies the corruption and severity, as in `fog-3`.
    pub name: String,
    /// Name of the folder that corrupted copies lie in.
    pub group: Option<String>,
    /// The folder.
    pub root: PathBuf,
    /// Classes in label order.
    pub classes: Vec<Class>,
    /// Files of `train/`, which are divided into training and validation. None of a set that only tests.
    pub train: Vec<(PathBuf, u32)>,
    /// The test set: files of `val/`, or of a set without `train/` all files.
    pub test: Vec<(PathBuf, u32)>,
}

impl ImageSet {
    /// Whether `root` has the shape of an image set.
    pub fn looks_like(root: &Path) -> bool {
        root.join("train").is_dir() && root.join("val").is_dir() || only_tests(root)
    }

    /// Lists the files under `root`, and checks that they are those that the set's own lists promise.
    pub fn open(root: &Path) -> Result<Self> {
        let words = words(root)?;
        if only_tests(root) {
            let set = Self::of_classes(super::folder_name(root), root, &root.join("images"))?;
            let words =
                |class: Class| Class { words: words.get(&class.id).cloned().unwrap_or_default(), ..class };
            return Ok(Self { classes: set.classes.into_iter().map(words).collect(), ..set });
        }
        let train_root = root.join("train");
        let folders = folders(&train_root)?;
        if folders.is_empty() {
            let what = "holds no class folders; expected train/<class>/images/*.JPEG";
            return Err(IngestError::bad(&train_root, what));
        }
        check_promised_classes(root, &folders)?;
        let train = labelled_files(&train_root, &folders)?;
        let test = test_files(root, &folders)?;
        let class = |id: String| Class { words: words.get(&id).cloned().unwrap_or_default(), id };
        let classes = folders.into_iter().map(class).collect();
        let name = super::folder_name(root);
        Ok(Self { name, group: None, root: root.to_path_buf(), classes, train, test })
    }

    /// With classes number `start` to `end` only, which are then counted from 0.
    pub(super) fn of_class_range(mut self, start: u32, end: u32) -> Result<Self> {
        let n = self.classes.len();
        if start >= end || end as usize > n {
            let what = format!("has {n} classes, and --classes {start}..{end} is no part of them");
            return Err(IngestError::bad(&self.root, what));
        }
        let keep = |files: Vec<(PathBuf, u32)>| -> Vec<(PathBuf, u32)> {
            let wanted = files.into_iter().filter(|(_, label)| (start..end).contains(label));
            wanted.map(|(path, label)| (path, label - start)).collect()
        };
        (self.train, self.test) = (keep(self.train), keep(self.test));
        self.classes = self.classes.drain(start as usize..end as usize).collect();
        Ok(self)
    }

    /// Corrupted copies of test images in the class folders of `folder`; one of those of `group`.
    pub fn corrupted(folder: &Path, name: &str, group: &str) -> Result<Self> {
        let set = Self::of_classes(name.to_owned(), folder, folder)?;
        Ok(Self { group: Some(group.to_owned()), ..set })
    }

    /// The test set of the class folders in `folder`.
    fn of_classes(name: String, root: &Path, folder: &Path) -> Result<Self> {
        let folders = folders(folder)?;
        if folders.is_empty() {
            return Err(IngestError::bad(folder, "holds no class folders; expected <class>/*.JPEG"));
        }
        let test = labelled_files(folder, &folders)?;
        let classes = folders.into_iter().map(|id| Class { id, words: String::new() }).collect();
        Ok(Self { name, group: None, root: root.to_path_buf(), classes, train: Vec::new(), test })
    }
}

/// Whether `root` is a set of test images only: class folders in `images/`, and no `train/`.
fn only_tests(root: &Path) -> bool {
    let images = root.join("images");
    let has_image = |class: &String| {
        let folder = images.join(class);
        folder.is_dir() && image_files(&folder).is_ok_and(|files| !files.is_empty())
    };
    !root.join("train").is_dir() && list(&images).is_ok_and(|names| names.first().is_some_and(has_image))
}

fn folders(root: &Path) -> Result<Vec<String>> {
    Ok(list(root)?.into_iter().filter(|name| root.join(name).is_dir()).collect())
}

/// The files of each class folder, or of `images/` in it, with its number as label.
fn labelled_files(root: &Path, folders: &[String]) -> Result<Vec<(PathBuf, u32)>> {
    let class_files = |(label, folder): (usize, &String)| -> Result<Vec<(PathBuf, u32)>> {
        let class_root = root.join(folder);
        let inner = class_root.join("images");
        let files = image_files(if inner.is_dir() { &inner } else { &class_root })?;
        if files.is_empty() {
            return Err(IngestError::bad(&class_root, "holds no .JPEG file"));
        }
        check_promised_files(&class_root.join(format!("{folder}_boxes.txt")), &files)?;
        Ok(files.into_iter().map(|path| (path, label as u32)).collect())
    };
    let files: Vec<_> = folders.par_iter().enumerate().map(class_files).collect::<Result<_>>()?;
    Ok(files.concat())
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
    let names = list(folder)?.into_iter().filter(|name| is_picture(Path::new(name)));
    Ok(names.map(|name| folder.join(name)).collect())
}

/// Whether a file is called a JPEG or PNG.
pub(super) fn is_picture(path: &Path) -> bool {
    let extension = path.extension().map(std::ffi::OsStr::to_ascii_lowercase);
    extension.is_some_and(|e| e == "jpeg" || e == "jpg" || e == "png")
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

/// TinyImageNet lists the files of each training class, with the place of the object.
fn check_promised_files(list: &Path, files: &[PathBuf]) -> Result<()> {
    if !list.is_file() {
        return Ok(());
    }
    let found: BTreeSet<&str> = files.iter().filter_map(|path| path.file_name()?.to_str()).collect();
    let text = read_text(list)?;
    let promised = text.lines().filter_map(|line| line.split('\t').next()).map(str::trim);
    let missing: Vec<&str> = promised.filter(|name| !name.is_empty() && !found.contains(name)).collect();
    let Some(first) = missing.first() else { return Ok(()) };
    let what =
        format!("{} of its files are not there, {first} the first; unpack the set again", missing.len());
    Err(IngestError::bad(list, what))
}

/// The layouts of `val/`: files in one folder with a list of labels, or a folder a class, with or without the list.
fn test_files(root: &Path, classes: &[String]) -> Result<Vec<(PathBuf, u32)>> {
    let labels: BTreeMap<&str, u32> =
        classes.iter().enumerate().map(|(i, c)| (c.as_str(), i as u32)).collect();
    let folder = root.join("val").join("images");
    let list_path = root.join("val").join("val_annotations.txt");
    if !list_path.is_file() {
        let folder = if folder.is_dir() { folder } else { root.join("val") };
        let found = folders(&folder)?;
        if let Some(unknown) = found.iter().find(|class| !labels.contains_key(class.as_str())) {
            return Err(IngestError::bad(&folder.join(unknown), "is a class that has no folder in train/"));
        }
        if found.is_empty() {
            let what = "holds neither val_annotations.txt nor class folders";
            return Err(IngestError::bad(&root.join("val"), what));
        }
        let files = labelled_files(&folder, &found)?;
        return Ok(files.into_iter().map(|(path, i)| (path, labels[found[i as usize].as_str()])).collect());
    }
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
        let Some(path) = [flat, sorted].into_iter().find(|path| path.is_file()) else {
            let what = format!("{}: {file} is not in val/images/ nor in a class folder there", place());
            return Err(IngestError::bad(&list_path, what));
        };
        test.push((path, label));
    }
    if test.is_empty() {
        return Err(IngestError::bad(&list_path, "lists no test image"));
    }
    // The reference sorts by class, then by file name as a string.
    test.sort_by(|a, b| (a.1, a.0.file_name()).cmp(&(b.1, b.0.file_name())));
    Ok(test)
}
