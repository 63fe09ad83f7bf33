// Calls on a stopped run's ledger through its journal, and a ledger that follows a chain's blocks.
#include "launch/ledger_call.hpp"

#include <gmock/gmock.h>
#include <unistd.h>

#include "cluster/error.hpp"
#include "coordinator/journal.hpp"
#include "coordinator/run_ledger.hpp"
#include "coordinator/scripted_node.hpp"
#include "launch/recorded_run.hpp"

namespace yumoe {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

constexpr std::uint64_t kTao = 1'000'000'000;

Keypair key(std::uint8_t number) {
  std::array<std::uint8_t, 32> seed{};
  seed[0] = number;
  return Keypair::from_seed(KeyType::ed25519, seed);
}

class StoppedRun : public ::testing::Test {
 protected:
  StoppedRun()
      : folder(fs::temp_directory_path() / ("ledger_call_test." + std::to_string(::getpid()))) {
    fs::remove_all(folder);
    EconomyOptions economy;
    economy.time = "followed";
    economy.owner = to_ss58(key(1).public_key());
    economy.balances = {to_ss58(key(2).public_key()) + "=10"};
    Journal journal = Journal::create(
        folder, "run-9",
        test::setup_of("run-9", ledger::LedgerOptions{}, economy).journal_metadata());
    const Bytes payload = encode(Event{Started{digest_of(as_bytes("v0")), 1}});
    const Entry entry{TimeMs{1'000'000}, "started", payload};
    journal.append({&entry, 1});
  }
  ~StoppedRun() override { fs::remove_all(folder); }

  Bytes transfer(std::uint64_t amount) const {
    return encode(ledger::Operation{
        ledger::TransferBalance{key(2).public_key().bytes, key(3).public_key().bytes, amount}});
  }
  std::string refusal_of(const Bytes& operation) const {
    try {
      return call_run(folder.string(), key(2), operation).answer.error;
    } catch (const Error& error) {
      return error.what();
    }
  }

  fs::path folder;
};

TEST_F(StoppedRun, TakesCallsIntoItsJournalAndRefusesThoseTheLedgerDoes) {
  const CallReport report = call_run(folder.string(), key(2), transfer(4 * kTao));
  EXPECT_FALSE(report.live);
  EXPECT_EQ(report.answer.nonce, 1U);
  EXPECT_EQ(report.answer.free, 6 * kTao);
  EXPECT_THAT(refusal_of(transfer(7 * kTao)),
              HasSubstr("TransferBalance: InsufficientBalance: the account's free TAO is less"));
  EXPECT_EQ(call_run(folder.string(), key(2), transfer(kTao)).answer.nonce, 2U);
  const JournalReader reader = JournalReader::open(folder);
  EXPECT_EQ(reader.size(), 3U) << "what was refused is not recorded";
  reader.for_each(2, [](const Record& record) {
    EXPECT_EQ(record.kind, "called");
    check_evidence(std::get<Called>(decode_event(record.payload)), "run-9");
    return true;
  });
}

TEST_F(StoppedRun, ALiveOneWithoutAnAddressSaysWhatToDo) {
  const Journal coordinator = Journal::open(folder);
  EXPECT_THAT(refusal_of(transfer(kTao)), HasSubstr("give the address that it printed"));
}

TEST_F(StoppedRun, FollowsTheBlocksThatAChainFinalises) {
  test::ScriptedNode node;
  node.load_transcript();
  const auto header = [](std::uint32_t number) {
    char hex[16];
    std::snprintf(hex, sizeof hex, "0x%x", number);
    return R"({"parentHash":"0x)" + std::string(64, '2') + R"(","number":")" + hex + R"("})";
  };
  node.answer("chain_getFinalizedHead", [](const std::string&) {
    return test::Reply{.result = "\"0x" + std::string(64, '1') + "\""};
  });
  node.answer("chain_getHeader",
              [&](const std::string&) { return test::Reply{.result = header(700)}; });
  node.answer("chain_subscribeFinalizedHeads", [&](const std::string&) {
    return test::Reply{.notice_method = "chain_finalizedHead",
                       .notices = {header(700), header(701), header(705)}};
  });
  ChainRpcOptions options;
  options.endpoints = {node.url()};
  RpcClient client(options);
  ChainNode chain(client);
  std::vector<std::pair<std::uint64_t, std::uint64_t>> blocks;
  follow_chain(chain, folder.string(), key(1), [&](std::uint64_t number, const CallReport& report) {
    blocks.emplace_back(number, report.answer.block);
    return number < 705;
  });
  EXPECT_EQ(blocks,
            (std::vector<std::pair<std::uint64_t, std::uint64_t>>{{700, 1}, {701, 2}, {705, 6}}));
  try {
    follow_chain(chain, folder.string(), key(2),
                 [](std::uint64_t, const CallReport&) { return false; });
    ADD_FAILURE() << "anybody may tell";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("only economy.owner"));
  }
}

}  // namespace
}  // namespace yumoe
