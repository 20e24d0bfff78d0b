// What the kernels of first.cu are told. The host's compiler and the device's read it alike.

#ifndef NCT_FIRST_H
#define NCT_FIRST_H

#include "norm.h"

namespace nct {

// Weights of a channel; pairs of them, in any order, one with itself too; sums over all patches: of their pixels, and of the
// products of pairs.
constexpr unsigned TAPS = 9, PAIRS = TAPS * (TAPS + 1) / 2, MOMENTS = TAPS + PAIRS;
// Threads of a block that goes through images.
constexpr unsigned FEW_THREADS = 128;

struct First {
  // Of the normalisation: `x` is `[images, height, width]`, `found` `[blocks, 1 + TAPS, channels]`; `dx` is not there.
  Task norm;
  // `[channels, TAPS]`, read as bfloat16.
  const float* kernel;
  // `[blocks, MOMENTS]`: what each block found about the patches, and `[MOMENTS]`: all of it.
  double* found;
  double* moments;
  // `[1 + TAPS, channels]`: sums of the gradient of what is normalised, and of its products with the pixels of patches.
  float* products;
  // `[channels, TAPS]`
  float* dkernel;
};

} // namespace nct

#endif
