//! From raw folders to shards.

use crate::common::{files, inspect, nct, python, raw, smooth_images, stderr, succeed};
use nct::base::{Split, Task};
use nct::load::{Source, View};
use nct::shard::ShardSet;
use serde_json::Value;
use std::fs;
use std::path::Path;

fn samples(rows: &[Value], dataset: &str, split: &str) -> u64 {
    let row = rows.iter().find(|r| r["dataset"] == dataset && r["split"] == split).unwrap();
    row["samples"].as_u64().unwrap()
}

#[test]
fn counts_equal_what_the_raw_folders_hold() {
    let dir = raw();
    let table = crate::common::output(nct(dir.path()).args(["prepare", "raw"]));
    assert!(table.status.success());
    assert!(stderr(&table).contains("tiny-imagenet-200") && stderr(&table).contains("images/s"));
    let rows = inspect(dir.path());
    let count = |part: &str, end: &str| {
        let all = files(&dir.path().join("raw").join(part));
        all.iter().filter(|(name, _)| name.to_string_lossy().ends_with(end)).count() as u64
    };
    let train = count("tiny-imagenet-200/train", ".JPEG");
    let split = ["train", "validation"].map(|s| samples(&rows, "tiny-imagenet-200", s));
    assert_eq!(split, [train - train / 10, train / 10]);
    assert_eq!(samples(&rows, "tiny-imagenet-200", "test"), count("tiny-imagenet-200/val", ".JPEG"));
    assert_eq!(rows[9]["classes"], 3);
    for name in ["mtl_monkey_dataset", "mtl_oracle_dataset", "mtl_shuffled_dataset"] {
        let sessions = count(&format!("{name}/neuronal_data"), ".pickle");
        let images = count(&format!("{name}/images"), ".npy");
        let row = rows.iter().find(|r| r["dataset"] == name && r["split"] == "train").unwrap();
        assert_eq!(row["sessions"].as_array().unwrap().len() as u64, sessions);
        assert_eq!(row["sessions"][0]["neurons"], 5);
        // A tenth of the images is tested on, four times each; the rest is divided.
        let used = ["train", "validation"].map(|s| samples(&rows, name, s)).iter().sum::<u64>();
        assert_eq!(used, sessions * (images - images / 10));
        assert_eq!(samples(&rows, name, "test"), sessions * images / 10 * 4);
    }
}

#[test]
fn the_same_input_gives_the_same_bytes_whatever_the_threads() {
    let dir = raw();
    smooth_images(&dir.path().join("raw/tiny-imagenet-200"));
    for (out, jobs) in [("one", "1"), ("two", "2"), ("five", "5")] {
        succeed(nct(dir.path()).args(["prepare", "raw", "--out", out, "--jobs", jobs]));
    }
    let one = files(&dir.path().join("one"));
    assert!(one.len() > 20);
    for other in ["two", "five"] {
        assert!(one == files(&dir.path().join(other)), "{other} threads gave other bytes");
    }
}

#[test]
fn sample_data_are_a_function_of_their_options() {
    let (one, two) = (raw(), raw());
    assert!(files(one.path()) == files(two.path()));
}

#[test]
fn a_second_prepare_changes_nothing_and_refuses_to_mix() {
    let dir = raw();
    succeed(nct(dir.path()).args(["prepare", "raw"]));
    let before = files(&dir.path().join("shards"));
    succeed(nct(dir.path()).args(["prepare", "raw"]));
    let refused = crate::common::output(nct(dir.path()).args(["prepare", "raw", "--color", "gray"]));
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).contains("--force"), "{}", stderr(&refused));
    assert!(before == files(&dir.path().join("shards")));
    succeed(nct(dir.path()).args(["prepare", "raw", "--color", "gray", "--force"]));
    assert!(before != files(&dir.path().join("shards")));
    succeed(nct(dir.path()).args(["verify"]));
}

#[test]
fn one_data_set_may_be_named_by_its_path_or_with_only() {
    let dir = raw();
    succeed(nct(dir.path()).args(["prepare", "raw/mtl_monkey_dataset"]));
    succeed(nct(dir.path()).args(["prepare", "raw", "--only", "tiny-imagenet-200"]));
    assert_eq!(inspect(dir.path()).len(), 6);
    let missing = crate::common::output(nct(dir.path()).args(["prepare", "raw", "--only", "imagenet"]));
    assert_eq!(missing.status.code(), Some(2));
    assert!(stderr(&missing).contains("mtl_oracle_dataset"));
}

