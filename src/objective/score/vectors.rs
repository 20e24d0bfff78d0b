//! The scores against numpy's (`tools/vectors_eval.py`).

use super::{NeuronScores, Predictions, summary};
use serde_json::Value;

const VECTORS: &str = include_str!("../../../tests/vectors/eval.json");

fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()
}

/// numpy adds in another order, hence no equality.
fn assert_near(found: Option<f64>, expected: Option<f64>, what: &str) {
    let near = match (found, expected) {
        (Some(a), Some(b)) => (a - b).abs() <= 1e-9 * b.abs().max(1.0),
        (a, b) => a.is_none() && b.is_none(),
    };
    assert!(near, "{what}: {found:?}, expected {expected:?}");
}

#[test]
fn neural_scores_equal_numpy_s() {
    let vectors: Value = serde_json::from_str(VECTORS).unwrap();
    let sessions = vectors["sessions"].as_array().unwrap();
    assert_eq!(sessions.len(), 4);
    for session in sessions {
        let images = session["images"].as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as u32);
        let scores = Predictions {
            n_neurons: session["n_neurons"].as_u64().unwrap() as usize,
            images: images.collect(),
            predicted: floats(&session["predicted"]),
            recorded: floats(&session["recorded"]),
        }
        .scores();
        for (n, neuron) in scores.neurons.iter().enumerate() {
            for (metric, value) in NeuronScores::METRICS.into_iter().zip(neuron.values()) {
                let what = format!("{}, {metric} of neuron {n}", session["name"]);
                assert_near(value, session["neurons"][metric][n].as_f64(), &what);
            }
        }
        let found = summary(&[&scores]);
        let expected = session["summary"].as_object().unwrap();
        assert_eq!(found.len(), expected.len(), "{found:?}, expected {expected:?}");
        for (metric, value) in found {
            let what = format!("{}, {metric}", session["name"]);
            assert_near(Some(value), expected.get(metric).and_then(Value::as_f64), &what);
        }
    }
}
