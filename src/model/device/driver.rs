//! Unsafe fence: what NVIDIA's driver says of itself and of its GPUs, through its C interface, before libtorch's CUDA half
//! is loaded, which only says how many it can use.
#![expect(unsafe_code, reason = "a C interface that is opened at run time")]

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW, Symbol};
use std::ffi::{CStr, c_char, c_int, c_uint};

/// What the driver says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Driver {
    /// Newest CUDA that it runs, 13000 for 13.0.
    pub cuda: u32,
    /// Its own version, such as `580.65.06`, where the kernel tells it.
    pub version: Option<String>,
    /// The GPUs that this process may use, in CUDA's order; or the driver's word why there are none.
    pub gpus: Result<Vec<Gpu>, String>,
}

/// A GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpu {
    /// As NVIDIA calls it.
    pub name: String,
    /// Compute capability, 90 for 9.0.
    pub capability: u32,
    /// Its memory in bytes.
    pub memory: u64,
}

/// Oldest CUDA whose drivers run the libtorch in place, which is built for CUDA 13.0: drivers from 580 on.
const CUDA: u32 = 13_000;

/// Oldest compute capability that CUDA 13 compiles for: Turing.
const CAPABILITY: u32 = 75;

impl Driver {
    /// Asks the driver; `None` where none is installed.
    pub fn ask() -> Option<Self> {
        // SAFETY: the driver's own library, whose initialisers libtorch's CUDA half would run too.
        let library = unsafe { Library::open(Some("libcuda.so.1"), RTLD_NOW | RTLD_LOCAL) }.ok()?;
        let calls = Calls::of(&library)?;
        let driver = Self { cuda: calls.version()?, version: Self::version(), gpus: calls.gpus() };
        // It stays: libtorch opens it too, and it is not made to be closed and opened again.
        std::mem::forget(library);
        Some(driver)
    }

    /// Version of the kernel's half of the driver, where there is one.
    pub fn version() -> Option<String> {
        version_in(&std::fs::read_to_string("/proc/driver/nvidia/version").ok()?)
    }

    /// Newest CUDA that it runs, in words.
    pub fn newest_cuda(&self) -> String {
        dotted(self.cuda)
    }

    /// What keeps libtorch from using any GPU, and the way out; `None` if nothing is known to.
    pub fn obstacle(&self) -> Option<(String, &'static str)> {
        if self.cuda < CUDA {
            let version = self.version.as_ref().map(|v| format!(" {v}")).unwrap_or_default();
            let (runs, needed) = (self.newest_cuda(), dotted(CUDA));
            let state = format!("driver{version} runs CUDA up to {runs}, and libtorch needs {needed}");
            return Some((state, "install NVIDIA's driver 580 or newer; until then --device cpu"));
        }
        let why = match &self.gpus {
            Ok(gpus) if gpus.is_empty() => "it has none for this process",
            Ok(_) => return None,
            Err(why) => why,
        };
        let way_out = "see that `nvidia-smi` lists a GPU and CUDA_VISIBLE_DEVICES does not hide it; after an update of \
                       the driver, restart the machine";
        Some((format!("the driver gives no GPU: {why}"), way_out))
    }
}

impl Gpu {
    /// Why libtorch cannot use this one, if it cannot.
    pub fn obstacle(&self) -> Option<String> {
        (self.capability < CAPABILITY).then(|| {
            let (has, needed) = (tenths(self.capability), tenths(CAPABILITY));
            format!(
                "{} has compute capability {has}, and libtorch is built for {needed} and newer",
                self.name
            )
        })
    }

    /// In words.
    pub fn told(&self) -> String {
        format!("{}, {} GiB, compute capability {}", self.name, self.memory >> 30, tenths(self.capability))
    }
}

fn dotted(version: u32) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}

fn tenths(capability: u32) -> String {
    format!("{}.{}", capability / 10, capability % 10)
}

/// `NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  …`, or `… Open Kernel Module for x86_64  580.65.06 …`.
fn version_in(text: &str) -> Option<String> {
    let number = |word: &&str| word.contains('.') && word.chars().all(|c| c.is_ascii_digit() || c == '.');
    text.lines().next()?.split_whitespace().find(number).map(str::to_owned)
}

/// Functions of the CUDA driver API; all give 0 if they did what was asked.
struct Calls<'a> {
    init: Symbol<unsafe extern "C" fn(c_uint) -> c_int>,
    driver_version: Symbol<unsafe extern "C" fn(*mut c_int) -> c_int>,
    device_count: Symbol<unsafe extern "C" fn(*mut c_int) -> c_int>,
    device_get: Symbol<unsafe extern "C" fn(*mut c_int, c_int) -> c_int>,
    device_name: Symbol<unsafe extern "C" fn(*mut c_char, c_int, c_int) -> c_int>,
    device_attribute: Symbol<unsafe extern "C" fn(*mut c_int, c_int, c_int) -> c_int>,
    device_memory: Symbol<unsafe extern "C" fn(*mut usize, c_int) -> c_int>,
    error_string: Symbol<unsafe extern "C" fn(c_int, *mut *const c_char) -> c_int>,
    /// What they belong to.
    _library: &'a Library,
}

