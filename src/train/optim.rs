//! SGD, Adam and AdamW by PyTorch's arithmetic, with state that can be saved.
//!
//! A parameter that has had a gradient once and has none in a step counts as having zero: momentum
//! and weight decay still move it, as in the reference. One that never had any stays untouched.

use super::TrainError;
use crate::torch_ext::{AdamUpdate, SgdUpdate, update_adam, update_sgd, zero};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tch::{Kind, Tensor};

/// Which optimiser.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// Stochastic gradient descent with momentum.
    Sgd,
    /// Adam (Kingma and Ba 2015) with weight decay added to the gradient.
    Adam,
    /// Adam with weight decay apart from the gradient (Loshchilov and Hutter 2019).
    AdamW,
}

/// The optimiser's settings, named as PyTorch's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OptimizerSettings {
    /// `sgd`, `adam` or `adamw`.
    pub kind: OptimizerKind,
    /// Learning rate at the start.
    pub lr: f64,
    /// Of SGD; 0 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub momentum: Option<f64>,
    /// Of SGD with momentum: how much less of the gradient enters it; 0 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dampening: Option<f64>,
    /// Of SGD with momentum: look ahead (Nesterov 1983).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nesterov: Option<bool>,
    /// Of Adam; 0.9 and 0.999 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub betas: Option<(f64, f64)>,
    /// Of Adam; 1e-8 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eps: Option<f64>,
    /// Of Adam: divide by the largest second moment so far (Reddi, Kale and Kumar 2018).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amsgrad: Option<bool>,
    /// L2 penalty on every parameter; of AdamW, the share of it that goes in an update of rate 1.
    #[serde(default)]
    pub weight_decay: f64,
    /// Parameters with settings of their own: each belongs to the first group whose fragment its name
    /// contains, and the rest to none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<ParamGroup>,
}

/// Settings of the parameters whose names contain a fragment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ParamGroup {
    /// Part of a name, such as `v1_readout` or `log_w`.
    pub fragment: String,
    /// Learning rate at the start; it falls in proportion to the common one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lr: Option<f64>,
    /// Weight decay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight_decay: Option<f64>,
}

impl Default for OptimizerSettings {
    /// The paper's.
    fn default() -> Self {
        Self { momentum: Some(0.75), weight_decay: 5e-4, ..Self::new(OptimizerKind::Sgd, 0.1) }
    }
}

impl OptimizerSettings {
    /// Without momentum, decay and groups.
    pub const fn new(kind: OptimizerKind, lr: f64) -> Self {
        Self {
            kind,
            lr,
            momentum: None,
            dampening: None,
            nesterov: None,
            betas: None,
            eps: None,
            amsgrad: None,
            weight_decay: 0.0,
            groups: Vec::new(),
        }
    }

    /// Checks ranges, and that no setting of another optimiser is given.
    pub fn check(&self) -> Result<(), String> {
        let sgd = self.kind == OptimizerKind::Sgd;
        let given = [
            ("momentum", self.momentum.is_some(), sgd),
            ("dampening", self.dampening.is_some(), sgd && self.momentum.is_some()),
            ("nesterov", self.nesterov.is_some(), sgd && self.momentum.is_some()),
            ("betas", self.betas.is_some(), !sgd),
            ("eps", self.eps.is_some(), !sgd),
            ("amsgrad", self.amsgrad.is_some(), !sgd),
        ];
        if let Some((key, ..)) = given.iter().find(|(_, given, applies)| *given && !applies) {
            let kind = format!("{:?}", self.kind).to_lowercase();
            return Err(format!("optimizer.{key} does not apply to {kind} with the other settings"));
        }
        if self.nesterov == Some(true) && self.dampening.is_some_and(|d| d != 0.0) {
            return Err("optimizer.nesterov needs dampening = 0".into());
        }
        let (b1, b2) = self.betas.unwrap_or((0.9, 0.999));
        let [momentum, dampening] = [self.momentum, self.dampening].map(|v| v.unwrap_or(0.0));
        let fractions = [("momentum", momentum), ("dampening", dampening), ("betas", b1), ("betas", b2)];
        if let Some((key, value)) = fractions.iter().find(|(_, v)| !(0.0..1.0).contains(v)) {
            return Err(format!("optimizer.{key} = {value} is not within 0 and 1"));
        }
        let eps = self.eps.unwrap_or(1e-8);
        if !(eps > 0.0 && eps.is_finite()) {
            return Err(format!("optimizer.eps = {eps} is out of range"));
        }
        let common = (String::new(), self.lr, self.weight_decay);
        let of_group = |(i, g): (usize, &ParamGroup)| {
            let (lr, decay) = (g.lr.unwrap_or(self.lr), g.weight_decay.unwrap_or(self.weight_decay));
            (format!("groups[{i}]."), lr, decay)
        };
        for (place, lr, decay) in std::iter::once(common).chain(self.groups.iter().enumerate().map(of_group))
        {
            if !(lr > 0.0 && lr.is_finite() && (0.0..1e9).contains(&decay)) {
                return Err(format!("optimizer.{place}lr = {lr} or weight_decay = {decay} is out of range"));
            }
        }
        Ok(())
    }
}

