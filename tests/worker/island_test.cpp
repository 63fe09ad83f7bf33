// An island, its ranks in threads, against one process: losses, counts, every gradient, whole shards; and
// what happens when a rank is lost. Over MPI: tests/system/island.py.

#include "trainer/island.hpp"

#include <ATen/Parallel.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <mutex>
#include <new>
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

// A group that says its memory is a device's, over the host's: the path of GPUs, on CPU tensors. Reading before
// drain() is the one thing that cannot be noticed here.
class AsDevice final : public Collective {
 public:
  explicit AsDevice(std::unique_ptr<Collective> host) : host_(std::move(host)) {}
  int rank() const override { return host_->rank(); }
  int size() const override { return host_->size(); }
  bool on_device() const override { return true; }
  void drain() override { ++drained; }
  Collective& host() override { return *host_; }
  void wait_at_most(milliseconds wait) override { host_->wait_at_most(wait); }
  void all_reduce_sum(std::span<float> v) override { host_->all_reduce_sum(v); }
  void all_gather(ByteView mine, std::span<std::uint8_t> all) override {
    host_->all_gather(mine, all);
  }
  void broadcast(std::span<std::uint8_t> bytes, int root) override {
    host_->broadcast(bytes, root);
  }
  void barrier() override { host_->barrier(); }
  std::unique_ptr<Exchange> start_all_to_all_v(ByteView send, std::span<const std::size_t> s,
                                               std::span<std::uint8_t> receive,
                                               std::span<const std::size_t> r) override {
    return host_->start_all_to_all_v(send, s, receive, r);
  }
  void progress() override { host_->progress(); }
  std::unique_ptr<Collective> reform() override {
    return std::make_unique<AsDevice>(host_->reform());
  }

  int drained = 0;

 private:
  std::unique_ptr<Collective> host_;
};

