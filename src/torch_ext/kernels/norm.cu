// Batch normalisation (Ioffe and Szegedy 2015) and rectification in one, with the 2 x 2 pooling that may follow, of maps
// in bfloat16 with channels innermost. PyTorch has a kernel for each step, which goes through the whole map; these go
// through it twice forwards (sums, result) and twice backwards (sums, gradient), and keep nothing of it but x.
//
// Sums are of fixed order: the same bits every time. They begin at the map's end, so that the second pass begins with what
// the first has left in the cache. They are of distances from the first pixel, which is about as far from the mean as
// others, so that 32 bits are enough whatever the mean.

#include "norm.h"
#include "packed.cuh"

namespace nct {

// What a thread of `N` in a block works on: eight channels of every `step`th row or window from `first` on.
template <unsigned N = THREADS>
struct Lane {
  unsigned wide, tall, vectors, vector, first, step;
  bool works;

  ON_DEVICE Lane(const Task& task, const Place& place) {
    vectors = task.channels / PACK;
    wide = vectors < N ? vectors : N;
    tall = N / wide;
    vector = place.row_of_blocks * wide + place.thread % wide;
    first = place.block * tall + place.thread / wide;
    step = place.blocks * tall;
    works = place.thread / wide < tall && vector < vectors;
  }

  // Of `row`.
  ON_DEVICE const Packed& of(const void* map, unsigned row) const {
    return static_cast<const Packed*>(map)[static_cast<unsigned long long>(row) * vectors + vector];
  }
  ON_DEVICE Packed& of(void* map, unsigned row) const {
    return static_cast<Packed*>(map)[static_cast<unsigned long long>(row) * vectors + vector];
  }
  // Of number `i` of lists of all channels.
  ON_DEVICE const Values& of(const float* lists, const Task& task, unsigned i) const {
    return reinterpret_cast<const Values*>(lists)[i * vectors + vector];
  }
};

// A pixel, or 2 x 2 of them that pooling makes one of. At the edge of an odd map some are outside, and none is made.
template <unsigned SIDE>
struct Window {
  static constexpr unsigned PIXELS = SIDE * SIDE;
  unsigned row[PIXELS], pooled;
  bool inside[PIXELS], whole;

  ON_DEVICE Window(const Task& task, unsigned number) {
    whole = number < task.windows;
    if (SIDE == 1) {
      row[0] = pooled = number;
      inside[0] = whole;
      return;
    }
    const unsigned high = (task.height + 1) / 2, wide = (task.width + 1) / 2;
    const unsigned j = number % wide, i = number / wide % high, image = number / wide / high;
    const bool below = 2 * i + 1 < task.height, right = 2 * j + 1 < task.width;
    const unsigned corner = (image * task.height + 2 * i) * task.width + 2 * j;
#pragma unroll
    for (unsigned k = 0; k < PIXELS; ++k) {
      row[k] = corner + k / SIDE * task.width + k % SIDE;
      inside[k] = whole && (k < SIDE || below) && (k % SIDE == 0 || right);
    }
    pooled = (image * (task.height / 2) + i) * (task.width / 2) + j;
    whole = whole && below && right;
  }
};

// So many windows at once that a thread waits for four rows together.
template <unsigned SIDE>
constexpr unsigned AT_ONCE = SIDE == 1 ? 4 : 1;

struct Stats {
  Values mean, scale, shift;

  ON_DEVICE Stats(const Task& task, const Lane<>& lane)
      : mean(lane.of(task.stats, task, 0)), scale(lane.of(task.stats, task, 2)), shift(lane.of(task.stats, task, 3)) {}

  // Normalised and rectified. What is no number stays so.
  ON_DEVICE float operator()(float x, unsigned k) const {
    const float y = fmaf(x - mean.at[k], scale.at[k], shift.at[k]);
    return y <= 0 ? 0 : y;
  }

  // Number of the window's largest value, as `max_pool2d` has it: of equal ones, as they are in bfloat16, the first. Where
  // one is no number, the channel's mean is none, and so is the first.
  template <unsigned SIDE>
  ON_DEVICE unsigned largest(const Values (&x)[SIDE * SIDE], unsigned k, float& value) const {
    value = (*this)(x[0].at[k], k);
    if (SIDE == 1) return 0;
    unsigned best = 0;
    value = as_float(rounded(value, 0) << 16);
#pragma unroll
    for (unsigned i = 1; i < SIDE * SIDE; ++i) {
      const float other = as_float(rounded((*this)(x[i].at[k], k), 0) << 16);
      if (other > value) {
        value = other;
        best = i;
      }
    }
    return best;
  }

