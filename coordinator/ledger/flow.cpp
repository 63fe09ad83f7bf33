// Shares of the emission by net TAO flow, as the chain computed them between specs 334 and 420.

#include <algorithm>

#include "coordinator/coinbase.hpp"

namespace yumoe::ledger {
namespace {

constexpr std::uint64_t kI32Max = (std::uint64_t{1} << 31) - 1;
constexpr int kBisectionRounds = 129;

// Factor by which all values are stretched so that their squares fill the range of I32F32.
U64F64 stretch_for(std::size_t count) {
  const U64F64 room = U64F64::from_integer(kI32Max).safe_div(U64F64::from_integer(count));
  const bool above_one = room > U64F64::one();
  U64F64 low = above_one ? U64F64::zero() : room;
  U64F64 high = above_one ? room : U64F64::one();
  const U64F64 two = U64F64::from_integer(2);
  const U64F64 epsilon = U64F64::one().safe_div(U64F64::from_integer(1000));
  U64F64 middle = low.saturating_add(high).safe_div(two);
  for (int round = 0; round < kBisectionRounds; ++round) {
    const U64F64 other = room.safe_div(middle);
    const U64F64 apart =
        other > middle ? other.saturating_sub(middle) : middle.saturating_sub(other);
    if (apart <= epsilon) break;
    (other < middle ? high : low) = middle;
    middle = low.saturating_add(high).safe_div(two);
  }
  return middle;
}

U64F64 power_of(U64F64 base, U64F64 exponent) {
  const I32F32 log = ln(base.convert<I32F32>()).value_or(I32F32::zero());
  if (base == U64F64::zero()) return U64F64::zero();
  const auto raised = exp(exponent.convert<I32F32>().saturating_mul(log));
  return raised.value_or(I32F32::from_integer(kI32Max)).convert<U64F64>();
}

}  // namespace

I64F64 flow_average(I64F64 old, std::int64_t flow) {
  const I64F64 weight = I64F64::from_integer(std::int64_t{29'597'889'189'277})
                            .safe_div(I64F64::from_integer((std::uint64_t{1} << 63) - 1));
  const I64F64 kept = I64F64::one().saturating_sub(weight).saturating_mul(old);
  return kept.saturating_add(weight.saturating_mul(I64F64::from_integer(flow)));
}

void pow_normalise(std::vector<U64F64>& values, U64F64 exponent) {
  U64F64 largest;
  for (const U64F64 value : values) largest = std::max(largest, value);
  const U64F64 scale = U64F64::one().safe_div(largest);
  for (U64F64& value : values) value = value.saturating_mul(scale);

  largest = U64F64::zero();
  for (const U64F64 value : values) largest = std::max(largest, value);
  const U64F64 filled =
      U64F64::from_integer(values.size()).saturating_mul(largest.saturating_mul(largest));
  const U64F64 least =
      U64F64::from_integer(kI32Max).safe_div(U64F64::from_integer(~std::uint64_t{0}));
  if (filled < least) return;
  const U64F64 stretch = stretch_for(values.size());
  U64F64 sum;
  for (U64F64& value : values) {
    value = power_of(value.saturating_mul(stretch), exponent);
    sum = sum.saturating_add(value);
  }
  for (U64F64& value : values) value = value.safe_div(sum);
}

std::vector<U64F64> flow_shares(std::span<const Flow> flows, I64F64 cutoff, U64F64 exponent) {
  I64F64 user_sum;
  I64F64 protocol_sum;
  for (const Flow& flow : flows) {
    user_sum = user_sum.saturating_add(std::max(flow.user, I64F64::zero()));
    protocol_sum = protocol_sum.saturating_add(std::max(flow.protocol, I64F64::zero()));
  }
  const I64F64 factor = std::min(I64F64::one(), user_sum.safe_div(protocol_sum));
  std::vector<I64F64> net;
  I64F64 least;
  for (const Flow& flow : flows) {
    const I64F64 protocol =
        flow.protocol > I64F64::zero() ? factor.saturating_mul(flow.protocol) : flow.protocol;
    net.push_back(flow.user.saturating_sub(protocol));
    least = std::min(least, net.back());
  }
  const I64F64 limit = std::max(cutoff, least);
  std::vector<U64F64> shares;
  for (const I64F64 value : net) {
    shares.push_back(std::max(value.saturating_sub(limit), I64F64::zero()).convert<U64F64>());
  }
  pow_normalise(shares, exponent);
  return shares;
}

}  // namespace yumoe::ledger
