// Ranks that compute on GPUs, one each. The only file that includes nccl.h.
//
// The communicator is nonblocking and everything runs on a stream of its own, which waits for what the
// caller put on the default stream before. The host waits here, so that it can look at the clock; a
// communicator that did not finish in time is aborted.

#include <cuda_runtime.h>
#include <nccl.h>

#include <string>
#include <thread>

#include "cluster/collective.hpp"
#include "cluster/error.hpp"

namespace yumoe {
namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

void check(cudaError_t code, const char* doing) {
  if (code != cudaSuccess) {
    throw Error(ErrorCode::device_missing, std::string(doing) + ": " + cudaGetErrorString(code));
  }
}

// Before any other call: without a driver NCCL's own message speaks of versions.
void check_gpu(int gpu) {
  int count = 0;
  const cudaError_t code = cudaGetDeviceCount(&count);
  if (code != cudaSuccess || count == 0) {
    throw Error(ErrorCode::device_missing,
                std::string("no GPU: this machine has none that CUDA can use (") +
                    cudaGetErrorString(code) + "); compute on the CPU, or see `yumoe doctor`");
  }
  if (gpu < 0 || gpu >= count) {
    throw Error(ErrorCode::device_missing,
                "no GPU " + std::to_string(gpu) + ": this machine has " + std::to_string(count));
  }
}

class NcclCollective final : public Collective {
 public:
  NcclCollective(Collective& control, int gpu, milliseconds wait_max)
      : control_(control), wait_max_(wait_max) {
    check_gpu(gpu);
    check(cudaSetDevice(gpu), "use the GPU");
    check(cudaStreamCreate(&stream_), "make a stream");
    check(cudaMalloc(&one_, sizeof(float)), "take memory of the GPU");
    ncclUniqueId id{};
    if (control.rank() == 0) start(ncclGetUniqueId(&id), "make an identifier");
    control.broadcast({reinterpret_cast<std::uint8_t*>(&id), sizeof id}, 0);
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    start(ncclCommInitRankConfig(&group_, size(), id, rank(), &config), "form the group");
    settle("forming the group");
  }
  ~NcclCollective() override {
    if (group_ != nullptr) {
      if (broken_.empty()) {
        ncclCommDestroy(group_);
      } else {
        ncclCommAbort(group_);
      }
    }
    cudaFree(one_);
    if (stream_ != nullptr) cudaStreamDestroy(stream_);
  }

  int rank() const override { return control_.rank(); }
  int size() const override { return control_.size(); }
  bool on_device() const override { return true; }
  void wait_at_most(milliseconds wait_max) override { wait_max_ = wait_max; }

  void all_reduce_sum(std::span<float> values) override {
    check_usable();
    start(ncclAllReduce(values.data(), values.data(), values.size(), ncclFloat, ncclSum, group_,
                        stream_),
          "all_reduce_sum");
    finish("all_reduce_sum");
  }

  void all_gather(ByteView mine, std::span<std::uint8_t> all) override {
    check_usable();
    YUMOE_ASSERT(all.size() == mine.size() * ranks());
    start(ncclAllGather(mine.data(), all.data(), mine.size(), ncclUint8, group_, stream_),
          "all_gather");
    finish("all_gather");
  }

  void broadcast(std::span<std::uint8_t> bytes, int root) override {
    check_usable();
    start(ncclBroadcast(bytes.data(), bytes.data(), bytes.size(), ncclUint8, root, group_, stream_),
          "broadcast");
    finish("broadcast");
  }

  void barrier() override {
    check_usable();
    start(ncclAllReduce(one_, one_, 1, ncclFloat, ncclSum, group_, stream_), "barrier");
    finish("barrier");
  }

  std::unique_ptr<Exchange> start_all_to_all_v(
      ByteView send, std::span<const std::size_t> send_bytes, std::span<std::uint8_t> receive,
      std::span<const std::size_t> receive_bytes) override {
    check_usable();
    YUMOE_ASSERT(send_bytes.size() == ranks() && receive_bytes.size() == ranks());
    start(ncclGroupStart(), "all_to_all_v");
    std::size_t from = 0, to = 0;
    for (std::size_t r = 0; r < ranks(); ++r) {
      const int peer = static_cast<int>(r);
      if (send_bytes[r] > 0) {
        start(ncclSend(send.data() + from, send_bytes[r], ncclUint8, peer, group_, stream_),
              "all_to_all_v");
      }
      if (receive_bytes[r] > 0) {
        start(ncclRecv(receive.data() + to, receive_bytes[r], ncclUint8, peer, group_, stream_),
              "all_to_all_v");
      }
      from += send_bytes[r];
      to += receive_bytes[r];
    }
    YUMOE_ASSERT(from == send.size() && to == receive.size());
    start(ncclGroupEnd(), "all_to_all_v");
    settle("all_to_all_v");
    return std::make_unique<Started>(*this);
  }

