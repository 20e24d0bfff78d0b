// A stand-in for libtorch_cuda.so where there is no GPU: a device whose memory is the host's and whose kernels are the
// CPU's. It shows what must hold before a real one can: every tensor is where the others are (a mix is an error, as
// CUDA makes it); what one stream does to memory is ordered by events before another stream touches it, and the memory
// is not given back before (else it is an error, or the end); and how often the host waits for the device. Of several
// processes of a machine each has a device of its own, and NCCL's place is taken by memory that they share. It shows
// nothing of speed, or of what CUDA's own kernels do.
//
// With NCT_STAND_IN_LOG=FILE, each operation for which the host would wait adds a line to that file, and so does each
// copy to the device that takes a stream of its own, and each launch of a kernel of our own. With
// NCT_STAND_IN_MEETING=refuse, GPUs do not find each other, as where two processes have the same; with `die`, the process
// ends when it meets the others.

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/EmptyTensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <ATen/native/ForeachUtils.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <set>
#include <string>

#include "places.h"

namespace {

int number(const char* name, int otherwise) {
  const char* text = std::getenv(name);
  return text ? std::atoi(text) : otherwise;
}

const int DEVICES = number("LOCAL_WORLD_SIZE", 1);
const c10::Device DEVICE(c10::kCUDA, static_cast<c10::DeviceIndex>(number("LOCAL_RANK", 0)));

// What the host waits for, and what else a test asks about.
void note(const std::string& what) {
  static std::FILE* file = [] {
    const char* path = std::getenv("NCT_STAND_IN_LOG");
    return path ? std::fopen(path, "a") : nullptr;
  }();
  if (file) {
    std::fputs((what + "\n").c_str(), file);
    std::fflush(file);
  }
}

bool is_recording();

// A device that records does nothing that could be waited for.
void waits(const std::string& what) {
  TORCH_CHECK(!is_recording(), "operation not permitted when stream is capturing: ", what);
  note(what);
}

// Who has done what to which memory, by the clocks of streams: one that has seen another's time comes after it.
class Order {
 public:
  static constexpr size_t STREAMS = 8;
  using Clock = std::array<uint64_t, STREAMS>;

  void born(const void* data, size_t bytes, size_t stream) {
    const std::lock_guard<std::mutex> lock(mutex);
    // A graph's own memory stays with it.
    if (is_recording() && !all.count(data)) return;
    Memory& memory = all[data];
    if (memory.owners++ > 0) return;
    memory.bytes = bytes;
    memory.home = stream;
    memory.touched[stream] = ++clocks[stream][stream];
  }

  // What is wrong, if it is.
  std::string touch(const void* data, size_t stream) {
    const std::lock_guard<std::mutex> lock(mutex);
    const auto found = of(data);
    if (found == all.end() || is_recording()) return {};
    Memory& memory = found->second;
    const auto other = unseen(memory, clocks[stream]);
    memory.touched[stream] = ++clocks[stream][stream];
    if (other == STREAMS) return {};
    return "stream " + std::to_string(stream) + " uses memory before stream " + std::to_string(other) + " is done with it";
  }

  void keep(const void* data, size_t stream) {
    const std::lock_guard<std::mutex> lock(mutex);
    const auto found = of(data);
    if (found != all.end()) found->second.kept.insert(stream);
  }

  // It goes back to the stream it was taken from, which must be behind all that used it.
  void dead(const void* data) {
    const std::lock_guard<std::mutex> lock(mutex);
    const auto found = all.find(data);
    if (found == all.end()) return;
    Memory& memory = found->second;
    if (--memory.owners > 0) return;
    for (const size_t stream : memory.kept) memory.touched[stream] = 0;
    if (unseen(memory, clocks[memory.home]) != STREAMS) {
      std::fputs("stand-in: memory was given back while a stream may still use it\n", stderr);
      std::abort();
    }
    all.erase(found);
  }

  Clock now(size_t stream) {
    const std::lock_guard<std::mutex> lock(mutex);
    return clocks[stream];
  }

  void see(size_t stream, const Clock& other) {
    const std::lock_guard<std::mutex> lock(mutex);
    for (size_t i = 0; i < STREAMS; ++i) clocks[stream][i] = std::max(clocks[stream][i], other[i]);
  }

 private:
  struct Memory {
    size_t bytes = 0, home = 0, owners = 0;
    Clock touched{};
    std::set<size_t> kept;
  };

