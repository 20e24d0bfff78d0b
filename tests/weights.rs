//! Weights files: shown, converted, compared, and as the beginning of a run.

use crate::common::{nct, only_run, output, shards, stderr, succeed};
use nct::model::weights::{Weights, encode};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tch::Tensor;

/// A network of the shapes in `tests/data/weights-wrapped.pth.tar`, on the small sample data.
const TINY: &str = "
name = \"tiny\"
seed = 3
[data]
batch_size = 24
neural_batch_size = 24
[model]
vgg_type = \"bn 4 M 4 M\"
v1_model_layer = 4
hidden = 6
[optimizer]
kind = \"sgd\"
lr = 0.02
[schedule]
max_iter = 1
[evaluation]
add_final_train_eval = false
add_final_test_eval = false
";
/// The same without recordings, with the head that torchvision's networks have.
const PLAIN: [&str; 4] = [
    "data.neural=",
    "mix={kind=\"long\"}",
    "model.classification_readout_type=\"dense\"",
    "model.avg_pool=true",
];

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn weights(dir: &Path, args: &[&str]) -> Command {
    let mut command = nct(dir);
    command.arg("weights").args(args);
    command
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn train(dir: &Path, out: &str, sets: &[&str]) -> Command {
    fs::write(dir.join("tiny.toml"), TINY).unwrap();
    let mut command = nct(dir);
    command.args(["train", "--device", "cpu", "--config", "tiny.toml", "--out", out, "--record"]);
    command.arg(format!("{out}.record"));
    command.args(sets.iter().flat_map(|set| ["--set", set]));
    command
}

fn from(file: &str) -> String {
    format!("init.from=\"{}\"", data(file).display())
}

/// What a run began with, and what it said of the file.
fn begun(dir: &Path, out: &str, sets: &[&str]) -> (Vec<(String, Tensor)>, String) {
    let told = output(&mut train(dir, out, sets));
    assert!(told.status.success(), "{}", stderr(&told));
    let line = stderr(&told).lines().find(|line| line.starts_with("weights of ")).unwrap().to_owned();
    let init = Weights::read(&dir.join(format!("{out}.record/init.safetensors"))).unwrap();
    assert_eq!(lines(&fs::read_to_string(only_run(dir, out).join("metrics.jsonl")).unwrap()).len() % 2, 0);
    (init.tensors, line)
}

fn get<'a>(tensors: &'a [(String, Tensor)], name: &str) -> &'a Tensor {
    &tensors.iter().find(|(n, _)| n == name).unwrap_or_else(|| panic!("no {name}")).1
}

fn refused(command: &mut Command, parts: &[&str]) {
    let out = output(command);
    let message = stderr(&out);
    assert_eq!(out.status.code(), Some(2), "{message}");
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
    assert!(!message.contains("panicked"), "{message}");
}

#[test]
fn a_file_is_listed_as_a_table_and_as_json() {
    let dir = tempfile::tempdir().unwrap();
    let file = data("weights-zip.pth");
    let file = file.to_str().unwrap();
    let text = succeed(&mut weights(dir.path(), &[file]));
    let row = text.lines().find(|line| line.contains(" strided ")).unwrap();
    assert!(row.contains("[2, 2]") && row.contains("f32"), "{row}");
    assert!(text.trim_end().ends_with("16 tensors, 106 values, 428 B"), "{text}");
    let found = lines(&succeed(&mut weights(dir.path(), &[file, "--json"])));
    let half = found.iter().find(|line| line["name"] == "bf16").unwrap();
    let expected = json!({"name": "bf16", "shape": [2, 3], "dtype": "bf16", "values": 6, "bytes": 12, "part": "network"});
    assert_eq!(half, &expected);
    assert_eq!(found.last().unwrap(), &json!({"file": file, "tensors": 16, "values": 106, "bytes": 428}));
}

