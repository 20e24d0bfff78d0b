//! An index of the runs in a folder, in one SQLite file beside them.
//!
//! The folders are the truth: the index holds nothing that they do not, follows them whenever it is opened, and may
//! be deleted at any time. Changes are transactions with SQLite's rollback journal, which survive a kill at any moment
//! and several writers, on network folders as far as those keep file locks. Where the folder cannot be written, or its
//! disk is full, an index in memory is made each time.

mod corruptions;
mod query;
mod read;

pub use query::{Entry, Filter, Listed, Order};

use super::{RunError, State};
use corruptions::Weights;
use read::{Changes, Found, Known};
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Name of the index within the folder of runs.
pub const INDEX: &str = "index.sqlite";
/// Changes with the tables; an index of another version is made anew.
const VERSION: i64 = 3;
/// How long to wait for another writer.
const PATIENCE: Duration = Duration::from_secs(30);

const TABLES: &str = "
DROP TABLE IF EXISTS run;
DROP TABLE IF EXISTS name;
DROP TABLE IF EXISTS entry;
DROP TABLE IF EXISTS tag;
CREATE TABLE run(id INTEGER PRIMARY KEY, folder TEXT NOT NULL UNIQUE, name TEXT NOT NULL, state TEXT NOT NULL,
                 stamp INTEGER NOT NULL, epoch INTEGER, seconds REAL, weights_file TEXT, weights TEXT);
CREATE TABLE name(id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, setting INTEGER NOT NULL);
CREATE TABLE entry(key INTEGER NOT NULL, run INTEGER NOT NULL, number REAL, text TEXT NOT NULL,
                   PRIMARY KEY(key, run)) WITHOUT ROWID;
CREATE INDEX entry_of_run ON entry(run);
CREATE TABLE tag(tag TEXT NOT NULL, run INTEGER NOT NULL, PRIMARY KEY(tag, run)) WITHOUT ROWID;
";

/// The index of a folder of runs.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    index: Connection,
    /// Why the index is in memory only, if it is.
    unwritable: Option<String>,
    unreadable: Vec<String>,
}

impl Store {
    /// Opens the index of the runs in `root`, makes it where there is none, and brings it up to date.
    pub fn open(root: &Path) -> Result<Self, RunError> {
        if !root.is_dir() {
            return Err(RunError::folder(root, "is no folder of runs; `nct train --out` makes one"));
        }
        Self::on_disk(root).or_else(|e| Self::instead(root, e))
    }

    fn on_disk(root: &Path) -> rusqlite::Result<Self> {
        let index = Connection::open(root.join(INDEX))?;
        index.busy_timeout(PATIENCE)?;
        let mut store = Self { root: root.to_path_buf(), index, unwritable: None, unreadable: Vec::new() };
        store.follow()?;
        Ok(store)
    }

