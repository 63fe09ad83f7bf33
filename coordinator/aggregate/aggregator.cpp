#include <algorithm>
#include <cmath>
#include <functional>

#include "aggregate/tensor_sum.hpp"
#include "cluster/error.hpp"
#include "coordinator/aggregate.hpp"

namespace yumoe {
namespace {

constexpr Uid kCoordinatorUid{65'535};

template <typename Options>
void check(const Options& options) {
  Options copy = options;
  auto check_one = [](std::string_view name, auto& value, const OptionInfo& info) {
    const std::string rule = broken_rule(value, info);
    if (!rule.empty()) throw Error(ErrorCode::config_invalid, std::string(name) + " " + rule);
  };
  copy.visit(check_one);
}

bool is_weighted_sum(const AggregateOptions& options) {
  return options.rule != "trimmed_mean" && options.support_senders <= 1;
}

bool holds(const Update& update, const TensorSpec& tensor) {
  return tensor.expert < 0 || std::binary_search(update.experts().begin(), update.experts().end(),
                                                 static_cast<std::uint32_t>(tensor.expert));
}

double weight_of(const WeightedUpdate& from, const TensorSpec& tensor, std::int64_t experts) {
  if (!holds(*from.update, tensor)) return 0;
  const std::uint64_t tokens =
      tensor.expert < 0
          ? from.tokens
          : from.expert_tokens[static_cast<std::size_t>(tensor.layer * experts + tensor.expert)];
  return from.weight * static_cast<double>(tokens);
}

// The norm at which half of the weight is reached; between two norms if it is reached exactly.
double weighted_median_norm(std::span<const WeightedUpdate> contributions,
                            std::span<const TensorPart> parts) {
  std::vector<std::pair<double, double>> norms;  // norm, share
  double total = 0;
  for (const TensorPart& part : parts) {
    if (!part.sent) continue;
    norms.emplace_back(
        std::sqrt(contributions[part.contribution].update->squared_norm(part.position)),
        part.share);
    total += part.share;
  }
  std::sort(norms.begin(), norms.end());
  double below = 0;
  for (std::size_t i = 0; i < norms.size(); ++i) {
    below += norms[i].second;
    const double excess = below - total / 2;
    const double rounding = 1e-12 * total;
    if (excess > rounding || i + 1 == norms.size()) return norms[i].first;
    if (excess >= -rounding) return (norms[i].first + norms[i + 1].first) / 2;
  }
  return 0;
}

void clip_to_median(double clip_factor, std::span<const WeightedUpdate> contributions,
                    std::span<TensorPart> parts) {
  const double most = clip_factor * weighted_median_norm(contributions, parts);
  for (TensorPart& part : parts) {
    if (!part.sent) continue;
    const double norm =
        std::sqrt(contributions[part.contribution].update->squared_norm(part.position));
    part.clip = norm > most ? most / norm : 1.0;
  }
}

// Calls visit(tensor index, its parts) for every tensor that somebody trained and somebody sent.
void for_each_tensor(const Layout& layout, std::span<const WeightedUpdate> contributions,
                     const std::function<void(std::uint32_t, std::vector<TensorPart>&)>& visit) {
  std::vector<std::size_t> next(contributions.size());
  for (std::uint32_t index = 0; index < layout.tensors().size(); ++index) {
    const TensorSpec& tensor = layout.tensors()[index];
    std::vector<TensorPart> parts;
    double total = 0;
    bool any_sent = false;
    for (std::size_t c = 0; c < contributions.size(); ++c) {
      const std::span<const std::uint32_t> tensors = contributions[c].update->tensors();
      TensorPart part{.contribution = c, .position = next[c]};
      part.sent = next[c] < tensors.size() && tensors[next[c]] == index;
      next[c] += part.sent;
      part.share = weight_of(contributions[c], tensor, layout.model().experts);
      if (part.share <= 0) continue;
      total += part.share;
      any_sent = any_sent || part.sent;
      parts.push_back(part);
    }
    if (!any_sent) continue;
    for (TensorPart& part : parts) part.share /= total;
    visit(index, parts);
  }
}

Aggregate forwarded(RoundId round, std::span<const WeightedUpdate> contributions,
                    std::span<const ContributionFactors> factors) {
  Aggregate aggregate;
  aggregate.round = round;
  for (std::size_t c = 0; c < contributions.size(); ++c) {
    AggregateSource source;
    source.uid = contributions[c].uid;
    bool any = false;
    for (std::size_t i = 0; i < factors[c].share.size(); ++i) {
      source.factors.push_back(static_cast<float>(factors[c].share[i] * factors[c].clip[i]));
      any = any || source.factors.back() != 0;
    }
    if (!any) continue;
    source.update = contributions[c].update->bytes();
    aggregate.sources.push_back(std::move(source));
  }
  return aggregate;
}

std::uint64_t bytes_of(const Aggregate& aggregate) {
  std::uint64_t bytes = 0;
  for (const AggregateSource& source : aggregate.sources) {
    bytes += source.update.size() + source.factors.size() * sizeof(float);
  }
  return bytes;
}

}  // namespace

Aggregator::Aggregator(const Layout& layout, const AggregateOptions& options,
                       const CodecOptions& codec)
    : layout_(&layout), options_(options), down_(codec) {
  down_.kept_per_block = options.recompress_kept_per_block;
  down_.value_bits = options.recompress_value_bits;
  check(options_);
  check(down_);
  if (options_.downstream == "forward" && !is_weighted_sum(options_)) {
    throw Error(ErrorCode::config_invalid,
                "aggregate.downstream = forward needs a rule that is a weighted sum: take "
                "recompress or auto, or rule = clipped_mean with support_senders = 1");
  }
}

void Aggregator::restore(std::vector<float> residual) {
  YUMOE_ASSERT(residual.empty() || residual.size() == layout_->parameters());
  residual_ = std::move(residual);
}

std::vector<ContributionFactors> Aggregator::factors_of(
    std::span<const WeightedUpdate> contributions) const {
  std::vector<ContributionFactors> factors(contributions.size());
  for (std::size_t c = 0; c < contributions.size(); ++c) {
    factors[c].uid = contributions[c].uid;
    factors[c].clip.assign(contributions[c].update->tensors().size(), 1.0);
    factors[c].share.assign(contributions[c].update->tensors().size(), 0.0);
  }
  for_each_tensor(*layout_, contributions, [&](std::uint32_t, std::vector<TensorPart>& parts) {
    if (options_.rule == "clipped_mean") {
      clip_to_median(options_.clip_factor, contributions, parts);
    }
    for (const TensorPart& part : parts) {
      if (!part.sent) continue;
      factors[part.contribution].clip[part.position] = part.clip;
      factors[part.contribution].share[part.position] = part.share;
    }
  });
  return factors;
}

std::vector<float> Aggregator::sum_of(std::span<const WeightedUpdate> contributions,
                                      std::span<const ContributionFactors> factors) const {
  std::vector<float> sum = residual_;
  sum.resize(layout_->parameters());
  const auto decay = static_cast<float>(options_.recompress_error_decay);
  for (float& value : sum) value *= decay;
  for_each_tensor(
      *layout_, contributions, [&](std::uint32_t index, std::vector<TensorPart>& parts) {
        const TensorSpec& tensor = layout_->tensors()[index];
        const std::span<float> dense = std::span(sum).subspan(tensor.offset, tensor.elements);
        for (TensorPart& part : parts) {
          if (part.sent) part.clip = factors[part.contribution].clip[part.position];
        }
        if (!is_weighted_sum(options_)) {
          add_by_coordinate(options_, contributions, parts, dense);
          return;
        }
        for (const TensorPart& part : parts) {
          if (!part.sent) continue;
          contributions[part.contribution].update->add_to(
              part.position, static_cast<float>(part.share * part.clip), dense);
        }
      });
  return sum;
}

AggregateResult Aggregator::aggregate(RoundId round,
                                      std::span<const WeightedUpdate> contributions) {
  const auto cells = static_cast<std::size_t>(layout_->model().layers * layout_->model().experts);
  for (std::size_t c = 0; c < contributions.size(); ++c) {
    YUMOE_ASSERT(contributions[c].expert_tokens.size() == cells);
    YUMOE_ASSERT(contributions[c].weight >= 0 && std::isfinite(contributions[c].weight));
    YUMOE_ASSERT(c == 0 || contributions[c - 1].uid <= contributions[c].uid);
  }
  AggregateResult result;
  result.factors = factors_of(contributions);
  if (is_weighted_sum(options_)) {
    result.aggregate = forwarded(round, contributions, result.factors);
    result.forward_bytes = bytes_of(result.aggregate);
    if (options_.downstream == "forward") return result;
  }
  std::vector<float> sum = sum_of(contributions, result.factors);
  AggregateSource source{kCoordinatorUid, {}, {}};
  source.update = encode_update(*layout_, all_experts(layout_->model()), sum, down_);
  source.factors.assign(Update(*layout_, source.update).tensors().size(), 1.0f);
  result.recompress_bytes = source.update.size() + source.factors.size() * sizeof(float);
  const bool forward = options_.downstream == "auto" && is_weighted_sum(options_) &&
                       result.forward_bytes <= result.recompress_bytes;
  if (forward) return result;
  residual_ = std::move(sum);
  result.aggregate = {round, {}, {}};
  result.aggregate.sources.push_back(std::move(source));
  return result;
}

}  // namespace yumoe
