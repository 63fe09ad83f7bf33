// `yumoe ledger` as its users meet it, on a run that has stopped.

#include <gmock/gmock.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "coordinator/journal.hpp"
#include "coordinator/run_ledger.hpp"
#include "launch/recorded_run.hpp"
#include "launch/shell.hpp"

namespace yumoe {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using test::Outcome;
using testing::HasSubstr;
using testing::Not;

Keypair key(std::uint8_t number) {
  std::array<std::uint8_t, 32> seed{};
  seed[0] = number;
  return Keypair::from_seed(KeyType::sr25519, seed);
}

// One validator, two workers, an owner, somebody with money, another subnet; 60 blocks have passed.
class LedgerCommands : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder = fs::temp_directory_path() / ("ledger_cli_test." + std::to_string(::getpid()));
    fs::remove_all(folder);
    fs::create_directories(folder);
    EconomyOptions economy;
    economy.block_ms =
        1'000'000;  // the wall clock is far away: calls come at the block of the record
    economy.time = "followed";
    economy.owner = to_ss58(alice().public_key());
    economy.balances = {economy.owner + "=50", to_ss58(bob().public_key()) + "=1000"};
    economy.subnets = {"vision lock=2000 stake=100 miners=2"};
    ledger::LedgerOptions rules;
    rules.tempo = 20;
    rules.weights_set_rate_limit = 0;
    rules.network_lock = 1'000'000'000'000;
    Journal journal =
        Journal::create(run(), "run-9", test::setup_of("run-9", rules, economy).journal_metadata());
    std::vector<Event> events{
        Started{digest_of(as_bytes("v0")), 1},
        Joined{key(1).public_key(), Role::validator, "first", {}, 500},
        Joined{key(2).public_key(), Role::worker, "large", {}, 0},
        Joined{key(3).public_key(), Role::worker, "small", {}, 0},
    };
    std::uint64_t nonce = 0;
    for (const std::uint64_t block : {7'000'000, 7'000'060}) {
      Called call{alice().public_key(), nonce++, chain_block_call(block), {}};
      call.evidence = seal(alice(), Nonce{}, 1, TimeMs{1'000'000},
                           encode(ToCoordinator{LedgerCall{"run-9", call.nonce, call.operation}}));
      events.push_back(call);
    }
    for (const Event& event : events) {
      const Bytes payload = encode(event);
      const Entry entry{TimeMs{1'000'000}, std::string(kind_of(event)), payload};
      journal.append({&entry, 1});
    }
  }
  static void TearDownTestSuite() { fs::remove_all(folder); }

  static Keypair alice() { return Keypair::from_uri(KeyType::sr25519, "//Alice"); }
  static Keypair bob() { return Keypair::from_uri(KeyType::sr25519, "//Bob"); }
  static fs::path run() { return folder / "run"; }

  static Outcome yumoe(const std::string& command, const std::string& rest = "") {
    return test::shell(std::string(YUMOE_BIN_DIR) + "/yumoe ledger " + command + " " +
                       run().string() + " " + rest);
  }
  static std::string file(const std::string& text) {
    const fs::path path = folder / "weights.txt";
    std::ofstream(path) << text;
    return path.string();
  }

  static inline fs::path folder;
};

