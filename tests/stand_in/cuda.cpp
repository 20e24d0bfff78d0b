// A stand-in for libtorch_cuda.so where there is no GPU: the device "cuda:0", whose memory is the host's and whose
// kernels are the CPU's. It shows what must hold before a real one can: every tensor is where the others are (a mix
// is an error, as CUDA makes it), and how often the host waits for the device. It shows nothing of speed, of streams,
// or of what CUDA's own kernels do.
//
// With NCT_STAND_IN_LOG=FILE, each operation for which the host would wait adds a line to that file.

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/EmptyTensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <set>
#include <string>

namespace {

const c10::Device DEVICE(c10::kCUDA, 0);

// Memory of the device and of the host are one, but a tensor that says so is not.
at::Tensor alias(const at::Tensor& of, c10::Device device, c10::DispatchKey key) {
  c10::DataPtr data(of.storage().mutable_data(), new at::Tensor(of),
                    [](void* owner) { delete static_cast<at::Tensor*>(owner); }, device);
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
at::Tensor to_device(const at::Tensor& of) { return alias(of, DEVICE, c10::DispatchKey::CUDA); }

// The host waits for the device.
void waits(const std::string& what) {
  static std::FILE* file = [] {
    const char* path = std::getenv("NCT_STAND_IN_LOG");
    return path ? std::fopen(path, "a") : nullptr;
  }();
  if (file) {
    std::fputs((what + "\n").c_str(), file);
    std::fflush(file);
  }
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

void fallback(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const auto& schema = op.schema();
  const auto& name = schema.operator_name().name;
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

at::Tensor empty(at::IntArrayRef size, std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
                 std::optional<at::Device>, std::optional<bool>, std::optional<at::MemoryFormat> format) {
  return to_device(at::detail::empty_cpu(size, dtype, c10::nullopt, c10::Device(c10::kCPU), false, format));
}

at::Tensor empty_strided(at::IntArrayRef size, at::IntArrayRef stride, std::optional<at::ScalarType> dtype,
                         std::optional<at::Layout>, std::optional<at::Device>, std::optional<bool>) {
  return to_device(at::detail::empty_strided_cpu(size, stride, dtype, c10::nullopt, c10::Device(c10::kCPU), false));
}

// CUDA takes this much from memory that is not pinned without waiting for the device.
constexpr size_t SMALL = 64 << 10;

at::Tensor& copy(at::Tensor& to, const at::Tensor& from, bool non_blocking) {
  if (to.is_cpu()) waits("copy to the host");
  const auto waits_not = [&] { return non_blocking && (from.nbytes() <= SMALL || pinned.has(from.storage().data())); };
  if (from.is_cpu() && from.numel() > 0 && !waits_not()) waits("copy to the device");
  at::AutoDispatchBelowADInplaceOrView below;
  at::Tensor into = to.is_cpu() ? to : to_host(to);
  into.copy_(from.is_cpu() ? from : to_host(from));
  return to;
}

TORCH_LIBRARY_IMPL(_, CUDA, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&fallback>()); }

TORCH_LIBRARY_IMPL(aten, CUDA, m) {
  m.impl("empty.memory_format", &empty);
  m.impl("empty_strided", &empty_strided);
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
  c10::Device exchangeDevice(c10::Device) const override { return DEVICE; }
  c10::Device getDevice() const override { return DEVICE; }
  void setDevice(c10::Device) const override {}
  void uncheckedSetDevice(c10::Device) const noexcept override {}
  c10::Stream getStream(c10::Device) const override { return stream(); }
  c10::Stream getDefaultStream(c10::Device) const override { return stream(); }
  c10::Stream exchangeStream(c10::Stream) const override { return stream(); }
  c10::DeviceIndex deviceCount() const noexcept override { return 1; }
  void record(void**, const c10::Stream&, const c10::DeviceIndex, const c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  bool queryStream(const c10::Stream&) const override { return true; }
  void synchronizeStream(const c10::Stream&) const override { waits("synchronize"); }
  void synchronizeDevice(const c10::DeviceIndex) const override { waits("synchronize"); }

 private:
  static c10::Stream stream() { return c10::Stream(c10::Stream::DEFAULT, DEVICE); }
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
  void recordStream(const c10::DataPtr&, c10::Stream) override {}
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
  DeviceIndex deviceCount() const override { return 1; }
  DeviceIndex current_device() const override { return 0; }
  DeviceIndex getCurrentDevice() const override { return 0; }
  int getNumGPUs() const override { return 1; }
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
