// A model some of whose experts are on other machines: the same losses and gradients as in one process,
// training and measuring with it, and what is left when calls are lost or experts are gone.

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/zeros_like.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "cluster/error.hpp"
#include "model/device.hpp"
#include "model/model.hpp"
#include "worker/evaluator.hpp"
#include "worker/expert_servers.hpp"
#include "worker/feed_forward_experts.hpp"
#include "worker/trainer.hpp"

namespace yumoe {
namespace {

using std::chrono::milliseconds;

const DeviceOptions kDevice{.device = "cpu", .threads = 1};

ModelOptions small_model() {
  ModelOptions model;
  model.vocabulary = 64;
  model.context = 16;
  model.width = 32;
  model.layers = 2;
  model.heads = 2;
  model.key_value_heads = 1;
  model.experts = 4;
  model.expert_width = 24;
  model.shared_expert_width = 16;
  return model;
}

Layout small_layout() { return Layout::of(small_model()); }

const std::vector<float>& parameters() {
  static const std::vector<float> values = [] {
    std::vector<float> made(small_layout().parameters());
    initialise(small_layout(), 5, made);
    return made;
  }();
  return values;
}

void read_numbers(std::uint64_t position, std::span<std::uint16_t> tokens) {
  const std::uint64_t start = derive_seed("test", {position}) % 41;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    tokens[i] = static_cast<std::uint16_t>((start + i * i % 7 + i) % 41);
  }
}

struct Elsewhere {
  explicit Elsewhere(const ExpertSet& experts, const Trouble& trouble = {})
      : server(
            "base", trouble,
            [experts] {
              return feed_forward_experts(small_layout(), parameters(), experts, kDevice, {});
            },
            3) {
    for (std::uint32_t layer = 0; layer < 2; ++layer) {
      for (const std::uint32_t expert : experts) place.experts.emplace_back(layer, expert);
    }
    place.address = server.address();
  }
  ExpertServerThread server;
  ExpertPlace place;
};

const Digest kVersion = digest_of(as_bytes(std::string_view("base")));

DispatchOptions patient() {
  DispatchOptions options;
  options.strikes_max = 32;
  options.attempts_max = 32;
  options.deadline_max_ms = 500;
  return options;
}

RemoteExperts remote_at(std::vector<ExpertPlace> places, DispatchOptions options = patient()) {
  return RemoteExperts(std::move(places), kVersion, 32, options);
}

Model model_of(const ExpertSet& held, RemoteExperts* remote, const ExpertSet& elsewhere,
               const RoutingOptions& routing = {}) {
  Model model(small_layout(), held, routing, open_device("cpu"), true, std::nullopt,
              remote ? std::optional(RemoteShare{remote, elsewhere}) : std::nullopt);
  model.load(parameters());
  return model;
}

double relative(std::span<const float> a, std::span<const float> b) {
  double most = 0, largest = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    most = std::max(most, std::abs(static_cast<double>(a[i]) - b[i]));
    largest = std::max(largest, std::abs(static_cast<double>(b[i])));
  }
  return most / largest;
}

TEST(RemoteModel, ComputesAndDifferentiatesAsOneProcessDoes) {
  at::set_num_threads(1);
  const Elsewhere there({1, 2});
  RemoteExperts remote = remote_at({there.place});
  const RoutingOptions routing{.balance_loss = 0.01, .router_z_loss = 0.001};
  Model whole = model_of({0, 1, 2, 3}, nullptr, {}, routing);
  Model part = model_of({0, 1, 2, 3}, &remote, {1, 2}, routing);
  EXPECT_EQ(part.placed(), (ExpertSet{0, 3}));
  const auto rows = read_windows(read_numbers, 0, 3, 16);
  const BatchResult a = part.train(rows, {}), b = whole.train(rows, {});
  EXPECT_LT(relative(a.losses, b.losses), 1e-6);
  EXPECT_EQ(a.counts, b.counts);
  EXPECT_NEAR(a.auxiliary, b.auxiliary, 1e-7);
  const auto trunk = static_cast<std::size_t>(small_layout().trunk_parameters()),
             expert = static_cast<std::size_t>(small_layout().expert_parameters());
  const std::span<const float> mine(part.gradients().const_data_ptr<float>(), trunk + 2 * expert),
      theirs(whole.gradients().const_data_ptr<float>(), trunk + 4 * expert);
  EXPECT_LT(relative(mine.first(trunk), theirs.first(trunk)), 1e-5);
  EXPECT_LT(relative(mine.subspan(trunk, expert), theirs.subspan(trunk, expert)), 1e-5);
  EXPECT_LT(relative(mine.subspan(trunk + expert), theirs.subspan(trunk + 3 * expert)), 1e-5);
  EXPECT_EQ(part.evaluate(rows, {}).losses, a.losses);
  EXPECT_EQ(remote.counts().given_up, 0U);
}

