// The block-by-block files of older releases: chain/epoch/dtao_spec233_native.json, and the swaps of
// dtao_chain218.json.

#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>

#include "conformance/ledger_blocks.hpp"
#include "coordinator/ledger.hpp"
#include "ledger/block.hpp"
#include "ledger/books.hpp"
#include "ledger/registration.hpp"
#include "ledger/spec233.hpp"

namespace yumoe::conformance {
namespace {

using nlohmann::json;
using namespace yumoe::ledger;

// Account k of the vectors: k as big endian u32, then zeros.
AccountId account(const json& number) {
  const std::uint64_t k = u64_of(number);
  AccountId id{};
  for (std::size_t i = 0; i < 4; ++i) id[i] = static_cast<std::uint8_t>(k >> (24 - 8 * i));
  return id;
}

template <typename T>
T number(const json& one, const char* name) {
  return static_cast<T>(u64_of(one.at(name)));
}

void hold(LedgerState& state, Subnet& subnet, const json& entry) {
  const AccountId hotkey = account(entry.at(0));
  const AccountId coldkey = account(entry.at(1));
  const std::uint64_t alpha = u64_of(entry.at(2));
  state.hotkeys.try_emplace(hotkey, Hotkey{coldkey, std::nullopt, 0});
  subnet.alpha_adrift -= static_cast<std::int64_t>(alpha);
  if (!books::stake(state, subnet, hotkey, coldkey, alpha))
    throw std::runtime_error("stake refused");
}

void add_parameters(SubnetParameters& p, const json& one) {
  p.tempo = number<std::uint16_t>(one, "tempo");
  p.registration_allowed = one.at("registration_allowed").get<bool>();
  p.pow_registration_allowed = one.at("pow_registration_allowed").get<bool>();
  p.max_allowed_validators = number<std::uint16_t>(one, "max_allowed_validators");
  p.kappa = number<std::uint16_t>(one, "kappa");
  p.bonds_moving_average = number<std::uint64_t>(one, "bonds_moving_average");
  p.liquid_alpha_on = one.at("liquid_alpha").get<bool>();
  p.alpha_low = number<std::uint16_t>(one, "alpha_low");
  p.alpha_high = number<std::uint16_t>(one, "alpha_high");
  p.bonds_penalty = number<std::uint16_t>(one, "bonds_penalty");
  p.yuma = 2;
  p.commit_reveal_weights_enabled = false;
  const std::uint64_t tempo = p.tempo == 0 ? 1 : p.tempo;
  p.activity_cutoff_factor_milli = static_cast<std::uint32_t>(
      (number<std::uint64_t>(one, "activity_cutoff") * 1000 + tempo - 1) / tempo);
}

void add_neuron(LedgerState& state, Subnet& subnet, const json& one) {
  const AccountId hotkey = account(one.at("hot"));
  state.hotkeys[hotkey] = {account(one.at("cold")), number<std::uint16_t>(one, "take"), 0};
  if (u64_of(one.at("childkey_take")) != 0) {
    subnet.families[hotkey].childkey_take = number<std::uint16_t>(one, "childkey_take");
  }
  append_neuron(state, subnet, hotkey);
  subnet.neurons.back().registered_at = u64_of(one.at("registered_at"));
  subnet.neurons.back().permit = one.at("permit").get<bool>();
  Mechanism& mechanism = subnet.mechanisms.front();
  mechanism.last_update.back() = u64_of(one.at("last_update"));
  for (const json& entry : one.at("weights")) {
    mechanism.weights.back().push_back({static_cast<std::uint16_t>(u64_of(entry.at(0))),
                                        static_cast<std::uint16_t>(u64_of(entry.at(1)))});
  }
}

void add_subnet(LedgerState& state, const json& one) {
  const auto netuid = number<std::uint16_t>(one, "netuid");
  Subnet& subnet = state.subnets[netuid];
  subnet.netuid = netuid;
  subnet.dynamic = u64_of(one.at("mechanism")) != 0;
  subnet.subtoken_enabled = true;
  add_parameters(subnet.parameters, one);
  subnet.reserves.tao = u64_of(one.at("tao"));
  subnet.reserves.alpha = u64_of(one.at("alpha_in"));
  subnet.alpha_out = u64_of(one.at("alpha_out"));
  subnet.alpha_adrift = static_cast<std::int64_t>(subnet.alpha_out);
  subnet.moving_price =
      I96F32::from_bits(static_cast<ledger::Int128>(i128_of(one.at("moving_price_bits"))));
  if (!one.at("owner").is_null()) {
    subnet.owner_hotkey = account(one.at("owner").at(0));
    subnet.owner_coldkey = account(one.at("owner").at(1));
    state.hotkeys[subnet.owner_hotkey] = {subnet.owner_coldkey, std::nullopt, 0};
  }
  for (const json& neuron : one.at("neurons")) add_neuron(state, subnet, neuron);
  for (const json& entry : one.at("stakes")) hold(state, subnet, entry);
  if (!one.contains("parents")) return;
  for (const json& entry : one.at("parents")) {
    const AccountId child = account(entry.at(0));
    const AccountId parent = account(entry.at(2));
    subnet.families[child].parents.push_back({u64_of(entry.at(1)), parent});
    subnet.families[parent].children.push_back({u64_of(entry.at(1)), child});
  }
}

LedgerState world_of(const json& config) {
  LedgerState state = Ledger().state();
  state.parameters.blocks = BlockRule::spec233;
  state.parameters.schedule = ScheduleRule::modular;
  state.parameters.tao_weight = u64_of(config.at("tao_weight"));
  state.parameters.owner_cut = number<std::uint16_t>(config, "subnet_owner_cut");
  state.parameters.moving_alpha_bits =
      config.contains("moving_alpha_bits") ? u64_of(config.at("moving_alpha_bits")) : 12885;
  state.block = u64_of(config.at("block"));
  state.total_stake = u64_of(config.at("total_stake"));
  state.issuance = u64_of(config.at("total_issuance"));
  for (const json& subnet : config.at("subnets")) add_subnet(state, subnet);
  Subnet& root = state.subnets.at(kRootNetuid);
  root.reserves.tao = u64_of(config.at("root_tao"));
  root.alpha_out = root.reserves.tao;
  root.alpha_adrift = static_cast<std::int64_t>(root.alpha_out);
  for (const json& entry : config.at("root_stakes")) hold(state, root, entry);
  // What of the issuance lies in no pool lies with people the vectors do not show.
  state.burned = state.issuance;
  for (const auto& [netuid, subnet] : state.subnets) state.burned -= subnet.reserves.tao;
  return state;
}

class StateCheck {
 public:
  StateCheck(const LedgerState& state, const json& want, const std::string& where, Tally& tally)
      : state_(state), want_(want), where_(where), tally_(tally) {}

