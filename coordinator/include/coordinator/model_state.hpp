#pragma once
// The numbers behind the core's decisions: the base version and what the coordinator carries from
// round to round to make the next one. Deterministic: equal inputs give equal bytes, so recovery and
// replay do every aggregation again and compare.

#include <functional>
#include <memory>
#include <optional>

#include "coordinator/aggregate.hpp"
#include "coordinator/checkpoint.hpp"
#include "coordinator/run.hpp"
#include "coordinator/setup.hpp"
#include "router/base_version.hpp"

namespace yumoe {

// Bytes of a contribution by digest; nothing if they are not kept.
using FindBlob = std::function<std::optional<Bytes>(const Digest&)>;

class ModelState {
 public:
  // Version 0. `layout` and `setup` must outlive it.
  ModelState(const Layout& layout, const RunSetup& setup);

  // As a checkpoint left it. Throws Error{checkpoint_corrupt} if it is of another model.
  ModelState(const Layout& layout, const RunSetup& setup, const Checkpoint& checkpoint);

  const BaseVersion& base() const noexcept { return base_; }
  std::span<const float> residual() const;

  struct Result {
    Bytes aggregate;  // encode_aggregate()
    Digest version;   // of the new base version
    std::uint64_t up_bytes = 0;
  };
  // Adds up the contributions of a round and takes the outer step.
  // Throws Error{journal_corrupt} if a contribution's bytes are gone or no longer decode.
  Result aggregate(const AggregationInput& input, const FindBlob& find_blob);

 private:
  std::vector<float> next_gate_bias(const std::vector<Contribution>& contributions) const;

  const Layout* layout_;
  const RunSetup* setup_;
  BaseVersion base_;
  Aggregator aggregator_;
};

}  // namespace yumoe
