//! Questions to the index.

use super::Store;
use crate::runs::{RunError, write_atomic};
use std::cmp::Ordering;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::OpenOptions;
use std::path::Path;
use std::str::FromStr;

/// File of a run's tags.
pub(super) const TAGS: &str = "tags.json";
/// Held by the process that changes them.
const TAGS_LOCK: &str = ".tags.lock";
/// The key of filters on tags, of which a run has several.
const TAG: &str = "tag";

/// A condition such as `optimizer.lr>=0.05`, `name=baseline`, `state=done`, `tag=paper` or `model.vgg_type~vgg19`.
#[derive(Debug, Clone, PartialEq)]
pub struct Filter {
    key: String,
    test: Test,
    value: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Test {
    AtLeast,
    AtMost,
    Differs,
    Contains,
    Equals,
    Above,
    Below,
}

/// Longer signs first.
const SIGNS: [(&str, Test); 7] = [
    (">=", Test::AtLeast),
    ("<=", Test::AtMost),
    ("!=", Test::Differs),
    ("~", Test::Contains),
    ("=", Test::Equals),
    (">", Test::Above),
    ("<", Test::Below),
];

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = SIGNS.iter().filter_map(|&(sign, test)| Some((text.find(sign)?, sign, test)));
        // The first sign in the text, and of those at one place the longer one, which comes first.
        let Some((at, sign, test)) = found.min_by_key(|(at, ..)| *at) else {
            return Err(
                "expected a key, one of = != < <= > >= ~, and a value, as in optimizer.lr>0.05".to_owned()
            );
        };
        let (key, value) = (text[..at].trim(), text[at + sign.len()..].trim());
        if key.is_empty() || value.is_empty() {
            return Err(format!("{text}: a key or a value is missing"));
        }
        if key == TAG && ![Test::Equals, Test::Differs, Test::Contains].contains(&test) {
            return Err(format!("{text}: tags have no order; use tag=, tag!= or tag~"));
        }
        Ok(Self { key: key.to_owned(), test, value: value.to_owned() })
    }
}

impl Filter {
    fn holds(&self, number: Option<f64>, text: &str) -> bool {
        let order = number.and_then(|number| self.compared(number, text));
        match (self.test, order) {
            (Test::Contains, _) => text.contains(&self.value),
            (Test::Equals, Some(order)) => order == Ordering::Equal,
            (Test::Differs, Some(order)) => order != Ordering::Equal,
            (Test::Equals, None) => text == self.value,
            (Test::Differs, None) => text != self.value,
            (Test::AtLeast, Some(order)) => order.is_ge(),
            (Test::AtMost, Some(order)) => order.is_le(),
            (Test::Above, Some(order)) => order.is_gt(),
            (Test::Below, Some(order)) => order.is_lt(),
            (Test::AtLeast | Test::AtMost | Test::Above | Test::Below, None) => false,
        }
    }

    /// How a number compares with the filter's value, if that is one: whole numbers by all of their digits, of which
    /// f64 has sixteen.
    fn compared(&self, number: f64, text: &str) -> Option<Ordering> {
        match (text.parse::<i128>(), self.value.parse::<i128>()) {
            (Ok(whole), Ok(value)) => Some(whole.cmp(&value)),
            _ => number.partial_cmp(&self.value.parse::<f64>().ok()?),
        }
    }

    /// Whether tags pass.
    fn passes(&self, tags: &[String]) -> bool {
        match self.test {
            Test::Contains => tags.iter().any(|tag| tag.contains(&self.value)),
            Test::Differs => !tags.contains(&self.value),
            _ => tags.contains(&self.value),
        }
    }
}

/// By which key runs are sorted; those without it come last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// A setting or metric.
    pub key: String,
    /// Largest first.
    pub descending: bool,
}

/// A run in a listing.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed {
    /// Its folder within the folder of runs.
    pub folder: String,
    /// `name` of its settings.
    pub name: String,
    /// `done`, `running`, `failed` or `stopped`.
    pub state: String,
    /// Epochs done.
    pub epoch: Option<u32>,
    /// Seconds of training.
    pub seconds: Option<f64>,
    /// Tags.
    pub tags: Vec<String>,
    /// Values of the keys that were asked for.
    pub values: Vec<Option<String>>,
}

