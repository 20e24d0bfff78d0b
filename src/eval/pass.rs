//! One pass over a split. What the network says stays on the device until the end, so that no batch waits
//! for the one before. Several processes each take their share of every batch, and all of them get the whole.

use super::forward::{self, Network};
use super::heads::{ClassMap, judge};
use super::{EvalError, Evaluator, images_of};
use crate::load::{Batch, Loader, Targets};
use crate::objective::score::{Guesses, Predictions};
use crate::torch_ext::send;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

/// What a pass collected.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Pass {
    /// Of labelled images.
    pub(super) guesses: Guesses,
    /// Of each session, in the order of the streams.
    pub(super) sessions: Vec<Predictions>,
    /// Of each batch, its session, or none of labelled images, and how many rows of it are here.
    pub(super) batches: Vec<(Option<usize>, usize)>,
}

/// What is still on the device.
#[derive(Default)]
struct Pending {
    /// Predicted class, rank, loss, batch after batch.
    judged: [Vec<Tensor>; 3],
    /// Responses of each session, batch after batch.
    responses: Vec<Vec<Tensor>>,
    /// Records of all batches so far; labelled images come first.
    images: u64,
}

impl Evaluator {
    pub(super) fn collect(&self, net: &Network) -> Result<Pass, EvalError> {
        let neural = self.sources.iter().filter(|s| s.task.is_neural());
        let session = |n_neurons| Predictions { n_neurons, ..Predictions::default() };
        let sessions = neural.map(|s| session(s.n_neurons())).collect();
        let mut pass = Pass { guesses: Guesses::default(), sessions, batches: Vec::new() };
        let mut pending = Pending::default();
        pending.responses.resize_with(pass.sessions.len(), Vec::new);
        let steps = 0..self.schedule.steps_per_epoch();
        let process = net.group().map(|group| (group.rank(), group.world()));
        let options = self.loader.for_process(process);
        let mut loader = Loader::start(&self.sources, &self.schedule, NOISE_SEED, steps, options)?;
        while let Some(step) = loader.next() {
            let step = step?;
            for (plan, batch) in step.plan.batches.iter().zip(&step.batches) {
                let before = process.map_or(0, |(rank, world)| plan.share(rank, world).first - plan.first);
                self.batch(net, batch, pending.images + before, &mut pass, &mut pending)?;
                pending.images += u64::from(plan.len);
            }
            loader.recycle(step);
        }
        gather(pending, &mut pass)?;
        match net.group() {
            Some(group) => pass.of_all(group),
            None => Ok(pass),
        }
    }

    fn batch(
        &self,
        net: &Network,
        batch: &Batch,
        before: u64,
        pass: &mut Pass,
        pending: &mut Pending,
    ) -> Result<(), EvalError> {
        let device = forward::device(net);
        match batch.targets() {
            Targets::Labels(labels) => {
                let (rows, places) = self.classes.scored(labels);
                pass.guesses.left_out += (labels.len() - rows.len()) as u64;
                pass.batches.push((None, rows.len()));
                if rows.is_empty() {
                    return Ok(());
                }
                let judged = classify(net, batch, &self.classes, &rows, &places, device)?;
                pending.judged.iter_mut().zip(judged).for_each(|(all, new)| all.push(new));
                pass.guesses.labels.extend(places);
                pass.guesses.images.extend(rows.iter().map(|row| before + *row as u64));
            }
            Targets::Responses(recorded) | Targets::Both { responses: recorded, .. } => {
                let before = &self.sources[..batch.stream.0 as usize];
                let session = before.iter().filter(|s| s.task.is_neural()).count();
                pass.batches.push((Some(session), batch.len()));
                if batch.is_empty() {
                    return Ok(());
                }
                let images = images_of(batch, device)?;
                let responses = forward::responses(net, &images, self.first_session + session)?;
                pending.responses[session].push(responses);
                pass.sessions[session].images.extend(&batch.ids);
                pass.sessions[session].recorded.extend(recorded);
            }
        }
        Ok(())
    }
}

/// Noise is the same in every evaluation of every run, whatever the run's own seed.
const NOISE_SEED: u64 = 0;

fn classify(
    net: &Network,
    batch: &Batch,
    classes: &ClassMap,
    rows: &[i64],
    places: &[i64],
    device: Device,
) -> Result<[Tensor; 3], EvalError> {
    let mut images = images_of(batch, device)?;
    if rows.len() < batch.len() {
        images = images.f_index_select(0, &send(&Tensor::f_from_slice(rows)?, device)?)?;
    }
    let logits = classes.select(&forward::logits(net, &images)?)?;
    Ok(judge(&logits, &send(&Tensor::f_from_slice(places)?, device)?)?)
}

/// Brings everything over.
fn gather(pending: Pending, pass: &mut Pass) -> Result<(), EvalError> {
    let [predicted, ranks, losses] = pending.judged;
    if !predicted.is_empty() {
        pass.guesses.predicted = Vec::try_from(whole(&predicted)?)?;
        pass.guesses.ranks = Vec::try_from(whole(&ranks)?)?;
        pass.guesses.losses = Vec::try_from(whole(&losses)?.f_to_kind(Kind::Float)?)?;
    }
    for (batches, session) in pending.responses.iter().zip(&mut pass.sessions) {
        if !batches.is_empty() {
            session.predicted = Vec::try_from(whole(batches)?.f_flatten(0, -1)?.f_to_kind(Kind::Float)?)?;
        }
        if session.predicted.len() != session.recorded.len() {
            let what = "a session's readout has another number of neurons than its recorded responses";
            return Err(EvalError::Network(what.to_owned()));
        }
    }
    Ok(())
}

fn whole(batches: &[Tensor]) -> Result<Tensor, tch::TchError> {
    Tensor::f_cat(batches, 0)?.f_to_device(Device::Cpu)
}
