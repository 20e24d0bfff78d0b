//! Work done on all threads, its results taken in order.

use super::Result;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Results that wait for their turn.
struct Queue<T, F> {
    next: usize,
    waiting: BTreeMap<usize, T>,
    take: F,
    /// The first error by place.
    error: Option<(usize, super::IngestError)>,
}

impl<T, F: FnMut(T) -> Result<()>> Queue<T, F> {
    fn put(&mut self, i: usize, made: Result<T>) {
        match made {
            Ok(made) => drop(self.waiting.insert(i, made)),
            Err(e) => self.fail(i, e),
        }
        while self.error.is_none()
            && let Some(made) = self.waiting.remove(&self.next)
        {
            if let Err(e) = (self.take)(made) {
                self.fail(self.next, e);
            }
            self.next += 1;
        }
    }

    fn fail(&mut self, i: usize, e: super::IngestError) {
        if self.error.as_ref().is_none_or(|(first, _)| i < *first) {
            self.error = Some((i, e));
        }
    }
}

/// Makes things 0 to `n` on all threads of the pool and takes them in order, each by the thread that made
/// the one that was missing: no thread waits for a round of others. The error given is the first by place,
/// whatever the threads.
pub(super) fn in_order<T: Send>(
    n: usize,
    make: impl Fn(usize) -> Result<T> + Sync,
    take: impl FnMut(T) -> Result<()> + Send,
) -> Result<()> {
    let queue = Mutex::new(Queue { next: 0, waiting: BTreeMap::new(), take, error: None });
    let (begun, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    rayon::broadcast(|_| {
        while !failed.load(Ordering::Relaxed) {
            let i = begun.fetch_add(1, Ordering::Relaxed);
            if i >= n {
                break;
            }
            let made = make(i);
            let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
            queue.put(i, made);
            failed.fetch_or(queue.error.is_some(), Ordering::Relaxed);
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
