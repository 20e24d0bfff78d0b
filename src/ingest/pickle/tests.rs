//! Pickles that numpy wrote, pickles cut short, and pickles that would run code.

use super::*;
use proptest::prelude::*;

/// `tools/fixtures.py` wrote these with numpy 1 and 2, protocols 2 to 5.
const FILES: [(&str, &[u8]); 6] = [
    ("numpy 2, protocol 2", include_bytes!("../../../tests/data/arrays-np2-p2.pickle")),
    ("numpy 2, protocol 3", include_bytes!("../../../tests/data/arrays-np2-p3.pickle")),
    ("numpy 2, protocol 4", include_bytes!("../../../tests/data/arrays-np2-p4.pickle")),
    ("numpy 2, protocol 5", include_bytes!("../../../tests/data/arrays-np2-p5.pickle")),
    ("numpy 1, protocol 2", include_bytes!("../../../tests/data/arrays-np1-p2.pickle")),
    ("numpy 1, protocol 5", include_bytes!("../../../tests/data/arrays-np1-p5.pickle")),
];

fn parse(bytes: &[u8]) -> Result<Pickle> {
    Pickle::parse(Path::new("test.pickle"), bytes.to_vec())
}

fn c_order(pickle: &Pickle, key: &str) -> Vec<f64> {
    let array = pickle.array(pickle.get(key).unwrap()).unwrap();
    let (shape, strides) = (array.shape(), array.strides());
    let mut out = Vec::new();
    for i in 0..shape[0] {
        for j in 0..shape[1] {
            for k in 0..shape[2] {
                out.push(array.real(i * strides[0] + j * strides[1] + k * strides[2]));
            }
        }
    }
    out
}

#[test]
fn arrays_of_every_protocol_order_and_type_are_read() {
    let expected: Vec<f64> = (0..24).map(|i| f64::from(i) - 3.0).collect();
    for (name, bytes) in FILES {
        let pickle = parse(bytes).unwrap();
        for key in ["c_f4", "fortran_f8", "big_f4", "i2", "big_i8", "f2", "sliced"] {
            assert_eq!(c_order(&pickle, key), expected, "{name}: {key}");
        }
        let ids = pickle.array(pickle.get("ids").unwrap()).unwrap();
        assert_eq!(ids.to_u32().unwrap(), [1, 5, 70_000], "{name}");
        assert_eq!(pickle.text(pickle.get("session_id").unwrap()).unwrap(), "3631896544452", "{name}");
        assert_eq!(pickle.text(pickle.get("subject_id").unwrap()).unwrap(), "31", "{name}");
        assert_eq!(pickle.text(pickle.get("negative").unwrap()).unwrap(), "-300", "{name}");
        assert!(pickle.get("absent").is_err());
        assert!(pickle.array(pickle.get("bools").unwrap()).unwrap().to_u32().unwrap() == [1, 0, 1]);
    }
}

#[test]
fn every_truncation_is_an_error() {
    for (name, bytes) in FILES {
        for n in 0..bytes.len() {
            assert!(parse(&bytes[..n]).is_err(), "{name}: {n} of {} bytes were accepted", bytes.len());
        }
    }
}

#[test]
fn what_would_run_code_is_refused_by_name() {
    let global = b"\x80\x04\x95\x19\0\0\0\0\0\0\0\x8c\x05posix\x8c\x06system\x93\x8c\x04true\x85R.";
    let text = b"\x80\x02cos\nsystem\nU\x04true\x85R.";
    for (bytes, name) in [(&global[..], "posix.system"), (&text[..], "os.system")] {
        let message = parse(bytes).unwrap_err().to_string();
        assert!(message.contains(name) && message.contains("test.pickle"), "{message}");
    }
}

