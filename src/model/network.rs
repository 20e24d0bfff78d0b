//! The network as the rest of the program sees it.

use super::layer::{Block, Builder, Layer, Op};
use super::pass::Pass;
use super::readout::{Kernel, Readout};
use super::se::SeCore;
use super::se_settings::SeSettings;
use super::settings::{DropoutPlace, check};
use super::{
    DataInfo, LayerRow, Mode, ModelError, ModelSettings, Params, Part, Runtime, SessionData, head, vgg,
};
use crate::base::Task;
use crate::torch_ext::Group;
use std::sync::Arc;
use tch::{Device, Kind, Tensor};

/// Layers that images pass before the readouts.
#[derive(Debug)]
pub(super) enum Core {
    /// Of a VGG.
    Vgg(Block),
    /// Of an SE network.
    Se(SeCore),
}

/// A stretch of shared layers, at whose end an area is read.
#[derive(Debug)]
pub(super) struct Stage {
    /// The area; none of an SE core, which serves all, and of a VGG without readouts.
    pub(super) task: Option<Task>,
    pub(super) core: Core,
    /// Normalisation and rectification before the readouts only.
    extra: Option<Block>,
}

/// A network for classification, for recording sessions, or for both.
#[derive(Debug)]
pub struct Network {
    settings: ModelSettings,
    data: DataInfo,
    params: Params,
    runtime: Runtime,
    /// In the order of the layers.
    pub(super) stages: Vec<Stage>,
    /// The rest of a VGG's layers if there are shared ones and classes, and the head.
    pub(super) tower: Vec<Block>,
    /// The sessions' stages and readouts.
    readouts: Vec<(usize, Readout)>,
    elu_offset: f64,
    /// The processes that train it together.
    group: Option<Arc<Group>>,
}

impl Network {
    /// Builds the network with fresh weights from torch's generator, which the caller has seeded.
    ///
    /// Names are the reference's: `mtl_vgg_core.v1_block.*`, `v1_readout.<session>.*` and so on,
    /// `features.*`, `classifier.*` where there is no neural data, and `core.*`, `readout.*` of SE networks.
    pub fn new(
        settings: &ModelSettings,
        data: &DataInfo,
        device: Device,
        runtime: Runtime,
    ) -> Result<Self, ModelError> {
        check(settings, data)?;
        let mut params = Params::new(device, runtime.precision.wide());
        let builder = &mut Builder { params: &mut params, runtime };
        let (stages, tower, readouts, elu_offset) = if let Some(se) = &settings.se {
            let (stages, readouts) = se_parts(builder, se, data);
            (stages, Vec::new(), readouts, se.elu_offset)
        } else {
            let (stages, tower, readouts) = vgg_parts(builder, settings, data);
            (stages, tower, readouts, settings.v1_elu_offset)
        };
        let net = Self {
            settings: settings.clone(),
            data: data.clone(),
            params,
            runtime,
            stages,
            tower,
            readouts,
            elu_offset,
            group: None,
        };
        if settings.se.is_none() && !settings.v1_fine_tune {
            net.freeze_shared(&[Task::V1, Task::V4]);
        }
        Ok(net)
    }

    /// Parameters and buffers.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// Fresh values of all parameters and buffers, on the CPU: those that [`Self::new`] would draw now. Its own stay.
    pub fn fresh(&self) -> Result<Params, ModelError> {
        Ok(Self::new(&self.settings, &self.data, Device::Cpu, self.runtime)?.params)
    }

    /// Trains together with the networks of the group's other processes: from now on they all have the weights of
    /// rank 0, and batch normalisation in training is over the batch of all.
    pub fn join(&mut self, group: Arc<Group>) -> Result<(), ModelError> {
        for param in self.params.iter() {
            group.broadcast(&param.tensor)?;
        }
        self.group = Some(group);
        Ok(())
    }

    /// The processes that train it together, if there are several.
    pub fn group(&self) -> Option<&Arc<Group>> {
        self.group.as_ref()
    }

    /// From now on passes in evaluation mode do batch normalisations within the convolutions before them, which is the
    /// same up to rounding and saves passes through memory; outputs that are asked for are those of the layers
    /// nevertheless. Weights must not change any more: call it once they are loaded.
    pub fn fold(&mut self) {
        for stage in &mut self.stages {
            match &mut stage.core {
                Core::Vgg(block) => block.fold(),
                Core::Se(core) => core.layers.iter_mut().for_each(Block::fold),
            }
        }
        self.tower.iter_mut().for_each(Block::fold);
    }

