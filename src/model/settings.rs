//! Settings of the network, and whether they can be used with the data.

use super::se_settings::SeSettings;
use super::{DataInfo, ModelError, VggPlan, head};
use crate::base::Task;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::collections::BTreeSet;

/// Kind of the classification head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HeadKind {
    /// 1 x 1 convolutions and a spatial maximum: any image size.
    Conv,
    /// Linear layers: the image size is fixed.
    Dense,
}

/// The network's settings, named as the reference's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ModelSettings {
    /// `vgg11` to `vgg19`, with `_bn` for batch normalisation, or a plan such as `bn 16 M 32 M`.
    pub vgg_type: VggPlan,
    /// Layers that V1's readouts see, which are shared with classification; 0 or less for none.
    pub v1_model_layer: i64,
    /// Layers that V4's readouts see; 0 or less for none.
    pub v4_model_layer: i64,
    /// `conv` or `dense`.
    pub classification_readout_type: HeadKind,
    /// Width of the head's two hidden layers.
    pub hidden: i64,
    /// Dropout after each of the head's hidden layers.
    pub dropout: f64,
    /// Dropout after every rectification: rates by `shared_block` and `unshared_block`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub add_dropout: BTreeMap<DropoutPlace, f64>,
    /// Average the last map to 7 x 7 before the head.
    pub avg_pool: bool,
    /// Whether the shared blocks learn; their running statistics change either way.
    pub v1_fine_tune: bool,
    /// Batch normalisation and rectification between the shared map and the readouts.
    pub v1_final_batchnorm: bool,
    /// Readout positions start from U(-r, r).
    pub v1_init_mu_range: f64,
    /// Readout deviations start from U(0, r).
    pub v1_init_sigma_range: f64,
    /// Whether readouts have a bias; it starts at the mean response.
    pub v1_readout_bias: bool,
    /// Weight of the readouts' L1 penalty, which counts only with `loss.scale_loss`.
    pub v1_gamma_readout: f64,
    /// o in elu(x + o) + 1, the output nonlinearity.
    pub v1_elu_offset: f64,
    /// A network of the SE family instead of a VGG.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub se: Option<SeSettings>,
}

/// Where dropout can be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DropoutPlace {
    /// The blocks that readouts see.
    SharedBlock,
    /// The layers after them.
    UnsharedBlock,
}

impl Default for ModelSettings {
    /// The paper's: VGG-19 with batch normalisation, cut after conv3_1.
    fn default() -> Self {
        Self {
            vgg_type: "vgg19_bn".parse().expect("one of the eight names"),
            v1_model_layer: 17,
            v4_model_layer: -1,
            classification_readout_type: HeadKind::Conv,
            hidden: 4096,
            dropout: 0.5,
            add_dropout: BTreeMap::new(),
            avg_pool: false,
            v1_fine_tune: true,
            v1_final_batchnorm: false,
            v1_init_mu_range: 0.3,
            v1_init_sigma_range: 0.6,
            v1_readout_bias: true,
            v1_gamma_readout: 0.5,
            v1_elu_offset: -1.0,
            se: None,
        }
    }
}

impl ModelSettings {
    /// Ends of the shared blocks, in layers, of the areas that have one.
    pub(super) fn cuts(&self) -> Vec<(Task, usize)> {
        let cut = |task, layer: i64| usize::try_from(layer).ok().filter(|&k| k > 0).map(|k| (task, k));
        [cut(Task::V1, self.v1_model_layer), cut(Task::V4, self.v4_model_layer)]
            .into_iter()
            .flatten()
            .collect()
    }

    /// Dropout to be added at a place.
    pub(super) fn dropout_at(&self, place: DropoutPlace) -> Option<f64> {
        self.add_dropout.get(&place).copied()
    }
}

/// Trainable numbers of a network at most, so that a slip of the pen is an error and not a lack of memory.
const MOST_PARAMETERS: i64 = 1 << 32;
/// Pixels along a side at most.
const LARGEST_SIDE: u32 = 4096;

pub(super) fn check(settings: &ModelSettings, data: &DataInfo) -> Result<(), ModelError> {
    check_data(data)
        .and_then(|()| match &settings.se {
            Some(se) => check_se(settings, se, data),
            None => check_vgg(settings, data),
        })
        .map_err(ModelError::Settings)
}

fn check_data(data: &DataInfo) -> Result<(), String> {
    if data.sessions.is_empty() && data.classes.is_none() {
        return Err("there are neither labelled images nor recording sessions to learn from".into());
    }
    if data.classes == Some(0) {
        return Err("the labelled images have no classes".into());
    }
    let images = data.sessions.iter().map(|s| s.image).chain(data.classes.map(|_| data.image));
    for [channels, height, width] in images {
        if ![1, 3].contains(&channels) {
            return Err(format!("images of {channels} channels; 1 or 3 can be used"));
        }
        if !(1..=LARGEST_SIDE).contains(&height) || !(1..=LARGEST_SIDE).contains(&width) {
            return Err(format!("images of {height} x {width}; sides from 1 to {LARGEST_SIDE} can be used"));
        }
    }
    let mut seen = BTreeSet::new();
    for session in &data.sessions {
        let (task, id) = (session.task, &session.id);
        if !task.is_neural() {
            return Err(format!("session {id:?} is of no area"));
        }
        if id.is_empty() || id.contains('.') {
            return Err(format!(
                "session {id:?}: an id names weights, and must have characters but no dots; prepare the data with other ids"
            ));
        }
        if !seen.insert((task, id)) {
            return Err(format!("session {id:?} is there twice in {task}"));
        }
        if session.mean_response.is_empty() {
            return Err(format!("session {id:?} has no neurons"));
        }
    }
    Ok(())
}

