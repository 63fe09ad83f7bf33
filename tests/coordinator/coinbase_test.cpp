#include "coordinator/coinbase.hpp"

#include <gtest/gtest.h>

#include <array>

namespace yumoe::ledger {
namespace {

constexpr std::uint64_t kHalf = ~std::uint64_t{0} / 2;

TEST(Coinbase, AHotkeysOwnContributionIsFlooredItsParentsAreNot) {
  // Half of 1 alpha is lent away: the rest is floored to 0, so that the parent's half earns all.
  const std::array<std::uint64_t, 1> children = {kHalf};
  const std::array<ParentShare, 1> parents = {ParentShare{kHalf, {1, 0}, false}};
  const ParentDividends parts = divide_among_parents(
      1'000, {1, 0}, children, parents, U96F32::zero(), U96F32::zero(), U96F32::zero());
  EXPECT_EQ(parts.parents.front(), 1'000U);
  EXPECT_EQ(parts.own, 0U);
}

TEST(Coinbase, AParentOfTheSameOwnerPaysNoTake) {
  const std::array<ParentShare, 1> stranger = {ParentShare{kHalf, {2'000, 0}, false}};
  const std::array<ParentShare, 1> kin = {ParentShare{kHalf, {2'000, 0}, true}};
  const U96F32 tenth = U96F32::one().safe_div(U96F32::from_integer(10));
  const auto paid = [&](const auto& parents) {
    return divide_among_parents(1'000, {1'000, 0}, {}, parents, U96F32::zero(), tenth, tenth);
  };
  EXPECT_EQ(paid(kin).parents.front(), 499U);
  EXPECT_EQ(paid(kin).burned, 0U);
  EXPECT_LT(paid(stranger).parents.front(), 402U);
  EXPECT_EQ(paid(stranger).burned, 49U);
}

TEST(Coinbase, DisabledSubnetsLeaveTheirShareToTheOthers) {
  const std::array<ShareInput, 3> inputs = {ShareInput{I96F32::one(), {}, true},
                                            ShareInput{I96F32::one(), {}, false},
                                            ShareInput{I96F32::from_integer(2), {}, true}};
  const auto shares = emission_shares(inputs, true);
  EXPECT_EQ(shares[1], U64F64::zero());
  EXPECT_EQ(shares[0], U64F64::one().safe_div(U64F64::from_integer(3)));
}

}  // namespace
}  // namespace yumoe::ledger