// Runs `work` in a thread a rank.
template <typename Work>
void as_islands(int ranks, const Work& work, bool as_device = false) {
  auto group = in_process_group(ranks, milliseconds(60'000));
  std::vector<std::jthread> threads;
  for (auto& member : group) {
    if (as_device) member = std::make_unique<AsDevice>(std::move(member));
    threads.emplace_back([&work, own = std::move(member)]() mutable {
      at::set_num_threads(1);
      work(Island(std::move(own)));
    });
  }
}

template <typename Work>
void on_island(int ranks, const Work& work, bool as_device = false) {
  as_islands(
      ranks, [&](Island island) { work(island.group()); }, as_device);
}

double relative(std::span<const float> a, std::span<const float> b) {
  double worst = 0, most = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    worst = std::max(worst, std::abs(static_cast<double>(a[i]) - b[i]));
    most = std::max(most, std::abs(static_cast<double>(b[i])));
  }
  return worst / (most + 1e-12);
}

class IslandShares : public testing::TestWithParam<std::vector<std::int32_t>> {
 protected:
  void compare(bool as_device);
};

TEST_P(IslandShares, ComputesWhatOneProcessComputes) { compare(false); }
TEST_P(IslandShares, ComputesWhatOneProcessComputesOnTheDevicesPath) { compare(true); }

void IslandShares::compare(bool as_device) {
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
  const auto check = [&](Collective& group) {
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
    if (!as_device) {
      EXPECT_EQ(measured.losses, result.losses);
    }
    EXPECT_LT(relative(measured.losses, result.losses), 1e-6);
    EXPECT_NEAR(all_squares, squares, 1e-5 * squares);
    const auto trunk = layout.trunk_parameters(), expert = layout.expert_parameters();
    const std::span<const float> all(whole.gradients().const_data_ptr<float>(),
                                     static_cast<std::size_t>(whole.gradients().numel()));
    const std::span<const float> own(part.gradients().const_data_ptr<float>(),
                                     static_cast<std::size_t>(part.gradients().numel()));
    const double near = as_device ? 1e-5 : 2e-6;  // whole is fused
    EXPECT_LT(relative(own.subspan(0, trunk), all.subspan(0, trunk)), near);
    std::size_t at = 0;
    for (std::size_t i = 0; i < held.size(); ++i) {
      if (!part.share()->is_here(i)) continue;
      EXPECT_LT(relative(own.subspan(trunk + at * expert, expert),
                         all.subspan(trunk + i * expert, expert)),
                near)
          << "expert " << held[i] << " on rank " << group.rank();
      ++at;
    }
    // Once a layer for the lengths of its exchanges, and once for the losses; trained and measured.
    if (as_device) {
      EXPECT_EQ(dynamic_cast<AsDevice&>(group).drained, 2 * (options.layers + 1));
    }
  };
  on_island(ranks, check, as_device);
}

INSTANTIATE_TEST_SUITE_P(All, IslandShares,
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

class IslandShards : public testing::TestWithParam<bool> {};

TEST_P(IslandShards, TrainAsOneProcessDoes) {
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
  const auto train = [&](Island* island) {
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
  as_islands(
      3,
      [&, &expected = expected, &reports = reports](Island island) {
        if (island.group().rank() != 0) {
          follow_trainer(island, device);
          return;
        }
        const auto [deltas, results] = train(&island);
        end_followers(island);
        for (std::size_t i = 0; i < 2; ++i) {
          EXPECT_EQ(results[i].tokens, reports[i].tokens);
          EXPECT_EQ(results[i].expert_tokens, reports[i].expert_tokens);
          EXPECT_NEAR(results[i].loss_last, reports[i].loss_last, 1e-5);
          EXPECT_LT(relative(deltas[i], expected[i]), 5e-3) << "shard " << i;
        }
      },
      GetParam());
}

INSTANTIATE_TEST_SUITE_P(OnTheHostsAndTheDevicesPath, IslandShards, testing::Values(false, true));

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

// A member that takes part up to some exchange of tokens, or broadcast, then is gone.
struct Died {};
struct Life {
  int exchanges = 1'000'000, broadcasts = 1'000'000;
};
class Dying final : public Collective {
 public:
  Dying(std::unique_ptr<Collective> group, Life life) : group_(std::move(group)), life_(life) {}
  int rank() const override { return group_->rank(); }
  int size() const override { return group_->size(); }
  void wait_at_most(milliseconds wait) override { group_->wait_at_most(wait); }
  void all_reduce_sum(std::span<float> v) override { group_->all_reduce_sum(v); }
  void all_gather(ByteView mine, std::span<std::uint8_t> all) override {
    group_->all_gather(mine, all);
  }
  void broadcast(std::span<std::uint8_t> bytes, int root) override {
    if (--life_.broadcasts < 0) throw Died{};
    group_->broadcast(bytes, root);
  }
  void barrier() override { group_->barrier(); }
  std::unique_ptr<Exchange> start_all_to_all_v(ByteView send, std::span<const std::size_t> s,
                                               std::span<std::uint8_t> receive,
                                               std::span<const std::size_t> r) override {
    if (--life_.exchanges < 0) throw Died{};
    return group_->start_all_to_all_v(send, s, receive, r);
  }
  void progress() override { group_->progress(); }
  std::unique_ptr<Collective> reform() override {
    return std::make_unique<Dying>(group_->reform(), life_);
  }

 private:
  std::unique_ptr<Collective> group_;
  Life life_;
};

// What an island of three does with two shards of four steps when `victims`, by rank, are gone at some time.
struct Lived {
  std::vector<std::vector<float>> deltas;
  std::vector<TrainingResult> results;
  std::vector<std::uint32_t> reported;  // steps
  int ranks = 0, given_up = 0;          // at the end; ranks that saw no way on
  std::string why;
};

Lived lose(const std::map<int, Life>& victims, bool together = true, bool as_device = false) {
  const ModelOptions options = small_model();
  InnerOptions inner;
  inner.batch_sequences = 6;
  inner.moments_rounds = 4;
  const DeviceOptions device{.device = "cpu", .threads = 1};
  std::vector<float> base(Layout::of(options).parameters());
  initialise(Layout::of(options), 3, base);
  TrainingShard shard;
  shard.inner_steps = 4;
  shard.data = {0, 24};
  shard.experts = all_experts(options);
  std::mutex mutex;
  Lived lived;
  const auto speak = [&](Island* island) {
    Trainer trainer(options, inner, device, island);
    for (std::uint64_t round = 1; round <= 2; ++round) {
      shard.round = {round};
      trainer.load_base(base, {});
      lived.results.push_back(trainer.train(
          shard,
          [](std::uint64_t position, std::span<std::uint16_t> tokens) {
            Random random(position);
            for (auto& token : tokens) token = static_cast<std::uint16_t>(random.below(50));
          },
          [&](const StepReport& report) {
            lived.reported.push_back(report.step);
            return true;
          }));
      trainer.keep_alive();
      lived.deltas.emplace_back(base.size());
      trainer.pseudo_gradient(lived.deltas.back());
      lived.ranks = trainer.ranks();
    }
  };
  if (!together) {
    speak(nullptr);
    return lived;
  }
  auto group = in_process_group(3, milliseconds(60'000));
  std::vector<std::jthread> threads;
  for (auto& member : group) {
    const int rank = member->rank();
    if (const auto victim = victims.find(rank); victim != victims.end()) {
      member = std::make_unique<Dying>(std::move(member), victim->second);
    }
    if (as_device) member = std::make_unique<AsDevice>(std::move(member));
    threads.emplace_back([&, rank, own = std::move(member)]() mutable {
      at::set_num_threads(1);
      Island island(std::move(own));
      try {
        if (rank == 0) {
          speak(&island);
          end_followers(island);
        } else {
          follow_trainer(island, device);
        }
      } catch (const Died&) {
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::collective_failed);
        const std::lock_guard lock(mutex);
        ++lived.given_up;
        lived.why = error.what();
      }
    });
  }
  threads.clear();
  return lived;
}

TEST(Island, GoesOnWithoutALostRankAndDoesTheShardAgainFromItsBase) {
  const Lived alone = lose({}, false);
  // A step has 13 exchanges. Within the second; while the first shard's parameters are collected; within
  // the second shard.
  for (const int exchanges : {15, 52, 60}) {
    for (const int victim : {1, 2}) {
      const Lived lived = lose({{victim, {.exchanges = exchanges}}});
      ASSERT_EQ(lived.deltas.size(), 2U) << "victim " << victim << " at exchange " << exchanges;
      EXPECT_EQ(lived.ranks, 2);
      EXPECT_EQ(lived.given_up, 0) << lived.why;
      for (std::size_t i = 0; i < 2; ++i) {
        EXPECT_EQ(lived.results[i].steps, 4U);
        EXPECT_EQ(lived.results[i].tokens, alone.results[i].tokens);
        // Moments of a shard that was begun again are fresh, as where experts went elsewhere.
        if (i == 1 && exchanges == 60) {
          EXPECT_EQ(lived.results[i].moments_from.value, 2U);
        }
        if (lived.results[i].moments_from != alone.results[i].moments_from) continue;
        EXPECT_LT(relative(lived.deltas[i], alone.deltas[i]), 5e-3) << "shard " << i;
      }
      if (exchanges == 15) {
        EXPECT_EQ((std::vector<std::uint32_t>(lived.reported.begin(), lived.reported.begin() + 3)),
                  (std::vector<std::uint32_t>{1, 1, 2}));
      }
    }
  }
}

TEST(Island, GoesOnWithoutALostRankOnTheDevicesPath) {
  const Lived alone = lose({}, false), lived = lose({{1, {.exchanges = 15}}}, true, true);
  ASSERT_EQ(lived.deltas.size(), 2U) << lived.why;
  EXPECT_EQ(lived.ranks, 2);
  EXPECT_LT(relative(lived.deltas[0], alone.deltas[0]), 5e-3);
}

TEST(Island, LosesASecondRankAfterItFormedAgainAndGoesOnWithOne) {
  const Lived alone = lose({}, false);
  // The one that is left after rank 1's end is in the second step of its second try.
  const Lived lived = lose({{1, {.exchanges = 15}}, {2, {.exchanges = 32}}});
  ASSERT_EQ(lived.deltas.size(), 2U) << lived.why;
  EXPECT_EQ(lived.ranks, 1);
  EXPECT_EQ(lived.given_up, 0) << lived.why;
  for (std::size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(lived.results[i].tokens, alone.results[i].tokens);
    EXPECT_LT(relative(lived.deltas[i], alone.deltas[i]), 5e-3) << "shard " << i;
  }
}

TEST(Island, GoesOnWithoutARankThatIsLostBetweenShards) {
  const Lived alone = lose({}, false);
  // A rank hears 15 broadcasts of the first shard, one of keep_alive and two of the second one's base.
  for (const int broadcasts : {15, 16, 17}) {
    const Lived lived = lose({{2, {.broadcasts = broadcasts}}});
    ASSERT_EQ(lived.deltas.size(), 2U) << lived.why << " at broadcast " << broadcasts;
    EXPECT_EQ(lived.ranks, 2);
    EXPECT_EQ(lived.given_up, 0) << lived.why;
    EXPECT_LT(relative(lived.deltas[0], alone.deltas[0]), 5e-3);
    EXPECT_EQ(lived.results[1].tokens, alone.results[1].tokens);
    // Moments ended with the island that had them.
    EXPECT_EQ(lived.results[1].moments_from.value, 2U) << "at broadcast " << broadcasts;
  }
}

TEST(Island, IsAtItsEndWhereMemoryRunsOutOnTheRankThatSpeaksForIt) {
  const DeviceOptions device{.device = "cpu", .threads = 1};
  std::vector<float> base(Layout::of(small_model()).parameters());
  initialise(Layout::of(small_model()), 3, base);
  TrainingShard shard;
  shard.round = {1};
  shard.inner_steps = 2;
  shard.data = {0, 24};
  shard.experts = all_experts(small_model());
  const auto work = [&](Island& island) {
    if (island.group().rank() != 0) return follow_trainer(island, device);
    Trainer trainer(small_model(), {.batch_sequences = 6}, device, &island);
    trainer.load_base(base, {});
    trainer.train(
        shard, [](std::uint64_t, std::span<std::uint16_t> tokens) { std::ranges::fill(tokens, 1); },
        [](const StepReport&) -> bool { throw std::bad_alloc(); });
  };
  as_islands(2, [&](Island island) {
    const bool speaks = island.group().rank() == 0;
    try {
      work(island);
      ADD_FAILURE();
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::collective_failed);
      EXPECT_THAT(error.what(), testing::HasSubstr(speaks ? "memory ran out on rank 0"
                                                          : "rank 0, which speaks for the island"));
    }
  });
}

TEST(Island, GivesEachRankAGpuOfItsOwnAndRefusesARankBeyondThem) {
  EXPECT_EQ(island::gpu_of_place(3, 4), 3);
  EXPECT_EQ(island::gpu_of_place(3, 1), 0);  // the only one that its launcher shows it
  try {
    island::gpu_of_place(4, 4);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::config_invalid);
    EXPECT_THAT(error.what(), testing::HasSubstr("rank 4 of this machine"));
    EXPECT_THAT(error.what(), testing::HasSubstr("4 GPUs"));
  }
}

TEST(Island, IsAtItsEndWithoutTheRankThatSpeaksForIt) {
  const Lived lived = lose({{0, {.exchanges = 15}}});
  EXPECT_EQ(lived.given_up, 2);
  EXPECT_THAT(lived.why, testing::HasSubstr("rank 0, which speaks for the island, is lost"));
}

}  // namespace
}  // namespace yumoe
