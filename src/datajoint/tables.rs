//! The tables, declared as DataJoint declares them (spec/trainer 6.4).

use super::DatabaseError;
use mysql::Conn;
use mysql::prelude::Queryable;
use std::collections::BTreeMap;

/// Name of a table, its columns with types, its primary key, and its references: columns and table.
struct Declared {
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
    ("trainer_fn", "varchar(128) NOT NULL"),
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
const STATE: (&str, &str) = ("model_state", "binary(16) NOT NULL COMMENT ':attach@minio:'");

fn step() -> Vec<(&'static str, &'static str)> {
    let mut columns = vec![("transfer_step", "int NOT NULL")];
    columns.extend(OF_RUN);
    columns.extend([("collapsed_history", "varchar(64) NOT NULL"), ("data_transfer", "tinyint NOT NULL")]);
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
        references: vec![(vec![fabrikant], "fabrikant")],
    }
}

fn trained(name: &'static str, key: &[(&'static str, &'static str)]) -> Declared {
    let references = vec![
        (vec!["model_fn", "model_hash"], "model"),
        (vec!["dataset_fn", "dataset_hash"], "dataset"),
        (vec!["trainer_fn", "trainer_hash"], "trainer"),
        (vec!["seed"], "seed"),
        (vec!["fabrikant_name"], "fabrikant"),
    ];
    Declared { name, columns: [key, &RESULT].concat(), key: names(key), references }
}

fn storage(name: &'static str, key: &[(&'static str, &'static str)], of: &'static str) -> Declared {
    let references = vec![(names(key), of), (vec!["model_state"], "~external_minio")];
    Declared { name, columns: [key, &[STATE]].concat(), key: names(key), references }
}

/// In an order in which each refers to earlier ones only.
fn declared() -> Vec<Declared> {
    let step = step();
    let history = ("next_collapsed_history", "varchar(64) NOT NULL");
    vec![
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
            "varchar(128) NOT NULL",
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
            key: vec![history.0],
            references: vec![(names(&step), "__transferred_trained_model")],
        },
    ]
}

fn list(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

impl Declared {
    fn sql(&self, schema: &str, core: &str) -> String {
        let mut lines: Vec<String> =
            self.columns.iter().map(|(name, kind)| format!("`{name}` {kind}")).collect();
        lines.push(format!("PRIMARY KEY ({})", list(&self.key)));
        for (columns, table) in &self.references {
            let (of, other) = match *table {
                "fabrikant" => (core, "`fabrikant_name`".to_owned()),
                "~external_minio" => (schema, "`hash`".to_owned()),
                _ => (schema, list(columns)),
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

/// Makes the schemas and tables that are not there, and looks at those that are.
pub(super) fn make(conn: &mut Conn, schema: &str, core: &str) -> Result<(), DatabaseError> {
    for name in [core, schema] {
        conn.query_drop(format!("CREATE DATABASE IF NOT EXISTS `{name}`"))?;
    }
    conn.query_drop(format!(
        "CREATE TABLE IF NOT EXISTS `{core}`.`fabrikant` (
`fabrikant_name` varchar(32) NOT NULL,
`full_name` varchar(128) NOT NULL DEFAULT '',
`email` varchar(64) NOT NULL,
`affiliation` varchar(32) NOT NULL,
`dj_username` varchar(64) NOT NULL,
PRIMARY KEY (`fabrikant_name`)) ENGINE=InnoDB, COMMENT \"\""
    ))?;
    for table in declared() {
        conn.query_drop(table.sql(schema, core))?;
        check(conn, schema, &table)?;
    }
    Ok(())
}

/// A table that a lab has declared must have our columns, and ask for no others.
fn check(conn: &mut Conn, schema: &str, table: &Declared) -> Result<(), DatabaseError> {
    let columns: Vec<(String, String, Option<String>)> = conn.exec(
        "SELECT column_name, is_nullable, column_default FROM information_schema.columns
         WHERE table_schema = ? AND table_name = ?",
        (schema, table.name),
    )?;
    let there: BTreeMap<&str, bool> = columns
        .iter()
        .map(|(name, nullable, default)| (name.as_str(), nullable == "NO" && default.is_none()))
        .collect();
    let wrong = |what: String| DatabaseError::Table { table: format!("{schema}.{}", table.name), what };
    let ours = names(&table.columns);
    if let Some(lacks) = ours.iter().find(|name| !there.contains_key(**name)) {
        return Err(wrong(format!("has no column {lacks}; it is not the table that nnfabrik declares")));
    }
    match there.iter().find(|(name, required)| **required && !ours.contains(name)) {
        Some((name, _)) => Err(wrong(format!("asks for a column {name}, which runs do not have"))),
        None => Ok(()),
    }
}
