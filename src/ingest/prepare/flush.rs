//! Written bytes go to disk while more are made.
//!
//! Flushing only a whole shard would leave the disk idle until then and the processor afterwards.

use std::fs::File;
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

/// Bytes between two flushes: enough that a flush costs little, few enough that little is left for the last, for which
/// all wait.
const PIECE: usize = 8 << 20;

/// Brings a growing file to disk beside its writer. Once [`Flusher::finish`] has passed, an error of the
/// disk was not overlooked: the system tells of it only once, maybe to this flush and not to a later one.
#[derive(Debug)]
pub(super) struct Flusher {
    unflushed: usize,
    out: File,
    /// Started with the first piece: most shards are smaller.
    thread: Option<(Sender<()>, JoinHandle<io::Result<()>>)>,
}

impl Flusher {
    /// For the file that `out` writes.
    pub(super) fn new(out: &File) -> io::Result<Self> {
        Ok(Self { unflushed: 0, out: out.try_clone()?, thread: None })
    }

    /// To be called when so many more bytes were handed to the system.
    pub(super) fn wrote(&mut self, bytes: usize) {
        self.unflushed += bytes;
        if self.unflushed < PIECE {
            return;
        }
        self.unflushed = 0;
        // Without a thread, everything is flushed at the end; one that has stopped holds its error.
        if self.thread.is_none() {
            let (wake, woken) = channel();
            let started = self.out.try_clone().and_then(|out| {
                std::thread::Builder::new().name("flush".to_owned()).spawn(move || flush(&out, &woken))
            });
            self.thread = started.ok().map(|thread| (wake, thread));
        }
        if let Some((wake, _)) = &self.thread {
            let _ = wake.send(());
        }
    }

    /// Waits for the flush at work; gives the first error of any. What was written last is not flushed.
    pub(super) fn finish(self) -> io::Result<()> {
        let Some((wake, thread)) = self.thread else { return Ok(()) };
        drop(wake);
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

fn flush(out: &File, woken: &Receiver<()>) -> io::Result<()> {
    while woken.recv().is_ok() {
        // One flush answers all calls that came before it.
        while woken.try_recv().is_ok() {}
        out.sync_data()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn errors_of_the_disk_are_not_lost() {
        let mut file = tempfile::tempfile().unwrap();
        let mut sound = Flusher::new(&file).unwrap();
        file.write_all(&[1; 100]).unwrap();
        (0..3).for_each(|_| sound.wrote(PIECE));
        assert!(sound.thread.is_some());
        sound.finish().unwrap();
        // A pipe cannot be flushed.
        let (_reader, writer) = io::pipe().unwrap();
        let mut broken = Flusher::new(&File::from(std::os::fd::OwnedFd::from(writer))).unwrap();
        broken.wrote(PIECE - 1);
        assert!(broken.thread.is_none());
        broken.wrote(1);
        broken.finish().unwrap_err();
    }
}
