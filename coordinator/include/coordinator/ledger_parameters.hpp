#pragma once
// The rules' parameters: those of a subnet, changed by its owner, and those of the whole network,
// changed by proposal. Each is declared once, with its bounds; options, owner calls, proposals and
// snapshots all read these lists.

#include <cstdint>
#include <limits>
#include <optional>
#include <string_view>

#include "coordinator/fixed.hpp"

namespace yumoe::ledger {

// Bounds of a parameter's integer form. `owner` says whether the subnet's owner may change it.
struct Bounds {
  std::uint64_t min = 0;
  std::uint64_t max = ~std::uint64_t{0};
  bool owner = true;
};

inline constexpr Bounds kU16{0, 65535};
inline constexpr Bounds kSwitch{0, 1};
inline constexpr Bounds kFixedAtCreation{0, ~std::uint64_t{0}, false};

// Defaults are what network registration writes.
struct SubnetParameters {
  std::uint16_t tempo = 360;
  std::uint16_t kappa = 32767;
  std::uint16_t max_allowed_uids = 256;
  std::uint16_t max_allowed_validators = 64;
  std::uint16_t min_allowed_weights = 1;
  std::uint16_t max_weights_limit = 65535;
  std::uint16_t immunity_period = 5000;
  std::uint32_t activity_cutoff_factor_milli = 13889;
  std::uint64_t weights_version_key = 0;
  std::uint64_t weights_set_rate_limit = 100;
  std::uint64_t bonds_moving_average = 900'000;
  std::uint16_t bonds_penalty = 65535;
  bool bonds_reset_on = false;
  bool liquid_alpha_on = false;
  std::uint16_t yuma = 3;
  std::uint16_t alpha_low = 45875;
  std::uint16_t alpha_high = 58982;
  std::uint16_t alpha_sigmoid_steepness = 1000;
  bool commit_reveal_weights_enabled = true;
  std::uint64_t reveal_period_epochs = 1;
  std::uint64_t min_burn = 500'000;
  std::uint64_t max_burn = 100'000'000'000;
  std::uint16_t burn_half_life = 360;
  std::uint64_t burn_increase_milli = 1260;
  std::uint16_t max_registrations_per_block = 1;
  std::uint16_t target_registrations_per_interval = 2;
  std::uint16_t min_non_immune_uids = 10;
  std::uint16_t immune_owner_uids_limit = 1;
  bool recycle = false;  // withheld incentives leave the supply; else they stay, out of reach
  bool owner_cut_enabled = true;
  bool emission_enabled = false;
  bool registration_allowed = true;
  bool pow_registration_allowed = false;  // read by spec 233 alone
  bool transfer_toggle = true;
  std::uint64_t ema_price_halving_blocks = 201'600;
  std::uint16_t fee_rate = 33;
  std::uint16_t mechanism_count = 1;
  std::uint64_t root_claim_threshold = 500'000;

  friend bool operator==(const SubnetParameters&, const SubnetParameters&) = default;

