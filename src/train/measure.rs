//! Where the time of an update goes. Nothing of it is kept: weights change, and no file.

use super::guard::guarded;
use super::step::Tally;
use super::unread::Unread;
use super::{Anneal, TrainError, Trainer};
use crate::load::{Loader, Step};
use std::time::Instant;

/// Times of updates.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// Seconds of each update, waiting for its batches included; of updates whose losses are read together, the mean.
    pub seconds: Vec<f64>,
    /// Seconds of all of them that were spent waiting for batches.
    pub waited: f64,
    /// Samples of each stream in all of them.
    pub samples: Vec<u64>,
    /// The batches of the last update, one by one.
    pub batches: Vec<BatchTimes>,
    /// Seconds of the optimiser, a median.
    pub optimizer: f64,
}

/// Times of one batch: medians, in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BatchTimes {
    /// Number of its stream.
    pub stream: usize,
    /// Samples.
    pub samples: usize,
    /// From the host's memory to the loss.
    pub forward: f64,
    /// From the loss to the gradients.
    pub backward: f64,
}

/// Each part is measured so often.
const ROUNDS: usize = 5;

impl Trainer<'_> {
    /// Makes `warm_up` updates, then `updates` that are measured, then measures the parts of the last one.
    ///
    /// # Errors
    /// Those of training; a schedule without updates.
    pub fn measure(&mut self, warm_up: u64, updates: u64) -> Result<Measured, TrainError> {
        // As in the first epoch.
        let anneal = Anneal::start(&self.anneal, self.optimizer.start_lr(), &[f64::NAN]);
        let end = warm_up + updates.max(1);
        let (mut tally, mut last) = (Tally::default(), None);
        let mut found = Measured {
            seconds: Vec::new(),
            waited: 0.0,
            samples: vec![0; self.sources.len()],
            batches: Vec::new(),
            optimizer: 0.0,
        };
        let mut loader = Loader::start(&self.sources, &self.schedule, self.seed, 0..end, self.loader)?;
        let (mut unread, mut since, mut made) = (Unread::default(), Instant::now(), 0u32);
        for number in 0..end {
            let before = loader.times().waited;
            let Some(step) = loader.next() else { break };
            let step = step?;
            guarded(|| self.step(&step, &anneal, (&mut tally, &mut unread), false))?;
            made += 1;
            // Updates whose losses are read together are measured together.
            if unread.is_empty() || number + 1 == warm_up || number + 1 == end {
                guarded(|| self.catch_up(&mut tally, &mut unread, false))?;
                self.settle();
                let each = since.elapsed().as_secs_f64() / f64::from(made);
                if number >= warm_up {
                    found.seconds.extend(std::iter::repeat_n(each, made as usize));
                }
                (since, made) = (Instant::now(), 0);
            }
            if number >= warm_up {
                found.waited += loader.times().waited.saturating_sub(before).as_secs_f64();
                for batch in &step.batches {
                    found.samples[batch.stream.0 as usize] += batch.len() as u64;
                }
            }
            if let Some(done) = last.replace(step) {
                loader.recycle(done);
            }
        }
        let Some(step) = last else {
            return Err(TrainError::Settings("there is no update to measure".into()));
        };
        drop(loader);
        guarded(|| self.parts(&step, &mut found))?;
        Ok(found)
    }

    fn parts(&mut self, step: &Step, found: &mut Measured) -> Result<(), TrainError> {
        let mut times = vec![[Vec::new(), Vec::new()]; step.batches.len()];
        let mut optimizer = Vec::new();
        for _ in 0..ROUNDS {
            self.optimizer.zero_grad()?;
            let batches = step.plan.batches.iter().zip(&step.batches);
            for ((plan, batch), [forward, backward]) in batches.zip(&mut times) {
                let began = Instant::now();
                let (images, targets) = self.bring(batch)?;
                let outcome = self.forward(plan, &images, &targets)?;
                self.settle();
                forward.push(began.elapsed().as_secs_f64());
                let began = Instant::now();
                outcome.backward()?;
                self.settle();
                backward.push(began.elapsed().as_secs_f64());
            }
            let began = Instant::now();
            self.optimizer.step(None)?;
            self.net.clamp_readouts()?;
            self.settle();
            optimizer.push(began.elapsed().as_secs_f64());
        }
        found.optimizer = median(&mut optimizer);
        let of = |(batch, [forward, backward]): (&crate::load::Batch, &mut [Vec<f64>; 2])| BatchTimes {
            stream: batch.stream.0 as usize,
            samples: batch.len(),
            forward: median(forward),
            backward: median(backward),
        };
        found.batches = step.batches.iter().zip(&mut times).map(of).collect();
        Ok(())
    }

    /// Waits for all that the device was given.
    fn settle(&self) {
        if let Some(param) = self.net.params().iter().next() {
            // A value that is read comes after everything before it.
            let _ = param.tensor.flatten(0, -1).narrow(0, 0, 1).sum(tch::Kind::Double).double_value(&[]);
        }
    }
}

/// The middle one; not a number of none.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
