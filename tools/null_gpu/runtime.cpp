// A CUDA runtime without a GPU: the device's memory is the host's, copies are done, kernels do nothing. What libtorch asks
// of it is written to the file NULL_GPU_LOG, a line each; what a GPU would refuse is refused here, above all what must
// not be done while a stream is being recorded.

#include <cuda_runtime_api.h>

#include <dlfcn.h>
#include <elf.h>
#include <sys/mman.h>

#include <atomic>
#include <chrono>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <unordered_map>
#include <utility>

#define API extern "C" __attribute__((visibility("default")))

namespace {

std::mutex guard;
using Lock = std::lock_guard<std::mutex>;

void tell(const char* form, ...) {
  static FILE* file = std::getenv("NULL_GPU_LOG") ? std::fopen(std::getenv("NULL_GPU_LOG"), "a") : nullptr;
  if (!file) return;
  va_list values;
  va_start(values, form);
  static std::mutex one;
  Lock lock(one);
  std::vfprintf(file, form, values);
  std::fputc('\n', file);
  std::fflush(file);
  va_end(values);
}

thread_local cudaError_t last = cudaSuccess;

cudaError_t refuse(cudaError_t error, const char* what) {
  tell("REFUSED %s (%d)", what, static_cast<int>(error));
  return last = error;
}

// --- Streams and recordings

struct Recording;

struct Stream {
  int number;
  Recording* recording = nullptr;
};

struct Recording {
  cudaStreamCaptureMode mode;
  Stream* origin;
  unsigned long long number;
  std::thread::id thread = std::this_thread::get_id();
  long nodes = 0;
  std::set<Stream*> joined;
};

struct Event {
  double at = 0;
  Recording* recording = nullptr;
  bool recorded = false;
};

struct Graph {
  long nodes;
};

Stream default_stream{0};
std::set<Recording*> recordings;
unsigned long long recordings_so_far = 0;
int streams_so_far = 0;
thread_local cudaStreamCaptureMode mode_of_thread = cudaStreamCaptureModeGlobal;

Stream* stream_of(cudaStream_t stream) {
  const bool is_default = !stream || stream == cudaStreamLegacy || stream == cudaStreamPerThread;
  return is_default ? &default_stream : reinterpret_cast<Stream*>(stream);
}

// Whether this thread may not do what could disturb a recording.
bool must_not() {
  Lock lock(guard);
  if (mode_of_thread == cudaStreamCaptureModeRelaxed) return false;
  for (const Recording* recording : recordings) {
    if (recording->mode == cudaStreamCaptureModeGlobal) return true;
    const bool own = recording->thread == std::this_thread::get_id();
    if (recording->mode == cudaStreamCaptureModeThreadLocal && own) return true;
  }
  return false;
}

double milliseconds() {
  using namespace std::chrono;
  return duration<double, std::milli>(steady_clock::now().time_since_epoch()).count();
}

// Work on a stream. What is recorded has an R before it; what runs beside a recording, and is not in it, ASIDE.
void work(const char* kind, const std::string& what, Stream* stream, dim3 grid = dim3{1, 1, 1}) {
  const char* how = "";
  {
    Lock lock(guard);
    if (stream->recording) {
      stream->recording->nodes++;
      how = "R";
    } else if (!recordings.empty()) {
      how = "ASIDE ";
    }
  }
  tell("%s%s s%d %u,%u,%u %s", how, kind, stream->number, grid.x, grid.y, grid.z, what.c_str());
}

// --- Memory

enum class Where { Pageable, Pinned, Device };

const size_t ROOM = size_t{16} << 30;
std::map<char*, std::pair<size_t, Where>> blocks;
size_t used = 0;

Where where(const void* at) {
  Lock lock(guard);
  auto next = blocks.upper_bound(static_cast<char*>(const_cast<void*>(at)));
  if (next == blocks.begin()) return Where::Pageable;
  const auto& [start, block] = *--next;
  return static_cast<const char*>(at) < start + block.first ? block.second : Where::Pageable;
}

void* reserve(size_t bytes, Where kind) {
  bytes = (bytes + 4095) & ~size_t{4095};
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  void* at = mmap(nullptr, bytes ? bytes : 4096, PROT_READ | PROT_WRITE, flags, -1, 0);
  if (at == MAP_FAILED) return nullptr;
  Lock lock(guard);
  blocks[static_cast<char*>(at)] = {bytes, kind};
  if (kind == Where::Device) used += bytes;
  return at;
}

cudaError_t release(void* at, const char* what) {
  size_t bytes;
  {
    Lock lock(guard);
    auto found = blocks.find(static_cast<char*>(at));
    if (found == blocks.end()) {
      tell("REFUSED %s of what is no block", what);
      return last = cudaErrorInvalidValue;
    }
    bytes = found->second.first;
    if (found->second.second == Where::Device) used -= bytes;
    blocks.erase(found);
  }
  munmap(at, bytes);
  return cudaSuccess;
}

// Small readings are zeros, so that no loss is what happened to lie in memory.
const size_t READING = 65536;

cudaError_t copy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, Stream* stream, bool waits) {
  const Where target = where(to), source = where(from);
  const bool in = target == Where::Device, out = source == Where::Device;
  const bool wrong = (kind == cudaMemcpyHostToDevice && !in) || (kind == cudaMemcpyDeviceToHost && !out) ||
                     (kind == cudaMemcpyDeviceToDevice && !(in && out));
  if (wrong) return refuse(cudaErrorInvalidValue, "a copy in the other direction");
  const bool pageable = (in != out) && (in ? source : target) == Where::Pageable;
  if (stream->recording && pageable) return refuse(cudaErrorStreamCaptureUnsupported, "a pageable copy in a recording");
  if (waits && must_not()) return refuse(cudaErrorStreamCaptureUnsupported, "a copy that waits");
  const std::string path = std::string(in && out ? "on the device" : in ? "in" : "out") + (pageable ? " pageable " : " ");
  work(waits || (pageable && out) ? "WAIT-COPY" : "COPY", path + std::to_string(bytes), stream);
  if (stream->recording) return cudaSuccess;
  if (out && !in && bytes < READING) {
    std::memset(to, 0, bytes);
  } else {
    std::memmove(to, from, bytes);
  }
  return cudaSuccess;
}