TEST_F(LedgerCommands, BalancesShowWhatAnAccountHoldsBehindAnothersHotkey) {
  ASSERT_EQ(yumoe("stake", "--key //Bob --hotkey first --tao 100").code, 0);
  ASSERT_EQ(yumoe("stake", "--key //Bob --hotkey first --netuid 0 --tao 50").code, 0);
  const Outcome all = yumoe("balances", "--json");
  ASSERT_EQ(all.code, 0) << all.output;
  const json found = json::parse(all.output);
  const json& money = found.at("money");
  std::uint64_t free = 0;
  std::set<std::string> names;
  for (const json& account : found.at("accounts")) {
    free += account.at("free").get<std::uint64_t>();
    names.insert(account.at("name").get<std::string>());
  }
  EXPECT_EQ(free, money.at("free").get<std::uint64_t>());
  EXPECT_EQ(free + money.at("root").get<std::uint64_t>() + money.at("pools").get<std::uint64_t>() +
                money.at("burned").get<std::uint64_t>(),
            money.at("issuance").get<std::uint64_t>());
  for (const char* name : {"first", "large", "small", "owner", "treasury", "vision validator"}) {
    EXPECT_TRUE(names.contains(name)) << name;
  }
  const Outcome one = yumoe("balances", "--json --account " + to_ss58(bob().public_key()));
  const json bobs = json::parse(one.output).at("accounts").at(0);
  EXPECT_EQ(bobs.at("free"), 850'000'000'000);
  ASSERT_EQ(bobs.at("stakes").size(), 2U) << one.output;
  EXPECT_EQ(bobs.at("stakes").at(0).at("subnet"), "root");
  EXPECT_EQ(bobs.at("stakes").at(1).at("hotkey_name"), "first");
  EXPECT_THAT(yumoe("balances", "--account large").output, HasSubstr("large"));
  EXPECT_THAT(yumoe("balances", "--account large").output, Not(HasSubstr("first")));
  const Outcome nobody = yumoe("balances", "--account huge");
  EXPECT_EQ(nobody.code, 2);
  EXPECT_THAT(nobody.output, HasSubstr("nobody of the run has this name"));
}

TEST_F(LedgerCommands, PreviewRefusesWeightsByTheirLine) {
  const auto refusal = [&](const std::string& text) {
    const Outcome outcome = yumoe("preview", "--weights " + file(text));
    EXPECT_EQ(outcome.code, 2) << outcome.output;
    return outcome.output;
  };
  EXPECT_THAT(refusal("2 10\n99 1\n"), HasSubstr("line 2: there is no uid 99: uids are 0 to 3"));
  EXPECT_THAT(refusal("# mine\n2 10\n\n2 5\n"),
              HasSubstr("line 4: uid 2 is there already, in line 2"));
  EXPECT_THAT(refusal(""), HasSubstr("no weights"));
  EXPECT_THAT(refusal("[[2, 10]]"), HasSubstr("line 1: expected UID and WEIGHT"));
  EXPECT_THAT(refusal("2 70000"), HasSubstr("both 0 to 65535"));
  EXPECT_THAT(refusal("-1 5"), HasSubstr("no uid -1"));
  const Outcome base = yumoe("preview"), large = yumoe("preview", "--weights " + file("2 1\n"));
  EXPECT_EQ(large.code, 0) << large.output;
  EXPECT_NE(base.output, large.output);
}

TEST_F(LedgerCommands, PreviewTakesNames) {
  const Outcome one = yumoe("preview", "--hotkey large --json");
  ASSERT_EQ(one.code, 0) << one.output;
  const json found = json::parse(one.output);
  ASSERT_EQ(found.at("payouts").size(), 1U);
  EXPECT_EQ(found.at("payouts").at(0).at("name"), "large");
  EXPECT_THAT(yumoe("preview", "--hotkey huge").output, HasSubstr("nobody of the run"));
}

TEST_F(LedgerCommands, RulesSaySoWhenTheyAreMistypedOrNotTheCallersToChange) {
  EXPECT_THAT(yumoe("whatif", "--set kapa=0.6").output, HasSubstr("did you mean 'kappa'"));
  EXPECT_THAT(yumoe("whatif", "--set kappa=1").output, HasSubstr("write 1.0 or 1/65535"));
  EXPECT_THAT(yumoe("whatif", "--set tempo=60000").output, HasSubstr("0 to 50400"));
  EXPECT_THAT(
      yumoe("propose", "kappa=0.2 --key //Bob").output,
      HasSubstr("which its owner sets (yumoe ledger set); what can be proposed: tao_weight"));
  EXPECT_THAT(yumoe("set", "tao_weight=0.2 --key //Alice").output,
              HasSubstr("root stake proposes"));
  EXPECT_THAT(yumoe("set", "fee_rate=0.2 --key //Alice").output,
              HasSubstr("not for a subnet's owner"));
}

TEST_F(LedgerCommands, WhatifComparesNeuronsAndWhateverElseDiffers) {
  const Outcome outcome = yumoe("whatif", "--set owner_cut=0.5 --json");
  ASSERT_EQ(outcome.code, 0) << outcome.output;
  const json rows = json::parse(outcome.output);
  ASSERT_GE(rows.size(), 4U);
  EXPECT_EQ(rows.at(0).at("uid"), 0);
  EXPECT_EQ(rows.at(0).at("name"), "(owner)");
  EXPECT_GT(rows.at(0).at("difference").get<std::int64_t>(), 0);
  EXPECT_EQ(rows.at(1).at("name"), "first");
  EXPECT_EQ(rows.at(1).at("uid"), 1);
  const Outcome text = yumoe("whatif", "--set owner_cut=0.5");
  EXPECT_THAT(text.output, HasSubstr("owner_cut = 0.499992 (32767/65535)"));
  const Outcome pool = yumoe("whatif", "--set pool=constant_product --set shares=price");
  EXPECT_EQ(pool.code, 0) << pool.output;
  EXPECT_THAT(yumoe("whatif", "--set pool=round").output, HasSubstr("balancer|constant_product"));
}

TEST_F(LedgerCommands, ARefusedCallSaysWhoRefusedItAndWhatToDo) {
  const Outcome poor = yumoe("stake", "--key //Alice --tao 90000");
  EXPECT_EQ(poor.code, 1);
  EXPECT_THAT(poor.output, HasSubstr("the stopped run's ledger refused: AddStake: "
                                     "NotEnoughBalanceToStake: the account's free TAO is less"));
  EXPECT_THAT(poor.output, Not(HasSubstr("peer")));
}

TEST_F(LedgerCommands, StakeMovesToAnotherSubnetAndIsSoldInFull) {
  ASSERT_EQ(yumoe("stake", "--key //Bob --hotkey large --tao 20").code, 0);
  const Outcome moved =
      yumoe("move", "--key //Bob --from large --to small --alpha 5 --to-netuid 2");
  EXPECT_EQ(moved.code, 0) << moved.output;
  const Outcome given =
      yumoe("transfer", "--key //Bob --to first --hotkey large --alpha 5 --to-netuid 2");
  EXPECT_EQ(given.code, 0) << given.output;
  EXPECT_THAT(yumoe("unstake", "--key //Bob --hotkey large --full --limit 1000").output,
              HasSubstr("PriceLimitExceeded: the pool's price is already past --limit"));
  const Outcome sold = yumoe("unstake", "--key //Bob --hotkey large --full --limit 0.000001");
  EXPECT_EQ(sold.code, 0) << sold.output;
  const json bobs =
      json::parse(yumoe("balances", "--json --account " + to_ss58(bob().public_key())).output);
  bool arrived = false;
  for (const json& stake : bobs.at("accounts").at(0).at("stakes")) {
    EXPECT_NE(stake.at("hotkey_name"), "large");
    arrived = arrived || (stake.at("hotkey_name") == "small" && stake.at("subnet") == "vision");
  }
  EXPECT_TRUE(arrived);
}

TEST_F(LedgerCommands, WeightsOfAnotherSubnetAreSetByAFileAndThoseOfTheRunsOwnAreNot) {
  const std::string weights = " --weights " + file("2 100\n3 50\n");
  EXPECT_THAT(yumoe("weigh", "--key //Alice --netuid 2" + weights).output,
              HasSubstr("HotKeyNotRegisteredInSubNet: register the hotkey first"));
  ASSERT_EQ(yumoe("register", "--key //Alice --netuid 2").code, 0);
  EXPECT_THAT(yumoe("weigh", "--key //Alice --netuid 2" + weights).output,
              HasSubstr("NeuronNoValidatorPermit: only validators set weights"));
  EXPECT_THAT(yumoe("weigh", "--key //Alice --netuid 1" + weights).output,
              HasSubstr("come from its validators' scores"));
}

TEST_F(LedgerCommands, ProposalsAreShownAsSharesAndTheValueUnderstoodIsSaid) {
  ASSERT_EQ(yumoe("stake", "--key //Bob --hotkey first --netuid 0 --tao 10").code, 0);
  const Outcome said = yumoe("propose", "tao_weight=0.2 --key //Bob");
  EXPECT_EQ(said.code, 0) << said.output;
  EXPECT_THAT(said.output, HasSubstr("tao_weight = 0.2 (3689348814741910"));
  EXPECT_THAT(yumoe("show").output, HasSubstr("tao_weight = 0.2 ("));
}

TEST_F(LedgerCommands, AFailedAuditIsJsonToo) {
  const Outcome good = yumoe("audit", "--json");
  ASSERT_EQ(good.code, 0) << good.output;
  EXPECT_TRUE(json::parse(good.output).at("broken").is_null());
  // A call that its account did not sign.
  const fs::path kept = folder / "kept";
  fs::copy(run(), kept, fs::copy_options::recursive);
  {
    Journal journal = Journal::open(run());
    Called call{bob().public_key(), 99, Bytes{1, 2, 3}, {}};
    call.evidence = seal(alice(), Nonce{}, 1, TimeMs{1'000'000}, Bytes{1});
    const Bytes payload = encode(Event{call});
    const Entry entry{TimeMs{1'000'000}, "called", payload};
    journal.append({&entry, 1});
  }
  const Outcome bad = yumoe("audit", "--json");
  EXPECT_EQ(bad.code, 1);
  EXPECT_EQ(json::parse(bad.output).at("broken").at("error"), "signature_invalid") << bad.output;
  fs::remove_all(run());
  fs::rename(kept, run());
}

}  // namespace
}  // namespace yumoe
