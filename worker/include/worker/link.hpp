#pragma once
// A participant's side of the conversation with its coordinator. One thread of its own talks; the
// caller computes. Whatever gets lost is said again, a restarted coordinator is joined again, and every
// wait has a deadline.

#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cluster/bytes.hpp"
#include "cluster/identity.hpp"
#include "cluster/transport.hpp"
#include "router/protocol.hpp"

namespace yumoe {

// Thrown out of a wait because the program was told to stop. No Error: nothing failed, and whoever mends
// errors must not mend this.
struct Stopped {};

// All member functions may be called from any thread.
class Link {
 public:
  // Once `stop` is set, welcome(), fetch() and measure_way() throw Stopped. It must outlive this.
  Link(const CoordinatorAddress& address, Keypair keys, Join join, const TransportOptions& options,
       const std::atomic<bool>& stop);
  ~Link();  // says that it leaves, and does not wait for an answer

  // What the run is. Throws Error{peer_unreachable} after `wait_max`, naming the address, and
  // Error{peer_refused} with the coordinator's reason if it refuses for good.
  Welcome welcome(std::chrono::milliseconds wait_max);

  // The newest directive, as soon as its sequence is above `after`; nothing after `wait_max`.
  // Throws Error{peer_refused} once the coordinator refused for good, and Error{peer_unreachable} when
  // it was silent for `silence_max` (see below).
  std::optional<Directive> directive(std::uint64_t after, std::chrono::milliseconds wait_max);

  // The newest directive, if there is one: to look at while computing.
  std::optional<Directive> latest() const;

  // Bytes by digest, in pieces, resumed where they broke off, checked at the end.
  // Throws Error{peer_unreachable} if no piece came for `wait_max`, Error{message_too_large} if it is
  // more than `bytes_max`, Error{file_missing} if the coordinator does not have it,
  // Error{digest_mismatch}.
  Bytes fetch(const Digest& digest, std::size_t bytes_max, std::chrono::milliseconds wait_max);

  // Commits to a contribution and reveals it when that is wanted; keeps at it until the coordinator has
  // it or does not want it any more. A later offer replaces an earlier one of another round only when
  // that is settled; both are kept until then.
  void offer(RoundId round, Bytes contribution);

  // The same otherwise than an honest participant would, for tests of a run's defences.
  struct Manner {
    std::optional<Digest> commitment;  // instead of the contribution's own
    bool withheld = false;             // never reveals
    std::size_t piece_bytes = 0;       // reveals so little at a time; 0: as usual
  };
  void offer(RoundId round, Bytes contribution, const Manner& manner);
  // The newest message that was said, as frames, and any frames said over this connection: a replay.
  std::vector<Bytes> last_said() const;
  void say_again(std::vector<Bytes> frames);

  // Sends measurements until they are received or not wanted any more.
  void send_scores(const Scores& scores);

  // Says another profile, now and whenever it joins again.
  void tell(const WorkerProfile& profile);

  // What it says when it leaves, instead of "stopped"; empty: nothing, since it will be back.
  void leave_because(std::string reason);

  // The way to the coordinator: the shortest of a few round trips, and the best rate of a few pieces each
  // way. What could not be measured within `wait_max` stays 0.
  struct Way {
    double round_trip_ms = 0;
    double up_bytes_per_s = 0;
    double down_bytes_per_s = 0;
  };
  Way measure_way(std::chrono::milliseconds wait_max);

  // What the next heartbeats say.
  void report(const Heartbeat& beat);

  // Waits until nothing offered is unsettled, or `wait_max` is over. True if settled.
  bool settle(std::chrono::milliseconds wait_max);

  TransportCounts counts() const;

  // A coordinator that was silent for so long is given up (default: 10 minutes).
  void give_up_after(std::chrono::milliseconds silence_max);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace yumoe
