#include "coordinator/simulation.hpp"

#include <algorithm>
#include <cmath>

#include "ledger/books.hpp"

namespace yumoe::ledger {
namespace {

class Simulator {
 public:
  explicit Simulator(const Scenario& scenario)
      : scenario_(scenario), result_{{}, {}, {}, {}, Ledger(options_of(scenario))} {
    if (scenario.sample_every == 0) fail("sample_every must be at least 1");
  }

  SimulationResult run() {
    set_up();
    for (std::uint64_t step = 1; step <= scenario_.blocks; ++step) {
      apply_events(step);
      set_weights(step);
      for (EpochReport& epoch : ledger().step_block().epochs) {
        result_.epochs.push_back(std::move(epoch));
      }
      if (step % scenario_.sample_every == 0) sample();
    }
    return std::move(result_);
  }

 private:
  // Setting up needs no waiting between two networks; the scenario's own rule holds afterwards.
  static LedgerOptions options_of(const Scenario& scenario) {
    LedgerOptions options = scenario.ledger;
    options.network_rate_limit = 0;
    return options;
  }
  [[noreturn]] static void fail(const std::string& what) {
    throw Error(ErrorCode::config_invalid, "set up a scenario: " + what);
  }

  Ledger& ledger() { return result_.ledger; }

  void must(const std::string& what, const Operation& operation) {
    const auto outcome = ledger().apply(operation);
    if (!outcome) fail(what + ": " + std::string(name_of(outcome.error())));
  }

  void set_up() {
    for (const auto& [name, amount] : scenario_.funds) {
      must("funds of " + name, Fund{account_named(name), amount});
    }
    std::uint16_t netuid = 0;
    for (const ScenarioSubnet& subnet : scenario_.subnets) set_up_subnet(++netuid, subnet);
    ledger().override_parameter(std::nullopt, "network_rate_limit",
                                static_cast<std::uint64_t>(scenario_.ledger.network_rate_limit));
  }

  void set_up_subnet(std::uint16_t netuid, const ScenarioSubnet& subnet) {
    const AccountId owner = account_named(subnet.owner);
    // A lock above the network's price deepens the pool.
    const std::uint64_t price = ledger().state().parameters.network_lock_min;
    ledger().override_parameter(std::nullopt, "network_lock_min", std::max(price, subnet.lock));
    must("subnet " + subnet.name,
         RegisterNetwork{owner, account_named(subnet.owner + "/owner"), 1});
    ledger().override_parameter(std::nullopt, "network_lock_min", price);
    must("start of " + subnet.name, StartCall{owner, netuid});
    for (const auto& [name, value] : subnet.parameters) {
      if (!ledger().override_parameter(netuid, name, value)) {
        fail("subnet " + subnet.name + " has no parameter " + name + " = " + std::to_string(value));
      }
    }
    for (const ScenarioNeuron& neuron : subnet.neurons) {
      const AccountId coldkey = account_named(neuron.coldkey);
      const AccountId hotkey = account_named(neuron.hotkey);
      must("neuron " + neuron.hotkey, Register{coldkey, hotkey, netuid, std::nullopt});
      if (neuron.stake > 0)
        must("stake of " + neuron.hotkey,
             AddStake{coldkey, hotkey, netuid, neuron.stake, std::nullopt});
      if (neuron.root_stake > 0) {
        must("root stake of " + neuron.hotkey,
             AddStake{coldkey, hotkey, kRootNetuid, neuron.root_stake, std::nullopt});
      }
    }
  }

  void try_event(const Operation& operation) {
    const auto outcome = ledger().apply(operation);
    if (outcome) return;
    result_.refused.push_back(
        {ledger().state().block, std::string(name_of(operation)), outcome.error()});
  }

  void apply_events(std::uint64_t step) {
    for (const ScenarioEvent& event : scenario_.events) {
      const bool again =
          event.every != 0 && step > event.block && (step - event.block) % event.every == 0;
      if (step == event.block || again) try_event(event.operation);
    }
  }

  // Who has no permit yet waits, as a validator's own program would.
  static bool may_set(const Subnet& subnet, const std::string& hotkey) {
    const auto uid = subnet.uids.find(account_named(hotkey));
    return uid != subnet.uids.end() && subnet.neurons[uid->second].permit;
  }

  void set_weights(std::uint64_t step) {
    std::uint16_t netuid = 0;
    for (const ScenarioSubnet& subnet : scenario_.subnets) {
      ++netuid;
      const auto at = ledger().state().subnets.find(netuid);
      if (at == ledger().state().subnets.end()) continue;  // dissolved on the way
      const std::uint64_t tempo = std::max<std::uint64_t>(at->second.parameters.tempo, 1);
      for (const ScenarioNeuron& neuron : subnet.neurons) {
        if (neuron.weights.empty()) continue;
        const std::uint64_t every = neuron.weights_every == 0 ? tempo : neuron.weights_every;
        if (step % every != 1 % every || !may_set(at->second, neuron.hotkey)) continue;
        SetWeights call{account_named(neuron.hotkey), netuid, 0, {}, neuron.weights, 0};
        for (std::size_t uid = 0; uid < neuron.weights.size(); ++uid) {
          call.uids.push_back(static_cast<std::uint16_t>(uid));
        }
        try_event(call);
      }
    }
  }

  void sample() {
    const LedgerState& state = ledger().state();
    for (const auto& [netuid, subnet] : state.subnets) {
      if (netuid == kRootNetuid) continue;
      result_.subnets.push_back(
          {state.block, netuid,
           std::ldexp(static_cast<double>(books::price_of(state, subnet).bits()), -64),
           std::ldexp(static_cast<double>(subnet.moving_price.bits()), -32), subnet.reserves.tao,
           subnet.reserves.alpha, subnet.alpha_out, subnet.tao_in_emission});
    }
    for (const auto& [name, amount] : scenario_.funds) {
      const AccountId coldkey = account_named(name);
      const Coldkey& account = state.coldkeys.at(coldkey);
      BalanceSample row{state.block, name, account.free, {}};
      for (const auto& [netuid, subnet] : state.subnets) {
        std::uint64_t alpha = 0;
        for (const AccountId& hotkey : account.staking_hotkeys) {
          alpha += books::stake_of(subnet, hotkey, coldkey);
        }
        if (alpha > 0) row.alpha[netuid] = alpha;
      }
      result_.balances.push_back(std::move(row));
    }
  }

  const Scenario& scenario_;
  SimulationResult result_;
};

}  // namespace

AccountId account_named(std::string_view name) { return digest_of(as_bytes(name)).bytes; }

SimulationResult simulate(const Scenario& scenario) { return Simulator(scenario).run(); }

}  // namespace yumoe::ledger
