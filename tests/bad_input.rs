//! Bad input: one paragraph that names file and cause, exit code 2, nothing left behind.

use crate::common::{files, nct, output, raw, shards, stderr, succeed};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The command must fail with exit code 2 and say all of `parts`.
fn refused(command: &mut Command, parts: &[&str]) {
    let out = output(command);
    let message = stderr(&out);
    assert_eq!(out.status.code(), Some(2), "{message}");
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
    assert!(!message.contains("panicked"), "{message}");
    assert!(message.trim_end().lines().count() <= 12, "{message}");
}

/// `prepare` of the folder must be refused, and leave no shards and no changes.
fn prepare_refused(dir: &Path, data: &str, parts: &[&str]) {
    let before = files(dir);
    refused(nct(dir).args(["prepare", data, "--quiet"]), parts);
    assert!(!dir.join("shards").exists(), "shards were left behind");
    assert!(before == files(dir), "files were changed");
}

/// A neural set with five images and one session, whose pickle has the given bytes.
fn neural(pickle: &[u8]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("mtl_monkey_dataset");
    fs::create_dir_all(root.join("neuronal_data")).unwrap();
    fs::create_dir_all(root.join("images")).unwrap();
    let mut header = "{'descr': '|u1', 'fortran_order': False, 'shape': (8, 8), }".to_owned();
    header.push_str(&" ".repeat(117 - header.len()));
    for id in 1..=5u8 {
        let file = [b"\x93NUMPY\x01\0\x76\0", header.as_bytes(), b"\n", &[id; 64]].concat();
        fs::write(root.join(format!("images/00000{id}.npy")), file).unwrap();
    }
    fs::write(root.join("neuronal_data/one.pickle"), pickle).unwrap();
    dir
}

fn first(dir: &Path, part: &str, end: &str) -> PathBuf {
    let root = dir.join(part);
    let all = files(&root);
    root.join(&all.iter().find(|(name, _)| name.to_string_lossy().ends_with(end)).unwrap().0)
}

const GOOD: &[u8] = include_bytes!("data/session-good.pickle");

#[test]
fn a_session_of_numpy_is_read_value_by_value() {
    let dir = neural(GOOD);
    succeed(nct(dir.path()).args(["prepare", ".", "--time-bins-sum", "2"]));
    let set = nct::shard::ShardSet::open(&dir.path().join("shards")).unwrap();
    let dataset = set.dataset("mtl_monkey_dataset").unwrap();
    let mut all = Vec::new();
    for split in [nct::base::Split::Train, nct::base::Split::Validation, nct::base::Split::Test] {
        for shard in dataset.session("s1", split).unwrap() {
            let words = |name: &str| {
                let bytes = shard.read_column(shard.field(name).unwrap().0).unwrap();
                bytes.as_chunks().0.iter().map(|w| u32::from_le_bytes(*w)).collect::<Vec<u32>>()
            };
            let responses: Vec<f32> = words("responses").into_iter().map(f32::from_bits).collect();
            for (i, (id, row)) in words("id").into_iter().zip(words("row")).enumerate() {
                assert_eq!(id, row + 1, "images are numbered from 1 and stored in order");
                all.push((split, id, responses[3 * i..3 * i + 3].to_vec()));
            }
        }
    }
    // NumPy: RandomState(1000).permutation(range(1, 6)) ends with the image that validates.
    let training = all.iter().filter(|(s, ..)| *s != nct::base::Split::Test).count();
    let validation = all.iter().filter(|(s, ..)| *s == nct::base::Split::Validation).count();
    assert_eq!((training, validation >= 1, all.len()), (6, true, 10));
    let response = |trial: f32| [0., 100., 200.].map(|n| 2.0 * (n + trial) + 10.0).to_vec();
    for (trial, id) in [1, 2, 3, 4, 5, 1].into_iter().enumerate() {
        let expected = response(trial as f32);
        assert!(all.iter().any(|(s, i, r)| *s != nct::base::Split::Test && *i == id && *r == expected));
    }
    let tested: Vec<_> = all.iter().filter(|(s, ..)| *s == nct::base::Split::Test).collect();
    for (trial, (found, id)) in tested.iter().zip([4, 4, 5, 5]).enumerate() {
        assert_eq!((found.1, &found.2), (id, &response(trial as f32)));
    }
}

