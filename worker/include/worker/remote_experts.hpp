#pragma once
// Calls experts on other machines: what router/dispatch decides, done over the network.
//
// All member functions may be called from any thread; calls of several threads for one expert travel
// together. Nothing waits longer than dispatch allows: a call ends answered or given up.

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "cluster/transport.hpp"
#include "router/dispatch.hpp"
#include "router/expert_message.hpp"
#include "router/layout.hpp"

namespace yumoe {

struct ExpertPlace {
  CoordinatorAddress address;                                    // of a server of experts
  std::vector<std::pair<std::uint32_t, std::uint32_t>> experts;  // layer, expert
};

// "0-3,6" for a model with so many experts: sorted, each once. Throws Error{usage} saying what is wrong.
ExpertSet parse_experts(const std::string& text, std::uint32_t experts);
std::string text_of_experts(const ExpertSet& experts);

// "4-7@tcp://HOST:PORT?key=HEX", as a server of experts prints it: these experts of all layers.
ExpertPlace parse_expert_place(const std::string& text, std::uint32_t layers,
                               std::uint32_t experts);

// Rows for one expert and what becomes of them.
struct ExpertRows {
  std::uint32_t layer = 0, expert = 0;
  std::span<const float> x;   // [rows, width]
  std::span<const float> dy;  // (backward) likewise
  std::span<float> out;       // y, or dx of backward
  bool keep = false;          // (forward) backward will follow
  std::uint64_t forward = 0;  // (out of forward, in to backward) at which server and under which id
  std::size_t server = 0;
  bool answered = false;  // out
};

struct RemoteCounts {
  std::uint64_t requests = 0, repeated = 0, damaged = 0, given_up = 0;
  std::uint64_t busy = 0;  // answers of servers that had too much to do
};

class RemoteExperts {
 public:
  // `version`: digest of the base version the caller computes with. `keys`: who it is to servers; without, a
  // stranger.
  RemoteExperts(std::vector<ExpertPlace> places, const Digest& version, std::size_t width,
                const DispatchOptions& options,
                const CurveKeypair& keys = CurveKeypair::generate());
  ~RemoteExperts();

  // Fill `out` and `answered` of each; block until the last is decided. Throw Error{version_mismatch}
  // naming server and versions if an expert is left with servers of other versions only.
  void forward(std::span<ExpertRows> calls);
  void backward(std::span<ExpertRows> calls);

  // Computes with `version` from now on, once servers have it: asks every one, again until `wait` is
  // over, and goes on with those that agree. Returns the experts that at least one of them has; what
  // is wrong with the others is logged and kept in `remarks`. Not while calls are under way.
  ExpertSet use(const Digest& version, std::chrono::milliseconds wait);
  const std::vector<std::string>& remarks() const {
    return refused_;
  }  // [places]: "" if all is well

  RemoteCounts counts() const;

 private:
  struct Open {
    ExpertRows* rows = nullptr;
    bool backward = false, done = false;
    bool sends_x = false;  // backward whose server did not keep the state
  };

  void run(std::span<ExpertRows> calls, bool backward);
  void run_each(std::span<ExpertRows> calls, bool backward);
  std::chrono::milliseconds wait_for_next() const;
  void step(std::unique_lock<std::mutex>& lock);
  void send_due(std::unique_lock<std::mutex>& lock);
  void receive_some(std::unique_lock<std::mutex>& lock);
  void take(std::size_t server, const std::vector<Bytes>& frames);
  void refuse(std::size_t server, const ExpertAnswer& answer);
  std::vector<Bytes> frames_of(const Dispatcher::Send& send);
  Dispatcher::Time now() const;
  void set_replicas();
  void ask_version(std::size_t server);
  bool hear_version(std::size_t server, std::chrono::milliseconds wait);

  const std::vector<ExpertPlace> places_;
  Digest version_;
  const std::size_t width_;
  std::vector<std::unique_ptr<ClientTransport>> transports_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool has_leader_ = false;  // one of the waiting callers talks for all
  Dispatcher dispatcher_;
  std::map<Dispatcher::CallId, Open> open_;
  std::map<Dispatcher::RequestId, Dispatcher::Send> sent_;
  std::vector<std::string> refused_;      // [servers]: why, or empty
  std::vector<bool> of_other_version_;    // [servers]: that is why
  std::vector<std::vector<bool>> heard_;  // [servers][experts]: of this version
  RemoteCounts counts_;
  int bell_ = -1;  // tells the leader of calls that others have added
};

}  // namespace yumoe
