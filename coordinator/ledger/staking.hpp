#pragma once
// Moving stake: in, out, between hotkeys, owners and subnets.

#include "coordinator/ledger_state.hpp"
#include "coordinator/operation.hpp"
#include "coordinator/outcome.hpp"

namespace yumoe::ledger {

Outcome<Done> apply_to(LedgerState& state, const AddStake& operation);
Outcome<Done> apply_to(LedgerState& state, const RemoveStake& operation);
Outcome<Done> apply_to(LedgerState& state, const RemoveStakeFull& operation);
Outcome<Done> apply_to(LedgerState& state, const UnstakeAll& operation);
Outcome<Done> apply_to(LedgerState& state, const MoveStake& operation);
Outcome<Done> apply_to(LedgerState& state, const TransferStake& operation);
Outcome<Done> apply_to(LedgerState& state, const SwapStake& operation);

}  // namespace yumoe::ledger