#[test]
fn a_missing_folder() {
    let dir = tempfile::tempdir().unwrap();
    prepare_refused(dir.path(), "absent", &["absent", "No such file"]);
}

#[test]
fn an_empty_folder() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("empty")).unwrap();
    prepare_refused(dir.path(), "empty", &["empty", "no data set", "tiny-imagenet-200"]);
}

#[test]
fn a_truncated_jpeg() {
    let dir = raw();
    let path = first(dir.path(), "raw/tiny-imagenet-200/train", ".JPEG");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let name = path.file_name().unwrap().to_str().unwrap().to_owned();
    prepare_refused(dir.path(), "raw/tiny-imagenet-200", &[&name, "damaged JPEG"]);
}

/// One run names what must be mended, up to a bound.
#[test]
fn several_bad_images() {
    let dir = raw();
    let train = files(&dir.path().join("raw/tiny-imagenet-200/train"));
    let images: Vec<&Path> = train
        .iter()
        .map(|(p, _)| p.as_path())
        .filter(|p| p.extension().is_some_and(|e| e == "JPEG"))
        .collect();
    let prepare = || {
        let out = output(nct(dir.path()).args(["prepare", "raw/tiny-imagenet-200", "--jobs", "2"]));
        assert_eq!(out.status.code(), Some(2));
        stderr(&out)
    };
    let root = dir.path().join("raw/tiny-imagenet-200/train");
    let spoil = |image: &Path| fs::write(root.join(image), "not a picture").unwrap();
    let name = |image: &Path| image.file_name().unwrap().to_str().unwrap().to_owned();
    for i in [3, 10, 20] {
        spoil(images[i]);
    }
    let told = prepare();
    assert!([3, 10, 20].iter().all(|&i| told.contains(&name(images[i]))), "{told}");
    assert_eq!(told.matches("no JPEG").count(), 3, "{told}");
    images[1..21].iter().for_each(|image| spoil(image));
    let told = prepare();
    assert!(told.matches("no JPEG").count() == 11 && told.contains("and more"), "{told}");
    assert!(!dir.path().join("shards/tiny-imagenet-200").exists());
}

#[test]
fn images_of_many_sizes() {
    let dir = crate::common::imagenet();
    for more in [&[][..], &["--color", "gray"]] {
        let prepare = |last: &[&str]| {
            let mut command = nct(dir.path());
            command.args(["prepare", "raw", "--quiet"]).args(more).args(last);
            refused(&mut command, &["the images before are", "--resize 256"]);
        };
        prepare(&[]);
        prepare(&["--dry-run"]);
        assert!(!dir.path().join("shards").exists());
    }
}

#[test]
fn a_text_file_named_jpeg() {
    let dir = raw();
    let path = first(dir.path(), "raw/tiny-imagenet-200/val", ".JPEG");
    fs::write(&path, "not a picture").unwrap();
    let name = path.file_name().unwrap().to_str().unwrap().to_owned();
    prepare_refused(dir.path(), "raw/tiny-imagenet-200", &[&name, "no JPEG"]);
}

#[test]
fn a_truncated_pickle() {
    let dir = neural(&GOOD[..GOOD.len() / 2]);
    prepare_refused(dir.path(), ".", &["one.pickle", "cut short"]);
}

#[test]
fn a_pickle_that_calls_os_system() {
    let dir = neural(b"\x80\x02cos\nsystem\nU\x0etouch OWNED.txtt\x85R.");
    prepare_refused(dir.path(), ".", &["one.pickle", "os.system", "runs no code"]);
}

