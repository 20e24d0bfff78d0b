//! Going on with a run: what must be as it was, and what the folder says of settings that are not.

use super::super::exit::{Interrupted, Usage};
use super::{Args, identity_from};
use crate::config::{Data, Experiment};
use crate::runs::{Identities, Run, State, write_atomic};
use crate::shard::ShardSet;
use crate::train::{Scheduler, TrainState};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Whether there is a state to go on from. A run that was killed before its first checkpoint has none, and begins anew in
/// its folder; one that has lost its last checkpoint is refused, because its weights would be lost as well.
pub(super) fn has_state(run: &Run) -> anyhow::Result<bool> {
    let last = run.checkpoint("last");
    if last.is_file() {
        return Ok(true);
    }
    let trained = |line: &Value| line["epoch"].as_u64().is_some_and(|epoch| epoch > 0);
    if run.root().join("results.json").is_file() || run.metrics()?.iter().any(trained) {
        let root = run.root().to_string_lossy();
        let way_out =
            format!("`--set {}` begins a new one from its weights", word(&format!("init.from={root}")));
        let what = format!(
            "{}: is gone (`nct runs gc` removes it), and without it the run cannot go on; {way_out}",
            last.display()
        );
        return Err(Usage(what).into());
    }
    Ok(false)
}

/// The run of these settings and data among those of `out` that can be gone on with, or is done.
pub(super) fn begun_before(experiment: &Experiment, args: &Args) -> anyhow::Result<Option<(PathBuf, State)>> {
    let shards = ShardSet::open(&args.shards)?;
    let id = super::identity(experiment, &Data::open(experiment, &shards)?)?;
    let Some((root, state)) = Identities::new(&args.out).runs(&id).into_iter().next() else {
        return Ok(None);
    };
    let why = match state {
        State::Done | State::Stopped => return Ok(Some((root, state))),
        State::Running => "another process trains it now",
        State::Failed => {
            "it ended on a loss that is no number (failure.json); `nct train --resume` tries once more"
        }
    };
    Err(Usage(format!("{}: --continue would go on with this run, and {why}", root.display())).into())
}

/// What rounding depends on and is not as it was, in words.
pub(super) fn other_rounding(run: &Run, provenance: &Value) -> anyhow::Result<Option<String>> {
    let manifest = manifest(run)?;
    let keys = manifest["rounding_depends_on"].as_array().into_iter().flatten().filter_map(Value::as_str);
    // Threads become what they were.
    let mut changed = keys.filter(|key| *key != "torch_threads").filter_map(|key| {
        let [was, is] = [&manifest, provenance].map(|of| kind(&of[key]));
        (was != is).then(|| format!("{key} was {was}, is {is}"))
    });
    let Some(first) = changed.next() else { return Ok(None) };
    let all = changed.fold(first, |all, next| all + "; " + &next);
    Ok(Some(format!(
        "the run goes on where it stopped, and may be rounded otherwise than undisturbed: {all}"
    )))
}

/// Of a device what it is, not which of several or why: `cuda:1 of 4, NVIDIA H200`, `cpu (as asked)`.
fn kind(value: &Value) -> String {
    let Some(text) = value.as_str() else { return value.to_string() };
    let text = text.split(" (").next().unwrap_or(text);
    match text.strip_prefix("cuda:").map(|of| of.split_once(", ")) {
        Some(Some((_, name))) => name.to_owned(),
        Some(None) => "cuda".to_owned(),
        None => text.to_owned(),
    }
}

/// The saved state, if there is one; the shards must still be the same, and so must the weights of a run that
/// has yet to begin.
pub(super) fn resumable(run: &Run, provenance: &Value, begun: bool) -> anyhow::Result<Option<TrainState>> {
    let (path, manifest) = (run.root().join(MANIFEST), manifest(run)?);
    if manifest["datasets"] != provenance["datasets"] {
        let what =
            format!("{}: the run was trained on other shards; give those with --shards", path.display());
        return Err(Usage(what).into());
    }
    // Runs of before the pictures could be given had textures.
    let frost = |of: &Value| of["frost_source"].as_str().unwrap_or("synthetic") == "pictures";
    if !provenance["frost_source"].is_null() && frost(&manifest) != frost(provenance) {
        let what = "the run was trained on frost of another source (frost_source); set NCT_FROST as it was, or unset it";
        return Err(Usage(format!("{}: {what}", path.display())).into());
    }
    // How threads share a sum decides how it is rounded; with other processes it is another sum anyway.
    let as_before =
        manifest["processes"].as_u64().unwrap_or(1) == provenance["processes"].as_u64().unwrap_or(1);
    if let Some(threads) = manifest["torch_threads"].as_i64().filter(|n| *n > 0 && as_before) {
        tch::set_num_threads(threads as i32);
    }
    if begun {
        return Ok(Some(TrainState::read(run)?));
    }
    if manifest["init_blake3"] != provenance["init_blake3"] {
        let what =
            format!("{}: the weights of init.from have changed since; begin a new run", path.display());
        return Err(Usage(what).into());
    }
    run.forget_metrics()?;
    Ok(None)
}

