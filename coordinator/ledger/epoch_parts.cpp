// The small rules around an epoch: stake that enters it, the split over mechanisms, permits, rates,
// u16 forms.

#include <algorithm>
#include <numeric>

#include "coordinator/epoch.hpp"

namespace yumoe::ledger {

std::uint64_t inherited_stake(std::uint64_t own, std::span<const std::uint64_t> child_proportions,
                              std::span<const ParentStake> parents) {
  const U96F32 own_stake = U96F32::from_integer(own);
  U96F32 to_children;
  for (const std::uint64_t proportion : child_proportions) {
    to_children = to_children.saturating_add(own_stake.saturating_mul(share_of_u64(proportion)));
  }
  U96F32 from_parents;
  for (const ParentStake& parent : parents) {
    from_parents = from_parents.saturating_add(
        U96F32::from_integer(parent.stake).saturating_mul(share_of_u64(parent.proportion)));
  }
  return own_stake.saturating_sub(to_children).saturating_add(from_parents).to_u64();
}

I64F64 total_stake(std::uint64_t alpha, std::uint64_t tao, std::uint64_t tao_weight) {
  const I64F64 weight = share_of_u64(tao_weight).convert<I64F64>();
  return I64F64::from_integer(alpha).saturating_add(
      I64F64::from_integer(tao).saturating_mul(weight));
}

std::vector<std::uint64_t> split_emission(std::uint64_t emission, std::size_t count,
                                          std::span<const std::uint16_t> split) {
  std::vector<std::uint64_t> parts(count, 0);
  if (count == 0) return parts;
  std::uint64_t left = emission;
  for (std::size_t i = 0; i < count; ++i) {
    if (split.empty()) {
      parts[i] = emission / count;
    } else if (i < split.size()) {
      parts[i] = static_cast<std::uint64_t>(static_cast<UInt128>(emission) * split[i] / 65535);
    }
    parts[i] = std::min(parts[i], left);
    left -= parts[i];
  }
  parts.front() += left;
  return parts;
}

std::vector<std::uint8_t> largest_k(std::span<const I32F32> values, std::size_t k) {
  std::vector<std::uint8_t> chosen(values.size(), 1);
  if (values.size() <= k) return chosen;
  std::vector<std::uint32_t> order(values.size());
  std::iota(order.begin(), order.end(), 0U);
  std::stable_sort(order.begin(), order.end(),
                   [&](std::uint32_t a, std::uint32_t b) { return values[a] < values[b]; });
  for (std::size_t i = 0; i < values.size() - k; ++i) chosen[order[i]] = 0;
  return chosen;
}

std::vector<std::uint16_t> upscale_to_u16(std::span<const I32F32> values) {
  constexpr I32F32 kTop = I32F32::from_integer(65535);
  I32F32 largest;
  for (const I32F32 v : values) largest = std::max(largest, v);
  std::vector<std::uint16_t> out(values.size(), 0);
  if (largest == I32F32::zero()) return out;
  // For large numbers the factor comes first, or the product would leave the range.
  const bool factor_first = largest > I32F32::from_integer(32768);
  const I32F32 factor = kTop.safe_div(largest);
  for (std::size_t i = 0; i < values.size(); ++i) {
    const I32F32 scaled = factor_first ? values[i].saturating_mul(factor)
                                       : values[i].saturating_mul(kTop).safe_div(largest);
    out[i] = scaled.round().to_u16();
  }
  return out;
}

}  // namespace yumoe::ledger