/// An optimiser with its state.
#[derive(Debug)]
pub struct Optimizer {
    settings: OptimizerSettings,
    lr: f64,
    slots: Vec<Slot>,
    /// Whether one kernel makes the update, as fast as memory allows. On a CPU PyTorch's steps are made one by one and
    /// round as they do.
    fused: bool,
}

#[derive(Debug)]
struct Slot {
    name: String,
    param: Tensor,
    /// Learning rate of its group, as a multiple of the common one.
    lr_scale: f64,
    weight_decay: f64,
    /// Momentum, or Adam's moments; none before the first gradient.
    moments: Vec<Tensor>,
    /// Updates so far.
    steps: i64,
}

impl Optimizer {
    /// For named parameters. A group that none belongs to is an error.
    pub fn new(settings: &OptimizerSettings, params: Vec<(String, Tensor)>) -> Result<Self, TrainError> {
        let group = |name: &str| settings.groups.iter().position(|g| name.contains(&g.fragment));
        let groups: Vec<Option<usize>> = params.iter().map(|(name, _)| group(name)).collect();
        if let Some(idle) = (0..settings.groups.len()).find(|i| !groups.contains(&Some(*i))) {
            let fragment = &settings.groups[idle].fragment;
            let what = format!("optimizer.groups: no parameter is in the group of {fragment:?}");
            return Err(TrainError::Settings(what));
        }
        let slot = |((name, param), group): ((String, Tensor), Option<usize>)| {
            let group = group.map(|i| &settings.groups[i]);
            Slot {
                name,
                param,
                lr_scale: group.and_then(|g| g.lr).unwrap_or(settings.lr) / settings.lr,
                weight_decay: group.and_then(|g| g.weight_decay).unwrap_or(settings.weight_decay),
                moments: Vec::new(),
                steps: 0,
            }
        };
        let fused = params.iter().all(|(_, param)| param.device().is_cuda());
        let slots = params.into_iter().zip(groups).map(slot).collect();
        Ok(Self { settings: settings.clone(), lr: settings.lr, slots, fused })
    }

    /// The settings' learning rate.
    pub fn start_lr(&self) -> f64 {
        self.settings.lr
    }

    /// Sets the learning rate.
    pub fn set_lr(&mut self, lr: f64) {
        self.lr = lr;
    }

    /// Forgets the gradients. Those of parameters in use become zero, not undefined.
    pub fn zero_grad(&mut self) -> Result<(), TrainError> {
        zero(&self.grads()).map_err(TrainError::Refused)
    }

    /// The gradients of parameters in use, in the order of the parameters.
    pub(super) fn grads(&self) -> Vec<Tensor> {
        let grads = self.slots.iter().map(|slot| slot.param.grad()).filter(Tensor::defined);
        grads.map(|grad| grad.detach()).collect()
    }

    /// Forgets the moments, as if no update had been made.
    pub fn reset(&mut self) {
        for slot in &mut self.slots {
            (slot.steps, slot.moments) = (0, Vec::new());
        }
    }

    /// Whether [`Self::step`] can leave an update out by what only the device knows.
    pub(super) fn is_fused(&self) -> bool {
        self.fused
    }

