#pragma once
// The sum of one tensor under a rule that looks at each coordinate's values together.

#include <cstdint>
#include <span>
#include <vector>

#include "coordinator/aggregate.hpp"

namespace yumoe {

// A contribution's part in one tensor.
struct TensorPart {
  std::size_t contribution = 0;  // index among the contributions
  bool sent = false;
  std::size_t position = 0;  // in update->tensors(), if sent
  double share = 0;
  double clip = 1;
};

// dense[i] += the rule's value, for each coordinate that somebody sent and that has support.
// `parts` are all holders with a share above zero, in order of contribution.
void add_by_coordinate(const AggregateOptions& options,
                       std::span<const WeightedUpdate> contributions,
                       std::span<const TensorPart> parts, std::span<float> dense);

}  // namespace yumoe
