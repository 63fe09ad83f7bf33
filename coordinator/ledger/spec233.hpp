#pragma once
// The first production release of dTAO (spec 233): emission by moving price alone, root alpha sold at
// once and paid out as TAO, plain constant product, a flat staking fee that stays in the pool.

#include "coordinator/ledger_state.hpp"
#include "coordinator/operation.hpp"
#include "coordinator/outcome.hpp"

namespace yumoe::ledger::spec233 {

inline constexpr std::uint64_t kStakeFee = 50'000;   // rao
inline constexpr std::uint64_t kMinStake = 500'000;  // rao, beside the fee

// What a trade would give; 0 also where the pool refuses.
std::uint64_t simulated(const Subnet& subnet, Side side, std::uint64_t amount);

// Trades without checking balances: the caller has. Returns what the staker gets.
std::uint64_t add_stake(LedgerState& state, Subnet& subnet, const AccountId& hotkey,
                        const AccountId& coldkey, std::uint64_t tao, std::uint64_t fee);
std::uint64_t remove_stake(LedgerState& state, Subnet& subnet, const AccountId& hotkey,
                           const AccountId& coldkey, std::uint64_t alpha, std::uint64_t fee);

Outcome<Done> apply_to(LedgerState& state, const AddStake& operation);
Outcome<Done> apply_to(LedgerState& state, const RemoveStake& operation);

}  // namespace yumoe::ledger::spec233
