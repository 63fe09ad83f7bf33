#include <algorithm>
#include <cmath>
#include <numeric>

#include "cluster/error.hpp"
#include "worker/generator.hpp"

namespace yumoe {
namespace {

void check(std::span<const float> logits) {
  bool some = false;
  for (const float logit : logits) {
    if (std::isnan(logit) || (std::isinf(logit) && logit > 0)) {
      throw Error(ErrorCode::not_finite, "the model's output for the next token");
    }
    some = some || std::isfinite(logit);
  }
  if (!some) throw Error(ErrorCode::not_finite, "the model's output for the next token");
}

}  // namespace

std::uint16_t choose_token(std::span<const float> logits, const SamplingOptions& options,
                           Random& random) {
  check(logits);
  if (options.temperature == 0) {
    return static_cast<std::uint16_t>(std::max_element(logits.begin(), logits.end()) -
                                      logits.begin());
  }
  std::vector<std::uint16_t> order(logits.size());
  std::iota(order.begin(), order.end(), std::uint16_t{0});
  std::size_t kept = order.size();
  if (options.top_k > 0) kept = std::min(kept, static_cast<std::size_t>(options.top_k));
  const auto is_likelier = [&](std::uint16_t a, std::uint16_t b) {
    return logits[a] > logits[b] || (logits[a] == logits[b] && a < b);
  };
  std::partial_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(kept), order.end(),
                    is_likelier);
  std::vector<double> mass(kept);
  double all = 0;
  for (std::size_t i = 0; i < kept; ++i) {
    mass[i] =
        std::exp((static_cast<double>(logits[order[i]]) - logits[order[0]]) / options.temperature);
    all += mass[i];
  }
  if (options.top_p < 1) {
    const double wanted = options.top_p * all;
    double some = 0;
    std::size_t count = 0;
    while (count < kept && (count == 0 || some < wanted)) some += mass[count++];
    kept = count;
    all = some;
  }
  double left = random.uniform() * all;
  for (std::size_t i = 0; i < kept; ++i) {
    left -= mass[i];
    if (left < 0) return order[i];
  }
  return order[0];  // the last rounding
}

}  // namespace yumoe
