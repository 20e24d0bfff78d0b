//! Searches that keep what they have, and go on there.

use super::super::exit::{Interrupted, Usage, stop_flag};
use super::super::show::Bar;
use crate::analysis::ascent::{Ascent, Search};
use crate::model::weights::{Weights, encode};
use crate::runs::write_atomic;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tch::Tensor;

/// Seconds of work that a kill may cost.
const KEPT_EVERY: Duration = Duration::from_secs(20);

/// Runs a search to its end, from `start` or from what `path` has of it, and gives it with what was found and the
/// objective of each image. `identity` is what it is of; norms are told times `scale`.
pub(in crate::cli) fn run(
    ascent: &Ascent<'_>,
    start: &Tensor,
    path: &Path,
    identity: &str,
    bar: &Bar,
    scale: f64,
) -> anyhow::Result<(Search, Tensor, Vec<f64>)> {
    let mut search = match kept(path, identity, start)? {
        Some(search) => search,
        None => Search::new(start),
    };
    bar.advance(u64::from(search.step));
    let mut since = Instant::now();
    while !search.is_over() {
        if stop_flag().load(Ordering::Relaxed) {
            keep(&search, path, identity)?;
            return Err(Interrupted("the same command goes on".to_owned()).into());
        }
        let _ = ascent.advance(&mut search)?;
        bar.advance_with(1, || news(&search, scale));
        if since.elapsed() > KEPT_EVERY {
            keep(&search, path, identity)?;
            since = Instant::now();
        }
    }
    // Steps that were planned and not needed.
    let planned = ascent.stopper.most().unwrap_or(search.step);
    bar.advance(u64::from(planned.saturating_sub(search.step)));
    let values = ascent.value(&search)?;
    keep(&search, path, identity)?;
    let found = ascent.found(&search);
    Ok((search, found, values))
}

/// Means over the batch.
fn news(search: &Search, scale: f64) -> String {
    let Some(last) = search.log.last() else { return String::new() };
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    format!("objective {:.5}, norm {:.2}", mean(&last.values), scale * mean(&last.norms))
}

fn keep(search: &Search, path: &Path, identity: &str) -> anyhow::Result<()> {
    let bytes = encode(&search.tensors(), &[("identity", identity.to_owned())])?;
    Ok(write_atomic(path, &bytes)?)
}

fn kept(path: &Path, identity: &str, start: &Tensor) -> anyhow::Result<Option<Search>> {
    if !path.is_file() {
        return Ok(None);
    }
    let weights = Weights::read(path)?;
    let found = (weights.metadata("identity") == Some(identity))
        .then(|| Search::resume(&weights.tensors, start.device()))
        .flatten()
        .filter(|search| search.images.size() == start.size());
    match found {
        Some(search) => Ok(Some(search)),
        None => Err(Usage(format!("{}: is of another search; delete it", path.display())).into()),
    }
}
