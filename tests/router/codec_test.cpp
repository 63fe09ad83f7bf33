// What the update codec promises: the largest values travel, the rest stays, and no bytes do harm.

#include "router/codec.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>

#include "cluster/error.hpp"
#include "cluster/random.hpp"
#include "codec/levels.hpp"
#include "codec/select.hpp"
#include "codec/wire.hpp"

namespace yumoe {
namespace {

using ::testing::HasSubstr;

std::vector<std::uint32_t> select_with(codec::SelectBlock select, std::span<const float> values,
                                       std::uint32_t kept, std::uint32_t guess = 0) {
  std::vector<std::uint64_t> bitmap(values.size() / 64 + 1);
  std::vector<std::uint32_t> candidates(values.size() + 64), magnitudes(values.size() + 64);
  std::vector<std::uint32_t> indices(kept + 64);
  codec::SelectScratch scratch{bitmap.data(), candidates.data(), magnitudes.data(), guess};
  const std::uint32_t count = select(values.data(), static_cast<std::uint32_t>(values.size()), kept,
                                     &scratch, indices.data());
  EXPECT_NE(count, codec::kNotFinite);
  indices.resize(count);
  return indices;
}

// The definition, said plainly.
std::vector<std::uint32_t> largest_by_sorting(std::span<const float> values, std::uint32_t kept) {
  std::vector<std::uint32_t> order(values.size());
  std::iota(order.begin(), order.end(), 0u);
  std::stable_sort(order.begin(), order.end(), [&](std::uint32_t a, std::uint32_t b) {
    return std::fabs(values[a]) > std::fabs(values[b]);
  });
  order.resize(std::min<std::size_t>(kept, order.size()));
  std::erase_if(order, [&](std::uint32_t i) { return values[i] == 0; });
  std::sort(order.begin(), order.end());
  return order;
}

std::map<std::string, codec::SelectBlock> selections_of_this_machine() {
  std::map<std::string, codec::SelectBlock> all{{"portable", codec::select_block_portable},
                                                {"fastest", codec::fastest_select_block()}};
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2")) {
    all["avx2"] = codec::select_block_avx2;
  }
#endif
  return all;
}

// Values with many ties, zeros, tiny and huge ones: `kind` chooses which.
std::vector<float> block_of(Random& random, std::size_t elements, int kind) {
  std::vector<float> values(elements);
  for (float& value : values) {
    const auto normal = static_cast<float>(random.normal());
    switch (kind) {
      case 0: value = normal; break;
      case 1: value = static_cast<float>(static_cast<int>(random.below(7)) - 3); break;
      case 2: value = random.below(40) == 0 ? normal : 0.0f; break;
      case 3: value = normal * normal * normal * 1e30f; break;
      case 4:
        value = std::numeric_limits<float>::denorm_min() * static_cast<float>(random.below(9));
        break;
      default: value = random.below(2) == 0 ? 1.5f : -1.5f; break;
    }
  }
  return values;
}

TEST(Selection, IsTheSameAsSortingOnEveryInstructionSet) {
  Random random(1);
  for (int trial = 0; trial < 400; ++trial) {
    const std::size_t elements = trial % 3 == 0 ? 4'096 : 1 + random.below(5'000);
    const std::vector<float> values = block_of(random, elements, trial % 6);
    const auto kept = static_cast<std::uint32_t>(trial % 2 == 0 ? 64 : 1 + random.below(elements));
    const auto guess = static_cast<std::uint32_t>(trial % 5 == 0 ? random.below(0x7f800000) : 0);
    const std::vector<std::uint32_t> expected = largest_by_sorting(values, kept);
    for (const auto& [name, select] : selections_of_this_machine()) {
      ASSERT_EQ(select_with(select, values, kept, guess), expected)
          << name << ", trial " << trial << ", " << elements << " elements, kept " << kept;
    }
  }
}