#[test]
fn half_precision_is_stated_and_close() {
    let dir = raw();
    let read = |out: &str| {
        let set = ShardSet::open(&dir.path().join(out)).unwrap();
        let view = View::new(vec![0.5], vec![0.2]);
        let dataset = set.dataset("mtl_monkey_dataset").unwrap();
        let sources = Source::sessions(dataset, Task::V1, Split::Train, &view, None).unwrap();
        crate::loader::responses(sources)
    };
    let told =
        crate::common::output(nct(dir.path()).args(["prepare", "raw", "--out", "f16", "--responses", "f16"]));
    assert!(stderr(&told).contains("rounded to f16, by at most"), "{}", stderr(&told));
    succeed(nct(dir.path()).args(["prepare", "raw", "--out", "f32"]));
    let (exact, rounded) = (read("f32"), read("f16"));
    assert!(exact != rounded && exact.len() == rounded.len());
    assert!(exact.iter().zip(&rounded).all(|(a, b)| (a - b).abs() <= a.abs() * 2f32.powi(-11) + 1e-7));
}

#[test]
fn a_contact_sheet_is_a_picture() {
    let dir = crate::common::shards();
    succeed(nct(dir.path()).args(["inspect", "--contact-sheet", "sheet.png"]));
    let file = fs::read(dir.path().join("sheet.png")).unwrap();
    let mut reader = png::Decoder::new(std::io::Cursor::new(file)).read_info().unwrap();
    assert_eq!((reader.info().width, reader.info().height), (16 * 64, 4 * (10 + 2 * (10 + 2 * 64 + 2))));
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    reader.next_frame(&mut pixels).unwrap();
    assert!(pixels.iter().any(|&p| p < 100) && pixels.iter().any(|&p| p > 150));
}

#[test]
fn an_interruption_leaves_nothing_half_written_and_is_continued() {
    let dir = tempfile::tempdir().unwrap();
    let sizes = "--classes 10 --per-class 400 --neural-images 20";
    succeed(nct(dir.path()).arg("synth").arg("raw").args(sizes.split(' ')));
    let prepare = |out: &str| {
        let mut command = nct(dir.path());
        command.args(["prepare", "raw/tiny-imagenet-200", "--level", "19", "--shard-mb", "2", "--quiet"]);
        command.args(["--out", out]);
        command
    };
    let mut child = prepare("shards").spawn().unwrap();
    let staging = dir.path().join("shards/.preparing-tiny-imagenet-200");
    while !staging.join("train-00001.nct.done").exists() {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    succeed(std::process::Command::new("kill").args(["-INT", &child.id().to_string()]));
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(!dir.path().join("shards/tiny-imagenet-200").exists(), "a half-written data set is visible");
    let refused = crate::common::output(nct(dir.path()).arg("inspect"));
    assert_eq!(refused.status.code(), Some(2), "an unfinished data set was opened");
    let plan = succeed(prepare("shards").arg("--dry-run"));
    assert!(plan.contains("continued"), "{plan}");
    let first = fs::metadata(staging.join("train-00000.nct")).unwrap().modified().unwrap();
    succeed(&mut prepare("shards"));
    let shard = dir.path().join("shards/tiny-imagenet-200/train-00000.nct");
    assert_eq!(fs::metadata(shard).unwrap().modified().unwrap(), first, "a finished shard was made again");
    succeed(&mut prepare("undisturbed"));
    assert!(files(&dir.path().join("shards")) == files(&dir.path().join("undisturbed")));
    succeed(nct(dir.path()).args(["verify", "--deep"]));
}

#[test]
fn a_file_that_changed_after_a_kill_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let sizes = "--classes 10 --per-class 400 --neural-images 20";
    succeed(nct(dir.path()).arg("synth").arg("raw").args(sizes.split(' ')));
    let prepare = |out: &str| {
        let mut command = nct(dir.path());
        command.args(["prepare", "raw/tiny-imagenet-200", "--level", "19", "--shard-mb", "2", "--quiet"]);
        command.args(["--out", out]);
        command
    };
    let staging = dir.path().join("shards/.preparing-tiny-imagenet-200");
    let mut child = prepare("shards").spawn().unwrap();
    while !(0..2).all(|i| staging.join(format!("train-0000{i}.nct.done")).exists()) {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    child.kill().unwrap();
    assert!(!child.wait().unwrap().success());
    let written = |folder: &Path, i: u32| {
        fs::metadata(folder.join(format!("train-0000{i}.nct"))).unwrap().modified().unwrap()
    };
    let before = [0, 1].map(|i| written(&staging, i));
    // Most files of the first class are in the first shard; those of the last class are in none so far.
    let train = dir.path().join("raw/tiny-imagenet-200/train");
    let jpeg = |name: &Path| name.extension().is_some_and(|e| e == "JPEG");
    let jpegs: Vec<_> = files(&train).into_iter().filter(|(name, _)| jpeg(name)).collect();
    let class = |file: &Path| file.components().next().unwrap().as_os_str().to_owned();
    let (first, last) = (class(&jpegs[0].0), class(&jpegs[jpegs.len() - 1].0));
    let other = &jpegs.iter().rfind(|(name, bytes)| class(name) == last && *bytes != jpegs[0].1).unwrap().1;
    for (name, bytes) in jpegs.iter().filter(|(name, _)| class(name) == first).take(5) {
        // Trailing bytes make sure that the length differs; decoders do not look at them.
        let longer = [&other[..], &vec![0; bytes.len() + 1]].concat();
        fs::write(train.join(name), longer).unwrap();
    }
    succeed(&mut prepare("shards"));
    let shards = dir.path().join("shards/tiny-imagenet-200");
    assert_ne!(written(&shards, 0), before[0], "a shard of files that changed was taken");
    assert_eq!(written(&shards, 1), before[1], "a shard of files that did not change was made again");
    succeed(&mut prepare("undisturbed"));
    assert!(files(&dir.path().join("shards")) == files(&dir.path().join("undisturbed")));
    // Without a kill in between it is noticed too.
    fs::write(train.join(&jpegs[0].0), other).unwrap();
    let refused = crate::common::output(&mut prepare("shards"));
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).contains("from other files"), "{}", stderr(&refused));
}