  void progress() override {}

  std::unique_ptr<Collective> reform() override {
    throw Error(ErrorCode::collective_failed,
                "form the group without the lost ranks: NCCL cannot; start the island's processes "
                "again, as `yumoe-worker island` does");
  }

 private:
  // Operations of one stream end in order, so waiting for the newest is waiting for all before.
  class Started final : public Exchange {
   public:
    explicit Started(NcclCollective& group) : group_(group) {
      check(cudaEventCreateWithFlags(&end_, cudaEventDisableTiming), "make an event");
      check(cudaEventRecord(end_, group.stream_), "record an event");
    }
    ~Started() override { cudaEventDestroy(end_); }
    void wait() override { group_.wait_for(end_, "all_to_all_v"); }

   private:
    NcclCollective& group_;
    cudaEvent_t end_ = nullptr;
  };

  std::size_t ranks() const { return static_cast<std::size_t>(size()); }
  void check_usable() const {
    if (!broken_.empty()) throw Error(ErrorCode::collective_failed, broken_);
  }

  void start(ncclResult_t code, const char* operation) {
    if (code != ncclSuccess && code != ncclInProgress) fail(operation, ncclGetErrorString(code));
  }

  // Until what was asked for lies on the stream.
  void settle(const char* operation) {
    const Clock::time_point begin = Clock::now();
    ncclResult_t state = ncclInProgress;
    while (true) {
      start(ncclCommGetAsyncError(group_, &state), operation);
      if (state == ncclSuccess) return;
      if (state != ncclInProgress) fail(operation, ncclGetErrorString(state));
      check_time(begin, operation);
    }
  }

  void finish(const char* operation) {
    settle(operation);
    Started(*this).wait();
  }

  void wait_for(cudaEvent_t end, const char* operation) {
    const Clock::time_point begin = Clock::now();
    while (true) {
      const cudaError_t code = cudaEventQuery(end);
      if (code == cudaSuccess) return;
      if (code != cudaErrorNotReady) fail(operation, cudaGetErrorString(code));
      ncclResult_t state = ncclSuccess;
      if (ncclCommGetAsyncError(group_, &state) == ncclSuccess && state != ncclSuccess &&
          state != ncclInProgress) {
        fail(operation, ncclGetErrorString(state));
      }
      check_time(begin, operation);
    }
  }

  void check_time(Clock::time_point begin, const char* operation) {
    if (Clock::now() - begin > wait_max_) {
      fail(operation, "no end within " + std::to_string(wait_max_.count()) + " ms");
    }
    std::this_thread::yield();
  }

  // NCCL does not say who is missing; a roll call among the hosts does.
  [[noreturn]] void fail(const std::string& operation, const std::string& why) {
    broken_ = operation + " by NCCL: " + why;
    control_.wait_at_most(milliseconds(5'000));
    try {
      control_.barrier();
      broken_ += " (every rank answers the roll call)";
    } catch (const Error& error) {
      broken_ += std::string("; roll call: ") + error.what();
    }
    throw Error(ErrorCode::collective_failed, broken_);
  }

  Collective& control_;
  milliseconds wait_max_;
  ncclComm_t group_ = nullptr;
  cudaStream_t stream_ = nullptr;
  float* one_ = nullptr;  // what a barrier adds up
  std::string broken_;
};

}  // namespace

bool nccl_is_built() { return true; }

std::unique_ptr<Collective> join_nccl(Collective& control, int gpu, milliseconds wait_max) {
  return std::make_unique<NcclCollective>(control, gpu, wait_max);
}

DeviceMemory nccl_memory() {
  check_gpu(0);
  return {[](std::size_t bytes) {
            void* memory = nullptr;
            check(cudaMalloc(&memory, bytes), "take memory of the GPU");
            return std::shared_ptr<std::uint8_t>(static_cast<std::uint8_t*>(memory),
                                                 [](std::uint8_t* p) { cudaFree(p); });
          },
          [](void* to, const void* from, std::size_t bytes) {
            check(cudaMemcpy(to, from, bytes, cudaMemcpyDefault), "copy to or from the GPU");
          }};
}

}  // namespace yumoe
