//! SGD and Adam as tensor arithmetic, equal to PyTorch's, so that their state can be saved.
//!
//! A parameter that has had a gradient once and has none in a step counts as having zero: momentum
//! and weight decay still move it, as in the reference. One that never had any stays untouched.

use super::TrainError;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// Which optimiser.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// Stochastic gradient descent with momentum.
    Sgd,
    /// Adam (Kingma and Ba 2015) with weight decay added to the gradient.
    Adam,
}

/// The optimiser's settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerSettings {
    /// `sgd` or `adam`.
    pub kind: OptimizerKind,
    /// Learning rate at the start.
    pub lr: f64,
    /// Of SGD; 0 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub momentum: Option<f64>,
    /// Of Adam; 0.9 and 0.999 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub betas: Option<(f64, f64)>,
    /// Of Adam; 1e-8 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eps: Option<f64>,
    /// L2 penalty on every parameter.
    #[serde(default)]
    pub weight_decay: f64,
}

impl Default for OptimizerSettings {
    /// The paper's.
    fn default() -> Self {
        Self {
            kind: OptimizerKind::Sgd,
            lr: 0.1,
            momentum: Some(0.75),
            betas: None,
            eps: None,
            weight_decay: 5e-4,
        }
    }
}

impl OptimizerSettings {
    /// Checks ranges, and that no setting of the other optimiser is given.
    pub fn check(&self) -> Result<(), String> {
        let other = match self.kind {
            OptimizerKind::Sgd => self.betas.map(|_| "betas").or(self.eps.map(|_| "eps")),
            OptimizerKind::Adam => self.momentum.map(|_| "momentum"),
        };
        if let Some(key) = other {
            return Err(format!("optimizer.{key} does not apply to {:?}", self.kind).to_lowercase());
        }
        let (b1, b2) = self.betas.unwrap_or((0.9, 0.999));
        let fractions = [("momentum", self.momentum.unwrap_or(0.0)), ("betas", b1), ("betas", b2)];
        if let Some((key, value)) = fractions.iter().find(|(_, v)| !(0.0..1.0).contains(v)) {
            return Err(format!("optimizer.{key} = {value} is not within 0 and 1"));
        }
        let positive = self.lr > 0.0 && self.lr.is_finite() && self.eps.is_none_or(|e| e > 0.0);
        if !positive || !(0.0..1e9).contains(&self.weight_decay) {
            return Err(format!(
                "optimizer.lr = {} or weight_decay = {} is out of range",
                self.lr, self.weight_decay
            ));
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
}

#[derive(Debug)]
struct Slot {
    name: String,
    param: Tensor,
    /// Momentum, or Adam's two moments; none before the first gradient.
    moments: Vec<Tensor>,
    /// Updates so far.
    steps: i64,
}

impl Optimizer {
    /// For named parameters.
    pub fn new(settings: &OptimizerSettings, params: Vec<(String, Tensor)>) -> Self {
        let slot = |(name, param)| Slot { name, param, moments: Vec::new(), steps: 0 };
        Self { settings: settings.clone(), lr: settings.lr, slots: params.into_iter().map(slot).collect() }
    }

    /// The learning rate.
    pub fn lr(&self) -> f64 {
        self.lr
    }

    /// Sets the learning rate.
    pub fn set_lr(&mut self, lr: f64) {
        self.lr = lr;
    }

    /// Forgets the gradients. Those of parameters in use become zero, not undefined.
    pub fn zero_grad(&mut self) {
        for slot in &mut self.slots {
            let mut grad = slot.param.grad();
            if grad.defined() {
                let _ = grad.detach_().zero_();
            }
        }
    }

    /// One update from the gradients that have added up since [`Self::zero_grad`].
    pub fn step(&mut self) {
        let (settings, lr) = (&self.settings, self.lr);
        tch::no_grad(|| {
            for slot in &mut self.slots {
                let grad = slot.param.grad();
                if grad.defined() {
                    slot.steps += 1;
                    match settings.kind {
                        OptimizerKind::Sgd => slot.sgd(&grad, settings, lr),
                        OptimizerKind::Adam => slot.adam(&grad, settings, lr),
                    }
                }
            }
        });
    }

    /// Everything that must survive a restart.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let mut state = Vec::new();
        for slot in self.slots.iter().filter(|slot| slot.steps > 0) {
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
                        slot.moments.push(moment.to_device(slot.param.device()).copy());
                    }
                    _ if self.settings.kind == OptimizerKind::Sgd && self.settings.momentum.is_none() => {}
                    _ => return Err(TrainError::Checkpoint(format!("{file}: no {key} of the right shape"))),
                }
            }
            // Gradients are zeros from the first use on, so a resumed parameter must have one.
            if !slot.param.grad().defined() {
                (&slot.param * 0.0).sum(Kind::Float).backward();
            }
        }
        Ok(())
    }

    fn moment_names(&self) -> &'static [&'static str] {
        match self.settings.kind {
            OptimizerKind::Sgd => &["momentum"],
            OptimizerKind::Adam => &["exp_avg", "exp_avg_sq"],
        }
    }
}

impl Slot {
    /// g += wd w; v = mu v + g, at first v = g; w -= lr v.
    fn sgd(&mut self, grad: &Tensor, settings: &OptimizerSettings, lr: f64) {
        let decayed = decayed(grad, &self.param, settings.weight_decay);
        let Some(momentum) = settings.momentum.filter(|m| *m > 0.0) else {
            let _ = self.param.g_sub_(&(decayed * lr));
            return;
        };
        if let [velocity] = self.moments.as_mut_slice() {
            let _ = velocity.g_mul_scalar_(momentum).g_add_(&decayed);
        } else {
            self.moments = vec![decayed.copy()];
        }
        let _ = self.param.g_sub_(&(&self.moments[0] * lr));
    }

