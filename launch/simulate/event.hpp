#pragma once
// Operations of a scenario by name. Private to simulate.

#include <map>
#include <string>

#include "coordinator/simulation.hpp"
#include "simulate/table_reader.hpp"

namespace yumoe {

// Netuids by name, "root" among them.
using SubnetNames = std::map<std::string, std::uint16_t, std::less<>>;

// Reads one of [[events]]: block, every, operation and the operation's own keys.
ledger::ScenarioEvent read_event(TableReader table, const SubnetNames& subnets);

}  // namespace yumoe
