//! The tables, declared as DataJoint declares them (spec/trainer 6.4).

use super::DatabaseError;
use mysql::Conn;
use mysql::prelude::Queryable;
use std::collections::BTreeMap;

/// Schemas: the lab's, and the one of the table of people.
#[derive(Clone, Copy)]
pub(super) struct Schemas<'a> {
    pub(super) lab: &'a str,
    pub(super) core: &'a str,
}

/// Name of a table, its columns with types, its primary key, and its references: columns and table.
pub(super) struct Declared {
    name: &'static str,
    columns: Vec<(&'static str, &'static str)>,
    key: Vec<&'static str>,
    references: Vec<(Vec<&'static str>, &'static str)>,
}

const OF_RUN: [(&str, &str); 7] = [
    ("model_fn", "varchar(128) NOT NULL"),
    ("model_hash", "varchar(64) NOT NULL"),
    ("dataset_fn", "varchar(64) NOT NULL"),
    ("dataset_hash", "varchar(64) NOT NULL"),
    ("trainer_fn", "varchar(64) NOT NULL"),
    ("trainer_hash", "varchar(64) NOT NULL"),
    ("seed", "int NOT NULL"),
];
const RESULT: [(&str, &str); 5] = [
    ("comment", "varchar(768) NOT NULL DEFAULT ''"),
    ("score", "float NOT NULL"),
    ("output", "longblob NOT NULL"),
    ("fabrikant_name", "varchar(32) DEFAULT NULL"),
    ("trainedmodel_ts", "timestamp NOT NULL DEFAULT CURRENT_TIMESTAMP"),
];
const PEOPLE: &str = "fabrikant";
/// Older tables of people have no such column.
const FULL_NAME: &str = "full_name";
const STATE: (&str, &str) = ("model_state", "binary(16) NOT NULL COMMENT ':attach@minio:'");

fn step() -> Vec<(&'static str, &'static str)> {
    let mut columns = vec![("transfer_step", "int NOT NULL")];
    columns.extend(OF_RUN);
    columns.extend([("collapsed_history", "varchar(64) NOT NULL"), ("data_transfer", "bool NOT NULL")]);
    columns
}

fn names(columns: &[(&'static str, &'static str)]) -> Vec<&'static str> {
    columns.iter().map(|(name, _)| *name).collect()
}

/// Of a configuration, with `varchar(WIDE)` for the name of its function.
fn configuration(name: &'static str, columns: [&'static str; 6], wide: &'static str) -> Declared {
    let [function, hash, config, fabrikant, comment, time] = columns;
    Declared {
        name,
        columns: vec![
            (function, wide),
            (hash, "varchar(64) NOT NULL"),
            (config, "longblob NOT NULL"),
            (fabrikant, "varchar(32) NOT NULL"),
            (comment, "varchar(256) NOT NULL DEFAULT ''"),
            (time, "timestamp NOT NULL DEFAULT CURRENT_TIMESTAMP"),
        ],
        key: vec![function, hash],
        references: vec![(vec![fabrikant], PEOPLE)],
    }
}

fn trained(name: &'static str, key: &[(&'static str, &'static str)]) -> Declared {
    let references = vec![
        (vec!["model_fn", "model_hash"], "model"),
        (vec!["dataset_fn", "dataset_hash"], "dataset"),
        (vec!["trainer_fn", "trainer_hash"], "trainer"),
        (vec!["seed"], "seed"),
        (vec!["fabrikant_name"], PEOPLE),
    ];
    Declared { name, columns: [key, &RESULT].concat(), key: names(key), references }
}

fn storage(name: &'static str, key: &[(&'static str, &'static str)], of: &'static str) -> Declared {
    let references = vec![(names(key), of), (vec!["model_state"], "~external_minio")];
    Declared { name, columns: [key, &[STATE]].concat(), key: names(key), references }
}

fn people() -> Declared {
    Declared {
        name: PEOPLE,
        columns: vec![
            ("fabrikant_name", "varchar(32) NOT NULL"),
            (FULL_NAME, "varchar(128) NOT NULL DEFAULT ''"),
            ("email", "varchar(64) NOT NULL"),
            ("affiliation", "varchar(32) NOT NULL"),
            ("dj_username", "varchar(64) NOT NULL"),
        ],
        key: vec!["fabrikant_name"],
        references: Vec::new(),
    }
}

