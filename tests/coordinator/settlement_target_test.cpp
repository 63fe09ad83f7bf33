// Settling over a real WebSocket against recorded answers, with the machine, the signer and the
// codec that a run uses. And what the plans promise.

#include "coordinator/settlement_target.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "cluster/error.hpp"
#include "coordinator/disks.hpp"
#include "coordinator/recorded_chain.hpp"
#include "coordinator/timelock.hpp"

namespace yumoe::settlement {
namespace {

using namespace std::chrono_literals;
using nlohmann::json;
using test::Fault;
using test::RecordedChain;
using ::testing::HasSubstr;

// Lets blocks pass until something ends.
std::optional<Receipt> until_receipt(SubstrateSettlement& target, RecordedChain& chain,
                                     int blocks_max) {
  for (int i = 0; i < blocks_max; ++i) {
    for (Receipt& receipt : target.poll(50ms)) return receipt;
    chain.produce();
    for (Receipt& receipt : target.poll(100ms)) return receipt;
  }
  return std::nullopt;
}

class Settling : public ::testing::Test {
 protected:
  Settling() {
    rpc.endpoints = {chain.node.url()};
    rpc.pause_first_ms = 2;
    rpc.pause_max_ms = 20;
    rpc.call_timeout_ms = 400;
    restart();
    chain.outcome("set_weights good (ed25519)");
  }
  // As after kill -9: everything but the journal is gone.
  void restart() {
    target.reset();
    client.reset();
    client = std::make_unique<RpcClient>(rpc);
    SubstrateOptions options;
    options.salt_seed = Bytes(32, 7);
    options.now = [] { return drand_round_time(20'000'000); };
    options.settlement.era_blocks = 16;
    target = std::make_unique<SubstrateSettlement>(
        *client, journal,
        [this](const PublicKey& signer) { return signer == key.public_key() ? &key : nullptr; },
        options);
  }
  SubnetWeights weights(std::uint64_t epoch = 1) const {
    SubnetWeights out;
    out.netuid = Netuid{2};
    out.ledger_epoch = epoch;
    out.validator = key.public_key();
    out.uids = {1, 2, 3};
    out.values = {100, 100, 100};
    return out;
  }
  std::optional<Receipt> until_receipt(int blocks_max = 60) {
    return settlement::until_receipt(*target, chain, blocks_max);
  }

