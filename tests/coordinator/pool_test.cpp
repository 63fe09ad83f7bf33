#include "coordinator/pool.hpp"

#include <gtest/gtest.h>

#include "cluster/random.hpp"

namespace yumoe::ledger {
namespace {

constexpr std::uint64_t kHalf = Perquintill::kOne / 2;

// The plain definition of an exact power: r^down * den^up <= num^up * scale^down < (r+1)^down * den^up,
// here for the square root, in 256 bits.
TEST(PowRatio, SquareRootsAreTheGreatestIntegersBelow) {
  Random random(1);
  for (int i = 0; i < 2'000; ++i) {
    const std::uint64_t den = 1 + random.below(1'000'000'000);
    const std::uint64_t num = random.below(den + 1);
    const std::uint64_t scale = 1'000'000'000;
    const UInt128 r = pow_ratio_scaled(num, den, 1, 2, 64, scale);
    EXPECT_LE(r * r * den, UInt128{num} * scale * scale);
    EXPECT_GT((r + 1) * (r + 1) * den, UInt128{num} * scale * scale);
  }
}

TEST(PowRatio, SeriesAgreesWithTheExactRootToTheLastUnit) {
  Random random(2);
  for (int i = 0; i < 200; ++i) {
    const UInt128 den = 1'000'000 + random.below(1'000'000'000'000);
    const UInt128 num = 1 + random.below(static_cast<std::uint64_t>(den));
    const UInt128 exact = pow_ratio_scaled(num, den, 1, 1, 256);
    // The same exponent but for one part in 10^18 takes the series.
    const UInt128 series =
        pow_ratio_scaled(num, den, Perquintill::kOne - 1, Perquintill::kOne, 256);
    EXPECT_GE(series, exact);
    EXPECT_LE(series - exact, 40U);  // |ln ratio| units of the last place
  }
}

TEST(Pool, InjectionKeepsThePrice) {
  Random random(3);
  for (int i = 0; i < 500; ++i) {
    Reserves pool{1'000'000'000 + random.below(1'000'000'000'000),
                  1'000'000'000 + random.below(1'000'000'000'000)};
    const std::uint64_t tao = random.below(1'000'000'000);
    const std::uint64_t alpha = random.below(1'000'000'000);
    const U64F64 before = spot_price(pool);
    const auto weight = weight_after_injection(pool, tao, alpha);
    ASSERT_TRUE(weight);
    pool.quote_weight = *weight;
    pool.tao += tao;
    pool.alpha += alpha;
    const U64F64 after = spot_price(pool);
    const U64F64 apart = before > after ? before - after : after - before;
    EXPECT_LT(apart.bits(), before.bits() / 100'000'000'000'000);
  }
}

TEST(Pool, BuyingAndSellingBackNeverGains) {
  Random random(4);
  for (int i = 0; i < 300; ++i) {
    Reserves pool{1'000'000'000 + random.below(1'000'000'000'000),
                  1'000'000'000 + random.below(1'000'000'000'000),
                  kHalf - kHalf / 4 + random.below(kHalf / 2)};
    const std::uint64_t tao = 1'000 + random.below(pool.tao);
    const auto bought = quote_swap(pool, {Side::buy, tao, kSwapPriceMax, 0, true});
    if (!bought) continue;
    pool.tao += bought->paid_in;
    pool.alpha -= bought->paid_out;
    const auto sold = quote_swap(pool, {Side::sell, bought->paid_out, kSwapPriceMin, 0, true});
    if (!sold) continue;
    EXPECT_LE(sold->paid_out, tao);
  }
}

TEST(Pool, AnOrderStopsAtItsLimitPrice) {
  const Reserves pool{4'000'000'000, 1'000'000'000};
  const auto cut = quote_swap(pool, {Side::buy, 10'000'000'000, 300'000'000, 33});
  ASSERT_TRUE(cut);
  Reserves after = pool;
  after.tao += cut->paid_in;
  after.alpha -= cut->paid_out;
  const U64F64 limit = U64F64::from_literal(0.3);
  const U64F64 price = spot_price(after);
  const U64F64 apart = price > limit ? price - limit : limit - price;
  EXPECT_LT(apart.bits(), limit.bits() / 100'000'000);
  // The fee lies on top of what is filled: in / (65535 - rate), not in / 65535.
  EXPECT_EQ(cut->fee, cut->paid_in * 33 / (65535 - 33));
  EXPECT_NE(cut->fee, cut->paid_in * 33 / 65535);
  EXPECT_EQ(quote_swap(pool, {Side::buy, 1'000'000, 250'000'000, 33}).error(),
            LedgerError::PriceLimitExceeded);
}

TEST(Pool, RefusesInTheChainsOrder) {
  EXPECT_EQ(quote_swap({0, 1'000}, {Side::buy, 1'000'001, 0, 0, true}).error(),
            LedgerError::SwapInputTooLarge);
  EXPECT_EQ(quote_swap({999'999, 1'000}, {Side::buy, 1, 0, 0, true}).error(),
            LedgerError::ReservesTooLow);
  EXPECT_EQ(quote_swap({1'000'000, 1'000'000}, {Side::buy, 1, 0, 0, true}).error(),
            LedgerError::PriceLimitExceeded);
}

TEST(ConstantProduct, KeepsTheBitsOfItsRelease) {
  EXPECT_EQ(constant_product_output(ConstantProduct::spec233, 1'000'000'000, 2'000'000'000, 1), 2U);
  EXPECT_EQ(constant_product_output(ConstantProduct::spec218, 1'000'000'000, 2'000'000'000, 1), 1U);
  EXPECT_EQ(constant_product_output(ConstantProduct::spec233, 1'000, 1'000, 999), std::nullopt);
  EXPECT_EQ(constant_product_output(ConstantProduct::spec218, 1'000, 1'000, 999), 499U);
}

}  // namespace
}  // namespace yumoe::ledger
