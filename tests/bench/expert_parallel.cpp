// A whole inner step shared by two ranks on two cores against half the time of one process on one core.
// Started by tests/bench/expert_parallel.sh: `bench_expert_parallel one`, then the same under mpirun with
// `two`; each prints seconds a step. One thread a rank.

#include <ATen/Parallel.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <string>
#include <vector>

#include "cluster/random.hpp"
#include "model/model.hpp"
#include "worker/memory.hpp"

namespace {

using namespace yumoe;

// The 10.6 M-parameter GPT-MoE of the step benchmark's size, with a batch worth sharing.
ModelOptions model_options() {
  ModelOptions model;
  model.vocabulary = 4'096;
  model.context = 256;
  model.width = 256;
  model.layers = 4;
  model.heads = 8;
  model.key_value_heads = 8;
  model.experts = 8;
  model.expert_width = 512;
  return model;
}

std::vector<std::uint16_t> random_rows(const ModelOptions& model, std::int64_t sequences) {
  Random random(1);
  std::vector<std::uint16_t> rows(static_cast<std::size_t>(sequences * (model.context + 1)));
  for (auto& token : rows) {
    token = static_cast<std::uint16_t>(random.below(static_cast<std::uint64_t>(model.vocabulary)));
  }
  return rows;
}

}  // namespace

int main(int argc, char** argv) {
  const bool two = argc > 1 && std::string(argv[1]) == "two";
  at::set_num_threads(1);
  keep_freed_memory();
  std::unique_ptr<Collective> group;
  if (two) group = join_mpi(std::chrono::milliseconds(60'000));
  const ModelOptions options = model_options();
  const Layout layout = Layout::of(options);
  std::optional<ExpertShare> share;
  if (two) {
    share = ExpertShare{.group = group.get(),
                        .owner = share_experts({}, static_cast<std::size_t>(options.experts),
                                               group->size(), 0)};
  }
  Model model(layout, all_experts(options), {}, c10::Device(c10::kCPU), true, share);
  std::vector<float> parameters(layout.parameters());
  initialise(layout, 1, parameters);
  model.load(parameters);
  const auto rows = random_rows(options, 16);
  std::vector<double> seconds;
  for (int i = 0; i < 12; ++i) {
    if (group) group->barrier();
    const auto start = std::chrono::steady_clock::now();
    model.train(rows, {});
    seconds.push_back(
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  seconds.erase(seconds.begin(), seconds.begin() + 2);
  // Under other load only the quickest say what the program takes.
  std::sort(seconds.begin(), seconds.end());
  if (!group || group->rank() == 0) std::printf("%.9g %.9g\n", seconds[0], seconds[seconds.size() / 2]);
  return 0;
}
