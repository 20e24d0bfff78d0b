// What tch lacks of libtorch: batch normalisation, rectification and pooling in one, for maps in bfloat16 on a GPU, by
// kernels of our own (`kernels/norm.cu`). Not differentiable twice.

#include "group.h"
#include "guard.h"
#include "kernels/kernels.h"
#include "kernels/norm.h"

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

struct NormRelu : torch::autograd::Function<NormRelu> {
  static Tensor forward(torch::autograd::AutogradContext* ctx, const Tensor& x, const Tensor& weight,
                        const Tensor& bias, const std::optional<Tensor>& lacking, Tensor mean, Tensor variance,
                        Tensor batches, double momentum, double eps, bool pooled, const GroupPtr& group) {
    for (const Tensor& t : {weight, bias, lacking ? *lacking : bias, mean, variance}) {
      TORCH_CHECK(t.scalar_type() == at::kFloat && t.is_contiguous() && t.device() == x.device() &&
                  t.numel() == x.size(1), "normalisation of ", x.size(1), " channels by other numbers");
    }
    Map map(x, pooled);
    const Tensor stats = at::empty({5, x.size(1)}, weight.options());
    // Of a share, the statistics are not those to remember.
    const Tensor own = group ? at::empty({4, x.size(1)}, weight.options()) : Tensor();
    map.task.stats = stats.mutable_data_ptr<float>();
    map.task.weight = weight.const_data_ptr<float>();
    map.task.bias = bias.const_data_ptr<float>();
    map.task.lacking = lacking ? lacking->const_data_ptr<float>() : nullptr;
    map.task.running_mean = group ? own[0].mutable_data_ptr<float>() : mean.mutable_data_ptr<float>();
    map.task.running_variance = group ? own[1].mutable_data_ptr<float>() : variance.mutable_data_ptr<float>();
    map.task.batches = reinterpret_cast<long long*>(group ? own[2].mutable_data_ptr() : batches.mutable_data_ptr());
    map.task.momentum = static_cast<float>(momentum);
    map.task.eps = static_cast<float>(eps);
    if (x.numel() > 0) map.sums("nct_norm_sums", "nct_norm_statistics", /*of_windows=*/false);
    Tensor total;
    if (group) {
      total = exchange(stats, map.task.rows, weight, bias, mean, variance, batches, momentum, eps, group);
      if (lacking) mean.add_(*lacking, momentum);
    }
    const int64_t part = pooled ? 2 : 1;
    Tensor y = at::empty({x.size(0), x.size(1), x.size(2) / part, x.size(3) / part},
                         x.options().memory_format(at::MemoryFormat::ChannelsLast));
    map.task.y = y.mutable_data_ptr();
    if (x.numel() > 0) map.through(pooled ? "nct_norm_pooled" : "nct_norm");
    ctx->save_for_backward({x, stats, total});
    ctx->saved_data["pooled"] = pooled;
    if (group) ctx->saved_data["group"] = c10::IValue::make_capsule(group);
    return y;
  }

  // Makes `stats`, those of a share of `rows` rows, those of the whole batch, and gives the number of its rows.
  static Tensor exchange(const Tensor& stats, unsigned rows, const Tensor& weight, const Tensor& bias, const Tensor& mean,
                         const Tensor& variance, const Tensor& batches, double momentum, double eps, const GroupPtr& group) {
    Tensor own = at::zeros({3, weight.size(0)}, weight.options().dtype(at::kDouble));
    if (rows > 0) {
      own[0].fill_(static_cast<double>(rows));
      own[1].copy_(stats[0]);
      own[2].copy_(stats[4]).mul_(static_cast<double>(rows));
    }
    const Statistics all = of_all(group, own, mean, variance, momentum);
    batches.add_(1);
    const Tensor inverse = (all.variance + eps).rsqrt();
    // In its place, which the kernels know.
    stats.copy_(at::stack({all.mean, inverse, weight * inverse, bias.to(at::kDouble), all.variance}));
    return all.total;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    TORCH_CHECK(!at::GradMode::is_enabled(), "normalisation with rectification has no second derivative");
    const auto saved = ctx->get_saved_variables();
    const Tensor &x = saved[0], &stats = saved[1], &total = saved[2];
    const bool pooled = ctx->saved_data["pooled"].toBool();
    const Tensor dy = grads[0].contiguous(at::MemoryFormat::ChannelsLast);
    // Of an empty share, nothing comes back.
    const Tensor of_weights = at::empty({4, x.size(1)}, stats.options());
    if (x.numel() == 0) of_weights.zero_();
    const Tensor dweight = of_weights[0], dbias = of_weights[1], share = of_weights.narrow(0, 2, 2);
    Map map(x, pooled);
    map.task.stats = stats.mutable_data_ptr<float>();
    map.task.dy = dy.const_data_ptr();
    map.task.dweight = dweight.mutable_data_ptr<float>();
    map.task.dbias = dbias.mutable_data_ptr<float>();
    map.task.share = share.mutable_data_ptr<float>();
    if (x.numel() > 0) {
      const char* sum = pooled ? "nct_norm_sums_back_pooled" : "nct_norm_sums_back";
      map.sums(sum, "nct_norm_gradients", /*of_windows=*/true);
    }
    if (total.defined()) {
      const auto group = c10::static_intrusive_pointer_cast<c10d::ProcessGroup>(ctx->saved_data["group"].toCapsule());
      std::vector<Tensor> sums{at::stack({dbias, dweight}).to(at::kDouble)};
      group->allreduce(sums)->wait();
      share[0].copy_(stats[2] * stats[1] * sums[0][1] / -total);
      share[1].copy_(stats[2] * sums[0][0] / -total);
    }
    Tensor dx;
    if (ctx->needs_input_grad(0)) {
      dx = at::empty_like(x);
      map.task.dx = dx.mutable_data_ptr();
      if (x.numel() > 0) map.through(pooled ? "nct_norm_back_pooled" : "nct_norm_back");
    }
    const Tensor none;
    return {dx, dweight, dbias, none, none, none, none, none, none, none, none};
  }
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
int nct_norm_relu(const Tensor* x, const Tensor* weight, const Tensor* bias, const Tensor* lacking, const Tensor* mean,
                  const Tensor* variance, const Tensor* batches, double momentum, double eps, bool pooled,
                  const NctGroup* group, Tensor** out) {
  return guarded([&] {
    *out = nullptr;
    if (!fits(*x, pooled)) return;
    // A bias that is left out has no gradient.
    const auto left_out = lacking ? std::optional<Tensor>(lacking->detach()) : std::nullopt;
    *out = new Tensor(NormRelu::apply(*x, *weight, *bias, left_out, *mean, *variance, *batches, momentum, eps, pooled,
                                      group ? group->group : GroupPtr()));
  });
}

} // extern "C"
