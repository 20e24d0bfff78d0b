//! Runs as rows of the tables that labs have in DataJoint (spec/trainer 6.4), so that their queries see them.
//!
//! Absent: reading run folders, and anything of DataJoint but what a reader of these tables needs.

mod blob;
mod tables;

pub use blob::blob;

use crate::config::Dictionaries;
use crate::model::ModelError;
use crate::model::weights::{Weights, pth};
use crate::runs::reference_hash;
use crate::train::network_weights;
use md5::{Digest, Md5};
use mysql::prelude::Queryable;
use mysql::{Conn, Opts, OptsBuilder, TxOpts, Value as Sql};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use tables::Schemas;

/// What keeps runs from a database.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// The address.
    #[error("{0}; expected mysql://USER@HOST:PORT/SCHEMA")]
    Address(String),
    /// The server's answer.
    #[error("database: {0}")]
    Server(#[from] mysql::Error),
    /// A table that is there and is not as DataJoint declares it.
    #[error("table {table}: {what}")]
    Table {
        /// The table.
        table: String,
        /// What is wrong.
        what: String,
    },
    /// Weights.
    #[error(transparent)]
    Weights(#[from] ModelError),
    /// A file of the store of attachments.
    #[error("{}: {source}", path.display())]
    Store {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
}

/// Where rows go.
#[derive(Debug, Clone)]
pub struct Target {
    /// `mysql://USER@HOST:PORT/SCHEMA`.
    pub address: String,
    /// Taken if the address has none.
    pub password: Option<String>,
    /// Schema of the table of people.
    pub core: String,
    /// The person whose rows these are.
    pub fabrikant: String,
    /// Folder of the store `minio` for attached weights, if it is a folder.
    pub store: Option<PathBuf>,
    /// Look and count only; nothing is written.
    pub dry_run: bool,
}

/// A finished run.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Its folder's name.
    pub folder: String,
    /// What the reference knows it by.
    pub dictionaries: Dictionaries,
    /// Its seed.
    pub seed: u64,
    /// Test accuracy in percent, or correlation.
    pub score: f64,
    /// All final scores.
    pub results: Value,
    /// Its best weights.
    pub weights: PathBuf,
}

/// Rows that were added.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Added {
    /// Runs whose row is new.
    pub runs: usize,
    /// Runs whose row was there.
    pub there: usize,
}

/// Puts runs into the tables, in one transaction: all of them or none. Tables that are not there are made as DataJoint
/// declares them, once those that are there have been found to fit; rows that are there are left alone.
pub fn export(target: &Target, runs: &[Finished]) -> Result<Added, DatabaseError> {
    let opts = Opts::from_url(&target.address).map_err(|e| DatabaseError::Address(e.to_string()))?;
    let Some(schema) = opts.get_db_name().filter(|name| plain(name)).map(str::to_owned) else {
        return Err(DatabaseError::Address(format!("{}: names no schema", opts.get_ip_or_hostname())));
    };
    if !plain(&target.core) {
        return Err(DatabaseError::Address(format!("{}: is no name of a schema", target.core)));
    }
    let user = opts.get_user().unwrap_or_default().to_owned();
    let password = opts.get_pass().map(str::to_owned).or_else(|| target.password.clone());
    // The schema may have to be made first.
    let mut conn = Conn::new(OptsBuilder::from_opts(opts).pass(password).db_name(None::<String>))?;
    let schemas = Schemas { lab: &schema, core: &target.core };
    let missing = tables::look(&mut conn, schemas)?;
    if target.dry_run {
        let any = !missing.iter().any(|table| table.is(TRAINED));
        return count(&mut conn, &schema, any, runs);
    }
    tables::make(&mut conn, schemas, &missing)?;
    conn.select_db(&schema)?;
    let mut rows = Rows { change: conn.start_transaction(TxOpts::default())?, schema, target };
    rows.insert(
        &format!("`{}`.`fabrikant`", target.core),
        &[("fabrikant_name", text(&target.fabrikant))],
        // DataJoint tells people by the user that is connected.
        &[("email", text("")), ("affiliation", text("")), ("dj_username", text(&user))],
    )?;
    let mut added = Added::default();
    for run in runs {
        if rows.run(run)? { added.runs += 1 } else { added.there += 1 }
    }
    rows.change.commit()?;
    Ok(added)
}

