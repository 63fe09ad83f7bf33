#pragma once
// Weight calls against the whole state.

#include "coordinator/ledger_state.hpp"
#include "coordinator/operation.hpp"
#include "coordinator/outcome.hpp"

namespace yumoe::ledger {

Outcome<Done> apply_to(LedgerState& state, const SetWeights& operation);
Outcome<Done> apply_to(LedgerState& state, const CommitWeights& operation);
Outcome<Done> apply_to(LedgerState& state, const RevealWeights& operation);

// Timelocked commits whose round is out.
void reveal_due_weights(LedgerState& state);

}  // namespace yumoe::ledger