    /// How many updates each parameter has had.
    pub(super) fn counts(&self) -> Vec<i64> {
        self.slots.iter().map(|slot| slot.steps).collect()
    }

    /// Takes back updates that the device left out.
    pub(super) fn set_counts(&mut self, counts: &[i64]) {
        self.slots.iter_mut().zip(counts).for_each(|(slot, count)| slot.steps = *count);
    }

    /// One update from the gradients that have added up since [`Self::zero_grad`]: parameters of equal settings at once,
    /// since each call costs a GPU as much as many parameters do.
    /// A fused one changes nothing if `unless`, a float `[]` on its device, is 1; it is counted all the same.
    pub fn step(&mut self, unless: Option<&Tensor>) -> Result<(), TrainError> {
        let mut alike: BTreeMap<(u64, u64, i64), Vec<&mut Slot>> = BTreeMap::new();
        for slot in &mut self.slots {
            if slot.param.grad().defined() {
                slot.steps += 1;
                // Readouts of other sessions have had other numbers of updates. What the number changes must be alike.
                let apart = match self.settings.kind {
                    OptimizerKind::Sgd => i64::from(slot.moments.is_empty()),
                    _ if self.fused => 0,
                    _ => slot.steps,
                };
                let key = (slot.lr_scale.to_bits(), slot.weight_decay.to_bits(), apart);
                alike.entry(key).or_default().push(slot);
            }
        }
        let common = Common { settings: &self.settings, lr: self.lr, fused: self.fused, unless };
        let update = |slots: &mut Vec<&mut Slot>| match common.settings.kind {
            OptimizerKind::Sgd => sgd(slots, &common),
            OptimizerKind::Adam | OptimizerKind::AdamW => adam(slots, &common),
        };
        tch::no_grad(|| alike.values_mut().try_for_each(update)).map_err(TrainError::Refused)
    }

    /// Everything that must survive a restart.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let mut state = Vec::new();
        // Decay and momentum move what has a gradient, also before its first update since the moments were forgotten.
        for slot in self.slots.iter().filter(|slot| slot.steps > 0 || slot.param.grad().defined()) {
            state.push((format!("optimizer.{}.step", slot.name), Tensor::from(slot.steps)));
            for (moment, name) in slot.moments.iter().zip(self.moment_names()) {
                state.push((format!("optimizer.{}.{name}", slot.name), moment.shallow_clone()));
            }
        }
        state
    }

    /// Takes a state back; entries not called `optimizer.*` are left alone.
    pub fn load(&mut self, state: &[(String, Tensor)], file: &str) -> Result<(), TrainError> {
        let names = self.moment_names();
        let find = |name: String| state.iter().find(|(n, _)| *n == name).map(|(_, value)| value);
        for slot in &mut self.slots {
            let Some(steps) = find(format!("optimizer.{}.step", slot.name)) else { continue };
            slot.steps = steps.int64_value(&[]);
            slot.moments = Vec::new();
            for name in names {
                let key = format!("optimizer.{}.{name}", slot.name);
                match find(key.clone()) {
                    Some(moment) if moment.size() == slot.param.size() => {
                        // Laid out as the parameter is: fused kernels go through memory.
                        let mut own = slot.param.detach().zeros_like();
                        own.copy_(moment);
                        slot.moments.push(own);
                    }
                    None if slot.steps == 0 => break,
                    _ => return Err(TrainError::Checkpoint(format!("{file}: no {key} of the right shape"))),
                }
            }
            // Gradients are zeros from the first use on, so a resumed parameter must have one.
            if slot.param.requires_grad() && !slot.param.grad().defined() {
                (&slot.param * 0.0).sum(Kind::Float).backward();
            }
        }
        Ok(())
    }

    fn moment_names(&self) -> &'static [&'static str] {
        let settings = &self.settings;
        match settings.kind {
            OptimizerKind::Sgd if settings.momentum.unwrap_or(0.0) == 0.0 => &[],
            OptimizerKind::Sgd => &["momentum"],
            _ if settings.amsgrad == Some(true) => &["exp_avg", "exp_avg_sq", "max_exp_avg_sq"],
            _ => &["exp_avg", "exp_avg_sq"],
        }
    }
}