  // parameter(name, field, bounds)
  template <typename Visitor>
  void visit_named(Visitor&& parameter) {
    parameter("tempo", tempo, Bounds{0, 50'400});
    parameter("kappa", kappa, kU16);
    parameter("max_allowed_uids", max_allowed_uids, Bounds{0, 4096, false});
    parameter("max_allowed_validators", max_allowed_validators, Bounds{1, 65535});
    parameter("min_allowed_weights", min_allowed_weights, kU16);
    parameter("max_weights_limit", max_weights_limit, kU16);
    parameter("immunity_period", immunity_period, kU16);
    parameter("activity_cutoff_factor_milli", activity_cutoff_factor_milli, Bounds{1000, 50'000});
    parameter("weights_version_key", weights_version_key, Bounds{});
    parameter("weights_set_rate_limit", weights_set_rate_limit, Bounds{});
    parameter("bonds_moving_average", bonds_moving_average, Bounds{0, 975'000});
    parameter("bonds_penalty", bonds_penalty, kU16);
    parameter("bonds_reset_on", bonds_reset_on, kSwitch);
    parameter("liquid_alpha_on", liquid_alpha_on, kSwitch);
    parameter("yuma", yuma, Bounds{2, 3});
    parameter("alpha_low", alpha_low, kU16);
    parameter("alpha_high", alpha_high, kU16);
    parameter("alpha_sigmoid_steepness", alpha_sigmoid_steepness, Bounds{0, 32767});
    parameter("commit_reveal_weights_enabled", commit_reveal_weights_enabled, kSwitch);
    parameter("reveal_period_epochs", reveal_period_epochs, Bounds{1, 100});
    parameter("min_burn", min_burn, Bounds{});
    parameter("max_burn", max_burn, Bounds{});
    parameter("burn_half_life", burn_half_life, Bounds{0, 36'100});
    parameter("burn_increase_milli", burn_increase_milli, Bounds{1000, 1'000'000});
    parameter("max_registrations_per_block", max_registrations_per_block, Bounds{0, 65535, false});
    parameter("target_registrations_per_interval", target_registrations_per_interval,
              Bounds{0, 65535, false});
    parameter("min_non_immune_uids", min_non_immune_uids, Bounds{0, 65535, false});
    parameter("immune_owner_uids_limit", immune_owner_uids_limit, Bounds{0, 10});
    parameter("recycle", recycle, kSwitch);
    parameter("owner_cut_enabled", owner_cut_enabled, kSwitch);
    parameter("emission_enabled", emission_enabled, Bounds{0, 1, false});
    parameter("registration_allowed", registration_allowed, kSwitch);
    parameter("pow_registration_allowed", pow_registration_allowed, Bounds{0, 1, false});
    parameter("transfer_toggle", transfer_toggle, kSwitch);
    parameter("ema_price_halving_blocks", ema_price_halving_blocks,
              Bounds{1, 1'000'000'000, false});
    parameter("fee_rate", fee_rate, Bounds{0, 65534, false});
    parameter("mechanism_count", mechanism_count, Bounds{1, 16});
    parameter("root_claim_threshold", root_claim_threshold, Bounds{});
  }
  template <typename Archive>
  void visit(Archive& archive) {
    visit_named([&](std::string_view, auto& field, const Bounds&) { archive(field); });
  }
};

enum class EmissionRule : std::uint8_t { price, price_burn, flow };
enum class PoolRule : std::uint8_t { balancer, constant_product };
enum class ScheduleRule : std::uint8_t { stateful, modular };
enum class BlockRule : std::uint8_t { newest, spec233 };

struct NetworkParameters {
  // Which rules, fixed when the ledger is made.
  BlockRule blocks = BlockRule::newest;
  PoolRule pool = PoolRule::balancer;
  EmissionRule shares = EmissionRule::price_burn;
  ScheduleRule schedule = ScheduleRule::stateful;

  std::uint64_t tao_weight = 3'320'413'933'267'719'290;  // / (2^64-1): 18 %
  std::uint64_t stake_threshold = 0;
  std::uint64_t nominator_min_stake = 0;
  std::uint64_t min_stake = 2'000'000;
  std::uint64_t pool_reserve_min = 1'000'000;
  std::uint16_t owner_cut = 11796;
  std::uint16_t default_take = 11796;
  std::uint16_t take_min = 0;
  std::uint16_t take_max = 11796;
  std::uint16_t childkey_take_min = 0;
  std::uint16_t childkey_take_max = 11796;
  std::uint64_t childkey_burn = 0;          // / (2^64-1)
  std::uint64_t moving_alpha_bits = 12885;  // 0.000003 in 32 fraction bits, nearest
  std::uint16_t epochs_per_block_max = 2;
  std::uint64_t network_lock_min = 1'000'000'000'000;
  std::uint64_t lock_reduction_interval = 100'800;
  std::uint64_t network_rate_limit = 7'200;
  std::uint64_t network_immunity_period = 1'296'000;
  std::uint16_t subnet_limit = 128;
  std::uint64_t start_call_delay = 0;
  std::uint64_t freeze_window = 10;
  std::uint64_t take_rate_limit = 216'000;
  std::uint64_t children_rate_limit = 150;
  std::uint64_t children_delay = 7'200;
  std::uint16_t root_uids_max = 64;
  std::uint16_t root_claims_per_block = 5;
  std::uint64_t proposal_delay = 7'200;
  std::uint64_t network_registration_start = 0;  // first block in which subnets are registered

  friend bool operator==(const NetworkParameters&, const NetworkParameters&) = default;

  template <typename Visitor>
  void visit_named(Visitor&& parameter) {
    parameter("tao_weight", tao_weight, Bounds{});
    parameter("stake_threshold", stake_threshold, Bounds{});
    parameter("nominator_min_stake", nominator_min_stake, Bounds{});
    parameter("min_stake", min_stake, Bounds{0, 1'000'000'000'000});
    parameter("pool_reserve_min", pool_reserve_min, Bounds{1, 1'000'000'000'000});
    parameter("owner_cut", owner_cut, kU16);
    parameter("default_take", default_take, kU16);
    parameter("take_min", take_min, kU16);
    parameter("take_max", take_max, kU16);
    parameter("childkey_take_min", childkey_take_min, kU16);
    parameter("childkey_take_max", childkey_take_max, kU16);
    parameter("childkey_burn", childkey_burn, Bounds{});
    parameter("moving_alpha_bits", moving_alpha_bits, Bounds{0, std::uint64_t{1} << 32});
    parameter("epochs_per_block_max", epochs_per_block_max, Bounds{1, 65535});
    parameter("network_lock_min", network_lock_min, Bounds{0, 21'000'000'000'000'000});
    parameter("lock_reduction_interval", lock_reduction_interval, Bounds{1, 1'000'000'000});
    parameter("network_rate_limit", network_rate_limit, Bounds{});
    parameter("network_immunity_period", network_immunity_period, Bounds{});
    parameter("subnet_limit", subnet_limit, Bounds{1, 4095});
    parameter("start_call_delay", start_call_delay, Bounds{});
    parameter("freeze_window", freeze_window, Bounds{});
    parameter("take_rate_limit", take_rate_limit, Bounds{});
    parameter("children_rate_limit", children_rate_limit, Bounds{});
    parameter("children_delay", children_delay, Bounds{});
    parameter("root_uids_max", root_uids_max, Bounds{1, 4096});
    parameter("root_claims_per_block", root_claims_per_block, Bounds{0, 1000});
    parameter("proposal_delay", proposal_delay, Bounds{});
    parameter("network_registration_start", network_registration_start, Bounds{});
  }
  template <typename Archive>
  void visit(Archive& archive) {
    archive(blocks, pool, shares, schedule);
    visit_named([&](std::string_view, auto& field, const Bounds&) { archive(field); });
  }
};

// Sets one parameter by name. False if there is no such name or the value is out of bounds; with
// `by_owner`, also if the owner may not change it.
template <typename Parameters>
bool set_parameter(Parameters& parameters, std::string_view name, std::uint64_t value,
                   bool by_owner = false) {
  bool done = false;
  parameters.visit_named([&](std::string_view known, auto& field, const Bounds& bounds) {
    if (known != name || value < bounds.min || value > bounds.max) return;
    if (by_owner && !bounds.owner) return;
    using Field = std::remove_reference_t<decltype(field)>;
    if constexpr (!std::is_same_v<Field, bool>) {
      if (value > static_cast<std::uint64_t>(std::numeric_limits<Field>::max())) return;
    }
    field = static_cast<Field>(value);
    done = true;
  });
  return done;
}

template <typename Parameters>
std::optional<std::uint64_t> parameter_value(const Parameters& parameters, std::string_view name) {
  std::optional<std::uint64_t> value;
  Parameters copy = parameters;
  copy.visit_named([&](std::string_view known, auto& field, const Bounds&) {
    if (known == name) value = static_cast<std::uint64_t>(field);
  });
  return value;
}

}  // namespace yumoe::ledger
