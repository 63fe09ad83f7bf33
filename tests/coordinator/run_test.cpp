// What the run's core promises, one behaviour per test. Read the names first.

#include "coordinator/run.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace yumoe {
namespace {

using ::testing::Contains;
using ::testing::VariantWith;

PublicKey key_of(std::uint8_t who) {
  PublicKey key;
  key.bytes[0] = who;
  return key;
}

// A run with two workers and a validator, in its first round.
class RunInTraining : public ::testing::Test {
 protected:
  static RunSettings settings_of() {
    RunSettings settings;
    settings.run.rounds = 3;
    settings.run.workers_min = 2;
    settings.run.checkpoint_rounds = 2;
    settings.run.commit_wait_max_ms = 10'000;
    settings.run.reveal_wait_max_ms = 1'000;
    settings.run.score_wait_max_ms = 5'000;
    return settings;
  }
  static ModelOptions model_of() {
    ModelOptions model;
    model.vocabulary = 16, model.context = 8, model.width = 8, model.layers = 1, model.heads = 2;
    model.key_value_heads = 1, model.experts = 4, model.expert_width = 8;
    return model;
  }

  RunInTraining() {
    apply(Started{digest_of(as_bytes("v0")), 99});
    apply(Joined{key_of(1), Role::worker, "one", {}, 0});
    apply(Joined{key_of(2), Role::validator, "judge", {}, 10});
    apply(Joined{key_of(3), Role::worker, "two", {}, 0});
  }

  std::vector<Action> apply(const Event& event, std::int64_t later_ms = 0) {
    now = now + std::chrono::milliseconds(later_ms);
    return run.apply(event, now);
  }
  ErrorCode refused(const Event& event) const {
    const auto refusal = run.refusal_of(event, now);
    EXPECT_TRUE(refusal);
    return refusal ? refusal->code : ErrorCode::usage;
  }
  Committed commit(Uid uid, std::uint64_t round = 1, const char* what = "work") const {
    return {uid, {round}, digest_of(as_bytes(what)), 4, {}};
  }
  Revealed reveal(Uid uid, std::uint64_t round = 1) const {
    Revealed revealed;
    revealed.uid = uid;
    revealed.round = {round};
    revealed.blob = digest_of(as_bytes("bytes"));
    revealed.steps = 10;
    revealed.tokens = 640;
    return revealed;
  }
  void finish_round(std::uint64_t round) {
    for (const Uid uid : {kOne, kTwo}) apply(commit(uid, round), 500);
    for (const Uid uid : {kOne, kTwo}) apply(reveal(uid, round), 10);
    apply(Aggregated{{round}, digest_of(as_bytes("sum")), digest_of(as_bytes("v")), 8, 8}, 10);
  }

