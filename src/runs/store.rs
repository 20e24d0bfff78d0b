//! An index of the runs in a folder, in one SQLite file beside them.
//!
//! The folders are the truth: the index holds nothing that they do not, follows them whenever it is opened, and may
//! be deleted at any time. Changes are transactions with SQLite's rollback journal, which survive a kill at any moment
//! and several writers, on network folders as far as those keep file locks. Where the folder cannot be written, an index
//! in memory is made each time.

mod query;
mod read;

pub use query::{Entry, Filter, Listed, Order};

use super::{RunError, State};
use read::{Changes, Found};
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Name of the index within the folder of runs.
pub const INDEX: &str = "index.sqlite";
/// Changes with the tables; an index of another version is made anew.
const VERSION: i64 = 2;
/// How long to wait for another writer.
const PATIENCE: Duration = Duration::from_secs(30);

const TABLES: &str = "
DROP TABLE IF EXISTS run;
DROP TABLE IF EXISTS name;
DROP TABLE IF EXISTS entry;
DROP TABLE IF EXISTS tag;
CREATE TABLE run(id INTEGER PRIMARY KEY, folder TEXT NOT NULL UNIQUE, name TEXT NOT NULL, state TEXT NOT NULL,
                 stamp INTEGER NOT NULL, epoch INTEGER, seconds REAL);
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
        let path = root.join(INDEX);
        let failed =
            |e: rusqlite::Error| RunError::folder(&path, format!("{e}; delete it: it is made again"));
        match Self::on_disk(root, &path) {
            Ok(store) => Ok(store),
            Err(e) if is_unwritable(&e) => {
                let index = Connection::open_in_memory().map_err(failed)?;
                let mut store = Self {
                    root: root.to_path_buf(),
                    index,
                    unwritable: Some(e.to_string()),
                    unreadable: Vec::new(),
                };
                store.follow().map_err(failed)?;
                Ok(store)
            }
            Err(e) if is_damaged(&e) => {
                fs::remove_file(&path).map_err(RunError::io(&path, "remove"))?;
                Self::on_disk(root, &path).map_err(failed)
            }
            Err(e) => Err(failed(e)),
        }
    }

    fn on_disk(root: &Path, path: &Path) -> rusqlite::Result<Self> {
        let index = Connection::open(path)?;
        index.busy_timeout(PATIENCE)?;
        let mut store = Self { root: root.to_path_buf(), index, unwritable: None, unreadable: Vec::new() };
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

    /// Makes the index anew; gives the number of runs.
    pub fn rebuild(&mut self) -> Result<usize, RunError> {
        let path = self.root.join(INDEX);
        let failed = |e: rusqlite::Error| RunError::folder(&path, e.to_string());
        self.index.execute_batch("PRAGMA user_version = 0").map_err(failed)?;
        self.follow().map_err(failed)?;
        let count = self.index.query_row("SELECT count(*) FROM run", [], |row| row.get::<_, i64>(0));
        Ok(count.map_err(failed)? as usize)
    }

    /// Takes in what has changed in the folders since the last time.
    fn follow(&mut self) -> rusqlite::Result<()> {
        let version: i64 = self.index.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        let known = if version == VERSION { known(&self.index)? } else { HashMap::new() };
        let Changes { found: changed, gone, unreadable } = read::changes(&self.root, &known);
        self.unreadable = unreadable;
        if version == VERSION && changed.is_empty() && gone.is_empty() {
            return Ok(());
        }
        let change = self.index.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // Another process may have made it meanwhile.
        let version: i64 = change.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        if version != VERSION {
            change.execute_batch(TABLES)?;
            change.pragma_update(None, "user_version", VERSION)?;
        }
        let mut names = names(&change)?;
        for folder in &gone {
            forget(&change, folder)?;
        }
        for found in &changed {
            forget(&change, &found.folder)?;
            insert(&change, found, &mut names)?;
        }
        change.commit()
    }
}

fn is_unwritable(e: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{CannotOpen, PermissionDenied, ReadOnly, SystemIoFailure};
    e.sqlite_error_code()
        .is_some_and(|code| [CannotOpen, PermissionDenied, ReadOnly, SystemIoFailure].contains(&code))
}

fn is_damaged(e: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    e.sqlite_error_code().is_some_and(|code| [DatabaseCorrupt, NotADatabase].contains(&code))
}

/// Stamps and states of the runs in the index, by folder.
fn known(index: &Connection) -> rusqlite::Result<HashMap<String, (i64, State)>> {
    let mut select = index.prepare("SELECT folder, stamp, state FROM run")?;
    let rows = select.query_map([], |row| {
        let state = State::parse(&row.get::<_, String>(2)?);
        Ok((row.get(0)?, (row.get(1)?, state)))
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
    let into = "INSERT INTO run(folder, name, state, stamp, epoch, seconds) VALUES (?, ?, ?, ?, ?, ?)";
    change.prepare_cached(into)?.execute(params![folder, name, state.as_str(), stamp, epoch, seconds])?;
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
