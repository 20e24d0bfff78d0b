//! Unsafe fence 4, continued: what a GPU was given, recorded once to be done again at a fraction of the host's effort.
#![expect(unsafe_code, reason = "a C interface is unsafe by nature; this is its only place beside `mod.rs`")]

use super::checked;
use std::ffi::{c_int, c_void};
use std::fmt;
use std::ptr;
use tch::TchError;

unsafe extern "C" {
    fn nct_graph_begin(index: c_int, out: *mut *mut c_void) -> c_int;
    fn nct_graph_end(graph: *mut c_void) -> c_int;
    fn nct_graph_replay(graph: *mut c_void) -> c_int;
    fn nct_graph_free(graph: *mut c_void);
}

/// A CUDA graph. It reads and writes the tensors that were there when it was recorded, in their places; what it makes is
/// good until the next graph of any kind is replayed, as they share memory.
pub struct Graph {
    raw: *mut c_void,
}

impl fmt::Debug for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Graph")
    }
}

/// Ends a recording, however it goes.
struct Recording(Option<Graph>);

impl Recording {
    fn end(&mut self) -> Result<Option<Graph>, TchError> {
        let Some(graph) = self.0.take() else { return Ok(None) };
        // SAFETY: the graph is being recorded by this thread, and ended once.
        checked(unsafe { nct_graph_end(graph.raw) }).map_err(TchError::Torch)?;
        Ok(Some(graph))
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        // What broke the recording is told already.
        let _ = self.end();
    }
}

impl Graph {
    /// Records what `work` gives GPU `gpu`, which does nothing of it yet. `work` may not wait for the device, bring
    /// anything there, or seed generators; backward passes belong to it. What it reads and writes beside what it makes, and
    /// what it gives, must stay where it is as long as the graph is replayed.
    pub fn record<T, E: From<TchError>>(
        gpu: usize,
        work: impl FnOnce() -> Result<T, E>,
    ) -> Result<(Self, T), E> {
        let mut raw = ptr::null_mut();
        // SAFETY: `raw` is a place for a pointer.
        checked(unsafe { nct_graph_begin(gpu as c_int, &raw mut raw) }).map_err(TchError::Torch)?;
        let mut recording = Recording(Some(Self { raw }));
        let result = work()?;
        let graph = recording.end()?.ok_or_else(|| TchError::Torch("a recording ended twice".into()))?;
        Ok((graph, result))
    }

    /// Has the device do all of it again.
    pub fn replay(&self) -> Result<(), TchError> {
        // SAFETY: the graph was recorded, and lives as long as `self`; tensors that it names are kept alive by the pool
        // of graphs, or by whoever recorded it, as [`Self::record`] asks.
        checked(unsafe { nct_graph_replay(self.raw) }).map_err(TchError::Torch)
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: made by `nct_graph_begin`, given back once.
        unsafe { nct_graph_free(self.raw) }
    }
}
