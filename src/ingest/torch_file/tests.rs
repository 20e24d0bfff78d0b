//! The guards of the reader, on files put together by hand, each with one fault.

use super::*;

/// What the directory of an archive says of one entry.
struct Entry<'a> {
    name: &'a str,
    data: &'a [u8],
    /// Another entry whose place and bytes this one claims.
    same_as: Option<usize>,
}

fn entry<'a>(name: &'a str, data: &'a [u8]) -> Entry<'a> {
    Entry { name, data, same_as: None }
}

/// A zip archive of stored entries, as in PKWARE's APPNOTE 4.3.
fn archive(entries: &[Entry<'_>]) -> Vec<u8> {
    let (mut file, mut directory, mut places) = (Vec::new(), Vec::new(), Vec::new());
    for e in entries {
        let place = e.same_as.map_or(file.len(), |i| places[i]);
        places.push(place);
        let sizes = [crc_fast::crc32_iso_hdlc(e.data), e.data.len() as u32, e.data.len() as u32];
        let sizes: Vec<u8> = sizes.iter().flat_map(|n| n.to_le_bytes()).collect();
        let name_len = (e.name.len() as u16).to_le_bytes();
        if e.same_as.is_none() {
            // Signature; version, flags, method, time and date; checksum and sizes; length of name and extra field.
            let head = [b"PK\x03\x04".as_slice(), &[0; 10], &sizes, &name_len, &[0; 2]].concat();
            file.extend([head.as_slice(), e.name.as_bytes(), e.data].concat());
        }
        let middle = [&name_len[..], &[0; 12], &(place as u32).to_le_bytes()].concat();
        let head = [b"PK\x01\x02".as_slice(), &[0; 12], &sizes, &middle].concat();
        directory.extend([head.as_slice(), e.name.as_bytes()].concat());
    }
    let n = (entries.len() as u16).to_le_bytes();
    let (size, start) = ((directory.len() as u32).to_le_bytes(), (file.len() as u32).to_le_bytes());
    let end = [b"PK\x05\x06".as_slice(), &[0; 4], &n, &n, &size, &start, &[0; 2]].concat();
    [file, directory, end].concat()
}

fn text(value: &str) -> Vec<u8> {
    [&[0x8c, value.len() as u8], value.as_bytes()].concat()
}

fn int(value: u32) -> Vec<u8> {
    [b"J".as_slice(), &value.to_le_bytes()].concat()
}

/// A float tensor of storage `0`, which has `elements`, with one axis.
fn tensor(elements: u32, offset: u32, axis: u32, stride: u32) -> Vec<u8> {
    [
        b"ctorch._utils\n_rebuild_tensor_v2\n((".to_vec(),
        text("storage"),
        b"ctorch\nFloatStorage\n".to_vec(),
        text("0"),
        text("cpu"),
        int(elements),
        b"tQ".to_vec(),
        int(offset),
        int(axis),
        b"\x85".to_vec(),
        int(stride),
        b"\x85\x89}tR".to_vec(),
    ]
    .concat()
}

/// A pickled dict of the given names and tensors.
fn dict(tensors: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let items = tensors.iter().flat_map(|(name, value)| [text(name), value.clone()].concat());
    [b"\x80\x02}(".to_vec(), items.collect(), b"u.".to_vec()].concat()
}

/// A file of `torch.save` with one storage.
fn file(pickle: &[u8], storage: &[u8]) -> Vec<u8> {
    archive(&[entry("a/data.pkl", pickle), entry("a/data/0", storage)])
}

fn read(file: &[u8]) -> Result<Vec<TorchTensor>, String> {
    torch_tensors(file).unwrap()
}

fn storage(n: usize) -> Vec<u8> {
    (0..n).flat_map(|i| (i as f32).to_le_bytes()).collect()
}

#[test]
fn a_file_put_together_by_hand_is_read() {
    let pickle = dict(&[("w", tensor(6, 1, 2, 3)), ("all", tensor(6, 0, 6, 1))]);
    let tensors = read(&file(&pickle, &storage(6))).unwrap();
    let values = |t: &TorchTensor| -> Vec<f32> {
        t.bytes.as_chunks().0.iter().map(|word| f32::from_le_bytes(*word)).collect()
    };
    assert_eq!((tensors[0].name.as_str(), tensors[0].shape.as_slice()), ("w", &[2usize][..]));
    assert_eq!(values(&tensors[0]), [1.0, 4.0]);
    assert_eq!(values(&tensors[1]), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    assert!(torch_tensors(b"other bytes").is_none());
}

/// An expanded tensor of a few bytes may stand for any number of values: a file of a kilobyte must not fill the memory.
#[test]
fn storages_are_repeated_up_to_a_limit_and_no_further() {
    let of = |axis: u32| file(&dict(&[("w", tensor(1, 0, axis, 0))]), &storage(1));
    let limit = (COPIES_MAX * of(0).len() / 4) as u32;
    assert_eq!(read(&of(limit)).unwrap()[0].bytes.len(), 4 * limit as usize);
    let message = read(&of(limit + 1)).unwrap_err();
    assert!(message.starts_with("w: ") && message.contains("repeat their storages"), "{message}");
    // The limit is the file's, not each tensor's.
    let half = |name| (name, tensor(1, 0, limit / 2 + 200, 0));
    let several = file(&dict(&[half("a"), half("b"), half("c")]), &storage(1));
    assert!(COPIES_MAX * several.len() < 3 * 4 * (limit as usize / 2 + 200));
    assert!(read(&several).unwrap_err().starts_with("c: "));
}

/// A name that is written once may be meant any number of times.
#[test]
fn names_are_repeated_up_to_a_limit_and_no_further() {
    let name = [b"X".as_slice(), &5000u32.to_le_bytes(), &[b'n'; 5000]].concat();
    let once = |value: &[u8]| [b"\x80\x02", value, b"q\0"].concat();
    let dict = |n: usize| {
        let start = [once(&tensor(1, 0, 1, 1)), name.clone(), b"q\x0100}(".to_vec()].concat();
        [start, b"h\x01h\0".repeat(n), b"u.".to_vec()].concat()
    };
    assert_eq!(read(&file(&dict(3), &storage(1))).unwrap().len(), 3);
    assert!(read(&file(&dict(500), &storage(1))).unwrap_err().contains("or names so often"));
    // The name of a storage.
    let class = b"ctorch\nFloatStorage\n".to_vec();
    let id =
        [b"(".to_vec(), text("storage"), class, name.clone(), text("cpu"), int(1), b"t".to_vec()].concat();
    let pickle = [once(&id), b"0(".to_vec(), b"h\0Q".repeat(500), b"l.".to_vec()].concat();
    assert!(read(&file(&pickle, &storage(1))).unwrap_err().contains("repeats its values"));
    // Of many state dicts some are named.
    let dicts = [once(&tensor(1, 0, 1, 1)), name, b"q\x0100}".to_vec(), text("a"), b"}(".to_vec()].concat();
    let pickle = [dicts, b"h\x01}h\x01h\0s".repeat(500), b"us.".to_vec()].concat();
    let message = read(&file(&pickle, &storage(1))).unwrap_err();
    assert!(message.contains("and 484 more") && message.len() < 100_000, "{}", message.len());
}

#[test]
fn views_that_reach_beyond_their_storage_are_refused() {
    for (offset, axis, stride, fits) in [
        (5, 1, 1, true),
        (6, 1, 1, false),
        (0, 6, 1, true),
        (0, 7, 1, false),
        (0, 3, 2, true),
        (2, 3, 2, false),
    ] {
        let found = read(&file(&dict(&[("w", tensor(6, offset, axis, stride))]), &storage(6)));
        assert_eq!(found.is_ok(), fits, "{offset}, {axis}, {stride}: {found:?}");
        assert!(fits || found.unwrap_err().contains("reaches beyond its storage of 6"));
    }
    let message = read(&file(&dict(&[("w", tensor(7, 0, 1, 1))]), &storage(6))).unwrap_err();
    assert!(message.contains("24 bytes, not 7 elements"), "{message}");
    let none = archive(&[entry("a/data.pkl", &dict(&[("w", tensor(6, 0, 6, 1))]))]);
    assert!(read(&none).unwrap_err().contains("its storage 0 is missing"));
}

/// A directory that names the same kilobytes a thousand times would cost a thousand checksums of them.
#[test]
fn overlapping_entries_are_refused() {
    let (pickle, values) = (dict(&[("w", tensor(500, 0, 500, 1))]), storage(500));
    let mut entries = vec![entry("a/data.pkl", &pickle), entry("a/data/0", &values)];
    assert!(read(&archive(&entries)).is_ok());
    entries.push(Entry { name: "a/data/1", data: &values, same_as: Some(1) });
    let message = read(&archive(&entries)).unwrap_err();
    assert!(message.contains("its entries overlap"), "{message}");
}

#[test]
fn archives_that_torch_does_not_write_are_refused() {
    let (pickle, values) = (dict(&[("w", tensor(6, 0, 6, 1))]), storage(6));
    let good = [entry("a/data.pkl", &pickle), entry("a/data/0", &values)];
    let twice =
        archive(&[entry("a/data.pkl", &pickle), entry("a/data/0", &values), entry("a/data/0", &values)]);
    assert!(read(&twice).unwrap_err().contains("has a/data/0 twice"));
    let mut longer = archive(&good);
    longer.push(0);
    assert!(read(&longer).unwrap_err().contains("does not end with its directory"));
    let mut packed = archive(&good);
    let directory = packed.windows(4).position(|w| w == b"PK\x01\x02").unwrap();
    packed[directory + 10] = 8;
    assert!(read(&packed).unwrap_err().contains("compressed"));
    let nothing = archive(&[entry("a/other", b"")]);
    assert!(read(&nothing).unwrap_err().contains("without data.pkl"));
    let more = [pickle.as_slice(), b"."].concat();
    assert!(read(&file(&more, &values)).unwrap_err().contains("goes on after its end"));
}
