//! Neural sets: one pickle a recording session, one image file an id.

use super::error::{IngestError, Result};
use super::images::{is_picture, list};
use super::pickle::{Array, Id, Pickle};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Folder of the session pickles within a neural set.
const SESSIONS_DIR: &str = "neuronal_data";
/// A recording that the reference leaves out by name.
const SKIPPED: &str = "CSRF19_V4_3653663964522.pickle";

/// A neural set: where its files are.
#[derive(Debug, Clone)]
pub struct NeuralSet {
    /// Name of the folder.
    pub name: String,
    /// The folder.
    pub root: PathBuf,
    /// Image file of each id.
    pub images: BTreeMap<u32, PathBuf>,
    /// Session pickles in name order.
    pub sessions: Vec<PathBuf>,
    /// What a user should know.
    pub notes: Vec<String>,
}

impl NeuralSet {
    /// Whether `root` has the shape of a neural set.
    pub fn looks_like(root: &Path) -> bool {
        root.join(SESSIONS_DIR).is_dir()
    }

    /// Lists the files under `root`.
    pub fn open(root: &Path) -> Result<Self> {
        let folder = root.join(SESSIONS_DIR);
        let is_session =
            |name: &String| Path::new(name).extension().is_some_and(|e| e == "pickle" || e == "pkl");
        let names = list(&folder)?.into_iter().filter(is_session);
        let (skipped, names): (Vec<_>, Vec<_>) = names.partition(|name| name == SKIPPED);
        let note =
            |name| format!("{name} is passed over, as the reference does; give it another name to use it");
        let notes: Vec<String> = skipped.into_iter().map(note).collect();
        let sessions: Vec<PathBuf> = names.into_iter().map(|name| folder.join(name)).collect();
        if sessions.is_empty() {
            let what = "holds no session; expected one .pickle a recording".to_owned();
            return Err(IngestError::bad(&folder, [&[what], &notes[..]].concat().join("; ")));
        }
        let images = images(root)?;
        if images.is_empty() {
            let what = "holds no image; expected 000001.npy, .png or .jpg and so on, in images/ or \
                        images/individual/";
            return Err(IngestError::bad(&root.join("images"), what));
        }
        Ok(Self { name: super::folder_name(root), root: root.to_path_buf(), images, sessions, notes })
    }

    /// Number of images over which the reference draws its split: PlosCB19_V1 uses 80 % of them.
    pub fn n_split(&self) -> usize {
        if self.is_plos() { (self.images.len() as f64 * 0.8) as usize } else { self.images.len() }
    }

    /// Reads one session.
    pub fn read(&self, path: &Path, bins: &TimeBins) -> Result<Session> {
        let reader =
            Reader { pickle: Pickle::read(path)?, path, plos: self.is_plos(), bins, images: &self.images };
        reader.session()
    }

    fn is_plos(&self) -> bool {
        self.name == "PlosCB19_V1"
    }
}

/// The image files in `images/`: arrays, else the files that a pickle there names, else PNGs and JPEGs. What lies beside
/// arrays is for people to look at.
fn images(root: &Path) -> Result<BTreeMap<u32, PathBuf>> {
    let folder = root.join("images");
    let by_path = folder.join("individual_image_paths.pickle");
    let mut files = numbered(&folder.join("individual"))?;
    files.extend(numbered(&folder)?);
    let has_arrays = files.iter().any(|(_, path)| is_array(path));
    if has_arrays || !by_path.is_file() {
        files.retain(|(_, path)| is_array(path) == has_arrays);
        return by_id(root, files);
    }
    let entry = |(id, file): (String, String)| match id.parse() {
        Ok(id) => Ok((id, root.join(file))),
        Err(_) => Err(IngestError::bad(&by_path, format!("key {id:?} is no image id"))),
    };
    Pickle::read(&by_path)?.text_pairs()?.into_iter().map(entry).collect()
}

/// The image files of a folder that are named by a number, in name order.
fn numbered(folder: &Path) -> Result<Vec<(u32, PathBuf)>> {
    let names = if folder.is_dir() { list(folder)? } else { Vec::new() };
    let file = |name: String| {
        let path = folder.join(name);
        let id = path.file_stem()?.to_str()?.parse().ok()?;
        (is_array(&path) || is_picture(&path)).then_some((id, path))
    };
    Ok(names.into_iter().filter_map(file).collect())
}

