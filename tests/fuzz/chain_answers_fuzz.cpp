// What a chain node answers, as the reader and the settlement's driver take it: headers, blocks, storage
// values, events, runtime versions, fees, subscriptions, statuses of transactions, error objects. A recorded
// runtime and its storage; the input says what is asked and which answers are bent, and how.
//
// The line itself is left out (RpcClient is defined here, with the client's own reading of messages), so
// that an input is one chain of answers and not a race of threads.

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "cluster/error.hpp"
#include "coordinator/chain_data.hpp"
#include "coordinator/chain_reader.hpp"
#include "coordinator/extrinsic.hpp"
#include "coordinator/settlement_target.hpp"
#include "coordinator/timelock.hpp"

namespace yumoe {
namespace {

using nlohmann::json;

constexpr std::size_t kKeysMax =
    512;  // a node refuses more at once: one input must not take seconds

// The input, byte by byte; zeros after its end.
class Wishes {
 public:
  Wishes() = default;
  Wishes(const std::uint8_t* data, std::size_t size) : left_(data, size) {}
  std::uint8_t byte() {
    if (left_.empty()) return 0;
    const std::uint8_t first = left_[0];
    left_ = left_.subspan(1);
    return first;
  }
  ByteView bytes(std::size_t count) {
    const ByteView taken = left_.first(std::min(count, left_.size()));
    left_ = left_.subspan(taken.size());
    return taken;
  }
  bool over() const { return left_.empty(); }

 private:
  ByteView left_;
};

std::string hex(ByteView bytes) { return "0x" + to_hex(bytes); }

struct World {
  World() {
    const std::string raw = read_chain_data("metadata_spec218_v14.gz");
    metadata_text = hex(Bytes(raw.begin(), raw.end()));
    metadata = Metadata::parse(from_hex(metadata_text.substr(2)));
    const json setup = json::parse(read_chain_data("rpc/setup_storage.json.gz"));
    for (const auto& pair : setup.at("pairs")) storage[pair[0]] = pair[1];
    for (const auto& outcome : json::parse(read_chain_data("rpc/outcomes.json.gz"))) {
      if (outcome["label"] == "set_weights good (ed25519)") events = outcome["events_hex"];
    }
  }
  json answer_to(const std::string& method, const json& params);
  static std::string hash_of(std::uint64_t number) {
    return "0x" + digest_of(as_bytes("fuzzed block " + std::to_string(number))).hex();
  }
  json header() const {
    return {{"number", "0x" + to_hex(Bytes{static_cast<std::uint8_t>(number >> 16),
                                           static_cast<std::uint8_t>(number >> 8),
                                           static_cast<std::uint8_t>(number)})},
            {"parentHash", hash_of(number - 1)}};
  }

