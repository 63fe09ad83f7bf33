#include "router/placement.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace yumoe {
namespace {

// Weights, gradient, two AdamW moments, the base version and the error-feedback residual, in fp32.
constexpr std::uint64_t kBytesPerParameter = 6 * 4;

std::uint32_t experts_that_fit(const Layout& layout, const WorkerProfile& profile) {
  const auto experts = static_cast<std::uint32_t>(layout.model().experts);
  std::uint32_t fit = profile.experts_max == 0 ? experts : std::min(profile.experts_max, experts);
  if (profile.memory_mib != 0) {
    const std::uint64_t bytes = profile.memory_mib << 20;
    const std::uint64_t trunk = layout.trunk_parameters() * kBytesPerParameter;
    const std::uint64_t expert = layout.expert_parameters() * kBytesPerParameter;
    const std::uint64_t in_memory = bytes <= trunk ? 0 : (bytes - trunk) / std::max<std::uint64_t>(1, expert);
    fit = static_cast<std::uint32_t>(std::min<std::uint64_t>(fit, in_memory));
  }
  return fit;
}

// Adds or drops experts until `count` are held: adds the rarest, drops the most common, ties to the
// lower index. `replicas` counts the holders of each expert among the workers placed so far.
ExpertSet fill(ExpertSet held, std::uint32_t count, const std::vector<std::uint32_t>& replicas) {
  std::vector<std::uint32_t> order(replicas.size());
  std::iota(order.begin(), order.end(), 0u);
  std::stable_sort(order.begin(), order.end(),
                   [&](std::uint32_t a, std::uint32_t b) { return replicas[a] < replicas[b]; });
  for (auto it = order.rbegin(); it != order.rend() && held.size() > count; ++it) {
    std::erase(held, *it);
  }
  for (const std::uint32_t expert : order) {
    if (held.size() >= count) break;
    if (std::find(held.begin(), held.end(), expert) == held.end()) held.push_back(expert);
  }
  std::sort(held.begin(), held.end());
  return held;
}

std::uint32_t steps_for(double tokens_per_s, double tokens_per_step, const PlacementOptions& options) {
  if (tokens_per_s <= 0) return static_cast<std::uint32_t>(options.inner_steps_first);
  const double steps = std::floor(static_cast<double>(options.round_s) * tokens_per_s / tokens_per_step);
  return static_cast<std::uint32_t>(std::clamp(steps, static_cast<double>(options.inner_steps_min),
                                               static_cast<double>(options.inner_steps_max)));
}

}  // namespace

std::vector<Assignment> place(const Layout& layout, std::int64_t batch_sequences,
                              std::span<const PlacementWorker> workers,
                              const PlacementOptions& options) {
  const ModelOptions& model = layout.model();
  const double tokens_per_step = static_cast<double>(batch_sequences * model.context);
  std::vector<std::uint32_t> replicas(static_cast<std::size_t>(model.experts), 0);
  // Who is already placed counts first, so that newcomers take what is rare.
  for (const PlacementWorker& worker : workers) {
    for (const std::uint32_t expert : worker.held) ++replicas[expert];
  }
  std::vector<Assignment> plan;
  for (const PlacementWorker& worker : workers) {
    Assignment assignment{worker.uid, {}, 0, 0, ""};
    const std::uint32_t fit = experts_that_fit(layout, worker.profile);
    if (fit < model.experts_per_token) {
      assignment.why = "memory of " + std::to_string(worker.profile.memory_mib) + " MiB holds " +
                       std::to_string(fit) + " experts beside the trunk, " +
                       std::to_string(model.experts_per_token) + " are needed";
      plan.push_back(std::move(assignment));
      continue;
    }
    for (const std::uint32_t expert : worker.held) --replicas[expert];
    assignment.experts = fill(worker.held, fit, replicas);
    for (const std::uint32_t expert : assignment.experts) ++replicas[expert];
    assignment.inner_steps = steps_for(worker.profile.tokens_per_s, tokens_per_step, options);
    if (worker.profile.tokens_per_s > 0) {
      assignment.predicted_s = assignment.inner_steps * tokens_per_step / worker.profile.tokens_per_s;
    }
    assignment.why = std::to_string(assignment.experts.size()) + " of " +
                     std::to_string(model.experts) + " experts, " +
                     (worker.profile.tokens_per_s > 0 ? "steps from its measured speed"
                                                      : "first steps, speed not measured yet");
    plan.push_back(std::move(assignment));
  }
  return plan;
}

}  // namespace yumoe
