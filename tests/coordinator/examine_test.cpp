// One case for each filter: an honest contribution passes, and each way of being wrong is named with what
// was seen.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

#include "cluster/random.hpp"
#include "coordinator/filter.hpp"

namespace yumoe {
namespace {

using ::testing::HasSubstr;

class Examine : public ::testing::Test {
 protected:
  Examine() {
    shard.round = {4};
    shard.uid = {2};
    shard.inner_steps = 3;
    shard.data = {100, 3 * static_cast<std::uint64_t>(training.batch_sequences)};
    shard.experts = {0, 2};
    honest.round = shard.round;
    honest.uid = shard.uid;
    honest.shard = digest_of_shard(shard);
    honest.base = base;
    honest.steps = shard.inner_steps;
    honest.tokens = shard.data.count * static_cast<std::uint64_t>(layout.model().context);
    honest.seconds = 1;
    honest.loss_first = 5;
    honest.loss_last = 4;
    honest.moments_from = shard.round;
    honest.expert_tokens.assign(
        static_cast<std::size_t>(layout.model().layers * layout.model().experts), 0);
    honest.expert_tokens[0] = 10;
    honest.update = update_of(shard.experts, codec, 7);
  }

  Bytes update_of(const ExpertSet& experts, const CodecOptions& options, std::uint64_t seed,
                  double size = 1e-3) const {
    Random random(seed);
    std::vector<float> values(layout.parameters());
    for (float& value : values) value = static_cast<float>(size * random.normal());
    return encode_update(layout, experts, values, options);
  }
  Revealed examined(const Contribution& contribution) { return examined(encode(contribution)); }
  Revealed examined(const Bytes& bytes) {
    return examine(layout, codec, training, shard, base, bytes, owners, seen);
  }
  // The verdict on an honest contribution changed by `change`.
  Revealed with(const std::function<void(Contribution&)>& change) {
    Contribution changed = honest;
    change(changed);
    return examined(changed);
  }

