#include "coordinator/ledger.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "coordinator/random_world.hpp"

namespace yumoe::ledger {
namespace {

using testing::HasSubstr;

AccountId cold(std::uint64_t i) { return account_of('c', i); }
AccountId hot(std::uint64_t i) { return account_of('h', i); }

std::string answer(Ledger& ledger, const Operation& operation) {
  const auto outcome = ledger.apply(operation);
  return outcome ? "done" : std::string(name_of(outcome.error()));
}

// Two funded owners, one started subnet with a validator and two miners; weights are set.
Ledger small_world() {
  LedgerOptions options;
  options.tempo = 10;
  options.weights_set_rate_limit = 0;
  options.network_lock = 1000 * static_cast<std::int64_t>(kTao);
  options.network_rate_limit = 5;
  options.immunity_period = 0;
  Ledger ledger(options);
  for (std::uint64_t i = 0; i < 4; ++i)
    EXPECT_EQ(answer(ledger, Fund{cold(i), 100'000 * kTao}), "done");
  EXPECT_EQ(answer(ledger, RegisterNetwork{cold(0), hot(0), 1}), "done");
  EXPECT_EQ(answer(ledger, StartCall{cold(0), 1}), "done");
  for (std::uint64_t i = 1; i < 4; ++i)
    EXPECT_EQ(answer(ledger, Register{cold(i), hot(i), 1, {}}), "done");
  EXPECT_EQ(answer(ledger, AddStake{cold(1), hot(1), 1, 500 * kTao, {}}), "done");
  for (int block = 0; block < 11; ++block) ledger.step_block();
  EXPECT_EQ(answer(ledger, SetWeights{hot(1), 1, 0, {2, 3}, {40'000, 20'000}, 0}), "done");
  return ledger;
}

TEST(Ledger, PaysMinersByWeightAndTheValidatorBesideThem) {
  Ledger ledger = small_world();
  EpochReport paid;
  for (int block = 0; block < 11; ++block) {
    for (const EpochReport& epoch : ledger.step_block().epochs) paid = epoch;
  }
  ASSERT_EQ(paid.payouts.size(), 4U);
  EXPECT_GT(paid.payouts[2].incentive, paid.payouts[3].incentive);
  EXPECT_GT(paid.payouts[3].incentive, 0U);
  EXPECT_GT(paid.payouts[1].dividend_alpha, 0U);
  EXPECT_GT(paid.owner_cut, 0U);
  // The miners' alpha has really arrived.
  const Subnet& subnet = ledger.state().subnets.at(1);
  EXPECT_GE(subnet.stakes.at(hot(2)).value_of(cold(2)), paid.payouts[2].incentive);
}

TEST(Ledger, PreviewTellsWhatTheNextEpochPaysAndChangesNothing) {
  Ledger ledger = small_world();
  std::vector<EpochReport> epochs;
  EpochReport foretold;
  while (epochs.empty()) {
    const Digest before = ledger.digest();
    foretold = ledger.preview(1);
    ASSERT_EQ(ledger.digest(), before);
    epochs = ledger.step_block().epochs;
  }
  ASSERT_EQ(epochs.front().payouts.size(), foretold.payouts.size());
  for (std::size_t uid = 0; uid < foretold.payouts.size(); ++uid) {
    EXPECT_EQ(foretold.payouts[uid].incentive, epochs.front().payouts[uid].incentive);
    EXPECT_EQ(foretold.payouts[uid].dividend_alpha, epochs.front().payouts[uid].dividend_alpha);
    EXPECT_EQ(foretold.payouts[uid].take, epochs.front().payouts[uid].take);
  }
}

TEST(Ledger, PreviewWithOtherWeightsMovesTheIncentive) {
  Ledger ledger = small_world();
  for (int block = 0; block < 5; ++block) ledger.step_block();
  const EpochReport as_is = ledger.preview(1);
  const EpochReport other =
      ledger.preview(1, {SetWeights{hot(1), 1, 0, {2, 3}, {20'000, 40'000}, 0}});
  EXPECT_GT(as_is.payouts[2].incentive, other.payouts[2].incentive);
  EXPECT_LT(as_is.payouts[3].incentive, other.payouts[3].incentive);
}

TEST(Ledger, OneMissingRaoOrAlphaAnywhereIsNamed) {
  const Ledger ledger = small_world();
  const auto fault = [&](auto change) -> std::string {
    LedgerState state = ledger.state();
    change(state);
    try {
      Ledger::from_state(std::move(state));
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::invariant_broken);
      return error.what();
    }
    return "nothing was noticed";
  };
  EXPECT_THAT(fault([](LedgerState& s) { s.coldkeys.at(cold(2)).free += 1; }), HasSubstr("TAO"));
  EXPECT_THAT(fault([](LedgerState& s) { s.issuance -= 1; }), HasSubstr("TAO"));
  EXPECT_THAT(fault([](LedgerState& s) { s.burned += 1; }), HasSubstr("TAO"));
  EXPECT_THAT(fault([](LedgerState& s) { s.subnets.at(1).reserves.tao -= 1; }), HasSubstr("TAO"));
  EXPECT_THAT(fault([](LedgerState& s) { s.subnets.at(1).alpha_out += 1; }),
              HasSubstr("alpha_out"));
  EXPECT_THAT(fault([](LedgerState& s) { s.subnets.at(1).pending.server += 1; }),
              HasSubstr("alpha_out"));
  EXPECT_THAT(fault([](LedgerState& s) { s.subnets.at(1).protocol_alpha += 1; }),
              HasSubstr("alpha_out"));
  EXPECT_THAT(fault([](LedgerState& s) { s.subnets.at(1).stakes.at(hot(1)).deposit_for_all(1); }),
              HasSubstr("alpha_out"));
  EXPECT_THAT(fault([](LedgerState& s) { s.subnets.at(1).mechanisms[0].weights.pop_back(); }),
              HasSubstr("mechanism"));
  EXPECT_THAT(fault([](LedgerState& s) { s.subnets.at(1).uids.erase(hot(3)); }), HasSubstr("uids"));
}

TEST(Ledger, SnapshotsSurviveAndDamagedOnesAreRefused) {
  Ledger ledger = small_world();
  const Bytes bytes = ledger.snapshot();
  Ledger again = Ledger::restore(bytes);
  for (int block = 0; block < 30; ++block) {
    ledger.step_block();
    again.step_block();
  }
  EXPECT_EQ(again.digest(), ledger.digest());

  Random random(5);
  for (int i = 0; i < 200; ++i) {
    Bytes broken = bytes;
    broken[random.below(broken.size())] ^= static_cast<std::uint8_t>(1 + random.below(255));
    EXPECT_THROW(Ledger::restore(broken), Error);
    broken = bytes;
    broken.resize(random.below(bytes.size()));
    EXPECT_THROW(Ledger::restore(broken), Error);
  }
}

TEST(Ledger, BytesWithARightDigestButWrongContentAreRefused) {
  const Bytes bytes = small_world().snapshot();
  Random random(6);
  int refused = 0;
  for (int i = 0; i < 300; ++i) {
    Bytes broken(bytes.begin(), bytes.end() - 32);
    broken[4 + random.below(broken.size() - 4)] ^= static_cast<std::uint8_t>(1 + random.below(255));
    const Digest digest = digest_of(broken);
    broken.insert(broken.end(), digest.bytes.begin(), digest.bytes.end());
    try {
      Ledger::restore(broken).audit();  // a change of a harmless field is a state like any other
    } catch (const Error&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, 100);
}

TEST(Ledger, AddStakeRefusesInTheChainsOrder) {
  Ledger ledger = small_world();
  const std::uint64_t much = 1'000'000'000 * kTao;
  EXPECT_EQ(answer(ledger, AddStake{cold(1), hot(77), 1, 2'000'000 * kTao, {}}),
            "InsufficientLiquidity");
  EXPECT_EQ(answer(ledger, AddStake{cold(1), hot(77), 9, much, {}}), "SubnetNotExists");
  ASSERT_EQ(answer(ledger, RegisterNetwork{cold(3), hot(30), 1}), "done");
  EXPECT_EQ(answer(ledger, AddStake{cold(9), hot(77), 2, 1, {}}), "SubtokenDisabled");
  EXPECT_EQ(answer(ledger, AddStake{cold(9), hot(77), 1, 2'000'000, {}}), "AmountTooLow");
  EXPECT_EQ(answer(ledger, AddStake{cold(9), hot(77), 1, kTao, Limit{1, false}}),
            "PriceLimitExceeded");
  EXPECT_EQ(answer(ledger, AddStake{cold(9), hot(77), 1, kTao, {}}), "NotEnoughBalanceToStake");
  EXPECT_EQ(answer(ledger, AddStake{cold(1), hot(77), 1, kTao, {}}), "HotKeyAccountNotExists");
  EXPECT_EQ(answer(ledger, AddStake{cold(1), hot(1), 1, kTao, {}}), "done");
}

TEST(Ledger, RegistrationRefusesInTheChainsOrder) {
  Ledger ledger = small_world();
  EXPECT_EQ(answer(ledger, Register{cold(9), hot(1), 8, 0}), "SubnetNotExists");
  EXPECT_EQ(answer(ledger, Register{cold(9), hot(1), 1, 0}), "RegistrationPriceLimitExceeded");
  EXPECT_EQ(answer(ledger, Register{cold(9), hot(1), 1, {}}), "HotKeyAlreadyRegisteredInSubNet");
  EXPECT_EQ(answer(ledger, Register{cold(9), hot(50), 1, {}}), "NotEnoughBalanceToStake");
  EXPECT_EQ(answer(ledger, Register{cold(1), AccountId{}, 1, {}}), "CannotUseSystemAccount");
  ASSERT_EQ(answer(ledger, RegisterNetwork{cold(2), hot(40), 1}), "done");
  EXPECT_EQ(answer(ledger, Register{cold(1), hot(40), 1, {}}), "NonAssociatedColdKey");
  EXPECT_EQ(answer(ledger, Register{cold(1), hot(50), 1, {}}), "done");
}

TEST(Ledger, NetworksRefuseInTheChainsOrder) {
  Ledger ledger = small_world();
  EXPECT_EQ(answer(ledger, RegisterNetwork{cold(1), hot(2), 0}), "NonAssociatedColdKey");
  EXPECT_EQ(answer(ledger, RegisterNetwork{cold(1), AccountId{}, 0}), "CannotUseSystemAccount");
  EXPECT_EQ(answer(ledger, RegisterNetwork{cold(1), hot(60), 0}), "MechanismDoesNotExist");
  ASSERT_EQ(answer(ledger, RegisterNetwork{cold(1), hot(60), 1}), "done");
  EXPECT_EQ(answer(ledger, RegisterNetwork{cold(1), hot(61), 1}), "NetworkTxRateLimitExceeded");
  ledger.override_parameter(std::nullopt, "network_rate_limit", 0);
  ledger.override_parameter(std::nullopt, "subnet_limit", 2);
  EXPECT_EQ(answer(ledger, RegisterNetwork{cold(9), hot(62), 1}), "SubnetLimitReached");
  ledger.override_parameter(std::nullopt, "network_immunity_period", 0);
  EXPECT_EQ(answer(ledger, RegisterNetwork{cold(9), hot(62), 1}), "CannotAffordLockCost");
}

TEST(Ledger, AFullNetworkGivesUpItsCheapestSubnetAndPaysItsHolders) {
  Ledger ledger = small_world();
  ASSERT_EQ(answer(ledger, RegisterNetwork{cold(3), hot(30), 1}), "done");
  ledger.override_parameter(std::nullopt, "network_rate_limit", 0);
  ledger.override_parameter(std::nullopt, "subnet_limit", 2);
  ledger.override_parameter(std::nullopt, "network_immunity_period", 0);
  // Subnet 2 never started: its moving price is 0, and all its alpha lies in its own pool. After a
  // few blocks subnet 1's is too, and the older one would go; so it is given a price.
  LedgerState state = ledger.state();
  state.subnets.at(1).moving_price = I96F32::one();
  ledger = Ledger::from_state(std::move(state), ledger.new_subnet_parameters());
  const std::uint64_t issued = ledger.state().issuance;
  const std::uint64_t tao = ledger.state().subnets.at(2).reserves.tao;
  ASSERT_EQ(answer(ledger, RegisterNetwork{cold(2), hot(31), 1}), "done");
  EXPECT_EQ(ledger.state().issuance, issued - tao);
  EXPECT_EQ(ledger.state().subnets.at(2).owner_coldkey, cold(2));
  ledger.audit();
}

TEST(Ledger, ParametersChangeByTheOwnerOrByProposalAlone) {
  Ledger ledger = small_world();
  EXPECT_EQ(answer(ledger, SetHyperparameter{cold(1), 1, "kappa", 30'000}), "NotSubnetOwner");
  EXPECT_EQ(answer(ledger, SetHyperparameter{cold(0), 1, "emission_enabled", 0}), "InvalidValue");
  EXPECT_EQ(answer(ledger, SetHyperparameter{cold(0), 1, "kappa", 70'000}), "InvalidValue");
  ledger.override_parameter(std::nullopt, "freeze_window", 0);
  EXPECT_EQ(answer(ledger, SetHyperparameter{cold(0), 1, "kappa", 30'000}), "done");
  EXPECT_EQ(answer(ledger, SetHyperparameter{cold(0), 1, "kappa", 30'001}), "TxRateLimitExceeded");

  EXPECT_EQ(answer(ledger, Propose{cold(2), "owner_cut", 100}), "StakeTooLowForRoot");
  ASSERT_EQ(answer(ledger, AddStake{cold(2), hot(2), 0, 10 * kTao, {}}), "done");
  ASSERT_EQ(answer(ledger, AddStake{cold(3), hot(3), 0, 30 * kTao, {}}), "done");
  ledger.override_parameter(std::nullopt, "proposal_delay", 20);
  ASSERT_EQ(answer(ledger, Propose{cold(2), "owner_cut", 100}), "done");
  ASSERT_EQ(answer(ledger, Propose{cold(3), "childkey_burn", 5}), "done");
  ASSERT_EQ(answer(ledger, Vote{cold(3), 1, false}), "done");
  for (int block = 0; block < 20; ++block) ledger.step_block();
  EXPECT_EQ(ledger.state().parameters.owner_cut, 11796);  // 30 against 10
  EXPECT_EQ(ledger.state().parameters.childkey_burn, 5U);
  EXPECT_TRUE(ledger.state().proposals.empty());
}

TEST(Ledger, RootStakersAreOwedAlphaAndClaimIt) {
  Ledger ledger = small_world();
  ASSERT_EQ(answer(ledger, AddStake{cold(2), hot(1), 0, 20'000 * kTao, {}}), "done");
  ASSERT_EQ(answer(ledger, SetClaimKind{cold(2), ClaimKind::keep, {}}), "done");
  ledger.override_parameter(std::nullopt, "root_claims_per_block", 0);
  ledger.override_parameter(1, "root_claim_threshold", 1);
  // Root alpha is paid only while the prices sum to more than 1.
  LedgerState state = ledger.state();
  state.subnets.at(1).moving_price = I96F32::from_integer(2);
  ledger = Ledger::from_state(std::move(state), ledger.new_subnet_parameters());
  for (int block = 0; block < 25; ++block) ledger.step_block();
  const std::int64_t owed = ledger.state().subnets.at(1).alpha_root_owed;
  ASSERT_GT(owed, 0);
  const std::uint64_t before = ledger.state().subnets.at(1).stakes.at(hot(1)).value_of(cold(2));
  ASSERT_EQ(answer(ledger, ClaimRoot{cold(2), {1}}), "done");
  const Subnet& subnet = ledger.state().subnets.at(1);
  EXPECT_GT(subnet.stakes.at(hot(1)).value_of(cold(2)), before);
  EXPECT_LT(subnet.alpha_root_owed, owed);
  const Digest once = ledger.digest();
  ASSERT_EQ(answer(ledger, ClaimRoot{cold(2), {1}}), "done");
  EXPECT_EQ(ledger.digest(), once);  // nothing is owed twice
}

TEST(Ledger, RootAlphaIsKeptOnlyWhenPricesSumToMoreThanOne) {
  const auto pending_root = [](I96F32 price) {
    Ledger ledger = small_world();
    EXPECT_EQ(answer(ledger, AddStake{cold(2), hot(1), 0, 20'000 * kTao, {}}), "done");
    LedgerState state = ledger.state();
    state.subnets.at(1).moving_price = price;
    state.subnets.at(1).pending = {};
    state.subnets.at(1).alpha_adrift += static_cast<std::int64_t>(
        ledger.state().subnets.at(1).pending.server +
        ledger.state().subnets.at(1).pending.validator + ledger.state().subnets.at(1).pending.root +
        ledger.state().subnets.at(1).pending.owner_cut);
    ledger = Ledger::from_state(std::move(state), ledger.new_subnet_parameters());
    ledger.step_block();
    return ledger.state().subnets.at(1).pending.root;
  };
  EXPECT_EQ(pending_root(I96F32::one()), 0U);
  EXPECT_GT(pending_root(I96F32::from_bits(I96F32::one().bits() + 1)), 0U);
}

TEST(Ledger, FollowsSpec233FromItsOptions) {
  LedgerOptions options;
  options.blocks = "spec233";
  options.yuma = 2;
  options.tempo = 10;
  options.network_lock = 1000 * static_cast<std::int64_t>(kTao);
  Ledger ledger(options);
  ASSERT_EQ(answer(ledger, Fund{cold(0), 100'000 * kTao}), "done");
  ASSERT_EQ(answer(ledger, RegisterNetwork{cold(0), hot(0), 1}), "done");
  ASSERT_EQ(answer(ledger, StartCall{cold(0), 1}), "done");
  ASSERT_EQ(answer(ledger, AddStake{cold(0), hot(0), 1, 50 * kTao, {}}), "done");
  ASSERT_EQ(answer(ledger, AddStake{cold(0), hot(0), 0, 500 * kTao, {}}), "done");
  std::size_t epochs = 0;
  for (int block = 0; block < 200; ++block) epochs += ledger.step_block().epochs.size();
  EXPECT_EQ(epochs, 18U);  // a period of tempo + 1
  ledger.audit();
  EXPECT_EQ(Ledger::restore(ledger.snapshot()).digest(), ledger.digest());
}

}  // namespace
}  // namespace yumoe::ledger
