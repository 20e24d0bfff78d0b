//! Values of the reference's own classes (torch 1.9) under a deterministic filling of all tensors.

use super::*;
use tch::{Device, Kind, Tensor};

/// Uniform numbers from a hash of the tensor's name and the element's position.
fn uniform(name: &str, n: usize) -> Vec<f64> {
    let f = name.bytes().fold(0x811C_9DC5u32, |h, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193));
    let word = |i: usize| {
        let mut h = (i as u32).wrapping_mul(0x9E37_79B1).wrapping_add(f);
        h = (h ^ (h >> 16)).wrapping_mul(0x85EB_CA6B);
        h = (h ^ (h >> 13)).wrapping_mul(0xC2B2_AE35);
        f64::from(h ^ (h >> 16)) / 2f64.powi(32)
    };
    (0..n).map(word).collect()
}

fn fill(params: &Params) {
    for param in params.iter().filter(|p| p.tensor.kind() == Kind::Float) {
        let size = param.tensor.size();
        let leaf = param.name.rsplit('.').next().unwrap();
        let fan_in: i64 = size.iter().skip(1).product();
        let readout_bias = param.name.contains("readout.") && !param.name.contains("classification");
        let value = |u: f64| {
            let z = 2.0 * u - 1.0;
            match leaf {
                "running_var" => 1.0 + 0.2 * z,
                "mu" | "grid" => 0.9 * z,
                "sigma" => 0.3 * u,
                "features" => z / (size[1] as f64).sqrt(),
                "bias" if readout_bias => 1.0 + u,
                "running_mean" | "bias" => 0.1 * z,
                _ if size.len() == 1 => 1.0 + 0.1 * z,
                _ => z * (6.0 / fan_in as f64).sqrt(),
            }
        };
        let values: Vec<f32> =
            uniform(&param.name, param.tensor.numel()).into_iter().map(|u| value(u) as f32).collect();
        tch::no_grad(|| {
            param.tensor.shallow_clone().copy_(&Tensor::from_slice(&values).view(size.as_slice()));
        });
    }
}

fn input() -> Tensor {
    let values: Vec<f32> =
        uniform("input", 2 * 64 * 64).into_iter().map(|u| (1.7 * (2.0 * u - 1.0)) as f32).collect();
    Tensor::from_slice(&values).view([2, 1, 64, 64])
}

fn data(sessions: &[(&str, usize)]) -> DataInfo {
    let session = |&(id, n): &(&str, usize)| SessionData {
        task: Task::V1,
        id: id.into(),
        image: [1, 64, 64],
        mean_response: vec![1.0; n],
    };
    DataInfo { image: [1, 64, 64], classes: Some(200), sessions: sessions.iter().map(session).collect() }
}

fn model(settings: &ModelSettings, sessions: &[(&str, usize)]) -> Network {
    let model = Network::new(settings, &data(sessions), Device::Cpu, Runtime::default()).unwrap();
    fill(model.params());
    model
}

fn named(model: &Network, name: &str) -> Tensor {
    model.params().iter().find(|p| p.name == name).unwrap().tensor.shallow_clone()
}

/// First values to 1e-4, and the sum to 1e-5 of the sum of magnitudes or 1e-4.
fn assert_values(what: &str, tensor: &Tensor, first: &[f64], sum: f64) {
    let values = Vec::<f32>::try_from(tensor.flatten(0, -1)).unwrap();
    for (found, expected) in values.iter().zip(first) {
        assert!(
            (f64::from(*found) - expected).abs() < 1e-4,
            "{what}: {:?}, expected {first:?}",
            &values[..first.len()]
        );
    }
    let (total, size) =
        values.iter().fold((0.0, 0.0), |(t, s), &v| (t + f64::from(v), s + f64::from(v).abs()));
    assert!((total - sum).abs() < (2e-5 * size).max(1e-4), "{what}: sum {total}, expected {sum}");
}

#[test]
fn the_filling_is_the_documented_one() {
    let u = uniform("input", 4);
    for (found, expected) in u.iter().zip([0.799_033_14, 0.111_620_31, 0.062_518_11, 0.383_821_48]) {
        assert!((found - expected).abs() < 1e-8);
    }
    assert_values("input", &input(), &[1.016_713, -1.320_491, -1.487_438, -0.395_007], -100.4862);
}

