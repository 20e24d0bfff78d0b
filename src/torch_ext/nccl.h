// Collectives of tensors on GPUs.

#pragma once

#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>

// Joins the processes of `store`, each with the GPU that it names. `pulse` is a group of the same processes on their
// hosts, for this backend alone: through it a process that has ended is noticed while a GPU waits for its GPU, which
// it would do for ever. An exchange that takes longer than `limit` has failed, though all are alive.
c10::intrusive_ptr<c10d::Backend> nccl_backend(const c10::intrusive_ptr<c10d::Store>& store, int rank, int world,
                                               c10::Device device, c10::intrusive_ptr<c10d::Backend> pulse,
                                               std::chrono::milliseconds limit);
