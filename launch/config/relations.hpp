#pragma once
// Rules between options, which no single option's range can say.

#include <optional>
#include <string>

#include "launch/config.hpp"

namespace yumoe {

struct BrokenRelation {
  std::string key;   // "training.warmup_steps": where a reader should look first
  std::string rule;  // the whole clause: "training.warmup_steps = 9 must not exceed ..."
};

std::optional<BrokenRelation> broken_relation(const RunConfig& config);

}  // namespace yumoe
