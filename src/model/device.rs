//! Unsafe fence 2: devices. CUDA is opened at run time, so that one binary serves CPU and GPU; on a CPU, the memory of
//! activations is kept.
#![expect(unsafe_code, reason = "opening a shared library is unsafe by nature; this is its only place")]

mod driver;

use super::{ModelError, Runtime};
use crate::torch_ext::{compile_kernels, use_gpu};
pub use driver::{Driver, Gpu};
use std::path::{Path, PathBuf};
use tch::{Cuda, Device};

/// A device and why it was chosen.
#[derive(Debug)]
pub struct Selected {
    /// The device.
    pub device: Device,
    /// For the user.
    pub note: String,
    /// Why a GPU that is here is not used, though none was told not to.
    pub unused: Option<String>,
}

/// Selects `auto`, `cpu`, `cuda` or `cuda:N`. To be called before the first tensor operation.
///
/// `auto` takes the GPU where there is one that works, and its note says what it took and why; a GPU that was
/// asked for by name and does not work is an error.
pub fn select(name: &str) -> Result<Selected, ModelError> {
    select_own(name, 0, 1)
}

/// As [`select`], for process `rank` of `here` on this machine, each of which has a GPU of its own.
pub fn select_own(name: &str, rank: u32, here: u32) -> Result<Selected, ModelError> {
    let own = |n: usize| own_of(n, rank as usize, here as usize);
    let cpu = |why: &str| Selected { device: Device::Cpu, note: format!("cpu ({why})"), unused: None };
    let instead = |e: ModelError| Selected { unused: Some(e.to_string()), ..cpu(&e.to_string()) };
    let selected = match name {
        "cpu" => Ok(cpu("as asked")),
        "auto" if !gpu_present() => Ok(cpu("no NVIDIA GPU here")),
        "auto" if here == 1 => Ok(gpu(own).unwrap_or_else(instead)),
        // Several processes that each chose for themselves would wait for each other.
        "auto" | "cuda" => gpu(own),
        _ => match name.strip_prefix("cuda:").map(str::parse) {
            Some(Ok(index)) => gpu(|_| Ok(index)),
            _ => Err(ModelError::Device(format!("{name:?}: expected auto, cpu, cuda or cuda:N"))),
        },
    };
    selected.inspect(|selected| {
        if selected.device == Device::Cpu {
            keep_freed_memory();
        }
    })
}

/// Makes ready what training on `device` needs beside libtorch, so that it does not begin where something is missing.
pub fn prepare(device: Device, runtime: Runtime) -> Result<(), ModelError> {
    match device {
        Device::Cuda(gpu) if runtime.has_kernels() => compile_kernels(gpu).map_err(ModelError::Device),
        _ => Ok(()),
    }
}

/// Whether a GPU multiplies in bfloat16, as those of compute capability 8.0 and more do. What is not known is taken to.
pub fn has_bfloat16(device: Device) -> bool {
    let Device::Cuda(index) = device else { return true };
    let gpus = Driver::ask().and_then(|driver| driver.gpus.ok()).unwrap_or_default();
    gpus.get(index).is_none_or(|gpu| gpu.capability >= 80)
}

/// Lets the C library keep freed memory, however large its pieces: activations are freed and asked for again at every
/// step, and memory that comes new from the system is zeroed page by page, which cost a quarter of a step.
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        const TRIM_THRESHOLD: i32 = -1;
        const MMAP_THRESHOLD: i32 = -3;
        unsafe extern "C" {
            fn mallopt(parameter: i32, value: i32) -> i32;
        }
        // SAFETY: glibc's mallopt(3) may be called at any time from any thread; it changes how memory is taken from the
        // system and given back, and no memory that is in use. -1 is its word for never giving back.
        unsafe {
            mallopt(TRIM_THRESHOLD, -1);
            mallopt(MMAP_THRESHOLD, i32::MAX);
        }
    }
}

/// The GPU of process `rank` of `here`, of `n` that it sees.
fn own_of(n: usize, rank: usize, here: usize) -> Result<usize, ModelError> {
    match n {
        // Given to it alone, as `srun --gpus-per-task=1` does; NCCL refuses two on one.
        1 => Ok(0),
        _ if here <= n || n == 0 => Ok(rank),
        _ => Err(ModelError::Device(format!("cuda: {here} processes need a GPU each, and {n} are here"))),
    }
}

