// What tch lacks of libtorch: updates of many parameters at once, by PyTorch's own kernels.

#include "guard.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <vector>

using at::Tensor;
using Tensors = std::vector<Tensor>;

namespace {

Tensors list(Tensor* const* tensors, size_t n) {
  Tensors all;
  all.reserve(n);
  for (size_t i = 0; i < n; ++i) all.push_back(*tensors[i]);
  return all;
}

// Floats [] on a device.
Tensors numbers(const int64_t* values, size_t n, c10::Device device) {
  const auto kind = at::TensorOptions().dtype(at::kFloat);
  if (std::equal(values + 1, values + n, values)) {
    return Tensors(n, at::full({}, static_cast<double>(values[0]), kind.device(device)));
  }
  // So small that the host does not wait (`nct_send`).
  const Tensor all = at::from_blob(const_cast<int64_t*>(values), {static_cast<int64_t>(n)}, at::kLong).to(at::kFloat);
  return all.to(device, at::kFloat, /*non_blocking=*/true).unbind();
}

std::optional<Tensor> gate(const Tensor* unless) { return unless ? std::optional<Tensor>(*unless) : std::nullopt; }

} // namespace

extern "C" {

// As `SgdUpdate` in `mod.rs`.
struct NctSgd {
  double lr, weight_decay, momentum, dampening;
  bool nesterov, first, fused;
};

// As `AdamUpdate` in `mod.rs`.
struct NctAdam {
  double lr, weight_decay, beta1, beta2, eps;
  bool decoupled, amsgrad, fused;
};

// `momenta` is empty (null) without momentum; otherwise, in the first update, its values are not read.
// `unless`: null, or a float [] that is 1 where the fused kernel is to change nothing.
int nct_sgd(Tensor* const* params, Tensor* const* grads, Tensor* const* momenta, size_t n, const NctSgd* how,
            const Tensor* unless) {
  return guarded([&] {
    const Tensors w = list(params, n), v = momenta ? list(momenta, n) : Tensors();
    Tensors g = list(grads, n);
    if (how->fused) {
      at::_fused_sgd_(w, g, v, how->weight_decay, how->momentum, how->lr, how->dampening, how->nesterov,
                      /*maximize=*/false, how->first, /*grad_scale=*/std::nullopt, gate(unless));
      return;
    }
    if (how->weight_decay != 0) g = at::_foreach_add(g, w, how->weight_decay);
    if (!v.empty()) {
      if (how->first) {
        at::_foreach_copy_(v, g);
      } else {
        at::_foreach_mul_(v, how->momentum);
        at::_foreach_add_(v, g, 1 - how->dampening);
      }
      g = how->nesterov ? at::_foreach_add(g, v, how->momentum) : v;
    }
    at::_foreach_add_(w, g, -how->lr);
  });
}

// `largest` is empty (null) without AMSGrad; `unless` as above.
int nct_adam(Tensor* const* params, Tensor* const* grads, Tensor* const* means, Tensor* const* squares,
             Tensor* const* largest, const int64_t* step, size_t n, const NctAdam* how, const Tensor* unless) {
  return guarded([&] {
    const Tensors w = list(params, n), m = list(means, n), v = list(squares, n);
    const Tensors top = largest ? list(largest, n) : Tensors();
    Tensors g = list(grads, n);
    if (how->fused) {
      const Tensors steps = numbers(step, n, w[0].device());
      const auto update = [&](auto by) {
        by(w, g, m, v, top, steps, how->lr, how->beta1, how->beta2, how->weight_decay, how->eps, how->amsgrad,
           /*maximize=*/false, /*grad_scale=*/std::nullopt, gate(unless));
      };
      if (how->decoupled) {
        update([](const auto&... with) { at::_fused_adamw_(with...); });
      } else {
        update([](const auto&... with) { at::_fused_adam_(with...); });
      }
      return;
    }
    if (how->decoupled) {
      at::_foreach_mul_(w, 1 - how->lr * how->weight_decay);
    } else if (how->weight_decay != 0) {
      g = at::_foreach_add(g, w, how->weight_decay);
    }
    at::_foreach_lerp_(m, g, 1 - how->beta1);
    at::_foreach_mul_(v, how->beta2);
    at::_foreach_addcmul_(v, g, g, 1 - how->beta2);
    if (how->amsgrad) at::_foreach_maximum_(top, v);
    const Tensors root = at::_foreach_sqrt(how->amsgrad ? top : v);
    const auto t = static_cast<double>(step[0]);
    at::_foreach_div_(root, std::sqrt(1 - std::pow(how->beta2, t)));
    at::_foreach_add_(root, how->eps);
    at::_foreach_addcdiv_(w, m, root, -how->lr / (1 - std::pow(how->beta1, t)));
  });
}

int nct_zero(Tensor* const* tensors, size_t n) {
  return guarded([&] {
    if (n > 0) at::_foreach_zero_(list(tensors, n));
  });
}

int nct_clamp(Tensor* const* tensors, size_t n, double low, double high) {
  return guarded([&] {
    if (n == 0) return;
    const Tensors all = list(tensors, n);
    if (std::isfinite(low)) at::_foreach_clamp_min_(all, low);
    if (std::isfinite(high)) at::_foreach_clamp_max_(all, high);
  });
}

} // extern "C"
