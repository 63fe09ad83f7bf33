// Random scenarios with every operation mixed. YUMOE_SCENARIO_BLOCKS and _SEEDS make a longer run;
// tests/CMakeLists.txt names both sizes.

#include <gtest/gtest.h>

#include <cstdlib>
#include <map>

#include "coordinator/random_world.hpp"

namespace yumoe::ledger {
namespace {

std::uint64_t setting(const char* name, std::uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::stoull(text);
}

TEST(LedgerRandom, EveryOperationMixedBreaksNoInvariantAndSnapshotsRoundTrip) {
  const std::uint64_t blocks = setting("YUMOE_SCENARIO_BLOCKS", 1'500);
  const std::uint64_t seeds = setting("YUMOE_SCENARIO_SEEDS", 6);
  std::map<std::string, std::map<std::string, int>> seen;
  for (std::uint64_t seed = 1; seed <= seeds; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    RandomWorld world(seed);
    for (std::uint64_t block = 0; block < blocks; ++block) {
      for (std::uint64_t left = world.random().below(4); left > 0; --left) {
        const auto [operation, outcome] = world.act();
        ++seen[std::string(name_of(operation))]
              [outcome ? "done" : std::string(name_of(outcome.error()))];
      }
      ASSERT_NO_THROW(world.ledger.step_block()) << "block " << world.ledger.state().block;
      if (block % 500 == 0) {
        ASSERT_NO_THROW(world.ledger.audit());
      }
    }
    const Bytes bytes = world.ledger.snapshot();
    const Ledger again = Ledger::restore(bytes);
    ASSERT_EQ(again.snapshot(), bytes);
    ASSERT_EQ(again.state(), world.ledger.state());
  }
  for (const auto& [operation, outcomes] : seen) {
    int tried = 0;
    for (const auto& [outcome, count] : outcomes) tried += count;
    if (tried > 500) {
      EXPECT_TRUE(outcomes.contains("done")) << operation << " never succeeded";
    }
  }
  if (std::getenv("YUMOE_SCENARIO_PRINT") != nullptr) {
    for (const auto& [operation, outcomes] : seen) {
      for (const auto& [outcome, count] : outcomes) {
        std::printf("%-18s %-34s %d\n", operation.c_str(), outcome.c_str(), count);
      }
    }
  }
}

TEST(LedgerRandom, ARefusedOperationChangesNothing) {
  RandomWorld world(42);
  int refused = 0;
  for (int step = 0; step < 2'500; ++step) {
    const Digest before = world.ledger.digest();
    const auto [operation, outcome] = world.act();
    if (!outcome) {
      ++refused;
      ASSERT_EQ(world.ledger.digest(), before)
          << name_of(operation) << " was refused with " << name_of(outcome.error());
    }
    if (step % 3 == 0) world.ledger.step_block();
  }
  EXPECT_GT(refused, 300);
}

TEST(LedgerRandom, TheSameSeedGivesTheSameDigest) {
  const auto digest_after = [](std::uint64_t seed) {
    RandomWorld world(seed);
    for (int block = 0; block < 300; ++block) {
      world.act();
      world.ledger.step_block();
    }
    return world.ledger.digest();
  };
  EXPECT_EQ(digest_after(7), digest_after(7));
  EXPECT_NE(digest_after(7), digest_after(8));
}

TEST(LedgerRandom, OperationsSurviveTheirBytes) {
  RandomWorld world(3);
  for (int i = 0; i < 3'000; ++i) {
    const Operation operation = world.any_operation();
    const Bytes bytes = encode(operation);
    ASSERT_EQ(decode_operation(bytes), operation);
    Bytes broken = bytes;
    broken.resize(world.random().below(bytes.size()));
    ASSERT_THROW(decode_operation(broken), Error);
  }
}

}  // namespace
}  // namespace yumoe::ledger