#[test]
fn killed_at_any_moment_and_continued_gives_the_same_bytes() {
    // `NCT_KILLS=200 cargo test killed_at_any_moment` for a long run.
    let kills: u64 = std::env::var("NCT_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(8);
    let dir = tempfile::tempdir().unwrap();
    let sizes = "--classes 5 --per-class 200 --neural-images 60";
    succeed(nct(dir.path()).arg("synth").arg("raw").args(sizes.split(' ')));
    let prepare = |out: &str| {
        let mut command = nct(dir.path());
        command.args(["prepare", "raw", "--shard-mb", "1", "--quiet", "--out", out]);
        command
    };
    let start = std::time::Instant::now();
    succeed(&mut prepare("undisturbed"));
    let mut whole = start.elapsed().as_micros() as u64;
    let expected = files(&dir.path().join("undisturbed"));
    let mut interrupted = 0;
    for k in 0..kills {
        let out = dir.path().join("killed");
        // Two kills, then to the end.
        for half in [0, 1] {
            let mut child = prepare("killed").spawn().unwrap();
            let moment = nct::base::rng::mix64(2 * k + half) % whole;
            std::thread::sleep(std::time::Duration::from_micros(moment));
            child.kill().unwrap();
            if child.wait().unwrap().success() {
                // It takes less than that: the first run may have met a busy machine.
                whole = moment;
            } else {
                interrupted += 1;
            }
        }
        succeed(&mut prepare("killed"));
        assert!(files(&out) == expected, "kill {k} changed the bytes");
        fs::remove_dir_all(&out).unwrap();
    }
    assert!(interrupted > kills / 2, "only {interrupted} of {} runs were interrupted", 2 * kills);
    println!("{kills} data folders, {interrupted} kills: all equal");
}

#[test]
fn other_labels_and_responses_are_other_files() {
    let dir = raw();
    succeed(nct(dir.path()).args(["prepare", "raw", "--quiet"]));
    let part = ["--part", "1/1", "--quiet", "--out", "parts"];
    succeed(nct(dir.path()).args(["prepare", "raw"]).args(part));
    // All of the same length as before.
    let list = dir.path().join("raw/tiny-imagenet-200/val/val_annotations.txt");
    let text = fs::read_to_string(&list).unwrap();
    let [first, second] = [0, 1].map(|i| text.lines().nth(i).unwrap().split('\t').nth(1).unwrap());
    assert!(first != second);
    let exchanged = text.replacen(first, "?", 1).replacen(second, first, 1).replacen('?', second, 1);
    fs::write(&list, exchanged).unwrap();
    let sessions = dir.path().join("raw/mtl_oracle_dataset/neuronal_data");
    let (name, mut bytes) = files(&sessions).remove(0);
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    fs::write(sessions.join(name), bytes).unwrap();
    for set in ["tiny-imagenet-200", "mtl_oracle_dataset"] {
        for more in [&["--quiet"][..], &["--out", "parts", "--merge"]] {
            let out =
                crate::common::output(nct(dir.path()).args(["prepare", "raw", "--only", set]).args(more));
            assert_eq!(out.status.code(), Some(2), "{set} {more:?}");
            assert!(stderr(&out).contains("from other files"), "{}", stderr(&out));
        }
    }
    succeed(nct(dir.path()).args(["prepare", "raw", "--only", "mtl_monkey_dataset", "--quiet"]));
}

/// A neural set of images with such ids and one session that shows the images `shown`.
fn neural_set(root: &Path, ids: &[u64], shown: &[i64]) {
    use nct::ingest::raw::{RawSession, RawTrials, save_image, save_session};
    for &id in ids {
        save_image(root, id, &[id as u8; 64], 8, 8).unwrap();
    }
    let trials = |ids: &[i64]| {
        let responses = (0..2 * ids.len()).map(|i| (i % 5) as f32).collect();
        RawTrials { ids: ids.to_vec(), labels: Vec::new(), responses }
    };
    let (training, testing) = (trials(shown), trials(&[1, 1]));
    let (subject_id, session_id) = ("31".to_owned(), "7".to_owned());
    save_session(root, &RawSession { subject_id, session_id, training, testing, shape: [2, 1] }).unwrap();
}

#[test]
fn trials_of_images_that_the_split_does_not_have_are_left_out_and_told() {
    let dir = tempfile::tempdir().unwrap();
    // Eleven images: the split is of 1 to 11, and the last is called otherwise.
    let ids: Vec<u64> = (1..=10).chain([20]).collect();
    let shown: Vec<i64> = (1..=10).chain([20, 20]).collect();
    neural_set(&dir.path().join("raw/mtl_set"), &ids, &shown);
    let out = crate::common::output(nct(dir.path()).args(["prepare", "raw", "--time-bins-sum", "1"]));
    let said = stderr(&out);
    assert!(out.status.success() && said.contains("2 training trials left out"), "{said}");
    let rows = inspect(dir.path());
    assert_eq!(["train", "validation"].map(|split| samples(&rows, "mtl_set", split)).iter().sum::<u64>(), 10);
    let none = crate::common::output(nct(dir.path()).args(["prepare", "raw", "--time-bins-sum", "0"]));
    assert_eq!(none.status.code(), Some(2), "no time bins are no response");
}

#[test]
fn images_named_by_a_pickle_stand_in_for_arrays_and_give_way_to_them() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("raw/mtl_set");
    neural_set(&root, &[1, 2, 3, 4, 5], &[1, 2, 3, 4, 5]);
    let by_path = |folder: &str| {
        let entry = |id: u8| {
            let path = format!("{folder}/{id:06}.npy");
            [b"K", &[id][..], b"\x8c", &[path.len() as u8], path.as_bytes()].concat()
        };
        let entries: Vec<u8> = (1..=5).flat_map(entry).collect();
        let pickle = [b"\x80\x04}(", &entries[..], b"u."].concat();
        fs::write(root.join("images/individual_image_paths.pickle"), pickle).unwrap();
    };
    let prepare = |out: &str| {
        succeed(nct(dir.path()).args(["prepare", "raw", "--quiet", "--out", out]));
        files(&dir.path().join(out).join("mtl_set"))
            .into_iter()
            .filter(|(name, _)| name.extension().is_some_and(|e| e == "nct"))
            .collect::<Vec<_>>()
    };
    by_path("nowhere");
    let arrays = prepare("arrays");
    fs::create_dir(root.join("pictures")).unwrap();
    for id in 1..=5 {
        let name = format!("{id:06}.npy");
        fs::rename(root.join("images").join(&name), root.join("pictures").join(&name)).unwrap();
    }
    by_path("pictures");
    assert!(prepare("named") == arrays);
}

