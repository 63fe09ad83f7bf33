// The model's fused path against plain autograd: MoE layer, whole model, subsets, empty experts.

#include "model/model.hpp"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/variable.h>

#include <cmath>
#include <string>
#include <vector>

#include "cluster/error.hpp"
#include "cluster/random.hpp"
#include "model/device.hpp"

namespace yumoe {
namespace {

double distance(const at::Tensor& a, const at::Tensor& b) {
  return ((a - b).abs().max() / (b.abs().max() + 0.1)).item().toDouble();
}

Parameter random_parameter(std::int64_t rows, std::int64_t columns) {
  return {at::randn({rows, columns}).div_(std::sqrt(static_cast<double>(columns))),
          at::zeros({rows, columns}).fill_(7)};  // backward must overwrite
}

FeedForward random_feed_forward(kernels::Activation activation, std::int64_t width,
                                std::int64_t inner) {
  return {random_parameter(kernels::hidden_columns(activation, inner), width),
          random_parameter(width, inner)};
}

MoeLayer random_layer(kernels::Activation activation, std::int64_t experts, ExpertSet held,
                      std::int64_t width, std::int64_t inner) {
  MoeLayer layer;
  layer.activation = activation;
  layer.gate = random_parameter(experts, width);
  layer.held = std::move(held);
  for (std::size_t e = 0; e < layer.held.size(); ++e) {
    layer.experts.push_back(random_feed_forward(activation, width, inner));
  }
  return layer;
}

// The layer as one would write it down: token by token, expert by expert, by autograd.
struct LoopLayer {
  at::Tensor gate;
  std::vector<std::pair<at::Tensor, at::Tensor>> experts;
  std::optional<std::pair<at::Tensor, at::Tensor>> shared;

  explicit LoopLayer(const MoeLayer& layer) : gate(leaf(layer.gate)) {
    for (const FeedForward& e : layer.experts) experts.emplace_back(leaf(e.first), leaf(e.second));
    if (layer.shared) shared.emplace(leaf(layer.shared->first), leaf(layer.shared->second));
  }
  static at::Tensor leaf(const Parameter& p) { return p.value.clone().set_requires_grad(true); }

  static at::Tensor feed(kernels::Activation activation, const at::Tensor& x,
                         const std::pair<at::Tensor, at::Tensor>& w) {
    const at::Tensor h = at::linear(x, w.first);
    if (activation == kernels::Activation::gelu) return at::linear(at::gelu(h), w.second);
    const auto halves = h.chunk(2, -1);
    return at::linear(at::silu(halves[0]) * halves[1], w.second);
  }

  // Returns output and auxiliary loss; chooses exactly what `routing` chose.
  std::pair<at::Tensor, at::Tensor> run(const MoeLayer& layer, const at::Tensor& x,
                                        const Routing& routing) const {
    const at::Tensor logits = at::linear(x, gate);
    const at::Tensor affinity = at::sigmoid(logits);
    const std::int64_t k = routing.experts_per_token;
    std::vector<at::Tensor> rows;
    for (std::int64_t t = 0; t < x.size(0); ++t) {
      at::Tensor sum = at::zeros({}), row = at::zeros({x.size(1)});
      for (std::int64_t j = 0; j < k; ++j) sum = sum + affinity[t][expert(layer, routing, t, j)];
      for (std::int64_t j = 0; j < k; ++j) {
        const auto position =
            static_cast<std::size_t>(routing.chosen[static_cast<std::size_t>(t * k + j)]);
        row = row + feed(layer.activation, x[t], experts[position]) *
                        (affinity[t][expert(layer, routing, t, j)] / sum);
      }
      rows.push_back(shared ? row + feed(layer.activation, x[t], *shared) : row);
    }
    return {at::stack(rows), auxiliary(layer, logits, affinity, routing)};
  }

  static std::int64_t expert(const MoeLayer& layer, const Routing& routing, std::int64_t t,
                             std::int64_t j) {
    const auto slot = static_cast<std::size_t>(t * routing.experts_per_token + j);
    return layer.held[static_cast<std::size_t>(routing.chosen[slot])];
  }

