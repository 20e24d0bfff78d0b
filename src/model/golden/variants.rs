//! Networks with areas, dropout, freezing and the like, on small plans.

use super::*;

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

/// Biases before normalisations are left out in bfloat16: they have no gradient, and running means know of them.
#[test]
fn bfloat16_trains_near_32_bits_and_its_running_means_have_the_biases() {
    let (settings, info) = small(false);
    let settings = ModelSettings { dropout: 0.0, ..settings };
    // Who looks at what a convolution gives sees it with its bias.
    let all = ["conv1_1", "conv2_1", "conv3_1"];
    let cases: [(_, &[&str]); 3] = [(Precision::F32, &[]), (Precision::Bf16, &all), (Precision::Bf16, &[])];
    let [plain, with, without] = cases.map(|(precision, looked_at)| {
        let runtime = Runtime { precision, channels_last: true, fused: true };
        let model = Network::new(&settings, &info, Device::Cpu, runtime).unwrap();
        fill(model.params());
        let (logits, _) = model.classify_with(&input(), Mode::TRAIN, looked_at).unwrap();
        logits.square().mean(Kind::Float).backward();
        model
    });
    let distance = |a: &Tensor, b: &Tensor| ((a - b).norm() / b.norm()).double_value(&[]);
    let (mut means, mut biases, mut others) = (0, 0, 0);
    let (mut far_without, mut far_with) = (0.0, 0.0);
    for exact in plain.params().iter() {
        let [a, b] = [&without, &with].map(|model| named(model, &exact.name));
        let gradient = exact.tensor.grad();
        if exact.name.ends_with("running_mean") {
            let far = distance(&a, &exact.tensor);
            assert!(far < 0.02, "{}: {far}", exact.name);
            means += 1;
        } else if a.grad().defined() {
            let [a, b] = [a, b].map(|t| distance(&t.grad(), &gradient));
            assert!(a < 0.2, "{}: {a}", exact.name);
            (far_without, far_with) = (far_without + a, far_with + b);
            others += 1;
        } else if gradient.defined() {
            assert!(exact.name.split('.').next_back() == Some("bias"), "{}", exact.name);
            // It is nothing but rounding there.
            let of_weight = named(&plain, &exact.name.replace(".bias", ".weight")).grad();
            let [of_bias, of_weight] = [gradient, of_weight].map(|t| t.abs().max().double_value(&[]));
            assert!(of_bias < 1e-3 * of_weight, "{}: {of_bias}, {of_weight}", exact.name);
            biases += 1;
        }
    }
    assert!(far_without < 1.5 * far_with, "{far_without} without biases, {far_with} with them");
    assert!((means, biases) == (3, 3) && others > 10, "{means} {biases} {others}");
}

