// Tiers and regions of experts; memory; what is said about a choice.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>

#include "cluster/error.hpp"
#include "router/placement.hpp"

namespace yumoe {
namespace {

[[noreturn]] void broken(const std::string& option, const std::string& rule,
                         const std::string& what) {
  throw Error(ErrorCode::config_invalid, "placement." + option + " = \"" + rule + "\": " + what);
}

struct ExpertRange {
  std::uint32_t first = 0, last = 0;
  std::string value;
};

// "3:eu", "0-3:trusted".
ExpertRange range_of(const std::string& option, const std::string& rule, std::uint32_t experts) {
  const auto number = [&](std::string_view text) {
    std::uint32_t value = 0;
    const auto end = std::from_chars(text.data(), text.data() + text.size(), value);
    if (end.ec != std::errc{} || end.ptr != text.data() + text.size() || text.empty()) {
      broken(option, rule, "must be an expert or a range and a value, such as \"0-3:trusted\"");
    }
    return value;
  };
  const std::size_t colon = rule.find(':');
  const std::string_view range = std::string_view(rule).substr(0, colon);
  const std::size_t dash = range.find('-');
  ExpertRange parsed;
  parsed.first = number(range.substr(0, dash));
  parsed.last = dash == std::string_view::npos ? parsed.first : number(range.substr(dash + 1));
  if (colon != std::string::npos) parsed.value = rule.substr(colon + 1);
  if (parsed.value.empty()) broken(option, rule, "has nothing after the colon");
  if (parsed.first > parsed.last || parsed.last >= experts) {
    broken(option, rule, "experts are 0 to " + std::to_string(experts - 1));
  }
  return parsed;
}

std::vector<std::string> split(const std::string& text, char by) {
  std::vector<std::string> parts;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find(by, begin), text.size());
    parts.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

}  // namespace

std::uint8_t tier_rank(const std::string& tier) {
  return tier == "trusted" ? 2 : tier == "known" ? 1 : 0;
}

ExpertRules::ExpertRules(const PlacementOptions& options, std::uint32_t experts)
    : experts_(experts) {
  for (const std::string& rule : options.tiers) {
    const ExpertRange range = range_of("tiers", rule, experts);
    if (range.value != "open" && range.value != "known" && range.value != "trusted") {
      broken("tiers", rule, "a tier is open, known or trusted");
    }
    tiers_.resize(experts);
    std::fill(tiers_.begin() + range.first, tiers_.begin() + range.last + 1,
              tier_rank(range.value));
  }
  for (const std::string& rule : options.regions) {
    const ExpertRange range = range_of("regions", rule, experts);
    regions_.resize(experts);
    for (std::uint32_t e = range.first; e <= range.last; ++e) regions_[e] = split(range.value, '|');
  }
}

ExpertSet ExpertRules::allowed(const std::string& tier, const std::string& region) const {
  ExpertSet set;
  for (std::uint32_t e = 0; e < experts_; ++e) {
    if (!tiers_.empty() && tier_rank(tier) < tiers_[e]) continue;
    if (!regions_.empty() && !regions_[e].empty() &&
        std::find(regions_[e].begin(), regions_[e].end(), region) == regions_[e].end()) {
      continue;
    }
    set.push_back(e);
  }
  return set;
}

// In fp32. The whole model: base version and its momentum, the trainer's copy of the base, residual,
// delta. A worker's share: parameters, gradient, two moments. A token: what a layer keeps for the way
// back, the experts' hidden values three times over, attention's probabilities, the logits twice.
std::uint64_t training_bytes(const Layout& layout, std::int64_t batch_sequences,
                             std::uint32_t experts) {
  const ModelOptions& m = layout.model();
  const auto whole = static_cast<double>(layout.parameters());
  const auto share = static_cast<double>(layout.trunk_parameters()) +
                     static_cast<double>(experts) * static_cast<double>(layout.expert_parameters());
  const auto k = static_cast<double>(m.experts_per_token);
  const double layer =
      16.0 * static_cast<double>(m.width) +
      k * (4.0 * static_cast<double>(m.width) + 8.0 * static_cast<double>(m.expert_width)) +
      8.0 * static_cast<double>(m.shared_expert_width) +
      2.0 * static_cast<double>(m.heads * m.context) + static_cast<double>(m.experts);
  const double tokens = static_cast<double>(batch_sequences * m.context);
  const double activations =
      tokens * (static_cast<double>(m.layers) * layer + 3.0 * static_cast<double>(m.vocabulary));
  return static_cast<std::uint64_t>(4.0 * (5.0 * whole + 4.0 * share + activations));
}

std::uint32_t experts_that_fit(const Layout& layout, std::int64_t batch_sequences,
                               std::uint64_t memory_mib) {
  const auto experts = static_cast<std::uint32_t>(layout.model().experts);
  if (memory_mib == 0) return experts;
  const std::uint64_t bytes = memory_mib << 20;
  const std::uint64_t none = training_bytes(layout, batch_sequences, 0);
  if (bytes < none) return 0;
  const std::uint64_t one = 16 * std::max<std::uint64_t>(1, layout.expert_parameters());
  return static_cast<std::uint32_t>(std::min<std::uint64_t>(experts, (bytes - none) / one));
}

namespace {

std::string experts_reason(const Assignment& a, const WorkerProfile& profile,
                           const PlacementOptions& options) {
  switch (a.experts_by) {
    case Limit::memory: return "memory of " + std::to_string(profile.memory_mib) + " MiB";
    case Limit::own_maximum: return "its own experts_max";
    case Limit::uplink: return "its uplink: more would hold up the round";
    case Limit::moves: return "placement.moves_max = " + std::to_string(options.moves_max);
    case Limit::lost_before: return "it was lost twice while training with more";
    case Limit::rules:
      return "the rules for tier " + profile.tier +
             (profile.region.empty() ? "" : " and region " + profile.region);
    default: return "";
  }
}

std::string steps_reason(const Assignment& a, const WorkerProfile& profile,
                         const PlacementOptions& options) {
  char speed[64];
  std::snprintf(speed, sizeof speed, "%.4g tokens/s", profile.tokens_per_s);
  switch (a.steps_by) {
    case Limit::own_maximum:
      return std::string("its own inner_steps_max, not its speed of ") + speed;
    case Limit::run_maximum:
      return std::string("placement.inner_steps_max, not its speed of ") + speed;
    case Limit::run_minimum:
      return std::string("placement.inner_steps_min; at ") + speed +
             " that is longer than the round";
    case Limit::not_measured:
      return "placement.inner_steps_first = " + std::to_string(options.inner_steps_first) +
             ": its speed is not known yet";
    default: return std::string("to finish with the others at ") + speed;
  }
}

}  // namespace

std::string explain(const Assignment& a, const WorkerProfile& profile,
                    const PlacementOptions& options, std::uint32_t experts_of_model) {
  if (a.experts.empty()) return a.why;
  std::string text =
      std::to_string(a.experts.size()) + " of " + std::to_string(experts_of_model) + " experts";
  const std::string experts = experts_reason(a, profile, options);
  if (!experts.empty()) text += " (bound by " + experts + ")";
  text += "; " + std::to_string(a.inner_steps) + " steps: " + steps_reason(a, profile, options);
  if (a.moved > 0) text += "; takes on " + std::to_string(a.moved) + " experts";
  if (!a.awaited) text += "; not waited for, comes late and counts less";
  return text;
}

}  // namespace yumoe
