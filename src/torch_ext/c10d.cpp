// What tch lacks of libtorch: process groups, their collectives, and the gradient reducer of data-parallel training,
// behind a C interface. `mod.rs` is its only caller and states the contracts.

#include "group.h"
#include "guard.h"
#include "nccl.h"

#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#include <torch/csrc/distributed/c10d/reducer.hpp>
#include <torch/torch.h>

#include <cstdlib>

using at::Tensor;

c10::intrusive_ptr<c10d::Backend> NctGroup::backend(const std::string& name) const {
  auto options = c10d::ProcessGroupGloo::Options::create(wait);
  options->devices.push_back(device);
  return c10::make_intrusive<c10d::ProcessGroupGloo>(c10::make_intrusive<c10d::PrefixStore>(name, store),
                                                     group->getRank(), group->getSize(), options);
}

namespace {

// `[C]` as it is broadcast over `[batch, C, ...]`.
Tensor over(const Tensor& channels, const Tensor& like) {
  std::vector<int64_t> shape(like.dim(), 1);
  shape[1] = channels.size(0);
  return channels.view(shape);
}

// `[world, ...]`: the tensors of all ranks, which have one shape.
Tensor gathered(const GroupPtr& group, const Tensor& mine) {
  std::vector<int64_t> shape = mine.sizes().vec();
  shape.insert(shape.begin(), group->getSize());
  Tensor all = at::empty(shape, mine.options()), in = mine.unsqueeze(0);
  group->_allgather_base(all, in)->wait();
  return all;
}

} // namespace

// The counts, means and sums of squared deviations of the ranks are combined as in Chan, Golub and LeVeque 1983.
Statistics of_all(const GroupPtr& group, const Tensor& own, Tensor running_mean, Tensor running_variance,
                  double momentum) {
  const Tensor all = gathered(group, own);
  const Tensor counts = all.select(1, 0), means = all.select(1, 1), squares = all.select(1, 2);
  const Tensor total = counts.sum(0);
  const Tensor mean = (counts * means).sum(0) / total;
  const Tensor variance = (squares.sum(0) + (counts * (means - mean).square()).sum(0)) / total;
  const Tensor unbiased = variance * (total / (total - 1));
  const auto kind = running_mean.scalar_type();
  running_mean.mul_(1 - momentum).add_(mean.to(kind), momentum);
  running_variance.mul_(1 - momentum).add_(unbiased.to(kind), momentum);
  return {mean, variance, total};
}

namespace {

// Batch normalisation over the batch of all ranks (Ioffe and Szegedy 2015).
struct GroupNorm : torch::autograd::Function<GroupNorm> {
  static Tensor forward(torch::autograd::AutogradContext* ctx, const Tensor& x, const Tensor& weight,
                        const Tensor& bias, Tensor mean, Tensor variance, double momentum, double eps,
                        const GroupPtr& group) {
    const auto kind = weight.scalar_type();
    const int64_t channels = x.size(1), count = x.numel() / channels;
    Tensor own = at::zeros({3, channels}, weight.options().dtype(at::kDouble));
    if (count > 0) {
      auto [centre, spread] = at::batch_norm_update_stats(x, {}, {}, momentum);
      own[0].fill_(count);
      own[1].copy_(centre);
      own[2].copy_(spread.to(at::kDouble) * count);
    }
    const auto [centre, spread, total] = of_all(group, own, mean, variance, momentum);
    const Tensor m = centre.to(kind), v = spread.to(kind);
    ctx->save_for_backward({x, weight, m, v, total});
    ctx->saved_data["group"] = c10::IValue::make_capsule(group);
    ctx->saved_data["eps"] = eps;
    // With statistics that are given, torch's own kernel does the rest.
    return at::batch_norm(x, weight, bias, m, v, /*training=*/false, momentum, eps, /*cudnn_enabled=*/true);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const Tensor &x = saved[0], &weight = saved[1], &m = saved[2], &v = saved[3], &total = saved[4];
    const auto group = c10::static_intrusive_pointer_cast<c10d::ProcessGroup>(ctx->saved_data["group"].toCapsule());
    const double eps = ctx->saved_data["eps"].toDouble();
    // As if the statistics were constants; what they add to the gradient of x is linear in x, channel by channel.
    Tensor dx, dweight, dbias;
    if (x.numel() > 0) {
      // Statistics of this batch: none, which CUDA's kernels for channels-last maps want to be told by empty ones.
      const Tensor own = at::empty({0}, m.options());
      std::tie(dx, dweight, dbias) = at::native_batch_norm_backward(
          grads[0], x, weight, m, v, own, own, /*train=*/false, eps, {true, true, true});
    } else {
      std::tie(dx, dweight, dbias) = std::make_tuple(at::zeros_like(x), at::zeros_like(weight), at::zeros_like(weight));
    }
    std::vector<Tensor> sums{at::stack({dbias, dweight}).to(at::kDouble)};
    group->allreduce(sums)->wait();
    const Tensor scale = (v.to(at::kDouble) + eps).rsqrt(), by = weight.to(at::kDouble) * scale / total;
    const Tensor slope = by * scale * sums[0][1], level = by * sums[0][0] - slope * m;
    const auto kind = x.scalar_type();
    dx.addcmul_(x, over(slope.to(kind), x), -1).sub_(over(level.to(kind), x));
    const Tensor none;
    return {dx, dweight, dbias, none, none, none, none, none};
  }
};

// c10d keeps the last 2,000 exchanges for a debugger, in a map that several groups of one process change without a lock
// (FlightRecorder::record in 2.11). Nobody reads it here. It asks the environment once, which may only be changed before
// there are threads.
__attribute__((constructor)) void no_flight_recorder() {
  setenv("TORCH_FR_BUFFER_SIZE", "0", /*overwrite=*/0);
}

std::shared_ptr<gloo::transport::Device> device_for(const char* interface, const char* host) {
  if (*interface) return c10d::ProcessGroupGloo::createDeviceForInterface(interface);
  const std::string name(host);
  if (name == "127.0.0.1" || name == "localhost" || name == "::1")
    return c10d::ProcessGroupGloo::createDeviceForHostname(host);
  return c10d::ProcessGroupGloo::createDefaultDevice();
}

} // namespace

