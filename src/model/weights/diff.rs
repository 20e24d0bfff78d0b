//! How two sets of tensors differ, in the terms of PyTorch's `load_state_dict`.

use super::prefix::fitted;
use super::{ModelError, dtype};
use std::collections::{BTreeMap, BTreeSet};
use tch::{Kind, Tensor};

/// Type and shape of a tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// Element type, as [`dtype`] names it.
    pub dtype: &'static str,
    /// Extent of each axis.
    pub shape: Vec<i64>,
}

impl Described {
    /// Of a tensor.
    pub fn of(tensor: &Tensor) -> Self {
        Self { dtype: dtype(tensor.kind()), shape: tensor.size() }
    }
}

/// How a name fares.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Verdict {
    /// The other file does not have it.
    Missing,
    /// Only the other file has it.
    Unexpected,
    /// The shapes differ.
    Mismatched,
    /// Values differ by so much at most; NaN where one of two is no number. 0 if only the types differ.
    Different(f64),
    /// Type, shape and all values are the same, and what is no number is so in both.
    Equal,
}

/// A name of either set.
#[derive(Debug)]
pub struct Difference {
    /// The name in the first set, or the one that it would have there.
    pub name: String,
    /// The name in the other set.
    pub their_name: Option<String>,
    /// What the first set has.
    pub ours: Option<Described>,
    /// What the other set has.
    pub theirs: Option<Described>,
    /// How they compare.
    pub verdict: Verdict,
}

/// `theirs` as it would be loaded into a network that has `ours`: names without prefixes that only they have. With a
/// difference for each name of either, in name order.
pub fn differences(
    ours: &[(String, Tensor)],
    theirs: &[(String, Tensor)],
) -> Result<Vec<Difference>, ModelError> {
    let known: BTreeSet<&str> = ours.iter().map(|(name, _)| name.as_str()).collect();
    let names: Vec<&str> = theirs.iter().map(|(name, _)| name.as_str()).collect();
    let names = fitted(&names, &known, &|names| names.to_vec());
    let mut pairs: BTreeMap<&str, Pair<'_>> = BTreeMap::new();
    for (name, tensor) in ours {
        pairs.entry(name).or_default().0 = Some(tensor);
    }
    for (name, (their_name, tensor)) in names.iter().zip(theirs) {
        pairs.entry(name).or_default().1 = Some((their_name, tensor));
    }
    let difference = |(name, (ours, theirs)): (&str, Pair<'_>)| {
        let their_name = theirs.map(|(name, _)| name.clone());
        let theirs = theirs.map(|(_, tensor)| tensor);
        let verdict = match (ours, theirs) {
            (Some(a), Some(b)) => compared(a, b)?,
            (Some(_), None) => Verdict::Missing,
            _ => Verdict::Unexpected,
        };
        let [ours, theirs] = [ours, theirs].map(|tensor| tensor.map(Described::of));
        Ok(Difference { name: name.to_owned(), their_name, ours, theirs, verdict })
    };
    pairs.into_iter().map(difference).collect()
}

/// What both have under one name.
type Pair<'a> = (Option<&'a Tensor>, Option<(&'a String, &'a Tensor)>);

fn compared(a: &Tensor, b: &Tensor) -> Result<Verdict, ModelError> {
    if a.size() != b.size() {
        return Ok(Verdict::Mismatched);
    }
    // Whole numbers beyond 2^53 may be told apart here and not by their difference.
    let both_nan = a.f_isnan()?.f_logical_and(&b.f_isnan()?)?;
    let same = a.f_eq_tensor(b)?.f_logical_or(&both_nan)?;
    if same.f_all()?.f_int64_value(&[])? != 0 {
        return Ok(if a.kind() == b.kind() { Verdict::Equal } else { Verdict::Different(0.0) });
    }
    let apart = a.f_to_kind(Kind::Double)?.f_sub(&b.f_to_kind(Kind::Double)?)?.f_abs()?;
    Ok(Verdict::Different(apart.f_masked_fill(&same, 0.0)?.f_max()?.f_double_value(&[])?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(tensors: &[(&str, Tensor)]) -> Vec<(String, Tensor)> {
        tensors.iter().map(|(name, t)| ((*name).to_owned(), t.shallow_clone())).collect()
    }

    #[test]
    fn every_verdict_is_given_where_it_is_due() {
        let nan = f32::NAN;
        let f = |values: &[f32]| Tensor::from_slice(values);
        let ours = named(&[
            ("equal", f(&[1.0, nan, f32::INFINITY])),
            ("far", f(&[1.0, -2.0, f32::INFINITY])),
            ("half", f(&[1.0, 2.0])),
            ("missing", f(&[1.0])),
            ("nan", f(&[1.0, nan])),
            ("none", f(&[])),
            ("shape", f(&[1.0, 2.0])),
            ("whole", Tensor::from_slice(&[i64::MAX, 3])),
        ]);
        let theirs = named(&[
            ("module.equal", f(&[1.0, nan, f32::INFINITY])),
            ("module.far", f(&[1.5, 2.0, f32::INFINITY])),
            ("module.half", f(&[1.0, 2.0]).to_kind(Kind::Half)),
            ("module.nan", f(&[1.0, 2.0])),
            ("module.none", f(&[])),
            ("module.shape", f(&[1.0, 2.0]).view([2, 1])),
            ("module.unexpected", f(&[1.0])),
            ("module.whole", Tensor::from_slice(&[i64::MAX - 1, 3])),
        ]);
        let found = differences(&ours, &theirs).unwrap();
        let verdict = |name: &str| found.iter().find(|d| d.name == name).unwrap().verdict;
        assert_eq!(verdict("equal"), Verdict::Equal);
        assert_eq!(verdict("none"), Verdict::Equal);
        assert_eq!(verdict("far"), Verdict::Different(4.0));
        assert_eq!(verdict("half"), Verdict::Different(0.0));
        assert_eq!(verdict("missing"), Verdict::Missing);
        assert_eq!(verdict("unexpected"), Verdict::Unexpected);
        assert_eq!(verdict("shape"), Verdict::Mismatched);
        assert!(matches!(verdict("nan"), Verdict::Different(d) if d.is_nan()));
        assert!(matches!(verdict("whole"), Verdict::Different(_)), "one apart, beyond what f64 tells");
        assert_eq!(found.len(), 9);
        assert_eq!((found[0].their_name.as_deref(), &found[3].their_name), (Some("module.equal"), &None));
        assert_eq!(found[2].theirs.as_ref().unwrap().dtype, "f16");
    }
}
