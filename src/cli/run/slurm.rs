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

/// Writes the script to `file`, or to `nct-NAME.sbatch` if that is empty.
pub(super) fn write(
    args: &Args,
    study: &Study,
    place: &Place,
    file: &Path,
    show: Show,
) -> anyhow::Result<()> {
    let named = format!("nct-{}.sbatch", study.name);
    let file = if file.as_os_str().is_empty() { Path::new(&named) } else { file };
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

fn script(args: &Args, name: &str, shards: &Path, out: &Path) -> anyhow::Result<String> {
    let given = |option: &str| args.slurm_option.iter().any(|o| o.split('=').next() == Some(option));
    let log = out.join("slurm/%x-%A_%a.log").display().to_string();
    // Slurm takes quotes as a shell does.
    let (name, log) = (word(&format!("nct-{name}")), word(&log));
    let mut options = vec![format!("--job-name={name}"), format!("--array=0-{}", args.workers - 1)];
    for (option, value) in
        [("--output", log.as_str()), ("--cpus-per-task", "4"), ("--gpus", "1"), ("--time", "24:00:00")]
    {
        if !given(option) {
            options.push(format!("{option}={value}"));
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
