//! Gives every binary, test and bench the place of libtorch, so that they run with no environment variable.

use std::env;
use std::path::Path;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=LIBTORCH");
    if env::var_os("CARGO_FEATURE_TORCH").is_none() {
        return;
    }
    let libtorch = env::var("LIBTORCH").unwrap_or_default();
    let libtorch = std::path::absolute(Path::new(&libtorch)).unwrap_or_default();
    if !libtorch.join("lib").is_dir() {
        println!("cargo::error=no libtorch in {}: run tools/setup", libtorch.display());
        return;
    }
    println!("cargo::rustc-env=NCT_LIBTORCH={}", libtorch.display());
    // RPATH, not RUNPATH: the libraries that libtorch itself needs are looked up through it too.
    println!("cargo::rustc-link-arg=-Wl,--disable-new-dtags");
    println!("cargo::rustc-link-arg=-Wl,-rpath,{}", libtorch.join("lib").display());
    #[cfg(feature = "torch")]
    torch_ext(&libtorch);
}

/// What tch lacks of libtorch.
#[cfg(feature = "torch")]
fn torch_ext(libtorch: &Path) {
    println!("cargo::rerun-if-changed=src/torch_ext");
    let include = libtorch.join("include");
    let out = kernel_texts();
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .define("USE_C10D_GLOO", None)
        .include("src/torch_ext/include")
        .include(out)
        // As system headers: their warnings are not ours.
        .flag(format!("-isystem{}", include.display()))
        .flag(format!("-isystem{}", include.join("torch/csrc/api/include").display()))
        // Symbols of libtorch's templates would be most of the program's size.
        .debug(false)
        .file("src/torch_ext/c10d.cpp")
        .file("src/torch_ext/device.cpp")
        .file("src/torch_ext/graph.cpp")
        .file("src/torch_ext/images.cpp")
        .file("src/torch_ext/kernels/kernels.cpp")
        .file("src/torch_ext/narrow.cpp")
        .file("src/torch_ext/nccl.cpp")
        .file("src/torch_ext/norm.cpp")
        .file("src/torch_ext/reading.cpp")
        .file("src/torch_ext/update.cpp")
        .compile("nct_torch_ext");
}

/// Writes the sources of kernels, which are compiled where they run, as texts for C++. Gives the folder of the header.
#[cfg(feature = "torch")]
fn kernel_texts() -> std::path::PathBuf {
    let out = std::path::PathBuf::from(env::var_os("OUT_DIR").expect("cargo gives one"));
    let source = |file: &str| {
        let text =
            std::fs::read_to_string(Path::new("src/torch_ext/kernels").join(file)).expect("it is ours");
        format!("R\"nct({text})nct\"")
    };
    let files = [
        "first.cu",
        "first.h",
        "images.cu",
        "images.h",
        "norm.cu",
        "norm.h",
        "packed.cuh",
        "place.h",
        "reading.cu",
        "reading.h",
    ];
    let array = |name: &str, of: &dyn Fn(&str) -> String| {
        format!("constexpr const char* {name}[] = {{{}}};\n", files.map(of).join(",\n"))
    };
    let included =
        ["first.cu", "images.cu", "reading.cu"].map(|file| format!("#include {file:?}\n")).concat();
    let kernels = format!("constexpr char KERNELS[] = R\"({included})\";\n");
    let texts = kernels + &array("HEADER_NAMES", &|file| format!("{file:?}")) + &array("HEADERS", &source);
    std::fs::write(out.join("kernel_texts.h"), texts).expect("the folder is ours");
    out
}
