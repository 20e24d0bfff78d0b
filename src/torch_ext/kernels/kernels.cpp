// Kernels of our own: NVRTC compiles them, the CUDA runtime that libtorch's CUDA half has brought loads and launches
// them. Both are looked up by name, as this program is linked with neither.

#include "kernels.h"

#include "../cuda.h"
#include "../guard.h"
// The sources of the kernels, which `build.rs` writes.
#include "kernel_texts.h"
#include "first.h"

#include <c10/core/DeviceGuard.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace {

constexpr const char* NVRTC = "libnvrtc.so.13";

// The CUDA runtime, of any 13 (cuda_runtime_api.h).
struct Runtime {
  int (*attribute)(int* value, int attribute, int device);
  int (*load)(void** library, const void* code, int*, void**, unsigned, int*, void**, unsigned);
  int (*kernel)(const void** kernel, void* library, const char* name);
  int (*occupancy)(int* blocks, const void* kernel, int threads, size_t shared);
  int (*launch)(const void* kernel, Extent blocks, Extent threads, void** arguments, size_t shared, void* stream);
  const char* (*error)(int);

  Runtime() {
    find(attribute, "cudaDeviceGetAttribute");
    find(load, "cudaLibraryLoadData");
    find(kernel, "cudaLibraryGetKernel");
    find(occupancy, "cudaOccupancyMaxActiveBlocksPerMultiprocessor");
    find(launch, "cudaLaunchKernel");
    find(error, "cudaGetErrorString");
  }

  static const Runtime& get() {
    static const Runtime found;
    return found;
  }

  void check(int code, const char* what) const {
    TORCH_CHECK(code == 0, "CUDA error: ", what, ": ", error(code));
  }
};

// Its compiler (nvrtc.h).
struct Compiler {
  using Program = void*;
  int (*create)(Program*, const char* text, const char* name, int headers, const char* const* texts,
                const char* const* names);
  int (*compile)(Program, int options, const char* const*);
  int (*log_size)(Program, size_t*);
  int (*log)(Program, char*);
  int (*cubin_size)(Program, size_t*);
  int (*cubin)(Program, char*);
  int (*ptx_size)(Program, size_t*);
  int (*ptx)(Program, char*);
  int (*n_supported)(int*);
  int (*supported)(int*);
  int (*destroy)(Program*);

  Compiler() {
    void* library = open();
    const auto find = [library](auto& function, const char* name) {
      function = reinterpret_cast<std::decay_t<decltype(function)>>(dlsym(library, name));
      TORCH_CHECK(function, NVRTC, " has no ", name);
    };
    find(create, "nvrtcCreateProgram");
    find(compile, "nvrtcCompileProgram");
    find(log_size, "nvrtcGetProgramLogSize");
    find(log, "nvrtcGetProgramLog");
    find(cubin_size, "nvrtcGetCUBINSize");
    find(cubin, "nvrtcGetCUBIN");
    find(ptx_size, "nvrtcGetPTXSize");
    find(ptx, "nvrtcGetPTX");
    find(n_supported, "nvrtcGetNumSupportedArchs");
    find(supported, "nvrtcGetSupportedArchs");
    find(destroy, "nvrtcDestroyProgram");
  }

  // In the process already, where the CUDA runtime or libtorch's CUDA half has its libraries, or where the system looks.
  static void* open() {
    const CudaHalf& half = CudaHalf::get();
    if (dlsym(half.library, "nvrtcCreateProgram")) return half.library;
    Dl_info runtime{};
    dladdr(reinterpret_cast<void*>(Runtime::get().launch), &runtime);
    const auto folder_of = [](const std::string& file) { return std::filesystem::path(file).parent_path(); };
    for (const auto& folder : {folder_of(runtime.dli_fname ? runtime.dli_fname : ""),
                               folder_of(half.file) / "../../nvidia/cu13/lib"}) {
      std::error_code none;
      if (!std::filesystem::exists(folder / NVRTC, none)) continue;
      for (const auto& file : std::filesystem::directory_iterator(folder, none)) {
        // What it opens by a name that is found only where the system looks, or if it is there.
        if (file.path().filename().string().rfind("libnvrtc-builtins.so.", 0) == 0) {
          dlopen(file.path().c_str(), RTLD_NOW);
        }
      }
      if (void* library = dlopen((folder / NVRTC).c_str(), RTLD_NOW)) return library;
    }
    if (void* library = dlopen(NVRTC, RTLD_NOW)) return library;
    const char* why = dlerror();
    TORCH_CHECK(false, "numerics.fused: the compiler for GPUs is not here (", why ? why : NVRTC,
                "); run tools/setup --cuda, or set numerics.fused = false");
  }

