#pragma once
// From measurements to credit, ratings and weights. Pure: equal histories give equal weights to the last
// bit on every machine, so a restart, a replay or a what-if reaches the same ones. docs/scoring.md gives the
// reasons and what each attack earns.
//
//   credit   what a worker's contributions reduce the loss by, as a multiple of the typical worker's, with a
//            standard error: a filtered mean over rounds. Weights follow from it.
//   rating   Plackett-Luce over the rounds' orders (coordinator/rating.hpp). Ranks follow from it, and weights
//            under the rules top_k and gauntlet.
//   conduct  what the coordinator itself saw, alike for all validators: presence, refusals.
//
// What follows from all opinions together is settled when one of them changes, O(validators * n log n);
// asking costs O(log n).

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "cluster/bytes.hpp"
#include "cluster/ids.hpp"
#include "cluster/option.hpp"
#include "coordinator/rating.hpp"
#include "router/protocol.hpp"

namespace yumoe {

struct ScoringOptions {
  std::string weight_rule = "power";
  double weight_power = 2;
  std::int64_t top_k = 16;
  double top_decay = 0.9;
  double burn_share = 0;
  double confidence = 2;
  double drift = 0.01;
  double noise_min = 0.02;
  double credit_max = 4;
  double fall_errors = 5;
  double return_rate = 0.1;
  double group_errors = 4;
  double group_keep = 0.05;
  double certain_share = 0.12;
  double spot_share = 0.25;
  double rating_decay = 0.98;
  double presence_decay = 0.9;
  double missing_factor = 0.5;
  double refusal_factor = 0.25;
  double shared_factor = 0.5;
  double given_share = 0.5;
  double expert_share = 0.25;
  std::int64_t audit_ban_rounds = 200;
  double newcomer_trust = 0.5;
  std::int64_t validator_silence_rounds = 10;
  double duplicate_share = 0.25;
  std::int64_t duplicate_rounds = 16;
  double norm_bound = 20;
  double messages_per_s = 2'000;
  std::int64_t messages_burst = 10'000;

