//! Work done on all threads, its results taken in order.

use super::Result;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

/// So many results a thread may be made before their turn; who comes earlier waits.
const WAITING: usize = 8;

/// Results that wait for their turn.
struct Queue<T> {
    next: usize,
    waiting: BTreeMap<usize, T>,
    /// Whether a thread is taking.
    taken: bool,
    /// The first error by place.
    error: Option<(usize, super::IngestError)>,
    /// Whether a thread panics: what it was at never comes.
    gone: bool,
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

/// Tells the others when its thread panics.
struct Watch<'a, T>(&'a Mutex<Queue<T>>, &'a Condvar);

impl<T> Drop for Watch<'_, T> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).gone = true;
            self.1.notify_all();
        }
    }
}

/// Makes things 0 to `n` on all threads of the pool and takes them in order, each by the thread that made
/// the one that was missing, while the others go on, up to a bound: no thread waits for a round of others. The error
/// given is the first by place, whatever the threads.
pub(super) fn in_order<T: Send>(
    n: usize,
    make: impl Fn(usize) -> Result<T> + Sync,
    take: impl FnMut(T) -> Result<()> + Send,
) -> Result<()> {
    let queue = Queue { next: 0, waiting: BTreeMap::new(), taken: false, error: None, gone: false };
    let (queue, moved) = (Mutex::new(queue), Condvar::new());
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
            moved.notify_all();
        }
        now.taken = false;
    };
    let begun = AtomicUsize::new(0);
    rayon::broadcast(|threads| {
        let _watch = Watch(&queue, &moved);
        let ahead = WAITING * threads.num_threads();
        let over = |now: &Queue<T>| now.error.is_some() || now.gone;
        while !over(&lock()) {
            let i = begun.fetch_add(1, Ordering::Relaxed);
            if i >= n {
                break;
            }
            let early = |now: &mut Queue<T>| i >= now.next + ahead && !over(now);
            let now = moved.wait_while(lock(), early).unwrap_or_else(PoisonError::into_inner);
            // One before the error is made, since its own would be the first.
            if i >= now.next + ahead {
                break;
            }
            drop(now);
            match make(i) {
                Ok(made) => drop(lock().waiting.insert(i, made)),
                Err(e) => {
                    lock().fail(i, e);
                    moved.notify_all();
                }
            }
            take_all();
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

    #[test]
    fn one_that_takes_long_holds_the_others_up_before_they_fill_the_memory() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(4).build().unwrap();
        let (made, at_first) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let make = |i: usize| {
            if i == 0 {
                std::thread::sleep(std::time::Duration::from_millis(300));
                at_first.store(made.load(Ordering::Relaxed), Ordering::Relaxed);
            }
            made.fetch_add(1, Ordering::Relaxed);
            Ok(i)
        };
        let mut taken = Vec::new();
        pool.install(|| in_order(500, make, push(&mut taken))).unwrap();
        assert!(taken.into_iter().eq(0..500));
        assert!(at_first.into_inner() < 4 * WAITING);
    }

    #[test]
    fn a_panic_does_not_leave_the_others_waiting() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(4).build().unwrap();
        let make = |i: usize| if i == 3 { panic!("at {i}") } else { Ok(i) };
        let all = || pool.install(|| in_order(500, make, |_| Ok(())));
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(all)).is_err());
    }
}
