//! Lottery tickets: train, prune the smallest weights, return the others to their initial values, train again
//! (Frankle and Carbin, "The lottery ticket hypothesis", 2019; spec/trainer 3.8).

use super::super::{Anneal, TrainError};
use crate::model::Params;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// Settings, named as the reference's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LotterySettings {
    /// How often is pruned.
    pub rounds: u32,
    /// Epochs of training before each pruning; fewer if early stopping ends them.
    pub round_length: u32,
    /// How much of the weights is gone at the end, in percent; each round removes the same share of what is left.
    pub percent_to_prune: f64,
    /// The survivors are drawn anew, as those of a fresh network, instead of returning to their initial values.
    pub reinit: bool,
    /// Compare weights over all layers instead of within each.
    pub global_pruning: bool,
    /// Parameters whose names contain one of these are left alone.
    pub exclude: Vec<String>,
}

impl Default for LotterySettings {
    fn default() -> Self {
        Self {
            rounds: 1,
            round_length: 100,
            percent_to_prune: 80.0,
            reinit: false,
            global_pruning: false,
            exclude: vec!["readout".to_owned(), "classifier".to_owned()],
        }
    }
}

impl LotterySettings {
    pub(super) fn check(&self, max_iter: u32) -> Result<(), String> {
        if !(self.percent_to_prune > 0.0 && self.percent_to_prune < 100.0) {
            return Err("modules.lottery_ticket.percent_to_prune must be between 0 and 100".into());
        }
        let needed = u64::from(self.rounds) * u64::from(self.round_length);
        if self.rounds == 0 || self.round_length == 0 || u64::from(max_iter) <= needed {
            return Err(format!(
                "modules.lottery_ticket: after {} rounds of {} epochs the last ticket needs epochs of its own: raise schedule.max_iter above {needed}",
                self.rounds, self.round_length
            ));
        }
        Ok(())
    }

    /// Whether the next epoch begins with a pruning: the ticket has had its epochs, or early stopping has ended them.
    pub(super) fn is_due(&self, anneal: &Anneal) -> bool {
        let over = anneal.epoch - anneal.begun >= self.round_length || anneal.is_out_of_patience();
        anneal.restarts < self.rounds && anneal.epoch < anneal.settings.max_iter && over
    }

    /// Epochs that the ticket in training has at most, of the `left` that the run has.
    pub(super) fn epochs(&self, anneal: &Anneal, left: u32) -> u32 {
        if anneal.restarts < self.rounds { self.round_length.min(left) } else { left }
    }

    /// Share of the living weights that a round removes.
    fn share(&self) -> f64 {
        1.0 - (1.0 - self.percent_to_prune / 100.0).powf(1.0 / f64::from(self.rounds))
    }
}

/// The masks, 1 for a living weight and 0 for a pruned one, and the initial values.
#[derive(Debug)]
pub(super) struct Lottery {
    settings: LotterySettings,
    tickets: Vec<Ticket>,
}

#[derive(Debug)]
struct Ticket {
    name: String,
    weight: Tensor,
    initial: Tensor,
    mask: Tensor,
}

impl Lottery {
    /// Over the weights among `params`, whose values now are the initial ones.
    pub(super) fn new(settings: &LotterySettings, params: &[(String, Tensor)]) -> Result<Self, TrainError> {
        let excluded = |name: &str| settings.exclude.iter().any(|fragment| name.contains(fragment));
        let wanted = params.iter().filter(|(name, _)| name.contains("weight") && !excluded(name));
        let ticket = |(name, weight): &(String, Tensor)| Ticket {
            name: name.clone(),
            weight: weight.shallow_clone(),
            initial: weight.detach().copy(),
            mask: weight.detach().ones_like(),
        };
        let tickets: Vec<Ticket> = wanted.map(ticket).collect();
        if tickets.is_empty() {
            let what = "modules.lottery_ticket: exclude leaves no weights to prune";
            return Err(TrainError::Settings(what.into()));
        }
        Ok(Self { settings: settings.clone(), tickets })
    }

