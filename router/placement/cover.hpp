#pragma once
// Gives experts to workers: a b-matching, by filling first and augmenting paths where that falls short.

#include <cstdint>
#include <vector>

#include "router/layout.hpp"

namespace yumoe::placement {

struct Seat {
  const ExpertSet* allowed = nullptr;  // sorted
  const ExpertSet* held = nullptr;     // since the last round; sorted
  std::uint32_t cap = 0;               // experts it can hold now
  std::uint32_t least = 1;             // experts it needs to train at all
  double weight = 0;                   // tokens it brings, to spread training over experts
};

struct CoverResult {
  std::vector<ExpertSet> sets;         // by seat, sorted
  std::vector<std::uint32_t> holders;  // by expert
  std::uint32_t lacking = 0;           // holders missing to what is wanted
};

// `possible`: by expert, how many workers could hold it, whether they have a seat here or not; so many
// holders, up to `replicas`, are wanted. Each seat gets up to `cap` experts. As many experts as possible get one holder, then as many as
// possible two, up to `replicas`; within that, training is spread evenly. A seat that held something
// takes on at most `moves_max` experts; exempt are an expert that nobody else takes, and a seat that
// would be left with fewer than `least`. Without exemptions the holders are the most there can be, level by
// level: a maximum flow.
CoverResult cover(const std::vector<std::uint32_t>& possible, std::uint32_t replicas,
                  std::uint32_t moves_max, const std::vector<Seat>& seats,
                  bool with_exemptions = true);

}  // namespace yumoe::placement
