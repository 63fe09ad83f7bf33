#pragma once
// The ledger's double entry: the only functions that move rao and alpha between places. TAO lies in
// free balances, subnets' TAO reserves, root, or is burned; alpha lies in reserves, share pools,
// pending buckets, protocol alpha, root claims owed, or adrift. Callers check first; these functions
// cannot fail half way.

#include <cstdint>

#include "coordinator/ledger_state.hpp"
#include "coordinator/outcome.hpp"

namespace yumoe::ledger::books {

constexpr std::uint64_t kMax = ~std::uint64_t{0};

inline std::uint64_t plus(std::uint64_t a, std::uint64_t b) { return a > kMax - b ? kMax : a + b; }
inline std::uint64_t minus(std::uint64_t a, std::uint64_t b) { return a > b ? a - b : 0; }
inline U96F32 whole(std::uint64_t value) { return U96F32::from_integer(value); }
inline U96F32 u16_share(std::uint16_t value) { return whole(value).safe_div(whole(65535)); }

Subnet* find(LedgerState& state, std::uint16_t netuid);
const Subnet* find(const LedgerState& state, std::uint16_t netuid);

std::uint64_t free_of(const LedgerState& state, const AccountId& coldkey);
// All of a hotkey's alpha on a subnet, and one nominator's.
std::uint64_t total_of(const Subnet& subnet, const AccountId& hotkey);
std::uint64_t stake_of(const Subnet& subnet, const AccountId& hotkey, const AccountId& coldkey);
// The shares behind a hotkey, made if there are none yet.
SharePool& pool_of(const LedgerState& state, Subnet& subnet, const AccountId& hotkey);
// A hotkey's TAO on root.
std::uint64_t root_stake_of(const LedgerState& state, const AccountId& hotkey);

bool owns(const LedgerState& state, const AccountId& coldkey, const AccountId& hotkey);
bool known(const LedgerState& state, const AccountId& hotkey);

// Puts alpha that is already counted in alpha_out under an owner. False, and nothing changes, when
// its shares would round to none.
bool stake(LedgerState& state, Subnet& subnet, const AccountId& hotkey, const AccountId& coldkey,
           std::uint64_t alpha);
bool stakeable(const Subnet& subnet, const AccountId& hotkey, std::uint64_t alpha);
// Takes it back; the caller has checked stake_of.
void unstake(LedgerState& state, Subnet& subnet, const AccountId& hotkey, const AccountId& coldkey,
             std::uint64_t alpha);

U64F64 price_of(const LedgerState& state, const Subnet& subnet);

// What a trade would do: by pool rule and kind, with the network's least reserve.
Outcome<SwapResult> quote(const LedgerState& state, const Subnet& subnet, Side side,
                          std::uint64_t amount, std::uint64_t limit, bool drop_fees = false);
// Moves what quote() said. A buy takes paid_in + fee rao that the caller debits elsewhere and leaves
// paid_out alpha in alpha_out for the caller to place. A sell takes paid_in + fee alpha the caller
// has unstaked and leaves paid_out rao for the caller to credit.
void buy(LedgerState& state, Subnet& subnet, const SwapResult& result);
void sell(LedgerState& state, Subnet& subnet, const SwapResult& result);

void recycle_alpha(Subnet& subnet, std::uint64_t alpha);
void recycle_tao(LedgerState& state, std::uint64_t tao);
// To the block's author, or out of reach when there is none.
void pay_author(LedgerState& state, std::uint64_t tao);

// floor(rate * stake), what a root stake of this size is owed in all by one claim.
UInt128 owed_for(I96F32 rate, std::uint64_t stake);

// Throws Error{invariant_broken} naming the account; `deep` also adds up every nominator.
void check(const LedgerState& state, bool deep);
// No more TAO than the chain will ever have; vectors of the chain's own tests do not keep to that.
void check_supply(const LedgerState& state);

}  // namespace yumoe::ledger::books
