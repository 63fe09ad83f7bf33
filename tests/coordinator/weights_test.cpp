// What weight calls promise: every refusal in the chain's order, nothing changed by a refused call,
// and commits that open exactly in their window.

#include "coordinator/weights.hpp"

#include <gtest/gtest.h>

#include "cluster/error.hpp"

namespace yumoe::ledger {
namespace {

AccountId account(std::uint8_t name) {
  AccountId id{};
  id[0] = name;
  return id;
}

// Subnet 7 with 6 neurons of 1000 rao, the first three with permits; accounts 1..6 hold uids 0..5.
class Subnet {
 public:
  Subnet() {
    for (std::uint8_t i = 1; i <= 6; ++i) hotkeys.push_back(account(i));
    stake.assign(6, I64F64::from_integer(1000));
    weights.resize(6);
    last_update.assign(6, 0);
    facts.netuid = 7;
    facts.block = 5000;
    facts.epoch = 10;
    refresh();
  }
  void refresh() {
    facts.hotkeys = hotkeys;
    facts.stake = stake;
    facts.permit = permit;
  }
  WeightSlot slot() { return {weights, last_update, commits}; }

  std::string set(std::uint8_t who, WeightVector w) {
    const auto done = set_weights(facts, slot(), account(who), w, events);
    return done ? "" : std::string(name_of(done.error()));
  }
  std::string commit(std::uint8_t who, const WeightReveal& reveal) {
    const Digest hash =
        commit_hash(account(who), mechanism_index(facts.netuid, facts.mechanism), reveal);
    const auto done = commit_weights(facts, slot(), account(who), hash, events);
    return done ? "" : std::string(name_of(done.error()));
  }
  std::string reveal(std::uint8_t who, const WeightReveal& reveal) {
    const auto done = reveal_weights(facts, slot(), account(who), reveal, events);
    return done ? "" : std::string(name_of(done.error()));
  }

