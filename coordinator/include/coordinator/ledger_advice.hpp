#pragma once
// What somebody whose call the ledger refused can do about it.

#include <string>
#include <string_view>

#include "coordinator/ledger_error.hpp"

namespace yumoe {

// One sentence for each of the chain's error names, without a full stop.
std::string_view advice_on(ledger::LedgerError error);

// "AddStake: NotEnoughBalanceToStake: the account's free TAO is less than that; ..."
std::string refusal_text(std::string_view operation, ledger::LedgerError error);

}  // namespace yumoe