  std::map<const void*, Memory>::iterator of(const void* data) {
    auto found = all.upper_bound(data);
    if (found == all.begin()) return all.end();
    --found;
    const auto* start = static_cast<const char*>(found->first);
    return data < start + std::max<size_t>(found->second.bytes, 1) ? found : all.end();
  }

  static size_t unseen(const Memory& memory, const Clock& clock) {
    for (size_t i = 0; i < STREAMS; ++i) {
      if (memory.touched[i] > clock[i]) return i;
    }
    return STREAMS;
  }

  std::mutex mutex;
  std::array<Clock, STREAMS> clocks{};
  std::map<const void*, Memory> all;
};

// Never destroyed: tensors of static storage come after.
Order& order = *new Order;
thread_local size_t current = 0;

void touched(const at::Tensor& t, const std::string& by) {
  if (!t.has_storage() || t.numel() == 0) return;
  const auto wrong = order.touch(t.storage().data(), current);
  TORCH_CHECK(wrong.empty(), by, ": ", wrong);
}

// Memory of the device and of the host are one, but a tensor that says so is not.
at::Tensor alias(const at::Tensor& of, c10::Device device, c10::DispatchKey key) {
  const auto forget = [](void* owner) {
    const auto* tensor = static_cast<at::Tensor*>(owner);
    if (tensor->is_cpu()) order.dead(tensor->storage().data());
    delete tensor;
  };
  c10::DataPtr data(of.storage().mutable_data(), new at::Tensor(of), forget, device);
  auto storage = c10::make_intrusive<c10::StorageImpl>(
      c10::StorageImpl::use_byte_size_t(), of.storage().nbytes(), std::move(data), nullptr, false);
  auto tensor = at::detail::make_tensor<c10::TensorImpl>(c10::Storage(std::move(storage)), c10::DispatchKeySet(key),
                                                         of.dtype());
  tensor.unsafeGetTensorImpl()->set_sizes_and_strides(of.sizes(), of.strides(), of.storage_offset());
  return tensor;
}

at::Tensor to_host(const at::Tensor& of) {
  // Empty ones are there to be resized.
  if (of.numel() == 0) return at::empty(of.sizes(), of.options().device(c10::kCPU));
  return alias(of, c10::kCPU, c10::DispatchKey::CPU);
}

at::Tensor to_device(const at::Tensor& of) {
  order.born(of.storage().data(), of.storage().nbytes(), current);
  return alias(of, DEVICE, c10::DispatchKey::CUDA);
}

void resized(const at::Tensor& device, const at::Tensor& host) {
  auto* impl = device.unsafeGetTensorImpl();
  impl->set_storage_keep_dtype(to_device(host).storage());
  impl->set_sizes_and_strides(host.sizes(), host.strides(), host.storage_offset());
}

struct Passed {
  std::vector<std::pair<at::Tensor, at::Tensor>> pairs; // of the device, of the host

  at::Tensor in(const at::Tensor& t, const std::string& op) {
    if (!t.defined() || (t.is_cpu() && t.dim() == 0)) return t;
    TORCH_CHECK(t.is_cuda(), "Expected all tensors to be on the same device, but ", op, " got one of ", t.device(),
                " with size ", t.sizes(), " among those of ", DEVICE);
    touched(t, op);
    pairs.emplace_back(t, to_host(t));
    return pairs.back().second;
  }

  at::Tensor out(const at::Tensor& t) {
    if (!t.defined()) return t;
    for (const auto& [device, host] : pairs) {
      if (host.unsafeGetTensorImpl() == t.unsafeGetTensorImpl()) {
        if (device.sizes() != host.sizes()) resized(device, host);
        return device;
      }
    }
    return to_device(t);
  }
};

// What is being recorded, if something is. A device that records does nothing; here it is done, so that what comes
// after has sensible numbers, and undone at the end.
struct Recording {
  std::vector<std::function<void()>> all;
  std::vector<std::pair<at::Tensor, at::Tensor>> before;
  // What was asked for, which our own kernels know by its place only.
  std::vector<at::Tensor> held;

