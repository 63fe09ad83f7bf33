#pragma once
// A training shard: the unit of training work, complete enough that anybody who holds the base
// version and the data can do it again and get the same bits on the same kind of device.

#include <cstdint>

#include "cluster/ids.hpp"
#include "cluster/option.hpp"
#include "router/layout.hpp"

namespace yumoe {

// How a worker trains between two synchronisations. Part of the shared configuration.
struct InnerOptions {
  std::int64_t batch_sequences = 8;
  double learning_rate = 2e-3;
  double learning_rate_final = 2e-4;
  std::int64_t warmup_steps = 50;
  std::int64_t rewarm_steps = 5;
  std::int64_t moments_rounds = 1;
  std::int64_t total_steps = 1'000;
  double beta1 = 0.9;
  double beta2 = 0.95;
  double epsilon = 1e-8;
  double weight_decay = 0.1;
  double gradient_norm_max = 1.0;
  double balance_rate = 1e-3;
  double balance_loss = 0;
  double router_z_loss = 0;

  template <typename Visitor>
  void visit(Visitor& option) {
    option("batch_sequences", batch_sequences,
           {.unit = "sequences", .min = 1, .max = 65'536, .help = "sequences of one inner step"});
    option("learning_rate", learning_rate, {.min = 0, .max = 10, .help = "AdamW's, after warm-up"});
    option("learning_rate_final", learning_rate_final,
           {.min = 0, .max = 10, .help = "AdamW's at the end of the cosine"});
    option("warmup_steps", warmup_steps,
           {.unit = "steps",
            .min = 0,
            .max = 1e9,
            .help = "linear warm-up, in inner steps of the run"});
    option("rewarm_steps", rewarm_steps,
           {.unit = "steps",
            .min = 0,
            .max = 1e6,
            .help = "linear warm-up of a shard whose moments start fresh"});
    option(
        "moments_rounds", moments_rounds,
        {.unit = "rounds",
         .min = 1,
         .max = 10'000,
         .help = "rounds in a row through which a worker keeps AdamW's moments, 1: fresh in each; "
                 "validators audit shards with fresh ones only, replay --recompute all"});
    option("total_steps", total_steps,
           {.unit = "steps",
            .min = 1,
            .max = 1e9,
            .help = "where the cosine ends, in inner steps of the run"});
    option("beta1", beta1, {.min = 0, .max = 1, .help = "AdamW's"});
    option("beta2", beta2, {.min = 0, .max = 1, .help = "AdamW's"});
    option("epsilon", epsilon, {.min = 0, .max = 1, .help = "AdamW's"});
    option("weight_decay", weight_decay, {.min = 0, .max = 10, .help = "decoupled, matrices only"});
    option("gradient_norm_max", gradient_norm_max,
           {.min = 0, .max = 1e9, .help = "clipping by global norm; 0 switches it off"});
    option("balance_rate", balance_rate,
           {.min = 0, .max = 1, .help = "step of the gate's bias towards even load"});
    option("balance_loss", balance_loss,
           {.min = 0, .max = 10, .help = "weight of the classic auxiliary loss"});
    option("router_z_loss", router_z_loss,
           {.min = 0, .max = 10, .help = "weight of the router z-loss"});
  }
};

// Windows [first, first + count) of the run's endless seeded order over the training windows: pass p
// covers windows p * n to (p + 1) * n - 1 of n, each pass a permutation of its own
// (router/token_set.hpp). No two shards of a run overlap.
struct DataRange {
  std::uint64_t first = 0;
  std::uint64_t count = 0;
  friend bool operator==(const DataRange&, const DataRange&) = default;
};

struct TrainingShard {
  RoundId round;  // the round this work belongs to; base version is round - 1
  Netuid netuid{1};
  Uid uid;                 // who does it
  std::uint64_t seed = 0;  // of everything random in it; also seeds the data order with the run
  DataRange data;          // count = inner_steps * batch_sequences
  std::uint32_t inner_steps = 0;
  std::uint64_t steps_before =
      0;              // inner steps of the run before this round: where the schedule stands
  ExpertSet experts;  // the worker gates over these; sorted
  friend bool operator==(const TrainingShard&, const TrainingShard&) = default;
};

}  // namespace yumoe
