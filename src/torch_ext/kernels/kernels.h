// Kernels of our own, compiled by NVIDIA's run-time compiler for the GPU that they run on.

#pragma once

#include <c10/core/Device.h>

#include <map>
#include <string>

// As CUDA's dim3.
struct Extent {
  unsigned x = 1, y = 1, z = 1;
};

class Kernels {
 public:
  // For this GPU; compiled when they are first asked for, which takes a second.
  static const Kernels& of(c10::Device device);

  // On the device's current stream. `task` is the kernel's only argument, and is taken before this returns.
  void launch(const std::string& name, Extent blocks, Extent threads, const void* task) const;

 private:
  explicit Kernels(c10::Device device);

  c10::Device device;
  std::map<std::string, const void*> all;
};
