//! VGG networks against the reference (spec/models 8.2 and 8.3), and their sizes.

use super::*;

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
    let log_w = log_variance();
    let loss = ((-&log_w).exp() * mse + &log_w) * 0.5;
    loss.backward();
    assert_values("loss", &loss, &[1.123_673], 1.123_673);
    assert_values("log_w", &log_w.grad(), &[-0.473_673], -0.473_673);
    let grad = |name: &str| named(&model, name).grad();
    let weight = grad("mtl_vgg_core.v1_block.0.weight");
    assert_values("weight", &weight, &[-0.019_381, 0.015_834, 0.020_817, -0.045_298], -1.274_42);
    let bias = grad("mtl_vgg_core.v1_block.15.bias");
    assert_values("bias", &bias, &[-0.021_48, -0.009_65, -0.017_733, 0.0], 0.420_21);
    assert_values("mu", &grad("v1_readout.s1.mu"), &[0.079_706, -0.026_404, 0.006_136, 0.010_361], 1.987_94);
    let features = grad("v1_readout.s1.features");
    assert_values("features", &features, &[-0.059_936, 0.019_392, -0.040_74, -0.014_265], 138.219_28);
    assert_values("readout bias", &grad("v1_readout.s1.bias"), &[-0.039_838, 0.009_641], 0.485_33);
    assert_values("last kernel", &grad("mtl_vgg_core.v1_block.14.weight"), &[], 719.747);
    let sigma = grad("v1_readout.s1.sigma");
    assert!(!sigma.defined() || sigma.abs().max().double_value(&[]) == 0.0);
    assert!(!grad("v1_readout.s2.mu").defined() && !grad("classification_readout.0.weight").defined());
}

/// As the losses hold it; their formulas are tested where they are.
fn log_variance() -> Tensor {
    Tensor::from_slice(&[0.3f32]).set_requires_grad(true)
}

#[test]
fn gradients_of_the_weighted_cross_entropy_equal_the_reference() {
    let model = model(&ModelSettings::default(), &[("s1", 7), ("s2", 5)]);
    let (logits, log_w) = (model.classify(&input(), Mode::EVAL).unwrap(), log_variance());
    let ce = logits.cross_entropy_for_logits(&Tensor::from_slice(&[3i64, 166]));
    let loss = (-&log_w).exp() * ce + &log_w * 0.5;
    loss.backward();
    assert_values("loss", &loss, &[3.597_569], 3.597_569);
    assert_values("log_w", &log_w.grad(), &[-2.947_569], -2.947_569);
    let grad = |name: &str| named(&model, name).grad();
    assert_values("tower", &grad("mtl_vgg_core.unshared_block.0.weight"), &[], 1151.44);
    // The gradients of a softmax add up to 0.
    let bias = grad("classification_readout.6.bias");
    assert_values("head bias", &bias, &[0.042_991, 0.000_113, 5e-6, -0.370_297], 0.0);
    assert!(grad("mtl_vgg_core.v1_block.0.weight").defined());
    assert!(!grad("v1_readout.s1.mu").defined());
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
