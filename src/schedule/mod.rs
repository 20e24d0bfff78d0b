//! What each update reads: pure functions of (streams, mix, seed). `Schedule::step(k)` needs no
//! history, so resuming is a subtraction.
//!
//! Absent: input and output, threads, the passage of time.

mod mix;
mod order;
mod spec;
#[cfg(test)]
mod tests;

pub use mix::Interleave;
pub use order::{Order, Permutation, Windowed};
pub use spec::{LastBatch, Mix, Ratio, RatioByEpoch, StreamSpec, Window};

use crate::base::{Purpose, RecordId, RngKey, StepIndex, StreamId, Task};

/// A mix that cannot be scheduled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("schedule: {0}")]
pub struct ScheduleError(String);

/// Everything one optimiser update consumes, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StepPlan {
    /// Which update, from the start of the run.
    pub step: StepIndex,
    /// Its epoch, counted from 1.
    pub epoch: u32,
    /// Its batches; gradients add up over them.
    pub batches: Vec<BatchPlan>,
}

/// One batch of one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchPlan {
    /// The stream.
    pub stream: StreamId,
    /// Names the pass over the stream, together with `pass`; 0 in mixes that do not restart.
    pub epoch: u32,
    /// Number of the pass.
    pub pass: u64,
    /// Position of the first record in the pass; positions past its end start over.
    pub first: u64,
    /// Number of records.
    pub len: u32,
}

impl BatchPlan {
    /// What rank `rank` of `world` takes of it. The shares of all ranks are the batch, in order, and
    /// differ by at most one record.
    pub fn share(self, rank: u32, world: u32) -> Self {
        let cut = |r: u32| u64::from(self.len) * u64::from(r) / u64::from(world.max(1));
        Self { first: self.first + cut(rank), len: (cut(rank + 1) - cut(rank)) as u32, ..self }
    }
}

/// The plan of a whole run.
#[derive(Debug, Clone)]
pub struct Schedule {
    streams: Vec<StreamSpec>,
    mix: Mix,
    seed: u64,
    steps_per_epoch: u64,
    interleave: Option<Interleave>,
    /// The image stream, and the sessions of each neural set, for [`Mix::Mtl`].
    main: usize,
    sets: Vec<Vec<usize>>,
}

impl Schedule {
    /// Plans `streams` in the given mix.
    pub fn new(streams: Vec<StreamSpec>, mix: Mix, seed: u64) -> Result<Self, ScheduleError> {
        check(&streams, &mix)?;
        let main = streams.iter().position(|s| s.task == Task::Classification).unwrap_or(0);
        let weights: Vec<f64> = streams.iter().map(|s| s.weight).collect();
        let interleave = matches!(mix, Mix::Weighted { .. }).then(|| Interleave::new(&weights));
        let sessions = |task: Task| -> Vec<usize> {
            (0..streams.len()).filter(|&s| s != main && streams[s].task == task).collect()
        };
        let sets = Task::ALL.map(sessions).into_iter().filter(|set| !set.is_empty()).collect();
        let mut schedule = Self { streams, mix, seed, steps_per_epoch: 0, interleave, main, sets };
        schedule.steps_per_epoch = schedule.count_steps();
        Ok(schedule)
    }

    /// The streams.
    pub fn streams(&self) -> &[StreamSpec] {
        &self.streams
    }

    /// Updates in every epoch.
    pub fn steps_per_epoch(&self) -> u64 {
        self.steps_per_epoch
    }

    /// The epoch of `step`, counted from 1.
    pub fn epoch_of(&self, step: StepIndex) -> u32 {
        (step.0 / self.steps_per_epoch) as u32 + 1
    }

    /// Number of the first update of `epoch`.
    pub fn first_step(&self, epoch: u32) -> StepIndex {
        StepIndex(u64::from(epoch.saturating_sub(1)) * self.steps_per_epoch)
    }

    /// The plan of update `step`.
    pub fn step(&self, step: StepIndex) -> StepPlan {
        let mut plan = StepPlan::default();
        self.step_into(step, &mut plan);
        plan
    }