  std::vector<AccountId> hotkeys;
  std::vector<I64F64> stake;
  std::vector<std::uint8_t> permit = {1, 1, 1, 0, 0, 0};
  std::vector<Row> weights;
  std::vector<std::uint64_t> last_update;
  WeightCommits commits;
  WeightFacts facts;
  WeightEvents events;
};

TEST(SetWeights, StoresUpscaledValuesInCallOrderAndTheBlock) {
  Subnet s;
  EXPECT_EQ(s.set(1, {{5, 1, 3}, {10, 20, 30}, 0}), "");
  EXPECT_EQ(s.weights[0], (Row{{5, 21845}, {1, 43690}, {3, 65535}}));
  EXPECT_EQ(s.last_update[0], 5000u);
  ASSERT_EQ(s.events.size(), 1u);
  EXPECT_EQ(s.events[0].index, 7);
}

// Each row breaks one more rule than the next one, so the order of the checks shows.
TEST(SetWeights, RefusesInTheOrderOfTheChain) {
  Subnet s;
  s.facts.commit_reveal = true;
  s.facts.netuid = 0;
  s.facts.exists = false;
  s.facts.stake_threshold = 2000;
  s.facts.version_key = 9;
  s.facts.min_allowed_weights = 4;
  s.facts.max_weights_limit = 30000;
  s.last_update[3] = 4999;
  WeightVector w{{1, 1, 1, 1, 1, 1, 90}, {1, 2}, 8};
  const std::uint8_t stranger = 99;
  EXPECT_EQ(s.set(stranger, w), "CommitRevealEnabled");
  s.facts.commit_reveal = false;
  EXPECT_EQ(s.set(stranger, w), "CanNotSetRootNetworkWeights");
  s.facts.netuid = 7;
  EXPECT_EQ(s.set(stranger, w), "WeightVecNotEqualSize");
  w.values.assign(7, 1);
  EXPECT_EQ(s.set(stranger, w), "MechanismDoesNotExist");
  s.facts.exists = true;
  EXPECT_EQ(s.set(stranger, w), "UidsLengthExceedUidsInSubNet");
  w = {{1, 1, 90}, {1, 2, 3}, 8};
  EXPECT_EQ(s.set(stranger, w), "HotKeyNotRegisteredInSubNet");
  EXPECT_EQ(s.set(4, w), "NotEnoughStakeToSetWeights");
  s.facts.stake_threshold = 1000;
  EXPECT_EQ(s.set(4, w), "IncorrectWeightVersionKey");
  w.version_key = 9;
  EXPECT_EQ(s.set(4, w), "SettingWeightsTooFast");
  s.last_update[3] = 4900;
  EXPECT_EQ(s.set(4, w), "NeuronNoValidatorPermit");
  s.permit[3] = 1;
  EXPECT_EQ(s.set(4, w), "DuplicateUids");
  w.uids = {1, 2, 90};
  EXPECT_EQ(s.set(4, w), "UidVecContainInvalidOne");
  w.uids = {1, 2, 5};
  EXPECT_EQ(s.set(4, w), "WeightVecLengthIsLow");
  s.facts.min_allowed_weights = 3;
  EXPECT_EQ(s.set(4, w), "MaxWeightExceeded");
  EXPECT_TRUE(s.events.empty());
  EXPECT_EQ(s.last_update[3], 4900u);
  s.facts.max_weights_limit = 32768;
  EXPECT_EQ(s.set(4, w), "");
}

TEST(SetWeights, LetsTheOwnerSkipStakeAndPermitAndASelfWeightSkipPermitCountAndLimit) {
  Subnet s;
  s.facts.min_allowed_weights = 3;
  s.facts.max_weights_limit = 100;
  EXPECT_EQ(s.set(5, {{4}, {9}, 0}), "");
  s.facts.stake_threshold = 5000;
  s.facts.max_weights_limit = 65535;
  EXPECT_EQ(s.set(6, {{1, 2, 3}, {1, 1, 1}, 0}), "NotEnoughStakeToSetWeights");
  s.facts.owner_hotkey = account(6);
  EXPECT_EQ(s.set(6, {{1, 2, 3}, {1, 1, 1}, 0}), "");
}

TEST(CommitHash, IsTheOneTheRealRuntimeAccepted) {
  // shared/vectors/chain/rpc/commit_reveal_vector.json
  const Bytes who = from_hex("0x8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c");
  AccountId id{};
  std::copy(who.begin(), who.end(), id.begin());
  const WeightReveal reveal{{{1, 2, 3}, {65535, 65535, 65535}, 5}, {1, 2, 3, 4, 5, 6, 7, 8}};
  EXPECT_EQ(commit_hash(id, 2, reveal).hex(),
            "800b2ef7746b87b9bd98793a4ed9c4909ec3604e1987a741c1a788d30071e474");
}

const WeightReveal kReveal{{{1, 2}, {3, 4}, 0}, {7, 7}};

TEST(CommitReveal, OpensExactlyAfterTheRevealPeriodAndDropsOlderCommits) {
  Subnet s;
  EXPECT_EQ(s.commit(1, kReveal), "CommitRevealDisabled");
  s.facts.commit_reveal = true;
  s.facts.reveal_period = 2;
  EXPECT_EQ(s.reveal(1, kReveal), "NoWeightsCommitFound");
  const WeightReveal older{{{1}, {9}, 0}, {1}};
  EXPECT_EQ(s.commit(1, older), "");
  EXPECT_EQ(s.commit(1, kReveal), "CommittingWeightsTooFast");
  s.facts.block += 100;
  EXPECT_EQ(s.commit(1, kReveal), "");
  EXPECT_EQ(s.last_update[0], 5100u);
  EXPECT_EQ(first_open_commit(s.facts, s.commits, account(1)), 5000u);
  s.facts.epoch = 11;
  EXPECT_EQ(s.reveal(1, kReveal), "RevealTooEarly");
  EXPECT_EQ(s.reveal(1, {{{1, 2}, {3, 5}, 0}, {7, 7}}), "InvalidRevealCommitHashNotMatch");
  s.facts.epoch = 12;
  s.facts.block = 6000;
  EXPECT_EQ(s.reveal(1, kReveal), "");
  EXPECT_EQ(s.weights[0], (Row{{1, 49151}, {2, 65535}}));
  EXPECT_EQ(s.last_update[0], 5100u);  // set at commit, not at reveal
  EXPECT_TRUE(s.commits.hashed.empty());
  EXPECT_EQ(first_open_commit(s.facts, s.commits, account(1)), kNoCommit);
}

TEST(CommitReveal, NamesAnExpiredCommitAndARefusedRevealKeepsTheQueue) {
  Subnet s;
  s.facts.commit_reveal = true;
  EXPECT_EQ(s.commit(1, kReveal), "");
  s.facts.epoch = 12;
  const WeightCommits before = s.commits;
  EXPECT_EQ(s.reveal(1, kReveal), "ExpiredWeightCommit");
  EXPECT_EQ(s.commits, before);
  EXPECT_EQ(s.reveal(1, {{{1}, {1}, 0}, {}}), "NoWeightsCommitFound");
  s.facts.block += 1000;
  const WeightReveal invalid{{{1, 1}, {1, 1}, 0}, {}};
  EXPECT_EQ(s.commit(1, invalid), "");  // pops the expired one
  EXPECT_EQ(s.commits.hashed.at(account(1)).size(), 1u);
  s.facts.epoch = 13;
  EXPECT_EQ(s.reveal(1, invalid), "DuplicateUids");
  EXPECT_EQ(s.commits.hashed.at(account(1)).size(), 1u);
}

TEST(CommitReveal, RefusesCommitsInTheOrderOfTheChain) {
  Subnet s;
  s.facts.exists = false;
  s.last_update[0] = 4999;
  EXPECT_EQ(s.commit(99, kReveal), "MechanismDoesNotExist");
  s.facts.exists = true;
  EXPECT_EQ(s.commit(99, kReveal), "CommitRevealDisabled");
  s.facts.commit_reveal = true;
  EXPECT_EQ(s.commit(99, kReveal), "HotKeyNotRegisteredInSubNet");
  s.facts.rate_limit = 0;
  for (std::uint16_t k = 0; k < 10; ++k) EXPECT_EQ(s.commit(1, {{{1}, {1}, 0}, {k}}), "");
  s.facts.rate_limit = 100;
  EXPECT_EQ(s.commit(1, kReveal), "CommittingWeightsTooFast") << "before they are counted";
  s.facts.rate_limit = 0;
  EXPECT_EQ(s.commit(1, kReveal), "TooManyUnrevealedCommits");
  s.facts.epoch = 12;  // all of them have expired
  EXPECT_EQ(s.commit(1, kReveal), "");
}

TEST(CommitReveal, RefusesRevealsInTheOrderOfTheChain) {
  Subnet s;
  EXPECT_EQ(s.reveal(1, kReveal), "CommitRevealDisabled");
  s.facts.commit_reveal = true;
  s.facts.rate_limit = 0;
  EXPECT_EQ(s.reveal(1, kReveal), "NoWeightsCommitFound");
  s.commit(1, {{{1, 1}, {1, 1}, 0}, {5}});
  EXPECT_EQ(s.reveal(1, kReveal), "InvalidRevealCommitHashNotMatch");
  EXPECT_EQ(s.reveal(1, {{{1, 1}, {1, 1}, 0}, {5}}), "RevealTooEarly");
  s.facts.epoch = 11;
  EXPECT_EQ(s.reveal(1, {{{1, 1}, {1, 1}, 0}, {5}}), "DuplicateUids") << "then as any weights";
  s.facts.epoch = 12;
  EXPECT_EQ(s.reveal(1, {{{1, 1}, {1, 1}, 0}, {5}}), "ExpiredWeightCommit");
  EXPECT_EQ(s.reveal(1, kReveal), "NoWeightsCommitFound");
}

TEST(Timelocked, RefusesInTheOrderOfTheChain) {
  Subnet s;
  s.facts.exists = false;
  std::uint64_t round = 5;
  std::uint16_t version = 3;
  const auto commit = [&](std::uint8_t who) {
    const auto done = commit_timelocked_weights(s.facts, s.slot(), account(who), {1}, {}, round,
                                                version, 9, s.events);
    return done ? std::string() : std::string(name_of(done.error()));
  };
  EXPECT_EQ(commit(99), "InvalidRevealRound") << "before dispatch";
  round = 9;
  EXPECT_EQ(commit(99), "MechanismDoesNotExist");
  s.facts.exists = true;
  EXPECT_EQ(commit(99), "CommitRevealDisabled");
  s.facts.commit_reveal = true;
  EXPECT_EQ(commit(99), "IncorrectCommitRevealVersion");
  version = 4;
  EXPECT_EQ(commit(99), "HotKeyNotRegisteredInSubNet");
  s.facts.rate_limit = 0;
  for (int k = 0; k < 10; ++k) EXPECT_EQ(commit(1), "");
  s.facts.rate_limit = 100;
  EXPECT_EQ(commit(1), "CommittingWeightsTooFast");
  s.facts.rate_limit = 0;
  EXPECT_EQ(commit(1), "TooManyUnrevealedCommits");
  EXPECT_EQ(commit(2), "") << "each account's own are counted";
}

TEST(WeightBatch, RefusesListsOfUnequalLengthBeforeAnyItem) {
  Subnet s;
  WeightEvents events;
  const auto refused = run_weight_batch(2, 1, {}, events);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error(), LedgerError::InputLengthsUnequal);
  EXPECT_TRUE(events.empty());
  const auto reveals = batch_reveal_weights(s.facts, s.slot(), account(1), {}, events);
  ASSERT_FALSE(reveals);
  EXPECT_EQ(reveals.error(), LedgerError::CommitRevealDisabled);
}

TEST(CommitReveal, HoldsAtMostTenOpenCommits) {
  Subnet s;
  s.facts.commit_reveal = true;
  s.facts.rate_limit = 0;
  for (std::uint16_t k = 0; k < 10; ++k) EXPECT_EQ(s.commit(1, {{{1}, {1}, 0}, {k}}), "");
  EXPECT_EQ(s.commit(1, kReveal), "TooManyUnrevealedCommits");
}

TEST(CommitReveal, RevealsABatchWhollyOrNotAtAll) {
  Subnet s;
  s.facts.commit_reveal = true;
  s.facts.rate_limit = 0;
  const WeightReveal bad{{{1, 1}, {1, 1}, 0}, {}};
  s.commit(1, kReveal);
  s.commit(1, bad);
  s.facts.epoch = 11;
  const WeightReveal both[] = {kReveal, bad};
  const auto refused = batch_reveal_weights(s.facts, s.slot(), account(1), both, s.events);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error(), LedgerError::DuplicateUids);
  EXPECT_TRUE(s.weights[0].empty());
  EXPECT_EQ(s.commits.hashed.at(account(1)).size(), 2u);
  EXPECT_TRUE(batch_reveal_weights(s.facts, s.slot(), account(1), {both, 1}, s.events));
  EXPECT_EQ(s.weights[0].size(), 2u);
  EXPECT_EQ(s.commits.hashed.at(account(1)).size(), 1u);
}

