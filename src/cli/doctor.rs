//! `nct doctor`: what is here, what is missing, and the command that brings it.

use super::show::out;
use serde_json::{Value, json};

/// Arguments of `nct doctor`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// One finding: what, how it is, and the way out where something is missing.
struct Finding {
    what: &'static str,
    state: String,
    fix: Option<String>,
}

fn fine(what: &'static str, state: impl Into<String>) -> Finding {
    Finding { what, state: state.into(), fix: None }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let findings = findings();
    if args.json {
        let entry = |f: &Finding| (f.what.to_owned(), json!({"state": f.state, "fix": f.fix}));
        let object: serde_json::Map<String, Value> = findings.iter().map(entry).collect();
        return out(&Value::Object(object).to_string());
    }
    for Finding { what, state, fix } in &findings {
        out(&format!("{what:>10}  {state}"))?;
        if let Some(fix) = fix {
            out(&format!("{:>10}  {fix}", "->"))?;
        }
    }
    Ok(())
}

fn findings() -> Vec<Finding> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut findings = vec![
        fine("nct", env!("CARGO_PKG_VERSION")),
        fine("cores", cores.to_string()),
        fine(
            "checksums",
            if has_crc() { "by the CPU's own instructions" } else { "in software: slower reading" },
        ),
    ];
    findings.extend(torch());
    findings
}

#[cfg(target_arch = "x86_64")]
fn has_crc() -> bool {
    std::arch::is_x86_feature_detected!("pclmulqdq")
}

#[cfg(not(target_arch = "x86_64"))]
fn has_crc() -> bool {
    cfg!(target_arch = "aarch64")
}

#[cfg(not(feature = "torch"))]
fn torch() -> Vec<Finding> {
    let fix = "tools/setup, then cargo build --release".to_owned();
    vec![Finding {
        what: "libtorch",
        state: "this program was built without it: no training".into(),
        fix: Some(fix),
    }]
}

#[cfg(feature = "torch")]
fn torch() -> Vec<Finding> {
    use crate::model::device;
    let place = device::libtorch();
    let version = device::libtorch_version().unwrap_or_else(|| "of unknown version".into());
    let mut findings = vec![fine("libtorch", format!("{version}, in {}", place.display()))];
    findings.extend(gpus());
    findings.push(match device::select("auto") {
        Ok(selected) => fine("device", selected.note),
        Err(e) => {
            Finding { what: "device", state: e.to_string(), fix: Some("nct train --device cpu".into()) }
        }
    });
    findings
}

/// Whether the kernels of this program can be compiled for the GPU.
#[cfg(feature = "torch")]
fn kernels(gpu: tch::Device) -> Finding {
    let tch::Device::Cuda(index) = gpu else { return fine("kernels", "none: they are for GPUs") };
    match crate::torch_ext::compile_kernels(index) {
        Ok(()) => fine("kernels", "of nct's own are compiled for this GPU"),
        Err(e) => Finding {
            what: "kernels",
            state: e,
            fix: Some("tools/setup --cuda, or numerics.fused = false".into()),
        },
    }
}

/// The driver, its GPUs, and whether libtorch can use them.
#[cfg(feature = "torch")]
fn gpus() -> Vec<Finding> {
    use crate::model::device::{self, Driver, Gpu};
    if !device::gpu_present() {
        return vec![fine("GPU", "no NVIDIA GPU or driver: training runs on the CPU")];
    }
    let missing = |state: String, fix: &str| Finding { what: "GPU", state, fix: Some(fix.into()) };
    let driver = Driver::ask();
    let mut findings = Vec::new();
    if let Some(driver) = &driver {
        let version = driver.version.as_deref().unwrap_or("of unknown version");
        findings.push(fine("driver", format!("{version}, CUDA up to {}", driver.newest_cuda())));
        if let Some((state, fix)) = driver.obstacle() {
            findings.push(missing(state, fix));
            return findings;
        }
        let cards: Vec<String> = driver.gpus.iter().flatten().map(Gpu::told).collect();
        findings.push(fine("cards", cards.join("; ")));
    }
    let cuda = device::cuda_library();
    if !cuda.exists() {
        findings.push(missing(
            format!("there is one, and {} is missing", cuda.display()),
            device::cuda_way_out(),
        ));
        return findings;
    }
    match device::select("cuda") {
        Ok(selected) => {
            findings.push(fine("GPU", selected.note));
            findings.push(kernels(selected.device));
        }
        // Which has its own way out in it.
        Err(e) => findings.push(missing(e.to_string(), "nct explain N503")),
    }
    findings
}
