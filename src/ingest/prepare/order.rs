//! Work done on all threads, its results taken in order.

use super::Result;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// So many results a thread may wait for their turn before their makers wait for the taker.
const WAITING: usize = 8;

/// Results that wait for their turn.
struct Queue<T> {
    next: usize,
    waiting: BTreeMap<usize, T>,
    /// Whether a thread is taking.
    taken: bool,
    /// The first error by place.
    error: Option<(usize, super::IngestError)>,
}

impl<T> Queue<T> {
    fn fail(&mut self, i: usize, e: super::IngestError) {
        if self.error.as_ref().is_none_or(|(first, _)| i < *first) {
            self.error = Some((i, e));
        }
    }

    /// The next result, if it is there and none before it failed.
    fn pop(&mut self) -> Option<T> {
        if self.error.is_some() { None } else { self.waiting.remove(&self.next) }
    }
}

/// Makes things 0 to `n` on all threads of the pool and takes them in order, each by the thread that made
/// the one that was missing, while the others go on: no thread waits for a round of others. The error given is
/// the first by place, whatever the threads.
pub(super) fn in_order<T: Send>(
    n: usize,
    make: impl Fn(usize) -> Result<T> + Sync,
    take: impl FnMut(T) -> Result<()> + Send,
) -> Result<()> {
    let queue = Mutex::new(Queue { next: 0, waiting: BTreeMap::new(), taken: false, error: None });
    let take = Mutex::new(take);
    let lock = || queue.lock().unwrap_or_else(PoisonError::into_inner);
    // Takes what can be taken, unless another thread is at it.
    let take_all = || {
        let mut now = lock();
        if std::mem::replace(&mut now.taken, true) {
            return;
        }
        let mut take = take.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(made) = now.pop() {
            drop(now);
            let taken = take(made);
            now = lock();
            let at = now.next;
            now.next += 1;
            taken.unwrap_or_else(|e| now.fail(at, e));
        }
        now.taken = false;
    };
    let begun = AtomicUsize::new(0);
    rayon::broadcast(|threads| {
        while lock().error.is_none() {
            let i = begun.fetch_add(1, Ordering::Relaxed);
            if i >= n {
                break;
            }
            match make(i) {
                Ok(made) => drop(lock().waiting.insert(i, made)),
                Err(e) => lock().fail(i, e),
            }
            take_all();
            let full =
                |queue: &Queue<T>| queue.taken && queue.waiting.len() >= WAITING * threads.num_threads();
            if full(&lock()) {
                // Until the taker has done.
                drop(take.lock());
            }
        }
    });
    match queue.into_inner().unwrap_or_else(PoisonError::into_inner).error {
        Some((_, e)) => Err(e),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::IngestError;
    use super::*;
    use std::path::Path;

    fn push(taken: &mut Vec<usize>) -> impl FnMut(usize) -> Result<()> {
        |i| {
            taken.push(i);
            Ok(())
        }
    }

    #[test]
    fn results_come_in_order_and_the_first_error_counts() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(4).build().unwrap();
        let slow = |i: usize| {
            std::thread::sleep(std::time::Duration::from_micros(300 * (7 - i as u64 % 7)));
            Ok(i)
        };
        let mut taken = Vec::new();
        pool.install(|| in_order(50, slow, push(&mut taken))).unwrap();
        assert_eq!(taken, (0..50).collect::<Vec<_>>());

        let bad = |i: usize| IngestError::bad(Path::new("x"), format!("at {i}"));
        let make = |i: usize| if i % 10 == 9 { Err(bad(i)) } else { slow(i) };
        let mut taken = Vec::new();
        let error = pool.install(|| in_order(50, make, push(&mut taken))).unwrap_err();
        assert!(error.to_string().contains("at 9"), "{error}");
        let untaken = pool.install(|| in_order(50, slow, |i| if i == 3 { Err(bad(i)) } else { Ok(()) }));
        assert!(untaken.unwrap_err().to_string().contains("at 3"));
        assert!(taken.iter().copied().eq(0..taken.len()) && taken.len() <= 9, "{taken:?}");
    }
}
