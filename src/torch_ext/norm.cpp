// What tch lacks of libtorch: batch normalisation, rectification and pooling in one, for maps in bfloat16 on a GPU, by
// kernels of our own (`kernels/norm.cu`), and with the convolution before them where that is the first of a network that
// sees gray images (`kernels/first.cu`). Not differentiable twice.

#include "group.h"
#include "guard.h"
#include "kernels/first.h"
#include "kernels/kernels.h"
#include "sums.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <optional>

using at::Tensor;

namespace {

// Whether the kernels can do it. Of processes with shares of one batch all can or none, also with an empty share, of
// which the layout says nothing.
bool fits(const Tensor& x, bool pooled) {
  if (!x.is_cuda() || x.scalar_type() != at::kBFloat16 || x.dim() != 4 || x.size(1) % nct::PACK != 0) return false;
  if (pooled && (x.size(2) < 2 || x.size(3) < 2)) return false;
  if (x.numel() == 0) return true;
  return x.is_contiguous(at::MemoryFormat::ChannelsLast) && x.numel() / x.size(1) < (int64_t{1} << 31) &&
         reinterpret_cast<uintptr_t>(x.const_data_ptr()) % 16 == 0;
}

// A map that kernels go through.
class Map {
 public:
  nct::Task task{};

  Map(const Tensor& x, bool pooled) : x(x), pooled(pooled) {
    const auto images = static_cast<unsigned>(x.size(0));
    task.x = x.const_data_ptr();
    task.channels = static_cast<unsigned>(x.size(1));
    task.height = static_cast<unsigned>(x.size(2));
    task.width = static_cast<unsigned>(x.size(3));
    task.rows = images * task.height * task.width;
    task.windows = pooled ? images * ((task.height + 1) / 2) * ((task.width + 1) / 2) : task.rows;
  }

  // Sums over the map by `sum`, and what `conclude` makes of them. Blocks that wait for others to end would make it last
  // twice as long.
  void sums(const char* sum, const char* conclude, bool of_windows) {
    const auto& kernels = Kernels::of(x.device());
    const Extent blocks = extent(of_windows, kernels.at_once(sum));
    task.blocks = blocks.x;
    const Tensor found = at::empty({task.blocks, 2, task.channels}, x.options().dtype(at::kFloat));
    task.found = found.mutable_data_ptr<float>();
    kernels.launch(sum, blocks, {nct::THREADS}, &task);
    const Extent columns{(task.channels + nct::COLUMNS - 1) / nct::COLUMNS};
    kernels.launch(conclude, columns, {nct::COLUMNS * nct::GROUPS}, &task);
  }

  void through(const char* kernel) {
    const auto& kernels = Kernels::of(x.device());
    kernels.launch(kernel, extent(true, 2 * kernels.at_once(kernel)), {nct::THREADS}, &task);
  }

 private:
  // A block takes some rows or windows at once, of all channels or 2,048 of them. No more blocks than have something to do.
  Extent extent(bool of_windows, unsigned most) const {
    const unsigned vectors = task.channels / nct::PACK, wide = std::min(vectors, nct::THREADS);
    const unsigned each = nct::THREADS / wide * (of_windows && pooled ? 1 : 4);
    const unsigned all = of_windows ? task.windows : task.rows;
    return {std::min((all + each - 1) / each, most), (vectors + wide - 1) / wide};
  }

  const Tensor& x;
  const bool pooled;
};

// What a normalisation remembers, and how.
struct Running {
  // What is left out of the map.
  std::optional<Tensor> lacking;
  Tensor mean, variance, batches;
  double momentum, eps;
  // Of processes with shares of the batch, or null.
  GroupPtr group;
  // Whether gradients of weight and bias may be added to those that are there.
  bool adds;

  void check(const Tensor& weight, const Tensor& bias, const Tensor& x, int64_t channels) const {
    for (const Tensor& t : {weight, bias, lacking ? *lacking : bias, mean, variance}) {
      TORCH_CHECK(t.scalar_type() == at::kFloat && t.is_contiguous() && t.device() == x.device() && t.numel() == channels,
                  "normalisation of ", channels, " channels by other numbers");
    }
  }

  // Tells kernels; `stats` `[5, C]` are to be found out. What is given back lives until they are launched.
  Tensor tell(nct::Task& task, const Tensor& weight, const Tensor& bias, const Tensor& stats) const {
    // Of a share, the statistics are not those to remember.
    const Tensor own = group ? at::empty({4, weight.size(0)}, weight.options()) : Tensor();
    task.stats = stats.mutable_data_ptr<float>();
    task.weight = weight.const_data_ptr<float>();
    task.bias = bias.const_data_ptr<float>();
    task.lacking = lacking ? lacking->const_data_ptr<float>() : nullptr;
    task.running_mean = (group ? own[0] : mean).mutable_data_ptr<float>();
    task.running_variance = (group ? own[1] : variance).mutable_data_ptr<float>();
    task.batches = static_cast<long long*>(group ? own[2].mutable_data_ptr() : batches.mutable_data_ptr());
    task.momentum = static_cast<float>(momentum);
    task.eps = static_cast<float>(eps);
    return own;
  }

