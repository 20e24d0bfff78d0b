//! Unsafe fence 2: devices. CUDA is opened at run time, so that one binary serves CPU and GPU; on a CPU, the memory of
//! activations is kept.
#![expect(unsafe_code, reason = "opening a shared library is unsafe by nature; this is its only place")]

use super::ModelError;
use crate::torch_ext::be_exact;
use std::path::{Path, PathBuf};
use tch::{Cuda, Device};

/// A device and why it was chosen.
#[derive(Debug)]
pub struct Selected {
    /// The device.
    pub device: Device,
    /// For the user.
    pub note: String,
}

/// Selects `auto`, `cpu`, `cuda` or `cuda:N`. To be called before the first tensor operation.
///
/// `auto` takes the GPU where there is one that works, and its note says what it took and why; a GPU that was
/// asked for by name and does not work is an error.
pub fn select(name: &str) -> Result<Selected, ModelError> {
    let cpu = |why: &str| Selected { device: Device::Cpu, note: format!("cpu ({why})") };
    let selected = match name {
        "cpu" => Ok(cpu("as asked")),
        "auto" if !gpu_present() => Ok(cpu("no NVIDIA GPU here")),
        "auto" => Ok(gpu(0).unwrap_or_else(|e| cpu(&e.to_string()))),
        "cuda" => gpu(0),
        _ => match name.strip_prefix("cuda:").map(str::parse) {
            Some(Ok(index)) => gpu(index),
            _ => Err(ModelError::Device(format!("{name:?}: expected auto, cpu, cuda or cuda:N"))),
        },
    };
    selected.inspect(|selected| {
        if selected.device == Device::Cpu {
            keep_freed_memory();
        }
    })
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

fn gpu(index: usize) -> Result<Selected, ModelError> {
    if !gpu_present() {
        return Err(ModelError::Device(format!(
            "cuda:{index}: this machine has no NVIDIA GPU or driver; use --device cpu"
        )));
    }
    open_cuda()?;
    let n = Cuda::device_count();
    if !Cuda::is_available() || index as i64 >= n {
        let what = format!("cuda:{index}: libtorch finds {n} usable GPUs; `nct doctor` says more");
        return Err(ModelError::Device(what));
    }
    be_exact().map_err(ModelError::Device)?;
    Ok(Selected { device: Device::Cuda(index), note: format!("cuda:{index} of {n}") })
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
