//! Scores from repeated presentations: how much of a response its image explains, and how much of that the
//! network predicts. All are over the images that were shown at least twice, of which two are needed.

use super::neural::{Predictions, correlations, means, variances};
use std::collections::BTreeMap;

/// Scores of one neuron that need repeats.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RepeatScores {
    /// Correlation of prediction and mean response over images.
    pub correlation_to_average: f64,
    /// Correlation of each response with the mean of the other repeats (jack-knife).
    pub oracle: f64,
    /// V / sqrt(V (V + N)): V the variance of mean responses over images, N the mean variance over repeats.
    pub oracle_corrected: f64,
    /// Share of the variance that is not variance over repeats.
    pub explainable_variance: f64,
    /// Fraction of the explainable variance that is explained; none where there is no explainable variance.
    pub feve: Option<f64>,
}

/// Which trials show the same image.
#[derive(Debug)]
pub(super) struct Repeats {
    /// Different images.
    pub(super) n_images: usize,
    /// Trials of each image that was shown at least twice, in the order of ids.
    pub(super) trials: Vec<Vec<usize>>,
}

impl Repeats {
    /// From the image id of each trial.
    pub(super) fn of(images: &[u32]) -> Self {
        let mut by_image: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for (trial, &image) in images.iter().enumerate() {
            by_image.entry(image).or_default().push(trial);
        }
        let n_images = by_image.len();
        Self { n_images, trials: by_image.into_values().filter(|trials| trials.len() > 1).collect() }
    }

    /// Scores of each neuron, if at least two images were repeated.
    pub(super) fn scores(&self, of: &Predictions) -> Option<Vec<RepeatScores>> {
        if self.trials.len() < 2 {
            return None;
        }
        let sums = self.sums(of);
        let n = of.n_neurons;
        let to_average = correlations(&sums.mean_predicted, &sums.mean_recorded, n);
        let oracle = correlations(&sums.others, &sums.recorded, n);
        let signal = variances(&sums.mean_recorded, n, 0.0);
        let total = variances(&sums.recorded, n, 1.0);
        let error = means(&sums.squared_error, n);
        let score = |i: usize| {
            let explainable = total[i] - sums.noise[i];
            let corrected = signal[i] / (signal[i] * (signal[i] + sums.noise_population[i])).sqrt();
            RepeatScores {
                correlation_to_average: to_average[i],
                oracle: oracle[i],
                oracle_corrected: if corrected.is_finite() { corrected } else { 0.0 },
                explainable_variance: explainable / (total[i] + 1e-9),
                feve: (explainable > 0.0).then(|| 1.0 - (error[i] - sums.noise[i]) / explainable),
            }
        };
        Some((0..n).map(score).collect())
    }

    fn sums(&self, of: &Predictions) -> Sums {
        let n = of.n_neurons;
        let mut sums = Sums { noise: vec![0.0; n], noise_population: vec![0.0; n], ..Sums::default() };
        for trials in &self.trials {
            let rows = |values: &[f32]| -> Vec<f64> {
                let row = |&trial: &usize| values[trial * n..][..n].iter().map(|&v| f64::from(v));
                trials.iter().flat_map(row).collect()
            };
            sums.add(&rows(&of.predicted), &rows(&of.recorded), n, self.trials.len() as f64);
        }
        sums
    }
}

/// What the scores are made of.
#[derive(Debug, Default)]
struct Sums {
    /// Mean over the repeats of each image, `[images, neurons]`.
    mean_predicted: Vec<f64>,
    mean_recorded: Vec<f64>,
    /// Each repeat, `[trials, neurons]`; beside it the mean of the image's others, and the prediction's error.
    recorded: Vec<f64>,
    others: Vec<f64>,
    squared_error: Vec<f64>,
    /// Mean over images of the variance over repeats, with r - 1 and with r.
    noise: Vec<f64>,
    noise_population: Vec<f64>,
}

impl Sums {
    /// Adds the repeats `[repeats, neurons]` of one of `n_images`.
    fn add(&mut self, predicted: &[f64], recorded: &[f64], n: usize, n_images: f64) {
        let r = (recorded.len() / n) as f64;
        let mean = means(recorded, n);
        self.mean_predicted.extend(means(predicted, n));
        self.recorded.extend(recorded);
        // The mean of the others, (mean - y / r) r / (r - 1).
        self.others.extend(recorded.iter().zip(mean.iter().cycle()).map(|(y, m)| (m * r - y) / (r - 1.0)));
        self.squared_error.extend(recorded.iter().zip(predicted).map(|(y, p)| (y - p).powi(2)));
        self.mean_recorded.extend(mean);
        for (i, variance) in variances(recorded, n, 0.0).into_iter().enumerate() {
            self.noise[i] += variance * r / (r - 1.0) / n_images;
            self.noise_population[i] += variance / n_images;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one_neuron(images: &[u32], predicted: &[f32], recorded: &[f32]) -> Option<RepeatScores> {
        let (predicted, recorded) = (predicted.to_vec(), recorded.to_vec());
        let scores = Predictions { n_neurons: 1, images: images.to_vec(), predicted, recorded }.scores();
        scores.neurons[0].repeats
    }

    #[test]
    fn without_two_repeated_images_there_is_no_score_rather_than_zero() {
        assert!(one_neuron(&[1, 2, 3], &[0.0, 1.0, 2.0], &[0.0, 1.0, 2.0]).is_none());
        assert!(one_neuron(&[1, 1, 3], &[0.0, 1.0, 2.0], &[0.0, 1.0, 2.0]).is_none());
        assert!(one_neuron(&[1, 3, 1, 3], &[0.0; 4], &[0.0, 1.0, 2.0, 3.0]).is_some());
    }

    #[test]
    fn responses_without_noise_that_are_predicted_have_perfect_scores() {
        let y = [1.0, 4.0, 2.0, 2.0, 1.0, 4.0];
        let scores = one_neuron(&[7, 9, 8, 8, 7, 9], &y, &y).unwrap();
        for value in [scores.correlation_to_average, scores.oracle, scores.explainable_variance] {
            assert!((value - 1.0).abs() < 1e-7, "{scores:?}");
        }
        assert_eq!((scores.oracle_corrected, scores.feve), (1.0, Some(1.0)));
    }

    #[test]
    fn a_silent_neuron_has_no_explainable_variance() {
        let scores = one_neuron(&[1, 1, 2, 2], &[0.5; 4], &[0.0; 4]).unwrap();
        assert_eq!((scores.oracle, scores.oracle_corrected, scores.feve), (0.0, 0.0, None));
        assert_eq!(scores.explainable_variance, 0.0);
    }
}