  RecordedChain chain;
  ChainRpcOptions rpc;
  Keypair key = Keypair::from_seed(KeyType::ed25519, Bytes(32, 1));
  MemoryJournal journal;
  std::unique_ptr<RpcClient> client;
  std::unique_ptr<SubstrateSettlement> target;
};

TEST_F(Settling, PutsWeightsOnTheChainOnceAndReadsTheirEffectFromEvents) {
  target->settle(weights());
  const auto receipt = until_receipt();
  ASSERT_TRUE(receipt) << target->trouble();
  EXPECT_TRUE(receipt->outcome.effected) << receipt->outcome.reason;
  EXPECT_THAT(receipt->outcome.events, HasSubstr("SubtensorModule.WeightsSet"));
  target->settle(weights());  // the same epoch again
  EXPECT_FALSE(until_receipt(3));
  ASSERT_EQ(chain.included().size(), 1u);
  const json call = chain.metadata.decode_call(chain.included()[0].call);
  EXPECT_EQ(call["call_function"], "set_weights");
}

TEST_F(Settling, AnAnswerThatIsLostAfterSendingIsLookedForAndNotSentTwice) {
  chain.node.fault("author_submitAndWatchExtrinsic", Fault::answer_then_drop);
  target->settle(weights());
  const auto receipt = until_receipt();
  ASSERT_TRUE(receipt) << target->trouble();
  EXPECT_TRUE(receipt->outcome.effected);
  EXPECT_EQ(chain.included().size(), 1u);
}

TEST_F(Settling, ASendingThatNeverArrivedIsSentAgainAfterLooking) {
  chain.node.fault("author_submitAndWatchExtrinsic", Fault::disconnect);
  target->settle(weights());
  const auto receipt = until_receipt();
  ASSERT_TRUE(receipt) << target->trouble();
  EXPECT_TRUE(receipt->outcome.effected);
  EXPECT_EQ(chain.included().size(), 1u);
  EXPECT_EQ(chain.node.received("author_submitAndWatchExtrinsic"), 2u);
}

TEST_F(Settling, ACrashAfterSendingIsFoundInTheBlocks) {
  target->settle(weights());
  target->poll(50ms);
  ASSERT_EQ(chain.node.received("author_submitAndWatchExtrinsic"), 1u);
  restart();
  chain.produce(3);  // it is included while nobody looks
  target->settle(weights());
  const auto receipt = until_receipt();
  ASSERT_TRUE(receipt) << target->trouble();
  EXPECT_TRUE(receipt->outcome.effected);
  EXPECT_EQ(receipt->outcome.block, 5001u);
  EXPECT_EQ(chain.included().size(), 1u);
}

TEST_F(Settling, ATransactionThatThePoolLostIsSentAgain) {
  target->settle(weights());
  target->poll(50ms);
  chain.forget_pool();
  chain.node.disconnect_all();  // and the watch with it
  const auto receipt = until_receipt();
  ASSERT_TRUE(receipt) << target->trouble();
  EXPECT_TRUE(receipt->outcome.effected);
  EXPECT_EQ(chain.included().size(), 1u);
}

TEST_F(Settling, BlocksTakenBackBeforeItIsIncludedAreReadAnewWithTheirNumbers) {
  chain.hold_pool(true);
  target->settle(weights());
  target->poll(50ms);
  for (int i = 0; i < 6; ++i) {  // it is looked for in all of these
    chain.produce();
    target->poll(100ms);
  }
  ASSERT_EQ(target->head(), 5006u);
  chain.set_back(5);
  target->poll(100ms);
  EXPECT_EQ(target->head(), 5001u);
  chain.hold_pool(false);
  const auto receipt = until_receipt(10);
  ASSERT_TRUE(receipt) << target->trouble();
  EXPECT_TRUE(receipt->outcome.effected) << receipt->outcome.reason;
  EXPECT_EQ(receipt->outcome.block, 5002u);
  EXPECT_EQ(chain.included().size(), 1u);
}

TEST_F(Settling, NumbersThatTheChainLeftOutArePassedOver) {
  target->settle(weights());
  target->poll(50ms);
  chain.forget_pool();
  chain.produce(2);
  chain.leave_out(20);  // with the end of its era
  const auto receipt = until_receipt(8);
  ASSERT_TRUE(receipt) << target->trouble();
  EXPECT_TRUE(receipt->outcome.effected) << receipt->outcome.reason;
  EXPECT_GT(receipt->outcome.block, 5'020u);
  EXPECT_EQ(chain.included().size(), 1u);
}

TEST_F(Settling, ABlockReplacedByOneOfItsNumberOrUnseenAboveItIsNoticed) {
  chain.hold_pool(true);
  target->settle(weights());
  target->poll(50ms);
  chain.produce(4);
  for (int i = 0; i < 4; ++i) target->poll(100ms);
  ASSERT_EQ(target->head(), 5004u);
  // Nobody looks while three blocks are taken back and more are built; the first new one has it.
  client->close();
  target.reset();
  chain.set_back(3);
  restart();
  chain.hold_pool(false);
  chain.produce(6);
  const auto receipt = until_receipt(10);
  ASSERT_TRUE(receipt) << target->trouble();
  EXPECT_TRUE(receipt->outcome.effected) << receipt->outcome.reason;
  EXPECT_EQ(receipt->outcome.block, 5002u);
  EXPECT_EQ(chain.included().size(), 1u);
}

TEST_F(Settling, ANodeThatIsBehindTakesNothingBack) {
  chain.hold_pool(true);
  target->settle(weights());
  target->poll(50ms);
  chain.produce(4);
  for (int i = 0; i < 4; ++i) target->poll(100ms);
  ASSERT_EQ(target->head(), 5004u);
  // Another connection, to one that knows less.
  chain.node.disconnect_all();
  chain.set_back(2);
  for (int i = 0; i < 5; ++i) target->poll(50ms);
  EXPECT_EQ(target->head(), 5004u);
}

TEST_F(Settling, ABlockTimeIsMeasuredWhereTheRuntimeDoesNotSayIt) {
  // The recorded runtime with both constants under names nobody knows.
  const std::string raw =
      test::read_recorded("tests/conformance/data/chain/metadata_spec218_v14.gz");
  const auto renamed = [&](std::vector<std::pair<std::string, std::string>> names) {
    Bytes bytes(raw.begin(), raw.end());
    for (const auto& [name, to] : names) {
      auto found = bytes.begin();
      while ((found = std::search(found, bytes.end(), name.begin(), name.end())) != bytes.end()) {
        found = std::copy(to.begin(), to.end(), found);
      }
    }
    return Metadata::parse(bytes);
  };
  ChainNode node(*client);
  const Metadata silent =
      renamed({{"SlotDuration", "SlotDulation"}, {"MinimumPeriod", "MinimumPeliod"}});
  const auto rule_by = [&](const Metadata& metadata) {
    return read_subnet_rule(node, metadata, node.finalized_head(), Netuid{2}).block_time;
  };
  const auto period = chain.metadata.constant_value("Timestamp", "MinimumPeriod");
  EXPECT_EQ(rule_by(chain.metadata).count(), 2 * period.get<std::int64_t>());
  // Blocks of 250 ms by their own clock, after 16 of them.
  const std::string now = "0x" + to_hex(storage_prefix("Timestamp", "Now"));
  const auto blocks_at = [&](std::uint64_t step) {
    std::uint64_t time = 1'700'000'000'000;
    for (int i = 0; i < 20; ++i, time += step) {
      Bytes written;
      for (int byte = 0; byte < 8; ++byte) {
        written.push_back(static_cast<std::uint8_t>(time >> (8 * byte)));
      }
      chain.set_storage_later(now, "0x" + to_hex(written));
      chain.produce();
    }
  };
  blocks_at(250);
  EXPECT_EQ(rule_by(silent), 250ms);
  blocks_at(0);  // a clock that stands says nothing
  EXPECT_THROW(rule_by(silent), Error);
}

TEST_F(Settling, AnUpgradeInFlightIsSignedForTheNewRuntimeWithTheSameNonce) {
  target->settle(weights());
  target->poll(50ms);
  chain.forget_pool();
  chain.upgrade();
  const auto receipt = until_receipt();
  ASSERT_TRUE(receipt) << target->trouble();
  EXPECT_TRUE(receipt->outcome.effected);
  ASSERT_EQ(chain.included().size(), 1u);
  EXPECT_EQ(chain.included()[0].nonce, 0u);
  EXPECT_EQ(chain.node.received("author_submitAndWatchExtrinsic"), 2u);
}

TEST_F(Settling, ARecordedRateLimitIsWaitedOut) {
  chain.outcome("rate limit: set_weights again at once");
  target->settle(weights());
  while (chain.included().empty()) {
    target->poll(50ms);
    chain.produce();
  }
  target->poll(100ms);
  chain.outcome("set_weights good (ed25519)");
  const auto receipt = until_receipt(150);
  ASSERT_TRUE(receipt) << target->trouble();
  EXPECT_TRUE(receipt->outcome.effected) << receipt->outcome.reason;
  EXPECT_EQ(chain.included().size(), 2u);
}

TEST_F(Settling, EveryRecordedDispatchErrorEndsTheIntentByItsName) {
  const auto outcomes = json::parse(test::read_recorded(test::kOutcomes));
  std::uint64_t epoch = 10;
  for (const auto& outcome : outcomes) {
    const auto error = outcome.find("dispatch_error");
    if (error == outcome.end() || error->is_null() || !error->contains("name")) continue;
    const std::string name = (*error)["name"];
    if (reaction_to(name).kind != Reaction::Kind::stop) continue;
    SCOPED_TRACE(outcome["label"].get<std::string>());
    chain.outcome(outcome["label"]);
    target->settle(weights(++epoch));
    const auto receipt = until_receipt();
    ASSERT_TRUE(receipt) << target->trouble();
    EXPECT_FALSE(receipt->outcome.effected);
    EXPECT_EQ(receipt->outcome.reason, "SubtensorModule." + name);
    EXPECT_FALSE(receipt->outcome.advice.empty());
  }
  EXPECT_GE(epoch, 20u);
}

TEST_F(Settling, ARecordedPoolRefusalEndsTheIntentByItsName) {
  chain.node.answer("author_submitAndWatchExtrinsic", [](const std::string&) {
    return test::Reply{.error = R"({"code":1010,"message":"{\"invalid\":{\"custom\":3}}"})"};
  });
  target->settle(weights());
  const auto receipt = until_receipt();
  ASSERT_TRUE(receipt);
  EXPECT_EQ(receipt->outcome.reason, "StakeTooLowToSetWeights");
  EXPECT_THAT(receipt->outcome.advice, HasSubstr("stake"));
}

TEST_F(Settling, HashCommitsAreRevealedInTheirEpoch) {
  const auto key_of = [&](const char* item) {
    return "0x" + to_hex(chain.metadata.storage_key("SubtensorModule", item, json::array({2})));
  };
  chain.set_storage(key_of("CommitRevealWeightsEnabled"), "0x01");
  chain.set_storage(key_of("Tempo"), "0x0900");  // an epoch is ten blocks
  chain.outcome("commit_weights good");
  target->settle(weights());
  const auto commit = until_receipt();
  ASSERT_TRUE(commit) << target->trouble();
  ASSERT_TRUE(commit->outcome.effected) << commit->outcome.reason;
  chain.outcome("reveal_weights good");
  const auto reveal = until_receipt();
  ASSERT_TRUE(reveal) << target->trouble();
  EXPECT_TRUE(reveal->outcome.effected) << reveal->outcome.reason;
  EpochClock clock;
  clock.netuid = Netuid{2};
  clock.tempo = 9;
  EXPECT_EQ(clock.epoch_at(reveal->outcome.block), clock.epoch_at(commit->outcome.block) + 1);
  // What was revealed hashes to what was committed.
  ASSERT_EQ(chain.included().size(), 2u);
  const json committed = json::parse(target->status()[0].intent.arguments);
  const json revealed = json::parse(target->status()[1].intent.arguments);
  const Digest hash =
      commit_hash(key.public_key(), 2, revealed["uids"].get<std::vector<std::uint16_t>>(),
                  revealed["values"].get<std::vector<std::uint16_t>>(),
                  revealed["salt"].get<std::vector<std::uint16_t>>(), revealed["version_key"]);
  EXPECT_EQ(committed["commit_hash"], "0x" + hash.hex());
}

// No session with such a runtime was recorded: its metadata is a live node's, the events of success are
// put together here by that metadata.
std::string success_events(const Metadata& metadata, std::string_view effect) {
  const auto event = [&](std::string_view pallet_name, std::string_view name) {
    const Pallet& pallet = metadata.pallet(pallet_name);
    const TypeVariant* variant = metadata.types().at(*pallet.event).variant(name);
    std::string hex = "0001000000" + to_hex(Bytes{pallet.index, variant->index});
    for (const TypeField& field : variant->fields) {
      Bytes zeros;
      for (ScaleReader reader{zeros};; reader = ScaleReader{zeros}) {
        try {
          skip_value(metadata.types(), field.type, reader);
          break;
        } catch (const Error&) {
          zeros.push_back(0);
        }
      }
      hex += to_hex(zeros);
    }
    return hex + "00";
  };
  return "0x08" + event("SubtensorModule", effect) + event("System", "ExtrinsicSuccess");
}

TEST(SettlingTimelocked, CommitsOpenAtTheirRoundWithNothingMoreToSend) {
  RecordedChain chain(RecordedChain::Runtime::spec461);
  chain.outcome_bytes(success_events(chain.metadata, "TimelockedWeightsCommitted"));
  const Keypair key = Keypair::from_seed(KeyType::ed25519, Bytes(32, 1));
  ChainRpcOptions rpc;
  rpc.endpoints = {chain.node.url()};
  RpcClient client(rpc);
  ChainNode node(client);
  const Digest head = node.finalized_head();
  const SubnetRule rule = read_subnet_rule(node, chain.metadata, head, Netuid{2});
  ASSERT_EQ(rule.rule, WeightsRule::timelocked_commit);
  // Planned at the moment from which the reveal falls into round 1000, whose signature is known.
  const std::uint32_t block = chain.number();
  const std::uint32_t reveal =
      rule.epochs.first_block_of(rule.epochs.epoch_at(block) + rule.reveal_period);
  const TimeMs now = drand_round_time(1001) + rule.block_time * (std::int64_t{block} - reveal - 3);
  MemoryJournal journal;
  SubstrateOptions options;
  options.settlement.era_blocks = 16;
  options.now = [now] { return now; };
  SubstrateSettlement target(
      client, journal, [&](const PublicKey&) { return &key; }, options);
  SubnetWeights weights{Netuid{2}, 1, 1, key.public_key(), {1, 2, 3}, {10, 20, 30}};
  target.settle(weights);
  const auto receipt = until_receipt(target, chain, 30);
  ASSERT_TRUE(receipt) << target.trouble();
  EXPECT_TRUE(receipt->outcome.effected) << receipt->outcome.reason;
  ASSERT_EQ(chain.included().size(), 1u);
  const json call = chain.metadata.decode_call(chain.included()[0].call);
  EXPECT_EQ(call["call_function"], "commit_timelocked_weights");
  std::map<std::string, json> arguments;
  for (const json& argument : call["call_args"]) arguments[argument["name"]] = argument["value"];
  EXPECT_EQ(arguments["reveal_round"], 1000u);
  std::ifstream in("tests/conformance/data/chain/timelock_round1000.json");
  const std::string signature = json::parse(in)["drand_quicknet_signature"];
  EXPECT_EQ(timelock_open(from_hex(arguments["commit"].get<std::string>()), from_hex(signature)),
            timelock_weights_payload(key.public_key().bytes, weights.uids, weights.values,
                                     rule.version_key));
}

// Each recorded runtime by its own metadata and defaults: another rule, other indices, extensions, types of
// a netuid and block times.
TEST(SettlingEveryRuntime, SetsWeightsByTheRuntimesOwnRule) {
  namespace fs = std::filesystem;
  const std::string root = YUMOE_SOURCE_DIR;
  std::vector<fs::path> folders{root + "/tests/conformance/data/chain/metadata/spec148",
                                root + "/tests/conformance/data/chain/metadata/spec218"};
  for (const char* around : {"/..", "/../.."}) {
    for (const char* name : {"devnet_spec346", "devnet_spec381"}) {
      const fs::path folder = root + around + "/shared/vectors/chain/metadata/" + name;
      if (fs::exists(folder)) folders.push_back(folder);
    }
  }
  for (const fs::path& folder : folders) {
    SCOPED_TRACE(folder.string());
    const std::string name = folder.filename().string();
    const auto spec = static_cast<std::uint32_t>(std::stoul(name.substr(name.find("spec") + 4)));
    RecordedChain chain(folder.string(), spec);
    const Keypair key = Keypair::from_seed(KeyType::ed25519, Bytes(32, 1));
    ChainRpcOptions rpc;
    rpc.endpoints = {chain.node.url()};
    RpcClient client(rpc);
    ChainNode node(client);
    const SubnetRule rule =
        read_subnet_rule(node, chain.metadata, node.finalized_head(), Netuid{2});
    EXPECT_EQ(rule.rule, spec < 300 ? WeightsRule::plain : WeightsRule::timelocked_commit);
    EXPECT_GT(rule.epochs.tempo, 0u);
    EXPECT_GT(rule.block_time, 0ms);
    const bool plain = rule.rule == WeightsRule::plain;
    chain.outcome_bytes(
        success_events(chain.metadata, plain ? "WeightsSet" : "TimelockedWeightsCommitted"));
    MemoryJournal journal;
    SubstrateOptions options;
    options.settlement.era_blocks = 16;
    options.now = [] { return drand_round_time(20'000'000); };
    SubstrateSettlement target(
        client, journal, [&](const PublicKey&) { return &key; }, options);
    target.settle({Netuid{2}, 1, 1, key.public_key(), {1, 2, 3}, {10, 20, 30}});
    const auto receipt = until_receipt(target, chain, 30);
    ASSERT_TRUE(receipt) << target.trouble();
    EXPECT_TRUE(receipt->outcome.effected) << receipt->outcome.reason;
    ASSERT_EQ(chain.included().size(), 1u);
    EXPECT_EQ(chain.metadata.decode_call(chain.included()[0].call)["call_function"],
              plain ? "set_weights" : "commit_timelocked_weights");
  }
}

TEST_F(Settling, AQueueOfAnotherChainSendsNothingThere) {
  target->settle(weights());
  target->poll(50ms);
  ASSERT_EQ(target->status().size(), 1u);
  // The same queue in front of a chain with another genesis.
  RecordedChain other;
  other.node.answer("chain_getBlockHash", [](const std::string&) {
    return test::Reply{.result = "\"0x" + std::string(64, '9') + "\""};
  });
  rpc.endpoints = {other.node.url()};
  restart();
  other.produce(3);
  for (int i = 0; i < 20; ++i) EXPECT_TRUE(target->poll(10ms).empty());
  EXPECT_THAT(target->trouble(), HasSubstr("of the chain with genesis 0x4545"));
  EXPECT_EQ(other.node.received("author_submitAndWatchExtrinsic"), 0u);
  SubstrateOptions options;
  options.genesis = Digest{};
  EXPECT_THROW(SubstrateSettlement(
                   *client, journal, [](const PublicKey&) { return nullptr; }, options),
               Error);
}

TEST_F(Settling, AnEpochThatWasMissedIsAnotherTurn) {
  const SubnetRule rule;
  SubnetWeights again = weights(7);
  const std::string first = plan_weights(rule, again, 5000, {}, Bytes(32, 7)).id;
  again.turn = 2;
  const std::string second = plan_weights(rule, again, 5000, {}, Bytes(32, 7)).id;
  EXPECT_TRUE(first.starts_with(settlement_prefix(Netuid{2}, key.public_key())));
  EXPECT_THAT(first, HasSubstr("/epoch 7/set"));
  EXPECT_THAT(second, HasSubstr("/epoch 7/turn 2/set"));
}

TEST_F(Settling, GoesOnQuietlyWhileTheChainIsAway) {
  chain.node.refuse(true);
  chain.node.disconnect_all();
  target->settle(weights());
  // A slow machine notices late that the line is gone.
  const auto is_away = [&] {
    return target->trouble().find("peer did not answer") != std::string::npos;
  };
  for (int i = 0; i < 500 && !is_away(); ++i) EXPECT_TRUE(target->poll(10ms).empty());
  EXPECT_TRUE(is_away()) << target->trouble();
  chain.node.refuse(false);
  const auto receipt = until_receipt();
  ASSERT_TRUE(receipt) << target->trouble();
  EXPECT_TRUE(receipt->outcome.effected);
}

TEST_F(Settling, ALineThatWasClosedForGoodEndsEveryPoll) {
  target->poll(50ms);
  client->close();
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(target->poll(10ms).empty());
  EXPECT_THAT(target->trouble(), HasSubstr("closed here"));
}

TEST_F(Settling, AKeyThatIsNotHereIsSaid) {
  SubnetWeights foreign = weights();
  foreign.validator = Keypair::from_seed(KeyType::ed25519, Bytes(32, 2)).public_key();
  target->settle(foreign);
  const auto receipt = until_receipt();
  ASSERT_TRUE(receipt);
  EXPECT_THAT(receipt->outcome.reason, HasSubstr("KeyMissing"));
}

TEST_F(Settling, ReadsTheRuleOfTheRecordedSubnet) {
  ChainNode node(*client);
  const SubnetRule rule = read_subnet_rule(node, chain.metadata, node.finalized_head(), Netuid{2});
  EXPECT_EQ(rule.rule, WeightsRule::plain);
  EXPECT_EQ(rule.epochs.tempo, 99u);
  EXPECT_EQ(rule.version_key, 5u);
  EXPECT_GT(rule.block_time, 0ms);
}

// ---- local, files, plans
// -------------------------------------------------------------------------

TEST(LocalSettlement, IsFinalAtOnceAndOnce) {
  LocalSettlement local;
  SubnetWeights weights;
  weights.ledger_epoch = 3;
  weights.uids = weights.values = {7};
  local.at_block(60);
  local.settle(weights);
  local.settle(weights);
  EXPECT_EQ(local.poll(0ms).size(), 1u);
  EXPECT_TRUE(local.poll(0ms).empty());
  ASSERT_EQ(local.status().size(), 1u);
  EXPECT_EQ(local.status()[0].phase, "effected");
  EXPECT_EQ(local.status()[0].outcome->block, 60u);
  EXPECT_EQ(json::parse(local.status()[0].intent.arguments)["dests"], json::array({7}));
}

TEST(FileJournal, TakesBackWhatAFullDiskCutsShort) {
  const test::SmallDisk disk("64k");
  if (!disk.is_there()) GTEST_SKIP() << "mounting is not permitted here";
  const auto file = disk.path() / "journal";
  FileJournal journal(file);
  journal.append(as_bytes("first"));
  const Bytes large(100'000, 'x');
  try {
    journal.append(large);
    FAIL() << "written to a full disk";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::disk_full);
    EXPECT_THAT(error.what(), HasSubstr("free some space"));
  }
  journal.append(as_bytes("second"));  // what still fits is not behind a torn entry
  std::ifstream in(file, std::ios::binary);
  const Bytes bytes{std::istreambuf_iterator<char>(in), {}};
  EXPECT_EQ(settlement_entries(bytes, "journal").size(), 2u);
}

TEST(FileJournal, KeepsEntriesCutsATornEndAndRefusesOtherDamage) {
  const auto file = std::filesystem::temp_directory_path() / "yumoe_settlement_journal_test";
  std::filesystem::remove(file);
  {
    FileJournal journal(file);
    journal.append(as_bytes("first"));
    journal.append(as_bytes("second"));
    EXPECT_THROW(FileJournal{file}, Error);  // one process at a time
  }
  const auto size = std::filesystem::file_size(file);
  std::filesystem::resize_file(file, size - 1);
  {
    FileJournal journal(file);
    ASSERT_EQ(journal.load().size(), 1u);
    journal.append(as_bytes("third"));
  }
  {
    FileJournal journal(file);
    ASSERT_EQ(journal.load().size(), 2u);
    EXPECT_EQ(journal.load()[1], Bytes({'t', 'h', 'i', 'r', 'd'}));
  }
  std::fstream damage(file, std::ios::in | std::ios::out | std::ios::binary);
  damage.seekp(38);
  damage.put('X');
  damage.close();
  EXPECT_THROW(FileJournal{file}, Error);
  std::filesystem::remove(file);
}

TEST(CommitHash, IsTheOneARuntimeAccepted) {
  std::ifstream in("tests/conformance/data/chain/rpc/commit_reveal_vector.json");
  const json vector = json::parse(in);
  PublicKey who;
  const Bytes bytes = from_hex(vector["who"].get<std::string>());
  std::copy(bytes.begin(), bytes.end(), who.bytes.begin());
  const auto list = [&](const char* name) {
    return vector[name].get<std::vector<std::uint16_t>>();
  };
  EXPECT_EQ("0x" + commit_hash(who, vector["netuid"], list("uids"), list("values"), list("salt"),
                               vector["version_key"])
                       .hex(),
            vector["commit_hash_blake2_256"].get<std::string>());
}

TEST(EpochClock, OlderRuntimesEpochsFollowTheBlockNumber) {
  EpochClock clock;
  clock.netuid = Netuid{3};
  clock.tempo = 10;
  for (std::uint32_t block = 50; block < 200; ++block) {
    const bool runs = (block + 3 + 1) % 11 == 10;
    EXPECT_EQ(clock.next_run_after(block - 1) == block, runs) << block;
    EXPECT_EQ(clock.epoch_at(block + 1), clock.epoch_at(block) + (runs ? 1 : 0));
    EXPECT_LE(clock.first_block_of(clock.epoch_at(block)), block);
    EXPECT_GT(clock.first_block_of(clock.epoch_at(block) + 1), block);
  }
}

TEST(EpochClock, NewerRuntimesEpochsAreCountedFromTheLast) {
  EpochClock clock;
  clock.kind = EpochClock::Kind::counted;
  clock.tempo = 10;
  clock.last_epoch_block = 100;
  clock.epoch_index = 7;
  EXPECT_EQ(clock.epoch_at(100), 7u);
  EXPECT_EQ(clock.epoch_at(109), 7u);
  EXPECT_EQ(clock.epoch_at(110), 8u);  // due now counts as the next
  EXPECT_EQ(clock.first_block_of(8), 110u);
  EXPECT_EQ(clock.next_run_after(100), 110u);
  EXPECT_EQ(clock.next_run_after(110), 120u);
}

TEST(Plans, TimelockedWeightsAreSealedToTheRevealEpochsRound) {
  SubnetRule rule;
  rule.rule = WeightsRule::timelocked_commit;
  rule.epochs.tempo = 99;
  SubnetWeights weights;
  weights.uids = {1, 2};
  weights.values = {1, 2};
  const TimeMs now = drand_round_time(1'000'000);
  const Intent intent = plan_weights(rule, weights, 1'010, now, {});
  const json arguments = json::parse(intent.arguments);
  // Epoch 10 ends before block 1099: 89 blocks and three of margin, 12 s each, from round 999,999.
  EXPECT_EQ(arguments["reveal_round"], 999'999 + (89 + 3) * 4);
  EXPECT_EQ(arguments["commit_reveal_version"], 4);
  EXPECT_EQ(intent.latest, 1'098u);
  EXPECT_EQ(intent.effect_event, "SubtensorModule.TimelockedWeightsCommitted");
}

// ---- in force

// One that took effect in `block`.
IntentStatus effected(Intent intent, std::uint32_t block) {
  IntentStatus status;
  status.intent = std::move(intent);
  status.phase = "effected";
  status.outcome = Outcome{};
  status.outcome->effected = true;
  status.outcome->block = block;
  return status;
}

class InForce : public ::testing::Test {
 protected:
  SubnetWeights weights(std::uint64_t epoch, std::uint16_t second) const {
    SubnetWeights out;
    out.netuid = Netuid{2};
    out.ledger_epoch = epoch;
    out.uids = {1, 2, 3};
    out.values = {100, second, 0};
    return out;
  }
  void commit(const SubnetWeights& weights, std::uint32_t block) {
    queue.push_back(
        effected(plan_weights(rule, weights, block, drand_round_time(20'000'000), {}), block));
  }
  // The epoch to which the row went by; "" if by none.
  std::string at(std::uint32_t epoch_block, const ChainRow& row) const {
    const auto standing = standing_weights(queue, settlement_prefix(Netuid{2}, {}));
    const auto* found = in_force(standing, {rule.epochs.paid_by(epoch_block), epoch_block, row});
    if (found == nullptr) return "";
    const std::string& id = found->intent.id;
    return id.substr(id.find("/epoch ") + 1);
  }
  InForce() {
    rule.epochs.netuid = Netuid{2};
    rule.epochs.tempo = 9;  // runs in blocks 6, 16, 26, ...
  }

  SubnetRule rule;
  std::vector<IntentStatus> queue;
  const ChainRow half{{1, 65'535}, {2, 32'768}}, whole{{1, 65'535}, {2, 65'535}};
};

TEST_F(InForce, PlainWeightsAreFromTheNextEpochThatRuns) {
  EXPECT_EQ(rule.epochs.last_run_by(110), 106u);
  commit(weights(4, 50), 103);
  EXPECT_EQ(at(96, half), "");
  EXPECT_EQ(at(106, half), "epoch 4/set");
  EXPECT_EQ(at(106, whole), "");  // somebody else set others
  commit(weights(5, 50), 106);    // the same, too late for the epoch of this block
  EXPECT_EQ(at(106, half), "epoch 4/set");
  EXPECT_EQ(at(116, half), "epoch 5/set");
}

TEST_F(InForce, AHashCommitIsNot_UntilItsRevealIsInABlock) {
  rule.rule = WeightsRule::hash_commit;
  commit(weights(4, 50), 103);
  queue.push_back(effected(plan_reveal(rule, queue[0].intent, 103), 113));
  commit(weights(5, 100), 113);
  EXPECT_EQ(at(106, {}), "");
  EXPECT_EQ(at(106, whole), "");  // whatever the row was, it was not of this commit
  EXPECT_EQ(at(116, half), "epoch 4/commit");
  // The row alone does not tell: with one worker every row is alike.
  EXPECT_EQ(at(126, whole), "");
}

TEST_F(InForce, ATimelockedCommitIsNot_UntilTheChainHasOpenedIt) {
  rule.rule = WeightsRule::timelocked_commit;
  rule.reveal_period = 2;
  commit(weights(4, 50), 103);  // booked to the epoch that ends with block 106
  commit(weights(5, 50), 113);
  EXPECT_EQ(at(106, {}), "");
  EXPECT_EQ(at(116, {}), "");
  EXPECT_EQ(at(126, half), "epoch 4/timelocked");  // the same weights of 5 are still sealed
  EXPECT_EQ(at(136, half), "epoch 5/timelocked");
  // What an older release did not note cannot be known.
  queue[1].intent.note.clear();
  EXPECT_EQ(at(136, half), "epoch 4/timelocked");
}

TEST(Reconcile, SaysThatWeightsWereSealedOrCameTooLate) {
  const std::vector<NeuronResult> ledger{{Uid{1}, "b", 11, 0, 5, 6}};
  const std::vector<NeuronResult> chain{{Uid{1}, "b", 12, 0, 5, 6}};
  SubnetRule rule;
  rule.rule = WeightsRule::timelocked_commit;
  rule.epochs.tempo = 9;
  SubnetWeights weights;
  weights.uids = weights.values = {1};
  ReconcileFacts facts;
  facts.epoch_block = 106;
  facts.intents = {
      effected(plan_weights(rule, weights, 103, drand_round_time(20'000'000), {}), 103)};
  EXPECT_THAT(
      reconcile(ledger, chain, facts).at(0).cause,
      HasSubstr("not in force yet: committed in block 103, the chain opens it in its epoch 11"));
  rule.rule = WeightsRule::plain;
  facts.intents = {effected(plan_weights(rule, weights, 108, {}, {}), 108)};
  EXPECT_EQ(reconcile(ledger, chain, facts).at(0).cause,
            "not in force yet: set in block 108, the chain's epoch ran in block 106");
  facts.intents[0].outcome->block = 101;
  EXPECT_THAT(reconcile(ledger, chain, facts).at(0).cause, HasSubstr("another program"));
  facts.in_force = true;
  facts.same_weights = false;
  EXPECT_THAT(reconcile(ledger, chain, facts).at(0).cause, HasSubstr("scores changed"));
}

TEST(Plans, WarnOfSchedulesThatHurt) {
  SubnetRule rule;
  EXPECT_THAT(schedule_warnings(rule).at(0), HasSubstr("tempo is 0"));
  rule.epochs.tempo = 100;
  EXPECT_TRUE(schedule_warnings(rule).empty());
  rule.rule = WeightsRule::hash_commit;
  rule.reveal_period = 3;
  rule.immunity_period = 200;
  rule.rate_limit = 150;
  EXPECT_EQ(schedule_warnings(rule).size(), 2u);
}

TEST(Plans, ServeWritesTheAddressAsTheChainsNumber) {
  const PublicKey key;
  EXPECT_EQ(json::parse(serve_intent("a", key, Netuid{1}, "1.2.3.4", 80).arguments)["ip"],
            "0x01020304");
  EXPECT_EQ(json::parse(serve_intent("a", key, Netuid{1}, "::2", 80).arguments)["ip_type"], 6);
  EXPECT_THROW(serve_intent("a", key, Netuid{1}, "example.com", 80), Error);
}

TEST(Reconcile, StatesEveryDifferenceWithItsCause) {
  const std::vector<NeuronResult> ledger{
      {Uid{0}, "a", 10, 20, 30, 40}, {Uid{1}, "b", 11, 0, 5, 6}, {Uid{2}, "c", 1, 1, 1, 1}};
  std::vector<NeuronResult> chain{
      {Uid{0}, "a", 10, 20, 30, 41}, {Uid{1}, "b", 12, 0, 5, 6}, {Uid{3}, "d", 0, 0, 0, 0}};
  ReconcileFacts facts;
  facts.our_uid = Uid{9};
  facts.chain_weights = {{Uid{9}, {{1, 5}}}, {Uid{8}, {{1, 7}}}};
  const auto differences = reconcile(ledger, chain, facts);
  ASSERT_EQ(differences.size(), 4u);
  EXPECT_EQ(differences[0].field, "stake");
  EXPECT_EQ(differences[1].field, "incentive");
  EXPECT_EQ(differences[1].cause, "1 other validators' weights name this uid");
  EXPECT_EQ(differences[2].cause, "not registered on the chain");
  EXPECT_EQ(differences[3].cause, "not in the ledger");
  IntentStatus refused;
  refused.intent.call = "set_weights";
  refused.phase = "refused";
  refused.outcome = Outcome{};
  refused.outcome->reason = "SubtensorModule.SettingWeightsTooFast";
  facts.intents = {refused};
  EXPECT_THAT(reconcile(ledger, chain, facts)[1].cause, HasSubstr("SettingWeightsTooFast"));
  EXPECT_TRUE(reconcile(ledger, ledger, facts).empty());
}

}  // namespace
}  // namespace yumoe::settlement
