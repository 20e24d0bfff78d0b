// The first layer of a network that sees gray images: a convolution with 3 x 3 weights, batch normalisation and
// rectification in one. Its map is the largest there is, and its input the smallest, so that it is never written before it
// is normalised, nor read again: forwards it is written once, backwards its gradient and it are read once.
//
// Statistics follow from the patches that the convolution sees, as the convolution is linear in them: with the mean m and
// the covariance C of their nine pixels, the mean of a channel with weights w is w m, and its variance w C w. The gradient
// of weights takes what normalisation adds to it from the same numbers.

#include "first.h"
#include "norm.cu"

namespace nct {

// What the nine weights see around a pixel; zeros outside of the image.
struct Patch {
  float at[TAPS];

  ON_DEVICE Patch(const Task& task, unsigned row) {
    const unsigned j = row % task.width, i = row / task.width % task.height;
    const auto* pixel = static_cast<const unsigned short*>(task.x) + row;
#pragma unroll
    for (int t = 0; t < static_cast<int>(TAPS); ++t) {
      const int down = t / 3 - 1, right = t % 3 - 1;
      const bool above = down >= 0 || i > 0, below = down <= 0 || i + 1 < task.height;
      const bool inside = above && below && (right >= 0 || j > 0) && (right <= 0 || j + 1 < task.width);
      at[t] = inside ? as_float(static_cast<unsigned>(pixel[down * static_cast<int>(task.width) + right]) << 16) : 0;
    }
  }
};

ON_DEVICE float weight_of(const First& task, unsigned channel, unsigned t) {
  return as_float(rounded(task.kernel[channel * TAPS + t], 0) << 16);
}

// --- What there is to know about patches

// A place more than there are threads, so that neighbours are in different banks.
struct Moments {
  float of[MOMENTS][FEW_THREADS + 1];
};

ON_DEVICE void add_patches(const First& task, const Place& place, Moments& moments) {
  float sums[MOMENTS] = {};
  for (unsigned row = place.block * FEW_THREADS + place.thread; row < task.norm.rows; row += place.blocks * FEW_THREADS) {
    const Patch patch(task.norm, row);
    unsigned pair = TAPS;
#pragma unroll
    for (unsigned s = 0; s < TAPS; ++s) {
      sums[s] += patch.at[s];
#pragma unroll
      for (unsigned t = s; t < TAPS; ++t, ++pair) sums[pair] = fmaf(patch.at[s], patch.at[t], sums[pair]);
    }
  }
#pragma unroll
  for (unsigned i = 0; i < MOMENTS; ++i) moments.of[i][place.thread] = sums[i];
}

ON_DEVICE void gather_patches(const First& task, const Place& place, const Moments& moments) {
  if (place.thread >= MOMENTS) return;
  double sum = 0;
  for (unsigned i = 0; i < FEW_THREADS; ++i) sum += moments.of[place.thread][i];
  task.found[place.block * MOMENTS + place.thread] = sum;
}

struct OfThreads {
  double of[FEW_THREADS];
};

// One of the moments is each block's.
ON_DEVICE void add_moment(const First& task, const Place& place, OfThreads& all) {
  double sum = 0;
  for (unsigned i = place.thread; i < task.norm.blocks; i += FEW_THREADS) sum += task.found[i * MOMENTS + place.block];
  all.of[place.thread] = sum;
}

ON_DEVICE void sum_moment(const First& task, const Place& place, const OfThreads& all) {
  if (place.thread > 0) return;
  double sum = 0;
  for (unsigned i = 0; i < FEW_THREADS; ++i) sum += all.of[i];
  task.moments[place.block] = sum;
}

// Number of the pair of pixels `s` and `t` among all moments.
ON_DEVICE unsigned pair_of(unsigned s, unsigned t) {
  const unsigned low = s < t ? s : t, high = s < t ? t : s;
  return TAPS + low * (2 * TAPS + 1 - low) / 2 + high - low;
}

// Means of the pixels of patches, and their covariances.
struct Patches {
  double of[MOMENTS];
};

ON_DEVICE void describe(const First& task, const Place& place, Patches& patches) {
  const double rows = task.norm.rows;
  if (place.thread < TAPS) patches.of[place.thread] = task.moments[place.thread] / rows;
  if (place.thread >= TAPS * TAPS) return;
  const unsigned s = place.thread / TAPS, t = place.thread % TAPS;
  const double means = task.moments[s] / rows * (task.moments[t] / rows);
  if (s <= t) patches.of[pair_of(s, t)] = task.moments[pair_of(s, t)] / rows - means;
}

ON_DEVICE void channel_statistics(const First& task, const Place& place, const Patches& patches) {
  for (unsigned channel = place.thread; channel < task.norm.channels; channel += FEW_THREADS) {
    double mean = 0, variance = 0;
    for (unsigned s = 0; s < TAPS; ++s) {
      const double weight = weight_of(task, channel, s);
      mean = fma(weight, patches.of[s], mean);
      for (unsigned t = s; t < TAPS; ++t) {
        const double both = weight * weight_of(task, channel, t);
        variance = fma(s == t ? both : 2 * both, patches.of[pair_of(s, t)], variance);
      }
    }
    // Rounding may leave less than nothing; what is no number stays so.
    remember(task.norm, channel, static_cast<float>(mean), static_cast<float>(variance > 0 ? variance : 0 * variance));
  }
}

// --- The map

ON_DEVICE void convolve(const First& task, const Place& place) {
  const Task& norm = task.norm;
  const Lane<FEW_THREADS> lane(norm, place);
  if (!lane.works) return;
  const Values mean = lane.of(norm.stats, norm, 0), scale = lane.of(norm.stats, norm, 2);
  Values from = lane.of(norm.stats, norm, 3), weights[TAPS];
#pragma unroll
  for (unsigned k = 0; k < PACK; ++k) {
    from.at[k] = fmaf(-mean.at[k], scale.at[k], from.at[k]);
#pragma unroll
    for (unsigned t = 0; t < TAPS; ++t) weights[t].at[k] = weight_of(task, lane.vector * PACK + k, t) * scale.at[k];
  }
  for (unsigned row = lane.first; row < norm.rows; row += lane.step) {
    const Patch patch(norm, row);
    Values y = from;
#pragma unroll
    for (unsigned k = 0; k < PACK; ++k) {
#pragma unroll
      for (unsigned t = 0; t < TAPS; ++t) y.at[k] = fmaf(weights[t].at[k], patch.at[t], y.at[k]);
      // What is no number stays so.
      y.at[k] = y.at[k] <= 0 ? 0 : y.at[k];
    }
    lane.of(norm.y, row) = packed(y);
  }
}

// --- Backwards

struct Products {
  float of[1 + TAPS][PACK][FEW_THREADS];
};

ON_DEVICE void add_products(const First& task, const Place& place, Products& products) {
  const Task& norm = task.norm;
  const Lane<FEW_THREADS> lane(norm, place);
  Values sums[1 + TAPS] = {};
  if (lane.works) {
    for (unsigned row = lane.first; row < norm.rows; row += lane.step) {
      // Whole, that they are loaded by 16 bytes.
      const Packed loaded[] = {lane.of(norm.dy, row), lane.of(norm.y, row)};
      const Values dy = unpacked(loaded[0]), y = unpacked(loaded[1]);
      const Patch patch(norm, row);
#pragma unroll
      for (unsigned k = 0; k < PACK; ++k) {
        const float dz = y.at[k] <= 0 ? 0 : dy.at[k];
        sums[0].at[k] += dz;
#pragma unroll
        for (unsigned t = 0; t < TAPS; ++t) sums[1 + t].at[k] = fmaf(dz, patch.at[t], sums[1 + t].at[k]);
      }
    }
  }
#pragma unroll
  for (unsigned i = 0; i <= TAPS; ++i) {
#pragma unroll
    for (unsigned k = 0; k < PACK; ++k) products.of[i][k][place.thread] = sums[i].at[k];
  }
}

ON_DEVICE void gather_products(const First& task, const Place& place, const Products& products) {
  const Lane<FEW_THREADS> lane(task.norm, place);
  const unsigned all = lane.wide * PACK;
  for (unsigned i = place.thread; i < (1 + TAPS) * all; i += FEW_THREADS) {
    const unsigned which = i / all, k = i % all / lane.wide, at = i % lane.wide;
    const unsigned vector = place.row_of_blocks * lane.wide + at;
    if (vector >= lane.vectors) continue;
    float sum = 0;
    for (unsigned row = 0; row < lane.tall; ++row) sum += products.of[which][k][row * lane.wide + at];
    const unsigned long long block = 1ull * place.block * (1 + TAPS) + which;
    task.norm.found[block * task.norm.channels + vector * PACK + k] = sum;
  }
}

struct AllProducts {
  float of[GROUPS][COLUMNS];
};

// One of the sums is in each row of blocks.
ON_DEVICE void add_found(const First& task, const Place& place, AllProducts& all) {
  const unsigned channel = channel_of(place), group = place.thread / COLUMNS;
  float sum = 0;
  if (channel < task.norm.channels) {
#pragma unroll 8
    for (unsigned i = group; i < task.norm.blocks; i += GROUPS) {
      sum += task.norm.found[(1ull * i * (1 + TAPS) + place.row_of_blocks) * task.norm.channels + channel];
    }
  }
  all.of[group][place.thread % COLUMNS] = sum;
}

ON_DEVICE void sum_products(const First& task, const Place& place, const AllProducts& all) {
  const unsigned channel = channel_of(place);
  if (place.thread >= COLUMNS || channel >= task.norm.channels) return;
  float sum = 0;
  for (unsigned group = 0; group < GROUPS; ++group) sum += all.of[group][place.thread];
  task.products[place.row_of_blocks * task.norm.channels + channel] = sum;
}

// Gradients of the normalisation's weight and bias.
ON_DEVICE void norm_gradients(const First& task, const Place& place) {
  const unsigned channel = place.block * THREADS + place.thread, n = task.norm.channels;
  if (channel >= n) return;
  const double sum = task.products[channel];
  double product = -sum * task.norm.stats[channel];
  for (unsigned t = 0; t < TAPS; ++t) product += 1.0 * weight_of(task, channel, t) * task.products[(1 + t) * n + channel];
  give_back(task.norm, channel, static_cast<float>(sum), static_cast<float>(product));
}

// Gradients of the convolution's weights: what comes back to each pixel of the map, which was never written, times the
// patches, of which all that it takes is known.
ON_DEVICE void kernel_gradients(const First& task, const Place& place) {
  const unsigned i = place.block * THREADS + place.thread, n = task.norm.channels;
  if (i >= n * TAPS) return;
  const unsigned channel = i / TAPS, t = i % TAPS;
  const double mean = task.norm.stats[channel], scale = task.norm.stats[2 * n + channel];
  const double slope = task.norm.share[channel], level = task.norm.share[n + channel];
  double away = -mean * task.moments[t];
  for (unsigned s = 0; s < TAPS; ++s) away += weight_of(task, channel, s) * task.moments[pair_of(s, t)];
  const double direct = scale * task.products[(1 + t) * n + channel];
  task.dkernel[i] = static_cast<float>(direct + level * task.moments[t] + slope * away);
}

} // namespace nct

#ifdef __CUDACC_RTC__

#define OVER_IMAGES extern "C" __global__ __launch_bounds__(nct::FEW_THREADS) void

IN_TWO_STEPS(OVER_IMAGES, nct_first_moments, First, Moments, nct::add_patches, nct::gather_patches)
IN_TWO_STEPS(OVER_IMAGES, nct_first_totals, First, OfThreads, nct::add_moment, nct::sum_moment)
IN_TWO_STEPS(OVER_IMAGES, nct_first_statistics, First, Patches, nct::describe, nct::channel_statistics)
OVER_IMAGES nct_first(const nct::First task) { nct::convolve(task, PLACE); }
IN_TWO_STEPS(OVER_IMAGES, nct_first_products, First, Products, nct::add_products, nct::gather_products)
IN_TWO_STEPS(OVER_SUMS, nct_first_sums, First, AllProducts, nct::add_found, nct::sum_products)
OVER_MAP nct_first_norm_gradients(const nct::First task) { nct::norm_gradients(task, PLACE); }
OVER_MAP nct_first_gradients(const nct::First task) { nct::kernel_gradients(task, PLACE); }

#endif