  std::string metadata_text, events;
  Metadata metadata;
  std::map<std::string, json> storage;
  std::uint64_t number = 5'000;
  std::vector<std::string> pool;  // what was sent stands in the block asked for next
  Wishes wishes;
};

World& world() {
  static World one;
  return one;
}

json World::answer_to(const std::string& method, const json& params) {
  if (method == "chain_getFinalizedHead") return hash_of(++number);
  if (method == "chain_getHeader") return header();
  if (method == "chain_getBlockHash") {
    return hash_of(params.at(0).is_number_unsigned() ? params.at(0).get<std::uint64_t>() : 0);
  }
  if (method == "chain_getBlock") {
    json extrinsics = json::array({"0x00"});
    for (const std::string& extrinsic : pool) extrinsics.push_back(extrinsic);
    json block = header();
    for (std::uint64_t back = 0; back < 64; ++back) {  // the one that was asked about
      if (hash_of(number - back) == params.at(0)) {
        block["number"] = "0x" + to_hex(Bytes{static_cast<std::uint8_t>((number - back) >> 8),
                                              static_cast<std::uint8_t>(number - back)});
        break;
      }
    }
    return {{"block", {{"header", block}, {"extrinsics", extrinsics}}}};
  }
  if (method == "state_getRuntimeVersion") {
    return {{"specName", "node-subtensor"}, {"specVersion", 218}, {"transactionVersion", 1}};
  }
  if (method == "state_getMetadata") return metadata_text;
  if (method == "system_accountNextIndex") return 3;
  if (method == "author_pendingExtrinsics") return pool;
  if (method == "payment_queryInfo") return {{"partialFee", "1234"}};
  if (method == "state_getStorage") {
    static const std::string events_key = hex(storage_prefix("System", "Events"));
    if (params.at(0) == events_key) return events;
    const auto found = storage.find(params.at(0));
    return found == storage.end() ? json() : found->second;
  }
  if (method == "state_queryStorageAt") {
    json changes = json::array();
    for (const json& key : params.at(0)) {
      const auto found = storage.find(key);
      changes.push_back({key, found == storage.end() ? json() : found->second});
    }
    return json::array({{{"block", params.at(1)}, {"changes", changes}}});
  }
  if (method == "state_getKeysPaged") {
    json page = json::array();
    const std::string start = params.at(2).is_null() ? "" : params.at(2).get<std::string>();
    for (const auto& [key, value] : storage) {
      if (key.starts_with(params.at(0).get<std::string>()) && key > start) page.push_back(key);
    }
    return page;
  }
  return {{"no", "such method"}};
}

// Replaces one value somewhere in the answer.
void bend(json& answer, Wishes& wishes) {
  json* at = &answer;
  for (int depth = 0; depth < 6 && at->is_structured() && !at->empty(); ++depth) {
    auto inner = at->begin();
    std::advance(inner, wishes.byte() % at->size());
    at = &*inner;
    if (wishes.byte() % 4 == 0) break;
  }
  switch (wishes.byte() % 8) {
    case 0: *at = json(); break;
    case 1: *at = hex(wishes.bytes(wishes.byte())); break;
    case 2: *at = wishes.byte() << wishes.byte() % 24; break;
    case 3: *at = json::array({wishes.byte(), hex(wishes.bytes(4))}); break;
    case 4: *at = json{{"bits", -1.5}}; break;
    case 5: {  // a value that grows or shrinks
      if (!at->is_string()) break;
      std::string text = *at;
      if (text.size() > 2) text.resize(2 + (text.size() - 2) * (wishes.byte() % 4) / 2, '0');
      *at = text;
      break;
    }
    case 6: {  // bytes within a value
      if (!at->is_string()) break;
      std::string text = *at;
      for (int i = 0; i < 4 && text.size() > 2; ++i) {
        text[2 + wishes.byte() % (text.size() - 2)] = "0123456789abcdef"[wishes.byte() % 16];
      }
      *at = text;
      break;
    }
    default: *at = std::string(wishes.byte() % 4 * 100, '9'); break;
  }
}

// The node's next message to this call, as text.
std::string message_to(const std::string& method, const json& params) {
  World& w = world();
  const std::uint8_t how = w.wishes.byte();
  const std::string head = R"({"jsonrpc":"2.0","id":1,)";
  // fuzz_scale bends metadata; another version has it parsed anew, so that only some inputs have one.
  const bool is_metadata =
      method == "state_getMetadata" || (method == "state_getRuntimeVersion" && how < 192);
  if (how % 16 == 1 && !is_metadata) {
    const ByteView text = w.wishes.bytes(w.wishes.byte());
    return head + "\"result\":" + std::string(text.begin(), text.end()) + "}";
  }
  if (how % 16 == 2) {
    const ByteView text = w.wishes.bytes(w.wishes.byte());
    const json error{{"code", static_cast<int>(w.wishes.byte()) + 950},
                     {"message", std::string(text.begin(), text.end())}};
    return head + "\"error\":" + error.dump(-1, ' ', false, json::error_handler_t::replace) + "}";
  }
  if (how % 16 == 3) {
    static const char* const errors[] = {
        R"({"code":1010,"message":"Invalid Transaction","data":"Transaction is outdated"})",
        R"({"code":1010,"message":"{\"invalid\":{\"custom\":5}}"})",
        R"({"code":1012,"message":"Transaction is temporarily banned"})",
        R"({"code":1013,"message":"Already Imported","data":"Transaction is already imported"})",
        R"x({"code":1014,"message":"Priority is too low: (1 vs 2)"})x",
        R"({"code":4003,"message":"Client error: UnknownBlock: State already discarded for 0xab"})",
        R"({"code":-32601,"message":"Method not found"})"};
    return head + "\"error\":" + errors[w.wishes.byte() % std::size(errors)] + "}";
  }
  if (method == "state_queryStorageAt" && params.at(0).size() > kKeysMax) {
    return head + R"("error":{"code":-32005,"message":"too many keys"}})";
  }
  if (method == "state_call") {
    if (how % 16 < 8) return head + R"("error":{"code":-32601,"message":"Method not found"}})";
    return head + "\"result\":\"" + hex(w.wishes.bytes(how)) + "\"}";
  }
  json answer = w.answer_to(method, params);
  if (how % 16 > 7 && !is_metadata) bend(answer, w.wishes);
  return head + "\"result\":" + answer.dump() + "}";
}

class Notices final : public RpcSubscription {
 public:
  explicit Notices(std::string method) : method_(std::move(method)) {}
  std::optional<RpcNotice> next(std::chrono::milliseconds) override {
    Wishes& wishes = world().wishes;
    const std::uint8_t how = wishes.byte();
    if (how < 64 || ++told_ > 20) return std::nullopt;
    if (how < 80) return RpcNotice{static_cast<RpcNotice::Kind>(how % 4), "{}"};
    json value;
    if (method_ == "author_submitAndWatchExtrinsic") {
      static const char* const statuses[] = {
          R"("ready")",   R"({"ready":null})", R"({"broadcast":["a"]})", R"({"usurped":"0x00"})",
          R"("dropped")", R"("invalid")",      R"({"future":null})"};
      if (how % 8 == 7) {
        value = {{"inBlock", World::hash_of(how)}};
      } else {
        value = json::parse(statuses[how % 8]);
      }
    } else {
      value = world().header();
    }
    if (how % 3 == 0) bend(value, wishes);
    // As it would come: within a message.
    const std::string text =
        R"({"jsonrpc":"2.0","method":"m","params":{"subscription":1,"result":)" + value.dump() +
        "}}";
    return RpcNotice{RpcNotice::Kind::value, rpc_message_from(text).json};
  }

