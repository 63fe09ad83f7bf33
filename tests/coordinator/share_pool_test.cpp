#include "coordinator/share_pool.hpp"

#include <gtest/gtest.h>

#include "cluster/random.hpp"

namespace yumoe::ledger {
namespace {

AccountId owner(std::uint8_t number) {
  AccountId id{};
  id[0] = number;
  return id;
}

TEST(SafeFloat, StaysBetweenTenToTheTwentyAndTenToTheTwentyOne) {
  Random random(1);
  UInt128 least = 1;
  for (int i = 0; i < 20; ++i) least *= 10;
  SafeFloat value = SafeFloat::of(1);
  for (int i = 0; i < 5'000; ++i) {
    const SafeFloat other =
        SafeFloat::normalised(1 + random(), static_cast<std::int64_t>(random.below(40)) - 20);
    value = random.below(2) == 0 ? add(value, other)
                                 : *multiply_divide(value, other, SafeFloat::of(1 + random()));
    ASSERT_GT(value.mantissa, least);
    ASSERT_LE(value.mantissa, least * 10);
  }
}

TEST(SafeFloat, ANumberTwentyTwoDigitsSmallerAddsNothing) {
  const SafeFloat large = SafeFloat::normalised(5, 22);
  EXPECT_EQ(add(large, SafeFloat::of(1)), large);
  EXPECT_NE(add(SafeFloat::normalised(5, 20), SafeFloat::of(1)), SafeFloat::normalised(5, 20));
}

TEST(SharePool, ADividendReachesEverybodyInProportion) {
  SharePool pool;
  ASSERT_TRUE(pool.deposit(owner(1), 3'000));
  ASSERT_TRUE(pool.deposit(owner(2), 1'000));
  pool.deposit_for_all(400);
  EXPECT_EQ(pool.value_of(owner(1)), 3'300U);
  EXPECT_EQ(pool.value_of(owner(2)), 1'100U);
  EXPECT_EQ(pool.total(), 4'400U);
}

TEST(SharePool, PartsNeverSumToMoreThanTheWhole) {
  for (const ShareForm form : {ShareForm::decimal, ShareForm::fixed}) {
    Random random(2);
    SharePool pool(form);
    for (int i = 0; i < 20'000; ++i) {
      const AccountId who = owner(static_cast<std::uint8_t>(random.below(6)));
      const std::uint64_t held = pool.value_of(who);
      switch (random.below(4)) {
        case 0: pool.deposit_for_all(pool.total() == 0 ? 0 : random.below(1'000'000)); break;
        case 1: ASSERT_TRUE(pool.withdraw(who, random.below(held + 1))); break;
        default: ASSERT_TRUE(pool.deposit(who, 1'000'000 + random.below(1'000'000'000)));
      }
      ASSERT_FALSE(pool.withdraw(who, pool.value_of(who) + 1));
      UInt128 sum = 0;
      for (const auto& [name, share] : pool.shares()) sum += pool.value_of(name);
      ASSERT_LE(sum, pool.total() + pool.shares().size());
    }
  }
}

TEST(SharePool, ADepositWorthNoShareIsRefused) {
  SharePool pool = SharePool::restored(1'000'000, SafeFloat::normalised(1, -400), {});
  const SharePool before = pool;
  EXPECT_TRUE(pool.deposit(owner(1), 1));  // shares are floating: a small one is not none
  pool = SharePool::restored(~std::uint64_t{0}, SafeFloat::of(1), {});
  EXPECT_FALSE(pool.deposit(owner(1), 1));  // the total would not fit
}

}  // namespace
}  // namespace yumoe::ledger