  // Makes `stats`, those of a share of `rows` rows, those of the whole batch, and gives the number of its rows; none where
  // nothing is shared.
  Tensor exchange(const Tensor& stats, unsigned rows, const Tensor& weight, const Tensor& bias) const {
    if (!group) return {};
    Tensor own = at::zeros({3, weight.size(0)}, weight.options().dtype(at::kDouble));
    if (rows > 0) {
      own[0].fill_(static_cast<double>(rows));
      own[1].copy_(stats[0]);
      own[2].copy_(stats[4]).mul_(static_cast<double>(rows));
    }
    const Statistics all = of_all(group, own, mean, variance, momentum);
    Tensor(batches).add_(1);
    const Tensor inverse = (all.variance + eps).rsqrt();
    // In its place, which the kernels know.
    stats.copy_(at::stack({all.mean, inverse, weight * inverse, bias.to(at::kDouble), all.variance}));
    if (lacking) Tensor(mean).add_(*lacking, momentum);
    return all.total;
  }
};

// What the backward pass of a normalisation finds out beside the gradient of a map, and tells kernels.
struct Back {
  Tensor dweight, dbias, share;
  bool adds;

  // Of an empty share, nothing comes back.
  Back(torch::autograd::AutogradContext* ctx, nct::Task& task, const Tensor& stats, bool empty) {
    const Tensor all = at::empty({4, stats.size(1)}, stats.options());
    if (empty) all.zero_();
    const auto sums = ctx->saved_data.find("sums");
    adds = sums != ctx->saved_data.end();
    dweight = adds ? sums->second.toTensorVector()[0] : all[0];
    dbias = adds ? sums->second.toTensorVector()[1] : all[1];
    share = all.narrow(0, 2, 2);
    task.adds = adds;
    task.stats = stats.mutable_data_ptr<float>();
    task.dweight = dweight.mutable_data_ptr<float>();
    task.dbias = dbias.mutable_data_ptr<float>();
    task.share = share.mutable_data_ptr<float>();
  }

  // Where gradients of weight and bias are there, and it is allowed, they are added up there.
  static void prepare(torch::autograd::AutogradContext* ctx, const Running& running, const Tensor& weight,
                      const Tensor& bias) {
    const bool adds = running.adds && !running.group;
    const auto of_weight = sum_of(weight, adds), of_bias = sum_of(bias, adds);
    if (of_weight && of_bias) ctx->saved_data["sums"] = std::vector<Tensor>{*of_weight, *of_bias};
  }

  // For autograd.
  Tensor weight() const { return adds ? Tensor() : dweight; }
  Tensor bias() const { return adds ? Tensor() : dbias; }

