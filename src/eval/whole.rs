//! The whole of a pass from the shares of several processes.

use super::EvalError;
use super::pass::Pass;
use crate::objective::score::{Guesses, Predictions};
use crate::torch_ext::{Group, GroupError};

impl Pass {
    /// What all processes of the group collected, in the order of one that had collected everything.
    pub(super) fn of_all(&self, group: &Group) -> Result<Self, EvalError> {
        let broken = |e: bincode::Error| GroupError::Lost(e.to_string());
        let mine = bincode::serialize(self).map_err(broken)?;
        let shares = group.gather_bytes(&mine)?;
        let shares: Result<Vec<Self>, _> = shares.iter().map(|bytes| bincode::deserialize(bytes)).collect();
        Ok(joined(&shares.map_err(broken)?))
    }
}

/// Shares by rank, put together.
fn joined(shares: &[Pass]) -> Pass {
    let first = &shares[0];
    // Of each batch of a kind, the rows that each process has.
    let rows = |kind: Option<usize>| -> Vec<Vec<usize>> {
        let of = |share: &Pass| share.batches.iter().filter(|(of, _)| *of == kind).map(|(_, n)| *n).collect();
        shares.iter().map(of).collect()
    };
    let rows_of_images = rows(None);
    macro_rules! images {
        ($field:ident) => {
            interleaved(
                &shares.iter().map(|s| s.guesses.$field.as_slice()).collect::<Vec<_>>(),
                &rows_of_images,
                1,
            )
        };
    }
    let guesses = Guesses {
        images: images!(images),
        labels: images!(labels),
        predicted: images!(predicted),
        ranks: images!(ranks),
        losses: images!(losses),
        left_out: shares.iter().map(|s| s.guesses.left_out).sum(),
    };
    let session = |(number, of): (usize, &Predictions)| {
        let (rows, n) = (rows(Some(number)), of.n_neurons);
        let part = |values: fn(&Predictions) -> &[f32]| {
            interleaved(&shares.iter().map(|s| values(&s.sessions[number])).collect::<Vec<_>>(), &rows, n)
        };
        let images: Vec<&[u32]> = shares.iter().map(|s| s.sessions[number].images.as_slice()).collect();
        Predictions {
            n_neurons: n,
            images: interleaved(&images, &rows, 1),
            predicted: part(|p| &p.predicted),
            recorded: part(|p| &p.recorded),
        }
    };
    let sessions = first.sessions.iter().enumerate().map(session).collect();
    let total = |(k, (kind, _)): (usize, &(Option<usize>, usize))| {
        (*kind, shares.iter().map(|share| share.batches[k].1).sum())
    };
    Pass { guesses, sessions, batches: first.batches.iter().enumerate().map(total).collect() }
}

/// Batch after batch, and of each the rows of all ranks in order; `rows[rank][batch]` are their numbers, and a row has
/// `width` values.
fn interleaved<T: Copy>(values: &[&[T]], rows: &[Vec<usize>], width: usize) -> Vec<T> {
    let mut rest = values.to_vec();
    let mut all = Vec::with_capacity(values.iter().map(|v| v.len()).sum());
    for batch in 0..rows.first().map_or(0, Vec::len) {
        for (rest, rows) in rest.iter_mut().zip(rows) {
            let (now, later) = rest.split_at(rows[batch] * width);
            all.extend_from_slice(now);
            *rest = later;
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rows `range` of every batch of a pass over two batches of five images and one of three trials.
    fn share(range: std::ops::Range<usize>) -> Pass {
        let images: Vec<u64> = (0..2u64)
            .flat_map(|b| (0..5).filter(|i| range.contains(i)).map(move |i| 5 * b + i as u64))
            .collect();
        let trials: Vec<u32> = (0..3u32).filter(|i| range.contains(&(*i as usize))).collect();
        let values = |scale: f32| trials.iter().flat_map(|t| [*t as f32 * scale, 0.5]).collect();
        Pass {
            guesses: Guesses {
                labels: images.iter().map(|i| *i as i64 * 2).collect(),
                predicted: images.iter().map(|i| *i as i64 * 3).collect(),
                ranks: images.iter().map(|i| *i as i64 * 4).collect(),
                losses: images.iter().map(|i| *i as f32).collect(),
                left_out: range.len() as u64,
                images: images.clone(),
            },
            sessions: vec![Predictions {
                n_neurons: 2,
                images: trials.clone(),
                predicted: values(1.0),
                recorded: values(7.0),
            }],
            batches: vec![(None, range.len()), (None, range.len()), (Some(0), trials.len())],
        }
    }

    #[test]
    fn shares_make_the_whole() {
        let whole = share(0..5);
        assert_eq!(joined(std::slice::from_ref(&whole)), whole);
        assert_eq!(joined(&[share(0..2), share(2..2), share(2..5)]), whole);
        assert_ne!(joined(&[share(2..5), share(0..2)]), whole);
    }
}
