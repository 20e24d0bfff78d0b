//! `nct verify`: every byte of every shard, and all that is damaged.

use super::codes::{self, Code};
use super::exit::{Ended, chain};
use super::show::{Show, bytes, out, tell};
use crate::ingest;
use crate::shard::MANIFEST;
use serde_json::json;
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
    /// One JSON object a line, per shard and damaged manifest
    #[arg(long)]
    json: bool,
}

/// How much is damaged.
#[derive(Default)]
struct Tally {
    shards: usize,
    damaged: usize,
    manifests: usize,
    first: Option<Code>,
}

pub(crate) fn run(args: &Args, show: Show) -> anyhow::Result<()> {
    let sets = ingest::verify(&args.shards)?;
    let total = sets.iter().fold(0, |sum, set| sum + set.bytes());
    let (mut tally, mut left, n_sets) = (Tally::default(), total, sets.len());
    let mut bar = show.bar("verify", total, "bytes");
    for set in sets {
        let name = set.name();
        left -= set.bytes();
        let lines: Vec<String> = set
            .verify(args.deep, &|n| bar.advance(n))
            .into_iter()
            .filter_map(|file| tally.add(&name, &file.file, file.bytes, file.damage, args.json))
            .collect();
        if lines.is_empty() {
            continue;
        }
        bar.clear();
        for line in lines {
            if args.json { out(&line)? } else { tell(&line) }
        }
        bar = show.bar("verify", left, "bytes");
    }
    bar.clear();
    let place = args.shards.display();
    if let Some(code) = tally.first {
        // Each damage was told: what is left is how many.
        tell(&format!("nct: {place}: {} [{}]", tally.summary(n_sets), code.name));
        return Err(Ended(code.exit).into());
    }
    let depth = if args.deep { "all sound, values and statistics too" } else { "all sound" };
    let line = format!("{place}: {} shards, {}, {depth}", tally.shards, bytes(total));
    if args.json {
        show.line(&line);
        return Ok(());
    }
    out(&line)
}

impl Tally {
    /// Counts a file, and gives the line about it: JSON about any, else an error and its code.
    fn add(
        &mut self,
        dataset: &str,
        file: &str,
        bytes: u64,
        damage: Option<ingest::IngestError>,
        json: bool,
    ) -> Option<String> {
        let is_shard = file != MANIFEST;
        self.shards += usize::from(is_shard);
        let damage = damage.map(anyhow::Error::from).map(|error| (codes::of(&error), chain(&error)));
        if let Some((code, _)) = &damage {
            self.damaged += usize::from(is_shard);
            self.manifests += usize::from(!is_shard);
            self.first.get_or_insert(*code);
        }
        if !json {
            return damage.map(|(code, error)| format!("{error} [{}]", code.name));
        }
        let (code, error) = damage.map(|(code, error)| (code.name, error)).unzip();
        let row = json!({"dataset": dataset, "file": file, "bytes": bytes, "sound": code.is_none(), "code": code,
                         "error": error});
        Some(row.to_string())
    }

    /// What is damaged among so many data sets.
    fn summary(&self, n_sets: usize) -> String {
        let part = |n: usize, of: usize, what: &str| (n > 0).then(|| format!("{n} of {of} {what}"));
        let parts = [
            part(self.damaged, self.shards, "shards"),
            // How many shards a manifest names that cannot be read, nobody knows.
            part(self.manifests, n_sets, "manifests"),
        ];
        format!("{} damaged", parts.into_iter().flatten().collect::<Vec<_>>().join(" and "))
    }
}
