// What tch lacks of libtorch: the memory of devices, and the way there.

#include "cuda.h"
#include "guard.h"

#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/Event.h>
#include <c10/core/StreamGuard.h>

#include <cstdio>
#include <exception>
#include <optional>

#include <unistd.h>

namespace {

std::terminate_handler before;

// A GPU that has failed refuses everything, also to take note that a tensor goes, which destructors cannot tell: what is
// lost then is what a kill would lose.
[[noreturn]] void end_with_the_gpu() {
  try {
    if (const auto thrown = std::current_exception()) std::rethrow_exception(thrown);
  } catch (const c10::AcceleratorError& e) {
    const std::string said = e.what_without_backtrace();
    std::fprintf(stderr, "nct: the GPU has failed: %s [N801]\n", said.substr(0, said.find('\n')).c_str());
    _exit(1);
  } catch (...) {
  }
  before();
  std::abort();
}

} // namespace

extern "C" {

int nct_cuda_memory(int index, uint64_t* free) {
  return guarded([&] {
    // Through the device's allocator: libtorch's CUDA half need not be linked.
    const auto device = static_cast<c10::DeviceIndex>(index);
    *free = at::getDeviceAllocator(c10::DeviceType::CUDA)->getMemoryInfo(device).first;
  });
}

int nct_cuda_peak(int index, uint64_t* peak) {
  return guarded([&] {
    constexpr size_t ALL = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
    const auto device = static_cast<c10::DeviceIndex>(index);
    const auto stats = at::getDeviceAllocator(c10::DeviceType::CUDA)->getDeviceStats(device);
    *peak = static_cast<uint64_t>(stats.allocated_bytes[ALL].peak);
  });
}

// The host does not wait: up to 64 KB are taken from its memory before this returns (CUDA C++ Programming Guide,
// "Concurrent Execution between Host and Device"), more goes by way of pinned memory, which PyTorch's allocator hands
// out again when the copy is done; and does so beside what the device computes, which waits for it only where it comes
// to what uses it. The host is ahead, so that is later.
int nct_send(const at::Tensor* tensor, int index, at::Tensor** out) {
  return guarded([&] {
    constexpr size_t SMALL = 64 << 10;
    const c10::Device device(c10::DeviceType::CUDA, static_cast<c10::DeviceIndex>(index));
    const auto go = [&](const at::Tensor& from) { return from.to(device, from.scalar_type(), /*non_blocking=*/true); };
    if (tensor->nbytes() <= SMALL) {
      *out = new at::Tensor(go(*tensor));
      return;
    }
    const at::Tensor pinned = tensor->pin_memory();
    const c10::Stream computing = gpu().getStream(device);
    thread_local std::optional<c10::Stream> beside;
    if (!beside || beside->device() != device) beside = gpu().getStreamFromGlobalPool(device);
    at::Tensor there;
    {
      const c10::StreamGuard guard(*beside);
      there = go(pinned);
    }
    c10::Event done(c10::DeviceType::CUDA);
    done.record(*beside);
    done.block(computing);
    // Its memory belongs to `beside`, which must not have it back while it is computed with.
    gpu().recordDataPtrOnStream(there.storage().data_ptr(), computing);
    *out = new at::Tensor(std::move(there));
  });
}

// What names no device goes to this one from now on. Convolutions by algorithms that give the same bits every time, and
// products of 32 bits where 32 bits are asked for: PyTorch would take the first that come, and TF32 for convolutions.
// Products of bfloat16 are added up in 32 bits to the end.
int nct_cuda_use(int index) {
  return guarded([&] {
    const c10::Device device(c10::DeviceType::CUDA, static_cast<c10::DeviceIndex>(index));
    gpu().setDevice(device);
    static const auto once = before = std::set_terminate(end_with_the_gpu);
    (void)once;
    at::Context& context = at::globalContext();
    context.setDeterministicCuDNN(true);
    context.setBenchmarkCuDNN(false);
    context.setAllowTF32CuDNN(false);
    context.setAllowTF32CuBLAS(false);
    context.setAllowBF16ReductionCuBLAS(/*allow_reduced_precision=*/false);
  });
}

} // extern "C"
