//! Shards behind URLs: on web servers and in S3, over connections that break.

use crate::common::{files, nct, output, shards, stderr, succeed};
use nct::base::rng::mix64;
use nct::shard::ShardSet;
use std::collections::HashSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

/// What a server does to an answer.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// Ends the connection without a word.
    Drop,
    /// Ends the connection within the body.
    Cut,
    /// Sends half, and says that it is all.
    Short,
    /// One wrong byte.
    Flip,
    Busy,
    /// All of the file, whatever was asked for.
    Whole,
    /// Not for this user.
    Denied,
}

type Faults = dyn Fn(usize, &str) -> Fault + Send + Sync;

/// A web server for a folder.
struct Server {
    url: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Serves `root`; `faults` is asked for each request, by number and path.
    fn start(root: &Path, faults: impl Fn(usize, &str) -> Fault + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (root, log, faults): (PathBuf, _, Arc<Faults>) =
            (root.to_path_buf(), Arc::clone(&requests), Arc::new(faults));
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let (root, log, faults) = (root.clone(), Arc::clone(&log), Arc::clone(&faults));
                // A client that is gone is no failure of the server.
                std::thread::spawn(move || drop(answer(&connection, &root, &log, &*faults)));
            }
        });
        Self { url, requests }
    }

    fn count(&self) -> usize {
        self.requests.lock().unwrap().len()
    }
}

