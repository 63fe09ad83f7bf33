#include "coordinator/coinbase.hpp"

#include <algorithm>

namespace yumoe::ledger {
namespace {

constexpr std::uint64_t kSupplyMax = 21'000'000'000'000'000;
constexpr std::uint64_t kBlockEmission = 1'000'000'000;
constexpr std::uint64_t kU64Max = ~std::uint64_t{0};

U96F32 whole(std::uint64_t value) { return U96F32::from_integer(value); }
const U96F32 kHalf = U96F32::from_bits(UInt128{1} << 31);

U64F64 sum_of(const std::vector<U64F64>& values) {
  U64F64 sum;
  for (const U64F64 value : values) sum = sum.saturating_add(value);
  return sum;
}

}  // namespace

std::uint64_t block_emission(std::uint64_t issuance) {
  if (issuance >= kSupplyMax) return 0;
  const I96F32 ratio =
      I96F32::from_integer(issuance).safe_div(I96F32::from_integer(2).saturating_mul(
          I96F32::from_integer(std::uint64_t{10'500'000'000'000'000})));
  const auto inverse = I96F32::one().checked_div(I96F32::one().saturating_sub(ratio));
  const auto power = inverse ? log2(*inverse) : std::nullopt;
  if (!power) return 0;
  const auto doublings = power->to<std::uint64_t>();
  I96F32 divisor = I96F32::one();
  for (std::uint64_t i = 0; i < doublings; ++i)
    divisor = divisor.saturating_mul(I96F32::from_integer(2));
  return I96F32::one()
      .safe_div(divisor)
      .saturating_mul(I96F32::from_integer(kBlockEmission))
      .to_u64();
}

U96F32 root_proportion(std::uint64_t root_tao, U96F32 tao_weight, std::uint64_t alpha_in,
                       std::uint64_t alpha_out) {
  const U96F32 root = whole(root_tao).saturating_mul(tao_weight);
  const U96F32 all = root.saturating_add(whole(alpha_in)).saturating_add(whole(alpha_out));
  return root.safe_div(all);
}

void redistribute_disabled(std::vector<U64F64>& shares, const std::vector<bool>& enabled) {
  if (std::find(enabled.begin(), enabled.end(), false) == enabled.end()) return;
  U64F64 sum;
  for (std::size_t i = 0; i < shares.size(); ++i) {
    if (enabled[i]) sum = sum.saturating_add(shares[i]);
  }
  for (std::size_t i = 0; i < shares.size(); ++i) {
    shares[i] = enabled[i] ? shares[i].safe_div(sum) : U64F64::zero();
  }
}

std::vector<U64F64> emission_shares(std::span<const ShareInput> subnets, bool weigh_by_burn) {
  std::vector<U64F64> shares;
  std::vector<bool> enabled;
  for (const ShareInput& subnet : subnets) {
    shares.push_back(subnet.moving_price.convert<U64F64>());
    enabled.push_back(subnet.enabled);
  }
  const U64F64 sum = sum_of(shares);
  for (U64F64& share : shares) share = share.safe_div(sum);
  if (weigh_by_burn) {
    std::vector<U64F64> weighed = shares;
    for (std::size_t i = 0; i < weighed.size(); ++i) {
      const U96F32 kept =
          U96F32::one().saturating_sub(std::min(U96F32::one(), subnets[i].miner_burned));
      weighed[i] = weighed[i].saturating_mul(kept.convert<U64F64>());
    }
    const U64F64 weight = sum_of(weighed);
    if (weight > U64F64::zero()) {
      for (std::size_t i = 0; i < shares.size(); ++i) shares[i] = weighed[i].safe_div(weight);
    }
  }
  redistribute_disabled(shares, enabled);
  return shares;
}

PoolTerms pool_terms(U96F32 tao_emission, U64F64 price, U96F32 root_proportion,
                     std::uint64_t alpha_emission) {
  const U96F32 cut_price = price.convert<U96F32>();
  PoolTerms terms{tao_emission, tao_emission.safe_div(cut_price), U96F32::zero()};
  const U96F32 cap = root_proportion.saturating_mul(whole(alpha_emission));
  if (terms.alpha_in > cap) {
    terms.alpha_in = cap;
    terms.tao_in = cap.saturating_mul(cut_price);
  }
  terms.excess = tao_emission.saturating_sub(terms.tao_in);
  return terms;
}

PendingSplit split_alpha(std::uint64_t alpha_out, bool owner_cut_enabled, std::uint16_t owner_cut,
                         U96F32 root_proportion) {
  PendingSplit split;
  U96F32 alpha = whole(alpha_out);
  if (owner_cut_enabled) {
    const U96F32 cut = alpha.saturating_mul(whole(owner_cut).safe_div(whole(65535)));
    alpha = alpha.saturating_sub(cut);
    split.owner_cut = cut.to_u64();
  }
  const U96F32 root = root_proportion.saturating_mul(alpha).saturating_mul(kHalf);
  const U96F32 server = alpha.saturating_mul(kHalf);
  split.root = root.to_u64();
  split.server = server.to_u64();
  split.validator = alpha.saturating_sub(server).saturating_sub(root).to_u64();
  return split;
}

I96F32 moving_price_after(I96F32 old, U64F64 spot, I96F32 alpha, std::uint64_t block,
                          std::uint64_t first_emission_block, std::uint64_t halving_blocks) {
  const std::uint64_t start = first_emission_block > 0 ? first_emission_block - 1 : 0;
  const U64F64 age = U64F64::from_integer(block > start ? block - start : 0);
  const U64F64 ramp = age.safe_div(age.saturating_add(U64F64::from_integer(halving_blocks)));
  const U64F64 weight = alpha.convert<U64F64>().saturating_mul(ramp);
  const U64F64 fresh = weight.saturating_mul(std::min(spot, U64F64::one()));
  const U64F64 kept = U64F64::one().saturating_sub(weight).saturating_mul(old.convert<U64F64>());
  return fresh.saturating_add(kept).convert<I96F32>();
}

std::uint64_t decay_factor(std::uint16_t half_life) {
  constexpr std::uint64_t kOne = std::uint64_t{1} << 32;
  if (half_life == 0) return kOne;
  const auto power = [](std::uint64_t base, std::uint16_t exponent) {
    std::uint64_t result = kOne;
    for (; exponent != 0; exponent = static_cast<std::uint16_t>(exponent >> 1)) {
      if ((exponent & 1) != 0) result = static_cast<std::uint64_t>((UInt128{result} * base) >> 32);
      base = static_cast<std::uint64_t>((UInt128{base} * base) >> 32);
    }
    return result;
  };
  std::uint64_t low = 0;
  std::uint64_t high = kOne;
  while (low + 1 < high) {
    const std::uint64_t middle = low + (high - low) / 2;
    (power(middle, half_life) > kOne / 2 ? high : low) = middle;
  }
  return low;
}

std::uint64_t decayed_price(std::uint64_t burn, std::uint16_t half_life, std::uint64_t burn_min,
                            std::uint64_t burn_max) {
  const auto decayed = static_cast<std::uint64_t>((UInt128{burn} * decay_factor(half_life)) >> 32);
  return std::min(std::max(decayed, burn_min), burn_max);
}

std::uint64_t raised_price(std::uint64_t burn, U64F64 factor, std::uint64_t burn_min,
                           std::uint64_t burn_max) {
  const U64F64 used = std::max(factor, U64F64::one());
  const std::uint64_t raised = U64F64::from_integer(burn).saturating_mul(used).to_u64();
  return std::min(std::max(raised, burn_min), burn_max);
}

ParentDividends divide_among_parents(std::uint64_t dividend, const OwnStake& own,
                                     std::span<const std::uint64_t> children,
                                     std::span<const ParentShare> parents, U96F32 tao_weight,
                                     U96F32 childkey_take, U96F32 childkey_burn) {
  const auto contribution = [&](const OwnStake& stake, U96F32 part) {
    const U96F32 alpha = whole(stake.alpha).saturating_mul(part);
    const U96F32 tao = whole(stake.tao).saturating_mul(part).saturating_mul(tao_weight);
    return alpha.saturating_add(tao);
  };
  U96F32 kept_part = U96F32::one();
  for (const std::uint64_t child : children) {
    kept_part = kept_part.saturating_sub(share_of_u64(child));
  }
  U96F32 total = whole(contribution(own, kept_part).to_u64());
  std::vector<U96F32> contributions;
  for (const ParentShare& parent : parents) {
    contributions.push_back(contribution(parent.stake, share_of_u64(parent.proportion)));
    total = total.saturating_add(contributions.back());
  }

  ParentDividends result;
  const U96F32 all = whole(dividend);
  U96F32 left = all;
  U96F32 takes;
  for (std::size_t i = 0; i < parents.size(); ++i) {
    U96F32 due = all.saturating_mul(contributions[i].safe_div(total));
    left = left.saturating_sub(due);
    if (!parents[i].same_owner) {
      const U96F32 burned = childkey_burn.saturating_mul(due);
      const U96F32 take = childkey_take.saturating_mul(due);
      due = due.saturating_sub(burned).saturating_sub(take);
      takes = takes.saturating_add(take);
      result.burned += burned.to_u64();
    }
    result.parents.push_back(due.to_u64());
  }
  result.own = left.saturating_add(takes).to_u64();
  return result;
}

DividendSplit split_dividends(const std::map<AccountId, U96F32>& dividends,
                              const std::map<AccountId, OwnStake>& stakes,
                              std::uint64_t pending_alpha, std::uint64_t pending_root,
                              U96F32 tao_weight) {
  DividendSplit split;
  U96F32 root_sum;
  U96F32 alpha_sum;
  for (const auto& [hotkey, dividend] : dividends) {
    const OwnStake& stake = stakes.at(hotkey);
    const U96F32 root = whole(stake.tao).saturating_mul(tao_weight);
    const U96F32 part = root.safe_div(whole(stake.alpha).saturating_add(root));
    const U96F32 root_dividend = dividend.saturating_mul(part);
    split.root[hotkey] = root_dividend;
    split.alpha[hotkey] = dividend.saturating_sub(root_dividend);
    root_sum = root_sum.saturating_add(root_dividend);
    alpha_sum = alpha_sum.saturating_add(split.alpha[hotkey]);
  }
  for (auto& [hotkey, value] : split.root) {
    value = whole(pending_root).saturating_mul(value.safe_div(root_sum));
  }
  for (auto& [hotkey, value] : split.alpha) {
    value = whole(pending_alpha).saturating_mul(value.safe_div(alpha_sum));
  }
  return split;
}

std::uint64_t network_lock_cost(std::uint64_t last_lock, std::uint64_t last_block,
                                std::uint64_t min_lock, std::uint64_t reduction_interval,
                                std::uint64_t tao_emission, std::uint64_t block) {
  const UInt128 raised = UInt128{last_lock} * (last_block == 0 ? 1 : 2);
  const std::uint64_t interval =
      static_cast<std::uint64_t>(UInt128{reduction_interval} * tao_emission / kBlockEmission);
  const std::uint64_t step = interval == 0 ? 0 : last_lock / interval;
  const UInt128 fall = UInt128{step} * (block > last_block ? block - last_block : 0);
  const UInt128 cost = raised > fall ? raised - fall : 0;
  return std::max(min_lock, static_cast<std::uint64_t>(std::min<UInt128>(cost, kU64Max)));
}

}  // namespace yumoe::ledger