  static const Compiler& get() {
    static const Compiler found;
    return found;
  }

  std::string text(int (*size)(Program, size_t*), int (*get)(Program, char*), Program of) const {
    size_t bytes = 0;
    size(of, &bytes);
    std::string text(bytes, '\0');
    get(of, text.data());
    return text;
  }

  // For a GPU of compute capability `major`.`minor`: code for it, or if it is newer than this compiler, in the language
  // that its driver translates.
  std::string compiled(int major, int minor) const {
    const int wanted = 10 * major + minor;
    int n = 0;
    n_supported(&n);
    std::vector<int> known(static_cast<size_t>(std::max(n, 1)), 0);
    supported(known.data());
    const int target = *std::max_element(known.begin(), known.end(), [wanted](int a, int b) {
      return (a <= wanted ? a : 0) < (b <= wanted ? b : 0);
    });
    const bool exact = target == wanted;
    const std::string arch = std::string("--gpu-architecture=") + (exact ? "sm_" : "compute_") + std::to_string(target);
    // Sums and products are fused where the source says so, and round as a host's.
    const char* const options[] = {arch.c_str(), "--std=c++17", "--fmad=false"};
    Program program = nullptr;
    TORCH_CHECK(create(&program, KERNELS, "kernels.cu", std::size(HEADERS), HEADERS, HEADER_NAMES) == 0, NVRTC,
                " refuses the kernels");
    const auto owned = std::unique_ptr<void, void (*)(void*)>(program, [](void* p) { get().destroy(&p); });
    const int code = compile(program, std::size(options), options);
    TORCH_CHECK(code == 0, "numerics.fused: ", NVRTC, " does not compile the kernels with ", arch,
                "; set numerics.fused = false: ", text(log_size, log, program));
    return exact ? text(cubin_size, cubin, program) : text(ptx_size, ptx, program);
  }
};

} // namespace

Kernels::Kernels(c10::Device device) : device(device) {
  const auto& runtime = Runtime::get();
  constexpr int PROCESSORS = 16, MAJOR = 75, MINOR = 76;
  const auto attribute = [&](int which) {
    int value = 0;
    runtime.check(runtime.attribute(&value, which, device.index()), "attributes of the GPU");
    return value;
  };
  const int processors = attribute(PROCESSORS);
  const std::string code = Compiler::get().compiled(attribute(MAJOR), attribute(MINOR));
  // Never unloaded: the process may end while the device is at work.
  void* library = nullptr;
  const c10::DeviceGuard guard(device);
  runtime.check(runtime.load(&library, code.data(), nullptr, nullptr, 0, nullptr, nullptr, 0), "kernels of nct");
  const auto look_up = [&](const char* name, unsigned threads) {
    Kernel& kernel = all[name];
    int of_each = 0;
    runtime.check(runtime.kernel(&kernel.handle, library, name), name);
    runtime.check(runtime.occupancy(&of_each, kernel.handle, static_cast<int>(threads), 0), name);
    kernel.blocks_at_once = static_cast<unsigned>(std::max(of_each * processors, 1));
  };
  for (const char* name : {"nct_norm_sums", "nct_norm_statistics", "nct_norm", "nct_norm_pooled", "nct_norm_sums_back",
                           "nct_norm_sums_back_pooled", "nct_norm_gradients", "nct_norm_back", "nct_norm_back_pooled",
                           "nct_read_bf16", "nct_read_f32", "nct_read_back_bf16", "nct_read_back_f32",
                           "nct_first_sums", "nct_first_norm_gradients", "nct_first_gradients", "nct_show"}) {
    look_up(name, nct::THREADS);
  }
  for (const char* name : {"nct_first_moments", "nct_first_totals", "nct_first_statistics", "nct_first",
                           "nct_first_products"}) {
    look_up(name, nct::FEW_THREADS);
  }
}

const Kernels& Kernels::of(c10::Device device) {
  static std::mutex mutex;
  static std::map<c10::DeviceIndex, std::unique_ptr<const Kernels>> loaded;
  const std::lock_guard<std::mutex> lock(mutex);
  auto& kernels = loaded[device.index()];
  if (!kernels) kernels.reset(new Kernels(device));
  return *kernels;
}

void Kernels::launch(std::string_view name, Extent blocks, Extent threads, const void* task) const {
  const c10::DeviceGuard guard(device);
  void* arguments[] = {const_cast<void*>(task)};
  void* stream = gpu().getStream(device).native_handle();
  const auto& runtime = Runtime::get();
  runtime.check(runtime.launch(all.at(name).handle, blocks, threads, arguments, 0, stream), name.data());
}
