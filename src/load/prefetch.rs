//! Worker threads that fill the batches of coming updates.
//!
//! Worker k takes every n-th plan and sends the result through its own bounded channel; the loop
//! takes from the workers in turn. So plan order needs no reorder buffer, read-ahead is bounded, and
//! what is delivered cannot depend on the number of workers.

use super::LoadError;
use super::batch::{Batch, Step};
use super::source::Source;
use crate::base::StepIndex;
use crate::schedule::Schedule;
use crossbeam_channel::{Receiver, Sender, bounded};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How many threads read, and how far ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoaderOptions {
    /// Worker threads, at least 1.
    pub threads: usize,
    /// Updates that each worker may be ahead.
    pub depth: usize,
}

/// Delivers the updates of a range of steps in order.
#[derive(Debug)]
pub struct Loader {
    workers: Vec<Receiver<Result<Step, LoadError>>>,
    handles: Vec<JoinHandle<()>>,
    recycle: Sender<Batch>,
    next: u64,
    first: u64,
    end: u64,
    waited: Duration,
    busy_ns: Arc<AtomicU64>,
}

struct Worker {
    sources: Arc<Vec<Source>>,
    schedule: Arc<Schedule>,
    seed: u64,
    spare: Receiver<Batch>,
    scratch: Vec<u32>,
}

impl Loader {
    /// Starts reading `steps`. `sources` are in the order of the schedule's streams.
    pub fn start(
        sources: &Arc<Vec<Source>>,
        schedule: &Arc<Schedule>,
        seed: u64,
        steps: Range<u64>,
        options: LoaderOptions,
    ) -> Result<Self, LoadError> {
        let threads = options.threads.max(1);
        let batches_ahead = threads * (options.depth + 2) * (schedule.streams().len() + 1);
        let (recycle, spare) = bounded(batches_ahead);
        let mut loader = Self {
            workers: Vec::with_capacity(threads),
            handles: Vec::with_capacity(threads),
            recycle,
            next: steps.start,
            first: steps.start,
            end: steps.end,
            waited: Duration::ZERO,
            busy_ns: Arc::default(),
        };
        for k in 0..threads {
            let (sender, receiver) = bounded(options.depth.max(1));
            let mut worker = Worker {
                sources: Arc::clone(sources),
                schedule: Arc::clone(schedule),
                seed,
                spare: spare.clone(),
                scratch: Vec::new(),
            };
            let mine = (steps.start + k as u64..steps.end).step_by(threads);
            let busy = Arc::clone(&loader.busy_ns);
            let spawned = std::thread::Builder::new()
                .name(format!("loader-{k}"))
                .spawn(move || worker.run(mine, &sender, &busy))
                .map_err(|e| LoadError::Thread(e.to_string()))?;
            loader.workers.push(receiver);
            loader.handles.push(spawned);
        }
        Ok(loader)
    }

    /// Gives the memory of a used update back.
    pub fn recycle(&self, step: Step) {
        for batch in step.batches {
            // A full pool just means that enough memory is in circulation.
            let _ = self.recycle.try_send(batch);
        }
    }

    /// Time the loop has spent waiting for data.
    pub fn waited(&self) -> Duration {
        self.waited
    }

    /// Time the workers have spent making batches, added up over them.
    pub fn busy(&self) -> Duration {
        Duration::from_nanos(self.busy_ns.load(Ordering::Relaxed))
    }
}

impl Iterator for Loader {
    type Item = Result<Step, LoadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next >= self.end {
            return None;
        }
        let k = ((self.next - self.first) % self.workers.len() as u64) as usize;
        let start = Instant::now();
        let received = self.workers[k].recv();
        self.waited += start.elapsed();
        self.next += 1;
        let step = received.unwrap_or(Err(LoadError::Worker(k)));
        if step.is_err() {
            self.next = self.end;
        }
        Some(step)
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        // Workers stop when their receiver is gone; then joining cannot block.
        self.workers.clear();
        for handle in self.handles.drain(..) {
            // A worker's panic was reported by `next`, or nobody waits for its result any more.
            let _ = handle.join();
        }
    }
}

impl Worker {
    fn run(
        &mut self,
        steps: impl Iterator<Item = u64>,
        out: &Sender<Result<Step, LoadError>>,
        busy: &AtomicU64,
    ) {
        for k in steps {
            let start = Instant::now();
            let step = self.step(StepIndex(k));
            busy.fetch_add(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
            let failed = step.is_err();
            if out.send(step).is_err() || failed {
                return;
            }
        }
    }

    fn step(&mut self, step: StepIndex) -> Result<Step, LoadError> {
        let plan = self.schedule.step(step);
        let mut batches = Vec::with_capacity(plan.batches.len());
        for batch_plan in &plan.batches {
            let mut batch = self.spare.try_recv().unwrap_or_else(|_| Batch::empty());
            let source = &self.sources[batch_plan.stream.0 as usize];
            source.fill(&self.schedule, batch_plan, self.seed, &mut self.scratch, &mut batch)?;
            batches.push(batch);
        }
        Ok(Step { plan, batches })
    }
}
