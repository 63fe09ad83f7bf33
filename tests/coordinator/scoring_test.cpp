// What scoring promises to workers and validators, one promise per test.

#include "coordinator/scoring.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "cluster/random.hpp"

namespace yumoe {
namespace {

Scores scores_of(std::uint64_t round, const std::vector<std::pair<Uid, double>>& reductions,
                 double error = 0.01) {
  Scores scores;
  scores.round = {round};
  for (const auto& [uid, reduction] : reductions) {
    scores.entries.push_back({uid, Verdict::measured, {}, {3, reduction, error, 24}});
  }
  return scores;
}

// Rounds of measurements of workers 1, 2, ... by validators with stakes, all answering.
class World {
 public:
  explicit World(std::vector<double> work, ScoringOptions options = {}, std::uint64_t seed = 1)
      : work_(std::move(work)), scoring(options), random_(seed) {}

  void round(const std::vector<double>& stakes = {1}) {
    ++now;
    std::vector<ShardOutcome> outcomes;
    for (std::size_t i = 0; i < work_.size(); ++i) outcomes.push_back({uid(i), true, false, 100});
    scoring.close_round({now}, outcomes);
    for (std::size_t v = 0; v < stakes.size(); ++v) {
      scoring.measure(Uid{static_cast<std::uint16_t>(100 + v)}, stakes[v], measured());
    }
  }
  Scores measured() {
    std::vector<std::pair<Uid, double>> reductions;
    for (std::size_t i = 0; i < work_.size(); ++i) {
      reductions.emplace_back(uid(i), 0.05 * work_[i] + 0.005 * random_.normal());
    }
    return scores_of(now, reductions, 0.005);
  }
  static Uid uid(std::size_t i) { return Uid{static_cast<std::uint16_t>(1 + i)}; }
  std::uint16_t weight(std::size_t i) const { return scoring.weight(uid(i)); }

  std::vector<double> work_;
  std::uint64_t now = 0;
  Scoring scoring;

