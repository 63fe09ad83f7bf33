// What the settlement machine promises, one behaviour a test; all at once:
// settlement_scenarios_test.

#include "coordinator/settlement.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "cluster/error.hpp"
#include "coordinator/scripted_node.hpp"

namespace yumoe {
using namespace settlement;
namespace {

using ::testing::HasSubstr;

Digest digest(int n) { return digest_of(as_bytes(std::to_string(n))); }

Intent weights(const std::string& id = "weights") {
  Intent intent;
  intent.id = id;
  intent.pallet = "SubtensorModule";
  intent.call = "set_weights";
  intent.arguments = "{}";
  intent.effect_event = "SubtensorModule.WeightsSet";
  return intent;
}

// Drives a machine by hand and keeps its journal.
class Settlement : public ::testing::Test {
 protected:
  template <typename Action>
  std::optional<Action> last() const {
    for (auto it = actions.rbegin(); it != actions.rend(); ++it) {
      if (const auto* action = std::get_if<Action>(&*it)) return *action;
    }
    return std::nullopt;
  }
  template <typename Action>
  bool asks() const {
    return last<Action>().has_value();
  }
  void step(const SettlementEvent& event) {
    actions = machine.step(event);
    for (const auto& action : actions) {
      if (const auto* record = std::get_if<Record>(&action)) journal.push_back(record->entry);
    }
  }
  void head(std::uint32_t number, std::uint32_t spec = 1) {
    step(HeadSeen{number, digest(static_cast<int>(number)), spec});
  }
  // Brings the intent to the point where its attempt is to be sent; returns the attempt.
  Attempt to_sending(const Intent& intent = weights(), std::uint64_t nonce = 7) {
    step(IntentAdded{intent});
    return sign(nonce);
  }
  Attempt sign(std::uint64_t nonce) {
    EXPECT_TRUE(asks<AskNonce>());
    step(NonceSeen{intent_signer, nonce});
    EXPECT_TRUE(asks<Sign>());
    const auto wanted = last<Sign>();
    step(Signed{wanted->intent.id, wanted->attempt.number, Bytes{1}, digest(1'000 + ++signed_)});
    EXPECT_TRUE(asks<Send>());
    return last<Send>()->attempt;
  }
  void nothing_in_block(std::uint64_t nonce) {
    const auto read = last<ReadBlock>();
    ASSERT_TRUE(read);
    step(BlockRead{read->intent, read->block, digest(0), {}, nonce});
  }
  void found(bool success, const std::string& error = "") {
    const auto read = last<ReadBlock>();
    ASSERT_TRUE(read);
    Inclusion inclusion;
    inclusion.hash = read->hashes.back();
    inclusion.success = success;
    inclusion.error_name = error;
    if (success) inclusion.event_names = {"SubtensorModule.WeightsSet"};
    step(BlockRead{read->intent, read->block, digest(0), inclusion, 8});
  }
  Outcome outcome(const std::string& id = "weights") {
    const auto status = machine.status(id);
    EXPECT_TRUE(status && status->outcome);
    return status && status->outcome ? *status->outcome : Outcome{};
  }

  PublicKey intent_signer;
  SettlementMachine machine{SettlementOptions{}};
  std::vector<SettlementAction> actions;
  std::vector<Bytes> journal;
  int signed_ = 0;
};

TEST_F(Settlement, RecordsAnAttemptBeforeItSendsIt) {
  head(100);
  to_sending();
  ASSERT_EQ(actions.size(), 2u);
  const auto* record = std::get_if<Record>(&actions[0]);
  ASSERT_TRUE(record);
  const std::string entry(record->entry.begin(), record->entry.end());
  for (const char* part :
       {"\"nonce\":7", "\"birth\":100", "\"period\":64", "\"extrinsic\":\"01\""}) {
    EXPECT_THAT(entry, HasSubstr(part));
  }
  EXPECT_TRUE(std::holds_alternative<Send>(actions[1]));
}

TEST_F(Settlement, BelievesAnEffectOnlyWhenItsEventStandsInAFinalizedBlock) {
  head(100);
  const Attempt attempt = to_sending();
  step(Accepted{"weights", attempt.number});
  EXPECT_FALSE(machine.idle());
  head(101);
  EXPECT_EQ(last<ReadBlock>()->block, 101u);
  found(true);
  EXPECT_TRUE(outcome().effected);
  EXPECT_EQ(outcome().block, 101u);
  EXPECT_TRUE(machine.idle());
}

TEST_F(Settlement, ASuccessWithoutTheEffectsEventIsARefusal) {
  head(100);
  const Attempt attempt = to_sending();
  step(Accepted{"weights", attempt.number});
  head(101);
  Inclusion inclusion;
  inclusion.hash = attempt.hash;
  inclusion.success = true;
  step(BlockRead{"weights", 101, digest(0), inclusion, 8});
  EXPECT_EQ(outcome().reason, "EffectMissing");
}

TEST_F(Settlement, AfterADoubtItLooksBeforeItSendsTheSameBytesAgain) {
  head(100);
  const Attempt attempt = to_sending();
  step(SendUnknown{"weights", attempt.number});
  EXPECT_FALSE(asks<Send>());
  head(101);
  EXPECT_FALSE(asks<Send>());
  nothing_in_block(7);
  ASSERT_TRUE(asks<Send>());
  EXPECT_EQ(last<Send>()->attempt.hash, attempt.hash);
}

TEST_F(Settlement, AfterACrashItLooksBeforeItSends) {
  head(100);
  const Attempt attempt = to_sending();
  machine = SettlementMachine::recover(SettlementOptions{}, journal);
  head(102);
  EXPECT_EQ(last<ReadBlock>()->block, 101u);
  EXPECT_FALSE(asks<Send>());
  nothing_in_block(7);
  EXPECT_EQ(last<ReadBlock>()->block, 102u);
  found(true);
  EXPECT_TRUE(outcome().effected);
  EXPECT_EQ(attempt.nonce, 7u);
}

TEST_F(Settlement, OnlyTheEndOfTheEraFreesANonceThatNobodyUsed) {
  head(100);
  const Attempt attempt = to_sending();
  step(SendUnknown{"weights", attempt.number});
  head(162);
  for (std::uint32_t block = 101; block <= 162; ++block) nothing_in_block(7);
  ASSERT_TRUE(asks<Send>());  // 163 is its last block
  step(SendUnknown{"weights", attempt.number});
  EXPECT_FALSE(asks<AskNonce>());
  head(163);
  nothing_in_block(7);
  EXPECT_TRUE(asks<AskNonce>());
  EXPECT_EQ(machine.status("weights")->problem, "EraExpired");
}

TEST_F(Settlement, ANonceUsedBySomebodyElseIsLetGoAtOnce) {
  head(100);
  const Attempt attempt = to_sending();
  step(Accepted{"weights", attempt.number});
  head(101);
  nothing_in_block(8);
  EXPECT_TRUE(asks<AskNonce>());
  EXPECT_EQ(machine.status("weights")->problem, "NonceTaken");
}

TEST_F(Settlement, AnUpgradeInFlightIsSignedAnewWithTheSameNonce) {
  head(100);
  const Attempt attempt = to_sending();
  step(Accepted{"weights", attempt.number});
  head(101, 2);
  EXPECT_TRUE(asks<RefreshRuntime>());
  nothing_in_block(7);
  ASSERT_TRUE(asks<Sign>());
  EXPECT_EQ(last<Sign>()->attempt.nonce, 7u);
  EXPECT_EQ(last<Sign>()->attempt.spec_version, 2u);
  step(Signed{"weights", 2, Bytes{2}, digest(2'000)});
  step(Accepted{"weights", 2});
  head(102, 2);
  EXPECT_EQ(last<ReadBlock>()->hashes.size(), 2u);  // either may stand there
}

TEST_F(Settlement, WaitsOutARateLimitAndTriesAgain) {
  head(100);
  Intent intent = weights();
  intent.pause_blocks = 30;
  const Attempt attempt = to_sending(intent);
  step(Accepted{"weights", attempt.number});
  head(101);
  found(false, "SubtensorModule.SettingWeightsTooFast");
  EXPECT_FALSE(machine.idle());
  head(130);
  EXPECT_FALSE(asks<AskNonce>());
  head(131);
  sign(8);
}

TEST_F(Settlement, StopsAtAnErrorThatWaitingDoesNotMendAndSaysWhatToDo) {
  head(100);
  const Attempt attempt = to_sending();
  step(Accepted{"weights", attempt.number});
  head(101);
  found(false, "SubtensorModule.NeuronNoValidatorPermit");
  EXPECT_EQ(outcome().reason, "SubtensorModule.NeuronNoValidatorPermit");
  EXPECT_THAT(outcome().advice, HasSubstr("permit"));
}

TEST_F(Settlement, AStaleNonceOfACleanSendingIsReadAgain) {
  head(100);
  const Attempt attempt = to_sending();
  step(Refused{"weights", attempt.number, {PoolVerdict::Kind::stale, 0, "Stale"}});
  head(101);
  EXPECT_EQ(sign(8).nonce, 8u);
}

TEST_F(Settlement, ABadSignatureStopsAfterAnUpgradeWasRuledOut) {
  head(100);
  Attempt attempt = to_sending();
  const PoolVerdict verdict{PoolVerdict::Kind::bad_proof, 0, "BadProof"};
  for (std::uint32_t block = 104; block <= 108; block += 4) {
    step(Refused{"weights", attempt.number, verdict});
    EXPECT_TRUE(asks<RefreshRuntime>());
    head(block);
    attempt = sign(7);
  }
  step(Refused{"weights", attempt.number, verdict});
  EXPECT_EQ(outcome().reason, "BadProof");
}

TEST_F(Settlement, OneSignerHasOneTransactionInFlightAndOthersDoNotWaitForIt) {
  head(100);
  to_sending();
  step(IntentAdded{weights("second")});
  EXPECT_FALSE(asks<AskNonce>());
  Intent other = weights("other");
  other.signer.bytes.fill(9);
  step(IntentAdded{other});
  EXPECT_TRUE(asks<AskNonce>());
}

TEST_F(Settlement, KeepsToTheWindowOfAnIntent) {
  head(100);
  Intent intent = weights();
  intent.earliest = 110;
  intent.latest = 120;
  step(IntentAdded{intent});
  EXPECT_FALSE(asks<AskNonce>());
  head(110);
  const Attempt attempt = sign(7);
  EXPECT_EQ(attempt.period, 8u);  // ten blocks are left
  Intent late = weights("late");
  late.latest = 99;
  step(IntentAdded{late});
  EXPECT_THAT(outcome("late").reason, HasSubstr("WindowMissed"));
}

TEST_F(Settlement, ARevealWaitsForItsCommitAndFallsWithIt) {
  head(100);
  const Attempt attempt = to_sending(weights("commit"));
  Intent reveal = weights("reveal");
  reveal.signer.bytes.fill(9);
  reveal.after = "commit";
  step(IntentAdded{reveal});
  EXPECT_FALSE(asks<AskNonce>());
  step(Accepted{"commit", attempt.number});
  head(101);
  found(false, "SubtensorModule.CommitRevealDisabled");
  EXPECT_EQ(outcome("reveal").reason, "DependencyRefused");
}

TEST_F(Settlement, AddingAnIntentAgainChangesNothing) {
  head(100);
  to_sending();
  step(IntentAdded{weights()});
  EXPECT_TRUE(actions.empty());
  EXPECT_EQ(machine.status().size(), 1u);
}

TEST_F(Settlement, AnUnreadableBlockIsAskedAgainAndNeverTakenAsEmpty) {
  head(100);
  const Attempt attempt = to_sending();
  step(Accepted{"weights", attempt.number});
  head(101);
  step(BlockUnreadable{"weights", 101, "chain_state_pruned"});
  EXPECT_TRUE(actions.empty());
  head(200);
  EXPECT_EQ(last<ReadBlock>()->block, 101u);
  EXPECT_EQ(machine.status("weights")->problem, "chain_state_pruned");
}

TEST_F(Settlement, GivesUpAfterTheTriesItMayMake) {
  head(100);
  step(IntentAdded{weights()});
  for (std::uint32_t block = 101; block <= 112; ++block) {
    const Attempt attempt = sign(7);
    step(Refused{"weights", attempt.number, {PoolVerdict::Kind::stale, 0, "Stale"}});
    head(block);
  }
  EXPECT_EQ(outcome().reason, "TriesExhausted (last: Stale)");
}

TEST_F(Settlement, RefusesAJournalItCannotHaveWritten) {
  const auto refuses = [](const std::string& entry) {
    const Bytes bytes(entry.begin(), entry.end());
    try {
      SettlementMachine::recover({}, std::vector<Bytes>{bytes});
    } catch (const Error& error) {
      return error.code() == ErrorCode::journal_corrupt;
    }
    return false;
  };
  for (const char* entry : {"", "{}", "[1]", R"({"entry":"intent"})",
                            R"({"entry":"attempt","intent":"x","attempt":{}})",
                            R"({"entry":"what","intent":"x"})", "\xff"}) {
    EXPECT_TRUE(refuses(entry)) << entry;
  }
}

// ---- names for refusals ------------------------------------------------------------------------

TEST(PoolVerdicts, NameEveryRecordedRefusal) {
  const auto outcomes = nlohmann::json::parse(test::read_recorded(test::kOutcomes));
  std::size_t named = 0;
  for (const auto& outcome : outcomes) {
    const auto& error = outcome["rpc_error"];
    if (error.is_null()) continue;
    const PoolVerdict verdict =
        pool_verdict(error["code"], error["message"].get<std::string>(), "", CustomCodes::older);
    const auto& invalid = outcome["validity"]["err"]["invalid"];
    EXPECT_NE(verdict.kind, PoolVerdict::Kind::other) << outcome["label"];
    if (invalid.contains("custom")) {
      EXPECT_EQ(verdict.custom, invalid["custom"].get<int>());
    }
    EXPECT_EQ(verdict.kind == PoolVerdict::Kind::stale, invalid.contains("stale"));
    EXPECT_EQ(verdict.kind == PoolVerdict::Kind::bad_proof, invalid.contains("badProof"));
    ++named;
  }
  EXPECT_GE(named, 8u);
}

TEST(PoolVerdicts, ReadTheTextsOfARealNodeToo) {
  const auto kind = [](std::string_view data) {
    return pool_verdict(1010, "Invalid Transaction", data, CustomCodes::newer).kind;
  };
  EXPECT_EQ(kind("Transaction is outdated"), PoolVerdict::Kind::stale);
  EXPECT_EQ(kind("Transaction has a bad signature"), PoolVerdict::Kind::bad_proof);
  EXPECT_EQ(kind("Inability to pay some fees , e.g. account balance too low"),
            PoolVerdict::Kind::payment);
  const auto custom = [](std::string_view data, CustomCodes codes) {
    return pool_verdict(1010, "Invalid Transaction", data, codes).name;
  };
  EXPECT_EQ(custom("Custom error: 6", CustomCodes::newer), "RateLimitExceeded");
  EXPECT_EQ(custom("Custom error: 3", CustomCodes::older), "StakeTooLowToSetWeights");
  EXPECT_EQ(custom("Custom error: 3", CustomCodes::newer), "SubnetNotExists");
  EXPECT_EQ(custom("Custom error: 200", CustomCodes::newer), "Custom(200)");
  EXPECT_EQ(custom("Custom error: 255", CustomCodes::newer), "BadRequest");
}

TEST(Reactions, AreDefinedForEveryDispatchErrorOfTheRecordedSession) {
  const auto outcomes = nlohmann::json::parse(test::read_recorded(test::kOutcomes));
  std::size_t known = 0;
  for (const auto& outcome : outcomes) {
    const auto error = outcome.find("dispatch_error");
    if (error == outcome.end() || error->is_null() || !error->contains("name")) continue;
    const std::string name = (*error)["name"];
    EXPECT_THAT(std::string(reaction_to("SubtensorModule." + name).advice),
                ::testing::Not(HasSubstr("does not know")))
        << name;
    ++known;
  }
  EXPECT_GE(known, 15u);
  EXPECT_EQ(reaction_to("Unheard.Of").kind, Reaction::Kind::stop);
}

}  // namespace
}  // namespace yumoe