    /// An index instead of one that gave this error: a damaged one is made anew, and where none can be written it is
    /// in memory.
    fn instead(root: &Path, e: rusqlite::Error) -> Result<Self, RunError> {
        let path = root.join(INDEX);
        let failed =
            |e: rusqlite::Error| RunError::folder(&path, format!("{e}; delete it: it is made again"));
        let mut why = e;
        if is_damaged(&why) {
            match fs::remove_file(&path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Self::in_memory(root, format!("{why}; {e}")).map_err(failed);
                }
                _ => match Self::on_disk(root) {
                    Ok(store) => return Ok(store),
                    Err(e) => why = e,
                },
            }
        }
        if is_unwritable(&why) {
            Self::in_memory(root, why.to_string()).map_err(failed)
        } else {
            Err(failed(why))
        }
    }

    fn in_memory(root: &Path, why: String) -> rusqlite::Result<Self> {
        let index = Connection::open_in_memory()?;
        let root = root.to_path_buf();
        let mut store = Self { root, index, unwritable: Some(why), unreadable: Vec::new() };
        store.follow()?;
        Ok(store)
    }

    /// Why the index could not be written, if so: it was made in memory then.
    pub fn unwritable(&self) -> Option<&str> {
        self.unwritable.as_deref()
    }

    /// Folders that are not in the index because their settings cannot be read.
    pub fn unreadable(&self) -> &[String] {
        &self.unreadable
    }

    /// The folder of runs.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Makes the index anew, be it damaged; gives the number of runs.
    pub fn rebuild(&mut self) -> Result<usize, RunError> {
        if let Err(e) = self.anew() {
            *self = Self::instead(&self.root, e)?;
        }
        let count = self.index.query_row("SELECT count(*) FROM run", [], |row| row.get::<_, i64>(0));
        Ok(self.failing(count)? as usize)
    }

    fn anew(&mut self) -> rusqlite::Result<()> {
        self.index.execute_batch("PRAGMA user_version = 0")?;
        self.follow()
    }

    /// Takes in what has changed in the folders since the last time.
    fn follow(&mut self) -> rusqlite::Result<()> {
        while !self.look().and_then(|look| self.take_in(look))? {}
        Ok(())
    }

    /// What has changed in the folders since the index was made or last followed them.
    fn look(&self) -> rusqlite::Result<Look> {
        let current = is_current(&self.index)?;
        let known = if current { known(&self.index)? } else { HashMap::new() };
        Ok(Look { current, changes: read::changes(&self.root, &known) })
    }

    /// Takes in what a look has found; false if the index is not as it was then, so that it takes another look.
    fn take_in(&mut self, look: Look) -> rusqlite::Result<bool> {
        let Changes { found, gone, unreadable } = look.changes;
        self.unreadable = unreadable;
        if look.current && found.is_empty() && gone.is_empty() {
            return Ok(true);
        }
        let change = self.index.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if !is_current(&change)? {
            // Another process makes it anew: what is only a change to the old one would be all of the new one.
            if look.current {
                return Ok(false);
            }
            change.execute_batch(TABLES)?;
            change.pragma_update(None, "user_version", VERSION)?;
        }
        let mut names = names(&change)?;
        for folder in &gone {
            forget(&change, folder)?;
        }
        for found in &found {
            forget(&change, &found.folder)?;
            insert(&change, found, &mut names)?;
        }
        // Keys that no run has any more.
        change.execute(
            "DELETE FROM name WHERE NOT EXISTS (SELECT 1 FROM entry WHERE entry.key = name.id)",
            [],
        )?;
        change.commit()?;
        Ok(true)
    }
}

/// A look at the folders of runs, and at the index they are compared with.
struct Look {
    /// Whether the index was of this version, so that the changes are to what it holds; else they are all there is.
    current: bool,
    changes: Changes,
}

/// Whether the index has this version's tables.
fn is_current(index: &Connection) -> rusqlite::Result<bool> {
    index.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0)).map(|version| version == VERSION)
}

fn is_unwritable(e: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{CannotOpen, DiskFull, PermissionDenied, ReadOnly, SystemIoFailure};
    e.sqlite_error_code().is_some_and(|code| {
        [CannotOpen, DiskFull, PermissionDenied, ReadOnly, SystemIoFailure].contains(&code)
    })
}

fn is_damaged(e: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    e.sqlite_error_code().is_some_and(|code| [DatabaseCorrupt, NotADatabase].contains(&code))
}

/// What is known of the runs in the index, by folder.
fn known(index: &Connection) -> rusqlite::Result<HashMap<String, Known>> {
    let mut select = index.prepare("SELECT folder, stamp, state, weights_file, weights FROM run")?;
    let rows = select.query_map([], |row| {
        let (file, digest): (Option<String>, Option<String>) = (row.get(3)?, row.get(4)?);
        let weights = file.zip(digest).map(|(file, digest)| Weights { file, digest });
        let state = State::parse(&row.get::<_, String>(2)?);
        Ok((row.get(0)?, Known { stamp: row.get(1)?, state, weights }))
    })?;
    rows.collect()
}

fn names(change: &Transaction<'_>) -> rusqlite::Result<HashMap<String, i64>> {
    let mut select = change.prepare("SELECT key, id FROM name")?;
    let rows = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    rows.collect()
}

fn forget(change: &Transaction<'_>, folder: &str) -> rusqlite::Result<()> {
    let mut select = change.prepare_cached("SELECT id FROM run WHERE folder = ?")?;
    let id: Option<i64> = select.query_row([folder], |row| row.get(0)).optional()?;
    for delete in
        ["DELETE FROM entry WHERE run = ?", "DELETE FROM tag WHERE run = ?", "DELETE FROM run WHERE id = ?"]
    {
        if let Some(id) = id {
            change.prepare_cached(delete)?.execute([id])?;
        }
    }
    Ok(())
}

