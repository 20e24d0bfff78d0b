//! `nct verify`: every byte of every shard.

use super::show::{Show, bytes, out};
use crate::ingest;
use crate::shard::ShardSet;
use std::path::PathBuf;

/// Arguments of `nct verify`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folder of shards, or of one data set in it, or the URL of either (nct help stores)
    #[arg(default_value = "shards")]
    shards: PathBuf,
    /// Also decode everything and compare the statistics
    #[arg(long)]
    deep: bool,
}

pub(crate) fn run(args: &Args, show: Show) -> anyhow::Result<()> {
    let set = ShardSet::open(&args.shards)?;
    let shards = || set.datasets().iter().flat_map(|d| &d.manifest().shards);
    let total: u64 = shards().map(|s| s.bytes).sum();
    let bar = show.bar("verify", total, "bytes");
    for dataset in set.datasets() {
        ingest::verify(dataset, args.deep, &|n| bar.advance(n))?;
    }
    bar.clear();
    let depth = if args.deep { "all sound, values and statistics too" } else { "all sound" };
    out(&format!("{}: {} shards, {}, {depth}", args.shards.display(), shards().count(), bytes(total)))
}
