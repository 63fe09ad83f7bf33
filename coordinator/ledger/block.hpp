#pragma once
// One block, in the chain's order.

#include "coordinator/ledger.hpp"

namespace yumoe::ledger {

BlockReport step_newest(LedgerState& state);
BlockReport step_spec233(LedgerState& state);

// Whether the subnet's epoch is due at the state's block.
bool epoch_due(const LedgerState& state, const Subnet& subnet);

// Coinbase with a given emission that has been minted, without epochs: shares, injection, pending
// buckets. Returns what was not used. For step_newest and vectors.
std::uint64_t run_coinbase(LedgerState& state, std::uint64_t emission);

// Subnets that receive emission, ascending.
std::vector<Subnet*> emitting_subnets(LedgerState& state);

// The price decay that opens a block.
void decay_registration_prices(LedgerState& state);

// Netuids in the order the chain's storage yields them: by low byte first.
std::vector<std::uint16_t> storage_order(const LedgerState& state);

}  // namespace yumoe::ledger
