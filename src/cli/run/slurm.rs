//! A Slurm array script: every job of the array works on the same study, and claims what it does.

use super::Args;
use super::work::Place;
use crate::cli::exit::Usage;
use crate::cli::show::Show;
use crate::cli::torch::front;
use crate::cli::train::word;
use crate::config::Study;
use crate::runs::write_atomic;
use crate::store::url_of;
use std::path::{Path, PathBuf, absolute};

/// Writes the script to `file`, or to `nct-NAME.sbatch` if none is named.
pub(super) fn write(
    args: &Args,
    study: &Study,
    place: &Place,
    file: Option<&Path>,
    show: Show,
) -> anyhow::Result<()> {
    let named = format!("nct-{}.sbatch", study.name);
    let file = file.unwrap_or(Path::new(&named));
    let out = absolute(&place.out)?;
    std::fs::create_dir_all(out.join("slurm"))?;
    let shards = match url_of(&place.shards) {
        Some(url) => url.into(),
        None => absolute(&place.shards)?,
    };
    write_atomic(file, script(args, &study.name, &shards, &out)?.as_bytes())?;
    let named = word(&file.to_string_lossy());
    show.line(&format!("{}: {} jobs; submit it with: sbatch {named}", file.display(), args.workers));
    Ok(())
}

/// Options that ask for GPUs: with one of them a job gets what it says, and nothing more.
const GPUS: &[&str] =
    &["--gpus", "--gpus-per-node", "--gpus-per-socket", "--gpus-per-task", "--gres", "--tres-per-task", "-G"];

/// Whether the option that the user gave has one of these names. Slurm takes `--time=1:00`, `--time 1:00`, `-t 1:00` and
/// `-t1:00`.
fn is_one_of(given: &str, names: &[&str]) -> bool {
    let given = given.trim_start();
    let long = given.split(|c: char| c == '=' || c.is_whitespace()).next();
    let is_short = |name: &str| !name.starts_with("--") && given.starts_with(name);
    names.iter().any(|name| long == Some(name) || is_short(name))
}

fn script(args: &Args, name: &str, shards: &Path, out: &Path) -> anyhow::Result<String> {
    let log = out.join("slurm/%x-%A_%a.log").display().to_string();
    // Slurm takes quotes as a shell does.
    let (name, log) = (word(&format!("nct-{name}")), word(&log));
    let mut options = vec![format!("--job-name={name}"), format!("--array=0-{}", args.workers - 1)];
    let gpus = (args.device != "cpu").then_some((GPUS, "--gpus=1".to_owned()));
    let usual = [
        (&["--output", "-o"][..], format!("--output={log}")),
        (&["--cpus-per-task", "-c"], "--cpus-per-task=4".to_owned()),
        (&["--time", "-t"], "--time=24:00:00".to_owned()),
    ];
    for (names, option) in usual.into_iter().chain(gpus) {
        if !args.slurm_option.iter().any(|given| is_one_of(given, names)) {
            options.push(option);
        }
    }
    options.extend(args.slurm_option.iter().cloned());
    let options: String = options.iter().map(|option| format!("#SBATCH {option}\n")).collect();
    let mut command = vec![quoted(&front()?)?, "run".to_owned(), quoted(&absolute(&args.recipe)?)?];
    for set in &args.set {
        command.extend(["--set".to_owned(), quoted(&PathBuf::from(set))?]);
    }
    command.extend(["--shards".to_owned(), quoted(shards)?, "--out".to_owned(), quoted(out)?]);
    command.extend(["--device".to_owned(), quoted(&PathBuf::from(&args.device))?]);
    // A job that has nothing to do costs others.
    command.push("--no-wait".to_owned());
    Ok(format!(
        "#!/bin/bash
# Written by nct. Every job takes work that no other has; submit more of them, or the script again, at any time.
{options}#SBATCH --signal=B:TERM@180
#SBATCH --requeue
#SBATCH --open-mode=append
export OMP_NUM_THREADS=\"${{SLURM_CPUS_PER_TASK:-1}}\"
{} &
pid=$!
# Three minutes before the time is over: save.
trap 'kill -TERM \"$pid\" 2>/dev/null' TERM
wait \"$pid\"
code=$?
while kill -0 \"$pid\" 2>/dev/null; do
    wait \"$pid\"
    code=$?
done
if [ \"$code\" -eq 130 ]; then
    scontrol requeue \"${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}\"
fi
exit \"$code\"
",
        command.join(" ")
    ))
}

/// A word for the shell.
fn quoted(path: &Path) -> anyhow::Result<String> {
    let Some(text) = path.to_str() else {
        return Err(Usage(format!("{}: a name that a script cannot hold", path.display())).into());
    };
    Ok(word(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    /// The options of the script that these arguments make, in order.
    fn options(more: &[&str]) -> Vec<String> {
        let words = ["nct", "sweep.toml", "--slurm=job.sh", "--workers=3"].iter().chain(more);
        let args = Cli::try_parse_from(words).unwrap().args;
        let text = script(&args, "sweep", Path::new("/data/shards"), Path::new("/data/runs")).unwrap();
        let lines = text.lines().take_while(|line| *line != "#SBATCH --signal=B:TERM@180");
        lines.filter_map(|line| line.strip_prefix("#SBATCH ")).map(str::to_owned).collect()
    }

    const LOG: &str = "--output=/data/runs/slurm/%x-%A_%a.log";
    const FIRST: [&str; 2] = ["--job-name=nct-sweep", "--array=0-2"];

    fn with(rest: &[&str]) -> Vec<String> {
        FIRST.iter().chain(rest).map(|&option| option.to_owned()).collect()
    }

    #[test]
    fn a_job_asks_for_a_gpu_only_where_one_is_used_and_none_is_asked_for() {
        let usual = [LOG, "--cpus-per-task=4", "--time=24:00:00"];
        let and = |last: &[&'static str]| with(&[&usual[..], last].concat());
        assert_eq!(options(&[]), and(&["--gpus=1"]));
        assert_eq!(options(&["--device=cuda"]), and(&["--gpus=1"]));
        assert_eq!(options(&["--device=cpu"]), and(&[]));
        for given in
            ["--gpus=2", "--gpus 2", "--gpus-per-node=a100:1", "--gres=gpu:1", "--gres gpu:1", "-G 2", "-G2"]
        {
            assert_eq!(options(&[&format!("--slurm-option={given}")]), and(&[given]), "{given}");
        }
        for given in ["--gres-flags=enforce-binding", "--partition=gpu"] {
            assert_eq!(options(&[&format!("--slurm-option={given}")]), and(&["--gpus=1", given]), "{given}");
        }
    }

    #[test]
    fn options_are_the_users_by_their_short_names_too() {
        let given = ["-t1:00:00", "-c 8", "-o my.log", "-G=1"];
        let more = given.map(|option| format!("--slurm-option={option}"));
        assert_eq!(options(&more.each_ref().map(String::as_str)), with(&given));
    }
}