    /// Images `[batch, 1 or 3, height, width]` to the map that the readouts of `task` see; of a network
    /// without readouts, to the last map.
    pub fn tap(&self, images: &Tensor, task: Task, mode: Mode) -> Result<Tensor, ModelError> {
        let stage = self.stages.iter().position(|s| s.task.is_none_or(|of| of == task));
        let stage =
            stage.ok_or_else(|| ModelError::Settings(format!("the network has no map for {task}")))?;
        self.map(images, stage, &mut self.pass(mode)).map(|map| map.to_kind(self.runtime.precision.wide()))
    }

    /// Images to logits `[batch, classes]`.
    pub fn classify(&self, images: &Tensor, mode: Mode) -> Result<Tensor, ModelError> {
        self.logits(images, &mut self.pass(mode))
    }

    /// Images to logits, and the outputs of the layers or blocks with the given dotted names, such as
    /// `features.5`; none is stored in the network.
    ///
    /// The output of a convolution or normalisation is what it gives, not what the next rectification makes
    /// of it. Errors: a name that classification does not pass; the message lists those it does.
    pub fn classify_with(
        &self,
        images: &Tensor,
        mode: Mode,
        names: &[&str],
    ) -> Result<(Tensor, Vec<Tensor>), ModelError> {
        let paths = names.iter().map(|name| self.layer(name)).collect::<Result<Vec<String>, _>>()?;
        let wanted: Vec<&str> = paths.iter().map(String::as_str).collect();
        let mut pass = self.pass(mode).keeping(&wanted);
        let logits = self.logits(images, &mut pass)?;
        let mut found = Vec::new();
        for (name, output) in names.iter().zip(pass.found()) {
            found.push(output.ok_or_else(|| self.no_such(name))?.to_kind(self.runtime.precision.wide()));
        }
        Ok((logits, found))
    }

    /// Images to the outputs of the layers with the given names, `[batch, ...]`; nothing behind the last of them is
    /// computed. [`Self::layer_names`] has the names.
    ///
    /// The output of a convolution or normalisation is what it gives, not what the next rectification makes of it.
    ///
    /// # Errors
    /// A name that no layer has; the message lists those there are.
    pub fn layers(&self, images: &Tensor, mode: Mode, names: &[&str]) -> Result<Vec<Tensor>, ModelError> {
        let paths = names.iter().map(|name| self.layer(name)).collect::<Result<Vec<String>, _>>()?;
        let wanted: Vec<&str> = paths.iter().map(String::as_str).collect();
        let mut pass = self.pass(mode).keeping(&wanted).no_further();
        let mut x = images.shallow_clone();
        for stage in &self.stages {
            x = stage.core.forward(&x, &mut pass)?;
            let _ = stage.shown(&x, &mut pass)?;
            if pass.has_all() {
                break;
            }
        }
        pass.part = Part::Classification;
        for block in &self.tower {
            if pass.has_all() {
                break;
            }
            x = block.forward(&x, &mut pass)?;
        }
        let found = names.iter().zip(pass.found());
        found
            .map(|(name, output)| {
                Ok(output.ok_or_else(|| self.no_such(name))?.to_kind(self.runtime.precision.wide()))
            })
            .collect()
    }

    /// Images to responses `[batch, neurons]` of session number `session`: elu(x + offset) + 1.
    pub fn respond(&self, images: &Tensor, session: usize, mode: Mode) -> Result<Tensor, ModelError> {
        let (stage, readout) = self.readout(session)?;
        let map = self.map(images, stage, &mut self.pass(mode))?;
        self.read(readout, &map, mode)
    }

    /// Images that have labels and responses to the responses of session number `session` and the logits,
    /// in one pass through the shared layers.
    pub fn both(&self, images: &Tensor, session: usize, mode: Mode) -> Result<(Tensor, Tensor), ModelError> {
        let (of_session, readout) = self.readout(session)?;
        let mut pass = self.pass(mode);
        let (mut x, mut map) = (images.shallow_clone(), None);
        for (i, stage) in self.stages.iter().enumerate() {
            x = stage.core.forward(&x, &mut pass)?;
            if i == of_session {
                map = Some(stage.shown(&x, &mut pass)?);
            }
        }
        let logits = self.finish(&x, &mut pass)?;
        let map = map.ok_or_else(|| ModelError::Settings(format!("session {session} has no map")))?;
        Ok((self.read(readout, &map, mode)?, logits))
    }

    /// What is added to the loss of session number `session`: gamma times the sum of the absolute channel
    /// weights of its readout, and in an SE network the penalty on the first kernel.
    pub fn penalty(&self, session: usize) -> Result<Tensor, ModelError> {
        let (stage, readout) = self.readout(session)?;
        Ok(match &self.stages[stage].core {
            Core::Vgg(_) => readout.penalty(),
            Core::Se(core) => core.penalty() + readout.penalty(),
        })
    }