fn check_se(settings: &ModelSettings, se: &SeSettings, data: &DataInfo) -> Result<(), String> {
    // Without `se`, as one that holds a NaN does not equal itself.
    let others = ModelSettings { se: None, ..settings.clone() };
    if others != ModelSettings::default() {
        return Err("model.se makes a network of the SE family, to which the settings of VGG networks (all others in [model]) do not apply".into());
    }
    if data.classes.is_some() {
        return Err("an SE network does not classify; set data.images = \"\"".into());
    }
    let mut ids = BTreeSet::new();
    if let Some(twice) = data.sessions.iter().find(|s| !ids.insert(&s.id)) {
        return Err(format!("session {:?} is there in two areas, which share a core here", twice.id));
    }
    let channels = data.sessions[0].image[0];
    if data.sessions.iter().any(|s| s.image[0] != channels) {
        return Err("sessions differ in the channels of their stimuli".into());
    }
    data.sessions.iter().try_for_each(|s| se.check(s.image[1], s.image[2]))
}

fn check_vgg(settings: &ModelSettings, data: &DataInfo) -> Result<(), String> {
    let plan = &settings.vgg_type;
    check_cuts(settings, data)?;
    for (task, cut) in settings.cuts() {
        for session in data.sessions.iter().filter(|s| s.task == task) {
            let [_, height, width] = session.image;
            if plan.extent(cut, height, width).contains(&0) {
                return Err(format!(
                    "stimuli of {height} x {width} are too small for {cut} layers of {plan}: nothing is left of the map"
                ));
            }
        }
    }
    if data.classes.is_some() {
        let [_, height, width] = data.image;
        if plan.extent(plan.layers().len(), height, width).contains(&0) {
            return Err(format!(
                "{plan} shrinks images of {height} x {width} to nothing; use fewer poolings"
            ));
        }
    } else if settings.avg_pool || settings.dropout_at(DropoutPlace::UnsharedBlock).is_some() {
        return Err("avg_pool and add_dropout.unshared_block do not apply without labelled images".into());
    }
    check_numbers(settings)?;
    check_size(settings, data)
}

fn check_cuts(settings: &ModelSettings, data: &DataInfo) -> Result<(), String> {
    let plan = &settings.vgg_type;
    if data.sessions.is_empty() {
        let unused = [
            ("v4_model_layer", settings.v4_model_layer > 0),
            ("v1_final_batchnorm", settings.v1_final_batchnorm),
            ("v1_fine_tune = false", !settings.v1_fine_tune),
        ];
        return match unused.iter().find(|(_, given)| *given) {
            Some((key, _)) => Err(format!("{key} does not apply without recording sessions")),
            None => Ok(()),
        };
    }
    let legal = plan.cuts();
    let cuts = settings.cuts();
    for (task, key) in [(Task::V1, "v1_model_layer"), (Task::V4, "v4_model_layer")] {
        let has = data.sessions.iter().any(|s| s.task == task);
        let cut = cuts.iter().find(|(of, _)| *of == task).map(|(_, cut)| *cut);
        match cut {
            None if has => return Err(format!("there are sessions of {task}, and {key} is 0 or less")),
            Some(_) if !has => {
                return Err(format!(
                    "{key} is given, and there are no sessions of {task}; set model.{key} = 0"
                ));
            }
            Some(layer) if !legal.contains(&layer) => {
                return Err(format!(
                    "{key} {layer} of {plan} cuts between a convolution and its rectification, or beyond the end; legal are {legal:?}"
                ));
            }
            _ => {}
        }
    }
    match cuts[..] {
        [(_, v1), (_, v4)] if v4 <= v1 => {
            Err(format!("v4_model_layer {v4} must lie beyond v1_model_layer {v1}"))
        }
        _ => Ok(()),
    }
}

fn check_numbers(settings: &ModelSettings) -> Result<(), String> {
    let (mu, sigma) = (settings.v1_init_mu_range, settings.v1_init_sigma_range);
    let gamma = settings.v1_gamma_readout;
    let mut numbers = vec![
        ("v1_init_mu_range", mu, mu > 0.0 && mu <= 1.0),
        ("v1_init_sigma_range", sigma, sigma > 0.0),
        ("v1_gamma_readout", gamma, gamma >= 0.0),
        ("v1_elu_offset", settings.v1_elu_offset, true),
        ("dropout", settings.dropout, (0.0..1.0).contains(&settings.dropout)),
        ("hidden", settings.hidden as f64, (1..=1 << 20).contains(&settings.hidden)),
    ];
    let rates = settings.add_dropout.values();
    numbers.extend(rates.map(|&rate| ("add_dropout", rate, rate > 0.0 && rate < 1.0)));
    match numbers.iter().find(|(_, value, within)| !(value.is_finite() && *within)) {
        Some((name, value, _)) => Err(format!("{name} = {value} is out of range")),
        None => Ok(()),
    }
}

fn check_size(settings: &ModelSettings, data: &DataInfo) -> Result<(), String> {
    let plan = &settings.vgg_type;
    let core = plan.layers().iter().fold(0i64, |n, layer| n.saturating_add(layer.n_parameters()));
    let [_, height, width] = data.image;
    let head = data.classes.map_or(0, |classes| {
        let inputs = head::inputs(settings, plan.extent(plan.layers().len(), height, width));
        let hidden = settings.hidden;
        inputs.saturating_add(hidden).saturating_add(i64::from(classes)).saturating_mul(hidden)
    });
    let n = core.saturating_add(head);
    if n > MOST_PARAMETERS {
        return Err(format!(
            "{plan} with hidden = {} has {n} weights, more than {MOST_PARAMETERS}",
            settings.hidden
        ));
    }
    Ok(())
}
