#include "conformance/ledger_blocks.hpp"

#include <cmath>
#include <nlohmann/json.hpp>
#include <set>
#include <stdexcept>
#include <string>

#include "coordinator/ledger.hpp"
#include "ledger/block.hpp"
#include "ledger/books.hpp"
#include "ledger/networks.hpp"
#include "ledger/payout.hpp"
#include "ledger/registration.hpp"

namespace yumoe::conformance {
namespace {

using nlohmann::json;
using namespace yumoe::ledger;

constexpr std::uint64_t kTestReserveMin = 1'000;  // the chain's test world; production has 10^6

std::uint64_t field(const json& one, const char* name, std::uint64_t otherwise) {
  return one.contains(name) ? u64_of(one.at(name)) : otherwise;
}

AccountId account(std::uint32_t number) {
  AccountId id{};
  for (int i = 0; i < 4; ++i)
    id[static_cast<std::size_t>(i)] = static_cast<std::uint8_t>(number >> (24 - 8 * i));
  return id;
}

void near(Tally& tally, const std::string& what, std::uint64_t got, std::uint64_t want,
          double eps) {
  const double apart = static_cast<double>(got > want ? got - want : want - got);
  tally.check(apart <= eps,
              what + ": got " + std::to_string(got) + ", expected " + std::to_string(want));
}

// A world as the chain's tests make it: no owner cut, no TAO weight, everything switched on.
LedgerState test_world(std::uint64_t tao_weight, std::uint64_t root_tao) {
  LedgerState state = Ledger().state();
  state.parameters.tao_weight = tao_weight;
  state.parameters.owner_cut = 0;
  state.parameters.pool_reserve_min = kTestReserveMin;
  state.block = 1;
  Subnet& root = state.subnets.at(kRootNetuid);
  root.reserves.tao = root_tao;
  root.alpha_out = root_tao;
  root.alpha_adrift = static_cast<std::int64_t>(root_tao);
  state.issuance = root_tao;
  return state;
}

Subnet& add_subnet(LedgerState& state, const json& one) {
  const auto netuid = static_cast<std::uint16_t>(u64_of(one.at("id")));
  Subnet& subnet = state.subnets[netuid];
  subnet.netuid = netuid;
  subnet.dynamic = one.value("mechanism", 1) != 0;
  subnet.subtoken_enabled = true;
  subnet.first_emission_block = 0;
  subnet.parameters.emission_enabled = one.value("enabled", true);
  subnet.reserves.tao = field(one, "tao", 0);
  subnet.reserves.alpha = field(one, "alpha_in", 0);
  subnet.alpha_out = field(one, "alpha_out", 0);
  subnet.alpha_adrift = static_cast<std::int64_t>(subnet.alpha_out);
  subnet.moving_price = I96F32::from_literal(one.value("moving_price", 0.0));
  state.issuance += subnet.reserves.tao;
  return subnet;
}

LedgerState coinbase_world(const json& one) {
  LedgerState state = test_world(field(one, "tao_weight_u64", 0), field(one, "root_subnet_tao", 0));
  for (const json& subnet : one.at("subnets")) add_subnet(state, subnet);
  return state;
}

// One coinbase with the books kept; the unused part leaves again.
void mint(LedgerState& state, std::uint64_t emission) {
  state.issuance += emission;
  books::recycle_tao(state, run_coinbase(state, emission));
  books::check(state, true);
}

class CoinbaseCheck {
 public:
  CoinbaseCheck(const LedgerState& before, const LedgerState& after, double eps, Tally& tally)
      : before_(before), after_(after), eps_(eps), tally_(tally) {}

  void expectation(const std::string& key, const json& want) const {
    if (key == "total_issuance_delta") return near(key, after_.issuance - before_.issuance, want);
    if (key == "total_stake_delta")
      return near(key, after_.total_stake - before_.total_stake, want);
    if (key == "alpha_out_positive") {
      for (const json& netuid : want) {
        tally_.check(now(netuid.get<std::string>()).alpha_out_emission > 0, key);
      }
      return;
    }
    if (!want.is_object()) return near(key, pending(key), want);
    for (const auto& [netuid, value] : want.items()) {
      if (key == "alpha_in_after_below") {
        tally_.check(now(netuid).reserves.alpha < u64_of(value), key);
      } else {
        near(key + " of " + netuid, of_subnet(key, netuid), value);
      }
    }
  }