fn answer(
    connection: &TcpStream,
    root: &Path,
    log: &Mutex<Vec<String>>,
    faults: &Faults,
) -> std::io::Result<()> {
    let mut lines = BufReader::new(connection).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    let mut range = None;
    for line in lines {
        let line = line?.to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(given) = line.strip_prefix("range: bytes=") {
            let (start, end) = given.split_once('-').unwrap();
            range = Some((start.parse::<usize>().unwrap(), end.parse::<usize>().unwrap() + 1));
        }
    }
    let name = request.split(' ').nth(1).unwrap_or_default().trim_start_matches('/').to_owned();
    let number = {
        let mut log = log.lock().unwrap();
        log.push(name.clone());
        log.len() - 1
    };
    let fault = faults(number, &name);
    let mut out = connection;
    if fault == Fault::Denied {
        return out.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    }
    let Ok(file) = fs::read(root.join(&name)) else {
        return out.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    };
    let (start, end) = range.filter(|_| fault != Fault::Whole).unwrap_or((0, file.len()));
    if start >= file.len() && !file.is_empty() {
        let head = "HTTP/1.1 416 Range Not Satisfiable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        return out.write_all(head.as_bytes());
    }
    let mut body = file[start..end.min(file.len())].to_vec();
    match fault {
        Fault::Drop => return connection.shutdown(Shutdown::Both),
        Fault::Busy => {
            let head = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            return out.write_all(head.as_bytes());
        }
        Fault::Short => body.truncate(body.len() / 2),
        Fault::Flip if !body.is_empty() => {
            let at = mix64(number as u64) as usize % body.len();
            body[at] ^= 0x10;
        }
        _ => {}
    }
    let status = match range {
        Some(_) if fault != Fault::Whole => {
            let last = start + body.len().max(1) - 1;
            format!("206 Partial Content\r\nContent-Range: bytes {start}-{last}/{}", file.len())
        }
        _ => "200 OK".to_owned(),
    };
    write!(out, "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len())?;
    if fault == Fault::Cut {
        out.write_all(&body[..body.len() / 2])?;
        out.flush()?;
        return connection.shutdown(Shutdown::Both);
    }
    out.write_all(&body)
}

/// Two answers of five are not as they should be.
fn often(number: usize) -> Fault {
    let faults = [Fault::Drop, Fault::Cut, Fault::Short, Fault::Flip, Fault::Busy, Fault::Cut];
    let draw = mix64(number as u64) % 15;
    faults.get(draw as usize).copied().unwrap_or(Fault::None)
}

fn is_a(name: &str, extension: &str) -> bool {
    Path::new(name).extension().is_some_and(|found| found == extension)
}

/// The same for all but manifests: nothing checks them, so they arrive or do not, and nobody waits long for them.
fn often_but_manifests(number: usize, name: &str) -> Fault {
    match often(number) {
        Fault::Flip | Fault::Short if is_a(name, "json") => Fault::Drop,
        _ if is_a(name, "json") => Fault::None,
        fault => fault,
    }
}

/// A command with a cache of its own in `dir`.
fn cached(dir: &Path, cache: &str) -> Command {
    let mut command = nct(dir);
    command.env("NCT_CACHE", dir.join(cache)).env_remove("NCT_CACHE_GB");
    command
}

#[test]
fn shards_of_a_web_server_are_read_whatever_its_connections_do() {
    let dir = shards();
    let server = Server::start(&dir.path().join("shards"), often_but_manifests);
    let said = succeed(cached(dir.path(), "cache").args(["verify", &server.url, "--deep"]));
    assert!(said.contains("all sound"), "{said}");
    let of = |place: &str| {
        let text = succeed(cached(dir.path(), "cache").args(["inspect", place, "--json"]));
        text.replace(place, "")
    };
    assert_eq!(of(&server.url), of("shards"));
    // Whatever byte of a header is wrong, also those that only the index shows to be.
    let met = Mutex::new(HashSet::new());
    let first = move |_, name: &str| {
        let new = met.lock().unwrap().insert(name.to_owned()) && is_a(name, "nct");
        if new { Fault::Flip } else { Fault::None }
    };
    let server = Server::start(&dir.path().join("shards"), first);
    for _ in 0..2 {
        let text = succeed(cached(dir.path(), "other").args(["inspect", &server.url, "--json"]));
        assert_eq!(text.replace(&server.url, ""), of("shards"));
    }
    // One data set, by its own URL.
    let one = format!("{}/mtl_monkey_dataset/", server.url);
    assert!(succeed(cached(dir.path(), "cache").args(["verify", &one])).contains("mtl_monkey_dataset"));
}

#[test]
fn all_damage_behind_a_url_is_told_and_what_is_sound_too() {
    let dir = shards();
    let root = dir.path().join("shards");
    fs::write(root.join("mtl_oracle_dataset/manifest.json"), "{").unwrap();
    let flips = |_, name: &str| {
        if name == "tiny-imagenet-200/train-00000.nct" { Fault::Flip } else { Fault::None }
    };
    let server = Server::start(&root, flips);
    let unsound = |place: &str| {
        let out = output(cached(dir.path(), "cache").args(["verify", place, "--json", "--quiet"]));
        let told = stderr(&out);
        assert_eq!(out.status.code(), Some(2), "{told}");
        let rows = String::from_utf8(out.stdout).unwrap();
        let rows = rows.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let (sound, unsound): (Vec<_>, Vec<_>) = rows.partition(|row| row["sound"] == true);
        let names = unsound.iter().map(|row| format!("{}/{}", row["dataset"], row["file"]).replace('"', ""));
        (sound.len(), names.collect::<Vec<_>>(), told)
    };
    let (sound, names, told) = unsound(&server.url);
    assert_eq!(names, ["mtl_oracle_dataset/manifest.json", "tiny-imagenet-200/train-00000.nct"]);
    assert!(sound > 10 && told.contains("and 1 of 4 manifests damaged [N202]"), "{sound}: {told}");
    let (sound, names, _) = unsound(&format!("{}/mtl_oracle_dataset", server.url));
    assert_eq!((sound, &names[..]), (0, &["mtl_oracle_dataset/manifest.json".to_owned()][..]));
}

#[test]
fn what_was_fetched_is_not_fetched_again() {
    let dir = shards();
    let server = Server::start(&dir.path().join("shards"), |_, _| Fault::None);
    let inspect = || succeed(cached(dir.path(), "cache").args(["inspect", &server.url]));
    let first = inspect();
    let asked = server.count();
    assert_eq!(inspect(), first);
    let again = server.requests.lock().unwrap()[asked..].to_vec();
    assert!(again.iter().all(|name| is_a(name, "json")), "{again:?}");
    // A piece that was damaged in the cache is fetched again.
    for (path, mut bytes) in files(&dir.path().join("cache")) {
        bytes[0] ^= 1;
        fs::write(dir.path().join("cache").join(path), bytes).unwrap();
    }
    assert_eq!(inspect(), first);
}

#[test]
fn a_copy_is_complete_and_checked_and_goes_on_where_it_was_stopped() {
    let dir = shards();
    let root = dir.path().join("shards");
    // The last file of the labelled set never arrives as it is.
    let last = |name: &str| {
        let manifest: serde_json::Value =
            serde_json::from_slice(&fs::read(root.join(name).join("manifest.json")).unwrap()).unwrap();
        manifest["shards"].as_array().unwrap().last().unwrap()["file"].as_str().unwrap().to_owned()
    };
    let broken = format!("tiny-imagenet-200/{}", last("tiny-imagenet-200"));
    let damaged = broken.clone();
    let server =
        Server::start(
            &root,
            move |number, name| {
                if name == damaged { Fault::Flip } else { often_but_manifests(number, name) }
            },
        );
    let out = output(cached(dir.path(), "cache").args(["fetch", &server.url, "--out", "copy"]));
    let said = stderr(&out);
    assert_eq!(out.status.code(), Some(2), "{said}");
    assert!(said.contains(&broken), "{said}");
    assert!(!dir.path().join("copy/tiny-imagenet-200").exists(), "nothing half copied");
    let kept: Vec<String> = files(&dir.path().join("copy"))
        .into_iter()
        .map(|(path, _)| path.display().to_string().replace(".fetching-", ""))
        .filter(|name| is_a(name, "nct"))
        .collect();
    let sound = Server::start(&root, often_but_manifests);
    succeed(cached(dir.path(), "cache").args(["fetch", &sound.url, "--out", "copy"]));
    assert!(files(&dir.path().join("copy")) == files(&root), "the copy differs");
    let asked = sound.requests.lock().unwrap().clone();
    assert!(!kept.is_empty() && kept.iter().all(|name| !asked.contains(name)), "{kept:?} in {asked:?}");
    let again = output(cached(dir.path(), "cache").args(["fetch", &sound.url, "--out", "copy"]));
    assert!(stderr(&again).contains("is there already"), "{}", stderr(&again));
    // Other data are not replaced.
    fs::remove_dir_all(dir.path().join("copy/tiny-imagenet-200")).unwrap();
    fs::rename(dir.path().join("copy/mtl_monkey_dataset"), dir.path().join("copy/tiny-imagenet-200"))
        .unwrap();
    let out = output(cached(dir.path(), "cache").args(["fetch", &sound.url, "--out", "copy"]));
    assert!(out.status.code() == Some(2) && stderr(&out).contains("holds other data"), "{}", stderr(&out));
}

#[test]
fn what_a_store_does_not_give_is_told_with_the_way_out() {
    let dir = shards();
    let root = dir.path().join("shards");
    let fails = |url: &str, words: &[&str]| {
        let out = output(cached(dir.path(), "cache").args(["inspect", url]));
        let said = stderr(&out);
        assert_eq!(out.status.code(), Some(2), "{said}");
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
        assert!(said.trim_end().lines().count() == 1, "{said}");
    };
    let empty = tempfile::tempdir().unwrap();
    let server = Server::start(empty.path(), |_, _| Fault::None);
    fails(&server.url, &["datasets.json", "nct prepare"]);
    fails("ftp://host/shards", &["s3://", "https://", "N205"]);
    fails("http://127.0.0.1:9/shards", &["http://127.0.0.1:9/shards/manifest.json", "N205"]);
    fails("file:///no/such/folder", &["no prepared data set"]);
    let server = Server::start(&root, |_, name| if is_a(name, "nct") { Fault::Whole } else { Fault::None });
    fails(&server.url, &["ranges", "N205"]);
    let server = Server::start(&root, |_, name| if is_a(name, "nct") { Fault::Short } else { Fault::None });
    fails(&server.url, &["got 0..64", "damaged", "N205"]);
    let server = Server::start(&root, |_, name| if is_a(name, "nct") { Fault::Flip } else { Fault::None });
    fails(&server.url, &["wrong checksum", "damaged", "N205"]);
    let out = output(cached(dir.path(), "cache").env("NCT_CACHE_GB", "much").args(["inspect", &server.url]));
    assert!(out.status.code() == Some(2) && stderr(&out).contains("NCT_CACHE_GB"), "{}", stderr(&out));
    fs::write(dir.path().join("file"), "").unwrap();
    let out = output(cached(dir.path(), "file").args(["inspect", &server.url]));
    assert!(out.status.code() == Some(2) && stderr(&out).contains("N206"), "{}", stderr(&out));
}

/// As S3 does to those who may read objects and not list them.
#[test]
fn a_store_that_denies_what_is_not_there_is_read_all_the_same() {
    let dir = shards();
    let root = dir.path().join("shards");
    let there = root.clone();
    let denies = move |_, name: &str| if there.join(name).is_file() { Fault::None } else { Fault::Denied };
    let server = Server::start(&root, denies);
    let said = succeed(cached(dir.path(), "cache").args(["verify", &server.url]));
    assert!(said.contains("all sound"), "{said}");
    // Without a list of data sets the first refusal is told.
    fs::remove_file(root.join("datasets.json")).unwrap();
    let out = output(cached(dir.path(), "cache").args(["inspect", &server.url]));
    let said = stderr(&out);
    assert!(out.status.code() == Some(2) && said.contains("N205"), "{said}");
    assert!(said.contains("manifest.json") && said.contains("credentials"), "{said}");
}

#[test]
fn names_in_a_strangers_manifest_lead_nowhere_else() {
    let dir = shards();
    let path = dir.path().join("shards/mtl_monkey_dataset/manifest.json");
    let text = fs::read_to_string(&path).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&text).unwrap();
    let server = Server::start(&dir.path().join("shards"), |_, _| Fault::None);
    let url = format!("{}/mtl_monkey_dataset", server.url);
    for place in ["/dataset", "/shards/0/file", "/shards/0/blake3"] {
        for name in ["..", "../copied", "/tmp", "a/b", ""] {
            let mut manifest = manifest.clone();
            *manifest.pointer_mut(place).unwrap() = name.into();
            fs::write(&path, manifest.to_string()).unwrap();
            let out = output(cached(dir.path(), "cache").args(["fetch", &url, "--out", "copy/of"]));
            assert_eq!(out.status.code(), Some(2), "{place} {name:?}");
            assert!(stderr(&out).contains("N202"), "{place} {name:?}: {}", stderr(&out));
            assert!(!dir.path().join("copy").exists(), "{place} {name:?}");
        }
    }
    fs::write(path, text).unwrap();
    succeed(cached(dir.path(), "cache").args(["fetch", &url, "--out", "copy/of"]));
    // Classes become folders of corrupted copies.
    let path = dir.path().join("shards/tiny-imagenet-200/manifest.json");
    let mut manifest: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let outside = dir.path().join("outside");
    for name in ["../../../outside", outside.to_str().unwrap()] {
        manifest["classes"][0]["id"] = name.into();
        fs::write(&path, manifest.to_string()).unwrap();
        let url = format!("{}/tiny-imagenet-200", server.url);
        let cells = ["--out", "corrupted", "--corruptions", "fog", "--severities", "1"];
        let out = output(cached(dir.path(), "cache").args(["corrupt", &url]).args(cells));
        assert!(out.status.code() == Some(2) && stderr(&out).contains("N202"), "{}", stderr(&out));
        assert!(!outside.exists() && !dir.path().join("corrupted").exists(), "{name}");
    }
}

