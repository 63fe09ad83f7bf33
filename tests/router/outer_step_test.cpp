// What the outer step promises: one function, the same bits for everybody, and an aggregate decoder
// that no bytes can hurt.

#include "router/outer_step.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "cluster/error.hpp"
#include "cluster/random.hpp"

namespace yumoe {
namespace {

Layout small_layout() {
  ModelOptions model;
  model.vocabulary = 100;
  model.width = 16;
  model.layers = 1;
  model.heads = 2;
  model.key_value_heads = 1;
  model.experts = 2;
  model.expert_width = 24;
  return Layout::of(model);
}

Bytes update_of(const Layout& layout, std::uint64_t seed, const ExpertSet& experts) {
  Random random(seed);
  std::vector<float> residual(layout.parameters());
  for (float& value : residual) value = static_cast<float>(random.normal());
  return encode_update(layout, experts, residual, {.block_elements = 256, .kept_per_block = 32});
}

AggregateSource source_of(const Layout& layout, std::uint16_t uid, const ExpertSet& experts,
                          float factor) {
  AggregateSource source;
  source.uid = Uid{uid};
  source.update = update_of(layout, uid, experts);
  source.factors.assign(Update(layout, source.update).tensors().size(), factor);
  return source;
}

Aggregate two_sources(const Layout& layout) {
  return {RoundId{1},
          {source_of(layout, 3, {0, 1}, 0.5f), source_of(layout, 7, {1}, 0.25f)},
          {0.125f, -0.5f}};
}

// The sum of factor * value, by index, in double.
std::vector<double> sum_of(const Layout& layout, const Aggregate& aggregate) {
  std::vector<double> sum(layout.parameters());
  for (const AggregateSource& source : aggregate.sources) {
    const Update update(layout, source.update);
    for (std::size_t i = 0; i < update.tensors().size(); ++i) {
      const std::uint64_t offset = layout.tensors()[update.tensors()[i]].offset;
      update.for_each(i, [&](std::uint64_t index, float value) {
        sum[offset + index] += static_cast<double>(source.factors[i]) * value;
      });
    }
  }
  return sum;
}

TEST(OuterRate, FallsLinearlyAndThenStays) {
  const OuterOptions options{.learning_rate = 1.0, .learning_rate_final = 0.4, .total_rounds = 4};
  EXPECT_DOUBLE_EQ(outer_rate(options, RoundId{1}), 1.0);
  EXPECT_DOUBLE_EQ(outer_rate(options, RoundId{2}), 0.8);
  EXPECT_DOUBLE_EQ(outer_rate(options, RoundId{4}), 0.4);
  EXPECT_DOUBLE_EQ(outer_rate(options, RoundId{400}), 0.4);
}

TEST(OuterStep, SparselocoSubtractsTheWeightedSum) {
  const Layout layout = small_layout();
  const Aggregate aggregate = two_sources(layout);
  std::vector<float> base(layout.parameters(), 2.0f);
  OuterState state;
  apply_aggregate(layout, aggregate, {.learning_rate = 0.5}, state, base);
  const std::vector<double> sum = sum_of(layout, aggregate);
  for (std::size_t i = 0; i < base.size(); ++i) EXPECT_NEAR(base[i], 2.0 - 0.5 * sum[i], 1e-6);
  EXPECT_TRUE(state.momentum.empty());
}

TEST(OuterStep, DilocoIsNesterovsMomentum) {
  const Layout layout = small_layout();
  Aggregate aggregate = two_sources(layout);
  const OuterOptions options{.step = "diloco", .learning_rate = 0.7, .learning_rate_final = 0.7};
  std::vector<float> base(layout.parameters(), 0.0f);
  OuterState state;
  apply_aggregate(layout, aggregate, options, state, base);
  aggregate.round = RoundId{2};
  apply_aggregate(layout, aggregate, options, state, base);
  const std::vector<double> g = sum_of(layout, aggregate);
  for (std::size_t i = 0; i < base.size(); ++i) {
    const double first = 0.7 * (g[i] + 0.9 * g[i]);
    const double second = 0.7 * (g[i] + 0.9 * 1.9 * g[i]);
    EXPECT_NEAR(base[i], -(first + second), 1e-5 * (1 + std::fabs(first + second)));
  }
}

TEST(OuterStep, IsTheSameBitsOnEveryMachine) {
  const Layout layout = small_layout();
  std::vector<float> base(layout.parameters());
  initialise(layout, 1, base);
  OuterState state;
  apply_aggregate(layout, two_sources(layout), {}, state, base);
  EXPECT_EQ(digest_of_parameters(layout, base).hex(),
            "fb2a141bd6105fd3eab9b3927f91da30f0a932a9d8c998902a988bcd88fbc931");
  apply_aggregate(layout, two_sources(layout), {.step = "diloco"}, state, base);
  EXPECT_EQ(digest_of_parameters(layout, base).hex(),
            "462406cd88689cae62f7e2fe8ba77f1631e283ccd5b05ae39f9a2e62ebb28f8b");
}

TEST(OuterStep, ChangesNothingIfASourceDoesNotParse) {
  const Layout layout = small_layout();
  Aggregate aggregate = two_sources(layout);
  aggregate.sources[1].update[10] ^= 1;
  std::vector<float> base(layout.parameters(), 2.0f);
  const std::vector<float> before = base;
  OuterState state;
  EXPECT_THROW(apply_aggregate(layout, aggregate, {}, state, base), Error);
  EXPECT_EQ(base, before);
}

TEST(Aggregate, RoundTrips) {
  const Layout layout = small_layout();
  const Aggregate aggregate = two_sources(layout);
  const Aggregate read = decode_aggregate(layout, encode_aggregate(aggregate));
  EXPECT_EQ(read.round, aggregate.round);
  EXPECT_EQ(read.gate_bias, aggregate.gate_bias);
  ASSERT_EQ(read.sources.size(), 2u);
  for (std::size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(read.sources[i].uid, aggregate.sources[i].uid);
    EXPECT_EQ(read.sources[i].factors, aggregate.sources[i].factors);
    EXPECT_EQ(read.sources[i].update, aggregate.sources[i].update);
  }
}

void expect_refused(const Layout& layout, const Bytes& bytes, const std::string& what) {
  try {
    decode_aggregate(layout, bytes);
    ADD_FAILURE() << what << " was accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::update_malformed) << what;
  }
}

TEST(Aggregate, EveryTruncationAndFlippedByteIsRefused) {
  const Layout layout = small_layout();
  const Bytes good = encode_aggregate(two_sources(layout));
  for (std::size_t i = 0; i < good.size(); ++i) {
    expect_refused(layout, Bytes(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(i)),
                   "truncation");
    Bytes bad = good;
    bad[i] ^= 0x10;
    expect_refused(layout, bad, "flipped bit");
  }
}

TEST(Aggregate, WithAValidDigestIsStillChecked) {
  const Layout layout = small_layout();
  Aggregate unsorted = two_sources(layout);
  std::swap(unsorted.sources[0], unsorted.sources[1]);
  expect_refused(layout, encode_aggregate(unsorted), "unsorted uids");
  Aggregate foreign = two_sources(layout);
  foreign.gate_bias.push_back(0);
  expect_refused(layout, encode_aggregate(foreign), "gate bias of another model");
  foreign.gate_bias = {0, std::nanf("")};
  expect_refused(layout, encode_aggregate(foreign), "gate bias that is not finite");
  Aggregate infinite = two_sources(layout);
  infinite.sources[0].factors[2] = std::numeric_limits<float>::infinity();
  expect_refused(layout, encode_aggregate(infinite), "infinite factor");
  Aggregate unequal = two_sources(layout);
  unequal.sources[1].factors.pop_back();
  expect_refused(layout, encode_aggregate(unequal), "missing factor");
}

}  // namespace
}  // namespace yumoe