 private:
  std::string method_;
  int told_ = 0;
};

}  // namespace

// --- the line, replaced ---------------------------------------------------------------------------------

class RpcClient::Engine {};
RpcClient::RpcClient(ChainRpcOptions) {}
RpcClient::~RpcClient() = default;
void RpcClient::close() {}
std::string RpcClient::endpoint() const { return "ws://fuzzed"; }
std::string RpcClient::last_failure() const { return ""; }
std::uint64_t RpcClient::connections_made() const { return 1; }

RpcError::RpcError(ErrorCode code, std::string_view context, std::int64_t rpc_code,
                   std::string message, std::string data)
    : Error(code, context),
      rpc_code_(rpc_code),
      message_(std::move(message)),
      data_(std::move(data)) {}

std::string RpcClient::call(std::string_view method, std::string_view params, Repeat,
                            std::chrono::milliseconds) {
  const RpcMessage message = rpc_message_from(message_to(std::string(method), json::parse(params)));
  if (message.kind == RpcMessage::Kind::answer) return message.json;
  const bool pruned = message.error_message.find("discarded") != std::string::npos;
  throw RpcError(pruned ? ErrorCode::chain_state_pruned : ErrorCode::rpc_failed, method,
                 message.error_code, message.error_message, message.error_data);
}

std::unique_ptr<RpcSubscription> RpcClient::subscribe(std::string_view method,
                                                      std::string_view params, std::string_view,
                                                      Repeat repeat) {
  call(method == "author_submitAndWatchExtrinsic" ? "system_accountNextIndex" : "chain_getHeader",
       "[]", repeat, {});  // an id, or a refusal
  if (method == "author_submitAndWatchExtrinsic") {
    world().pool.push_back(json::parse(params).at(0));
    if (world().pool.size() > 8) world().pool.erase(world().pool.begin());
  }
  return std::make_unique<Notices>(std::string(method));
}

namespace {

void read(std::uint8_t what, ChainNode& node, MetadataCache& metadata) {
  if (what == 0) {
    node.pending_extrinsics();
    node.block(node.finalized_head());
    return;
  }
  ChainReader reader(node, {}, &metadata);
  constexpr const char* kKey = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY";
  switch (what) {
    case 1: reader.metagraph(Netuid{2}); break;
    case 2: reader.hyperparameters(Netuid{2}); break;
    case 3: reader.pool(Netuid{2}); break;
    case 4: reader.balance(kKey); break;
    case 5: reader.uid_of(Netuid{2}, kKey); break;
    case 6: reader.fee(Bytes(64, 1)); break;
    case 7: reader.subnets(); break;
    case 8: reader.weights_of(Netuid{2}, Uid{1}); break;
    default: settlement::read_subnet_rule(node, reader.metadata(), reader.block_hash(), Netuid{2});
  }
}

// Settles and polls; anew after some inputs, so that memory stays bounded and most of a find is in one input.
class Settling {
 public:
  Settling() : client_({}) {
    settlement::SubstrateOptions options;
    options.salt_seed = Bytes(32, 7);
    options.settlement.era_blocks = 8;
    options.now = [] { return drand_round_time(20'000'000); };
    target_ = std::make_unique<settlement::SubstrateSettlement>(
        client_, journal_,
        [this](const PublicKey& signer) { return signer == key_.public_key() ? &key_ : nullptr; },
        options);
  }
  void go() {
    settlement::SubnetWeights weights;
    weights.netuid = Netuid{2};
    weights.ledger_epoch = ++epoch_;
    weights.validator = key_.public_key();
    weights.uids = weights.values = {1, 2, 3};
    target_->settle(weights);
    // Whatever is answered is the chain's trouble, never an exception: poll() throws for the disk alone.
    for (int i = 0; i < 12 && !world().wishes.over(); ++i) target_->poll({});
  }
  std::uint64_t epochs() const { return epoch_; }

 private:
  const Keypair key_ = Keypair::from_seed(KeyType::ed25519, Bytes(32, 1));
  RpcClient client_;
  settlement::MemoryJournal journal_;
  std::unique_ptr<settlement::SubstrateSettlement> target_;
  std::uint64_t epoch_ = 0;
};

}  // namespace
}  // namespace yumoe

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace yumoe;
  static MetadataCache metadata;
  static std::unique_ptr<Settling> settling;
  world().wishes = Wishes(data, size);
  const std::uint8_t what = world().wishes.byte() % 16;
  if (what > 9) {
    if (!settling || settling->epochs() >= 100) {
      world().number = 5'000;
      world().pool.clear();
      settling = std::make_unique<Settling>();
    }
    settling->go();
    return 0;
  }
  RpcClient client({});
  ChainNode node(client);
  try {
    read(what, node, metadata);
  } catch (const Error&) {
    // Refused by name.
  }
  return 0;
}