impl<'a> Calls<'a> {
    fn of(library: &'a Library) -> Option<Self> {
        // SAFETY: names and types of cuda.h, which NVIDIA keeps from version to version.
        unsafe {
            Some(Self {
                init: library.get(b"cuInit\0").ok()?,
                driver_version: library.get(b"cuDriverGetVersion\0").ok()?,
                device_count: library.get(b"cuDeviceGetCount\0").ok()?,
                device_get: library.get(b"cuDeviceGet\0").ok()?,
                device_name: library.get(b"cuDeviceGetName\0").ok()?,
                device_attribute: library.get(b"cuDeviceGetAttribute\0").ok()?,
                device_memory: library.get(b"cuDeviceTotalMem_v2\0").ok()?,
                error_string: library.get(b"cuGetErrorString\0").ok()?,
                _library: library,
            })
        }
    }

    fn version(&self) -> Option<u32> {
        let mut version = 0;
        // SAFETY: may be called before cuInit; writes one int.
        let done = unsafe { (self.driver_version)(&raw mut version) };
        (done == 0).then(|| u32::try_from(version).ok()).flatten()
    }

    fn gpus(&self) -> Result<Vec<Gpu>, String> {
        // SAFETY: the flags must be 0; may be called any number of times.
        self.checked(unsafe { (self.init)(0) })?;
        let mut count = 0;
        // SAFETY: the driver is initialised; writes one int.
        self.checked(unsafe { (self.device_count)(&raw mut count) })?;
        (0..count).map(|index| self.gpu(index)).collect()
    }

    fn gpu(&self, index: c_int) -> Result<Gpu, String> {
        /// `CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR` and `…_MINOR`.
        const CAPABILITY: [c_int; 2] = [75, 76];
        let (mut device, mut name, mut memory) = (0, [0 as c_char; 256], 0);
        // SAFETY: `index` is below the count; writes one int.
        self.checked(unsafe { (self.device_get)(&raw mut device, index) })?;
        // SAFETY: a device that the driver gave; writes a name with its NUL, within the length told.
        self.checked(unsafe { (self.device_name)(name.as_mut_ptr(), 256, device) })?;
        // SAFETY: the same device; writes one number.
        self.checked(unsafe { (self.device_memory)(&raw mut memory, device) })?;
        let mut capability = 0;
        for attribute in CAPABILITY {
            let mut value = 0;
            // SAFETY: the same device; writes one int.
            self.checked(unsafe { (self.device_attribute)(&raw mut value, attribute, device) })?;
            capability = 10 * capability + u32::try_from(value).unwrap_or(0);
        }
        // SAFETY: the driver ended it with a NUL.
        let name = unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned();
        Ok(Gpu { name, capability, memory: memory as u64 })
    }

    fn checked(&self, code: c_int) -> Result<(), String> {
        if code == 0 {
            return Ok(());
        }
        let mut text = std::ptr::null();
        // SAFETY: writes the address of a string that is never freed, or null.
        let told = unsafe { (self.error_string)(code, &raw mut text) } == 0 && !text.is_null();
        // SAFETY: a string with a NUL of the driver's own, as just said.
        let text = told.then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned());
        Err(format!("{} (CUDA error {code})", text.unwrap_or_else(|| "unknown error".into())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn driver(cuda: u32, gpus: Result<&[(&str, u32)], &str>) -> Driver {
        let gpu = |(name, capability): &(&str, u32)| Gpu {
            name: (*name).into(),
            capability: *capability,
            memory: 1 << 34,
        };
        let gpus = gpus.map(|gpus| gpus.iter().map(gpu).collect()).map_err(str::to_owned);
        Driver { cuda, version: Some("550.54.14".into()), gpus }
    }

    #[test]
    fn the_drivers_version_is_found_in_what_the_kernel_says() {
        let said = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  (dvs-builder)\nGCC version:  gcc version 12.2.0\n";
        assert_eq!(version_in(said).as_deref(), Some("580.65.06"));
        assert_eq!(version_in(""), None);
    }

    #[test]
    fn what_keeps_libtorch_from_a_gpu_is_named() {
        let told = |driver: Driver| driver.obstacle().map(|(state, _)| state).unwrap_or_default();
        assert_eq!(told(driver(13_000, Ok(&[("NVIDIA H200", 90)]))), "");
        assert_eq!(
            told(driver(12_040, Ok(&[("NVIDIA H200", 90)]))),
            "driver 550.54.14 runs CUDA up to 12.4, and libtorch needs 13.0"
        );
        assert_eq!(told(driver(13_000, Ok(&[]))), "the driver gives no GPU: it has none for this process");
        assert_eq!(
            told(driver(13_000, Err("no device (CUDA error 100)"))),
            "the driver gives no GPU: no device (CUDA error 100)"
        );
        let gpus = driver(13_010, Ok(&[("Tesla V100", 70), ("A GPU", 121)])).gpus.unwrap();
        let old = gpus[0].obstacle().unwrap();
        assert_eq!(old, "Tesla V100 has compute capability 7.0, and libtorch is built for 7.5 and newer");
        assert_eq!(
            (gpus[1].obstacle(), gpus[1].told().as_str()),
            (None, "A GPU, 16 GiB, compute capability 12.1")
        );
    }
}
