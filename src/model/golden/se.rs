//! SE networks against the reference (spec/models 8.3).

use super::*;
use crate::model::network::Core;

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
        let mut model = Network::new(&settings, &sessions, Device::Cpu, Runtime::default()).unwrap();
        let filter = named(&model, "core._input_weights_regularizer.laplace.filter").copy();
        fill(model.params());
        named(&model, "core._input_weights_regularizer.laplace.filter").copy_(&filter);
        let (core, read, penalty, parameters) = rest[i];
        assert_eq!(model.params().n_trainable(), parameters);
        for folded in [false, true] {
            if folded {
                model.fold();
            }
            tch::no_grad(|| {
                let map = model.tap(&input(), Task::V1, Mode::EVAL).unwrap();
                assert_eq!(map.size(), [2, 32, 41, 41]);
                assert_values("core", &map, &cores[i], core);
                let found = model.respond(&input(), 0, Mode::EVAL).unwrap();
                assert_values("responses", &found, &responses[i], read);
            });
        }
        if i == 0 {
            let Core::Se(core) = &model.stages[0].core else { panic!("not an SE core") };
            let rough = core.roughness().double_value(&[]);
            assert!((rough - 19.798_626).abs() < 1e-4, "{rough}");
        }
        let found = model.penalty(0).unwrap().double_value(&[]);
        assert!((found - penalty).abs() < 1e-3, "{found}");
    }
}
