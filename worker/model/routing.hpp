#pragma once
// Which experts see which token: choice, weights, and the order that makes each expert's tokens one
// contiguous slice. Plain numbers, no tensors. Source: DeepSeek-V3's balancing without a loss.

#include <cstdint>
#include <span>
#include <vector>

namespace yumoe {

struct RoutingOptions {
  std::int64_t experts_per_token = 2;
  double balance_loss = 0;   // weight of the classic auxiliary loss
  double router_z_loss = 0;  // weight of the mean squared log-sum-exp of the logits
};

struct Routing {
  // Sorted by expert, then token; expert held[e] has rows [begin[e], begin[e + 1]).
  std::vector<std::int64_t> begin;     // [held + 1]
  std::vector<std::int32_t> token;     // [tokens * k]
  std::vector<std::int32_t> slot;      // [tokens * k]: token * k + j
  std::vector<float> weight;           // [tokens * k]: of the normalised affinities
  std::vector<std::int32_t> chosen;    // by slot: position in held
  std::vector<float> affinity;         // [tokens, experts]: sigmoid of the logits
  std::int64_t experts_per_token = 0;  // min(asked, held)
  double auxiliary = 0;                // balance_loss and z-loss terms, already weighted
  std::vector<double> share;           // [held]: of all assignments
  double tokens = 0;                   // that the auxiliary terms are a mean over
};

// Chooses for each row of logits [tokens, experts] the experts of `held` with the largest
// affinity + bias (ties: the lower index), weighted by their unbiased affinities, normalised.
// bias [experts] may be empty. NaN logits route somewhere valid and show up in the loss.
Routing route(std::span<const float> logits, std::int64_t experts, std::span<const float> bias,
              std::span<const std::uint32_t> held, const RoutingOptions& options);

// Makes `routing`, of one part of a batch of `tokens`, know the whole's assignments `counts` [held]:
// then `auxiliary` is the part's share of the whole's, and so is its gradient.
void set_load(Routing& routing, std::span<const float> logits, std::int64_t experts,
              std::span<const std::uint32_t> held, const RoutingOptions& options,
              std::span<const std::int64_t> counts, std::int64_t tokens);

// Writes d(loss) / d(logits) [tokens, experts], given d(loss) / d(weight) in the sorted order of
// `routing`; adds the auxiliary terms. Experts not held get zero.
void route_backward(const Routing& routing, std::span<const float> logits, std::int64_t experts,
                    std::span<const std::uint32_t> held, std::span<const float> d_weight,
                    const RoutingOptions& options, std::span<float> d_logits);

}  // namespace yumoe
