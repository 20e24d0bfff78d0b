// A backend of c10d for tensors on GPUs, over NCCL's C interface. PyTorch's own belongs to libtorch's CUDA half, which
// this program is not linked with; NCCL comes into the process with that half, and is looked up here by name.

#include "nccl.h"

#include "cuda.h"
#include "guard.h"

#include <ATen/ATen.h>
#include <ATen/core/ivalue.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/Event.h>
#include <c10/core/StreamGuard.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

using at::Tensor;

namespace {

// As nccl.h has them; NCCL keeps them through its versions.
struct UniqueId {
  char bytes[128];
};
using Comm = void*;
using Clock = std::chrono::steady_clock;
constexpr int SUCCESS = 0, SUM = 0;

int type_of(const Tensor& t) {
  switch (t.scalar_type()) {
    case at::kChar: return 0;
    case at::kByte: case at::kBool: return 1;
    case at::kInt: return 2;
    case at::kLong: return 4;
    case at::kHalf: return 6;
    case at::kFloat: return 7;
    case at::kDouble: return 8;
    case at::kBFloat16: return 9;
    default: TORCH_CHECK(false, "no exchange between GPUs of values of type ", t.scalar_type());
  }
}

struct Functions {
  int (*get_unique_id)(UniqueId*);
  int (*init)(Comm*, int world, UniqueId, int rank);
  int (*abort)(Comm);
  int (*async_error)(Comm, int*);
  const char* (*error)(int);
  const char* (*last_error)(Comm);
  int (*all_reduce)(const void*, void*, size_t, int type, int op, Comm, void* stream);
  int (*broadcast)(const void*, void*, size_t, int type, int root, Comm, void* stream);
  int (*all_gather)(const void*, void*, size_t, int type, Comm, void* stream);
  int (*group_start)();
  int (*group_end)();
  // Of the CUDA runtime (cuda_runtime_api.h).
  int (*is_capturing)(void* stream, int* status);

  Functions() {
    find(get_unique_id, "ncclGetUniqueId");
    find(init, "ncclCommInitRank");
    find(abort, "ncclCommAbort");
    find(async_error, "ncclCommGetAsyncError");
    find(error, "ncclGetErrorString");
    find(last_error, "ncclGetLastError");
    find(all_reduce, "ncclAllReduce");
    find(broadcast, "ncclBroadcast");
    find(all_gather, "ncclAllGather");
    find(group_start, "ncclGroupStart");
    find(group_end, "ncclGroupEnd");
    find(is_capturing, "cudaStreamIsCapturing");
  }

  void check(int result) const { TORCH_CHECK(result == SUCCESS, "NCCL: ", error(result), " ", last_error(nullptr)); }
};

// Waits on streams, never on the host.
class OnStream final : public c10d::Work {
 public:
  OnStream(int rank, c10d::OpType op, const c10::Stream& stream, std::vector<Tensor> outputs)
      : Work(rank, op), done(std::make_shared<c10::Event>(c10::kCUDA)), outputs(std::move(outputs)) {
    done->record(stream);
    future = c10::make_intrusive<at::ivalue::Future>(c10::ListType::create(c10::TensorType::get()),
                                                     std::vector<c10::Device>{stream.device()});
    const c10::StreamGuard guard(stream);
    future->markCompleted(at::IValue(this->outputs));
  }

  bool isCompleted() override { return done->query(); }
  bool isSuccess() const override { return done->query(); }
  bool wait(std::chrono::milliseconds) override {
    synchronize();
    return true;
  }
  void synchronize() override { done->block(gpu().getStream(done->device())); }
  std::vector<Tensor> result() override { return outputs; }
  c10::intrusive_ptr<c10::ivalue::Future> getFuture() override { return future; }

  const std::shared_ptr<c10::Event> done;

 private:
  std::vector<Tensor> outputs;
  c10::intrusive_ptr<at::ivalue::Future> future;
};

class Nccl final : public c10d::Backend {
 public:
  Nccl(const c10::intrusive_ptr<c10d::Store>& store, int rank, int world, c10::Device device,
       c10::intrusive_ptr<c10d::Backend> pulse, std::chrono::milliseconds limit)
      : Backend(rank, world),
        stream(gpu().getStreamFromGlobalPool(device, /*isHighPriority=*/true)),
        pulse(std::move(pulse)),
        limit(limit) {
    watch = std::thread([this] { beat(); });
    try {
      meet(identifier(*store));
    } catch (...) {
      rest();
      throw;
    }
  }

  ~Nccl() override {
    rest();
    end();
  }

