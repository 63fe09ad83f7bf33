#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <type_traits>

#include "cluster/error.hpp"
#include "coordinator/ledger_rules.hpp"

namespace yumoe {
namespace {

constexpr std::uint64_t kOf16 = 65'535;
constexpr std::uint64_t kMillion = 1'000'000;
constexpr std::uint64_t kOf64 = ~std::uint64_t{0};
constexpr std::string_view kSwitchOfSubnet = "emission_enabled/";

constexpr std::pair<std::string_view, std::uint64_t> kShares[] = {
    {"kappa", kOf16},
    {"max_weights_limit", kOf16},
    {"bonds_moving_average", kMillion},
    {"bonds_penalty", kOf16},
    {"alpha_low", kOf16},
    {"alpha_high", kOf16},
    {"fee_rate", kOf16},
    {"tao_weight", kOf64},
    {"owner_cut", kOf16},
    {"default_take", kOf16},
    {"take_min", kOf16},
    {"take_max", kOf16},
    {"childkey_take_min", kOf16},
    {"childkey_take_max", kOf16},
    {"childkey_burn", kOf64}};

// Where [ledger] has another word than the chain.
constexpr std::pair<std::string_view, std::string_view> kOptions[] = {
    {"liquid_alpha_on", "liquid_alpha"},
    {"commit_reveal_weights_enabled", "commit_reveal"},
    {"default_take", "take"},
    {"network_lock_min", "network_lock"},
    {"epochs_per_block_max", "epochs_per_block"}};

template <typename Parameters>
void add_rules(std::vector<LedgerRule>& rules, bool network) {
  Parameters parameters;
  parameters.visit_named([&](std::string_view name, auto& field, const ledger::Bounds& bounds) {
    using Field = std::remove_reference_t<decltype(field)>;
    LedgerRule rule;
    rule.name = name;
    for (const auto& [chain, option] : kOptions) {
      if (chain == name) rule.option = option;
    }
    rule.network = network;
    rule.owner = !network && bounds.owner;
    rule.flag = std::is_same_v<Field, bool>;
    for (const auto& [share, whole] : kShares) {
      if (share == name) rule.whole = whole;
    }
    rule.min = bounds.min;
    rule.max = std::min<std::uint64_t>(bounds.max, std::numeric_limits<Field>::max());
    rules.push_back(std::move(rule));
  });
}

std::string decimal(std::uint64_t value, std::uint64_t whole) {
  char text[32];
  std::snprintf(text, sizeof text, "%.6g", static_cast<double>(value) / static_cast<double>(whole));
  std::string share = text;
  if (share.find_first_of(".e") == std::string::npos) share += ".0";
  return share;
}

std::string fraction(std::uint64_t value, std::uint64_t whole) {
  return std::to_string(value) + "/" + std::to_string(whole);
}

[[noreturn]] void fail(const LedgerRule& rule, std::string_view value, const std::string& why) {
  throw Error(ErrorCode::usage, rule.name + "=" + std::string(value) + ": " + why);
}

std::uint64_t value_from(const LedgerRule& rule, std::string_view value) {
  if (rule.flag && (value == "true" || value == "false")) return value == "true" ? 1 : 0;
  std::uint64_t number = 0;
  if (rule.whole != 0) {
    number = share_units(value, rule.whole, rule.name + "=" + std::string(value));
  } else if (!option_detail::parse_number(value, number)) {
    fail(rule, value, "must be " + bounds_text(rule));
  }
  if (number < rule.min || number > rule.max) fail(rule, value, "must be " + bounds_text(rule));
  return number;
}

std::string_view base_name(std::string_view name) {
  std::uint16_t netuid = 0;
  return name.starts_with(kSwitchOfSubnet) &&
                 option_detail::parse_number(name.substr(kSwitchOfSubnet.size()), netuid)
             ? kSwitchOfSubnet.substr(0, kSwitchOfSubnet.size() - 1)
             : name;
}

}  // namespace

const std::vector<LedgerRule>& ledger_rules() {
  static const std::vector<LedgerRule> kRules = [] {
    std::vector<LedgerRule> rules;
    add_rules<ledger::SubnetParameters>(rules, false);
    add_rules<ledger::NetworkParameters>(rules, true);
    return rules;
  }();
  return kRules;
}

const LedgerRule* ledger_rule(std::string_view name) {
  for (const LedgerRule& rule : ledger_rules()) {
    if (rule.name == name || (!rule.option.empty() && rule.option == name)) return &rule;
  }
  return nullptr;
}

std::pair<std::string, std::uint64_t> rule_from(std::string_view text) {
  const std::size_t equals = text.find('=');
  if (equals == std::string_view::npos || equals == 0 || equals + 1 == text.size()) {
    throw Error(ErrorCode::usage,
                std::string(text) + ": expected NAME=VALUE of a rule, such as kappa=0.6");
  }
  const std::string_view name = text.substr(0, equals);
  const std::string_view base = base_name(name);
  const LedgerRule* rule = ledger_rule(base);
  if (rule == nullptr) {
    throw Error(ErrorCode::usage, "no rule of the ledger is called '" + std::string(name) +
                                      "'; docs/ledger.md lists them");
  }
  return {base == name ? rule->name : std::string(name),
          value_from(*rule, text.substr(equals + 1))};
}

std::uint64_t share_units(std::string_view text, std::uint64_t whole, const std::string& what) {
  const auto refuse = [&](const std::string& why) {
    throw Error(ErrorCode::usage, what + ": " + why);
  };
  std::uint64_t number = 0, denominator = 0;
  if (option_detail::parse_number(text, number)) {
    if (number == 0) return 0;
    refuse("is a share, so a whole number could mean two things: write " +
           (number == 1 ? std::string("1.0") : decimal(number, whole)) + " or " +
           fraction(number, whole));
  }
  const std::size_t slash = text.find('/');
  if (slash != std::string_view::npos) {
    if (!option_detail::parse_number(text.substr(0, slash), number) ||
        !option_detail::parse_number(text.substr(slash + 1), denominator) || denominator != whole ||
        number > whole) {
      refuse("the chain counts this share as N/" + std::to_string(whole));
    }
    return number;
  }
  double share = 0;
  if (!option_detail::parse(text, share) || !(share >= 0 && share <= 1)) {
    refuse("must be a share, 0.0 to 1.0");
  }
  if (whole == kMillion) return static_cast<std::uint64_t>(std::llround(share * 1e6));
  if (share >= 1) return whole;
  const double units = whole == kOf64 ? std::ldexp(1.0, 64) : static_cast<double>(whole);
  return static_cast<std::uint64_t>(std::floor(share * units));
}

std::string rule_text(const std::string& name, std::uint64_t value) {
  const LedgerRule* rule = ledger_rule(base_name(name));
  std::string text = name + " = ";
  if (rule != nullptr && rule->flag) return text + (value != 0 ? "true" : "false");
  if (rule == nullptr || rule->whole == 0) return text + std::to_string(value);
  return text + decimal(value, rule->whole) + " (" + fraction(value, rule->whole) + ")";
}

std::string bounds_text(const LedgerRule& rule) {
  if (rule.flag) return "true or false";
  if (rule.whole != 0) {
    return "a share, " + decimal(rule.min, rule.whole) + " to " +
           decimal(std::min(rule.max, rule.whole), rule.whole);
  }
  if (rule.max == kOf64) return "a whole number, at least " + std::to_string(rule.min);
  return "a whole number, " + std::to_string(rule.min) + " to " + std::to_string(rule.max);
}

bool choose_rule(ledger::LedgerOptions& options, std::string_view text) {
  const std::size_t equals = text.find('=');
  if (equals == std::string_view::npos) return false;
  bool chosen = false;
  const auto choose = [&](std::string_view name, auto& value, const OptionInfo& info) {
    if constexpr (std::is_same_v<std::remove_reference_t<decltype(value)>, std::string>) {
      if (name != text.substr(0, equals)) return;
      value = text.substr(equals + 1);
      if (const std::string rule = broken_rule(value, info); !rule.empty()) {
        throw Error(ErrorCode::usage, std::string(text) + ": " + rule);
      }
      chosen = true;
    }
  };
  options.visit(choose);
  return chosen;
}

}  // namespace yumoe
