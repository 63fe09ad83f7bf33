// Every call's refusals in the chain's order: a call that breaks all of its rules is mended one rule at a
// time, and names each time the first one that is left. A refused call changes nothing.

#include <gtest/gtest.h>

#include "coordinator/random_world.hpp"

namespace yumoe::ledger {
namespace {

AccountId cold(std::uint64_t i) { return account_of('c', i); }
AccountId hot(std::uint64_t i) { return account_of('h', i); }

constexpr std::uint64_t kMuch = 1'000'000'000 * kTao;
constexpr std::uint64_t kHalf = ~std::uint64_t{0} / 2;

// Subnet 1 is cold(0)'s, started, with hotkeys 0 to 3 of their coldkeys; subnet 2 is cold(3)'s, with
// hotkey 30, and never started. cold(9) has nothing; hotkey 77 is unknown.
class Refusals : public ::testing::Test {
 protected:
  Refusals() : ledger(options()) {
    for (std::uint64_t i = 0; i < 4; ++i) must(Fund{cold(i), 100'000 * kTao});
    must(RegisterNetwork{cold(0), hot(0), 1});
    must(StartCall{cold(0), 1});
    for (std::uint64_t i = 1; i < 4; ++i) must(Register{cold(i), hot(i), 1, {}});
    must(AddStake{cold(1), hot(1), 1, 500 * kTao, {}});
    must(AddStake{cold(2), hot(2), 0, 50 * kTao, {}});
    blocks(11);
    must(RegisterNetwork{cold(3), hot(30), 1});
  }

  static LedgerOptions options() {
    LedgerOptions options;
    options.tempo = 30;
    options.network_lock = 1000 * static_cast<std::int64_t>(kTao);
    options.network_rate_limit = 0;
    return options;
  }
  void blocks(int count) {
    for (int i = 0; i < count; ++i) ledger.step_block();
  }
  // Puts the owner's next epoch out of the freeze window, or into it.
  void until_epoch_in(std::uint64_t left) {
    while (next_epoch() != left) ledger.step_block();
  }
  std::uint64_t next_epoch() const {
    const Subnet& subnet = ledger.state().subnets.at(1);
    return subnet.last_epoch_block + subnet.parameters.tempo - ledger.state().block;
  }
  std::string answer(const Operation& operation) {
    const Digest before = ledger.digest();
    const auto outcome = ledger.apply(operation);
    if (outcome) return "done";
    EXPECT_EQ(ledger.digest(), before)
        << name_of(operation) << " was refused and changed something";
    return std::string(name_of(outcome.error()));
  }
  void must(const Operation& operation) {
    ASSERT_EQ(answer(operation), "done") << name_of(operation);
  }
  void set(std::optional<std::uint16_t> netuid, const std::string& name, std::uint64_t value) {
    ASSERT_TRUE(ledger.override_parameter(netuid, name, value)) << name;
  }
  std::uint64_t stake(std::uint64_t i, std::uint16_t netuid = 1) const {
    return ledger.state().subnets.at(netuid).stakes.at(hot(i)).value_of(cold(i));
  }

  Ledger ledger;
};

TEST_F(Refusals, FundAndTransferBalance) {
  EXPECT_EQ(answer(Fund{cold(1), kMuch}), "FaucetDisabled");
  Ledger fresh(options());
  EXPECT_EQ(fresh.apply(Fund{cold(1), 21'000'001 * kTao}).error(), LedgerError::InvalidValue);
  EXPECT_EQ(answer(TransferBalance{cold(9), cold(1), 1}), "InsufficientBalance");
}

TEST_F(Refusals, AddStake) {
  const Limit low{1, false};
  EXPECT_EQ(answer(AddStake{cold(9), hot(77), 1, kMuch, low}), "InsufficientLiquidity");
  EXPECT_EQ(answer(AddStake{cold(9), hot(77), 9, 1, low}), "SubnetNotExists");
  EXPECT_EQ(answer(AddStake{cold(9), hot(77), 2, 1, low}), "SubtokenDisabled");
  EXPECT_EQ(answer(AddStake{cold(9), hot(77), 1, 1, low}), "AmountTooLow");
  EXPECT_EQ(answer(AddStake{cold(9), hot(77), 1, 50 * kTao, low}), "PriceLimitExceeded");
  const Limit near{2'300'000'000, false};
  EXPECT_EQ(answer(AddStake{cold(9), hot(77), 1, 900 * kTao, near}), "SlippageTooHigh");
  EXPECT_EQ(answer(AddStake{cold(9), hot(77), 1, 900 * kTao, Limit{near.price, true}}),
            "NotEnoughBalanceToStake");
  EXPECT_EQ(answer(AddStake{cold(2), hot(77), 1, 900 * kTao, Limit{near.price, true}}),
            "HotKeyAccountNotExists");
  EXPECT_EQ(answer(AddStake{cold(2), hot(1), 1, 900 * kTao, Limit{near.price, true}}), "done");
}

TEST_F(Refusals, RemoveStake) {
  const auto plain = [&](std::uint16_t netuid, std::uint64_t alpha) {
    return answer(RemoveStake{cold(1), hot(1), netuid, alpha, {}});
  };
  EXPECT_EQ(plain(2, kMuch), "SubtokenDisabled");
  EXPECT_EQ(plain(9, kMuch), "SubnetNotExists");
  EXPECT_EQ(answer(RemoveStake{cold(9), hot(77), 1, kMuch, {}}), "AmountTooLow") << "owns none";
  EXPECT_EQ(plain(1, 1'000), "AmountTooLow") << "less than the least, and something stays";
  const auto limited = [&](std::uint16_t netuid, std::uint64_t alpha, std::uint64_t price,
                           bool partial = false) {
    return answer(RemoveStake{cold(1), hot(1), netuid, alpha, Limit{price, partial}});
  };
  EXPECT_EQ(limited(1, kMuch, kMuch), "InsufficientLiquidity");
  EXPECT_EQ(limited(9, 0, kMuch), "SubnetNotExists");
  EXPECT_EQ(limited(1, 0, kMuch), "AmountTooLow");
  EXPECT_EQ(limited(1, stake(1) + 1, kMuch), "NotEnoughStakeToWithdraw");
  EXPECT_EQ(limited(1, 1'000, kMuch), "AmountTooLow");
  EXPECT_EQ(limited(1, stake(1), kMuch), "PriceLimitExceeded");
  EXPECT_EQ(limited(1, stake(1), 2'000'000'000), "SlippageTooHigh");
  EXPECT_EQ(limited(1, stake(1), 2'000'000'000, true), "done");
  EXPECT_EQ(plain(1, kMuch), "done") << "more than is owned means all of it";
}

TEST_F(Refusals, RemoveStakeFull) {
  const auto full = [&](int who, std::uint16_t netuid, std::optional<std::uint64_t> price) {
    return answer(RemoveStakeFull{cold(who), hot(1), netuid, price});
  };
  EXPECT_EQ(full(1, 9, {}), "SubnetNotExists");
  EXPECT_EQ(full(9, 1, {}), "AmountTooLow") << "owns none";
  EXPECT_EQ(full(1, 1, kMuch), "PriceLimitExceeded");
  EXPECT_EQ(full(1, 1, 2'000'000'000), "SlippageTooHigh") << "whole or not at all";
  EXPECT_EQ(full(1, 1, 1), "done");
  EXPECT_EQ(full(1, 1, {}), "AmountTooLow") << "nothing is left";
}

TEST_F(Refusals, UnstakeAll) {
  EXPECT_EQ(answer(UnstakeAll{cold(9), hot(77), true}), "HotKeyAccountNotExists");
  EXPECT_EQ(answer(UnstakeAll{cold(9), hot(1), true}), "AmountTooLow");
  EXPECT_EQ(answer(UnstakeAll{cold(1), hot(1), true}), "done");
}

TEST_F(Refusals, MoveStake) {
  const auto move = [&](std::uint64_t to, std::uint16_t from_net, std::uint16_t to_net,
                        std::uint64_t alpha) {
    return answer(MoveStake{cold(1), hot(1), hot(to), from_net, to_net, alpha});
  };
  EXPECT_EQ(move(1, 9, 9, kMuch), "SameNetuid");
  EXPECT_EQ(move(77, 1, 9, kMuch), "SubnetNotExists");
  EXPECT_EQ(move(77, 1, 2, kMuch), "SubtokenDisabled");
  EXPECT_EQ(move(77, 1, 0, kMuch), "HotKeyAccountNotExists");
  EXPECT_EQ(move(2, 1, 0, kMuch), "NotEnoughStakeToWithdraw");
  EXPECT_EQ(move(2, 1, 0, 1'000), "AmountTooLow");
  EXPECT_EQ(move(2, 1, 1, 1'000), "AmountTooLow");
  EXPECT_EQ(move(2, 1, 0, kTao), "done");
  EXPECT_EQ(move(2, 1, 1, kTao), "done");
}

TEST_F(Refusals, TransferStake) {
  const auto transfer = [&](std::uint64_t to, std::uint64_t hotkey, std::uint16_t to_net,
                            std::uint64_t alpha) {
    return answer(TransferStake{cold(1), cold(to), hot(hotkey), 1, to_net, alpha});
  };
  set(1, "transfer_toggle", 0);
  EXPECT_EQ(transfer(1, 77, 1, kMuch), "SameNetuid");
  EXPECT_EQ(transfer(2, 77, 9, kMuch), "SubnetNotExists");
  EXPECT_EQ(transfer(2, 77, 2, kMuch), "SubtokenDisabled");
  EXPECT_EQ(transfer(2, 77, 1, kMuch), "HotKeyAccountNotExists");
  EXPECT_EQ(transfer(2, 1, 1, kMuch), "NotEnoughStakeToWithdraw");
  EXPECT_EQ(transfer(2, 1, 1, 1'000), "AmountTooLow");
  EXPECT_EQ(transfer(2, 1, 0, 1'000), "AmountTooLow");
  EXPECT_EQ(transfer(2, 1, 1, kTao), "TransferDisallowed");
  EXPECT_EQ(transfer(2, 1, 0, kTao), "TransferDisallowed");
  set(1, "transfer_toggle", 1);
  EXPECT_EQ(transfer(2, 1, 1, kTao), "done");
}

TEST_F(Refusals, SwapStake) {
  const auto swap = [&](std::uint64_t hotkey, std::uint16_t to_net, std::uint64_t alpha,
                        std::uint64_t price, bool partial = false) {
    return answer(SwapStake{cold(1), hot(hotkey), 1, to_net, alpha, Limit{price, partial}});
  };
  EXPECT_EQ(swap(77, 1, kMuch, kMuch), "SameNetuid");
  EXPECT_EQ(swap(77, 9, kMuch, kMuch), "SubnetNotExists");
  EXPECT_EQ(swap(77, 2, kMuch, kMuch), "SubtokenDisabled");
  must(StartCall{cold(3), 2});
  EXPECT_EQ(swap(77, 2, kMuch, kMuch), "HotKeyAccountNotExists");
  EXPECT_EQ(swap(1, 2, kMuch, kMuch), "NotEnoughStakeToWithdraw");
  EXPECT_EQ(swap(1, 2, 1'000, kMuch), "AmountTooLow");
  EXPECT_EQ(swap(1, 2, stake(1), kMuch), "SlippageTooHigh");
  EXPECT_EQ(swap(1, 2, stake(1) / 2, 100'000'000, true), "done");
}

TEST_F(Refusals, Register) {
  set(1, "registration_allowed", 0);
  set(1, "max_allowed_uids", 4);
  set(1, "min_non_immune_uids", 100);
  EXPECT_EQ(answer(Register{cold(9), hot(1), 8, 0}), "SubnetNotExists");
  EXPECT_EQ(answer(Register{cold(9), hot(1), 1, 0}), "RegistrationPriceLimitExceeded");
  EXPECT_EQ(answer(Register{cold(9), hot(1), 1, {}}), "SubNetRegistrationDisabled");
  set(1, "registration_allowed", 1);
  EXPECT_EQ(answer(Register{cold(9), hot(1), 1, {}}), "HotKeyAlreadyRegisteredInSubNet");
  EXPECT_EQ(answer(Register{cold(9), AccountId{}, 1, {}}), "NotEnoughBalanceToStake");
  EXPECT_EQ(answer(Register{cold(1), AccountId{}, 1, {}}), "CannotUseSystemAccount");
  EXPECT_EQ(answer(Register{cold(1), hot(30), 1, {}}), "NonAssociatedColdKey");
  // Everyone is its subnet's own: nobody can make room.
  LedgerState state = ledger.state();
  for (std::uint64_t i = 1; i < 4; ++i) state.hotkeys.at(hot(i)).coldkey = cold(0);
  state.subnets.at(1).parameters.immune_owner_uids_limit = 10;
  ledger = Ledger::from_state(std::move(state), ledger.new_subnet_parameters());
  EXPECT_EQ(answer(Register{cold(1), hot(50), 1, {}}), "NoNeuronIdAvailable");
  set(1, "max_allowed_uids", 5);
  EXPECT_EQ(answer(Register{cold(1), hot(50), 1, {}}), "done");
}

TEST_F(Refusals, RegisterOnRoot) {
  set(std::nullopt, "root_uids_max", 2);
  const auto enlist = [&](std::uint64_t c, std::uint64_t h) {
    return answer(Register{cold(c), hot(h), 0, {}});
  };
  EXPECT_EQ(enlist(1, 1), "done");
  EXPECT_EQ(enlist(1, 1), "TooManyRegistrationsThisBlock");
  blocks(1);
  EXPECT_EQ(enlist(2, 1), "HotKeyAlreadyRegisteredInSubNet");
  EXPECT_EQ(enlist(1, 30), "NonAssociatedColdKey");
  EXPECT_EQ(enlist(2, 2), "done");
  blocks(1);
  EXPECT_EQ(enlist(3, 3), "StakeTooLowForRoot") << "no more stake than the lowest";
  // More root stake each time: six registrations an interval and no more.
  std::string last;
  for (std::uint64_t i = 60; i < 70; ++i) {
    must(Register{cold(3), hot(i), 1, {}});
    must(AddStake{cold(3), hot(i), 0, (100 + i) * kTao, {}});
    blocks(1);
    last = enlist(3, i);
    if (last != "done") break;
  }
  EXPECT_EQ(last, "TooManyRegistrationsThisInterval");
  EXPECT_EQ(enlist(2, 1), "TooManyRegistrationsThisInterval") << "before it is asked who it is";
}

TEST_F(Refusals, RegisterNetwork) {
  set(std::nullopt, "network_registration_start", 1'000);
  set(std::nullopt, "network_rate_limit", 1'000);
  set(std::nullopt, "subnet_limit", 2);
  EXPECT_EQ(answer(RegisterNetwork{AccountId{}, hot(2), 0}), "NonAssociatedColdKey");
  EXPECT_EQ(answer(RegisterNetwork{cold(9), AccountId{}, 0}), "CannotUseSystemAccount");
  EXPECT_EQ(answer(RegisterNetwork{cold(9), hot(60), 0}), "MechanismDoesNotExist");
  EXPECT_EQ(answer(RegisterNetwork{cold(9), hot(60), 1}), "SubNetRegistrationDisabled");
  set(std::nullopt, "network_registration_start", 0);
  EXPECT_EQ(answer(RegisterNetwork{cold(9), hot(60), 1}), "NetworkTxRateLimitExceeded");
  set(std::nullopt, "network_rate_limit", 0);
  EXPECT_EQ(answer(RegisterNetwork{cold(9), hot(60), 1}), "SubnetLimitReached");
  set(std::nullopt, "subnet_limit", 3);
  EXPECT_EQ(answer(RegisterNetwork{cold(9), hot(60), 1}), "CannotAffordLockCost");
  EXPECT_EQ(answer(RegisterNetwork{cold(1), hot(60), 1}), "done");
}

TEST_F(Refusals, StartCall) {
  set(std::nullopt, "start_call_delay", 1'000);
  EXPECT_EQ(answer(StartCall{cold(9), 9}), "SubnetNotExists");
  EXPECT_EQ(answer(StartCall{cold(9), 0}), "SubnetNotExists");
  EXPECT_EQ(answer(StartCall{cold(9), 1}), "NotSubnetOwner");
  EXPECT_EQ(answer(StartCall{cold(0), 1}), "FirstEmissionBlockNumberAlreadySet");
  EXPECT_EQ(answer(StartCall{cold(3), 2}), "NeedWaitingMoreBlocksToStarCall");
  set(std::nullopt, "start_call_delay", 0);
  EXPECT_EQ(answer(StartCall{cold(3), 2}), "done");
}

TEST_F(Refusals, SetTake) {
  EXPECT_EQ(answer(SetTake{cold(9), hot(77), 65'535, true}), "HotKeyAccountNotExists");
  EXPECT_EQ(answer(SetTake{cold(9), hot(1), 65'535, true}), "NonAssociatedColdKey");
  must(SetTake{cold(1), hot(1), 1'000, false});
  must(SetTake{cold(1), hot(1), 2'000, true});
  EXPECT_EQ(answer(SetTake{cold(1), hot(1), 2'000, true}), "DelegateTakeTooLow");
  EXPECT_EQ(answer(SetTake{cold(1), hot(1), 65'535, true}), "DelegateTakeTooHigh");
  EXPECT_EQ(answer(SetTake{cold(1), hot(1), 3'000, true}), "DelegateTxRateLimitExceeded");
  EXPECT_EQ(answer(SetTake{cold(1), hot(1), 2'000, false}), "DelegateTakeTooLow") << "not lower";
  set(std::nullopt, "take_min", 500);
  EXPECT_EQ(answer(SetTake{cold(1), hot(1), 499, false}), "DelegateTakeTooLow");
  EXPECT_EQ(answer(SetTake{cold(1), hot(1), 500, false}), "done");
}

TEST_F(Refusals, SetChildkeyTake) {
  EXPECT_EQ(answer(SetChildkeyTake{cold(9), hot(77), 9, 65'535}), "HotKeyAccountNotExists");
  EXPECT_EQ(answer(SetChildkeyTake{cold(9), hot(1), 9, 65'535}), "NonAssociatedColdKey");
  EXPECT_EQ(answer(SetChildkeyTake{cold(1), hot(1), 9, 65'535}), "SubnetNotExists");
  EXPECT_EQ(answer(SetChildkeyTake{cold(1), hot(1), 1, 65'535}), "InvalidChildkeyTake");
  must(SetChildkeyTake{cold(1), hot(1), 1, 100});
  EXPECT_EQ(answer(SetChildkeyTake{cold(1), hot(1), 1, 101}), "TxChildkeyTakeRateLimitExceeded");
  EXPECT_EQ(answer(SetChildkeyTake{cold(1), hot(1), 1, 99}), "done");
}

TEST_F(Refusals, SetChildren) {
  set(std::nullopt, "stake_threshold", 100'000 * kTao);
  const auto lend = [&](std::uint64_t c, std::uint16_t netuid, std::vector<Relation> children) {
    return answer(SetChildren{cold(c), hot(2), netuid, std::move(children)});
  };
  must(SetChildren{cold(2), hot(2), 1, {}});  // starts the rate limit's clock
  std::vector<Relation> children(6, {kHalf, hot(2)});
  EXPECT_EQ(lend(9, 0, children), "RegistrationNotPermittedOnRootSubnet");
  EXPECT_EQ(lend(9, 9, children), "SubnetNotExists");
  EXPECT_EQ(lend(9, 1, children), "NonAssociatedColdKey");
  EXPECT_EQ(lend(2, 1, children), "TxRateLimitExceeded");
  set(std::nullopt, "children_rate_limit", 0);
  EXPECT_EQ(lend(2, 1, children), "TooManyChildren");
  // hot(2) is a child of hot(0), so that hot(0) cannot be its own.
  set(std::nullopt, "children_delay", 0);
  must(SetChildren{cold(0), hot(0), 1, {{kHalf, hot(2)}}});
  blocks(31);
  ASSERT_FALSE(ledger.state().subnets.at(1).families.at(hot(2)).parents.empty());
  children = {{kHalf, hot(0)}, {kHalf, hot(0)}, {kHalf, hot(2)}};
  EXPECT_EQ(lend(2, 1, children), "InvalidChild");
  children[2].key = hot(0);
  EXPECT_EQ(lend(2, 1, children), "ProportionOverflow");
  children.pop_back();
  EXPECT_EQ(lend(2, 1, children), "DuplicateChild");
  children.pop_back();
  EXPECT_EQ(lend(2, 1, children), "ParentChildCannotBeBoth");
  children[0].key = hot(3);
  EXPECT_EQ(lend(2, 1, children), "NotEnoughStakeToSetChildkeys");
  EXPECT_EQ(lend(2, 1, {}), "done") << "taking everything back needs no stake";
  set(std::nullopt, "stake_threshold", 0);
  EXPECT_EQ(lend(2, 1, children), "done");
}

TEST_F(Refusals, SetAutostake) {
  EXPECT_EQ(answer(SetAutostake{cold(1), 9, hot(77)}), "SubnetNotExists");
  EXPECT_EQ(answer(SetAutostake{cold(1), 1, hot(77)}), "HotKeyNotRegisteredInSubNet");
  EXPECT_EQ(answer(SetAutostake{cold(1), 1, hot(2)}), "done");
}

TEST_F(Refusals, SetHyperparameter) {
  const auto change = [&](std::uint64_t who, std::uint16_t netuid, std::uint64_t value) {
    return answer(SetHyperparameter{cold(who), netuid, "kappa", value});
  };
  until_epoch_in(15);
  must(SetHyperparameter{cold(0), 1, "kappa", 30'000});
  until_epoch_in(9);  // within the window, and too soon after the change
  EXPECT_EQ(change(9, 9, 70'000), "SubnetNotExists");
  EXPECT_EQ(change(9, 1, 70'000), "NotSubnetOwner");
  EXPECT_EQ(change(0, 1, 70'000), "InvalidValue");
  EXPECT_EQ(change(0, 1, 20'000), "AdminActionProhibitedDuringWeightsWindow");
  until_epoch_in(25);
  EXPECT_EQ(change(0, 1, 20'000), "TxRateLimitExceeded");
  blocks(31);
  until_epoch_in(25);
  EXPECT_EQ(change(0, 1, 20'000), "done");
}

TEST_F(Refusals, SetEmissionSplit) {
  EXPECT_EQ(answer(SetEmissionSplit{cold(9), 9, {1}}), "SubnetNotExists");
  EXPECT_EQ(answer(SetEmissionSplit{cold(9), 1, {1}}), "NotSubnetOwner");
  EXPECT_EQ(answer(SetEmissionSplit{cold(0), 1, {1}}), "InvalidValue");
  EXPECT_EQ(answer(SetEmissionSplit{cold(0), 1, {65'535, 0}}), "InvalidValue")
      << "one mechanism only";
  EXPECT_EQ(answer(SetEmissionSplit{cold(0), 1, {65'535}}), "done");
}

TEST_F(Refusals, TriggerEpoch) {
  until_epoch_in(20);
  must(TriggerEpoch{cold(0), 1});
  until_epoch_in(14);
  set(1, "commit_reveal_weights_enabled", 1);
  EXPECT_EQ(answer(TriggerEpoch{cold(9), 9}), "SubnetNotExists");
  EXPECT_EQ(answer(TriggerEpoch{cold(9), 1}), "NotSubnetOwner");
  EXPECT_EQ(answer(TriggerEpoch{cold(0), 1}), "CommitRevealEnabled");
  set(1, "commit_reveal_weights_enabled", 0);
  EXPECT_EQ(answer(TriggerEpoch{cold(0), 1}), "TxRateLimitExceeded") << "one is pending";
  blocks(5);
  until_epoch_in(10);
  EXPECT_EQ(answer(TriggerEpoch{cold(0), 1}), "AdminActionProhibitedDuringWeightsWindow");
}

TEST_F(Refusals, ClaimsOfRoot) {
  EXPECT_EQ(answer(ClaimRoot{cold(1), {}}), "InvalidSubnetNumber");
  EXPECT_EQ(answer(ClaimRoot{cold(1), {1, 2, 3, 4, 5, 6}}), "InvalidSubnetNumber");
  EXPECT_EQ(answer(ClaimRoot{cold(1), {1}}), "done");
  EXPECT_EQ(answer(SetClaimKind{cold(1), ClaimKind::keep_subnets, {}}), "InvalidSubnetNumber");
  EXPECT_EQ(answer(SetClaimKind{cold(1), ClaimKind::keep_subnets, {1}}), "done");
}

TEST_F(Refusals, ProposalsAndVotes) {
  EXPECT_EQ(answer(Propose{cold(9), "no_such", 1}), "StakeTooLowForRoot");
  EXPECT_EQ(answer(Propose{cold(2), "no_such", 1}), "InvalidValue");
  EXPECT_EQ(answer(Propose{cold(2), "owner_cut", 65'536}), "InvalidValue");
  EXPECT_EQ(answer(Propose{cold(2), "emission_enabled/1", 2}), "InvalidValue");
  EXPECT_EQ(answer(Vote{cold(9), 1, true}), "ProposalMissing");
  must(Propose{cold(2), "emission_enabled/1", 0});
  EXPECT_EQ(answer(Vote{cold(9), 1, true}), "StakeTooLowForRoot");
  EXPECT_EQ(answer(Vote{cold(2), 1, true}), "done");
}

}  // namespace
}  // namespace yumoe::ledger
