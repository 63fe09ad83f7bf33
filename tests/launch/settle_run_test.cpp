// A run's settlement: each epoch of its ledger by itself, its own ledger as the target, and a chain whose
// epochs go by weights only from when it has them.
#include "launch/settle_run.hpp"

#include <gmock/gmock.h>

#include <chrono>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>

#include "cluster/clock.hpp"
#include "cluster/error.hpp"
#include "coordinator/disks.hpp"
#include "coordinator/journal.hpp"
#include "coordinator/recorded_chain.hpp"
#include "launch/recorded_run.hpp"
#include "launch/shell.hpp"

namespace yumoe {
namespace {

using namespace std::chrono_literals;
using nlohmann::json;
using test::RecordedChain;
using testing::HasSubstr;

constexpr std::int64_t kBlockMs = 1'000;

Keypair key(const char* uri) { return Keypair::from_uri(KeyType::sr25519, uri); }
const Keypair& alice() {
  static const Keypair pair = key("//Alice");
  return pair;
}
const Keypair& bob() {
  static const Keypair pair = key("//Bob");
  return pair;
}

// A recorded run: Alice judges Bob and another worker, who both did useful work in round 1.
class RecordedRun {
 public:
  explicit RecordedRun(const std::filesystem::path& folder) : folder_(folder) {
    ledger::LedgerOptions rules;
    rules.tempo = 5;
    rules.weights_set_rate_limit = 0;
    EconomyOptions economy;
    economy.block_ms = kBlockMs;
    RunOptions options;
    options.workers_min = 2;
    options.scoring = "overlapped";
    journal_.emplace(Journal::create(
        folder, "run-9", test::setup_of("run-9", rules, economy, options).journal_metadata()));
    happen(Started{digest_of(as_bytes("v0")), 1});
    happen(Joined{alice().public_key(), Role::validator, "judge", {}, 500});
    happen(Joined{bob().public_key(), Role::worker, "one", {}, 0});
    happen(Joined{key("//Eve").public_key(), Role::worker, "two", {}, 0});
  }

  void happen(const Event& event, std::int64_t later_ms = 0) {
    now_ = now_ + std::chrono::milliseconds(later_ms);
    const Bytes payload = encode(event);
    const Entry entry{now_, std::string(kind_of(event)), payload};
    journal_->append({&entry, 1});
  }
  void score() {
    constexpr Uid kJudge{0}, kOne{1}, kTwo{2};
    for (const Uid uid : {kOne, kTwo}) {
      happen(Committed{uid, {1}, digest_of(as_bytes("work")), 4, {}}, 500);
    }
    for (const Uid uid : {kOne, kTwo}) {
      Revealed revealed;
      revealed.uid = uid;
      revealed.round = {1};
      revealed.blob = digest_of(as_bytes("bytes"));
      revealed.steps = 10;
      revealed.tokens = 640;
      happen(revealed, 10);
    }
    happen(Aggregated{{1}, digest_of(as_bytes("sum")), digest_of(as_bytes("v")), 8, 8}, 10);
    Scores scores;
    scores.round = {1};
    scores.entries = {{kOne, Verdict::measured, {}, {3, 0.2, 0, 16}},
                      {kTwo, Verdict::measured, {}, {3, 0.1, 0, 16}}};
    happen(Scored{kJudge, scores, {}}, 10);
  }
  // So many blocks pass, in steps of `step`, each ended by an event that changes nothing.
  void wait(int blocks, int step) {
    for (int i = 0; i < blocks; i += step) {
      happen(Joined{bob().public_key(), Role::worker, "one", {}, 0}, step * kBlockMs);
    }
  }