#[test]
fn mtl_vgg_equals_the_reference() {
    let model = model(&ModelSettings::default(), &[("s1", 7), ("s2", 5)]);
    let x = input();
    let first = named(&model, "mtl_vgg_core.v1_block.0.weight");
    assert_values("weight", &first, &[-0.267_09, 0.029_807, 0.415_656, -0.170_808], -2.481_46);
    tch::no_grad(|| {
        assert_values(
            "trunk",
            &model.tap(&x, Task::V1, Mode::EVAL).unwrap(),
            &[0.027_196, 0.053_242, 0., 0., 0., 0.179_538],
            134_780.711,
        );
        let s1 = [1.890_369, 2.386_407, 0.301_203, 0.064_849, 4.689_714, 1.409_264];
        assert_values("responses s1", &model.respond(&x, 0, Mode::EVAL).unwrap(), &s1, 25.684_27);
        let s2 = [0.251_621, 0.372_326, 1.136_177, 2.677_705, 0.466_431, 0.290_678];
        assert_values("responses s2", &model.respond(&x, 1, Mode::EVAL).unwrap(), &s2, 9.611_30);
        let logits = model.classify(&x, Mode::EVAL).unwrap();
        let expected = [7.700_935, 1.853_441, -1.297_586, 1.854_581, -0.091_321, 2.259_096];
        assert_values("logits", &logits, &expected, 521.930_03);
        assert_eq!(Vec::<i64>::try_from(logits.argmax(1, false)).unwrap(), [166, 166]);
        assert!((model.penalty(0).unwrap().double_value(&[]) - 27.182_594).abs() < 1e-4);
        // Three equal channels are the same as one.
        let rgb = x.expand([2, 3, 64, 64], false);
        assert_values("responses, rgb", &model.respond(&rgb, 0, Mode::EVAL).unwrap(), &s1, 25.684_27);
    });
}

#[test]
fn gradients_equal_the_reference() {
    let model = model(&ModelSettings::default(), &[("s1", 7), ("s2", 5)]);
    let target: Vec<f32> = uniform("target", 14).into_iter().map(|u| (3.0 * u) as f32).collect();
    let target = Tensor::from_slice(&target).view([2, 7]);
    let mse = model.respond(&input(), 0, Mode::EVAL).unwrap().mse_loss(&target, tch::Reduction::Mean);
    let loss = (mse * (-0.3f64).exp() + 0.3) * 0.5;
    loss.backward();
    assert!((loss.double_value(&[]) - 1.123_673).abs() < 1e-4);
    let grad = |name: &str| named(&model, name).grad();
    let weight = grad("mtl_vgg_core.v1_block.0.weight");
    assert_values("weight", &weight, &[-0.019_381, 0.015_834, 0.020_817, -0.045_298], -1.274_42);
    let bias = grad("mtl_vgg_core.v1_block.15.bias");
    assert_values("bias", &bias, &[-0.021_48, -0.009_65, -0.017_733, 0.0], 0.420_21);
    assert_values("mu", &grad("v1_readout.s1.mu"), &[0.079_706, -0.026_404, 0.006_136, 0.010_361], 1.987_94);
    let features = grad("v1_readout.s1.features");
    assert_values("features", &features, &[-0.059_936, 0.019_392, -0.040_74, -0.014_265], 138.219_28);
    assert_values("readout bias", &grad("v1_readout.s1.bias"), &[-0.039_838, 0.009_641], 0.485_33);
    assert!(!grad("v1_readout.s2.mu").defined() && !grad("classification_readout.0.weight").defined());
}

#[test]
fn running_statistics_after_one_training_forward_equal_the_reference() {
    let model = model(&ModelSettings::default(), &[("s1", 7)]);
    let _ = tch::no_grad(|| model.respond(&input(), 0, Mode::TRAIN).unwrap());
    let stat = |name: &str| named(&model, &format!("mtl_vgg_core.v1_block.{name}"));
    assert_values("mean", &stat("1.running_mean"), &[-0.031_601, -0.023_84, 0.008_805], 0.327_56);
    assert_values("variance", &stat("1.running_var"), &[1.124_829, 1.368_707, 0.879_204], 69.343_22);
    assert_values("mean", &stat("15.running_mean"), &[], -1.764_99);
    assert_values("variance", &stat("15.running_var"), &[], 257.0824);
    assert_eq!(stat("1.num_batches_tracked").int64_value(&[]), 1);
}

#[test]
fn the_plain_vgg_equals_the_reference_with_both_heads() {
    for (head, first, sum) in [
        (HeadKind::Conv, [-3.254_605, -4.1116, -4.186_111, -1.377_582], 725.565_95),
        (HeadKind::Dense, [-3.641_489, -9.243_194, -4.380_63, 2.979_384], -85.806_18),
    ] {
        let settings = ModelSettings { classification_readout_type: head, ..ModelSettings::default() };
        let model = model(&settings, &[]);
        assert_eq!(model.params().iter().next().unwrap().name, "features.0.weight");
        tch::no_grad(|| assert_values("logits", &model.classify(&input(), Mode::EVAL).unwrap(), &first, sum));
    }
}

