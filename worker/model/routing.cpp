#include "model/routing.hpp"

#include <algorithm>
#include <cmath>

#include "model/kernels.hpp"

namespace yumoe {
namespace {

// The k best of a row by affinity + bias, ascending position. Each pass takes the best that is left.
void choose(const float* score, std::span<const std::uint32_t> held, std::int64_t k,
            std::int32_t* chosen) {
  for (std::int64_t j = 0; j < k; ++j) {
    std::int32_t best = -1;
    for (std::size_t i = 0; i < held.size(); ++i) {
      const auto position = static_cast<std::int32_t>(i);
      if (std::find(chosen, chosen + j, position) != chosen + j) continue;
      if (best < 0 || score[held[i]] > score[held[static_cast<std::size_t>(best)]]) best = position;
    }
    chosen[j] = best;
  }
  std::sort(chosen, chosen + k);
}

void sort_by_expert(Routing& routing, std::span<const float> slot_weight, std::size_t held) {
  const std::int64_t k = routing.experts_per_token;
  const std::size_t rows = routing.chosen.size();
  routing.begin.assign(held + 1, 0);
  for (const std::int32_t expert : routing.chosen)
    ++routing.begin[static_cast<std::size_t>(expert) + 1];
  for (std::size_t e = 0; e < held; ++e) routing.begin[e + 1] += routing.begin[e];
  std::vector<std::int64_t> next(routing.begin.begin(), routing.begin.end() - 1);
  routing.token.resize(rows);
  routing.slot.resize(rows);
  routing.weight.resize(rows);
  for (std::size_t slot = 0; slot < rows; ++slot) {
    const auto row =
        static_cast<std::size_t>(next[static_cast<std::size_t>(routing.chosen[slot])]++);
    routing.token[row] = static_cast<std::int32_t>(static_cast<std::int64_t>(slot) / k);
    routing.slot[row] = static_cast<std::int32_t>(slot);
    routing.weight[row] = slot_weight[slot];
  }
}

double log_sum_exp(const float* row, std::span<const std::uint32_t> held) {
  float largest = row[held[0]];
  for (const std::uint32_t e : held) largest = std::max(largest, row[e]);
  double sum = 0;
  for (const std::uint32_t e : held) sum += std::exp(static_cast<double>(row[e] - largest));
  return largest + std::log(sum);
}

// Share of all assignments that each held expert got.
std::vector<double> load_shares(const Routing& routing, std::size_t held) {
  std::vector<double> share(held);
  const double all = static_cast<double>(std::max<std::size_t>(routing.chosen.size(), 1));
  for (std::size_t e = 0; e < held; ++e) {
    share[e] = static_cast<double>(routing.begin[e + 1] - routing.begin[e]) / all;
  }
  return share;
}

double auxiliary_loss(const Routing& routing, std::span<const float> logits, std::int64_t experts,
                      std::span<const std::uint32_t> held, const RoutingOptions& options) {
  if (options.balance_loss == 0 && options.router_z_loss == 0) return 0;
  const auto stride = static_cast<std::size_t>(experts);
  const std::size_t tokens = logits.size() / stride;
  const std::vector<double>& share = routing.share;
  double z = 0, balance = 0;
  for (std::size_t t = 0; t < tokens; ++t) {
    const double lse = log_sum_exp(&logits[t * stride], held);
    z += lse * lse;
    const float* affinity = &routing.affinity[t * stride];
    double sum = 0, weighted = 0;
    for (std::size_t e = 0; e < held.size(); ++e) {
      sum += affinity[held[e]];
      weighted += share[e] * affinity[held[e]];
    }
    balance += weighted / sum;
  }
  return (options.router_z_loss * z +
          options.balance_loss * static_cast<double>(held.size()) * balance) /
         routing.tokens;
}

}  // namespace

Routing route(std::span<const float> logits, std::int64_t experts, std::span<const float> bias,
              std::span<const std::uint32_t> held, const RoutingOptions& options) {
  Routing routing;
  const auto stride = static_cast<std::size_t>(experts);
  const std::size_t tokens = logits.size() / stride;
  routing.experts_per_token =
      std::min<std::int64_t>(options.experts_per_token, static_cast<std::int64_t>(held.size()));
  const auto k = static_cast<std::size_t>(routing.experts_per_token);
  routing.affinity.resize(logits.size());
  kernels::sigmoid(logits.data(), routing.affinity.data(),
                   static_cast<std::int64_t>(logits.size()));
  routing.chosen.resize(tokens * k);
  std::vector<float> slot_weight(tokens * k);
  std::vector<float> score(stride);
  for (std::size_t t = 0; t < tokens; ++t) {
    const float* affinity = &routing.affinity[t * stride];
    const float* by = affinity;
    if (!bias.empty()) {
      for (std::size_t e = 0; e < stride; ++e) score[e] = affinity[e] + bias[e];
      by = score.data();
    }
    std::int32_t* chosen = &routing.chosen[t * k];
    choose(by, held, routing.experts_per_token, chosen);
    float sum = 0;
    for (std::size_t j = 0; j < k; ++j) sum += affinity[held[static_cast<std::size_t>(chosen[j])]];
    for (std::size_t j = 0; j < k; ++j) {
      slot_weight[t * k + j] = affinity[held[static_cast<std::size_t>(chosen[j])]] / sum;
    }
  }
  sort_by_expert(routing, slot_weight, held.size());
  routing.share = load_shares(routing, held.size());
  routing.tokens = static_cast<double>(tokens);
  routing.auxiliary = auxiliary_loss(routing, logits, experts, held, options);
  return routing;
}

void set_load(Routing& routing, std::span<const float> logits, std::int64_t experts,
              std::span<const std::uint32_t> held, const RoutingOptions& options,
              std::span<const std::int64_t> counts, std::int64_t tokens) {
  std::int64_t all = 0;
  for (const std::int64_t count : counts) all += count;
  for (std::size_t e = 0; e < held.size(); ++e) {
    routing.share[e] =
        static_cast<double>(counts[e]) / static_cast<double>(std::max<std::int64_t>(all, 1));
  }
  routing.tokens = static_cast<double>(tokens);
  routing.auxiliary = auxiliary_loss(routing, logits, experts, held, options);
}

namespace {

// The auxiliary terms' part of one token's gradient.
void add_auxiliary_gradient(const float* logits, const float* affinity,
                            std::span<const std::uint32_t> held, std::span<const double> share,
                            const RoutingOptions& options, double per_token, float* d_logits) {
  const double lse = log_sum_exp(logits, held);
  double sum = 0, weighted = 0;
  for (std::size_t e = 0; e < held.size(); ++e) {
    sum += affinity[held[e]];
    weighted += share[e] * affinity[held[e]];
  }
  for (std::size_t e = 0; e < held.size(); ++e) {
    const double a = affinity[held[e]];
    const double z = options.router_z_loss * 2 * lse * std::exp(logits[held[e]] - lse);
    const double balance = options.balance_loss * static_cast<double>(held.size()) *
                           (share[e] - weighted / sum) / sum * a * (1 - a);
    d_logits[held[e]] += static_cast<float>(per_token * (z + balance));
  }
}

}  // namespace

void route_backward(const Routing& routing, std::span<const float> logits, std::int64_t experts,
                    std::span<const std::uint32_t> held, std::span<const float> d_weight,
                    const RoutingOptions& options, std::span<float> d_logits) {
  const auto stride = static_cast<std::size_t>(experts);
  const std::size_t tokens = logits.size() / stride;
  const auto k = static_cast<std::size_t>(routing.experts_per_token);
  std::vector<float> by_slot(d_weight.size());
  for (std::size_t row = 0; row < d_weight.size(); ++row) {
    by_slot[static_cast<std::size_t>(routing.slot[row])] = d_weight[row];
  }
  std::fill(d_logits.begin(), d_logits.end(), 0.0F);
  const bool has_auxiliary = options.balance_loss != 0 || options.router_z_loss != 0;
  for (std::size_t t = 0; t < tokens; ++t) {
    const float* affinity = &routing.affinity[t * stride];
    const std::int32_t* chosen = &routing.chosen[t * k];
    float sum = 0, mean = 0;
    for (std::size_t j = 0; j < k; ++j) {
      const float a = affinity[held[static_cast<std::size_t>(chosen[j])]];
      sum += a;
      mean += a * by_slot[t * k + j];
    }
    mean /= sum;
    for (std::size_t j = 0; j < k; ++j) {
      const std::uint32_t e = held[static_cast<std::size_t>(chosen[j])];
      const float a = affinity[e];
      d_logits[t * stride + e] = (by_slot[t * k + j] - mean) / sum * a * (1 - a);
    }
    if (has_auxiliary) {
      add_auxiliary_gradient(&logits[t * stride], affinity, held, routing.share, options,
                             1.0 / routing.tokens, &d_logits[t * stride]);
    }
  }
}

}  // namespace yumoe
