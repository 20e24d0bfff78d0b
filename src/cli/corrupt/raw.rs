//! Corrupts a file of bytes with a clock beside it: what `tools/parity/corruptions.py` compares.

use super::super::exit::Usage;
use super::super::show::out;
use crate::corruption::{Corruption, Extent, ImageKey, Profile, Scratch, Severity, prefetch};
use rayon::prelude::*;
use serde_json::json;
use std::path::PathBuf;
use std::time::Instant;

/// Arguments of `nct corrupt-raw`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Images `[n, channels, height, width]`
    images: PathBuf,
    /// Gets `[corruption, severity, n, channels, height, width]`
    output: PathBuf,
    /// Channels, height, width
    #[arg(long, value_delimiter = ',', num_args = 3, default_values_t = [3, 64, 64])]
    shape: Vec<u32>,
    #[arg(long, default_value_t = Profile::Tiny)]
    profile: Profile,
    /// Only these, by commas
    #[arg(long, value_delimiter = ',', default_values_t = Corruption::ALL)]
    corruptions: Vec<Corruption>,
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Each time is the least of so many
    #[arg(long, default_value_t = 1)]
    rounds: usize,
}

/// Images that a thread takes one after another.
const AT_ONCE: usize = 8;

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let usage = |what: String| Usage(format!("{}: {what}", args.images.display()));
    let images = std::fs::read(&args.images).map_err(|e| usage(e.to_string()))?;
    let shape: [u32; 3] = args.shape[..].try_into().map_err(|_| usage("a shape has three numbers".into()))?;
    let extent = Extent::from(shape);
    if extent.is_empty() || !matches!(extent.channels, 1 | 3) || images.len() % extent.len() != 0 {
        return Err(usage(format!("{} bytes are no images of {shape:?}", images.len())).into());
    }
    if args.corruptions.contains(&Corruption::Frost) {
        super::frost::open(None)?;
    }
    let pool = rayon::ThreadPoolBuilder::new().num_threads(args.threads).build()?;
    let mut all = Vec::new();
    for &corruption in &args.corruptions {
        for severity in Severity::ALL {
            let few = |scratch: &mut Scratch, (n, mut images): (usize, &mut [u8])| {
                for number in n * AT_ONCE.. {
                    let Some((image, next)) = images.split_at_mut_checked(extent.len()) else { break };
                    prefetch(&next[..extent.len().min(next.len())]);
                    let key = ImageKey { seed: args.seed, image: number as u64 };
                    corruption.apply(args.profile, severity, key, image, extent, scratch);
                    images = next;
                }
            };
            let (mut seconds, mut made) = (f64::INFINITY, Vec::new());
            for _ in 0..args.rounds.max(1) {
                made.clone_from(&images);
                let start = Instant::now();
                let parts = made.par_chunks_mut(AT_ONCE * extent.len()).enumerate();
                pool.install(|| parts.for_each_init(Scratch::new, few));
                seconds = seconds.min(start.elapsed().as_secs_f64());
            }
            let line = json!({
                "corruption": corruption.as_str(), "severity": severity.get(), "seconds": seconds,
                "images": images.len() / extent.len(),
            });
            out(&line.to_string())?;
            all.append(&mut made);
        }
    }
    std::fs::write(&args.output, all).map_err(|e| Usage(format!("{}: {e}", args.output.display())))?;
    Ok(())
}
