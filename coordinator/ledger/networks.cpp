#include "ledger/networks.hpp"

#include <algorithm>
#include <tuple>

#include "ledger/books.hpp"
#include "ledger/registration.hpp"

namespace yumoe::ledger {
namespace {

constexpr std::uint64_t kBurnAtCreation = 1'000'000'000;

std::uint16_t free_netuid(const LedgerState& state) {
  std::uint16_t netuid = kRootNetuid + 1;
  while (state.subnets.contains(netuid)) ++netuid;
  return netuid;
}

// Parts of `amount` in proportion to the weights, by largest remainder; ties to the earlier.
std::vector<std::uint64_t> largest_remainder(std::uint64_t amount,
                                             const std::vector<std::uint64_t>& weights) {
  UInt128 sum = 0;
  for (const std::uint64_t weight : weights) sum += weight;
  std::vector<std::uint64_t> parts(weights.size());
  if (sum == 0) return parts;
  std::vector<std::pair<UInt128, std::size_t>> rests;
  std::uint64_t given = 0;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    const auto part = *wide_divide(wide_product(amount, weights[i]), sum);
    parts[i] = static_cast<std::uint64_t>(part.quotient);
    given += parts[i];
    rests.emplace_back(part.remainder, i);
  }
  std::stable_sort(rests.begin(), rests.end(),
                   [](const auto& a, const auto& b) { return a.first > b.first; });
  for (std::size_t i = 0; given < amount; ++i, ++given) ++parts[rests[i].second];
  return parts;
}

}  // namespace

std::uint64_t lock_cost(const LedgerState& state) {
  return network_lock_cost(
      state.last_lock, state.last_lock_block, state.parameters.network_lock_min,
      state.parameters.lock_reduction_interval, block_emission(state.issuance), state.block);
}

std::optional<std::uint16_t> network_to_prune(const LedgerState& state) {
  using Rank = std::tuple<I96F32, std::uint64_t, std::uint16_t>;
  std::optional<Rank> lowest;
  for (const auto& [netuid, subnet] : state.subnets) {
    if (netuid == kRootNetuid || books::minus(state.block, subnet.registered_at) <
                                     state.parameters.network_immunity_period) {
      continue;
    }
    const I96F32 price = subnet.dynamic ? subnet.moving_price : I96F32::one();
    const Rank rank{price, subnet.registered_at, netuid};
    if (!lowest || rank < *lowest) lowest = rank;
  }
  if (!lowest) return std::nullopt;
  return std::get<2>(*lowest);
}

std::uint64_t starting_alpha(const LedgerState& state, std::uint64_t tao) {
  std::vector<U64F64> prices;
  for (const auto& [netuid, subnet] : state.subnets) {
    if (netuid != kRootNetuid) prices.push_back(books::price_of(state, subnet));
  }
  if (prices.empty()) return tao;
  std::sort(prices.begin(), prices.end());
  const std::size_t middle = prices.size() / 2;
  const U64F64 median =
      prices.size() % 2 == 1
          ? prices[middle]
          : prices[middle - 1].saturating_add(prices[middle]).safe_div(U64F64::from_integer(2));
  return U64F64::from_integer(tao).safe_div(median).to_u64();
}

