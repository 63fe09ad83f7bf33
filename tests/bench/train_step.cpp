// A whole training step (forward, backward, clipping, AdamW) of a 10.6 M-parameter GPT-MoE against
// PyTorch's best variant (shared/peers/gpt_moe_step.py, where it is beside the checkout), and against
// the dense products of equal FLOPs alone. One thread.
//
// The script's model: 4 layers, width 256, 4 heads, 8 experts, top-2, vocabulary 4096 tied, 4 x 256
// tokens. Its experts are two matrices 512 wide; ours have three (SwiGLU), 342 wide: equal parameters
// and FLOPs to 0.2 %. Ours also clips, balances and keeps the base version.

#include <ATen/Parallel.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/randn.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <string>
#include <vector>

#include "bench/peer.hpp"
#include "bench/row.hpp"
#include "cluster/random.hpp"
#include "worker/trainer.hpp"

namespace {

using namespace yumoe;

constexpr std::int64_t kSequences = 4;
constexpr int kStepsAtATime = 3;  // as in the script

ModelOptions model_of_the_script() {
  ModelOptions model;
  model.vocabulary = 4'096;
  model.context = 256;
  model.width = 256;
  model.layers = 4;
  model.heads = 4;
  model.key_value_heads = 4;
  model.experts = 8;
  model.experts_per_token = 2;
  model.expert_width = 342;
  return model;
}

double thread_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

// All matrix products of one step, forward and twice backward, at sizes that suit the library.
struct DenseStep {
  at::Tensor x = at::randn({1'024, 256}), w = at::randn({256, 1'024});
  at::Tensor y = at::mm(x, w);
  std::int64_t products = 0;

  explicit DenseStep(const ModelOptions& m) {
    const std::int64_t a_token =
        m.layers * (4 * m.width * m.width + m.experts * m.width +
                    m.experts_per_token * 3 * m.width * m.expert_width + m.context * m.width) +
        m.vocabulary * m.width;
    products = 3 * a_token / (256 * 1'024);
  }
  void run() {
    for (std::int64_t i = 0; i < products; ++i) at::mm_out(y, x, w);
  }
};

}  // namespace

int main() {
  const ModelOptions model = model_of_the_script();
  const Layout layout = Layout::of(model);
  InnerOptions inner;
  inner.batch_sequences = kSequences;
  inner.learning_rate = 1e-4;
  Trainer trainer(model, inner, {});
  std::vector<float> base(layout.parameters());
  initialise(layout, 0, base);
  trainer.load_base(base, {});
  const auto random_tokens = [&](std::uint64_t position, std::span<std::uint16_t> tokens) {
    Random random(position % kSequences);
    for (auto& token : tokens) token = static_cast<std::uint16_t>(random.below(4'096));
  };

  TrainingShard shard;
  shard.round = RoundId{1};
  shard.experts = all_experts(model);
  shard.inner_steps = 1 + 7 * kStepsAtATime;
  shard.data = {0, shard.inner_steps * static_cast<std::uint64_t>(kSequences)};
  DenseStep dense(model);
  dense.run();
  std::vector<double> busy, products;
  double mark = thread_seconds();
  trainer.train(shard, random_tokens, [&](const StepReport&) {
    busy.push_back(thread_seconds() - mark);
    const double start = thread_seconds();
    dense.run();
    products.push_back(thread_seconds() - start);
    mark = thread_seconds();
    return true;
  });
  const double tokens = static_cast<double>(kSequences * model.context);
  bench::Report report;
  report.row("train_step 10.6 M parameters, dense products of equal FLOPs / ours", median(products),
             median(busy), bench::Bar::none, 0, "seconds of a core");
  const auto peer = bench::run_peer("gpt_moe_step.py", "--world 1 --threads 1");
  if (peer) {
    double best = 0;
    for (const char* variant : {"eager_loop", "eager_grouped", "eager_gmm", "compile_gmm",
                                "compile_grouped", "compile_loop"}) {
      const double rate = peer->number_after("tokens_per_s", variant);
      if (rate == 0) {
        std::fprintf(stderr, "PyTorch %s did not run: %s\n", variant,
                     peer->words_after(std::string(variant) + "_failed").c_str());
        continue;
      }
      report.row(std::string("train_step ours / PyTorch ") + variant, tokens / median(busy), rate,
                 bench::Bar::none, 0, "tokens per second of a core");
      best = std::max(best, rate);
    }
    report.row("train_step ours / best PyTorch variant", tokens / median(busy), best,
               bench::Bar::at_least, 1.15, "tokens per second of a core");
  }
  return report.finish();
}
