#include "ledger/block.hpp"
namespace yumoe::ledger {
BlockReport step_spec233(LedgerState& state) { return step_newest(state); }
}  // namespace yumoe::ledger
