#pragma once
// Subnets: how one is made, started, chosen for removal and dissolved.

#include "coordinator/ledger_state.hpp"
#include "coordinator/operation.hpp"
#include "coordinator/outcome.hpp"

namespace yumoe::ledger {

// New subnets take their parameters from `fresh`.
Outcome<Done> register_network(LedgerState& state, const RegisterNetwork& operation,
                               const SubnetParameters& fresh);
Outcome<Done> apply_to(LedgerState& state, const StartCall& operation);

// The subnet with the lowest moving price that is past its immunity; of equal ones the oldest.
std::optional<std::uint16_t> network_to_prune(const LedgerState& state);

// Shares the pool's TAO among all holders of alpha and removes the subnet.
void dissolve(LedgerState& state, std::uint16_t netuid);

// Alpha a new pool starts with for its TAO: at the median price of the other subnets.
std::uint64_t starting_alpha(const LedgerState& state, std::uint64_t tao);

// What the next network costs.
std::uint64_t lock_cost(const LedgerState& state);

}  // namespace yumoe::ledger