    /// As [`Self::step`], into memory that is there already.
    pub fn step_into(&self, step: StepIndex, plan: &mut StepPlan) {
        let epoch = self.epoch_of(step);
        let i = step.0 % self.steps_per_epoch;
        (plan.step, plan.epoch) = (step, epoch);
        let out = &mut plan.batches;
        out.clear();
        match &self.mix {
            Mix::Mtl { ratio, images_per_step } => {
                let n = u64::from(*images_per_step);
                let end = self.batches_per_pass(self.main).min((i + 1) * n);
                (i * n..end).for_each(|image| self.mtl(epoch, image, ratio.at(epoch), out));
            }
            Mix::Long { .. } | Mix::Short { .. } => self.rounds(epoch, i, out),
            Mix::Weighted { batches_per_step, .. } => self.weighted(step, u64::from(*batches_per_step), out),
            Mix::InOrder => self.in_order(i, out),
        }
    }

    /// The records of a batch.
    pub fn records(&self, batch: &BatchPlan) -> impl Iterator<Item = RecordId> + use<> {
        let order = self.order(batch);
        let n = self.streams[batch.stream.0 as usize].records;
        let positions = batch.first..batch.first + u64::from(batch.len);
        positions.map(move |i| RecordId(order.at(if i < n { i } else { i % n })))
    }

    fn order(&self, batch: &BatchPlan) -> Order {
        if self.mix == Mix::InOrder {
            return Order::Stored;
        }
        let spec = &self.streams[batch.stream.0 as usize];
        let key = RngKey::new(self.seed, Purpose::Order, batch.stream.0).word(batch.epoch, batch.pass);
        match spec.window {
            None => Order::Full(Permutation::new(spec.records, key)),
            Some(window) => Order::Windowed(Windowed::new(spec.records, window, key)),
        }
    }

    /// Evaluation sees every record once, whatever the streams say.
    fn last_batch(&self, stream: usize) -> LastBatch {
        if self.mix == Mix::InOrder { LastBatch::Keep } else { self.streams[stream].last_batch }
    }

    fn batches_per_pass(&self, stream: usize) -> u64 {
        let (records, size) = (self.streams[stream].records, u64::from(self.streams[stream].batch_size));
        match self.last_batch(stream) {
            LastBatch::Drop => records / size,
            LastBatch::Keep | LastBatch::Fill => records.div_ceil(size),
        }
    }

    /// Batches of one epoch of the round-robin mixes.
    fn round_robin_batches(&self) -> u64 {
        let passes = (0..self.streams.len()).map(|s| self.batches_per_pass(s));
        let rounds = if matches!(self.mix, Mix::Short { .. }) { passes.min() } else { passes.max() };
        self.streams.len() as u64 * rounds.unwrap_or(0)
    }

    fn batches_per_step(&self) -> u64 {
        match self.mix {
            Mix::Long { batches_per_step: 0 } | Mix::Short { batches_per_step: 0 } => {
                self.streams.len() as u64
            }
            Mix::Long { batches_per_step: n }
            | Mix::Short { batches_per_step: n }
            | Mix::Weighted { batches_per_step: n, .. }
            | Mix::Mtl { images_per_step: n, .. } => u64::from(n),
            Mix::InOrder => 1,
        }
    }

    fn count_steps(&self) -> u64 {
        let all: u64 = (0..self.streams.len()).map(|s| self.batches_per_pass(s)).sum();
        match self.mix {
            Mix::Mtl { .. } => self.batches_per_pass(self.main).div_ceil(self.batches_per_step()),
            Mix::Long { .. } | Mix::Short { .. } => {
                self.round_robin_batches().div_ceil(self.batches_per_step())
            }
            Mix::Weighted { steps_per_epoch: 0, .. } => all.div_ceil(self.batches_per_step()),
            Mix::Weighted { steps_per_epoch, .. } => steps_per_epoch,
            Mix::InOrder => all,
        }
    }

