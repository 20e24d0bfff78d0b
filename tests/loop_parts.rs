//! What may be added to training, and what may go wrong in it.

use crate::common::{nct, only_run, output, shards, stderr, succeed};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

const TINY: &str = "
name = \"parts\"
seed = 5
[data]
batch_size = 16
neural_batch_size = 16
[model]
vgg_type = \"bn 8 M 16 M 16 M\"
v1_model_layer = 8
hidden = 16
[optimizer]
kind = \"sgd\"
lr = 0.02
momentum = 0.75
weight_decay = 5e-4
[schedule]
patience = 20
lr_decay_steps = 1
max_iter = 3
[evaluation]
add_final_train_eval = false
add_final_val_eval = false
";

fn command(dir: &Path, out: &str, sets: &[&str]) -> std::process::Command {
    fs::write(dir.join("parts.toml"), TINY).unwrap();
    let mut command = nct(dir);
    command.args(["train", "--device", "cpu", "--config", "parts.toml", "--out", out]);
    for set in sets {
        command.args(["--set", set]);
    }
    command
}

fn train(dir: &Path, out: &str, sets: &[&str]) -> PathBuf {
    succeed(&mut command(dir, out, sets));
    only_run(dir, out)
}

fn metrics(run: &Path) -> Vec<Value> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn tensor(run: &Path, checkpoint: &str, name: &str) -> Vec<f32> {
    let file = fs::read(run.join(format!("checkpoints/{checkpoint}.safetensors"))).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&file).unwrap();
    let bytes = tensors.tensor(name).unwrap().data().to_vec();
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

const FIRST: &str = "mtl_vgg_core.v1_block.0.weight";

#[test]
fn a_loss_that_is_no_number_stops_or_is_left_out_by_name() {
    let dir = shards();
    // Infinite at the first update, before any weight moved.
    let broken = ["data.mean=[1e38]", "data.std=[1e-38]"];
    let told = output(&mut command(dir.path(), "stop", &broken));
    assert_eq!(told.status.code(), Some(1), "{}", stderr(&told));
    for part in ["update 0", "epoch 1", "img_classification", "images", "on_nonfinite"] {
        assert!(stderr(&told).contains(part), "{part}: {}", stderr(&told));
    }
    let run = only_run(dir.path(), "stop");
    let failure: Value = serde_json::from_slice(&fs::read(run.join("failure.json")).unwrap()).unwrap();
    assert_eq!((failure["ids"].as_array().unwrap().len(), failure["step"].as_u64()), (16, Some(0)));
    assert!(
        run.join("checkpoints/failed.safetensors").is_file()
            && run.join("checkpoints/last.safetensors").is_file()
    );

    let skip =
        [&broken[..], &["numerics.on_nonfinite=skip", "schedule.max_iter=1", "schedule.to_monitor=[\"v1\"]"]]
            .concat();
    let told = output(&mut command(dir.path(), "skip", &skip));
    let run = only_run(dir.path(), "skip");
    let line = &metrics(&run)[2];
    assert!(line["skipped_updates"].as_u64().unwrap() > 0, "{line}; {}", stderr(&told));
    // Neither weights nor running statistics took anything from them.
    assert_eq!(tensor(&run, "last", FIRST), tensor(&only_run(dir.path(), "stop"), "last", FIRST));
    assert!(tensor(&run, "last", "mtl_vgg_core.v1_block.1.running_var").iter().all(|v| *v == 1.0));
}

