//! The format as a whole: round trips, and what happens to damaged bytes.

use super::{
    BlockOptions, Content, Field, Schema, SessionMeta, Shard, ShardMeta, ShardWriter, block_rows, pack,
};
use crate::base::{DType, Split, rng::mix64};
use proptest::prelude::*;
use std::io::Cursor;
use std::path::Path;

fn meta(n_neurons: u32, options: BlockOptions) -> ShardMeta {
    let fields = vec![
        Field::new("id", DType::U32, &[]),
        Field::new("image", DType::U8, &[1, 5, 7]),
        Field::new("responses", DType::F32, &[n_neurons]),
    ];
    let session = SessionMeta {
        id: "s1".into(),
        subject: "31".into(),
        mean: vec![0.5; 2],
        variance: vec![1.0; 2],
        images: 3,
    };
    ShardMeta {
        dataset: "mtl".into(),
        content: Content::Session(session),
        split: Some(Split::Test),
        block_rows: fields.iter().map(|f| block_rows(f.row_bytes().unwrap(), options)).collect(),
        schema: Schema(fields),
    }
}

fn columns(n_rows: u32, n_neurons: u32) -> [Vec<u8>; 3] {
    let bytes = |n: u32, salt: u64| (0..n).map(|i| (mix64(u64::from(i) ^ salt) % 5) as u8).collect();
    [bytes(n_rows * 4, 1), bytes(n_rows * 35, 2), bytes(n_rows * 4 * n_neurons, 3)]
}

fn build(n_rows: u32, n_neurons: u32, target_bytes: u32) -> Vec<u8> {
    let options = BlockOptions { target_bytes, level: 3 };
    let path = Path::new("test.nct");
    let mut writer = ShardWriter::new(Cursor::new(Vec::new()), path, meta(n_neurons, options)).unwrap();
    for (field, column) in columns(n_rows, n_neurons).iter().enumerate() {
        writer.append_column(field, column, options.level).unwrap();
    }
    let (out, sealed) = writer.finish().unwrap();
    let bytes = out.into_inner();
    assert_eq!(sealed.blake3, crate::base::Fingerprint::of(&bytes));
    assert_eq!((sealed.bytes, sealed.checksum), (bytes.len() as u64, open(&bytes).unwrap().checksum()));
    bytes
}

fn open(bytes: &[u8]) -> Result<Shard<&[u8]>, super::ShardError> {
    Shard::open(bytes, Path::new("test.nct"))
}

fn read_all(bytes: &[u8]) -> Result<Vec<Vec<u8>>, super::ShardError> {
    let shard = open(bytes)?;
    for field in 0..shard.meta().schema.0.len() {
        (0..shard.n_blocks(field)).try_for_each(|block| shard.checked_block(field, block).map(drop))?;
    }
    shard.verify_padding()?;
    (0..shard.meta().schema.0.len()).map(|field| shard.read_column(field)).collect()
}

proptest! {
    #[test]
    fn records_come_back_whatever_the_block_size(n_rows in 0u32..90, n_neurons in 1u32..9, target in 1u32..2000) {
        let bytes = build(n_rows, n_neurons, target);
        prop_assert_eq!(read_all(&bytes).unwrap(), columns(n_rows, n_neurons));
        prop_assert_eq!(open(&bytes).unwrap().n_rows(), u64::from(n_rows));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(open(&bytes).is_err());
    }

    #[test]
    fn arbitrary_sections_under_a_right_checksum_never_panic(
        index in proptest::collection::vec(any::<u8>(), 0..100),
        meta in proptest::collection::vec(any::<u8>(), 0..100),
        n_fields in 0u32..4, n_rows in any::<u64>(),
    ) {
        use super::layout::{HEADER_BYTES, Header};
        let index_at = HEADER_BYTES as u64;
        let meta_at = index_at + index.len() as u64;
        let (index_bytes, meta_bytes) = (index.len() as u64, meta.len() as u64);
        let mut header = Header {
            n_fields, n_rows, file_bytes: meta_at + meta_bytes, index_at, index_bytes, meta_at, meta_bytes, checksum: 0,
        };
        header.checksum = super::writer::checksum(&header.encode(), &index, &meta);
        let bytes = [header.encode().as_slice(), &index, &meta].concat();
        prop_assert!(open(&bytes).is_err());
    }
}

#[test]
fn every_truncation_is_an_error() {
    let bytes = build(20, 2, 100);
    for n in 0..bytes.len() {
        assert!(open(&bytes[..n]).is_err(), "{n} of {} bytes were accepted", bytes.len());
    }
}

#[test]
fn every_flipped_byte_is_noticed() {
    let good = build(20, 2, 100);
    for at in 0..good.len() {
        let mut bytes = good.clone();
        bytes[at] ^= 0x10;
        assert!(read_all(&bytes).is_err(), "byte {at} of {} may change unnoticed", good.len());
    }
}