  static at::Tensor auxiliary(const MoeLayer& layer, const at::Tensor& logits,
                              const at::Tensor& affinity, const Routing& routing) {
    std::vector<at::Tensor> held_logits, held_affinity;
    for (const std::uint32_t e : layer.held) {
      held_logits.push_back(logits.select(1, e));
      held_affinity.push_back(affinity.select(1, e));
    }
    const at::Tensor l = at::stack(held_logits, 1), a = at::stack(held_affinity, 1);
    at::Tensor balance = at::zeros({});
    const at::Tensor share = (a / a.sum(1, true)).mean(0);
    for (std::size_t e = 0; e < layer.held.size(); ++e) {
      const double load = static_cast<double>(routing.begin[e + 1] - routing.begin[e]) /
                          static_cast<double>(routing.chosen.size());
      balance = balance + share[static_cast<std::int64_t>(e)] * load;
    }
    return at::logsumexp(l, {1}).square().mean() * layer.routing.router_z_loss +
           balance * (static_cast<double>(layer.held.size()) * layer.routing.balance_loss);
  }
};

void expect_same_gradients(const MoeLayer& layer, const std::vector<float>& bias) {
  const std::int64_t tokens = 23, width = layer.gate.value.size(1);
  const at::Tensor x = at::randn({tokens, width}).set_requires_grad(true);
  const at::Tensor residual = at::randn({tokens, width}).set_requires_grad(true);
  const at::Tensor dy = at::randn({tokens, width});
  MoeReport report;
  const at::Tensor y = apply_moe(layer, residual, x, bias, report);
  y.backward(dy);
  const at::Tensor dx = x.grad().clone();

  const at::Tensor logits = at::linear(x.detach(), layer.gate.value).contiguous();
  const Routing routing =
      route({logits.const_data_ptr<float>(), static_cast<std::size_t>(logits.numel())},
            logits.size(1), bias, layer.held, layer.routing);
  const at::Tensor again = x.detach().clone().set_requires_grad(true);
  const LoopLayer loop(layer);
  const auto [expected, auxiliary] = loop.run(layer, again, routing);
  ((expected * dy).sum() + auxiliary).backward();

  EXPECT_LT(distance(y - residual, expected), 2e-5);
  EXPECT_LT(distance(residual.grad(), dy), 1e-6);
  EXPECT_LT(distance(dx, again.grad()), 2e-5);
  EXPECT_LT(distance(layer.gate.gradient, loop.gate.grad()), 2e-5);
  EXPECT_NEAR(report.auxiliary, auxiliary.item().toDouble(), 1e-5);
  for (std::size_t e = 0; e < layer.experts.size(); ++e) {
    const auto expected_or_zero = [&](const at::Tensor& w) {
      return w.grad().defined() ? w.grad() : at::zeros_like(w);
    };
    EXPECT_LT(distance(layer.experts[e].first.gradient, expected_or_zero(loop.experts[e].first)),
              2e-5);
    EXPECT_LT(distance(layer.experts[e].second.gradient, expected_or_zero(loop.experts[e].second)),
              2e-5);
  }
  if (layer.shared) {
    EXPECT_LT(distance(layer.shared->first.gradient, loop.shared->first.grad()), 2e-5);
    EXPECT_LT(distance(layer.shared->second.gradient, loop.shared->second.grad()), 2e-5);
  }
}

TEST(MoeLayer, ForwardAndBackwardEqualALoopOverTokens) {
  expect_same_gradients(random_layer(kernels::Activation::swiglu, 4, {0, 1, 2, 3}, 20, 37), {});
  expect_same_gradients(random_layer(kernels::Activation::gelu, 4, {0, 1, 2, 3}, 20, 37), {});
}

TEST(MoeLayer, SharedExpertBiasAndAuxiliaryLossesHaveTheirGradients) {
  MoeLayer layer = random_layer(kernels::Activation::swiglu, 6, {0, 1, 2, 3, 4, 5}, 16, 24);
  layer.shared = random_feed_forward(layer.activation, 16, 19);
  layer.routing.balance_loss = 0.3;
  layer.routing.router_z_loss = 0.2;
  expect_same_gradients(layer, {0.5F, -0.5F, 0, 0.1F, -0.2F, 0});
}

TEST(MoeLayer, GatesOverTheExpertsItHolds) {
  MoeLayer layer = random_layer(kernels::Activation::swiglu, 8, {1, 4, 6}, 16, 24);
  layer.routing.balance_loss = 0.3;
  expect_same_gradients(layer, {});
  for (const std::int64_t absent : {0, 2, 3, 5, 7}) {
    EXPECT_EQ(layer.gate.gradient[absent].abs().max().item().toDouble(), 0) << absent;
  }
}

TEST(MoeLayer, HoldingFewerExpertsThanATokenWantsUsesAllOfThem) {
  expect_same_gradients(random_layer(kernels::Activation::swiglu, 4, {2}, 16, 24), {});
}

TEST(MoeLayer, ExpertsThatSeeNoTokenGetZeroGradients) {
  const MoeLayer layer = random_layer(kernels::Activation::swiglu, 5, {0, 1, 2, 3, 4}, 16, 24);
  const std::vector<float> bias{-100, 0, -100, 0, -100};
  expect_same_gradients(layer, bias);
  for (const std::size_t idle : {0U, 2U, 4U}) {
    EXPECT_EQ(layer.experts[idle].first.gradient.abs().max().item().toDouble(), 0);
    EXPECT_EQ(layer.experts[idle].second.gradient.abs().max().item().toDouble(), 0);
  }
}

TEST(Routing, TiesGoToTheLowerIndexAndBiasChoosesButDoesNotWeigh) {
  const std::vector<float> logits{0, 0, 0, 0};
  const std::vector<std::uint32_t> held{0, 1, 2, 3};
  const Routing tied = route(logits, 4, {}, held, {.experts_per_token = 2});
  EXPECT_EQ(tied.chosen, (std::vector<std::int32_t>{0, 1}));
  const std::vector<float> bias{0, 0, 9, 9};
  const Routing biased = route(logits, 4, bias, held, {.experts_per_token = 2});
  EXPECT_EQ(biased.chosen, (std::vector<std::int32_t>{2, 3}));
  EXPECT_EQ(biased.weight, (std::vector<float>{0.5F, 0.5F}));
}

ModelOptions small_model() {
  ModelOptions model;
  model.vocabulary = 61;
  model.context = 12;
  model.width = 24;
  model.layers = 2;
  model.heads = 4;
  model.key_value_heads = 2;
  model.experts = 5;
  model.expert_width = 20;
  return model;
}

std::vector<std::uint16_t> random_rows(const ModelOptions& model, std::size_t sequences) {
  Random random(3);
  std::vector<std::uint16_t> rows(sequences * static_cast<std::size_t>(model.context + 1));
  for (auto& token : rows)
    token = static_cast<std::uint16_t>(random.below(static_cast<std::uint64_t>(model.vocabulary)));
  return rows;
}

void expect_fused_equals_plain(const ModelOptions& options, const ExpertSet& held) {
  const Layout layout = Layout::of(options);
  std::vector<float> parameters(layout.parameters());
  initialise(layout, 5, parameters);
  Random random(9);
  for (float& p : parameters) p += static_cast<float>(random.normal()) * 0.05F;
  std::vector<float> bias(static_cast<std::size_t>(options.layers * options.experts));
  for (float& b : bias) b = static_cast<float>(random.normal()) * 0.1F;
  const RoutingOptions routing{.balance_loss = 0.1, .router_z_loss = 0.05};
  Model model(layout, held, routing, c10::Device(c10::kCPU), true);
  model.load(parameters);
  const auto rows = random_rows(options, 3);
  const BatchResult fused = model.train(rows, bias);
  const at::Tensor gradient = model.gradients().clone();
  const BatchResult evaluated = model.evaluate(rows, bias);
  model.use_plain();
  const BatchResult plain = model.train(rows, bias);

  EXPECT_EQ(fused.losses, evaluated.losses);
  EXPECT_NEAR(fused.mean(), plain.mean(), 1e-5);
  EXPECT_NEAR(fused.auxiliary, plain.auxiliary, 1e-5);
  EXPECT_EQ(fused.counts, plain.counts);
  EXPECT_LT(distance(gradient, model.gradients()), 1e-4);
  for (const Model::Range& range : model.ranges()) {
    EXPECT_LT(distance(gradient.narrow(0, range.begin, range.count),
                       model.gradients().narrow(0, range.begin, range.count)),
              1e-4);
  }
}

TEST(Model, FusedPathEqualsPlainAutograd) {
  ModelOptions options = small_model();
  expect_fused_equals_plain(options, all_experts(options));
  options.tied_embedding = false;
  options.shared_expert_width = 16;
  options.key_value_heads = 4;
  expect_fused_equals_plain(options, {0, 2, 3});
}

TEST(Model, AnUnknownDeviceIsNamed) {
  EXPECT_THROW(open_device("gpu"), Error);
  EXPECT_THROW(open_device("cuda:999"), Error);
}

TEST(Model, TokensBeyondTheVocabularyAreRefused) {
  const ModelOptions options = small_model();
  Model model(Layout::of(options), all_experts(options), {}, c10::Device(c10::kCPU), false);
  std::vector<std::uint16_t> rows = random_rows(options, 1);
  rows[3] = 61;
  EXPECT_THROW(model.evaluate(rows, {}), Error);
  rows.pop_back();
  EXPECT_THROW(model.evaluate(rows, {}), Error);
}

}  // namespace
}  // namespace yumoe
