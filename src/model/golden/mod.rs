//! Tests of whole networks. Values of the reference's own classes (torch 1.9) are compared under a
//! deterministic filling of all tensors (spec/models 8.1), which is here.

mod mtl;
mod se;
mod settings;
mod variants;

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