#[test]
fn a_run_is_listed_by_its_parts_and_converted_without_what_is_no_network() {
    let dir = shards();
    succeed(&mut train(dir.path(), "runs", &["evaluation.add_final_val_eval=false"]));
    let run = only_run(dir.path(), "runs");
    let run = run.to_str().unwrap();
    let count = |found: &[Value], part: &str| found.iter().filter(|line| line["part"] == part).count();
    let best = lines(&succeed(&mut weights(dir.path(), &[run, "--json"])));
    assert!(best.last().unwrap()["file"].as_str().unwrap().ends_with("best.safetensors"));
    // 14 of the shared and unshared layers, 6 of the head, 4 of each session; a log-variance a task.
    assert_eq!([count(&best, "network"), count(&best, "loss"), count(&best, "optimizer")], [28, 2, 0]);
    succeed(&mut weights(dir.path(), &[run, "--to", "net.safetensors"]));
    let net = Weights::read(&dir.path().join("net.safetensors")).unwrap();
    assert_eq!((net.tensors.len(), net.metadata("format"), net.metadata("state")), (28, Some("pt"), None));
    let whole = Weights::read(Path::new(&format!("{run}/checkpoints/best.safetensors"))).unwrap();
    assert!(net.tensors.iter().all(|(name, tensor)| get(&whole.tensors, name) == tensor));
    // Without best weights the last ones are meant; they have the optimiser's state too.
    fs::remove_file(format!("{run}/checkpoints/best.safetensors")).unwrap();
    let last = lines(&succeed(&mut weights(dir.path(), &[run, "--json"])));
    assert!(last.last().unwrap()["file"].as_str().unwrap().ends_with("last.safetensors"));
    assert!(count(&last, "network") == 28 && count(&last, "optimizer") > 0);
    let text = succeed(&mut weights(dir.path(), &[run]));
    assert!(text.lines().last().unwrap().starts_with("of the network: 28 tensors"), "{text}");
    fs::remove_file(format!("{run}/checkpoints/last.safetensors")).unwrap();
    refused(&mut weights(dir.path(), &[run]), &[run, "no weights yet", "--resume"]);
}

#[test]
fn conversion_keeps_names_types_and_bits_and_overwrites_nothing_unasked() {
    let dir = tempfile::tempdir().unwrap();
    for source in ["weights-zip.pth", "weights-old.pth"] {
        let file = data(source);
        let file = file.to_str().unwrap();
        let text = succeed(&mut weights(dir.path(), &[file, "--to", "out.safetensors", "--force"]));
        assert!(text.starts_with("out.safetensors: 16 tensors") && text.contains(source), "{text}");
        let [before, after] = [file, dir.path().join("out.safetensors").to_str().unwrap()]
            .map(|p| Weights::read(Path::new(p)).unwrap());
        for ((a, x), (b, y)) in before.tensors.iter().zip(&after.tensors) {
            assert_eq!((a, x.kind(), x.size()), (b, y.kind(), y.size()));
            assert!(x == y, "{a}");
        }
        assert_eq!(after.tensors.len(), 16);
    }
    let file = data("weights-nested.pth");
    let file = file.to_str().unwrap();
    let bytes = fs::read(dir.path().join("out.safetensors")).unwrap();
    refused(&mut weights(dir.path(), &[file, "--to", "out.safetensors"]), &["out.safetensors", "--force"]);
    assert_eq!(fs::read(dir.path().join("out.safetensors")).unwrap(), bytes);
    refused(&mut weights(dir.path(), &[file, "--to", "out.bin"]), &["out.bin", "end with .safetensors"]);
    succeed(&mut weights(dir.path(), &[file, "--to", "out.pth"]));
    let [before, after] =
        [Path::new(file), &dir.path().join("out.pth")].map(|path| Weights::read(path).unwrap().tensors);
    assert!(before.len() == after.len() && before.iter().zip(&after).all(|(a, b)| a.0 == b.0 && a.1 == b.1));
    refused(&mut weights(dir.path(), &[file, "--to", "no/out.safetensors"]), &["no/out.safetensors"]);
    refused(&mut weights(dir.path(), &[file, "--to", "a.safetensors", "--diff", file]), &["--diff"]);
    refused(&mut weights(dir.path(), &[file, "--force"]), &["--to"]);
    let told = succeed(&mut weights(dir.path(), &[file, "--to", "new.safetensors", "--json"]));
    assert_eq!(
        lines(&told),
        [json!({"file": file, "tensors": 1, "values": 2, "bytes": 8, "to": "new.safetensors"})]
    );
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().collect();
    assert_eq!(left.len(), 3, "nothing half-written stays: {left:?}");
}