  void keep(const at::Tensor& t) {
    if (t.defined() && t.is_cuda() && t.numel() > 0) before.emplace_back(to_host(t), to_host(t).clone());
  }
  void undo() {
    for (; !before.empty(); before.pop_back()) before.back().first.copy_(before.back().second);
  }
};
Recording* recording = nullptr;

void on_host(const c10::OperatorHandle& op, torch::jit::Stack* stack);

void repeat(const c10::OperatorHandle& op, torch::jit::Stack stack, const std::vector<c10::IValue>& gave) {
  on_host(op, &stack);
  const auto into = [](const at::Tensor& old, const at::Tensor& made) {
    if (old.defined() && old.storage().data() != made.storage().data()) to_host(old).copy_(to_host(made));
  };
  for (size_t i = 0; i < gave.size(); ++i) {
    if (gave[i].isTensor()) into(gave[i].toTensor(), stack[i].toTensor());
    if (!gave[i].isTensorList()) continue;
    const auto old = gave[i].toTensorVector(), made = stack[i].toTensorVector();
    for (size_t k = 0; k < old.size(); ++k) into(old[k], made[k]);
  }
}

// The same memory, without what autograd knows of it, which must not outlive the pass.
c10::IValue plain(const c10::IValue& value) {
  const auto bare = [](const at::Tensor& t) {
    return t.defined() ? at::Tensor(t.unsafeGetTensorImpl()->shallow_copy_and_detach(0, false)) : t;
  };
  if (value.isTensor()) return bare(value.toTensor());
  if (value.isTensorList()) {
    c10::List<at::Tensor> all;
    for (const at::Tensor& t : value.toTensorVector()) all.push_back(bare(t));
    return all;
  }
  if (value.isOptionalTensorList()) {
    c10::List<std::optional<at::Tensor>> all;
    for (const std::optional<at::Tensor>& t : value.toOptionalTensorList()) all.push_back(t ? bare(*t) : t);
    return all;
  }
  return value;
}

void fallback(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  if (!recording) return on_host(op, stack);
  const auto& arguments = op.schema().arguments();
  torch::jit::Stack given(stack->end() - static_cast<ptrdiff_t>(arguments.size()), stack->end());
  for (size_t i = 0; i < given.size(); ++i) {
    // Running statistics are not said to be written.
    const bool running = arguments[i].name().rfind("running_", 0) == 0;
    if (!running && !(arguments[i].alias_info() && arguments[i].alias_info()->isWrite())) continue;
    if (given[i].isTensor()) recording->keep(given[i].toTensor());
    if (given[i].isTensorList()) {
      for (const at::Tensor& t : given[i].toTensorVector()) recording->keep(t);
    }
  }
  on_host(op, stack);
  const auto returns = static_cast<ptrdiff_t>(op.schema().returns().size());
  std::vector<c10::IValue> gave(stack->end() - returns, stack->end());
  for (auto* values : {&given, &gave}) {
    for (c10::IValue& value : *values) value = plain(value);
  }
  recording->all.push_back([op, given, gave] { repeat(op, given, gave); });
}

// What CUDA's kernels refuse and the CPU's do not.
void refuse(const std::string& name, c10::ArrayRef<c10::IValue> given) {
  if (name.rfind("aten::_fused_", 0) == 0) {
    // The parameters, their gradients and moments; after these, lists of numbers.
    const size_t n = name == "aten::_fused_sgd_" ? 3 : 5;
    std::vector<std::vector<at::Tensor>> lists;
    for (const auto& list : given.slice(0, n)) {
      if (!list.toTensorVector().empty()) lists.push_back(list.toTensorVector());
    }
    const std::vector<at::TensorList> all(lists.begin(), lists.end());
    TORCH_CHECK(at::native::check_fast_path_restrictions(all), name,
                ": params, grads and moments must have same dtype, device, and layout");
  }
  if (name == "aten::native_batch_norm_backward") {
    const auto x = given[1].toTensor();
    const bool innermost =
        x.is_contiguous(at::MemoryFormat::ChannelsLast) || (x.is_contiguous() && x.strides()[1] == 1);
    const bool saved = given[5].isTensor() && given[5].toTensor().defined();
    TORCH_CHECK(saved || !innermost, "save_mean->defined() INTERNAL ASSERT FAILED");
  }
}

void on_host(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const auto& schema = op.schema();
  const auto& name = schema.operator_name().name;
  refuse(name, torch::jit::last(*stack, schema.arguments().size()));
  static const std::set<std::string> READS = {"aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select",
                                              "aten::equal", "aten::_unique2"};
  if (READS.count(name)) waits(name);
  const auto n = schema.arguments().size();
  Passed passed;
  for (size_t i = stack->size() - n; i < stack->size(); ++i) {
    auto& value = (*stack)[i];
    if (value.isTensor()) {
      value = passed.in(value.toTensor(), name);
    } else if (value.isTensorList()) {
      std::vector<at::Tensor> list;
      for (const at::Tensor& t : value.toTensorVector()) list.push_back(passed.in(t, name));
      value = list;
    } else if (value.isOptionalTensorList()) {
      c10::List<std::optional<at::Tensor>> list;
      for (const std::optional<at::Tensor>& t : value.toOptionalTensorList()) {
        list.push_back(t ? std::optional<at::Tensor>(passed.in(*t, name)) : std::nullopt);
      }
      value = list;
    } else if (value.isDevice()) {
      value = c10::Device(c10::kCPU);
    }
  }
  at::AutoDispatchBelowADInplaceOrView below;
  op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), stack);
  for (size_t i = stack->size() - schema.returns().size(); i < stack->size(); ++i) {
    auto& value = (*stack)[i];
    if (value.isTensor()) {
      value = passed.out(value.toTensor());
    } else if (value.isTensorList()) {
      std::vector<at::Tensor> list;
      for (const at::Tensor& t : value.toTensorVector()) list.push_back(passed.out(t));
      value = list;
    }
  }
}

