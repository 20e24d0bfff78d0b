//! Scores of single neurons over all trials of a session.

use super::repeats::{RepeatScores, Repeats};
use serde::{Deserialize, Serialize};

/// Responses of one session, predicted and recorded, trial after trial.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Predictions {
    /// Number of neurons.
    pub n_neurons: usize,
    /// Id of the image of each trial. Trials of one id are repeats.
    pub images: Vec<u32>,
    /// `[trials, neurons]`
    pub predicted: Vec<f32>,
    /// `[trials, neurons]`
    pub recorded: Vec<f32>,
}

/// Scores of one neuron.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NeuronScores {
    /// Correlation of prediction and response over all trials.
    pub correlation: f64,
    /// Sum of p - y ln(p + 1e-12) over all trials.
    pub poisson_loss: f64,
    /// Mean of (p - y)² over all trials.
    pub mse: f64,
    /// Where images were repeated.
    pub repeats: Option<RepeatScores>,
}

impl NeuronScores {
    /// Names of the metrics in tables and JSON.
    pub const METRICS: [&'static str; 8] = [
        "correlation",
        "loss",
        "mse",
        "correlation_to_average",
        "oracle",
        "oracle_corrected",
        "explainable_variance",
        "feve",
    ];

    /// Their values, in the same order; none where a metric is undefined.
    pub fn values(&self) -> [Option<f64>; 8] {
        let of = |score: fn(&RepeatScores) -> f64| self.repeats.as_ref().map(score);
        [
            Some(self.correlation),
            Some(self.poisson_loss),
            Some(self.mse),
            of(|r| r.correlation_to_average),
            of(|r| r.oracle),
            of(|r| r.oracle_corrected),
            of(|r| r.explainable_variance),
            self.repeats.and_then(|r| r.feve),
        ]
    }
}

/// Scores of one session.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionScores {
    /// Trials.
    pub n_trials: usize,
    /// Different images among them.
    pub n_images: usize,
    /// Images of at least two trials.
    pub n_repeated: usize,
    /// Each neuron.
    pub neurons: Vec<NeuronScores>,
}

impl Predictions {
    /// All scores.
    pub fn scores(&self) -> SessionScores {
        let repeats = Repeats::of(&self.images);
        let repeated = repeats.scores(self);
        let (poisson, squared) = (self.sums(poisson_term), self.sums(|p, y| (p - y).powi(2)));
        let n_trials = self.images.len();
        let neurons = correlations(&self.predicted, &self.recorded, self.n_neurons)
            .into_iter()
            .enumerate()
            .map(|(n, correlation)| NeuronScores {
                correlation,
                poisson_loss: poisson[n],
                mse: squared[n] / n_trials as f64,
                repeats: repeated.as_ref().map(|scores| scores[n]),
            })
            .collect();
        SessionScores { n_trials, n_images: repeats.n_images, n_repeated: repeats.trials.len(), neurons }
    }

    /// Sum of a term over all trials, neuron by neuron.
    fn sums(&self, term: impl Fn(f64, f64) -> f64) -> Vec<f64> {
        let mut sums = vec![0.0; self.n_neurons];
        let n = self.n_neurons.max(1);
        for (predicted, recorded) in self.predicted.chunks_exact(n).zip(self.recorded.chunks_exact(n)) {
            for ((sum, &p), &y) in sums.iter_mut().zip(predicted).zip(recorded) {
                *sum += term(f64::from(p), f64::from(y));
            }
        }
        sums
    }
}

fn poisson_term(p: f64, y: f64) -> f64 {
    p - y * (p + 1e-12).ln()
}

/// Pearson correlation of each of `n` columns of two `[rows, n]` matrices: z-scores by the population's
/// deviation plus 1e-8, and 0 where that is undefined, as the reference computes it. Row by row, since
/// walking down columns would miss the cache at every value.
pub(super) fn correlations<T: Copy + Into<f64>>(left: &[T], right: &[T], n: usize) -> Vec<f64> {
    let (left_means, right_means) = (means(left, n), means(right, n));
    let mut sums = vec![[0.0; 3]; n];
    for (left, right) in left.chunks_exact(n.max(1)).zip(right.chunks_exact(n.max(1))) {
        for (i, sums) in sums.iter_mut().enumerate() {
            let (x, y): (f64, f64) = (left[i].into() - left_means[i], right[i].into() - right_means[i]);
            sums[0] += x * x;
            sums[1] += y * y;
            sums[2] += x * y;
        }
    }
    let rows = (left.len() / n.max(1)) as f64;
    let correlation = |[xx, yy, xy]: [f64; 3]| {
        let deviation = |squares: f64| (squares / rows).sqrt() + 1e-8;
        let r = xy / rows / (deviation(xx) * deviation(yy));
        if r.is_finite() { r } else { 0.0 }
    };
    sums.into_iter().map(correlation).collect()
}

/// Mean of each column.
pub(super) fn means<T: Copy + Into<f64>>(values: &[T], n: usize) -> Vec<f64> {
    let mut sums = vec![0.0; n];
    for row in values.chunks_exact(n.max(1)) {
        sums.iter_mut().zip(row).for_each(|(sum, &v)| *sum += v.into());
    }
    let rows = (values.len() / n.max(1)) as f64;
    sums.into_iter().map(|sum| sum / rows).collect()
}

/// Variance of each column, with `ddof` taken off the number of rows.
pub(super) fn variances<T: Copy + Into<f64>>(values: &[T], n: usize, ddof: f64) -> Vec<f64> {
    let means = means(values, n);
    let mut squares = vec![0.0; n];
    for row in values.chunks_exact(n.max(1)) {
        for ((sum, &v), mean) in squares.iter_mut().zip(row).zip(&means) {
            *sum += (v.into() - mean).powi(2);
        }
    }
    let rows = (values.len() / n.max(1)) as f64;
    squares.into_iter().map(|sum| sum / (rows - ddof)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of the reference's own code.
    #[test]
    fn correlations_equal_the_reference() {
        let predicted = [1f32, 2., 3., 2., 1., 3., 4., 0., 3., 3., 5., 3.];
        let recorded = [1f32, 1., 0., 2., 2., 1., 3., 0., 2., 5., 4., 5.];
        let found = correlations(&predicted, &recorded, 3);
        for (found, expected) in found.iter().zip([0.680_336_04, 0.903_507_89, 0.0]) {
            assert!((found - expected).abs() < 1e-7, "{found}, expected {expected}");
        }
    }

    #[test]
    fn an_undefined_correlation_counts_as_zero() {
        let scores = Predictions {
            n_neurons: 1,
            images: vec![1, 2],
            predicted: vec![f32::NAN, 1.0],
            recorded: vec![0.0, 1.0],
        };
        let scores = scores.scores();
        assert_eq!((scores.neurons[0].correlation, scores.n_repeated), (0.0, 0));
        assert!(scores.neurons[0].mse.is_nan(), "a broken prediction must show");
    }
}