TEST(RemoteModel, HoldsNoExpertItselfIfAllAreElsewhere) {
  const Elsewhere there({0, 1, 2, 3});
  RemoteExperts remote = remote_at({there.place});
  Model part = model_of({0, 1, 2, 3}, &remote, {0, 1, 2, 3});
  Model whole = model_of({0, 1, 2, 3}, nullptr, {});
  const auto rows = read_windows(read_numbers, 9, 2, 16);
  EXPECT_LT(relative(part.train(rows, {}).losses, whole.train(rows, {}).losses), 1e-6);
  EXPECT_EQ(part.parameters().numel(),
            static_cast<std::int64_t>(small_layout().trunk_parameters()));
}

// Experts that are gone are left out and the others weigh more; the gradient is of what was computed.
TEST(RemoteModel, LeavesOutExpertsThatAreGoneAndItsGradientKnows) {
  at::set_num_threads(1);
  auto there = std::make_unique<Elsewhere>(ExpertSet{1, 2});
  DispatchOptions options;
  options.deadline_max_ms = 200;
  options.strikes_max = 1;
  options.rest_ms = 600'000;
  RemoteExperts remote = remote_at({there->place}, options);
  there.reset();
  Model part = model_of({0, 1, 2, 3}, &remote, {1, 2});
  const auto rows = read_windows(read_numbers, 0, 3, 16);
  part.evaluate(rows, {});  // the first calls find out
  const std::uint64_t asked = remote.counts().requests;
  const BatchResult result = part.train(rows, {});
  EXPECT_EQ(remote.counts().requests, asked);
  for (const float loss : result.losses) ASSERT_TRUE(std::isfinite(loss));
  Model whole = model_of({0, 1, 2, 3}, nullptr, {});
  EXPECT_GT(relative(result.losses, whole.evaluate(rows, {}).losses), 1e-5);
  // Along the gradient the loss changes by its square.
  const at::Tensor gradient = part.gradients().clone(), start = part.parameters().clone();
  const double squares = gradient.square().sum().item().toDouble();
  const double h = 1e-3 / std::sqrt(squares);
  const auto loss_at = [&](double step) {
    part.parameters().copy_(start + gradient * step);
    return part.evaluate(rows, {}).mean();
  };
  EXPECT_NEAR((loss_at(h) - loss_at(-h)) / (2 * h), squares, 0.03 * squares);
  // And along the gates' part alone.
  at::Tensor gates = at::zeros_like(gradient);
  const Layout layout = small_layout();
  for (const TensorSpec& tensor : layout.tensors()) {
    if (!tensor.name.ends_with(".gate")) continue;
    const auto at = static_cast<std::int64_t>(tensor.offset),
               count = static_cast<std::int64_t>(tensor.elements);
    gates.narrow(0, at, count).copy_(gradient.narrow(0, at, count));
  }
  const double gate_squares = gates.square().sum().item().toDouble();
  ASSERT_GT(gate_squares, 0);
  const double small = 5e-3 / std::sqrt(gate_squares);
  const auto loss_along = [&](double step) {
    part.parameters().copy_(start + gates * step);
    return part.evaluate(rows, {}).mean();
  };
  EXPECT_NEAR((loss_along(small) - loss_along(-small)) / (2 * small), gate_squares,
              0.05 * gate_squares);
}

// Computes forward only.
class OneWay final : public ExpertCompute {
 public:
  explicit OneWay(std::unique_ptr<ExpertCompute> real) : real_(std::move(real)) {}
  bool holds(std::uint32_t layer, std::uint32_t expert) const override {
    return real_->holds(layer, expert);
  }
  std::size_t width() const override { return real_->width(); }
  std::unique_ptr<KeptRows> forward(std::uint32_t layer, std::uint32_t expert, Bytes x,
                                    std::span<float> y, bool keep) override {
    return real_->forward(layer, expert, std::move(x), y, keep);
  }
  void backward(std::uint32_t, std::uint32_t, const KeptRows&, std::span<const float>,
                std::span<float>) override {
    throw Error(ErrorCode::not_finite, "backward is not done here");
  }

 private:
  std::unique_ptr<ExpertCompute> real_;
};