// Memory that a GPU could read by itself.
struct Pinned final : c10::Allocator {
  c10::DataPtr allocate(size_t n) override {
    void* data = std::malloc(n ? n : 1);
    const std::lock_guard<std::mutex> lock(mutex);
    all.insert(data);
    return {data, data, &Pinned::free, c10::Device(c10::kCPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &Pinned::free; }
  void copy_data(void* to, const void* from, size_t n) const override { default_copy_data(to, from, n); }
  bool has(const void* data) {
    const std::lock_guard<std::mutex> lock(mutex);
    return all.count(data) > 0;
  }

 private:
  std::mutex mutex;
  std::set<const void*> all;
  static void free(void* data);
};

Pinned pinned;

void Pinned::free(void* data) {
  {
    const std::lock_guard<std::mutex> lock(pinned.mutex);
    pinned.all.erase(data);
  }
  std::free(data);
}

void own(std::optional<at::Device> device) {
  TORCH_CHECK(!device || !device->has_index() || *device == DEVICE, *device, " is another process's; ours is ", DEVICE);
}

at::Tensor asked(at::Tensor t) {
  if (recording) recording->held.push_back(plain(t).toTensor());
  return t;
}

at::Tensor empty(at::IntArrayRef size, std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
                 std::optional<at::Device> device, std::optional<bool>, std::optional<at::MemoryFormat> format) {
  own(device);
  return asked(to_device(at::detail::empty_cpu(size, dtype, c10::nullopt, c10::Device(c10::kCPU), false, format)));
}

at::Tensor empty_strided(at::IntArrayRef size, at::IntArrayRef stride, std::optional<at::ScalarType> dtype,
                         std::optional<at::Layout>, std::optional<at::Device> device, std::optional<bool>) {
  own(device);
  return asked(to_device(at::detail::empty_strided_cpu(size, stride, dtype, c10::nullopt, c10::Device(c10::kCPU), false)));
}

bool is_recording() { return recording != nullptr; }

// CUDA takes this much from memory that is not pinned without waiting for the device.
constexpr size_t SMALL = 64 << 10;

at::Tensor& copy(at::Tensor& to, const at::Tensor& from, bool non_blocking) {
  if (recording && to.is_cuda() && from.is_cuda()) {
    recording->keep(to);
    const at::Tensor into = plain(to).toTensor(), out_of = plain(from).toTensor();
    recording->all.push_back([into, out_of] { to_host(into).copy_(to_host(out_of)); });
  }
  if (to.is_cpu()) waits("copy to the host");
  const auto waits_not = [&] { return non_blocking && (from.nbytes() <= SMALL || pinned.has(from.storage().data())); };
  if (from.is_cpu() && from.numel() > 0) {
    if (recording || !waits_not()) waits("copy to the device");
    if (current != 0) note("copy beside");
  }
  for (const at::Tensor& t : {to, from}) {
    if (t.is_cuda()) touched(t, "copy_");
  }
  at::AutoDispatchBelowADInplaceOrView below;
  at::Tensor into = to.is_cpu() ? to : to_host(to);
  into.copy_(from.is_cpu() ? from : to_host(from));
  return to;
}

TORCH_LIBRARY_IMPL(_, CUDA, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&fallback>()); }

TORCH_LIBRARY_IMPL(aten, CUDA, m) {
  m.impl("empty.memory_format", &empty);
  m.impl("empty_strided", &empty_strided);
  m.impl("_reshape_alias", &at::native::_reshape_alias);
  m.impl("as_strided", &at::native::as_strided_tensorimpl);
  m.impl("view", &at::native::view);
  m.impl("copy_", &copy);
  // Composed of parts that are chosen by device, where the CPU's choice will do.
  for (const char* op : {"convolution", "convolution_backward", "mse_loss"}) {
    m.impl(op, torch::CppFunction::makeFromBoxedFunction<&fallback>());
  }
}

struct Guard final : c10::impl::DeviceGuardImplInterface {
  Guard() = default;
  c10::DeviceType type() const override { return c10::kCUDA; }
  c10::Device exchangeDevice(c10::Device device) const override {
    own(device);
    return DEVICE;
  }
  c10::Device getDevice() const override { return DEVICE; }
  void setDevice(c10::Device device) const override { own(device); }
  void uncheckedSetDevice(c10::Device) const noexcept override {}
  c10::Stream getStream(c10::Device) const override { return stream(current); }
  c10::Stream getDefaultStream(c10::Device) const override { return stream(0); }
  c10::Stream getStreamFromGlobalPool(c10::Device, bool) const override {
    static std::atomic<size_t> next{0};
    return stream(1 + next++ % (Order::STREAMS - 1));
  }
  c10::Stream exchangeStream(c10::Stream next) const override {
    const auto before = stream(current);
    current = next.id();
    return before;
  }
  void* getStreamNativeHandle(const c10::Stream s) const override { return reinterpret_cast<void*>(s.id()); }
  c10::DeviceIndex deviceCount() const noexcept override { return static_cast<c10::DeviceIndex>(DEVICES); }
  void record(void** event, const c10::Stream& s, const c10::DeviceIndex, const c10::EventFlag) const override {
    if (!*event) *event = new Order::Clock;
    *static_cast<Order::Clock*>(*event) = order.now(s.id());
  }
  void block(void* event, const c10::Stream& s) const override {
    if (event) order.see(s.id(), *static_cast<Order::Clock*>(event));
  }
  void destroyEvent(void* event, const c10::DeviceIndex) const noexcept override {
    delete static_cast<Order::Clock*>(event);
  }
  void recordDataPtrOnStream(const c10::DataPtr& data, const c10::Stream& s) const override {
    order.keep(data.get(), s.id());
  }
  bool queryEvent(void*) const override { return true; }
  bool queryStream(const c10::Stream&) const override { return true; }
  void synchronizeEvent(void*) const override { waits("synchronize"); }
  void synchronizeStream(const c10::Stream&) const override { waits("synchronize"); }
  void synchronizeDevice(const c10::DeviceIndex) const override { waits("synchronize"); }

