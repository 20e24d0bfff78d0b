//! Settings that contradict one another or the data, and what is said of them.

use super::*;

fn refusal(settings: &ModelSettings, info: &DataInfo) -> String {
    let Err(error) = Network::new(settings, info, Device::Cpu, Runtime::default()) else {
        panic!("accepted: {settings:?} with {info:?}");
    };
    assert!(error.is_input());
    error.to_string()
}

/// What is changed of a small network that works, and what the message must say.
type Case = (fn(&mut ModelSettings, &mut DataInfo), &'static [&'static str]);

fn assert_refused(start: &(ModelSettings, DataInfo), cases: &[Case]) {
    Network::new(&start.0, &start.1, Device::Cpu, Runtime::default()).unwrap();
    for (change, says) in cases {
        let (mut settings, mut info) = start.clone();
        change(&mut settings, &mut info);
        let message = refusal(&settings, &info);
        assert!(says.iter().all(|part| message.contains(part)), "{message:?} should say {says:?}");
    }
}

#[test]
fn settings_of_a_vgg_that_cannot_work_are_refused() {
    let message =
        refusal(&ModelSettings { v1_model_layer: 16, ..ModelSettings::default() }, &data(&[("s", 1)]));
    assert!(message.contains("v1_model_layer 16 of vgg19_bn") && message.contains("14, 17, 20"), "{message}");
    assert_refused(
        &small(false),
        &[
            (|s, _| s.v1_model_layer = 99, &["v1_model_layer 99", "beyond the end", "[3, 4, 7, 8, 11]"]),
            (|s, _| s.v1_model_layer = 0, &["sessions of v1", "v1_model_layer is 0 or less"]),
            (|s, _| s.v4_model_layer = 7, &["no sessions of v4", "model.v4_model_layer = 0"]),
            (|s, _| s.dropout = 1.0, &["dropout = 1 is out of range"]),
            (|s, _| s.dropout = f64::NAN, &["dropout = NaN"]),
            (|s, _| s.hidden = 0, &["hidden = 0"]),
            (|s, _| s.v1_init_mu_range = 1.5, &["v1_init_mu_range = 1.5"]),
            (|s, _| s.v1_init_sigma_range = 0.0, &["v1_init_sigma_range = 0"]),
            (|s, _| s.v1_gamma_readout = -1.0, &["v1_gamma_readout = -1"]),
            (|s, _| s.v1_elu_offset = f64::INFINITY, &["v1_elu_offset = inf"]),
            (|s, _| s.add_dropout = [(DropoutPlace::SharedBlock, 0.0)].into(), &["add_dropout = 0"]),
            (|s, d| (s.avg_pool, d.classes) = (true, None), &["avg_pool", "without labelled images"]),
            (|s, _| s.hidden = 1 << 20, &["hidden = 1048576", "weights, more than"]),
        ],
    );
    let both = small(true);
    assert_refused(
        &both,
        &[(|s, _| s.v4_model_layer = 3, &["v4_model_layer 3 must lie beyond v1_model_layer 3"])],
    );
    let plain = (ModelSettings { hidden: 8, ..small(false).0 }, data(&[]));
    assert_refused(
        &plain,
        &[
            (|s, _| s.v4_model_layer = 7, &["v4_model_layer does not apply without recording sessions"]),
            (|s, _| s.v1_final_batchnorm = true, &["v1_final_batchnorm does not apply"]),
            (|s, _| s.v1_fine_tune = false, &["v1_fine_tune = false does not apply"]),
        ],
    );
}

#[test]
fn data_that_no_network_can_take_are_refused() {
    assert_refused(
        &small(false),
        &[
            (|_, d| (d.classes, d.sessions) = (None, Vec::new()), &["neither labelled images nor"]),
            (|_, d| d.classes = Some(0), &["no classes"]),
            (|_, d| d.image[0] = 2, &["images of 2 channels"]),
            (|_, d| d.image[1] = 0, &["images of 0 x 64"]),
            (|_, d| d.image[1] = 3, &["shrinks images of 3 x 64 to nothing"]),
            (|_, d| d.sessions[0].image[2] = 5000, &["images of 64 x 5000"]),
            (
                |s, d| (s.v1_model_layer, d.sessions[0].image[1]) = (4, 1),
                &["1 x 64 are too small for 4 layers"],
            ),
            (|_, d| d.sessions[0].task = Task::Classification, &["\"a\" is of no area"]),
            (|_, d| d.sessions[0].id = "a.b".into(), &["\"a.b\"", "no dots"]),
            (|_, d| d.sessions[0].id.clear(), &["must have characters"]),
            (|_, d| d.sessions[1].id = "a".into(), &["\"a\" is there twice in v1"]),
            (|_, d| d.sessions[1].mean_response.clear(), &["\"b\" has no neurons"]),
        ],
    );
}

fn se(settings: &mut ModelSettings) -> &mut SeSettings {
    settings.se.as_mut().unwrap()
}

#[test]
fn settings_of_an_se_network_that_cannot_work_are_refused() {
    let settings = ModelSettings { se: Some(SeSettings::default()), ..ModelSettings::default() };
    let info = DataInfo { classes: None, ..data(&[("a", 3), ("b", 2)]) };
    assert_refused(
        &(settings, info),
        &[
            (|s, _| s.v1_model_layer = 3, &["model.se", "do not apply"]),
            (|_, d| d.classes = Some(2), &["does not classify", "data.images"]),
            (|_, d| (d.sessions[1].task, d.sessions[1].id) = (Task::V4, "a".into()), &["\"a\"", "two areas"]),
            (|_, d| d.sessions[1].image[0] = 3, &["differ in the channels"]),
            (|_, d| d.sessions[1].image[1] = 25, &["25 x 64 are too small", "kernel of 24", "need 9"]),
            (|s, _| se(s).init_mu_range = Some(0.1), &["se.init_mu_range", "readout_type = \"point\""]),
            (|s, _| se(s).skip = 2, &["se.skip = 2"]),
            (|s, _| se(s).stack = Stack::From(3), &["se.stack", "beyond the 3"]),
            (|s, _| se(s).stack = Stack::Layers(vec![0, 3]), &["se.stack", "beyond the 3"]),
            (|s, _| se(s).layers = 0, &["se.layers = 0", "1 to 64"]),
            (|s, _| se(s).se_reduction = Some(33), &["se.se_reduction = 33", "1 to 32"]),
            (|s, _| se(s).pool_steps = Some(9), &["se.pool_steps = 9"]),
            (|s, _| se(s).momentum = 1.1, &["se.momentum = 1.1"]),
            (|s, _| se(s).gamma_input = f64::NAN, &["se.gamma_input = NaN"]),
            (|s, _| se(s).init_range = Some(0.0), &["se.init_range = 0"]),
            (
                |s, _| (se(s).input_kern, se(s).input_regularizer) = (2, InputRegularizer::LaplaceL1),
                &["se.input_kern = 2", "se.laplace_padding", "3 x 3"],
            ),
        ],
    );
}
