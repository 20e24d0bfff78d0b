// Images of a batch, out of bytes that live on the device: rotated, mirrored, shifted and normalised. Positions are whole
// numbers, as `SourceMap` in `src/load/render.rs` has them, so that the host would make the same bits.

#include "images.h"
#include "packed.cuh"

namespace nct {

// Sums that may leave 32 bits on the way, as those of two's complement do.
ON_DEVICE int at_row(int start, int by_row, unsigned row, int by_column, unsigned column) {
  const unsigned sum = static_cast<unsigned>(start) + static_cast<unsigned>(by_row) * row +
                       static_cast<unsigned>(by_column) * column;
  return static_cast<int>(sum) >> 16;
}

ON_DEVICE bool within(int at, unsigned side) { return at >= 0 && at < static_cast<int>(side); }

// Thread by thread, one pixel in all channels.
ON_DEVICE void show(const Images& task, const Place& place) {
  const unsigned pixels = task.height * task.width;
  const unsigned long long number = 1ull * place.block * THREADS + place.thread;
  if (number >= 1ull * task.n * pixels) return;
  const unsigned image = static_cast<unsigned>(number / pixels), pixel = number % pixels;
  const unsigned row = pixel / task.width, column = pixel % task.width;
  const int* move = task.moves + 1ull * image * MOVE;
  const int mirrored = move[3];
  const int x = at_row(move[8], move[6], row, move[4], column), y = at_row(move[9], move[7], row, move[5], column);
  const int from_x = (mirrored ? static_cast<int>(task.width) - 1 - x : x) + move[1], from_y = y + move[2];
  const bool inside = within(x, task.width) && within(y, task.height) && within(from_x, task.width) &&
                      within(from_y, task.height);
  const auto* of = task.bytes + 1ull * static_cast<unsigned>(move[0]) * task.channels * pixels;
  const unsigned from = inside ? from_y * task.width + from_x : 0;
  for (unsigned channel = 0; channel < task.channels; ++channel) {
    const unsigned byte = inside ? of[1ull * channel * pixels + from] : 0;
    task.seen[(1ull * image * task.channels + channel) * pixels + pixel] = task.values[channel * 256 + byte];
  }
}

} // namespace nct

#ifdef __CUDACC_RTC__

OVER_MAP nct_show(const nct::Images task) { nct::show(task, PLACE); }

#endif
