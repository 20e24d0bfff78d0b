//! Writes neural sets in the raw layout: images as `.npy`, sessions as pickles.

mod pickle;

use super::error::{IngestError, Result};
use std::fs;
use std::path::Path;

/// A recording session as its file holds it.
#[derive(Debug, Clone)]
pub struct RawSession {
    /// The animal.
    pub subject_id: String,
    /// The session; a whole number is written as one.
    pub session_id: String,
    /// What is divided into training and validation.
    pub training: RawTrials,
    /// What is tested on.
    pub testing: RawTrials,
    /// Neurons and time bins.
    pub shape: [usize; 2],
}

/// Presentations of images.
#[derive(Debug, Clone, Default)]
pub struct RawTrials {
    /// Image of each trial, from 1.
    pub ids: Vec<i64>,
    /// Class of each trial's image; empty if unknown.
    pub labels: Vec<i64>,
    /// `[neurons, bins, trials]`
    pub responses: Vec<f32>,
}

/// Writes image `id` of the set at `root`: `[height, width]`, or `[height, width, 3]` of three planes.
pub fn save_image(root: &Path, id: u64, planes: &[u8], height: usize, width: usize) -> Result<()> {
    let path = root.join("images").join(format!("{id:06}.npy"));
    let n = height * width;
    if planes.len() == n {
        return save(&path, &npy(&format!("{height}, {width}"), planes));
    }
    let pixels: Vec<u8> = (0..n).flat_map(|i| [planes[i], planes[n + i], planes[2 * n + i]]).collect();
    save(&path, &npy(&format!("{height}, {width}, 3"), &pixels))
}

/// Writes a session of the set at `root`.
pub fn save_session(root: &Path, session: &RawSession) -> Result<()> {
    let path = root.join("neuronal_data").join(format!("CSRF19_V1_{}.pickle", session.session_id));
    save(&path, &pickle::session(session))
}

/// A `.npy` file of bytes.
fn npy(shape: &str, pixels: &[u8]) -> Vec<u8> {
    let mut header = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': ({shape}), }}");
    // Magic, version, length and header together fill a multiple of 64 bytes.
    header.push_str(&" ".repeat((64 - (10 + header.len() + 1) % 64) % 64));
    header.push('\n');
    let length = (header.len() as u16).to_le_bytes();
    [b"\x93NUMPY\x01\0".as_slice(), &length, header.as_bytes(), pixels].concat()
}

/// Writes a file and the folders it lies in.
pub(super) fn save(path: &Path, bytes: &[u8]) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(IngestError::io(folder, "create"))?;
    }
    fs::write(path, bytes).map_err(IngestError::io(path, "write"))
}
