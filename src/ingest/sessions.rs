//! Neural sets: one pickle a recording session, one image file an id.

use super::error::{IngestError, Result};
use super::images::list;
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
        let names = list(&folder)?.into_iter().filter(is_session).filter(|name| name != SKIPPED);
        let sessions: Vec<PathBuf> = names.map(|name| folder.join(name)).collect();
        if sessions.is_empty() {
            return Err(IngestError::bad(&folder, "holds no session; expected one .pickle a recording"));
        }
        let images = images(root)?;
        if images.is_empty() {
            let what = "holds no image; expected 000001.npy and so on, in images/ or images/individual/";
            return Err(IngestError::bad(&root.join("images"), what));
        }
        Ok(Self { name: super::folder_name(root), root: root.to_path_buf(), images, sessions })
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

/// The arrays in `images/`; where there are none, the files that a pickle there names instead.
fn images(root: &Path) -> Result<BTreeMap<u32, PathBuf>> {
    let folder = root.join("images");
    let by_path = folder.join("individual_image_paths.pickle");
    let mut images = BTreeMap::new();
    for folder in [folder.join("individual"), folder] {
        if !folder.is_dir() {
            continue;
        }
        for name in list(&folder)? {
            let path = folder.join(&name);
            let stem = path.file_stem().and_then(|s| s.to_str()).and_then(|s| s.parse().ok());
            if let (Some(id), true) = (stem, path.extension().is_some_and(|e| e == "npy")) {
                images.insert(id, path);
            }
        }
    }
    if !images.is_empty() || !by_path.is_file() {
        return Ok(images);
    }
    let entry = |(id, file): (String, String)| match id.parse() {
        Ok(id) => Ok((id, root.join(file))),
        Err(_) => Err(IngestError::bad(&by_path, format!("key {id:?} is no image id"))),
    };
    Pickle::read(&by_path)?.text_pairs()?.into_iter().map(entry).collect()
}

/// Which time bins make a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeBins {
    /// The first so many.
    pub first: usize,
    /// Averaged instead of summed.
    pub average: bool,
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
        let text = self.pickle.text(self.get(key)?);
        text.ok_or_else(|| self.bad(format!("{key} is neither text nor a whole number")))
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
            let what = format!("{ids_key} names image {id}, and images/ has no {id:06}.npy");
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
        let used = self.bins.first.min(n_bins);
        if shape.len() == 3 && n_bins < self.bins.first {
            notes.push(format!("{n_bins} time bins instead of {}: all are used", self.bins.first));
        }
        let divisor = if self.bins.average { used as f64 } else { 1.0 };
        let mut out = Vec::with_capacity(n_neurons * n_trials);
        for t in 0..n_trials {
            for n in 0..n_neurons {
                let sum: f64 = (0..used).map(|b| array.real(n * neuron + b * bin + t * trial)).sum();
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