  // What statistics add follows from the gradients of all shares.
  void exchange(torch::autograd::AutogradContext* ctx, const Tensor& stats, const Tensor& total) const {
    if (!total.defined()) return;
    const auto group = c10::static_intrusive_pointer_cast<c10d::ProcessGroup>(ctx->saved_data["group"].toCapsule());
    std::vector<Tensor> sums{at::stack({dbias, dweight}).to(at::kDouble)};
    group->allreduce(sums)->wait();
    share[0].copy_(stats[2] * stats[1] * sums[0][1] / -total);
    share[1].copy_(stats[2] * sums[0][0] / -total);
  }
};

Tensor map_of(const Tensor& x, int64_t channels, int64_t part) {
  return at::empty({x.size(0), channels, x.size(2) / part, x.size(3) / part},
                   x.options().memory_format(at::MemoryFormat::ChannelsLast));
}

struct NormRelu : torch::autograd::Function<NormRelu> {
  static Tensor forward(torch::autograd::AutogradContext* ctx, const Tensor& x, const Tensor& weight,
                        const Tensor& bias, const Running& running, bool pooled) {
    running.check(weight, bias, x, x.size(1));
    Map map(x, pooled);
    const Tensor stats = at::empty({5, x.size(1)}, weight.options());
    const Tensor own = running.tell(map.task, weight, bias, stats);
    if (x.numel() > 0) map.sums("nct_norm_sums", "nct_norm_statistics", /*of_windows=*/false);
    const Tensor total = running.exchange(stats, map.task.rows, weight, bias);
    Tensor y = map_of(x, x.size(1), pooled ? 2 : 1);
    map.task.y = y.mutable_data_ptr();
    if (x.numel() > 0) map.through(pooled ? "nct_norm_pooled" : "nct_norm");
    ctx->save_for_backward({x, stats, total});
    ctx->saved_data["pooled"] = pooled;
    Back::prepare(ctx, running, weight, bias);
    if (running.group) ctx->saved_data["group"] = c10::IValue::make_capsule(running.group);
    return y;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    TORCH_CHECK(!at::GradMode::is_enabled(), "normalisation with rectification has no second derivative");
    const auto saved = ctx->get_saved_variables();
    const Tensor &x = saved[0], &stats = saved[1], &total = saved[2];
    const bool pooled = ctx->saved_data["pooled"].toBool();
    const Tensor dy = grads[0].contiguous(at::MemoryFormat::ChannelsLast);
    Map map(x, pooled);
    const Back back(ctx, map.task, stats, x.numel() == 0);
    map.task.dy = dy.const_data_ptr();
    if (x.numel() > 0) {
      const char* sum = pooled ? "nct_norm_sums_back_pooled" : "nct_norm_sums_back";
      map.sums(sum, "nct_norm_gradients", /*of_windows=*/true);
    }
    back.exchange(ctx, stats, total);
    Tensor dx;
    if (ctx->needs_input_grad(0)) {
      dx = at::empty_like(x);
      map.task.dx = dx.mutable_data_ptr();
      if (x.numel() > 0) map.through(pooled ? "nct_norm_back_pooled" : "nct_norm_back");
    }
    const Tensor none;
    return {dx, back.weight(), back.bias(), none, none};
  }
};

// With the convolution before it, of gray images that nobody wants gradients of.
struct FirstLayer : torch::autograd::Function<FirstLayer> {
  // Of processes with shares of one batch all fit or none.
  static bool fits(const Tensor& x, const Tensor& kernel) {
    return x.is_cuda() && x.scalar_type() == at::kBFloat16 && x.dim() == 4 && x.size(1) == 1 && !x.requires_grad() &&
           kernel.scalar_type() == at::kFloat && kernel.dim() == 4 && kernel.sizes().slice(1).equals({1, 3, 3}) &&
           kernel.size(0) % nct::PACK == 0 && x.numel() < (int64_t{1} << 31);
  }

  static Tensor forward(torch::autograd::AutogradContext* ctx, const Tensor& given, const Tensor& filters,
                        const Tensor& weight, const Tensor& bias, const Running& running) {
    const Tensor x = given.contiguous(), kernel = filters.contiguous();
    const int64_t channels = kernel.size(0);
    running.check(weight, bias, x, channels);
    const Tensor stats = at::empty({5, channels}, weight.options());
    const Tensor moments = at::empty({nct::MOMENTS}, weight.options().dtype(at::kDouble));
    Tensor y = map_of(x, channels, 1);
    nct::First task = told(x, y, kernel, moments);
    const Tensor own = running.tell(task.norm, weight, bias, stats);
    const auto& kernels = Kernels::of(x.device());
    if (x.numel() > 0) {
      const Extent some{std::min(blocks(x.numel(), nct::FEW_THREADS).x, kernels.at_once("nct_first_moments"))};
      task.norm.blocks = some.x;
      const Tensor found = at::empty({some.x, nct::MOMENTS}, moments.options());
      task.found = found.mutable_data_ptr<double>();
      kernels.launch("nct_first_moments", some, {nct::FEW_THREADS}, &task);
      kernels.launch("nct_first_totals", {nct::MOMENTS}, {nct::FEW_THREADS}, &task);
      kernels.launch("nct_first_statistics", {1}, {nct::FEW_THREADS}, &task);
    } else {
      moments.zero_();
    }
    const Tensor total = running.exchange(stats, task.norm.rows, weight, bias);
    if (x.numel() > 0) kernels.launch("nct_first", extent(task, kernels, "nct_first"), {nct::FEW_THREADS}, &task);
    ctx->save_for_backward({x, y, kernel, stats, moments, total});
    Back::prepare(ctx, running, weight, bias);
    if (running.group) ctx->saved_data["group"] = c10::IValue::make_capsule(running.group);
    return y;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    TORCH_CHECK(!at::GradMode::is_enabled(), "the first layer has no second derivative");
    const auto saved = ctx->get_saved_variables();
    const Tensor &x = saved[0], &y = saved[1], &kernel = saved[2], &stats = saved[3], &moments = saved[4];
    const Tensor dy = grads[0].contiguous(at::MemoryFormat::ChannelsLast), dkernel = at::empty_like(kernel);
    const int64_t channels = kernel.size(0);
    nct::First task = told(x, y, kernel, moments);
    const Back back(ctx, task.norm, stats, x.numel() == 0);
    task.norm.dy = dy.const_data_ptr();
    task.dkernel = dkernel.mutable_data_ptr<float>();
    const Tensor products = at::empty({1 + nct::TAPS, channels}, stats.options());
    task.products = products.mutable_data_ptr<float>();
    const auto& kernels = Kernels::of(x.device());
    if (x.numel() > 0) {
      const Extent some = extent(task, kernels, "nct_first_products");
      task.norm.blocks = some.x;
      const Tensor found = at::empty({some.x, 1 + nct::TAPS, channels}, stats.options());
      task.norm.found = found.mutable_data_ptr<float>();
      kernels.launch("nct_first_products", some, {nct::FEW_THREADS}, &task);
      const Extent sums{blocks(channels, nct::COLUMNS).x, 1 + nct::TAPS};
      kernels.launch("nct_first_sums", sums, {nct::COLUMNS * nct::GROUPS}, &task);
      kernels.launch("nct_first_norm_gradients", blocks(channels, nct::THREADS), {nct::THREADS}, &task);
    } else {
      products.zero_();
    }
    back.exchange(ctx, stats, saved[5]);
    kernels.launch("nct_first_gradients", blocks(channels * nct::TAPS, nct::THREADS), {nct::THREADS}, &task);
    const Tensor none;
    return {none, dkernel, back.weight(), back.bias(), none};
  }