TEST(Timelocked, WaitsForThePulseOfItsRoundWithinItsEpoch) {
  Subnet s;
  s.facts.commit_reveal = true;
  const Bytes sealed = {1, 2, 3};
  const Bytes plaintext = timelocked_plaintext(account(1), {{1, 2}, {3, 4}, 0});
  const auto commit = [&](std::uint8_t who, Bytes text, std::uint16_t version = 4,
                          std::uint64_t round = 50) {
    const auto done = commit_timelocked_weights(s.facts, s.slot(), account(who), sealed, text,
                                                round, version, 40, s.events);
    return done ? std::string() : std::string(name_of(done.error()));
  };
  EXPECT_EQ(commit(1, plaintext, 4, 39), "InvalidRevealRound");
  EXPECT_EQ(commit(1, plaintext, 3), "IncorrectCommitRevealVersion");
  EXPECT_EQ(commit(9, plaintext), "HotKeyNotRegisteredInSubNet");
  EXPECT_EQ(commit(1, plaintext), "");
  EXPECT_EQ(commit(1, plaintext), "CommittingWeightsTooFast");
  EXPECT_EQ(commit(2, plaintext), "");  // another's plaintext: dropped when opened
  EXPECT_EQ(commit(3, {}), "");         // undecodable
  s.facts.epoch = 11;
  bool known = false;
  const auto pulse = [&](std::uint64_t round) { return known && round == 50; };
  reveal_timelocked_weights(s.facts, s.slot(), pulse, s.events);
  EXPECT_TRUE(s.weights[0].empty());
  EXPECT_EQ(s.commits.sealed.at(10).size(), 3u);
  EXPECT_EQ(first_open_commit(s.facts, s.commits, account(1)), 5000u);
  known = true;
  reveal_timelocked_weights(s.facts, s.slot(), pulse, s.events);
  EXPECT_EQ(s.weights[0].size(), 2u);
  EXPECT_TRUE(s.weights[1].empty());
  EXPECT_TRUE(s.weights[2].empty());
  EXPECT_TRUE(s.commits.sealed.empty());
}