/// A web server, or a colleague, reads what the mask lets them read.
#[cfg(unix)]
#[test]
fn shards_are_as_open_to_others_as_the_mask_says() {
    use std::os::unix::fs::PermissionsExt;
    let dir = shards();
    fs::write(dir.path().join("plain"), "").unwrap();
    fs::create_dir(dir.path().join("folder")).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
    for (path, _) in files(&dir.path().join("shards")) {
        let path = dir.path().join("shards").join(path);
        assert_eq!(mode(&path), mode(&dir.path().join("plain")), "{}", path.display());
    }
    for folder in ["raw", "shards/mtl_monkey_dataset"] {
        assert_eq!(mode(&dir.path().join(folder)), mode(&dir.path().join("folder")), "{folder}");
    }
}

#[test]
fn a_folder_by_its_url_holds_the_same() {
    let dir = shards();
    let folder = fs::canonicalize(dir.path().join("shards")).unwrap();
    let url = format!("file://{}", folder.display());
    let (far, near) = (ShardSet::open(Path::new(&url)).unwrap(), ShardSet::open(&folder).unwrap());
    assert_eq!(far.datasets().len(), near.datasets().len());
    for (far, near) in far.datasets().iter().zip(near.datasets()) {
        assert_eq!(far.manifest(), near.manifest());
    }
}

