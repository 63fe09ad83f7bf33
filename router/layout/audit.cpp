#include "router/audit.hpp"

#include <algorithm>
#include <bit>
#include <cmath>

namespace yumoe {

// All losses are at hand, so nothing is gained by halving.
std::uint32_t first_difference(std::span<const std::uint32_t> claimed,
                               std::span<const float> losses, double tolerance) {
  const auto differs = [&](std::size_t step) {
    if (step >= claimed.size()) return true;
    const float said = std::bit_cast<float>(claimed[step]);
    const double most = tolerance * std::min(1.0, 0.05 * static_cast<double>(step + 1));
    return !(std::abs(said - losses[step]) <= most * std::abs(losses[step]));
  };
  std::size_t first = 0;
  while (first < losses.size() && !differs(first)) ++first;
  return first == losses.size() && claimed.size() == losses.size()
             ? 0
             : static_cast<std::uint32_t>(first + 1);
}

}  // namespace yumoe
