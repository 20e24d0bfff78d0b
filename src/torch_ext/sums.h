// Gradients that add up where they are made, in place of being given to autograd, which would go through them once more.

#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

// What the gradients of `weight` add up in, if they may be added there. Only for passes of which nobody waits for what
// autograd does with them, such as the reducer of several processes.
inline std::optional<at::Tensor> sum_of(const at::Tensor& weight, bool adds) {
  if (!adds || !weight.is_leaf() || !weight.requires_grad()) return std::nullopt;
  const at::Tensor& sum = weight.grad();
  if (!sum.defined() || sum.scalar_type() != weight.scalar_type()) return std::nullopt;
  return sum;
}