extern "C" {

const char* nct_error() {
  return last_error.c_str();
}

int nct_group_new(const char* host, uint16_t port, const char* interface, int rank, int world, int64_t join_ms,
                  int64_t wait_ms, NctGroup** out) {
  return guarded([&] {
    c10d::TCPStoreOptions options;
    options.port = port;
    options.isServer = rank == 0;
    options.numWorkers = world;
    options.timeout = std::chrono::milliseconds(join_ms);
    auto store = c10::make_intrusive<c10d::TCPStore>(std::string(host), options);
    auto group = c10::make_intrusive<c10d::ProcessGroup>(store, rank, world);
    NctGroup made{group, store, device_for(interface, host), std::chrono::milliseconds(wait_ms)};
    group->setBackend(c10::DeviceType::CPU, c10d::ProcessGroup::BackendType::GLOO, made.backend("gloo"));
    group->setDefaultBackend(c10d::ProcessGroup::BackendType::GLOO);
    group->setGroupName("nct");
    *out = new NctGroup(std::move(made));
  });
}

int nct_group_cuda(NctGroup* with, int index) {
  return guarded([&] {
    const c10::Device device(c10::DeviceType::CUDA, static_cast<c10::DeviceIndex>(index));
    const auto& group = with->group;
    c10::intrusive_ptr<c10d::Backend> pulse;
    try {
      pulse = with->backend("pulse");
    } catch (const std::exception& e) {
      // All were here, and their hosts had met.
      throw Lost(e.what());
    }
    group->setBackend(c10::DeviceType::CUDA, c10d::ProcessGroup::BackendType::NCCL,
                      nccl_backend(with->store, group->getRank(), group->getSize(), device, std::move(pulse),
                                   with->wait));
  });
}

void nct_group_free(NctGroup* group) {
  guarded([&] { delete group; });
}

int nct_group_sum(NctGroup* group, Tensor* tensor) {
  return guarded([&] {
    std::vector<Tensor> all{*tensor};
    group->group->allreduce(all)->wait();
  });
}

// Tensors of one type whose strides leave no gaps and are the same everywhere. Sums are scaled before, as the reducer does.
int nct_group_average(NctGroup* group, Tensor* const* tensors, size_t n) {
  return guarded([&] {
    at::NoGradGuard none;
    std::vector<Tensor> all;
    for (size_t i = 0; i < n; ++i) {
      TORCH_CHECK(tensors[i]->is_non_overlapping_and_dense(), "an average of a tensor with gaps");
      all.push_back(tensors[i]->as_strided({tensors[i]->numel()}, {1}));
    }
    if (all.empty()) return;
    at::_foreach_mul_(all, 1.0 / group->group->getSize());
    group->group->allreduce_coalesced(all)->wait();
  });
}

int nct_group_broadcast(NctGroup* group, Tensor* tensor) {
  return guarded([&] {
    at::NoGradGuard none;
    // Whatever its strides, all ranks see the same numbers.
    std::vector<Tensor> all{tensor->detach().contiguous()};
    group->group->broadcast(all)->wait();
    tensor->copy_(all[0]);
  });
}

int nct_group_gather(NctGroup* group, Tensor* mine, Tensor** out) {
  return guarded([&] { *out = new Tensor(gathered(group->group, *mine)); });
}

int nct_group_norm(NctGroup* group, Tensor* x, Tensor* weight, Tensor* bias, Tensor* mean, Tensor* variance,
                   double momentum, double eps, Tensor** out) {
  return guarded([&] {
    *out = new Tensor(GroupNorm::apply(*x, *weight, *bias, *mean, *variance, momentum, eps, group->group));
  });
}

int nct_reducer_new(NctGroup* group, Tensor** params, size_t n, c10d::Reducer** out) {
  return guarded([&] {
    std::vector<Tensor> all;
    for (size_t i = 0; i < n; ++i) all.push_back(*params[i]);
    const auto first = static_cast<size_t>(c10d::kDefaultFirstBucketBytes);
    const size_t cap = 25 << 20;
    auto buckets = std::get<0>(c10d::compute_bucket_assignment_by_size(all, {first, cap}));
    // Gradients of the last parameters are there first.
    std::reverse(buckets.begin(), buckets.end());
    *out = new c10d::Reducer(all, buckets, group->group, std::vector<bool>(n, false), cap, /*find_unused_parameters=*/true,
                             /*gradient_as_bucket_view=*/false, {}, first, /*skip_all_reduce_unused_params=*/false,
                             /*use_python_reducer=*/false, {});
  });
}

int nct_reducer_prepare(c10d::Reducer* reducer, Tensor* loss) {
  return guarded([&] { reducer->prepare_for_backward({*loss}); });
}

void nct_reducer_free(c10d::Reducer* reducer) {
  guarded([&] { delete reducer; });
}

} // extern "C"
