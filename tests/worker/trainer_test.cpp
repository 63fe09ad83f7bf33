// Training shards and measuring models: reproducible, learning, honest about what is not a number.

#include "worker/trainer.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "cluster/error.hpp"
#include "cluster/random.hpp"
#include "worker/evaluator.hpp"

namespace yumoe {
namespace {

ModelOptions small_model() {
  ModelOptions model;
  model.vocabulary = 128;
  model.context = 32;
  model.width = 32;
  model.layers = 2;
  model.heads = 4;
  model.key_value_heads = 2;
  model.experts = 4;
  model.expert_width = 48;
  return model;
}

InnerOptions quick_training() {
  InnerOptions inner;
  inner.batch_sequences = 4;
  inner.learning_rate = 5e-3;
  inner.warmup_steps = 5;
  inner.total_steps = 100;
  return inner;
}

// Windows of one short text, from a place that depends on the position.
void read_text(std::uint64_t position, std::span<std::uint16_t> tokens) {
  static const std::string text =
      "the quick brown fox jumps over the lazy dog while the slow red hen sleeps under the barn. ";
  const std::uint64_t start = derive_seed("test", {position}) % text.size();
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    tokens[i] = static_cast<std::uint16_t>(text[(start + i) % text.size()]);
  }
}

TrainingShard shard_of(const InnerOptions& inner, std::uint32_t steps, ExpertSet experts) {
  TrainingShard shard;
  shard.round = RoundId{1};
  shard.inner_steps = steps;
  shard.data = {0, steps * static_cast<std::uint64_t>(inner.batch_sequences)};
  shard.experts = std::move(experts);
  return shard;
}

std::vector<float> initial(const ModelOptions& model) {
  const Layout layout = Layout::of(model);
  std::vector<float> parameters(layout.parameters());
  initialise(layout, 1, parameters);
  return parameters;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

struct Trained {
  TrainingResult result;
  std::vector<float> delta;
};

Trained train(Trainer& trainer, const TrainingShard& shard, std::size_t parameters,
              const OnStep& on_step = {}) {
  Trained trained;
  trained.result = trainer.train(shard, read_text, on_step);
  trained.delta.resize(parameters);
  trainer.pseudo_gradient(trained.delta);
  return trained;
}

TEST(Trainer, LossFallsOnASmallText) {
  const ModelOptions model = small_model();
  const InnerOptions inner = quick_training();
  Trainer trainer(model, inner, {});
  trainer.load_base(initial(model), {});
  std::vector<double> losses;
  const TrainingResult result = trainer.train(shard_of(inner, 60, all_experts(model)), read_text,
                                              [&](const StepReport& step) {
                                                losses.push_back(step.loss);
                                                return true;
                                              });
  EXPECT_EQ(result.steps, 60U);
  EXPECT_EQ(result.tokens, 60U * 4 * 32);
  EXPECT_NEAR(result.loss_first, std::log(128.0), 0.3);
  EXPECT_LT(result.loss_last, 0.5 * result.loss_first);
  EXPECT_EQ(losses.size(), 60U);
  EXPECT_EQ(losses.back(), result.loss_last);
  std::uint64_t assigned = 0;
  for (const std::uint32_t count : result.expert_tokens) assigned += count;
  EXPECT_EQ(assigned, result.tokens * 2 * 2);  // two layers, two experts a token
}

TEST(Trainer, AShardWithFreshMomentsIsTheSameBitsWhateverWasTrainedBefore) {
  const ModelOptions model = small_model();
  const InnerOptions inner = quick_training();
  const std::vector<float> base = initial(model);
  const TrainingShard shard = shard_of(inner, 6, {0, 2, 3});
  for (const std::int64_t threads : {2, 1}) {  // the last is what other tests go on with
    DeviceOptions device;
    device.threads = threads;
    Trainer once(model, inner, device);
    once.load_base(base, {});
    const Trained first = train(once, shard, base.size());
    Trainer busy(model, inner, device);
    busy.load_base(base, {});
    train(busy, shard_of(inner, 3, all_experts(model)), base.size());
    train(busy, shard_of(inner, 2, {0, 2, 3}), base.size());
    const Trained second = train(busy, shard, base.size());
    EXPECT_TRUE(same_bits(first.delta, second.delta)) << threads;
    EXPECT_TRUE(same_bits(first.result.gate_bias, second.result.gate_bias)) << threads;
    EXPECT_EQ(first.result.loss_last, second.result.loss_last) << threads;
    EXPECT_EQ(first.result.expert_tokens, second.result.expert_tokens) << threads;
  }
}

TEST(Trainer, KeepsMomentsToTheVeryNextRoundAndSaysSinceWhen) {
  const ModelOptions model = small_model();
  InnerOptions inner = quick_training();
  inner.moments_rounds = 3;
  const std::vector<float> base = initial(model);
  const auto shard = [&](std::uint64_t round, std::uint16_t uid = 0) {
    TrainingShard made = shard_of(inner, 3, {0, 2, 3});
    made.round = {round};
    made.uid = {uid};
    return made;
  };
  Trainer trainer(model, inner, {});
  trainer.load_base(base, {});
  const auto from = [&](const TrainingShard& one) {
    return train(trainer, one, base.size()).result.moments_from.value;
  };
  EXPECT_EQ(from(shard(4)), 4);
  EXPECT_EQ(from(shard(5)), 4);
  const Trained third = train(trainer, shard(6), base.size());
  EXPECT_EQ(third.result.moments_from.value, 4);
  EXPECT_EQ(from(shard(7)), 7);       // three rounds are over
  EXPECT_EQ(from(shard(9)), 9);       // a round was missed
  EXPECT_EQ(from(shard(10, 1)), 10);  // somebody else's
  TrainingShard others = shard(11, 1);
  others.experts = {0, 2};
  EXPECT_EQ(from(others), 11);  // other experts
  trainer.train(shard(12), read_text, [](const StepReport& report) { return report.step < 2; });
  EXPECT_EQ(from(shard(13)), 13);  // the one before was stopped

  // Whoever trains the shards since then gets the same bits; whoever starts at the last does not.
  Trainer again(model, inner, {});
  again.load_base(base, {});
  train(again, shard(4), base.size());
  train(again, shard(5), base.size());
  EXPECT_TRUE(same_bits(train(again, shard(6), base.size()).delta, third.delta));
  Trainer fresh(model, inner, {});
  fresh.load_base(base, {});
  EXPECT_FALSE(same_bits(train(fresh, shard(6), base.size()).delta, third.delta));
}

TEST(Trainer, AStoppedShardEqualsAShorterOne) {
  const ModelOptions model = small_model();
  const InnerOptions inner = quick_training();
  const std::vector<float> base = initial(model);
  Trainer trainer(model, inner, {});
  trainer.load_base(base, {});
  const Trained stopped = train(trainer, shard_of(inner, 9, {1, 2}), base.size(),
                                [](const StepReport& step) { return step.step < 4; });
  EXPECT_EQ(stopped.result.steps, 4U);
  const Trained shorter = train(trainer, shard_of(inner, 4, {1, 2}), base.size());
  EXPECT_TRUE(same_bits(stopped.delta, shorter.delta));
}

TEST(Trainer, TouchesTheTrunkAndItsExpertsOnly) {
  const ModelOptions model = small_model();
  const InnerOptions inner = quick_training();
  const Layout layout = Layout::of(model);
  const std::vector<float> base = initial(model);
  Trainer trainer(model, inner, {});
  trainer.load_base(base, {});
  const TrainingResult result = trainer.train(shard_of(inner, 2, {1, 3}), read_text);
  std::vector<float> delta(base.size(), 42.0F);
  trainer.pseudo_gradient(delta);
  for (const TensorSpec& tensor : layout.tensors()) {
    const bool is_held = tensor.expert < 0 || tensor.expert == 1 || tensor.expert == 3;
    bool untouched = true;
    for (std::uint64_t i = 0; i < tensor.elements; ++i) {
      untouched = untouched && delta[tensor.offset + i] == 42.0F;
    }
    EXPECT_EQ(untouched, !is_held) << tensor.name;
  }
  for (std::size_t place = 0; place < result.expert_tokens.size(); ++place) {
    const bool is_held = place % 4 == 1 || place % 4 == 3;
    EXPECT_EQ(result.expert_tokens[place] > 0, is_held) << place;
    if (!is_held) {
      EXPECT_EQ(result.gate_bias[place], 0) << place;
    }
  }
}

TEST(Trainer, BalancesFromTheBiasItIsGiven) {
  const ModelOptions model = small_model();
  const InnerOptions inner = quick_training();
  Trainer trainer(model, inner, {});
  const std::vector<float> bias{100, 100, 0, 0, 0, 0, 100, 100};
  trainer.load_base(initial(model), bias);
  const TrainingResult result = trainer.train(shard_of(inner, 2, all_experts(model)), read_text);
  EXPECT_EQ(result.expert_tokens[2], 0U);
  EXPECT_EQ(result.expert_tokens[3], 0U);
  EXPECT_EQ(result.expert_tokens[4], 0U);
  EXPECT_EQ(result.expert_tokens[0], result.tokens);
  EXPECT_LT(result.gate_bias[0], 100);
  EXPECT_GT(result.gate_bias[2], 0);
}

TEST(Trainer, ReportsWhatIsNotANumberAndGoesOn) {
  const ModelOptions model = small_model();
  const InnerOptions inner = quick_training();
  std::vector<float> base = initial(model);
  const std::vector<float> good = base;
  base[5] = std::numeric_limits<float>::quiet_NaN();
  Trainer trainer(model, inner, {});
  trainer.load_base(base, {});
  const TrainingShard shard = shard_of(inner, 2, all_experts(model));
  try {
    base[static_cast<std::size_t>(' ') * 32] = base[5];
    trainer.load_base(base, {});
    trainer.train(shard, read_text);
    FAIL() << "NaN went through";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::not_finite);
    EXPECT_NE(std::string(error.what()).find("step 1 of 2"), std::string::npos);
  }
  trainer.load_base(good, {});
  EXPECT_TRUE(std::isfinite(trainer.train(shard, read_text).loss_last));
}

TEST(Trainer, RefusesARangeTooShortForItsSteps) {
  const ModelOptions model = small_model();
  const InnerOptions inner = quick_training();
  Trainer trainer(model, inner, {});
  TrainingShard shard = shard_of(inner, 2, all_experts(model));
  EXPECT_THROW(trainer.train(shard, read_text), Error);  // no base
  trainer.load_base(initial(model), {});
  shard.data.count -= 1;
  EXPECT_THROW(trainer.train(shard, read_text), Error);
}

TEST(Trainer, SleepsToItsShareOfTheSpeed) {
  const ModelOptions model = small_model();
  const InnerOptions inner = quick_training();
  DeviceOptions slow;
  slow.speed_share = 0.2;
  Trainer trainer(model, inner, slow);
  trainer.load_base(initial(model), {});
  timespec before{}, after{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before);
  const TrainingResult result = trainer.train(shard_of(inner, 5, all_experts(model)), read_text);
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after);
  const double busy = static_cast<double>(after.tv_sec - before.tv_sec) +
                      1e-9 * static_cast<double>(after.tv_nsec - before.tv_nsec);
  EXPECT_GT(result.seconds_in_steps, 3 * busy);
}