/// A safetensors file, as its specification has it, of float tensors with one axis.
fn safetensors(path: &Path, tensors: &[(&str, &[f32])]) {
    let (mut header, mut body) = (serde_json::Map::new(), Vec::new());
    for (name, values) in tensors {
        let start = body.len();
        body.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        header.insert(
            (*name).to_owned(),
            json!({"dtype": "F32", "shape": [values.len()], "data_offsets": [start, body.len()]}),
        );
    }
    let header = Value::Object(header).to_string();
    let length = (header.len() as u64).to_le_bytes();
    fs::write(path, [&length[..], header.as_bytes(), &body].concat()).unwrap();
}

#[test]
fn differences_are_told_in_pytorch_s_words() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    safetensors(&path("a.st"), &[("a", &[1.0, 2.0]), ("b", &[1.0]), ("c", &[0.0]), ("d", &[1.0, 2.0])]);
    safetensors(
        &path("b.st"),
        &[("module.a", &[1.0, 2.0]), ("module.c", &[-0.25]), ("module.d", &[1.0]), ("module.e", &[1.0])],
    );
    let told = output(&mut weights(dir.path(), &["a.st", "--diff", "b.st"]));
    assert!(stderr(&told).contains("such as module.a to a"), "{}", stderr(&told));
    let text = String::from_utf8(told.stdout).unwrap();
    for part in [
        "Missing key(s) in state_dict: \"b\".",
        "Unexpected key(s) in state_dict: \"e\".",
        "size mismatch for d: copying a param with shape [1] from checkpoint, the shape in current model is [2].",
        "2.500e-1",
        "1 of 5 tensors are equal",
    ] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    let found = lines(&succeed(&mut weights(dir.path(), &["a.st", "--diff", "b.st", "--json"])));
    let status: Vec<_> = found[..5].iter().map(|line| line["status"].as_str().unwrap()).collect();
    assert_eq!(status, ["equal", "missing", "different", "mismatched", "unexpected"]);
    assert_eq!((&found[2]["max_abs_diff"], &found[1]["max_abs_diff"]), (&json!(0.25), &Value::Null));
    assert_eq!((&found[0]["other_name"], &found[1]["other_name"]), (&json!("module.a"), &Value::Null));
    assert_eq!((&found[3]["shape"], &found[3]["other_shape"]), (&json!([2]), &json!([1])));
    let total = found.last().unwrap();
    assert_eq!((&total["equal"], &total["tensors"], &total["same"]), (&json!(false), &json!(5), &json!(1)));
    let same = lines(&succeed(&mut weights(dir.path(), &["a.st", "--diff", "a.st", "--json"])));
    assert_eq!(same.last().unwrap()["equal"], json!(true));
    // The two formats of PyTorch hold the same here.
    let [zip, old] = ["weights-zip.pth", "weights-old.pth"].map(data);
    let args = [zip.to_str().unwrap(), "--diff", old.to_str().unwrap(), "--json"];
    assert_eq!(lines(&succeed(&mut weights(dir.path(), &args))).last().unwrap()["same"], 16);
}