#[test]
fn what_a_kill_leaves_in_a_finished_data_set_is_removed_and_nothing_else() {
    let dir = raw();
    let prepare =
        || succeed(nct(dir.path()).args(["prepare", "raw", "--quiet", "--only", "mtl_oracle_dataset"]));
    prepare();
    let set = dir.path().join("shards/mtl_oracle_dataset");
    let before = files(&set);
    // As if it had been killed between putting the set in its place and the end.
    for name in ["lock", "settings.json", "stimuli-00000.nct.done"] {
        fs::write(set.join(name), "").unwrap();
    }
    prepare();
    assert!(files(&set) == before);
    fs::write(set.join("settings.json"), "mine").unwrap();
    prepare();
    assert!(set.join("settings.json").exists(), "a file of the user's was removed");
}

#[test]
fn a_dry_run_writes_nothing_and_says_how_large_it_gets() {
    let dir = raw();
    let plan = succeed(nct(dir.path()).args(["prepare", "raw", "--dry-run"]));
    assert!(!dir.path().join("shards").exists());
    assert!(plan.contains("is made") && plan.contains("mtl_oracle_dataset"), "{plan}");
    succeed(nct(dir.path()).args(["prepare", "raw"]));
    assert!(succeed(nct(dir.path()).args(["prepare", "raw", "--dry-run"])).contains("is there already"));
    // Why a set is refused is told below the table, which it would make too wide.
    let plan = succeed(nct(dir.path()).args(["prepare", "raw", "--dry-run", "--color", "gray"]));
    let (table, below) = plan.rsplit_once('─').unwrap();
    assert!(table.matches("is refused").count() == 4 && !table.contains("--force"), "{plan}");
    for name in ["mtl_monkey_dataset", "mtl_oracle_dataset", "mtl_shuffled_dataset", "tiny-imagenet-200"] {
        let why = format!("shards/{name}: ");
        assert!(below.lines().any(|line| line.starts_with(&why) && line.contains("--force")), "{plan}");
    }
}

