// What the kernel of images.cu is told. The host's compiler and the device's read it alike.

#ifndef NCT_IMAGES_H
#define NCT_IMAGES_H

#include "place.h"

namespace nct {

// How many numbers say what happens to an image: see `Move` in `src/load/moves.rs`.
constexpr unsigned MOVE = 10;

struct Images {
  // `[all images, channels, height, width]`, and what a byte of each channel is shown as `[channels, 256]`.
  const unsigned char* bytes;
  const float* values;
  // `[n, MOVE]`.
  const int* moves;
  // `[n, channels, height, width]`: what is seen.
  float* seen;
  unsigned n, channels, height, width;
};

} // namespace nct

#endif