#[test]
fn bad_files_are_named_with_the_way_out() {
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, bytes: &[u8]| fs::write(dir.path().join(name), bytes).unwrap();
    put("text.pth", b"hello");
    put("empty.safetensors", b"");
    let zip = fs::read(data("weights-zip.pth")).unwrap();
    put("short.pth", &zip[..zip.len() - 1]);
    let old = fs::read(data("weights-old.pth")).unwrap();
    put("short-old.pth", &old[..old.len() - 1]);
    fs::create_dir(dir.path().join("folder")).unwrap();
    for (name, parts) in [
        (
            "text.pth",
            &["neither a safetensors file nor one of torch.save", "safetensors.torch.save_file"][..],
        ),
        ("empty.safetensors", &["neither", "safetensors.torch.save_file"]),
        ("short.pth", &["cut short", "copy it again"]),
        ("short-old.pth", &["cut short", "copy it again"]),
        ("folder", &["is no run", "nct train"]),
        ("absent.pth", &["No such file"]),
    ] {
        refused(&mut weights(dir.path(), &[name]), &[&[name], parts].concat());
        let good = data("weights-nested.pth");
        refused(&mut weights(dir.path(), &[good.to_str().unwrap(), "--diff", name]), &[name]);
    }
    for (name, part) in
        [("weights-evil.pth", "posix.system"), ("weights-several.pth", "save the one you mean")]
    {
        refused(&mut weights(dir.path(), &[data(name).to_str().unwrap()]), &[name, part]);
    }
}

#[test]
fn torchvision_s_names_load_into_a_plain_network_and_train() {
    let dir = shards();
    let from = from("weights-torchvision.pth");
    let (init, told) = begun(dir.path(), "plain", &[&PLAIN[..], &[&from, "init.strict=true"]].concat());
    assert!(told.ends_with("weights-torchvision.pth: all of it"), "{told}");
    let file = Weights::read(&data("weights-torchvision.pth")).unwrap();
    assert_eq!(file.tensors.len(), 20);
    for (name, tensor) in &file.tensors {
        assert!(get(&init, name) == tensor, "{name}");
    }
    let run = only_run(dir.path(), "plain");
    let metrics = lines(&fs::read_to_string(run.join("metrics.jsonl")).unwrap());
    assert_eq!(metrics.last().unwrap()["epoch"], 1, "one epoch was trained");
}

#[test]
fn torchvision_s_names_load_into_the_co_trained_network_and_the_rest_is_told() {
    let dir = shards();
    let from = from("weights-torchvision.pth");
    let (init, told) = begun(dir.path(), "mtl", &[&from]);
    let file = Weights::read(&data("weights-torchvision.pth")).unwrap();
    for (name, place) in [
        ("features.0.weight", "mtl_vgg_core.v1_block.0.weight"),
        ("features.1.running_var", "mtl_vgg_core.v1_block.1.running_var"),
        ("features.4.weight", "mtl_vgg_core.unshared_block.0.weight"),
        ("features.5.num_batches_tracked", "mtl_vgg_core.unshared_block.1.num_batches_tracked"),
        ("classifier.6.bias", "classification_readout.6.bias"),
    ] {
        assert!(get(&file.tensors, name) == get(&init, place), "{name}");
    }
    // The head's linear layers do not fit 1 x 1 convolutions, and torchvision knows no readouts.
    for part in [
        ": 17 tensors taken;",
        "missing: v1_readout.3631896544452.mu,",
        "of another shape: classification_readout.0.weight ([6, 196], expected [6, 4, 1, 1])",
    ] {
        assert!(told.contains(part), "{part:?} is not in {told}");
    }
    assert!(!told.contains("unexpected"), "{told}");
    let mut strict = train(dir.path(), "strict", &[&from, "init.strict=true"]);
    let parts = ["weights-torchvision.pth", "missing v1_readout.3631896544452.mu", "and 3 more"];
    refused(&mut strict, &parts);
    assert!(!dir.path().join("strict").exists(), "no run is begun");
}