 private:
  const Subnet& now(const std::string& netuid) const { return subnet(after_, netuid); }
  static const Subnet& subnet(const LedgerState& state, const std::string& netuid) {
    return state.subnets.at(static_cast<std::uint16_t>(std::stoul(netuid)));
  }
  void near(const std::string& key, std::uint64_t got, const json& want) const {
    conformance::near(tally_, key, got, u64_of(want), eps_);
  }
  std::uint64_t pending(const std::string& key) const {
    const PendingAlpha& a = before_.subnets.at(1).pending;
    const PendingAlpha& b = after_.subnets.at(1).pending;
    if (key == "pending_server") return b.server - a.server;
    if (key == "pending_validator") return b.validator - a.validator;
    if (key == "pending_root_alpha") return b.root - a.root;
    throw std::runtime_error("expectation " + key);
  }
  std::uint64_t of_subnet(const std::string& key, const std::string& netuid) const {
    const Subnet& after = now(netuid);
    const std::uint64_t tao = after.reserves.tao - subnet(before_, netuid).reserves.tao;
    if (key == "tao_reserve_delta" || key == "tao_emission") return tao;
    if (key == "tao_reserve_after") return after.reserves.tao;
    if (key == "alpha_in_after") return after.reserves.alpha;
    if (key == "alpha_in") return after.alpha_in_emission;
    if (key == "alpha_out_emission") return after.alpha_out_emission;
    if (key == "excess") return tao - after.tao_in_emission;
    throw std::runtime_error("expectation " + key);
  }