  const std::string getBackendName() const override { return "nccl"; }

  c10::intrusive_ptr<c10d::Work> allreduce(std::vector<Tensor>& tensors, const c10d::AllreduceOptions& how) override {
    TORCH_CHECK(how.reduceOp == c10d::ReduceOp::SUM, "GPUs exchange sums only");
    return enqueue(c10d::OpType::ALLREDUCE, tensors, tensors, [&](void* on) {
      // As one exchange. What was begun is ended in any case; `enqueue` has looked at the types.
      nccl.check(nccl.group_start());
      int result = SUCCESS;
      for (const Tensor& t : tensors) {
        if (result == SUCCESS) result = nccl.all_reduce(t.data_ptr(), t.data_ptr(), t.numel(), type_of(t), SUM, comm, on);
      }
      const int ended = nccl.group_end();
      nccl.check(result == SUCCESS ? ended : result);
    });
  }

  c10::intrusive_ptr<c10d::Work> allreduce_coalesced(std::vector<Tensor>& tensors,
                                                     const c10d::AllreduceCoalescedOptions& how) override {
    return allreduce(tensors, how);
  }

  c10::intrusive_ptr<c10d::Work> broadcast(std::vector<Tensor>& tensors, const c10d::BroadcastOptions& how) override {
    return enqueue(c10d::OpType::BROADCAST, tensors, tensors, [&](void* on) {
      for (const Tensor& t : tensors) {
        const int root = static_cast<int>(how.rootRank);
        nccl.check(nccl.broadcast(t.data_ptr(), t.data_ptr(), t.numel(), type_of(t), root, comm, on));
      }
    });
  }

  c10::intrusive_ptr<c10d::Work> _allgather_base(Tensor& out, Tensor& in, const c10d::AllgatherOptions&) override {
    return enqueue(c10d::OpType::_ALLGATHER_BASE, {in, out}, {out}, [&](void* on) {
      nccl.check(nccl.all_gather(in.data_ptr(), out.data_ptr(), in.numel(), type_of(in), comm, on));
    });
  }

 private:
  // What the GPUs know each other by.
  UniqueId identifier(c10d::Store& store) {
    const c10::DeviceGuard guard(stream.device());
    UniqueId id;
    if (getRank() == 0) {
      nccl.check(nccl.get_unique_id(&id));
      store.set("nccl", std::vector<uint8_t>(id.bytes, id.bytes + sizeof id.bytes));
      return id;
    }
    std::vector<uint8_t> bytes;
    try {
      bytes = store.get("nccl");
    } catch (const std::exception& e) {
      throw Lost(e.what());
    }
    TORCH_CHECK(bytes.size() == sizeof id.bytes, "NCCL: an identifier of ", bytes.size(), " bytes");
    std::copy(bytes.begin(), bytes.end(), id.bytes);
    return id;
  }

  // NCCL waits for all, for ever, and what it waits with cannot be aborted before it is made: a thread of its own waits,
  // which is left to itself if a process has ended.
  void meet(UniqueId id) {
    struct Meeting {
      std::mutex mutex;
      std::condition_variable over;
      bool done = false;
      int result = SUCCESS;
      Comm comm = nullptr;
    };
    const auto meeting = std::make_shared<Meeting>();
    std::thread([meeting, id, init = nccl.init, rank = getRank(), world = getSize(), device = stream.device()] {
      const c10::DeviceGuard guard(device);
      Comm made = nullptr;
      const int result = init(&made, world, id, rank);
      const std::lock_guard<std::mutex> lock(meeting->mutex);
      meeting->done = true;
      meeting->result = result;
      meeting->comm = made;
      meeting->over.notify_all();
    }).detach();
    std::unique_lock<std::mutex> lock(meeting->mutex);
    const auto since = Clock::now();
    while (!meeting->over.wait_for(lock, std::chrono::milliseconds(100), [&] { return meeting->done; })) {
      if (lost) throw Lost(why);
      TORCH_CHECK(Clock::now() - since < limit, "NCCL: they have not met in ", minutes(), " minutes");
    }
    nccl.check(meeting->result);
    const std::lock_guard<std::timed_mutex> calling(calls);
    comm = meeting->comm;
  }

  // Tells the others that this process ends.
  void rest() {
    {
      const std::lock_guard<std::mutex> lock(pause);
      ending = true;
    }
    woken.notify_all();
    watch.join();
  }

