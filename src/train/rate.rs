//! The learning rate of every single update: what early stopping says of the epoch, times the warm-up, or a
//! curve over all updates of the run. A function of the update's number, so that it needs no history.

use super::{AnnealSettings, Scheduler};
use std::f64::consts::PI;

/// Learning rate of update `step` (from 0) of an epoch whose rate is `epoch_lr`, in a run that starts at
/// `start_lr` and has `steps_per_epoch` updates an epoch and so many epochs.
///
/// `cosine` and `one_cycle` equal PyTorch's `CosineAnnealingLR` and `OneCycleLR` stepped once an update over all
/// epochs, with PyTorch's defaults (`pct_start` 0.3, `div_factor` 25, `final_div_factor` 1e4).
/// Unlike `OneCycleLR` by default, momentum stays as it is.
pub fn rate(
    settings: &AnnealSettings,
    start_lr: f64,
    epoch_lr: f64,
    step: u64,
    (steps_per_epoch, epochs): (u64, u32),
) -> f64 {
    let total = u64::from(epochs) * steps_per_epoch;
    let lr = match settings.scheduler {
        Scheduler::Cosine => cosine(start_lr, settings.min_lr, step as f64 / total.max(1) as f64),
        Scheduler::OneCycle => return one_cycle(start_lr, step, total),
        Scheduler::Adaptive | Scheduler::Phases | Scheduler::Manual | Scheduler::None => epoch_lr,
    };
    let warm = (settings.lr_warmup * steps_per_epoch as f64).ceil();
    if warm >= 1.0 { lr * ((step as f64 + 1.0) / warm).min(1.0) } else { lr }
}

/// From `start` at 0 to `end` at 1.
fn cosine(start: f64, end: f64, at: f64) -> f64 {
    end + (start - end) * (1.0 + (PI * at.min(1.0)).cos()) / 2.0
}

fn one_cycle(highest: f64, step: u64, total: u64) -> f64 {
    let (first, last) = (highest / 25.0, highest / 25.0 / 1e4);
    let (peak, end) = (0.3 * total as f64 - 1.0, total as f64 - 1.0);
    let step = step as f64;
    if step <= peak {
        cosine(first, highest, step / peak)
    } else {
        cosine(highest, last, (step - peak) / (end - peak))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    /// What PyTorch's schedulers give (`tools/vectors.py`).
    const VECTORS: &str = include_str!("../../tests/vectors/schedules.json");

    #[test]
    fn curves_equal_pytorch() {
        let vectors: Vec<Value> = serde_json::from_str(VECTORS).unwrap();
        assert_eq!(vectors.len(), 2);
        for vector in vectors {
            let scheduler = serde_json::from_value(vector["scheduler"].clone()).unwrap();
            let settings =
                AnnealSettings { scheduler, min_lr: 1e-4, max_iter: 4, ..AnnealSettings::default() };
            for (step, expected) in vector["rates"].as_array().unwrap().iter().enumerate() {
                let found = rate(&settings, 0.1, 0.1, step as u64, (10, 4));
                let expected = expected.as_f64().unwrap();
                assert!(
                    (found - expected).abs() < 1e-12,
                    "{scheduler:?} {step}: {found}, expected {expected}"
                );
            }
        }
    }

    #[test]
    fn the_warm_up_rises_evenly_and_then_leaves_the_rate_alone() {
        let settings =
            AnnealSettings { lr_warmup: 0.5, scheduler: Scheduler::None, ..AnnealSettings::default() };
        let rates: Vec<f64> = (0..7).map(|step| rate(&settings, 0.1, 0.1, step, (8, 100))).collect();
        let expected = [0.025, 0.05, 0.075, 0.1, 0.1, 0.1, 0.1];
        assert!(rates.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-15), "{rates:?}");
    }
}
