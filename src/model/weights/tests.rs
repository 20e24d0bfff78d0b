//! Values, damage and refusals of both kinds of files.

use super::*;
use crate::base::Task;
use crate::model::{DataInfo, ModelSettings, Network, Runtime, SessionData};

#[test]
fn tensors_and_metadata_come_back_and_damage_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w.safetensors");
    let tensors = vec![
        ("module.a".to_owned(), Tensor::from_slice(&[1f32, 2.0]).view([2, 1])),
        ("b".to_owned(), Tensor::from(7i64)),
    ];
    let bytes = encode(&tensors, &[("state", "{}".to_owned())]).unwrap();
    std::fs::write(&path, &bytes).unwrap();
    let read = Weights::read(&path).unwrap();
    assert_eq!(read.metadata("state"), Some("{}"));
    assert_eq!((read.tensors[0].0.as_str(), read.tensors[1].0.as_str()), ("b", "module.a"));
    assert_eq!((read.tensors[1].1.size(), read.tensors[1].1.double_value(&[1, 0])), (vec![2, 1], 2.0));
    assert_eq!(read.tensors[0].1.int64_value(&[]), 7);
    for n in 0..bytes.len() {
        std::fs::write(&path, &bytes[..n]).unwrap();
        let message = Weights::read(&path).unwrap_err().to_string();
        assert!(message.contains("w.safetensors"), "{message}");
    }
}

const FIXTURES: [(&str, &[u8]); 2] = [
    ("zip", include_bytes!("../../../tests/data/weights-zip.pth")),
    ("old", include_bytes!("../../../tests/data/weights-old.pth")),
];

#[test]
fn both_formats_of_torch_save_are_read() {
    for (format, bytes) in FIXTURES {
        let read = Weights::parse(bytes).unwrap();
        let get = |name: &str| {
            let found = read.tensors.iter().find(|(n, _)| n == name);
            found.unwrap_or_else(|| panic!("{format}: {name}")).1.shallow_clone()
        };
        let values =
            |name: &str| Vec::<f64>::try_from(get(name).to_kind(Kind::Double).flatten(0, -1)).unwrap();
        let kinds = [
            ("f32", Kind::Float),
            ("f64", Kind::Double),
            ("f16", Kind::Half),
            ("bf16", Kind::BFloat16),
            ("i64", Kind::Int64),
            ("i32", Kind::Int),
            ("u8", Kind::Uint8),
        ];
        for (name, kind) in kinds {
            assert_eq!((get(name).kind(), get(name).size()), (kind, vec![2, 3]), "{format}: {name}");
            assert_eq!(values(name), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0], "{format}: {name}");
        }
        assert_eq!((get("bool").kind(), values("bool")), (Kind::Bool, vec![1.0, 0.0]), "{format}");
        assert_eq!(values("module.parameter"), [0.5, -0.5], "{format}");
        // arange(24) as [4, 6]: transposed, and every second row from 1 on with columns 2 and 4.
        assert_eq!(
            (get("transposed").size(), values("transposed")[..5].to_vec()),
            (vec![6, 4], vec![0.0, 6.0, 12.0, 18.0, 1.0])
        );
        assert_eq!((get("strided").size(), values("strided")), (vec![2, 2], vec![8.0, 10.0, 20.0, 22.0]));
        assert_eq!((get("scalar").size(), values("scalar")), (vec![], vec![7.0]), "{format}");
        assert_eq!(get("empty").size(), [0, 3], "{format}");
        assert_eq!(
            (get("expanded").size(), values("expanded")),
            (vec![3, 2], [1.0, 2.0].repeat(3)),
            "{format}"
        );
        assert_eq!(read.tensors.len(), 16, "{format}");
    }
}

#[test]
fn truncated_and_damaged_files_are_errors_or_read_but_never_panic() {
    for (format, bytes) in FIXTURES {
        for n in 0..bytes.len() {
            assert!(Weights::parse(&bytes[..n]).is_err(), "{format}: {n} of {} bytes", bytes.len());
        }
        for at in 0..bytes.len() {
            for mask in [1, 0x80, 0xff] {
                let mut damaged = bytes.to_vec();
                damaged[at] ^= mask;
                let _ = Weights::parse(&damaged);
            }
        }
    }
}

#[test]
fn errors_name_the_file() {
    let dir = tempfile::tempdir().unwrap();
    for (format, bytes) in FIXTURES {
        let path = dir.path().join(format!("{format}.pth"));
        std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        let message = Weights::read(&path).unwrap_err().to_string();
        assert!(message.contains(&path.display().to_string()), "{message}");
    }
}

/// `bytes` with every `from` replaced by `to`.
fn patched(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut out = bytes.to_vec();
    let places: Vec<usize> =
        (0..=bytes.len() - from.len()).filter(|&at| bytes[at..].starts_with(from)).collect();
    assert!(!places.is_empty());
    for at in places {
        out[at..at + to.len()].copy_from_slice(to);
    }
    out
}

