#pragma once
// Which experts each worker holds and how many inner steps it takes, from what was measured of it.
// Pure and deterministic: equal inputs give equal plans.

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "cluster/ids.hpp"
#include "cluster/option.hpp"
#include "router/layout.hpp"

namespace yumoe {

// What a worker measured of its machine.
struct WorkerProfile {
  double tokens_per_s = 0;         // in inner steps with all the experts it holds; 0: not measured yet
  std::uint64_t memory_mib = 0;    // for weights, optimizer and activations; 0: no limit known
  double up_bytes_per_s = 0;
  double down_bytes_per_s = 0;
  double round_trip_ms = 0;
  std::uint32_t experts_max = 0;   // 0: no limit of its own
  std::string tier = "open";       // "trusted", "known" or "open"
  std::string region;
  std::string device = "cpu";
  friend bool operator==(const WorkerProfile&, const WorkerProfile&) = default;
};

struct PlacementOptions {
  std::int64_t replicas_min = 2;
  std::int64_t round_s = 20;
  std::int64_t inner_steps_min = 1;
  std::int64_t inner_steps_max = 500;
  std::int64_t inner_steps_first = 10;
  std::int64_t moves_max = 2;

  template <typename Visitor>
  void visit(Visitor& option) {
    option("replicas_min", replicas_min, {.unit = "workers", .min = 1, .max = 1'000,
           .help = "workers that hold each expert; not enforced yet"});
    option("round_s", round_s, {.unit = "s", .min = 1, .max = 86'400,
           .help = "how long the inner steps of a round should take"});
    option("inner_steps_min", inner_steps_min, {.unit = "steps", .min = 1, .max = 1e6,
           .help = "least work of a worker in a round"});
    option("inner_steps_max", inner_steps_max, {.unit = "steps", .min = 1, .max = 1e6,
           .help = "most work of a worker in a round"});
    option("inner_steps_first", inner_steps_first, {.unit = "steps", .min = 1, .max = 1e6,
           .help = "work of a worker whose speed is not known yet"});
    option("moves_max", moves_max, {.unit = "experts", .min = 0, .max = 4'096,
           .help = "experts a worker may exchange from one round to the next; not enforced yet"});
  }
};

struct PlacementWorker {
  Uid uid;
  WorkerProfile profile;
  ExpertSet held;                  // since the last round; empty: new
};

struct Assignment {
  Uid uid;
  ExpertSet experts;               // sorted, at least experts_per_token
  std::uint32_t inner_steps = 0;
  double predicted_s = 0;          // of the inner steps; 0 if the speed is not known
  std::string why;                 // one line for `yumoe placement show`
};

// Plans one round. `workers` by uid ascending; answers in the same order. A worker that cannot hold
// experts_per_token experts in its memory gets inner_steps = 0 and the reason in `why`.
// Cost: O(workers * experts).
std::vector<Assignment> place(const Layout& layout, std::int64_t batch_sequences,
                              std::span<const PlacementWorker> workers,
                              const PlacementOptions& options);

}  // namespace yumoe
