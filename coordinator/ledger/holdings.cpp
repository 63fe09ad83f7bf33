#include "coordinator/holdings.hpp"

namespace yumoe::ledger {

std::vector<Holding> holdings_of(const LedgerState& state) {
  std::map<AccountId, Holding> holdings;
  for (const auto& [account, coldkey] : state.coldkeys) {
    if (coldkey.free > 0) holdings[account].free = coldkey.free;
  }
  for (const auto& [netuid, subnet] : state.subnets) {
    for (const auto& [hotkey, pool] : subnet.stakes) {
      for (const auto& [account, shares] : pool.shares()) {
        const std::uint64_t amount = pool.value_of(account);
        if (amount > 0) holdings[account].stakes.push_back({hotkey, netuid, amount});
      }
    }
  }
  std::vector<Holding> sorted;
  for (auto& [account, holding] : holdings) {
    holding.account = account;
    sorted.push_back(std::move(holding));
  }
  return sorted;
}

Money money_of(const LedgerState& state) {
  Money money;
  for (const auto& [account, coldkey] : state.coldkeys) money.free += coldkey.free;
  for (const auto& [netuid, subnet] : state.subnets) {
    (netuid == kRootNetuid ? money.root : money.pools) += subnet.reserves.tao;
  }
  money.burned = state.burned;
  money.issuance = state.issuance;
  return money;
}

}  // namespace yumoe::ledger
