// The run's core under random histories. Every failure prints its seed; run one seed again with
// --gtest_filter='*/<seed>'.

#include <gtest/gtest.h>

#include "sim/simulated_run.hpp"

namespace yumoe::sim {
namespace {

RunSettings short_run() {
  RunSettings settings;
  settings.run.rounds = 6;
  settings.run.checkpoint_rounds = 2;
  settings.run.commit_wait_max_ms = 20'000;
  settings.run.reveal_wait_max_ms = 3'000;
  settings.run.score_wait_max_ms = 5'000;
  settings.placement.round_s = 4;
  settings.placement.inner_steps_first = 4;
  settings.batch_sequences = 2;
  return settings;
}

// Drives a fresh core from the journal; what a replay does.
Digest replayed(const SimulatedRun& simulated, const RunSettings& settings, const Layout& layout) {
  Run core(layout, settings);
  for (const Journaled& record : simulated.journal()) {
    core.apply(decode_event(record.event), record.time);
  }
  return core.state_digest();
}

class Histories : public ::testing::TestWithParam<std::uint64_t> {
 protected:
  std::uint64_t seed = GetParam();
  RunSettings settings = [this] {
    RunSettings s = short_run();
    if (seed % 3 == 0) s.run.scoring = "blocking";
    return s;
  }();
  Layout layout = Layout::of([] {
    ModelOptions model;
    model.vocabulary = 16, model.context = 8, model.width = 8, model.layers = 1, model.heads = 2;
    model.key_value_heads = 1, model.experts = 4, model.expert_width = 8;
    return model;
  }());
};

TEST_P(Histories, FinishWhateverTheNetworkLosesAndWhoeverCrashes) {
  Faults faults;
  faults.loss = 0.02 * static_cast<double>(seed % 10);
  faults.delay_ms_max = static_cast<std::int64_t>(1 + 40 * (seed % 7));
  faults.worker_crash = 0.02 * static_cast<double>(seed % 4);
  faults.coordinator_crash = 0.05 * static_cast<double>(seed % 3);
  SimulatedRun simulated(seed, 2 + seed % 5, seed % 3, settings, faults);
  ASSERT_TRUE(simulated.run(std::chrono::hours(2)))
      << "stuck in " << name_of(simulated.core().phase()) << " of round "
      << simulated.core().round().value << " after " << simulated.journal().size() << " events";

  // The journal alone reaches the same state.
  EXPECT_EQ(replayed(simulated, settings, layout), simulated.core().state_digest());

  // And so did every restart on the way: nothing was lost that the process before it knew.
  EXPECT_EQ(simulated.restarts_that_differ(), 0u) << "of " << simulated.restarts();

  // Each round was aggregated exactly once and none was skipped.
  std::uint64_t aggregated = 0;
  for (const Journaled& record : simulated.journal()) {
    const Event event = decode_event(record.event);
    if (const auto* e = std::get_if<Aggregated>(&event)) {
      ASSERT_EQ(e->round.value, ++aggregated);
    }
  }
  EXPECT_EQ(aggregated, 6u);
  EXPECT_EQ(simulated.core().version().value, 6u);
}

TEST_P(Histories, NeverGiveTwoShardsTheSameData) {
  Faults faults;
  faults.worker_crash = 0.05;
  faults.coordinator_crash = 0.05;
  SimulatedRun simulated(seed, 4, 1, settings, faults);
  std::map<std::uint64_t, std::uint64_t> ranges;  // first -> past the last
  yumoe::Run core(layout, settings);
  ASSERT_TRUE(simulated.run(std::chrono::hours(2)));
  for (const Journaled& record : simulated.journal()) {
    core.apply(decode_event(record.event), record.time);
    const RoundState* round = core.round_state(core.round());
    if (round == nullptr) continue;
    for (const auto& [uid, shard] : round->shards) {
      ranges[shard.shard.data.first] = shard.shard.data.first + shard.shard.data.count;
    }
  }
  std::uint64_t end = 0;
  for (const auto& [first, past] : ranges) {
    ASSERT_GE(first, end);
    end = past;
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, Histories, ::testing::Range<std::uint64_t>(1, 201));

TEST(QuietRun, GivesFasterWorkersMoreStepsSoThatAllFinishTogether) {
  SimulatedRun simulated(5, 4, 1, short_run(), {});
  ASSERT_TRUE(simulated.run(std::chrono::hours(1)));
  std::uint64_t least = ~0ull, most = 0;
  const RoundState* last = simulated.core().round_state(RoundId{6});
  ASSERT_NE(last, nullptr);
  for (const auto& [uid, shard] : last->shards) {
    EXPECT_TRUE(shard.in_time);
    least = std::min<std::uint64_t>(least, shard.shard.inner_steps);
    most = std::max<std::uint64_t>(most, shard.shard.inner_steps);
  }
  EXPECT_GT(most, least);
  for (const auto& [uid, participant] : simulated.core().participants()) {
    EXPECT_EQ(participant.missed, 0u);
  }
}

}  // namespace
}  // namespace yumoe::sim
