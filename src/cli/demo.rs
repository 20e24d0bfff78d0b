//! `nct demo`: sample data, shards, training and evaluation in one go.

use super::robustness::SuiteArgs;
use super::show::{Show, out, table};
use super::{eval, mei, prepare, reconstruct, report, rsa, synth, train};
use crate::config::Experiment;
use crate::corruption::{Group, Profile};
use crate::eval::robustness::Grid;
use crate::ingest::synth::SynthOptions;
use crate::ingest::{Color, PrepareOptions};
use crate::shard::ShardSet;
use clap::Parser;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Arguments of `nct demo`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folder to write; must not exist or be empty
    #[arg(default_value = "demo")]
    dir: PathBuf,
    /// auto, cpu, cuda or cuda:N
    #[arg(long, default_value = "auto")]
    device: String,
    /// Train so many epochs at most
    #[arg(long)]
    epochs: Option<u32>,
    /// Also reconstruct images from both networks, find what excites neurons most, and compare representations
    #[arg(long)]
    full: bool,
}

/// The recipe of both runs.
const RECIPE: &str = include_str!("../../configs/demo.toml");

pub(crate) fn run(args: &Args, show: Show) -> anyhow::Result<()> {
    let (raw, shards, runs) = (args.dir.join("raw"), args.dir.join("shards"), args.dir.join("runs"));
    show.line("1/4 sample data in the layout of the real sets");
    synth::make(&raw, &SynthOptions::default(), show)?;
    show.line("2/4 shards");
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let options = PrepareOptions { color: Color::Gray, ..PrepareOptions::new(shards.clone(), cores) };
    prepare::make(&raw, &options, show)?;
    let (mut rows, mut grids, mut roots) = (Vec::new(), Vec::new(), Vec::new());
    for (step, neural) in [("3/4", "mtl_monkey_dataset"), ("4/4", "mtl_shuffled_dataset")] {
        show.line(&format!("{step} co-training on tiny-imagenet-200 and {neural}"));
        let mut overrides =
            vec![format!("data.neural=\"{neural}\""), format!("name={}", neural.replace("_dataset", ""))];
        overrides.extend(args.epochs.map(|n| format!("schedule.max_iter={n}")));
        let experiment = Experiment::parse(RECIPE, "configs/demo.toml", &overrides)?;
        let args_of_run = train::args(&shards, &runs, &args.device);
        if let Some((run, _)) = train::train(&experiment, &args_of_run, None, show)? {
            let suite = SuiteArgs::of_severities(&[1, 3, 5]);
            let grid = eval::robustness_of(run.root(), &shards, &args.device, suite)?;
            grids.extend(grid.map(|grid| (neural, grid)));
            rows.push((neural, eval::evaluate(run.root(), &shards, &args.device)?));
            roots.push(run.root().to_path_buf());
        }
    }
    let chance = 100.0 / f64::from(SynthOptions::default().classes);
    let mut table = table(&["co-trained with", "test accuracy", "chance", "test correlation"]);
    for (neural, scores) in &rows {
        let score = |metric: &str| {
            let row = scores.iter().find(|r| r["split"] == "test" && r["metric"] == metric);
            row.and_then(|r| r["value"].as_f64()).unwrap_or(f64::NAN)
        };
        let accuracy = format!("{:.1} %", score("accuracy"));
        table.add_row([
            (*neural).to_owned(),
            accuracy,
            format!("{chance:.0} %"),
            format!("{:.3}", score("correlation")),
        ]);
    }
    out(&table.to_string())?;
    out(&robustness_table(&grids))?;
    let analysis = if args.full { analyses(args, &shards, &roots, show)? } else { Vec::new() };
    let which = report::Which {
        baseline: roots.last().cloned(),
        run: roots,
        runs: runs.clone(),
        profile: Profile::ImageNet,
        analysis,
    };
    let (out, title) = (args.dir.join("report.html"), "The demo".to_owned());
    report::run(&report::Args { which, out, title, shards: shards.clone() }, show)?;
    let shown: Vec<&Value> = rows.iter().filter_map(|(_, scores)| scores.first()).collect();
    let first = shown.first().and_then(|row| row["run"].as_str()).unwrap_or_default();
    show.line(&format!(
        "everything is in {0}; look at {0}/report.html, or with: tensorboard --logdir {1}",
        args.dir.display(),
        runs.display()
    ));
    show.line(&format!("evaluate again with: nct eval {first} --shards {}", shards.display()));
    Ok(())
}

/// What both networks see, the one that learned from shuffled responses first; gives the folders.
fn analyses(args: &Args, shards: &Path, roots: &[PathBuf], show: Show) -> anyhow::Result<Vec<PathBuf>> {
    #[derive(Debug, clap::Parser)]
    enum Analysis {
        Reconstruct(reconstruct::Args),
        Mei(mei::Args),
        Rsa(rsa::Args),
    }
    let models = roots.iter().rev().map(|root| root.display().to_string());
    let names = ["shuffled", "monkey"];
    let models: Vec<String> = names.iter().zip(models).map(|(name, root)| format!("{name}={root}")).collect();
    let session = ShardSet::open(shards)?.dataset("mtl_monkey_dataset")?.manifest().sessions[0].id.clone();
    let mut folders = Vec::new();
    for (title, name, options) in [
        ("images that V1's layer cannot tell from noisy ones", "reconstruct", RECONSTRUCT.to_owned()),
        ("images that excite neurons most", "mei", format!("--session {session} --neuron all")),
        (
            "representations compared",
            "rsa",
            "--dataset mtl_monkey_dataset --responses --layers conv1_1,relu2_1,relu3_1,conv4_1".to_owned(),
        ),
    ] {
        show.line(title);
        let folder = args.dir.join(name);
        let place = [shards.display().to_string(), folder.display().to_string()];
        let words = ["nct", name].map(str::to_owned).into_iter().chain(models.clone());
        let words = words.chain(options.split(' ').map(str::to_owned));
        let words =
            words.chain(["--shards".to_owned(), place[0].clone(), "--out".to_owned(), place[1].clone()]);
        let words = words.chain(["--device".to_owned(), args.device.clone()]);
        match Analysis::try_parse_from(words)? {
            Analysis::Reconstruct(args) => reconstruct::run(&args, show)?,
            Analysis::Mei(args) => mei::run(&args, show)?,
            Analysis::Rsa(args) => rsa::run(&args, show)?,
        }
        folders.push(folder);
    }
    Ok(folders)
}

/// An image of each of six classes.
const RECONSTRUCT: &str =
    "--layer relu3_1 --images 0,20,40,60,80,100 --noise 0.2 --budgets 20,40,80 --steps 500";

/// Accuracies under corruptions by group, and relative to the last network, whose responses mean nothing.
fn robustness_table(grids: &[(&str, Grid)]) -> String {
    let groups = [Group::Noise, Group::Blur, Group::Weather, Group::Digital];
    let mut header = vec!["accuracy under", "clean"];
    header.extend(groups.map(Group::as_str));
    header.extend(["mean", "robustness score"]);
    let mut table = table(&header);
    for (neural, grid) in grids {
        let percent = |v: Option<f64>| v.map_or_else(String::new, |v| format!("{:.1} %", 100.0 * v));
        let mut row = vec![(*neural).to_owned(), percent(Some(grid.clean))];
        row.extend(groups.map(|group| percent(grid.mean_in(group))));
        row.push(percent(grid.mean()));
        let relative = grids.last().and_then(|(_, baseline)| grid.summary(baseline));
        row.push(relative.map_or_else(String::new, |r| format!("{:.1}", r.score)));
        table.add_row(row);
    }
    table.to_string()
}
