// Readings of maps with channels innermost between four of their pixels, with gradients of the same bits every time: each
// number is made by one thread, which adds up in a fixed order. (`grid_sampler` adds the gradients of a map up in whatever
// order its threads come.)

#include "packed.cuh"
#include "reading.h"

namespace nct {

ON_DEVICE Values widened(const Packed& packed) { return unpacked(packed); }
ON_DEVICE Values widened(const Values& values) { return values; }
ON_DEVICE void narrow(Packed& to, const Values& values) { to = packed(values); }
ON_DEVICE void narrow(Values& to, const Values& values) { to = values; }

// A position along one axis, in pixels, and the pixel before it.
struct Along {
  float at;
  int before;
  bool near;

  // `place` goes from -1 to 1 between the centres of the outermost of `pixels`.
  ON_DEVICE Along(float place, unsigned pixels) {
    const float half = 0.5f * static_cast<float>(pixels - 1);
    at = fmaf(place, half, half);
    near = at >= -1 && at <= static_cast<float>(pixels);
    before = near ? static_cast<int>(floorf(at)) : 0;
  }

  // How much a pixel counts. What is no number stays none.
  ON_DEVICE float weight(int pixel) const {
    const float left = 1 - fabsf(static_cast<float>(pixel) - at);
    return left <= 0 ? 0 : left;
  }
};

// Thread by thread, eight channels of one reading.
template <class Pack>
ON_DEVICE void read(const Readings& task, const Place& place) {
  const unsigned vectors = task.channels / PACK;
  const unsigned long long number = 1ull * place.block * THREADS + place.thread;
  const unsigned long long reading = number / vectors;
  if (reading >= 1ull * task.batch * task.n) return;
  const unsigned vector = number % vectors;
  const Along x(task.at[2 * reading], task.width), y(task.at[2 * reading + 1], task.height);
  const float half_width = 0.5f * static_cast<float>(task.width - 1);
  const float half_height = 0.5f * static_cast<float>(task.height - 1);
  const auto* map = static_cast<const Pack*>(task.map) + reading / task.n * task.height * task.width * vectors + vector;
  Values value{}, along_x{}, along_y{};
#pragma unroll
  for (int corner = 0; corner < 4; ++corner) {
    const int right = corner % 2, below = corner / 2, column = x.before + right, row = y.before + below;
    if (column < 0 || row < 0 || column >= static_cast<int>(task.width) || row >= static_cast<int>(task.height)) continue;
    const Values pixel = widened(map[(1ull * row * task.width + column) * vectors]);
    const float by_x = x.weight(column), by_y = y.weight(row);
    const float slope_x = !x.near ? 0 : right ? half_width : -half_width;
    const float slope_y = !y.near ? 0 : below ? half_height : -half_height;
#pragma unroll
    for (unsigned k = 0; k < PACK; ++k) {
      value.at[k] = fmaf(by_x * by_y, pixel.at[k], value.at[k]);
      along_x.at[k] = fmaf(slope_x * by_y, pixel.at[k], along_x.at[k]);
      along_y.at[k] = fmaf(by_x * slope_y, pixel.at[k], along_y.at[k]);
    }
  }
  reinterpret_cast<Values*>(task.value)[number] = value;
  if (!task.slopes) return;
  auto* slopes = reinterpret_cast<Values*>(task.slopes) + 2 * reading * vectors + vector;
  slopes[0] = along_x;
  slopes[vectors] = along_y;
}

// Thread by thread, eight channels of one pixel's gradient.
template <class Pack>
ON_DEVICE void read_back(const Readings& task, const Place& place) {
  const unsigned vectors = task.channels / PACK;
  const unsigned long long number = 1ull * place.block * THREADS + place.thread;
  const unsigned long long pixel = number / vectors, pixels = 1ull * task.height * task.width, image = pixel / pixels;
  if (image >= task.batch) return;
  const unsigned vector = number % vectors;
  const int row = static_cast<int>(pixel % pixels / task.width), column = static_cast<int>(pixel % task.width);
  Values sum{};
  for (unsigned i = 0; i < task.n; ++i) {
    const unsigned long long reading = image * task.n + i;
    const Along x(task.at[2 * reading], task.width), y(task.at[2 * reading + 1], task.height);
    const float by = x.weight(column) * y.weight(row);
    if (by == 0) continue;
    const Values upstream = reinterpret_cast<const Values*>(task.dvalue)[reading * vectors + vector];
#pragma unroll
    for (unsigned k = 0; k < PACK; ++k) sum.at[k] = fmaf(by, upstream.at[k], sum.at[k]);
  }
  narrow(static_cast<Pack*>(task.dmap)[number], sum);
}

} // namespace nct

#ifdef __CUDACC_RTC__

OVER_MAP nct_read_bf16(const nct::Readings task) { nct::read<nct::Packed>(task, PLACE); }
OVER_MAP nct_read_f32(const nct::Readings task) { nct::read<nct::Values>(task, PLACE); }
OVER_MAP nct_read_back_bf16(const nct::Readings task) { nct::read_back<nct::Packed>(task, PLACE); }
OVER_MAP nct_read_back_f32(const nct::Readings task) { nct::read_back<nct::Values>(task, PLACE); }

#endif
