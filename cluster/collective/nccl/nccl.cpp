// Ranks that compute on GPUs, one each. The only file that includes nccl.h.
//
// The communicator is nonblocking and everything runs on a stream of its own, ordered against the caller's,
// the device's default stream, by events: an operation starts after what was put there before, and what
// is put there after its wait() starts when it has ended. The host waits for neither. It waits, looking
// at the clock, in drain(); a communicator that is not done by then is aborted, which ends its kernels and so
// whatever would wait for the device after them.

#include <cuda_runtime.h>
#include <nccl.h>

#include <memory>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

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
  NcclCollective(std::unique_ptr<Collective> control, int gpu, milliseconds wait_max)
      : control_(std::move(control)), gpu_(gpu), wait_max_(wait_max) {
    check_gpu(gpu);
    check(cudaSetDevice(gpu), "use the GPU");
    // Not ordered against the default stream by itself: only where events say so.
    check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "make a stream");
    check(cudaEventCreateWithFlags(&before_, cudaEventDisableTiming), "make an event");
    check(cudaMalloc(&one_, sizeof(float)), "take memory of the GPU");
  }
  // Before anything else, on all ranks. Throws Error{collective_failed}; then all operations do.
  void form() {
    ncclUniqueId id{};
    if (control_->rank() == 0) start(ncclGetUniqueId(&id), "make an identifier");
    control_->broadcast({reinterpret_cast<std::uint8_t*>(&id), sizeof id}, 0);
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    start(ncclCommInitRankConfig(&group_, size(), id, rank(), &config), "form the group");
    settle("forming the group");
  }
  ~NcclCollective() override {
    cudaSetDevice(gpu_);
    if (group_ != nullptr) ncclCommDestroy(group_);
    cudaFree(one_);
    if (before_ != nullptr) cudaEventDestroy(before_);
    if (stream_ != nullptr) cudaStreamDestroy(stream_);
  }

  int rank() const override { return control_->rank(); }
  int size() const override { return control_->size(); }
  bool on_device() const override { return true; }
  Collective& host() override { return *control_; }
  void wait_at_most(milliseconds wait_max) override {
    wait_max_ = wait_max;
    control_->wait_at_most(wait_max);
  }
  void drain() override {
    check_usable();
    must(cudaSetDevice(gpu_), "use the GPU");
    const Event now(*this);
    must(cudaEventRecord(now.event, kCallers), "record an event");
    wait_for(now.event, "the island's work");
  }

  void all_reduce_sum(std::span<float> values) override {
    begin();
    if (values.empty()) return;
    start(ncclAllReduce(values.data(), values.data(), values.size(), ncclFloat, ncclSum, group_,
                        stream_),
          "all_reduce_sum");
    finish("all_reduce_sum");
  }

  void all_gather(ByteView mine, std::span<std::uint8_t> all) override {
    begin();
    YUMOE_ASSERT(all.size() == mine.size() * ranks());
    if (mine.empty()) return;
    start(ncclAllGather(mine.data(), all.data(), mine.size(), ncclUint8, group_, stream_),
          "all_gather");
    finish("all_gather");
  }

  void broadcast(std::span<std::uint8_t> bytes, int root) override {
    begin();
    if (bytes.empty()) return;
    start(ncclBroadcast(bytes.data(), bytes.data(), bytes.size(), ncclUint8, root, group_, stream_),
          "broadcast");
    finish("broadcast");
  }

  void barrier() override {
    begin();
    start(ncclAllReduce(one_, one_, 1, ncclFloat, ncclSum, group_, stream_), "barrier");
    finish("barrier");
    drain();
  }

  std::unique_ptr<Exchange> start_all_to_all_v(
      ByteView send, std::span<const std::size_t> send_bytes, std::span<std::uint8_t> receive,
      std::span<const std::size_t> receive_bytes) override {
    begin();
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

  // The hosts' group forms again if it can; a communicator is then made anew. Where another rank is lost
  // while that is made, what comes back is as a group that lost it later: to be formed again.
  std::unique_ptr<Collective> reform() override {
    give_up("formed again without it");
    auto next = std::make_unique<NcclCollective>(control_->reform(), gpu_, wait_max_);
    try {
      next->form();
    } catch (const Error& error) {
      if (error.code() != ErrorCode::collective_failed) throw;
      next->give_up(error.what());
    }
    return next;
  }

  // Ranks that were shown one and the same GPU would wait for one another's kernels.
  void check_own_gpu() {
    cudaDeviceProp facts{};
    check(cudaGetDeviceProperties(&facts, gpu_), "ask for the GPU's name");
    const ByteView mine(reinterpret_cast<const std::uint8_t*>(&facts.uuid), sizeof facts.uuid);
    std::vector<std::uint8_t> all(mine.size() * ranks());
    control_->all_gather(mine, all);
    std::set<std::vector<std::uint8_t>> different;
    for (std::size_t r = 0; r < ranks(); ++r) {
      const auto one = all.begin() + static_cast<std::ptrdiff_t>(r * mine.size());
      different.emplace(one, one + static_cast<std::ptrdiff_t>(mine.size()));
    }
    if (different.size() < ranks()) {
      throw Error(ErrorCode::config_invalid,
                  "form an island of " + std::to_string(ranks()) + " ranks: they see " +
                      std::to_string(different.size()) +
                      " GPUs together, and each needs one of its own: start fewer ranks, show each "
                      "another GPU, or say --device cpu");
    }
  }

 private:
  static constexpr cudaStream_t kCallers = nullptr;  // the default stream
  static constexpr milliseconds kRollCallWait{5'000};

  struct Event {
    explicit Event(NcclCollective& group) {
      group.must(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "make an event");
    }
    ~Event() { cudaEventDestroy(event); }
    Event(const Event&) = delete;
    Event& operator=(const Event&) = delete;
    cudaEvent_t event = nullptr;
  };

  class Started final : public Exchange {
   public:
    explicit Started(NcclCollective& group) : group_(group), end_(group) {
      group.must(cudaEventRecord(end_.event, group.stream_), "record an event");
    }
    void wait() override {
      group_.check_usable();
      group_.must(cudaStreamWaitEvent(kCallers, end_.event, 0), "order streams");
    }

   private:
    NcclCollective& group_;
    const Event end_;
  };

  std::size_t ranks() const { return static_cast<std::size_t>(size()); }
  void check_usable() const {
    if (!broken_.empty()) throw Error(ErrorCode::collective_failed, broken_);
  }

  // The thread that calls may be autograd's. What is started next waits for the caller's stream.
  void begin() {
    check_usable();
    must(cudaSetDevice(gpu_), "use the GPU");
    must(cudaEventRecord(before_, kCallers), "record an event");
    must(cudaStreamWaitEvent(stream_, before_, 0), "order streams");
  }

  void must(cudaError_t code, const char* doing) {
    if (code != cudaSuccess) fail(doing, cudaGetErrorString(code));
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

  // Ends the kernels that wait for another rank.
  void give_up(const std::string& why) {
    if (broken_.empty()) broken_ = why;
    if (group_ != nullptr) ncclCommAbort(group_);
    group_ = nullptr;
  }

  // NCCL does not say who is missing; a roll call among the hosts does.
  [[noreturn]] void fail(const std::string& operation, const std::string& why) {
    give_up(operation + " by NCCL: " + why);
    control_->wait_at_most(kRollCallWait);
    try {
      control_->barrier();
      broken_ += " (every rank answers the roll call)";
    } catch (const Error& error) {
      broken_ += std::string("; roll call: ") + error.what();
    }
    control_->wait_at_most(wait_max_);
    throw Error(ErrorCode::collective_failed, broken_);
  }

  std::unique_ptr<Collective> control_;
  int gpu_;
  milliseconds wait_max_;
  ncclComm_t group_ = nullptr;
  cudaStream_t stream_ = nullptr;
  cudaEvent_t before_ = nullptr;
  float* one_ = nullptr;  // what a barrier adds up
  std::string broken_;
};

}  // namespace

bool nccl_is_built() { return true; }

std::unique_ptr<Collective> join_nccl(std::unique_ptr<Collective> control, int gpu,
                                      milliseconds wait_max) {
  auto group = std::make_unique<NcclCollective>(std::move(control), gpu, wait_max);
  group->check_own_gpu();
  group->form();
  return group;
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