/// Training, for the rest of this file.
#[cfg(feature = "torch")]
mod training {
    use super::*;
    use crate::common::{SMALL, metrics, only_run};
    use std::io::Read;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::{Duration, Instant};

    fn size(folder: &Path) -> u64 {
        files(folder).iter().map(|(_, bytes)| bytes.len() as u64).sum()
    }

    /// Weights, metrics and results of a training with shards from `place`.
    fn learned(
        dir: &Path,
        place: &str,
        out: &str,
        more: &[(&str, &str)],
    ) -> (Vec<Vec<u8>>, Vec<serde_json::Value>) {
        fs::write(dir.join("small.toml"), SMALL).unwrap();
        let mut command = cached(dir, "cache");
        command.args(["train", "--device", "cpu", "--quiet", "--config", "small.toml", "--shards", place]);
        command.args(["--out", out]).envs(more.iter().copied());
        // Less memory than the images need: blocks come and go.
        succeed(command.args(["--set", "loader.cache_mb=0", "--set", "loader.threads=3"]));
        let run = only_run(dir, out);
        let weights =
            ["last", "best"].map(|name| fs::read(run.join(format!("checkpoints/{name}.safetensors"))));
        (weights.map(Result::unwrap).to_vec(), metrics(&run))
    }

    #[test]
    fn weights_are_those_of_local_shards_whatever_the_connections_do() {
        let dir = shards();
        let local = learned(dir.path(), "shards", "local", &[]);
        let server = Server::start(&dir.path().join("shards"), often_but_manifests);
        assert!(local == learned(dir.path(), &server.url, "far", &[]), "an empty cache");
        let asked = server.count();
        assert!(local == learned(dir.path(), &server.url, "again", &[]), "a full cache");
        let again = server.requests.lock().unwrap()[asked..].to_vec();
        assert!(again.iter().all(|name| is_a(name, "json")), "{again:?}");
        // A cache that holds next to nothing.
        let limit = [("NCT_CACHE_GB", "0.00003")];
        fs::remove_dir_all(dir.path().join("cache")).unwrap();
        assert!(local == learned(dir.path(), &server.url, "small", &limit), "a small cache");
        let kept = size(&dir.path().join("cache"));
        let largest = files(&dir.path().join("cache")).iter().map(|(_, bytes)| bytes.len() as u64).max();
        assert!(kept <= 30_000 + largest.unwrap_or(0), "{kept} bytes in the cache");
    }

