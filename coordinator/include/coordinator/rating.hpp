#pragma once
// Ratings from ranks: Plackett-Luce by Weng and Lin, as OpenSkill computes it. Pure, and the same bits
// on every machine: sums in the order given, exp by our own arithmetic (coordinator/scoring).

#include <cstdint>
#include <span>
#include <vector>

namespace yumoe {

struct Rating {
  double mu = 25;
  double sigma = 25.0 / 3;
  // What the rating is at least, with high probability.
  double ordinal() const noexcept { return mu - 3 * sigma; }
  friend bool operator==(const Rating&, const Rating&) = default;
};

struct RatingRule {
  double beta = 25.0 / 6;   // spread of one performance about its player's mu
  double tau = 25.0 / 300;  // what a rating becomes less certain by in every game
  double kappa = 1e-4;      // least factor on a variance
};

// One game: players with ratings, and the rank each reached (smaller is better, equal ranks are a tie).
// Rewrites the ratings in place. Fewer than two players change nothing but tau's widening.
// Source: Weng and Lin 2011, algorithm 4; openskill 6.2 is the oracle (tests/coordinator/rating_test.cpp).
// Cost: O(n log n).
void play(std::span<Rating> players, std::span<const std::int64_t> ranks, const RatingRule& rule);

}  // namespace yumoe