#[test]
fn weights_of_another_run_are_the_start_and_frozen_ones_stay() {
    let dir = shards();
    let first = train(dir.path(), "first", &[]);
    let from = format!("init.from=\"{}\"", first.display());
    // Another head: what fits is taken, and the rest is told.
    let sets = [
        &from,
        "model.hidden=24",
        "schedule.max_iter=1",
        "freeze.parameters=[\"v1_block\"]",
        "freeze.norms_below=8",
    ];
    let told = output(&mut command(dir.path(), "second", &sets));
    assert!(
        told.status.success() && stderr(&told).contains("of another shape: classification_readout.0.weight"),
        "{}",
        stderr(&told)
    );
    let second = only_run(dir.path(), "second");
    for name in [FIRST, "mtl_vgg_core.v1_block.1.running_mean"] {
        assert_eq!(tensor(&first, "best", name), tensor(&second, "last", name), "{name}");
    }
    let unshared = "mtl_vgg_core.unshared_block.0.weight";
    assert_ne!(tensor(&first, "best", unshared), tensor(&second, "last", unshared));
    // A plain network takes the layers by their place; strictly it does not.
    let plain = ["data.neural=", "mix={kind=\"long\"}", "schedule.max_iter=0", &from];
    let third = train(dir.path(), "third", &plain);
    assert_eq!(tensor(&first, "best", FIRST), tensor(&third, "last", "features.0.weight"));
    assert_eq!(tensor(&first, "best", unshared), tensor(&third, "last", "features.8.weight"));
    let strict = output(&mut command(dir.path(), "fourth", &[&from, "init.strict=true", "model.hidden=24"]));
    assert_eq!(strict.status.code(), Some(2));
    assert!(stderr(&strict).contains("classification_readout.0.weight"), "{}", stderr(&strict));
    // Once it has begun, a run does not need what it began from.
    fs::remove_dir_all(&first).unwrap();
    let resume = ["train", "--device", "cpu", "--epochs", "2", "--resume", second.to_str().unwrap()];
    succeed(nct(dir.path()).args(resume));
}

#[test]
fn layers_are_drawn_anew_at_the_start_and_again_and_again() {
    let dir = shards();
    let first = train(dir.path(), "first", &["schedule.max_iter=0"]);
    let head = "classification_readout.6.weight";
    let reset =
        train(dir.path(), "reset", &["schedule.max_iter=0", "freeze.reset=[\"classification_readout.6\"]"]);
    assert_ne!(tensor(&first, "last", head), tensor(&reset, "last", head));
    assert_eq!(tensor(&first, "last", FIRST), tensor(&reset, "last", FIRST));
    let module = "modules.readout_reset={layers=[\"classification_readout.6\"],updates=2}";
    let [once, twice, without] = [("once", module), ("twice", module), ("without", "seed=5")]
        .map(|(out, set)| train(dir.path(), out, &["schedule.max_iter=1", set]));
    assert_eq!(tensor(&once, "last", head), tensor(&twice, "last", head));
    assert_ne!(tensor(&once, "last", head), tensor(&without, "last", head));
}

#[test]
fn representation_matching_and_rdm_prediction_add_their_losses() {
    let dir = shards();
    let plain = train(dir.path(), "plain", &["schedule.max_iter=1"]);
    let matching = "modules.representation_matching={representation=\"unshared_block.3\",lambda=0.5}";
    let rdm = format!("modules.rdm_prediction={{run=\"{}\",representation=\"v1_block.7\"}}", plain.display());
    // Layers have the names that `--dry-run` lists.
    let place = matching.replace("unshared_block.3", "pool3");
    let target = rdm.replace("representation", "target=\"relu2_1\",representation");
    for (out, set) in [("matching", matching), ("place", &place), ("rdm", &rdm), ("target", &target)] {
        let run = train(dir.path(), out, &["schedule.max_iter=1", set]);
        let line =
            metrics(&run).into_iter().find(|l| l["epoch"] == 1 && l["task"] == "img_classification").unwrap();
        let (part, whole) =
            (line["train_module_loss"].as_f64().unwrap(), line["train_loss"].as_f64().unwrap());
        assert!(part > 0.0 && part < whole, "{out}: {line}");
        assert_ne!(tensor(&plain, "last", FIRST), tensor(&run, "last", FIRST));
    }
    let same = ["matching", "place"].map(|out| tensor(&only_run(dir.path(), out), "last", FIRST));
    assert_eq!(same[0], same[1]);
    let lacks = rdm.replace("representation", "target=\"relu9_9\",representation");
    let told = output(&mut command(dir.path(), "lacks", &[&lacks]));
    assert_eq!(told.status.code(), Some(2), "{}", stderr(&told));
    assert!(stderr(&told).contains("relu9_9") && !dir.path().join("lacks").exists(), "{}", stderr(&told));
    let wrong = matching.replace("unshared_block.3", "unshared_block.300");
    let told = output(&mut command(dir.path(), "wrong", &[&wrong]));
    assert_eq!(told.status.code(), Some(2), "{}", stderr(&told));
    assert!(
        stderr(&told).contains("unshared_block.300") && stderr(&told).contains("unshared_block.3 (pool3)"),
        "{}",
        stderr(&told)
    );
    assert!(!dir.path().join("wrong").exists(), "told before anything is written");
}