  // On a stream of its own, after what the current one has to do to the tensors; these stay until it is done.
  template <class Call>
  c10::intrusive_ptr<c10d::Work> enqueue(c10d::OpType op, const std::vector<Tensor>& all, std::vector<Tensor> outputs,
                                         Call call) {
    const c10::DeviceGuard guard(stream.device());
    c10::Event ready(c10::kCUDA);
    ready.record(gpu().getStream(stream.device()));
    ready.block(stream);
    for (const Tensor& t : all) {
      TORCH_CHECK(t.device() == stream.device() && t.is_contiguous(), "not a contiguous tensor of ", stream.device());
      type_of(t);
      gpu().recordDataPtrOnStream(t.storage().data_ptr(), stream);
    }
    // The end of NCCL, which waits for recordings that name it, holds `calls` until this thread has given them up.
    std::unique_lock<std::timed_mutex> lock(calls, std::defer_lock);
    while (!lock.try_lock_for(std::chrono::milliseconds(100))) TORCH_CHECK(!lost, "NCCL: ", why);
    TORCH_CHECK(!lost, "NCCL: ", why);
    call(stream.native_handle());
    TORCH_CHECK(!lost, "NCCL: ", why);
    auto work = c10::make_intrusive<OnStream>(getRank(), op, stream, std::move(outputs));
    // What is recorded is not done yet, nor may be asked about; after it comes an exchange that is not recorded.
    int recorded = 0;
    nccl.is_capturing(stream.native_handle(), &recorded);
    if (recorded == 0) {
      const std::lock_guard<std::mutex> last(pause);
      asked = work->done;
      asked_at = Clock::now();
    }
    return work;
  }

  // Twice a second, until a process says that it ends, or does so.
  void beat() {
    why = "another process has ended";
    for (bool mine = false; !mine;) {
      {
        std::unique_lock<std::mutex> lock(pause);
        woken.wait_for(lock, std::chrono::milliseconds(500), [this] { return ending; });
        mine = ending;
      }
      try {
        std::vector<Tensor> ends{at::full({1}, mine ? 1 : 0, at::kLong)};
        pulse->allreduce(ends)->wait();
        if (mine) return;
        if (ends[0].item<int64_t>() > 0 || failed() || stuck()) break;
      } catch (const std::exception& e) {
        why = e.what();
        break;
      }
    }
    lost = true;
    // Ends what GPUs and host wait for. A call that is under way ends by that, with an error of its own.
    const std::unique_lock<std::timed_mutex> lock(calls, std::chrono::seconds(1));
    end();
  }

  // Whether NCCL has lost a connection.
  bool failed() {
    const std::unique_lock<std::timed_mutex> lock(calls, std::try_to_lock);
    if (!lock || !comm) return false;
    int result = SUCCESS;
    nccl.check(nccl.async_error(comm, &result));
    if (result != SUCCESS) why = nccl.error(result);
    return result != SUCCESS;
  }

  // Whether the GPUs have been at an exchange for too long: one of them cannot reach another, or its process hangs.
  bool stuck() {
    std::shared_ptr<c10::Event> last;
    {
      const std::lock_guard<std::mutex> lock(pause);
      if (Clock::now() - asked_at > limit) last = asked;
    }
    if (!last || last->query()) return false;
    why = "an exchange between GPUs has not ended in " + std::to_string(minutes()) +
          " minutes (one process hangs, or its GPU cannot be reached; NCCL_DEBUG=INFO says more)";
    return true;
  }

  int64_t minutes() const { return std::chrono::duration_cast<std::chrono::minutes>(limit).count(); }

  void end() {
    if (comm) nccl.abort(comm);
    comm = nullptr;
  }

  const Functions nccl;
  const c10::Stream stream;
  const c10::intrusive_ptr<c10d::Backend> pulse;
  const std::chrono::milliseconds limit;
  // Held through calls of NCCL.
  std::timed_mutex calls;
  Comm comm = nullptr;
  // Written before `lost`.
  std::string why;
  std::atomic<bool> lost{false};
  // Of what follows.
  std::mutex pause;
  std::condition_variable woken;
  bool ending = false;
  // The end of the last exchange, and when it was asked for.
  std::shared_ptr<c10::Event> asked;
  Clock::time_point asked_at;
  std::thread watch;
};

} // namespace

c10::intrusive_ptr<c10d::Backend> nccl_backend(const c10::intrusive_ptr<c10d::Store>& store, int rank, int world,
                                               c10::Device device, c10::intrusive_ptr<c10d::Backend> pulse,
                                               std::chrono::milliseconds limit) {
  return c10::make_intrusive<Nccl>(store, rank, world, device, std::move(pulse), limit);
}