#[test]
fn parameter_counts_equal_the_reference() {
    for (name, dense, conv) in [
        ("vgg11", 35_213_896, 28_922_440),
        ("vgg11_bn", 35_219_400, 28_927_944),
        ("vgg13", 35_398_408, 29_106_952),
        ("vgg13_bn", 35_404_296, 29_112_840),
        ("vgg16", 40_708_104, 34_416_648),
        ("vgg16_bn", 40_716_552, 34_425_096),
        ("vgg19", 46_017_800, 39_726_344),
        ("vgg19_bn", 46_028_808, 39_737_352),
    ] {
        for (head, expected) in [(HeadKind::Dense, dense), (HeadKind::Conv, conv)] {
            let vgg_type = name.parse().unwrap();
            let settings =
                ModelSettings { vgg_type, classification_readout_type: head, ..ModelSettings::default() };
            let model = Network::new(&settings, &data(&[]), Device::Cpu, Runtime::default()).unwrap();
            assert_eq!(model.params().n_trainable(), expected, "{name} {head:?}");
        }
    }
    let model = Network::new(&ModelSettings::default(), &data(&[("s", 10)]), Device::Cpu, Runtime::default())
        .unwrap();
    assert_eq!(model.params().n_trainable(), 39_737_352 + 2610);
    assert_eq!(model.params().state().len(), 118 + 4);
}

#[test]
fn settings_that_cannot_work_are_refused() {
    let refused = |settings: ModelSettings| {
        Network::new(&settings, &data(&[("s", 1)]), Device::Cpu, Runtime::default()).unwrap_err().to_string()
    };
    let message = refused(ModelSettings { v1_model_layer: 16, ..ModelSettings::default() });
    assert!(message.contains("16") && message.contains("17"), "{message}");
    assert!(refused(ModelSettings { dropout: 1.0, ..ModelSettings::default() }).contains("dropout"));
    let vgg_type = "8 M M M M M M M".parse().unwrap();
    assert!(
        refused(ModelSettings { vgg_type, v1_model_layer: 2, ..ModelSettings::default() })
            .contains("nothing")
    );
}

#[test]
fn se_networks_equal_the_reference() {
    let sessions = DataInfo { classes: None, ..data(&[("s1", 7)]) };
    let point = SeSettings::default();
    let gauss = SeSettings { readout_type: ReadoutKind::Gauss, ..SeSettings::default() };
    let cores = [[-0.617_979, 0.105_384, -0.574_004], [-0.429_57, 0.297_003, -0.398_141]];
    let responses =
        [[2.032_354, 2.369_217, 1.208_049, 2.798_082], [2.384_47, 2.729_496, 2.040_402, 3.098_147]];
    let rest = [
        (32_043.502, 34.817_80, 214.940_063, 28_228 + 7 * 99),
        (30_379.490, 34.785_76, 208.024_750, 28_098 + 7 * 37),
    ];
    for (i, se) in [point, gauss].into_iter().enumerate() {
        let settings = ModelSettings { se: Some(se), ..ModelSettings::default() };
        let model = Network::new(&settings, &sessions, Device::Cpu, Runtime::default()).unwrap();
        let filter = named(&model, "core._input_weights_regularizer.laplace.filter").copy();
        fill(model.params());
        named(&model, "core._input_weights_regularizer.laplace.filter").copy_(&filter);
        let (core, read, penalty, parameters) = rest[i];
        assert_eq!(model.params().n_trainable(), parameters);
        tch::no_grad(|| {
            let map = model.tap(&input(), Task::V1, Mode::EVAL).unwrap();
            assert_eq!(map.size(), [2, 32, 41, 41]);
            assert_values("core", &map, &cores[i], core);
            let found = model.respond(&input(), 0, Mode::EVAL).unwrap();
            assert_values("responses", &found, &responses[i], read);
        });
        let found = model.penalty(0).unwrap().double_value(&[]);
        assert!((found - penalty).abs() < 1e-3, "{found}");
    }
}

#[test]
fn the_table_adds_up_to_the_documented_work() {
    let info = data(&[("s", 10)]);
    let model = Network::new(&ModelSettings::default(), &info, Device::Cpu, Runtime::default()).unwrap();
    let rows = model.table(&info).unwrap();
    let macs =
        |parts: &[Part]| -> u64 { rows.iter().filter(|r| parts.contains(&r.part)).map(|r| r.macs).sum() };
    assert_eq!(macs(&[Part::Shared]), 460_062_720);
    assert_eq!(macs(&[Part::Shared, Part::Classification]), 1_671_299_072);
    assert_eq!(rows.iter().map(|r| r.parameters).sum::<u64>(), model.params().n_trainable());
}

