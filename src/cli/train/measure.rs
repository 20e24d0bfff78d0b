//! `nct bench train`: how fast updates are, what their parts take, and how far that is from what the device can do.

use super::super::show::{Show, bytes, out, table};
use super::plan::cost;
use super::{Args, train};
use crate::base::Task;
use crate::config::Experiment;
use crate::model::{DataInfo, Precision};
use crate::torch_ext;
use crate::train::Trainer;
use crate::train::measure::{BatchTimes, Measured, median};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Instant;
use tch::{Device, Kind, Tensor};

/// Arguments of `nct bench train`.
#[derive(Debug, clap::Args)]
pub(crate) struct BenchArgs {
    /// Folder of shards, or its URL (nct help stores)
    #[arg(long, default_value = "shards")]
    shards: PathBuf,
    /// Settings; without it, the paper's co-training
    #[arg(long)]
    config: Option<PathBuf>,
    /// Change a setting, such as `--set numerics.precision=bf16` (may be repeated)
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Updates that are measured
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    updates: u64,
    /// Updates before them
    #[arg(long, default_value_t = 3)]
    warm_up: u64,
    /// auto, cpu, cuda or cuda:N
    #[arg(long, default_value = "auto")]
    device: String,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// What is measured instead of training.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Measure {
    warm_up: u64,
    updates: u64,
    json: bool,
}

pub(crate) fn run(args: &BenchArgs) -> anyhow::Result<()> {
    // A run needs a folder; nothing in it is kept.
    let folder = tempfile::tempdir()?;
    let measured = Measure { warm_up: args.warm_up, updates: args.updates, json: args.json };
    let training = Args {
        shards: args.shards.clone(),
        config: args.config.clone(),
        set: args.set.clone(),
        device: args.device.clone(),
        out: folder.path().to_path_buf(),
        measured: Some(measured),
        ..Args::default()
    };
    // What training tells is of a run that is thrown away.
    train(&super::recipe(&training)?, &training, None, Show::new(true)).map(drop)
}

/// Measures, and tells.
pub(super) fn measure(
    trainer: &mut Trainer<'_>,
    measure: Measure,
    experiment: &Experiment,
    info: &DataInfo,
    note: &str,
) -> anyhow::Result<()> {
    let found = trainer.measure(measure.warm_up, measure.updates)?;
    let device = trainer.net.params().device();
    let rate = matmul_rate(device, experiment.numerics.precision)?;
    let told = summary(&found, trainer, experiment, info, note, rate)?;
    if measure.json { out(&told.to_string()) } else { out(&tables(&told)) }
}

/// FLOP a second of a large matrix product: the best of six.
fn matmul_rate(device: Device, precision: Precision) -> anyhow::Result<f64> {
    // A CPU multiplies rounded numbers in 32 bits.
    let narrow = precision == Precision::Bf16 && device.is_cuda();
    let kind = if narrow { Kind::BFloat16 } else { precision.wide() };
    let seconds = |n: i64, rounds: u32| -> anyhow::Result<f64> {
        let factor = Tensor::f_randn([n, n], (Kind::Float, device))?.to_kind(kind);
        let once = || -> anyhow::Result<f64> {
            let began = Instant::now();
            let product = factor.f_matmul(&factor)?;
            // A value that is read comes after the product.
            let _ = product.get(0).get(0).double_value(&[]);
            Ok(began.elapsed().as_secs_f64())
        };
        (0..rounds).map(|_| once()).try_fold(f64::INFINITY, |best, one| Ok(best.min(one?)))
    };
    let mut n = if device.is_cuda() { 512 } else { LARGEST_ON_CPU };
    // What stands in for a GPU may be slow; the first product of a size waits for its kernels.
    while device.is_cuda() && n < LARGEST && seconds(n, 2)? < 0.1 {
        n *= 2;
    }
    Ok(2.0 * (n as f64).powi(3) / seconds(n, 6)?)
}

/// Side of the matrices that are multiplied.
const LARGEST: i64 = 8192;
const LARGEST_ON_CPU: i64 = 1536;

