#include "ledger/liquid.hpp"

#include <algorithm>

namespace yumoe::ledger {
namespace {

constexpr I32F32 kZero = I32F32::zero();
constexpr I32F32 kOne = I32F32::one();

constexpr I32F32 to_share(I32F32 x) { return std::min(kOne, std::max(kZero, x)); }

// Linear interpolation at position quarters/4 * (n - 1) of the sorted numbers.
I32F32 quartile(std::span<const I32F32> sorted, std::size_t quarters) {
  const std::size_t position = quarters * (sorted.size() - 1);
  const I32F32 low = sorted[position / 4];
  const std::size_t rest = position % 4;
  if (rest == 0) return low;
  const I32F32 gap = sorted[position / 4 + 1] - low;
  return low + gap.saturating_mul(I32F32::from_integer(rest).safe_div(I32F32::from_integer(4)));
}

I32F32 logit_below(I32F32 z) { return ln(kOne.safe_div(z).saturating_sub(kOne)).value_or(kZero); }

}  // namespace

LiquidRate::LiquidRate(I32F32 low, I32F32 high, std::int16_t steepness)
    : low_(low),
      high_(high),
      slope_(I32F32::from_integer(steepness).safe_div(I32F32::from_integer(-100))) {}

std::uint64_t LiquidRate::at(std::uint64_t consensus, std::uint64_t weight,
                             std::uint64_t bond) const {
  const auto share = [](std::uint64_t bits) {
    return I32F32::from_bits(static_cast<std::int64_t>(bits));
  };
  const I32F32 w = share(weight);
  const I32F32 distance =
      weight >= bond ? to_share(w - share(consensus)) : to_share(share(bond) - w);
  const I32F32 power =
      exp_safe(slope_.saturating_mul(distance - I32F32::from_bits(std::int64_t{1} << 31)));
  const I32F32 sigmoid = kOne.saturating_div(kOne.saturating_add(power));
  const I32F32 rate = low_.saturating_add(sigmoid.saturating_mul(high_.saturating_sub(low_)));
  return static_cast<std::uint64_t>(std::max(low_, std::min(high_, rate)).bits());
}

I32F32 liquid_rate(I32F32 consensus, I32F32 weight, I32F32 bond, I32F32 low, I32F32 high,
                   std::int16_t steepness) {
  const auto bits = [](I32F32 x) { return static_cast<std::uint64_t>(std::max(kZero, x).bits()); };
  return I32F32::from_bits(static_cast<std::int64_t>(
      LiquidRate(low, high, steepness).at(bits(consensus), bits(weight), bits(bond))));
}

std::optional<std::vector<I32F32>> quantile_rates(const EpochParameters& p,
                                                  std::span<const I32F32> consensus) {
  if (consensus.empty()) return std::nullopt;
  std::vector<I32F32> sorted(consensus.begin(), consensus.end());
  std::sort(sorted.begin(), sorted.end());
  const I32F32 upper = quartile(sorted, 3);
  const I32F32 lower = quartile(sorted, 1);
  if (!(upper > lower) && upper == kZero && !(lower < kZero)) return std::nullopt;
  const I32F32 low = share_of_u16(p.alpha_low);
  const I32F32 high = share_of_u16(p.alpha_high);
  I32F32 slope;
  I32F32 offset;
  if (upper > lower && low != kZero && high != kZero) {
    slope = logit_below(high).saturating_sub(logit_below(low)).safe_div(lower - upper);
    offset = logit_below(low).saturating_add(slope.saturating_mul(lower));
  }
  std::vector<I32F32> rates;
  for (const I32F32 c : consensus) {
    const I32F32 power = exp_safe(offset.saturating_sub(slope.saturating_mul(c)));
    const I32F32 rate = kOne.safe_div(kOne.saturating_add(power));
    rates.push_back(std::max(low, std::min(high, rate)));
  }
  return rates;
}

}  // namespace yumoe::ledger