#[test]
fn two_at_once_do_not_meet() {
    let dir = raw();
    let staging = dir.path().join("shards/.preparing-mtl_oracle_dataset");
    fs::create_dir_all(&staging).unwrap();
    let lock = fs::File::create(staging.join("lock")).unwrap();
    lock.lock().unwrap();
    let refused = crate::common::output(nct(dir.path()).args(["prepare", "raw"]));
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).contains("another `nct prepare`"), "{}", stderr(&refused));
    drop(lock);
    succeed(nct(dir.path()).args(["prepare", "raw"]));
}

#[test]
fn a_bench_of_the_loader_says_what_limits_it() {
    let dir = crate::common::shards();
    for (mix, work) in [("images", "raw"), ("images", "rot"), ("mtl", "aug")] {
        let options =
            ["--work", work, "--mix", mix, "--batch", "4", "--epochs", "2", "--threads", "1", "--json"];
        let text = succeed(nct(dir.path()).args(["bench", "loader", "--quiet"]).args(options));
        let row: Value = serde_json::from_str(text.trim()).unwrap();
        for key in ["samples_per_s", "first_samples_per_s", "roofline_samples_per_s", "bytes_per_s"] {
            assert!(row[key].as_f64().unwrap() > 0.0, "{key} in {row}");
        }
        for (short, long) in
            [("first", "first_samples_per_s"), ("median", "samples_per_s"), ("roofline_share", "of_roofline")]
        {
            assert!(row[short].is_f64() && row[short] == row[long], "{short} in {row}");
        }
        assert_eq!(row["rss_mb"].as_u64(), row["peak_memory_bytes"].as_u64().map(|bytes| bytes >> 20));
        assert!((0.0..=1.0).contains(&row["stall_share"].as_f64().unwrap()), "{row}");
    }
}

#[test]
fn classes_and_fields_are_told() {
    let dir = crate::common::shards();
    let text = succeed(nct(dir.path()).args(["inspect", "--classes"]));
    for part in ["█", "responses", "f32 [neurons]", "repeats", "zstd"] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    let rows = inspect(dir.path());
    let images = rows.iter().find(|r| r["dataset"] == "tiny-imagenet-200" && r["split"] == "train").unwrap();
    let of_classes = images["class_samples"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap());
    assert_eq!(of_classes.sum::<u64>(), images["samples"].as_u64().unwrap());
    let neural = rows.iter().find(|r| r["dataset"] == "mtl_oracle_dataset" && r["split"] == "test").unwrap();
    let session = &neural["sessions"][0];
    // The sample data show each test image four times.
    assert_eq!(session["samples"].as_u64().unwrap(), 4 * session["images"].as_u64().unwrap());
}

#[test]
fn what_splits_share_counts_once_and_statistics_say_what_they_are_over() {
    let dir = crate::common::shards();
    let rows = inspect(dir.path());
    for (name, over) in [("mtl_monkey_dataset", "stimuli"), ("tiny-imagenet-200", "train")] {
        let rows: Vec<&Value> = rows.iter().filter(|row| row["dataset"] == name).collect();
        assert_eq!(rows.len(), 3);
        let own: u64 = rows.iter().map(|row| row["bytes"].as_u64().unwrap()).sum();
        let shared = rows[0]["shared"]["bytes"].as_u64().unwrap_or(0);
        let shards = files(&dir.path().join("shards").join(name));
        let shards = shards.iter().filter(|(name, _)| name.extension().is_some_and(|e| e == "nct"));
        assert_eq!(own + shared, shards.map(|(_, bytes)| bytes.len() as u64).sum::<u64>(), "{name}");
        for row in rows {
            assert_eq!(row["statistics_over"], over, "{row}");
            let holds =
                |part: &Value| part["fields"].as_array().unwrap().iter().any(|f| f["name"] == "image");
            assert_eq!(holds(row), over == "train", "{row}");
            if over == "stimuli" {
                assert!(holds(&row["shared"]) && row["shared"]["images"] == 60, "{row}");
                assert_eq!(row["sessions"][0]["statistics_over"], "train");
            }
        }
    }
    let table = succeed(nct(dir.path()).args(["inspect", "shards/mtl_monkey_dataset"]));
    let rules = |rule: char| table.lines().filter(|line| line.starts_with(rule)).count();
    assert_eq!(
        (rules('─'), rules('═')),
        (2 * 4, 4),
        "no rule but above, under the header and below: {table}"
    );
    let session = rows[0]["sessions"][0]["id"].as_str().unwrap();
    let sessions = table.lines().filter(|line| line.contains(session));
    // All but the training row lack the last two columns.
    let words: Vec<(&str, usize)> = sessions
        .map(|line| (line.split_whitespace().nth(1).unwrap(), line.split_whitespace().count()))
        .collect();
    assert_eq!(words, [("train", 10), ("validation", 8), ("test", 8)], "{table}");
    assert_eq!(
        table.matches(" stimuli ").count(),
        2 + 2,
        "over them, their bytes, their two fields: {table}"
    );
}

