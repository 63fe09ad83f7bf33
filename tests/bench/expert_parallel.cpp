// A whole inner step shared by two ranks on two cores against half the time of one process on one core.
// Started by tests/bench/expert_parallel.sh: `bench_expert_parallel one`, then the same under mpirun with
// `two`; each prints seconds of a core a step (of the rank that takes most, waiting included as far as it
// occupies the core) and of the wall. One thread a rank.

#include <ATen/Parallel.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <ctime>
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

double core_seconds() {
  timespec now{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// The most of any rank.
double most(Collective* group, double mine) {
  if (group == nullptr) return mine;
  std::vector<double> all(static_cast<std::size_t>(group->size()));
  group->all_gather(as_bytes(std::span<const double>(&mine, 1)), as_writable(std::span(all)));
  return *std::max_element(all.begin(), all.end());
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
  std::vector<float> parameters(layout.parameters());
  initialise(layout, 1, parameters);
  const auto rows = random_rows(options, 16);
  // As a Trainer does from shard to shard: experts are shared out by what each saw in the step before.
  std::optional<Model> held;
  std::vector<std::int64_t> seen;
  const auto experts = static_cast<std::size_t>(options.experts);
  for (int round = 0; round < (group ? 2 : 1); ++round) {
    std::optional<ExpertShare> share;
    if (group) {
      share = ExpertShare{.group = group.get(),
                          .owner = share_experts(seen, experts, group->size(), 2)};
    }
    held.emplace(layout, all_experts(options), RoutingOptions{}, c10::Device(c10::kCPU), true,
                 share);
    held->load(parameters);
    const BatchResult first = held->train(rows, {});
    seen.assign(experts, 0);
    for (std::size_t i = 0; i < first.counts.size(); ++i) seen[i % experts] += first.counts[i];
  }
  Model& model = *held;
  std::vector<double> core, wall;
  for (int i = 0; i < 8; ++i) {
    if (group) group->barrier();
    const auto start = std::chrono::steady_clock::now();
    const double core_start = core_seconds();
    model.train(rows, {});
    core.push_back(most(group.get(), core_seconds() - core_start));
    wall.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  // The first step warms up; under other load only the quickest say what the program takes.
  const double best_core = *std::min_element(core.begin() + 1, core.end());
  const double best_wall = *std::min_element(wall.begin() + 1, wall.end());
  if (!group || group->rank() == 0) std::printf("%.9g %.9g\n", best_core, best_wall);
  return 0;
}