fn small(v4: bool) -> (ModelSettings, DataInfo) {
    let settings = ModelSettings {
        vgg_type: "bn 8 M 16 M 16".parse().unwrap(),
        v1_model_layer: 3,
        v4_model_layer: if v4 { 7 } else { -1 },
        hidden: 16,
        ..ModelSettings::default()
    };
    let mut info = data(&[("a", 3), ("b", 2)]);
    if v4 {
        info.sessions[1].task = Task::V4;
    }
    (settings, info)
}

#[test]
fn both_areas_are_read_at_their_own_cuts() {
    let (settings, info) = small(true);
    let model = Network::new(&settings, &info, Device::Cpu, Runtime::default()).unwrap();
    let names: Vec<String> = model.params().iter().map(|p| p.name.clone()).collect();
    assert!(names.contains(&"mtl_vgg_core.v4_block.1.weight".to_owned()), "{names:?}");
    assert!(names.contains(&"v4_readout.b.mu".to_owned()), "{names:?}");
    let logits = model.classify(&input(), Mode::EVAL).unwrap();
    for session in 0..2 {
        let (read, classes) = model.both(&input(), session, Mode::EVAL).unwrap();
        assert_eq!(read, model.respond(&input(), session, Mode::EVAL).unwrap());
        assert_eq!(classes, logits);
    }
}

#[test]
fn bfloat16_is_near_and_channels_last_is_the_same() {
    let (settings, info) = small(false);
    let build = |precision, channels_last| {
        let model =
            Network::new(&settings, &info, Device::Cpu, Runtime { precision, channels_last }).unwrap();
        fill(model.params());
        model
    };
    let plain = build(Precision::F32, false);
    let (last, half) = (build(Precision::F32, true), build(Precision::Bf16, false));
    let out = |model: &Network| tch::no_grad(|| model.both(&input(), 0, Mode::EVAL).unwrap());
    let distance = |a: &Tensor, b: &Tensor| ((a - b).abs().max() / b.abs().max()).double_value(&[]);
    let expected = out(&plain);
    let found = out(&last);
    assert!(!named(&last, "mtl_vgg_core.unshared_block.1.weight").is_contiguous());
    assert!(distance(&found.0, &expected.0) < 1e-4 && distance(&found.1, &expected.1) < 1e-4);
    let found = out(&half);
    assert_eq!((found.0.kind(), found.1.kind()), (Kind::Float, Kind::Float));
    let far = distance(&found.1, &expected.1);
    assert!(far > 0.0 && far < 0.05, "{far}");
    let bytes = |model: &Network| weights::encode(&model.params().state(), &[]).unwrap();
    assert_eq!(bytes(&plain), bytes(&last));
    last.params().load(&plain.params().state(), "plain").unwrap();
}

#[test]
fn frozen_layers_get_no_gradient_and_frozen_norms_keep_their_statistics() {
    let (mut settings, info) = small(false);
    settings.v1_fine_tune = false;
    let model = Network::new(&settings, &info, Device::Cpu, Runtime::default()).unwrap();
    let loss = model.classify(&input(), Mode { train: true, frozen_norms: 2 }).unwrap().sum(Kind::Float);
    loss.backward();
    assert!(!named(&model, "mtl_vgg_core.v1_block.0.weight").grad().defined());
    assert!(named(&model, "mtl_vgg_core.unshared_block.1.weight").grad().defined());
    let batches = |block: &str, i| {
        named(&model, &format!("mtl_vgg_core.{block}.{i}.num_batches_tracked")).int64_value(&[])
    };
    assert_eq!((batches("v1_block", 1), batches("unshared_block", 2)), (0, 1));
    model.reset(Some(&["v1_block.0"])).unwrap();
    let largest = named(&model, "mtl_vgg_core.v1_block.0.weight").abs().max().double_value(&[]);
    assert!(largest > 0.15 && largest <= 1.0 / 27f64.sqrt(), "{largest}");
    assert!(model.reset(Some(&["v1_block.2"])).unwrap_err().to_string().contains("v1_block.1"));
    let (_, maps) = model.classify_with(&input(), Mode::EVAL, &["mtl_vgg_core.v1_block.0"]).unwrap();
    assert_eq!(maps[0].size(), [2, 8, 64, 64]);
    let error = model.classify_with(&input(), Mode::EVAL, &["features.9"]).unwrap_err().to_string();
    assert!(error.contains("features.9") && error.contains("unshared_block.1"), "{error}");
}