// --- Kernels

std::unordered_map<const void*, std::string>& kernels() {
  static auto* all = new std::unordered_map<const void*, std::string>;
  return *all;
}

// A GPU that fails, with NULL_GPU_FAILS=N at its Nth kernel, fails ever after.
const char* const fails = std::getenv("NULL_GPU_FAILS");
std::atomic<long> kernels_left{fails ? std::atol(fails) : 0};
bool has_failed() { return fails && kernels_left <= 0; }

cudaError_t launch(const void* kernel, dim3 grid, dim3 block, cudaStream_t stream) {
  if (fails && --kernels_left <= 0) return last = cudaErrorIllegalAddress;
  const auto found = kernels().find(kernel);
  const std::string name = found == kernels().end() ? "?" : found->second;
  const bool wrong = !grid.x || !grid.y || !grid.z || grid.y > 65535 || grid.z > 65535 || !block.x ||
                     block.x * block.y * block.z > 1024;
  if (wrong) return refuse(cudaErrorInvalidConfiguration, name.c_str());
  work("K", name, stream_of(stream), grid);
  return cudaSuccess;
}

struct Call {
  dim3 grid, block;
  size_t shared;
  void* stream;
};
thread_local Call call;

int devices() {
  const char* n = std::getenv("NULL_GPUS");
  return n ? std::atoi(n) : 1;
}
thread_local int device = 0;

}  // namespace

// A call of one of NVIDIA's libraries, for those in libraries.c.
API void null_gpu_call(const char* name, cudaStream_t stream) { work("L", name, stream_of(stream)); }

API void** __cudaRegisterFatBinary(void*) {
  static void* handle[4];
  return handle;
}
API void __cudaRegisterFatBinaryEnd(void**) {}
API void __cudaUnregisterFatBinary(void**) {}
API void __cudaRegisterFunction(
    void**, const char* host, char*, const char* name, int, void*, void*, void*, void*, int*) {
  Lock lock(guard);
  kernels()[host] = name;
}
API void __cudaRegisterVar(void**, char*, char*, const char*, int, size_t, int, int) {}
API unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, struct CUstream_st* stream) {
  call = {grid, block, shared, stream};
  return 0;
}
API cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared, void* stream) {
  *grid = call.grid, *block = call.block, *shared = call.shared, *static_cast<void**>(stream) = call.stream;
  return cudaSuccess;
}
API cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* host) {
  *kernel = reinterpret_cast<cudaKernel_t>(const_cast<void*>(host));
  return cudaSuccess;
}
API cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void**, size_t, cudaStream_t stream) {
  return launch(kernel, grid, block, stream);
}
API cudaError_t cudaLaunchKernel(const void* host, dim3 grid, dim3 block, void**, size_t, cudaStream_t stream) {
  return launch(host, grid, block, stream);
}
API cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* how, const void* host, void**) {
  return launch(host, how->gridDim, how->blockDim, how->stream);
}