TEST(Timelocked, IsLostWhenItsEpochPasses) {
  Subnet s;
  s.facts.commit_reveal = true;
  const Bytes plaintext = timelocked_plaintext(account(1), {{1, 2}, {3, 4}, 0});
  ASSERT_TRUE(
      commit_timelocked_weights(s.facts, s.slot(), account(1), {1}, plaintext, 50, 4, 0, s.events));
  s.facts.epoch = 12;
  reveal_timelocked_weights(
      s.facts, s.slot(), [](std::uint64_t) { return true; }, s.events);
  EXPECT_TRUE(s.weights[0].empty());
  EXPECT_TRUE(s.commits.sealed.empty());
}

TEST(Timelocked, ReadsTheOlderPlaintextWithoutAccountAndAnyBytesSafely) {
  const Bytes full = timelocked_plaintext(account(1), {{1, 2}, {3, 4}, 0});
  for (std::size_t cut = 0; cut <= full.size(); ++cut) {
    Subnet s;
    s.facts.commit_reveal = true;
    const Bytes older(full.begin() + 33, full.end());
    const Bytes text = cut == full.size()
                           ? older
                           : Bytes(full.begin(), full.begin() + static_cast<std::ptrdiff_t>(cut));
    ASSERT_TRUE(
        commit_timelocked_weights(s.facts, s.slot(), account(1), {1}, text, 50, 4, 0, s.events));
    s.facts.epoch = 11;
    reveal_timelocked_weights(
        s.facts, s.slot(), [](std::uint64_t) { return true; }, s.events);
    EXPECT_EQ(s.weights[0].size(), cut == full.size() ? 2u : 0u) << cut;
  }
}

