#include "router/deadline.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

namespace yumoe {
namespace {

double median_of(std::vector<double> values) {
  const std::size_t middle = values.size() / 2;
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(middle),
                   values.end());
  const double upper = values[middle];
  if (values.size() % 2 == 1) return upper;
  return (upper +
          *std::max_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(middle))) /
         2;
}

}  // namespace

void ArrivalStatistics::observe(std::chrono::milliseconds duration) {
  observed_.push_back(duration);
  if (observed_.size() > kept_) observed_.pop_front();
}

std::chrono::milliseconds ArrivalStatistics::deadline(double factor,
                                                      std::chrono::milliseconds least,
                                                      std::chrono::milliseconds most) const {
  if (observed_.size() < kFewest) return most;
  std::vector<double> values;
  for (const auto duration : observed_) values.push_back(static_cast<double>(duration.count()));
  const double median = median_of(values);
  for (double& value : values) value = std::abs(value - median);
  const double spread = std::max(1.4826 * median_of(values), 0.1 * median);
  const auto answer = std::chrono::milliseconds(std::llround(median + factor * spread));
  return std::clamp(answer, least, std::max(least, most));
}

}  // namespace yumoe