    /// Adam with bias correction and eps outside the root.
    fn adam(&mut self, grad: &Tensor, settings: &OptimizerSettings, lr: f64) {
        let (b1, b2) = settings.betas.unwrap_or((0.9, 0.999));
        let decayed = decayed(grad, &self.param, settings.weight_decay);
        if self.moments.is_empty() {
            self.moments = vec![self.param.zeros_like(), self.param.zeros_like()];
        }
        let _ = self.moments[0].g_mul_scalar_(b1).g_add_(&(&decayed * (1.0 - b1)));
        let _ = self.moments[1].g_mul_scalar_(b2).g_add_(&(&decayed * &decayed * (1.0 - b2)));
        let t = self.steps as i32;
        let root = (self.moments[1].sqrt() / (1.0 - b2.powi(t)).sqrt()) + settings.eps.unwrap_or(1e-8);
        let _ = self.param.g_sub_(&(&self.moments[0] / root * (lr / (1.0 - b1.powi(t)))));
    }
}

fn decayed(grad: &Tensor, param: &Tensor, weight_decay: f64) -> Tensor {
    if weight_decay == 0.0 { grad.shallow_clone() } else { grad + param * weight_decay }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rules in f64, written from PyTorch's documentation.
    fn by_hand(settings: &OptimizerSettings, mut w: f64, gradients: &[f64]) -> f64 {
        let (mut v, mut m1, mut m2) = (None, 0.0, 0.0);
        for (t, g) in gradients.iter().enumerate() {
            let g = g + settings.weight_decay * w;
            match settings.kind {
                OptimizerKind::Sgd => {
                    let next = v.map_or(g, |v| settings.momentum.unwrap_or(0.0) * v + g);
                    v = Some(next);
                    w -= settings.lr * next;
                }
                OptimizerKind::Adam => {
                    m1 = 0.9 * m1 + 0.1 * g;
                    m2 = 0.999 * m2 + 0.001 * g * g;
                    let (c1, c2) = (1.0 - 0.9f64.powi(t as i32 + 1), 1.0 - 0.999f64.powi(t as i32 + 1));
                    w -= settings.lr / c1 * m1 / ((m2 / c2).sqrt() + 1e-8);
                }
            }
        }
        w
    }

    fn settings() -> [OptimizerSettings; 2] {
        let adam = OptimizerSettings {
            kind: OptimizerKind::Adam,
            lr: 5e-3,
            momentum: None,
            betas: None,
            eps: None,
            weight_decay: 5e-4,
        };
        [OptimizerSettings::default(), adam]
    }

    fn run(optimizer: &mut Optimizer, w: &Tensor, gradients: &[f64]) {
        for g in gradients {
            optimizer.zero_grad();
            (w * *g).sum(Kind::Float).backward();
            optimizer.step();
        }
    }

    fn weight() -> Tensor {
        Tensor::from_slice(&[0.5f32]).set_requires_grad(true)
    }

    fn gradients() -> Vec<f64> {
        (0..100).map(|i| (f64::from(i) * 0.7).sin() + 0.1).collect()
    }

    #[test]
    fn a_hundred_updates_equal_the_rules() {
        for settings in settings() {
            let w = weight();
            run(&mut Optimizer::new(&settings, vec![("w".into(), w.shallow_clone())]), &w, &gradients());
            let expected = by_hand(&settings, 0.5, &gradients());
            assert!(
                (w.double_value(&[0]) - expected).abs() < 1e-5,
                "{settings:?}: {w:?}, expected {expected}"
            );
        }
    }

    #[test]
    fn a_saved_state_continues_bit_for_bit() {
        for settings in settings() {
            let (whole, w) = (weight(), weight());
            run(
                &mut Optimizer::new(&settings, vec![("w".into(), whole.shallow_clone())]),
                &whole,
                &gradients(),
            );
            let mut first = Optimizer::new(&settings, vec![("w".into(), w.shallow_clone())]);
            run(&mut first, &w, &gradients()[..40]);
            let resumed = w.copy().detach().set_requires_grad(true);
            let mut second = Optimizer::new(&settings, vec![("w".into(), resumed.shallow_clone())]);
            second.load(&first.state(), "test").unwrap();
            run(&mut second, &resumed, &gradients()[40..]);
            assert_eq!(whole.double_value(&[0]).to_bits(), resumed.double_value(&[0]).to_bits());
        }
    }

    #[test]
    fn without_a_gradient_the_used_decay_and_the_unused_stay() {
        let (used, unused) = (weight(), weight());
        let params = vec![("used".into(), used.shallow_clone()), ("unused".into(), unused.shallow_clone())];
        let mut optimizer = Optimizer::new(&OptimizerSettings::default(), params);
        run(&mut optimizer, &used, &[1.0]);
        let before = used.double_value(&[0]);
        optimizer.zero_grad();
        optimizer.step();
        let velocity = (1.0 + 5e-4 * 0.5) * 0.75 + 5e-4 * before;
        assert!((used.double_value(&[0]) - (before - 0.1 * velocity)).abs() < 1e-6);
        assert_eq!(unused.double_value(&[0]).to_bits(), 0.5f64.to_bits());
    }

    #[test]
    fn settings_of_the_other_kind_are_refused() {
        let [sgd, adam] = settings();
        assert!(sgd.check().is_ok() && adam.check().is_ok());
        assert!(OptimizerSettings { eps: Some(1e-8), ..sgd }.check().unwrap_err().contains("eps"));
        assert!(OptimizerSettings { momentum: Some(0.9), ..adam }.check().unwrap_err().contains("momentum"));
    }
}