 private:
  static c10::Stream stream(size_t id) {
    return c10::Stream(c10::Stream::UNSAFE, DEVICE, static_cast<c10::StreamId>(id));
  }
};

C10_REGISTER_GUARD_IMPL(CUDA, Guard);

struct Memory final : c10::DeviceAllocator {
  c10::DataPtr allocate(size_t n) override {
    void* data = std::malloc(n ? n : 1);
    return {data, data, &std::free, DEVICE};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &std::free; }
  void copy_data(void* to, const void* from, size_t n) const override { default_copy_data(to, from, n); }
  bool initialized() override { return true; }
  void emptyCache(c10::MempoolId_t) override {}
  void recordStream(const c10::DataPtr& data, c10::Stream s) override { order.keep(data.get(), s.id()); }
  c10::CachingDeviceAllocator::DeviceStats getDeviceStats(c10::DeviceIndex) override { return {}; }
  void resetAccumulatedStats(c10::DeviceIndex) override {}
  void resetPeakStats(c10::DeviceIndex) override {}
  std::pair<size_t, size_t> getMemoryInfo(c10::DeviceIndex) override { return {size_t(1) << 30, size_t(1) << 31}; }
};

Memory memory;
const bool registered = (c10::SetAllocator(c10::kCUDA, &memory), true);

} // namespace

