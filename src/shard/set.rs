//! Prepared data: a folder with one folder per data set, each with its shards and a manifest.
//!
//! The manifest is part of what is renamed into place, so a data set is there whole or not at all;
//! a file that the manifest does not name does not exist. The folder may lie behind a URL.

use super::bytes::{Far, Stored};
use super::error::ShardError;
use super::meta::{Content, SessionMeta};
use super::mmap::Mapped;
use super::reader::Shard;
use crate::base::{DType, Fingerprint, Split};
use crate::files::write_whole;
use crate::store::{Store, StoreError, StoredFile, url_of};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

/// Name of the manifest within a data set's folder.
pub const MANIFEST: &str = "manifest.json";
/// Name of the list of data sets in a folder of them, a JSON list of names: web servers list nothing.
pub const DATASETS: &str = "datasets.json";
/// Version of the manifest that this program writes and reads.
pub const MANIFEST_VERSION: u32 = 1;

/// More pixels on a side, and more records in a shard, are damage.
const MAX_SIDE: u32 = 1 << 14;
const MAX_ROWS: u64 = 1 << 40;

/// How often a whole file is fetched before its digest counts.
const FETCHES: usize = 5;

/// A shard of a data set.
pub type OpenShard = Shard<Stored>;

/// What a data set holds and where.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`MANIFEST_VERSION`].
    pub version: u32,
    /// Name of the data set: its folder's.
    pub dataset: String,
    /// The program that wrote it.
    pub writer: String,
    /// Settings it was prepared with, as `key = value` lines.
    pub settings: Vec<String>,
    /// Bytes of the raw files that were read.
    pub raw_bytes: u64,
    /// Extent of every image: channels, height, width.
    pub image: [u32; 3],
    /// Element type of the images: bytes, or floats that are on no fixed scale.
    pub pixels: DType,
    /// Mean and standard deviation of each channel over the training images, bytes divided by 255.
    pub mean: Vec<f64>,
    /// See `mean`.
    pub std: Vec<f64>,
    /// Classes, in the order of their labels; none for a purely neural set.
    pub classes: Vec<ClassInfo>,
    /// Recording sessions in the order of their raw files' names; none for an image set.
    pub sessions: Vec<SessionInfo>,
    /// The shards.
    pub shards: Vec<ShardInfo>,
}

/// A class.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassInfo {
    /// Folder name, a WordNet id.
    pub id: String,
    /// Words for people.
    pub words: String,
}

/// A recording session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionInfo {
    /// Name: the key of its readout.
    pub id: String,
    /// Number of neurons.
    pub neurons: u32,
}

/// A shard's place and digest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardInfo {
    /// File name within the data set's folder.
    pub file: String,
    /// Split of its records; stimuli belong to all.
    pub split: Option<Split>,
    /// Session of its records, if they are responses.
    pub session: Option<String>,
    /// Number of records.
    pub rows: u64,
    /// Length in bytes.
    pub bytes: u64,
    /// Checksum in the shard's header, which stands for all of its content: a shard that was swapped for
    /// another is refused when it is opened.
    pub checksum: u32,
    /// Digest of the whole file.
    pub blake3: Fingerprint,
}

impl Manifest {
    /// Number of records of `split`, of one session or (with `None`) of the images.
    pub fn rows(&self, split: Split, session: Option<&str>) -> u64 {
        let wanted = |s: &&ShardInfo| s.split == Some(split) && s.session.as_deref() == session;
        self.shards.iter().filter(wanted).map(|s| s.rows).sum()
    }

    /// Settings it was prepared with, by key.
    pub fn prepared(&self) -> BTreeMap<String, String> {
        let pairs = self.settings.iter().filter_map(|line| line.split_once(" = "));
        pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    /// Digest of the data set: of its shards' digests.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of_parts(self.shards.iter().map(|s| s.blake3.as_str().as_bytes()))
    }
}

/// A prepared data set.
#[derive(Debug)]
pub struct Dataset {
    /// A folder, or what stands for one in a store.
    root: PathBuf,
    store: Option<Store>,
    manifest: Manifest,
}