/// What an update of all groups has in common.
struct Common<'a> {
    settings: &'a OptimizerSettings,
    lr: f64,
    fused: bool,
    unless: Option<&'a Tensor>,
}

/// Updates slots of one group.
fn sgd(slots: &mut [&mut Slot], common: &Common<'_>) -> Result<(), String> {
    let Common { settings, lr, fused, unless } = *common;
    let momentum = settings.momentum.unwrap_or(0.0);
    let first = moments(slots, usize::from(momentum > 0.0));
    let how = SgdUpdate {
        lr: lr * slots[0].lr_scale,
        weight_decay: slots[0].weight_decay,
        momentum,
        dampening: settings.dampening.unwrap_or(0.0),
        nesterov: settings.nesterov == Some(true),
        first,
        fused,
    };
    let momenta = if momentum > 0.0 { all(slots, |slot| &slot.moments[0]) } else { Vec::new() };
    update_sgd(&all(slots, |slot| &slot.param), &gradients(slots), &momenta, &how, unless)
}

fn adam(slots: &mut [&mut Slot], common: &Common<'_>) -> Result<(), String> {
    let Common { settings, lr, fused, unless } = *common;
    let amsgrad = settings.amsgrad == Some(true);
    moments(slots, if amsgrad { 3 } else { 2 });
    let (beta1, beta2) = settings.betas.unwrap_or((0.9, 0.999));
    let how = AdamUpdate {
        lr: lr * slots[0].lr_scale,
        weight_decay: slots[0].weight_decay,
        beta1,
        beta2,
        eps: settings.eps.unwrap_or(1e-8),
        decoupled: settings.kind == OptimizerKind::AdamW,
        amsgrad,
        fused,
    };
    let [means, squares] = [0, 1].map(|i| all(slots, |slot| &slot.moments[i]));
    let largest = if amsgrad { all(slots, |slot| &slot.moments[2]) } else { Vec::new() };
    let params = all(slots, |slot| &slot.param);
    let steps: Vec<i64> = slots.iter().map(|slot| slot.steps).collect();
    update_adam(&params, &gradients(slots), [&means, &squares, &largest], &steps, &how, unless)
}

/// Makes the `n` moments of slots that have none yet, and says whether there were such.
fn moments(slots: &mut [&mut Slot], n: usize) -> bool {
    let mut made = false;
    for slot in slots {
        made |= slot.moments.len() < n;
        slot.moments.resize_with(n, || slot.param.zeros_like());
    }
    made
}

fn all<'a>(slots: &'a [&mut Slot], of: impl Fn(&'a Slot) -> &'a Tensor) -> Vec<Tensor> {
    slots.iter().map(|slot| of(slot).shallow_clone()).collect()
}

