#pragma once
// Thousands of blocks of an invented economy: who is there, what they do and when, and what came of it.
// A pure function of its scenario.

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "coordinator/ledger.hpp"

namespace yumoe::ledger {

// Accounts in a scenario have names; a name's account is the digest of it, the same everywhere.
AccountId account_named(std::string_view name);

struct ScenarioNeuron {
  std::string hotkey;
  std::string coldkey;
  std::uint64_t stake = 0;             // rao put behind it on its subnet at the start
  std::uint64_t root_stake = 0;        // rao put behind it on root
  std::vector<std::uint16_t> weights;  // by uid, set while it holds a permit
  std::uint64_t weights_every = 0;     // blocks between two settings; 0: every tempo
};

struct ScenarioSubnet {
  std::string name;
  std::string owner;                                // coldkey; its hotkey "<owner>/owner" is uid 0
  std::uint64_t lock = 0;                           // rao; at least the network's price is paid
  std::vector<ScenarioNeuron> neurons;              // uids 1, 2, ... in this order
  std::map<std::string, std::uint64_t> parameters;  // of SubnetParameters, by name
};

// An operation at a block, and again every `every` blocks after it if that is not 0.
struct ScenarioEvent {
  std::uint64_t block = 0;
  std::uint64_t every = 0;
  Operation operation;
};

struct Scenario {
  LedgerOptions ledger;
  std::uint64_t blocks = 1000;
  std::uint64_t sample_every = 10;             // blocks between two rows; at least 1
  std::map<std::string, std::uint64_t> funds;  // free rao by account name at the start
  std::vector<ScenarioSubnet> subnets;         // netuids 1, 2, ... in this order
  std::vector<ScenarioEvent> events;
};

struct SubnetSample {
  std::uint64_t block = 0;
  std::uint16_t netuid = 0;
  double price = 0;  // TAO per alpha, for people to look at
  double moving_price = 0;
  std::uint64_t tao_reserve = 0;
  std::uint64_t alpha_reserve = 0;
  std::uint64_t alpha_out = 0;
  std::uint64_t tao_emission = 0;  // of this block
};

struct BalanceSample {
  std::uint64_t block = 0;
  std::string account;                           // coldkey's name
  std::uint64_t free = 0;                        // rao
  std::map<std::uint16_t, std::uint64_t> alpha;  // by netuid, root among them
};

struct RefusedEvent {
  std::uint64_t block = 0;
  std::string operation;
  LedgerError error{};
};

struct SimulationResult {
  std::vector<SubnetSample> subnets;
  std::vector<BalanceSample> balances;
  std::vector<EpochReport> epochs;
  std::vector<RefusedEvent> refused;  // events of the scenario the ledger refused
  Ledger ledger;                      // as it stands at the end
};

// Throws Error{config_invalid} if the scenario cannot be set up (a name without funds, a parameter
// that does not exist); the message says which line of it.
SimulationResult simulate(const Scenario& scenario);

}  // namespace yumoe::ledger