  // One case for the whole state: the first difference is told.
  void run() {
    is("TotalIssuance", state_.issuance, want_.at("TotalIssuance"));
    is("TotalStake", state_.total_stake, want_.at("TotalStake"));
    for (const auto& [netuid, subnet] : want_.at("subnets").items()) {
      check_subnet(state_.subnets.at(static_cast<std::uint16_t>(std::stoul(netuid))), subnet);
    }
    for (const json& entry : want_.at("hotkeys")) {
      const SharePool& pool = pool_at(entry.at(1), entry.at(0));
      is("alpha of a hotkey", pool.total(), entry.at(2));
      is_wide("shares of a hotkey", pool.denominator().mantissa, entry.at(3));
    }
    for (const json& entry : want_.at("alpha")) {
      const SharePool& pool = pool_at(entry.at(2), entry.at(0));
      is("alpha of a coldkey", pool.value_of(account(entry.at(1))), entry.at(4));
    }
    tally_.check(difference_);
  }

 private:
  const SharePool& pool_at(const json& netuid, const json& hotkey) const {
    return state_.subnets.at(static_cast<std::uint16_t>(u64_of(netuid))).stakes.at(account(hotkey));
  }
  void is(const std::string& what, std::uint64_t got, const json& want) {
    if (got == u64_of(want) || !difference_.empty()) return;
    difference_ = where_ + ": " + what + " is " + std::to_string(got) + ", expected " + want.dump();
  }
  void is_wide(const std::string& what, UInt128 got, const json& want) {
    if (got == static_cast<UInt128>(i128_of(want)) || !difference_.empty()) return;
    difference_ = where_ + ": " + what + " differs from " + want.dump();
  }
  template <typename Field>
  void list(const std::string& what, const Subnet& subnet, const json& want, Field field) {
    if (want.empty()) return;  // nothing written before the first epoch
    for (std::size_t uid = 0; uid < want.size(); ++uid) {
      is(what + " of " + std::to_string(uid), field(subnet.neurons.at(uid), uid), want.at(uid));
    }
  }

