// What tch lacks of libtorch: reading maps between their pixels on a GPU, with gradients of the same bits every time.
// `grid_sampler` adds the gradients of a map up in whatever order its threads come, gives them with channels outermost,
// and has one thread for a position, which a readout of few neurons leaves most of a GPU idle with.
//
// A value read is a sum over all pixels, weighted by two tents around the position, one along each axis: products of
// matrices, forwards and backwards; or, by kernels of our own (`kernels/reading.cu`), over the four pixels that count.

#include "guard.h"
#include "kernels/kernels.h"
#include "kernels/reading.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <vector>

using at::Tensor;

namespace {

// `[batch, n, planes, height * width]`: the weights of all pixels for positions `at` `[batch, n, 2]`; with three planes,
// what they change by along x and y too.
Tensor weights(const Tensor& at, int64_t height, int64_t width, int64_t planes) {
  const Tensor scale = at::linspace((width - 1) / 2.0, (height - 1) / 2.0, 2, at.options());
  const Tensor pixels = at::arange(std::max(height, width), at.options());
  // From a position to each pixel, along x and along y: `[batch, n, 2, longer side]`.
  const Tensor away = pixels - at::addcmul(scale, at, scale).unsqueeze(-1);
  const auto axes = [&](const Tensor& both) {
    return std::make_pair(both.select(2, 0).narrow(-1, 0, width).unsqueeze(-2),
                          both.select(2, 1).narrow(-1, 0, height).unsqueeze(-1));
  };
  const auto [x, y] = axes(at::rsub(away.abs(), 1).clamp_min_(0));
  if (planes == 1) return (y * x).flatten(2).unsqueeze(2);
  // On a pixel, the slope is that towards the next one, as `grid_sampler` has it.
  const Tensor next = away.ceil();
  const Tensor slope = at::eq(next, 1).to(at.scalar_type()) - at::eq(next, 0).to(at.scalar_type());
  const auto [dx, dy] = axes(slope * scale.unsqueeze(-1));
  Tensor all = at::empty({at.size(0), at.size(1), planes, height, width}, at.options());
  Tensor value = all.select(2, 0), along_x = all.select(2, 1), along_y = all.select(2, 2);
  at::mul_out(value, y, x);
  at::mul_out(along_x, y, dx);
  at::mul_out(along_y, dy, x);
  return all.flatten(3);
}

struct Reading : torch::autograd::Function<Reading> {
  // Works on so many positions at a time that no more than `room` weights are in memory.
  template <class Work>
  static void in_parts(const Tensor& at, int64_t weights_each, int64_t room, Work work) {
    const int64_t n = at.size(1), all = std::max<int64_t>(at.size(0) * weights_each, 1);
    const int64_t part = std::max<int64_t>(room / all, 1);
    for (int64_t from = 0; from < n; from += part) work(from, std::min(part, n - from));
  }

  static Tensor forward(torch::autograd::AutogradContext* ctx, const Tensor& map, const Tensor& at, int64_t room) {
    const int64_t height = map.size(2), width = map.size(3), planes = at.requires_grad() ? 3 : 1;
    const Tensor rows = map.permute({0, 2, 3, 1}).flatten(1, 2);
    std::vector<Tensor> parts;
    in_parts(at, planes * height * width, room, [&](int64_t from, int64_t n) {
      const Tensor by = weights(at.narrow(1, from, n), height, width, planes);
      parts.push_back(by.flatten(1, 2).bmm(rows).unflatten(1, {n, planes}));
    });
    const Tensor read = parts.size() == 1 ? parts[0] : at::cat(parts, 1);
    ctx->save_for_backward({at, read.narrow(2, 1, planes - 1)});
    ctx->saved_data["height"] = height;
    ctx->saved_data["width"] = width;
    ctx->saved_data["room"] = room;
    return read.select(2, 0);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    TORCH_CHECK(!at::GradMode::is_enabled(), "what is read from a map has no second derivative");
    const auto saved = ctx->get_saved_variables();
    const Tensor &at = saved[0], &slopes = saved[1], grad = grads[0];
    const int64_t height = ctx->saved_data["height"].toInt(), width = ctx->saved_data["width"].toInt();
    Tensor of_map, of_at;
    if (ctx->needs_input_grad(1)) of_at = (slopes * grad.unsqueeze(2)).sum(-1);
    if (ctx->needs_input_grad(0)) {
      in_parts(at, height * width, ctx->saved_data["room"].toInt(), [&](int64_t from, int64_t n) {
        const Tensor by = weights(at.narrow(1, from, n), height, width, 1).squeeze(2).transpose(1, 2);
        const Tensor part = grad.narrow(1, from, n);
        of_map = of_map.defined() ? of_map.baddbmm_(by, part) : by.bmm(part);
      });
      of_map = of_map.unflatten(1, {height, width}).permute({0, 3, 1, 2});
    }
    return {of_map, of_at, Tensor()};
  }
};

// The same by our own kernels.
struct Reader : torch::autograd::Function<Reader> {
  // Whether they can do it.
  static bool fits(const Tensor& map, const Tensor& at) {
    const auto kind = map.scalar_type();
    return map.is_cuda() && (kind == at::kBFloat16 || kind == at::kFloat) && at.scalar_type() == at::kFloat &&
           map.size(1) % nct::PACK == 0 && map.is_contiguous(at::MemoryFormat::ChannelsLast) && aligned(map) &&
           map.numel() / nct::PACK < LIMIT && at.size(0) * at.size(1) * map.size(1) / nct::PACK < LIMIT;
  }

