//! Where an axis begins and ends, and its round numbers (Heckbert, "Nice numbers for graph labels", 1990).

/// A number on an axis.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tick {
    pub(super) at: f64,
    pub(super) label: String,
}

/// Whether a value can be drawn. Sums of larger ones are infinite.
pub(super) fn drawable(value: f64) -> bool {
    value.abs() <= 1e300
}

/// The ends of an axis for `values`, of `whole` numbers or any; the second is always above the first.
pub(super) fn limits(values: impl Iterator<Item = f64>, whole: bool) -> [f64; 2] {
    let shown = values.filter(|v| drawable(*v));
    let [lo, hi] = shown.fold([f64::INFINITY, f64::NEG_INFINITY], |[lo, hi], v| [lo.min(v), hi.max(v)]);
    if lo > hi {
        return [0.0, 1.0];
    }
    // Closer than this, numbers between them could not be told apart.
    let least = lo.abs().max(hi.abs()) * 1e-9;
    if hi - lo > least.max(1e-300) {
        return [lo, hi];
    }
    // A count that is alone has no other beside it, unless it is so large that ones cannot be told apart.
    let room = if whole {
        0.5f64.max(lo.abs() * 1e-6)
    } else if lo == 0.0 {
        1.0
    } else {
        lo.abs() * 0.1
    };
    [lo - room, hi + room]
}

/// The smallest of 1, 2 and 5 times a power of ten that is no less than `step`.
fn nice(step: f64) -> f64 {
    let power = 10f64.powi(step.log10().floor() as i32);
    // A hair below, so that 0.2 / 0.1 is two.
    let factor = [1.0, 2.0, 5.0, 10.0].into_iter().find(|f| f * power >= step * (1.0 - 1e-9));
    factor.unwrap_or(10.0) * power
}

/// Round numbers from `lo` to `hi`, `whole` ones or any, at most `most` + 1.
pub(super) fn ticks([lo, hi]: [f64; 2], most: usize, whole: bool) -> Vec<Tick> {
    let step = nice((hi - lo) / most.max(1) as f64).max(if whole { 1.0 } else { 0.0 });
    let (first, last) = ((lo / step - 1e-9).ceil(), (hi / step + 1e-9).floor());
    if !step.is_normal() || !first.is_finite() || !last.is_finite() {
        return Vec::new();
    }
    let count = ((last - first) as usize).min(most.max(1)) + 1;
    let largest = lo.abs().max(hi.abs());
    // An axis may be shorter than a step of one.
    let slack = step.min(hi - lo) * 1e-6;
    let inside = |at: &f64| (lo - slack..=hi + slack).contains(at);
    let values = (0..count).map(|i| (first + i as f64) * step).filter(inside);
    values.map(|at| Tick { at, label: label(at, step, largest) }).collect()
}

/// The number with as many digits as steps need; very large and small ones with a power of ten.
fn label(value: f64, step: f64, largest: f64) -> String {
    let exponent = |v: f64| v.log10().floor() as i32;
    let text = if value.abs() < step * 1e-6 {
        "0".to_owned()
    } else if largest >= 1e6 || step < 1e-4 {
        let digits = (exponent(value.abs() * (1.0 + 1e-9)) - exponent(step * (1.0 + 1e-9))).clamp(0, 15);
        format!("{value:.*e}", digits as usize)
    } else {
        let decimals = (-exponent(step * (1.0 + 1e-9))).max(0);
        format!("{value:.*}", decimals as usize)
    };
    text.replace('-', "−")
}

/// The end of an axis that begins at 0 and has `value` on it: a round number no less than it.
pub fn round_above(value: f64) -> f64 {
    let [_, hi] = limits([0.0, value.max(0.0)].into_iter(), false);
    let step = nice(hi / 5.0);
    step * (hi / step - 1e-9).ceil()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn labels(lo: f64, hi: f64) -> Vec<String> {
        ticks([lo, hi], 5, false).into_iter().map(|t| t.label).collect()
    }

    #[test]
    fn ticks_are_round_numbers() {
        assert_eq!(labels(0.0, 100.0), ["0", "20", "40", "60", "80", "100"]);
        assert_eq!(labels(0.0, 0.3), ["0", "0.1", "0.2", "0.3"]);
        assert_eq!(labels(-1.0, 1.0), ["−1.0", "−0.5", "0", "0.5", "1.0"]);
        assert_eq!(labels(0.0, 2e7), ["0", "5e6", "1.0e7", "1.5e7", "2.0e7"]);
        assert_eq!(labels(0.0, 5e-5), ["0", "1e−5", "2e−5", "3e−5", "4e−5", "5e−5"]);
        assert_eq!([55.3, 0.0, 100.0, 7.0].map(round_above), [60.0, 1.0, 100.0, 8.0]);
        assert_eq!(limits([f64::NAN, 1e308].into_iter(), false), [0.0, 1.0]);
        assert_eq!(limits([50.0].into_iter(), false), [45.0, 55.0]);
    }

    #[test]
    fn counts_have_whole_ticks() {
        let labels = |values: &[f64]| -> Vec<String> {
            let ends = limits(values.iter().copied(), true);
            ticks(ends, 8, true).into_iter().map(|t| t.label).collect()
        };
        assert_eq!(labels(&[1.0, 2.0]), ["1", "2"]);
        assert_eq!(labels(&[0.0, 3.0]), ["0", "1", "2", "3"]);
        assert_eq!(labels(&[1.0, 40.0]), ["5", "10", "15", "20", "25", "30", "35", "40"]);
        // One epoch, the first one, a late one, and a large count.
        for (one, label) in [(0.0, "0"), (1.0, "1"), (120.0, "120")] {
            assert_eq!(labels(&[one]), [label]);
        }
        assert!(!labels(&[3e9]).is_empty());
        // Means of counts lie between them.
        assert_eq!(labels(&[1.25, 1.75]), [""; 0]);
    }

    proptest! {
        #[test]
        fn ticks_are_few_even_and_within_the_axis(
            lo in prop_oneof![-1e12..1e12f64, -1.0..1.0f64, any::<f64>()],
            span in prop_oneof![0.0..1e12f64, 0.0..1e-6f64, any::<f64>()],
            most in 1usize..12,
            whole in any::<bool>(),
        ) {
            let [lo, hi] = limits([lo, lo + span.abs()].into_iter(), whole);
            prop_assert!(lo < hi);
            let found = ticks([lo, hi], most, whole);
            prop_assert!(found.len() <= most + 1);
            let slack = (hi - lo) * 1e-5;
            prop_assert!(found.iter().all(|t| t.at >= lo - slack && t.at <= hi + slack));
            prop_assert!(!whole || found.iter().all(|t| t.at.fract() == 0.0), "{found:?}");
            if most >= 5 && hi - lo > if whole { 2.0 } else { 1e-290 } {
                prop_assert!(found.len() >= 2, "{lo} to {hi}: {found:?}");
            }
            for pair in found.windows(2) {
                prop_assert!(pair[0].at < pair[1].at);
                prop_assert!(pair[0].label != pair[1].label, "{found:?}");
            }
        }
    }
}