// Whose backward is lost counts as one that was gone from the start: the gradient is of what was computed.
TEST(RemoteModel, DoesAStepAgainWithoutAnExpertWhoseBackwardIsLost) {
  at::set_num_threads(1);
  const Elsewhere good({2});
  auto gone = std::make_unique<Elsewhere>(ExpertSet{1});
  ExpertServerThread one_way("base", {}, [] {
    return std::make_unique<OneWay>(
        feed_forward_experts(small_layout(), parameters(), {1}, kDevice, {}));
  });
  const ExpertPlace one_way_place{one_way.address(), {{0, 1}, {1, 1}}};
  DispatchOptions options = patient();
  options.attempts_max = 2;  // the server does not rest: it answers each forward
  const auto rows = read_windows(read_numbers, 0, 3, 16);
  RemoteExperts lossy = remote_at({good.place, one_way_place}, options);
  Model part = model_of({0, 1, 2, 3}, &lossy, {1, 2});
  const BatchResult result = part.train(rows, {});
  EXPECT_EQ(lossy.counts().given_up, 2U) << "of each layer once";

  options.deadline_max_ms = 200;
  options.strikes_max = 1;
  options.rest_ms = 600'000;
  const ExpertPlace gone_place = gone->place;
  gone.reset();
  RemoteExperts without = remote_at({good.place, gone_place}, options);
  Model other = model_of({0, 1, 2, 3}, &without, {1, 2});
  EXPECT_EQ(other.train(rows, {}).losses, result.losses);
  EXPECT_EQ(relative({part.gradients().const_data_ptr<float>(),
                      static_cast<std::size_t>(part.gradients().numel())},
                     {other.gradients().const_data_ptr<float>(),
                      static_cast<std::size_t>(other.gradients().numel())}),
            0);
  // The next step asks it again.
  EXPECT_LT(relative(part.evaluate(rows, {}).losses,
                     model_of({0, 1, 2, 3}, nullptr, {}).evaluate(rows, {}).losses),
            1e-6);
}

InnerOptions quick_training() {
  InnerOptions inner;
  inner.batch_sequences = 2;
  inner.learning_rate = 5e-3;
  inner.warmup_steps = 2;
  inner.total_steps = 100;
  return inner;
}

TrainingShard shard_of(std::uint32_t steps, ExpertSet experts) {
  TrainingShard shard;
  shard.round = RoundId{1};
  shard.inner_steps = steps;
  shard.data = {0, steps * 2ULL};
  shard.experts = std::move(experts);
  return shard;
}

struct Trained {
  std::vector<double> losses;
  std::vector<float> delta;
  TrainingResult result;
  RemoteCounts counts;
};

Trained train_with(const Trouble& trouble, std::uint32_t steps) {
  const Elsewhere there({1, 2, 3}, trouble);
  RemoteExperts remote = remote_at({there.place});
  Trainer trainer(small_model(), quick_training(), kDevice);
  trainer.load_base(parameters(), {});
  trainer.use_remote(&remote, {1, 2, 3});
  Trained trained;
  trained.result =
      trainer.train(shard_of(steps, {0, 3}), read_numbers, [&](const StepReport& step) {
        trained.losses.push_back(step.loss);
        return true;
      });
  trained.delta.assign(parameters().size(), 7);
  trainer.pseudo_gradient(trained.delta);
  trained.counts = remote.counts();
  return trained;
}

TEST(RemoteTraining, TrainsTrunkAndOwnExpertsAndCountsNoOthers) {
  const Trained trained = train_with({}, 30);
  EXPECT_LT(trained.losses.back(), 0.8 * trained.losses.front());
  const Layout layout = small_layout();
  for (const TensorSpec& tensor : layout.tensors()) {
    const bool is_own = tensor.expert < 0 || tensor.expert == 0 || tensor.expert == 3;
    EXPECT_EQ(trained.delta[tensor.offset] == 7, !is_own) << tensor.name;
  }
  for (std::size_t i = 0; i < trained.result.expert_tokens.size(); ++i) {
    const bool is_own = i % 4 == 0 || i % 4 == 3;
    EXPECT_EQ(trained.result.expert_tokens[i] == 0, !is_own) << i;
  }
}

TEST(RemoteTraining, IsTheSameBitsWhenATenthOfTheCallsIsLostAndSomeAreASecondLate) {
  const Trained quiet = train_with({}, 15);
  const Trained troubled =
      train_with({.lost = 0.05, .damaged = 0.02, .late = 0.02, .requests_lost = 0.05}, 15);
  EXPECT_EQ(troubled.counts.given_up, 0U);
  EXPECT_GT(troubled.counts.requests, quiet.counts.requests);
  EXPECT_EQ(troubled.losses, quiet.losses);
  EXPECT_EQ(troubled.delta, quiet.delta);
}

TEST(RemoteEvaluation, MeasuresWhatOneProcessMeasuresWithReplicasOfWhichOneDies) {
  const Elsewhere one({0, 1, 2});
  auto two = std::make_unique<Elsewhere>(ExpertSet{0, 1, 2, 3});
  RemoteExperts remote = remote_at({one.place, two->place});
  const ExpertSet there = remote.use(kVersion, milliseconds(5'000));
  ASSERT_EQ(there.size(), 4U);
  Evaluator local(small_model(), kDevice), far(small_model(), kDevice, &remote, {0, 1, 2});
  for (Evaluator* evaluator : {&local, &far}) evaluator->load_base(parameters(), {});
  const auto rows = read_windows(read_numbers, 0, 9, 16),
             more = read_windows(read_numbers, 50, 9, 16);
  EXPECT_NEAR(far.base(rows).mean(), local.base(rows).mean(), 1e-6);
  two.reset();
  EXPECT_NEAR(far.base(more).mean(), local.base(more).mean(), 1e-6);
  EXPECT_EQ(remote.counts().given_up, 0U);
}

}  // namespace
}  // namespace yumoe
