// What aggregation promises: fair shares, clipped norms, support, and the same sum in either form.

#include "coordinator/aggregate.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "cluster/error.hpp"
#include "cluster/random.hpp"

namespace yumoe {
namespace {

using ::testing::Each;

Layout small_layout() {
  ModelOptions model;
  model.vocabulary = 200;
  model.width = 16;
  model.layers = 2;
  model.heads = 2;
  model.key_value_heads = 1;
  model.experts = 3;
  model.expert_width = 24;
  return Layout::of(model);
}

// A contribution with everything it points to.
struct Given {
  Given(const Layout& layout, std::uint16_t uid, const ExpertSet& experts,
        std::vector<float> residual, double weight = 1, std::uint64_t tokens = 1'000)
      : uid(uid),
        update(layout, encode_update(layout, experts, residual,
                                     {.block_elements = 256, .kept_per_block = 16})),
        weight(weight),
        tokens(tokens),
        expert_tokens(6, 0) {
    for (const std::uint32_t e : experts) expert_tokens[e] = expert_tokens[3 + e] = 100;
  }
  WeightedUpdate view() const { return {Uid{uid}, &update, weight, tokens, expert_tokens}; }

  std::uint16_t uid;
  Update update;
  double weight;
  std::uint64_t tokens;
  std::vector<std::uint32_t> expert_tokens;
};

std::vector<float> random_residual(const Layout& layout, std::uint64_t seed, double scale = 1) {
  Random random(seed);
  std::vector<float> residual(layout.parameters());
  for (float& value : residual) value = static_cast<float>(scale * random.normal());
  return residual;
}

std::vector<WeightedUpdate> views(const std::vector<Given>& given) {
  std::vector<WeightedUpdate> all;
  for (const Given& one : given) all.push_back(one.view());
  return all;
}

// What an aggregate adds up to, by index, in double.
std::vector<double> value_of(const Layout& layout, const Aggregate& aggregate) {
  std::vector<double> value(layout.parameters());
  for (const AggregateSource& source : aggregate.sources) {
    const Update update(layout, source.update);
    for (std::size_t i = 0; i < update.tensors().size(); ++i) {
      const std::uint64_t offset = layout.tensors()[update.tensors()[i]].offset;
      update.for_each(i, [&](std::uint64_t index, float v) {
        value[offset + index] += static_cast<double>(source.factors[i]) * v;
      });
    }
  }
  return value;
}

double norm_of(const std::vector<double>& values) {
  double squares = 0;
  for (const double value : values) squares += value * value;
  return std::sqrt(squares);
}

AggregateOptions forwarding(const std::string& rule) {
  AggregateOptions options;
  options.rule = rule;
  options.downstream = "forward";
  return options;
}

TEST(Aggregator, OfOneContributionIsThatContribution) {
  const Layout layout = small_layout();
  const std::vector<Given> given{{layout, 4, {0, 2}, random_residual(layout, 1)}};
  const AggregateResult result =
      Aggregator(layout, forwarding("clipped_mean"), {}).aggregate(RoundId{3}, views(given));
  ASSERT_EQ(result.aggregate.sources.size(), 1u);
  EXPECT_EQ(result.aggregate.round, RoundId{3});
  EXPECT_EQ(result.aggregate.sources[0].uid, Uid{4});
  EXPECT_EQ(result.aggregate.sources[0].update, given[0].update.bytes());
  EXPECT_THAT(result.aggregate.sources[0].factors, Each(1.0f));
}

TEST(Aggregator, WeighsTheTrunkByTokensAndAnExpertByTheTokensItSaw) {
  const Layout layout = small_layout();
  std::vector<Given> given;
  given.emplace_back(layout, 1, ExpertSet{0, 1}, random_residual(layout, 1), 1.0, 3'000);
  given.emplace_back(layout, 2, ExpertSet{1, 2}, random_residual(layout, 2), 0.5, 2'000);
  given[0].expert_tokens = {10, 30, 0, 10, 0, 0};  // layer 1's expert 1 saw nothing
  given[1].expert_tokens = {0, 20, 5, 0, 8, 5};
  const AggregateResult result =
      Aggregator(layout, forwarding("mean"), {}).aggregate(RoundId{1}, views(given));
  const auto share = [&](std::size_t c, const std::string& name) {
    for (std::size_t i = 0; i < given[c].update.tensors().size(); ++i) {
      if (layout.tensors()[given[c].update.tensors()[i]].name == name) {
        return result.factors[c].share[i];
      }
    }
    return -1.0;
  };
  EXPECT_DOUBLE_EQ(share(0, "embedding"), 0.75);
  EXPECT_DOUBLE_EQ(share(1, "embedding"), 0.25);
  EXPECT_DOUBLE_EQ(share(0, "layer.0.expert.0.down"), 1.0);
  EXPECT_DOUBLE_EQ(share(0, "layer.0.expert.1.down"), 0.75);
  EXPECT_DOUBLE_EQ(share(1, "layer.0.expert.1.down"), 0.25);
  EXPECT_DOUBLE_EQ(share(0, "layer.1.expert.1.down"), 0.0);
  EXPECT_DOUBLE_EQ(share(1, "layer.1.expert.1.down"), 1.0);
}

TEST(Aggregator, CountsAHolderThatSentNothingAsZeros) {
  const Layout layout = small_layout();
  std::vector<Given> given;
  given.emplace_back(layout, 1, ExpertSet{0}, random_residual(layout, 1));
  given.emplace_back(layout, 2, ExpertSet{0}, std::vector<float>(layout.parameters()));
  const AggregateResult result =
      Aggregator(layout, forwarding("clipped_mean"), {}).aggregate(RoundId{1}, views(given));
  ASSERT_EQ(result.aggregate.sources.size(), 1u);
  EXPECT_THAT(result.aggregate.sources[0].factors, Each(0.5f));
}

TEST(Aggregator, ClipsOneLoudContributionToTheMedianNorm) {
  const Layout layout = small_layout();
  std::vector<Given> given;
  for (std::uint16_t uid = 0; uid < 5; ++uid) {
    given.emplace_back(layout, uid, ExpertSet{0, 1, 2},
                       random_residual(layout, uid, uid == 3 ? 1e6 : 1.0));
  }
  const AggregateResult clipped =
      Aggregator(layout, forwarding("clipped_mean"), {}).aggregate(RoundId{1}, views(given));
  const AggregateResult plain =
      Aggregator(layout, forwarding("mean"), {}).aggregate(RoundId{1}, views(given));
  for (const double clip : clipped.factors[3].clip) EXPECT_NEAR(clip, 1e-6, 5e-7);
  EXPECT_LT(norm_of(value_of(layout, clipped.aggregate)) * 1e5,
            norm_of(value_of(layout, plain.aggregate)));
}

TEST(Aggregator, TheMedianNormIsByWeightSoThatManySmallOnesDoNotMoveIt) {
  const Layout layout = small_layout();
  std::vector<Given> given;
  given.emplace_back(layout, 0, ExpertSet{0}, random_residual(layout, 0), 1.0);
  for (std::uint16_t uid = 1; uid < 9; ++uid) {
    given.emplace_back(layout, uid, ExpertSet{0}, random_residual(layout, uid, 1e-6), 0.01);
  }
  const AggregateResult result =
      Aggregator(layout, forwarding("clipped_mean"), {}).aggregate(RoundId{1}, views(given));
  EXPECT_THAT(result.factors[0].clip, Each(1.0));
}

TEST(Aggregator, TrimmedMeanIsNotMovedByOneLiarInFive) {
  const Layout layout = small_layout();
  AggregateOptions options;
  options.rule = "trimmed_mean";
  options.recompress_kept_per_block = 4'096;
  options.recompress_value_bits = 4;
  const std::vector<float> truth = random_residual(layout, 1);
  std::vector<float> lie = truth;
  for (float& value : lie) value *= -1e4f;
  std::vector<Given> honest, with_liar;
  for (std::uint16_t uid = 0; uid < 5; ++uid) {
    honest.emplace_back(layout, uid, ExpertSet{0, 1, 2}, truth);
    with_liar.emplace_back(layout, uid, ExpertSet{0, 1, 2}, uid == 2 ? lie : truth);
  }
  const auto value = [&](const std::vector<Given>& given) {
    Aggregator aggregator(layout, options, {});
    return value_of(layout, aggregator.aggregate(RoundId{1}, views(given)).aggregate);
  };
  const std::vector<double> a = value(honest), b = value(with_liar);
  for (std::size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], b[i], 1e-9);
}

TEST(Aggregator, TrimmedMeanTakesTheMiddleOfEachCoordinate) {
  const Layout layout = small_layout();
  AggregateOptions options;
  options.rule = "trimmed_mean";
  options.trimmed_share = 0.25;
  options.recompress_value_bits = 4;
  std::vector<Given> given;
  const std::vector<std::map<std::uint64_t, float>> sent{
      {{0, 1.0f}, {1, -1.0f}}, {{0, 2.0f}, {1, -2.0f}}, {{0, 4.0f}, {2, 8.0f}}, {{0, 8.0f}}};
  for (std::uint16_t uid = 0; uid < 4; ++uid) {
    std::vector<float> residual(layout.parameters());
    for (const auto& [index, value] : sent[uid]) residual[index] = value;
    given.emplace_back(layout, uid, ExpertSet{}, residual);
  }
  Aggregator aggregator(layout, options, {});
  const std::vector<double> value =
      value_of(layout, aggregator.aggregate(RoundId{1}, views(given)).aggregate);
  EXPECT_DOUBLE_EQ(value[0], 3.0);   // 2 and 4 of 1, 2, 4, 8
  EXPECT_DOUBLE_EQ(value[1], -0.5);  // -1 and 0 of -2, -1, 0, 0
  EXPECT_DOUBLE_EQ(value[2], 0.0);   // 0 and 0 of 0, 0, 0, 8
}

TEST(Aggregator, LeavesOutACoordinateThatOneLightSenderCarriesAlone) {
  const Layout layout = small_layout();
  AggregateOptions options;
  options.support_senders = 2;
  options.support_weight = 0.5;
  options.rule = "mean";
  std::vector<Given> given;
  const std::vector<std::vector<std::uint64_t>> sent{{0, 1}, {1, 2}, {3}};
  const double weights[] = {0.2, 0.2, 0.6};
  for (std::uint16_t uid = 0; uid < 3; ++uid) {
    std::vector<float> residual(layout.parameters());
    for (const std::uint64_t index : sent[uid]) residual[index] = 1.0f;
    given.emplace_back(layout, uid, ExpertSet{}, residual, weights[uid]);
  }
  Aggregator aggregator(layout, options, {});
  const std::vector<double> value =
      value_of(layout, aggregator.aggregate(RoundId{1}, views(given)).aggregate);
  EXPECT_EQ(value[0], 0.0);
  EXPECT_NEAR(value[1], 0.4, 0.01);
  EXPECT_EQ(value[2], 0.0);
  EXPECT_NEAR(value[3], 0.6, 0.01);  // alone, but trusted
}

TEST(Aggregator, RecompressionSendsTheSumOrKeepsItForLater) {
  const Layout layout = small_layout();
  AggregateOptions options;
  options.downstream = "recompress";
  options.recompress_kept_per_block = 32;
  options.recompress_error_decay = 1.0;
  std::vector<Given> given;
  for (std::uint16_t uid = 0; uid < 4; ++uid) {
    given.emplace_back(layout, uid, ExpertSet{0, 1, 2}, random_residual(layout, uid));
  }
  const std::vector<double> exact =
      value_of(layout, Aggregator(layout, forwarding("clipped_mean"), {})
                           .aggregate(RoundId{1}, views(given))
                           .aggregate);
  Aggregator aggregator(layout, options, {.block_elements = 256});
  const AggregateResult result = aggregator.aggregate(RoundId{1}, views(given));
  ASSERT_EQ(result.aggregate.sources.size(), 1u);
  EXPECT_EQ(result.aggregate.sources[0].uid, Uid{65'535});
  std::vector<double> sent = value_of(layout, result.aggregate);
  for (std::size_t i = 0; i < sent.size(); ++i) {
    EXPECT_NEAR(sent[i] + aggregator.residual()[i], exact[i], 1e-5);
  }
  // A round without contributions sends what is left, until little is.
  for (std::uint64_t round = 2; round < 12; ++round) {
    const std::vector<double> more =
        value_of(layout, aggregator.aggregate(RoundId{round}, {}).aggregate);
    for (std::size_t i = 0; i < sent.size(); ++i) sent[i] += more[i];
  }
  for (std::size_t i = 0; i < sent.size(); ++i) sent[i] -= exact[i];
  EXPECT_LT(norm_of(sent), 0.02 * norm_of(exact));
}

TEST(Aggregator, AutoTakesTheSmallerForm) {
  const Layout layout = small_layout();
  AggregateOptions options;
  options.recompress_kept_per_block = 40;
  std::vector<Given> given;
  for (std::uint16_t uid = 0; uid < 8; ++uid) {
    given.emplace_back(layout, uid, ExpertSet{0, 1, 2}, random_residual(layout, uid));
    Aggregator aggregator(layout, options, {.block_elements = 256});
    const AggregateResult result = aggregator.aggregate(RoundId{1}, views(given));
    const bool forwarded = result.aggregate.sources[0].uid != Uid{65'535};
    EXPECT_EQ(forwarded, result.forward_bytes <= result.recompress_bytes);
    EXPECT_EQ(forwarded, aggregator.residual().empty());
    EXPECT_EQ(forwarded, uid < 1) << uid;  // even two share the cost of their places
  }
}

TEST(Aggregator, GivesTheSameBytesAgainAndAfterARestore) {
  const Layout layout = small_layout();
  AggregateOptions options;
  options.downstream = "recompress";
  std::vector<Given> given;
  for (std::uint16_t uid = 0; uid < 3; ++uid) {
    given.emplace_back(layout, uid, ExpertSet{uid}, random_residual(layout, uid));
  }
  Aggregator first(layout, options, {}), second(layout, options, {});
  EXPECT_EQ(encode_aggregate(first.aggregate(RoundId{1}, views(given)).aggregate),
            encode_aggregate(second.aggregate(RoundId{1}, views(given)).aggregate));
  Aggregator third(layout, options, {});
  third.restore({second.residual().begin(), second.residual().end()});
  EXPECT_EQ(encode_aggregate(first.aggregate(RoundId{2}, views(given)).aggregate),
            encode_aggregate(third.aggregate(RoundId{2}, views(given)).aggregate));
}

TEST(Aggregator, RefusesToForwardUnderARuleThatIsNoWeightedSum) {
  const Layout layout = small_layout();
  EXPECT_THROW(Aggregator(layout, forwarding("trimmed_mean"), {}), Error);
  AggregateOptions supported = forwarding("mean");
  supported.support_senders = 2;
  EXPECT_THROW(Aggregator(layout, supported, {}), Error);
}

}  // namespace
}  // namespace yumoe
