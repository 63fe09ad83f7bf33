// What the layout promises: where each tensor lies, and an initial model that is the same everywhere.

#include "router/layout.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "cluster/error.hpp"

namespace yumoe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

ModelOptions small_model() {
  ModelOptions model;
  model.vocabulary = 32;
  model.width = 8;
  model.layers = 2;
  model.heads = 2;
  model.key_value_heads = 1;
  model.experts = 3;
  model.expert_width = 16;
  return model;
}

const TensorSpec& named(const Layout& layout, const std::string& name) {
  const auto found = std::find_if(layout.tensors().begin(), layout.tensors().end(),
                                  [&](const TensorSpec& t) { return t.name == name; });
  EXPECT_NE(found, layout.tensors().end()) << name;
  return *found;
}

TEST(Layout, LeavesNoGapBetweenTensors) {
  const Layout layout = Layout::of(ModelOptions{});
  std::uint64_t offset = 0;
  for (const TensorSpec& tensor : layout.tensors()) {
    EXPECT_EQ(tensor.offset, offset) << tensor.name;
    offset += tensor.elements;
  }
  EXPECT_EQ(layout.parameters(), offset);
}

TEST(Layout, GivesEveryTensorTheShapeOfTheModel) {
  const Layout layout = Layout::of(small_model());
  EXPECT_THAT(named(layout, "embedding").shape, ElementsAre(32, 8));
  EXPECT_THAT(named(layout, "layer.1.key").shape, ElementsAre(4, 8));
  EXPECT_THAT(named(layout, "layer.0.gate").shape, ElementsAre(3, 8));
  EXPECT_THAT(named(layout, "layer.1.expert.2.gate_up").shape, ElementsAre(32, 8));
  EXPECT_THAT(named(layout, "layer.1.expert.2.down").shape, ElementsAre(8, 16));
  EXPECT_EQ(named(layout, "layer.1.expert.2.down").layer, 1);
  EXPECT_EQ(named(layout, "layer.1.expert.2.down").expert, 2);
  EXPECT_EQ(named(layout, "final_norm").expert, -1);
}

TEST(Layout, PutsTheTrunkFirstAndEachExpertInOneRange) {
  const Layout layout = Layout::of(small_model());
  for (const TensorSpec& tensor : layout.tensors()) {
    if (tensor.expert < 0) {
      EXPECT_LE(tensor.offset + tensor.elements, layout.trunk_parameters());
      continue;
    }
    const std::uint64_t start =
        layout.trunk_parameters() +
        static_cast<std::uint64_t>(tensor.expert) * layout.expert_parameters();
    EXPECT_GE(tensor.offset, start);
    EXPECT_LE(tensor.offset + tensor.elements, start + layout.expert_parameters());
  }
}

TEST(Layout, ListsTrunkAndHeldExpertsOnly) {
  const Layout layout = Layout::of(small_model());
  std::uint64_t elements = 0;
  for (const TensorSpec* tensor : layout.tensors_of({0, 2})) {
    EXPECT_NE(tensor->expert, 1);
    elements += tensor->elements;
  }
  EXPECT_EQ(elements, layout.trunk_parameters() + 2 * layout.expert_parameters());
  EXPECT_EQ(layout.tensors_of(all_experts(layout.model())).size(), layout.tensors().size());
}

TEST(Layout, AnotherShapeIsAnotherDigest) {
  ModelOptions wider = small_model();
  wider.expert_width = 17;
  EXPECT_EQ(Layout::of(small_model()).digest(), Layout::of(small_model()).digest());
  EXPECT_NE(Layout::of(small_model()).digest(), Layout::of(wider).digest());
}

TEST(Layout, RefusesAModelThatCannotBeBuiltAndNamesTheOption) {
  const auto refusal = [](auto change) {
    ModelOptions model = small_model();
    change(model);
    try {
      Layout::of(model);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::config_invalid);
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  EXPECT_THAT(refusal([](ModelOptions& m) { m.heads = 3; }), HasSubstr("model.heads"));
  EXPECT_THAT(refusal([](ModelOptions& m) { m.heads = 8; }), HasSubstr("even"));
  EXPECT_THAT(refusal([](ModelOptions& m) { m.key_value_heads = 3; }),
              HasSubstr("key_value_heads"));
  EXPECT_THAT(refusal([](ModelOptions& m) { m.experts_per_token = 4; }),
              HasSubstr("experts_per_token"));
}

TEST(Initialise, StartsNormsAtOneAndMatricesWithTheirDeviation) {
  const Layout layout = Layout::of(ModelOptions{});
  std::vector<float> parameters(layout.parameters());
  initialise(layout, 5, parameters);
  for (const TensorSpec& tensor : layout.tensors()) {
    double sum = 0, squares = 0;
    for (std::uint64_t i = 0; i < tensor.elements; ++i) {
      const double value = parameters[tensor.offset + i];
      sum += value;
      squares += value * value;
    }
    const double count = static_cast<double>(tensor.elements);
    if (tensor.initial == Initial::ones) {
      EXPECT_EQ(sum, count);
      continue;
    }
    const double deviation = tensor.initial_deviation;
    EXPECT_NEAR(sum / count, 0, 5 * deviation / std::sqrt(count)) << tensor.name;
    EXPECT_NEAR(std::sqrt(squares / count), deviation, 5 * deviation / std::sqrt(count))
        << tensor.name;
  }
}

TEST(Initialise, IsTheSameBitsOnEveryMachine) {
  const Layout layout = Layout::of(small_model());
  std::vector<float> parameters(layout.parameters());
  initialise(layout, 1, parameters);
  EXPECT_EQ(digest_of_parameters(layout, parameters).hex(),
            "bbbd75f4dfa1d955092d6c499ca29d46e95f85fa7d066f852ed474c7f2325503");
}

TEST(Initialise, GivesATensorTheSameValuesWhateverStandsBeforeIt) {
  const Layout layout = Layout::of(small_model());
  std::vector<float> first(layout.parameters());
  initialise(layout, 1, first);
  ModelOptions model = small_model();
  model.vocabulary = 64;  // twice the embedding, same number of tensors
  const Layout larger = Layout::of(model);
  std::vector<float> second(larger.parameters());
  initialise(larger, 1, second);
  const TensorSpec& a = named(layout, "layer.1.expert.2.down");
  const TensorSpec& b = named(larger, "layer.1.expert.2.down");
  EXPECT_TRUE(std::equal(first.begin() + static_cast<std::ptrdiff_t>(a.offset),
                         first.begin() + static_cast<std::ptrdiff_t>(a.offset + a.elements),
                         second.begin() + static_cast<std::ptrdiff_t>(b.offset)));
}

}  // namespace
}  // namespace yumoe