// --- Kernels that are compiled at run time: a library is its code, in which they have sections of their names

API cudaError_t cudaLibraryLoadData(
    cudaLibrary_t* library, const void* code, cudaJitOption*, void**, unsigned, cudaLibraryOption*, void**, unsigned) {
  if (must_not()) return refuse(cudaErrorStreamCaptureUnsupported, "cudaLibraryLoadData");
  const auto* start = static_cast<const char*>(code);
  if (std::memcmp(start, ELFMAG, SELFMAG) != 0) return refuse(cudaErrorInvalidKernelImage, "cudaLibraryLoadData");
  const auto* head = static_cast<const Elf64_Ehdr*>(code);
  const auto* sections = reinterpret_cast<const Elf64_Shdr*>(start + head->e_shoff);
  const Elf64_Shdr& names = sections[head->e_shstrndx];
  auto* found = new std::set<std::string>;
  for (int i = 0; i < head->e_shnum; ++i) found->insert(start + names.sh_offset + sections[i].sh_name);
  return *library = reinterpret_cast<cudaLibrary_t>(found), cudaSuccess;
}
API cudaError_t cudaLibraryGetKernel(cudaKernel_t* kernel, cudaLibrary_t library, const char* name) {
  const auto* found = reinterpret_cast<const std::set<std::string>*>(library);
  if (!found->count(std::string(".text.") + name)) return refuse(cudaErrorSymbolNotFound, name);
  *kernel = reinterpret_cast<cudaKernel_t>(new char);
  Lock lock(guard);
  kernels()[*kernel] = name;
  return cudaSuccess;
}

// --- Devices: what libtorch asks of an H100 or H200, with less memory

API cudaError_t cudaGetDeviceCount(int* n) { return *n = devices(), cudaSuccess; }
API cudaError_t cudaGetDevice(int* n) { return *n = device, cudaSuccess; }
API cudaError_t cudaSetDevice(int n) {
  if (n < 0 || n >= devices()) return refuse(cudaErrorInvalidDevice, "cudaSetDevice");
  return device = n, cudaSuccess;
}
API cudaError_t cudaGetDeviceProperties(cudaDeviceProp* of, int) {
  *of = cudaDeviceProp{};
  std::snprintf(of->name, sizeof of->name, "NVIDIA Null");
  of->totalGlobalMem = ROOM, of->sharedMemPerBlock = 49152, of->sharedMemPerBlockOptin = 232448;
  of->sharedMemPerMultiprocessor = 233472, of->regsPerBlock = of->regsPerMultiprocessor = 65536;
  of->warpSize = 32, of->maxThreadsPerBlock = 1024, of->maxThreadsPerMultiProcessor = 2048;
  of->maxThreadsDim[0] = of->maxThreadsDim[1] = 1024, of->maxThreadsDim[2] = 64;
  of->maxGridSize[0] = 2147483647, of->maxGridSize[1] = of->maxGridSize[2] = 65535;
  of->major = 9, of->minor = 0, of->multiProcessorCount = 132, of->l2CacheSize = 60 << 20;
  of->textureAlignment = 512, of->texturePitchAlignment = 32, of->unifiedAddressing = 1;
  of->concurrentKernels = 1, of->cooperativeLaunch = 1, of->asyncEngineCount = 3;
  return cudaSuccess;
}
API cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr of, int) {
  static const std::map<int, int> known = {
      {cudaDevAttrMultiProcessorCount, 132},      {cudaDevAttrMaxThreadsPerBlock, 1024},
      {cudaDevAttrMaxSharedMemoryPerBlock, 49152}, {cudaDevAttrMaxSharedMemoryPerBlockOptin, 232448},
      {cudaDevAttrMaxSharedMemoryPerMultiprocessor, 233472},
      {cudaDevAttrWarpSize, 32},                  {cudaDevAttrComputeCapabilityMajor, 9},
      {cudaDevAttrMaxThreadsPerMultiProcessor, 2048},
      {cudaDevAttrMaxGridDimX, 2147483647},       {cudaDevAttrMaxGridDimY, 65535},
      {cudaDevAttrMaxGridDimZ, 65535},            {cudaDevAttrMaxBlockDimX, 1024},
      {cudaDevAttrMaxBlockDimY, 1024},            {cudaDevAttrMaxBlockDimZ, 64},
      {cudaDevAttrMaxRegistersPerBlock, 65536},
  };
  const auto found = known.find(of);
  return *value = found == known.end() ? 0 : found->second, cudaSuccess;
}
API cudaError_t cudaDeviceCanAccessPeer(int* can, int, int) { return *can = 0, cudaSuccess; }
API cudaError_t cudaDeviceEnablePeerAccess(int, unsigned) { return cudaSuccess; }
API cudaError_t cudaDeviceGetPCIBusId(char* id, int bytes, int n) {
  return std::snprintf(id, bytes, "0000:0%d:00.0", n + 1), cudaSuccess;
}
API cudaError_t cudaDeviceGetStreamPriorityRange(int* low, int* high) {
  if (low) *low = 0;
  if (high) *high = -5;
  return cudaSuccess;
}
API cudaError_t cudaDeviceSynchronize() {
  if (must_not()) return refuse(cudaErrorStreamCaptureUnsupported, "cudaDeviceSynchronize");
  return tell("WAIT device"), cudaSuccess;
}
API cudaError_t cudaDriverGetVersion(int* version) { return *version = 13000, cudaSuccess; }
API cudaError_t cudaRuntimeGetVersion(int* version) { return *version = 13000, cudaSuccess; }
API const char* cudaGetErrorName(cudaError_t) { return "error of the null runtime"; }
API const char* cudaGetErrorString(cudaError_t error) {
  static thread_local char text[64];
  std::snprintf(text, sizeof text, "error %d of the null runtime", static_cast<int>(error));
  return text;
}
API cudaError_t cudaGetLastError() { return std::exchange(last, cudaSuccess); }
API cudaError_t cudaPeekAtLastError() { return last; }

