//! Everything that training reads, written down for a comparison with other programs (`tools/parity`): first
//! weights, each update's batches, torch seed and losses, and the validation data with what the network of the first
//! weights makes of them.

use super::TrainError;
use crate::base::{StepIndex, Task};
use crate::eval::images_of;
use crate::load::{Batch, Loader, LoaderOptions, Source, Step, Targets};
use crate::model::weights::encode;
use crate::model::{Mode, Network, Param};
use crate::objective::Objective;
use crate::runs::{RunError, write_atomic};
use crate::schedule::{Mix, Schedule, StreamSpec};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tch::{Device, Tensor};

/// Writes updates into a folder.
#[derive(Debug)]
pub struct Recorder {
    folder: PathBuf,
    names: Vec<String>,
}

impl Recorder {
    /// Makes `folder` and writes first weights, and of each validation source images, targets and outputs.
    pub fn start(
        folder: &Path,
        net: &Network,
        objective: &Objective,
        sources: &[Source],
        validation: Vec<Source>,
        classes: usize,
    ) -> Result<Self, TrainError> {
        let made = std::fs::create_dir_all(folder);
        made.map_err(|source| RunError::Io { path: folder.into(), action: "create", source })?;
        let mut weights = net.params().state();
        weights.extend(objective.params().state());
        write(&folder.join("init.safetensors"), &weights, None)?;
        let neural = sources.iter().filter(|s| s.task.is_neural());
        let sessions: serde_json::Map<String, Value> =
            neural.map(|s| (s.name.clone(), json!(s.n_neurons()))).collect();
        let about = json!({"sessions": sessions, "classes": classes});
        write_atomic(&folder.join("record.json"), format!("{about:#}\n").as_bytes())?;
        write_all(folder, net, validation)?;
        Ok(Self { folder: folder.into(), names: sources.iter().map(|s| s.name.clone()).collect() })
    }

    /// Writes the batches of an update, the seed of torch's generator before it, the batches' losses and the
    /// gradients of all parameters (`grad.<name>`).
    pub(super) fn update<'a>(
        &self,
        step: &Step,
        seed: i64,
        losses: &[f64],
        params: impl Iterator<Item = &'a Param>,
        images: &dyn Fn(&Batch) -> Result<Tensor, TrainError>,
    ) -> Result<(), TrainError> {
        let used = params.filter(|p| p.tensor.grad().defined());
        let mut tensors: Vec<_> = used.map(|p| (format!("grad.{}", p.name), p.tensor.grad())).collect();
        let mut batches = Vec::new();
        for (i, (batch, loss)) in step.batches.iter().zip(losses).enumerate() {
            tensors.push((format!("batch{i}.images"), images(batch)?.f_to_device(Device::Cpu)?));
            tensors.push((format!("batch{i}.targets"), targets_of(batch)?));
            let source = &self.names[batch.stream.0 as usize];
            batches.push(json!({"task": batch.task, "source": source, "loss": loss, "ids": batch.ids}));
        }
        let StepIndex(number) = step.plan.step;
        let plan = json!({"update": number, "epoch": step.plan.epoch, "seed": seed, "batches": batches});
        write(&self.folder.join(format!("update-{number:06}.safetensors")), &tensors, Some(&plan))
    }
}

/// All records of each source, in file order, and logits or responses in evaluation mode.
fn write_all(folder: &Path, net: &Network, sources: Vec<Source>) -> Result<(), TrainError> {
    let names: Vec<(Task, String)> = sources.iter().map(|s| (s.task, s.name.clone())).collect();
    let stream = |s: &Source| StreamSpec::new(s.task, s.n_records(), 256);
    let planned = Schedule::new(sources.iter().map(stream).collect(), Mix::InOrder, 0);
    let schedule = Arc::new(planned.map_err(|e| TrainError::Settings(e.to_string()))?);
    let steps = 0..schedule.steps_per_epoch();
    let loader = Loader::start(&Arc::new(sources), &schedule, 0, steps, LoaderOptions::default())?;
    let mut parts: Vec<[Vec<Tensor>; 3]> = names.iter().map(|_| Default::default()).collect();
    for step in loader {
        for batch in &step?.batches {
            let (images, targets) = (images_of(batch, Device::Cpu)?, targets_of(batch)?);
            let stream = batch.stream.0 as usize;
            let session = names[..stream].iter().filter(|(task, _)| task.is_neural()).count();
            let outputs = outputs(net, &images, names[stream].0, session)?;
            parts[stream].iter_mut().zip([images, targets, outputs]).for_each(|(all, new)| all.push(new));
        }
    }
    for ((task, name), parts) in names.iter().zip(parts) {
        let targets = if task.is_neural() { "responses" } else { "labels" };
        let whole = ["images", targets, "outputs"].into_iter().zip(parts);
        let tensors: Vec<(String, Tensor)> =
            whole.map(|(what, parts)| (what.to_owned(), Tensor::cat(&parts, 0))).collect();
        write(&folder.join(format!("validation-{name}.safetensors")), &tensors, None)?;
    }
    Ok(())
}

fn outputs(net: &Network, images: &Tensor, task: Task, session: usize) -> Result<Tensor, TrainError> {
    let images = images.f_to_device(net.params().device())?;
    let outputs = tch::no_grad(|| {
        if task.is_neural() {
            net.respond(&images, session, Mode::EVAL)
        } else {
            net.classify(&images, Mode::EVAL)
        }
    });
    Ok(outputs?.f_to_device(Device::Cpu)?)
}

fn targets_of(batch: &Batch) -> Result<Tensor, tch::TchError> {
    match batch.targets() {
        Targets::Labels(labels) => Tensor::f_from_slice(labels),
        Targets::Responses(responses) | Targets::Both { responses, .. } => {
            Tensor::f_from_slice(responses)?.f_view([batch.len() as i64, -1])
        }
    }
}

fn write(path: &Path, tensors: &[(String, Tensor)], plan: Option<&Value>) -> Result<(), TrainError> {
    let metadata: Vec<(&str, String)> = plan.iter().map(|plan| ("plan", plan.to_string())).collect();
    Ok(write_atomic(path, &encode(tensors, &metadata)?)?)
}