#[test]
fn responses_of_the_wrong_shape() {
    let dir = neural(include_bytes!("data/session-shape.pickle"));
    prepare_refused(dir.path(), ".", &["one.pickle", "training_image_ids has 6 entries", "5 images"]);
    let dir = neural(include_bytes!("data/session-axes.pickle"));
    prepare_refused(dir.path(), ".", &["one.pickle", "training_responses has shape [6]"]);
}

#[test]
fn an_image_id_without_image() {
    let dir = neural(include_bytes!("data/session-image.pickle"));
    prepare_refused(dir.path(), ".", &["one.pickle", "names image 9", "000009.npy"]);
}

#[test]
fn responses_that_are_no_numbers() {
    let dir = neural(include_bytes!("data/session-nan.pickle"));
    prepare_refused(dir.path(), ".", &["one.pickle", "neuron 2 to image 3", "not finite"]);
}

#[test]
fn a_shard_cut_short() {
    let dir = shards();
    let path = dir.path().join("shards/tiny-imagenet-200/train-00000.nct");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    for command in [&["verify"][..], &["inspect"]] {
        refused(nct(dir.path()).args(command), &["train-00000.nct", "cut"]);
    }
}

#[test]
fn a_flipped_byte() {
    let dir = shards();
    let path = dir.path().join("shards/mtl_monkey_dataset/stimuli-00000.nct");
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 4;
    fs::write(&path, bytes).unwrap();
    refused(nct(dir.path()).arg("verify"), &["stimuli-00000.nct", "field image, block", "checksum"]);
}

#[test]
fn a_folder_without_shards() {
    let dir = tempfile::tempdir().unwrap();
    refused(nct(dir.path()).args(["inspect", "."]), &["nct prepare"]);
    refused(nct(dir.path()).args(["verify", "absent"]), &["absent"]);
}

#[test]
fn a_misspelt_option() {
    let dir = tempfile::tempdir().unwrap();
    refused(nct(dir.path()).args(["prepare", "raw", "--colour", "gray"]), &["--colour", "--color"]);
    assert!(files(dir.path()).is_empty());
}

#[cfg(feature = "torch")]
#[test]
fn an_unknown_config_key() {
    let dir = shards();
    fs::write(dir.path().join("my.toml"), "[model]\nvgg_typ = \"vgg11\"\n").unwrap();
    let train = ["train", "--device", "cpu", "--config", "my.toml"];
    refused(nct(dir.path()).args(train), &["my.toml", "line 2", "vgg_typ"]);
    refused(nct(dir.path()).args(["train", "--set", "loss.wieghing=true"]), &["wieghing"]);
    refused(nct(dir.path()).args(["train", "--config", "absent.toml"]), &["absent.toml", "configs/"]);
    refused(nct(dir.path()).args(["train", "--set", "data.neural=v9"]), &["v9", "mtl_oracle_dataset"]);
    refused(nct(dir.path()).args(["train", "--device", "tpu"]), &["tpu", "cuda:N"]);
    assert!(!dir.path().join("runs").exists());
}

/// Each message says what to set next.
#[cfg(feature = "torch")]
#[test]
fn a_co_training_recipe_for_one_task_alone() {
    let dir = shards();
    let recipe = crate::common::SMALL.replace("kind = \"mtl\"", "kind = \"mtl\"\nratio = { 1 = 2 }");
    assert_ne!(recipe, crate::common::SMALL);
    fs::write(dir.path().join("small.toml"), recipe).unwrap();
    let train = |set: &[&str]| {
        let mut command = nct(dir.path());
        command.args(["train", "--device", "cpu", "--dry-run", "--config", "small.toml"]);
        command.args(set.iter().flat_map(|set| ["--set", set]));
        command
    };
    let (long, v1) = ("mix={kind=\"long\"}", "schedule.to_monitor=[\"v1\"]");
    let [way_out, monitored] = [long, v1].map(|set| format!("--set '{set}'"));
    refused(&mut train(&["data.neural="]), &["needs neural data beside the images", &way_out]);
    refused(&mut train(&["data.neural=", "mix.kind=long"]), &["mix.ratio does not apply", &way_out]);
    succeed(&mut train(&["data.neural=", long]));
    let monitors = ["schedule.to_monitor names img_classification", "data.images is empty", &monitored];
    refused(&mut train(&["data.images=", long]), &monitors);
    refused(&mut train(&["data.images=", v1]), &["exactly one image set", &way_out]);
    succeed(&mut train(&["data.images=", v1, long]));
}

