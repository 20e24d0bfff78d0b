//! Scores, on the CPU, from predictions collected once.

/// Responses of one session, predicted and recorded, trial after trial.
#[derive(Debug, Clone, Default)]
pub struct Predictions {
    /// Number of neurons.
    pub n_neurons: usize,
    /// `[trials, neurons]`
    pub predicted: Vec<f32>,
    /// `[trials, neurons]`
    pub recorded: Vec<f32>,
}

impl Predictions {
    /// Pearson correlation of every neuron over all trials: z-scores by the population's deviation
    /// plus 1e-8, and 0 where that is undefined, as the reference computes it.
    pub fn correlations(&self) -> Vec<f64> {
        (0..self.n_neurons)
            .map(|n| {
                correlation(
                    column(&self.predicted, n, self.n_neurons),
                    column(&self.recorded, n, self.n_neurons),
                )
            })
            .collect()
    }

    /// Sum of p - y ln(p + 1e-12) over trials and neurons.
    pub fn poisson_loss(&self) -> f64 {
        let pairs = self.predicted.iter().zip(&self.recorded);
        pairs.map(|(&p, &y)| f64::from(p) - f64::from(y) * (f64::from(p) + 1e-12).ln()).sum()
    }
}

/// Mean of all values; 0 of none.
pub fn mean<'a>(values: impl Iterator<Item = &'a f64>) -> f64 {
    let (n, sum) = values.fold((0u64, 0.0), |(n, sum), value| (n + 1, sum + value));
    if n == 0 { 0.0 } else { sum / n as f64 }
}

fn column(values: &[f32], n: usize, n_neurons: usize) -> impl Iterator<Item = f64> + Clone + '_ {
    values.iter().skip(n).step_by(n_neurons).map(|&v| f64::from(v))
}

fn correlation(a: impl Iterator<Item = f64> + Clone, b: impl Iterator<Item = f64> + Clone) -> f64 {
    let n = a.clone().count() as f64;
    let ((mean_a, std_a), (mean_b, std_b)) = (mean_and_std(a.clone(), n), mean_and_std(b.clone(), n));
    let sum: f64 = a.zip(b).map(|(x, y)| (x - mean_a) / std_a * ((y - mean_b) / std_b)).sum();
    let r = sum / n;
    if r.is_finite() { r } else { 0.0 }
}

fn mean_and_std(x: impl Iterator<Item = f64> + Clone, n: f64) -> (f64, f64) {
    let mean = x.clone().sum::<f64>() / n;
    let variance = x.map(|v| (v - mean).powi(2)).sum::<f64>() / n;
    (mean, variance.sqrt() + 1e-8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn correlations_equal_the_reference() {
        let scores = Predictions {
            n_neurons: 3,
            predicted: vec![1., 2., 3., 2., 1., 3., 4., 0., 3., 3., 5., 3.],
            recorded: vec![1., 1., 0., 2., 2., 1., 3., 0., 2., 5., 4., 5.],
        };
        let found = scores.correlations();
        for (found, expected) in found.iter().zip([0.680_336_04, 0.903_507_89, 0.0]) {
            assert!((found - expected).abs() < 1e-7, "{found}, expected {expected}");
        }
        assert!((mean(found.iter()) - 1.583_843_93 / 3.0).abs() < 1e-7);
    }

    #[test]
    fn what_is_undefined_counts_as_zero() {
        let scores = Predictions { n_neurons: 1, predicted: vec![f32::NAN, 1.0], recorded: vec![0.0, 1.0] };
        assert_eq!(scores.correlations(), [0.0]);
    }
}
