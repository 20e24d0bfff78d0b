//! Worker threads that fill the batches of coming updates.

use super::LoadError;
use super::batch::Step;
use super::handover::{Lanes, Stop, WorkerEnd, lanes};
use super::source::{FillMemory, Source};
use crate::base::StepIndex;
use crate::schedule::Schedule;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How many threads read, how far ahead, and for whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoaderOptions {
    /// Worker threads, at least 1.
    pub threads: usize,
    /// Updates that each worker may be ahead.
    pub depth: usize,
    /// This process, of `world` that train together. Each takes its share of every batch.
    pub rank: u32,
    /// Processes that train together.
    pub world: u32,
}

impl Default for LoaderOptions {
    fn default() -> Self {
        Self { threads: 2, depth: 2, rank: 0, world: 1 }
    }
}

impl LoaderOptions {
    /// For process `rank` of `world`, if there are several.
    pub fn for_process(self, process: Option<(u32, u32)>) -> Self {
        process.map_or(self, |(rank, world)| Self { rank, world, ..self })
    }
}

/// Where time went, since the loader was started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LoaderTimes {
    /// The loop waited for data.
    pub waited: Duration,
    /// Workers made batches, added up over them.
    pub filling: Duration,
    /// Of that, read and decoded blocks.
    pub decoding: Duration,
    /// Workers waited for the loop, added up over them.
    pub idle: Duration,
}

impl LoaderTimes {
    /// What came after `before`.
    pub fn since(self, before: Self) -> Self {
        Self {
            waited: self.waited.saturating_sub(before.waited),
            filling: self.filling.saturating_sub(before.filling),
            decoding: self.decoding.saturating_sub(before.decoding),
            idle: self.idle.saturating_sub(before.idle),
        }
    }
}

/// Delivers the updates of a range of steps in order.
#[derive(Debug)]
pub struct Loader {
    lanes: Lanes<Step, LoadError>,
    handles: Vec<JoinHandle<()>>,
    sources: Arc<Vec<Source>>,
    decoding_before: u64,
    waited: Duration,
    clock: Arc<Clock>,
}

#[derive(Debug, Default)]
struct Clock {
    filling_ns: AtomicU64,
    idle_ns: AtomicU64,
}

struct Worker {
    sources: Arc<Vec<Source>>,
    schedule: Arc<Schedule>,
    seed: u64,
    options: LoaderOptions,
    memory: FillMemory,
    clock: Arc<Clock>,
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
        let (lanes, ends) = lanes(steps, options.threads.max(1), options.depth);
        let mut loader = Self {
            lanes,
            handles: Vec::with_capacity(ends.len()),
            sources: Arc::clone(sources),
            decoding_before: decoding_ns(sources),
            waited: Duration::ZERO,
            clock: Arc::default(),
        };
        for (k, end) in ends.into_iter().enumerate() {
            let worker = Worker {
                sources: Arc::clone(sources),
                schedule: Arc::clone(schedule),
                seed,
                options,
                memory: FillMemory::default(),
                clock: Arc::clone(&loader.clock),
            };
            let spawned = std::thread::Builder::new()
                .name(format!("loader-{k}"))
                .spawn(move || worker.run(end))
                .map_err(|e| LoadError::Thread(e.to_string()))?;
            loader.handles.push(spawned);
        }
        Ok(loader)
    }

    /// Gives the memory of a used update back.
    pub fn recycle(&self, step: Step) {
        self.lanes.give_back(step.plan.step.0, step);
    }

    /// Where time went so far.
    pub fn times(&self) -> LoaderTimes {
        let of = |ns: &AtomicU64| Duration::from_nanos(ns.load(Ordering::Relaxed));
        LoaderTimes {
            waited: self.waited,
            filling: of(&self.clock.filling_ns),
            decoding: Duration::from_nanos(decoding_ns(&self.sources) - self.decoding_before),
            idle: of(&self.clock.idle_ns),
        }
    }
}

/// Sessions share their images, so the largest of each task counts.
fn decoding_ns(sources: &[Source]) -> u64 {
    let of_task =
        |task| sources.iter().filter(|s| s.task == task).map(Source::decoding_ns).max().unwrap_or(0);
    crate::base::Task::ALL.into_iter().map(of_task).sum()
}

impl Iterator for Loader {
    type Item = Result<Step, LoadError>;

    fn next(&mut self) -> Option<Self::Item> {
        let start = Instant::now();
        let next = self.lanes.next();
        self.waited += start.elapsed();
        next.map(|item| {
            item.map_err(|stop| match stop {
                Stop::Failed(e) => e,
                Stop::Gone(k) => LoadError::Worker(k),
            })
        })
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        // Workers stop when their lane is closed; then joining cannot block.
        self.lanes.close();
        for handle in self.handles.drain(..) {
            // A worker's panic was reported by `next`, or nobody waits for its result any more.
            let _ = handle.join();
        }
    }
}

impl Worker {
    fn run(mut self, end: WorkerEnd<Step, LoadError>) {
        let clock = Arc::clone(&self.clock);
        let mut since = Instant::now();
        let mut lap = |counter: &AtomicU64| {
            let now = Instant::now();
            counter.fetch_add((now - since).as_nanos() as u64, Ordering::Relaxed);
            since = now;
        };
        end.run(
            |number, step| self.fill(StepIndex(number), step),
            |sending| lap(if sending { &clock.filling_ns } else { &clock.idle_ns }),
        );
    }

    fn fill(&mut self, number: StepIndex, step: &mut Step) -> Result<(), LoadError> {
        let LoaderOptions { rank, world, .. } = self.options;
        self.schedule.step_into(number, &mut step.plan);
        // Steps differ in their number of batches; memory that is not needed now is kept for later.
        while step.batches.len() > step.plan.batches.len() {
            step.unused.extend(step.batches.pop());
        }
        while step.batches.len() < step.plan.batches.len() {
            step.batches.push(step.unused.pop().unwrap_or_default());
        }
        for (plan, batch) in step.plan.batches.iter().zip(&mut step.batches) {
            let source = &self.sources[plan.stream.0 as usize];
            source.fill(&self.schedule, &plan.share(rank, world), self.seed, &mut self.memory, batch)?;
        }
        Ok(())
    }
}