  void check_subnet(const Subnet& subnet, const json& want) {
    const std::string name = "subnet " + std::to_string(subnet.netuid) + " ";
    is(name + "SubnetTAO", subnet.reserves.tao, want.at("SubnetTAO"));
    if (subnet.netuid == kRootNetuid) return;  // the chain leaves the rest of root at 0
    is(name + "SubnetAlphaIn", subnet.reserves.alpha, want.at("SubnetAlphaIn"));
    is(name + "SubnetAlphaOut", subnet.alpha_out, want.at("SubnetAlphaOut"));
    is(name + "SubnetTaoInEmission", subnet.tao_in_emission, want.at("SubnetTaoInEmission"));
    is(name + "SubnetAlphaInEmission", subnet.alpha_in_emission, want.at("SubnetAlphaInEmission"));
    is(name + "SubnetAlphaOutEmission", subnet.alpha_out_emission,
       want.at("SubnetAlphaOutEmission"));
    is(name + "SubnetVolume", subnet.volume, want.at("SubnetVolume"));
    is(name + "PendingEmission", subnet.pending_emission, want.at("PendingEmission"));
    is(name + "PendingRootDivs", subnet.pending_root_tao, want.at("PendingRootDivs"));
    is(name + "PendingAlphaSwapped", subnet.pending_alpha_swapped, want.at("PendingAlphaSwapped"));
    is(name + "PendingOwnerCut", subnet.pending.owner_cut, want.at("PendingOwnerCut"));
    is(name + "BlocksSinceLastStep", subnet.blocks_since_last_step, want.at("BlocksSinceLastStep"));
    is(name + "LastMechansimStepBlock", subnet.last_step_block, want.at("LastMechansimStepBlock"));
    is_wide(name + "moving price", static_cast<UInt128>(subnet.moving_price.bits()),
            want.at("SubnetMovingPrice_bits"));
    check_neurons(subnet, want, name);
  }

  void check_neurons(const Subnet& subnet, const json& want, const std::string& name) {
    list(name + "Consensus", subnet, want.at("Consensus"),
         [](const Neuron& n, std::size_t) { return n.consensus; });
    list(name + "Dividends", subnet, want.at("Dividends"),
         [](const Neuron& n, std::size_t) { return n.dividends; });
    list(name + "ValidatorTrust", subnet, want.at("ValidatorTrust"),
         [](const Neuron& n, std::size_t) { return n.validator_trust; });
    list(name + "ValidatorPermit", subnet, want.at("ValidatorPermit"),
         [](const Neuron& n, std::size_t) { return n.permit; });
    list(name + "StakeWeight", subnet, want.at("StakeWeight"),
         [](const Neuron& n, std::size_t) { return n.stake_weight; });
    list(name + "Emission", subnet, want.at("Emission"),
         [](const Neuron& n, std::size_t) { return n.emission; });
    list(name + "Incentive", subnet, want.at("Incentive"), [&](const Neuron&, std::size_t uid) {
      return subnet.mechanisms.front().incentive.at(uid);
    });
    for (const json& entry : want.at("AlphaDividendsPerSubnet")) {
      is(name + "AlphaDividends", subnet.alpha_dividends.at(account(entry.at(0))), entry.at(1));
    }
    for (const json& entry : want.at("TaoDividendsPerSubnet")) {
      is(name + "TaoDividends", subnet.tao_dividends.at(account(entry.at(0))), entry.at(1));
    }
    for (const json& row : want.at("Bonds")) {
      const Row& bonds = subnet.mechanisms.front().bonds.at(u64_of(row.at(0)));
      is(name + "bonds in a row", bonds.size(), row.at(1).size());
      for (std::size_t i = 0; i < std::min(bonds.size(), row.at(1).size()); ++i) {
        is(name + "bond's uid", bonds[i].uid, row.at(1).at(i).at(0));
        is(name + "bond", bonds[i].value, row.at(1).at(i).at(1));
      }
    }
  }