  // What comes back through pooling and rectification, to pixel number `best` of the window.
  template <unsigned SIDE>
  ON_DEVICE float gradient(const Values (&x)[SIDE * SIDE], const Values& dy, unsigned k, unsigned& best) const {
    float y;
    best = largest<SIDE>(x, k, y);
    return y <= 0 ? 0 : dy.at[k];
  }
};

// --- Sums over a map, by blocks

struct Sums {
  float of[2][PACK][THREADS];
};

// Ends `add_*`.
ON_DEVICE void leave(Sums& sums, const Place& place, const Values& first, const Values& second) {
#pragma unroll
  for (unsigned k = 0; k < PACK; ++k) {
    sums.of[0][k][place.thread] = first.at[k];
    sums.of[1][k][place.thread] = second.at[k];
  }
}

// What the threads of a block found, in their order.
ON_DEVICE void gather(const Task& task, const Place& place, const Sums& sums) {
  const Lane lane(task, place);
  for (unsigned i = place.thread; i < lane.wide * PACK; i += THREADS) {
    const unsigned k = i / lane.wide, vector = place.row_of_blocks * lane.wide + i % lane.wide;
    if (vector >= lane.vectors) continue;
    for (unsigned which = 0; which < 2; ++which) {
      float sum = 0;
      for (unsigned row = 0; row < lane.tall; ++row) sum += sums.of[which][k][row * lane.wide + i % lane.wide];
      task.found[(2ull * place.block + which) * task.channels + vector * PACK + k] = sum;
    }
  }
}

// Of x, and of its square, from the first pixel.
ON_DEVICE void add_map(const Task& task, const Place& place, Sums& sums) {
  const Lane lane(task, place);
  Values first{}, second{};
  if (lane.works) {
    constexpr unsigned N = AT_ONCE<1>;
    const Values zero = unpacked(lane.of(task.x, 0));
    for (unsigned from = lane.first; from < task.rows; from += N * lane.step) {
      Packed loaded[N];
#pragma unroll
      for (unsigned i = 0; i < N; ++i) {
        const unsigned row = from + i * lane.step;
        if (row < task.rows) loaded[i] = lane.of(task.x, task.rows - 1 - row);
      }
#pragma unroll
      for (unsigned i = 0; i < N; ++i) {
        if (from + i * lane.step >= task.rows) continue;
        const Values x = unpacked(loaded[i]);
#pragma unroll
        for (unsigned k = 0; k < PACK; ++k) {
          const float away = x.at[k] - zero.at[k];
          first.at[k] += away;
          second.at[k] = fmaf(away, away, second.at[k]);
        }
      }
    }
  }
  leave(sums, place, first, second);
}

// Some windows, counted from the first or from the last, with what comes back to them.
template <unsigned SIDE, bool FROM_LAST>
struct Loaded {
  static constexpr unsigned N = AT_ONCE<SIDE>, PIXELS = SIDE * SIDE;
  Packed x[N][PIXELS], dy[N];