/// On a terminal, which `script` makes; one that does not know its width is none.
#[test]
fn tables_are_as_wide_as_the_terminal_at_most() {
    let dir = crate::common::shards();
    let inspect = format!("{} inspect shards", env!("CARGO_BIN_EXE_nct"));
    let plain = succeed(nct(dir.path()).args(["inspect", "shards"]));
    let width = |text: &str| text.lines().map(|line| line.chars().count()).max().unwrap();
    assert!(width(&plain) > 90);
    for columns in [90, 0] {
        let command = format!("stty cols {columns}; {inspect}");
        let mut script = std::process::Command::new("script");
        script.args(["-qec", &command, "/dev/null"]).current_dir(dir.path());
        let Ok(out) = script.stdin(std::process::Stdio::null()).output() else {
            eprintln!("skipped: no script here");
            return;
        };
        let told = String::from_utf8(out.stdout).unwrap();
        if columns == 0 {
            assert_eq!(told.replace('\r', ""), plain);
        } else {
            assert!(width(&told) <= columns && told.contains("responses"), "{told}");
        }
    }
}

#[test]
fn parts_put_together_are_the_same_bytes_and_a_missing_one_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let sizes = "--classes 4 --per-class 180 --val-per-class 80 --neural-images 40 --sessions 2 --neurons 5";
    succeed(nct(dir.path()).arg("synth").arg("raw").args(sizes.split(' ')));
    let prepare = |out: &str, more: &[&str]| {
        let mut command = nct(dir.path());
        command.args(["prepare", "raw", "--color", "gray", "--shard-mb", "1", "--out", out]).args(more);
        crate::common::output(&mut command)
    };
    assert!(prepare("whole", &[]).status.success());
    for part in ["1/3", "3/3"] {
        let out = prepare("parts", &["--part", part, "--quiet"]);
        assert!(out.status.success(), "{}", stderr(&out));
    }
    assert!(ShardSet::open(&dir.path().join("parts")).is_err(), "parts are no data set");
    let out = prepare("parts", &["--merge"]);
    assert_eq!(out.status.code(), Some(2));
    assert!(stderr(&out).contains("a part of this data set is not done"), "{}", stderr(&out));
    // The part that lacked, with another setting first.
    let other = ["--part", "2/3", "--level", "3", "--quiet", "--only", "tiny-imagenet-200"];
    assert!(prepare("parts", &other).status.success());
    let out = prepare("parts", &["--merge"]);
    assert_eq!(out.status.code(), Some(2));
    assert!(stderr(&out).contains("other settings"), "{}", stderr(&out));
    assert!(prepare("parts", &["--part", "2/3"]).status.success());
    let out = prepare("parts", &["--merge"]);
    assert!(out.status.success(), "{}", stderr(&out));
    assert!(files(&dir.path().join("whole")) == files(&dir.path().join("parts")), "other bytes");
    // Done once, it is done.
    assert!(prepare("parts", &["--merge"]).status.success());
    // Parts of a set whose name only begins so are left alone.
    let (more, out) = (dir.path().join("raw/mtl_oracle_dataset-2"), dir.path().join("several"));
    fs::rename(dir.path().join("raw/mtl_oracle_dataset"), &more).unwrap();
    let only = ["--quiet", "--only", "mtl_oracle_dataset-2", "--part"];
    for part in ["1/2", "2/2"] {
        assert!(prepare("several", &[&only[..], &[part]].concat()).status.success());
    }
    let parts = files(&out);
    fs::rename(&more, dir.path().join("raw/mtl_oracle_dataset")).unwrap();
    let merged = prepare("several", &["--quiet", "--only", "mtl_oracle_dataset", "--merge"]);
    assert!(stderr(&merged).contains("a part of this data set is not done"), "{}", stderr(&merged));
    fs::remove_dir_all(out.join(".preparing-mtl_oracle_dataset")).unwrap();
    assert!(files(&out) == parts);
    assert_eq!(prepare("parts", &["--part", "4/3"]).status.code(), Some(2));
}