/// The file of each id. Which of two is meant cannot be known, but for arrays in `images/individual/`: the reference
/// looks into `images/` only.
fn by_id(root: &Path, files: Vec<(u32, PathBuf)>) -> Result<BTreeMap<u32, PathBuf>> {
    let mut images = BTreeMap::new();
    for (id, path) in files {
        let Some(other) = images.insert(id, path) else { continue };
        let path = &images[&id];
        if is_array(&other) && is_array(path) && other.parent() != path.parent() {
            continue;
        }
        let [one, two] = [&other, path].map(|path| path.strip_prefix(root).unwrap_or(path).display());
        return Err(IngestError::bad(root, format!("image {id} has two files, {one} and {two}; remove one")));
    }
    Ok(images)
}

fn is_array(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "npy")
}

/// Which time bins make a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeBins {
    /// Those that are used.
    pub which: Bins,
    /// Averaged instead of summed.
    pub average: bool,
}

/// Time bins, counted from 0: written `12`, `4..12` and `4,5,6`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bins {
    /// The first so many; all where there are fewer.
    First(usize),
    /// The first, and the one after the last.
    Range(usize, usize),
    /// These, rising.
    Listed(Vec<usize>),
}

impl Bins {
    /// Those of a session with `n` bins, and what a user should know.
    fn of(&self, n: usize) -> std::result::Result<(Vec<usize>, Option<String>), String> {
        let (bins, last) = match self {
            Self::First(first) => {
                let note = (n < *first).then(|| format!("{n} time bins instead of {first}: all are used"));
                return Ok(((0..n.min(*first)).collect(), note));
            }
            Self::Range(_, end) => (None, end.saturating_sub(1)),
            Self::Listed(bins) => (Some(bins.clone()), bins.last().copied().unwrap_or_default()),
        };
        if last >= n {
            let last_bin = n.saturating_sub(1);
            return Err(format!(
                "has {n} time bins, 0 to {last_bin}, and --time-bins-sum {self} wants bin {last}; give those that there are"
            ));
        }
        Ok((bins.unwrap_or_else(|| self.range().collect()), None))
    }

    fn range(&self) -> std::ops::Range<usize> {
        if let Self::Range(start, end) = self { *start..*end } else { 0..0 }
    }
}

impl std::fmt::Display for Bins {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::First(first) => write!(f, "{first}"),
            Self::Range(start, end) => write!(f, "{start}..{end}"),
            Self::Listed(bins) => {
                let bins: Vec<String> = bins.iter().map(usize::to_string).collect();
                write!(f, "{}", bins.join(","))
            }
        }
    }
}

impl std::str::FromStr for Bins {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let number = |text: &str| text.trim().parse::<u32>().ok().map(|n| n as usize);
        let bins = if let Some((start, end)) = text.split_once("..") {
            number(start).zip(number(end)).filter(|(a, b)| a < b).map(|(a, b)| Self::Range(a, b))
        } else if text.contains(',') {
            let bins: Option<Vec<usize>> = text.split(',').map(number).collect();
            let sorted = bins.map(|mut bins| {
                bins.sort_unstable();
                bins
            });
            sorted.filter(|bins| bins.windows(2).all(|pair| pair[0] < pair[1])).map(Self::Listed)
        } else {
            number(text).filter(|&first| first > 0).map(Self::First)
        };
        bins.ok_or_else(|| {
            "expected how many from the first on, as in 12, or bins counted from 0: 4..12 is 4 to 11, and 4,5,6 is each once"
                .to_owned()
        })
    }
}

/// One recording session.
#[derive(Debug, Clone, PartialEq)]
pub struct Session {
    /// Its id: the key of its readout.
    pub id: String,
    /// The animal.
    pub subject: String,
    /// Number of neurons.
    pub n_neurons: usize,
    /// What is divided into training and validation.
    pub training: Trials,
    /// What is tested on; repeated presentations are separate trials.
    pub testing: Trials,
    /// What a user should know.
    pub notes: Vec<String>,
}

/// Presentations of images.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Trials {
    /// Image shown in each trial.
    pub image_ids: Vec<u32>,
    /// Responses `[trials, neurons]`.
    pub responses: Vec<f32>,
    /// Class of each image, where the recording has labels.
    pub labels: Option<Vec<u32>>,
}

struct Reader<'a> {
    pickle: Pickle,
    path: &'a Path,
    plos: bool,
    bins: &'a TimeBins,
    images: &'a BTreeMap<u32, PathBuf>,
}

