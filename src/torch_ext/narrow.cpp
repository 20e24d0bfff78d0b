// What tch lacks of libtorch: weights rounded to bfloat16 whose gradients are added to those in 32 bits in one go.
// Autograd widens them first, and adds then.

#include "guard.h"
#include "sums.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

using at::Tensor;

namespace {

struct Narrow : torch::autograd::Function<Narrow> {
  static Tensor forward(torch::autograd::AutogradContext* ctx, const Tensor& weight, const Tensor& sum) {
    ctx->saved_data["sum"] = sum;
    return weight.to(at::kBFloat16);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    TORCH_CHECK(!at::GradMode::is_enabled(), "gradients that are added up have no second derivative");
    ctx->saved_data["sum"].toTensor().add_(grads[0]);
    return {Tensor(), Tensor()};
  }
};

} // namespace

extern "C" {

// `weight`, rounded to bfloat16. If a gradient in 32 bits is there, the backward pass adds to it.
int nct_narrow(const Tensor* weight, Tensor** out) {
  return guarded([&] {
    const auto sum = sum_of(*weight, /*adds=*/true);
    *out = new Tensor(sum ? Narrow::apply(*weight, *sum) : weight->to(at::kBFloat16));
  });
}

} // extern "C"
