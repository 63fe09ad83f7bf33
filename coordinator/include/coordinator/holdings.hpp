#pragma once
// Who has what in a ledger: every account's free TAO and its stake behind each hotkey, and all of the
// money in one line.

#include <cstdint>
#include <vector>

#include "coordinator/ledger_state.hpp"

namespace yumoe::ledger {

struct Stake {
  AccountId hotkey{};
  std::uint16_t netuid = 0;  // 0: root, in TAO; else in the subnet's alpha
  std::uint64_t amount = 0;  // the account's own part, floored
};

struct Holding {
  AccountId account{};
  std::uint64_t free = 0;     // rao
  std::vector<Stake> stakes;  // by netuid, then hotkey; none is 0
};

// Every account that has anything, in the order of their keys.
std::vector<Holding> holdings_of(const LedgerState& state);

// free + root + pools + burned = issuance, to the last rao, after every block.
struct Money {
  std::uint64_t free = 0;
  std::uint64_t root = 0;
  std::uint64_t pools = 0;  // the TAO reserves of all subnets
  std::uint64_t burned = 0;
  std::uint64_t issuance = 0;
};
Money money_of(const LedgerState& state);

}  // namespace yumoe::ledger