    /// Puts readout positions and deviations back into their bounds; due after every update.
    ///
    /// # Errors
    /// Of torch.
    pub fn clamp_readouts(&self) -> Result<(), ModelError> {
        Readout::clamp(self.readouts.iter().map(|(_, readout)| readout))
    }

    /// Names of the blocks of a VGG, and how many layers of it are before each.
    pub fn blocks(&self) -> Vec<(String, usize)> {
        let mut first = 0;
        let shared = self.stages.iter().flat_map(|stage| stage.core.blocks());
        let start = |block: &Block| {
            first += block.layers.len();
            (block.path.clone(), first - block.layers.len())
        };
        shared.chain(&self.tower).map(start).collect()
    }

    /// The layers in order, for one image of each kind of `data`; then the readouts. Nothing is changed.
    pub fn table(&self, data: &DataInfo) -> Result<Vec<LayerRow>, ModelError> {
        let size = match (data.classes, data.sessions.first()) {
            (None, Some(session)) => session.image,
            _ => data.image,
        };
        let [c, h, w] = size.map(i64::from);
        let mut pass = self.pass(Mode::EVAL).counting();
        tch::no_grad(|| -> Result<(), ModelError> {
            let image = Tensor::f_zeros([1, c, h, w], (Kind::Float, self.params.device()))?;
            let mut x = image;
            for stage in &self.stages {
                x = stage.core.forward(&x, &mut pass)?;
                let _ = stage.shown(&x, &mut pass)?;
            }
            pass.part = Part::Classification;
            let _ = self.tower.iter().try_fold(x, |x, block| block.forward(&x, &mut pass))?;
            Ok(())
        })?;
        let mut rows = pass.rows();
        rows.extend(self.readouts.iter().map(|(_, readout)| readout_row(readout)));
        Ok(rows)
    }

    fn pass(&self, mode: Mode) -> Pass<'_> {
        Pass::new(mode, self.runtime, self.group.as_deref())
    }

    fn readout(&self, session: usize) -> Result<(usize, &Readout), ModelError> {
        let found = self.readouts.get(session).map(|(stage, readout)| (*stage, readout));
        found.ok_or_else(|| {
            ModelError::Settings(format!("session {session} of a network with {}", self.readouts.len()))
        })
    }

    /// Images to the map that readouts of stage number `last` see.
    fn map(&self, images: &Tensor, last: usize, pass: &mut Pass<'_>) -> Result<Tensor, ModelError> {
        let start = images.shallow_clone();
        let x = self.stages[..=last].iter().try_fold(start, |x, stage| stage.core.forward(&x, pass))?;
        self.stages[last].shown(&x, pass)
    }

    fn logits(&self, images: &Tensor, pass: &mut Pass<'_>) -> Result<Tensor, ModelError> {
        let start = images.shallow_clone();
        let x = self.stages.iter().try_fold(start, |x, stage| stage.core.forward(&x, pass))?;
        self.finish(&x, pass)
    }

    /// The last shared map to logits.
    fn finish(&self, map: &Tensor, pass: &mut Pass<'_>) -> Result<Tensor, ModelError> {
        if self.tower.is_empty() {
            return Err(ModelError::Settings(
                "the network does not classify: its data had no classes".into(),
            ));
        }
        pass.part = Part::Classification;
        let logits = self.tower.iter().try_fold(map.shallow_clone(), |x, block| block.forward(&x, pass))?;
        Ok(logits.to_kind(self.runtime.precision.wide()))
    }

    fn read(&self, readout: &Readout, map: &Tensor, mode: Mode) -> Result<Tensor, ModelError> {
        Ok((readout.forward(map, mode, self.runtime.fused)? + self.elu_offset).f_elu()? + 1.0)
    }
}

impl Core {
    fn forward(&self, x: &Tensor, pass: &mut Pass<'_>) -> Result<Tensor, ModelError> {
        match self {
            Self::Vgg(block) => block.forward(x, pass),
            Self::Se(core) => core.forward(x, pass),
        }
    }

    pub(super) fn blocks(&self) -> &[Block] {
        match self {
            Self::Vgg(block) => std::slice::from_ref(block),
            Self::Se(core) => &core.layers,
        }
    }
}

impl Stage {
    /// The map as the readouts see it.
    fn shown(&self, map: &Tensor, pass: &mut Pass<'_>) -> Result<Tensor, ModelError> {
        let Some(extra) = &self.extra else { return Ok(map.shallow_clone()) };
        let part = std::mem::replace(&mut pass.part, Part::Readout);
        let shown = extra.forward(map, pass);
        pass.part = part;
        shown
    }

    pub(super) fn extra(&self) -> Option<&Block> {
        self.extra.as_ref()
    }
}