#[test]
fn wrappers_and_prefixes_come_off_and_a_run_begins_with_every_bit_that_is_within_bounds() {
    let dir = shards();
    let file = from("weights-wrapped.pth.tar");
    let (init, told) = begun(dir.path(), "first", &[&file, "init.strict=true", "schedule.max_iter=0"]);
    assert!(told.ends_with("weights-wrapped.pth.tar: all of it"), "{told}");
    let wrapped = Weights::read(&data("weights-wrapped.pth.tar")).unwrap();
    assert_eq!(wrapped.tensors.len(), 28);
    for (name, tensor) in &wrapped.tensors {
        let found = get(&init, name.strip_prefix("module.net.").unwrap());
        if name.rsplit('.').next() == Some("sigma") {
            assert!(tensor.min().double_value(&[]) < 0.0 && *found == tensor.clamp_min(0.0), "{name}");
        } else {
            assert!(found == tensor, "{name}");
        }
    }
    let run = only_run(dir.path(), "first");
    let run = run.to_str().unwrap();
    let args = [run, "--diff", &data("weights-wrapped.pth.tar").display().to_string(), "--json"];
    let diff = lines(&succeed(&mut weights(dir.path(), &args)));
    let total = diff.last().unwrap();
    assert_eq!((&total["same"], &total["different"]), (&json!(26), &json!(2)), "{diff:?}");
    // A run begins with another run's network, strictly too: what else its checkpoint holds is no part of it.
    for checkpoint in ["best", "last"] {
        let from = format!("init.from={run:?}");
        let sets = [&from, "init.strict=true", &format!("init.checkpoint={checkpoint:?}")];
        let (again, told) = begun(dir.path(), checkpoint, &sets);
        assert!(told.ends_with(": all of it"), "{told}");
        let names = again.iter().filter(|(name, _)| !name.starts_with("loss."));
        names.for_each(|(name, tensor)| assert!(get(&init, name) == tensor, "{name}"));
    }
}

/// Spec/models 2.3: the reference clamps them in every pass, the first one too.
#[test]
fn readouts_that_are_out_of_bounds_train_as_those_on_them() {
    let dir = shards();
    let wrapped = Weights::read(&data("weights-wrapped.pth.tar")).unwrap();
    let trained = [("out", -0.05, -1.5), ("on", 0.0, -1.0)].map(|(out, sigma, mu)| {
        let filled = |(name, tensor): &(String, Tensor)| {
            let leaf = name.rsplit('.').next().unwrap();
            let value = [("sigma", sigma), ("mu", mu)].into_iter().find(|(of, _)| *of == leaf);
            (name.clone(), value.map_or_else(|| tensor.copy(), |(_, value)| tensor.full_like(value)))
        };
        let tensors: Vec<_> = wrapped.tensors.iter().map(filled).collect();
        let file = dir.path().join(format!("{out}.safetensors"));
        fs::write(&file, encode(&tensors, &[]).unwrap()).unwrap();
        let (_, told) = begun(dir.path(), out, &[&format!("init.from={file:?}"), "init.strict=true"]);
        assert!(told.ends_with(": all of it"), "{told}");
        fs::read(only_run(dir.path(), out).join("checkpoints/last.safetensors")).unwrap()
    });
    assert!(trained[0] == trained[1], "the first update was another");
}

#[test]
fn what_does_not_fit_is_told_and_nothing_that_fits_is_an_error() {
    let dir = shards();
    let file = from("weights-wrapped.pth.tar");
    let narrow = [&file, "data.neural=", "mix={kind=\"long\"}", "model.hidden=5"];
    let (_, told) = begun(dir.path(), "narrow", &narrow);
    for part in [
        ": 15 tensors taken;",
        "unexpected: v1_readout.3631896544452.bias,",
        "of another shape: classifier.0.weight ([6, 4, 1, 1], expected [5, 4, 1, 1])",
    ] {
        assert!(told.contains(part), "{part:?} is not in {told}");
    }
    assert!(!told.contains("missing"), "{told}");
    let other = from("weights-nested.pth");
    refused(&mut train(dir.path(), "none", &[&other]), &["weights-nested.pth", "nothing of it fits"]);
    refused(&mut train(dir.path(), "none", &["init.from=\"absent.pth\""]), &["absent.pth", "init.from"]);
}