#[test]
fn a_damaged_block_is_named_with_its_place() {
    let mut bytes = build(20, 2, 100);
    bytes[super::layout::HEADER_BYTES] ^= 1;
    let shard = open(&bytes).unwrap();
    let message = shard.read_column(0).unwrap_err().to_string();
    for part in ["test.nct", "field id", "block 0", "byte 128", "checksum"] {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
}

#[test]
fn a_block_of_part_of_a_row_is_refused() {
    for shape in [&[3, 4, 5][..], &[1, 4, 5], &[5]] {
        let field = Field::new("image", DType::U8, shape);
        let row = field.row_bytes().unwrap() as usize;
        assert!(pack(&vec![7; 2 * row], field.raster(), 0).is_ok());
        let message = pack(&vec![7; 2 * row + 1], field.raster(), 0).unwrap_err().to_string();
        assert!(message.contains("no rows"), "{message}");
    }
}

#[test]
fn columns_of_different_length_are_refused() {
    let options = BlockOptions::default();
    let mut writer = ShardWriter::new(Cursor::new(Vec::new()), Path::new("t"), meta(1, options)).unwrap();
    writer.append_column(0, &[0; 4], 3).unwrap();
    assert!(writer.finish().is_err());
}

/// Where each block of a shard lies, from its index.
fn blocks(bytes: &[u8]) -> Vec<(usize, usize, std::ops::Range<usize>)> {
    let header = super::layout::Header::parse(bytes).unwrap();
    let index = &bytes[header.index_at as usize..][..header.index_bytes as usize];
    let entries = index.as_chunks().0.iter().map(|entry| super::layout::Entry::parse(entry).unwrap());
    let shard = open(bytes).unwrap();
    let places = (0..3).flat_map(|field| (0..shard.n_blocks(field)).map(move |block| (field, block)));
    let range = |e: &super::layout::Entry| e.at as usize..e.at as usize + e.stored_bytes as usize;
    places.zip(entries).map(|((field, block), entry)| (field, block, range(&entry))).collect()
}

/// A shard whose index was changed, under a right checksum.
fn forged(bytes: &[u8], change: impl Fn(&mut [super::layout::Entry])) -> Vec<u8> {
    use super::layout::{ENTRY_BYTES, Entry, HEADER_BYTES, Header};
    let mut header = Header::parse(bytes).unwrap();
    let (at, meta_at) = (header.index_at as usize, header.meta_at as usize);
    let entries = bytes[at..meta_at].as_chunks::<ENTRY_BYTES>().0;
    let mut entries: Vec<Entry> = entries.iter().map(|entry| Entry::parse(entry).unwrap()).collect();
    change(&mut entries);
    let index: Vec<u8> = entries.iter().flat_map(Entry::encode).collect();
    header.checksum = 0;
    header.checksum = super::writer::checksum(&header.encode(), &index, &bytes[meta_at..]);
    [&header.encode(), &bytes[HEADER_BYTES..at], &index, &bytes[meta_at..]].concat()
}

#[test]
fn blocks_that_overlap_are_refused() {
    let bytes = build(400, 2, 1000);
    assert!(forged(&bytes, |_| {}) == bytes);
    for (one, other) in [(1, 0), (0, 1), (5, 2)] {
        let same = forged(&bytes, |entries| entries[one].at = entries[other].at);
        let message = open(&same).unwrap_err().to_string();
        assert!(message.contains("blocks overlap"), "{message}");
    }
    // Their order in the file is free.
    assert!(open(&forged(&bytes, |entries| entries.swap(2, 3))).is_ok());
}

#[test]
fn ten_thousand_random_flips_in_blocks_are_noticed() {
    let mut bytes = build(4000, 9, 20_000);
    let places = blocks(&bytes);
    for i in 0..10_000u64 {
        let (field, block, range) = &places[mix64(3 * i) as usize % places.len()];
        let at = range.start + mix64(3 * i + 1) as usize % range.len();
        let mask = 1 << (mix64(3 * i + 2) % 8);
        bytes[at] ^= mask;
        let shard = open(&bytes).expect("blocks are not read when a shard is opened");
        let mut out = vec![0; shard.block_bytes(*field, *block)];
        assert!(shard.read_block(*field, *block, &mut out).is_err(), "bit {mask} of byte {at}");
        bytes[at] ^= mask;
    }
}

#[test]
fn cuts_at_every_boundary_and_every_four_kibibytes_are_errors() {
    let bytes = build(8000, 9, 20_000);
    let edges = blocks(&bytes).into_iter().flat_map(|(_, _, range)| [range.start, range.end]);
    let around = edges.flat_map(|edge| [edge - 1, edge, edge + 1]);
    let all: Vec<usize> = around.chain((0..bytes.len()).step_by(4096)).collect();
    assert!(all.len() > 200, "{}", all.len());
    for n in all {
        assert!(open(&bytes[..n]).is_err(), "{n} of {} bytes were accepted", bytes.len());
    }
    let longer = [&bytes[..], &[0]].concat();
    assert!(open(&longer).is_err(), "a byte after the end was accepted");
}

#[test]
fn blocks_that_change_places_are_noticed() {
    let mut bytes = build(400, 2, 1000);
    let places = blocks(&bytes);
    let same_size = places.iter().flat_map(|a| places.iter().map(move |b| (a, b)));
    let content = |r: &std::ops::Range<usize>| bytes[r.clone()].to_vec();
    let (a, b) = same_size
        .filter(|(a, b)| a.2.start < b.2.start && a.2.len() == b.2.len() && content(&a.2) != content(&b.2))
        .map(|(a, b)| (a.clone(), b.clone()))
        .next()
        .expect("some blocks have the same size");
    let (first, second) = (content(&a.2), content(&b.2));
    bytes[a.2].copy_from_slice(&second);
    bytes[b.2].copy_from_slice(&first);
    let shard = open(&bytes).unwrap();
    assert!(shard.checked_block(a.0, a.1).is_err() && shard.checked_block(b.0, b.1).is_err());
}
