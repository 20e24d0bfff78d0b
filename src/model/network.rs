//! The network: blocks of a VGG, shared up to the maps that readouts read; a readout a session; a classifier.

use super::classifier::Classifier;
use super::pass::Pass;
use super::readout::GaussianReadout;
use super::vgg::{BatchNorm, Block, LayerSpec};
use super::{DataInfo, Mode, ModelError, ModelSettings, Numerics, Params, SessionData};
use crate::base::Task;
use std::collections::BTreeSet;
use tch::{Device, Tensor};

/// The network for all tasks, or for one of them.
#[derive(Debug)]
pub struct Network {
    params: Params,
    pub(super) numerics: Numerics,
    /// Extent of the images it is built for, with the three channels that the core sees.
    pub(super) image: [i64; 3],
    /// The blocks that tasks share, in order; without neural data, the whole core.
    pub(super) areas: Vec<Area>,
    pub(super) unshared: Option<Block>,
    /// Readouts with the place of their area.
    pub(super) readouts: Vec<(usize, GaussianReadout)>,
    pub(super) head: Option<Classifier>,
    elu_offset: f64,
    gamma: f64,
}

/// A block that ends with the map of an area.
#[derive(Debug)]
pub(super) struct Area {
    pub(super) block: Block,
    /// Applied to what the readouts see, and to nothing else (spec/models 2.9).
    extra: Option<BatchNorm>,
}

/// Where the core is cut: the task that reads each cut, and how many layers are before it.
type Cuts = Vec<(Task, usize)>;

impl Network {
    /// Builds the network with fresh weights from torch's generator, which the caller has seeded.
    ///
    /// Names and their order are the reference's: `mtl_vgg_core.v1_block.*`, `v1_readout.<session>.*` and so on, and
    /// `features.*`, `classifier.*` where there is no neural data (spec/models 5).
    pub fn new(
        settings: &ModelSettings,
        data: &DataInfo,
        device: Device,
        numerics: Numerics,
    ) -> Result<Self, ModelError> {
        let cuts = cuts(settings, data)?;
        check(settings, data, &cuts)?;
        let plan = &settings.vgg_type;
        let layers = plan.layers();
        let [_, height, width] = data.image;
        let mut params = Params::with(device, numerics);
        let mut areas = blocks(&mut params, settings, &cuts, &layers);
        if settings.v1_final_batchnorm {
            for (area, (task, cut)) in areas.iter_mut().zip(&cuts) {
                let name = format!("mtl_vgg_core.{task}_extra.OutBatchNorm");
                area.extra = Some(BatchNorm::new(&mut params, &name, plan.extent(*cut, height, width)[0]));
            }
        }
        let neural = !data.sessions.is_empty();
        let shared = cuts.last().map_or(0, |(_, cut)| *cut);
        let dropout = settings.add_dropout.unshared_block;
        let unshared = (neural && data.classes.is_some()).then(|| {
            let rest = &layers[shared..];
            Block::new(&mut params, "mtl_vgg_core.unshared_block", rest, dropout, false)
        });
        let readout = |session: &SessionData| {
            let area = cuts.iter().position(|(task, _)| *task == session.task).unwrap_or(0);
            let channels = plan.extent(cuts[area].1, height, width)[0];
            let name = format!("{}_readout.{}", session.task, session.id);
            let mean = &session.mean_response;
            (area, GaussianReadout::new(&mut params, &name, settings, channels, mean))
        };
        let readouts = data.sessions.iter().map(readout).collect();
        let name = if neural { "classification_readout" } else { "classifier" };
        let extent = plan.extent(layers.len(), height, width);
        let head = data.classes.map(|n| Classifier::new(&mut params, name, settings, extent, i64::from(n)));
        let (elu_offset, gamma) = (settings.v1_elu_offset, settings.v1_gamma_readout);
        let image = [3, i64::from(height), i64::from(width)];
        let net = Self { params, numerics, image, areas, unshared, readouts, head, elu_offset, gamma };
        if neural && !settings.v1_fine_tune {
            net.freeze(|name| name.contains(".v1_block.") || name.contains(".v4_block."))?;
        }
        Ok(net)
    }

    /// Parameters and buffers.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// Images `[batch, 1 or 3, height, width]` to the last map that tasks share.
    pub fn tap(&self, images: &Tensor, mode: Mode) -> Tensor {
        let mut pass = Pass::new(mode, self.numerics, &[]);
        Numerics::leave(&self.shared(images, self.areas.len() - 1, &mut pass))
    }

