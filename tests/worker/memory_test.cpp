// What a worker says that a shard needs, against what the process really grew by: too little would end
// in an out-of-memory kill, far too much would leave memory idle.

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

#include "router/codec.hpp"
#include "router/placement.hpp"
#include "worker/trainer.hpp"

namespace yumoe {
namespace {

// "VmRSS" or "VmHWM" of this process, in bytes.
std::uint64_t memory_line(const std::string& name) {
  std::ifstream in("/proc/self/status");
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with(name + ":")) return std::stoull(line.substr(name.size() + 1)) << 10;
  }
  return 0;
}

// Of what was computed. It is near where parameters are most of it, and careful about activations.
constexpr double kMost = 1.0, kLeast = 0.33;

struct Case {
  const char* name;
  std::int64_t vocabulary, context, width, layers, experts, expert_width, batch;
};

// Bytes by which this process grew at most while it trained a shard as a worker does, and those said before.
struct Grown {
  double by = 0, computed = 0;
};

Grown train(const Case& c) {
  ModelOptions model;
  model.vocabulary = c.vocabulary;
  model.context = c.context;
  model.width = c.width;
  model.layers = c.layers;
  model.heads = 4;
  model.key_value_heads = 2;
  model.experts = c.experts;
  model.expert_width = c.expert_width;
  InnerOptions inner;
  inner.batch_sequences = c.batch;
  const Layout layout = Layout::of(model);
  const auto some = static_cast<std::uint32_t>(c.experts / 2);
  const WindowReader read = [&](std::uint64_t position, std::span<std::uint16_t> tokens) {
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      tokens[i] = static_cast<std::uint16_t>((position * 31 + i * 7) %
                                             static_cast<std::uint64_t>(c.vocabulary));
    }
  };
  TrainingShard shard;
  shard.round = RoundId{1};
  shard.inner_steps = 3;
  shard.data = {0, 3 * static_cast<std::uint64_t>(c.batch)};
  for (std::uint32_t e = 0; e < some; ++e) shard.experts.push_back(e);
  // The libraries' own: a worker counts it as there already.
  {
    ModelOptions tiny = model;
    tiny.vocabulary = tiny.width = tiny.expert_width = 16;
    tiny.heads = tiny.key_value_heads = 1;
    tiny.context = 4;
    Trainer trainer(tiny, inner, {});
    std::vector<float> parameters(Layout::of(tiny).parameters());
    initialise(Layout::of(tiny), 1, parameters);
    trainer.load_base(parameters, {});
    trainer.train(shard, [](std::uint64_t, std::span<std::uint16_t> tokens) {
      std::fill(tokens.begin(), tokens.end(), std::uint16_t{1});
    });
  }
  std::ofstream("/proc/self/clear_refs") << 5;  // the high-water mark starts again
  const std::uint64_t before = memory_line("VmRSS");

  // What a worker holds beside the trainer: base version, its momentum, residual, difference.
  std::vector<float> base(layout.parameters()), momentum(layout.parameters(), 0.5F),
      residual(layout.parameters(), 0.25F), delta(layout.parameters(), 0.0F);
  initialise(layout, 1, base);
  Trainer trainer(model, inner, {});
  trainer.load_base(base, {});
  trainer.train(shard, read);
  trainer.pseudo_gradient(delta);
  const auto update = encode_update(layout, shard.experts, residual, CodecOptions{});
  if (update.empty()) return {};
  return {static_cast<double>(memory_line("VmHWM") - before),
          static_cast<double>(training_bytes(layout, c.batch, some))};
}

class TrainingMemory : public testing::TestWithParam<Case> {};

TEST_P(TrainingMemory, IsNoMoreThanWasComputedBeforehandAndNotFarLess) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "a sanitizer has memory of its own";
#endif
  // In a process of its own: freed memory is kept for the next step, and would hide the next case's.
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  const pid_t child = fork();
  if (child == 0) {
    const Grown grown = train(GetParam());
    _exit(write(ends[1], &grown, sizeof grown) == sizeof grown ? 0 : 1);
  }
  Grown grown;
  close(ends[1]);
  ASSERT_EQ(read(ends[0], &grown, sizeof grown), static_cast<ssize_t>(sizeof grown));
  close(ends[0]);
  int status = 1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_EQ(status, 0);
  std::printf("%s: computed %.1f MiB, grew by %.1f MiB: %.2f of it\n", GetParam().name,
              grown.computed / (1 << 20), grown.by / (1 << 20), grown.by / grown.computed);
  EXPECT_LE(grown.by, kMost * grown.computed);
  EXPECT_GE(grown.by, kLeast * grown.computed);
}

// One whose memory is parameters, one whose memory is activations, one between them.
INSTANTIATE_TEST_SUITE_P(Models, TrainingMemory,
                         testing::Values(Case{"parameters", 2'048, 64, 256, 4, 8, 512, 2},
                                         Case{"activations", 512, 256, 128, 4, 4, 256, 16},
                                         Case{"both", 4'096, 128, 256, 4, 8, 384, 8}),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace yumoe
