// What the kernels of reading.cu are told. The host's compiler and the device's read it alike.

#ifndef NCT_READING_H
#define NCT_READING_H

#include "place.h"

namespace nct {

// A map `[batch, height, width, channels]` is read at `at` `[batch, n, 2]`.
struct Readings {
  const void* map;
  const float* at;
  // `[batch, n, channels]`: what is read. Null, or `[batch, n, 2, channels]`: what it changes by along x and y.
  float* value;
  float* slopes;
  // The gradients of what is read, and of the map.
  const float* dvalue;
  void* dmap;
  unsigned batch, n, channels, height, width;
};

} // namespace nct

#endif
