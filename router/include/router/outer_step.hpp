#pragma once
// The outer step: how an agreed aggregate changes the base version. Coordinator, workers, validators
// and replay all call this one function and arrive at the same bits.

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "cluster/bytes.hpp"
#include "cluster/ids.hpp"
#include "cluster/option.hpp"
#include "router/codec.hpp"
#include "router/layout.hpp"

namespace yumoe {

struct OuterOptions {
  std::string step = "sparseloco";
  double learning_rate = 1.0;
  double learning_rate_final = 0.4;
  std::int64_t total_rounds = 100;
  double momentum = 0.9;

  template <typename Visitor>
  void visit(Visitor& option) {
    option("step", step,
           {.choices = "sparseloco|diloco",
            .help = "plain step on sparse updates, or Nesterov momentum"});
    option("learning_rate", learning_rate, {.min = 0, .max = 10, .help = "of the first round"});
    option("learning_rate_final", learning_rate_final,
           {.min = 0, .max = 10, .help = "of the last round; linear between"});
    option("total_rounds", total_rounds,
           {.unit = "rounds", .min = 1, .max = 1e9, .help = "where the learning rate ends"});
    option("momentum", momentum, {.min = 0, .max = 1, .help = "diloco's"});
  }
};

// What the coordinator publishes for a round: updates, each with a factor a tensor. The aggregate's
// value is sum over sources of factor * update. One source with factors 1: a re-compressed mean. Several:
// the contributions themselves, forwarded.
struct AggregateSource {
  Uid uid;                     // whose contribution; 65535 for the coordinator's own re-compression
  std::vector<float> factors;  // one an entry of update.tensors(), finite
  Bytes update;                // router/codec.hpp
};
struct Aggregate {
  RoundId round;                         // makes base version `round` out of `round` - 1
  std::vector<AggregateSource> sources;  // by uid ascending; a uid may come twice (a late one too)
  std::vector<float> gate_bias;          // of the new version, [layers * experts], finite; or empty
};

// Total decoder: any bytes give an Aggregate whose updates parse under `layout`, or
// Error{update_malformed}.
Bytes encode_aggregate(const Aggregate& aggregate);
Aggregate decode_aggregate(const Layout& layout, ByteView bytes);

// State that the outer step carries from round to round: momentum for diloco, nothing else.
struct OuterState {
  std::vector<float> momentum;  // [layout.parameters()] or empty
};

// Linear from learning_rate at round 1 to learning_rate_final at total_rounds, then constant.
double outer_rate(const OuterOptions& options, RoundId round);

// Changes `base` [layout.parameters()], elementwise fp32 in a fixed order (sources by uid, then index),
// without fused multiply-add, so the bits are equal everywhere. With rate = float(outer_rate):
//   sparseloco  base += -(rate * factor) * value, for each source and each value it holds
//   diloco      g = sum of factor * value;  m = momentum * m + g;  base -= rate * (g + momentum * m),
//               for every parameter, also those no source speaks of
// Throws Error{update_malformed} before anything is changed if a source does not parse.
// Source: SparseLoCo (Sarfi et al. 2025); DiLoCo (Douillard et al. 2023), PyTorch's form of Nesterov.
// Cost: sparseloco reads and writes only what was sent; diloco one pass over base and momentum.
void apply_aggregate(const Layout& layout, const Aggregate& aggregate, const OuterOptions& options,
                     OuterState& state, std::span<float> base);

}  // namespace yumoe
