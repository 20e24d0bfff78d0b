//! What a run starts from: a network with fresh, given or partly fresh weights.

use super::super::corrupt::frost;
use super::super::eval::load;
use super::super::exit::Usage;
use super::super::show::Show;
use crate::base::{Fingerprint, Purpose, RngKey};
use crate::config::Experiment;
use crate::corruption::Corruption;
use crate::corruption::frost::{FILES, Source};
use crate::eval::CorruptionSuite;
use crate::model::weights::{Weights, renamed};
use crate::model::{DataInfo, Network, device};
use crate::runs::Run;
use crate::shard::ShardSet;
use crate::train::network_weights;
use anyhow::Context;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tch::Device;

/// The network of `modules.rdm_prediction`, which has the layer that is asked for.
pub(super) fn teacher(
    experiment: &Experiment,
    shards: &ShardSet,
    device: Device,
) -> anyhow::Result<Option<Network>> {
    let Some(rdm) = &experiment.modules.rdm_prediction else { return Ok(None) };
    let net = load(&rdm.run, shards, device)?;
    net.layer(rdm.target())?;
    Ok(Some(net))
}

/// The network as training begins. `fresh` is false for a run that is gone on with, whose weights come from its
/// checkpoint.
pub(super) fn network(
    experiment: &Experiment,
    info: &DataInfo,
    device: Device,
    fresh: bool,
    show: Show,
) -> anyhow::Result<Network> {
    let seed = |item: u64| device::seed(RngKey::new(experiment.seed, Purpose::Init, 0).word(0, item));
    seed(0);
    let net = Network::new(&experiment.model, info, device, experiment.runtime())?;
    experiment.modules.fit(&net)?;
    if let Some(path) = source(experiment).filter(|_| fresh) {
        let weights = Weights::read(&path).context("init.from")?;
        let tensors = renamed(&network_weights(&weights), &net);
        let told = if experiment.init.strict {
            net.params().load(&tensors, &path.display().to_string())?;
            "all of it".to_owned()
        } else {
            net.params().load_fitting(&tensors, &path.display().to_string())?.to_string()
        };
        // Theirs may be beyond the bounds, to which the reference brings them in every pass.
        net.clamp_readouts()?;
        show.line(&format!("weights of {}: {told}", path.display()));
    }
    let freeze = &experiment.freeze;
    if fresh && !freeze.reset.is_empty() {
        seed(1);
        let layers = names(&freeze.reset);
        net.reset((layers != ["all"]).then_some(layers.as_slice()))?;
    }
    for (list, others) in [(&freeze.parameters, false), (&freeze.all_but, true)] {
        if !list.is_empty() {
            net.freeze(&names(list), others)?;
        }
    }
    Ok(net)
}

fn names(list: &[String]) -> Vec<&str> {
    list.iter().map(String::as_str).collect()
}

/// File of the weights to start from.
fn source(experiment: &Experiment) -> Option<PathBuf> {
    let init = &experiment.init;
    if init.from.as_os_str().is_empty() {
        return None;
    }
    let run = Run::open(&init.from).ok();
    Some(run.map_or_else(|| init.from.clone(), |run| run.checkpoint(&init.checkpoint)))
}

/// Digest of that file, which the run depends on.
pub(super) fn digest(experiment: &Experiment) -> anyhow::Result<Option<String>> {
    source(experiment).map(|path| digest_of(&path, "init.from")).transpose()
}

/// Digests of the files that settings name or mean, by setting; that of `init.from` is given.
pub(super) fn digests(
    experiment: &Experiment,
    init: Option<String>,
) -> anyhow::Result<BTreeMap<&'static str, String>> {
    let setting = "modules.rdm_prediction.run";
    let teacher = experiment.modules.rdm_prediction.as_ref();
    let teacher =
        teacher.map(|rdm| Run::open(&rdm.run)).transpose()?.map(|run| run.checkpoint(run.final_weights()));
    let teacher = teacher.map(|path| digest_of(&path, setting)).transpose()?;
    // Frost of textures, which needs no files, is what it always was.
    let pictures = trains_with_frost(experiment) && frost::asked() == Source::Pictures;
    let pictures = pictures
        .then(|| Fingerprint::of_parts(FILES.iter().map(|(_, digest)| digest.as_bytes())).to_string());
    let named = [("init.from", init), (setting, teacher), ("data.augment.distort.kinds", pictures)];
    Ok(named.into_iter().filter_map(|(setting, digest)| Some((setting, digest?))).collect())
}

/// Whether images are shown under frost, in training or by the suites between epochs.
pub(super) fn shows_frost(experiment: &Experiment) -> bool {
    let frost = |suite: CorruptionSuite| suite.corruptions.contains(&Corruption::Frost);
    let mut every = experiment.evaluation.every.iter();
    trains_with_frost(experiment) || every.any(|every| every.corruption_suite().is_some_and(frost))
}

/// Whether training images are shown under frost.
pub(super) fn trains_with_frost(experiment: &Experiment) -> bool {
    let (data, modules) = (&experiment.data, &experiment.modules);
    let second = modules.representation_matching.as_ref().map(|matching| matching.second_view(&data.augment));
    let views = [&data.augment, &data.neural_augment].into_iter().chain(&second);
    views.flat_map(|view| &view.distort).any(|distort| distort.kinds.contains(&Corruption::Frost))
}

fn digest_of(path: &Path, setting: &str) -> anyhow::Result<String> {
    let bytes = std::fs::read(path);
    let bytes = bytes.map_err(|e| Usage(format!("{}: {e}; see {setting}", path.display())))?;
    Ok(Fingerprint::of_large(&bytes).to_string())
}
