//! Passes that a GPU repeats from a recording: one call in place of hundreds, where launching them one by one takes
//! longer than doing them. Several processes record and repeat the same passes in the same update, with what normalisation
//! exchanges in them; gradients are exchanged after the last pass.

use super::TrainError;
use super::step::{Given, Sent};
use crate::schedule::BatchPlan;
use crate::torch_ext::Graph;
use std::collections::BTreeMap;
use tch::{Device, TchError, Tensor};

/// By stream and size of the batch, which decide all that is done with it. To be dropped before the group of processes:
/// NCCL does not end while something recorded names it.
#[derive(Debug)]
pub struct Graphs {
    gpu: usize,
    kinds: BTreeMap<(u32, u32), Pass>,
}

#[derive(Debug)]
enum Pass {
    /// Done so often, one by one.
    Done(u32),
    Recorded(Box<Recorded>),
}

/// Works on tensors of its own.
#[derive(Debug)]
struct Recorded {
    graph: Graph,
    images: Tensor,
    targets: Sent,
    given: Given,
}

impl Graphs {
    /// How often a pass is done before it is recorded: libraries make their plans, and gradients their memory.
    const BEFORE: u32 = 2;

    /// On `device`, if that is a GPU.
    pub fn on(device: Device) -> Option<Self> {
        match device {
            Device::Cuda(gpu) => Some(Self { gpu, kinds: BTreeMap::new() }),
            _ => None,
        }
    }

    /// What `pass`, forward and backward, gives of a batch: done, or repeated.
    pub(super) fn pass(
        &mut self,
        plan: &BatchPlan,
        images: Tensor,
        targets: Sent,
        mut pass: impl FnMut(&Tensor, &Sent) -> Result<Given, TrainError>,
    ) -> Result<Given, TrainError> {
        let kind = self.kinds.entry((plan.stream.0, plan.len)).or_insert(Pass::Done(0));
        match kind {
            Pass::Done(n) if *n < Self::BEFORE => {
                *n += 1;
                pass(&images, &targets)
            }
            Pass::Done(_) => {
                let (graph, given) = Graph::record(self.gpu, || pass(&images, &targets))?;
                let recorded = Box::new(Recorded { graph, images, targets, given });
                let given = recorded.replay()?;
                *kind = Pass::Recorded(recorded);
                Ok(given)
            }
            Pass::Recorded(recorded) => {
                recorded.take(&images, &targets)?;
                Ok(recorded.replay()?)
            }
        }
    }
}

impl Recorded {
    /// Puts a batch in the place of the one before.
    fn take(&self, images: &Tensor, targets: &Sent) -> Result<(), TchError> {
        let own = [&self.images].into_iter().chain(self.targets.tensors());
        let new = [images].into_iter().chain(targets.tensors());
        tch::no_grad(|| own.zip(new).try_for_each(|(own, new)| own.shallow_clone().f_copy_(new)))
    }

    fn replay(&self) -> Result<Given, TchError> {
        self.graph.replay()?;
        // The next replay overwrites them.
        Ok(Given { values: self.given.values.f_detach_copy()?, is_labelled: self.given.is_labelled })
    }
}
