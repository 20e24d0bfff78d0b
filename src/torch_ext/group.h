// Processes that train together, and what they find out of a batch of which each has a share.

#pragma once

#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>

#include <chrono>
#include <memory>
#include <string>

using GroupPtr = c10::intrusive_ptr<c10d::ProcessGroup>;

// Processes, and how their hosts talk.
struct NctGroup {
  GroupPtr group;
  c10::intrusive_ptr<c10d::Store> store;
  std::shared_ptr<gloo::transport::Device> device;
  std::chrono::milliseconds wait;

  // Of the hosts; collectives of several do not get into each other's way.
  c10::intrusive_ptr<c10d::Backend> backend(const std::string& name) const;
};

// Of each channel, in double precision; `total` is the number of values.
struct Statistics {
  at::Tensor mean, variance, total;
};

// Statistics of the batch of all, `own` `[3, C]` in double precision being the counts, means and sums of squared deviations
// of this process; the running ones move by `momentum`. Collective.
Statistics of_all(const GroupPtr& group, const at::Tensor& own, at::Tensor running_mean, at::Tensor running_variance,
                  double momentum);