#[cfg(feature = "torch")]
#[test]
fn a_folder_that_is_no_run() {
    let dir = shards();
    refused(nct(dir.path()).args(["eval", "shards"]), &["shards", "is no run"]);
    refused(nct(dir.path()).args(["train", "--resume", "absent"]), &["absent", "is no run"]);
}

/// Nothing but what was there before, not even hidden.
fn assert_nothing_left(dir: &Path) {
    let left: Vec<_> = fs::read_dir(dir.join("shards")).into_iter().flatten().collect();
    assert!(left.is_empty(), "left behind: {left:?}");
}

#[test]
fn an_image_that_cannot_be_opened() {
    let dir = raw();
    let path = first(dir.path(), "raw/tiny-imagenet-200/train", ".JPEG");
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("/nowhere/at/all", &path).unwrap();
    let name = path.file_name().unwrap().to_str().unwrap();
    refused(nct(dir.path()).args(["prepare", "raw/tiny-imagenet-200", "--quiet"]), &[name, "No such file"]);
    assert_nothing_left(dir.path());
}

#[test]
fn a_set_that_was_not_unpacked_as_a_whole() {
    let dir = raw();
    let path = first(dir.path(), "raw/tiny-imagenet-200/train", "_7.JPEG");
    fs::remove_file(&path).unwrap();
    let name = path.file_name().unwrap().to_str().unwrap();
    prepare_refused(dir.path(), "raw/tiny-imagenet-200", &["_boxes.txt", name, "unpack the set again"]);
}

#[test]
fn a_corrupted_set_whose_first_cell_is_bad() {
    let dir = tempfile::tempdir().unwrap();
    let class = dir.path().join("raw/Tiny-ImageNet-C/fog/1/n01440764");
    fs::create_dir_all(&class).unwrap();
    fs::write(class.join("a.JPEG"), "no picture").unwrap();
    prepare_refused(dir.path(), "raw", &["a.JPEG"]);
    // A folder that was there before stays.
    fs::create_dir_all(dir.path().join("shards")).unwrap();
    refused(nct(dir.path()).args(["prepare", "raw", "--quiet"]), &["a.JPEG"]);
    assert!(dir.path().join("shards").exists());
    assert_nothing_left(dir.path());
}

#[test]
fn a_disk_that_fills() {
    let dir = raw();
    // A limit on the size of files fails as a full disk does, and needs no rights. 16 blocks of 512 bytes.
    let program = env!("CARGO_BIN_EXE_nct");
    let script = format!("trap '' XFSZ; ulimit -f 16; exec {program} prepare raw --quiet");
    let mut limited = Command::new("sh");
    limited.args(["-c", &script]).current_dir(dir.path());
    refused(&mut limited, &["shards/.preparing-", ".nct", "write"]);
    // What was done before is kept, as after a kill, and no data set is there.
    let left = files(&dir.path().join("shards"));
    assert!(left.iter().any(|(name, _)| name.ends_with("settings.json")), "nothing to go on with");
    assert!(!left.iter().any(|(name, _)| name.ends_with("manifest.json")));
    succeed(nct(dir.path()).args(["prepare", "raw", "--quiet"]));
    succeed(nct(dir.path()).args(["verify", "--deep"]));
    succeed(nct(dir.path()).args(["prepare", "raw", "--quiet", "--out", "undisturbed"]));
    assert!(files(&dir.path().join("shards")) == files(&dir.path().join("undisturbed")));
}

