//! How steps get from workers to the training loop, and their memory back.
//!
//! Worker k makes every n-th item and sends it through its own bounded channel; the loop takes from the
//! workers in turn and returns each item's memory to the worker it came from. So order needs no sorting,
//! what is delivered cannot depend on the number of workers, and items in circulation are bounded by
//! depth, worker and what the loop holds. The channels are lock-free unless one side must sleep.
//!
//! `RUSTFLAGS="--cfg nct_shuttle"` runs the tests below under many thread schedules.

#[cfg(not(nct_shuttle))]
use crossbeam_channel::{Receiver, Sender, bounded};
#[cfg(nct_shuttle)]
use shuttle::sync::mpsc::{Receiver, SyncSender as Sender, sync_channel as bounded};

/// The loop's ends of all lanes.
#[derive(Debug)]
pub(super) struct Lanes<T, E> {
    lanes: Vec<Lane<T, E>>,
    first: u64,
    next: u64,
    end: u64,
}

#[derive(Debug)]
struct Lane<T, E> {
    ready: Receiver<Result<T, E>>,
    used: Sender<T>,
}

/// One worker's end.
#[derive(Debug)]
pub(super) struct WorkerEnd<T, E> {
    ready: Sender<Result<T, E>>,
    used: Receiver<T>,
    items: std::iter::StepBy<std::ops::Range<u64>>,
}

/// Why there is no next item.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stop<E> {
    /// The worker met an error.
    Failed(E),
    /// Worker number so-and-so is gone: it panicked.
    Gone(usize),
}

/// Lanes for `items`, of which each worker may be `depth` ahead.
pub(super) fn lanes<T, E>(
    items: std::ops::Range<u64>,
    workers: usize,
    depth: usize,
) -> (Lanes<T, E>, Vec<WorkerEnd<T, E>>) {
    let (mut lanes, mut ends) = (Vec::with_capacity(workers), Vec::with_capacity(workers));
    for k in 0..workers as u64 {
        let (send_ready, ready) = bounded(depth.max(1));
        // Room for all in circulation: those on the way, in the making and at the loop.
        let (used, receive_used) = bounded(depth.max(1) + 3);
        lanes.push(Lane { ready, used });
        let items = (items.start + k..items.end).step_by(workers);
        ends.push(WorkerEnd { ready: send_ready, used: receive_used, items });
    }
    (Lanes { lanes, first: items.start, next: items.start, end: items.end }, ends)
}

impl<T, E> Lanes<T, E> {
    /// The next item in order; nothing after the last, or after a stop.
    pub(super) fn next(&mut self) -> Option<Result<T, Stop<E>>> {
        if self.next >= self.end {
            return None;
        }
        let k = self.worker_of(self.next);
        self.next += 1;
        let stop = match self.lanes[k].ready.recv() {
            Ok(Ok(item)) => return Some(Ok(item)),
            Ok(Err(e)) => Stop::Failed(e),
            Err(_) => Stop::Gone(k),
        };
        self.end = self.next;
        Some(Err(stop))
    }

    /// Gives the memory of item `number` back to its worker.
    pub(super) fn give_back(&self, number: u64, item: T) {
        if let Some(lane) = self.lanes.get(self.worker_of(number)) {
            // A full channel means that enough is in circulation; a closed one, that the worker is done.
            let _ = lane.used.try_send(item);
        }
    }

    /// Lets all workers stop at their next item.
    pub(super) fn close(&mut self) {
        self.lanes.clear();
        self.end = self.next;
    }

    fn worker_of(&self, number: u64) -> usize {
        (number.saturating_sub(self.first) % self.lanes.len().max(1) as u64) as usize
    }
}

impl<T: Default, E> WorkerEnd<T, E> {
    /// Makes items with `make(number, memory)` until all are made, one fails, or the loop is gone.
    /// `sending` hears true before an item is handed over and false after.
    pub(super) fn run(
        self,
        mut make: impl FnMut(u64, &mut T) -> Result<(), E>,
        mut sending: impl FnMut(bool),
    ) {
        // What came back last is taken first: it is still in the processor's caches.
        let mut spare: Vec<T> = Vec::new();
        for number in self.items {
            while let Ok(item) = self.used.try_recv() {
                spare.push(item);
            }
            let mut item = spare.pop().unwrap_or_default();
            let made = make(number, &mut item).map(|()| item);
            let failed = made.is_err();
            sending(true);
            let gone = self.ready.send(made).is_err();
            sending(false);
            if gone || failed {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(nct_shuttle)]
    use shuttle::thread;
    #[cfg(not(nct_shuttle))]
    use std::thread;

    /// Under shuttle in many random schedules, else a few times as the machine has it.
    fn explore(test: impl Fn() + Send + Sync + 'static) {
        #[cfg(nct_shuttle)]
        shuttle::check_pct(test, 20_000, 4);
        #[cfg(not(nct_shuttle))]
        (0..200).for_each(|_| test());
    }

    fn start(
        items: std::ops::Range<u64>,
        workers: usize,
        make: fn(u64, &mut Vec<u64>) -> Result<(), u64>,
    ) -> (Lanes<Vec<u64>, u64>, Vec<thread::JoinHandle<()>>) {
        let (lanes, ends) = lanes(items, workers, 1);
        let run = |end: WorkerEnd<Vec<u64>, u64>| thread::spawn(move || end.run(make, |_| ()));
        (lanes, ends.into_iter().map(run).collect())
    }

    fn join(workers: impl IntoIterator<Item = thread::JoinHandle<()>>) {
        for worker in workers {
            worker.join().unwrap();
        }
    }

    fn write(number: u64, memory: &mut Vec<u64>) -> Result<(), u64> {
        memory.clear();
        memory.push(number);
        if number == 95 { Err(number) } else { Ok(()) }
    }

    #[test]
    fn every_item_comes_once_and_in_order() {
        explore(|| {
            let (mut lanes, workers) = start(3..9, 2, write);
            for expected in 3..9 {
                let item = lanes.next().unwrap().unwrap();
                assert_eq!(item, [expected]);
                lanes.give_back(expected, item);
            }
            assert!(lanes.next().is_none());
            join(workers);
        });
    }

    #[test]
    fn a_loop_that_leaves_early_lets_all_workers_end() {
        explore(|| {
            let (mut lanes, workers) = start(0..90, 3, write);
            let held = lanes.next().unwrap().unwrap();
            lanes.close();
            lanes.give_back(0, held);
            assert!(lanes.next().is_none());
            join(workers);
        });
    }

    #[test]
    fn an_error_comes_in_its_place_and_is_the_last() {
        explore(|| {
            let (mut lanes, workers) = start(94..99, 2, write);
            assert_eq!(lanes.next().unwrap(), Ok(vec![94]));
            assert_eq!(lanes.next().unwrap(), Err(Stop::Failed(95)));
            assert!(lanes.next().is_none());
            lanes.close();
            join(workers);
        });
    }

    #[test]
    fn a_worker_that_is_gone_is_an_error_in_its_place() {
        explore(|| {
            let (mut lanes, mut ends) = lanes::<Vec<u64>, u64>(0..6, 2, 1);
            // As a panic would: the end is dropped while the stack unwinds.
            drop(ends.pop());
            let worker = ends.pop().map(|end| thread::spawn(move || end.run(write, |_| ())));
            assert_eq!(lanes.next().unwrap(), Ok(vec![0]));
            assert_eq!(lanes.next().unwrap(), Err(Stop::Gone(1)));
            assert!(lanes.next().is_none());
            lanes.close();
            join(worker);
        });
    }
}