/// Sessions with whatever else a laboratory may keep with them, in protocols 2 and 5. Prints those that lack what is needed:
/// file, key and what is told of it.
const ODD_SESSIONS: &str = r#"
import collections, datetime, decimal, pathlib, pickle, sys
import numpy as np

class Lab:
    pass

class Slots(dict):
    pass

folder = pathlib.Path(sys.argv[1])
lab, kept, looped = Lab(), Slots(a=1), []
lab.notes, kept.extra = {"by": Lab}, 2
looped.append(looped)
date = datetime.datetime(2020, 1, 2, tzinfo=datetime.timezone.utc)
odd = {
    "strings": np.array(["a", "bc"]), "bytes": np.array([b"x"]), "objects": np.array([1, None, lab], object),
    "date": date, "dates": np.array(["2020-01-02"], "M8[D]"), "a_date": np.datetime64("2020-01-02"),
    "set": {1, 2}, "frozen": frozenset([lab]), "complex": 1j, "complexes": np.array([1j]), "c": np.complex64(1j),
    "long": 1 << 80, "longer": 1 << 4000, "path": pathlib.PurePosixPath("a/b"), "lab": lab, "class": Lab,
    "kept": kept, "masked": np.ma.masked_array([1, 2], [0, 1]), "record": np.zeros(2, [("a", "i4"), ("b", "f8")]),
    "wide": np.longdouble(1), "deque": collections.deque([1]), "decimal": decimal.Decimal("1.5"),
    "ordered": collections.OrderedDict(a=lab), "counter": collections.Counter("aab"), "matrix": np.matrix([[1]]),
    "surrogate": "\ud800", "text": np.str_("\ud800"), "array": bytearray(b"a"), "slice": slice(1), "dots": ...,
    "rng": np.random.default_rng(0), "state": np.random.RandomState(0).get_state(), "looped": looped,
    "error": ValueError("x"), "type": np.dtype("f4"), "types": np.dtype("O"), "kind": np.float32, 5: {6: 7}, lab: 1,
    (1, "a"): None, "empty": np.array("a"), "labels": collections.defaultdict(list, a=[1]),
}
needed = {
    "subject_id": 31, "session_id": 7,
    "training_responses": (np.arange(10) % 5).reshape(2, 1, 5).astype("f4"), "training_image_ids": np.arange(1, 6),
    "testing_responses": (np.arange(4) % 5).reshape(2, 1, 2).astype("f4"), "testing_image_ids": np.array([1, 1]),
}
texts = {"subject_id": np.bytes_("31"), "session_id": np.str_("7")}
roots = {
    "plain": needed, "odd": {**odd, **needed}, "odd-texts": {**needed, **odd, **texts},
    "big-endian": {**needed, "session_id": np.array(["7"], ">U9")[0]},
    "ordered": collections.OrderedDict({**odd, **needed}), "default": collections.defaultdict(list, needed),
    "keys": {np.str_(key): value for key, value in needed.items()},
}
bad = [
    ("session_id", date, "datetime.datetime"), ("session_id", 1 << 80, "whole number of 11 bytes"),
    ("subject_id", {1}, "set"), ("training_responses", np.zeros((2, 1, 5), complex), '"c16"'),
    ("training_image_ids", np.array(list("12345")), '"U1"'), ("testing_image_ids", np.array([1, None]), '"O8"'),
    ("training_labels", np.ma.masked_array([1] * 5), "numpy.ma"), ("testing_labels", lab, "__main__.Lab"),
]
for protocol in 2, 5:
    for name, root in roots.items():
        (folder / f"{name}-{protocol}.pickle").write_bytes(pickle.dumps(root, protocol))
    for i, (key, value, told) in enumerate(bad):
        name = f"bad-{i}-{protocol}.pickle"
        (folder / name).write_bytes(pickle.dumps({**needed, key: value}, protocol))
        print(name, key, told, sep="\t")
"#;