/// The GPU that `choose` takes of so many.
fn gpu(choose: impl Fn(usize) -> Result<usize, ModelError>) -> Result<Selected, ModelError> {
    if !gpu_present() {
        return Err(ModelError::Device(
            "cuda: this machine has no NVIDIA GPU or driver; use --device cpu".into(),
        ));
    }
    // Before libtorch's half, which takes seconds to load, and of an obstacle says but that it finds no GPU.
    let driver = Driver::ask();
    if let Some((state, way_out)) = driver.as_ref().and_then(Driver::obstacle) {
        return Err(ModelError::Device(format!("cuda: {state}; {way_out}")));
    }
    open_cuda()?;
    let n = usize::try_from(Cuda::device_count()).unwrap_or(0);
    let index = choose(n)?;
    let known = driver.as_ref().and_then(|driver| driver.gpus.as_ref().ok()?.get(index));
    if let Some(why) = known.and_then(Gpu::obstacle) {
        return Err(ModelError::Device(format!("cuda:{index}: {why}; take another GPU, or --device cpu")));
    }
    if !Cuda::is_available() || index >= n {
        let what = format!("cuda:{index}: libtorch finds {n} usable GPUs, which are counted from cuda:0");
        return Err(ModelError::Device(what));
    }
    use_gpu(index).map_err(ModelError::Device)?;
    let name = known.map(|gpu| format!(", {}", gpu.name)).unwrap_or_default();
    Ok(Selected { device: Device::Cuda(index), note: format!("cuda:{index} of {n}{name}"), unused: None })
}

/// Whether the NVIDIA driver is there, or a CUDA half of libtorch was named, which then must know.
pub fn gpu_present() -> bool {
    let driver = ["/dev/nvidiactl", "/dev/dxg"].iter().any(|path| Path::new(path).exists());
    driver || std::env::var_os(CUDA_LIBRARY).is_some()
}

/// The libtorch this program was linked with.
pub fn libtorch() -> &'static Path {
    Path::new(env!("NCT_LIBTORCH"))
}

/// Version of the libtorch in place, from its headers.
pub fn libtorch_version() -> Option<String> {
    let header = libtorch().join("include/torch/headeronly/version.h");
    let text = std::fs::read_to_string(header).ok()?;
    let number = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(&format!("#define TORCH_VERSION_{name} ")))?;
        line.split_whitespace().nth(2).map(str::to_owned)
    };
    Some(format!("{}.{}.{}", number("MAJOR")?, number("MINOR")?, number("PATCH")?))
}

/// Environment variable: another file to take for the CUDA half of libtorch.
const CUDA_LIBRARY: &str = "NCT_CUDA_LIBRARY";

/// Where the CUDA half of libtorch should be.
pub fn cuda_library() -> PathBuf {
    let named = std::env::var_os(CUDA_LIBRARY).map(PathBuf::from);
    named.unwrap_or_else(|| libtorch().join("cuda").join("libtorch_cuda.so"))
}

/// What to do if it is missing or wrong.
pub fn cuda_way_out() -> &'static str {
    match std::env::var_os(CUDA_LIBRARY) {
        Some(_) => "correct or unset NCT_CUDA_LIBRARY",
        None => "run tools/setup --cuda",
    }
}

/// Loads the CUDA half of libtorch for the rest of the process.
fn open_cuda() -> Result<(), ModelError> {
    use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
    // Its own folder, not the link to it: there its dependencies are looked up.
    let path = cuda_library().canonicalize().unwrap_or_else(|_| cuda_library());
    // SAFETY: the library is the other half of the libtorch this program is linked with, put there by tools/setup, or
    // what the user names as such; its initialisers register kernels and do nothing else. It is never closed.
    let opened = unsafe { Library::open(Some(&path), RTLD_NOW | RTLD_GLOBAL) };
    match opened {
        Ok(library) => {
            std::mem::forget(library);
            Ok(())
        }
        Err(e) => {
            let why = std::error::Error::source(&e).map_or_else(|| e.to_string(), ToString::to_string);
            Err(ModelError::Device(format!("cuda: {}: {why}; {}", path.display(), cuda_way_out())))
        }
    }
}

/// Seeds torch's generators on all devices.
pub fn seed(seed: u64) {
    tch::manual_seed(seed as i64);
}

#[cfg(test)]
mod tests {
    use super::own_of;

    #[test]
    fn each_process_has_a_gpu_of_its_own() {
        let own = |n, rank, here| own_of(n, rank, here).map_err(|e| e.to_string());
        assert_eq!((own(8, 0, 1), own(8, 3, 4), own(4, 3, 4)), (Ok(0), Ok(3), Ok(3)));
        // Each sees but its own.
        assert_eq!(own(1, 3, 4), Ok(0));
        assert!(own(2, 1, 3).unwrap_err().contains("3 processes need a GPU each, and 2 are here"));
    }
}
