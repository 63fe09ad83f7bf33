#pragma once
// Neurons: who gets a uid, at what price and in whose place.

#include "coordinator/ledger_state.hpp"
#include "coordinator/operation.hpp"
#include "coordinator/outcome.hpp"

namespace yumoe::ledger {

Outcome<Done> apply_to(LedgerState& state, const Register& operation);

// Adds a neuron at the end; the caller has made sure that the hotkey is known and not yet here.
void append_neuron(const LedgerState& state, Subnet& subnet, const AccountId& hotkey);

// Which uid a full subnet gives up; nullopt if none may go.
std::optional<std::uint16_t> uid_to_replace(const LedgerState& state, const Subnet& subnet);

// Gives the uid to another hotkey; nothing happens if the uid is the owner's.
void replace_neuron(const LedgerState& state, Subnet& subnet, std::uint16_t uid,
                    const AccountId& hotkey);

}  // namespace yumoe::ledger
