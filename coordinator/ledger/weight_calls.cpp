#include "ledger/weight_calls.hpp"
namespace yumoe::ledger {
Outcome<Done> apply_to(LedgerState&, const SetWeights&) { return LedgerError::CommitRevealEnabled; }
Outcome<Done> apply_to(LedgerState&, const CommitWeights&) { return LedgerError::CommitRevealEnabled; }
Outcome<Done> apply_to(LedgerState&, const RevealWeights&) { return LedgerError::CommitRevealEnabled; }
void reveal_due_weights(LedgerState&) {}
}  // namespace yumoe::ledger