/// What an export would add; `any`: there may be rows.
fn count(conn: &mut Conn, schema: &str, any: bool, runs: &[Finished]) -> Result<Added, DatabaseError> {
    let mut added = Added::default();
    let mut keys = BTreeSet::new();
    for run in runs {
        let key = key(run);
        let fresh = keys.insert(json!(key).to_string());
        let table = format!("`{schema}`.`{TRAINED}`");
        if !fresh || any && there(conn, &table, &cells(&key))? {
            added.there += 1;
        } else {
            added.runs += 1;
        }
    }
    Ok(added)
}

/// Whether there is a row of these cells.
fn there(conn: &mut impl Queryable, table: &str, cells: &Cells<'_>) -> Result<bool, DatabaseError> {
    let conditions: Vec<String> = cells.iter().map(|(name, _)| format!("`{name}` = ?")).collect();
    let select = format!("SELECT 1 FROM {table} WHERE {}", conditions.join(" AND "));
    let values: Vec<Sql> = cells.iter().map(|(_, value)| value.clone()).collect();
    Ok(conn.exec_first::<u8, _, _>(select, values)?.is_some())
}

/// A run's key, in the order of the table's columns.
fn key(run: &Finished) -> Vec<(String, Value)> {
    let Dictionaries { dataset, model, trainer } = &run.dictionaries;
    let mut key = Vec::new();
    for (name, config) in [("model", model), ("dataset", dataset), ("trainer", trainer)] {
        key.push((format!("{name}_fn"), config["fn"].clone()));
        key.push((format!("{name}_hash"), json!(reference_hash(config))));
    }
    key.push(("seed".to_owned(), json!(run.seed)));
    key
}

fn plain(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn text(text: &str) -> Sql {
    Sql::from(text)
}

/// A change under way.
struct Rows<'a> {
    change: mysql::Transaction<'a>,
    schema: String,
    target: &'a Target,
}

const TRAINED: &str = "__trained_model";
const TRANSFERRED: &str = "__transferred_trained_model";

type Cells<'c> = [(&'c str, Sql)];

