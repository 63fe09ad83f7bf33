#pragma once
// What owners decide: of hotkeys (takes, children), of subnets (parameters, epochs), and root stake of
// the network's parameters.

#include "coordinator/ledger_state.hpp"
#include "coordinator/operation.hpp"
#include "coordinator/outcome.hpp"

namespace yumoe::ledger {

Outcome<Done> apply_to(LedgerState& state, const SetTake& operation);
Outcome<Done> apply_to(LedgerState& state, const SetChildkeyTake& operation);
Outcome<Done> apply_to(LedgerState& state, const SetChildren& operation);
Outcome<Done> apply_to(LedgerState& state, const SetAutostake& operation);
Outcome<Done> apply_to(LedgerState& state, const SetHyperparameter& operation);
Outcome<Done> apply_to(LedgerState& state, const SetEmissionSplit& operation);
Outcome<Done> apply_to(LedgerState& state, const TriggerEpoch& operation);
Outcome<Done> apply_to(LedgerState& state, const Propose& operation);
Outcome<Done> apply_to(LedgerState& state, const Vote& operation);

// Children whose delay is over, on subnets whose epoch ran in this block.
void apply_due_children(LedgerState& state);
// Proposals whose delay is over: counted, and enacted if more root stake is for than against.
void enact_proposals(LedgerState& state);

// Changes what depends on a parameter beside the parameter (mechanism_count).
void fit_to_parameters(Subnet& subnet);

// A parameter's new value fits the others (uids times mechanisms, low under high).
bool consistent(const Subnet& subnet, const SubnetParameters& parameters);

}  // namespace yumoe::ledger