  static constexpr Uid kOne{0}, kJudge{1}, kTwo{2};
  Layout layout = Layout::of(model_of());
  yumoe::Run run{layout, settings_of()};
  TimeMs now{1'000'000};
};

TEST_F(RunInTraining, StartsWhenEnoughWorkersAreThereAndGivesEachAShardOfItsOwn) {
  EXPECT_EQ(run.phase(), Phase::training);
  EXPECT_EQ(run.round(), RoundId{1});
  const TrainingShard one = run.directive_for(kOne).shard, two = run.directive_for(kTwo).shard;
  EXPECT_GT(one.inner_steps, 0u);
  EXPECT_NE(one.seed, two.seed);
  EXPECT_EQ(two.data.first, one.data.first + one.data.count);
}

TEST_F(RunInTraining, AsksForReveals_OnlyOnceNobodyCanCommitAnyMore) {
  apply(commit(kOne));
  EXPECT_FALSE(run.directive_for(kOne).reveal_wanted);
  EXPECT_EQ(refused(reveal(kOne)), ErrorCode::peer_refused);
  apply(commit(kTwo));
  EXPECT_EQ(run.phase(), Phase::revealing);
  EXPECT_TRUE(run.directive_for(kOne).reveal_wanted);
}

TEST_F(RunInTraining, AcceptsTheSameCommitmentAgainButNoOther) {
  apply(commit(kOne));
  EXPECT_FALSE(run.refusal_of(commit(kOne), now));
  EXPECT_EQ(refused(commit(kOne, 1, "something else")), ErrorCode::peer_refused);
}

TEST_F(RunInTraining, DoesNotWaitForAWorkerThatIsLost) {
  apply(commit(kOne));
  apply(Left{kTwo, "silent"});
  EXPECT_EQ(run.phase(), Phase::revealing);
}

TEST_F(RunInTraining, GoesOnAtTheDeadlineWithWhoeverCommitted) {
  apply(commit(kOne));
  apply(Tick{}, 9'999);
  EXPECT_EQ(run.phase(), Phase::training);
  apply(Tick{}, 1);
  EXPECT_EQ(run.phase(), Phase::revealing);
  EXPECT_EQ(run.participants().at(kTwo).missed, 1u);
}

TEST_F(RunInTraining, AggregatesWhatWasRevealedAndAdvances) {
  apply(commit(kOne));
  apply(commit(kTwo));
  apply(reveal(kOne));
  EXPECT_THAT(apply(reveal(kTwo)), Contains(VariantWith<StartAggregation>(::testing::_)));
  ASSERT_EQ(run.aggregation().items.size(), 2u);
  EXPECT_EQ(run.aggregation().items[0].weight, 1.0);
  apply(Aggregated{{1}, {}, digest_of(as_bytes("v1")), 0, 0});
  EXPECT_EQ(run.version(), RoundId{1});
  EXPECT_EQ(run.round(), RoundId{2});
  EXPECT_EQ(run.phase(), Phase::training);
}

TEST_F(RunInTraining, LeavesOutWhatAFilterRefusedAndTellsItsWorkerWhy) {
  apply(commit(kOne));
  apply(commit(kTwo));
  Revealed bad = reveal(kOne);
  bad.filter = "finite";
  bad.evidence = "norm of embedding is not finite";
  apply(bad);
  apply(reveal(kTwo));
  ASSERT_EQ(run.aggregation().items.size(), 1u);
  EXPECT_EQ(run.aggregation().items[0].uid, kTwo);
  EXPECT_THAT(run.directive_for(kOne).reason, ::testing::HasSubstr("norm of embedding"));
}

TEST_F(RunInTraining, CountsALateContributionInALaterRoundDiscounted) {
  apply(commit(kOne));
  apply(Tick{}, 10'000);
  apply(reveal(kOne));
  apply(Aggregated{{1}, {}, digest_of(as_bytes("v1")), 0, 0});
  apply(commit(kTwo, 1));  // late: round 2 is running
  EXPECT_TRUE(run.directive_for(kTwo).reveal_wanted);
  apply(reveal(kTwo, 1));
  apply(commit(kOne, 2));
  apply(commit(kTwo, 2));
  apply(reveal(kOne, 2));
  apply(reveal(kTwo, 2));
  const auto items = run.aggregation().items;
  ASSERT_EQ(items.size(), 3u);
  EXPECT_EQ(items[1].round, RoundId{1});
  EXPECT_EQ(items[1].weight, 0.5);
  EXPECT_EQ(items[2].weight, 1.0);
}

TEST_F(RunInTraining, RefusesAContributionThatIsTooLate) {
  finish_round(1);
  finish_round(2);
  EXPECT_EQ(refused(commit(Uid{9}, 1)), ErrorCode::stale_round);
  EXPECT_EQ(refused(commit(kOne, 7)), ErrorCode::stale_round);
}

TEST_F(RunInTraining, AsksValidatorsToMeasureWhileTheNextRoundTrains) {
  finish_round(1);
  const Directive directive = run.directive_for(kJudge);
  EXPECT_EQ(directive.evaluate.round, RoundId{1});
  EXPECT_EQ(directive.evaluate.base, digest_of(as_bytes("v0")));
  EXPECT_EQ(directive.evaluate.contributions.size(), 2u);
  EXPECT_EQ(run.phase(), Phase::training);
}

// Nobody has seen it before both had committed: they share their work, whoever revealed first.
TEST_F(RunInTraining, NotesBothSidesOfACopyThatWasCommittedBeforeAnythingWasRevealed) {
  apply(commit(kOne));
  apply(commit(kTwo));
  apply(reveal(kOne));
  Revealed copy = reveal(kTwo);
  copy.filter = "duplicate";
  copy.repeats = kOne;
  copy.repeats_round = {1};
  apply(copy);
  EXPECT_TRUE(run.round_state({1})->shards.at(kOne).shared);
  EXPECT_TRUE(run.round_state({1})->shards.at(kTwo).shared);
  EXPECT_LT(run.scoring().conduct(kOne).presence(), 1);
}

TEST_F(RunInTraining, LeavesTheVictimOfACopyOfAnEarlierRoundAlone) {
  finish_round(1);
  apply(commit(kOne, 2));
  apply(commit(kTwo, 2, "copy"));
  apply(reveal(kOne, 2));
  Revealed copy = reveal(kTwo, 2);
  copy.filter = "duplicate";
  copy.repeats = kOne;
  copy.repeats_round = {1};
  apply(copy);
  EXPECT_FALSE(run.round_state({2})->shards.at(kOne).shared);
  EXPECT_EQ(run.scoring().conduct(kOne).presence(), 1);
}

TEST_F(RunInTraining, LetsFewOfManyValidatorsMeasureARoundEachInItsTurn) {
  for (std::uint8_t i = 0; i < 7; ++i) {
    apply(Joined{key_of(static_cast<std::uint8_t>(50 + i)), Role::validator, "more", {}, 10});
  }
  finish_round(1);
  const RoundState& round = *run.round_state({1});
  EXPECT_EQ(round.scored_by.size(), 2u);
  std::size_t places = 0;
  for (const auto& [validator, asked] : round.evaluated) places += asked.size();
  EXPECT_LE(places, 4u);
  EXPECT_TRUE(round.closer && round.scored_by.contains(*round.closer));
}

TEST_F(RunInTraining, AsksNoValidatorWithoutStakeOnceOneHasAStake) {
  for (const int stranger : {4, 5, 6, 7}) {
    apply(Joined{key_of(stranger), Role::validator, "stranger", {}, 0});
  }
  finish_round(1);
  const RoundState* round = run.round_state({1});
  ASSERT_NE(round, nullptr);
  ASSERT_EQ(round->scored_by.size(), 1u);
  EXPECT_EQ(round->scored_by.begin()->first, kJudge);
  // Nor one that joins while scores are awaited.
  apply(Joined{key_of(8), Role::validator, "stranger", {}, 0});
  EXPECT_EQ(round->scored_by.size(), 1u);
}

TEST_F(RunInTraining, TurnsScoresIntoRatingsAndWeights) {
  finish_round(1);
  Scores scores;
  scores.round = {1};
  scores.entries = {{kOne, Verdict::measured, {}, {3, 0.2, 0, 16}},
                    {kTwo, Verdict::measured, {}, {3, 0.1, 0, 16}}};
  apply(Scored{kJudge, scores, {}});
  EXPECT_EQ(run.standing_of(kOne).weight, 65'535);
  EXPECT_EQ(run.standing_of(kTwo).weight, 16'383);
  EXPECT_EQ(run.standing_of(kTwo).rank, 2u);
  EXPECT_EQ(run.directive_for(kJudge).evaluate.round, RoundId{0});
  EXPECT_EQ(refused(Scored{kJudge, scores, {}}), ErrorCode::stale_round);
}

TEST_F(RunInTraining, RefusesScoresFromWorkersAndOfWhatWasNotToBeMeasured) {
  finish_round(1);
  Scores scores;
  scores.round = {1};
  EXPECT_EQ(refused(Scored{kOne, scores, {}}), ErrorCode::peer_refused);
  scores.entries = {{kJudge, Verdict::measured, {}, {}}};
  EXPECT_EQ(refused(Scored{kJudge, scores, {}}), ErrorCode::peer_refused);
}

TEST_F(RunInTraining, AnUnavailableMeasurementCostsTheWorkerNothing) {
  finish_round(1);
  Scores scores;
  scores.round = {1};
  scores.entries = {{kOne, Verdict::measured, {}, {3, 0.2, 0, 16}},
                    {kTwo, Verdict::measured, {}, {3, 0.2, 0, 16}}};
  apply(Scored{kJudge, scores, {}});
  const double before = run.standing_of(kTwo).rating;
  finish_round(2);
  scores.round = {2};
  scores.entries[1].verdict = Verdict::unavailable;
  apply(Scored{kJudge, scores, {}});
  EXPECT_EQ(run.standing_of(kTwo).rating, before);
}

TEST_F(RunInTraining, KeepsAUidForAHotkeyThatComesBack) {
  apply(Left{kTwo, "silent"});
  apply(Joined{key_of(3), Role::worker, "two", {}, 0});
  EXPECT_EQ(run.uid_of(key_of(3)), kTwo);
  EXPECT_EQ(run.participants().size(), 3u);
  EXPECT_GT(run.directive_for(kTwo).shard.inner_steps, 0u);
}

TEST_F(RunInTraining, RefusesAHotkeyInAnotherRole) {
  EXPECT_EQ(refused(Joined{key_of(1), Role::validator, "x", {}, 0}), ErrorCode::peer_refused);
}

TEST_F(RunInTraining, WaitsAndPlansTheSameRoundAgainWhenEverybodyIsGone) {
  apply(Left{kOne, "silent"});
  apply(Left{kTwo, "silent"});
  EXPECT_EQ(run.phase(), Phase::gathering);
  apply(Joined{key_of(1), Role::worker, "one", {}, 0});
  EXPECT_EQ(run.phase(), Phase::gathering);
  apply(Joined{key_of(3), Role::worker, "two", {}, 0});
  EXPECT_EQ(run.phase(), Phase::training);
  EXPECT_EQ(run.round(), RoundId{1});
}

TEST_F(RunInTraining, MovesDeadlinesByTheTimeTheCoordinatorWasAway) {
  const TimeMs before = *run.next_deadline();
  apply(Resumed{}, 60'000);
  EXPECT_EQ((*run.next_deadline() - before).count(), 60'000);
  EXPECT_EQ(run.phase(), Phase::training);
}

TEST_F(RunInTraining, AsksForACheckpointWhenOneIsDueAndMeasuresTheLastVersion) {
  finish_round(1);
  for (const Uid uid : {kOne, kTwo}) apply(commit(uid, 2));
  for (const Uid uid : {kOne, kTwo}) apply(reveal(uid, 2));
  EXPECT_THAT(apply(Aggregated{{2}, {}, {}, 0, 0}),
              Contains(VariantWith<WriteCheckpoint>(::testing::_)));
  apply(Checkpointed{{2}, digest_of(as_bytes("state"))});
  EXPECT_EQ(run.directive_for(kOne).checkpoint, RoundId{2});
  finish_round(3);
  EXPECT_EQ(run.phase(), Phase::closing);
  for (const std::uint64_t round : {1, 2, 3, 4}) {
    Scores scores;
    scores.round = {round};
    if (run.refusal_of(Scored{kJudge, scores, {}}, now)) continue;
    apply(Scored{kJudge, scores, {}});
  }
  EXPECT_EQ(run.phase(), Phase::finished);
  EXPECT_TRUE(run.directive_for(kOne).finished);
}

// --- placement and faults -------------------------------------------------------------------------------

WorkerProfile profile_with(double tokens_per_s) {
  WorkerProfile profile;
  profile.tokens_per_s = tokens_per_s;
  return profile;
}

TEST_F(RunInTraining, GivesNoShardToAWorkerThatStillMeasures_AndOneWhenItSaysWhat) {
  WorkerProfile measuring;
  measuring.measuring = true;
  apply(Joined{key_of(4), Role::worker, "three", measuring, 0});
  const Uid three{3};
  finish_round(1);
  EXPECT_FALSE(run.round_state({2})->shards.contains(three));
  EXPECT_EQ(run.participants().at(three).reason, "measures its machine");
  apply(Joined{key_of(4), Role::worker, "three", profile_with(6'400), 0});
  finish_round(2);
  EXPECT_GT(run.directive_for(three).shard.inner_steps, 0u);
}

TEST_F(RunInTraining, AWorkerWithLessMemoryThanItSaidIsGivenFewerExpertsAndTheReasonIsKept) {
  EXPECT_EQ(run.directive_for(kTwo).shard.experts.size(), 4u);
  WorkerProfile less;
  less.memory_mib = 1;  // of a model of some kilobytes: all but nothing fits into less
  less.experts_max = 2;
  less.remark = "memory limit would be exceeded: needs 9 MiB, has 1 MiB";
  apply(Joined{key_of(3), Role::worker, "two", less, 0});
  EXPECT_EQ(run.participants().at(kTwo).reason, less.remark);
  apply(commit(kOne));
  apply(Left{kTwo, "left: stopped"});
  apply(Joined{key_of(3), Role::worker, "two", less, 0});
  apply(reveal(kOne));
  apply(Aggregated{{1}, {}, digest_of(as_bytes("v1")), 0, 0});
  EXPECT_EQ(run.directive_for(kTwo).shard.experts.size(), 2u);
  EXPECT_EQ(run.directive_for(kTwo).reason, less.remark);
}

TEST_F(RunInTraining, AWorkerLostTwiceInSuccessionWhileTrainingGetsHalfTheExperts_AndRegainsThem) {
  for (const std::uint64_t round : {1, 2}) {
    apply(commit(kOne, round), 500);
    apply(Left{kTwo, "silent for 15 s: the process stopped or lost its network"});
    apply(reveal(kOne, round), 10);
    apply(Joined{key_of(3), Role::worker, "two", {}, 0});
    apply(Aggregated{{round}, {}, digest_of(as_bytes("v")), 0, 0});
  }
  EXPECT_EQ(run.directive_for(kTwo).shard.experts.size(), 2u);
  EXPECT_EQ(run.round_state({3})->shards.at(kTwo).experts_by, Limit::lost_before);
  apply(commit(kTwo, 3), 500);
  apply(commit(kOne, 3), 500);
  apply(reveal(kTwo, 3), 10);
  EXPECT_EQ(run.participants().at(kTwo).experts_cap, 0u);
}

TEST_F(RunInTraining, PlacesAnExpertAnewWhoseLastHolderLeft_AndSaysSo) {
  WorkerProfile half;
  half.experts_max = 2;
  apply(Joined{key_of(1), Role::worker, "one", half, 0});
  apply(Joined{key_of(3), Role::worker, "two", half, 0});
  finish_round(1);
  ASSERT_EQ(run.directive_for(kOne).shard.experts.size(), 2u);
  const ExpertSet of_two = run.directive_for(kTwo).shard.experts;
  apply(commit(kOne, 2), 500);
  apply(Left{kTwo, "silent"});
  apply(reveal(kOne, 2), 10);
  const Uid fresh{3};
  apply(Joined{key_of(5), Role::worker, "fresh", half, 0});
  apply(Aggregated{{2}, {}, digest_of(as_bytes("v2")), 0, 0});
  ASSERT_EQ(run.round(), RoundId{3});
  EXPECT_EQ(run.round_state({3})->replaced, of_two);
  EXPECT_EQ(run.directive_for(fresh).shard.experts, of_two);
  EXPECT_NE(run.directive_for(fresh).reason.find("whose last holder left, from base version 2"),
            std::string::npos);
}

TEST_F(RunInTraining, ABandwidthThatCollapsesCostsOneContributionAndIsKnownToTheNextPlan) {
  apply(commit(kOne), 500);
  Committed large = commit(kTwo);
  large.bytes = 1'000'000;
  apply(large);
  apply(reveal(kOne), 10);
  EXPECT_EQ(run.phase(), Phase::revealing);
  apply(Tick{}, 1'000);  // reveal_wait_max_ms
  EXPECT_EQ(run.phase(), Phase::aggregating);
  ASSERT_EQ(run.aggregation().items.size(), 1u);
  EXPECT_NEAR(run.participants().at(kTwo).profile.up_bytes_per_s, 1e6, 2e4);
  EXPECT_NE(run.participants().at(kTwo).reason.find("did not arrive within 1 s"),
            std::string::npos);
}

TEST_F(RunInTraining, DoesNotWaitForAWorkerThatIsTooSlowForOneStep_AndStillCountsIt) {
  for (const std::uint8_t who : {1, 3})
    apply(Joined{key_of(who), Role::worker, "w", profile_with(64'000), 0});
  apply(Joined{key_of(4), Role::worker, "snail", profile_with(0.1), 0});
  const Uid snail{3};
  finish_round(1);
  ASSERT_TRUE(run.round_state({2})->shards.contains(snail));
  EXPECT_FALSE(run.round_state({2})->shards.at(snail).awaited);
  for (const Uid uid : {kOne, kTwo}) apply(commit(uid, 2), 500);
  EXPECT_EQ(run.phase(), Phase::revealing) << "without the snail";
  EXPECT_EQ(run.participants().at(snail).missed, 0u);
  EXPECT_FALSE(run.refusal_of(commit(snail, 2), now)) << "late, but taken";
}

TEST_F(RunInTraining, KeepsAWorkersOwnMaximumOfSteps) {
  WorkerProfile modest = profile_with(64'000);
  modest.inner_steps_max = 3;
  apply(Joined{key_of(1), Role::worker, "one", modest, 0});
  finish_round(1);
  EXPECT_EQ(run.directive_for(kOne).shard.inner_steps, 3u);
}

TEST_F(RunInTraining, EveryEventSurvivesTheJournal) {
  const Event events[] = {
      Started{digest_of(as_bytes("x")), 5},
      Joined{key_of(9),
             Role::validator,
             "n",
             {100, 7, 1, 2, 3, 4, "open", "eu", "cpu", 9, true, "less than it said"},
             2.5},
      Left{kOne, "why"},
      commit(kOne),
      reveal(kTwo),
      Scored{kJudge, {{1}, 1, 2, 3, {}}, {1, 2}},
      Aggregated{{1}, digest_of(as_bytes("a")), digest_of(as_bytes("b")), 3, 4},
      Checkpointed{{2}, digest_of(as_bytes("c"))},
      Tick{},
      Resumed{}};
  for (const Event& event : events) {
    const Event back = decode_event(encode(event));
    EXPECT_EQ(back.index(), event.index());
    EXPECT_EQ(encode(back), encode(event)) << kind_of(event);
  }
}

}  // namespace
}  // namespace yumoe