impl Rows<'_> {
    /// Adds a row, unless there is one of that key; says whether it is new.
    fn insert(&mut self, table: &str, key: &Cells<'_>, values: &Cells<'_>) -> Result<bool, DatabaseError> {
        if there(&mut self.change, table, key)? {
            return Ok(false);
        }
        let all = [key, values].concat();
        let names: Vec<String> = all.iter().map(|(name, _)| format!("`{name}`")).collect();
        let places = vec!["?"; all.len()].join(", ");
        let add = format!("INSERT INTO {table} ({}) VALUES ({places})", names.join(", "));
        self.change.exec_drop(add, all.into_iter().map(|(_, value)| value).collect::<Vec<_>>())?;
        Ok(true)
    }

    /// All rows of a run; whether its own is new.
    fn run(&mut self, run: &Finished) -> Result<bool, DatabaseError> {
        self.configurations(run)?;
        let key = key(run);
        let Dictionaries { dataset, model, trainer } = &run.dictionaries;
        let comments = [trainer, model, dataset].map(|config| config["comment"].as_str().unwrap_or_default());
        let output = Sql::Bytes(blob(&json!({"nct_run": run.folder, "results": run.results})));
        let values = [
            ("comment", text(&comments.join("."))),
            ("score", Sql::from(run.score)),
            ("output", output.clone()),
            ("fabrikant_name", text(&self.target.fabrikant)),
        ];
        let new = self.insert(&format!("`{TRAINED}`"), &cells(&key), &values)?;
        // The same run as the first step of a chain.
        let mut step = vec![("transfer_step".to_owned(), json!(0))];
        step.extend(key.clone());
        step.extend([("collapsed_history".to_owned(), json!("")), ("data_transfer".to_owned(), json!(0))]);
        self.insert(&format!("`{TRANSFERRED}`"), &cells(&step), &values)?;
        let next = reference_hash(&step.iter().cloned().collect::<serde_json::Map<_, _>>().into());
        self.insert(
            &format!("`{TRANSFERRED}__collapsed_history`"),
            &[&[("next_collapsed_history", text(&next))], &cells(&step)[..]].concat(),
            &[],
        )?;
        self.states(run, &[(TRAINED, &key), (TRANSFERRED, &step)], &output)?;
        Ok(new)
    }

    fn configurations(&mut self, run: &Finished) -> Result<(), DatabaseError> {
        let Dictionaries { dataset, model, trainer } = &run.dictionaries;
        for (name, config) in [("model", model), ("dataset", dataset), ("trainer", trainer)] {
            let names = ["fn", "hash", "config", "fabrikant", "comment"].map(|what| format!("{name}_{what}"));
            self.insert(
                &format!("`{name}`"),
                &[
                    (&names[0], text(config["fn"].as_str().unwrap_or_default())),
                    (&names[1], text(&reference_hash(config))),
                ],
                &[
                    (&names[2], Sql::Bytes(blob(config))),
                    (&names[3], text(&self.target.fabrikant)),
                    (&names[4], text(config["comment"].as_str().unwrap_or_default())),
                ],
            )?;
        }
        self.insert("`seed`", &[("seed", Sql::from(run.seed))], &[])?;
        Ok(())
    }

    /// Attaches weights to rows that have none, if the rows are of this run: a row of the lab's own training keeps to
    /// its own weights.
    fn states(
        &mut self,
        run: &Finished,
        rows: &[(&str, &[(String, Value)])],
        output: &Sql,
    ) -> Result<(), DatabaseError> {
        let Some(store) = self.target.store.as_deref() else { return Ok(()) };
        for (table, key) in rows {
            let part = format!("`{table}__model_storage`");
            let ours = [&cells(key)[..], &[("output", output.clone())]].concat();
            if there(&mut self.change, &part, &cells(key))?
                || !there(&mut self.change, &format!("`{table}`"), &ours)?
            {
                continue;
            }
            let state = self.attach(run, store, rows[0].1)?;
            self.insert(&part, &cells(key), &[("model_state", state)])?;
        }
        Ok(())
    }

    /// Copies a run's weights into the store, as DataJoint attaches files: the name of the file is a digest of its name
    /// and content. Gives the digest.
    fn attach(
        &mut self,
        run: &Finished,
        store: &Path,
        key: &[(String, Value)],
    ) -> Result<Sql, DatabaseError> {
        let failed = |path: &Path| {
            let path = path.to_path_buf();
            move |source| DatabaseError::Store { path, source }
        };
        let key: serde_json::Map<String, Value> = key.iter().cloned().collect();
        let name = format!("{}.pth.tar", reference_hash(&key.into()));
        let bytes = pth(&network_weights(&Weights::read(&run.weights)?))?;
        let mut digest = Md5::new();
        digest.update(format!("{name}\0"));
        digest.update(&bytes);
        let digest = digest.finalize().to_vec();
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let folder = store.join(&self.schema).join(&hex[..2]).join(&hex[2..4]);
        fs::create_dir_all(&folder).map_err(failed(&folder))?;
        let path = folder.join(format!("{hex}.{name}"));
        if !path.is_file() {
            let partial = path.with_extension("partial");
            fs::write(&partial, &bytes).and_then(|()| fs::rename(&partial, &path)).map_err(failed(&path))?;
        }
        self.insert(
            "`~external_minio`",
            &[("hash", Sql::Bytes(digest.clone()))],
            &[("size", Sql::from(bytes.len() as u64)), ("attachment_name", text(&name))],
        )?;
        Ok(Sql::Bytes(digest))
    }
}

fn cells(key: &[(String, Value)]) -> Vec<(&str, Sql)> {
    let sql = |value: &Value| value.as_str().map_or_else(|| Sql::from(value.as_u64().unwrap_or(0)), text);
    key.iter().map(|(name, value)| (name.as_str(), sql(value))).collect()
}
