#include "coordinator/rating.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "cluster/error.hpp"
#include "scoring/exact_math.hpp"

namespace yumoe {

void play(std::span<Rating> players, std::span<const std::int64_t> ranks, const RatingRule& rule) {
  YUMOE_ASSERT(players.size() == ranks.size());
  for (Rating& p : players) p.sigma = std::sqrt(p.sigma * p.sigma + rule.tau * rule.tau);
  const std::size_t n = players.size();
  if (n < 2) return;
  double c_squared = 0;
  for (const Rating& p : players) c_squared += p.sigma * p.sigma + rule.beta * rule.beta;
  const double c = std::sqrt(c_squared);

  std::vector<std::size_t> order(n);
  std::iota(order.begin(), order.end(), 0u);
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return ranks[a] < ranks[b]; });
  std::vector<double> strength(n);
  for (std::size_t i = 0; i < n; ++i) strength[i] = exact::exp(players[i].mu / c);

  // From the last rank up: the strength of all that did not do better.
  std::vector<double> left(n);
  double sum = 0;
  for (std::size_t at = n; at-- > 0;) left[at] = sum += strength[order[at]];

  // From the first rank down, tie by tie. A tie of A players takes part A times, each weighing 1 / A.
  double once = 0, twice = 0;  // sums of 1 / left and 1 / left^2 over the ties so far
  for (std::size_t begin = 0; begin < n;) {
    std::size_t end = begin;
    while (end < n && ranks[order[end]] == ranks[order[begin]]) ++end;
    once += 1 / left[begin];
    twice += 1 / (left[begin] * left[begin]);
    for (std::size_t at = begin; at < end; ++at) {
      Rating& p = players[order[at]];
      const double e = strength[order[at]], variance = p.sigma * p.sigma;
      const double omega = 1 / static_cast<double>(end - begin) - e * once;
      const double delta = e * once - e * e * twice;
      const double gamma = p.sigma / c;
      p.mu += variance / c * omega;
      p.sigma *= std::sqrt(std::max(1 - variance / c_squared * delta * gamma, rule.kappa));
    }
    begin = end;
  }
}

}  // namespace yumoe
