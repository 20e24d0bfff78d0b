// How kernels share out their work. The host's compiler and the device's read it alike.

#ifndef NCT_PLACE_H
#define NCT_PLACE_H

namespace nct {

// Threads of a block, as far as nothing else is said.
constexpr unsigned THREADS = 256;
// Channels that a thread takes at once: 16 bytes of bfloat16.
constexpr unsigned PACK = 8;

// A thread of a grid.
struct Place {
  unsigned thread, block, row_of_blocks, blocks;
};

} // namespace nct

#endif
