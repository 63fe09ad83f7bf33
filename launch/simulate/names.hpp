#pragma once
// What a scenario calls the ledger's numbers and keys. Private to simulate.

#include <filesystem>
#include <map>
#include <string>

#include "cluster/bytes.hpp"
#include "coordinator/simulation.hpp"

namespace yumoe {

// A subnet that an event made has no name: "subnet-3".
inline std::string subnet_name(const ledger::Scenario& scenario, std::uint16_t netuid) {
  if (netuid == ledger::kRootNetuid) return "root";
  if (netuid <= scenario.subnets.size()) return scenario.subnets[netuid - 1U].name;
  return "subnet-" + std::to_string(netuid);
}

// "run", "skipped" or "deferred".
inline const char* state_of(const ledger::EpochReport& epoch) {
  return epoch.skipped ? "skipped" : epoch.deferred ? "deferred" : "run";
}

// Writes a text file, whole or not at all. Throws Error{file_io}.
void write_whole(const std::filesystem::path& path, const std::string& text);

class HotkeyNames {
 public:
  explicit HotkeyNames(const ledger::Scenario& scenario) {
    for (const ledger::ScenarioSubnet& subnet : scenario.subnets) {
      add(subnet.owner + "/owner");
      for (const ledger::ScenarioNeuron& neuron : subnet.neurons) add(neuron.hotkey);
    }
  }

  // One that an event registered is shown as its bytes.
  std::string name_of(const ledger::AccountId& hotkey) const {
    const auto found = names_.find(hotkey);
    return found == names_.end() ? to_hex(hotkey) : found->second;
  }

 private:
  void add(const std::string& name) { names_[ledger::account_named(name)] = name; }

  std::map<ledger::AccountId, std::string> names_;
};

}  // namespace yumoe
