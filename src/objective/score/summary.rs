//! From the scores of neurons to those of a session or an area.

use super::neural::{NeuronScores, SessionScores};

/// Metrics of one session, or of the sessions of one area together: correlation first, then the summed
/// Poisson loss; other metrics are means over neurons, those with a value only; the fractions are slopes
/// over all neurons. What needs repeats is absent where there are none.
pub fn summary(sessions: &[&SessionScores]) -> Vec<(&'static str, f64)> {
    let neurons = || sessions.iter().flat_map(|s| &s.neurons);
    let mut metrics = Vec::new();
    for (i, name) in NeuronScores::METRICS.into_iter().enumerate() {
        let (n, sum) = neurons()
            .filter_map(|neuron| neuron.values()[i])
            .fold((0u64, 0.0), |(n, sum), value| (n + 1, sum + value));
        if n > 0 {
            metrics.push((name, if name == "loss" { sum } else { sum / n as f64 }));
        }
    }
    for (name, oracle) in [
        ("fraction_oracle", (|n| n.repeats.map(|r| r.oracle)) as fn(&NeuronScores) -> Option<f64>),
        ("fraction_oracle_corrected", |n| n.repeats.map(|r| r.oracle_corrected)),
    ] {
        let pairs = neurons().filter_map(|n| oracle(n).map(|oracle| (oracle, n.correlation)));
        metrics.extend(slope_through_origin(pairs).map(|slope| (name, slope)));
    }
    let defined = neurons().filter(|n| n.repeats.is_some_and(|r| r.feve.is_some())).count();
    if neurons().any(|n| n.repeats.is_some()) {
        metrics.push(("feve_neurons", defined as f64));
    }
    metrics.push(("repeated_images", sessions.iter().map(|s| s.n_repeated as f64).sum()));
    metrics
}

/// Least squares of y = slope x; none where all x are 0.
fn slope_through_origin(pairs: impl Iterator<Item = (f64, f64)>) -> Option<f64> {
    let (xx, xy) = pairs.fold((0.0, 0.0), |(xx, xy), (x, y)| (xx + x * x, xy + x * y));
    (xx > 0.0).then(|| xy / xx)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_repeats_their_metrics_are_absent_and_the_number_of_repeated_images_is_zero() {
        let neuron = |correlation| NeuronScores { correlation, poisson_loss: 2.0, mse: 0.5, repeats: None };
        let session = |neurons: &[NeuronScores]| SessionScores {
            n_trials: 3,
            n_images: 3,
            n_repeated: 0,
            neurons: neurons.to_vec(),
        };
        let (a, b) = (session(&[neuron(0.2), neuron(0.4)]), session(&[neuron(0.9)]));
        let found = summary(&[&a, &b]);
        assert_eq!(found, [("correlation", 0.5), ("loss", 6.0), ("mse", 0.5), ("repeated_images", 0.0)]);
    }
}