    /// Images to logits `[batch, classes]`.
    pub fn classify(&self, images: &Tensor, mode: Mode) -> Tensor {
        self.logits(images, &mut Pass::new(mode, self.numerics, &[]))
    }

    /// Images to logits, and the outputs of layers named by path, such as `features.5`, `v1_block.16` or
    /// `classification_readout.3` (spec/models 1.7). An error names a layer that labelled images do not pass.
    pub fn classify_with(
        &self,
        images: &Tensor,
        mode: Mode,
        layers: &[&str],
    ) -> Result<(Tensor, Vec<Tensor>), ModelError> {
        let mut pass = Pass::new(mode, self.numerics, layers);
        let logits = self.logits(images, &mut pass);
        let found = pass.found().map_err(|path| self.no_layer(&path))?;
        Ok((logits, found))
    }

    /// Images to responses `[batch, neurons]` of session number `session`: elu(x + offset) + 1.
    pub fn respond(&self, images: &Tensor, session: usize, mode: Mode) -> Tensor {
        let mut pass = Pass::new(mode, self.numerics, &[]);
        let area = self.readouts[session].0;
        let map = self.shared(images, area, &mut pass);
        self.read(&map, session, mode)
    }

    /// Responses of a session and logits of the same images, in one pass.
    pub fn both(&self, images: &Tensor, session: usize, mode: Mode) -> (Tensor, Tensor) {
        let mut pass = Pass::new(mode, self.numerics, &[]);
        let area = self.readouts[session].0;
        let map = self.shared(images, area, &mut pass);
        let responses = self.read(&map, session, mode);
        let last = self.areas[area + 1..].iter().fold(map, |x, next| next.block.forward(&x, &mut pass));
        (responses, self.head_of(&last, &mut pass))
    }

    /// The penalty of session number `session`: gamma times the sum of its readout's absolute channel weights.
    pub fn penalty(&self, session: usize) -> Tensor {
        self.readouts[session].1.l1() * self.gamma
    }

    /// Puts readout positions and deviations back into their bounds; due after every update.
    pub fn clamp_readouts(&self) {
        self.readouts.iter().for_each(|(_, readout)| readout.clamp());
    }

    /// Names of the blocks, and how many layers of the core are before each.
    pub fn blocks(&self) -> Vec<(String, usize)> {
        let mut first = 0;
        let blocks = self.areas.iter().map(|area| &area.block).chain(&self.unshared);
        let start = |block: &Block| {
            first += block.len();
            (block.prefix().to_owned(), first - block.len())
        };
        blocks.map(start).collect()
    }

    /// Images to the map of area number `area`.
    fn shared(&self, images: &Tensor, area: usize, pass: &mut Pass<'_>) -> Tensor {
        let x = self.numerics.enter(images);
        self.areas[..=area].iter().fold(x, |x, area| area.block.forward(&x, pass))
    }

    fn logits(&self, images: &Tensor, pass: &mut Pass<'_>) -> Tensor {
        let map = self.shared(images, self.areas.len() - 1, pass);
        self.head_of(&map, pass)
    }

    fn head_of(&self, map: &Tensor, pass: &mut Pass<'_>) -> Tensor {
        let map = self.unshared.as_ref().map_or_else(|| map.shallow_clone(), |b| b.forward(map, pass));
        let head = self.head.as_ref();
        head.expect("the schedule has labelled images only where the data have classes").forward(&map, pass)
    }

    fn read(&self, map: &Tensor, session: usize, mode: Mode) -> Tensor {
        let (area, readout) = &self.readouts[session];
        let own = match &self.areas[*area].extra {
            Some(norm) => norm.forward(map, mode.train).relu(),
            None => map.shallow_clone(),
        };
        (readout.forward(&own, mode.train) + self.elu_offset).elu() + 1.0
    }

    fn no_layer(&self, path: &str) -> ModelError {
        let rows = self.table();
        let names: Vec<&str> = rows.iter().filter(|r| r.kind != "Readout").map(|r| r.name.as_str()).collect();
        ModelError::Settings(format!(
            "there is no layer {path:?} on the way of labelled images; there are {}",
            names.join(", ")
        ))
    }
}