// --- Memory

API cudaError_t cudaMalloc(void** at, size_t bytes) {
  if (must_not()) return refuse(cudaErrorStreamCaptureUnsupported, "cudaMalloc");
  if (used + bytes > ROOM) return refuse(cudaErrorMemoryAllocation, "cudaMalloc");
  tell("MALLOC %zu", bytes);
  return (*at = reserve(bytes, Where::Device)) ? cudaSuccess : refuse(cudaErrorMemoryAllocation, "cudaMalloc");
}
API cudaError_t cudaMallocAsync(void** at, size_t bytes, cudaStream_t) { return cudaMalloc(at, bytes); }
API cudaError_t cudaFree(void* at) {
  if (!at) return cudaSuccess;
  if (must_not()) return refuse(cudaErrorStreamCaptureUnsupported, "cudaFree");
  tell("FREE");
  return release(at, "cudaFree");
}
API cudaError_t cudaFreeAsync(void* at, cudaStream_t) { return cudaFree(at); }
API cudaError_t cudaHostAlloc(void** at, size_t bytes, unsigned) {
  if (must_not()) return refuse(cudaErrorStreamCaptureUnsupported, "cudaHostAlloc");
  tell("PIN %zu", bytes);
  return (*at = reserve(bytes, Where::Pinned)) ? cudaSuccess : refuse(cudaErrorMemoryAllocation, "cudaHostAlloc");
}
API cudaError_t cudaFreeHost(void* at) { return release(at, "cudaFreeHost"); }
API cudaError_t cudaHostRegister(void* at, size_t bytes, unsigned) {
  Lock lock(guard);
  return blocks[static_cast<char*>(at)] = {bytes, Where::Pinned}, cudaSuccess;
}
API cudaError_t cudaHostUnregister(void* at) {
  Lock lock(guard);
  return blocks.erase(static_cast<char*>(at)), cudaSuccess;
}
API cudaError_t cudaMemGetInfo(size_t* left, size_t* all) { return *left = ROOM - used, *all = ROOM, cudaSuccess; }
API cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  return copy(to, from, bytes, kind, &default_stream, true);
}
API cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  return copy(to, from, bytes, kind, stream_of(stream), false);
}
API cudaError_t cudaMemcpyPeerAsync(void* to, int, const void* from, int, size_t bytes, cudaStream_t stream) {
  return copy(to, from, bytes, cudaMemcpyDeviceToDevice, stream_of(stream), false);
}
API cudaError_t cudaMemset(void* at, int value, size_t bytes) {
  if (where(at) != Where::Device) return refuse(cudaErrorInvalidValue, "cudaMemset");
  return std::memset(at, value, bytes), cudaSuccess;
}
API cudaError_t cudaMemsetAsync(void* at, int value, size_t bytes, cudaStream_t stream) {
  if (where(at) != Where::Device) return refuse(cudaErrorInvalidValue, "cudaMemsetAsync");
  work("SET", std::to_string(bytes), stream_of(stream));
  if (!stream_of(stream)->recording) std::memset(at, value, bytes);
  return cudaSuccess;
}
API cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* of, const void* at) {
  *of = cudaPointerAttributes{};
  const Where found = where(at);
  const bool pinned = found == Where::Pinned;
  of->type = found == Where::Device ? cudaMemoryTypeDevice : pinned ? cudaMemoryTypeHost : cudaMemoryTypeUnregistered;
  of->devicePointer = found == Where::Pageable ? nullptr : const_cast<void*>(at);
  of->hostPointer = found == Where::Device ? nullptr : const_cast<void*>(at);
  return cudaSuccess;
}
API cudaError_t cudaGetSymbolAddress(void** at, const void* symbol) {
  static std::map<const void*, void*> known;
  if (!known.count(symbol)) known[symbol] = reserve(1 << 20, Where::Device);
  return *at = known[symbol], cudaSuccess;
}