    /// Removes the smallest of the living weights; the others return to their initial values, or get those of `fresh`.
    pub(super) fn prune(&mut self, fresh: Option<&Params>) {
        let share = self.settings.share();
        let global = self.settings.global_pruning.then(|| {
            let living: Vec<Tensor> = self.tickets.iter().map(Ticket::living).collect();
            threshold(&Tensor::cat(&living, 0), share)
        });
        for ticket in &mut self.tickets {
            let bound = global.unwrap_or_else(|| threshold(&ticket.living(), share));
            let keep = ticket.weight.detach().abs().gt(bound).to_kind(ticket.mask.kind());
            ticket.mask = &ticket.mask * keep;
            let drawn = fresh.and_then(|params| params.iter().find(|p| p.name == ticket.name));
            let values = drawn.map_or(&ticket.initial, |param| &param.tensor);
            tch::no_grad(|| ticket.weight.copy_(&(values.to_device(ticket.mask.device()) * &ticket.mask)));
        }
    }

    /// Zeroes the gradients of pruned weights.
    pub(super) fn mask_gradients(&self) {
        for ticket in &self.tickets {
            let mut grad = ticket.weight.grad();
            if grad.defined() {
                let _ = tch::no_grad(|| grad.g_mul_(&ticket.mask));
            }
        }
    }

    /// Keeps pruned weights at zero, after an update or when other weights were put in place.
    pub(super) fn mask_weights(&self) {
        for ticket in &self.tickets {
            let _ = tch::no_grad(|| ticket.weight.shallow_clone().g_mul_(&ticket.mask));
        }
    }

    /// Share of the weights that lives.
    pub(super) fn alive(&self) -> f64 {
        let count = |t: &Ticket| (t.mask.sum(Kind::Double).double_value(&[]), t.mask.numel() as f64);
        let (alive, all) = self.tickets.iter().map(count).fold((0.0, 0.0), |(a, b), (c, d)| (a + c, b + d));
        alive / all
    }

    pub(super) fn state(&self) -> Vec<(String, Tensor)> {
        let of = |t: &Ticket| {
            let name = |what: &str| format!("modules.lottery_ticket.{}.{what}", t.name);
            [(name("initial"), t.initial.shallow_clone()), (name("mask"), t.mask.shallow_clone())]
        };
        self.tickets.iter().flat_map(of).collect()
    }

    pub(super) fn load(&mut self, state: &[(String, Tensor)], file: &str) -> Result<(), TrainError> {
        for ticket in &mut self.tickets {
            let find = |what: &str| {
                let name = format!("modules.lottery_ticket.{}.{what}", ticket.name);
                let found = state.iter().find(|(n, t)| *n == name && t.size() == ticket.weight.size());
                found
                    .map(|(_, t)| t.to_device(ticket.weight.device()).copy())
                    .ok_or_else(|| TrainError::Checkpoint(format!("{file}: no {name} of the right shape")))
            };
            (ticket.initial, ticket.mask) = (find("initial")?, find("mask")?);
        }
        Ok(())
    }
}

impl Ticket {
    /// Magnitudes of the living weights.
    fn living(&self) -> Tensor {
        self.weight.detach().abs().masked_select(&self.mask.gt(0.5))
    }
}