TEST(Evaluator, AgreesWithTheTrainersLoss) {
  const ModelOptions model = small_model();
  const InnerOptions inner = quick_training();
  const std::vector<float> base = initial(model);
  const std::vector<float> bias{0, 0.1F, 0, 0, 0, 0, 0.2F, 0};
  Trainer trainer(model, inner, {});
  trainer.load_base(base, bias);
  const TrainingResult result = trainer.train(shard_of(inner, 1, all_experts(model)), read_text);
  Evaluator evaluator(model, {});
  evaluator.load_base(base, bias);
  const auto windows = read_windows(read_text, 0, 4, 32);
  const WindowLosses& losses = evaluator.base(windows);
  ASSERT_EQ(losses.losses.size(), 4U);
  EXPECT_NEAR(losses.mean(), result.loss_first, 1e-6);
}

TEST(Evaluator, AContributionThatWasTrainedLowersTheLossAndTheBaseStays) {
  const ModelOptions model = small_model();
  const InnerOptions inner = quick_training();
  const Layout layout = Layout::of(model);
  const std::vector<float> base = initial(model);
  Trainer trainer(model, inner, {});
  trainer.load_base(base, {});
  Trained trained = train(trainer, shard_of(inner, 20, {0, 1, 2}), base.size());
  CodecOptions dense_enough;
  dense_enough.kept_per_block = 512;
  dense_enough.value_bits = 4;
  const Update update(layout, encode_update(layout, {0, 1, 2}, trained.delta, dense_enough));

  Evaluator evaluator(model, {});
  evaluator.load_base(base, {});
  const auto windows = read_windows(read_text, 1'000, 11, 32);
  const WindowLosses before = evaluator.base(windows);
  const WindowLosses whole =
      evaluator.with(change_by(layout, update, 1, Part::whole(update)), windows);
  const WindowLosses trunk = evaluator.with(change_by(layout, update, 1, {true, {}}), windows);
  const WindowLosses nothing = evaluator.with(change_by(layout, update, 1, {false, {}}), windows);
  const WindowLosses worse =
      evaluator.with(change_by(layout, update, -1, Part::whole(update)), windows);
  ASSERT_EQ(whole.losses.size(), 11U);
  for (std::size_t i = 0; i < 11; ++i) EXPECT_LT(whole.losses[i], before.losses[i]) << i;
  EXPECT_LT(trunk.mean(), before.mean());
  EXPECT_EQ(nothing.losses, before.losses);
  EXPECT_GT(worse.mean(), before.mean());
  EXPECT_EQ(evaluator.base(windows).losses, before.losses);
}

TEST(Evaluator, SaysWhenAChangeLeadsToNoNumber) {
  const ModelOptions model = small_model();
  Evaluator evaluator(model, {});
  evaluator.load_base(initial(model), {});
  const auto windows = read_windows(read_text, 0, 2, 32);
  EXPECT_TRUE(evaluator.base(windows).is_finite);
  const WindowLosses broken = evaluator.with(
      [](std::span<float> p) { p[32 * ' '] = std::numeric_limits<float>::infinity(); }, windows);
  EXPECT_FALSE(broken.is_finite);
  EXPECT_TRUE(evaluator.base(windows).is_finite);
}

TEST(Evaluator, TurnsNatsATokenIntoBitsAByte) {
  EXPECT_NEAR(bits_per_byte(std::log(256.0), 1.0), 8.0, 1e-12);
  EXPECT_NEAR(bits_per_byte(std::log(256.0), 4.0), 2.0, 1e-12);
}

TEST(Device, AMissingDeviceIsNamed) {
  DeviceOptions device;
  device.device = "cuda:77";
  try {
    Trainer(small_model(), {}, device);
    FAIL() << "there are no 78 CUDA devices";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::device_missing);
  }
}

}  // namespace
}  // namespace yumoe
