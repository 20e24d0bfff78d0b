//! What updates gave, as long as the device alone knows. Reading makes the host wait for all that the device has to do,
//! so where the device can leave an update out by itself, several are read at once.

use super::TrainError;
use super::step::Given;
use crate::base::Task;
use crate::load::Step;
use crate::torch_ext::Group;
use std::sync::Arc;
use tch::{Kind, TchError, Tensor};

/// What all of a batch gives, read back.
#[derive(Debug, Clone, Copy)]
pub(super) struct Values {
    pub(super) loss: f64,
    pub(super) correct: f64,
    pub(super) modules: f64,
    pub(super) labelled: Option<f64>,
}

/// A batch of an update.
#[derive(Debug)]
pub(super) struct Taught {
    pub(super) task: Task,
    pub(super) stream: usize,
    /// Of all processes together.
    pub(super) samples: usize,
    /// Raw ids of this process's images.
    pub(super) ids: Vec<u32>,
    /// Whether a session's batch has labels too.
    labelled: bool,
}

/// An update whose gradients are there.
#[derive(Debug)]
pub(super) struct Update {
    pub(super) step: u64,
    pub(super) epoch: u32,
    pub(super) batches: Vec<Taught>,
    /// Updates of each parameter before this one.
    pub(super) counts: Vec<i64>,
    /// `[batches, 4]`, on the device: those of [`Given`].
    values: Tensor,
}

impl Update {
    pub(super) fn new(step: &Step, given: &[Given], counts: Vec<i64>) -> Result<Self, TchError> {
        let rows: Vec<&Tensor> = given.iter().map(|given| &given.values).collect();
        let values = Tensor::f_stack(&rows, 0)?.f_to_kind(Kind::Double)?;
        let parts = step.plan.batches.iter().zip(&step.batches).zip(given);
        let batches = parts.map(|((plan, batch), given)| Taught {
            task: batch.task,
            stream: batch.stream.0 as usize,
            samples: plan.len as usize,
            ids: batch.ids.clone(),
            labelled: given.is_labelled,
        });
        Ok(Self {
            step: step.plan.step.0,
            epoch: step.plan.epoch,
            batches: batches.collect(),
            counts,
            values,
        })
    }

    /// One transfer for all values, and one exchange between processes, which also say whether they want to stop.
    pub(super) fn read(
        &self,
        stop: bool,
        group: Option<&Arc<Group>>,
    ) -> Result<(Vec<Values>, bool), TrainError> {
        let (all, stop) = read(&self.values, stop, group)?;
        Ok((self.values(&all), stop))
    }

    fn values(&self, all: &[f64]) -> Vec<Values> {
        let values = |(v, batch): (&[f64], &Taught)| Values {
            loss: v[0],
            correct: v[1],
            modules: v[2],
            labelled: batch.labelled.then_some(v[3]),
        };
        all.chunks_exact(4).zip(&self.batches).map(values).collect()
    }
}

/// Values on the device, summed over all processes, and whether any wants to stop.
fn read(values: &Tensor, stop: bool, group: Option<&Arc<Group>>) -> Result<(Vec<f64>, bool), TrainError> {
    let mut all = Vec::<f64>::try_from(values.f_view([-1])?)?;
    all.push(f64::from(u8::from(stop)));
    if let Some(group) = group {
        let sums = Tensor::f_from_slice(&all)?;
        group.sum(&sums)?;
        all = Vec::try_from(sums)?;
    }
    let stop = all.pop().is_some_and(|stops| stops > 0.0);
    Ok((all, stop))
}

/// An update with what its batches gave.
type Known = (Update, Vec<Values>);

/// Updates that the device has made, or left out, and the host has not read.
#[derive(Debug, Default)]
pub(super) struct Unread {
    updates: Vec<Update>,
    /// `[]` on the device: 1 from the first loss on that is no number.
    bad: Option<Tensor>,
}

impl Unread {
    /// So many are read at once: a fraction of a second of a GPU's time.
    const AT_ONCE: usize = 16;

    /// Takes an update; gives what must hold it and all later ones back, in all processes: a 1 if a loss is no number.
    pub(super) fn add(&mut self, update: Update, group: Option<&Arc<Group>>) -> Result<&Tensor, TrainError> {
        let finite = update.values.f_select(1, 0)?.f_isfinite()?.f_all()?;
        let mut bad = finite.f_logical_not()?.f_to_kind(Kind::Float)?;
        if let Some(group) = group {
            group.sum(&bad)?;
            bad = bad.f_clamp_max(1.0)?;
        }
        let bad = self.bad.as_ref().map_or(Ok(bad.shallow_clone()), |before| before.f_maximum(&bad))?;
        self.updates.push(update);
        Ok(self.bad.insert(bad))
    }

    /// Whether all is read.
    pub(super) fn is_empty(&self) -> bool {
        self.updates.is_empty()
    }

    /// Samples of what is unread.
    pub(super) fn samples(&self) -> u64 {
        self.updates.iter().flat_map(|update| &update.batches).map(|batch| batch.samples as u64).sum()
    }

    /// Whether it is time to read.
    pub(super) fn is_full(&self) -> bool {
        self.updates.len() >= Self::AT_ONCE
    }

    /// Reads all, in one transfer; also whether any process wants to stop; of several, none is asked where nothing
    /// is unread.
    pub(super) fn take(
        &mut self,
        stop: bool,
        group: Option<&Arc<Group>>,
    ) -> Result<(Vec<Known>, bool), TrainError> {
        if self.updates.is_empty() {
            return Ok((Vec::new(), stop && group.is_none()));
        }
        let rows: Vec<&Tensor> = self.updates.iter().map(|update| &update.values).collect();
        let (all, stop) = read(&Tensor::f_cat(&rows, 0)?, stop, group)?;
        let mut rest = &all[..];
        let of = |update: Update| {
            let (mine, others) = rest.split_at(4 * update.batches.len());
            rest = others;
            let values = update.values(mine);
            (update, values)
        };
        Ok((std::mem::take(&mut self.updates).into_iter().map(of).collect(), stop))
    }
}
