#include "ledger/staking.hpp"

#include <algorithm>

#include "ledger/books.hpp"
#include "ledger/spec233.hpp"

namespace yumoe::ledger {
namespace {

constexpr std::uint64_t kUnit = 1'000'000'000;

bool tradable(const Subnet& subnet) {
  return subnet.netuid == kRootNetuid || subnet.subtoken_enabled;
}

// Whether an order is out of all proportion to the pool.
bool exceeds_pool(const Subnet* subnet, std::uint64_t amount, Side side) {
  if (subnet == nullptr || !subnet->dynamic) return false;
  const std::uint64_t reserve = side == Side::buy ? subnet->reserves.tao : subnet->reserves.alpha;
  return UInt128{amount} > UInt128{kSwapInputFactorMax} * reserve;
}

// The largest order the limit lets through whole.
Outcome<std::uint64_t> largest_order(const LedgerState& state, const Subnet& subnet, Side side,
                                     std::uint64_t limit) {
  if (!subnet.dynamic) {
    const bool fair = side == Side::buy ? limit >= kUnit : limit <= kUnit;
    return fair ? books::kMax : std::uint64_t{0};
  }
  const std::uint64_t reserve = side == Side::buy ? subnet.reserves.tao : subnet.reserves.alpha;
  const UInt128 order = UInt128{kSwapInputFactorMax} * reserve;
  const auto filled =
      books::quote(state, subnet, side,
                   static_cast<std::uint64_t>(std::min<UInt128>(order, books::kMax)), limit);
  if (!filled) return filled.error();
  return filled->paid_in + filled->fee;
}

// Cuts an order to its limit, or refuses it.
Outcome<std::uint64_t> within_limit(std::uint64_t amount, std::uint64_t largest,
                                    const Limit& limit) {
  if (amount <= largest) return amount;
  if (!limit.partial) return LedgerError::SlippageTooHigh;
  return largest;
}

std::uint64_t fee_on(const LedgerState& state, const Subnet& subnet, std::uint64_t amount) {
  if (!subnet.dynamic || state.parameters.pool != PoolRule::balancer) return 0;
  return U64F64::from_integer(amount)
      .saturating_mul(
          U64F64::from_integer(subnet.parameters.fee_rate).safe_div(U64F64::from_integer(65535)))
      .to_u64();
}

void pay_out(LedgerState& state, Subnet& subnet, const AccountId& hotkey, const AccountId& coldkey,
             const SwapResult& sale) {
  books::unstake(state, subnet, hotkey, coldkey, sale.paid_in + sale.fee);
  books::sell(state, subnet, sale);
  state.coldkeys[coldkey].free += sale.paid_out;
  subnet.user_flow -= static_cast<std::int64_t>(sale.paid_out);
}

// A nomination too small to keep is sold as well.
void sweep_small_nomination(LedgerState& state, Subnet& subnet, const AccountId& hotkey,
                            const AccountId& coldkey) {
  const std::uint64_t least = state.parameters.nominator_min_stake;
  if (least == 0 || books::owns(state, coldkey, hotkey)) return;
  const std::uint64_t left = books::stake_of(subnet, hotkey, coldkey);
  const std::uint64_t least_alpha =
      U64F64::from_integer(least).safe_div(books::price_of(state, subnet)).to_u64();
  if (left == 0 || left >= least_alpha) return;
  const auto sale = books::quote(state, subnet, Side::sell, left, kSwapPriceMin);
  if (sale && sale->paid_in + sale->fee <= left) pay_out(state, subnet, hotkey, coldkey, *sale);
}

// Where stake comes from and goes to.
struct Route {
  AccountId origin_coldkey{};
  AccountId destination_coldkey{};
  AccountId origin_hotkey{};
  AccountId destination_hotkey{};
  std::uint16_t origin_netuid = 0;
  std::uint16_t destination_netuid = 0;
  std::uint64_t alpha = 0;
  std::optional<Limit> limit;
  bool changes_owner = false;
};

// Alpha of the origin that may be swapped until origin price / destination price falls to the limit.
Outcome<std::uint64_t> largest_swap(const LedgerState& state, const Subnet& origin,
                                    const Subnet& destination, std::uint64_t limit) {
  if (limit == 0) return books::kMax;
  if (!origin.dynamic && !destination.dynamic)
    return limit <= kUnit ? books::kMax : std::uint64_t{0};
  if (!destination.dynamic) return largest_order(state, origin, Side::sell, limit);
  if (!origin.dynamic) {
    return largest_order(state, destination, Side::buy, kUnit * kUnit / limit);
  }
  const U64F64 bound = U64F64::from_integer(limit).safe_div(U64F64::from_integer(kUnit));
  const U64F64 ratio = books::price_of(state, origin).safe_div(books::price_of(state, destination));
  if (bound > ratio) return std::uint64_t{0};
  const U64F64 y1 = U64F64::from_integer(origin.reserves.tao);
  const U64F64 y2 = U64F64::from_integer(destination.reserves.tao);
  const U64F64 all = y1.saturating_add(y2);
  const U64F64 first = U64F64::from_integer(destination.reserves.alpha)
                           .saturating_mul(y1.safe_div(all))
                           .safe_div(bound);
  const U64F64 second =
      U64F64::from_integer(origin.reserves.alpha).saturating_mul(y2.safe_div(all));
  return first.saturating_sub(second).to_u64();
}

Outcome<Done> relocate_within(LedgerState& state, Subnet& subnet, const Route& route) {
  const U64F64 value =
      books::price_of(state, subnet).saturating_mul(U64F64::from_integer(route.alpha));
  if (route.alpha == 0 || value.to_u64() < state.parameters.min_stake)
    return LedgerError::AmountTooLow;
  if (route.changes_owner && !subnet.parameters.transfer_toggle)
    return LedgerError::TransferDisallowed;
  // Shares are worth something else after the withdrawal: try on a copy.
  SharePool trial = subnet.stakes.at(route.origin_hotkey);
  if (!trial.withdraw(route.origin_coldkey, route.alpha))
    return LedgerError::NotEnoughStakeToWithdraw;
  const bool fits = route.origin_hotkey == route.destination_hotkey
                        ? trial.deposit(route.destination_coldkey, route.alpha)
                        : books::stakeable(subnet, route.destination_hotkey, route.alpha);
  if (!fits) return LedgerError::InsufficientLiquidity;
  books::unstake(state, subnet, route.origin_hotkey, route.origin_coldkey, route.alpha);
  const bool staked =
      books::stake(state, subnet, route.destination_hotkey, route.destination_coldkey, route.alpha);
  YUMOE_ASSERT(staked);
  return Done{};
}

Outcome<Done> relocate_across(LedgerState& state, Subnet& origin, Subnet& destination,
                              const Route& route) {
  std::uint64_t alpha = route.alpha;
  const auto whole_sale = books::quote(state, origin, Side::sell, alpha, kSwapPriceMin);
  if (!whole_sale) return LedgerError::InsufficientLiquidity;
  if (whole_sale->paid_out <= state.parameters.min_stake) return LedgerError::AmountTooLow;
  if (route.limit) {
    const auto largest = largest_swap(state, origin, destination, route.limit->price);
    if (!largest) return largest.error();
    const auto cut = within_limit(alpha, *largest, *route.limit);
    if (!cut) return cut.error();
    alpha = *cut;
  }
  if (route.changes_owner &&
      !(origin.parameters.transfer_toggle && destination.parameters.transfer_toggle)) {
    return LedgerError::TransferDisallowed;
  }
  const auto sale = books::quote(state, origin, Side::sell, alpha, kSwapPriceMin);
  if (!sale) return LedgerError::InsufficientLiquidity;
  if (sale->paid_out == 0) return LedgerError::AmountTooLow;
  const bool stays_free = sale->paid_out < state.parameters.min_stake;
  const bool drop_fees = origin.netuid != kRootNetuid;
  const auto purchase =
      books::quote(state, destination, Side::buy, sale->paid_out, kSwapPriceMax, drop_fees);
  if (!stays_free &&
      (!purchase || purchase->paid_out == 0 ||
       !books::stakeable(destination, route.destination_hotkey, purchase->paid_out))) {
    return LedgerError::InsufficientLiquidity;
  }
  books::unstake(state, origin, route.origin_hotkey, route.origin_coldkey,
                 sale->paid_in + sale->fee);
  books::sell(state, origin, *sale);
  origin.user_flow -= static_cast<std::int64_t>(sale->paid_out);
  std::uint64_t left = sale->paid_out;
  if (!stays_free) {
    const std::uint64_t spent = purchase->paid_in + purchase->fee;
    books::buy(state, destination, *purchase);
    destination.user_flow += static_cast<std::int64_t>(spent);
    left -= spent;
    const bool staked = books::stake(state, destination, route.destination_hotkey,
                                     route.destination_coldkey, purchase->paid_out);
    YUMOE_ASSERT(staked);
  }
  state.coldkeys[route.destination_coldkey].free += left;
  return Done{};
}

Outcome<Done> relocate(LedgerState& state, const Route& route) {
  if (route.origin_netuid == route.destination_netuid &&
      route.origin_hotkey == route.destination_hotkey &&
      route.origin_coldkey == route.destination_coldkey) {
    return LedgerError::SameNetuid;
  }
  Subnet* origin = books::find(state, route.origin_netuid);
  Subnet* destination = books::find(state, route.destination_netuid);
  if (origin == nullptr || destination == nullptr) return LedgerError::SubnetNotExists;
  if (!tradable(*origin) || !tradable(*destination)) return LedgerError::SubtokenDisabled;
  if (!books::known(state, route.origin_hotkey) || !books::known(state, route.destination_hotkey)) {
    return LedgerError::HotKeyAccountNotExists;
  }
  if (books::stake_of(*origin, route.origin_hotkey, route.origin_coldkey) < route.alpha) {
    return LedgerError::NotEnoughStakeToWithdraw;
  }
  if (origin == destination) return relocate_within(state, *origin, route);
  return relocate_across(state, *origin, *destination, route);
}

}  // namespace

Outcome<Done> apply_to(LedgerState& state, const AddStake& operation) {
  if (state.parameters.blocks == BlockRule::spec233) return spec233::apply_to(state, operation);
  Subnet* subnet = books::find(state, operation.netuid);
  if (exceeds_pool(subnet, operation.tao, Side::buy)) return LedgerError::InsufficientLiquidity;
  if (subnet == nullptr) return LedgerError::SubnetNotExists;
  if (!tradable(*subnet)) return LedgerError::SubtokenDisabled;
  const std::uint64_t least = state.parameters.min_stake;
  if (operation.tao < least + fee_on(state, *subnet, least)) return LedgerError::AmountTooLow;
  std::uint64_t tao = operation.tao;
  if (operation.limit) {
    const auto largest = largest_order(state, *subnet, Side::buy, operation.limit->price);
    if (!largest) return largest.error();
    const auto cut = within_limit(tao, *largest, *operation.limit);
    if (!cut) return cut.error();
    tao = *cut;
  }
  if (books::free_of(state, operation.coldkey) < tao) return LedgerError::NotEnoughBalanceToStake;
  if (!books::known(state, operation.hotkey)) return LedgerError::HotKeyAccountNotExists;
  const auto purchase = books::quote(state, *subnet, Side::buy, tao, kSwapPriceMax);
  if (!purchase || purchase->paid_out == 0) return LedgerError::InsufficientLiquidity;
  if (purchase->paid_in < least) return LedgerError::AmountTooLow;
  if (!books::stakeable(*subnet, operation.hotkey, purchase->paid_out)) {
    return LedgerError::InsufficientLiquidity;
  }
  const std::uint64_t spent = purchase->paid_in + purchase->fee;
  state.coldkeys.at(operation.coldkey).free -= spent;
  books::buy(state, *subnet, *purchase);
  subnet->user_flow += static_cast<std::int64_t>(spent);
  const bool staked =
      books::stake(state, *subnet, operation.hotkey, operation.coldkey, purchase->paid_out);
  YUMOE_ASSERT(staked);
  return Done{};
}

Outcome<Done> apply_to(LedgerState& state, const RemoveStake& operation) {
  if (state.parameters.blocks == BlockRule::spec233) return spec233::apply_to(state, operation);
  Subnet* subnet = books::find(state, operation.netuid);
  if (!operation.limit && subnet != nullptr && !tradable(*subnet))
    return LedgerError::SubtokenDisabled;
  const std::uint64_t owned =
      subnet == nullptr ? 0 : books::stake_of(*subnet, operation.hotkey, operation.coldkey);
  std::uint64_t alpha = operation.limit ? operation.alpha : std::min(operation.alpha, owned);
  if (exceeds_pool(subnet, alpha, Side::sell)) return LedgerError::InsufficientLiquidity;
  if (subnet == nullptr) return LedgerError::SubnetNotExists;
  if (alpha == 0) return LedgerError::AmountTooLow;
  if (alpha > owned) return LedgerError::NotEnoughStakeToWithdraw;
  const auto simulated = books::quote(state, *subnet, Side::sell, alpha, kSwapPriceMin);
  if (!simulated) return LedgerError::InsufficientLiquidity;
  if (simulated->paid_out < state.parameters.min_stake && alpha < owned)
    return LedgerError::AmountTooLow;
  if (operation.limit) {
    const auto largest = largest_order(state, *subnet, Side::sell, operation.limit->price);
    if (!largest) return largest.error();
    const auto cut = within_limit(alpha, *largest, *operation.limit);
    if (!cut) return cut.error();
    alpha = *cut;
  }
  if (!books::known(state, operation.hotkey)) return LedgerError::HotKeyAccountNotExists;
  const auto sale = books::quote(state, *subnet, Side::sell, alpha, kSwapPriceMin);
  if (!sale || alpha == 0) return LedgerError::InsufficientLiquidity;
  pay_out(state, *subnet, operation.hotkey, operation.coldkey, *sale);
  sweep_small_nomination(state, *subnet, operation.hotkey, operation.coldkey);
  return Done{};
}

Outcome<Done> apply_to(LedgerState& state, const RemoveStakeFull& operation) {
  const Subnet* subnet = books::find(state, operation.netuid);
  if (subnet == nullptr) return LedgerError::SubnetNotExists;
  RemoveStake all{operation.coldkey, operation.hotkey, operation.netuid,
                  books::stake_of(*subnet, operation.hotkey, operation.coldkey), std::nullopt};
  if (operation.limit_price) all.limit = Limit{*operation.limit_price, false};
  return apply_to(state, all);
}

Outcome<Done> apply_to(LedgerState& state, const UnstakeAll& operation) {
  if (!books::known(state, operation.hotkey)) return LedgerError::HotKeyAccountNotExists;
  Subnet& root = state.subnets.at(kRootNetuid);
  std::vector<std::pair<Subnet*, SwapResult>> sales;
  std::uint64_t tao = 0;
  for (auto& [netuid, subnet] : state.subnets) {
    if (!tradable(subnet) || (operation.to_root && netuid == kRootNetuid)) continue;
    const std::uint64_t owned = books::stake_of(subnet, operation.hotkey, operation.coldkey);
    if (owned == 0) continue;
    // A pool that cannot take the order keeps its stake: the others are sold all the same.
    const auto sale = books::quote(state, subnet, Side::sell, owned, kSwapPriceMin);
    if (!sale) continue;
    sales.emplace_back(&subnet, *sale);
    tao += sale->paid_out;
  }
  const bool enough = tao >= state.parameters.min_stake;
  if (operation.to_root && (!enough || !books::stakeable(root, operation.hotkey, tao))) {
    return LedgerError::AmountTooLow;
  }
  for (const auto& [subnet, sale] : sales) {
    pay_out(state, *subnet, operation.hotkey, operation.coldkey, sale);
  }
  if (operation.to_root) {
    state.coldkeys.at(operation.coldkey).free -= tao;
    books::buy(state, root, {tao, tao, 0});
    const bool staked = books::stake(state, root, operation.hotkey, operation.coldkey, tao);
    YUMOE_ASSERT(staked);
  }
  return Done{};
}

Outcome<Done> apply_to(LedgerState& state, const MoveStake& operation) {
  return relocate(state, {operation.coldkey, operation.coldkey, operation.origin_hotkey,
                          operation.destination_hotkey, operation.origin_netuid,
                          operation.destination_netuid, operation.alpha, std::nullopt, false});
}

Outcome<Done> apply_to(LedgerState& state, const TransferStake& operation) {
  return relocate(state, {operation.coldkey, operation.destination_coldkey, operation.hotkey,
                          operation.hotkey, operation.origin_netuid, operation.destination_netuid,
                          operation.alpha, std::nullopt, true});
}

Outcome<Done> apply_to(LedgerState& state, const SwapStake& operation) {
  return relocate(state, {operation.coldkey, operation.coldkey, operation.hotkey, operation.hotkey,
                          operation.origin_netuid, operation.destination_netuid, operation.alpha,
                          operation.limit, false});
}

}  // namespace yumoe::ledger
