// What the filters promise of norms and of broken commitments: gross excess is refused with its evidence, and
// slow, fast and new workers never are.

#include "coordinator/filter.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "cluster/random.hpp"

namespace yumoe {
namespace {

class Norms : public ::testing::Test {
 protected:
  Layout layout = Layout::of([] {
    ModelOptions model;
    model.vocabulary = 256, model.width = 16, model.layers = 2, model.heads = 2;
    model.key_value_heads = 1, model.experts = 4, model.expert_width = 16;
    return model;
  }());
  Random random{3};
  NormIndex index{layout, 20};

  Update update(double size, ExpertSet experts = {0, 1, 2, 3}) {
    std::vector<float> values(layout.parameters());
    for (float& value : values) value = static_cast<float>(size * random.normal());
    return Update(layout, encode_update(layout, experts, values, {}));
  }
  void others(int count, double size, std::uint32_t steps = 30, std::uint64_t round = 5) {
    for (int i = 0; i < count; ++i) {
      index.add({round}, Uid{static_cast<std::uint16_t>(100 + i)}, steps, update(size));
    }
  }
};

TEST_F(Norms, AreRefusedManyTimesAboveTheOthersMedianWithEvidence) {
  others(5, 1e-3);
  EXPECT_FALSE(index.find({5}, {1}, 30, update(1e-2)));
  const auto excess = index.find({5}, {1}, 30, update(1e-1));
  ASSERT_TRUE(excess);
  EXPECT_EQ(excess->others, 5u);
  EXPECT_GT(excess->norm, excess->most);
  EXPECT_NEAR(excess->most, 20 * excess->median, 1e-9);
}

TEST_F(Norms, OfSlowAndFastWorkersPass) {
  others(7, 1e-3);
  // As if every step went the same way: the norm in proportion to the steps.
  for (const std::uint32_t steps : {1u, 3u, 10u, 30u, 300u, 3'000u}) {
    EXPECT_FALSE(index.find({5}, {1}, steps, update(1e-3 * std::max(1.0, steps / 30.0)))) << steps;
    EXPECT_FALSE(index.find({5}, {1}, steps, update(1e-3 * steps / 30))) << steps;
  }
}

TEST_F(Norms, AreNotMovedByAMinority) {
  others(6, 1e-3);
  for (int i = 0; i < 2; ++i) {
    index.add({5}, Uid{static_cast<std::uint16_t>(200 + i)}, 30, update(1e3));
  }
  EXPECT_TRUE(index.find({5}, {1}, 30, update(1)));
  EXPECT_FALSE(index.find({5}, {1}, 30, update(1e-3)));
  // Nor by one that sends again and again.
  for (int i = 0; i < 50; ++i) index.add({5}, Uid{200}, 30, update(1e-9));
  EXPECT_FALSE(index.find({5}, {1}, 30, update(1e-3)));
}

TEST_F(Norms, SayNothingWhileFewAreKnownOrLongAgoOrOfWhatNobodySends) {
  EXPECT_FALSE(index.find({5}, {1}, 30, update(1e3)));
  others(2, 1e-3);
  EXPECT_FALSE(index.find({5}, {1}, 30, update(1e3)));
  others(5, 1e-3);
  EXPECT_TRUE(index.find({5}, {1}, 30, update(1e3)));
  EXPECT_FALSE(index.find({9}, {1}, 30, update(1e3)));  // theirs are of round 5
  EXPECT_FALSE(NormIndex(layout, 0).find({5}, {1}, 30, update(1e3)));
}

TEST(BrokenCommitment, IsARecordWithBothDigests) {
  TrainingShard shard;
  shard.uid = {7};
  shard.round = {3};
  const Bytes bytes{1, 2, 3};
  const Digest one = digest_of(as_bytes("one")), other = digest_of(as_bytes("other"));
  const Revealed verdict = broken_commitment(shard, one, other, bytes, 3);
  EXPECT_EQ(verdict.filter, "commitment");
  EXPECT_EQ(verdict.blob, digest_of(bytes));
  EXPECT_THAT(verdict.evidence, ::testing::HasSubstr(one.hex().substr(0, 12)));
  EXPECT_THAT(verdict.evidence, ::testing::HasSubstr("3 times"));
}

}  // namespace
}  // namespace yumoe