  // Pixels outside are 0, and nothing comes back to what is not whole. Numbers below 0 are none of windows, either.
  ON_DEVICE Loaded(const Task& task, const Lane<>& lane, unsigned from) {
#pragma unroll
    for (unsigned i = 0; i < N; ++i) {
      const unsigned number = from + i * lane.step;
      const Window<SIDE> window(task, FROM_LAST ? task.windows - 1 - number : number);
#pragma unroll
      for (unsigned k = 0; k < PIXELS; ++k) x[i][k] = window.inside[k] ? lane.of(task.x, window.row[k]) : Packed{};
      dy[i] = window.whole ? lane.of(task.dy, window.pooled) : Packed{};
    }
  }
};

template <unsigned SIDE>
ON_DEVICE void unpack(Values (&values)[SIDE * SIDE], const Packed (&from)[SIDE * SIDE]) {
#pragma unroll
  for (unsigned k = 0; k < SIDE * SIDE; ++k) values[k] = unpacked(from[k]);
}

// Of the gradient of what is normalised, and of its product with x's distance from the mean.
template <unsigned SIDE>
ON_DEVICE void add_gradient(const Task& task, const Place& place, Sums& sums) {
  const Lane lane(task, place);
  Values first{}, second{};
  if (lane.works) {
    const Stats stats(task, lane);
    for (unsigned from = lane.first; from < task.windows; from += AT_ONCE<SIDE> * lane.step) {
      const Loaded<SIDE, true> loaded(task, lane, from);
#pragma unroll
      for (unsigned i = 0; i < AT_ONCE<SIDE>; ++i) {
        Values x[SIDE * SIDE];
        unpack<SIDE>(x, loaded.x[i]);
        const Values dy = unpacked(loaded.dy[i]);
#pragma unroll
        for (unsigned k = 0; k < PACK; ++k) {
          unsigned best;
          const float dz = stats.template gradient<SIDE>(x, dy, k, best);
          float at = x[0].at[k];
#pragma unroll
          for (unsigned pixel = 1; pixel < SIDE * SIDE; ++pixel) at = best == pixel ? x[pixel].at[k] : at;
          first.at[k] += dz;
          second.at[k] = fmaf(dz, at - stats.mean.at[k], second.at[k]);
        }
      }
    }
  }
  leave(sums, place, first, second);
}

// --- What follows from the sums of all blocks

struct Totals {
  float of[2][GROUPS][COLUMNS];
};

ON_DEVICE unsigned channel_of(const Place& place) { return place.block * COLUMNS + place.thread % COLUMNS; }

ON_DEVICE void add_blocks(const Task& task, const Place& place, Totals& totals) {
  const unsigned channel = channel_of(place), group = place.thread / COLUMNS;
  float first = 0, second = 0;
  if (channel < task.channels) {
#pragma unroll 8
    for (unsigned i = group; i < task.blocks; i += GROUPS) {
      first += task.found[2ull * i * task.channels + channel];
      second += task.found[(2ull * i + 1) * task.channels + channel];
    }
  }
  totals.of[0][group][place.thread % COLUMNS] = first;
  totals.of[1][group][place.thread % COLUMNS] = second;
}

// Whether this thread has a channel, whose sums these are then.
ON_DEVICE bool total(const Task& task, const Place& place, const Totals& totals, float& first, float& second) {
  if (place.thread >= COLUMNS || channel_of(place) >= task.channels) return false;
  first = second = 0;
  for (unsigned group = 0; group < GROUPS; ++group) {
    first += totals.of[0][group][place.thread];
    second += totals.of[1][group][place.thread];
  }
  return true;
}

// Mean and variance of a channel, also for the running ones, which take that of a sample.
ON_DEVICE void remember(const Task& task, unsigned channel, float mean, float variance) {
  const unsigned n = task.channels;
  const float rows = static_cast<float>(task.rows), inverse = 1 / sqrtf(variance + task.eps);
  task.stats[channel] = mean;
  task.stats[n + channel] = inverse;
  task.stats[2 * n + channel] = task.weight[channel] * inverse;
  task.stats[3 * n + channel] = task.bias[channel];
  task.stats[4 * n + channel] = variance;
  const auto move = [&](float& running, float to) { running = (1 - task.momentum) * running + task.momentum * to; };
  move(task.running_mean[channel], task.lacking ? mean + task.lacking[channel] : mean);
  move(task.running_variance[channel], variance * (rows / (rows - 1)));
  if (channel == 0) ++*task.batches;
}

ON_DEVICE void statistics(const Task& task, const Place& place, const Totals& totals) {
  float sum, squares;
  if (!total(task, place, totals, sum, squares)) return;
  const unsigned channel = channel_of(place);
  const Values pixel = unpacked(static_cast<const Packed*>(task.x)[channel / PACK]);
  float zero = 0;
#pragma unroll
  for (unsigned k = 0; k < PACK; ++k) zero = channel % PACK == k ? pixel.at[k] : zero;
  const float rows = static_cast<float>(task.rows), away = sum / rows;
  // Rounding may leave less than nothing; what is no number stays so.
  const float spread = squares - sum * away;
  remember(task, channel, zero + away, (spread > 0 ? spread : 0 * spread) / rows);
}

// Gradients of weight and bias, and what is left for that of x to need, of the sums of the gradient of what is normalised
// and of its product with the distance from the mean.
ON_DEVICE void give_back(const Task& task, unsigned channel, float sum, float product) {
  const unsigned n = task.channels;
  const float inverse = task.stats[n + channel], scale = task.stats[2 * n + channel];
  const float rows = static_cast<float>(task.rows);
  const auto give = [&](float& gradient, float more) { gradient = task.adds ? gradient + more : more; };
  give(task.dweight[channel], product * inverse);
  give(task.dbias[channel], sum);
  task.share[channel] = -scale * inverse * inverse * (product / rows);
  task.share[n + channel] = -scale * (sum / rows);
}

ON_DEVICE void gradients(const Task& task, const Place& place, const Totals& totals) {
  float sum, product;
  if (total(task, place, totals, sum, product)) give_back(task, channel_of(place), sum, product);
}

// --- The map again

template <unsigned SIDE>
ON_DEVICE void normalise(const Task& task, const Place& place) {
  const Lane lane(task, place);
  if (!lane.works) return;
  constexpr unsigned N = AT_ONCE<SIDE>;
  const Stats stats(task, lane);
  for (unsigned from = lane.first; from < task.windows; from += N * lane.step) {
    Packed loaded[N][SIDE * SIDE];
#pragma unroll
    for (unsigned i = 0; i < N; ++i) {
      const Window<SIDE> window(task, from + i * lane.step);
#pragma unroll
      for (unsigned k = 0; k < SIDE * SIDE; ++k) {
        if (window.whole) loaded[i][k] = lane.of(task.x, window.row[k]);
      }
    }
#pragma unroll
    for (unsigned i = 0; i < N; ++i) {
      const Window<SIDE> window(task, from + i * lane.step);
      if (!window.whole) continue;
      Values x[SIDE * SIDE], y;
      unpack<SIDE>(x, loaded[i]);
#pragma unroll
      for (unsigned k = 0; k < PACK; ++k) stats.template largest<SIDE>(x, k, y.at[k]);
      lane.of(task.y, window.pooled) = packed(y);
    }
  }
}

template <unsigned SIDE>
ON_DEVICE void take_back(const Task& task, const Place& place) {
  const Lane lane(task, place);
  if (!lane.works) return;
  const Stats stats(task, lane);
  const Values slope = lane.of(task.share, task, 0), level = lane.of(task.share, task, 1);
  for (unsigned from = lane.first; from < task.windows; from += AT_ONCE<SIDE> * lane.step) {
    const Loaded<SIDE, false> loaded(task, lane, from);
#pragma unroll
    for (unsigned i = 0; i < AT_ONCE<SIDE>; ++i) {
      const Window<SIDE> window(task, from + i * lane.step);
      Values x[SIDE * SIDE], dx[SIDE * SIDE];
      unpack<SIDE>(x, loaded.x[i]);
      const Values dy = unpacked(loaded.dy[i]);
#pragma unroll
      for (unsigned k = 0; k < PACK; ++k) {
        unsigned best;
        const float dz = stats.template gradient<SIDE>(x, dy, k, best);
#pragma unroll
        for (unsigned pixel = 0; pixel < SIDE * SIDE; ++pixel) {
          const float from_statistics = fmaf(slope.at[k], x[pixel].at[k] - stats.mean.at[k], level.at[k]);
          dx[pixel].at[k] = fmaf(best == pixel ? dz : 0, stats.scale.at[k], from_statistics);
        }
      }
#pragma unroll
      for (unsigned pixel = 0; pixel < SIDE * SIDE; ++pixel) {
        if (window.inside[pixel]) lane.of(task.dx, window.row[pixel]) = packed(dx[pixel]);
      }
    }
  }
}

} // namespace nct