#[test]
fn lottery_tickets_stay_pruned_and_go_on_after_an_interruption() {
    let dir = shards();
    let sets = [
        "modules.lottery_ticket={rounds=2,round_length=1,percent_to_prune=75}",
        "schedule.max_iter=4",
        "checkpoint.every_updates=1",
        "checkpoint.keep_last=2",
        "checkpoint.keep_best=1",
    ];
    let run = train(dir.path(), "whole", &sets);
    let zeros = |values: &[f32]| values.iter().filter(|v| **v == 0.0).count() as f64 / values.len() as f64;
    assert!((zeros(&tensor(&run, "last", FIRST)) - 0.75).abs() < 0.01);
    let alive: Vec<f64> =
        metrics(&run).iter().step_by(2).map(|l| l["weights_alive"].as_f64().unwrap()).collect();
    assert!(alive.iter().zip([1.0, 1.0, 0.5, 0.25, 0.25]).all(|(a, b)| (a - b).abs() < 0.01), "{alive:?}");
    // The last two epochs and perhaps a better one.
    let kept = fs::read_dir(run.join("checkpoints"))
        .unwrap()
        .filter(|e| e.as_ref().unwrap().file_name().to_str().unwrap().starts_with("epoch-"));
    assert!((2..=3).contains(&kept.count()) && run.join("checkpoints/epoch-0004.safetensors").is_file());
    // Killed anywhere, it ends the same.
    let mut child = command(dir.path(), "killed", &sets).stderr(std::process::Stdio::null()).spawn().unwrap();
    while !only_checkpoint(dir.path(), "killed") {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it could be killed");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let killed = only_run(dir.path(), "killed");
    succeed(nct(dir.path()).args(["train", "--device", "cpu", "--resume", killed.to_str().unwrap()]));
    for name in ["last", "best"] {
        let [a, b] =
            [&run, &killed].map(|r| fs::read(r.join(format!("checkpoints/{name}.safetensors"))).unwrap());
        assert!(a == b, "{name} differs");
    }
}

/// Spec/trainer 3.8: or to re-initialise.
#[test]
fn survivors_of_a_lottery_return_to_their_beginning_or_are_drawn_anew() {
    let dir = shards();
    // Weights do not move by themselves.
    let sets = ["schedule.max_iter=2", "optimizer.lr=1e-30"];
    let runs = [("back", false), ("anew", true), ("again", true)].map(|(out, reinit)| {
        let ticket = format!("rounds=1,round_length=1,percent_to_prune=50,reinit={reinit}");
        let ticket = format!("modules.lottery_ticket={{{ticket}}}");
        train(dir.path(), out, &[&sets[..], &[&ticket]].concat())
    });
    let initial = tensor(&runs[0], "last", &format!("modules.lottery_ticket.{FIRST}.initial"));
    let [back, anew, again] = runs.map(|run| tensor(&run, "last", FIRST));
    for ((&start, back), anew) in initial.iter().zip(&back).zip(&anew) {
        assert!([0.0, start].contains(back) && (*anew == 0.0) == (*back == 0.0));
        assert!(*anew == 0.0 || !initial.contains(anew), "{anew} was there at the beginning");
    }
    assert_eq!(back.iter().filter(|v| **v == 0.0).count(), back.len() / 2);
    assert_eq!(anew, again, "as the seed says");
}

#[test]
fn a_task_to_which_freezing_leaves_nothing_is_told() {
    let dir = shards();
    let sets = ["freeze.all_but=[\"classification_readout\"]", "loss.loss_weighing=false"];
    let told = output(&mut command(dir.path(), "runs", &sets));
    assert_eq!(told.status.code(), Some(2), "{}", stderr(&told));
    assert!(stderr(&told).contains("the loss of v1 depends on"), "{}", stderr(&told));
}

#[test]
fn early_stopping_ends_a_lottery_ticket_and_the_last_one_ends_the_run() {
    let dir = shards();
    let sets = [
        "modules.lottery_ticket={rounds=2,round_length=40,percent_to_prune=75}",
        "schedule.max_iter=90",
        "schedule.lr_decay_steps=1",
        "schedule.patience=0",
        // Nothing is so much better.
        "schedule.threshold=1000",
        "schedule.scheduler=\"none\"",
        "schedule.lr_warmup=1",
    ];
    let run = train(dir.path(), "runs", &sets);
    let of_epochs: Vec<Value> = metrics(&run).into_iter().filter(|line| line["task"] == "v1").collect();
    let of = |key: &str| -> Vec<f64> { of_epochs.iter().map(|line| line[key].as_f64().unwrap()).collect() };
    let (alive, rates) = (of("weights_alive"), of("lr"));
    // A ticket's first scores count as better than none; the network that was not trained has some already.
    assert_eq!(of("epoch"), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    assert!(
        alive.iter().zip([1.0, 1.0, 0.5, 0.5, 0.25, 0.25]).all(|(a, b)| (a - b).abs() < 0.01),
        "{alive:?}"
    );
    // Every ticket is warmed up.
    assert!(rates[1] < rates[3] / 2.0 && rates[1] == rates[2] && rates[2] == rates[4], "{rates:?}");
    assert!(run.join("results.json").is_file());
}

#[test]
fn epochs_keep_their_own_weights_where_the_best_ones_return() {
    let dir = shards();
    let sets =
        ["schedule.patience=0", "schedule.lr_decay_steps=6", "schedule.max_iter=6", "checkpoint.keep_last=6"];
    let run = train(dir.path(), "runs", &sets);
    let epochs = metrics(&run).iter().filter_map(|line| line["epoch"].as_u64()).max().unwrap();
    let of = |epoch: u64| tensor(&run, &format!("epoch-{epoch:04}"), FIRST);
    let all: Vec<Vec<f32>> = (1..=epochs).map(of).collect();
    assert!(metrics(&run).iter().any(|line| line["patience"] == 0), "the best weights never returned");
    assert!((0..all.len()).all(|i| !all[..i].contains(&all[i])), "two epochs have the same weights");
}

#[test]
fn classes_that_there_are_not_are_told_before_training() {
    let dir = shards();
    let told = output(&mut command(dir.path(), "runs", &["evaluation.return_classification_subset=300"]));
    assert_eq!(told.status.code(), Some(2), "{}", stderr(&told));
    assert!(stderr(&told).contains("300") && !dir.path().join("runs").exists(), "{}", stderr(&told));
}

#[test]
fn in_domain_images_are_corrupted_as_in_training() {
    let dir = shards();
    let distort = "data.augment.distort={share=1.0,kinds=[\"fog\"],severities=[5]}";
    let run = train(dir.path(), "runs", &[distort, "schedule.max_iter=1"]);
    let name = run.to_str().unwrap();
    let loss = |args: &[&str], mode: &str| {
        let rows = succeed(
            nct(dir.path()).args(["eval", name, "--json", "--device", "cpu", "--split", "test"]).args(args),
        );
        let rows: Vec<Value> = rows.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let is = |row: &&Value| {
            row["task"] == "img_classification"
                && row["metric"] == "loss"
                && (row["mode"] == mode || mode.is_empty())
        };
        rows.iter().find(is).unwrap()["value"].as_f64().unwrap()
    };
    let results = fs::read_to_string(run.join("results.json")).unwrap();
    let results: Value = serde_json::from_str(&results).unwrap();
    let of = |mode: &str| {
        let rows = results.as_array().unwrap();
        let is = |row: &&Value| {
            row["mode"] == mode && row["metric"] == "loss" && row["task"] == "img_classification"
        };
        rows.iter().find(is).unwrap()["value"].as_f64().unwrap()
    };
    let clean = loss(&[], "");
    assert!((of("FinalTestOutDomain") - clean).abs() < 1e-9, "the other domain is clean");
    assert!((of("FinalTestInDomain") - clean).abs() > 1e-3, "its own is not");
}

fn only_checkpoint(dir: &Path, out: &str) -> bool {
    let Ok(mut runs) = fs::read_dir(dir.join(out)) else { return false };
    runs.next().is_some_and(|run| run.unwrap().path().join("checkpoints/epoch-0002.safetensors").is_file())
}

#[test]
fn a_dry_run_says_what_it_would_cost_and_writes_nothing() {
    let dir = shards();
    let told = succeed(command(dir.path(), "none", &[]).args(["--dry-run", "--json"]));
    let lines: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (summary, layers) = lines.split_last().unwrap();
    let parameters: u64 = layers.iter().map(|l| l["parameters"].as_u64().unwrap()).sum();
    assert_eq!(summary["parameters"].as_u64(), Some(parameters));
    assert!(layers.iter().any(|l| l["layer"] == "mtl_vgg_core.v1_block.0"));
    for key in ["updates_per_epoch", "state_bytes", "activation_bytes"] {
        assert!(summary[key].as_u64().unwrap() > 0, "{key}");
    }
    let streams = summary["streams"].as_array().unwrap();
    let of = |key: &str| streams.iter().map(|stream| stream[key].as_u64().unwrap()).collect::<Vec<_>>();
    assert_eq!(
        streams.iter().map(|s| s["task"].as_str().unwrap()).collect::<Vec<_>>(),
        ["v1", "v1", "img_classification"]
    );
    for (records, (batches, size)) in
        of("records_per_epoch").iter().zip(of("batches_per_epoch").iter().zip(of("batch_size")))
    {
        assert!(*batches > 0 && *records > size * (batches - 1) && *records <= size * batches, "{streams:?}");
    }
    assert!(streams[2]["passes_per_epoch"].as_f64().unwrap() >= 1.0 && of("records").iter().all(|n| *n > 0));
    assert!(summary["flops_per_epoch"].as_f64().unwrap() > 1e6 && !dir.path().join("none").exists());
    let table = succeed(command(dir.path(), "none", &[]).arg("--dry-run"));
    assert!(table.contains("updates per epoch") && table.contains("classification_readout.6"));
    assert!(table.contains("passes per epoch"), "{table}");
}

#[test]
fn bfloat16_and_channels_last_train_near_single_precision() {
    let dir = shards();
    let loss = |out: &str, sets: &[&str]| {
        let run = train(dir.path(), out, &[sets, &["schedule.max_iter=1", "model.dropout=0"]].concat());
        let line =
            metrics(&run).into_iter().find(|l| l["epoch"] == 1 && l["task"] == "img_classification").unwrap();
        line["train_loss"].as_f64().unwrap()
    };
    let single = loss("single", &[]);
    for (out, sets, bound) in [
        ("last", &["numerics.channels_last=true"][..], 1e-3),
        ("half", &["numerics.precision=\"bf16\""][..], 5e-2),
    ] {
        let found = loss(out, sets);
        assert!((found - single).abs() < bound * single, "{out}: {found}, single precision {single}");
    }
}

#[test]
fn classes_of_stimuli_are_learned_beside_their_responses() {
    let dir = shards();
    let first_losses = |out: &str, sets: &[&str]| {
        let record = dir.path().join(format!("{out}-record"));
        let mut command = command(dir.path(), out, &[&["schedule.max_iter=1"], sets].concat());
        succeed(command.arg("--record").arg(&record));
        let file = fs::read(record.join("update-000000.safetensors")).unwrap();
        let (_, metadata) = safetensors::SafeTensors::read_metadata(&file).unwrap();
        let plan = &metadata.metadata().as_ref().unwrap()["plan"];
        let plan: Value = serde_json::from_str(plan).unwrap();
        let losses = plan["batches"].as_array().unwrap().iter().map(|b| b["loss"].as_f64().unwrap());
        losses.collect::<Vec<_>>()
    };
    let (alone, both) = (first_losses("alone", &[]), first_losses("both", &["data.neural_labels=true"]));
    // The first batch is a session's: the cross-entropy of an untrained head over three classes comes on top.
    let added = both[0] - alone[0];
    assert!((0.5..2.5).contains(&added), "{alone:?} and {both:?}");
    let samples = |out: &str, task: &str| {
        let lines = metrics(&only_run(dir.path(), out));
        let line = lines.iter().find(|l| l["epoch"] == 1 && l["task"] == task).unwrap();
        line["train_samples"].as_u64().unwrap()
    };
    assert_eq!(samples("both", "v1"), samples("alone", "v1"));
    let labelled = samples("alone", "img_classification") + samples("alone", "v1");
    assert_eq!(samples("both", "img_classification"), labelled);

    let without = output(&mut command(
        dir.path(),
        "none",
        &["data.images=", "mix.kind=long", "data.neural_labels=true"],
    ));
    assert_eq!(without.status.code(), Some(2), "{}", stderr(&without));
    assert!(stderr(&without).contains("data.neural_labels needs labelled images"), "{}", stderr(&without));
}
