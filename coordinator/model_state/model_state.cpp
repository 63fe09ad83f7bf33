#include "coordinator/model_state.hpp"

#include <algorithm>
#include <cmath>

#include "cluster/error.hpp"

namespace yumoe {
namespace {

BaseVersion base_of(const Layout& layout, const Checkpoint& checkpoint) {
  if (checkpoint.layout.digest() != layout.digest()) {
    throw Error(ErrorCode::checkpoint_corrupt, "checkpoint of another model");
  }
  return BaseVersion::from_parts(layout, checkpoint.round, checkpoint.parameters,
                                 checkpoint.gate_bias, checkpoint.momentum);
}

}  // namespace

ModelState::ModelState(const Layout& layout, const RunSetup& setup)
    : layout_(&layout),
      setup_(&setup),
      base_(BaseVersion::initial(layout, static_cast<std::uint64_t>(setup.settings.run.seed))),
      aggregator_(layout, setup.aggregate, setup.codec) {}

ModelState::ModelState(const Layout& layout, const RunSetup& setup, const Checkpoint& checkpoint)
    : layout_(&layout),
      setup_(&setup),
      base_(base_of(layout, checkpoint)),
      aggregator_(layout, setup.aggregate, setup.codec) {
  aggregator_.restore({checkpoint.residual.begin(), checkpoint.residual.end()});
}

std::span<const float> ModelState::residual() const { return aggregator_.residual(); }

ModelState::Result ModelState::aggregate(const AggregationInput& input, const FindBlob& find_blob) {
  std::vector<Contribution> contributions;
  std::vector<Update> updates;
  Result result;
  for (const AggregationInput::Item& item : input.items) {
    std::optional<Bytes> bytes = find_blob(item.blob);
    if (!bytes) {
      throw Error(ErrorCode::journal_corrupt,
                  "contribution of uid " + std::to_string(item.uid.value) + " to round " +
                      std::to_string(item.round.value) + " is not kept any more");
    }
    // Not every byte of it enters the aggregate: what is kept must be what was revealed.
    if (digest_of(*bytes) != item.blob) {
      throw Error(ErrorCode::journal_corrupt,
                  "contribution of uid " + std::to_string(item.uid.value) + " to round " +
                      std::to_string(item.round.value) + " is not the one its digest names");
    }
    result.up_bytes += bytes->size();
    contributions.push_back(decode_contribution(*bytes));
    updates.emplace_back(*layout_, std::move(contributions.back().update));
  }
  std::vector<WeightedUpdate> weighted;
  for (std::size_t i = 0; i < updates.size(); ++i) {
    weighted.push_back({input.items[i].uid, &updates[i], input.items[i].weight,
                        contributions[i].tokens, contributions[i].expert_tokens});
  }
  Aggregate aggregate = aggregator_.aggregate(input.round, weighted).aggregate;
  aggregate.gate_bias = next_gate_bias(contributions);
  result.aggregate = encode_aggregate(aggregate);
  base_.apply(aggregate, setup_->outer);
  result.version = base_.digest();
  return result;
}

// The loss-free balancing of one round at once: each layer's bias moves against the load that all
// workers together saw, by balance_rate for each inner step, in proportion to how far an expert is from
// the mean (at most once the mean). Source: Wang et al. 2024, with counts delayed by a round.
std::vector<float> ModelState::next_gate_bias(
    const std::vector<Contribution>& contributions) const {
  const std::span<const float> now = base_.gate_bias();
  std::vector<float> next(now.begin(), now.end());
  const auto layers = static_cast<std::size_t>(layout_->model().layers);
  const auto experts = static_cast<std::size_t>(layout_->model().experts);
  double steps = 0;
  for (const Contribution& c : contributions) steps = std::max(steps, static_cast<double>(c.steps));
  for (std::size_t layer = 0; layer < layers; ++layer) {
    std::vector<double> load(experts, 0);
    double total = 0;
    for (const Contribution& c : contributions) {
      for (std::size_t e = 0; e < experts; ++e) load[e] += c.expert_tokens[layer * experts + e];
    }
    for (const double tokens : load) total += tokens;
    if (total == 0) continue;
    const double mean = total / static_cast<double>(experts);
    for (std::size_t e = 0; e < experts; ++e) {
      const double pull = std::clamp((mean - load[e]) / mean, -1.0, 1.0);
      next[layer * experts + e] += static_cast<float>(setup_->training.balance_rate * steps * pull);
    }
  }
  return next;
}

}  // namespace yumoe
