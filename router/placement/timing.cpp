#include "placement/timing.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace yumoe::placement {
namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();

std::uint64_t steps_of_all(const std::vector<Timing>& workers, double commit_s) {
  std::uint64_t steps = 0;
  for (const Timing& worker : workers) steps += steps_by(worker, commit_s);
  return steps;
}

}  // namespace

std::uint64_t steps_by(const Timing& t, double commit_s) {
  if (commit_s < earliest(t)) return 0;
  // A little more than the floor: a time that was computed from a number of steps allows them.
  const double steps = std::floor((commit_s - t.start_s) / t.step_s * (1 + 1e-12) + 1e-9);
  return static_cast<std::uint64_t>(
      std::clamp(steps, static_cast<double>(t.steps_min), static_cast<double>(t.steps_max)));
}

CommitTime commit_time(const std::vector<Timing>& workers, std::uint64_t steps) {
  if (steps == 0) return {};
  std::uint64_t most = 0;
  double high = 0, low = 0;
  for (const Timing& worker : workers) {
    most += worker.steps_max;
    high = std::max(high, worker.start_s + worker.steps_max * worker.step_s);
  }
  if (most < steps) return {kNever, kNever};
  for (int i = 0; i < 100 && high - low > 1e-9 * high; ++i) {
    const double middle = low + (high - low) / 2;
    (steps_of_all(workers, middle) >= steps ? high : low) = middle;
  }
  return {low, high};
}

}  // namespace yumoe::placement
