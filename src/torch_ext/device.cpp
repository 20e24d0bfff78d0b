// What tch lacks of libtorch: the memory of devices, and the way there.

#include "guard.h"

#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <c10/core/CachingDeviceAllocator.h>

extern "C" {

int nct_cuda_memory(int index, uint64_t* free) {
  return guarded([&] {
    // Through the device's allocator: libtorch's CUDA half need not be linked.
    const auto device = static_cast<c10::DeviceIndex>(index);
    *free = at::getDeviceAllocator(c10::DeviceType::CUDA)->getMemoryInfo(device).first;
  });
}

// The host does not wait: up to 64 KB are taken from its memory before this returns (CUDA C++ Programming Guide,
// "Concurrent Execution between Host and Device"), more goes by way of pinned memory, which PyTorch's allocator hands
// out again when the copy is done.
int nct_send(const at::Tensor* tensor, int index, at::Tensor** out) {
  return guarded([&] {
    constexpr size_t SMALL = 64 << 10;
    const c10::Device device(c10::DeviceType::CUDA, static_cast<c10::DeviceIndex>(index));
    const at::Tensor from = tensor->nbytes() > SMALL ? tensor->pin_memory() : *tensor;
    *out = new at::Tensor(from.to(device, from.scalar_type(), /*non_blocking=*/true));
  });
}

// Convolutions by algorithms that give the same bits every time, and products of 32 bits where 32 bits are asked for:
// PyTorch would take the first that come, and TF32 for convolutions.
int nct_cuda_exact() {
  return guarded([] {
    at::Context& context = at::globalContext();
    context.setDeterministicCuDNN(true);
    context.setBenchmarkCuDNN(false);
    context.setAllowTF32CuDNN(false);
    context.setAllowTF32CuBLAS(false);
  });
}

} // extern "C"
