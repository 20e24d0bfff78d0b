//! Bytes on their way to a file, in pieces that the system likes.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Write};

/// The system keeps what is written in pages, and in larger ones where a write begins and ends at multiples of this:
/// they take a quarter less time to fill and to bring to disk.
const PIECE: usize = 128 << 10;

/// Writes whole pieces, without copying what they are made of.
#[derive(Debug)]
pub(super) struct Pieces<W: Write> {
    out: W,
    waiting: VecDeque<Vec<u8>>,
    /// How much of the first that waits is written.
    written: usize,
    /// Bytes that wait.
    bytes: usize,
}

impl<W: Write> Pieces<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out, waiting: VecDeque::new(), written: 0, bytes: 0 }
    }

    /// Appends `bytes`.
    pub(super) fn push(&mut self, bytes: Vec<u8>) -> io::Result<()> {
        self.bytes += bytes.len();
        self.waiting.push_back(bytes);
        self.write(self.bytes / PIECE * PIECE)
    }

    /// Writes what is left and gives the output back.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.write(self.bytes)?;
        Ok(self.out)
    }

    /// Writes the first `n` bytes that wait.
    fn write(&mut self, mut n: usize) -> io::Result<()> {
        while n > 0 {
            let (mut slices, mut start, mut left) = (Vec::with_capacity(self.waiting.len()), self.written, n);
            for bytes in &self.waiting {
                let end = bytes.len().min(start + left);
                slices.push(IoSlice::new(&bytes[start..end]));
                left -= end - start;
                start = 0;
            }
            match self.out.write_vectored(&slices) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(done) => {
                    n -= done;
                    self.drop_first(done);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Forgets the first `n` bytes that wait.
    fn drop_first(&mut self, n: usize) {
        self.bytes -= n;
        self.written += n;
        while let Some(first) = self.waiting.front().filter(|first| first.len() <= self.written) {
            self.written -= first.len();
            self.waiting.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Takes at most `most` bytes at a time, and notes where each write begins.
    struct Slow {
        most: usize,
        bytes: Vec<u8>,
        begun: Vec<usize>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.begun.push(self.bytes.len());
            let n = bytes.len().min(self.most);
            self.bytes.extend_from_slice(&bytes[..n]);
            Ok(n)
        }

        fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
            self.write(&slices.iter().flat_map(|slice| slice.iter().copied()).collect::<Vec<_>>())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    proptest! {
        #[test]
        fn all_bytes_arrive_in_order_and_whole_pieces(
            sizes in proptest::collection::vec(0usize..300_000, 0..12), most in prop_oneof![Just(usize::MAX), 1000usize..200_000],
        ) {
            let mut pieces = Pieces::new(Slow { most, bytes: Vec::new(), begun: Vec::new() });
            let mut all = Vec::new();
            for (i, n) in sizes.into_iter().enumerate() {
                let bytes: Vec<u8> = (0..n).map(|j| (j * 7 + i) as u8).collect();
                all.extend_from_slice(&bytes);
                pieces.push(bytes).unwrap();
                prop_assert_eq!(pieces.out.bytes.len(), all.len() / PIECE * PIECE);
            }
            let out = pieces.finish().unwrap();
            prop_assert!(out.bytes == all);
            prop_assert!(most < usize::MAX || out.begun.iter().all(|at| at % PIECE == 0));
        }
    }

    #[test]
    fn a_full_disk_is_an_error() {
        let mut room = [0; 1000];
        let mut pieces = Pieces::new(&mut room[..]);
        pieces.push(vec![1; 2000]).unwrap();
        assert_eq!(pieces.finish().unwrap_err().kind(), io::ErrorKind::WriteZero);
    }
}
