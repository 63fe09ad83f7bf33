#pragma once
// The times of a round as router/placement.hpp describes it, and the steps that make all finish together.

#include <cstdint>
#include <vector>

namespace yumoe::placement {

// One worker whose speed is known.
struct Timing {
  double start_s = 0;   // d: before its first step
  double step_s = 0;    // c: a step
  double upload_s = 0;  // u of the fewest experts it may hold
  std::uint32_t steps_min = 1;
  std::uint32_t steps_max = 1;
};

// Steps it finishes by `commit_s`; 0 if that is less than steps_min.
std::uint64_t steps_by(const Timing& timing, double commit_s);

// When the first `steps_min` steps are done.
inline double earliest(const Timing& t) { return t.start_s + t.steps_min * t.step_s; }

// The least time in which these workers do `steps` together, as an interval of relative width 1e-9:
// `at_least` is proved too little (or 0), `at_most` is enough. Infinite if they can not.
struct CommitTime {
  double at_least = 0, at_most = 0;
};
CommitTime commit_time(const std::vector<Timing>& workers, std::uint64_t steps);

}  // namespace yumoe::placement
