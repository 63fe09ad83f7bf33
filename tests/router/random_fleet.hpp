#pragma once
// Fleets as they might turn up, by seed: racks, gaming PCs and laptops, with rules for some experts.

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "cluster/random.hpp"
#include "router/placement.hpp"

namespace yumoe::sim {

struct Fleet {
  ModelOptions model;
  std::int64_t batch_sequences = 8;
  UpdateSize size;
  PlacementOptions options;
  std::vector<PlacementWorker> workers;
};

inline double between(Random& random, double low, double high) {  // evenly in the logarithm
  return low * std::pow(high / low, random.uniform());
}

inline ExpertSet some_experts(Random& random, std::uint32_t experts, std::uint32_t count) {
  ExpertSet set;
  while (set.size() < count) {
    const auto e = static_cast<std::uint32_t>(random.below(experts));
    if (std::find(set.begin(), set.end(), e) == set.end()) set.push_back(e);
  }
  std::sort(set.begin(), set.end());
  return set;
}

inline Fleet random_fleet(std::uint64_t seed, std::size_t workers_max) {
  Random random(derive_seed("fleet", {seed}));
  Fleet fleet;
  const std::uint32_t experts = 4u << random.below(6);  // 4 to 128
  ModelOptions& m = fleet.model;
  m.vocabulary = 4'096, m.context = 128 << random.below(4), m.width = 64 << random.below(4);
  m.layers = 2 + static_cast<std::int64_t>(random.below(11)), m.heads = 4, m.key_value_heads = 2;
  m.experts = experts, m.experts_per_token = 1 + static_cast<std::int64_t>(random.below(3));
  m.expert_width = 2 * m.width;
  const Layout layout = Layout::of(m);
  const double bytes = 0.0156 * 9.6 / 8;
  fleet.size = {bytes * static_cast<double>(layout.trunk_parameters()),
                bytes * static_cast<double>(layout.expert_parameters()),
                bytes * static_cast<double>(layout.parameters())};
  PlacementOptions& o = fleet.options;
  o.round_s = static_cast<std::int64_t>(between(random, 20, 600));
  o.inner_steps_max = static_cast<std::int64_t>(between(random, 50, 5'000));
  o.replicas_min = 1 + static_cast<std::int64_t>(random.below(4));
  o.moves_max = static_cast<std::int64_t>(random.below(5));
  if (random.below(3) == 0) {
    o.tiers = {"0-" + std::to_string(experts / 4) + ":trusted",
               std::to_string(experts / 2) + ":known"};
  }
  if (random.below(3) == 0) o.regions = {std::to_string(experts - 1) + ":eu", "0:eu|us"};
  const auto count = 1 + random.below(workers_max);
  const double fast = between(random, 2'000, 200'000);
  const double spread = between(random, 1, 200);
  const double full_mib =
      static_cast<double>(training_bytes(layout, fleet.batch_sequences, experts) >> 20);
  for (std::uint16_t uid = 0; uid < count; ++uid) {
    PlacementWorker worker;
    worker.uid = {uid};
    WorkerProfile& p = worker.profile;
    p.tokens_per_s = random.below(50) == 0 ? 0 : fast / between(random, 1, spread);
    p.memory_mib = random.below(3) == 0
                       ? 0
                       : static_cast<std::uint64_t>(full_mib * between(random, 0.4, 1.5)) + 1;
    p.up_bytes_per_s = random.below(4) == 0 ? 0 : between(random, 1e5, 1e8);
    p.down_bytes_per_s = between(random, 1e6, 1e8);
    p.round_trip_ms = between(random, 1, 300);
    p.tier = random.below(3) == 0 ? "trusted" : random.below(2) == 0 ? "known" : "open";
    p.region = random.below(2) == 0 ? "eu" : "us";
    if (random.below(5) == 0) p.experts_max = 1 + static_cast<std::uint32_t>(random.below(experts));
    if (random.below(10) == 0)
      p.inner_steps_max = 1 + static_cast<std::uint32_t>(random.below(200));
    if (random.below(2) == 0) {
      worker.held =
          some_experts(random, experts, 1 + static_cast<std::uint32_t>(random.below(experts)));
    }
    fleet.workers.push_back(std::move(worker));
  }
  return fleet;
}

}  // namespace yumoe::sim