// --- Kernels' properties

API cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* of, const void*) {
  *of = cudaFuncAttributes{};
  of->maxThreadsPerBlock = 1024, of->numRegs = 32, of->binaryVersion = of->ptxVersion = 90;
  of->maxDynamicSharedSizeBytes = 232448;
  return cudaSuccess;
}
API cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* n, const void*, int, size_t) {
  return *n = 2, cudaSuccess;
}
API cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* n, const void*, int, size_t, unsigned) {
  return *n = 2, cudaSuccess;
}

// --- Streams and events

API cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned, int) {
  Lock lock(guard);
  return *stream = reinterpret_cast<cudaStream_t>(new Stream{++streams_so_far}), cudaSuccess;
}
API cudaError_t cudaStreamQuery(cudaStream_t stream) {
  if (stream_of(stream)->recording || must_not()) return refuse(cudaErrorStreamCaptureUnsupported, "cudaStreamQuery");
  return cudaSuccess;
}
API cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  if (stream_of(stream)->recording || must_not()) {
    return refuse(cudaErrorStreamCaptureUnsupported, "cudaStreamSynchronize");
  }
  return tell("WAIT stream s%d", stream_of(stream)->number), cudaSuccess;
}
API cudaError_t cudaStreamWaitEvent(cudaStream_t which, cudaEvent_t what, unsigned) {
  Stream* stream = stream_of(which);
  const Event* event = reinterpret_cast<Event*>(what);
  Lock lock(guard);
  if (event->recording && recordings.count(event->recording)) {
    if (stream->recording && stream->recording != event->recording) {
      tell("REFUSED two recordings become one");
      return last = cudaErrorStreamCaptureMerge;
    }
    stream->recording = event->recording;
    event->recording->joined.insert(stream);
  } else if (stream->recording && event->recorded && !event->recording) {
    tell("REFUSED a recording waits for what is not in it");
    return last = cudaErrorStreamCaptureIsolation;
  }
  return cudaSuccess;
}
API cudaError_t cudaStreamAddCallback(cudaStream_t stream, cudaStreamCallback_t then, void* with, unsigned) {
  return then(stream, cudaSuccess, with), cudaSuccess;
}
API cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  return *event = reinterpret_cast<cudaEvent_t>(new Event), cudaSuccess;
}
API cudaError_t cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, 0); }
API cudaError_t cudaEventDestroy(cudaEvent_t event) { return delete reinterpret_cast<Event*>(event), cudaSuccess; }
API cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned) {
  if (has_failed()) return last = cudaErrorIllegalAddress;
  Lock lock(guard);
  *reinterpret_cast<Event*>(event) = {milliseconds(), stream_of(stream)->recording, true};
  return cudaSuccess;
}
API cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  return cudaEventRecordWithFlags(event, stream, 0);
}
API cudaError_t cudaEventQuery(cudaEvent_t event) {
  if (must_not()) return refuse(cudaErrorStreamCaptureUnsupported, "cudaEventQuery");
  if (reinterpret_cast<Event*>(event)->recording) return refuse(cudaErrorCapturedEvent, "cudaEventQuery");
  return cudaSuccess;
}
API cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  if (must_not()) return refuse(cudaErrorStreamCaptureUnsupported, "cudaEventSynchronize");
  if (reinterpret_cast<Event*>(event)->recording) return refuse(cudaErrorCapturedEvent, "cudaEventSynchronize");
  return tell("WAIT event"), cudaSuccess;
}
API cudaError_t cudaEventElapsedTime(float* time, cudaEvent_t from, cudaEvent_t to) {
  const Event *a = reinterpret_cast<Event*>(from), *b = reinterpret_cast<Event*>(to);
  if (!a->recorded || !b->recorded || a->recording || b->recording) {
    return refuse(cudaErrorInvalidResourceHandle, "cudaEventElapsedTime");
  }
  return *time = static_cast<float>(b->at - a->at), cudaSuccess;
}