#[test]
fn a_target_that_cannot_be_written() {
    let dir = raw();
    refused(
        nct(dir.path()).args(["prepare", "raw", "--out", "/proc/nct-shards"]),
        &["/proc/nct-shards", "create"],
    );
    fs::write(dir.path().join("file"), "").unwrap();
    refused(nct(dir.path()).args(["prepare", "raw", "--out", "file"]), &["file"]);
}

#[test]
fn a_shard_that_is_not_the_one_of_the_manifest() {
    let dir = shards();
    let path = dir.path().join("shards/mtl_monkey_dataset/manifest.json");
    let mut manifest: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let checksum = &mut manifest["shards"][0]["checksum"];
    *checksum = (checksum.as_u64().unwrap() ^ 1).into();
    let file = manifest["shards"][0]["file"].as_str().unwrap().to_owned();
    fs::write(&path, manifest.to_string()).unwrap();
    refused(nct(dir.path()).args(["inspect"]), &[&file, "not the shard that the manifest names"]);
}

#[test]
fn a_manifest_that_cannot_be_true() {
    let dir = shards();
    let path = dir.path().join("shards/mtl_monkey_dataset/manifest.json");
    let good: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    for (place, value, message) in [
        ("/image", "[0, 64, 64]", "images of shape [0, 64, 64]"),
        ("/image", "[1, 64, 63]", "the manifest says [1, 64, 63]"),
        ("/mean", "[]", "no mean and standard deviation"),
        ("/sessions/0/id", "\"a.b\"", "session \"a.b\""),
        ("/classes", r#"[{"id": "../a", "words": ""}]"#, "class \"../a\""),
        ("/classes", r#"[{"id": "a", "words": ""}, {"id": "a", "words": ""}]"#, "class \"a\""),
        ("/sessions/0/neurons", "0", "0 neurons"),
        ("/shards/0/rows", "9999999999999999", "9999999999999999 records"),
    ] {
        let mut forged = good.clone();
        *forged.pointer_mut(place).unwrap() = serde_json::from_str(value).unwrap();
        fs::write(&path, forged.to_string()).unwrap();
        refused(
            nct(dir.path()).args(["inspect", "shards/mtl_monkey_dataset", "--contact-sheet", "sheet.png"]),
            &[message],
        );
    }
}

#[test]
fn all_damage_is_told_and_what_is_sound_too() {
    let dir = shards();
    let root = dir.path().join("shards");
    let flip = |file: &str| {
        let mut bytes = fs::read(root.join(file)).unwrap();
        let at = bytes.len() / 2;
        bytes[at] ^= 4;
        fs::write(root.join(file), bytes).unwrap();
    };
    let manifest = |set: &str| -> serde_json::Value {
        serde_json::from_slice(&fs::read(root.join(set).join("manifest.json")).unwrap()).unwrap()
    };
    let sets = ["mtl_monkey_dataset", "mtl_oracle_dataset", "mtl_shuffled_dataset", "tiny-imagenet-200"];
    let all: usize = sets.iter().map(|set| manifest(set)["shards"].as_array().unwrap().len()).sum();
    let of_broken = manifest(sets[1])["shards"].as_array().unwrap().len();
    flip("mtl_monkey_dataset/stimuli-00000.nct");
    fs::write(root.join("mtl_oracle_dataset/manifest.json"), "{").unwrap();
    // A set of which one shard is cut, one is gone and one is damaged.
    flip("tiny-imagenet-200/train-00000.nct");
    fs::remove_file(root.join("tiny-imagenet-200/validation-00000.nct")).unwrap();
    let cut = root.join("tiny-imagenet-200/test-00000.nct");
    let bytes = fs::read(&cut).unwrap();
    fs::write(&cut, &bytes[..bytes.len() - 1]).unwrap();
    let damaged = [
        ("mtl_monkey_dataset", "stimuli-00000.nct", "N201", "field image, block"),
        ("mtl_oracle_dataset", "manifest.json", "N202", "manifest.json"),
        ("tiny-imagenet-200", "test-00000.nct", "N201", "it was cut or replaced"),
        ("tiny-imagenet-200", "train-00000.nct", "N201", "checksum"),
        ("tiny-imagenet-200", "validation-00000.nct", "N203", "validation-00000.nct"),
    ];
    let count = format!("nct: shards: 4 of {} shards and 1 of 4 manifests damaged [N201]", all - of_broken);
    for more in [&[][..], &["--deep"]] {
        let out = output(nct(dir.path()).args(["verify", "--quiet"]).args(more));
        let told = stderr(&out);
        assert_eq!(out.status.code(), Some(2), "{told}");
        assert!(out.stdout.is_empty());
        let lines: Vec<&str> = told.lines().collect();
        assert_eq!((lines.len(), lines[5]), (6, &count[..]), "{told}");
        for ((_, file, code, words), line) in damaged.iter().zip(lines) {
            assert!(
                line.contains(file) && line.contains(words) && line.ends_with(&format!("[{code}]")),
                "{line}"
            );
        }
        let out = output(nct(dir.path()).args(["verify", "--quiet", "--json"]).args(more));
        assert_eq!((out.status.code(), stderr(&out).trim_end()), (Some(2), &count[..]));
        let rows: Vec<serde_json::Value> = String::from_utf8(out.stdout)
            .unwrap()
            .lines()
            .map(|l| serde_json::from_str(l).unwrap())
            .collect();
        assert_eq!(rows.len(), all - of_broken + 1, "a line for every shard and damaged manifest");
        let unsound = rows.iter().filter(|row| row["sound"] == false);
        let named = |row: &serde_json::Value, key: &str| row[key].as_str().unwrap().to_owned();
        let found: Vec<_> =
            unsound.map(|row| (named(row, "dataset"), named(row, "file"), named(row, "code"))).collect();
        let expected = damaged.map(|(set, file, code, _)| (set.to_owned(), file.to_owned(), code.to_owned()));
        assert_eq!(found, expected);
        assert!(rows.iter().all(|row| (row["sound"] == true) == row["error"].is_null()));
    }
}

#[test]
fn statistics_that_are_not_those_of_the_images() {
    let dir = shards();
    let root = dir.path().join("shards");
    let path = root.join("mtl_monkey_dataset/manifest.json");
    let mut manifest: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    manifest["mean"] = serde_json::json!([0.25]);
    fs::write(&path, manifest.to_string()).unwrap();
    succeed(nct(dir.path()).arg("verify"));
    refused(
        nct(dir.path()).args(["verify", "--deep"]),
        &["mtl_monkey_dataset: mean [", "the manifest says [0.25]", "1 of 4 manifests damaged [N101]"],
    );
    // Without all images there are no statistics to compare.
    let stimuli = root.join("mtl_monkey_dataset/stimuli-00000.nct");
    let mut bytes = fs::read(&stimuli).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 4;
    fs::write(&stimuli, bytes).unwrap();
    let told = stderr(&output(nct(dir.path()).args(["verify", "--deep", "--quiet"])));
    assert!(told.lines().count() == 2 && told.contains("stimuli-00000.nct"), "{told}");
}

/// Gray pixels of the picture at `path`, and its width.
fn gray(path: &Path) -> (Vec<u8>, usize) {
    let mut reader = png::Decoder::new(std::io::Cursor::new(fs::read(path).unwrap())).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    reader.next_frame(&mut pixels).unwrap();
    (pixels.chunks_exact(3).map(|rgb| rgb[0]).collect(), reader.info().width as usize)
}

#[test]
fn images_that_are_asked_for_by_id_are_drawn_and_others_are_told() {
    use nct::base::Split;
    let dir = shards();
    let root = dir.path().join("shards");
    let set = nct::shard::ShardSet::open(&root).unwrap();
    let words = |bytes: Vec<u8>| -> Vec<u32> {
        bytes.chunks_exact(4).map(|b| u32::from_le_bytes(b.try_into().unwrap())).collect()
    };
    let read = |shards: Vec<nct::shard::OpenShard>| -> Vec<(u32, Vec<u8>)> {
        let column = |name: &str| shards[0].read_column(shards[0].field(name).unwrap().0).unwrap();
        let images = column("image");
        words(column("id")).into_iter().zip(images.chunks_exact(64 * 64).map(<[u8]>::to_vec)).collect()
    };
    let dataset = |name: &str| set.dataset(name).unwrap();
    let labelled = |split| read(dataset("tiny-imagenet-200").images(split).unwrap());
    let sheet = |folder: &str, ids: &[u32], more: &[&str]| {
        let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
        let mut command = nct(dir.path());
        command
            .args(["inspect", folder, "--contact-sheet", "sheet.png", "--images", &ids.join(",")])
            .args(more);
        command
    };
    let check = |folder: &str, images: &[(u32, Vec<u8>)], more: &[&str]| {
        let ids: Vec<u32> = images.iter().map(|(id, _)| *id).collect();
        succeed(&mut sheet(folder, &ids, more));
        let (pixels, width) = gray(&dir.path().join("sheet.png"));
        let cell = 10 + 2 * 64 + 2;
        assert_eq!(pixels.len() / width, 10 + images.len().div_ceil(16) * cell);
        for (i, (id, image)) in images.iter().enumerate() {
            let (left, top) = (i % 16 * 64, 20 + i / 16 * cell);
            let row = |y: usize| &pixels[(top + y) * width + left..][..64];
            assert!((0..64).all(|y| row(y) == &image[64 * y..][..64]), "image {id} of {folder} {more:?}");
        }
    };
    let one = "shards/tiny-imagenet-200";
    let (train, test, valid) = (labelled(Split::Train), labelled(Split::Test), labelled(Split::Validation));
    // More than a row, in another order than they are stored in, one of them twice.
    let mut some: Vec<_> = train.iter().rev().step_by(2).take(17).cloned().collect();
    some.push(train[0].clone());
    some.push(train[0].clone());
    check(one, &some, &[]);
    check(one, &test[1..3], &["--split", "test"]);
    check("shards/mtl_monkey_dataset", &read(dataset("mtl_monkey_dataset").stimuli().unwrap())[5..8], &[]);
    let (known, held_out) = (train[0].0, valid[0].0);
    let id = held_out.to_string();
    refused(
        &mut sheet(one, &[known, held_out, 9999], &[]),
        &["tiny-imagenet-200", &id, "--split validation"],
    );
    refused(&mut sheet(one, &[known, 9999, held_out], &[]), &["no train image has the id 9999"]);
    refused(&mut sheet("shards", &[known], &[]), &["one data set", "shards/mtl_monkey_dataset"]);
    refused(nct(dir.path()).args(["inspect", "--images", "1"]), &["--contact-sheet"]);
    // Of a neural set, a split has the stimuli that were shown in it.
    let shown = |split| -> Vec<u32> {
        let ids = |session: &str| {
            let shard = &dataset("mtl_monkey_dataset").session(session, split).unwrap()[0];
            words(shard.read_column(shard.field("id").unwrap().0).unwrap())
        };
        dataset("mtl_monkey_dataset").manifest().sessions.iter().flat_map(|s| ids(&s.id)).collect()
    };
    let (seen, tested) = (shown(Split::Train), shown(Split::Test));
    let unseen = *tested.iter().find(|id| !seen.contains(id)).unwrap();
    let stimuli = "shards/mtl_monkey_dataset";
    succeed(&mut sheet(stimuli, &[unseen, tested[0]], &["--split", "test"]));
    refused(&mut sheet(stimuli, &[unseen], &["--split", "train"]), &["no train image", "--split test"]);
}