impl Manifest {
    /// Whether it can be true: what others compute with.
    fn check(&self) -> Result<(), String> {
        if !is_plain(&self.dataset) {
            return Err(format!("a data set called {:?}, which is no plain name", self.dataset));
        }
        let [channels, height, width] = self.image;
        if !matches!(channels, 1 | 3) || !(1..=MAX_SIDE).contains(&height) || !(1..=MAX_SIDE).contains(&width)
        {
            return Err(format!("images of shape {:?}; run `nct verify`", self.image));
        }
        let values = self.mean.iter().chain(&self.std);
        if [self.mean.len(), self.std.len()] != [channels as usize; 2]
            || values.clone().any(|v| !v.is_finite())
        {
            return Err(format!("no mean and standard deviation for each of {channels} channels"));
        }
        let mut ids = BTreeSet::new();
        for ClassInfo { id, .. } in &self.classes {
            // They become names of folders.
            if !is_plain(id) || !ids.insert(id) {
                return Err(format!("class {id:?}: ids are unique and plain names"));
            }
        }
        let mut ids = BTreeSet::new();
        for SessionInfo { id, neurons } in &self.sessions {
            let plain = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
            if id.is_empty() || !id.chars().all(plain) || !ids.insert(id) || *neurons == 0 {
                return Err(format!(
                    "session {id:?} of {neurons} neurons: ids are unique and made of letters, digits, _ and -"
                ));
            }
        }
        self.shards.iter().try_for_each(ShardInfo::check)
    }

    /// Of the data set in the folder `root`.
    pub fn read(root: &Path) -> Result<Self, ShardError> {
        let path = root.join(MANIFEST);
        let text = fs::read(&path).map_err(ShardError::io(&path, "read"))?;
        Self::parse(&text, &path)
    }

    /// Reads the manifest at `path`.
    fn parse(text: &[u8], path: &Path) -> Result<Self, ShardError> {
        let manifest: Self = serde_json::from_slice(text).map_err(|e| {
            ShardError::folder(path, format!("{e}; run `nct prepare --force` to make it again"))
        })?;
        if manifest.version != MANIFEST_VERSION {
            let what =
                format!("manifest version {}, and this program reads {MANIFEST_VERSION}", manifest.version);
            return Err(ShardError::folder(path, what));
        }
        manifest.check().map_err(|what| ShardError::folder(path, what))?;
        Ok(manifest)
    }
}

impl ShardInfo {
    /// Whether the file at `path` is as long as the shard is.
    pub fn check_length(&self, path: &Path) -> Result<(), ShardError> {
        let found = fs::metadata(path).map_err(ShardError::io(path, "open"))?.len();
        if found == self.bytes {
            return Ok(());
        }
        let what = format!(
            "{found} bytes, and the manifest says {}: it was cut or replaced; run `nct prepare --force` to make it again",
            self.bytes
        );
        Err(ShardError::damaged(path, what))
    }

    fn stored(&self, store: &Store) -> StoredFile {
        store.file(&self.file, self.bytes, &self.blake3)
    }

    fn check(&self) -> Result<(), String> {
        if self.rows > MAX_ROWS {
            return Err(format!("{}: {} records", self.file, self.rows));
        }
        // Both become names of files.
        if !is_plain(&self.file) {
            return Err(format!("names {:?}, which is no plain name", self.file));
        }
        let digest = self.blake3.as_str();
        if digest.len() != 64 || !digest.bytes().all(|c| c.is_ascii_hexdigit()) {
            return Err(format!("{}: {digest:?} is no digest", self.file));
        }
        Ok(())
    }
}

impl Dataset {
    /// Opens the data set in folder `root`: reads its manifest and checks that every shard is there in full length.
    pub fn open(root: &Path) -> Result<Self, ShardError> {
        let manifest = Manifest::read(root)?;
        for shard in &manifest.shards {
            shard.check_length(&root.join(&shard.file))?;
        }
        Ok(Self { root: root.to_path_buf(), store: None, manifest })
    }

    /// Opens the data set that a folder of a store holds, if it holds one.
    fn far(store: Store) -> Result<Option<Self>, ShardError> {
        let root = PathBuf::from(store.url());
        let Some(text) = store.read(MANIFEST)? else { return Ok(None) };
        let manifest = Manifest::parse(&text, &root.join(MANIFEST))?;
        Ok(Some(Self { root, store: Some(store), manifest }))
    }

    /// The folder, or its URL.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What it holds.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Where a shard lies.
    pub fn path(&self, info: &ShardInfo) -> PathBuf {
        self.root.join(&info.file)
    }

    /// Whether it comes from a store.
    pub fn is_far(&self) -> bool {
        self.store.is_some()
    }

    /// Opens one shard and checks that it is the one the manifest means: a file is mapped, of one in a store the
    /// description is fetched.
    pub fn shard(&self, info: &ShardInfo) -> Result<OpenShard, ShardError> {
        let path = self.path(info);
        let bytes = match &self.store {
            None => Stored::Mapped(Mapped::open(&path).map_err(ShardError::io(&path, "map"))?),
            Some(store) => Stored::Far(Far::open(info.stored(store), info.checksum)?),
        };
        self.checked(info, Shard::open(bytes, &path)?)
    }

