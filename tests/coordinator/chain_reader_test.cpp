// What is read of a subnet, against the storage that was set before the recorded session.

#include "coordinator/chain_reader.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "cluster/error.hpp"
#include "coordinator/recorded_chain.hpp"

namespace yumoe {
namespace {

using nlohmann::json;

class Reading : public ::testing::Test {
 protected:
  Reading() {
    ChainRpcOptions options;
    options.endpoints = {chain.node.url()};
    client = std::make_unique<RpcClient>(options);
    node = std::make_unique<ChainNode>(*client);
  }
  // The key of the recorded session by its role.
  static std::string ss58_of(const char* role) {
    return json::parse(test::read_recorded(
        "tests/conformance/data/chain/rpc/setup_storage.json.gz"))["keys"][role]["ss58"];
  }
  test::RecordedChain chain;
  std::unique_ptr<RpcClient> client;
  std::unique_ptr<ChainNode> node;
};

TEST_F(Reading, TheMetagraphHasEveryNeuronOfTheBlockWithItsKeys) {
  ChainReader reader(*node);
  EXPECT_EQ(reader.block(), 5000u);
  EXPECT_EQ(reader.runtime().spec_version, 218u);
  const Metagraph graph = reader.metagraph(Netuid{2});
  ASSERT_EQ(graph.neurons.size(), 4u);
  EXPECT_EQ(graph.neurons[0].hotkey, ss58_of("validator_V"));
  EXPECT_EQ(graph.neurons[1].hotkey, ss58_of("miner_M"));
  for (std::size_t uid = 0; uid < graph.neurons.size(); ++uid) {
    EXPECT_EQ(graph.neurons[uid].uid.value, uid);
    EXPECT_TRUE(graph.neurons[uid].stake);
  }
  EXPECT_EQ(graph.neurons[0].coldkey, ss58_of("coldkey_O"));
  EXPECT_GT(*graph.neurons[0].stake, 0u);
  EXPECT_EQ(graph.neurons[0].axon.ip, "");
  EXPECT_EQ(graph.weights.size(), 4u);
}

TEST_F(Reading, HyperparametersAreWhateverTheRuntimeKeepsBySubnet) {
  ChainReader reader(*node);
  std::map<std::string, std::string> found;
  for (const auto& [name, value] : reader.hyperparameters(Netuid{2})) found[name] = value;
  EXPECT_EQ(found["Tempo"], "99");
  EXPECT_EQ(found["WeightsVersionKey"], "5");
  EXPECT_EQ(found["MinAllowedWeights"], "2");
  EXPECT_TRUE(found.contains("Kappa"));  // by its default
  EXPECT_FALSE(found.contains("NoSuchParameter"));
  EXPECT_GT(found.size(), 30u);
}

TEST_F(Reading, SubnetsPoolsAndBalancesAreRead) {
  ChainReader reader(*node);
  EXPECT_THAT(reader.subnets(), ::testing::Contains(Netuid{2}));
  const SubnetPool pool = reader.pool(Netuid{2});
  EXPECT_TRUE(pool.tao);
  EXPECT_FALSE(pool.moving_price);  // this runtime has none, and none is made up
  EXPECT_EQ(reader.balance(ss58_of("validator_V")).nonce, 0u);
}

TEST_F(Reading, TheFeeIsWhatTheRuntimeAsksAsItWasRecorded) {
  EXPECT_EQ(ChainReader(*node).fee(Bytes(150, 1)), "0");
}

TEST_F(Reading, AFeeMayBeOf128BitsAndItsWeightIsOfTheRuntimesOwnForm) {
  std::string answer;
  chain.node.answer("state_call", [&](const std::string& params) {
    const bool fee = json::parse(params)[0] == "TransactionPaymentApi_query_info";
    return fee ? test::Reply{.result = "\"0x" + answer + "\""}
               : test::Reply{.error = R"({"code":-32601,"message":"Method not found"})"};
  });
  ChainReader reader(*node);
  answer =
      "07805737151d0000"
      "5802560000000000"
      "0000000000000000";  // the recorded weight and class
  EXPECT_EQ(reader.fee(Bytes(150, 1)), "5636696");
  for (const char* bad : {"07805737151d0000"
                          "58025600",
                          "07805737151d0000",
                          "07805737151d0000"
                          "5802560000000000"
                          "0100000000000000"}) {
    answer = bad;
    EXPECT_THROW(reader.fee(Bytes(150, 1)), Error) << bad;
  }
}

TEST_F(Reading, AddressesOfAChainWithAnotherPrefixAreYumoesOwn) {
  // The recorded runtime with the prefix constant 0x002a changed to 2; its name is followed by type,
  // length and value.
  std::string raw = test::read_recorded("tests/conformance/data/chain/metadata_spec218_v14.gz");
  const std::size_t at = raw.find("SS58Prefix");
  ASSERT_NE(at, std::string::npos);
  const std::size_t value = raw.find(std::string("\x08\x2a\x00", 3), at);
  ASSERT_LT(value, at + 20);
  raw[value + 1] = 2;
  chain.node.answer("state_getMetadata", [raw](const std::string&) {
    return test::Reply{.result = "\"0x" + to_hex(as_bytes(raw)) + "\""};
  });
  ChainReader reader(*node);
  EXPECT_EQ(reader.metadata().ss58_prefix(), 2u);
  const Metagraph graph = reader.metagraph(Netuid{2});
  EXPECT_EQ(graph.neurons[1].hotkey, ss58_of("miner_M"));
  EXPECT_EQ(reader.uid_of(Netuid{2}, graph.neurons[1].hotkey), Uid{1});
}

TEST_F(Reading, AHotkeyHasItsNeuronOrNone) {
  ChainReader reader(*node);
  EXPECT_EQ(reader.uid_of(Netuid{2}, ss58_of("miner_M")), Uid{1});
  EXPECT_FALSE(reader.uid_of(
      Netuid{2}, to_ss58(Keypair::from_uri(KeyType::sr25519, "//Nobody").public_key())));
}

TEST(ReadingNewer, APoolIsPricedByTheRuntimesOwnFormula) {
  test::RecordedChain chain(test::RecordedChain::Runtime::spec461);
  ChainRpcOptions options;
  options.endpoints = {chain.node.url()};
  RpcClient client(options);
  ChainNode node(client);
  const auto set = [&](const char* pallet, const char* item, std::uint64_t value, int bytes) {
    Bytes raw;
    for (int i = 0; i < bytes; ++i) raw.push_back(static_cast<std::uint8_t>(value >> (8 * i)));
    chain.set_storage("0x" + to_hex(chain.metadata.storage_key(pallet, item, json::array({2}))),
                      "0x" + to_hex(raw));
  };
  set("SubtensorModule", "SubnetMechanism", 1, 2);
  set("SubtensorModule", "SubnetTAO", 3'000'000'000, 8);
  set("SubtensorModule", "SubnetAlphaIn", 12'000'000'000, 8);
  ChainReader reader(node);
  EXPECT_EQ(reader.runtime().spec_version, 461u);
  SubnetPool pool = reader.pool(Netuid{2});  // weights at their default of a half
  EXPECT_EQ(pool.formula, "balancer");
  EXPECT_DOUBLE_EQ(*pool.quote_weight, 0.5);
  EXPECT_DOUBLE_EQ(*pool.price, 0.25);
  set("Swap", "SwapBalancer", 200'000'000'000'000'000, 8);
  pool = reader.pool(Netuid{2});  // ledger.md 10.1: (0.8 / 0.2) * (3 / 12)
  EXPECT_DOUBLE_EQ(*pool.price, 1.0);
  set("SubtensorModule", "SubnetMechanism", 0, 2);
  EXPECT_EQ(reader.pool(Netuid{2}).formula, "fixed");
  EXPECT_DOUBLE_EQ(*reader.pool(Netuid{2}).price, 1.0);
}

TEST_F(Reading, ABlockTheNodeDoesNotKnowIsAnError) {
  try {
    ChainReader::at(*node, 7);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::chain_state_pruned);
  }
}

}  // namespace
}  // namespace yumoe