/// The magnitude below which the smallest `share` of `magnitudes` lies; below all for none.
fn threshold(magnitudes: &Tensor, share: f64) -> f64 {
    let n = (magnitudes.numel() as f64 * share).round() as i64;
    if n == 0 { -1.0 } else { magnitudes.kthvalue(n, 0, false).0.double_value(&[]) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::AnnealSettings;

    fn tensor(values: &[f32]) -> Tensor {
        Tensor::from_slice(values).set_requires_grad(true)
    }

    fn set(weight: &Tensor, values: &[f32]) {
        tch::no_grad(|| weight.shallow_clone().copy_(&Tensor::from_slice(values)));
    }

    fn values(weight: &Tensor) -> Vec<f32> {
        Vec::try_from(weight.detach()).unwrap()
    }

    #[test]
    fn the_smallest_go_and_the_others_return_to_where_they_started() {
        for (global_pruning, b_left) in [(false, [0.0, 0.0, 7.0, 8.0]), (true, [5.0, 6.0, 7.0, 8.0])] {
            let settings =
                LotterySettings { percent_to_prune: 50.0, global_pruning, ..LotterySettings::default() };
            let (a, b) = (tensor(&[1., 2., 3., 4.]), tensor(&[5., 6., 7., 8.]));
            let names = ["a.weight", "b.weight", "classifier.weight"];
            let params: Vec<(String, Tensor)> =
                names.iter().zip([&a, &b, &a]).map(|(n, t)| ((*n).to_owned(), t.shallow_clone())).collect();
            let mut lottery = Lottery::new(&settings, &params).unwrap();
            set(&a, &[0.1, -0.4, 0.2, 0.3]);
            set(&b, &[1.0, -2.0, 3.0, 4.0]);
            lottery.prune(None);
            let a_left = if global_pruning { [0.0; 4] } else { [0.0, 2.0, 0.0, 4.0] };
            assert_eq!((values(&a), values(&b)), (a_left.to_vec(), b_left.to_vec()));
            assert_eq!(lottery.alive(), 0.5);
            // Gradients and updates leave what is pruned alone, also after a restart.
            let mut again = Lottery::new(&settings, &params).unwrap();
            again.load(&lottery.state(), "f").unwrap();
            (&a * 3.0).sum(Kind::Float).backward();
            again.mask_gradients();
            assert_eq!(values(&a.grad())[0], 0.0);
            set(&b, &[9.0; 4]);
            again.mask_weights();
            assert_eq!(values(&b)[0] == 0.0, b_left[0] == 0.0);
        }
    }

    #[test]
    fn survivors_get_fresh_values_where_there_are_some() {
        let weight = tensor(&[1., 2., 3., 4.]);
        let params = [("a.weight".to_owned(), weight.shallow_clone())];
        let settings = LotterySettings { percent_to_prune: 50.0, reinit: true, ..LotterySettings::default() };
        let mut lottery = Lottery::new(&settings, &params).unwrap();
        let mut fresh = Params::new(tch::Device::Cpu, Kind::Float);
        for (name, drawn) in [("b.weight", [0f32; 4]), ("a.weight", [10.0, 20.0, 30.0, 40.0])] {
            let _ = fresh.parameter(name.to_owned(), &Tensor::from_slice(&drawn));
        }
        lottery.prune(Some(&fresh));
        assert_eq!(values(&weight), [0.0, 0.0, 30.0, 40.0]);
        assert!(weight.requires_grad() && weight.is_leaf());
    }

    #[test]
    fn rounds_remove_equal_shares_and_come_when_they_are_due() {
        let settings = LotterySettings {
            rounds: 3,
            round_length: 5,
            percent_to_prune: 87.5,
            ..LotterySettings::default()
        };
        assert!((settings.share() - 0.5).abs() < 1e-12);
        // The epochs after which is pruned, the last one, and the epochs that each ticket may have; scores rise, or are
        // as they were after the first epoch of a ticket.
        let rounds = |rises: bool, max_iter: u32| {
            let anneal =
                AnnealSettings { patience: 1, lr_decay_steps: 1, max_iter, ..AnnealSettings::default() };
            let mut anneal = Anneal::start(&anneal, 0.1, &[0.0]);
            let (mut due, mut epochs) = (Vec::new(), Vec::new());
            loop {
                if settings.is_due(&anneal) {
                    due.push(anneal.epoch);
                    anneal.begin_again(0.1);
                }
                if anneal.is_done() {
                    return (due, anneal.epoch, epochs);
                }
                if anneal.epoch == anneal.begun {
                    epochs.push(settings.epochs(&anneal, max_iter - anneal.begun));
                }
                anneal.next(&[if rises { f64::from(anneal.epoch) } else { 1.0 }]);
            }
        };
        assert_eq!(rounds(true, 40), (vec![5, 10, 15], 40, vec![5, 5, 5, 25]));
        assert_eq!(rounds(false, 40), (vec![3, 6, 9], 12, vec![5, 5, 5, 31]));
        assert_eq!(rounds(true, 7), (vec![5], 7, vec![5, 2]), "a run that was made shorter");
        // A network that is broken is not pruned.
        let mut broken = Anneal::start(&AnnealSettings::default(), 0.1, &[0.0]);
        broken.next(&[f64::NAN]);
        assert!(broken.is_done() && !settings.is_due(&broken));
        assert!(settings.check(15).unwrap_err().contains("max_iter") && settings.check(16).is_ok());
    }
}