#[test]
fn what_a_session_holds_beside_what_is_needed_is_not_in_the_way() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("raw/mtl_set");
    neural_set(&root, &[1, 2, 3, 4, 5], &[1, 2, 3, 4, 5]);
    let session = root.join("neuronal_data/CSRF19_V1_7.pickle");
    let (script, pickles) = (dir.path().join("odd.py"), dir.path().join("pickles"));
    fs::write(&script, ODD_SESSIONS).unwrap();
    fs::create_dir(&pickles).unwrap();
    let prepare = |out: &str| {
        let told = crate::common::output(nct(dir.path()).args(["prepare", "raw", "--quiet", "--out", out]));
        let made = dir.path().join(out).join("mtl_set");
        let made = if made.is_dir() { files(&made) } else { Vec::new() };
        let shards = made.into_iter().filter(|(name, _)| name.extension().is_some_and(|e| e == "nct"));
        (told, shards.collect::<Vec<_>>())
    };
    let (_, expected) = prepare("expected");
    let Some(out) = python(script.to_str().unwrap(), "numpy", &[pickles.to_str().unwrap()]) else { return };
    let bad = String::from_utf8(out.stdout).unwrap();
    let all = files(&pickles);
    assert_eq!((all.len(), bad.lines().count(), expected.len()), (30, 16, 4));
    for (name, pickle) in all {
        let name = name.to_str().unwrap();
        fs::write(&session, pickle).unwrap();
        let (told, shards) = prepare(&format!("of-{name}"));
        let said = stderr(&told);
        let Some(line) = bad.lines().find(|line| line.starts_with(name)) else {
            assert!(told.status.success(), "{name}: {said}");
            assert!(shards == expected, "{name}");
            continue;
        };
        assert_eq!(told.status.code(), Some(2), "{name}: {said}");
        for part in line.split('\t').skip(1).chain(["CSRF19_V1_7.pickle"]) {
            assert!(said.contains(part), "{name}: no {part} in {said}");
        }
    }
}

#[test]
fn time_bins_are_chosen_by_number_range_and_list() {
    use nct::ingest::raw::{RawSession, RawTrials, save_image, save_session};
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("raw/mtl_set");
    for id in 1..=2 {
        save_image(&root, id, &[id as u8; 64], 8, 8).unwrap();
    }
    // One neuron whose bins have 1, 2, 4 and 8 spikes in the first trial, and 10 times that in the second.
    let responses = [1.0, 10.0, 2.0, 20.0, 4.0, 40.0, 8.0, 80.0].to_vec();
    let trials = RawTrials { ids: vec![1, 2], labels: Vec::new(), responses };
    let (subject_id, session_id) = ("31".to_owned(), "7".to_owned());
    let (training, testing) = (trials.clone(), trials);
    save_session(&root, &RawSession { subject_id, session_id, training, testing, shape: [1, 4] }).unwrap();
    let prepare = |bins: &str| {
        let args = ["prepare", "raw", "--out", bins, "--time-bins-sum", bins];
        crate::common::output(nct(dir.path()).args(args))
    };
    for (bins, sum) in [("3", 7), ("1..3", 6), ("3..4", 8), ("0,3", 9), ("12", 15)] {
        let told = prepare(bins);
        assert!(told.status.success(), "{}", stderr(&told));
        assert_eq!(stderr(&told).contains("4 time bins instead of 12"), bins == "12");
        let set = ShardSet::open(&dir.path().join(bins)).unwrap();
        let dataset = set.dataset("mtl_set").unwrap();
        assert!(dataset.manifest().settings.contains(&format!("time_bins_sum = {bins}")));
        let shard = dataset.session("7", Split::Test).unwrap().remove(0);
        let stored = shard.read_column(shard.field("responses").unwrap().0).unwrap();
        let stored: Vec<f32> = stored.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
        assert_eq!(stored, [sum as f32, 10.0 * sum as f32], "{bins}");
    }
    for (bins, what) in [("1..5", "wants bin 4"), ("0,9", "wants bin 9"), ("2..2", "4..12"), ("1,1", "4,5,6")]
    {
        let refused = prepare(bins);
        assert_eq!(refused.status.code(), Some(2));
        assert!(stderr(&refused).contains(what), "{}", stderr(&refused));
        assert_eq!(stderr(&refused).contains("CSRF19_V1_7.pickle"), what.starts_with("wants"));
    }
}

#[test]
fn a_set_that_is_not_asked_for_is_not_in_the_way() {
    let dir = raw();
    fs::remove_dir_all(dir.path().join("raw/mtl_oracle_dataset/images")).unwrap();
    fs::write(dir.path().join("raw/tiny-imagenet-200/wnids.txt"), "n0\n").unwrap();
    let all = crate::common::output(nct(dir.path()).args(["prepare", "raw", "--dry-run"]));
    assert_eq!(all.status.code(), Some(2));
    let only = ["prepare", "raw", "--only", "mtl_monkey_dataset", "--quiet"];
    succeed(nct(dir.path()).args(only).arg("--dry-run"));
    succeed(nct(dir.path()).args(only));
    for (name, what) in [("mtl_oracle_dataset", "images"), ("none", "here are: mtl_monkey_dataset, mtl_or")] {
        let refused = crate::common::output(nct(dir.path()).args(["prepare", "raw", "--only", name]));
        assert_eq!(refused.status.code(), Some(2));
        assert!(stderr(&refused).contains(what), "{}", stderr(&refused));
    }
}