namespace at {

struct CUDAHooks final : CUDAHooksInterface {
  explicit CUDAHooks(CUDAHooksArgs) {}
  void init() const override {}
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasCUDA() const override { return true; }
  bool hasPrimaryContext(DeviceIndex) const override { return true; }
  DeviceIndex deviceCount() const override { return static_cast<DeviceIndex>(DEVICES); }
  DeviceIndex current_device() const override { return DEVICE.index(); }
  DeviceIndex getCurrentDevice() const override { return DEVICE.index(); }
  int getNumGPUs() const override { return DEVICES; }
  bool isPinnedPtr(const void* data) const override { return pinned.has(data); }
  Allocator* getPinnedMemoryAllocator() const override { return &pinned; }
  // Its numbers are the CPU generator's, which the CPU's kernels use.
  const Generator& getDefaultGenerator(DeviceIndex) const override {
    static Generator generator = at::detail::createCPUGenerator();
    return generator;
  }
  void deviceSynchronize(DeviceIndex) const override { waits("synchronize"); }
};

REGISTER_CUDA_HOOKS(CUDAHooks);

} // namespace at

enum cudaStreamCaptureMode { cudaStreamCaptureModeGlobal, cudaStreamCaptureModeThreadLocal };

namespace at::cuda {

// By how many graphs each pool of memory is used. One that no graph uses any more takes no other.
std::map<MempoolId_t, int> pools;

struct CUDAGraph {
  explicit CUDAGraph(bool keep_graph);
  ~CUDAGraph();
  void capture_begin(MempoolId_t pool, cudaStreamCaptureMode mode);
  void capture_end();
  void replay();

 private:
  Recording recorded;
  std::optional<MempoolId_t> pool;
  // Drawn numbers are drawn when they are replayed.
  at::Tensor generator;
};

CUDAGraph::CUDAGraph(bool) {}
CUDAGraph::~CUDAGraph() {
  if (pool) --pools[*pool];
}

void CUDAGraph::capture_begin(MempoolId_t of, cudaStreamCaptureMode) {
  TORCH_CHECK(!pools.count(of) || pools[of] > 0, "use_count > 0 INTERNAL ASSERT FAILED");
  ++pools[of];
  pool = of;
  TORCH_CHECK(current != 0, "CUDA graphs must be captured on a non-default stream");
  generator = at::detail::getDefaultCPUGenerator().get_state();
  recording = &recorded;
}

void CUDAGraph::capture_end() {
  recording = nullptr;
  recorded.undo();
  auto drawn = at::detail::getDefaultCPUGenerator();
  drawn.set_state(generator);
  note("recorded");
}

void CUDAGraph::replay() {
  for (const auto& again : recorded.all) again();
  note("replayed");
}

MempoolId_t graph_pool_handle() {
  static std::atomic<unsigned long long> made{0};
  return {0, ++made};
}

} // namespace at::cuda

namespace {

// What processes exchange: how far each is, and room for a tensor of each.
struct Shared {
  static constexpr size_t ROOM = size_t(64) << 20;
  std::atomic<uint64_t> reached[64];

  char* room(int rank) { return reinterpret_cast<char*>(this) + 4096 + rank * ROOM; }
};

struct Comm {
  int rank, world;
  Shared* shared;
  uint64_t round = 0;
  std::atomic<bool> aborted{false};
  // By how much that is recorded it is named.
  std::atomic<int> named{0};

  std::shared_ptr<Comm> name() {
    ++named;
    return {this, [](Comm* comm) { --comm->named; }};
  }

  // Whether all came here.
  bool meet() {
    shared->reached[rank] = ++round;
    for (int other = 0; other < world; ++other) {
      while (shared->reached[other] < round) {
        if (aborted) return false;
        usleep(50);
      }
    }
    return true;
  }
};

constexpr int SUCCESS = 0, INTERNAL = 3, USAGE = 5;

at::ScalarType type_of(int type) {
  static const std::map<int, at::ScalarType> TYPES{{0, at::kChar}, {1, at::kByte},   {2, at::kInt},    {4, at::kLong},
                                                   {6, at::kHalf}, {7, at::kFloat}, {8, at::kDouble}, {9, at::kBFloat16}};
  return TYPES.at(type);
}

// Calls `take` when the tensors of all are in their rooms.
template <class Take>
int exchange(Comm* comm, const void* from, const void* to, size_t count, int type, void* stream, Take take) {
  const size_t bytes = count * at::elementSize(type_of(type));
  for (const void* data : {from, to}) {
    const auto wrong = order.touch(data, reinterpret_cast<size_t>(stream));
    if (!wrong.empty() || bytes > Shared::ROOM) {
      std::fprintf(stderr, "stand-in: %s\n", wrong.empty() ? "no room" : wrong.c_str());
      return USAGE;
    }
  }
  const auto work = [=] {
    std::memcpy(comm->shared->room(comm->rank), from, bytes);
    if (!comm->meet()) return INTERNAL;
    take(bytes);
    return comm->meet() ? SUCCESS : INTERNAL;
  };
  // What is recorded on either side holds the memory.
  if (recording) recording->all.push_back([work, named = comm->name()] { work(); });
  return work();
}

} // namespace