/// The shared blocks, or the whole core of a network without neural data.
fn blocks(params: &mut Params, settings: &ModelSettings, cuts: &Cuts, layers: &[LayerSpec]) -> Vec<Area> {
    let dropout = settings.add_dropout.shared_block;
    if cuts.is_empty() {
        let dropout = settings.add_dropout.unshared_block;
        return vec![Area { block: Block::new(params, "features", layers, dropout, true), extra: None }];
    }
    let mut from = 0;
    let block = |&(task, cut): &(Task, usize)| {
        let name = format!("mtl_vgg_core.{task}_block");
        let block = Block::new(params, &name, &layers[from..cut], dropout, true);
        from = cut;
        Area { block, extra: None }
    };
    cuts.iter().map(block).collect()
}

/// The cuts of the areas that have sessions.
fn cuts(settings: &ModelSettings, data: &DataInfo) -> Result<Cuts, ModelError> {
    let mut cuts = Cuts::new();
    let legal = settings.vgg_type.cuts();
    for (task, key, layer) in [
        (Task::V1, "v1_model_layer", settings.v1_model_layer),
        (Task::V4, "v4_model_layer", settings.v4_model_layer),
    ] {
        if !data.sessions.iter().any(|s| s.task == task) {
            continue;
        }
        let cut = usize::try_from(layer).unwrap_or(0);
        let plan = &settings.vgg_type;
        if !legal.contains(&cut) {
            return Err(ModelError::Settings(format!(
                "{key} {layer} of {plan} cuts between a convolution and its rectification, or beyond an end; legal are {legal:?}"
            )));
        }
        if let Some((_, before)) = cuts.last().filter(|(_, before)| *before >= cut) {
            return Err(ModelError::Settings(format!("{key} {cut} must be beyond v1_model_layer {before}")));
        }
        cuts.push((task, cut));
    }
    Ok(cuts)
}

fn check(settings: &ModelSettings, data: &DataInfo, cuts: &Cuts) -> Result<(), ModelError> {
    let fail = |what: String| Err(ModelError::Settings(what));
    if data.sessions.is_empty() && data.classes.is_none() {
        return fail("there are neither labelled images nor recording sessions to learn from".into());
    }
    if ![1, 3].contains(&data.image[0]) {
        return fail(format!("images of {} channels; 1 or 3 can be used", data.image[0]));
    }
    let plan = &settings.vgg_type;
    let last = if data.classes.is_some() { plan.layers().len() } else { cuts.last().map_or(0, |c| c.1) };
    if plan.extent(last, data.image[1], data.image[2]).contains(&0) {
        let [_, h, w] = data.image;
        return fail(format!("{plan} shrinks images of {h} x {w} to nothing; use fewer poolings"));
    }
    let mut names = BTreeSet::new();
    for SessionData { task, id, .. } in &data.sessions {
        if id.is_empty() || id.contains('.') || !names.insert((*task, id)) {
            return fail(format!(
                "session {id:?} of {task}: an id must not be empty, have a dot, or come twice"
            ));
        }
    }
    check_ranges(settings)
}

fn check_ranges(settings: &ModelSettings) -> Result<(), ModelError> {
    let rate = 0.0..1.0;
    for (name, value, within) in [
        (
            "v1_init_mu_range",
            settings.v1_init_mu_range,
            settings.v1_init_mu_range <= 1.0 && settings.v1_init_mu_range > 0.0,
        ),
        ("v1_init_sigma_range", settings.v1_init_sigma_range, settings.v1_init_sigma_range > 0.0),
        ("v1_gamma_readout", settings.v1_gamma_readout, settings.v1_gamma_readout >= 0.0),
        ("v1_elu_offset", settings.v1_elu_offset, true),
        ("dropout", settings.dropout, rate.contains(&settings.dropout)),
        (
            "add_dropout.shared_block",
            settings.add_dropout.shared_block,
            rate.contains(&settings.add_dropout.shared_block),
        ),
        (
            "add_dropout.unshared_block",
            settings.add_dropout.unshared_block,
            rate.contains(&settings.add_dropout.unshared_block),
        ),
        ("hidden", settings.hidden as f64, (1..=1 << 20).contains(&settings.hidden)),
    ] {
        if !(value.is_finite() && within) {
            return Err(ModelError::Settings(format!("{name} = {value} is out of range")));
        }
    }
    Ok(())
}