/// A setting or metric of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The run's folder.
    pub run: String,
    /// Full name.
    pub key: String,
    /// A setting, or else a metric.
    pub setting: bool,
    /// Its value, if it is a number.
    pub number: Option<f64>,
    /// Its value as text.
    pub text: String,
}

/// Values of one key, by run.
type Column = HashMap<i64, (Option<f64>, String)>;

impl Store {
    /// The runs that pass all filters, with the values of `keys`. Without an order, oldest first.
    pub fn list(
        &self,
        filters: &[Filter],
        keys: &[String],
        order: Option<&Order>,
    ) -> Result<Vec<Listed>, RunError> {
        // One state of the index for all of its questions: another process may change it between them.
        let _one_state = self.failing(self.index.unchecked_transaction())?;
        let mut runs = self.failing(self.runs())?;
        for filter in filters.iter().filter(|filter| filter.key != TAG) {
            let column = self.column(&filter.key)?;
            runs.retain(|(id, _)| match column.get(id) {
                Some((number, text)) => filter.holds(*number, text),
                None => filter.test == Test::Differs,
            });
        }
        for filter in filters.iter().filter(|filter| filter.key == TAG) {
            runs.retain(|(_, run)| filter.passes(&run.tags));
        }
        if let Some(Order { key, descending }) = order {
            let column = self.column(key)?;
            runs.sort_by(|(a, _), (b, _)| {
                let (a, b) = (column.get(a), column.get(b));
                let Some(((a, a_text), (b, b_text))) = a.zip(b) else { return b.is_some().cmp(&a.is_some()) };
                let ordering = match a.zip(*b) {
                    Some((a, b)) => a.total_cmp(&b),
                    None => a_text.cmp(b_text),
                };
                if *descending { ordering.reverse() } else { ordering }
            });
        }
        for key in keys {
            let column = self.column(key)?;
            for (id, run) in &mut runs {
                run.values.push(column.get(id).map(|(_, text)| text.clone()));
            }
        }
        Ok(runs.into_iter().map(|(_, run)| run).collect())
    }

    /// All keys of settings (with `settings`) or metrics, sorted.
    pub fn keys(&self, settings: bool) -> Result<Vec<String>, RunError> {
        let keys = || {
            let mut select = self.index.prepare("SELECT key FROM name WHERE setting = ? ORDER BY key")?;
            let rows = select.query_map([settings], |row| row.get(0))?;
            rows.collect()
        };
        self.failing(keys())
    }

    /// Every setting (with `settings`) or metric of one run, by key.
    pub fn entries(&self, folder: &str, settings: bool) -> Result<Vec<(String, String)>, RunError> {
        let entries = || {
            let mut select = self.index.prepare(
                "SELECT name.key, entry.text FROM entry JOIN name ON name.id = entry.key JOIN run ON run.id = entry.run
                 WHERE run.folder = ? AND name.setting = ? ORDER BY name.key",
            )?;
            let rows = select
                .query_map(rusqlite::params![folder, settings], |row| Ok((row.get(0)?, row.get(1)?)))?;
            rows.collect()
        };
        self.failing(entries())
    }

    /// Every setting and metric of the runs in `folders`, run by run in the order of the index.
    pub fn everything(&self, folders: &HashSet<&str>) -> Result<Vec<Entry>, RunError> {
        let entries = || -> rusqlite::Result<Vec<Entry>> {
            let mut select = self.index.prepare(
                "SELECT run.folder, name.key, name.setting, entry.number, entry.text
                 FROM entry JOIN name ON name.id = entry.key JOIN run ON run.id = entry.run
                 ORDER BY run.folder, name.setting DESC, name.key",
            )?;
            let rows = select.query_map([], |row| {
                let (run, key) = (row.get(0)?, row.get(1)?);
                Ok(Entry { run, key, setting: row.get(2)?, number: row.get(3)?, text: row.get(4)? })
            })?;
            rows.filter(|row| row.as_ref().map_or(true, |entry| folders.contains(entry.run.as_str())))
                .collect()
        };
        self.failing(entries())
    }