fn gradients(slots: &[&mut Slot]) -> Vec<Tensor> {
    slots.iter().map(|slot| slot.param.grad()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    /// What PyTorch's optimisers make of the same gradients (`tools/vectors.py`).
    const VECTORS: &str = include_str!("../../tests/vectors/optimizers.json");

    fn vectors() -> Vec<(OptimizerSettings, Value)> {
        let vectors: Vec<Value> = serde_json::from_str(VECTORS).unwrap();
        let read = |v: &Value| (serde_json::from_value(v["settings"].clone()).unwrap(), v["after"].clone());
        vectors.iter().map(read).collect()
    }

    fn params() -> [Tensor; 2] {
        let a = Tensor::from_slice(&[0.5f32, -1.0]);
        let b = Tensor::from_slice(&[2f32, 0.25]).view([2, 1]);
        [a, b].map(|p| p.set_requires_grad(true))
    }

    fn optimizer(settings: &OptimizerSettings, params: &[Tensor; 2]) -> Optimizer {
        let named = ["a", "b"].into_iter().zip(params).map(|(n, p)| (n.to_owned(), p.shallow_clone()));
        Optimizer::new(settings, named.collect()).unwrap()
    }

    fn update(optimizer: &mut Optimizer, params: &[Tensor; 2], step: u32) {
        let gradient =
            |i: u32| ((0.7 * f64::from(step) + 1.3 * f64::from(i)).sin() + 0.1 * f64::from(i) - 0.2) as f32;
        optimizer.zero_grad().unwrap();
        for (i, param) in params.iter().enumerate() {
            let first = 2 * i as u32;
            let gradient = Tensor::from_slice(&[gradient(first), gradient(first + 1)]).view_as(param);
            (param * gradient).sum(Kind::Float).backward();
        }
        optimizer.step(None).unwrap();
    }

    fn values(params: &[Tensor; 2]) -> Vec<f32> {
        params.iter().flat_map(|p| Vec::<f32>::try_from(p.flatten(0, -1)).unwrap()).collect()
    }

    /// In a process of its own, which asks MKL for the square roots that all processors have: its others differ in last
    /// bits between them.
    #[test]
    fn a_hundred_updates_equal_pytorch() {
        const REPRODUCIBLE: (&str, &str) = ("MKL_CBWR", "COMPATIBLE");
        if std::env::var(REPRODUCIBLE.0).as_deref() != Ok(REPRODUCIBLE.1) {
            let name = "train::optim::tests::a_hundred_updates_equal_pytorch";
            let mut test = std::process::Command::new(std::env::current_exe().unwrap());
            let out = test.args(["--exact", name]).env(REPRODUCIBLE.0, REPRODUCIBLE.1).output().unwrap();
            let text = String::from_utf8_lossy(&out.stdout);
            assert!(out.status.success() && text.contains("1 passed"), "{text}");
            return;
        }
        for (settings, after) in vectors() {
            settings.check().unwrap();
            let params = params();
            let mut optimizer = optimizer(&settings, &params);
            for step in 0..100 {
                update(&mut optimizer, &params, step);
                let Some(expected) = after[(step + 1).to_string()].as_array() else { continue };
                for (found, expected) in values(&params).iter().zip(expected) {
                    let expected = expected.as_f64().unwrap();
                    // To the bit: the same operations, each rounded once where PyTorch's are.
                    assert!(
                        *found == expected as f32,
                        "{settings:?}, update {step}: {found}, expected {expected}"
                    );
                }
            }
        }
    }

    /// A GPU updates parameters that had other numbers of updates at once.
    #[test]
    fn parameters_that_came_later_are_updated_with_the_others() {
        for (settings, _) in vectors() {
            let found: Vec<Vec<f32>> = [false, true]
                .into_iter()
                .map(|fused| {
                    let params = params();
                    let mut optimizer = optimizer(&settings, &params);
                    optimizer.fused = fused;
                    for step in 0..6 {
                        optimizer.zero_grad().unwrap();
                        let used = if step < 2 { 1 } else { 2 };
                        for param in &params[..used] {
                            (param * f64::from(step - 3)).square().sum(Kind::Float).backward();
                        }
                        optimizer.step(None).unwrap();
                    }
                    values(&params)
                })
                .collect();
            let near = found[0].iter().zip(&found[1]).all(|(a, b)| (a - b).abs() <= 1e-5 * b.abs().max(1.0));
            assert!(near, "{settings:?}: {found:?}");
        }
    }

    #[test]
    fn a_state_has_what_decay_still_moves_after_the_moments_were_forgotten() {
        for (settings, _) in vectors() {
            let (first, second) = (params(), params());
            let mut whole = optimizer(&settings, &first);
            update(&mut whole, &first, 0);
            whole.reset();
            let mut resumed = optimizer(&settings, &second);
            resumed.load(&whole.state(), "x").unwrap();
            assert!(second.iter().all(|param| param.grad().defined()), "{settings:?}");
            assert_eq!(resumed.counts(), [0, 0]);
        }
    }

    /// The kernels that GPUs use exist for CPUs too.
    #[test]
    fn a_hundred_fused_updates_equal_pytorch_up_to_rounding() {
        for (settings, after) in vectors() {
            let params = params();
            let mut optimizer = optimizer(&settings, &params);
            optimizer.fused = true;
            (0..100).for_each(|step| update(&mut optimizer, &params, step));
            for (found, expected) in values(&params).iter().zip(after["100"].as_array().unwrap()) {
                let expected = expected.as_f64().unwrap() as f32;
                assert!(
                    (found - expected).abs() <= 1e-5 * expected.abs().max(1.0),
                    "{settings:?}: {found}, {expected}"
                );
            }
        }
    }

    #[test]
    fn a_fused_update_that_the_device_leaves_out_changes_nothing() {
        for (settings, _) in vectors() {
            let (params, undisturbed) = (params(), params());
            let mut optimizers = [optimizer(&settings, &params), optimizer(&settings, &undisturbed)];
            for optimizer in &mut optimizers {
                optimizer.fused = true;
            }
            for step in 0..5 {
                update(&mut optimizers[0], &params, step);
                update(&mut optimizers[1], &undisturbed, step);
                let counts = optimizers[0].counts();
                for gradient in [f64::NAN, 7.0] {
                    for param in &params {
                        let _ = param.grad().detach().fill_(gradient);
                    }
                    optimizers[0].step(Some(&Tensor::from(1f32))).unwrap();
                }
                optimizers[0].set_counts(&counts);
                assert_eq!(values(&params), values(&undisturbed), "{settings:?}");
            }
        }
    }

    #[test]
    fn a_saved_state_continues_bit_for_bit() {
        for (settings, _) in vectors() {
            let (whole, first) = (params(), params());
            let mut optimizers = [optimizer(&settings, &whole), optimizer(&settings, &first)];
            (0..100).for_each(|step| update(&mut optimizers[0], &whole, step));
            (0..40).for_each(|step| update(&mut optimizers[1], &first, step));
            let resumed = [0, 1].map(|i: usize| first[i].copy().detach().set_requires_grad(true));
            let mut second = optimizer(&settings, &resumed);
            second.load(&optimizers[1].state(), "test").unwrap();
            (40..100).for_each(|step| update(&mut second, &resumed, step));
            assert_eq!(values(&whole), values(&resumed), "{settings:?}");
        }
    }

    #[test]
    fn without_a_gradient_the_used_decay_and_the_unused_stay() {
        let [used, unused] = params();
        let mut optimizer =
            optimizer(&OptimizerSettings::default(), &[used.shallow_clone(), unused.shallow_clone()]);
        used.sum(Kind::Float).backward();
        optimizer.step(None).unwrap();
        let before = used.double_value(&[0]);
        optimizer.zero_grad().unwrap();
        optimizer.step(None).unwrap();
        let velocity = (1.0 + 5e-4 * 0.5) * 0.75 + 5e-4 * before;
        assert!((used.double_value(&[0]) - (before - 0.1 * velocity)).abs() < 1e-6);
        assert_eq!(Vec::<f32>::try_from(unused.flatten(0, -1)).unwrap(), [2.0, 0.25]);
    }

    #[test]
    fn settings_that_do_not_apply_and_groups_of_none_are_refused() {
        let (sgd, adam) = (OptimizerSettings::default(), OptimizerSettings::new(OptimizerKind::Adam, 1e-3));
        assert!(sgd.check().is_ok() && adam.check().is_ok());
        for (settings, word) in [
            (OptimizerSettings { eps: Some(1e-8), ..sgd.clone() }, "eps"),
            (OptimizerSettings { amsgrad: Some(true), ..sgd.clone() }, "amsgrad"),
            (OptimizerSettings { momentum: None, nesterov: Some(true), ..sgd.clone() }, "nesterov"),
            (OptimizerSettings { momentum: Some(0.9), ..adam.clone() }, "momentum"),
            (OptimizerSettings { betas: Some((0.9, 1.0)), ..adam.clone() }, "betas"),
            (OptimizerSettings { eps: Some(f64::INFINITY), ..adam }, "eps"),
        ] {
            let message = settings.check().unwrap_err();
            assert!(message.contains(word), "{message}");
        }
        let group = ParamGroup { fragment: "head".into(), lr: Some(-1.0), weight_decay: None };
        let grouped = OptimizerSettings { groups: vec![group], ..sgd };
        assert!(grouped.check().unwrap_err().contains("groups[0].lr"));
        let error =
            Optimizer::new(&grouped, vec![("a".into(), Tensor::zeros([1], (Kind::Float, tch::Device::Cpu)))]);
        assert!(error.unwrap_err().to_string().contains("head"));
    }
}