  const LedgerState& state_;
  const json& want_;
  std::string where_;
  Tally& tally_;
  std::string difference_;
};

std::string trade(LedgerState& state, const json& action) {
  Subnet& subnet = state.subnets.at(number<std::uint16_t>(action, "netuid"));
  const AccountId hotkey = account(action.at("hot"));
  const AccountId coldkey = account(action.at("cold"));
  const std::uint64_t fee = u64_of(action.at("fee"));
  const bool buy = action.at("op") == "add_stake";
  const std::uint64_t amount = u64_of(action.at(buy ? "tao" : "alpha"));
  const std::uint64_t quoted = spec233::simulated(subnet, buy ? Side::buy : Side::sell,
                                                  buy ? books::minus(amount, fee) : amount);
  if (buy) {
    state.burned -= amount;
    state.coldkeys[coldkey].free += amount;
  }
  const std::uint64_t got =
      buy ? spec233::add_stake(state, subnet, hotkey, coldkey, amount, fee)
          : spec233::remove_stake(state, subnet, hotkey, coldkey, amount, fee);
  if (quoted != u64_of(action.at("simulated"))) return "simulated " + std::to_string(quoted);
  const char* received = buy ? "alpha_received" : "tao_received";
  if (got != u64_of(action.at(received))) return std::string(received) + " " + std::to_string(got);
  return "";
}

void dtao_233(const json& one, Tally& tally) {
  LedgerState state = world_of(one.at("config"));
  const std::string id = one.at("id").get<std::string>();
  int step = 0;
  for (const json& action : one.at("actions")) {
    const std::string where = id + " action " + std::to_string(step++);
    std::string fault;
    if (action.at("op") == "blocks") {
      for (std::uint64_t left = u64_of(action.at("n")); left > 0; --left) {
        step_spec233(state);
        books::check(state, true);
      }
    } else {
      fault = trade(state, action);
      books::check(state, true);
    }
    if (!fault.empty()) {
      tally.check(false, where + ": " + fault);
      continue;
    }
    StateCheck(state, action.at("state"), where, tally).run();
  }
}

// A swap of the development snapshot: from the state of the same block without it. Shares there are
// whole numbers: D * (amount / V), the quotient with 32 fraction bits.
std::string swap_218(const json& step) {
  const json& before = step.at("before");
  const json& after = step.at("after");
  const std::string netuid = step.at("args").at(1).get<std::string>();
  const std::uint64_t amount = u64_of(step.at("args").at(2));
  const bool buy = step.at("call") == "subtensorModule.addStake";
  const json& pool = before.at("subnets").at(netuid);
  const std::uint64_t x = u64_of(pool.at("subnetAlphaIn"));
  const std::uint64_t y = u64_of(pool.at("subnetTAO"));
  // A pool without alpha that is traded one to one is the snapshot's stable mechanism.
  const bool stable = step.at("stable").get<bool>();
  const std::uint64_t out =
      stable ? amount
             : *constant_product_output(ConstantProduct::spec218, buy ? y : x, buy ? x : y, amount);
  const auto differs = [](const json& got_in, std::uint64_t want) {
    return u64_of(got_in) != want;
  };
  const json& pool_after = after.at("subnets").at(netuid);
  if (differs(pool_after.at("subnetTAO"), buy ? y + amount : y - out)) return "TAO reserve";
  const std::uint64_t alpha_in = buy ? (stable ? x : x - out) : x + amount;
  if (differs(pool_after.at("subnetAlphaIn"), alpha_in)) return "alpha reserve";
  const std::uint64_t outstanding = u64_of(pool.at("subnetAlphaOut"));
  if (differs(pool_after.at("subnetAlphaOut"), buy ? outstanding + out : outstanding - amount)) {
    return "alpha outstanding";
  }
  const std::uint64_t free = u64_of(before.at("user_free"));
  if (differs(after.at("user_free"), buy ? free - amount : free + out)) return "free balance";
  const json& stake = before.at("hot").at("uh").at(netuid);
  const json& stake_after = after.at("hot").at("uh").at(netuid);
  const std::uint64_t alpha = buy ? out : amount;
  const std::uint64_t held = u64_of(stake.at("alpha"));
  if (differs(stake_after.at("alpha"), buy ? held + alpha : held - alpha)) return "stake";
  const std::uint64_t all = u64_of(stake.at("shares"));
  const std::uint64_t shares =
      I96F32::from_integer(all)
          .saturating_mul(I96F32::from_integer(alpha).safe_div(I96F32::from_integer(held)))
          .to_u64();
  if (differs(stake_after.at("shares"), buy ? all + shares : all - shares)) return "shares";
  return "";
}

void dtao_218(const json& one, Tally& tally) {
  if (one.at("kind") != "swap") {
    tally.unsupported("coinbase of the development snapshot 218, whose epoch is a mock");
    return;
  }
  int number = 0;
  for (json step : one.at("steps")) {
    const std::string where = one.at("id").get<std::string>() + " step " + std::to_string(number++);
    if (!step.at("error").is_null()) {
      tally.check(step.at("before").at("user_free") == step.at("after").at("user_free"),
                  where + ": a refused call moved money");
      continue;
    }
    const std::string netuid = step.at("args").at(1).get<std::string>();
    step["stable"] = one.at("config").at("nets").at(netuid).at("mech") == 0;
    const std::string fault = swap_218(step);
    tally.check(fault.empty(), where + ": " + fault);
  }
}

}  // namespace

Handlers legacy_handlers() { return {{"chain_dtao_233", dtao_233}, {"chain_dtao_218", dtao_218}}; }

}  // namespace yumoe::conformance