#[test]
fn what_is_not_read_is_told_where_it_is_needed_and_refused_in_weights() {
    let odd: [(&[u8], &str); 9] = [
        (b"cos\nsystem\nU\x04true\x85R", "os.system"),
        (b"cos\nsystem\n)\x81}b", "os.system"),
        (b"cos\nsystem\nU\x04true\x85R(K\x01K\x02u", "os.system"),
        (b"(cos\nsystem\nK\x01o", "os.system"),
        (b"\x8f(K\x01K\x02\x90", "a set"),
        (b"(K\x01\x91", "a set"),
        (b"\x8a\x09\0\0\0\0\0\0\0\0\x01", "9 bytes"),
        (b"\x97\x98", "buffer_callback"),
        (b"cnumpy\ndtype\nU\x03c16\x85R(K\x03U\x01<tb", "\"c16\""),
    ];
    for (value, what) in odd {
        let file = [b"\x80\x02}(X\x01\0\0\0a".as_slice(), value, b"X\x01\0\0\0bK\x05u."].concat();
        let pickle = parse(&file).unwrap();
        assert_eq!(pickle.text(pickle.get("b").unwrap()).unwrap(), "5");
        let a = pickle.get("a").unwrap();
        assert_eq!((pickle.text(a), pickle.odd(a).as_ref()), (None, pickle.array(a).err().as_ref()));
        let told = [pickle.odd(a).unwrap(), pickle.text_pairs().unwrap_err().to_string()];
        assert!(told.iter().all(|told| told.contains(what)), "{told:?}");
        for n in 0..file.len() {
            assert!(parse(&file[..n]).is_err(), "{n} of {file:?}");
        }
        assert!(TorchPickle::parse(&file, 0).is_err(), "{what}");
    }
    // Wrong calls of what is known stay errors.
    assert!(parse(b"\x80\x02}(K\x01cnumpy\ndtype\n)Ru.").is_err());
}

/// A pickle of a list of `n` times `again`, after `values`, which `h` and a number from 0 refer to.
fn repeated(values: &[&[u8]], again: &[u8], n: usize) -> Vec<u8> {
    let values: Vec<u8> = values.iter().flat_map(|value| [value, b"\x940".as_slice()].concat()).collect();
    [b"\x80\x04", values.as_slice(), b"(", &again.repeat(n), b"l."].concat()
}

/// A long text.
fn long() -> Vec<u8> {
    [b"X".as_slice(), &10_000u32.to_le_bytes(), &[b'a'; 10_000]].concat()
}

#[test]
fn what_is_used_again_is_not_copied_beyond_bounds() {
    let encode = b"\x8c\x07_codecs\x8c\x06encode\x93";
    let text = [&long(), b"\x8c\x06latin1\x86".as_slice()].concat();
    let texts = |n| parse(&repeated(&[encode, &text], b"h\0h\x01R", n));
    let reconstruct = b"\x8c\x15numpy.core.multiarray\x8c\x0c_reconstruct\x93";
    let array = b"\x8c\x05numpy\x8c\x07ndarray\x93\x85";
    let axes = [b"(".as_slice(), &b"K\x01".repeat(5000), b"t"].concat();
    let state = [b"(K\x01", &axes[..], b"\x8c\x05numpy\x8c\x05dtype\x93\x8c\x02u1\x85R\x89C\x01at"].concat();
    let arrays = |n| parse(&repeated(&[reconstruct, array, &state], b"h\0h\x01Rh\x02b", n));
    // Names of what would be called, and texts of numpy's.
    let names = |n| parse(&repeated(&[&long(), b"K\0"], b"h\0h\0\x93", n));
    let u4 = b"\x8c\x05numpy\x8c\x05dtype\x93\x8c\x05U2500\x85R";
    let scalar = b"\x8c\x15numpy.core.multiarray\x8c\x06scalar\x93";
    let data = [b"B".as_slice(), &10_000u32.to_le_bytes(), &b"a\0\0\0".repeat(2500)].concat();
    let scalars = |n| parse(&repeated(&[scalar, u4, &data], b"h\0h\x01h\x02\x86R", n));
    for (few, many) in [
        (texts(5), texts(1000)),
        (arrays(3), arrays(1000)),
        (names(5), names(1000)),
        (scalars(5), scalars(1000)),
    ] {
        assert!(few.is_ok(), "{few:?}");
        assert!(many.unwrap_err().to_string().contains("repeats its values"));
    }
}

#[test]
fn a_dict_of_one_long_text_is_not_copied_beyond_bounds() {
    let dict = |n: u16| {
        let entries: Vec<u8> = (0..n).flat_map(|i| [b"M", &i.to_le_bytes()[..], b"h\0"].concat()).collect();
        parse(&[b"\x80\x04", &long()[..], b"\x940}(", &entries, b"u."].concat()).unwrap().text_pairs()
    };
    assert_eq!(dict(5).unwrap().len(), 5);
    assert!(dict(1000).unwrap_err().to_string().contains("repeats its values"));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse(&bytes);
    }

    #[test]
    fn damaged_pickles_never_panic(file in 0usize..6, at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = FILES[file].1.to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(pickle) = parse(&bytes) {
            for id in 0..pickle.nodes.len() {
                let _ = (pickle.array(id).map(|a| a.to_u32()), pickle.text(id));
            }
        }
    }
}