#ifdef __CUDACC_RTC__

#define OVER_SUMS extern "C" __global__ __launch_bounds__(nct::COLUMNS * nct::GROUPS) void

IN_TWO_STEPS(OVER_MAP, nct_norm_sums, Task, Sums, nct::add_map, nct::gather)
IN_TWO_STEPS(OVER_SUMS, nct_norm_statistics, Task, Totals, nct::add_blocks, nct::statistics)
IN_TWO_STEPS(OVER_MAP, nct_norm_sums_back, Task, Sums, nct::add_gradient<1>, nct::gather)
IN_TWO_STEPS(OVER_MAP, nct_norm_sums_back_pooled, Task, Sums, nct::add_gradient<2>, nct::gather)
IN_TWO_STEPS(OVER_SUMS, nct_norm_gradients, Task, Totals, nct::add_blocks, nct::gradients)
OVER_MAP nct_norm(const nct::Task task) { nct::normalise<1>(task, PLACE); }
OVER_MAP nct_norm_pooled(const nct::Task task) { nct::normalise<2>(task, PLACE); }
OVER_MAP nct_norm_back(const nct::Task task) { nct::take_back<1>(task, PLACE); }
OVER_MAP nct_norm_back_pooled(const nct::Task task) { nct::take_back<2>(task, PLACE); }

#endif
