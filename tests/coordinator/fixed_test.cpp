// What the chain's numbers promise: floor, truncation, clamps, and the series of exp and log2.

#include "coordinator/fixed.hpp"

#include <gtest/gtest.h>

#include <boost/multiprecision/cpp_int.hpp>
#include <random>

namespace yumoe::ledger {
namespace {

using boost::multiprecision::cpp_int;

cpp_int big(UInt128 x) {
  return (cpp_int(static_cast<std::uint64_t>(x >> 64)) << 64) + static_cast<std::uint64_t>(x);
}
cpp_int big(Int128 x) {
  return x < 0 ? cpp_int(-big(UInt128{0} - static_cast<UInt128>(x))) : big(static_cast<UInt128>(x));
}
cpp_int big(std::int64_t x) { return cpp_int(x); }
cpp_int big(std::int32_t x) { return cpp_int(x); }

cpp_int floor_shift(const cpp_int& x, int bits) {
  cpp_int q = x / (cpp_int(1) << bits);  // truncated
  if (x < 0 && q * (cpp_int(1) << bits) != x) --q;
  return q;
}

// Numbers of every size, so that carries, clamps and short divisors are met.
UInt128 any_bits(std::mt19937_64& random) {
  const UInt128 full = (static_cast<UInt128>(random()) << 64) | random();
  const UInt128 cut = full >> (random() % 128);
  switch (random() % 8) {
    case 0: return ~cut;
    case 1: return UInt128{0} - (random() % 4);
    case 2: return UInt128{1} << (random() % 128);
    default: return cut;
  }
}

template <typename F>
class FixedNumbers : public ::testing::Test {};
using Kinds = ::testing::Types<I32F32, I64F64, U64F64, I96F32, U96F32, I110F18, I9F23>;
TYPED_TEST_SUITE(FixedNumbers, Kinds);

TYPED_TEST(FixedNumbers, AgreeWithUnboundedIntegersInEveryOperation) {
  using F = TypeParam;
  using Raw = typename F::Bits;
  std::mt19937_64 random(7);
  const cpp_int high = big(F::max().bits());
  const cpp_int low = big(F::min().bits());
  const auto clamp = [&](const cpp_int& x) { return x > high ? high : (x < low ? low : x); };
  const auto fits = [&](const cpp_int& x) { return x <= high && x >= low; };
  for (int i = 0; i < 20000; ++i) {
    const auto a = F::from_bits(static_cast<Raw>(any_bits(random)));
    const auto b = F::from_bits(static_cast<Raw>(any_bits(random)));
    const cpp_int x = big(a.bits());
    const cpp_int y = big(b.bits());
    ASSERT_EQ(big(a.saturating_add(b).bits()), clamp(x + y));
    ASSERT_EQ(big(a.saturating_sub(b).bits()), clamp(x - y));
    ASSERT_EQ(a.checked_add(b).has_value(), fits(x + y));
    ASSERT_EQ(a.checked_sub(b).has_value(), fits(x - y));
    const cpp_int product = floor_shift(x * y, F::kFraction);
    ASSERT_EQ(big(a.saturating_mul(b).bits()), clamp(product));
    ASSERT_EQ(a.checked_mul(b).has_value(), fits(product));
    if (y != 0) {
      const cpp_int quotient = (x << F::kFraction) / y;
      ASSERT_EQ(big(a.saturating_div(b).bits()), clamp(quotient));
      ASSERT_EQ(big(a.safe_div(b).bits()), fits(quotient) ? quotient : cpp_int(0));
    }
    const cpp_int whole = floor_shift(x, F::kFraction);
    const cpp_int top = (cpp_int(1) << 64) - 1;
    ASSERT_EQ(cpp_int(a.to_u64()), whole < 0 ? cpp_int(0) : (whole > top ? top : whole));
    const cpp_int half = cpp_int(1) << (F::kFraction - 1);
    const cpp_int nearest =
        x < 0 ? cpp_int(-(((-x) + half) >> F::kFraction)) : cpp_int((x + half) >> F::kFraction);
    ASSERT_EQ(big(a.round().bits()), clamp(nearest << F::kFraction));
    const auto narrow = a.template convert<I32F32>();
    cpp_int cut = F::kFraction >= 32
                      ? floor_shift(x, F::kFraction - 32)
                      : cpp_int(x << (32 - F::kFraction < 0 ? 0 : 32 - F::kFraction));
    const cpp_int i64_high = (cpp_int(1) << 63) - 1;
    const cpp_int i64_low = -(cpp_int(1) << 63);
    cut = cut > i64_high ? i64_high : (cut < i64_low ? i64_low : cut);
    ASSERT_EQ(cpp_int(narrow.bits()), cut);
  }
}

TEST(WideDivision, IsExactAndRefusesQuotientsOver128Bits) {
  std::mt19937_64 random(11);
  for (int i = 0; i < 100000; ++i) {
    const Wide n{any_bits(random) >> (random() % 128), any_bits(random)};
    const UInt128 d = any_bits(random);
    const auto q = wide_divide(n, d);
    if (d == 0) {
      ASSERT_FALSE(q);
      continue;
    }
    const cpp_int exact = ((big(n.high) << 128) + big(n.low)) / big(d);
    ASSERT_EQ(q.has_value(), exact < (cpp_int(1) << 128));
    if (q) {
      ASSERT_EQ(big(q->quotient), exact);
      ASSERT_EQ(big(q->quotient) * big(d) + big(q->remainder), (big(n.high) << 128) + big(n.low));
    }
  }
}

TEST(Fixed, LiteralsRoundToTheNearestAndTiesToEven) {
  EXPECT_EQ(I32F32::from_literal(0.5).bits(), std::int64_t{1} << 31);
  EXPECT_EQ(I32F32::from_literal(-0.5).bits(), -(std::int64_t{1} << 31));
  EXPECT_EQ(I32F32::from_literal(0.1).bits(), 429496730);
  EXPECT_EQ(I9F23::from_literal(1.5 / (1 << 23)).bits(), 2);
  EXPECT_EQ(I9F23::from_literal(2.5 / (1 << 23)).bits(), 2);
  EXPECT_EQ(I96F32::from_literal(0.000003).bits(), 12885);
  EXPECT_EQ(I32F32::from_literal(1e300), I32F32::max());
  EXPECT_EQ(I32F32::from_literal(1e-300), I32F32::zero());
}

TEST(Fixed, AShareOfU64HasThirtyTwoFractionBitsAndReachesOneExactly) {
  EXPECT_EQ(share_of_u64(~std::uint64_t{0}), U96F32::one());
  EXPECT_EQ(static_cast<std::uint64_t>(share_of_u64(971718665099567868ULL).bits()), 226245882u);
}

TEST(Fixed, ExpOfOneIsTheConstantButOfMinusOneTheSeries) {
  EXPECT_EQ(exp(I32F32::one())->bits(), 11674931200);
  EXPECT_EQ(exp(-I32F32::one())->bits(), 1580030169);
  EXPECT_EQ(exp_safe(I32F32::min()).bits(), 8);
}

TEST(Fixed, ExpAndLogarithmOfEveryKindEndForExtremeInputs) {
  EXPECT_EQ(exp(I64F64::from_integer(60)).has_value(), false);
  EXPECT_TRUE(exp(I64F64::from_integer(-40)).has_value());
  EXPECT_FALSE(ln(I32F32::zero()).has_value());
  EXPECT_EQ(ln(I32F32::from_bits(1))->bits(), -95265424369);
  EXPECT_TRUE(log2(I96F32::max()).has_value());
}

TEST(Perquintill, IsTheExactFloorAndNeverMoreThanOne) {
  EXPECT_EQ(Perquintill::from_rational(1, 3).parts, 333333333333333333u);
  EXPECT_EQ(Perquintill::from_rational(~UInt128{0} - 1, ~UInt128{0}).parts, 999999999999999999u);
  EXPECT_EQ(Perquintill::from_rational(5, 4).parts, Perquintill::kOne);
  EXPECT_EQ(Perquintill::from_rational(0, 0).parts, Perquintill::kOne);
}

}  // namespace
}  // namespace yumoe::ledger
