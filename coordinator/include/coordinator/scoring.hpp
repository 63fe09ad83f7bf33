#pragma once
// From measurements to ratings to weights. Pure: equal histories give equal weights, so a restart, a
// replay or a what-if reaches the same ones. What follows from all opinions together is settled when one
// of them changes, O(validators * workers); asking costs O(log workers).

#include <cstdint>
#include <map>
#include <span>
#include <utility>
#include <vector>

#include "cluster/ids.hpp"
#include "cluster/option.hpp"
#include "router/protocol.hpp"

namespace yumoe {

struct ScoringOptions {
  double rating_decay = 0.8;
  double missing_factor = 0.5;
  double weight_power = 1.0;
  double confidence = 1.0;

  template <typename Visitor>
  void visit(Visitor& option) {
    option("rating_decay", rating_decay, {.unit = "share", .min = 0, .max = 0.999,
           .help = "of the old rating that is left when a new score comes"});
    option("missing_factor", missing_factor, {.unit = "share", .min = 0, .max = 1,
           .help = "of the rating that is left after a round without a valid contribution"});
    option("weight_power", weight_power, {.min = 0.1, .max = 8,
           .help = "exponent from rating to weight; above 1 favours the best"});
    option("confidence", confidence, {.unit = "standard errors", .min = 0, .max = 10,
           .help = "subtracted from a measured loss reduction before it counts"});
  }
};

// What became of one worker's shard in a round, as the coordinator saw it.
struct ShardOutcome {
  Uid uid;
  bool contributed = false;      // revealed in time and past every filter
  std::uint32_t stale_rounds = 0;
};

class Scoring {
 public:
  explicit Scoring(const ScoringOptions& options) : options_(options) {}

  // A round was closed: who answered it. Missing work lowers a rating; a validator's silence never does.
  void close_round(RoundId round, std::span<const ShardOutcome> outcomes);

  // One validator's measurements, weighted by its stake. `unavailable` entries change nothing;
  // `not_finite` counts as a score of zero.
  void measure(Uid validator, double stake, const Scores& scores);

  // Newest score: loss reduction on the private draw, less `confidence` standard errors, at least 0,
  // in nats a token, mean over validators by stake.
  double score(Uid worker) const;
  double rating(Uid worker) const;

  // Weights of one validator over all workers it ever measured, by uid ascending: u16, the largest is
  // 65535 unless all are 0. Ties keep equal weights.
  std::vector<std::pair<Uid, std::uint16_t>> weights(Uid validator) const;

  // Stake-weighted mean of the validators' weights, 65535 for the largest; by uid ascending.
  const std::vector<std::pair<Uid, std::uint16_t>>& consensus() const noexcept { return consensus_; }

  // In the consensus: 0 if nobody measured it.
  std::uint16_t weight(Uid worker) const;
  // 1 + how many workers weigh more than `weight`.
  std::uint32_t rank(std::uint16_t weight) const;

  // Factor of a worker's contribution in the aggregate, in [0, 1]: 1 until somebody measured it.
  double trust(Uid worker) const;

 private:
  struct Opinion {               // of one validator about one worker
    double score = 0;
    double rating = 0;
    std::uint32_t measured = 0;
  };
  void settle();

  ScoringOptions options_;
  std::map<Uid, std::map<Uid, Opinion>> opinions_;  // validator -> worker
  std::map<Uid, double> stakes_;
  // Settled from the two above.
  std::vector<std::pair<Uid, std::uint16_t>> consensus_;
  std::vector<std::uint16_t> weights_descending_;
  double largest_rating_ = 0;
};

}  // namespace yumoe