#[test]
fn bfloat16_is_near_and_channels_last_is_the_same() {
    let (settings, info) = small(false);
    let build = |precision, channels_last| {
        let model =
            Network::new(&settings, &info, Device::Cpu, Runtime { precision, channels_last, fused: true })
                .unwrap();
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
    let loss = model.classify(&input(), Mode { frozen_norms: 2, ..Mode::TRAIN }).unwrap().sum(Kind::Float);
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
    // By the name that it has in every VGG.
    let (_, maps) = model.classify_with(&input(), Mode::EVAL, &["features.9"]).unwrap();
    assert_eq!(maps[0].size(), [2, 16, 16, 16]);
    let error = model.classify_with(&input(), Mode::EVAL, &["features.90"]).unwrap_err().to_string();
    assert!(error.contains("features.90") && error.contains("unshared_block.1"), "{error}");
}

#[test]
fn frozen_norms_are_counted_through_cuts_and_without_dropout() {
    // Number 5 of the VGG: beyond a cut it is its block's second, after added dropout the sixth of its block.
    for v4 in [true, false] {
        let (mut settings, info) = small(v4);
        let norm = if v4 {
            "mtl_vgg_core.v4_block.2"
        } else {
            settings.v1_model_layer = 7;
            settings.add_dropout.insert(DropoutPlace::SharedBlock, 0.5);
            "mtl_vgg_core.v1_block.6"
        };
        for (frozen_norms, batches) in [(5, 1), (6, 0)] {
            let model = Network::new(&settings, &info, Device::Cpu, Runtime::default()).unwrap();
            let _ = model.classify(&input(), Mode { frozen_norms, ..Mode::TRAIN }).unwrap();
            let seen = named(&model, &format!("{norm}.num_batches_tracked")).int64_value(&[]);
            assert_eq!(seen, batches, "{norm}, {frozen_norms}");
        }
    }
}

#[test]
fn predictions_start_about_the_mean_response_whatever_the_offset() {
    let (mut settings, info) = small(false);
    for offset in [-1.0, 0.0, 0.5] {
        settings.v1_elu_offset = offset;
        let model = Network::new(&settings, &info, Device::Cpu, Runtime::default()).unwrap();
        let bias = named(&model, "v1_readout.a.bias").double_value(&[0]);
        let first = bias + offset;
        let predicted = if first > 0.0 { first } else { first.exp() - 1.0 } + 1.0;
        assert!(
            (predicted - f64::from(info.sessions[0].mean_response[0])).abs() < 1e-6,
            "{offset}: {predicted}"
        );
    }
}

fn names(model: &Network) -> Vec<String> {
    model.params().iter().map(|p| p.name.clone()).collect()
}

fn build(settings: &ModelSettings, info: &DataInfo) -> Network {
    let model = Network::new(settings, info, Device::Cpu, Runtime::default()).unwrap();
    fill(model.params());
    model
}

/// Other numbers of the same law; the network's own stay.
#[test]
fn fresh_values_are_drawn_as_those_of_a_new_network() {
    let (settings, info) = small(true);
    let model = build(&settings, &info);
    let before: Vec<Tensor> = model.params().iter().map(|p| p.tensor.copy()).collect();
    let [a, b] = [0, 1].map(|_| model.fresh().unwrap());
    let listed = |params: &Params| -> Vec<(String, Vec<i64>)> {
        params.iter().map(|p| (p.name.clone(), p.tensor.size())).collect()
    };
    assert_eq!(listed(&a), listed(model.params()));
    let head = |p: &&Param| p.name == "classification_readout.0.weight";
    let [first, second] = [&a, &b].map(|params| &params.iter().find(head).unwrap().tensor);
    assert_ne!(first, second);
    // Normal, with variance 2 / outputs.
    let ratio = first.std(true).double_value(&[]) / (2.0 / first.size()[0] as f64).sqrt();
    assert!((ratio - 1.0).abs() < 0.25, "{ratio}");
    assert!(model.params().iter().zip(&before).all(|(now, before)| now.tensor == *before));
}

#[test]
fn v4_alone_is_read_as_v1_at_the_same_cut() {
    let (settings, v1) = small(false);
    let mut v4 = v1.clone();
    v4.sessions.iter_mut().for_each(|s| s.task = Task::V4);
    let of_v1 = build(&settings, &v1);
    let of_v4 = build(&ModelSettings { v1_model_layer: 0, v4_model_layer: 3, ..settings }, &v4);
    let state: Vec<(String, Tensor)> =
        of_v1.params().state().into_iter().map(|(name, value)| (name.replace("v1_", "v4_"), value)).collect();
    assert!(names(&of_v4).iter().all(|name| !name.contains("v1_")));
    of_v4.params().load(&state, "v1").unwrap();
    let x = input();
    for session in 0..2 {
        let read = |model: &Network| model.both(&x, session, Mode::EVAL).unwrap();
        assert_eq!(read(&of_v4), read(&of_v1));
    }
    let error = of_v4.tap(&x, Task::V1, Mode::EVAL).unwrap_err().to_string();
    assert!(error.contains("no map for v1"), "{error}");
}

#[test]
fn inserted_dropout_shifts_the_names_and_acts_in_training_only() {
    let neural = DataInfo { classes: None, ..data(&[("s", 1)]) };
    let add_dropout = [(DropoutPlace::SharedBlock, 0.5)].into();
    let paper = build(&ModelSettings { add_dropout, ..ModelSettings::default() }, &neural);
    let index = |name: &String| name.strip_prefix("mtl_vgg_core.v1_block.")?.split('.').next()?.parse().ok();
    let mut indices: Vec<i64> = names(&paper).iter().filter_map(index).collect();
    indices.dedup();
    assert_eq!(indices, [0, 1, 4, 5, 9, 10, 13, 14, 18, 19]);

    let (settings, info) = small(false);
    let settings = ModelSettings { vgg_type: "8 M 16 M 16".parse().unwrap(), ..settings };
    let plain = build(&settings, &info);
    let add_dropout = [(DropoutPlace::SharedBlock, 0.25), (DropoutPlace::UnsharedBlock, 0.5)].into();
    let dropping = build(&ModelSettings { add_dropout, ..settings }, &info);
    for (from, to) in plain.params().iter().zip(dropping.params().iter()) {
        tch::no_grad(|| to.tensor.shallow_clone().copy_(&from.tensor));
    }
    let x = input();
    let both = |model: &Network| model.both(&x, 0, Mode::EVAL).unwrap();
    assert_eq!(both(&dropping), both(&plain));
    let maps = |mode| dropping.classify_with(&x, mode, &["v1_block.1", "v1_block.2", "unshared_block.2"]);
    let (_, trained) = maps(Mode::TRAIN).unwrap();
    let alive = |t: &Tensor| t.gt(0.0).sum(Kind::Float).double_value(&[]);
    let kept = alive(&trained[1]) / alive(&trained[0]);
    assert!((kept - 0.75).abs() < 0.02, "{kept}");
    let (_, fixed) = maps(Mode::EVAL).unwrap();
    assert!(alive(&trained[2]) < 0.6 * alive(&fixed[2]));
}

#[test]
fn the_extra_normalisation_is_on_the_readouts_branch_only() {
    let (settings, info) = small(true);
    let plain = build(&settings, &info);
    let extra = build(&ModelSettings { v1_final_batchnorm: true, ..settings }, &info);
    let added: Vec<String> = names(&extra).into_iter().filter(|name| name.contains("extra")).collect();
    let leaves = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"];
    let expected = ["v1", "v4"].map(|area| leaves.map(|leaf| format!("{area}_extra.OutBatchNorm.{leaf}")));
    assert_eq!(added, expected.concat());
    let x = input();
    let map = plain.tap(&x, Task::V4, Mode::EVAL).unwrap();
    let of = |leaf: &str| named(&extra, &format!("v4_extra.OutBatchNorm.{leaf}")).view([1, -1, 1, 1]);
    let scaled = (map - of("running_mean")) / (of("running_var") + 1e-5).sqrt() * of("weight") + of("bias");
    let far = (extra.tap(&x, Task::V4, Mode::EVAL).unwrap() - scaled.relu()).abs().max().double_value(&[]);
    assert!(far < 1e-4, "{far}");
    assert!(scaled.min().double_value(&[]) < 0.0);
    let classes = |model: &Network| model.classify(&x, Mode::EVAL).unwrap();
    assert_eq!(classes(&extra), classes(&plain));
    let batches = || of("num_batches_tracked").int64_value(&[0, 0, 0, 0]);
    let _ = extra.classify(&x, Mode::TRAIN).unwrap();
    assert_eq!(batches(), 0);
    let _ = extra.respond(&x, 1, Mode::TRAIN).unwrap();
    assert_eq!(batches(), 1);
}

#[test]
fn heads_fit_images_of_every_size_with_and_without_the_average() {
    let info = |side| DataInfo { image: [1, side, side], classes: Some(5), sessions: Vec::new() };
    for (side, avg_pool, dense) in [
        (224, true, 8 * 49),
        (224, false, 8 * 49),
        (93, true, 8 * 49),
        (93, false, 8 * 4),
        (64, true, 8 * 49),
        (64, false, 8 * 4),
    ] {
        for (head, expected) in [(HeadKind::Dense, dense), (HeadKind::Conv, 8)] {
            let settings = ModelSettings {
                vgg_type: "4 M 4 M 4 M 4 M 8 M".parse().unwrap(),
                classification_readout_type: head,
                avg_pool,
                hidden: 6,
                ..ModelSettings::default()
            };
            let model = build(&settings, &info(side));
            assert_eq!(named(&model, "classifier.0.weight").size()[..2], [6, expected], "{side} {avg_pool}");
            let size = i64::from(side);
            let image = Tensor::rand([1, 1, size, size], (Kind::Float, Device::Cpu));
            if avg_pool {
                let (logits, maps) = model.classify_with(&image, Mode::EVAL, &["avgpool"]).unwrap();
                assert_eq!((logits.size(), maps[0].size()), (vec![1, 5], vec![1, 8, 7, 7]));
            } else {
                assert_eq!(model.classify(&image, Mode::EVAL).unwrap().size(), [1, 5]);
            }
        }
    }
}

/// As torchvision's, whose number of weights is published.
#[test]
fn vgg11_for_imagenet_has_the_published_size_and_runs() {
    let settings = ModelSettings {
        vgg_type: "vgg11".parse().unwrap(),
        classification_readout_type: HeadKind::Dense,
        avg_pool: true,
        ..ModelSettings::default()
    };
    let info = DataInfo { image: [3, 224, 224], classes: Some(1000), sessions: Vec::new() };
    let model = Network::new(&settings, &info, Device::Cpu, Runtime::default()).unwrap();
    assert_eq!(model.params().n_trainable(), 132_863_336);
    let image = Tensor::rand([1, 3, 224, 224], (Kind::Float, Device::Cpu));
    let logits = tch::no_grad(|| model.classify(&image, Mode::EVAL).unwrap());
    assert_eq!(logits.size(), [1, 1000]);
    assert!(logits.isfinite().all().int64_value(&[]) == 1);
}

#[test]
fn parameters_are_frozen_by_fragments_of_their_names_or_all_others_are() {
    let (settings, info) = small(false);
    let learns = |model: &Network, fragments: &[&str], others| {
        let n = model.freeze(fragments, others).unwrap();
        let all: Vec<_> = model.params().iter().filter(|p| p.trainable).collect();
        let learning: Vec<String> =
            all.iter().filter(|p| p.tensor.requires_grad()).map(|p| p.name.clone()).collect();
        assert_eq!(all.len(), n + learning.len());
        learning
    };
    let model = build(&settings, &info);
    let learning = learns(&model, &["v1_readout.a", "v1_block"], false);
    assert!(learning.iter().all(|name| !name.contains("v1_readout.a") && !name.contains("v1_block")));
    assert!(learning.contains(&"v1_readout.b.mu".to_owned()));
    let (read, logits) = model.both(&input(), 0, Mode::TRAIN).unwrap();
    (read.sum(Kind::Float) + logits.sum(Kind::Float)).backward();
    assert!(!named(&model, "v1_readout.a.features").grad().defined());
    assert!(named(&model, "classification_readout.0.weight").grad().defined());

    let model = build(&settings, &info);
    let learning = learns(&model, &["classification_readout"], true);
    let head = [0, 3, 6].map(|i| ["weight", "bias"].map(|leaf| format!("classification_readout.{i}.{leaf}")));
    assert_eq!(learning, head.concat());
    for absent in ["fc", "running_mean"] {
        let error = model.freeze(&["v1_block", absent], false).unwrap_err().to_string();
        assert!(error.contains(&format!("{absent:?}")) && error.starts_with("model: freeze"), "{error}");
    }
}
