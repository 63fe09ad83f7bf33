#pragma once
// Root dividends: alpha that root stakers are owed and take when they, or the block, ask for it.

#include "coordinator/ledger_state.hpp"
#include "coordinator/operation.hpp"
#include "coordinator/outcome.hpp"

namespace yumoe::ledger {

// Pays what one nominator is owed through one hotkey on one subnet, if it is worth while.
void claim_root(LedgerState& state, Subnet& subnet, const AccountId& hotkey,
                const AccountId& coldkey);

// A few nominators a block, drawn by the block.
void claim_automatically(LedgerState& state);

Outcome<Done> apply_to(LedgerState& state, const ClaimRoot& operation);
Outcome<Done> apply_to(LedgerState& state, const SetClaimKind& operation);

}  // namespace yumoe::ledger