extern "C" {

struct UniqueId {
  char name[128];
};

const char* ncclGetErrorString(int result) { return result == INTERNAL ? "internal error" : "invalid usage"; }

const char* ncclGetLastError(Comm*) { return ""; }

int cudaStreamIsCapturing(void*, int* status) {
  *status = is_recording();
  return SUCCESS;
}

int ncclGetUniqueId(UniqueId* id) {
  std::snprintf(id->name, sizeof id->name, "/nct-stand-in-%d-%u", getpid(), std::random_device{}());
  return SUCCESS;
}

int ncclCommInitRank(Comm** out, int world, UniqueId id, int rank) {
  const char* meeting = std::getenv("NCT_STAND_IN_MEETING");
  if (meeting && !std::strcmp(meeting, "refuse")) return USAGE;
  if (meeting && !std::strcmp(meeting, "die")) _exit(9);
  const int file = shm_open(id.name, O_RDWR | O_CREAT, 0600);
  const size_t bytes = 4096 + world * Shared::ROOM;
  if (file < 0 || ftruncate(file, static_cast<off_t>(bytes)) != 0) return INTERNAL;
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, file, 0);
  close(file);
  if (memory == MAP_FAILED) return INTERNAL;
  auto* comm = new Comm{rank, world, static_cast<Shared*>(memory)};
  comm->meet();
  if (rank == 0) shm_unlink(id.name);
  *out = comm;
  return SUCCESS;
}

int ncclCommGetAsyncError(Comm*, int* result) {
  *result = SUCCESS;
  return SUCCESS;
}

// Another thread may still be in `meet`. NCCL waits for all that names it to be gone.
int ncclCommAbort(Comm* comm) {
  comm->aborted = true;
  while (comm->named > 0) usleep(50);
  return SUCCESS;
}

int ncclAllReduce(const void* from, void* to, size_t n, int type, int, Comm* comm, void* stream) {
  return exchange(comm, from, to, n, type, stream, [=](size_t) {
    at::AutoDispatchBelowADInplaceOrView below;
    const auto kind = type_of(type);
    const auto size = static_cast<int64_t>(n);
    at::Tensor sum = at::from_blob(to, {size}, kind).zero_();
    for (int rank = 0; rank < comm->world; ++rank) sum.add_(at::from_blob(comm->shared->room(rank), {size}, kind));
  });
}

int ncclGroupStart() { return SUCCESS; }

int ncclGroupEnd() { return SUCCESS; }

int ncclBroadcast(const void* from, void* to, size_t n, int type, int root, Comm* comm, void* stream) {
  return exchange(comm, from, to, n, type, stream,
                  [=](size_t bytes) { std::memcpy(to, comm->shared->room(root), bytes); });
}

int ncclAllGather(const void* from, void* to, size_t n, int type, Comm* comm, void* stream) {
  return exchange(comm, from, to, n, type, stream, [=](size_t bytes) {
    for (int rank = 0; rank < comm->world; ++rank) {
      std::memcpy(static_cast<char*>(to) + rank * bytes, comm->shared->room(rank), bytes);
    }
  });
}

const char* cudaGetErrorString(int) { return "refused by the stand-in"; }

int cudaDeviceGetAttribute(int* value, int attribute, int) {
  constexpr int PROCESSORS = 16, MAJOR = 75;
  *value = attribute == MAJOR ? 9 : attribute == PROCESSORS ? 132 : 0;
  return 0;
}

int cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void*, int, size_t) { return *blocks = 4, 0; }

int cudaLibraryLoadData(void** library, const void* code, int*, void**, unsigned, int*, void**, unsigned) {
  static std::string loaded;
  loaded = static_cast<const char*>(code);
  *library = &loaded;
  return 0;
}

