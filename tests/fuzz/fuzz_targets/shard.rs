//! Any bytes as a shard, any index and metadata behind a header with a right checksum, and any block of any codec.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nct::base::digest::crc32c_of_parts;
use nct::shard::codec::decode;
use nct::shard::layout::{Codec, Header};
use nct::shard::{Pixels, Raster, Shard};
use std::path::Path;

/// Blocks beyond this are not decoded: a forged size costs memory up to the format's limit, which is allowed.
const READ: usize = 1 << 20;

fn read(bytes: &[u8]) {
    let Ok(shard) = Shard::open(bytes, Path::new("fuzz.nct")) else { return };
    let _ = shard.verify_padding();
    for field in 0..shard.meta().schema.0.len() {
        for block in 0..shard.n_blocks(field).min(64) {
            let size = shard.block_bytes(field, block);
            if size <= READ {
                let _ = shard.read_block(field, block, &mut vec![0; size]);
            }
        }
    }
}

fuzz_target!(|data: &[u8]| {
    read(data);
    let Some((sizes, rest)) = data.split_first_chunk::<4>() else { return };
    let [line, plane, size, kind] = sizes.map(usize::from);
    let pixels = [Pixels::None, Pixels::Gray, Pixels::Colour { plane: plane.max(1) }][kind % 3];
    let codec = Codec::ALL[kind / 3 % Codec::ALL.len()];
    let _ = decode(codec, Raster { line_bytes: line, pixels }, rest, &mut vec![0; 16 * size + kind / 16]);
    let (n_blocks, n_index) = (usize::from(sizes[0]) * 8, usize::from(sizes[1]) * 24);
    let Some((blocks, rest)) = rest.split_at_checked(n_blocks) else { return };
    let Some((index, meta)) = rest.split_at_checked(n_index) else { return };
    let index_at = 128 + n_blocks as u64;
    let mut header = Header {
        n_fields: u32::from(sizes[2]),
        n_rows: u64::from(sizes[3]),
        file_bytes: index_at + (index.len() + meta.len()) as u64,
        index_at,
        index_bytes: index.len() as u64,
        meta_at: index_at + index.len() as u64,
        meta_bytes: meta.len() as u64,
        checksum: 0,
    };
    header.checksum = crc32c_of_parts([&header.encode()[..], index, meta]);
    read(&[&header.encode()[..], blocks, index, meta].concat());
});
