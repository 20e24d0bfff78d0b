//! Any bytes as a file of `torch.save`: zip archive or old format, pickles, and the tensors in them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nct::ingest::torch_tensors;

fuzz_target!(|data: &[u8]| {
    let Some(Ok(tensors)) = torch_tensors(data) else { return };
    for tensor in tensors {
        let n: usize = tensor.shape.iter().product();
        assert_eq!(n * tensor.kind.bytes(), tensor.bytes.len());
    }
});