  template <typename Visitor>
  void visit(Visitor& option) {
    option("weight_rule", weight_rule,
           {.choices = "power|top_k|gauntlet",
            .help = "credit to a power; a curve over the best k ranks; or the conservative rating "
                    "to a power"});
    option("weight_power", weight_power,
           {.min = 0.1,
            .max = 8,
            .help = "exponent of the rules power and gauntlet; above 1 favours the best"});
    option("top_k", top_k,
           {.unit = "workers", .min = 1, .max = 65'535, .help = "how many the rule top_k pays"});
    option("top_decay", top_decay,
           {.unit = "share",
            .min = 0.01,
            .max = 1,
            .help = "rule top_k: pay of a rank as a share of the rank before it"});
    option("burn_share", burn_share,
           {.unit = "share",
            .min = 0,
            .max = 0.99,
            .help = "of all weight, given to the subnet's owner, whose share the chain burns"});
    option("confidence", confidence,
           {.unit = "standard errors",
            .min = 0,
            .max = 10,
            .help = "half width of the intervals that decide who is uncertain and who is surely "
                    "above nothing"});
    option(
        "drift", drift,
        {.unit = "of the typical credit",
         .min = 0,
         .max = 1,
         .help = "standard deviation by which a worker's credit may change from round to round"});
    option("noise_min", noise_min,
           {.unit = "of the typical credit",
            .min = 1e-6,
            .max = 1,
            .help = "least standard error that a measurement is believed to have"});
    option("credit_max", credit_max,
           {.unit = "of the typical credit",
            .min = 1,
            .max = 1'000,
            .help = "a measurement above this counts as this"});
    option("fall_errors", fall_errors,
           {.unit = "standard errors",
            .min = 1,
            .max = 100,
            .help = "a measurement so far below the credit replaces it, and the way back is slow"});
    option("return_rate", return_rate,
           {.unit = "share",
            .min = 0.001,
            .max = 1,
            .help = "of what a penalty took that a good round gives back"});
    option(
        "group_errors", group_errors,
        {.unit = "standard errors",
         .min = 0,
         .max = 100,
         .help = "workers whose credits differ by less are paid nearly alike; 0: each by itself"});
    option("group_keep", group_keep,
           {.unit = "share",
            .min = 0,
            .max = 1,
            .help = "of a difference that is not established which is still paid"});
    option(
        "certain_share", certain_share,
        {.unit = "share",
         .min = 0,
         .max = 10,
         .help = "half width of a credit's interval below which its worker is clear, by credit"});
    option("spot_share", spot_share,
           {.unit = "share",
            .min = 0,
            .max = 1,
            .help = "of a round's measurements that go to clear workers, drawn at random"});
    option("rating_decay", rating_decay,
           {.unit = "share",
            .min = 0,
            .max = 1,
            .help = "what is left of a rating's distance from the start after each round"});
    option("presence_decay", presence_decay,
           {.unit = "share",
            .min = 0,
            .max = 0.999,
            .help = "weight of an older round in the share of rounds that were answered"});
    option("missing_factor", missing_factor,
           {.unit = "share",
            .min = 0,
            .max = 1,
            .help = "what a late contribution counts for in presence, for each round it is late"});
    option("refusal_factor", refusal_factor,
           {.unit = "share",
            .min = 0,
            .max = 1,
            .help = "factor on a weight after each contribution that a filter refused"});
    option("shared_factor", shared_factor,
           {.unit = "share",
            .min = 0,
            .max = 1,
            .help = "what a round counts for in presence if another worker delivered the same "
                    "before anything was revealed: they share their work"});
    option("given_share", given_share,
           {.unit = "share",
            .min = 0,
            .max = 1,
            .help = "of a weight that goes as contributions are found to add nothing to what the "
                    "others do; 0: off"});
    option("expert_share", expert_share,
           {.unit = "share",
            .min = 0,
            .max = 1,
            .help = "of a weight that goes as a worker's experts are found to do nothing; 0: off"});
    option("audit_ban_rounds", audit_ban_rounds,
           {.unit = "rounds",
            .min = 0,
            .max = 1e9,
            .help = "rounds without weight after a shard trained again gave something else"});
    option("newcomer_trust", newcomer_trust,
           {.unit = "share",
            .min = 0,
            .max = 1,
            .help = "factor in the aggregate of whom nobody has measured yet, once others are"});
    option(
        "validator_silence_rounds", validator_silence_rounds,
        {.unit = "rounds",
         .min = 1,
         .max = 1e6,
         .help = "a validator silent for longer counts in no consensus while another one speaks"});
    option("duplicate_share", duplicate_share,
           {.unit = "share",
            .min = 0.01,
            .max = 1,
            .help =
                "of elements in common with an earlier contribution from which on one is refused"});
    option("duplicate_rounds", duplicate_rounds,
           {.unit = "rounds",
            .min = 1,
            .max = 1'000,
            .help = "how long a contribution is remembered for that"});
    option("norm_bound", norm_bound,
           {.unit = "of the median",
            .min = 0,
            .max = 1e6,
            .help = "norm of a group of tensors, against the median over the others' newest "
                    "contributions, from which on one is refused; more for who does more steps; "
                    "0: off"});
    option("messages_per_s", messages_per_s,
           {.unit = "messages/s",
            .min = 20,
            .max = 1e6,
            .help = "that a participant may send on and on"});
    option("messages_burst", messages_burst,
           {.unit = "messages",
            .min = 100,
            .max = 1e7,
            .help = "that it may send at once; more ends its connection"});
  }
};

// What became of one worker's shard in a round, as the coordinator saw it.
struct ShardOutcome {
  Uid uid;
  bool contributed = false;   // revealed in time and past every filter
  bool refused = false;       // a filter refused it
  std::uint64_t tokens = 0;   // it says it trained on; 0: not known
  bool shared = false;        // another worker delivered the same before anything was revealed
  std::uint32_t experts = 0;  // that it was given; 0: not known
};

// A filtered mean over rounds.
struct Estimate {
  double value = 0, variance = 0;
  std::uint32_t measured = 0;  // times
  RoundId round;               // the last of them
};

// What one validator holds of one worker.
struct Opinion {
  double credit = 0;           // 1: the typical worker's
  double variance = 0;         // of the credit, when it was last measured
  double ceiling = 0;          // after a fall the credit rises no faster than this; 0: none
  std::uint32_t measured = 0;  // times
  RoundId measured_round;      // the last of them
  double score = 0;            // newest reduction less one standard error, at least 0, nats a token
  double reduction = 0;        // newest, nats a token
  double standard_error = 0;   // of it
  Estimate given;              // as credit, but given the round's other contributions
  Estimate experts;  // as credit, of all of its experts' parts, by those that were sampled
  Rating rating;
  RoundId audited;       // newest shard of it that was trained again and gave the same
  RoundId banned_until;  // after one that did not
};

struct Conduct {
  double answered = 0, asked = 0;  // decayed counts of rounds
  double penalty = 1;              // in [0, 1]; falls by refusals, comes back by good rounds
  double tokens = 0;               // of the newest answered shard
  double experts = 0;              // of it; 0: not known
  double presence() const noexcept { return asked > 0 ? answered / asked : 1; }
};

// The factors of a weight; each clamped to [0, 1] but the value, whose bound is credit_max.
struct WeightReasons {
  double value = 0;      // by the rule, before the factors
  double certainty = 0;  // 0 until the credit is surely above 0, 1 where its interval is narrow
  double presence = 0;
  double penalty = 0;
  double given =
      1;  // below 1: surely adds less to the others' than is usual for what it does alone
  double experts = 1;  // below 1: its experts surely do less than half of what is usual
  bool banned = false;
};

// Who answered a round, and with how much work by its own word.
struct Answered {
  Uid uid;
  std::uint64_t tokens = 0;
};

class Scoring {
 public:
  explicit Scoring(const ScoringOptions& options) : options_(options) {}

  // A round was closed: who answered it. Missing work lowers presence, a refusal the penalty; a
  // validator's silence neither.
  void close_round(RoundId round, std::span<const ShardOutcome> outcomes);
  // A contribution came `stale_rounds` after its round was closed and passed the filters.
  void answer_late(Uid worker, std::uint64_t stale_rounds);
  // One that came late was refused.
  void refuse_late(Uid worker);

  // One validator's measurements. `unavailable` entries change nothing; `not_finite` counts as a
  // measurement of nothing and as a refusal by that validator alone.
  void measure(Uid validator, double stake, const Scores& scores);
  // A validator trained a shard again: whether it gave the same. Counts in its own opinion alone.
  void audit(Uid validator, Uid worker, RoundId round, bool same);

  // Whom a validator is to measure: at most `most` of `candidates`, those first of whom it is the most
  // uncertain, and some of the clear ones, drawn by `seed`. Answers by uid.
  std::vector<Uid> to_measure(Uid validator, std::span<const Uid> candidates, std::size_t most,
                              RoundId round, std::uint64_t seed) const;
  // Of the interval of a worker's credit, as a share of the credit; infinite if it was never measured.
  double half_width(Uid validator, Uid worker, RoundId round) const;
  // Of `candidates`, the one whose shard is to be trained again: by turns one drawn at random, and the one
  // that delivers least for its work among those not found honest lately. Nothing if all are banned.
  std::optional<Uid> to_audit(std::span<const Answered> candidates, RoundId round,
                              std::uint64_t seed) const;

  // Newest score and rating of a worker: the stake-weighted median over validators that have one.
  double score(Uid worker) const;
  double rating(Uid worker) const;  // conservative: mu - 3 sigma
  double credit(Uid worker) const;

  // Weights of one validator over all workers it ever measured, by uid ascending: u16, the largest is
  // 65535 unless all are 0. Ties keep equal weights.
  std::vector<std::pair<Uid, std::uint16_t>> weights(Uid validator) const;
  // What the subnet's owner gets beside them, so that burn_share of the sum is its.
  double burn_weight(Uid validator) const;

  // What more than half of the stake supports, as in the ledger's consensus: the stake-weighted median of
  // the validators' shares, over those that hold an opinion of the worker; 65535 for the largest; by uid.
  const std::vector<std::pair<Uid, std::uint16_t>>& consensus() const noexcept {
    return consensus_;
  }

  // In the consensus: 0 if nobody measured it.
  std::uint16_t weight(Uid worker) const;
  // 1 + how many workers weigh more than `weight`.
  std::uint32_t rank(std::uint16_t weight) const;

  // Factor of a worker's contribution in the aggregate, in [0, 1]: whether it surely delivers for each token
  // what the others do. 1 while nobody is measured.
  double trust(Uid worker) const;

  // For explanations. Null: that validator has no opinion of it.
  const Opinion* opinion(Uid validator, Uid worker) const;
  std::vector<Uid> validators() const;
  double stake(Uid validator) const { return stakes_.at(validator).stake; }
  Conduct conduct(Uid worker) const;
  WeightReasons reasons(Uid validator, Uid worker) const;
  // Agreement of a validator with the others: 1 - half the sum of differences between its shares and the
  // consensus's over workers both know, in [0, 1]; nothing if it is alone or has no weights.
  std::optional<double> agreement(Uid validator) const;

  // Covers everything that decides future answers.
  void digest_into(Digester& digester) const;

 private:
  using Opinions = std::map<Uid, Opinion>;  // by worker
  struct Judge {
    double stake = 0;
    RoundId spoke;     // newest round it reported on
    double scale = 0;  // nats a token that are a typical credit; 0: not known yet
  };
  double scale_of(const Opinions& opinions, const Scores& scores, double before) const;
  void take(Opinion& opinion, RoundId round, double x, double error);
  void learn(Estimate& estimate, RoundId round, double x, double error) const;
  void learn_parts(Opinion& opinion, RoundId round, const ScoreEntry& entry, double scale) const;
  // Of an estimate, against credit: the median over workers; 0 if too few are known.
  double usual_part(const Opinions& opinions, Estimate Opinion::*part) const;
  double part_factor(const Opinion& opinion, Estimate Opinion::*part, double usual,
                     double share) const;
  void rate(Opinions& opinions, const Scores& scores);
  std::map<Uid, double> values(const Opinions& opinions) const;
  std::map<Uid, double> group(const Opinions& opinions) const;
  double rule_value(const Opinion& opinion, double credit) const;
  double certainty(const Opinion& opinion) const;
  bool speaks(Uid validator) const;
  template <typename Get>
  double median_over_validators(Uid worker, const Get& get) const;
  void settle();

  ScoringOptions options_;
  std::map<Uid, Opinions> opinions_;  // by validator
  std::map<Uid, Judge> stakes_;
  std::map<Uid, Conduct> conduct_;
  std::map<RoundId, std::vector<Uid>>
      missing_;    // of the newest rounds: they count as last in its game
  RoundId round_;  // newest heard of
  // Settled from the above.
  std::vector<std::pair<Uid, std::uint16_t>> consensus_;
  std::vector<std::uint16_t> weights_descending_;
  std::map<Uid, double> trust_;
  bool anybody_trusted_ = false;
};

}  // namespace yumoe
