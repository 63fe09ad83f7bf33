#pragma once
// Servers of experts in threads of this process, over real sockets, with a network that can be bad.

#include <ATen/Parallel.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "cluster/random.hpp"
#include "cluster/transport.hpp"
#include "router/expert_message.hpp"
#include "worker/expert_server.hpp"
#include "worker/remote_experts.hpp"

namespace yumoe {

// Shares of calls whose request or answer is lost, whose answer is damaged or comes a second late.
struct Trouble {
  double lost = 0, damaged = 0, late = 0;
  int lose_first = 0;  // answers after the first `spare`
  int spare = 0;
  double requests_lost = 0;
};

class Troubled final : public ServerTransport {
 public:
  Troubled(std::unique_ptr<ServerTransport> real, const Trouble& trouble, std::uint64_t seed)
      : real_(std::move(real)), trouble_(trouble), random_(seed) {}
  std::optional<Received> receive(std::chrono::milliseconds wait_max) override {
    for (auto it = late_.begin(); it != late_.end() && it->first <= Clock::now();) {
      real_->send(it->second.first, std::move(it->second.second));
      it = late_.erase(it);
    }
    auto received = real_->receive(std::min(wait_max, std::chrono::milliseconds(10)));
    if (received && random_.uniform() < trouble_.requests_lost) return std::nullopt;
    return received;
  }
  bool send(const Peer& peer, std::vector<Bytes> frames) override {
    const double luck = random_.uniform();
    if (trouble_.spare > 0) {
      --trouble_.spare;
    } else if (trouble_.lose_first > 0) {
      --trouble_.lose_first;
      return true;
    }
    if (luck < trouble_.lost) return true;
    if (luck < trouble_.lost + trouble_.damaged) frames[1][frames[1].size() / 2] ^= 1;
    if (luck > 1 - trouble_.late) {
      late_.emplace(Clock::now() + std::chrono::seconds(1), std::pair(peer, std::move(frames)));
      return true;
    }
    return real_->send(peer, std::move(frames));
  }
  CoordinatorAddress address() const override { return real_->address(); }
  TransportCounts counts() const override { return real_->counts(); }

 private:
  using Clock = std::chrono::steady_clock;
  std::unique_ptr<ServerTransport> real_;
  Trouble trouble_;
  Random random_;
  std::multimap<Clock::time_point, std::pair<Peer, std::vector<Bytes>>> late_;
};

// Computes what `make` makes, in its own thread, as the base version of the text `version`.
class ExpertServerThread {
 public:
  using Make = std::function<std::unique_ptr<ExpertCompute>()>;
  ExpertServerThread(std::string version, const Trouble& trouble, Make make,
                     std::uint64_t seed = 11, const ExpertServer::Options& limits = {}) {
    TransportOptions options;
    options.port = 0;
    options.message_bytes_max = static_cast<std::int64_t>(kExpertPayloadBytesMax) + 4'096;
    transport_ =
        std::make_unique<Troubled>(listen_zeromq(options, CurveKeypair::generate()), trouble, seed);
    address_ = transport_->address();
    thread_ = std::jthread([this, limits, version = std::move(version), make = std::move(make)] {
      at::set_num_threads(1);
      const auto compute = make();
      ExpertServer server(*transport_, digest_of(as_bytes(std::string_view(version))), *compute,
                          limits);
      server.serve(stop_);
    });
  }
  ~ExpertServerThread() { stop(); }
  void stop() {
    stop_ = true;
    if (thread_.joinable()) thread_.join();
    transport_.reset();
  }
  const CoordinatorAddress& address() const { return address_; }

 private:
  std::unique_ptr<ServerTransport> transport_;
  CoordinatorAddress address_;
  std::atomic<bool> stop_ = false;
  std::jthread thread_;
};

}  // namespace yumoe