TEST(WeightBatch, RunsEveryItemAndReportsFailuresAsEvents) {
  WeightEvents events;
  const BatchItem items[] = {
      {3, [](WeightEvents&) -> Outcome<Done> { return LedgerError::DuplicateUids; }},
      {4, [](WeightEvents&) -> Outcome<Done> { return Done{}; }},
      {5, [](WeightEvents&) -> Outcome<Done> { return LedgerError::CommitRevealEnabled; }}};
  EXPECT_FALSE(run_weight_batch(3, 2, items, events));
  EXPECT_TRUE(run_weight_batch(3, 3, items, events));
  ASSERT_EQ(events.size(), 4u);
  EXPECT_EQ(events[0].kind, WeightEventKind::BatchCompletedWithErrors);
  EXPECT_EQ(events[1].index, 3);
  EXPECT_EQ(events[2].error, LedgerError::CommitRevealEnabled);
  EXPECT_EQ(events[3].kind, WeightEventKind::BatchWeightsCompleted);
}

TEST(Validity, RepeatsStakeRateAndWindowBeforeDispatch) {
  Subnet s;
  s.facts.commit_reveal = true;
  s.facts.stake_threshold = 1;
  EXPECT_EQ(validity_of_set(s.facts, s.slot(), account(77)), ValidityError::StakeAmountTooLow);
  EXPECT_EQ(validity_of_reveal(s.facts, s.slot(), account(1), kReveal),
            ValidityError::CommitNotFound);
  s.commit(1, kReveal);
  EXPECT_EQ(validity_of_commit(s.facts, s.slot(), account(1)), ValidityError::RateLimitExceeded);
  EXPECT_EQ(validity_of_reveal(s.facts, s.slot(), account(1), kReveal),
            ValidityError::CommitBlockNotInRevealRange);
  s.facts.epoch = 11;
  EXPECT_EQ(validity_of_reveal(s.facts, s.slot(), account(1), kReveal), std::nullopt);
}

}  // namespace
}  // namespace yumoe::ledger