    /// The folder of the run called `name`, or of the only one whose name has it as a part. A path is that of a run in
    /// this folder of runs.
    pub fn find(&self, name: &str) -> Result<String, RunError> {
        let name = self.within(name)?;
        let runs = self.failing(self.runs())?;
        let folders = || runs.iter().map(|(_, run)| run.folder.as_str());
        if folders().any(|folder| folder == name) {
            return Ok(name);
        }
        let mut having = folders().filter(|folder| folder.contains(&name));
        match (having.next(), having.next()) {
            (Some(one), None) => Ok(one.to_owned()),
            (None, _) => Err(self.no_run(&name)),
            (Some(first), Some(second)) => {
                let what = format!("{name} is part of several runs' names, such as {first} and {second}");
                Err(RunError::folder(&self.root, what))
            }
        }
    }

    /// As [`Self::find`], to change or remove the run. A part of its name will not do with `whole`, in a path, or where
    /// it looks like a whole name: the run that was meant may be gone, and another not be meant.
    pub fn find_to_change(&self, name: &str, whole: bool) -> Result<String, RunError> {
        let folder = self.find(name)?;
        let own = self.within(name)?;
        let named = name.trim_end_matches('/');
        if folder == own || !(whole || named.contains('/') || is_timed(&own)) {
            return Ok(folder);
        }
        let what = format!("no run {own}, which is only a part of {folder}; give the whole name");
        Err(RunError::folder(&self.root, what))
    }

    /// Whether this is the path of something else that lies in this folder of runs, as `runs/*` gives it.
    pub fn is_beside(&self, name: &str) -> bool {
        let beside = |own: String| {
            let path = self.root.join(own);
            path.exists() && !crate::runs::is_run(&path)
        };
        self.is_index(name) || (name.contains('/') && self.within(name).is_ok_and(beside))
    }

    /// Whether this is the index itself, or what SQLite keeps beside it while it writes.
    pub fn is_index(&self, name: &str) -> bool {
        self.within(name).is_ok_and(|own| {
            let rest = own.strip_prefix(super::INDEX);
            rest.is_some_and(|rest| ["", "-journal", "-wal", "-shm"].contains(&rest))
        })
    }

    /// The name within the folder of runs of what a user calls `name`.
    fn within(&self, name: &str) -> Result<String, RunError> {
        let named = name.trim_end_matches('/');
        if named.is_empty() {
            return Err(self.no_run(&format!("{name:?}")));
        }
        if !named.contains('/') {
            return Ok(named.to_owned());
        }
        let path = Path::new(named);
        let root = self.root.canonicalize().map_err(RunError::io(&self.root, "read"))?;
        let name_in_root = |path: &Path| {
            let folder = path.parent()?.canonicalize().ok()?;
            let name = path.file_name().filter(|_| folder == root)?;
            Some(name.to_string_lossy().into_owned())
        };
        // A run may be a link to elsewhere, and a link from elsewhere may lead to a run.
        let linked = || name_in_root(&path.canonicalize().ok()?);
        name_in_root(path).or_else(linked).ok_or_else(|| {
            let what = format!("{named} is no run in this folder; --runs names the folder of runs");
            RunError::folder(&self.root, what)
        })
    }

    fn no_run(&self, name: &str) -> RunError {
        RunError::folder(&self.root, format!("no run {name}; `nct runs ls` lists those there are"))
    }

    /// Adds and removes tags of a run, in its folder.
    pub fn tag(&mut self, folder: &str, add: &[String], remove: &[String]) -> Result<Vec<String>, RunError> {
        let path = self.root.join(folder);
        let lock = path.join(TAGS_LOCK);
        let held = OpenOptions::new().create(true).truncate(false).write(true).open(&lock);
        let held = held.map_err(RunError::io(&lock, "open"))?;
        // Where files cannot be locked, two processes that tag at once may lose a tag.
        let _ = held.lock();
        let mut tags: BTreeSet<String> = super::read::tags(&path).into_iter().collect();
        tags.extend(add.iter().cloned());
        tags.retain(|tag| !remove.contains(tag));
        let tags: Vec<String> = tags.into_iter().collect();
        let text = serde_json::to_string(&tags).expect("tags are texts");
        write_atomic(&path.join(TAGS), format!("{text}\n").as_bytes())?;
        drop(held);
        if let Err(e) = self.follow() {
            *self = Self::instead(&self.root, e)?;
        }
        Ok(tags)
    }