    /// Opens one shard with all of its bytes at hand; `on_bytes` hears of those that are fetched. That their digest is
    /// the manifest's is for the caller to see.
    pub fn whole_shard(&self, info: &ShardInfo, on_bytes: &dyn Fn(u64)) -> Result<OpenShard, ShardError> {
        let Some(store) = &self.store else { return self.shard(info) };
        let file = info.stored(store);
        let mut bytes = file.whole(on_bytes)?;
        for _ in 1..FETCHES {
            if Fingerprint::of_large(&bytes) == info.blake3 {
                break;
            }
            bytes = file.whole(&|_| ())?;
        }
        self.checked(info, Shard::open(Stored::Whole(bytes), &self.path(info))?)
    }

    /// `shard`, if it is what the manifest says.
    fn checked(&self, info: &ShardInfo, shard: OpenShard) -> Result<OpenShard, ShardError> {
        let path = self.path(info);
        let meta = shard.meta();
        let session = match &meta.content {
            Content::Session(session) => Some(session.id.as_str()),
            Content::Images | Content::Stimuli => None,
        };
        if meta.dataset != self.manifest.dataset
            || meta.split != info.split
            || session != info.session.as_deref()
        {
            let what = "it holds another data set, split or session than the manifest says; was it renamed?";
            return Err(ShardError::damaged(&path, what));
        }
        if shard.checksum() != info.checksum {
            let what = format!(
                "it is not the shard that the manifest names (checksum {:08x}, expected {:08x})",
                shard.checksum(),
                info.checksum
            );
            return Err(ShardError::damaged(&path, what));
        }
        if shard.n_rows() != info.rows {
            let what = format!("{} records, and the manifest says {}", shard.n_rows(), info.rows);
            return Err(ShardError::damaged(&path, what));
        }
        let field = |name: &str| meta.schema.0.iter().find(|field| field.name == name);
        if let Some(field) = field("image")
            && (field.shape.0[..] != self.manifest.image || field.dtype != self.manifest.pixels)
        {
            let what = format!(
                "images of shape {} and type {}, and the manifest says {:?} and {}",
                field.shape, field.dtype, self.manifest.image, self.manifest.pixels
            );
            return Err(ShardError::damaged(&path, what));
        }
        Ok(shard)
    }

    /// The shards of one split's images in order.
    pub fn images(&self, split: Split) -> Result<Vec<OpenShard>, ShardError> {
        self.matching(|s| s.split == Some(split) && s.session.is_none())
    }

    /// The shards of the images that were shown to neurons.
    pub fn stimuli(&self) -> Result<Vec<OpenShard>, ShardError> {
        self.matching(|s| s.split.is_none())
    }

    /// The shards of one session's responses in `split`.
    pub fn session(&self, id: &str, split: Split) -> Result<Vec<OpenShard>, ShardError> {
        self.matching(|s| s.split == Some(split) && s.session.as_deref() == Some(id))
    }

    /// Statistics of a session, from its first shard.
    pub fn session_meta(&self, id: &str) -> Result<SessionMeta, ShardError> {
        for info in self.manifest.shards.iter().filter(|s| s.session.as_deref() == Some(id)) {
            if let Content::Session(session) = &self.shard(info)?.meta().content {
                return Ok(session.clone());
            }
        }
        Err(ShardError::folder(&self.root, format!("no session {id}")))
    }

    fn matching(&self, wanted: impl Fn(&ShardInfo) -> bool) -> Result<Vec<OpenShard>, ShardError> {
        let wanted: Vec<&ShardInfo> = self.manifest.shards.iter().filter(|s| wanted(s)).collect();
        match &self.store {
            None => wanted.into_iter().map(|info| self.shard(info)).collect(),
            Some(store) => store.each(&wanted, |info| self.shard(info)).into_iter().collect(),
        }
    }
}

/// All data sets of a folder.
#[derive(Debug)]
pub struct ShardSet {
    root: PathBuf,
    datasets: Vec<Dataset>,
}

impl ShardSet {
    /// Opens every data set under `root`, a folder or a URL, in name order. At least one must be there.
    pub fn open(root: &Path) -> Result<Self, ShardError> {
        if let Some(url) = url_of(root) {
            return Self::far(root, &Store::open(url)?);
        }
        if root.join(MANIFEST).is_file() {
            return Ok(Self { root: root.to_path_buf(), datasets: vec![Dataset::open(root)?] });
        }
        let folders = folders(root)?;
        if folders.is_empty() {
            return Err(none(root));
        }
        let datasets = folders.iter().map(|path| Dataset::open(path)).collect::<Result<_, _>>()?;
        Ok(Self { root: root.to_path_buf(), datasets })
    }

