//! `nct fetch`: prepared data from a store into a folder.

use super::exit::{Interrupted, stop_flag};
use super::show::{Show, bytes};
use crate::ingest::{self, IngestError};
use crate::shard::{Dataset, ShardSet};
use std::path::PathBuf;

/// Arguments of `nct fetch`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// URL of prepared data (nct help stores), or a folder of them
    from: PathBuf,
    /// Folder for the shards
    #[arg(long, value_parser = super::files::folder, default_value = "shards")]
    out: PathBuf,
    /// Only these data sets
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
}

pub(crate) fn run(args: &Args, show: Show) -> anyhow::Result<()> {
    let set = ShardSet::open(&args.from)?;
    let chosen: Vec<&Dataset> = match &args.only[..] {
        [] => set.datasets().iter().collect(),
        names => names.iter().map(|name| set.dataset(name)).collect::<Result<_, _>>()?,
    };
    let total = |set: &Dataset| set.manifest().shards.iter().map(|info| info.bytes).sum::<u64>();
    let bar = show.bar("fetch", chosen.iter().map(|set| total(set)).sum(), "bytes");
    let mut lines = Vec::new();
    for dataset in chosen {
        let name = &dataset.manifest().dataset;
        let new = match ingest::fetch(dataset, &args.out, &|n| bar.advance(n), stop_flag()) {
            Err(IngestError::Stopped) => {
                return Err(Interrupted("the same command goes on".to_owned()).into());
            }
            other => other?,
        };
        let what = if new { bytes(total(dataset)) } else { "is there already".to_owned() };
        lines.push(format!("{}: {what}", args.out.join(name).display()));
    }
    bar.clear();
    for line in &lines {
        show.line(line);
    }
    Ok(())
}