 private:
  static nct::First told(const Tensor& x, const Tensor& y, const Tensor& kernel, const Tensor& moments) {
    nct::First task{};
    task.norm.x = x.const_data_ptr();
    task.norm.y = y.mutable_data_ptr();
    task.norm.channels = static_cast<unsigned>(kernel.size(0));
    task.norm.height = static_cast<unsigned>(x.size(2));
    task.norm.width = static_cast<unsigned>(x.size(3));
    task.norm.rows = static_cast<unsigned>(x.numel());
    task.kernel = kernel.const_data_ptr<float>();
    task.moments = moments.mutable_data_ptr<double>();
    return task;
  }

  // By as many blocks as the GPU works on at once, each with some rows at once, and no more than have something to do.
  static Extent extent(const nct::First& task, const Kernels& kernels, const char* kernel) {
    const unsigned vectors = task.norm.channels / nct::PACK, wide = std::min(vectors, nct::FEW_THREADS);
    const unsigned rows = nct::FEW_THREADS / wide;
    return {std::min((task.norm.rows + rows - 1) / rows, kernels.at_once(kernel)), (vectors + wide - 1) / wide};
  }

  static Extent blocks(int64_t n, unsigned each) { return {static_cast<unsigned>((n + each - 1) / each)}; }
};

} // namespace

extern "C" {

int nct_kernels(int index) {
  return guarded([&] { Kernels::of({c10::DeviceType::CUDA, static_cast<c10::DeviceIndex>(index)}); });
}

// `x` `[batch, C, height, width]`, normalised by statistics of the batch, rectified, and pooled if asked for; null if the
// kernels cannot do it. `weight`, `bias`, `mean` and `variance` are `[C]` floats, `batches` an int64 []; the last three
// are moved. `lacking`: null, or what is to be added to x's mean before that. `group`: null, or of processes of which
// each has a share of the batch. x's memory must not change until the backward pass, which autograd sees to.
// `kernel`: null, or `[C, 1, 3, 3]` floats by which x, which is `[batch, 1, height, width]` then, is convolved first, with a
// padding of 1.
// `adds`: the backward pass may add gradients of weight and bias to those that are there.
int nct_norm_relu(const Tensor* x, const Tensor* kernel, const Tensor* weight, const Tensor* bias, const Tensor* lacking,
                  const Tensor* mean, const Tensor* variance, const Tensor* batches, double momentum, double eps,
                  bool pooled, bool adds, const NctGroup* group, Tensor** out) {
  return guarded([&] {
    *out = nullptr;
    if (kernel ? pooled || !FirstLayer::fits(*x, *kernel) : !fits(*x, pooled)) return;
    // A bias that is left out has no gradient.
    const auto left_out = lacking ? std::optional<Tensor>(lacking->detach()) : std::nullopt;
    const Running running{left_out, *mean, *variance, *batches, momentum, eps, group ? group->group : GroupPtr(), adds};
    *out = new Tensor(kernel ? FirstLayer::apply(*x, *kernel, *weight, *bias, running)
                             : NormRelu::apply(*x, *weight, *bias, running, pooled));
  });
}

} // extern "C"
