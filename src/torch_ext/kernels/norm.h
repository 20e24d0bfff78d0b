// What the kernels of norm.cu are told. The host's compiler and the device's read it alike.

#ifndef NCT_NORM_H
#define NCT_NORM_H

#include "place.h"

namespace nct {

// Channels of a block that adds up what other blocks found, and in how many groups it does.
constexpr unsigned COLUMNS = 32, GROUPS = 32;

// Maps are `[rows, channels]`, a row being a pixel of an image; what remains of one after pooling has fewer rows.
struct Task {
  // In bfloat16: what is normalised, what becomes of it, and the gradients of both.
  const void* x;
  void* y;
  const void* dy;
  void* dx;
  // `[blocks, 2, channels]`: what each block found.
  float* found;
  // `[5, channels]`: mean, 1 / deviation, weight / deviation and bias as they were in the forward pass, and variance.
  float* stats;
  // `[2, channels]`: what statistics add to the gradient of x, in proportion to its distance from the mean, and alike.
  float* share;
  const float* weight;
  const float* bias;
  // Null, or of the convolution before, which left it out: what x lacks, and the running mean does not.
  const float* lacking;
  float* running_mean;
  float* running_variance;
  long long* batches;
  float* dweight;
  float* dbias;
  float momentum, eps;
  unsigned rows, channels, height, width;
  // What is worked through: rows, or windows of 2 x 2 of them.
  unsigned windows;
  // That add up sums.
  unsigned blocks;
  // Add gradients of weight and bias to what is there.
  bool adds;
};

} // namespace nct

#endif
