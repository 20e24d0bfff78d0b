// What tch lacks of libtorch: the images of a batch by one kernel of our own (`kernels/images.cu`), out of bytes that live
// on a GPU.

#include "guard.h"
#include "kernels/images.h"
#include "kernels/kernels.h"

#include <ATen/ATen.h>

using at::Tensor;

extern "C" {

// `bytes` `[images, channels, height * width]`, `values` `[channels * 256]` floats and `moves` `[n, MOVE]` 32-bit numbers,
// contiguous, on one GPU, with rows that there are: floats `[n, channels, height, width]`.
int nct_images(const Tensor* bytes, const Tensor* values, const Tensor* moves, int64_t height, int64_t width,
               Tensor** out) {
  return guarded([&] {
    const int64_t n = moves->size(0), channels = bytes->size(1);
    TORCH_CHECK(bytes->is_cuda() && bytes->is_contiguous() && bytes->scalar_type() == at::kByte &&
                    bytes->size(2) == height * width,
                "images that are none");
    TORCH_CHECK(values->device() == bytes->device() && values->is_contiguous() &&
                    values->scalar_type() == at::kFloat && values->numel() == channels * 256,
                "values that are none");
    TORCH_CHECK(moves->device() == bytes->device() && moves->is_contiguous() && moves->scalar_type() == at::kInt &&
                    moves->dim() == 2 && moves->size(1) == nct::MOVE,
                "moves that are none");
    Tensor seen = at::empty({n, channels, height, width}, values->options());
    nct::Images task{};
    task.bytes = bytes->const_data_ptr<uint8_t>();
    task.values = values->const_data_ptr<float>();
    task.moves = moves->const_data_ptr<int>();
    task.seen = seen.mutable_data_ptr<float>();
    task.n = static_cast<unsigned>(n);
    task.channels = static_cast<unsigned>(channels);
    task.height = static_cast<unsigned>(height);
    task.width = static_cast<unsigned>(width);
    const int64_t blocks = (n * height * width + nct::THREADS - 1) / nct::THREADS;
    if (blocks > 0) {
      Kernels::of(bytes->device()).launch("nct_show", {static_cast<unsigned>(blocks)}, {nct::THREADS}, &task);
    }
    *out = new Tensor(seen);
  });
}

} // extern "C"