fn summary(
    found: &Measured,
    trainer: &Trainer<'_>,
    experiment: &Experiment,
    info: &DataInfo,
    note: &str,
    rate: f64,
) -> anyhow::Result<Value> {
    let (rows, sources) = (trainer.net.table(info)?, &trainer.sources);
    let seconds: f64 = found.seconds.iter().sum();
    let mut tasks = Vec::new();
    for task in Task::ALL.into_iter().filter(|task| sources.iter().any(|s| s.task == *task)) {
        let of_task = |stream: usize| sources[stream].task == task;
        let samples: u64 =
            found.samples.iter().enumerate().filter(|(i, _)| of_task(*i)).map(|(_, n)| n).sum();
        let batches: Vec<&BatchTimes> = found.batches.iter().filter(|batch| of_task(batch.stream)).collect();
        let total = |of: fn(&BatchTimes) -> f64| batches.iter().map(|b| of(b)).sum::<f64>();
        let (forward, backward) = (total(|b| b.forward), total(|b| b.backward));
        // Backward costs twice as much as forward; a MAC is two FLOPs.
        let views = if task == Task::Classification { experiment.views() } else { 1 };
        let macs =
            |b: &&BatchTimes| cost(&rows, &sources[b.stream]).0 as f64 * (views * b.samples as u64) as f64;
        let flops: f64 = batches.iter().map(|b| 6.0 * macs(b)).sum();
        let reached = flops / (forward + backward);
        tasks.push(json!({
            "task": task.as_str(), "samples_per_s": samples as f64 / seconds,
            "forward_ms": (!batches.is_empty()).then_some(1e3 * forward),
            "backward_ms": (!batches.is_empty()).then_some(1e3 * backward),
            "flop_per_s": reached, "utilisation": reached / rate,
        }));
    }
    Ok(json!({
        "device": note, "updates": found.seconds.len(), "updates_per_s": found.seconds.len() as f64 / seconds,
        "update_ms": 1e3 * median(&mut found.seconds.clone()), "waiting_share": found.waited / seconds,
        "optimizer_ms": 1e3 * found.optimizer, "matmul_flop_per_s": rate, "peak_bytes": peak_memory(),
        "device_peak_bytes": device_peak(trainer.net.params().device())?, "tasks": tasks,
    }))
}

/// Most memory that tensors have had on a GPU.
fn device_peak(device: Device) -> anyhow::Result<Option<u64>> {
    match device {
        Device::Cuda(gpu) => Ok(Some(torch_ext::peak_memory(gpu).map_err(anyhow::Error::msg)?)),
        _ => Ok(None),
    }
}

/// Most memory that the process has had, as far as the system tells.
fn peak_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
}

fn tables(told: &Value) -> String {
    let real =
        |value: &Value, digits: usize| value.as_f64().map_or_else(String::new, |v| format!("{v:.digits$}"));
    let mut parts = table(&["task", "samples/s", "forward", "backward", "GFLOP/s", "of the matrix product"]);
    for task in told["tasks"].as_array().into_iter().flatten() {
        let percent =
            task["utilisation"].as_f64().map_or_else(String::new, |v| format!("{:.0} %", 100.0 * v));
        let giga = task["flop_per_s"].as_f64().map_or_else(String::new, |v| format!("{:.0}", v / 1e9));
        let ms = |key: &str| format!("{} ms", real(&task[key], 1));
        let name = task["task"].as_str().unwrap_or_default().to_owned();
        parts.add_row([
            name,
            real(&task["samples_per_s"], 0),
            ms("forward_ms"),
            ms("backward_ms"),
            giga,
            percent,
        ]);
    }
    let mut whole = table(&["", ""]);
    whole.add_row(["device".to_owned(), told["device"].as_str().unwrap_or_default().to_owned()]);
    whole.add_row(["updates a second".to_owned(), real(&told["updates_per_s"], 2)]);
    whole.add_row(["an update, median".to_owned(), format!("{} ms", real(&told["update_ms"], 1))]);
    whole.add_row(["the optimiser of it".to_owned(), format!("{} ms", real(&told["optimizer_ms"], 1))]);
    let waiting = 100.0 * told["waiting_share"].as_f64().unwrap_or(0.0);
    whole.add_row(["waiting for data".to_owned(), format!("{waiting:.1} %")]);
    let giga = told["matmul_flop_per_s"].as_f64().unwrap_or(0.0) / 1e9;
    whole.add_row(["a matrix product reaches".to_owned(), format!("{giga:.0} GFLOP/s")]);
    whole.add_row([
        "peak memory of the process".to_owned(),
        told["peak_bytes"].as_u64().map_or_else(String::new, bytes),
    ]);
    if let Some(peak) = told["device_peak_bytes"].as_u64() {
        whole.add_row(["peak memory of tensors on the device".to_owned(), bytes(peak)]);
    }
    format!("{parts}\n{whole}")
}