 private:
  std::filesystem::path folder_;
  std::optional<Journal> journal_;
  TimeMs now_{1'000'000};
};

TEST(RunFollower, KnowsEachEpochOfALedgerThatCaughtUpOverSeveral) {
  const test::TemporaryFolder folder(test::TemporaryFolder::On::memory);
  for (const int step : {1, 40}) {
    RecordedRun run(folder.path() / std::to_string(step));
    run.wait(4, 4);
    run.score();
    run.wait(40, step);
  }
  RunFollower often(folder.path() / "1"), once(folder.path() / "40");
  EXPECT_TRUE(often.advance());
  EXPECT_TRUE(once.advance());
  ASSERT_GE(once.epochs().size(), 7u);
  ASSERT_EQ(once.epochs().size(), often.epochs().size());
  std::set<std::uint64_t> stakes;
  for (std::size_t i = 0; i < once.epochs().size(); ++i) {
    const RunEpoch &a = often.epochs()[i], &b = once.epochs()[i];
    EXPECT_EQ(a.block, b.block);
    ASSERT_EQ(a.pays.size(), b.pays.size()) << "epoch " << i + 1;
    for (std::size_t k = 0; k < a.pays.size(); ++k) {
      EXPECT_EQ(a.pays[k].incentive, b.pays[k].incentive) << "epoch " << i + 1;
      EXPECT_EQ(a.pays[k].dividends, b.pays[k].dividends) << "epoch " << i + 1;
      EXPECT_EQ(a.pays[k].stake, b.pays[k].stake) << "epoch " << i + 1;
    }
    if (!b.pays.empty()) stakes.insert(b.pays[0].stake);
  }
  EXPECT_GE(stakes.size(), 4u) << "nothing was earned, so nothing was compared";
}

TEST(RunFollower, StopsWithinARecordWhenAsked) {
  const test::TemporaryFolder folder(test::TemporaryFolder::On::memory);
  RecordedRun(folder.path() / "run").wait(100, 1);
  RunFollower follower(folder.path() / "run");
  int asked = 0;
  EXPECT_FALSE(follower.advance([&] { return ++asked > 30; }));
  EXPECT_EQ(asked, 31);
  const std::size_t epochs = follower.epochs().size();
  EXPECT_TRUE(follower.advance());  // and goes on from there
  EXPECT_GT(follower.epochs().size(), epochs);
}

TEST(LocalSettlement, IsWhatTheLedgerPaid_EpochByEpoch) {
  const test::TemporaryFolder folder(test::TemporaryFolder::On::memory);
  const auto run = folder.path() / "run";
  RecordedRun recorded(run);
  EXPECT_THROW(reconcile_run(run), Error);  // no epoch yet
  recorded.wait(10, 10);                    // the first one makes Alice a validator
  recorded.score();
  recorded.wait(30, 10);
  const auto record = open_run_record(run);
  EXPECT_TRUE(settles_locally(*record));
  RunFollower follower(*record, RunFollower::Keep::weights);
  follower.advance();
  const auto settlements = local_settlements(follower);
  ASSERT_GE(settlements.size(), 4u);
  EXPECT_GT(ledger_epoch_of(settlements.front().intent.id), 1u);
  EXPECT_EQ(ledger_epoch_of(settlements.back().intent.id), follower.epochs().size());
  EXPECT_EQ(settlements.back().phase, "effected");
  EXPECT_EQ(settlements.back().outcome->block, follower.epochs().back().block);
  EXPECT_FALSE(std::filesystem::exists(settlement_folder(run))) << "it is kept nowhere else";

  const Reconciliation newest = reconcile_run(run);
  EXPECT_TRUE(newest.local);
  ASSERT_EQ(newest.rows.size(), 3u);
  for (const ReconcileRow& row : newest.rows) {
    ASSERT_TRUE(row.predicted && row.paid);
    EXPECT_EQ(row.predicted->emission, row.paid->emission);
    EXPECT_TRUE(row.differences.empty());
  }
  const auto block = static_cast<std::uint32_t>(follower.epochs()[1].block);
  EXPECT_EQ(reconcile_run(run, block).epoch->number, 2u);

  const auto tables = settlement_tables(*record);
  ASSERT_EQ(tables.size(), 1u);
  EXPECT_EQ(tables[0].name, "settlements");
  EXPECT_EQ(std::get<std::vector<std::string>>(tables[0].columns[0].values).size(),
            settlements.size());
}

TEST(LocalSettlement, AnswersEveryCommandOfARunWithoutAChain) {
  const test::TemporaryFolder folder(test::TemporaryFolder::On::memory);
  const auto run = folder.path() / "run";
  RecordedRun recorded(run);
  const auto yumoe = [&](const std::string& command, const std::string& of) {
    return test::shell(std::string(YUMOE_BIN_DIR) + "/yumoe " + command + " " + of);
  };
  const auto young = yumoe("chain reconcile", run.string());
  EXPECT_NE(young.code, 0);
  EXPECT_THAT(young.output, HasSubstr("the run's ledger has had no epoch yet"));
  EXPECT_EQ(yumoe("chain settle", run.string()).code, 0);
  recorded.wait(10, 10);
  recorded.score();
  recorded.wait(30, 10);

  const auto exported = (folder.path() / "run.h5").string();
  ASSERT_EQ(yumoe("export", run.string() + " -o " + exported).code, 0);
  for (const std::string& of : {run.string(), exported}) {
    const auto status = yumoe("chain status", of);
    EXPECT_EQ(status.code, 0) << status.output;
    EXPECT_THAT(status.output, HasSubstr("settles with its own ledger"));
    EXPECT_THAT(status.output, HasSubstr("/local, block "));
    const auto told = json::parse(yumoe("chain status --json", of).output);
    EXPECT_EQ(told["target"], "local");
    EXPECT_EQ(told["settlements"].back()["phase"], "effected");
    const auto settle = yumoe("chain settle", of);
    EXPECT_EQ(settle.code, 0) << settle.output;
    EXPECT_THAT(settle.output, HasSubstr("are settled by the run's own ledger"));
    const auto settled = json::parse(yumoe("chain settle --json", of).output);
    EXPECT_EQ(settled["settled_epoch"], told["epochs"]);
    EXPECT_EQ(settled["receipts"].size(), told["settlements"].size());
    EXPECT_THAT(yumoe("chain reconcile", of).output, HasSubstr("they agree"));
    const auto reconciled = json::parse(yumoe("chain reconcile --json", of).output);
    EXPECT_EQ(reconciled["target"], "local");
    EXPECT_EQ(reconciled["ledger_epoch"], told["epochs"]);
    EXPECT_EQ(reconciled["rows"][0]["predicted"], reconciled["rows"][0]["paid"]);
  }
  // Asked for a chain, it wants to know which.
  const auto where = yumoe("chain settle --netuid 2", run.string());
  EXPECT_EQ(where.code, 2);
  EXPECT_THAT(where.output, HasSubstr("wallet"));
}

TEST(Readings, ThatDoNotFitOnTheDiskAreNamedAndHarmNothing) {
  const test::SmallDisk disk("96k");
  if (!disk.is_there()) GTEST_SKIP() << "mounting is not permitted here";
  ChainReading reading;
  reading.block = 7;
  append_reading(disk.path(), reading);
  reading.neurons.resize(4'000);
  for (auto& neuron : reading.neurons) neuron.hotkey = std::string(48, 'x');
  try {
    append_reading(disk.path(), reading);
    FAIL() << "written to a full disk";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::disk_full);
  }
  reading.neurons.clear();
  reading.block = 8;
  append_reading(disk.path(), reading);  // over the torn end
  std::ifstream in(settlement_folder(disk.path()) / "readings.jsonl");
  std::vector<std::uint32_t> blocks;
  for (std::string line; std::getline(in, line);) blocks.push_back(json::parse(line)["block"]);
  EXPECT_THAT(blocks, testing::ElementsAre(7, 8));
}

TEST(Readings, OfOneEpochAreKeptOnce_TheOneThatKnowsMore) {
  const test::TemporaryFolder folder{test::TemporaryFolder::On::memory};
  const std::filesystem::path run = folder.path() / "run";
  RecordedRun recorded{run};
  const auto read = [&](std::uint32_t block, std::uint64_t epoch, bool has_our_row) {
    ChainReading reading;
    reading.epoch_block = static_cast<std::uint32_t>(100 * epoch);
    reading.block = block;
    reading.chain_epoch = epoch;
    reading.has_our_row = has_our_row;
    append_reading(run, reading);
  };
  const auto blocks = [&] {
    std::vector<std::uint32_t> known;
    for (const ChainReading& reading : chain_readings(*open_run_record(run))) {
      known.push_back(reading.block);
    }
    return known;
  };
  read(100, 1, true);
  read(100, 1, true);
  read(390, 1, false);  // by a node that has the states of the epoch no more
  EXPECT_THAT(blocks(), testing::ElementsAre(100));
  read(290, 2, false);
  read(200, 2, true);  // by one that has them
  read(290, 2, false);
  EXPECT_THAT(blocks(), testing::ElementsAre(100, 200));
}

std::string le_hex(std::uint64_t value, int bytes) {
  Bytes out;
  for (int i = 0; i < bytes; ++i) out.push_back(static_cast<std::uint8_t>(value >> (8 * i)));
  return "0x" + to_hex(out);
}

// The run beside a recorded chain: Alice is uid 4 of subnet 2, Bob uid 5; an epoch every ten blocks.
class RunBesideAChain : public ::testing::Test {
 protected:
  RunBesideAChain() {
    put("Tempo", json::array({2}), le_hex(9, 2));
    put("WeightsSetRateLimit", json::array({2}), le_hex(0, 8));
    put("SubnetworkN", json::array({2}), le_hex(6, 2));
    enrol(4, alice());
    enrol(5, bob());
    options.target = "substrate";
    options.netuid = 2;
    options.rpc.endpoints = {chain.node.url()};
    options.settlement.era_blocks = 8;
    recorded.wait(10, 5);  // the first epoch makes Alice a validator of the ledger
    recorded.score();
    recorded.wait(30, 5);
  }
  void put(const char* item, const json& keys, const std::string& value, bool later = false) {
    const std::string storage_key =
        "0x" + to_hex(chain.metadata.storage_key("SubtensorModule", item, keys));
    later ? chain.set_storage_later(storage_key, value) : chain.set_storage(storage_key, value);
  }
  void enrol(std::uint64_t uid, const Keypair& who) {
    const std::string address = to_ss58(who.public_key());
    put("Uids", json::array({2, address}), le_hex(uid, 2));
    put("Keys", json::array({2, uid}), "0x" + to_hex(who.public_key().bytes));
  }
  // From the next block on the chain has Alice's weights: all for Bob.
  void chain_has_weights() { put("Weights", json::array({2, 4}), "0x040500ffff", true); }
  void blocks(RunSettler& settler, int count) {
    for (int i = 0; i < count; ++i) {
      chain.produce();
      for (int k = 0; k < 500 && settler.status().head != chain.number(); ++k) settler.step(20ms);
      settler.step(5ms);
    }
  }
  std::vector<std::uint64_t> in_force() const {
    std::vector<std::uint64_t> epochs;
    for (const ChainReading& reading : chain_readings(*open_run_record(run))) {
      EXPECT_EQ((reading.epoch_block + 3) % 10, 9u);
      EXPECT_EQ(reading.has_our_row, reading.epoch_block >= 5'000);  // as for them
      if (reading.epoch_block >= 5'000) {                            // older states are gone
        EXPECT_EQ(reading.block, reading.epoch_block);
      }
      epochs.push_back(reading.ledger_epoch);
    }
    return epochs;
  }

  const test::TemporaryFolder folder{test::TemporaryFolder::On::memory};
  const std::filesystem::path run = folder.path() / "run";
  RecordedRun recorded{run};
  RecordedChain chain;
  ChainOptions options;
};

TEST_F(RunBesideAChain, WeightsAreInForceFromTheNextEpochOfTheChain) {
  chain.outcome("set_weights good (ed25519)");
  RunSettler settler(run, options, alice());
  blocks(settler, 4);
  ASSERT_EQ(settler.receipts().size(), 1u) << settler.status().trouble << settler.status().missing;
  const std::uint64_t settled = settler.status().settled_epoch;
  EXPECT_GT(settled, 0u);
  EXPECT_EQ(settler.status().in_force_epoch, 0u);
  chain_has_weights();
  while (chain.number() < 5'020) blocks(settler, 1);
  EXPECT_EQ(settler.status().in_force_epoch, settled);
  const auto epochs = in_force();
  EXPECT_EQ(epochs.front(), 0u);  // paid before the run had set anything
  EXPECT_EQ(epochs.back(), settled);
  const Reconciliation found = reconcile_run(run);
  EXPECT_FALSE(found.local);
  EXPECT_EQ(found.reading.ledger_epoch, settled);
  ASSERT_TRUE(found.epoch);
  // Eve is not on the chain, so that for the chain Bob has all: as in the ledger, but for her.
  EXPECT_TRUE(found.same_weights);
  EXPECT_EQ(found.epoch->number, settled);
}

TEST_F(RunBesideAChain, ACommitThatIsIncludedIsNotInForceBeforeItsReveal) {
  put("CommitRevealWeightsEnabled", json::array({2}), "0x01");
  chain.outcome("commit_weights good");
  RunSettler settler(run, options, alice());
  blocks(settler, 4);
  ASSERT_EQ(settler.receipts().size(), 1u) << settler.status().trouble << settler.status().missing;
  const std::uint64_t settled = settler.status().settled_epoch;
  EXPECT_GT(settled, 0u);
  chain.outcome("reveal_weights good");
  while (settler.receipts().size() < 2 && chain.number() < 5'040) blocks(settler, 1);
  ASSERT_EQ(settler.receipts().size(), 2u) << settler.status().trouble;
  EXPECT_THAT(settler.receipts()[1].id, HasSubstr("/reveal"));
  EXPECT_EQ(settler.status().in_force_epoch, 0u) << "it took a commit for weights";
  const Reconciliation before = reconcile_run(run);
  EXPECT_EQ(before.reading.ledger_epoch, 0u);
  bool explained = false;
  for (const ReconcileRow& row : before.rows) {
    for (const auto& d : row.differences) explained |= d.cause.starts_with("not in force yet");
  }
  EXPECT_TRUE(explained);
  chain_has_weights();
  const std::uint32_t until = chain.number() + 11;
  while (chain.number() < until) blocks(settler, 1);
  EXPECT_EQ(settler.status().in_force_epoch, settled);
  EXPECT_EQ(in_force().back(), settled);
}

TEST_F(RunBesideAChain, ASettlementThreadThatReadsALongHistoryEndsAtOnce) {
  recorded.wait(10'000, 1);
  std::optional<SettlementThread> thread(std::in_place, run, options, alice());
  std::this_thread::sleep_for(100ms);  // it is reading by now
  const auto start = std::chrono::steady_clock::now();
  thread.reset();
  EXPECT_LT(std::chrono::steady_clock::now() - start, 3s);  // also under a sanitizer
}

}  // namespace
}  // namespace yumoe