// --- Recordings

API cudaError_t cudaStreamBeginCapture(cudaStream_t which, cudaStreamCaptureMode mode) {
  Stream* stream = stream_of(which);
  if (stream == &default_stream || stream->recording) {
    return refuse(cudaErrorStreamCaptureUnsupported, "cudaStreamBeginCapture");
  }
  Lock lock(guard);
  stream->recording = new Recording{mode, stream, ++recordings_so_far};
  recordings.insert(stream->recording);
  return tell("BEGIN s%d", stream->number), cudaSuccess;
}
API cudaError_t cudaStreamEndCapture(cudaStream_t which, cudaGraph_t* graph) {
  Stream* stream = stream_of(which);
  Lock lock(guard);
  Recording* recording = stream->recording;
  if (!recording || recording->origin != stream) {
    tell("REFUSED cudaStreamEndCapture");
    return last = cudaErrorStreamCaptureUnmatched;
  }
  for (Stream* joined : recording->joined) joined->recording = nullptr;
  stream->recording = nullptr;
  recordings.erase(recording);
  *graph = reinterpret_cast<cudaGraph_t>(new Graph{recording->nodes});
  return tell("END s%d %ld", stream->number, recording->nodes), cudaSuccess;
}
API cudaError_t cudaStreamGetCaptureInfo(
    cudaStream_t which, cudaStreamCaptureStatus* status, unsigned long long* number, cudaGraph_t* graph,
    const cudaGraphNode_t** nodes, const cudaGraphEdgeData** edges, size_t* n) {
  Lock lock(guard);
  Recording* recording = stream_of(which)->recording;
  *status = recording ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
  if (number) *number = recording ? recording->number : 0;
  if (graph) *graph = reinterpret_cast<cudaGraph_t>(recording);
  if (nodes) *nodes = nullptr;
  if (edges) *edges = nullptr;
  if (n) *n = 0;
  return cudaSuccess;
}
API cudaError_t cudaStreamIsCapturing(cudaStream_t which, cudaStreamCaptureStatus* status) {
  return cudaStreamGetCaptureInfo(which, status, nullptr, nullptr, nullptr, nullptr, nullptr);
}
API cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
  return std::swap(*mode, mode_of_thread), cudaSuccess;
}
API cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t*, size_t* n) {
  return *n = reinterpret_cast<Graph*>(graph)->nodes, cudaSuccess;
}
API cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* ready, cudaGraph_t graph, unsigned long long) {
  return *ready = reinterpret_cast<cudaGraphExec_t>(new Graph(*reinterpret_cast<Graph*>(graph))), cudaSuccess;
}
API cudaError_t cudaGraphDestroy(cudaGraph_t graph) { return delete reinterpret_cast<Graph*>(graph), cudaSuccess; }
API cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph) {
  return delete reinterpret_cast<Graph*>(graph), cudaSuccess;
}
API cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t stream) {
  work("GRAPH", std::to_string(reinterpret_cast<Graph*>(graph)->nodes), stream_of(stream));
  return cudaSuccess;
}

// --- What libtorch asks for and can do without

API cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t, cudaMemPoolAttr, void* value) {
  return *static_cast<unsigned long long*>(value) = 0, cudaSuccess;
}
API cudaError_t cudaGetDriverEntryPointByVersion(
    const char*, void** function, unsigned, unsigned long long, cudaDriverEntryPointQueryResult* result) {
  static const auto nothing = +[]() { return 0; };
  *function = reinterpret_cast<void*>(nothing);
  if (result) *result = cudaDriverEntryPointSuccess;
  return cudaSuccess;
}