    fn runs(&self) -> rusqlite::Result<Vec<(i64, Listed)>> {
        let mut tags: HashMap<i64, Vec<String>> = HashMap::new();
        let mut select = self.index.prepare("SELECT run, tag FROM tag ORDER BY tag")?;
        for row in select.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))? {
            let (run, tag): (i64, String) = row?;
            tags.entry(run).or_default().push(tag);
        }
        let mut select =
            self.index.prepare("SELECT id, folder, name, state, epoch, seconds FROM run ORDER BY folder")?;
        let rows = select.query_map([], |row| {
            let id = row.get(0)?;
            let run = Listed {
                folder: row.get(1)?,
                name: row.get(2)?,
                state: row.get(3)?,
                epoch: row.get(4)?,
                seconds: row.get(5)?,
                tags: Vec::new(),
                values: Vec::new(),
            };
            Ok((id, run))
        })?;
        rows.map(|row| {
            row.map(|(id, run)| (id, Listed { tags: tags.remove(&id).unwrap_or_default(), ..run }))
        })
        .collect()
    }

    /// Values of a key: its full name, or the end of one that no other has.
    fn column(&self, key: &str) -> Result<Column, RunError> {
        if let Some(of_run) = self.failing(self.own(key))? {
            return Ok(of_run);
        }
        let names = || -> rusqlite::Result<Vec<(i64, String)>> {
            let mut select = self.index.prepare("SELECT id, key FROM name")?;
            let rows = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            rows.collect()
        };
        let names = self.failing(names())?;
        let end = format!(".{key}");
        let exact = names.iter().filter(|(_, name)| name == key);
        let ending = names.iter().filter(|(_, name)| name.ends_with(&end));
        let mut found: Vec<&(i64, String)> = exact.collect();
        if found.is_empty() {
            found = ending.collect();
        }
        let [(id, _)] = found[..] else { return Err(self.no_key(key, &found, &names)) };
        let column = || {
            let mut select = self.index.prepare("SELECT run, number, text FROM entry WHERE key = ?")?;
            let rows = select.query_map([id], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?))))?;
            rows.collect()
        };
        self.failing(column())
    }

    fn no_key(&self, key: &str, found: &[&(i64, String)], names: &[(i64, String)]) -> RunError {
        let mut ends: Vec<&str> = found.iter().map(|(_, name)| name.as_str()).collect();
        ends.sort_unstable();
        let near = names.iter().map(|(_, name)| (strsim::damerau_levenshtein(key, name), name)).min();
        let what = match (near, ends.len()) {
            (_, 2..) => format!("{key} could be {}; give more of its name", ends.join(", ")),
            (Some((distance, name)), _) if distance <= 1 + key.len() / 3 => {
                format!("no run has {key}; did you mean {name}?")
            }
            _ => format!("no run has {key}; `nct runs keys` lists all"),
        };
        RunError::folder(&self.root, what)
    }

    /// What a run has beside settings and metrics.
    fn own(&self, key: &str) -> rusqlite::Result<Option<Column>> {
        let known = ["folder", "state", "epoch", "seconds", TAG];
        if !known.contains(&key) {
            return Ok(None);
        }
        let of = |run: Listed| match key {
            "folder" => (None, run.folder),
            "state" => (None, run.state),
            "epoch" => (run.epoch.map(f64::from), run.epoch.unwrap_or(0).to_string()),
            "seconds" => (run.seconds, format!("{:?}", run.seconds.unwrap_or(0.0))),
            _ => (None, run.tags.join(" ")),
        };
        Ok(Some(self.runs()?.into_iter().map(|(id, run)| (id, of(run))).collect()))
    }

    pub(super) fn failing<T>(&self, result: rusqlite::Result<T>) -> Result<T, RunError> {
        result.map_err(|e| {
            let way_out = if super::is_damaged(&e) { "; `nct runs reindex` makes it anew" } else { "" };
            RunError::folder(&self.root.join(super::INDEX), format!("{e}{way_out}"))
        })
    }
}

/// Whether a name begins as whole ones do, with a time: `20261125-102101-`.
fn is_timed(name: &str) -> bool {
    let shape = |letter: u8| if letter.is_ascii_digit() { b'0' } else { letter };
    name.bytes().take(16).map(shape).eq(*b"00000000-000000-")
}