fn readout_row(readout: &Readout) -> LayerRow {
    LayerRow {
        name: readout.path.clone(),
        part: Part::Readout,
        output: vec![readout.n_neurons()],
        parameters: readout.weights().map(|w| w.numel() as u64).sum(),
        macs: readout.macs(),
        // What was sampled of the map, and twice the responses.
        activation_bytes: readout.macs() / 5 * 4 + 8 * readout.n_neurons() as u64,
    }
}

fn se_parts(
    builder: &mut Builder<'_>,
    settings: &SeSettings,
    data: &DataInfo,
) -> (Vec<Stage>, Vec<(usize, Readout)>) {
    let core = SeCore::new(builder, settings, i64::from(data.sessions[0].image[0]));
    let channels = settings.extent(0, 0)[0];
    let readouts = data.sessions.iter().map(|session| {
        let (path, kernel) = (format!("readout.{}", session.id), settings.readout());
        let (gamma, bias) = (settings.gamma_readout, settings.readout_bias);
        let start = first_bias(session, settings.elu_offset);
        (0, Readout::new(builder.params, &path, kernel, gamma, bias, channels, &start))
    });
    let readouts = readouts.collect();
    (vec![Stage { task: None, core: Core::Se(core), extra: None }], readouts)
}

/// Biases from which predictions, elu(x + offset) + 1, start at the mean response (spec/models 7, 11).
fn first_bias(session: &SessionData, offset: f64) -> Vec<f32> {
    session.mean_response.iter().map(|mean| mean - (1.0 + offset) as f32).collect()
}

/// Shared stages, tower and readouts, their weights in the reference's order.
fn vgg_parts(
    builder: &mut Builder<'_>,
    settings: &ModelSettings,
    data: &DataInfo,
) -> (Vec<Stage>, Vec<Block>, Vec<(usize, Readout)>) {
    let plan = &settings.vgg_type;
    let layers = plan.layers();
    let neural = !data.sessions.is_empty();
    let (head, cuts): (_, Vec<(Option<Task>, usize, String)>) = if neural {
        let cut = |(task, cut): (Task, usize)| (Some(task), cut, format!("mtl_vgg_core.{task}_block"));
        ("classification_readout", settings.cuts().into_iter().map(cut).collect())
    } else {
        ("classifier", vec![(None, layers.len(), "features".to_owned())])
    };
    let (mut stages, mut start) = (Vec::new(), 0);
    for (task, end, path) in &cuts {
        let dropout = settings.dropout_at(DropoutPlace::SharedBlock);
        let block = vgg::block(builder, path, (start, &layers[start..*end]), dropout);
        stages.push(Stage { task: *task, core: Core::Vgg(block), extra: None });
        start = *end;
    }
    let channels = |end: usize| plan.extent(end, 0, 0)[0];
    if settings.v1_final_batchnorm {
        for (stage, (task, end, _)) in stages.iter_mut().zip(&cuts) {
            stage.extra = task.map(|task| extra(builder, task, channels(*end)));
        }
    }
    let mut tower = Vec::new();
    if neural && data.classes.is_some() {
        let dropout = settings.dropout_at(DropoutPlace::UnsharedBlock);
        tower.push(vgg::block(builder, "mtl_vgg_core.unshared_block", (start, &layers[start..]), dropout));
    }
    let kernel = Kernel::Gaussian { mu: settings.v1_init_mu_range, sigma: settings.v1_init_sigma_range };
    let mut readouts: Vec<Option<(usize, Readout)>> = data.sessions.iter().map(|_| None).collect();
    for (i, (task, end, _)) in cuts.iter().enumerate() {
        for (session, slot) in data.sessions.iter().zip(&mut readouts).filter(|(s, _)| Some(s.task) == *task)
        {
            let path = format!("{}_readout.{}", session.task, session.id);
            let (gamma, bias) = (settings.v1_gamma_readout, settings.v1_readout_bias);
            let start = first_bias(session, settings.v1_elu_offset);
            let readout = Readout::new(builder.params, &path, kernel, gamma, bias, channels(*end), &start);
            *slot = Some((i, readout));
        }
    }
    if let Some(classes) = data.classes {
        let extent = plan.extent(layers.len(), data.image[1], data.image[2]);
        tower.push(head::classifier(builder, head, settings, extent, i64::from(classes)));
    }
    (stages, tower, readouts.into_iter().flatten().collect())
}

/// Normalisation and rectification on the branch of the readouts.
fn extra(builder: &mut Builder<'_>, task: Task, channels: i64) -> Block {
    let path = format!("{task}_extra");
    let name = format!("{path}.OutBatchNorm");
    let norm = Layer { op: builder.norm(&name, channels, 0.1), path: name, index: 0 };
    let relu = Layer { op: Op::Relu, path: format!("{path}.OutNonlin"), index: 1 };
    Block { path, layers: vec![norm, relu] }
}