    /// A process that ends with the test.
    struct Ends(std::process::Child);

    impl Drop for Ends {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    fn put(server: &str, path: &str, body: &[u8]) -> bool {
        let Ok(mut connection) = TcpStream::connect(server) else { return false };
        let head = format!(
            "PUT /{path} HTTP/1.1\r\nHost: {server}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        let sent = connection.write_all(head.as_bytes()).and_then(|()| connection.write_all(body));
        let mut answer = String::new();
        sent.is_ok()
            && connection.read_to_string(&mut answer).is_ok()
            && answer.split(' ').nth(1) == Some("200")
    }

    /// Relays connections to `server`; one of three ends after some thousand bytes of answers.
    fn unreliable(server: &str) -> (String, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, server) = (listener.local_addr().unwrap().to_string(), server.to_owned());
        let cut = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&cut);
        std::thread::spawn(move || {
            for (number, near) in listener.incoming().flatten().enumerate() {
                let far = TcpStream::connect(&server).unwrap();
                let (mut up, mut down) = (near.try_clone().unwrap(), far.try_clone().unwrap());
                let counted = Arc::clone(&counted);
                std::thread::spawn(move || {
                    let limit = match number % 3 {
                        // The first ends within its first answer.
                        0 => 200 + mix64(number as u64) % 30_000 * number.min(1) as u64,
                        _ => u64::MAX,
                    };
                    let sent = std::io::copy(&mut Read::by_ref(&mut down).take(limit), &mut up);
                    counted.fetch_add(usize::from(sent.is_ok_and(|sent| sent == limit)), Ordering::Relaxed);
                    let _ = (up.shutdown(Shutdown::Both), down.shutdown(Shutdown::Both));
                });
                let (mut near, mut far) = (near, far);
                std::thread::spawn(move || std::io::copy(&mut near, &mut far));
            }
        });
        (address, cut)
    }

