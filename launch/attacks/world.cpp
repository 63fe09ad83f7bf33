#include "attacks/world.hpp"

#include <cmath>

namespace yumoe::attack_world {
namespace {

constexpr double kFloor = 2.5;    // nats a token that no training takes away
constexpr double kExcess = 5.0;   // what is above it at the start
constexpr double kRate = 0.0017;  // of an inner step
constexpr double kGradientNoise =
    2;  // of a full shard's pseudo-gradient, against its signal at the start
constexpr double kFullSteps = 30;
constexpr double kWindowError =
    0.1;  // standard error over kWindows windows, of the first reduction
constexpr double kWindows = 24;

double contraction(double steps) {
  double kept = 1;
  for (; steps >= 1; --steps) kept *= 1 - kRate;
  return 1 - kept * (1 - kRate * steps);
}

}  // namespace

float quick_normal(Random& random) {
  const std::uint64_t bits = random();
  const auto sum = static_cast<double>((bits & 0xffff) + ((bits >> 16) & 0xffff) +
                                       ((bits >> 32) & 0xffff) + (bits >> 48));
  return static_cast<float>((sum / 65'536 - 2) * 1.7320508);
}

World::World(const Layout& layout, std::span<const float> initial, std::uint64_t seed) {
  Random random(derive_seed("optimum", {seed}));
  optimum_.resize(layout.parameters());
  for (std::size_t i = 0; i < optimum_.size(); ++i) {
    optimum_[i] = initial[i] + ((random() & 1) != 0 ? 1.0f : -1.0f);
  }
  gain_ = 2 * kExcess / static_cast<double>(optimum_.size());
  for (std::size_t k = 0; k < kFactors; ++k)
    factors_.push_back(direction(1, derive_seed("factor", {seed, k})));
  // A first honest contribution, of which one element in sixteen is kept.
  const double size = static_cast<double>(optimum_.size()) / 16,
               value = 0.5 * 0.2 * contraction(kFullSteps);
  const double reduction = gain_ * size * (value - value * value / 2),
               length = value * std::sqrt(size);
  common_noise_ = own_noise_ = kWindowError * std::sqrt(kWindows / 2) * reduction / length;
}

std::vector<float> World::direction(double length, std::uint64_t seed) const {
  Random random(seed);
  std::vector<float> v(optimum_.size());
  for (float& x : v) x = static_cast<float>(length) * quick_normal(random);
  return v;
}

std::vector<float> World::train(std::span<const float> base, double steps,
                                std::span<const float> shift, std::uint64_t seed) const {
  Random random(seed);
  const double part = contraction(steps);
  const auto noise = static_cast<float>(kGradientNoise * std::sqrt(part * contraction(kFullSteps)));
  std::vector<float> delta(base.size());
  for (std::size_t i = 0; i < delta.size(); ++i) {
    const float aim = optimum_[i] + (shift.empty() ? 0 : shift[i]);
    delta[i] = static_cast<float>(part) * (base[i] - aim) + noise * quick_normal(random);
  }
  return delta;
}

double World::loss(std::span<const float> parameters) const {
  double sum = 0;
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    const double d = static_cast<double>(parameters[i]) - optimum_[i];
    sum += d * d;
  }
  return kFloor + gain_ * sum / 2;
}

Measurement World::measure(std::span<const float> base, std::span<const float> change,
                           std::uint64_t windows, std::uint64_t own, std::uint32_t count) const {
  double mean = 0, length = 0;
  double projected[kFactors] = {};
  for (std::size_t i = 0; i < change.size(); ++i) {
    if (change[i] == 0) continue;
    const double c = change[i], d = static_cast<double>(base[i]) - optimum_[i];
    mean += gain_ * (d * c - c * c / 2);
    length += c * c;
    for (std::size_t k = 0; k < kFactors; ++k) projected[k] += factors_[k][i] * c;
  }
  Random together(windows), alone(own);
  double sum = 0, squares = 0;
  for (std::uint32_t w = 0; w < count; ++w) {
    double noise = own_noise_ * std::sqrt(length) * quick_normal(alone);
    for (const double p : projected)
      noise += common_noise_ / std::sqrt(kFactors) * p * quick_normal(together);
    sum += mean + noise;
    squares += (mean + noise) * (mean + noise);
  }
  Measurement m;
  m.windows = count;
  m.loss_before = loss(base);
  m.reduction = sum / count;
  m.standard_error =
      std::sqrt(std::max(0.0, squares / count - m.reduction * m.reduction) / (count - 1));
  return m;
}

}  // namespace yumoe::attack_world
