//! Which of the head's classes a set of labelled images is scored on. A head may have more classes than the
//! set, as in evaluations of an ImageNet network on a set of 200 of its classes.

use super::EvalError;
use crate::torch_ext::send;
use std::collections::HashMap;
use tch::{Kind, Tensor};

/// The head's outputs that are scored, and the classes of a data set that they stand for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ClassMap {
    /// Name of each scored class.
    names: Vec<String>,
    /// Output of the head for each scored class; without it, its first ones.
    outputs: Option<Vec<i64>>,
    /// Place among the scored classes of each of the data set's classes, if it is scored.
    places: Vec<Option<i64>>,
    /// Classes of the data set that the head does not know.
    unmatched: Vec<String>,
}

impl ClassMap {
    /// The head's classes are those of the data set.
    pub fn same(names: Vec<String>) -> Self {
        let places = (0..names.len() as i64).map(Some).collect();
        Self { names, places, ..Self::default() }
    }

    /// The head's classes called `head` on a data set with classes called `data`. Classes are matched by name,
    /// and only outputs for classes of the data set compete. Some must match.
    pub fn matched(head: &[String], data: &[String]) -> Result<Self, EvalError> {
        let of_head: HashMap<&str, i64> =
            head.iter().enumerate().map(|(i, name)| (name.as_str(), i as i64)).collect();
        let mut map = Self::default();
        let mut outputs = Vec::new();
        for name in data {
            let Some(&output) = of_head.get(name.as_str()) else {
                map.unmatched.push(name.clone());
                map.places.push(None);
                continue;
            };
            map.places.push(Some(outputs.len() as i64));
            map.names.push(name.clone());
            outputs.push(output);
        }
        if outputs.is_empty() {
            let first = |names: &[String]| names.first().cloned().unwrap_or_default();
            return Err(EvalError::Classes(format!(
                "none of the data set's {} classes ({}, …) is among the network's {} ({}, …); classes are matched by the names of their folders",
                data.len(),
                first(data),
                head.len(),
                first(head)
            )));
        }
        map.outputs = Some(outputs);
        Ok(map)
    }

    /// Only the first `m` outputs compete, and images of other classes are left out
    /// (`return_classification_subset`, spec/trainer 3.8).
    pub fn first(names: &[String], m: usize) -> Result<Self, EvalError> {
        if m == 0 || m > names.len() {
            let n = names.len();
            return Err(EvalError::Classes(format!(
                "the first {m} classes of {n}: give a number from 1 to {n}"
            )));
        }
        let places = (0..names.len() as i64).map(|c| (c < m as i64).then_some(c)).collect();
        Ok(Self { names: names[..m].to_vec(), places, ..Self::default() })
    }

    /// Names of the scored classes.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Classes of the data set that the head does not know.
    pub fn unmatched(&self) -> &[String] {
        &self.unmatched
    }

    /// Rows of a batch that can be scored, and the places of their classes.
    pub(super) fn scored(&self, labels: &[i64]) -> (Vec<i64>, Vec<i64>) {
        let place =
            |label: i64| usize::try_from(label).ok().and_then(|l| self.places.get(l).copied().flatten());
        let rows = labels.iter().enumerate();
        rows.filter_map(|(row, &label)| place(label).map(|place| (row as i64, place))).unzip()
    }

    /// The logits that compete.
    pub(super) fn select(&self, logits: &Tensor) -> Result<Tensor, tch::TchError> {
        match &self.outputs {
            Some(outputs) => {
                logits.f_index_select(1, &send(&Tensor::f_from_slice(outputs)?, logits.device())?)
            }
            None => logits.f_narrow(1, 0, self.names.len() as i64),
        }
    }
}

