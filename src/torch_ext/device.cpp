// What tch lacks of libtorch: the memory of devices.

#include "guard.h"

#include <c10/core/CachingDeviceAllocator.h>

extern "C" {

int nct_cuda_memory(int index, uint64_t* free) {
  return guarded([&] {
    // Through the device's allocator: libtorch's CUDA half need not be linked.
    const auto device = static_cast<c10::DeviceIndex>(index);
    *free = at::getDeviceAllocator(c10::DeviceType::CUDA)->getMemoryInfo(device).first;
  });
}

} // extern "C"
