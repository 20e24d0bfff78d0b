//! What Python sees of shards, by `tools/read_shard.py` and readers of its kind.

use crate::common::{inspect, nct, python, raw, smooth_images, succeed};
use nct::base::{Split, Task};
use nct::load::{Loader, LoaderOptions, Source, Targets, View};
use nct::schedule::{Mix, Schedule, StreamSpec};
use nct::shard::ShardSet;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::sync::Arc;

/// `tools/read_shard.py` was written from `FORMAT.md`.
#[test]
fn a_reader_in_another_language_agrees_on_every_byte() {
    let dir = raw();
    smooth_images(&dir.path().join("raw/tiny-imagenet-200"));
    for (out, options) in
        [("keep", vec![]), ("gray", vec!["--color", "gray", "--responses", "f16", "--level", "3"])]
    {
        succeed(nct(dir.path()).args(["prepare", "raw", "--out", out, "--shard-mb", "1"]).args(options));
    }
    let folders = ["keep", "gray"].map(|name| dir.path().join(name));
    let Some(out) =
        python("read_shard.py", "numpy, PIL, zstandard", &folders.each_ref().map(|f| f.to_str().unwrap()))
    else {
        return;
    };
    let read: Vec<Value> = String::from_utf8(out.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let sets = folders.map(|folder| ShardSet::open(&folder).unwrap());
    let mut seen = 0;
    for (dataset, info) in
        sets.iter().flat_map(ShardSet::datasets).flat_map(|d| d.manifest().shards.iter().map(move |i| (d, i)))
    {
        let shard = dataset.shard(info).unwrap();
        let found = read.iter().find(|row| row["file"] == shard.path().to_str().unwrap()).unwrap();
        assert_eq!(found["rows"], shard.n_rows());
        assert_eq!(found["checksum"], shard.checksum());
        assert_eq!(found["session"].as_str(), info.session.as_deref());
        for (i, field) in shard.meta().schema.0.iter().enumerate() {
            let column = &found["columns"][&field.name];
            assert_eq!(
                column["crc32c"],
                nct::base::digest::crc32c(&shard.read_column(i).unwrap()),
                "{found}"
            );
            let codecs =
                nct::shard::layout::Codec::ALL.map(|codec| column["codecs"][codec.as_str()].as_u64());
            assert_eq!(codecs.map(|n| n.unwrap_or(0) as usize), shard.codecs(i));
        }
        seen += 1;
    }
    assert_eq!(seen, read.len());
    for codec in ["zstd+lines", "planes"] {
        assert!(read.iter().any(|row| !row["columns"]["image"]["codecs"][codec].is_null()), "{codec}");
    }
}

/// What Python sees of the shards in the folders `shards` and `gray` of the folder of its first argument, a line a
/// stream of training; then the examples on shards in docs/python.md, in the same folder.
const DATA_SETS: &str = r#"
import json, os, re, struct, sys, types
sys.dont_write_bytecode = True
folder, tools, docs = sys.argv[1:]
os.chdir(folder)
sys.path.insert(0, tools)
import numpy as np
import read_shard

def bytewise(data, crc):
    crc ^= 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF

data = np.random.default_rng(1).integers(0, 256, (1 << 18) + 9, dtype=np.uint8).tobytes()
for crc in (read_shard._crc32c, read_shard.crc32c):
    assert crc(b"123456789") == 0xE3069283
    for n in range(150):
        assert crc(data[:n]) == bytewise(data[:n], 0) and crc(data[:n], 7) == bytewise(data[:n], 7), n
    # Across the pieces that it is computed in.
    for n in range((1 << 18) - 5, len(data), 7):
        assert crc(data[n:], crc(data[:n])) == crc(data[n - 99:], crc(data[:n - 99])) == crc(data), n
whole = bytewise(data, 0)
assert read_shard._crc32c(data) == read_shard.crc32c(data) == whole

def tell(place, split, source, ids, targets, shown, **more):
    sums = [read_shard.crc32c(part.tobytes()) for part in (ids, targets, shown)]
    print(json.dumps({"place": place, "split": split, "source": source, "sums": sums, **more}))

with open("raw/tiny-imagenet-200/val/val_annotations.txt") as f:
    files = sorted(tuple(reversed(line.split("\t")[:2])) for line in f)
for place in ("shards", "gray"):
    for split in ("train", "validation", "test"):
        path = f"{place}/tiny-imagenet-200"
        found = read_shard.images(path, split)
        assert found.images.dtype == np.uint8 and found.images.shape[1:3] == (64, 64)
        if split == "test":
            assert [found.classes[label] for label in found.labels] == [files[at][0] for at in found.ids]
        counts = np.bincount(found.labels, minlength=len(found.classes)).tolist()
        shown = read_shard.normalise(found.images, found.mean, found.std)
        tell(place, split, "", found.ids, found.labels, shown, class_samples=counts)
        neural = read_shard.neural(f"{place}/mtl_monkey_dataset", split, verify=False)
        for name, session in neural.sessions.items():
            assert len(session.images) == len(session.ids) == len(session.responses)
            for image, at in zip(session.images, session.ids):
                raw = np.load(f"raw/mtl_monkey_dataset/images/{at:06d}.npy")
                assert np.array_equal(image, raw[:, :, None]), at
            shown = read_shard.normalise(session.images, neural.mean, neural.std)
            about = {"id": session.name, "subject": session.subject, "neurons": session.responses.shape[1]}
            about |= {"samples": len(session.rows), "images": len(set(session.ids.tolist()))}
            about |= {"mean": session.mean.tolist(), "variance": session.variance.tolist()}
            tell(place, split, name, session.ids, session.responses, shown, about=about)

def refused(what, read, *args, **more):
    try:
        read(*args, **more)
    except ValueError as error:
        assert what in str(error), error
    else:
        raise AssertionError(f"not refused: {what}")

refused("no split 'val'", read_shard.images, "shards/tiny-imagenet-200", "val")
refused("no labelled images", read_shard.images, "shards/mtl_monkey_dataset", "train")
refused("no data set", read_shard.neural, "shards", "train")
# A bit of the first block's last byte, which is of a plane.
path = "gray/tiny-imagenet-200/test-00000.nct"
with open(path, "rb") as f:
    damaged = bytearray(f.read())
at, stored = struct.unpack_from("<QI", damaged, struct.unpack_from("<Q", damaged, 32)[0])
damaged[at + stored - 1] ^= 1
with open(path, "wb") as f:
    f.write(damaged)
refused("damaged block", read_shard.images, "gray/tiny-imagenet-200", "test")
read_shard.images("gray/tiny-imagenet-200", "test", verify=False)
os.replace("gray/tiny-imagenet-200/validation-00000.nct", path)
refused("not the shard that the manifest names", read_shard.images, "gray/tiny-imagenet-200", "test")

try:
    import torch
except ImportError:
    # Just enough to see that the example hands over what PyTorch takes.
    def from_numpy(array):
        assert isinstance(array, np.ndarray) and array.flags.writeable
        return array
    torch = types.ModuleType("torch")
    torch.from_numpy = from_numpy
    data = types.ModuleType("torch.utils.data")
    data.TensorDataset = lambda *parts: list(zip(*parts))
    sys.modules |= {"torch": torch, "torch.utils": types.ModuleType("torch.utils"), "torch.utils.data": data}
with open(docs, encoding="utf-8") as f:
    (part,) = re.findall("^## Shards\n(.*?)^## ", f.read(), re.M | re.S)
examples = re.findall("^```python\n(.*?)^```$", part, re.M | re.S)
names, out = {}, sys.stdout
sys.stdout = sys.stderr
for example in examples:
    exec(compile(example, docs, "exec"), names)
sys.stdout = out
assert names["means"].shape == (len(names["ids"]), names["session"].responses.shape[1])
assert len(names["labelled"]) == len(names["train"].labels)
assert {name: len(part) for name, part in names["neural"].items()} == \
    {name: len(session.rows) for name, session in names["v1"].sessions.items()}
"#;

/// Checksums of ids, targets and normalised pixels of all records of a stream, in file order.
fn seen(source: Source) -> [u32; 3] {
    let stream = StreamSpec::new(source.task, source.n_records(), 16);
    let schedule = Arc::new(Schedule::new(vec![stream], Mix::InOrder, 0).unwrap());
    let (steps, options) = (0..schedule.steps_per_epoch(), LoaderOptions::default());
    let [mut ids, mut targets, mut pixels] = [const { Vec::new() }; 3];
    for step in Loader::start(&Arc::new(vec![source]), &schedule, 0, steps, options).unwrap() {
        for batch in step.unwrap().batches {
            ids.extend(batch.ids.iter().flat_map(|v| v.to_le_bytes()));
            match batch.targets() {
                Targets::Labels(labels) => targets.extend(labels.iter().flat_map(|v| v.to_le_bytes())),
                Targets::Responses(all) => targets.extend(all.iter().flat_map(|v| v.to_le_bytes())),
                Targets::Both { .. } => panic!("labels of stimuli were not asked for"),
            }
            pixels.extend(batch.pixels.as_f32().unwrap().iter().flat_map(|v| v.to_le_bytes()));
        }
    }
    [ids, targets, pixels].map(|bytes| nct::base::digest::crc32c(&bytes))
}

#[test]
fn python_sees_the_data_sets_that_training_sees() {
    let dir = tempfile::tempdir().unwrap();
    // Training images fill several shards.
    let sizes = "--classes 3 --per-class 80 --val-per-class 6 --neural-images 60 --sessions 2 --neurons 5";
    succeed(nct(dir.path()).arg("synth").arg("raw").args(sizes.split(' ')));
    smooth_images(&dir.path().join("raw/tiny-imagenet-200"));
    for (out, options) in [("shards", vec![]), ("gray", vec!["--color", "gray", "--responses", "f16"])] {
        let more = ["--quiet", "--shard-mb", "1", "--out", out];
        succeed(nct(dir.path()).args(["prepare", "raw"]).args(more).args(options));
    }
    let mut expected = Vec::new();
    for place in ["shards", "gray"] {
        let set = ShardSet::open(&dir.path().join(place)).unwrap();
        let [images, neural] =
            ["tiny-imagenet-200", "mtl_monkey_dataset"].map(|name| set.dataset(name).unwrap());
        let [of_images, of_stimuli] = [images, neural].map(|dataset| {
            let manifest = dataset.manifest();
            View::new(manifest.mean.clone(), manifest.std.clone())
        });
        assert!(place == "gray" || images.images(Split::Train).unwrap().len() > 1, "one shard says less");
        for split in Split::ALL {
            let source = Source::images(images, split, &of_images).unwrap();
            expected.push((place, split, String::new(), seen(source)));
            for source in Source::sessions(neural, Task::V1, split, &of_stimuli, None).unwrap() {
                expected.push((place, split, source.name.clone(), seen(source)));
            }
        }
    }
    let rows = inspect(dir.path());
    let script = dir.path().join("data_sets.py");
    fs::write(&script, DATA_SETS).unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let args = [dir.path().to_path_buf(), root.join("tools"), root.join("docs/python.md")];
    let args = args.each_ref().map(|path| path.to_str().unwrap());
    let Some(out) = python(script.to_str().unwrap(), "numpy, zstandard", &args) else { return };
    let found: Vec<Value> = String::from_utf8(out.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(found.len(), expected.len());
    for (found, (place, split, source, sums)) in found.iter().zip(expected) {
        assert_eq!(found["source"], source);
        assert_eq!((&found["place"], &found["split"]), (&place.into(), &split.as_str().into()));
        assert_eq!(
            found["sums"],
            serde_json::json!(sums),
            "{place} {split} {source}: ids, targets or pixels"
        );
        if place == "gray" {
            continue;
        }
        let dataset = if source.is_empty() { "tiny-imagenet-200" } else { "mtl_monkey_dataset" };
        let row = rows.iter().find(|r| r["dataset"] == dataset && r["split"] == split.as_str()).unwrap();
        if source.is_empty() {
            assert_eq!(found["class_samples"], row["class_samples"]);
            continue;
        }
        let sessions = row["sessions"].as_array().unwrap();
        let session = sessions.iter().find(|s| s["id"] == source.as_str()).unwrap();
        for key in ["id", "subject", "neurons", "samples", "images"] {
            assert_eq!(found["about"][key], session[key], "{key} of {source}");
        }
        for key in ["mean", "variance"] {
            let single = |v: &Value| -> Vec<f32> {
                v[key].as_array().unwrap().iter().map(|n| n.as_f64().unwrap() as f32).collect()
            };
            assert_eq!(single(&found["about"]), single(session), "{key} of {source}");
        }
    }
}

/// `tools/check_prepare.py` reads shards by `FORMAT.md` alone, and raw data with Pillow and numpy.
#[test]
fn an_independent_reader_finds_the_same_pixels_and_responses() {
    let dir = raw();
    smooth_images(&dir.path().join("raw/tiny-imagenet-200"));
    succeed(nct(dir.path()).args(["prepare", "raw"]));
    let folders = ["raw", "shards"].map(|name| dir.path().join(name).display().to_string());
    let Some(out) = python("check_prepare.py", "numpy, PIL, zstandard", &[&folders[0], &folders[1]]) else {
        return;
    };
    assert_eq!(String::from_utf8_lossy(&out.stdout).matches("equal pixel for pixel").count(), 4);
}