    fn far(root: &Path, store: &Store) -> Result<Self, ShardError> {
        let set = |datasets| Ok(Self { root: root.to_path_buf(), datasets });
        // To those who may not list a bucket, S3 denies what is not there too.
        let mut denied = match Dataset::far(store.clone()) {
            Ok(Some(dataset)) => return set(vec![dataset]),
            Ok(None) => None,
            Err(e @ ShardError::Store(StoreError::Denied { .. })) => Some(e),
            Err(e) => return Err(e),
        };
        // The first refusal is what the user must hear.
        let names = names(root, store).map_err(|e| denied.take().unwrap_or(e))?;
        let opened = store.each(&names, |name| Dataset::far(store.below(name)));
        let datasets: Vec<Dataset> =
            opened.into_iter().filter_map(Result::transpose).collect::<Result<_, _>>()?;
        if datasets.is_empty() {
            return Err(denied.unwrap_or_else(|| none(root)));
        }
        set(datasets)
    }

    /// Writes down which data sets the folder `root` holds, for web servers that it is copied to.
    pub fn list(root: &Path) -> Result<(), ShardError> {
        let folders = folders(root)?;
        let names: Vec<_> = folders.iter().filter_map(|path| path.file_name()?.to_str()).collect();
        let path = root.join(DATASETS);
        let text = serde_json::to_vec(&names).map_err(|e| ShardError::folder(&path, e.to_string()))?;
        if fs::read(&path).is_ok_and(|found| found == text) {
            // A folder that was prepared may be read-only by now.
            return Ok(());
        }
        write_whole(&path, &text).map_err(ShardError::io(&path, "write"))
    }

    /// Folders or URLs of the data sets of `root`, in name order, whether or not they can be opened.
    pub fn places(root: &Path) -> Result<Vec<PathBuf>, ShardError> {
        let itself = || vec![root.to_path_buf()];
        let Some(url) = url_of(root) else {
            return if root.join(MANIFEST).is_file() { Ok(itself()) } else { folders(root) };
        };
        let store = Store::open(url)?;
        // To those who may not list a bucket, S3 denies what is not there too.
        let is_one =
            |store: &Store| !matches!(store.read(MANIFEST), Ok(None) | Err(StoreError::Denied { .. }));
        if is_one(&store) {
            return Ok(itself());
        }
        let names = names(root, &store)?.into_iter().filter(|name| is_one(&store.below(name)));
        Ok(names.map(|name| root.join(name)).collect())
    }

    /// The data sets in name order.
    pub fn datasets(&self) -> &[Dataset] {
        &self.datasets
    }

    /// The data set called `name`, or an error that names those that are there.
    pub fn dataset(&self, name: &str) -> Result<&Dataset, ShardError> {
        self.datasets.iter().find(|d| d.manifest.dataset == name).ok_or_else(|| {
            let names: Vec<&str> = self.datasets.iter().map(|d| d.manifest.dataset.as_str()).collect();
            ShardError::folder(&self.root, format!("no data set {name}; here are: {}", names.join(", ")))
        })
    }
}

/// Whether it names something within a folder, and nothing else.
fn is_plain(name: &str) -> bool {
    let mut components = Path::new(name).components();
    let first = components.next();
    matches!(first, Some(Component::Normal(part)) if part == name) && components.next().is_none()
}

fn none(root: &Path) -> ShardError {
    let what = "no prepared data set; make one with `nct prepare <data folder> --out` this folder";
    ShardError::folder(root, what)
}

/// Folders of data sets in `root`, in name order.
fn folders(root: &Path) -> Result<Vec<PathBuf>, ShardError> {
    let entries = fs::read_dir(root).map_err(ShardError::io(root, "open the folder of shards"))?;
    let mut folders = Vec::new();
    for entry in entries {
        let path = entry.map_err(ShardError::io(root, "list"))?.path();
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if !hidden && path.join(MANIFEST).is_file() {
            folders.push(path);
        }
    }
    folders.sort();
    Ok(folders)
}

/// Folders of a store that may be data sets, in name order.
fn names(root: &Path, store: &Store) -> Result<Vec<String>, ShardError> {
    let names = match store.folders() {
        Ok(Some(names)) => Ok(names),
        Ok(None) | Err(StoreError::Denied { .. }) => listed(root, store),
        Err(e) => Err(e.into()),
    };
    let mut names = names?;
    names.retain(|name| !name.starts_with('.'));
    names.sort();
    Ok(names)
}

/// The data sets that [`DATASETS`] names.
fn listed(root: &Path, store: &Store) -> Result<Vec<String>, ShardError> {
    let path = root.join(DATASETS);
    let text = store.read(DATASETS)?.ok_or_else(|| {
        let what = format!(
            "neither {MANIFEST} nor {DATASETS} is there; web servers list nothing, so copy the {DATASETS} too that `nct prepare` writes beside the data sets"
        );
        ShardError::folder(root, what)
    })?;
    let names: Vec<String> =
        serde_json::from_slice(&text).map_err(|e| ShardError::folder(&path, e.to_string()))?;
    match names.iter().find(|name| !is_plain(name)) {
        Some(name) => Err(ShardError::folder(&path, format!("{name:?} is no plain name"))),
        None => Ok(names),
    }
}