  Layout layout = Layout::of([] {
    ModelOptions model;
    model.vocabulary = 256, model.width = 16, model.layers = 2, model.heads = 2;
    model.key_value_heads = 1, model.experts = 4, model.expert_width = 16;
    return model;
  }());
  CodecOptions codec;
  InnerOptions training;
  Digest base = digest_of(Bytes{1});
  TrainingShard shard;
  Contribution honest;
  std::size_t owners = 10;
  Seen seen{layout, ScoringOptions{}};
};

TEST_F(Examine, PassesHonestWork) {
  const Revealed verdict = examined(honest);
  EXPECT_EQ(verdict.filter, "") << verdict.evidence;
  EXPECT_EQ(verdict.steps, 3u);
  EXPECT_EQ(verdict.tokens, honest.tokens);
}

TEST_F(Examine, NamesWhatIsNoContribution) {
  EXPECT_EQ(examined(Bytes(100, 0xab)).filter, "schema");
  Bytes cut = encode(honest);
  cut.resize(cut.size() - 8);
  EXPECT_EQ(examined(cut).filter, "schema");
  EXPECT_EQ(with([](Contribution& c) { c.expert_tokens.pop_back(); }).filter, "schema");
}

TEST_F(Examine, NamesNumbersThatAreNone) {
  for (const double wrong : {std::nan(""), std::numeric_limits<double>::infinity()}) {
    EXPECT_NE(with([&](Contribution& c) { c.seconds = wrong; }).filter, "") << wrong;
    EXPECT_NE(with([&](Contribution& c) { c.loss_first = wrong; }).filter, "") << wrong;
    EXPECT_NE(with([&](Contribution& c) { c.loss_last = wrong; }).filter, "") << wrong;
  }
  // Whatever bits an update carries, what passes has finite norms only.
  for (std::size_t at = 0; at < honest.update.size(); at += 61) {
    Contribution changed = honest;
    for (std::size_t i = at; i < std::min(at + 4, changed.update.size()); ++i)
      changed.update[i] = 0xff;
    const Revealed verdict = examined(changed);
    if (verdict.filter.empty()) {
      const Update update(layout, changed.update);
      for (std::size_t i = 0; i < update.tensors().size(); ++i) {
        EXPECT_TRUE(std::isfinite(update.squared_norm(i))) << at;
      }
    }
    seen = Seen{layout, ScoringOptions{}};
  }
}

TEST_F(Examine, NamesAnotherShard) {
  EXPECT_EQ(with([](Contribution& c) { c.round = {5}; }).filter, "shard");
  EXPECT_EQ(with([](Contribution& c) { c.uid = {3}; }).filter, "shard");
  EXPECT_EQ(with([](Contribution& c) { c.shard = digest_of(Bytes{9}); }).filter, "shard");
}

TEST_F(Examine, NamesAnotherBaseVersion) {
  const Revealed verdict = with([](Contribution& c) { c.base = digest_of(Bytes{2}); });
  EXPECT_EQ(verdict.filter, "sync");
  EXPECT_THAT(verdict.evidence, HasSubstr(base.hex().substr(0, 12)));
}

TEST_F(Examine, NamesWorkThatWasNotGiven) {
  EXPECT_EQ(with([](Contribution& c) { c.steps = 2; }).filter, "work");
  EXPECT_EQ(with([](Contribution& c) { ++c.tokens; }).filter, "work");
  EXPECT_EQ(with([](Contribution& c) { c.moments_from = {1}; }).filter, "work");
  EXPECT_EQ(with([](Contribution& c) { c.loss_bits = {1, 2}; }).filter, "work");
  // Tokens of an expert that is not its own; more than there were.
  EXPECT_EQ(with([](Contribution& c) { c.expert_tokens[1] = 1; }).filter, "work");
  EXPECT_EQ(with([](Contribution& c) { c.expert_tokens[2] = 1u << 31; }).filter, "work");
}

TEST_F(Examine, NamesMoreThanAnHonestEncoderKeeps) {
  CodecOptions generous = codec;
  generous.kept_per_block *= 2;
  const Bytes update = update_of(shard.experts, generous, 7);
  EXPECT_EQ(with([&](Contribution& c) { c.update = update; }).filter, "size");
}

TEST_F(Examine, NamesAnUpdateThatDoesNotDecode) {
  EXPECT_EQ(with([](Contribution& c) { c.update.resize(c.update.size() / 2); }).filter, "update");
  EXPECT_EQ(with([](Contribution& c) { c.update.clear(); }).filter, "update");
}

TEST_F(Examine, NamesANormFarAboveTheOthers) {
  owners = 4;
  for (std::uint16_t uid = 10; uid < 13; ++uid) {
    seen.norms.add(shard.round, {uid}, 3, Update(layout, update_of(shard.experts, codec, uid)));
  }
  const Bytes large = update_of(shard.experts, codec, 7, 1);
  const Revealed verdict = with([&](Contribution& c) { c.update = large; });
  EXPECT_EQ(verdict.filter, "norm");
  EXPECT_THAT(verdict.evidence, HasSubstr("3 others"));
}

TEST_F(Examine, IsNotMovedByIdlersWhoComeFirst) {
  owners = 10;
  const auto play = [&](std::uint16_t uid, double size) {
    shard.uid = {uid};
    const Bytes update = update_of(shard.experts, codec, uid + 100 * shard.round.value, size);
    return with([&](Contribution& c) {
             c.round = c.moments_from = shard.round;
             c.uid = shard.uid;
             c.shard = digest_of_shard(shard);
             c.update = update;
           })
        .filter;
  };
  for (std::uint64_t round = 4; round < 7; ++round) {
    shard.round = {round};
    for (std::uint16_t uid = 1; uid <= 3; ++uid) play(uid, 1e-9);
    for (std::uint16_t uid = 4; uid <= 10; ++uid)
      EXPECT_EQ(play(uid, 1e-3), "") << round << " " << uid;
  }
}

TEST_F(Examine, NamesExpertsThatWereNotGiven) {
  const Bytes update = update_of({0, 1}, codec, 7);
  EXPECT_EQ(with([&](Contribution& c) { c.update = update; }).filter, "experts");
}

TEST_F(Examine, NamesACopyOfAnothersWorkAndItsFirst) {
  ASSERT_EQ(examined(honest).filter, "");
  shard.uid = {3};
  const Revealed verdict = with([&](Contribution& c) {
    c.uid = shard.uid;
    c.shard = digest_of_shard(shard);
  });
  EXPECT_EQ(verdict.filter, "duplicate");
  EXPECT_THAT(verdict.evidence, HasSubstr("uid 2"));
}

}  // namespace
}  // namespace yumoe
