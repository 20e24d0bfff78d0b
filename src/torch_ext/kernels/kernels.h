// Kernels of our own, compiled by NVIDIA's run-time compiler for the GPU that they run on.

#pragma once

#include <c10/core/Device.h>

#include <map>
#include <string_view>

// As CUDA's dim3.
struct Extent {
  unsigned x = 1, y = 1, z = 1;
};

class Kernels {
 public:
  // For this GPU; compiled when they are first asked for, which takes a second.
  static const Kernels& of(c10::Device device);

  // How many of a kernel's blocks, of as many threads as it goes through maps with, the GPU works on at once.
  unsigned at_once(std::string_view name) const { return all.at(name).blocks_at_once; }

  // On the device's current stream. `task` is the kernel's only argument, and is taken before this returns.
  void launch(std::string_view name, Extent blocks, Extent threads, const void* task) const;

 private:
  explicit Kernels(c10::Device device);

  struct Kernel {
    const void* handle = nullptr;
    unsigned blocks_at_once = 1;
  };

  c10::Device device;
  // By their names, which are literals.
  std::map<std::string_view, Kernel> all;
};
