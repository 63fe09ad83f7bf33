// What fresh AdamW moments cost: held-out loss after rounds of four workers, moments kept from round
// to round against fresh ones with several warm-ups. Arguments: inner steps, rounds, text files.
// Feeds docs/decisions/inner-moments.md; no bar.

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "bench/row.hpp"
#include "cluster/random.hpp"
#include "worker/evaluator.hpp"
#include "worker/trainer.hpp"

namespace {

using namespace yumoe;

constexpr std::uint16_t kWorkers = 4;

ModelOptions small_model() {
  ModelOptions model;
  model.vocabulary = 256;
  model.context = 64;
  model.width = 64;
  model.layers = 2;
  model.heads = 4;
  model.key_value_heads = 2;
  model.experts = 8;
  model.expert_width = 96;
  return model;
}

std::string read_text(int count, char** paths) {
  std::string text;
  for (int i = 0; i < count; ++i) {
    std::ifstream file(paths[i], std::ios::binary);
    text.append(std::istreambuf_iterator<char>(file), {});
  }
  return text;
}

// Random places of the text's first nine tenths, or of its last.
WindowReader bytes_of(const std::string& text, bool heldout) {
  return [&text, heldout](std::uint64_t position, std::span<std::uint16_t> tokens) {
    const std::size_t split = text.size() / 10 * 9;
    const std::size_t begin = heldout ? split : 0, end = heldout ? text.size() : split;
    const std::size_t start =
        begin + derive_seed("window", {position}) % (end - begin - tokens.size());
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      tokens[i] = static_cast<unsigned char>(text[start + i]);
    }
  };
}

struct Variant {
  bool keeps = false;
  std::int64_t rewarm = 0;
};

double loss_after(const Variant& variant, std::uint32_t steps, std::uint64_t rounds,
                  const std::string& text) {
  const ModelOptions model = small_model();
  const Layout layout = Layout::of(model);
  InnerOptions inner;
  inner.learning_rate = 4e-3;
  inner.learning_rate_final = 4e-4;
  inner.warmup_steps = 20;
  inner.total_steps = static_cast<std::int64_t>(steps * rounds);
  inner.rewarm_steps = variant.rewarm;
  inner.moments_rounds = variant.keeps ? 10'000 : 1;
  std::vector<std::unique_ptr<Trainer>> trainers;
  for (std::uint16_t w = 0; w < kWorkers; ++w) {
    trainers.push_back(std::make_unique<Trainer>(model, inner, DeviceOptions{}));
  }
  std::vector<float> base(layout.parameters()), bias(16), delta(base.size());
  initialise(layout, 1, base);
  for (std::uint64_t round = 1; round <= rounds; ++round) {
    std::vector<float> mean(base.size()), mean_bias(bias.size());
    for (std::uint16_t w = 0; w < kWorkers; ++w) {
      TrainingShard shard;
      shard.round = RoundId{round};
      shard.uid = Uid{w};
      shard.inner_steps = steps;
      shard.steps_before = (round - 1) * steps;
      const std::uint64_t windows = steps * static_cast<std::uint64_t>(inner.batch_sequences);
      shard.data = {((round - 1) * kWorkers + w) * windows, windows};
      shard.experts = all_experts(model);
      trainers[w]->load_base(base, bias);
      const TrainingResult result = trainers[w]->train(shard, bytes_of(text, false));
      trainers[w]->pseudo_gradient(delta);
      for (std::size_t i = 0; i < mean.size(); ++i) mean[i] += delta[i] / kWorkers;
      for (std::size_t i = 0; i < bias.size(); ++i) mean_bias[i] += result.gate_bias[i] / kWorkers;
    }
    for (std::size_t i = 0; i < base.size(); ++i) base[i] -= mean[i];
    bias = mean_bias;
  }
  Evaluator evaluator(model, {});
  evaluator.load_base(base, bias);
  return evaluator.base(read_windows(bytes_of(text, true), 0, 256, 64)).mean();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) {
    std::fprintf(stderr, "usage: bench_inner_moments INNER_STEPS ROUNDS TEXT_FILE...\n");
    return 2;
  }
  const auto steps = static_cast<std::uint32_t>(std::atoi(argv[1]));
  const auto rounds = static_cast<std::uint64_t>(std::atoi(argv[2]));
  const std::string text = read_text(argc - 3, argv + 3);
  if (steps == 0 || rounds == 0 || text.size() < 100'000) {
    std::fprintf(stderr, "need steps, rounds and at least 100 kB of text\n");
    return 2;
  }
  bench::Report report;
  const double kept = loss_after({true, 0}, steps, rounds, text);
  for (const std::int64_t rewarm : {0, 2, 5, 10}) {
    report.row("fresh moments, warm-up of " + std::to_string(rewarm) + " of " +
                   std::to_string(steps) + " steps / kept moments, " + std::to_string(rounds) +
                   " rounds",
               loss_after({false, rewarm}, steps, rounds, text), kept, bench::Bar::none, 0,
               "held-out nats per byte");
  }
  return report.finish();
}
