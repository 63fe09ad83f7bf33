#include "coordinator/pool.hpp"

#include <algorithm>

namespace yumoe::ledger {
namespace {

constexpr std::uint64_t kU64Max = ~std::uint64_t{0};
constexpr std::uint64_t kOne = Perquintill::kOne;
constexpr unsigned kSwapPrecision = 256;
constexpr unsigned kLimitPrecision = 1024;
constexpr std::uint64_t kConstantProductReserveMin = 10'000'000;  // rao, spec 233
constexpr UInt128 kU128Max = ~UInt128{0};

std::uint64_t base_weight(const Reserves& reserves) { return kOne - reserves.quote_weight; }

std::uint64_t saturating_add(std::uint64_t a, std::uint64_t b) {
  return a > kU64Max - b ? kU64Max : a + b;
}
std::uint64_t saturating_sub(std::uint64_t a, std::uint64_t b) { return a > b ? a - b : 0; }

UInt128 saturating_product(UInt128 a, UInt128 b) {
  const Wide exact = wide_product(a, b);
  return exact.high != 0 ? kU128Max : exact.low;
}

Reserves after_swap(Reserves reserves, Side side, std::uint64_t in, std::uint64_t out) {
  if (side == Side::buy) {
    reserves.tao = saturating_add(reserves.tao, in);
    reserves.alpha = saturating_sub(reserves.alpha, out);
  } else {
    reserves.alpha = saturating_add(reserves.alpha, in);
    reserves.tao = saturating_sub(reserves.tao, out);
  }
  return reserves;
}

std::uint64_t fee_of(std::uint64_t amount, std::uint32_t parts, std::uint32_t whole) {
  const U64F64 rate = U64F64::from_integer(parts).safe_div(U64F64::from_integer(whole));
  return U64F64::from_integer(amount).saturating_mul(rate).to_u64();
}

bool not_farther(Side side, U64F64 price, U64F64 limit) {
  return side == Side::buy ? price <= limit : price >= limit;
}

}  // namespace

UInt128 multiply_perquintill(std::uint64_t parts, UInt128 value) {
  Wide product = wide_product(value, parts);
  const UInt128 half = kOne / 2;
  product.low += half;
  if (product.low < half) product.high += 1;
  const auto quotient = wide_divide(product, kOne);
  return quotient ? quotient->quotient : kU128Max;
}

U64F64 spot_price(const Reserves& reserves) {
  if (reserves.alpha == 0) return U64F64::zero();
  const U64F64 weights = U64F64::from_integer(base_weight(reserves))
                             .safe_div(U64F64::from_integer(reserves.quote_weight));
  const U64F64 amounts =
      U64F64::from_integer(reserves.tao).safe_div(U64F64::from_integer(reserves.alpha));
  return weights.saturating_mul(amounts);
}

U64F64 remaining_share(const Reserves& reserves, Side side, std::uint64_t amount) {
  const bool buy = side == Side::buy;
  const UInt128 before = buy ? reserves.tao : reserves.alpha;
  const UInt128 after = before + amount;
  if (after == 0) return U64F64::one();
  const std::uint64_t up = buy ? reserves.quote_weight : base_weight(reserves);
  const std::uint64_t down = kOne - up;
  const U64F64 scaled =
      U64F64::from_integer(pow_ratio_scaled(before, after, up, down, kSwapPrecision));
  return std::min(scaled.safe_div(U64F64::from_integer(kOne)), U64F64::one());
}

U64F64 unrounded_output(const Reserves& reserves, Side side, std::uint64_t net) {
  const std::uint64_t reserve = side == Side::buy ? reserves.alpha : reserves.tao;
  const U64F64 leaving = U64F64::one().saturating_sub(remaining_share(reserves, side, net));
  return U64F64::from_integer(reserve).saturating_mul(leaving);
}

std::uint64_t output_of(const Reserves& reserves, Side side, std::uint64_t net) {
  return unrounded_output(reserves, side, net).to_u64();
}

std::uint64_t input_to_price(const Reserves& reserves, Side side, U64F64 from, U64F64 to) {
  const bool buy = side == Side::buy;
  const UInt128 num = buy ? to.bits() : from.bits();
  const UInt128 den = buy ? from.bits() : to.bits();
  const std::uint64_t weight = buy ? base_weight(reserves) : reserves.quote_weight;
  const UInt128 power =
      den == 0 ? UInt128{kU64Max} : pow_ratio_scaled(num, den, weight, kOne, kLimitPrecision);
  const U64F64 ratio =
      U64F64::from_integer(std::min<UInt128>(power, kU64Max)).safe_div(U64F64::from_integer(kOne));
  const U64F64 growth = ratio.saturating_sub(U64F64::one());
  return U64F64::from_integer(buy ? reserves.tao : reserves.alpha).saturating_mul(growth).to_u64();
}

std::optional<std::uint64_t> weight_after_injection(const Reserves& reserves, std::uint64_t tao,
                                                    std::uint64_t alpha) {
  const UInt128 x = reserves.alpha;
  const UInt128 y = reserves.tao;
  const UInt128 q1 = multiply_perquintill(base_weight(reserves), saturating_product(y, x + alpha));
  const UInt128 q2 = multiply_perquintill(reserves.quote_weight, saturating_product(x, y + tao));
  const UInt128 sum = q1 > kU128Max - q2 ? kU128Max : q1 + q2;
  const std::uint64_t weight = sum == 0 ? kOne / 2 : Perquintill::from_rational(q2, sum).parts;
  if (weight < kPoolWeightMin || weight > kOne - kPoolWeightMin) return std::nullopt;
  return weight;
}

std::optional<std::uint64_t> weight_for_price(const Reserves& reserves, U64F64 price) {
  // price = (w1/w2)(y/x), hence w2 = y / (y + floor(price*x)).
  const UInt128 weighed = price.saturating_mul(U64F64::from_integer(reserves.alpha)).to_u64();
  const UInt128 sum = weighed + reserves.tao;
  const std::uint64_t weight =
      sum == 0 ? kOne / 2 : Perquintill::from_rational(reserves.tao, sum).parts;
  if (weight < kPoolWeightMin || weight > kOne - kPoolWeightMin) return std::nullopt;
  return weight;
}

Outcome<SwapResult> quote_swap(const Reserves& reserves, const SwapOrder& order) {
  const bool buy = order.side == Side::buy;
  const std::uint64_t reserve_in = buy ? reserves.tao : reserves.alpha;
  const std::uint64_t reserve_out = buy ? reserves.alpha : reserves.tao;
  std::uint64_t fee = order.drop_fees ? 0 : fee_of(order.amount, order.fee_rate, 65535);
  const std::uint64_t net = saturating_sub(order.amount, fee);

  if (net > saturating_product(kSwapInputFactorMax, reserve_in)) {
    return LedgerError::SwapInputTooLarge;
  }
  if (reserve_out < order.reserve_min) return LedgerError::ReservesTooLow;
  const U64F64 limit =
      U64F64::from_integer(order.limit_price).safe_div(U64F64::from_integer(1'000'000'000));
  const U64F64 price = spot_price(reserves);
  if (buy ? price >= limit : price <= limit) return LedgerError::PriceLimitExceeded;

  std::uint64_t in = net;
  std::uint64_t out = output_of(reserves, order.side, net);
  const U64F64 target = spot_price(after_swap(reserves, order.side, net, out));
  if (!not_farther(order.side, target, limit)) {
    in = input_to_price(reserves, order.side, price, limit);
    out = output_of(reserves, order.side, in);
    fee = order.drop_fees ? 0 : fee_of(in, order.fee_rate, 65535U - order.fee_rate);
  }
  if (in > 0 && out == 0) return LedgerError::ReservesTooLow;
  if (out > reserve_out) return LedgerError::InsufficientLiquidity;
  return SwapResult{in, out, fee};
}

template <typename F>
static std::uint64_t product_output(std::uint64_t reserve_in, std::uint64_t reserve_out,
                                    std::uint64_t amount) {
  const F in = F::from_integer(reserve_in);
  const F out = F::from_integer(reserve_out);
  const F left = in.saturating_mul(out).safe_div(in.saturating_add(F::from_integer(amount)));
  return out.saturating_sub(left).to_u64();
}

std::optional<std::uint64_t> constant_product_output(ConstantProduct rule, std::uint64_t reserve_in,
                                                     std::uint64_t reserve_out,
                                                     std::uint64_t amount) {
  if (rule == ConstantProduct::spec218) {
    return product_output<I96F32>(reserve_in, reserve_out, amount);
  }
  const std::uint64_t paid = product_output<I110F18>(reserve_in, reserve_out, amount);
  if (saturating_sub(reserve_out, paid) < kConstantProductReserveMin) return std::nullopt;
  return paid;
}

}  // namespace yumoe::ledger
