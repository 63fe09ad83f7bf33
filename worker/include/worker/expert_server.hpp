#pragma once
// Computes experts for whoever may connect: forward and backward of batches of rows, one after the other.
// A call for another version than the server's is refused and told both; what is malformed is answered as
// such and changes nothing.
//
// Nobody is believed to be modest: what waits and what is kept is bounded for each caller (a CURVE key) and
// for all. A call beyond that is answered "busy", at once; beyond everybody's bound it is the newest call of
// whoever has most, so that a caller of whom nothing waits is always taken. Kept rows beyond it are forgotten,
// the oldest of whoever has most. Callers take turns, so one that floods waits for itself.

#include <atomic>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "cluster/bytes.hpp"
#include "cluster/transport.hpp"
#include "worker/recent.hpp"

namespace yumoe {

// What forward leaves for backward.
struct KeptRows {
  virtual ~KeptRows() = default;
  std::size_t bytes = 0;
};

class ExpertCompute {
 public:
  virtual ~ExpertCompute() = default;
  virtual bool holds(std::uint32_t layer, std::uint32_t expert) const = 0;
  virtual std::size_t width() const = 0;
  // x holds fp32 rows [rows, width]; fills y likewise. Returns what backward needs if `keep`.
  virtual std::unique_ptr<KeptRows> forward(std::uint32_t layer, std::uint32_t expert, Bytes x,
                                            std::span<float> y, bool keep) = 0;
  // dx of dy, by what forward kept. May train the expert.
  virtual void backward(std::uint32_t layer, std::uint32_t expert, const KeptRows& kept,
                        std::span<const float> dy, std::span<float> dx) = 0;
};

class ExpertServer {
 public:
  struct Options {
    // Calls of one caller under way, as it is told; fewer if its large ones do not fit into what may wait.
    std::uint32_t credits = 4;
    // Calls that wait, of one caller and of all. One call is always taken.
    std::size_t caller_calls_max = 256, calls_max = 4'096;
    std::size_t caller_waiting_bytes_max = std::size_t{128} << 20;
    std::size_t waiting_bytes_max = std::size_t{256} << 20;
    // Of forward for backward, and backward's answers to say them again.
    std::size_t caller_kept_bytes_max = std::size_t{512} << 20;
    std::size_t kept_bytes_max = std::size_t{1} << 30;
    std::size_t caller_answers_bytes_max = std::size_t{16} << 20;
    std::size_t answers_bytes_max = std::size_t{64} << 20;
  };
  // `compute` must outlive it.
  ExpertServer(ServerTransport& transport, const Digest& version, ExpertCompute& compute,
               const Options& options);
  // Serves nothing until the first add().
  ExpertServer(ServerTransport& transport, const Options& options);

  // Serves this version too, and of those added before only the last: callers of a round that is ending
  // are answered while others go on. From any thread.
  void add(const Digest& version, std::shared_ptr<ExpertCompute> compute);

  // Leaves room for the next version: of those served only the newest stays. From any thread.
  void forget_old();

  // Until `stop`, looked at ten times a second.
  void serve(const std::atomic<bool>& stop);

  std::uint64_t refused() const { return refused_; }  // calls answered "busy"

 private:
  using Compute = std::shared_ptr<ExpertCompute>;  // of the version that a call is for
  struct Kept {
    std::unique_ptr<KeptRows> state;
    Digest version;  // that made it
    std::uint32_t layer = 0, expert = 0, rows = 0;
  };
  struct Waiting {  // of one caller
    std::deque<Received> calls;
    std::size_t bytes = 0;
    std::uint64_t since = 0;  // which caller's that began to wait
  };

  void look_at_arrivals();
  void admit(Received received);
  bool make_room(const CurveKey& caller, std::size_t bytes);
  void refuse(const Received& received);
  Received take_of(std::map<CurveKey, Waiting>::iterator own, bool oldest);
  std::optional<Received> take_next();
  void answer(Received received);
  void answer_forward(const Received& from, const struct ExpertCall& call, const Compute& compute,
                      Bytes x);
  void answer_backward(const Received& from, const struct ExpertCall& call, const Compute& compute,
                       const Bytes& payload);
  std::uint32_t credits_of(const CurveKey& caller, const struct ExpertCall& call);
  void say(const Received& to, const struct ExpertCall& call, int status, Bytes payload);
  Compute compute_of(const Digest& version);

  ServerTransport& transport_;
  const Options options_;
  std::mutex mutex_;                                                         // over `versions_`
  std::vector<std::pair<Digest, std::shared_ptr<ExpertCompute>>> versions_;  // the newest last
  std::map<CurveKey, Waiting> waiting_;
  std::size_t waiting_bytes_ = 0, waiting_calls_ = 0;
  std::uint64_t callers_come_ = 0, unsent_ = 0;
  std::map<CurveKey, std::size_t>
      largest_;      // bytes of a caller's largest call, less with each after it
  CurveKey turn_{};  // whose call was taken last
  std::atomic<std::uint64_t> refused_ = 0;
  std::atomic<bool> versions_changed_ = false;
  // By the id of the forward call.
  Recent<Kept> kept_;
  Recent<Bytes> answers_;  // so that a backward said twice trains once
};

}  // namespace yumoe
