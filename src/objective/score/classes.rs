//! Scores of a classifier.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a network said of labelled images, image after image.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Guesses {
    /// Place of each image within its split.
    pub images: Vec<u64>,
    /// Class of each image.
    pub labels: Vec<i64>,
    /// The class that it was taken for.
    pub predicted: Vec<i64>,
    /// How many classes were ranked above the right one.
    pub ranks: Vec<i64>,
    /// Cross-entropy in nats.
    pub losses: Vec<f32>,
    /// Images that could not be scored, since their class is none of those that are scored.
    pub left_out: u64,
}

/// Scores of a classifier over a split.
#[derive(Debug, Clone, PartialEq)]
pub struct ClassScores {
    /// Names of the classes that were scored.
    pub names: Vec<String>,
    /// Images of each class.
    pub counts: Vec<u64>,
    /// Those of them that were recognised.
    pub correct: Vec<u64>,
    /// (class, predicted class) and the number of images, where there is one.
    pub confusion: BTreeMap<(usize, usize), u64>,
    /// Images whose class was among the five that were ranked highest.
    pub in_top5: u64,
    /// Mean cross-entropy in nats.
    pub cross_entropy: f64,
    /// Images of classes that are not scored.
    pub left_out: u64,
}

impl ClassScores {
    /// Counts guesses among the classes called `names`.
    pub fn new(names: Vec<String>, guesses: &Guesses) -> Self {
        let (mut counts, mut correct) = (vec![0; names.len()], vec![0; names.len()]);
        let mut confusion = BTreeMap::new();
        for (&label, &predicted) in guesses.labels.iter().zip(&guesses.predicted) {
            let (label, predicted) = (label as usize, predicted as usize);
            counts[label] += 1;
            correct[label] += u64::from(label == predicted);
            *confusion.entry((label, predicted)).or_default() += 1;
        }
        let loss: f64 = guesses.losses.iter().map(|&loss| f64::from(loss)).sum();
        Self {
            names,
            counts,
            correct,
            confusion,
            in_top5: guesses.ranks.iter().filter(|&&rank| rank < 5).count() as u64,
            cross_entropy: loss / guesses.labels.len() as f64,
            left_out: guesses.left_out,
        }
    }

    /// Images that were scored.
    pub fn samples(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Recognised images in percent.
    pub fn accuracy(&self) -> f64 {
        100.0 * self.correct.iter().sum::<u64>() as f64 / self.samples() as f64
    }

    /// The same of one class; none where it has no images.
    pub fn class_accuracy(&self, class: usize) -> Option<f64> {
        (self.counts[class] > 0).then(|| 100.0 * self.correct[class] as f64 / self.counts[class] as f64)
    }

    /// Images whose class was among the five ranked highest, in percent; none where there are only five.
    pub fn top5_accuracy(&self) -> Option<f64> {
        (self.names.len() > 5).then(|| 100.0 * self.in_top5 as f64 / self.samples() as f64)
    }

    /// Accuracy first, then the loss; `log_variance` is the learned one, if losses are weighed.
    pub fn summary(&self, log_variance: Option<f64>) -> Vec<(&'static str, f64)> {
        let loss = match log_variance {
            None => self.cross_entropy,
            Some(s) => (-s).exp() * self.cross_entropy + 0.5 * s,
        };
        let mut metrics = vec![("accuracy", self.accuracy()), ("loss", loss)];
        metrics.extend(self.top5_accuracy().map(|value| ("top5_accuracy", value)));
        if self.left_out > 0 {
            metrics.push(("left_out", self.left_out as f64));
        }
        metrics
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guesses_are_counted_by_class() {
        let names = ["a", "b", "c"].map(str::to_owned).to_vec();
        let guesses = Guesses {
            images: vec![0, 1, 2, 3, 4],
            labels: vec![0, 0, 1, 1, 1],
            predicted: vec![0, 1, 1, 2, 1],
            ranks: vec![0, 1, 0, 2, 0],
            losses: vec![0.5, 1.5, 0.5, 2.0, 0.5],
            left_out: 2,
        };
        let scores = ClassScores::new(names, &guesses);
        assert_eq!(scores.summary(None), [("accuracy", 60.0), ("loss", 1.0), ("left_out", 2.0)]);
        let weighed = scores.summary(Some(2f64.ln()));
        assert!((weighed[1].1 - (0.5 + 0.5 * 2f64.ln())).abs() < 1e-12);
        assert_eq!([0, 1, 2].map(|c| scores.class_accuracy(c)), [Some(50.0), Some(200.0 / 3.0), None]);
        let counted = [((0, 0), 1), ((0, 1), 1), ((1, 1), 2), ((1, 2), 1)];
        assert_eq!(scores.confusion, BTreeMap::from(counted));
        assert_eq!(scores.top5_accuracy(), None, "among three classes it says nothing");
    }
}
