// Our own kernels, as the host's compiler reads them, done place by place.

#pragma once

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "../../src/torch_ext/kernels/first.cu"
#include "../../src/torch_ext/kernels/images.cu"
#include "../../src/torch_ext/kernels/reading.cu"

// As CUDA's dim3.
struct Extent {
  unsigned x, y, z;
};

inline bool reads(const std::string& kernel) { return kernel.rfind("nct_read", 0) == 0; }
inline bool shows(const std::string& kernel) { return kernel == "nct_show"; }
inline bool convolves(const std::string& kernel) { return kernel.rfind("nct_first", 0) == 0; }

// One thread after another. What a block shares is no number until a thread has written it.
inline void run(const std::string& kernel, Extent blocks, Extent threads, const void* of) {
  const auto each_block = [&](auto work) {
    for (unsigned y = 0; y < blocks.y; ++y) {
      for (unsigned x = 0; x < blocks.x; ++x) work(x, y);
    }
  };
  const auto all = [&](unsigned x, unsigned y, auto step) {
    for (unsigned thread = 0; thread < threads.x; ++thread) step(nct::Place{thread, x, y, blocks.x});
  };
  const auto one = [&](const auto& task, auto step) {
    each_block([&](unsigned x, unsigned y) { all(x, y, [&](const nct::Place& at) { step(task, at); }); });
  };
  const auto two = [&](const auto& task, auto between, auto first, auto then) {
    each_block([&](unsigned x, unsigned y) {
      std::memset(&between, 0xff, sizeof between);
      all(x, y, [&](const nct::Place& at) { first(task, at, between); });
      all(x, y, [&](const nct::Place& at) { then(task, at, between); });
    });
  };
  using namespace nct;
  if (shows(kernel)) return one(*static_cast<const Images*>(of), show);
  if (reads(kernel)) {
    const auto& task = *static_cast<const Readings*>(of);
    if (kernel == "nct_read_bf16") return one(task, read<Packed>);
    if (kernel == "nct_read_f32") return one(task, read<Values>);
    if (kernel == "nct_read_back_bf16") return one(task, read_back<Packed>);
    if (kernel == "nct_read_back_f32") return one(task, read_back<Values>);
  }
  if (convolves(kernel)) {
    const auto& task = *static_cast<const First*>(of);
    if (kernel == "nct_first_moments") return two(task, Moments{}, add_patches, gather_patches);
    if (kernel == "nct_first_totals") return two(task, OfThreads{}, add_moment, sum_moment);
    if (kernel == "nct_first_statistics") return two(task, Patches{}, describe, channel_statistics);
    if (kernel == "nct_first") return one(task, convolve);
    if (kernel == "nct_first_products") return two(task, Products{}, add_products, gather_products);
    if (kernel == "nct_first_sums") return two(task, AllProducts{}, add_found, sum_products);
    if (kernel == "nct_first_norm_gradients") return one(task, norm_gradients);
    if (kernel == "nct_first_gradients") return one(task, kernel_gradients);
  }
  const auto& task = *static_cast<const Task*>(of);
  if (kernel == "nct_norm_sums") return two(task, Sums{}, add_map, gather);
  if (kernel == "nct_norm_statistics") return two(task, Totals{}, add_blocks, statistics);
  if (kernel == "nct_norm_sums_back") return two(task, Sums{}, add_gradient<1>, gather);
  if (kernel == "nct_norm_sums_back_pooled") return two(task, Sums{}, add_gradient<2>, gather);
  if (kernel == "nct_norm_gradients") return two(task, Totals{}, add_blocks, gradients);
  if (kernel == "nct_norm") return one(task, normalise<1>);
  if (kernel == "nct_norm_pooled") return one(task, normalise<2>);
  if (kernel == "nct_norm_back") return one(task, take_back<1>);
  if (kernel == "nct_norm_back_pooled") return one(task, take_back<2>);
  std::fprintf(stderr, "stand-in: no kernel %s\n", kernel.c_str());
  std::abort();
}
