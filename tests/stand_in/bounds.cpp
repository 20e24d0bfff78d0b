// Whether our own kernels stay within the memory they are given: each on maps of many extents, with fewer blocks than
// there is work for and more, and every map in a piece of memory of just its size. For a compiler's address sanitizer.

#include "places.h"

#include <deque>
#include <initializer_list>
#include <utility>
#include <vector>

namespace {

template <class T>
std::vector<T>& piece(std::initializer_list<unsigned> extent) {
  size_t n = 1;
  for (const unsigned side : extent) n *= side;
  // Kept to the end, as a GPU's memory is.
  static std::deque<std::vector<T>> all;
  auto& made = all.emplace_back(n);
  for (size_t i = 0; i < n; ++i) made[i] = static_cast<T>(i % 7);
  return made;
}

void normalise(unsigned images, unsigned channels, unsigned height, unsigned width, bool pooled, unsigned blocks) {
  const unsigned part = pooled ? 2 : 1, vectors = channels / nct::PACK;
  nct::Task task{};
  task.channels = channels;
  task.height = height;
  task.width = width;
  task.rows = images * height * width;
  task.windows = pooled ? images * ((height + 1) / 2) * ((width + 1) / 2) : task.rows;
  task.blocks = blocks;
  const auto map = [&](unsigned side) {
    return piece<unsigned short>({images, height / side, width / side, channels}).data();
  };
  task.x = map(1);
  task.dx = map(1);
  task.y = map(part);
  task.dy = map(part);
  task.found = piece<float>({blocks, 2, channels}).data();
  task.stats = piece<float>({5, channels}).data();
  task.share = piece<float>({2, channels}).data();
  for (auto* list : {&task.weight, &task.bias, &task.lacking}) *list = piece<float>({channels}).data();
  for (auto* list : {&task.running_mean, &task.running_variance, &task.dweight, &task.dbias}) {
    *list = piece<float>({channels}).data();
  }
  task.batches = piece<long long>({1}).data();
  const Extent grid{blocks, (vectors + nct::THREADS - 1) / nct::THREADS, 1}, block{nct::THREADS, 1, 1};
  const Extent columns{(channels + nct::COLUMNS - 1) / nct::COLUMNS, 1, 1}, sums{nct::COLUMNS * nct::GROUPS, 1, 1};
  run("nct_norm_sums", grid, block, &task);
  run("nct_norm_statistics", columns, sums, &task);
  run(pooled ? "nct_norm_pooled" : "nct_norm", grid, block, &task);
  run(pooled ? "nct_norm_sums_back_pooled" : "nct_norm_sums_back", grid, block, &task);
  run("nct_norm_gradients", columns, sums, &task);
  run(pooled ? "nct_norm_back_pooled" : "nct_norm_back", grid, block, &task);
}

void convolve(unsigned images, unsigned channels, unsigned height, unsigned width, unsigned blocks) {
  nct::First task{};
  task.norm.channels = channels;
  task.norm.height = height;
  task.norm.width = width;
  task.norm.rows = images * height * width;
  task.norm.blocks = blocks;
  task.norm.x = piece<unsigned short>({images, height, width}).data();
  task.norm.y = piece<unsigned short>({images, height, width, channels}).data();
  task.norm.dy = piece<unsigned short>({images, height, width, channels}).data();
  task.norm.found = piece<float>({blocks, 1 + nct::TAPS, channels}).data();
  task.norm.stats = piece<float>({5, channels}).data();
  task.norm.share = piece<float>({2, channels}).data();
  for (auto* list : {&task.norm.weight, &task.norm.bias}) *list = piece<float>({channels}).data();
  for (auto* list : {&task.norm.running_mean, &task.norm.running_variance, &task.norm.dweight, &task.norm.dbias}) {
    *list = piece<float>({channels}).data();
  }
  task.norm.batches = piece<long long>({1}).data();
  task.kernel = piece<float>({channels, nct::TAPS}).data();
  task.dkernel = piece<float>({channels, nct::TAPS}).data();
  task.found = piece<double>({blocks, nct::MOMENTS}).data();
  task.moments = piece<double>({nct::MOMENTS}).data();
  task.products = piece<float>({1 + nct::TAPS, channels}).data();
  const unsigned vectors = channels / nct::PACK;
  const Extent some{blocks, 1, 1}, few{nct::FEW_THREADS, 1, 1}, block{nct::THREADS, 1, 1};
  const Extent grid{blocks, (vectors + nct::FEW_THREADS - 1) / nct::FEW_THREADS, 1};
  const auto over = [](unsigned n, unsigned each) { return Extent{(n + each - 1) / each, 1, 1}; };
  Extent sums = over(channels, nct::COLUMNS);
  sums.y = 1 + nct::TAPS;
  run("nct_first_moments", some, few, &task);
  run("nct_first_totals", {nct::MOMENTS, 1, 1}, few, &task);
  run("nct_first_statistics", {1, 1, 1}, few, &task);
  run("nct_first", grid, few, &task);
  run("nct_first_products", grid, few, &task);
  run("nct_first_sums", sums, {nct::COLUMNS * nct::GROUPS, 1, 1}, &task);
  run("nct_first_norm_gradients", over(channels, nct::THREADS), block, &task);
  run("nct_first_gradients", over(channels * nct::TAPS, nct::THREADS), block, &task);
}

template <class Number>
void read(unsigned images, unsigned channels, unsigned height, unsigned width, unsigned n, bool slopes) {
  nct::Readings task{};
  task.batch = images;
  task.n = n;
  task.channels = channels;
  task.height = height;
  task.width = width;
  task.map = piece<Number>({images, height, width, channels}).data();
  task.dmap = piece<Number>({images, height, width, channels}).data();
  auto& at = piece<float>({images, n, 2});
  // Within the map, on its edge, outside, and none at all.
  const float places[] = {-1, 1, 0, 0.37f, -0.999f, 1.2f, -3e9f, 1e30f, INFINITY, NAN};
  for (size_t i = 0; i < at.size(); ++i) at[i] = places[(i + i / 10) % 10];
  task.at = at.data();
  task.value = piece<float>({images, n, channels}).data();
  task.dvalue = piece<float>({images, n, channels}).data();
  task.slopes = slopes ? piece<float>({images, n, 2, channels}).data() : nullptr;
  const auto blocks = [](unsigned numbers) {
    return Extent{(numbers / nct::PACK + nct::THREADS - 1) / nct::THREADS, 1, 1};
  };
  const std::string kind = sizeof(Number) == 2 ? "bf16" : "f32";
  run("nct_read_" + kind, blocks(images * n * channels), {nct::THREADS, 1, 1}, &task);
  run("nct_read_back_" + kind, blocks(images * height * width * channels), {nct::THREADS, 1, 1}, &task);
}

// Images moved about, some of them out of sight.
void show(unsigned channels, unsigned height, unsigned width) {
  const int turned[] = {65536, 0, 60000, -26000, 26000, 60000, 40000, -90000, 2147480000, -2147480000};
  constexpr unsigned N = 6;
  nct::Images task{};
  task.bytes = piece<unsigned char>({2, channels, height, width}).data();
  task.values = piece<float>({channels, 256}).data();
  auto& moves = piece<int>({N, nct::MOVE});
  for (unsigned i = 0; i < moves.size(); ++i) {
    const unsigned image = i / nct::MOVE, at = i % nct::MOVE;
    moves[i] = at == 0 ? image % 2 : at == 3 ? image / 2 % 2 : at < 3 ? static_cast<int>(7 * image) - 9 : turned[(image + at) % 10];
  }
  task.moves = moves.data();
  task.seen = piece<float>({N, channels, height, width}).data();
  task.n = N;
  task.channels = channels;
  task.height = height;
  task.width = width;
  run("nct_show", {(N * height * width + nct::THREADS - 1) / nct::THREADS, 1, 1}, {nct::THREADS, 1, 1}, &task);
}

} // namespace

int main() {
  show(1, 16, 17);
  show(3, 5, 64);
  for (const unsigned channels : {8u, 24u, 64u, 2048u, 2056u, 4104u}) {
    for (const auto [height, width] : {std::pair{2u, 2u}, {5u, 3u}, {4u, 7u}}) {
      for (const unsigned blocks : {1u, 3u, 40u}) {
        for (const bool pooled : {false, true}) normalise(2, channels, height, width, pooled, blocks);
        convolve(2, channels, height, width, blocks);
      }
      for (const bool slopes : {false, true}) {
        read<unsigned short>(2, channels, height, width, 11, slopes);
        read<float>(2, channels, height, width, 11, slopes);
      }
    }
  }
  normalise(1, 8, 1, 3, false, 2);
  convolve(1, 8, 1, 1, 2);
  read<float>(1, 8, 1, 1, 11, true);
}
