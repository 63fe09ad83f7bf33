#include "ledger/claims.hpp"

#include <array>
#include <set>

#include "cluster/bytes.hpp"
#include "ledger/books.hpp"

namespace yumoe::ledger {
namespace {

constexpr std::size_t kSubnetsPerClaimMax = 5;

bool keeps(const Coldkey& account, std::uint16_t netuid) {
  switch (account.claim) {
    case ClaimKind::swap: return false;
    case ClaimKind::keep: return true;
    case ClaimKind::keep_subnets: return account.keep.contains(netuid);
  }
  return false;
}

// Sells the alpha for TAO and stakes that on root; how much alpha was sold, 0 if the pool refuses.
std::uint64_t sell_for_root(LedgerState& state, Subnet& subnet, const AccountId& hotkey,
                            const AccountId& coldkey, std::uint64_t alpha) {
  Subnet& root = state.subnets.at(kRootNetuid);
  const auto sale = books::quote(state, subnet, Side::sell, alpha, kSwapPriceMin, true);
  if (!sale || sale->paid_out == 0 || !books::stakeable(root, hotkey, sale->paid_out)) return 0;
  books::sell(state, subnet, *sale);
  subnet.alpha_root_owed -= static_cast<std::int64_t>(sale->paid_in);
  subnet.protocol_flow -= static_cast<std::int64_t>(sale->paid_out);
  root.reserves.tao += sale->paid_out;
  root.alpha_out += sale->paid_out;
  state.total_stake = books::plus(state.total_stake, sale->paid_out);
  const bool staked = books::stake(state, root, hotkey, coldkey, sale->paid_out);
  YUMOE_ASSERT(staked);
  return sale->paid_in;
}

void claim_all(LedgerState& state, const AccountId& coldkey, const std::set<std::uint16_t>* only) {
  const auto account = state.coldkeys.find(coldkey);
  if (account == state.coldkeys.end()) return;
  const std::set<AccountId> hotkeys = account->second.staking_hotkeys;
  for (const AccountId& hotkey : hotkeys) {
    for (auto& [netuid, subnet] : state.subnets) {
      if (only != nullptr && !only->contains(netuid)) continue;
      claim_root(state, subnet, hotkey, coldkey);
    }
  }
}

}  // namespace

void claim_root(LedgerState& state, Subnet& subnet, const AccountId& hotkey,
                const AccountId& coldkey) {
  const auto claim = subnet.claims.find(hotkey);
  if (claim == subnet.claims.end()) return;
  const std::uint64_t stake = books::stake_of(state.subnets.at(kRootNetuid), hotkey, coldkey);
  const UInt128 claimed = claim->second.claimed[coldkey];
  const I96F32 owed = claim->second.rate.saturating_mul(I96F32::from_integer(stake))
                          .saturating_sub(I96F32::from_integer(claimed));
  if (owed < I96F32::from_integer(subnet.parameters.root_claim_threshold)) return;
  const std::uint64_t alpha = owed.to_u64();
  // A claim may not take more than lies there; dust of rounded rates waits for the next dividend.
  if (alpha == 0 || Int128{alpha} > Int128{subnet.alpha_root_owed}) return;
  std::uint64_t paid = 0;
  if (!keeps(state.coldkeys.at(coldkey), subnet.netuid)) {
    paid = sell_for_root(state, subnet, hotkey, coldkey, alpha);
  } else if (books::stake(state, subnet, hotkey, coldkey, alpha)) {
    subnet.alpha_root_owed -= static_cast<std::int64_t>(alpha);
    paid = alpha;
  }
  subnet.claims.at(hotkey).claimed[coldkey] += paid;
}

void claim_automatically(LedgerState& state) {
  const std::uint64_t count = state.root_nominators.size();
  if (count == 0) return;
  // The chain draws from the parent block's hash; here the block's number stands in for it.
  std::array<std::uint8_t, 8> number{};
  for (std::size_t i = 0; i < number.size(); ++i) {
    number[i] = static_cast<std::uint8_t>(state.block >> (8 * i));
  }
  const Digest hash = digest_of(number);
  std::array<std::uint64_t, 4> words{};
  for (std::size_t i = 0; i < hash.bytes.size(); ++i) {
    words[i / 8] = (words[i / 8] << 8) | hash.bytes[i];
  }
  std::set<std::uint64_t> drawn;
  std::uint64_t last = words[0];
  for (std::size_t i = 0; i < state.parameters.root_claims_per_block; ++i) {
    last = books::plus(last, words[i % words.size()]) % count;
    drawn.insert(last);
  }
  for (const std::uint64_t index : drawn) {
    claim_all(state, AccountId(state.root_nominators[index]), nullptr);
  }
}

Outcome<Done> apply_to(LedgerState& state, const ClaimRoot& operation) {
  const std::set<std::uint16_t> netuids(operation.netuids.begin(), operation.netuids.end());
  if (netuids.empty() || netuids.size() > kSubnetsPerClaimMax)
    return LedgerError::InvalidSubnetNumber;
  claim_all(state, operation.coldkey, &netuids);
  return Done{};
}

Outcome<Done> apply_to(LedgerState& state, const SetClaimKind& operation) {
  if (operation.kind == ClaimKind::keep_subnets && operation.keep.empty()) {
    return LedgerError::InvalidSubnetNumber;
  }
  Coldkey& account = state.coldkeys[operation.coldkey];
  account.claim = operation.kind;
  account.keep =
      operation.kind == ClaimKind::keep_subnets ? operation.keep : std::set<std::uint16_t>{};
  return Done{};
}

}  // namespace yumoe::ledger