// What is loaded are the sources.
int cudaLibraryGetKernel(const void** kernel, void* library, const char* name) {
  static std::set<std::string> named;
  if (static_cast<std::string*>(library)->find(std::string(" ") + name + "(") == std::string::npos &&
      static_cast<std::string*>(library)->find(std::string(" ") + name + ",") == std::string::npos) {
    return 1;
  }
  *kernel = &*named.insert(name).first;
  return 0;
}

int cudaLaunchKernel(const void* kernel, Extent blocks, Extent threads, void** arguments, size_t, void* stream) {
  const auto name = *static_cast<const std::string*>(kernel);
  std::vector<char> task(sizeof(nct::First) + sizeof(nct::Readings));
  const size_t norms = convolves(name) ? sizeof(nct::First) : sizeof(nct::Task);
  std::memcpy(task.data(), arguments[0],
              shows(name) ? sizeof(nct::Images) : reads(name) ? sizeof(nct::Readings) : norms);
  const auto& first = *reinterpret_cast<const nct::First*>(task.data());
  const auto& norm = *reinterpret_cast<const nct::Task*>(task.data());
  const auto& reading = *reinterpret_cast<const nct::Readings*>(task.data());
  const auto& images = *reinterpret_cast<const nct::Images*>(task.data());
  std::vector<const void*> touched{norm.x, norm.y, norm.dy, norm.dx, norm.found, norm.stats, norm.share, norm.dweight};
  if (convolves(name)) {
    touched.insert(touched.end(), {first.kernel, first.found, first.moments, first.products, first.dkernel});
  }
  if (reads(name)) touched = {reading.map, reading.at, reading.value, reading.slopes, reading.dvalue, reading.dmap};
  if (shows(name)) touched = {images.bytes, images.values, images.moves, images.seen};
  for (const void* data : touched) {
    const auto wrong = data ? order.touch(data, reinterpret_cast<size_t>(stream)) : std::string();
    if (wrong.empty()) continue;
    std::fprintf(stderr, "stand-in: %s: %s\n", name.c_str(), wrong.c_str());
    return 1;
  }
  if (recording) {
    const auto keep = [](void* data, int64_t n, at::ScalarType kind) {
      const auto running = at::from_blob(data, {n}, kind);
      recording->before.emplace_back(running, running.clone());
    };
    const bool normalises = !reads(name) && !shows(name);
    at::AutoDispatchBelowADInplaceOrView below;
    if (normalises && norm.running_mean) {
      keep(norm.running_mean, norm.channels, at::kFloat);
      keep(norm.running_variance, norm.channels, at::kFloat);
      keep(norm.batches, 1, at::kLong);
    }
    if (normalises && norm.adds) {
      keep(norm.dweight, norm.channels, at::kFloat);
      keep(norm.dbias, norm.channels, at::kFloat);
    }
    recording->all.push_back([=] { run(name, blocks, threads, task.data()); });
  }
  note(name);
  run(name, blocks, threads, task.data());
  return 0;
}

int nvrtcCreateProgram(void** program, const char*, const char*, int n, const char* const* texts, const char* const*) {
  auto* all = new std::string;
  for (int i = 0; i < n; ++i) *all += texts[i];
  *program = all;
  return 0;
}
int nvrtcCompileProgram(void*, int, const char* const*) { return 0; }
int nvrtcGetProgramLogSize(void*, size_t* bytes) { return *bytes = 0, 0; }
int nvrtcGetProgramLog(void*, char*) { return 0; }
int nvrtcGetCUBINSize(void* program, size_t* bytes) { return *bytes = static_cast<std::string*>(program)->size() + 1, 0; }
int nvrtcGetCUBIN(void* program, char* code) {
  const auto& text = *static_cast<std::string*>(program);
  std::memcpy(code, text.c_str(), text.size() + 1);
  return 0;
}
int nvrtcGetPTXSize(void* program, size_t* bytes) { return nvrtcGetCUBINSize(program, bytes); }
int nvrtcGetPTX(void* program, char* code) { return nvrtcGetCUBIN(program, code); }
int nvrtcGetNumSupportedArchs(int* n) { return *n = 1, 0; }
int nvrtcGetSupportedArchs(int* known) { return *known = 90, 0; }
int nvrtcDestroyProgram(void** program) { return delete static_cast<std::string*>(*program), 0; }

} // extern "C"
