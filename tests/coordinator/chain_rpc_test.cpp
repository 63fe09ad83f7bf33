// What the line to a chain node promises, against a node that replays a recorded session over a
// real WebSocket and fails in every way we could think of.

#include "coordinator/chain_rpc.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>
#include <nlohmann/json.hpp>
#include <thread>

#include "coordinator/scripted_node.hpp"

namespace yumoe {
namespace {

using namespace std::chrono_literals;
using test::Fault;
using test::Reply;
using test::ScriptedNode;
using ::testing::HasSubstr;

constexpr const char* kGenesis =
    "0x4545454545454545454545454545454545454545454545454545454545454545";

ChainRpcOptions quick(std::vector<std::string> endpoints) {
  ChainRpcOptions options;
  options.endpoints = std::move(endpoints);
  options.pause_first_ms = 5;
  options.pause_max_ms = 40;
  options.connect_timeout_ms = 2'000;
  options.call_timeout_ms = 3'000;
  options.message_bytes_max = 512 << 10;
  return options;
}

Digest digest(const std::string& hex) {
  const Bytes bytes = from_hex(hex);
  Digest out;
  std::copy(bytes.begin(), bytes.end(), out.bytes.begin());
  return out;
}

ErrorCode code_of(const auto& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.code();
  }
  return ErrorCode::invariant_broken;  // stands for "did not throw"
}

class ChainLine : public ::testing::Test {
 protected:
  ChainLine() { node.load_transcript(); }
  ScriptedNode node;
};

TEST_F(ChainLine, ReadsTheRecordedNode) {
  RpcClient client(quick({node.url()}));
  ChainNode chain(client);
  EXPECT_EQ(chain.genesis_hash(), digest(kGenesis));
  const Digest head = chain.finalized_head();
  EXPECT_EQ(head.hex(), "0074e7d783a7aaeb9b992c9c3ab636d076fc014b437a896ab05c15e84499e938");
  const RuntimeVersion version = chain.runtime_version();
  EXPECT_EQ(version.spec_name, "node-subtensor");
  EXPECT_EQ(version.spec_version, 218u);
  EXPECT_EQ(version.transaction_version, 1u);
  EXPECT_EQ(chain.next_nonce("5FCM8VvFKfKzQnmkT7X9kDY6xMcgeGYRK8tmSbfwpXyM1CvS"), 0u);
  const ChainBlock block =
      chain.block(digest("fe9dc03ca5b2afa360ce8517609a794083c1a63f405371b8c7b6a347b77b867e"));
  EXPECT_EQ(block.header.number, 5001u);
  EXPECT_EQ(block.header.parent, head);
  EXPECT_EQ(block.extrinsics.size(), 2u);
  EXPECT_EQ(client.endpoint(), node.url());
}

TEST_F(ChainLine, TellsARecordedErrorByCodeAndText) {
  RpcClient client(quick({node.url()}));
  try {
    client.call("foo_bar", "[]");
    FAIL();
  } catch (const RpcError& error) {
    EXPECT_EQ(error.code(), ErrorCode::rpc_failed);
    EXPECT_EQ(error.rpc_code(), -32601);
    EXPECT_THAT(error.what(), HasSubstr("Method not found: foo_bar"));
  }
}

TEST_F(ChainLine, WatchesEveryRecordedSubmissionToItsRecordedEnd) {
  RpcClient client(quick({node.url()}));
  ChainNode chain(client);
  const auto outcomes = nlohmann::json::parse(test::read_recorded(test::kOutcomes));
  std::size_t watched = 0, refused = 0;
  for (const auto& outcome : outcomes) {
    if (!outcome.contains("extrinsic_hex")) continue;
    SCOPED_TRACE(outcome["label"].get<std::string>());
    const Bytes extrinsic = from_hex(outcome["extrinsic_hex"].get<std::string>());
    if (!outcome["rpc_error"].is_null()) {
      try {
        chain.submit(extrinsic);
        ADD_FAILURE() << "was not refused";
      } catch (const RpcError& error) {
        EXPECT_EQ(error.rpc_code(), outcome["rpc_error"]["code"].get<int>());
        EXPECT_EQ(error.message(), outcome["rpc_error"]["message"].get<std::string>());
        ++refused;
      }
      continue;
    }
    TransactionWatch watch = chain.submit(extrinsic);
    std::optional<TransactionStatus> status;
    for (const auto& recorded : outcome["notifications"]) {
      status = watch.next(3s);
      ASSERT_TRUE(status);
      const std::string name =
          recorded.is_string() ? recorded.get<std::string>() : recorded.begin().key();
      const std::string ours(name_of(status->kind));
      EXPECT_EQ(ours == "in_block" ? "inBlock" : ours, name);
      if (status->block) {
        EXPECT_EQ("0x" + status->block->hex(), recorded.begin().value());
      }
    }
    EXPECT_TRUE(status->final());
    ++watched;
  }
  EXPECT_GE(watched, 30u);
  EXPECT_GE(refused, 8u);
}

TEST_F(ChainLine, ReadsManyKeysAtOneBlockAndGivesThemInTheOrderAsked) {
  // The recorded question, with the block added as we always do.
  nlohmann::json question, recorded;
  std::istringstream lines(test::read_recorded(test::kTranscript));
  for (std::string line; std::getline(lines, line);) {
    const auto entry = nlohmann::json::parse(line);
    if (!entry.contains("msg")) continue;
    const auto& message = entry["msg"];
    if (message.value("method", "") == "state_queryStorageAt") question = message;
    if (!question.is_null() && message.value("id", 0) == question["id"] &&
        message.contains("result")) {
      recorded = message["result"];
    }
  }
  ASSERT_FALSE(recorded.is_null());
  node.answer("state_queryStorageAt",
              [&](const std::string&) { return Reply{.result = recorded.dump()}; });
  RpcClient client(quick({node.url()}));
  ChainNode chain(client);
  std::vector<Bytes> keys;
  for (const auto& key : question["params"][0]) keys.push_back(from_hex(key.get<std::string>()));
  std::reverse(keys.begin(), keys.end());
  const Digest at = digest(recorded[0]["block"].get<std::string>());
  const auto values = chain.storage(keys, at);
  ASSERT_EQ(values.size(), keys.size());
  for (const auto& change : recorded[0]["changes"]) {
    const Bytes key = from_hex(change[0].get<std::string>());
    const auto place = std::find(keys.begin(), keys.end(), key) - keys.begin();
    const auto& value = values[static_cast<std::size_t>(place)];
    EXPECT_EQ(value.has_value(), !change[1].is_null());
    if (value) {
      EXPECT_EQ("0x" + to_hex(*value), change[1].get<std::string>());
    }
  }
  // A key that is asked for twice (two neurons of one hotkey) goes over the line once.
  keys.push_back(keys.front());
  EXPECT_EQ(chain.storage(keys, at).back(), values.front());
  const auto asked = nlohmann::json::parse(node.received().back().second);
  EXPECT_EQ(asked[0].size() + 1, keys.size());
  keys.pop_back();
  // An answer about another block, or with a key left out, is an error and not a value.
  EXPECT_EQ(code_of([&] { chain.storage(keys, Digest{}); }), ErrorCode::message_malformed);
  recorded[0]["changes"].erase(0);
  EXPECT_EQ(code_of([&] { chain.storage(keys, at); }), ErrorCode::message_malformed);
}

TEST_F(ChainLine, RepeatsAReadThroughEveryKindOfBrokenAnswer) {
  for (const Fault fault : {Fault::disconnect, Fault::answer_then_drop, Fault::garbage,
                            Fault::not_rpc, Fault::deep, Fault::unknown_id}) {
    RpcClient client(quick({node.url()}));
    ChainNode chain(client);
    node.fault("chain_getFinalizedHead", fault, 2);
    EXPECT_EQ(chain.finalized_head().hex().substr(0, 8), "0074e7d7");
    EXPECT_GE(client.connections_made(), 3u) << static_cast<int>(fault);
  }
}

TEST_F(ChainLine, NeverRepeatsASubmissionThatMayHaveArrived) {
  for (const Fault fault : {Fault::disconnect, Fault::answer_then_drop, Fault::garbage}) {
    RpcClient client(quick({node.url()}));
    ChainNode chain(client);
    const std::size_t before = node.received("author_submitAndWatchExtrinsic");
    node.fault("author_submitAndWatchExtrinsic", fault);
    EXPECT_EQ(code_of([&] { chain.submit(Bytes{1, 2, 3}); }), ErrorCode::peer_unreachable);
    chain.finalized_head();
    EXPECT_EQ(node.received("author_submitAndWatchExtrinsic"), before + 1);
  }
}

TEST_F(ChainLine, GivesUpAtTheDeadlineOfTheCallAndSaysWhy) {
  ChainRpcOptions options = quick({node.url()});
  options.call_timeout_ms = 80;
  RpcClient client(options);
  node.fault("chain_getFinalizedHead", Fault::silence);
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(code_of([&] { client.call("chain_getFinalizedHead", "[]"); }),
            ErrorCode::peer_unreachable);
  EXPECT_GE(std::chrono::steady_clock::now() - start, 80ms);
  EXPECT_EQ(client.call("system_chain", "[]"), "\"bittensor\"");  // the line is still good
}

TEST_F(ChainLine, AnAnswerAfterItsDeadlineIsDroppedAndConfusesNobody) {
  RpcClient client(quick({node.url()}));
  client.call("system_chain", "[]");
  node.delay("chain_getFinalizedHead", 120ms);
  EXPECT_EQ(code_of([&] { client.call("chain_getFinalizedHead", "[]", Repeat::yes, 30ms); }),
            ErrorCode::peer_unreachable);
  std::this_thread::sleep_for(150ms);
  EXPECT_EQ(client.call("system_name", "[]"), "\"Bittensor\"");
  EXPECT_EQ(client.connections_made(), 1u);
}

TEST_F(ChainLine, RefusesAMessageLargerThanAllowed) {
  RpcClient client(quick({node.url()}));
  node.fault("chain_getFinalizedHead", Fault::oversized);
  EXPECT_EQ(code_of([&] { client.call("chain_getFinalizedHead", "[]"); }),
            ErrorCode::message_too_large);
  EXPECT_EQ(client.call("system_chain", "[]"), "\"bittensor\"");
}

TEST_F(ChainLine, AnAnswerFromAPrunedNodeIsAnErrorAndNotAValue) {
  RpcClient client(quick({node.url()}));
  ChainNode chain(client);
  node.fault("state_getStorage", Fault::pruned);
  EXPECT_EQ(code_of([&] { chain.storage(Bytes{1}, Digest{}); }), ErrorCode::chain_state_pruned);
  node.answer("chain_getBlock", [](const std::string&) { return Reply{}; });
  EXPECT_EQ(code_of([&] { chain.block(Digest{}); }), ErrorCode::chain_state_pruned);
  node.answer("chain_getHeader", [](const std::string&) { return Reply{}; });
  EXPECT_EQ(code_of([&] { chain.header(Digest{}); }), ErrorCode::chain_state_pruned);
}

TEST_F(ChainLine, ABlockThatAForkSimulatorDoesNotKnowIsAnErrorAndNotAValue) {
  // As chopsticks 1.5.1 answers: an error of its own for blocks, nothing for what stands in them.
  const std::string block = "0x" + std::string(64, '9');
  for (const char* method : {"chain_getHeader", "chain_getBlock", "state_call"}) {
    node.answer(method, [&](const std::string&) {
      return Reply{.error = R"({"code":1,"message":"Block )" + block + R"( not found"})"};
    });
  }
  for (const char* method :
       {"state_getRuntimeVersion", "state_getMetadata", "state_getKeysPaged"}) {
    node.answer(method, [](const std::string&) { return Reply{}; });
  }
  node.answer("state_queryStorageAt", [](const std::string&) { return Reply{.result = "[]"}; });
  RpcClient client(quick({node.url()}));
  ChainNode chain(client);
  const Digest at = digest(block);
  const auto unknown = ErrorCode::chain_state_pruned;
  EXPECT_EQ(code_of([&] { chain.header(at); }), unknown);
  EXPECT_EQ(code_of([&] { chain.block(at); }), unknown);
  EXPECT_EQ(code_of([&] { chain.runtime_version(at); }), unknown);
  EXPECT_EQ(code_of([&] { chain.keys(Bytes{1}, at); }), unknown);
  EXPECT_EQ(code_of([&] { chain.storage(std::vector<Bytes>{{1}}, at); }), unknown);
  EXPECT_EQ(code_of([&] { chain.state_call("Core_version", {}, at); }), unknown);
  EXPECT_EQ(code_of([&] { chain.metadata(at); }), unknown);
  // An older runtime has no such call, and then there is no such block.
  node.answer("state_call", [](const std::string&) {
    return Reply{
        .error = R"({"code":-32603,"message":"Internal Error: Function to start was not found."})"};
  });
  EXPECT_EQ(code_of([&] { chain.metadata(at); }), unknown);
}

TEST_F(ChainLine, AWatchInstantlyAnsweredOutOfOrderIsStillRead) {
  // A simulator that builds the block while it is still answering: the end may overtake `ready`, and a
  // refusal of the runtime's class `unknown` is told as it is.
  const std::string hash = "\"0x" + std::string(64, '7') + "\"";
  std::vector<std::string> notices{"{\"inBlock\":" + hash + "}", R"({"ready":null})",
                                   R"({"broadcast":["5Grwv"]})", "{\"finalized\":" + hash + "}"};
  node.answer("author_submitAndWatchExtrinsic", [&](const std::string&) {
    return Reply{.notice_method = "author_extrinsicUpdate", .notices = notices};
  });
  RpcClient client(quick({node.url()}));
  ChainNode chain(client);
  const auto end_of = [&] {
    TransactionWatch watch = chain.submit(Bytes{1});
    auto status = watch.next(3s);
    while (status && !status->final()) status = watch.next(3s);
    return status ? status->kind : TransactionStatus::Kind::lost;
  };
  EXPECT_EQ(end_of(), TransactionStatus::Kind::finalized);
  notices = {R"({"ready":null})", R"({"unknown":{"cannotLookup":null}})"};
  EXPECT_EQ(end_of(), TransactionStatus::Kind::invalid);
}

TEST_F(ChainLine, TheTokenIsTheOneTheNodeNames) {
  RpcClient client(quick({node.url()}));
  ChainNode chain(client);
  const auto text = [&](const char* properties, const char* amount) {
    node.answer("system_properties",
                [=](const std::string&) { return Reply{.result = properties}; });
    const ChainToken token = chain.token();
    return token.text(amount) + " " + token.symbol;
  };
  EXPECT_EQ(text(R"({"ss58Format":42,"tokenDecimals":9,"tokenSymbol":"TAO"})", "135260"),
            "0.000135260 TAO");
  EXPECT_EQ(text(R"({"tokenDecimals":12,"tokenSymbol":"ROC"})", "5636696"), "0.000005636696 ROC");
  EXPECT_EQ(text(R"({"tokenDecimals":[10,6],"tokenSymbol":["DOT","USD"]})", "12345678901"),
            "1.2345678901 DOT");
  EXPECT_EQ(text(R"({"tokenDecimals":0,"tokenSymbol":"UNIT"})", "70"), "70 UNIT");
  EXPECT_EQ(text("{}", "1"), "0.000000001 TAO");
  EXPECT_EQ(text("null", "1"), "0.000000001 TAO");
  for (const char* bad : {"7", R"({"tokenDecimals":77})", R"({"tokenDecimals":-1})",
                          R"({"tokenSymbol":"T\u001b[2J"})", R"({"tokenSymbol":""})"}) {
    EXPECT_EQ(code_of([&] { text(bad, "1"); }), ErrorCode::message_malformed) << bad;
  }
}

TEST_F(ChainLine, BlockNumbersMayBeWrittenWideButNotBeBeyond32Bits) {
  RpcClient client(quick({node.url()}));
  ChainNode chain(client);
  std::string number;
  node.answer("chain_getHeader", [&](const std::string&) {
    return Reply{.result = R"({"number":)" + number + R"(,"parentHash":")" + kGenesis +
                           R"(","digest":{"logs":["0x066175726120","0x00"]},"more":1})"};
  });
  for (const char* written : {"\"0x1389\"", "\"0x0000000000001389\"", "5001"}) {
    number = written;
    EXPECT_EQ(chain.header({}).number, 5001u) << written;
  }
  for (const char* written : {"\"0x100000000\"", "4294967296", "\"5001\"", "-1", "null"}) {
    number = written;
    EXPECT_EQ(code_of([&] { chain.header({}); }), ErrorCode::message_malformed) << written;
  }
}

