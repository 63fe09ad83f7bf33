#pragma once
// The invented learning problem: a noisy quadratic. Every worker's data has the same optimum (odd ones'
// another), gradients are noisy, losses on windows vary together and each by itself.

#include <cstdint>
#include <span>
#include <vector>

#include "cluster/random.hpp"
#include "router/layout.hpp"
#include "router/protocol.hpp"

namespace yumoe::attack_world {

class World {
 public:
  World(const Layout& layout, std::span<const float> initial, std::uint64_t seed);

  // base - local after `steps` inner steps from `base` towards the optimum moved by `shift` (empty: none).
  std::vector<float> train(std::span<const float> base, double steps, std::span<const float> shift,
                           std::uint64_t seed) const;
  double loss(std::span<const float> parameters) const;

  // Loss reduction by `change` (parameters - change), over windows drawn by `windows`: the same windows for
  // all that are measured with it; `own` seeds what is the contribution's alone.
  Measurement measure(std::span<const float> base, std::span<const float> change,
                      std::uint64_t windows, std::uint64_t own, std::uint32_t count) const;

  // A direction of the given length a coordinate, the same for the same seed.
  std::vector<float> direction(double length, std::uint64_t seed) const;

 private:
  static constexpr std::size_t kFactors = 8;
  std::vector<float> optimum_;
  std::vector<std::vector<float>> factors_;  // directions in which windows differ together
  double gain_ = 1;                          // nats a squared distance
  double common_noise_ = 0, own_noise_ = 0;
};

// Standard normal to what a simulation needs: four uniforms of 16 bits.
float quick_normal(Random& random);

}  // namespace yumoe::attack_world