Outcome<Done> register_network(LedgerState& state, const RegisterNetwork& operation,
                               const SubnetParameters& fresh) {
  const bool fresh_hotkey = !books::known(state, operation.hotkey);
  if (!fresh_hotkey && !books::owns(state, operation.coldkey, operation.hotkey)) {
    return LedgerError::NonAssociatedColdKey;
  }
  if (operation.hotkey == AccountId{} || operation.coldkey == AccountId{}) {
    return LedgerError::CannotUseSystemAccount;
  }
  if (operation.mechanism != 1) return LedgerError::MechanismDoesNotExist;
  if (state.block < state.parameters.network_registration_start) {
    return LedgerError::SubNetRegistrationDisabled;
  }
  if (state.network_registered &&
      books::minus(state.block, state.last_network_block) < state.parameters.network_rate_limit) {
    return LedgerError::NetworkTxRateLimitExceeded;
  }
  const bool full = state.subnets.size() - 1 >= state.parameters.subnet_limit;
  const auto victim = full ? network_to_prune(state) : std::nullopt;
  if (full && !victim) return LedgerError::SubnetLimitReached;
  const std::uint64_t lock = lock_cost(state);
  if (books::free_of(state, operation.coldkey) < lock) return LedgerError::CannotAffordLockCost;

  if (victim) dissolve(state, *victim);
  const std::uint64_t alpha = starting_alpha(state, lock);
  const std::uint16_t netuid = free_netuid(state);
  state.hotkeys.try_emplace(operation.hotkey, Hotkey{operation.coldkey, std::nullopt, 0});
  state.coldkeys.at(operation.coldkey).free -= lock;
  Subnet& subnet = state.subnets[netuid];
  subnet.netuid = netuid;
  subnet.parameters = fresh;
  subnet.mechanisms.resize(fresh.mechanism_count);
  subnet.owner_coldkey = operation.coldkey;
  subnet.owner_hotkey = operation.hotkey;
  subnet.registered_at = state.block;
  subnet.locked = lock;
  subnet.reserves.tao = lock;
  subnet.reserves.alpha = alpha;
  state.total_stake = books::plus(state.total_stake, lock);
  subnet.burn = std::min(std::max(kBurnAtCreation, fresh.min_burn), fresh.max_burn);
  subnet.last_epoch_block =
      books::minus(state.block, netuid % std::max<std::uint64_t>(fresh.tempo, 1));
  append_neuron(state, subnet, operation.hotkey);
  state.last_lock = lock;
  state.last_lock_block = state.block;
  state.last_network_block = state.block;
  state.network_registered = true;
  return Done{};
}

Outcome<Done> apply_to(LedgerState& state, const StartCall& operation) {
  Subnet* subnet = books::find(state, operation.netuid);
  if (subnet == nullptr || operation.netuid == kRootNetuid) return LedgerError::SubnetNotExists;
  if (subnet->owner_coldkey != operation.coldkey) return LedgerError::NotSubnetOwner;
  if (subnet->first_emission_block) return LedgerError::FirstEmissionBlockNumberAlreadySet;
  if (books::minus(state.block, subnet->registered_at) < state.parameters.start_call_delay) {
    return LedgerError::NeedWaitingMoreBlocksToStarCall;
  }
  subnet->first_emission_block = state.block + 1;
  subnet->subtoken_enabled = true;
  return Done{};
}

void dissolve(LedgerState& state, std::uint16_t netuid) {
  Subnet& subnet = state.subnets.at(netuid);
  const std::uint64_t tao = subnet.reserves.tao + subnet.pending_root_tao;
  std::vector<AccountId> holders;
  std::vector<std::uint64_t> weights;
  for (const auto& [hotkey, pool] : subnet.stakes) {
    for (const auto& [coldkey, share] : pool.shares()) {
      holders.push_back(coldkey);
      weights.push_back(pool.value_of(coldkey));
    }
  }
  // The pool's own alpha and what the protocol bought take part; their TAO leaves the supply.
  weights.push_back(books::plus(subnet.protocol_alpha, subnet.reserves.alpha));
  const std::vector<std::uint64_t> parts = largest_remainder(tao, weights);
  std::uint64_t paid = 0;
  for (std::size_t i = 0; i < holders.size(); ++i) {
    state.coldkeys[holders[i]].free += parts[i];
    paid += parts[i];
  }
  books::recycle_tao(state, tao - paid);
  state.total_stake = books::minus(state.total_stake, subnet.reserves.tao);
  for (auto& [coldkey, account] : state.coldkeys) {
    account.autostake.erase(netuid);
    account.keep.erase(netuid);
  }
  state.subnets.erase(netuid);
}

}  // namespace yumoe::ledger