fn insert(change: &Transaction<'_>, found: &Found, names: &mut HashMap<String, i64>) -> rusqlite::Result<()> {
    let Found { folder, name, state, stamp, epoch, seconds, .. } = found;
    let (file, digest) = found.weights.as_ref().map(|known| (&known.file, &known.digest)).unzip();
    let into = "INSERT INTO run(folder, name, state, stamp, epoch, seconds, weights_file, weights)
                VALUES (?, ?, ?, ?, ?, ?, ?, ?)";
    let state = state.as_str();
    let values = params![folder, name, state, stamp, epoch, seconds, file, digest];
    change.prepare_cached(into)?.execute(values)?;
    let run = change.last_insert_rowid();
    for (key, setting, value) in &found.entries {
        let id = if let Some(id) = names.get(key) {
            *id
        } else {
            let mut insert = change.prepare_cached("INSERT INTO name(key, setting) VALUES (?, ?)")?;
            insert.execute(params![key, setting])?;
            let id = change.last_insert_rowid();
            names.insert(key.clone(), id);
            id
        };
        let mut insert = change
            .prepare_cached("INSERT OR REPLACE INTO entry(key, run, number, text) VALUES (?, ?, ?, ?)")?;
        insert.execute(params![id, run, value.number(), value.text()])?;
    }
    for tag in &found.tags {
        change
            .prepare_cached("INSERT OR IGNORE INTO tag(tag, run) VALUES (?, ?)")?
            .execute(params![tag, run])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runs::Run;
    use serde_json::json;

    #[test]
    fn changes_to_an_index_that_another_process_makes_anew_are_not_all_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let old = Run::create(dir.path(), "old", "seed = 3", &json!({})).unwrap().root().to_path_buf();
        fs::write(old.join("results.json"), "[]").unwrap();
        let long_ago = std::time::SystemTime::now() - Duration::from_mins(1);
        fs::File::open(&old).unwrap().set_modified(long_ago).unwrap();
        let mut store = Store::open(dir.path()).unwrap();
        Run::create(dir.path(), "new", "seed = 4", &json!({})).unwrap();
        let look = store.look().unwrap();
        let found: Vec<&str> = look.changes.found.iter().map(|found| found.name.as_str()).collect();
        assert!(found.len() == 1 && found[0].ends_with("new"), "only the new one is a change: {found:?}");
        let other = Store::open(dir.path()).unwrap();
        other.index.execute_batch("PRAGMA user_version = 0").unwrap();
        let all = |store: &Store| store.list(&[], &[], None).unwrap().len();
        assert!(!store.take_in(look).unwrap());
        assert_eq!(all(&other), 2, "nobody saw a part of it");
        store.follow().unwrap();
        assert_eq!(all(&store), 2);
    }

    #[test]
    fn an_index_that_can_no_longer_be_written_goes_on_in_memory() {
        let dir = tempfile::tempdir().unwrap();
        let root = Run::create(dir.path(), "a", "seed = 3", &json!({})).unwrap().root().to_path_buf();
        let folder = root.file_name().unwrap().to_str().unwrap();
        // What SQLite says on a full disk, and in a folder that is not to be written.
        let full = |store: &Store| {
            let pages: i64 = store.index.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
            store.index.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(())).unwrap();
        };
        let read_only = |store: &Store| store.index.execute_batch("PRAGMA query_only = 1").unwrap();
        let ways: [&dyn Fn(&Store); 2] = [&full, &read_only];
        for hinder in ways {
            let mut store = Store::open(dir.path()).unwrap();
            assert_eq!(store.unwritable(), None);
            hinder(&store);
            let many: Vec<String> = (0..2000).map(|i| format!("tag-{i}")).collect();
            assert_eq!(store.tag(folder, &many, &[]).unwrap().len(), many.len());
            assert!(store.unwritable().is_some());
            assert_eq!(store.list(&[], &[], None).unwrap()[0].tags.len(), many.len());
            assert_eq!(store.tag(folder, &[], &many).unwrap(), [""; 0]);
            assert_eq!(store.rebuild().unwrap(), 1);
        }
        let mut store = Store::open(dir.path()).unwrap();
        read_only(&store);
        assert_eq!(store.rebuild().unwrap(), 1);
        assert!(store.unwritable().is_some());
    }
}