/// What logits `[batch, classes]` say about labels `[batch]`: the predicted class, how many classes rank above
/// the right one (of equal logits the lower class ranks higher; one that is no number beats nothing), and the
/// cross-entropy in nats. All stay on the device.
pub(super) fn judge(logits: &Tensor, labels: &Tensor) -> Result<[Tensor; 3], tch::TchError> {
    let n = logits.size()[1];
    let right = labels.f_unsqueeze(1)?;
    let of_right = logits.f_gather(1, &right, false)?;
    let class = Tensor::f_arange(n, (Kind::Int64, logits.device()))?.f_unsqueeze(0)?;
    let earlier = right.f_lt_tensor(&class)?;
    let beats = of_right
        .f_gt_tensor(logits)?
        .f_logical_or(&of_right.f_eq_tensor(logits)?.f_logical_and(&earlier)?)?;
    let beaten = beats.f_sum_dim_intlist(1i64, false, Kind::Int64)?;
    let loss = logits.f_cross_entropy_loss::<Tensor>(labels, None, tch::Reduction::None, -100, 0.0)?;
    Ok([logits.f_argmax(1, false)?, (beaten - (n - 1)).f_neg()?, loss])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objective::score::{ClassScores, Guesses};
    use serde_json::Value;

    fn names(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    fn guesses(map: &ClassMap, logits: &Tensor, labels: &[i64]) -> Guesses {
        let (rows, places) = map.scored(labels);
        let kept = map.select(logits).unwrap().index_select(0, &Tensor::from_slice(&rows));
        let [predicted, ranks, losses] = judge(&kept, &Tensor::from_slice(&places)).unwrap();
        Guesses {
            images: rows.iter().map(|row| *row as u64).collect(),
            left_out: (labels.len() - rows.len()) as u64,
            labels: places,
            predicted: Vec::try_from(predicted).unwrap(),
            ranks: Vec::try_from(ranks).unwrap(),
            losses: Vec::try_from(losses).unwrap(),
        }
    }

    #[test]
    fn classes_are_matched_by_name_and_the_others_are_told() {
        let map = ClassMap::matched(&names("a b c d e"), &names("d x b")).unwrap();
        assert_eq!((map.names(), map.unmatched()), (&names("d b")[..], &names("x")[..]));
        assert_eq!(map.scored(&[0, 1, 2, 2]), (vec![0, 2, 3], vec![0, 1, 1]));
        let logits = Tensor::from_slice(&[0f32, 1., 2., 3., 4.]).view([1, 5]);
        let selected = Vec::<f32>::try_from(map.select(&logits).unwrap().flatten(0, -1)).unwrap();
        assert_eq!(selected, [3.0, 1.0]);
        let none = ClassMap::matched(&names("a b"), &names("x y")).unwrap_err();
        assert!(none.to_string().contains("x, …"), "{none}");
    }

    #[test]
    fn the_first_classes_are_from_one_to_all() {
        for (m, works) in [(0, false), (1, true), (3, true), (4, false)] {
            assert_eq!(ClassMap::first(&names("a b c"), m).is_ok(), works, "{m}");
        }
    }

    #[test]
    fn classification_scores_equal_numpy_s() {
        let vectors: Value = serde_json::from_str(include_str!("../../tests/vectors/eval.json")).unwrap();
        let set = &vectors["classes"];
        let numbers =
            |v: &Value| v.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect::<Vec<_>>();
        let logits: Vec<f32> = numbers(&set["logits"]).iter().map(|&v| v as f32).collect();
        let labels: Vec<i64> = numbers(&set["labels"]).iter().map(|&v| v as i64).collect();
        let n = set["n_classes"].as_i64().unwrap();
        let logits = Tensor::from_slice(&logits).view([-1, n]);
        let all: Vec<String> = (0..n).map(|c| format!("class {c}")).collect();
        for expected in set["scores"].as_array().unwrap() {
            let m = expected["classes"].as_u64().unwrap() as usize;
            let map = ClassMap::first(&all, m).unwrap();
            let scores = ClassScores::new(map.names().to_vec(), &guesses(&map, &logits, &labels));
            let of = |name: &str| expected[name].as_f64().unwrap();
            assert_eq!(scores.left_out as f64, of("left_out"));
            assert!((scores.accuracy() - of("accuracy")).abs() < 1e-9);
            assert!((scores.top5_accuracy().unwrap() - of("top5_accuracy")).abs() < 1e-9);
            // Single against double precision.
            assert!((scores.cross_entropy - of("loss")).abs() < 1e-6);
            for (label, row) in expected["confusion"].as_array().unwrap().iter().enumerate() {
                for (predicted, count) in row.as_array().unwrap().iter().enumerate() {
                    let found = scores.confusion.get(&(label, predicted)).copied().unwrap_or(0);
                    assert_eq!(found, count.as_u64().unwrap(), "{label} as {predicted}");
                }
            }
        }
    }

    #[test]
    fn equal_logits_and_no_numbers_are_no_success() {
        let logits = Tensor::from_slice(&[1f32, 1., 1., f32::NAN, f32::NAN, f32::NAN]).view([2, 3]);
        let [_, ranks, _] = judge(&logits, &Tensor::from_slice(&[2i64, 0])).unwrap();
        assert_eq!(Vec::<i64>::try_from(ranks).unwrap(), [2, 2]);
    }
}
