//! Any bytes as an image in a `.npy` file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nct::ingest::image::decode_npy;
use std::path::Path;

fuzz_target!(|data: &[u8]| {
    let _ = decode_npy(data, Path::new("fuzz.npy"));
});