impl Reader<'_> {
    fn session(&self) -> Result<Session> {
        let mut notes = Vec::new();
        let (n_neurons, training) = self.trials("training", &mut notes)?;
        let (n_testing, testing) = self.trials("testing", &mut notes)?;
        if n_neurons != n_testing {
            return Err(self.bad(format!(
                "{n_neurons} neurons in training_responses, {n_testing} in testing_responses"
            )));
        }
        let id = self.name("session_id")?;
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if id.is_empty() || !id.chars().all(plain) {
            return Err(self.bad(format!("session_id {id:?}: a name has letters, digits, _ and - only")));
        }
        notes.dedup();
        Ok(Session { id, subject: self.name("subject_id")?, n_neurons, training, testing, notes })
    }

    fn name(&self, key: &str) -> Result<String> {
        let id = self.get(key)?;
        self.pickle.text(id).ok_or_else(|| match self.pickle.odd(id) {
            Some(why) => self.bad(format!("{key} {why}")),
            None => self.bad(format!("{key} is neither text nor a whole number")),
        })
    }

    fn trials(&self, which: &str, notes: &mut Vec<String>) -> Result<(usize, Trials)> {
        let key = format!("{which}_responses");
        let array = self.array(&key, self.get(&key)?)?;
        let (n_neurons, n_trials, responses) = self.responses(&key, &array, notes)?;
        let ids_key = format!("{which}_image_ids");
        let mut image_ids = self.whole_numbers(&ids_key, self.get(&ids_key)?, n_trials)?;
        if self.plos {
            for id in &mut image_ids {
                *id = id
                    .checked_sub(1)
                    .ok_or_else(|| self.bad(format!("{ids_key} holds 0; ids start at 1")))?;
            }
        }
        if let Some(id) = image_ids.iter().find(|id| !self.images.contains_key(id)) {
            let what = format!("{ids_key} names image {id}, and images/ has no {id:06}.npy, .png or .jpg");
            return Err(self.bad(what));
        }
        let labels_key = format!("{which}_labels");
        let labels = self.pickle.find(&labels_key)?;
        let labels = labels.map(|id| self.whole_numbers(&labels_key, id, n_trials)).transpose()?;
        Ok((n_neurons, Trials { image_ids, responses, labels }))
    }

    /// Neurons, trials, and responses `[trials, neurons]` with the bins summed in f64, rounded once.
    fn responses(
        &self,
        key: &str,
        array: &Array,
        notes: &mut Vec<String>,
    ) -> Result<(usize, usize, Vec<f32>)> {
        let (shape, strides) = (array.shape(), array.strides());
        let ((n_neurons, neuron), (n_bins, bin), (n_trials, trial)) = match (shape, self.plos) {
            (&[t, n], true) => ((n, strides[1]), (1, 0), (t, strides[0])),
            (&[n, t], false) => ((n, strides[0]), (1, 0), (t, strides[1])),
            (&[n, b, t], false) => ((n, strides[0]), (b, strides[1]), (t, strides[2])),
            _ => return Err(self.bad(format!("{key} has shape {shape:?}; expected neurons x bins x images"))),
        };
        if n_neurons == 0 || n_trials == 0 || n_bins == 0 {
            return Err(self.bad(format!("{key} has shape {shape:?}, which is empty")));
        }
        let which = &self.bins.which;
        let used = match (shape.len(), which) {
            (3, _) => {
                let (used, note) = which.of(n_bins).map_err(|what| self.bad(format!("{key} {what}")))?;
                notes.extend(note);
                used
            }
            (_, Bins::First(_)) => vec![0],
            _ => {
                return Err(self.bad(format!(
                    "{key} has no time bins, and --time-bins-sum {which} chooses some; leave it out for this set"
                )));
            }
        };
        let divisor = if self.bins.average { used.len() as f64 } else { 1.0 };
        let mut out = Vec::with_capacity(n_neurons * n_trials);
        for t in 0..n_trials {
            for n in 0..n_neurons {
                let sum: f64 = used.iter().map(|b| array.real(n * neuron + b * bin + t * trial)).sum();
                let value = (sum / divisor) as f32;
                if !value.is_finite() {
                    return Err(
                        self.bad(format!("{key}: response {value} of neuron {n} to image {t} is not finite"))
                    );
                }
                out.push(value);
            }
        }
        Ok((n_neurons, n_trials, out))
    }

    fn whole_numbers(&self, key: &str, id: Id, n_trials: usize) -> Result<Vec<u32>> {
        let numbers = self.array(key, id)?.to_u32().map_err(|what| self.bad(format!("{key} {what}")))?;
        if numbers.len() != n_trials {
            return Err(self.bad(format!(
                "{key} has {} entries, and the responses have {n_trials} images",
                numbers.len()
            )));
        }
        Ok(numbers)
    }

    fn array(&self, key: &str, id: Id) -> Result<Array<'_>> {
        self.pickle.array(id).map_err(|what| self.bad(format!("{key} {what}")))
    }

    fn get(&self, key: &str) -> Result<Id> {
        self.pickle.get(key)
    }

    fn bad(&self, what: String) -> IngestError {
        IngestError::bad(self.path, what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A neural set of such files, which are empty.
    fn set(files: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            add(dir.path(), file, b"");
        }
        dir
    }

    fn add(root: &Path, file: &str, bytes: &[u8]) {
        let path = root.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn found(root: &Path) -> Vec<(u32, String)> {
        let name = |path: &Path| path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        images(root).unwrap().into_iter().map(|(id, path)| (id, name(&path))).collect()
    }

    #[test]
    fn time_bins_are_written_in_three_ways() {
        let parsed = |text: &str| text.parse::<Bins>();
        for text in ["12", "1", "4..12", "0..1", "4,5,6", "0,7"] {
            assert_eq!(parsed(text).unwrap().to_string(), text);
        }
        assert_eq!(parsed("6, 4,5").unwrap(), Bins::Listed(vec![4, 5, 6]));
        for text in ["", "0", "-1", "4..4", "5..4", "..4", "4..", "4,4", "4,", "[4, 5]", "x", "4294967296"] {
            assert!(parsed(text).is_err(), "{text}");
        }
        let of = |text: &str, n| parsed(text).unwrap().of(n);
        assert_eq!(of("4..7", 7), of("4,5,6", 8));
        assert_eq!(of("4..7", 7), Ok((vec![4, 5, 6], None)));
        for text in ["4..8", "1,7", "4..4294967295"] {
            assert!(of(text, 7).unwrap_err().contains(text), "{text}");
        }
        assert_eq!(of("7", 7), Ok((vec![0, 1, 2, 3, 4, 5, 6], None)));
        let (all, note) = of("9", 2).unwrap();
        assert!(all == [0, 1] && note.unwrap().contains("2 time bins instead of 9"));
    }

    #[test]
    fn stimuli_are_arrays_or_pictures_that_are_named_by_a_number() {
        let numbered = ["images/2.PNG", "images/0003.jpg", "images/individual/7.jpeg"];
        let others = ["images/a.png", "images/5.gif", "images/6.NPY", "images/original/8.npy", "images/9"];
        let dir = set(&[&numbered[..], &others].concat());
        let expected = [(2, 0), (3, 1), (7, 2)].map(|(id, i)| (id, numbered[i].to_owned()));
        assert_eq!(found(dir.path()), expected);
        // Beside arrays pictures are previews.
        add(dir.path(), "images/000002.npy", b"");
        assert_eq!(found(dir.path()), [(2, "images/000002.npy".to_owned())]);
    }

    #[test]
    fn an_image_with_two_files_is_refused() {
        for [one, two] in [
            ["images/1.jpg", "images/1.png"],
            ["images/000001.npy", "images/1.npy"],
            ["images/individual/1.png", "images/1.png"],
        ] {
            let dir = set(&[one, two]);
            let told = images(dir.path()).unwrap_err().to_string();
            assert!(told.contains(&format!("image 1 has two files, {one} and {two}")), "{told}");
        }
        // Arrays in both folders were never refused.
        let dir = set(&["images/individual/000001.npy", "images/000001.npy"]);
        assert_eq!(found(dir.path()), [(1, "images/000001.npy".to_owned())]);
    }

    #[test]
    fn files_that_a_pickle_names_go_before_pictures_and_not_before_arrays() {
        let dir = set(&["images/1.png", "images/1.jpg"]);
        let pickle = b"\x80\x04}(K\x04\x8c\x0cimages/1.jpgu.";
        add(dir.path(), "images/individual_image_paths.pickle", pickle);
        assert_eq!(found(dir.path()), [(4, "images/1.jpg".to_owned())]);
        add(dir.path(), "images/000002.npy", b"");
        assert_eq!(found(dir.path()), [(2, "images/000002.npy".to_owned())]);
    }

    #[test]
    fn a_recording_that_is_passed_over_is_told() {
        let skipped = format!("{SESSIONS_DIR}/{SKIPPED}");
        let dir = set(&[&skipped, "images/1.png"]);
        let told = NeuralSet::open(dir.path()).unwrap_err().to_string();
        assert!(told.contains("holds no session") && told.contains(SKIPPED), "{told}");
        add(dir.path(), &format!("{SESSIONS_DIR}/CSRF19_V4_1.pickle"), b"");
        let set = NeuralSet::open(dir.path()).unwrap();
        assert_eq!(set.sessions, [dir.path().join(SESSIONS_DIR).join("CSRF19_V4_1.pickle")]);
        assert!(set.notes.len() == 1 && set.notes[0].contains(SKIPPED), "{:?}", set.notes);
        fs::remove_file(dir.path().join(skipped)).unwrap();
        assert!(NeuralSet::open(dir.path()).unwrap().notes.is_empty());
    }
}