TEST_F(ChainLine, ChecksTheTypeOfEveryAnswer) {
  RpcClient client(quick({node.url()}));
  ChainNode chain(client);
  const auto refused = [&](const char* method, const auto& action) {
    node.fault(method, Fault::wrong_type);
    EXPECT_EQ(code_of(action), ErrorCode::message_malformed) << method;
  };
  refused("chain_getFinalizedHead", [&] { chain.finalized_head(); });
  refused("chain_getHeader", [&] { chain.header({}); });
  refused("chain_getBlockHash", [&] { chain.block_hash(7); });
  refused("chain_getBlock", [&] { chain.block({}); });
  refused("state_getRuntimeVersion", [&] { chain.runtime_version(); });
  refused("state_call", [&] { chain.state_call("x", {}, {}); });
  refused("state_getStorage", [&] { chain.storage(Bytes{1}, {}); });
  refused("state_queryStorageAt", [&] { chain.storage(std::vector<Bytes>{{1}}, {}); });
  refused("state_getKeysPaged", [&] { chain.keys(Bytes{1}, {}); });
  refused("system_accountNextIndex", [&] { chain.next_nonce("x"); });
  refused("author_pendingExtrinsics", [&] { chain.pending_extrinsics(); });
}

TEST_F(ChainLine, ReadsAllKeysPageByPageAndRefusesPagesOutOfOrder) {
  // Two full pages and one short one, written as the recorded answer writes keys.
  const auto key = [](int i) {
    char text[16];
    std::snprintf(text, sizeof text, "0xab%04x", i);
    return std::string(text);
  };
  bool loops = false;
  node.answer("state_getKeysPaged", [&](const std::string& params) {
    const auto asked = nlohmann::json::parse(params);
    int begin = 0;
    if (!asked[2].is_null() && !loops) {
      begin = std::stoi(asked[2].get<std::string>().substr(4), nullptr, 16) + 1;
    }
    nlohmann::json page = nlohmann::json::array();
    for (int i = begin; i < 2'300 && page.size() < asked[1]; ++i) page.push_back(key(i));
    return Reply{.result = page.dump()};
  });
  RpcClient client(quick({node.url()}));
  ChainNode chain(client);
  EXPECT_EQ(chain.keys(Bytes{0xab}, {}).size(), 2'300u);
  EXPECT_EQ(code_of([&] { chain.keys(Bytes{0xab}, {}, 1'500); }), ErrorCode::memory_exceeded);
  EXPECT_EQ(code_of([&] { chain.keys(Bytes{0xac}, {}); }), ErrorCode::message_malformed);
  loops = true;  // a node that gives the first page for ever
  EXPECT_EQ(code_of([&] { chain.keys(Bytes{0xab}, {}); }), ErrorCode::message_malformed);
}

TEST_F(ChainLine, TriesTheEndpointsInOrderAndReturnsToTheFirst) {
  ScriptedNode second;
  second.load_transcript();
  node.refuse(true);
  RpcClient client(quick({"ws://127.0.0.1:1", node.url(), second.url()}));
  EXPECT_EQ(client.call("system_chain", "[]"), "\"bittensor\"");
  EXPECT_EQ(client.endpoint(), second.url());
  node.refuse(false);
  second.disconnect_all();
  while (client.connections_made() < 2) std::this_thread::sleep_for(2ms);
  EXPECT_EQ(client.call("system_chain", "[]"), "\"bittensor\"");
  EXPECT_EQ(client.endpoint(), node.url());
}

TEST_F(ChainLine, RefusesAnEndpointOfAnotherChain) {
  ScriptedNode other;
  other.answer("chain_getBlockHash", [](const std::string&) {
    return Reply{.result = "\"0x" + std::string(64, '1') + "\""};
  });
  ChainRpcOptions options = quick({other.url(), node.url()});
  options.genesis = kGenesis;
  RpcClient client(options);
  EXPECT_EQ(client.call("system_chain", "[]"), "\"bittensor\"");
  EXPECT_EQ(client.endpoint(), node.url());
  EXPECT_THAT(client.last_failure(), HasSubstr("another chain"));
}

TEST_F(ChainLine, RenewsASubscriptionAfterAReconnectAndSaysSo) {
  RpcClient client(quick({node.url()}));
  ChainNode chain(client);
  FinalizedHeads heads = chain.finalized_heads();
  auto head = heads.next(3s);
  ASSERT_TRUE(head && head->header);
  EXPECT_EQ(head->header->number, 5000u);
  while (heads.next(50ms)) {  // the rest of the recorded heads
  }
  node.disconnect_all();
  head = heads.next(3s);
  ASSERT_TRUE(head);
  EXPECT_FALSE(head->header);  // resumed: look at what was missed
  node.notify("chain_subscribeFinalizedHeads", "chain_finalizedHead",
              R"({"parentHash":"0x)" + std::string(64, '2') + R"(","number":"0x00001500"})");
  bool seen = false;
  while (!seen && (head = heads.next(3s))) seen = head->header && head->header->number == 0x1500;
  EXPECT_TRUE(seen);
}

TEST_F(ChainLine, AWatchEndsWithTheConnectionThatCarriedIt) {
  RpcClient client(quick({node.url()}));
  node.answer("author_submitAndWatchExtrinsic", [](const std::string&) {
    return Reply{.notice_method = "author_extrinsicUpdate", .notices = {R"({"ready":null})"}};
  });
  ChainNode chain(client);
  TransactionWatch watch = chain.submit(Bytes{1});
  EXPECT_EQ(watch.next(3s)->kind, TransactionStatus::Kind::ready);
  node.disconnect_all();
  EXPECT_EQ(watch.next(3s)->kind, TransactionStatus::Kind::lost);
  EXPECT_EQ(watch.next(3s)->kind, TransactionStatus::Kind::lost);
}

TEST_F(ChainLine, AReaderThatIsTooSlowIsToldThatItMissedSomething) {
  ChainRpcOptions options = quick({node.url()});
  options.notices_kept_max = 4;
  node.answer("chain_subscribeFinalizedHeads", [](const std::string&) { return Reply{}; });
  RpcClient client(options);
  auto subscription =
      client.subscribe("chain_subscribeFinalizedHeads", "[]", "chain_unsubscribe", Repeat::yes);
  for (int i = 0; i < 20; ++i) {
    node.notify("chain_subscribeFinalizedHeads", "chain_finalizedHead", std::to_string(i));
  }
  std::vector<std::string> told;
  bool lagged = false;
  while (told.empty() || told.back() != "19") {
    const auto notice = subscription->next(3s);
    ASSERT_TRUE(notice);
    if (notice->kind == RpcNotice::Kind::lagged) {
      lagged = true;
    } else {
      told.push_back(notice->json);
    }
    if (told.size() == 1 && !lagged) std::this_thread::sleep_for(50ms);
  }
  EXPECT_TRUE(lagged);
  EXPECT_LT(told.size(), 20u);
}

TEST_F(ChainLine, CallsBeyondTheLimitWaitForTheirTurn) {
  ChainRpcOptions options = quick({node.url()});
  options.calls_open_max = 2;
  RpcClient client(options);
  node.delay("system_chain", 30ms, 8);
  std::vector<std::future<std::string>> answers;
  for (int i = 0; i < 8; ++i) {
    answers.push_back(
        std::async(std::launch::async, [&] { return client.call("system_chain", "[]"); }));
  }
  for (auto& answer : answers) EXPECT_EQ(answer.get(), "\"bittensor\"");
}

TEST_F(ChainLine, ClosingFailsWhoeverWaits) {
  auto client = std::make_unique<RpcClient>(quick({node.url()}));
  node.fault("chain_getFinalizedHead", Fault::silence);
  auto answer = std::async(std::launch::async, [&] {
    return code_of([&] { client->call("chain_getFinalizedHead", "[]"); });
  });
  while (node.received("chain_getFinalizedHead") == 0) std::this_thread::sleep_for(1ms);
  client.reset();
  EXPECT_EQ(answer.get(), ErrorCode::peer_unreachable);
}

TEST(ChainLineTls, SpeaksTlsToATrustedNodeOnly) {
  ScriptedNode node(true);
  node.load_transcript();
  ChainRpcOptions options = quick({node.url()});
  options.ca_file = node.certificate_file();
  {
    RpcClient client(options);
    EXPECT_EQ(client.call("system_chain", "[]"), "\"bittensor\"");
  }
  options.ca_file.clear();
  options.call_timeout_ms = 200;
  RpcClient client(options);
  EXPECT_EQ(code_of([&] { client.call("system_chain", "[]"); }), ErrorCode::peer_unreachable);
  EXPECT_THAT(client.last_failure(), HasSubstr("certificate"));
}

TEST(ChainEndpoints, AreRefusedWithTheReason) {
  for (const char* text : {"", "http://a", "ws://", "ws://a:", "ws://a:70000", "ws://a:b",
                           "ws://[::1", "ws://user@a", "ws://a b"}) {
    EXPECT_EQ(code_of([&] { RpcClient client(quick({text})); }), ErrorCode::config_invalid) << text;
  }
  EXPECT_EQ(code_of([&] { RpcClient client(quick({})); }), ErrorCode::config_invalid);
}

TEST(RpcMessages, AreTakenApart) {
  const auto answer = rpc_message_from(R"({"jsonrpc":"2.0","id":7,"result":null})");
  EXPECT_EQ(answer.kind, RpcMessage::Kind::answer);
  EXPECT_EQ(answer.id, 7u);
  EXPECT_EQ(answer.json, "null");
  const auto notice = rpc_message_from(
      R"({"jsonrpc":"2.0","method":"m","params":{"subscription":5,"result":[1]}})");
  EXPECT_EQ(notice.subscription, "5");
  EXPECT_EQ(notice.json, "[1]");
}

TEST(RpcMessages, OfEveryOtherFormAreRefused) {
  for (const char* text :
       {"", "{", "null", "[]", R"({"id":1,"result":1})", R"({"jsonrpc":"1.0","id":1,"result":1})",
        R"({"jsonrpc":"2.0","result":1})", R"({"jsonrpc":"2.0","id":-1,"result":1})",
        R"({"jsonrpc":"2.0","id":"1","result":1})", R"({"jsonrpc":"2.0","id":1})",
        R"({"jsonrpc":"2.0","id":1,"result":1,"error":{"code":1,"message":""}})",
        R"({"jsonrpc":"2.0","id":1,"error":5})", R"({"jsonrpc":"2.0","id":1,"error":{"code":1}})",
        R"({"jsonrpc":"2.0","method":"m"})", R"({"jsonrpc":"2.0","method":1,"params":{}})",
        R"({"jsonrpc":"2.0","method":"m","params":{"subscription":{},"result":1}})",
        R"({"jsonrpc":"2.0","id":1,"result":1} x)",
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":\"\xff\"}",
        R"({"jsonrpc":"2.0","id":1,"result":1e999})"}) {
    EXPECT_EQ(code_of([&] { rpc_message_from(text); }), ErrorCode::message_malformed) << text;
  }
}

}  // namespace
}  // namespace yumoe