/// In an order in which each refers to earlier ones only.
fn declared() -> Vec<Declared> {
    let step = step();
    let history = ("next_collapsed_history", "varchar(64) NOT NULL");
    vec![
        people(),
        configuration(
            "dataset",
            [
                "dataset_fn",
                "dataset_hash",
                "dataset_config",
                "dataset_fabrikant",
                "dataset_comment",
                "dataset_ts",
            ],
            "varchar(64) NOT NULL",
        ),
        configuration(
            "model",
            ["model_fn", "model_hash", "model_config", "model_fabrikant", "model_comment", "model_ts"],
            "varchar(128) NOT NULL",
        ),
        configuration(
            "trainer",
            [
                "trainer_fn",
                "trainer_hash",
                "trainer_config",
                "trainer_fabrikant",
                "trainer_comment",
                "trainer_ts",
            ],
            "varchar(64) NOT NULL",
        ),
        Declared {
            name: "seed",
            columns: vec![("seed", "int NOT NULL")],
            key: vec!["seed"],
            references: Vec::new(),
        },
        Declared {
            name: "~external_minio",
            columns: vec![
                (
                    "hash",
                    "binary(16) NOT NULL COMMENT ':uuid:hash of contents (blob), of filename + contents (attach), or relative filepath (filepath)'",
                ),
                ("size", "bigint unsigned NOT NULL COMMENT 'size of object in bytes'"),
                ("attachment_name", "varchar(255) DEFAULT NULL COMMENT 'the filename of an attachment'"),
                ("filepath", "varchar(1000) DEFAULT NULL COMMENT 'relative filepath or attachment filename'"),
                ("contents_hash", "binary(16) DEFAULT NULL COMMENT ':uuid:used for the filepath datatype'"),
                ("timestamp", "timestamp NOT NULL DEFAULT CURRENT_TIMESTAMP COMMENT 'automatic timestamp'"),
            ],
            key: vec!["hash"],
            references: Vec::new(),
        },
        trained("__trained_model", &OF_RUN),
        storage("__trained_model__model_storage", &OF_RUN, "__trained_model"),
        trained("__transferred_trained_model", &step),
        storage("__transferred_trained_model__model_storage", &step, "__transferred_trained_model"),
        Declared {
            name: "__transferred_trained_model__collapsed_history",
            columns: [&[history], &step[..]].concat(),
            key: [&[history.0], &names(&step)[..]].concat(),
            references: vec![(names(&step), "__transferred_trained_model")],
        },
    ]
}

fn list(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

impl Declared {
    pub(super) fn is(&self, name: &str) -> bool {
        self.name == name
    }

    fn schema<'a>(&self, schemas: Schemas<'a>) -> &'a str {
        if self.name == PEOPLE { schemas.core } else { schemas.lab }
    }

    fn sql(&self, schemas: Schemas<'_>) -> String {
        let (schema, Schemas { lab, core }) = (self.schema(schemas), schemas);
        let mut lines: Vec<String> =
            self.columns.iter().map(|(name, kind)| format!("`{name}` {kind}")).collect();
        lines.push(format!("PRIMARY KEY ({})", list(&self.key)));
        for (columns, table) in &self.references {
            let (of, other) = match *table {
                PEOPLE => (core, "`fabrikant_name`".to_owned()),
                "~external_minio" => (lab, "`hash`".to_owned()),
                _ => (lab, list(columns)),
            };
            let update =
                if *table == "~external_minio" { "" } else { " ON UPDATE CASCADE ON DELETE RESTRICT" };
            lines.push(format!(
                "FOREIGN KEY ({}) REFERENCES `{of}`.`{table}` ({other}){update}",
                list(columns)
            ));
        }
        format!(
            "CREATE TABLE IF NOT EXISTS `{schema}`.`{}` (\n{}\n) ENGINE=InnoDB, COMMENT \"\"",
            self.name,
            lines.join(",\n")
        )
    }
}

/// Looks at the tables that are there; gives those that are not.
pub(super) fn look(conn: &mut Conn, schemas: Schemas<'_>) -> Result<Vec<Declared>, DatabaseError> {
    let mut missing = Vec::new();
    for table in declared() {
        let columns: Vec<(String, String, Option<String>)> = conn.exec(
            "SELECT column_name, is_nullable, column_default FROM information_schema.columns
             WHERE table_schema = ? AND table_name = ?",
            (table.schema(schemas), table.name),
        )?;
        if columns.is_empty() {
            missing.push(table);
        } else {
            check(&table, table.schema(schemas), &columns)?;
        }
    }
    Ok(missing)
}

/// Makes tables that are not there, and their schemas.
pub(super) fn make(conn: &mut Conn, schemas: Schemas<'_>, missing: &[Declared]) -> Result<(), DatabaseError> {
    for table in missing {
        let schema = table.schema(schemas);
        let there = "SELECT 1 FROM information_schema.schemata WHERE schema_name = ?";
        // Who may use a schema may not always make one.
        if conn.exec_first::<u8, _, _>(there, (schema,))?.is_none() {
            conn.query_drop(format!("CREATE DATABASE IF NOT EXISTS `{schema}`"))?;
        }
        conn.query_drop(table.sql(schemas))?;
    }
    Ok(())
}

/// A table that a lab has declared must have our columns, and ask for no others.
fn check(
    table: &Declared,
    schema: &str,
    columns: &[(String, String, Option<String>)],
) -> Result<(), DatabaseError> {
    let there: BTreeMap<&str, bool> = columns
        .iter()
        .map(|(name, nullable, default)| (name.as_str(), nullable == "NO" && default.is_none()))
        .collect();
    let wrong = |what: String| DatabaseError::Table { table: format!("{schema}.{}", table.name), what };
    let ours = names(&table.columns);
    let mut needed = ours.iter().filter(|name| **name != FULL_NAME);
    if let Some(lacks) = needed.find(|name| !there.contains_key(**name)) {
        return Err(wrong(format!("has no column {lacks}; it is not the table that nnfabrik declares")));
    }
    match there.iter().find(|(name, required)| **required && !ours.contains(name)) {
        Some((name, _)) => Err(wrong(format!("asks for a column {name}, which runs do not have"))),
        None => Ok(()),
    }
}
