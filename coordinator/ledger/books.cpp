#include "ledger/books.hpp"

#include <algorithm>
#include <string>

namespace yumoe::ledger::books {
namespace {

constexpr std::uint64_t kSupplyMax = 21'000'000'000'000'000;

// Adding or taking root stake moves what has been claimed along, so that it neither earns for the
// past nor loses what it earned.
void move_claims(LedgerState& state, const AccountId& hotkey, const AccountId& coldkey,
                 std::uint64_t amount, bool added) {
  for (auto& [netuid, subnet] : state.subnets) {
    const auto claim = subnet.claims.find(hotkey);
    if (claim == subnet.claims.end()) continue;
    const UInt128 part = owed_for(claim->second.rate, amount);
    UInt128& claimed = claim->second.claimed[coldkey];
    if (added) {
      claimed += part;
    } else {
      claimed = claimed > part ? claimed - part : 0;
    }
  }
}

void remember_nominator(LedgerState& state, const AccountId& coldkey) {
  auto& all = state.root_nominators;
  if (std::find(all.begin(), all.end(), coldkey) == all.end()) all.push_back(coldkey);
}

[[noreturn]] void broken(const Subnet& subnet, const std::string& what, const std::string& got,
                         const std::string& want) {
  throw Error(ErrorCode::invariant_broken, "subnet " + std::to_string(subnet.netuid) + ": " + what +
                                               " is " + got + ", its places hold " + want);
}

std::string text(UInt128 value) {
  const bool wide = value > kMax;
  return (wide ? "more than " : "") +
         std::to_string(static_cast<std::uint64_t>(wide ? kMax : value));
}

void check_alpha(const Subnet& subnet) {
  Int128 held = Int128{subnet.protocol_alpha} + subnet.pending.server + subnet.pending.validator +
                subnet.pending.root + subnet.pending.owner_cut + subnet.pending_emission +
                subnet.alpha_root_owed + subnet.alpha_adrift;
  for (const auto& [hotkey, pool] : subnet.stakes) held += pool.total();
  if (held != Int128{subnet.alpha_out}) {
    broken(subnet, "alpha_out", std::to_string(subnet.alpha_out),
           held < 0 ? "less than 0" : text(static_cast<UInt128>(held)));
  }
}

void check_neurons(const Subnet& subnet) {
  if (subnet.uids.size() != subnet.neurons.size()) {
    broken(subnet, "number of uids", std::to_string(subnet.uids.size()),
           std::to_string(subnet.neurons.size()));
  }
  for (const Mechanism& mechanism : subnet.mechanisms) {
    const std::size_t n = subnet.neurons.size();
    if (mechanism.weights.size() != n || mechanism.bonds.size() != n ||
        mechanism.last_update.size() != n || mechanism.incentive.size() != n) {
      broken(subnet, "a mechanism's length", std::to_string(mechanism.weights.size()),
             std::to_string(n));
    }
  }
}

// Nominators' floors may lose dust, never gain: their sum exceeds the total by nothing but the
// relative error of shares, 10^-20 a change.
void check_nominators(const Subnet& subnet) {
  for (const auto& [hotkey, pool] : subnet.stakes) {
    UInt128 sum = 0;
    for (const auto& [coldkey, share] : pool.shares()) sum += pool.value_of(coldkey);
    if (sum > UInt128{pool.total()} + pool.shares().size()) {
      broken(subnet, "a hotkey's stake", std::to_string(pool.total()), text(sum));
    }
  }
}

void check_tao(const LedgerState& state) {
  UInt128 held = state.burned;
  for (const auto& [coldkey, account] : state.coldkeys) held += account.free;
  for (const auto& [netuid, subnet] : state.subnets) {
    held += subnet.reserves.tao;
    held += subnet.pending_root_tao;
  }
  if (held != state.issuance) {
    throw Error(ErrorCode::invariant_broken, "TAO: issuance is " + std::to_string(state.issuance) +
                                                 ", its places hold " + text(held));
  }
}

}  // namespace

Subnet* find(LedgerState& state, std::uint16_t netuid) {
  const auto at = state.subnets.find(netuid);
  return at == state.subnets.end() ? nullptr : &at->second;
}
const Subnet* find(const LedgerState& state, std::uint16_t netuid) {
  const auto at = state.subnets.find(netuid);
  return at == state.subnets.end() ? nullptr : &at->second;
}

std::uint64_t free_of(const LedgerState& state, const AccountId& coldkey) {
  const auto at = state.coldkeys.find(coldkey);
  return at == state.coldkeys.end() ? 0 : at->second.free;
}

std::uint64_t total_of(const Subnet& subnet, const AccountId& hotkey) {
  const auto at = subnet.stakes.find(hotkey);
  return at == subnet.stakes.end() ? 0 : at->second.total();
}

std::uint64_t stake_of(const Subnet& subnet, const AccountId& hotkey, const AccountId& coldkey) {
  const auto at = subnet.stakes.find(hotkey);
  return at == subnet.stakes.end() ? 0 : at->second.value_of(coldkey);
}

std::uint64_t root_stake_of(const LedgerState& state, const AccountId& hotkey) {
  const Subnet* root = find(state, kRootNetuid);
  return root == nullptr ? 0 : total_of(*root, hotkey);
}

bool owns(const LedgerState& state, const AccountId& coldkey, const AccountId& hotkey) {
  const auto at = state.hotkeys.find(hotkey);
  return at != state.hotkeys.end() && at->second.coldkey == coldkey;
}

bool known(const LedgerState& state, const AccountId& hotkey) {
  return state.hotkeys.contains(hotkey);
}

SharePool& pool_of(const LedgerState& state, Subnet& subnet, const AccountId& hotkey) {
  const bool old = state.parameters.blocks == BlockRule::spec233;
  return subnet.stakes.try_emplace(hotkey, old ? ShareForm::fixed : ShareForm::decimal)
      .first->second;
}

bool stakeable(const Subnet& subnet, const AccountId& hotkey, std::uint64_t alpha) {
  const auto at = subnet.stakes.find(hotkey);
  if (alpha == 0 || at == subnet.stakes.end() || at->second.denominator().is_zero()) return true;
  return !at->second.shares_for(alpha).is_zero();
}

bool stake(LedgerState& state, Subnet& subnet, const AccountId& hotkey, const AccountId& coldkey,
           std::uint64_t alpha) {
  if (alpha == 0) return true;
  if (!pool_of(state, subnet, hotkey).deposit(coldkey, alpha)) return false;
  state.coldkeys[coldkey].staking_hotkeys.insert(hotkey);
  if (subnet.netuid == kRootNetuid) {
    remember_nominator(state, coldkey);
    move_claims(state, hotkey, coldkey, alpha, true);
  }
  return true;
}

void unstake(LedgerState& state, Subnet& subnet, const AccountId& hotkey, const AccountId& coldkey,
             std::uint64_t alpha) {
  if (alpha == 0) return;
  const auto pool = subnet.stakes.find(hotkey);
  YUMOE_ASSERT(pool != subnet.stakes.end());
  const bool done = pool->second.withdraw(coldkey, alpha);
  YUMOE_ASSERT(done);
  if (pool->second.total() == 0 && pool->second.shares().empty()) subnet.stakes.erase(pool);
  if (subnet.netuid == kRootNetuid) move_claims(state, hotkey, coldkey, alpha, false);
}

U64F64 price_of(const LedgerState& state, const Subnet& subnet) {
  if (!subnet.dynamic) return U64F64::one();
  Reserves reserves = subnet.reserves;
  if (state.parameters.pool == PoolRule::constant_product) {
    reserves.quote_weight = Perquintill::kOne / 2;
  }
  return spot_price(reserves);
}

Outcome<SwapResult> quote(const LedgerState& state, const Subnet& subnet, Side side,
                          std::uint64_t amount, std::uint64_t limit, bool drop_fees) {
  if (!subnet.dynamic) {
    if (side == Side::sell && subnet.reserves.tao < amount)
      return LedgerError::InsufficientLiquidity;
    return SwapResult{amount, amount, 0};
  }
  if (state.parameters.pool == PoolRule::constant_product) {
    const bool is_buy = side == Side::buy;
    const auto out = constant_product_output(
        ConstantProduct::spec233, is_buy ? subnet.reserves.tao : subnet.reserves.alpha,
        is_buy ? subnet.reserves.alpha : subnet.reserves.tao, amount);
    if (!out || *out == 0) return LedgerError::ReservesTooLow;
    return SwapResult{amount, *out, 0};
  }
  SwapOrder order{side,      amount,
                  limit,     subnet.parameters.fee_rate,
                  drop_fees, state.parameters.pool_reserve_min};
  return quote_swap(subnet.reserves, order);
}

void buy(LedgerState& state, Subnet& subnet, const SwapResult& result) {
  if (subnet.dynamic) subnet.reserves.alpha -= result.paid_out;
  subnet.reserves.tao += result.paid_in;
  subnet.alpha_out += result.paid_out;
  const std::uint64_t gross = result.paid_in + result.fee;
  state.total_stake = plus(state.total_stake, gross);
  subnet.volume = plus(subnet.volume, gross);
  pay_author(state, result.fee);
}

void sell(LedgerState& state, Subnet& subnet, const SwapResult& result) {
  const auto move = [&](const SwapResult& part) {
    if (subnet.dynamic) subnet.reserves.alpha += part.paid_in;
    subnet.alpha_out -= part.paid_in;
    subnet.reserves.tao -= part.paid_out;
    state.total_stake = minus(state.total_stake, part.paid_out);
    subnet.volume = plus(subnet.volume, part.paid_out);
  };
  move(result);
  if (result.fee == 0) return;
  // The fee is alpha: it is sold in turn, without a fee, and its TAO goes to the author.
  const auto fee = quote(state, subnet, Side::sell, result.fee, kSwapPriceMin, true);
  if (!fee) {
    subnet.alpha_adrift += static_cast<std::int64_t>(result.fee);
    return;
  }
  move(*fee);
  subnet.alpha_adrift += static_cast<std::int64_t>(result.fee - fee->paid_in);
  pay_author(state, fee->paid_out);
}

void recycle_alpha(Subnet& subnet, std::uint64_t alpha) { subnet.alpha_out -= alpha; }

void recycle_tao(LedgerState& state, std::uint64_t tao) { state.issuance -= tao; }

void pay_author(LedgerState& state, std::uint64_t tao) {
  if (tao == 0) return;
  if (state.author) {
    state.coldkeys[*state.author].free += tao;
  } else {
    state.burned += tao;
  }
}

UInt128 owed_for(I96F32 rate, std::uint64_t stake) {
  return rate.saturating_mul(I96F32::from_integer(stake)).to<UInt128>();
}

void check_supply(const LedgerState& state) {
  if (state.issuance > kSupplyMax) {
    throw Error(ErrorCode::invariant_broken, "TAO: issuance is above the supply's limit");
  }
}

void check(const LedgerState& state, bool deep) {
  check_tao(state);
  for (const auto& [netuid, subnet] : state.subnets) {
    check_alpha(subnet);
    if (!deep) continue;
    check_neurons(subnet);
    check_nominators(subnet);
  }
}

}  // namespace yumoe::ledger::books