  static Tensor forward(torch::autograd::AutogradContext* ctx, const Tensor& map, const Tensor& given) {
    const Tensor at = given.contiguous();
    const int64_t channels = map.size(1);
    Tensor read = at::empty({at.size(0), at.size(1), channels}, at.options());
    Tensor slopes;
    nct::Readings task = readings(map.sizes(), at);
    task.map = map.const_data_ptr();
    task.value = read.mutable_data_ptr<float>();
    if (given.requires_grad()) {
      slopes = at::empty({at.size(0), at.size(1), 2, channels}, at.options());
      task.slopes = slopes.mutable_data_ptr<float>();
    }
    launch(map, wide(map) ? "nct_read_f32" : "nct_read_bf16", read.numel(), task);
    ctx->save_for_backward({at, slopes});
    ctx->saved_data["map"] = map.sizes().vec();
    ctx->saved_data["kind"] = map.scalar_type();
    return read;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    TORCH_CHECK(!at::GradMode::is_enabled(), "what is read from a map has no second derivative");
    const auto saved = ctx->get_saved_variables();
    const Tensor &at = saved[0], &slopes = saved[1];
    const Tensor dense = grads[0].contiguous(), grad = aligned(dense) ? dense : dense.clone();
    Tensor of_map, of_at;
    if (ctx->needs_input_grad(1)) of_at = (slopes * grad.unsqueeze(2)).sum(-1);
    if (ctx->needs_input_grad(0)) {
      const auto size = ctx->saved_data["map"].toIntVector();
      of_map = at::empty(size, grad.options()
                                   .dtype(ctx->saved_data["kind"].toScalarType())
                                   .memory_format(at::MemoryFormat::ChannelsLast));
      nct::Readings task = readings(size, at);
      task.dvalue = grad.const_data_ptr<float>();
      task.dmap = of_map.mutable_data_ptr();
      launch(of_map, wide(of_map) ? "nct_read_back_f32" : "nct_read_back_bf16", of_map.numel(), task);
    }
    return {of_map, of_at};
  }

 private:
  static constexpr int64_t LIMIT = int64_t{1} << 31;

  static bool aligned(const Tensor& t) { return reinterpret_cast<uintptr_t>(t.const_data_ptr()) % 16 == 0; }

  static bool wide(const Tensor& map) { return map.scalar_type() == at::kFloat; }

  static nct::Readings readings(at::IntArrayRef map, const Tensor& at) {
    nct::Readings task{};
    task.at = at.const_data_ptr<float>();
    task.batch = static_cast<unsigned>(map[0]);
    task.channels = static_cast<unsigned>(map[1]);
    task.height = static_cast<unsigned>(map[2]);
    task.width = static_cast<unsigned>(map[3]);
    task.n = static_cast<unsigned>(at.size(1));
    return task;
  }

  // A thread for each eight of `n` numbers.
  static void launch(const Tensor& map, const char* kernel, int64_t n, const nct::Readings& task) {
    if (n == 0) return;
    const auto blocks = static_cast<unsigned>((n / nct::PACK + nct::THREADS - 1) / nct::THREADS);
    Kernels::of(map.device()).launch(kernel, {blocks}, {nct::THREADS}, &task);
  }
};

} // namespace

extern "C" {

// `map` `[batch, C, height, width]` at positions `at` `[batch, n, 2]`, (x, y) from -1 to 1 between the centres of the
// outermost pixels: `[batch, n, C]`, of at's type. On one device; n is 1 or more. With `fused`, by our own kernels where
// they can.
int nct_read(const Tensor* map, const Tensor* at, int64_t room, bool fused, Tensor** out) {
  return guarded([&] {
    const bool own = fused && Reader::fits(*map, *at);
    *out = new Tensor(own ? Reader::apply(*map, *at) : Reading::apply(map->to(at->scalar_type()), *at, room));
  });
}

} // extern "C"