    #[test]
    fn weights_are_those_of_local_shards_from_s3_too() {
        let python = std::env::var("NCT_PYTHON").unwrap_or_else(|_| "python3".to_owned());
        let there = Command::new(&python).args(["-c", "import moto.server, flask"]).output();
        if !there.is_ok_and(|out| out.status.success()) {
            eprintln!("skipped: {python} has no S3 server (pip install 'moto[server,s3]')");
            return;
        }
        let dir = shards();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let server = format!("127.0.0.1:{port}");
        let log = fs::File::create(dir.path().join("moto.log")).unwrap();
        let mut command = Command::new(&python);
        command.args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port.to_string()]);
        let _server = Ends(command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
        let deadline = Instant::now() + Duration::from_mins(5);
        while !put(&server, "lab", &[]) {
            assert!(
                Instant::now() < deadline,
                "{}",
                fs::read_to_string(dir.path().join("moto.log")).unwrap()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
        let root = dir.path().join("shards");
        for (path, bytes) in files(&root) {
            assert!(
                put(&server, &format!("lab/some/shards/{}", path.display()), &bytes),
                "{}",
                path.display()
            );
        }
        let (relay, cut) = unreliable(&server);
        let endpoint = format!("http://{relay}");
        let environment = [
            ("AWS_ENDPOINT_URL", endpoint.as_str()),
            ("AWS_ACCESS_KEY_ID", "key"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
            ("AWS_REGION", "us-east-1"),
        ];
        let url = "s3://lab/some/shards";
        let said = succeed(cached(dir.path(), "cache").args(["verify", url]).envs(environment));
        assert!(said.contains("all sound"), "{said}");
        let local = learned(dir.path(), "shards", "local", &[]);
        assert!(local == learned(dir.path(), url, "far", &environment));
        assert!(cut.load(Ordering::Relaxed) > 0, "connections did break");
        let out =
            output(cached(dir.path(), "cache").args(["inspect", "s3://nobodys/shards"]).envs(environment));
        assert_eq!(out.status.code(), Some(2), "{}", stderr(&out));
    }
}