  const LedgerState& before_;
  const LedgerState& after_;
  double eps_;
  Tally& tally_;
};

// "alpha emission 0, so all TAO is excess: ...": the one expectation told in words.
void check_all_excess(const LedgerState& before, const LedgerState& after, Tally& tally) {
  for (const auto& [netuid, subnet] : after.subnets) {
    if (netuid == kRootNetuid) continue;
    const Subnet& old = before.subnets.at(netuid);
    tally.check(subnet.protocol_alpha > 0, "protocol alpha bought");
    tally.check(subnet.reserves.alpha < old.reserves.alpha, "alpha_in falls");
    tally.check(subnet.alpha_out == old.alpha_out + subnet.protocol_alpha, "alpha_out");
    tally.check(spot_price(subnet.reserves) > spot_price(old.reserves), "price rises");
  }
}

void coinbase_ledger(const json& vector, Tally& tally) {
  for (const json& one : vector.at("cases")) {
    const std::uint64_t emission = u64_of(one.at("emission"));
    const double eps = one.value("eps", vector.value("eps", 0.0));
    if (one.contains("runs")) {
      for (const json& run : one.at("runs")) {
        LedgerState state = coinbase_world(one);
        state.parameters.owner_cut = static_cast<std::uint16_t>(u64_of(run.at("owner_cut_u16")));
        mint(state, emission);
        near(tally, "owner cut", state.subnets.at(1).pending.owner_cut,
             u64_of(run.at("expected_pending_owner_cut")), eps);
      }
      continue;
    }
    LedgerState state = coinbase_world(one);
    if (one.contains("note") && one.at("note").get<std::string>().starts_with("the third block")) {
      for (int block = 0; block < 2; ++block) mint(state, emission);
    }
    const LedgerState before = state;
    mint(state, emission);
    if (one.at("expected").is_string()) {
      check_all_excess(before, state, tally);
      continue;
    }
    const CoinbaseCheck check(before, state, eps, tally);
    for (const auto& [key, want] : one.at("expected").items()) check.expectation(key, want);
  }
}

void hold(LedgerState& state, Subnet& subnet, const AccountId& hotkey, const AccountId& coldkey,
          std::uint64_t alpha) {
  subnet.alpha_out += alpha;
  if (subnet.netuid == kRootNetuid) {
    subnet.reserves.tao += alpha;
    state.issuance += alpha;
  }
  if (!books::stake(state, subnet, hotkey, coldkey, alpha))
    throw std::runtime_error("stake refused");
}

void distribute_emission(const json& vector, Tally& tally) {
  for (const json& one : vector.at("cases")) {
    LedgerState state = test_world(field(one, "tao_weight_u64", 0), 0);
    Subnet& subnet = add_subnet(state, json{{"id", 1}});
    subnet.owner_coldkey = account(9999);
    subnet.owner_hotkey = account(9998);
    std::uint32_t number = 1;
    for (const json& staker : one.at("stakers")) {
      const AccountId hotkey = account(number);
      const AccountId coldkey = account(1000 + number++);
      state.hotkeys[hotkey] = {coldkey, static_cast<std::uint16_t>(staker.value("take", 0)), 0};
      if (staker.value("registered", true)) append_neuron(state, subnet, hotkey);
      hold(state, subnet, hotkey, coldkey, u64_of(staker.at("stake")));
      hold(state, state.subnets.at(kRootNetuid), hotkey, coldkey, field(staker, "root_stake", 0));
    }
    PendingAlpha pending;
    pending.server = u64_of(one.at("pending_server"));
    pending.validator = u64_of(one.at("pending_validator"));
    pending.root = field(one, "pending_root", 0);
    pending.owner_cut = field(one, "pending_owner_cut", 0);
    subnet.alpha_out += pending.server + pending.validator + pending.root + pending.owner_cut;
    pay_epoch(state, subnet, pending);
    books::check(state, true);
    for (std::size_t i = 0; i < one.at("expected").size(); ++i) {
      near(tally, "stake of " + std::to_string(i),
           books::total_of(subnet, account(static_cast<std::uint32_t>(i) + 1)),
           u64_of(one.at("expected").at(i)), one.value("eps", 0.0));
    }
  }
}

std::uint64_t immunity_time(const json& value, std::uint64_t immunity) {
  if (!value.is_string()) return u64_of(value);
  const std::string text = value.get<std::string>();
  if (text == "inside immunity") return immunity - 1;
  if (text.starts_with("immunity+")) return immunity + std::stoull(text.substr(9));
  return u64_of(value);
}

void network_prune(const json& vector, Tally& tally) {
  for (const json& one : vector.at("cases")) {
    LedgerState state = test_world(0, 0);
    const std::uint64_t immunity = state.parameters.network_immunity_period;
    state.block = immunity_time(one.at("block"), immunity);
    const json networks = one.contains("networks")
                              ? one.at("networks")
                              : json{{{"id", 1}, {"registered", 0}, {"price", 1}},
                                     {{"id", 2}, {"registered", 0}, {"price", 2}}};
    for (const json& network : networks) {
      Subnet& subnet = add_subnet(state, json{{"id", network.at("id")}});
      subnet.registered_at = immunity_time(network.at("registered"), immunity);
      subnet.moving_price = I96F32::from_literal(network.at("price").get<double>());
    }
    const auto got = network_to_prune(state);
    const json& want = one.at("expected");
    const bool ok = want.is_null() ? !got : got && *got == u64_of(want);
    tally.check(ok, "pruned " + (got ? std::to_string(*got) : "nothing"));
  }
}

void pool_start(const json& vector, Tally& tally) {
  for (const json& one : vector.at("cases")) {
    LedgerState state = test_world(0, 0);
    state.parameters.network_lock_min = u64_of(one.at("min_lock"));
    state.last_lock = u64_of(one.at("last_lock"));
    state.last_lock_block = u64_of(one.at("last_lock_block"));
    if (u64_of(one.at("other_subnets")) != 0) throw std::runtime_error("other subnets need prices");
    const std::uint64_t tao = lock_cost(state);
    near(tally, "TAO", tao, u64_of(one.at("expected_tao")), 0);
    near(tally, "alpha", starting_alpha(state, tao), u64_of(one.at("expected_alpha")), 0);
  }
}

}  // namespace

Handlers block_handlers() {
  return {{"coinbase_ledger", coinbase_ledger},
          {"distribute_emission", distribute_emission},
          {"network_prune", network_prune},
          {"pool_start", pool_start}};
}

}  // namespace yumoe::conformance
