// An island, its ranks in threads, against one process: losses, counts, every gradient, whole shards; and
// what happens when a rank is lost. Over MPI: tests/system/island.py.

#include <ATen/Parallel.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <mutex>
#include <thread>

#include "cluster/error.hpp"
#include "cluster/random.hpp"
#include "model/model.hpp"
#include "worker/trainer.hpp"

namespace yumoe {
namespace {

using std::chrono::milliseconds;

constexpr std::int32_t kAll = ExpertShare::kEverywhere;

ModelOptions small_model() {
  ModelOptions model;
  model.vocabulary = 50;
  model.context = 8;
  model.width = 16;
  model.layers = 2;
  model.heads = 2;
  model.key_value_heads = 1;
  model.experts = 6;
  model.expert_width = 24;
  model.shared_expert_width = 8;
  return model;
}

std::vector<std::uint16_t> random_rows(const ModelOptions& model, std::int64_t sequences) {
  Random random(5);
  std::vector<std::uint16_t> rows(static_cast<std::size_t>(sequences * (model.context + 1)));
  for (auto& token : rows) token = static_cast<std::uint16_t>(random.below(50));
  return rows;
}

template <typename Work>
void on_island(int ranks, const Work& work) {
  auto group = in_process_group(ranks, milliseconds(60'000));
  std::vector<std::jthread> threads;
  for (auto& member : group) {
    threads.emplace_back([&work, own = std::move(member)] {
      at::set_num_threads(1);
      work(*own);
    });
  }
}

double relative(std::span<const float> a, std::span<const float> b) {
  double worst = 0, most = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    worst = std::max(worst, std::abs(static_cast<double>(a[i]) - b[i]));
    most = std::max(most, std::abs(static_cast<double>(b[i])));
  }
  return worst / (most + 1e-12);
}

class Island : public testing::TestWithParam<std::vector<std::int32_t>> {};

TEST_P(Island, ComputesWhatOneProcessComputes) {
  const ModelOptions options = small_model();
  const Layout layout = Layout::of(options);
  const ExpertSet held = {0, 1, 2, 4, 5};
  const RoutingOptions routing{.experts_per_token = 2, .balance_loss = 0.02, .router_z_loss = 0.01};
  std::vector<float> parameters(layout.parameters());
  initialise(layout, 3, parameters);
  std::vector<float> bias(static_cast<std::size_t>(options.layers * options.experts));
  bias[1] = 0.8F;  // one expert sees nearly everything, another nothing
  bias[4] = -2.0F;
  const auto rows = random_rows(options, 7);
  Model whole(layout, held, routing, c10::Device(c10::kCPU), true);
  whole.load(parameters);
  const BatchResult expected = whole.train(rows, bias);
  const double squares = whole.gradients().square().sum().item().toDouble();

  std::mutex mutex;
  int ranks = 1;
  for (const std::int32_t owner : GetParam()) ranks = std::max(ranks, owner + 1);
  on_island(ranks, [&](Collective& group) {
    Model part(layout, held, routing, c10::Device(c10::kCPU), true,
               ExpertShare{.group = &group, .owner = GetParam()});
    part.load(parameters);
    const BatchResult result = part.train(rows, bias);
    const double all_squares = part.gradient_squares();
    const BatchResult measured = part.evaluate(rows, bias);
    const std::lock_guard lock(mutex);
    EXPECT_EQ(result.counts, expected.counts);
    EXPECT_NEAR(result.auxiliary, expected.auxiliary, 1e-6);
    EXPECT_LT(relative(result.losses, expected.losses), 1e-6);
    EXPECT_EQ(measured.losses, result.losses);
    EXPECT_NEAR(all_squares, squares, 1e-5 * squares);
    const auto trunk = layout.trunk_parameters(), expert = layout.expert_parameters();
    const std::span<const float> all(whole.gradients().const_data_ptr<float>(),
                                     static_cast<std::size_t>(whole.gradients().numel()));
    const std::span<const float> own(part.gradients().const_data_ptr<float>(),
                                     static_cast<std::size_t>(part.gradients().numel()));
    EXPECT_LT(relative(own.subspan(0, trunk), all.subspan(0, trunk)), 2e-6);
    std::size_t at = 0;
    for (std::size_t i = 0; i < held.size(); ++i) {
      if (!part.share()->is_here(i)) continue;
      EXPECT_LT(relative(own.subspan(trunk + at * expert, expert),
                         all.subspan(trunk + i * expert, expert)),
                2e-6)
          << "expert " << held[i] << " on rank " << group.rank();
      ++at;
    }
  });
}

INSTANTIATE_TEST_SUITE_P(Shares, Island,
                         testing::Values(std::vector<std::int32_t>{0, 0, 0, 0, 0},
                                         std::vector<std::int32_t>{0, 0, 1, 1, 1},
                                         std::vector<std::int32_t>{1, 0, 2, 0, 1},
                                         std::vector<std::int32_t>{0, kAll, 1, 1, 0},
                                         std::vector<std::int32_t>{kAll, kAll, 2, 1, 0}));

TEST(Island, SendsABatchInSeveralPieces) {
  // Enough tokens an expert that exchanges overlap with products: the same results still.
  ModelOptions options = small_model();
  options.context = 128;
  options.layers = 1;
  const Layout layout = Layout::of(options);
  const ExpertSet held = all_experts(options);
  std::vector<float> parameters(layout.parameters());
  initialise(layout, 3, parameters);
  const auto rows = random_rows(options, 21);
  Model whole(layout, held, {}, c10::Device(c10::kCPU), true);
  whole.load(parameters);
  const BatchResult expected = whole.train(rows, {});
  on_island(2, [&](Collective& group) {
    Model part(layout, held, {}, c10::Device(c10::kCPU), true,
               ExpertShare{.group = &group, .owner = {0, 0, 0, 1, 1, 1}});
    part.load(parameters);
    EXPECT_LT(relative(part.train(rows, {}).losses, expected.losses), 1e-6);
    const auto trunk = layout.trunk_parameters();
    const auto gradient = [](Model& model) { return model.gradients().const_data_ptr<float>(); };
    EXPECT_LT(relative({gradient(part), trunk}, {gradient(whole), trunk}), 5e-6);
    const std::size_t expert = layout.expert_parameters();
    EXPECT_LT(
        relative({gradient(part) + trunk, 3 * expert},
                 {gradient(whole) + trunk + (group.rank() == 0 ? 0 : 3 * expert), 3 * expert}),
        5e-6);
  });
}

TEST(Island, TrainsShardsAsOneProcessDoes) {
  const ModelOptions options = small_model();
  const Layout layout = Layout::of(options);
  InnerOptions inner;
  inner.batch_sequences = 6;
  const DeviceOptions device{.device = "cpu", .threads = 1};
  std::vector<float> base(layout.parameters());
  initialise(layout, 3, base);
  TrainingShard shard;
  shard.round = {1};
  shard.inner_steps = 4;
  shard.data = {0, 24};
  shard.experts = {0, 1, 2, 3, 5};
  const WindowReader windows = [](std::uint64_t position, std::span<std::uint16_t> tokens) {
    Random random(position);
    for (auto& token : tokens) token = static_cast<std::uint16_t>(random.below(50));
  };
  const auto train = [&](Collective* island) {
    Trainer trainer(options, inner, device, island);
    trainer.load_base(base, {});
    std::vector<std::vector<float>> deltas;
    std::vector<TrainingResult> results;
    for (int i = 0; i < 2; ++i) {  // the second shares experts out by what the first saw
      results.push_back(trainer.train(shard, windows));
      trainer.keep_alive();
      deltas.emplace_back(base.size());
      trainer.pseudo_gradient(deltas.back());
    }
    return std::pair(deltas, results);
  };
  const auto [expected, reports] = train(nullptr);
  on_island(3, [&, &expected = expected, &reports = reports](Collective& group) {
    if (group.rank() != 0) {
      follow_trainer(group, device);
      return;
    }
    const auto [deltas, results] = train(&group);
    end_followers(group);
    for (std::size_t i = 0; i < 2; ++i) {
      EXPECT_EQ(results[i].tokens, reports[i].tokens);
      EXPECT_EQ(results[i].expert_tokens, reports[i].expert_tokens);
      EXPECT_NEAR(results[i].loss_last, reports[i].loss_last, 1e-5);
      EXPECT_LT(relative(deltas[i], expected[i]), 5e-3) << "shard " << i;
    }
  });
}

TEST(Island, SharesExpertsOutByWhatTheySaw) {
  EXPECT_EQ(share_experts({}, 4, 2, 2), (std::vector<std::int32_t>{0, 1, 0, 1}));
  // The busiest two do not meet.
  EXPECT_EQ(share_experts(std::vector<std::int64_t>{100, 1, 90, 1}, 4, 2, 0),
            (std::vector<std::int32_t>{0, 1, 1, 0}));
  // One that has more than a rank's share is held by all.
  EXPECT_EQ(share_experts(std::vector<std::int64_t>{10, 1'000, 10, 10}, 4, 2, 2),
            (std::vector<std::int32_t>{0, kAll, 1, 0}));
  EXPECT_EQ(share_experts(std::vector<std::int64_t>{10, 10, 10, 10}, 4, 2, 2),
            (std::vector<std::int32_t>{0, 1, 0, 1}));
}

TEST(Island, RefusesMoreRanksThanExperts) {
  const Layout layout = Layout::of(small_model());
  on_island(3, [&](Collective& group) {
    try {
      Model part(layout, {0, 1}, {}, c10::Device(c10::kCPU), true,
                 ExpertShare{.group = &group, .owner = {0, 1}});
      ADD_FAILURE();
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::config_invalid);
      EXPECT_THAT(error.what(), testing::HasSubstr("3 ranks cannot share 2 experts"));
    }
  });
}

TEST(Island, EndsWithTheNameOfARankThatIsLostWithinAStep) {
  const ModelOptions options = small_model();
  InnerOptions inner;
  inner.batch_sequences = 6;
  const DeviceOptions device{.device = "cpu", .threads = 1};
  std::vector<float> base(Layout::of(options).parameters());
  initialise(Layout::of(options), 3, base);
  TrainingShard shard;
  shard.round = {1};
  shard.inner_steps = 50;
  shard.data = {0, 300};
  shard.experts = all_experts(options);
  std::atomic<int> named = 0;
  on_island(3, [&](Collective& group) {
    try {
      if (group.rank() == 2) {
        // Takes part up to somewhere within the fifth step, then is gone.
        struct Stop {};
        class Dying final : public Collective {
         public:
          explicit Dying(Collective& group) : group_(group) {}
          int rank() const override { return group_.rank(); }
          int size() const override { return group_.size(); }
          void wait_at_most(milliseconds wait) override { group_.wait_at_most(wait); }
          void all_reduce_sum(std::span<float> v) override { group_.all_reduce_sum(v); }
          void all_gather(ByteView mine, std::span<std::uint8_t> all) override {
            group_.all_gather(mine, all);
          }
          void broadcast(std::span<std::uint8_t> bytes, int root) override {
            group_.broadcast(bytes, root);
          }
          void barrier() override { group_.barrier(); }
          std::unique_ptr<Exchange> start_all_to_all_v(ByteView send,
                                                       std::span<const std::size_t> s,
                                                       std::span<std::uint8_t> receive,
                                                       std::span<const std::size_t> r) override {
            if (++exchanges_ > 40) throw Stop{};
            return group_.start_all_to_all_v(send, s, receive, r);
          }
          void progress() override { group_.progress(); }
          std::unique_ptr<Collective> reform() override { return group_.reform(); }

         private:
          Collective& group_;
          int exchanges_ = 0;
        } dying(group);
        try {
          follow_trainer(dying, device);
        } catch (const Stop&) {
        }
        return;  // the thread's member of the group is destroyed
      }
      if (group.rank() == 1) {
        follow_trainer(group, device);
      } else {
        Trainer trainer(options, inner, device, &group);
        trainer.load_base(base, {});
        trainer.train(shard, [](std::uint64_t, std::span<std::uint16_t> tokens) {
          std::fill(tokens.begin(), tokens.end(), std::uint16_t{1});
        });
      }
      ADD_FAILURE() << "rank " << group.rank() << " noticed nothing";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::collective_failed);
      EXPECT_THAT(error.what(), testing::HasSubstr("rank 2 of 3"));
      ++named;
    }
  });
  EXPECT_EQ(named, 2);
}

}  // namespace
}  // namespace yumoe
