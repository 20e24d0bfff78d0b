// CUDA graphs. Their class belongs to libtorch's CUDA half, which this program is not linked with: its functions are
// looked up by the names that compilers give them, and an object lives in room that is more than it needs.

#include "cuda.h"
#include "guard.h"

#include <ATen/Context.h>
#include <c10/core/Allocator.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/Stream.h>

#include <cstddef>
#include <memory>
#include <optional>

namespace {

// at::cuda::CUDAGraph (ATen/cuda/CUDAGraph.h).
struct Class {
  void (*construct)(void*, bool keep_graph);
  void (*destroy)(void*);
  void (*begin)(void*, c10::MempoolId_t, int mode);
  void (*end)(void*);
  void (*replay)(void*);
  c10::MempoolId_t (*new_pool)();

  Class() {
    find(construct, "_ZN2at4cuda9CUDAGraphC1Eb");
    find(destroy, "_ZN2at4cuda9CUDAGraphD1Ev");
    find(begin, "_ZN2at4cuda9CUDAGraph13capture_beginESt4pairIyyE21cudaStreamCaptureMode");
    find(end, "_ZN2at4cuda9CUDAGraph11capture_endEv");
    find(replay, "_ZN2at4cuda9CUDAGraph6replayEv");
    find(new_pool, "_ZN2at4cuda17graph_pool_handleEv");
  }

  static const Class& get() {
    static const Class found;
    return found;
  }
};

} // namespace

struct NctGraph {
  alignas(std::max_align_t) std::byte object[4096];
  std::optional<c10::Stream> before;

  NctGraph() {
    Class::get().construct(object, /*keep_graph=*/false);
    ++live;
  }
  ~NctGraph() {
    Class::get().destroy(object);
    if (--live == 0) pool.reset();
  }

  static bool alone() { return live == 1; }

  // Graphs are replayed one after another, and results are taken before the next: they share their memory. What no graph
  // has any more the allocator takes no graph into.
  static c10::MempoolId_t shared() {
    if (!pool) pool = Class::get().new_pool();
    return *pool;
  }

 private:
  // Of the one thread that trains.
  static thread_local int live;
  static thread_local std::optional<c10::MempoolId_t> pool;
};

thread_local int NctGraph::live = 0;
thread_local std::optional<c10::MempoolId_t> NctGraph::pool;

extern "C" {

// What this thread, and backward passes that it asks for, give the device from now on is recorded, not done.
int nct_graph_begin(int index, NctGraph** out) {
  return guarded([&] {
    // Other threads may do to the device what a recording forbids this one.
    constexpr int THREAD_LOCAL = 1;
    const c10::Device device(c10::DeviceType::CUDA, static_cast<c10::DeviceIndex>(index));
    const auto& graphs = Class::get();
    auto graph = std::make_unique<NctGraph>();
    gpu().synchronizeDevice(device.index());
    // What passes before left in the allocator's pool is not given back while one records, which then would need as much
    // again (PyTorch's torch.cuda.graph does the same). Later recordings share the first one's pool.
    if (NctGraph::alone()) at::getDeviceAllocator(c10::DeviceType::CUDA)->emptyCache({0, 0});
    // The default stream can not record. One other is enough, and so is one workspace of each library.
    thread_local std::optional<c10::Stream> recorder;
    if (!recorder || recorder->device() != device) recorder = gpu().getStreamFromGlobalPool(device);
    const auto before = gpu().exchangeStream(*recorder);
    try {
      graphs.begin(graph->object, NctGraph::shared(), THREAD_LOCAL);
    } catch (...) {
      gpu().exchangeStream(before);
      throw;
    }
    graph->before = before;
    *out = graph.release();
  });
}

int nct_graph_end(NctGraph* graph) {
  return guarded([&] {
    // It ends on the stream it began on.
    try {
      Class::get().end(graph->object);
    } catch (...) {
      gpu().exchangeStream(*graph->before);
      throw;
    }
    gpu().exchangeStream(*graph->before);
  });
}

// On the current stream.
int nct_graph_replay(NctGraph* graph) {
  return guarded([&] { Class::get().replay(graph->object); });
}

void nct_graph_free(NctGraph* graph) {
  guarded([&] { delete graph; });
}

} // extern "C"
