#pragma once
// Weight calls against the whole state.

#include "coordinator/ledger_state.hpp"
#include "coordinator/operation.hpp"
#include "coordinator/outcome.hpp"

namespace yumoe::ledger {

Outcome<Done> apply_to(LedgerState& state, const SetWeights& operation);
Outcome<Done> apply_to(LedgerState& state, const CommitWeights& operation);
Outcome<Done> apply_to(LedgerState& state, const RevealWeights& operation);
Outcome<Done> apply_to(LedgerState& state, const CommitTimelocked& operation);
Outcome<Done> apply_to(LedgerState& state, const BatchReveal& operation);
Outcome<Done> apply_to(LedgerState& state, const BatchSet& operation);
Outcome<Done> apply_to(LedgerState& state, const BatchCommit& operation);
Outcome<Done> apply_to(LedgerState& state, const Pulse& operation);

// What a mechanism's open commits mean for the weights of each uid (MechanismInput::first_commit).
std::vector<std::uint64_t> first_commits(const LedgerState& state, const Subnet& subnet,
                                         std::size_t mechanism);

// Timelocked commits whose round is out.
void reveal_due_weights(LedgerState& state);

}  // namespace yumoe::ledger
