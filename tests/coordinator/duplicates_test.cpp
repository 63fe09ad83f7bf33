// What the search for duplicates promises: copies are found however their values are altered, honest work is
// not, and a large index gives the same answers as a small one.

#include "coordinator/duplicates.hpp"

#include <gtest/gtest.h>

#include "cluster/random.hpp"

namespace yumoe {
namespace {

class Duplicates : public ::testing::Test {
 protected:
  Layout layout = Layout::of([] {
    ModelOptions model;
    model.vocabulary = 1'024, model.width = 16, model.layers = 1, model.heads = 2,
    model.key_value_heads = 1;
    model.experts = 2, model.expert_width = 16;
    return model;
  }());
  Random random{7};

  std::vector<float> fresh() {
    std::vector<float> values(layout.parameters());
    for (float& value : values) value = static_cast<float>(random.normal());
    return values;
  }
  Sketch sketch(std::vector<float> values) const {
    return sketch_of(
        layout, Update(layout, encode_update(layout, {0, 1}, values, {.block_elements = 1'024})));
  }
  // The values that would be kept, altered by noise, a share of them replaced.
  std::vector<float> altered(std::vector<float> values, double replaced) {
    for (float& value : values) {
      if (random.uniform() < replaced) value = static_cast<float>(random.normal());
      value *= 1 + 0.1f * static_cast<float>(random.normal());
    }
    return values;
  }
};

TEST_F(Duplicates, AreFoundHoweverTheirValuesAreAltered) {
  DuplicateIndex index(16, 0.25);
  const auto original = fresh();
  index.add({3}, {1}, sketch(original));
  const auto same = index.find({4}, {2}, sketch(original));
  ASSERT_TRUE(same);
  EXPECT_EQ(same->uid, Uid{1});
  EXPECT_EQ(same->round, RoundId{3});
  EXPECT_EQ(same->share, 1);
  EXPECT_TRUE(index.find({4}, {2}, sketch(altered(original, 0.2))));
  EXPECT_TRUE(index.find({4}, {1}, sketch(original)));   // one's own, in another round
  EXPECT_FALSE(index.find({3}, {1}, sketch(original)));  // the same shard, sent again
}

TEST_F(Duplicates, AreNotSeenInWorkOnOtherData) {
  DuplicateIndex index(16, 0.25);
  double most = 0;
  std::vector<Sketch> sketches;
  for (std::uint16_t uid = 0; uid < 40; ++uid) {
    sketches.push_back(sketch(fresh()));
    EXPECT_FALSE(index.find({1}, {uid}, sketches.back()));
    index.add({1}, {uid}, sketches.back());
    for (std::size_t i = 0; i + 1 < sketches.size(); ++i) {
      most = std::max(most, common_share(sketches[i], sketches.back()));
    }
  }
  EXPECT_LT(most, 0.15);
}

TEST_F(Duplicates, AreFoundAmongManyWithoutComparingEach) {
  DuplicateIndex index(16, 0.25);
  const auto original = fresh();
  index.add({1}, {500}, sketch(original));
  for (std::uint16_t uid = 0; uid < 300; ++uid) index.add({1}, {uid}, sketch(fresh()));
  const auto found = index.find({2}, {7}, sketch(altered(original, 0.1)));
  ASSERT_TRUE(found);
  EXPECT_EQ(found->uid, Uid{500});
  EXPECT_FALSE(index.find({2}, {7}, sketch(fresh())));
}

TEST_F(Duplicates, AreForgottenAfterTheirRounds) {
  DuplicateIndex index(4, 0.25);
  const auto original = fresh();
  index.add({1}, {1}, sketch(original));
  index.add({4}, {2}, sketch(fresh()));
  EXPECT_TRUE(index.find({4}, {3}, sketch(original)));
  index.add({5}, {2}, sketch(fresh()));
  EXPECT_FALSE(index.find({5}, {3}, sketch(original)));
  EXPECT_EQ(index.size(), 2u);
}

}  // namespace
}  // namespace yumoe