 private:
  Random random_;
};

Digest digest_of_scoring(const Scoring& scoring) {
  Digester digester;
  scoring.digest_into(digester);
  return digester.finish();
}

TEST(Scoring, PaysMoreForMoreAndNothingForNothing) {
  World world({1, 2, 0.5, 0, -1});
  for (int i = 0; i < 10; ++i) world.round();
  EXPECT_EQ(world.weight(1), 65'535);
  EXPECT_GT(world.weight(0), 1.5 * world.weight(2));
  EXPECT_GT(world.weight(1), 1.5 * world.weight(0));
  EXPECT_EQ(world.weight(3), 0);
  EXPECT_EQ(world.weight(4), 0);
  EXPECT_EQ(world.scoring.rank(world.weight(1)), 1u);
}

TEST(Scoring, PaysEqualWorkersAlmostAlikeWhateverTheNoise) {
  World world(std::vector<double>(20, 1.0));
  std::vector<double> paid(20);
  for (int i = 0; i < 30; ++i) {
    world.round();
    double sum = 0;
    for (std::size_t w = 0; w < 20; ++w) sum += world.weight(w);
    for (std::size_t w = 0; w < 20; ++w) paid[w] += world.weight(w) / sum;
  }
  const auto [least, most] = std::minmax_element(paid.begin(), paid.end());
  EXPECT_LE(*most / *least, 1.05);
}

TEST(Scoring, ReachesEqualBitsFromEqualHistories) {
  World one({1, 2, 3, 0.1}), two({1, 2, 3, 0.1}), other({1, 2, 3, 0.1}, {}, 7);
  for (int i = 0; i < 20; ++i) one.round({3, 2}), two.round({3, 2}), other.round({3, 2});
  EXPECT_EQ(digest_of_scoring(one.scoring), digest_of_scoring(two.scoring));
  EXPECT_NE(digest_of_scoring(one.scoring), digest_of_scoring(other.scoring));
}

TEST(Scoring, LetsNoMinorityOfStakeMoveAWeight) {
  World honest({1, 1.5, 0.5}), world({1, 1.5, 0.5});
  for (int i = 0; i < 10; ++i) {
    honest.round({6});
    world.round({6});
    // 40 % of the stake says that worker 3 is worth a fortune and the others nothing.
    world.scoring.measure(Uid{200}, 4,
                          scores_of(world.now, {{Uid{1}, -1}, {Uid{2}, -1}, {Uid{3}, 9}}));
  }
  for (std::size_t i = 0; i < 3; ++i) EXPECT_EQ(world.weight(i), honest.weight(i)) << i;
  EXPECT_LT(world.scoring.agreement(Uid{200}).value(), 0.5);
  EXPECT_GT(world.scoring.agreement(Uid{100}).value(), 0.99);
}

TEST(Scoring, CostsNobodyItsScoreIfAValidatorFailsOrFallsSilent) {
  World world({1, 2});
  for (int i = 0; i < 5; ++i) world.round({1, 5});
  const auto before = world.scoring.consensus();
  Scores failed;
  failed.round = {world.now + 1};
  failed.entries = {{Uid{1}, Verdict::unavailable, {}, {}}, {Uid{2}, Verdict::unavailable, {}, {}}};
  world.scoring.measure(Uid{101}, 5, failed);
  EXPECT_EQ(world.scoring.consensus(), before);
  for (int i = 0; i < 30; ++i) world.round({1});  // the other one is gone
  EXPECT_EQ(world.weight(1), 65'535);
  EXPECT_GT(world.weight(0), 0);
}

TEST(Scoring, TakesANonFiniteLossAsAFailureOfItsContributionAlone) {
  World world({1, 1, 1});
  for (int i = 0; i < 5; ++i) world.round();
  const std::uint16_t second = world.weight(1);
  Scores scores = world.measured();
  scores.round = {++world.now};
  scores.entries[0].verdict = Verdict::not_finite;
  scores.entries[0].private_draw.reduction = std::nan("");
  world.scoring.measure(Uid{100}, 1, scores);
  EXPECT_LT(world.weight(0), 0.1 * world.weight(1));
  EXPECT_GE(world.weight(1), 0.9 * second);
  for (int i = 0; i < 60; ++i) world.round();  // and there is a way back
  EXPECT_GT(world.weight(0), 0.9 * world.weight(1));
}

TEST(Scoring, LowersAtOnceWhoStopsAndLiftsItSlowlyAgain) {
  World world({1, 1, 1, 1});
  for (int i = 0; i < 10; ++i) world.round();
  world.work_[0] = 0;
  world.round();
  EXPECT_LT(world.weight(0), 0.03 * world.weight(1));
  world.work_[0] = 1;
  world.round();
  EXPECT_LT(world.weight(0), 0.15 * world.weight(1));
  for (int i = 0; i < 40; ++i) world.round();
  EXPECT_GT(world.weight(0), 0.9 * world.weight(1));
}

TEST(Scoring, TakesARoundThatHelpedNobodyForWhatItIs) {
  World world({1, 1.4, 0.5});
  for (int i = 0; i < 20; ++i) world.round();
  const std::vector<std::uint16_t> before{world.weight(0), world.weight(1), world.weight(2)};
  // The best one is away; of the others nothing is established.
  world.scoring.measure(Uid{100}, 1,
                        scores_of(21, {{World::uid(0), -0.0004}, {World::uid(2), 0.0003}}, 0.05));
  for (std::size_t i = 0; i < before.size(); ++i) {
    EXPECT_NEAR(world.weight(i), before[i], 0.25 * before[i]) << i;
  }
  // But doing harm is.
  world.scoring.measure(Uid{100}, 1,
                        scores_of(22, {{World::uid(0), -0.2}, {World::uid(2), -0.2}}, 0.005));
  EXPECT_EQ(world.weight(0), 0);
  EXPECT_EQ(world.weight(2), 0);
}

TEST(Scoring, PaysForTheRoundsThatWereAnswered) {
  World world({1, 1});
  for (int i = 0; i < 30; ++i) {
    world.round();
    world.scoring.close_round({world.now},
                              std::vector<ShardOutcome>{{World::uid(0), false, false, 0}});
  }
  EXPECT_NEAR(static_cast<double>(world.weight(0)) / world.weight(1), 0.5, 0.05);
}

TEST(Scoring, PunishesARefusalAndForgivesItByGoodRounds) {
  World world({1, 1});
  for (int i = 0; i < 10; ++i) world.round();
  world.scoring.refuse_late(World::uid(0));
  EXPECT_NEAR(static_cast<double>(world.weight(0)) / world.weight(1), 0.25, 0.03);
  for (int i = 0; i < 40; ++i) world.round();
  EXPECT_GT(world.weight(0), 0.95 * world.weight(1));
}

TEST(Scoring, BansWhoseShardGaveSomethingElse_IfMostOfTheStakeFoundIt) {
  World world({1, 1});
  for (int i = 0; i < 5; ++i) world.round({1, 2});
  world.scoring.audit(Uid{100}, World::uid(0), {world.now}, false);
  EXPECT_GT(world.weight(0), 0);
  world.scoring.audit(Uid{101}, World::uid(0), {world.now}, false);
  EXPECT_EQ(world.weight(0), 0);
  EXPECT_EQ(world.scoring.trust(World::uid(0)), 0);
}

TEST(Scoring, MeasuresTheUncertainAndSpotChecksTheClear) {
  World world({1, 1, 1, 1, 1, 1, 1, 1, 1, 1});
  std::vector<Uid> all;
  for (std::size_t i = 0; i < 10; ++i) all.push_back(World::uid(i));
  EXPECT_EQ(world.scoring.to_measure(Uid{100}, all, 8, {1}, 1).size(), 8u);  // nobody is clear yet
  for (int i = 0; i < 20; ++i) world.round();
  const auto chosen = world.scoring.to_measure(Uid{100}, all, 8, {21}, 1);
  EXPECT_EQ(chosen.size(), 2u);  // everybody is clear
  all.push_back(Uid{50});        // a newcomer is not
  const auto with_newcomer = world.scoring.to_measure(Uid{100}, all, 8, {21}, 1);
  EXPECT_EQ(with_newcomer.back(), Uid{50});
  EXPECT_GT(world.scoring.half_width(Uid{100}, World::uid(3), {400}),
            world.scoring.half_width(Uid{100}, World::uid(3), {21}));
}

// Equal workers of equal credit; what the third does besides differs.
class Parts : public ::testing::Test {
 protected:
  static Scores measured(std::uint64_t round, double given, double expert) {
    Scores scores;
    scores.round = {round};
    for (std::uint16_t uid = 1; uid <= 6; ++uid) {
      ScoreEntry entry{Uid{uid}, Verdict::measured, {}, {3, 0.05, 0.001, 24}};
      const double other_given = uid == 3 ? given : 0.04, other_expert = uid == 3 ? expert : 0.01;
      entry.given = {3, other_given, 0.001, 24};
      entry.experts = {{0, {3, other_expert, 0.0005, 24}}};
      scores.entries.push_back(entry);
    }
    return scores;
  }
  static double weight_of_third(double given, double expert, const ScoringOptions& options = {}) {
    Scoring scoring(options);
    for (std::uint64_t round = 1; round <= 10; ++round) {
      std::vector<ShardOutcome> outcomes;
      for (std::uint16_t uid = 1; uid <= 6; ++uid) {
        outcomes.push_back({Uid{uid}, true, false, 100, false, 4});
      }
      scoring.close_round({round}, outcomes);
      scoring.measure(Uid{100}, 1, measured(round, given, expert));
    }
    return scoring.weight(Uid{3}) / 65'535.0;
  }
};

TEST_F(Parts, CostNothingAsLongAsTheyAreUsualOrMore) {
  EXPECT_DOUBLE_EQ(weight_of_third(0.04, 0.01), 1);
  EXPECT_DOUBLE_EQ(weight_of_third(0.06, 0.03), 1);
  EXPECT_DOUBLE_EQ(weight_of_third(0.035, 0.006), 1);
}

TEST_F(Parts, LowerThePayOfWhatTheOthersDoAlreadyDownToAShare) {
  EXPECT_NEAR(weight_of_third(0, 0.01), 0.5, 0.06);
  EXPECT_NEAR(weight_of_third(-0.05, 0.01), 0.5, 1e-3);  // clamped
  ScoringOptions off;
  off.given_share = 0;
  EXPECT_DOUBLE_EQ(weight_of_third(0, 0.01, off), 1);
}

TEST_F(Parts, LowerThePayOfWhoseExpertsDoNothingDownToAShare) {
  EXPECT_NEAR(weight_of_third(0.04, 0), 0.75, 0.06);
  EXPECT_NEAR(weight_of_third(0.04, -0.01), 0.75, 1e-3);
  ScoringOptions off;
  off.expert_share = 0;
  EXPECT_DOUBLE_EQ(weight_of_third(0.04, 0, off), 1);
}

TEST(Scoring, PaysARoundThatIsSharedOnlyInPart) {
  Scoring scoring({});
  for (std::uint64_t round = 1; round <= 40; ++round) {
    const std::vector<ShardOutcome> outcomes{{Uid{1}, true, false, 100, true},
                                             {Uid{2}, true, false, 100, false},
                                             {Uid{3}, true, false, 100, false}};
    scoring.close_round({round}, outcomes);
    scoring.measure(Uid{100}, 1,
                    scores_of(round, {{Uid{1}, 0.05}, {Uid{2}, 0.05}, {Uid{3}, 0.05}}, 0.001));
  }
  EXPECT_NEAR(scoring.weight(Uid{1}) / 65'535.0, 0.5, 0.02);
  EXPECT_EQ(scoring.weight(Uid{2}), 65'535);
}

TEST(Scoring, OffersRulesByName) {
  for (const char* rule : {"power", "top_k", "gauntlet"}) {
    ScoringOptions options;
    options.weight_rule = rule;
    options.top_k = 2;
    World world({3, 2, 1, 0}, options);
    for (int i = 0; i < 40; ++i) world.round();
    EXPECT_EQ(world.weight(0), 65'535) << rule;
    EXPECT_GT(world.weight(0), world.weight(1)) << rule;
    EXPECT_EQ(world.weight(3), 0) << rule;
    EXPECT_EQ(world.weight(2) == 0, std::string(rule) == "top_k") << rule;
  }
}

TEST(Scoring, SetsTheBurntShareAside) {
  ScoringOptions options;
  options.burn_share = 0.2;
  World world({1, 2}, options);
  for (int i = 0; i < 5; ++i) world.round();
  double sum = 0;
  for (const auto& [uid, weight] : world.scoring.weights(Uid{100})) sum += weight;
  EXPECT_NEAR(world.scoring.burn_weight(Uid{100}) / (sum + world.scoring.burn_weight(Uid{100})),
              0.2, 1e-12);
}

TEST(Scoring, ClampsEveryFactor) {
  World world({1, 1e9, -1e9});
  for (int i = 0; i < 5; ++i) world.round();
  for (std::size_t i = 0; i < 3; ++i) {
    const WeightReasons r = world.scoring.reasons(Uid{100}, World::uid(i));
    for (const double factor : {r.certainty, r.presence, r.penalty}) {
      EXPECT_GE(factor, 0);
      EXPECT_LE(factor, 1);
    }
    EXPECT_LE(std::abs(world.scoring.opinion(Uid{100}, World::uid(i))->credit),
              ScoringOptions().credit_max);
  }
}

}  // namespace
}  // namespace yumoe