TEST(Selection, NoticesOneValueThatIsNotFiniteWhereverItIs) {
  for (const float bad : {std::numeric_limits<float>::infinity(), -std::nanf("1")}) {
    for (const std::size_t place : {0u, 63u, 1'000u, 4'095u, 4'099u}) {
      std::vector<float> values(4'100, 0.25f);
      values[place] = bad;
      std::vector<std::uint64_t> bitmap(80);
      std::vector<std::uint32_t> candidates(5'000), magnitudes(5'000), indices(200);
      for (const auto& [name, select] : selections_of_this_machine()) {
        codec::SelectScratch scratch{bitmap.data(), candidates.data(), magnitudes.data(), 0};
        EXPECT_EQ(select(values.data(), 4'100, 64, &scratch, indices.data()), codec::kNotFinite)
            << name << " at " << place;
      }
    }
  }
}

TEST(Levels, DecodeToTheMeanOfTheValuesInTheirBin) {
  const std::vector<float> values{1, 1, 1.5, -1, 8, 8.5, -9, -7, 1.25, -1.5};
  std::vector<std::uint8_t> codes(values.size());
  const codec::Levels levels = codec::fit_levels(values, 2, codes.data());
  EXPECT_EQ(codes, (std::vector<std::uint8_t>{0, 0, 0, 2, 1, 1, 3, 3, 0, 2}));
  EXPECT_EQ(codec::from_bfloat16(levels.table[0]), 1.1875f);
  EXPECT_EQ(codec::from_bfloat16(levels.table[1]), 8.25f);
  EXPECT_EQ(codec::from_bfloat16(levels.table[2]), -1.25f);
  EXPECT_EQ(codec::from_bfloat16(levels.table[3]), -8.0f);
}

TEST(Levels, StayFiniteForTheLargestValues) {
  const float most = std::numeric_limits<float>::max();
  const std::vector<float> values{most, most, -most, most};
  std::vector<std::uint8_t> codes(values.size());
  for (std::uint32_t bits = 1; bits <= codec::kValueBitsMax; ++bits) {
    const codec::Levels levels = codec::fit_levels(values, bits, codes.data());
    for (const std::uint16_t entry : levels.table) {
      EXPECT_TRUE(std::isfinite(codec::from_bfloat16(entry)));
    }
  }
}

TEST(Levels, LoseLessTheMoreBitsThereAre) {
  Random random(3);
  std::vector<float> values(2'000);
  for (float& value : values) {
    const auto tail = static_cast<float>(2.4 + 0.35 * random.normal() * random.normal());
    value = random.below(2) == 0 ? tail : -tail;
  }
  std::vector<std::uint8_t> codes(values.size());
  double before = 1e9;
  for (std::uint32_t bits = 1; bits <= codec::kValueBitsMax; ++bits) {
    const codec::Levels levels = codec::fit_levels(values, bits, codes.data());
    double error = 0;
    for (std::size_t i = 0; i < values.size(); ++i) {
      const double off = values[i] - codec::from_bfloat16(levels.table[codes[i]]);
      error += off * off;
    }
    EXPECT_LT(error, 0.7 * before) << bits << " bits";
    before = error;
  }
}

Layout small_layout() {
  ModelOptions model;
  model.vocabulary = 500;
  model.width = 40;
  model.layers = 2;
  model.heads = 2;
  model.key_value_heads = 1;
  model.experts = 3;
  model.expert_width = 60;
  return Layout::of(model);
}

std::vector<float> random_residual(const Layout& layout, std::uint64_t seed) {
  Random random(seed);
  std::vector<float> residual(layout.parameters());
  for (float& value : residual) {
    value = static_cast<float>(1e-3 * random.normal() * (0.2 + random.uniform()));
  }
  return residual;
}

std::vector<float> decoded(const Layout& layout, const Update& update, float scale = 1) {
  std::vector<float> dense(layout.parameters());
  for (std::size_t i = 0; i < update.tensors().size(); ++i) {
    const TensorSpec& tensor = layout.tensors()[update.tensors()[i]];
    update.add_to(i, scale, std::span(dense).subspan(tensor.offset, tensor.elements));
  }
  return dense;
}

TEST(Update, ARoundTripSplitsTheResidualIntoWhatIsSentAndWhatIsLeft) {
  const Layout layout = small_layout();
  const std::vector<float> original = random_residual(layout, 1);
  std::vector<float> left = original;
  const Update update(layout, encode_update(layout, {0, 1, 2}, left, {}));
  const std::vector<float> sent = decoded(layout, update);
  std::uint64_t kept = 0;
  for (std::size_t i = 0; i < original.size(); ++i) {
    EXPECT_EQ(left[i], original[i] - sent[i]) << i;
    kept += sent[i] != 0;
  }
  EXPECT_EQ(kept, update.kept());
  EXPECT_EQ(kept, kept_max(layout, {0, 1, 2}, {}));
}

TEST(Update, KeepsTheLargestMagnitudesOfEveryBlock) {
  const Layout layout = small_layout();
  const std::vector<float> original = random_residual(layout, 2);
  std::vector<float> left = original;
  const CodecOptions options{.block_elements = 256, .kept_per_block = 16};
  const Update update(layout, encode_update(layout, {0, 1, 2}, left, options));
  const std::vector<float> sent = decoded(layout, update);
  for (const TensorSpec& tensor : layout.tensors()) {
    for (std::uint64_t start = 0; start < tensor.elements; start += 256) {
      const auto size =
          static_cast<std::size_t>(std::min<std::uint64_t>(256, tensor.elements - start));
      const auto block = std::span(original).subspan(tensor.offset + start, size);
      const auto kept = static_cast<std::uint32_t>(std::max<std::size_t>(1, size * 16 / 256));
      std::vector<std::uint32_t> found;
      for (std::uint32_t i = 0; i < size; ++i) {
        if (sent[tensor.offset + start + i] != 0) found.push_back(i);
      }
      EXPECT_EQ(found, largest_by_sorting(block, kept)) << tensor.name << " from " << start;
    }
  }
}

TEST(Update, SpeaksOnlyOfTheTrunkAndTheExpertsAskedFor) {
  const Layout layout = small_layout();
  const std::vector<float> original = random_residual(layout, 3);
  std::vector<float> left = original;
  const Update update(layout, encode_update(layout, {0, 2}, left, {}));
  EXPECT_EQ(update.experts(), (ExpertSet{0, 2}));
  for (const std::uint32_t index : update.tensors()) EXPECT_NE(layout.tensors()[index].expert, 1);
  for (const TensorSpec& tensor : layout.tensors()) {
    if (tensor.expert != 1) continue;
    for (std::uint64_t i = 0; i < tensor.elements; ++i) {
      EXPECT_EQ(left[tensor.offset + i], original[tensor.offset + i]);
    }
  }
}

TEST(Update, OfNothingTakesABitATensor) {
  const Layout layout = small_layout();
  std::vector<float> residual(layout.parameters());
  const Bytes bytes = encode_update(layout, {0, 1, 2}, residual, {});
  EXPECT_LE(bytes.size(), 20 + layout.tensors().size() / 8);
  const Update update(layout, bytes);
  EXPECT_EQ(update.kept(), 0u);
  EXPECT_TRUE(update.tensors().empty());
}

TEST(Update, AddsScaledValuesInOrderAndWithoutFusing) {
  const Layout layout = small_layout();
  std::vector<float> residual = random_residual(layout, 4);
  const Update update(layout, encode_update(layout, {0, 1, 2}, residual, {}));
  for (std::size_t i = 0; i < update.tensors().size(); ++i) {
    const TensorSpec& tensor = layout.tensors()[update.tensors()[i]];
    std::vector<float> expected(tensor.elements, 0.1f), dense(tensor.elements, 0.1f);
    double norm = 0;
    std::int64_t before = -1;
    update.for_each(i, [&](std::uint64_t index, float value) {
      EXPECT_GT(static_cast<std::int64_t>(index), before);
      before = static_cast<std::int64_t>(index);
      const float product = 0.3f * value;
      expected[index] = expected[index] + product;
      norm += static_cast<double>(value) * static_cast<double>(value);
    });
    update.add_to(i, 0.3f, dense);
    EXPECT_EQ(dense, expected);
    EXPECT_NEAR(update.squared_norm(i), norm, 1e-12 + norm * 1e-12);
  }
}

TEST(Update, TakesAtMostNinePointEightBitsAKeptValue) {
  ModelOptions model;
  model.vocabulary = 1'024;
  const Layout layout = Layout::of(model);
  std::vector<float> residual = random_residual(layout, 5);
  const Update update(layout, encode_update(layout, all_experts(model), residual, {}));
  const double bits =
      8.0 * static_cast<double>(update.bytes().size()) / static_cast<double>(update.kept());
  EXPECT_LE(bits, 9.8);
  EXPECT_GE(bits, 9.36) << "below the entropy of places and values: something is missing";
}

TEST(Update, IsTheSameBytesOnEveryMachine) {
  const Layout layout = small_layout();
  std::vector<float> residual = random_residual(layout, 6);
  EXPECT_EQ(digest_of(encode_update(layout, {0, 1, 2}, residual, {})).hex(),
            "8e18719a99a697049c115388532b041b10e667b7d012058a0ca62e54340647db");
  EXPECT_EQ(digest_of(as_bytes(std::span<const float>(residual))).hex(),
            "83544cfb6d18a607650c1542eb69d0ca6de5bb569629244a09492ae2aae4c3d9");
}

TEST(Update, RefusesAResidualThatIsNotFiniteAndNamesTheTensor) {
  const Layout layout = small_layout();
  std::vector<float> residual = random_residual(layout, 7);
  const TensorSpec& tensor = layout.tensors().back();
  residual[tensor.offset + 5] = std::nanf("");
  try {
    encode_update(layout, {0, 1, 2}, residual, {});
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::not_finite);
    EXPECT_THAT(error.what(), HasSubstr(tensor.name));
  }
}

RC_GTEST_PROP(UpdateProperty, RoundTripsForAnyOptionsAndNeverExceedsItsBounds,
              (std::uint64_t seed)) {
  const Layout layout = small_layout();
  Random random(seed);
  CodecOptions options;
  options.block_elements = 64 + static_cast<std::int64_t>(random.below(6'000));
  options.kept_per_block = 1 + static_cast<std::int64_t>(random.below(4'096));
  options.value_bits = 1 + static_cast<std::int64_t>(random.below(4));
  ExpertSet experts;
  for (std::uint32_t e = 0; e < 3; ++e) {
    if (random.below(2) == 0) experts.push_back(e);
  }
  std::vector<float> original(layout.parameters());
  for (const TensorSpec& tensor : layout.tensors()) {
    const std::vector<float> values =
        block_of(random, tensor.elements, static_cast<int>(random.below(6)));
    std::copy(values.begin(), values.end(),
              original.begin() + static_cast<std::ptrdiff_t>(tensor.offset));
  }
  std::vector<float> left = original;
  const Update update(layout, encode_update(layout, experts, left, options));
  RC_ASSERT(update.experts() == experts);
  RC_ASSERT(update.kept() <= kept_max(layout, experts, options));
  RC_ASSERT(update.bytes().size() <= update_bytes_max(layout, experts, options));
  const std::vector<float> sent = decoded(layout, update);
  for (std::size_t i = 0; i < original.size(); ++i) RC_ASSERT(left[i] == original[i] - sent[i]);
}

// Parses, and if that works reads everything; anything but update_malformed is a failure.
bool is_accepted(const Layout& layout, const Bytes& bytes) {
  try {
    const Update update(layout, bytes);
    const std::vector<float> dense = decoded(layout, update);
    std::uint64_t kept = 0;
    for (std::size_t i = 0; i < update.tensors().size(); ++i) {
      EXPECT_TRUE(std::isfinite(update.squared_norm(i)));
      const std::uint64_t elements = layout.tensors()[update.tensors()[i]].elements;
      update.for_each(i, [&](std::uint64_t index, float value) {
        EXPECT_LT(index, elements);
        EXPECT_TRUE(std::isfinite(value));
        ++kept;
      });
    }
    EXPECT_EQ(kept, update.kept());
    return true;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::update_malformed) << error.what();
    return false;
  }
}

Bytes with_checksum(const Layout& layout, Bytes body) {
  const std::uint64_t checksum = codec::checksum_of(layout, body);
  const auto* tail = reinterpret_cast<const std::uint8_t*>(&checksum);
  body.insert(body.end(), tail, tail + sizeof checksum);
  return body;
}

TEST(HostileUpdate, EveryTruncationAndEveryFlippedBitIsRefused) {
  const Layout layout = small_layout();
  std::vector<float> residual = random_residual(layout, 8);
  const Bytes good = encode_update(layout, {1}, residual, {});
  ASSERT_TRUE(is_accepted(layout, good));
  for (std::size_t size = 0; size < good.size(); ++size) {
    EXPECT_FALSE(
        is_accepted(layout, Bytes(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(size))));
  }
  for (std::size_t bit = 0; bit < good.size() * 8; ++bit) {
    Bytes bad = good;
    bad[bit / 8] = static_cast<std::uint8_t>(bad[bit / 8] ^ 1u << (bit % 8));
    EXPECT_FALSE(is_accepted(layout, bad)) << "bit " << bit;
  }
}

TEST(HostileUpdate, WithAValidChecksumIsStillCheckedFieldByField) {
  const Layout layout = small_layout();
  std::vector<float> residual = random_residual(layout, 9);
  const Bytes good = encode_update(layout, {0, 2}, residual, {.block_elements = 512});
  const Bytes body(good.begin(), good.end() - codec::kChecksumBytes);
  Random random(11);
  int accepted = 0;
  for (int trial = 0; trial < 4'000; ++trial) {
    Bytes bad = body;
    const std::size_t changes = 1 + random.below(4);
    for (std::size_t i = 0; i < changes; ++i) {
      const std::size_t near_start = random.below(3) == 0 ? 64 : bad.size();
      bad[random.below(near_start)] = static_cast<std::uint8_t>(random());
    }
    if (random.below(8) == 0) bad.resize(random.below(bad.size()));
    if (random.below(8) == 0) bad.push_back(0);
    accepted += is_accepted(layout, with_checksum(layout, bad));
  }
  EXPECT_GT(accepted, 0) << "changed levels and low parts are legal updates";
  EXPECT_LT(accepted, 4'000);
}

TEST(HostileUpdate, ForAnotherModelIsRefused) {
  ModelOptions other = small_layout().model();
  other.expert_width = 61;
  const Layout layout = small_layout();
  std::vector<float> residual = random_residual(layout, 10);
  const Bytes bytes = encode_update(layout, {0}, residual, {});
  EXPECT_FALSE(is_accepted(Layout::of(other), bytes));
}

// A quadratic bowl in some 1,400 dimensions; every gradient step goes through the codec. One
// coordinate in eight is so noisy that its gradients are always the largest. Returns
// |w - w*|^2 / |w*|^2 over the quiet coordinates, which only feedback lets through.
double distance_after(int steps, bool feedback, const CodecOptions& options) {
  ModelOptions model;
  model.vocabulary = 64;
  model.width = 8;
  model.layers = 1;
  model.heads = 2;
  model.key_value_heads = 1;
  model.experts = 1;
  model.experts_per_token = 1;
  model.expert_width = 16;
  const Layout layout = Layout::of(model);
  Random random(12);
  std::vector<float> goal(layout.parameters()), curvature(goal.size()), at(goal.size());
  for (float& value : goal) value = static_cast<float>(random.normal());
  for (float& value : curvature) value = static_cast<float>(0.05 + random.uniform());
  std::vector<float> residual(goal.size());
  for (int step = 0; step < steps; ++step) {
    for (std::size_t i = 0; i < at.size(); ++i) {
      const auto noise = static_cast<float>((i % 8 == 0 ? 3.0 : 0.01) * random.normal());
      const float gradient = 0.02f * (curvature[i] * (at[i] - goal[i]) + noise);
      residual[i] =
          feedback ? static_cast<float>(options.error_decay) * residual[i] + gradient : gradient;
    }
    const Update update(layout, encode_update(layout, {0}, residual, options));
    const std::vector<float> sent = decoded(layout, update);
    for (std::size_t i = 0; i < at.size(); ++i) at[i] -= sent[i];
  }
  double off = 0, whole = 0;
  for (std::size_t i = 0; i < at.size(); ++i) {
    if (i % 8 == 0) continue;
    off += (at[i] - goal[i]) * (at[i] - goal[i]);
    whole += goal[i] * goal[i];
  }
  return off / whole;
}

TEST(ErrorFeedback, ConvergesWhereOneInSixtyFourValuesIsSent) {
  const CodecOptions options{.block_elements = 128, .kept_per_block = 2};
  const double with_feedback = distance_after(1'500, true, options);
  const double without = distance_after(1'500, false, options);
  const double undecayed =
      distance_after(1'500, true, {.block_elements = 128, .kept_per_block = 2, .error_decay = 1});
  EXPECT_LT(undecayed, 0.01);     // measured 0.004
  EXPECT_LT(with_feedback, 0.3);  // measured 0.22: what waits longer than 20 steps leaks away
  EXPECT_GT(without, 0.9);        // measured 0.98: the quiet coordinates are never sent
}

}  // namespace
}  // namespace yumoe
