#pragma once
// What an epoch of one subnet pays, and to whom.

#include "coordinator/ledger.hpp"

namespace yumoe::ledger {

// Runs Yuma on the drained alpha, stores what it says of the neurons and pays. Whatever the rules
// leave over stays in alpha_out as alpha_adrift.
EpochReport pay_epoch(LedgerState& state, Subnet& subnet, const PendingAlpha& drained);

// The epoch's input as the chain reads it from the state, for `emission` rao.
EpochInput epoch_input(const LedgerState& state, const Subnet& subnet, std::uint64_t emission);

// Stake of every uid as the epoch and the weight calls see it: own, lent and borrowed, with root.
std::vector<I64F64> stakes_of(const LedgerState& state, const Subnet& subnet);

// Stores what an epoch said of the neurons.
void store_epoch(Subnet& subnet, const EpochOutput& output);

}  // namespace yumoe::ledger
