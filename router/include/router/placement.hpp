#pragma once
// Which experts each worker holds and how many inner steps it takes, from what was measured of it.
// Pure and deterministic: equal inputs give equal plans; ties go to the lower uid and expert.
//
// A round as it is planned: every worker applies the aggregate (d seconds), does its inner steps
// (c seconds each) and commits; when all have committed they upload (u seconds, more with more
// experts). So a round takes max(d + steps * c) + max(u): the makespan. A round's work is the inner
// steps this fleet does in round_s; the plan does them in the least makespan it finds, in which each
// expert has its holders, and says beside it what no plan can beat.

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
  double tokens_per_s = 0;  // in inner steps with all the experts it holds; 0: not measured yet
  std::uint64_t memory_mib = 0;  // for parameters, optimizer and activations; 0: no limit known
  double up_bytes_per_s = 0;     // 0: not measured yet; likewise the next two
  double down_bytes_per_s = 0;
  double round_trip_ms = 0;
  std::uint32_t experts_max = 0;  // 0: no limit of its own
  std::string tier = "open";      // "trusted", "known" or "open"
  std::string region;
  std::string device = "cpu";
  std::uint32_t inner_steps_max = 0;  // 0: no limit of its own
  bool measuring = false;  // says what it measured in a moment: not planned with until then
  std::string remark;      // what it found wrong with what it said before; for people
  friend bool operator==(const WorkerProfile&, const WorkerProfile&) = default;
};

struct PlacementOptions {
  std::int64_t replicas_min = 2;
  std::int64_t round_s = 20;
  std::int64_t inner_steps_min = 1;
  std::int64_t inner_steps_max = 500;
  std::int64_t inner_steps_first = 10;
  std::int64_t moves_max = 2;
  std::vector<std::string> tiers;
  std::vector<std::string> regions;
  std::vector<std::string> hotkeys_trusted;
  std::vector<std::string> hotkeys_known;

  template <typename Visitor>
  void visit(Visitor& option) {
    option("replicas_min", replicas_min,
           {.unit = "workers",
            .min = 1,
            .max = 1'000,
            .help = "workers that hold each expert, as far as there are so many that may and can"});
    option("round_s", round_s,
           {.unit = "s",
            .min = 1,
            .max = 86'400,
            .help = "how long the inner steps of a round should take"});
    option("inner_steps_min", inner_steps_min,
           {.unit = "steps",
            .min = 1,
            .max = 1e6,
            .help = "least work of a worker in a round; who is too slow for it is not waited for"});
    option("inner_steps_max", inner_steps_max,
           {.unit = "steps", .min = 1, .max = 1e6, .help = "most work of a worker in a round"});
    option("inner_steps_first", inner_steps_first,
           {.unit = "steps",
            .min = 1,
            .max = 1e6,
            .help = "work of a worker whose speed is not known yet"});
    option(
        "moves_max", moves_max,
        {.unit = "experts",
         .min = 0,
         .max = 4'096,
         .help = "experts a worker may take on from one round to the next; an expert that nobody "
                 "holds any more is placed in spite of it"});
    option("tiers", tiers,
           {.help = "least tier of an expert's holders: \"0-3:trusted\", \"4:known\"; "
                    "others may be held by anybody"});
    option("regions", regions,
           {.help = "regions an expert may be held in: \"5-7:eu\", \"2:us|eu\""});
    option("hotkeys_trusted", hotkeys_trusted,
           {.help = "SS58 addresses that may call themselves "
                    "trusted; others are at most known or open"});
    option("hotkeys_known", hotkeys_known,
           {.help = "SS58 addresses that may call themselves known"});
  }
};

// Which tier and region each expert asks for.
class ExpertRules {
 public:
  // Throws Error{config_invalid} naming the rule and what is wrong with it.
  ExpertRules(const PlacementOptions& options, std::uint32_t experts);
  // The experts that a worker of this tier and region may hold.
  ExpertSet allowed(const std::string& tier, const std::string& region) const;
  bool empty() const { return tiers_.empty() && regions_.empty(); }

 private:
  std::uint32_t experts_;
  std::vector<std::uint8_t> tiers_;                // least tier by expert; empty: no rule
  std::vector<std::vector<std::string>> regions_;  // by expert; empty: no rule
};

// 0 "open", 1 "known", 2 "trusted". Unknown names are "open".
std::uint8_t tier_rank(const std::string& tier);

// Bytes of memory a worker's process needs beside what it takes to start, with `experts` experts:
// the base version twice, residual and update of the whole model; parameters, gradient and two moments
// of its share; activations of a step. An upper estimate, held against real processes by tests.
std::uint64_t training_bytes(const Layout& layout, std::int64_t batch_sequences,
                             std::uint32_t experts);

// Most experts whose training_bytes fit into `memory_mib`; all of them if that is 0.
std::uint32_t experts_that_fit(const Layout& layout, std::int64_t batch_sequences,
                               std::uint64_t memory_mib);

// What an update weighs on the wire.
struct UpdateSize {
  double trunk_bytes = 0;   // of the trunk in one contribution
  double expert_bytes = 0;  // of one expert
  double down_bytes = 0;    // of the aggregate everybody fetches
};

struct PlacementWorker {
  Uid uid;
  WorkerProfile profile;
  ExpertSet held;                 // since the last round; empty: new
  std::uint32_t experts_cap = 0;  // by what happened to it; 0: none
};

// What kept a worker from more experts, or from more steps.
enum class Limit : std::uint8_t {
  none,  // all experts there are for it; the steps that make all finish together
  memory,
  own_maximum,
  uplink,
  moves,
  lost_before,
  rules,
  run_maximum,
  run_minimum,
  not_measured,
  too_few_experts
};

struct Assignment {
  Uid uid;
  ExpertSet experts;  // sorted, at least experts_per_token; empty: no shard
  std::uint32_t inner_steps = 0;
  double predicted_s = 0;  // from the round's start to its commitment; 0: speed not known
  double upload_s = 0;
  bool awaited = true;      // false: too slow for the round; comes late and counts less
  std::uint16_t moved = 0;  // experts it takes on
  Limit experts_by = Limit::none;
  Limit steps_by = Limit::none;
  std::string why;  // if it gets no shard
};

struct Plan {
  std::vector<Assignment> assignments;  // as the workers
  double makespan_s = 0;                // of those awaited whose speed is known
  double lower_bound_s = 0;             // no plan for these workers has a smaller makespan
  std::uint32_t replicas = 0;           // least holders of an expert among those awaited
  std::vector<std::uint32_t> short_of;  // experts with fewer than replicas_min holders
};

// Plans one round. `workers` by uid ascending. A worker that can hold fewer than experts_per_token
// experts gets no shard and the reason in `why`.
// replicas_min holds for each expert as far as any placement can (maximum matching).
// Cost: 1,000 workers and 64 experts some 10 ms; n log n in workers, n * experts in memory bits.
Plan place(const Layout& layout, std::int64_t batch_sequences, const UpdateSize& size,
           std::span<const PlacementWorker> workers, const PlacementOptions& options);

// One line for people: what bound a worker's experts and steps.
std::string explain(const Assignment& assignment, const WorkerProfile& profile,
                    const PlacementOptions& options, std::uint32_t experts_of_model);

}  // namespace yumoe
