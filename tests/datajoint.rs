//! Export to the tables of DataJoint, with a real server and, where it is there, DataJoint itself.

use crate::common::{nct, output, python, shards, stderr, succeed};
use nct::runs::reference_hash;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The kernel's asynchronous writes are few, and other processes may have them all.
const NO_AIO: &str = "--innodb-use-native-aio=OFF";

/// A private server in a folder of its own.
struct Server {
    process: Child,
    folder: tempfile::TempDir,
    port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Server {
    /// None where there is no MariaDB.
    fn start() -> Option<Self> {
        let there =
            |name: &str| Command::new(name).arg("--version").output().is_ok_and(|out| out.status.success());
        if !there("mariadbd") || !there("mariadb") {
            eprintln!("skipped: no MariaDB here");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let data = format!("--datadir={}", folder.path().join("data").display());
        let user = String::from_utf8(Command::new("id").arg("-un").output().unwrap().stdout).unwrap();
        let user = format!("--user={}", user.trim());
        let install = [
            "--no-defaults",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            NO_AIO,
            &user,
            &data,
        ];
        succeed(Command::new("mariadb-install-db").args(install));
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let process = Command::new("mariadbd")
            .args(["--no-defaults", NO_AIO, &user, &data, "--bind-address=127.0.0.1"])
            .arg(format!("--port={port}"))
            .arg(format!("--socket={}", folder.path().join("socket").display()))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self { process, folder, port };
        for _ in 0..300 {
            if server.query("SELECT 1").status.success() {
                for host in ["localhost", "127.0.0.1"] {
                    let make = format!(
                        "CREATE USER 'lab'@'{host}' IDENTIFIED BY 'secret'; GRANT ALL ON *.* TO 'lab'@'{host}'"
                    );
                    assert!(server.query(&make).status.success());
                }
                return Some(server);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("the server did not start");
    }

    fn query(&self, sql: &str) -> std::process::Output {
        let socket = format!("--socket={}", self.folder.path().join("socket").display());
        output(Command::new("mariadb").args(["--no-defaults", &socket, "-uroot", "-N", "-B", "-e", sql]))
    }

    fn rows(&self, sql: &str) -> Vec<String> {
        let out = self.query(sql);
        assert!(out.status.success(), "{}", stderr(&out));
        // Blobs are no text.
        String::from_utf8_lossy(&out.stdout).lines().map(str::to_owned).collect()
    }

    fn export(&self, dir: &Path, more: &[&str]) -> Command {
        let mut command = nct(dir);
        let address = format!("mysql://lab@127.0.0.1:{}/lab_schema", self.port);
        command.args(["runs", "export", "--datajoint", &address, "--fabrikant", "somebody"]).args(more);
        command.env("DJ_PASS", "secret");
        command
    }
}

const SMALL: &str = r#"
name = "small"
[data]
neural = "mtl_monkey_dataset"
batch_size = 12
neural_batch_size = 12
[mix]
kind = "mtl"
[model]
vgg_type = "bn 8 M 16 M"
v1_model_layer = 4
hidden = 16
[optimizer]
kind = "sgd"
lr = 0.01
[schedule]
scheduler = "none"
max_iter = 1
[sweep]
seed = [1, 2]
"#;

#[test]
fn runs_are_rows_that_the_lab_s_queries_see() {
    let Some(server) = Server::start() else { return };
    let dir = shards();
    fs::write(dir.path().join("small.toml"), SMALL).unwrap();
    succeed(nct(dir.path()).args(["run", "small.toml", "--device", "cpu", "--quiet"]));
    let dry = output(&mut server.export(dir.path(), &["--store", "store", "--dry-run"]));
    let told = stderr(&dry);
    assert!(told.contains("2 runs would be new") && told.contains("nothing was written"), "{told}");
    assert!(server.rows("SHOW DATABASES LIKE 'lab_schema'").is_empty() && !dir.path().join("store").exists());
    let told = output(&mut server.export(dir.path(), &["--store", "store"]));
    assert!(told.status.success() && stderr(&told).contains("2 runs are new"), "{}", stderr(&told));
    // The same hashes as of the dictionaries, which are those of the reference.
    let recipe = ["config", "reference", "small.toml", "--set", "seed=1"];
    let reference: Value = serde_json::from_str(&succeed(nct(dir.path()).args(recipe))).unwrap();
    let hash = |part: &str| reference[part]["hash"].as_str().unwrap().to_owned();
    let keys = "SELECT model_fn, model_hash, dataset_hash, trainer_hash, seed FROM lab_schema.__trained_model ORDER BY seed";
    let expected: Vec<String> = [1, 2]
        .map(|seed| {
            let (model, dataset, trainer) = (hash("model"), hash("dataset"), hash("trainer"));
            format!("neural_cotraining.models.mtl_builder\t{model}\t{dataset}\t{trainer}\t{seed}")
        })
        .to_vec();
    assert_eq!(server.rows(keys), expected);
    let steps =
        "SELECT transfer_step, collapsed_history, data_transfer FROM lab_schema.__transferred_trained_model";
    assert_eq!(server.rows(steps), ["0\t\t0", "0\t\t0"]);
    assert_eq!(server.rows("SELECT fabrikant_name FROM nnfabrik_core.fabrikant"), ["somebody"]);
    // nnfabrik's joins need the whole row as the key of the history.
    let history = "SELECT COUNT(*) FROM information_schema.key_column_usage WHERE table_schema = 'lab_schema'
        AND table_name = '__transferred_trained_model__collapsed_history' AND constraint_name = 'PRIMARY'";
    assert_eq!(server.rows(history), ["11"]);
    // Again: nothing new, nothing changed.
    let dump = || {
        let tables = server.rows("SHOW TABLES IN lab_schema");
        let rows = |table: &String| server.rows(&format!("SELECT * FROM lab_schema.`{table}`"));
        tables.iter().map(|table| (table.clone(), rows(table))).collect::<Vec<_>>()
    };
    let before = dump();
    assert!(before.iter().all(|(_, rows)| !rows.is_empty()), "a table is empty");
    let again = output(&mut server.export(dir.path(), &["--store", "store"]));
    assert!(stderr(&again).contains("0 runs are new in the tables, 2 were there"), "{}", stderr(&again));
    assert!(dump() == before);
    let dry = output(&mut server.export(dir.path(), &["--dry-run"]));
    assert!(stderr(&dry).contains("0 runs would be new in the tables, 2 were there"), "{}", stderr(&dry));
    // As DataJoint reads it.
    let (port, store) = (server.port.to_string(), dir.path().join("store"));
    let args = ["127.0.0.1", &port, "lab", "secret", "lab_schema", store.to_str().unwrap()];
    let Some(out) = python("read_datajoint.py", "datajoint", &args) else { return };
    let rows: Vec<Value> = String::from_utf8(out.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(rows.len(), 2);
    for row in &rows {
        for part in ["dataset", "model", "trainer"] {
            assert_eq!(row[format!("{part}_config")], reference[part]["config"], "{part}");
            assert_eq!(row[format!("{part}_hash")], reference_hash(&row[format!("{part}_config")]));
        }
        assert!(row["output"]["results"].as_array().unwrap().len() > 3);
        assert_eq!(row["comment"], "small..");
        assert!(row["state_bytes"].as_u64().unwrap() > 1000);
        assert!(row["state_name"].as_str().unwrap().ends_with(".pth.tar"));
    }
}

#[test]
fn rows_of_the_lab_s_own_training_keep_to_their_weights() {
    let Some(server) = Server::start() else { return };
    let dir = shards();
    fs::write(dir.path().join("small.toml"), SMALL).unwrap();
    succeed(nct(dir.path()).args(["run", "small.toml", "--device", "cpu", "--quiet"]));
    // Without a store first: with one, the weights come in later.
    let first = output(&mut server.export(dir.path(), &[]));
    assert!(stderr(&first).contains("without --store"), "{}", stderr(&first));
    let states = "SELECT seed FROM lab_schema.__trained_model__model_storage";
    assert!(server.rows(states).is_empty());
    server.rows("UPDATE lab_schema.__trained_model SET output = 'theirs' WHERE seed = 2");
    server.rows("UPDATE lab_schema.__transferred_trained_model SET output = 'theirs' WHERE seed = 2");
    assert!(output(&mut server.export(dir.path(), &["--store", "store"])).status.success());
    assert_eq!(server.rows(states), ["1"]);
    assert_eq!(server.rows("SELECT COUNT(*) FROM lab_schema.`~external_minio`"), ["1"]);
    assert_eq!(crate::common::files(&dir.path().join("store")).len(), 1);
    // A run without a score of test data is no row, and is told.
    let runs = dir.path().join("runs");
    let run =
        fs::read_dir(&runs).unwrap().map(|e| e.unwrap().path()).find(|p| p.join("results.json").is_file());
    fs::write(run.unwrap().join("results.json"), "[]").unwrap();
    let left = output(&mut server.export(dir.path(), &["--dry-run"]));
    let told = stderr(&left);
    assert!(told.contains("no score of test data") && told.contains("1 were there"), "{told}");
}

#[test]
fn what_the_server_refuses_is_told_and_nothing_is_written() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("runs")).unwrap();
    let export = |address: &str| {
        let args = ["runs", "export", "--fabrikant", "x", "--datajoint", address];
        let out = output(nct(dir.path()).args(args));
        assert_eq!(out.status.code(), Some(2), "{address}: {}", stderr(&out));
        stderr(&out)
    };
    assert!(export("nonsense").contains("mysql://USER@HOST:PORT/SCHEMA"));
    assert!(export("mysql://a@127.0.0.1:1").contains("names no schema"));
    assert!(export("mysql://a@127.0.0.1:1/lab").contains("[N751]"));
    let Some(server) = Server::start() else { return };
    // A table of the lab's that is not what it should be.
    assert!(
        server.query("CREATE DATABASE lab_schema; CREATE TABLE lab_schema.dataset (x int)").status.success()
    );
    let refused = output(&mut server.export(dir.path(), &[]));
    assert_eq!(refused.status.code(), Some(2), "{}", stderr(&refused));
    let told = stderr(&refused);
    assert!(told.contains("lab_schema.dataset") && told.contains("has no column dataset_fn"), "{told}");
    // Nothing was made beside it.
    assert_eq!(server.rows("SHOW TABLES IN lab_schema"), ["dataset"]);
    assert!(server.rows("SHOW DATABASES LIKE 'nnfabrik_core'").is_empty());
    // An older table of people will do.
    server.rows(
        "DROP TABLE lab_schema.dataset; CREATE DATABASE nnfabrik_core; CREATE TABLE nnfabrik_core.fabrikant (
         fabrikant_name varchar(32) PRIMARY KEY, email varchar(64) NOT NULL, affiliation varchar(32) NOT NULL,
         dj_username varchar(64) NOT NULL)",
    );
    // Who may use the schemas need not be allowed to make any.
    for schema in ["lab_schema", "nnfabrik_core"] {
        server.rows(&format!("GRANT ALL ON {schema}.* TO 'few'@'127.0.0.1' IDENTIFIED BY 'secret'"));
    }
    server.rows("REVOKE CREATE ON nnfabrik_core.* FROM 'few'@'127.0.0.1'");
    let address = format!("mysql://few@127.0.0.1:{}/lab_schema", server.port);
    let mut export = nct(dir.path());
    export.args(["runs", "export", "--datajoint", &address, "--fabrikant", "few"]).env("DJ_PASS", "secret");
    let done = output(&mut export);
    assert!(done.status.success(), "{}", stderr(&done));
    assert_eq!(server.rows("SELECT fabrikant_name, dj_username FROM nnfabrik_core.fabrikant"), ["few\tfew"]);
    let wrong = output(server.export(dir.path(), &[]).env("DJ_PASS", "guess"));
    assert!(stderr(&wrong).contains("Access denied"), "{}", stderr(&wrong));
}
