// What is reached of libtorch's CUDA half, which this program is not linked with but opens.

#pragma once

#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <c10/util/Exception.h>

#include <dlfcn.h>

#include <string>

// Devices and streams, through the interface that the CUDA half registers.
inline const c10::impl::DeviceGuardImplInterface& gpu() {
  return *c10::impl::getDeviceGuardImpl(c10::DeviceType::CUDA);
}

// That half, where it was opened.
struct CudaHalf {
  std::string file;
  // For `dlsym`: with what it brings, such as the CUDA runtime, but before others of the same names.
  void* library;

  static const CudaHalf& get() {
    static const CudaHalf found = [] {
      Dl_info place{};
      void* known = dlsym(RTLD_DEFAULT, "_ZN2at4cuda9CUDAGraph6replayEv");
      TORCH_CHECK(known && dladdr(known, &place), "the CUDA half of libtorch is not here");
      void* library = dlopen(place.dli_fname, RTLD_NOW | RTLD_NOLOAD);
      TORCH_CHECK(library, "the CUDA half of libtorch is not where it was: ", place.dli_fname);
      return CudaHalf{place.dli_fname, library};
    }();
    return found;
  }
};

// A function that came with it.
template <class Function>
void find(Function*& function, const char* name) {
  function = reinterpret_cast<Function*>(dlsym(CudaHalf::get().library, name));
  TORCH_CHECK(function, "the CUDA half of libtorch is not that of version 2.11 with NCCL: it has no ", name);
}