const MANIFEST: &str = "manifest.json";

fn manifest(run: &Run) -> anyhow::Result<Value> {
    let path = run.root().join(MANIFEST);
    let text = std::fs::read_to_string(&path).map_err(|e| Usage(format!("{}: {e}", path.display())))?;
    Ok(serde_json::from_str(&text).map_err(|e| Usage(format!("{}: {e}", path.display())))?)
}

/// Lets the folder say what is trained from here on: scores of before count no more, and settings that changed
/// (`--epochs`) are the run's own, with an identity that is true of them.
pub(super) fn take_up(
    run: &Run,
    (asked, data): (&Experiment, &Data<'_>),
    provenance: &Value,
    state: Option<&TrainState>,
) -> anyhow::Result<()> {
    let config = run.root().join("config.toml");
    let before = Experiment::parse(&run.config()?, &config.display().to_string(), &[])?;
    let changed = before.to_toml() != asked.to_toml();
    let is_over = state.is_some_and(|state| {
        let mut anneal = state.anneal.clone();
        anneal.settings.max_iter = asked.schedule.max_iter;
        asked.modules.is_over(&anneal)
    });
    if changed || !is_over {
        run.forget_results()?;
    }
    if !changed {
        return Ok(());
    }
    let mut manifest = manifest(run)?;
    let identity = match state {
        Some(state) => identity(&manifest, state, asked, data)?,
        None => provenance["identity"].as_str().map(str::to_owned),
    };
    let mut save = |identity: Option<String>| {
        manifest["identity"] = json!(identity);
        write_atomic(&run.root().join(MANIFEST), format!("{manifest:#}\n").as_bytes())
    };
    // Killed in between, the run is of no identity, rather than of one that its settings do not have.
    save(None)?;
    write_atomic(&config, asked.to_toml().as_bytes())?;
    Ok(save(identity)?)
}

/// What a run is of that goes on with the settings `asked`: as if it had had them from the start, if it then were where it
/// is. Else it is of nothing that a recipe describes.
fn identity(
    manifest: &Value,
    state: &TrainState,
    asked: &Experiment,
    data: &Data<'_>,
) -> anyhow::Result<Option<String>> {
    let (anneal, schedule) = (&state.anneal, &asked.schedule);
    // The last epoch ends otherwise than others, and these rates depend on which it is.
    let fits = anneal.epoch < anneal.settings.max_iter.min(schedule.max_iter)
        && !matches!(schedule.scheduler, Scheduler::Cosine | Scheduler::OneCycle);
    // The weights that it started from may be gone by now.
    let init = manifest["init_blake3"].as_str().map(str::to_owned);
    let known = init.is_some() || asked.init.from.as_os_str().is_empty();
    if !(fits && known && manifest["identity"].is_string()) {
        return Ok(None);
    }
    identity_from(asked, data, init).map(Some)
}

/// What is said after saving: the settings, `--epochs` too, are in the run's folder.
pub(super) fn interrupted(run: &Run, args: &Args) -> anyhow::Error {
    let path = |path: &Path| word(&path.to_string_lossy());
    let device = match args.device.as_str() {
        "" | "auto" => String::new(),
        device => format!(" --device {}", word(device)),
    };
    let (shards, root) = (path(&args.shards), path(run.root()));
    Interrupted(format!("saved; go on with `nct train --shards {shards} --resume {root}{device}`")).into()
}

/// A word for the shell, in quotes if it needs them.
pub(crate) fn word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:=,@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_the_same_whichever_of_several_it_is_and_why() {
        let kinds = [
            "cpu (as asked)",
            "cpu (no NVIDIA GPU here)",
            "cuda:0 of 1, NVIDIA H200",
            "cuda:3 of 4, NVIDIA H200",
            "cuda:0 of 1",
        ];
        assert_eq!(
            kinds.map(|text| kind(&json!(text))),
            ["cpu", "cpu", "NVIDIA H200", "NVIDIA H200", "cuda"]
        );
        assert_eq!([json!(2), Value::Null].map(|value| kind(&value)), ["2", "null"]);
        assert_eq!(kind(&json!("AMD EPYC, AVX2")), "AMD EPYC, AVX2");
    }

    #[test]
    fn words_are_quoted_where_a_shell_would_split_or_change_them() {
        for (text, expected) in [
            ("runs/a-1.2_b", "runs/a-1.2_b"),
            ("my runs", "'my runs'"),
            ("it's", r"'it'\''s'"),
            ("$HOME", "'$HOME'"),
            ("", "''"),
        ] {
            assert_eq!(word(text), expected);
        }
    }
}