    /// Batch number `number` of `stream` since the start of `epoch`, wrapping into further passes.
    fn batch(&self, stream: usize, epoch: u32, number: u64) -> BatchPlan {
        let spec = &self.streams[stream];
        let per_pass = self.batches_per_pass(stream);
        let first = number % per_pass * u64::from(spec.batch_size);
        let len = match self.last_batch(stream) {
            LastBatch::Keep => u64::from(spec.batch_size).min(spec.records - first) as u32,
            LastBatch::Drop | LastBatch::Fill => spec.batch_size,
        };
        BatchPlan { stream: StreamId(stream as u32), epoch, pass: number / per_pass, first, len }
    }

    /// The batches that go with image batch `i` of the epoch, and itself.
    fn mtl(&self, epoch: u32, i: u64, ratio: Ratio, out: &mut Vec<BatchPlan>) {
        let neural = match ratio {
            Ratio::PerStep(n) => i * u64::from(n)..(i + 1) * u64::from(n),
            Ratio::EveryNth(n) => i / u64::from(n)..(i + 1) / u64::from(n),
        };
        for set in &self.sets {
            let n = set.len() as u64;
            out.extend(neural.clone().map(|j| self.batch(set[(j % n) as usize], epoch, j / n)));
        }
        out.push(self.batch(self.main, epoch, i));
    }

    fn rounds(&self, epoch: u32, i: u64, out: &mut Vec<BatchPlan>) {
        let (n, per_step) = (self.streams.len() as u64, self.batches_per_step());
        let end = ((i + 1) * per_step).min(self.round_robin_batches());
        out.extend((i * per_step..end).map(|j| self.batch((j % n) as usize, epoch, j / n)));
    }

    fn weighted(&self, step: StepIndex, per_step: u64, out: &mut Vec<BatchPlan>) {
        let interleave = self.interleave.as_ref().expect("new made it for this mix");
        out.extend((step.0 * per_step..(step.0 + 1) * per_step).map(|t| {
            let (stream, number) = interleave.at(t);
            self.batch(stream, 0, number)
        }));
    }

    fn in_order(&self, mut i: u64, out: &mut Vec<BatchPlan>) {
        let mut stream = 0;
        while i >= self.batches_per_pass(stream) {
            i -= self.batches_per_pass(stream);
            stream += 1;
        }
        out.push(self.batch(stream, 0, i));
    }
}

fn check(streams: &[StreamSpec], mix: &Mix) -> Result<(), ScheduleError> {
    let fail = |what: String| Err(ScheduleError(what));
    if streams.is_empty() {
        return fail("there is nothing to read".to_owned());
    }
    for (i, stream) in streams.iter().enumerate() {
        if stream.records == 0 || stream.batch_size == 0 {
            return fail(format!("stream {i} ({}) has no records, or batches of none", stream.task));
        }
        let drops_all = stream.last_batch == LastBatch::Drop && stream.records < u64::from(stream.batch_size);
        if drops_all && *mix != Mix::InOrder {
            let (records, batch) = (stream.records, stream.batch_size);
            return fail(format!(
                "stream {i} ({}) has {records} records, not one batch of {batch}, and last_batch = \"drop\"",
                stream.task
            ));
        }
        if !(stream.weight.is_finite() && stream.weight > 0.0) {
            return fail(format!("weight {} of stream {i} is not a positive number", stream.weight));
        }
    }
    let images = streams.iter().filter(|s| s.task == Task::Classification).count();
    match mix {
        Mix::Mtl { .. } if images != 1 => fail(format!(
            "mix `mtl` needs exactly one image set, and there are {images}; for one task: {}",
            only("long")
        )),
        Mix::Mtl { .. } if streams.len() < 2 => {
            fail(format!("mix `mtl` needs neural data beside the images; for one task: {}", only("long")))
        }
        Mix::Weighted { batches_per_step: 0, .. } | Mix::Mtl { images_per_step: 0, .. } => {
            fail("batches_per_step must be at least 1".to_owned())
        }
        _ => Ok(()),
    }
}

/// How settings get a mix of this kind without what the recipe says of another: `mix.kind` alone leaves its ratio.
pub(crate) fn only(kind: &str) -> String {
    format!(
        "--set 'mix={{kind=\"{kind}\"}}', or in a recipe a [mix] with kind = \"{kind}\" alone, and without = [\"mix\"] if another is inherited"
    )
}