#[test]
fn other_byte_orders_and_types_are_refused() {
    let [(_, zip), (_, old)] = FIXTURES;
    // True and False are the opcodes 0x88 and 0x89; `q` stores the key in the memo.
    let at = old.windows(13).position(|w| w == b"little_endian").unwrap();
    let mut big = old.to_vec();
    let value = at + big[at..].iter().position(|&b| b == 0x88).unwrap();
    big[value] = 0x89;
    assert!(Weights::parse(&big).unwrap_err().contains("big-endian"));
    let big = patched(zip, b"little", b"biggie");
    let [old_sum, new_sum] = [b"little", b"biggie"].map(|text| crc_fast::crc32_iso_hdlc(text).to_le_bytes());
    let message = Weights::parse(&patched(&big, &old_sum, &new_sum)).unwrap_err();
    assert!(message.contains("big-endian"), "{message}");
    let short = patched(old, b"ctorch\nLongStorage\n", b"ctorch\nCharStorage\n");
    let message = Weights::parse(&short).unwrap_err();
    assert!(message.contains("torch.CharStorage"), "{message}");
}

#[test]
fn flipped_data_of_a_zip_file_are_noticed() {
    let mut bytes = FIXTURES[0].1.to_vec();
    let value = 0.5f32.to_le_bytes();
    let at = bytes.windows(4).position(|w| w == value).unwrap();
    bytes[at] ^= 1;
    assert!(Weights::parse(&bytes).unwrap_err().contains("checksum"));
}

#[test]
fn code_is_refused_by_name_and_nested_state_dicts_are_found() {
    let evil = include_bytes!("../../../tests/data/weights-evil.pth");
    let message = Weights::parse(evil).unwrap_err();
    assert!(message.contains("posix.system") && message.contains("nothing of the file was run"), "{message}");
    let nested = Weights::parse(include_bytes!("../../../tests/data/weights-nested.pth")).unwrap();
    assert_eq!(nested.tensors[0].0, "a.weight");
    let several = Weights::parse(include_bytes!("../../../tests/data/weights-several.pth")).unwrap_err();
    assert!(several.contains("student") && several.contains("teacher"), "{several}");
}

/// Spec/models 1.7 and 5: `DataParallel` and the reference's hooks on intermediate layers leave traces in state dicts.
#[test]
fn state_dicts_of_wrapped_networks_load_strictly() {
    let settings = ModelSettings {
        vgg_type: "bn 4 M 4".parse().unwrap(),
        v1_model_layer: 3,
        hidden: 4,
        ..ModelSettings::default()
    };
    let session =
        SessionData { task: Task::V1, id: "a".into(), image: [1, 16, 16], mean_response: vec![1.0; 2] };
    let plain = DataInfo { image: [1, 16, 16], classes: Some(3), sessions: Vec::new() };
    let both = DataInfo { sessions: vec![session], ..plain.clone() };
    let network = |info: &DataInfo| Network::new(&settings, info, Device::Cpu, Runtime::default()).unwrap();
    let net = network(&both);
    for prefix in ["module.", "_model.", "module._model.", "net.", "module.a.b."] {
        let mut file = net.params().state();
        for (name, _) in &mut file {
            *name = format!("{prefix}{name}");
        }
        let block = format!("{prefix}mtl_vgg_core.v1_block");
        for leaf in ["intermediate_out", "0.intermediate_out"] {
            file.push((format!("{block}.{leaf}"), Tensor::from(1.0)));
        }
        let fitted = renamed(&file, &net);
        net.params().load(&fitted, prefix).unwrap();
        // Only that leaf is left out.
        file.push((format!("{block}.intermediate_output"), Tensor::from(1.0)));
        let message = net.params().load(&renamed(&file, &net), prefix).unwrap_err().to_string();
        let named = "unexpected mtl_vgg_core.v1_block.intermediate_output";
        assert!(message.ends_with(named), "{prefix}: {message}");
    }
    // From one kind of network to the other, within another module, both ways.
    let classifier = network(&plain);
    for (from, to, n) in [(&classifier, &net, 20), (&net, &classifier, 20)] {
        let mut file = from.params().state();
        for (name, _) in &mut file {
            *name = format!("net.{name}");
        }
        assert_eq!(to.params().load_fitting(&renamed(&file, to), "x").unwrap().loaded, n);
    }
    // The features alone, whose prefix is needed, and then without it.
    let features = |prefix: &str| -> Vec<(String, Tensor)> {
        let state = classifier.params().state().into_iter();
        let rest = |(name, t): (String, Tensor)| Some((name.strip_prefix("features.")?.to_owned(), t));
        state.filter_map(rest).map(|(name, t)| (format!("{prefix}{name}"), t)).collect()
    };
    for (prefix, loaded) in [("features.", Some(14)), ("net.features.", Some(14)), ("", None)] {
        let fit = net.params().load_fitting(&renamed(&features(prefix), &net), "x");
        assert_eq!(fit.ok().map(|fit| fit.loaded), loaded, "{prefix:?}");
    }
}
